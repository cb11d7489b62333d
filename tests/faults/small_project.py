"""A copy of the lab whose only sheets are tiny: every command can be tried on it, those that write the project's files too."""

from __future__ import annotations

import shutil
from pathlib import Path

from lab.files import PROJECT

TINY = PROJECT / "tests" / "examples" / "tiny.py"


def make(folder: Path) -> Path:
    """Write the copy to ``folder``, with a sheet, a sheet of two parts, a proof, and a folder of a user's own files."""
    text = TINY.read_text(encoding="utf-8")
    shutil.copytree(PROJECT / "lab", folder / "lab", ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("faults", "examples"):
        shutil.copytree(PROJECT / "tests" / part, folder / "tests" / part, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("papers.toml", "pyproject.toml", "README.md", "tests/__init__.py"):
        shutil.copy(PROJECT / name, folder / name)
    files = {
        "tasks/tiny.py": text,
        "tasks/sheet/__init__.py": 'PARTS = ("one", "two")\n',
        "tasks/sheet/one.py": _called(text, "sheet", "A"),
        "tasks/sheet/two.py": _called(text, "sheet", "B"),
        "proofs_check/tiny.py": _called(text, "tiny", "P"),
        "user/drawn.py": _called(text, "drawn", "A"),
        "user/own.py": _called(text.replace("@TASK.figure\n", ""), "own", "A"),
        "user/asked.py": PREDICTORS,
    }
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
    return folder


def _called(text: str, name: str, first: str) -> str:
    """The tiny task under another name, with claims of other ids."""
    return text.replace('"tiny",', f'"{name}",').replace('"tiny/A', f'"{name}/{first}')


PREDICTORS = """
import torch

def zero(x, y, q):
    return torch.zeros(q.shape[:2], dtype=q.dtype)

def raises(x, y, q):
    raise ValueError("no")

five = 5
"""
