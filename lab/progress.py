"""One live line a job with the time left on a terminal; plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
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
    def again(self, label: str) -> None: ...


@contextmanager
def open_progress(expected: Mapping[str, float | None], quiet: bool) -> Iterator[Progress]:
    """The progress display that fits where the output goes.

    Args:
        expected: the label of every job, and how many seconds it took when it was measured before (None: never).
        quiet: show nothing.
    """
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
            yield _Live(rich, len(expected))
    else:
        yield _Plain(expected)


class _Silent:
    def start(self, label: str) -> None:
        pass

    def update(self, label: str, share: float | None) -> None:
        pass

    finish = fail = again = start


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

    def again(self, label: str) -> None:
        self.rich.remove_task(self.lines.pop(label))


class _Plain:
    def __init__(self, expected: Mapping[str, float | None]) -> None:
        self.total = len(expected)
        known = [seconds for seconds in expected.values() if seconds is not None]
        usual = sum(known) / len(known) if known else 1.0
        self.work = {label: usual if seconds is None else seconds for label, seconds in expected.items()}
        self.finished_work = 0.0
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

    def again(self, label: str) -> None:
        self.started.pop(label)

    def _end(self, label: str, how: str) -> None:
        self.done += 1
        now = time.monotonic()
        seconds = now - self.started.pop(label)
        self.finished_work += self.work[label]
        share = self.finished_work / (sum(self.work.values()) or 1.0)
        left = (now - self.begun) * (1 - share) / share if share else 0.0
        if seconds > PLAIN_LINE_SECONDS or how == "FAILED" or self.done == self.total:
            print(
                f"{label}: {how} in {seconds:.1f} s ({self.done} of {self.total}, about {left:.0f} s left)",
                file=sys.stderr,
                flush=True,
            )
