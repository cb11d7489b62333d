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
# Now train on pairs at most $\Delta$ layers apart and ask about pairs farther apart. The paper finds that the gap between
# stepwise and direct answers shrinks as $\Delta$ grows. What is there to gain from steps can be computed without a network.
# One-edge pairs are training pairs at every $\Delta$, so that training paths contain every edge and a perfect stitcher knows
# everything (the closure is the graph's own: accuracy 1). A direct answer, if it is additive, gets better with $\Delta$: the
# farther apart the pairs asked about, the more of them are connected, and the better the two marginals say which. The *ideal
# gap*, one minus the accuracy of the additive model, therefore shrinks by base rates alone. `compose` is a direct answer of
# another kind: it knows the training pairs and follows chains of them (their transitive closure). Edges are pairs too, so
# it knows everything as well, and leaves no gap.
#
# Positions are a trap for networks here: with learned absolute positions a network learns *where* in the sequence paths
# end, and stops there. Shifting every training sequence by a random offset takes that cue away (questions come without
# shift).


# %%
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

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
    """longest training paths, in layers; claims compare the first and the last"""
    offset: int = 8
    """largest random shift of positions"""
    questions: int = 250
    """questions a network is asked for each answer, yes and no"""
    network: Network = Network(steps=600)
    """the networks"""
    graphs: int = 44  # 20 of them added later, since fresh seeds must give every verdict again
    """graphs whose closed forms are compared"""
    trainings: int = 64
    """independent graphs and trainings at the first and the last limit"""
    between: int = 4
    """the same at the limits between (for the figure)"""


