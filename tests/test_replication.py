"""Claims judged again on other seeds, and what is kept of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lab import LabError, cli, pages, replication
from lab.catalogue import discover, load
from lab.claims import judge
from lab.execution import Session
from lab.files import PROJECT
from lab.options import Reproduce
from lab.results import Results
from lab.tasks import Task

task = load(Path(__file__).parent / "examples" / "tiny.py")


@pytest.fixture
def session(tmp_path: Path, monkeypatch) -> Session:
    monkeypatch.setattr(replication, "PROJECT", tmp_path)
    return Session(tmp_path / "results", quiet=True, evidence=None)


def test_sampled_claims_are_judged_below_every_root(session: Session) -> None:
    outcomes = replication.replicate(task, session, [3, 1])
    sampled = [
        claim.id
        for claim in task.claims.values()
        if judge(claim, Results(task, task.config("ci"), session)).evidence.sampled
    ]
    assert outcomes == {root: dict.fromkeys(sampled, "as expected") for root in ("3", "1")}
    assert sampled
    assert list(replication.outcomes(task)) == ["1", "3"]
    assert list(replication.replicate(task, session, [2])) == ["1", "3", "2"]


def test_named_claims_are_judged_alone_and_kept_beside_the_others(session: Session) -> None:
    every = replication.replicate(task, session, [1])["1"]
    first, *_, last = every
    replication.replication_file(task).unlink()
    assert replication.replicate(task, session, [1], {last}) == {"1": {last: "as expected"}}
    assert replication.replicate(task, session, [1], {first})["1"] == dict.fromkeys((last, first), "as expected")
    assert set(replication.replicate(task, session, [2], set())) == {"1"}


def test_a_claim_that_is_gone_does_not_count(session: Session) -> None:
    replication.replicate(task, session, [1])
    file = replication.replication_file(task)
    kept = json.loads(file.read_text(encoding="utf-8"))
    kept["roots"]["1"]["tiny/gone"] = "opposite"
    file.write_text(json.dumps(kept), encoding="utf-8")
    assert "tiny/gone" not in replication.outcomes(task)["1"]


def test_the_least_certain_come_first(monkeypatch) -> None:
    records = [{"id": name, "chance": chance} for name, chance in {"a": 0.999, "b": 0.99, "c": None}.items()]
    monkeypatch.setattr(replication, "stored_records", lambda _: records)
    assert replication.chances_of([task]) == {"b": 0.99, "a": 0.999}


def test_the_root_of_the_evidence_replicates_nothing(session: Session) -> None:
    with pytest.raises(LabError, match="drawn below the root 0; name other roots"):
        replication.replicate(task, session, [1, 0])


def test_an_opposite_verdict_is_told_from_an_inconclusive_one(session: Session) -> None:
    claim = next(iter(task.claims.values()))
    good = judge(claim, Results(task, task.config("ci"), session))
    assert replication.outcome(good) == "as expected"
    assert replication.outcome(replace(good, claim=replace(claim, expected="refuted", condition="if"))) == "opposite"
    accepted = tuple(replace(control, rejected=False) for control in good.controls)
    assert replication.outcome(replace(good, controls=accepted)) == "control not rejected"


def test_outcomes_of_other_code_do_not_count(session: Session) -> None:
    replication.replicate(task, session, [1])
    file = replication.replication_file(task)
    kept = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(kept | {"code": "0" * 16}), encoding="utf-8")
    assert replication.outcomes(task) == {}
    file.write_text("{", encoding="utf-8")
    with pytest.raises(LabError, match="is damaged.*writes it anew"):
        replication.outcomes(task)


@pytest.mark.parametrize(
    "damage",
    [
        [],
        {"code": "0"},
        {"code": "0", "roots": []},
        {"code": "0", "roots": {"x": {}}},
        {"code": "0", "roots": {"-1": {}}},
        {"code": "0", "roots": {"1": []}},
        *({"code": "0", "roots": {"1": {"tiny/A1": odd}}} for odd in ([], {}, None, 3, "holds")),
    ],
)
def test_odd_outcomes_are_refused_in_one_sentence(damage: object, session: Session) -> None:
    file = replication.replication_file(task)
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(damage), encoding="utf-8")
    with pytest.raises(LabError, match=r"replication.json is damaged \(.*\); delete it, and .* writes it anew"):
        replication.outcomes(task)


def test_damaged_outcomes_of_one_task_leave_the_others(session: Session, tmp_path: Path, monkeypatch, capsys) -> None:
    odd = replace_name(task, tmp_path)
    monkeypatch.setattr(cli, "_write_pages", lambda: None)
    replication.replication_file(odd).parent.mkdir(parents=True)
    replication.replication_file(odd).write_bytes(b"\xff\xfe")
    assert cli._replicate(Reproduce(roots=(1,)), [odd, task], session) == 2
    assert capsys.readouterr().err.count("replication.json is damaged") == 1
    assert list(replication.outcomes(task)) == ["1"]


def replace_name(original: Task, folder: Path) -> Task:
    """The same task by another name, in a file below ``folder``."""
    file = folder / "other.py"
    file.write_text(original.file.read_text(encoding="utf-8").replace('"tiny', '"other'), encoding="utf-8")
    return load(file)


def test_the_page_counts_what_is_kept(session: Session, monkeypatch) -> None:
    replication.replicate(task, session, [1, 2])
    file = replication.replication_file(task)
    kept = json.loads(file.read_text(encoding="utf-8"))
    claim = next(iter(kept["roots"]["2"]))
    kept["roots"]["2"][claim] = "inconclusive"
    file.write_text(json.dumps(kept), encoding="utf-8")
    records = [{"id": claim, "chance": 0.9}, {"id": "tiny/A2", "chance": None}, {"id": "tiny/none", "chance": 0.5}]
    monkeypatch.setattr(replication, "stored_records", lambda _: records)
    text = replication.page({"tiny": [task]})
    assert "Of 2 sampled claims 2 are below 0.99; the 2 least" in text.replace("\n", " ")
    assert text.endswith(f"| `tiny/none` | 0.500 |  |\n| `{claim}` | 0.900 | 1: as expected; 2: inconclusive |\n")
    number = 2 * len(kept["roots"]["1"])
    assert f"| [tiny](tiny/README.md) | 1, 2 | {number} | {number - 1} | 1 | 0 | 0 |" in text
    assert f"| `{claim}` | 2 | inconclusive |" in text


def test_the_committed_page_is_current() -> None:
    assert replication.PAGE.read_text(encoding="utf-8") == replication.page(pages.sheets()), "run `lab reproduce`"


def test_what_is_kept_are_claims_of_the_project() -> None:
    claims = {claim for task in discover() for claim in task.claims}
    for file in (PROJECT / "evidence").rglob("replication.json"):
        for outcomes in json.loads(file.read_text(encoding="utf-8"))["roots"].values():
            assert set(outcomes) <= claims, file
