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
#    past; sharper weights and the residual stream cover it without taking it away; without the causal mask there is none;
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
# states at two places. If the first attention layer were an exact running mean they would be
# $\sqrt{\min(i,j)/\max(i,j)}$ on average. The **adjacency score** asks of every triple whether
# the nearer of two tokens is the more similar: 1 is a perfect picture of the order, $1/2$ is none.
#
# Which cosines? Those of *one* prompt scatter, and averaging over prompts takes the scatter away: if the nearer token is
# more alike on average, by however little, the score of averages goes to 1 as prompts are added. So the score of averaged
# cosines measures the number of prompts as much as the network. What belongs to the network is the score of single prompts,
# averaged afterwards: the chance that in one prompt the nearer of two tokens is the more alike. It has the
# same mean for every number of prompts.
#
# Four things to see. At the *output of the first attention layer* the law is near (within 0.15), and one prompt shows the order. In the
# *residual stream* the tokens' own parts cover most of it: one prompt says little, many say the same. With query and key
# weights two and four times as large (scores grow by the squares) the order is still there, and its contrast fades: each
# doubling more than halves what a single prompt has above $1/2$. Under a mask by which all see all there is no pattern
# anywhere: without positions the places are exchangeable.

# %%
from __future__ import annotations

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

    draws: int = 36  # 4 of them added later, since fresh seeds must give every verdict again
    """independent networks"""
    sequences: int = 512
    """prompts of each, a power of 8"""
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
            sequences=512,
            length=128,
            architecture=Architecture(width=768, layers=12, heads=12, initialisation="fan_in_uniform"),
        ),
    },
    root=2026,
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


# What the pictures of mean cosines show: mask, site and factor of the query and key weights (the largest is the last).
PICTURES = {
    "causal: attention output": ("causal", ATTENTION, 0),
    "causal: the same, weights x4": ("causal", ATTENTION, -1),
    "causal: last residual": ("causal", LAST, 0),
    "all see all: attention output": ("full", ATTENTION, 0),
}


def averaged_over(config: Config) -> tuple[int, ...]:
    """Over how many prompts cosines are averaged before they are scored: 1, 8, 64, ... all."""
    return tuple(8**power for power in range(round(np.log(config.sequences) / np.log(8)) + 1))


@TASK.measurement(seeds=lambda config: config.draws)
def initial_cosines(config: Config, seed: int) -> LabelledArrays:
    """Adjacency ``score`` of cosines averaged over some prompts (mean over all groups of so many), and mean cosines."""
    rng = stream(seed, "tokens of random networks").rng()
    inputs = torch.from_numpy(rng.standard_normal((1, config.sequences, config.length, config.architecture.width)))
    patterns = {"causal": masks.causal(config.length), "full": masks.full(config.length)}
    scores, cosine = [], {}
    for gain in config.gains:
        network = Transformer(config.architecture, [seed], torch.float64)
        with torch.no_grad():
            for name, weight in network.named_parameters():
                if "attention.query" in name or "attention.key" in name:
                    weight.mul_(gain)
        for mask, pattern in patterns.items():
            intermediates: Intermediates = {}
            with torch.no_grad():
                network(inputs, pattern, intermediates=intermediates)
            for site, states in zip(SITES, states_by_site(intermediates), strict=True):
                of_prompts = cosines(states[0] @ states[0].mT)
                groups = [of_prompts.unflatten(0, (-1, many)).mean(1) for many in averaged_over(config)]
                scores.append([float(adjacency_score(means).mean()) for means in groups])
                cosine[mask, site, gain] = of_prompts.mean(0).float()
    places: dict[str, Sequence[Label]] = {"gain": config.gains, "mask": tuple(patterns), "site": SITES}
    shape = (len(config.gains), len(patterns), len(SITES), -1)
    chosen = torch.stack([cosine[mask, site, config.gains[place]] for mask, site, place in PICTURES.values()])
    return {
        "score": labelled(np.reshape(scores, shape), **places, prompts=averaged_over(config)),
        "cosine": labelled(chosen, picture=tuple(PICTURES), row=None, column=None),
    }


