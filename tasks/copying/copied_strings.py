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
# # Trained to copy: what is a matter of memory, and what of training?
#
# `BEGIN s SEPARATOR s`: a string of n letters out of D, twice. Small networks that differ in nothing but what mixes their tokens
# are trained for the same few hundred updates on the same strings: softmax attention, linear attention, and the causal relation
# network (Cui et al. 2024) with the norm of pairs, of sides, and without.
#
# **One number for memory and for copying.** Let a network lose $\ell = -\log_2 q(s\,\mathrm{END})$ bits on a string, the surprise at
# the whole of its answer, and *give back* $n \log_2 D - E\,\ell$ bits.
#
# - What it says rests on a state S and on the letters given again, so $E\,\ell \ge H(s \mid S)$ (Gibbs). Hence it gives back at most
#   $I(s; S)$, and never more than the state has bits.
# - Where $\ell < 1$ every right token has a probability above one half, so that the string is copied whole, also if the network
#   reads its own answer. By Markov's inequality it copies at least a share of $1 - E\,\ell$ of all strings.
#
# So bits given back stand beside bits of the string on one side and bits of the state on the other. Softmax attention and the
# norm of pairs keep every token; linear attention keeps a matrix in each block; the norm of sides and no norm at all keep one vector.
# A vector of 16 float32 numbers in each of two blocks has 1,024 bits: the bound says nothing about a string of 24. If such a
# network loses bits of it all the same, its bound is not the reason: what its layers can express or 300 updates may be, for its loss is
# still falling then.


# %%
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.copying.bits_given_back import bits_lost
from lab.domains.copying.bounded_memory import float_bits, string_bits
from lab.domains.copying.copy_prompts import CopyPrompts, copied_whole, copy_prompts, free_running
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.models import masks
from lab.models.mixers.interface import Mixer
from lab.models.mixers.linear import LinearAttention
from lab.models.mixers.relation_network import RelationNetwork
from lab.models.mixers.softmax import SoftmaxAttention
from lab.models.mixing_network import MixingNetwork
from lab.results import Results
from lab.streams import RandomStream, stream
from lab.study import Networks, Study
from lab.training import Batch, Optimisation


@dataclass(frozen=True)
class Config:
    """Strings to copy, and networks of the same size around every mixer."""

    letters: int = 8
    """D"""
    lengths: tuple[int, ...] = (2, 4, 8)
    """n, one training for each; the last is what the claims are about"""
    width: int = 32
    """of the residual stream"""
    blocks: int = 2
    size: int = 16
    """numbers of a query, a key, a value, or a side of a pair"""
    small: int = 2
    """the same, where linear attention shall have a state smaller than the vectors of a relation network"""
    batch: int = 16
    """strings an update"""
    optimisation: Optimisation = Optimisation(
        steps=300, learning_rate=5e-3, warmup=0.05, optimiser="adamw", clip_norm=1.0
    )
    every: int = 50
    """updates between two measurements"""
    test_strings: int = 128
    trainings: int = 15
    """independent trainings an arm"""


TASK = Task(
    "copying",
    paper="cui-2024-copying",
    presets={
        "smoke": Config(
            lengths=(1, 2),
            width=8,
            size=4,
            small=1,
            batch=2,
            optimisation=Optimisation(steps=4, learning_rate=1e-3),
            every=2,
            test_strings=4,
            trainings=2,
        ),
        "ci": Config(),
        "paper": Config(
            letters=26,
            lengths=(25, 50, 100),
            width=192,
            blocks=12,
            size=192,
            small=8,
            batch=320,
            optimisation=Optimisation(steps=2000, learning_rate=5e-4, warmup=0.025, optimiser="adamw", clip_norm=1.0),
            every=100,
            test_strings=320,
            trainings=3,
        ),
    },
    root=2032,
)
MIXERS: Mapping[str, Callable[[], Mixer]] = {
    "softmax": SoftmaxAttention,
    "linear": LinearAttention,
    "linear, small": LinearAttention,
    "pairs": partial(RelationNetwork, "pairs"),
    "pairs, ReLU": partial(RelationNetwork, "pairs", "relu"),
    "sides": partial(RelationNetwork, "sides"),
    "no norm": partial(RelationNetwork, "none"),
}
PREFIX = "softmax, prefix"
ARMS = ("softmax", PREFIX, *tuple(MIXERS)[1:])


def size_of(config: Config, arm: str) -> int:
    """Numbers of a stream."""
    return config.small if arm == "linear, small" else config.size


