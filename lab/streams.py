"""Random streams, spawned by name from one root seed.

A stream is a path of names below a root seed, e.g. ``RandomStream(0, "data", 17, "inputs")``. Its generator is
Philox keyed by a hash of that path, so two different paths never share numbers, and a stream can be
re-opened anywhere (another arm, another worker, after a restart) without having drawn what came before it.
Data of training step ``t`` come from ``RandomStream(seed, "data", t)``: resuming needs no saved generator state.
Global random state is never used.
"""

from __future__ import annotations

import hashlib
import operator
from dataclasses import dataclass
from typing import Any, SupportsIndex

import numpy as np

from lab.errors import LabError, kind_of

Name = str | int


@dataclass(frozen=True)
class RandomStream:
    """A named source of random numbers.

    Args:
        seed: the root seed of the run.
        path: the names from the root to this stream; an integer of numpy or torch is the same name as the int.

    Raises:
        LabError: a seed that is no integer, or a name that is neither an integer nor text.
    """

    seed: int
    path: tuple[Name, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", _whole(self.seed))
        object.__setattr__(self, "path", tuple(_plain(name) for name in self.path))

    def child(self, *names: str | SupportsIndex) -> RandomStream:
        """The stream called ``names`` below this one; independent of it and of every other child."""
        return RandomStream(self.seed, self.path + tuple(_plain(name) for name in names))

    def rng(self) -> np.random.Generator:
        """A fresh generator at the beginning of this stream (calling twice repeats the same numbers)."""
        digest = hashlib.blake2b(repr((self.seed, *self.path)).encode(), digest_size=16).digest()
        return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def _plain(name: Any) -> Name:
    """A name as plain Python writes it: integers of numpy or torch are the same stream as the int, which ``repr`` hides."""
    if type(name) in (int, str, bool):
        return name
    if isinstance(name, str):
        return str.__str__(name)
    try:
        return int(operator.index(name))
    except TypeError as error:
        raise LabError(
            f"a random stream is named by {name!r}, which is {kind_of(name)}, and names are integers or text; "
            "name it by one of these"
        ) from error


def _whole(seed: Any) -> int:
    """A root seed as a Python integer; a truth value is none, as it would be another stream than its number."""
    if type(seed) is int:
        return seed
    try:
        if isinstance(seed, bool | np.bool_):
            raise TypeError
        return int(operator.index(seed))
    except TypeError as error:
        raise LabError(f"the seed of a random stream is {seed!r}, which is {kind_of(seed)}; give an integer") from error


def stream(seed: SupportsIndex, *names: str | SupportsIndex) -> RandomStream:
    """The stream ``names`` below the root ``seed``.

    >>> bool(stream(0, "data").rng().random() == stream(0, "data").rng().random())
    True
    >>> bool(stream(0, "data").rng().random() == stream(0, "weights").rng().random())
    False

    Raises:
        LabError: a seed that is no integer, or a name that is neither an integer nor text.
    """
    return RandomStream(_whole(seed), tuple(_plain(name) for name in names))
