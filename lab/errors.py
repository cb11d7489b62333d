"""The one error a user is meant to read, and the helpers that say what was meant and where it went wrong."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn


class LabError(Exception):
    """Something the user can put right.

    The message is one sentence that names the offending value, the limit it breaks and the remedy.
    The command line prints it without a traceback and exits with status 2.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` for the name in ``known`` that is most like ``name``, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def told(error: BaseException, file: Path) -> str:
    """What went wrong in a user's file, and where: "own.py, line 12, NameError: name 'maen' is not defined (did you …)".

    The line is the last one that ran in the file, or in one that lies beside it.
    """
    frame, line = _last_in(error.__traceback__, file)
    place = "" if frame is None else f"{Path(frame.f_code.co_filename).name}, line {line}, "
    message = " ".join(str(error).split()) or "without a message"
    return f"{place}{type(error).__name__}: {message[:500]}{_meant(error, frame)}{_no_label(error)}"


def _last_in(trace: TracebackType | None, file: Path) -> tuple[FrameType | None, int]:
    found: tuple[FrameType | None, int] = (None, 0)
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename).parent == file.parent:
            found = trace.tb_frame, trace.tb_lineno
        trace = trace.tb_next
    return found


def _meant(error: BaseException, frame: FrameType | None) -> str:
    """The nearest name to one that is not there, among those that were there."""
    name = getattr(error, "name", None)
    known: Any = ()
    if isinstance(error, NameError) and frame is not None:
        known = {**frame.f_builtins, **frame.f_globals, **frame.f_locals}
    elif isinstance(error, AttributeError):
        known = dir(getattr(error, "obj", None))
    return nearest(name, known) if isinstance(name, str) and "Did you mean" not in str(error) else ""


def _no_label(error: BaseException) -> str:
    """Of an array asked for a label that it does not have, the label and those there are; xarray's own error names none."""
    trace = error.__traceback__ if isinstance(error, KeyError) else None
    found = ""
    while trace is not None:
        asked, index = (
            trace.tb_frame.f_locals.get("labels"),
            getattr(trace.tb_frame.f_locals.get("self"), "index", None),
        )
        if isinstance(asked, dict) and len(asked) == 1 and index is not None and hasattr(index, "tolist"):
            ((axis, label),) = asked.items()
            names = [str(one) for one in index.tolist()]
            shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
            found = f"; along {axis!r} there is no {label!r}{nearest(str(label), names)}, but {shown}"
        trace = trace.tb_next
    return found


@contextmanager
def told_exits() -> Iterator[None]:
    """Inside, ``os._exit`` raises ``SystemExit`` in this process, so that a file which calls it ends with a sentence.

    It would otherwise end the process at once, with the status that the file names, 0 included, and without a word. A
    forked child ends as it always does.
    """
    process, leave = os.getpid(), os._exit

    def told_exit(status: int) -> NoReturn:
        if os.getpid() != process:
            leave(status)
        raise SystemExit(status)

    os._exit = told_exit
    try:
        yield
    finally:
        os._exit = leave