def single_prompts(results: Results, mask: str, site: str, gain: float = 1.0) -> xr.DataArray:
    """Mean score [seed] of single prompts."""
    chosen: xr.DataArray = results[initial_cosines]["score"].sel(gain=gain, mask=mask, site=site, prompts=1)
    return chosen


@TASK.figure
def cosine_matrices(results: Results) -> Sheet:
    """Mean cosines of states at two places in random networks, beside the law of running means."""
    law = running_mean_cosine(results.config.length)
    scores = [float(adjacency_score(law))]
    for mask, site, place in PICTURES.values():
        scores.append(float(single_prompts(results, mask, site, results.config.gains[place]).mean()))
    measured = [results[initial_cosines]["cosine"].sel(picture=picture) for picture in PICTURES]
    sheet = Sheet(
        columns=5,
        width=3.3,
        height=3.2,
        title="a random causal layer draws the order of its tokens; sharp weights and the residual stream cover most of it",
    )
    titles = ("law of running means", *(picture.replace("the same, ", "") for picture in PICTURES))
    for title, cosine, score in zip(titles, [xr.DataArray(law.numpy()), *measured], scores, strict=True):
        of = "score" if title == titles[0] else "single prompts"
        panel = sheet.panel(title, x=f"token ({of} {score:.2f})", y="token")
        panel.heat(cosine, bar="cosine" if title == titles[-1] else None, low=0.0, high=1.0, of="closed form (law)")
    return sheet


@TASK.figure
def adjacency_scores(results: Results) -> Sheet:
    """Adjacency score of single prompts by place and by gain, and of averaged cosines by the number of prompts."""
    score, gains = results[initial_cosines]["score"], results.config.gains
    sheet = Sheet(columns=3, width=4.6, height=3.9)
    by_site = sheet.panel(
        "one prompt: clear after attention, faint in the stream",
        x="place in the network",
        y="adjacency score of single prompts",
        ylim=(0.45, 1.03),
        legend="upper right",
    )
    by_gain = sheet.panel(
        "one prompt: sharper attention blurs it",
        x="factor of query and key weights",
        y="adjacency score of single prompts",
        scale=("log2", "linear"),
        xticks=gains,
        ylim=(0.45, 1.03),
        legend="upper right",
    )
    by_prompts = sheet.panel(
        "averaging finds the order at every gain and place",
        x="prompts whose cosines are averaged",
        y="adjacency score of mean cosines",
        scale=("log2", "linear"),
        xticks=score["prompts"].values,
        ylim=(0.45, 1.03),
        legend="outside",
    )
    for arm, mask, title in (("causal", "causal", "causal mask"), ("prefix", "full", "all see all")):
        by_site.curve(score.sel(gain=1.0, mask=mask, prompts=1), over="site", arm=arm, name=title)
        for variant, site in enumerate((ATTENTION, LAST)):
            scores = score.sel(mask=mask, site=site, prompts=1)
            by_gain.curve(scores, over="gain", arm=arm, variant=variant, name=f"{title}, {site.split(',')[0]}")
    for variant, gain in enumerate(gains):
        scores = score.sel(gain=gain, mask="causal", site=ATTENTION)
        by_prompts.curve(scores, over="prompts", arm="causal", variant=variant, name=f"attention output, x{gain:g}")
    scores = score.sel(gain=1.0, mask="causal", site=LAST)
    by_prompts.curve(scores, over="prompts", arm="causal", variant=3, name="last residual, x1")
    scores = score.sel(gain=1.0, mask="full", site=ATTENTION)
    by_prompts.curve(scores, over="prompts", arm="prefix", name="all see all, attention output")
    for panel in (by_site, by_gain, by_prompts):
        panel.level(0.5, "no pattern")
    return sheet


