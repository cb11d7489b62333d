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
# are *trained*, and the question is **how long it takes them to leave the cheat**.
#
# Two obstacles have to be told apart:
#
# * the **cheat**: later steps are learnt without any planning, so that they stop teaching anything;
# * the **indecipherable first step**: what is left rewards a network only when it has the whole plan.
#
# All networks that are compared have the same architecture, initial weights, graphs and budget. What differs
# is what is predicted from what, and who may look at whom: under the *causal* mask a token sees what stands
# before it, under the *prefix* mask the tokens of the prompt see one another, in both directions.
#
# This file compares the objectives. `partial_credit.py` counts why the first step is so hard; `other_sizes.py`
# has more and shorter arms; `conditions.py` asks what the cure depends on.
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
# | first-step | the true answer so far | the first node only |
# | reversed | the same, answer from goal to start | the next node |
# | teacherless | blanks instead of the answer | all nodes at once |
# | multi-token | the true answer so far | the next node and, by further linear heads, all nodes after it |
# | shuffled | blanks | all nodes at once, the middle ones taken from other graphs (`conditions.py`) |
#
# The sizes are the smallest that keep the phenomenon. Two arms of four nodes need two hops of look-ahead, the
# least that is not learnt at once. Three layers are what the plan needs. Attention is all that it needs, so the
# networks have one head, no MLPs and no biases, and a residual stream of 16 numbers. Adam with short memories
# ($\beta_1 = 0.6$, $\beta_2 = 0.99$) leaves the plateaus of these small networks early, and the rows of the
# embedding are larger than what attention adds at first. None of this differs between the objectives
# (`_shared.py`). The preset `paper` has the authors' tokens, network and fixed set of graphs instead.
#
# ## Escape times
#
# Every 50 updates a network answers 128 new graphs. **A training has escaped** when at two checks in a row it
# answers nine in ten of them right (first-step: names the first step of nine in ten); then it ends. Otherwise
# it ends after 10,000 updates, and all that is known is that it takes longer: its escape time is *censored*.
# Greedy writing is right throughout exactly if every step is right given the true steps before, so that one pass
# over the true answer is enough to follow a training.
#
# Escape times scatter over orders of magnitude, and some are censored, so no means are taken. Two objectives are
# compared **pair by pair**, from the same weights on the same graphs: in how many of the pairs does the one
# escape within the budget, and the other later or not at all? Where it makes no difference, neither comes first
# in more than half of the pairs, and an exact binomial interval says whether that can be.
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
    MASKS,
    PAPER,
    PAPER_POOL,
    PAPER_SIZE,
    PAPER_TRAINING,
    SLUG,
    SMOKE_TRAINING,
    Comparison,
    Size,
    Training,
    gone,
    most,
    sooner,
)


@dataclass(frozen=True)
class Config:
    """Graphs, network and budget."""

    size: Size = Size()
    """the graphs that all objectives are compared on"""
    training: Training = Training()
    """the network and its budget"""
    early: int = 1_000
    """updates after which standard training is looked at under the prefix mask"""
    soon: int = 2_500
    """updates within which heads that look ahead are compared with standard training"""
    look_up: int = 800
    """updates after which the first step alone is looked at on its way"""
    shallow_layers: int = 1
    """layers of the network that is too shallow"""
    pool: int = 0
    """graphs of a fixed set; 0 for fresh ones"""
    trainings: int = 48
    """independent trainings of each objective under each mask (teacherless, prefix mask: twice as many)"""
    pairs: int = 72
    """pairs of standard training with the first step alone and with heads that look ahead, prefix mask"""
    shown: int = 8
    """independent trainings that are drawn and not judged"""


