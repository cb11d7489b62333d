from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.domains.regression.causal_recursions import causal_recursion, normalised_causal_gram
from lab.domains.regression.kaczmarz import (
    BLOCK,
    averaged_kaczmarz,
    kaczmarz,
    kaczmarz_path,
    kaczmarz_weights,
    normalised_kaczmarz,
    normalised_kaczmarz_path,
    normalised_kaczmarz_weights,
    stationary_coefficients,
)
from lab.domains.regression.least_squares import least_squares_weights
from lab.domains.regression.prompts import RegressionPrompts, linear_regression, permute_context, random_orders
from lab.errors import LabError
from lab.streams import stream

algebra = settings(deadline=None, max_examples=20, derandomize=True)


def draw(
    seed: int, dimension: int, context: int, batch: int = 2, noise: float = 0.5, mean: float = 0.0
) -> RegressionPrompts:
    return linear_regression(
        stream(seed, "test"), batch, dimension=dimension, context_length=context, query_length=3, noise=noise, mean=mean
    )


def loop(prompts: RegressionPrompts, passes: int = 1, relaxation: float = 1.0, shrink: bool = False) -> np.ndarray:
    """The recursion as it is written, weights after each example [batch, passes * context, dimension]."""
    paths = []
    for x, y in zip(prompts.x_context.numpy(), prompts.y_context.numpy(), strict=True):
        weights, path = np.zeros(x.shape[1]), []
        for _ in range(passes):
            for j in range(len(x)):
                if shrink:
                    weights = weights * (j / (j + 1))
                weights = weights + relaxation * (y[j] - weights @ x[j]) * x[j] / (x[j] @ x[j])
                path.append(weights)
        paths.append(path)
    return np.array(paths)


contexts = st.integers(1, 2 * BLOCK + 3)


@algebra
@given(
    seed=st.integers(0, 10**6),
    dimension=st.integers(1, 5),
    context=contexts,
    relaxation=st.sampled_from([0.5, 1.0, 1.6]),
    mean=st.sampled_from([0.0, 3.0]),
)
def test_matches_a_loop(seed: int, dimension: int, context: int, relaxation: float, mean: float) -> None:
    prompts = draw(seed, dimension, context, mean=mean)
    x, y = prompts.x_context, prompts.y_context
    expected = loop(prompts, relaxation=relaxation)
    # A relative step of size 1 / |x_j| amplifies rounding in nearly zero inputs.
    scale = 1e-13 * context * float(np.abs(expected).max() + (y.abs().amax() / x.norm(dim=-1).amin()))
    path = kaczmarz_path(x, y, relaxation=relaxation)
    np.testing.assert_allclose(path, expected, rtol=0, atol=scale)
    last = kaczmarz_weights(x, y, relaxation=relaxation)
    np.testing.assert_allclose(last, expected[:, -1], rtol=0, atol=scale)
    twice = kaczmarz_weights(x, y, passes=2, relaxation=relaxation)
    np.testing.assert_allclose(twice, loop(prompts, 2, relaxation)[:, -1], rtol=0, atol=2 * scale)


@algebra
@given(seed=st.integers(0, 10**6), dimension=st.integers(2, 5), context=contexts)
def test_equals_the_triangular_solve_and_interpolates_its_own_label(seed: int, dimension: int, context: int) -> None:
    prompts = draw(seed, dimension, context)
    x, y = prompts.x_context, prompts.y_context
    path = kaczmarz_path(x, y)
    coefficients = stationary_coefficients(x, y)
    scale = float((coefficients.abs() * x.norm(dim=-1)).sum(-1).max())
    weights = (coefficients[..., None] * x).cumsum(1)
    torch.testing.assert_close(weights, path, rtol=0, atol=1e-12 * scale)
    torch.testing.assert_close((path * x).sum(-1), y, rtol=0, atol=1e-12 * scale)


def test_controls_of_the_stationary_point() -> None:
    """Half a step, or the reversed order, end elsewhere."""
    prompts = draw(0, 4, 20)
    x, y = prompts.x_context, prompts.y_context
    exact = (stationary_coefficients(x, y)[..., None] * x).sum(1)
    assert float((kaczmarz_weights(x, y, relaxation=0.5) - exact).abs().max()) > 0.1
    assert float((kaczmarz_weights(x.flip(1), y.flip(1)) - exact).abs().max()) > 0.1


