r"""How much of a string a memory of bounded size can give back (Jelassi et al. 2024).

A model that answers from a state alone, one of $|S|$ states, says at most $|S|$ different things. So it copies at most
$|S|$ of the $D^n$ strings, whatever its weights are: of uniform strings a share $\min(1, |S| / D^n)$. A state of b bits
meets a string of $n \log_2 D$ bits.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from lab.errors import LabError


def best_copy_rate(state_bits: float, letters: int, length: int) -> float:
    r"""$\min(1, 2^{b - n \log_2 D})$: the largest share of strings that a state of ``state_bits`` bits can give back.

    Args:
        state_bits: $b = \log_2 |S|$.
        letters: D.
        length: n.

    Raises:
        LabError: fewer than 0 bits, or a size below 1.

    >>> best_copy_rate(2, letters=2, length=6)
    0.0625
    """
    if state_bits < 0 or letters < 1 or length < 1:
        raise LabError(
            f"state_bits = {state_bits}, letters = {letters} and length = {length} must be at least 0, 1 and 1; "
            "please raise them."
        )
    return float(2.0 ** min(0.0, state_bits - string_bits(letters, length)))


def string_bits(letters: int, length: int) -> float:
    r"""$n \log_2 D$."""
    return length * math.log2(letters)


def best_by_search(states: int, letters: int, length: int) -> int:
    """The largest number of strings that any way to write a state and any way to read it give back, tried one by one.

    Raises:
        LabError: more than a million pairs of a writer and a reader.

    >>> best_by_search(2, letters=2, length=2)
    2
    """
    strings = letters**length
    pairs = states**strings * strings**states
    if pairs > 1_000_000:
        raise LabError(f"There are {pairs} pairs of a writer and a reader, more than a million; take smaller sizes.")
    return max(
        sum(reader[state] == string for string, state in enumerate(writer))
        for writer in itertools.product(range(states), repeat=strings)
        for reader in itertools.product(range(strings), repeat=states)
    )


def given_back(states: Int[Tensor, " strings"]) -> float:
    """The share of strings that the best reader gives back, one string for each state that occurs.

    Args:
        states: the state that each string leaves, all strings once.
    """
    return len(states.unique()) / len(states)


def float_bits(numbers: int, dtype: torch.dtype = torch.float32) -> int:
    """Bits of a state of so many floating-point numbers: what a bound that holds for every weight must count."""
    return numbers * torch.finfo(dtype).bits


def longest_copied(state_bits: float, letters: int, rate: float = 0.5) -> int:
    r"""The longest strings of which a share of ``rate`` can be given back: the largest n with $2^b \ge \mathrm{rate}\, D^n$.

    Raises:
        LabError: a single letter (whose strings say nothing), or a rate outside (0, 1].

    >>> longest_copied(8, letters=4, rate=1.0)
    4
    """
    if letters < 2 or not 0 < rate <= 1:
        raise LabError(f"letters = {letters} must be at least 2 and rate = {rate} in (0, 1]; please change them.")
    return math.floor((state_bits - math.log2(rate)) / math.log2(letters) + 1e-12)


def shares(bits: Sequence[float], letters: int, length: int) -> list[float]:
    """`best_copy_rate` for several sizes of the state."""
    return [best_copy_rate(state_bits, letters, length) for state_bits in bits]