TASK = Task(
    SLUG,
    paper=PAPER,
    # 2026 showed that standard training leaves the cheat in 8 of 28 trainings under the prefix mask; T1, T1.long and T4 were
    # narrowed for it and the pairs raised, and all of this file is drawn anew. Trainings beyond 20 of each objective (pairs:
    # beyond 64) were added later, since fresh seeds must give every verdict again.
    root=2027,
    presets={
        "smoke": Config(training=SMOKE_TRAINING, early=6, soon=12, look_up=6, trainings=2, pairs=2, shown=2),
        "ci": Config(),
        "paper": Config(
            size=PAPER_SIZE, training=PAPER_TRAINING, early=10_000, soon=30_000, look_up=10_000, pool=PAPER_POOL
        ),
    },
)
OBJECTIVES = ("reversed", "teacherless", "multi-token", "first-step", "standard")
LATER = 0.95
NEAR, NEARLY = 0.072, 0.1
NEAR_ORIGIN = "a guess, 1/d, to within five standard errors of the share right among 1,200 graphs"


NEARLY_ORIGIN = "a guess, 1/d, to within 0.1; chosen on pilot seeds, judged on fresh ones"


# %%
def trained(config: Config, objective: str, masks: tuple[str, ...], seeds: tuple[int, ...]) -> LabelledArrays:
    """Trainings of an objective, from the same weights and on the same graphs as those of all others."""
    comparison = Comparison((objective,), masks, config.size, config.training, config.pool)
    return comparison.fit(seeds, f"{objective} {masks[0]}")


