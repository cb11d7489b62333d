"""What the claims can be filtered by, and what their rows say."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest

from lab.pages import sheets
from lab.site import claims
from lab.site.claims import Row

pytest.importorskip("markdown_it", reason="the extra [site] is not installed")
pytest.importorskip("math_core", reason="the extra [site] is not installed")


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return claims.rows(sheets())


def test_every_claim_has_a_row_with_its_paper(rows: list[Row]) -> None:
    ids = [claim for parts in sheets().values() for task in parts for claim in task.claims]
    assert sorted(row.claim.id for row in rows) == sorted(ids)
    papers = {row.claim.id: row.paper for row in rows}
    assert papers["causallm-icl/T1"] == "CausalLM is not optimal for in-context learning (2024)"
    assert papers["attention-masks/mas.pointers.trained"].startswith("Segment-Based Attention Masking")


def test_domains_are_those_that_the_check_computes_with(rows: list[Row]) -> None:
    domains = {row.claim.id: row.domains for row in rows}
    assert domains["causallm-icl/O5"] == ("regression",)
    assert domains["stepwise-graph-navigation/I1"] == ("graphs",)
    assert domains["attention-masks/sym.T1"] == ("attention", "regression")  # through a file that the sheet shares
    assert Counter(bool(names) for names in domains.values())[True] > 0.8 * len(rows)  # others rest on models alone


@pytest.mark.parametrize(
    ("statement", "names"),
    [
        ("A causal network finds the causal graph", ("causal",)),
        ("Gradient descent finds a causal structure", ()),
        ("the same under both masks", ("causal", "prefix")),
        ("Where all see all there is no pattern", ("full",)),
        ("the larger the blocks of a block-causal mask", ("blocks and segments",)),
    ],
)
def test_masks_are_those_that_the_statement_names(statement: str, names: tuple[str, ...]) -> None:
    assert claims.masks(statement) == names


def test_choices_count_the_rows_they_leave(rows: list[Row]) -> None:
    choices = claims.choices(rows)
    assert list(choices) == ["domain", "paper", "kind", "verdict", "mask"]
    for name in ("paper", "kind", "verdict"):
        assert sum(count for _, count in choices[name]) == len(rows)
    form = claims.filters(rows)
    assert all(f'<select name="{name}">' in form for name in choices)


def test_a_row_says_what_was_measured_and_which_control_was_not_rejected(rows: list[Row]) -> None:
    (row,) = (row for row in rows if row.claim.id == "causallm-icl/O4")
    shown = claims.table([row], lambda row: f"sheet.html#{claims.anchor(row.claim.id)}")
    assert '<a href="sheet.html#claim-O4">' in shown
    assert 'data-verdict="refuted"' in shown
    assert "It holds" in shown
    assert "failed" not in shown
    broken = [{**row.record["controls"][0], "name": "a < b", "rejected": False}]
    shown = claims.table([dataclasses.replace(row, record={**row.record, "controls": broken})])
    assert '<p class="failed" title="NOT REJECTED">a &lt; b: ' in shown
    assert 'id="claim-O4"' in shown
