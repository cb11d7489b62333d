"""An exported claim runs where there is no lab and prints the number and the verdict that the lab has."""

from __future__ import annotations

import ast
import errno
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import Evidence, LabError
from lab.catalogue import load
from lab.claims import Judgement
from lab.cli import main
from lab.execution import Session
from lab.export import export
from lab.files import PROJECT

PROOFS = PROJECT / "proofs_check" / "causallm_icl" / "depth_is_descent.py"
TINY = Path(__file__).parent.parent / "examples" / "tiny.py"
WITHOUT = """
import runpy, sys
class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {missing}:
            raise ImportError(f"there is no {{name}} here")
sys.meta_path.insert(0, Nowhere())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
LAB = ("lab", "tasks", "proofs_check", "tests", "jaxtyping", "beartype", "safetensors", "filelock", "tyro", "rich")

# A file with what is hard to flatten: a name that two modules have, an alias, a module as a name, a local import, prose.
OWN = """
# %% [markdown]
# # Two sums
# %%
from __future__ import annotations
from dataclasses import dataclass
import numpy as np
import helper_of_export
from helper_of_export import total as added
from lab import Evidence, Paper, Task, control, statistics
from lab.streams import stream
@dataclass(frozen=True)
class Config:
    size: int = 4
    weights: tuple[float, ...] = (1.0, float("inf"))
TASK = Task("two-sums", Paper("T", "A", 2024), {preset: Config() for preset in ("smoke", "ci", "paper")})
def _plain(value):
    return float(value)
# %% [markdown]
# Why it must be so.
# %%
@TASK.measurement(seeds=lambda config: 3, ensemble=True, seeds_per_job=2)
def sums(config: Config, seeds: tuple[int, ...]):
    from lab.evaluation import squared_error
    draws = [stream(seed, "data").rng().normal(size=config.size) for seed in seeds]
    return {"sum": np.array([_plain(added(one)) for one in draws]), "twice": np.array([helper_of_export.twice(one) for one in draws])}
@TASK.claim("two-sums/A", where="derived", kind="ordering", statement="Sums are small.", controls=[control("small bound", bound=-50.0)])
def sums_are_small(results, bound: float = 50.0) -> Evidence:
    assert f"{statistics.SHARE:.1f} {_plain(3)}" == "0.0 3.0"
    total = results[sums]["sum"] + results[sums]["twice"]
    return Evidence.over_seeds(total, "<", bound, "chosen before")
@TASK.identity("two-sums/B", where="derived", statement="A sum is a sum.", origin="rounding", controls=[control("one more", more=1.0)])
def same(config: Config, *, more: float = 0.0):
    from lab.labels import deviations
    return deviations([(abs(added(np.ones(config.size)) + more - config.size), 1e-12)])