def logits(module: MixingNetwork, batch: Batch, mask: Tensor) -> Tensor:
    """[model, string, token, vocabulary]; one mask for all models is handed on as one, for which mixers have fast forms."""
    return module(batch["tokens"], mask[0] if bool((mask == mask[0]).all()) else mask)


def loss(module: MixingNetwork, batch: Batch, mask: Tensor) -> Tensor:
    """Bits lost for each scored token."""
    return lost(module, batch, mask) / batch["loss_mask"][0, 0].sum()


def lost(module: MixingNetwork, batch: Batch, mask: Tensor) -> Tensor:
    """Bits lost on a string, on average."""
    return bits_lost(logits(module, batch, mask), batch["targets"]).mean(-1)


def shares(module: MixingNetwork, batch: Batch, mask: Tensor) -> Tensor:
    """Shares of strings copied whole: with the right letters given, and reading what was said [model, 2]."""
    forced = copied_whole(logits(module, batch, mask), batch["targets"])
    strings = CopyPrompts(**{name: batch[name][0] for name in ("tokens", "targets", "loss_mask", "prefix_length")})

    def answer(tokens: Tensor) -> Tensor:
        visible = mask[..., : tokens.shape[-1], : tokens.shape[-1]]
        return logits(module, {"tokens": tokens}, visible)

    free = free_running(answer, strings, len(forced))
    return torch.stack([forced.double().mean(-1), free.double().mean(-1)], -1)


def of_another(prompts: CopyPrompts) -> CopyPrompts:
    """The same questions after the strings of other prompts."""
    prefix = int(prompts.prefix_length[0])
    tokens = torch.cat((prompts.tokens[:, :prefix].roll(1, 0), prompts.tokens[:, prefix:]), 1)
    return CopyPrompts(tokens, prompts.targets, prompts.loss_mask, prompts.prefix_length)