TASK = Task(
    "stepwise-graph-navigation",
    "khona-2024-stepwise",
    presets={
        "smoke": Config(questions=12, network=SMOKE_NETWORK, graphs=2, trainings=2, between=2),
        "ci": Config(),
        "paper": Config(hierarchy=PAPER_HIERARCHY, limits=(2, 3, 4), offset=8, questions=1000, network=PAPER_NETWORK),
    },
    # Below 2026 twelve trainings were too few for P2; there and below 2027 the control of P2.trained was not decided, and its
    # bound was 0.4.
    root=2028,
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


def trained_at(config: Config, seeds: tuple[int, ...], limits: Sequence[int], offset: int) -> dict[str, xr.DataArray]:
    """``accuracy`` and ``valid`` of both kinds of answer at the end of trainings with these limits."""
    kinds, shares = ("stepwise", "direct"), []
    for limit in limits:
        worlds = {seed: near_world(config, limit, seed) for seed in seeds}
        for kind in kinds:
            name = f"{kind}-{limit}-{offset}"
            history = train_answers(config.network, worlds, kind, name, questions=config.questions, offset=offset)
            last = history.isel(update=-1)
            shares.append(np.stack([last["accuracy"].values, last["valid"].values]))
    table = np.array(shares).reshape(len(limits), len(kinds), 2, len(seeds)).transpose(2, 3, 1, 0)
    accuracy, valid = (labelled(values, seed=seeds, answer=kinds, limit=limits) for values in table)
    return {"accuracy": accuracy, "valid": valid}


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=8, root=2030)
def short_paths(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Final accuracies beyond the first and the last limit, and shares of connected pairs with a valid path.

    ``fixed_accuracy``, ``fixed_valid``: the same beyond the last limit without random offsets.
    """
    ends = config.limits[0], config.limits[-1]
    fixed = trained_at(config, seeds, ends[1:], 0)
    return {
        **trained_at(config, seeds, ends, config.offset),
        **{f"fixed_{name}": values.isel(limit=0, drop=True) for name, values in fixed.items()},
    }


@TASK.measurement(seeds=lambda config: config.between, ensemble=True, seeds_per_job=6)
def limits_between(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """The same at the limits between the first and the last."""
    return trained_at(config, seeds, config.limits[1:-1], config.offset)


# %% [markdown]
# ## What is to be gained, and what networks make of it


# %%
@TASK.figure
def short_training_paths(results: Results) -> Sheet:
    """The gap between stepwise and direct answers, by the longest training path: ideal answers and networks."""
    ideal, trained, between = results[ideal_accuracies]["accuracy"], results[short_paths], results[limits_between]
    limits, ends = ideal["limit"].values, trained["limit"].values
    steps = results.config.network.steps
    sheet = Sheet(columns=3)
    x = "longest training path (layers)"
    panel = sheet.panel("Ideal answers: the gap shrinks", x=x, y="stepwise minus direct", xticks=limits)
    for answer, name in (("additive", "closure minus additive model"), ("compose", "closure minus composed pairs")):
        gap = ideal.sel(answer="closure") - ideal.sel(answer=answer)
        panel.points(gap, over="limit", name=name, join=True)
    title = f"Networks, {steps} updates: the other way"
    panel = sheet.panel(title, x=x, y="stepwise minus direct", xticks=limits, ylim=(None, 0.28), legend="upper right")
    for measured, name in ((trained, "networks"), (between, "fewer networks")):
        gap = measured["accuracy"].sel(answer="stepwise") - measured["accuracy"].sel(answer="direct")
        panel.points(gap, over="limit", name=name)
    panel.level(0.0, "no gap")
    title = "Long paths: networks come up to the additive model"
    panel = sheet.panel(title, x=x, y="balanced accuracy, farther pairs", xticks=limits, legend="outside")
    for variant, answer in enumerate(trained["answer"].values):
        both = xr.concat([trained["accuracy"], between["accuracy"]], "limit", join="outer").sortby("limit")
        panel.points(
            both.sel(answer=answer), over="limit", name=NAMES[answer], join=True, slot=(variant, 2), within=(0, 1)
        )
    panel.points(
        trained["fixed_accuracy"].sel(answer="stepwise"), x=ends[-1] - 0.25, name="path, positions not shifted"
    )
    panel.curve(ideal.sel(answer="additive"), over="limit", name="additive model", look=0)
    return sheet


def ends_of(results: Results) -> tuple[int, int]:
    """The first and the last limit."""
    return results.config.limits[0], results.config.limits[-1]


@TASK.claim(
    "stepwise-graph-navigation/P2",
    where="section 4.2, figure 3c",
    kind="ordering",
    statement=r"The gap shrinks as the longest training path grows: after 600 updates the lead of stepwise over direct networks, on pairs "
    r"more than $\Delta$ layers apart, is larger after training with $\Delta = 2$ than with $\Delta = 5$, by more than "
    r"$0.05$ of all pairs.",
    expected="not reproduced",
    condition="at the paper's sizes; in these small networks, with shifted positions, stepwise answers after "
    "short paths still stop where training paths stopped",
    controls=[control("a perfect stitcher and the additive model in place of networks", ideal=True)],
)
def gap_shrinks_with_length(results: Results, ideal: bool = False) -> Evidence:
    accuracy = results[short_paths]["accuracy"]
    stepwise, direct = accuracy.sel(answer="stepwise"), accuracy.sel(answer="direct")
    if ideal:
        exactly = results[ideal_accuracies]["accuracy"]
        stepwise, direct = exactly.sel(answer="closure"), exactly.sel(answer="additive")
    (nearest, farthest), gap = ends_of(results), stepwise - direct
    origin = "half of what ideal answers show, which is about 0.1"
    return Evidence.over_seeds(gap.sel(limit=nearest) - gap.sel(limit=farthest), ">", 0.05, origin)


@TASK.claim(
    "stepwise-graph-navigation/P2.ideal",
    where="derived, on section 4.2",
    kind="ordering",
    statement=r"For ideal answers the gap shrinks by base rates alone: a perfect stitcher of training paths is right about every "
    r"farther pair at $\Delta = 2$ and $\Delta = 5$ (one-edge pairs contain all edges), and the additive model is more accurate "
    r"beyond $\Delta = 5$ than beyond $\Delta = 2$.",
    controls=[
        control("a direct answer that composes training pairs in place of the additive model", direct="compose"),
        control("the additive model in place of the stitcher", stitcher="additive"),
    ],
)
def base_rates_close_the_gap(results: Results, direct: str = "additive", stitcher: str = "closure") -> Evidence:
    ideal, (nearest, farthest) = results[ideal_accuracies]["accuracy"], ends_of(results)
    worst = float(ideal.sel(answer=stitcher, limit=[nearest, farthest]).min())
    accuracy = ideal.sel(answer=direct)
    return Evidence.all(
        Evidence.exact(1 - worst, "<=", 0.0, "pairs counted; the closure of all edges is the graph's own"),
        Evidence.over_seeds(accuracy.sel(limit=farthest) - accuracy.sel(limit=nearest), ">", 0.0, "no difference"),
    )


@TASK.claim(
    "stepwise-graph-navigation/P2.trained",
    where="derived, on section 4.2, figure 3c",
    kind="training",
    statement=r"After 600 updates with shifted positions a network stitches what was long: for connected pairs more than $\Delta$ "
    r"layers apart it writes a valid path more often after training with $\Delta = 5$ than with $\Delta = 2$, by more than $0.6$.",
    controls=[control(r"trained with $\Delta = 5$ at fixed positions", fixed=True)],
)
def long_paths_help(results: Results, fixed: bool = False) -> Evidence:
    measured, (nearest, farthest) = results[short_paths], ends_of(results)
    valid = measured["valid"].sel(answer="stepwise")
    long = measured["fixed_valid"].sel(answer="stepwise") if fixed else valid.sel(limit=farthest)
    origin = "most of the way; chosen below other roots (0, 2026 and 2027), judged on seeds not used before"
    return Evidence.over_seeds(long - valid.sel(limit=nearest), ">=", 0.6, origin)


@TASK.claim(
    "stepwise-graph-navigation/P2.positions",
    where="derived, on section 4.2",
    kind="training",
    statement=r"Absolute positions are a trap: after 600 updates with $\Delta = 5$, shifting training sequences by random offsets "
    "raises the balanced accuracy of stepwise answers on farther pairs by more than $0.1$.",
    controls=[control("direct answers, whose place in the sequence never varies", answer="direct")],
)
def offsets_help(results: Results, answer: str = "stepwise") -> Evidence:
    measured = results[short_paths].sel(answer=answer)
    shifted = measured["accuracy"].sel(limit=results.config.limits[-1])
    return Evidence.over_seeds(shifted - measured["fixed_accuracy"], ">=", 0.1, "one pair in ten")


# %%
TASK.show(short_training_paths)

# %% [markdown]
# The ordering of the paper is that of the ideal answers, and says nothing about steps there. These small networks do not
# show it within 600 updates: direct networks follow the additive model, stepwise ones are near the closure where training
# paths were long, and far below it where they were short. They know the edges and end too early. So the measured gap at
# $\Delta = 2$ is negative here, for a reason that has nothing to do with what the training paths say and much with where in
# the sequence they stopped. (On four pilot graphs it was nearer to zero after 1,200 updates; longer training and larger
# networks may reverse it.)

# %%
TASK.show(gap_shrinks_with_length)
TASK.show(base_rates_close_the_gap)
TASK.show(long_paths_help)
TASK.show(offsets_help)

# %%
TASK.show()
