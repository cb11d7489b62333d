from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from torch import Tensor

from lab import LabError
from lab.benchmarks.diagnose import TRUTHS, confusion
from lab.cli import main
from lab.diagnosis import closed_forms, presentation, regression_settings, token_settings
from lab.diagnosis.algorithms import RESOLUTION, Fixed, distance
from lab.diagnosis.comparison import Diagnosis, Estimate, diagnose, identify
from lab.diagnosis.setting import another_order
from lab.diagnosis.settings import Chains, Regression, find_setting
from lab.diagnosis.subject import answer_needed, load
from lab.domains.chains.markov import markov_posterior, uniform_guess
from lab.domains.regression import function_classes
from lab.domains.regression.gradient_descent import gradient_descent
from lab.domains.regression.kaczmarz import kaczmarz, normalised_kaczmarz
from lab.domains.regression.least_squares import least_squares, ridge, zero
from lab.domains.regression.linear_attention import gradient_descent_network, network_predictor
from lab.domains.regression.optimal_steps import optimal_gradient_step
from lab.domains.regression.prompts import tokens
from lab.models import masks
from lab.models.checkpoint import StoredModel, save_model
from lab.models.transformer import Architecture, Transformer
from lab.streams import stream
from lab.training import Member, Optimisation, train

FEW = 60  # prompts: enough to tell exact closed forms apart, and quick
PLAIN = Regression()
CLEAN = Regression(noise=0.0)
ARGUMENTS = PLAIN.arguments


