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
# # The smallest model with phases
#
# The chains and the strategies are those of `counting_in_context`; the model is the smallest that has phases.
# Layer 1 is a softmax over distances, its scores $v$ free numbers; layer 2 is *linear* attention with one
# matrix $W$ that says how well the current symbol matches a copied one. Everything starts symmetric, $v = 0$
# and all entries of $W$ equal, and is trained by plain gradient descent, layer 1 at the larger rate, so that
# it is not late for being slow. At that start the gradient of $v$ vanishes identically (a theorem, see the
# proofs), so layer 2 has to learn first to tell symbols apart, and layer 1 then finds the distance at which
# telling them apart pays.
# %%
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor

from lab import Evidence, Task, control
from lab.figures import Sheet
from lab.labels import LabelledArrays, at_end
from lab.models.relative import MinimalInduction
from lab.results import Results
from lab.streams import stream
from lab.study import Networks, Study
from lab.training import Batch, Optimisation
from tasks.induction_heads_markov._drawing import name_backgrounds
from tasks.induction_heads_markov._shared import (
    ROOT,
    SLUG,
    STRATEGIES,
    Sizes,
    arrays,
    asked_tokens,
    bigram_time,
    chains,
    compare,
    first_update,
    follow,
    most,
    nearest,
    plot_phases,
    references,
    steepness,
)


@dataclass(frozen=True)
class Config(Sizes):
    """Sizes of the trainings."""

    record_every: int = 9
    """three times the number of updates between two evaluations"""

    trainings: int = 40  # 8 of them added later, since fresh seeds must give every verdict again
    """independent trainings an arm"""
    steps: int = 160
    """updates"""
    larger: int = 5
    """symbols of the larger alphabet"""
    larger_steps: int = 540
    """updates with the larger alphabet"""
    two_steps: int = 120
    """updates with two symbols"""
    peaked: float = 0.3
    """concentration of peaked rows, beside 1"""
    flat: float = 3.0
    """concentration of flat rows"""
    flat_steps: int = 240
    """updates with flat rows"""
    rates: tuple[float, float] = (10.0, 0.02)
    """learning rates of the offset scores and of the match matrix"""


TASK = Task(
    SLUG,
    paper=SLUG,
    presets={
        "smoke": Config(
            trainings=2,
            length=16,
            batch=8,
            test=16,
            steps=30,
            larger_steps=60,
            record_every=9,
            two_steps=30,
            flat_steps=30,
        ),
        "ci": Config(),
        "paper": Config(
            length=100,
            batch=64,
            test=512,
            steps=2000,
            larger_steps=8000,
            two_steps=2000,
            flat_steps=4000,
            rates=(1.0, 0.02),
        ),
    },
    root=2030,  # sized so that fresh seeds give every verdict again; below 2026 there were fewer
)
ARMS = ("dirichlet", "balanced", "layer 1 ready")


