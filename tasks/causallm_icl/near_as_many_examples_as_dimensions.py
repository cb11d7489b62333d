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
# # Where causal wins
#
# "Prefix is better" cannot be true without a condition. The limit of the prefix network is plain least squares, whose
# error explodes where the number of examples comes near the dimension and labels are noisy (double descent). One pass of
# Kaczmarz never inverts anything: its error stays bounded. Medians over prompts, because means are heavy-tailed there.

# %%
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr

from lab import Evidence, Task, control
from lab.domains.regression.kaczmarz import kaczmarz_weights
from lab.domains.regression.least_squares import predict
from lab.domains.regression.prompts import linear_regression
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.results import Results
from lab.streams import stream
from tasks.causallm_icl._shared import PAPER, SLUG, Numerics


@dataclass(frozen=True)
class Config(Numerics):
    """Sizes of this part."""

    draws: int = 16
    """independent draws (seeds)"""
    sequences: int = 250
    """prompts a draw, for medians"""
    lengths: tuple[int, ...] = (10, 12, 14, 15, 16, 17, 18, 20, 24, 30, 40)
    """numbers of examples around n = d"""
    noises: tuple[float, ...] = (0.0, 0.5)
    """standard deviations of the label noise: none, and most"""


TASK = Task(
    SLUG,
    PAPER,
    {
        "smoke": Config(draws=8, sequences=20, queries=4, lengths=(14, 16, 20)),
        "ci": Config(),
        "paper": Config(draws=32),
    },
)


@TASK.measurement(seeds=lambda config: config.draws)
def near_interpolation(config: Config, seed: int) -> LabelledArrays:
    """Median query error over prompts of both limits, by label noise and number of examples."""
    medians = np.empty((2, len(config.noises), len(config.lengths)))
    for column, length in enumerate(config.lengths):
        noisy = [
            linear_regression(
                stream(seed, "near", length),
                config.sequences,
                dimension=config.dimension,
                context_length=length,
                query_length=config.queries,
                noise=noise,
            )
            for noise in config.noises
        ]
        # The prompts differ in the size of their noise alone, so that one pseudo-inverse serves all.
        inverse = torch.linalg.pinv(noisy[0].x_context)
        for row, prompts in enumerate(noisy):
            limits = predict(prompts.y_context, inverse), kaczmarz_weights(prompts.x_context, prompts.y_context)
            for arm, weights in enumerate(limits):
                errors = (predict(weights, prompts.x_query) - prompts.y_query).square().mean(-1)
                medians[arm, row, column] = errors.median()
    return {"error": labelled(medians, arm=("prefix", "causal"), noise=config.noises, examples=config.lengths)}


@TASK.figure
def where_causal_wins(results: Results) -> Sheet:
    """Median query error around as many examples as dimensions, with noisy labels: least squares explodes, one pass does not."""
    config = results.config
    noise = config.noises[-1]
    errors = results[near_interpolation].error.sel(noise=noise)
    sheet = Sheet(width=6.0, height=4.2)
    panel = sheet.panel(
        rf"near n = d causal wins (label noise $\sigma$ = {noise:g})",
        x="examples in the context",
        y="median squared query error",
    )
    panel.curve(errors.sel(arm="prefix"), over="examples", arm="prefix", name="prefix limit: least squares")
    panel.curve(errors.sel(arm="causal"), over="examples", arm="causal", name="causal limit: one pass of Kaczmarz")
    panel.level(config.dimension, name="n = d", vertical=True)
    return sheet


def advantage_of_causal(results: Results, noise: float | None) -> xr.DataArray:
    """log (prefix / causal) of the median errors, [seed, examples]; ``noise`` None is the largest."""
    errors = results[near_interpolation].error.sel(noise=results.config.noises[-1] if noise is None else noise)
    return np.log(errors.sel(arm="prefix", drop=True) / errors.sel(arm="causal", drop=True))


@TASK.claim(
    "causallm-icl/O4",
    where="the paper's title, read without a condition",
    kind="ordering",
    statement="The limit of the prefix network is never worse than that of the causal one, at any number of examples.",
    expected="refuted",
    condition="without label noise, or away from as many examples as dimensions",
    controls=[control("labels without noise", noise=0.0)],
)
def prefix_is_never_worse(results: Results, noise: float | None = None) -> Evidence:
    largest = advantage_of_causal(results, noise).max("examples")
    return Evidence.over_seeds(largest, "<=", 0.0, "largest log ratio of median errors, prefix over causal")


@TASK.claim(
    "causallm-icl/O4.window",
    where="derived",
    kind="ordering",
    statement=r"With label noise $\sigma = 1/2$ the causal limit has the lower median error for $n$ within one of $d$, and the prefix "
    r"limit from $n = 5d/4$ on.",
    controls=[control("labels without noise", noise=0.0)],
)
def causal_wins_near_the_dimension(results: Results, noise: float | None = None) -> Evidence:
    advantage, dimension = advantage_of_causal(results, noise), results.config.dimension
    near = advantage.where(abs(advantage.examples - dimension) <= 1, drop=True).min("examples")
    far = advantage.where(advantage.examples >= 1.25 * dimension, drop=True).max("examples")
    return Evidence.all(
        Evidence.over_seeds(near, ">", 0.0, "smallest log ratio for n near d, prefix over causal"),
        Evidence.over_seeds(-far, ">", 0.0, "smallest log ratio for larger n, causal over prefix"),
    )


# %%
TASK.show(where_causal_wins)
TASK.show(prefix_is_never_worse)
TASK.show(causal_wins_near_the_dimension)

# %%
TASK.show()
