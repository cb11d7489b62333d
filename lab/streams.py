"""Random streams, spawned by name from one root seed.

A stream is a path of names below a root seed, e.g. ``RandomStream(0, "data", 17, "inputs")``. Its generator is
Philox keyed by a hash of that path, so two different paths never share numbers, and a stream can be
re-opened anywhere (another arm, another worker, after a restart) without having drawn what came before it.
Data of training step ``t`` come from ``RandomStream(seed, "data", t)``: resuming needs no saved generator state.
Global random state is never used.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

Name = str | int


@dataclass(frozen=True)
class RandomStream:
    """A named source of random numbers.

    Args:
        seed: the root seed of the run.
        path: the names from the root to this stream.
    """

    seed: int
    path: tuple[Name, ...] = ()

    def child(self, *names: Name) -> RandomStream:
        """The stream called ``names`` below this one; independent of it and of every other child."""
        return RandomStream(self.seed, self.path + names)

    def rng(self) -> np.random.Generator:
        """A fresh generator at the beginning of this stream (calling twice repeats the same numbers)."""
        digest = hashlib.blake2b(repr((self.seed, *self.path)).encode(), digest_size=16).digest()
        return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def stream(seed: int, *names: Name) -> RandomStream:
    """The stream ``names`` below the root ``seed``.

    >>> bool(stream(0, "data").rng().random() == stream(0, "data").rng().random())
    True
    >>> bool(stream(0, "data").rng().random() == stream(0, "weights").rng().random())
    False
    """
    return RandomStream(seed, names)
