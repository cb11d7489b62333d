r"""The longest increasing subsequence, with its dynamic programme as derivation.

    x_0 .. x_{n-1} | d_0 .. d_{n-1} | max d S        d_i = 1 + max{d_j : j < i, x_j < x_i}   (0 of nothing)

d_i is the length of the longest strictly increasing subsequence that ends at i. Numbers are single tokens; those of the
sequence are above n, so that they never look like a length. A problem is n + 1 tokens, a direct row n + 3, a derivation 2 n + 4.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from lab import contracts
from lab.domains.derivations.sequences import Derivations, check_format, check_sizes, full_rows, sign, write
from lab.errors import LabError
from lab.streams import RandomStream

END, ZERO = 2, 3
MOST_RUNS = 3


def vocabulary_size(numbers: int) -> int:
    """Pad, stop, the sign | and the numbers 0 .. ``numbers`` - 1."""
    return ZERO + numbers


def row_length(length: int, format: str) -> int:
    """Tokens of a row, the stop token included.

    >>> [row_length(n, "derivation") for n in (50, 80, 100)]
    [104, 164, 204]
    """
    check_format(format)
    return length + 3 if format == "direct" else 2 * length + 4


def increasing_lengths(values: Int[Tensor, "batch item"], strict: bool = True) -> Int[Tensor, "batch item"]:
    """d_i of every sequence; not ``strict``: of non-decreasing subsequences."""
    # Items first: a maximum over items then runs along the batch; half as many bytes to move.
    across = values.T.int().contiguous()
    lengths = torch.zeros_like(across)
    for item in range(len(across)):
        before, now = across[:item], across[item]
        allowed = before < now if strict else before <= now
        best = (lengths[:item] * allowed).amax(0) if item else lengths[0]
        lengths[item] = 1 + best
    return lengths.T.long()


def patience(values: Sequence[int]) -> list[int]:
    """d_i by patience sorting, in n log n comparisons: the pile on which card i comes to lie, plus 1 (Schensted 1961).

    >>> patience([5, 2, 3, 9, 4])
    [1, 1, 2, 3, 3]
    """
    tops: list[int] = []
    lengths = []
    for value in values:
        pile = bisect_left(tops, value)
        tops[pile : pile + 1] = [value]
        lengths.append(pile + 1)
    return lengths


def planted_sequences(stream: RandomStream, batch: int, length: int, numbers: int) -> Int[Tensor, "batch item"]:
    """Uniform values with 1 to 3 increasing runs planted in random places.

    Together the runs have a uniform number 3 .. n of places (fewer where n < 3); cuts between them are uniform.

    Args:
        stream: randomness; fields "values", "places" and "runs".
        batch: number of sequences.
        length: n.
        numbers: values are uniform on n + 1 .. ``numbers`` - 1.

    Raises:
        LabError: no item, or no number above n.
    """
    check_sizes(length=length)
    if numbers <= length + 1:
        raise LabError(
            f"Sequences of {length} items need values above {length} but there are the numbers 0 to {numbers - 1}; name at "
            f"least {length + 2} numbers."
        )
    values = torch.from_numpy(stream.child("values").rng().integers(length + 1, numbers, (batch, length)))
    order = torch.from_numpy(stream.child("places").rng().random((batch, length))).argsort(1).argsort(1)
    drawn = torch.from_numpy(stream.child("runs").rng().random((batch, 2 + MOST_RUNS - 1)))
    least = min(3, length)
    total = least + (drawn[:, 0] * (length - least + 1)).long()
    runs = 1 + (drawn[:, 1] * MOST_RUNS).long()
    planted = order < total[:, None]
    rank = planted.cumsum(1) - 1
    cuts = (drawn[:, 2:] * total[:, None]).long()
    used = torch.arange(MOST_RUNS - 1) < (runs - 1)[:, None]
    run = ((rank[:, :, None] >= cuts[:, None]) & used[:, None]).sum(2)
    # Places that are not planted form groups of their own, in the order of their places.
    group = torch.where(planted, run, MOST_RUNS + torch.arange(length))
    keyed = (group * numbers + values).sort(1).values
    places = (group * length + torch.arange(length)).argsort(1)
    return torch.empty_like(values).scatter_(1, places, keyed % numbers)


@contracts.generator(length=6, numbers=20)
def increasing_subsequence(
    stream: RandomStream, batch: int, *, length: int, numbers: int = 250, format: str = "derivation"
) -> Derivations:
    """Sequences with the length of their longest strictly increasing subsequence, or all d_i before it.

    Args:
        stream: randomness; fields "values", "places" and "runs".
        batch: number of sequences.
        length: n.
        numbers: how many numbers there are tokens for.
        format: "direct" or "derivation".

    Raises:
        LabError: no item, no number above n, or an unknown format.
    """
    check_format(format)
    return write_sequences(planted_sequences(stream, batch, length, numbers), format)


def write_sequences(values: Int[Tensor, "batch item"], format: str, strict: bool = True) -> Derivations:
    """Given sequences with their answers; not ``strict``: those of non-decreasing subsequences."""
    end, lengths = sign(END, len(values)), increasing_lengths(values, strict)
    parts = [full_rows(ZERO + values), end]
    if format == "derivation":
        parts += [full_rows(ZERO + lengths), end]
    parts.append(full_rows(ZERO + lengths.amax(1, keepdim=True)))
    return write(parts, 2, row_length(values.shape[1], format))


def first_wrong_step(tokens: Sequence[int], length: int) -> int | None:
    """The first i whose d_i is not that of `patience`, n for a wrong maximum; None if all are right."""
    row = [int(token) - ZERO for token in tokens]
    wanted = patience(row[:length])
    shown = row[length + 1 : 2 * length + 1]
    wrong = next((i for i, (a, b) in enumerate(zip(shown, wanted, strict=True)) if a != b), None)
    if wrong is not None:
        return wrong
    return None if row[2 * length + 2] == max(wanted) else length
