"""Questions "is there a path from s to g?", networks trained to answer them, and references without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import xarray as xr
from torch import Tensor

from lab.decoding import decode
from lab.domains.graphs import navigation as exact
from lab.domains.graphs import path_laws
from lab.domains.graphs.navigation_prompts import (
    Graphs,
    Layout,
    Vocabulary,
    hierarchical_dag,
    navigation,
    path_outcome,
    write_sequences,
)
from lab.labels import labelled
from lab.models.transformer import Transformer
from lab.streams import RandomStream, stream
from lab.study import Networks, Study
from lab.training import Batch
from tasks.stepwise_graph_navigation._shared import CAUSAL, Network, World, batches_of, mask_of, next_token_loss


@dataclass(frozen=True)
class Hierarchy:
    """A random hierarchical graph: nodes in layers, edges only from one layer to the next."""

    layers: int = 8
    """layers of nodes"""
    layer_width: int = 6
    """nodes a layer"""
    edge_probability: float = 0.3
    """probability of an edge between neighbouring layers"""

    def graphs(self, stream: RandomStream, number: int) -> Graphs:
        """``number`` such graphs."""
        return hierarchical_dag(stream, number, self.layers, self.layer_width, self.edge_probability)


NAMES = {
    "stepwise": "path, then answer",
    "direct": "answer at once",
    "suffix": "at once, suffix pairs",
    "filler": "fillers, then answer",
}
PAPER_HIERARCHY = Hierarchy(layers=10, layer_width=20, edge_probability=0.1)


class Questions(NamedTuple):
    """Pairs of one graph to ask about, connected and unconnected ones alternately."""

    adjacency: exact.Adjacency
    start: Tensor
    goal: Tensor
    connected: Tensor
    apart: Tensor
    """layers from start to goal"""


def held_out_questions(world: World, seed: int, number: int) -> Questions:
    """``number`` connected and as many unconnected held-out pairs.

    All pairs are asked about equally often, up to one: the accuracy is that over all held-out pairs, nearly exactly.
    """
    chosen = []
    for name, table in (("yes", world.pairs.held_out_positive), ("no", world.pairs.held_out_negative)):
        pairs = table.nonzero()
        order = torch.from_numpy(stream(seed, "wanderer", "questions", name).rng().permutation(len(pairs)))
        chosen.append(pairs[order[torch.arange(number) * len(pairs) // number]])
    start, goal = torch.stack(chosen, 1).flatten(0, 1).unbind(1)
    apart = world.layer[goal] - world.layer[start]
    return Questions(world.adjacency, start, goal, torch.arange(2 * number) % 2 == 0, apart)


def written_answers(
    module: Transformer, questions: Sequence[Questions], layout: Layout, steps: int, at_once: bool = False
) -> Tensor:
    """What every model writes greedily after its questions [model, question, token].

    Args:
        steps: the most tokens to write.
        at_once: only answers may be written, no path.
    """
    words = Vocabulary(len(questions[0].adjacency))
    prompts = torch.stack(
        [  # without the answer and END
            write_sequences(
                layout, words, model_questions.start.unsqueeze(1), model_questions.goal, model_questions.connected
            ).tokens[:, :-2]
            for model_questions in questions
        ]
    )
    answers = torch.zeros(words.size, dtype=torch.bool)
    answers[[words.connected, words.unconnected]] = True
    mask, stop = mask_of(CAUSAL, 0), words.end
    if at_once:
        return decode(module, prompts, mask, 1, stop_token=stop, allowed=answers).tokens
    return decode(module, prompts, mask, steps, stop_token=stop).tokens


def right_answers(questions: Sequence[Questions], written: Tensor) -> Tensor:
    """Whether the first answer written is the right one [model, question], as 0 and 1."""
    words = Vocabulary(len(questions[0].adjacency))
    is_answer = (written == words.connected) | (written == words.unconnected)
    answer = written.gather(-1, is_answer.int().argmax(-1, keepdim=True)).squeeze(-1)
    connected = torch.stack([model_questions.connected for model_questions in questions])
    return torch.where(connected, answer == words.connected, answer == words.unconnected).double()


def balanced(right: Tensor) -> Tensor:
    """Mean of the accuracies on connected and on unconnected pairs, which alternate [model]."""
    return (right[:, 0::2].mean(1) + right[:, 1::2].mean(1)) / 2


def balanced_by_distance(right: Tensor, questions: Sequence[Questions], layers: int) -> Tensor:
    """The same of the pairs 1, 2, ... ``layers`` - 1 layers apart; NaN where there are none of either kind [model, apart]."""
    rows = []
    for answers, model_questions in zip(right, questions, strict=True):
        kinds = [
            [
                answers[(model_questions.apart == apart) & (model_questions.connected == kind)].mean()
                for kind in (True, False)
            ]
            for apart in range(1, layers)
        ]
        rows.append(torch.tensor(kinds).mean(1))
    return torch.stack(rows)


def answers(module: Transformer, questions: Sequence[Questions], layout: Layout, steps: int) -> dict[str, Tensor]:
    """What every model makes of its questions [model], greedily, in at most ``steps`` tokens.

    ``accuracy``: balanced, over both answers; ``valid``: of the connected pairs, the share with a valid path to the goal.
    """
    words = Vocabulary(len(questions[0].adjacency))
    written = written_answers(module, questions, layout, steps)
    valid = []
    for model_questions, tokens in zip(questions, written, strict=True):
        edges, arrived = path_outcome(
            model_questions.adjacency, model_questions.start, model_questions.goal, tokens, words.connected
        )
        valid.append((edges & arrived)[0::2].double().mean())
    return {"accuracy": balanced(right_answers(questions, written)), "valid": torch.stack(valid)}


def train_answers(
    network: Network,
    worlds: Mapping[int, World],
    kind: str,
    name: str,
    *,
    questions: int,
    records: int = 1,
    offset: int = 0,
) -> xr.Dataset:
    """Train one network a seed on one kind of answer; what `answers` measures during the training [seed, update].

    Beside that, at the end: ``at_once``, the balanced accuracy where only an answer may be written and no path [seed];
    ``by_distance``, the balanced accuracy by the layers between start and goal [seed, apart].

    Args:
        kind: a path and then the answer ("stepwise"), the answer at once ("direct"), the answer at once about nodes on the
            paths of training pairs ("suffix"), or the answer after eight tokens that say nothing ("filler").
        name: of the training, unique within its measurement.
        questions: how many connected, and how many unconnected, held-out pairs are asked about.
        records: evaluations during the training.
        offset: largest random shift of the positions of a training sequence.
    """
    layout: Layout = "stepwise" if kind == "stepwise" else "filler" if kind == "filler" else "direct"
    words = next(iter(worlds.values())).words
    sequences = {
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
    batches = batches_of(sequences, network.batch, words.pad)
    held_out = {seed: held_out_questions(world, seed, questions) for seed, world in worlds.items()}
    longest = max(world.longest_path for world in worlds.values())

    def draw(seed: int, step: int) -> Batch:
        batch = batches(seed, step)
        if not offset:
            return batch
        shift = stream(seed, "wanderer", "offsets", step).rng().integers(0, offset + 1, (network.batch, 1))
        return batch | {"positions": torch.from_numpy(shift) + torch.arange(batch["tokens"].shape[1])}

    steps = longest + 3 if kind == "stepwise" else 2

    def measure(networks: Networks[Transformer]) -> dict[str, Tensor]:
        return answers(networks.module, [held_out[member.seed] for member in networks.members], layout, steps)

    study = Study(network.build(words), arms={CAUSAL: mask_of(CAUSAL, 0)}, encode=None, loss=next_token_loss)
    fitted = study.fit(
        list(worlds), draw, network.optimisation, measure=measure, measure_every=network.interval(records), name=name
    )
    of_models = list(held_out.values())
    layers = 1 + max(int(world.layer.max()) for world in worlds.values())
    right = right_answers(of_models, written_answers(fitted.module, of_models, layout, steps))
    forced = right_answers(of_models, written_answers(fitted.module, of_models, layout, 1, at_once=True))
    return (
        fitted.history[["accuracy", "valid"]]
        .sel(arm=CAUSAL, drop=True)
        .assign(
            at_once=labelled(balanced(forced), seed=list(worlds)),
            by_distance=labelled(
                balanced_by_distance(right, of_models, layers), seed=list(worlds), apart=range(1, layers)
            ),
        )
    )


class References(NamedTuple):
    """What is known without a network: balanced accuracies, and shares of the held-out connected pairs."""

    additive: float
    """accuracy of the additive model"""
    closure: float
    """accuracy of the closure of the training edges"""
    covered: float
    """share of pairs on some path of a training pair"""
    reached: float
    """share of pairs in the closure"""
    law: float
    """expected share of pairs on paths, over all ways to draw as many training pairs"""


def references_of(world: World) -> References:
    pairs = world.pairs
    logit = exact.additive_baseline(pairs.training_positive, pairs.training_negative)
    additive = (
        (logit > 0)[pairs.held_out_positive].double().mean() + (logit <= 0)[pairs.held_out_negative].double().mean()
    ) / 2
    covered, _ = exact.suffix_coverage(world.adjacency, pairs.training_positive)
    closure = exact.transitive_closure(exact.edges_on_paths(world.adjacency, pairs.training_positive))
    known, reached = (float(table[pairs.held_out_positive].double().mean()) for table in (covered, closure))
    law = path_laws.covered_share(world.adjacency, int(pairs.training_positive.sum()))
    return References(float(additive), (1 + reached) / 2, known, reached, law)
