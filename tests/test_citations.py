from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab.citations import bibtex, entry
from lab.errors import LabError
from lab.papers import Paper, entries

TINY = str(Path(__file__).parent / "examples" / "tiny.py")


@pytest.mark.parametrize("key", entries())
def test_every_paper_is_an_entry_with_balanced_braces(key: str) -> None:
    text = entry(entries()[key].paper)
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    assert text.startswith(("@article{", "@misc{"))
    assert f"{key}," in text.splitlines()[0]
    assert not re.search(r"(?<!\\)[&%#_]", text.split("\n", 1)[1])


def test_a_task_cites_its_paper_once_and_the_lab_last() -> None:
    text = bibtex(["causallm-icl", "causallm-icl/T5"])
    assert text.count("@article{ding-2024-causallm,") == 1
    assert text.rstrip("}\n").rpartition("@")[2].startswith("software{theory-lab-")
    assert "author = {A. Author}" in bibtex([TINY])


def test_et_al_is_and_others() -> None:
    assert "author = {A. B and others}" in entry(Paper("T", "A. B et al.", 2020))


def test_what_is_not_known_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(LabError, match="'causalm-icl' is no task, claim or paper .did you mean 'causallm-icl'"):
        bibtex(["causalm-icl"])
    with pytest.raises(LabError, match="name what to cite"):
        bibtex([])
