r"""Bidirectional linear attention as two recurrences that meet, each with half of the diagonal (Afzal et al. 2025, LION).

$$y_i = \frac{\sum_j M_{ij} (Q_i \cdot K_j) v_j}{\sum_j M_{ij} (Q_i \cdot K_j)}, \qquad
M_{ij} = \prod_{k = j}^{i - 1} a_k \ (i > j), \quad 1 \ (i = j), \quad \prod_{k = i + 1}^{j} a_k \ (i < j):$$

the convention of the released code, in which the decay of the *source* counts in both directions and that of the first token
does not. ``source=False`` is the other natural one, in which the *reader's* does: its M is the transpose. Decays 1
everywhere give LION-LIT, one and the same number LION-D ($M_{ij} = \lambda^{|i - j|}$), numbers of each token LION-S.

Forward, $S_i = f_i S_{i-1} + K_i v_i^\top$ with $f_i = a_{i-1}$ (source) or $a_i$; backward the same from the end with
$b_i = a_{i+1}$ (source) or $a_i$. Each direction reads its own token too, so half of it is taken from each:
$y_i = (\text{forward} + \text{backward} - (Q_i \cdot K_i) v_i)$ before the division.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lab.models.mixers.features import feature_map, normalisable
from lab.models.mixers.interface import Mixer, Streams, sequence_mixer
from lab.models.mixers.linear import augmented, divided, quotient_rounding
from lab.statistics import rounding_bound


@sequence_mixer(
    patterns=[{"name": "full", "length": 7}, {"name": "causal", "length": 6}], query=3, key=3, value=2, decay=1
)
class BidirectionalLinearAttention(Mixer):
    """See the module; a pattern other than the full one cuts weights out of M, in the parallel form alone.

    Args:
        features: name of the feature map (`lab.models.mixers.features`).
        normalised: whether the sum of the weights divides the output.
        source: whose decay counts, the source's as in the released code, or the reader's.
    """

    streams: ClassVar = {"query": None, "key": None, "value": None, "decay": (0.0, 1.0)}

    def __init__(self, features: str = "elu", normalised: bool = True, source: bool = True) -> None:
        self.features = normalisable(features) if normalised else feature_map(features)
        self.normalised, self.source = normalised, source

    def parallel(
        self, streams: Streams, mask: Bool[Tensor, "*pattern token token"]
    ) -> Float[Tensor, "model batch head token size"]:
        query, key, value = self._prepared(streams)
        decays = two_sided_decay(streams["decay"].squeeze(-1), self.source)
        weights = (query @ key.transpose(-1, -2) * decays).masked_fill(~mask, 0.0)
        return self._divided(weights @ value)

    def recurrent(
        self, streams: Streams, mask: Bool[Tensor, "token token"]
    ) -> Float[Tensor, "model batch head token size"]:
        query, key, value = self._prepared(streams)
        forward = streams["decay"]
        backward = forward.flip(-2)
        if self.source:  # the factor of a step is the decay of the token just left; the first is of no account
            forward, backward = forward.roll(1, -2), backward.roll(1, -2)
        both = _one_way(query, key, value, forward)
        both = both + _one_way(query.flip(-2), key.flip(-2), value.flip(-2), backward).flip(-2)
        return self._divided(both - (query * key).sum(-1, keepdim=True) * value)

    def chunked(
        self, streams: Streams, mask: Bool[Tensor, "token token"], chunk: int
    ) -> Float[Tensor, "model batch head token size"]:
        """One chunk of keys after the other, each with its columns of M."""
        query, key, value = self._prepared(streams)
        decays = two_sided_decay(streams["decay"].squeeze(-1), self.source)
        sums = torch.zeros_like(value)
        for first in range(0, len(mask), chunk):
            columns = slice(first, first + chunk)
            weights = query @ key[..., columns, :].transpose(-1, -2) * decays[..., columns]
            sums = sums + weights @ value[..., columns, :]
        return self._divided(sums)

    def forms(self, mask: Bool[Tensor, "token token"]) -> tuple[str, ...]:
        return ("parallel", "recurrent", "chunked") if mask.ndim == 2 and bool(mask.all()) else ("parallel",)

    def rounding(self, streams: Streams, mask: Bool[Tensor, "token token"]) -> float:
        """As of `LinearAttention`, the diagonal counted thrice: read by both directions and taken away."""
        query, key, value = self._prepared(streams)
        decay = streams["decay"].squeeze(-1)
        scores = (query.abs() @ key.abs().transpose(-1, -2)) * two_sided_decay(decay, self.source)
        scores = (scores + 2 * torch.diag_embed(scores.diagonal(dim1=-2, dim2=-1))).masked_fill(~mask, 0.0)
        size = query.shape[-1] + 2 * len(mask) + 6 + len(mask) * (1 + 2 * float(decay.log().sum(-1).abs().max()))
        error = 2 * rounding_bound(size) * (scores @ value.abs())
        if not self.normalised:
            return float(error.max())
        weights = query @ key.transpose(-1, -2) * two_sided_decay(decay, self.source)
        return quotient_rounding(weights.masked_fill(~mask, 0.0) @ value, error)

    def _prepared(self, streams: Streams) -> tuple[Tensor, Tensor, Tensor]:
        value = augmented(streams["value"]) if self.normalised else streams["value"]
        return self.features.map(streams["query"]), self.features.map(streams["key"]), value

    def _divided(self, sums: Tensor) -> Tensor:
        return divided(sums) if self.normalised else sums


@sequence_mixer(patterns=[{"name": "full", "length": 7}], query=3, key=3, value=2, decay=1)
def reader_decays() -> Mixer:
    """The convention in which the decay of the token that reads counts."""
    return BidirectionalLinearAttention(source=False)


def two_sided_decay(decay: Float[Tensor, "*lead token"], source: bool = True) -> Float[Tensor, "*lead token token"]:
    """M of the module, from sums of logarithms, as products would underflow.

    Args:
        decay: a_t of each token, in (0, 1].
        source: whose decay counts.

    >>> [round(weight, 3) for weight in two_sided_decay(torch.tensor([0.9, 0.5, 0.25]))[2].tolist()]
    [0.45, 0.5, 1.0]
    """
    logs = decay.log()
    up_to = logs.cumsum(-1)
    before = up_to - logs
    below = before.unsqueeze(-1) - before.unsqueeze(-2)  # i > j: sum of k = j .. i - 1
    above = up_to.unsqueeze(-2) - up_to.unsqueeze(-1)  # i < j: sum of k = i + 1 .. j
    lower = torch.ones_like(below, dtype=torch.bool).tril()
    products = torch.where(lower, below, above).clamp_max(0.0).exp()
    return products if source else products.transpose(-1, -2)


def _one_way(query: Tensor, key: Tensor, value: Tensor, factors: Tensor) -> Tensor:
    """Q_i^T S_i of S_i = f_i S_{i-1} + K_i v_i^T, for each i in turn; f_0 is of no account."""
    state = key.new_zeros(*key.shape[:-2], key.shape[-1], value.shape[-1])
    rows = []
    for place in range(key.shape[-2]):
        written = key[..., place, :].unsqueeze(-1) * value[..., place, :].unsqueeze(-2)
        state = written if place == 0 else factors[..., place, :].unsqueeze(-1) * state + written
        rows.append((query[..., place, :].unsqueeze(-2) @ state).squeeze(-2))
    return torch.stack(rows, dim=-2)
