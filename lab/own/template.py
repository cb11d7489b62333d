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
# # Filtering and smoothing
#
# A hidden level $\theta$ is read $n$ times with noise, and after every reading a network says what the level is. Under a
# **causal** mask reading $t$ sees what came before it: the best it can do is the *filter*, whose error is
# $1 / (1 + t / \sigma^2)$. Under a **prefix** mask every reading sees all $n$: the *smoother*, whose error is
# $1 / (1 + n / \sigma^2)$ everywhere. At the last reading the two masks are one.

# %%
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lab import Evidence, Paper, Task, control
from lab.contracts import generator, regression_predictor
from lab.figures import Sheet
from lab.labels import LabelledArrays, deviations
from lab.models import masks
from lab.models.transformer import Architecture, Transformer
from lab.predictors import RegressionPredictor
from lab.results import Results
from lab.statistics import rounding_bound
from lab.streams import RandomStream, stream
from lab.study import Study
from lab.training import Batch, Optimisation


@dataclass(frozen=True)
class Config:
    """Sizes: every field is an option of `lab run`."""

    readings: int = 8
    """readings n of one level"""
    noise: float = 1.0
    """standard deviation of a reading; that of the level is 1"""
    batch: int = 64
    """prompts an update"""
    optimisation: Optimisation = Optimisation(steps=500, learning_rate=1e-2, schedule="cosine")
    test_prompts: int = 4000
    """prompts of the test"""
    trainings: int = 12
    """independent trainings, the seeds of the claims"""


TASK = Task(
    "my-paper",
    Paper("Filtering and smoothing by one layer of attention", "Your Name", 2026),
    {
        "smoke": Config(batch=8, optimisation=Optimisation(steps=10, learning_rate=1e-2), test_prompts=50, trainings=2),
        "ci": Config(),
        "paper": Config(readings=32, optimisation=Optimisation(steps=4000, learning_rate=3e-3, schedule="cosine")),
    },
)

# %% [markdown]
# ## Prompts, and what is known of them exactly
#
# What is registered is checked before anything is measured: a generator draws from its stream alone, a closed form answers
# every prompt and query on its own.


# %%
@dataclass(frozen=True)
class Readings:
    """Levels [B] and their readings [B, n]."""

    level: Float[Tensor, " batch"]
    readings: Float[Tensor, "batch reading"]


@generator(readings=5, noise=0.5)
def noisy_readings(source: RandomStream, batch: int, *, readings: int, noise: float) -> Readings:
    """theta ~ N(0, 1) and readings theta + noise * N(0, 1), one stream for each, so that prompt b is the same in any batch."""
    level = torch.from_numpy(source.child("level").rng().standard_normal(batch))
    errors = torch.from_numpy(source.child("errors").rng().standard_normal((batch, readings)))
    return Readings(level, level[:, None] + noise * errors)


@regression_predictor(noise=0.5)
def posterior_mean(noise: float) -> RegressionPredictor:
    """E[theta | y_1, ..., y_n] = sum_i y_i / (n + noise^2), whatever the inputs x."""

    def predict(x_context: Tensor, y_context: Tensor, x_query: Tensor) -> Tensor:
        mean = y_context.sum(1) / (y_context.shape[1] + noise**2)
        return mean[:, None].expand(len(mean), x_query.shape[1])

    return predict


def least_error(readings: Sequence[int], noise: float) -> np.ndarray:
    """The error 1 / (1 + t / noise^2) of the posterior mean after t readings, for each t."""
    return 1 / (1 + np.asarray(readings) / noise**2)


# %% [markdown]
# ## An identity
#
# The error in closed form, against the error of the rule itself: a linear rule with weights $a$ has the error
# $(1 - \sum_i a_i)^2 + \sigma^2 \sum_i a_i^2$, and the weights are read off the predictor.


