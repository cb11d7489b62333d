r"""What a network without positions can know about order: which rows move when its input is permuted.

Token i after L layers is a function of the tree of what it saw: its own token, and the *multiset* (no order, no
names) of the trees of the tokens it attends to. Two inputs give row i the same output for all weights iff these
trees are equal, which colour refinement decides: colours are refined L times, and equal colours are equal trees.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lab.errors import LabError


def unchanged_rows(
    mask: Bool[Tensor, "token token"],
    order: Int[Tensor, " token"] | Sequence[int],
    depth: int,
    *,
    positions: bool = False,
) -> Bool[Tensor, " token"]:
    """Whether row i's output after ``depth`` layers stays as it is when token ``order[i]`` comes to each place i.

    Args:
        mask: the attention pattern.
        order: a permutation of the tokens, all of them different.
        depth: number of layers.
        positions: whether tokens carry their absolute position.

    Raises:
        LabError: ``order`` is no permutation of the tokens, or a negative depth.

    >>> from lab.models.masks import causal
    >>> unchanged_rows(causal(3), [1, 0, 2], 1).tolist(), unchanged_rows(causal(3), [1, 0, 2], 2).tolist()
    ([False, False, True], [False, False, False])
    """
    places, length = torch.as_tensor(order), len(mask)
    if not torch.equal(places.sort().values, torch.arange(length)):
        raise LabError(
            f"The order {places.tolist()} is no permutation of 0 to {length - 1}; please name each token once."
        )
    if depth < 0:
        raise LabError(f"depth = {depth} must be at least 0; please raise it.")
    identity, position_ids = torch.arange(length), torch.arange(length)
    # Both inputs are refined together, so that equal colours mean equal trees across them.
    tokens = torch.cat((identity, places))
    colours = tokens * length + torch.cat((position_ids, position_ids)) if positions else tokens
    colours = torch.unique(colours, return_inverse=True)[1]
    for _ in range(depth):
        present = torch.nn.functional.one_hot(colours).view(2, length, -1)
        counts = (mask.double() @ present.double()).long().flatten(0, 1)  # how many of each colour every row sees
        colours = torch.unique(torch.cat((colours.unsqueeze(1), counts), dim=1), dim=0, return_inverse=True)[1]
    return colours[:length] == colours[length:]


def order_blind_accuracy(symbols: int, length: int) -> float:
    r"""$E[\max_v N_v] / k$: the best share of right guesses of the first of k uniform symbols from their counts.

    Given the multiset each of the k tokens is equally likely to stand first, so the most frequent symbol is the best
    guess. With $P(\max_v N_v \le m) = \frac{k!}{V^k}\, [x^k] \big(\sum_{j \le m} x^j / j!\big)^V$.

    Args:
        symbols: V, the alphabet.
        length: k, the tokens.

    Raises:
        LabError: a size below 1.

    >>> round(order_blind_accuracy(2, 2), 3)
    0.75
    """
    if min(symbols, length) < 1:
        raise LabError(f"symbols = {symbols} and length = {length} must both be at least 1; please raise them.")
    below = [_at_most(symbols, length, most) for most in range(length)]
    return sum(1 - share for share in below) / length


def _at_most(symbols: int, length: int, most: int) -> float:
    """P(no symbol occurs more than ``most`` times)."""
    single = [1 / math.factorial(j) if j <= most else 0.0 for j in range(length + 1)]
    power = [1.0] + [0.0] * length
    for _ in range(symbols):
        power = [sum(power[i] * single[j - i] for i in range(j + 1)) for j in range(length + 1)]
    return power[length] * math.factorial(length) / symbols**length
