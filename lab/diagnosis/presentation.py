"""What a diagnosis looks like: sentences and tables on the terminal, a figure, a JSON file; and several side by side."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from lab.diagnosis.algorithms import RESOLUTION
from lab.diagnosis.comparison import WATCHED, Diagnosis, Estimate, Head, Match, Row
from lab.figures import Panel, Sheet, save
from lab.files import write
from lab.statistics import SHARE

TABLE_WIDTH = 110  # characters a line, below which rows are stacked
FOLLOWED = 5  # algorithms whose distance is drawn at every context length
SIDE_BY_SIDE = 8  # models that a reader can tell apart in one picture
NONE = 1e-12  # where an error of 0 is drawn on a logarithmic axis
CELLS = 19  # columns of a heat map that have room for numbers
COMMON = 3  # algorithms nearest to each of several models that are drawn for all of them
NEAREST = RESOLUTION / 2, 4  # ends of an axis of distances


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


@dataclass(frozen=True)
class Grid:
    """What a table holds, whatever it looks like.

    Args:
        title: what it is about.
        columns: their names; the first one names the rows.
        rows: a style for each and its cells.
        words: names of columns of words; the others hold numbers.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    words: tuple[str, ...] = ()

    def shown(self, width: int) -> RenderableType:
        """As a table, or row below row where that would cut names and break numbers."""
        if width < TABLE_WIDTH:
            return Text("\n").join([Text(self.title, "italic"), *(self._block(*row) for row in self.rows), Text("")])
        table = Table(title=escape(self.title), title_justify="left")
        for name in self.columns:
            table.add_column(name, justify="left" if name in self.words else "right", overflow="fold")
        for style, cells in self.rows:
            table.add_row(*map(escape, cells), style=style)
        return table

    def _block(self, style: str, cells: tuple[str, ...]) -> Text:
        facts = [f"  {name} {cell}" for name, cell in zip(self.columns[1:], cells[1:], strict=True) if cell]
        return Text("\n".join([cells[0], *facts]), style)


def tables(diagnosis: Diagnosis, width: int = TABLE_WIDTH) -> Iterator[RenderableType]:
    """Every algorithm; every context length; every shift; for lines of ``width`` characters."""
    if diagnosis.match is None:
        return
    yield _algorithms(diagnosis, diagnosis.match).shown(width)
    lengths = {str(length): match for length, match in diagnosis.by_length.items()}
    yield _matches("context length", "parameters fitted anew at every length", diagnosis, lengths).shown(width)
    if diagnosis.shifts:
        yield _matches("prompts", "parameters kept as they were fitted", diagnosis, diagnosis.shifts).shown(width)
    if diagnosis.attention:
        yield _attention(diagnosis).shown(width)


def _algorithms(diagnosis: Diagnosis, match: Match) -> Grid:
    columns = ("algorithm", "fitted", "distance", "cosine, query", "cosine, context", diagnosis.error_unit)
    rows: list[tuple[str, tuple[str, ...]]] = [("bold", (diagnosis.subject, "", "", "", "", interval(match.error)))]
    for row in match.rows:
        style = "bold green" if row.algorithm in match.tied else ""
        cosines = [interval(row.cosines[part]) if part in row.cosines else "" for part in ("query", "context")]
        rows.append((style, (row.algorithm, parameters(row), interval(row.distance), *cosines, interval(row.error))))
    return Grid(f"{diagnosis.subject} on {diagnosis.task}", columns, tuple(rows), ("algorithm", "fitted"))


def _attention(diagnosis: Diagnosis) -> Grid:
    """Of every relation the head that gives most to it."""
    most: dict[str, Head] = {}
    for head in diagnosis.attention:
        if head.relation not in most or head.share.mean > most[head.relation].share.mean:
            most[head.relation] = head
    rows = tuple(
        (
            "",
            (
                name,
                f"{head.layer}.{head.head}",
                interval(head.share),
                number(head.uniform),
                "" if head.construction is None else number(head.construction),
            ),
        )
        for name, head in most.items()
    )
    columns = ("attention to", "most by head", "share", "if uniform", "in the construction")
    return Grid("where the heads look, layer.head", columns, rows, columns[:1])


