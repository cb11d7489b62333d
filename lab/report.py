"""Tables made from results: on the terminal, in the README, in notebooks."""

from __future__ import annotations

import json
import logging
import math
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from lab.errors import LabError
from lab.evidence import Relation, Verdict
from lab.files import CLONE, PROJECT
from lab.tasks import Task

logger = logging.getLogger("lab")

Record = Mapping[str, Any]
FORMULA = re.compile(r"\$\$.+?\$\$|(?<!\\)\$[^$\n]+(?:\n[^$\n]+)*\$", re.DOTALL)
ESCAPES = {
    "\\\\": r"\cr ",
    r"\,": r"\ ",
    r"\;": r"\ ",
    r"\:": r"\ ",
    r"\!": "",
    r"\{": r"\lbrace ",
    r"\}": r"\rbrace ",
    r"\|": r"\Vert ",
    "|": r"\vert ",
}

# Enumerations and quadratures agree between machines far better than this, and nothing that is said needs more.
EXACT = 1e-4
# An upper bound below this is one on rounding errors, whatever its origin is called (but 0 counts mistakes).
RESIDUE = 1e-6
# Below so many characters a line a table has no room for its words, and its rows are stacked.
TABLE_WIDTH = 110
# A column of words that wrap is at least so wide, or its rows are stacked.
WORDS_WIDTH = 14
TRAINED = ("training", "ordering", "phenomenon")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    """Whether a record may hold this as a number; those that JSON cannot hold stand by name."""
    if isinstance(value, str):
        return value in ("inf", "-inf", "nan")
    return isinstance(value, float) or (type(value) is int and abs(value) <= sys.float_info.max)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_interval(value: Any) -> bool:
    return value is None or (isinstance(value, list) and len(value) == 2 and all(map(_is_number, value)))


def _is_chance(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and 0 <= value <= 1)


def _are_controls(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(control, dict) and not _misfit(control, CONTROL) for control in value
    )


Kinds = Mapping[str, Callable[[Any], bool]]
CONTROL: Kinds = {"name": _is_text, "measured": _is_number, "rejected": lambda value: isinstance(value, bool)}
# What a record holds, and of what kind each is.
FIELDS: Kinds = {
    **dict.fromkeys(("id", "bound_origin"), _is_text),
    **dict.fromkeys(("verdict", "expected"), lambda value: value in get_args(Verdict)),
    "relation": lambda value: value in get_args(Relation),
    **dict.fromkeys(("measured", "bound"), _is_number),
    "interval": _is_interval,
    "samples": _is_count,
    "controls": _are_controls,
}
# What older records may lack.
LATER: Kinds = {
    "kind": _is_text,
    "parts": _is_count,
    "tolerance": _is_number,
    "chance": _is_chance,
    "seeds_wanted": lambda value: value is None or _is_count(value),
}


def number(value: float | str) -> str:
    """Three significant digits."""
    return value if isinstance(value, str) else f"{value:.3g}"


