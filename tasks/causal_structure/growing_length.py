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
# # 3. Longer is better, also outside the prior
#
# The theorem: after staged training the excess loss over the oracle, the attention that misses the parent,
# and the error on *any* transition matrix with entries bounded below all fall with a power of $T$. The last
# is the strongest: what is learnt is to count, not the prior. It is tested on a fixed matrix that almost
# cycles, $\pi = \left(\begin{smallmatrix}.05&.9&.05\\.05&.05&.9\\.9&.05&.05\end{smallmatrix}\right)$.
#
# The exponents of the theorem are not sharp, and a few hundred steps on short sequences are not its limit.
# What to ask for then? Counting $n \sim T/S$ children costs $(S-1)/2n$ nats and errs by $n^{-1/2}$, so the
# exponents to hope for are $-1$ and $-1/2$; the checks ask for half of each, and for attention of at least
# $1 - 1/T$. Even attention, which cannot count children, gains from length as well, as its unigram becomes
# sharper, but less than that.

# %%
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.chains.latent_graph_prompts import CausalSequences, chain, sequences_of
from lab.domains.chains.latent_graphs import pair_counts, row_of, smoothing_head, transition_counts
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.models.disentangled import Reduced
from lab.results import Results
from lab.streams import stream
from lab.training import Batch
from tasks.causal_structure import _staged
from tasks.causal_structure._shared import ARM_NAMES, PAPER, log_slope, parent_attention
from tasks.causal_structure._staged import Staged, train_in_stages

CYCLE = [[0.05, 0.9, 0.05], [0.05, 0.05, 0.9], [0.9, 0.05, 0.05]]


@dataclass(frozen=True)
class Config:
    """Staged training on chains of several lengths."""

    training: Staged = Staged()
    """how"""
    lengths: tuple[int, ...] = (8, 16, 32, 48)
    """numbers of tokens"""
    trainings: int = 5
    """independent trainings an arm at each of these lengths"""


TASK = Task(
    "causal-structure",
    paper=PAPER,
    presets={
        "smoke": Config(_staged.SMOKE, lengths=(6, 10), trainings=2),
        "ci": Config(),
        "paper": Config(_staged.PAPER_SIZES, lengths=(16, 32, 64, 128, 256)),
    },
)


def largest_error(module: Reduced, batch: Batch, mask: Tensor) -> Tensor:
    """Mean over prompts of the largest error of a probability, for each model."""
    return (module.final(batch["tokens"], mask) - batch["target"]).abs().amax(-1).mean(1)


def error_of_a_sharp_head(data: CausalSequences, graph: tuple[int, ...]) -> float:
    """The same error of a head with a very large sharpness that is told the graph."""
    counts = row_of(transition_counts(data.tokens, graph, 3), data.tokens[:, -1])
    context = data.tokens[:, :-1]
    keys = pair_counts(torch.zeros_like(context), context, 1, 3)[:, 0]
    law = smoothing_head(counts, keys, 2 * float(np.log(data.tokens.shape[1])))
    return float((law - data.target).abs().amax(-1).mean())


