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
# # Does a transformer learn which regressions there are?
#
# A world holds m linear regressions $w^*_1, \dots, w^*_m$. A prompt picks one, does not say which, and shows
# pairs $(x_i, y_i)$, $y_i = w^*_j \cdot x_i + \sigma\epsilon_i$; after k of them the label of a new input is
# asked for. There are two ways to answer. One can *regress* on the k pairs, as if any w were possible: ridge
# regression and least squares. Or one can know the set, and only ask which member it is: the **posterior
# mean** weighs every $w^*_j$ by $e^{-S_{kj}/(2\sigma^2)}$, with $S_{kj}$ the squared residuals so far, and no
# predictor has a smaller mean squared error. With d = 4 and one pair, regression knows one direction out of
# four, the posterior mean often the whole answer.
#
# A network that is trained on such prompts is never told the set. This notebook asks
#
# 1. whether it ends at the posterior mean, closer to it than to the argmin, to ridge regression and to least
#    squares;
# 2. what a **prefix mask** changes;
# 3. how many prompts that takes, beside expectation-maximisation;
# 4. what it does where the world has changed: inputs of another scale, weights outside the set, other
#    frequencies.
#
# Everything that needs no training, and a transformer whose hand-written weights compute the posterior mean
# to rounding error, is in `proofs_check/regression_mixtures.py`.

# %%
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.regression import mixtures as theory
from lab.domains.regression.mixture_prompts import (
    Law,
    MixturePrompts,
    component_set,
    fresh_regression,
    regression_mixture,
)
from lab.evaluation import as_regression_predictor
from lab.figures import ARMS, REFERENCES, THEORY, Drawing, band, label, panels
from lab.models import masks
from lab.models.transformer import Architecture, Transformer
from lab.results import Results
from lab.statistics import mean_band
from lab.streams import RandomStream, stream
from lab.training import Batch, Member, Optimisation, Trained, train

# %% [markdown]
# ## Set-up
#
# The components are orthonormal, turned at random in every seed: like the nearly orthogonal random vectors of
# the paper's d = 20, and equally hard in every seed. Unit vectors and $\sigma = 1/2$ keep the posterior mean
# and the argmin apart for a few pairs; with large weights a few pairs settle which component it is, and the
# question loses its meaning.


# %%
@dataclass(frozen=True)
class Config:
    """Sizes of every measurement."""

    dimension: int = 4
    """d"""
    components: int = 3
    """m"""
    law: Law = "orthonormal"
    """of the components"""
    noise: float = 0.5
    """standard deviation of the noise on every label"""
    length: int = 12
    """inputs n of a prompt; the label of each is asked for, after 0 to n - 1 pairs"""
    architecture: Architecture = Architecture(width=32, layers=2, heads=4, mlp_ratio=2.0, norm="none")
    """all but the sizes of input and output"""
    batch: int = 32
    """prompts a step"""
    optimisation: Optimisation = Optimisation(
        steps=400,
        learning_rate=1e-2,
        warmup=0.05,
        schedule="linear",
        optimiser="adamw",
        betas=(0.9, 0.95),
        clip_norm=1.0,
    )
    trainings: int = 8
    """independent trainings an arm"""
    fresh_steps: int = 200
    """updates of the networks trained on a new w in every prompt"""
    fresh_trainings: int = 8
    """how many of them"""
    sets: tuple[int, ...] = (64, 512)
    """sizes of the fixed training sets"""
    set_steps: int = 400
    """updates on a fixed training set"""
    set_trainings: int = 9
    """independent trainings on each"""
    learning_sets: tuple[int, ...] = (4, 16, 64, 512)
    """sizes of the sets that expectation-maximisation learns from"""
    learning_draws: int = 16
    """independent sets of each size"""
    iterations: int = 50
    """updates of expectation-maximisation"""
    starts: int = 10
    """random starts, of which the likeliest result counts"""
    test_prompts: int = 2_000
    """prompts of every test"""
    scales: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0)
    """factors on the inputs at test time"""
    world_draws: int = 4
    """independent sets of the closed forms at the paper's size"""
    world_prompts: int = 300
    """prompts of each"""
    shifted_pairs: tuple[int, ...] = (1, 4)
    """numbers of pairs after which a changed world is tested; the last number, n - 1, is added"""


PAPER = Config(
    dimension=20,
    components=5,
    law="unit",
    noise=1.0,
    length=60,
    architecture=Architecture(width=256, layers=12, heads=8, positions="learned", maximum_length=120),
    batch=64,
    optimisation=Optimisation(steps=500_000, learning_rate=1e-4),
    trainings=8,
    fresh_steps=500_000,
    sets=(15_000, 30_000, 60_000),
    set_steps=500_000,
    learning_sets=(4, 512, 15_000, 30_000, 60_000),
    iterations=100,
    shifted_pairs=(1, 3, 10, 30),
)
TASK = Task(
    "regression-mixtures",
    "pathak-2024-mixtures",
    {
        "smoke": replace(
            Config(),
            batch=8,
            optimisation=replace(Config().optimisation, steps=6),
            trainings=2,
            fresh_steps=6,
            fresh_trainings=2,
            sets=(8, 16),
            set_steps=6,
            set_trainings=2,
            learning_sets=(4, 512),
            learning_draws=2,
            iterations=3,
            starts=2,
            world_draws=2,
            world_prompts=10,
            test_prompts=50,
        ),
        "ci": Config(),
        "paper": PAPER,
    },
)
BOTH = ("causal", "prefix")

# %% [markdown]
# ## The world at the paper's size
#
# Before anything is trained: how far apart are the closed forms? With d = 20 and weights of variance 1 a
# coordinate, a single pair has a signal twenty times the noise, and after a handful of them only one
# component is left: from there on "closest to the posterior mean" and "closest to the argmin" are one
# statement. With unit weights the posterior mean keeps its lead for many pairs. Regression needs d pairs for
# what the set tells in one.


