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
# # How transformers learn a hidden causal graph by gradient descent
#
# Every sequence is a small experiment on one and the same **hidden forest**. Token $i$ is drawn from row
# $x_{p(i)}$ of a transition matrix $\pi$; roots are drawn from the stationary law $\mu$ of $\pi$. The matrix
# is new in every sequence, the forest $p$ never changes, and nobody tells the model either of them. After the
# context comes a random *test token* $s$, and the model must name the law of its child, $\pi(s, \cdot)$. The
# loss is the cross entropy with that law, in nats.
#
# Whoever knows the forest counts: of the children of $s$ in the context, how many were $k$? Two attention
# layers can do that (the first copies each token's parent, the second averages the tokens whose copy is $s$).
# These notebooks are about *learning* it, in this order:
#
# 1. what the gradient of the first layer says before anything is learnt: it points at the parents (here);
# 2. staged training of a model with two matrices: the first layer writes down the graph, the second one
#    sharpens (`staged_training`);
# 3. the same for growing length, and on a transition matrix that never occurs in training (`growing_length`);
# 4. a whole two-layer transformer, all weights trained together from zero: plain gradient descent writes down
#    the graph, and Adam does so with the opposite sign (`joint_training`; `adam_on_forests` lets it go on, and
#    `prefix_loses_time` compares the two arms);
# 5. two parents: two heads, each with a question of its own, find one parent each (`two_parents`);
# 6. an ordinary transformer, with MLPs (`ordinary_transformer`).
#
# The trainings are done twice, with a **causal mask** and with a **prefix mask** that lets all context tokens
# see each other (joint training on random forests and with two parents with a causal one only). The two arms
# share initial weights and data. What the second mask changes is said where it shows.
#
# The identities behind all this are checked to rounding error in `proofs_check/causal_structure`.
# Notation: $S$ symbols, $T$ tokens with the test token, Dirichlet($\alpha$) rows of $\pi$, $A_1$
# ($T \times T$) and $A_2$ ($S \times S$) the matrices of the two layers.

# %%
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lab import Task
from lab.domains.chains.latent_graph_prompts import causal_sequences, chain
from lab.domains.chains.latent_graphs import centred_transition, reduced_gradients
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.results import Results
from lab.streams import stream
from tasks.causal_structure._shared import PAPER, masks_of


@dataclass(frozen=True)
class Config:
    """The gradient at the start, on a chain."""

    draws: int = 8
    """independent repetitions"""
    sequences: int = 8_000
    """sequences a repetition"""
    length: int = 40
    """tokens T"""
    start: float = 1e-3
    """beta_0 of A_2 = beta_0 I"""


TASK = Task(
    "causal-structure",
    paper=PAPER,
    root=2026,
    presets={
        "smoke": Config(draws=2, sequences=500, length=20),
        "ci": Config(),
        "paper": Config(draws=16, sequences=60_000),
    },
)

# %% [markdown]
# ## 1. Before anything is learnt, the gradient points at the parents
#
# Take the *reduced* model: $P = \mathrm{softmax}(A_1)$ over positions copies tokens,
# $a = \mathrm{softmax}(A_2[s]\cdot PX)$ weighs them, and $f = a^TX$ is the prediction. At $A_1 = 0$,
# $A_2 = \beta_0 I$ with small $\beta_0$ the gradient of row $i$ of $A_1$ is, up to the factor
# $\beta_0/(T(i+1))$, a number $g_{ij}$ for each $j$ minus its mean over the row. At the parent, $g$ is the
# **chi-square mutual information** of the edge over $S$. Elsewhere it is *not* the information: a
# grandparent, which knows quite a bit about $x_i$, has $g \approx 0$. No earlier node can beat the parent
# (data processing), and the node itself does not because the prior has no preference for repetition. A sticky
# prior has, and the gradient then points at the node itself.
#
# Under a prefix mask later nodes compete too. The child has $g = E\,\mathrm{tr}(B^2)/S$ against
# $E\lVert B\rVert^2/S$ of the parent, $B$ being the centred transition matrix: less by $E\lVert B - B^T\rVert^2/2S$,
# that is, only because chains are not reversible. And row $i$ now shares its attention among all $T - 1$ context tokens instead of
# $i + 1$, so that its gradient is smaller by $(i + 1)/(T - 1)$.


