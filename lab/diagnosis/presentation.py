"""What a diagnosis looks like: sentences and tables on the terminal, a figure, a JSON file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from lab.diagnosis.algorithms import RESOLUTION
from lab.diagnosis.comparison import Diagnosis, Estimate, Match, Row
from lab.figures import REFERENCES, THEORY, Drawing, label, panels, save, style
from lab.files import write
from lab.statistics import SHARE

FOLLOWED = 5  # algorithms whose distance is drawn at every context length
LINES = ("-", "--", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))
MARKERS = "os^Dv"


def number(value: float) -> str:
    """Three significant digits."""
    return f"{value:.3g}" if math.isfinite(value) else "infinite"


def interval(estimate: Estimate) -> str:
    """A mean and its interval."""
    if not math.isfinite(estimate.mean):
        return "infinite"
    return f"{number(estimate.mean)} ({number(estimate.low)} to {number(estimate.high)})"


def parameters(row: Row) -> str:
    """The fitted parameters of an algorithm."""
    return ", ".join(f"{name} {number(value)}" for name, value in row.fitted.items())


def verdict(match: Match) -> str:
    """One sentence: what the predictor is, or is closest to."""
    row = match.row(match.name)
    setting = f" ({parameters(row)})" if row.fitted else ""
    tied = f"; not told apart from {'; '.join(match.tied[1:])}" if len(match.tied) > 1 else ""
    if match.kind == "none":
        return (
            f"none of the {len(match.rows)} algorithms: the nearest, {match.name}, is no nearer than no answer at all"
        )
    if match.kind == "identical":
        return f"identical to {match.name}{setting}{tied}"
    return f"closest to {match.name}{setting}, at distance {interval(row.distance)}{tied}"


def sentences(diagnosis: Diagnosis) -> Iterator[str]:
    """The outcome in words, findings first."""
    for finding in diagnosis.findings:
        yield f"FINDING, {finding.where}: {finding.what}{'; the comparison stops here' if finding.stops else ''}"
    if diagnosis.match is None:
        return
    yield f"{diagnosis.subject} is {verdict(diagnosis.match)}."
    if diagnosis.reordering is not None:
        moved = diagnosis.reordering
        depends = moved.mean > RESOLUTION
        yield (
            f"Its answers {'depend' if depends else 'do not depend'} on the order of the context: "
            f"another order moves them by {interval(moved)}."
        )
    yield (
        f"Parameters are fitted on {diagnosis.prompts // 2} prompts and judged on as many "
        f"others; intervals are over prompts, either end wrong with probability {SHARE:g}; distance 0 is identical, "
        "1 as far as no answer."
    )


def tables(diagnosis: Diagnosis) -> Iterator[RenderableType]:
    """Every algorithm; every context length; every shift."""
    if diagnosis.match is None:
        return
    yield _algorithms(diagnosis, diagnosis.match)
    lengths = {str(length): match for length, match in diagnosis.by_length.items()}
    yield _matches("context length", "parameters fitted anew at every length", diagnosis, lengths)
    yield _matches("prompts", "parameters kept as they were fitted", diagnosis, diagnosis.shifts)


def _algorithms(diagnosis: Diagnosis, match: Match) -> Table:
    table = Table(title=f"{escape(diagnosis.subject)} on {escape(diagnosis.task)}", title_justify="left")
    for name in ("algorithm", "fitted", "distance", "cosine, query", "cosine, context", diagnosis.error_unit):
        table.add_column(name, justify="left" if name in ("algorithm", "fitted") else "right")
    table.add_row(f"[bold]{escape(diagnosis.subject)}[/bold]", "", "", "", "", interval(match.error))
    for row in match.rows:
        style = "bold green" if row.algorithm in match.tied else ""
        cosines = [interval(row.cosines[part]) if part in row.cosines else "" for part in ("query", "context")]
        table.add_row(
            row.algorithm, parameters(row), interval(row.distance), *cosines, interval(row.error), style=style
        )
    return table


def _matches(first: str, caption: str, diagnosis: Diagnosis, matches: Any) -> Table:
    table = Table(title=f"by {first}: {caption}", title_justify="left")
    for name in (first, diagnosis.error_unit, "of the closest", "closest", "fitted", "distance", "not told apart from"):
        table.add_column(name, justify="right" if name in (diagnosis.error_unit, "of the closest") else "left")
    for key, match in matches.items():
        row = match.row(match.name)
        table.add_row(
            key,
            interval(match.error),
            interval(row.error),
            match.name if match.kind != "none" else "none",
            parameters(row) if match.kind != "none" else "",
            interval(row.distance),
            "; ".join(match.tied[1:]) if match.kind != "none" else "",
        )
    return table


def plot(diagnosis: Diagnosis, match: Match) -> Drawing:
    """Distance to every algorithm, to the nearest ones by context length, the error by length, and the shifts."""
    with style():
        figure, axes = panels(2, 2, width=6.4, height=4.2)
        rows = [
            *_draw_algorithms(axes[0, 0], match),
            *_draw_lengths(axes[0, 1], diagnosis, match),
            *_draw_errors(axes[1, 0], diagnosis, match),
            *_draw_shifts(axes[1, 1], diagnosis, match),
        ]
    return Drawing(figure, pd.DataFrame(rows, columns=["panel", "of", "at", "mean", "low", "high"]))


def _entry(panel: str, of: str, at: str | int, value: Estimate) -> tuple[Any, ...]:
    return panel, of, at, value.mean, value.low, value.high


def _bars(
    axes: Axes, places: Any, values: list[Estimate], floor: float, horizontal: bool = False, **looks: Any
) -> None:
    """Means with their intervals, cut off at ``floor`` for a logarithmic axis."""
    means, low, high = (
        np.array([max(getattr(value, part), floor) for value in values]) for part in ("mean", "low", "high")
    )
    errors = np.maximum([means - low, high - means], 0)
    if horizontal:
        axes.errorbar(means, places, xerr=errors, capsize=2, **looks)
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlim(RESOLUTION / 2, 4)
    else:
        axes.errorbar(places, means, yerr=errors, capsize=2, **looks)
        axes.set_yscale("log")


def _draw_algorithms(axes: Axes, match: Match) -> list[tuple[Any, ...]]:
    places = np.arange(len(match.rows))[::-1]
    for name, looks in (
        ("closest", {"color": "#1f4e9e", "marker": "o"}),
        ("told apart", {"color": "#555555", "marker": "x"}),
    ):
        chosen = [
            (place, row.distance)
            for place, row in zip(places, match.rows, strict=True)
            if (row.algorithm in match.tied) == (name == "closest")
        ]
        if chosen:
            at, values = [place for place, _ in chosen], [value for _, value in chosen]
            _bars(axes, at, values, RESOLUTION, horizontal=True, linestyle="none", label=name, **looks)
    axes.set_yticks(places, [row.algorithm for row in match.rows], fontsize=7.5)
    axes.legend(loc="lower left")
    found = {"identical": f"Identical to {match.name}", "closest": f"Closest to {match.name}", "none": "Near none"}
    label(axes, found[match.kind], "distance (0 identical, 1 no answer; drawn from 1e-8)", "")
    return [_entry("algorithms", row.algorithm, "setting", row.distance) for row in match.rows]


def _draw_lengths(axes: Axes, diagnosis: Diagnosis, match: Match) -> list[tuple[Any, ...]]:
    rows = []
    lengths = list(diagnosis.by_length)
    for place, row in enumerate(match.rows[:FOLLOWED]):
        values = [there.row(row.algorithm).distance for there in diagnosis.by_length.values()]
        looks: dict[str, Any] = {"linestyle": LINES[place], "marker": MARKERS[place], "color": REFERENCES[place]}
        _bars(axes, lengths, values, RESOLUTION, label=row.algorithm, **looks)
        rows += [_entry("lengths", row.algorithm, at, value) for at, value in zip(lengths, values, strict=True)]
    axes.set_xticks(lengths)
    axes.yaxis.set_minor_locator(NullLocator())
    axes.legend(fontsize=7)
    count = len({there.name for there in diagnosis.by_length.values()})
    title = f"{count} algorithms are closest, by length" if count > 1 else "One algorithm is closest at every length"
    label(axes, title, "context length", "distance, fitted at each length")
    return rows


def _draw_errors(axes: Axes, diagnosis: Diagnosis, match: Match) -> list[tuple[Any, ...]]:
    there = diagnosis.by_length
    curves: dict[str, tuple[dict[int, Estimate], dict[str, Any]]] = {
        diagnosis.subject: ({at: one.error for at, one in there.items()}, {"color": "#d1495b", "marker": "o"}),
        match.name: ({at: one.row(match.name).error for at, one in there.items()}, THEORY | {"marker": "x"}),
    }
    rows = []
    for name, (values, looks) in curves.items():
        drawn = {at: value for at, value in values.items() if math.isfinite(value.mean) and value.mean > 0}
        if drawn:
            lowest = min(value.mean for value in drawn.values()) / 2
            _bars(axes, list(drawn), list(drawn.values()), lowest, label=name, **looks)
        rows += [_entry("errors", name, at, value) for at, value in values.items()]
    axes.set_xticks(list(there))
    axes.legend(fontsize=7)
    own, theirs = match.error.mean, match.row(match.name).error.mean
    ratio = number(own / theirs) if theirs > 0 and math.isfinite(own) else "not comparable"
    label(axes, f"Error over that of {match.name}: {ratio}", "context length", diagnosis.error_unit)
    return rows


def _draw_shifts(axes: Axes, diagnosis: Diagnosis, match: Match) -> list[tuple[Any, ...]]:
    cases = {"unchanged": match, **diagnosis.shifts}
    values = [there.row(match.name).distance for there in cases.values()]
    places = np.arange(len(cases))[::-1]
    _bars(axes, places, values, RESOLUTION, horizontal=True, color="#1f4e9e", marker="o", linestyle="none")
    axes.set_yticks(places, list(cases), fontsize=8)
    farthest = max(cases, key=lambda case: cases[case].row(match.name).distance.mean)
    away = cases[farthest].row(match.name).distance.mean > RESOLUTION
    title = f"Farthest: {farthest}" if away else "No shift leads away"
    label(axes, title, f"distance to {match.name}, parameters kept", "")
    return [_entry("shifts", match.name, at, value) for at, value in zip(cases, values, strict=True)]


def plain(value: Any) -> Any:
    """As JSON can say it: infinity and not-a-number as null."""
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def store(diagnosis: Diagnosis, folder: Path) -> list[Path]:
    """Write ``diagnosis.json``, and the figure with its data unless the comparison stopped; the paths written."""
    file = folder / "diagnosis.json"
    write(file, (json.dumps(plain(diagnosis.record()), indent=1, allow_nan=False) + "\n").encode())
    if diagnosis.match is None:
        return [file]
    return [file, save(plot(diagnosis, diagnosis.match), folder, "diagnosis")]