def _matches(first: str, caption: str, diagnosis: Diagnosis, matches: Mapping[str, Match]) -> Grid:
    words = (first, "closest", "fitted", "distance", "not told apart from")
    rows = []
    for key, match in matches.items():
        row, none = match.row(match.name), match.kind == "none"
        numbers = interval(match.error), interval(row.error)
        closest = ("none", "") if none else (match.name, parameters(row))
        tied = "" if none else "; ".join(match.tied[1:])
        rows.append(("", (key, *numbers, *closest, interval(row.distance), tied)))
    columns = (first, diagnosis.error_unit, "of the closest", *words[1:])
    return Grid(f"by {first}: {caption}", columns, tuple(rows), words)


def plot(diagnosis: Diagnosis, match: Match) -> Sheet:
    """Distance to every algorithm, to the nearest ones by context length, the error by length, and the shifts."""
    sheet = Sheet(2, 2, width=6.4, height=max(4.2, 1.2 + 0.18 * len(match.rows)))  # a line of text for each algorithm
    _draw_algorithms(sheet, diagnosis, match)
    _draw_lengths(sheet, diagnosis, match)
    _draw_errors(sheet, diagnosis, match)
    _draw_shifts(sheet, diagnosis, match)
    return sheet


def _intervals(
    panel: Panel,
    diagnosis: Diagnosis,
    name: str,
    values: Mapping[Any, Estimate],
    look: int,
    floor: float,
    horizontal: bool = False,
) -> None:
    """Means with their intervals, cut off at ``floor`` for a logarithmic axis; infinite ones have their place and no mark."""
    ends = [[getattr(estimate, part) for estimate in values.values()] for part in ("mean", "low", "high")]
    mean, low, high = ([max(value, floor) if math.isfinite(value) else math.nan for value in end] for end in ends)
    if horizontal:
        panel.axes.set_xlim(*NEAREST)  # before anything is drawn: all distances may be the floor, which spans no axis
    panel.intervals(
        list(values),
        mean,
        low,
        high,
        n=diagnosis.prompts // 2,
        words=f"intervals over {{n}} prompts, either end wrong with probability {SHARE:.1g}",
        name=name,
        look=look,
        horizontal=horizontal,
        join=not horizontal,
    )
    infinite = {at: estimate for at, estimate in values.items() if not math.isfinite(estimate.mean)}
    for at, estimate in infinite.items():
        panel.note(name, at, estimate.mean, estimate.low, estimate.high)


def _draw_algorithms(sheet: Sheet, diagnosis: Diagnosis, match: Match) -> None:
    titles = {"identical": f"Identical to {match.name}", "closest": f"Closest to {match.name}", "none": "Near none"}
    panel = sheet.panel(
        titles[match.kind],
        x="distance (0 identical, 1 no answer; drawn from 1e-8)",
        y="algorithm",
        scale=("log", "linear"),
        xlim=NEAREST,
        legend="lower left",
    )
    # One order of rows, the nearest on top, whichever of the two groups a row belongs to.
    for look, (name, tied) in enumerate((("closest", True), ("told apart", False))):
        rows = {row.algorithm: row.distance for row in match.rows if (row.algorithm in match.tied) == tied}
        if rows:
            _intervals(panel, diagnosis, name, rows, look, RESOLUTION, horizontal=True)


def _draw_lengths(sheet: Sheet, diagnosis: Diagnosis, match: Match) -> None:
    matches = diagnosis.by_length
    count = len({length_match.name for length_match in matches.values()})
    tied = any(len(length_match.tied) > 1 for length_match in matches.values())
    title = f"{count} algorithms are closest, by length" if count > 1 else "One is closest at every length"
    title = f"{title}; others tie" if tied else title
    panel = sheet.panel(
        title,
        x="context length",
        y="distance, fitted at each length (drawn from 1e-8)",
        scale=("linear", "log"),
        xticks=list(matches),
        legend="outside",
    )
    for place, row in enumerate(match.rows[:FOLLOWED]):
        values = {
            at: length_match.row(row.algorithm).distance
            for at, length_match in matches.items()
            if length_match.has(row.algorithm)
        }
        _intervals(panel, diagnosis, row.algorithm, values, place + 2, RESOLUTION)


def _draw_errors(sheet: Sheet, diagnosis: Diagnosis, match: Match) -> None:
    matches = diagnosis.by_length
    error, nearest_error = match.error.mean, match.row(match.name).error.mean
    ratio = number(error / nearest_error) if nearest_error > 0 and math.isfinite(error) else "not comparable"
    panel = sheet.panel(
        f"Error over that of {match.name}: {ratio}",
        x="context length",
        y=diagnosis.error_unit,
        scale=("linear", "log"),
        xticks=list(matches),
        legend="best",
    )
    curves = {
        diagnosis.subject: {at: length_match.error for at, length_match in matches.items()},
        match.name: {
            at: length_match.row(match.name).error
            for at, length_match in matches.items()
            if length_match.has(match.name)
        },
    }
    for look, (name, values) in zip((0, 2), curves.items(), strict=False):
        _intervals(panel, diagnosis, name, *_on_a_logarithm(values, look))


