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
# # Positions that nobody gave: random networks
#
# An attention mask has no parameters, and yet it decides what a network can know. `proofs_check/attention_masks/`
# settles what follows from masks alone, to the last bit. This folder holds the sentences that need sampled or trained
# networks, one idea a part:
#
# 1. here: a *random* causal network already shows who stands next to whom, because its first layer averages over the
#    past; give its attention sharper weights and the pattern fades; without the causal mask there is none;
# 2. `first_symbol.py`: trained *without positions*, a causal network of two layers names the first of many tokens. One
#    layer cannot, and no depth can under a mask by which all see all: both stay at what counting symbols gives;
# 3. `pointers.py`: following a pointer to a *later* token is where a causal mask hurts: its best possible accuracy is
#    known in closed form, place by place, and both arms, causal and prefix, are trained to theirs;
# 4. `switched_masks.py`: which mask learns in-context regression better, at equal steps and at equal numbers of scored
#    tokens; and a network trained under the causal mask can be switched: reading it under the prefix mask already
#    helps, and a short training there beats both staying with the causal mask and starting anew.
#
# Throughout, the two arms are *one* model: the same initial weights, the same data, another mask.
#
# ## Cosines of states
#
# Feed independent normal vectors to a causal transformer without positions and look at the cosines of its
# states at two places, averaged over prompts. If the first attention layer were an exact running mean they
# would be $\sqrt{\min(i,j)/\max(i,j)}$. The **adjacency score** asks of every triple whether
# the nearer of two tokens is the more similar: 1 is a perfect picture of the order, $1/2$ is none.
#
# Three things to see. At the *output of the first attention layer* the law holds. In the *residual stream*
# the tokens' own parts cover most of it. And it is a law of nearly uniform attention: query and key weights
# four times as large make scores sixteen times as large, and the pattern fades. Under a mask by which all
# see all there is no pattern anywhere: without positions that network cannot tell places apart.

# %%
from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.attention.causal_averaging import adjacency_score, cosines, running_mean_cosine
from lab.figures import Sheet
from lab.labels import Label, LabelledArrays, labelled
from lab.models import masks
from lab.models.transformer import Architecture, Intermediates, Transformer
from lab.results import Results
from lab.streams import stream
from tasks.attention_masks._shared import SLUG


@dataclass(frozen=True)
class Config:
    """Random networks whose tokens are normal vectors."""

    draws: int = 128
    """independent networks"""
    sequences: int = 96
    """prompts of each"""
    length: int = 16
    """tokens a prompt"""
    architecture: Architecture = Architecture(width=64, layers=3, heads=4, initialisation="fan_in_uniform")
    """pre-norm, no positions; weights as usual layers start, so that scores have variance 1/9"""
    gains: tuple[float, ...] = (1.0, 2.0, 4.0)
    """factors of the query and key weights, 1 first; scores grow by their squares"""


TASK = Task(
    SLUG,
    paper=SLUG,
    presets={
        "smoke": Config(draws=2, sequences=8, length=8, architecture=Architecture(width=16, layers=3, heads=2)),
        "ci": Config(),
        "paper": Config(
            draws=16,
            sequences=960,
            length=128,
            architecture=Architecture(width=768, layers=12, heads=12, initialisation="fan_in_uniform"),
        ),
    },
)
ATTENTION, LAST = "attention output, first layer", "residual, last layer"
SITES = (ATTENTION, "residual, first layer", "residual, middle layer", LAST)


