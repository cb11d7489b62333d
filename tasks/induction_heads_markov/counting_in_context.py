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
# # How transformers come to read Markov chains in context
#
# Draw a transition matrix, write a sequence with it, throw it away; for the next sequence draw another one.
# The only way to predict such sequences well is to *count*, in the sequence at hand, what followed the
# current symbol before: the job of an **induction head**. Networks do not find it at once. They first predict
# evenly, then by counting symbols (*unigrams*), and only then by counting transitions (*bigrams*).
#
# This notebook trains two attention layers on such chains and watches the phases; asks what one layer can do,
# and what happens when counting symbols is useless. Three others go on from here: `minimal_model` shrinks the
# model until the order in which its layers learn can be read off a formula, `causal_and_prefix` asks what a
# **bidirectional** view of the prompt changes, and `trapped_unigram` fixes the matrix, so that it must be learnt
# in the weights, and asks when a single layer gets trapped at the unigram. The exact statements behind all this
# (Bayes predictors, constructions, the loss landscape) are proved in the companion files of proofs.
# %%
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from lab import Evidence, Task, control
from lab.diagnosis.settings import Chains
from lab.figures import Sheet
from lab.labels import LabelledArrays, at_end
from lab.results import Results
from tasks.induction_heads_markov._attention import AttentionSizes, follow_attention
from tasks.induction_heads_markov._drawing import name_backgrounds
from tasks.induction_heads_markov._shared import (
    MIDDLE,
    PHASES,
    SLUG,
    arrays,
    bigram_time,
    most,
    nearest,
    plot_phases,
    share_of_gap,
)


@dataclass(frozen=True)
class Config(AttentionSizes):
    """Sizes of the trainings."""

    trainings: int = 40  # 8 of them added later, since fresh seeds must give every verdict again
    """independent trainings an arm"""
    steps: int = 400
    """updates on Dirichlet chains, of one layer and of two"""
    balanced_steps: int = 400
    """updates on doubly stochastic chains"""
    unigram_steps: int = 100
    """updates on chains with equal rows"""


TASK = Task(
    SLUG,
    paper=SLUG,
    presets={
        "smoke": Config(trainings=2, length=16, batch=8, test=16, steps=30, balanced_steps=30, unigram_steps=30),
        "ci": Config(),
        "paper": Config(
            length=100, batch=64, test=512, steps=2000, balanced_steps=2000, unigram_steps=2000, relative="vectors"
        ),
    },
    root=2030,  # sized so that fresh seeds give every verdict again; below 2026 there were fewer
)
# The prompts on which `lab diagnose --task induction-heads-markov` compares a predictor with the closed forms.
DIAGNOSED_ON = Chains(states=Config.states, length=Config.length)

# %% [markdown]
# ## Counting in context
#
# The data: $S = 3$ symbols, a transition matrix with rows from $\mathrm{Dirichlet}(1, 1, 1)$ for each
# sequence, a uniform first symbol. The model: two layers of attention and nothing else, each with one learned
# number $v_{i - j}$ for every distance, so that where a head looks can depend on distance alone. After each
# few updates the model is compared with four strategies, in the direction
# $\mathrm{KL}(\text{strategy} \,\|\, \text{model})$, averaged over all positions of fresh sequences:
# *uniform*; *unigram*, $(u(b) + 1)/(t + 1 + S)$; *bigram*, $(C(s, b) + 1)/(C(s) + S)$, which is the Bayes
# predictor; and *trigram*, the same count after two symbols, which would be Bayes for chains of order two and
# has too few counts here. Losses are measured against the true row of the matrix, which removes the noise of
# the answers.
#
# Three ensembles differ by how the matrix is drawn: **Dirichlet** rows; **balanced**, uniform over the doubly
# stochastic matrices, so that all symbols are equally frequent and unigrams are worthless; **equal rows**, where
# unigrams are all there is. The `paper` preset has the paper's network: a vector for each distance beside the
# keys, two layers of width 16 with one head, 100 tokens, batches of 64 (without the authors' dropout); a training of
# 2,000 updates takes about ten minutes on one core.


