"""Where results go, and whether there is room for them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from lab.files import NotWritten, disk_sentence, require_room, require_writable


def test_asking_for_room_leaves_nothing_behind(tmp_path: Path) -> None:
    require_room(tmp_path / "new" / "results")
    assert list(tmp_path.iterdir()) == []
    require_room(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_asked_for_is_never_there_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process that finds it would write into it, and it would be gone."""
    created: list[Path] = []
    mkdir = os.mkdir
    monkeypatch.setattr(
        os, "mkdir", lambda path, *rest, **named: (created.append(Path(path)), mkdir(path, *rest, **named))
    )
    require_room(tmp_path / "new" / "results")
    assert created
    assert tmp_path / "new" not in created
    assert tmp_path / "new" / "results" not in created


@pytest.mark.parametrize("name", ["file/results", "x" * 300], ids=["below a file", "too long a name"])
def test_no_room_is_a_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    for ask in (require_room, require_writable):
        with pytest.raises(NotWritten, match="cannot be written: .*--results"):
            ask(tmp_path / name)


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free some space, or"),
        (errno.EACCES, "ask for the right to write there, or"),
        (errno.EEXIST, "move the file that stands in the place of a folder, or"),
        (errno.ENOENT, "make the folder that it lies in, or"),
        (errno.EIO, "name another folder"),
    ],
)
def test_the_remedy_fits_the_error(number: int, remedy: str) -> None:
    error = OSError(number, os.strerror(number))
    for sentence in (disk_sentence(Path("results"), error), str(NotWritten.because(Path("results"), error))):
        assert f"; {remedy}" in sentence
        assert ("free some space" in sentence) == (number == errno.ENOSPC)
