"""What the parts share: prompts, the causal network written from its definition, and rounding bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lab import Evidence
from lab.domains.regression.causal_recursions import causal_gram, gram
from lab.domains.regression.gradient_descent import gram_eigenvalues
from lab.domains.regression.kaczmarz import kaczmarz_path, stationary_coefficients
from lab.domains.regression.prompts import RegressionPrompts, linear_regression
from lab.models import masks
from lab.statistics import rounding_bound
from lab.streams import stream

SLUG = "causallm-icl"
PAPER = "ding-2024-causallm"

# Dimension and number of examples: few and many examples, and fewer than dimensions.
SHAPES = ((2, 3), (3, 12), (4, 20), (6, 4))
LAYERS = 8
NOISE = 0.5
MASKS = {"prefix": masks.in_context_prefix, "causal": masks.in_context_causal}


@dataclass(frozen=True)
class Config:
    """How much is drawn."""

    prompts: int = 25
    """prompts of each shape in the checks of identities"""


PRESETS = {"smoke": Config(prompts=4), "ci": Config(), "paper": Config(prompts=100)}


@dataclass(frozen=True)
class Sampled(Config):
    """How much is drawn where means are sampled too."""

    draws: int = 16
    """independent draws behind every sampled mean"""


SAMPLED = {"smoke": Sampled(prompts=4), "ci": Sampled(), "paper": Sampled(prompts=100, draws=64)}


def sample(config: Config, name: str, shape: tuple[int, int], noise: float = NOISE) -> RegressionPrompts:
    """Prompts of d dimensions and n examples with inputs uniform on [-1, 1]^d and two queries."""
    dimension, context = shape
    return linear_regression(
        stream(0, name, dimension, context),
        config.prompts,
        dimension=dimension,
        context_length=context,
        query_length=2,
        noise=noise,
    )


def safe_step(data: RegressionPrompts) -> float:
    """The largest 1 / lambda_max(G) that all prompts allow: no error grows there under either mask."""
    return 1 / float(gram_eigenvalues(data.x_context).max())


def within(errors: list[Tensor], bounds: list[Tensor], origin: str) -> Evidence:
    """Evidence that every error [batch] is within its own bound [batch]; the worst ratio speaks for all."""
    error, bound = torch.cat(errors), torch.cat(bounds)
    worst = int((error / bound).argmax())
    return Evidence.exact(float(error[worst]), "<=", float(bound[worst]), origin)


def greatest(values: Tensor, batch_axis: int = 0) -> Tensor:
    """Largest absolute value of each prompt."""
    return values.detach().abs().movedim(batch_axis, 0).flatten(1).amax(1)


def longest(vectors: Tensor, batch_axis: int = 0) -> Tensor:
    """Largest Euclidean norm of each prompt's vectors (last axis)."""
    return greatest(vectors.norm(dim=-1), batch_axis)


def amplification(error_map: Tensor, layers: int) -> Tensor:
    r"""$\sum_{l < L} \lVert E^l \rVert$: errors of one size, one made in every layer, by the end (Frobenius norm, above the 2-norm)."""
    power, total = torch.eye(error_map.shape[-1], dtype=error_map.dtype), torch.zeros(len(error_map))
    total = total.to(error_map)
    for _ in range(layers):
        total = total + torch.linalg.matrix_norm(power)
        power = power @ error_map
    return total


ROUNDING = (
    "rounding of two computations: a layer is a chain of 2(d+1)+T+3 operations, and its error goes through "
    "the powers of the layer's matrix"
)


def layers_bound(data: RegressionPrompts, mask: Tensor, step_size: float, layers: int, weights: Tensor) -> Tensor:
    r"""What rounding may leave between label slots of a network and the same numbers from ``weights``.

    Slots obey $\delta \leftarrow \delta E$ with $E = I - s\, m^\top \circ G$ over all T tokens, and so do errors in the weights, seen
    through $w_j \cdot x_j$. No number in a layer exceeds $m (1 + s n r^2)$ with r the longest input and
    $m = |y| + 3 |w| r$ (at most three weights meet: $w_j$, and $w_0$ twice).

    Args:
        weights: all weights of the reference, [depth, batch, ..., dimension].
    """
    x = torch.cat([data.x_context, data.x_query], dim=1)
    length, context = x.shape[1], data.x_context.shape[1]
    error_map = torch.eye(length, dtype=x.dtype) - step_size * mask.mT * gram(x)
    reach = longest(x)
    labels = greatest(data.y_context) + 3 * longest(weights, batch_axis=1) * reach
    size = labels * (1 + step_size * context * reach**2)
    operations = 2 * (x.shape[-1] + 1) + length + 3
    return 2 * math.sqrt(length) * rounding_bound(operations) * amplification(error_map, layers) * size


