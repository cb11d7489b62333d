"""What several test files share: the measurements of all tasks."""

from __future__ import annotations

import filelock
import jaxtyping
import pytest

from lab.catalogue import discover
from lab.execution import Session
from lab.results import Results, ensure
from lab.tasks import Task

TASKS = discover()
# The verdicts wait for all measurements and come first; the notebooks need them all and come last.
ORDER = {"test_verdicts.py": 0, "test_notebooks.py": 2}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """While one process measures, the other one has everything else to do."""
    items.sort(key=lambda item: ORDER.get(item.path.name, 1))


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shapes are not checked: other tests run the same code with checks, and here it makes ten thousands of calls."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(scope="session")
def results(request: pytest.FixtureRequest) -> dict[str, Results]:
    """Measurements of the tasks under test (all, if none is named) by key, taken in two processes where they are not there yet.

    One test process measures; the other waits for it and reads what was stored.
    """
    session = Session(workers=2)
    wanted = {
        parameter.key
        for item in request.session.items
        if "results" in getattr(item, "fixturenames", ()) and hasattr(item, "callspec")
        for parameter in item.callspec.params.values()
        if isinstance(parameter, Task)
    }
    found = {task.key: Results(task, task.config("ci"), session) for task in TASKS if task.key in wanted or not wanted}
    jobs = [job for one in found.values() for job in one.jobs(list(one.task.measurements.values()))]
    session.results.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(session.results / ".suite"):
        ensure(jobs, session)
    return found
