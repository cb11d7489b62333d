from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.domains.regression.gradient_descent import (
    expected_prefix_error,
    gradient_descent,
    gradient_descent_path,
    gram_eigenvalues,
    prefix_rate,
    require_stable,
    stability_limit,
    stable_gradient_descent,
)
from lab.domains.regression.least_squares import least_squares_weights
from lab.domains.regression.prompts import RegressionPrompts, linear_regression
from lab.errors import LabError
from lab.statistics import deviation
from lab.streams import stream

algebra = settings(deadline=None, max_examples=20, derandomize=True)


def draw(seed: int, dimension: int, context: int, batch: int = 3, noise: float = 0.5) -> RegressionPrompts:
    return linear_regression(
        stream(seed, "test"), batch, dimension=dimension, context_length=context, query_length=2, noise=noise
    )


@algebra
@given(seed=st.integers(0, 10**6), dimension=st.integers(1, 5), context=st.integers(1, 8), start=st.booleans())
def test_path_matches_a_loop(seed: int, dimension: int, context: int, start: bool) -> None:
    prompts = draw(seed, dimension, context)
    initial = torch.full((1, dimension), 0.5, dtype=torch.float64) if start else None
    path = gradient_descent_path(prompts.x_context, prompts.y_context, step=0.05, steps=4, initial=initial)
    for b in range(3):
        x, y = prompts.x_context[b].numpy(), prompts.y_context[b].numpy()
        weights = np.full(dimension, 0.5 if start else 0.0)
        for step in range(5):
            np.testing.assert_allclose(path[step, b], weights, rtol=0, atol=1e-12)
            gradient = np.zeros(dimension)
            for i in range(context):
                gradient -= (y[i] - weights @ x[i]) * x[i]
            weights = weights - 0.05 * gradient


@algebra
@given(seed=st.integers(0, 10**6), context=st.sampled_from([3, 12]))
def test_error_map(seed: int, context: int) -> None:
    """The distance to least squares is multiplied by I - s A each step, also where n < d."""
    prompts = draw(seed, 5, context)
    x = prompts.x_context
    path = gradient_descent_path(x, prompts.y_context, step=0.03, steps=3)
    distance = path - least_squares_weights(x, prompts.y_context)
    contraction = torch.eye(5, dtype=torch.float64) - 0.03 * x.mT @ x
    expected = (contraction @ distance[:-1, ..., None])[..., 0]
    scale = float(distance.abs().max())
    torch.testing.assert_close(distance[1:], expected, rtol=0, atol=1e-11 * max(scale, 1))


@pytest.mark.parametrize("context", [4, 20])
def test_limit_and_rate(context: int) -> None:
    prompts = draw(0, 6, context, batch=8)
    x, y = prompts.x_context, prompts.y_context
    step = 0.9 * float(stability_limit(x).min())
    rate = prefix_rate(x, step)
    assert float(rate.max()) < 1
    exact = least_squares_weights(x, y)
    for b in range(8):
        steps = int(np.log(1e-7) / np.log(float(rate[b])))
        path = gradient_descent_path(x[b : b + 1], y[b : b + 1], step=step, steps=steps)[:, 0]
        distance = (path - exact[b]).norm(dim=1)
        # The slowest eigenvector alone leaves rate^k of what it started with, and nothing shrinks more slowly.
        values, vectors = torch.linalg.eigh(x[b].mT @ x[b])
        factors = torch.where(values > 1e-9, (1 - step * values).abs(), 0.0)
        slowest = float((vectors[:, factors.argmax()] @ exact[b]).abs())
        powers = rate[b] ** torch.arange(steps + 1)
        assert slowest > 0
        assert bool((distance <= distance[0] * powers * (1 + 1e-6) + 1e-12).all())
        assert bool((distance >= slowest * powers * (1 - 1e-6) - 1e-12).all())


def test_eigenvalues_are_padded_with_zeros() -> None:
    x = draw(1, 5, 3).x_context
    values = gram_eigenvalues(x)
    assert values.shape == (3, 5)
    assert bool((values[:, 3:] == 0).all())
    expected = torch.linalg.eigvalsh(x.mT @ x).flip(-1)
    torch.testing.assert_close(values, expected, rtol=0, atol=1e-12)


def test_rate_ignores_directions_without_examples() -> None:
    x = torch.zeros(1, 3, 3, dtype=torch.float64)
    x[0, 0, 0], x[0, 1, 1] = 1.0, 2.0
    assert float(prefix_rate(x, 0.1)[0]) == pytest.approx(0.9)
    assert float(stability_limit(x)[0]) == pytest.approx(0.5)


def test_stability_limit_is_sharp() -> None:
    prompts = draw(2, 4, 9, batch=1)
    limit = float(stability_limit(prompts.x_context)[0])
    exact = least_squares_weights(prompts.x_context, prompts.y_context)

    def distance(step: float) -> torch.Tensor:
        path = gradient_descent_path(prompts.x_context, prompts.y_context, step=step, steps=2000)
        return (path - exact).norm(dim=-1)[:, 0]

    assert float(distance(0.99 * limit)[-1]) < 1e-6
    assert float(distance(1.01 * limit)[-1]) > 1e6


def test_unstable_steps_are_refused() -> None:
    prompts = draw(3, 4, 9)
    limit = stability_limit(prompts.x_context)
    worst = int(limit.argmin())
    arguments = prompts.x_context, prompts.y_context, prompts.x_query
    good, bad = 0.99 * float(limit.min()), 1.01 * float(limit.min())
    assert torch.equal(stable_gradient_descent(good, 3)(*arguments), gradient_descent(good, 3)(*arguments))
    with pytest.raises(LabError) as caught:
        stable_gradient_descent(bad, 3)(*arguments)
    for word in (f"{bad:g}", "2/lambda_max", f"{float(limit.min()):.6g}", f"prompt {worst}"):
        assert word in str(caught.value)
    for step in (0.0, -0.1, float("nan")):
        with pytest.raises(LabError):
            require_stable(prompts.x_context, step)


@pytest.mark.parametrize(("context", "noise"), [(12, 0.0), (12, 0.5), (4, 0.5)])
def test_expected_error_matches_simulation(context: int, noise: float) -> None:
    prompts = linear_regression(stream(4), 4000, dimension=6, context_length=context, query_length=1, noise=noise)
    layers = torch.tensor([0, 1, 3, 20])
    expected = expected_prefix_error(
        gram_eigenvalues(prompts.x_context), layers, step=0.08, input_variance=1 / 3, noise=noise
    )
    path = gradient_descent_path(prompts.x_context, prompts.y_context, step=0.08, steps=20)[layers]
    errors = (path - prompts.weights).square().sum(-1) / 3
    for layer in range(len(layers)):
        # The same inputs on both sides, so that their difference has mean zero.
        assert deviation((errors - expected)[layer].numpy(), 0.0) < 4


def test_expected_error_at_the_ends() -> None:
    values = torch.tensor([[2.0, 0.5, 0.0]], dtype=torch.float64)
    error = expected_prefix_error(values, torch.tensor([0, 10_000]), step=0.5, input_variance=2.0, noise=0.1)
    # Nothing learned; then noise over each eigenvalue, and the direction never seen.
    np.testing.assert_allclose(error[:, 0], [6.0, 2 * (1 + 0.01 * (1 / 2 + 1 / 0.5))], rtol=1e-12)
