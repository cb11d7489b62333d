"""Attention of E models at once: weights of every kind under any mask, rotary positions, the cache of keys and values."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lab.models.architecture import Architecture
from lab.models.layers import Intermediates, Linear


class KeyValueCache:
    """Keys and values of the tokens read so far, so that later tokens need not read them again.

    Hand a new one to the first `Transformer.forward` and the same one to the following ones. ``length`` is the
    number of tokens it holds. What it holds is exact as long as no token attends to one that was fed later.
    """

    def __init__(self) -> None:
        self.length = 0
        self._held: dict[int, tuple[Tensor, Tensor]] = {}

    def extend(self, depth: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values [model, batch, head, token, h] at `depth`, the new ones last."""
        if depth in self._held:
            old_keys, old_values = self._held[depth]
            keys, values = torch.cat((old_keys, keys), dim=-2), torch.cat((old_values, values), dim=-2)
        self._held[depth] = keys, values
        return keys, values


class Visible(NamedTuple):
    """A mask made ready for attention; model and batch axes have size 1 where the mask does not vary."""

    fused: Tensor  # True where visible, [token, seen] or [model * batch, 1, token, seen]
    hidden: Tensor  # the opposite, [model, batch, 1, token, seen]
    empty: Tensor | None  # [model, batch, 1, token, 1]: rows that see nothing, None where there are none.
    # `fused` and `hidden` show such rows everything, as their softmax would be 0 / 0, and their sum is dropped.


class Attention(nn.Module):
    """a_i = (sum over visible j of w_ij v_j, heads side by side) O, the weights w by `Architecture.kind_at`.

    A token that sees nothing has the sum 0 (so that a_i is the bias of O, 0 without biases).
    """

    def __init__(self, architecture: Architecture, models: int) -> None:
        super().__init__()
        self.architecture, self.size = architecture, architecture.size_of_head
        merged, width = architecture.attention_matrices == "merged", architecture.width
        inner, bias = architecture.heads * self.size, architecture.bias and not merged
        kept = (architecture.key_value_heads or architecture.heads) * self.size
        self.query = Linear(models, width, inner, bias)
        self.key = None if merged else Linear(models, width, kept, bias)
        self.value = None if merged else Linear(models, width, kept, bias)
        self.output = Linear(models, inner, width, bias)

    def forward(
        self,
        x: Float[Tensor, "model batch token width"],
        visible: Visible,
        turns: Tensor | None,
        depth: int,
        cache: KeyValueCache | None,
        intermediates: Intermediates | None,
        thin: Callable[[Tensor], Tensor] | None = None,
    ) -> Float[Tensor, "model batch token width"]:
        """What attention adds; ``thin`` drops some of the weights."""
        kind = self.architecture.kind_at(depth)
        query = self._heads(self.query(x))
        key = self._heads(x if self.key is None else self.key(x))
        value = self._heads(x if self.value is None else self.value(x))
        if turns is not None:
            query, key = _turn(query, turns), _turn(key, turns)
        if cache is not None:
            key, value = cache.extend(depth, key, value)
        if key.shape[2] < query.shape[2]:
            key, value = (
                projection.repeat_interleave(query.shape[2] // key.shape[2], dim=2) for projection in (key, value)
            )
        if kind == "softmax" and intermediates is None and thin is None:
            attended = F.scaled_dot_product_attention(
                query.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1), attn_mask=visible.fused
            ).view(query.shape)
            if visible.empty is not None:
                attended = attended.masked_fill(visible.empty, 0.0)
        else:
            weights = self._weights(kind, query, key, visible)
            attended = (weights if thin is None else thin(weights)) @ value
            if intermediates is not None:
                name = f"layers.{depth}.attention."
                intermediates |= {name + "query": query, name + "key": key, name + "value": value}
                intermediates[name + "weights"] = weights
        return self.output(attended.transpose(2, 3).flatten(3))

    def _heads(self, x: Tensor) -> Float[Tensor, "model batch head token size"]:
        return x.unflatten(-1, (-1, self.size)).transpose(2, 3)

    def _weights(self, kind: str, query: Tensor, key: Tensor, visible: Visible) -> Tensor:
        """Attention weights [model, batch, head, token, seen], exactly 0 where the mask is False."""
        if kind != "linear":
            query = query * self.size**-0.5
        scores = query @ key.transpose(-1, -2)
        if kind == "kernel":
            norms = query.square().sum(-1).unsqueeze(-1) + key.square().sum(-1).unsqueeze(-2)
            scores = scores - 0.5 * norms
        if kind == "linear":
            weights = scores.masked_fill(visible.hidden, 0.0)
        else:
            weights = scores.masked_fill(visible.hidden, -torch.inf).softmax(-1)
        return weights if visible.empty is None else weights.masked_fill(visible.empty, 0.0)


def angles(positions: Tensor, size: int, base: float) -> Tensor:
    """t / base^(2 i / size) for positions t [..., token] and i < size / 2, float64 [..., token, size / 2]."""
    frequencies = base ** -(torch.arange(0, size, 2, dtype=torch.float64, device=positions.device) / size)
    return positions.unsqueeze(-1) * frequencies


def _turn(x: Tensor, turns: Tensor) -> Tensor:
    """Each pair (x_2i, x_2i+1) turned by the angle of cosine and sine ``turns[:, ..., i]``, so that q.k depends on the
    difference of positions only; coordinates beyond those pairs stay."""
    turned, (cos, sin) = x[..., : 2 * turns.shape[-1]], turns
    even, odd = turned[..., 0::2], turned[..., 1::2]
    rotated = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)
    return rotated if turned.shape == x.shape else torch.cat((rotated, x[..., turned.shape[-1] :]), dim=-1)
