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
# # A trained layer, and more steps for deeper questions
#
# Every node of a grove knows its parent; which of the two roots stands above it? A node of depth k must follow k pointers, so that
# difficulty varies from node to node. `pointer_chasing` gives weights by hand with which one attention layer of frozen values
# climbs by one edge a step. Does training find such a layer, and may it be iterated longer than it was trained?
#
# One layer with one head is trained with four steps on groves that are at most four deep; the loss asks for the root after the last
# step. Then it meets chains that are six deep, deeper than all it has seen. If it has learned to climb, the same weights need more
# steps for deeper nodes, fewer for shallow ones, and eight steps reach what four did not have to.
#
# *The mask.* Nodes are numbered anew, so that a causal mask hides a parent as often as not. It cannot be helped by any number of steps.


# %%
from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
import xarray as xr
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.attention.looped_chaser import LoopedChaser, chains, groves
from lab.errors import LabError
from lab.figures import Sheet
from lab.labels import LabelledArrays
from lab.models import masks
from lab.results import Results
from lab.streams import stream
from lab.study import Study
from lab.training import Batch, Optimisation

ARMS = ("prefix", "causal")


@dataclass(frozen=True)
class Config:
    """Groves of two trees, and one layer to be iterated."""

    nodes: int = 8
    """n"""
    deepest: int = 4
    """depth of the groves of training"""
    draws: int = 3
    """a node hangs below the latest of so many earlier nodes, so that deep ones are not rare"""
    steps: int = 4
    """steps of the layer in training"""
    most: int = 8
    """steps of the layer afterwards, at most"""
    batch: int = 32
    """groves an update"""
    optimisation: Optimisation = Optimisation(
        steps=700, learning_rate=1e-2, warmup=0.02, schedule="cosine", clip_norm=1.0
    )
    test_groves: int = 200
    trainings: int = 48  # 24 of them added later, since fresh seeds must give every verdict again
    """independent trainings an arm"""

    def __post_init__(self) -> None:
        if not 1 <= self.deepest < self.nodes - 2:
            raise LabError(
                f"deepest = {self.deepest} must be at least 1 and less than nodes - 2 = {self.nodes - 2}, the depth of a chain of "
                "nodes, so that a chain is deeper than all of training; change one of them"
            )
        if not 1 <= self.steps <= self.most:
            raise LabError(
                f"steps = {self.steps} of training must be at least 1 and at most the most = {self.most} afterwards; change one of them"
            )


TASK = Task(
    "fixed-point-transformers",
    paper="mathur-2025-fixed-point",
    presets={
        "smoke": Config(
            nodes=5,
            deepest=2,
            steps=2,
            most=3,
            batch=4,
            optimisation=Optimisation(steps=4, learning_rate=1e-2),
            test_groves=5,
            trainings=2,
        ),
        "ci": Config(),
        "paper": Config(
            nodes=24,
            deepest=6,
            steps=6,
            most=24,
            batch=128,
            optimisation=Optimisation(steps=10_000, learning_rate=3e-3, warmup=0.02, schedule="cosine", clip_norm=1.0),
            test_groves=1000,
        ),
    },
    root=2032,
)


