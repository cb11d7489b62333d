"""Networks that only write paths: their graph, sequences, and how right paths and next-token laws are judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
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


def draw_paths(world: World, seed: int, name: str, number: int, table: Tensor, policy: exact.Policy) -> Sequences:
    source = stream(seed, "wanderer", "path sequences", name)
    return navigation(source, number, world.adjacency, table, layout="path", policy=policy)


def distant_pairs(world: World) -> Tensor:
    """Table of the held-out connected pairs at least two steps apart."""
    return world.pairs.held_out_positive & (exact.shortest_paths(world.adjacency) >= 2)


def error_shares(
    module: Transformer, mask: Tensor, worlds: Sequence[World], prompts: Tensor, steps: int
) -> tuple[Tensor, Tensor]:
    """Share of greedy paths whose edges all exist, and of those, the share that ends at the goal."""
    words = worlds[0].words
    found = decode(module, prompts, mask, steps, stop_token=words.end).tokens
    shares = []
    for world, asked, tokens in zip(worlds, prompts, found, strict=True):
        edges, arrived = path_outcome(world.adjacency, asked[:, 1], asked[:, 0], tokens, words.end)
        both = (edges & arrived).double().sum()
        shares.append(torch.stack([edges.double().mean(), both / edges.double().sum().clamp(min=1)]))
    edges_ok, plan_ok = torch.stack(shares).unbind(1)
    return edges_ok, plan_ok


def distance_to_law(
    module: Transformer, mask: Tensor, sequences: Sequences, law: exact.Policy, world: World, wrong_goals: bool = False
) -> float:
    """Total variation between a network's next-token law and the path law, mean over all steps (END included).

    With ``wrong_goals`` the network is shown each sequence with the goal of the next one.
    """
    tokens, length = sequences.tokens, sequences.tokens.shape[1]
    reference = exact.bayes_navigator(world.words.size, world.adjacency, law)(tokens, sequences.prefix_length)
    shown = tokens.clone()
    if wrong_goals:
        shown[:, 0] = tokens[:, 0].roll(1)
    with torch.no_grad():
        logits = module(shown.unsqueeze(0), mask[:length, :length])[0].double()
    gap = (torch.softmax(logits, -1) - reference.exp()).abs().sum(-1) / 2
    return float(gap[sequences.loss_mask].mean())
