"""What `lab new` writes is a task that runs, and nothing that is there is overwritten."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from lab import LabError
from lab.catalogue import load
from lab.cli import main
from lab.own import new


@pytest.mark.parametrize("folder", [False, True])
def test_what_is_written_runs(tmp_path: Path, capsys: Any, folder: bool) -> None:
    """At the smallest sizes: at `ci`, where its verdicts hold, it takes ten seconds."""
    name = "of-one-file" if not folder else "of-two-files"
    assert main(["new", str(tmp_path / name), *(["--folder"] if folder else [])]) == 0
    stem = name.replace("-", "_")
    file = tmp_path / stem / f"{stem}.py" if folder else tmp_path / f"{stem}.py"
    printed = capsys.readouterr().out
    assert f"wrote {file}" in printed
    assert len(file.read_text(encoding="utf-8").splitlines()) < 230
    assert main(["run", str(file), "--preset", "smoke", "--workers", "1", "--results", str(tmp_path / "results")]) == 0
    printed = capsys.readouterr()
    assert "the same bit for bit" in printed.err
    assert printed.out.count("drew ") == 1
    assert list(load(file).claims) == [f"{name}/I1", f"{name}/O1"]


def test_what_stands_apart_imports_what_it_uses(tmp_path: Path) -> None:
    task, prompts = new.new(tmp_path / "my-paper", folder=True)
    for file in (task, prompts):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        imported = {
            alias.asname or alias.name
            for statement in tree.body
            if isinstance(statement, ast.Import | ast.ImportFrom)
            for alias in statement.names
        }
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        assert imported - used == {"annotations"}
    assert "def noisy_readings" not in task.read_text(encoding="utf-8")
    assert prompts.name == "my_paper_prompts.py"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("My-Paper", "cannot be the name of a task"),
        ("2024", "cannot be the name of a task"),
        ("a--b", "cannot be the name of a task"),
        ("x" * 61, "cannot be the name of a task"),
        ("statistics", "the name of one of its modules"),
        ("lambda", "a word of Python"),
        ("tasks", "a part of the lab"),
        ("causallm-icl", "a sheet of the lab"),
        ("nowhere/my-paper", "there is no folder"),
    ],
)
def test_names_that_cannot_be_used_are_refused(tmp_path: Path, name: str, sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        new.new(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("existing", ["my_paper.py", "my_paper"])
@pytest.mark.parametrize("folder", [False, True])
def test_what_is_there_is_left_as_it_is(tmp_path: Path, capsys: Any, existing: str, folder: bool) -> None:
    (tmp_path / existing).mkdir() if existing == "my_paper" else (tmp_path / existing).write_text(
        "mine", encoding="utf-8"
    )
    assert main(["new", str(tmp_path / "my-paper"), *(["--folder"] if folder else [])]) == 2
    assert f"{existing} is there already and is left as it is" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == [existing]
