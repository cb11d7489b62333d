from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lab import LabError, context
from lab.domains.regression.prompts import RegressionPrompts, linear_regression, tokens
from lab.labels import Measured
from lab.models import masks
from lab.models.checkpoint import load_model
from lab.models.transformer import Architecture, Transformer
from lab.runs import Job, Store, provenance
from lab.streams import RandomStream, stream
from lab.study import Arm, Fitted, Networks, Study
from lab.training import Batch, Member, Optimisation, Trained, in_blocks, train

EXAMPLES, QUERIES, SEEDS, SYMBOLS = 4, 2, (3, 5), 5
CONTINUOUS = Architecture(width=8, layers=2, heads=2, input_size=3, output_size=1)
SYMBOLIC = Architecture(width=8, layers=1, heads=2, vocabulary=SYMBOLS, output_size=SYMBOLS)
PATTERNS = {"prefix": masks.in_context_prefix(EXAMPLES, QUERIES), "causal": masks.in_context_causal(EXAMPLES, QUERIES)}
HOW = Optimisation(steps=6, learning_rate=1e-2)


def prompts(source: RandomStream, count: int = 8) -> RegressionPrompts:
    return linear_regression(
        source, count, dimension=2, context_length=EXAMPLES, query_length=QUERIES, dtype=torch.float32
    )


def draw(seed: int, step: int) -> RegressionPrompts:
    return prompts(stream(seed, "data", step))


def encode(drawn: RegressionPrompts) -> Batch:
    return {"tokens": tokens(drawn), "labels": drawn.y_query}


def error(module: Transformer, batch: Batch, mask: Tensor) -> Tensor:
    return (module(batch["tokens"], mask)[:, :, EXAMPLES:, 0] - batch["labels"]).square().mean((1, 2))


def error_by_query(module: Transformer, batch: Batch, mask: Tensor) -> Tensor:
    return (module(batch["tokens"], mask)[:, :, EXAMPLES:, 0] - batch["labels"]).square().mean(1)


def continuous(seeds: Sequence[int]) -> Transformer:
    return Transformer(CONTINUOUS, tuple(seeds))


def regression(arms: Mapping[str, Any] = PATTERNS) -> Study[Transformer]:
    return Study(build=continuous, arms=arms, encode=encode, loss=error)


TESTS = {seed: prompts(stream(seed, "test"), 16) for seed in SEEDS}


def watched(networks: Networks[Transformer]) -> dict[str, Tensor]:
    return {"by_query": networks.numbers(TESTS, error_by_query)}


def fit(**changes: Any) -> Fitted[Transformer]:
    options: dict[str, Any] = {"measure": watched, "measure_every": 2, "axes": {"by_query": {"query": range(QUERIES)}}}
    return regression().fit(SEEDS, draw, HOW, **(options | changes))


def assert_same_bits(fitted: Fitted[Transformer], trained: Trained[Transformer]) -> None:
    assert fitted.members == trained.members
    for (name, parameter), (_, reference) in zip(
        fitted.module.named_parameters(), trained.module.named_parameters(), strict=True
    ):
        assert torch.equal(parameter, reference), name
    shape = (len(fitted.seeds), len(fitted.study.arms))
    for name, values in trained.history.items():
        if name not in ("step", "learning_rate"):
            expected = np.moveaxis(values.reshape(len(values), *shape, *values.shape[2:]), 0, 2)
            np.testing.assert_array_equal(fitted.history[name].values, expected)


def test_a_regression_study_is_the_training_written_by_hand() -> None:
    def loss(module: Transformer, batch: Batch, arms: tuple[str, ...]) -> Tensor:
        return error(module, batch, torch.stack([PATTERNS[arm] for arm in arms]))

    def evaluate(module: Transformer, members: tuple[Member, ...]) -> dict[str, Tensor]:
        mask = torch.stack([PATTERNS[member.arm] for member in members])
        rows = [encode(TESTS[member.seed]) for member in members]
        return {
            "by_query": error_by_query(module, {key: torch.stack([row[key] for row in rows]) for key in rows[0]}, mask)
        }

    trained = train(
        continuous,
        [Member(seed, arm) for seed in SEEDS for arm in PATTERNS],
        lambda seed, step: encode(draw(seed, step)),
        loss,
        HOW,
        evaluate=evaluate,
        evaluate_every=2,
    )
    assert_same_bits(fit(), trained)


