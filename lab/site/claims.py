"""All claims as the rows of one HTML table that a page can filter."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from lab import papers, source
from lab.claims import Claim
from lab.files import FOLDERS, PROJECT
from lab.report import Record, notes, number, requirement, stored_records
from lab.site.formulas import inline
from lab.tasks import Task

DOMAIN = re.compile(r"\blab\.domains\.(\w+)")
OF_A_SHEET = re.compile(rf"^\w+ \d+: from ((?:{'|'.join(FOLDERS)})\.[\w.]+) import (.+)$", re.MULTILINE)
# How a sentence names the mask it is about. "Causal" also stands before things that are no mask.
MASKS: Mapping[str, re.Pattern[str]] = {
    "causal": re.compile(
        r"(?<!block-)\bcausal(ly)?\b(?! (structure|graph|tree|forest|effect|discovery))|\b(both|either) (masks?|patterns?)\b",
        re.IGNORECASE,
    ),
    "prefix": re.compile(r"\bprefix(es)?\b|\b(both|either) (masks?|patterns?)\b", re.IGNORECASE),
    "full": re.compile(r"\ball see all\b|\bbidirectional\b|\bfull mask\b|\bno mask\b", re.IGNORECASE),
    "blocks and segments": re.compile(
        r"\bblock-causal\b|\bblocks? of a\b|\bsegments?\b|\bsliding.window", re.IGNORECASE
    ),
}


@dataclass(frozen=True)
class Row:
    """A claim with its stored record.

    Attributes:
        claim: as its file declares it.
        record: what was measured and how it was judged.
        task: the file it stands in.
        paper: the paper that says so, as a reader knows it.
        domains: wings of ``lab/domains/`` that its check uses.
        masks: patterns of attention that its statement names.
    """

    claim: Claim
    record: Record
    task: Task
    paper: str
    domains: tuple[str, ...]
    masks: tuple[str, ...]

    @property
    def sheet(self) -> str:
        return self.task.name

    @property
    def short(self) -> str:
        """Its id without the sheet's name."""
        return self.claim.id.split("/", 1)[1]


def rows(sheets: Mapping[str, Sequence[Task]]) -> list[Row]:
    """Every claim of ``sheets``.

    Raises:
        LabError: a task has no stored verdicts.
    """
    known = papers.entries()
    home = {entry.sheet: key for key, entry in known.items() if entry.sheet}
    rows = []
    for task in (task for parts in sheets.values() for task in parts):
        for record in stored_records(task):
            claim = task.claims[record["id"]]
            key = claim.paper or home.get(task.name, "")
            paper = known[key].paper if key in known else task.paper
            title = f"{paper.title} ({paper.year})" if paper.year else paper.title
            rows.append(Row(claim, record, task, title, wings(task.file, claim.check.__name__), masks(claim.statement)))
    return rows


def masks(statement: str) -> tuple[str, ...]:
    """The patterns of attention that a statement names.

    >>> masks("Under a prefix mask the causal graph is found"), masks("a causal network of one layer")
    (('prefix',), ('causal',))
    """
    return tuple(name for name, pattern in MASKS.items() if pattern.search(statement))


@cache
def wings(file: Path, name: str) -> tuple[str, ...]:
    """The wings of ``lab/domains/`` that the top-level ``name`` of ``file`` uses, itself or through its sheet's files."""
    text = source.code(file, name)
    domains = set(DOMAIN.findall(text))
    for module, names in OF_A_SHEET.findall(text):
        shared = _file(module)
        for imported_name in re.findall(r"(\w+)(?: as \w+)?", names):
            domains |= set(wings(shared, imported_name)) if shared else set()
    return tuple(sorted(domains))


def _file(module: str) -> Path | None:
    path = PROJECT.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def table(rows: Iterable[Row], link: Callable[[Row], str] | None = None) -> str:
    """Claims as an HTML table; each row carries what it can be filtered by.

    Args:
        found: the claims.
        link: where the id of a claim leads; None where its row is the place that links lead to.
    """
    head = "".join(f"<th>{name}</th>" for name in ("claim", "statement", "measured", "required", "controls"))
    body = "\n".join(_row(row, link) for row in rows)
    return f'<table class="claims"><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>'


