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
# them in the end; the median does not. A sample mean of such losses says little: it depends on the one worst
# context drawn. What can be judged is a *lower bound* on the mean that needs no rare event to be seen in its
# size: if more than one context in $M$ has a loss of more than $M$ times that of predicting 0, then the mean is
# above that of predicting 0. The claims take $M = 10^4$ or $10^5$ and judge the share over independent draws of many
# contexts.
#
# **The mask.** Under a causal mask the repeated layer cannot diverge: its iteration is triangular with the
# factors $1 - s^* \lVert x_j\rVert^2$, and $s^* \lVert x_j\rVert^2 \le s^* d / 4 = 1.52 < 2$ for every
# context. It settles, undamped, at one pass of Kaczmarz over the examples, whose half-loss is $\frac12 v\, d\, (1 - 1/d)^N$:
# a projection off the direction of $x_j$ keeps $1 - 1/d$ of an error on average, whatever came before, where the
# coordinates of $x_j$ are symmetric and exchangeable.


# %%
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.regression.causal_recursions import causal_recursion, prefix_recursion
from lab.domains.regression.gradient_descent import gram_eigenvalues
from lab.domains.regression.kaczmarz import kaczmarz_weights
from lab.domains.regression.least_squares import predict
from lab.domains.regression.optimal_steps import expected_filter_error, filter_polynomial, gram_moments, uniform_moments
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.results import Results
from lab.streams import RandomStream, stream
from tasks.icl_gradient_descent._shared import PAPER, ROOT, Regression


@dataclass(frozen=True)
class Config(Regression):
    """Sizes of the draws of contexts."""

    spectra: int = 28  # 8 of them added later, since fresh seeds must give every verdict again
    """independent draws of contexts"""
    contexts: int = 60_000
    """contexts a draw"""

    @property
    def one_pass_loss(self) -> float:
        r"""$\frac12 v\,d\,(1 - 1/d)^N$: half the error of one noise-free pass of Kaczmarz."""
        return self.variance * self.dimension * (1 - 1 / self.dimension) ** self.context_length / 2


TASK = Task(
    "icl-gradient-descent",
    PAPER,
    {"smoke": Config(spectra=4, contexts=200), "ci": Config(), "paper": Config(contexts=100_000)},
    root=ROOT,
)
STREAM = "many contexts, their spectra"
DAMPINGS = (1.0, 0.875, 0.75, 0.5, 2.0)  # the last, a step twice as long, for comparison
REPEATS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 140, 200, 280, 400)
CAUSAL_CONTEXTS = 300  # of a draw, on which the recursion of the causal mask is run
SETTLED = 1e-6  # largest distance of two answers, over the largest answer, at which they count as the same
EXACT = (1, 2, 3, 4)  # repeats whose mean is a finite sum
HUGE = (1e4, 1e5)  # losses of contexts, over that of predicting 0


def inputs(config: Config, source: RandomStream, name: str, length: int, count: int) -> Tensor:
    """Inputs of many contexts [count, length, d]; the first of them are the same for every count."""
    ends = -config.half_width, config.half_width
    return torch.from_numpy(source.child(name).rng().uniform(*ends, (count, length, config.dimension)))


@TASK.measurement(seeds=lambda config: config.spectra)
def loss_by_repeats(config: Config, seed: int) -> LabelledArrays:
    """Losses of repeated damped steps over many contexts, from their eigenvalues, and how many contexts have huge ones."""
    x = inputs(config, stream(seed, STREAM), "inputs", config.context_length, config.contexts)
    eigenvalues, step_size = gram_eigenvalues(x), config.best_step()
    mean, median, huge = [], [], []
    for damping in DAMPINGS:
        shrinkage = (1 - damping * step_size * eigenvalues).abs().clamp_min(1e-300).log()
        losses = torch.stack([(2 * count * shrinkage).exp().sum(-1) for count in REPEATS])
        losses = losses * config.variance / 2
        mean.append(losses.mean(-1).tolist())
        median.append(losses.median(-1).values.tolist())
        huge.append([(losses > size * config.zero_loss).sum(-1).tolist() for size in HUGE])
    return {
        "mean": labelled(mean, damping=DAMPINGS, repeats=REPEATS),
        "median": labelled(median, damping=DAMPINGS, repeats=REPEATS),
        "huge": labelled(huge, damping=DAMPINGS, size=HUGE, repeats=REPEATS),
    }


