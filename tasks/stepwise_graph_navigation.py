# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Thinking step by step as finding a way through a graph
#
# Fix one directed acyclic graph and keep it secret. A prompt names a goal $g$ and a start $s$. A model may answer *at
# once* ("there is a path", "there is none"), or *step by step*: write a path $s \to x_1 \to \dots \to g$ first and answer
# then. It is trained on some pairs $(s, g)$ and asked about others. The graph is nowhere in the prompt; it must be in the
# weights. This is a caricature of chain-of-thought reasoning in which everything a model ought to know can be computed:
# numbers of paths, their lengths, which pairs follow from which.
#
# With $A$ the adjacency matrix, $C = (I - A)^{-1}$ counts paths, and the law of a uniformly drawn path is a Markov chain:
# from the node $u$ it steps to $v$ with probability $\pi(v \mid u, g) = A_{uv} C_{vg} / C_{ug}$. This law, and others like
# it, is the yardstick below. (The identities are checked in `proofs_check/stepwise_graph_navigation.py`, together with a
# transformer of one layer, with explicit weights, that writes the law exactly.)
#
# In order:
#
# 1. does stepwise answering generalise better, and why;
# 2. what if training paths are short;
# 3. two kinds of error, learnt one after the other;
# 4. temperature: accuracy against diversity;
# 5. are generated paths too short;
# 6. what a single layer learns;
# 7. several graphs whose connections stand in the context.
#
# **Causal and prefix attention.** A *prefix* mask lets the tokens of the prompt see each other in both directions. The
# prompt of the first six sections is a fixed form filled with two words, and all later tokens see all of it anyway: the
# prefix mask should change nothing. With one layer it changes nothing to the last digit (a claim of the proofs file), so
# that no second arm is trained there (sections 1, 2, 5 and 6); the two-layer networks of sections 3 and 4 are trained in both
# arms. In section 7 the prompt holds worked examples, and there it may matter: again both arms. The last figure collects
# all differences.
#
# Networks are small (width 32, one or two layers, a few hundred steps) so that every claim can rest on ten or more
# independent graphs and trainings; where the small size changes a finding, the text says so.

# %%
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from torch import Tensor

from lab import Evidence, LabError, Paper, Task, control
from lab.decoding import decode
from lab.domains.graphs import navigation as exact
from lab.domains.graphs.navigation_prompts import (
    Layout,
    Pairs,
    Sequences,
    Vocabulary,
    bernoulli_dag,
    conflicting_chains,
    draw_motifs,
    draw_pairs,
    hierarchical_dag,
    motif_chains,
    navigation,
    path_outcome,
    reserve_orders,
    sample_walks,
    split_by_distance,
    split_pairs,
    write_sequences,
)
from lab.figures import ARMS, REFERENCES, THEORY, Drawing, label, mean_curve, panels
from lab.models import masks
from lab.models.transformer import Architecture, Transformer
from lab.results import Results
from lab.statistics import mean_band
from lab.streams import stream
from lab.training import Member, Optimisation, train


@dataclass(frozen=True)
class Network:
    """A transformer and how it is trained (AdamW, warm-up over a tenth of the steps, then cosine to 0)."""

    layers: int = 1
    """blocks"""
    heads: int = 2
    """attention heads a block"""
    width: int = 32
    """size of the residual stream"""
    mlp_ratio: float = 4.0
    """hidden size of the MLP over width, 0 for attention only"""
    initial_scale: float = 0.1
    """standard deviation of the initial weights"""
    learning_rate: float = 1e-2
    """peak of the schedule"""
    steps: int = 400
    """updates"""
    batch: int = 16
    """sequences a step"""


@dataclass(frozen=True)
class Config:
    """Sizes of graphs, networks and tests."""

    layers: int = 8
    """layers of the hierarchical graph"""
    layer_width: int = 6
    """nodes a layer"""
    edge_probability: float = 0.3
    """probability of an edge between neighbouring layers"""
    training_fraction: float = 0.3
    """share of pairs that is trained on in section 1"""
    bernoulli_nodes: int = 48
    """nodes of the Bernoulli graph of section 1"""
    bernoulli_probability: float = 0.1
    """its edge probability"""
    limits: tuple[int, ...] = (2, 3, 4, 5)
    """longest training paths of section 2, in layers; networks are trained at the first and the last"""
    offset: int = 4
    """largest random shift of positions in section 2"""
    path_nodes: int = 50
    """nodes of the Bernoulli graph of sections 3 to 6"""
    path_probability: float = 0.16
    """its edge probability"""
    path_fraction: float = 0.3
    """share of its connected pairs that is trained on"""
    samples: int = 200
    """paths sampled at each temperature in section 4"""
    temperatures: tuple[float, ...] = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0)
    """sampling temperatures of section 4"""
    motifs: int = 6
    """motifs of section 7"""
    reserved: int = 4
    """ordered pairs of motifs that training never shows"""
    longest_chain: int = 5
    """motifs of the longest training chain"""
    questions: int = 250
    """questions a network of sections 1 and 2 is asked for each answer, yes and no"""
    tests: int = 120
    """paths a network of sections 3 to 6 is asked for"""
    chain_tests: int = 40
    """questions about chains of each kind in section 7"""
    conflicts: int = 400
    """contexts with two conflicting chains in section 7"""
    records: int = 4
    """evaluations during a training of section 1"""
    answer: Network = Network(steps=400)
    """networks of sections 1 and 2"""
    short_steps: int = 280
    """updates in section 2"""
    two_layers: Network = Network(layers=2, mlp_ratio=2.0, initial_scale=0.03, steps=660)
    """networks of sections 3 and 4"""
    one_layer: Network = Network(heads=1, mlp_ratio=0.0, initial_scale=0.05, steps=600)
    """networks of sections 5 and 6"""
    chains: Network = Network(layers=2, mlp_ratio=1.0, steps=520, batch=8)
    """networks of section 7"""
    shuffled_steps: int = 440
    """updates where exemplars are shuffled"""
    graphs: int = 24
    """graphs whose closed forms section 2 compares"""
    hierarchical_trainings: int = 14
    """independent graphs and trainings of hierarchical graphs in section 1"""
    bernoulli_trainings: int = 14
    """independent graphs and trainings of Bernoulli graphs in section 1"""
    short_trainings: int = 12
    """independent graphs and trainings of section 2"""
    path_trainings: int = 10
    """independent graphs and trainings of sections 3 and 4"""
    one_layer_trainings: int = 12
    """independent graphs and trainings of sections 5 and 6"""
    chain_trainings: int = 10
    """independent sets of motifs and trainings of section 7"""

    def __post_init__(self) -> None:
        if not {1.0, 1.5} <= set(self.temperatures):
            raise LabError(
                f"The temperatures {self.temperatures} leave out 1 or 1.5, at which claims of section 4 are judged; add them."
            )


TINY = Network(steps=12, batch=8)
PAPER = Network(layers=2, heads=2, width=64, initial_scale=0.02, learning_rate=1e-3, steps=20_000, batch=64)
TASK = Task(
    "stepwise-graph-navigation",
    Paper(
        "Towards an understanding of stepwise inference in transformers: a synthetic graph navigation model",
        "M. Khona, M. Okawa, J. Hula, R. Ramesh, K. Nishi, R. Dick, E. S. Lubana, H. Tanaka",
        2024,
        arxiv="2402.07757",
    ),
    presets={
        "smoke": Config(
            questions=12,
            tests=12,
            chain_tests=4,
            conflicts=12,
            samples=12,
            records=2,
            answer=TINY,
            short_steps=12,
            two_layers=replace(TINY, layers=2, mlp_ratio=2.0, steps=40),
            one_layer=replace(TINY, heads=1, mlp_ratio=0.0),
            chains=replace(TINY, layers=2, mlp_ratio=1.0, batch=4),
            shuffled_steps=12,
            graphs=2,
            hierarchical_trainings=2,
            bernoulli_trainings=2,
            short_trainings=2,
            path_trainings=2,
            one_layer_trainings=2,
            chain_trainings=2,
        ),
        "ci": Config(),
        "paper": Config(
            layers=10,
            layer_width=20,
            edge_probability=0.1,
            bernoulli_nodes=200,
            bernoulli_probability=0.05,
            training_fraction=0.2,
            limits=(2, 3, 4),
            offset=8,
            path_nodes=200,
            path_probability=0.05,
            path_fraction=0.2,
            samples=3000,
            motifs=8,
            reserved=10,
            questions=1000,
            tests=1000,
            chain_tests=1000,
            conflicts=1000,
            records=16,
            answer=PAPER,
            short_steps=20_000,
            two_layers=PAPER,
            one_layer=replace(PAPER, layers=1, heads=1, mlp_ratio=0.0),
            chains=PAPER,
            shuffled_steps=20_000,
        ),
    },
)

KINDS = ("stepwise", "direct", "suffix")
CAUSAL, PREFIX = "causal", "prefix"
# Rows of the position tables: more than any sequence here needs, so that a model's initial weights do not depend on
# the graphs of others.
POSITIONS = 96
RECORDS = 12  # evaluations during a training of sections 3 and 4
# What is evaluated there: greedy paths whose edges all exist, and of those, the ones that end at the goal; at the steps of
# true paths, probability of an edge, and of a node that leads to the goal, given that it is an edge.
ERRORS = PATH_EDGES, PATH_PLANS, STEP_EDGES, STEP_PLANS = range(4)


@dataclass(frozen=True)
class World:
    """One seed's graph and its split of pairs."""

    adjacency: exact.Adjacency
    layer: Tensor
    pairs: Pairs

    @property
    def words(self) -> Vocabulary:
        return Vocabulary(len(self.adjacency))


def batches_of(data: Mapping[int, Sequences], size: int, pad: int) -> Callable[[int, int], dict[str, Tensor]]:
    """Batch ``step`` of a seed: the next ``size`` of its pre-drawn sequences, cut to the longest of all seeds' batches."""
    longest = max(one.tokens.shape[1] for one in data.values())

    def fit(table: Tensor, value: int) -> Tensor:
        return F.pad(table, (0, longest - table.shape[1]), value=value)

    tokens = {seed: fit(one.tokens, pad) for seed, one in data.items()}
    targets = {seed: fit(one.targets, -1) for seed, one in data.items()}
    ends = torch.stack([(one >= 0).int().mul(torch.arange(longest)).amax(1) for one in targets.values()])
    widths = 1 + ends.amax(0).unflatten(0, (-1, size)).amax(1)

    def batch(seed: int, step: int) -> dict[str, Tensor]:
        rows, width = slice(step * size, (step + 1) * size), int(widths[step])
        return {"tokens": tokens[seed][rows, :width], "targets": targets[seed][rows, :width]}

    return batch


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over the scored tokens of each model's batch [E]."""
    loss = F.cross_entropy(logits.flatten(0, 2), targets.flatten(), ignore_index=-1, reduction="none")
    return loss.view(len(logits), -1).sum(1) / (targets >= 0).flatten(1).sum(1)


