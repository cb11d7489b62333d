"""Closed forms of function classes, each against a loop, a definition, or sampling."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Lasso
from sklearn.neighbors import KNeighborsRegressor

from lab.domains.regression.function_class_prompts import FunctionPrompts, Sizes, function_prompts, sample_functions
from lab.domains.regression.function_classes import (
    arc_cosine,
    arc_cosine_kernel,
    averaging,
    expected_averaging_error,
    expected_kernel_error,
    kernel_predictor,
    lasso,
    lasso_gap,
    lasso_weights,
    linear_kernel,
    nearest_neighbours,
    ridge_error,
    second_moment,
    sparse_bayes,
    tree_average,
    tree_kernel,
)
from lab.domains.regression.least_squares import least_squares
from lab.errors import LabError
from lab.streams import stream

algebra = settings(deadline=None, max_examples=20, derandomize=True)
RULES = [averaging(), arc_cosine(), tree_average(2), sparse_bayes(2, 0.1), lasso(0.1), nearest_neighbours(3)]


def draw(seed: int = 0, name: str = "linear", batch: int = 3, context: int = 6, **changes: object) -> FunctionPrompts:
    return function_prompts(
        stream(seed, "closed forms"),
        batch,
        function=name,
        dimension=4,
        context_length=context,
        query_length=2,
        **changes,
    )


@pytest.mark.parametrize("name", ["linear", "sparse", "quadratic", "relu", "tree", "sign"])
def test_second_moments(name: str) -> None:
    prompts = draw(0, name, batch=20_000, context=0, sizes=Sizes(sparsity=2, hidden=4))
    squares = prompts.y_query[:, 0].square().numpy()
    error = squares.std() / math.sqrt(len(squares)) + 1e-12
    assert abs(squares.mean() - second_moment(name, 4, Sizes(sparsity=2))) < 5 * error


def test_averaging_is_the_mean_of_labelled_inputs_and_has_its_error() -> None:
    prompts = draw(1, batch=20_000, context=5)
    predictions = averaging()(prompts.x_context, prompts.y_context, prompts.x_query)
    by_hand = sum(prompts.y_context[0, i] * prompts.x_context[0, i] for i in range(5)) / 5
    torch.testing.assert_close(predictions[0], prompts.x_query[0] @ by_hand)
    squares = (predictions - prompts.y_query).square()[:, 0].numpy()
    assert abs(squares.mean() - expected_averaging_error(5, 4)) < 5 * squares.std() / math.sqrt(20_000)
    assert expected_averaging_error(5, 4) == 4.0  # as bad as predicting 0 with d + 1 examples
    assert expected_averaging_error(0, 4) == 4.0


@algebra
@given(seed=st.integers(0, 10**6), context=st.integers(1, 8), noise=st.sampled_from([0.1, 1.0]))
def test_ridge_error_is_bias_plus_variance_and_least_at_bayes(seed: int, context: int, noise: float) -> None:
    x = draw(seed, context=context).x_context
    for penalty in (0.05, noise**2, 2.0):
        for b in range(3):
            matrix = x[b].numpy()
            estimate = np.linalg.solve(matrix.T @ matrix + penalty * np.eye(4), matrix.T)
            bias = estimate @ matrix - np.eye(4)
            expected = (bias**2).sum() + noise**2 * (estimate**2).sum()
            assert float(ridge_error(x, penalty, noise)[b]) == pytest.approx(expected, rel=1e-6)
        assert bool((ridge_error(x, penalty, noise) >= ridge_error(x, noise**2, noise) - 1e-9).all())


@pytest.mark.parametrize(("name", "kernel"), [("relu", arc_cosine_kernel), ("tree", tree_kernel(3))])
def test_kernels_are_covariances(name: str, kernel) -> None:
    x = stream(2, "kernel").rng().standard_normal((1, 4, 4))
    f = sample_functions(stream(2), 40_000, name, 4, Sizes(hidden=2, depth=3))
    values = f(np.broadcast_to(x, (40_000, 4, 4)))
    products = values[:, :, None] * values[:, None, :]
    exact = kernel(torch.from_numpy(x), torch.from_numpy(x))[0].numpy()
    assert (np.abs(products.mean(0) - exact) < 5 * products.std(0) / math.sqrt(40_000)).all()


def test_arc_cosine_at_special_angles() -> None:
    x = torch.tensor([[[2.0, 0.0]]], dtype=torch.float64)
    z = torch.tensor([[[2.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, 0.0]]], dtype=torch.float64)
    expected = torch.tensor([[[4.0, 0.0, 2 / math.pi, 0.0]]], dtype=torch.float64)
    torch.testing.assert_close(arc_cosine_kernel(x, z), expected, atol=1e-14, rtol=0)


def test_the_linear_kernel_predicts_like_least_squares() -> None:
    for context in (2, 6):
        prompts = draw(3, context=context)
        arguments = prompts.x_context, prompts.y_context, prompts.x_query
        torch.testing.assert_close(kernel_predictor(linear_kernel)(*arguments), least_squares()(*arguments))


def test_expected_kernel_errors_by_sampling_functions() -> None:
    prompts = draw(4, batch=1, context=5)
    x, query = prompts.x_context, prompts.x_query
    f = sample_functions(stream(4), 20_000, "relu", 4, Sizes(hidden=3))
    inputs = np.broadcast_to(torch.cat([x, query], 1).numpy(), (20_000, 7, 4))
    values = torch.from_numpy(f(inputs))
    for used in (arc_cosine_kernel, linear_kernel):
        predicted = kernel_predictor(used)(x.expand(20_000, -1, -1), values[:, :5], query.expand(20_000, -1, -1))
        squares = (predicted - values[:, 5:]).square()
        exact = expected_kernel_error(arc_cosine_kernel, x, query, used)[0]
        assert bool(((squares.mean(0) - exact).abs() < 5 * squares.std(0) / math.sqrt(20_000)).all())
    # The true kernel is the best, at every query.
    right, wrong = (expected_kernel_error(arc_cosine_kernel, x, query, used) for used in (None, linear_kernel))
    assert bool((right < wrong).all())


def test_inputs_of_equal_signs_share_their_label() -> None:
    x = torch.tensor([[[1.0, 2.0], [3.0, 0.5], [-1.0, 1.0]]], dtype=torch.float64)
    predictions = tree_average(2)(x, torch.tensor([[0.7, 0.7, -1.0]], dtype=torch.float64), x)
    torch.testing.assert_close(predictions, torch.tensor([[0.7, 0.7, -1.0]], dtype=torch.float64))


def test_sparse_posterior_by_enumeration() -> None:
    noise = 0.3
    prompts = draw(5, "sparse", sizes=Sizes(sparsity=2), noise=noise, context=3)
    means = sparse_bayes(2, noise)(prompts.x_context, prompts.y_context, prompts.x_query)
    for b in range(3):
        x, y, query = (tensor[b].numpy() for tensor in (prompts.x_context, prompts.y_context, prompts.x_query))
        evidences, predictions = [], []
        for support in combinations(range(4), 2):
            part = x[:, support]
            covariance = part @ part.T + noise**2 * np.eye(3)
            evidences.append(-0.5 * y @ np.linalg.solve(covariance, y) - 0.5 * np.linalg.slogdet(covariance)[1])
            predictions.append(query[:, support] @ part.T @ np.linalg.solve(covariance, y))
        weights = np.exp(np.array(evidences) - max(evidences))
        expected = (weights / weights.sum()) @ np.array(predictions)
        np.testing.assert_allclose(means[b], expected, atol=1e-10)


@algebra
@given(seed=st.integers(0, 10**6), context=st.sampled_from([3, 6, 12]), penalty=st.sampled_from([0.01, 0.3]))
def test_lasso_has_no_duality_gap_and_matches_coordinate_descent(seed: int, context: int, penalty: float) -> None:
    prompts = draw(seed, "sparse", context=context)
    x, y = prompts.x_context, prompts.y_context
    weights = lasso_weights(x, y, penalty)
    gap = lasso_gap(x, y, weights, penalty)
    scale = y.square().sum(-1) / context + 1
    assert bool((gap.abs() <= 1e-9 * scale).all())
    assert bool((lasso_gap(x, y, weights + 0.1, penalty) > gap).all())
    other = Lasso(alpha=penalty, fit_intercept=False, tol=1e-12, max_iter=100_000)
    fitted = other.fit(x[0].numpy(), y[0].numpy()).coef_
    np.testing.assert_allclose(weights[0], fitted, atol=1e-6)
    np.testing.assert_allclose(lasso_weights(x.float(), y.float(), penalty).double(), weights, atol=1e-4)


def test_neighbours_match_another_implementation() -> None:
    prompts = draw(6, "relu", context=9)
    predictions = nearest_neighbours(3)(prompts.x_context, prompts.y_context, prompts.x_query)
    for b in range(3):
        reference = KNeighborsRegressor(3).fit(prompts.x_context[b].numpy(), prompts.y_context[b].numpy())
        np.testing.assert_allclose(predictions[b], reference.predict(prompts.x_query[b].numpy()), atol=1e-12)
    few = nearest_neighbours(3)(prompts.x_context[:, :2], prompts.y_context[:, :2], prompts.x_query)
    torch.testing.assert_close(few, prompts.y_context[:, :2].mean(1, keepdim=True).expand(3, 2))


@pytest.mark.parametrize("rule", RULES)
def test_without_examples_all_predict_zero(rule) -> None:
    prompts = draw(7, context=0)
    predictions = rule(prompts.x_context, prompts.y_context, prompts.x_query)
    torch.testing.assert_close(predictions, torch.zeros_like(predictions))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: sparse_bayes(0, 0.1), "sparsity 0 must be at least 1"),
        (lambda: ridge_error(torch.ones(1, 2, 3), 0.0, 0.5), "ridge penalty 0.0 must be above 0"),
        (lambda: sparse_bayes(2, 0.0), "noise 0.0 of a sparse posterior must be above 0"),
        (lambda: lasso_weights(torch.ones(1, 2, 2), torch.ones(1, 2), 0.0), "Lasso penalty 0.0 must be above 0"),
        (
            lambda: lasso_weights(torch.sin(torch.arange(300.0)).view(5, 5, 12), torch.ones(5, 5), 1e-6, 50),
            "5 of 5 Lasso problems have a duality gap above 1e-10",
        ),
        (lambda: nearest_neighbours(0), "neighbours 0 must be at least 1"),
        (
            lambda: sparse_bayes(5, 0.1)(torch.ones(1, 2, 4), torch.ones(1, 2), torch.ones(1, 1, 4)),
            "There are 0 supports of 5 coordinates among 4",
        ),
    ],
)
def test_bad_input(make, sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        make()
