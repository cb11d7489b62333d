r"""Two gradient steps under a causal mask, and their best step, exactly.

Under a causal mask the second layer meets the residuals $y_j - s \sum_{i \le j} y_i\, x_i \cdot x_j$, so that two tied layers predict with
$2 s A w - s^2 B w$, $B = \sum_{i \le j} x_j x_j^\top x_i x_i^\top$, where two true steps have $A^2$ in the place of B. Without noise the
expected error is $v\,E\lVert I - 2 s A + s^2 B\rVert_F^2$, that is v times
$$d - 4 s\,E\,\mathrm{tr}A + s^2 (4\,E\,\mathrm{tr}A^2 + 2\,E\,\mathrm{tr}B) - 4 s^3\,E\,\mathrm{tr}AB + s^4\,E\,\mathrm{tr}B^\top B .$$
Each of these is a sum of $\mathrm{tr}\,x_{i_1} x_{i_1}^\top \cdots x_{i_k} x_{i_k}^\top$ over examples in a partial order.
`ordered_moment` counts it as `lab.domains.regression.optimal_steps.gram_moments` counts $E\,\mathrm{tr}A^k$: over pairs of
partitions, of examples and of coordinates; only the number of ways to choose examples for p blocks, $n \cdots (n-p+1)$
without an order, is $\binom np$ times the orders of blocks that are allowed.

For normal inputs of variance 1: $E\,\mathrm{tr}B = \tfrac12 n d (2 d + n + 3)$,
$E\,\mathrm{tr}AB = \tfrac12 n d (2 d^2 + 4 n d + 8 d + n^2 + 5 n + 10)$ and
$E\,\mathrm{tr}B^\top B = \tfrac14 n d (4 d^3 + 14 d^2 n + 34 d^2 + 8 d n^2 + 48 d n + 120 d + n^3 + 10 n^2 + 51 n + 130)$. As n grows,
$n s^* \to 2 - \sqrt2$, the zero of the Laguerre polynomial $L_2$.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from lab.domains.regression.optimal_steps import gram_moments
from lab.errors import LabError

LARGEST_WORD = 5
Order = tuple[tuple[int, int], ...]
# Places (earlier, later) in the words of tr B, tr AB and tr B'B: the first index of a pair is at most the second.
IN_B: Order = ((1, 0),)
IN_AB: Order = ((2, 1),)
IN_BB: Order = ((0, 1), (3, 2))


def ordered_moment(
    factors: int, order: Order, context_length: int, dimension: int, even_moments: tuple[float, ...]
) -> float:
    r"""$E \sum \mathrm{tr}\, x_{i_1} x_{i_1}^\top \cdots x_{i_k} x_{i_k}^\top$ over examples with $i_a \le i_b$ for (a, b) of ``order``.

    Args:
        factors: k, at most `LARGEST_WORD`.
        order: pairs (a, b) of places, from 0.
        context_length, dimension, even_moments: as in `lab.domains.regression.optimal_steps.gram_moments`.

    Raises:
        LabError: more factors than can be counted in a second, or a place that is not among them.

    >>> normal = (1.0, 1.0, 3.0, 15.0, 105.0)
    >>> ordered_moment(2, ((1, 0),), 3, 2, normal)  # n d (2 d + n + 3) / 2
    30.0
    """
    if not 1 <= factors <= LARGEST_WORD:
        raise LabError(f"A trace of {factors} factors cannot be counted; it must have between 1 and {LARGEST_WORD}.")
    if any(not 0 <= place < factors for pair in order for place in pair):
        raise LabError(f"The order {order} names a place outside of the {factors} factors; use 0 to {factors - 1}.")
    if min(context_length, dimension) < 1:
        raise LabError(
            f"context_length is {context_length} and dimension {dimension}; both must be at least 1, raise them."
        )
    table = _table(factors, order, tuple(even_moments[: factors + 1]))
    examples = np.array([math.comb(context_length, blocks) for blocks in range(1, factors + 1)], dtype=float)
    coordinates = np.array([math.perm(dimension, blocks) for blocks in range(1, factors + 1)], dtype=float)
    return float(examples @ table @ coordinates)


@functools.cache
def _table(factors: int, order: Order, even_moments: tuple[float, ...]) -> Float[np.ndarray, "factors factors"]:
    """Orders of the blocks of examples times products of moments, summed by numbers of blocks, at [p - 1, q - 1]."""
    table = np.zeros((factors, factors))
    for examples in _partitions(factors):
        blocks = max(examples) + 1
        allowed = sum(
            all(rank[examples[a]] <= rank[examples[b]] for a, b in order)
            for rank in itertools.permutations(range(blocks))
        )
        if not allowed:
            continue
        for coordinates in _partitions(factors):
            times: dict[tuple[int, int], int] = {}
            for place, example in enumerate(examples):
                # x_i x_i' between two scalar products has one coordinate of each.
                for coordinate in (coordinates[place], coordinates[(place + 1) % factors]):
                    times[example, coordinate] = times.get((example, coordinate), 0) + 1
            if all(count % 2 == 0 for count in times.values()):
                product = math.prod(even_moments[count // 2] for count in times.values())
                table[blocks - 1, max(coordinates)] += allowed * product
    return table


@functools.cache
def _partitions(size: int) -> tuple[tuple[int, ...], ...]:
    """All partitions of ``size`` things as rows of block numbers, each new block numbered by its first thing."""
    rows: list[tuple[int, ...]] = [(0,)]
    for _ in range(size - 1):
        rows = [(*row, block) for row in rows for block in range(max(row) + 2)]
    return tuple(rows)


def causal_two_step_polynomial(
    context_length: int, dimension: int, even_moments: tuple[float, ...]
) -> Float[np.ndarray, " coefficient"]:
    r"""Coefficients of $E\lVert I - 2 s A + s^2 B\rVert_F^2$ in s, lowest power first.

    Args:
        context_length, dimension, even_moments: as in `lab.domains.regression.optimal_steps.gram_moments`.
    """
    law = context_length, dimension, even_moments
    _, first, second = gram_moments(2, *law)
    single, mixed, double = (
        ordered_moment(factors, order, *law) for factors, order in ((2, IN_B), (3, IN_AB), (4, IN_BB))
    )
    return np.array([dimension, -4 * first, 4 * second + 2 * single, -4 * mixed, double])


def causal_two_step_error(step: float, context_length: int, dimension: int, even_moments: tuple[float, ...]) -> float:
    r"""Expected query error of two layers that each take the step s under a causal mask, without noise.

    Args:
        step: s, on the sum over the examples that are seen.
        context_length, dimension, even_moments: the law of the inputs.
    """
    coefficients = causal_two_step_polynomial(context_length, dimension, even_moments)
    return float(even_moments[1] * np.polynomial.polynomial.polyval(step, coefficients))


def optimal_causal_steps(context_length: int, dimension: int, even_moments: tuple[float, ...]) -> tuple[float, float]:
    r"""The step that is best for two causal layers, and the error it leaves: a root of a cubic.

    Args:
        context_length, dimension, even_moments: the law of the inputs.

    >>> from lab.domains.regression.optimal_steps import uniform_moments
    >>> step, error = optimal_causal_steps(10, 10, uniform_moments(0.5))
    >>> round(step, 3), round(error / 2, 4)
    (0.787, 0.1637)
    """
    slope = np.polynomial.polynomial.polyder(causal_two_step_polynomial(context_length, dimension, even_moments))
    roots = np.polynomial.polynomial.polyroots(slope)
    real: Sequence[float] = roots[np.abs(roots.imag) < 1e-9 * np.abs(roots)].real.tolist()
    errors = [causal_two_step_error(root, context_length, dimension, even_moments) for root in real]
    return min(zip(real, errors, strict=True), key=lambda pair: pair[1])