PILOTS = "bound chosen on pilot seeds (root 0), judged on fresh ones"


@TASK.claim(
    "attention-masks/near.P1",
    where="Zuo, Guerzhoy et al. 2025; the score is this project's version of the paper's",
    paper="zuo-2025-nearby",
    kind="phenomenon",
    statement="At random initialisation and without positions, one prompt shows its order: at the first attention output "
    "of a causal network the nearer of two tokens is the more alike in more than $4/5$ of all triples (width 64, 16 "
    "independent normal tokens).",
    controls=[
        control("a mask by which all see all", mask="full"),
        control("query and key weights twice as large", gain=2.0),
    ],
)
def random_causal_networks_show_the_order(results: Results, mask: str = "causal", gain: float = 1.0) -> Evidence:
    return Evidence.over_seeds(
        single_prompts(results, mask, ATTENTION, gain), ">", 0.8, f"mean score of single prompts; {PILOTS}"
    )


@TASK.claim(
    "attention-masks/near.P1.law",
    where="derived; the mechanism of Zuo, Guerzhoy et al. 2025",
    paper="zuo-2025-nearby",
    kind="phenomenon",
    statement="Averaged over prompts and random networks, the cosine of any two of the 16 tokens at the first attention "
    r"output of a causal network lies within $0.15$ of $\sqrt{\min(i,j)/\max(i,j)}$.",
    controls=[
        control("a mask by which all see all", picture="all see all: attention output"),
        control("query and key weights four times as large", picture="causal: the same, weights x4"),
        control("the residual stream after the last block", picture="causal: last residual"),
    ],
)
def mean_cosines_follow_the_law(results: Results, picture: str = "causal: attention output") -> Evidence:
    cosine, length = results[initial_cosines]["cosine"].sel(picture=picture), results.config.length
    cosine = cosine.assign_coords(row=range(length), column=range(length))
    law = running_mean_cosine(length)
    return Evidence.all(
        *(
            Evidence.equals(
                cosine.sel(row=row, column=column).astype(float),
                float(law[row, column]),
                within=0.15,
                origin=f"root law for tokens {row + 1} and {column + 1}; tolerance chosen on pilot seeds (root 0)",
                absolute=True,
            )
            for column in range(length)
            for row in range(column)
        )
    )


@TASK.claim(
    "attention-masks/near.P1.full",
    where="derived",
    kind="phenomenon",
    statement="Where all see all there is no pattern: the adjacency score of single prompts is $1/2$ on average, within "
    "$0.005$, at the attention output and in the residual stream, with query and key weights once, twice and four times "
    "as large, because the places are exchangeable.",
    controls=[control(f"a causal mask; {site}", mask="causal", sites=(site,)) for site in SITES],
)
def full_attention_shows_no_order(results: Results, mask: str = "full", sites: tuple[str, ...] = SITES) -> Evidence:
    return Evidence.all(
        *(
            Evidence.equals(
                single_prompts(results, mask, site, gain),
                0.5,
                within=0.005,
                origin=f"{site}, x{gain:g}: exchangeable places, less than the first residual stream has under a causal mask",
                absolute=True,
            )
            for site in sites
            for gain in results.config.gains
        )
    )


@TASK.claim(
    "attention-masks/near.P1.residual",
    where="derived",
    kind="phenomenon",
    statement="In the residual stream after the last block the order is still there, and a single prompt hardly shows it: "
    "the nearer of two tokens is the more alike in more than $0.51$ and less than $0.55$ of all triples (three blocks, "
    "width 64, 16 tokens).",
    controls=[
        control("a mask by which all see all", mask="full"),
        control("the attention output of the first layer", site=ATTENTION),
    ],
)
def residual_stream_is_faint(results: Results, mask: str = "causal", site: str = LAST) -> Evidence:
    scores = single_prompts(results, mask, site)
    return Evidence.all(
        Evidence.over_seeds(scores, ">", 0.51, f"more than the 1/2 of no pattern; {PILOTS}"),
        Evidence.over_seeds(scores, "<", 0.55, f"far below the attention output; {PILOTS}"),
    )


