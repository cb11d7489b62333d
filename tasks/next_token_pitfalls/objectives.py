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
# # The pitfalls of next-token prediction
#
# *Planning on the smallest graph that needs it.* A path-star graph has a start and $d$ disjoint arms of $l$
# nodes (the start counts), labelled at random. The prompt lists the edges in random order, then a goal, the
# leaf of one arm, and the start; the answer is that arm from the start to the goal. To name the first step
# one has to look ahead, or, which is the same and easier, to walk back from the goal: $l - 2$ look-ups of a
# parent.
#
# Now train a transformer the usual way: it is fed the true answer and predicts every next token of it. All
# steps but the first are a single look-up, the only child of the node just read. That *cheat* is learnt
# first; from then on only the first step is left. `proofs_check/next_token_pitfalls.py` shows by construction
# that one head implements the cheat and that $l - 1$ layers of attention suffice for the plan. Here networks
# are *trained*, and the question is what they find.
#
# Two failures have to be told apart:
#
# * the **cheat**: later steps are learnt without any planning, so that they stop teaching anything;
# * the **indecipherable first step**: what is left rewards a network only when it has the whole plan.
#
# All networks that are compared have the same architecture, initial weights, graphs and budget. What differs
# is what is predicted from what, and who may look at whom: under the *causal* mask a token sees what stands
# before it, under the *prefix* mask the tokens of the prompt see one another, in both directions.
#
# This file compares the objectives. `partial_credit.py` asks why the first step is so hard, and what looking
# ahead makes of it; `other_sizes.py` has more and longer arms; `conditions.py` asks what the cure depends on.
#
# ## Set-up
#
# An edge is one token, a sum of a row for its source and a row for its target, so that the network need not
# first find out which two labels belong together. Graphs are fresh at every step: a fixed set is learnt by
# heart (`conditions.py`).
#
# | objective | reads | predicts |
# |---|---|---|
# | standard | the true answer so far | the next node |
# | reversed | the same, answer from goal to start | the next node |
# | teacherless | blanks instead of the answer | all nodes at once |
# | multi-token | the true answer so far | the next node and, by further linear heads, all nodes after it |
# | first-step | the true answer so far | the first node only |
# | shuffled | blanks | all nodes at once, the middle ones taken from other graphs |
#
# The sizes are the smallest that keep the phenomenon. Two arms of four nodes need two hops of look-ahead, the
# least that is not learnt. Four layers are one more than the plan needs. Attention is all that the plan
# needs, so the networks have no MLPs and no biases. Adam with short memories ($\beta_1 = 0.6$,
# $\beta_2 = 0.99$) leaves the plateaus of these small networks early, and the rows of the embedding are
# larger than what attention adds at first. None of this differs between the objectives (`_shared.py`).
#
# A network is judged on new graphs, by what it *writes*: greedily and token by token, reading what it wrote
# itself (teacherless networks write everything in one pass). Fed the truth instead, it shows which steps it
# has learnt. Greedy writing is right throughout exactly if every step is right given the true steps before,
# so during training one pass over the true answer is enough to follow the accuracy.
# %%
from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from lab import Evidence, Task, control
from lab.domains.graphs.path_star import cheat_loss
from lab.figures import Sheet
from lab.labels import LabelledArrays
from lab.results import Results
from tasks.next_token_pitfalls._shared import (
    MARGIN,
    MASKS,
    PAPER,
    PAPER_SIZE,
    PAPER_TRAINING,
    SLUG,
    SMOKE_TRAINING,
    SOLVED_ORIGIN,
    SOLVES,
    Comparison,
    Size,
    Training,
    is_a_guess,
    is_near,
)


@dataclass(frozen=True)
class Config:
    """Graphs, network and budget."""

    size: Size = Size()
    """the graphs that all objectives are compared on"""
    training: Training = Training()
    """the network and its budget"""
    easy_steps: int = 160
    """updates where less is enough: graphs that need one hop"""
    shallow_layers: int = 1
    """layers of the network that is too shallow"""
    trainings: int = 8
    """independent trainings where an accuracy is compared with a guess"""
    other_trainings: int = 5
    """independent trainings of everything else"""