@TASK.measurement(seeds=lambda config: config.pairs, ensemble=True, seeds_per_job=32)
def standard_prefix(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Standard training, prefix mask."""
    return trained(config, "standard", ("prefix",), seeds)


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=20)
def standard_causal(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Standard training, causal mask."""
    return trained(config, "standard", ("causal",), seeds)


@TASK.measurement(seeds=lambda config: config.pairs, ensemble=True, seeds_per_job=32)
def first_step_prefix(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Training on the first step alone, prefix mask."""
    return trained(config, "first-step", ("prefix",), seeds)


@TASK.measurement(seeds=lambda config: config.shown, ensemble=True, seeds_per_job=20)
def first_step_causal(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Training on the first step alone, causal mask."""
    return trained(config, "first-step", ("causal",), seeds)


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=20)
def reversed_answers(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Training on reversed answers, both masks."""
    return trained(config, "reversed", MASKS, seeds)


@TASK.measurement(seeds=lambda config: 2 * config.trainings, ensemble=True, seeds_per_job=40)
def teacherless_prefix(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Teacherless training, prefix mask."""
    return trained(config, "teacherless", ("prefix",), seeds)


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=20)
def teacherless_causal(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Teacherless training, causal mask."""
    return trained(config, "teacherless", ("causal",), seeds)


@TASK.measurement(seeds=lambda config: config.pairs, ensemble=True, seeds_per_job=32)
def looking_ahead_prefix(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Further heads that predict all later nodes, on networks that are the same but for these heads; prefix mask."""
    return trained(config, "multi-token", ("prefix",), seeds)


@TASK.measurement(seeds=lambda config: config.shown, ensemble=True, seeds_per_job=20)
def looking_ahead_causal(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """The same, causal mask."""
    return trained(config, "multi-token", ("causal",), seeds)


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=20)
def too_shallow(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Teacherless training of a network with fewer layers than the plan has steps, prefix mask."""
    shallow = replace(config, training=replace(config.training, layers=config.shallow_layers))
    return trained(shallow, "teacherless", ("prefix",), seeds)


def judged(results: Results, objective: str, mask: str) -> xr.Dataset:
    """All that was measured of an objective under a mask, [seed, ...]."""
    measured = {
        ("standard", "prefix"): standard_prefix,
        ("standard", "causal"): standard_causal,
        ("first-step", "prefix"): first_step_prefix,
        ("first-step", "causal"): first_step_causal,
        ("reversed", "prefix"): reversed_answers,
        ("reversed", "causal"): reversed_answers,
        ("teacherless", "prefix"): teacherless_prefix,
        ("teacherless", "causal"): teacherless_causal,
        ("multi-token", "prefix"): looking_ahead_prefix,
        ("multi-token", "causal"): looking_ahead_causal,
        ("shallow", "prefix"): too_shallow,
    }[objective, mask]
    arm: xr.Dataset = results[measured].sel(mask=mask).squeeze("objective")
    return arm


@TASK.figure
def escapes(results: Results) -> Sheet:
    """Share of trainings that have escaped, against the number of updates, for each objective under both masks."""
    config = results.config
    checks = config.training.checks
    sheet = Sheet(columns=2, width=5.4, height=4.0)
    titles = {
        "causal": "Causal: few find the plan in this time",
        "prefix": "Prefix: scored alone, the first step is learnt",
    }
    for mask, title in titles.items():
        panel = sheet.panel(
            title,
            x=f"updates of {config.training.batch} graphs",
            y="share of trainings that have escaped",
            scale=("log", "linear"),
            ylim=(-0.03, 1.03),
        )
        for objective in OBJECTIVES:
            panel.curve(gone(judged(results, objective, mask), checks), over="update", name=objective, band="none")
    return sheet


# %%
TASK.show(escapes)


# %% [markdown]
# **Standard training** sits at $1/d$ for a long time: under the causal mask for all of the 10,000 updates, under
# the prefix mask too in most trainings, while some find the plan on the way. It is not that nothing was learnt: fed the
# truth, every step but the first is right. The median network is the cheat in all that is measured, and its loss
# has come to the floor: call a network that knows nothing ($\ln N$ nats a node) 0 and the cheat's
# $\ln d / (l-1)$ 1. This is a sentence about a budget, and about a network: wider ones with more heads and bigger
# batches have been seen to leave the cheat sooner.
#
# What it writes when it guessed wrong is instructive. Up to the node before the last it follows the arm it
# has chosen, as a cheat should. The last node some networks look up and others simply *copy from the goal*:
# as long as the truth is fed in, both are right, and training never sees the difference. So "the output is
# always some arm" is true of the ideal cheat, and of a trained network only up to the node before the last.
# %%
def is_the_cheat(measured: xr.Dataset, size: Size, updates: int) -> Evidence:
    """Accuracy, later steps and loss of one arm after some updates are those of the cheat, in the median.

    At the end of the training they are those of the test graphs, before it those of the validation graphs.
    """
    start, floor = np.log(size.labels), cheat_loss(size.arms, size.length)
    at, last = measured.sel(update=updates), updates == int(measured["update"].max())
    steps = at["step accuracy"] if last else at["steps over training"]
    way = (start - at["loss"]) / (start - floor)
    accuracy, near, origin = (at["exact"], NEAR, NEAR_ORIGIN) if last else (at["curve"], NEARLY, NEARLY_ORIGIN)
    return Evidence.all(
        Evidence.median_equals(accuracy, 1 / size.arms, near, origin, absolute=True),
        Evidence.median(steps.sel(step=slice(2, None)).min("step"), ">=", LATER, "the cheat is always right there"),
        Evidence.median_equals(way, 1.0, 0.1, "a tenth of the way from ln N (0) to ln d / (l - 1) (1)"),
    )


@TASK.claim(
    "next-token-pitfalls/T1",
    where="Section 6 (standard training), Figure 3; the prefix mask is ours",
    kind="training",
    statement=r"After 10,000 updates under the causal mask, and after 1,000 under the prefix mask, standard next-token training on arms "
    r"that need two hops of look-ahead ($l=4$, $d=2$) is the cheat, in the median training: accuracy $1/d$; later steps right "
    r"when fed the truth; and a loss on new graphs that has come from $\ln N$ to $\ln d/(l-1)$, to within a tenth of the way.",
    controls=[
        control("reversed answers", objective="reversed"),
        control("a network of one layer, teacherless", objective="shallow", masks=("prefix",)),
    ],
)
def standard_training_is_the_cheat(
    results: Results, objective: str = "standard", masks: tuple[str, ...] = MASKS
) -> Evidence:
    config = results.config
    updates = {"causal": config.training.steps, "prefix": config.early}
    return Evidence.all(*(is_the_cheat(judged(results, objective, mask), config.size, updates[mask]) for mask in masks))


@TASK.claim(
    "next-token-pitfalls/T1.long",
    where="derived, on Section 6 (standard training)",
    kind="training",
    statement=r"Most standard trainings have not escaped after 10,000 updates under the causal mask.",
    controls=[control("reversed answers", objective="reversed")],
)
def standard_training_stays_long(results: Results, objective: str = "standard") -> Evidence:
    return most(~judged(results, objective, "causal")["escaped"])


@TASK.claim(
    "next-token-pitfalls/T1.copy",
    where="derived (what a trained cheat writes)",
    kind="phenomenon",
    statement=r"What standard training writes at its end (escape or 10,000 updates) follows an arm to the node before the last and then "
    r"ends either in the leaf of that arm or in a copy of the goal, on at least $95\%$ of new graphs (median training, both masks).",
    controls=[
        control(
            "a network of one layer, teacherless: steps that are not looked up", objective="shallow", masks=("prefix",)
        ),
        control("reversed answers", objective="reversed", masks=("causal",)),
    ],
)
def the_end_is_looked_up_or_copied(
    results: Results, objective: str = "standard", masks: tuple[str, ...] = MASKS
) -> Evidence:
    origin = "as for the cheat, which is always right there"
    shares = [judged(results, objective, mask)["any arm or goal"] for mask in masks]
    return Evidence.all(*(Evidence.median(share, ">=", LATER, origin) for share in shares))


@TASK.figure
def accuracy_of_each_step(results: Results) -> Sheet:
    """Accuracy of each step of the answer at the end of training (escape, or the end of the budget), given what the objective
    reads: the true steps before it, or blanks (teacherless)."""
    config = results.config
    sheet = Sheet(columns=2, width=5.2)
    titles = {"causal": "Causal: the first step is the hard one", "prefix": "Prefix: standard training alone lacks it"}
    for mask, title in titles.items():
        panel = sheet.panel(
            title, x="step of the answer", y="share right", ylim=(0, 1.05), xticks=list(config.size.steps)
        )
        for place, objective in enumerate(OBJECTIVES):
            steps = judged(results, objective, mask)["step accuracy"]
            panel.bars(
                steps, over="step", name=objective, slot=(place, len(OBJECTIVES)), middle="median", band="quartiles"
            )
        panel.level(1 / config.size.arms, "a guess, 1/d")
    return sheet


# %%
TASK.show(standard_training_is_the_cheat)
TASK.show(standard_training_stays_long)
TASK.show(the_end_is_looked_up_or_copied)
TASK.show(accuracy_of_each_step)

# %% [markdown]
# ## Take the cheat away
#
# If the cheat's later steps are what starves the first one, leave them out and score the first step alone. The
# network, its weights and its graphs are the same, the parity of `partial_credit.py` is as hard as before, and
# nothing else is learnt on the way. Under the prefix mask the first step is now found within 10,000 updates, in nearly every
# pair before standard training finds it: so long **the cheat costs standard training the plan**, as the paper says of its
# causal networks.
#
# The plateau before it is instructive: without ever having been asked, the network answers most later steps when
# fed the truth. What it learns first is the one-hop look-up (a child of the start), and a look-up serves other
# nodes too.
# %%


@TASK.claim(
    "next-token-pitfalls/T5",
    where="Section 4 (the cheat starves the first step), our test of it",
    kind="ordering",
    statement=r"Prefix mask: scored on the first step alone, with no later step to cheat on, a network learns the first step before "
    r"standard training does, in most of the pairs (same weights, same graphs) of which one does so within 10,000 updates.",
    controls=[
        control("reversed answers in place of standard training", later="reversed"),
        control(
            "standard training in place of the first step alone, against teacherless",
            earlier="standard",
            later="teacherless",
        ),
    ],
)
def the_first_step_is_learnt_without_the_cheat(
    results: Results, earlier: str = "first-step", later: str = "standard"
) -> Evidence:
    return sooner(judged(results, earlier, "prefix"), judged(results, later, "prefix"), decided=True)


@TASK.claim(
    "next-token-pitfalls/T5.transfer",
    where="derived (separating the cheat from the indecipherable first step)",
    kind="phenomenon",
    statement=r"After 800 updates (prefix mask; or at its escape, if that comes sooner) the median network that is scored on the first "
    r"step alone is right about more than half of the later steps when fed the truth, though never trained on them.",
    controls=[control("after 50 updates, before there is a look-up", at_the_first_check=True)],
)
def the_look_up_transfers(results: Results, at_the_first_check: bool = False) -> Evidence:
    config = results.config
    updates = config.training.checks[0] if at_the_first_check else config.look_up
    steps = judged(results, "first-step", "prefix")["steps over training"].sel(step=slice(2, None), update=updates)
    origin = "one half; a guess among the other labels would be right once in six times"
    return Evidence.median(steps.mean("step"), ">=", 0.5, origin)


# %%
TASK.show(the_first_step_is_learnt_without_the_cheat)
TASK.show(the_look_up_transfers)

# %% [markdown]
# ## Three ways out
#
# **Reverse the answer**, and every step is a look-up of a parent: no planning is left. **Hide the answer**
# (teacherless): now the cheat has nothing to read, the node next to the goal has to be found by one hop back,
# the one before by two; each hop is learnt on top of the one before. **Predict several nodes** from each
# position: the heads that look ahead at the start must find the nodes near the goal, with the same effect.
#
# The network, its initial weights, the graphs and the budget are those of standard training, and by the
# construction of `proofs_check` its depth suffices. So it is the objective, and not the capacity, that takes so
# long. Depth is needed all the same: a network of one layer has no second look to take.
# %%


@TASK.claim(
    "next-token-pitfalls/T2",
    where="Section 6 (reversed answers); the order of escapes and the prefix mask are ours",
    kind="ordering",
    statement=r"Trained on reversed answers the same network answers nine in ten graphs within 10,000 updates, and standard training later "
    r"or not at all, in most pairs of one seed, under either mask.",
    controls=[
        control("answers from start to goal, against teacherless training", objective="standard", other="teacherless")
    ],
)
def reversed_answers_are_learnt(results: Results, objective: str = "reversed", other: str = "standard") -> Evidence:
    return Evidence.all(*(sooner(judged(results, objective, mask), judged(results, other, mask)) for mask in MASKS))


@TASK.claim(
    "next-token-pitfalls/T3",
    where="Section 6 (teacherless training), under a prefix mask, which is ours",
    kind="ordering",
    statement=r"Same network, same initial weights, same graphs, prefix mask: teacherless training answers nine in ten graphs within "
    r"10,000 updates, and standard training later or not at all, in most pairs of one seed.",
    controls=[control("a network of one layer, teacherless", objective="shallow")],
)
def teacherless_training_is_sooner(results: Results, objective: str = "teacherless") -> Evidence:
    return sooner(judged(results, objective, "prefix"), judged(results, "standard", "prefix"))


@TASK.claim(
    "next-token-pitfalls/T3.causal",
    where="Section 6 (teacherless training)",
    kind="training",
    statement=r"Under the causal mask, that of the paper's networks, teacherless training answers nine in ten graphs within 10,000 "
    r"updates, in more than three in four trainings.",
    controls=[control("the prefix mask", mask="prefix")],
    expected="not reproduced",
    condition="with the paper's networks of six layers and a width of 384, and larger ones",
)
def teacherless_training_under_the_causal_mask(results: Results, mask: str = "causal") -> Evidence:
    escaped = judged(results, "teacherless", mask)["escaped"]
    origin = "three in four: far above the share of escapes in pilot trainings (root 0); judged on fresh ones"
    return Evidence.proportion(int(escaped.sum()), escaped.size, ">", 0.75, origin)


@TASK.claim(
    "next-token-pitfalls/T3.multi-token",
    where="Section 7 (multi-token prediction), derived",
    kind="ordering",
    statement=r"Prefix mask: with linear heads that predict all later nodes from each position the network answers nine in ten graphs "
    r"before standard training does, in most of the pairs (same weights, same graphs) of which one does so within 2,500 updates: "
    r"reading the truth does no harm if the start must also predict what it cannot read.",
    controls=[control("the first head alone, against teacherless training", objective="standard", other="teacherless")],
)
def heads_that_look_ahead_help(results: Results, objective: str = "multi-token", other: str = "standard") -> Evidence:
    return sooner(
        judged(results, objective, "prefix"), judged(results, other, "prefix"), decided=True, within=results.config.soon
    )


# %%
TASK.show(reversed_answers_are_learnt)
TASK.show(teacherless_training_is_sooner)
TASK.show(teacherless_training_under_the_causal_mask)
TASK.show(heads_that_look_ahead_help)

# %% [markdown]
# ## What the prefix mask changes
#
# Nothing for standard training in its first 1,000 updates: the cheat reads the answer and the edges, and both
# masks allow that. Nothing for reversed answers either, whose every step is one look-up by a token that stands
# behind all edges. But *where planning is learnt*, the prefix mask makes it easier. Under the causal mask an edge
# sees only the edges before it, and never the goal, so that two hops can only be taken one after the other, by
# tokens behind the edges. Under the prefix mask each edge can also look up the edges next to it, wherever they
# stand, and can learn whether it leads to the goal.
#
# The networks of the paper are causal.
# %%


@TASK.claim(
    "next-token-pitfalls/T4",
    where="derived (causal and prefix masks)",
    kind="phenomenon",
    statement=r"In its first 1,000 updates prefix attention does not rescue standard training: from the same weights on the same graphs "
    r"the accuracy is that of the causal mask to within $0.1$ (median of the differences).",
    controls=[
        control("reversed answers under the prefix mask: another objective, not another mask", under_prefix="reversed")
    ],
)
def prefix_attention_does_not_rescue(results: Results, under_prefix: str = "standard") -> Evidence:
    updates = results.config.early
    prefix = judged(results, under_prefix, "prefix")["curve"].sel(update=updates)
    causal = judged(results, "standard", "causal")["curve"].sel(update=updates)
    origin = "no difference, to within 0.1; chosen on pilot seeds, judged on fresh ones"
    return Evidence.median_equals(prefix - causal, 0.0, NEARLY, origin, absolute=True)


@TASK.claim(
    "next-token-pitfalls/T4.teacherless",
    where="derived (causal and prefix masks)",
    kind="ordering",
    statement="Prefix attention speeds up the planning of teacherless training: from the same weights on the same graphs nine in ten "
    "answers are right within 10,000 updates under the prefix mask, and later or not at all under the causal mask, in most pairs.",
    controls=[control("a network of one layer under the prefix mask", objective="shallow")],
)
def prefix_attention_plans_sooner(results: Results, objective: str = "teacherless") -> Evidence:
    return sooner(judged(results, objective, "prefix"), judged(results, "teacherless", "causal"))


@TASK.figure
def what_the_prefix_changes(results: Results) -> Sheet:
    """Updates until a training escapes, by objective and mask: every training, and the median; on the upper line are those
    that have not escaped when the budget ends."""
    training = results.config.training
    sheet = Sheet(width=7.2, height=4.2)
    panel = sheet.panel(
        "Planning is learnt sooner where the edges may read the goal",
        x="objective",
        y=f"updates of {training.batch} graphs until escape",
        scale=("linear", "log"),
        legend="lower right",
    )
    for place, mask in enumerate(MASKS):
        updates = {objective: judged(results, objective, mask)["updates"].values for objective in OBJECTIVES}
        for objective, values in updates.items():
            panel.scatter(objective, values, arm=mask, slot=(2 * place, 4))
        panel.points(
            updates, name=f"median, {mask}", arm=mask, variant=3, middle="median", band="none", slot=(2 * place + 1, 4)
        )
    panel.level(training.steps, "the budget: on it, not escaped by then")
    return sheet


# %%
TASK.show(prefix_attention_does_not_rescue)
TASK.show(prefix_attention_plans_sooner)
TASK.show(what_the_prefix_changes)

# %% [markdown]
# ## All verdicts

# %%
TASK.show()
