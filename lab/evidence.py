"""What was measured beside what a sentence demands, and the verdict that follows.

Evidence is a conjunction of parts. How chance enters each part decides how wide its interval is; one rule makes a
verdict of all of them.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, SupportsFloat

import numpy as np

from lab import statistics
from lab.errors import LabError

Verdict = Literal["holds", "refuted", "inconclusive", "not reproduced"]
Relation = Literal["<=", ">=", "<", ">", "="]
Number = SupportsFloat  # a number, or an array of one


def least_seeds(share: float) -> Mapping[str, int]:
    """Without so many seeds evidence of each kind decides nothing at ``share`` of the budget."""
    return {"over_seeds": 2, "equals": 2, "median": math.ceil(-math.log2(share))}  # all on one side of the bound: 2^-n


_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}


@dataclass(frozen=True)
class Part:
    """One measured value, the relation it should have to a bound, and where the bound comes from.

    Attributes:
        measured: the number (of samples: their mean, rate or median).
        relation: how it should compare with the bound; ``=`` means within ``tolerance`` of it.
        bound: the bound, fixed before the run.
        bound_origin: where the bound comes from, in words.
        spread: what is known of chance; None if ``measured`` is exact or its rounding error is what the bound covers.
        samples: how many independent samples stand behind ``measured``.
        tolerance: how far from the bound ``measured`` may lie, either way; for ``=`` only.
    """

    measured: float
    relation: Relation
    bound: float
    bound_origin: str
    spread: statistics.Spread | None = None
    samples: int = 1
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        if self.relation != "=" and self.relation not in _COMPARE:
            raise LabError(f"the relation {self.relation!r} is not one of {', '.join(_COMPARE)}; use one of them")
        for name in ("measured", "bound"):
            value = float(getattr(self, name))
            if math.isnan(value):
                raise LabError(f"the {name} value of this evidence is not a number; the measurement failed")
            object.__setattr__(self, name, value)

    @property
    def sides(self) -> int:
        """How many ways there are to be wrong by chance: both ends of an equality, one of an inequality, none if exact."""
        return 0 if self.spread is None else 2 if self.relation == "=" else 1

    def interval(self, share: float = statistics.SHARE) -> statistics.Interval:
        """Where the true value lies, each end wrong with probability at most ``share``; a point if it is exact."""
        return (self.measured, self.measured) if self.spread is None else self.spread.interval(share)

    def clears(self, share: float) -> bool:
        """Whether the whole interval satisfies the relation."""
        return all(self._satisfies(end) for end in self.interval(share))

    def misses(self, share: float) -> bool:
        """Whether the whole interval violates the relation."""
        low, high = self.interval(share)
        if self.relation == "=":
            return low > self.bound + self.tolerance or high < self.bound - self.tolerance
        return not (self._satisfies(low) or self._satisfies(high))

    def room(self, value: float) -> float:
        """How far ``value`` could move before it violates the relation; negative where it does so already."""
        if self.relation == "=":
            return self.tolerance - abs(value - self.bound)
        return self.bound - value if self.relation in ("<=", "<") else value - self.bound

    def margin(self, share: float) -> float:
        """Room of the worse end of the interval, relative to the size of the numbers (used to find the weakest part)."""
        if self.relation == "=":
            scale = self.tolerance
        else:
            scale = max(abs(self.bound), abs(self.measured))
        room = min(self.room(end) for end in self.interval(share))
        if math.isfinite(room):
            return room / (scale or 1.0)
        return 0.0 if math.isnan(room) else room

    def seeds_wanted(self, share: float) -> int | None:
        """How many samples would decide, at the spread seen; None if that cannot be told."""
        distance = abs(self.room(self.measured))
        if not isinstance(self.spread, statistics.Student | statistics.Binomial) or not 0 < distance < math.inf:
            return None
        if isinstance(self.spread, statistics.Student) and math.isnan(self.spread.deviation):
            return None  # one seed, or one that is infinite: nothing is known of the spread
        return statistics.seeds_wanted(self.spread, distance, share)

    def _satisfies(self, value: float) -> bool:
        if self.relation == "=":
            return self.bound - self.tolerance <= value <= self.bound + self.tolerance
        return _COMPARE[self.relation](value, self.bound)


@dataclass(frozen=True)
class Evidence:
    r"""What a check found: parts that must all hold. Build it with one of the class methods.

    With $\alpha$ = ``statistics.SHARE`` the verdict is

    - ``holds`` if every part clears its bound at the full share $\alpha$. No division is needed (an intersection-union
      test; Berger 1982): if the sentence is false, some part is false, and the verdict needs *that* part to clear,
      which happens by chance with probability at most $\alpha$, whatever the others do.
    - ``refuted`` if at least one part misses its bound at $\alpha / k$, with $k$ the number of ways in which a part can miss
      by chance (Bonferroni): if the sentence is true, every part is true, each way leads to a miss with probability at
      most $\alpha / k$, and so any of them does with probability at most $\alpha$. An inequality over samples is one
      way, an equality over samples two (either side of its tolerance), an exact number none.
    - ``inconclusive`` otherwise.

    The first two exclude each other: a part that misses at $\alpha / k$ misses at $\alpha$ too.

    Attributes:
        parts: at least one.
        allowance: the share that the verdict may spend, $\alpha$ above where a file has a budget of its own.
    """

    parts: tuple[Part, ...]
    allowance: float = statistics.SHARE

    def __post_init__(self) -> None:
        if not self.parts:
            raise LabError("this evidence has 0 parts and shows nothing; give at least 1")

    @classmethod
    def exact(cls, measured: Number, relation: Relation, bound: Number, origin: str) -> Evidence:
        """A number without sampling error: an identity, an enumeration, a quadrature."""
        _inequality(relation)
        return cls((Part(float(measured), relation, float(bound), origin),))

    @classmethod
    def within(cls, deviations: Any, bounds: Any, origin: str) -> Evidence:
        """Numbers without sampling error, each of which must not exceed a bound of its own, as in an identity.

        Args:
            deviations: the numbers, in order or as a labelled array of any axes.
            bounds: equally many, or one for all; of labelled arrays the bound of a number is that of its labels, and a bound
                without an axis holds for all of it.
            origin: where the bounds come from, in words.

        Raises:
            LabError: other labels, an axis of the bounds that the numbers lack, or not as many bounds as numbers.
        """
        return cls.all(*(cls.exact(value, "<=", bound, origin) for value, bound in _paired(deviations, bounds)))

    @classmethod
    def over_seeds(cls, samples: Any, relation: Relation, bound: Number, origin: str) -> Evidence:
        """The mean of one number per independent training or draw, judged on a Student interval.

        Args:
            samples: shape [seeds]; an array labelled by seed, or anything numpy takes for an array.
            relation: how the mean should compare with the bound.
            bound: fixed before the seeds were drawn.
            origin: where the bound comes from, in words.

        Raises:
            LabError: another axis than the seed, or no seed. One seed is a value that decides nothing.
        """
        _inequality(relation)
        spread = _student(samples)
        return cls((Part(spread.mean, relation, float(bound), origin, spread, spread.samples),))

    @classmethod
    def median(cls, samples: Any, relation: Relation, bound: Number, origin: str) -> Evidence:
        """The median of one number per seed, judged on its exact interval; for samples with two humps or long tails.

        At the project's share at least 16 seeds are needed before anything can be shown.
        """
        _inequality(relation)
        array = _per_seed(samples)
        spread = statistics.Median(tuple(np.sort(array).tolist()))
        return cls((Part(_middle(spread.ordered), relation, float(bound), origin, spread, array.size),))

    @classmethod
    def proportion(cls, successes: int, trials: int, relation: Relation, bound: Number, origin: str) -> Evidence:
        """A success probability from independent trials, judged on the exact binomial interval.

        Args:
            successes: how many trials succeeded.
            trials: how many there were, at least 1.
            relation: how the probability should compare with the bound.
            bound: fixed before the trials.
            origin: where the bound comes from, in words.
        """
        _inequality(relation)
        if not 0 <= successes <= trials or trials < 1:
            raise LabError(f"{successes} successes in {trials} trials are no proportion; count each trial once")
        spread = statistics.Binomial(int(successes), int(trials))
        return cls((Part(successes / trials, relation, float(bound), origin, spread, int(trials)),))

    @classmethod
    def equals(cls, samples: Any, law: Number, within: float, origin: str, absolute: bool = False) -> Evidence:
        r"""Equivalence of the mean of ``samples`` with a law: the whole interval lies inside the tolerance.

        It holds where the Student interval, each end at the full share, lies inside (two one-sided tests; Schuirmann
        1987), and is refuted where the whole interval lies outside. Few seeds give a wide interval and decide nothing.

        Args:
            samples: shape [seeds].
            law: the value demanded.
            within: the tolerance, as a share of ``law``: $|\mathrm{law}| (1 \pm \mathrm{within})$.
            origin: where the law comes from, in words.
            absolute: the tolerance is law $\pm$ within instead.

        Raises:
            LabError: a tolerance that is not positive, or one relative to a law that is 0.
        """
        spread, tolerance = _student(samples), _tolerance(law, within, absolute)
        return cls((Part(spread.mean, "=", float(law), origin, spread, spread.samples, tolerance),))

    @classmethod
    def median_equals(cls, samples: Any, law: Number, within: float, origin: str, absolute: bool = False) -> Evidence:
        """As `equals` for the median, on its exact interval: for trainings of which one may end elsewhere.

        At the project's share at least 16 seeds are needed before anything can be shown, and 20 for one that ends elsewhere.
        """
        array, tolerance = _per_seed(samples), _tolerance(law, within, absolute)
        spread = statistics.Median(tuple(np.sort(array).tolist()))
        return cls((Part(_middle(spread.ordered), "=", float(law), origin, spread, array.size, tolerance),))

    @classmethod
    def all(cls, *evidence: Evidence) -> Evidence:
        """Several pieces of evidence that must all hold, as one; their parts are counted."""
        return cls(tuple(part for piece in evidence for part in piece.parts))

    def verdict_at(self, share: float) -> Verdict:
        """The verdict if ``share`` of the budget were this claim's (see the class for the rule)."""
        if all(part.clears(share) for part in self.parts):
            return "holds"
        split = share / self.ways
        return "refuted" if any(part.misses(split) for part in self.parts) else "inconclusive"

    @cached_property
    def verdict(self) -> Verdict:
        """``holds``, ``refuted``, or ``inconclusive`` where neither is shown."""
        return self.verdict_at(self.allowance)

    @property
    def ways(self) -> int:
        """Over how many ways to miss by chance a refutation divides the share, at least 1."""
        return max(1, sum(part.sides for part in self.parts))

    @property
    def share(self) -> float:
        """The share at which the verdict was taken: the full one if it holds, else what each way to miss gets of it."""
        return self.allowance if self.verdict == "holds" else self.allowance / self.ways

    @cached_property
    def weakest_part(self) -> Part:
        """The part furthest from holding; it stands for all in records and tables."""

        def strength(part: Part) -> tuple[int, float, str, str, float, float]:
            rank = 2 if part.clears(self.allowance) else 0 if part.misses(self.allowance / self.ways) else 1
            return rank, part.margin(self.share), part.bound_origin, part.relation, part.bound, part.measured

        return min(self.parts, key=strength)

    @property
    def measured(self) -> float:
        """Of the weakest part."""
        return self.weakest_part.measured

    @property
    def relation(self) -> Relation:
        """Of the weakest part."""
        return self.weakest_part.relation

    @property
    def bound(self) -> float:
        """Of the weakest part."""
        return self.weakest_part.bound

    @property
    def bound_origin(self) -> str:
        """Of the weakest part."""
        return self.weakest_part.bound_origin

    @property
    def samples(self) -> int:
        """Of the weakest part."""
        return self.weakest_part.samples

    @property
    def interval(self) -> statistics.Interval | None:
        """Of the weakest part, at the share at which the verdict was taken; None for exact numbers."""
        spread = self.weakest_part.spread
        return None if spread is None else spread.interval(self.share)

    @property
    def requirement(self) -> str:
        """What the weakest part demands: ``<= 0.25``, or ``= 0.25 ± 0.01``."""
        part = self.weakest_part
        return f"{part.relation} {part.bound:.4g}" + (f" ± {part.tolerance:.4g}" if part.relation == "=" else "")

    @property
    def lone(self) -> bool:
        """Whether a part rests on one seed, which shows a value and decides nothing."""
        return any(
            isinstance(part.spread, statistics.Student | statistics.Median) and part.samples == 1 for part in self.parts
        )

    @property
    def sampled(self) -> bool:
        """Whether the verdict could be wrong by chance, and so takes a share of the false-alarm budget."""
        return any(part.spread is not None for part in self.parts)

    @property
    def seeds_wanted(self) -> int | None:
        """About how many samples would make an inconclusive verdict a decided one, if means and spreads stay as they are.

        Enough for one part to miss, if one is measured on the wrong side of its bound; else enough for all to clear.
        None where the verdict is decided, or where a number lies on its bound or is no mean or rate.
        """
        if self.verdict != "inconclusive":
            return None
        wrong = [part for part in self.parts if part.room(part.measured) < 0]
        if wrong:
            known = [
                samples for part in wrong if (samples := part.seeds_wanted(self.allowance / self.ways)) is not None
            ]
            return min(known, default=None)
        open_ones = [part.seeds_wanted(self.allowance) for part in self.parts if not part.clears(self.allowance)]
        return None if None in open_ones else max(samples for samples in open_ones if samples is not None)


