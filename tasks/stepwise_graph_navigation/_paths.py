"""Networks that only write paths: their graph, sequences, and how right their paths are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lab.decoding import decode
from lab.domains.graphs import navigation as exact
from lab.domains.graphs.navigation_prompts import Sequences, bernoulli_dag, navigation, path_outcome, split_pairs
from lab.models.transformer import Transformer
from lab.streams import stream
from tasks.stepwise_graph_navigation._shared import World


@dataclass(frozen=True)
class PathGraph:
    """A random Bernoulli graph: an edge from node i to node j for any i < j with one probability."""

    nodes: int = 50
    """nodes"""
    probability: float = 0.16
    """of each edge"""
    training_fraction: float = 0.3
    """share of its connected pairs that is trained on"""

    def world(self, seed: int) -> World:
        """The graph of one seed and its split of pairs."""
        source = stream(seed, "wanderer", "paths")
        graphs = bernoulli_dag(source.child("graph"), 1, self.nodes, self.probability)
        adjacency, layer = graphs.adjacency[0], graphs.layer[0]
        return World(adjacency, layer, split_pairs(source.child("split"), adjacency, layer, self.training_fraction))


PAPER_GRAPH = PathGraph(nodes=200, probability=0.05, training_fraction=0.2)


def sample_paths(world: World, seed: int, name: str, number: int, pairs: Tensor, law: exact.Policy) -> Sequences:
    """``number`` sequences about pairs from the table ``pairs``, their paths drawn from ``law``."""
    source = stream(seed, "wanderer", "path sequences", name)
    return navigation(source, number, world.adjacency, pairs, layout="path", policy=law)


def uniform_paths(world: World, seed: int, name: str, number: int, pairs: Tensor) -> Sequences:
    """The same from the uniform law on paths."""
    return sample_paths(world, seed, name, number, pairs, world.uniform)


def distant_pairs(world: World) -> Tensor:
    """Table of the held-out connected pairs at least two steps apart."""
    return world.pairs.held_out_positive & (exact.shortest_paths(world.adjacency) >= 2)


def greedy_shares(
    module: Transformer, mask: Tensor, worlds: Sequence[World], prompts: Tensor, steps: int
) -> Float[Tensor, "model 2"]:
    """Of the greedy paths after ``prompts``: the share whose edges all exist, and of those, the share that ends at the goal.

    Args:
        mask: one for all models.
        worlds: the graph of each model.
        prompts: goal and start of every question, [model, question, 2].
        steps: the most tokens to write.
    """
    end = worlds[0].words.end
    shares = []
    for world, pairs, written in zip(
        worlds, prompts, decode(module, prompts, mask, steps, stop_token=end).tokens, strict=True
    ):
        edges, arrived = path_outcome(world.adjacency, pairs[:, 1], pairs[:, 0], written, end)
        right = (edges & arrived).double().sum()
        shares.append(torch.stack([edges.double().mean(), right / edges.double().sum().clamp(min=1)]))
    return torch.stack(shares)
