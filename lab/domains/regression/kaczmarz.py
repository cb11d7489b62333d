r"""One pass of online least squares: where infinitely deep linear attention under a causal mask ends.

The stationary weights of place j follow from those of place j - 1 by the projection onto the solutions of the
j-th equation, the Kaczmarz step (normalised least mean squares with rate 1):

$$w_j = w_{j-1} + \frac{y_j - w_{j-1} \cdot x_j}{|x_j|^2}\, x_j, \qquad w_0 = 0,$$

so that $w_j \cdot x_j = y_j$, noise or not. Equivalently $w_j = \sum_{i \le j} a_i x_i$ with $a\,T = y$ and T the upper
triangle of the Gram matrix. An input that is zero has no equation to satisfy and leaves the weights as they are.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lab.contracts import regression_predictor
from lab.domains.regression.causal_recursions import causal_gram
from lab.domains.regression.least_squares import predict
from lab.domains.regression.prompts import random_orders
from lab.errors import LabError
from lab.predictors import RegressionPredictor
from lab.streams import RandomStream, stream

# Examples that are substituted at once. Memory and arithmetic beyond O(n d) are O(n BLOCK).
BLOCK = 16


def kaczmarz_weights(
    x: Float[Tensor, "batch context dimension"],
    y: Float[Tensor, "batch context"],
    *,
    passes: int = 1,
    relaxation: float = 1.0,
) -> Float[Tensor, "batch dimension"]:
    r"""$w_n$ of $w_j = w_{j-1} + \rho\,(y_j - w_{j-1} \cdot x_j)\, x_j / |x_j|^2$.

    Time and memory are linear in the context length: no n by n matrix is formed.

    Args:
        passes: how many times the examples are gone through, each pass starting from the last one's weights.
            (A second pass is a context that is repeated. Noise-free, passes tend to least squares.)
        relaxation: $\rho$ in (0, 2); 1 projects.

    Raises:
        LabError: fewer than one pass, or a relaxation outside (0, 2).
    """
    if passes < 1:
        raise LabError(f"There are {passes} passes but at least 1 is needed; raise passes.")
    weights = x.new_zeros(x.shape[0], x.shape[2])
    for _ in range(passes):
        for start in range(0, x.shape[1], BLOCK):
            rows = slice(start, start + BLOCK)
            coefficients = _substitute(x[:, rows], y[:, rows], weights, relaxation)
            weights = weights + predict(coefficients, x[:, rows].mT)
    return weights


def kaczmarz_path(
    x: Float[Tensor, "batch context dimension"], y: Float[Tensor, "batch context"], *, relaxation: float = 1.0
) -> Float[Tensor, "batch context dimension"]:
    r"""The weights $w_1, \dots, w_n$ of one pass, after each example (see `kaczmarz_weights`).

    ``kaczmarz_path(x, y)[:, k - 1]`` is what a context of the first k examples gives.
    """
    path = torch.empty_like(x)
    weights = x.new_zeros(x.shape[0], 1, x.shape[2])
    for start in range(0, x.shape[1], BLOCK):
        rows = slice(start, start + BLOCK)
        coefficients = _substitute(x[:, rows], y[:, rows], weights[:, 0], relaxation)
        path[:, rows] = weights + (coefficients[..., None] * x[:, rows]).cumsum(1)
        weights = path[:, rows][:, -1:]
    return path


def _substitute(x: Tensor, y: Tensor, weights: Tensor, relaxation: float) -> Tensor:
    """Coefficients a_j of the steps a_j x_j that a block of examples adds to ``weights``, by forward substitution."""
    if not 0 < relaxation < 2:
        raise LabError(
            f"The relaxation {relaxation} is outside (0, 2), where Kaczmarz steps contract; choose it inside."
        )
    lower = (x @ x.mT).tril(-1)
    squares = x.square().sum(-1)
    # A zero input: any coefficient will do, as it multiplies zero.
    squares = torch.where(squares > 0, squares / relaxation, 1.0)
    right = y - predict(weights, x)
    lower = lower + torch.diag_embed(squares)
    return torch.linalg.solve_triangular(lower, right[..., None], upper=False)[..., 0]


def stationary_coefficients(
    x: Float[Tensor, "batch context dimension"], y: Float[Tensor, "batch context"]
) -> Float[Tensor, "batch context"]:
    r"""The solution a of $a\,T = y$, by forward substitution on the whole triangle.

    $a_j = \left(y_j - \sum_{i < j} a_i\, x_i \cdot x_j\right) / |x_j|^2$, in O(n^2) memory. $\sum_i a_i x_i$ are the
    weights of `kaczmarz_weights`. Inputs must not be zero.
    """
    return torch.linalg.solve_triangular(causal_gram(x), y[:, None], upper=True, left=False)[:, 0]


def normalised_kaczmarz_path(
    x: Float[Tensor, "batch context dimension"], y: Float[Tensor, "batch context"]
) -> Float[Tensor, "batch context dimension"]:
    r"""Stationary weights of the causal network whose place j divides by the number j of examples it sees.

    $w_{j+1} = u_j + (y_{j+1} - u_j \cdot x_{j+1})\, x_{j+1} / |x_{j+1}|^2$ with the shrunken $u_j = \frac{j}{j+1} w_j$.
    Computed from $v_j = j\, w_j$, which are plain Kaczmarz iterates for the labels $j\, y_j$.
    """
    places = torch.arange(1, x.shape[1] + 1, dtype=x.dtype, device=x.device)
    return kaczmarz_path(x, places * y) / places[:, None]


def normalised_kaczmarz_weights(
    x: Float[Tensor, "batch context dimension"], y: Float[Tensor, "batch context"]
) -> Float[Tensor, "batch dimension"]:
    """The last weights of `normalised_kaczmarz_path`, without keeping the others; 0 after no example."""
    places = torch.arange(1, x.shape[1] + 1, dtype=x.dtype, device=x.device)
    return kaczmarz_weights(x, places * y) / max(x.shape[1], 1)


@regression_predictor()
def kaczmarz(passes: int = 1, relaxation: float = 1.0) -> RegressionPredictor:
    """One pass (or several) of Kaczmarz steps over the context, in its order (`kaczmarz_weights`)."""

    def predictor(x_context: Tensor, y_context: Tensor, x_query: Tensor) -> Tensor:
        weights = kaczmarz_weights(x_context, y_context, passes=passes, relaxation=relaxation)
        return predict(weights, x_query)

    return predictor


@regression_predictor()
def normalised_kaczmarz() -> RegressionPredictor:
    """The stationary point of the causal network with 1/j normalisation (`normalised_kaczmarz_path`)."""

    def predictor(x_context: Tensor, y_context: Tensor, x_query: Tensor) -> Tensor:
        return predict(normalised_kaczmarz_weights(x_context, y_context), x_query)

    return predictor


@regression_predictor(orders=3, stream=stream(0, "orders"))
def averaged_kaczmarz(orders: int, stream: RandomStream) -> RegressionPredictor:
    """The mean prediction of one Kaczmarz pass over each of ``orders`` random orders of the context.

    All prompts are gone through in the same orders, which depend on the stream and the context length only.

    Args:
        orders: how many.
        stream: where they come from.

    Raises:
        LabError: fewer than one order.
    """
    if orders < 1:
        raise LabError(f"There are {orders} orders to average over but at least 1 is needed; raise orders.")

    def predictor(x_context: Tensor, y_context: Tensor, x_query: Tensor) -> Tensor:
        places = random_orders(stream, orders, x_context.shape[1])
        weights = kaczmarz_weights(x_context[:, places].flatten(0, 1), y_context[:, places].flatten(0, 1))
        return predict(weights.unflatten(0, (-1, orders)).mean(1), x_query)

    return predictor
