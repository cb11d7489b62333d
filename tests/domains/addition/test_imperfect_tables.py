"""Decay rates of imperfect tables and the law of the longest chain, against matrices and enumeration."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from lab.domains.addition.column_addition import (
    FIRST_WINDOWS,
    SUMS,
    WINDOWS,
    exact_table,
    longest_chain,
    longest_chain_law,
    window_parts,
)
from lab.domains.addition.imperfect_tables import (
    decay_rate,
    first_order_decay,
    longest_chain_poisson,
    longest_chain_sum,
    poisson_error_constant,
    second_order_share,
)


def with_wrong(count: int, seed: int) -> torch.Tensor:
    table = exact_table()
    chosen = np.random.default_rng(seed).choice(WINDOWS - FIRST_WINDOWS, count, replace=False)
    table[FIRST_WINDOWS + torch.from_numpy(chosen)] = -1
    return table


def largest_eigenvalue(table: torch.Tensor) -> float:
    exact, matrix = exact_table(), np.zeros((SUMS, SUMS))
    previous, _, _ = window_parts()
    for window in range(FIRST_WINDOWS, WINDOWS):
        if table[window] == exact[window]:
            matrix[previous[window], exact[window]] += 0.01
    return float(np.abs(np.linalg.eigvals(matrix)).max())


@pytest.mark.parametrize("count", [1, 20, 200])
def test_decay_rate_is_the_eigenvalue(count: int) -> None:
    table = with_wrong(count, count)
    assert float(decay_rate(table)) == pytest.approx(-math.log(largest_eigenvalue(table)), abs=1e-12)


def test_first_order_is_the_chance_to_meet_a_wrong_window() -> None:
    table = exact_table()
    table[window_parts()[0] == 19] = -1
    assert float(first_order_decay(table)) == pytest.approx(0.005, abs=1e-15)
    assert float(first_order_decay(exact_table())) == 0
    tables = torch.stack([with_wrong(20, seed) for seed in range(3)])
    ratio = decay_rate(tables) / first_order_decay(tables) - 1
    assert (ratio.abs() <= second_order_share(tables)).all()


@pytest.mark.parametrize(("base", "columns"), [(2, 5), (3, 4), (10, 2)])
def test_sum_is_the_enumerated_law(base: int, columns: int) -> None:
    digits = torch.cartesian_prod(*[torch.arange(base)] * (2 * columns))
    chain = longest_chain(digits[:, :columns], digits[:, columns:], base)
    for longest in range(columns + 1):
        right = Fraction(int((chain <= longest).sum()), len(chain))
        assert longest_chain_sum(columns, longest, base) == right


def test_second_term_of_the_poisson_law() -> None:
    columns = [1_000, 100_000]
    exact = longest_chain_law(columns, 9)
    plain, better = (longest_chain_poisson(columns, 9, corrected=corrected) for corrected in (False, True))
    assert ((exact - better).abs().amax(1) < 0.02 * (exact - plain).abs().amax(1)).all()


def test_constant_is_the_largest_of_the_second_term() -> None:
    x = np.linspace(0, 20, 200_001)
    assert poisson_error_constant() == pytest.approx(np.abs(x * (1 - x) * np.exp(-x)).max() / math.log(10), rel=1e-8)