def follow_minimal(config: Config, seeds: Sequence[int], arm: str) -> xr.Dataset:
    """Train the minimal model; in the arm "layer 1 ready" layer 1 looks at the token before from the start.

    All arms but "balanced" learn on Dirichlet chains; those of "flat" have flatter rows.

    Returns:
        "divergence", "cross_entropy" (and that of the strategies, "reference"), the "contrast" of W (mean of the diagonal minus
        mean of the rest) and the attention to the token "before" [seed, arm, update, ...].
    """
    config = replace(config, concentration=config.flat) if arm == "flat" else config
    ensemble, states, length = "balanced" if arm == "balanced" else "dirichlet", config.states, config.length
    tests = asked_tokens(config, ensemble, seeds)

    def build(seeds: Sequence[int]) -> MinimalInduction:
        model = MinimalInduction.start(len(seeds), states, length, config.rates)
        offsets = model.offsets.detach()
        if arm == "layer 1 ready":
            offsets[:, 1] = 5.0
        return MinimalInduction(offsets, model.match.detach(), config.rates)

    def loss(module: MinimalInduction, batch: Batch, mask: None) -> Tensor:
        logs = module(batch["tokens"][..., :-1]).log_softmax(-1)
        return -logs.gather(-1, batch["tokens"][:, :, 1:, None])[..., 0].mean((1, 2))

    def sample(seed: int, block: int, count: int) -> Batch:
        return {"tokens": chains(config, ensemble, stream(seed, ROOT, ensemble, block), count).tokens}

    def measure(networks: Networks[MinimalInduction]) -> dict[str, Tensor]:
        logits = networks.numbers(tests, lambda module, batch, mask: module(batch["tokens"]))
        compared = compare(config, ensemble, [member.seed for member in networks.members], logits)
        match = networks.module.match.detach().cpu()
        diagonal = match.diagonal(dim1=-2, dim2=-1).sum(-1)
        rest = (match.sum((-1, -2)) - diagonal) / (states * (states - 1))
        before = networks.module.pattern(length)[:, -1, -2].detach().cpu()
        return {
            "divergence": compared["divergence"],
            "cross_entropy": compared["cross_entropy"],
            "contrast": diagonal / states - rest,
            "before": before,
        }

    history = follow(
        Study(build, {arm: None}, None, loss),
        seeds,
        sample,
        Optimisation(config.steps, 1.0, optimiser="sgd"),
        batch=config.batch,
        measure=measure,
        every=max(1, config.record_every // 3),
        name=f"minimal {arm}",
        divergence={"strategy": STRATEGIES},
    )
    reference = references(config, ensemble, seeds)["reference"]
    return history.assign(reference=reference.expand_dims(arm=[arm]))


def follow_arms(config: Config, seeds: tuple[int, ...], arms: Sequence[str]) -> LabelledArrays:
    """Several arms [seed, arm, update, ...]."""
    histories = xr.concat([follow_minimal(config, seeds, arm) for arm in arms], "arm")
    return arrays(histories.transpose("seed", "arm", "update", ...))


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=8)
def minimal(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """The minimal model on Dirichlet and on balanced chains, and with layer 1 ready."""
    return follow_arms(config, seeds, ARMS)


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=8)
def larger_alphabet(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """The same with more symbols and for more updates."""
    wider = replace(config, states=config.larger, steps=config.larger_steps, record_every=3 * config.record_every)
    return follow_arms(wider, seeds, ARMS)


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=8)
def two_symbols(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """With two symbols, on Dirichlet and on balanced chains, and on Dirichlet chains of flat rows."""
    return follow_arms(replace(config, states=2, steps=config.two_steps), seeds, ("dirichlet", "balanced", "flat"))


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=8)
def peaked_rows(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """On Dirichlet chains of peaked rows."""
    return follow_arms(replace(config, concentration=config.peaked), seeds, ("dirichlet",))


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=8)
def flat_rows(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """On Dirichlet chains of flat rows, for more updates."""
    return follow_arms(replace(config, steps=config.flat_steps), seeds, ("flat",))


def both_sizes(results: Results, arm: str) -> dict[str, xr.Dataset]:
    """One arm at the two larger sizes of the alphabet."""
    return {name: results[run].sel(arm=arm) for name, run in (("S = 3", minimal), ("S = 5", larger_alphabet))}


def layer_two_sooner(history: xr.Dataset, share: float) -> xr.DataArray:
    """Whether the contrast of W comes a share of the way to its last value before the attention to the token before does."""
    match, attention = (
        first_update(history[name] >= share * at_end(history[name], "update")) for name in ("contrast", "before")
    )
    return match < attention


@TASK.claim(
    "induction-heads-markov/P3",
    where="Edelman et al., minimal model",
    kind="training",
    statement=r"In the minimal model layer 2 begins before layer 1: in most trainings, with 3 symbols (160 updates) and with 5 (540), "
    r"the contrast of $W$ (diagonal minus the rest) comes a tenth of the way to its last value before the attention to the token "
    r"before does, and at the end the model is nearest to the bigram. With 3 symbols layer 2 also comes half-way first.",
    controls=[control("layer 1 looks at the token before from the start", arm="layer 1 ready")],
)
def layer_two_first(results: Results, arm: str = "dirichlet") -> Evidence:
    parts = []
    for size, history in both_sizes(results, arm).items():
        hits = nearest(at_end(history["divergence"], "update")) == "bigram"
        parts += [
            most(layer_two_sooner(history, 0.1), f"{size}: layer 2 a tenth of the way first"),
            most(hits, f"{size}: nearest to the bigram"),
        ]
    half = layer_two_sooner(results[minimal].sel(arm=arm), 0.5)
    return Evidence.all(*parts, most(half, "S = 3: layer 2 half-way first"))


@TASK.claim(
    "induction-heads-markov/P3-half",
    where="derived: P3 with a larger alphabet",
    kind="training",
    statement=r"With 5 symbols, too, layer 2 comes half-way to its value after 540 updates before layer 1 does, in most trainings.",
    expected="refuted",
    condition="with 3 symbols; with 5 layer 2 begins first, but goes on growing when layer 1 is done",
    controls=[control("3 symbols", larger=False)],
)
def layer_two_half_way_first(results: Results, larger: bool = True) -> Evidence:
    history = results[larger_alphabet if larger else minimal].sel(arm="dirichlet")
    return most(layer_two_sooner(history, 0.5), "layer 2 half-way first")


PHASED = {
    "S = 2": (two_symbols, "dirichlet"),
    "S = 3": (minimal, "dirichlet"),
    "S = 3, rows Dirichlet(0.3)": (peaked_rows, "dirichlet"),
    "S = 3, rows Dirichlet(3)": (flat_rows, "flat"),
    "S = 5": (larger_alphabet, "dirichlet"),
    "S = 3, balanced": (minimal, "balanced"),
}


def had_unigram_phase(history: xr.Dataset) -> xr.DataArray:
    """Whether the model is nearest to uniform first, at some time before the bigram to the unigram, and last to the bigram."""
    near = nearest(history["divergence"])
    before = (near == "bigram").cumsum("update") == 0
    unigram = ((near == "unigram") & before).any("update")
    return unigram & (near.sel(update=0) == "uniform") & (at_end(near, "update") == "bigram")


@TASK.claim(
    "induction-heads-markov/P1-sizes",
    where="derived: Edelman et al., phases of training, by alphabet and prior",
    kind="phenomenon",
    statement=r"Whether there is a unigram phase depends on the alphabet: most trainings of the minimal model on 32 tokens are nearest to "
    r"the uniform, then to the unigram, then to the bigram with 2 symbols and with 3, for rows Dirichlet(0.3), (1) and (3) "
    r"(120 updates with 2 symbols, 160 with 3, 240 with rows Dirichlet(3)); with 5 symbols and 540 updates most go from the "
    r"uniform to the bigram and are never nearest to the unigram.",
    controls=[
        control("doubly stochastic chains for Dirichlet(1)", three="S = 3, balanced"),
        control("3 symbols for 5", five="S = 3"),
    ],
)
def unigram_phase_by_size(results: Results, three: str = "S = 3", five: str = "S = 5") -> Evidence:
    phased = [name for name in PHASED if "S = 5" not in name and "balanced" not in name and name != "S = 3"]
    histories = {name: results[run].sel(arm=arm) for name, (run, arm) in PHASED.items()}
    unigram = (nearest(histories[five]["divergence"]) == "unigram").any("update")
    trained = nearest(at_end(histories[five]["divergence"], "update")) == "bigram"
    return Evidence.all(
        *(most(had_unigram_phase(histories[name]), f"{name}: three phases in order") for name in (*phased, three)),
        most(~unigram & trained, f"{five}: never the unigram, at the end the bigram"),
    )


# %% [markdown]
# Edelman et al. find that the transition is *sharp*. Where the plateau is a plateau, as with five symbols, the
# minimal model shows it in the loss: it falls slowly first, then faster, while layer 1 turns to the token before.
# A model whose layer 1 is right from the start has nothing to wait for, and falls fastest at once. With three
# symbols the bend is hardly visible, since counting symbols pays so much at once.


# %%
STRETCH = 27  # updates over which the fall of the loss is taken


@TASK.claim(
    "induction-heads-markov/P1-sharp",
    where="Edelman et al., phases of training; minimal model",
    kind="phenomenon",
    statement=r"The transition is sharper than what comes before: with 5 symbols, on Dirichlet and on doubly stochastic chains, the loss "
    r"of the minimal model falls more than 1.5 times as fast in its steepest 27 updates as in the slowest 27 before them; and in most "
    r"trainings these end while the attention of layer 1 to the token before is between a tenth and nine tenths.",
    controls=[control("layer 1 looks at the token before from the start", arms=("layer 1 ready",))],
)
def transition_is_sharp(results: Results, arms: tuple[str, ...] = ("dirichlet", "balanced")) -> Evidence:
    parts = []
    for arm in arms:
        history = results[larger_alphabet].sel(arm=arm)
        ratio, steepest = steepness(history["cross_entropy"], STRETCH)
        attention = history["before"].sel(seed=steepest["seed"], update=steepest)
        parts += [
            Evidence.over_seeds(ratio, ">", np.log(1.5), f"{arm}: half as fast again (log), chosen on root 0"),
            most((attention > 0.1) & (attention < 0.9), f"{arm}: layer 1 on its way"),
        ]
    return Evidence.all(*parts)


# %% [markdown]
# ### Does the useful detour slow learning down?
#
# Edelman et al. report that without useful unigrams the bigram is found *sooner*. With two symbols the minimal
# model does so, in about half as many updates. With five it is the other way round. The ensembles differ in two
# ways: doubly stochastic matrices make symbols useless, and with more symbols they are also flatter, so that a
# transition tells less: the variance of an entry is 1/12 in both ensembles for $S = 2$, but $2/45$ instead of
# $1/18$ for $S = 3$, and falls further behind with $S$. Two measures are taken: the first update at which the
# bigram is nearest, and the first at which less than half is left of the excess loss of the better of uniform
# and unigram over the bigram.


# %%
def half_time(history: xr.Dataset) -> xr.DataArray:
    """The first update with less than half of the excess loss over the bigram that the best of uniform and unigram has."""
    bigram = history["reference"].sel(strategy="bigram")
    best = history["reference"].sel(strategy=["uniform", "unigram"]).min("strategy")
    return first_update((history["cross_entropy"] - bigram) / (best - bigram) < 0.5)


def delays(history: xr.Dataset, arm: str) -> dict[str, Any]:
    """Log of the number of updates of an arm over that on Dirichlet chains, by both measures."""
    changed, plain = history.sel(arm=arm), history.sel(arm="dirichlet")
    return {
        "until the bigram is nearest": np.log(bigram_time(changed["divergence"]) / bigram_time(plain["divergence"])),
        "until half of the excess is left": np.log(half_time(changed) / half_time(plain)),
    }


@TASK.claim(
    "induction-heads-markov/P2",
    where="Edelman et al., doubly stochastic chains",
    kind="ordering",
    statement=r"Without useful unigrams the bigram solution is found sooner: with 2 symbols the minimal model takes less than $e^{-0.2}$ "
    r"= 0.82 times as many updates on doubly stochastic chains as on Dirichlet chains, both until the bigram is nearest and until half of "
    r"the excess loss of the best of uniform and unigram is left.",
    controls=[control("chains made harder in another way: flat Dirichlet rows", arm="flat")],
)
def no_unigrams_is_faster(results: Results, arm: str = "balanced") -> Evidence:
    log_ratios = delays(results[two_symbols], arm)
    return Evidence.all(
        *(
            Evidence.over_seeds(values, "<", -0.2, f"{name}: a fifth sooner (log of the ratio), chosen on root 0")
            for name, values in log_ratios.items()
        )
    )


@TASK.claim(
    "induction-heads-markov/P2-later",
    where="derived: P2 with a larger alphabet",
    kind="ordering",
    statement=r"With 5 symbols it is the other way round: the minimal model takes more than $e^{0.2}$ = 1.22 times as many updates on "
    r"doubly stochastic chains as on Dirichlet chains, by both measures.",
    controls=[control("layer 1 given, on Dirichlet chains", arm="layer 1 ready")],
)
def no_unigrams_is_slower(results: Results, arm: str = "balanced") -> Evidence:
    log_ratios = delays(results[larger_alphabet], arm)
    return Evidence.all(
        *(
            Evidence.over_seeds(values, ">", 0.2, f"{name}: a fifth later (log of the ratio), chosen on root 0")
            for name, values in log_ratios.items()
        )
    )


@TASK.figure
def minimal_model(results: Results) -> Sheet:
    """The minimal model with three symbols: divergence from the strategies on Dirichlet and on balanced chains (the background
    has the colour of the nearest of uniform, unigram and bigram), and the order in which its two layers learn (each curve
    relative to its last value). With five symbols: loss above its last value."""
    history = results[minimal]
    sheet = Sheet(columns=4, width=4.2)
    for arm, title in (("dirichlet", "Dirichlet: three phases"), ("balanced", "balanced: two phases")):
        panel = sheet.panel(
            title,
            x="updates",
            y="KL(strategy || model) [nats]",
            xlim=(0, int(history["update"].max())),
            ylim=(0, None),
            legend="none" if arm == "dirichlet" else "lower left",
        )
        plot_phases(panel, history["divergence"].sel(arm=arm))
        name_backgrounds(panel, history["divergence"].sel(arm=arm))
    last = int(history["update"].max())
    panel = sheet.panel(
        "layer 2 begins before layer 1",
        x="updates",
        y="share of the last value",
        ylim=(-0.05, 1.35),
        legend="upper left",
    )
    for name, title in (("contrast", "layer 2: contrast of W"), ("before", "layer 1: token before")):
        values = history[name].sel(arm="dirichlet")
        panel.curve(values / at_end(values, "update"), over="update", name=title)
    for share, words in ((0.1, "a tenth of the way"), (0.5, "half-way")):
        panel.level(share)
        panel.text(words, last, share, align="right")
    panel = sheet.panel("5 symbols: slow, then steep", x="updates", y="loss above its last value [nats]")
    names = {"dirichlet": "Dirichlet", "balanced": "balanced", "layer 1 ready": "Dirichlet, layer 1 ready"}
    for arm, title in names.items():
        loss = results[larger_alphabet]["cross_entropy"].sel(arm=arm)
        panel.curve(loss - at_end(loss, "update"), over="update", name=title)
    return sheet


@TASK.figure
def useless_unigrams(results: Results) -> Sheet:
    """Updates of the minimal model on doubly stochastic chains, as multiples of those of the same training on Dirichlet chains, by the
    number of symbols and two measures of when the bigram is found."""
    sheet = Sheet(columns=1, width=5.4, height=3.8)
    panel = sheet.panel(
        "sooner with 2 symbols, later with 5", x="symbols", y="updates, balanced / Dirichlet", scale=("linear", "log")
    )
    runs = {"2": two_symbols, "3": minimal, "5": larger_alphabet}
    for place, name in enumerate(("until the bigram is nearest", "until half of the excess is left")):
        values = {states: np.exp(delays(results[run], "balanced")[name]) for states, run in runs.items()}
        panel.points(values, name=name, slot=(place, 2))
    panel.level(1, "equal")
    return sheet


# %%
TASK.show(minimal_model)
TASK.show(layer_two_first)
TASK.show(layer_two_half_way_first)
TASK.show(unigram_phase_by_size)
TASK.show(transition_is_sharp)
TASK.show(useless_unigrams)
TASK.show(no_unigrams_is_faster)
TASK.show(no_unigrams_is_slower)

# %%
TASK.show()