def mask_of(arms: Sequence[str], length: int, prefix_length: int) -> Tensor:
    """The mask of each model, or one for all where they agree."""
    kinds = {CAUSAL: masks.causal(length), PREFIX: masks.prefix_lm(length, prefix_length)}
    if len(set(arms)) == 1:
        return kinds[arms[0]]
    return torch.stack([kinds[arm] for arm in arms])


def architecture_of(network: Network, vocabulary: int) -> Architecture:
    return Architecture(
        width=network.width,
        layers=network.layers,
        heads=network.heads,
        vocabulary=vocabulary,
        output_size=vocabulary,
        positions="learned",
        maximum_length=POSITIONS,
        mlp_ratio=network.mlp_ratio,
        activation="relu",
        initial_scale=network.initial_scale,
    )


def optimisation_of(network: Network, steps: int | None = None) -> Optimisation:
    return Optimisation(
        steps or network.steps,
        network.learning_rate,
        warmup=0.1,
        schedule="cosine",
        optimiser="adamw",
        betas=(0.9, 0.95),
        weight_decay=0.01,
        clip_norm=1.0,
    )


# %% [markdown]
# ## 1. The stepwise gap
#
# Two kinds of graph. *Hierarchical*: layers of nodes, edges only from one layer to the next. *Bernoulli*: an edge
# $i \to j$ for any $i < j$ with one probability. Training pairs are a random share of the connected pairs and of those
# unconnected pairs whose goal lies above the start (the others could be told by their layer). There are three ways to
# answer:
#
# * `stepwise`: a path drawn uniformly among all, then the answer; for an unconnected pair a random walk into a dead end;
# * `direct`: the answer at once;
# * `suffix`: direct again, but the question is about a random node $u$ *on* the path of the training pair instead of $s$.
#   A path to $g$ says of every node on it that it leads to $g$; this arm gets that information without the path.
#
# Three references need no network. *Additive*: a logistic model $a_s + b_g + c$ that knows how many nodes $s$ reaches and
# how many reach $g$. *Suffix coverage* $K_0$: pairs $(u, g)$ that lie on some path of a training pair. *Closure*: pairs
# connected through edges that occur in training paths at all. A model that only repeats suffixes stops at $K_0$;
# one that puts edges together freely reaches the closure.


