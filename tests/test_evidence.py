"""The rule that makes a verdict of parts: what it must never do, and how often it is wrong by chance."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from scipy import stats

from lab import Evidence, LabError, statistics
from lab.labels import labelled
from lab.streams import stream

VALUES = some.floats(-10, 10).map(lambda value: round(value, 3))
SAMPLES = some.lists(VALUES, min_size=2, max_size=12)
RANK = {"refuted": 0, "inconclusive": 1, "holds": 2}


@some.composite
def recipes(draw) -> Callable[[], Evidence]:
    """Evidence of every sort, made in the test: run-time type checks draw at random, which a strategy must not."""
    relation, bound = draw(some.sampled_from(["<=", ">=", "<", ">"])), draw(VALUES)
    kind = draw(some.sampled_from(["exact", "over_seeds", "median", "equals", "median_equals", "proportion"]))
    if kind == "exact":
        return partial(Evidence.exact, draw(VALUES), relation, bound, "")
    if kind == "proportion":
        trials = draw(some.integers(1, 500))
        return partial(
            Evidence.proportion, draw(some.integers(0, trials)), trials, relation, draw(some.floats(0, 1)), ""
        )
    samples = np.array(draw(SAMPLES)) / draw(some.sampled_from([1, 100]))
    if kind == "median":
        return partial(Evidence.median, np.repeat(samples, 4), relation, bound, "")
    if kind == "median_equals":
        return partial(
            Evidence.median_equals, np.repeat(samples, 4), bound, draw(some.floats(0.1, 5)), "", absolute=True
        )
    if kind == "equals":
        return partial(Evidence.equals, samples, bound, draw(some.floats(0.1, 5)), "", absolute=True)
    return partial(Evidence.over_seeds, samples, relation, bound, "")


@given(SAMPLES, VALUES, some.floats(0, 5), some.sampled_from(["over_seeds", "median"]))
def test_an_easier_bound_never_makes_the_verdict_worse(samples: list, bound: float, step: float, kind: str) -> None:
    make = getattr(Evidence, kind)
    for relation, easier in (("<", step), ("<=", step), (">", -step), (">=", -step)):
        hard, easy = (make(samples, relation, bound + shift, "").verdict for shift in (0.0, easier))
        assert RANK[hard] <= RANK[easy]


@given(SAMPLES, VALUES, some.floats(0.1, 5), some.floats(1, 3), some.sampled_from(["equals", "median_equals"]))
def test_a_wider_tolerance_never_makes_the_verdict_worse(
    samples: list, law: float, within: float, wider: float, kind: str
) -> None:
    make = getattr(Evidence, kind)
    narrow, wide = (make(samples, law, width, "", True).verdict for width in (within, wider * within))
    assert RANK[narrow] <= RANK[wide]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(some.lists(recipes(), min_size=1, max_size=4), some.data())
def test_the_order_of_parts_does_not_matter(chosen: list[Callable[[], Evidence]], data) -> None:
    order = data.draw(some.permutations(range(len(chosen))))
    parts = [make() for make in chosen]
    shuffled = [parts[place] for place in order]
    conjunction, permuted = Evidence.all(*parts), Evidence.all(*shuffled)
    assert conjunction.verdict == permuted.verdict
    assert (conjunction.measured, conjunction.bound, conjunction.interval) == (
        permuted.measured,
        permuted.bound,
        permuted.interval,
    )


@given(recipes(), recipes())
def test_a_part_that_holds_takes_nothing_away_and_any_other_does(
    make_first: Callable[[], Evidence], make_second: Callable[[], Evidence]
) -> None:
    first, second = make_first(), make_second()
    verdict = Evidence.all(first, second).verdict
    assert (verdict == "holds") == (first.verdict == second.verdict == "holds")
    if first.verdict == "holds":
        assert RANK[verdict] >= RANK[second.verdict]
    if not first.sampled and first.verdict == "refuted":
        assert verdict == "refuted"


@given(recipes(), some.floats(1e-6, 0.2), some.floats(1.1, 4))
def test_a_smaller_share_decides_less(make: Callable[[], Evidence], share: float, factor: float) -> None:
    """And what is decided stays as it is."""
    evidence = make()
    strict, generous = evidence.verdict_at(share / factor), evidence.verdict_at(share)
    assert strict in ("inconclusive", generous)


def test_nested_parts_are_flat_and_counted() -> None:
    part = Evidence.exact(1.0, "<", 2.0, "")
    nested = Evidence.all(Evidence.all(part, part), Evidence.all(part))
    assert len(nested.parts) == 3
    assert nested.ways == 1
    assert Evidence.all(nested, Evidence.equals([1.0, 1.1], 1.0, 0.5, "")).ways == 2


# The rule at a share of 5 %, at which its errors can be counted: 20,000 sets of 6 seeds, three parts each.
SHARE, SETS, SEEDS, PARTS = 0.05, 20_000, 6, 3


def ends(means: list[float], share: float, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Student intervals of normal samples with these means, as ``Evidence`` makes them; shape [sets, parts] each."""
    samples = np.array(means) + stream(0, name).rng().normal(size=(SETS, SEEDS, len(means)))
    middle, spread = samples.mean(1), samples.std(1, ddof=1)
    half = stats.t.isf(share, SEEDS - 1) * spread / np.sqrt(SEEDS)
    low, high = statistics.Student(float(middle[0, 0]), float(spread[0, 0]), SEEDS).interval(share)
    assert (low, high) == pytest.approx((middle[0, 0] - half[0, 0], middle[0, 0] + half[0, 0]))
    return middle - half, middle + half


