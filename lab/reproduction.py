"""A task from beginning to end: measure, draw, judge, and keep what is official."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.catalogue import discover
from lab.claims import Claim, Judgement, judge, timed
from lab.execution import Session
from lab.figures import save
from lab.files import CLONE, PROJECT, write
from lab.report import records_file, records_text, refresh_readme
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
    """Take all measurements of ``task``, save its figures, and judge all claims of its paper.

    Figures of the unchanged ``ci`` preset go to ``figures/``, those of ``paper`` to a folder below; those of any
    other configuration or file stay with the results, as all do where there is no clone to write to.
    """
    results = Results(task, config, session, seeds)
    ensure(results.jobs(list(task.measurements.values())), session)
    folder = _figure_folder(task, preset, config, seeds, session)
    for name, draw in task.figures.items():
        path = save(draw(results), folder, name)
        print(f"drew {path}", flush=True)
    judgements = judge_all(results, list(task.claims.values()), preset)
    official = folder == PROJECT / "figures" / task.key
    if official:
        write(records_file(task), records_text([judgement.record() for judgement in judgements]).encode())
    for other in [] if task.place not in ("tasks", "proofs_check") else discover():
        if other.name == task.name and other.key != task.key:
            found = judge_all(Results(other, other.config(preset), session), list(other.claims.values()), preset)
            if official:
                write(records_file(other), records_text([judgement.record() for judgement in found]).encode())
            judgements = [*found, *judgements]
    if official:
        # Figures, verdicts and the tables made from them change together.
        refresh_readme()
    return judgements


def _figure_folder(task: Task, preset: str, config: Any, seeds: Sequence[int] | None, session: Session) -> Path:
    unchanged = CLONE and config == task.presets[preset] and seeds is None and task.place in ("tasks", "proofs_check")
    if unchanged and preset == "ci":
        return PROJECT / "figures" / task.key
    if unchanged and preset == "paper":
        return PROJECT / "figures" / task.key / "paper"
    return session.results / task.key / "figures"
