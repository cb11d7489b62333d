"""The chance of a verdict against verdicts on samples that are drawn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import statistics
from lab.evidence import Evidence
from lab.power import chance_of_verdict, chance_to_clear, chance_to_miss

DRAWS = 500
SHARE = 1e-3


def frequencies(draw: Callable[[np.random.Generator], Evidence]) -> tuple[float, float]:
    """How often the part of what is drawn clears its bound, and how often it misses."""
    rng = np.random.default_rng(11)
    parts = [draw(rng).parts[0] for _ in range(DRAWS)]
    return np.mean([part.clears(SHARE) for part in parts]), np.mean([part.misses(SHARE) for part in parts])


def fresh(rng: np.random.Generator, mean: float, samples: int = 12) -> np.ndarray:
    """Fresh samples of a law of which ``samples`` had this mean and the deviation 1."""
    deviation = np.sqrt((samples - 1) / rng.chisquare(samples - 1))
    return rng.normal(rng.normal(mean, deviation / np.sqrt(samples)), deviation, samples)


def unit(samples: int, mean: float) -> np.ndarray:
    """Samples whose mean is ``mean`` and whose standard deviation is 1, as those are that ``fresh`` goes by."""
    values = np.linspace(-1, 1, samples)
    return mean + values / values.std(ddof=1)


def redrawn(rng: np.random.Generator, samples: np.ndarray, *cuts: float) -> np.ndarray:
    """As many fresh samples, of which only the numbers between the cuts are known."""
    cells = np.digitize(samples, cuts)
    shares = rng.dirichlet(np.bincount(cells, minlength=len(cuts) + 1) + 0.5)
    inside = [cuts[0] - 1, *((low + high) / 2 for low, high in zip(cuts, cuts[1:], strict=False)), cuts[-1] + 1]
    return rng.choice(inside, samples.size, p=shares)


@pytest.mark.parametrize("relation", [">", ">=", "<", "<="])
@pytest.mark.parametrize("mean", [1.5, 0.8, -0.8])
def test_means_clear_and_miss_as_often_as_told(relation: str, mean: float) -> None:
    (part,) = Evidence.over_seeds(unit(12, mean), relation, 0.0, "").parts
    cleared, missed = frequencies(lambda rng: Evidence.over_seeds(fresh(rng, mean), relation, 0.0, ""))
    assert chance_to_clear(part, SHARE) == pytest.approx(cleared, abs=0.07)
    assert chance_to_miss(part, SHARE) == pytest.approx(missed, abs=0.07)


@pytest.mark.parametrize("mean", [0.0, 0.6, 4.0, -4.0])
def test_means_near_a_law(mean: float) -> None:
    (part,) = Evidence.equals(unit(12, mean), 0.0, 2.0, "", absolute=True).parts
    cleared, missed = frequencies(lambda rng: Evidence.equals(fresh(rng, mean), 0.0, 2.0, "", absolute=True))
    assert cleared - 0.07 - 1 / 3 <= chance_to_clear(part, SHARE) <= cleared + 0.07  # Bonferroni: at most the truth
    assert chance_to_miss(part, SHARE) == pytest.approx(missed, abs=0.07)


def test_few_samples_promise_less_than_many_of_the_same_room() -> None:
    few, many = (Evidence.over_seeds(unit(samples, 3.0), ">", 0.0, "") for samples in (8, 64))
    room = [evidence.parts[0].clears(statistics.SHARE) for evidence in (few, many)]
    assert room == [False, True]
    few = Evidence.over_seeds(unit(8, 6.0), ">", 0.0, "")  # the interval clears the bound, and eight others may not
    assert few.parts[0].clears(statistics.SHARE)
    assert 0.5 < chance_of_verdict(few, "holds") < 0.99 < chance_of_verdict(many, "holds")


@pytest.mark.parametrize(("successes", "relation"), [(30, ">"), (25, ">="), (16, "<"), (4, "<"), (1, "<=")])
def test_rates(successes: int, relation: str) -> None:
    (part,) = Evidence.proportion(successes, 32, relation, 0.5, "").parts

    def again(rng: np.random.Generator) -> Evidence:  # of a rate that is known from 32 trials alone
        rate = rng.beta(successes + 0.5, 32 - successes + 0.5)
        return Evidence.proportion(int(rng.binomial(32, rate)), 32, relation, 0.5, "")

    cleared, missed = frequencies(again)
    assert chance_to_clear(part, SHARE) == pytest.approx(cleared, abs=0.07)
    assert chance_to_miss(part, SHARE) == pytest.approx(missed, abs=0.07)


def test_rates_of_many_trials_take_no_time() -> None:
    evidence = Evidence.proportion(601_000, 1_200_000, ">", 0.5, "")
    assert chance_of_verdict(evidence, "holds") == pytest.approx(0.057, abs=0.005)
    assert chance_of_verdict(Evidence.proportion(606_000, 1_200_000, ">", 0.5, ""), "holds") > 0.999


@pytest.mark.parametrize("relation", [">", "<="])
@pytest.mark.parametrize("shift", [0.9, 0.3, -0.3])
def test_medians(relation: str, shift: float) -> None:
    samples = shift + np.linspace(-1, 1, 40)
    (part,) = Evidence.median(samples, relation, 0.0, "").parts
    cleared, missed = frequencies(lambda rng: Evidence.median(redrawn(rng, samples, 0.0), relation, 0.0, ""))
    assert chance_to_clear(part, SHARE) == pytest.approx(cleared, abs=0.07)
    assert chance_to_miss(part, SHARE) == pytest.approx(missed, abs=0.07)


@pytest.mark.parametrize("shift", [0.0, 0.3, 0.9, 3.0])
def test_medians_near_a_law(shift: float) -> None:
    samples = shift + np.linspace(-1, 1, 40)
    (part,) = Evidence.median_equals(samples, 0.0, 0.7, "", absolute=True).parts
    cleared, missed = frequencies(
        lambda rng: Evidence.median_equals(redrawn(rng, samples, -0.7, 0.7), 0.0, 0.7, "", absolute=True)
    )
    assert chance_to_clear(part, SHARE) == pytest.approx(cleared, abs=0.15)
    assert chance_to_miss(part, SHARE) == pytest.approx(missed, abs=0.15)


@given(st.floats(-3, 3), st.sampled_from(["<", "<=", ">", ">="]))
def test_exact_numbers_are_certain(value: float, relation: str) -> None:
    evidence = Evidence.exact(value, relation, 0.5, "")
    assert chance_of_verdict(evidence, evidence.verdict) == 1.0
    assert chance_of_verdict(evidence, "refuted" if evidence.verdict == "holds" else "holds") == 0.0


def test_parts_count_as_independent() -> None:
    weak, strong = (Evidence.over_seeds(unit(12, mean), ">", 0.0, "") for mean in (1.8, 9.0))
    missing = 1 - chance_to_clear(weak.parts[0], statistics.SHARE)
    assert 0.01 < missing < 0.9
    assert chance_of_verdict(Evidence.all(weak, strong), "holds") == pytest.approx(1 - missing, abs=1e-5)
    assert chance_of_verdict(Evidence.all(weak, weak), "holds") == pytest.approx((1 - missing) ** 2)
    against = Evidence.all(weak, Evidence.over_seeds(unit(12, -5.0), ">", 0.0, ""))
    assert chance_of_verdict(against, "refuted") > 0.99


@pytest.mark.parametrize("value", [0.3, 0.0, -0.3])
def test_samples_that_are_all_alike_are_taken_at_their_word(value: float) -> None:
    evidence = Evidence.over_seeds(np.full(6, value), ">=", 0.0, "")
    assert chance_of_verdict(evidence, "holds") == float(value >= 0)


def test_samples_without_a_deviation_promise_nothing() -> None:
    evidence = Evidence.over_seeds(np.array([1.0, np.inf, 2.0]), ">", 0.0, "")
    assert chance_of_verdict(evidence, "holds") == chance_of_verdict(evidence, "refuted") == 0.0
