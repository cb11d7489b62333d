from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.domains.regression.least_squares import (
    expected_query_error,
    least_squares,
    least_squares_weights,
    ridge,
    ridge_weights,
    zero,
)
from lab.domains.regression.prompts import RegressionPrompts, linear_regression, permute_context, random_orders
from lab.errors import LabError
from lab.predictors import RegressionPredictor
from lab.statistics import deviation, rounding_bound
from lab.streams import stream

algebra = settings(deadline=None, max_examples=25, derandomize=True)


def draw(seed: int, dimension: int, context: int, batch: int = 3, noise: float = 0.5) -> RegressionPrompts:
    return linear_regression(
        stream(seed, "test"),
        batch,
        dimension=dimension,
        context_length=context,
        query_length=2,
        inputs="normal",
        noise=noise,
    )


@algebra
@given(seed=st.integers(0, 10**6), dimension=st.integers(1, 6), context=st.integers(1, 12))
def test_normal_equations_and_least_norm(seed: int, dimension: int, context: int) -> None:
    prompts = draw(seed, dimension, context)
    x, y = prompts.x_context, prompts.y_context
    weights = least_squares_weights(x, y)
    condition = float((torch.linalg.svdvals(x)[:, 0] / torch.linalg.svdvals(x)[:, -1]).max())
    scale = float((x.square().sum((1, 2)) * weights.norm(dim=1) + x.flatten(1).norm(dim=1) * y.norm(dim=1)).max())
    bound = rounding_bound(50 * context * dimension * condition, scale)
    residual = y - (x @ weights[..., None])[..., 0]
    assert float((x.mT @ residual[..., None]).abs().max()) <= bound
    # Least norm: nothing outside the span of the inputs.
    outside = weights[..., None] - torch.linalg.pinv(x) @ x @ weights[..., None]
    assert float(outside.abs().max()) <= bound


@algebra
@given(seed=st.integers(0, 10**6), penalty=st.sampled_from([1e-3, 0.3, 10.0]))
def test_ridge_matches_a_loop_and_its_dual(seed: int, penalty: float) -> None:
    prompts = draw(seed, 4, 6)
    x, y = prompts.x_context, prompts.y_context
    weights = ridge_weights(x, y, penalty)
    for b in range(len(x)):
        matrix, labels = x[b].numpy(), y[b].numpy()
        dual = matrix.T @ np.linalg.solve(matrix @ matrix.T + penalty * np.eye(6), labels)
        np.testing.assert_allclose(weights[b], dual, rtol=0, atol=1e-9)


def test_ridge_tends_to_least_squares() -> None:
    prompts = draw(0, 4, 9)
    x, y = prompts.x_context, prompts.y_context
    exact = least_squares_weights(x, y)
    distances = [float((ridge_weights(x, y, penalty) - exact).norm()) for penalty in (1e-2, 1e-3, 1e-4)]
    # The distance is linear in a small penalty.
    assert distances[0] / distances[1] == pytest.approx(10, rel=0.1)
    assert distances[1] / distances[2] == pytest.approx(10, rel=0.01)


def exact_ridge(x: torch.Tensor, y: torch.Tensor, penalty: float) -> list[float]:
    """By Gauss elimination on rational numbers, which do not round."""
    rows = [[Fraction(value) for value in row] for row in x.tolist()]
    system = [
        [sum((row[i] * row[j] for row in rows), Fraction(penalty) * (i == j)) for j in range(x.shape[1])]
        + [sum((row[i] * Fraction(label) for row, label in zip(rows, y.tolist(), strict=True)), Fraction(0))]
        for i in range(x.shape[1])
    ]
    for i, pivot in enumerate(system):
        for k, other in enumerate(system):
            if k != i:
                factor = other[i] / pivot[i]
                system[k] = [a - factor * b for a, b in zip(other, pivot, strict=True)]
    return [float(row[-1] / row[i]) for i, row in enumerate(system)]


