"""A task from beginning to end: measure, draw, judge; and keep what is official."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab import shipped
from lab.catalogue import discover
from lab.claims import Claim, Judgement, judge, timed
from lab.errors import LabError
from lab.execution import Session
from lab.figures import save
from lab.files import FOLDERS, PROJECT, write
from lab.report import records_file, records_text
from lab.results import Results, ensure
from lab.tasks import Task


def judge_all(results: Results, claims: Sequence[Claim], preset: str) -> list[Judgement]:
    judgements = []
    for claim in claims:
        begun = time.perf_counter()
        judgements.append(timed(judge(claim, results, preset), time.perf_counter() - begun))
    return judgements


def measure_and_draw(
    task: Task, preset: str, config: Any, seeds: Sequence[int] | None, session: Session
) -> list[Judgement]:
    """Take all measurements of ``task``, draw its figures beside the results, and judge all claims of its paper.

    Nothing that belongs to the project is written.
    """
    results = Results(task, config, session, seeds)
    _measure_and_draw(results, session.results / task.key / "figures")
    judgements = judge_all(results, list(task.claims.values()), preset)
    for other in [] if task.place not in FOLDERS else discover():
        if other.name == task.name and other.key != task.key:
            found = judge_all(Results(other, other.config(preset), session), list(other.claims.values()), preset)
            judgements = [*found, *judgements]
    return judgements


def reproduce(task: Task, session: Session) -> list[Judgement]:
    """Measure ``task`` at its ``ci`` preset, and keep what is official: evidence, figures, verdicts.

    Raises:
        LabError: it is not a task of the project.
    """
    if task.place not in FOLDERS:
        raise LabError(f"{task.file} is not the project's, so nothing official is made from it; use `lab run` for it")
    results = Results(task, task.config("ci"), session)
    _measure_and_draw(results, PROJECT / "figures" / task.key)
    shipped.ship(results.jobs(list(task.measurements.values())), session.store, shipped.FOLDER)
    judgements = judge_all(results, list(task.claims.values()), "ci")
    write(records_file(task), records_text([judgement.record() for judgement in judgements]).encode())
    return judgements


def _measure_and_draw(results: Results, folder: Path) -> None:
    task = results.task
    ensure(results.jobs(list(task.measurements.values())), results.session)
    for name, draw in task.figures.items():
        print(f"drew {save(draw(results), folder, name)}", flush=True)
