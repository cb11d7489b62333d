r"""Linear attention, with or without decay: masked product, recurrence and chunks of one function.

With $Q, K$ the featured queries and keys, r_i the number of tokens that are written before token i is read (i under a
causal pattern, counted from 1) and decays $a_t \in (0, 1]$ (1 where there are none),

$$y_i = \frac{\sum_{j \le r_i} w_{ij} v_j}{\sum_{j \le r_i} w_{ij}}, \qquad
w_{ij} = (Q_i \cdot K_j) \prod_{t = j + 1}^{r_i} a_t,$$

or the numerator alone where it is not normalised. As a recurrence, $S_t = a_t S_{t-1} + K_t v_t^\top$ and
$y_i = Q_i^\top S_{r_i}$; a column of ones beside the values makes the denominator one more output (Katharopoulos et al. 2020,
equations 16-20). A scalar decay is a stream that is the same everywhere, a selective one varies from token to token, and a
gate between chunks (Hui et al. 2025) is a decay at the first token of each chunk and 1 elsewhere. A token that sees
nothing has the output 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from lab.models.mixers.features import feature_map, normalisable
from lab.models.mixers.interface import Mixer, State, Streams, between, reach, sequence_mixer
from lab.statistics import rounding_bound

PATTERNS: list[Mapping[str, Any]] = [
    {"name": "causal", "length": 7},
    {"name": "prefix_lm", "length": 7, "prefix_length": 3},
    {"name": "block_causal", "sizes": (2, 3, 2)},
]


@sequence_mixer(patterns=[*PATTERNS, {"name": "sliding_window", "length": 6, "window": 3}], query=3, key=3, value=2)
class LinearAttention(Mixer):
    r"""Linear attention without decay; see the module.

    Args:
        features: name of the feature map (`lab.models.mixers.features`).
        normalised: whether the sum of the weights divides the output.

    Raises:
        LabError: no such map, or one whose weights can be negative beside ``normalised``.
    """

    def __init__(self, features: str = "elu", normalised: bool = True) -> None:
        self.features = normalisable(features) if normalised else feature_map(features)
        self.normalised = normalised

    def parallel(
        self, streams: Streams, mask: Bool[Tensor, "*pattern token token"]
    ) -> Float[Tensor, "model batch head token size"]:
        query, key, value = self._prepared(streams)
        weights = (query @ key.transpose(-1, -2)).masked_fill(~mask, 0.0)
        if "decay" in streams:
            weights = weights * _decayed(streams["decay"].squeeze(-1), mask)
        return self._divided(weights @ value)

    def start(self, streams: Streams) -> State:
        _, key, value = self._prepared(between(streams, 0, 0))
        return {"sums": key.new_zeros(*key.shape[:3], key.shape[-1], value.shape[-1])}

    def write(self, state: State, token: Streams) -> State:
        _, key, value = self._prepared(token)
        sums = state["sums"] * token["decay"].unsqueeze(-1) if "decay" in token else state["sums"]
        return {"sums": sums + key.unsqueeze(-1) * value.unsqueeze(-2)}

    def read(self, state: State, token: Streams) -> Float[Tensor, "model batch head size"]:
        query = self.features.map(token["query"]).unsqueeze(-2)
        return self._divided(query @ state["sums"]).squeeze(-2)

    def state_size(self, sizes: Mapping[str, int], written: int) -> int:
        return self.features.size(sizes["key"]) * (sizes["value"] + self.normalised)

    def chunked(
        self, streams: Streams, mask: Bool[Tensor, "token token"], chunk: int
    ) -> Float[Tensor, "model batch head token size"]:
        """Tokens from the state as it stood at the chunk's first token, the rest from the keys that it sees besides."""
        reached, length, outputs = reach(mask).tolist(), len(mask), []
        sums, written = self.start(streams)["sums"], 0
        for first in range(0, length, chunk):
            end = min(first + chunk, length)
            # What the chunk's first token sees goes into the state; what only later ones see stays apart.
            sums, written = self._written(sums, between(streams, written, reached[first])), reached[first]
            query = self.features.map(streams["query"][..., first:end, :])
            _, key, value = self._prepared(between(streams, written, reached[end - 1]))
            weights = (query @ key.transpose(-1, -2)).masked_fill(~mask[first:end, written : reached[end - 1]], 0.0)
            carried = query @ sums
            if "decay" in streams:
                totals = _totals(streams["decay"][..., written : reached[end - 1], 0])
                counts = mask.sum(-1)[first:end] - written
                carried = carried * totals[..., counts].unsqueeze(-1).exp()
                weights = weights * _between_totals(totals, counts)
            outputs.append(carried + weights @ value)
        return self._divided(torch.cat(outputs, dim=-2))

    def rounding(self, streams: Streams, mask: Bool[Tensor, "token token"]) -> float:
        r"""$2 \gamma_n$ times the sums of absolute terms, n = features + tokens + decays and their logarithms.

        Features are computed alike in all forms. A quotient N / Z errs by $(\delta N + |N / Z| \, \delta Z) / Z$.
        """
        query, key, value = self._prepared(streams)
        weights = (query.abs() @ key.abs().transpose(-1, -2)).masked_fill(~mask, 0.0)
        operations = float(query.shape[-1] + 2 * len(mask) + 4)
        if "decay" in streams:
            decay = streams["decay"].squeeze(-1)
            weights = weights * _decayed(decay, mask)
            operations += len(mask) * (1 + float(decay.log().sum(-1).abs().max()))
        error = 2 * rounding_bound(operations) * (weights @ value.abs())
        if not self.normalised:
            return float(error.max())
        return quotient_rounding(weights @ value, error)

    def _prepared(self, streams: Streams) -> tuple[Tensor, Tensor, Tensor]:
        """Featured queries and keys, and the values, beside a column of ones where the sum of the weights is wanted."""
        value = augmented(streams["value"]) if self.normalised else streams["value"]
        return self.features.map(streams["query"]), self.features.map(streams["key"]), value

    def _divided(self, sums: Tensor) -> Tensor:
        return divided(sums) if self.normalised else sums

    def _written(self, sums: Tensor, tokens: Streams) -> Tensor:
        """The state with several tokens more."""
        _, key, value = self._prepared(tokens)
        if "decay" not in tokens:
            return sums + key.transpose(-1, -2) @ value
        totals = _totals(tokens["decay"].squeeze(-1))
        left = (totals[..., -1:] - totals[..., 1:]).exp()
        return totals[..., -1, None, None].exp() * sums + (left.unsqueeze(-1) * key).transpose(-1, -2) @ value


