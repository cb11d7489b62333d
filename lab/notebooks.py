"""Task files as notebooks: the ``.py`` is the only source, the ``.ipynb`` is made from it and executed.

A notebook shows stored measurements of its task file, so executing one takes seconds. Cells that only define (set-up,
measurements, figures) are folded; what remains is prose and results. Pictures are links to ``figures/``.
"""

from __future__ import annotations

import ast
import io
import os
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from lab import figures
from lab.catalogue import discover
from lab.claims import Claim, Judgement, judge
from lab.errors import LabError, nearest
from lab.execution import Session
from lab.files import FOLDERS, PROJECT, write
from lab.pages import caption, figure_folder, shows_nothing_but_results
from lab.report import markdown_table
from lab.results import Results
from lab.source import reachable
from lab.tasks import FILE_OF_NOTEBOOK, Task

EXECUTE_SECONDS = 1200
FOLDER_OF_NOTEBOOK = "LAB_NOTEBOOK_FOLDER"
# JupyterLab folds the first, Jupyter Book and nbsphinx the second.
FOLDED = {"jupyter": {"source_hidden": True}, "tags": ["hide-input"]}


def folder_of(task: Task, session: Session) -> Path:
    """Where a reader's notebook of ``task`` goes: beside a file of one's own, below the results for a task of the lab,
    whose notebook in the repository shows what ships and is written by `lab reproduce` and `make notebooks`."""
    return session.results / task.key / "notebook" if task.place in FOLDERS else task.file.parent


def execute(task: Task, session: Session, folder: Path) -> Path:
    """Make the ``.ipynb`` of the file of ``task`` in ``folder`` and execute it top to bottom; returns its path.

    Args:
        task: whose file.
        session: where its measurements are kept.
        folder: where it is written; links to pictures are relative to it.

    Raises:
        LabError: a cell failed, or no kernel could be started.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    notebook = of_file(task.file)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = nbformat.NotebookNode(kernelspec=nbformat.NotebookNode(kernel))
    for index, cell in enumerate(notebook.cells):
        # Random ids would make every execution a different file.
        cell["id"] = f"cell-{index}"
        if cell.cell_type == "code" and not shows_nothing_but_results(cell.source):
            cell.metadata.update(FOLDED)
    client = NotebookClient(
        notebook, timeout=EXECUTE_SECONDS, record_timing=False, resources={"metadata": {"path": str(task.file.parent)}}
    )
    client.extra_arguments = ["--log-level=ERROR"]  # the kernel warns each time of how it is spoken to
    kernel_environment = {
        **os.environ,
        "LAB_RESULTS": str(session.results),
        FILE_OF_NOTEBOOK: str(task.file),
        FOLDER_OF_NOTEBOOK: str(folder),
    }
    try:
        client.execute(env=kernel_environment)
    except CellExecutionError as error:
        raise LabError(f"the notebook of {task.key} stops with {error.ename}: {error.evalue}") from error
    except Exception as error:  # of many kinds, some without a message
        raise LabError(
            f"the notebook of {task.key} cannot be executed ({type(error).__name__}: {str(error) or 'no message'}); see that "
            f"`{sys.executable} -m ipykernel --version` works, and that `jupyter kernelspec list` shows the python3 of it"
        ) from error
    notebook.metadata.pop("language_info", None)
    path = folder / f"{task.file.stem}.ipynb"
    write(path, (nbformat.writes(notebook) + "\n").encode())
    return path


def of_file(file: Path) -> Any:
    """The notebook of a task file; comments that look like commands of a notebook ("# ls is short for …") stay comments."""
    import jupytext

    percent = {"extension": ".py", "format_name": "percent", "comment_magics": False}
    return jupytext.reads(file.read_text(encoding="utf-8"), fmt=percent)


def show(task: Task, part: Any) -> None:
    """Display a figure, a claim with its verdict, or (None) all verdicts, inside a running notebook."""
    from IPython.display import Image, Markdown, display

    _check_unedited(task, part)
    results = Results(task, task.config("ci"), Session())
    claims = {claim.check: claim for claim in task.claims.values()}
    if part is None:
        display(Markdown(markdown_table([judge(claim, results).record() for claim in task.claims.values()], task)))
    elif part in claims:
        display(Markdown(verdict(claims[part], results)))
    elif part in task.figures.values():
        name = part.__name__
        picture = figure_folder(task.name) / f"{name}.png"
        if picture.is_file() and task.file.is_relative_to(PROJECT):
            link = os.path.relpath(picture, os.environ.get(FOLDER_OF_NOTEBOOK, Path.cwd()))
            display(Markdown(f"![{name.replace('_', ' ')}]({link})\n\n*{caption(task, name)}*"))
        else:
            content = io.BytesIO()
            with figures.style():
                part(results).figure.savefig(content, format="png", metadata={"Software": None})
            display(Image(content.getvalue()))
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
    for control in judgement.controls:
        lines.append(
            f"- control, {control.name}: {control.evidence.measured:.4g}, "
            f"{'rejected' if control.rejected else 'NOT REJECTED'}"
        )
    return "\n".join(lines)


def _check_unedited(task: Task, part: Any) -> None:
    """Refuse to show numbers of the file below a cell that says something else.

    What a figure or claim shows was measured by the code of the file. So every definition behind it that a cell of this
    notebook holds (the function itself, its measurements, their helpers and sizes) must be the file's.

    Raises:
        LabError: naming the first definition that differs.
    """
    parts = [part] if part is not None else [claim.check for claim in task.claims.values()]
    behind = {name for function in parts for name in reachable(task.file, getattr(function, "__name__", ""))}
    definitions = _definitions(task.file.read_text(encoding="utf-8"))
    for cell in getattr(sys.modules["__main__"], "In", []):
        for name, text in _definitions(_python(cell)).items():
            if name in behind and definitions.get(name) != text:
                raise LabError(
                    f"the cell of {name} differs from {task.file.name}, whose stored numbers would be shown; "
                    f"edit {task.file.name} and run `lab notebooks {task.key}`"
                )


def _python(cell: str) -> str:
    """A cell without lines that only a notebook understands."""
    return "\n".join(line for line in cell.splitlines() if not line.lstrip().startswith(("%", "!", "?")))


@lru_cache(maxsize=256)
def _definitions(source: str) -> dict[str, str]:
    """Normalised text of what a source defines at its top level, by name; nothing for what is not Python."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return {}
    definitions: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            definitions[node.name] = ast.unparse(node)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            definitions |= {target.id: ast.unparse(node) for target in targets if isinstance(target, ast.Name)}
    return definitions


Task.display = show


def main(keys: Sequence[str]) -> None:
    """Write the notebooks of the repository, of these tasks or of all, from what ships.

    Raises:
        LabError: a key of no task of the repository.
    """
    tasks = {task.key: task for task in discover() if task.place == "tasks"}
    for key in keys:
        if key not in tasks:
            raise LabError(
                f"{key!r} is none of the {len(tasks)} tasks of the repository{nearest(key, tasks)}; "
                "`lab list` shows their names"
            )
    for key in keys or tasks:
        print(f"wrote {execute(tasks[key], Session(), tasks[key].file.parent)}", flush=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        sys.exit(2)
