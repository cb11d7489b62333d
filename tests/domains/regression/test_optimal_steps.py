from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.domains.regression.gradient_descent import gradient_descent, gram_eigenvalues
from lab.domains.regression.least_squares import least_squares_weights, predict
from lab.domains.regression.optimal_steps import (
    UNIFORM_KURTOSIS,
    curvature_sequence,
    expected_filter_error,
    expected_gd_plus_plus_error,
    filter_polynomial,
    gd_plus_plus,
    gd_plus_plus_filter,
    gd_plus_plus_weights,
    gram_moments,
    normal_moments,
    one_step_error,
    one_step_error_of_spectrum,
    optimal_filter,
    optimal_gradient_step,
    optimal_step,
    optimal_step_of_spectrum,
    preconditioned_error,
    preconditioned_gradient_step,
    preconditioner,
    uniform_moments,
)
from lab.domains.regression.prompts import RegressionPrompts, linear_regression
from lab.errors import LabError
from lab.statistics import deviation, deviation_limit
from lab.streams import stream

algebra = settings(deadline=None, max_examples=20, derandomize=True)
STEPS, CURVATURES = (0.05, 0.03, 0.04), (0.02, 0.01, 0.03)


def draw(
    seed: int, dimension: int, context: int, noise: float = 0.0, batch: int = 3, inputs: str = "normal"
) -> RegressionPrompts:
    return linear_regression(
        stream(seed, "test"),
        batch,
        dimension=dimension,
        context_length=context,
        query_length=2,
        noise=noise,
        inputs=inputs,  # type: ignore[arg-type]
    )


def signs(context: int, dimension: int) -> np.ndarray:
    """All input matrices of coordinates -1 and 1, whose even moments are all 1."""
    return np.array(list(itertools.product((-1.0, 1.0), repeat=context * dimension))).reshape(-1, context, dimension)


@pytest.mark.parametrize(("context", "dimension"), [(1, 1), (2, 3), (3, 2), (4, 1)])
def test_gram_moments_match_an_enumeration(context: int, dimension: int) -> None:
    x = signs(context, dimension)
    values = np.linalg.eigvalsh(x.transpose(0, 2, 1) @ x)
    expected = [(values**power).sum(1).mean() for power in range(6)]
    np.testing.assert_allclose(gram_moments(5, context, dimension, (1.0,) * 9), expected, rtol=1e-10)


@algebra
@given(context=st.integers(1, 30), dimension=st.integers(1, 12), variance=st.floats(0.1, 3))
def test_gram_moments_of_normal_inputs(context: int, dimension: int, variance: float) -> None:
    """The Wishart moments of orders 1 to 3."""
    n, d = context, dimension
    expected = [
        d,
        n * d * variance,
        n * d * (n + d + 1) * variance**2,
        n * d * (n**2 + d**2 + 3 * n * d + 3 * n + 3 * d + 4) * variance**3,
    ]
    np.testing.assert_allclose(gram_moments(3, n, d, normal_moments(variance)), expected, rtol=1e-12)


def test_gram_moments_of_the_largest_order_in_one_dimension() -> None:
    """One example in one dimension: E x^16."""
    moments = gram_moments(8, 1, 1, uniform_moments(0.5))
    np.testing.assert_allclose(moments, [0.5 ** (2 * k) / (2 * k + 1) for k in range(9)], rtol=1e-12)
    np.testing.assert_allclose(gram_moments(6, 1, 1, normal_moments())[-1], 10395.0, rtol=1e-12)


@algebra
@given(context=st.integers(1, 20), dimension=st.integers(1, 10), uniform=st.booleans(), factor=st.floats(0.1, 2.0))
def test_one_step_error_from_moments(context: int, dimension: int, uniform: bool, factor: float) -> None:
    moments = uniform_moments(0.7) if uniform else normal_moments(0.4)
    law = {"input_variance": moments[1], "kurtosis": moments[2] / moments[1] ** 2}
    step = factor * optimal_step(context, dimension, **law)
    expected = expected_filter_error(
        filter_polynomial([step], [0.0]), gram_moments(2, context, dimension, moments), moments[1]
    )
    assert one_step_error(step, context, dimension, **law) == pytest.approx(expected, rel=1e-10)


