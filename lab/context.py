"""What a running measurement may ask of its surroundings: the device, places for unfinished and finished networks,
a progress line.

None of it changes a result for a given device, so none of it is an argument of a measurement.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from lab.errors import LabError
from lab.files import NotWritten, write

log = logging.getLogger("lab")


@dataclass(frozen=True)
class JobContext:
    """Surroundings of one job.

    Args:
        device: compute device.
        scratch: folder for unfinished work; None keeps none.
        networks: folder for trained networks, beside the measurement; None keeps none.
        listener: told the share of the job that is done.
    """

    device: str = "cpu"
    scratch: Path | None = None
    networks: Path | None = None
    listener: Callable[[float], None] | None = None


_OUTSIDE = JobContext()
_current: ContextVar[JobContext] = ContextVar("job", default=_OUTSIDE)
_names: ContextVar[set[str] | None] = ContextVar("names", default=None)  # of the trainings of the job so far


@contextmanager
def job(context: JobContext) -> Iterator[None]:
    """Make ``context`` the surroundings of the code inside."""
    token, names = _current.set(context), _names.set(set())
    try:
        yield
    finally:
        _names.reset(names)
        _current.reset(token)


def device() -> torch.device:
    """Where tensors of the running measurement belong."""
    return torch.device(_current.get().device)


@contextmanager
def training(name: str) -> Iterator[Path | None]:
    """The training ``name`` of this job: gives the file of its unfinished work; None where nothing is kept.

    Raises:
        LabError: a name that is no file name, or that another training of this job has: each would overwrite the
            other's checkpoint and networks.
    """
    if not name or "/" in name or name.startswith("."):
        raise LabError(f"name = {name!r} of a training must serve as a file name; leave out '/' and a leading dot.")
    names = _names.get()
    if names is not None and name in names:
        raise LabError(
            f"Two trainings of one measurement are called {name!r}, so that one would overwrite what is kept of the "
            "other; give each its own name=."
        )
    if names is not None:
        names.add(name)
    scratch = _current.get().scratch
    try:
        yield None if scratch is None else scratch / f"{name}.safetensors"
    except BaseException:
        if names is not None:
            names.discard(name)  # it may be taken up again
        raise


def keep(name: str, weights: Mapping[str, Tensor], header: Mapping[str, object]) -> None:
    """Write trained networks beside the measurement, in one step; a disk that refuses costs this copy, no more."""
    folder = _current.get().networks
    if folder is None:
        return
    # Clones, because safetensors refuses tensors that share memory.
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in weights.items()}
    path = folder / f"{name}.safetensors"
    try:
        write(path, safetensors.torch.save(tensors, {"lab": json.dumps(header)}))
    except NotWritten as error:
        log.warning(
            "The networks %s could not be written (%s); the measurement goes on without them.", path, error.reason
        )


def report(done: float) -> None:
    """Tell whoever watches that a share ``done`` (0 to 1) of the job is finished."""
    listener = _current.get().listener
    if listener is not None:
        listener(done)