@TASK.measurement(seeds=lambda config: config.spectra)
def causal_loss_by_repeats(config: Config, seed: int) -> LabelledArrays:
    """The same layer, undamped and under either mask, on weights and a query of its own, beside one pass of Kaczmarz."""
    source, count = stream(seed, STREAM), min(config.contexts, CAUSAL_CONTEXTS)
    weights = torch.from_numpy(source.child("weights").rng().standard_normal((count, config.dimension)))
    x, query = inputs(config, source, "inputs", config.context_length, count), inputs(config, source, "query", 1, count)
    labels, layers = predict(weights, x), max(REPEATS)
    causal = causal_recursion(x, labels, query, step=config.best_step(), layers=layers).query_prediction
    prefix = prefix_recursion(x, labels, query, step=config.best_step(), layers=layers).query_prediction
    passes = {"whole": predict(kaczmarz_weights(x, labels), query)}
    passes["one fewer"] = predict(kaczmarz_weights(x[:, :-1], labels[:, :-1]), query)
    settled = [[int(same(final[-1], once).sum()) for once in passes.values()] for final in (causal, prefix)]
    errors = causal[list(REPEATS)] - predict(weights, query)
    return {
        "loss": labelled(errors.square().mean((1, 2)) / 2, repeats=REPEATS),
        "settled": labelled(settled, mask=("causal", "prefix"), examples=list(passes)),
        "one pass": labelled(
            [one_pass_loss(config, source, length) for length in (config.context_length, config.context_length - 1)],
            examples=list(passes),
        ),
    }


def same(answers: Tensor, reference: Tensor) -> Tensor:
    """Which contexts' answers [context, query] are the same to within `SETTLED` of the largest answer."""
    return ((answers - reference).abs() < SETTLED * reference.abs().max()).all(-1)


def one_pass_loss(config: Config, source: RandomStream, length: int) -> float:
    """Half the error of one pass on many contexts, with its mean over weights and queries taken exactly."""
    count = min(config.contexts, 20_000)
    x = inputs(config, source, "inputs", config.context_length, count)[:, :length]
    left = torch.eye(config.dimension, dtype=x.dtype).expand(len(x), -1, -1)
    for example in x.unbind(1):
        unit = example / example.norm(dim=-1, keepdim=True)
        left = left - unit[:, :, None] * (unit[:, None] @ left)
    return float(config.variance * left.square().sum((1, 2)).mean() / 2)


@TASK.figure
def repeating_a_layer(results: Results) -> Sheet:
    """Mean and median loss against the number of repeats, by damping, and the causal mask."""
    losses, config = results[loss_by_repeats], results.config
    moments = gram_moments(8, config.context_length, config.dimension, uniform_moments(config.half_width))
    sheet = Sheet(columns=2, width=5.0, height=4.0)
    for statistic, title in (
        ("mean", "means of samples follow their worst context"),
        ("median", "medians go on falling, except at damping 2"),
    ):
        panel = sheet.panel(
            title,
            x="repeats of the layer",
            y=f"half-loss, {statistic} over contexts",
            scale=("log", "log"),
            ylim=(1e-2, 1e4),
        )
        for damping in DAMPINGS:
            panel.curve(
                losses[statistic].sel(damping=damping).clip(1e-12, 1e12),
                over="repeats",
                name=f"prefix, damping {damping:g}",
                middle="median",
            )
            if statistic == "mean" and damping <= 1:
                filters = [filter_polynomial([damping * config.best_step()] * count, [0.0] * count) for count in EXACT]
                exact = [expected_filter_error(repeated, moments, config.variance) / 2 for repeated in filters]
                panel.theory(EXACT, exact, name="prefix, exact")
        if statistic == "mean":
            panel.curve(
                results[causal_loss_by_repeats]["loss"], over="repeats", arm="causal", name="causal, no damping"
            )
            panel.level(config.one_pass_loss, f"causal limit, closed form {config.one_pass_loss:.3f}")
    return sheet


