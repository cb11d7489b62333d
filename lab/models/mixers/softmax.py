r"""Softmax attention as a mixer: its state is the cache of all keys and values, which grows with every token."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lab.models.mixers.interface import Mixer, State, Streams, sequence_mixer
from lab.statistics import rounding_bound


@sequence_mixer(
    patterns=[
        {"name": "causal", "length": 7},
        {"name": "prefix_lm", "length": 7, "prefix_length": 3},
        {"name": "sliding_window", "length": 7, "window": 3},
    ],
    query=3,
    key=3,
    value=2,
)
class SoftmaxAttention(Mixer):
    r"""$y_i = \sum_j p_{ij} v_j$ with $p_i$ the softmax of $q_i \cdot k_j / \sqrt D$ over the tokens j that i sees, 0 if none."""

    def parallel(
        self, streams: Streams, mask: Bool[Tensor, "*pattern token token"]
    ) -> Float[Tensor, "model batch head token size"]:
        return _attend(streams["query"], streams["key"], streams["value"], mask)

    def start(self, streams: Streams) -> State:
        return {name: streams[name][..., :0, :] for name in ("key", "value")}

    def write(self, state: State, token: Streams) -> State:
        return {name: torch.cat((held, token[name].unsqueeze(-2)), dim=-2) for name, held in state.items()}

    def read(self, state: State, token: Streams) -> Float[Tensor, "model batch head size"]:
        visible = state["key"].new_ones(1, state["key"].shape[-2], dtype=torch.bool)
        return _attend(token["query"].unsqueeze(-2), state["key"], state["value"], visible).squeeze(-2)

    def state_size(self, sizes: Mapping[str, int], written: int) -> int:
        return written * (sizes["key"] + sizes["value"])

    def rounding(self, streams: Streams, mask: Bool[Tensor, "token token"]) -> float:
        """Scores err by a chain of D + 1 roundings of numbers up to S; weights follow relatively, twice for their sum."""
        size, length = streams["key"].shape[-1], len(mask)
        norms = [float(torch.linalg.vector_norm(streams[name], dim=-1).max()) for name in ("query", "key")]
        score = norms[0] * norms[1] / math.sqrt(size)
        operations = 4 * (size + 2) * max(score, 1.0) + 4 * length
        return 2 * rounding_bound(operations, float(streams["value"].abs().max()))


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    scores = (query @ key.transpose(-1, -2)) * query.shape[-1] ** -0.5
    empty = ~mask.any(-1, keepdim=True)
    weights = scores.masked_fill(~(mask | empty), -torch.inf).softmax(-1)
    return weights.masked_fill(empty, 0.0) @ value
