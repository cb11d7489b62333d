"""The prompts of every task: what they offer can be asked, and the closed form that is right on them is named."""

from __future__ import annotations

import pytest
import torch

from lab.catalogue import discover
from lab.diagnosis.closed_forms import Prompts
from lab.diagnosis.comparison import diagnose, identify
from lab.diagnosis.regression_settings import Functions, Mixture
from lab.diagnosis.setting import Setting
from lab.diagnosis.settings import OF_TASKS, SETTINGS, find_setting
from lab.diagnosis.state_settings import NextState
from lab.diagnosis.token_settings import ColumnAddition, LatentGraph, Navigation, PathStar, SwitchingChains
from lab.domains.addition.column_addition import WINDOWS
from lab.domains.addition.prompts import window_sequences
from lab.streams import stream

RIGHT = {
    "regression-mixtures": "posterior mean over the components",
    "switching-chains": "counts since the last sign, Bayes",
    "latent-graph": "counts over the parents, Bayes",
    "navigation": "uniform among all paths (Bayes)",
    "path-star": "walk back from the goal, then look up",
    "column-addition": "exact column addition",
    "next-state": "least squares on the transitions",
}


@pytest.mark.parametrize("name", RIGHT)
def test_the_right_answer_of_a_task_is_named_and_errs_least(name: str, unchecked: None) -> None:
    setting = find_setting(name)
    prompts = setting.sample(stream(0, "right"), 20)
    right = next(
        candidate for candidate in setting.candidates(prompts) if getattr(candidate, "name", "") == RIGHT[name]
    )
    diagnosis = diagnose(right.predictor, setting, prompts=40)  # type: ignore[attr-defined]
    assert not diagnosis.findings
    assert diagnosis.match is not None
    assert (diagnosis.match.name, diagnosis.match.kind) == (RIGHT[name], "identical")
    assert diagnosis.match.error.mean <= min(row.error.mean for row in diagnosis.match.rows) * 1.5 + 0.01


@pytest.mark.parametrize("name", SETTINGS)
def test_all_candidates_of_a_task_are_told_apart(name: str, unchecked: None) -> None:
    setting = SETTINGS[name]
    prompts = setting.sample(stream(1, "apart"), 30)
    fixed = [candidate for candidate in setting.candidates(prompts) if hasattr(candidate, "predictor")]
    answers = [setting.answers(candidate.predictor, prompts) for candidate in fixed]
    pairs = [
        (fixed[at].name, fixed[other].name)
        for at in range(len(fixed))
        for other in range(at)
        if torch.allclose(answers[at], answers[other], atol=1e-6)
    ]
    same = {"function-classes": [("ridge, Bayes penalty", "least squares")]}
    assert pairs == same.get(name, [])
    assert all(bool((setting.errors(answer, prompts) >= 0).all()) for answer in answers)


def test_every_task_is_offered_by_name_or_says_what_to_do() -> None:
    tasks = {task.name for task in discover() if task.place == "tasks"}
    assert set(OF_TASKS) <= tasks
    offered = {name for name in tasks if name in SETTINGS or name in OF_TASKS}
    named = {"causallm-icl", "induction-heads-markov"}  # their prompts are settings under names of their own
    without = {"attention-masks", "autoregressive-trees", "computational-universality", "copying"}
    without |= {"chain-of-thought", "fixed-point-transformers", "linear-attention"}
    assert offered | named | without == tasks


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_keeps_its_sizes(name: str) -> None:
    setting = SETTINGS[name]
    assert isinstance(setting, Setting)
    prompts = setting.sample(stream(2, "sizes"), 3)
    inputs = setting.inputs_of(prompts)
    assert len(inputs) == len(setting.arguments)
    assert setting.size in setting.lengths()
    for length in setting.lengths():
        assert setting.at_length(length).size == length
    reordered = setting.reordered(prompts, stream(3, "order"))
    assert [tensor.shape for tensor in setting.inputs_of(reordered)] == [tensor.shape for tensor in inputs]
    for shifted in setting.shifts(stream(4, "shift"), 2).values():
        assert len(setting.inputs_of(shifted)[0]) == 2


def test_a_table_of_sums_writes_every_window() -> None:
    setting = ColumnAddition()
    tokens = window_sequences()
    right = next(iter(setting.candidates(setting.sample(stream(0), 2))))
    predictions = right.predictor(tokens, torch.full((WINDOWS,), 6))  # type: ignore[attr-defined]
    following = tokens[:, 6:]
    assert torch.equal(predictions[:, 5:8].argmax(-1)[following > 0], following[following > 0])


@pytest.mark.parametrize("function", ["linear", "quadratic", "relu", "tree", "sign"])
def test_classes_of_functions_have_prompts(function: str) -> None:
    setting = Functions(function=function)  # type: ignore[arg-type]
    assert setting.sample(stream(0), 3).x_context.shape == (3, 10, 5)


def test_the_bayes_penalty_of_a_mixture_is_that_of_its_second_moment() -> None:
    assert Mixture(noise=0.5).law().bayes_penalty == pytest.approx(0.25 * 5)


def test_parents_may_be_two_and_one_of_them_is_not_enough(unchecked: None) -> None:
    setting = LatentGraph(graph="halves and previous", length=20)
    prompts = setting.sample(stream(0), 30)
    names = [getattr(candidate, "name", "") for candidate in setting.candidates(prompts)]
    assert "counts over the parent halfway alone" in names


def test_limits_of_parameters_are_positive() -> None:
    setting = SETTINGS["linear-regression"]
    prompts = Prompts(*setting.inputs_of(setting.sample(stream(0), 5)), setting.law())  # type: ignore[attr-defined]
    assert 0 < prompts.rates["step"][0] < prompts.rates["step"][1]
    assert prompts.largest_slope > 0


def test_shorter_states_are_other_states() -> None:
    assert NextState().at_length(6).sample(stream(0), 2).states.shape == (2, 6, 4)
    assert SwitchingChains().at_length(7).size == 7
    assert Navigation(nodes=2, probability=1.0).size == 4
    assert PathStar().size == 14


def test_a_step_that_reaches_the_goal_sooner_is_a_shortest_path(unchecked: None) -> None:
    setting = Navigation()
    prompts = setting.sample(stream(5), 30)
    shortest = next(
        candidate for candidate in setting.candidates(prompts) if getattr(candidate, "name", "") == "shortest paths"
    )
    match, _ = identify(shortest.predictor, setting, 40)  # type: ignore[attr-defined]
    assert match.name == "shortest paths"
