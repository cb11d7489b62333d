from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from lab.cli import main
from lab.data.export import LEAST


@pytest.mark.parametrize("ending", [".npz", ".safetensors", ".jsonl"])
def test_more_prompts_than_the_disk_holds_are_refused_before_one_is_written(
    ending: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = ["--dimension", "2", "--context-length", "3", "--query-length", "1"]
    out = tmp_path / f"prompts{ending}"
    command = ["data", "linear-regression", "--out", str(out), *sizes, "--count"]
    assert main([*command, "1000000000000"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("lab: 1,000,000,000,000 prompts of ")
    assert "GB free; choose a smaller --count, or name a file on another disk with --out" in error
    assert list(tmp_path.iterdir()) == []
    row = int(error.split(" prompts of ")[1].split(" bytes")[0])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10 * row // LEAST[ending]))
    assert main([*command, "11"]) == 2
    assert main([*command, "10"]) == 0