# %%
@TASK.identity(
    "my-paper/I1",
    where="derived",
    statement="After $t$ readings the posterior mean errs by $1 / (1 + t / \\sigma^2)$ on average, for every $t \\leq n$.",
    origin="rounding of 10 operations a reading",
    controls=[control("a rule that takes the noise for half of what it is", believed=0.5)],
)
def posterior_mean_is_best(config: Config, *, believed: float = 1.0) -> LabelledArrays:
    """Both sides after every number of readings; the rule believes in ``believed`` times the noise there is."""
    pairs = []
    for t in range(1, config.readings + 1):
        units = torch.eye(t, dtype=torch.float64)
        rule = posterior_mean(believed * config.noise)
        weights = rule(torch.zeros(t, t, 1), units, torch.zeros(t, 1, 1))[:, 0].numpy()
        error = (1 - weights.sum()) ** 2 + config.noise**2 * (weights**2).sum()
        pairs.append((abs(error - least_error([t], config.noise)[0]), rounding_bound(10 * t, 1.0)))
    return deviations(pairs)


# %% [markdown]
# ## Trained networks
#
# One layer of linear attention in both arms: the same weights to begin with, the same prompts, another mask.


# %%
def networks(config: Config, seeds: Sequence[int]) -> Transformer:
    """One layer of linear attention with learned positions, one network a seed."""
    architecture = Architecture(
        width=16,
        layers=1,
        input_size=1,
        output_size=1,
        attention="linear",
        mlp_ratio=0.0,
        norm="none",
        positions="learned",
        maximum_length=config.readings,
        initial_scale=0.1,
    )
    return Transformer(architecture, tuple(seeds))


def error_at_each(module: Transformer, batch: Batch, mask: Tensor) -> Float[Tensor, "model reading"]:
    """Mean squared error after each reading."""
    answer = module(batch["tokens"], mask)[..., 0]
    return (answer - batch["level"][..., None]).square().mean(1)


def loss(module: Transformer, batch: Batch, mask: Tensor) -> Float[Tensor, " model"]:
    return error_at_each(module, batch, mask).mean(-1)


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=12)
def trained(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Errors after each reading, [seed, arm, reading]; both arms of a seed see the same prompts."""
    study = Study(
        build=lambda chosen: networks(config, chosen),
        arms={"prefix": masks.full(config.readings), "causal": masks.causal(config.readings)},
        encode=lambda prompts: {"tokens": prompts.readings[..., None], "level": prompts.level},
        loss=loss,
    )
    draw = partial(noisy_readings, readings=config.readings, noise=config.noise)
    fitted = study.fit(seeds, lambda seed, step: draw(stream(seed, "data", step), config.batch), config.optimisation)
    tests = {seed: draw(stream(seed, "test"), config.test_prompts) for seed in seeds}
    return {"error": fitted.ask(tests, error_at_each, reading=range(1, config.readings + 1))}


# %%
@TASK.figure
def error_after_each_reading(results: Results) -> Sheet:
    """The trained networks lie on the two laws: the filter's error falls reading by reading, the smoother's is the same
    everywhere."""
    config, error = results.config, results[trained]["error"]
    sheet = Sheet()
    panel = sheet.panel("what is known after each reading", x="reading t", y="mean squared error")
    for arm in ("prefix", "causal"):
        panel.curve(error.sel(arm=arm), over="reading", arm=arm)
    panel.theory(error.reading, least_error(error.reading, config.noise), name="filter")
    panel.level(float(least_error([config.readings], config.noise)[0]), name="smoother")
    return sheet


@TASK.claim(
    "my-paper/O1",
    where="derived",
    kind="ordering",
    statement="Over all readings the causal networks err more than the prefix networks, by a factor of more than $1.5$ "
    "(geometric mean over trainings; $n = 8$, $\\sigma = 1$).",
    controls=[control("the last reading alone, where the masks are one", last=True)],
)
def causal_errs_more(results: Results, last: bool = False) -> Evidence:
    error = results[trained]["error"]
    mean = error.isel(reading=-1) if last else error.mean("reading")
    ratio = np.log(mean.sel(arm="causal")) - np.log(mean.sel(arm="prefix"))
    return Evidence.over_seeds(
        ratio, ">", np.log(1.5), "log ratio; the laws give log 2.06, and 1.5 leaves room to train"
    )


# %%
TASK.show(error_after_each_reading)

# %%
TASK.show()