def test_a_token_study_in_blocks_with_masks_of_the_prompts_is_the_training_written_by_hand() -> None:
    def sequences(seed: int, number: int, count: int) -> Batch:
        return {"tokens": torch.from_numpy(stream(seed, "data", number).rng().integers(0, SYMBOLS, (count, 6)))}

    def surprise(module: Transformer, batch: Batch, mask: Tensor) -> Tensor:
        law, wanted = module(batch["tokens"], mask)[:, :, :-1], batch["tokens"][:, :, 1:]
        losses = F.cross_entropy(law.flatten(0, 2), wanted.flatten(), reduction="none")
        return losses.view(wanted.shape).mean((1, 2))

    def pattern(arm: str, length: int) -> Tensor:
        return masks.prefix_lm(length, 2 if arm == "prefix" else 0)

    def build(seeds: Sequence[int]) -> Transformer:
        return Transformer(SYMBOLIC, tuple(seeds))

    def loss(module: Transformer, batch: Batch, arms: tuple[str, ...]) -> Tensor:
        return surprise(module, batch, torch.stack([pattern(arm, batch["tokens"].shape[2]) for arm in arms]))

    members = [Member(seed, arm) for seed in SEEDS for arm in PATTERNS]
    trained = train(build, members, in_blocks(sequences, 4, 3), loss, HOW)
    arms = {
        "prefix": lambda batch: pattern("prefix", batch["tokens"].shape[1]),
        "causal": lambda batch: pattern("causal", batch["tokens"].shape[1]),
    }
    study = Study(build=build, arms=arms, encode=None, loss=surprise)
    fitted = study.fit(SEEDS, sequences, HOW, blocks=(4, 3))
    assert_same_bits(fitted, trained)
    prompts = sequences(0, 99, 7)
    laws = fitted.predictor("prefix", 5)(prompts["tokens"], torch.full((7,), 2))
    expected = trained.module.select([2])(prompts["tokens"][None], pattern("prefix", 6)).log_softmax(-1)[0]
    assert torch.equal(laws, expected)
    assert fitted.predictor("prefix")(prompts["tokens"], torch.full((7,), 2)).shape == (2, 7, 6, SYMBOLS)


def test_an_arm_may_be_told_something_else() -> None:
    def unrelated(drawn: RegressionPrompts) -> Batch:
        return {"tokens": encode(drawn)["tokens"].roll(1, 0), "labels": drawn.y_query}

    def loss(module: Transformer, batch: Batch, arms: tuple[str, ...]) -> Tensor:
        kinds = ["other" if arm == "unrelated" else "own" for arm in arms]
        inputs = torch.stack([batch[kind][row] for row, kind in enumerate(kinds)])
        arm_batch = {"tokens": inputs, "labels": batch["labels"]}
        return error(module, arm_batch, torch.stack([PATTERNS.get(arm, PATTERNS["causal"]) for arm in arms]))

    def batch(seed: int, step: int) -> Batch:
        drawn = draw(seed, step)
        return {"own": tokens(drawn), "other": tokens(drawn).roll(1, 0), "labels": drawn.y_query}

    arms = PATTERNS | {"unrelated": Arm(PATTERNS["causal"], unrelated)}
    trained = train(continuous, [Member(seed, arm) for seed in SEEDS for arm in arms], batch, loss, HOW)
    assert_same_bits(regression(arms).fit(SEEDS, draw, HOW), trained)


def test_what_is_asked_is_labelled_and_may_be_read_under_another_mask() -> None:
    fitted = fit()
    assert fitted.updates.dims == ("seed", "arm")
    assert (fitted.updates == HOW.steps).all()
    assert fitted.history["by_query"].dims == ("seed", "arm", "update", "query")
    assert fitted.history["update"].values.tolist() == [2, 4, 6]
    errors = fitted.ask(TESTS, error_by_query, query=range(QUERIES))
    assert errors.dims == ("seed", "arm", "query")
    assert errors["seed"].values.tolist() == list(SEEDS)
    np.testing.assert_allclose(errors, fitted.history["by_query"].sel(update=6), rtol=1e-5)
    swapped = fitted.ask(TESTS, error, read={"prefix": "causal"})
    assert (swapped.sel(arm="causal") == fitted.ask(TESTS, error).sel(arm="causal")).all()
    for seed in SEEDS:
        batch = {key: values[None] for key, values in encode(TESTS[seed]).items()}
        with torch.no_grad():
            module = fitted.module.select([fitted.place(seed, "prefix")])
            # One network alone is a matrix product of another shape: kernels may round it otherwise.
            alone = error(module, batch, PATTERNS["causal"]).item()
            assert swapped.sel(seed=seed, arm="prefix").item() == pytest.approx(alone, rel=1e-5)
    everywhere = fitted.ask(TESTS, error, read="causal")
    assert (everywhere == fitted.ask(TESTS, error, read=PATTERNS["causal"])).all()
    assert (everywhere == swapped).all()
    assert fitted.ask(TESTS[3], error, arms=["causal"]).shape == (2, 1)


def test_a_predictor_is_asked_like_a_closed_form() -> None:
    fitted, test = fit(), TESTS[3]
    arguments = (test.x_context, test.y_context, test.x_query)
    predictions = fitted.predictor("prefix", 3)(*arguments)
    loss = (predictions - test.y_query).square().mean().item()
    assert loss == pytest.approx(fitted.ask(test, error).sel(seed=3, arm="prefix").item(), rel=1e-5)
    assert fitted.predictor("prefix")(*arguments).shape == (2, 16, QUERIES)
    read = fitted.predictor("prefix", 3, "causal")(*arguments)
    assert not torch.equal(read, predictions)
    shorter = fitted.predictor("prefix", 3, masks.in_context_prefix(2, QUERIES))
    assert shorter(test.x_context[:, :2], test.y_context[:, :2], test.x_query).shape == predictions.shape


