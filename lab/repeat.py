"""One seed of every measurement of a file of one's own, taken twice and compared bit for bit.

A measurement is a function of (configuration, seed). One that draws from elsewhere, such as numpy's global state, gives
numbers that nobody can take again, and nothing else would show it: its result is stored, and stays the same from then on.
So the first seed (or the first case) of each measurement is taken twice before anything is measured: at the sizes of the
preset ``smoke``, which takes seconds, on the CPU, and the second time from a fresh import of the file, so that what is
drawn while it is imported shows too. What agreed is noted beside the results and taken no more until the code changes.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np

from lab import context
from lab.configuration import config_from_dict
from lab.errors import LabError
from lab.execution import MEASURING, Failed, Session
from lab.files import NotWritten, write
from lab.labels import Measured
from lab.results import Results
from lab.runs import Job, digest
from lab.tasks import Measurement, Task, seeds_below

logger = logging.getLogger("lab")

NOTE = ".taken-twice.json"
# A measurement that takes longer at the smallest sizes is not taken a second time, which is said.
LONGEST_SECONDS = 30.0


def require_repeatable(task: Task, measurements: Sequence[Measurement], session: Session) -> None:
    """Take one seed or case of each of ``measurements`` twice, but for those that agreed before under the same code.

    Raises:
        LabError: the two differ in a bit.
    """
    note = session.results / task.key / NOTE
    known = _read(note)
    jobs = [job for measurement in measurements if (job := _first(task, measurement)).key not in known]
    if not jobs:
        return
    begun = time.monotonic()
    with ExitStack() as stack:
        fresh = cache(lambda: stack.enter_context(_fresh(task)))  # imported when the first one has been taken
        agreed = [job.key for job in jobs if _agrees(task, fresh, job)]
    if agreed:
        if not session.quiet:
            print(
                f"one seed of {', '.join(job.measurement for job in jobs if job.key in agreed)} was taken twice at the preset smoke, "
                f"the same bit for bit ({time.monotonic() - begun:.1f} s)",
                file=sys.stderr,
            )
        try:
            write(note, json.dumps([*known, *agreed][-1000:]).encode())
        except NotWritten:
            pass  # it is taken twice again next time; that results cannot be written is said where they are


def _agrees(task: Task, fresh: Callable[[], Task], job: Job) -> bool:
    """Whether a call gives the same twice; False where it could not be taken twice, which is said.

    Raises:
        LabError: it does not.
    """
    begun = time.process_time()  # a busy machine makes no measurement long
    try:
        first = _take(task, job)
        if time.process_time() - begun > LONGEST_SECONDS:
            logger.warning(
                "%s takes more than %.0f s at the preset smoke, so that it was not taken twice; make its smoke sizes smaller",
                job.label,
                LONGEST_SECONDS,
            )
            return False
        second = _take(fresh(), job)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # at the sizes that were asked for it may be right, and if not, it is said there
        logger.warning("%s was not taken twice, because the preset smoke fails: %s", job.label, _one_line(error))
        return False
    if digest(first) != digest(second):
        raise LabError(_difference(task, job, first, second))
    return True


def _first(task: Task, measurement: Measurement) -> Job:
    """The call of its first seed, or of its first case, at the preset ``smoke``."""
    root = task.root if measurement.root is None else measurement.root
    return Results(task, task.config("smoke"), Session(quiet=True), seeds_below(root, 1)).jobs([measurement])[0]


def _take(task: Task, job: Job) -> Measured:
    config = config_from_dict(task.config_type, job.config)
    with MEASURING, context.job(context.JobContext()):
        return task.measurements[job.measurement].measure(config, job.seeds, job.case)


@contextmanager
def _fresh(task: Task) -> Iterator[Task]:
    """The task of a second import of the file, and of the modules beside it that the first one imported."""
    beside = _beside(task)
    name = f"{task.module}_again"
    spec = importlib.util.spec_from_file_location(name, task.file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    for module_name in beside:
        del sys.modules[module_name]
    sys.modules[name] = module
    try:
        with redirect_stdout(sys.stderr):
            spec.loader.exec_module(module)
        yield next(value for value in vars(module).values() if isinstance(value, Task) and value.file == task.file)
    finally:
        for module_name in [name, *_beside(task)]:
            sys.modules.pop(module_name, None)
        sys.modules.update(beside)


def _beside(task: Task) -> dict[str, ModuleType]:
    """The modules that lie beside the file of ``task`` and are imported by their plain names."""
    return {
        name: module
        for name, module in list(sys.modules.items())
        if name.isidentifier()
        and name != "__main__"
        and not name.startswith("external_")
        and Path(getattr(module, "__file__", None) or "").parent == task.file.parent
    }


def _difference(task: Task, job: Job, first: Measured, second: Measured) -> str:
    about = f"{task.file.name}: {job.measurement} at {job.place} (preset smoke) gave "
    remedy = "draw every number from lab.streams.stream(seed, ...), and none from global random state"
    for name in first:
        if name not in second or first[name].shape != second[name].shape:
            return f"{about}arrays of other names or shapes when it was taken a second time; {remedy}"
        earlier, later = np.ravel(first[name]), np.ravel(second[name])
        places = [at for at in range(earlier.size) if earlier[at : at + 1].tobytes() != later[at : at + 1].tobytes()]
        if places:
            values = f"{earlier[places[0]]!s} and then {later[places[0]]!s}"
            return f"{about}{name!r} = {values}, so that it is no function of its configuration and seed; {remedy}"
    return f"{about}other labels or types when it was taken a second time; {remedy}"


def _one_line(error: BaseException) -> str:
    text = str(error) if isinstance(error, LabError | Failed) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:300]


def _read(note: Path) -> list[str]:
    try:
        keys = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return keys if isinstance(keys, list) and all(isinstance(key, str) for key in keys) else []
