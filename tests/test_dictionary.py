from __future__ import annotations

import io

import pytest
from rich.console import Console

from lab import dictionary
from lab.catalogue import discover
from lab.cli import main

CLAIMS = {claim.id: claim for task in discover() for claim in task.claims.values()}
CITED = sorted({claim for line in dictionary.LINES for claim in line.claims})


@pytest.mark.parametrize("claim", CITED)
def test_every_cited_claim_is_there_and_expected_to_hold(claim: str) -> None:
    assert CLAIMS[claim].expected == "holds"


def test_every_line_says_when_and_who_verifies_it() -> None:
    for line in dictionary.LINES:
        assert line.condition
        assert line.claims
        assert not any("|" in part.replace("\\|", "") for part in (line.mechanism, line.equals, line.condition))


def test_mechanisms_are_named_once() -> None:
    names = [line.mechanism for line in dictionary.LINES]
    assert len(names) == len(set(names))


def test_the_page_is_generated() -> None:
    assert dictionary.PAGE.read_text(encoding="utf-8") == dictionary.page(), (
        "run `lab reproduce` to make the dictionary anew"
    )


def test_show_prints_every_line(capsys) -> None:
    assert main(["show", "dictionary"]) == 0
    output = capsys.readouterr().out
    assert all(claim in output for claim in CITED)


def test_no_word_is_cut_on_a_narrow_terminal() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(dictionary.terminal_table())
    assert "…" not in console.export_text()
