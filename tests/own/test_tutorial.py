"""The page that builds a task in ten steps says what the lab answers today."""

from __future__ import annotations

from pathlib import Path

from lab.own import tutorial


def test_the_page_is_current(tmp_path: Path) -> None:
    assert tutorial.PAGE.read_text(encoding="utf-8") == tutorial.page(tmp_path), "`make architecture` writes it"


def test_every_break_is_answered() -> None:
    page = tutorial.PAGE.read_text(encoding="utf-8")
    blocks = [block.split("```")[0].splitlines() for block in page.split("```console\n")[1:]]
    assert len(blocks) == len(tutorial.STEPS) == 10
    assert all(len(block) > 1 for block in blocks)
    for words in (
        "is there already",
        "does not keep its contract",
        "did you mean",
        "NOT REJECTED",
        "no function of its",
    ):
        assert words in page
