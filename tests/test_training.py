"""The trainer: a known optimum, independence of the grouping, resuming bit for bit, and its errors."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lab import context
from lab.errors import LabError
from lab.models.transformer import Architecture, Transformer
from lab.streams import stream
from lab.training import (
    NUMBERS_IN_FLIGHT,
    Member,
    Optimisation,
    Trained,
    chunk_size,
    clip_per_model,
    in_blocks,
    learning_rate,
    plan_chunks,
    train,
)

MEMBERS = [Member(seed, arm) for arm in ("causal", "prefix") for seed in (3, 1, 7)]


class Attention(nn.Module):
    """Smallest model that shows everything: one attention layer, parameters [E, ...], a mask an argument."""

    def __init__(self, matrices: Sequence[Tensor]) -> None:
        super().__init__()
        self.key_query, self.value = (nn.Parameter(matrix.clone()) for matrix in matrices)

    @classmethod
    def build(cls, seeds: Sequence[int]) -> Attention:
        draws = [stream(seed, "weights").rng().standard_normal((2, 3, 3)) for seed in seeds]
        return cls(torch.from_numpy(0.3 * np.stack(draws, axis=1)))

    def select(self, indices: Sequence[int]) -> Attention:
        return Attention([self.key_query.detach()[list(indices)], self.value.detach()[list(indices)]])

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        scores = torch.einsum("ebid,edf,ebjf->ebij", tokens, self.key_query, tokens)
        weights = scores.masked_fill(~mask.unsqueeze(1), -torch.inf).softmax(-1)
        return torch.einsum("ebij,ebjd,edf->ebif", weights, tokens, self.value)


def batch(seed: int, step: int) -> dict[str, Tensor]:
    rng = stream(seed, "data", step).rng()
    x, w = rng.standard_normal((4, 5, 2)), rng.standard_normal((4, 1, 2))
    y = (x * w).sum(-1, keepdims=True)
    return {"tokens": torch.from_numpy(np.concatenate([x, y], axis=-1)), "target": torch.from_numpy(y[:, 1:, 0])}


def masks(arms: Sequence[str]) -> Tensor:
    causal = torch.ones(5, 5, dtype=torch.bool).tril()
    prefix = causal.clone()
    prefix[:, :4] = True
    return torch.stack([{"causal": causal, "prefix": prefix}[arm] for arm in arms])


def loss(module: Attention, data: dict[str, Tensor], arms: tuple[str, ...]) -> Tensor:
    return (module(data["tokens"], masks(arms))[:, :, :-1, -1] - data["target"]).square().mean((1, 2))


def evaluate(module: Attention, members: tuple[Member, ...]) -> dict[str, Tensor]:
    return {"norms": torch.stack([module.key_query.norm(dim=(1, 2)), module.value.norm(dim=(1, 2))], dim=1)}


def run(members: Sequence[Member] = MEMBERS, batch: Callable = batch, **changes: object) -> Trained[Attention]:
    settings = {"steps": 25, "learning_rate": 0.03, "warmup": 0.2, "schedule": "cosine", "clip_norm": 0.7}
    optimisation = Optimisation(**{**settings, **changes.pop("optimisation", {})})
    arguments = {"evaluate": evaluate, "evaluate_every": 10, "dtype": torch.float64, **changes}
    return train(Attention.build, members, batch, loss, optimisation, **arguments)


def weights(trained: Trained[Attention]) -> Tensor:
    return torch.stack([trained.module.key_query, trained.module.value], dim=1).detach()


def test_linear_model_reaches_least_squares() -> None:
    class Linear(nn.Module):
        def __init__(self, weight: Tensor) -> None:
            super().__init__()
            self.weight = nn.Parameter(weight)

        def select(self, indices: Sequence[int]) -> Linear:
            return Linear(self.weight.detach()[list(indices)])

    def data(seed: int, step: int) -> dict[str, Tensor]:
        rng = stream(seed, "fixed").rng()
        return {"x": torch.from_numpy(rng.standard_normal((40, 3))), "y": torch.from_numpy(rng.standard_normal(40))}

    def squares(module: Linear, data: dict[str, Tensor], arms: tuple[str, ...]) -> Tensor:
        return ((data["x"] @ module.weight.unsqueeze(-1)).squeeze(-1) - data["y"]).square().mean(-1)

    members = [Member(seed, "only") for seed in range(4)]
    for optimiser, rate in (("adam", 0.05), ("sgd", 0.2)):
        optimisation = Optimisation(steps=400, learning_rate=rate, schedule="cosine", optimiser=optimiser)
        zeros = lambda seeds: Linear(torch.zeros(len(seeds), 3, dtype=torch.float64))  # noqa: E731
        trained = train(zeros, members, data, squares, optimisation, dtype=torch.float64)
        for member in members:
            fixed = data(member.seed, 0)
            optimum = torch.linalg.lstsq(fixed["x"], fixed["y"].unsqueeze(-1)).solution.squeeze(-1)
            weight = trained.module.weight[trained.index(member.seed, "only")]
            torch.testing.assert_close(weight.detach(), optimum, atol=1e-6, rtol=0)


@pytest.mark.parametrize("optimiser", ["adam", "adamw", "sgd"])
def test_ensemble_equals_separate_runs_and_any_chunking(optimiser: str) -> None:
    change = {"optimiser": optimiser, "weight_decay": 0.01, "momentum": 0.9 if optimiser == "sgd" else 0.0}
    together = run(optimisation=change)
    assert together.history["loss"].shape == (3, 6)
    assert together.history["norms"].shape == (3, 6, 2)
    assert together.history["step"].tolist() == [10, 20, 25]
    assert together.steps.tolist() == [25] * 6
    assert all(np.isfinite(values).all() for values in together.history.values())
    last = evaluate(together.module, ())["norms"].detach().numpy()
    np.testing.assert_array_equal(together.history["norms"][-1], last)
    chunked = [run(optimisation=change, activation_size=NUMBERS_IN_FLIGHT // size) for size in (1, 4)]
    for other in chunked:
        torch.testing.assert_close(weights(other), weights(together), atol=1e-10, rtol=0)
        for key, values in together.history.items():
            np.testing.assert_allclose(other.history[key], values, atol=1e-10, rtol=0)
    for place, member in enumerate(MEMBERS):
        alone = run([member], optimisation=change)
        torch.testing.assert_close(weights(alone)[0], weights(together)[place], atol=1e-10, rtol=0)
        np.testing.assert_allclose(alone.history["norms"][:, 0], together.history["norms"][:, place], atol=1e-10)


def test_agrees_with_a_plain_loop_over_one_model() -> None:
    trained = run([Member(1, "prefix")])
    model = Attention.build([1])
    optimiser = torch.optim.Adam(model.parameters(), 0.03)
    for step in range(25):
        optimiser.zero_grad()
        loss(model, {key: value.unsqueeze(0) for key, value in batch(1, step).items()}, ("prefix",)).sum().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.7)
        optimiser.param_groups[0]["lr"] = learning_rate(
            Optimisation(steps=25, learning_rate=0.03, warmup=0.2, schedule="cosine"), step
        )
        optimiser.step()
    # clip_grad_norm_ divides by (norm + 1e-6), a relative change of 1e-6 that this trainer does not make
    torch.testing.assert_close(weights(trained)[0, 0], model.key_query.detach()[0], atol=1e-5, rtol=0)


def test_arms_of_a_seed_share_data_and_initial_weights() -> None:
    calls: list[tuple[int, int]] = []

    def counted(seed: int, step: int) -> dict[str, Tensor]:
        calls.append((seed, step))
        return batch(seed, step)

    observed: list[tuple[Tensor, Tensor, tuple[str, ...]]] = []

    def watched(module: Attention, data: dict[str, Tensor], arms: tuple[str, ...]) -> Tensor:
        observed.append((module.value.detach().clone(), data["tokens"], arms))
        return loss(module, data, arms)

    trained = train(Attention.build, MEMBERS, counted, watched, Optimisation(steps=3, learning_rate=0.1))
    assert sorted(calls[1:]) == sorted((seed, step) for seed in (3, 1, 7) for step in range(3))  # first: for sizes
    initial, data, arms = observed[0]
    assert arms == ("causal", "prefix") * 3
    assert all(torch.equal(tensor[0::2], tensor[1::2]) for tensor in (initial, data))
    assert not torch.equal(initial[0], initial[2])
    assert not torch.equal(data[0], data[2])
    assert trained.indices("prefix") == [3, 4, 5]
    assert trained.index(1, "prefix") == 4
    assert torch.equal(trained.arm("prefix").value, trained.module.value[3:])
    with pytest.raises(LabError, match="bidirectional.*choose one of causal, prefix"):
        trained.arm("bidirectional")
    with pytest.raises(LabError, match="seed 8"):
        trained.index(8, "causal")


def test_transformer_ensemble_equals_separate_runs() -> None:
    """The lab's own model on token ids, arms told apart by their masks, in any grouping."""
    architecture = Architecture(width=8, layers=2, heads=2, vocabulary=5, output_size=5, positions="rotary")

    def build(seeds: Sequence[int]) -> Transformer:
        return Transformer(architecture, seeds, torch.float64)

    def sequences(seed: int, step: int) -> dict[str, Tensor]:
        return {"ids": torch.from_numpy(stream(seed, "ids", step).rng().integers(0, 5, size=(3, 6)))}

    def next_token(module: Transformer, data: dict[str, Tensor], arms: tuple[str, ...]) -> Tensor:
        logits = module(data["ids"][..., :-1], masks(arms))
        losses = nn.functional.cross_entropy(logits.movedim(-1, 1), data["ids"][..., 1:], reduction="none")
        return losses.mean((1, 2))

    def trained(members: Sequence[Member], size: int) -> Trained[Transformer]:
        optimisation = Optimisation(steps=6, learning_rate=0.01, clip_norm=0.5, optimiser="adamw", weight_decay=0.1)
        hint = NUMBERS_IN_FLIGHT // size
        return train(build, members, sequences, next_token, optimisation, dtype=torch.float64, activation_size=hint)

    together = trained(MEMBERS, 6)
    assert together.history["loss"].shape == (1, 6)
    for separate in [trained(MEMBERS, 4), *(trained([member], 1) for member in MEMBERS[1:5:3])]:
        places = [MEMBERS.index(member) for member in separate.members]
        for (_, parameter), (_, expected) in zip(
            separate.module.named_parameters(), together.module.select(places).named_parameters(), strict=True
        ):
            torch.testing.assert_close(parameter, expected, atol=1e-10, rtol=0)
    causal, prefix = (together.history["loss"][0, together.index(1, arm)] for arm in ("causal", "prefix"))
    assert causal != prefix


