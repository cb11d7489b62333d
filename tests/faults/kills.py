"""Runs that are ended at random moments: nothing that was finished is lost, and the numbers are those of an undisturbed run.

A chain begins one command again and again, each time with another number of workers, and ends it, until one is left to finish.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import numpy as np
import psutil
import safetensors.numpy

from tests.faults.answers import TRACEBACK
from tests.faults.counts import Counts, Kind, Tally
from tests.faults.imported import Imported, Running, Started, end

HERE = Path(__file__).parent
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
# A chain is let finish after so many kills at the latest.
LONGEST_CHAIN = 6
SECONDS_TO_END = 30.0
# Workers look once in a while whether the process that hands out work is there.
SECONDS_OF_WORKERS = 10.0

Begin = Callable[[Path, int, Path], Running]
Numbers = Mapping[str, Mapping[str, bytes]]


@dataclass(frozen=True)
class Way:
    """One way to begin a run.

    Attributes:
        name: what is run, and how.
        begin: from the results folder, the number of workers and the file for what it prints, the running command.
        workers: the numbers of workers to draw from.
        seconds: how long a run takes, about.
    """

    name: str
    begin: Begin
    workers: tuple[int, ...]
    seconds: float


def ways(imported: Imported) -> tuple[Way, ...]:
    """The ways of the campaign; those that begin where everything is imported already are soon at the measurements."""

    def line(task: str, results: Path, workers: int) -> list[str]:
        return ["run", str(HERE / f"{task}.py"), "--workers", str(workers), "--results", str(results)]

    def from_nothing(results: Path, workers: int, log: Path) -> Running:
        return Started([sys.executable, "-m", "lab", *line("sleeper", results, workers)], log)

    def quick(results: Path, workers: int, log: Path) -> Running:
        return imported.begin(line("sleeper", results, workers), log)

    def training(results: Path, workers: int, log: Path) -> Running:
        return imported.begin(line("trainer", results, workers), log)

    return (
        Way("trainer", training, (1,), 2.0),
        Way("sleeper", quick, (1,), 1.5),
        Way("sleeper with workers", quick, (1, 2, 2), 8.0),
        Way("sleeper from nothing", from_nothing, (1, 2), 12.0),
    )


def kills(trials: int, seed: int) -> Counts:
    """End ``trials`` runs at moments drawn from ``seed``."""
    with Imported() as imported:
        return campaign(trials, seed, ways(imported.also("lab.training", "torch._dynamo")))


def campaign(trials: int, seed: int, choices: tuple[Way, ...]) -> Counts:
    """End ``trials`` runs, begun in the ways given."""
    tally = Tally("kills")
    rng = Random(seed)
    references: dict[str, Numbers] = {}
    with TemporaryDirectory() as folder:
        chain = 0
        while tally.trials < trials:
            chain += 1
            way = rng.choice(choices)
            place = Path(folder, f"chain-{chain}")
            place.mkdir()
            if way.name not in references:
                running = way.begin(place / "whole", way.workers[0], place / "whole.log")
                running.wait(10 * SECONDS_TO_END)
                references[way.name] = numbers(place / "whole")
            _chain(way, min(rng.randint(1, LONGEST_CHAIN), trials - tally.trials), place, rng, tally, seed)
            _compare(way, place, references[way.name], tally, f"seed {seed}, chain {chain} ({way.name})")
    return tally.counts


def numbers(folder: Path) -> Numbers:
    """The arrays of every result below ``folder``, as bytes by name."""
    numbers: dict[str, Mapping[str, bytes]] = {}
    for file in _results(folder):
        arrays = safetensors.numpy.load_file(file)
        numbers[str(file.relative_to(folder))] = {
            name: f"{value.dtype} {value.shape} ".encode() + np.ascontiguousarray(value).tobytes()
            for name, value in arrays.items()
        }
    return numbers


def _results(folder: Path) -> list[Path]:
    """Finished results: no networks, no unfinished work."""
    names = [file for file in sorted(folder.rglob("*.safetensors")) if file.name[0] != "."]
    return [file for file in names if not file.parent.suffix]


def _times(folder: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in _results(folder)}


def _chain(way: Way, length: int, place: Path, rng: Random, tally: Tally, seed: int) -> None:
    """Begin and end a run ``length`` times, or until it has nothing left to do."""
    results = place / "results"
    for number in range(length):
        workers = rng.choice(way.workers)
        stop, group, twice = rng.choice(SIGNALS), rng.random() < 0.5, rng.random() < 0.2
        about = f"seed {seed}, {place.name}, run {number} ({way.name}, {workers} workers): {stop.name}"
        log = place / f"{number}.log"
        running = way.begin(results, workers, log)
        _let_run(running, results, rng, way.seconds)
        kept = _times(results)
        if not _send(running, stop, group):
            tally.outcomes["finished before it"] += 1
            _note_survivors(running, tally, about)
            _note_words(log, tally, about)
            return
        if twice:
            time.sleep(rng.uniform(0, 0.3))
            _send(running, stop, group)
        status = running.wait(SECONDS_TO_END)
        tally.ended(stop.name)
        if status is None:
            tally.failed("hangs", about)
        _note_survivors(running, tally, about)
        _note_words(log, tally, about)
        now = _times(results)
        if any(now.get(file) != when for file, when in kept.items()):
            tally.failed("lost results", about)


def _let_run(running: Running, results: Path, rng: Random, seconds: float) -> None:
    """Wait for a random moment: of the whole run, or of the time after something was begun to be measured."""
    begun = time.monotonic()
    ends = begun + rng.uniform(0, seconds)
    if rng.random() < 0.6:
        before = _entries(results)
        while _entries(results) <= before + 2 and time.monotonic() < begun + 5 * seconds:
            if running.wait(0.02) is not None:
                return
        ends = time.monotonic() + rng.uniform(0, 1.2)
    running.wait(max(0.0, ends - time.monotonic()))


def _entries(folder: Path) -> int:
    """Files and folders below ``folder``, some of which may go while they are counted."""
    return sum(len(folders) + len(files) for _, folders, files in os.walk(folder))


def _send(running: Running, stop: signal.Signals, group: bool) -> bool:
    """Send a signal to the command, or to its whole session as a terminal does; False where it has ended."""
    try:
        (os.killpg if group else os.kill)(running.pid, stop)
    except ProcessLookupError:
        return False
    return True


def _note_survivors(running: Running, tally: Tally, about: str) -> None:
    """Note processes of the command's session that do not end soon after it, and end them."""
    last = time.monotonic() + SECONDS_OF_WORKERS
    while (alive := of_session(running.pid)) and time.monotonic() < last:
        time.sleep(0.05)
    if alive:
        tally.failed("survivors", f"{about}: {len(alive)} processes")
        end(running)