TASK = Task(
    SLUG,
    paper=PAPER,
    presets={
        "smoke": Config(training=SMOKE_TRAINING, easy_steps=8, trainings=2, other_trainings=2),
        "ci": Config(),
        "paper": Config(size=PAPER_SIZE, training=PAPER_TRAINING, easy_steps=PAPER_TRAINING.steps),
    },
)
OBJECTIVES = ("standard", "first-step", "reversed", "teacherless", "multi-token")
LATER = 0.95
PARENTS = 3  # nodes of an arm that needs one hop of look-ahead

# %% [markdown]
# ## The same network, the same budget
#
# Accuracies that are compared with a guess need more trainings than those that are near 1, because they
# scatter. A training that answers every validation graph is finished; all others use up the budget.


# %%
@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=8)
def main_comparison(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Standard training against teacherless training."""
    return Comparison(("standard", "teacherless"), MASKS, config.size, config.training).fit(seeds, "main")


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=8)
def first_step_alone(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Training on the first step alone."""
    return Comparison(("first-step",), MASKS, config.size, config.training).fit(seeds, "first step")


@TASK.measurement(seeds=lambda config: config.other_trainings, ensemble=True, seeds_per_job=5)
def other_objectives(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """The other two remedies on the same graphs from the same initial weights."""
    return Comparison(("multi-token", "reversed"), MASKS, config.size, config.training).fit(seeds, "others")


@TASK.measurement(seeds=lambda config: config.other_trainings, ensemble=True, seeds_per_job=5)
def too_shallow(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Teacherless training of a network with fewer layers than the plan has steps."""
    training = replace(config.training, layers=config.shallow_layers)
    return Comparison(("teacherless",), ("prefix",), config.size, training).fit(seeds, "shallow")


@TASK.measurement(seeds=lambda config: config.other_trainings, ensemble=True, seeds_per_job=5)
def one_hop(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Standard training on arms that need one hop of look-ahead."""
    training = replace(config.training, steps=config.easy_steps)
    size = config.size.resized(length=PARENTS)
    return Comparison(("standard",), ("prefix",), size, training).fit(seeds, "one hop")


def judged(results: Results, objective: str, mask: str) -> xr.Dataset:
    """All that was measured of an objective under a mask, [seed, ...]."""
    if objective in ("standard", "teacherless"):
        measured = results[main_comparison]
    elif objective == "first-step":
        measured = results[first_step_alone]
    else:
        measured = results[other_objectives]
    arm: xr.Dataset = measured.sel(objective=objective, mask=mask)
    return arm


@TASK.figure
def accuracy_over_training(results: Results) -> Sheet:
    """Accuracy on new graphs during training, for each objective, under the causal and the prefix mask."""
    config = results.config
    sheet = Sheet(columns=2)
    titles = {
        "causal": "Causal: standard training only guesses",
        "prefix": "Prefix: it still does; remedies work sooner",
    }
    for mask, title in titles.items():
        panel = sheet.panel(
            title, x=f"updates of {config.training.batch} graphs", y="share of answers right", ylim=(-0.03, 1.03)
        )
        for objective in OBJECTIVES:
            panel.curve(judged(results, objective, mask)["curve"], over="update", name=objective, within=(0, 1))
        panel.level(1 / config.size.arms, "a guess, 1/d")
    return sheet


# %%
TASK.show(accuracy_over_training)


# %% [markdown]
# **Standard training** settles at $1/d$ and stays there. It is not that nothing was learnt: fed the truth,
# every step but the first is right.
#
# What it writes when it guessed wrong is instructive. Up to the node before the last it follows the arm it
# has chosen, as a cheat should. The last node some networks look up and others simply *copy from the goal*:
# as long as the truth is fed in, both are right, and training never sees the difference. So "the output is
# always some arm" is true of the ideal cheat, and of a trained network only up to the node before the last.
#
# How near is the loss to its floor $\ln d / (l-1)$? Call a network that knows nothing ($\ln N$ nats a node)
# 0 and the cheat 1. Clearly beyond 1 there is nothing without a plan.
# %%
def is_the_cheat(measured: xr.Dataset, size: Size) -> Evidence:
    """Accuracy, later steps, what is written, and loss of one arm are those of the cheat."""
    start, floor = np.log(size.labels), cheat_loss(size.arms, size.length)
    later = measured["step accuracy"].sel(step=slice(2, None)).min("step")
    way = (start - measured["test loss"]) / (start - floor)
    return Evidence.all(
        is_a_guess(measured["exact"], size.arms),
        Evidence.over_seeds(later, ">=", LATER, "the cheat is always right there"),
        Evidence.over_seeds(measured["any arm but its end"], ">=", LATER, "the cheat always follows an arm"),
        Evidence.equals(way, 1.0, 0.1, "a tenth of the way from ln N (0) to ln d / (l - 1) (1)"),
    )


@TASK.claim(
    "next-token-pitfalls/T1",
    where="Section 6 (standard training), Figure 3",
    kind="training",
    statement=r"Standard next-token training on arms that need two hops of look-ahead ($l=4$) ends as the cheat, under both "
    r"masks: accuracy $1/d$; later steps right when fed the truth; a loss on new graphs that has come from $\ln N$ to "
    r"$\ln d/(l-1)$, to within a tenth of the way; and what it writes follows some arm up to the node before the last.",
    controls=[
        control("one hop of look-ahead, l = 3, prefix mask", trained="one hop"),
        control("teacherless training, prefix mask", trained="teacherless"),
    ],
)
def standard_training_is_the_cheat(results: Results, trained: str = "standard") -> Evidence:
    size = results.config.size
    if trained == "one hop":
        arm = results[one_hop].sel(objective="standard", mask="prefix")
        return is_the_cheat(arm, size.resized(length=PARENTS))
    if trained == "teacherless":
        return is_the_cheat(judged(results, "teacherless", "prefix"), size)
    return Evidence.all(*(is_the_cheat(judged(results, "standard", mask), size) for mask in MASKS))


@TASK.claim(
    "next-token-pitfalls/T1.copy",
    where="derived (what a trained cheat writes)",
    kind="phenomenon",
    statement=r"What standard training writes follows an arm to the node before the last and then ends either in the leaf of that "
    r"arm or in a copy of the goal, on at least $95\%$ of new graphs, under both masks.",
    controls=[
        control(
            "teacherless training, causal mask: steps that are not looked up",
            objective="teacherless",
            masks=("causal",),
        ),
        control("reversed answers", objective="reversed", masks=("causal",)),
    ],
)
def the_end_is_looked_up_or_copied(
    results: Results, objective: str = "standard", masks: tuple[str, ...] = MASKS
) -> Evidence:
    origin = "as for the cheat, which is always right there"
    shares = [judged(results, objective, mask)["any arm or goal"] for mask in masks]
    return Evidence.all(*(Evidence.over_seeds(share, ">=", LATER, origin) for share in shares))


@TASK.figure
def accuracy_of_each_step(results: Results) -> Sheet:
    """Accuracy of each step of the answer, given the true steps before it (teacherless: given blanks)."""
    config = results.config
    sheet = Sheet(columns=2, width=5.2)
    titles = {
        "causal": "Causal: the first step is the hard one",
        "prefix": "Prefix: two remedies get it, standard does not",
    }
    for mask, title in titles.items():
        panel = sheet.panel(
            title, x="step of the answer", y="share right", ylim=(0, 1.05), xticks=range(1, config.size.length)
        )
        for place, objective in enumerate(OBJECTIVES):
            steps = judged(results, objective, mask)["step accuracy"]
            panel.bars(steps, over="step", name=objective, slot=(place, len(OBJECTIVES)), within=(0, 1))
        panel.level(1 / config.size.arms, "a guess, 1/d")
    return sheet


# %%
TASK.show(standard_training_is_the_cheat)
TASK.show(the_end_is_looked_up_or_copied)
TASK.show(accuracy_of_each_step)

# %% [markdown]
# ## Three ways out
#
# **Reverse the answer**, and every step is a look-up of a parent: no planning is left. **Hide the answer**
# (teacherless): now the cheat has nothing to read, the node next to the goal has to be found by one hop back,
# the one before by two; each hop is learnt on top of the one before. **Predict several nodes** from each
# position: the heads that look ahead at the start must find the nodes near the goal, with the same effect
# (claimed in `partial_credit.py`, from more trainings).
#
# The network, its initial weights, the graphs and the number of updates are those of standard training, and
# by the construction of `proofs_check` its depth suffices. So it is the objective, and not the capacity, that
# fails. Depth is needed all the same: a network of one layer, trained like the one that solves the task, has
# no second look to take.
# %%


@TASK.claim(
    "next-token-pitfalls/T2",
    where="Section 6 (reversed answers)",
    kind="training",
    statement=r"Trained on reversed answers the same network solves the task (accuracy at least $0.98$), under both masks.",
    controls=[control("answers from start to goal", objective="standard")],
)
def reversed_answers_are_learnt(results: Results, objective: str = "reversed") -> Evidence:
    shares = [judged(results, objective, mask)["exact"] for mask in MASKS]
    return Evidence.all(*(Evidence.over_seeds(share, ">=", SOLVES, SOLVED_ORIGIN) for share in shares))


@TASK.claim(
    "next-token-pitfalls/T3",
    where="Section 6 (teacherless training)",
    kind="ordering",
    statement=r"Same network, same initial weights, same graphs, same budget, prefix mask: teacherless training solves the task "
    r"(accuracy at least $0.98$) while standard training stays at $1/d$.",
    controls=[
        control("a network of one layer, teacherless", trained="shallow"),
        control("standard training in both places", trained="standard"),
    ],
)
def teacherless_training_solves_it(results: Results, trained: str = "teacherless") -> Evidence:
    if trained == "shallow":
        solving = results[too_shallow].sel(objective="teacherless", mask="prefix")
    else:
        solving = judged(results, trained, "prefix")
    return Evidence.all(
        Evidence.over_seeds(solving["exact"], ">=", SOLVES, SOLVED_ORIGIN),
        is_a_guess(judged(results, "standard", "prefix")["exact"], results.config.size.arms),
    )


# %%
TASK.show(reversed_answers_are_learnt)
TASK.show(teacherless_training_solves_it)

# %% [markdown]
# ## What the prefix mask changes
#
# Nothing for standard training: the cheat reads the answer and the edges, and both masks allow that. Nothing
# for reversed answers either, whose every step is one look-up by a token that stands behind all edges. But
# *where planning is learnt*, the prefix mask makes it easier. Under the causal mask an edge sees only the
# edges before it, and never the goal, so that two hops can only be taken one after the other, by tokens
# behind the edges. Under the prefix mask each edge can also look up the edges next to it, wherever they
# stand, and can learn whether it leads to the goal.
# %%


def gain(results: Results, objective: str) -> xr.DataArray:
    """What the prefix mask adds to the accuracy, seed by seed."""
    difference: xr.DataArray = (
        judged(results, objective, "prefix")["exact"] - judged(results, objective, "causal")["exact"]
    )
    return difference


@TASK.claim(
    "next-token-pitfalls/T4",
    where="derived (causal and prefix masks)",
    kind="phenomenon",
    statement=r"Prefix attention does not rescue standard training: from the same weights on the same graphs its accuracy is that "
    r"of the causal mask, to within a seventh of the way from a guess to a solution.",
    controls=[control("teacherless training, where the mask matters", objective="teacherless")],
)
def prefix_attention_does_not_rescue(results: Results, objective: str = "standard") -> Evidence:
    return is_near(gain(results, objective), 0.0, results.config.size.arms)


@TASK.claim(
    "next-token-pitfalls/T4.teacherless",
    where="derived (causal and prefix masks)",
    kind="phenomenon",
    statement="Prefix attention speeds up the planning of teacherless training: after the same number of updates from the same "
    "weights on the same graphs more answers are right than under the causal mask, by more than that margin.",
    controls=[control("standard training", objective="standard")],
)
def prefix_attention_plans_sooner(results: Results, objective: str = "teacherless") -> Evidence:
    margin = MARGIN * (1 - 1 / results.config.size.arms)
    origin = "a seventh of the way from a guess, 1/d, to a solution"
    return Evidence.over_seeds(gain(results, objective), ">", margin, origin)


@TASK.figure
def what_the_prefix_changes(results: Results) -> Sheet:
    """Accuracy of the written answers at the end of the budget and updates used, by objective and mask."""
    size, training = results.config.size, results.config.training
    sheet = Sheet(columns=2, width=5.0)
    panel = sheet.panel(
        "Nothing for standard, much for teacherless",
        x="objective",
        y="share of written answers right",
        ylim=(-0.03, 1.05),
        legend="lower left",
    )
    for place, mask in enumerate(MASKS):
        shares = {objective: judged(results, objective, mask)["exact"].values for objective in OBJECTIVES}
        panel.points(shares, arm=mask, slot=(place, len(MASKS)), within=(0, 1))
    panel.level(1 / size.arms, "a guess, 1/d")
    panel = sheet.panel(
        "Planning is learnt in fewer updates",
        x="objective",
        y=f"updates of {training.batch} graphs until all are right",
        ylim=(0, 1.1 * training.steps),
        legend="lower left",
    )
    for place, mask in enumerate(MASKS):
        updates = {objective: judged(results, objective, mask)["updates"].values for objective in OBJECTIVES}
        panel.points(updates, arm=mask, slot=(place, len(MASKS)), within=(0, training.steps))
    panel.level(training.steps, "the budget")
    return sheet


# %%
TASK.show(prefix_attention_does_not_rescue)
TASK.show(prefix_attention_plans_sooner)
TASK.show(what_the_prefix_changes)

# %% [markdown]
# ## Removing the cheat is not enough
#
# If the cheat's later steps are what spoils the training, leave them out and score the first step alone. It
# does not help: the first step stays a guess. And without ever having been asked, the network answers most
# later steps when fed the truth: its plateau is the one-hop look-up (a child of the start), and a look-up
# serves other nodes too. What cures is to be asked for the intermediate hops at a place that cannot read them.
# Why, `partial_credit.py` shows.
# %%


@TASK.claim(
    "next-token-pitfalls/T5",
    where="derived (separating the cheat from the indecipherable first step)",
    kind="phenomenon",
    statement=r"Trained on the first step alone, with no later step to cheat on, the network still guesses it with probability "
    r"$1/d$ after the updates that suffice for teacherless training, under both masks.",
    controls=[
        control("first step of teacherless training, prefix mask", objective="teacherless", masks=("prefix",)),
        control("first step of multi-token training, prefix mask", objective="multi-token", masks=("prefix",)),
    ],
)
def the_first_step_alone_is_not_learnt(
    results: Results, objective: str = "first-step", masks: tuple[str, ...] = MASKS
) -> Evidence:
    shares = [judged(results, objective, mask)["step accuracy"].sel(step=1) for mask in masks]
    return Evidence.all(*(is_a_guess(share, results.config.size.arms) for share in shares))


@TASK.claim(
    "next-token-pitfalls/T5.transfer",
    where="derived (separating the cheat from the indecipherable first step)",
    kind="phenomenon",
    statement=r"The same network, never trained on any later step, is right about more than half of them when fed the truth: what "
    r"it learnt for the first step is the look-up of a child.",
    controls=[control("networks that learnt to look up parents (reversed answers)", objective="reversed")],
)
def the_look_up_transfers(results: Results, objective: str = "first-step") -> Evidence:
    origin = "one half; a guess among the other labels would be right once in seven times"
    steps = [judged(results, objective, mask)["fed the truth"].sel(step=slice(2, None)) for mask in MASKS]
    return Evidence.all(*(Evidence.over_seeds(share.mean("step"), ">=", 0.5, origin) for share in steps))


# %%
TASK.show(the_first_step_alone_is_not_learnt)
TASK.show(the_look_up_transfers)

# %% [markdown]
# ## All verdicts

# %%
TASK.show()
