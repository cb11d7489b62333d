"""A problem, a derivation and an answer as one row of tokens, and what is to be learnt of it.

Every generator of this wing writes its problems in one of two formats: *direct*, the problem and then the answer, or
*derivation*, the problem, then every step, and the answer last. A row ends with a stop token and is padded on the right to
the longest row that its sizes allow, so that the first problems never depend on how many follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor

from lab.errors import LabError

FORMATS = ("direct", "derivation")
PAD, STOP = 0, 1
NO_TARGET = -1

Rows = tuple[Int[Tensor, "batch _"], Int[Tensor, " batch"]]
"""Rows of tokens and how many of each row count."""


@dataclass(frozen=True)
class Derivations:
    """Problems written with their answers.

    Attributes:
        tokens: the rows, padded with 0 on the right.
        targets: the token that follows each position where it belongs to derivation, answer or stop; -1 elsewhere.
        loss_mask: where there is a target.
        prefix_length: tokens of the problem, its closing sign included: all that a prefix pattern may read both ways.
        lengths: tokens of the row, the stop token included.
    """

    tokens: Int[Tensor, "batch time"]
    targets: Int[Tensor, "batch time"]
    loss_mask: Bool[Tensor, "batch time"]
    prefix_length: Int[Tensor, " batch"]
    lengths: Int[Tensor, " batch"]


def write(parts: Sequence[Rows], problem: int, width: int) -> Derivations:
    """Rows joined from parts, of which the first ``problem`` are the problem; a stop token is added.

    Args:
        parts: one after the other; of each row only its own first tokens count.
        problem: how many of the parts nobody has to write.
        width: tokens of the padded rows.

    Raises:
        LabError: a derivation longer than ``width``.
    """
    stop = torch.full_like(parts[0][1], STOP).unsqueeze(1), torch.ones_like(parts[0][1])
    tokens, lengths = join([*parts, stop], width)
    prefix = torch.stack([length for _, length in parts[:problem]]).sum(0)
    place = torch.arange(width)
    scored = (place >= prefix[:, None] - 1) & (place < lengths[:, None] - 1)
    targets = torch.where(scored, tokens.roll(-1, 1), NO_TARGET)
    return Derivations(tokens, targets, scored, prefix, lengths)


def join(parts: Sequence[Rows], width: int) -> Rows:
    """Rows [batch, ``width``] that hold the parts one after the other, padded with 0.

    Raises:
        LabError: a joined row has more than ``width`` tokens.
    """
    lengths = torch.stack([length for _, length in parts])
    starts = lengths.cumsum(0) - lengths
    total = lengths.sum(0)
    check_room(int(total.max()), width)
    if all(bool((length == tokens.shape[1]).all()) for tokens, length in parts):
        row = torch.cat([tokens for tokens, _ in parts], 1)
        return F.pad(row, (0, width - row.shape[1]), value=PAD), total
    # One place behind the last takes what does not count.
    joined = torch.zeros(len(total), width + 1, dtype=torch.int64)
    for (tokens, length), start in zip(parts, starts, strict=True):
        place = torch.arange(tokens.shape[1])
        joined.scatter_(1, torch.where(place < length[:, None], start[:, None] + place, width), tokens)
    return joined[:, :width], total


def full_rows(tokens: Int[Tensor, "batch time"]) -> Rows:
    """Rows of which every token counts."""
    return tokens, torch.full((len(tokens),), tokens.shape[1])


def sign(token: int, batch: int) -> Rows:
    """The same single token in every row."""
    return full_rows(torch.full((batch, 1), token))


def check_room(needed: int, positions: int) -> None:
    """Refuse a derivation that has more tokens than there are positions."""
    if needed > positions:
        raise LabError(
            f"The derivation has {needed} tokens but there are {positions} positions; allow more of them or make the "
            "problem smaller."
        )


def check_format(format: str) -> None:
    """Refuse what is neither direct nor derivation."""
    if format not in FORMATS:
        raise LabError(f"The format {format!r} is not one of {', '.join(FORMATS)}; choose one.")


def check_sizes(**sizes: int) -> None:
    """Refuse a size below 1."""
    for name, size in sizes.items():
        if size < 1:
            raise LabError(f"{name} = {size} of a problem must be at least 1; raise it.")
