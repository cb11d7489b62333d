"""Two runs of one task side by side: configurations, presets, stores, or records of verdicts.

A run is written ``TASK[:PRESET][,FIELD=VALUE…][@FOLDER]``. Without a folder it is judged like any other, and what is missing
is measured. With one it is judged on what lies there alone, whatever code measured it, so that an older store can be
compared with a newer one; nothing is measured into it. ``FILE.json`` is what ``lab check --json`` printed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape

from lab.catalogue import discover, find_parts
from lab.errors import LabError
from lab.execution import Session
from lab.figures import Sheet, save
from lab.files import path_from
from lab.report import Rows, damage, drawn_origins, number, origins, requirement
from lab.reproduction import Verdicts, judge_all
from lab.results import Results, ensure
from lab.runs import Job, Store, Stored, Unusable, digest, read
from lab.sweeps import changed
from lab.tasks import Measurement, Task

Record = Mapping[str, Any]
DRAWN = 12  # claims on the picture, the most different first


@dataclass(frozen=True)
class Side:
    """One of the two runs.

    Attributes:
        text: how it was written.
        tasks: names of the tasks whose claims it judges.
        records: verdicts by the id of their claim, as `lab check --json` prints them.
        missing: why a claim has no verdict, by its id.
    """

    text: str
    tasks: frozenset[str]
    records: Mapping[str, Record]
    missing: Mapping[str, str]


@dataclass(frozen=True)
class Row:
    """A claim on both sides, and what differs: "verdict", "apart" (no common point of the intervals), "number" or ""."""

    id: str
    first: Record
    second: Record
    differs: str


@dataclass(frozen=True)
class Comparison:
    """All claims that both sides judge, the most different first, and why others are not among them."""

    first: Side
    second: Side
    rows: tuple[Row, ...]
    missing: tuple[str, ...]

    @property
    def same_verdicts(self) -> bool:
        return all(row.differs != "verdict" for row in self.rows)


def side(text: str, session: Session) -> Side:
    """The run that ``text`` stands for, judged.

    Raises:
        LabError: an unknown task, preset, field or file, a folder that is not there, or a measurement that fails.
    """
    if text.endswith(".json"):
        return _from_records(text)
    run, _, folder = text.partition("@")
    name, *changes = run.split(",")
    file, colon, preset = name.rpartition(":")
    task, preset = (file, preset) if colon else (name, "ci")
    root = path_from(folder).absolute() if folder else None
    if root is not None and not root.is_dir():
        raise LabError(f"{text}: there is no results folder {folder}; name one that `lab run --results` wrote to")
    parts = [*find_parts(task)]
    parts += [
        part
        for part in discover()
        if part.name == parts[0].name and part not in parts and not (len(parts) == 1 and parts[0].part)
    ]
    configs = {part.key: part.config(preset) for part in parts}
    for change in changes:
        configs |= changed(parts, configs, change)
    verdicts, missing = Verdicts(), {}
    for part in parts:
        results = Results(part, configs[part.key], session) if root is None else _Read(part, configs[part.key], root)
        if root is None:
            ensure(results.jobs(list(part.measurements.values())), session)
        judge_all(results, list(part.claims.values()), preset, verdicts)
    judged = {judgement.claim.id: judgement.record() for judgement in verdicts.judgements}
    errors = list(verdicts.errors)
    for part in parts:
        for claim in set(part.claims) - set(judged):
            missing[claim] = str(errors.pop(0)) if errors else "it could not be judged"
    return Side(text, frozenset(part.name for part in parts), judged, missing)


def _from_records(text: str) -> Side:
    try:
        records = json.loads(path_from(text).read_text(encoding="utf-8"))
        if wrong := next(filter(None, map(damage, records)), ""):
            raise ValueError(wrong)
        judged = {record["id"]: record for record in records}
    except OSError as error:
        raise LabError(f"{text} cannot be read: {(error.strerror or str(error)).lower()}; name another file") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise LabError(f"{text} does not hold what `lab check --json` prints ({error}); write it anew") from error
    return Side(text, frozenset(name.split("/")[0] for name in judged), judged, {})


class _Read(Results):
    """Results that are only read from a folder, whatever code they were measured with."""

    def __init__(self, task: Task, config: Any, root: Path) -> None:
        super().__init__(task, config, _ReadOnly(root, evidence=None, quiet=True))

    def __getitem__(self, measurement: Measurement) -> Any:
        if isinstance(measurement, Measurement):
            store = self.session.store
            lacking = [job for job in self.jobs([measurement]) if store.find(job) is None]
            if lacking:
                raise LabError(f"{lacking[0].label} is not stored in {self.session.results} at this configuration")
        return super().__getitem__(measurement)

    def vary(self, **changes: Any) -> Results:
        return _Read(self.task, super().vary(**changes).config, self.session.results)


@dataclass(frozen=True)
class _ReadOnly(Session):
    @property
    def store(self) -> Store:
        return Store(self.results, _of_any_code(self.results))


def _of_any_code(root: Path) -> Callable[[Job], Stored | None]:
    """Finds the result of a job that differs in nothing but code and versions."""

    def find(job: Job) -> Stored | None:
        for path in sorted((root / job.task / job.measurement).glob(f"*/{job.path.name}")):
            try:
                data, manifest = read(path)
                identity = {**manifest["identity"], "source": job.source, "versions": dict(job.versions)}
                if identity == job.identity and manifest["digest"] == digest(data):
                    return Stored(data, ())
            except (Unusable, KeyError, TypeError):
                continue
        return None

    return find


def require_one_task(first: str, second: str) -> None:
    """Refuse two texts that stand for runs of different tasks, before either is measured or judged.

    Raises:
        LabError: they do, or one of them names no task.
    """
    if first.endswith(".json") or second.endswith(".json"):
        return  # what records are of is known when they are read
    tasks = [frozenset(part.name for part in find_parts(_task_of(text))) for text in (first, second)]
    _require_common(first, tasks[0], second, tasks[1])


def _task_of(text: str) -> str:
    name = text.partition("@")[0].split(",")[0]
    return name.rpartition(":")[0] or name


def _require_common(first: str, first_tasks: frozenset[str], second: str, second_tasks: frozenset[str]) -> None:
    if not first_tasks & second_tasks:
        raise LabError(
            f"{first} is a run of {', '.join(sorted(first_tasks)) or 'nothing'} and {second} one of "
            f"{', '.join(sorted(second_tasks)) or 'nothing'}, which judge different claims; "
            "compare two runs of one task"
        )


def compare(first: Side, second: Side) -> Comparison:
    """What differs between two runs.

    Raises:
        LabError: they are runs of different tasks, or have no claim in common.
    """
    _require_common(first.text, first.tasks, second.text, second.tasks)
    common = [name for name in first.records if name in second.records]
    missing = [
        f"{name}: {side.missing.get(name, f'not among the claims of {side.text}')}"
        for side, other in ((first, second), (second, first))
        for name in {**other.records, **side.missing}
        if name not in side.records
    ]
    if not common:
        raise LabError(f"{first.text} and {second.text} have no judged claim in common: {'; '.join(missing[:2])}")
    rows = [
        Row(name, first.records[name], second.records[name], _difference(first.records[name], second.records[name]))
        for name in common
    ]
    rank = {"verdict": 0, "apart": 1, "number": 2, "": 3}
    return Comparison(
        first, second, tuple(sorted(rows, key=lambda row: rank[row.differs])), tuple(dict.fromkeys(missing))
    )


def _difference(first: Record, second: Record) -> str:
    if first["verdict"] != second["verdict"]:
        return "verdict"
    if first["interval"] and second["interval"]:
        (low, high), (below, above) = (tuple(map(float, side["interval"])) for side in (first, second))
        if high < below or above < low:
            return "apart"
    return "number" if (first["measured"], first["interval"]) != (second["measured"], second["interval"]) else ""


def tables(comparison: Comparison, everything: bool = False) -> list[Rows]:
    """The claims that differ (or all), both sides next to each other."""
    shown = [row for row in comparison.rows if row.differs or everything]
    if not shown:
        return []
    measured, words = ("A measured", "B measured"), ("origin", "verdict")
    columns = ("claim", "A measured", "A interval", "B measured", "B interval", "bound", "origin", "verdict", "differs")
    title = f"A = {comparison.first.text}, B = {comparison.second.text}"
    styles = {place: "bold red" for place, row in enumerate(shown) if row.differs == "verdict"}
    return [Rows(columns, list(map(_cells, shown)), words, title, measured, styles)]


def _cells(row: Row) -> list[str]:
    sides = (row.first, row.second)
    measured = [cell for side in sides for cell in (number(side["measured"]), _interval(side))]
    required = " or ".join(dict.fromkeys(map(requirement, sides)))
    verdict = " -> ".join(dict.fromkeys(side["verdict"] for side in sides))
    return [row.id, *measured, required, escape(origins(sides)), verdict, row.differs]


def _interval(record: Record) -> str:
    return " to ".join(number(end) for end in record["interval"]) if record["interval"] else ""


def summary(comparison: Comparison) -> str:
    """How many verdicts and numbers differ, and what could not be compared."""
    count = {kind: sum(row.differs == kind for row in comparison.rows) for kind in ("verdict", "apart", "number", "")}
    differing = [
        f"{count['verdict']} {'verdict differs' if count['verdict'] == 1 else 'verdicts differ'}",
        f"intervals are apart in {count['apart']}",
        f"numbers differ in {count['number']} more",
        f"{count['']} {'is' if count[''] == 1 else 'are'} the same",
    ]
    claims = f"{len(comparison.rows)} claim{'s' * (len(comparison.rows) != 1)}"
    lines = [f"{claims} on both sides: {', '.join(differing)}."]
    if missing := len(comparison.missing):
        lines.append(f"{missing} {'is' if missing == 1 else 'are'} not on both sides, such as {comparison.missing[0]}.")
    return "\n".join(lines)


def draw(comparison: Comparison, folder: Path) -> Path | None:
    """``comparison.png`` and its data: measured values and intervals of the claims that differ most, a panel each."""
    rows = [
        row for row in comparison.rows if row.differs and all(_drawable(record) for record in (row.first, row.second))
    ][:DRAWN]
    if not rows:
        return None
    columns = min(len(rows), 3)
    sheet = Sheet(
        -(-len(rows) // columns), columns, 3.4, 2.6, title=f"A: {comparison.first.text}    B: {comparison.second.text}"
    )
    for row in rows:
        ends = [_ends(record) for record in (row.first, row.second)]
        difference = "intervals apart" if row.differs == "apart" else f"another {row.differs}"
        panel = sheet.panel(
            f"{row.id.split('/', 1)[1]}: {difference}", x=f"run{drawn_origins([row.first, row.second])}", y="measured"
        )
        mean, low, high = (np.array(values) for values in zip(*ends, strict=True))
        samples = [max(int(record["samples"]), 1) for record in (row.first, row.second)]
        panel.intervals(
            ["A", "B"], mean, low, high, words="interval of the verdict, n = {n}", n=samples, name="measured"
        )
        if isinstance(row.first["bound"], int | float) and row.first["bound"] == row.second["bound"]:
            panel.level(row.first["bound"], name="bound")
    return save(sheet, folder, "comparison")


def _drawable(record: Record) -> bool:
    values = [record["measured"], *(record["interval"] or [])]
    return all(isinstance(value, int | float) for value in values)


def _ends(record: Record) -> tuple[float, float, float]:
    low, high = record["interval"] or (record["measured"], record["measured"])
    return float(record["measured"]), float(low), float(high)
