r"""How much a memory of D key dimensions returns of what was written into it: laws over random keys.

Keys are isotropic unit vectors (or normal where said), values independent of mean 0 and variance 1 a coordinate. All are
exact at every size; `enumerated_*` compute the same expectations over finite sets of keys that have the sphere's moments,
and share no formula with the laws.
"""

from __future__ import annotations

import itertools

import numpy as np
from jaxtyping import Float

from lab.errors import LabError


def additive_error(items: int, size: int) -> float:
    """(n - 1) / D: mean square error a coordinate of a sum of n outer products, read at a key that it holds.

    More keys than dimensions are no error: the law says what comes back.

    >>> additive_error(33, 32)
    1.0
    """
    _at_least(1, items=items, size=size)
    return (items - 1) / size


def delta_error(items: int, size: int) -> float:
    r"""Mean square error of one pass of the delta rule (rate 1), averaged over the items it was shown.

    For an item written at step j, A is its mean square error and B the mean of error times value: with
    $s_t = s_{t-1} (1 - 1/d) + 1$, $s_0 = 0$, from A = B = 0 each later step changes
    $A \mathrel{+}= -\frac{2 (A + B)}{d} + \frac{s_t + 2 (A + 2 B + 1)}{d (d + 2)} + \frac1d$ and
    $B \mathrel{-}= (B + 1) / d$. It tends to 2 for what is forgotten and is below `additive_error` from two items on.
    """
    _at_least(1, items=items, size=size)
    d, held, errors = size, 0.0, []
    sizes = []
    for _ in range(items):
        held = held * (1 - 1 / d) + 1
        sizes.append(held)
    for first in range(items):
        error, product = 0.0, 0.0
        for step in range(first, items - 1):
            error += -2 * (error + product) / d + (sizes[step] + 2 * (error + 2 * product + 1)) / (d * (d + 2)) + 1 / d
            product -= (product + 1) / d
        errors.append(error)
    return float(np.mean(errors))


def online_error(steps: int, size: int, rate: float = 1.0, *, normal: bool = False) -> float:
    r"""$E \|S_t - W\|^2 / \|W\|^2$ of the delta rule on noiseless linear regression after so many examples.

    $(1 - (2 b - b^2) / d)^t$ for unit keys, $(1 - 2 b + b^2 (d + 2))^t$ for standard normal ones: the best rates are 1 and
    $1 / (d + 2)$, and it diverges beyond twice them.
    """
    _at_least(0, steps=steps)
    _at_least(1, size=size)
    factor = 1 - 2 * rate + rate**2 * (size + 2) if normal else 1 - (2 * rate - rate**2) / size
    return float(factor**steps)


def batch_error(examples: int, size: int, rate: float) -> float:
    r"""$E \|W (I - c \sum_j k_j k_j^\top)\|^2 / \|W\|^2$ of one batch step of size c on n standard normal keys.

    $1 - 2 c n + c^2 n (n + d + 1)$: $(d + 1) / n$ at $c = 1/n$ and least, $(d + 1) / (n + d + 1)$, at $c = 1 / (n + d + 1)$.
    """
    _at_least(0, examples=examples)
    _at_least(1, size=size)
    return 1 - 2 * rate * examples + rate**2 * examples * (examples + size + 1)


def best_batch_rate(examples: int, size: int) -> float:
    """c = 1 / (n + d + 1), at which `batch_error` is least."""
    return 1 / (examples + size + 1)


def axis_keys(size: int) -> tuple[Float[np.ndarray, "key size"], Float[np.ndarray, " key"]]:
    """The D unit vectors, equally likely: isotropic up to second moments. Keys and their probabilities."""
    return np.eye(size), np.full(size, 1 / size)


def circle_keys(count: int = 12) -> tuple[Float[np.ndarray, "key 2"], Float[np.ndarray, " key"]]:
    """Equally spaced directions of the plane: all moments of the circle up to degree count - 1."""
    angles = 2 * np.pi * np.arange(count) / count
    return np.stack([np.cos(angles), np.sin(angles)], axis=1), np.full(count, 1 / count)


def normal_keys(size: int, nodes: int = 3) -> tuple[Float[np.ndarray, "key size"], Float[np.ndarray, " key"]]:
    """Gauss-Hermite nodes and weights: all moments of the normal law up to degree 2 nodes - 1 in each coordinate."""
    places, weights = np.polynomial.hermite_e.hermegauss(nodes)
    grid = np.array(list(itertools.product(places, repeat=size)))
    return grid, np.array([np.prod(factors) for factors in itertools.product(weights / weights.sum(), repeat=size)])


def enumerated_recall(
    keys: Float[np.ndarray, "key size"], weights: Float[np.ndarray, " key"], items: int, *, delta: bool
) -> float:
    """Mean square error at the stored keys over all sequences of keys, the values integrated out.

    The memory is linear in the values, v_i being their i-th: it is the matrix whose row i multiplies v_i, so that the
    error at key j has the coefficients S^T k_j - e_j and their squares sum to its mean square.

    Args:
        keys: possible keys.
        weights: their probabilities.
        items: how many are written.
        delta: by the delta rule at rate 1, else added up.
    """
    size, total = keys.shape[1], 0.0
    for places in itertools.product(range(len(keys)), repeat=items):
        memory = np.zeros((items, size))
        for item, place in enumerate(places):
            unit = np.zeros(items)
            unit[item] = 1.0
            wrong = unit - memory @ keys[place] if delta else unit
            memory = memory + np.outer(wrong, keys[place])
        errors = memory @ keys[list(places)].T - np.eye(items)
        total += np.prod(weights[list(places)]) * np.square(errors).sum(0).mean()
    return float(total)


def enumerated_descent(
    keys: Float[np.ndarray, "key size"], weights: Float[np.ndarray, " key"], steps: int, rate: float, *, batch: bool
) -> float:
    """E |W_t - W|^2 / |W|^2, averaged over directions of W, over all sequences of keys; online, or one batch step."""
    size, total = keys.shape[1], 0.0
    for places in itertools.product(range(len(keys)), repeat=steps):
        left = np.eye(size)
        if batch:
            left = left - rate * keys[list(places)].T @ keys[list(places)]
        else:
            for place in places:
                left = left - rate * np.outer(left @ keys[place], keys[place])
        total += np.prod(weights[list(places)]) * np.square(left).sum() / size
    return float(total)


def _at_least(limit: int, **sizes: int) -> None:
    for name, size in sizes.items():
        if size < limit:
            raise LabError(f"{name} = {size} of a memory must be at least {limit}; please raise it.")
