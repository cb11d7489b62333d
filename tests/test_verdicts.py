"""Every claim of every paper at the ``ci`` preset, with every control, and whether fresh measurements agree.

Claims are judged on the evidence that ships, where it was measured with the code as it is; what differs is measured.
Of the rest a share is measured again: what only exact claims use, and as much of the others as the budget of
``tests.again`` allows, in an order that every commit shuffles. ``pytest --verify`` measures everything again.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import pandas as pd
import pytest

from lab import figures, pages, report, shipped, statistics
from lab.claims import Claim, Judgement, judge
from lab.execution import Session
from lab.files import PROJECT
from lab.results import Results, ensure
from lab.tasks import Task
from tests import again
from tests.conftest import TASKS, tell

CLAIMS = [pytest.param(task, claim, id=claim.id) for task in TASKS for claim in task.claims.values()]
DRAWINGS = [pytest.param(task, name, id=f"{task.key}-{name}") for task in TASKS for name in task.figures]
# To lay a picture out takes a second: what stands on it is looked at for one in so many of each commit.
LAID_OUT_IN = 3

# The first test waits for all measurements.
pytestmark = [pytest.mark.claims, pytest.mark.timeout(5000)]


@pytest.fixture(scope="module")
def judged(results: dict[str, Results]) -> Callable[[Task, Claim], Judgement]:
    """Each claim is judged once, whichever tests ask."""
    known: dict[str, Judgement] = {}

    def ask(task: Task, claim: Claim) -> Judgement:
        if claim.id not in known:
            known[claim.id] = judge(claim, results[task.key])
        return known[claim.id]

    return ask


@pytest.fixture(scope="module")
def fresh(
    request: pytest.FixtureRequest, results: dict, judged: Callable, tmp_path_factory: pytest.TempPathFactory
) -> dict[again.Name, Results]:
    """For each measurement of this run's share the results that it was measured again for, in a folder of their own."""
    use, exact = set[again.Name](), set[again.Name]()
    for measured in results.values():
        judgements = [judged(measured.task, claim) for claim in measured.task.claims.values()]
        use |= again.used(measured.task, judgements, exact=False)
        exact |= again.used(measured.task, judgements, exact=True)
    seconds = {name: cost for name, cost in again.costs(results).items() if name in use}
    plan = again.plan(seconds, exact, again.commit())
    folder = tmp_path_factory.mktemp("fresh")
    if request.config.getoption("--verify"):
        # A folder that stays where the run is interrupted, so that the next one goes on; `make verify` removes it.
        plan, folder = again.Plan(tuple(sorted(seconds)), (), ()), PROJECT / "build" / "verify"
    session = Session(folder, workers=2, evidence=None)
    remeasured = {key: Results(measured.task, measured.config, session) for key, measured in results.items()}
    ensure(
        [job for key, name in plan.again for job in remeasured[key].jobs([remeasured[key].task.measurements[name]])],
        session,
    )
    tell(request.config, again.summary(plan))
    return {(key, name): remeasured[key] for key, name in plan.again}


@pytest.mark.parametrize(("task", "claim"), CLAIMS)
def test_claim(results: dict, judged: Callable, task: Task, claim: Claim) -> None:
    judgement = judged(task, claim)
    evidence = judgement.evidence
    assert judgement.verdict == claim.expected, (
        f"measured {evidence.measured:.6g} in {evidence.interval}, "
        f"required {evidence.requirement}: {evidence.bound_origin}"
    )
    assert [control for control in judgement.controls if not control.rejected] == []


def test_sampled_judgements_stay_within_the_false_alarm_budget(results: dict, judged: Callable) -> None:
    tasks = [measured.task for measured in results.values()]
    evidences = [
        evidence
        for judgement in (judged(task, claim) for task in tasks for claim in task.claims.values())
        for evidence in (judgement.evidence, *(control.evidence for control in judgement.controls))
    ]
    assert sum(evidence.sampled for evidence in evidences) <= statistics.JUDGEMENTS


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.key)
def test_committed_verdicts_are_what_is_measured(results: dict, judged: Callable, task: Task) -> None:
    stored = {record["id"]: record for record in report.stored_records(task)}
    assert list(stored) == list(task.claims)
    for claim in task.claims.values():
        judgement = judged(task, claim)
        assert report.same_findings(judgement.record(), stored[claim.id]), stored[claim.id]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.key)
def test_fresh_measurements_agree_with_what_ships(
    request: pytest.FixtureRequest, results: dict, judged: Callable, fresh: dict, task: Task
) -> None:
    names = {name for key, name in fresh if key == task.key}
    everything = request.config.getoption("--verify")
    if not names and not everything:
        pytest.skip("none of its measurements is in this run's share")
    session = next(iter(fresh.values())).session
    mixed = again.Mixed(results[task.key], Results(task, results[task.key].config, session), names, everything)
    for claim in task.claims.values():
        if everything or names & {measurement.name for measurement in task.needs(claim.check)}:
            record, stored = judge(claim, mixed).record(), judged(task, claim).record()
            assert report.same_findings(record, stored), f"measured again: {record}\nshipped: {stored}"


def test_shipped_evidence_is_what_the_code_measures() -> None:
    """Code, sizes and seeds are those of now (versions may be others); and every file belongs to a measurement."""
    packs = set(shipped.FOLDER.rglob("*.safetensors"))
    for task in TASKS:
        calls = Results(task, task.config("ci"), Session()).jobs(list(task.measurements.values()))
        for path in {shipped.file_of(shipped.FOLDER, call) for call in calls} & packs:
            packs.remove(path)
            assert again.outdated(path, calls) == "", f"run `lab reproduce {task.key}`"
    assert packs == set(), "these belong to no measurement: remove them"
    records = set(shipped.FOLDER.rglob("claims.json")) - {report.records_file(task) for task in TASKS}
    assert records == set(), "these belong to no task: remove them"


@pytest.mark.parametrize(("task", "name"), DRAWINGS)
def test_committed_figures_show_what_is_measured(results: dict, task: Task, name: str) -> None:
    drawing = task.figures[name](results[task.key])
    folder = pages.figure_folder(task.name)
    fresh = pd.read_csv(io.StringIO(drawing.data.to_csv(index=False, float_format="%.6g")))
    kept = pd.read_csv(folder / f"{name}.csv")
    assert list(fresh.columns) == list(kept.columns)
    assert len(fresh) == len(kept)
    assert (folder / f"{name}.png").stat().st_size > 1000
    if not again.turn(f"{task.key} {name}", LAID_OUT_IN):
        return
    for axes in drawing.figure.axes:
        if axes.get_visible() and axes.has_data() and axes.get_label() != "<colorbar>":
            assert axes.get_xlabel() or axes.get_ylabel(), f"a panel of {name} has no axis label"
    assert any(axes.get_title(loc=place) for axes in drawing.figure.axes for place in ("left", "center")), (
        f"{name} has no title"
    )


def test_figures_are_drawn_byte_for_byte_alike(results: dict, tmp_path) -> None:
    task, name = next((measured.task, name) for measured in results.values() for name in measured.task.figures)
    for folder in ("one", "other"):
        figures.save(task.figures[name](results[task.key]), tmp_path / folder, name)
    for suffix in ("png", "csv"):
        first, second = (tmp_path / folder / f"{name}.{suffix}" for folder in ("one", "other"))
        assert first.read_bytes() == second.read_bytes()
