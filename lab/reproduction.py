"""A sheet from beginning to end: measure, draw, judge; and keep what is official."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lab import shipped
from lab.claims import Claim, Judgement, judge, timed
from lab.errors import LabError
from lab.execution import Session
from lab.figures import save
from lab.files import FOLDERS, write
from lab.pages import figure_folder
from lab.report import records_file, records_text
from lab.results import Results, ensure
from lab.runs import Job
from lab.tasks import Task


def judge_all(results: Results, claims: Sequence[Claim], preset: str) -> list[Judgement]:
    """Every claim judged on ``results``, with what that took."""
    judgements = []
    for claim in claims:
        begun = time.perf_counter()
        judgements.append(timed(judge(claim, results, preset), time.perf_counter() - begun))
    return judgements


def measure_and_draw(parts: Sequence[Results], preset: str) -> list[Judgement]:
    """Take all measurements of ``parts``, draw their figures beside the results as soon as each can be, judge all claims.

    Nothing that belongs to the project is written.
    """
    folders = {part.task.key: part.session.results / part.task.key / "figures" for part in parts}
    _measure_and_draw(parts, folders)
    return [judgement for part in parts for judgement in judge_all(part, list(part.task.claims.values()), preset)]


def reproduce(tasks: Sequence[Task], session: Session) -> list[Judgement]:
    """Measure ``tasks`` at their ``ci`` preset, and keep what is official: evidence, figures, verdicts.

    Raises:
        LabError: one of them is not a task of the project.
    """
    for task in tasks:
        if task.place not in FOLDERS:
            raise LabError(
                f"{task.file} is not the project's, so nothing official is made from it; use `lab run` for it"
            )
    parts = [Results(task, task.config("ci"), session) for task in tasks]
    _measure_and_draw(parts, {task.key: figure_folder(task.name) for task in tasks})
    judgements = []
    for part in parts:
        shipped.ship(part.jobs(list(part.task.measurements.values())), session.store, shipped.FOLDER)
        judged = judge_all(part, list(part.task.claims.values()), "ci")
        write(records_file(part.task), records_text([judgement.record() for judgement in judged]).encode())
        judgements += judged
    return judgements


def _measure_and_draw(parts: Sequence[Results], folders: Mapping[str, Path]) -> None:
    """Measure in the order of the parts; a figure is drawn when the last of its measurements has come in."""
    jobs = [job for part in parts for job in part.jobs(list(part.task.measurements.values()))]
    waiting: list[tuple[set[Path], Callable[[], None]]] = []
    for part in parts:
        for name, function in part.task.figures.items():
            needed = {job.path for job in part.jobs(part.task.needs(function))}
            waiting.append((needed, _drawing(part, name, folders[part.task.key])))

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


def _drawing(part: Results, name: str, folder: Path) -> Callable[[], None]:
    def plot() -> None:
        print(f"drew {save(part.task.figures[name](part), folder, name)}", flush=True)

    return plot