"""
HELPER = '''"""A helper."""
def _plain(value):
    return value
def total(values):
    """Their sum."""
    return _plain(values).sum()  # in one call
def twice(values):
    return 2 * total(values)
'''


def _exported(claim: str, folder: Path) -> Path:
    script = folder / "claim.py"
    assert main(["export", claim, "--out", str(script), "--workers", "1", "--results", str(folder / "results")]) == 0
    return script


def _run(script: Path, missing: tuple[str, ...] = LAB) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    alone = script.with_name("alone.py")
    alone.write_text(WITHOUT.format(missing=missing), encoding="utf-8")
    completed = subprocess.run(
        [sys.executable, str(alone), str(script)],
        cwd=script.parent,
        capture_output=True,
        text=True,
        env=clean,
        timeout=120,
    )
    assert completed.returncode in (0, 1), completed.stderr
    return completed


def _numbers(printed: str) -> list[tuple[str, str]]:
    """What the script measured beside what the lab had."""
    return list(
        zip(re.findall(r"measured ([^,]+),", printed), re.findall(r"in the lab: ([^,]+),", printed), strict=True)
    )


@pytest.mark.parametrize(
    ("claim", "missing"),
    [
        (f"{TINY}:A1", ("xarray", "torch", "pandas")),  # sampled, of plain arrays
        (f"{PROOFS}:T1", ("matplotlib", "scipy")),  # exact, of a network written by hand
    ],
)
def test_a_claim_is_the_same_without_the_lab(claim: str, missing: tuple[str, ...], tmp_path: Path, capsys: Any) -> None:
    script = _exported(claim, tmp_path)
    completed = _run(script, (*LAB, *missing))
    numbers = _numbers(completed.stdout)
    assert len(numbers) > 1
    assert all(measured == recorded for measured, recorded in numbers), completed.stdout
    assert (completed.returncode, completed.stdout.splitlines()[-1]) == (0, "every verdict is the lab's")
    needed = re.findall(r'#     "([a-z-]+)==', script.read_text(encoding="utf-8"))
    assert not set(needed) & {*LAB, *missing}


@pytest.fixture
def task_file(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "helper_of_export.py").write_text(HELPER, encoding="utf-8")
    file = tmp_path / "two_sums.py"
    file.write_text(OWN, encoding="utf-8")
    yield file
    sys.modules.pop("helper_of_export", None)


@pytest.mark.parametrize("claim", ["A", "B"])
def test_a_claim_of_ones_own_is_too(task_file: Path, claim: str) -> None:
    script = _exported(f"{task_file}:{claim}", task_file.parent)
    text = script.read_text(encoding="utf-8")
    assert ("# Why it must be so." in text, "# in one call" in text) == (claim == "A", True)
    assert "import helper_of_export" not in text
    names = [
        statement.name for statement in ast.parse(text).body if isinstance(statement, ast.FunctionDef | ast.ClassDef)
    ]
    assert len(names) == len(set(names))
    (task_file.parent / "helper_of_export.py").unlink()
    completed = _run(script)
    assert all(measured == recorded for measured, recorded in _numbers(completed.stdout))
    assert (completed.returncode, completed.stdout.splitlines()[-1]) == (0, "every verdict is the lab's")


def test_another_number_is_seen(task_file: Path) -> None:
    script = _exported(f"{task_file}:B", task_file.parent)
    script.write_text(
        script.read_text(encoding="utf-8")
        .replace("return 2 * total", "return 3 * total")
        .replace("_plain(values).sum()", "_plain(values).sum() + 1"),
        encoding="utf-8",
    )
    completed = _run(script)
    assert (completed.returncode, completed.stdout.splitlines()[-1]) == (1, "1 verdicts are not the lab's")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([f"{PROOFS}:T111"], "T111'"),
        ([f"{PROOFS}:T*"], "name one"),
        ([f"{PROOFS}:T1", "--out", "claim.txt"], "give it a name that ends in .py"),
        ([f"{PROOFS}:T1", "--out", "there.py"], "there.py is there already and is left as it is"),
        ([f"{PROOFS}:T1", "--out", "nowhere/claim.py"], "there is no folder nowhere"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is_measured(
    arguments: list[str], sentence: str, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.py").write_text("mine", encoding="utf-8")
    assert main(["export", *arguments, "--results", str(tmp_path / "results")]) == 2
    assert sentence in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there.py"]


def test_a_claim_on_the_results_of_another_part_is_refused() -> None:
    task = load(PROJECT / "tasks" / "addition_length_generalization" / "unseen_sums.py")
    claim = task.claims["addition-length-generalization/T2"]
    judgement = Judgement(claim, Evidence.exact(0, "<=", 1, "no matter"), (), "ci")
    with pytest.raises(
        LabError, match="T2 cannot be exported: the task TASK of every_window.py stands in what it depends on"
    ):
        export.script(task, claim, judgement, Session())


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path, monkeypatch, capsys) -> None:
    def judged(*_: object) -> None:
        raise AssertionError("it was judged although the script cannot be written")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("lab.cli._judged", judged)
    monkeypatch.setattr("lab.files.tempfile.TemporaryFile", full)
    assert main(["export", f"{TINY}:A1", "--out", str(tmp_path / "claim.py")]) == 2
    assert "cannot be written: the disk is full" in capsys.readouterr().err
