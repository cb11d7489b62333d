"""A task measured and judged at several values of one field of its configuration: a table and a curve.

Every point is a run like any other, so that its measurements are stored where those of ``lab run`` are, and an interrupted
sweep continues where it stopped.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape

from lab.configuration import check_config, config_from_dict, plain
from lab.errors import LabError, described, kind_of, nearest
from lab.execution import Session
from lab.figures import Sheet, save
from lab.report import Rows, drawn_origins, number, origins, requirement
from lab.reproduction import Verdicts, judge_all
from lab.results import Results, ensure
from lab.tasks import Task

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Sweep:
    """What came out.

    Attributes:
        task: its name.
        field: what was varied.
        values: at which values, as they were written.
        places: the values as numbers where all are numbers, else as text.
        records: verdicts by claim, one a value; None where the claim could not be judged.
        errors: why not.
    """

    task: str
    field: str
    values: tuple[str, ...]
    places: tuple[float | str, ...]
    records: Mapping[str, tuple[Record | None, ...]]
    errors: tuple[LabError, ...]


def sweep(
    parts: Sequence[Task],
    configs: Sequence[Any],
    assignment: str,
    session: Session,
    preset: str = "ci",
    seeds: Sequence[int] | None = None,
) -> Sweep:
    """Measure and judge ``parts`` at every value that ``assignment``, as in "field=1,2,4", names.

    Args:
        configs: of the parts, which the other fields are taken from.
        seeds: instead of the configurations' number of them.

    Raises:
        LabError: no such field, no value, a value of another type, the same value twice, or a measurement that fails.
    """
    known = {part.key: config for part, config in zip(parts, configs, strict=True)}
    # All configurations are made before the first is measured, so that a mistake in the last costs nothing.
    field, values, points = points_of(parts, configs, assignment)
    varied = [part for part in parts if any(plain(point[part.key]) != plain(known[part.key]) for point in points)]
    runs = [[Results(part, point[part.key], session, seeds) for part in varied] for point in points]
    ensure(
        [job for run in runs for results in run for job in results.jobs(list(results.task.measurements.values()))],
        session,
    )
    records: dict[str, list[Record | None]] = {claim: [None] * len(values) for part in varied for claim in part.claims}
    errors: list[LabError] = []
    for place, run in enumerate(runs):
        verdicts = Verdicts()
        for results in run:
            judge_all(results, list(results.task.claims.values()), preset, verdicts)
        for judgement in verdicts.judgements:
            records[judgement.claim.id][place] = judgement.record()
        errors += [LabError(f"at {field}={values[place]}: {error}") for error in verdicts.errors]
    return Sweep(
        parts[0].key if len(parts) == 1 else parts[0].name,
        field,
        tuple(values),
        _places(values),
        {claim: tuple(claim_records) for claim, claim_records in records.items()},
        tuple(errors),
    )


def points_of(
    parts: Sequence[Task], configs: Sequence[Any], assignment: str
) -> tuple[str, list[str], list[dict[str, Any]]]:
    """The field that ``assignment`` names, its values as they were written, and the configurations of ``parts`` at each of them.

    Raises:
        LabError: as `sweep`, of which nothing is measured.
    """
    field, equals, text = assignment.partition("=")
    values = _values(text)
    if not equals or not values:
        raise LabError(f"--sweep {assignment!r} names no values; write FIELD=A,B,C, such as size=10,20,40")
    twice = next((value for value in values if values.count(value) > 1), None)
    if twice is not None:
        raise LabError(f"--sweep names {field}={twice} twice; name each value once")
    known = {part.key: config for part, config in zip(parts, configs, strict=True)}
    return field, values, [known | changed(parts, known, f"{field}={value}") for value in values]


def changed(parts: Sequence[Task], configs: Mapping[str, Any], change: str) -> dict[str, Any]:
    """The configurations of ``parts`` in which a field has another value.

    Args:
        configs: by the key of their part.
        change: "field=value"; a field of a nested dataclass is "outer.inner", one of a single part "part.field".

    Raises:
        LabError: no configuration has the field, or the value is not of its type.
    """
    field, equals, text = change.partition("=")
    if not equals:
        raise LabError(f"{change!r} sets nothing; write FIELD=VALUE")
    changed_configs = {}
    for part in parts:
        short = (part.part or part.name).replace("-", "_")
        path = field.removeprefix(f"{short}.").split(".")
        if path[0] in _fields(configs[part.key]):
            try:
                config = _with(configs[part.key], path, text)
                check_config(config)
            except LabError:
                raise
            except Exception as error:  # a configuration may refuse a value in a way of its own
                raise LabError(
                    f"{change} makes no configuration of {part.key}: {described(error, part.file)}"
                ) from error
            changed_configs[part.key] = config
    if not changed_configs:
        names = sorted({name for part in parts for name in _fields(configs[part.key])})
        raise LabError(
            f"no configuration of {parts[0].name} has a field {field!r}{nearest(field, names)}; the fields are {', '.join(names)}"
        )
    return changed_configs


def _fields(config: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(config)]


def _with(config: Any, path: Sequence[str], text: str) -> Any:
    name, *rest = path
    if name not in _fields(config):
        raise LabError(
            f"{type(config).__name__} has no field {name!r}{nearest(name, _fields(config))}; its fields are {', '.join(_fields(config))}"
        )
    if rest:
        inner = getattr(config, name)
        if not dataclasses.is_dataclass(inner):
            raise LabError(
                f"the field {name!r} of {type(config).__name__} has no fields of its own, so that {'.'.join(path)} is none"
            )
        return dataclasses.replace(config, **{name: _with(inner, rest, text)})
    return dataclasses.replace(config, **{name: _value(config, name, text)})


def _value(config: Any, name: str, text: str) -> Any:
    try:
        read = json.loads(text)
    except ValueError:
        read = {"True": True, "False": False, "None": None}.get(text, text)
    hint, now = typing.get_type_hints(type(config))[name], getattr(config, name)
    if isinstance(now, tuple) and not isinstance(read, list):
        read = [read]
    value = getattr(config_from_dict(type(config), {**plain(config), name: read}), name)
    if isinstance(now, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    choices = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
    if (choices and value not in choices) or (
        not choices and now is not None and value is not None and type(value) is not type(now)
    ):
        wanted = f"one of {', '.join(map(str, choices))}" if choices else f"{kind_of(now)}, such as {now!r}"
        raise LabError(f"{name}={text} is {kind_of(value)}, and the field {name!r} is {wanted}; change the value")
    return value


def _values(text: str) -> list[str]:
    """Values between commas; commas within brackets are part of a value.

    >>> _values("1,2"), _values("[1,2],[3]")
    (['1', '2'], ['[1,2]', '[3]'])
    """
    values, depth = [""], 0
    for sign in text:
        depth += (sign in "[{(") - (sign in ")}]")
        if sign == "," and depth == 0:
            values.append("")
        else:
            values[-1] += sign
    return [value.strip() for value in values if value.strip()]


def _places(values: Sequence[str]) -> tuple[float | str, ...]:
    try:
        return tuple(float(value) for value in values)
    except ValueError:
        return tuple(values)


def table(sweep: Sweep) -> Rows:
    """A row a claim, a column a value: what was measured, its interval, its verdict; and the bounds that it was held to."""
    values = [f"{sweep.field} = {value}" for value in sweep.values]
    rows = [
        [claim.split("/", 1)[1], *map(_cell, records), _bounds([record for record in records if record])]
        for claim, records in sweep.records.items()
    ]
    return Rows(("claim", *values, "bound"), rows, ("bound",), f"{sweep.task} over {sweep.field}", values, lines=True)


def _cell(record: Record | None) -> str:
    if record is None:
        return "not judged"
    interval = [" to ".join(number(end) for end in record["interval"])] if record["interval"] else []
    return "\n".join([number(record["measured"]), *interval, record["verdict"]])


def _bounds(records: Sequence[Record]) -> str:
    required = " or ".join(dict.fromkeys(map(requirement, records)))
    return f"{required} [dim]{escape(origins(records))}[/dim]"


def draw(sweep: Sweep, folder: Path) -> Path | None:
    """``FIELD.png`` and its data: what each claim measured over the values, with the intervals of its verdicts."""
    shown = {
        claim: [
            (place, record) for place, record in zip(sweep.places, records, strict=True) if record and _drawable(record)
        ]
        for claim, records in sweep.records.items()
    }
    shown = {claim: points for claim, points in shown.items() if len(points) > 1}
    if not shown:
        return None
    columns = min(len(shown), 3)
    sheet = Sheet(-(-len(shown) // columns), columns, 3.6, 2.8)
    for claim, points in shown.items():
        origin = drawn_origins([record for _, record in points])
        panel = sheet.panel(f"{claim.split('/', 1)[1]} over {sweep.field}", x=f"{sweep.field}{origin}", y="measured")
        ends = [record["interval"] or [record["measured"]] * 2 for _, record in points]
        panel.intervals(
            [place for place, _ in points],
            np.array([record["measured"] for _, record in points], dtype=float),
            np.array([low for low, _ in ends], dtype=float),
            np.array([high for _, high in ends], dtype=float),
            words="interval of the verdict, n = {n}",
            n=[max(int(record["samples"]), 1) for _, record in points],
            name="measured",
            join=not isinstance(points[0][0], str),
        )
        bounds = [record["bound"] for _, record in points]
        if all(isinstance(bound, int | float) for bound in bounds):
            if len(set(bounds)) == 1:
                panel.level(bounds[0], name="bound")
            else:
                panel.theory([place for place, _ in points], bounds, name="bound")
    return save(sheet, folder, sweep.field.replace(".", "-"))


def _drawable(record: Record) -> bool:
    return all(isinstance(value, int | float) for value in [record["measured"], *(record["interval"] or [])])