def at_most(count: int, rate: float) -> bool:
    """Whether ``count`` of all sets is no more than ``rate`` allows, at the project's own budget."""
    return statistics.proportion_interval(int(count), SETS)[0] <= rate


@pytest.mark.parametrize("other_means", [0.0, 0.5, 20.0])
def test_a_false_conjunction_rarely_holds(other_means: float) -> None:
    """Required > 0; the first part lies on the edge of false, the others anywhere."""
    low, _ = ends([0.0] + [other_means] * (PARTS - 1), SHARE, f"false-{other_means}")
    false_alarms = int((low > 0).all(1).sum())
    assert at_most(false_alarms, SHARE)
    if other_means == 20:  # the bound is sharp where the others always clear
        assert statistics.proportion_interval(false_alarms, SETS)[1] > SHARE


@pytest.mark.parametrize("other_means", [0.0, 0.5])
def test_a_true_conjunction_is_rarely_refuted(other_means: float) -> None:
    """Required >= 0; the worst case has every part on the edge of true."""
    _, high = ends([0.0] + [other_means] * (PARTS - 1), SHARE / PARTS, f"true-{other_means}")
    assert at_most(int((high < 0).any(1).sum()), SHARE)


def test_undivided_refutations_would_exceed_the_share() -> None:
    _, high = ends([0.0] * PARTS, SHARE, "true-0.0")
    assert not at_most(int((high < 0).any(1).sum()), SHARE)


@pytest.mark.parametrize("tolerance", [0.05, 1.0, 3.0])
def test_equivalence_keeps_its_share_both_ways(tolerance: float) -> None:
    """The mean on the edge of the tolerance: neither verdict comes by chance more often than the share allows."""
    low, high = ends([tolerance], SHARE, f"equal-{tolerance}")
    assert at_most(int(((low >= -tolerance) & (high <= tolerance)).sum()), SHARE)
    low, high = ends([tolerance], SHARE / 2, f"equal-{tolerance}")
    assert at_most(int(((low > tolerance) | (high < -tolerance)).sum()), SHARE)


def test_the_vectorised_rule_is_the_one_of_the_class() -> None:
    rng = stream(0, "rule").rng()
    for _ in range(100):
        samples = rng.normal(size=(PARTS, SEEDS)) + rng.normal(0, 2)
        verdict = Evidence.all(*(Evidence.over_seeds(sample, ">", 0.0, "") for sample in samples)).verdict_at(SHARE)
        middle, error = samples.mean(1), samples.std(1, ddof=1) / np.sqrt(SEEDS)
        holds = (middle - stats.t.isf(SHARE, SEEDS - 1) * error > 0).all()
        refuted = (middle + stats.t.isf(SHARE / PARTS, SEEDS - 1) * error <= 0).any()
        assert verdict == ("holds" if holds else "refuted" if refuted else "inconclusive")


