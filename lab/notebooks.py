"""Task files as notebooks: the ``.py`` is the only source, the ``.ipynb`` is made from it and executed.

A notebook shows stored measurements of its task file, so executing one that has been measured takes seconds.
"""

from __future__ import annotations

import ast
import inspect
import io
import textwrap
from functools import lru_cache
from pathlib import Path
from typing import Any

from lab import figures
from lab.claims import Claim, Judgement, judge
from lab.errors import LabError
from lab.execution import Session
from lab.files import write
from lab.report import markdown_table
from lab.results import Results
from lab.tasks import Measurement, Task

EXECUTE_SECONDS = 1200


def execute(task: Task) -> Path:
    """Make the ``.ipynb`` beside the file of ``task`` and execute it top to bottom; returns its path.

    Raises:
        LabError: a cell failed.
    """
    import jupytext
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    notebook = jupytext.read(task.file)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = nbformat.NotebookNode(kernelspec=nbformat.NotebookNode(kernel))
    for index, cell in enumerate(notebook.cells):
        # Random ids would make every execution a different file.
        cell["id"] = f"cell-{index}"
    client = NotebookClient(
        notebook, timeout=EXECUTE_SECONDS, record_timing=False, resources={"metadata": {"path": str(task.file.parent)}}
    )
    try:
        client.execute()
    except CellExecutionError as error:
        raise LabError(f"the notebook of {task.key} stops with {error.ename}: {error.evalue}") from error
    notebook.metadata.pop("language_info", None)
    path = task.file.with_suffix(".ipynb")
    write(path, (nbformat.writes(notebook) + "\n").encode())
    return path


def show(task: Task, part: Any) -> None:
    """Display a figure, a claim with its verdict, or (None) all verdicts, inside a running notebook."""
    from IPython.display import Image, Markdown, display

    results = Results(task, task.config("ci"), Session())
    for measurement in task.measurements.values():
        _check_unedited(task, measurement)
    claims = {claim.check: claim for claim in task.claims.values()}
    if part is None:
        display(Markdown(markdown_table([judge(claim, results).record() for claim in task.claims.values()], task)))
    elif part in claims:
        display(Markdown(verdict(claims[part], results)))
    elif part in task.figures.values():
        drawing = part(results)
        picture = io.BytesIO()
        with figures.style():
            drawing.figure.savefig(picture, format="png", metadata={"Software": None})
        display(Image(picture.getvalue()))
    else:
        raise LabError(f"{part!r} is neither a figure nor a claim of {task.name}; pass one of those functions")


def verdict(claim: Claim, results: Results) -> str:
    """A claim, what was measured and what its controls said, as Markdown."""
    judgement: Judgement = judge(claim, results)
    evidence = judgement.evidence
    interval = ""
    if evidence.interval is not None:
        interval = f" (interval {evidence.interval[0]:.4g} to {evidence.interval[1]:.4g}, {evidence.samples} samples)"
    weakest = f", the weakest of {len(evidence.parts)} parts" if len(evidence.parts) > 1 else ""
    outcome = {
        "refuted": f"; it holds {claim.condition}",
        "not reproduced": f" at these sizes; the paper states it {claim.condition}",
    }.get(judgement.verdict, "")
    lines = [
        f"**{claim.id}** ({claim.kind}, {claim.where}). {claim.statement}",
        "",
        f"- measured {evidence.measured:.4g}{interval}{weakest}; required {evidence.requirement} "
        f"({evidence.bound_origin}): **{judgement.verdict}**{outcome}",
    ]
    for one in judgement.controls:
        lines.append(
            f"- control, {one.name}: {one.evidence.measured:.4g}, {'rejected' if one.rejected else 'NOT REJECTED'}"
        )
    return "\n".join(lines)


def _check_unedited(task: Task, measurement: Measurement) -> None:
    """A cell that was edited must not be shown with the numbers of the file."""
    cell = ast.parse(textwrap.dedent(inspect.getsource(measurement.function)))
    if (measurement.name, ast.unparse(cell)) not in _definitions(task.file.read_text(encoding="utf-8")):
        raise LabError(
            f"the cell of {measurement.name} differs from {task.file.name}, whose stored numbers would be shown; "
            f"edit {task.file.name} and run `lab notebooks {task.key}`"
        )


@lru_cache(maxsize=4)
def _definitions(source: str) -> frozenset[tuple[str, str]]:
    """Names and normalised text of what a file defines; parsed once, as every cell of a notebook asks."""
    return frozenset((node.name, ast.unparse(node)) for node in ast.parse(source).body if hasattr(node, "name"))


Task.display = show
