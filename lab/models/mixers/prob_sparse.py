r"""ProbSparse attention: only the queries whose attention is far from uniform attend (Informer, Zhou et al. 2020).

With scores s_j = q . k_j / sqrt(d) the sparsity of a query is M = logsumexp_j s_j - mean_j s_j = ln L + KL(uniform |
attention), bounded below by ln L and above by ln L + Mbar with Mbar = max_j s_j - mean_j s_j. The released code
estimates Mbar on some sampled keys, lets the u queries of largest estimate attend, and gives all others the mean of the
values (under a mask: their running sum).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lab.errors import LabError
from lab.models.masks import causal
from lab.models.mixers.heads import weights
from lab.models.mixers.interface import Mixer, Streams, sequence_mixer
from lab.streams import RandomStream

SCORES = ("released", "sampled mean")
SIGHTS = ("all", "past")
LAZY = ("sum", "mean")


def sparsity(scores: Float[Tensor, "*batch key"]) -> Float[Tensor, "*batch"]:
    """M = logsumexp_j s_j - mean_j s_j."""
    return scores.logsumexp(-1) - scores.mean(-1)


def largest_gap(scores: Float[Tensor, "*batch key"]) -> Float[Tensor, "*batch"]:
    """Mbar = max_j s_j - mean_j s_j."""
    return scores.amax(-1) - scores.mean(-1)


def chosen_count(length: int, factor: int = 5) -> int:
    """u = min(c ceil(ln L), L): both the sampled keys of a query and the queries that attend.

    Raises:
        LabError: a factor or a length below 1.
    """
    if factor < 1 or length < 1:
        raise LabError(
            f"factor = {factor} and length = {length} of ProbSparse attention must be at least 1; raise them."
        )
    return min(factor * math.ceil(math.log(length)), length) if length > 1 else 1


def sampled_keys(stream: RandomStream, length: int, factor: int = 5) -> Int[Tensor, "query sampled"]:
    """Keys that each query is scored on, drawn with replacement as released."""
    return torch.from_numpy(stream.rng().integers(0, length, (length, chosen_count(length, factor))))


def scored_pairs(length: int, factor: int = 5) -> int:
    """2 u L: sampled keys of all queries, all keys of the chosen ones."""
    return 2 * chosen_count(length, factor) * length


def estimates(
    query: Float[Tensor, "*batch token size"],
    key: Float[Tensor, "*batch token size"],
    sampled: Int[Tensor, "token sampled"],
    score: str = "released",
    sight: str = "all",
) -> Float[Tensor, "*batch token"]:
    """The estimate of Mbar that queries are chosen by.

    Args:
        query, key: of the tokens.
        sampled: keys of each query.
        score: "released" divides the sum over the sampled keys by the number of all keys; "sampled mean" by their own.
        sight: which sampled keys count: "all", or those of the "past" and the own one (-inf where there is none).

    Raises:
        LabError: no such score or sight.
    """
    for value, known in ((score, SCORES), (sight, SIGHTS)):
        if value not in known:
            raise LabError(f"ProbSparse attention does not know {value!r}; please choose among {', '.join(known)}.")
    length = query.shape[-2]
    scores = torch.einsum("...id,...ijd->...ij", query, key[..., sampled, :])
    counted = torch.ones_like(sampled, dtype=torch.bool)
    if sight == "past":
        counted = sampled <= torch.arange(length, device=sampled.device).unsqueeze(-1)
    number = torch.full((length,), float(length)) if score == "released" else counted.sum(-1).clamp(min=1)
    largest = scores.masked_fill(~counted, -math.inf).amax(-1)
    return largest - (scores * counted).sum(-1) / number.to(scores)


def prob_sparse(
    query: Float[Tensor, "*batch token size"],
    key: Float[Tensor, "*batch token size"],
    value: Float[Tensor, "*batch token width"],
    sampled: Int[Tensor, "token sampled"],
    mask: Bool[Tensor, "token token"],
    score: str = "released",
    sight: str = "all",
    lazy: str = "sum",
) -> Float[Tensor, "*batch token width"]:
    """Outputs of all tokens: attention for the u = len(sampled[0]) chosen queries, the lazy value for the others.

    Args:
        query, key, value: of the tokens.
        sampled: keys that each query is scored on.
        mask: full or causal.
        score, sight: how queries are chosen, see `estimates`. With sight "past" a token is chosen as if it were the
            last: if it is among the u largest estimates of the tokens up to it.
        lazy: under the causal mask the running "sum" of values (released) or their "mean".

    Raises:
        LabError: an unknown choice, or another mask than full and causal.
    """
    if lazy not in LAZY:
        raise LabError(f"ProbSparse attention does not know {lazy!r}; please choose among {', '.join(LAZY)}.")
    length = len(mask)
    masked = torch.equal(mask, causal(length).to(mask.device))
    if not masked and not bool(mask.all()):
        raise LabError("ProbSparse attention is defined under the patterns full and causal; give it one of them.")
    with torch.no_grad():  # a choice has no gradient
        sparsity = estimates(query, key, sampled, score, sight)
    idle = value.mean(-2, keepdim=True).expand(value.shape)
    if masked:
        idle = value.cumsum(-2)
        if lazy == "mean":
            idle = idle / torch.arange(1, length + 1, device=value.device).to(value).unsqueeze(-1)
    if sight == "past":
        attended = weights(query, key, mask) @ value
        return torch.where(_chosen_so_far(sparsity, sampled.shape[-1]).unsqueeze(-1), attended, idle)
    places = sparsity.topk(sampled.shape[-1], dim=-1).indices
    rows = places.unsqueeze(-1)
    chosen = query.gather(-2, rows.expand(*places.shape, query.shape[-1]))
    attended = weights(chosen, key, mask[places]) @ value
    return idle.scatter(-2, rows.expand(attended.shape), attended)


def _chosen_so_far(sparsity: Tensor, number: int) -> Tensor:
    """Which tokens are among the ``number`` largest of those up to them [..., token]."""
    earlier = torch.ones(sparsity.shape[-1], sparsity.shape[-1], dtype=torch.bool, device=sparsity.device).tril(-1)
    larger = (sparsity.unsqueeze(-2) > sparsity.unsqueeze(-1)) & earlier
    return larger.sum(-1) < number


class ProbSparse(Mixer):
    """ProbSparse attention as released; under the causal pattern its choice of queries reads keys of the future.

    Args:
        sampled: keys that each query is scored on.
        sight: "past" mends that.
    """

    def __init__(self, sampled: Int[Tensor, "token sampled"], sight: str = "all") -> None:
        self.sampled, self.sight = sampled, sight

    def parallel(
        self, streams: Streams, mask: Bool[Tensor, "token token"]
    ) -> Float[Tensor, "model batch head token size"]:
        """See the class.

        Raises:
            LabError: keys sampled for another number of tokens, or another pattern than full and causal.
        """
        if len(mask) != len(self.sampled):
            raise LabError(
                f"Keys were sampled for {len(self.sampled)} queries but there are {len(mask)} tokens; sample them anew."
            )
        return prob_sparse(streams["query"], streams["key"], streams["value"], self.sampled, mask, sight=self.sight)


@sequence_mixer(patterns=[{"name": "causal", "length": 8}, {"name": "full", "length": 8}], query=3, key=3, value=2)
def prob_sparse_by_the_past(length: int = 8, factor: int = 1, seed: int = 0) -> ProbSparse:
    """`ProbSparse` whose queries are chosen by past keys, so that the causal pattern is what it says."""
    return ProbSparse(sampled_keys(RandomStream(seed, ("prob-sparse",)), length, factor), sight="past")
