"""``lab run --dry-run``: what would be measured, and how long it took the last time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.markup import escape

from lab import shipped
from lab.report import Rows
from lab.reproduction import Chosen
from lab.results import Results
from lab.stored import age_text, span


@dataclass(frozen=True)
class Planned:
    """One measurement as it would be taken.

    Attributes:
        task, measurement: whose and which.
        members: its seeds or cases, in words.
        calls: how many calls it takes.
        missing: how many of them are not stored.
        seconds: what the missing calls took the last time they were taken at this configuration, whatever has changed in
            the code since; None where that is known of none of them.
        known: of how many of the missing calls that is known.
    """

    task: str
    measurement: str
    members: str
    calls: int
    missing: int
    seconds: float | None
    known: int


def plan(parts: Sequence[Results], chosen: Mapping[str, Chosen]) -> list[Planned]:
    """What ``lab run`` would measure, in its order; nothing is written."""
    planned = []
    for part in parts:
        for measurement in chosen[part.task.key].measurements:
            jobs = part.jobs([measurement])
            missing = [job for job in jobs if part.session.store.load(job) is None]
            seconds = [last for job in missing if (last := shipped.last_seconds(part.session.results, job)) is not None]
            members = ", ".join(measurement.cases) if measurement.cases else _seeds(part.seeds(measurement))
            total = sum(seconds) if seconds else None
            planned.append(
                Planned(part.task.key, measurement.name, members, len(jobs), len(missing), total, len(seconds))
            )
    return planned


def table(planned: Sequence[Planned]) -> Rows:
    """A row for each measurement."""
    columns = ("task", "measurement", "seeds or cases", "calls", "to be made", "took")
    rows = [
        [entry.task, entry.measurement, escape(entry.members), str(entry.calls), str(entry.missing), _took(entry)]
        for entry in planned
    ]
    return Rows(columns, rows, ("seeds or cases",))


def summary(planned: Sequence[Planned], workers: int) -> str:
    """What all of it comes to."""
    calls, missing = sum(entry.calls for entry in planned), sum(entry.missing for entry in planned)
    seconds = sum(entry.seconds or 0.0 for entry in planned)
    unknown = missing - sum(entry.known for entry in planned)
    if not missing:
        return f"all {calls} calls are stored; nothing would be measured"
    took = f"they took {age_text(seconds)} of computing the last time" if seconds else "none of them was taken before"
    rest = f", not counting {unknown} that were never taken at these sizes" if unknown and seconds else ""
    return f"{missing} of {calls} calls would be made, by {workers} process{'es' * (workers > 1)}; {took}{rest}"


def _took(entry: Planned) -> str:
    if not entry.missing:
        return "stored"
    if entry.seconds is None:
        return "unknown"
    partly = f" for {entry.known} of {entry.missing}" if entry.known < entry.missing else ""
    return f"{entry.seconds:.1f} s{partly}" if entry.seconds < 120 else f"{age_text(entry.seconds)}{partly}"


def _seeds(seeds: Sequence[Any]) -> str:
    if len(seeds) > 1 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return span(seeds[0], seeds[-1])
    return ", ".join(map(str, seeds[:6])) + (" …" if len(seeds) > 6 else "")