def test_a_study_goes_on_from_another_and_knows_its_beginning() -> None:
    fitted = fit()
    before = fitted.study.untrained(SEEDS)
    for parameter, expected in zip(before.module.parameters(), continuous([3, 3, 5, 5]).parameters(), strict=True):
        assert torch.equal(parameter, expected)
    later = Study(build=fitted.start("causal"), arms=PATTERNS, encode=encode, loss=error).untrained(SEEDS)
    for started, ended in zip(later.module.parameters(), fitted.module.parameters(), strict=True):
        assert torch.equal(started, ended[[1, 1, 3, 3]])
    same = Study(build=fitted.start(), arms=PATTERNS, encode=encode, loss=error).untrained(SEEDS)
    assert all(map(torch.equal, same.module.parameters(), fitted.module.parameters()))


def test_networks_of_a_job_are_kept_and_read_again(tmp_path: Path) -> None:
    with context.job(context.JobContext(networks=tmp_path)):
        fitted = fit(name="first")
    file = tmp_path / "first.safetensors"
    assert list(tmp_path.iterdir()) == [file]
    stored = load_model(file, seed=5, arm="causal")
    assert (stored.mask, stored.sign) == ("causal", 1)
    batch = {key: values[None] for key, values in encode(TESTS[5]).items()}
    with torch.no_grad():
        again = error(stored.transformer, batch, PATTERNS["causal"]).item()
    # Alone, as it was read: the company of other networks changes the last digit.
    assert again == fitted.ask(TESTS, error, arms=["causal"]).sel(seed=5, arm="causal").item()
    with pytest.raises(LabError, match=r"holds 2 networks of seed None and arm 'causal'.*\(seed 5, arm 'prefix'\)"):
        load_model(file, arm="causal")


def test_a_disk_that_refuses_networks_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_bytes(b"")
    with context.job(context.JobContext(networks=tmp_path / "file" / "networks")):
        assert_same_values(fit(), fit(name="other"))
    assert "could not be written" in caplog.text


def assert_same_values(first: Fitted[Transformer], second: Fitted[Transformer]) -> None:
    assert all(map(torch.equal, first.module.parameters(), second.module.parameters()))
    assert first.history.identical(second.history)


def test_the_store_finds_results_beside_networks(tmp_path: Path) -> None:
    store = Store(tmp_path)
    job = Job(Path("tasks/one.py"), "one", "measured", {}, (0, 1), "cpu", "source")
    with context.job(context.JobContext(networks=store.networks(job))):
        fit()
    assert store.networks(job).name == "seeds-0-1.networks"
    assert store.load(job) is None
    store.save(job, Measured({"values": np.zeros(2)}), 1.0, provenance())
    assert store.load(job) is not None
    assert (store.networks(job) / "train.safetensors").is_file()


def test_two_trainings_of_one_name_are_refused() -> None:
    with context.job(context.JobContext()):
        fit(name="one")
        fit(name="two")
        with pytest.raises(LabError, match="Two trainings of one measurement are called 'one'"):
            fit(name="one")
    fit(name="one")
    fit(name="one")  # outside a job nothing is kept that could be overwritten
    with pytest.raises(LabError, match="must serve as a file name"):
        fit(name="a/b")


def test_an_interrupted_measurement_keeps_its_finished_trainings(tmp_path: Path) -> None:
    steps: list[tuple[str, int]] = []

    def noted(name: str, until: int = 100) -> Callable[[int, int], RegressionPrompts]:
        def give(seed: int, step: int) -> RegressionPrompts:
            steps.append((name, step))
            if step == until:
                raise KeyboardInterrupt
            return draw(seed, step)

        return give

    def measurement(until: int) -> list[Fitted[Transformer]]:
        study = regression()
        return [
            study.fit(SEEDS, noted("first"), HOW, name="first"),
            study.fit(SEEDS, noted("second", until), HOW, name="second"),
        ]

    uninterrupted = measurement(100)
    with pytest.raises(KeyboardInterrupt), context.job(context.JobContext(scratch=tmp_path)):
        measurement(4)
    steps.clear()
    with context.job(context.JobContext(scratch=tmp_path)):
        again = measurement(100)
    assert {step for name, step in steps if name == "first"} == {0}  # its first batch, to know the run
    assert {step for name, step in steps if name == "second"} == {0, 4, 5}
    for expected, fitted in zip(uninterrupted, again, strict=True):
        assert_same_values(expected, fitted)


def test_mistakes_are_said_before_they_cost_a_training() -> None:
    with pytest.raises(LabError, match="0 arms"):
        regression({})
    with pytest.raises(LabError, match=r"'?by_query'? have the shape \[2\] for each model but 0 named axes"):
        fit(axes=None)
    fitted = fit()
    with pytest.raises(LabError, match="no arm 'full'"):
        fitted.ask(TESTS, error, read={"full": "causal"})
    with pytest.raises(LabError, match="no prompts for seed 5"):
        fitted.ask({3: TESTS[3]}, error)
    with pytest.raises(LabError, match="0 named axes"):
        fitted.ask(TESTS, error_by_query)
