"""A sentence of a paper as a number with a bound, and a control that must fail.

A claim is a function ``check(results, **setting) -> Evidence``. Its controls call *the same function* with
other settings, so that a control tests the check and not a look-alike: if the check still comes out the same
way in a setting where it must not, the check shows nothing and the claim fails.
"""

from __future__ import annotations

import inspect
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np

from lab import statistics
from lab.errors import LabError

Kind = Literal["identity", "rate", "construction", "training", "ordering", "phenomenon"]
Verdict = Literal["holds", "refuted", "inconclusive"]
Relation = Literal["<=", ">=", "<", ">"]
Number = float | np.number

_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}


@dataclass(frozen=True)
class Evidence:
    """A measured value, the relation it should have to a bound, and where the bound comes from.

    Build it with one of the class methods; each says how chance enters.

    Attributes:
        measured: the number (for sampled evidence, the mean).
        relation: how it should compare with the bound.
        bound: the bound, fixed before the run.
        bound_origin: where the bound comes from, in words.
        interval: where the true value lies, within the project's false-alarm budget; None if ``measured`` is
            exact or its rounding error is what the bound covers.
        samples: how many independent samples stand behind ``measured``.
    """

    measured: float
    relation: Relation
    bound: float
    bound_origin: str
    interval: statistics.Interval | None = None
    samples: int = 1

    def __post_init__(self) -> None:
        if self.relation not in _COMPARE:
            raise LabError(f"the relation {self.relation!r} is not one of {', '.join(_COMPARE)}")
        for name in ("measured", "bound"):
            value = float(getattr(self, name))
            if math.isnan(value):
                raise LabError(f"the {name} value of this evidence is not a number; the measurement failed")
            object.__setattr__(self, name, value)

    @classmethod
    def exact(cls, measured: Number, relation: Relation, bound: Number, origin: str) -> Evidence:
        """A number without sampling error: an identity, an enumeration, a quadrature."""
        return cls(float(measured), relation, float(bound), origin)

    @classmethod
    def over_seeds(
        cls, samples: Sequence[float] | np.ndarray, relation: Relation, bound: float, origin: str, parts: int = 1
    ) -> Evidence:
        """The mean of one number per independent training or draw, judged on a Student interval."""
        array = np.asarray(samples, dtype=float)
        if array.ndim != 1 or array.size < 2:
            raise LabError(
                f"sampled evidence needs one number for each of at least 2 seeds, not an array of shape {array.shape}; "
                "name more seeds"
            )
        return cls(
            float(array.mean()), relation, float(bound), origin, statistics.mean_interval(array, parts), array.size
        )

    @classmethod
    def proportion(
        cls, successes: int, trials: int, relation: Relation, bound: float, origin: str, parts: int = 1
    ) -> Evidence:
        """A success probability from independent trials, judged on the exact binomial interval."""
        interval = statistics.proportion_interval(int(successes), int(trials), parts)
        return cls(successes / trials, relation, float(bound), origin, interval, int(trials))

    @classmethod
    def agreement(cls, samples: Sequence[float] | np.ndarray, target: float, origin: str, parts: int = 1) -> Evidence:
        """Independent samples whose mean should be ``target``: the deviation in standard errors.

        ``measured`` is |mean - target| in standard errors and ``bound`` the two-sided Student quantile at the
        budget's share. Passing means "not told apart"; the control shows what would be.
        """
        array = np.asarray(samples, dtype=float)
        if array.ndim != 1 or array.size < 2:
            raise LabError(f"agreement needs at least 2 independent samples, not an array of shape {array.shape}")
        return cls(
            statistics.deviation(array, target),
            "<=",
            statistics.deviation_limit(array.size, parts),
            f"{origin} = {target:.6g}; standard errors allowed by the false-alarm budget",
            None,
            array.size,
        )

    @classmethod
    def weakest(cls, *parts: Evidence) -> Evidence:
        """Several pieces of evidence that must all hold: the one furthest from holding stands for all."""
        order = {"refuted": 0, "inconclusive": 1, "holds": 2}
        return min(parts, key=lambda part: (order[part.verdict], part.margin))

    @property
    def verdict(self) -> Verdict:
        """``holds`` or ``refuted``; ``inconclusive`` where the interval straddles the bound."""
        compare = _COMPARE[self.relation]
        low, high = self.interval if self.interval is not None else (self.measured, self.measured)
        outcomes = {compare(low, self.bound), compare(high, self.bound)}
        if len(outcomes) == 2:
            return "inconclusive"
        return "holds" if outcomes.pop() else "refuted"

    @property
    def sampled(self) -> bool:
        """Whether the verdict could be wrong by chance, and so takes a share of the false-alarm budget."""
        return self.samples > 1

    @property
    def margin(self) -> float:
        """Relative distance to the bound, positive where the relation holds (used to find the weakest part)."""
        sign = 1.0 if self.relation in ("<=", "<") else -1.0
        scale = max(abs(self.bound), abs(self.measured), np.finfo(float).tiny)
        return sign * (self.bound - self.measured) / scale