@algebra
@given(context=st.integers(1, 20), noise=st.floats(0, 2), shift=st.floats(-0.5, 0.5))
def test_optimal_step_is_the_least(context: int, noise: float, shift: float) -> None:
    best = optimal_step(context, 5, input_variance=0.3, kurtosis=UNIFORM_KURTOSIS, noise=noise)
    law = {"input_variance": 0.3, "kurtosis": UNIFORM_KURTOSIS, "noise": noise}
    least, other = (one_step_error(step, context, 5, **law) for step in (best, best * (1 + shift)))
    assert least <= other * (1 + 1e-12)  # a few roundings; a minimum is flat


@algebra
@given(context=st.integers(1, 20), dimension=st.integers(1, 6), variance=st.floats(0.1, 3), noise=st.floats(0, 1))
def test_isotropic_spectrum_is_the_plain_step(context: int, dimension: int, variance: float, noise: float) -> None:
    spectrum = np.full(dimension, variance)
    step = optimal_step(context, dimension, input_variance=variance, noise=noise)
    assert optimal_step_of_spectrum(spectrum, context, noise) == pytest.approx(step, rel=1e-12)
    np.testing.assert_allclose(preconditioner(spectrum, context, noise), context * step, rtol=1e-12)
    error = one_step_error(step, context, dimension, input_variance=variance, noise=noise)
    assert one_step_error_of_spectrum(step, spectrum, context, noise) == pytest.approx(error, rel=1e-12)
    assert preconditioned_error(spectrum, context, noise) == pytest.approx(error, rel=1e-9)


def test_preconditioning_beats_the_plain_step() -> None:
    """The values of a spectrum worked out by hand, and sampled prompts."""
    spectrum = np.array([2.0, 1.0, 0.5, 0.25, 0.1])
    plain = optimal_step_of_spectrum(spectrum, 12, 0.3)
    assert preconditioned_error(spectrum, 12, 0.3) == pytest.approx(1.1238, abs=5e-5)
    assert one_step_error_of_spectrum(plain, spectrum, 12, 0.3) == pytest.approx(1.4185, abs=5e-5)
    prompts = linear_regression(
        stream(0, "test"),
        20_000,
        dimension=5,
        context_length=12,
        query_length=1,
        inputs="normal",
        spectrum=spectrum.tolist(),
        noise=0.3,
    )
    arguments = prompts.x_context, prompts.y_context, prompts.x_query
    for predictor, expected in (
        (preconditioned_gradient_step(spectrum.tolist(), 0.3), 1.1238),
        (gradient_descent(plain, 1), 1.4185),
    ):
        errors = (predictor(*arguments) - prompts.y_query).square().mean(-1).numpy()
        assert deviation(errors, expected) < deviation_limit(len(errors))


@algebra
@given(seed=st.integers(0, 10**6), dimension=st.integers(1, 5), context=st.integers(1, 8))
def test_gd_plus_plus_matches_a_loop_over_tokens(seed: int, dimension: int, context: int) -> None:
    """Every token's input is mapped, every label slot stepped, from the definition, with noisy labels."""
    prompts = draw(seed, dimension, context, noise=0.5)
    x, y, queries = (value.clone() for value in (prompts.x_context, prompts.y_context, prompts.x_query))
    answer = torch.zeros(3, 2, dtype=x.dtype)
    for step, curvature in zip(STEPS, CURVATURES, strict=True):
        gram, scores = x.mT @ x, queries @ x.mT
        answer = answer + step * predict(y, scores)
        y = y - step * predict(y, x @ x.mT)
        x, queries = x - curvature * x @ gram, queries - curvature * queries @ gram
    predictions = gd_plus_plus(STEPS, CURVATURES)(prompts.x_context, prompts.y_context, prompts.x_query)
    torch.testing.assert_close(predictions, answer, rtol=0, atol=1e-10 * max(1.0, float(answer.abs().max())))


@algebra
@given(seed=st.integers(0, 10**6), context=st.integers(1, 8))
def test_gd_plus_plus_filters_least_squares(seed: int, context: int) -> None:
    prompts = draw(seed, 4, context, noise=0.3)
    x, y = prompts.x_context, prompts.y_context
    values, vectors = torch.linalg.eigh(x.mT @ x)
    left = gd_plus_plus_filter(values, STEPS, CURVATURES)[-1]
    solution = least_squares_weights(x, y)
    expected = vectors @ ((1 - left) * (vectors.mT @ solution[..., None])[..., 0])[..., None]
    weights = gd_plus_plus_weights(x, y, steps=STEPS, curvatures=CURVATURES)
    torch.testing.assert_close(weights, expected[..., 0], rtol=0, atol=1e-9 * max(1.0, float(solution.abs().max())))