def _on_a_logarithm(values: Mapping[int, Estimate], look: int) -> tuple[Mapping[int, Estimate], int, float]:
    """What of ``values`` has a place on a logarithmic axis, the look, and the lowest end; errors that are all 0 are drawn as `NONE`."""
    positive = {at: estimate for at, estimate in values.items() if estimate.mean > 0}
    if not positive:
        return values, look, NONE
    lowest = min((estimate.mean for estimate in positive.values() if math.isfinite(estimate.mean)), default=1.0)
    return positive, look, lowest / 100


def _draw_shifts(sheet: Sheet, diagnosis: Diagnosis, match: Match) -> None:
    cases = {"unchanged": match, **diagnosis.shifts}
    values = {
        case: case_match.row(match.name).distance for case, case_match in cases.items() if case_match.has(match.name)
    }
    farthest = max(values, key=lambda case: values[case].mean)
    title = f"Farthest: {farthest}" if values[farthest].mean > RESOLUTION else "No shift leads away"
    panel = sheet.panel(
        title,
        x=f"distance to {match.name}, parameters kept",
        y="prompts",
        scale=("log", "linear"),
        xlim=NEAREST,
        legend="none",
    )
    _intervals(panel, diagnosis, match.name, values, 2, RESOLUTION, horizontal=True)


