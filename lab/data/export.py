"""``lab data``: prompts of a generator into a file, with a progress line and a word on what would recur."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from lab.data.answers import Column, added
from lab.data.formats import check_out, write_prompts
from lab.data.identity import Recurrence, fingerprints
from lab.data.sources import BLOCK, Source
from lab.errors import LabError

Precision = Literal["float64", "float32"]
PLAIN_LINE_SECONDS = 10.0
# A file is never smaller than the numbers by more than this: a number of text takes two characters, what repeats is compressed.
LEAST = {".npz": 1, ".safetensors": 1, ".jsonl": 4, ".parquet": 16}


def export(
    source: Source,
    count: int,
    seed: int,
    out: Path,
    also: tuple[Column, ...] = (),
    precision: Precision = "float64",
    chunk: int = 8 * BLOCK,
) -> Recurrence | None:
    """Write the first ``count`` prompts of ``source`` at ``seed`` to ``out``.

    Args:
        also: further columns: the scoring mask, the exact predictor's answer, its risk.
        precision: of the numbers in the file; they are drawn in float64, and so are answers and risks.
        chunk: prompts held in memory at once; the file is the same for every chunk.

    Returns:
        For all prompts of a generator, how many of ``BLOCK`` fresh ones occur among those written; None for a part, since
        its prompts are not in the other part.

    Raises:
        LabError: what cannot be written, drawn or answered, said before anything is drawn where that is possible.
    """
    check_out(out)
    first = next(source.chunks(seed, 1))
    row = _arrays(first | added(source, first, also), precision)
    twice = {"mask", "answer", "risk"} & set(also) & set(first)
    if twice:
        raise LabError(
            f"{source.name} has a field {min(twice)!r} already, so that a column of that name cannot be added; leave it out of --also"
        )
    _check_space(out, count, sum(value.nbytes for value in row.values()))
    recurrence = None
    if source.part == "all":
        recurrence = Recurrence(fingerprints(source.block(seed, 0, below="fresh")))
    about = {
        "generator": source.name,
        "sizes": {name: str(value) for name, value in source.sizes.items()},
        "seed": seed,
        "count": count,
        "part": source.part,
        "share": source.share,
        "lab": version("theory-lab"),
        "numpy": np.__version__,
    }

    def arrays() -> Iterator[dict[str, np.ndarray]]:
        with _progress(f"{count:,} prompts of {source.name}", count) as advance:
            for prompts in source.chunks(seed, count, chunk):
                if recurrence is not None:
                    recurrence.see(prompts)
                yield _arrays(prompts | added(source, prompts, also), precision)
                advance(len(next(iter(prompts.values()))))

    write_prompts(out, count, arrays(), about)
    return recurrence


def _arrays(columns: Mapping[str, torch.Tensor], precision: Precision) -> dict[str, np.ndarray]:
    """The columns as they are written."""
    dtype = getattr(torch, precision)
    return {name: (value.to(dtype) if value.is_floating_point() else value).numpy() for name, value in columns.items()}


def _check_space(out: Path, count: int, row: int) -> None:
    """Refuse a file that cannot fit on its disk, of ``count`` prompts of ``row`` bytes each, before it fills it.

    Raises:
        LabError: even the least that the format makes of them is more than there is.
    """
    needed, free = count * row // LEAST[out.suffix], shutil.disk_usage(out.parent).free
    if needed > free:
        raise LabError(
            f"{count:,} prompts of {row:,} bytes make a file of at least {needed // 10**9:,} GB and {out.parent} has "
            f"{free // 10**9:,} GB free; choose a smaller --count, or name a file on another disk with --out"
        )


class _progress:
    """A bar on a terminal; elsewhere a line now and then."""

    def __init__(self, label: str, total: int) -> None:
        self.label, self.total, self.done = label, total, 0
        self.begun = self.last_line = time.monotonic()
        self.bar: Progress | None = None
        self.task = TaskID(0)
        console = Console(stderr=True)
        if console.is_terminal:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f}%"),
                TimeRemainingColumn(),
                console=console,
                transient=True,
            )
            self.task = self.bar.add_task(label, total=total)

    def __enter__(self) -> _progress:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def __call__(self, rows: int) -> None:
        self.done += rows
        now = time.monotonic()
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done)
        elif now - self.last_line > PLAIN_LINE_SECONDS:
            self.last_line = now
            left = (now - self.begun) * (self.total - self.done) / self.done
            print(f"{self.label}: {self.done / self.total:.0%}, about {left:.0f} s left", file=sys.stderr, flush=True)


def recurrence_sentence(source: Source, recurrence: Recurrence | None) -> str:
    """What an evaluation on other prompts of the generator would meet again."""
    if recurrence is None:
        other = "held-out" if source.part == "train" else "train"
        return f"No question of them belongs to the part {other!r}, which is the rest at --share {source.share}, below this or any seed."
    if recurrence.share == 0:
        return f"None of {BLOCK:,} fresh questions occurs among them."
    return (
        f"{recurrence.share:.1%} of {BLOCK:,} fresh questions occur among them, so that another seed is no held-out set; "
        "--part train and --part held-out share no question."
    )