@TASK.claim(
    "attention-masks/near.P1.any-gain",
    where="derived; the sizes are ours",
    kind="phenomenon",
    statement="Larger query and key weights do not take the order away: with weights once, twice and four times as large "
    "the nearer of two tokens is the more alike in more than $0.53$ of the triples of a single prompt at the first "
    "attention output, and in more than $0.51$ in the last residual stream.",
    controls=[
        control("all see all; attention output", mask="full", sites=(ATTENTION,)),
        control("all see all; last residual", mask="full", sites=(LAST,)),
    ],
)
def sharper_attention_keeps_the_order(
    results: Results, mask: str = "causal", sites: tuple[str, ...] = (ATTENTION, LAST)
) -> Evidence:
    return Evidence.all(
        *(
            Evidence.over_seeds(
                single_prompts(results, mask, site, gain),
                ">",
                0.53 if site == ATTENTION else 0.51,
                f"{site}, x{gain:g}; {PILOTS}",
            )
            for site in sites
            for gain in results.config.gains
        )
    )


@TASK.claim(
    "attention-masks/near.P1.fades",
    where="derived; the sizes are ours",
    kind="phenomenon",
    statement="Sharper attention takes contrast, not order: each doubling of the query and key weights (1 to 2, 2 to 4) more "
    "than halves what the score of single prompts has above $1/2$ at the first attention output of a causal network.",
    controls=[control("the last residual stream, where the weights hardly matter", site=LAST)],
)
def sharper_attention_fades_the_order(results: Results, site: str = ATTENTION) -> Evidence:
    gains = results.config.gains
    above = [single_prompts(results, "causal", site, gain) - 0.5 for gain in gains]
    return Evidence.all(
        *(
            Evidence.over_seeds(
                sharp - plain / 2, "<", 0.0, f"excess at x{gain:g} less half of that before; halves {PILOTS}"
            )
            for plain, sharp, gain in zip(above, above[1:], gains[1:], strict=False)
        )
    )


@TASK.claim(
    "attention-masks/near.P1.prompts",
    where="derived; the sizes are ours",
    kind="phenomenon",
    statement="The score of cosines that were averaged over prompts counts prompts: from 8 to 512 it rises by more than "
    "$0.1$ in the last residual stream of a random causal network, and at its first attention output with query and key "
    "weights four times as large.",
    controls=[
        control("all see all; last residual", mask="full", places=((LAST, 1.0),)),
        control("all see all; attention output, x4", mask="full", places=((ATTENTION, 4.0),)),
    ],
)
def averaging_prompts_raises_the_score(
    results: Results, mask: str = "causal", places: tuple[tuple[str, float], ...] = ((LAST, 1.0), (ATTENTION, 4.0))
) -> Evidence:
    score = results[initial_cosines]["score"].sel(mask=mask)
    few, many = averaged_over(results.config)[1], averaged_over(results.config)[-1]
    return Evidence.all(
        *(
            Evidence.over_seeds(
                score.sel(site=site, gain=gain, prompts=many) - score.sel(site=site, gain=gain, prompts=few),
                ">",
                0.1,
                f"{site}, x{gain:g}; {PILOTS}",
            )
            for site, gain in places
        )
    )


# %%
TASK.show(cosine_matrices)
TASK.show(adjacency_scores)
TASK.show(random_causal_networks_show_the_order)
TASK.show(mean_cosines_follow_the_law)
TASK.show(full_attention_shows_no_order)
TASK.show(residual_stream_is_faint)
TASK.show(sharper_attention_keeps_the_order)
TASK.show(sharper_attention_fades_the_order)
TASK.show(averaging_prompts_raises_the_score)

# %% [markdown]
# ## All verdicts

# %%
TASK.show()
