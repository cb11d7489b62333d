"""Where the project lies, where results go, and writing a file in one step."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from lab.errors import LabError

PROJECT = Path(__file__).resolve().parent.parent
FOLDERS = ("tasks", "proofs_check")
# Installed as a wheel, the project lies among other packages, where nothing is ever written.
CLONE = (PROJECT / "pyproject.toml").is_file()


class NotWritten(LabError, OSError):
    """A file could not be written; a sentence for the reader, and still an OSError for who can go on without the file.

    Attributes:
        reason: why, in a few words.
    """

    reason: str = ""

    @classmethod
    def because(cls, path: Path, error: OSError) -> NotWritten:
        """What to say of ``path`` after ``error``. (One argument alone, so that it can be sent between processes.)"""
        not_written = cls(f"{path} cannot be written: {_reason(error)}; {_remedy(error)} with --results or --out")
        not_written.errno, not_written.reason = error.errno, _reason(error)
        return not_written


# What helps against an error of the disk, by its number.
REMEDIES: Mapping[int | None, str] = {
    **dict.fromkeys((errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)), "free some space"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "ask for the right to write there"),
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR), "move the file that stands in the place of a folder"),
    errno.EISDIR: "move the folder that stands in its place",
    errno.ENOENT: "make the folder that it lies in",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def results_folder() -> Path:
    """Where finished measurements are kept: $LAB_RESULTS, or ``results`` of the clone or else of the working directory."""
    chosen = os.environ.get("LAB_RESULTS")
    return Path(os.path.expanduser(chosen)) if chosen else (PROJECT if CLONE else Path.cwd()) / "results"


def path_from(text: str) -> Path:
    """A path as a user writes it: `~` is the home of its user.

    Raises:
        LabError: there is no such user, or nothing can be called so.
    """
    try:
        path = Path(text).expanduser()
        path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        why = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        raise LabError(f"{text[:100]!r} cannot be the path of anything ({why.lower()}); name another one") from error
    return path


def require_clone(command: str) -> None:
    """Raise LabError unless this is a clone, whose figures and notebooks ``command`` may write."""
    if not CLONE:
        raise LabError(
            f"`{command}` writes the figures, notebooks and tables of a clone of the repository, and this lab is installed in "
            f"{PROJECT} without one; clone it, run pip install -e . there and repeat the command"
        )


def require_own_name(name: str) -> None:
    """Raise LabError where a sheet of the lab is called ``name``, so that no file of one's own is."""
    stem = name.replace("-", "_")
    places = [PROJECT / folder / written for folder in FOLDERS for written in (stem, stem.removesuffix("_proofs"))]
    if any(place.is_dir() or place.with_name(f"{place.name}.py").is_file() for place in places):
        raise LabError(
            f"{name!r} is a sheet of the lab, with which ids and results would be mixed up; choose another name"
        )


def write(path: Path, content: bytes) -> None:
    """Write ``path`` in one step: under a temporary name first, then renamed.

    Raises:
        NotWritten: the disk is full, or the folder is not ours to write to.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise NotWritten.because(path, error) from error


def require_writable(*folders: Path) -> None:
    """Make ``folders``, and refuse those that nothing can be written to, before any work that would be for nothing.

    Raises:
        NotWritten: naming the first of them.
    """
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise NotWritten.because(folder, error) from error


def require_room(folder: Path) -> None:
    """As `require_writable`, of a folder that is to be made only when there is something to write: it leaves none behind.

    A missing folder is made below another name, since one that is made and removed again may be gone where another process
    has just found it.

    Raises:
        NotWritten: as there.
    """
    try:
        if folder.exists():
            return require_writable(folder)
        above = next(parent for parent in folder.parents if parent.exists())
        with tempfile.TemporaryDirectory(prefix=".lab-", dir=above) as place:
            Path(place, folder.relative_to(above)).mkdir(parents=True)
    except OSError as error:
        raise NotWritten.because(folder, error) from error


def disk_sentence(root: Path, error: OSError) -> str:
    return (
        f"results cannot be written to {root}: {_reason(error)}; {_remedy(error)} with --results, "
        "finished measurements are kept"
    )


def _remedy(error: OSError) -> str:
    remedy = REMEDIES.get(error.errno)
    return f"{remedy}, or name another folder" if remedy else "name another folder"


def _reason(error: OSError) -> str:
    if isinstance(error, NotWritten):
        return error.reason
    return "the disk is full" if error.errno == errno.ENOSPC else (error.strerror or str(error)).lower()
