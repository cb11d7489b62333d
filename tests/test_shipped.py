from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import xarray as xr

from lab import LabError, reproduction, runs, shipped
from lab.catalogue import load
from lab.execution import Session
from lab.results import Results, ensure
from lab.runs import Job, Unusable
from tests.test_runs import files

TINY = Path(__file__).parent / "examples" / "tiny.py"
task = load(TINY)
means, by_scale, together, cases = (
    task.measurements[name] for name in ("means", "by_scale", "by_scale_together", "square_of_sum")
)


def reading(tmp_path: Path, folder: Path | None, seeds: tuple[int, ...] | None = None) -> Results:
    return Results(task, task.config("ci"), Session(tmp_path / "results", quiet=True, evidence=folder), seeds)


def edited(folder: Path, into: Path, change: Callable[[dict, dict], None]) -> Path:
    """A copy of the evidence in which the pack of ``means`` was changed."""
    path = into / "tiny" / "means.safetensors"
    path.parent.mkdir(parents=True)
    with safetensors.safe_open(folder / "tiny" / "means.safetensors", framework="numpy") as file:
        manifest = json.loads(file.metadata()["manifest"])
        arrays = {name: file.get_tensor(name).copy() for name in file.keys()}
    change(manifest, arrays)
    path.write_bytes(safetensors.numpy.save(arrays, {"manifest": json.dumps(manifest)}))
    return into


def test_what_is_shipped_is_not_measured(tmp_path: Path, evidence: Path, caplog) -> None:
    stored, fresh = reading(tmp_path, evidence), reading(tmp_path / "fresh", None)
    assert np.array_equal(stored[means]["scaled"], fresh[means]["scaled"])
    for measurement in (by_scale, together, cases):
        xr.testing.assert_identical(stored[measurement], fresh[measurement])
    assert files(tmp_path / "results") == []
    assert caplog.messages == []


EVERY = set(task.measurements)


@pytest.mark.parametrize(
    ("again", "measured"),
    [
        (("*",), EVERY),
        (("*", "!*by_*"), {"means", "together", "square_of_sum"}),
        (("tiny", "!means"), EVERY - {"means"}),
        (("means",), {"means"}),
        (("!means",), set()),
    ],
)
def test_what_is_named_is_measured_again(
    tmp_path: Path, evidence: Path, again: tuple[str, ...], measured: set[str]
) -> None:
    session = Session(tmp_path / "results", quiet=True, evidence=evidence, again=again)
    results = Results(task, task.config("ci"), session)
    ensure(results.jobs(list(task.measurements.values())), session)
    assert {path.relative_to(tmp_path / "results").parts[1] for path in files(tmp_path / "results")} == measured


def test_a_pack_gives_the_seeds_that_are_asked_for(tmp_path: Path, evidence: Path) -> None:
    dataset = reading(tmp_path, evidence, (4, 1))[by_scale]
    xr.testing.assert_identical(dataset, reading(tmp_path, evidence)[by_scale].sel(seed=[4, 1]))
    assert files(tmp_path / "results") == []


def test_another_size_is_measured_without_a_word(tmp_path: Path, evidence: Path, caplog) -> None:
    reading(tmp_path, evidence).vary(size=4)[means]
    assert len(files(tmp_path / "results")) == 6
    assert caplog.messages == []


def test_other_seeds_are_measured_without_a_word(tmp_path: Path, evidence: Path, caplog) -> None:
    assert len(reading(tmp_path, evidence, (1, 77))[means]["mean"]) == 2
    assert [str(path.stem) for path in files(tmp_path / "results")] == ["seeds-77"]
    assert caplog.messages == []


def _edit_number(manifest: dict, arrays: dict) -> None:
    arrays["mean"][2] += 1e-9


def _edit_seeds(manifest: dict, arrays: dict) -> None:
    manifest["seeds"].reverse()


def _edit_source(manifest: dict, arrays: dict) -> None:
    manifest["identity"]["source"] = "0" * 16
    sign(manifest, arrays)


def _edit_version(manifest: dict, arrays: dict) -> None:
    manifest["identity"]["versions"]["numpy"] = "1.0"
    sign(manifest, arrays)


def sign(manifest: dict, arrays: dict) -> None:
    about = [manifest["identity"], [["seeds", manifest["seeds"]]]]
    manifest["digest"] = runs.digest(runs.Measured(arrays), about)


