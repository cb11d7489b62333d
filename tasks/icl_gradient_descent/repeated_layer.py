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
# # The same layer again and again
#
# A layer that is right for one step can be repeated, its update damped by a factor $c$. On noise-free prompts
# the loss after $k$ repeats is $\frac v2 E \sum_i (1 - c\, s^* \lambda_i)^{2k}$, so it is known from
# eigenvalues alone; up to $k = 4$ exactly (crosses).
#
# A context with $c\, s^* \lambda_{\max} > 2$ diverges, and however few there are, the mean over contexts follows
# them in the end; the median does not. A sample mean of such losses says little: it hangs on the one worst
# context drawn. What can be judged is a *lower bound* on the mean that needs no rare event to be seen in its
# size: if more than one context in $M$ has a loss of more than $M$ times that of predicting 0, then the mean is
# above that of predicting 0. The claims take $M = 10^4$ or $10^6$ and judge the share by its exact binomial
# interval.
#
# **The mask.** Under a causal mask the repeated layer cannot diverge: its iteration is triangular with the
# factors $1 - s^* \lVert x_j\rVert^2$, and $s^* \lVert x_j\rVert^2 \le s^* d / 4 = 1.52 < 2$ for every
# context. It settles, undamped, at the error of one pass of Kaczmarz, $\frac12 v\, d\, (1 - 1/d)^N$.


# %%
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lab import Evidence, Task, control
from lab.claims import Relation
from lab.domains.regression.causal_recursions import causal_recursion
from lab.domains.regression.gradient_descent import gram_eigenvalues
from lab.domains.regression.least_squares import predict
from lab.domains.regression.optimal_steps import (
    expected_filter_error,
    filter_polynomial,
    gram_moments,
    optimal_step,
    uniform_moments,
)
from lab.figures import ARMS, THEORY, Drawing, band, label, panels
from lab.results import Results
from lab.streams import stream
from tasks.icl_gradient_descent._shared import HALF_WIDTH, LAW, LOOKS, PAPER, VARIANCE, curve


@dataclass(frozen=True)
class Config:
    """Sizes of the draws of contexts."""

    dimension: int = 10
    """dimension d of the inputs, uniform on [-1/2, 1/2]^d"""
    context_length: int = 10
    """examples N"""
    spectra: int = 10
    """independent draws of contexts"""
    contexts: int = 20_000
    """contexts a draw"""


TASK = Task(
    "icl-gradient-descent",
    PAPER,
    {"smoke": Config(spectra=4, contexts=200), "ci": Config(), "paper": Config(contexts=100_000)},
)


DAMPINGS = (1.0, 0.875, 0.75, 0.5, 2.0)  # the last, a step twice as long, for comparison
REPEATS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 140, 200, 280, 400)
CAUSAL = 3000  # contexts a draw on which the recursion of the causal mask is run
HUGE = (1e4, 1e6)  # losses of contexts, over that of predicting 0


@TASK.measurement(seeds=lambda config: config.spectra)
def spectra(config: Config, seed: int) -> dict[str, np.ndarray]:
    """From the eigenvalues of many contexts: losses of repeated damped steps, and how many contexts have huge ones."""
    n, d = config.context_length, config.dimension
    source = stream(seed, "many contexts, their spectra")

    def contexts(name: str, length: int, count: int) -> Tensor:
        drawn = source.child(name).rng().uniform(-HALF_WIDTH, HALF_WIDTH, (count, length, d))
        return torch.from_numpy(drawn)

    x = contexts("inputs", n, config.contexts)
    values, step = gram_eigenvalues(x), optimal_step(n, d, **LAW)
    mean, median, huge = [], [], []
    for damping in DAMPINGS:
        log = (1 - damping * step * values).abs().clamp_min(1e-300).log()
        losses = torch.stack([(2 * k * log).exp().sum(-1) for k in REPEATS]) * VARIANCE / 2
        mean.append(losses.mean(-1).numpy())
        median.append(losses.median(-1).values.numpy())
        huge.append([(losses > size * d * VARIANCE / 2).sum(-1).numpy() for size in HUGE])
    # The same layer repeated under a causal mask, for weights and a query of their own.
    count = min(config.contexts, CAUSAL)
    weights, query = (
        torch.from_numpy(source.child("weights").rng().standard_normal((count, d))),
        contexts("query", 1, count),
    )
    labels, wanted = predict(weights, x[:count]), predict(weights, query)
    path = causal_recursion(x[:count], labels, query, step=step, layers=max(REPEATS)).query_prediction
    return {
        "mean": np.array(mean),
        "median": np.array(median),
        "huge": np.array(huge),
        "causal": ((path[list(REPEATS)] - wanted).square().mean((1, 2)) / 2).numpy(),
    }


def one_pass_half_loss(config: Config) -> float:
    r"""$\frac12 v\,d\,(1 - 1/d)^N$: half the error of one noise-free pass of Kaczmarz."""
    return VARIANCE * config.dimension * (1 - 1 / config.dimension) ** config.context_length / 2


