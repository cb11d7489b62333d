r"""Pointer jumping: what a token can find out by following pointers through a mask, layer by layer.

Token i holds a pointer $p(i)$, at first $\pi(i)$ of a random permutation. One layer of hard attention lets it read the
token its pointer names and take over that token's pointer, $p \leftarrow p \circ p$, provided the mask lets it look
there; otherwise it keeps what it has. If every token sees every other, L layers hold $\pi^{2^L}$. Under a causal mask
only pointers that lead backwards can be followed.
"""

from __future__ import annotations

import itertools
import math

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
    found = torch.arange(pointers.shape[-1]).expand_as(pointers)
    for _ in range(hops):
        found = pointers.gather(1, found)
    return found


def causal_accuracy(length: int, layers: int) -> float:
    r"""Share of tokens that hold $\pi^{2^L}(i)$ after L causal layers, averaged over all permutations.

    A token lies on a cycle of length c with probability $1/n$ each, in an order uniform over the $c!$ ones. On a cycle
    of at least $2^L$ tokens it succeeds iff its pointers lead backwards in a tree of $2^L$ nodes (the binomial tree
    $B_L$), which a random order does with probability $2^{-L} \prod_{k < L} (2^k)^{-2^{L - 1 - k}}$ (hook length
    formula): 1/2, 1/8, 1/128 for L = 1, 2, 3. Shorter cycles are enumerated.

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
    hops = 2**layers
    # The node that stands for a token after k layers heads a tree of 2^k nodes; B_L holds 2^(L-1-k) of each k >= 1 below the root.
    long = 1.0 / math.prod([hops, *(2 ** (k * 2 ** (layers - 1 - k)) for k in range(1, layers))])
    short = [_cycle_accuracy(cycle, layers) for cycle in range(1, min(length, hops - 1) + 1)]
    return (sum(short) + max(length - hops + 1, 0) * long) / length


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
