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
import time
from collections.abc import Callable, Mapping
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
from lab.files import disk_sentence, require_writable, write
from lab.labels import Measured

logger = logging.getLogger("lab")


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """The versions that a number was measured with, in full."""
    return {"python": platform.python_version()} | {name: version(name) for name in ("numpy", "scipy", "torch")}


def minor_versions() -> dict[str, str]:
    """The versions a number may depend on: repairs of a release do not count."""
    return {name: ".".join(version.split(".")[:2]) for name, version in versions().items()}


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
    versions: Mapping[str, str] = field(default_factory=lambda: minor_versions())

    @cached_property
    def common(self) -> dict[str, Any]:
        """What all calls of the measurement share of their identities."""
        return {
            "measurement": self.measurement,
            "config": dict(self.config),
            "device": self.device.split(":")[0],
            "source": self.source,
            "versions": dict(self.versions),
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
    first, last = seeds[0], seeds[-1]
    if len(seeds) > 1 and last - first == len(seeds) - 1 and seeds == tuple(range(first, last + 1)):
        return f"{first}-{last}"
    text = "+".join(map(str, seeds))
    return text if len(text) < 80 else hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Stored:
    """A result that was found.

    Attributes:
        data: the numbers.
        calls: for every call behind them its seeds or case, machine, versions in full, seconds and time of finishing.
    """

    data: Measured
    calls: tuple[Mapping[str, Any], ...]


class Store:
    """The results folder.

    Args:
        root: the folder; made when the first result is written.
        shipped: where a result is looked for that is not in the folder; nowhere if left out.
    """

    def __init__(self, root: Path, shipped: Callable[[Job], Stored | None] | None = None) -> None:
        self.root = root
        self.shipped = shipped

    def load(self, job: Job) -> Measured | None:
        """The numbers of ``job``, or None if there are none that can be trusted (which is then said)."""
        stored = self.find(job)
        return None if stored is None else stored.data

    def find(self, job: Job) -> Stored | None:
        """The result of ``job`` with its provenance, from the folder or from what was shipped."""
        stored = self._in_folder(job)
        return self.shipped(job) if stored is None and self.shipped is not None else stored

    def _in_folder(self, job: Job) -> Stored | None:
        path = self.root / job.path
        try:
            if not path.exists():
                return None
        except OSError as error:
            raise LabError(
                f"results cannot be read from {path.parent}: {(error.strerror or str(error)).lower()}; ask its owner for the right, "
                "or name another folder with --results"
            ) from error
        try:
            data, manifest = read(path)
            if manifest["identity"] != job.identity:
                raise Unusable("it belongs to another run")
            if manifest["digest"] != digest(data):
                raise Unusable(CHANGED)
            call: dict[str, Any] = {"case": job.case} if job.case else {"seeds": list(job.seeds)}
            call |= {name: manifest[name] for name in ("machine", "versions", "seconds", "finished")}
        except (Unusable, KeyError) as error:
            reason = error if isinstance(error, Unusable) else DAMAGED
            logger.warning("%s cannot be used (%s) and is measured again", path, reason)
            return None
        return Stored(data, (call,))

    def save(self, job: Job, data: Measured, seconds: float, measured_by: Mapping[str, Any]) -> None:
        """Write a result in one step: it is there whole or not at all.

        ``measured_by`` is the ``provenance`` of the process that measured it.
        """
        manifest = {
            "identity": job.identity,
            "digest": digest(data),
            "seconds": round(seconds, 3),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "file": job.file.name,
            **measured_by,
        }
        try:
            write(self.root / job.path, content(data, manifest))
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
            require_writable(folder)
        except OSError as error:
            raise LabError(disk_sentence(self.root, error)) from error
        return filelock.FileLock(folder / ".lock", timeout=0)


class Unusable(Exception):
    """Why a file cannot be trusted, in words that follow "cannot be used"."""


DAMAGED = "it is cut short or not a result file"
CHANGED = "its numbers were changed after they were measured"


def content(data: Measured, manifest: Mapping[str, Any]) -> bytes:
    """A result file: arrays, and a manifest with what is known about them."""
    arrays = {name: np.ascontiguousarray(value) for name, value in data.items()}
    return safetensors.numpy.save(arrays, {"manifest": json.dumps({**manifest, **_shape(data)})})


def read(path: Path) -> tuple[Measured, dict[str, Any]]:
    """Numbers and manifest of a result file.

    Raises:
        Unusable: it cannot be read. Whether its digest and identity are right is for the caller to ask.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            manifest = json.loads((file.metadata() or {})["manifest"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}
        if not isinstance(manifest, dict):
            raise Unusable(DAMAGED)
        return _with_shape(arrays, manifest), manifest
    except (safetensors.SafetensorError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise Unusable(DAMAGED) from error
    except OSError as error:
        raise Unusable(str(error)) from error


def _shape(data: Measured) -> dict[str, Any]:
    """The names of axes and the labels of a result, as its manifest holds them; nothing for plain arrays."""
    if data.axes is None:
        return {}
    return {
        "axes": {name: list(axes) for name, axes in data.axes.items()},
        "labels": {axis: list(labels) for axis, labels in data.labels.items()},
    }


def _with_shape(arrays: Mapping[str, np.ndarray], manifest: Mapping[str, Any]) -> Measured:
    """Arrays read from a file, with the axes and labels of its manifest."""
    if "axes" not in manifest:
        return Measured(arrays)
    axes = {name: tuple(array_axes) for name, array_axes in manifest["axes"].items()}
    return Measured({name: arrays[name] for name in axes}, axes, {a: tuple(b) for a, b in manifest["labels"].items()})


def digest(data: Measured, about: Any = None) -> str:
    """SHA-256 of arrays with their names, types, shapes, axes and labels, and of plain facts ``about`` them."""
    total = hashlib.sha256()
    for name in sorted(data):
        value = np.ascontiguousarray(data[name])
        total.update(f"{name}|{value.dtype.str}|{value.shape}|".encode())
        total.update(value.tobytes())
    if data.axes is not None:
        total.update(json.dumps(_shape(data), sort_keys=True).encode())
    if about is not None:
        total.update(json.dumps(about, sort_keys=True).encode())
    return total.hexdigest()


def provenance() -> dict[str, Any]:
    """The versions and the kind of machine of this process."""
    return {"versions": versions(), "machine": machine()}


@lru_cache(maxsize=1)
def machine() -> str:
    """The kind of machine, without its name."""
    return f"{platform.system()} {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
