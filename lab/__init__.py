"""Claims of papers as numbers with a bound and a control that must fail.

What a task file needs: ``Task``, ``Paper``, ``Evidence`` and ``control``. Everything else lives in the room its
name says: ``lab.domains``, ``lab.models``, ``lab.training``, ``lab.evaluation``,
``lab.statistics``, ``lab.figures``.
"""

import os
import sys

# One thread a process, set before numpy and torch start theirs: more threads make small models slower, and their
# number changes the last digits of a result. Parallel work runs in processes.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

from lab.claims import control  # noqa: E402
from lab.errors import LabError  # noqa: E402
from lab.evidence import Evidence  # noqa: E402
from lab.tasks import Paper, Task  # noqa: E402

__all__ = ["Evidence", "LabError", "Paper", "Task", "control"]

if "IPython" in sys.modules:
    import lab.notebooks  # noqa: F401  (a notebook shows figures and claims by it)