def share_of_huge_losses(results: Results, size: float, damping: float, repeats: int) -> Evidence:
    """The share of contexts with a loss of more than M times predicting 0; above 1/M it proves a mean above predicting 0."""
    share = results[loss_by_repeats]["huge"].sel(damping=damping, size=size, repeats=repeats) / results.config.contexts
    origin = f"one in {size:.0e}: so many losses of {size:.0e} times predicting 0 make the mean larger than it"
    return Evidence.over_seeds(share, ">", 1 / size, origin)


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
    return Evidence.all(*(share_of_huge_losses(results, 1e4, damping, count) for damping, count in pairs))


@TASK.claim(
    "icl-gradient-descent/P1.median",
    where="Figure 10, damping 0.75",
    kind="phenomenon",
    statement="With damping $0.75$ the median loss over contexts falls from 5 to 10 to 20 to 50 repeats.",
    controls=[control("a step twice as long instead of a damped one", damping=2.0)],
)
def damped_medians_fall(results: Results, damping: float = 0.75) -> Evidence:
    medians = np.log(results[loss_by_repeats]["median"].sel(damping=damping))
    pairs = ((5, 10), (10, 20), (20, 50))
    falls = [medians.sel(repeats=later) - medians.sel(repeats=earlier) for earlier, later in pairs]
    return Evidence.all(*(Evidence.over_seeds(fall, "<", 0.0, "no change (log ratio)") for fall in falls))


@TASK.claim(
    "icl-gradient-descent/P1.late",
    where="derived, beyond the 50 repeats of Figure 10",
    kind="phenomenon",
    statement=(
        "With damping $0.75$ too the mean diverges late: after 400 repeats the mean loss over contexts is above that of "
        "predicting 0, while the median is below a tenth of it."
    ),
    controls=[control("a single repeat for the mean", late=1), control("a single repeat for the median", middle=1)],
)
def damping_delays_divergence(results: Results, late: int = 400, middle: int = 400) -> Evidence:
    median = results[loss_by_repeats]["median"].sel(damping=0.75, repeats=middle)
    return Evidence.all(
        share_of_huge_losses(results, 1e5, 0.75, late),
        Evidence.over_seeds(median, "<", results.config.zero_loss / 10, "a tenth of the loss of predicting 0"),
    )


@TASK.claim(
    "icl-gradient-descent/P1.causal",
    where="derived",
    kind="phenomenon",
    statement=(
        r"Under the causal mask the undamped repeated layer does not diverge: after 400 repeats its answers are those of one pass "
        r"of Kaczmarz over the examples in more than 99 % of contexts, and that pass has a mean half-loss of "
        r"$\frac12 v\,d\,(1 - 1/d)^N$, to within 1 %."
    ),
    controls=[
        control("the prefix mask", mask="prefix"),
        control("one example fewer in the pass", examples="one fewer"),
    ],
)
def causal_repeats_settle(results: Results, mask: str = "causal", examples: str = "whole") -> Evidence:
    config, measured = results.config, results[causal_loss_by_repeats].sel(examples=examples)
    settled = measured["settled"].sel(mask=mask)
    trials = min(config.contexts, CAUSAL_CONTEXTS) * settled.size
    return Evidence.all(
        Evidence.proportion(int(settled.sum()), trials, ">", 0.99, "nearly every context, chosen on pilot seeds"),
        Evidence.equals(
            measured["one pass"], config.one_pass_loss, 0.01, "half-loss of one pass of Kaczmarz, closed form"
        ),
    )


# %%
TASK.show(repeating_a_layer)
TASK.show(repeats_diverge)
TASK.show(damped_medians_fall)
TASK.show(damping_delays_divergence)
TASK.show(causal_repeats_settle)

# %%
TASK.show()
