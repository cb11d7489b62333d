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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lab import Evidence, Task, control
from lab.domains.graphs import navigation as exact
from lab.domains.graphs.navigation_prompts import split_by_distance
from lab.figures import REFERENCES, THEORY, Drawing, label, panels
from lab.results import Results
from lab.statistics import mean_band
from lab.streams import stream
from tasks.stepwise_graph_navigation._answers import PAPER_HIERARCHY, Hierarchy, references_of, train_answers
from tasks.stepwise_graph_navigation._drawing import NAMES, STYLES
from tasks.stepwise_graph_navigation._shared import PAPER, PAPER_NETWORK, SLUG, SMOKE_NETWORK, Network, World


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
    trainings: int = 12
    """independent graphs and trainings"""


TASK = Task(
    SLUG,
    PAPER,
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


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=12)
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
        trained = train_answers(
            config.network, worlds, kind, f"{arm}-{limit}", questions=config.questions, offset=offset
        )
        found |= {f"{arm}_{limit}_{key}": trained[key][:, -1] for key in ("accuracy", "valid")}
    return found


# %% [markdown]
# ## What is to be gained, and what networks make of it


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

# %%
TASK.show()
