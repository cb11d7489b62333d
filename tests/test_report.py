from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from lab import Evidence, control, report
from lab.catalogue import discover, load
from lab.claims import Claim, judge
from lab.files import PROJECT
from lab.tasks import Task


def record(**changes: Any) -> dict[str, Any]:
    return {
        "id": "p/T1",
        "verdict": "holds",
        "expected": "holds",
        "measured": 1.0,
        "interval": None,
        "samples": 1,
        "relation": "<=",
        "bound": 0.5,
        "bound_origin": "",
        "controls": [{"name": "c", "measured": 3.0, "rejected": True}],
        "preset": "ci",
        "seconds": 1.0,
    } | changes


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({}, True),
        ({"seconds": 9.0}, True),
        ({"measured": 1.00001}, True),
        ({"measured": 1.05}, False),
        ({"verdict": "refuted"}, False),
        ({"relation": ">="}, False),
        ({"controls": [{"name": "c", "measured": 3.0, "rejected": False}]}, False),
        ({"controls": []}, False),
    ],
)
def test_drift_is_told_from_noise(changes: dict, same: bool) -> None:
    assert report.same_findings(record(verdict="holds"), record(**changes)) == same


@pytest.mark.parametrize(
    "changes",
    [
        {"bound": 1.0, "bound_origin": "the rounding error of both"},
        {"bound": 1e-12},
        {"relation": ">=", "bound": 1e-20, "bound_origin": "false-alarm share over 15 binomial tests"},
        {"kind": "training"},
        {"samples": 9},
        {"controls": [{"name": "c", "measured": 99.0, "rejected": True}]},
    ],
)
def test_digits_without_meaning_may_differ(changes: dict) -> None:
    stored = record(measured=1e-16, **changes)
    moved = {} if "controls" in changes else {"measured": 3e-15}
    assert report.same_findings(
        stored, stored | moved | {"controls": [{"name": "c", "measured": 1.0, "rejected": True}]}
    )


def test_a_count_of_mistakes_is_no_rounding_error() -> None:
    assert not report.same_findings(record(measured=3.0, bound=0.0), record(measured=4.0, bound=0.0))


def test_sampled_values_may_move_while_their_intervals_overlap() -> None:
    first = record(measured=1.0, interval=[0.5, 1.5])
    assert report.same_findings(first, record(measured=1.8, interval=[1.4, 2.2]))
    assert not report.same_findings(first, record(measured=2.5, interval=[2.0, 3.0]))
    assert report.same_findings(first, record(measured=9.0, interval=["-inf", "inf"]))


def test_numbers_of_two_parts_are_not_compared() -> None:
    first = record(measured=-0.8, interval=[-0.9, -0.7], parts=6, bound_origin="errors at 2 and 1 examples")
    second = first | {"measured": -2.1, "interval": [-2.4, -1.8]}
    assert report.same_findings(first, second | {"bound_origin": "errors at 6 and 2 examples"})
    assert not report.same_findings(first, second)
    assert not report.same_findings(
        first, second | {"bound_origin": "errors at 6 and 2 examples", "verdict": "refuted"}
    )


def test_two_parts_may_have_other_relations() -> None:
    first = record(measured=-0.8, interval=[-0.9, -0.7], parts=2, bound_origin="from below", relation=">")
    second = first | {"measured": 2.1, "interval": [1.8, 2.4], "relation": "<"}
    assert report.same_findings(first, second | {"bound_origin": "from above"})
    assert not report.same_findings(first, first | {"relation": "<"})
    assert not report.same_findings(first | {"parts": 1}, second | {"parts": 1, "bound_origin": "from above"})


def test_tables_show_the_weakest_part_and_where_its_bound_comes_from() -> None:
    inconclusive = {"verdict": "inconclusive", "seeds_wanted": 1234, "parts": 3, "interval": [0.4, 1.6], "samples": 8}
    law = {"relation": "=", "tolerance": 0.1, "bound_origin": "the law"}
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(report.terminal_table([record(**inconclusive, **law)], {"p/T1": "A statement."}, "title"))
    printed = " ".join(console.export_text().split())
    for expected in ("0.4 to", "n = 8", "weakest of", "= 0.5 ± 0.1 the law", "about 1,226 more"):
        assert expected in printed


@pytest.mark.parametrize("width", [40, 80, 109, 110, 160])
def test_numbers_and_verdicts_are_whole_at_every_width(width: int) -> None:
    odd = record(
        measured=-6.4912345,
        interval=[-6.6543, -6.3210987],
        samples=12345,
        bound_origin="a gap of [0, 1]",
        verdict="refuted",
    )
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(report.terminal_table([odd], {"p/T1": "A statement of a few words that may wrap."}, "title", width))
    printed = console.export_text()
    for text in ("-6.49", "-6.65 to -6.32", "n = 12,345", "refuted", "(expected holds)"):
        assert text in (printed if width >= 110 else " ".join(printed.split()))
    assert "…" not in printed
    assert all(len(line) <= width for line in printed.splitlines())
    if width < 110:
        assert "[0, 1]" in " ".join(printed.split())


def test_the_markdown_table_words_what_could_not_be_tried(monkeypatch) -> None:
    def check(results, value: float = 2.0) -> Evidence:
        return Evidence.exact(value, "<=", 1.0, "the paper's figure")

    task = load(PROJECT / "tests" / "examples" / "tiny.py")
    sentence = Claim(
        "tiny/N1",
        "Figure 1",
        "phenomenon",
        "Small.",
        check,
        (control("one", value=0.5),),
        "not reproduced",
        "at width 512",
    )
    monkeypatch.setitem(task.claims, sentence.id, sentence)
    row = report.markdown_table([judge(sentence, None).record()], task).splitlines()[-1]
    assert "Small. The paper states it at width 512. | 2 | <= 1 (the paper's figure) |" in row
    assert row.endswith("| not reproduced at these sizes |")


@pytest.mark.parametrize("task", discover(), ids=lambda task: task.key)
def test_stored_records_can_be_read_and_say_the_same_as_themselves(task: Task) -> None:
    for stored in report.stored_records(task):
        assert report.same_findings(stored, stored)


def test_the_file_of_verdicts_leaves_out_what_changes() -> None:
    assert "seconds" not in report.records_text([record()])


@pytest.mark.parametrize("width", range(30, 130))
def test_rows_are_whole_at_every_width(width: int) -> None:
    """Beside each other where a line has room for what must not be cut, one below the other where it has not."""
    columns = ("claim", "A measured", "A interval", "B measured", "bound", "origin")
    cells = ["tiny/A1", "-0.0691", "-0.369 to 0.231", "1.23e-05", "<= 3", "chosen before the draw [dim]of all[/dim]"]
    rows = report.Rows(
        columns, [cells, cells], ("origin",), "A = [0, 1]", ("A measured", "B measured"), {1: "bold red"}
    )
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(rows)
    printed = console.export_text()
    assert all(printed.count(cell) == 2 for cell in cells[:-1])
    assert all(name in printed for name in columns[1:])
    assert " ".join(printed.split()).count("before") == 2
    assert "A = [0, 1]" in printed
    assert ("A measured: -0.0691" in printed) == (width < 73)
    assert all(len(line) <= width for line in printed.splitlines())


def test_one_more_sample_is_one() -> None:
    record_of_one = record(verdict="inconclusive", seeds_wanted=9, samples=8)
    assert "(about 1 more\nsample would\ndecide)" in report._verdict(record_of_one)