def by_depth(module: LoopedChaser, batch: Batch, mask: Tensor, most: int) -> Tensor:
    """Share of nodes whose root is found, by step and depth of the node [model, step, depth]; all depths must occur."""
    right = (module(batch["tokens"], mask, most).argmax(-1) == batch["targets"]).double()
    depths = F.one_hot(batch["depth"]).double()
    return torch.einsum("sebn,ebnd->esd", right, depths) / depths.sum((1, 2))[:, None]


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=6)
def trained(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Share of nodes whose root is found, by arm, steps and depth of the node: on chains after training,
    before it, and read under the causal mask."""

    def loss(module: LoopedChaser, batch: Batch, mask: Tensor) -> Tensor:
        law = module(batch["tokens"], mask, config.steps)[-1].log_softmax(-1)
        return -law.gather(-1, batch["targets"].unsqueeze(-1)).mean((1, 2, 3))

    study = Study(
        build=lambda chosen: LoopedChaser(tuple(chosen), nodes=config.nodes),
        arms={"prefix": masks.full(config.nodes), "causal": masks.causal(config.nodes)},
        encode=None,
        loss=loss,
    )
    fitted = study.fit(
        seeds,
        lambda seed, number, count: groves(
            stream(seed, "train", number),
            count,
            nodes=config.nodes,
            roots=2,
            deepest=config.deepest,
            draws=config.draws,
        ),
        config.optimisation,
        blocks=(config.batch, 50),
        name="chaser",
    )
    axes: dict[str, Any] = {"step": range(1, config.most + 1), "depth": range(config.nodes - 1)}
    deep = {seed: chains(stream(seed, "chains"), config.test_groves, nodes=config.nodes) for seed in seeds}
    metric = partial(by_depth, most=config.most)
    return {
        "found": fitted.ask(deep, metric, **axes),
        "before": study.untrained(seeds).ask(deep, metric, **axes),
        "causally": fitted.ask(deep, metric, read=masks.causal(config.nodes), **axes),
    }


PILOTS = "bound chosen on pilot seeds (roots 0 and 1), judged on fresh ones, half of them added after the first"


def found_on_chains(
    results: Results, deeper: bool, step: int, arm: str = "prefix", quantity: str = "found"
) -> xr.DataArray:
    """Share of the nodes of chains whose root is found after so many steps, at depths that training had, or deeper ones."""
    share = results[trained][quantity].sel(arm=arm, step=step)
    trained_on = results.config.deepest
    return share.where((share["depth"] > trained_on) == deeper, drop=True).mean("depth")


@TASK.claim(
    "fixed-point-transformers/T1",
    where="derived; that iterating at test time fits the computation to the input is the paper's idea",
    kind="training",
    statement="A layer of frozen values that was trained with four steps on groves at most four deep (8 nodes, two trees, 700 updates) "
    "finds, in the median training, the root of more than $80\\,\\%$ of the nodes at depth five and six of chains of 8 "
    "nodes, which it never saw, if it is iterated eight times; after two steps it has fewer than two thirds of them.",
    controls=[
        control("eight steps in place of the two", few=8),
        control("two steps in place of the eight", many=2),
        control("the network before training", quantity="before"),
        control("trained under the causal mask, which hides parents", arm="causal"),
    ],
)
def more_steps_reach_deeper_nodes(
    results: Results, few: int = 2, many: int = 8, arm: str = "prefix", quantity: str = "found"
) -> Evidence:
    before, after = (found_on_chains(results, True, step, arm, quantity) for step in (few, many))
    return Evidence.all(
        Evidence.median(after, ">", 0.8, f"depth five and six after eight steps; {PILOTS}"),
        Evidence.median(before, "<", 2 / 3, f"depth five and six after two steps; {PILOTS}"),
    )


@TASK.claim(
    "fixed-point-transformers/T1.climbs",
    where="derived",
    kind="training",
    statement="Iterated less often than the four steps that it was trained with, the layer of frozen values has the shallow nodes "
    "first: after L = 1 and 2 steps in the median training the roots of more than $80\\,\\%$ of the nodes of chains of 8 from depth 1 "
    "to L, and of fewer than two thirds of those from depth L + 2 on.",
    controls=[
        control("the network before training", quantity="before"),
        control("eight steps for the deeper nodes", later=8),
    ],
)
def shallow_nodes_come_first(results: Results, later: int = 0, quantity: str = "found") -> Evidence:
    share = results[trained][quantity].sel(arm="prefix")
    parts = []
    for step in (1, 2):
        reached = (share["depth"] >= 1) & (share["depth"] <= step)
        near = share.sel(step=step).where(reached, drop=True).mean("depth")
        far = share.sel(step=later or step).where(share["depth"] >= step + 2, drop=True).mean("depth")
        parts.append(Evidence.median(near, ">", 0.8, f"{step} steps, depth 1 to {step}; {PILOTS}"))
        parts.append(Evidence.median(far, "<", 2 / 3, f"{step} steps, from depth {step + 2} on; {PILOTS}"))
    return Evidence.all(*parts)


@TASK.claim(
    "fixed-point-transformers/T1.mask",
    where="derived",
    kind="training",
    statement="Trained under the causal mask, which hides the parents of half of the nodes, the layer finds the root of fewer than six of "
    "ten nodes at depth five and six after eight steps.",
    controls=[control("trained under the full mask", arm="prefix")],
)
def no_steps_find_hidden_parents(results: Results, arm: str = "causal") -> Evidence:
    share = found_on_chains(results, True, results.config.most, arm)
    return Evidence.over_seeds(share, "<", 0.6, f"depth five and six after eight steps; {PILOTS}")


@TASK.figure
def steps_and_depth_of_nodes(results: Results) -> Sheet:
    """Share of nodes whose root is found, by steps of the trained layer and depth of the node."""
    config, measured = results.config, results[trained]["found"]
    depths = measured["depth"].values.tolist()
    sheet = Sheet(columns=2, width=5.0, height=4.0)
    panel = sheet.panel(
        "full mask: deeper nodes take more steps", x="depth of the node", y="steps of the layer", legend="none"
    )
    panel.heat(
        measured.sel(arm="prefix").mean("seed"),
        rows=measured["step"].values.tolist(),
        columns=depths,
        numbers=".2f",
        low=0,
        high=1,
        bar="share of nodes with their root",
        of=f"mean of {config.trainings} trainings",
    )
    panel = sheet.panel(
        f"depth {config.deepest + 1} and more was never trained on",
        x="steps of the layer",
        y="share of nodes with their root",
        ylim=(0, 1.05),
        legend="upper left",
    )
    for arm in ARMS:
        panel.curve(
            measured.sel(arm=arm).where(measured["depth"] > config.deepest, drop=True).mean("depth"), "step", arm=arm
        )
    panel.level(config.steps, "steps in training", vertical=True)
    return sheet


# %%
TASK.show(steps_and_depth_of_nodes)
TASK.show(more_steps_reach_deeper_nodes)
TASK.show(shallow_nodes_come_first)
TASK.show(no_steps_find_hidden_parents)

# %% [markdown]
# ## All verdicts

# %%
TASK.show()
