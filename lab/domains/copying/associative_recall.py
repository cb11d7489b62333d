r"""Multi-query associative recall: keys and their values in one prompt, then every key again, at gaps of a power law.

The yardstick of Arora et al. (2023): ``k_1 v_1 ... k_n v_n`` and then, among filler, each key once more, where its value is
asked for. The place of a question is even, counted from the end of the pairs; its number $g = 1, 2, \dots, G$ is drawn with
$P(g) \propto g^{a - 1}$, all different. A small a asks soon after the pairs, a = 1 anywhere.

Ids: 0 stands nowhere; keys are 1 .. K, values K + 1 .. K + V. Filler is uniform over keys and values alike, as in the
authors' code, so that a key may stand in the filler too; its first occurrence is the one with its value behind it. Values
are drawn independently here (theirs are all different), so that the table holds $n \log_2 V$ bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lab.contracts import generator
from lab.errors import LabError
from lab.streams import RandomStream

NOT_SCORED = -1


@dataclass(frozen=True)
class RecallPrompts:
    """Tables of keys and values, and questions.

    Args:
        tokens: n pairs, then questions among filler.
        targets: at a question the value of its key, elsewhere ``NOT_SCORED``.
        loss_mask: where there is a question.
        prefix_length: tokens of the pairs, 2 n.
    """

    tokens: Int[Tensor, "batch token"]
    targets: Int[Tensor, "batch token"]
    loss_mask: Bool[Tensor, "batch token"]
    prefix_length: Int[Tensor, " batch"]


@generator(pairs=3, length=16, keys=5, values=4)
def recall_prompts(
    stream: RandomStream, batch: int, *, pairs: int, length: int, keys: int, values: int, power: float = 0.01
) -> RecallPrompts:
    """Prompts of ``length`` tokens with ``pairs`` keys, all different, and as many questions.

    Args:
        stream: where the numbers come from.
        batch: number of prompts.
        pairs: n. A memory that holds fewer is no error: the laws of `memory_capacity` say what it gives back.
        length: tokens T, at least 4 n, an even number.
        keys: K, at least n.
        values: V.
        power: a, above 0.

    Raises:
        LabError: a size outside its range; the message names it.
    """
    gaps = gap_law(pairs, length, power)
    if keys < pairs or values < 1:
        raise LabError(
            f"keys = {keys} must be at least pairs = {pairs}, since keys differ, and values = {values} at least 1; "
            "please raise them."
        )
    rng = stream.rng()
    # One row of numbers a prompt, so that the first prompts do not depend on how many are drawn.
    draws = rng.random((batch, keys + pairs + len(gaps) + length))
    for_keys, for_values, for_gaps, for_filler = np.split(draws, np.cumsum([keys, pairs, len(gaps)]), axis=1)
    chosen = 1 + for_keys.argsort(1)[:, :pairs]
    written = keys + 1 + (for_values * values).astype(np.int64)
    # The exponential race: the n smallest of E_g / p_g are a draw of n places without replacement, one by one by the law.
    order = (-np.log1p(-for_gaps) / gaps).argsort(1)[:, :pairs]
    tokens = 1 + (for_filler * (keys + values)).astype(np.int64)
    targets = np.full((batch, length), NOT_SCORED)
    tokens[:, : 2 * pairs : 2], tokens[:, 1 : 2 * pairs : 2] = chosen, written
    rows, places = np.arange(batch)[:, None], 2 * pairs + 2 * order
    tokens[rows, places], targets[rows, places] = chosen, written
    labels = torch.from_numpy(targets)
    return RecallPrompts(torch.from_numpy(tokens), labels, labels >= 0, torch.full((batch,), 2 * pairs))


def gap_law(pairs: int, length: int, power: float) -> Float[np.ndarray, " places"]:
    r"""$P(g) \propto g^{a - 1}$ of the first question's place, $g = 1 .. (T - 2 n) / 2$.

    Raises:
        LabError: a power that is not positive, an odd length, or one that has no room for the questions.
    """
    if not 0 < power < math.inf:
        raise LabError(f"power = {power} of the gaps must be positive and finite; please change it.")
    if pairs < 1 or length % 2 or length < 4 * pairs:
        raise LabError(
            f"length = {length} must be even and at least 4 tokens for each of pairs = {pairs}, at least 1; "
            "please change one of them."
        )
    weights = np.arange(1, (length - 2 * pairs) // 2 + 1, dtype=float) ** (power - 1)
    return weights / weights.sum()


def table_bits(pairs: int, values: int) -> float:
    r"""$n \log_2 V$: what a memory must hold to answer every question, the keys being known."""
    return pairs * math.log2(values)


def look_up(prompts: RecallPrompts, visible: int | None = None) -> Int[Tensor, "batch token"]:
    """The exact answer: at every token what followed the first occurrence of the same token; -1 where there is none.

    Args:
        prompts: of one length.
        visible: how many tokens a token sees, itself included (a sliding window); None sees all before.
    """
    tokens = prompts.tokens
    length = tokens.shape[1]
    place = torch.arange(length)
    before = place < place.unsqueeze(1)  # the occurrence lies before
    if visible is not None:
        before &= place > place.unsqueeze(1) - visible
    same = (tokens.unsqueeze(2) == tokens.unsqueeze(1)) & before
    first = same.int().argmax(2)
    return torch.where(same.any(2), tokens.gather(1, first + 1), NOT_SCORED)


def recall_accuracy(answers: Int[Tensor, "*model batch token"], targets: Int[Tensor, "batch token"]) -> Tensor:
    """Share of right answers among the questions [model ...]."""
    questions = targets >= 0
    right: Tensor = (answers == targets)[..., questions].double().mean(-1)
    return right
