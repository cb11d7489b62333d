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
# # Short training paths
#
# The question and the graphs are those of `stepwise_gap`.
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
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lab import Evidence, Task, control
from lab.domains.graphs import navigation as exact
from lab.domains.graphs.navigation_prompts import split_by_distance
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
    """the graph"""
    limits: tuple[int, ...] = (2, 3, 4, 5)
    """longest training paths, in layers; networks are trained at the first and the last"""
    offset: int = 4
    """largest random shift of positions"""
    questions: int = 250
    """questions a network is asked for each answer, yes and no"""
    network: Network = Network(steps=280)
    """the networks"""
    graphs: int = 24
    """graphs whose closed forms are compared"""
    trainings: int = 16
    """independent graphs and trainings"""


TASK = Task(
    "stepwise-graph-navigation",
    "khona-2024-stepwise",
    presets={
        "smoke": Config(questions=12, network=SMOKE_NETWORK, graphs=2, trainings=2),
        "ci": Config(),
        "paper": Config(hierarchy=PAPER_HIERARCHY, limits=(2, 3, 4), offset=8, questions=1000, network=PAPER_NETWORK),
    },
)


def near_world(config: Config, limit: int, seed: int) -> World:
    """A graph, of 64 drawn the first in which some pairs beyond the last limit are connected and some are not."""
    source = stream(seed, "wanderer", "near")
    graphs = config.hierarchy.graphs(source.child("graph"), 64)
    far = graphs.layer[:, None, :] - graphs.layer[:, :, None] > config.limits[-1]
    connected = exact.path_counts(graphs.adjacency) > 0
    usable = (far & connected).flatten(1).any(1) & (far & ~connected).flatten(1).any(1)
    chosen = int(usable.int().argmax())
    adjacency, layer = graphs.adjacency[chosen], graphs.layer[chosen]
    return World(adjacency, layer, split_by_distance(adjacency, layer, limit))


@TASK.measurement(seeds=lambda config: config.graphs)
def ideal_accuracies(config: Config, seed: int) -> LabelledArrays:
    """Balanced accuracies on pairs beyond each limit without any network: additive model, closure, composed pairs."""
    rows = []
    for limit in config.limits:
        world = near_world(config, limit, seed)
        references = references_of(world)
        composed = exact.transitive_closure(world.pairs.training_positive)[world.pairs.held_out_positive]
        rows.append([references.additive, references.closure, (1 + composed.double().mean()) / 2])
    return {"accuracy": labelled(rows, limit=config.limits, answer=("additive", "closure", "compose"))}


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=12)
def short_paths(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Final accuracies beyond the first and the last limit, and shares of connected pairs with a valid path.

    ``unshifted_accuracy``: stepwise answers beyond the last limit without random offsets.
    """
    ends = config.limits[0], config.limits[-1]
    worlds = {limit: {seed: near_world(config, limit, seed) for seed in seeds} for limit in ends}

    def final(kind: str, limit: int, offset: int, name: str) -> list[np.ndarray]:
        sizes = {"questions": config.questions, "offset": offset}
        last = train_answers(config.network, worlds[limit], kind, name, **sizes).isel(update=-1)
        return [last["accuracy"].values, last["valid"].values]

    kinds = ("stepwise", "direct")
    trained = np.array([[final(kind, limit, config.offset, f"{kind}-{limit}") for limit in ends] for kind in kinds])
    accuracy, valid = trained.transpose(2, 3, 0, 1)
    return {
        "accuracy": labelled(accuracy, seed=seeds, answer=kinds, limit=ends),
        "valid": labelled(valid, seed=seeds, answer=kinds, limit=ends),
        "unshifted_accuracy": labelled(final("stepwise", ends[1], 0, "unshifted")[0], seed=seeds),
    }


# %% [markdown]
# ## What is to be gained, and what networks make of it


# %%
@TASK.figure
def short_training_paths(results: Results) -> Sheet:
    """What is to be gained from steps, by the longest training path; and what networks make of it."""
    ideal, trained = results[ideal_accuracies]["accuracy"], results[short_paths]
    limits = ideal["limit"].values
    sheet = Sheet(columns=2)
    x = "longest training path (layers)"
    panel = sheet.panel(
        "Ideal gap: shrinks as training paths grow",
        x=x,
        y="difference of accuracies",
        ylim=(-0.01, None),
        xticks=limits,
    )
    for answer, name in (("additive", "closure minus additive model"), ("compose", "closure minus composed pairs")):
        gap = ideal.sel(answer="closure") - ideal.sel(answer=answer)
        panel.points(gap, over="limit", name=name, join=True)
    panel = sheet.panel(
        "Networks stitch if paths were long", x=x, y="balanced accuracy, farther pairs", ylim=(0.3, 1.03), xticks=limits
    )
    for answer in trained["answer"].values:
        panel.points(trained["accuracy"].sel(answer=answer), over="limit", name=NAMES[answer], join=True)
    panel.points(trained["unshifted_accuracy"], x=limits[-1] - 0.12, name="path, positions not shifted")
    for answer, name in (("additive", "additive model"), ("closure", "closure")):
        panel.theory(limits, ideal.sel(answer=answer).mean("seed"), name=name)
    return sheet


@TASK.claim(
    "stepwise-graph-navigation/P2",
    where="section 4.2, figure 3c, for ideal answers",
    kind="ordering",
    statement=r"The gap shrinks as the longest training path grows: what separates a perfect stitcher of training paths from "
    r"the additive model of a direct answer, on pairs more than $\Delta$ layers apart, is smaller for $\Delta = 5$ than for "
    r"$\Delta = 2$.",
    controls=[control("a direct answer that composes training pairs in place of the additive model", direct="compose")],
)
def gap_shrinks_with_length(results: Results, direct: str = "additive") -> Evidence:
    ideal = results[ideal_accuracies]["accuracy"]
    gap = ideal.sel(answer="closure") - ideal.sel(answer=direct)
    nearest, farthest = results.config.limits[0], results.config.limits[-1]
    return Evidence.over_seeds(gap.sel(limit=nearest) - gap.sel(limit=farthest), ">", 0.0, "no difference")


@TASK.claim(
    "stepwise-graph-navigation/P2.trained",
    where="section 4.2, figure 3c",
    kind="training",
    statement=r"A trained network stitches what was long: for connected pairs more than $\Delta$ layers apart it writes a valid "
    r"path more often after training with $\Delta = 5$ than with $\Delta = 2$.",
    controls=[control("a perfect stitcher of short paths in place of the network trained on them", perfect=True)],
)
def long_paths_help(results: Results, perfect: bool = False) -> Evidence:
    nearest, farthest = results.config.limits[0], results.config.limits[-1]
    valid = results[short_paths]["valid"].sel(answer="stepwise")
    short, long = valid.sel(limit=nearest), valid.sel(limit=farthest)
    if perfect:
        # A balanced accuracy of 1, so that every connected pair is reached: the share of valid paths is 1 as well.
        short = results[ideal_accuracies]["accuracy"].sel(answer="closure", limit=nearest, seed=short["seed"])
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
    trained, farthest = results[short_paths], results.config.limits[-1]
    shifted = trained["accuracy"].sel(answer="stepwise", limit=farthest)
    additive_model = results[ideal_accuracies]["accuracy"].sel(answer="additive", limit=farthest, seed=shifted["seed"])
    worse = additive_model if additive else trained["unshifted_accuracy"]
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
TASK.show(long_paths_help)
TASK.show(offsets_help)

# %%
TASK.show()
