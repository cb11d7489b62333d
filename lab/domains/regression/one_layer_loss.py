r"""The loss of *any* layer of linear attention, exactly: how far it is from one gradient step, and what that costs.

One layer answers a query $(x_q, 0)$ with $\hat w \cdot x_q$, where for $z_j = (x_j, y_j)$ and $S = \sum_j z_j z_j^\top$
$\hat w^\top = -p^\top S\, M$. Here $p = (u, c)$ is the row of $PV$ that writes labels, and $M$, of $d + 1$ rows and d columns, is what
$K^\top Q$ does to the inputs of the query: $M_x$ with a last row $m^\top$. With $A = X^\top X$, $b = X^\top y$ and $\beta = |y|^2$
$$\hat w = W^\top b + g, \qquad W = -(c M_x + u m^\top), \qquad g = -(M_x^\top A u + c\,\beta\, m).$$
The first part is odd in the labels, the second even, so that $w, \epsilon \to -w, -\epsilon$ kills all products of the two.
For independent symmetric coordinates of variance v and kurtosis $\kappa$, $w \sim N(0, \tau^2 I)$, $\nu = \sigma / \tau$ and
$s^* = 1 / (v (n + d - 2 + \kappa) + \nu^2)$ the expected error of the query (clean) is
$$E(\hat y_q - w \cdot x_q)^2 = \underbrace{\tau^2 d v (1 - n v s^*)}_{\text{the best gradient step}}
+ \tau^2 v\, \frac{n v}{s^*}\, \lVert W - s^* I \rVert_F^2 + v\, E|g|^2,$$
because $E A^2 + \nu^2 E A = (n v / s^*) I$. Both additions are squares: no layer, whatever its weights, is better than the best step.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lab.domains.regression.optimal_steps import NORMAL_KURTOSIS, optimal_step
from lab.errors import LabError


def odd_weights(
    reads: Float[Tensor, "*layers rows dimension"], writes: Float[Tensor, "*layers rows"]
) -> Float[Tensor, "*layers dimension dimension"]:
    r"""$W = -(c M_x + u m^\top)$: the part of a layer that is linear in the labels, $\hat w = W^\top X^\top y + \dots$

    Args:
        reads: M, what $K^\top Q$ does to the inputs of a query: its first d columns, [..., d + 1, d].
        writes: p = (u, c), the last row of $PV$, [..., d + 1].

    Raises:
        LabError: sizes that do not belong together.
    """
    if reads.shape[-2] != reads.shape[-1] + 1 or writes.shape != reads.shape[:-1]:
        raise LabError(
            f"reads of shape {tuple(reads.shape)} and writes of shape {tuple(writes.shape)} are no layer; give "
            "[..., d + 1, d] and [..., d + 1]"
        )
    return -(writes[..., -1:, None] * reads[..., :-1, :] + writes[..., :-1, None] * reads[..., -1:, :])


def even_square(
    reads: Float[Tensor, "*layers rows dimension"],
    writes: Float[Tensor, "*layers rows"],
    context_length: int,
    *,
    input_variance: float = 1.0,
    kurtosis: float = NORMAL_KURTOSIS,
    noise: float = 0.0,
    weight_scale: float = 1.0,
) -> Float[Tensor, "*layers"]:
    r"""$E|g|^2$ of $g = -(M_x^\top A u + c\,\beta\,m)$, the part of a layer that does not change its sign with the labels.

    From $E A u u^\top A = n v^2 [(n + 1) u u^\top + |u|^2 I + (\kappa - 3)\,\mathrm{diag}(u_k^2)]$,
    $E\,\mathrm{tr}A \cdot A = n v^2 (n d + \kappa - 1) I$ and the moments of $\beta = |X w + \epsilon|^2$.

    Args:
        reads, writes: of `odd_weights`.
        context_length: n.
        input_variance, kurtosis: v and $\kappa$ of the independent symmetric coordinates.
        noise: $\sigma$ of the labels.
        weight_scale: $\tau$ of $w \sim N(0, \tau^2 I)$.
    """
    n, d, v = context_length, reads.shape[-1], input_variance
    inputs, last = reads[..., :-1, :], reads[..., -1, :]
    u, c = writes[..., :-1], writes[..., -1]
    read = torch.einsum("...ij,...i->...j", inputs, u)
    square = (n + 1) * read.square().sum(-1) + u.square().sum(-1) * inputs.square().sum((-2, -1))
    square = square + (kurtosis - 3) * (u.square()[..., None] * inputs.square()).sum((-2, -1))
    trace, trace_times_gram = n * d * v, n * v**2 * (n * d + kurtosis - 1)
    square_of_trace, trace_of_square = d * trace_times_gram, n * d * v**2 * (n + d - 2 + kurtosis)
    t, s = weight_scale**2, noise**2
    # beta = |X w + epsilon|^2: its square, and its product with A (a multiple of the identity).
    squared = t**2 * (square_of_trace + 2 * trace_of_square) + 2 * t * s * (n + 2) * trace + s**2 * n * (n + 2)
    crossed = t * trace_times_gram + s * n * (n * v)
    return n * v**2 * square + c * (2 * crossed * (read * last).sum(-1) + c * squared * last.square().sum(-1))


def excess_of_layer(
    reads: Float[Tensor, "*layers rows dimension"],
    writes: Float[Tensor, "*layers rows"],
    context_length: int,
    *,
    input_variance: float = 1.0,
    kurtosis: float = NORMAL_KURTOSIS,
    noise: float = 0.0,
    weight_scale: float = 1.0,
) -> Float[Tensor, "*layers"]:
    r"""$\tau^2 v (n v / s^*) \lVert W - s^* I\rVert_F^2 + v\,E|g|^2$: expected error above that of the best gradient step, never below 0.

    Arguments as in `even_square`.

    >>> step = torch.diag(torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64))  # d = 2: reads inputs, writes labels
    >>> writes = torch.tensor([0, 0, -0.2], dtype=torch.float64)
    >>> round(float(excess_of_layer(step[:, :2], writes, 2)), 6)  # s* = 0.2
    0.0
    """
    n, d, v = context_length, reads.shape[-1], input_variance
    best = optimal_step(n, d, input_variance=v, kurtosis=kurtosis, noise=noise / weight_scale)
    off = odd_weights(reads, writes) - best * torch.eye(d, dtype=reads.dtype, device=reads.device)
    even = even_square(reads, writes, n, input_variance=v, kurtosis=kurtosis, noise=noise, weight_scale=weight_scale)
    return weight_scale**2 * v * (n * v / best) * off.square().sum((-2, -1)) + v * even