def of_session(leader: int) -> list[int]:
    """The processes of a session that run."""
    processes = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                processes.append(process.pid)
        except (ProcessLookupError, PermissionError, psutil.Error):
            continue
    return processes


def _note_words(log: Path, tally: Tally, about: str) -> None:
    words = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    if TRACEBACK in words:
        tally.failed("tracebacks", f"{about}: {words.strip().splitlines()[-1][:200]}")


def _compare(way: Way, place: Path, undisturbed: Numbers, tally: Tally, about: str) -> None:
    """Let the run finish, and compare it with one that nobody disturbed."""
    results, log = place / "results", place / "last.log"
    times = _times(results)
    running = way.begin(results, way.workers[0], log)
    status = running.wait(10 * SECONDS_TO_END)
    _note_words(log, tally, about)
    measured = numbers(results)
    kinds: list[tuple[Kind, bool]] = [
        ("hangs", status is None),
        ("unclear answers", status not in (0, None)),
        ("lost results", any(_times(results).get(file) != when for file, when in times.items())),
        ("lost results", not undisturbed.keys() <= measured.keys()),
        ("wrong numbers", any(measured[name] != undisturbed.get(name) for name in measured)),
    ]
    for kind, occurred in kinds:
        if occurred:
            tally.failed(kind, f"{about}: the run after it")
    if status is None:
        end(running)
