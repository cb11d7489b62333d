"""One live line a job with the time left on a terminal; plain lines elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from rich.console import Console
from rich.progress import BarColumn, Task, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

# Where nobody watches a bar move, shorter jobs than this are not worth a line each.
PLAIN_LINE_SECONDS = 1.0
# The speed of a run is its own only after this share of its work: before, workers begin and the first jobs differ most.
SHARE_OF_A_SPEED = 0.05


@runtime_checkable
class Progress(Protocol):
    """What the loop over jobs tells its reader."""

    def start(self, label: str) -> None: ...
    def update(self, label: str, share: float | None) -> None: ...
    def finish(self, label: str) -> None: ...
    def fail(self, label: str) -> None: ...
    def again(self, label: str) -> None: ...


@contextmanager
def open_progress(expected: Mapping[str, float | None], quiet: bool, workers: int = 1) -> Iterator[Progress]:
    """The progress display that fits where the output goes.

    Args:
        expected: the label of every job, and how many seconds it took when it was measured before (None: never).
        quiet: show nothing.
        workers: how many jobs are under way at once.
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
            _Left(),
            console=console,
            transient=True,
        ) as rich:
            yield _Live(rich, Work(expected, workers))
    else:
        yield _Plain(Work(expected, workers))


class Work:
    """How much of all jobs is done and how long the rest takes, weighed by what each took before.

    A job that was never measured is taken for the mean of those that were; where none was, all count alike.

    Args:
        expected: seconds by label; None where it is not known.
        workers: how many jobs are under way at once.
    """

    def __init__(self, expected: Mapping[str, float | None], workers: int = 1) -> None:
        known = [seconds for seconds in expected.values() if seconds is not None]
        self.timed, self.workers = sum(known) > 0, max(workers, 1)
        usual = sum(known) / len(known) if self.timed else 1.0
        self.parts = {
            label: usual if seconds is None or not self.timed else seconds for label, seconds in expected.items()
        }
        self.all = math.fsum(self.parts.values())
        self.finished, self.jobs = 0.0, 0
        self.begun: dict[str, float] = {}

    @property
    def done(self) -> float:
        """Finished jobs, and of those under way the part that they say is done."""
        return min(self.finished + sum(share * self.parts[label] for label, share in self.begun.items()), self.all)

    def update(self, label: str, share: float) -> None:
        self.begun[label] = min(max(share, 0.0), 1.0)

    def again(self, label: str) -> None:
        self.begun.pop(label, None)

    def finish(self, label: str) -> None:
        self.again(label)
        self.jobs += 1
        self.finished += self.parts[label]

    def left(self, elapsed: float) -> float | None:
        """Seconds until all is done, after ``elapsed`` seconds; None while nothing tells."""
        rest = self.all - self.done
        enough = self.done >= SHARE_OF_A_SPEED * self.all > 0
        if self.jobs == len(self.parts):
            return 0.0
        if enough and (self.timed or self.jobs >= 2 * self.workers):
            return elapsed * rest / self.done
        return rest / min(self.workers, len(self.parts)) if self.timed else None


class _Left(TimeRemainingColumn):
    """The time left: of all jobs by the work that is left, of one by its own speed."""

    def render(self, task: Task) -> Text:
        work = task.fields.get("work")
        if work is None:
            return super().render(task)
        left = work.left(task.elapsed or 0.0)
        minutes, seconds = divmod(round(left or 0.0), 60)
        shown = "-:--:--" if left is None else f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
        return Text(shown, style="progress.remaining")


class _Silent:
    def start(self, label: str) -> None:
        pass

    def update(self, label: str, share: float | None) -> None:
        pass

    finish = fail = again = start


class _Live:
    def __init__(self, rich: RichProgress, work: Work) -> None:
        self.rich, self.work = rich, work
        self.lines: dict[str, TaskID] = {}
        self.all = rich.add_task(f"all {len(work.parts)} measurements", total=work.all, work=work)

    def start(self, label: str) -> None:
        self.lines[label] = self.rich.add_task(label, total=1.0)

    def update(self, label: str, share: float | None) -> None:
        if share is not None:
            self.rich.update(self.lines[label], completed=share)
            self.work.update(label, share)
            self.rich.update(self.all, completed=self.work.done)

    def finish(self, label: str) -> None:
        self.rich.remove_task(self.lines.pop(label))
        self.work.finish(label)
        self.rich.update(self.all, completed=self.work.done)

    fail = finish

    def again(self, label: str) -> None:
        self.rich.remove_task(self.lines.pop(label))
        self.work.again(label)


class _Plain:
    def __init__(self, work: Work) -> None:
        self.work, self.total = work, len(work.parts)
        self.begun = time.monotonic()
        self.started: dict[str, float] = {}

    def start(self, label: str) -> None:
        self.started[label] = time.monotonic()

    def update(self, label: str, share: float | None) -> None:
        if share is not None:
            self.work.update(label, share)

    def finish(self, label: str) -> None:
        self._end(label, "measured")

    def fail(self, label: str) -> None:
        self._end(label, "FAILED")

    def again(self, label: str) -> None:
        self.started.pop(label)
        self.work.again(label)

    def _end(self, label: str, how: str) -> None:
        now = time.monotonic()
        seconds = now - self.started.pop(label)
        self.work.finish(label)
        done, left = self.work.jobs, self.work.left(now - self.begun)
        if seconds > PLAIN_LINE_SECONDS or how == "FAILED" or done == self.total:
            rest = "" if left is None or done == self.total else f", about {left:.0f} s left"
            print(f"{label}: {how} in {seconds:.1f} s ({done} of {self.total}{rest})", file=sys.stderr, flush=True)
