from __future__ import annotations

import dataclasses
import io
import json
import os
import time
from pathlib import Path

import pytest
from rich.console import Console

from lab.catalogue import load
from lab.cli import main
from lab.errors import LabError
from lab.execution import Session
from lab.results import Results, ensure
from lab.stored import CURRENT, DAMAGED, DAY, OLD_CODE, _members_text, prune, survey, table

TINY = Path(__file__).parent / "examples" / "tiny.py"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A results folder with the smallest measurements of the tiny task."""
    task = load(TINY)
    session = Session(tmp_path / "results", quiet=True, evidence=None)
    results = Results(task, task.config("smoke"), session)
    ensure(results.jobs([task.measurements["means"], task.measurements["square_of_sum"]]), session)
    return tmp_path / "results"


def test_what_is_stored_is_told(root: Path, capsys) -> None:
    configurations = survey(root, [str(TINY)])
    (means,) = [configuration for configuration in configurations if configuration.measurement == "means"]
    assert (means.configuration, means.members, means.state) == ("smoke", (0, 1, 2, 3, 4, 5), CURRENT)
    assert means.size == sum(file.stat().st_size for file in means.folder.iterdir())
    assert {
        configuration.members for configuration in configurations if configuration.measurement == "square_of_sum"
    } == {("claimed",), ("halved",)}
    assert main(["results", str(TINY), "--results", str(root)]) == 0
    output = capsys.readouterr().out
    assert "0-5" in output
    assert "3 configurations" in output
    assert main(["results", str(TINY), "--results", str(root), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 3


def test_names_are_whole_on_a_narrow_terminal(root: Path) -> None:
    long = [
        dataclasses.replace(configuration, task="a-sheet-of-a-long-name/" + 60 * "x")
        for configuration in survey(root, [str(TINY)])
    ]
    for width in (40, 80, 160):
        console = Console(width=width, record=True, file=io.StringIO())
        console.print(table(long))
        printed = console.export_text()
        assert "…" not in printed
        assert printed.count("x") >= 60 * len(long)
        assert all(len(line) <= width for line in printed.splitlines())


def test_stale_and_abandoned_work_is_swept_and_nothing_else(root: Path, monkeypatch) -> None:
    means = next(configuration for configuration in survey(root, [str(TINY)]) if configuration.measurement == "means")
    abandoned = means.folder.parent / ("0" * 16) / "seeds-0.unfinished"
    fresh = means.folder.parent / ("1" * 16) / "seeds-0.unfinished"
    current = means.folder / "seeds-9.unfinished"
    for folder in (abandoned, fresh, current):
        folder.mkdir(parents=True)
        (folder / "place").write_text("x", encoding="utf-8")
    long_ago = time.time() - 2 * DAY
    os.utime(abandoned / "place", (long_ago, long_ago))
    damaged = root / "tiny" / "means" / ("2" * 16)
    damaged.mkdir()
    (damaged / "seeds-0.safetensors").write_bytes(b"nothing")
    configurations = survey(root, [str(TINY)])
    assert {configuration.state for configuration in configurations if configuration.folder == damaged} == {DAMAGED}
    assert prune(root, configurations)[-1].startswith("removed 2 of 6 configurations")
    assert fresh.exists()
    assert current.exists()
    assert means.folder.exists()
    assert not abandoned.exists()
    assert not damaged.exists()


def test_older_code_is_stale(root: Path, monkeypatch) -> None:
    task = load(TINY)
    older = {
        name: dataclasses.replace(measurement, fingerprint="another") for name, measurement in task.measurements.items()
    }
    monkeypatch.setattr(task, "measurements", older)
    configurations = survey(root, [str(TINY)])
    assert {configuration.state for configuration in configurations} == {OLD_CODE}
    assert prune(root, configurations)[-1].startswith("removed 3 of 3 configurations")
    assert not list(root.rglob("*.safetensors"))


def test_results_of_a_file_that_is_not_named_stay(root: Path) -> None:
    """Whether they are stale cannot be known without their file."""
    assert all(not sentence.startswith("removed 3") for sentence in prune(root, survey(root)))
    assert len(list(root.rglob("*.safetensors"))) == 8


def test_mistakes_are_sentences(root: Path, tmp_path: Path) -> None:
    with pytest.raises(LabError, match="there is no results folder .* makes it"):
        survey(tmp_path / "nowhere")
    with pytest.raises(LabError, match="nothing of 'tinny' is stored in .* .did you mean 'tiny'"):
        survey(root, ["tinny"])


def test_seeds_of_any_size_are_told() -> None:
    assert _members_text([1, 10**30]) == f"1, {10**30}"
    assert _members_text([4, 5, 6]) == "4-6"
    assert _members_text([-4, -3]) == "-4 to -3"


def test_a_seed_that_two_calls_hold_counts_once(tmp_path: Path) -> None:
    task = load(TINY)
    for seeds in ((0, 1, 2), (1, 2, 3)):
        session = Session(tmp_path / "results", quiet=True, evidence=None, seeds=seeds)
        results = Results(task, task.config("smoke"), session)
        ensure(results.jobs([task.measurements["together"]]), session)
    (held,) = survey(tmp_path / "results", [str(TINY)])
    assert held.members == (0, 1, 2, 3)
