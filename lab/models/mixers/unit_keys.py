"""The delta rule as networks of today use it: keys and queries of length 1, and a rate below 1 (Yang et al. 2024).

So each token is written with at most what is still wrong at its key, and nothing diverges: b |k|^2 < 2 is sure.
"""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from lab.models.mixers.fast_weights import DeltaRule
from lab.models.mixers.interface import State, Streams, sequence_mixer
from lab.models.mixers.linear import PATTERNS


@sequence_mixer(
    patterns=[*PATTERNS, {"name": "sliding_window", "length": 6, "window": 3}], query=3, key=3, value=2, rate=1
)
class UnitDeltaRule(DeltaRule):
    """The delta rule on directions of keys and queries, with rates in (0, 1]."""

    streams: ClassVar = {"query": None, "key": None, "value": None, "rate": (0.0, 1.0)}

    def parallel(
        self, streams: Streams, mask: Bool[Tensor, "*pattern token token"]
    ) -> Float[Tensor, "model batch head token size"]:
        return super().parallel(directions(streams), mask)

    def write(self, state: State, token: Streams) -> State:
        return super().write(state, directions(token))

    def read(self, state: State, token: Streams) -> Float[Tensor, "model batch head size"]:
        return super().read(state, directions(token))

    def chunked(
        self, streams: Streams, mask: Bool[Tensor, "token token"], chunk: int
    ) -> Float[Tensor, "model batch head token size"]:
        return super().chunked(directions(streams), mask, chunk)

    def rounding(self, streams: Streams, mask: Bool[Tensor, "token token"]) -> float:
        """That of the delta rule; directions are computed alike in all forms."""
        return super().rounding(directions(streams), mask)


def directions(streams: Streams) -> dict[str, Tensor]:
    """Queries and keys divided by their lengths."""
    return {**streams, **{name: F.normalize(streams[name], dim=-1) for name in ("query", "key")}}
