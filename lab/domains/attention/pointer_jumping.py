r"""Pointer jumping: what a token can find out by following pointers through a mask, layer by layer.

Token i holds a pointer $p(i)$, at first $\pi(i)$ of a random permutation. One layer of hard attention lets it read the
token its pointer names and take over that token's pointer, $p \leftarrow p \circ p$, provided the mask lets it look
there; otherwise it keeps what it has. If every token sees every other, L layers hold $\pi^{2^L}$. Under a causal mask
only pointers that lead backwards can be followed.
"""

from __future__ import annotations

import itertools

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lab.errors import LabError
from lab.models.masks import causal


def jump(
    pointers: Int[Tensor, "batch token"], mask: Bool[Tensor, "seeing seen"], layers: int
) -> Int[Tensor, "batch token"]:
    """The pointers after ``layers`` layers of hard attention under ``mask``.

    Raises:
        LabError: a pointer that names no token, a mask of another size, or a negative number of layers.
    """
    length = pointers.shape[-1]
    if pointers.numel() and not 0 <= int(pointers.min()) <= int(pointers.max()) < length:
        raise LabError(
            f"Pointers run from {int(pointers.min())} to {int(pointers.max())} but must name one of {length} tokens; "
            f"please keep them between 0 and {length - 1}."
        )
    if mask.shape != (length, length):
        raise LabError(f"The mask is {tuple(mask.shape)} but there are {length} tokens; please build it for these.")
    if layers < 0:
        raise LabError(f"layers = {layers} must be at least 0; please raise it.")
    rows = torch.arange(length)
    for _ in range(layers):
        pointers = torch.where(mask[rows, pointers], pointers.gather(1, pointers), pointers)
    return pointers


def follow(pointers: Int[Tensor, "batch token"], hops: int) -> Int[Tensor, "batch token"]:
    r"""$\pi^{\text{hops}}$."""
    reached = torch.arange(pointers.shape[-1]).expand_as(pointers)
    for _ in range(hops):
        reached = pointers.gather(1, reached)
    return reached


def long_cycle_accuracy(layers: int) -> float:
    r"""$2^{1 - 2^L}$: chance that a token of a cycle of at least $2^L$ tokens holds $\pi^{2^L}$ after L causal layers.

    With $x_0, x_1, \dots$ along the cycle, $x_0$ must find $x_1$, then $x_2$, then $x_4, \dots$ before itself, and each $x_{2^k}$ must
    hold $x_{2^{k+1}}$ after k layers, by the same rule. So $2^L$ tokens must stand in the order of a binomial tree $B_L$: a root whose
    children head a $B_0$, a $B_1$, ... and a $B_{L-1}$. A random order does so with probability one over the product of the sizes of
    all subtrees (hook length formula). The logarithm of that product is $h_L = L + h_0 + \dots + h_{L-1} = 2^L - 1$.

    >>> [1 / long_cycle_accuracy(layers) for layers in range(4)]
    [1.0, 2.0, 8.0, 128.0]
    """
    if layers < 0:
        raise LabError(f"layers = {layers} must be at least 0; please raise it.")
    return 2.0 ** (1 - 2**layers)


def tree_orders(layers: int) -> int:
    """In how many of the orders of its $2^L$ tokens a binomial tree stands with every token after all those below it.

    Counted, not by the formula: sets of tokens that may stand first are filled token by token (1,807 sets for four layers).

    Args:
        layers: L, at most 4 (for five there are more than three million sets).

    Raises:
        LabError: layers outside 0 to 4.

    >>> [tree_orders(layers) for layers in range(3)]
    [1, 1, 3]
    """
    if not 0 <= layers <= 4:
        raise LabError(f"layers = {layers} must be between 0 and 4; please change it.")
    # Token a reads a + 2^k in layer k, while it still climbs: k below the number of zeros at the end of a.
    tokens = 2**layers
    below = [
        sum(1 << (token + 2**layer) for layer in range(layers) if token % 2 ** (layer + 1) == 0)
        for token in range(tokens)
    ]
    ways = {0: 1}
    for _ in range(tokens):
        grown: dict[int, int] = {}
        for placed, number in ways.items():
            for token in range(tokens):
                if not placed >> token & 1 and below[token] & ~placed == 0:
                    grown[placed | 1 << token] = grown.get(placed | 1 << token, 0) + number
        ways = grown
    return ways[2**tokens - 1]


def causal_accuracy(length: int, layers: int) -> float:
    r"""Share of tokens that hold $\pi^{2^L}(i)$ after L causal layers, averaged over all permutations.

    A token lies on a cycle of length c with probability $1/n$ each, in an order uniform over the $c!$ ones. Cycles of at
    least $2^L$ tokens follow `long_cycle_accuracy`; shorter ones are enumerated.

    Args:
        length: tokens n.
        layers: L, at most 3 (the enumeration takes all orders of up to $2^L - 1$ tokens).

    Raises:
        LabError: fewer than 1 token, or layers outside 0 to 3.

    >>> causal_accuracy(64, 1) == 65 / 128
    True
    """
    if length < 1 or not 0 <= layers <= 3:
        raise LabError(
            f"length = {length} must be at least 1 and layers = {layers} between 0 and 3; please change them."
        )
    shortest = 2**layers
    short = [_cycle_accuracy(cycle, layers) for cycle in range(1, min(length, shortest - 1) + 1)]
    return (sum(short) + max(length - shortest + 1, 0) * long_cycle_accuracy(layers)) / length


def _cycle_accuracy(cycle: int, layers: int) -> float:
    """Share of the tokens of one cycle that succeed, over all orders in which its tokens may stand."""
    orders = torch.tensor(list(itertools.permutations(range(cycle))))
    pointers = torch.empty_like(orders).scatter_(1, orders, orders.roll(-1, 1))
    held = jump(pointers, causal(cycle), layers)
    return float((held == follow(pointers, 2**layers)).double().mean())


def two_hop_posterior(
    pointers: Int[Tensor, "batch token"], mask: Bool[Tensor, "seeing seen"]
) -> Float[Tensor, "batch token answer"]:
    r"""$P(\pi(\pi(i)) = a \mid \text{the pointers that token } i \text{ sees})$ for a uniformly random permutation.

    Where $\pi(i)$ itself is seen the answer is known; elsewhere it is uniform over the values that no seen pointer has.

    Args:
        pointers: $\pi$, a permutation in each row.
        mask: who sees whose pointer; every token must see its own.

    Raises:
        LabError: a mask of another size, or one that hides a token from itself.
    """
    length = pointers.shape[-1]
    if mask.shape != (length, length) or not bool(mask.diagonal().all()):
        raise LabError(f"The mask {tuple(mask.shape)} must show each of the {length} tokens itself; please change it.")
    rows = torch.arange(length)
    values = torch.nn.functional.one_hot(pointers, length).double()
    used = mask.double() @ values
    free = 1 - used
    free = free / free.sum(-1, keepdim=True).clamp_min(1)
    known = torch.nn.functional.one_hot(follow(pointers, 2), length).double()
    return torch.where(mask[rows, pointers].unsqueeze(-1), known, free)


def causal_two_hop_accuracy(length: int) -> float:
    r"""$\frac{n+1}{2n} + \frac{n-1}{n^2}$: the best share of right answers to $\pi(\pi(i))$ under a causal mask.

    Token i (1-based) sees the answer with probability $i/n$; otherwise it is uniform over $n - i$ values.

    >>> causal_two_hop_accuracy(1)
    1.0
    """
    if length < 1:
        raise LabError(f"length = {length} must be at least 1; please raise it.")
    return (length + 1) / (2 * length) + (length - 1) / length**2