def slots_of(weights: Tensor, data: RegressionPrompts, initial: Tensor | None = None) -> Tensor:
    r"""$\delta_j = y_j - (w_j - w_0) \cdot x_j$ and $-(w_n - w_0) \cdot x_q$ from weights [depth, batch, place, dimension]."""
    moved = weights if initial is None else weights - initial
    context = data.y_context - (moved * data.x_context).sum(-1)
    return torch.cat([context, -(data.x_query @ moved[:, :, -1, :, None])[..., 0]], dim=-1)


def gap(first: Tensor, second: Tensor) -> Tensor:
    """Largest difference of each prompt, tensors [depth, batch, token]."""
    return greatest(first - second, batch_axis=1)


def place_descent(
    x: Tensor,
    y: Tensor,
    *,
    step_size: float | Tensor,
    layers: int,
    initial: Tensor | None = None,
    all_examples: bool = False,
    own_residuals: bool = False,
) -> Tensor:
    r"""$w_j \leftarrow w_j + s \sum_{i \le j} (y_i - w_i \cdot x_i)\, x_i$, written from the definition: [depth, batch, place, dimension].

    Args:
        step: s, or one for each place [place, 1].
        all_examples: sum over all i.
        own_residuals: residuals $y_i - w_j \cdot x_i$ with the weights of place j.
    """
    visible = torch.ones(x.shape[1], x.shape[1], dtype=x.dtype)
    visible = visible if all_examples else visible.tril()
    weights = torch.zeros_like(x) if initial is None else torch.zeros_like(x) + initial
    path = [weights]
    for _ in range(layers):
        fitted = weights @ x.mT if own_residuals else (weights * x).sum(-1)[:, None]
        weights = weights + step_size * (((y[:, None] - fitted) * visible) @ x)
        path.append(weights)
    return torch.stack(path)


def pseudo_inverse_bound(x: Tensor, y: Tensor) -> Tensor:
    r"""Error of $X^+ y$ in norm: $\gamma_{nd}\, \kappa(X) \lVert X^+ \rVert |y|$, of a singular value decomposition of n d entries."""
    values = torch.linalg.svdvals(x)
    return rounding_bound(x.shape[1] * x.shape[2]) * values[:, 0] / values[:, -1] ** 2 * y.norm(dim=-1)


def triangle(x: Tensor, part: str = "upper") -> Tensor:
    """T; or another part of the Gram matrix, for controls."""
    return {"upper": causal_gram(x), "lower": gram(x).tril(), "full": gram(x)}[part]


def solution_bound(x: Tensor, coefficients: Tensor) -> Tensor:
    r"""Componentwise error of $a T = y$ by substitution: $\gamma\, |a|\,|T|\,|T^{-1}|$ with products of norms for |T|, [batch, n]."""
    lengths = x.norm(dim=-1)
    upper = (lengths[:, :, None] * lengths[:, None]).triu()
    inverse = torch.linalg.inv(causal_gram(x)).abs()
    error = (coefficients.abs()[:, None] @ upper @ inverse)[:, 0]
    return rounding_bound(sum(x.shape[1:]) + 2) * error


def recursion_bound(
    x: Tensor, y: Tensor, matrix: Tensor, step_size: float, path: Tensor, target: Tensor, layers: int
) -> Tensor:
    """Rounding of the coefficients [batch] after so many layers, of the recursion and of the error map together."""
    context = x.shape[1]
    error_map = torch.eye(context, dtype=x.dtype) - step_size * matrix
    reach = longest(x)
    largest = greatest(path, batch_axis=1) + greatest(target)
    size = largest * (1 + step_size * context * reach**2) + step_size * greatest(y)
    chain = rounding_bound(x.shape[1] + x.shape[2] + 3)
    return 2 * math.sqrt(context) * chain * amplification(error_map, layers) * size


