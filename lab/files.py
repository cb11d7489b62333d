"""Where the project lies, where results go, and writing a file in one step."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from lab.errors import LabError

PROJECT = Path(__file__).resolve().parent.parent
FOLDERS = ("tasks", "proofs_check")
# Installed as a wheel, the project lies among other packages, where nothing is ever written.
CLONE = (PROJECT / "pyproject.toml").is_file()


def results_folder() -> Path:
    """Where finished measurements are kept: $LAB_RESULTS, or ``results`` of the clone or else of the working directory."""
    chosen = os.environ.get("LAB_RESULTS")
    return Path(chosen) if chosen else (PROJECT if CLONE else Path.cwd()) / "results"


def require_clone(command: str) -> None:
    """Raise LabError unless this is a clone, whose figures and notebooks ``command`` may write."""
    if not CLONE:
        raise LabError(
            f"`{command}` writes the figures, notebooks and tables of a clone of the repository, and this lab is installed in "
            f"{PROJECT} without one; clone it, run pip install -e . there and repeat the command"
        )


def write(path: Path, content: bytes) -> None:
    """Write ``path`` in one step: under a temporary name first, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def disk_sentence(root: Path, error: OSError) -> str:
    reason = "the disk is full" if error.errno == errno.ENOSPC else (error.strerror or str(error)).lower()
    return (
        f"results cannot be written to {root}: {reason}; free some space or name another folder with --results, "
        "finished measurements are kept"
    )
