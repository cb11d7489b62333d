r"""The copy task: a string, a separator, the string again.

A prompt is ``BEGIN s SEPARATOR s`` and the targets are the next tokens from the separator on: the letters of s, then
``END``. Everything before is given, so that the prefix of a prompt ends with the separator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lab.contracts import generator
from lab.errors import LabError
from lab.streams import RandomStream

BEGIN, SEPARATOR, END, FIRST = 0, 1, 2, 3  # letters are numbered from FIRST on
NOT_SCORED = -1


@dataclass(frozen=True)
class CopyPrompts:
    """Strings to copy.

    Args:
        tokens: ``BEGIN s SEPARATOR s``, 2 (n + 1) tokens.
        targets: the token that follows, from the separator on; ``NOT_SCORED`` before.
        loss_mask: where there is a target.
        prefix_length: tokens that are given, n + 2.
    """

    tokens: Int[Tensor, "batch token"]
    targets: Int[Tensor, "batch token"]
    loss_mask: Bool[Tensor, "batch token"]
    prefix_length: Int[Tensor, " batch"]


@generator(letters=4, length=5)
def copy_prompts(stream: RandomStream, batch: int, *, letters: int, length: int) -> CopyPrompts:
    """Strings of ``length`` letters, independent and uniform over ``letters`` of them.

    Raises:
        LabError: a size below 1.
    """
    _at_least_one(letters=letters, length=length)
    return written(torch.from_numpy(stream.rng().integers(FIRST, FIRST + letters, (batch, length))))


def written(strings: Int[Tensor, "batch length"]) -> CopyPrompts:
    """The prompts in which ``strings`` (of token numbers from ``FIRST`` on) are copied."""
    batch, length = strings.shape
    column = torch.ones(batch, 1, dtype=strings.dtype)
    tokens = torch.cat((BEGIN * column, strings, SEPARATOR * column, strings), 1)
    unscored = NOT_SCORED * torch.ones(batch, length + 1, dtype=strings.dtype)
    targets = torch.cat((unscored, strings, END * column), 1)
    return CopyPrompts(tokens, targets, targets >= 0, torch.full((batch,), length + 2))


def all_strings(letters: int, length: int) -> Int[Tensor, "strings length"]:
    """Every string once, in the order of a dictionary, as token numbers.

    Raises:
        LabError: a size below 1, or more than a million strings.

    >>> all_strings(2, 2).tolist()
    [[3, 3], [3, 4], [4, 3], [4, 4]]
    """
    _at_least_one(letters=letters, length=length)
    if letters**length > 1_000_000:
        raise LabError(f"letters ** length = {letters**length} strings are more than a million; shorten the strings.")
    return FIRST + torch.cartesian_prod(*[torch.arange(letters)] * length).view(-1, length)


def copied_whole(
    logits: Float[Tensor, "*model batch token vocabulary"], targets: Int[Tensor, "*#model batch token"]
) -> Bool[Tensor, "*model batch"]:
    """Whether every scored token, the end included, is the likeliest one, given the right tokens before it."""
    return ((logits.argmax(-1) == targets) | (targets < 0)).all(-1)


def free_running(
    answer: Callable[[Int[Tensor, "model batch token"]], Float[Tensor, "model batch token vocabulary"]],
    prompts: CopyPrompts,
    models: int,
) -> Bool[Tensor, "model batch"]:
    """Whether a whole string, the end included, is right where the likeliest token is read again as input.

    Args:
        answer: tokens of every model to logits at each of them, for any number of tokens.
        prompts: of one length of strings.
        models: how many answer.
    """
    prefix_length = int(prompts.prefix_length[0])
    tokens = prompts.tokens[:, :prefix_length].expand(models, -1, -1)
    wanted = prompts.targets[:, prefix_length - 1 :]
    for _ in range(wanted.shape[1]):
        tokens = torch.cat((tokens, answer(tokens)[:, :, -1:].argmax(-1)), -1)
    return (tokens[:, :, prefix_length:] == wanted).all(-1)


def _at_least_one(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise LabError(f"{name} = {size} of the copy task must be at least 1; please raise it.")