# %%
def kinship(transition: Tensor, distances: np.ndarray) -> tuple[Tensor, Tensor]:
    """g and E I / S between a node of a chain and its ancestor (distance > 0), itself (0) or descendant (< 0).

    With B the centred transition: <B, B^d> / S, (tr pi - 1) / S and tr(B^(d+1)) / S; and ||B^d||^2 / S.
    """
    between = centred_transition(transition)
    states = transition.shape[-1]
    trace = transition.diagonal(dim1=-2, dim2=-1).sum(-1).mean() - 1
    ancestors, descendants, information = [trace], [trace], [torch.tensor(states - 1.0, dtype=trace.dtype)]
    power = between
    for _ in range(int(np.abs(distances).max())):
        ancestors.append((between * power).sum((-1, -2)).mean())
        descendants.append((between.mT * power).sum((-1, -2)).mean())
        information.append(power.square().sum((-1, -2)).mean())
        power = power @ between
    signal = [(ancestors if distance > 0 else descendants)[abs(distance)] for distance in distances.tolist()]
    facts = [information[abs(distance)] for distance in distances.tolist()]
    return torch.stack(signal) / states, torch.stack(facts) / states


SETTINGS = {"uniform": (0.0, "causal"), "sticky": (0.6, "causal"), "prefix": (0.0, "prefix")}


@TASK.measurement(seeds=lambda config: config.draws)
def start_gradient(config: Config, seed: int) -> LabelledArrays:
    """Scaled gradient of one row on a chain, its limit, and the information over S, by setting and distance i - j.

    Distances are -4 .. 5 (negative: later tokens), NaN where the row sees no token; settings are a uniform and a sticky
    prior under a causal mask, and a uniform one under a prefix mask.
    """
    length, row = config.length, config.length // 2
    distances = np.arange(-4, 6)
    rows: dict[str, list[Tensor]] = {"measured": [], "limit": [], "information": []}
    for stickiness, arm in SETTINGS.values():
        data = causal_sequences(
            stream(seed, "gradient"), config.sequences, 3, chain(length - 1), 1.0, stickiness=stickiness
        )
        mask = masks_of([arm], length)[arm]
        gradient, _ = reduced_gradients(
            torch.zeros(length, length, dtype=torch.float64),
            config.start * torch.eye(3, dtype=torch.float64),
            data.tokens,
            data.target,
            1e-3,
            mask,
        )
        scaled = -length / config.start * gradient[row] * mask[row].sum()
        visible = mask[row, row - distances]
        signal, information = kinship(data.transition, distances)
        everything, _ = kinship(data.transition, row - np.arange(length - 1))
        shift = everything[mask[row, :-1]].sum() / mask[row].sum()  # the mean over what the row sees
        values = {"measured": scaled[row - distances], "limit": signal - shift, "information": information}
        for name, value in values.items():
            rows[name].append(torch.where(visible, value, torch.nan))
    return {
        name: labelled(torch.stack(values), setting=list(SETTINGS), distance=distances.tolist())
        for name, values in rows.items()
    }


@TASK.figure
def gradient_rows(results: Results) -> Sheet:
    """The gradient of one row of the first layer before training, by distance to the token attended to (chain, S = 3)."""
    row = results[start_gradient]
    sheet = Sheet(columns=3, width=4.1)
    titles = {
        "uniform": "causal mask: the parent (1) wins",
        "sticky": "sticky prior: the node itself wins",
        "prefix": "prefix mask: the child (-1) competes",
    }
    for setting, title in titles.items():
        gradient = row.sel(setting=setting).dropna("distance")
        facts = gradient["information"].where(gradient["distance"] != 0)  # a token knows all about itself: S - 1
        limits = (None, None) if setting == "sticky" else (-0.03, 0.15)
        panel = sheet.panel(
            title, x="distance $i - j$ (tokens)", y=r"descent on $A_1[i,j]$, times $T(i+1)/\beta_0$", ylim=limits
        )
        _, arm = SETTINGS[setting]
        panel.bars(gradient["measured"], over="distance", name=f"measured, {arm} mask", arm=arm)
        panel.points(gradient["limit"], over="distance", name="law: $g$ less its row mean", look=3)
        panel.points(facts, over="distance", name="information $E\\,I(x_i; x_j)/S$", look=0)
    return sheet


# %%
TASK.show(gradient_rows)
