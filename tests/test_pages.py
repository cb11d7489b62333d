"""Pages are made from files and stored verdicts, and lead somewhere."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import LabError, cli, pages, replication, report
from lab.catalogue import discover
from lab.files import PROJECT
from lab.findings import FINDINGS, LAWS
from lab.report import FORMULA
from lab.tasks import Task

LONGEST_README = 12_288


def test_every_page_is_what_the_stored_verdicts_say() -> None:
    for path, text in pages.pages().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is not current; run `lab reproduce`"


def test_the_head_of_a_page_counts_every_claim_once() -> None:
    for name, parts in pages.sheets().items():
        text = (pages.figure_folder(name) / "README.md").read_text(encoding="utf-8")
        head = re.search(r"(\d+) claims: (.*?)\. `lab", text)
        assert head
        assert sum(map(int, re.findall(r"\d+", head[2]))) == int(head[1]) == sum(len(part.claims) for part in parts)


def test_the_front_page_is_short() -> None:
    assert len((PROJECT / "README.md").read_bytes()) <= LONGEST_README


def test_links_and_pictures_of_every_page_lead_somewhere() -> None:
    for path, text in pages.pages().items():
        for link in re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", text):
            target = next(filter(None, link))
            assert "://" in target or (path.parent / target).exists(), f"{path} leads to {target}"


def test_findings_name_claims_and_pictures_that_exist() -> None:
    tasks = discover()
    claims = {claim: task.name for task in tasks for claim in task.claims}
    pictures = {(task.name, figure) for task in tasks for figure in task.figures}
    assert len(FINDINGS) == 10
    for finding in FINDINGS:
        assert finding.claim in claims
        assert (claims[finding.claim], finding.picture) in pictures


def test_laws_name_claims_that_exist() -> None:
    claims = {claim for task in discover() for claim in task.claims}
    named = [claim for _, law in LAWS for claim in law]
    assert len(named) == len(set(named))
    assert set(named) <= claims


def test_pictures_of_a_sheet_have_names_of_their_own() -> None:
    names = [(task.name, figure) for task in discover() for figure in task.figures]
    assert len(names) == len(set(names))


def test_every_figure_has_a_caption() -> None:
    bare = [
        f"{task.key}: {figure}" for task in discover() for figure in task.figures if not pages.caption(task, figure)
    ]
    assert bare == []


def test_a_page_without_markers_is_named() -> None:
    with pytest.raises(LabError, match="findings:begin"):
        pages.with_findings("# A page")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda records: [{**records[0], "id": "mesa-optimization/OLD"}, *records[1:]], "do not have the same claims"),
        (lambda records: records[1:], "do not have the same claims"),
        (lambda records: [*records, records[0]], "do not have the same claims"),
        (
            lambda records: [{**records[0], "measured": None}, *records[1:]],
            "the measured of mesa-optimization/.* is None",
        ),
        (lambda records: [{**records[0], "interval": [1.0]}, *records[1:]], r"the interval of .* is \[1.0\]"),
        (
            lambda records: [{**records[0], "interval": ["a", None]}, *records[1:]],
            r"the interval of .* is \['a', None\]",
        ),
        (lambda records: [{**records[0], "controls": [1]}, *records[1:]], r"the controls of .* is \[1\]"),
        (lambda records: [{**records[0], "parts": "x"}, *records[1:]], "the parts of .* is 'x'"),
        (lambda records: [{}], "a record lacks 'bound'"),
        (lambda records: [1], "a record lacks 'bound'"),
        (lambda records: None, "does not hold a list"),
    ],
)
def test_a_damaged_record_of_one_paper_leaves_the_pages_of_the_others(
    damage: Callable, sentence: str, tmp_path: Path, monkeypatch, caplog
) -> None:
    victim = next(task for task in discover() if task.name == "mesa-optimization" and task.claims)
    text = json.dumps(damage(json.loads(report.records_file(victim).read_text(encoding="utf-8"))))
    (tmp_path / "claims.json").write_text(text, encoding="utf-8")
    kept = report.records_file
    monkeypatch.setattr(report, "records_file", lambda task: tmp_path / "claims.json" if task is victim else kept(task))
    written: list[Path] = []
    monkeypatch.setattr(cli, "write", lambda path, content: written.append(path))
    cli._write_pages()
    left = {path for path in pages.makers() if path not in written}
    assert left == {
        pages.figure_folder("mesa-optimization") / "README.md",
        PROJECT / "figures" / "README.md",
        PROJECT / "README.md",
    }
    assert re.search(sentence, caplog.text)


ODD = [None, True, -1, 2.5, "", "x", "inf", [], ["a", None], {}, 10**400, float("nan")]
CONTROLS = [{"name": "c", "rejected": True}, {"name": "c", "measured": None, "rejected": True}, {}, 1, [], None]


def kept_beside(file: Path, monkeypatch) -> Task:
    """A part whose verdicts are read from ``file``."""
    victim = next(task for task in discover() if task.name == "mesa-optimization" and task.claims)
    kept = report.records_file
    monkeypatch.setattr(report, "records_file", lambda task: file if task is victim else kept(task))
    return victim


def damaged(record: dict) -> Iterator[dict]:
    """The record with each of its values replaced by each odd one, or left out."""
    for relation in ("<=", "="):
        for name in record:
            yield {key: value for key, value in (record | {"relation": relation}).items() if key != name}
            yield from (record | {"relation": relation, name: odd} for odd in ODD)
    yield from (record | {"controls": [control]} for control in CONTROLS)


def refused(victim: Task, sentence: str) -> list[dict]:
    """The records of ``victim``; none where they are refused in that sentence."""
    try:
        return report.stored_records(victim)
    except LabError as error:
        if not re.fullmatch(sentence, str(error)):
            raise
        return []


def test_an_odd_record_is_refused_in_one_sentence_or_shown(tmp_path: Path, monkeypatch) -> None:
    victim = kept_beside(tmp_path / "claims.json", monkeypatch)
    records = json.loads((PROJECT / "evidence" / victim.key / "claims.json").read_text(encoding="utf-8"))
    for record in damaged(records[0]):
        (tmp_path / "claims.json").write_text(json.dumps([record, *records[1:]]), encoding="utf-8")
        shown = refused(victim, r".*claims\.json is of no use \(.*\); run `lab reproduce .*` to write it anew")
        report.markdown_table(shown, victim)
        assert all(report.same_findings(record, record) for record in shown)
        if shown:
            assert all(type(chance) is float for chance in replication.chances_of([victim]).values())


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[" * 200_000, b"{", b"", b"3"])
def test_a_file_that_is_none_of_verdicts_outcomes_or_changes_is_named(
    content: bytes, tmp_path: Path, monkeypatch
) -> None:
    victim = kept_beside(tmp_path / "claims.json", monkeypatch)
    monkeypatch.setattr(replication, "replication_file", lambda _: tmp_path / "replication.json")
    monkeypatch.setattr(pages, "figure_folder", lambda _: tmp_path)
    for name, read in (
        ("claims.json", lambda: report.stored_records(victim)),
        ("replication.json", lambda: replication.outcomes(victim)),
        ("changes.toml", lambda: pages.changes("sheet")),
    ):
        (tmp_path / name).write_bytes(content or b"a = 3" if name == "changes.toml" else content)
        with pytest.raises(LabError, match=rf"{name} .*; |{name} .*\); (run|delete|mend)"):
            read()


@pytest.mark.parametrize("name", ["replication.json", "changes.toml"])
def test_pages_are_written_beside_a_file_that_is_no_text(name: str, tmp_path: Path, monkeypatch, caplog) -> None:
    (tmp_path / name).write_bytes(b"\xff\xfe")
    outcomes, folder = replication.replication_file, pages.figure_folder
    if name == "replication.json":
        odd = next(task for task in discover() if outcomes(task).is_file())
        monkeypatch.setattr(
            replication, "replication_file", lambda task: tmp_path / name if task is odd else outcomes(task)
        )
    else:
        for file in (folder("mesa-optimization")).glob("*.json"):
            (tmp_path / file.name).write_bytes(file.read_bytes())
        monkeypatch.setattr(
            pages, "figure_folder", lambda sheet: tmp_path if sheet == "mesa-optimization" else folder(sheet)
        )
    written: list[Path] = []
    monkeypatch.setattr(cli, "write", lambda path, content: written.append(path))
    cli._write_pages()
    lost = replication.PAGE if name == "replication.json" else tmp_path / "README.md"
    assert {replication.PAGE, *pages.makers()} - set(written) == {lost}
    (sentence,) = caplog.messages
    assert str(tmp_path / name) in sentence


def test_a_file_without_a_title_is_named(tmp_path) -> None:
    file = tmp_path / "bare.py"
    file.write_text("# %% [markdown]\n# no title\n", encoding="utf-8")
    with pytest.raises(LabError, match="has no title"):
        pages.introduction(file)


def test_a_cell_that_defines_something_is_folded() -> None:
    assert pages.shows_nothing_but_results("TASK.show(figure)\nTASK.show()")
    assert not pages.shows_nothing_but_results("x = 1\nTASK.show(figure)")
    assert not pages.shows_nothing_but_results("")


def test_changes_are_of_claims_of_the_sheet() -> None:
    """A claim that is gone has no sentence now; every other one exists."""
    for file in (PROJECT / "figures").glob("*/changes.toml"):
        claims = {claim for task in pages.sheets()[file.parent.name] for claim in task.claims}
        for claim, entry in tomllib.loads(file.read_text(encoding="utf-8")).items():
            assert (claim in claims) == bool(entry["now"]), claim


def test_changes_are_told_in_a_table(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(pages, "PROJECT", tmp_path)
    assert pages.changes("sheet") == []
    file = tmp_path / "figures" / "sheet" / "changes.toml"
    file.parent.mkdir(parents=True)
    file.write_text('["sheet/A1"]\nbefore = "always"\nnow = "for $|x| < 1$"\nwhy = "measured"\n', encoding="utf-8")
    assert r"| A1 | always | for $\vert x\vert  < 1$ | measured |" in pages.changes("sheet")
    file.write_text('["sheet/A1"]\nbefore = "always"\n', encoding="utf-8")
    with pytest.raises(LabError, match="give it before, now and why"):
        pages.changes("sheet")


def test_parts_stand_in_the_order_of_the_argument() -> None:
    """Not in that of the alphabet: the first part is the one that the others refer back to."""
    parts = [task.part for task in pages.sheets()["stepwise-graph-navigation"] if task.place == "tasks"]
    assert parts[0] == "stepwise-gap"


def test_formulas_hold_nothing_that_markdown_takes_for_an_escape() -> None:
    for path, text in pages.pages().items():
        for formula in FORMULA.findall(text):
            assert not re.search(r"\\[,;:!{}|\\]", formula), f"{path}: {formula}"
