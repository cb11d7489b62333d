"""What a running measurement may ask of its surroundings: the device, a place for checkpoints, a progress line.

None of it changes a result for a given device, so none of it is an argument of a measurement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class JobContext:
    """Surroundings of one job: compute device, folder for unfinished work (or None), progress listener."""

    device: str = "cpu"
    scratch: Path | None = None
    listener: Callable[[float], None] | None = None


_OUTSIDE = JobContext()
_current: ContextVar[JobContext] = ContextVar("job", default=_OUTSIDE)


@contextmanager
def job(context: JobContext) -> Iterator[None]:
    """Make ``context`` the surroundings of the code inside."""
    token = _current.set(context)
    try:
        yield
    finally:
        _current.reset(token)


def device() -> torch.device:
    """Where tensors of the running measurement belong."""
    return torch.device(_current.get().device)


def checkpoint(name: str) -> Path | None:
    """Where unfinished work called ``name`` of this job is kept; None outside a job (nothing is kept)."""
    scratch = _current.get().scratch
    return None if scratch is None else scratch / f"{name}.safetensors"


def report(done: float) -> None:
    """Tell whoever watches that a share ``done`` (0 to 1) of the job is finished."""
    listener = _current.get().listener
    if listener is not None:
        listener(done)
