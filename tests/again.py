"""Which measurements the suite takes again although they ship: a share that rotates with the commit.

A plan is made from what the packs say that each measurement cost. It is the same in every process.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lab import shipped
from lab.claims import Judgement
from lab.files import PROJECT
from lab.results import Results
from lab.runs import Job, Unusable
from lab.tasks import Measurement, Task

# CPU-seconds a run of the suite spends on measurements that only exact claims use, and on all others.
EXACT_SECONDS = 40.0
OTHER_SECONDS = 48.0

Name = tuple[str, str]  # key of the task, name of the measurement


@dataclass(frozen=True)
class Plan:
    """What is measured again, and what waits for another commit (or, being too long for a share, for `make verify`)."""

    again: tuple[Name, ...]
    waiting: tuple[Name, ...]
    too_long: tuple[Name, ...]


@cache
def commit() -> str:
    """The commit under test; one text for all where there is no repository."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=PROJECT, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else "no commit"


def turn(name: str, one_in: int) -> bool:
    """Whether it is the turn of ``name`` in this commit, as it is in one commit of ``one_in``."""
    return int(hashlib.sha256(f"{commit()} {name}".encode()).hexdigest(), 16) % one_in == 0


def plan(seconds: Mapping[Name, float], exact: Iterable[Name], seed: str) -> Plan:
    """Share out the budgets.

    Args:
        seconds: what each shipped measurement cost.
        exact: those that only exact claims use.
        seed: another one gives another order.
    """
    exact = set(exact)
    again: list[Name] = []
    waiting: list[Name] = []
    too_long: list[Name] = []
    for names, budget in (
        ([name for name in seconds if name in exact], EXACT_SECONDS),
        ([name for name in seconds if name not in exact], OTHER_SECONDS),
    ):
        left = budget
        for name in sorted(names, key=lambda name: hashlib.sha256(repr((seed, name)).encode()).hexdigest()):
            if seconds[name] > budget:
                too_long.append(name)
            elif seconds[name] > left:
                waiting.append(name)
            else:
                left -= seconds[name]
                again.append(name)
    return Plan(tuple(sorted(again)), tuple(sorted(waiting)), tuple(sorted(too_long)))


def costs(results: Mapping[str, Results]) -> dict[Name, float]:
    """The measurements whose shipped numbers the suite judges by, with their cost; the others are measured anyway."""
    seconds = {}
    for key, measured in results.items():
        for measurement in measured.task.measurements.values():
            calls = measured.jobs([measurement])
            if calls and all(shipped.find(shipped.FOLDER, call) is not None for call in calls):
                seconds[key, measurement.name] = shipped.unpack(shipped.file_of(shipped.FOLDER, calls[0])).seconds
    return seconds


def outdated(path: Path, jobs: Iterable[Job]) -> str:
    """Why the pack in ``path`` is not what these calls measure, versions aside; empty if it is."""
    try:
        pack = shipped.unpack(path)
    except Unusable as error:
        return f"{path}: {error}"
    members: dict[str, Any] = {"seeds": [], "cases": {}}
    for job in jobs:
        if shipped.file_of(shipped.FOLDER, job) != path:
            continue
        for name in ("measurement", "config", "source"):
            if pack.identity[name] != job.common[name]:
                return f"{path} was measured with another {name}"
        members["seeds"] += job.seeds
        members["cases"] |= {job.case: dict(job.settings)} if job.case else {}
    if any(stored != members[name] for name, stored in pack.members.items()):
        return f"{path} holds other {' and '.join(pack.members)} than the measurement has"
    return ""


def used(task: Task, judgements: Iterable[Judgement], *, exact: bool) -> set[Name]:
    """The measurements that claims of ``task`` use; with ``exact`` those that nothing sampled uses."""
    every: set[Name] = set()
    sampled: set[Name] = set()
    for judgement in judgements:
        names = {(task.key, measurement.name) for measurement in task.needs(judgement.claim.check)}
        every |= names
        if any(
            evidence.sampled for evidence in (judgement.evidence, *(control.evidence for control in judgement.controls))
        ):
            sampled |= names
    return every - sampled if exact else every


class Mixed(Results):
    """Results in which some measurements are fresh and the others are what the suite judges by.

    Where ``everything`` is fresh, so is what a claim asks of another part.
    """

    def __init__(self, judged_by: Results, fresh: Results, names: Iterable[str], everything: bool = False) -> None:
        super().__init__(judged_by.task, judged_by.config, (fresh if everything else judged_by).session)
        self._judged_by, self._fresh, self._names = judged_by, fresh, frozenset(names)

    def __getitem__(self, measurement: Measurement) -> object:
        return (self._fresh if measurement.name in self._names else self._judged_by)[measurement]


def summary(plan: Plan) -> list[str]:
    """What to print at the end of a run."""
    lines = [f"measured again and compared with what ships: {_names(plan.again)}"]
    if plan.waiting:
        lines.append(f"left to another commit: {_names(plan.waiting)}")
    if plan.too_long:
        lines.append(f"too long for a share, left to `make verify`: {_names(plan.too_long)}")
    return lines


def _names(names: Iterable[Name]) -> str:
    return ", ".join(f"{key} {name}" for key, name in names) or "none"
