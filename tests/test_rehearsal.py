"""Configurations that leave out what a figure or claim reads are refused before anything is measured; others are not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from lab import LabError
from lab.catalogue import find
from lab.cli import main
from lab.execution import Session
from lab.rehearsal import rehearse
from lab.reproduction import Chosen
from lab.results import Results


def at(part: str, preset: str = "ci", only: str = "*", **changes: object) -> None:
    task = find(part)
    config = dataclasses.replace(task.config(preset), **changes)
    rehearse(Results(task, config, Session(quiet=True)), Chosen.named(task, [only]))


@pytest.mark.parametrize(
    ("part", "changes", "sentence"),
    [
        (
            "attention-masks/random-networks",
            {"gains": (2.0, 4.0)},
            r"--gains 2\.0 4\.0 leaves out what attention-masks/",
        ),
        (
            "causallm-icl/limit-is-one-pass",
            {"means": (1.0, 2.0)},
            r"--means 1\.0 2\.0 .*O2 reads \(at ci it is 0\.0 1\.0",
        ),
        ("causallm-icl/repairs", {"noises": (0.5,)}, r"--noises 0\.5 leaves out what causallm-icl/O5 reads"),
        ("causallm-icl/depth-is-iteration", {"layers": 5}, r"--layers 5 leaves out what causallm-icl/O1 reads.*--only"),
    ],
)
def test_a_label_that_is_read_and_left_out_is_named(part: str, changes: dict, sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        at(part, **changes)
    if "gains" in changes:
        with pytest.raises(LabError, match=sentence):
            at(part, "smoke", **changes)


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("attention-masks/random-networks", {"gains": (1.0, 2.0, 4.0, 8.0)}),
        ("attention-masks/random-networks", {"draws": 40}),
        ("causallm-icl/depth-is-iteration", {"layers": 100}),
        ("regression-mixtures/paper-sizes", {"numbers": (5, 20, 40)}),
        ("stepwise-graph-navigation/short-training-paths", {"limits": (2, 3, 4, 5, 10)}),
    ],
)
def test_what_is_not_left_out_is_not_refused(part: str, changes: dict) -> None:
    at(part, **changes)


def test_what_is_named_with_only_may_do_without_it() -> None:
    at("causallm-icl/repairs", only="T4*", noises=(0.5,))


def test_nothing_is_measured_before_it_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(
        ["run", "attention-masks/random-networks", "--gains", "2", "4", "--results", str(tmp_path / "results")]
    )
    assert status == 2
    assert "leaves out what" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()
