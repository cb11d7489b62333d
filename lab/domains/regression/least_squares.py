r"""Least squares in context: what an infinitely deep linear network with a prefix mask computes, and its ridge.

Weights act on rows: a prompt has inputs X [n, d], labels y [n], and predicts $\hat y_q = w \cdot x_q$.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from lab.contracts import regression_predictor
from lab.errors import LabError
from lab.predictors import RegressionPredictor


def least_squares_weights(
    x: Float[Tensor, "batch context dimension"], y: Float[Tensor, "batch context"]
) -> Float[Tensor, "batch dimension"]:
    r"""$w = X^+ y$: among all minimisers of $\lVert y - X w \rVert^2$, the one of least norm.

    With more examples than dimensions (and inputs that span the space) that is the one solution of the normal
    equations $X^\top X w = X^\top y$; with fewer it interpolates the labels. Singular values below
    max(n, d) * eps times the largest count as zero.

    Raises:
        LabError: inputs or labels that are no floating-point numbers, or not finite.
    """
    _check_numbers(x, y)
    return (torch.linalg.pinv(x) @ y[..., None])[..., 0]


def ridge_weights(
    x: Float[Tensor, "batch context dimension"], y: Float[Tensor, "batch context"], penalty: float
) -> Float[Tensor, "batch dimension"]:
    r"""$w = (X^\top X + \lambda I)^{-1} X^\top y$, the minimiser of $\lVert y - X w \rVert^2 + \lambda \lVert w \rVert^2$.

    With $w \sim N(0, \tau^2 I)$ and label noise of variance $\sigma^2$ it is the posterior mean for
    $\lambda = \sigma^2 / \tau^2$, the best possible predictor in squared error.

    From $X = U \,\mathrm{diag}(s)\, V^\top$ it is $V\, \mathrm{diag}(s / (s^2 + \lambda))\, U^\top y$, which is exact to rounding
    for every penalty and shape; the matrix $X^\top X + \lambda I$ is nearly singular where the penalty is small and n < d.
    Singular values count as zero as in `least_squares_weights`.

    Args:
        penalty: $\lambda$ > 0 on the sum (not the mean) of squared errors.

    Raises:
        LabError: a penalty that is not above 0; inputs or labels that are no floating-point numbers, or not finite.
    """
    _check_numbers(x, y)
    if not penalty > 0:
        raise LabError(f"The ridge penalty {penalty} must be above 0; use least squares for the limit of penalty 0.")
    left, values, right = torch.linalg.svd(x, full_matrices=False)
    smallest = max(x.shape[-2:]) * torch.finfo(x.dtype).eps * values[..., :1]
    # s + penalty / s, and not s^2 + penalty, which can lie below the smallest float.
    gain = torch.where(values > smallest, 1 / (values + penalty / values), 0.0)
    return predict(gain * predict(y, left.mT), right.mT)


def _check_numbers(x: Tensor, y: Tensor) -> None:
    """Refuse what no decomposition can take, which torch tells in its own words, and only of the inputs."""
    for name, values in (("inputs", x), ("labels", y)):
        if not values.is_floating_point():
            raise LabError(
                f"The {name} are {values.dtype}, and least squares needs floating-point numbers; convert them with `.double()`."
            )
        if bool((broken := ~values.isfinite()).any()):
            place = broken.nonzero()[0].tolist()
            raise LabError(
                f"The {name} hold {float(values[tuple(place)])} at {place}, for which there is no least-squares solution; "
                "leave such examples out."
            )


def predict(
    weights: Float[Tensor, "batch dimension"], x_query: Float[Tensor, "batch query dimension"]
) -> Float[Tensor, "batch query"]:
    r"""$\hat y_q = w \cdot x_q$."""
    return (x_query @ weights[..., None])[..., 0]


@regression_predictor()
def least_squares() -> RegressionPredictor:
    """The predictor $X^+ y$ (`least_squares_weights`)."""

    def predictor(x_context: Tensor, y_context: Tensor, x_query: Tensor) -> Tensor:
        return predict(least_squares_weights(x_context, y_context), x_query)

    return predictor


@regression_predictor(penalty=0.5)
def ridge(penalty: float) -> RegressionPredictor:
    """Ridge regression with penalty on the sum of squared errors (`ridge_weights`)."""

    def predictor(x_context: Tensor, y_context: Tensor, x_query: Tensor) -> Tensor:
        return predict(ridge_weights(x_context, y_context, penalty), x_query)

    return predictor


@regression_predictor()
def zero() -> RegressionPredictor:
    """The predictor 0, whose squared error is the second moment of the label."""

    def predictor(x_context: Tensor, y_context: Tensor, x_query: Tensor) -> Tensor:
        return x_query.new_zeros(x_query.shape[:2])

    return predictor


def expected_query_error(context_length: int, dimension: int, noise: float) -> float:
    r"""Expected query error of least squares for normal inputs of unit variance and $w \sim N(0, I)$.

    $\frac{\sigma^2 d}{n - d - 1}$ for n > d + 1; $(d - n) + \frac{\sigma^2 n}{d - n - 1}$ for n < d - 1 (minimum
    norm); in between the noise has infinite mean: the peak of double descent. Queries are clean.

    Args:
        context_length: n.
        dimension: d.
        noise: standard deviation $\sigma$ of the label noise; at $\sigma$ = 0 the error is max(d - n, 0).
    """
    missing = max(dimension - context_length, 0)
    if noise == 0:
        return float(missing)
    spare = abs(context_length - dimension) - 1
    if spare <= 0:
        return math.inf
    return missing + noise**2 * min(context_length, dimension) / spare
