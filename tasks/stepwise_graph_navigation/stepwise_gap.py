# ---
# jupyter:
#   jupytext:
#     comment_magics: false
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
# it, is the yardstick of all parts. (The identities are checked in `proofs_check/stepwise_graph_navigation.py`, together
# with a transformer of one layer, with explicit weights, that writes the law exactly.)
#
# The parts, in the order of the argument:
#
# 1. `stepwise_gap` (this part): does stepwise answering generalise better, and why;
# 2. `short_training_paths`: what if training paths are short;
# 3. `law_of_paths`: two kinds of error, learnt one after the other; how near a network comes to the law of its training
#    paths; temperature, accuracy against diversity;
# 4. `one_layer`: what a single layer learns, and whether the paths it writes are too short;
# 5. `connections_in_context`: several graphs whose connections stand in the context.
#
# **Causal and prefix attention.** A *prefix* mask lets the tokens of the prompt see each other in both directions. The
# prompt of the first four parts is a fixed form filled with two words, and all later tokens see all of it anyway: the
# prefix mask should change nothing. With one layer it changes nothing to the last digit (a claim of the proofs file), so
# that no second arm is trained there (parts 1, 2 and 4); the two-layer networks of part 3 are trained in both arms. In
# part 5 the prompt holds worked examples, and there it may matter: again both arms.
#
# Networks are small (width 32, one or two layers, a few hundred steps) so that every claim can rest on ten or more
# independent graphs and trainings; where the small size changes a finding, the text says so.
#
# ## Graphs and questions
#
# Two kinds of graph. *Hierarchical*: layers of nodes, edges only from one layer to the next. *Bernoulli*: an edge
# $i \to j$ for any $i < j$ with one probability. Training pairs are a random share of the connected pairs and of those
# unconnected pairs whose goal lies above the start (the others could be told by their layer). There are four ways to
# answer:
#
# * `stepwise`: a path drawn uniformly among all, then the answer; for an unconnected pair a random walk into a dead end;
# * `direct`: the answer at once;
# * `suffix`: direct again, but the question is about a random node $u$ *on* the path of the training pair instead of $s$.
#   A path to $g$ says of every node on it that it leads to $g$; this arm gets that information without the path;
# * `filler`: eight tokens that say nothing, then the answer: as much to write, and nothing in it.
#
# Three references need no network. *Additive*: a logistic model $a_s + b_g + c$ that knows how many nodes $s$ reaches and
# how many reach $g$. *Suffix coverage* $K_0$: pairs $(u, g)$ that lie on some path of a training pair. *Closure*: pairs
# connected through edges that occur in training paths at all. A model that only repeats suffixes stops at $K_0$;
# one that puts edges together freely reaches the closure. How large $K_0$ is follows from the graph: with $k$ of $N$
# connected pairs trained, a held-out pair $(u, g)$ is missed iff none of its $m_u$ pairs $(s, g)$, $s$ an ancestor of $u$, was
# drawn, $1 - \binom{N-1-m_u}{k} / \binom{N-1}{k}$ (claim I10 of the proofs file; the level "its law" below).


# %%
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from lab import Evidence, Task, control
from lab.domains.graphs.navigation_prompts import bernoulli_dag, split_pairs
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.results import Results
from lab.streams import stream
from tasks.stepwise_graph_navigation._answers import NAMES, PAPER_HIERARCHY, Hierarchy, references_of, train_answers
from tasks.stepwise_graph_navigation._shared import PAPER_NETWORK, SMOKE_NETWORK, Network, World


@dataclass(frozen=True)
class Config:
    """Sizes of graphs, networks and tests."""

    hierarchy: Hierarchy = Hierarchy()
    """the hierarchical graph"""
    bernoulli_nodes: int = 48
    """nodes of the Bernoulli graph"""
    bernoulli_probability: float = 0.1
    """its edge probability"""
    training_fraction: float = 0.3
    """share of pairs that is trained on"""
    questions: int = 250
    """questions a network is asked for each answer, yes and no"""
    records: int = 4
    """evaluations during a training"""
    network: Network = Network()
    """the networks"""
    hierarchical_trainings: int = 64  # 32 of them added later, since fresh seeds must give every verdict again
    """independent graphs and trainings of hierarchical graphs"""
    bernoulli_trainings: int = 20
    """independent graphs and trainings of Bernoulli graphs"""


TASK = Task(
    "stepwise-graph-navigation",
    "khona-2024-stepwise",
    presets={
        "smoke": Config(
            questions=12, records=2, network=SMOKE_NETWORK, hierarchical_trainings=2, bernoulli_trainings=2
        ),
        "ci": Config(),
        "paper": Config(
            hierarchy=PAPER_HIERARCHY,
            bernoulli_nodes=200,
            bernoulli_probability=0.05,
            training_fraction=0.2,
            questions=1000,
            records=16,
            network=PAPER_NETWORK,
        ),
    },
    root=2026,
)