def test_seed_in_another_company_trains_the_same() -> None:
    torch.testing.assert_close(weights(run())[4], weights(run(MEMBERS[::-1][:4]))[1], atol=1e-10, rtol=0)


@settings(deadline=None, max_examples=25, derandomize=True)
@given(st.integers(1, 200), st.floats(0, 1), st.sampled_from(["constant", "cosine", "linear"]))
def test_schedule_rises_then_never_rises(steps: int, warmup: float, schedule: str) -> None:
    optimisation = Optimisation(steps=steps, learning_rate=0.3, warmup=warmup, schedule=schedule)
    rates = np.array([learning_rate(optimisation, step) for step in range(steps)])
    warm = round(warmup * steps)
    assert (rates > 0).all()
    assert rates.max() == pytest.approx(0.3)
    np.testing.assert_allclose(rates[:warm], 0.3 * np.arange(1, warm + 1) / max(1, warm))
    assert (np.diff(rates[warm:]) <= 0).all()
    if schedule == "linear" and warm < steps:
        assert rates[-1] == pytest.approx(0.3 / (steps - warm))


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_a_schedule_ends_at_its_floor(schedule: str) -> None:
    """As in released training scripts: floor + (peak - floor) (1 + cos(pi s)) / 2, and the same of 1 - s."""
    optimisation = Optimisation(steps=40, learning_rate=6e-4, warmup=0.1, schedule=schedule, floor=0.1)
    for step in range(4, 41):
        share = (step - 4) / 36
        fall = (1 + math.cos(math.pi * share)) / 2 if schedule == "cosine" else 1 - share
        assert learning_rate(optimisation, step) == pytest.approx(6e-5 + (6e-4 - 6e-5) * fall)
    with pytest.raises(LabError, match="floor = 1.5 of an optimisation must be a share of the peak"):
        Optimisation(steps=1, learning_rate=0.1, floor=1.5)