def fixed_forms_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave only the closed forms that have nothing to fit, for tests of everything but the fit."""
    for room, name in ((regression_settings, "regression_candidates"), (token_settings, "count_candidates")):
        every = getattr(closed_forms, name)
        monkeypatch.setattr(
            room,
            name,
            lambda *prompts, _all=every, **law: (
                candidate for candidate in _all(*prompts, **law) if isinstance(candidate, Fixed)
            ),
        )


few = pytest.fixture(fixed_forms_only)


@given(st.integers(0, 1000), st.floats(0.1, 10))
@settings(max_examples=20, deadline=None)
def test_the_distance_is_symmetric_bounded_and_without_scale(seed: int, scale: float) -> None:
    first, second = torch.from_numpy(stream(seed, "distance").rng().normal(size=(2, 5, 3)))
    distances = distance(first, second)
    assert torch.allclose(distances, distance(second, first))
    assert torch.allclose(distances, distance(scale * first, scale * second))
    assert bool(((distances >= 0) & (distances <= 4)).all())


def test_the_distance_is_0_at_itself_1_at_zero_and_finite() -> None:
    some = torch.from_numpy(stream(1, "distance").rng().normal(size=(4, 3)))
    zeros = torch.zeros_like(some)
    assert torch.equal(distance(some, some), torch.zeros(4).double())
    assert torch.allclose(distance(some, zeros), torch.ones(4).double())
    assert torch.equal(distance(zeros, zeros), torch.zeros(4).double())
    assert torch.allclose(distance(some, zeros / 0), torch.ones(4).double())
    rounding = some.clone()
    rounding[0] = 1e-17
    assert float(distance(rounding, torch.cat([zeros[:1], some[1:]])).max()) < RESOLUTION


def test_one_huge_answer_does_not_bring_the_others_near() -> None:
    some = torch.from_numpy(stream(2, "distance").rng().normal(size=(5, 3)))
    other = -some
    other[0] = 1e200
    assert torch.allclose(distance(some, other)[1:], torch.full((4,), 4.0).double())
    assert float(distance(some, other)[0]) == pytest.approx(1)


def test_a_predictor_that_answers_noise_is_near_nothing(unchecked: None) -> None:
    def hash_of_inputs(x: Tensor, y: Tensor, query: Tensor) -> Tensor:
        return torch.sin(1e4 * query.sum(-1))

    match, _ = identify(hash_of_inputs, PLAIN)
    assert match.kind == "none"
    assert presentation.verdict(match).startswith("none of the")
    assert all(row.distance.mean > 0.9 for row in match.rows)


CLOSED_FORMS = {
    "zero": zero(),
    "averaging": function_classes.averaging(),
    "gradient step, optimal rate": optimal_gradient_step(1.0, 3.0, 0.5),
    "gradient step, fitted rate": gradient_descent(0.05, 1),
    "causal descent, fitted": partial(closed_forms.causal_descent, layers=4, step=0.05),
    "preconditioned step, fitted": partial(
        closed_forms.preconditioned_step, matrix=torch.diag(torch.arange(1.0, 6.0).double())
    ),
    "ridge, Bayes penalty": ridge(0.25),
    "normalised Kaczmarz": normalised_kaczmarz(),
    "online gradient descent, fitted": partial(closed_forms.online_gradient_descent, step=0.1),
    "nearest neighbours, fitted": function_classes.nearest_neighbours(3),
    "kernel smoothing, fitted": partial(closed_forms.kernel_smoothing, width=1.2),
    "softmax smoothing, fitted": partial(closed_forms.softmax_smoothing, sharpness=0.7),
}


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_a_closed_form_is_recognised_as_itself(name: str, unchecked: None) -> None:
    match, fitted = identify(CLOSED_FORMS[name], PLAIN, FEW)
    assert match.name == name
    assert match.kind == "identical"
    # Whatever is tied with it is the same function on these prompts: the same answers up to fitting.
    prompts = PLAIN.sample(stream(5, "other"), 30)
    for candidate in fitted:
        if candidate.name in match.tied:
            answers = PLAIN.answers(candidate.predictor, prompts)
            assert float(distance(answers, CLOSED_FORMS[name](*PLAIN.inputs_of(prompts))).mean()) < 1e-6


def test_nothing_is_confused(unchecked: None) -> None:
    table = confusion(FEW)
    for truth in TRUTHS:
        assert {named for named, count in table[truth].items() if count} == {truth}


def test_least_squares_and_ridge_are_tied_without_noise(few: None) -> None:
    assert identify(least_squares(), CLEAN, FEW)[0].tied == ("least squares", "ridge, Bayes penalty")
    assert identify(least_squares(), PLAIN, FEW)[0].tied == ("least squares",)


def test_parameters_are_fitted_and_reported() -> None:
    row = identify(gradient_descent(0.03, 7), PLAIN, FEW)[0].row("gradient descent, fitted")
    assert row.freedom == 2
    assert row.fitted["steps"] == 7
    assert row.fitted["step"] == pytest.approx(0.03, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "predictor"),
    [
        ("uniform", uniform_guess(3)),
        ("unigram counts, Bayes smoothing", markov_posterior(3, 0, 1.0)),
        ("bigram counts, Bayes smoothing", markov_posterior(3, 1, 1.0)),
        ("trigram counts, Bayes smoothing", markov_posterior(3, 2, 1.0)),
        ("bigram counts, fitted smoothing", markov_posterior(3, 1, 0.2)),
        ("bigram smoothed by unigram, fitted", partial(closed_forms.induction_head, vocabulary=3, sharpness=4.0)),
    ],
)
def test_a_count_is_recognised_as_itself(name: str, predictor: Callable, unchecked: None) -> None:
    match, _ = identify(predictor, Chains(length=32), FEW)
    assert (match.name, match.kind) == (name, "identical")


def test_the_two_masks_of_one_construction_are_two_algorithms(unchecked: None) -> None:
    network = gradient_descent_network(5, 4, step=0.04)
    for pattern, name in (
        (masks.in_context_prefix, "gradient descent, fitted"),
        (masks.in_context_causal, "causal descent, fitted"),
    ):
        match, _ = identify(network_predictor(network, pattern), PLAIN, FEW)
        assert (match.name, match.kind) == (name, "identical")
        assert list(match.row(name).fitted.values()) == pytest.approx([4, 0.04], rel=1e-3)


SMALL = Regression(dimension=3, noise=0.2)


def trained_layer() -> Transformer:
    """One layer of linear attention, trained on the prompts of a small setting."""
    architecture = Architecture(
        width=4,
        layers=1,
        attention="linear",
        attention_matrices="merged",
        mlp_ratio=0,
        norm="none",
        bias=False,
        initial_scale=0.1,
    )
    mask = masks.in_context_prefix(SMALL.context_length, SMALL.queries)
    drawn = SMALL.sample(stream(0, "data"), 8192)
    pool = {"tokens": tokens(drawn).float(), "labels": drawn.y_query.float()}

    def batch(seed: int, step: int) -> dict[str, Tensor]:
        return {name: value.roll(-64 * step, 0)[:64] for name, value in pool.items()}

    def loss(module: Transformer, batch: dict[str, Tensor], arms: tuple[str, ...]) -> Tensor:
        predictions = -module(batch["tokens"], mask)[:, :, SMALL.context_length :, -1]
        return (predictions - batch["labels"]).square().mean((1, 2))

    optimisation = Optimisation(200, 3e-2, schedule="cosine", warmup=0.1)
    return train(partial(Transformer, architecture), [Member(0, "prefix")], batch, loss, optimisation).module


def test_a_trained_layer_of_linear_attention_takes_one_gradient_step(unchecked: None, few: None) -> None:
    match, _ = identify(SMALL.stored(StoredModel(trained_layer(), "prefix", -1)), SMALL, 160)
    assert match.name == "gradient step, optimal rate"
    assert match.row("gradient step, optimal rate").distance.mean < 0.02
    assert match.row("least squares").distance.low > 0.1


@pytest.fixture(scope="module")
def of_kaczmarz() -> Diagnosis:
    with pytest.MonkeyPatch.context() as monkeypatch:
        fixed_forms_only(monkeypatch)
        return diagnose(kaczmarz(), PLAIN, name="mine", task="linear-regression", prompts=200)


def test_a_diagnosis_has_all_its_parts(of_kaczmarz: Diagnosis) -> None:
    diagnosis = of_kaczmarz
    assert diagnosis.match is not None
    assert not diagnosis.findings
    assert not diagnosis.stopped
    assert list(diagnosis.by_length) == PLAIN.lengths()
    # One example: one pass fits it, as least squares does.
    assert {match.name for length, match in diagnosis.by_length.items() if length > 2} == {"one-pass Kaczmarz"}
    assert {match.name for match in diagnosis.shifts.values()} == {"one-pass Kaczmarz"}
    assert diagnosis.reordering is not None
    assert diagnosis.reordering.low > 0
    row = diagnosis.match.row("one-pass Kaczmarz")
    assert row.cosines["query"].mean == pytest.approx(1)
    assert row.cosines["context"].mean == pytest.approx(1)
    assert diagnosis.match.row("least squares").cosines["context"].high < 0.95
    assert any("depend on the order" in sentence for sentence in presentation.sentences(diagnosis))


def test_a_set_function_does_not_depend_on_order(few: None) -> None:
    diagnosis = diagnose(least_squares(), CLEAN, prompts=FEW)
    assert diagnosis.reordering is not None
    assert diagnosis.reordering.mean < RESOLUTION
    assert any("do not depend on the order" in sentence for sentence in presentation.sentences(diagnosis))
    assert any("not told apart from ridge" in sentence for sentence in presentation.sentences(diagnosis))


def test_no_change_is_not_reported_as_one(few: None) -> None:
    assert [another_order(stream(seed), 2).tolist() for seed in range(9)] == [[1, 0]] * 9
    assert diagnose(least_squares(), Regression(context_length=1), prompts=40).reordering is None
    assert not any("skewed" in shift for shift in Regression(dimension=1).shifts(stream(0), 4))


def test_derivatives_are_those_of_calculus() -> None:
    prompts = PLAIN.sample(stream(0, "derivatives"), 3)
    x, y, query = PLAIN.inputs_of(prompts)
    query = query[:, :1].clone().requires_grad_()
    (exact,) = torch.autograd.grad(ridge(1.0)(x, y, query).sum(), query)
    derivatives = PLAIN.sensitivities(ridge(1.0), prompts, stream(0, "moves"))["query"]
    assert torch.allclose(derivatives, float(x.std()) * exact[:, 0], rtol=1e-6)


def test_token_diagnosis_has_all_its_parts(few: None, tmp_path: Path) -> None:
    setting = Chains(length=24)
    diagnosis = diagnose(markov_posterior(3, 1, 1.0), setting, prompts=FEW)
    assert diagnosis.match.name == "bigram counts, Bayes smoothing"
    assert diagnosis.reordering.low > 0
    assert diagnosis.shifts["chains of order 2"].name == "bigram counts, Bayes smoothing"
    presentation.store(diagnosis, tmp_path)
    assert (tmp_path / "diagnosis.png").stat().st_size > 1000


def test_the_record_is_json_and_the_figure_is_tidy(of_kaczmarz: Diagnosis, tmp_path: Path) -> None:
    presentation.store(of_kaczmarz, tmp_path)
    record = json.loads((tmp_path / "diagnosis.json").read_text(encoding="utf-8"))
    assert record["match"]["name"] == "one-pass Kaczmarz"
    drawing = presentation.plot(of_kaczmarz, of_kaczmarz.match)
    panels = {panel.x: panel for panel in drawing.panels}
    assert set(drawing.data["panel"]) == {panel.title for panel in drawing.panels}
    assert len(drawing.data[drawing.data["panel"] == "Identical to one-pass Kaczmarz"]) == len(of_kaczmarz.match.rows)
    assert set(drawing.data["x"]) >= {
        "unchanged",
        *of_kaczmarz.shifts,
        *(row.algorithm for row in of_kaczmarz.match.rows),
    }
    assert len(panels) == 3  # two panels run over the context length
    assert all(axes.get_title(loc="left") and axes.get_xlabel() for axes in drawing.figure.axes)


def test_an_infinite_error_is_no_number() -> None:
    assert not np.isfinite(Estimate.of(torch.tensor([1.0, torch.inf])).mean)
    assert presentation.plain({"a": float("inf"), "b": [float("nan"), 1.0]}) == {"a": None, "b": [None, 1.0]}


FAULTS = """
import torch
def fair(x, y, q): return (q @ torch.linalg.pinv(x) @ y[..., None])[..., 0]
def wrong_shape(x, y, q): return fair(x, y, q)[..., None]
def not_a_number(x, y, q):
    found = fair(x, y, q)
    found[1, 2] = float("nan")
    return found
