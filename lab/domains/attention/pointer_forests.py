r"""Following the pointers of a forest to its roots by iterated attention: how many steps a depth takes.

Every node of a forest points to its parent, a root to itself. A node's *depth* is its distance from the root.

- *Frozen values* (`frozen_chaser`): node i holds a pointer, at first none; it looks at the node its pointer names and reads that
  node's parent. After k steps it holds $p^k(i)$: depth + 1 steps until nothing moves.
- *Evolving values* (`doubling_chaser`): it reads that node's *pointer*. After k steps it holds $p^{2^k}(i)$:
  $\lceil \log_2 \text{depth} \rceil + 1$ steps.

In a random recursive tree node m (counting from 1) points to one of the nodes before it, each equally likely. So its depth k has
the probability $c(m - 1, k) / (m - 1)!$ with the unsigned Stirling numbers of the first kind, a mean of $H_n - 1$ over the
tree, and parents stand before children: a causal mask hides nothing. In a tree whose nodes are numbered anew it does.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lab.contracts import generator
from lab.errors import LabError
from lab.models.mixers.fixed_point import FixedPointAttention
from lab.streams import RandomStream

SHARP = 60.0  # exp(-60) is 1e-26


@dataclass(frozen=True)
class Forests:
    """Parents of every node, the roots and the depths.

    Args:
        tokens: p(i) at place i.
        targets: the root above i.
        depth: steps from i to its root.
    """

    tokens: Int[Tensor, "batch token"]
    targets: Int[Tensor, "batch token"]
    depth: Int[Tensor, "batch token"]


@generator(nodes=6)
def recursive_trees(stream: RandomStream, batch: int, *, nodes: int, renumbered: bool = False) -> Forests:
    """Random recursive trees.

    Args:
        renumbered: number the nodes anew in a random order.

    Raises:
        LabError: fewer than 1 node.
    """
    if nodes < 1:
        raise LabError(f"nodes = {nodes} of a tree must be at least 1; please raise it.")
    draws = stream.rng().random((batch, 2, nodes))
    parents = torch.from_numpy((draws[:, 0] * np.maximum(np.arange(nodes), 1)).astype(np.int64))
    if renumbered:
        names = torch.from_numpy(draws[:, 1].argsort(1))
        parents = torch.empty_like(parents).scatter_(1, names, names.gather(1, parents))
    return forest(parents)


def forest(parents: Int[Tensor, "batch token"]) -> Forests:
    """Roots and depths of given parents.

    Raises:
        LabError: pointers that run in a circle.
    """
    place = torch.arange(parents.shape[1]).expand_as(parents)
    roots, depth = place, torch.zeros_like(parents)
    for _ in range(parents.shape[1]):
        above = parents.gather(1, roots)
        depth, roots = depth + (above != roots), above
    if not torch.equal(parents.gather(1, roots), roots):
        raise LabError("Some pointers run in a circle and lead to no root; make each root its own parent.")
    return Forests(parents, roots, depth)


def path(nodes: int) -> Int[Tensor, "1 token"]:
    """Parents of a path, whose last node has the depth nodes - 1."""
    return (torch.arange(nodes) - 1).clamp_min(0).unsqueeze(0)


def frozen_chaser(nodes: int, sharpness: float = SHARP, keys: str = "address", most: int = 200) -> FixedPointAttention:
    """One head that follows pointers step by step, on the tokens of `chaser_tokens`.

    Args:
        sharpness: b, the score of a match; a node looks at its pointer at 2 b.
        keys: "address"; "pointer" adds the pointer to the key, so that addresses drift.

    Raises:
        LabError: other keys.
    """
    if keys not in ("address", "pointer"):
        raise LabError(f"keys = {keys!r} must be 'address' or 'pointer'; please change it.")
    address, parent, pointer = _channels(nodes)
    key = address + pointer if keys == "pointer" else address
    return _layer(sharpness * (address + 2 * pointer), key, parent, pointer.T, most, frozen=True)


def doubling_chaser(nodes: int, sharpness: float = SHARP, most: int = 200) -> FixedPointAttention:
    """One head that jumps: a node takes over the pointer of the node its pointer names; see `doubling_start`."""
    address, _, pointer = _channels(nodes)
    return _layer(sharpness * pointer, address, pointer, pointer.T, most, frozen=False)


def chaser_tokens(parents: Int[Tensor, "batch token"]) -> Float[Tensor, "1 batch 1 token width"]:
    """Address and parent as one-hot vectors, and no pointer."""
    nodes = parents.shape[1]
    address = torch.eye(nodes, dtype=torch.float64).expand(len(parents), -1, -1)
    parent = torch.nn.functional.one_hot(parents, nodes).double()
    return torch.cat((address, parent, torch.zeros_like(parent)), -1)[None, :, None]


def doubling_start(tokens: Float[Tensor, "1 batch 1 token width"]) -> Float[Tensor, "1 batch 1 token width"]:
    """The state in which every node points to its parent."""
    nodes = tokens.shape[-1] // 3
    start = tokens.clone()
    start[..., 2 * nodes :] = tokens[..., nodes : 2 * nodes]
    return start


def pointers(state: Float[Tensor, "1 batch 1 token width"]) -> Float[Tensor, "batch token node"]:
    """The pointer part of a state, one-hot where it names a node."""
    nodes = state.shape[-1] // 3
    return state[0, :, 0, :, 2 * nodes :]


def steps_of(depth: int, frozen: bool) -> int:
    """Steps until a forest of this depth is seen to rest: max(depth, 1) + 1, or ceil(log2 max(depth, 1)) + 1.

    >>> [steps_of(5, frozen) for frozen in (True, False)]
    [6, 4]
    """
    return max(depth, 1) + 1 if frozen else (max(depth, 1) - 1).bit_length() + 1


def depth_law(nodes: int) -> tuple[Fraction, ...]:
    """P(depth = k), k = 0 .. n - 1, of a uniform node of a random recursive tree.

    >>> depth_law(3)
    (Fraction(1, 3), Fraction(1, 2), Fraction(1, 6))
    """
    if nodes < 1:
        raise LabError(f"nodes = {nodes} of a tree must be at least 1; please raise it.")
    row, total = [Fraction(1)], [Fraction(0)] * nodes  # c(m - 1, k) / (m - 1)!, m = 1
    for node in range(1, nodes + 1):
        for place, chance in enumerate(row):
            total[place] += chance / nodes
        # c(m, k) = c(m - 1, k - 1) + (m - 1) c(m - 1, k), over m!
        row = [
            (
                (row[place - 1] if place else Fraction(0))
                + (node - 1) * (row[place] if place < len(row) else Fraction(0))
            )
            / node
            for place in range(len(row) + 1)
        ]
    return tuple(total)


def reached_within(nodes: int, steps: int) -> float:
    """P(depth <= L): the share of nodes that hold their root after L steps of frozen values."""
    return float(sum(depth_law(nodes)[: steps + 1]))


def _channels(nodes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Matrices [3 n, n] that read the address, the parent and the pointer."""
    eye = torch.eye(3 * nodes, dtype=torch.float64)
    return eye[:, :nodes], eye[:, nodes : 2 * nodes], eye[:, 2 * nodes :]


def _layer(query: Tensor, key: Tensor, value: Tensor, output: Tensor, most: int, frozen: bool) -> FixedPointAttention:
    root = query.shape[1] ** 0.5  # attention divides scores by it
    matrices = [matrix[None, None] for matrix in (root * query, key, value, output)]
    return FixedPointAttention(*matrices, damping=1.0, tolerance=1e-9, most=most, frozen=frozen)
