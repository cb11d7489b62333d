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
# # Causal attention is not optimal for in-context learning: what the mask decides
#
# A transformer is shown $n$ examples $(x_j, y_j)$, $y_j = w \cdot x_j$, and a query $x_q$; nobody tells it $w$. Two models
# with the same weights differ only in which tokens may look at which: under a **prefix mask** all examples see each
# other, under a **causal mask** example $j$ sees the examples $i \le j$. Queries see all examples in both.
#
# The argument, in the order of this notebook:
#
# 1. one layer of linear attention can take one step of gradient descent, whatever the mask;
# 2. stacked under a prefix mask, depth is the number of steps, and the limit is least squares;
# 3. stacked under a causal mask, every place $j$ carries weights $w_j$ of its own, and the limit is **one pass of Kaczmarz**:
#    online gradient descent with step $1/\lVert x_j\rVert^2$, in the order in which the examples happen to stand;
# 4. with $n$ examples that limit has an error which the closed form $v\,d\,(1-1/d)^n$ gives exactly; with noisy labels it
#    stays above a floor for ever;
# 5. *but* least squares is not always better: near $n = d$ with noise it explodes and one pass of Kaczmarz does not;
# 6. small softmax transformers trained with either mask behave alike.
#
# The identities behind steps 1 to 3 are checked to rounding error in `proofs_check/causallm_icl.py`; here are the
# measurements. Notation: $d$ dimension, $v$ variance of a coordinate of $x$, $s$ step size of one layer,
# $X$ the examples as rows.

# %%
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lab import Evidence, Task, control
from lab.diagnosis.settings import Regression
from lab.domains.regression.causal_recursions import causal_recursion, prefix_recursion
from lab.domains.regression.classification import class_error, logistic, one_hot_regression
from lab.domains.regression.gradient_descent import (
    expected_prefix_error,
    gradient_descent_path,
    gram_eigenvalues,
    require_stable,
)
from lab.domains.regression.kaczmarz import (
    averaged_kaczmarz,
    kaczmarz,
    kaczmarz_path,
    kaczmarz_weights,
    normalised_kaczmarz_path,
    stationary_coefficients,
)
from lab.domains.regression.least_squares import least_squares_weights, predict, ridge
from lab.domains.regression.online_limits import Coordinate, shifted_kaczmarz_error
from lab.domains.regression.prompts import (
    ClassPrompts,
    RegressionPrompts,
    linear_regression,
    multiclass,
    permute_context,
    random_orders,
    tokens,
)
from lab.figures import ARMS, REFERENCES, THEORY, Drawing, band, label, panels
from lab.models import masks
from lab.models.transformer import Architecture, Transformer
from lab.results import Results
from lab.statistics import mean_band
from lab.streams import Stream, stream
from lab.training import Member, Optimisation, Trained, train

# %% [markdown]
# ## Set-up
#
# The numerical part uses the paper's own sizes even in CI, because batched recursions are cheap. The trained part is
# scaled down: few dimensions, a narrow and shallow network, fresh data at every step, and both arms of every seed trained
# in one ensemble from the same initial weights on the same prompts.


# %%
@dataclass(frozen=True)
class Numerics:
    """Sizes of the measurements that train nothing."""

    draws: int = 32
    """independent draws (seeds)"""
    sequences: int = 64
    """prompts a draw"""
    queries: int = 20
    """queries a prompt"""
    dimension: int = 16
    """dimension d of the inputs, uniform on mean + [-1, 1]^d"""
    context_length: int = 40
    """examples n a prompt"""
    layers: int = 50
    """layers of linear attention"""
    step: float = 0.04
    """step size s = eta / n of one layer"""
    means: tuple[float, ...] = (0.0, 1.0, 2.0, 3.0)
    """mean of every coordinate of the inputs"""
    lengths: tuple[int, ...] = (20, 40, 60, 100, 200, 300)
    """numbers of examples at which the limit is measured"""
    noises: tuple[float, ...] = (0.0, 0.1, 0.5)
    """standard deviations of the label noise"""
    near_dimension: tuple[int, ...] = (10, 12, 14, 15, 16, 17, 18, 20, 24, 30, 40)
    """numbers of examples around n = d"""
    tasks: int = 250
    """prompts a draw for medians around n = d"""


@dataclass(frozen=True)
class LinearAttention:
    """Sizes of the trained linear attention."""

    dimension: int = 5
    """dimension d, inputs uniform on [-1/2, 1/2]^d"""
    context_length: int = 20
    """examples n"""
    queries: int = 8
    """queries a prompt"""
    layers: tuple[int, ...] = (1, 2)
    """depths trained; layers share their weights"""
    batch: int = 64
    """prompts a step"""
    optimisation: Optimisation = Optimisation(steps=500, learning_rate=2e-2, schedule="cosine")
    trainings: int = 10
    """independent trainings an arm"""


@dataclass(frozen=True)
class Softmax:
    """Sizes of the trained softmax transformers."""

    dimension: int = 3
    """dimension d, inputs uniform on [-1, 1]^d"""
    context_length: int = 6
    """examples n"""
    queries: int = 6
    """queries a prompt"""
    classes: int = 3
    """classes of the multiclass task"""
    architecture: Architecture = Architecture(width=32, layers=3, heads=2, mlp_ratio=2.0, norm="none")
    """all but input size, output size and sharing, which each cell of the table sets"""
    batch: int = 32
    """prompts a step"""
    optimisation: Optimisation = Optimisation(
        steps=600,
        learning_rate=5e-3,
        warmup=0.1,
        schedule="cosine",
        optimiser="adamw",
        betas=(0.9, 0.98),
        clip_norm=1.0,
    )
    pool: int = 0
    """training prompts drawn once and used again and again; 0 for fresh prompts at every step"""
    pools: tuple[int, ...] = (64, 512)
    """numbers of training prompts in the memorisation experiment"""
    test_prompts: int = 1000
    """prompts of the test"""
    trainings: int = 12
    """independent trainings an arm"""
    pool_batch: int = 64
    """prompts a step of a training on few prompts"""
    pool_steps: int = 350
    """its steps"""
    pool_trainings: int = 10
    """independent trainings an arm on few prompts"""


@dataclass(frozen=True)
class Config:
    """Sizes of every measurement of this task."""

    numerics: Numerics = Numerics()
    linear_attention: LinearAttention = LinearAttention()
    softmax: Softmax = Softmax()
    """the two regression tasks"""
    classification: Softmax = Softmax(
        dimension=4,
        context_length=10,
        queries=5,
        architecture=Architecture(width=32, layers=2, heads=2, mlp_ratio=2.0, norm="none"),
        batch=64,
    )
    """the multiclass task, whose masks differ by less: more examples and prompts, fewer layers"""


PAPER_SOFTMAX = Softmax(
    dimension=16,
    context_length=40,
    queries=20,
    # The released code: radial attention of two heads of 32, the stream itself normalised, 24 layers, learned positions.
    architecture=Architecture(
        width=128,
        layers=24,
        heads=2,
        head_size=32,
        attention="kernel",
        norm="stream",
        output_size=1,
        output_bias=True,
        positions="learned",
        maximum_length=60,
        initialisation="fan_in_uniform",
    ),
    batch=64,
    optimisation=Optimisation(
        steps=100_000, learning_rate=1e-4, warmup=0.2, schedule="cosine", optimiser="adamw", epsilon=1e-7
    ),
    pool=64_000,
    pools=(640, 1920, 6400),
    pool_steps=100_000,
    test_prompts=64,
)
SMOKE = Config(
    Numerics(
        draws=8,
        sequences=4,
        queries=4,
        lengths=(20, 40),
        means=(0.0, 1.0),
        layers=6,
        near_dimension=(14, 16, 20),
        tasks=20,
    ),
    LinearAttention(batch=8, optimisation=Optimisation(steps=10, learning_rate=2e-3), trainings=2),
    *(
        2
        * [
            replace(
                Softmax(),
                batch=4,
                optimisation=Optimisation(steps=6, learning_rate=1e-3),
                test_prompts=20,
                trainings=2,
                pools=(4, 8),
                pool_batch=4,
                pool_steps=6,
                pool_trainings=2,
            )
        ]
    ),
)
TASK = Task(
    "causallm-icl",
    "ding-2024-causallm",
    {"smoke": SMOKE, "ci": Config(), "paper": Config(softmax=PAPER_SOFTMAX, classification=PAPER_SOFTMAX)},
)
# The prompts on which `lab diagnose --task causallm-icl` compares a predictor with the closed forms.
DIAGNOSED_ON = Regression(
    dimension=Numerics.dimension, context_length=Numerics.context_length, inputs="uniform", noise=0.0
)