def changes(x, y, q):
    found = fair(x, y, q)
    y += 1
    return found
calls = []
def keeps_state(x, y, q):
    calls.append(1)
    return fair(x, y, q) + len(calls)
def needs_the_answer(x, y, q, y_query): return y_query
def raises(x, y, q): raise ValueError("no idea")
def leaves(x, y, q): raise SystemExit
def array(x, y, q): return fair(x, y, q).numpy()
def mixes(x, y, q): return fair(x, y, q) + q.mean()
def single(x, y, q): return fair(x @ torch.eye(5), y, q)
def short(x, y, q):
    if x.shape[1] > 10: raise IndexError("too long")
    return fair(x, y, q)
def diverges(x, y, q): return fair(x, y, q) - (float("inf") if x.shape[1] > 10 else 0)
def looks_ahead(tokens, prefix_length):
    return torch.log_softmax(torch.nn.functional.one_hot(tokens.roll(-1, 1), 3).double(), -1)
def unnormalised(tokens, prefix_length): return torch.zeros(*tokens.shape, 3)
def imaginary(x, y, q): return 1j * fair(x, y, q)
def differentiates(x, y, q):
    weights = torch.zeros_like(x[:, 0], requires_grad=True)
    ((x @ weights[..., None])[..., 0] - y).square().sum().div(2).backward()
    return -(q @ weights.grad[..., None])[..., 0] / 16.25
