from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from lab import checks, contracts
from lab.catalogue import discover
from lab.checks import BrokenContract, Check
from lab.errors import LabError
from lab.streams import stream
from tests import again

PARTS = [*contracts.all_registered(), *contracts.all_registered("lab.models.mixers")]
TASKS = discover()


@pytest.mark.parametrize(
    "check", [pytest.param(check, id=f"{part.name}-{check.name}") for part in PARTS for check in checks.checks(part)]
)
def test_everything_registered_keeps_its_contract(check: Check) -> None:
    check.run()


@pytest.mark.parametrize("part", [pytest.param(part, id=part.name) for part in PARTS if part.kind == "generator"])
@pytest.mark.parametrize("batch", [0, -1])
def test_every_generator_refuses_to_draw_no_prompts(part: contracts.Registered, batch: int) -> None:
    sentence = f"The batch is {batch} but must be at least 1 for {part.part.__name__}; raise batch"
    with pytest.raises(LabError, match=sentence):
        part.part(stream(0, "none"), batch, **part.example)
    with pytest.raises(LabError, match=sentence):
        part.part(stream(0, "none"), batch=batch, **part.example)


@pytest.mark.parametrize("part", [pytest.param(part, id=part.name) for part in PARTS if part.kind == "regression"])
def test_every_regression_predictor_answers_without_examples(part: contracts.Registered) -> None:
    """Finite, whatever it answers: nobody divides by the number of examples."""
    shown = torch.zeros(2, 0, 3).double(), torch.zeros(2, 0).double()
    answers = part.part(**part.example)(*shown, torch.ones(2, 1, 3).double())
    assert answers.shape == (2, 1)
    assert bool(answers.isfinite().all())


# Measuring everything twice at smoke takes minutes: one measurement in four for each commit, the quick checks for each.
ONE_IN = 4
TASK_CHECKS = [
    (f"{task.key}-{check.name}", check)
    for task in TASKS
    for check in checks.task_checks(task)
    if not check.name.endswith("is a pure function") or again.turn(f"{task.key} {check.name}", ONE_IN)
]


@pytest.mark.parametrize("check", [pytest.param(check, id=name) for name, check in TASK_CHECKS])
def test_every_task_keeps_its_contract(check: Check) -> None:
    check.run()


@dataclass(frozen=True)
class Prompts:
    x: Tensor


def draw(stream, batch: int, dimension: int = 2) -> Prompts:
    return Prompts(torch.from_numpy(stream.rng().normal(size=(batch, dimension))))


def broken(found_checks: Iterable[Check]) -> set[str]:
    failed = set()
    for check in found_checks:
        try:
            check.run()
        except BrokenContract:
            failed.add(check.name)
    return failed


def test_a_good_generator_passes() -> None:
    assert broken(checks.generator_checks(draw)) == set()


def from_global_state(stream, batch: int) -> Prompts:
    return Prompts(torch.from_numpy(np.random.normal(size=(batch, 2))))  # noqa: NPY002


def always_the_same(stream, batch: int) -> Prompts:
    return Prompts(torch.arange(batch)[:, None] * 1.0)


def batch_dependent(stream, batch: int) -> Prompts:
    return Prompts(draw(stream, batch).x / batch)


def batch_last(stream, batch: int) -> Prompts:
    return Prompts(draw(stream, batch).x.T)


@pytest.mark.parametrize(
    ("sample", "violation"),
    [
        (from_global_state, "the same stream gives the same batch"),
        (from_global_state, "global random state is untouched"),
        (always_the_same, "another seed gives another batch"),
        (batch_dependent, "the first prompts do not change when later ones do"),
        (batch_last, "every field has the batch first and finite values"),
    ],
)
def test_a_broken_generator_is_found(sample: Callable, violation: str) -> None:
    assert violation in broken(checks.generator_checks(sample))


def mean(x: Tensor, y: Tensor, queries: Tensor) -> Tensor:
    return y.mean(1, keepdim=True).expand(-1, queries.shape[1])


def changes_inputs(x: Tensor, y: Tensor, queries: Tensor) -> Tensor:
    y += 1
    return mean(x, y, queries)


class Stateful:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x: Tensor, y: Tensor, queries: Tensor) -> Tensor:
        self.calls += 1
        return mean(x, y, queries) + self.calls


@pytest.mark.parametrize(
    ("predictor", "violation"),
    [
        (lambda x, y, queries: y, "one finite prediction a query"),
        (lambda x, y, queries: mean(x, y, queries) * float("nan"), "one finite prediction a query"),
        (changes_inputs, "inputs are not modified"),
        (Stateful(), "no state is kept between calls"),
        (lambda x, y, queries: mean(x, y, queries) + x.mean(), "prompts do not influence each other"),
        (
            lambda x, y, queries: mean(x, y, queries) + queries.mean((1, 2))[:, None],
            "queries do not influence each other",
        ),
    ],
)
def test_a_broken_regression_predictor_is_found(predictor: Callable, violation: str) -> None:
    assert violation in broken(checks.regression_predictor_checks(predictor))
    assert broken(checks.regression_predictor_checks(mean)) == set()


def uniform(tokens: Tensor, prefix_length: Tensor) -> Tensor:
    return torch.full((*tokens.shape, 3), 1 / 3).log()


def peeks(tokens: Tensor, prefix_length: Tensor) -> Tensor:
    following = torch.nn.functional.one_hot(tokens.roll(-1, 1), 3)
    return (0.1 + following).log().log_softmax(-1)


@pytest.mark.parametrize(
    ("predictor", "violation"),
    [
        (peeks, "it never looks at the answer"),
        (lambda tokens, lengths: uniform(tokens, lengths) + 1, "normalised log-probabilities at every position"),
        (
            lambda tokens, lengths: (tokens.double().mean() * torch.eye(3)[0] + uniform(tokens, lengths)).log_softmax(
                -1
            ),
            "sequences do not influence each other",
        ),
    ],
)
def test_a_broken_token_predictor_is_found(predictor: Callable, violation: str) -> None:
    assert violation in broken(checks.token_predictor_checks(predictor, vocabulary=3))
    assert broken(checks.token_predictor_checks(uniform, vocabulary=3)) == set()
