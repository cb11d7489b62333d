"""Claims of papers as numbers with a bound and a control that must fail.

What a task file needs: ``Task``, ``Paper``, ``Evidence`` and ``control``. Everything else lives in the room its
name says: ``lab.domains``, ``lab.models``, ``lab.training``, ``lab.evaluation``,
``lab.statistics``, ``lab.figures``.
"""

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

# One thread a process, set before numpy and torch start theirs: more threads make small models slower, and their
# number changes the last digits of a result. Parallel work runs in processes.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

__all__ = ["Evidence", "LabError", "Paper", "Task", "control"]
_HOMES = {"Evidence": "evidence", "LabError": "errors", "Paper": "papers", "Task": "tasks", "control": "claims"}

if TYPE_CHECKING:
    from lab.claims import control as control
    from lab.errors import LabError as LabError
    from lab.evidence import Evidence as Evidence
    from lab.papers import Paper as Paper
    from lab.tasks import Task as Task


def __getattr__(name: str) -> Any:
    """The names above are imported when they are asked for, so that `lab` can be stopped while it starts."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"lab.{_HOMES[name]}"), name)


if "IPython" in sys.modules:
    import lab.notebooks  # noqa: F401  (a notebook shows figures and claims by it)
