from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from lab import LabError, coverage, papers, report
from lab.catalogue import discover
from lab.cli import main

ENTRIES = papers.entries()
CENSUS = [
    entry.paper for entry in ENTRIES.values() if entry.paper.family not in (papers.COMPANIONS, papers.COLLECTIONS)
]
# How many papers the census names.
COUNT = 194


def test_every_title_of_the_census_is_there_once() -> None:
    assert len(CENSUS) == COUNT
    assert len({paper.title for paper in CENSUS}) == COUNT
    assert len({paper.arxiv for paper in CENSUS if paper.arxiv}) == sum(bool(paper.arxiv) for paper in CENSUS)


def test_papers_stand_sorted_in_their_families() -> None:
    for _, group in coverage.by_family(coverage.coverage()):
        keys = [covered.entry.paper.key for covered in group]
        assert keys == sorted(keys)


def test_a_key_names_the_year_of_its_paper() -> None:
    for paper in CENSUS:
        if paper.authors:
            assert f"-{paper.year}-" in paper.key


def test_every_claim_names_a_paper_that_is_there() -> None:
    unknown = {claim.id: claim.paper for task in discover() for claim in task.claims.values() if claim.paper}
    assert {claim for claim, key in unknown.items() if key not in ENTRIES} == set()


def test_a_sheet_stands_where_claims_test_the_paper_and_only_there() -> None:
    for covered in coverage.coverage():
        assert bool(covered.verdicts) == bool(covered.entry.sheet), covered.entry.paper.key
        assert not covered.verdicts or covered.entry.sheet in covered.sheets


def test_every_claim_is_counted_once() -> None:
    """A sentence that was not reproduced is neither held nor refuted."""
    for covered in coverage.coverage():
        counted = [int(number) for number in re.findall(r"(\d+) ", covered.sentence.partition(": ")[2])]
        assert not covered.verdicts or sum(counted) == len(covered.verdicts), covered.sentence
        assert sum(covered.record()["claims"].values()) == len(covered.verdicts)


def test_the_page_is_generated() -> None:
    assert coverage.PAGE.read_text(encoding="utf-8") == coverage.page(), (
        "run `lab reproduce` to make the page of papers anew"
    )


def test_list_papers_names_all_of_them(capsys) -> None:
    assert main(["list", "--papers", "--json"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert [record["key"] for record in records] == list(ENTRIES)
    assert {record["state"] for record in records} == {"verified", "planned", "nothing to check"}
    assert main(["list", "--papers"]) == 0
    printed = capsys.readouterr().out
    assert all(key in printed for key in ENTRIES)


def test_a_citation_leaves_out_what_is_not_known() -> None:
    assert papers.Paper("T", "A", 2024, "2401.00001").citation == "A: T (2024, arXiv 2401.00001)"
    assert papers.Paper("T", arxiv="2401.00001").citation == "T (arXiv 2401.00001)"
    assert papers.Paper("T").citation == "T"


def test_an_unknown_key_names_the_nearest() -> None:
    with pytest.raises(LabError, match=r"no paper 'ding-2024-causalm' \(did you mean 'ding-2024-causallm'\?\)"):
        papers.paper("ding-2024-causalm")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[f]\na-1 = {\n[g]", "line 2"),
        ('[f]\na = { title = "T", state = "planned" }\na = { title = "U", state = "planned" }', "line 3: the key 'a'"),
        (
            '[f]\na = { title = "T", state = "planned" }\n[g]\na = { title = "U", state = "planned" }',
            "line 4: the key 'a' stands on line 2 already",
        ),
        ('a = "T"', "'a' stands outside every table"),
        ('[f]\nA_b = { title = "T", state = "planned" }', "'A_b' in .* is no key"),
        ('[f]\na = "T"', "'a' in .* holds 'T'"),
        ('[f]\na = { titel = "T", state = "planned" }', r"unknown field 'titel' \(did you mean 'title'\?\)"),
        ('[f]\na = { title = "T", year = "2024", state = "planned" }', "year is '2024'; give a whole number"),
        ('[f]\na = { state = "planned" }', "has no title"),
        ('[f]\na = { title = "T" }', "needs either a sheet or a state"),
        ('[f]\na = { title = "T", state = "planned", sheet = "s" }', "needs either a sheet or a state"),
        ('[f]\na = { title = "T", state = "verified" }', "its state is 'verified'"),
        ('[f]\na = { title = "T", state = "nothing to check" }', "a reason belongs"),
    ],
)
def test_a_damaged_file_is_one_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "papers.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(LabError, match=sentence) as raised:
        papers.read(file)
    assert "papers.toml" in str(raised.value)


def test_a_damaged_record_of_one_paper_leaves_the_others(tmp_path: Path, monkeypatch, capsys, caplog) -> None:
    place, whole = report.records_file, coverage.coverage(strict=False)
    caplog.clear()
    (tmp_path / "claims.json").write_text("[1]", encoding="utf-8")
    damaged = next(task for task in discover() if task.key == "copying/copied-strings")
    monkeypatch.setattr(
        report, "records_file", lambda task: tmp_path / "claims.json" if task is damaged else place(task)
    )
    assert main(["list", "--papers"]) == 0
    output = capsys.readouterr().out
    assert all(entry.paper.key in output for entry in ENTRIES.values())
    assert f"{len(damaged.claims)} have verdicts that cannot be read" in output
    assert sum(f"{tmp_path / 'claims.json'} is of no use" in message for message in caplog.messages) == 1
    for before, after in zip(whole, coverage.coverage(strict=False), strict=True):
        assert after.verdicts == {
            claim: coverage.UNREADABLE if claim in damaged.claims else verdict
            for claim, verdict in before.verdicts.items()
        }
    with pytest.raises(LabError):
        coverage.page()
