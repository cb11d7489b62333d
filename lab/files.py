"""Where the project lies, and writing a file in one step."""

from __future__ import annotations

import errno
import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
FOLDERS = ("tasks", "proofs_check")


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
