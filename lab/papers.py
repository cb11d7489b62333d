"""The papers of the project, by their keys: what ``papers.toml`` at the top level holds.

    Task("my-paper", paper="ding-2024-causallm", presets=...)

Adding a paper is adding one line to the table of its family there.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from lab.errors import LabError, nearest
from lab.files import PROJECT

# An installed package carries the file inside itself.
FILE = next(
    (file for file in (PROJECT / "papers.toml", Path(__file__).with_name("papers.toml")) if file.is_file()),
    PROJECT / "papers.toml",
)
# Tables of the file that are no families of the census.
COMPANIONS, COLLECTIONS = "companions", "collections"

State = Literal["planned", "nothing to check"]
_TYPES: Mapping[str, type] = {
    "title": str,
    "authors": str,
    "year": int,
    "arxiv": str,
    "sheet": str,
    "state": str,
    "reason": str,
}
_NAMES: Mapping[type, str] = {str: "text between quotes", int: "whole number"}


@dataclass(frozen=True)
class Paper:
    """What a task is about: enough to find it in a library.

    Attributes:
        title: its title.
        authors: its authors; empty where they are not certain.
        year: year of publication, or of its arXiv number; None where it is not certain.
        arxiv: its arXiv number, or empty.
        key: its key in ``papers.toml``; empty for a paper that a user's own file makes.
        family: the table of ``papers.toml`` it stands in.
    """

    title: str
    authors: str = ""
    year: int | None = None
    arxiv: str = ""
    key: str = ""
    family: str = ""

    @property
    def citation(self) -> str:
        """Authors: title (year, arXiv number), without what is not known."""
        origin = ", ".join(filter(None, [str(self.year or ""), f"arXiv {self.arxiv}" if self.arxiv else ""]))
        return (f"{self.authors}: " if self.authors else "") + self.title + (f" ({origin})" if origin else "")


@dataclass(frozen=True)
class Entry:
    """A line of ``papers.toml``: a paper, and either the sheet that tests it or why none does.

    Attributes:
        paper: the paper.
        sheet: name of the sheet whose claims test it; empty where there is none.
        state: ``planned`` or ``nothing to check``; None where there is a sheet.
        reason: why there is nothing to check.
    """

    paper: Paper
    sheet: str = ""
    state: State | None = None
    reason: str = ""


def paper(key: str) -> Paper:
    """The paper called ``key``.

    Raises:
        LabError: there is none, or the file of papers is damaged.
    """
    known = entries()
    if key not in known:
        raise LabError(
            f"there is no paper {key!r}{nearest(key, known)} among the {len(known)} of {FILE.name}; "
            "`lab list --papers` names them, and a new one is one line there"
        )
    return known[key].paper


def entries() -> Mapping[str, Entry]:
    """All lines of ``papers.toml`` by key, in the order of the file.

    Raises:
        LabError: the file is missing or damaged; the message names the line or the key.
    """
    return read(FILE)


@cache
def read(file: Path) -> Mapping[str, Entry]:
    """The lines of a file such as ``papers.toml``; see `entries`."""
    try:
        text = file.read_text(encoding="utf-8")
        _check_keys_are_unique(file, text)
        tables = tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise LabError(f"{file} is missing or damaged: {error}; put that line right") from error
    entries_by_key: dict[str, Entry] = {}
    for family, table in tables.items():
        if not isinstance(table, dict):
            raise LabError(f"{file}: {family!r} stands outside every table; put it below the [family] it belongs to")
        for key, fields in table.items():
            entries_by_key[key] = _entry(file, family, key, fields)
    return entries_by_key


def _check_keys_are_unique(file: Path, text: str) -> None:
    """Also between families, which TOML itself allows."""
    lines: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if match := re.match(r"""["']?([\w-]+)["']?\s*=""", line):
            if (key := match[1]) in lines:
                raise LabError(
                    f"{file}, line {number}: the key {key!r} stands on line {lines[key]} already; keys are unique"
                )
            lines[key] = number


def _entry(file: Path, family: str, key: str, fields: Any) -> Entry:
    where = f"{file}: {key!r} in [{family}]"
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", key):
        raise LabError(f"{where} is no key; use lower case letters, digits and single hyphens")
    if not isinstance(fields, dict):
        raise LabError(f"{where} holds {fields!r}; give it {{ title = …, … }}")
    for name, value in fields.items():
        if name not in _TYPES:
            raise LabError(
                f"{where} has the unknown field {name!r}{nearest(name, _TYPES)}; there are {', '.join(_TYPES)}"
            )
        if type(value) is not _TYPES[name] or not value:
            raise LabError(f"{where}: {name} is {value!r}; give a {_NAMES[_TYPES[name]]}, or leave the field out")
    if "title" not in fields:
        raise LabError(f"{where} has no title; give it one")
    state = fields.get("state")
    if ("sheet" in fields) == (state is not None) or state not in (None, *get_args(State)):
        raise LabError(
            f"{where} needs either a sheet or a state ({' or '.join(get_args(State))}); its state is {state!r}"
        )
    if (state == "nothing to check") != ("reason" in fields):
        raise LabError(f"{where}: a reason belongs to the state 'nothing to check', and only to it")
    described = {name: fields[name] for name in ("title", "authors", "year", "arxiv") if name in fields}
    return Entry(Paper(**described, key=key, family=family), fields.get("sheet", ""), state, fields.get("reason", ""))