@pytest.mark.parametrize(("context", "dimension"), [(1, 2), (3, 5), (5, 20), (8, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("penalty", [1e-18, 1e-9, 1e-6, 1e-2, 100.0])
def test_ridge_is_exact_to_rounding(context: int, dimension: int, dtype: torch.dtype, penalty: float) -> None:
    prompts = draw(7, dimension, context, batch=1)
    x, y = prompts.x_context.to(dtype), prompts.y_context.to(dtype)
    exact = torch.tensor(exact_ridge(x[0], y[0], penalty), dtype=torch.float64)
    weights = ridge_weights(x, y, penalty)[0].double()
    values = torch.linalg.svdvals(x[0].double())
    tolerance = 20 * torch.finfo(dtype).eps * float(values[0] / values[-1])
    assert float((weights - exact).norm() / exact.norm()) < tolerance


def test_ridge_passes_over_examples_that_are_zero_at_the_smallest_penalties() -> None:
    prompts = draw(8, 4, 3)
    x, y = prompts.x_context, prompts.y_context
    padded = torch.cat([x, torch.zeros_like(x)], 1), torch.cat([y, torch.ones_like(y)], 1)
    for penalty in (1e-300, 1e-15, 1e-3):
        torch.testing.assert_close(ridge_weights(*padded, penalty), ridge_weights(x, y, penalty), rtol=0, atol=1e-12)


def test_ridge_is_the_posterior_mean() -> None:
    """No other penalty has a lower error than noise^2 / weight variance, on paired prompts."""
    prompts = linear_regression(
        stream(1), 4000, dimension=3, context_length=4, query_length=1, inputs="normal", noise=1.0, weight_scale=2.0
    )
    arguments = prompts.x_context, prompts.y_context, prompts.x_query

    def errors(penalty: float) -> np.ndarray:
        return (ridge(penalty)(*arguments) - prompts.y_query).square()[:, 0].numpy()

    best = errors(0.25)
    for penalty in (0.02, 2.5):
        difference = errors(penalty) - best
        assert difference.mean() > 4 * difference.std() / math.sqrt(len(difference))


@pytest.mark.parametrize("predictor", [least_squares(), ridge(0.7)])
def test_order_of_examples_does_not_matter(predictor: RegressionPredictor) -> None:
    prompts = draw(2, 4, 12)
    moved = permute_context(prompts, random_orders(stream(3), 1, 12)[0])
    torch.testing.assert_close(
        predictor(prompts.x_context, prompts.y_context, prompts.x_query),
        predictor(moved.x_context, moved.y_context, moved.x_query),
        rtol=0,
        atol=1e-12,
    )


def test_noise_free_labels_are_recovered() -> None:
    prompts = draw(4, 4, 12, noise=0)
    predictions = least_squares()(prompts.x_context, prompts.y_context, prompts.x_query)
    torch.testing.assert_close(predictions, prompts.y_query, rtol=0, atol=1e-12)


def test_zero_predictor() -> None:
    prompts = draw(5, 4, 6)
    assert bool((zero()(prompts.x_context, prompts.y_context, prompts.x_query) == 0).all())


@pytest.mark.parametrize("penalty", [0.0, -1.0, math.nan])
def test_penalty_must_be_positive(penalty: float) -> None:
    with pytest.raises(LabError, match=f"{penalty}"):
        ridge_weights(torch.ones(1, 2, 2), torch.ones(1, 2), penalty)


@pytest.mark.parametrize(("context", "noise"), [(3, 0.0), (3, 0.5), (20, 0.5), (40, 1.0)])
def test_expected_error_matches_simulation(context: int, noise: float) -> None:
    prompts = linear_regression(
        stream(6), 6000, dimension=8, context_length=context, query_length=1, inputs="normal", noise=noise
    )
    weights = least_squares_weights(prompts.x_context, prompts.y_context)
    errors = (weights - prompts.weights).square().sum(1).numpy()
    assert deviation(errors, expected_query_error(context, 8, noise)) < 4


def test_expected_error_has_a_peak_only_under_noise() -> None:
    assert [expected_query_error(n, 8, 0.1) for n in (7, 8, 9)] == [math.inf] * 3
    assert [expected_query_error(n, 8, 0.0) for n in (6, 8, 9)] == [2, 0, 0]


@pytest.mark.parametrize("weights_of", [least_squares_weights, partial(ridge_weights, penalty=0.5)])
@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("inputs", float("nan"), r"inputs hold nan at \[0, 1, 2\]"),
        ("inputs", float("inf"), r"inputs hold inf at \[0, 1, 2\]"),
        ("labels", float("nan"), r"labels hold nan at \[0, 1\]"),
    ],
)
def test_numbers_without_a_solution_are_named(
    weights_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], place: str, value: float, words: str
) -> None:
    prompts = draw(0, 4, 6)
    x, y = prompts.x_context.clone(), prompts.y_context.clone()
    (x if place == "inputs" else y)[(0, 1, 2)[: 3 if place == "inputs" else 2]] = value
    with pytest.raises(LabError, match=words):
        weights_of(x, y)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("weights_of", [least_squares_weights, partial(ridge_weights, penalty=0.5)])
def test_whole_numbers_are_refused_by_their_type(
    weights_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> None:
    x, y = torch.eye(3, dtype=torch.int64)[None], torch.ones(1, 3)
    with pytest.raises(LabError, match="inputs are torch.int64"):
        weights_of(x, y)
    with pytest.raises(LabError, match="labels are torch.int64"):
        weights_of(x.double(), y.long())
