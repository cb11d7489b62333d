"""The list of tasks and claims, kept beside the results, so that ``lab list`` need not import every task each time.

It is kept under the names, sizes and times of every file that it was made from; where one of them differs, it is made anew.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from lab.errors import LabError
from lab.files import FOLDERS, PROJECT, results_folder, write

Record = dict[str, Any]
PLAIN_WIDTH = 180


def console() -> Console:
    """The terminal; where the output is none, there is no width to fit."""
    return Console() if sys.stdout.isatty() else Console(width=PLAIN_WIDTH)


def kept() -> list[Record] | None:
    """The records as they were last made; None where a file has changed since, or nothing is kept."""
    try:
        listing = json.loads(_place().read_text(encoding="utf-8"))
        return listing["records"] if listing["stamp"] == stamp() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep(records: Sequence[Record], made_from: str) -> None:
    """Keep ``records`` for the next time, with the ``stamp`` of the files that they were made from.

    A folder that is not there, or cannot be written to, costs that, no more: a list makes no folder but that of a clone.
    """
    if not _place().parent.is_dir() and _place().parent != PROJECT / "results":
        return
    try:
        write(_place(), json.dumps({"stamp": made_from, "records": list(records)}).encode())
    except LabError:
        return


def show(records: Sequence[Record], as_json: bool, to: Console) -> None:
    """Print the list, in words or for programs."""
    if as_json:
        print(json.dumps(list(records), indent=1))
        return
    for record in records:
        to.print(f"[bold]{record['paper']['slug']}[/bold]  {escape(record['citation'])}")
        to.print(f"  figures: {', '.join(record['figures']) or 'none'}", highlight=False, markup=False)
        for claim in record["claims"]:
            to.print(f"  {claim['id']}  {claim['kind']}, {claim['where']}", highlight=False, markup=False)


def _place() -> Path:
    return results_folder() / ".list.json"


def stamp() -> str:
    """A hash of the name, size and time of every file that the list is made from."""
    files = [path for folder in ("lab", *FOLDERS) for path in (PROJECT / folder).rglob("*.py")]
    file_stats = [
        (str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in [*files, *PROJECT.glob("papers.toml")]
    ]
    return hashlib.sha256(repr(sorted(file_stats)).encode()).hexdigest()
