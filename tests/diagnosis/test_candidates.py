"""Every registered closed form is a candidate somewhere, a user's file adds its own, and multiples are families."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lab import LabError
from lab.cli import main
from lab.contracts import all_registered
from lab.diagnosis import presentation
from lab.diagnosis.algorithms import scaled
from lab.diagnosis.closed_forms import REGRESSION, TOKENS, Law, UserFile, by_example
from lab.diagnosis.comparison import Estimate, diagnose, identify
from lab.diagnosis.settings import Regression
from lab.diagnosis.subject import file_module
from lab.domains.regression.gradient_descent import gradient_descent
from lab.domains.regression.kaczmarz import kaczmarz
from lab.domains.regression.least_squares import least_squares, ridge

SETTING = Regression(dimension=3, context_length=6)
FEW = 60
OWN = """
import torch
from lab.contracts import regression_predictor, token_predictor
@regression_predictor(power=0.7)
def shrunken(power):
    def predictor(x, y, query):
        weights = torch.linalg.pinv(x) @ y[..., None]
        return (query @ (weights.sign() * weights.abs() ** power))[..., 0]
    return predictor
"""


def test_every_registered_predictor_is_in_a_table() -> None:
    registered = {registration.kind: set() for registration in all_registered()}
    for registration in all_registered():
        registered[registration.kind].add(registration.part)
    assert registered["regression"] == set(REGRESSION)
    assert registered["tokens"] == TOKENS


@pytest.mark.parametrize(
    ("predictor", "name", "fitted"),
    [
        (scaled(least_squares(), 0.5), "multiple of least squares", {"factor": 0.5}),
        (scaled(kaczmarz(), -2.0), "multiple of one-pass Kaczmarz", {"factor": -2.0}),
        (scaled(ridge(2.0), 0.7), "multiple of ridge, fitted penalty", {"factor": 0.7, "penalty": 2.0}),
    ],
)
def test_a_multiple_is_a_family_of_its_own(predictor: Callable, name: str, fitted: dict, unchecked: None) -> None:
    match, _ = identify(predictor, SETTING, FEW)
    assert (match.name, match.kind) == (name, "identical")
    assert match.row(name).fitted == pytest.approx(fitted, rel=1e-3)


def test_a_step_of_any_rate_is_a_single_step(unchecked: None) -> None:
    match, _ = identify(gradient_descent(0.4, 1), SETTING, FEW)
    assert match.tied[0] == "gradient step, fitted rate"


def test_intervals_of_squared_errors_are_positive_and_even_on_a_logarithmic_axis() -> None:
    values = torch.tensor([1e-4, 2e-4, 5.0, 1e-3, 0.2])
    estimate = Estimate.positive(values)
    assert 0 < estimate.low < estimate.mean < estimate.high
    assert estimate.high / estimate.mean == pytest.approx(estimate.mean / estimate.low)
    assert Estimate.of(values).low < 0
    assert Estimate.positive(torch.zeros(5)) == Estimate(0.0, 0.0, 0.0)


def _file(folder: Path, text: str) -> Path:
    (folder / "own.py").write_text(text, encoding="utf-8")
    return folder / "own.py"


def test_a_registered_form_of_a_file_is_fitted_and_named(tmp_path: Path, unchecked: None) -> None:
    file = _file(tmp_path, OWN)
    user_file = UserFile.of(file_module(file), file)

    def predictor(x: Tensor, y: Tensor, query: Tensor) -> Tensor:
        weights = torch.linalg.pinv(x) @ y[..., None]
        return (query @ (weights.sign() * weights.abs() ** 0.3))[..., 0]

    match, _ = identify(predictor, SETTING, FEW, user_file=user_file)
    assert (match.name, match.kind) == ("shrunken, fitted of own.py", "identical")
    assert match.row(match.name).fitted["power"] == pytest.approx(0.3, rel=1e-3)


def test_predictors_of_a_file_are_candidates_on_the_command_line(tmp_path: Path, unchecked: None) -> None:
    file = _file(
        tmp_path, "def first(x, y, query):\n    return query[..., 0] * y[:, :1]\nCANDIDATES = {'odd': first}\n"
    )
    command = ["diagnose", f"{file}:first", "--candidates", str(file), "--prompts", "40", "--out", str(tmp_path)]
    assert main(command) == 0
    match = json.loads((tmp_path / "diagnosis.json").read_text(encoding="utf-8"))["match"]
    assert (match["name"], match["kind"]) == ("odd of own.py", "identical")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x = 1", "own.py offers no candidate"),
        ("CANDIDATES = [1]", "must map names to predictors"),
        (
            "CANDIDATES = {'bad': lambda x, y, q: 1 / 0}",
            "cannot answer these prompts: own.py, line 1, ZeroDivisionError",
        ),
        ("CANDIDATES = {'bad': lambda x, y, q: y}", "it returned [128, 10], not [128, 4]"),
        (OWN.replace("return (query", "return (query.mean() + query"), "does not keep its contract"),
    ],
)
def test_mistakes_in_candidates_are_one_sentence(text: str, sentence: str, tmp_path: Path, unchecked: None) -> None:
    file = _file(tmp_path, text)
    with pytest.raises(LabError) as caught:
        identify(least_squares(), Regression(), 256, user_file=UserFile.of(file_module(file), file))
    assert sentence in str(caught.value)


def test_an_example_says_what_is_fitted() -> None:
    forms = {
        registration.part.__name__: by_example(registration)
        for registration in all_registered()
        if registration.kind == "regression"
    }
    assert forms["kaczmarz"].name == "kaczmarz"
    assert forms["gradient_descent"].real == {"step": (0.0001, 1.0)}
    assert forms["gradient_descent"].integer == {"steps": (2, 4, 5, 8)}


def test_a_form_that_cannot_answer_is_left_out(unchecked: None) -> None:
    names = {row.algorithm for row in identify(least_squares(), Regression(dimension=1, noise=0.0), 40)[0].rows}
    assert "sparse Bayes, fitted" not in names
    assert "least squares" in names


def test_a_law_without_a_penalty_takes_that_of_its_noise() -> None:
    assert Law(noise=0.5).bayes_penalty == 0.25
    assert Law(noise=0.5, penalty=2.0).bayes_penalty == 2.0


class Ended(BaseException):
    """What no program should raise."""


@pytest.mark.parametrize("error", [GeneratorExit, Ended, SystemExit])
def test_whatever_it_raises_is_one_finding(error: type[BaseException]) -> None:
    def raises(x: Tensor, y: Tensor, query: Tensor) -> Tensor:
        raise error("enough")

    diagnosis = diagnose(raises, SETTING, prompts=40)
    assert diagnosis.stopped
    assert f"it raises {error.__name__}" in diagnosis.findings[0].what


def test_an_interrupt_still_stops() -> None:
    def interrupted(x: Tensor, y: Tensor, query: Tensor) -> Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        diagnose(interrupted, SETTING, prompts=40)


def test_several_predictors_share_a_table_and_a_picture(tmp_path: Path, capsys, unchecked: None) -> None:
    room = "lab.domains.regression"
    names = [f"{room}.least_squares:least_squares", f"{room}.kaczmarz:kaczmarz"]
    assert main(["diagnose", *names, "--prompts", "40", "--dimension", "3", "--out", str(tmp_path)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "2 predictors on linear-regression" in printed
    folders = [f"{room.replace('.', '-')}-{name}" for name in ("least_squares-least_squares", "kaczmarz-kaczmarz")]
    for folder in folders:
        assert (tmp_path / folder / "diagnosis.png").is_file()
    record = json.loads((tmp_path / "comparison.json").read_text(encoding="utf-8"))
    assert [diagnosis["match"]["name"] for diagnosis in record] == ["least squares", "one-pass Kaczmarz"]
    assert (tmp_path / "comparison.png").is_file()


def test_a_predictor_given_twice_is_refused(tmp_path: Path, capsys) -> None:
    assert main(["diagnose", "a.py:f", "a.py:f", "--out", str(tmp_path)]) == 2
    assert "give each once" in capsys.readouterr().err


def test_nothing_drawn_is_below_0(unchecked: None) -> None:
    diagnosis = diagnose(ridge(3.0), SETTING, prompts=40)
    assert diagnosis.match is not None
    sheet = presentation.plot(diagnosis, diagnosis.match)
    drawn = sheet.data[["low", "high"]].dropna()
    assert bool((drawn > 0).all().all())
