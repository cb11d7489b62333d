"""When two prompts are the same question, and parts of a generator that share none.

Two prompts are the same question if everything before the answer agrees bit for bit: the tokens of the prefix where a
prompt has tokens (all of them where it names no prefix), every field otherwise. A question has a fingerprint of 64 bits,
whatever seed, chunk or batch it was drawn in. The fingerprint alone decides whether a prompt is held out, so training
prompts and held-out prompts share no question by construction, also below different seeds. What is left is chance on
the other side: two questions with one fingerprint (2^-64 a pair) count as one.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lab.errors import LabError
from lab.streams import stream

Part = Literal["all", "train", "held-out"]


def check_share(share: float) -> None:
    """Raise LabError unless ``share`` lies between 0 and 1."""
    if not 0 < share < 1:
        raise LabError(
            f"--share {share} must lie between 0 and 1; name the share of questions to hold out, such as 0.1"
        )


def question(prompts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The fields that make a prompt the question it is, with zeros from where the answer begins."""
    if "tokens" not in prompts:
        return dict(prompts)
    tokens = prompts["tokens"]
    if "prefix_length" not in prompts:
        return {"tokens": tokens}
    shown = torch.arange(tokens.shape[1]) < prompts["prefix_length"].unsqueeze(1)
    return {"tokens": torch.where(shown, tokens, 0), "prefix_length": prompts["prefix_length"]}


def fingerprints(prompts: Mapping[str, Tensor]) -> np.ndarray:
    """64 bits for the question of each prompt, an unsigned integer [batch].

    Every number is mixed with itself before a sum with random odd factors, so that two changes of sign do not cancel.
    """
    words = [_words(value) for _, value in sorted(question(prompts).items())]
    bits = words[0] if len(words) == 1 else np.concatenate(words, axis=1)
    mixed = bits ^ (bits >> np.uint64(32))
    # Without the constant a question of zeros would have the fingerprint 0.
    return _scrambled(mixed @ _factors(bits.shape[1]) + np.uint64(0x9E3779B97F4A7C15))


def belongs(prompts: Mapping[str, Tensor], part: Part, share: float) -> np.ndarray:
    """Which prompts belong to ``part``, a boolean [batch]; a question is held out with probability ``share``.

    >>> tokens = {"tokens": torch.arange(6).reshape(3, 2)}
    >>> bool((belongs(tokens, "train", 0.5) ^ belongs(tokens, "held-out", 0.5)).all())
    True
    """
    hashes = fingerprints(prompts)
    if part == "all":
        return np.ones(len(hashes), dtype=bool)
    held_out: np.ndarray = hashes / 2.0**64 < share
    return held_out if part == "held-out" else ~held_out


class Recurrence:
    """How many fresh questions occur among many others: what an evaluation on another seed would meet again.

    Args:
        fresh: fingerprints of the fresh questions; as many numbers are kept as these, however many prompts come by.
    """

    def __init__(self, fresh: np.ndarray) -> None:
        self._fresh = fresh
        self._seen: np.ndarray = np.zeros(len(fresh), dtype=bool)

    def see(self, prompts: Mapping[str, Tensor]) -> None:
        """Take note of what has been drawn."""
        self._seen |= np.isin(self._fresh, fingerprints(prompts))

    @property
    def share(self) -> float:
        """The share of the fresh questions that have come by."""
        return float(self._seen.mean())


def _words(value: Tensor) -> np.ndarray:
    """Every number as 64 bits, [batch, numbers]: floats as float64 (-0 is 0), others as int64."""
    flat = value.reshape(len(value), -1)
    if flat.is_floating_point():
        return (flat.double() + 0.0).numpy().view(np.uint64)
    return flat.long().numpy().view(np.uint64)


@lru_cache(maxsize=8)
def _factors(numbers: int) -> np.ndarray:
    drawn = stream(0, "fingerprint").rng().integers(0, 2**63, numbers, dtype=np.uint64)
    return 2 * drawn + np.uint64(1)


def _scrambled(sums: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64: every bit of the sum reaches every bit of the result."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        sums = (sums ^ (sums >> np.uint64(shift))) * np.uint64(factor)
    return sums ^ (sums >> np.uint64(31))