@dataclass(frozen=True)
class Control:
    """A setting in which the check of a claim must come out the other way."""

    name: str
    setting: Mapping[str, Any]


def control(name: str, **setting: Any) -> Control:
    """A control called ``name``: the claim's own check, run with ``setting`` instead of its defaults."""
    return Control(name, dict(setting))


@dataclass(frozen=True)
class Claim:
    """One checkable sentence of a paper.

    Attributes:
        id: ``paper/slug``.
        where: theorem, equation, figure or section of the paper; "derived" if it is this project's.
        kind: what sort of statement it is.
        statement: the sentence, readable alone (LaTeX between dollar signs).
        check: ``(results, **setting) -> Evidence``.
        controls: settings in which the check must come out the other way; at least one.
        expected: the verdict that stands; ``refuted`` for a sentence that is false as stated.
        condition: for a refuted claim, the condition under which it holds.
        paper: key of the paper that says so; empty for one that is not in ``papers.toml``.
    """

    id: str
    where: str
    kind: str
    statement: str
    check: Callable[..., Evidence]
    controls: tuple[Control, ...]
    expected: Verdict = "holds"
    condition: str = ""
    paper: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9-]+/[A-Za-z0-9.-]+", self.id):
            raise LabError(f"the claim id {self.id!r} is not of the form paper/slug")
        if self.kind not in get_args(Kind):
            raise LabError(f"{self.id}: the kind {self.kind!r} is not one of {', '.join(get_args(Kind))}")
        if self.expected not in ("holds", "refuted"):
            raise LabError(f"{self.id}: the expected verdict {self.expected!r} is not 'holds' or 'refuted'")
        if self.expected == "refuted" and not self.condition:
            raise LabError(f"{self.id} is expected to be refuted; name the condition under which it holds")
        if not self.controls:
            raise LabError(f"{self.id} has no control; name a setting in which its check must come out the other way")
        settings = set(list(inspect.signature(self.check).parameters)[1:])
        for one in self.controls:
            unknown = set(one.setting) - settings
            if unknown or not one.setting:
                raise LabError(
                    f"{self.id}: the control {one.name!r} sets {sorted(unknown) or 'nothing'}; "
                    f"its check can be set by {sorted(settings) or 'nothing'}"
                )


@dataclass(frozen=True)
class ControlOutcome:
    """What the check said under a control; ``rejected`` is what must be true."""

    name: str
    evidence: Evidence
    rejected: bool


@dataclass(frozen=True)
class Judgement:
    """A claim, what was measured, and what its controls said."""

    claim: Claim
    evidence: Evidence
    controls: tuple[ControlOutcome, ...]
    preset: str
    seconds: float = field(default=0.0, compare=False)

    @property
    def verdict(self) -> Verdict:
        return self.evidence.verdict

    @property
    def as_expected(self) -> bool:
        """The verdict is the expected one and every control was rejected."""
        return self.verdict == self.claim.expected and all(outcome.rejected for outcome in self.controls)

    def record(self) -> dict[str, Any]:
        """The judgement as plain data (what ``lab check --json`` prints)."""
        return {
            "id": self.claim.id,
            "verdict": self.verdict,
            "expected": self.claim.expected,
            "measured": _plain(self.evidence.measured),
            "interval": None if self.evidence.interval is None else [_plain(end) for end in self.evidence.interval],
            "samples": self.evidence.samples,
            "relation": self.evidence.relation,
            "bound": _plain(self.evidence.bound),
            "bound_origin": self.evidence.bound_origin,
            "controls": [
                {"name": one.name, "measured": _plain(one.evidence.measured), "rejected": one.rejected}
                for one in self.controls
            ],
            "preset": self.preset,
            "seconds": round(self.seconds, 3),
        }


def _plain(value: float) -> float | str:
    """A number as JSON can hold it: six significant digits, infinities by name."""
    return float(f"{value:.6g}") if math.isfinite(value) else str(value)


def judge(claim: Claim, results: Any, preset: str = "ci") -> Judgement:
    """Check ``claim`` and all its controls on ``results``.

    A control is rejected when the same check comes out the opposite way of the expected verdict; an
    inconclusive control is not rejected.
    """
    evidence = _evidence(claim, results, {})
    opposite = "refuted" if claim.expected == "holds" else "holds"
    outcomes = []
    for one in claim.controls:
        found = _evidence(claim, results, one.setting)
        outcomes.append(ControlOutcome(one.name, found, found.verdict == opposite))
    return Judgement(claim, evidence, tuple(outcomes), preset)


def timed(judgement: Judgement, seconds: float) -> Judgement:
    """The same judgement with its cost noted."""
    return replace(judgement, seconds=seconds)


def _evidence(claim: Claim, results: Any, setting: Mapping[str, Any]) -> Evidence:
    found = claim.check(results, **setting)
    if not isinstance(found, Evidence):
        raise LabError(f"the check of {claim.id} returned {type(found).__name__}, not Evidence")
    return found
