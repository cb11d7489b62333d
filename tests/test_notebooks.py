"""Notebooks are their task files, executed; an edited cell is not shown with the numbers of the file."""

from __future__ import annotations

import hashlib
import inspect
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from lab import notebooks
from lab.catalogue import load
from lab.cli import main
from lab.errors import LabError
from lab.execution import Session
from lab.files import PROJECT
from lab.tasks import Task
from tests import again
from tests.conftest import TASKS

TINY = PROJECT / "tests" / "examples" / "tiny.py"


LECTURES = [task for task in TASKS if task.place == "tasks"]
# A kernel starts for each: a few notebooks are executed for each commit, all of them by `make notebooks`.
EXECUTED = 4
SHARE = sorted(LECTURES, key=lambda task: hashlib.sha256(f"{again.commit()} {task.key}".encode()).hexdigest())[
    :EXECUTED
]


@pytest.mark.parametrize("task", LECTURES, ids=lambda task: task.key)
def test_notebook_is_the_twin_of_its_file(task: Task) -> None:
    committed = nbformat.read(task.file.with_suffix(".ipynb"), as_version=4)
    source = notebooks.of_file(task.file)
    stale = f"run `python -m lab.notebooks {task.key}`"
    assert [cell.source for cell in committed.cells] == [cell.source for cell in source.cells], stale
    assert_shows_results(task, committed)


@pytest.mark.claims
@pytest.mark.timeout(5000)
@pytest.mark.parametrize("task", SHARE, ids=lambda task: task.key)
@pytest.mark.filterwarnings("default")
def test_notebook_executes(results: dict, task: Task, monkeypatch) -> None:
    written: dict[str, bytes] = {}
    monkeypatch.setattr(notebooks, "write", lambda path, content: written.update({str(path): content}))
    notebooks.execute(task, Session(), task.file.parent)
    assert_shows_results(task, nbformat.reads(next(iter(written.values())).decode(), as_version=4))


def assert_shows_results(task: Task, notebook: Any) -> None:
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    shown = "".join("".join(output.get("data", {}).get("text/markdown", "")) for output in outputs)
    assert shown  # figures, verdicts, or both
    assert not task.figures or "](../" in shown  # pictures are links
    assert len(nbformat.writes(notebook)) < 300_000


def test_comments_that_look_like_commands_stay_comments(tmp_path: Path) -> None:
    file = tmp_path / "comments.py"
    file.write_text("# %%\nimport math\n# ls is short for least squares\n# %time\n# !pip install x\n", encoding="utf-8")
    (cell,) = notebooks.of_file(file).cells
    assert cell.source == "import math\n# ls is short for least squares\n# %time\n# !pip install x"


@pytest.mark.filterwarnings("default")
def test_a_file_of_ones_own_is_a_notebook_of_the_results_it_is_given(tmp_path: Path, monkeypatch, capfd) -> None:
    monkeypatch.setenv("LAB_RESULTS", str(tmp_path / "never"))
    file = shutil.copy(TINY, tmp_path / "own_tiny.py")
    Path(file).write_text(
        Path(file).read_text(encoding="utf-8") + "\n# %%\nTASK.show(mean_is_small)\n", encoding="utf-8"
    )
    assert main(["notebooks", str(file), "--workers", "1", "--results", str(tmp_path / "kept")]) == 0
    assert "WARNING" not in capfd.readouterr().err, "the kernel says nothing"
    shown = nbformat.read(tmp_path / "own_tiny.ipynb", as_version=4).cells[-1].outputs
    assert "**tiny/A1**" in shown[0]["data"]["text/markdown"]
    assert (tmp_path / "kept" / "tiny").is_dir()
    assert not (tmp_path / "never").exists()


@pytest.mark.filterwarnings("default")
def test_a_readers_notebook_of_a_task_of_the_lab_is_no_tracked_file(tmp_path: Path, monkeypatch, capsys) -> None:
    task = min(LECTURES, key=lambda task: len(task.claims))
    committed = task.file.with_suffix(".ipynb").read_bytes()
    monkeypatch.setattr("lab.cli.ensure", lambda *_: None)  # what ships, whatever its key
    monkeypatch.setattr("lab.cli._check_own", lambda *_: None)
    assert main(["notebooks", task.key, "--results", str(tmp_path)]) == 0, capsys.readouterr().err
    (written,) = tmp_path.rglob("*.ipynb")
    assert written == tmp_path / task.key / "notebook" / f"{task.file.stem}.ipynb"
    assert task.file.with_suffix(".ipynb").read_bytes() == committed
    links = re.findall(r"\]\(([^)]*\.png)\)", written.read_text(encoding="utf-8"))
    assert links
    assert all((written.parent / link).is_file() for link in links)


def test_a_folder_where_no_notebook_can_be_written_is_said_before_the_work(tmp_path: Path, monkeypatch, capsys) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    assert main(["notebooks", str(shutil.copy(TINY, tmp_path / "tiny.py")), "--results", str(tmp_path / "kept")]) == 2
    assert f"{tmp_path} cannot be written: permission denied" in capsys.readouterr().err
    assert not (tmp_path / "kept").exists()


def test_a_notebook_of_no_task_is_refused() -> None:
    with pytest.raises(LabError, match=f"did you mean '{LECTURES[0].key}'"):
        notebooks.main([f"{LECTURES[0].key}s"])


def test_links_of_a_notebook_run_by_hand_start_in_its_folder(tmp_path: Path, monkeypatch) -> None:
    task = next(task for task in LECTURES if task.figures)
    shown: list[str] = []
    monkeypatch.setattr("IPython.display.Markdown", lambda text: text)
    monkeypatch.setattr("IPython.display.display", shown.append)
    monkeypatch.delenv(notebooks.FOLDER_OF_NOTEBOOK, raising=False)
    for folder in (tmp_path, task.file.parent):
        monkeypatch.chdir(folder)
        notebooks.show(task, next(iter(task.figures.values())))
        (link,) = re.findall(r"\]\(([^)]*\.png)\)", shown.pop())
        assert Path(link).is_file()


def test_a_kernel_that_cannot_start_is_one_sentence(tmp_path: Path, monkeypatch) -> None:
    def nothing(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("nbclient.NotebookClient.execute", nothing)
    with pytest.raises(
        LabError, match="the notebook of tiny cannot be executed .AssertionError: no message.; see that"
    ):
        notebooks.execute(load(TINY), Session(tmp_path), tmp_path)


def test_a_cell_may_differ_from_its_file_in_layout_only(monkeypatch) -> None:
    task = load(TINY)
    source = inspect.getsource(task.measurements["means"].function)
    main = sys.modules["__main__"]
    check = next(claim.check for claim in task.claims.values() if task.measurements["means"] in task.needs(claim.check))
    monkeypatch.setattr(main, "In", ["", source.replace("size=config.size", "size = config.size")], raising=False)
    notebooks._check_unedited(task, check)
    monkeypatch.setattr(main, "In", ["", source.replace("config.size", "config.size + 1")], raising=False)
    with pytest.raises(LabError, match=r"the cell of means differs from tiny\.py"):
        notebooks._check_unedited(task, check)


def test_an_edited_helper_is_seen_too(monkeypatch) -> None:
    task = load(TINY)
    check = next(claim.check for claim in task.claims.values() if task.measurements["means"] in task.needs(claim.check))
    edited = "@dataclass(frozen=True)\nclass Config:\n    size: int = 7\n"
    monkeypatch.setattr(sys.modules["__main__"], "In", ["", edited], raising=False)
    with pytest.raises(LabError, match="the cell of Config differs"):
        notebooks._check_unedited(task, check)
