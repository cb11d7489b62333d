"""Measurements as files: identity, integrity and provenance of every run.

A job is one call of a measurement: (task file, measurement, configuration, seeds, device). Its result is one
safetensors file whose name holds the key (a hash of configuration, source and versions) and whose header holds
the provenance in plain JSON, with a digest of the arrays. A file that is cut short, edited or of another key is
reported and measured again, never used; nothing on disk can execute code.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import logging
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import safetensors
import safetensors.numpy
import torch

from lab import context
from lab.errors import LabError
from lab.tasks import PROJECT, Measurement, Task, config_from_dict, load

logger = logging.getLogger("lab")


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """The versions a number may depend on."""
    return {"python": platform.python_version()} | {name: version(name) for name in ("numpy", "scipy", "torch")}


@dataclass(frozen=True)
class Job:
    """One call of a measurement, in plain data that any worker can carry out."""

    file: Path
    task: str
    measurement: str
    config: Mapping[str, Any]
    seeds: tuple[int, ...]
    device: str
    source: str

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What the result depends on; equal identities mean equal results on one kind of machine."""
        return {
            "measurement": self.measurement,
            "config": dict(self.config),
            "seeds": list(self.seeds),
            "device": self.device.split(":")[0],
            "source": self.source,
            "versions": versions(),
        }

    @cached_property
    def key(self) -> str:
        """Sixteen hex digits of the identity without the seeds, which stand in the file's name."""
        identity = {name: value for name, value in self.identity.items() if name != "seeds"}
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def label(self) -> str:
        seeds = _seeds_text(self.seeds)
        return f"{self.task} {self.measurement} seed{'s' if len(self.seeds) > 1 else ''} {seeds}"

    @cached_property
    def path(self) -> Path:
        """Where the result lies, below the results folder."""
        return Path(self.task, self.measurement, self.key, f"seeds-{_seeds_text(self.seeds)}.safetensors")


def _seeds_text(seeds: tuple[int, ...]) -> str:
    if len(seeds) > 1 and seeds == tuple(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}-{seeds[-1]}"
    text = "+".join(map(str, seeds))
    return text if len(text) < 80 else hashlib.sha256(text.encode()).hexdigest()[:16]


def plain(config: Any) -> dict[str, Any]:
    """A configuration as JSON would give it back."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def execute(job: Job, scratch: Path | None, listener: Callable[[float], None] | None) -> dict[str, np.ndarray]:
    """Carry out ``job`` in this process, with one thread (thread count changes the last digits)."""
    torch.set_num_threads(1)
    task = load(job.file)
    config = config_from_dict(task.config_type, job.config)
    with context.job(context.JobContext(job.device, scratch, listener)):
        return task.measurements[job.measurement].measure(config, job.seeds)


class Store:
    """The results folder.

    Args:
        root: the folder; made when the first result is written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def load(self, job: Job) -> dict[str, np.ndarray] | None:
        """The stored result of ``job``, or None if there is none that can be trusted (which is then said)."""
        path = self.root / job.path
        if not path.exists():
            return None
        try:
            with safetensors.safe_open(path, framework="numpy") as file:
                manifest = json.loads((file.metadata() or {})["manifest"])
                data = {name: file.get_tensor(name) for name in file.keys()}
            if manifest["identity"] != job.identity:
                raise ValueError("it belongs to another run")
            if manifest["digest"] != digest(data):
                raise ValueError("its numbers were changed after they were measured")
        except (safetensors.SafetensorError, ValueError, KeyError, OSError) as error:
            logger.warning("%s cannot be used (%s) and is measured again", path, _reason(error))
            return None
        return data

    def save(self, job: Job, data: Mapping[str, np.ndarray], seconds: float) -> None:
        """Write a result in one step: it is there whole or not at all."""
        arrays = {name: np.ascontiguousarray(value) for name, value in data.items()}
        manifest = {
            "identity": job.identity,
            "digest": digest(arrays),
            "seconds": round(seconds, 3),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "machine": machine(),
            "file": job.file.name,
        }
        content = safetensors.numpy.save(arrays, metadata={"manifest": json.dumps(manifest)})
        try:
            write(self.root / job.path, content)
        except OSError as error:
            raise LabError(_disk_sentence(self.root, error)) from error

    def scratch(self, job: Job) -> Path:
        """Where unfinished work of ``job`` lies."""
        return (self.root / job.path).with_suffix(".unfinished")

    def discard_scratch(self, job: Job) -> None:
        """Forget the unfinished work of a finished job."""
        if self.scratch(job).exists():
            shutil.rmtree(self.scratch(job), ignore_errors=True)

    def lock(self, task: str) -> filelock.FileLock:
        """Held by the one process that measures ``task`` into this folder."""
        folder = self.root / task
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise LabError(_disk_sentence(self.root, error)) from error
        return filelock.FileLock(folder / ".lock", timeout=0)