# %% [markdown]
# ## Depth is iteration
#
# In a network whose layers all carry the hand-written weights, the label slot of example $j$ holds the residual
# $y_j - w_j \cdot x_j$. Under the prefix mask all $w_j$ are the same and follow gradient descent,
# $w \leftarrow w + s\,X^\top(y - Xw)$. Under the causal mask $w_j \leftarrow w_j + s \sum_{i\le j} (y_i - w_i\cdot x_i)\,x_i$:
# a triangular iteration, which converges too, and faster, but to another point.


# %%
def numerical_prompts(config: Config, seed: int, **changes: float) -> RegressionPrompts:
    """The prompts of one draw, as in the paper unless changed."""
    sizes = config.numerics
    settings: dict[str, float] = {"context_length": sizes.context_length, "query_length": sizes.queries} | changes
    return linear_regression(stream(seed, "numerics"), sizes.sequences, dimension=sizes.dimension, **settings)  # type: ignore[arg-type]


@TASK.measurement(seeds=lambda config: config.numerics.draws)
def convergence(config: Config, seed: int) -> dict[str, np.ndarray]:
    """Mean squared errors by layer, [layers + 1], and what the eigenvalues of this draw predict for the prefix query."""
    prompts = numerical_prompts(config, seed)
    sizes = config.numerics
    require_stable(prompts.x_context, sizes.step)
    arguments = (prompts.x_context, prompts.y_context, prompts.x_query)
    found: dict[str, Tensor] = {}
    for arm, recursion in (("prefix", prefix_recursion), ("causal", causal_recursion)):
        path = recursion(*arguments, step=sizes.step, layers=sizes.layers)
        found[f"{arm}_context"] = path.context_error.mean(-1)
        found[f"{arm}_query"] = path.query_error(prompts.y_query).mean(-1)
    found["predicted"] = expected_prefix_error(
        gram_eigenvalues(prompts.x_context),
        torch.arange(sizes.layers + 1),
        step=sizes.step,
        input_variance=UNIFORM_VARIANCE,
    ).mean(-1)
    found["limit"] = _error(prompts, kaczmarz_weights(prompts.x_context, prompts.y_context))
    found["least_squares"] = _error(prompts, least_squares_weights(prompts.x_context, prompts.y_context))
    found["ridge"] = (ridge(0.1)(*arguments) - prompts.y_query).square().mean()
    found["zero"] = prompts.y_query.square().mean()
    return {name: value.numpy() for name, value in found.items()}


def _error(prompts: RegressionPrompts, weights: Tensor) -> Tensor:
    """Mean squared query error of explicit weights [batch, dimension]."""
    return (predict(weights, prompts.x_query) - prompts.y_query).square().mean()


UNIFORM_VARIANCE = 1 / 3  # of a coordinate uniform on [-1, 1]


def one_pass_error(config: Config, length: int) -> float:
    r"""$v\,d\,(1 - 1/d)^n$: expected query error of one noise-free pass over $n$ zero-mean examples."""
    d = config.numerics.dimension
    return UNIFORM_VARIANCE * d * (1 - 1 / d) ** length


@TASK.figure
def convergence_by_layer(results: Results) -> Drawing:
    """Error by layer, measured and in closed form."""
    found, sizes = results[convergence], results.config.numerics
    layers = np.arange(1, sizes.layers + 1)
    figure, axes = panels(1, 2, width=5.0)
    rows = []
    for column, arm in enumerate(("prefix", "causal")):
        panel = axes[0, column]
        for place, marker in (("context", "*"), ("query", "o")):
            values = found[f"{arm}_{place}"][:, 1:]
            low, high = mean_band(values)
            panel.plot(
                layers,
                values.mean(0),
                marker=marker,
                markevery=3,
                color=ARMS[arm]["color"],
                linestyle="-" if place == "query" else "--",
                label=f"{place} error",
            )
            band(panel, layers, low, high, ARMS[arm]["color"])
            rows += [
                {"arm": arm, "where": place, "layer": layer, "error": mean, "low": lower, "high": upper}
                for layer, mean, lower, upper in zip(layers, values.mean(0), low, high, strict=True)
            ]
        panel.set_yscale("log")
        panel.axhline(found["zero"].mean(), color=REFERENCES[1], linestyle="-.", linewidth=1, label="predicting 0")
        panel.set_ylim(1e-6, 1e2)
    axes[0, 0].plot(layers, found["predicted"].mean(0)[1:], **THEORY, label="gradient descent, closed form")
    axes[0, 1].axhline(
        one_pass_error(results.config, sizes.context_length), **THEORY, label=r"one pass of Kaczmarz, $v\,d\,(1-1/d)^n$"
    )
    label(axes[0, 0], "prefix: gradient descent, on to least squares (0)", "layer", "mean squared error")
    label(axes[0, 1], "causal: stops at one pass of Kaczmarz", "layer", "mean squared error")
    for panel in axes[0]:
        panel.legend()
    return Drawing(figure, pd.DataFrame(rows))


