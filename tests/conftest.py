"""What several test files share: the measurements of all tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import filelock
import jaxtyping
import pytest

from lab import shipped
from lab.catalogue import discover, load
from lab.execution import Session
from lab.results import Results, ensure
from lab.tasks import Task

# Examples of models; some import libraries that only an extra brings.
collect_ignore = ["examples/adapters"]
TASKS = discover()
SUMMARY = pytest.StashKey[list[str]]()
# The verdicts wait for all measurements and come first. While one process measures, the other has what takes long, and the
# notebooks, which need the measurements; short files come last, so that both processes end together.
LONG = (
    "test_verdicts.py",
    "test_execution.py",
    "test_house.py",
    "test_notebooks.py",
    "test_diagnose.py",
    "test_training.py",
)
ORDER = {name: place for place, name in enumerate(LONG)}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: ORDER.get(item.path.name, len(ORDER)))
    if config.getoption("--verify"):
        for item in items:
            item.add_marker(pytest.mark.timeout(0), append=False)  # it takes as long as all trainings take


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--verify", action="store_true", help="measure everything again, not only a share")


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_testnodedown(node: Any) -> None:
    """Only the process that measured knows what was measured; it hands the lines over when it ends."""
    node.config.stash.setdefault(SUMMARY, []).extend(getattr(node, "workeroutput", {}).get("measured_again", []))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for line in config.stash.get(SUMMARY, []):
        terminalreporter.write_line(line)


def tell(config: pytest.Config, lines: list[str]) -> None:
    """Have ``lines`` printed at the end of the run, whichever process this is."""
    if hasattr(config, "workeroutput"):
        config.workeroutput["measured_again"] = lines
    else:
        config.stash.setdefault(SUMMARY, []).extend(lines)


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shapes and types are not checked, as for users, or where other tests run the same code with checks, faster."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(scope="session")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of evidence of the tiny task."""
    task = load(Path(__file__).parent / "examples" / "tiny.py")
    session = Session(tmp_path_factory.mktemp("measured"), quiet=True, evidence=None)
    jobs = Results(task, task.config("ci"), session).jobs(list(task.measurements.values()))
    ensure(jobs, session)
    folder = tmp_path_factory.mktemp("evidence")
    shipped.ship(jobs, session.store, folder)
    return folder


@pytest.fixture(scope="session")
def results(request: pytest.FixtureRequest) -> dict[str, Results]:
    """Measurements of the tasks under test (all, if none is named) by key: shipped ones where the identity is the same.

    The others are taken in two processes, where they are not there yet.
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
    results = {
        task.key: Results(task, task.config("ci"), session) for task in TASKS if task.key in wanted or not wanted
    }
    jobs = [job for measured in results.values() for job in measured.jobs(list(measured.task.measurements.values()))]
    session.results.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(session.results / ".suite"):
        ensure(jobs, session)
    return results
