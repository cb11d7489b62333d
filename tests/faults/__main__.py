"""``python -m tests.faults``: every group at full size, a line each; it fails if anything was found."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, fields

import tyro

from tests.faults.bits import bits
from tests.faults.command_lines import command_lines
from tests.faults.counts import KINDS, Counts
from tests.faults.damages import damages
from tests.faults.kills import kills
from tests.faults.stale import stale
from tests.faults.task_files import task_files


@dataclass(frozen=True)
class Sizes:
    """How many trials to make of each group; 0 leaves it out."""

    kills: int = 100
    damages: int = 300
    command_lines: int = 10_000
    task_files: int = 300
    stale: int = 300
    bits: int = 6
    seed: int = 0
    """of all that is drawn"""


GROUPS: dict[str, Callable[[int, int], Counts]] = {
    "kills": kills,
    "damages": damages,
    "command_lines": command_lines,
    "task_files": task_files,
    "stale": stale,
    "bits": bits,
}


def campaign(sizes: Sizes) -> int:
    """Run the groups one after the other; returns the exit status."""
    failed = 0
    for field in fields(sizes):
        trials = getattr(sizes, field.name)
        if field.name not in GROUPS or not trials:
            continue
        begun = time.monotonic()
        counts = GROUPS[field.name](trials, sizes.seed)
        print(counts.line(time.monotonic() - begun), flush=True)
        for kind in KINDS:
            for reproducer in counts.failures.get(kind, ()):
                print(f"  {kind}: {reproducer}", flush=True)
        failed += counts.failed
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(campaign(tyro.cli(Sizes, prog="python -m tests.faults", description=__doc__)))