@TASK.claim(
    "causallm-icl/O1",
    where="Figure 2, left and middle",
    kind="ordering",
    statement=r"From the second layer on, the query error of the prefix network is below that of the causal one; the causal "
    r"error settles at $v\,d\,(1-1/d)^n$ while the prefix error goes on falling as $v\,E\sum_k (1-s\lambda_k)^{2l}$.",
    controls=[
        control("only the first layer, where the masks cannot differ", first_layer=1, last_layer=1),
        control("the causal curve taken from the prefix recursion", causal="prefix"),
    ],
)
def prefix_is_below_causal(
    results: Results, first_layer: int = 2, last_layer: int | None = None, causal: str = "causal"
) -> Evidence:
    found, sizes = results[convergence], results.config.numerics
    last = sizes.layers if last_layer is None else last_layer
    gap = np.log(found[f"{causal}_query"] / found["prefix_query"])[:, first_layer : last + 1].min(1)
    settled = found[f"{causal}_query"][:, -1]
    return Evidence.weakest(
        Evidence.over_seeds(gap, ">", 0.0, "smallest log ratio causal / prefix over the layers", parts=3),
        Evidence.agreement(
            settled, one_pass_error(results.config, sizes.context_length), "causal error at the last layer", parts=3
        ),
        Evidence.agreement(
            (found["prefix_query"] / found["predicted"])[:, sizes.layers // 5],
            1.0,
            "prefix error over its closed form",
            parts=3,
        ),
    )


# %%
TASK.show(convergence_by_layer)
TASK.show(prefix_is_below_causal)

# %% [markdown]
# ## The limit of the causal network
#
# The stationary point is found by substitution, never by iterating: the iteration matrix is triangular but far from normal,
# and for inputs with a mean it first amplifies errors by many orders (last figure of this section). One more example
# projects the error of $w$ onto the complement of that example; for zero-mean inputs every projection removes a share
# $1/d$ of the expected error, so the error is $v\,d\,(1-1/d)^n$. A mean $\mu$ makes the inputs point the same way,
# and the factor comes close to 1.


# %%
@TASK.measurement(seeds=lambda config: config.numerics.draws)
def stationary(config: Config, seed: int) -> dict[str, np.ndarray]:
    """Query errors at the stationary points: ``causal`` and ``normalised`` [means, noises, 1 + lengths], first for n = 1,
    and of ``least_squares`` for the first mean [noises, 1 + lengths]."""
    sizes = config.numerics
    lengths = torch.tensor([1, *sizes.lengths])
    found: dict[str, list] = {"causal": [], "normalised": [], "least_squares": []}
    for mean in sizes.means:
        row: dict[str, list] = {"causal": [], "normalised": []}
        for noise in sizes.noises:
            prompts = numerical_prompts(config, seed, mean=mean, noise=noise, context_length=int(lengths.max()))
            paths = {
                "causal": kaczmarz_path(prompts.x_context, prompts.y_context),
                "normalised": normalised_kaczmarz_path(prompts.x_context, prompts.y_context),
            }
            for name, path in paths.items():
                row[name].append([float(_error(prompts, path[:, n - 1])) for n in lengths])
            if mean == sizes.means[0]:
                shown = [(prompts.x_context[:, :n], prompts.y_context[:, :n]) for n in lengths]
                found["least_squares"].append(
                    [float(_error(prompts, least_squares_weights(*context))) for context in shown]
                )
        for name, values in row.items():
            found[name].append(values)
    return {name: np.array(values) for name, values in found.items()}


def one_pass_law(config: Config, mean: float, lengths: tuple[int, ...], noise: float = 0.0) -> np.ndarray:
    """Expected query error after one pass over each number of examples, by the exact two-number recursion."""
    coordinate = Coordinate("uniform", mean)
    return shifted_kaczmarz_error(torch.tensor(lengths), coordinate, config.numerics.dimension, noise=noise).numpy()


def _stationary_drawing(results: Results, name: str, title: str, other: str | None = None) -> Drawing:
    found, sizes = results[stationary], results.config.numerics
    figure, axes = panels(1, 1, width=6.0, height=4.2)
    panel, rows = axes[0, 0], []
    for index, mean in enumerate(sizes.means):
        color = REFERENCES[(index + 2) % len(REFERENCES)]
        for which, line in ((name, "-"), (other, "--")):
            if which is None:
                continue
            values = found[which][:, index, 0, 1:]
            low, high = mean_band(values)
            panel.plot(
                sizes.lengths,
                values.mean(0),
                linestyle=line,
                marker="os^D"[index],
                color=color,
                label=rf"{'causal' if which == 'causal' else 'causal, 1/j'}, $\mu$ = {mean:g}",
            )
            band(panel, np.array(sizes.lengths), low, high, color)
            rows += [
                {"network": which, "mean": mean, "examples": n, "error": value, "low": lower, "high": upper}
                for n, value, lower, upper in zip(sizes.lengths, values.mean(0), low, high, strict=True)
            ]
        if other is None:
            panel.plot(
                sizes.lengths,
                one_pass_law(results.config, mean, sizes.lengths),
                **THEORY,
                label="closed forms" if index == 0 else None,
            )
    panel.set_yscale("log")
    label(panel, title, "examples in the context", "mean squared query error")
    panel.legend(ncols=2)
    return Drawing(figure, pd.DataFrame(rows))


@TASK.figure
def stationary_error(results: Results) -> Drawing:
    """Query error of the infinitely deep causal network against the number of examples."""
    return _stationary_drawing(results, "causal", "one pass learns slowly, far slower where inputs have a mean")


@TASK.figure
def normalised_stationary_error(results: Results) -> Drawing:
    """The same for the network that divides by the number of visible examples."""
    return _stationary_drawing(
        results, "normalised", "dividing by the visible length makes the limit worse", other="causal"
    )


@TASK.figure
def noise_floor(results: Results) -> Drawing:
    """Query error against the number of examples under label noise, causal limit and least squares."""
    found, sizes = results[stationary], results.config.numerics
    figure, axes = panels(1, 1, width=6.0, height=4.2)
    panel, rows = axes[0, 0], []
    for index, noise in enumerate(sizes.noises):
        color = REFERENCES[(0, 2, 4)[index % 3]]
        for name, line, marker in (("causal", "-", "s"), ("least_squares", "--", "o")):
            values = (found[name][:, 0] if name == "causal" else found[name])[:, index, 1:]
            if noise == 0 and name == "least_squares":
                continue  # zero to rounding
            low, high = mean_band(values)
            panel.plot(
                sizes.lengths,
                values.mean(0),
                line,
                marker=marker,
                color=color,
                label=rf"{'causal limit' if name == 'causal' else 'least squares'}, $\sigma$ = {noise:g}",
            )
            band(panel, np.array(sizes.lengths), low, high, color)
            rows += [
                {"predictor": name, "noise": noise, "examples": n, "error": value}
                for n, value in zip(sizes.lengths, values.mean(0), strict=True)
            ]
        if noise > 0:
            panel.axhline(one_pass_law(results.config, 0.0, (10_000,), noise)[0], **THEORY)
    panel.set_yscale("log")
    panel.set_ylim(1e-5, 10)
    label(
        panel,
        "with noisy labels the causal limit stays above a floor (dotted)",
        "examples in the context",
        "mean squared query error",
    )
    panel.legend()
    return Drawing(figure, pd.DataFrame(rows))


@TASK.claim(
    "causallm-icl/O2",
    where="Figure 2, right",
    kind="ordering",
    statement=r"The query error of the infinitely deep causal network grows with the mean $\mu$ of the inputs at every number "
    r"of examples $n$, and equals the exact law of one pass of Kaczmarz.",
    controls=[control("the curve of mean 0 taken for mean 1", relabel=True)],
)
def stationary_error_grows_with_the_mean(results: Results, relabel: bool = False) -> Evidence:
    found, sizes = results[stationary]["causal"][:, :, 0, 1:], results.config.numerics
    errors = found[:, [0, 0, *range(2, len(sizes.means))]] if relabel else found
    parts = 1 + len(sizes.means) * len(sizes.lengths)
    agreements = [
        Evidence.agreement(errors[:, row, column], law, f"mean {mean:g}, {length} examples", parts=parts)
        for row, mean in enumerate(sizes.means)
        for column, (length, law) in enumerate(
            zip(sizes.lengths, one_pass_law(results.config, mean, sizes.lengths), strict=True)
        )
    ]
    growth = np.diff(np.log(errors), axis=1).min((1, 2))
    return Evidence.weakest(
        Evidence.over_seeds(growth, ">", 0.0, "smallest log ratio of neighbouring means", parts=parts), *agreements
    )


@TASK.claim(
    "causallm-icl/O3",
    where="Figure 4",
    kind="ordering",
    statement=r"The causal network that divides by the number of visible examples, with step $\eta/j$ at place $j$, has a larger "
    r"stationary query error than the plain one at every $n$ and every mean.",
    controls=[control("one example, where both divide by 1", one_example=True)],
)
def normalised_network_is_worse(results: Results, one_example: bool = False) -> Evidence:
    found = results[stationary]
    chosen = slice(0, 1) if one_example else slice(1, None)
    ratio = np.log(found["normalised"] / found["causal"])[:, :, 0, chosen]
    return Evidence.over_seeds(ratio.min((1, 2)), ">", 0.0, "smallest log ratio over n and means")


# %%
TASK.show(stationary_error)
TASK.show(stationary_error_grows_with_the_mean)
TASK.show(normalised_stationary_error)
TASK.show(normalised_network_is_worse)
TASK.show(noise_floor)

# %% [markdown]
# ### Where iterating goes wrong
#
# $I - sT$ is triangular: its eigenvalues are $1 - s\lVert x_j\rVert^2$, all below 1 in size for a small step, whatever $n$ is. But
# eigenvalues only rule late layers. With inputs of mean 1 and the paper's step the error grows by many orders before it
# falls; with mean 2 it grows beyond what floating-point numbers can recover from. A network of any real depth would never
# show the "linear rate".


# %%
TRANSIENTS = ((0.0, 0.04), (0.0, 0.2), (1.0, 0.04), (1.0, 0.01))


@TASK.measurement(seeds=lambda config: 8)
def transient(config: Config, seed: int) -> dict[str, np.ndarray]:
    """Largest error of the coefficients over prompts relative to their start, [cases, layers + 1], and the rates."""
    curves, rates = [], []
    for mean, step in TRANSIENTS:
        prompts = numerical_prompts(config, seed, mean=mean, query_length=1)
        x, y = prompts.x_context, prompts.y_context
        path = causal_recursion(x, y, prompts.x_query, step=step, layers=4 * config.numerics.layers).coefficients
        goal = stationary_coefficients(x, y)
        distance = (path - goal).norm(dim=-1)
        curves.append((distance / distance[:1]).amax(-1).numpy())
        rates.append(float((1 - step * x.square().sum(-1)).abs().amax()))
    return {"distance": np.array(curves), "rate": np.array(rates)}


@TASK.figure
def transient_growth(results: Results) -> Drawing:
    """Error of the causal iteration by layer, against its asymptotic rate."""
    found = results[transient]
    figure, axes = panels(1, 1, width=6.0, height=4.2)
    panel, rows = axes[0, 0], []
    for index, (mean, step) in enumerate(TRANSIENTS):
        typical = np.exp(np.log(np.maximum(found["distance"][:, index], 1e-16)).mean(0))
        color = REFERENCES[(0, 2, 3, 4)[index]]
        panel.plot(
            typical,
            color=color,
            linestyle=("-", "--", "-.", (0, (1, 1)))[index],
            label=rf"$\mu$ = {mean:g}, s = {step:g}: rate {found['rate'][:, index].mean():.2f}",
        )
        rows += [{"mean": mean, "step": step, "layer": layer, "error": value} for layer, value in enumerate(typical)]
    panel.axhline(1, color="black", linewidth=0.8)
    panel.set_yscale("log")
    panel.set_ylim(1e-10, 1e8)
    label(
        panel,
        "a rate below 1 does not stop errors from growing first",
        "layer",
        "largest error of the weights, relative to the start",
    )
    panel.legend()
    return Drawing(figure, pd.DataFrame(rows))


# %%
TASK.show(transient_growth)

# %% [markdown]
# ## Where causal wins
#
# "Prefix is better" cannot be true without a condition. The limit of the prefix network is plain least squares, whose
# error explodes where the number of examples comes near the dimension and labels are noisy (double descent). One pass of
# Kaczmarz never inverts anything: its error stays bounded. Medians over prompts, because means are heavy-tailed there.


# %%
@TASK.measurement(seeds=lambda config: config.numerics.draws)
def near_interpolation(config: Config, seed: int) -> dict[str, np.ndarray]:
    """Median query error over prompts, [noises, lengths], of the causal limit and of least squares."""
    sizes = config.numerics
    medians = np.empty((2, len(sizes.noises), len(sizes.near_dimension)))
    for column, length in enumerate(sizes.near_dimension):
        prompts = [
            linear_regression(
                stream(seed, "near", length),
                sizes.tasks,
                dimension=sizes.dimension,
                context_length=length,
                query_length=sizes.queries,
                noise=noise,
            )
            for noise in sizes.noises
        ]
        # The prompts differ in the size of their noise alone, so that one pseudo-inverse serves all.
        inverse = torch.linalg.pinv(prompts[0].x_context)
        for row, given in enumerate(prompts):
            limits = kaczmarz_weights(given.x_context, given.y_context), predict(given.y_context, inverse)
            for place, weights in enumerate(limits):
                errors = (predict(weights, given.x_query) - given.y_query).square().mean(-1)
                medians[place, row, column] = errors.median()
    return {"causal": medians[0], "least_squares": medians[1]}


@TASK.figure
def where_causal_wins(results: Results) -> Drawing:
    """Median query error around as many examples as dimensions, with the noisiest labels."""
    found, sizes = results[near_interpolation], results.config.numerics
    figure, axes = panels(1, 1, width=6.0, height=4.2)
    panel, rows = axes[0, 0], []
    lengths = np.array(sizes.near_dimension)
    for name, arm in (("least_squares", "prefix"), ("causal", "causal")):
        values = found[name][:, -1]
        low, high = mean_band(values)
        panel.plot(
            lengths,
            values.mean(0),
            **ARMS[arm],
            label="prefix limit: least squares" if arm == "prefix" else "causal limit: one pass of Kaczmarz",
        )
        band(panel, lengths, low, high, ARMS[arm]["color"])
        rows += [
            {"arm": arm, "examples": n, "median_error": value, "low": lower, "high": upper}
            for n, value, lower, upper in zip(lengths, values.mean(0), low, high, strict=True)
        ]
    panel.axvline(sizes.dimension, color="black", linewidth=0.8, linestyle=":")
    panel.annotate("n = d", (sizes.dimension, 7), xytext=(4, 0), textcoords="offset points")
    label(
        panel,
        rf"near n = d causal wins (label noise $\sigma$ = {sizes.noises[-1]:g})",
        "examples in the context",
        "median squared query error",
    )
    panel.legend()
    return Drawing(figure, pd.DataFrame(rows))


@TASK.claim(
    "causallm-icl/O4",
    where="the paper's title, read without a condition",
    kind="ordering",
    statement="The limit of the prefix network is never worse than that of the causal one, at any number of examples.",
    expected="refuted",
    condition="without label noise, or away from as many examples as dimensions",
    controls=[control("labels without noise", noise_index=0)],
)
def prefix_is_never_worse(results: Results, noise_index: int = -1) -> Evidence:
    found = results[near_interpolation]
    excess = np.log(found["least_squares"] / found["causal"])[:, noise_index]
    return Evidence.over_seeds(excess.max(1), "<=", 0.0, "largest log ratio of median errors, prefix over causal")


@TASK.claim(
    "causallm-icl/O4.window",
    where="derived",
    kind="ordering",
    statement=r"With label noise $\sigma = 1/2$ the causal limit has the lower median error for $n$ within one of $d$, and the prefix "
    r"limit from $n = 5d/4$ on.",
    controls=[control("labels without noise", noise_index=0)],
)
def causal_wins_near_the_dimension(results: Results, noise_index: int = -1) -> Evidence:
    found, sizes = results[near_interpolation], results.config.numerics
    advantage = np.log(found["least_squares"] / found["causal"])[:, noise_index]
    lengths = np.array(sizes.near_dimension)
    near = np.abs(lengths - sizes.dimension) <= 1
    far = lengths >= 1.25 * sizes.dimension
    return Evidence.weakest(
        Evidence.over_seeds(advantage[:, near].min(1), ">", 0.0, "smallest log ratio for n near d", parts=2),
        Evidence.over_seeds(-advantage[:, far].max(1), ">", 0.0, "smallest log ratio for larger n", parts=2),
    )


# %%
TASK.show(where_causal_wins)
TASK.show(prefix_is_never_worse)
TASK.show(causal_wins_near_the_dimension)

# %% [markdown]
# ## What would repair the causal network
#
# Its answer depends on the order of the examples, so one could average over many orders; or show the context several times,
# which continues the pass. Averaging helps a little and saturates. Repeating converges to least squares without noise, and
# stalls above it with noise.


# %%
ORDERS = (1, 4, 64)
PASSES = (1, 2, 5, 50)


@TASK.measurement(seeds=lambda config: config.numerics.draws)
def repairs(config: Config, seed: int) -> dict[str, np.ndarray]:
    """Query errors [2 (no noise, most noise), repairs] of averaging over orders, of repeating, of least squares."""
    found: dict[str, list] = {"averaged": [], "repeated": [], "least_squares": []}
    for noise in (0.0, config.numerics.noises[-1]):
        prompts = numerical_prompts(config, seed, noise=noise)
        arguments = prompts.x_context, prompts.y_context, prompts.x_query

        def error(predictor, prompts: RegressionPrompts = prompts, arguments: tuple = arguments) -> float:  # type: ignore[no-untyped-def]
            return float((predictor(*arguments) - prompts.y_query).square().mean())

        found["averaged"].append([error(averaged_kaczmarz(orders, stream(seed, "orders"))) for orders in ORDERS])
        found["repeated"].append([error(kaczmarz(passes=passes)) for passes in PASSES])
        found["least_squares"].append([error(lambda x, y, q: predict(least_squares_weights(x, y), q))])
    return {name: np.array(values) for name, values in found.items()}


@TASK.claim(
    "causallm-icl/O5",
    where="derived",
    kind="ordering",
    statement="Averaging the causal predictions over 64 random orders of the context lowers the error, but leaves more than a "
    "quarter of it, although least squares has none (no label noise).",
    controls=[control("the context repeated 50 times instead", repair="repeated")],
)
def averaging_orders_is_not_enough(results: Results, repair: str = "averaged") -> Evidence:
    ratio = results[repairs][repair][:, 0]
    share = ratio[:, -1] / ratio[:, 0]
    return Evidence.weakest(
        Evidence.over_seeds(share, ">", 0.25, "share of the error that is left", parts=2),
        Evidence.over_seeds(share, "<", 1.0, "share of the error that is left", parts=2),
    )


@TASK.claim(
    "causallm-icl/O5.passes",
    where="derived",
    kind="ordering",
    statement="Going through the context 50 times closes the gap to least squares when labels are clean, to below a hundredth of the "
    "one-pass error.",
    controls=[
        control("noisy labels, where further passes stall", noise_index=1),
        control("64 random orders averaged instead", repair="averaged"),
    ],
)
def repeating_closes_the_gap(results: Results, repair: str = "repeated", noise_index: int = 0) -> Evidence:
    found = results[repairs]
    excess = found[repair][:, noise_index] - found["least_squares"][:, noise_index]
    return Evidence.over_seeds(excess[:, -1] / excess[:, 0], "<", 0.01, "share of the excess error that is left")


# %%
TASK.show(averaging_orders_is_not_enough)
TASK.show(repeating_closes_the_gap)

# %% [markdown]
# ## Trained linear attention
#
# So far every weight was written by hand. Does training find them? All entries of the two merged matrices $K^\top Q$ and
# $PV$ are free here, layers share them, and both arms start from the same weights and see the same prompts. With one layer the
# two masks are the same function of the query, whatever the weights; with two the prefix arm is ahead.


# %%
def arm_masks(context: int, queries: int) -> dict[str, Tensor]:
    """The two patterns that everything here compares."""
    return {"prefix": masks.in_context_prefix(context, queries), "causal": masks.in_context_causal(context, queries)}


def linear_attention_ensemble(sizes: LinearAttention, layers: int, seeds: tuple[int, ...]) -> Transformer:
    """Linear attention with merged matrices that start near a small gradient step, different noise a seed."""
    size = sizes.dimension + 1
    architecture = Architecture(
        width=size,
        layers=layers,
        attention="linear",
        attention_matrices="merged",
        mlp_ratio=0.0,
        norm="none",
        bias=False,
        share_layers=True,
        initial_scale=0.02,
    )
    ensemble = Transformer(architecture, seeds)
    start = 0.3 / layers
    with torch.no_grad():
        for name, parameter in ensemble.named_parameters():
            if "query" in name:
                parameter[:, : size - 1, : size - 1] += start * torch.eye(size - 1)
            else:
                parameter[:, -1, -1] -= start
    return ensemble


@TASK.measurement(seeds=lambda config: config.linear_attention.trainings, ensemble=True, seeds_per_job=5)
def trained_linear_attention(config: Config, seeds: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Test errors by arm, and of one optimal gradient step, [seeds, depths, 2 arms (prefix, causal)]."""
    sizes = config.linear_attention
    patterns = arm_masks(sizes.context_length, sizes.queries)
    members = [Member(seed, arm) for seed in seeds for arm in patterns]

    def prompts(source: Stream, batch: int) -> RegressionPrompts:
        return linear_regression(
            source,
            batch,
            dimension=sizes.dimension,
            context_length=sizes.context_length,
            query_length=sizes.queries,
            half_width=0.5,
            dtype=torch.float32,
        )

    def batch(seed: int, step: int) -> dict[str, Tensor]:
        drawn = prompts(stream(seed, "data", step), sizes.batch)
        return {"tokens": tokens(drawn), "labels": drawn.y_query}

    def loss(module: Transformer, given: dict[str, Tensor], arms: tuple[str, ...]) -> Tensor:
        mask = torch.stack([patterns[arm] for arm in arms])
        prediction = -module(given["tokens"], mask)[:, :, sizes.context_length :, -1]
        return (prediction - given["labels"]).square().mean((1, 2)) / 2

    errors = []
    for depth in sizes.layers:
        trained = train(
            lambda chosen, depth=depth: linear_attention_ensemble(sizes, depth, tuple(chosen)),  # type: ignore[misc]
            members,
            batch,
            loss,
            sizes.optimisation,
            name=f"depth {depth}",
        )
        rows = []
        for place, seed in enumerate(seeds):
            test = prompts(stream(seed, "test"), config.softmax.test_prompts)
            pair = trained.module.select([2 * place, 2 * place + 1])
            with torch.no_grad():
                found = loss(pair, {"tokens": tokens(test)[None], "labels": test.y_query}, tuple(patterns))
            rows.append(found.numpy())
        errors.append(rows)
    return {"loss": np.array(errors).transpose(1, 0, 2)}


@TASK.claim(
    "causallm-icl/O1.trained",
    where="Propositions 1 and 2, with trained weights",
    kind="training",
    statement="Two trained layers of linear attention with shared weights leave a larger error under the causal mask than under the "
    "prefix mask, by a factor of more than $1.2$.",
    controls=[control("one layer, where the masks are one function", depth_index=0)],
)
def trained_prefix_attention_is_ahead(results: Results, depth_index: int = 1) -> Evidence:
    losses = results[trained_linear_attention]["loss"][:, depth_index]
    return Evidence.over_seeds(
        np.log(losses[:, 1] / losses[:, 0]), ">", float(np.log(1.2)), "log ratio of test errors, causal over prefix"
    )


# %%
TASK.show(trained_prefix_attention_is_ahead)

# %% [markdown]
# ## Softmax transformers
#
# The same comparison with an ordinary small transformer: softmax attention, MLP, nothing written by hand. Three tasks (linear
# regression, the same through a logistic function, classification by the largest of three linear scores, trained with squared
# error as in the paper), layers shared (SL) or not (UL), prefix against causal.


# %%
DOMAINS = ("linear", "sigmoid", "classes")
SHARING = (True, False)
ARM_NAMES = ("prefix", "causal")


def softmax_prompts(
    sizes: Softmax, domain: str, source: Stream, batch: int, length: int = 0
) -> RegressionPrompts | ClassPrompts:
    """Prompts of one of the three tasks, with ``length`` examples (0: as in training)."""
    shape: dict[str, Any] = {
        "dimension": sizes.dimension,
        "context_length": length or sizes.context_length,
        "query_length": sizes.queries,
    }
    if domain == "classes":
        return multiclass(source, batch, classes=sizes.classes, dtype=torch.float32, **shape)
    return linear_regression(source, batch, output=domain, dtype=torch.float32, **shape)  # type: ignore[arg-type]


def targets(prompts: RegressionPrompts | ClassPrompts) -> Tensor:
    """Labels of the queries, [batch, query, outputs]."""
    return prompts.y_query if isinstance(prompts, ClassPrompts) else prompts.y_query[..., None]


def sizes_of(config: Config, domain: str) -> Softmax:
    """The sizes at which one of the three tasks is trained."""
    return config.classification if domain == "classes" else config.softmax


def architecture_of(sizes: Softmax, domain: str, shared: bool, layers: int | None = None) -> Architecture:
    outputs = sizes.classes if domain == "classes" else 1
    return replace(
        sizes.architecture,
        input_size=sizes.dimension + outputs,
        output_size=outputs,
        share_layers=shared,
        layers=sizes.architecture.layers if layers is None else layers,
    )


def prediction_loss(patterns: dict[str, Tensor], context: int) -> Callable[..., Tensor]:
    """Squared error at the queries, summed over classes, averaged over prompts and queries."""

    def loss(module: Transformer, given: dict[str, Tensor], arms: tuple[str, ...]) -> Tensor:
        mask = torch.stack([patterns[arm] for arm in arms])
        prediction = module(given["tokens"], mask)[:, :, context:]
        return (prediction - given["labels"]).square().sum(-1).mean((1, 2))

    return loss


def train_softmax(
    sizes: Softmax,
    seeds: tuple[int, ...],
    domain: str,
    shared: bool,
    *,
    name: str,
    layers: int | None = None,
    steps: int | None = None,
    pool: int | None = None,
    permuted: bool = False,
    shuffled: bool = False,
) -> Trained[Transformer]:
    """Both arms of every seed. ``pool`` prompts are drawn once (0: fresh ones); their contexts may be permuted each step."""
    patterns = arm_masks(sizes.context_length, sizes.queries)
    pool = sizes.pool if pool is None else pool
    fixed = {seed: softmax_prompts(sizes, domain, stream(seed, "pool"), pool) for seed in seeds if pool}

    def batch(seed: int, step: int) -> dict[str, Tensor]:
        source = stream(seed, "data", step)
        if not pool:
            drawn = softmax_prompts(sizes, domain, source, sizes.batch)
        else:
            chosen = source.child("rows").rng().choice(pool, min(sizes.batch, pool), replace=False)
            drawn = replace(
                fixed[seed], **{key: value[torch.from_numpy(chosen)] for key, value in vars(fixed[seed]).items()}
            )
            if permuted and isinstance(drawn, RegressionPrompts):
                drawn = permute_context(drawn, random_orders(source.child("order"), 1, sizes.context_length)[0])
        if shuffled:
            # Labels of another prompt: the examples say nothing about the query.
            drawn = replace(drawn, y_context=drawn.y_context.roll(1, 0))
        return {"tokens": tokens(drawn), "labels": targets(drawn)}

    optimisation = sizes.optimisation if steps is None else replace(sizes.optimisation, steps=steps)
    return train(
        lambda chosen: Transformer(architecture_of(sizes, domain, shared, layers), tuple(chosen)),
        [Member(seed, arm) for seed in seeds for arm in patterns],
        batch,
        prediction_loss(patterns, sizes.context_length),
        optimisation,
        name=name,
    )


def errors_on_new(
    sizes: Softmax,
    trained: Trained[Transformer],
    domain: str,
    *,
    length: int = 0,
    read: tuple[str, str] = ARM_NAMES,
    shuffled: bool = False,
) -> np.ndarray:
    """Test errors [seeds, 2 arms, 2 (squared error, share misclassified)]; ``read`` are the masks at test time."""
    patterns = arm_masks(length or sizes.context_length, sizes.queries)
    mask = torch.stack([patterns[arm] for arm in read])
    rows = []
    for place in range(0, len(trained.members), 2):
        test = softmax_prompts(sizes, domain, stream(trained.members[place].seed, "test"), sizes.test_prompts, length)
        if shuffled:
            test = replace(test, y_context=test.y_context.roll(1, 0))
        goal = targets(test)
        with torch.no_grad():
            found = trained.module.select([place, place + 1])(tokens(test)[None], mask)[:, :, -sizes.queries :]
        squared = (found - goal).square().sum(-1).mean((1, 2))
        wrong = (found.argmax(-1) != goal.argmax(-1)).float().mean((1, 2))
        rows.append(torch.stack([squared, wrong], -1).numpy())
    return np.array(rows)


@TASK.measurement(seeds=lambda config: config.softmax.trainings, ensemble=True, seeds_per_job=6)
def trained_transformers(config: Config, seeds: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Both arms of every cell of the table: errors [seed, task, sharing, arm, 2], and what else the trained models tell."""
    found: dict[str, list] = {"errors": [], "swapped": [], "by_length": [], "seen": []}
    probes = []
    for domain in DOMAINS:
        sizes = sizes_of(config, domain)
        rows: dict[str, list] = {name: [] for name in found}
        for shared in SHARING:
            trained = train_softmax(sizes, seeds, domain, shared, name=f"{domain} {shared}")
            rows["errors"].append(errors_on_new(sizes, trained, domain))
            rows["swapped"].append(errors_on_new(sizes, trained, domain, read=("causal", "prefix")))
            rows["by_length"].append(
                np.stack([errors_on_new(sizes, trained, domain, length=n) for n in shorter_contexts(sizes)], axis=2)
            )
            if domain == "linear":
                probes.append(probe_errors(sizes, trained, domain))
            last = sizes.optimisation.steps
            recent = [("data", step) for step in range(max(last - 20, 0), last)]
            rows["seen"].append(
                np.mean([errors_on(sizes, trained, domain, name, sizes.batch) for name in recent], axis=0)
            )
        for name, values in rows.items():
            found[name].append(values)
    # [task, sharing, seed, ...] to the seed first
    cells = {name: np.moveaxis(np.array(values), 2, 0) for name, values in found.items()}
    return cells | {"probes": np.moveaxis(np.array(probes), 1, 0)}


def shorter_contexts(sizes: Softmax) -> tuple[int, ...]:
    """Numbers of examples 0.4, 0.6 and 0.8 of those in training, as 16, 24 and 32 are of the paper's 40."""
    return tuple(max(2, round(share * sizes.context_length)) for share in (0.4, 0.6, 0.8))


def probe_errors(sizes: Softmax, trained: Trained[Transformer], domain: str) -> np.ndarray:
    """Squared query error of the best linear read-out of each layer's state, [seeds, 2 arms, layers + 1].

    The read-out is fitted by least squares on one half of the test prompts and scored on the other.
    """
    patterns = arm_masks(sizes.context_length, sizes.queries)
    mask = torch.stack([patterns[arm] for arm in ARM_NAMES])
    names = ["embedding", *(f"layers.{depth}.residual" for depth in range(sizes.architecture.layers))]
    rows = []
    for place in range(0, len(trained.members), 2):
        test = softmax_prompts(sizes, domain, stream(trained.members[place].seed, "probe"), sizes.test_prompts)
        record: dict[str, Tensor] = {}
        with torch.no_grad():
            trained.module.select([place, place + 1])(tokens(test)[None], mask, record=record)
        half = max(sizes.test_prompts // 2, 1)
        goal = targets(test).double()
        errors = []
        for name in names:
            states = record[name][:, :, -sizes.queries :].double()
            states = torch.cat([states, torch.ones_like(states[..., :1])], -1)
            fitted, scored = states[:, :half].flatten(1, 2), states[:, half:].flatten(1, 2)
            weights = torch.linalg.pinv(fitted) @ goal[:half].flatten(0, 1)
            errors.append((scored @ weights - goal[half:].flatten(0, 1)).square().sum(-1).mean(1))
        rows.append(torch.stack(errors, -1).numpy())
    return np.array(rows)


@TASK.measurement(seeds=lambda config: config.softmax.trainings, ensemble=True, seeds_per_job=6)
def transformers_that_cannot_differ(config: Config, seeds: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Errors [seed, task, arm, 2] of one-layer networks, and of networks trained on labels of other prompts."""
    found: dict[str, list] = {"one_layer": [], "shuffled": []}
    for domain in DOMAINS:
        sizes = sizes_of(config, domain)
        steps = max(sizes.optimisation.steps // 12, 1)
        one = train_softmax(sizes, seeds, domain, True, name=f"one {domain}", layers=1, steps=steps)
        found["one_layer"].append(errors_on_new(sizes, one, domain))
        mixed = train_softmax(sizes, seeds, domain, True, name=f"mixed {domain}", steps=steps, shuffled=True)
        found["shuffled"].append(errors_on_new(sizes, mixed, domain, shuffled=True))
    return {name: np.moveaxis(np.array(values), 1, 0) for name, values in found.items()}


@TASK.measurement(seeds=lambda config: config.softmax.pool_trainings, ensemble=True, seeds_per_job=5)
def few_prompts(config: Config, seeds: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Linear regression from a fixed pool of prompts: errors [seed, pools + 1, arm] on new prompts and on the pool.

    The last entry is the first pool with its contexts permuted at every step.
    """
    sizes = replace(config.softmax, batch=config.softmax.pool_batch)
    found: dict[str, list] = {"test": [], "training": []}
    # Permuting is tried on the smallest pool, where there is most to gain.
    for pool, permuted in [*((pool, False) for pool in sizes.pools), (sizes.pools[0], True)]:
        trained = train_softmax(
            sizes,
            seeds,
            "linear",
            False,
            name=f"pool {pool} {permuted}",
            pool=pool,
            permuted=permuted,
            steps=sizes.pool_steps,
        )
        found["test"].append(errors_on_new(sizes, trained, "linear")[..., 0])
        found["training"].append(errors_on(sizes, trained, "linear", ("pool",), pool))
    return {name: np.moveaxis(np.array(values), 1, 0) for name, values in found.items()}


def errors_on(sizes: Softmax, trained: Trained[Transformer], domain: str, name: tuple, count: int) -> np.ndarray:
    """Squared error [seeds, 2 arms] on the first ``count`` prompts of a stream, such as those of the training."""
    mask = torch.stack(list(arm_masks(sizes.context_length, sizes.queries).values()))
    rows = []
    for place in range(0, len(trained.members), 2):
        prompts = softmax_prompts(sizes, domain, stream(trained.members[place].seed, *name), count)
        with torch.no_grad():
            found = trained.module.select([place, place + 1])(tokens(prompts)[None], mask)[:, :, -sizes.queries :]
        rows.append((found - targets(prompts)).square().sum(-1).mean((1, 2)).numpy())
    return np.array(rows)


@TASK.measurement(seeds=lambda config: config.softmax.trainings)
def references(config: Config, seed: int) -> dict[str, np.ndarray]:
    """Test errors of the closed forms: regression [predictors], classification [predictors] (share misclassified)."""
    sizes = config.softmax
    source = stream(seed, "test")
    count = sizes.test_prompts
    line = softmax_prompts(sizes, "linear", source, count)
    arguments = line.x_context.double(), line.y_context.double(), line.x_query.double()
    eigenvalues = torch.linalg.matrix_norm(arguments[0], 2).square()
    descent = _descend(*arguments, rate=1 / eigenvalues, steps=sizes.architecture.layers)
    predictions = [
        predict(least_squares_weights(*arguments[:2]), arguments[2]),
        ridge(0.1)(*arguments),
        descent,
        kaczmarz()(*arguments),
        torch.zeros_like(descent),
    ]
    few = softmax_prompts(config.classification, "classes", source, count)
    given = few.x_context.double(), few.y_context.double(), few.x_query.double()
    classifiers = [logistic(0.2), one_hot_regression(ridge(0.5)), one_hot_regression(kaczmarz())]
    return {
        "regression": np.array([float((one - line.y_query).square().mean()) for one in predictions]),
        "classes": np.array([float(class_error(one(*given), few.y_query).mean()) for one in classifiers]),
    }


REGRESSION_REFERENCES = ("least squares", "ridge", "gradient descent, a step a layer", "one pass of Kaczmarz", "zero")
CLASS_REFERENCES = ("logistic MAP", "ridge on one-hot", "one pass of Kaczmarz")


def _descend(x: Tensor, y: Tensor, queries: Tensor, *, rate: Tensor, steps: int) -> Tensor:
    """Gradient descent with the largest safe rate of each prompt, 1 over its largest eigenvalue."""
    scale = rate.sqrt()[:, None, None]
    # Rescaling inputs and labels by the root of the rate makes the rate 1 for every prompt.
    path = gradient_descent_path(x * scale, y * scale[..., 0], step=1.0, steps=steps)
    return predict(path[-1], queries)


@TASK.figure
def trained_errors(results: Results) -> Drawing:
    """Test errors of the trained transformers beside the closed forms."""
    errors, known = results[trained_transformers]["errors"], results[references]
    figure, axes = panels(1, 3, width=4.6, height=3.8)
    rows = []
    for column, domain in enumerate(DOMAINS):
        panel, score = axes[0, column], int(domain == "classes")
        for row, shared in enumerate(SHARING):
            for arm, name in enumerate(ARM_NAMES):
                values = errors[:, column, row, arm, score]
                place = row + 0.36 * arm - 0.18
                panel.bar(
                    place,
                    values.mean(),
                    0.34,
                    color=ARMS[name]["color"],
                    hatch=("", "//")[arm],
                    alpha=0.75,
                    label=name if row == 0 else None,
                )
                panel.plot(np.full(len(values), place), values, "k.", markersize=3)
                rows += [
                    {"task": domain, "shared": shared, "arm": name, "seed": seed, "error": value}
                    for seed, value in enumerate(values)
                ]
        if domain != "sigmoid":
            names = CLASS_REFERENCES if score else REGRESSION_REFERENCES
            for index, (name, value) in enumerate(
                zip(names, known["classes" if score else "regression"].mean(0), strict=True)
            ):
                if value > 1e-6:
                    panel.axhline(
                        value, color=REFERENCES[index], linestyle=("-", "--", "-.", ":", (0, (5, 1)))[index], label=name
                    )
                rows.append({"task": domain, "arm": name, "error": value})
        panel.set_xticks([0, 1], ["layers shared", "not shared"])
        titles = ("linear: prefix is ahead", "logistic labels: prefix is ahead", "three classes: prefix is ahead")
        label(panel, titles[column], "network", "share misclassified" if score else "mean squared query error")
        if not score:
            panel.set_yscale("log")
        low, high = panel.get_ylim()
        panel.set_ylim(low, high * (1.7 if score else 30 if column == 0 else 3))  # room for the legend
        panel.legend(fontsize=7.5, loc="upper right")
    return Drawing(figure, pd.DataFrame(rows))


@TASK.figure
def probes_by_layer(results: Results) -> Drawing:
    """Error of the best linear read-out of every layer, linear regression with shared layers."""
    found = results[trained_transformers]["probes"][:, 0]
    figure, axes = panels(1, 1, width=5.6, height=4.0)
    panel, rows = axes[0, 0], []
    layers = np.arange(found.shape[-1])
    for arm, name in enumerate(ARM_NAMES):
        low, high = mean_band(np.log(found[:, arm]))
        panel.plot(layers, np.exp(np.log(found[:, arm]).mean(0)), **ARMS[name], label=name)
        band(panel, layers, np.exp(low), np.exp(high), ARMS[name]["color"])
        rows += [
            {"arm": name, "layer": layer, "seed": seed, "error": found[seed, arm, layer]}
            for seed in range(len(found))
            for layer in layers
        ]
    panel.set_yscale("log")
    panel.set_xticks(layers)
    label(
        panel,
        "both fall at first; the causal network flattens earlier",
        "layer",
        "mean squared query error of a linear probe",
    )
    panel.legend()
    return Drawing(figure, pd.DataFrame(rows))


@TASK.figure
def few_prompts_error(results: Results) -> Drawing:
    """Test and training error against the number of training prompts."""
    found, sizes = results[few_prompts], results.config.softmax
    fresh = results[trained_transformers]["errors"][:, 0, 1, :, 0]
    figure, axes = panels(1, 1, width=5.6, height=4.0)
    panel, rows = axes[0, 0], []
    places = np.arange(len(sizes.pools) + 1)
    for arm, name in enumerate(ARM_NAMES):
        tests = [*found["test"][:, :-1, arm].T, fresh[:, arm]]
        trainings = found["training"][:, :-1, arm].T
        middle = [float(np.exp(np.log(values).mean())) for values in tests]
        edges = np.exp([mean_band(np.log(values)) for values in tests])
        panel.plot(places, middle, **ARMS[name], label=f"{name}, test")
        band(panel, places, edges[:, 0], edges[:, 1], ARMS[name]["color"])
        remembered = [float(np.exp(np.log(values).mean())) for values in trainings]
        panel.plot(
            places[:-1],
            remembered,
            color=ARMS[name]["color"],
            linestyle=":",
            marker=ARMS[name]["marker"],
            fillstyle="none",
            label=f"{name}, training",
        )
        rows += [
            {"arm": name, "pool": pool, "test": value, "training": kept}
            for pool, value, kept in zip([*sizes.pools, 0], middle, [*remembered, np.nan], strict=True)
        ]
    panel.set_yscale("log")
    panel.set_xticks(places, [*map(str, sizes.pools), "fresh"])
    label(panel, "few training prompts are memorised by both networks", "training prompts", "mean squared query error")
    panel.legend()
    return Drawing(figure, pd.DataFrame(rows))


def _log_ratio(errors: np.ndarray) -> np.ndarray:
    """log (causal / prefix) of errors [..., arm]."""
    return np.log(errors[..., 1] / errors[..., 0])


def _table_ratio(results: Results, domain: str, trained: str, score: int) -> np.ndarray:
    """log (causal / prefix) test error, [seed, sharing]; of networks that cannot differ, [seed, 1]."""
    task = DOMAINS.index(domain)
    if trained == "fully":
        return _log_ratio(results[trained_transformers]["errors"][:, task, :, :, score])
    if trained == "misread":
        found = results[trained_transformers]
        own, other = found["errors"][:, task, :, 1, score], found["swapped"][:, task, :, 0, score]
        return np.log(own / other)
    return _log_ratio(results[transformers_that_cannot_differ][trained][:, task, None, :, score])


CANNOT_DIFFER = [
    control("one layer, where the masks are one function of the query", trained="one_layer"),
    control("examples labelled by another prompt's weights", trained="shuffled"),
]


@TASK.claim(
    "causallm-icl/S1",
    where="Table 1, linear regression",
    kind="training",
    statement="Trained on in-context linear regression, a softmax transformer reaches a smaller query error under the prefix mask than "
    "under the causal one, by a factor of more than $1.3$ (geometric mean over shared and unshared layers).",
    controls=[*CANNOT_DIFFER, control("the prefix network, read under the causal mask", trained="misread")],
)
def prefix_is_ahead_in_regression(results: Results, trained: str = "fully") -> Evidence:
    ratio = _table_ratio(results, "linear", trained, 0).mean(1)
    return Evidence.over_seeds(ratio, ">", float(np.log(1.3)), "log ratio causal / prefix")


@TASK.claim(
    "causallm-icl/S1.N-LR",
    where="Table 1, regression through a logistic function",
    kind="training",
    statement="The same with labels passed through a centred logistic function: the prefix network is ahead (mean over shared and "
    "unshared layers).",
    controls=CANNOT_DIFFER,
)
def prefix_is_ahead_with_logistic_labels(results: Results, trained: str = "fully") -> Evidence:
    ratio = _table_ratio(results, "sigmoid", trained, 0).mean(1)
    return Evidence.over_seeds(ratio, ">", 0.05, "log ratio causal / prefix; 0.05 is 5 %")


@TASK.claim(
    "causallm-icl/S1.MC",
    where="Table 1, multiclass classification",
    kind="training",
    statement="The same with three classes: the prefix network has the smaller squared error on the one-hot labels (mean over shared "
    "and unshared layers).",
    controls=CANNOT_DIFFER[:1],
)
def prefix_is_ahead_in_classification(results: Results, trained: str = "fully") -> Evidence:
    ratio = _table_ratio(results, "classes", trained, 0).mean(1)
    return Evidence.over_seeds(ratio, ">", 0.0, "log ratio causal / prefix")


@TASK.claim(
    "causallm-icl/S2",
    where="Figure 3",
    kind="phenomenon",
    statement="The error of a linear probe falls by a larger factor from the first layer to the last in the prefix network than in "
    "the causal one (shared layers, linear regression).",
    controls=[control("the two networks exchanged", flatter="prefix")],
)
def causal_probe_flattens(results: Results, flatter: str = "causal") -> Evidence:
    gap = _log_ratio(np.moveaxis(results[trained_transformers]["probes"][:, 0], 1, -1))
    growth = gap[:, -1] - gap[:, 1] if flatter == "causal" else gap[:, 1] - gap[:, -1]
    return Evidence.over_seeds(growth, ">", 0.0, "growth of the log ratio of errors, layer 1 to the last")


@TASK.claim(
    "causallm-icl/S3",
    where="Appendix E.3, Figure 6",
    kind="phenomenon",
    statement="Trained on few prompts both networks memorise: on the training prompts the error is less than half of that on new ones.",
    controls=[control("fresh prompts at every step", fresh=True)],
)
def few_prompts_are_memorised(results: Results, fresh: bool = False) -> Evidence:
    if fresh:
        found = results[trained_transformers]
        ratio = found["seen"][:, 0, 1] / found["errors"][:, 0, 1, :, 0]
    else:
        few = results[few_prompts]
        ratio = few["training"][:, 0] / few["test"][:, 0]
    return Evidence.over_seeds(
        np.log(ratio).max(1), "<", float(np.log(0.5)), "log ratio of errors, the larger of two arms"
    )


@TASK.claim(
    "causallm-icl/S4",
    where="Appendix E.4, Tables 4 to 6",
    kind="training",
    statement="With fewer examples than in training (0.4, 0.6 and 0.8 of them) the prefix network stays ahead on linear regression "
    "(mean over the three and over shared and unshared layers).",
    controls=[control("each network read under the other's mask", masks="exchanged")],
)
def prefix_is_ahead_on_shorter_contexts(results: Results, masks: str = "own") -> Evidence:
    found = results[trained_transformers]
    errors = (
        np.swapaxes(found["by_length"][:, 0, ..., 0], -1, -2)
        if masks == "own"
        else found["swapped"][:, 0, :, None, :, 0]
    )
    return Evidence.over_seeds(_log_ratio(errors).mean((1, 2)), ">", 0.0, "log ratio causal / prefix")


@TASK.claim(
    "causallm-icl/S5",
    where="Appendix E.5, Table 7",
    kind="training",
    statement="Permuting the context of a fixed set of training prompts at every step lowers the causal network's test error by more "
    "than a tenth (the smallest set).",
    controls=[control("the prefix network, which sees no order to begin with", arm=0)],
)
def permuting_helps_causal(results: Results, arm: int = 1) -> Evidence:
    errors = results[few_prompts]["test"][:, :, arm]
    return Evidence.over_seeds(
        np.log(errors[:, -1] / errors[:, 0]), "<", float(np.log(0.9)), "log ratio permuted / plain"
    )


# %%
TASK.show(trained_errors)
TASK.show(prefix_is_ahead_in_regression)
TASK.show(prefix_is_ahead_with_logistic_labels)
TASK.show(prefix_is_ahead_in_classification)

# %% [markdown]
# ### Inside the networks, and away from their training
#
# A linear probe of every layer shows where the two part. With few training prompts both memorise; permuting the examples
# at every step shows the causal network orders it has not seen, and changes nothing for the prefix network, which has no
# positions and sees no order. (With fresh prompts at every step there is nothing to permute: independent examples are
# exchangeable already.)

# %%
TASK.show(probes_by_layer)
TASK.show(causal_probe_flattens)
TASK.show(few_prompts_error)
TASK.show(few_prompts_are_memorised)
TASK.show(prefix_is_ahead_on_shorter_contexts)
TASK.show(permuting_helps_causal)

# %% [markdown]
# ## All verdicts

# %%
TASK.show()
