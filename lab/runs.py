"""Measurements as files: identity, integrity and provenance of every run.

A job is one call of a measurement: (task file, measurement, configuration, seeds or case, device). Its result is one
safetensors file whose name holds the key (a hash of configuration, source and versions) and whose header holds
the provenance in plain JSON, with a digest of the arrays. A file that is cut short, edited or of another key is
reported and measured again, never used; nothing on disk can execute code.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import shutil
import tempfile
import time
from collections.abc import Mapping
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

from lab.errors import LabError
from lab.files import disk_sentence, write
from lab.labels import Measured

logger = logging.getLogger("lab")


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """The versions that a number was measured with, in full."""
    return {"python": platform.python_version()} | {name: version(name) for name in ("numpy", "scipy", "torch")}


def minor_versions() -> dict[str, str]:
    """The versions a number may depend on: repairs of a release do not count."""
    return {name: ".".join(found.split(".")[:2]) for name, found in versions().items()}


@dataclass(frozen=True)
class Job:
    """One call of a measurement, in plain data that any worker can carry out: for some seeds, or for one case."""

    file: Path
    task: str
    measurement: str
    config: Mapping[str, Any]
    seeds: tuple[int, ...]
    device: str
    source: str
    case: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def common(self) -> dict[str, Any]:
        """What all calls of the measurement share of their identities."""
        return {
            "measurement": self.measurement,
            "config": dict(self.config),
            "device": self.device.split(":")[0],
            "source": self.source,
            "versions": minor_versions(),
        }

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What the result depends on; equal identities mean equal results on one kind of machine."""
        return self.common | ({"settings": dict(self.settings)} if self.case else {"seeds": list(self.seeds)})

    @cached_property
    def key(self) -> str:
        """Sixteen hex digits of the identity without the seeds, which stand in the file's name."""
        identity = {name: value for name, value in self.identity.items() if name != "seeds"}
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def place(self) -> str:
        """What it stands for along the first axis: "seed 3", "seeds 0-3", "case deep"."""
        if self.case:
            return f"case {self.case}"
        return f"seed{'s' if len(self.seeds) > 1 else ''} {_seeds_text(self.seeds)}"

    @property
    def label(self) -> str:
        return f"{self.task} {self.measurement} {self.place}"

    @cached_property
    def path(self) -> Path:
        """Where the result lies, below the results folder."""
        name = f"case-{self.case}" if self.case else f"seeds-{_seeds_text(self.seeds)}"
        return Path(self.task, self.measurement, self.key, f"{name}.safetensors")


def _seeds_text(seeds: tuple[int, ...]) -> str:
    if len(seeds) > 1 and seeds == tuple(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}-{seeds[-1]}"
    text = "+".join(map(str, seeds))
    return text if len(text) < 80 else hashlib.sha256(text.encode()).hexdigest()[:16]


class Store:
    """The results folder.

    Args:
        root: the folder; made when the first result is written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def load(self, job: Job) -> Measured | None:
        """The stored result of ``job``, or None if there is none that can be trusted (which is then said)."""
        path = self.root / job.path
        if not path.exists():
            return None
        try:
            with safetensors.safe_open(path, framework="numpy") as file:
                manifest = json.loads((file.metadata() or {})["manifest"])
                arrays = {name: file.get_tensor(name) for name in file.keys()}
            data = from_manifest(arrays, manifest)
            if manifest["identity"] != job.identity:
                raise ValueError("it belongs to another run")
            if manifest["digest"] != digest(data):
                raise ValueError("its numbers were changed after they were measured")
        except (safetensors.SafetensorError, ValueError, KeyError, OSError) as error:
            logger.warning("%s cannot be used (%s) and is measured again", path, _reason(error))
            return None
        return data

    def save(self, job: Job, data: Measured, seconds: float) -> None:
        """Write a result in one step: it is there whole or not at all."""
        arrays = {name: np.ascontiguousarray(value) for name, value in data.items()}
        manifest = {
            "identity": job.identity,
            **shape(data),
            "digest": digest(data),
            "versions": versions(),
            "seconds": round(seconds, 3),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "machine": machine(),
            "file": job.file.name,
        }
        content = safetensors.numpy.save(arrays, metadata={"manifest": json.dumps(manifest)})
        try:
            write(self.root / job.path, content)
        except OSError as error:
            raise LabError(disk_sentence(self.root, error)) from error

    def scratch(self, job: Job) -> Path:
        """Where unfinished work of ``job`` lies."""
        return (self.root / job.path).with_suffix(".unfinished")

    def networks(self, job: Job) -> Path:
        """Where the networks that ``job`` trained lie; they are no part of its result."""
        return (self.root / job.path).with_suffix(".networks")

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
            raise LabError(disk_sentence(self.root, error)) from error
        return filelock.FileLock(folder / ".lock", timeout=0)


def shape(data: Measured) -> dict[str, Any]:
    """The names of axes and the labels of a result, as its manifest holds them; nothing for plain arrays."""
    if data.axes is None:
        return {}
    return {
        "axes": {name: list(axes) for name, axes in data.axes.items()},
        "labels": {axis: list(labels) for axis, labels in data.labels.items()},
    }


def from_manifest(arrays: Mapping[str, np.ndarray], manifest: Mapping[str, Any]) -> Measured:
    """Arrays read from a file, with the axes and labels of its manifest."""
    if "axes" not in manifest:
        return Measured(arrays)
    axes = {name: tuple(found) for name, found in manifest["axes"].items()}
    return Measured({name: arrays[name] for name in axes}, axes, {a: tuple(b) for a, b in manifest["labels"].items()})


def digest(data: Measured) -> str:
    """SHA-256 of arrays with their names, types, shapes, axes and labels."""
    total = hashlib.sha256()
    for name in sorted(data):
        value = np.ascontiguousarray(data[name])
        total.update(f"{name}|{value.dtype.str}|{value.shape}|".encode())
        total.update(value.tobytes())
    if data.axes is not None:
        total.update(json.dumps(shape(data), sort_keys=True).encode())
    return total.hexdigest()


@lru_cache(maxsize=1)
def machine() -> str:
    """The kind of machine, without its name."""
    return f"{platform.system()} {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"


def _reason(error: Exception) -> str:
    if isinstance(error, safetensors.SafetensorError | json.JSONDecodeError | KeyError):
        return "it is cut short or not a result file"
    return str(error)