def test_without_curvature_it_is_gradient_descent() -> None:
    prompts = draw(0, 4, 9, noise=0.3)
    arguments = prompts.x_context, prompts.y_context, prompts.x_query
    predictions = gd_plus_plus([0.02] * 6, [0.0] * 6)(*arguments)
    torch.testing.assert_close(predictions, gradient_descent(0.02, 6)(*arguments))
    optimal = optimal_gradient_step(noise=0.3)(*arguments)
    torch.testing.assert_close(optimal, gradient_descent(optimal_step(9, 4, noise=0.3), 1)(*arguments))


@algebra
@given(value=st.floats(0, 30))
def test_filter_polynomial_agrees_with_the_sequence(value: float) -> None:
    eigenvalues = torch.tensor([value], dtype=torch.float64)
    filtered = np.polynomial.polynomial.polyval(value, filter_polynomial(STEPS[:2], CURVATURES[:2]))
    expected = float(gd_plus_plus_filter(eigenvalues, STEPS[:2], CURVATURES[:2])[-1])
    assert filtered == pytest.approx(expected, abs=1e-11 * (1 + value) ** 4)
    met = curvature_sequence(eigenvalues, CURVATURES)
    assert float(met[1]) == pytest.approx(value * (1 - CURVATURES[0] * value) ** 2)


def test_expected_error_of_layers() -> None:
    """One prompt's expectation over weights and queries is the squared filter, and its mean the exact moment."""
    prompts = draw(1, 3, 6, batch=4000)
    values = gram_eigenvalues(prompts.x_context)
    errors = expected_gd_plus_plus_error(values, STEPS[:2], CURVATURES[:2], input_variance=1.0)
    exact = expected_filter_error(
        filter_polynomial(STEPS[:2], CURVATURES[:2]), gram_moments(8, 6, 3, normal_moments()), 1.0
    )
    assert deviation(errors[-1].numpy(), exact) < deviation_limit(4000)


def test_optimal_filters() -> None:
    moments = uniform_moments(0.5)
    single = optimal_filter(10, 10, moments, layers=1, curved=False)
    assert single[0][0] == pytest.approx(optimal_step(10, 10, input_variance=1 / 12, kurtosis=1.8), rel=1e-6)
    double = optimal_filter(10, 10, moments, layers=2, curved=False)
    tied = optimal_filter(10, 10, moments, layers=2, curved=True)
    free = optimal_filter(10, 10, moments, layers=2, curved=True, tied=False)
    assert single[2] / 2 == pytest.approx(0.20623, abs=5e-6)
    assert double[2] / 2 == pytest.approx(0.15662, abs=5e-6)
    assert tied[2] / 2 == pytest.approx(0.11049, abs=5e-6)
    assert tied[1][0] == pytest.approx(0.176, abs=5e-5)
    assert tied[0][0] == tied[0][1]
    assert free[2] < tied[2]
    assert free[1][-1] == 0
    # Four free steps of gradient descent are no worse than four equal ones.
    equal = optimal_filter(10, 10, moments, layers=4, curved=False)[2]
    assert optimal_filter(10, 10, moments, layers=4, curved=False, tied=False)[2] <= equal


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: optimal_step(0, 3), "context_length is 0"),
        (lambda: optimal_step(3, 0), "dimension is 0"),
        (lambda: optimal_step(3, 3, input_variance=0.0), "input_variance is 0.0"),
        (lambda: optimal_step(3, 3, kurtosis=0.5), "kurtosis is 0.5"),
        (lambda: optimal_step(3, 3, noise=-1.0), "noise is -1.0"),
        (lambda: preconditioner(np.array([1.0, -1.0]), 3), "spectrum"),
        (lambda: gram_moments(9, 3, 3, uniform_moments()), "between 0 and 8"),
        (lambda: gram_moments(-1, 3, 3, uniform_moments()), "between 0 and 8"),
        (lambda: gd_plus_plus([0.1], [0.1, 0.2]), "1 steps and 2 curvatures"),
        (lambda: gd_plus_plus([], []), "0 steps"),
        (lambda: expected_filter_error(np.array([1.0, 2.0]), np.array([1.0, 1.0]), 1.0), "needs 3 moments"),
        (lambda: optimal_filter(5, 5, uniform_moments(), layers=3, curved=True), "degree 13"),
        (lambda: optimal_filter(5, 5, uniform_moments(), layers=0, curved=False), "degree 0"),
    ],
)
def test_bad_input_is_named(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(LabError, match=message):
        call()