@sequence_mixer(patterns=PATTERNS, query=3, key=3, value=2, decay=1)
class DecayedLinearAttention(LinearAttention):
    """Linear attention that forgets: a decay for each token and head, one number in (0, 1]."""

    streams = {"query": None, "key": None, "value": None, "decay": (0.0, 1.0)}


@sequence_mixer(patterns=PATTERNS, query=3, key=3, value=2)
def unnormalised_linear_attention() -> Mixer:
    """The sum of values by the products of queries and keys, as the theory of gradient descent has it."""
    return LinearAttention("identity", normalised=False)


@sequence_mixer(patterns=PATTERNS, query=3, key=3, value=2)
def quadratic_attention() -> Mixer:
    """Weights (q . k)^2, by the features vec(x x^T)."""
    return LinearAttention("quadratic")


@sequence_mixer(patterns=PATTERNS, query=3, key=3, value=2)
def exponential_linear_attention() -> Mixer:
    """Weights exp(q) . exp(k), entry by entry."""
    return LinearAttention("exp")


def augmented(value: Float[Tensor, "*lead size"]) -> Float[Tensor, "*lead column"]:
    """Values beside a one, whose sum is the sum of the weights."""
    return F.pad(value, (0, 1), value=1.0)


def divided(sums: Float[Tensor, "*lead column"]) -> Float[Tensor, "*lead size"]:
    """What `augmented` values sum to, divided by the last; 0 where no weight is."""
    total = sums[..., -1:]
    return sums[..., :-1] / total.masked_fill(total == 0, 1.0)


def quotient_rounding(sums: Float[Tensor, "*lead column"], error: Float[Tensor, "*lead column"]) -> float:
    r"""$(\delta N + |N / Z| \, \delta Z) / Z$ at its largest, for sums of augmented values with these errors, and the division."""
    output, total = divided(sums), sums[..., -1:]
    relative = (error[..., :-1] + output.abs() * error[..., -1:]) / total.masked_fill(total == 0, 1.0)
    return float(relative.max()) + 2 * rounding_bound(1, float(output.abs().max()))


def _totals(decay: Float[Tensor, "*lead token"]) -> Float[Tensor, "*lead edge"]:
    """C_t = log a_1 + ... + log a_t, C_0 = 0."""
    return F.pad(decay.log().cumsum(-1), (1, 0))


def _between_totals(totals: Tensor, counts: Tensor) -> Tensor:
    """exp(C_{r_i} - C_j) for the tokens j = 1 .. that row i sees, r_i of them; 1 where that would exceed 1."""
    return (totals[..., counts].unsqueeze(-1) - totals[..., 1:].unsqueeze(-2)).clamp_max(0.0).exp()


def _decayed(decay: Float[Tensor, "*lead token"], mask: Bool[Tensor, "*pattern token token"]) -> Tensor:
    """The decays from each token to the last one that a row sees; clamped, as the product of what it does not see is of
    no use and its gradient must not be infinite times 0."""
    last = torch.where(mask.any(-1), mask.shape[-1] - mask.flip(-1).int().argmax(-1), 0)
    if mask.ndim == 2:
        return _between_totals(_totals(decay), last)
    totals = _totals(decay)
    rows = totals.gather(-1, last.expand(*totals.shape[:-1], -1))
    return (rows.unsqueeze(-1) - totals[..., 1:].unsqueeze(-2)).clamp_max(0.0).exp()