def write(path: Path, content: bytes) -> None:
    """Write ``path`` in one step: under a temporary name first, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def digest(data: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of arrays with their names, types and shapes."""
    total = hashlib.sha256()
    for name in sorted(data):
        value = np.ascontiguousarray(data[name])
        total.update(f"{name}|{value.dtype.str}|{value.shape}|".encode())
        total.update(value.tobytes())
    return total.hexdigest()


@lru_cache(maxsize=1)
def machine() -> str:
    """The kind of machine, without its name."""
    return f"{platform.system()} {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"


def _reason(error: Exception) -> str:
    if isinstance(error, safetensors.SafetensorError | json.JSONDecodeError | KeyError):
        return "it is cut short or not a result file"
    return str(error)


def _disk_sentence(root: Path, error: OSError) -> str:
    reason = "the disk is full" if error.errno == errno.ENOSPC else (error.strerror or str(error)).lower()
    return (
        f"results cannot be written to {root}: {reason}; free some space or name another folder with --results, "
        "finished measurements are kept"
    )


@dataclass(frozen=True)
class Session:
    """How and where measurements are taken; nothing in it changes a result (but the device, which is in the key).

    Attributes:
        results: the results folder.
        device: compute device, ``cpu`` or ``cuda``.
        workers: processes on this machine; 1 measures in this process.
        cluster: ``local``, a scheduler's address, or a batch system (``slurm``, ``pbs`` …); empty for none.
        quiet: no progress lines.
    """

    results: Path = field(default_factory=lambda: Path(os.environ.get("LAB_RESULTS", PROJECT / "results")))
    device: str = "cpu"
    workers: int = 1
    cluster: str = ""
    quiet: bool = False

    @property
    def store(self) -> Store:
        return Store(self.results)


class Results:
    """The measurements of one task at one configuration, taken when first asked for.

    ``results[measurement]`` maps names to arrays whose first axis is the seed.
    """

    def __init__(self, task: Task, config: Any, session: Session, seeds: Sequence[int] | None = None) -> None:
        self.task = task
        self.config = config
        self.session = session
        self._seeds = None if seeds is None else tuple(seeds)
        self._loaded: dict[str, dict[str, np.ndarray]] = {}

    def __getitem__(self, measurement: Measurement) -> dict[str, np.ndarray]:
        if measurement.name not in self._loaded:
            jobs = self.jobs([measurement])
            if not jobs:
                raise LabError(
                    f"{self.task.key} measures {measurement.name} at 0 seeds, which shows nothing; "
                    "ask for at least 1 in its configuration or with --seeds"
                )
            parts = ensure(jobs, self.session)
            self._loaded[measurement.name] = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return self._loaded[measurement.name]

    def vary(self, **changes: Any) -> Results:
        """The same task with some fields of its configuration changed (for controls)."""
        return Results(self.task, dataclasses.replace(self.config, **changes), self.session, self._seeds)

    def seeds(self, measurement: Measurement) -> tuple[int, ...]:
        """The seeds that stand along the first axis of a measurement's arrays."""
        return self._seeds if self._seeds is not None else tuple(range(measurement.seeds(self.config)))

    def jobs(self, measurements: Sequence[Measurement]) -> list[Job]:
        """The calls that these measurements take."""
        config = plain(self.config)
        return [
            Job(
                self.task.file,
                self.task.key,
                measurement.name,
                config,
                chunk,
                self.session.device,
                measurement.fingerprint,
            )
            for measurement in measurements
            for chunk in measurement.chunks(self.seeds(measurement))
        ]


def ensure(jobs: Sequence[Job], session: Session) -> list[dict[str, np.ndarray]]:
    """The results of ``jobs``: stored ones where they can be trusted, the others measured now."""
    store = session.store
    found = {job.path: store.load(job) for job in jobs}
    missing = [job for job in jobs if found[job.path] is None]
    if missing:
        from lab.execution import run

        locks = [store.lock(name) for name in sorted({job.task for job in missing})]
        try:
            for lock in locks:
                lock.acquire()
        except filelock.Timeout:
            for lock in locks:
                lock.release()
            raise LabError(
                f"another process is measuring {missing[0].task} into {store.root}; wait for it, "
                "or name another folder with --results"
            ) from None
        try:
            run(missing, session, lambda job, data: found.__setitem__(job.path, data))
        finally:
            for lock in locks:
                lock.release()
    return [_present(found[job.path]) for job in jobs]


def _present(data: dict[str, np.ndarray] | None) -> dict[str, np.ndarray]:
    assert data is not None
    return data


def interrupted_sentence(done: int, total: int, root: Path) -> str:
    """What to say after Ctrl-C."""
    return (
        f"interrupted with {done} of {total} measurements finished and kept in {root}; "
        "the same command continues from there"
    )