# %%
FIRST = ("posterior mean", "argmin", "ridge")
LINES: dict[str, dict[str, Any]] = {
    "posterior mean": {"color": "black", "linestyle": ":", "linewidth": 1.8},
    "argmin": {"color": REFERENCES[2], "linestyle": "-.", "marker": "^"},
    "ridge": {"color": REFERENCES[3], "linestyle": (0, (5, 1)), "marker": "D"},
    "least squares": {"color": REFERENCES[1], "linestyle": (0, (1, 1)), "marker": "x"},
}
WORLDS: tuple[tuple[Law, float, int], ...] = (
    ("normal", 1.0, 5),
    ("normal", 1.0, 20),
    ("unit", 1.0, 5),
    ("unit", 1.0, 20),
)
WORLD_PAIRS = np.array([0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 18, 24, 27, 30])


@TASK.measurement(seeds=lambda config: config.world_draws)
def worlds(config: Config, seed: int) -> dict[str, np.ndarray]:
    """Mean squared distance to the clean label over E|w|^2 of posterior mean, argmin and ridge, d = 20: [world, form, k]."""
    dimension, found = 20, []
    for law, noise, count in WORLDS:
        components = component_set(stream(seed, "worlds", law, count), count, dimension, law)
        prompts = regression_mixture(
            stream(seed, "worlds"),
            config.world_prompts,
            components=components,
            length=int(WORLD_PAIRS.max()) + 1,
            noise=noise,
        )
        size = dimension if law == "normal" else 1
        forms = torch.stack(
            [
                theory.running_posterior_mean(prompts.x, prompts.y, components, noise),
                theory.running_argmin(prompts.x, prompts.y, components),
                theory.running_ridge(prompts.x, prompts.y, dimension * noise**2 / size),
            ]
        )
        clean = (prompts.x @ prompts.weights.unsqueeze(-1)).squeeze(-1)
        found.append((forms - clean).square().mean(1)[:, WORLD_PAIRS].numpy() / size)
    return {"error": np.array(found)}


@TASK.figure
def closed_forms_by_pairs(results: Results) -> Drawing:
    """Excess error of the closed forms over the noise, as a share of E|w|^2, by number of pairs at d = 20 (means over draws of
    the set). Least squares is the closed form of its risk, left out around k = d where it is infinite."""
    found = results[worlds]["error"].mean(0)
    figure, axes = panels(1, 4, width=3.6, height=3.6)
    rows = []
    for place, (law, noise, count) in enumerate(WORLDS):
        panel, size = axes[0, place], 20 if law == "normal" else 1
        risk = [theory.least_squares_risk(int(k), 20, noise, size) - noise**2 for k in WORLD_PAIRS]
        curves = dict(zip(FIRST, found[place], strict=True)) | {"least squares": np.array(risk) / size}
        for name, values in curves.items():
            panel.plot(WORLD_PAIRS, np.where(np.isfinite(values), values, np.nan), **LINES[name], label=name)
            rows += [
                {"weights": law, "noise": noise, "components": count, "form": name, "pairs": k, "error": value}
                for k, value in zip(WORLD_PAIRS, values, strict=True)
            ]
        panel.set_yscale("log")
        panel.set_ylim(1e-3, 30)
        title = "large weights: soon decided" if law == "normal" else "unit weights: a long lead"
        label(panel, f"{title}, m = {count}", "pairs seen k", r"excess error over $E|w|^2$" if place == 0 else "")
    axes[0, 0].legend(loc="upper right")
    return Drawing(figure, pd.DataFrame(rows))


TASK.show(closed_forms_by_pairs)

# %% [markdown]
# ## Tokens, and what the two masks see
#
# A prompt becomes two streams. The *content* is a start token and one token for each pair, with a slot of its
# own for the label; the *queries* are all inputs without their labels. Query k sees the start token and the
# first k pairs, so one pass asks for the labels of all n inputs. (One row a pair saves the network a layer
# that it would spend on finding the label of each input, and most of the training.) There are no positions:
# given the pairs, their order means nothing.
#
# - **Causal**: a pair sees itself, earlier pairs and the start token. What it has computed serves every later
#   query.
# - **Prefix** (this project's addition): the pairs of the context see one another. What a pair has computed
#   then depends on where the context ends, and it contains the labels of the whole context: only queries
#   *behind* the prefix may be asked. In training the length p of the prefix runs through 0 to n - 1 from step
#   to step, and the queries $k \ge p$ are scored, about half of all; at test time the context is the prefix,
#   and one pass answers one query.
#
# In theory the mask matters little here, unlike for gradient descent in context: what a query needs, $\sum_{i
# \le k} r_{ij}$, is a sum over pairs of something that each pair can compute *alone*. The hand-written
# network shows it: the same weights are exact under both masks. So the prefix arm should gain nothing, and
# pays with half of its training signal.


# %%
def sequence(x_context: Tensor, y_context: Tensor, x_query: Tensor) -> Tensor:
    """Start token, pairs, queries: [batch, 1 + context + queries, dimension + 2], the last slot 1 at the start token."""
    batch, dimension = len(x_context), x_context.shape[-1]
    start = x_context.new_zeros(batch, 1, dimension + 2)
    start[..., -1] = 1
    pairs = torch.cat([x_context, y_context.unsqueeze(-1), torch.zeros_like(y_context).unsqueeze(-1)], dim=-1)
    queries = torch.cat([x_query, x_query.new_zeros(*x_query.shape[:2], 2)], dim=-1)
    return torch.cat([start, pairs, queries], dim=1)


def prefix_mask(length: int, pairs: int) -> Tensor:
    """Two streams of ``length`` tokens, the first 1 + ``pairs`` contents of which see one another: [2 n, 2 n]."""
    mask = masks.two_stream(length)
    mask[: pairs + 1, : pairs + 1] = True
    return mask


