"""Pages are made from files and stored verdicts, and lead somewhere."""

from __future__ import annotations

import re

import pytest

from lab import LabError, pages
from lab.catalogue import discover
from lab.files import PROJECT
from lab.findings import FINDINGS

LONGEST_README = 12_288


def test_every_page_is_what_the_stored_verdicts_say() -> None:
    for path, text in pages.pages().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is not current; run `lab reproduce`"


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


def test_a_file_without_a_title_is_named(tmp_path) -> None:
    file = tmp_path / "bare.py"
    file.write_text("# %% [markdown]\n# no title\n", encoding="utf-8")
    with pytest.raises(LabError, match="has no title"):
        pages.introduction(file)


def test_a_cell_that_defines_something_is_folded() -> None:
    assert pages.shows_nothing_but_results("TASK.show(figure)\nTASK.show()")
    assert not pages.shows_nothing_but_results("x = 1\nTASK.show(figure)")
    assert not pages.shows_nothing_but_results("")