def graph_world(config: Config, family: str, seed: int) -> World:
    source = stream(seed, "wanderer", family)
    if family == "hierarchical":
        graphs = config.hierarchy.graphs(source.child("graph"), 1)
    else:
        graphs = bernoulli_dag(source.child("graph"), 1, config.bernoulli_nodes, config.bernoulli_probability)
    adjacency, layer = graphs.adjacency[0], graphs.layer[0]
    return World(adjacency, layer, split_pairs(source.child("split"), adjacency, layer, config.training_fraction))


def train_kinds(config: Config, seeds: tuple[int, ...], family: str, kinds: Sequence[str]) -> dict[str, xr.DataArray]:
    """All kinds of answer, each on the same graphs and questions, beside the references.

    ``learning``: balanced accuracy during the training; ``accuracy``: at its end, of stepwise networks that are made to answer
    at once, and of the references; ``reached``: share of the held-out connected pairs for which the stepwise network writes
    a valid path, that the references contain, and the expected share of suffixes; ``by_distance``: accuracy by layers.
    """
    worlds = {seed: graph_world(config, family, seed) for seed in seeds}
    sizes = {"questions": config.questions, "records": config.records}
    trained = [train_answers(config.network, worlds, kind, f"{family}-{kind}", **sizes) for kind in kinds]
    additive, closure, covered, reached, law = np.array([references_of(worlds[seed]) for seed in seeds]).T
    learning = np.stack([history["accuracy"] for history in trained], 1)
    stepwise = trained[kinds.index("stepwise")]
    accuracy = np.column_stack([learning[:, :, -1], stepwise["at_once"], additive, closure])
    reaching = np.column_stack([stepwise["valid"].isel(update=-1), covered, reached, law])
    by_distance = np.stack([history["by_distance"] for history in trained], 1)
    return {
        "learning": labelled(learning, seed=seeds, kind=kinds, update=stepwise["update"].values.tolist()),
        "accuracy": labelled(accuracy, seed=seeds, answer=(*kinds, "made to answer at once", "additive", "closure")),
        "reached": labelled(reaching, seed=seeds, by=("network", "suffixes", "closure", "law of suffixes")),
        "by_distance": labelled(by_distance, seed=seeds, kind=kinds, apart=stepwise["apart"].values.tolist()),
    }


