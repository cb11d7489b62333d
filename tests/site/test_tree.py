"""Links of the repository's pages become links of the site."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from lab.files import PROJECT
from lab.pages import sheets
from lab.site.tree import Tree


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path, {"causallm-icl": sheets()["causallm-icl"]})


@pytest.mark.parametrize(
    ("written", "on_the_site"),
    [
        ("[all](../README.md)", "[all](/figures/index.md)"),
        ("[notebook](../../tasks/causallm_icl/repairs.ipynb)", "[notebook](/tasks/causallm_icl/repairs.ipynb)"),
        ("[page](../diagnosis.md#the-protocols)", "[page](/figures/diagnosis.md#the-protocols)"),
        ("[masks](../attention-masks/README.md)", "masks"),  # of a sheet that is left out
        ("[arXiv](https://arxiv.org/abs/2308.06912)", "[arXiv](https://arxiv.org/abs/2308.06912)"),
        ("the law $[1](1-h)$", "the law $[1](1-h)$"),
    ],
)
def test_links_lead_to_pages_of_the_site(tree: Tree, written: str, on_the_site: str) -> None:
    assert tree.linked(written, "figures/causallm-icl/README.md") == on_the_site


def test_a_link_to_code_asks_for_its_page(tree: Tree) -> None:
    shown = tree.linked("[code](../../tasks/causallm_icl/repairs.py)", "figures/causallm-icl/README.md")
    assert shown == "[code](/code/tasks/causallm_icl/repairs.md)"
    assert tree.code == {PurePosixPath("tasks/causallm_icl/repairs.py")}


def test_a_link_to_another_file_takes_it_along(tree: Tree) -> None:
    assert tree.linked("[papers](papers.toml)", "README.md") == "[papers](/papers.toml)"
    assert (tree.folder / "papers.toml").read_bytes() == (PROJECT / "papers.toml").read_bytes()
