r"""Two more tasks whose depth is a number of iterations: what can be reached in a graph, and products along a sequence.

*Reachability.* Attention that is uniform over a node's neighbours and itself, then $\min(1, n \cdot \text{mean})$ (a clipped ReLU),
spreads a mark by one edge a step; the fixed point marks the component, and is noticed after eccentricity + 1 steps. Without
the edge to itself a mark jumps to and fro for ever on a bipartite graph.

*Prefix products* $g_1 \cdots g_i$ in a group take n steps one after the other, and $\lceil \log_2 n \rceil$ if in
each step token i multiplies by what
token $i - 2^k$ holds: values must evolve.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lab.errors import LabError
from lab.streams import RandomStream


def random_graph(stream: RandomStream, batch: int, nodes: int, chance: float) -> Bool[Tensor, "batch node node"]:
    """Symmetric graphs without loops, every edge there with the probability ``chance``.

    Raises:
        LabError: fewer than 1 node, or a chance outside [0, 1].
    """
    if nodes < 1 or not 0 <= chance <= 1:
        raise LabError(f"nodes = {nodes} must be at least 1 and chance = {chance} in [0, 1]; please change them.")
    upper = torch.from_numpy(stream.rng().random((batch, nodes, nodes)) < chance).triu(1)
    return upper | upper.mT


def spread(
    marks: Float[Tensor, "batch node"], graph: Bool[Tensor, "batch node node"], loops: bool = True
) -> Float[Tensor, "batch node"]:
    """One step: uniform attention over neighbours (and itself), then min(1, n mean); 0 where there is no neighbour."""
    neighbours = graph | torch.eye(graph.shape[-1], dtype=torch.bool) if loops else graph
    mean = (neighbours.to(marks.dtype) @ marks.unsqueeze(-1)).squeeze(-1) / neighbours.sum(-1).clamp_min(1)
    return (graph.shape[-1] * mean).clamp(max=1.0)


def distances(graph: Bool[Tensor, "batch node node"], source: int = 0) -> Int[Tensor, "batch node"]:
    """Edges on the shortest path from ``source``, by breadth-first search; -1 where there is none."""
    levels = torch.full(graph.shape[:2], -1)
    levels[:, source] = 0
    for distance in range(1, graph.shape[-1]):
        front = levels == distance - 1
        new = (graph & front.unsqueeze(1)).any(-1) & (levels < 0)
        levels[new] = distance
    return levels


def compose(first: Int[Tensor, "*batch point"], second: Int[Tensor, "*batch point"]) -> Int[Tensor, "*batch point"]:
    """The permutation that does ``first``, then ``second``."""
    return second.gather(-1, first)


def products_in_turn(permutations: Int[Tensor, "batch token point"], steps: int) -> Int[Tensor, "batch token point"]:
    """After ``steps`` steps in which every token multiplies its own factor by what the token before holds.

    Token i is right from step i on.
    """
    held = permutations
    for _ in range(steps):
        held = torch.cat((permutations[:, :1], compose(held[:, :-1], permutations[:, 1:])), 1)
    return held


def products_by_doubling(
    permutations: Int[Tensor, "batch token point"], steps: int
) -> Int[Tensor, "batch token point"]:
    """After ``steps`` steps in which token i multiplies what it holds by what token i - 2^k holds."""
    held = permutations
    for step in range(steps):
        shift = 2**step
        if shift < held.shape[1]:
            held = torch.cat((held[:, :shift], compose(held[:, :-shift], held[:, shift:])), 1)
    return held
