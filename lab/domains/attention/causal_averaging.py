r"""What causal averaging alone makes of independent tokens: neighbours become alike.

A freshly initialised attention layer under a causal mask is nearly a running mean, $m_i = \frac1i \sum_{t \le i} x_t$
(1-based). For independent zero-mean tokens of variance c a coordinate, $E\langle m_i, m_j\rangle \propto 1/\max(i, j)$:
the cosine of two outputs tells how far apart they stand, and no position was ever given. Everything here is exact in
the limit of wide tokens.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from lab.errors import LabError


def averaging_matrix(length: int) -> Float[Tensor, "token token"]:
    """C[i, j] = 1 / i for j <= i (1-based): the running mean of the tokens so far.

    >>> averaging_matrix(2).tolist()
    [[1.0, 0.0], [0.5, 0.5]]
    """
    _at_least(1, length=length)
    places = torch.arange(1, length + 1, dtype=torch.float64)
    return torch.ones(length, length, dtype=torch.float64).tril() / places.unsqueeze(1)


def averaged_gram(length: int, *, depth: int = 1, residual: float | None = None) -> Float[Tensor, "token token"]:
    r"""Inner products of ``depth`` running means in a row, $C^L (C^L)^\top$, or with $I + cC$ in the place of C.

    Args:
        length: tokens n.
        depth: layers L.
        residual: c, the weight of the mean that is added to the token; None has no residual.
    """
    _at_least(0, depth=depth)
    step = averaging_matrix(length)
    if residual is not None:
        step = torch.eye(length, dtype=step.dtype) + residual * step
    layers = torch.linalg.matrix_power(step, depth)
    return layers @ layers.T


def cosines(gram: Float[Tensor, "*batch token token"]) -> Float[Tensor, "*batch token token"]:
    """G_ij / sqrt(G_ii G_jj)."""
    sizes = gram.diagonal(dim1=-2, dim2=-1).sqrt()
    return gram / (sizes.unsqueeze(-1) * sizes.unsqueeze(-2))


def running_mean_cosine(length: int) -> Float[Tensor, "token token"]:
    r"""$\sqrt{\min(i, j) / \max(i, j)}$: cosines of the running means, for tokens of infinite width.

    >>> running_mean_cosine(4)[0, 3].item()
    0.5
    """
    _at_least(1, length=length)
    places = torch.arange(1, length + 1, dtype=torch.float64)
    return (torch.minimum(places[:, None], places) / torch.maximum(places[:, None], places)).sqrt()


def residual_cosine(length: int, weight: float) -> Float[Tensor, "token token"]:
    r"""Cosines of $x_i + c\,m_i$, a residual stream after one running mean, for tokens of infinite width.

    $\cos(i < j) = \frac{(c + c^2)/j}{\sqrt{(1 + K/i)(1 + K/j)}}$ with $K = 2c + c^2$, 1-based; 1 on the diagonal.

    Args:
        length: tokens n.
        weight: c.
    """
    _at_least(1, length=length)
    places = torch.arange(1, length + 1, dtype=torch.float64)
    size = (1 + (2 * weight + weight**2) / places).sqrt()
    later = torch.maximum(places[:, None], places)
    cosines = (weight + weight**2) / later / (size[:, None] * size)
    return cosines.fill_diagonal_(1.0)


def distance_from_first(length: int, *, depth: int, residual: float | None = None) -> float:
    r"""$1 - \cos^2$ of the states of token 1 and token n after ``depth`` running means, summed without cancellation.

    Token 1 keeps its own vector, so this is the share of the squared length of token n's state that lies along the others.

    Args:
        length: tokens n.
        depth: layers L.
        residual: c, as in `averaged_gram`.

    >>> distance_from_first(2, depth=1)
    0.5
    """
    _at_least(0, depth=depth)
    step = averaging_matrix(length)
    if residual is not None:
        step = (torch.eye(length, dtype=step.dtype) + residual * step) / (1 + residual)
    weights = torch.linalg.matrix_power(step, depth)[-1].square()
    return float(weights[1:].sum() / weights.sum())


def collapse_law(length: int, *, depth: int, residual: float | None = None) -> tuple[float, float]:
    r"""$(n-1)^2 \lambda^{2L}$, what `distance_from_first` is in the end, and the share by which it may differ from this.

    $\lambda$ is the second eigenvalue of a layer over the first: $1/2$, or $\frac{1 + c/2}{1 + c}$ with a residual. Token n
    reads itself through L layers as place $1 + \mathrm{Bin}(n - 1, Z)$ with Z a product of L independent factors, each uniform
    on [0, 1] (with a residual: 1 with probability $1/(1 + c)$), so that $m_1 = E Z = \lambda^L$ and $m_2 = E Z^2$ is the same of the
    third eigenvalue ($1/3$, or $\frac{1 + c/3}{1 + c}$). The weight of place 2 lies between $(n-1)(m_1 - (n-2) m_2)$ and $(n-1) m_1$, those
    of later places sum to at most $\binom{n-1}{2} m_2$, that of place 1 is at least $1 - (n-1) m_1$.

    Args:
        length: tokens n, at least 2.
        depth: layers L.
        residual: c, as in `averaged_gram`.

    Returns:
        The law and its relative error; infinity where L is too small for the bounds to say anything.

    >>> collapse_law(3, depth=5)[0] == 4 / 4**5
    True
    """
    _at_least(2, length=length)
    _at_least(0, depth=depth)
    first, second = (
        (1 / place if residual is None else (1 + residual / place) / (1 + residual)) ** depth for place in (2, 3)
    )
    after_first, rest = length - 1, length - 2
    least, kept = 1 - rest * second / first, 1 - after_first * first
    law = (after_first * first) ** 2
    if min(least, kept) <= 0:
        return law, math.inf
    return law, max(1 - least**2, ((1 + rest * second / (2 * first)) / kept) ** 2 - 1)


def adjacency_score(cosine: Float[Tensor, "*batch token token"]) -> Float[Tensor, "*batch"]:
    """Share of triples in which the nearer of two tokens on one side of a third is the more similar to it.

    Over all i and all j, k on the same side of i with |i - j| < |i - k|: the fraction with S_ij > S_ik. 1 is a perfect
    image of the order, 1/2 is none.

    Args:
        cosine: S; only off-diagonal entries count.

    Raises:
        LabError: fewer than 3 tokens, which have no such triple.

    >>> adjacency_score(running_mean_cosine(6)).item()
    1.0
    """
    length = cosine.shape[-1]
    if length < 3:
        raise LabError(f"{length} tokens have no two neighbours on one side; please take at least 3.")
    place = torch.arange(length)
    i, near, far = place[:, None, None], place[:, None], place
    counted = (((i < near) & (near < far)) | ((far < near) & (near < i))).to(cosine.device)
    closer = cosine.unsqueeze(-1) > cosine.unsqueeze(-2)
    return (closer & counted).double().sum((-3, -2, -1)) / counted.sum()


def _at_least(limit: int, **sizes: int) -> None:
    for name, size in sizes.items():
        if size < limit:
            raise LabError(f"{name} = {size} must be at least {limit}; please raise it.")
