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
# # Pointers: what a causal mask cannot see
#
# A causal mask gives positions (`first_symbol.py`), and it takes sight. Token $i$ holds $\pi(i)$ of a random permutation
# and must say $\pi(\pi(i))$. Under the prefix mask every token may look where its pointer leads. Under the causal mask
# the pointer of token $i$ (counting from 1) leads to itself or back with probability $i/n$; otherwise the answer is
# uniform over the $n - i$ values that no visible pointer has. The best possible accuracy is therefore
# $\frac{i}{n} + \frac1n$ at place $i < n$, and $\frac{n+1}{2n} + \frac{n-1}{n^2}$ on average. This is the question
# *before* the text against the text before the question, in miniature.
#
# With hard attention and more hops, depth cannot repair it: $L$ causal layers hold $\pi^{2^L}(i)$ only if a
# tree of $2^L$ places stands in the right order.

# %%
from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.attention.pointer_jumping import (
    causal_accuracy,
    causal_two_hop_accuracy,
    follow,
    jump,
    two_hop_posterior,
)
from lab.domains.attention.position_tasks import pointer_prompts
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.models import masks
from lab.models.transformer import Architecture, Transformer
from lab.results import Results
from lab.streams import stream
from lab.study import Study
from lab.training import Batch, Optimisation
from tasks.attention_masks._shared import ARMS, LARGE, SLUG, three_errors


@dataclass(frozen=True)
class Config:
    """Follow a pointer of a random permutation, and the pointer found there."""

    length: int = 8
    """n"""
    architecture: Architecture = Architecture(width=32, layers=2, heads=4, mlp_ratio=2.0)
    """positions are learned, so that a pointer can be matched with a place"""
    batch: int = 64
    """prompts a step"""
    optimisation: Optimisation = Optimisation(
        steps=150, learning_rate=5e-3, warmup=0.1, schedule="cosine", clip_norm=1.0
    )
    test_prompts: int = 2000
    trainings: int = 8
    """independent trainings an arm"""
    hard_length: int = 64
    """tokens of the hard attention"""
    hard_prompts: int = 500
    """permutations a draw for it"""
    hard_draws: int = 48
    """draws"""


TASK = Task(
    SLUG,
    paper=SLUG,
    presets={
        "smoke": Config(
            batch=8,
            optimisation=Optimisation(steps=4, learning_rate=1e-3),
            test_prompts=20,
            trainings=2,
            hard_length=12,
            hard_prompts=20,
            hard_draws=2,
        ),
        "ci": Config(),
        "paper": Config(
            length=64, architecture=Architecture(width=128, layers=2, heads=4), optimisation=LARGE, trainings=10
        ),
    },
)
LAYERS = (1, 2, 3)


def patterns(length: int) -> dict[str, Tensor]:
    """The mask of each arm: all of a prompt is prefix."""
    return {"prefix": masks.full(length), "causal": masks.causal(length)}


@TASK.measurement(seeds=lambda config: config.hard_draws)
def hard_pointers(config: Config, seed: int) -> LabelledArrays:
    """Share of tokens that hold the right pointer after 1, 2 and 3 hard layers."""
    pointers = pointer_prompts(stream(seed, "hard"), config.hard_prompts, length=config.hard_length).tokens
    held = [
        [float((jump(pointers, mask, layers) == follow(pointers, 2**layers)).double().mean()) for layers in LAYERS]
        for mask in patterns(config.hard_length).values()
    ]
    return {"accuracy": labelled(held, arm=ARMS, layers=LAYERS)}


def pointer_loss(module: Transformer, batch: Batch, mask: Tensor) -> Tensor:
    """Cross-entropy over all places."""
    logits = module(batch["tokens"], mask)
    losses = F.cross_entropy(logits.flatten(0, 2), batch["targets"].flatten(), reduction="none")
    return losses.view(batch["targets"].shape).mean((1, 2))