def states_by_site(intermediates: Intermediates) -> list[Tensor]:
    """States [model, batch, token, width] at the places named by SITES."""
    layers = sum(name.endswith(".residual") for name in intermediates)
    depths = [0, layers // 2, layers - 1]
    return [intermediates["layers.0.attention.output"]] + [
        intermediates[f"layers.{depth}.residual"] for depth in depths
    ]


@TASK.measurement(seeds=lambda config: config.draws)
def initial_cosines(config: Config, seed: int) -> LabelledArrays:
    """Mean cosines of states at two places (``cosine``), their adjacency ``score``, and the mean score of single prompts."""
    rng = stream(seed, "tokens of random networks").rng()
    inputs = torch.from_numpy(rng.standard_normal((1, config.sequences, config.length, config.architecture.width)))
    patterns = {"causal": masks.causal(config.length), "full": masks.full(config.length)}
    rows: dict[str, list] = defaultdict(list)
    for gain in config.gains:
        network = Transformer(config.architecture, [seed], torch.float64)
        with torch.no_grad():
            for name, weight in network.named_parameters():
                if "attention.query" in name or "attention.key" in name:
                    weight.mul_(gain)
        for pattern in patterns.values():
            intermediates: Intermediates = {}
            with torch.no_grad():
                network(inputs, pattern, intermediates=intermediates)
            of_prompts = torch.stack([cosines(states[0] @ states[0].mT) for states in states_by_site(intermediates)])
            mean = of_prompts.mean(1)
            rows["cosine"].append(mean.numpy())
            rows["score"].append(adjacency_score(mean).numpy())
            rows["single_score"].append([float(adjacency_score(of_site).mean()) for of_site in of_prompts])
    places: dict[str, Sequence[Label]] = {"gain": config.gains, "mask": tuple(patterns), "site": SITES}
    shape = (len(config.gains), len(patterns))
    arrays = {name: np.array(values).reshape(*shape, *np.shape(values)[1:]) for name, values in rows.items()}
    return {
        "cosine": labelled(arrays["cosine"], **places, row=None, column=None),
        "score": labelled(arrays["score"], **places),
        "single_score": labelled(arrays["single_score"], **places),
    }


def at_gain_one(results: Results, name: str, mask: str, site: str) -> xr.DataArray:
    """One of the measured arrays for weights as usual layers start."""
    chosen: xr.DataArray = results[initial_cosines][name].sel(gain=1.0, mask=mask, site=site)
    return chosen


@TASK.figure
def cosine_matrices(results: Results) -> Sheet:
    """Cosines of states at two places in random networks, beside the law of running means."""
    law = running_mean_cosine(results.config.length)
    pictures = [("law of running means", xr.DataArray(law.numpy()), float(adjacency_score(law)))]
    for title, mask, site in (
        ("causal: attention output", "causal", ATTENTION),
        ("causal: last residual", "causal", LAST),
        ("all see all: attention output", "full", ATTENTION),
    ):
        score = float(at_gain_one(results, "score", mask, site).mean())
        pictures.append((title, at_gain_one(results, "cosine", mask, site), score))
    sheet = Sheet(
        columns=4,
        width=3.7,
        height=3.2,
        title="a random causal layer draws the order of its tokens; the residual stream covers most of it",
        foot="greys reach the largest cosine of two different tokens",
    )
    for title, cosine, score in pictures:
        mean = cosine.mean("seed").values if "seed" in cosine.dims else cosine.values
        apart = mean[~np.eye(len(mean), dtype=bool)]
        panel = sheet.panel(title, x=f"token (adjacency score {score:.2f})", y="token")
        panel.heat(cosine, bar="cosine", low=min(0.0, apart.min()), high=apart.max(), of="closed form (law)")
    return sheet


@TASK.figure
def adjacency_scores(results: Results) -> Sheet:
    """Adjacency score by place in the network and by gain of query and key weights."""
    measured = results[initial_cosines]
    sheet = Sheet(columns=2, width=5.0, height=3.9)
    by_site = sheet.panel(
        "clear after attention, faint in the stream",
        x="place in the network",
        y="adjacency score",
        ylim=(0.35, 1.05),
        legend="upper right",
    )
    by_gain = sheet.panel(
        "sharper attention blurs it",
        x="factor of query and key weights",
        y="adjacency score, attention output",
        scale=("log2", "linear"),
        xticks=results.config.gains,
        ylim=(0.35, 1.05),
        legend="center left",
    )
    for arm, mask, title in (("causal", "causal", "causal mask"), ("prefix", "full", "all see all")):
        for variant, name, of in ((0, "score", "mean cosines"), (1, "single_score", "single prompts")):
            scores = measured[name].sel(gain=1.0, mask=mask)
            by_site.curve(scores, over="site", arm=arm, variant=variant, name=f"{title}, {of}")
        scores = measured["score"].sel(mask=mask, site=ATTENTION)
        by_gain.curve(scores, over="gain", arm=arm, name=f"{title}, mean cosines")
    for panel in (by_site, by_gain):
        panel.level(0.5, "no pattern")
    return sheet


@TASK.claim(
    "attention-masks/near.P1",
    where="Zuo, Guerzhoy et al. 2025; the score is this project's version of the paper's",
    paper="zuo-2025-nearby",
    kind="phenomenon",
    statement="At random initialisation and without positions, mean cosines of the first attention output of a "
    "causal network have an adjacency score above $0.95$, and lie within $0.15$ of "
    r"$\sqrt{\min(i,j)/\max(i,j)}$.",
    controls=[control("a mask by which all see all", mask="full")],
)
def random_causal_networks_show_the_order(results: Results, mask: str = "causal") -> Evidence:
    cosine = at_gain_one(results, "cosine", mask, ATTENTION)
    law = xr.DataArray(running_mean_cosine(results.config.length).numpy(), dims=("row", "column"))
    deviation = abs(cosine - law).max(("row", "column"))
    scores = at_gain_one(results, "score", mask, ATTENTION)
    return Evidence.all(
        Evidence.over_seeds(scores, ">", 0.95, "nearly every triple in order"),
        Evidence.over_seeds(deviation, "<", 0.15, "attention that is uniform up to scores of order 1"),
    )


@TASK.claim(
    "attention-masks/near.P1.full",
    where="derived",
    kind="phenomenon",
    statement="Where all see all there is no pattern: the adjacency score of mean cosines is $1/2$ on average, at "
    "the attention output and in the residual stream, because the places are exchangeable.",
    controls=[control("a causal mask", mask="causal")],
)
def full_attention_shows_no_order(results: Results, mask: str = "full") -> Evidence:
    return Evidence.all(
        *(
            Evidence.equals(
                at_gain_one(results, "score", mask, site),
                0.5,
                within=0.05,
                origin=f"{site}: exchangeable places, told apart to 5 %",
            )
            for site in SITES
        )
    )


@TASK.claim(
    "attention-masks/near.P1.residual",
    where="derived",
    kind="phenomenon",
    statement="In the residual stream after the last block the pattern is still there, but faint: a score above "
    "$0.55$ and below $0.95$.",
    controls=[
        control("a mask by which all see all", mask="full"),
        control("the attention output of the first layer", site=ATTENTION),
    ],
)
def residual_stream_is_faint(results: Results, mask: str = "causal", site: str = LAST) -> Evidence:
    scores = at_gain_one(results, "score", mask, site)
    return Evidence.all(
        Evidence.over_seeds(scores, ">", 0.55, "above the 1/2 of no pattern by more than chance makes of it"),
        Evidence.over_seeds(scores, "<", 0.95, "the score demanded of the attention output"),
    )


@TASK.claim(
    "attention-masks/near.P1.any-gain",
    where="read into the abstract: random networks have it",
    kind="phenomenon",
    statement="A random causal network shows the order of its tokens (score above $0.95$ at the first attention "
    "output) whatever the size of its query and key weights.",
    expected="refuted",
    condition="when attention is nearly uniform, as with weights of order one over the root of the width",
    controls=[control("weights of that order", enlarged=False)],
)
def any_random_network_shows_the_order(results: Results, enlarged: bool = True) -> Evidence:
    gain = max(results.config.gains) if enlarged else 1.0
    scores = results[initial_cosines]["score"].sel(gain=gain, mask="causal", site=ATTENTION)
    return Evidence.over_seeds(scores, ">", 0.95, "the score demanded at gain 1")


# %%
TASK.show(cosine_matrices)
TASK.show(adjacency_scores)
TASK.show(random_causal_networks_show_the_order)
TASK.show(full_attention_shows_no_order)
TASK.show(residual_stream_is_faint)
TASK.show(any_random_network_shows_the_order)

# %% [markdown]
# ## All verdicts

# %%
TASK.show()
