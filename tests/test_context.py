from __future__ import annotations

from pathlib import Path

from lab import context


def test_outside_a_job_nothing_is_kept_and_nobody_listens() -> None:
    assert context.checkpoint("train") is None
    assert context.device().type == "cpu"
    context.report(0.5)


def test_a_job_tells_its_surroundings(tmp_path: Path) -> None:
    heard: list[float] = []
    with context.job(context.JobContext("cpu", tmp_path, heard.append)):
        context.report(0.25)
        assert context.checkpoint("train") == tmp_path / "train.safetensors"
    context.report(0.5)
    assert heard == [0.25]
