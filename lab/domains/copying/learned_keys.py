r"""Keys that are learned: what the best keys of K symbols make of a memory of D columns, and a memory to train.

A prompt shows n of K symbols, all different and each with a value of its own, and asks for every value again. One table gives
the keys that are written, another the queries that are asked, D numbers each. What a memory answers is $\sum_i A_{qi} v_i$, its
error $\sum_i (A_{qi} - \delta_{qi})^2$ averaged over the n questions.

- **Floor.** In every memory that writes $S = \sum_i v_i w_i^\top$, whatever the rule of the w_i, $A = Q W^\top$ has a rank of at most
  D. So $\|A - I\|_F^2 \ge n - D$, and the error is at least $\max(0, 1 - D / n)$.
- **A sum** writes $w_i = k_i$, so that A is a part of one matrix of K rows and columns and of rank D. With $w = \frac{n - 1}{K - 1}$
  its expected error is $\frac1K \sum_q [(1 - A_{qq})^2 + w \sum_{i \ne q} A_{qi}^2]$. By $\mathrm{tr} A \le \sqrt D \|A\|_F$ and
  $(\mathrm{tr} A)^2 \le K \sum_q A_{qq}^2$ it is at least $1 - \frac{1}{(1 - w) + w K / D}$ for all tables, or, with
  $e = \frac{(n - 1)(K - D)}{D (K - 1)}$,

$$ \frac{e}{1 + e}, $$

  attained where A is a multiple of a projection of rank D with equal diagonal entries (a tight frame of vectors of one length, which
  Welch's bound is about). For $K \to \infty$ e is $(n - 1) / D$, the error of random keys; dividing by $1 + e$ is the best scale.
- **Softmax attention** keeps the pairs, and no rank binds its A.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lab.contracts import generator
from lab.errors import LabError
from lab.models.mixers.interface import Mixer
from lab.streams import RandomStream


@dataclass(frozen=True)
class KeySets:
    """The symbols of each prompt, in the order in which they are shown; the same are asked.

    Args:
        chosen: which of the K symbols, from 0.
    """

    chosen: Int[Tensor, "batch pair"]


@generator(pairs=3, keys=5)
def key_sets(stream: RandomStream, batch: int, *, pairs: int, keys: int) -> KeySets:
    """n of K symbols, all different, in random order.

    Raises:
        LabError: no pairs, or fewer symbols than pairs.
    """
    _check(pairs, 1, keys)
    # One row of numbers a prompt, so that the first prompts do not depend on how many are drawn.
    return KeySets(torch.from_numpy(stream.rng().random((batch, keys)).argsort(1)[:, :pairs].copy()))


def least_sum_error(pairs: int, size: int, keys: int) -> float:
    r"""$e / (1 + e)$, $e = \frac{(n - 1)(K - D)}{D (K - 1)}$: the least error of a sum over all tables; 0 where K is at most D.

    >>> least_sum_error(5, 4, 9)
    0.38461538461538464
    """
    _check(pairs, size, keys)
    if keys <= size:
        return 0.0
    ratio = (pairs - 1) * (keys - size) / (size * (keys - 1))
    return ratio / (1 + ratio)


def sum_error_of(
    query: Float[np.ndarray, "*model key size"], key: Float[np.ndarray, "*model key size"], pairs: int
) -> Float[np.ndarray, "*model"]:
    """The expected error of a sum with these tables, over all sets of n symbols."""
    keys = key.shape[-2]
    _check(pairs, key.shape[-1], keys)
    answers = query @ key.swapaxes(-1, -2)
    signal = np.einsum("...qq->...q", answers)
    interference = (answers**2).sum(-1) - signal**2
    chance = (pairs - 1) / (keys - 1) if keys > 1 else 0.0
    errors = np.asarray(((1 - signal) ** 2 + chance * interference).mean(-1))
    return errors


class LearnedKeys(nn.Module):
    """Tables of keys and queries in front of a mixer, whose keys have unit length; one rate |r| of a model where the mixer takes one.

    The tables of model e come from ``RandomStream(seeds[e], ("weights", "key"))`` alone: normal keys, and queries equal to their
    directions, so that before training it is the memory of random keys.

    Args:
        mixer: what answers; queries, keys, values and perhaps a rate.
        seeds: one a model.
        keys: K.
        size: D.

    Raises:
        LabError: sizes below 1, no seeds, or a mixer that takes other streams.
    """

    def __init__(self, mixer: Mixer, seeds: Sequence[int], *, keys: int, size: int) -> None:
        super().__init__()
        _check(1, size, keys)
        if not seeds:
            raise LabError("There are 0 seeds of learned keys, but at least 1 is needed; give one a model.")
        if not {"query", "key", "value"} <= set(mixer.streams) <= {"query", "key", "value", "rate"}:
            raise LabError(
                f"Learned keys serve a mixer of queries, keys, values and perhaps a rate, but {type(mixer).__name__} takes "
                f"{', '.join(mixer.streams)}; choose another."
            )
        self.mixer, self.width = mixer, size
        drawn = np.stack([RandomStream(seed, ("weights", "key")).rng().standard_normal((keys, size)) for seed in seeds])
        self.key = nn.Parameter(torch.from_numpy(drawn))
        self.query = nn.Parameter(F.normalize(torch.from_numpy(drawn), dim=-1))
        self.rate = nn.Parameter(torch.full((len(seeds),), 0.5, dtype=torch.float64))

    def forward(self, chosen: Int[Tensor, "model batch pair"]) -> Float[Tensor, "model batch pair pair"]:
        """A [q, i], by which the symbol at place q is answered: the answers where the values are unit vectors."""
        models, pairs = chosen.shape[0], chosen.shape[-1]
        row = torch.arange(models, device=chosen.device).view(-1, 1, 1)
        value = torch.eye(pairs, dtype=self.key.dtype, device=self.key.device).expand(*chosen.shape, pairs)
        streams = {"query": self.query[row, chosen], "key": F.normalize(self.key, dim=-1)[row, chosen], "value": value}
        if "rate" in self.mixer.streams:
            streams["rate"] = self.rate.abs().view(-1, 1, 1, 1).expand(*chosen.shape, 1)
        mask = torch.ones(pairs, pairs, dtype=torch.bool, device=chosen.device)
        return self.mixer.parallel({name: stream.unsqueeze(2) for name, stream in streams.items()}, mask).squeeze(2)

    def errors(self, chosen: Int[Tensor, "model batch pair"]) -> Float[Tensor, "model batch pair"]:
        r"""$\sum_i (A_{qi} - \delta_{qi})^2$ of every question."""
        answers = self(chosen)
        return (answers - torch.eye(answers.shape[-1]).to(answers)).square().sum(-1)

    def select(self, models: Sequence[int]) -> LearnedKeys:
        """The models at these places, with their own copy of the tables."""
        built = copy.deepcopy(self)
        for name, parameter in self.named_parameters():
            setattr(built, name, nn.Parameter(parameter.detach()[list(models)].clone()))
        return built


def learned_keys(mixer: Callable[[], Mixer], *, keys: int, size: int) -> Callable[[Sequence[int]], LearnedKeys]:
    """What builds `LearnedKeys` from seeds."""
    return lambda seeds: LearnedKeys(mixer(), seeds, keys=keys, size=size)


def _check(pairs: int, size: int, keys: int) -> None:
    if pairs < 1 or size < 1:
        raise LabError(f"pairs = {pairs} and size = {size} of a memory must be at least 1; please raise them.")
    if keys < pairs:
        raise LabError(f"keys = {keys} must be at least pairs = {pairs}, since keys differ; please raise it.")
