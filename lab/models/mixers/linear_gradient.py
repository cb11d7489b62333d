r"""Gradients of causal linear attention by two recurrences, so that training keeps its inputs and nothing else.

With $G_i = \partial L / \partial y_i$ of $y_i = \sum_{j \le i} (Q_i \cdot K_j) v_j$, $S_i = \sum_{j \le i} K_j v_j^\top$ and
$R_i = \sum_{j \ge i} Q_j G_j^\top$,

$$\frac{\partial L}{\partial Q_i} = S_i G_i, \qquad \frac{\partial L}{\partial K_i} = R_i v_i, \qquad
\frac{\partial L}{\partial v_i} = R_i^\top K_i$$

(Katharopoulos et al. 2020, section 3.3.1). The states are made again on the way back, in chunks, so that N tokens keep
N (2D + M) numbers, where differentiation of the recurrence keeps N D M. The normalised layer is the same function of
values beside a column of ones, divided by the last output.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lab.errors import LabError

CHUNK = 128  # the fastest of 32 to 256 at head size 32


def causal_sums(
    query: Float[Tensor, "*lead token size"],
    key: Float[Tensor, "*lead token size"],
    value: Float[Tensor, "*lead token out"],
    chunk: int = CHUNK,
) -> Float[Tensor, "*lead token out"]:
    r"""$y_i = \sum_{j \le i} (Q_i \cdot K_j) v_j$ in chunks, forward and backward.

    Raises:
        LabError: a chunk below one token.
    """
    if chunk < 1:
        raise LabError(f"chunk = {chunk} of causal linear attention must be at least 1 token; please raise it.")
    return _CausalSums.apply(query, key, value, chunk)


class _CausalSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, chunk: int) -> Tensor:
        ctx.save_for_backward(query, key, value)
        ctx.chunk = chunk
        return _prefix_sums(query, key, value, chunk)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        (query, key, value), chunk, output = ctx.saved_tensors, ctx.chunk, gradients[0]
        of_query = _prefix_sums(output, value, key, chunk)
        ends = [sequence.flip(-2) for sequence in (value, output, query, key)]
        of_key = _prefix_sums(ends[0], ends[1], ends[2], chunk).flip(-2)
        of_value = _prefix_sums(ends[3], ends[2], ends[1], chunk).flip(-2)
        return of_query, of_key, of_value, None


def _prefix_sums(query: Tensor, key: Tensor, value: Tensor, chunk: int) -> Tensor:
    """sum over j <= i of (q_i . k_j) v_j, a chunk after the other, carrying sum k_j v_j^T."""
    state, rows = key.new_zeros(*key.shape[:-2], key.shape[-1], value.shape[-1]), []
    for queries, keys, values in zip(*(sequence.split(chunk, dim=-2) for sequence in (query, key, value)), strict=True):
        rows.append(queries @ state + (queries @ keys.transpose(-1, -2)).tril() @ values)
        state = state + keys.transpose(-1, -2) @ values
    return torch.cat(rows, dim=-2)
