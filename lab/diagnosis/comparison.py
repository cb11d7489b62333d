"""How far a predictor is from every algorithm, on which prompts, and which of them it is.

Parameters are fitted on one half of fresh prompts and everything is judged on the other half. All intervals are over
prompts: of the mean (`lab.statistics.mean_interval`), or of its logarithm where only positive values have a meaning.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from lab import statistics
from lab.checks import fields
from lab.diagnosis import mechanism
from lab.diagnosis.adapt import Adapted, evaluated
from lab.diagnosis.algorithms import RESOLUTION, Algorithm, distance, multiple
from lab.diagnosis.closed_forms import Mistake, UserFile
from lab.diagnosis.setting import Answer, Setting
from lab.diagnosis.subject import (
    Failed,
    Finding,
    Subject,
    answer_needed,
    contract_findings,
    settle_precision,
    unread_query,
)
from lab.errors import LabError
from lab.models.checkpoint import StoredModel
from lab.streams import RandomStream, stream

Kind = Literal["identical", "closest", "none"]
Part = TypeVar("Part")
FEWEST_PROMPTS = 40
DERIVED = (
    12  # algorithms whose derivatives are taken: each costs ten times what its answers do, and says little of far ones
)
WATCHED = 64  # prompts on which attention is watched
MOST_SPREAD = 300.0  # of a logarithm, beyond which its exponential is no number


@dataclass(frozen=True)
class Estimate:
    """A mean over prompts and its interval; infinite throughout where a prompt's value is."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Tensor) -> Estimate:
        """From one number a prompt."""
        values = samples.double().numpy()
        if not np.isfinite(values).all():
            return cls(float("inf"), float("inf"), float("inf"))
        return cls(float(values.mean()), *statistics.mean_interval(values))

    @classmethod
    def positive(cls, samples: Tensor) -> Estimate:
        r"""From one number a prompt, none below 0: $\bar x\, e^{\pm h / \bar x}$ with the half width h of the usual interval.

        To first order the logarithm of the mean has the spread of the mean over the mean. Neither end is below 0, and both
        are equally far on a logarithmic axis.
        """
        usual = cls.of(samples)
        if not 0 < usual.mean < float("inf"):
            return usual
        spread = min((usual.high - usual.mean) / usual.mean, MOST_SPREAD)
        return cls(usual.mean, usual.mean * math.exp(-spread), usual.mean * math.exp(spread))


@dataclass(frozen=True)
class Row:
    """One algorithm beside the predictor.

    Args:
        algorithm: its name.
        fitted: the parameters fitted on other prompts.
        freedom: how many numbers were fitted.
        error: of the algorithm, against the truth.
        distance: of the predictor's answers from the algorithm's: 0 identical, 1 as far as no answer at all.
        cosines: of their derivatives with respect to the query and to the context; none where one of them is 0, or where the
            algorithm is far.
    """

    algorithm: str
    fitted: Mapping[str, float]
    freedom: int
    error: Estimate
    distance: Estimate
    cosines: Mapping[str, Estimate] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Match:
    """The algorithms a predictor is closest to.

    Args:
        name: the nearest; of several that are identical, the one with the fewest fitted numbers.
        tied: all that are not told apart from the nearest, ``name`` first.
        kind: "identical" where the distance is below what rounding and fitting leave, "none" where its interval
            reaches 1, the distance of a predictor that answers nothing.
        error: of the predictor, against the truth.
        rows: all algorithms, the nearest first.
    """

    name: str
    tied: tuple[str, ...]
    kind: Kind
    error: Estimate
    rows: tuple[Row, ...]

    def row(self, name: str) -> Row:
        """The row of an algorithm."""
        return next(row for row in self.rows if row.algorithm == name)

    def has(self, name: str) -> bool:
        """Whether an algorithm could answer here, and was worth a row."""
        return any(row.algorithm == name for row in self.rows)


