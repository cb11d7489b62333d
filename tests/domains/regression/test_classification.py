from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from lab.domains.regression.classification import class_error, logistic, logistic_fit, one_hot_regression
from lab.domains.regression.least_squares import ridge, ridge_weights
from lab.domains.regression.prompts import ClassPrompts, multiclass
from lab.errors import LabError
from lab.streams import stream

algebra = settings(deadline=None, max_examples=15, derandomize=True)


def draw(seed: int, classes: int = 3, context: int = 12, batch: int = 4, mean: float = 0.0) -> ClassPrompts:
    return multiclass(
        stream(seed, "test"), batch, classes=classes, dimension=3, context_length=context, query_length=5, mean=mean
    )


@algebra
@given(
    seed=st.integers(0, 10**6),
    classes=st.integers(2, 4),
    context=st.integers(1, 15),
    precision=st.sampled_from([1e-3, 0.2, 5.0]),
    mean=st.sampled_from([0.0, 3.0]),
)
def test_certificate_is_the_gradient(seed: int, classes: int, context: int, precision: float, mean: float) -> None:
    prompts = draw(seed, classes, context, mean=mean)
    fit = logistic_fit(prompts.x_context, prompts.y_context, precision)
    weights = fit.weights.clone().requires_grad_()
    misfit = torch.nn.functional.cross_entropy(
        (prompts.x_context @ weights.mT).flatten(0, 1), prompts.y_context.flatten(0, 1), reduction="sum"
    )
    (misfit + precision / 2 * weights.square().sum()).backward()
    assert weights.grad is not None
    gradient = weights.grad.flatten(1).norm(dim=1)
    torch.testing.assert_close(gradient, fit.gradient_norm, rtol=1e-3, atol=1e-12)
    assert float(gradient.max()) <= 1.001e-9
    # Adding one vector to all classes changes no probability, so that the prior makes their sum zero.
    assert float(fit.weights.sum(1).abs().max()) <= 1e-7 / precision


def test_matches_an_independent_solver() -> None:
    prompts = draw(0, context=40, batch=3)
    fit = logistic_fit(prompts.x_context, prompts.y_context, 0.3)
    for b in range(3):
        reference = LogisticRegression(C=1 / 0.3, fit_intercept=False, tol=1e-10, max_iter=10_000)
        reference.fit(prompts.x_context[b].numpy(), prompts.y_context[b].argmax(-1).numpy())
        torch.testing.assert_close(fit.weights[b], torch.from_numpy(reference.coef_), rtol=0, atol=1e-5)


def test_separable_classes_are_fitted_whatever_the_start() -> None:
    """Newton steps from zero overshoot where the prior is weak; halving keeps the objective falling."""
    x = torch.tensor([[[100.0, 0.0], [-100.0, 1.0], [0.0, 0.01]]], dtype=torch.float64)
    y = torch.eye(3, dtype=torch.float64)[None]
    fit = logistic_fit(x, y, 1e-6)
    assert float(class_error(x @ fit.weights.mT, y)) == 0


def test_probabilities_and_precision_of_the_input() -> None:
    prompts = draw(1)
    scores = logistic(0.2)(prompts.x_context.float(), prompts.y_context.float(), prompts.x_query.float())
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores.sum(-1), torch.ones(4, 5))
    exact = logistic(0.2)(prompts.x_context, prompts.y_context, prompts.x_query)
    torch.testing.assert_close(scores.double(), exact, rtol=0, atol=1e-5)


def test_one_hot_regression_is_a_regression_a_class() -> None:
    prompts = draw(2)
    scores = one_hot_regression(ridge(0.5))(prompts.x_context, prompts.y_context, prompts.x_query)
    assert scores.shape == (4, 5, 3)
    for c in range(3):
        weights = ridge_weights(prompts.x_context, prompts.y_context[..., c], 0.5)
        torch.testing.assert_close(scores[..., c], (prompts.x_query @ weights[..., None])[..., 0])


def test_class_error_counts() -> None:
    labels = torch.eye(3)[None, [0, 1, 2, 0]]
    scores = torch.eye(3)[None, [0, 1, 1, 1]]
    assert class_error(scores, labels).tolist() == [0.5]


def test_error_rates_known_from_another_implementation() -> None:
    prompts = multiclass(stream(3), 300, classes=3, dimension=4, context_length=12, query_length=8)
    arguments = prompts.x_context, prompts.y_context, prompts.x_query
    errors = [
        class_error(predictor(*arguments), prompts.y_query)
        for predictor in (logistic(0.3), one_hot_regression(ridge(1.0)))
    ]
    # Two means over some 300 prompts of standard deviation near 0.17 each: four standard errors of their difference.
    tolerance = 4 * math.sqrt(2 / 300) * 0.17
    assert [float(error.mean()) for error in errors] == [
        pytest.approx(0.196, abs=tolerance),
        pytest.approx(0.219, abs=tolerance),
    ]


def test_errors() -> None:
    prompts = draw(4)
    with pytest.raises(LabError, match=r"precision 0.0 must be above 0"):
        logistic_fit(prompts.x_context, prompts.y_context, 0.0)
    with pytest.raises(LabError, match="after 1 Newton steps"):
        logistic_fit(prompts.x_context, prompts.y_context, 0.1, iterations=1)


def test_scores_that_are_not_numbers_are_wrong() -> None:
    labels = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
    scores = torch.tensor([[[math.nan, math.nan], [2.0, 1.0], [math.nan, 1.0]]])
    assert class_error(scores, labels).tolist() == [pytest.approx(2 / 3)]