def missed_by_even_attention(arm: str, length: int) -> float:
    """Attention that misses the parent before training: node i of a chain sees i + 1 tokens, or all of the context."""
    nodes = np.arange(1, length - 1)
    seen = nodes + 1 if arm == "causal" else np.full(length - 2, length - 1)
    return float(1 - np.mean(1 / seen))


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=3)
def growing_length(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Chains of several lengths: excess loss, attention that misses the parent, and error outside the prior.

    ``excess``, ``missed`` and ``outside`` [seed, arm, length] are of the trained models, ``*_untrained`` of even
    attention, and ``head`` [seed, length] is the error outside the prior of a perfectly sharp head on the known graph.
    """
    sizes = config.training
    by_length: dict[str, list[xr.DataArray]] = {}
    for length in config.lengths:
        graph = chain(length - 1)
        before, after, trained = train_in_stages(sizes, seeds, dict.fromkeys(seeds, graph))
        matrices = torch.tensor(CYCLE, dtype=torch.float64).expand(sizes.test // 4, -1, -1)
        outside = {
            seed: sequences_of(stream(seed, "beyond the prior", length), matrices, graph, "stationary")
            for seed in seeds
        }
        weight, _ = parent_attention(trained["attention"], trained["parent"])
        oracle = trained["references"].sel(reference="oracle")
        even = [[missed_by_even_attention(arm, length) for arm in ARM_NAMES]] * len(seeds)
        values = {
            "excess": trained["loss"] - oracle,
            "excess_untrained": trained["before"] - oracle,
            "missed": 1 - weight,
            "missed_untrained": labelled(even, seed=seeds, arm=ARM_NAMES),
            "outside": after.ask(outside, largest_error),
            "outside_untrained": before.study.untrained(seeds, torch.float64).ask(outside, largest_error),
            "head": labelled([error_of_a_sharp_head(outside[seed], graph) for seed in seeds], seed=seeds),
        }
        for name, value in values.items():
            by_length.setdefault(name, []).append(value)
    axes: dict[str, Any] = {"seed": seeds, "arm": ARM_NAMES}
    return {
        name: labelled(
            np.stack(parts, -1), **{axis: axes[axis] for axis in map(str, parts[0].dims)}, length=config.lengths
        )
        for name, parts in by_length.items()
    }


def exponents(results: Results, name: str, trained: bool) -> xr.DataArray:
    """Slope of log values against log T of the causal arm, one a training."""
    return log_slope(results[growing_length][name if trained else f"{name}_untrained"].sel(arm="causal"))


@TASK.claim(
    "causal-structure/T3",
    where="Main theorem, loss",
    kind="training",
    statement=r"After staged training on chains the excess loss over the oracle falls faster than $T^{-1/2}$ "
    r"($S=3$, $\alpha=1$, lengths from 8 to 48).",
    controls=[control("even attention, before training", trained=False)],
)
def length_helps(results: Results, trained: bool = True) -> Evidence:
    slopes = exponents(results, "excess", trained)
    return Evidence.over_seeds(slopes, "<", -0.5, "half of the exponent -1 of counting T/S children")


@TASK.claim(
    "causal-structure/T3.attention",
    where="Main theorem, first layer",
    kind="training",
    statement=r"After staged training on chains the first layer has at least $1 - 1/T$ of its attention on the "
    r"parent, at every length ($S=3$, $\alpha=1$, lengths from 8 to 48).",
    controls=[control("even attention, before training", trained=False)],
)
def attention_misses_little(results: Results, trained: bool = True) -> Evidence:
    missed = results[growing_length]["missed" if trained else "missed_untrained"].sel(arm="causal")
    scaled = (missed * missed["length"]).max("length")
    return Evidence.over_seeds(scaled, "<=", 1, "O(1/T) with the constant 1, for T times what misses the parent")


@TASK.claim(
    "causal-structure/T3.outside",
    where="Main theorem, transition matrices outside the prior",
    kind="training",
    statement=r"After staged training on chains the error on a transition matrix outside the prior falls faster than "
    r"$T^{-1/4}$ ($S=3$, lengths from 8 to 48).",
    controls=[control("even attention, before training", trained=False)],
)
def counts_outside_the_prior(results: Results, trained: bool = True) -> Evidence:
    slopes = exponents(results, "outside", trained)
    return Evidence.over_seeds(slopes, "<", -0.25, "half of the exponent -1/2 of counting T/S children")


@TASK.figure
def growing_with_length(results: Results) -> Sheet:
    """Staged training on chains of growing length: loss, attention, and error on a matrix outside the prior."""
    measured = results[growing_length]
    sheet = Sheet(columns=3, width=4.1)
    texts = {
        "excess": ("excess loss falls with length", "loss above the oracle (nats)"),
        "missed": ("less attention misses the parent", "1 - attention to the parent"),
        "outside": ("it counts outside the prior too", r"$\sup_k |f_k - \pi(s, k)|$"),
    }
    for name, (title, y) in texts.items():
        values = measured[name]
        slopes = log_slope(values.mean("seed"))
        said = ", ".join(f"{arm} {float(slopes.sel(arm=arm)):.2f}" for arm in ARM_NAMES)
        panel = sheet.panel(f"{title}: slopes {said}", x="tokens $T$", y=y, scale=("log2", "log"))
        for arm in ARM_NAMES:
            panel.curve(values.sel(arm=arm), over="length", arm=arm)
        untrained = measured[f"{name}_untrained"].sel(arm="causal")
        panel.curve(untrained, over="length", name="untrained: even attention", look=3)
        if name == "outside":
            panel.curve(measured["head"], over="length", name="sharp head, graph known")
    return sheet


# %%
TASK.show(growing_with_length)
TASK.show(length_helps)
TASK.show(attention_misses_little)
TASK.show(counts_outside_the_prior)

# %%
TASK.show()