@dataclass(frozen=True)
class Head:
    """How much of its attention a head gives to one relation (`lab.diagnosis.mechanism`).

    Args:
        layer, head: which, counted from 1.
        relation: where it looks.
        share: of its attention.
        uniform: that share, were all visible places seen alike.
        construction: the largest one of a head of the explicit construction; None where there is none.
    """

    layer: int
    head: int
    relation: str
    share: Estimate
    uniform: float
    construction: float | None


@dataclass(frozen=True)
class Diagnosis:
    """Everything that was found; parts that the findings prevented are empty."""

    subject: str
    task: str
    setting: Mapping[str, Any]
    error_unit: str
    prompts: int
    findings: tuple[Finding, ...]
    match: Match | None = None
    by_length: Mapping[int, Match] = dataclasses.field(default_factory=dict)
    shifts: Mapping[str, Match] = dataclasses.field(default_factory=dict)
    reordering: Estimate | None = None
    attention: tuple[Head, ...] = ()
    seconds: float = 0.0

    @property
    def stopped(self) -> bool:
        """Whether the comparison could not go on."""
        return self.match is None

    def record(self) -> dict[str, Any]:
        """As plain data."""
        return dataclasses.asdict(self)


def compare(answers: Answer, algorithms: Sequence[Algorithm], setting: Setting, prompts: Any) -> Match:
    """The match of ``answers`` on ``prompts`` with algorithms that were fitted elsewhere; those that cannot answer are left out."""
    algorithm_answers = {}
    for algorithm in algorithms:
        with contextlib.suppress(LabError):
            algorithm_answers[algorithm.name] = setting.answers(algorithm.predictor, prompts)
    apart = {name: distance(answers, reference) for name, reference in algorithm_answers.items()}
    rows = [
        Row(
            algorithm.name,
            algorithm.fitted,
            algorithm.freedom,
            Estimate.positive(setting.errors(algorithm_answers[algorithm.name], prompts)),
            Estimate.positive(apart[algorithm.name]),
        )
        for algorithm in algorithms
        if algorithm.name in algorithm_answers
    ]
    rows.sort(key=lambda row: row.distance.mean)
    tied, same = _not_told_apart(rows, apart), rows[0].distance.mean <= RESOLUTION
    if same:
        tied.sort(key=lambda row: row.freedom)
    return Match(
        tied[0].algorithm,
        tuple(row.algorithm for row in tied),
        "identical" if same else "none" if rows[0].distance.high >= 1 else "closest",
        Estimate.positive(setting.errors(answers, prompts)),
        tuple(rows),
    )


def _not_told_apart(rows: Sequence[Row], apart: Mapping[str, Tensor]) -> list[Row]:
    """The nearest, and what is not further away beyond the interval of the difference over the prompts.

    Where the predictor is identical to one, whatever differs by more than the resolution differs: no sampling enters.
    """
    nearest = rows[0]
    if nearest.distance.mean <= RESOLUTION:
        return [row for row in rows if row.distance.mean <= RESOLUTION]
    best = apart[nearest.algorithm]
    return [row for row in rows if Estimate.of(apart[row.algorithm] - best).low <= 0]


def fit(answers: Answer, setting: Setting, prompts: Any, user_file: UserFile | None = None) -> list[Algorithm]:
    """Every candidate of the setting that can answer, its parameters fitted to ``answers`` on ``prompts``, and the multiples.

    Raises:
        LabError: a candidate of a user's file cannot answer.
    """

    def ask(predictor: Callable[..., Tensor], count: int | None) -> Answer:
        return setting.answers(predictor, prompts if count is None else take(prompts, count))

    algorithms = []
    for candidate in setting.candidates(prompts, user_file):
        try:
            algorithm = candidate(answers, ask)
            more = (
                multiple(candidate, algorithm, answers, ask)
                if setting.linear and getattr(candidate, "multiples", False)
                else None
            )
        except Mistake:
            raise
        except LabError:  # it has no answer to prompts of these sizes
            continue
        algorithms += [algorithm] if more is None else [algorithm, more]
    return algorithms


