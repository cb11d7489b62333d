"""Arithmetic modulo a prime."""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Int
from torch import Tensor

from lab.errors import LabError

LARGEST = 46_337
"""The largest prime whose products, and sums of many of them, lie far inside 64-bit integers."""


def check_prime(modulus: int) -> None:
    """Refuse a modulus without a field: every number but 0 must have an inverse.

    Raises:
        LabError: a modulus that is not a prime up to ``LARGEST``.
    """
    if 2 <= modulus <= LARGEST:
        divisor = next((d for d in range(2, int(modulus**0.5) + 1) if modulus % d == 0), None)
        if divisor is None:
            return
        raise LabError(
            f"The modulus {modulus} = {divisor} * {modulus // divisor} is not prime, so {divisor} has no inverse; choose a "
            "prime such as 11."
        )
    raise LabError(f"The modulus {modulus} must be a prime between 2 and {LARGEST}; choose one such as 11.")


@lru_cache
def inverses(modulus: int) -> Int[Tensor, "{modulus}"]:
    r"""$a^{-1} = a^{p-2} \bmod p$ for a = 0 .. p - 1, with 0 in the place of 0, which has none.

    >>> inverses(5).tolist()
    [0, 1, 3, 2, 4]

    Raises:
        LabError: a modulus that is not prime.
    """
    check_prime(modulus)
    return torch.tensor([pow(number, modulus - 2, modulus) if number else 0 for number in range(modulus)])


def divide(numerator: int, denominator: int, modulus: int) -> int:
    """a / b in the field.

    Raises:
        LabError: a modulus that is not prime, or a division by zero.
    """
    check_prime(modulus)
    if denominator % modulus == 0:
        raise LabError(f"{numerator} / {denominator} modulo {modulus} divides by zero; leave out expressions that do.")
    return numerator * pow(denominator, -1, modulus) % modulus
