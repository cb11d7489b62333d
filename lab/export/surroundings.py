"""What stands in an exported script for the surroundings of a job: the processor, and no files.

The functions of `lab.context` and `lab.unfinished` that measured code calls, under their names. None of them changes a number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


def device() -> torch.device:
    """Where tensors belong."""
    return torch.device("cpu")


@contextmanager
def training(name: str) -> Iterator[None]:
    """The training ``name``, of which nothing is kept."""
    yield None


def keep(name: str, weights: Mapping[str, Tensor], header: Mapping[str, object]) -> None:
    """Where the lab keeps trained networks, nothing is kept here."""


def report(done: float) -> None:
    """Where the lab shows the share that is done, nothing is shown here."""


def digest(tensors: Mapping[str, Tensor], facts: str) -> str:
    """The lab tells unfinished trainings apart by this; here there are none."""
    return ""


def read(path: Any, identity: str) -> None:
    """No unfinished training is found."""


write: Callable[..., None] = print  # never called: there is no file of unfinished work
