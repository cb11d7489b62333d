"""Tables made from results: on the terminal, in the README, in notebooks."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from lab.catalogue import discover
from lab.errors import LabError
from lab.files import PROJECT, write
from lab.tasks import Task

logger = logging.getLogger("lab")

BEGIN, END = "<!-- claims:begin -->", "<!-- claims:end -->"
Record = Mapping[str, Any]


def number(value: float | str) -> str:
    """Three significant digits."""
    return value if isinstance(value, str) else f"{value:.3g}"


def terminal_table(records: Sequence[Record], statements: Mapping[str, str], title: str) -> Table:
    """Every claim with its statement, measured value, bound, controls and verdict."""
    table = Table(title=title, show_lines=True, expand=True)
    table.add_column("claim", no_wrap=True)
    table.add_column("statement", ratio=5)
    table.add_column("measured", justify="right", ratio=2)
    table.add_column("bound", ratio=4)
    table.add_column("controls", ratio=4)
    table.add_column("verdict", no_wrap=True)
    for record in records:
        table.add_row(
            record["id"].split("/", 1)[1],
            escape(statements[record["id"]]),
            _measured(record),
            f"{record['relation']} {number(record['bound'])} [dim]{escape(record['bound_origin'])}[/dim]",
            "\n".join(
                f"{escape(one['name'])}: {number(one['measured'])} "
                + ("[green]rejected[/green]" if one["rejected"] else "[bold red]NOT REJECTED[/bold red]")
                for one in record["controls"]
            ),
            _verdict(record),
        )
    return table


def _measured(record: Record) -> str:
    text = number(record["measured"])
    if record["interval"] is not None:
        low, high = record["interval"]
        text += f"\n({number(low)} to {number(high)}; {record['samples']})"
    return text


def _verdict(record: Record) -> str:
    good = record["verdict"] == record["expected"] and all(one["rejected"] for one in record["controls"])
    color = "green" if good else "bold red"
    note = "" if record["verdict"] == record["expected"] else f"\n(expected {record['expected']})"
    return f"[{color}]{record['verdict']}{note}[/{color}]"


def markdown_table(records: Sequence[Record], task: Task) -> str:
    """The claims of one task as a Markdown table."""
    lines = ["| claim | statement | measured | bound | controls | verdict |", "| --- | --- | --- | --- | --- | --- |"]
    for record in records:
        claim = task.claims[record["id"]]
        controls = "; ".join(
            f"{one['name']}: {number(one['measured'])}{'' if one['rejected'] else ' **NOT REJECTED**'}"
            for one in record["controls"]
        )
        condition = f" It holds {claim.condition}." if record["verdict"] == "refuted" else ""
        cells = (
            f"`{record['id'].split('/', 1)[1]}` ({claim.where})",
            claim.statement + condition,
            _measured(record).replace("\n", " "),
            f"{record['relation']} {number(record['bound'])}",
            controls,
            record["verdict"],
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines)


def records_file(task: Task) -> Path:
    """Where the verdicts of ``task`` at its ``ci`` preset are kept, beside its figures."""
    return PROJECT / "figures" / task.key / "claims.json"


def stored_records(task: Task) -> list[dict[str, Any]]:
    """The verdicts of the last full run of ``task``."""
    try:
        records = json.loads(records_file(task).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise LabError(
            f"{records_file(task)} is missing or damaged ({error}); run `lab reproduce {task.key}` to write it"
        ) from error
    if not isinstance(records, list):
        raise LabError(f"{records_file(task)} does not hold a list; run `lab reproduce {task.key}` to write it anew")
    return records


def records_text(records: Sequence[Record]) -> str:
    """Verdicts as the committed file holds them: without what differs from run to run."""
    kept = [{name: value for name, value in record.items() if name != "seconds"} for record in records]
    return json.dumps(kept, indent=1) + "\n"


def same_findings(one: Record, other: Record, tolerance: float = 0.1) -> bool:
    """Whether two records of one claim say the same.

    Same verdicts and rejections, same requirement; the measured values within each other's interval where
    there is one, both within the bound where the bound covers rounding, else within a relative ``tolerance``.
    """
    if any(one[name] != other[name] for name in ("id", "verdict", "expected", "relation")):
        return False
    if [(c["name"], c["rejected"]) for c in one["controls"]] != [(c["name"], c["rejected"]) for c in other["controls"]]:
        return False
    first, second = float(one["measured"]), float(other["measured"])
    if one["interval"] is not None and other["interval"] is not None:
        (low, high), (lower, higher) = one["interval"], other["interval"]
        return float(low) <= second <= float(high) or float(lower) <= first <= float(higher)
    small = max(abs(first), abs(second)) <= abs(float(one["bound"])) and one["verdict"] == "holds"
    return small or math.isclose(first, second, rel_tol=tolerance)


def readme_section() -> str:
    """The claims tables of all papers, from the stored verdicts."""
    papers: dict[str, list[Task]] = {}
    for task in discover():
        papers.setdefault(task.name, []).append(task)
    parts = []
    for name, tasks in papers.items():
        records = [(task, stored_records(task)) for task in tasks]
        count = sum(len(found) for _, found in records)
        tables = "\n\n".join(markdown_table(found, task) for task, found in records if found)
        parts.append(
            f"<details>\n<summary><b>{name}</b>: {count} claims. {tasks[0].paper.citation}</summary>\n\n{tables}\n\n</details>"
        )
    return "\n\n".join(parts)


def with_section(readme: str) -> str:
    """``readme`` with the claims between its two markers made anew."""
    pattern = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    if not pattern.search(readme):
        raise LabError(f"README.md has no {BEGIN} … {END}; put the two markers where the claims belong")
    return pattern.sub(lambda _: f"{BEGIN}\n{readme_section()}\n{END}", readme)


def refresh_readme() -> None:
    """Write the claims tables of README.md anew, where every task has stored verdicts; else say why not."""
    readme = PROJECT / "README.md"
    try:
        write(readme, with_section(readme.read_text(encoding="utf-8")).encode())
    except LabError as error:
        logger.warning("the claims tables of README.md stay as they are: %s", error)
