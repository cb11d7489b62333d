"""A sentence of a paper as a number with a bound, and a control that must fail.

A claim is a function ``check(results, **setting) -> Evidence``. Its controls call *the same function* with
other settings, so that a control tests the check and not a look-alike: if the check still comes out the same
way in a setting where it must not, the check shows nothing and the claim fails.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from lab import statistics
from lab.errors import LabError, described, kind_of, located, nearest, place_in, place_of
from lab.evidence import Evidence, Verdict
from lab.evidence import Relation as Relation
from lab.power import chance_of_verdict

Kind = Literal["identity", "rate", "construction", "training", "ordering", "phenomenon"]
Expected = Literal["holds", "refuted", "not reproduced"]

OPENINGS = tuple(
    "after as at away below beyond during for from if in on once only to under until up when where with without".split()
)
"""How a condition may begin, so that it can be read after "It holds" and after "the paper states it"."""


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
        expected: the verdict that stands; ``refuted`` for a sentence that is false as stated, ``not reproduced`` for one
            that comes out false here but could not be tried at the paper's own sizes.
        condition: for a refuted claim, the condition under which it holds; for one that is not reproduced, the sizes at
            which the paper states it. It begins with one of ``OPENINGS``.
        paper: key of the paper that says so; empty for one that is not in ``papers.toml``.
        allowance: the share of a false-alarm budget that its verdict, and each control, may spend.
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
    allowance: float = statistics.SHARE

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9-]+/[A-Za-z0-9.-]+", self.id):
            raise LabError(f"the claim id {self.id!r} is not of the form paper/slug")
        if self.kind not in get_args(Kind):
            raise LabError(f"{self.id}: the kind {self.kind!r} is not one of {', '.join(get_args(Kind))}")
        if self.expected not in get_args(Expected):
            raise LabError(
                f"{self.id}: the expected verdict {self.expected!r} is not one of {', '.join(get_args(Expected))}"
            )
        if self.expected != "holds" and self.condition.split(" ")[0] not in OPENINGS:
            raise LabError(
                f"{self.id} is expected to be {self.expected}, and {self.condition!r} is no condition under which it holds; "
                f"name one that begins with {', '.join(OPENINGS[:-1])} or {OPENINGS[-1]}"
            )
        if not isinstance(self.controls, tuple) or not all(isinstance(control, Control) for control in self.controls):
            raise LabError(
                f"{self.id} has the controls {self.controls!r}; make each with control('its name', setting=value)"
            )
        if not self.controls:
            raise LabError(f"{self.id} has no control; name a setting in which its check must come out the other way")
        settings = set(list(inspect.signature(self.check).parameters)[1:])
        for control in self.controls:
            unknown = set(control.setting) - settings
            if unknown or not control.setting:
                hint = nearest(sorted(unknown)[0], settings) if unknown else ""
                raise LabError(
                    f"{self.id}: the control {control.name!r} sets {sorted(unknown) or 'nothing'}{hint}; "
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
        """That of the evidence; what would be a refutation is none if the paper's own sizes could not be tried."""
        verdict = self.evidence.verdict
        return "not reproduced" if verdict == "refuted" and self.claim.expected == "not reproduced" else verdict

    @property
    def as_expected(self) -> bool:
        """The verdict is the expected one and every control was rejected."""
        return self.verdict == self.claim.expected and all(outcome.rejected for outcome in self.controls)

    @property
    def lone(self) -> bool:
        """Whether one seed is all there is, so that there are values and no verdict."""
        return self.evidence.lone

    @property
    def sampled(self) -> int:
        """Over how many numbers a false-alarm budget is divided: the claim's own and its controls', where they are sampled."""
        return self.evidence.sampled + sum(control.evidence.sampled for control in self.controls)

    @property
    def chance(self) -> float | None:
        """The chance that fresh seeds give this outcome again (`lab.power`); None where nothing is sampled."""
        if not self.sampled:
            return None
        opposite: Verdict = "refuted" if self.claim.expected == "holds" else "holds"
        rejected = (chance_of_verdict(control.evidence, opposite) for control in self.controls)
        return chance_of_verdict(self.evidence, self.claim.expected) * math.prod(rejected)

    def record(self) -> dict[str, Any]:
        """The judgement as plain data (what ``lab check --json`` prints); its numbers are those of the weakest part."""
        return {
            "id": self.claim.id,
            "kind": self.claim.kind,
            "verdict": self.verdict,
            "expected": self.claim.expected,
            "measured": _plain(self.evidence.measured),
            "interval": None if self.evidence.interval is None else [_plain(end) for end in self.evidence.interval],
            "samples": self.evidence.samples,
            "parts": len(self.evidence.parts),
            "relation": self.evidence.relation,
            "bound": _plain(self.evidence.bound),
            "tolerance": _plain(self.evidence.weakest_part.tolerance),
            "bound_origin": self.evidence.bound_origin,
            "seeds_wanted": self.evidence.seeds_wanted,
            "controls": [
                {"name": control.name, "measured": _plain(control.evidence.measured), "rejected": control.rejected}
                for control in self.controls
            ],
            "chance": None if self.chance is None else round(self.chance, 3),
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

    Raises:
        LabError: the check gave no evidence, or evidence that is not a number; the message names the claim.
    """
    evidence = _evidence(claim, results, {})
    opposite = "refuted" if claim.expected == "holds" else "holds"
    outcomes = []
    for control in claim.controls:
        control_evidence = _evidence(claim, results, control.setting)
        outcomes.append(ControlOutcome(control.name, control_evidence, control_evidence.verdict == opposite))
    return Judgement(claim, evidence, tuple(outcomes), preset)


def timed(judgement: Judgement, seconds: float) -> Judgement:
    """The same judgement with its cost noted."""
    return replace(judgement, seconds=seconds)


def _under(setting: Mapping[str, Any]) -> str:
    return f" with {', '.join(f'{name}={value!r}' for name, value in setting.items())}" if setting else ""


def _evidence(claim: Claim, results: Any, setting: Mapping[str, Any]) -> Evidence:
    file = Path(inspect.unwrap(claim.check).__code__.co_filename)
    try:
        evidence = claim.check(results, **setting)
    except KeyboardInterrupt:
        raise
    except LabError as error:
        raise LabError(f"{claim.id}{_under(setting)}: {located(error, file)}") from error
    except SystemExit as error:
        where = place_in(error, file)
        raise LabError(f"{where}the check of {claim.id} called sys.exit({error.code!r}); return Evidence") from error
    except BaseException as error:
        raise LabError(f"{claim.id}{_under(setting)} cannot be judged: {described(error, file)}") from error
    if not isinstance(evidence, Evidence):
        raise LabError(
            f"{place_of(claim.check)}the check of {claim.id} returned {kind_of(evidence)}, not Evidence; return what "
            "Evidence.exact, Evidence.over_seeds or another maker of Evidence gives"
        )
    return evidence if evidence.allowance == claim.allowance else replace(evidence, allowance=claim.allowance)
