from __future__ import annotations

from pathlib import Path

import pytest

from lab.source import fingerprint, reachable

BASE = '''
"""A file."""
import numpy as np
from lab.streams import stream
TASK = Task("x")
SCALE = 2.0
OTHER = 3.0
def helper(x):
    """Doc."""
    return SCALE * x
@TASK.measurement(seeds=lambda config: 5)
def measure(config, seed):
    return helper(stream(seed).rng().random())
def figure(results):
    return results[measure], OTHER
'''


def hashed(tmp_path: Path, text: str, name: str = "measure") -> str:
    file = tmp_path / f"file{abs(hash(text))}.py"
    file.write_text(text, encoding="utf-8")
    return fingerprint(file, name)


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ("SCALE = 2.0", "SCALE = 2.5", True),
        ("return SCALE * x", "return SCALE + x", True),
        ("lab.streams import stream", "lab.training import stream", True),
        ('"""Doc."""', '"""Another doc."""', False),
        ("OTHER = 3.0", "OTHER = 4.0", False),
        ("results[measure], OTHER", "results[measure], 1", False),
        ("config: 5", "config: 6", False),
        ('Task("x")', 'Task("y")', False),
        ("SCALE = 2.0", "# why two\nSCALE = 2.0", False),
    ],
)
def test_fingerprint_follows_what_is_used(tmp_path: Path, old: str, new: str, changes: bool) -> None:
    assert old in BASE
    assert (hashed(tmp_path, BASE) != hashed(tmp_path, BASE.replace(old, new))) == changes


def test_reachable_names(tmp_path: Path) -> None:
    file = tmp_path / "file.py"
    file.write_text(BASE, encoding="utf-8")
    assert {"measure", "helper", "SCALE"} <= reachable(file, "figure")
    assert "figure" not in reachable(file, "measure")
