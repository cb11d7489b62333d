from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lab import report, shipped
from lab.claims import judge
from lab.execution import Session
from lab.results import Results
from tests import again
from tests.test_shipped import edited, means, reading, sign, task

SHORT = again.OTHER_SECONDS / 3
COSTS = {("sheet", f"m{number}"): SHORT for number in range(12)} | {("sheet", "long"): 2000.0, ("proofs", "sum"): 5.0}


def test_a_plan_keeps_to_its_budget_and_takes_what_is_exact() -> None:
    plan = again.plan(COSTS, {("proofs", "sum")}, "a commit")
    assert ("proofs", "sum") in plan.again
    assert sum(COSTS[name] for name in plan.again) <= again.EXACT_SECONDS + again.OTHER_SECONDS
    assert len(plan.again) == 1 + 3
    assert plan.too_long == (("sheet", "long"),)
    assert sorted((*plan.again, *plan.waiting, *plan.too_long)) == sorted(COSTS)


def test_commits_take_turns() -> None:
    plans = [again.plan(COSTS, (), f"commit {number}") for number in range(40)]
    assert again.plan(COSTS, (), "commit 0") == plans[0]
    assert {name for plan in plans for name in plan.again} == set(COSTS) - {("sheet", "long")}


def test_too_many_exact_measurements_take_turns_too() -> None:
    plans = [again.plan(COSTS, COSTS, f"commit {number}").again for number in range(40)]
    assert all(0 < sum(COSTS[name] for name in plan) <= again.EXACT_SECONDS for plan in plans)
    assert {name for plan in plans for name in plan} == set(COSTS) - {("sheet", "long")}


def test_what_only_exact_claims_use_is_known(tmp_path: Path) -> None:
    judgements = [judge(claim, reading(tmp_path, None)) for claim in task.claims.values()]
    assert again.used(task, judgements, exact=False) == {("tiny", "means"), ("tiny", "square_of_sum")}
    assert again.used(task, judgements, exact=True) == {("tiny", "square_of_sum")}


def test_only_what_ships_is_planned(tmp_path: Path, evidence: Path, monkeypatch) -> None:
    folder = edited(evidence, tmp_path / "evidence", lambda manifest, arrays: None)
    monkeypatch.setattr(shipped, "FOLDER", folder)
    seconds = again.costs({"tiny": reading(tmp_path, folder)})
    assert list(seconds) == [("tiny", "means")]
    assert seconds["tiny", "means"] == shipped.unpack(folder / "tiny" / "means.safetensors").seconds


def test_fresh_numbers_that_contradict_what_ships_are_seen(tmp_path: Path, evidence: Path) -> None:
    def shift(manifest: dict, arrays: dict) -> None:
        arrays["mean"] += 2.0
        sign(manifest, arrays)

    claim = task.claims["tiny/A1"]
    folder = edited(evidence, tmp_path / "evidence", shift)
    kept, fresh = reading(tmp_path, folder), reading(tmp_path / "fresh", None)
    mixed = again.Mixed(kept, fresh, {"means"})
    assert np.allclose(mixed[means]["mean"] + 2.0, kept[means]["mean"])
    record, stored = judge(claim, mixed).record(), judge(claim, kept).record()
    assert not report.same_findings(record, stored)
    honest = reading(tmp_path / "other", evidence)
    assert report.same_findings(record, judge(claim, honest).record())
    assert again.Mixed(kept, fresh, set())[means]["mean"].tolist() == kept[means]["mean"].tolist()
    assert again.Mixed(kept, fresh, {"means"}).session is kept.session
    assert again.Mixed(kept, fresh, {"means"}, everything=True).session is fresh.session


@pytest.mark.parametrize(
    ("name", "reason"),
    [("source", "measured with another source"), ("config", "measured with another config"), ("seeds", "other seeds")],
)
def test_a_pack_of_older_code_is_outdated(tmp_path: Path, evidence: Path, monkeypatch, name: str, reason: str) -> None:
    def age(manifest: dict, arrays: dict) -> None:
        manifest["identity"]["versions"]["numpy"] = "1.0"  # does not count
        if name == "seeds":
            manifest["seeds"][-1] = 99
        elif name:
            manifest["identity"][name] = {}
        sign(manifest, arrays)

    jobs = Results(task, task.config("ci"), Session(tmp_path)).jobs(list(task.measurements.values()))
    monkeypatch.setattr(shipped, "FOLDER", edited(evidence, tmp_path / "evidence", age))
    assert reason in again.outdated(shipped.FOLDER / "tiny" / "means.safetensors", jobs)
    monkeypatch.setattr(shipped, "FOLDER", evidence)
    assert {again.outdated(path, jobs) for path in evidence.rglob("*.safetensors")} == {""}