def test_equality_is_shown_and_not_merely_not_disproved() -> None:
    close = 2 + 0.01 * np.array([-1.0, 0.0, 1.0, 0.5, -0.5, 0.2])
    assert Evidence.equals(close, 2.0, 0.1, "law").verdict == "holds"
    assert Evidence.equals(close, 3.0, 0.1, "law").verdict == "refuted"
    assert Evidence.equals(close, 2.0, 0.001, "law").verdict == "inconclusive"
    assert Evidence.equals(100 * (close - 2), 2.0, 0.1, "law").verdict == "inconclusive"
    assert Evidence.equals(-close, -2.0, 0.1, "law").requirement == "= -2 ± 0.2"


def test_numbers_meet_the_bounds_of_their_own_labels() -> None:
    deviation = labelled([[1.0, 20.0, 3.0], [2.0, 30.0, 4.0]], depth=(1, 2), size=(8, 16, 32))
    bound = labelled([5.0, 50.0, 5.0], size=(8, 16, 32))
    evidence = Evidence.within(deviation.transpose("size", "depth"), bound, "")
    assert evidence.verdict == "holds"
    assert [(part.measured, part.bound) for part in evidence.parts] == [
        *((1.0, 5.0), (2.0, 5.0)),
        *((20.0, 50.0), (30.0, 50.0)),
        *((3.0, 5.0), (4.0, 5.0)),
    ]
    assert Evidence.within(deviation, labelled(30.0), "").verdict == "holds"  # one bound for all
    assert Evidence.within(deviation, labelled(29.0), "").verdict == "refuted"
    with pytest.raises(LabError, match="other labels"):
        Evidence.within(deviation, bound.sel(size=[8, 16]), "")


def test_bounds_are_those_of_their_labels_in_any_order() -> None:
    deviation = labelled([1.0, 20.0, 3.0], size=(8, 16, 32))
    bound = labelled([5.0, 5.0, 50.0], size=(32, 8, 16))
    assert [part.bound for part in Evidence.within(deviation, bound, "").parts] == [5.0, 50.0, 5.0]
    of_depths = labelled([[1.0, 2.0], [3.0, 4.0]], depth=(1, 2), size=(8, 16))
    # A control takes the bound of another case.
    of_another = Evidence.within(of_depths.sel(depth=1), of_depths.sel(depth=2), "")
    assert [part.bound for part in of_another.parts] == [3.0, 4.0]
    with pytest.raises(LabError, match="axis 'depth'"):
        Evidence.within(of_depths.sel(depth=1), of_depths, "")


def test_bounds_without_labels_are_taken_in_order() -> None:
    deviation = labelled([[1.0, 2.0], [3.0, 4.0]], depth=(1, 2), size=(8, 16))
    assert [part.bound for part in Evidence.within(deviation, 5.0, "").parts] == [5.0] * 4
    assert Evidence.within(deviation, deviation.values, "").verdict == "holds"
    assert Evidence.within(iter([1.0]), [1.0], "").verdict == "holds"
    assert Evidence.within([1.0, 2.0], labelled([1.0, 3.0], size=(8, 16)), "").verdict == "holds"
    for bounds in ([1.0], deviation.values[0], [[1.0]], "5"):
        with pytest.raises(LabError):
            Evidence.within(deviation, bounds, "")


@pytest.mark.parametrize(("law", "within"), [(0.0, 0.1), (1.0, 0.0), (1.0, -1.0), (1.0, math.inf)])
def test_a_tolerance_must_be_one(law: float, within: float) -> None:
    with pytest.raises(LabError, match="absolute=True"):
        Evidence.equals([1.0, 2.0], law, within, "")
    with pytest.raises(LabError, match="absolute=True"):
        Evidence.median_equals([1.0, 2.0], law, within, "")


