"""The one error a user is meant to read, and the helper that guesses what was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LabError(Exception):
    """Something the user can put right.

    The message is one sentence that names the offending value, the limit it breaks and the remedy.
    The command line prints it without a traceback and exits with status 2.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` for the name in ``known`` that is most like ``name``, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