def pointer_accuracies(module: Transformer, batch: Batch, mask: Tensor) -> Tensor:
    """Share of right answers at each place [model, place]."""
    return (module(batch["tokens"], mask).argmax(-1) == batch["targets"]).double().mean(1)


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=4)
def trained_pointers(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Accuracy of trained networks by place, and of the best answer from what is visible on the same prompts."""
    architecture = replace(
        config.architecture,
        vocabulary=config.length,
        output_size=config.length,
        positions="learned",
        maximum_length=config.length,
    )
    arms = patterns(config.length)
    study = Study(
        build=lambda chosen: Transformer(architecture, tuple(chosen)), arms=arms, encode=None, loss=pointer_loss
    )
    fitted = study.fit(
        seeds,
        lambda seed, step: pointer_prompts(stream(seed, "two hops", step), config.batch, length=config.length),
        config.optimisation,
        name="pointers",
    )
    tests = {
        seed: pointer_prompts(stream(seed, "two hops, test"), config.test_prompts, length=config.length)
        for seed in seeds
    }
    best = np.array(
        [
            [two_hop_posterior(tests[seed].tokens, mask).amax(-1).mean(0).numpy() for mask in arms.values()]
            for seed in seeds
        ]
    )
    places = range(1, config.length + 1)
    return {
        "accuracy": fitted.ask(tests, pointer_accuracies, place=places),
        "best": labelled(best, seed=seeds, arm=ARMS, place=places),
    }


@TASK.figure
def pointer_accuracy(results: Results) -> Sheet:
    """Pointer jumping: hard attention by depth, and trained networks by place."""
    config = results.config
    hard, trained = results[hard_pointers]["accuracy"], results[trained_pointers]["accuracy"]
    sheet = Sheet(columns=2, width=4.8, height=3.8)
    panel = sheet.panel(
        f"hard attention: depth makes it worse (n = {config.hard_length})",
        x="layers",
        y=r"share of tokens that hold $\pi^{2^L}(i)$",
        xticks=LAYERS,
        ylim=(0, 1.08),
    )
    for arm in ARMS:
        panel.curve(hard.sel(arm=arm), over="layers", arm=arm)
    law = [causal_accuracy(config.hard_length, layers) for layers in LAYERS]
    panel.theory(LAYERS, law, name="best possible")
    panel.theory(LAYERS, np.ones(len(LAYERS)), name="best possible")
    panel.text(f"(n + 1) / 2n = {law[0]:.3f}", 1.08, law[0])
    panel = sheet.panel(
        "trained: each arm reaches what it can see",
        x="place of the token",
        y=r"share of right answers $\pi(\pi(i))$",
        ylim=(0, 1.08),
    )
    for arm in ARMS:
        panel.curve(trained.sel(arm=arm), over="place", arm=arm)
    places = np.arange(1, config.length + 1)
    panel.theory(places, np.minimum((places + 1) / config.length, 1), name="best possible")
    panel.theory(places, np.ones(config.length), name="best possible")
    return sheet


@TASK.claim(
    "attention-masks/mas.pointers.hard",
    where="derived",
    kind="rate",
    statement=r"Hard causal attention over $64$ tokens holds $\pi^{2^L}(i)$ at the share of places that the hook "
    "length formula with its short cycles gives: $65/128$ for one layer, and so on for two and three.",
    controls=[control("the law of one layer for all depths", law_layers=1)],
)
def hard_causal_pointers_follow_the_law(results: Results, law_layers: int = 0) -> Evidence:
    accuracy, length = results[hard_pointers]["accuracy"].sel(arm="causal"), results.config.hard_length
    return Evidence.all(
        *(
            Evidence.equals(
                accuracy.sel(layers=layers),
                causal_accuracy(length, law_layers or layers),
                within=0.03,
                origin=f"hook length formula for {layers} layers, known to 3 % from these draws",
            )
            for layers in LAYERS
        )
    )


@TASK.claim(
    "attention-masks/mas.pointers.trained",
    where="derived; the effect of Katz et al. 2025 in miniature",
    paper="katz-2025-segments",
    kind="training",
    statement=r"A trained two-layer network under the prefix mask says $\pi(\pi(i))$ rightly at more than $95\,\%$ "
    "of all places.",
    controls=[control("the causal mask", arm="causal")],
)
def prefix_networks_follow_pointers(results: Results, arm: str = "prefix") -> Evidence:
    accuracy = results[trained_pointers]["accuracy"].sel(arm=arm).mean("place")
    return Evidence.over_seeds(accuracy, ">", 0.95, "nearly always")


@TASK.claim(
    "attention-masks/mas.pointers.ceiling",
    where="derived",
    kind="training",
    statement=r"The trained causal network comes within $0.05$ of its ceiling $\frac{n+1}{2n} + \frac{n-1}{n^2}$ "
    "and does not pass it (three standard errors of a test of as many prompts aside).",
    controls=[control("the prefix mask", arm="prefix")],
)
def causal_networks_reach_their_ceiling(results: Results, arm: str = "causal") -> Evidence:
    accuracy = results[trained_pointers]["accuracy"].sel(arm=arm).mean("place")
    ceiling = causal_two_hop_accuracy(results.config.length)
    most = ceiling + three_errors(ceiling, results.config.test_prompts)
    return Evidence.all(
        Evidence.over_seeds(accuracy, "<", most, f"ceiling {ceiling:.4f} and 3 standard errors"),
        Evidence.over_seeds(accuracy, ">", ceiling - 0.05, f"ceiling {ceiling:.4f} less 0.05"),
    )


# %%
TASK.show(pointer_accuracy)
TASK.show(hard_causal_pointers_follow_the_law)
TASK.show(prefix_networks_follow_pointers)
TASK.show(causal_networks_reach_their_ceiling)

# %% [markdown]
# ## All verdicts

# %%
TASK.show()