@dataclass(frozen=True)
class Rows:
    """A table for the terminal, one below the other where a line has no room for what must not be cut.

    Attributes:
        columns: their names; the first one heads a row that is stacked.
        rows: cells as rich markup; lines within a cell are kept where the rows are a table.
        wrapping: names of the columns of words, which may wrap; all others are as wide as they are.
        title: above everything.
        right: names of the columns that end at one place, as numbers do.
        styles: of each row, by its place.
        lines: whether lines stand between the rows.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    wrapping: Collection[str] = ()
    title: str = ""
    right: Collection[str] = ()
    styles: Mapping[int, str] = field(default_factory=dict)
    lines: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        table = self._table()
        wanted = Measurement.get(console, options.update_width(10_000), self._table(narrowest=True)).maximum
        yield table if wanted <= options.max_width else self._stacked()

    def _table(self, narrowest: bool = False) -> Table:
        """All columns; those that may wrap with a line for each word, if ``narrowest``."""
        table = Table(title=escape(self.title) or None, title_justify="left", show_lines=self.lines)
        if not self.lines:
            table.box = None
        for name in self.columns:
            words = name in self.wrapping
            table.add_column(
                _a_line_a_word(escape(name)) if words and narrowest else escape(name),
                justify="right" if name in self.right else "left",
                overflow="fold",
                no_wrap=not words,
                min_width=WORDS_WIDTH if words else None,
            )
        for place, cells in enumerate(self.rows):
            shown = [
                _a_line_a_word(cell) if narrowest and name in self.wrapping else cell
                for name, cell in zip(self.columns, cells, strict=True)
            ]
            table.add_row(*shown, style=self.styles.get(place, ""))
        return table

    def _stacked(self) -> Text:
        blocks = [f"[italic]{escape(self.title)}[/italic]"] if self.title else []
        for place, (first, *others) in enumerate(self.rows):
            named = [
                f"  {escape(name)}: {cell.replace(chr(10), '; ')}"
                for name, cell in zip(self.columns[1:], others, strict=True)
                if cell
            ]
            style = self.styles.get(place, "")
            block = "\n".join([f"[bold]{first}[/bold]", *named])
            blocks.append(f"[{style}]{block}[/{style}]" if style else block)
        return Text.from_markup("\n\n".join(blocks), overflow="fold")


def _a_line_a_word(cell: str) -> str:
    return escape("\n".join(Text.from_markup(cell).plain.split()))


def terminal_table(
    records: Sequence[Record], statements: Mapping[str, str], title: str, width: int = TABLE_WIDTH
) -> RenderableType:
    """Every claim with its statement, measured value, bound, controls and verdict; one below the other where it is narrow.

    Numbers and verdicts are never cut: they have columns as wide as they are, and other words wrap around them.
    """
    if width < TABLE_WIDTH:
        return _stacked(records, statements, title)
    table = Table(title=escape(title), show_lines=True, expand=True)
    table.add_column("claim", no_wrap=True)
    table.add_column("statement", ratio=5, overflow="fold")
    table.add_column("measured", justify="right", no_wrap=True)
    table.add_column("bound", ratio=4, overflow="fold")
    table.add_column("controls", ratio=4, overflow="fold")
    table.add_column("verdict", no_wrap=True)
    for record in records:
        table.add_row(
            record["id"].split("/", 1)[1],
            escape(statements[record["id"]]),
            "\n".join([number(record["measured"]), *notes(record)]),
            f"{requirement(record)} [dim]{escape(record['bound_origin'])}[/dim]",
            "\n".join(_controls(record)),
            _verdict(record),
        )
    return table


def _stacked(records: Sequence[Record], statements: Mapping[str, str], title: str) -> RenderableType:
    """A block of lines for each claim."""
    lines = [f"[italic]{escape(title)}[/italic]"]
    for record in records:
        lines += [
            "",
            f"[bold]{record['id'].split('/', 1)[1]}[/bold]  {_verdict(record).replace(chr(10), ' ')}",
            f"  {escape(statements[record['id']])}",
            f"  measured {'; '.join([number(record['measured']), *notes(record)])}",
            f"  required {requirement(record)} [dim]{escape(record['bound_origin'])}[/dim]",
            *(f"  control, {line}" for line in _controls(record)),
        ]
    return Text.from_markup("\n".join(lines))


def _controls(record: Record) -> list[str]:
    def rejection(rejected: bool) -> str:
        unknown = "" if _lone(record) else " [bold red]NOT REJECTED[/bold red]"
        return " [green]rejected[/green]" if rejected else unknown

    return [
        f"{escape(control['name'])}: {number(control['measured'])}{rejection(control['rejected'])}"
        for control in record["controls"]
    ]


def notes(record: Record) -> list[str]:
    """What stands below a measured number: its interval, the number of samples, and of how many parts it is the weakest."""
    notes = []
    if record["interval"] is not None and not _lone(record):
        notes.append(" to ".join(number(end) for end in record["interval"]))
    if record["samples"] > 1:
        notes.append(f"n = {record['samples']:,}")
    if record.get("parts", 1) > 1:
        notes.append(f"weakest of {record['parts']}")
    return notes


def requirement(record: Record) -> str:
    """What the number was required to be: the relation and the bound, with the tolerance of an equality."""
    tolerance = f" ± {number(record['tolerance'])}" if record["relation"] == "=" else ""
    return f"{record['relation']} {number(record['bound'])}{tolerance}"


def origins(records: Sequence[Record]) -> str:
    """Where the bounds of ``records`` come from, each once: of several parts another one may be the weakest in each."""
    return "; or ".join(dict.fromkeys(filter(None, (record["bound_origin"] for record in records))))


def drawn_origins(records: Sequence[Record]) -> str:
    """The same behind the name of an axis; formulas stay as they are typed, as one that does not end could not be set."""
    escaped = origins(records).replace("$", r"\$")
    return f" (bound: {escaped})" if escaped else ""


def _verdict(record: Record) -> str:
    good = record["verdict"] == record["expected"] and all(control["rejected"] for control in record["controls"])
    if _lone(record):
        return "[dim]no verdict\n(one seed)[/dim]"
    color = "green" if good else "bold red"
    note = "" if record["verdict"] == record["expected"] else f"\n(expected {record['expected']})"
    if record["verdict"] == "inconclusive" and record.get("seeds_wanted"):
        more = max(1, record["seeds_wanted"] - record["samples"])
        note += f"\n(about {more:,} more\nsample{'s' * (more > 1)} would\ndecide)"
    return f"[{color}]{_worded(record)}{note}[/{color}]"


def _lone(record: Record) -> bool:
    """Whether one seed is all there is: a sampled number whose interval is the whole line."""
    return record["samples"] == 1 and record["interval"] == ["-inf", "inf"]


def _worded(record: Record) -> str:
    return "not reproduced\nat these sizes" if record["verdict"] == "not reproduced" else record["verdict"]


def markdown_table(records: Sequence[Record], task: Task) -> str:
    """The claims of one task as a Markdown table."""
    lines = ["| claim | statement | measured | bound | controls | verdict |", "| --- | --- | --- | --- | --- | --- |"]
    for record in records:
        claim = task.claims[record["id"]]
        controls = "; ".join(
            f"{control['name']}: {number(control['measured'])}{'' if control['rejected'] else ' **NOT REJECTED**'}"
            for control in record["controls"]
        )
        condition = {
            "refuted": f" It holds {claim.condition}.",
            "not reproduced": f" The paper states it {claim.condition}.",
        }.get(record["verdict"], "")
        cells = (
            f"`{record['id'].split('/', 1)[1]}` ({claim.where})",
            claim.statement + condition,
            number(record["measured"]) + (f" ({'; '.join(notes(record))})" if notes(record) else ""),
            f"{requirement(record)} ({record['bound_origin']})",
            controls,
            _worded(record),
        )
        lines.append("| " + " | ".join(portable(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines)


def portable(text: str) -> str:
    r"""Markdown whose formulas survive a reader that takes ``\,`` for an escaped comma before it looks for formulas, and
    for a bar as the end of a cell.

    >>> portable(r"cost $a\,b$, not \\, as said")
    'cost $a\\ b$, not \\\\, as said'
    """
    return FORMULA.sub(lambda match: _without_escapes(match.group()), text)


def _without_escapes(formula: str) -> str:
    for escaped, word in ESCAPES.items():
        formula = formula.replace(escaped, word)
    return formula


def records_file(task: Task) -> Path:
    """Where the verdicts of ``task`` at its ``ci`` preset are kept, beside the measurements that ship."""
    return PROJECT / "evidence" / task.key / "claims.json"


def stored_records(task: Task) -> list[dict[str, Any]]:
    """The verdicts of the last full run of ``task``.

    Raises:
        LabError: they are missing or damaged, or are of other claims than the task has.
    """
    try:
        records = json.loads(records_file(task).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise LabError(f"{records_file(task)} is missing or damaged ({error}); {_remedy(task)} to write it") from error
    wrong = "it does not hold a list" if not isinstance(records, list) else _wrong_record(records, task)
    if wrong:
        raise LabError(f"{records_file(task)} is of no use ({wrong}); {_remedy(task)} to write it anew")
    return records


def _remedy(task: Task) -> str:
    return f"run `lab reproduce {task.key}`" if CLONE else "install the lab again"


def _wrong_record(records: Sequence[Any], task: Task) -> str:
    """Why these are no records of the claims of ``task``; empty if they are."""
    for record in records:
        if wrong := damage(record):
            return wrong
    ids = [record["id"] for record in records]
    if set(ids) != set(task.claims) or len(ids) != len(set(ids)):
        odd = sorted(set(ids) ^ set(task.claims)) or sorted(
            identifier for identifier in ids if ids.count(identifier) > 1
        )
        return f"it and {task.key} do not have the same claims, such as {odd[0]}"
    return ""


def damage(record: Any) -> str:
    """Why this is no record of a verdict; empty if it is one."""
    fields = record if isinstance(record, dict) else {}
    needed = {**FIELDS, "tolerance": _is_number} if fields.get("relation") == "=" else FIELDS
    wrong = _misfit(fields, needed) or _misfit(fields, {name: fits for name, fits in LATER.items() if name in fields})
    if not wrong:
        return ""
    if wrong not in fields:
        return f"a record lacks {wrong!r}"
    return f"the {wrong} of {str(fields.get('id'))[:100]} is {repr(fields[wrong])[:100]}"


def _misfit(record: Mapping[str, Any], kinds: Kinds) -> str:
    """The first name in ``kinds`` whose value is not of its kind, one that is not there before all others; empty if all fit."""
    lacking = (name for name in sorted(kinds) if name not in record)
    unfit = (name for name, fits in kinds.items() if name in record and not fits(record[name]))
    return next(lacking, None) or next(unfit, "")


def records_text(records: Sequence[Record]) -> str:
    """Verdicts as the committed file holds them: without what differs from run to run."""
    kept = [{name: value for name, value in record.items() if name != "seconds"} for record in records]
    return json.dumps(kept, indent=1) + "\n"


def same_findings(first: Record, second: Record) -> bool:
    """Whether two records of one claim say the same; a number is compared as what it is, never to its last digits.

    Always the same claim, verdict and rejected controls, and the same relation wherever both show the same part. Beyond that

    - a number over samples: the intervals overlap, where both records have one; of several parts a record shows the one
      nearest to its bound, and where that is another one in each record, there are no two numbers to compare;
    - a residue, whose bound covers rounding: nothing more, as the same verdict puts both on the same side of the bound;
    - a p-value, whose bound is its part of the false-alarm share: nothing more, as under the law it lies anywhere above;
    - an extreme over trainings (a least, a largest) that takes no interval: nothing more, as it has no stable digits;
    - any other exact number: equal to ``EXACT``, relative to the largest of both numbers and the bound.
    """
    if any(first[name] != second[name] for name in ("id", "verdict", "expected")):
        return False
    if [(c["name"], c["rejected"]) for c in first["controls"]] != [
        (c["name"], c["rejected"]) for c in second["controls"]
    ]:
        return False
    sampled = first["interval"] is not None and second["interval"] is not None
    if sampled and first.get("parts", 1) > 1 and first["bound_origin"] != second["bound_origin"]:
        return True
    if first["relation"] != second["relation"]:
        return False
    if sampled:
        (low, high), (lower, higher) = (map(float, record["interval"]) for record in (first, second))
        return low <= higher and lower <= high
    trained = (first.get("kind") or second.get("kind")) in TRAINED
    if trained or max(first["samples"], second["samples"]) > 1 or any(map(_has_no_digits, (first, second))):
        return True
    first_number, second_number = float(first["measured"]), float(second["measured"])
    return math.isclose(first_number, second_number, rel_tol=EXACT, abs_tol=EXACT * abs(float(first["bound"])))


def _has_no_digits(record: Record) -> bool:
    """Whether the number is a p-value or a residue: its bound says so, or is too small for anything else."""
    origin = record["bound_origin"]
    if record["relation"] in (">=", ">"):
        return "false-alarm share" in origin
    return record["relation"] in ("<=", "<") and ("rounding" in origin or 0 < abs(float(record["bound"])) < RESIDUE)
