"""The pages that exist only on the site: the front page, the table of all claims, the gallery, the list of sheets."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Mapping, Sequence

from lab import coverage, pages, statistics
from lab.findings import FINDINGS
from lab.papers import COLLECTIONS, COMPANIONS
from lab.report import portable
from lab.site import claims
from lab.site.claims import Row
from lab.tasks import Task

BROAD = 2.2  # a picture so many times as wide as high
FENCE = "`" * 12  # longer than any that a docstring holds


def html(text: str) -> str:
    """A block of HTML inside a page of Markdown."""
    return f"{FENCE}{{raw}} html\n{text}\n{FENCE}"


def front_page(
    opening: tuple[str, str],
    rows: Sequence[Row],
    sheets: Mapping[str, Sequence[Task]],
    navigation: Mapping[str, Sequence[str]],
) -> str:
    """What the lab is, in numbers and pictures, and the ways from there."""
    title, text = opening
    return "\n\n".join(
        [
            "---\nhide-toc: true\n---",
            f"# {title}",
            ":::{container} wide opening",
            text.strip(),
            ":::",
            html(_numbers(rows, sheets)),
            "## What was found",
            _findings(rows, sheets),
            "## Where to go",
            *(f"**{caption}**: {' · '.join(map(_way, links))}" for caption, links in navigation.items()),
            "",
        ]
    )


def _way(entry: str) -> str:
    """An entry of the navigation (``page``, or ``words <page>``) as a link."""
    words, _, page = entry.rstrip(">").rpartition(" <")
    return f"[{words}](/{page}.md)"


def _numbers(rows: Sequence[Row], sheets: Mapping[str, Sequence[Task]]) -> str:
    verdicts = Counter(row.record["verdict"] for row in rows)
    pictures = sum(len(task.figures) for parts in sheets.values() for task in parts)
    census = [covered for covered in coverage.coverage() if covered.entry.paper.family not in (COMPANIONS, COLLECTIONS)]
    verified = sum(covered.state == "verified" for covered in census)
    shown = [
        (len(rows), "claims, each with a control", "claims.html"),
        *(
            (count, "hold" if verdict == "holds" else verdict, f"claims.html#verdict={verdict.replace(' ', '+')}")
            for verdict, count in verdicts.most_common()
        ),
        (pictures, "pictures", "gallery.html"),
        (verified, f"of {len(census)} papers checked", "figures/papers.html"),
    ]
    links = "".join(f'<a href="{link}"><b>{count}</b> {label}</a>' for count, label, link in shown)
    return f'<nav class="numbers" aria-label="numbers">{links}</nav>'


def _findings(rows: Sequence[Row], sheets: Mapping[str, Sequence[Task]]) -> str:
    """The findings on sheets that the site shows, as a grid of cards."""
    records = {row.claim.id: row.record for row in rows}
    cards = [
        _card(
            finding.claim.split("/")[0],
            finding.picture,
            f"{pages.finding_sentence(finding, records)}\n\n`{finding.claim}`",
        )
        for finding in FINDINGS
        if finding.claim.split("/")[0] in sheets
    ]
    return _cards(cards)


def _cards(cards: Sequence[str]) -> str:
    return "\n\n".join(["::::{container} wide cards", *cards, "::::"])


def _card(sheet: str, figure: str, text: str) -> str:
    """A picture with words below it; one that is broad has a line of its own, so that it can be read."""
    width, height = struct.unpack(">II", (pages.figure_folder(sheet) / f"{figure}.png").read_bytes()[16:24])
    picture = f"![{figure.replace('_', ' ')}](/figures/{sheet}/{figure}.png)"
    return f":::{{container}} card{' broad' if width > BROAD * height else ''}\n{picture}\n\n{text}\n:::"


def claims_page(rows: Sequence[Row]) -> str:
    """All claims in one table with filters."""

    def link(row: Row) -> str:
        return f"figures/{row.sheet}/index.html#{claims.anchor(row.claim.id)}"

    return "\n\n".join(
        [
            "---\nhide-toc: true\n---",
            "# Claims",
            "Each claim is a sentence with a measured number, the bound it was held to, and controls: settings in which the same "
            "check must come out the other way. [How a verdict is reached](verdicts.md). The address keeps what is chosen.",
            html(f'<div class="wide">{claims.filters(rows)}{claims.table(rows, link)}</div>'),
            "",
        ]
    )


def gallery_page(sheets: Mapping[str, Sequence[Task]]) -> str:
    """Every picture with its caption and the data it draws."""
    lines = [
        "---\nhide-toc: true\n---",
        "# Gallery",
        "Blue and red mean prefix and causal throughout; every picture comes with its data.",
    ]
    for name, parts in sheets.items():
        lines += [f"## {parts[0].paper.title}", f"[The sheet](/figures/{name}/index.md)"]
        cards = []
        for task in parts:
            for figure in task.figures:
                data = f"{{download}}`data </figures/{name}/{figure}.csv>`"
                cards.append(_card(name, figure, f"{portable(pages.caption(task, figure))}\n\n{data}"))
        lines.append(_cards(cards))
    return "\n\n".join(lines) + "\n"


def sheets_page(sheets: Mapping[str, Sequence[Task]], rows: Sequence[Row]) -> str:
    """The list of all sheets, which is also their place in the navigation."""
    lines = [
        "# Sheets",
        "",
        "A sheet is everything about one paper: the argument, the pictures, the claims, the notebooks.",
        "",
    ]
    lines += ["| paper | claims | verdicts | pictures |", "| --- | --- | --- | --- |"]
    for name, parts in sheets.items():
        counts = Counter(row.record["verdict"] for row in rows if row.sheet == name)
        verdicts = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
        pictures = sum(len(task.figures) for task in parts)
        lines.append(
            f"| [{parts[0].paper.title}](/figures/{name}/index.md) | {counts.total()} | {verdicts} | {pictures} |"
        )
    contents = [f"{name} </figures/{name}/index>" for name in sheets]
    return "\n".join([*lines, "", "```{toctree}", ":hidden:", "", *contents, "```"]) + "\n"


def filled(text: str, rows: Sequence[Row]) -> str:
    """An authored page with its numbers filled in."""
    verdicts = Counter(row.record["verdict"] for row in rows)
    numbers = {
        "claims": f"{len(rows):,}",
        "controls": f"{sum(len(row.record['controls']) for row in rows):,}",
        "holds": str(verdicts["holds"]),
        "refuted": str(verdicts["refuted"]),
        "not_reproduced": str(verdicts["not reproduced"]),
        "inconclusive": str(verdicts["inconclusive"]),
        "budget": f"{statistics.FALSE_ALARM_BUDGET:.0%}",
        "judgements": f"{statistics.JUDGEMENTS:,}",
        "share": f"{statistics.SHARE:.2g}",
    }
    for name, value in numbers.items():
        text = text.replace("{" + name + "}", value)
    return text
