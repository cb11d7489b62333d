from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lab import statistics
from lab.streams import stream


def test_interval_covers_at_the_stated_rate() -> None:
    # At a share of 0.05 a side the mean lies outside in about 10 % of 4000 sets; judged at the project's own budget.
    samples = stream(0, "coverage").rng().normal(size=(4000, 6))
    half = stats.t.isf(0.05, 5) * samples.std(1, ddof=1) / np.sqrt(6)
    outside = int((np.abs(samples.mean(1)) > half).sum())
    low, high = statistics.proportion_interval(outside, 4000)
    assert low < 0.1 < high


def test_interval_matches_scipy() -> None:
    samples = np.array([1.0, 2.0, 4.0, 3.5])
    expected = stats.t.interval(1 - 2 * statistics.SHARE, 3, samples.mean(), stats.sem(samples))
    assert statistics.mean_interval(samples) == pytest.approx(expected)


def test_splitting_the_share_widens_the_interval() -> None:
    samples = np.array([1.0, 2.0, 4.0])
    whole, half = statistics.mean_interval(samples), statistics.mean_interval(samples, parts=2)
    assert half[0] < whole[0] < whole[1] < half[1]


def test_one_sample_has_no_interval() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        statistics.mean_interval(np.array([1.0]))


@pytest.mark.parametrize(
    ("values", "target", "expected"), [((1, 1), 1.0, 0.0), ((1, 1), 2.0, np.inf), ((0, 2), 0.0, 1.0)]
)
def test_deviation_counts_standard_errors(values: tuple, target: float, expected: float) -> None:
    assert statistics.deviation(np.array(values, dtype=float), target) == expected


def test_slope_recovers_an_exponent() -> None:
    x = np.array([1.0, 2.0, 4.0, 8.0])
    assert statistics.slope(x, 3 * x**-0.5) == pytest.approx(-0.5)


def test_rounding_bound_holds_for_a_dot_product_and_not_much_more() -> None:
    rng = stream(0, "dot").rng()
    x, y = rng.normal(size=(2, 500, 100)).astype(np.float32)
    exact = (x.astype(float) * y.astype(float)).sum(1)
    scale = (np.abs(x.astype(float) * y.astype(float))).sum(1).max()
    found = np.einsum("ij,ij->i", x, y)
    error = np.abs(found - exact).max()
    bound = statistics.rounding_bound(100, float(scale), np.float32)
    assert bound / 1000 < error <= bound


def test_rounding_bound_refuses_sizes_that_leave_no_digit() -> None:
    with pytest.raises(ValueError, match="no correct digit"):
        statistics.rounding_bound(1e8, dtype=np.float32)