def _tolerance(law: Number, within: float, absolute: bool) -> float:
    tolerance = float(within) if absolute else abs(float(law)) * float(within)
    if not 0 < tolerance < math.inf:
        raise LabError(
            f"within={within:g} of the law {float(law):g} is a tolerance of {tolerance:g}, which must be positive and "
            "finite; name another one, with absolute=True if the law is 0"
        )
    return tolerance


def _paired(deviations: Any, bounds: Any) -> Iterable[tuple[Number, Number]]:
    """Each number with its bound: by labels if both are labelled, else by order, or one bound for all."""
    if not (hasattr(deviations, "dims") and hasattr(bounds, "dims")):
        return _paired_by_order(deviations, bounds)
    import xarray

    if lacking := sorted(map(repr, set(bounds.dims) - set(deviations.dims))):
        raise LabError(
            f"the bounds have the axis {lacking[0]}, which the numbers with {list(map(str, deviations.dims))} lack; "
            "select one label of it"
        )
    # What both were selected at may differ: a control takes the bound of another case.
    bounds = bounds.reset_coords(drop=True)
    for axis in bounds.indexes.keys() & deviations.indexes.keys():
        labels = deviations.indexes[axis]
        if labels.is_unique and bounds.indexes[axis].is_unique and set(labels) == set(bounds.indexes[axis]):
            bounds = bounds.reindex({axis: labels})
    try:
        aligned = xarray.align(deviations, bounds, join="exact")
    except ValueError as error:
        raise LabError(
            f"these numbers and their bounds have other labels ({error}); select the same of both"
        ) from error
    values, allowed = xarray.broadcast(*aligned)
    return zip(values.values.ravel().tolist(), allowed.values.ravel().tolist(), strict=True)