def test_gradients_are_clipped_per_model() -> None:
    first, second = nn.Parameter(torch.zeros(3, 2)), nn.Parameter(torch.zeros(3, 1, 1))
    first.grad = torch.tensor([[3.0, 0.0], [0.3, 0.0], [0.0, 0.0]])
    second.grad = torch.tensor([4.0, 0.4, 0.0]).view(3, 1, 1)
    norms = clip_per_model([first, second], 1.0)
    torch.testing.assert_close(norms, torch.tensor([5.0, 0.5, 0.0]))
    torch.testing.assert_close(first.grad, torch.tensor([[0.6, 0.0], [0.3, 0.0], [0.0, 0.0]]))
    torch.testing.assert_close(second.grad.flatten(), torch.tensor([0.8, 0.4, 0.0]))


def test_chunks_are_small_balanced_and_seed_major() -> None:
    assert plan_chunks(MEMBERS, 4) == [[0, 3, 1], [4, 2, 5]]
    assert plan_chunks(MEMBERS, 1) == [[0], [3], [1], [4], [2], [5]]
    assert chunk_size(100, 6000, torch.device("cpu")) == 100
    assert chunk_size(101, 6000, torch.device("cpu")) == 100
    assert chunk_size(8, 10**9, torch.device("cpu")) == 1
    assert chunk_size(8, 10**9, torch.device("cuda")) == 8