def even(tokens, prefix_length):
    tokens[:] = 0
    return torch.full((*tokens.shape, 3), 1 / 3).log()
def factory(): return fair
def bad_factory(): return 3
"""


@pytest.fixture
def faults(tmp_path: Path) -> str:
    (tmp_path / "faults.py").write_text(FAULTS, encoding="utf-8")
    return str(tmp_path / "faults.py")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("wrong_shape", "returned shape (4, 3, 1)"),
        ("not_a_number", "answer [1, 2] is nan"),
        ("keeps_state", "it keeps state between calls: the same prompts got other predictions (first answer ["),
        ("needs_the_answer", "takes the arguments (x, y, q, y_query)"),
        ("raises", "raises ValueError on inputs [4, 10, 5], [4, 10], [4, 3, 5]: no idea"),
        ("leaves", "raises SystemExit"),
        ("array", "returned ndarray, not a tensor"),
        ("imaginary", "returned complex numbers"),
    ],
)
def test_a_fault_stops_with_a_finding(name: str, sentence: str, faults: str, tmp_path: Path, capsys) -> None:
    assert main(["diagnose", f"{faults}:{name}", "--out", str(tmp_path)]) == 1
    output = capsys.readouterr()
    assert "FINDING" in output.out
    assert sentence in output.out.replace("\n", " ").replace("  ", " ")
    assert "Traceback" not in output.out + output.err
    findings = json.loads((tmp_path / "diagnosis.json").read_text(encoding="utf-8"))["findings"]
    assert any(finding["stops"] for finding in findings)


@pytest.mark.parametrize(
    ("name", "where", "sentence"),
    [
        ("changes", "inputs are not modified", "input 2 at [0, 0] was"),
        ("mixes", "queries do not influence each other", "first answer ["),
        ("single", "precision", "it takes float32 only"),
        ("short", "context length 20", "IndexError"),
        ("diverges", "context length 20", "is -inf"),
    ],
)
def test_a_fault_that_leaves_the_rest_possible(name: str, where: str, sentence: str, faults: str, few: None) -> None:
    predictor = load(f"{faults}:{name}", ARGUMENTS)
    assert not isinstance(predictor, StoredModel)
    diagnosis = diagnose(predictor, PLAIN, prompts=40)
    assert not diagnosis.stopped
    assert diagnosis.match.rows[0].algorithm == "least squares" or name == "mixes"
    assert any(finding.where == where and sentence in finding.what for finding in diagnosis.findings)


@pytest.mark.parametrize(
    ("name", "sentence"), [("looks_ahead", "looks at the answer"), ("unnormalised", "sum to between 3 and 3")]
)
def test_a_token_predictor_with_a_fault_stops(name: str, sentence: str, faults: str) -> None:
    predictor = load(f"{faults}:{name}", Chains.arguments)
    assert not isinstance(predictor, StoredModel)
    diagnosis = diagnose(predictor, Chains(length=12), prompts=40)
    assert diagnosis.stopped
    assert any(sentence in finding.what and finding.stops for finding in diagnosis.findings)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("lab.domains.regression.least_squares:least_square", "(did you mean 'least_squares'?)"),
        ("lab.domains.regression.least_square:ridge", "(did you mean 'least_squares'?)"),
        ("labb:ridge", "there is no module 'labb'"),
        ("nothing", "names no predictor"),
        ("nothing.py:f", "there is no file"),
        ("model.pt", "there is no file"),
    ],
)
def test_what_is_named_wrongly_is_one_sentence(spec: str, sentence: str, capsys) -> None:
    assert main(["diagnose", spec]) == 2
    errors = capsys.readouterr().err
    assert sentence in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--task", "linear-regresion"], "(did you mean 'linear-regression'?)"),
        (["--task", "attention-masks"], "offers 0 settings to diagnose on"),
        (["--prompts", "4"], "4 prompts are too few"),
        (["--dimension", "0"], "dimension is 0 but must be at least 1"),
        (["--inputs", "uniform", "--spectrum", "1", "2"], "belongs to normal inputs only"),
    ],
)
def test_impossible_options_are_one_sentence(arguments: list[str], sentence: str, tmp_path: Path, capsys) -> None:
    spec = "lab.domains.regression.least_squares:least_squares"
    assert main(["diagnose", spec, "--out", str(tmp_path), *arguments]) == 2
    errors = capsys.readouterr().err
    assert sentence in errors
    assert errors.count("\n") == 1


def test_options_may_come_before_the_predictor(tmp_path: Path, capsys) -> None:
    where = ["--out", str(tmp_path)]
    assert main(["diagnose", "--task", "markov-chains", *where, "lab.domains.regression.least_squares:zero"]) == 2
    assert (
        "would be given (tokens, prefix_length); diagnose it with --task linear-regression" in capsys.readouterr().err
    )
    for options in (["--task", "markov-chains", *where], ["--dimension", "3"], []):
        assert main(["diagnose", *options]) == 2
        assert "name the predictor to diagnose" in capsys.readouterr().err


def test_another_protocol_is_named(faults: str) -> None:
    with pytest.raises(LabError, match="makes a regression predictor.*--task linear-regression"):
        load("lab.domains.regression.kaczmarz:kaczmarz", ("tokens", "prefix_length"))
    assert callable(load("lab.domains.regression.kaczmarz:kaczmarz", ARGUMENTS))
    (finding,) = answer_needed(load(f"{faults}:even", ARGUMENTS), ARGUMENTS)
    assert "it takes what a token predictor is given, which --task markov-chains diagnoses" in finding.what


def test_a_predictor_may_differentiate(faults: str, few: None) -> None:
    predictor = load(f"{faults}:differentiates", ARGUMENTS)
    assert not isinstance(predictor, StoredModel)
    diagnosis = diagnose(predictor, PLAIN, prompts=40)
    assert not diagnosis.findings
    assert diagnosis.match is not None
    assert presentation.verdict(diagnosis.match) == "identical to gradient step, optimal rate"


def test_rounding_of_the_uniform_law_is_no_algorithm(faults: str, few: None) -> None:
    predictor = load(f"{faults}:even", Chains.arguments)
    assert not isinstance(predictor, StoredModel)
    diagnosis = diagnose(predictor, Chains(length=12), prompts=40)
    assert [finding.where for finding in diagnosis.findings] == ["inputs are not modified"]
    assert diagnosis.match is not None
    assert (diagnosis.match.name, diagnosis.match.kind) == ("uniform", "identical")


def test_factories_are_called_and_other_files_named(faults: str, tmp_path: Path) -> None:
    assert callable(load(f"{faults}:factory", ARGUMENTS))
    with pytest.raises(LabError, match="returned int"):
        load(f"{faults}:bad_factory", ARGUMENTS)
    (tmp_path / "broken.py").write_text("import numpy\nnumpy.nothing\n", encoding="utf-8")
    with pytest.raises(LabError, match="cannot be imported: broken.py, line 2, AttributeError"):
        load(f"{tmp_path / 'broken.py'}:f", ARGUMENTS)


def test_a_checkpoint_is_asked_as_it_was_trained(tmp_path: Path, capsys) -> None:
    file = tmp_path / "model.safetensors"
    save_model(file, gradient_descent_network(5, 3, step=0.04), "prefix", sign=-1)
    stored = load(str(file), ARGUMENTS)
    assert isinstance(stored, StoredModel)
    match, _ = identify(PLAIN.stored(stored), PLAIN, FEW)
    assert presentation.verdict(match) == "identical to gradient descent, fitted (steps 3, step 0.04)"
    assert main(["diagnose", str(file), "--dimension", "4", "--out", str(tmp_path)]) == 2
    assert "add --dimension 5" in capsys.readouterr().err
    assert main(["diagnose", str(file), "--task", "markov-chains", "--out", str(tmp_path)]) == 2
    assert "choose a task of regression" in capsys.readouterr().err
    torch.save({"weight": torch.ones(1)}, tmp_path / "model.pt")
    assert main(["diagnose", str(tmp_path / "model.pt")]) == 2
    assert "can execute code" in capsys.readouterr().err


def test_a_token_checkpoint_is_asked_under_its_mask(few: None) -> None:
    architecture = Architecture(width=8, layers=1, vocabulary=3, output_size=3, positions="rotary")
    transformer = Transformer(architecture, [0])
    setting = Chains(length=12, prefix_length=4)
    prompts = setting.inputs_of(setting.sample(stream(0, "tokens"), 3))
    answers = {mask: setting.stored(StoredModel(transformer, mask))(*prompts) for mask in ("causal", "prefix")}
    assert not torch.allclose(answers["causal"][:, 0], answers["prefix"][:, 0])
    stored = StoredModel(transformer, "prefix")
    assert not diagnose(stored, setting, prompts=40).stopped
    with pytest.raises(LabError, match="add --states 3"):
        Chains(states=4).stored(stored)
    with pytest.raises(LabError, match="choose a task of tokens"):
        PLAIN.stored(stored)


def test_a_task_offers_its_prompts_at_its_top_level(tmp_path: Path) -> None:
    tiny = (Path(__file__).parent / "examples" / "tiny.py").read_text(encoding="utf-8")
    file = tmp_path / "offers.py"
    file.write_text(
        f"{tiny}\nfrom lab.diagnosis.settings import Regression\nPROMPTS = Regression(dimension=2)\n", encoding="utf-8"
    )
    assert find_setting(str(file)) == Regression(dimension=2)


@pytest.mark.parametrize("step", [0.1, 0.3])
def test_a_single_step_is_recognised_beyond_the_rate_at_which_many_diverge(step: float, unchecked: None) -> None:
    match, _ = identify(gradient_descent(step, 1), Regression(context_length=20), FEW)
    assert match.name == "gradient step, fitted rate"
    assert match.row(match.name).fitted["step"] == pytest.approx(step, rel=1e-6)


def test_bayes_ridge_of_almost_no_noise_is_recognised(unchecked: None) -> None:
    setting = Regression(dimension=10, context_length=5, noise=1e-7)
    match, _ = identify(ridge(1e-14), setting, FEW)
    assert match.kind == "identical"
    assert "ridge, Bayes penalty" in match.tied
    prompts = setting.sample(stream(0, "small"), 20)
    basis = closed_forms.Eigenbasis(*setting.inputs_of(prompts))
    for penalty in (1e-14, 1e-6, 1.0):
        exact = ridge(penalty)(*setting.inputs_of(prompts))
        torch.testing.assert_close(basis.ridge(None, penalty=penalty), exact, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("setting", "missing"), [(Chains(concentration=0.03), "peaked rows"), (Chains(length=2), "chains of order 2")]
)
def test_shifts_that_cannot_be_drawn_are_left_out(setting: Chains, missing: str) -> None:
    shifts = setting.shifts(stream(0), 4)
    assert missing not in shifts
    assert len(shifts) == 5


def test_too_few_prompts_are_refused_before_anything_is_asked() -> None:
    def never(x: Tensor, y: Tensor, query: Tensor) -> Tensor:
        raise AssertionError

    with pytest.raises(LabError, match="0 prompts are too few for an interval; ask for at least 40"):
        diagnose(never, PLAIN, prompts=0)


def test_a_module_in_training_is_told_to_stop_it(monkeypatch) -> None:
    fixed_forms_only(monkeypatch)

    class Dropped(torch.nn.Module):
        def forward(self, x: Tensor, y: Tensor, query: Tensor) -> Tensor:
            return torch.nn.functional.dropout(zero()(x, y, query) + 1, 0.5, self.training)

    diagnosis = diagnose(Dropped(), PLAIN, prompts=FEW)
    assert "its .eval() was called" in diagnosis.findings[0].what
    assert not diagnosis.stopped
    assert not any(finding.where == "mode" for finding in diagnose(Dropped().eval(), PLAIN, prompts=FEW).findings)


def test_the_maker_of_a_predictor_is_told_to_make_one() -> None:
    diagnosis = diagnose(lambda tokens, prefix_length: kaczmarz(), Chains(), prompts=FEW)
    assert any(
        "it returned function, not a tensor; if it makes a predictor, name one" in finding.what
        for finding in diagnosis.findings
    )


def test_the_figure_of_another_predictor_does_not_stay(tmp_path: Path) -> None:
    for name in ("diagnosis.png", "diagnosis.csv"):
        (tmp_path / name).write_bytes(b"of another")
    stopped = diagnose(lambda x, y: x, PLAIN, prompts=FEW)
    assert stopped.stopped
    assert [path.name for path in presentation.store(stopped, tmp_path)] == ["diagnosis.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["diagnosis.json"]


@pytest.fixture(scope="module")
def of_ridge() -> Diagnosis:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        return diagnose(ridge(0.5), PLAIN, name="mine", prompts=FEW)


@pytest.mark.parametrize("width", [50, 80, 120, 180])
def test_tables_of_a_diagnosis_are_whole_at_every_width(width: int, of_ridge: Diagnosis) -> None:
    diagnosis = of_ridge
    assert diagnosis.match is not None
    console = Console(width=width, record=True, file=io.StringIO())
    for table in presentation.tables(diagnosis, width):
        console.print(table)
    printed = console.export_text()
    assert "…" not in printed
    assert all(len(line) <= width for line in printed.splitlines())
    for row in diagnosis.match.rows if width < 110 else ():
        assert row.algorithm in " ".join(printed.split())
        assert f"distance {presentation.interval(row.distance)}" in " ".join(printed.split())