@TASK.measurement(seeds=lambda config: config.hierarchical_trainings, ensemble=True, seeds_per_job=16, root=2030)
def hierarchical_answers(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """All four kinds of answer on hierarchical graphs."""
    return train_kinds(config, seeds, "hierarchical", ("stepwise", "direct", "suffix", "filler"))


@TASK.measurement(seeds=lambda config: config.bernoulli_trainings, ensemble=True, seeds_per_job=10)
def bernoulli_answers(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Stepwise and direct answers on Bernoulli graphs, whose nodes have no layers."""
    measured = train_kinds(config, seeds, "bernoulli", ("stepwise", "direct"))
    return {name: measured[name] for name in ("learning", "accuracy", "reached")}


# %% [markdown]
# ## The gap and its causes


# %%
@TASK.figure
def stepwise_gap(results: Results) -> Sheet:
    """Balanced accuracy on held-out pairs during training, and by distance; what stepwise networks reach.

    Networks are causal; with one layer the prefix arm is the same to the last digit.
    """
    sheet = Sheet(columns=2, rows=2)
    for family, measurement in (("Hierarchical", hierarchical_answers), ("Bernoulli", bernoulli_answers)):
        learning, accuracy = results[measurement]["learning"], results[measurement]["accuracy"]
        share = 100 * learning["update"] / results.config.network.steps
        gap = float((accuracy.sel(answer="stepwise") - accuracy.sel(answer="direct")).mean())
        title = f"{family}: stepwise ends {gap:.2f} above at once"
        panel = sheet.panel(
            title, x="share of training (%)", y="balanced accuracy", ylim=(0.35, 1.02), legend="lower right"
        )
        for kind in learning["kind"].values:
            panel.curve(learning.sel(kind=kind), over="update", x=share, name=NAMES[kind])
        for answer, name in (("additive", "additive model, no network"), ("closure", "closure of training paths")):
            panel.level(accuracy.sel(answer=answer).mean(), name)
    apart, reached = results[hierarchical_answers]["by_distance"], results[hierarchical_answers]["reached"]
    panel = sheet.panel(
        "Hierarchical graph, at the end, by distance",
        x="layers from start to goal",
        y="balanced accuracy",
        xticks=apart["apart"].values,
    )
    for kind in apart["kind"].values:
        panel.curve(apart.sel(kind=kind), over="apart", name=NAMES[kind], within=(0, 1))
    panel = sheet.panel(
        "Stepwise networks reach more than suffixes",
        x="what reaches them",
        y="share of connected held-out pairs",
        ylim=(0, 1.05),
    )
    names = {"suffixes": "suffixes $K_0$", "network": "network", "closure": "closure"}
    panel.points({name: reached.sel(by=by) for by, name in names.items()}, name="hierarchical graph")
    panel.level(reached.sel(by="law of suffixes").mean(), "$K_0$, its law")
    return sheet


@TASK.claim(
    "stepwise-graph-navigation/P1",
    where="section 4.1, figure 3a-b",
    kind="ordering",
    statement="After equally many updates (400 at this size) a network that writes a path before it answers has a higher balanced "
    "accuracy on held-out pairs than one that answers at once, on hierarchical and on Bernoulli graphs.",
    controls=[control("the same stepwise networks, made to answer at once", first="made to answer at once")],
)
def stepwise_beats_direct(results: Results, first: str = "stepwise") -> Evidence:
    accuracies = {
        "hierarchical": results[hierarchical_answers]["accuracy"],
        "Bernoulli": results[bernoulli_answers]["accuracy"],
    }
    return Evidence.all(
        *(
            Evidence.over_seeds(
                accuracy.sel(answer=first) - accuracy.sel(answer="direct"), ">", 0.0, f"no difference, {family} graph"
            )
            for family, accuracy in accuracies.items()
        )
    )


def lead(results: Results, first: str, second: str) -> xr.DataArray:
    """By how much one answer is more accurate than another, hierarchical graphs [seed]."""
    accuracy = results[hierarchical_answers]["accuracy"]
    return accuracy.sel(answer=first) - accuracy.sel(answer=second)


PILOTS = "chosen on pilot seeds (root 0), judged on seeds not used before"


@TASK.claim(
    "stepwise-graph-navigation/P1.additive",
    where="derived",
    kind="phenomenon",
    statement="After 400 updates a network that answers at once is hardly better than the additive logistic model "
    "$a_s + b_g + c$: on hierarchical graphs its balanced accuracy is less than $0.025$ above that model's.",
    controls=[control("the network that writes a path first", answer="stepwise")],
)
def direct_is_additive(results: Results, answer: str = "direct") -> Evidence:
    return Evidence.over_seeds(
        lead(results, answer, "additive"), "<=", 0.025, f"a quarter of the stepwise lead, {PILOTS}"
    )


@TASK.claim(
    "stepwise-graph-navigation/P1.suffixes",
    where="derived, on section 4.1",
    kind="phenomenon",
    statement="What a path says about the pairs on its way is a cause of the gap: after 400 updates on hierarchical graphs a network "
    "that answers at once, but is asked in training about random nodes of the paths, is more accurate on held-out pairs than one "
    "that is asked about their starts.",
    controls=[
        control(
            "stepwise networks, which saw all of these paths, made to answer at once", first="made to answer at once"
        )
    ],
)
def suffixes_help(results: Results, first: str = "suffix") -> Evidence:
    return Evidence.over_seeds(lead(results, first, "direct"), ">", 0.0, "no difference")


@TASK.claim(
    "stepwise-graph-navigation/P1.fillers",
    where="derived, on section 4.1",
    kind="phenomenon",
    statement="More tokens as such are no cause: after 400 updates on hierarchical graphs a network with eight fillers between question "
    "and answer is less than $0.03$ more accurate than one that answers at once.",
    controls=[control("a path in place of fillers", first="stepwise")],
)
def fillers_do_not_help(results: Results, first: str = "filler") -> Evidence:
    return Evidence.over_seeds(
        lead(results, first, "direct"), "<=", 0.03, "a third of the lead of stepwise networks, which is about 0.1"
    )


@TASK.claim(
    "stepwise-graph-navigation/P1.stitching",
    where="derived, on section 4.1",
    kind="phenomenon",
    statement="Stitching is a cause of the gap: after 400 updates the share of held-out connected pairs for which a stepwise network "
    "writes a valid path exceeds, on average, the share $K_0$ that lies on training paths, and not that in the closure of their "
    "edges (hierarchical graphs).",
    controls=[
        control("the closure in place of $K_0$", lower="closure"),
        control("$K_0$ in place of the closure", upper="suffixes"),
    ],
)
def stepwise_stitches(results: Results, lower: str = "suffixes", upper: str = "closure") -> Evidence:
    reached = results[hierarchical_answers]["reached"]
    network = reached.sel(by="network")
    return Evidence.all(
        Evidence.over_seeds(network - reached.sel(by=lower), ">=", 0.0, "suffix coverage"),
        Evidence.over_seeds(network - reached.sel(by=upper), "<=", 0.0, "closure of the training edges"),
    )


# %%
TASK.show(stepwise_gap)

# %% [markdown]
# A direct network learns how *many* nodes start and goal are connected to, hardly which. A stepwise network is ahead because
# it puts edges together while it writes; made to answer without a path, the same networks know nothing. Two other causes
# are tried apart. What a path says about the pairs on its way is one: the `suffix` arm, which answers at once but is asked
# about all nodes of its paths, lies between the two. More tokens are none: fillers do not help. (Not resolved here is
# whether the gap is larger on the hierarchical graph than on the Bernoulli graph, as the paper reports: the figure shows
# both.)

# %%
TASK.show(stepwise_beats_direct)
TASK.show(direct_is_additive)
TASK.show(stepwise_stitches)
TASK.show(suffixes_help)
TASK.show(fillers_do_not_help)

# %%
TASK.show()
