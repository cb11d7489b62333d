from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as some
from rich.console import Console

from lab import comparing
from lab.cli import main
from lab.comparing import _difference, compare, side, summary
from lab.errors import LabError
from lab.execution import Session
from lab.files import write
from lab.runs import content, read

TINY = str(Path(__file__).parent / "examples" / "tiny.py")


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return Session(tmp_path_factory.mktemp("results"), quiet=True, evidence=None)


def test_presets_side_by_side(session: Session, tmp_path: Path, capsys) -> None:
    options = ["--workers", "1", "--results", str(session.results), "--out", str(tmp_path)]
    assert main(["compare", f"{TINY}:smoke", TINY, *options]) == 1
    output = capsys.readouterr().out
    assert "inconclusive -> holds" in output
    assert "chosen before the draw" in output
    assert "3 claims on both sides: 2 verdicts differ, intervals are apart in 0, numbers differ in" in output
    drawn = pd.read_csv(tmp_path / "comparison.csv")
    assert set(drawn["x"].dropna()) >= {"A", "B"}
    assert main(["compare", TINY, TINY, *options]) == 0
    assert "0 verdicts differ" in capsys.readouterr().out


def test_the_bounds_of_two_parts_are_both_said_where_they_come_from(session: Session) -> None:
    measured = side(TINY, session)
    first = measured.records["tiny/A1"]
    second = {**first, "relation": ">", "bound": 7.0, "bound_origin": "a floor of $\\frac{$ [5]", "verdict": "refuted"}
    other = replace(measured, records={"tiny/A1": second})
    (table,) = comparing.tables(compare(measured, other))
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table)
    printed = " ".join(console.export_text().split())
    assert "<= 3 or > 7" in printed
    assert "chosen before the draw; or a floor of $\\frac{$ [5]" in printed
    assert comparing.draw(compare(measured, other), session.results / "odd")


def test_stores_are_read_whatever_code_measured_them_and_never_written(session: Session, tmp_path: Path) -> None:
    measured = side(TINY, session)
    before = sorted(session.results.rglob("*"))
    stored = side(f"{TINY}@{session.results}", session)
    assert stored.records.keys() == measured.records.keys()
    assert [row.differs for row in compare(measured, stored).rows] == ["", "", ""]
    for file in list(session.results.rglob("s*.safetensors")):
        data, manifest = read(file)
        manifest["identity"]["source"] = "older code"
        older = (
            tmp_path
            / "older"
            / file.relative_to(session.results).parent.parent
            / ("0" * 15 + file.parent.name[0])
            / file.name
        )
        write(older, content(data, manifest))
    assert side(f"{TINY}@{tmp_path / 'older'}", session).records.keys() >= {"tiny/A1", "tiny/A2"}
    assert side(f"{TINY}@{session.results}", session).records.keys() == measured.records.keys()
    other = side(f"{TINY},size=77@{session.results}", session)
    assert "tiny/A1" in other.missing
    assert "is not stored in" in other.missing["tiny/A1"]
    assert sorted(session.results.rglob("*")) == before
    with pytest.raises(LabError, match="have no judged claim in common: tiny/A"):
        compare(measured, other)


def test_records_of_verdicts_are_a_side(session: Session, tmp_path: Path) -> None:
    measured = side(TINY, session)
    (tmp_path / "kept.json").write_text(json.dumps(list(measured.records.values())), encoding="utf-8")
    comparison = compare(side(str(tmp_path / "kept.json"), session), measured)
    assert "0 verdicts differ" in summary(comparison)
    odd = json.dumps([{**next(iter(measured.records.values())), "interval": ["a", None]}])
    for text in ('[{"id": 3}]', "[" * 200_000, "3", odd):
        (tmp_path / "bad.json").write_text(text, encoding="utf-8")
        with pytest.raises(LabError, match="does not hold what `lab check --json` prints"):
            side(str(tmp_path / "bad.json"), session)


def test_mistakes_are_sentences(session: Session, tmp_path: Path) -> None:
    (tmp_path / "kept.json").write_text("[]", encoding="utf-8")
    for text, sentence in (
        (f"{TINY}@{tmp_path / 'nowhere'}", "there is no results folder"),
        (f"{TINY},sise=3", "did you mean 'size'"),
        (f"{TINY}:cy", "cy"),
        ("tinny", "unknown task 'tinny'"),
        (str(tmp_path / "none.json"), "cannot be read: no such file"),
    ):
        with pytest.raises(LabError, match=sentence):
            side(text, session)
    with pytest.raises(LabError, match="one of nothing, which judge different claims; compare two runs of one task"):
        compare(side(TINY, session), side(str(tmp_path / "kept.json"), session))


NUMBERS = some.floats(-5, 5)


@given(first=some.tuples(NUMBERS, NUMBERS), second=some.tuples(NUMBERS, NUMBERS))
def test_intervals_are_apart_exactly_where_they_have_no_common_point(first, second) -> None:
    records = [{"verdict": "holds", "measured": ends[0], "interval": sorted(ends)} for ends in (first, second)]
    (low, high), (below, above) = (record["interval"] for record in records)
    apart = max(low, below) > min(high, above)
    assert (_difference(*records) == "apart") == apart == (_difference(*records[::-1]) == "apart")
    assert _difference(records[0], records[0]) == ""
    assert _difference(records[0], {**records[1], "verdict": "refuted"}) == "verdict"


def test_runs_of_different_tasks_are_refused_before_they_are_measured(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setattr(comparing, "side", None)  # it would measure and judge
    arguments = ["compare", "causallm-icl", "icl-gradient-descent:smoke,noise=1", "--out", str(tmp_path)]
    assert main(arguments) == 2
    assert "compare two runs of one task" in capsys.readouterr().err
