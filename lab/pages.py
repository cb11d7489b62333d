"""Pages made from stored verdicts: the front page's findings, and a page for each sheet.

A *sheet* is everything about one paper: the parts in ``tasks/`` and in ``proofs_check/`` that carry its name. Its page holds
the argument, the pictures with their captions, every claim with its measured value, bound and controls, and the way to the
code. Nothing on it is typed: prose comes from the files, numbers from the verdicts kept beside the measurements.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lab.catalogue import discover
from lab.errors import LabError
from lab.files import PROJECT
from lab.findings import FINDINGS, LAWS, Finding
from lab.kept_networks import section
from lab.report import markdown_table, number, portable, stored_records
from lab.tasks import Task

BEGIN, END = "<!-- findings:begin -->", "<!-- findings:end -->"
CELL = re.compile(r"^# %%(.*)$", re.MULTILINE)
Record = Mapping[str, Any]


def sheets() -> dict[str, list[Task]]:
    """The parts of every sheet by its name: those of ``tasks/`` first, then the proofs."""
    parts: dict[str, list[Task]] = {}
    for task in discover():
        parts.setdefault(task.name, []).append(task)
    return parts


def figure_folder(name: str) -> Path:
    """Where the pictures and the page of the sheet called ``name`` are kept."""
    return PROJECT / "figures" / name


def caption(task: Task, figure: str) -> str:
    """What a picture shows: the docstring of its function, on one line."""
    return " ".join((task.figures[figure].__doc__ or "").split())


def introduction(file: Path) -> tuple[str, str]:
    """Title and prose of the first cell of a task file.

    Raises:
        LabError: the file does not begin with a Markdown cell that has a title.
    """
    cells = CELL.split(file.read_text(encoding="utf-8"))
    for kind, body in zip(cells[1::2], cells[2::2], strict=True):
        if "[markdown]" in kind:
            lines = [line.removeprefix("#").removeprefix(" ") for line in body.strip().splitlines()]
            if lines and lines[0].startswith("#"):
                return lines[0].lstrip("# ").strip(), "\n".join(lines[1:]).strip()
            break
    raise LabError(f"{file} has no title; begin its first Markdown cell with a line '# Title'")


def sheet_page(
    name: str, parts: Sequence[Task], table: Callable[[Sequence[Record], Task], str] = markdown_table
) -> str:
    """The page of a sheet in Markdown, to be written to ``figures/<name>/README.md``; ``table`` shows the claims of a part."""
    records = {task.key: stored_records(task) for task in parts}
    every = [record for task_records in records.values() for record in task_records]
    paper = parts[0].paper
    link = f" ([arXiv {paper.arxiv}](https://arxiv.org/abs/{paper.arxiv}))" if paper.arxiv else ""
    lines = [
        f"# {paper.title}",
        "",
        f"{paper.authors}, {paper.year}{link}. {len(every)} claims: {_outcomes(every)}. "
        f"`lab check '{name}/*'` judges them, `lab run {name}` measures them and draws the pictures. "
        "[All sheets](../README.md)",
        "",
    ]
    for task in parts:
        title, prose = introduction(task.file)
        lines += [f"## {title}", "", _code_links(task), "", portable(_demoted(prose)), ""]
        for figure in task.figures:
            lines += [f"![{figure.replace('_', ' ')}]({figure}.png)", "", f"*{portable(caption(task, figure))}*", ""]
        if records[task.key]:
            lines += [table(records[task.key], task), ""]
    lines += section(name) + changes(name)
    return "\n".join(lines).rstrip() + "\n"


def changes(name: str) -> list[str]:
    """What changed from the first edition of the sheet called ``name``, claim by claim, as lines of Markdown.

    It is written in ``figures/<name>/changes.toml``: a table a claim, with the sentences ``before`` and ``now`` (empty for
    a new claim, or one that is gone) and ``why``.

    Raises:
        LabError: the file cannot be read, or an entry lacks one of the three, or has another one.
    """
    file = figure_folder(name) / "changes.toml"
    if not file.is_file():
        return []
    try:
        known = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # bytes that are no text, and text that is no TOML
        raise LabError(f"{file} is no TOML ({error}); mend it there") from error
    lines = [
        "## What changed from the first edition",
        "",
        "| claim | before | now | why |",
        "| --- | --- | --- | --- |",
    ]
    for claim, entry in known.items():
        if not isinstance(entry, dict):
            raise LabError(
                f"{file} gives {claim} the value {repr(entry)[:100]}; give it a table of before, now and why"
            )
        if set(entry) != {"before", "now", "why"}:
            raise LabError(f"{file} gives {claim} the entries {', '.join(entry)}; give it before, now and why")
        cells = [portable(" ".join(str(entry[part]).split())).replace("|", "\\|") for part in ("before", "now", "why")]
        lines.append(
            f"| {claim.removeprefix(name + '/')} | {cells[0] or '(new)'} | {cells[1] or '(gone)'} | {cells[2]} |"
        )
    return [*lines, ""]


def _outcomes(records: Sequence[Record]) -> str:
    """``30 hold, 1 refuted, 2 not reproduced at these sizes``; the first two are always named."""
    counts = Counter(record["verdict"] for record in records)
    parts = [f"{counts['holds']} hold", f"{counts['refuted']} refuted"]
    if counts["not reproduced"]:
        parts.append(f"{counts['not reproduced']} not reproduced at these sizes")
    if counts["inconclusive"]:
        parts.append(f"{counts['inconclusive']} inconclusive")
    return ", ".join(parts)


def _code_links(task: Task) -> str:
    file = task.file.relative_to(PROJECT)
    links = [f"[code](../../{file})"]
    if task.place == "tasks":
        links.append(f"[notebook](../../{file.with_suffix('.ipynb')})")
    return " · ".join(links)


def _demoted(prose: str) -> str:
    """Headings one level lower, below the part's own."""
    return re.sub(r"^(#+) ", r"#\1 ", prose, flags=re.MULTILINE)


