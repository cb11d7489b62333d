"""The posterior mean of a mixture of regressions against loops, limits and independent formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from lab.domains.regression import mixtures as theory
from lab.domains.regression.least_squares import least_squares_weights, ridge_weights
from lab.domains.regression.mixture_prompts import MixturePrompts, component_set, regression_mixture
from lab.errors import LabError
from lab.statistics import deviation, rounding_bound
from lab.streams import stream

algebra = settings(deadline=None, max_examples=15, derandomize=True)
seeds = st.integers(0, 10**6)


def draw(
    seed: int, components: int = 4, dimension: int = 3, length: int = 5, noise: float = 0.5
) -> tuple[torch.Tensor, MixturePrompts]:
    rows = component_set(stream(seed, "set"), components, dimension, "unit")
    return rows, regression_mixture(stream(seed), 6, components=rows, length=length, noise=noise)


@algebra
@given(seed=seeds, components=st.integers(1, 5), dimension=st.integers(1, 4), length=st.integers(1, 6))
def test_running_predictions_equal_loops(seed: int, components: int, dimension: int, length: int) -> None:
    rows, prompts = draw(seed, components, dimension, length)
    prior = tuple((np.arange(1, components + 1) / np.arange(1, components + 1).sum()).tolist())
    predictions = theory.running_posterior_mean(prompts.x, prompts.y, rows, 0.5, prior)
    best = theory.running_argmin(prompts.x, prompts.y, rows)
    for b in range(6):
        x, y = prompts.x[b].numpy(), prompts.y[b].numpy()
        for k in range(length):
            likelihood = np.array(
                [prior[j] * math.exp(-((y[:k] - x[:k] @ rows[j].numpy()) ** 2).sum() / 0.5) for j in range(components)]
            )
            weights = likelihood @ rows.numpy() / likelihood.sum()
            assert float(predictions[b, k]) == pytest.approx(weights @ x[k], abs=1e-10)
            scores = [((y[:k] - x[:k] @ row) ** 2).sum() for row in rows.numpy()]
            assert float(best[b, k]) == pytest.approx(rows[int(np.argmin(scores))].numpy() @ x[k], abs=1e-12)


@algebra
@given(seed=seeds)
def test_predictors_of_whole_contexts_agree_with_the_running_ones(seed: int) -> None:
    rows, prompts = draw(seed)
    for k in range(5):
        context = prompts.x[:, :k], prompts.y[:, :k], prompts.x[:, k:]
        torch.testing.assert_close(
            theory.posterior_mean(rows, 0.5)(*context)[:, 0],
            theory.running_posterior_mean(prompts.x, prompts.y, rows, 0.5)[:, k],
        )
        torch.testing.assert_close(
            theory.best_component(rows)(*context)[:, 0], theory.running_argmin(prompts.x, prompts.y, rows)[:, k]
        )


def test_posterior_is_bayes_rule_of_normal_densities() -> None:
    rows, prompts = draw(1)
    scores = theory.squared_residuals(prompts.x, prompts.y, rows).sum(1)
    posterior = theory.posterior(scores, 0.5)
    for b in range(6):
        densities = [stats.multivariate_normal(prompts.x[b] @ row, 0.25 * np.eye(5)).pdf(prompts.y[b]) for row in rows]
        np.testing.assert_allclose(posterior[b], np.array(densities) / sum(densities), rtol=0, atol=1e-12)


def test_small_noise_tends_to_the_branch_without_noise() -> None:
    rows, prompts = draw(2)
    scores = theory.running_scores(prompts.x, prompts.y, rows)
    limit = theory.posterior(scores, 0.0)
    assert limit[:, 0].tolist() == [[0.25] * 4] * 6
    distances = [float((theory.posterior(scores, noise) - limit).abs().max()) for noise in (0.3, 0.1, 1e-3)]
    assert distances[0] > distances[1] > distances[2]
    assert distances[2] < 1e-12
    predicted = theory.running_posterior_mean(prompts.x, prompts.y, rows, 0.0)
    torch.testing.assert_close(predicted[:, 1:], theory.running_argmin(prompts.x, prompts.y, rows)[:, 1:])


def test_excluded_components_stay_excluded() -> None:
    scores = torch.tensor([0.0, 1.0, 1.0])
    assert theory.posterior(scores, 0.0, (0.0, 0.25, 0.75)).tolist() == [0.0, 0.25, 0.75]
    assert theory.posterior(scores, 1.0, (0.0, 0.25, 0.75)).tolist() == pytest.approx([0.0, 0.25, 0.75])


def test_hopeless_scores_do_not_overflow() -> None:
    posterior = theory.posterior(torch.tensor([1e6, 1e6 + 2.0], dtype=torch.float64), 1.0)
    assert posterior.tolist() == pytest.approx([1 / (1 + math.exp(-1)), 1 / (1 + math.e)])


@algebra
@given(seed=seeds, dimension=st.integers(1, 4))
def test_running_least_squares_and_ridge_equal_those_of_short_contexts(seed: int, dimension: int) -> None:
    _, prompts = draw(seed, 2, dimension, 6)
    least = theory.running_least_squares(prompts.x, prompts.y)
    shrunk = theory.running_ridge(prompts.x, prompts.y, 0.7)
    assert not least[:, 0].any()
    assert not shrunk[:, 0].any()
    for k in range(1, 6):
        x, y, query = prompts.x[:, :k], prompts.y[:, :k], prompts.x[:, k]
        singular = torch.linalg.svdvals(x)
        condition = float((singular[:, 0] / singular[:, -1]).max())
        weights = least_squares_weights(x, y)
        bound = rounding_bound(
            100 * dimension * condition**2, float(weights.norm(dim=1).max() * query.norm(dim=1).max())
        )
        assert float((least[:, k] - (weights * query).sum(-1)).abs().max()) <= bound
        torch.testing.assert_close(shrunk[:, k], (ridge_weights(x, y, 0.7) * query).sum(-1))


@pytest.mark.parametrize(("context", "noise"), [(2, 0.0), (3, 0.5), (16, 0.5), (30, 1.0)])
def test_risk_of_least_squares_matches_simulation(context: int, noise: float) -> None:
    rows = component_set(stream(5, "set"), 3, 6, "unit") * 2
    prompts = regression_mixture(stream(5), 5000, components=rows, length=context + 1, noise=noise)
    weights = least_squares_weights(prompts.x[:, :context], prompts.y[:, :context])
    errors = ((weights * prompts.x[:, context]).sum(-1) - prompts.y[:, context]).square().numpy()
    assert deviation(errors, theory.least_squares_risk(context, 6, noise, 4.0)) < 4


def test_risk_of_least_squares_has_no_mean_around_the_dimension() -> None:
    assert [theory.least_squares_risk(k, 6, 0.1, 1.0) for k in (5, 6, 7)] == [math.inf] * 3
    assert theory.least_squares_risk(0, 6, 0.1, 1.0) == pytest.approx(1.01)


@algebra
@given(seed=seeds, noise=st.sampled_from([0.2, 1.0]))
def test_symmetric_pair_is_the_posterior_mean(seed: int, noise: float) -> None:
    rows, prompts = draw(seed, 1, 3, 4, noise)
    scores = theory.squared_residuals(prompts.x, prompts.y, torch.cat([rows, -rows])).sum(1)
    weights = theory.posterior(scores, noise) @ torch.cat([rows, -rows])
    symmetric = theory.symmetric_weights(prompts.x, prompts.y, rows[0], noise)
    torch.testing.assert_close(symmetric, weights, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("mean", "variance"), [(0.01, 0.01), (1.0, 1.0), (5.0, 5.0), (0.3, 4.0), (30.0, 30.0)])
def test_tanh_moments_match_adaptive_quadrature(mean: float, variance: float) -> None:
    moments = theory.tanh_moments(np.array([mean]), np.array([variance]))[:, 0]
    for power, value in zip((1, 2), moments, strict=True):
        exact, _ = integrate.quad(
            lambda z, power=power: math.tanh(mean + math.sqrt(variance) * z) ** power * stats.norm.pdf(z),
            -9,
            9,
            epsabs=1e-13,
            epsrel=1e-13,
            limit=200,
        )
        assert value == pytest.approx(exact, abs=1e-12)


def test_excess_risk_of_the_pair_has_its_limits() -> None:
    risks = theory.symmetric_excess_risk(np.array([1e-9, 1e3]), 4.0)
    assert risks[0] == pytest.approx(4.0, rel=1e-6)
    assert risks[1] == pytest.approx(0.0, abs=1e-12)


def test_signal_is_the_sum_of_squares() -> None:
    x = torch.tensor([[1.0, 0.0], [3.0, 5.0]], dtype=torch.float64)
    assert float(theory.signal(x, torch.tensor([2.0, 0.0], dtype=torch.float64), 0.5)) == pytest.approx(160.0)


def loop_expectation_maximisation(
    x: np.ndarray, y: np.ndarray, components: np.ndarray, noise: float, iterations: int
) -> np.ndarray:
    for _ in range(iterations):
        scores = np.array([[((y[b] - x[b] @ w) ** 2).sum() for w in components] for b in range(len(x))])
        shares = np.exp(-(scores - scores.min(1, keepdims=True)) / (2 * noise**2))
        shares /= shares.sum(1, keepdims=True)
        components = np.array(
            [
                np.linalg.solve(
                    sum(shares[b, j] * x[b].T @ x[b] for b in range(len(x))),
                    sum(shares[b, j] * x[b].T @ y[b] for b in range(len(x))),
                )
                for j in range(len(components))
            ]
        )
    return components


def test_expectation_maximisation_equals_loops_and_climbs() -> None:
    rows = component_set(stream(7, "set"), 3, 2, "unit")
    prompts = regression_mixture(stream(7), 40, components=rows, length=5, noise=0.4)
    starts = torch.from_numpy(stream(7, "starts").rng().standard_normal((2, 3, 2)))
    fitted = theory.expectation_maximisation(prompts.x, prompts.y, starts, noise=0.4, iterations=7)
    for place in range(2):
        loop = loop_expectation_maximisation(prompts.x.numpy(), prompts.y.numpy(), starts[place].numpy(), 0.4, 7)
        np.testing.assert_allclose(fitted.components[place], loop, rtol=0, atol=1e-9)
    assert fitted.likelihood.shape == (2, 8)
    largest = float(fitted.likelihood.abs().max())
    assert float(fitted.likelihood.diff(dim=-1).min()) >= -rounding_bound(200, largest)
    place = int(fitted.likelihood[:, -1].argmax())
    assert torch.equal(fitted.best, fitted.components[place])


def test_likelihood_is_that_of_the_mixture() -> None:
    rows = component_set(stream(8, "set"), 3, 2, "unit")
    prompts = regression_mixture(stream(8), 9, components=rows, length=4, noise=0.4)
    fitted = theory.expectation_maximisation(prompts.x, prompts.y, rows[None], noise=0.4, iterations=1)
    densities = np.array(
        [
            np.mean([stats.multivariate_normal(prompts.x[b] @ row, 0.16 * np.eye(4)).pdf(prompts.y[b]) for row in rows])
            for b in range(9)
        ]
    )
    constant = 2 * math.log(2 * math.pi * 0.16)
    assert float(fitted.likelihood[0, 0]) == pytest.approx(np.log(densities).mean() + constant, abs=1e-10)


def test_expectation_maximisation_finds_the_set() -> None:
    rows = component_set(stream(9, "set"), 3, 3)
    prompts = regression_mixture(stream(9), 300, components=rows, length=8, noise=0.3)
    starts = torch.from_numpy(stream(9, "starts").rng().standard_normal((5, 3, 3)))
    fitted = theory.expectation_maximisation(prompts.x, prompts.y, starts, noise=0.3, iterations=40)
    # 100 prompts of 8 pairs a component: standard error 0.3 / sqrt(800) a coordinate.
    assert theory.matched_error(fitted.best, rows) < 5 * 0.3 * math.sqrt(3 / 800)


def test_an_empty_component_goes_to_zero() -> None:
    rows = torch.tensor([[1.0], [1e3]], dtype=torch.float64)
    prompts = regression_mixture(stream(10), 5, components=rows[:1], length=4, noise=0.1)
    fitted = theory.expectation_maximisation(prompts.x, prompts.y, rows[None], noise=0.1, iterations=1)
    assert float(fitted.components[0, 1, 0]) == 0.0


def test_matched_error_ignores_the_order() -> None:
    rows = component_set(stream(11), 4, 4)
    assert theory.matched_error(rows[[2, 0, 3, 1]], rows) < 1e-7
    assert theory.matched_error(rows[[2, 0, 3, 1]] + 0.1, rows) == pytest.approx(0.2)


def test_bad_input_is_one_sentence() -> None:
    rows, prompts = draw(0)
    with pytest.raises(LabError, match="noise is -1.0"):
        theory.posterior(torch.zeros(3), -1.0)
    with pytest.raises(LabError, match="2 probabilities for 3 components"):
        theory.posterior(torch.zeros(3), 1.0, (0.5, 0.5))
    with pytest.raises(LabError, match="noise is 0.0 but must be finite and above 0"):
        theory.expectation_maximisation(prompts.x, prompts.y, rows[None], noise=0.0, iterations=1)
    with pytest.raises(LabError, match="iterations is 0"):
        theory.expectation_maximisation(prompts.x, prompts.y, rows[None], noise=1.0, iterations=0)