def answers(module: Transformer, arm: str, prompts: MixturePrompts, pairs: Sequence[int]) -> Tensor:
    """Predictions of one model after each number of pairs, [batch, pairs]."""

    def decode(output: Tensor, context: int, queries: int) -> Tensor:
        return output[:, :, -queries:, -1]

    if arm == "prefix":
        predictor = as_regression_predictor(
            module,
            lambda context, queries: masks.in_context_prefix(context + 1, queries),
            encode=sequence,
            decode=decode,
            member=0,
        )
        return torch.cat([predictor(prompts.x[:, :k], prompts.y[:, :k], prompts.x[:, k : k + 1]) for k in pairs], dim=1)
    predictor = as_regression_predictor(
        module, lambda context, queries: masks.two_stream(queries), encode=sequence, decode=decode, member=0
    )
    return predictor(prompts.x[:, :-1], prompts.y[:, :-1], prompts.x)[:, list(pairs)]


def train_networks(
    config: Config,
    seeds: Sequence[int],
    sources: Mapping[str, Callable[[int, RandomStream], MixturePrompts]],
    *,
    steps: int,
    prefix: bool = False,
) -> Trained[Transformer]:
    """One network for every seed and source of prompts.

    Args:
        sources: by the name of an arm, (seed, stream of the step) to a batch of prompts.
        prefix: train under a prefix mask; its length runs through 0 to n - 1 pairs in turn.
    """
    length = config.length
    architecture = replace(config.architecture, input_size=config.dimension + 2, output_size=1)

    def batch(seed: int, step: int) -> Batch:
        found = {"pairs": torch.tensor([[step % length if prefix else 0]])}
        for arm, source in sources.items():
            drawn = source(seed, stream(seed, "update", step))
            tokens = sequence(drawn.x[:, :-1], drawn.y[:, :-1], drawn.x)
            found |= {f"tokens {arm}": tokens, f"labels {arm}": drawn.y}
        return found

    def loss(module: Transformer, given: Batch, arms: tuple[str, ...]) -> Tensor:
        def of_arm(name: str) -> Tensor:
            return torch.stack([given[f"{name} {arm}"][row] for row, arm in enumerate(arms)])

        pairs = int(given["pairs"][0])
        predicted = module(of_arm("tokens"), prefix_mask(length, pairs))[:, :, length:, 0]
        return (predicted - of_arm("labels")).square()[:, :, pairs:].mean((1, 2))

    return train(
        lambda chosen: Transformer(architecture, tuple(chosen), torch.float32),
        [Member(seed, arm) for seed in seeds for arm in sources],
        batch,
        loss,
        replace(config.optimisation, steps=steps),
        name=" ".join(sources),
    )


@lru_cache(maxsize=64)
def the_set(config: Config, seed: int, name: str = "its regressions") -> Tensor:
    """The components of one seed."""
    return component_set(stream(seed, name), config.components, config.dimension, config.law)


def mixture(
    config: Config, seed: int, source: RandomStream, count: int, dtype: torch.dtype = torch.float64, **changes: Any
) -> MixturePrompts:
    """Prompts of one seed's set, as in training unless changed."""
    settings: dict[str, Any] = {"length": config.length, "noise": config.noise} | changes
    return regression_mixture(source, count, components=the_set(config, seed), dtype=dtype, **settings)


# %% [markdown]
# ## Every predictor on the same prompts
#
# Two numbers are taken of every pair (network, closed form), by the number of pairs k: the mean squared error
# of the network, and its mean squared distance to the closed form. For the posterior mean the gap in error
# and the distance must be the same number, for any network whatsoever, because the posterior mean is a
# conditional expectation; for other closed forms not.


# %%
CLOSED = (*FIRST, "least squares", "other posterior mean", "other argmin")


def closed_forms(config: Config, seed: int, prompts: MixturePrompts, names: Sequence[str] = CLOSED) -> Tensor:
    """Predictions of closed forms at every place, [form, batch, place]; the "other" ones know another set."""
    x, y = prompts.x, prompts.y
    own, other = the_set(config, seed), the_set(config, seed, "regressions of another world")
    forms: dict[str, Callable[[], Tensor]] = {
        "posterior mean": lambda: theory.running_posterior_mean(x, y, own, config.noise),
        "argmin": lambda: theory.running_argmin(x, y, own),
        "ridge": lambda: theory.running_ridge(x, y, config.dimension * config.noise**2),
        "least squares": lambda: theory.running_least_squares(x, y),
        "other posterior mean": lambda: theory.running_posterior_mean(x, y, other, config.noise),
        "other argmin": lambda: theory.running_argmin(x, y, other),
    }
    return torch.stack([forms[name]() for name in names])


def compare(
    config: Config, seed: int, network: Callable[[str, MixturePrompts, Sequence[int]], Tensor], arms: Sequence[str]
) -> dict[str, np.ndarray]:
    """All tests of one seed's networks.

    Returns:
        ``error`` [arm, k] and ``closed`` [form, k], mean squared errors on new prompts; ``distance`` [arm, form, k];
        ``unseen`` [arm, one of `FIRST`], distances after n - 1 pairs of prompts whose unit weights are not in the set.
    """
    every = range(config.length)
    test = mixture(config, seed, stream(seed, "prompts of the test"), config.test_prompts)
    forms = closed_forms(config, seed, test)
    found = torch.stack([network(arm, test, every) for arm in arms])
    unseen = fresh_regression(
        stream(seed, "weights of no component"),
        config.test_prompts,
        dimension=config.dimension,
        length=config.length,
        noise=config.noise,
        law="unit",
    )
    last = [config.length - 1]
    known = closed_forms(config, seed, unseen, FIRST)[..., last]
    asked = torch.stack([network(arm, unseen, last) for arm in arms])
    return {
        "error": (found - test.y).square().mean(1).numpy(),
        "closed": (forms - test.y).square().mean(1).numpy(),
        "distance": (found[:, None] - forms).square().mean(2).numpy(),
        "unseen": (asked[:, None] - known).square().mean((2, 3)).numpy(),
    }