def interrupted(after: int) -> Callable[[int, int], dict[str, Tensor]]:
    """The batches of the test, until the user presses Ctrl-C at the given call."""
    calls = iter(range(10**6))

    def give(seed: int, step: int) -> dict[str, Tensor]:
        if next(calls) == after:
            raise KeyboardInterrupt
        return batch(seed, step)

    return give


def assert_same_bits(first: Trained[Attention], second: Trained[Attention]) -> None:
    assert torch.equal(weights(first), weights(second))
    assert first.history.keys() == second.history.keys()
    for key, values in first.history.items():
        np.testing.assert_array_equal(values, second.history[key])
    np.testing.assert_array_equal(first.steps, second.steps)


def stops_after_a_way(history: dict[str, np.ndarray]) -> bool:
    """A criterion that models meet at different times: how far the norms have moved since the first record."""
    return bool(np.abs(history["norms"][-1] - history["norms"][0]).max() > 0.04)


@pytest.mark.parametrize(
    ("optimiser", "size", "after"),
    [
        ("adamw", 6, 0),
        ("adamw", 6, 1),
        ("adamw", 3, 10),
        ("sgd", 6, 25),
        ("adamw", 4, 47),
        ("sgd", 3, 47),
        ("sgd", 4, 60),
    ],
)
def test_resumed_run_has_the_same_bits(tmp_path: Path, optimiser: str, size: int, after: int) -> None:
    changes = {
        "optimisation": {"optimiser": optimiser, "momentum": 0.5},
        "activation_size": NUMBERS_IN_FLIGHT // size,
        "evaluate_every": 4,
        "stop": stops_after_a_way,
    }
    uninterrupted = run(**changes)
    with context.job(context.JobContext(scratch=tmp_path)):
        with pytest.raises(KeyboardInterrupt):
            run(batch=interrupted(after), **changes)
        assert (tmp_path / "train.safetensors").exists() == (after > 0)  # the first call only looks at sizes
        resumed = run(**changes)
    assert_same_bits(uninterrupted, resumed)
    with context.job(context.JobContext(scratch=tmp_path)):  # the job was interrupted after this training
        assert_same_bits(uninterrupted, run(batch=interrupted(1), **changes))


def test_resuming_continues_instead_of_repeating(tmp_path: Path) -> None:
    steps: list[int] = []

    def noted(seed: int, step: int) -> dict[str, Tensor]:
        steps.append(step)
        return batch(seed, step)

    with context.job(context.JobContext(scratch=tmp_path)):
        with pytest.raises(KeyboardInterrupt):
            run(batch=interrupted(1 + 3 * 20))
        run(batch=noted)
    assert min(steps[1:]) == 20


