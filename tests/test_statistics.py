from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
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


@pytest.mark.parametrize(
    "spread",
    [
        statistics.Student(2.0, 1.0, 3),
        statistics.Binomial(3, 10),
        statistics.Median(tuple(range(40))),
        statistics.StandardErrors(2.0, 9),
    ],
)
def test_a_smaller_share_widens_the_interval(spread: statistics.Spread) -> None:
    interval, wider = spread.interval(statistics.SHARE), spread.interval(statistics.SHARE / 100)
    assert wider[0] < interval[0] <= interval[1] <= wider[1]


@pytest.mark.parametrize("successes", [0, 3, 50])
def test_proportion_interval_matches_scipy(successes: int) -> None:
    expected = stats.binomtest(successes, 50).proportion_ci(1 - 2 * statistics.SHARE, method="exact")
    assert statistics.proportion_interval(successes, 50) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(("samples", "share"), [(9, 0.05), (20, 0.01), (16, statistics.SHARE)])
def test_median_interval_is_the_narrowest_of_its_share(samples: int, share: float) -> None:
    """By enumeration over how many samples lie below the median."""
    low, high = statistics.Median(tuple(range(1, samples + 1))).interval(share)
    law = stats.binom(samples, 0.5)
    assert low + high == samples + 1
    assert law.cdf(low - 1) <= share < law.cdf(low)


def test_few_samples_have_no_median_interval() -> None:
    assert statistics.Median(tuple(range(15))).interval(statistics.SHARE) == (-np.inf, np.inf)


SPREADS = some.floats(0.01, 10)


@given(SPREADS, SPREADS, some.floats(1, 4), some.floats(1e-5, 0.2))
def test_seeds_wanted_is_monotone(deviation: float, distance: float, factor: float, share: float) -> None:
    """More for a wider spread, a smaller distance, a smaller share."""

    def wanted(deviation: float, distance: float, share: float) -> int:
        number = statistics.seeds_wanted(statistics.Student(0.0, deviation, 5), distance, share)
        assert number is not None
        return number

    base = wanted(deviation, distance, share)
    assert base <= wanted(factor * deviation, distance, share)
    assert base >= wanted(deviation, factor * distance, share)
    assert base <= wanted(deviation, distance, share / factor)


def test_seeds_wanted_is_the_least_number() -> None:
    spread = statistics.Student(0.0, 1.0, 5)
    number = statistics.seeds_wanted(spread, 0.7, 0.01)
    assert number is not None
    assert spread.at(number).interval(0.01)[1] <= 0.7 < spread.at(number - 1).interval(0.01)[1]
    assert statistics.seeds_wanted(statistics.Binomial(5, 5), 0.05, 0.05) == 59
    assert statistics.seeds_wanted(spread, 1e-9) is None


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
    products = np.einsum("ij,ij->i", x, y)
    error = np.abs(products - exact).max()
    bound = statistics.rounding_bound(100, float(scale), np.float32)
    assert bound / 1000 < error <= bound


def test_rounding_bound_refuses_sizes_that_leave_no_digit() -> None:
    with pytest.raises(ValueError, match="no correct digit"):
        statistics.rounding_bound(1e8, dtype=np.float32)
