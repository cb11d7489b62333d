"""A transformer as a column machine: its answers to all windows, and the loop that adds numbers with it.

The network is a `Transformer` like any other. It sees one window of `lab.domains.addition.prompts` at a time and writes
the sum of one column. Since decoding is greedy its answers are a table of 2,100 numbers, to which everything in
`lab.domains.addition.column_addition` applies; `add_in_columns` runs the loop with the network itself in it.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lab.decoding import decode
from lab.domains.addition import column_addition as addition
from lab.domains.addition.prompts import ANSWER, PAD, SEPARATOR, STOP, ZERO, read_window_answers, window_prompts
from lab.models.transformer import Transformer

ANSWER_TOKENS = 3  # two digits and the stop token


def answer_table(module: Transformer, mask: Bool[Tensor, "token token"]) -> Int[Tensor, "{module.models} window"]:
    """The greedy answer of each model to each of the 2,100 windows, -1 where it is not a number 0 .. 19.

    Args:
        module: ensemble over the 14 tokens of windows.
        mask: attention pattern over at least 8 positions.

    Raises:
        LabError: see `lab.decoding.decode`.
    """
    written = decode(module, window_prompts(), mask, ANSWER_TOKENS, stop_token=STOP).tokens
    return read_window_answers(written).cpu()


def add_in_columns(
    module: Transformer,
    first: Int[Tensor, "batch column"],
    second: Int[Tensor, "batch column"],
    mask: Bool[Tensor, "token token"],
    *,
    cached: bool = True,
) -> Int[Tensor, "{module.models} batch column+1"]:
    """Digits of a + b (least significant first) with the network asked column by column, from right to left.

    The tokens that the network wrote for one column, up to its stop token, begin the prompt of the next. An answer
    that is not a number 0 .. 19 makes no prompt: that column and all to its left are -1.

    Args:
        module: ensemble of E models.
        first, second: digits, least significant first.
        mask: attention pattern over at least 8 positions.
        cached: decode with a key-value cache.

    Raises:
        LabError: a digit outside 0 .. 9; see also `lab.decoding.decode`.
    """
    addition.column_sums(first, second)  # refuses what is not a digit before any work is done
    pairs = ZERO + torch.stack([first, second], dim=-1).expand(module.models, -1, -1, -1)
    written: Tensor | None = None
    sums: list[Tensor] = []
    for column in range(first.shape[1]):
        prompts = next_prompts(pairs[:, :, column], written)
        written = decode(module, prompts, mask, ANSWER_TOKENS, stop_token=STOP, cached=cached).tokens.cpu()
        answer = read_window_answers(written)
        sums.append(answer if column == 0 else torch.where(sums[-1] < 0, -1, answer))
    return addition.digits_of_sums(torch.stack(sums, dim=-1))


def next_prompts(
    pair: Int[Tensor, "model batch 2"], written: Int[Tensor, "model batch 3"] | None = None
) -> Int[Tensor, "model batch 6"]:
    """The tokens "s C a b" (of the first column "a b"), padded with P to 5, and the start of an answer.

    Args:
        pair: the tokens of the two digits of the column.
        written: what was written for the column before; its tokens up to the stop token, at most two, are s.
    """
    pad, separator, start = (torch.full_like(pair[..., :1], token) for token in (PAD, SEPARATOR, ANSWER))
    if written is None:
        return torch.cat([pair, pad, pad, pad, start], dim=-1)
    short = torch.cat([written[..., :1], separator, pair, pad, start], dim=-1)
    long = torch.cat([written[..., :2], separator, pair, start], dim=-1)
    return torch.where(written[..., 1:2] == STOP, short, long)
