from __future__ import annotations

import copy
import errno
import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from lab import LabError
from lab.catalogue import load
from lab.configuration import config_from_dict
from lab.execution import Session
from lab.files import NotWritten, write
from lab.results import Results, ensure
from lab.runs import Store

TINY = Path(__file__).parent / "examples" / "tiny.py"
task = load(TINY)
means, together = task.measurements["means"], task.measurements["together"]


def results(folder: Path, preset: str = "ci", **changes) -> Results:
    unchanged = Results(task, task.config(preset), Session(folder, quiet=True))
    return unchanged.vary(**changes) if changes else unchanged


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def test_measurements_have_the_seed_first(tmp_path: Path) -> None:
    measured = results(tmp_path)
    assert measured[means]["mean"].shape == (6,)
    assert measured[means]["scaled"].shape == (6, 2)
    assert measured[together]["first"].shape == (6,)


def test_finished_measurements_are_not_taken_again(tmp_path: Path) -> None:
    first = results(tmp_path)[means]["mean"]
    times = [file.stat().st_mtime_ns for file in files(tmp_path)]
    assert np.array_equal(first, results(tmp_path)[means]["mean"])
    assert times == [file.stat().st_mtime_ns for file in files(tmp_path)]


def test_what_a_claim_asks_of_another_part_is_taken_at_the_seeds_named(tmp_path: Path) -> None:
    measured = Results(task, task.config("ci"), Session(tmp_path, quiet=True), (2, 5))
    assert (
        Results(task, task.config("ci"), measured.session)[means]["mean"].tolist() == measured[means]["mean"].tolist()
    )
    assert Results(task, task.config("ci"), measured.session).seeds(means) == (2, 5)
    assert measured.vary(draws=7).seeds(means) == (2, 5)


def test_no_seed_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        LabError, match=r"tiny measures means at 0 seeds \(draws = 0\), which shows nothing; ask for at least 1"
    ):
        results(tmp_path, draws=0)[means]


@pytest.mark.parametrize("far", [-(10**30), 10**30, 10**400], ids=["below", "above", "of 400 digits"])
def test_seeds_of_any_size_have_a_file(tmp_path: Path, far: int) -> None:
    session = Session(tmp_path, quiet=True)
    assert Results(task, task.config("ci"), session, (2, far))[means]["mean"].shape == (2,)
    assert len(files(tmp_path)) == 2


def test_another_configuration_is_another_result(tmp_path: Path) -> None:
    assert not np.array_equal(results(tmp_path)[means]["mean"], results(tmp_path, size=11)[means]["mean"])
    assert len(files(tmp_path)) == 12


def test_more_seeds_keep_what_is_there(tmp_path: Path) -> None:
    few = results(tmp_path)[means]["mean"]
    many = results(tmp_path, draws=8)
    assert np.array_equal(Results(task, task.config("ci"), many.session, range(8))[means]["mean"][:6], few)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda content: content[:-5], "cut short"),
        (lambda content: content[:40], "cut short"),
        (lambda content: b"", "cut short"),
        (lambda content: content[:-1] + bytes([content[-1] ^ 1]), "changed after"),
    ],
)
def test_a_damaged_file_is_reported_and_measured_again(tmp_path: Path, caplog, damage, reason: str) -> None:
    first = results(tmp_path)[means]["mean"]
    victim = files(tmp_path)[2]
    victim.write_bytes(damage(victim.read_bytes()))
    with caplog.at_level(logging.WARNING, "lab"):
        assert np.array_equal(results(tmp_path)[means]["mean"], first)
    assert len(caplog.messages) == 1
    assert reason in caplog.messages[0]
    assert str(victim) in caplog.messages[0]


@pytest.mark.parametrize("manifest", [None, [1], 3, "text", {}, {"identity": 1}])
def test_a_manifest_that_is_none_is_reported_and_measured_again(tmp_path: Path, caplog, manifest: object) -> None:
    first = results(tmp_path)[means]["mean"]
    victim = files(tmp_path)[2]
    data = safetensors.numpy.load_file(victim)
    victim.write_bytes(safetensors.numpy.save(data, metadata={"manifest": json.dumps(manifest)}))
    assert np.array_equal(results(tmp_path)[means]["mean"], first)
    assert len(caplog.messages) == 1
    assert "is measured again" in caplog.messages[0]


def test_a_result_of_another_version_is_not_used(tmp_path: Path, caplog) -> None:
    results(tmp_path)[means]
    victim = files(tmp_path)[0]
    with safetensors.safe_open(victim, framework="numpy") as file:
        manifest = json.loads(file.metadata()["manifest"])
        data = {name: file.get_tensor(name) for name in file.keys()}
    manifest["identity"]["versions"]["torch"] = "0.1"
    victim.write_bytes(safetensors.numpy.save(data, metadata={"manifest": json.dumps(manifest)}))
    with caplog.at_level(logging.WARNING, "lab"):
        results(tmp_path)[means]
    assert "belongs to another run" in caplog.text


def test_unwritable_folder_is_one_sentence(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("", encoding="utf-8")
    with pytest.raises(LabError, match="cannot be written to .*--results"):
        results(blocked / "results")[means]


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch) -> None:
    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    measured = results(tmp_path)
    monkeypatch.setattr("lab.runs.write", full)
    with pytest.raises(LabError, match="disk is full"):
        measured[means]


def test_a_second_process_is_told_to_wait(tmp_path: Path) -> None:
    with Store(tmp_path).lock("tiny"), pytest.raises(LabError, match="another process is measuring tiny"):
        results(tmp_path)[means]


def test_a_file_that_could_not_be_written_is_told_between_processes(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(NotWritten) as caught:
        write(tmp_path / "file" / "below", b"")
    sent = copy.copy(caught.value)  # copies as a worker's answer is sent: by class, arguments and attributes
    assert str(sent) == str(caught.value)
    assert str(sent).startswith(f"{tmp_path}/file/below cannot be written: ")
    assert (sent.reason, isinstance(sent, OSError)) == (caught.value.reason, True)


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOLCK, errno.ESTALE, errno.EIO])
def test_a_lock_that_cannot_be_had_is_one_sentence(tmp_path: Path, monkeypatch, number: int) -> None:
    """Another user's lock, or a network disk without locks."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    with pytest.raises(LabError, match="cannot be locked by this process .*; name another folder with --results"):
        results(tmp_path)[means]


def test_a_folder_that_cannot_be_read_is_one_sentence(tmp_path: Path, monkeypatch) -> None:
    def refuse(*_: object) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("pathlib.Path.exists", refuse)
    with pytest.raises(LabError, match="results cannot be read from .*: permission denied"):
        results(tmp_path)[means]


def test_configuration_survives_plain_data(tmp_path: Path) -> None:
    config = task.config("ci")
    job = results(tmp_path).jobs([means])[0]
    assert config_from_dict(task.config_type, job.config) == config


def test_an_unknown_key_is_an_error() -> None:
    with pytest.raises(LabError, match="no field 'sizee'"):
        config_from_dict(task.config_type, {"sizee": 3})


def test_provenance_stands_in_the_file(tmp_path: Path) -> None:
    ensure(results(tmp_path).jobs([together]), Session(tmp_path, quiet=True))
    with safetensors.safe_open(files(tmp_path)[0], framework="numpy") as file:
        manifest = json.loads(file.metadata()["manifest"])
    assert manifest["identity"]["seeds"] == [0, 1, 2, 3]
    assert set(manifest["identity"]["versions"]) == {"python", "numpy", "scipy", "torch"}
    assert {"digest", "seconds", "finished", "machine"} <= set(manifest)