def take(prompts: Part, count: int) -> Part:
    """The first prompts of a batch."""
    tensors = {name: value[:count] for name, value in fields(prompts).items()}
    return dataclasses.replace(prompts, **tensors)  # type: ignore[type-var]


def cosine(first: Answer, second: Answer) -> Tensor:
    """Cosine of the angle between two answers, for the prompts where neither is 0."""
    product, sizes = (first * second).sum(-1), first.norm(dim=-1) * second.norm(dim=-1)
    return product[sizes > 0] / sizes[sizes > 0]


def with_cosines(
    match: Match,
    subject: Subject,
    algorithms: Sequence[Algorithm],
    setting: Setting,
    prompts: Any,
    source: RandomStream,
) -> Match:
    """The match with the agreement of derivatives in the rows of the nearest, `DERIVED` of them and all that are tied."""
    near = {row.algorithm for row in match.rows[:DERIVED]} | set(match.tied)
    sensitivities = setting.sensitivities(subject, prompts, source)
    cosines: dict[str, dict[str, Estimate]] = {}
    for algorithm in algorithms:
        if algorithm.name not in near:
            continue
        algorithm_sensitivities = setting.sensitivities(algorithm.predictor, prompts, source)
        agreement = {part: cosine(sensitivities[part], algorithm_sensitivities[part]) for part in sensitivities}
        cosines[algorithm.name] = {part: Estimate.of(values) for part, values in agreement.items() if len(values) > 1}
    rows = tuple(dataclasses.replace(row, cosines=cosines.get(row.algorithm, {})) for row in match.rows)
    return dataclasses.replace(match, rows=rows)


def _check_number(prompts: int) -> None:
    if prompts < FEWEST_PROMPTS:
        raise LabError(f"{prompts} prompts are too few for an interval; ask for at least {FEWEST_PROMPTS}")


