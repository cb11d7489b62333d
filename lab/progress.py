"""One live line a job with the time left on a terminal; plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

# Where nobody watches a bar move, shorter jobs than this are not worth a line each.
PLAIN_LINE_SECONDS = 1.0


@runtime_checkable
class Progress(Protocol):
    """What the loop over jobs tells its reader."""

    def start(self, label: str) -> None: ...
    def update(self, label: str, share: float | None) -> None: ...
    def finish(self, label: str) -> None: ...
    def fail(self, label: str) -> None: ...


@contextmanager
def open_progress(total: int, quiet: bool) -> Iterator[Progress]:
    """The progress display that fits where the output goes."""
    console = Console(stderr=True)
    if quiet:
        yield _Silent()
    elif console.is_terminal:
        with RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        ) as rich:
            yield _Live(rich, total)
    else:
        yield _Plain(total)


class _Silent:
    def start(self, label: str) -> None:
        pass

    def update(self, label: str, share: float | None) -> None:
        pass

    finish = fail = start


class _Live:
    def __init__(self, rich: RichProgress, total: int) -> None:
        self.rich = rich
        self.lines: dict[str, TaskID] = {}
        self.all = rich.add_task(f"all {total} measurements", total=total)

    def start(self, label: str) -> None:
        self.lines[label] = self.rich.add_task(label, total=1.0)

    def update(self, label: str, share: float | None) -> None:
        if share is not None:
            self.rich.update(self.lines[label], completed=share)

    def finish(self, label: str) -> None:
        self.rich.remove_task(self.lines.pop(label))
        self.rich.advance(self.all)

    fail = finish


class _Plain:
    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self.begun = time.monotonic()
        self.started: dict[str, float] = {}

    def start(self, label: str) -> None:
        self.started[label] = time.monotonic()

    def update(self, label: str, share: float | None) -> None:
        pass

    def finish(self, label: str) -> None:
        self._end(label, "measured")

    def fail(self, label: str) -> None:
        self._end(label, "FAILED")

    def _end(self, label: str, how: str) -> None:
        self.done += 1
        now = time.monotonic()
        seconds = now - self.started.pop(label)
        left = (now - self.begun) / self.done * (self.total - self.done)
        if seconds > PLAIN_LINE_SECONDS or how == "FAILED" or self.done == self.total:
            print(
                f"{label}: {how} in {seconds:.1f} s ({self.done} of {self.total}, about {left:.0f} s left)",
                file=sys.stderr,
                flush=True,
            )
