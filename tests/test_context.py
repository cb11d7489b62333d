from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lab import LabError, context


def test_outside_a_job_nothing_is_kept_and_nobody_listens() -> None:
    with context.training("train") as path, context.training("train"):
        assert path is None
    context.keep("train", {"weight": torch.zeros(2)}, {})
    assert context.device().type == "cpu"
    context.report(0.5)


def test_a_job_tells_its_surroundings(tmp_path: Path) -> None:
    heard: list[float] = []
    with context.job(context.JobContext("cpu", tmp_path, tmp_path / "networks", heard.append)):
        context.report(0.25)
        with context.training("train") as path:
            assert path == tmp_path / "train.safetensors"
        context.keep("train", {"weight": torch.zeros(2)}, {})
        assert [file.name for file in (tmp_path / "networks").iterdir()] == ["train.safetensors"]
    context.report(0.5)
    assert heard == [0.25]


def test_a_training_that_failed_may_be_taken_up_again(tmp_path: Path) -> None:
    with context.job(context.JobContext(scratch=tmp_path)):
        with pytest.raises(KeyboardInterrupt), context.training("one"):
            raise KeyboardInterrupt
        with context.training("one"):
            pass
        with pytest.raises(LabError, match="called 'one'"), context.training("one"):
            pass