def test_periodic_checkpoint_survives_a_killed_process(tmp_path: Path) -> None:
    def killed(seed: int, step: int) -> dict[str, Tensor]:
        if step == 17:
            raise RuntimeError("the machine went down")
        return batch(seed, step)

    with context.job(context.JobContext(scratch=tmp_path)):
        with pytest.raises(RuntimeError, match="went down"):
            run(batch=killed, checkpoint_seconds=0.0)
        assert [path.name for path in tmp_path.iterdir()] == ["train.safetensors"]
        resumed = run()
    assert_same_bits(run(), resumed)


def test_interrupt_during_evaluation_resumes_with_the_same_bits(tmp_path: Path) -> None:
    calls = iter(range(9))

    def impatient(module: Attention, members: tuple[Member, ...]) -> dict[str, Tensor]:
        if next(calls) == 1:
            raise KeyboardInterrupt
        return evaluate(module, members)

    with context.job(context.JobContext(scratch=tmp_path)):
        with pytest.raises(KeyboardInterrupt):
            run(evaluate=impatient)
        resumed = run()
    assert_same_bits(run(), resumed)


@pytest.mark.parametrize("damage", ["truncated", "edited", "foreign", "text", "other run", "other data"])
def test_bad_checkpoint_is_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    path = tmp_path / "train.safetensors"
    with context.job(context.JobContext(scratch=tmp_path)):
        with pytest.raises(KeyboardInterrupt):
            run(batch=interrupted(31), optimisation={"learning_rate": 0.01} if damage == "other run" else {})
        content = path.read_bytes()
        if damage == "truncated":
            path.write_bytes(content[: len(content) // 2])
        elif damage == "edited":
            path.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
        elif damage == "foreign":
            path.write_bytes(safetensors.torch.save({"weight": torch.zeros(2)}))
        elif damage == "text":
            path.write_text("not a checkpoint", encoding="utf-8")

        def doubled(seed: int, step: int) -> dict[str, Tensor]:
            return {key: 2 * value for key, value in batch(seed, step).items()}

        data = doubled if damage == "other data" else batch
        with caplog.at_level(logging.WARNING, logger="lab"):
            resumed = run(batch=data)
    assert len(caplog.records) == 1
    assert "is ignored" in caplog.text
    assert_same_bits(resumed, run(batch=data))


def test_checkpoint_with_edited_position_is_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "train.safetensors"
    with context.job(context.JobContext(scratch=tmp_path)):
        with pytest.raises(KeyboardInterrupt):
            run(batch=interrupted(31))
        with safetensors.safe_open(path, framework="pt") as file:
            metadata, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}
        text = json.loads(metadata["lab"])
        text["place"]["step"] += 1
        path.write_bytes(safetensors.torch.save(tensors, {**metadata, "lab": json.dumps(text)}))
        run()
    assert "its content was changed" in caplog.text


def test_unwritable_checkpoint_does_not_stop_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way of a folder", encoding="utf-8")
    with context.job(context.JobContext(scratch=tmp_path / "file" / "scratch")):
        run(checkpoint_seconds=0.0, optimisation={"steps": 2})
    assert "could not be written" in caplog.text


def test_stopping_does_not_depend_on_chunks() -> None:
    changes = {"evaluate_every": 2, "stop": stops_after_a_way, "optimisation": {"steps": 61}}
    together = run(**changes)
    assert len(set(together.steps.tolist())) > 2, "the models should stop at different times"
    for size in (1, 4):
        other = run(**changes, activation_size=NUMBERS_IN_FLIGHT // size)
        np.testing.assert_array_equal(other.steps, together.steps)
        torch.testing.assert_close(weights(other), weights(together), atol=1e-10, rtol=0)
        for key, values in together.history.items():
            np.testing.assert_allclose(other.history[key], values, atol=1e-10, rtol=0)
    for place, steps in enumerate(together.steps):
        after = together.history["step"] > steps
        assert (np.isnan(together.history["loss"][:, place]) == after).all()
        last = together.history["norms"][~after][-1, place]
        np.testing.assert_allclose(last, evaluate(together.module, ())["norms"][place].detach().numpy())


def test_divergence_names_step_member_and_rate() -> None:
    def poisoned(seed: int, step: int) -> dict[str, Tensor]:
        return {key: value * (torch.nan if (seed, step) == (7, 13) else 1) for key, value in batch(seed, step).items()}

    with pytest.raises(LabError, match=r"seed 7, arm 'causal' .* step 13 of 25 with learning rate 0\.0"):
        run(batch=poisoned)
    with pytest.raises(LabError, match="step 1 of 25 with learning rate 9"):
        run(optimisation={"learning_rate": 1e200, "optimiser": "sgd", "clip_norm": None, "warmup": 0.0})


def test_last_update_may_not_leave_infinite_weights() -> None:
    with pytest.raises(LabError, match="step 0 of 1"):
        run(
            optimisation={"steps": 1, "learning_rate": 1e308, "optimiser": "sgd", "clip_norm": 1e9, "weight_decay": 1e9}
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps = 0"),
        ({"learning_rate": -1.0}, "learning_rate = -1.0"),
        ({"learning_rate": float("nan")}, "learning_rate = nan"),
        ({"warmup": 5.0}, "warmup = 5.0"),
        ({"schedule": "step"}, "schedule = 'step' .* constant, cosine, linear"),
        ({"optimiser": "lion"}, "optimiser = 'lion'"),
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"clip_norm": 0.0}, "clip_norm = 0.0"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"momentum": 1.0}, "momentum"),
        ({"epsilon": 0.0}, "epsilon"),
    ],
)
def test_impossible_optimisation_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(LabError, match=message):
        Optimisation(**{"steps": 10, "learning_rate": 0.1, **change})


