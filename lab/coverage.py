"""How far the papers of ``papers.toml`` are covered: counted from claims and their stored verdicts.

``lab list --papers`` prints it, ``lab reproduce`` writes it to `PAGE`, and a test holds the page to the verdicts.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

from rich.console import Console

from lab.catalogue import discover
from lab.errors import LabError
from lab.files import PROJECT
from lab.papers import COLLECTIONS, COMPANIONS, Entry, entries
from lab.report import stored_records

logger = logging.getLogger("lab")

PAGE = PROJECT / "figures" / "papers.md"
VERDICTS = ("holds", "refuted", "not reproduced", "inconclusive")
UNREADABLE = "unreadable"
HEADINGS: Mapping[str, str] = {
    "none": "Without a family",
    COMPANIONS: "Companions: papers outside the census",
    COLLECTIONS: "Collections: claims on several papers at once",
}


@dataclass(frozen=True)
class Coverage:
    """One paper and the verdicts of the claims that test it.

    Attributes:
        entry: its line of ``papers.toml``.
        verdicts: the stored verdict of each of its claims: claim id -> ``holds``, ``refuted``, ``not reproduced`` or
            ``inconclusive``; ``unreadable`` where the file that holds it is damaged.
    """

    entry: Entry
    verdicts: Mapping[str, str]

    @property
    def state(self) -> str:
        """``verified``, ``planned`` or ``nothing to check``; ``unreadable`` where no verdict of its claims can be read."""
        if self.verdicts and set(self.verdicts.values()) == {UNREADABLE}:
            return UNREADABLE
        return "verified" if self.verdicts else self.entry.state or "planned"

    @cached_property
    def counts(self) -> Counter[str]:
        """How many of its claims came out how."""
        return Counter(self.verdicts.values())

    @property
    def sheets(self) -> list[str]:
        """Names of the sheets whose claims test it, its own first."""
        names = {claim.split("/")[0] for claim in self.verdicts}
        return sorted(names, key=lambda name: (name != self.entry.sheet, name))

    @property
    def sentence(self) -> str:
        """The state in words: with the numbers of verdicts, or with the reason."""
        if self.verdicts:
            return f"{self.state}: {_counted(self.counts)}"
        return f"{self.state}: {self.entry.reason}" if self.entry.reason else self.state

    def record(self) -> dict[str, Any]:
        """The coverage as plain data (what ``lab list --papers --json`` prints)."""
        paper = self.entry.paper
        return {
            "key": paper.key,
            "title": paper.title,
            "authors": paper.authors,
            "year": paper.year,
            "arxiv": paper.arxiv,
            "family": paper.family,
            "state": self.state,
            "reason": self.entry.reason,
            "sheets": self.sheets,
            "claims": {verdict: self.counts[verdict] for verdict in (*VERDICTS, UNREADABLE)},
        }


def _counted(counts: Mapping[str, int]) -> str:
    """``12 claims hold, 1 is refuted``, without the verdicts that there are none of."""
    holds, refuted, other, open_, lost = (counts.get(verdict, 0) for verdict in (*VERDICTS, UNREADABLE))
    parts = [
        f"{holds} {'claim holds' if holds == 1 else 'claims hold'}",
        f"{refuted} {'is' if refuted == 1 else 'are'} refuted" if refuted else "",
        f"{other} {'is' if other == 1 else 'are'} not reproduced at these sizes" if other else "",
        f"{open_} {'is' if open_ == 1 else 'are'} inconclusive" if open_ else "",
        f"{lost} {'has a verdict' if lost == 1 else 'have verdicts'} that cannot be read" if lost else "",
    ]
    return ", ".join(filter(None, parts))


def coverage(*, strict: bool = True) -> list[Coverage]:
    """Every paper in the order of ``papers.toml``.

    Args:
        strict: refuse a task without verdicts that can be read; else they are ``unreadable``, with a warning that says why.

    Raises:
        LabError: a task has no stored verdicts, and ``strict``.
    """
    verdicts: dict[str, dict[str, str]] = {}
    # A task that does not name its paper by key tests the one that names it as its sheet.
    home = {entry.sheet: key for key, entry in entries().items() if entry.sheet}
    for task in discover():
        keys = {claim.id: claim.paper or home.get(task.name) for claim in task.claims.values()}
        try:
            stored = {record["id"]: record["verdict"] for record in stored_records(task)} if keys else {}
        except LabError as error:
            if strict:
                raise
            logger.warning("%s", error)
            stored = dict.fromkeys(keys, UNREADABLE)
        for claim, verdict in stored.items():
            if key := keys.get(claim):
                verdicts.setdefault(key, {})[claim] = verdict
    return [Coverage(entry, verdicts.get(key, {})) for key, entry in entries().items()]


def summary(coverages: Sequence[Coverage]) -> str:
    """How many papers of the census are in which state, and how many claims there are."""
    census = [covered for covered in coverages if covered.entry.paper.family not in (COMPANIONS, COLLECTIONS)]
    states = Counter(covered.state for covered in census)
    verdicts = sum((covered.counts for covered in coverages), Counter[str]())
    lost = f"of {states[UNREADABLE]} no verdict can be read, " if states[UNREADABLE] else ""
    return (
        f"Of {len(census)} papers {states['verified']} are verified, {states['planned']} are planned, {lost}and in "
        f"{states['nothing to check']} there is nothing to check. Of all {verdicts.total()} claims "
        f"{_counted(verdicts).replace('claims ', '')}."
    )


def by_family(coverages: Iterable[Coverage]) -> list[tuple[str, list[Coverage]]]:
    """The papers of each family under its heading, in the order given."""
    families = groupby(coverages, key=lambda covered: covered.entry.paper.family)
    return [(HEADINGS.get(family, family.replace("-", " ")), list(group)) for family, group in families]


def show(coverages: Iterable[Coverage], to: Console) -> None:
    """Print where every paper stands, family by family."""
    papers = list(coverages)
    for heading, group in by_family(papers):
        to.print(f"[bold]{heading}[/bold]")
        for covered in group:
            where = f" ({', '.join(covered.sheets)})" if covered.sheets else ""
            line = f"  {covered.entry.paper.key}  {covered.entry.paper.citation}\n    {covered.sentence}{where}"
            to.print(line, highlight=False, markup=False)
    to.print(summary(papers), highlight=False, markup=False)


def page() -> str:
    """The coverage as a Markdown page."""
    coverages = coverage()
    lines = [
        "# Papers",
        "",
        summary(coverages),
        "",
        "A paper is verified where claims of a sheet test it; a refuted claim is a sentence that is false as stated and stands",
        "with the condition under which it holds; one that is not reproduced could not be tried at its paper's sizes. Written by",
        "`lab reproduce` from `papers.toml` and the verdicts.",
    ]
    for heading, group in by_family(coverages):
        verified = sum(covered.state == "verified" for covered in group)
        lines += [
            "",
            f"## {heading} ({verified} of {len(group)})",
            "",
            "| paper | state | sheet |",
            "| --- | --- | --- |",
        ]
        for covered in group:
            links = ", ".join(f"[{sheet}]({sheet}/README.md)" for sheet in covered.sheets)
            lines.append(f"| {covered.entry.paper.citation} | {covered.sentence} | {links} |")
    return "\n".join(lines) + "\n"
