"""A sheet from beginning to end: measure, draw, judge; and keep what is official."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from lab import shipped
from lab.catalogue import is_called
from lab.claims import Claim, Judgement, judge, timed
from lab.errors import LabError, described, kind_of, located, nearest, place_of
from lab.execution import Session
from lab.figures import Sheet, save
from lab.files import FOLDERS, require_writable, write
from lab.pages import figure_folder
from lab.power import ENOUGH
from lab.report import Rows, records_file, records_text
from lab.results import Results, ensure
from lab.runs import Job
from lab.tasks import Measurement, Task

logger = logging.getLogger("lab")


@dataclass
class Verdicts:
    """What came out: the verdicts, the errors of the claims and figures of which nothing came out, and ids of those claims."""

    judgements: list[Judgement] = field(default_factory=list)
    errors: list[LabError] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    @property
    def sentences(self) -> list[str]:
        """How many verdicts are the expected ones, and how many there are none of."""
        judged = [judgement for judgement in self.judgements if not judgement.lone]
        good = sum(judgement.verdict == judgement.claim.expected for judgement in judged)
        open_ = sum(not all(outcome.rejected for outcome in judgement.controls) for judgement in judged)
        sentences = []
        if judged:
            controls = f"; a control of {open_} was not rejected" if open_ else ", with every control rejected"
            sentences.append(f"{good} of {len(judged)} verdicts are the expected ones{controls}.")
        if self.lost:
            lost, all_ = len(self.lost), len(self.lost) + len(self.judgements)
            none = "have no verdict, for the reasons" if lost > 1 else "has no verdict, for the reason"
            sentences.append(
                f"{lost} of {all_} claim{'s' * (all_ > 1)} could not be judged and {none} given: {', '.join(self.lost)}."
            )
        if len(judged) < len(self.judgements):
            sentences.append("One seed shows values and decides nothing; measure at least 2 for verdicts.")
        return sentences or ["There is no claim to judge."]

    @property
    def chances(self) -> Chances:
        """How likely fresh seeds are to give the same verdicts."""
        return Chances(self.judgements)

    def require(self) -> list[Judgement]:
        """The verdicts, where all there are to be came out.

        Raises:
            LabError: that of the first claim or figure of which nothing came out.
        """
        if self.errors:
            raise self.errors[0]
        return self.judgements


class Chances:
    """How likely fresh seeds are to give the outcomes of ``judgements`` again (`lab.power`).

    Attributes:
        sampled: the chance of each claim that is sampled, the least certain first.
        unlikely: how many of them have a chance below `lab.power.ENOUGH`.
        summary: both in a sentence.
    """

    def __init__(self, judgements: Sequence[Judgement]) -> None:
        known = {judgement.claim.id: judgement.chance for judgement in judgements if judgement.chance is not None}
        self.sampled = dict(sorted(known.items(), key=lambda entry: entry[1]))
        self.unlikely = sum(chance < ENOUGH for chance in self.sampled.values())
        number, all_ = len(self.sampled), len(judgements)
        self.summary = (
            f"{number} of {all_} claim{'s' * (all_ != 1)} {'is' if number == 1 else 'are'} sampled; {self.unlikely} of them "
            f"{'has' if self.unlikely == 1 else 'have'} a chance below {ENOUGH} of the same outcome on fresh seeds."
            if number
            else "There is no sampled claim."
        )

    def table(self, number: int) -> Rows:
        """The ``number`` least certain claims."""
        rows = [[claim, f"{chance:.3f}"] for claim, chance in list(self.sampled.items())[:number]]
        return Rows(("claim", "chance of the same outcome"), rows)


@dataclass(frozen=True)
class Chosen:
    """What of a task is measured, drawn and judged.

    Attributes:
        measurements: those asked for, and those that the figures and claims need, in the order of the file.
        figures: their names.
        claims: those to judge.
    """

    measurements: list[Measurement]
    figures: list[str]
    claims: list[Claim]

    @classmethod
    def everything(cls, task: Task) -> Chosen:
        """All of ``task``."""
        return cls(list(task.measurements.values()), list(task.figures), list(task.claims.values()))

    @classmethod
    def named(cls, task: Task, names: Sequence[str]) -> Chosen:
        """What is called one of ``names`` (shell wildcards): a figure, a measurement, or a claim by its id, by what
        stands after the slash in it, or by its function."""

        def called(candidate: str) -> bool:
            return any(fnmatchcase(candidate, name) for name in names)

        figures = [figure for figure in task.figures if called(figure)]
        claims = [
            claim
            for claim in task.claims.values()
            if called(claim.check.__name__) or any(is_called(claim, name) for name in names)
        ]
        behind: list[Callable[..., Any]] = [
            *(task.figures[figure] for figure in figures),
            *(claim.check for claim in claims),
        ]
        needed = {measurement.name for function in behind for measurement in task.needs(function)}
        measurements = [
            measurement
            for measurement in task.measurements.values()
            if measurement.name in needed or called(measurement.name)
        ]
        return cls(measurements, figures, claims)


def choose(tasks: Sequence[Task], names: Sequence[str]) -> dict[str, Chosen]:
    """What ``names`` call among ``tasks``, by their keys; everything where there is no name.

    Raises:
        LabError: a name calls nothing, or there is nothing in any of the tasks.
    """
    if all(Chosen.everything(task) == Chosen([], [], []) for task in tasks):
        raise LabError(
            f"{tasks[0].file.name} has no measurement, figure or claim, so that there is nothing to run; add one, as in the "
            "file that `lab new` writes"
        )
    for name in names:
        if not any(Chosen.named(task, [name]) != Chosen([], [], []) for task in tasks):
            known = [candidate for task in tasks for candidate in (*task.figures, *task.measurements)]
            known += [claim.id.partition("/")[2] for task in tasks for claim in task.claims.values()]
            raise LabError(
                f"--only {name} names no figure, claim or measurement of {tasks[0].name}{nearest(name, known)}; "
                f"the names are {', '.join(known)}"
            )
    return {task.key: Chosen.named(task, names) if names else Chosen.everything(task) for task in tasks}


def warn_of_few_seeds(results: Results, claims: Sequence[Claim], preset: str) -> None:
    """Say before the work which claims the seeds asked for cannot decide; at ``smoke``, where none counts, cannot judge."""
    few: dict[tuple[int, int], list[str]] = {}
    for claim in claims:
        least = results.task.least_seeds(claim.check)
        least = min(least, 2) if preset == "smoke" else least
        numbers = [
            len(results.seeds(measurement)) for measurement in results.task.needs(claim.check) if not measurement.cases
        ]
        if numbers and max(numbers) < least:
            few.setdefault((max(numbers), least), []).append(claim.id)
    for (number, least), names in few.items():
        logger.warning("too few seeds to decide %s: %d where at least %d are needed", ", ".join(names), number, least)


def judge_all(results: Results, claims: Sequence[Claim], preset: str, verdicts: Verdicts) -> None:
    """Judge every claim on ``results``, with what that took; one that cannot be judged does not keep the others from it."""
    sampled = 0
    for claim in claims:
        begun = time.perf_counter()
        try:
            judgement = judge(claim, results, preset)
            _require_samples(judgement, results)
        except LabError as error:
            verdicts.errors.append(error)
            verdicts.lost.append(claim.id)
        else:
            verdicts.judgements.append(timed(judgement, time.perf_counter() - begun))
            sampled += judgement.sampled
    budget = results.task.judgements
    if budget is not None and sampled > budget:
        verdicts.errors.append(
            LabError(
                f"{results.task.file.name} judges {sampled} sampled numbers, and judgements={budget} divides its false-alarm "
                f"budget over fewer; write judgements={sampled} or more"
            )
        )


def _require_samples(judgement: Judgement, results: Results) -> None:
    """One seed shows a value; one sample of several seeds is a mistake of the check."""
    number = max(
        (
            len(results.seeds(measurement))
            for measurement in results.task.needs(judgement.claim.check)
            if not measurement.cases
        ),
        default=1,
    )
    if judgement.lone and number > 1:
        raise LabError(
            f"{judgement.claim.id}: its evidence rests on one sample, although {number} seeds were measured; give Evidence a "
            "number for each seed"
        )


def apart(folder: Path, task: Task) -> Path:
    """The part of ``folder`` for pictures of ``task``: all of it for the project's own, whose names are all different; for a
    file of one's own a folder named after the path of the file, as another file may name its task alike.
    """
    if task.place in FOLDERS:
        return folder
    return folder / hashlib.sha256(str(task.file.resolve()).encode()).hexdigest()[:8]


def measure_and_draw(parts: Sequence[Results], preset: str, chosen: Mapping[str, Chosen] | None = None) -> Verdicts:
    """Take measurements of ``parts``, draw their figures beside the results as soon as each can be, judge their claims.

    Nothing that belongs to the project is written.

    Args:
        chosen: by key of a part, what of it is wanted; everything of all if left out.
    """
    wanted = {part.task.key: Chosen.everything(part.task) for part in parts} if chosen is None else chosen
    folders = {part.task.key: apart(part.session.results / part.task.key / "figures", part.task) for part in parts}
    verdicts = Verdicts()
    require_writable(*(folders[part.task.key] for part in parts if wanted[part.task.key].figures))
    _measure_and_draw(parts, folders, verdicts, wanted)
    for part in parts:
        judge_all(part, wanted[part.task.key].claims, preset, verdicts)
    return verdicts


def reproduce(tasks: Sequence[Task], session: Session) -> list[Judgement]:
    """Measure ``tasks`` at their ``ci`` preset, and keep what is official: evidence, figures, verdicts.

    Raises:
        LabError: one of them is not a task of the project, or a figure or claim of one raises.
    """
    for task in tasks:
        if task.place not in FOLDERS:
            raise LabError(
                f"{task.file} is not the project's, so nothing official is made from it; use `lab run` for it"
            )
    parts = [Results(task, task.config("ci"), session) for task in tasks]
    require_writable(*(folder for task in tasks for folder in (figure_folder(task.name), records_file(task).parent)))
    verdicts = Verdicts()
    everything = {task.key: Chosen.everything(task) for task in tasks}
    _measure_and_draw(parts, {task.key: figure_folder(task.name) for task in tasks}, verdicts, everything)
    judgements = verdicts.require()
    for part in parts:
        shipped.ship(part.jobs(list(part.task.measurements.values())), session.store, shipped.FOLDER)
        part_verdicts = Verdicts()
        judge_all(part, list(part.task.claims.values()), "ci", part_verdicts)
        judged = part_verdicts.require()
        write(records_file(part.task), records_text([judgement.record() for judgement in judged]).encode())
        judgements += judged
    return judgements


def _measure_and_draw(
    parts: Sequence[Results], folders: Mapping[str, Path], verdicts: Verdicts, chosen: Mapping[str, Chosen]
) -> None:
    """Measure in the order of the parts; a figure is drawn when the last of its measurements has come in."""
    jobs = [job for part in parts for job in part.jobs(chosen[part.task.key].measurements)]
    waiting: list[tuple[set[Path], Callable[[], None]]] = []
    for part in parts:
        for name in chosen[part.task.key].figures:
            needed = {job.path for job in part.jobs(part.task.needs(part.task.figures[name]))}
            waiting.append((needed, _drawing(part, name, folders[part.task.key], verdicts)))

    def arrived(job: Job) -> None:
        for entry in list(waiting):
            needed, plot = entry
            needed.discard(job.path)
            if not needed:
                waiting.remove(entry)
                plot()

    if parts:
        ensure(jobs, parts[0].session, arrived)
    for _, plot in waiting:  # figures of nothing measured
        plot()


def _drawing(part: Results, name: str, folder: Path, verdicts: Verdicts) -> Callable[[], None]:
    """Draws a figure; an error of its own is noted, as measurements and other figures do not depend on it."""

    def plot() -> None:
        try:
            picture = save(_sheet(part, name), folder, name)
        except LabError as error:
            verdicts.errors.append(LabError(f"the figure {name} of {part.task.key}: {error}"))
        except Exception as error:  # words that cannot be set, as a formula that does not end
            where = described(error, part.task.file)
            verdicts.errors.append(LabError(f"the figure {name} of {part.task.key} cannot be drawn: {where}"))
        else:
            print(f"drew {picture}", flush=True)

    return plot


def _sheet(part: Results, name: str) -> Sheet:
    try:
        sheet = part.task.figures[name](part)
    except KeyboardInterrupt:
        raise
    except LabError as error:
        raise LabError(located(error, part.task.file)) from error
    except BaseException as error:
        raise LabError(f"it cannot be drawn: {described(error, part.task.file)}") from error
    if not isinstance(sheet, Sheet):
        function = part.task.figures[name]
        raise LabError(f"{place_of(function)}it returned {kind_of(sheet)}; return the Sheet that its panels are on")
    return sheet
