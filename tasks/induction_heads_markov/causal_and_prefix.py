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
# # Causal and prefix
#
# The chains, the networks and the strategies are those of `counting_in_context`.
#
# Let the first half of a sequence be a *prompt*. The causal arm reads it as always; in the prefix arm the
# tokens of the prompt see each other in both directions. Both start from equal weights, see the same data,
# and are scored on the same positions: the last token of the prompt and all after it. Neither has an
# advantage in principle, for both can compute the same counts (proofs, K1 to K3), by two different wirings: a
# causal first layer fetches the symbol *before*, a bidirectional one may as well fetch the symbol *after*.
#
# What the prefix does change is how the statistic is *found*, in two ways.
#
# **Fewer questions a sequence.** Where tokens see their successors there is nothing to predict, so the prompt
# cannot be scored. In the extreme, where the whole input is prompt, a sequence has one scored token. Let
# $g_t$ be the gradient of the loss at position $t$. What is new at position $t$, the part of $g_t$ that its
# context does not determine, is uncorrelated with that of every other position (differences of a martingale),
# so averaging over $K$ positions leaves the signal $|E g|^2$ and divides that noise by $K$. Transitions are
# learnt from a plateau, where the signal is small against the noise of one batch: scoring one token takes up
# to $K$ times as many sequences to see the same slope.
#
# **No signal where all see the same.** At the start the first layer looks evenly at whatever it sees. Under a
# causal mask the copies it makes are running averages, different at every token, and the most recent symbol
# weighs most in them. Inside a prompt whose tokens all see each other the copies are *equal*: the second
# layer has nothing to match the current symbol with, and before and after look alike. Only tokens after the
# prompt, which see it causally, break the tie. A network scored on several tokens after the prompt can learn
# from those; one that reads a prompt and nothing else has a longer way.
#
# Two more arms tell the two apart: they read the prompt alone, causally or bidirectionally, and are scored on
# the one token after it.
# %%
from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.chains.induction_head import attention_maps, causal_head, prefix_head
from lab.errors import LabError
from lab.figures import Sheet
from lab.labels import LabelledArrays, at_end, labelled
from lab.models.masks import causal, full, prefix_lm
from lab.results import Results
from lab.streams import stream
from tasks.induction_heads_markov._attention import (
    AttentionSizes,
    attention_study,
    follow_attention,
    sample_chains,
    token_loss,
)
from tasks.induction_heads_markov._shared import (
    BLOCK,
    MIDDLE,
    ROOT,
    SLUG,
    arrays,
    bigram_time,
    chains,
    most,
    share_of_gap,
)

ARMS = ("causal", "prefix")


@dataclass(frozen=True)
class Config(AttentionSizes):
    """Sizes of the trainings."""

    prompt: int = 16
    """tokens of the prompt, which see each other in the prefix arm"""
    trainings: int = 40  # 8 of them added later, since fresh seeds must give every verdict again
    """independent trainings an arm"""
    steps: int = 400
    """updates of the causal and the prefix arm"""
    long_steps: int = 1200
    """updates where one token of a sequence is scored"""
    noise_trainings: int = 8
    """trainings on whose plateau the noise of the gradient is measured"""
    plateau: int = 60
    """updates of the prefix arm after which the noise of its gradient is measured"""

    def __post_init__(self) -> None:
        if not 1 <= self.prompt <= self.length:
            raise LabError(
                f"prompt = {self.prompt} must be at least 1 token and at most the length = {self.length}; please change it"
            )

    @property
    def first(self) -> int:
        """The first position that is scored: the last token of the prompt."""
        return self.prompt - 1

    @property
    def scored(self) -> int:
        """Number K of positions that are scored."""
        return self.length - self.first


TASK = Task(
    SLUG,
    paper=SLUG,
    presets={
        "smoke": Config(
            trainings=2, length=16, batch=8, test=16, prompt=8, steps=30, long_steps=60, noise_trainings=2, plateau=10
        ),
        "ci": Config(),
        "paper": Config(length=100, batch=64, test=512, prompt=50, steps=2000, long_steps=8000, relative="vectors"),
    },
    root=2026,
)


def masks_of(config: Config) -> dict[str, Tensor]:
    """Who sees whom: everyone what came before, and in the prefix arm the tokens of the prompt each other."""
    return {"causal": causal(config.length), "prefix": prefix_lm(config.length, config.prompt)}


