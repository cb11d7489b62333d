"""What a wheel holds: installed anywhere, without the clone it was built in, the lab works or says what it needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from lab import catalogue, coverage
from lab.catalogue import discover
from lab.cli import main
from lab.files import FOLDERS, PROJECT, results_folder


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder of packages into which the wheel is unpacked, which is all that installing it does."""
    built, site = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("site-packages")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(built)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(site)
    return site


def run(site: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A Python that knows the installed wheel, run in ``folder``."""
    environment = {name: value for name, value in os.environ.items() if name != "LAB_RESULTS"}
    environment |= {"PYTHONPATH": str(site), "JAXTYPING_DISABLE": "1"}
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def test_an_installed_lab_lists_the_same_claims_and_says_what_needs_a_clone(site: Path, tmp_path: Path) -> None:
    script = "from lab.cli import main\nprint(main(['list', '--json']), main(['reproduce']))"
    done = run(site, tmp_path, "-c", script)
    assert done.returncode == 0, done.stderr
    *lines, statuses = done.stdout.splitlines()
    assert statuses == "0 2"
    listed = {claim["id"] for record in json.loads("\n".join(lines)) for claim in record["claims"]}
    assert listed == {claim for task in discover() for claim in task.claims}
    assert "`lab reproduce` writes the figures" in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_installed_lab_measures_into_the_working_directory(site: Path, tmp_path: Path) -> None:
    before = sorted(site.rglob("*"))
    arguments = ("-m", "lab", "run", str(PROJECT / "tests" / "examples" / "tiny.py"), "--workers", "1")
    done = run(site, tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "results").rglob("seeds-*.safetensors"))
    assert list((tmp_path / "results" / "tiny" / "figures").rglob("scatter.png"))
    assert [path for path in sorted(site.rglob("*")) if path not in before and "__pycache__" not in path.parts] == []


def test_reproducing_needs_a_clone(monkeypatch, capsys) -> None:
    monkeypatch.setattr("lab.files.CLONE", False)
    assert main(["reproduce", "causallm-icl"]) == 2
    assert "`lab reproduce` writes the figures" in capsys.readouterr().err


def test_no_tasks_are_no_success(monkeypatch, tmp_path: Path, capsys) -> None:
    monkeypatch.setattr(catalogue, "PROJECT", tmp_path)
    assert main(["list"]) == 2
    assert f"{tmp_path} holds no tasks" in capsys.readouterr().err


def test_the_version_is_told(capsys) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"lab {version('theory-lab')}\n"


def test_the_wheel_holds_the_sheets_and_no_notebooks(site: Path) -> None:
    for folder in FOLDERS:
        held, written = ({path.relative_to(root) for path in (root / folder).rglob("*.py")} for root in (site, PROJECT))
        assert held == written
    assert list(site.rglob("*.ipynb")) == []


def test_an_installed_lab_knows_the_verdicts_and_says_where_papers_stand(site: Path, tmp_path: Path) -> None:
    shipped = {path.relative_to(site): path.stat().st_size for path in (site / "evidence").rglob("*") if path.is_file()}
    assert {path.name for path in shipped} == {"claims.json"}
    assert sum(shipped.values()) < 1_000_000
    done = run(site, tmp_path, "-m", "lab", "list", "--papers")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == coverage.summary(coverage.coverage())


def test_results_of_a_clone_lie_in_it(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LAB_RESULTS", raising=False)
    assert results_folder() == PROJECT / "results"
    monkeypatch.setenv("LAB_RESULTS", str(tmp_path / "elsewhere"))
    assert results_folder() == tmp_path / "elsewhere"
