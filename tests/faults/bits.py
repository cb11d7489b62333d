"""One task measured in other places: in threads, in processes, on a cluster, under other seeds of Python's hashes.

Every place must give the bits that one process gives.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from lab.catalogue import load
from lab.execution import Session, execute
from lab.files import PROJECT
from lab.results import Results, ensure
from lab.runs import Job
from tests.faults.counts import Counts, Tally
from tests.faults.kills import Numbers, numbers

TASK = Path(__file__).with_name("trainer.py")
THREADS = 3
Measure = Callable[[Path, Path], Numbers]


def bits(trials: int, seed: int, places: Mapping[str, Measure] | None = None, task: Path = TASK) -> Counts:
    """Measure ``task`` in every place, and under so many seeds of hashes that there are ``trials`` measurements in all."""
    tally = Tally("bits")
    chosen = dict(PLACES if places is None else places)
    rng = Random(seed)
    for _ in range(trials - len(chosen)):
        number = rng.randrange(1, 2**32)
        chosen[f"hash seed {number}"] = with_hash_seed(number)
    with TemporaryDirectory() as folder, redirect_stderr(StringIO()):
        alone = in_one_process(task, Path(folder, "alone"))
        for place, measure in chosen.items():
            measured = measure(task, Path(folder, place.replace(" ", "-")))
            tally.ended(place if place in PLACES else "hash seeds")
            if alone.keys() - measured.keys():
                tally.failed("lost results", f"{place}: {sorted(alone.keys() - measured.keys())[0]}")
            for name in alone.keys() & measured.keys():
                if measured[name] != alone[name]:
                    tally.failed("wrong numbers", f"{place}: {name} differs from what one process gives")
    return tally.counts


def _jobs(task: Path, session: Session) -> list[Job]:
    loaded = load(task)
    return Results(loaded, loaded.config("ci"), session).jobs(list(loaded.measurements.values()))


def _in(session: Session, task: Path) -> Numbers:
    ensure(_jobs(task, session), session)
    return numbers(session.results)


def in_one_process(task: Path, folder: Path) -> Numbers:
    return _in(Session(folder, quiet=True, evidence=None), task)


def in_processes(task: Path, folder: Path) -> Numbers:
    return _in(Session(folder, workers=2, quiet=True, evidence=None), task)


def on_a_cluster(task: Path, folder: Path) -> Numbers:
    return _in(Session(folder, workers=2, cluster="local", quiet=True, evidence=None), task)


def in_threads(task: Path, folder: Path) -> Numbers:
    """Several jobs at a time in threads of this process, as a worker of a cluster may run them."""
    session = Session(folder, quiet=True, evidence=None)
    jobs = _jobs(task, session)
    with ThreadPoolExecutor(THREADS) as pool:
        for job, (data, where) in zip(jobs, pool.map(lambda job: execute(job, None, None, None), jobs), strict=True):
            session.store.save(job, data, 0.0, where)
    return numbers(folder)


def with_hash_seed(number: int) -> Measure:
    def measure(task: Path, folder: Path) -> Numbers:
        command = [sys.executable, "-m", "lab", "run", str(task), "--workers", "1", "--results", str(folder)]
        subprocess.run(command, cwd=PROJECT, env=os.environ | {"PYTHONHASHSEED": str(number)}, capture_output=True)
        return numbers(folder)

    return measure


PLACES: dict[str, Measure] = {"threads": in_threads, "processes": in_processes}
if importlib.util.find_spec("distributed") is not None:
    PLACES["cluster"] = on_a_cluster