def test_wrong_uses_are_refused() -> None:
    optimisation = Optimisation(steps=2, learning_rate=0.1)
    with pytest.raises(LabError, match="all different"):
        run([Member(0, "causal")] * 2)
    with pytest.raises(LabError, match="at least one"):
        run([])
    with pytest.raises(LabError, match="evaluate_every = 0"):
        run(evaluate_every=0)
    with pytest.raises(LabError, match=r"no numbers under 'tokens', whose shape is \(0, 5, 3\); ask for at least 1"):
        run(batch=lambda *step: {name: value[:0] for name, value in batch(*step).items()})
    with pytest.raises(LabError, match="average over all axes"):
        train(Attention.build, MEMBERS, batch, lambda *arguments: loss(*arguments).mean(), optimisation)
    with pytest.raises(LabError, match="Measurement 'loss'"):
        run(evaluate=lambda module, members: {"loss": module.value.sum((1, 2))})
    with pytest.raises(LabError, match="leading axis of 6 models"):
        run(evaluate=lambda module, members: {"total": module.value.sum()})


def test_progress_ends_at_one() -> None:
    shares: list[float] = []
    with context.job(context.JobContext(listener=shares.append)):
        run(activation_size=NUMBERS_IN_FLIGHT // 3)
    assert shares == sorted(shares)
    assert shares[0] < 1
    assert shares[-1] == 1.0


def test_blocks_of_batches_are_the_draws_in_order() -> None:
    calls: list[tuple[int, int, int]] = []

    def draw(seed: int, number: int, prompts: int) -> dict[str, torch.Tensor]:
        calls.append((seed, number, prompts))
        return {"x": 1000 * seed + 100 * number + torch.arange(prompts)}

    batch = in_blocks(draw, 2, 3)
    batches = [batch(seed, step)["x"].tolist() for step in range(4) for seed in (0, 1)]
    assert batches[::2] == [[0, 1], [2, 3], [4, 5], [100, 101]]
    assert batches[1::2] == [[1000, 1001], [1002, 1003], [1004, 1005], [1100, 1101]]
    # Each block is drawn once, however many seeds take turns.
    assert calls == [(0, 0, 6), (1, 0, 6), (0, 1, 6), (1, 1, 6)]
    assert batch(0, 1)["x"].tolist() == [2, 3]