def test_a_training_that_ends_elsewhere_leaves_the_median_at_its_law() -> None:
    samples = np.r_[np.linspace(0.99, 1.01, 23), 40.0]
    assert Evidence.median_equals(samples, 1.0, 0.02, "").verdict == "holds"
    assert Evidence.equals(samples, 1.0, 0.02, "").verdict == "inconclusive"
    assert Evidence.median_equals(samples, 2.0, 0.02, "").verdict == "refuted"
    assert Evidence.median_equals(np.r_[samples, 40.0, 40.0, 40.0, 40.0], 1.0, 0.02, "").verdict == "inconclusive"


def test_a_median_ignores_the_far_hump() -> None:
    humps = np.r_[np.linspace(0, 1, 35), np.full(5, 1e9)]
    assert Evidence.median(humps, "<", 1.5, "").verdict == "holds"
    assert Evidence.over_seeds(humps, "<", 1.5, "").verdict == "inconclusive"
    assert Evidence.median(humps[:15], "<", 100.0, "").verdict == "inconclusive"
    assert Evidence.median([*humps, math.inf], "<", 1.5, "").verdict == "holds"


def test_samples_may_carry_the_axis_seed_and_no_other() -> None:
    assert Evidence.over_seeds(labelled([1.0, 2.0], seed=(0, 1)), "<", 99.0, "").samples == 2
    with pytest.raises(LabError, match=r"not \('seed', 'layer'\)"):
        Evidence.over_seeds(labelled([[1.0, 2.0]], seed=(0,), layer=(0, 1)), "<", 9.0, "")
    with pytest.raises(LabError, match=r"not \('layer'\)"):
        Evidence.median(labelled([1.0, 2.0], layer=(0, 1)), "<", 9.0, "")


def test_divergence_of_a_seed_decides_nothing_about_the_mean() -> None:
    for relation in ("<", ">"):
        assert Evidence.over_seeds([1.0, 1.0, math.inf], relation, 9.0, "").verdict == "inconclusive"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Evidence(()), "0 parts"),
        (lambda: Evidence.over_seeds([], "<", 1.0, ""), "at least 2 seeds"),
        (lambda: Evidence.over_seeds([1.0, math.nan], "<", 1.0, ""), "not a number"),
        (lambda: Evidence.exact(1.0, "=", 1.0, ""), "Evidence.equals"),
        (lambda: Evidence.proportion(3, 2, "<", 1.0, ""), "3 successes in 2 trials"),
    ],
)
def test_what_is_no_evidence_is_refused(make, message: str) -> None:
    with pytest.raises(LabError, match=message):
        make()


@settings(max_examples=50)
@given(SAMPLES, some.sampled_from(["<", ">"]), VALUES)
def test_the_seeds_wanted_would_decide(samples: list, relation, bound: float) -> None:
    evidence = Evidence.over_seeds(samples, relation, bound, "")
    wanted = evidence.seeds_wanted
    if evidence.verdict != "inconclusive":
        assert wanted is None
    elif wanted is not None:
        spread = evidence.parts[0].spread
        assert isinstance(spread, statistics.Student)
        assert wanted > spread.samples
        low, high = spread.at(wanted).interval(statistics.SHARE)
        assert not low < bound < high or min(bound - low, high - bound) < 1e-9


def test_one_part_on_the_wrong_side_is_enough_to_decide() -> None:
    wrong, right = np.array([0.5, 1.0, 1.8]), np.array([-1.0, -2.0, -2.5])
    alone = Evidence.over_seeds(wrong, "<", 0.0, "").seeds_wanted
    assert alone is not None
    evidence = Evidence.all(Evidence.over_seeds(right, "<", 0.0, ""), Evidence.over_seeds(wrong, "<", 0.0, ""))
    assert evidence.seeds_wanted is not None
    assert evidence.seeds_wanted >= alone
    assert Evidence.median([1.0, 2.0], "<", 5.0, "").seeds_wanted is None
