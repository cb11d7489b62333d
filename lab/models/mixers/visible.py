"""Softmax attention that computes the visible pairs only, and holds no more keys than its pattern still reads.

`SoftmaxAttention` computes all pairs and hides some. Under the patterns of the lab a token sees one run of tokens
(causal, prefix, block-causal, window), and tokens that follow one another often see the same run: each such group is one
product, so that the multiply-adds are those of the visible pairs, to the last one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lab.errors import LabError
from lab.models.mixers.interface import Mixer, State, Streams, at, sequence_mixer
from lab.statistics import rounding_bound


@sequence_mixer(
    patterns=[
        {"name": "causal", "length": 7},
        {"name": "prefix_lm", "length": 7, "prefix_length": 3},
        {"name": "block_causal", "sizes": [2, 3, 2]},
    ],
    query=3,
    key=3,
    value=2,
)
class VisibleAttention(Mixer):
    """Softmax of q_i . k_j / sqrt(D) over one run of visible tokens.

    Args:
        window: tokens that the state keeps, where the pattern is a sliding window; None keeps all.
    """

    def __init__(self, window: int | None = None) -> None:
        if window is not None and window < 1:
            raise LabError(f"window = {window} of attention must be at least 1 token; please raise it.")
        self.window = window

    def parallel(
        self, streams: Streams, mask: Bool[Tensor, "token token"]
    ) -> Float[Tensor, "model batch head token size"]:
        """Group by group.

        Raises:
            LabError: a token sees nothing, or more than one run of tokens.
        """
        query, key, value = (streams[name] for name in ("query", "key", "value"))
        outputs = []
        for first, end, low, high in groups(mask):
            scores = query[..., first:end, :] @ key[..., low:high, :].mT / math.sqrt(query.shape[-1])
            outputs.append(scores.softmax(-1) @ value[..., low:high, :])
        return torch.cat(outputs, dim=-2)

    def start(self, streams: Streams) -> State:
        """No keys, no values."""
        return {name: streams[name][..., :0, :] for name in ("key", "value")}

    def write(self, state: State, token: Streams) -> State:
        """One more of each; the oldest beyond the window goes."""
        drop = 0 if self.window is None else max(0, state["key"].shape[-2] + 1 - self.window)
        return {
            name: torch.cat((held[..., drop:, :], token[name].unsqueeze(-2)), dim=-2) for name, held in state.items()
        }

    def read(self, state: State, token: Streams) -> Float[Tensor, "model batch head size"]:
        """Attention to all that is held."""
        scores = token["query"].unsqueeze(-2) @ state["key"].mT / math.sqrt(token["query"].shape[-1])
        return (scores.softmax(-1) @ state["value"]).squeeze(-2)

    def state_size(self, sizes: Mapping[str, int], written: int) -> int:
        """(key + value) for each token held."""
        return (written if self.window is None else min(written, self.window)) * (sizes["key"] + sizes["value"])

    def recurrent(
        self, streams: Streams, mask: Bool[Tensor, "token token"]
    ) -> Float[Tensor, "model batch head token size"]:
        """Token by token, through the window where there is one."""
        if self.window is None:
            return super().recurrent(streams, mask)
        state, outputs = self.start(streams), []
        for place in range(len(mask)):
            token = at(streams, place)
            state = self.write(state, token)
            outputs.append(self.read(state, token))
        return torch.stack(outputs, dim=-2)

    def forms(self, mask: Bool[Tensor, "token token"]) -> tuple[str, ...]:
        """With a window, token by token under the sliding window of this width alone."""
        if self.window is None:
            return super().forms(mask)
        length = len(mask)
        window_pattern = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril().triu(1 - self.window)
        return ("parallel", "recurrent") if mask.ndim == 2 and torch.equal(mask, window_pattern) else ("parallel",)

    def rounding(self, streams: Streams, mask: Bool[Tensor, "token token"]) -> float:
        """A score is right to D + 2 roundings of S, a share to twice that and a sum of all tokens."""
        size = streams["key"].shape[-1]
        norms = [float(torch.linalg.vector_norm(streams[name], dim=-1).max()) for name in ("query", "key")]
        operations = 4 * (size + 4) * max(norms[0] * norms[1] / math.sqrt(size), 1.0) + 4 * len(mask)
        return 2 * rounding_bound(operations, float(streams["value"].abs().max()))


@sequence_mixer(patterns=[{"name": "sliding_window", "length": 7, "window": 3}], query=3, key=3, value=2)
def windowed_attention(window: int = 3) -> VisibleAttention:
    """`VisibleAttention` through a queue of ``window`` tokens."""
    return VisibleAttention(window)


def groups(mask: Bool[Tensor, "token token"]) -> list[tuple[int, int, int, int]]:
    """(first, end, low, high): tokens first .. end - 1 all see exactly tokens low .. high - 1.

    Raises:
        LabError: a token sees nothing, or more than one run of tokens.

    >>> from lab.models.masks import prefix_lm
    >>> groups(prefix_lm(4, 2))
    [(0, 2, 0, 2), (2, 3, 0, 3), (3, 4, 0, 4)]
    """
    counts, low = mask.sum(-1), mask.long().argmax(-1)
    place = torch.arange(mask.shape[-1], device=mask.device)
    run = (place >= low.unsqueeze(-1)) & (place < (low + counts).unsqueeze(-1))
    wrong = (counts == 0) | (run != mask).any(-1)
    if bool(wrong.any()):
        token = int(wrong.nonzero()[0])
        extent = "nothing" if not int(counts[token]) else "more than one run of tokens"
        raise LabError(
            f"Token {token} sees {extent} under this pattern; use SoftmaxAttention, which takes any pattern."
        )
    runs: list[tuple[int, int, int, int]] = []
    for token, (start, size) in enumerate(zip(low.tolist(), counts.tolist(), strict=True)):
        if runs and runs[-1][2:] == (start, start + size):
            runs[-1] = (runs[-1][0], token + 1, start, start + size)
        else:
            runs.append((token, token + 1, start, start + size))
    return runs
