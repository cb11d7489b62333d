r"""Batch gradient descent in context: what a linear network with a prefix mask computes layer by layer.

One step on $\tfrac12 \lVert y - X w \rVert^2$ is $w \leftarrow w + s X^\top (y - X w)$. The step s belongs to the
*sum* over examples: a network that averages over n examples with learning rate $\eta$ has $s = \eta / n$.
With $A = X^\top X$, the distance to every solution w* of the normal equations is mapped by $I - s A$.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lab.contracts import regression_predictor
from lab.domains.regression.least_squares import predict
from lab.errors import LabError
from lab.predictors import RegressionPredictor


def gradient_descent_path(
    x: Float[Tensor, "batch context dimension"],
    y: Float[Tensor, "batch context"],
    *,
    step: float,
    steps: int,
    initial: Float[Tensor, "#batch dimension"] | None = None,
) -> Float[Tensor, "{steps}+1 batch dimension"]:
    r"""$w^{(l)} = w^{(l-1)} + s X^\top (y - X w^{(l-1)})$ for l = 0 .. ``steps``.

    From $w^{(0)} = 0$ it stays in the span of the inputs and, for a stable step, tends to the minimum-norm
    least squares.

    Args:
        step: s.
        steps: how many.
        initial: $w^{(0)}$, one for all prompts or one each; zero where left out.
    """
    weights = x.new_zeros(x.shape[0], x.shape[2])
    if initial is not None:
        weights = weights + initial
    path = [weights]
    for _ in range(steps):
        residual = y - predict(weights, x)
        weights = weights + step * predict(residual, x.mT)
        path.append(weights)
    return torch.stack(path)


def gram_eigenvalues(x: Float[Tensor, "batch context dimension"]) -> Float[Tensor, "batch dimension"]:
    r"""All d eigenvalues of $X^\top X$, largest first: squared singular values, then zeros where n < d."""
    values = torch.linalg.svdvals(x).square()
    return torch.nn.functional.pad(values, (0, x.shape[-1] - values.shape[-1]))


def prefix_rate(x: Float[Tensor, "batch context dimension"], step: float) -> Float[Tensor, " batch"]:
    r"""$\rho = \max_k |1 - s \lambda_k|$ over the non-zero eigenvalues of $X^\top X$: the factor of a late step.

    Eigenvalues are zero where the singular value is below max(n, d) * eps times the largest, as in
    `least_squares_weights`: along those directions neither descent nor the minimum-norm limit moves.
    """
    values = gram_eigenvalues(x)
    smallest = max(x.shape[-2:]) * torch.finfo(x.dtype).eps
    moving = values.sqrt() > smallest * values.sqrt().amax(-1, keepdim=True)
    return torch.where(moving, (1 - step * values).abs(), 0.0).amax(-1)


def stability_limit(x: Float[Tensor, "batch context dimension"]) -> Float[Tensor, " batch"]:
    r"""$2 / \lambda_{\max}(X^\top X)$: gradient descent converges from everywhere iff 0 < s < this."""
    return 2 / torch.linalg.matrix_norm(x, 2).square()


def require_stable(x: Float[Tensor, "batch context dimension"], step: float) -> None:
    """Raise LabError, naming step and limit, unless 0 < step < 2 / lambda_max for every prompt."""
    limit, worst = stability_limit(x).min(dim=0)
    if not 0 < step < float(limit):
        raise LabError(
            f"The step {step:g} is outside (0, 2/lambda_max) = (0, {float(limit):.6g}) of prompt {int(worst)}, "
            "where gradient descent converges; choose a step inside."
        )


@regression_predictor(step=0.01, steps=4)
def gradient_descent(
    step: float, steps: int, initial: Float[Tensor, "#batch dimension"] | None = None
) -> RegressionPredictor:
    """Predictions after ``steps`` steps of batch gradient descent, stable or not."""

    def predictor(x_context: Tensor, y_context: Tensor, x_query: Tensor) -> Tensor:
        path = gradient_descent_path(x_context, y_context, step=step, steps=steps, initial=initial)
        return predict(path[-1], x_query)

    return predictor


@regression_predictor(step=0.01, steps=4)
def stable_gradient_descent(step: float, steps: int) -> RegressionPredictor:
    """`gradient_descent` that refuses prompts on which its step diverges.

    Raises:
        LabError: on use, a step outside (0, 2 / lambda_max).
    """
    descend = gradient_descent(step, steps)

    def predictor(x_context: Tensor, y_context: Tensor, x_query: Tensor) -> Tensor:
        require_stable(x_context, step)
        return descend(x_context, y_context, x_query)

    return predictor


def expected_prefix_error(
    eigenvalues: Float[Tensor, "draws dimension"],
    layers: Int[Tensor, " layers"],
    *,
    step: float,
    input_variance: float,
    noise: float = 0.0,
) -> Float[Tensor, "layers draws"]:
    r"""Expected query error after l steps from zero, given the inputs of the context.

    $v \sum_k \left[(1 - s \lambda_k)^{2l} + \sigma^2 \frac{(1 - (1 - s \lambda_k)^l)^2}{\lambda_k}\right]$ for
    weights $w \sim N(0, I)$ and independent clean queries with $E\,x x^\top = v I$; its mean over draws is the
    expected error. Without noise only the first term is left.

    Args:
        eigenvalues: all $\lambda_k$ of $X^\top X$ (`gram_eigenvalues`), zeros included.
        layers: the numbers l.
        step: s.
        input_variance: v.
        noise: standard deviation $\sigma$ of the label noise.
    """
    left = (1 - step * eigenvalues) ** layers[:, None, None]
    # What noise adds vanishes with the eigenvalue.
    amplified = torch.where(eigenvalues > 0, (1 - left).square() / eigenvalues, 0.0)
    return input_variance * (left.square() + noise**2 * amplified).sum(-1)