def plot_attention(diagnosis: Diagnosis) -> Sheet:
    """Every head's share for every relation; the last columns are even attention and the explicit construction."""
    heads = list(dict.fromkeys((head.layer, head.head) for head in diagnosis.attention))
    relations = list(dict.fromkeys(head.relation for head in diagnosis.attention))
    cells = {(head.relation, head.layer, head.head): head for head in diagnosis.attention}
    known, rows = any(head.construction is not None for head in diagnosis.attention), []
    for relation in relations:
        relation_heads = [cells.get((relation, *head)) for head in heads]
        some = next(head for head in relation_heads if head is not None)
        theory = [math.nan if some.construction is None else some.construction] if known else []
        shares = [math.nan if head is None else head.share.mean for head in relation_heads]
        rows.append([*shares, math.nan, _mean([head.uniform for head in relation_heads if head is not None]), *theory])
    best = max(diagnosis.attention, key=lambda head: head.share.mean - head.uniform)
    columns = [*(f"{layer}.{head}" for layer, head in heads), " ", "even", *["theory"] * known]
    sheet = Sheet(
        1, 1, width=max(6.4, 3.4 + 0.5 * min(len(columns), CELLS)), height=max(3.0, 1.6 + 0.42 * len(relations))
    )
    panel = sheet.panel(
        f"Head {best.layer}.{best.head}: {best.relation}, {number(best.share.mean)} ({number(best.uniform)} if uniform)",
        x="layer.head",
        y="attention to",
        legend="none",
    )
    panel.heat(
        rows,
        rows=relations,
        columns=columns,
        numbers=".2f" if len(columns) <= CELLS else None,
        bar="share of a head's attention",
        low=0.0,
        high=1.0,
        of=f"mean share over at most {WATCHED} prompts; even: all visible places alike"
        + ("; theory: the best head of the explicit construction" if known else ""),
    )
    return sheet


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def attention_table(diagnosis: Diagnosis) -> str:
    """Every head and relation as comma-separated values, with the closed-form value beside it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("layer", "head", "attention_to", "share", "low", "high", "uniform", "construction"))
    for head in diagnosis.attention:
        values = head.share.mean, head.share.low, head.share.high, head.uniform
        theory = "" if head.construction is None else f"{head.construction:.6g}"
        writer.writerow((head.layer, head.head, head.relation, *(f"{value:.6g}" for value in values), theory))
    return text.getvalue()


def table_of_all(diagnoses: Sequence[Diagnosis], width: int = TABLE_WIDTH) -> RenderableType:
    """One row a model: what it is, its error, and whether anything was found."""
    words = ("predictor", "closest", "fitted", "distance", "not told apart from", "findings")
    columns = ("predictor", diagnoses[0].error_unit, *words[1:])
    rows = []
    for diagnosis in diagnoses:
        findings = "; ".join(finding.where for finding in diagnosis.findings)
        if diagnosis.match is None:
            rows.append(("", (diagnosis.subject, "", "stopped", "", "", "", findings)))
            continue
        match, row = diagnosis.match, diagnosis.match.row(diagnosis.match.name)
        closest = (
            ("none", "", interval(row.distance), "")
            if match.kind == "none"
            else (match.name, parameters(row), interval(row.distance), "; ".join(match.tied[1:]))
        )
        rows.append(("", (diagnosis.subject, interval(match.error), *closest, findings)))
    return Grid(f"{len(diagnoses)} predictors on {diagnoses[0].task}", columns, tuple(rows), words).shown(width)


def plot_all(diagnoses: Sequence[Diagnosis]) -> Sheet:
    """Distances of every model to the algorithms that are near one of them, and their errors by length."""
    sheet = Sheet(2, 1, width=6.4, height=5.0)
    compared = {
        diagnosis.subject: (diagnosis, diagnosis.match) for diagnosis in diagnoses if diagnosis.match is not None
    }
    names = list(dict.fromkeys(row.algorithm for _, match in compared.values() for row in match.rows[:COMMON]))
    alike = len({match.name for _, match in compared.values()}) == 1
    panel = sheet.panel(
        "All are closest to one algorithm" if alike else "They are closest to different algorithms",
        x="distance (0 identical, 1 no answer; drawn from 1e-8)",
        y="algorithm",
        scale=("log", "linear"),
        xlim=NEAREST,
        legend="lower left",
    )
    for look, (subject, (diagnosis, match)) in enumerate(compared.items()):
        values = {name: match.row(name).distance for name in names if match.has(name)}
        _intervals(panel, diagnosis, subject, values, look, RESOLUTION, horizontal=True)
    lengths = sorted({length for diagnosis, _ in compared.values() for length in diagnosis.by_length})
    panel = sheet.panel(
        "Their errors",
        x="context length",
        y=diagnoses[0].error_unit,
        scale=("linear", "log"),
        xticks=lengths,
        legend="best",
    )
    for look, (subject, (diagnosis, _)) in enumerate(compared.items()):
        errors = {at: length_match.error for at, length_match in diagnosis.by_length.items()}
        _intervals(panel, diagnosis, subject, *_on_a_logarithm(errors, look))
    return sheet


def store_all(diagnoses: Sequence[Diagnosis], folder: Path) -> list[Path]:
    """Write ``comparison.json``, and the figure of all with its data if there are two that it could show; the paths written."""
    file = folder / "comparison.json"
    records = [plain(diagnosis.record()) for diagnosis in diagnoses]
    write(file, (json.dumps(records, indent=1, allow_nan=False) + "\n").encode())
    if sum(diagnosis.match is not None for diagnosis in diagnoses) < 2:
        _forget(folder, "comparison.png", "comparison.csv")
        return [file]
    return [file, save(plot_all(diagnoses), folder, "comparison")]


def plain(value: Any) -> Any:
    """As JSON can say it: infinity and not-a-number as null."""
    if isinstance(value, dict):
        return {str(key): plain(element) for key, element in value.items()}
    if isinstance(value, list | tuple):
        return [plain(element) for element in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def store(diagnosis: Diagnosis, folder: Path) -> list[Path]:
    """Write ``diagnosis.json``, and the figures with their data unless the comparison stopped; the paths written.

    Where attention could be watched, ``heads.csv`` holds every head with its interval and ``attention.png`` shows them. A figure
    of another predictor does not stay beside it.
    """
    file = folder / "diagnosis.json"
    write(file, (json.dumps(plain(diagnosis.record()), indent=1, allow_nan=False) + "\n").encode())
    paths = [file]
    if diagnosis.match is None:
        _forget(folder, "diagnosis.png", "diagnosis.csv")
    else:
        paths.append(save(plot(diagnosis, diagnosis.match), folder, "diagnosis"))
    if not diagnosis.attention:
        _forget(folder, "heads.csv", "attention.png", "attention.csv")
        return paths
    write(folder / "heads.csv", attention_table(diagnosis).encode())
    return [*paths, folder / "heads.csv", save(plot_attention(diagnosis), folder, "attention")]


def _forget(folder: Path, *names: str) -> None:
    for stale in names:
        (folder / stale).unlink(missing_ok=True)
