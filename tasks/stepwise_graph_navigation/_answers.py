"""Questions "is there a path from s to g?", networks trained to answer them, and references without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lab.decoding import decode
from lab.domains.graphs import navigation as exact
from lab.domains.graphs.navigation_prompts import (
    Graphs,
    Layout,
    hierarchical_dag,
    navigation,
    path_outcome,
    write_sequences,
)
from lab.models import masks
from lab.models.transformer import Transformer
from lab.streams import Stream, stream
from lab.training import Member, train
from tasks.stepwise_graph_navigation._shared import CAUSAL, Network, World, batches_of, cross_entropy


@dataclass(frozen=True)
class Hierarchy:
    """A random hierarchical graph: nodes in layers, edges only from one layer to the next."""

    layers: int = 8
    """layers of nodes"""
    layer_width: int = 6
    """nodes a layer"""
    edge_probability: float = 0.3
    """probability of an edge between neighbouring layers"""

    def graphs(self, stream: Stream, number: int) -> Graphs:
        """``number`` such graphs."""
        return hierarchical_dag(stream, number, self.layers, self.layer_width, self.edge_probability)


PAPER_HIERARCHY = Hierarchy(layers=10, layer_width=20, edge_probability=0.1)


def held_out_questions(world: World, seed: int, number: int) -> tuple[Tensor, Tensor, Tensor]:
    """``number`` connected and as many unconnected held-out pairs, alternately: starts, goals and labels.

    All pairs are asked about equally often, up to one: the accuracy is that over all held-out pairs, nearly exactly.
    """
    drawn = []
    for name, table in (("yes", world.pairs.held_out_positive), ("no", world.pairs.held_out_negative)):
        pairs = table.nonzero()
        order = torch.from_numpy(stream(seed, "wanderer", "questions", name).rng().permutation(len(pairs)))
        drawn.append(pairs[order[torch.arange(number) * len(pairs) // number]])
    start, goal = torch.stack(drawn, 1).flatten(0, 1).unbind(1)
    return start, goal, torch.arange(2 * number) % 2 == 0


def ask(
    module: Transformer,
    worlds: Sequence[World],
    questions: Sequence[tuple[Tensor, Tensor, Tensor]],
    layout: Layout,
    steps: int,
) -> dict[str, Tensor]:
    """What every model makes of its questions [E], greedily.

    ``accuracy``: balanced, over both answers; ``valid``: of the connected pairs, the share with a valid path to the goal;
    ``ranked``: probability that a connected pair on some path of a training pair gets a higher log odds of "yes"
    directly after the prompt than an unconnected one (what a threshold of the answer cannot change).
    """
    words = worlds[0].words
    prompt = torch.stack(
        [  # without the answer and END
            write_sequences(layout, words, start.unsqueeze(1), goal, connected).tokens[:, :-2]
            for start, goal, connected in questions
        ]
    )
    mask = masks.causal(prompt.shape[2] + steps)
    found = decode(module, prompt, mask, steps, stop_token=words.end).tokens
    is_answer = (found == words.connected) | (found == words.unconnected)
    answer = found.gather(-1, is_answer.int().argmax(-1, keepdim=True)).squeeze(-1)
    truth = torch.stack([connected for _, _, connected in questions])
    right = torch.where(truth, answer == words.connected, answer == words.unconnected).double()
    logits = module(prompt, mask[: prompt.shape[2], : prompt.shape[2]])[:, :, -1]
    odds = logits[..., words.connected] - logits[..., words.unconnected]
    valid, ranked = [], []
    for world, (start, goal, _), tokens, own in zip(worlds, questions, found, odds, strict=True):
        edges, arrived = path_outcome(world.adjacency, start, goal, tokens, words.connected)
        valid.append((edges & arrived)[0::2].double().mean())
        covered = exact.suffix_coverage(world.adjacency, world.pairs.training_positive)[0][start, goal][0::2]
        ranked.append((own[0::2][covered][:, None] > own[1::2]).double().mean())
    return {
        "accuracy": (right[:, 0::2].mean(1) + right[:, 1::2].mean(1)) / 2,
        "valid": torch.stack(valid),
        "ranked": torch.stack(ranked),
    }


def train_answers(
    network: Network,
    worlds: Mapping[int, World],
    kind: str,
    name: str,
    *,
    questions: int,
    records: int = 1,
    offset: int = 0,
) -> dict[str, np.ndarray]:
    """Train one network a seed on one kind of answer; what `ask` measures [seed, record].

    Args:
        kind: a path and then the answer ("stepwise"), the answer at once ("direct"), or the answer at once about nodes on
            the paths of training pairs ("suffix").
        name: of the training, unique within its measurement.
        questions: how many connected, and how many unconnected, held-out pairs are asked about.
        records: evaluations during the training.
        offset: largest random shift of the positions of a training sequence.
    """
    layout: Layout = "stepwise" if kind == "stepwise" else "direct"
    words = next(iter(worlds.values())).words
    data = {
        seed: navigation(
            stream(seed, "wanderer", "sequences"),
            network.steps * network.batch,
            world.adjacency,
            world.pairs.training_positive,
            world.pairs.training_negative,
            layout=layout,
            suffixes=kind == "suffix",
        )
        for seed, world in worlds.items()
    }
    tokens_of = batches_of(data, network.batch, words.pad)
    asked = {seed: held_out_questions(world, seed, questions) for seed, world in worlds.items()}
    longest = max(exact.longest_path(world.adjacency) for world in worlds.values())
    written = longest + 3 if kind == "stepwise" else 2

    def batch(seed: int, step: int) -> dict[str, Tensor]:
        found = tokens_of(seed, step)
        shift = stream(seed, "wanderer", "offsets", step).rng().integers(0, offset + 1, (network.batch, 1))
        return found | {"positions": torch.from_numpy(shift) + torch.arange(found["tokens"].shape[1])}

    def loss(module: Transformer, batch: dict[str, Tensor], arms: tuple[str, ...]) -> Tensor:
        tokens, positions = batch["tokens"], batch["positions"] if offset else None
        return cross_entropy(module(tokens, masks.causal(tokens.shape[2]), positions), batch["targets"])

    def evaluate(module: Transformer, present: tuple[Member, ...]) -> dict[str, Tensor]:
        own = [member.seed for member in present]
        return ask(module, [worlds[seed] for seed in own], [asked[seed] for seed in own], layout, written)

    trained = train(
        lambda chosen: Transformer(network.architecture(words.size), chosen),
        [Member(seed, CAUSAL) for seed in worlds],
        batch,
        loss,
        network.optimisation,
        evaluate=evaluate,
        evaluate_every=-(-network.steps // records),
        name=name,
    )
    return {key: trained.history[key].T for key in ("accuracy", "valid", "ranked")}


def references_of(world: World) -> np.ndarray:
    """Balanced accuracy of the additive model and of the closure; shares of held-out positives in K0 and the closure."""
    pairs = world.pairs
    logit = exact.additive_baseline(pairs.training_positive, pairs.training_negative)
    additive = (
        (logit > 0)[pairs.held_out_positive].double().mean() + (logit <= 0)[pairs.held_out_negative].double().mean()
    ) / 2
    covered, _ = exact.suffix_coverage(world.adjacency, pairs.training_positive)
    edges = exact.edges_on_paths(world.adjacency, pairs.training_positive)
    shares = [table[pairs.held_out_positive].double().mean() for table in (covered, exact.transitive_closure(edges))]
    return torch.stack([additive, (1 + shares[1]) / 2, *shares]).numpy()


ADDITIVE, CLOSURE, COVERED, REACHED = range(4)  # what the entries of `references_of` are