# %%
def follow_causal(config: Config, seeds: tuple[int, ...], ensemble: str, steps: int, layers: int = 2) -> LabelledArrays:
    """Histories [seed, update, ...] of the causal arm alone."""
    return arrays(follow_attention(config, seeds, ensemble, steps, layers=layers).squeeze("arm", drop=True))


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=10)
def phases(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Two layers on Dirichlet chains."""
    return follow_causal(config, seeds, "dirichlet", config.steps)


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=10)
def one_layer(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """One layer on the same data."""
    return follow_causal(config, seeds, "dirichlet", config.steps, layers=1)


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=10)
def balanced(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Two layers on doubly stochastic chains."""
    return follow_causal(config, seeds, "balanced", config.balanced_steps)


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=10)
def equal_rows(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Two layers on chains with equal rows."""
    return follow_causal(config, seeds, "equal rows", config.unigram_steps)


RUNS = {"phases": phases, "one layer": one_layer, "balanced": balanced, "equal rows": equal_rows}


# %% [markdown]
# ### Three phases
#
# The claim counts the trainings that do three things: before training the model is nearest to uniform; at some time
# before it is nearest to the bigram it is nearest to the *unigram*; and after the last update it is nearest to
# the bigram. A model of one layer must fail (it does not get to the bigram), and so must one trained where
# unigrams are worthless (it has no unigram phase). The divergence from the unigram has its minimum in the middle
# of training, as the picture shows.


# %%
def lead(divergence: xr.DataArray, strategy: str) -> xr.DataArray:
    """By how much one of the three strategies of the phases is nearer than the other two, in nats; negative: it is not."""
    rivals = [name for name in PHASES if name != strategy]
    return divergence.sel(strategy=rivals).min("strategy") - divergence.sel(strategy=strategy)


def unigram_lead(divergence: xr.DataArray) -> xr.DataArray:
    """Largest lead of the unigram before the bigram is nearest (the untrained model comes before everything)."""
    reached = (nearest(divergence) == "bigram").cumsum("update") > 0
    before = ~reached | (divergence["update"] == 0)
    return lead(divergence, "unigram").where(before).max("update")


@TASK.claim(
    "induction-heads-markov/P1",
    where="Edelman et al., phases of training",
    kind="phenomenon",
    statement=r"Most trainings of two attention layers on random Markov chains (400 updates) are nearest to the uniform, then to "
    r"the unigram, then to the bigram predictor.",
    controls=[
        control("one layer", run="one layer"),
        control("doubly stochastic chains, where unigrams are worthless", run="balanced"),
    ],
)
def three_phases(results: Results, run: str = "phases") -> Evidence:
    divergence = results[RUNS[run]]["divergence"]
    untrained, trained = divergence.sel(update=0), at_end(divergence, "update")
    return Evidence.all(
        most(lead(untrained, "uniform") > 0, "untrained: nearest to the uniform"),
        most(unigram_lead(divergence) > 0, "before the bigram: nearest to the unigram"),
        most(lead(trained, "bigram") > 0, "trained: nearest to the bigram"),
    )


@TASK.claim(
    "induction-heads-markov/P1-attention",
    where="Edelman et al., phases of training",
    kind="phenomenon",
    statement=r"After 400 updates the first layer looks at the token before more than twice as much as at any other distance (up "
    r"to 8); in the unigram phase, half-way to the transition, it does not.",
    controls=[control("chains with equal rows, where the token before tells nothing", run="equal rows")],
)
def transition_is_the_previous_token(results: Results, run: str = "phases") -> Evidence:
    history = results[RUNS[run]]
    weights = history["attention"].sel(layer=1)
    ratio = np.log(weights.sel(offset=1) / weights.drop_sel(offset=1).max("offset"))
    half = bigram_time(history["divergence"]) / 2
    early = ratio.sel(seed=ratio["seed"], update=half, method="ffill")
    origin = "twice the weight of any other distance (log)"
    return Evidence.all(
        Evidence.over_seeds(early, "<", np.log(2), f"half-way to the transition: {origin}"),
        Evidence.over_seeds(at_end(ratio, "update"), ">", np.log(2), f"at the end: {origin}"),
    )


@TASK.claim(
    "induction-heads-markov/K4",
    where="Edelman et al.; known lower bounds for one layer",
    kind="ordering",
    statement=r"After 400 updates most trainings of one attention layer keep more than half of the excess loss that the unigram has "
    r"over the bigram (Bayes) predictor; most of two layers trained alike keep less than half.",
    controls=[
        control("two layers instead of one", shallow="phases"),
        control("one layer instead of two", deep="one layer"),
    ],
)
def one_layer_is_not_enough(results: Results, shallow: str = "one layer", deep: str = "phases") -> Evidence:
    return Evidence.all(
        most(at_end(share_of_gap(results[RUNS[shallow]]), "update") > 0.5, f"one layer above: {MIDDLE}"),
        most(at_end(share_of_gap(results[RUNS[deep]]), "update") < 0.5, f"two layers below: {MIDDLE}"),
    )


# %% [markdown]
# The picture below follows the mean over trainings; the background tells which strategy is nearest.


# %%
@TASK.figure
def strategy_phases(results: Results) -> Sheet:
    """Divergence of four strategies from the model while it learns, on three ensembles of chains. The background has the
    colour of the nearest of uniform, unigram and bigram."""
    sheet = Sheet(columns=3)
    titles = {
        "phases": "Dirichlet: uniform, unigram, bigram",
        "balanced": "balanced: the plateau is uniform",
        "equal rows": "equal rows: it stays at the unigram",
    }
    for run, title in titles.items():
        divergence = results[RUNS[run]]["divergence"]
        panel = sheet.panel(
            title,
            x="updates",
            y="KL(strategy || model) [nats]",
            xlim=(0, int(divergence["update"].max())),
            ylim=(0, None),
        )
        plot_phases(panel, divergence)
        name_backgrounds(panel, divergence)
    return sheet


# %%
TASK.show(strategy_phases)
TASK.show(three_phases)

# %% [markdown]
# What happens inside: in the unigram phase the first layer averages over everything, if not quite evenly; in
# the transition it narrows down to the token before, which is the first half of the induction head.


# %%
@TASK.figure
def attention_profiles(results: Results) -> Sheet:
    """Attention weight of the first layer against the distance to the token it looks at, at three times of training
    (means over tokens)."""
    history = results[phases]
    transition = int(bigram_time(history["divergence"]).mean())
    times = {
        "half-way to the transition": transition / 2,
        "transition": transition,
        "end": int(history["update"].max()),
    }
    sheet = Sheet()
    panel = sheet.panel(
        "layer 1 narrows down to the token before", x="distance to the token attended to [tokens]", y="attention weight"
    )
    weights = history["attention"].sel(layer=1, offset=slice(0, None))
    for name, time in times.items():
        at = weights.sel(update=time, method="nearest")
        panel.curve(at, over="offset", name=f"{name} (update {int(at['update'])})")
    return sheet


@TASK.figure
def loss_by_position(results: Results) -> Sheet:
    """Loss against the true row at each position of the context after training: one and two layers beside the strategies."""
    sheet = Sheet()
    panel = sheet.panel(
        "one layer counts symbols, two transitions", x="symbols read", y="cross entropy with the true row [nats]"
    )
    losses = results[phases]["reference_by_position"]
    for look, name in enumerate(PHASES):
        panel.curve(losses.sel(strategy=name), over="position", name=name, look=look)
    for run, name in ((one_layer, "one layer"), (phases, "two layers")):
        panel.curve(at_end(results[run]["loss_by_position"], "update"), over="position", name=name)
    return sheet


# %%
TASK.show(attention_profiles)
TASK.show(transition_is_the_previous_token)
TASK.show(loss_by_position)
TASK.show(one_layer_is_not_enough)

# %% [markdown]
# ### Where the plateau is
#
# Where unigrams are worthless the plateau cannot be the unigram. It moves to uniform, and where unigrams are
# all there is, the model stays with them. Edelman et al. report more: without useful unigrams the bigram is
# found *sooner*. That depends on the alphabet: in `minimal_model` it is so with two symbols, and the other way
# round with five.


# %%
@TASK.claim(
    "induction-heads-markov/P2-plateau",
    where="Edelman et al., doubly stochastic chains",
    kind="ordering",
    statement=r"On doubly stochastic chains the plateau moves from the unigram to uniform: in most trainings (400 updates) the model is "
    r"never nearest to the unigram before the bigram, and comes nearer to uniform than half of the unigram's divergence from it.",
    controls=[control("Dirichlet chains", run="phases")],
)
def plateau_moves(results: Results, run: str = "balanced") -> Evidence:
    history = results[RUNS[run]]
    divergence = history["divergence"]
    from_uniform = divergence.sel(strategy="uniform", update=slice(1, None)).min("update")
    return Evidence.all(
        most(unigram_lead(divergence) < 0, "no lead of the unigram at any time"),
        most(
            from_uniform / history["unigram_from_uniform"] < 0.5, "half-way to the unigram, from its exact divergence"
        ),
    )


@TASK.claim(
    "induction-heads-markov/P2-unigram",
    where="Edelman et al., mixtures with unigram chains; derived",
    kind="ordering",
    statement=r"On chains with equal rows the model is after 100 updates nearer to the unigram than to the bigram and to uniform.",
    controls=[control("Dirichlet chains", run="phases")],
)
def unigram_is_the_end(results: Results, run: str = "equal rows") -> Evidence:
    trained = at_end(results[RUNS[run]]["divergence"], "update")
    unigram = trained.sel(strategy="unigram")
    return Evidence.all(
        *(
            Evidence.over_seeds(trained.sel(strategy=other) - unigram, ">", 0, "equally near")
            for other in ("uniform", "bigram")
        )
    )


# %%
TASK.show(plateau_moves)
TASK.show(unigram_is_the_end)

# %%
TASK.show()
