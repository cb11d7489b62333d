r"""In-context classification: multinomial logistic regression to its optimum, and regression on one-hot labels.

Labels are one-hot [batch, context, classes]; predictors of classes take them in the place of numbers and return
a score a class [batch, query, classes], of which the largest is the predicted class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lab.errors import LabError
from lab.predictors import RegressionPredictor

# (x_context [B,n,d], one-hot y_context [B,n,C], x_query [B,m,d]) -> scores [B,m,C]
ClassPredictor = Callable[[Tensor, Tensor, Tensor], Tensor]
# Halvings of a Newton step; convexity makes a small enough step succeed long before.
SMALLEST_STEP = 2.0**-30


@dataclass(frozen=True)
class LogisticFit:
    r"""A maximum a posteriori estimate with its certificate.

    Args:
        weights: $w_c$, a vector a class.
        gradient_norm: norm of the gradient of the objective there. The objective is strongly convex with constant
            ``precision``, so that the distance to the optimum is at most gradient_norm / precision.
    """

    weights: Float[Tensor, "batch classes dimension"]
    gradient_norm: Float[Tensor, " batch"]


def logistic_fit(
    x: Float[Tensor, "batch context dimension"],
    y: Float[Tensor, "batch context classes"],
    precision: float,
    *,
    tolerance: float = 1e-9,
    iterations: int = 100,
) -> LogisticFit:
    r"""Minimiser of $-\sum_j \log \mathrm{softmax}(W x_j)_{c_j} + \frac{\lambda}{2} \sum_c \lVert w_c \rVert^2$.

    The maximum a posteriori weights for the prior $w_c \sim N(0, I / \lambda)$, by Newton's method with halved
    steps, in float64 whatever the inputs' precision.

    Args:
        x: inputs.
        y: one-hot labels.
        precision: $\lambda$ > 0.
        tolerance: largest gradient norm to stop at.
        iterations: Newton steps after which to give up.

    Raises:
        LabError: a precision that is not above 0, or a gradient above the tolerance in the end.
    """
    if not precision > 0:
        raise LabError(
            f"The prior precision {precision} must be above 0; without a prior, separable classes have no optimum."
        )
    inputs, labels = x.double(), y.double()
    batch, classes, dimension = len(x), y.shape[-1], x.shape[-1]
    size = classes * dimension
    identity = torch.eye(classes, dtype=torch.float64, device=x.device)
    prior = precision * torch.eye(size, dtype=torch.float64, device=x.device)

    def objective(weights: Tensor) -> Tensor:
        scores = inputs @ weights.mT
        misfit = (scores.logsumexp(-1) - (scores * labels).sum(-1)).sum(-1)
        return misfit + precision / 2 * weights.square().sum((1, 2))

    weights = inputs.new_zeros(batch, classes, dimension)
    for _ in range(iterations + 1):
        probability = (inputs @ weights.mT).softmax(-1)
        gradient = (probability - labels).mT @ inputs + precision * weights
        norm = gradient.flatten(1).norm(dim=1)
        if bool((norm <= tolerance).all()):
            return LogisticFit(weights.to(x), norm.to(x))
        spread = probability[..., None] * (identity - probability[..., None, :])
        outer = (inputs[..., None] * inputs[..., None, :]).flatten(2)
        curvature = (spread.flatten(2).mT @ outer).unflatten(1, (classes, classes))
        hessian = curvature.unflatten(-1, (dimension, dimension)).permute(0, 1, 3, 2, 4)
        newton = torch.linalg.solve(hessian.reshape(batch, size, size) + prior, gradient.flatten(1))
        direction = newton.view_as(weights)
        decrement = (gradient * direction).sum((1, 2))
        now = objective(weights)
        # Close to the optimum the decrease is below the rounding of the objective, which must not refuse the step.
        slack = 64 * torch.finfo(torch.float64).eps * now.abs()
        length = torch.ones_like(now)
        while float(length.min()) > SMALLEST_STEP:
            candidate = objective(weights - length[:, None, None] * direction)
            refused = candidate > now - 1e-4 * length * decrement + slack
            if not bool(refused.any()):
                break
            length = torch.where(refused, length / 2, length)
        weights = weights - length[:, None, None] * direction
    raise LabError(
        f"The gradient norm {float(norm.max()):.3g} is above the tolerance {tolerance:g} after {iterations} Newton "
        "steps; raise the tolerance, the iterations or the prior precision."
    )


def logistic(precision: float) -> ClassPredictor:
    """Class probabilities under the maximum a posteriori weights of `logistic_fit`."""

    def predictor(x_context: Tensor, y_context: Tensor, x_query: Tensor) -> Tensor:
        weights = logistic_fit(x_context, y_context, precision).weights
        return (x_query @ weights.mT).softmax(-1)

    return predictor


def one_hot_regression(regression: RegressionPredictor) -> ClassPredictor:
    """Scores of classes from any regression predictor, asked once a class for its column of the one-hot labels.

    ``one_hot_regression(ridge(1.0))`` is ridge regression on one-hot labels.
    """

    def predictor(x_context: Tensor, y_context: Tensor, x_query: Tensor) -> Tensor:
        classes = y_context.shape[-1]
        scores = regression(
            x_context.repeat_interleave(classes, 0), y_context.mT.flatten(0, 1), x_query.repeat_interleave(classes, 0)
        )
        return scores.unflatten(0, (-1, classes)).mT

    return predictor


def class_error(
    scores: Float[Tensor, "batch query classes"], labels: Float[Tensor, "batch query classes"]
) -> Float[Tensor, " batch"]:
    """Share of the queries of each prompt whose largest score is not at the label, or whose scores are not numbers."""
    wrong = (scores.argmax(-1) != labels.argmax(-1)) | scores.isnan().any(-1)
    return wrong.double().mean(-1)
