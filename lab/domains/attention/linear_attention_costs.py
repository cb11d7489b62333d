"""Multiply-adds and kept numbers of linear and softmax attention as exact functions of their sizes.

One head; N tokens, D features of keys and queries, M coordinates of values; the sum of the weights is one coordinate more.
Only products of matrices count: feature maps, exponentials and divisions are linear in N for both.
"""

from __future__ import annotations

from lab.errors import LabError


def softmax_multiply_adds(length: int, key: int, value: int) -> int:
    """N (N + 1) / 2 (D + M): token i compares itself with i keys and adds up i values.

    >>> softmax_multiply_adds(2, 3, 4)
    21
    """
    _sizes(length=length, key=key, value=value)
    return length * (length + 1) // 2 * (key + value)


def recurrent_multiply_adds(length: int, key: int, value: int) -> int:
    """2 N D (M + 1): each token is written into the D x (M + 1) state, and reads it.

    >>> recurrent_multiply_adds(2, 3, 4)
    60
    """
    _sizes(length=length, key=key, value=value)
    return 2 * length * key * (value + 1)


def crossover(key: int, value: int) -> float:
    """4 D (M + 1) / (D + M) - 1: the length at which both cost the same; beyond it the recurrence costs less.

    >>> crossover(32, 32)
    65.0
    """
    _sizes(key=key, value=value)
    return 4 * key * (value + 1) / (key + value) - 1


def kept_by_recomputation(length: int, key: int, value: int) -> int:
    """N (2D + M): inputs alone, where the way back makes the states again."""
    _sizes(length=length, key=key, value=value)
    return length * (2 * key + value)


def _sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise LabError(f"The {name} size is {size} but must be at least 1; please raise it.")
