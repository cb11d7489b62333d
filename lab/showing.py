"""What ``lab show`` prints of a claim, a task or the dictionary."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from lab import dictionary
from lab.catalogue import discover, find, find_claims
from lab.claims import Claim
from lab.errors import LabError
from lab.tasks import Task


def show(name: str, console: Console) -> int:
    """Print what is called ``name``: a claim, a task, a file of one's own, or the dictionary; returns the exit status.

    Raises:
        LabError: nothing is called so.
    """
    if name == "dictionary":
        console.print(dictionary.terminal_table())
        return 0
    if ".py:" in name:
        for task, claim in find_claims([name]):
            _claim(console, task, claim)
        return 0
    tasks = [find(name)] if name.endswith(".py") else discover()
    claims = [(task, claim) for task in tasks for claim in task.claims.values() if claim.id == name]
    if claims:
        _claim(console, *claims[0])
        return 0
    alike = [claim.id for task in tasks for claim in task.claims.values() if claim.id.endswith(f"/{name}")]
    if alike:
        raise LabError(f"{name} alone names no claim; there is {' and '.join(alike[:5])}; write one of these")
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


def _claim(console: Console, task: Task, claim: Claim) -> None:
    console.print(f"[bold]{claim.id}[/bold] ({claim.kind}; {escape(claim.where)}; expected: {claim.expected})")
    console.print(claim.statement, highlight=False, markup=False)
    if claim.condition:
        console.print(f"It holds {claim.condition}.", highlight=False, markup=False)
    for one in claim.controls:
        console.print(f"control: {one.name} {dict(one.setting)}", highlight=False, markup=False)
    console.print(f"check: {claim.check.__name__} in {task.file}", highlight=False, markup=False)