def _row(row: Row, link: Callable[[Row], str] | None) -> str:
    record, claim = row.record, row.claim
    data = {
        "domain": "|".join(row.domains),
        "paper": row.paper,
        "kind": claim.kind,
        "verdict": record["verdict"],
        "mask": "|".join(row.masks),
    }
    attributes = "".join(f' data-{name}="{escape(value, quote=True)}"' for name, value in data.items())
    place = link(row) if link else f"#{anchor(claim.id)}"
    sheet = f'<span class="sheet">{escape(row.sheet)}/</span>' if link else ""
    attributes += "" if link else f' id="{escape(anchor(claim.id))}"'
    identity = f'<a href="{escape(place)}"><code>{sheet}{escape(row.short)}</code></a>'
    measured = f"<b>{number(record['measured'])}</b>" + "".join(
        f"<small>{escape(note)}</small>" for note in notes(record)
    )
    relation = requirement(record).replace("<=", "≤").replace(">=", "≥")
    required = f"<b>{escape(relation)}</b><small>{inline(record['bound_origin'])}</small>"
    cells = {
        "claim": f"{identity}{verdict(record['verdict'])}<small>{claim.kind} · {inline(claim.where)}</small>",
        "statement": inline(claim.statement) + _condition(row),
        "measured": measured,
        "required": required,
        "controls": "".join(map(_control, record["controls"])),
    }
    columns = "".join(f'<td data-label="{name}"><div>{content}</div></td>' for name, content in cells.items())
    return f"<tr{attributes}>{columns}</tr>"


def verdict(name: str) -> str:
    """A verdict as a coloured word."""
    return f'<span class="verdict {name.split()[0]}">{name}</span>'


def _condition(row: Row) -> str:
    opening = {"refuted": "It holds", "not reproduced": "The paper states it"}.get(row.record["verdict"], "")
    return f' <span class="condition">{opening} {inline(row.claim.condition)}.</span>' if opening else ""


def _control(control: Mapping[str, Any]) -> str:
    mark = "rejected, as it must be" if control["rejected"] else "NOT REJECTED"
    kind = "" if control["rejected"] else ' class="failed"'
    return f'<p{kind} title="{mark}">{inline(control["name"])}: <b>{number(control["measured"])}</b></p>'


def anchor(identity: str) -> str:
    """The place of a claim on the page of its sheet.

    >>> anchor("causallm-icl/T3.rate")
    'claim-T3.rate'
    """
    return "claim-" + identity.split("/", 1)[1]


def choices(rows: Sequence[Row]) -> dict[str, list[tuple[str, int]]]:
    """What the claims can be filtered by: for each property its values and how many claims have them."""
    values: dict[str, Callable[[Row], Iterable[str]]] = {
        "domain": lambda row: row.domains,
        "paper": lambda row: (row.paper,),
        "kind": lambda row: (row.claim.kind,),
        "verdict": lambda row: (row.record["verdict"],),
        "mask": lambda row: row.masks,
    }
    counts = {name: Counter(value for row in rows for value in of(row)) for name, of in values.items()}
    return {name: sorted(counted.items()) for name, counted in counts.items()}


def filters(rows: Sequence[Row]) -> str:
    """The controls above the table as HTML."""
    selects = "".join(
        f'<label>{name}<select name="{name}"><option value="">any</option>'
        + "".join(
            f'<option value="{escape(value, quote=True)}">{escape(value)} ({count})</option>' for value, count in values
        )
        + "</select></label>"
        for name, values in choices(rows).items()
    )
    return (
        '<form class="filters" role="search" aria-label="claims">'
        '<label class="text">text<input type="search" name="text" placeholder="such as Kaczmarz" autocomplete="off"></label>'
        f'{selects}<p><output>{len(rows)} of {len(rows)} claims</output> <button type="reset">show all</button></p></form>'
    )
