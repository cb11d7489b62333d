"""Closed forms of next-state prediction against brute force, quadrature and enumeration."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.domains.dynamics import mesa_optimization as theory
from lab.domains.dynamics.mesa_layer import MesaLayer, prediction_loss
from lab.domains.dynamics.sequences import linear_dynamics
from lab.errors import LabError
from lab.models import masks
from lab.streams import stream

LAWS = ("gaussian", "sparse", "ones", "rademacher", "uniform")


@pytest.mark.parametrize("start", LAWS)
def test_moments_are_those_of_the_quadrature(start: str) -> None:
    rule = theory.quadrature(start, 2, 2, scale=1.5)
    first = rule.states[:, 0].real
    moments = theory.moments(start, 2, scale=1.5)

    def mean(values: torch.Tensor) -> float:
        return float((values * rule.weights).sum())

    assert np.isclose(mean(first[:, 0] ** 2), moments.second)
    assert np.isclose(mean(first[:, 0] ** 4), moments.fourth)
    assert np.isclose(mean(first[:, 0] ** 6), moments.sixth)
    assert np.isclose(mean(first[:, 0] ** 2 * first[:, 1] ** 4), moments.mixed)
    assert np.isclose(float(rule.weights.sum()), 1.0)


def losses(rule_states: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Losses of five layers with random entries everywhere, so that no symmetry of the weights helps."""
    rng, dimension = stream(3).rng(), rule_states.shape[-1]
    value, key = (torch.from_numpy(rng.normal(size=(5, rows * dimension, 2 * dimension, 2))) for rows in (1, 2))
    layer = MesaLayer(value, key)
    models = (5, *rule_states.shape)
    mask = masks.causal(rule_states.shape[1])
    return prediction_loss(layer, rule_states.expand(models), weights.expand(5, -1), mask).detach()


@pytest.mark.parametrize("phases", ["independent", "equal", "harmonic"])
@pytest.mark.parametrize("start", LAWS)
@pytest.mark.parametrize("length", [3, 5])
def test_quadrature_integrates_the_loss_of_any_weights(start: str, phases: str, length: int) -> None:
    rule = theory.quadrature(start, 2, length, phases)
    finer = theory.quadrature(start, 2, length + 2, phases)  # more roots; both signs of the first state
    both = torch.cat([finer.states[:, :length], -finer.states[:, :length]])
    exact = losses(both, torch.cat([finer.weights, finer.weights]) / 2)
    assert torch.allclose(losses(rule.states, rule.weights), exact, rtol=1e-11)


def test_no_root_of_unity_can_be_spared() -> None:
    rule = theory.quadrature("ones", 2, 4)
    longer = torch.cat([rule.states, rule.states[:, -1:].square() / rule.states[:, -2:-1]], dim=1)
    exact = theory.quadrature("ones", 2, 5)
    assert not torch.allclose(losses(longer, rule.weights), losses(exact.states, exact.weights), rtol=1e-3)


def test_moments_of_complex_starts_against_samples() -> None:
    first = linear_dynamics(stream(0), 200_000, dimension=2, length=1, start="complex gaussian").states[:, 0].abs()
    moments = theory.moments("complex gaussian", 2)
    assert np.isclose(float((first**4).mean()), moments.fourth, rtol=0.02)
    assert np.isclose(float((first[:, 0] ** 2 * first[:, 1] ** 4).mean()), moments.mixed, rtol=0.03)


@given(st.integers(3, 40), st.integers(0, 38))
def test_optimal_step_minimises_the_loss(length: int, prefix: int) -> None:
    prefix = min(prefix, length - 1)
    law = theory.moments("gaussian", 4)
    step = theory.optimal_step(law, length, prefix)
    around = np.array([step - 1e-3, step, step + 1e-3])
    losses = np.asarray(theory.population_loss(around, law, 4, length, prefix))
    assert losses[1] < losses[0]
    assert losses[1] < losses[2]


def test_limiting_loss_is_what_the_best_step_leaves_of_long_sequences() -> None:
    for start, expected in (("gaussian", 2 / 5), ("sparse", 0.0), ("rademacher", 0.0), ("uniform", 4 / 25)):
        law = theory.moments(start, 3)
        assert np.isclose(theory.limiting_loss(law), expected)
        length = 100_000
        loss = theory.population_loss(theory.optimal_step(law, length), law, 3, length)
        everything = theory.population_loss(0.0, law, 3, length)
        assert np.isclose(float(loss) / float(everything), expected, atol=1e-3)


def test_mean_inverse_is_a_harmonic_number() -> None:
    assert np.isclose(theory.mean_inverse(7), (1 + 1 / 2 + 1 / 3 + 1 / 4 + 1 / 5) / 5)
    assert np.isclose(theory.mean_inverse(7, 6), 1 / 5)


def test_flow_obeys_its_differential_equation() -> None:
    law = theory.moments("uniform", 3)
    time = np.linspace(0, 4, 4001)
    path = theory.step_flow(time, 0.2, law, 6)
    limit = theory.optimal_step(law, 6)
    right = 2 * path * 4 * law.fourth * (1 - path / limit)
    assert np.allclose(np.gradient(path, time)[1:-1], right[1:-1], atol=1e-4)
    assert np.isclose(path[0], 0.2)
    assert np.isclose(path[-1], limit, rtol=0.05)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 4), st.integers(2, 9), st.integers(0, 1000))
def test_one_step_predictions_are_a_gradient_step(dimension: int, length: int, seed: int) -> None:
    states = linear_dynamics(stream(seed), 2, dimension=dimension, length=length).states
    predictions = theory.one_step_predictions(states, 0.3)
    for t in range(2, length + 1):
        estimate = sum(torch.einsum("bi,bj->bij", states[:, i], states[:, i - 1].conj()) for i in range(1, t))
        expected = 0.3 / (t - 1) * (estimate @ states[:, t - 1, :, None]).squeeze(-1)
        assert torch.allclose(predictions[:, t - 2], expected)


def test_step_statistics_are_the_terms_of_the_loss() -> None:
    states = linear_dynamics(stream(1), 50, dimension=3, length=8).states
    aligned, squared = theory.step_statistics(states)
    for step in (0.0, 0.3, 1.1):
        missed = theory.one_step_predictions(states, step)[:, :-1] - states[:, 2:]
        expected = step**2 * squared - 2 * step * aligned + states[:, 2:].abs().square().sum(-1)
        assert torch.allclose(missed.abs().square().sum(-1), expected)


def test_what_cannot_be_is_refused_in_a_sentence() -> None:
    with pytest.raises(LabError, match="leaves nothing to predict"):
        theory.scored_positions(2)
    with pytest.raises(LabError, match="more than 300000; lower the dimension"):
        theory.quadrature("gaussian", 4, 20)
    with pytest.raises(LabError, match="no exact rule for the first state"):
        theory.quadrature("complex gaussian", 2, 4)
    with pytest.raises(LabError, match="no exact rule for the phases"):
        theory.quadrature("sparse", 2, 4, phases="half circle")
