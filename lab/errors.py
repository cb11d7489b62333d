"""The one error a user is meant to read, and the helpers that say what was meant and where it went wrong."""

from __future__ import annotations

import difflib
import inspect
import os
import re
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn

# What lies there is nobody's own file, also where a user's folder holds it, such as one with an environment in it.
_OTHERS = (Path(__file__).parent, *(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")))


class LabError(Exception):
    """Something the user can put right.

    The message is one sentence that names the offending value, the limit it breaks and the remedy.
    The command line prints it without a traceback and exits with status 2.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` for the name in ``known`` that is most like ``name``, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def described(error: BaseException, file: Path) -> str:
    """What went wrong in a user's file, and where: "own.py, line 12, NameError: name 'maen' is not defined (did you …)".

    The line is the last one that ran in the file, or in one that lies beside or below it.
    """
    frame, _ = _last_in(error.__traceback__, file)
    message = " ".join(str(error).split()) or "without a message"
    place = place_in(error, file)
    return f"{place}{type(error).__name__}: {message[:500]}{_meant(error, frame)}{_no_label(error)}"


def place_in(error: BaseException, file: Path) -> str:
    """Where in a user's files it went wrong, to be put before what did: "own.py, line 12, "; nothing where it did elsewhere."""
    frame, line = _last_in(error.__traceback__, file)
    if frame is None:
        return ""
    return f"{Path(frame.f_code.co_filename).relative_to(file.parent).as_posix()}, line {line}, "


def located(error: LabError, file: Path) -> str:
    """The sentence of an error that a user's file led to, with the place in it; as it is where it names one already."""
    place, sentence = place_in(error, file), str(error)
    named = isinstance(error, OSError) or re.search(r"\.py, line \d", sentence)
    return sentence if named else f"{place}{sentence}"


def place_of(function: Callable[..., Any]) -> str:
    """Where a function begins, to be put before what is wrong with what it returned: "own.py, line 12, "."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f"{Path(code.co_filename).name}, line {code.co_firstlineno}, " if code else ""


def kind_of(value: Any) -> str:
    """The type of a value as a sentence says it.

    >>> kind_of(3), kind_of("text"), kind_of(None)
    ('an int', 'a str', 'None')
    """
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _last_in(trace: TracebackType | None, file: Path) -> tuple[FrameType | None, int]:
    last: tuple[FrameType | None, int] = (None, 0)
    while trace is not None:
        if _is_own(Path(trace.tb_frame.f_code.co_filename), file.parent):
            last = trace.tb_frame, trace.tb_lineno
        trace = trace.tb_next
    return last


def _is_own(path: Path, folder: Path) -> bool:
    """Whether code is the user's: beside or below the user's file, and neither this lab's nor installed."""
    if path.parent == folder:
        return True
    return path.is_relative_to(folder) and not any(path.is_relative_to(library) for library in _OTHERS)


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
    hint = ""
    while trace is not None:
        labels, index = (
            trace.tb_frame.f_locals.get("labels"),
            getattr(trace.tb_frame.f_locals.get("self"), "index", None),
        )
        if isinstance(labels, dict) and len(labels) == 1 and index is not None and hasattr(index, "tolist"):
            ((axis, label),) = labels.items()
            names = [str(name) for name in index.tolist()]
            shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
            hint = f"; along {axis!r} there is no {label!r}{nearest(str(label), names)}, but {shown}"
        trace = trace.tb_next
    return hint


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