def index_page() -> str:
    """The list of all sheets in Markdown, to be written to ``figures/README.md``."""
    lines = [
        "# Sheets",
        "",
        "| sheet | paper | claims | refuted | not reproduced | pictures |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, parts in sheets().items():
        records = [record for task in parts for record in stored_records(task)]
        counts = Counter(record["verdict"] for record in records)
        pictures = sum(len(task.figures) for task in parts)
        lines.append(
            f"| [{name}]({name}/README.md) | {parts[0].paper.title} | {len(records)} | {counts['refuted']} | "
            f"{counts['not reproduced']} | {pictures} |"
        )
    lines += [
        "",
        "The [dictionary](dictionary.md) lists which attention is which optimiser or statistic; "
        "[verification](verification.md) counts how often verdicts came out again on other seeds; "
        "[diagnosis](diagnosis.md) says how a model of one's own is brought to `lab diagnose`.",
    ]
    lines += [
        "",
        "## Laws derived here",
        "",
        "Each is derived in the notebook or the proofs of its sheet and checked by claims with controls. We know of no publication of them",
        "in this setting, but have not searched the literature, and claim no priority.",
        "",
    ]
    for law, claims in LAWS:
        links = (f"[`{claim}`]({claim.partition('/')[0]}/README.md)" for claim in claims)
        lines.append(f"- {law}: {', '.join(links)}")
    return "\n".join(lines) + "\n"


def findings(folder: str = "figures") -> str:
    """What was found, with pictures (links below ``folder``) and the numbers of the stored verdicts."""
    known = {record["id"]: record for parts in sheets().values() for task in parts for record in stored_records(task)}
    return "\n\n".join(_finding(finding, known, folder) for finding in FINDINGS)


def _finding(finding: Finding, known: Mapping[str, Record], folder: str) -> str:
    sheet, _, identity = finding.claim.partition("/")
    page = f"{folder}/{sheet}"
    return (
        f"{finding_sentence(finding, known)} ([`{identity}`]({page}/README.md))\n\n"
        f'<img src="{page}/{finding.picture}.png" width="620" alt="{finding.picture.replace("_", " ")}">'
    )


def finding_sentence(finding: Finding, known: Mapping[str, Record]) -> str:
    """A finding in Markdown with its numbers filled in from the records of all claims by id.

    Raises:
        LabError: its claim has no record.
    """
    if finding.claim not in known:
        raise LabError(f"the finding about {finding.claim} has no stored verdict; run `lab reproduce` to write it")
    record = known[finding.claim]
    low, high = record["interval"] or (record["measured"], record["measured"])
    numbers = {"measured": record["measured"], "bound": record["bound"], "low": low, "high": high}
    sentence = portable(finding.sentence)
    for name, value in numbers.items():
        sentence = sentence.replace("{" + name + "}", number(value))
    return sentence


def with_findings(readme: str) -> str:
    """``readme`` with the findings between its two markers made anew."""
    pattern = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    if not pattern.search(readme):
        raise LabError(f"README.md has no {BEGIN} … {END}; put the two markers where the findings belong")
    return pattern.sub(lambda _: f"{BEGIN}\n\n{findings()}\n\n{END}", readme)


def pages() -> dict[Path, str]:
    """Every generated page of the project and what belongs in it."""
    return {path: make() for path, make in makers().items()}


def makers() -> dict[Path, Callable[[], str]]:
    """Every generated page of the project and what makes it; each raises LabError of its own where a record is damaged."""
    return {
        **{figure_folder(name) / "README.md": partial(sheet_page, name, parts) for name, parts in sheets().items()},
        PROJECT / "figures" / "README.md": index_page,
        PROJECT / "README.md": front_page,
    }


def front_page() -> str:
    """README.md with its findings made anew.

    Raises:
        LabError: it is not there, is no text, or has no place for findings.
    """
    file = PROJECT / "README.md"
    try:
        return with_findings(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LabError(f"{file} cannot be read ({error}); take it back from the repository") from error


def shows_nothing_but_results(source: str) -> bool:
    """Whether a notebook cell only shows figures and verdicts (``TASK.show(...)``)."""
    body = ast.parse(source).body
    return bool(body) and all(ast.unparse(statement).startswith("TASK.show(") for statement in body)
