"""Attention patterns of particular papers, and `mask`, which builds any pattern of the lab by its name.

`lab.models.masks` holds the patterns that tasks share (causal, prefix, segments, blocks, two streams, ...); here
are the ones that single papers add to them. Conventions are the same: ``mask[i, j]`` True iff token i (row) may
attend to token j (column), and each pattern is one function of sizes.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from lab.errors import LabError
from lab.models import masks


def next_scale(sides: Sequence[int]) -> Bool[Tensor, "token token"]:
    """scale(j) <= scale(i) for square images of growing sides: scale k holds s_k^2 tokens that see one another.

    Visual autoregression by next-scale prediction (Tian et al. 2024, their block-wise causal mask).

    >>> next_scale([1, 2]).int().tolist()[0]
    [1, 0, 0, 0, 0]
    """
    for side in sides:
        _at_least(1, "next_scale", side=side)
    return masks.block_causal([side * side for side in sides])


def alternating_turns(turns: int, turn_length: int, generated: int = 0) -> Bool[Tensor, "token token"]:
    """`segment` where two speakers take turns and each keeps one segment for all of them.

    The first speaker's early tokens see that speaker's later turns, which see what the other one said between: not
    transitive from three turns on, so depth leaks the future. One segment a turn would not.

    Args:
        turns: turns of the dialogue.
        turn_length: tokens of each.
        generated: tokens that follow causally.
    """
    _at_least(0, "alternating_turns", turns=turns, generated=generated)
    _at_least(1, "alternating_turns", turn_length=turn_length)
    return masks.segment([turn % 2 for turn in range(turns) for _ in range(turn_length)], generated)


def labels_by_erasure(image: int, prompt: int, labels: Sequence[int]) -> Bool[Tensor, "token token"]:
    """`labels_independent`, built the way decoding meets it: start causal, erase, open again.

    From a causal mask: the image block is opened in full; every column after the prompt is erased (no label is
    seen by anyone); each label's own lower triangle is opened again (Yue et al. 2024, object recognition as next
    token prediction).

    Args:
        image: image tokens.
        prompt: prompt tokens; the last is the answer marker.
        labels: tokens of each label, its delimiter included.
    """
    _at_least(0, "labels_by_erasure", image=image, prompt=prompt)
    for label in labels:
        _at_least(1, "labels_by_erasure", tokens_of_a_label=label)
    start = image + prompt
    mask = masks.causal(start + sum(labels))
    mask[:image, :image] = True
    mask[:, start:] = False
    for label in labels:
        mask[start : start + label, start : start + label] = masks.causal(label)
        start += label
    return mask


def chunked_two_stream(chunks: Sequence[int]) -> Bool[Tensor, "token token"]:
    """Two streams decoded a chunk at a time: contents of one chunk see each other, queries the chunks before.

    Content is a start token, then all chunks but the last (whose contents nobody reads); then one query for each
    token generated. Content of a chunk sees itself and what came before; queries of a chunk see the start token and
    the earlier chunks. With chunks of one token it is `two_stream`: what training saw. With longer chunks the
    content sees more than it ever did in training.

    Args:
        chunks: tokens generated side by side in each step.

    >>> torch.equal(chunked_two_stream([1, 1, 1]), masks.two_stream(3))
    True
    """
    if not chunks:
        raise LabError("chunked_two_stream has 0 chunks but needs at least 1; please give one.")
    for chunk in chunks:
        _at_least(1, "chunked_two_stream", chunk=chunk)
    content = masks.block_causal([1, *chunks[:-1]])
    block = torch.repeat_interleave(torch.arange(len(chunks)), torch.tensor(list(chunks)))
    reached = torch.cat((torch.zeros(1, dtype=torch.int64), block[: len(content) - 1] + 1))
    queries = reached <= block.unsqueeze(1)
    rows = torch.cat((content, queries))
    return torch.cat((rows, torch.zeros(len(rows), len(queries), dtype=torch.bool)), dim=1)


PATTERNS: dict[str, Callable[..., Bool[Tensor, "token token"]]] = masks.PATTERNS | {
    pattern.__name__: pattern for pattern in (next_scale, alternating_turns, labels_by_erasure, chunked_two_stream)
}


def mask(name: str, **sizes: Any) -> Bool[Tensor, "token token"]:
    """The pattern called ``name`` at these sizes; ``PATTERNS`` lists them.

    Raises:
        LabError: an unknown name, a size that the pattern does not take, one that is missing, or one that is no
            whole number (no sequence of whole numbers where it takes several), or see the pattern itself.

    >>> mask("prefix_lm", length=3, prefix_length=2).int().tolist()
    [[1, 1, 0], [1, 1, 0], [1, 1, 1]]
    """
    if name not in PATTERNS:
        close = difflib.get_close_matches(name, PATTERNS, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise LabError(f"There is no attention pattern {name!r}{hint}; please choose among {', '.join(PATTERNS)}.")
    parameters = inspect.signature(PATTERNS[name]).parameters
    needed = [key for key, parameter in parameters.items() if parameter.default is parameter.empty]
    if set(sizes) - set(parameters) or set(needed) - set(sizes):
        raise LabError(
            f"The pattern {name!r} was given {', '.join(sizes) or 'no sizes'} but takes {', '.join(parameters)}; "
            "please give these sizes."
        )
    for key, value in sizes.items():
        several = "Sequence" in str(parameters[key].annotation)
        numbers = value if several and isinstance(value, Sequence) and not isinstance(value, str) else [value]
        if (several and numbers is not value) or not all(
            isinstance(number, int) and not isinstance(number, bool) for number in numbers
        ):
            kind = "a list of whole numbers" if several else "a whole number"
            raise LabError(f"{key} = {value!r} of the pattern {name!r} must be {kind}; please change it.")
    return PATTERNS[name](**sizes)


def _at_least(limit: int, pattern: str, **sizes: int) -> None:
    for key, size in sizes.items():
        if size < limit:
            raise LabError(f"{key} = {size} of {pattern} must be at least {limit}; please raise it.")