@TASK.figure
def repeating_a_layer(results: Results) -> Drawing:
    """Mean and median loss against the number of repeats, by damping, and the causal mask."""
    found, config = results[spectra], results.config
    figure, axes = panels(1, 2, width=5.0, height=4.0)
    rows: list[dict] = []
    exact = gram_moments(8, config.context_length, config.dimension, uniform_moments(HALF_WIDTH))
    step, limit = optimal_step(config.context_length, config.dimension, **LAW), one_pass_half_loss(config)
    for panel, name in zip(axes[0], ("mean", "median"), strict=True):
        for place, (damping, looks) in enumerate(zip(DAMPINGS, LOOKS, strict=True)):
            values = np.clip(found[name][:, place], 1e-12, 1e12)
            middle = np.exp(np.log(values).mean(0))
            panel.plot(REPEATS, middle, **looks, label=rf"prefix, damping {damping:g}")
            band(panel, np.array(REPEATS), values.min(0), values.max(0), str(looks["color"]))
            rows += [
                {"quantity": f"{name}, prefix, damping {damping:g}", "x": k, "value": v}
                for k, v in zip(REPEATS, middle, strict=True)
            ]
            if name == "mean" and damping <= 1:
                few = [
                    expected_filter_error(filter_polynomial([damping * step] * k, [0.0] * k), exact, VARIANCE) / 2
                    for k in (1, 2, 3, 4)
                ]
                panel.plot(
                    (1, 2, 3, 4), few, "x", color="black", markersize=6, label=None if place else "prefix, exact"
                )
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_ylim(1e-2, 1e4)
        label(
            panel,
            "means of samples follow their worst context" if name == "mean" else "medians go on falling",
            "repeats of the layer",
            f"half-loss, {name} over contexts",
        )
    causal = "causal, no damping"
    curve(rows, axes[0, 0], REPEATS, found["causal"], causal, f"mean, {causal}", markevery=2, **ARMS["causal"])
    axes[0, 0].axhline(limit, **THEORY, label=rf"causal limit, closed form {limit:.3f}")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return Drawing(figure, pd.DataFrame(rows))


def share_of_huge_losses(
    results: Results, size: float, damping: float, repeats: int, relation: Relation, parts: int = 1
) -> Evidence:
    """The share of contexts with a loss of more than M times predicting 0; above 1/M it proves a mean above predicting 0."""
    config = results.config
    found = results[spectra]["huge"][:, DAMPINGS.index(damping), HUGE.index(size), REPEATS.index(repeats)]
    origin = f"one in {size:.0e}: so many losses of {size:.0e} times predicting 0 make the mean larger than it"
    trials = config.contexts * config.spectra
    return Evidence.proportion(int(found.sum()), trials, relation, 1 / size, origin, parts)


@TASK.claim(
    "icl-gradient-descent/P1",
    where="Figures 1 and 10",
    kind="phenomenon",
    statement=(
        "Repeating the one-step-optimal layer diverges: the mean loss over contexts is above that of predicting 0 after 20 "
        "repeats without damping and after 50 with damping $0.875$."
    ),
    controls=[control("damping 0.5", dampings=(0.5, 0.5)), control("a single repeat", repeats=(1, 1))],
)
def repeats_diverge(
    results: Results, dampings: Sequence[float] = (1.0, 0.875), repeats: Sequence[int] = (20, 50)
) -> Evidence:
    pairs = zip(dampings, repeats, strict=True)
    return Evidence.weakest(*(share_of_huge_losses(results, 1e4, *pair, ">", parts=2) for pair in pairs))


@TASK.claim(
    "icl-gradient-descent/P1.median",
    where="Figure 10, damping 0.75",
    kind="phenomenon",
    statement="With damping $0.75$ the median loss over contexts falls from 5 to 10 to 20 to 50 repeats.",
    controls=[control("a step twice as long instead of a damped one", damping=2.0)],
)
def damped_medians_fall(results: Results, damping: float = 0.75) -> Evidence:
    curve = np.log(results[spectra]["median"][:, DAMPINGS.index(damping)])
    at = curve[:, [REPEATS.index(repeats) for repeats in (5, 10, 20, 50)]]
    steps = np.diff(at, axis=1)
    return Evidence.weakest(*(Evidence.over_seeds(one, "<", 0.0, "no change (log ratio)", parts=3) for one in steps.T))


@TASK.claim(
    "icl-gradient-descent/P1.late",
    where="Figure 10, read beyond its 50 repeats",
    kind="phenomenon",
    statement=(
        "With damping $0.75$ the layer can be repeated as often as one likes: after 100 repeats the mean loss over contexts "
        "is still below that of predicting 0."
    ),
    expected="refuted",
    condition="for the median over contexts; the mean follows rare contexts that diverge",
    controls=[control("the median", statistic="median")],
)
def damping_prevents_divergence(results: Results, statistic: str = "mean") -> Evidence:
    if statistic == "mean":
        return share_of_huge_losses(results, 1e6, 0.75, 100, "<=")
    config = results.config
    median = results[spectra]["median"][:, DAMPINGS.index(0.75), REPEATS.index(100)]
    return Evidence.over_seeds(median, "<=", config.dimension * VARIANCE / 2, "the loss of predicting 0")


@TASK.claim(
    "icl-gradient-descent/P1.causal",
    where="derived",
    kind="phenomenon",
    statement=(
        r"Under the causal mask the undamped repeated layer does not diverge: after 400 repeats its mean "
        r"loss is $\frac12 v\,d\,(1 - 1/d)^N$."
    ),
    controls=[control("the prefix mask, medians", mask="median"), control("one example fewer", fewer=1)],
)
def causal_repeats_settle(results: Results, mask: str = "causal", fewer: int = 0) -> Evidence:
    found, config = results[spectra][mask], results.config
    last = found[:, -1] if mask == "causal" else found[:, DAMPINGS.index(1.0), -1]
    limit = one_pass_half_loss(replace(config, context_length=config.context_length - fewer))
    return Evidence.agreement(last, limit, "half-loss of one pass of Kaczmarz, closed form")


# %%
TASK.show(repeating_a_layer)
TASK.show(repeats_diverge)
TASK.show(damped_medians_fall)
TASK.show(damping_prevents_divergence)
TASK.show(causal_repeats_settle)

# %%
TASK.show()
