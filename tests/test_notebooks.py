"""Notebooks are their task files, executed; an edited cell is not shown with the numbers of the file."""

from __future__ import annotations

import inspect

import pytest

from lab import notebooks
from lab.catalogue import load
from lab.errors import LabError
from lab.files import PROJECT
from lab.tasks import Task
from tests.conftest import TASKS

TINY = PROJECT / "tests" / "examples" / "tiny.py"


@pytest.mark.claims
@pytest.mark.timeout(5000)
@pytest.mark.parametrize("task", [task for task in TASKS if task.place == "tasks"], ids=lambda task: task.key)
@pytest.mark.filterwarnings("default")
def test_notebook_executes_and_is_the_twin_of_its_file(results: dict, task: Task, monkeypatch) -> None:
    import jupytext
    import nbformat

    committed = nbformat.read(task.file.with_suffix(".ipynb"), as_version=4)
    source = jupytext.read(task.file)
    assert [cell.source for cell in committed.cells] == [cell.source for cell in source.cells], (
        f"run `lab notebooks {task.key}`"
    )
    written: dict[str, bytes] = {}
    monkeypatch.setattr(notebooks, "write", lambda path, content: written.update({str(path): content}))
    notebooks.execute(task)
    executed = nbformat.reads(next(iter(written.values())).decode(), as_version=4)
    outputs = [output for cell in executed.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert any("text/markdown" in output.get("data", {}) for output in outputs)


def test_a_cell_may_differ_from_its_file_in_layout_only(monkeypatch) -> None:
    task = load(TINY)
    means = task.measurements["means"]
    source = inspect.getsource(means.function)
    monkeypatch.setattr(
        notebooks.inspect, "getsource", lambda _: source.replace("size=config.size", "size = config.size")
    )
    notebooks._check_unedited(task, means)
    monkeypatch.setattr(notebooks.inspect, "getsource", lambda _: source.replace("draws.mean()", "draws.max()"))
    with pytest.raises(LabError, match=r"the cell of means differs from tiny\.py"):
        notebooks._check_unedited(task, means)
