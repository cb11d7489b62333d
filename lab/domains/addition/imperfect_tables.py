r"""How fast an imperfect table loses accuracy, and the whole law of the longest carry chain in closed form.

Both are first-order laws of rare events in a chain of columns, each with its next term or a bound on it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lab.domains.addition.column_addition import (
    FIRST_WINDOWS,
    SUMS,
    accuracy_law,
    avoiding,
    column_sum_law,
    exact_table,
    window_parts,
)

_SETTLED = 40  # columns after which the share lost a column changes by 10^-40 of itself


def decay_rate(table: Int[Tensor, "*tables window"]) -> Float[Tensor, "*tables"]:
    r"""$-\ln$ of the share of correct additions that one more column leaves without a wrong window, far from the first one.

    It is $-\ln \rho$ with $\rho$ the largest eigenvalue of the 20 x 20 matrix of correct windows. What a column loses
    settles like $10^{-n}$, the second eigenvalue of carries, so 40 columns give it to rounding.
    """
    law = accuracy_law(avoiding(table), _SETTLED + 1)
    return (law[..., -2] / law[..., -1]).log()


def first_order_decay(
    table: Int[Tensor, "*tables window"], sums: Float[Tensor, " sum"] | None = None
) -> Float[Tensor, "*tables"]:
    r"""$\varepsilon = \sum P(s) / 100$ over the wrong windows $(s, a, b)$ of later columns: errors met a column.

    Args:
        table: answers to all windows.
        sums: the law P of the previous sum; the stationary one if left out.
    """
    law = column_sum_law() if sums is None else sums
    wrong = (table != exact_table())[..., FIRST_WINDOWS:]
    return wrong.double() @ law[window_parts()[0][FIRST_WINDOWS:]] / 100


def second_order_share(table: Int[Tensor, "*tables window"]) -> Float[Tensor, "*tables"]:
    r"""The largest share of $\varepsilon$ that the second order of the decay rate can make up: $\eta + \frac{47}{18}\varepsilon$.

    $\eta$ is the largest share of wrong windows after one previous sum. In second order $-\ln \rho = \varepsilon - \pi E Q E 1
    + \varepsilon^2 / 2$ with E the wrong windows, $Q = \sum_k (P^k - 1 \pi)$ and $|Q_{ts}| \le \delta_{ts} +
    (1 + \frac{10}{9}) \pi_s$, because carries forget by the factor 10 a column and a carry at most doubles a sum's probability.
    """
    wrong = (table != exact_table())[..., FIRST_WINDOWS:]
    crowd = wrong.reshape(*wrong.shape[:-1], SUMS, 100).double().mean(-1).amax(-1)
    return crowd + 47 / 18 * first_order_decay(table)


def longest_chain_sum(columns: int, longest: int, base: int = 10) -> Fraction:
    r"""$P(L_n \le m) = \sum_k (-1)^k \binom{n - m k}{k} (g B^{-m})^k$, exact, for n = ``columns`` and m = ``longest``.

    A chain longer than m is a generating column and m propagating ones, a word of m + 1 columns and probability
    $\mu = g B^{-m}$ that cannot overlap itself. Inclusion and exclusion over k such words, which leave
    $n - (m + 1) k$ other columns, gives the sum (generating function $1 / (1 - z + \mu z^{m+1})$).
    """
    word = Fraction(base - 1, 2 * base) / base**longest
    return sum(
        ((-word) ** k * math.comb(columns - longest * k, k) for k in range(columns // (longest + 1) + 1)), Fraction(0)
    )


def longest_chain_poisson(
    columns: Sequence[int], longest: int, base: int = 10, corrected: bool = False
) -> Float[Tensor, "length {longest}+1"]:
    r"""$e^{-x}$, $x = n g B^{-m}$, the limit of $P(L_n \le m)$ for m = 0 .. ``longest``; with its first correction if wanted.

    In the sum of `longest_chain_sum`, $\binom{n - mk}{k} \approx \frac{n^k}{k!} (1 - \frac{m k^2 + k (k - 1) / 2}{n})$,
    which gives the factor $1 + (m x (1 - x) - x^2 / 2) / n$.
    """
    lengths, chain = np.asarray(columns, dtype=float)[:, None], np.arange(longest + 1)
    x = lengths * (base - 1) / (2 * base) * float(base) ** -chain
    factor = 1 + (chain * x * (1 - x) - x**2 / 2) / lengths if corrected else 1.0
    return torch.from_numpy(np.exp(-x) * factor)


def poisson_error_constant(base: int = 10) -> float:
    r"""$\varphi^3 e^{-\varphi^2} / \ln B$, the limit superior of the largest error of $e^{-x}$ times $n / \ln n$.

    $\varphi$ is the golden ratio: $x (x - 1) e^{-x}$ is largest at $x = \varphi^2$.
    """
    golden = (1 + math.sqrt(5)) / 2
    return golden**3 * math.exp(-(golden**2)) / math.log(base)
