"""A transformer as a column machine: its answers to all windows, and the loop that adds numbers with it.

The network sees one window of `lab.generators.addition` at a time and writes the sum of one column. Since
decoding is greedy its answers are a table of 2,100 numbers, to which everything in `lab.closed_form.addition`
applies; `add_in_columns` runs the loop with the network itself in it.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lab.closed_form import addition
from lab.decoding import decode
from lab.generators.addition import STOP, read_window_answers, window_prompts
from lab.models.transformer import Transformer

ANSWER_TOKENS = 3  # two digits and the stop token


def answer_table(
    module: Transformer, mask: Bool[Tensor, "token token"]
) -> Int[Tensor, "{module.models} window"]:
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

    Each answer, as it was written, begins the next prompt. An answer that is not a number 0 .. 19 cannot be fed
    back: that column and all to its left are -1.

    Args:
        module: ensemble of E models.
        first, second: digits, least significant first.
        mask: attention pattern over at least 8 positions.
        cached: decode with a key-value cache.

    Raises:
        LabError: a digit outside 0 .. 9; see also `lab.decoding.decode`.
    """
    addition.column_sums(first, second)  # refuses what is not a digit before any work is done
    previous = torch.full((module.models, len(first)), -1)
    written = []
    for column in range(first.shape[1]):
        window = addition.window_number(previous, first[:, column], second[:, column])
        prompts = window_prompts()[window]
        found = decode(module, prompts, mask, ANSWER_TOKENS, stop_token=STOP, cached=cached).tokens
        answer = read_window_answers(found).cpu()
        previous = answer if column == 0 else torch.where(previous < 0, -1, answer)
        written.append(previous)
    return addition.digits_of_sums(torch.stack(written, dim=-1))