def one_length(config: Config, name: str, length: int, seeds: tuple[int, ...]) -> dict[str, np.ndarray]:
    """What the arms of one mixer do at one length: by quantity [seed, arm, ...]."""
    tokens, size = 2 * length + 2, size_of(config, name)
    causal, prefix = masks.causal(tokens), masks.prefix_lm(tokens, length + 2)

    def sample(source: RandomStream, count: int) -> CopyPrompts:
        return copy_prompts(source, count, letters=config.letters, length=length)

    study = Study(
        build=lambda chosen: MixingNetwork(
            MIXERS[name](),
            tuple(chosen),
            width=config.width,
            blocks=config.blocks,
            size=size,
            vocabulary=3 + config.letters,
            maximum_length=tokens,
        ),
        arms={"causal": causal, "prefix": prefix} if name == "softmax" else {"causal": causal},
        encode=None,
        loss=loss,
    )
    tests = {seed: sample(stream(seed, "test", length), config.test_strings) for seed in seeds}

    def measure(networks: Networks[MixingNetwork]) -> dict[str, Tensor]:
        return {"lost": networks.numbers(tests, lost)}

    fitted = study.fit(
        seeds,
        lambda seed, number, count: sample(stream(seed, "train", length, number), count),
        config.optimisation,
        blocks=(config.batch, config.every),
        measure=measure,
        measure_every=config.every,
        name=f"{name} {length}".replace(", ", "-").replace(" ", "-"),
    )
    copied = fitted.ask(tests, shares, reading=("given", "own"))
    swapped = {seed: of_another(prompts) for seed, prompts in tests.items()}
    return {
        "lost": fitted.ask(tests, lost).values,
        "on the way": fitted.history["lost"].values,
        "swapped": fitted.ask(swapped, lost).values,
        "read causally": fitted.ask(tests, lost, read=causal).values,
        "before": study.untrained(seeds).ask(tests, lost).values,
        "whole": copied.values,
    }


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=5)
def trained(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Bits lost and strings copied whole, by arm and length."""
    measured = [
        [one_length(config, name, length, seeds) for length in config.lengths] for name in MIXERS
    ]  # by mixer and length
    updates = sorted({*range(config.every, config.optimisation.steps, config.every), config.optimisation.steps})
    axes: dict[str, Any] = {"seed": seeds, "arm": ARMS, "length": config.lengths}

    def gathered(quantity: str) -> np.ndarray:
        return np.concatenate([np.stack([arrays[quantity] for arrays in row], 2) for row in measured], 1)

    return {
        **{name: labelled(gathered(name), **axes) for name in ("lost", "swapped", "read causally", "before")},
        "on the way": labelled(gathered("on the way"), **axes, update=updates),
        "whole": labelled(gathered("whole"), **axes, reading=("given", "own")),
    }


@TASK.cases(counted={})
def memories(config: Config) -> LabelledArrays:
    """Numbers in the state of all blocks after the longest string and the separator, by arm."""
    written = max(config.lengths) + 2
    numbers = []
    for arm in ARMS:
        name, size = arm.removesuffix(", prefix"), size_of(config, arm)
        sizes = {"query": size, "key": size, "value": size}
        numbers.append(config.blocks * MIXERS[name]().state_size(sizes, written))
    return {"numbers": labelled(numbers, arm=ARMS)}


PILOTS = "bound chosen on pilot seeds (roots 0 and 1), judged on fresh ones"
KEEP_ALL = ("softmax", "pairs")
VECTORS = ("sides", "no norm")


def given_back(results: Results, arm: str, length: int | None = None) -> xr.DataArray:
    """Bits of a string given back, by seed; of the longest strings where no length is named."""
    config = results.config
    length = max(config.lengths) if length is None else length
    return string_bits(config.letters, length) - results[trained]["lost"].sel(arm=arm, length=length)


@TASK.claim(
    "copying/T1",
    where="experiments on copying: the Transformer and CausalRN with exact pre-norm",
    kind="training",
    statement="After 300 updates softmax attention and the relation network with the norm of pairs lose less than a quarter of a "
    "bit of the 24 in a string of 8 letters out of 8 (two blocks, width 32), so that they copy at least three of four strings "
    "whole, reading their own answer.",
    controls=[
        control("the norm of sides", arms=("sides",)),
        control("no norm", arms=("no norm",)),
        control("the string of another prompt before the separator", quantity="swapped"),
        control("the networks before training", quantity="before"),
    ],
)
def what_keeps_all_tokens_copies(
    results: Results, arms: tuple[str, ...] = KEEP_ALL, quantity: str = "lost"
) -> Evidence:
    bits = results[trained][quantity].sel(length=max(results.config.lengths))
    return Evidence.all(
        *(
            Evidence.over_seeds(bits.sel(arm=arm), "<", 0.25, f"{arm}: share 1 - 1/4 copied whole, by Markov; {PILOTS}")
            for arm in arms
        )
    )


@TASK.claim(
    "copying/T1.vectors",
    where="experiments on copying: CausalRN with approximate pre-norm and without",
    kind="training",
    statement="The relation network with the norm of sides, or with none, keeps one vector a block. After 300 updates, its loss still "
    "falling, it loses more than 4 of the 24 bits of a string, although its 32 float32 numbers could hold every string: the bound of "
    "its state is not the reason.",
    controls=[
        control("the norm of pairs, which keeps every token", arms=("pairs",)),
        control("linear attention, which keeps a matrix", arms=("linear",)),
        control("strings of 2 letters, of 6 bits", length=2),
    ],
)
def vectors_lose_what_they_could_hold(
    results: Results, arms: tuple[str, ...] = VECTORS, length: int | None = None
) -> Evidence:
    config, numbers = results.config, results[memories]["numbers"].sel(case="counted")
    length = max(config.lengths) if length is None else length
    parts = []
    for arm in arms:
        held = float_bits(int(numbers.sel(arm=arm)))
        bits = results[trained]["lost"].sel(arm=arm, length=length)
        parts.append(Evidence.over_seeds(bits, ">", 4, f"{arm}: a sixth of 24 bits; {PILOTS}"))
        string = string_bits(config.letters, length)
        parts.append(Evidence.exact(held, ">=", string, f"{arm}: bits of the state, and of the string; counted"))
    return Evidence.all(*parts)


@TASK.claim(
    "copying/T1.matrix",
    where="derived",
    kind="training",
    statement="Linear attention with queries, keys and values of 16 numbers, and so 544 in the states of its two blocks, loses less "
    "than a quarter of a bit of 24 after 300 updates; with 2 numbers each, and 12 in the states (384 bits), more than 8 bits.",
    controls=[
        control("the large matrix in place of the small one", small="linear"),
        control("the small matrix in place of the large one", large="linear, small"),
        control("strings of 2 letters", length=2),
    ],
)
def the_size_of_the_matrix_decides(
    results: Results, large: str = "linear", small: str = "linear, small", length: int | None = None
) -> Evidence:
    bits = results[trained]["lost"].sel(length=max(results.config.lengths) if length is None else length)
    return Evidence.all(
        Evidence.over_seeds(bits.sel(arm=large), "<", 0.25, f"share 1 - 1/4 copied whole, by Markov; {PILOTS}"),
        Evidence.over_seeds(bits.sel(arm=small), ">", 8, f"a third of 24 bits; {PILOTS}"),
    )


@TASK.claim(
    "copying/T1.prefix",
    where="derived",
    kind="training",
    statement="Seeing all of the string at once changes little: after 300 updates softmax attention under a prefix mask over the "
    "string loses as few bits "
    "as under the causal mask, within a tenth of a bit, at 2, 4 and 8 letters. Read under the causal mask, networks trained under "
    "the prefix mask still lose less than one bit of 24.",
    controls=[
        control("the norm of sides in place of the prefix", arm="sides"),
        control("the prefix networks before training", quantity="before"),
    ],
)
def the_prefix_changes_nothing(results: Results, arm: str = PREFIX, quantity: str = "lost") -> Evidence:
    measured, lengths = results[trained], results.config.lengths
    causally = measured["read causally"].sel(arm=PREFIX, length=max(lengths))
    return Evidence.all(
        *(
            Evidence.equals(
                measured[quantity].sel(arm=arm, length=length) - measured["lost"].sel(arm="softmax", length=length),
                0,
                within=0.1,
                absolute=True,
                origin=f"{length} letters: a tenth of a bit; {PILOTS}",
            )
            for length in lengths
        ),
        Evidence.over_seeds(causally, "<", 1, f"read causally: one bit of 24; {PILOTS}"),
    )


@TASK.figure
def bits_of_strings_and_states(results: Results) -> Sheet:
    """Bits of a string given back: by update, by the bits of the string, and beside the bits of the state."""
    config, measured = results.config, results[trained]
    longest, numbers = max(config.lengths), results[memories]["numbers"].sel(case="counted")
    total_bits = string_bits(config.letters, longest)
    sheet = Sheet(columns=3, width=4.9, height=4.2)
    panel = sheet.panel(
        f"strings of {longest} letters ({total_bits:g} bits)",
        x="update",
        y="bits given back",
        ylim=(-2, total_bits + 4),
        legend="none",
    )
    for arm in ARMS:
        panel.curve(total_bits - measured["on the way"].sel(arm=arm, length=longest), "update", name=arm)
    panel.level(total_bits)
    panel.text("bits of the string", float(measured["update"].max()), total_bits, align="right")
    panel = sheet.panel(
        "vectors fall behind as strings grow",
        x="bits of the string",
        y="bits given back",
        ylim=(0, total_bits + 4),
        legend="none",
    )
    strings = [string_bits(config.letters, length) for length in config.lengths]
    for arm in ARMS:
        lost = measured["lost"].sel(arm=arm)
        panel.points(
            {
                bits: (bits - lost.sel(length=length)).values
                for bits, length in zip(strings, config.lengths, strict=True)
            },
            name=arm,
            join=True,
        )
    panel.theory([0, *strings], [0, *strings])
    panel.text("all of the string", 0.7 * total_bits, 0.74 * total_bits, align="right")
    panel = sheet.panel(
        "where no state is short of bits",
        x="bits of the state (float32)",
        y="bits given back",
        scale=("log", "linear"),
        ylim=(0, total_bits + 4),
        legend="auto",
    )
    for arm in ARMS:
        panel.points(given_back(results, arm).values, x=float_bits(int(numbers.sel(arm=arm))), name=arm)
    places = np.geomspace(4, 1e5, 60)
    panel.theory(places, np.minimum(places, total_bits), name="bound: bits of state and string")
    return sheet


@TASK.figure
def strings_copied_whole(results: Results) -> Sheet:
    """Share of strings copied whole, the network reading its own answer, by length."""
    measured = results[trained]
    sheet = Sheet(width=6.4, height=3.9)
    panel = sheet.panel(
        "strings copied whole",
        x="letters of the string",
        y="share, reading its own answer",
        ylim=(-0.03, 1.08),
        legend="auto",
    )
    for arm in ARMS:
        panel.points(measured["whole"].sel(arm=arm, reading="own"), "length", name=arm, join=True, within=(0, 1))
    return sheet


# %%
TASK.show(bits_of_strings_and_states)
TASK.show(what_keeps_all_tokens_copies)
TASK.show(vectors_lose_what_they_could_hold)
TASK.show(the_size_of_the_matrix_decides)
TASK.show(strings_copied_whole)
TASK.show(the_prefix_changes_nothing)

# %% [markdown]
# ## All verdicts

# %%
TASK.show()