def shifted_prior(config: Config) -> tuple[float, ...]:
    """Four prompts of five come from the first component."""
    rest = 0.2 / (config.components - 1)
    return (0.8, *[rest] * (config.components - 1))


def changed_world(
    config: Config, seed: int, network: Callable[[str, MixturePrompts, Sequence[int]], Tensor], arms: Sequence[str]
) -> dict[str, np.ndarray]:
    """Tests on inputs of another scale and on other frequencies of the components.

    Returns:
        ``scaled`` [scale, arm or one of `FIRST`, k], mean squared errors; ``frequencies`` [arm, prior, k],
        squared distances to the posterior mean of the uniform and of the shifted prior after 0, 1 and 2 pairs of prompts
        drawn from the latter, and ``priors`` [k], the distance between the two.
    """
    pairs = [*config.shifted_pairs, config.length - 1]
    scaled = []
    for scale in config.scales:
        test = mixture(config, seed, stream(seed, "stretched", repr(scale)), config.test_prompts, input_scale=scale)
        forms = closed_forms(config, seed, test, FIRST)[..., pairs]
        nets = torch.stack([network(arm, test, pairs) for arm in arms])
        scaled.append((torch.cat([nets, forms]) - test.y[:, pairs]).square().mean(1))
    few = [0, 1, 2]
    test = mixture(config, seed, stream(seed, "skewed frequencies"), config.test_prompts, prior=shifted_prior(config))
    posteriors = torch.stack(
        [
            theory.running_posterior_mean(test.x, test.y, the_set(config, seed), config.noise, prior)
            for prior in ((), shifted_prior(config))
        ]
    )[..., few]
    nets = torch.stack([network(arm, test, few) for arm in arms])
    return {
        "scaled": torch.stack(scaled).numpy(),
        "frequencies": (nets[:, None] - posteriors).square().mean(2).numpy(),
        "priors": (posteriors[0] - posteriors[1]).square().mean(0).numpy(),
    }


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=4)
def trained_arms(config: Config, seeds: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Both arms of every seed, trained on a new prompt of the seed's set every time: `compare` and `changed_world`."""

    def prompts(seed: int, source: RandomStream) -> MixturePrompts:
        return mixture(config, seed, source, config.batch, torch.float32)

    trained = {
        arm: train_networks(config, seeds, {arm: prompts}, steps=config.optimisation.steps, prefix=arm == "prefix")
        for arm in BOTH
    }
    return stacked(
        [
            compare(config, seed, network, BOTH) | changed_world(config, seed, network, BOTH)
            for seed, network in networks(trained, seeds)
        ]
    )


@TASK.measurement(seeds=lambda config: config.fresh_trainings, ensemble=True, seeds_per_job=4)
def trained_without_a_set(config: Config, seeds: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Causal networks trained on a new w ~ N(0, I/d) in every prompt, where ridge regression is best: `compare`."""

    def prompts(seed: int, source: RandomStream) -> MixturePrompts:
        return fresh_regression(
            source,
            config.batch,
            dimension=config.dimension,
            length=config.length,
            noise=config.noise,
            dtype=torch.float32,
        )

    trained = {"fresh": train_networks(config, seeds, {"fresh": prompts}, steps=config.fresh_steps)}
    return stacked([compare(config, seed, network, ("fresh",)) for seed, network in networks(trained, seeds)])


def networks(
    trained: Mapping[str, Trained[Transformer]], seeds: Sequence[int]
) -> list[tuple[int, Callable[[str, MixturePrompts, Sequence[int]], Tensor]]]:
    """The networks of every seed, as one function of (arm, prompts, numbers of pairs)."""

    def of_seed(seed: int) -> Callable[[str, MixturePrompts, Sequence[int]], Tensor]:
        return lambda arm, prompts, pairs: answers(
            trained[arm].module.select([trained[arm].index(seed, arm)]), arm, prompts, pairs
        )

    return [(seed, of_seed(seed)) for seed in seeds]


def stacked(rows: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Equal fields of several seeds, with the seed as first axis."""
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


# %%
def of_arm(results: Results, arm: str) -> tuple[dict[str, np.ndarray], int]:
    """The tests that an arm stands in, and its place there."""
    if arm == "fresh":
        return results[trained_without_a_set], 0
    return results[trained_arms], BOTH.index(arm)


def log_distances(results: Results, arm: str, form: str, to: str, pairs: slice) -> np.ndarray:
    """log of the squared distance to ``form`` over that to ``to``, means over numbers of pairs, one number a training."""
    found, place = of_arm(results, arm)
    own, other = (found["distance"][:, place, CLOSED.index(name), pairs].mean(-1) for name in (form, to))
    return np.log(own / other)


FEW = slice(1, 5)


def closest(results: Results, arm: str, other: str) -> Evidence:
    """Twice as near to the posterior mean as to the argmin, and 2.5 times as near as to ridge and least squares."""
    form, argmin = f"{other}posterior mean", f"{other}argmin"
    below = slice(1, results.config.dimension - 1)
    return Evidence.weakest(
        Evidence.over_seeds(
            log_distances(results, arm, form, argmin, FEW),
            "<",
            float(np.log(0.5)),
            "log ratio to the argmin, 1 to 4 pairs; half, fixed beforehand",
            parts=3,
        ),
        Evidence.over_seeds(
            log_distances(results, arm, form, "ridge", slice(1, None)),
            "<",
            float(np.log(0.4)),
            "log ratio to ridge, all pairs; two fifths, fixed beforehand",
            parts=3,
        ),
        Evidence.over_seeds(
            log_distances(results, arm, form, "least squares", below),
            "<",
            float(np.log(0.4)),
            "log ratio to least squares below d - 1 pairs; two fifths, fixed beforehand",
            parts=3,
        ),
    )


@TASK.claim(
    "regression-mixtures/T1",
    where="Section 4 (the trained transformer is closest to the posterior mean)",
    kind="training",
    statement=r"The squared distance of the trained causal network to the posterior mean is below $0.5$ of that to the argmin (1 to 4 "
    r"pairs), and below $0.4$ of those to ridge regression (1 to $n-1$ pairs) and to least squares (fewer than $d - 1$ pairs).",
    controls=[
        control("trained on a new w in every prompt, so that there is no set", arm="fresh"),
        control("closed forms that know another set", other="other "),
    ],
)
def causal_is_closest(results: Results, arm: str = "causal", other: str = "") -> Evidence:
    return closest(results, arm, other)


@TASK.claim(
    "regression-mixtures/T1.prefix",
    where="derived (the same under a prefix mask)",
    kind="training",
    statement=r"The same holds for the network trained and asked under a prefix mask: distances to the posterior mean below $0.5$ of "
    r"those to the argmin and below $0.4$ of those to ridge regression and least squares.",
    controls=[control("closed forms that know another set", other="other ")],
)
def prefix_is_closest(results: Results, other: str = "") -> Evidence:
    return closest(results, "prefix", other)


def excess_error(results: Results, arm: str) -> np.ndarray:
    """Mean squared error minus that of the posterior mean, mean over 0 to n - 1 pairs, one number a training."""
    found, place = of_arm(results, arm)
    return (found["error"][:, place] - found["closed"][:, 0]).mean(-1)


EXCESS = 0.06
EXCESS_ORIGIN = "about a quarter of the noise's variance 0.25, fixed beforehand"


@TASK.claim(
    "regression-mixtures/T1.mse",
    where="Figure 1 (the trained transformer reaches the error of the posterior mean)",
    kind="training",
    statement=r"The mean squared error of the trained causal network, mean over 0 to $n - 1$ pairs, is within $0.06$ of that of the "
    r"posterior mean on the same prompts.",
    controls=[control("trained on a new w in every prompt, so that there is no set", arm="fresh")],
)
def error_is_near_the_best(results: Results, arm: str = "causal") -> Evidence:
    return Evidence.over_seeds(excess_error(results, arm), "<", EXCESS, EXCESS_ORIGIN)


@TASK.claim(
    "regression-mixtures/T1.pythagoras",
    where="derived (conditional expectation)",
    kind="identity",
    statement=r"For trained networks too the gap in mean squared error to the posterior mean is the squared distance to it (mean over "
    r"both arms and all numbers of pairs).",
    controls=[control("gap and distance to ridge regression", form="ridge")],
)
def trained_gap_is_distance(results: Results, form: str = "posterior mean") -> Evidence:
    found, place = results[trained_arms], CLOSED.index(form)
    gap = found["error"] - found["closed"][:, None, place]
    return Evidence.agreement(
        (gap - found["distance"][:, :, place]).mean((1, 2)), 0.0, "gap in error minus squared distance"
    )


@TASK.claim(
    "regression-mixtures/T1.mask",
    where="derived (causal against prefix)",
    kind="ordering",
    statement=r"The mask decides little: the mean squared errors of the causal and of the prefix network are within $0.06$ of one "
    r"another.",
    controls=[control("a network without a set in the place of the prefix network", arm="fresh")],
)
def mask_decides_little(results: Results, arm: str = "prefix") -> Evidence:
    causal, other = excess_error(results, "causal"), excess_error(results, arm)
    count = min(len(causal), len(other))
    difference = other[:count] - causal[:count]
    origin = "the same allowance as for the posterior mean, fixed beforehand"
    return Evidence.weakest(
        Evidence.over_seeds(difference, "<", EXCESS, origin, parts=2),
        Evidence.over_seeds(difference, ">", -EXCESS, origin, parts=2),
    )


# %%
@TASK.figure
def error_by_pairs(results: Results) -> Drawing:
    """Mean squared error of the trained networks and of the closed forms by the number of pairs seen (95 % bands over
    trainings). Least squares is left out between d - 1 and d + 2 pairs, where its mean or its variance is infinite."""
    found, config = results[trained_arms], results.config
    figure, axes = panels(1, 1, width=6.2, height=4.2)
    panel, rows = axes[0, 0], []
    pairs = np.arange(config.length)
    for place, arm in enumerate(BOTH):
        values = found["error"][:, place]
        low, high = mean_band(values)
        panel.plot(pairs, values.mean(0), **ARMS[arm], label=f"trained, {arm}")
        band(panel, pairs, low, high, ARMS[arm]["color"])
        rows += [
            {"predictor": f"trained, {arm}", "pairs": k, "error": mean, "low": lower, "high": upper}
            for k, mean, lower, upper in zip(pairs, values.mean(0), low, high, strict=True)
        ]
    for name, style in LINES.items():
        values = found["closed"][:, CLOSED.index(name)].mean(0)
        if name == "least squares":
            values = np.where(np.abs(pairs - config.dimension - 0.5) < 2, np.nan, values)
        panel.plot(pairs, values, **style, label=name)
        rows += [{"predictor": name, "pairs": k, "error": v} for k, v in zip(pairs, values, strict=True)]
    panel.axhline(config.noise**2, color=REFERENCES[0], linewidth=0.8, label=r"noise, $\sigma^2$")
    panel.set_ylim(0, 1.8)
    label(panel, "trained networks follow the posterior mean", "pairs seen k", "mean squared error of the next label")
    panel.legend(ncols=2)
    return Drawing(figure, pd.DataFrame(rows))


@TASK.figure
def distance_by_pairs(results: Results) -> Drawing:
    """Squared distance of the trained networks to each closed form by the number of pairs seen."""
    found, config = results[trained_arms], results.config
    figure, axes = panels(1, 2, width=5.0, height=4.0)
    rows = []
    pairs = np.arange(config.length)
    for place, arm in enumerate(BOTH):
        panel = axes[0, place]
        for name, style in LINES.items():
            values = found["distance"][:, place, CLOSED.index(name)]
            low, high = mean_band(np.log(values))
            mean = np.exp(np.log(values).mean(0))
            if name == "least squares":
                mean = np.where(np.abs(pairs - config.dimension - 0.5) < 2, np.nan, mean)
            marker = {"marker": "o"} if name == "posterior mean" else {}
            panel.plot(pairs, mean, **style, **marker, label=f"to {name}")
            if name != "least squares":
                band(panel, pairs, np.exp(low), np.exp(high), str(style["color"]))
            rows += [
                {"arm": arm, "form": name, "pairs": k, "distance": value} for k, value in zip(pairs, mean, strict=True)
            ]
        panel.set_yscale("log")
        panel.set_ylim(3e-3, 3)
        label(panel, f"{arm}: nearest to the posterior mean", "pairs seen k", "mean squared distance")
    axes[0, 0].legend(ncols=2)
    return Drawing(figure, pd.DataFrame(rows))


TASK.show(error_by_pairs)
TASK.show(causal_is_closest)
TASK.show(error_is_near_the_best)
TASK.show(trained_gap_is_distance)

# %% [markdown]
# As the pairs accumulate, the posterior concentrates on one component, and the argmin and the posterior mean
# become one: after about eight pairs no distance can tell them apart, which is why the comparison is made on
# 1 to 4 pairs. So small a network, so briefly trained, keeps a distance of its own to both: from three
# pairs on the argmin, which by then is nearly perfect, has a smaller error than the network. The prefix network
# was trained on the same prompts and scored on about half of the queries.

# %%
TASK.show(distance_by_pairs)
TASK.show(prefix_is_closest)
TASK.show(mask_decides_little)

# %% [markdown]
# ## How many prompts?
#
# The network above sees each prompt once. With a fixed set of training prompts, seen again and again, it has
# to find the same m vectors as expectation-maximisation (EM), which *knows* that the world is a mixture and
# estimates nothing but them: whole prompts are assigned to components, each component is refitted by weighted
# least squares, and the posterior mean is computed with the result. From a few dozen prompts EM is nearly
# perfect. The network finds the form of the predictor as well, and pays for it in prompts: it comes near in
# the range of ten thousand, not of a hundred.


# %%
def learn(config: Config, seed: int, prompts: MixturePrompts) -> tuple[Tensor, Tensor]:
    """Components found by expectation-maximisation in these prompts, and its first random start."""
    draws = (
        stream(seed, "random beginnings").rng().standard_normal((config.starts, config.components, config.dimension))
    )
    starts = torch.from_numpy(draws / np.sqrt(config.dimension))
    found = theory.expectation_maximisation(
        prompts.x, prompts.y, starts, noise=config.noise, iterations=config.iterations
    )
    return found.best, starts[0]


def leading(prompts: MixturePrompts, count: int) -> MixturePrompts:
    """The first ``count`` prompts."""
    return replace(prompts, **{name: value[:count] for name, value in vars(prompts).items()})


def plug_in_distance(config: Config, seed: int, test: MixturePrompts, components: Tensor) -> float:
    """Mean squared distance of the posterior mean with these components to that with the true ones."""
    plug_in, best = (
        theory.running_posterior_mean(test.x, test.y, one, config.noise) for one in (components, the_set(config, seed))
    )
    return float((plug_in - best).square().mean())


@TASK.measurement(seeds=lambda config: config.learning_draws)
def learnt_sets(config: Config, seed: int) -> dict[str, np.ndarray]:
    """Squared distance of the plug-in posterior mean to the true one: ``learnt`` by size of the training set, and ``start``, that
    of a random start."""
    prompts = mixture(config, seed, stream(seed, "sets to learn from"), max(config.learning_sets))
    test = mixture(config, seed, stream(seed, "tests of what was learnt"), config.test_prompts)
    learnt = [learn(config, seed, leading(prompts, size)) for size in config.learning_sets]
    return {
        "learnt": np.array([plug_in_distance(config, seed, test, best) for best, _ in learnt]),
        "start": np.array(plug_in_distance(config, seed, test, learnt[0][1])),
    }


@TASK.measurement(seeds=lambda config: config.set_trainings, ensemble=True, seeds_per_job=5)
def fixed_sets(config: Config, seeds: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Causal networks and expectation-maximisation on the same fixed sets: squared distances ``network`` and ``learnt`` to the
    posterior mean on new prompts, and the networks' mean squared errors minus that of the posterior mean on ``new`` prompts and
    on their ``own``: [seed, size]."""
    pools = {
        seed: mixture(config, seed, stream(seed, "repeated prompts"), max(config.sets), torch.float32) for seed in seeds
    }

    def source(size: int) -> Callable[[int, RandomStream], MixturePrompts]:
        def prompts(seed: int, step: RandomStream) -> MixturePrompts:
            rows = torch.from_numpy(step.child("rows").rng().integers(0, size, config.batch))
            return replace(pools[seed], **{name: value[rows] for name, value in vars(pools[seed]).items()})

        return prompts

    arms = {f"set of {size}": source(size) for size in config.sets}
    trained = dict.fromkeys(arms, train_networks(config, seeds, arms, steps=config.set_steps))
    rows = []
    for seed, network in networks(trained, seeds):
        test = mixture(config, seed, stream(seed, "prompts of the test"), config.test_prompts)
        seen = mixture(config, seed, stream(seed, "repeated prompts"), max(config.sets))
        row: dict[str, list[float]] = {"network": [], "learnt": [], "new": [], "own": []}
        for size, arm in zip(config.sets, arms, strict=True):
            for name, prompts in (("new", test), ("own", leading(seen, size))):
                best = closed_forms(config, seed, prompts, FIRST[:1])[0]
                found = network(arm, prompts, range(config.length))
                excess = (found - prompts.y).square().mean() - (best - prompts.y).square().mean()
                row[name].append(float(excess))
                if name == "new":
                    row["network"].append(float((found - best).square().mean()))
            components, _ = learn(config, seed, leading(seen, size))
            row["learnt"].append(plug_in_distance(config, seed, test, components))
        rows.append({name: np.array(values) for name, values in row.items()})
    return stacked(rows)


@TASK.claim(
    "regression-mixtures/T2",
    where="Figure 2 (the plug-in of batch EM)",
    kind="ordering",
    statement=r"From 512 prompts expectation-maximisation finds components whose plug-in posterior mean has an excess error, which is its "
    r"squared distance to the true one, below $0.01$ (geometric mean over sets).",
    controls=[control("4 prompts", size=4), control("a random start of it", size=0)],
)
def few_prompts_suffice(results: Results, size: int = 512) -> Evidence:
    found, sizes = results[learnt_sets], results.config.learning_sets
    distance = found["learnt"][:, sizes.index(size)] if size else found["start"]
    return Evidence.over_seeds(
        np.log(distance),
        "<",
        float(np.log(0.01)),
        "log of a twenty-fifth of the noise's variance 0.25, fixed beforehand",
    )


@TASK.claim(
    "regression-mixtures/T2.network",
    where="Figure 2 (sample efficiency), at small training sets",
    kind="ordering",
    statement=r"Trained on the smallest fixed set the network does not track expectation-maximisation on the same prompts: its squared "
    r"distance to the posterior mean is larger by more than $0.06$.",
    controls=[control("the network that sees every prompt once", once=True)],
)
def network_needs_more(results: Results, once: bool = False) -> Evidence:
    found = results[fixed_sets]
    learnt = found["learnt"][:, 0]
    network = trained_distance(results)[: len(learnt)] if once else found["network"][:, 0]
    return Evidence.over_seeds(
        network - learnt[: len(network)], ">", EXCESS, "the allowance of the trained network, fixed beforehand"
    )


def trained_distance(results: Results) -> np.ndarray:
    """Squared distance of the causal network to the posterior mean, mean over 0 to n - 1 pairs, one number a training."""
    return results[trained_arms]["distance"][:, BOTH.index("causal"), 0].mean(-1)


@TASK.figure
def distance_by_set_size(results: Results) -> Drawing:
    """Left: squared distance to the posterior mean by number of training prompts, for expectation-maximisation (16 draws) and
    for causal networks on fixed sets or, rightmost, on prompts that are each seen once. Right: the networks' mean squared errors
    on new prompts and on those of their set, minus the posterior mean's. Bands and bars: 95 %."""
    learnt, fixed, config = results[learnt_sets], results[fixed_sets], results.config
    figure, axes = panels(1, 2, width=5.0, height=4.0)
    left, right = axes[0]
    rows: list[dict[str, Any]] = []

    def draw(panel: Axes, name: str, places: Sequence[int], values: np.ndarray, style: dict[str, Any]) -> None:
        geometric = panel is left
        values = np.log(values) if geometric else values
        middle, (low, high) = values.mean(0), mean_band(values)
        if geometric:
            middle, low, high = np.exp(middle), np.exp(low), np.exp(high)
        panel.errorbar(places, middle, yerr=[middle - low, high - middle], capsize=3, label=name, **style)
        rows.extend(
            {"panel": "distance" if geometric else "error", "learner": name, "prompts": place, "value": value}
            for place, value in zip(places, middle, strict=True)
        )

    network = {**ARMS["causal"], "markersize": 5}
    once = config.optimisation.steps * config.batch
    draw(
        left,
        "EM, plug-in",
        config.learning_sets,
        learnt["learnt"],
        {"color": REFERENCES[4], "marker": "^", "linestyle": "-."},
    )
    draw(left, "network, fixed set", config.sets, fixed["network"], network)
    draw(left, "network, each prompt once", [once], trained_distance(results)[:, None], network | {"fillstyle": "none"})
    draw(right, "new prompts", config.sets, fixed["new"], network)
    draw(
        right,
        "new prompts, each seen once",
        [once],
        excess_error(results, "causal")[:, None],
        network | {"fillstyle": "none"},
    )
    draw(right, "prompts of the set", config.sets, fixed["own"], network | {"linestyle": ":", "marker": "o"})
    right.axhline(0, **THEORY, label="posterior mean")
    for panel in (left, right):
        panel.set_xscale("log")
        panel.legend(loc="lower left" if panel is left else "upper right")
    left.set_yscale("log")
    label(
        left,
        "EM needs dozens of prompts, the network thousands",
        "training prompts",
        "mean squared distance to the posterior mean",
    )
    label(right, "small sets are memorised", "training prompts", "mean squared error minus the posterior mean's")
    return Drawing(figure, pd.DataFrame(rows))


TASK.show(distance_by_set_size)
TASK.show(few_prompts_suffice)
TASK.show(network_needs_more)

# %% [markdown]
# ## Another world at test time
#
# Three changes tell what was learnt.
#
# - **Scale.** Inputs c times as large make every pair more telling, and the posterior mean better at picking
#   the component. The network has seen such inputs rarely; it falls behind the more, the larger c is.
# - **Weights outside the set.** After n - 1 pairs of a w that is not in the set, regression is nearly right
#   and the posterior mean of the old set is plainly wrong. The network sides with the latter: it has
#   memorised components, it does not regress.
# - **Frequencies.** If four prompts of five come from one component, the best predictor would use that. The
#   network cannot know and keeps the uniform prior it was trained with.


# %%
def error_ratio(results: Results, arm: str, scale: float) -> np.ndarray:
    """log of the network's mean squared error over the posterior mean's at one scale, one number a training."""
    found, scales = results[trained_arms]["scaled"], results.config.scales
    errors = found[:, scales.index(scale)].mean(-1)  # [seed, arms then forms]
    return np.log(errors[:, (*BOTH, *FIRST).index(arm)] / errors[:, len(BOTH)])


@TASK.claim(
    "regression-mixtures/P1",
    where="Section 5 (covariate shift)",
    kind="phenomenon",
    statement=r"The network degrades more than the posterior mean when inputs grow: the ratio of their mean squared errors at twice the "
    r"scale is more than $1.1$ times that at the scale of training (causal).",
    controls=[control("inputs half as large, which tell both less", scale=0.5)],
)
def network_degrades_more(results: Results, scale: float = 2.0) -> Evidence:
    growth = error_ratio(results, "causal", scale) - error_ratio(results, "causal", 1.0)
    return Evidence.over_seeds(growth, ">", float(np.log(1.1)), "log ratio of ratios; a tenth, fixed beforehand")


@TASK.claim(
    "regression-mixtures/P1.unseen",
    where="Section 5 (weights outside the set)",
    kind="phenomenon",
    statement=r"On prompts whose unit weights are not in the set, after $n - 1$ pairs, the network is nearer to the posterior mean of the "
    r"set it was trained on than to ridge regression (both arms).",
    controls=[control("trained on a new w in every prompt", arms=("fresh",))],
)
def network_keeps_its_set(results: Results, arms: tuple[str, ...] = BOTH) -> Evidence:
    parts = []
    for arm in arms:
        found, place = of_arm(results, arm)
        distances = found["unseen"][:, place]
        ratio = np.log(distances[:, 0] / distances[:, FIRST.index("ridge")])
        parts.append(Evidence.over_seeds(ratio, "<", 0.0, f"log ratio of distances, {arm}", parts=len(arms)))
    return Evidence.weakest(*parts)


@TASK.claim(
    "regression-mixtures/P1.frequencies",
    where="Section 5 (label shift)",
    kind="phenomenon",
    statement=r"On prompts four fifths of which come from one component, after 0 to 2 pairs, the network is nearer to the posterior mean "
    r"of the uniform prior than to that of the true one (both arms).",
    controls=[control("the posterior mean of the true prior in the place of the network", network=False)],
)
def network_keeps_its_prior(results: Results, network: bool = True) -> Evidence:
    found = results[trained_arms]
    if not network:
        return Evidence.over_seeds(found["priors"].mean(-1), "<", 0.0, "difference of squared distances")
    distances = found["frequencies"].mean(-1)  # [seed, arm, prior]
    return Evidence.weakest(
        *(
            Evidence.over_seeds(
                distances[:, place, 0] - distances[:, place, 1],
                "<",
                0.0,
                f"difference of squared distances, {arm}",
                parts=len(BOTH),
            )
            for place, arm in enumerate(BOTH)
        )
    )


@TASK.figure
def changed_worlds(results: Results) -> Drawing:
    """Left: mean squared error over that of the posterior mean by scale of the inputs (means over the numbers of pairs tested).
    Middle: squared distances after n - 1 pairs of weights outside the set. Right: squared distances to the posterior means of
    both priors when four prompts of five come from one component. Bands and dots: 95 % and single trainings."""
    found, config = results[trained_arms], results.config
    figure, axes = panels(1, 3, width=4.4, height=4.0)
    rows = []
    scales = np.array(config.scales)
    errors = found["scaled"].mean(-1)
    names = (*BOTH, *FIRST)
    for place, name in enumerate(names):
        if name == "posterior mean":
            continue
        ratio = errors[:, :, place] / errors[:, :, len(BOTH)]
        low, high = mean_band(ratio)
        style = ARMS[name] if name in BOTH else LINES[name]
        axes[0, 0].plot(scales, ratio.mean(0), **style, label=f"trained, {name}" if name in BOTH else name)
        band(axes[0, 0], scales, low, high, str(style["color"]))
        rows += [
            {"world": "scale", "predictor": name, "at": scale, "value": value}
            for scale, value in zip(scales, ratio.mean(0), strict=True)
        ]
    axes[0, 0].axhline(1, **THEORY, label="posterior mean")
    label(
        axes[0, 0],
        "larger inputs: the network falls behind",
        "scale c of the inputs",
        "mean squared error over the best",
    )
    axes[0, 0].legend()
    groups: list[tuple[str, np.ndarray]] = [(arm, found["unseen"][:, place]) for place, arm in enumerate(BOTH)]
    groups.append(("no set", results[trained_without_a_set]["unseen"][:, 0]))
    bars(axes[0, 1], groups, FIRST, rows, "unseen weights")
    label(axes[0, 1], "unseen weights: it keeps its set", "trained network", "mean squared distance")
    priors = [(arm, found["frequencies"][:, place].mean(-1)) for place, arm in enumerate(BOTH)]
    bars(axes[0, 2], priors, ("uniform prior", "true prior"), rows, "frequencies")
    label(axes[0, 2], "other frequencies: it keeps its prior", "trained network", "mean squared distance")
    return Drawing(figure, pd.DataFrame(rows))


def bars(
    axis: Axes, groups: Sequence[tuple[str, np.ndarray]], names: Sequence[str], rows: list[dict], world: str
) -> None:
    """Groups of bars with their single trainings [seed, name] as dots."""
    width = 0.8 / len(names)
    for column, name in enumerate(names):
        for place, (group, values) in enumerate(groups):
            at = place + (column - (len(names) - 1) / 2) * width
            axis.bar(
                at,
                values[:, column].mean(),
                0.92 * width,
                color=("#303030", "#8a8a8a", "#d8d8d8")[column],
                hatch=("", "//", "..")[column],
                edgecolor="black",
                linewidth=0.5,
                label=f"to {name}" if place == 0 else None,
            )
            axis.plot(np.full(len(values), at), values[:, column], ".", color="#b5651d", markersize=3)
            rows.append({"world": world, "predictor": group, "at": name, "value": values[:, column].mean()})
    axis.set_xticks(range(len(groups)), [group for group, _ in groups])
    low, high = axis.get_ylim()
    axis.set_ylim(low, 1.3 * high)
    axis.legend(loc="upper left")


TASK.show(changed_worlds)
TASK.show(network_degrades_more)
TASK.show(network_keeps_its_set)
TASK.show(network_keeps_its_prior)

# %% [markdown]
# ## Everything at a glance

# %%
TASK.show()