def follow_both(config: Config, seeds: tuple[int, ...], steps: int, layers: int = 2) -> LabelledArrays:
    """The history of both arms [seed, arm, update, ...]; attention is averaged inside the prompt."""
    history = follow_attention(
        config,
        seeds,
        "dirichlet",
        steps,
        layers=layers,
        masks=masks_of(config),
        first=config.first,
        region=config.prompt,
    )
    return arrays(history)


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=8, root=2030)
def two_masks(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """The causal and the prefix arm on Dirichlet chains, scored from the last token of the prompt on."""
    return follow_both(config, seeds, config.steps)


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=8, root=2030)
def one_layer(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """The same with one layer, which cannot match what it copies."""
    return follow_both(config, seeds, config.steps, layers=1)


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=8, root=2030)
def one_token(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Both arms on the prompt alone, scored on the one token after it, for several times as many updates."""
    return follow_both(replace(config, length=config.prompt), seeds, config.long_steps)


RUNS = {"two masks": two_masks, "one layer": one_layer, "one token": one_token}


WINDOWS = ("the token after the prompt", "all tokens after the prompt", "the last token")
GROUPS = 64  # batches from which signal and noise of a gradient are estimated


@TASK.measurement(seeds=lambda config: config.noise_trainings, ensemble=True, seeds_per_job=10)
def gradient_noise(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    r"""Signal $|E g|^2$ and noise tr Cov(g) of the gradient of a batch, at equal weights of the prefix arm on its plateau.

    Unbiased, from the gradients g_1 .. g_G of G batches at the same weights: the noise is $\sum |g_i - \bar g|^2 / (G - 1)$,
    the signal $|\bar g|^2$ - noise / G (McCandlish, Kaplan, Amodei 2018).
    """
    mask = masks_of(config)["prefix"]
    fitted = attention_study(config, 2, {"prefix": mask}, config.first).fit(
        seeds,
        lambda seed, block, count: sample_chains(config, "dirichlet", seed, block, count),
        config.optimisation(config.plateau),
        blocks=(config.batch, BLOCK),
        name="dirichlet 2",
    )
    windows = (slice(config.first, config.prompt), slice(config.first, None), slice(config.length - 1, None))
    rows = []
    for seed in seeds:
        tokens = chains(config, "dirichlet", stream(seed, ROOT, "noise"), GROUPS * config.batch).tokens
        tokens = tokens.unflatten(0, (GROUPS, config.batch))
        for window in windows:
            copies = fitted.module.select([fitted.place(seed, "prefix")] * GROUPS)
            tokens = tokens.to(next(copies.parameters()).device)
            logits = copies(tokens[..., :-1], mask.unsqueeze(0).to(tokens.device))
            token_loss(logits, tokens, window).sum().backward()
            slopes = [part.grad.flatten(1) for part in copies.parameters() if part.grad is not None]
            gradients = torch.cat(slopes, 1).double()
            noise = gradients.var(0).sum()
            rows.append(torch.stack([gradients.mean(0).square().sum() - noise / GROUPS, noise]))
    signal, noise = torch.stack(rows).unflatten(0, (len(seeds), len(windows))).unbind(-1)
    return {
        "signal": labelled(signal, seed=seeds, scored=WINDOWS),
        "noise": labelled(noise, seed=seeds, scored=WINDOWS),
    }


@TASK.claim(
    "induction-heads-markov/K3-noise",
    where="derived: causal against prefix",
    kind="ordering",
    statement=r"On the plateau of the prefix arm, scoring all $K$ tokens after the prompt divides the noise of a batch's gradient by more "
    r"than $\sqrt K$, compared with scoring one (uncorrelated noise: by $K$; the same noise at every position: by 1).",
    controls=[control("one token again, but the last of the sequence", scored="the last token")],
)
def more_tokens_less_noise(results: Results, scored: str = "all tokens after the prompt") -> Evidence:
    noise = results[gradient_noise]["noise"]
    return Evidence.over_seeds(
        np.log(noise.sel(scored="the token after the prompt") / noise.sel(scored=scored)),
        ">",
        np.log(results.config.scored) / 2,
        "the geometric middle of uncorrelated and repeated noise (log)",
    )


@TASK.claim(
    "induction-heads-markov/K3-trained",
    where="derived: causal against prefix",
    kind="training",
    statement=r"Trained for 400 updates on all tokens after the prompt, most networks of either arm find transitions: their excess loss "
    r"over the bigram (Bayes) predictor is below half of the unigram's.",
    controls=[control("one layer instead of two", run="one layer")],
)
def both_arms_find_transitions(results: Results, run: str = "two masks") -> Evidence:
    hits = at_end(share_of_gap(results[RUNS[run]]), "update") < 0.5
    return Evidence.all(*(most(hits.sel(arm=arm), f"{arm} arm: {MIDDLE}") for arm in ARMS))


def found_at(results: Results, run: str) -> xr.DataArray:
    """The update at which the excess loss is first below half of the unigram's; infinite where it never was."""
    share = share_of_gap(results[RUNS[run]])
    return share["update"].where(share < 0.5).min("update").fillna(np.inf)


@TASK.claim(
    "induction-heads-markov/K3-one-token",
    where="derived: causal against prefix",
    kind="ordering",
    statement=r"Scored on the one token after the prompt alone, either arm finds transitions later than scored on all tokens after "
    r"it: in most pairs of trainings its excess loss is below half of the unigram's after more updates, if at all within 1,200. "
    r"It is a matter of time: within these most causal trainings get there.",
    controls=[control("all tokens scored, but with one layer", run="one layer")],
)
def one_token_takes_longer(results: Results, run: str = "two masks") -> Evidence:
    sooner = found_at(results, run) < found_at(results, "one token")
    arrived = found_at(results, "one token").sel(arm="causal") < np.inf
    return Evidence.all(
        *(most(sooner.sel(arm=arm), f"{arm} arm: all tokens sooner than one") for arm in ARMS),
        most(arrived, "causal arm, one token: below half within 1,200 updates"),
    )


@TASK.figure
def hand_built_heads(results: Results) -> Sheet:
    """Attention of the two hand-built induction heads on one sequence, causal (layer 1 copies the symbol before) and prefix (it
    copies the symbol after), query at the last row; the first token is a sentinel."""
    length, states = 12, 3
    tokens = torch.tensor([[0, 1, 2, 0, 1, 1, 0, 2, 0, 1, 2, 0]])
    maps = (
        *attention_maps(causal_head(states, length, 8.0), tokens, causal(length + 1)),
        *attention_maps(prefix_head(states, length, 8.0), tokens, full(length + 1)),
    )
    titles = (
        "causal 1: copies the one before",
        "causal 2: reads after matches",
        "prefix 1: copies the one after",
        "prefix 2: matches (last row asks)",
    )
    names = ["·", *(str(int(token)) for token in tokens[0])]
    sheet = Sheet(columns=4, width=3.4, height=3.3)
    for title, weights in zip(titles, maps, strict=True):
        panel = sheet.panel(title, x="symbol attended to", y="symbol asking")
        panel.heat(weights[0].numpy(), rows=names, columns=names, low=0, high=1, of="hand-built weights")
    return sheet


@TASK.figure
def causal_and_prefix(results: Results) -> Sheet:
    """Trained arms: excess loss over Bayes in units of the unigram's (scored on all tokens after the prompt for 400 updates, on
    one for 1,200), updates until the bigram is nearest, and attention inside the prompt."""
    history = results[two_masks]
    sheet = Sheet(columns=4, width=3.8, height=3.6)
    panel = sheet.panel(
        "scored on one token: later", x="updates", y="excess loss [unigram's]", scale=("log", "linear"), ylim=(0, 1.3)
    )
    for place, (run, suffix) in enumerate(((two_masks, ""), (one_token, ", one token scored"))):
        share = share_of_gap(results[run]).sel(update=slice(1, None))
        for arm in ARMS:
            panel.curve(share.sel(arm=arm), over="update", arm=arm, name=f"{arm}{suffix}", variant=3 * place)
    panel.level(0.5, "half of the unigram's")
    panel = sheet.panel("transition, pair by pair", x="causal: updates", y="prefix: updates", legend="lower right")
    times = bigram_time(history["divergence"])
    panel.scatter(times.sel(arm="causal"), times.sel(arm="prefix"), name="one training")
    last = 1.05 * float(times.max())
    panel.theory([0, last], [0, last], name="equal")
    titles = {1: "trained 1: both look one back", 2: "trained 2: prefix matches one ahead"}
    for layer, title in titles.items():
        panel = sheet.panel(title, x="distance back [tokens] (< 0: ahead)", y="attention in the prompt")
        for arm in ARMS:
            weights = at_end(history["attention"].sel(arm=arm, layer=layer), "update")
            panel.curve(weights, over="offset", arm=arm)
    return sheet


@TASK.figure
def gradient_signal(results: Results) -> Sheet:
    """Noise tr Cov(g) and signal |E g|² of the gradient of one batch at equal weights of the prefix arm on its plateau, by which
    tokens are scored. Dotted: the noise of one token divided by their number K, the theory for uncorrelated noise."""
    measured, scored = results[gradient_noise], results.config.scored
    sheet = Sheet(columns=2, width=4.8)
    for name, title in (("noise", "more tokens, less noise"), ("signal", "the signal is not told apart")):
        least = min(0.0, float(measured[name].min()))
        panel = sheet.panel(title, x="scored", y=f"{name} of a batch's gradient [nats²]", ylim=(1.1 * least, None))
        panel.points(measured[name], over="scored", name=f"{name}, prefix arm", arm="prefix")
        if name == "noise":
            level = float(measured["noise"].sel(scored="the token after the prompt").mean()) / scored
            panel.level(level, f"noise of one token / K, K = {scored}", span=(0.6, 1.4))
    return sheet


# %%
TASK.show(hand_built_heads)
TASK.show(causal_and_prefix)
TASK.show(both_arms_find_transitions)
TASK.show(one_token_takes_longer)
TASK.show(gradient_signal)
TASK.show(more_tokens_less_noise)

# %% [markdown]
# What the prefix changes, then, is how long it takes. Scored on all tokens after the prompt, both arms find
# transitions within 400 updates; the prefix arm leaves the plateau later, in the pairs drawn above (no verdict
# depends on by how much). Scored on one token both take several times as long, the bidirectional arm longest, and
# one token is enough in time: the slope is drowned in noise, not gone. Nor does the prefix arm use its own wiring:
# its first layer looks one *back*, as in the causal arm, although inside the prompt it might look ahead. The reason
# is that one set of numbers $v$ serves all tokens, and those after the prompt can only look back. It shows in the
# second layer: a token of the prompt attends most to its successor, whose copy is its own symbol, a match that a
# causal mask hides.

# %%
TASK.show()
