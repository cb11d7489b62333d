"""A sheet from beginning to end: measure, draw, judge; and keep what is official."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lab import shipped
from lab.claims import Claim, Judgement, judge, timed
from lab.errors import LabError, told
from lab.execution import Session
from lab.figures import Sheet, save
from lab.files import FOLDERS, require_writable, write
from lab.pages import figure_folder
from lab.report import records_file, records_text
from lab.results import Results, ensure
from lab.runs import Job
from lab.tasks import Task

logger = logging.getLogger("lab")


@dataclass
class Verdicts:
    """What came out: the verdicts, and the errors of the claims and figures of which nothing came out."""

    judgements: list[Judgement] = field(default_factory=list)
    errors: list[LabError] = field(default_factory=list)

    def require(self) -> list[Judgement]:
        """The verdicts, where all there are to be came out.

        Raises:
            LabError: that of the first claim or figure of which nothing came out.
        """
        if self.errors:
            raise self.errors[0]
        return self.judgements


def warn_of_few_seeds(results: Results, claims: Sequence[Claim], preset: str) -> None:
    """Say before the work which claims the seeds asked for cannot decide; at ``smoke``, where none counts, cannot judge."""
    few: dict[tuple[int, int], list[str]] = {}
    for claim in claims:
        least = results.task.least_seeds(claim.check)
        least = min(least, 2) if preset == "smoke" else least
        numbers = [len(results.seeds(one)) for one in results.task.needs(claim.check) if not one.cases]
        if numbers and max(numbers) < least:
            few.setdefault((max(numbers), least), []).append(claim.id)
    for (number, least), names in few.items():
        logger.warning("too few seeds to decide %s: %d where at least %d are needed", ", ".join(names), number, least)


def judge_all(results: Results, claims: Sequence[Claim], preset: str, verdicts: Verdicts) -> None:
    """Judge every claim on ``results``, with what that took; one that cannot be judged does not keep the others from it."""
    for claim in claims:
        begun = time.perf_counter()
        try:
            judgement = judge(claim, results, preset)
        except LabError as error:
            verdicts.errors.append(error)
        else:
            verdicts.judgements.append(timed(judgement, time.perf_counter() - begun))


def measure_and_draw(parts: Sequence[Results], preset: str) -> Verdicts:
    """Take all measurements of ``parts``, draw their figures beside the results as soon as each can be, judge all claims.

    Nothing that belongs to the project is written.
    """
    folders = {part.task.key: part.session.results / part.task.key / "figures" for part in parts}
    verdicts = Verdicts()
    require_writable(*(folders[part.task.key] for part in parts if part.task.figures))
    _measure_and_draw(parts, folders, verdicts)
    for part in parts:
        judge_all(part, list(part.task.claims.values()), preset, verdicts)
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
    _measure_and_draw(parts, {task.key: figure_folder(task.name) for task in tasks}, verdicts)
    judgements = verdicts.require()
    for part in parts:
        shipped.ship(part.jobs(list(part.task.measurements.values())), session.store, shipped.FOLDER)
        found = Verdicts()
        judge_all(part, list(part.task.claims.values()), "ci", found)
        judged = found.require()
        write(records_file(part.task), records_text([judgement.record() for judgement in judged]).encode())
        judgements += judged
    return judgements


def _measure_and_draw(parts: Sequence[Results], folders: Mapping[str, Path], verdicts: Verdicts) -> None:
    """Measure in the order of the parts; a figure is drawn when the last of its measurements has come in."""
    jobs = [job for part in parts for job in part.jobs(list(part.task.measurements.values()))]
    waiting: list[tuple[set[Path], Callable[[], None]]] = []
    for part in parts:
        for name, function in part.task.figures.items():
            needed = {job.path for job in part.jobs(part.task.needs(function))}
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
    """Draws a figure; an error of its own is noted, as measurements and other figures do not hang on it."""

    def plot() -> None:
        try:
            picture = save(_sheet(part, name), folder, name)
        except LabError as error:
            verdicts.errors.append(LabError(f"the figure {name} of {part.task.key}: {error}"))
        except Exception as error:  # words that cannot be set, as a formula that does not end
            where = told(error, part.task.file)
            verdicts.errors.append(LabError(f"the figure {name} of {part.task.key} cannot be drawn: {where}"))
        else:
            print(f"drew {picture}", flush=True)

    return plot


def _sheet(part: Results, name: str) -> Sheet:
    try:
        sheet = part.task.figures[name](part)
    except (LabError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise LabError(f"it cannot be drawn: {told(error, part.task.file)}") from error
    if not isinstance(sheet, Sheet):
        raise LabError(f"it returned a {type(sheet).__name__}; return the Sheet that its panels are on")
    return sheet