def coefficients_and_map(
    data: RegressionPrompts,
    matrix: Tensor,
    step_size: float,
    coefficients: Tensor,
    target: Tensor,
    places: Tensor,
    place_sum: Tensor,
    of_target: Tensor,
    error_map_matrix: Tensor,
) -> tuple[list[Tensor], list[Tensor]]:
    """Errors and bounds of: weights of places from coefficients; fixed point; error map.

    Args:
        matrix: M of a <- a + s (y - a M).
        coefficients: coefficients of all layers; ``target``: their fixed point, with the error ``of_target`` [batch, n].
        places: weights of all places and layers from the definition; ``place_sum``: the same from ``coefficients``.
        error_map_matrix: M of the error map I - s M that is claimed.
    """
    x, y = data.x_context, data.y_context
    context, reach = x.shape[1], longest(x)
    arithmetic = recursion_bound(x, y, matrix, step_size, coefficients, target, LAYERS)
    error_map = torch.eye(context, dtype=x.dtype) - step_size * error_map_matrix
    left, lefts = -target, []
    for _ in range(LAYERS + 1):
        lefts.append(left)
        left = (left[:, None] @ error_map)[:, 0]
    residual = y - (target[:, None] @ error_map_matrix)[:, 0]
    errors = [
        greatest((places - place_sum).norm(dim=-1), 1),
        greatest(residual),
        greatest(coefficients - target - torch.stack(lefts), 1),
    ]
    # Weights are sums of n coefficients times inputs; in the definition a layer adds s times n residuals, whose errors
    # (at most n r^2 times those of coefficients) it collects over all layers.
    of_weights = context * reach * arithmetic * (1 + LAYERS * step_size * context * reach**2)
    of_residual = (of_target[:, None] @ gram(x).abs())[:, 0].amax(-1) + arithmetic / step_size
    # The target's error stays, and is multiplied by the error map.
    growth = 1 + amplification(error_map, LAYERS + 1)
    return errors, [of_weights, of_residual, arithmetic + growth * of_target.norm(dim=-1)]


def one_pass(x: Tensor, y: Tensor, *, relaxation: float = 1.0, shrink: Tensor | None = None) -> Tensor:
    r"""The iteration as it is written, example by example: $w_1, \dots, w_n$ [batch, place, dimension].

    Args:
        relaxation: multiplies the step $1 / |x|^2$.
        shrink: factor of $w_j$ before step j + 1, one a place; 1 where left out.
    """
    weights, path = torch.zeros_like(x[:, 0]), []
    for place in range(x.shape[1]):
        if shrink is not None:
            weights = shrink[place] * weights
        row = x[:, place]
        missing = y[:, place] - (weights * row).sum(-1)
        weights = weights + relaxation * (missing / row.square().sum(-1))[:, None] * row
        path.append(weights)
    return torch.stack(path, dim=1)


def pass_bound(x: Tensor, y: Tensor) -> Tensor:
    """Rounding between weights from a triangular solve and from `one_pass`, [batch].

    The solve: its componentwise error, and sums over i <= j. The pass: in each step a chain of 2 d + 6 operations
    on |w| + (|y| + |w| |x|) / |x|, and later projections do not lengthen an error.
    """
    context, dimension = x.shape[1:]
    coefficients, lengths = stationary_coefficients(x, y), x.norm(dim=-1)
    solve = (solution_bound(x, coefficients) * lengths).sum(-1)
    sums = rounding_bound(context) * (coefficients.abs() * lengths).sum(-1)
    largest = longest(kaczmarz_path(x, y))
    size = 2 * largest + (y.abs() / lengths).amax(-1)
    return solve + sums + context * rounding_bound(2 * dimension + 6) * size


SOLVE = "rounding of the substitution (componentwise, times the inverse of T) and of n projections"


def late_rate(error_map: Tensor, error: Tensor, doublings: int = 11) -> Tensor:
    r"""$(|e_{2l}| / |e_l|)^{1/l}$ at $l = 2^{\text{doublings}}$ for $e \leftarrow e E$, scaled at every squaring, which would underflow."""
    power, logarithm = error_map, torch.zeros(len(error_map)).to(error_map)
    for _ in range(doublings):
        power, logarithm = power @ power, 2 * logarithm
        norm = torch.linalg.matrix_norm(power)
        power, logarithm = power / norm[:, None, None], logarithm + norm.log()
    once = (error[:, None] @ power)[:, 0]
    twice = (once[:, None] @ power)[:, 0]
    return ((logarithm + (twice.norm(dim=-1) / once.norm(dim=-1)).log()) / 2**doublings).exp()


def rate_tolerance(error_map: Tensor, error: Tensor, doublings: int = 11) -> Tensor:
    r"""How far `late_rate` may lie from the spectral radius $\rho$, in logarithms.

    With $E = U \Lambda U^{-1}$ and $v$ the eigenvector of the largest $|\lambda|$: $|e_{2l}| \le \kappa(U) \rho^l |e_l|$, and
    $|e_{2l}| \ge \rho^{2l} |e_0 \cdot v| / |v|$ while $|e_l| \le \kappa(U) \rho^l |e_0|$. The l-th root of both sides.
    """
    values, vectors = torch.linalg.eig(error_map)
    condition = torch.linalg.cond(vectors)
    leading = vectors[torch.arange(len(values)), :, values.abs().argmax(-1)]
    share = (error.to(leading.dtype) * leading).sum(-1).abs() / (error.norm(dim=-1) * leading.norm(dim=-1))
    return (condition / share).log() / 2**doublings


RATE = r"the l-th root of the condition number of the eigenvectors over the share of the leading one, l = 2048"
