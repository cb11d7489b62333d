from __future__ import annotations

from typing import Any

import pytest

from lab import LabError, report


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
        ({"measured": 1.05}, True),
        ({"measured": 1.5}, False),
        ({"verdict": "refuted"}, False),
        ({"relation": ">="}, False),
        ({"controls": [{"name": "c", "measured": 3.0, "rejected": False}]}, False),
        ({"controls": []}, False),
    ],
)
def test_drift_is_told_from_noise(changes: dict, same: bool) -> None:
    assert report.same_findings(record(verdict="holds"), record(**changes)) == same


def test_numbers_below_a_rounding_bound_may_differ() -> None:
    assert report.same_findings(record(measured=1e-16, bound=1e-12), record(measured=3e-15, bound=1e-12))


def test_sampled_values_may_move_within_their_intervals() -> None:
    first = record(measured=1.0, interval=[0.5, 1.5])
    assert report.same_findings(first, record(measured=1.4, interval=[0.9, 1.9]))
    assert not report.same_findings(first, record(measured=2.5, interval=[2.0, 3.0]))


def test_the_file_of_verdicts_leaves_out_what_changes() -> None:
    assert "seconds" not in report.records_text([record()])


def test_a_readme_without_markers_is_named() -> None:
    with pytest.raises(LabError, match="claims:begin"):
        report.with_section("# A page")