# %%
def graph_world(config: Config, family: str, seed: int) -> World:
    source = stream(seed, "wanderer", family)
    if family == "hierarchical":
        graphs = hierarchical_dag(source.child("graph"), 1, config.layers, config.layer_width, config.edge_probability)
    else:
        graphs = bernoulli_dag(source.child("graph"), 1, config.bernoulli_nodes, config.bernoulli_probability)
    adjacency, layer = graphs.adjacency[0], graphs.layer[0]
    return World(adjacency, layer, split_pairs(source.child("split"), adjacency, layer, config.training_fraction))


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
    config: Config, worlds: Mapping[int, World], kind: str, name: str, steps: int, records: int, offset: int = 0
) -> dict[str, np.ndarray]:
    """Train one network a seed on one kind of answer; what `ask` measures [seed, record]."""
    network = replace(config.answer, steps=steps)
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
    questions = {seed: held_out_questions(world, seed, config.questions) for seed, world in worlds.items()}
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
        return ask(module, [worlds[seed] for seed in own], [questions[seed] for seed in own], layout, written)

    trained = train(
        lambda chosen: Transformer(architecture_of(network, words.size), chosen),
        [Member(seed, CAUSAL) for seed in worlds],
        batch,
        loss,
        optimisation_of(network),
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


def train_kinds(config: Config, seeds: tuple[int, ...], family: str, kinds: Sequence[str]) -> dict[str, np.ndarray]:
    """Accuracies [seed, record] of all kinds of answer, each on the same graphs and questions, and the references."""
    worlds = {seed: graph_world(config, family, seed) for seed in seeds}
    found: dict[str, np.ndarray] = {"references": np.stack([references_of(worlds[seed]) for seed in seeds])}
    for kind in kinds:
        trained = train_answers(config, worlds, kind, f"{family}-{kind}", config.answer.steps, config.records)
        found |= {f"{kind}_{key}": value for key, value in trained.items()}
    return found


@TASK.measurement(seeds=lambda config: config.hierarchical_trainings, ensemble=True, seeds_per_job=14)
def hierarchical_answers(config: Config, seeds: tuple[int, ...]) -> dict[str, np.ndarray]:
    """All three kinds of answer on hierarchical graphs."""
    return train_kinds(config, seeds, "hierarchical", KINDS)


@TASK.measurement(seeds=lambda config: config.bernoulli_trainings, ensemble=True, seeds_per_job=14)
def bernoulli_answers(config: Config, seeds: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Stepwise and direct answers on Bernoulli graphs."""
    return train_kinds(config, seeds, "bernoulli", ("stepwise", "direct"))


# %% [markdown]
# ## 2. Short training paths
#
# Now train on pairs at most $\Delta$ layers apart and ask about pairs farther apart. What is there to gain from steps can
# be computed without a network. One-edge paths already contain every edge, so that a perfect stitcher knows everything
# (the closure) whatever $\Delta$. A direct answer, if it is additive, gets better with $\Delta$: the farther apart the pairs
# asked about, the more of them are connected, and the better the two marginals say which. The *ideal gap*, closure minus
# additive model, therefore shrinks as training paths get longer. `compose` is a direct answer of another kind: it knows
# the training pairs and follows chains of them (their transitive closure). Edges are pairs too, so it knows everything as
# well, and leaves no gap.
#
# Positions are a trap for networks here: with learned absolute positions a network learns *where* in the sequence paths
# end, and stops there. Shifting every training sequence by a random offset takes that cue away (questions come without
# shift).


# %%
def near_world(config: Config, limit: int, seed: int) -> World:
    """A graph, of 64 drawn the first in which some pairs beyond the last limit are connected and some are not."""
    source = stream(seed, "wanderer", "near")
    graphs = hierarchical_dag(source.child("graph"), 64, config.layers, config.layer_width, config.edge_probability)
    far = graphs.layer[:, None, :] - graphs.layer[:, :, None] > config.limits[-1]
    connected = exact.path_counts(graphs.adjacency) > 0
    usable = (far & connected).flatten(1).any(1) & (far & ~connected).flatten(1).any(1)
    chosen = int(usable.int().argmax())
    adjacency, layer = graphs.adjacency[chosen], graphs.layer[chosen]
    return World(adjacency, layer, split_by_distance(adjacency, layer, limit))


@TASK.measurement(seeds=lambda config: config.graphs)
def ideal_gaps(config: Config, seed: int) -> dict[str, np.ndarray]:
    """Balanced accuracies on pairs beyond each limit without any network: additive model, closure, composed pairs."""
    rows = []
    for limit in config.limits:
        world = near_world(config, limit, seed)
        additive, closure = references_of(world)[:2]
        composed = exact.transitive_closure(world.pairs.training_positive)[world.pairs.held_out_positive]
        rows.append([additive, closure, (1 + composed.double().mean()) / 2])
    additive, closure, compose = np.array(rows).T
    return {"additive": additive, "closure": closure, "compose": compose}


@TASK.measurement(seeds=lambda config: config.short_trainings, ensemble=True, seeds_per_job=12)
def short_paths(config: Config, seeds: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Final accuracies beyond the first and the last limit; ``fixed``: the last limit without random offsets."""
    found: dict[str, np.ndarray] = {}
    nearest, farthest = config.limits[0], config.limits[-1]
    arms = (
        ("stepwise", nearest, config.offset),
        ("stepwise", farthest, config.offset),
        ("fixed", farthest, 0),
        ("direct", nearest, config.offset),
        ("direct", farthest, config.offset),
    )
    for arm, limit, offset in arms:
        worlds = {seed: near_world(config, limit, seed) for seed in seeds}
        kind = "direct" if arm == "direct" else "stepwise"
        trained = train_answers(config, worlds, kind, f"{arm}-{limit}", config.short_steps, 1, offset)
        found |= {f"{arm}_{limit}_{key}": trained[key][:, -1] for key in ("accuracy", "valid")}
    return found


# %% [markdown]
# ## 3 to 6. Paths only
#
# For the rest of the single-graph story the answer token is dropped: the prompt is $g\,s$, all pairs are connected, and the
# network continues with the path and END. The graph is a Bernoulli graph, whose paths from $s$ to $g$ have different
# lengths. A path can go wrong in two ways: a *misstep*, a written edge that does not exist; or a *planning failure*, a
# valid path that ends elsewhere.
#
# The reference is the law of the training paths itself. Two laws are used: *uniform*, every path $s \to g$ equally likely,
# and the *conditioned walk*, the random walk to uniform out-neighbours given that it comes by $g$.


# %%
def path_world(config: Config, seed: int) -> World:
    source = stream(seed, "wanderer", "paths")
    graphs = bernoulli_dag(source.child("graph"), 1, config.path_nodes, config.path_probability)
    adjacency, layer = graphs.adjacency[0], graphs.layer[0]
    return World(adjacency, layer, split_pairs(source.child("split"), adjacency, layer, config.path_fraction))


def draw_paths(world: World, seed: int, name: str, number: int, table: Tensor, policy: exact.Policy) -> Sequences:
    source = stream(seed, "wanderer", "path sequences", name)
    return navigation(source, number, world.adjacency, table, layout="path", policy=policy)


def distant_pairs(world: World) -> Tensor:
    """Table of the held-out connected pairs at least two steps apart."""
    return world.pairs.held_out_positive & (exact.shortest_paths(world.adjacency) >= 2)


def step_probabilities(law: Tensor, sequences: Sequences, world: World) -> Tensor:
    """(P(a step is an edge), P(it leads to the goal, given that it is an edge)) over the steps of true paths [2].

    Args:
        law: next-token probabilities at every place of the sequences.
    """
    moving = sequences.loss_mask & (sequences.targets != world.words.end)
    current = sequences.tokens[moving]
    goal = sequences.goal.unsqueeze(1).expand_as(moving)[moving]
    edge = world.adjacency[current]
    leading = edge & (exact.path_counts(world.adjacency) > 0).T[goal]
    here = law[moving][:, : world.words.nodes].double()
    on_edges, towards = (here * edge).sum(), (here * leading).sum()
    return torch.stack([on_edges / len(here), towards / on_edges])


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


@TASK.measurement(seeds=lambda config: config.path_trainings, ensemble=True, seeds_per_job=10)
def two_layer_paths(config: Config, seeds: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Networks of two layers on uniform paths, both arms: errors during training, distance to the law, temperature."""
    network = config.two_layers
    worlds = {seed: path_world(config, seed) for seed in seeds}
    words = worlds[seeds[0]].words
    laws = {seed: exact.uniform_path_policy(world.adjacency) for seed, world in worlds.items()}
    data = {
        seed: draw_paths(
            worlds[seed],
            seed,
            "training",
            network.steps * network.batch,
            worlds[seed].pairs.training_positive,
            laws[seed],
        )
        for seed in seeds
    }
    batch = batches_of(data, network.batch, words.pad)
    longest = max(exact.longest_path(world.adjacency) for world in worlds.values())
    written = longest + 2
    asked = {
        seed: draw_paths(world, seed, "questions", config.tests // 2, distant_pairs(world), laws[seed])
        for seed, world in worlds.items()
    }
    width = max(one.tokens.shape[1] for one in asked.values())
    patterns = {arm: mask_of([arm], POSITIONS, 2) for arm in (CAUSAL, PREFIX)}

    def loss(module: Transformer, batch: dict[str, Tensor], arms: tuple[str, ...]) -> Tensor:
        tokens = batch["tokens"]
        return cross_entropy(module(tokens, mask_of(arms, tokens.shape[2], 2)), batch["targets"])

    def evaluate(module: Transformer, present: tuple[Member, ...]) -> dict[str, Tensor]:
        errors = torch.zeros(len(present), len(ERRORS), dtype=torch.float64)
        for arm in {member.arm for member in present}:
            places = [place for place, member in enumerate(present) if member.arm == arm]
            own = [present[place].seed for place in places]
            paths = error_shares(
                module.select(places),
                patterns[arm],
                [worlds[seed] for seed in own],
                torch.stack([asked[seed].tokens[:, :2] for seed in own]),
                written,
            )
            tokens = torch.stack([F.pad(asked[seed].tokens, (0, width), value=words.pad)[:, :width] for seed in own])
            laws = torch.softmax(module.select(places)(tokens, patterns[arm][:width, :width]).double(), -1)
            steps = [
                step_probabilities(law[:, : asked[seed].tokens.shape[1]], asked[seed], worlds[seed])
                for seed, law in zip(own, laws, strict=True)
            ]
            errors[places] = torch.cat([torch.stack(paths, 1), torch.stack(steps)], 1)
        return {"errors": errors}

    trained = train(
        lambda chosen: Transformer(architecture_of(network, words.size), chosen),
        [Member(seed, arm) for seed in seeds for arm in (CAUSAL, PREFIX)],
        batch,
        loss,
        optimisation_of(network),
        evaluate=evaluate,
        evaluate_every=-(-network.steps // RECORDS),
        name="two-layers",
    )
    found = {
        f"{arm}_errors": trained.history["errors"][:, trained.indices(arm)].swapaxes(0, 1) for arm in (CAUSAL, PREFIX)
    }
    found["ignorant_steps"] = np.stack(
        [
            step_probabilities(torch.full((*one.tokens.shape, words.size), 1 / words.size), one, worlds[seed])
            for seed, one in asked.items()
        ]
    )
    readings = {
        "causal_training": (CAUSAL, CAUSAL, "training_positive", False),
        "prefix_training": (PREFIX, PREFIX, "training_positive", False),
        "causal_held_out": (CAUSAL, CAUSAL, "held_out_positive", False),
        "prefix_held_out": (PREFIX, PREFIX, "held_out_positive", False),
        "crossed": (PREFIX, CAUSAL, "training_positive", False),
        "wrong_goals": (CAUSAL, CAUSAL, "training_positive", True),
    }
    for name, (arm, read_as, pairs, wrong) in readings.items():
        distances = []
        for seed, world in worlds.items():
            fresh = draw_paths(world, seed, f"fresh {pairs}", config.tests, getattr(world.pairs, pairs), laws[seed])
            module = trained.module.select([trained.index(seed, arm)])
            distances.append(distance_to_law(module, patterns[read_as], fresh, laws[seed], world, wrong))
        found[f"{name}_distance"] = np.array(distances)
    return found | sample_at_temperatures(config, trained.arm(CAUSAL), worlds, laws, written)


def sample_at_temperatures(
    config: Config, module: Transformer, worlds: Mapping[int, World], laws: Mapping[int, exact.Policy], written: int
) -> dict[str, np.ndarray]:
    """Paths sampled for one training pair a seed, the one with most paths up to 60, by networks and by the exact law."""
    words = next(iter(worlds.values())).words
    chosen, counts = [], []
    for world in worlds.values():
        count = exact.path_counts(world.adjacency) * world.pairs.training_positive
        best = torch.where(count <= 60, count, 0.0)
        start, goal = divmod(int(best.argmax()), len(best))
        chosen.append((goal, start))
        counts.append(float(best.max()))
    prompts = torch.tensor(chosen).unsqueeze(1).expand(-1, config.samples, -1)
    found: dict[str, list[list[float]]] = {
        key: [] for key in ("accuracy", "distinct", "exact_accuracy", "exact_distinct")
    }
    for temperature in config.temperatures:
        source = stream(next(iter(worlds)), "wanderer", "samples", str(temperature))
        tokens = decode(
            module,
            prompts,
            masks.causal(POSITIONS),
            written,
            stop_token=words.end,
            temperature=temperature,
            stream=source,
        ).tokens
        row: dict[str, list[float]] = {key: [] for key in found}
        for place, (seed, world) in enumerate(worlds.items()):
            goals, starts = prompts[place].unbind(1)
            law = exact.temper(laws[seed], temperature)
            walks = sample_walks(stream(seed, "wanderer", "exact", str(temperature)), law, starts, goals, written)
            walks = torch.where(walks < 0, words.end, walks)[:, 1:]
            for name, paths in (("", tokens[place]), ("exact_", walks)):
                edges, arrived = path_outcome(world.adjacency, starts, goals, paths, words.end)
                right = edges & arrived
                row[f"{name}accuracy"].append(float(right.double().mean()))
                row[f"{name}distinct"].append(len(paths[right].unique(dim=0)))
        for key, values in row.items():
            found[key].append(values)
    measured, predicted = mass_off_edges(config, module, worlds, laws)
    return {key: np.array(values).T for key, values in found.items()} | {
        "count": np.array(counts),
        "mass_off_edges": measured.numpy(),
        "predicted_mass": predicted.numpy(),
    }


def mass_off_edges(
    config: Config, module: Transformer, worlds: Mapping[int, World], laws: Mapping[int, exact.Policy]
) -> tuple[Tensor, Tensor]:
    """Probability of a step along no edge, mean over true paths of training pairs: measured, and predicted from T = 1.

    Both [seed, temperature], for the temperatures from 1 upwards. Wrong tokens are all nodes that are no neighbours, and
    END: the other signs never follow a node in training.
    """
    hot = [temperature for temperature in config.temperatures if temperature >= 1]
    measured, predicted = [], []
    for place, (seed, world) in enumerate(worlds.items()):
        one = draw_paths(world, seed, "mass", config.tests, world.pairs.training_positive, laws[seed])
        with torch.no_grad():
            logits = module.select([place])(one.tokens.unsqueeze(0), masks.causal(one.tokens.shape[1]))[0]
        moving = one.loss_mask & (one.targets != world.words.end)
        here = logits[moving].double()
        right = F.pad(world.adjacency[one.tokens[moving]], (0, world.words.size - world.words.nodes))
        mass = torch.stack([(torch.softmax(here / t, -1) * ~right).sum(-1).mean() for t in hot])
        neighbours = right.sum(1).double()
        others = world.words.nodes + 1 - neighbours
        gap = exact.misstep_gap(neighbours, others, float(mass[hot.index(1.0)]))
        measured.append(mass)
        predicted.append(torch.stack([exact.misstep_probability(neighbours, others, gap, t).mean() for t in hot]))
    return torch.stack(measured), torch.stack(predicted)


LAWS = ("uniform", "shuffled", "walk")
LONGEST_DRAWN = 15  # steps of the length histograms and positions of the attention map
CONTRASTS = 300  # sibling contrasts kept for drawing


@TASK.measurement(seeds=lambda config: config.one_layer_trainings, ensemble=True, seeds_per_job=12)
def one_layer_paths(config: Config, seeds: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Attention-only networks of one layer: uniform paths, the same with goals shuffled, conditioned walks."""
    network = config.one_layer
    worlds = {seed: path_world(config, seed) for seed in seeds}
    words = worlds[seeds[0]].words
    uniform = {seed: exact.uniform_path_policy(world.adjacency) for seed, world in worlds.items()}
    walk = {seed: exact.conditioned_walk_policy(world.adjacency) for seed, world in worlds.items()}
    laws = {"uniform": uniform, "shuffled": uniform, "walk": walk}
    number = network.steps * network.batch
    data = {
        name: {
            seed: draw_paths(world, seed, "training", number, world.pairs.training_positive, law[seed])
            for seed, world in worlds.items()
        }
        for name, law in laws.items()
    }
    for seed, one in data["shuffled"].items():
        order = torch.from_numpy(stream(seed, "wanderer", "shuffled goals").rng().permutation(number))
        one.tokens[:, 0] = one.tokens[order, 0]
    batches = {name: batches_of(sequences, network.batch, words.pad) for name, sequences in data.items()}

    def batch(seed: int, step: int) -> dict[str, Tensor]:
        return {f"{name} {key}": value for name, own in batches.items() for key, value in own(seed, step).items()}

    def loss(module: Transformer, batch: dict[str, Tensor], arms: tuple[str, ...]) -> Tensor:
        width = max(batch[f"{law} tokens"].shape[2] for law in LAWS)
        tokens, targets = (
            torch.stack(
                [
                    F.pad(one, (0, width - one.shape[1]), value=filling)
                    for one in (batch[f"{arm} {key}"][place] for place, arm in enumerate(arms))
                ]
            )
            for key, filling in (("tokens", words.pad), ("targets", -1))
        )
        return cross_entropy(module(tokens, masks.causal(width)), targets)

    trained = train(
        lambda chosen: Transformer(architecture_of(network, words.size), chosen),
        [Member(seed, law) for seed in seeds for law in LAWS],
        batch,
        loss,
        optimisation_of(network),
        evaluate_every=network.steps,
        name="one-layer",
    )
    found: dict[str, np.ndarray] = {}
    for name in LAWS:
        parts = [
            examine(config, trained.module.select([trained.index(seed, name)]), world, seed, laws[name][seed])
            for seed, world in worlds.items()
        ]
        found |= {f"{name}_{key}": np.stack([part[key] for part in parts]) for key in parts[0]}
    return found


def examine(
    config: Config, module: Transformer, world: World, seed: int, law: exact.Policy
) -> dict[str, float | np.ndarray]:
    """Everything that is asked of one trained one-layer network."""
    words, pairs, tests = world.words, world.pairs, config.tests
    mask = masks.causal(POSITIONS)
    written = exact.longest_path(world.adjacency) + 2
    fresh = draw_paths(world, seed, "fresh training", tests, pairs.training_positive, law)
    found: dict[str, float | np.ndarray] = {}

    prompts = torch.stack([fresh.goal, fresh.start], 1)
    shares = error_shares(module, mask, [world], prompts.unsqueeze(0), written)
    found["training_edges"], found["training_plan"] = (float(share[0]) for share in shares)
    start, goal, _ = draw_pairs(stream(seed, "wanderer", "path questions"), tests, distant_pairs(world))
    shares = error_shares(module, mask, [world], torch.stack([goal, start], 1).unsqueeze(0), written)
    found["edges"], found["plan"] = (float(share[0]) for share in shares)
    found["distance"] = distance_to_law(module, mask, fresh, law, world)

    # lengths of the right paths it writes for training pairs, against the exact means of the same pairs
    means = {name: exact.policy_lengths(exact.temper(law, tau)) for name, tau in (("data", 1.0), ("mode", 0.0))}
    for name, temperature in (("greedy", 0.0), ("sampled", 1.0)):
        asked = prompts.repeat(8, 1) if temperature else prompts
        source = stream(seed, "wanderer", "lengths") if temperature else None
        tokens = decode(
            module, asked, mask, written, stop_token=words.end, temperature=temperature, stream=source
        ).tokens[0]
        goals, starts = asked.unbind(1)
        edges, arrived = path_outcome(world.adjacency, starts, goals, tokens, words.end)
        steps = (tokens != words.end).sum(-1)[edges & arrived]
        expected = means["data"][starts, goals][edges & arrived]
        # -1, as of paths without length, where no path is right
        found[f"{name}_change"] = (steps.sum() / expected.sum().clamp(min=1.0) - 1).numpy()
        found[f"{name}_histogram"] = length_histogram(steps)
    found["data_histogram"] = length_histogram((fresh.targets >= 0).sum(1) - 1)
    for name, lengths in means.items():
        found[f"{name}_length"] = lengths[fresh.start, fresh.goal].mean().numpy()
    return found | mechanism(module, world, fresh)


def length_histogram(steps: Tensor) -> np.ndarray:
    """How many paths have 0, 1, ..., `LONGEST_DRAWN` steps."""
    return torch.bincount(steps, minlength=LONGEST_DRAWN + 1)[: LONGEST_DRAWN + 1].numpy()


def mechanism(module: Transformer, world: World, fresh: Sequences) -> dict[str, np.ndarray]:
    """What the single head does: where it looks, what its two main terms decide, what its goal table holds."""
    nodes, tokens = world.words.nodes, fresh.tokens
    length = tokens.shape[1]
    record: dict[str, Tensor] = {}
    weight = {name: parameter[0].detach() for name, parameter in module.named_parameters()}
    with torch.no_grad():
        logits = module(tokens.unsqueeze(0), masks.causal(length), record=record)[0]
        weights = record["layers.0.attention.weights"][0, :, 0]
        values = record["layers.0.attention.value"][0, :, 0]
        to_goal, to_self = weights[:, :, :1], weights.diagonal(dim1=1, dim2=2).unsqueeze(-1)

        def read(update: Tensor) -> Tensor:
            added = update @ weight["layers.0.attention.output.weight"] + weight["layers.0.attention.output.bias"]
            return module.read((record["embedding"][0] + added).unsqueeze(0))[0]

        own = to_self * values
        two_terms, no_goal = read(to_goal * values[:, :1] + own).argmax(-1), read(own).argmax(-1)
    # The table: what the goal token's value adds to the logits, up to the scale of the final norm.
    start = weight["embedding"][:nodes] + weight["positions"][0]
    gain, shift = (weight[f"layers.0.attention_norm.{name}"] for name in ("weight", "bias"))
    value = F.layer_norm(start, start.shape[-1:], gain, shift) @ weight["layers.0.attention.value.weight"]
    value = (value + weight["layers.0.attention.value.bias"]) @ weight["layers.0.attention.output.weight"]
    centred = (value - value.mean(-1, keepdim=True)) * weight["final_norm.weight"]
    table = (centred @ weight["read_out.weight"])[:, :nodes].double()
    place = torch.arange(length)
    later = fresh.loss_mask & (place >= 2)
    said = logits.argmax(-1)
    adjacency = world.adjacency
    counts = exact.path_counts(adjacency)
    hits = exact.hitting_probabilities(adjacency)
    log_counts, log_hits = (torch.where(t > 0, t.clamp(min=1e-300).log(), 0.0).T for t in (counts, hits))
    nearness = -torch.where(counts > 0, exact.shortest_paths(adjacency), 0.0).T
    taught = exact.suffix_coverage(adjacency, world.pairs.training_positive)[0]
    contrasts = exact.sibling_contrasts(adjacency, taught)
    own_contrasts, *others = (
        exact.centred_contrasts(one, contrasts) for one in (table, log_counts, nearness, log_hits)
    )
    connected = (counts > 0).T & ~torch.eye(nodes, dtype=torch.bool)
    drawn = torch.full((3, CONTRASTS), torch.nan, dtype=torch.float64)
    kept = torch.stack([own_contrasts, *others[:2]])[:, :CONTRASTS]
    drawn[:, : kept.shape[1]] = kept
    size = min(length, LONGEST_DRAWN)
    attention = np.zeros((LONGEST_DRAWN, LONGEST_DRAWN))
    seen = (fresh.loss_mask | (place < 2)).double()[:, :size].unsqueeze(-1)
    attention[:size, :size] = ((weights[:, :size, :size].double() * seen).sum(0) / seen.sum(0).clamp(min=1)).numpy()
    return {
        "attention_two": (to_goal + to_self).squeeze(-1)[later].mean().numpy(),
        "attention_goal": to_goal.squeeze(-1)[later].mean().numpy(),
        "two_terms_agree": (two_terms == said)[later].double().mean().numpy(),
        "no_goal_agree": (no_goal == said)[later].double().mean().numpy(),
        "contrast_correlations": np.array([correlation(own_contrasts, one) for one in others]),
        "raw_correlations": np.array([correlation(table[connected], one[connected]) for one in (log_counts, nearness)]),
        "contrasts": drawn.numpy(),
        "attention": attention,
    }


def correlation(first: Tensor, second: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([first, second]))[0, 1])


# %% [markdown]
# ## 7. Connections in the context
#
# Several small graphs, *motifs*, live in the weights: two sources, two nodes between, two sinks, edges upwards. What joins
# them is new in every sequence: *ghost edges* from a sink of one motif to a source of another, shown by *exemplars*, each a
# path that crosses one ghost edge. After exemplars for $i_1 \to i_2$, ..., $i_{K-1} \to i_K$ the model is given a start in
# $i_1$ and a goal in $i_K$ and must write the way. Training has $K = 2, \dots, 5$ and never puts certain ordered pairs of
# motifs next to each other.


# %%
def motif_world(config: Config, seed: int) -> tuple[Tensor, Tensor]:
    source = stream(seed, "wayfarer", "motifs")
    return draw_motifs(source, config.motifs, 0.75), reserve_orders(source, config.motifs, config.reserved)


def chain_questions(config: Config) -> list[tuple[int, bool]]:
    """(motifs in the chain, whether a reserved pair occurs) of every kind of question."""
    longest = config.longest_chain
    return [(length, held) for length in range(2, longest + 1) for held in (False, True)] + [(longest + 1, False)]


def train_chains(
    config: Config, seeds: tuple[int, ...], arms: tuple[str, ...], steps: int, shuffled: bool
) -> dict[str, np.ndarray]:
    """Train on chains, each arm: losses [seed, record], successes [seed, kind of question], choices at a conflict."""
    network, longest = config.chains, config.longest_chain
    worlds = {seed: motif_world(config, seed) for seed in seeds}
    words = Vocabulary(len(worlds[seeds[0]][0]))
    lengths = longest - 1
    rows = -(-steps // lengths) * network.batch
    data = {
        (seed, length): motif_chains(
            stream(seed, "wayfarer", "chains", length), rows, motifs, length, reserved, shuffled=shuffled
        )
        for seed, (motifs, reserved) in worlds.items()
        for length in range(2, longest + 1)
    }

    def batch(seed: int, step: int) -> dict[str, Tensor]:
        # One length of chain a step: no padding, and one mask for all.
        one = data[seed, 2 + step % lengths]
        chosen = slice(step // lengths * network.batch, (step // lengths + 1) * network.batch)
        return {
            "tokens": one.tokens[chosen, :-1],
            "targets": one.targets[chosen, :-1],
            "prefix_length": one.prefix_length[chosen],
        }

    def loss(module: Transformer, batch: dict[str, Tensor], arms: tuple[str, ...]) -> Tensor:
        prefix = int(batch["prefix_length"][0, 0])
        logits = module(batch["tokens"], mask_of(arms, batch["tokens"].shape[2], prefix))
        return cross_entropy(logits[:, :, prefix - 1 :], batch["targets"][:, :, prefix - 1 :])

    trained = train(
        lambda chosen: Transformer(architecture_of(network, words.size), chosen),
        [Member(seed, arm) for seed in seeds for arm in arms],
        batch,
        loss,
        optimisation_of(network, steps),
        evaluate_every=max(lengths, steps // 15 // lengths * lengths),
        name="shuffled" if shuffled else "ordered",
    )
    found = {"step": np.tile(trained.history["step"], (len(seeds), 1))}
    for arm in arms:
        module = trained.arm(arm)
        found[f"{arm}_loss"] = trained.history["loss"][:, trained.indices(arm)].T
        found[f"{arm}_success"] = ask_chains(config, module, worlds, arm, shuffled)
        found[f"{arm}_choices"] = ask_conflicts(config, module, worlds, arm)
    return found


def ask_chains(
    config: Config, module: Transformer, worlds: Mapping[int, tuple[Tensor, Tensor]], arm: str, shuffled: bool
) -> np.ndarray:
    """Share of right paths [seed, kind of question], read under the mask of ``arm``."""
    successes = []
    for length, held in chain_questions(config):
        asked = [
            motif_chains(
                stream(seed, "wayfarer", "chain questions", length, int(held)),
                config.chain_tests,
                motifs,
                length,
                reserved,
                held_out=held,
                shuffled=shuffled,
            )
            for seed, (motifs, reserved) in worlds.items()
        ]
        prefix = int(asked[0].prefix_length[0])
        prompts = torch.stack([one.tokens[:, :prefix] for one in asked])
        stop = Vocabulary(len(worlds[next(iter(worlds))][0])).end
        written = decode(module, prompts, mask_of([arm], POSITIONS, prefix), 3 * length, stop_token=stop).tokens
        right = []
        for one, (motifs, _), tokens in zip(asked, worlds.values(), written, strict=True):
            edges, arrived = path_outcome(motifs, one.tokens[:, prefix - 1], one.goal, tokens, stop, one.ghosts)
            right.append((edges & arrived).double().mean())
        successes.append(torch.stack(right))
    return torch.stack(successes, 1).numpy()


def ask_conflicts(
    config: Config, module: Transformer, worlds: Mapping[int, tuple[Tensor, Tensor]], arm: str
) -> np.ndarray:
    """Share of greedy answers whose first ghost edge is that of the first and of the second chain [seed, 2]."""
    asked = [
        conflicting_chains(stream(seed, "wayfarer", "conflicts"), config.conflicts, motifs)
        for seed, (motifs, _) in worlds.items()
    ]
    prefix = int(asked[0].prefix_length[0])
    prompts = torch.stack([one.tokens[:, :prefix] for one in asked])
    written = decode(module, prompts, mask_of([arm], POSITIONS, prefix), 3).tokens
    first = torch.stack([one.ghosts[:, [0, 2]] for one in asked])  # [seed, question, chain, 2]
    return (written[:, :, None, 1:3] == first).all(-1).double().mean(1).numpy()


@TASK.measurement(seeds=lambda config: config.chain_trainings, ensemble=True, seeds_per_job=10)
def ordered_exemplars(config: Config, seeds: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Exemplars in the order of the chain."""
    return train_chains(config, seeds, (CAUSAL, PREFIX), config.chains.steps, shuffled=False)


@TASK.measurement(seeds=lambda config: config.chain_trainings, ensemble=True, seeds_per_job=10)
def shuffled_exemplars(config: Config, seeds: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Exemplars in random order."""
    return train_chains(config, seeds, (CAUSAL,), config.shuffled_steps, shuffled=True)


# %% [markdown]
# # What was found
#
# ## The stepwise gap and its causes

# %%
STYLES = {
    "stepwise": {"color": "#1f4e9e", "linestyle": "-", "marker": "o"},
    "direct": {"color": "#d1495b", "linestyle": "--", "marker": "s"},
    "suffix": {"color": "#2e8b57", "linestyle": ":", "marker": "D"},
}
NAMES = {"stepwise": "path, then answer", "direct": "answer at once", "suffix": "at once, suffix pairs"}


def final_accuracy(results: Results, family: str, kind: str) -> np.ndarray:
    """Balanced accuracy of one kind of answer after training, or of a reference without a network [seed]."""
    measured = results[hierarchical_answers if family == "hierarchical" else bernoulli_answers]
    if kind in ("additive", "closure"):
        return measured["references"][:, ADDITIVE if kind == "additive" else CLOSURE]
    return measured[f"{kind}_accuracy"][:, -1]


@TASK.figure
def stepwise_gap(results: Results) -> Drawing:
    """Balanced accuracy on held-out pairs during training; both graphs, three kinds of answer, two references."""
    figure, axes = panels(1, 2)
    steps, records = results.config.answer.steps, results.config.records
    shares = 100 * np.minimum(np.arange(1, records + 1) * -(-steps // records), steps) / steps
    rows = []
    for place, (family, measured) in enumerate(
        (("hierarchical", results[hierarchical_answers]), ("bernoulli", results[bernoulli_answers]))
    ):
        panel = axes[0, place]
        kinds = [kind for kind in KINDS if f"{kind}_accuracy" in measured]
        for kind in kinds:
            samples = measured[f"{kind}_accuracy"]
            rows.append(mean_curve(panel, shares, samples, STYLES[kind], NAMES[kind]).assign(graph=family))
        additive, closure = measured["references"][:, :2].mean(0)
        panel.axhline(additive, label="additive baseline (no network)", **THEORY)
        panel.axhline(closure, color=REFERENCES[1], linewidth=0.8, label="closure of training paths")
        gap = (measured["stepwise_accuracy"] - measured["direct_accuracy"])[:, -1].mean()
        name = "Hierarchical" if place == 0 else "Bernoulli"
        label(panel, f"{name} graph: stepwise leads by {gap:.2f}", "share of training (%)", "balanced accuracy")
        rows.append(
            pd.DataFrame({"curve": ["additive", "closure"], "x": np.nan, "mean": [additive, closure], "graph": family})
        )
    for panel in axes[0]:
        panel.set_ylim(0.5, 1.02)
    axes[0, 0].legend(loc="lower right", ncols=2)
    axes[0, 1].text(
        0.98,
        0.03,
        "causal arm; with one layer the prefix arm\nis the same to the last digit",
        transform=axes[0, 1].transAxes,
        ha="right",
        fontsize=8,
    )
    return Drawing(figure, pd.concat(rows, ignore_index=True))


@TASK.claim(
    "stepwise-graph-navigation/P1",
    where="section 4.1, figure 3a-b",
    kind="ordering",
    statement="After equally many updates a network that writes a path before it answers has a higher balanced accuracy on "
    "held-out pairs than one that answers at once, on hierarchical and on Bernoulli graphs.",
    controls=[control("a perfect stitcher in place of the network that answers at once", second="closure")],
)
def stepwise_beats_direct(results: Results, second: str = "direct") -> Evidence:
    parts = [
        Evidence.over_seeds(
            final_accuracy(results, family, "stepwise") - final_accuracy(results, family, second),
            ">",
            0.0,
            f"no difference, {family} graph",
            parts=2,
        )
        for family in ("hierarchical", "bernoulli")
    ]
    return Evidence.weakest(*parts)


@TASK.claim(
    "stepwise-graph-navigation/P1.additive",
    where="derived",
    kind="phenomenon",
    statement="A network that answers at once is hardly better than the additive logistic model $a_s + b_g + c$: it closes "
    "less than a quarter of what separates that model from the closure of the training edges.",
    controls=[control("a perfect stitcher of training paths", kind="closure")],
)
def direct_is_additive(results: Results, kind: str = "direct") -> Evidence:
    additive, closure, network = (
        final_accuracy(results, "hierarchical", name) for name in ("additive", "closure", kind)
    )
    share = (network - additive) / (closure - additive).mean()
    return Evidence.over_seeds(share, "<=", 0.25, "a quarter, fixed beforehand")


@TASK.claim(
    "stepwise-graph-navigation/P1.stitching",
    where="derived, on section 4.1",
    kind="phenomenon",
    statement="Stitching is a cause of the gap: the share of held-out connected pairs for which a stepwise network writes a "
    "valid path exceeds the share $K_0$ that lies on training paths, and does not exceed the closure of their edges.",
    controls=[control("the closure in place of $K_0$", lower=REACHED)],
)
def stepwise_stitches(results: Results, lower: int = COVERED) -> Evidence:
    measured = results[hierarchical_answers]
    valid, references = measured["stepwise_valid"][:, -1], measured["references"]
    return Evidence.weakest(
        Evidence.over_seeds(valid - references[:, lower], ">=", 0.0, "suffix coverage", parts=2),
        Evidence.over_seeds(valid - references[:, REACHED], "<=", 0.0, "closure of the training edges", parts=2),
    )


# %%
TASK.show(stepwise_gap)

# %% [markdown]
# A direct network learns how *many* nodes start and goal are connected to, hardly which. A stepwise network is ahead because
# it puts edges together while it writes. What the path says about its suffixes may be another cause: the `suffix` arm, drawn
# beside, answers at once but was asked about all nodes of its paths. It leads `direct` in every training, but at the share of
# the false-alarm budget that a claim may take the interval of its mean lead clears zero by less than a hundredth: no claim
# is made of so narrow a margin. (Nor is resolved here whether the gap is larger on the hierarchical graph than on the
# Bernoulli graph, as the paper reports: the figure shows both.)

# %%
TASK.show(stepwise_beats_direct)
TASK.show(direct_is_additive)
TASK.show(stepwise_stitches)

# %% [markdown]
# ## Short training paths


# %%
@TASK.figure
def short_training_paths(results: Results) -> Drawing:
    """What is to be gained from steps, by the longest training path; and what networks make of it."""
    figure, axes = panels(1, 2)
    ideal, found, limits = results[ideal_gaps], results[short_paths], np.array(results.config.limits)
    ends = limits[[0, -1]]
    rows = []
    panel = axes[0, 0]
    for kind, style, name in (
        ("closure", STYLES["stepwise"], "closure minus additive model"),
        ("compose", STYLES["suffix"], "closure minus composed pairs"),
    ):
        gap = ideal["closure"] - ideal["additive" if kind == "closure" else "compose"]
        rows.append(points(panel, limits, list(gap.T), style, name))
    panel.set_ylim(bottom=-0.01)
    panel.set_xticks(limits)
    panel.legend()
    label(
        panel, "Ideal gap: shrinks as training paths grow", "longest training path (layers)", "difference of accuracies"
    )

    panel = axes[0, 1]
    for kind in ("stepwise", "direct"):
        samples = [found[f"{kind}_{limit}_accuracy"] for limit in ends]
        rows.append(points(panel, ends, samples, STYLES[kind], NAMES[kind]))
    style = STYLES["suffix"] | {"linestyle": "none"}
    fixed = [found[f"fixed_{ends[1]}_accuracy"]]
    rows.append(points(panel, ends[1:] - 0.12, fixed, style, "path, positions not shifted"))
    panel.plot(limits, ideal["additive"].mean(0), label="additive model", **THEORY)
    panel.plot(limits, ideal["closure"].mean(0), color=REFERENCES[1], linewidth=0.8, label="closure")
    panel.set_xticks(limits)
    panel.set_ylim(0.3, 1.03)
    panel.legend(loc="lower right")
    label(
        panel,
        "Networks stitch if paths were long",
        "longest training path (layers)",
        "balanced accuracy, farther pairs",
    )
    return Drawing(figure, pd.concat(rows, ignore_index=True))


def points(
    axes: Axes, x: np.ndarray, samples: Sequence[np.ndarray], style: Mapping[str, str], name: str
) -> pd.DataFrame:
    """Means with 95 % intervals over seeds at single places."""
    mean = np.array([one.mean() for one in samples])
    ends = [mean_band(one) for one in samples]
    low, high = np.array([end[0] for end in ends]), np.array([end[1] for end in ends])
    axes.errorbar(x, mean, [mean - low, high - mean], label=name, capsize=3, **style)  # type: ignore[arg-type]
    return pd.DataFrame({"curve": name, "x": x, "mean": mean, "low": low, "high": high})


@TASK.claim(
    "stepwise-graph-navigation/P2",
    where="section 4.2, figure 3c, for ideal answers",
    kind="ordering",
    statement=r"The gap shrinks as the longest training path grows: what separates a perfect stitcher of training paths from "
    r"the additive model of a direct answer, on pairs more than $\Delta$ layers apart, is smaller for $\Delta = 5$ than for "
    r"$\Delta = 2$.",
    controls=[control("trained networks in place of ideal answers", trained=True)],
)
def gap_shrinks_with_length(results: Results, trained: bool = False) -> Evidence:
    shortest, *_, longest = results.config.limits
    if trained:
        found = results[short_paths]
        short, long = (
            found[f"stepwise_{limit}_accuracy"] - found[f"direct_{limit}_accuracy"] for limit in (shortest, longest)
        )
    else:
        found = results[ideal_gaps]
        short, *_, long = (found["closure"] - found["additive"]).T
    return Evidence.over_seeds(short - long, ">", 0.0, "no difference")


@TASK.claim(
    "stepwise-graph-navigation/P2.trained",
    where="section 4.2, figure 3c",
    kind="training",
    statement=r"A trained network stitches what was long: for connected pairs more than $\Delta$ layers apart it writes a valid "
    r"path more often after training with $\Delta = 5$ than with $\Delta = 2$.",
    controls=[control("a perfect stitcher of short paths in place of the network trained on them", perfect=True)],
)
def long_paths_help(results: Results, perfect: bool = False) -> Evidence:
    found, limits = results[short_paths], results.config.limits
    short, long = (found[f"stepwise_{limit}_valid"] for limit in (limits[0], limits[-1]))
    if perfect:
        # A balanced accuracy of 1, so that every connected pair is reached: the share of valid paths is 1 as well.
        short = results[ideal_gaps]["closure"][: len(long), 0]
    return Evidence.over_seeds(long - short, ">", 0.0, "no difference")


@TASK.claim(
    "stepwise-graph-navigation/P2.positions",
    where="derived, on section 4.2",
    kind="training",
    statement="Absolute positions are a trap: after training with $\\Delta = 5$, shifting training sequences by random offsets "
    "raises the balanced accuracy of stepwise answers on farther pairs by more than $0.1$.",
    controls=[control("the additive model in place of the unshifted network", additive=True)],
)
def offsets_help(results: Results, additive: bool = False) -> Evidence:
    found, limit = results[short_paths], results.config.limits[-1]
    shifted, fixed = found[f"stepwise_{limit}_accuracy"], found[f"fixed_{limit}_accuracy"]
    worse = results[ideal_gaps]["additive"][: len(shifted), -1] if additive else fixed
    return Evidence.over_seeds(shifted - worse, ">=", 0.1, "fixed beforehand")


# %%
TASK.show(short_training_paths)

# %% [markdown]
# The ordering of the paper is that of the ideal answers. These small networks do not reach it: direct networks follow the
# additive model, but stepwise ones, which ought to be at the closure, are far below it where training paths were short.
# They know the edges and end too early. So the measured gap at $\Delta = 2$ is negative here, for a reason that has nothing
# to do with what the training paths say and much with where in the sequence they stopped.

# %%
TASK.show(gap_shrinks_with_length)
# %%
TASK.show(long_paths_help)
TASK.show(offsets_help)

# %% [markdown]
# ## Two kinds of error
#
# *Paths*: of the greedy paths for held-out pairs, the share whose edges all exist, and of those, the share that ends at the
# goal. *Steps*: on the way along a true path, the probability that the next step is an edge, and of that, the share on nodes
# from which the goal can be reached; both from the whole next-token law. *Progress* is how far one of these numbers has come
# from a network that knows nothing (for paths 0, for steps the uniform law over tokens) to its own end. Its mean over the
# training says how early something is learnt.


# %%
@TASK.figure
def two_kinds_of_error(results: Results) -> Drawing:
    """Held-out pairs: are the edges right, and if so, is the goal reached; for greedy paths and for single steps."""
    figure, axes = panels(1, 2)
    found = results[two_layer_paths]
    rows = []
    records, total = found["causal_errors"].shape[1], results.config.two_layers.steps
    steps = np.minimum(np.arange(1, records + 1) * -(-total // RECORDS), total)
    parts = (
        ("Greedy paths: edges come first", (PATH_EDGES, PATH_PLANS), "share of paths"),
        ("Single steps: both at one pace", (STEP_EDGES, STEP_PLANS), "probability at a step"),
    )
    for panel, (title, kinds, name) in zip(axes[0], parts, strict=True):
        for which, line, marker, key in zip(
            kinds, ("-", "--"), ("o", "s"), ("edges exist", "towards goal, if so"), strict=True
        ):
            for arm, filling in ((CAUSAL, "white"), (PREFIX, None)):
                style = {"color": ARMS[arm]["color"], "linestyle": line, "marker": marker}
                style |= {"markerfacecolor": filling} if filling else {}
                samples = found[f"{arm}_errors"][:, :, which]
                rows.append(mean_curve(panel, steps, samples, style, f"{key}, {arm}").assign(of=name))
        panel.set_ylim(0, 1.03)
        label(panel, title, "training step", name)
    for chance in found["ignorant_steps"].mean(0):
        axes[0, 1].axhline(chance, **THEORY)
    axes[0, 1].text(0.98, 0.12, "dotted: a uniform law", transform=axes[0, 1].transAxes, ha="right", fontsize=8)
    axes[0, 0].legend(loc="lower right")
    return Drawing(figure, pd.concat(rows, ignore_index=True))


def progress(results: Results, which: int) -> np.ndarray:
    """Mean over the training of the way gone from knowing nothing to its end, causal arm [seed]."""
    found = results[two_layer_paths]
    curve = found["causal_errors"][:, :, which]
    begin = found["ignorant_steps"][:, which - STEP_EDGES, None] if which >= STEP_EDGES else 0.0
    way = np.broadcast_to(curve[:, -1:] - begin, curve.shape)
    return np.divide(curve - begin, way, out=np.zeros_like(curve), where=way != 0).mean(1)


@TASK.claim(
    "stepwise-graph-navigation/P3",
    where="section 4.4, figure 5",
    kind="phenomenon",
    statement="Greedy paths have valid edges before they reach the goal: averaged over the training, the progress of valid "
    "edges is ahead of that of plans by more than half the time between two evaluations.",
    controls=[control("single steps in place of greedy paths", first=STEP_EDGES, later=STEP_PLANS)],
)
def edges_before_plans(results: Results, first: int = PATH_EDGES, later: int = PATH_PLANS) -> Evidence:
    lead = progress(results, first) - progress(results, later)
    return Evidence.over_seeds(lead, ">", 0.5 / RECORDS, "half the time between two of 12 evaluations")


@TASK.claim(
    "stepwise-graph-navigation/P3.steps",
    where="derived, on section 4.4",
    kind="phenomenon",
    statement="At single steps there is no such order: in the network's next-token law on the way along true paths, edges are "
    "ahead of plans by less than half the time between two evaluations.",
    controls=[control("greedy paths in place of steps", first=PATH_EDGES, later=PATH_PLANS)],
)
def steps_learn_both(results: Results, first: int = STEP_EDGES, later: int = STEP_PLANS) -> Evidence:
    lead = progress(results, first) - progress(results, later)
    return Evidence.over_seeds(lead, "<", 0.5 / RECORDS, "half the time between two of 12 evaluations")


@TASK.claim(
    "stepwise-graph-navigation/P3.goal",
    where="derived, on section 4.4",
    kind="training",
    statement="Valid edges need no goal and plans do: with goal tokens shuffled over the training sequences, more than $0.9$ "
    "of the paths have valid edges and less than $0.1$ of those reach the goal.",
    controls=[control("goals not shuffled", law="uniform")],
)
def plans_need_goals(results: Results, law: str = "shuffled") -> Evidence:
    found = results[one_layer_paths]
    return Evidence.weakest(
        Evidence.over_seeds(found[f"{law}_edges"], ">=", 0.9, "fixed beforehand", parts=2),
        Evidence.over_seeds(found[f"{law}_plan"], "<=", 0.1, "fixed beforehand", parts=2),
    )


# %%
TASK.show(two_kinds_of_error)
TASK.show(edges_before_plans)

# %% [markdown]
# The order belongs to whole paths: a path is valid if it only follows edges, wherever they lead, but it reaches the goal only
# if every step heads there and the last one stops there. Early networks write valid walks that miss the goal. At a single
# step, starting from a true path, edges and direction are learnt together.

# %%
TASK.show(steps_learn_both)
TASK.show(plans_need_goals)

# %% [markdown]
# ## Accuracy against diversity
#
# For one pair with many paths, sample many continuations at temperature $\tau$. The *exact* law loses no accuracy: all it
# ever writes are valid paths. $\tau = 1$ spreads them evenly; beyond, where every step is flattened, paths become uneven
# again. A network is not exact: the logits of non-edges lie a finite gap $\Delta$ below those of edges, so $M$ wrong tokens
# get the probability $M e^{-\Delta/\tau} / (k + M e^{-\Delta/\tau})$ beside $k$ right ones. Fit $\Delta$ at $\tau = 1$,
# predict the rest. Between $\tau = 1$ and the highest temperature this over-estimates: the wrong tokens' logits are not all
# equal, a few high ones make up the mass at $\tau = 1$, and by the inequality of power means a sum of unequal terms grows
# less with $\tau$.


# %%
@TASK.figure
def temperature(results: Results) -> Drawing:
    """Paths sampled for one pair: share that is right, number of different right ones, probability of a misstep."""
    figure, axes = panels(1, 3)
    found, taus = results[two_layer_paths], np.array(results.config.temperatures)
    exactly = {"color": "black", "linestyle": ":", "marker": "^"}
    rows = [
        mean_curve(axes[0, 0], taus, found["accuracy"], ARMS[CAUSAL], "network"),
        mean_curve(axes[0, 0], taus, found["exact_accuracy"], exactly, "exact law"),
    ]
    axes[0, 0].legend(loc="center right")
    label(axes[0, 0], "Heat costs a network accuracy ...", "temperature", "share of right paths")
    share, sampled = (found[key] / found["count"][:, None] for key in ("distinct", "exact_distinct"))
    rows.append(mean_curve(axes[0, 1], taus, share, ARMS[CAUSAL], "network"))
    rows.append(mean_curve(axes[0, 1], taus, sampled, exactly, "exact law"))
    expected = np.mean([exact.expected_distinct(c, results.config.samples) / c for c in found["count"]])
    axes[0, 1].plot([1.0], [expected], "k*", markersize=10, label=r"$1 - (1 - 1/C)^S$")
    axes[0, 1].legend(loc="lower center")
    label(axes[0, 1], "... and diversity rises, then falls", "temperature", "different right paths / all paths")
    hot = taus[taus >= 1]
    rows.append(mean_curve(axes[0, 2], hot, found["mass_off_edges"], ARMS[CAUSAL], "network"))
    axes[0, 2].plot(hot, found["predicted_mass"].mean(0), label="one logit gap, fitted at 1", **THEORY)
    axes[0, 2].legend()
    label(axes[0, 2], "One logit gap makes the missteps", "temperature", "probability of a misstep")
    return Drawing(figure, pd.concat(rows, ignore_index=True))


@TASK.claim(
    "stepwise-graph-navigation/P4",
    where="section 4.3, figure 4",
    kind="phenomenon",
    statement="Temperature trades accuracy for diversity: from the lowest to the highest temperature the share of right "
    "paths falls by more than a half, while the number of different right paths is larger at temperature $1$ than at both "
    "ends by more than a quarter of all paths.",
    controls=[control("paths sampled from the exact law at the same temperatures", source="exact_")],
)
def accuracy_against_diversity(results: Results, source: str = "") -> Evidence:
    found, taus = results[two_layer_paths], list(results.config.temperatures)
    accuracy = found[f"{source}accuracy"]
    share = found[f"{source}distinct"] / found["count"][:, None]
    middle = share[:, taus.index(1.0)]
    return Evidence.weakest(
        Evidence.over_seeds(accuracy[:, 0] - accuracy[:, -1], ">=", 0.5, "half of all paths", parts=3),
        Evidence.over_seeds(middle - share[:, 0], ">=", 0.25, "a quarter of the paths", parts=3),
        Evidence.over_seeds(middle - share[:, -1], ">=", 0.25, "a quarter of the paths", parts=3),
    )


@TASK.claim(
    "stepwise-graph-navigation/P4.gap",
    where="derived, on section 4.3",
    kind="phenomenon",
    statement="A single logit gap between edges and non-edges, fitted at temperature $1$, predicts the probability of a "
    "misstep at temperature $3$ within $30\\,\\%$ (at the highest temperature alone: on the way there it predicts too much, "
    "at $1.5$ by more than a tenth).",
    controls=[control("the gap not divided by the temperature", divided=False)],
)
def one_gap_predicts(results: Results, divided: bool = True) -> Evidence:
    found, taus = results[two_layer_paths], np.array(results.config.temperatures)
    predicted = found["predicted_mass"] if divided else found["predicted_mass"][:, :1]
    logs = np.log(predicted / found["mass_off_edges"])
    warm = list(taus[taus >= 1]).index(1.5)
    return Evidence.weakest(
        Evidence.over_seeds(np.abs(logs[:, -1]), "<=", np.log(1.3), "a factor of 1.3, fixed beforehand", parts=2),
        Evidence.over_seeds(logs[:, warm], ">=", np.log(1.1), "a tenth too much at 1.5", parts=2),
    )


# %%
TASK.show(temperature)
TASK.show(accuracy_against_diversity)
TASK.show(one_gap_predicts)

# %% [markdown]
# ## Are generated paths too short?
#
# The paper reports that models write paths shorter than the true ones, a bias to simplicity. Whether that is so can be
# computed without a network. Under the uniform law on paths the *likeliest* next node is the one with most paths to the
# goal, and those are the long ways: greedy decoding lengthens. Under the conditioned walk every branching on the way costs
# probability: the likeliest path is short, and greedy decoding shortens. Low temperature shortens paths here under the law
# of training paths that makes long ones less likely, and lengthens them under the other.


# %%
@TASK.figure
def path_lengths(results: Results) -> Drawing:
    """Lengths of training paths and of written ones, for two laws of paths; vertical lines are exact means."""
    figure, axes = panels(1, 2)
    found = results[one_layer_paths]
    rows = []
    x = np.arange(LONGEST_DRAWN + 1)
    for place, law in enumerate(("uniform", "walk")):
        panel = axes[0, place]
        for key, style in (("data", "-"), ("sampled", "--"), ("greedy", ":")):
            histogram = found[f"{law}_{key}_histogram"].astype(float)
            share = (histogram / np.maximum(histogram.sum(1, keepdims=True), 1)).mean(0)
            name = {"data": "training law", "sampled": "network, temperature 1", "greedy": "network, greedy"}[key]
            panel.step(x, share, where="mid", linestyle=style, label=name)
            rows.append(pd.DataFrame({"law": law, "curve": key, "x": x, "mean": share}))
        for key, style in (("data", "-"), ("mode", ":")):
            panel.axvline(found[f"{law}_{key}_length"].mean(), color="black", linestyle=style, linewidth=1)
        panel.set_xlim(0.5, 10.5)
        title = ("Uniform law: greedy paths are longer", "Walk law: greedy paths are shorter")[place]
        label(panel, title, "steps (vertical: exact means, dotted greedy)", "share of paths")
    axes[0, 0].legend()
    return Drawing(figure, pd.concat(rows, ignore_index=True))


@TASK.claim(
    "stepwise-graph-navigation/P5",
    where="section 4.5, figure 6",
    kind="phenomenon",
    statement="Right paths that a network writes greedily are shorter on average than those it was trained on.",
    expected="refuted",
    condition="when long paths are less likely than short ones in training, as under the conditioned random walk; for "
    "uniformly drawn paths greedy ones are longer",
    controls=[control("trained on conditioned walks", law="walk")],
)
def greedy_shortens(results: Results, law: str = "uniform") -> Evidence:
    change = results[one_layer_paths][f"{law}_greedy_change"]
    return Evidence.over_seeds(change, "<", 0.0, "the exact mean length of the training law")


@TASK.claim(
    "stepwise-graph-navigation/P5.law",
    where="derived, on section 4.5",
    kind="phenomenon",
    statement="The law of the training paths decides: greedy paths are longer than the training law's mean for uniform "
    "paths, and shorter for conditioned walks.",
    controls=[control("the two laws exchanged", longer="walk", shorter="uniform")],
)
def law_decides_length(results: Results, longer: str = "uniform", shorter: str = "walk") -> Evidence:
    found, origin = results[one_layer_paths], "the exact mean length of the same pairs"
    return Evidence.weakest(
        Evidence.over_seeds(found[f"{longer}_greedy_change"], ">", 0.0, origin, parts=2),
        Evidence.over_seeds(found[f"{shorter}_greedy_change"], "<", 0.0, origin, parts=2),
    )


# %%
TASK.show(path_lengths)
TASK.show(greedy_shortens)
TASK.show(law_decides_length)

# %% [markdown]
# ## The network learns the law of paths, and one layer is enough


# %%
@TASK.claim(
    "stepwise-graph-navigation/P6",
    where="derived, on section 5",
    kind="training",
    statement=r"A trained network writes the law of its training paths: on fresh paths between training pairs its next-token "
    r"law is within total variation $0.08$ of $A_{uv} C_{vg} / C_{ug}$ (two layers, both masks).",
    controls=[control("another sequence's goal in the prompt", readings=("wrong_goals",))],
)
def learns_the_law(results: Results, readings: tuple[str, ...] = ("causal_training", "prefix_training")) -> Evidence:
    found = results[two_layer_paths]
    return Evidence.weakest(
        *(
            Evidence.over_seeds(found[f"{name}_distance"], "<=", 0.08, "fixed beforehand", parts=len(readings))
            for name in readings
        )
    )


@TASK.claim(
    "stepwise-graph-navigation/P6.prefix",
    where="derived",
    kind="phenomenon",
    statement="The prefix mask over a prompt of two words changes nothing that can be seen: the distances of the two arms to "
    "the law of paths differ by less than $0.02$ on average.",
    controls=[control("another sequence's goal instead of another mask", other="wrong_goals")],
)
def prefix_is_null(results: Results, other: str = "prefix_training") -> Evidence:
    found = results[two_layer_paths]
    difference = found[f"{other}_distance"] - found["causal_training_distance"]
    origin = "a quarter of the distance allowed to the law itself"
    return Evidence.weakest(
        Evidence.over_seeds(difference, "<=", 0.02, origin, parts=2),
        Evidence.over_seeds(difference, ">=", -0.02, origin, parts=2),
    )


@TASK.claim(
    "stepwise-graph-navigation/P7",
    where="section 5, the simplified algorithm",
    kind="training",
    statement="One attention layer with one head and no MLP suffices: more than $0.9$ of its greedy paths between training "
    "pairs are valid and reach the goal.",
    controls=[control("goals shuffled in training", law="shuffled")],
)
def one_layer_suffices(results: Results, law: str = "uniform") -> Evidence:
    found = results[one_layer_paths]
    return Evidence.over_seeds(
        found[f"{law}_training_edges"] * found[f"{law}_training_plan"], ">=", 0.9, "fixed beforehand"
    )


@TASK.claim(
    "stepwise-graph-navigation/P7.attention",
    where="section 5",
    kind="training",
    statement="In prefixes of three or more tokens the last token's head gives more than a third of its attention to the "
    "goal token alone.",
    controls=[control("goals shuffled in training", law="shuffled")],
)
def attends_to_goal(results: Results, law: str = "uniform") -> Evidence:
    return Evidence.over_seeds(
        results[one_layer_paths][f"{law}_attention_goal"], ">=", 1 / 3, "uniform attention to three tokens"
    )


@TASK.claim(
    "stepwise-graph-navigation/P7.terms",
    where="section 5",
    kind="training",
    statement="Two terms decide: with all attention but that to the goal and to the current node dropped, the likeliest next "
    "token stays the same in more than $0.85$ of the steps.",
    controls=[control("the goal's term dropped too", key="no_goal_agree")],
)
def two_terms_decide(results: Results, key: str = "two_terms_agree") -> Evidence:
    return Evidence.over_seeds(results[one_layer_paths][f"uniform_{key}"], ">=", 0.85, "fixed beforehand")


@TASK.claim(
    "stepwise-graph-navigation/P7.table",
    where="section 5, 'distance to the goal'",
    kind="training",
    statement="Under uniform paths the goal's table tracks the log number of paths: where two continuations $v, w$ compete, "
    r"its contrast over goals correlates more with that of $\log C_{vg}$ than with that of minus the distance, and more than "
    "with that of the log hitting probability of a random walk.",
    controls=[control("trained on conditioned walks, whose law holds hitting probabilities", law="walk")],
)
def table_counts_paths(results: Results, law: str = "uniform") -> Evidence:
    counts, nearness, hits = results[one_layer_paths][f"{law}_contrast_correlations"].T
    return Evidence.weakest(
        Evidence.over_seeds(counts - nearness, ">", 0.0, "equal correlations", parts=2),
        Evidence.over_seeds(counts - hits, ">", 0.0, "equal correlations", parts=2),
    )


@TASK.figure
def goal_table(results: Results) -> Drawing:
    """What the goal's value vector adds to the logits, against two readings; where the head looks."""
    figure, axes = panels(1, 3)
    found = results[one_layer_paths]
    table, counts, nearness = found["uniform_contrasts"][0]
    correlations = found["uniform_contrast_correlations"].mean(0)
    raw = found["uniform_raw_correlations"].mean(0)
    readings = (
        (counts, "log number of paths", correlations[0], raw[0]),
        (nearness, "minus distance", correlations[1], raw[1]),
    )
    for place, (reading, name, correlation, plain) in enumerate(readings):
        panel = axes[0, place]
        panel.plot(reading, table, ".", color="#1f4e9e", alpha=0.5, markersize=3)
        title = f"{name}: correlation {correlation:.2f}"
        label(panel, title, f"contrast of {name} (one seed)", "contrast of the goal table (logits)")
        panel.text(
            0.03,
            0.95,
            f"mean of {len(found['uniform_contrast_correlations'])} seeds\nraw entries: {plain:.2f}",
            transform=panel.transAxes,
            va="top",
            fontsize=8,
        )
    attention = found["uniform_attention"].mean(0)[:7, :7]
    image = axes[0, 2].imshow(attention, cmap="Greys", vmin=0, vmax=1)
    axes[0, 2].grid(False)
    figure.colorbar(image, ax=axes[0, 2], label="attention")
    label(axes[0, 2], "The head looks at the goal", "token seen (0 goal, 1 start)", "current token")
    rows = pd.DataFrame({"table": table, "log_count": counts, "nearness": nearness}).dropna()
    return Drawing(figure, rows)


# %%
TASK.show(learns_the_law)
TASK.show(one_layer_suffices)
TASK.show(goal_table)

# %% [markdown]
# **Which quantity does the goal table hold?** A function of $v$ alone can move from the goal's table to the current
# node's, and a constant of each goal cancels in the softmax, so raw entries say nothing (with the log number of paths
# their correlation even has the other sign). What can be identified is how the *contrast* between two continuations $v,
# w$ of one node changes with the goal; the figure compares that with the same contrast of two candidate quantities.

# %%
TASK.show(attends_to_goal)
TASK.show(two_terms_decide)
TASK.show(table_counts_paths)

# %% [markdown]
# ## Connections in the context


# %%
@TASK.figure
def chains_of_motifs(results: Results) -> Drawing:
    """Success against the number of motifs, and which of two conflicting chains is followed."""
    figure, axes = panels(1, 3)
    kinds, rows = chain_questions(results.config), []
    contexts = {"ordered": results[ordered_exemplars], "shuffled": results[shuffled_exemplars]}
    titles = ("Ordered: new orders yes, longer chains no", "Shuffled exemplars: learnt more slowly")
    for panel, (context, measured), title in zip(axes[0], contexts.items(), titles, strict=False):
        for arm in (CAUSAL, PREFIX) if context == "ordered" else (CAUSAL,):
            for held in (False, True):
                chosen = [index for index, kind in enumerate(kinds) if kind[1] == held]
                x = np.array([kinds[index][0] for index in chosen])
                style = ARMS[arm] | ({"linestyle": ":", "markerfacecolor": "white"} if held else {})
                name = f"{arm}, orders {'held out' if held else 'seen'}"
                samples = measured[f"{arm}_success"][:, chosen]
                rows.append(mean_curve(panel, x, samples, style, name).assign(context=context))
        panel.axvline(results.config.longest_chain + 0.5, color=REFERENCES[1], linewidth=0.8)
        panel.set_ylim(-0.03, 1.05)
        panel.set_xticks([kind[0] for kind in kinds if not kind[1]])
        label(panel, title, "motifs in the chain (line: longest trained)", "share of right paths")
    axes[0, 0].legend(loc="lower left")
    panel = axes[0, 2]
    bars = {
        f"{context},\n{key.removesuffix('_choices')}": measured[key]
        for context, measured in contexts.items()
        for key in measured
        if key.endswith("_choices")
    }
    x = np.arange(len(bars))
    for place, (name, color, hatch) in enumerate((("first chain", "#1f4e9e", ""), ("second chain", "#cccccc", "///"))):
        samples = np.stack([choices[:, place] for choices in bars.values()], 1)
        low, high = mean_band(samples)
        mean = samples.mean(0)
        error = np.clip([mean - low, high - mean], 0, None)
        panel.bar(x + 0.4 * place - 0.2, mean, 0.38, yerr=error, label=name, hatch=hatch, color=color, capsize=2)
        rows.append(pd.DataFrame({"curve": name, "x": x, "mean": mean, "low": low, "high": high, "context": [*bars]}))
    panel.set_xticks(x, [*bars])
    panel.set_ylim(0, 1.2)
    panel.legend(loc="upper right", ncols=2)
    label(panel, "Primacy comes from ordered contexts", "exemplars in training", "share: first ghost edge taken")
    return Drawing(figure, pd.concat(rows, ignore_index=True).replace("\n", " ", regex=True))


@TASK.figure
def what_the_prefix_changes(results: Results) -> Drawing:
    """Prefix minus causal, seed by seed, for everything measured in both arms; and how fast each arm learns."""
    figure, axes = panels(1, 2, width=5.2)
    paths, kinds = results[two_layer_paths], chain_questions(results.config)
    chains = results[ordered_exemplars]
    gap = chains["prefix_success"] - chains["causal_success"]
    held = np.array([kind[1] for kind in kinds[:-1]])
    first = [first_share(chains[f"{arm}_choices"]) for arm in (PREFIX, CAUSAL)]
    differences = {
        "two words: distance to the law": paths["prefix_training_distance"] - paths["causal_training_distance"],
        "... on held-out pairs": paths["prefix_held_out_distance"] - paths["causal_held_out_distance"],
        "... read under the causal mask": paths["crossed_distance"] - paths["causal_training_distance"],
        "... all edges of a path exist": (paths["prefix_errors"] - paths["causal_errors"])[:, -1, PATH_EDGES],
        "... and it ends at the goal": (paths["prefix_errors"] - paths["causal_errors"])[:, -1, PATH_PLANS],
        "exemplars: right, orders seen": gap[:, :-1][:, ~held].mean(1),
        "... right, orders held out": gap[:, :-1][:, held].mean(1),
        "... right, one motif more": gap[:, -1],
        "... first chain followed": first[0] - first[1],
    }
    y = np.arange(len(differences))[::-1]
    mean = np.array([one.mean() for one in differences.values()])
    low, high = np.array([mean_band(one) for one in differences.values()]).T
    axes[0, 0].errorbar(mean, y, xerr=[mean - low, high - mean], fmt="ko", capsize=3)
    axes[0, 0].axvline(0.0, **THEORY)
    axes[0, 0].set_yticks(y, list(differences))
    label(axes[0, 0], "Each under its own mask: no difference", "prefix minus causal (mean, 95 % interval)", "")
    rows = [pd.DataFrame({"curve": list(differences), "mean": mean, "low": low, "high": high})]
    panel = axes[0, 1]
    for arm in (CAUSAL, PREFIX):
        rows.append(mean_curve(panel, chains["step"][0], chains[f"{arm}_loss"], ARMS[arm], arm))
    panel.set_yscale("log")
    panel.legend()
    label(panel, "Exemplars: both masks learn at one pace", "training step", "training loss (nats a token)")
    return Drawing(figure, pd.concat(rows, ignore_index=True))


def first_share(choices: np.ndarray) -> np.ndarray:
    """First chain's share among the answers that follow either chain's first ghost edge [seed]."""
    return choices[:, 0] / np.maximum(choices.sum(1), 1e-12)


@TASK.claim(
    "stepwise-graph-navigation/X1",
    where="section 6, figure 7",
    kind="training",
    statement="With exemplars in order, a network follows chains through pairs of motifs that were never neighbours in "
    "training: over $2$ to $5$ motifs more than half of its paths are right.",
    controls=[control("one motif more than trained", longer=True)],
)
def new_orders(results: Results, longer: bool = False) -> Evidence:
    found, kinds = results[ordered_exemplars], chain_questions(results.config)
    chosen = [-1] if longer else [place for place, kind in enumerate(kinds) if kind[1]]
    origin = "twice the 1/4 of guessing both ends of one ghost edge"
    return Evidence.over_seeds(found["causal_success"][:, chosen].mean(1), ">=", 0.5, origin)


@TASK.claim(
    "stepwise-graph-navigation/X1.length",
    where="section 6, figure 7",
    kind="training",
    statement="One motif more than trained is too many: less than $0.1$ of the paths through $6$ motifs are right, under either "
    "mask.",
    controls=[control("the longest trained chains", longest=True)],
)
def no_longer_chains(results: Results, longest: bool = False) -> Evidence:
    found = results[ordered_exemplars]
    return Evidence.weakest(
        *(
            Evidence.over_seeds(
                found[f"{arm}_success"][:, -3 if longest else -1], "<=", 0.1, "fixed beforehand", parts=2
            )
            for arm in (CAUSAL, PREFIX)
        )
    )


@TASK.claim(
    "stepwise-graph-navigation/X2",
    where="section 6, figure 8",
    kind="phenomenon",
    statement="Primacy: of two conflicting chains in the context, the one shown first is followed; among answers that take "
    "either chain's first ghost edge, more than $0.9$ take the first chain's, under either mask.",
    controls=[control("trained with shuffled exemplars", shuffled=True)],
)
def primacy(results: Results, shuffled: bool = False) -> Evidence:
    found = results[shuffled_exemplars if shuffled else ordered_exemplars]
    arms = (CAUSAL,) if shuffled else (CAUSAL, PREFIX)
    return Evidence.weakest(
        *(
            Evidence.over_seeds(first_share(found[f"{arm}_choices"]), ">=", 0.9, "fixed beforehand", parts=len(arms))
            for arm in arms
        )
    )


@TASK.claim(
    "stepwise-graph-navigation/X2c",
    where="derived, on section 6",
    kind="training",
    statement="The order of exemplars in training makes the primacy: shuffling them lowers the first chain's share by more "
    "than $0.1$, a fifth of the way from always to an unbiased choice, while chains of two motifs in seen orders are still "
    "followed (more than half right).",
    controls=[control("the other mask instead of another order", other=PREFIX)],
)
def order_makes_primacy(results: Results, other: str = "shuffled") -> Evidence:
    ordered, shuffled = results[ordered_exemplars], results[shuffled_exemplars]
    changed = shuffled["causal_choices"] if other == "shuffled" else ordered["prefix_choices"]
    success = shuffled["causal_success"] if other == "shuffled" else ordered["prefix_success"]
    drop = first_share(ordered["causal_choices"]) - first_share(changed)
    return Evidence.weakest(
        Evidence.over_seeds(drop, ">=", 0.1, "a fifth of the way to an unbiased choice", parts=2),
        Evidence.over_seeds(success[:, 0], ">=", 0.5, "twice the 1/4 of guessing both ends of the ghost edge", parts=2),
    )


# %%
TASK.show(chains_of_motifs)

# %% [markdown]
# The rule that is learnt from ordered contexts is "hop $k$ uses exemplar $k$": it works for motifs in new orders, ends
# where positions were never trained, and looks like a preference for what comes first. With shuffled exemplars that rule is
# useless, the network has to look exemplars up by content, learns more slowly, and shows no such preference.

# %%
TASK.show(new_orders)
TASK.show(no_longer_chains)
TASK.show(primacy)
TASK.show(order_makes_primacy)

# %% [markdown]
# ## What the prefix mask changes
#
# With one layer nothing, to the last digit (the proofs file). With two layers and a prompt of two words nothing that
# can be told from the spread over trainings. With exemplars in the prompt it *could* matter, for an exemplar may then be read
# forwards as well as backwards. What it does not change there are the rules that are learnt: primacy and the failure at longer
# chains are the same under either mask (the claims above). The left panel collects all differences, the right one shows how
# fast both arms learn.

# %%
TASK.show(what_the_prefix_changes)
TASK.show(prefix_is_null)

# %%
TASK.show()