def _paired_by_order(deviations: Any, bounds: Any) -> Iterable[tuple[Number, Number]]:
    values, allowed = _in_order(deviations), _in_order(bounds)
    if not allowed.ndim:
        allowed = np.broadcast_to(allowed, values.shape)
    if values.shape != allowed.shape:
        raise LabError(
            f"numbers of shape {values.shape} have bounds of shape {allowed.shape}; give one bound for all, or one for each"
        )
    return zip(values.ravel().tolist(), allowed.ravel().tolist(), strict=True)


def _in_order(numbers: Any) -> np.ndarray:
    if isinstance(numbers, Iterable) and not hasattr(numbers, "ndim"):
        numbers = list(numbers)
    try:
        return np.asarray(numbers, dtype=float)
    except (TypeError, ValueError) as error:
        raise LabError(f"{numbers!r} are no numbers ({error}); give numbers or an array of them") from error


def _inequality(relation: str) -> None:
    if relation not in _COMPARE:
        raise LabError(f"the relation {relation!r} is not one of {', '.join(_COMPARE)}; for a law use Evidence.equals")


def _middle(ordered: Sequence[float]) -> float:
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return low if low == high else (low + high) / 2


def _student(samples: Any) -> statistics.Student:
    """What is known of a mean; of one seed nothing but its value, so that the interval is the whole line."""
    array = _per_seed(samples)
    return statistics.Student(float(array[0]), math.nan, 1) if array.size == 1 else statistics.Student.of(array)


def _per_seed(samples: Any) -> np.ndarray:
    """One number a seed, as an array of shape [seeds]."""
    dims = getattr(samples, "dims", ("seed",))
    if tuple(dims) != ("seed",):
        raise LabError(
            f"sampled evidence needs the one axis 'seed', not ({', '.join(map(repr, dims))}); "
            "select one label of every other axis, or reduce it"
        )
    array = np.asarray(samples, dtype=float)
    if array.ndim != 1 or not array.size:
        raise LabError(
            f"sampled evidence needs one number for each seed, not an array of shape {array.shape}; name at least 2 seeds"
        )
    if np.isnan(array).any():
        raise LabError("a sample of this evidence is not a number; the measurement failed")
    return array
