r"""Tasks that ask a network where something stands: pointers to follow, and the first of many tokens.

Both are trivial with positions and full sight. Taking sight away (a causal mask) or positions away makes each a
measure of what a mask can do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from lab.contracts import generator
from lab.errors import LabError
from lab.streams import RandomStream


@dataclass(frozen=True)
class PointerPrompts:
    r"""Uniform random permutations, and where two steps along each lead.

    Args:
        tokens: $\pi(i)$ at place i.
        targets: $\pi(\pi(i))$ at place i.
    """

    tokens: Int[Tensor, "batch token"]
    targets: Int[Tensor, "batch token"]


@dataclass(frozen=True)
class FirstTokenPrompts:
    """Independent uniform symbols and a question, whose answer is the first symbol.

    Args:
        tokens: k symbols, then the question ``symbols`` (one number above the alphabet).
        targets: the first symbol.
    """

    tokens: Int[Tensor, "batch token"]
    targets: Int[Tensor, " batch"]


@generator(length=6)
def pointer_prompts(stream: RandomStream, batch: int, *, length: int) -> PointerPrompts:
    r"""Permutations $\pi$ of ``length`` tokens, each equally likely, and $\pi \circ \pi$.

    Raises:
        LabError: a size below 1.
    """
    _at_least(1, batch=batch, length=length)
    tokens = torch.from_numpy(stream.rng().random((batch, length)).argsort(axis=1))
    return PointerPrompts(tokens, tokens.gather(1, tokens))


@generator(symbols=4, length=7)
def first_token_prompts(
    stream: RandomStream, batch: int, *, symbols: int, length: int, distinct: bool = False
) -> FirstTokenPrompts:
    """``length`` symbols, uniform and independent (or all different), then the question.

    Args:
        stream: where the numbers come from.
        batch: number of prompts.
        symbols: V, the alphabet 0 .. V - 1.
        length: k.
        distinct: draw without replacement.

    Raises:
        LabError: a size below 1, or more distinct tokens than symbols.
    """
    _at_least(1, batch=batch, symbols=symbols, length=length)
    if distinct and length > symbols:
        raise LabError(
            f"length = {length} distinct tokens need as many symbols but there are {symbols}; raise symbols."
        )
    rng = stream.rng()
    drawn = (
        rng.random((batch, symbols)).argsort(axis=1)[:, :length]
        if distinct
        else rng.integers(0, symbols, (batch, length))
    )
    question = np.full((batch, 1), symbols)
    tokens = torch.from_numpy(np.concatenate([drawn, question], axis=1))
    return FirstTokenPrompts(tokens, tokens[:, 0])


def _at_least(limit: int, **sizes: int) -> None:
    for name, size in sizes.items():
        if size < limit:
            raise LabError(f"{name} = {size} must be at least {limit}; please raise it.")
