"""BibTeX of the papers behind tasks and claims, from ``papers.toml``, and of the lab itself."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from importlib.metadata import version

from lab.catalogue import discover, find_parts
from lab.errors import LabError, nearest
from lab.papers import Paper, entries, paper
from lab.tasks import Task

# Signs that mean something else to TeX.
_TEX = {"\\": r"\textbackslash{}", **{sign: f"\\{sign}" for sign in "&%$#_{}"}, "~": r"\~{}", "^": r"\^{}"}


def bibtex(names: Sequence[str]) -> str:
    """The entries of what ``names`` rest on, each paper once, and the lab last.

    Args:
        names: of tasks (also of a file), ids of claims with shell wildcards, keys of papers.

    Raises:
        LabError: no name is given, or one that stands for nothing.
    """
    if not names:
        raise LabError("name what to cite: a task, the id of a claim, or the key of a paper (`lab list` names them)")
    papers: dict[str, Paper] = {}
    for name in names:
        for cited in _papers(name):
            papers.setdefault(_key(cited), cited)
    return "\n\n".join([*(entry(cited) for cited in papers.values()), software()])


def _papers(name: str) -> list[Paper]:
    """The papers behind a task or claim: its own first, then those whose sentences it checks."""
    if name in entries():
        return [paper(name)]
    tasks = [load for load in find_parts(name)] if name.endswith(".py") else [t for t in discover() if _called(t, name)]
    if tasks:
        keys = [claim.paper for task in tasks for claim in task.claims.values()]
        return [tasks[0].paper, *(paper(key) for key in dict.fromkeys(keys) if key)]
    known = [(task, claim) for task in discover() for claim in task.claims.values()]
    chosen = [(task, claim) for task, claim in known if fnmatch.fnmatchcase(claim.id, name)]
    if not chosen:
        names = [*(claim.id for _, claim in known), *(task.name for task, _ in known), *entries()]
        raise LabError(
            f"{name!r} is no task, claim or paper{nearest(name, names)}; `lab list` and `lab list --papers` name them"
        )
    return [paper(claim.paper) if claim.paper else task.paper for task, claim in chosen]


def _called(task: Task, name: str) -> bool:
    return name in (task.key, task.name)


def _key(paper: Paper) -> str:
    return (
        paper.key
        or re.sub(r"[^a-z0-9]+", "-", f"{paper.authors.split(',')[0]} {paper.year or ''} {paper.title}".lower())[:40]
    )


def entry(paper: Paper) -> str:
    """A paper as an entry of BibTeX: ``@article`` with what is known of it.

    "et al." becomes "and others", which styles of bibliographies understand.

    >>> print(entry(Paper("A & B", "C. D. Éf, G. Hij et al.", 2024, "2401.00001", "ef-2024-ab")))
    @article{ef-2024-ab,
      title = {{A \\& B}},
      author = {C. D. Éf and G. Hij and others},
      year = {2024},
      journal = {arXiv preprint arXiv:2401.00001},
      eprint = {2401.00001},
      archiveprefix = {arXiv},
    }
    """
    names = re.sub(r",?\s*et al\.?$", ", others", paper.authors)
    fields = {
        "title": f"{{{_tex(paper.title)}}}",  # a second pair of braces keeps its capital letters
        "author": " and ".join(_tex(name) for name in re.split(r",\s*", names) if name),
        "year": str(paper.year or ""),
        **(
            {"journal": f"arXiv preprint arXiv:{paper.arxiv}", "eprint": paper.arxiv, "archiveprefix": "arXiv"}
            if paper.arxiv
            else {}
        ),
    }
    kind = "article" if paper.arxiv else "misc"
    return _entry(kind, _key(paper), fields)


def software() -> str:
    """The lab as an entry of BibTeX."""
    number = version("theory-lab")
    title = "{Theory lab: claims about in-context learning, each as a number with a bound and a control that must fail}"
    return _entry("software", f"theory-lab-{number}", {"title": title, "version": number})


def _entry(kind: str, key: str, fields: dict[str, str]) -> str:
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
    return "\n".join([f"@{kind}{{{key},", *lines, "}"])


def _tex(text: str) -> str:
    return "".join(_TEX.get(sign, sign) for sign in text)
