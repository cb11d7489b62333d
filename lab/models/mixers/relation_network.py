r"""The causal relation network as a mixer (Cui et al. 2024): a sum over pairs of tokens instead of a softmax.

Token i has a query side $a_i$ and token j a memory side $b_j$, both in $\mathbb R^h$. With $N(x) = (x - \bar x) /
\mathrm{std}(x)$ over the h
features and $\sigma$ = exp (or ReLU), all elementwise, the output is

$$ y_i = N\Big(\sum_{j \text{ seen by } i} \sigma(z_{ij})\Big), \qquad z_{ij} =
   \begin{cases} N(a_i + b_j) & \text{pre-norm of pairs} \\ N(a_i) + N(b_j) & \text{pre-norm of sides} \\ a_i + b_j &
   \text{none.} \end{cases} $$

- *Sides* and *none* with exp factor, $\sum_j e^{a_i + b_j} = e^{a_i} \sum_j e^{b_j}$: the state is one vector of h
numbers and time is linear.
  It is kept as its logarithm. N forgets a factor of each token, so $e^{z - \max z}$ may stand for $e^z$ and nothing overflows.
- *Pairs* do not factor, since $\mathrm{std}(a_i + b_j)^2 = \mathrm{var}\,a_i + \mathrm{var}\,b_j +
2\,\mathrm{cov}(a_i, b_j)$ scales each pair by an inner product, as
  attention does. The state is all $b_j$, like a cache of keys and values. Nor do sums of ReLU factor.

A token that sees nothing has the output 0.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from lab.errors import LabError
from lab.models.mixers.interface import Mixer, State, Streams, reach, sequence_mixer
from lab.statistics import rounding_bound

PRENORMS = ("pairs", "sides", "none")
ACTIVATIONS = ("exp", "relu")
LEAST_VARIANCE = 1e-24  # of a constant vector, which has no direction; so small that N forgets a factor to rounding


def normalised(x: Float[Tensor, "*place size"]) -> Float[Tensor, "*place size"]:
    """(x - mean) / std over the last axis, without weights."""
    return F.layer_norm(x, x.shape[-1:], eps=LEAST_VARIANCE)


class RelationNetwork(Mixer):
    """See the module.

    Args:
        prenorm: "pairs" (exact pre-norm, quadratic), "sides" (approximate pre-norm, linear) or "none" (linear).
        activation: "exp" or "relu".

    Raises:
        LabError: another one.
    """

    streams = {"query": None, "key": None}

    def __init__(self, prenorm: str = "pairs", activation: str = "exp") -> None:
        for name, value, choices in (("prenorm", prenorm, PRENORMS), ("activation", activation, ACTIVATIONS)):
            if value not in choices:
                raise LabError(f"{name} = {value!r} of a relation network must be one of {', '.join(choices)}.")
        self.prenorm, self.activation = prenorm, activation

    @property
    def factors(self) -> bool:
        """Whether one vector is all the state."""
        return self.prenorm != "pairs" and self.activation == "exp"

    def parallel(
        self, streams: Streams, mask: Bool[Tensor, "*pattern token token"]
    ) -> Float[Tensor, "model batch head token size"]:
        if not self.factors:
            return self._sum_of_pairs(streams["query"], streams["key"], mask)
        query, key = self._sides(streams["query"]), self._sides(streams["key"])
        if mask.ndim == 2 and torch.equal(mask, torch.ones_like(mask).tril()):
            return self._out(query + key.logcumsumexp(-2), ~mask.any(-1, keepdim=True))
        kept = key.unsqueeze(-3).masked_fill(~mask.unsqueeze(-1), -torch.inf)
        return self._out(query + kept.logsumexp(-2), ~mask.any(-1, keepdim=True))

    def start(self, streams: Streams) -> State:
        key = streams["key"]
        if self.factors:
            return {"log sum": torch.full_like(key[..., 0, :], -torch.inf)}
        return {"key": key[..., :0, :]}

    def write(self, state: State, token: Streams) -> State:
        if self.factors:
            return {"log sum": torch.logaddexp(state["log sum"], self._sides(token["key"]))}
        return {"key": torch.cat((state["key"], token["key"].unsqueeze(-2)), -2)}

    def read(self, state: State, token: Streams) -> Float[Tensor, "model batch head size"]:
        if self.factors:
            logarithms = self._sides(token["query"]) + state["log sum"]
            return self._out(logarithms, torch.isneginf(logarithms).all(-1, keepdim=True))
        visible = torch.ones(1, state["key"].shape[-2], dtype=torch.bool, device=token["query"].device)
        return self._sum_of_pairs(token["query"].unsqueeze(-2), state["key"], visible).squeeze(-2)

    def state_size(self, sizes: Mapping[str, int], written: int) -> int:
        return sizes["key"] if self.factors else written * sizes["key"]

    def chunked(
        self, streams: Streams, mask: Bool[Tensor, "token token"], chunk: int
    ) -> Float[Tensor, "model batch head token size"]:
        """Chunks of queries; of factored sums each chunk of the memory side is added to the state at once."""
        needed, length = reach(mask), len(mask)
        if not self.factors:
            return torch.cat(
                [
                    self._sum_of_pairs(streams["query"][..., first : first + chunk, :], streams["key"], rows)
                    for first, rows in zip(range(0, length, chunk), mask.split(chunk), strict=True)
                ],
                -2,
            )
        state, sums = self.start(streams)["log sum"], []
        for first in range(0, length, chunk):
            inside = self._sides(streams["key"][..., first : first + chunk, :]).logcumsumexp(-2)
            sums.append(torch.logaddexp(state.unsqueeze(-2), inside))
            state = sums[-1][..., -1, :]
        every = torch.cat((torch.full_like(sums[0][..., :1, :], -torch.inf), *sums), -2)
        logarithms = self._sides(streams["query"]) + every[..., needed, :]
        return self._out(logarithms, (needed == 0).unsqueeze(-1))

    def rounding(self, streams: Streams, mask: Bool[Tensor, "token token"]) -> float:
        r"""First order: z errs by $\epsilon_z$, each sum relatively by $\epsilon_z + T u$, and N turns a relative
        error of its argument x
        into at most $2 (1 + \sqrt h) \max |x| / \mathrm{std}(x)$ of it."""
        query, key = (self._sides(streams[name]) for name in ("query", "key"))
        size, length = key.shape[-1], len(mask)
        largest = float(query.abs().max() + key.abs().max())
        pairs = streams["query"].unsqueeze(-2) + streams["key"].unsqueeze(-3)
        if self.prenorm == "none":
            stretch = 1.0
        elif self.prenorm == "sides":
            stretch = max(_stretch(streams["query"]), _stretch(streams["key"]))
        else:
            stretch, largest = _stretch(pairs), float(size**0.5)
        operations = (2 * size + 8) * stretch * (1 + size**0.5) * (1 + largest) + length * (2 + largest)
        z = self.relations(streams["query"], streams["key"]).masked_fill(~mask.unsqueeze(-1), -torch.inf)
        sums = torch.exp(z - z.amax((-1, -2), keepdim=True)).sum(-2) if self.activation == "exp" else z.relu().sum(-2)
        out = _stretch(sums[..., mask.any(-1), :]) if bool(mask.any()) else 0.0
        dtype = torch.empty(0, dtype=key.dtype).numpy().dtype.type
        return 2 * rounding_bound(operations, 2 * (1 + size**0.5) * out, dtype)

    def _sides(self, x: Tensor) -> Tensor:
        return normalised(x) if self.prenorm == "sides" else x

    def relations(self, query: Tensor, key: Tensor) -> Tensor:
        """z [..., token, seen, size] of tokens [..., token, size] and [..., seen, size]."""
        z = self._sides(query).unsqueeze(-2) + self._sides(key).unsqueeze(-3)
        return normalised(z) if self.prenorm == "pairs" else z

    def _sum_of_pairs(self, query: Tensor, key: Tensor, mask: Tensor) -> Tensor:
        z = self.relations(query, key)
        # Masked after the activation: what a masked pair would put in is 0 for every activation.
        values = z.relu() if self.activation == "relu" else z.exp()
        return normalised(values.masked_fill(~mask.unsqueeze(-1), 0.0).sum(-2))

    def _out(self, logarithms: Tensor, empty: Tensor) -> Tensor:
        """N(exp(z)), where rows that saw nothing are 0."""
        logarithms = logarithms.masked_fill(empty, 0.0)
        return normalised(torch.exp(logarithms - logarithms.amax(-1, keepdim=True))).masked_fill(empty, 0.0)


def _stretch(x: Tensor) -> float:
    """Largest |x| / std(x): by how much N enlarges a relative error."""
    deviation = x.var(-1, unbiased=False).clamp_min(LEAST_VARIANCE).sqrt()
    return float((x.abs().amax(-1) / deviation).max()) if x.numel() else 0.0


PATTERNS = (
    {"name": "causal", "length": 7},
    {"name": "prefix_lm", "length": 7, "prefix_length": 3},
    {"name": "sliding_window", "length": 7, "window": 3},
)


@sequence_mixer(patterns=PATTERNS, query=5, key=5)
def pairwise_relation_network() -> RelationNetwork:
    """Exact pre-norm: quadratic, with a memory that grows."""
    return RelationNetwork("pairs")


@sequence_mixer(patterns=PATTERNS, query=5, key=5)
def sidewise_relation_network() -> RelationNetwork:
    """Approximate pre-norm: linear, one vector of state."""
    return RelationNetwork("sides")


@sequence_mixer(patterns=PATTERNS, query=5, key=5)
def plain_relation_network() -> RelationNetwork:
    """No pre-norm: linear, one vector of state."""
    return RelationNetwork("none")