@pytest.mark.parametrize(
    ("change", "reason", "measured"),
    [
        (_edit_number, "its numbers were changed after", 6),
        (_edit_seeds, "its numbers were changed after", 6),
        (lambda manifest, arrays: manifest.pop("calls"), "not a result file", 6),
        (_edit_source, "the code that it depends on has changed", 6),
        (_edit_version, "measured with numpy 1.0, and this is numpy", 6),
    ],
)
def test_a_pack_that_cannot_be_used_is_said_once(
    tmp_path: Path, evidence: Path, caplog, change: Callable, reason: str, measured: int
) -> None:
    folder = edited(evidence, tmp_path / "evidence", change)
    with caplog.at_level(logging.WARNING, "lab"):
        values = reading(tmp_path, folder)[means]["mean"]
    assert np.array_equal(values, reading(tmp_path, evidence)[means]["mean"])
    assert len(files(tmp_path / "results")) == measured
    (sentence,) = caplog.messages
    assert reason in sentence
    assert "`lab reproduce tiny` writes it anew" in sentence


def test_a_pack_that_is_cut_short_is_said_once(tmp_path: Path, evidence: Path, caplog) -> None:
    folder = edited(evidence, tmp_path / "evidence", lambda manifest, arrays: None)
    path = folder / "tiny" / "means.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(Unusable, match="cut short"):
        shipped.unpack(path)
    reading(tmp_path, folder)[means]
    assert len(files(tmp_path / "results")) == 6
    assert len(caplog.messages) == 1


def test_a_pack_keeps_the_provenance_of_every_call(evidence: Path) -> None:
    pack = shipped.unpack(evidence / "tiny" / "by_scale_together.safetensors")
    assert [call["seeds"] for call in pack.calls] == [[0, 1, 2, 3], [4, 5]]
    assert pack.calls[0].keys() == {"seeds", "machine", "versions", "seconds", "finished"}
    assert pack.calls[0]["versions"] == runs.versions()
    assert pack.identity["versions"] == runs.minor_versions()
    assert pack.seconds == sum(call["seconds"] for call in pack.calls)
    assert list(shipped.unpack(evidence / "tiny" / "square_of_sum.safetensors").members["cases"]) == [
        "claimed",
        "halved",
    ]


def test_packing_what_was_read_from_packs_changes_nothing(tmp_path: Path, evidence: Path) -> None:
    results = reading(tmp_path, evidence)
    jobs = results.jobs(list(task.measurements.values()))
    gone = tmp_path / "evidence" / "tiny" / "gone.safetensors"
    gone.parent.mkdir(parents=True)
    gone.touch()
    for path in shipped.ship(jobs, results.session.store, tmp_path / "evidence"):
        assert path.read_bytes() == (evidence / path.relative_to(tmp_path / "evidence")).read_bytes()
    assert not gone.exists()


def test_what_was_not_measured_cannot_be_shipped(tmp_path: Path) -> None:
    results = reading(tmp_path, None)
    with pytest.raises(LabError, match="tiny means seed 0 is not measured yet"):
        shipped.pack(results.jobs([means]), results.session.store)


def test_only_the_projects_own_tasks_are_reproduced(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="is not the project's.*`lab run`"):
        reproduction.reproduce([task], Session(tmp_path, quiet=True))


def test_reproducing_writes_evidence_figures_and_verdicts(tmp_path: Path, monkeypatch) -> None:
    """With a folder of its own in the place of the project's."""
    monkeypatch.setattr(type(task), "place", "tasks")
    monkeypatch.setattr("lab.pages.PROJECT", tmp_path)
    monkeypatch.setattr("lab.report.PROJECT", tmp_path)
    monkeypatch.setattr("lab.shipped.FOLDER", tmp_path / "evidence")
    reproduction.reproduce([task], Session(tmp_path / "results", quiet=True))
    assert sorted(path.name for path in (tmp_path / "figures").rglob("*.*")) == ["scatter.csv", "scatter.png"]
    assert {path.stem for path in (tmp_path / "evidence").rglob("*.safetensors")} == set(task.measurements)
    (records,) = (tmp_path / "evidence").rglob("claims.json")
    assert [record["id"] for record in json.loads(records.read_text(encoding="utf-8"))] == list(task.claims)


def test_jobs_are_plain_data(tmp_path: Path) -> None:
    for job in reading(tmp_path, None).jobs([cases]):
        assert isinstance(job, Job)
        json.dumps(job.identity)