def identify(
    predictor: Callable[..., Tensor],
    setting: Setting,
    prompts: int = 512,
    seed: int = 0,
    user_file: UserFile | None = None,
) -> tuple[Match, list[Algorithm]]:
    """The match of a predictor on fresh prompts, and the algorithms fitted for it on the other half of them.

    Args:
        user_file: candidates of a user's file.

    Raises:
        LabError: fewer than `FEWEST_PROMPTS` prompts, or a candidate of the file that cannot answer.
    """
    _check_number(prompts)
    # Prompts are Any: a setting takes those that it draws itself.
    halves: list[Any] = [setting.sample(stream(seed, "diagnosis", half), prompts // 2) for half in ("fit", "judge")]
    fitted_on, judged_on = halves
    algorithms = fit(setting.answers(predictor, fitted_on), setting, fitted_on, user_file)
    return compare(setting.answers(predictor, judged_on), algorithms, setting, judged_on), algorithms


def attention(model: Any, predictor: Callable[..., Any], setting: Setting, prompts: Any) -> tuple[Head, ...]:
    """Where every head looks, of whatever has attention that can be watched; else nothing.

    Args:
        model: what the user named.
        predictor: it as a predictor.
        setting: whose prompts they are.
        prompts: some of them.
    """
    inputs = setting.watched(prompts)
    maps = mechanism.maps_of(model, predictor, setting.stored, inputs)
    if not maps:
        return ()
    for skip in (0, 1):  # a network may begin with a token of its own
        places = maps[0].shape[-1] - skip
        if relations := setting.relations(prompts, places):
            shares, built = [mechanism.within(layer, skip) for layer in maps], list[mechanism.Maps]()
            with contextlib.suppress(LabError):  # none is known of these sizes
                built = setting.constructions(prompts, places)
            looks = mechanism.looks(shares, relations, built)
            return tuple(
                Head(look.layer, look.head, look.relation, Estimate.of(look.shares), look.uniform, look.construction)
                for look in looks
            )
    return ()


def diagnose(
    model: Callable[..., Any] | StoredModel,
    setting: Setting,
    *,
    name: str = "predictor",
    task: str = "",
    prompts: int = 512,
    seed: int = 0,
    device: str = "cpu",
    user_file: UserFile | None = None,
) -> Diagnosis:
    """Everything about a predictor.

    Args:
        model: a callable of the setting's protocol, such as one of `lab.diagnosis.adapt`, or a stored transformer.
        setting: the prompts.
        name: what to call the predictor.
        task: what to call the setting.
        prompts: how many fresh ones: half to fit parameters, half to judge.
        seed: root of the prompts.
        device: where the predictor computes; a module is moved there, and so are its inputs.
        user_file: candidates of a user's file.

    Raises:
        LabError: too few prompts, a stored model that cannot read them, or a candidate of the file that cannot answer.
    """
    begun = time.perf_counter()
    _check_number(prompts)
    call = setting.stored(model) if isinstance(model, StoredModel) else model
    source = stream(seed, "diagnosis")
    subject = Subject(name, call, setting.shape, setting.log_answers, device)
    for module in (call, getattr(call, "module", None), getattr(model, "transformer", None)):
        if isinstance(module, torch.nn.Module):
            module.to(device)
    some: Any = setting.sample(source.child("judge"), max(1, prompts // 2))
    done = call.done if isinstance(call, Adapted) else evaluated(call)
    findings = [Finding("mode", sentence, False) for sentence in done] + answer_needed(call, setting.arguments)
    if not any(finding.stops for finding in findings):
        findings += settle_precision(subject, setting.inputs_of(some))
        findings += contract_findings(subject, setting.checks)
    if not any(finding.stops for finding in findings):
        findings += unread_query(subject, setting.arguments, setting.inputs_of(some))

    def report(**parts: Any) -> Diagnosis:
        seconds = time.perf_counter() - begun
        facts = dataclasses.asdict(cast(Any, setting))  # a dataclass, which a protocol cannot say
        return Diagnosis(name, task, facts, setting.error_unit, prompts, tuple(findings), seconds=seconds, **parts)

    def attempt(where: str, part: Callable[[], Part], stops: bool = False) -> Part | None:
        try:
            return part()
        except Failed as failed:
            findings.append(Finding(where, str(failed), stops))
            return None

    if any(finding.stops for finding in findings):
        return report()
    base = attempt("fresh prompts", lambda: identify(subject, setting, prompts, seed, user_file), stops=True)
    if base is None:
        return report()
    match, algorithms = base
    moves = partial(with_cosines, match, subject, algorithms, setting, some, source.child("moves"))
    by_length = {setting.size: base[0]}
    for length in setting.lengths():
        if length not in by_length:
            identified = attempt(
                f"context length {length}",
                partial(identify, subject, setting.at_length(length), prompts, seed, user_file),
            )
            by_length |= {length: identified[0]} if identified else {}

    def under(prompts: Any) -> Match:
        return compare(setting.answers(subject, prompts), algorithms, setting, prompts)

    def after_reordering() -> Estimate | None:
        reordered: Any = setting.reordered(some, source.child("order"))
        if all(map(torch.equal, setting.inputs_of(some), setting.inputs_of(reordered))):
            return None  # a single example has no other order
        return Estimate.positive(distance(setting.answers(subject, reordered), setting.answers(subject, some)))

    shifted = setting.shifts(source.child("shifts"), prompts // 2)
    found_under = {shift: attempt(shift, partial(under, shifted_prompts)) for shift, shifted_prompts in shifted.items()}
    return report(
        match=attempt("derivatives", moves) or match,
        by_length=dict(sorted(by_length.items())),
        shifts={shift: shifted_match for shift, shifted_match in found_under.items() if shifted_match is not None},
        reordering=attempt("reordered context", after_reordering),
        attention=attempt("attention", partial(attention, model, subject, setting, take(some, WATCHED))) or (),
    )
