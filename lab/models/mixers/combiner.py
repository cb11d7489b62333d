r"""Combiner: attention as a mixture over regions of the past, each with one law inside (Ren et al. 2021).

The past of token i is cut into single tokens (the *direct* set) and regions R. One softmax weighs direct tokens by
q_i . k_j and regions by a logit; inside a region the law softmax_j(qbar_R . k_j) does not depend on i, so that its
expected value is computed once:

    p~(j | i) = [j direct] p(j | i) + sum over visible R of p(R | i) p(j | R).

With segments of sqrt(L) tokens that costs about L^{3/2} pairs, with blocks of powers of two about L log L. On a grid of rows the
axial variants cut the past by rows, or mix summaries of rows and columns that cover most of it twice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lab.errors import LabError
from lab.models.masks import causal
from lab.models.mixers.axial import require_causal
from lab.models.mixers.interface import Mixer, State, Streams, sequence_mixer
from lab.statistics import rounding_bound

LOGITS = ("max", "mean", "mean and size", "logsumexp")


class Regions(NamedTuple):
    """Tokens seen one by one [token, token], which tokens each region holds [region, token], who sees it [token, region], and
    whose mean query makes the law inside it [region, token]."""

    direct: Tensor
    members: Tensor
    visible: Tensor
    asking: Tensor

    def multiplicity(self) -> Tensor:
        """How often each token is covered for each query [token, token]; the causal mask where it is a partition."""
        return self.direct.long() + self.visible.long() @ self.members.long()

    def pairs(self) -> int:
        """Scores computed: direct tokens and regions of every query (and not those inside regions)."""
        return int(self.direct.sum() + self.visible.sum())

    def inside(self) -> int:
        """Scores computed inside regions, once for all queries."""
        return int(self.members.sum())


def segments(length: int, size: int, shift: int = 0) -> Regions:
    """Regions are the whole segments of ``size`` tokens before the own one, whose tokens up to i are seen one by one.

    ``shift`` moves the tokens of every region on, so that the last one reaches into the future (for comparison).

    Raises:
        LabError: segments of less than one token.
    """
    if size < 1:
        raise LabError(f"size = {size} of a segment must be at least 1 token; please raise it.")
    token = torch.arange(length)
    segment, region = token // size, torch.arange(max(0, (length - 1) // size))
    direct = (segment == segment.unsqueeze(1)) & (token <= token.unsqueeze(1))
    members = segment.roll(shift) == region.unsqueeze(1)
    return Regions(direct, members, region < segment.unsqueeze(1), members)


def powers(length: int) -> Regions:
    """The past 0 .. i - 1 is cut from the right by the binary digits of i: i = 13 into [12, 13), [8, 12), [0, 8).

    A token sees itself directly. The regions are the aligned blocks of powers of two that somebody sees.
    """
    blocks = sorted({block for token in range(length) for block in binary_blocks(token)})
    position = {block: index for index, block in enumerate(blocks)}
    members = torch.zeros(len(blocks), length, dtype=torch.bool)
    visible = torch.zeros(length, len(blocks), dtype=torch.bool)
    for (start, end), index in position.items():
        members[index, start:end] = True
    for token in range(length):
        visible[token, [position[block] for block in binary_blocks(token)]] = True
    return Regions(torch.eye(length, dtype=torch.bool), members, visible, members)


def row_major(length: int, columns: int) -> Regions:
    """The axial variant in row-major order, where tokens fill rows of ``columns`` one by one.

    The own row is seen token by token. Each row before is a region, whose law is that of one query: of the token that stands in
    the row in the own column. So there is a region for each token of a row that has rows below it.

    Raises:
        LabError: rows of less than one token.
    """
    row, column = _grid(length, columns)
    queries = torch.arange(int(row[-1]) * columns)
    own_row = row == row.unsqueeze(1)
    visible = (row.unsqueeze(1) > row[queries]) & (column.unsqueeze(1) == column[queries])
    direct = own_row & (column <= column.unsqueeze(1))
    return _seen(Regions(direct, own_row[queries], visible, torch.eye(length, dtype=torch.bool)[queries]))


def axial_mixture(length: int, columns: int) -> Regions:
    """The axial variant that mixes summaries of columns and of rows, where tokens fill rows of ``columns`` one by one.

    The own row up to the token and the own column above it are seen token by token. Regions are every other column above the
    own row, and of each row above the part to the left and the part to the right of the own column. So a token of the past that
    stands neither in the own row nor in the own column is covered twice: once by its column and once by its row.

    Raises:
        LabError: rows of less than one token.
    """
    row, column = _grid(length, columns)
    last = int(row[-1])
    line = torch.arange(last).repeat_interleave(columns).unsqueeze(1)  # regions by row and column
    place = torch.arange(columns).repeat(last).unsqueeze(1)
    members = torch.cat(
        (
            (row <= line) & (column == place),  # columns above the row that follows
            (row == line) & (column < place),
            (row == line) & (column > place),
        )
    )
    of_rows = (row > line) & (column == place)
    visible = torch.cat(((row == line + 1) & (column != place), of_rows, of_rows)).T
    above = (row < row.unsqueeze(1)) & (column == column.unsqueeze(1))
    direct = above | ((row == row.unsqueeze(1)) & (column <= column.unsqueeze(1)))
    return _seen(Regions(direct, members, visible, members))


def binary_blocks(token: int) -> list[tuple[int, int]]:
    """[start, end) of the blocks that cover 0 .. token - 1, the nearest and smallest first.

    >>> binary_blocks(13)
    [(12, 13), (8, 12), (0, 8)]
    """
    blocks, end = [], token
    for digit in range(token.bit_length()):
        if token >> digit & 1:
            blocks.append((end - (1 << digit), end))
            end -= 1 << digit
    return blocks


def _grid(length: int, columns: int) -> tuple[Tensor, Tensor]:
    """The row and the column of each token."""
    if length < 1 or columns < 1:
        raise LabError(f"length = {length} and columns = {columns} of a grid must be at least 1; please raise them.")
    token = torch.arange(length)
    return token // columns, token % columns


def _seen(regions: Regions) -> Regions:
    """Those that hold tokens and are seen by some."""
    kept = regions.members.any(1) & regions.visible.any(0)
    return Regions(regions.direct, regions.members[kept], regions.visible[:, kept], regions.asking[kept])


class Law(NamedTuple):
    """Weights of direct tokens [..., token, token] and of regions [..., token, region], and the law inside each region
    [..., region, token]."""

    direct: Tensor
    regions: Tensor
    inside: Tensor

    def weights(self) -> Tensor:
        """p~(j | i) [..., token, token]."""
        return self.direct + self.regions @ self.inside


def law(
    query: Float[Tensor, "*batch token size"], key: Float[Tensor, "*batch token size"], regions: Regions, logit: str
) -> Law:
    """The law that a Combiner attends with; scores are q . k / sqrt(size).

    Args:
        query, key: of the tokens.
        regions: how the past is cut.
        logit: of a region: q_i . kbar with the largest ("max", as published) or the "mean" key, coordinate by coordinate;
            "mean and size" adds log |R|; "logsumexp" sums exp(q_i . k_j) over the region, which needs all pairs.

    Raises:
        LabError: no such logit.
    """
    if logit not in LOGITS:
        raise LabError(f"There is no region logit {logit!r}; please choose among {', '.join(LOGITS)}.")
    query = query / math.sqrt(query.shape[-1])
    members = regions.members
    hidden = ~members.unsqueeze(-1)
    sizes = members.sum(-1).to(query)
    mean_query = (regions.asking.to(query) @ query) / regions.asking.sum(-1, keepdim=True).to(query)
    mean_key = (members.to(key) @ key) / sizes.unsqueeze(-1)
    inside = (mean_query @ key.mT).masked_fill(~members, -math.inf).softmax(-1)
    scores = query @ key.mT
    if logit == "logsumexp":
        spread = scores.unsqueeze(-2).masked_fill(~members, -math.inf)
        of_regions = spread.logsumexp(-1)
    elif logit == "max":
        largest = key.unsqueeze(-3).masked_fill(hidden, -math.inf).amax(-2)
        of_regions = query @ largest.mT
    else:
        of_regions = query @ mean_key.mT + (sizes.log() if logit == "mean and size" else 0.0)
    logits = torch.cat(
        (scores.masked_fill(~regions.direct, -math.inf), of_regions.masked_fill(~regions.visible, -math.inf)), dim=-1
    )
    length = query.shape[-2]
    together = logits.softmax(-1)
    return Law(together[..., :length], together[..., length:], inside)


def least_divergence(joint: Float[Tensor, "query key"], region: Tensor) -> Tensor:
    """The law inside each key's region that is nearest to p(key | query), queries uniform: its average over queries.

    Args:
        joint: p(key | query), a distribution in each row.
        region: the region of each key, the same for all queries.

    Returns:
        b [key], which sums to 1 in every region.
    """
    total = joint.sum(0)
    return total / region_sums(total, region)[region]


def divergence(joint: Float[Tensor, "query key"], inside: Float[Tensor, " key"], region: Tensor) -> float:
    """Mean over queries of KL(p(. | query) | p(region | query) b(. | region))."""
    mixture = region_sums(joint, region)[:, region] * inside
    return float((joint * (joint / mixture).log()).sum(-1).mean())


def region_sums(values: Tensor, region: Tensor) -> Tensor:
    """Sums over the keys of each region, along the last axis."""
    places = torch.nn.functional.one_hot(region).to(values)
    return values @ places


@sequence_mixer(patterns=[{"name": "causal", "length": 8}], arguments={"segment": 3}, query=3, key=3, value=2)
class Combiner(Mixer):
    """Combiner attention with segments of ``segment`` tokens, causal.

    Token by token its state holds one key and one value of each whole segment, the tokens of the own segment, and the sum
    of their queries. With the logit "logsumexp", which needs all keys, it has no such form; with "mean and size" it is
    exact where the keys of a segment are equal.
    """

    def __init__(self, segment: int, logit: str = "mean and size") -> None:
        if segment < 1:
            raise LabError(f"segment = {segment} of a Combiner must be at least 1 token; please raise it.")
        if logit not in LOGITS:
            raise LabError(f"There is no region logit {logit!r}; please choose among {', '.join(LOGITS)}.")
        self.segment, self.logit = segment, logit

    def parallel(
        self, streams: Streams, mask: Bool[Tensor, "token token"]
    ) -> Float[Tensor, "model batch head token size"]:
        """Values of regions once, then one mixture for each token.

        Raises:
            LabError: another pattern than `lab.models.masks.causal`.
        """
        require_causal(mask, "A Combiner")
        if self.logit == "logsumexp":
            weights = law(streams["query"], streams["key"], segments(len(mask), self.segment), self.logit)
            value = streams["value"]
            return weights.direct @ value + weights.regions @ (weights.inside @ value)
        length, size = len(mask), self.segment
        count = -(-length // size)
        cut = {
            name: torch.nn.functional.pad(stream, (0, 0, 0, count * size - length)).unflatten(-2, (count, size))
            for name, stream in streams.items()
        }
        query = cut["query"] / math.sqrt(cut["query"].shape[-1])
        key, value = cut["key"], cut["value"]
        inside = (query.mean(-2, keepdim=True) @ key.mT).softmax(-1) @ value  # [..., segment, 1, size]
        pooled = key.amax(-2) if self.logit == "max" else key.mean(-2)
        of_regions = (query.flatten(-3, -2) @ pooled.mT).unflatten(-2, (count, size))  # [..., segment, token, region]
        if self.logit == "mean and size":
            of_regions = of_regions + math.log(size)
        place = torch.arange(count, device=mask.device)
        later = (place >= place.unsqueeze(-1)).unsqueeze(-2)
        direct = (query @ key.mT).masked_fill(~causal(size).to(mask.device), -math.inf)
        shares = torch.cat((of_regions.masked_fill(later, -math.inf), direct), dim=-1).softmax(-1)
        from_regions = shares[..., :count].flatten(-3, -2) @ inside.squeeze(-2)
        return (from_regions + (shares[..., count:] @ value).flatten(-3, -2))[..., :length, :]

    def start(self, streams: Streams) -> State:
        """Nothing held."""
        key = streams["key"]
        none = {name: stream.new_zeros(*stream.shape[:3], 0, stream.shape[-1]) for name, stream in streams.items()}
        return {
            "region_key": none["key"],
            "region_value": none["value"],
            "query_sum": key.new_zeros(*key.shape[:3], key.shape[-1]),
            "key": none["key"],
            "value": none["value"],
        }

    def write(self, state: State, token: Streams) -> State:
        """The token joins its segment; the first of a new one closes the segment before."""
        held = dict(state)
        if held["key"].shape[-2] == self.segment:
            held = self._closed(held)
        held["query_sum"] = held["query_sum"] + token["query"]
        for name in ("key", "value"):
            held[name] = torch.cat((held[name], token[name].unsqueeze(-2)), dim=-2)
        return held

    def read(self, state: State, token: Streams) -> Float[Tensor, "model batch head size"]:
        """One softmax over the regions and the tokens of the own segment."""
        query = token["query"].unsqueeze(-2) / math.sqrt(token["query"].shape[-1])
        regions = query @ state["region_key"].mT
        if self.logit == "mean and size":
            regions = regions + math.log(self.segment)
        shares = torch.cat((regions, query @ state["key"].mT), dim=-1).softmax(-1)
        return (shares @ torch.cat((state["region_value"], state["value"]), dim=-2)).squeeze(-2)

    def state_size(self, sizes: Mapping[str, int], written: int) -> int:
        """(key + value) for each whole segment before the own one and each token of it, and one sum of queries."""
        regions = max(0, (written - 1) // self.segment)
        held = regions + written - regions * self.segment
        return held * (sizes["key"] + sizes["value"]) + sizes["query"]

    def forms(self, mask: Bool[Tensor, "token token"]) -> tuple[str, ...]:
        """Token by token under the causal pattern, but for the logit "logsumexp"."""
        return super().forms(mask) if self.logit != "logsumexp" else ("parallel",)

    def reads(self, mask: Bool[Tensor, "token token"]) -> Bool[Tensor, "token token"]:
        """All tokens up to its own."""
        return mask

    def rounding(self, streams: Streams, mask: Bool[Tensor, "token token"]) -> float:
        """Two nested softmaxes of scores no larger than S: a score is right to d roundings of S, a share to twice that
        and a sum of all tokens, an output to the shares of both levels times the largest value."""
        query, key, value = (streams[name] for name in ("query", "key", "value"))
        norms = [float(torch.linalg.vector_norm(stream, dim=-1).max()) for stream in (query, key)]
        score = norms[0] * norms[1] / math.sqrt(query.shape[-1])
        operations = query.shape[-1] + len(mask) + self.segment + 20
        return 2 * rounding_bound(operations, 4 * (1 + score) * float(value.abs().max()))

    def _closed(self, held: dict[str, Tensor]) -> dict[str, Tensor]:
        """The own segment as one more region, and an empty one in its place."""
        key, value = held["key"], held["value"]
        mean_query = held["query_sum"].unsqueeze(-2) / (self.segment * math.sqrt(key.shape[-1]))
        inside = (mean_query @ key.mT).softmax(-1) @ value
        pooled = key.amax(-2, keepdim=True) if self.logit == "max" else key.mean(-2, keepdim=True)
        return {
            "region_key": torch.cat((held["region_key"], pooled), dim=-2),
            "region_value": torch.cat((held["region_value"], inside), dim=-2),
            "query_sum": torch.zeros_like(held["query_sum"]),
            "key": key[..., :0, :],
            "value": value[..., :0, :],
        }