def test_is_the_limit_of_depth() -> None:
    prompts = draw(1, 3, 6)
    deep = causal_recursion(prompts.x_context, prompts.y_context, prompts.x_query, step=0.3, layers=3000)
    predictions = kaczmarz()(prompts.x_context, prompts.y_context, prompts.x_query)
    torch.testing.assert_close(deep.query_prediction[-1], predictions, rtol=0, atol=1e-9)


@algebra
@given(seed=st.integers(0, 10**6), dimension=st.integers(2, 5), context=contexts)
def test_normalised_recursion(seed: int, dimension: int, context: int) -> None:
    prompts = draw(seed, dimension, context)
    x, y = prompts.x_context, prompts.y_context
    path = normalised_kaczmarz_path(x, y)
    expected = loop(prompts, shrink=True)
    scale = 1e-13 * context * float(np.abs(expected).max() + y.abs().amax() / x.norm(dim=-1).amin())
    np.testing.assert_allclose(path, expected, rtol=0, atol=scale)
    np.testing.assert_allclose(normalised_kaczmarz_weights(x, y), expected[:, -1], rtol=0, atol=scale)
    # It is also the solution of a S = y.
    a = torch.linalg.solve_triangular(normalised_causal_gram(x), y[:, None], upper=True, left=False)[:, 0]
    weights = (a[..., None] * x).sum(1) / context
    size = float((a.abs() * x.norm(dim=-1)).sum(-1).max())
    torch.testing.assert_close(weights, path[:, -1], rtol=0, atol=1e-12 * size)


def test_normalised_predictor_uses_the_last_weights() -> None:
    prompts = draw(2, 3, 20)
    weights = normalised_kaczmarz_path(prompts.x_context, prompts.y_context)[:, -1]
    predictions = normalised_kaczmarz()(prompts.x_context, prompts.y_context, prompts.x_query)
    torch.testing.assert_close(predictions, (prompts.x_query @ weights[..., None])[..., 0])


def test_a_zero_input_changes_nothing() -> None:
    prompts = draw(3, 3, 20)
    x, y = prompts.x_context.clone(), prompts.y_context
    x[:, 7] = 0
    nonzero = [place for place in range(20) if place != 7]
    torch.testing.assert_close(kaczmarz_weights(x, y), kaczmarz_weights(x[:, nonzero], y[:, nonzero]))
    path = kaczmarz_path(x, y)
    torch.testing.assert_close(path[:, 7], path[:, 6])


def test_passes_tend_to_least_squares_without_noise_only() -> None:
    clean, noisy = draw(4, 3, 12, noise=0.0), draw(4, 3, 12)
    for prompts, reaches in ((clean, True), (noisy, False)):
        exact = least_squares_weights(prompts.x_context, prompts.y_context)
        many = kaczmarz_weights(prompts.x_context, prompts.y_context, passes=200)
        assert (float((many - exact).abs().max()) < 1e-9) == reaches


def test_average_over_orders_is_the_mean_of_single_orders() -> None:
    prompts = draw(5, 3, 12)
    predictor = averaged_kaczmarz(4, stream(6, "orders"))
    predictions = predictor(prompts.x_context, prompts.y_context, prompts.x_query)
    single = []
    for order in random_orders(stream(6, "orders"), 4, 12):
        moved = permute_context(prompts, order)
        single.append(kaczmarz()(moved.x_context, moved.y_context, moved.x_query))
    torch.testing.assert_close(predictions, torch.stack(single).mean(0))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x, y: kaczmarz_weights(x, y, passes=0), "0 passes but at least 1"),
        (lambda x, y: kaczmarz_weights(x, y, relaxation=2.0), r"relaxation 2.0 is outside \(0, 2\)"),
        (lambda x, y: kaczmarz_path(x, y, relaxation=0.0), r"relaxation 0.0 is outside \(0, 2\)"),
        (lambda x, y: averaged_kaczmarz(0, stream(0)), "0 orders"),
    ],
)
def test_errors(call, words: str) -> None:
    prompts = draw(6, 3, 4)
    with pytest.raises(LabError, match=words):
        call(prompts.x_context, prompts.y_context)
