"""What ``lab show`` prints of a claim, a task or the dictionary."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from lab import dictionary
from lab.catalogue import discover, find, find_claims
from lab.claims import Claim
from lab.errors import LabError
from lab.papers import FILE, Entry, entries
from lab.tasks import Task


def show(name: str, console: Console) -> int:
    """Print what is called ``name``: a claim, a task, a paper, a file of one's own, or the dictionary; returns the exit status.

    Raises:
        LabError: nothing is called so.
    """
    if name.lower() == "dictionary":
        console.print(dictionary.terminal_table())
        return 0
    if ".py:" in name:
        for task, claim in find_claims([name]):
            _claim(console, task, claim)
        return 0
    tasks = [find(name)] if name.endswith(".py") else discover()
    if not name.endswith(".py"):
        name = _sheet_of(name, tasks) or _same_but_case(name, tasks)
    claims = [(task, claim) for task in tasks for claim in task.claims.values() if claim.id == name]
    if claims:
        _claim(console, *claims[0])
        return 0
    alike = [claim.id for task in tasks for claim in task.claims.values() if claim.id.endswith(f"/{name}")]
    if alike:
        is_there, wanted = ("are", "one of these") if len(alike) > 1 else ("is", "that")
        raise LabError(f"{name} alone names no claim; there {is_there} {' and '.join(alike[:5])}; write {wanted}")
    shown = tasks if name.endswith(".py") else [task for task in tasks if name in (task.key, task.name)]
    if not shown:
        shown = [find(name)] if "/" not in name else []
    if not shown:
        for task, claim in find_claims([name]):  # or names the nearest claim in its error
            _claim(console, task, claim)
    for task in shown:
        console.print(f"{task.key} ({task.file})\n{task.paper.citation}", highlight=False, markup=False)
        for preset, config in task.presets.items():
            console.print(f"preset {preset}: {config}", highlight=False, markup=False)
        for measurement in task.measurements.values():
            console.print(f"measurement {measurement.name}", highlight=False, markup=False)
        for figure, draw in task.figures.items():
            caption = " ".join((draw.__doc__ or "without a caption").split("\n\n")[0].split())
            console.print(f"figure {figure}: {caption}", highlight=False, markup=False)
        for claim in task.claims.values():
            console.print(f"claim {claim.id}: {claim.statement}", highlight=False, markup=False)
    return 0


def _same_but_case(name: str, tasks: Sequence[Task]) -> str:
    """The one name of a sheet, a part or a claim that differs from ``name`` in nothing but case; ``name`` if there is none."""
    known = {candidate for task in tasks for candidate in (task.name, task.key, *task.claims)}
    alike = [candidate for candidate in known if candidate.lower() == name.lower()]
    return alike[0] if name not in known and len(alike) == 1 else name


def _sheet_of(name: str, tasks: Sequence[Task]) -> str:
    """The sheet of the paper whose key or arXiv number is ``name``; empty where it is neither.

    Raises:
        LabError: no sheet tests that paper, or no paper has that number.
    """
    number = re.sub(r"^arxiv:\s*|v\d+$", "", name.lower())
    is_number = re.fullmatch(r"\d{4}\.\d{4,5}|[a-z.-]+/\d{7}", number)
    known = {} if any(name == task.name for task in tasks) else entries()
    matching = [entry for key, entry in known.items() if name == key or (is_number and entry.paper.arxiv == number)]
    if matching:
        return _testing(matching[0], tasks)
    if is_number:
        raise LabError(
            f"no paper of {FILE.name} has the arXiv number {number}; `lab list --papers` names them all with their numbers"
        )
    return ""


def _testing(entry: Entry, tasks: Sequence[Task]) -> str:
    """The sheet that tests a paper: its own, or the one sheet of others whose claims name it."""
    citing = dict.fromkeys(
        task.name for task in tasks if any(claim.paper == entry.paper.key for claim in task.claims.values())
    )
    sheets = [entry.sheet] if entry.sheet else list(citing)
    if len(sheets) == 1:
        return sheets[0]
    state = f"{entry.state}: {entry.reason}" if entry.reason else entry.state
    where = f"claims of {' and '.join(sheets)} test it" if sheets else f"no sheet tests it ({state})"
    raise LabError(
        f"{entry.paper.citation} has no sheet of its own, and {where}; `lab list --papers` names those that have one"
    )


def _claim(console: Console, task: Task, claim: Claim) -> None:
    console.print(f"[bold]{claim.id}[/bold] ({claim.kind}; {escape(claim.where)}; expected: {claim.expected})")
    console.print(claim.statement, highlight=False, markup=False)
    if claim.condition:
        console.print(f"It holds {claim.condition}.", highlight=False, markup=False)
    for control in claim.controls:
        console.print(f"control: {control.name} {dict(control.setting)}", highlight=False, markup=False)
    console.print(f"check: {claim.check.__name__} in {task.file}", highlight=False, markup=False)
