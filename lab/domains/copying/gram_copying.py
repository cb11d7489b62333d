r"""Copying by short pieces: say what followed the last g letters before (Jelassi et al. 2024).

After g letters of its answer a copier looks up where these letters stand in the string and says the letter that follows
there. It needs no position and no state: attention finds the place. It errs iff a *g-gram is followed by two different letters*
in the string, whichever of its occurrences is taken.

For uniform letters two windows, overlapping or not, agree with probability $D^{-g}$, and the letters that follow them differ
with probability $1 - 1/D$ even then (of two overlapping windows the later one's follower stands outside both). So with
$\lambda = \binom{n - g}{2} D^{-g} (1 - \frac1D)$ pairs expected,

- $P(\text{error}) \le \lambda$ (the union bound);
- $P(\text{error}) \approx 1 - e^{-\lambda}$: pairs hardly gather in clumps, since a repeat of many letters ends in one pair.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lab.errors import LabError


def expected_pairs(letters: int, length: int, gram: int) -> float:
    r"""$\lambda = \binom{n - g}{2} D^{-g} (1 - 1/D)$: places that agree in g letters and go on differently.

    Raises:
        LabError: a gram that is not shorter than the string, or a size below 1.

    >>> expected_pairs(2, 4, 2)
    0.125
    """
    _check(length, gram)
    if letters < 1:
        raise LabError(f"letters = {letters} must be at least 1; please raise it.")
    return math.comb(length - gram, 2) * letters**-gram * (1 - 1 / letters)


def union_bound(letters: int, length: int, gram: int) -> float:
    r"""$\min(1, \lambda)$, never below the chance of an error."""
    return min(1.0, expected_pairs(letters, length, gram))


def poisson_error(letters: int, length: int, gram: int) -> float:
    r"""$1 - e^{-\lambda}$: the chance of an error if pairs were independent."""
    return -math.expm1(-expected_pairs(letters, length, gram))


def copy_by_grams(strings: Int[Tensor, "batch length"], gram: int, which: str = "last") -> Int[Tensor, "batch length"]:
    """What the copier says; its first ``gram`` letters are given, and it reads its own answer from then on.

    Args:
        strings: letters, as any integers.
        gram: g, at least 1 and below the length.
        which: "first" or "last" occurrence in the string.

    Raises:
        LabError: a gram outside its range, or another occurrence.
    """
    batch, length = strings.shape
    _check(length, gram)
    if which not in ("first", "last"):
        raise LabError(f"which = {which!r} must be 'first' or 'last'; please change it.")
    windows = strings[:, :-1].unfold(1, gram, 1)  # [batch, place, gram], each with a letter after it
    places = torch.arange(1, windows.shape[1] + 1)
    order = places if which == "last" else places.flip(0)
    answer = strings.clone()
    rows = torch.arange(batch)
    for step in range(gram, length):
        matches = (windows == answer[:, None, step - gram : step]).all(-1)
        # A gram that an error has made need not stand anywhere: the copier then says the letter after the first window.
        place = (matches * order).argmax(1)
        answer[:, step] = strings[rows, place + gram]
    return answer


def ambiguous(strings: Int[Tensor, "batch length"], gram: int) -> Bool[Tensor, " batch"]:
    """Whether some g-gram of a string is followed by two different letters, by sorting the grams of each string.

    Raises:
        LabError: a gram outside its range, a negative letter, or grams that no 64-bit number can name.
    """
    _check(strings.shape[1], gram)
    base = int(strings.max()) + 1
    if int(strings.min()) < 0 or base ** (gram + 1) >= 2**63:
        raise LabError(
            f"Letters from {int(strings.min())} to {base - 1} in grams of {gram} must be at least 0 and have fewer than 2^63 "
            "grams; number the letters from 0, or shorten the gram."
        )
    place = torch.tensor([base ** (gram - offset) for offset in range(gram + 1)])
    longer = (strings.unfold(1, gram + 1, 1) * place).sum(-1).sort(1).values  # a gram, then its follower
    same, other = longer[:, 1:] // base == longer[:, :-1] // base, longer[:, 1:] != longer[:, :-1]
    return (same & other).any(1)


def _check(length: int, gram: int) -> None:
    if not 1 <= gram < length:
        raise LabError(f"gram = {gram} must be at least 1 and below length = {length}; please change one of them.")
