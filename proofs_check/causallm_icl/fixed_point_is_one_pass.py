# ---
# jupyter:
#   jupytext:
#     comment_magics: false
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %%
from __future__ import annotations

import math

import numpy as np
import torch

from lab import Evidence, Task, control
from lab.domains.regression.causal_recursions import (
    causal_gram,
    causal_rate,
    causal_recursion,
    causal_stability_limit,
    causal_weights,
    gram,
)
from lab.domains.regression.gradient_descent import prefix_rate
from lab.domains.regression.kaczmarz import kaczmarz_path, stationary_coefficients
from lab.domains.regression.least_squares import least_squares_weights, predict
from lab.domains.regression.prompts import linear_regression
from lab.labels import LabelledArrays, labelled
from lab.results import Results
from lab.statistics import rounding_bound
from lab.streams import stream
from proofs_check.causallm_icl._shared import (
    LAYERS,
    MASKS,
    NOISE,
    PAPER,
    RATE,
    SAMPLED,
    SHAPES,
    SLUG,
    SOLVE,
    Sampled,
    coefficients_and_map,
    greatest,
    late_rate,
    longest,
    one_pass,
    pass_bound,
    place_descent,
    rate_tolerance,
    safe_step,
    sample,
    solution_bound,
    triangle,
    within,
)

TASK = Task(SLUG, PAPER, SAMPLED, root=2026)

# %% [markdown]
# ## Where the causal network goes
#
# All those weights $w_j$ are one set of numbers. Each layer adds $s (y_i - w_i \cdot x_i)$ of example $i$ to *every*
# place $j \ge i$, the same amount; so $w_j = \sum_{i \le j} a_i x_i$ with coefficients that do not depend on $j$, and
# $a \leftarrow a + s (y - a T)$, $T_{kj} = x_k \cdot x_j$ for $k \le j$. Its fixed point solves $a^* T = y$ by
# forward substitution, and $a - a^*$ is multiplied by $I - s T$ from the right. That matrix is triangular: its
# eigenvalues stand on the diagonal, $1 - s |x_j|^2$, so the step may be as long as $2 / \max_j |x_j|^2$, however many
# examples there are.


# %%


@TASK.claim(
    "causallm-icl/T4",
    where="Proposition 4",
    kind="identity",
    statement=r"$w_j^{(l)} = \sum_{i \le j} a_i^{(l)} x_i$ with coefficients that no place $j$ changes; they obey "
    r"$a^{(l)} - a^* = (a^{(l-1)} - a^*)(I - s T)$ exactly, and $a^* T = y$.",
    controls=[
        control("the whole Gram matrix instead of its upper triangle", part="full"),
        control("its lower triangle", part="lower"),
    ],
)
def causal_coefficients(results: Results, part: str = "upper") -> Evidence:
    errors, bounds = [], []
    for shape in SHAPES:
        data = sample(results.config, "T4", shape)
        x, y, step_size = data.x_context, data.y_context, safe_step(data)
        coefficients = causal_recursion(x, y, data.x_query, step=step_size, layers=LAYERS).coefficients
        target = stationary_coefficients(x, y)
        error, bound = coefficients_and_map(
            data,
            causal_gram(x),
            step_size,
            coefficients,
            target,
            place_descent(x, y, step_size=step_size, layers=LAYERS),
            causal_weights(coefficients, x),
            solution_bound(x, target),
            triangle(x, part),
        )
        errors += error
        bounds += bound
    return within(errors, bounds, "rounding of the recursion, of the definition and of the substitution")


@TASK.claim(
    "causallm-icl/T4.rate",
    where="Proposition 4",
    kind="rate",
    statement=r"The causal error shrinks by $\rho = \max_j |1 - s |x_j|^2|$ a layer in the end, and shrinks at all iff "
    r"$s < 2 / \max_j |x_j|^2$, whatever $n$ is (steps of 25 %, 95 % and 105 % of that limit).",
    controls=[
        control("a limit that is 10 % larger", limit_factor=1.1),
        control("the rate of the prefix network", rate="prefix"),
    ],
)
def causal_rate_is_diagonal(results: Results, limit_factor: float = 1.0, rate: str = "causal") -> Evidence:
    errors, bounds = [], []
    for shape in SHAPES:
        data = sample(results.config, "T4 rate", shape)
        x, y = data.x_context, data.y_context
        error = stationary_coefficients(x, y)
        for fraction in (0.25, 0.95, 1.05):
            step_size = fraction * causal_stability_limit(x)
            error_map = torch.eye(shape[1], dtype=x.dtype) - step_size[:, None, None] * causal_gram(x)
            # Both rates depend on s through sqrt(s) x only, which makes room for a step of its own in each prompt.
            expected = (causal_rate if rate == "causal" else prefix_rate)(step_size.sqrt()[:, None, None] * x, 1.0)
            measured = late_rate(error_map, error)
            stable = fraction < limit_factor
            errors.append(torch.where((measured < 1) == stable, (measured / expected).log().abs(), math.inf))
            bounds.append(rate_tolerance(error_map, error))
    return within(errors, bounds, RATE)


# %%
TASK.show(causal_coefficients)
TASK.show(causal_rate_is_diagonal)

# %% [markdown]
# ### The rate is a promise about late layers only
#
# "Converges linearly at the rate $\rho$" suggests that the error after $l$ layers is at most $\rho^l$ times the first
# one. For the prefix network that is true, because $I - s G$ is symmetric. $I - s T$ is triangular and far from
# normal: its eigenvectors are nearly parallel, and an error may first grow by many orders of magnitude. With a mean
# of 1 in each coordinate of the inputs and $s = 0.04$, eigenvalues promise a factor of about 0.6 a layer. With
# a mean of 2 and $s = 0.02$ the growth is $10^{17}$ and more: in float64 such a network never comes back at all. That
# is why no limit in this file is measured by running layers.


# %%
GROWTH_LAYERS = 60
TRANSIENT_MEANS = (0.0, 1.0)
STEP_SIZE = 0.04


@TASK.measurement(seeds=lambda config: config.draws)
def transient(config: Sampled, seed: int) -> LabelledArrays:
    r"""At s = 0.04 over 60 layers, by mean of the inputs, mask and prompt: largest $|e_l| / |e_0|$ ("growth") and
    $|e_l| / (\rho^l |e_0|)$ ("excess"), $\rho$ ("rate"), and the rounding of the excess under a symmetric map."""
    names, prompts = ("growth", "excess", "rate", "rounding"), 8
    measured = {name: np.empty((len(TRANSIENT_MEANS), len(MASKS), prompts)) for name in names}
    for row, mean in enumerate(TRANSIENT_MEANS):
        data = linear_regression(
            stream(seed, "transient", str(mean)), prompts, dimension=16, context_length=40, query_length=1, mean=mean
        )
        x = data.x_context
        for column, (matrix, symmetric) in enumerate(((gram(x), True), (causal_gram(x), False))):
            error_map = torch.eye(40, dtype=x.dtype) - STEP_SIZE * matrix
            eigenvalues = torch.linalg.eigvalsh(error_map) if symmetric else error_map.diagonal(dim1=1, dim2=2)
            rate = eigenvalues.abs().amax(-1)
            first = error = stationary_coefficients(x, data.y_context)
            growth = excess = torch.zeros(len(x), dtype=x.dtype)
            for layer in range(1, GROWTH_LAYERS + 1):
                error = (error[:, None] @ error_map)[:, 0]
                ratio = error.norm(dim=-1) / first.norm(dim=-1)
                growth = torch.maximum(growth, ratio)
                excess = torch.maximum(excess, ratio / rate**layer)
            # A layer is a chain of n + 1 operations, relative to the sum of absolute values in it; the eigenvalues
            # have an error of n roundings of the norm, which the 60th power multiplies.
            size = torch.linalg.matrix_norm(error_map) / rate
            rounding = GROWTH_LAYERS * (math.sqrt(40) * rounding_bound(41) + rounding_bound(40)) * size
            for name, values in zip(names, (growth, excess, rate, rounding), strict=True):
                measured[name][row, column] = values
    return {
        name: labelled(values, input_mean=TRANSIENT_MEANS, mask=list(MASKS), prompt=None)
        for name, values in measured.items()
    }


@TASK.claim(
    "causallm-icl/P1",
    where="derived",
    kind="phenomenon",
    statement=r"The causal rate is asymptotic only: with inputs of mean 1 a coordinate ($d = 16$, $n = 40$, $s = 0.04$), "
    r"all $|1 - s |x_j|^2|$ are below 1, and yet the error grows a thousandfold or more (geometric mean) before it shrinks.",
    controls=[control("inputs of mean zero", mean=0.0)],
)
def transient_growth(results: Results, mean: float = 1.0) -> Evidence:
    causal = results[transient].sel(input_mean=mean, mask="causal")
    # An unstable prompt would grow without showing anything: it counts as no growth.
    orders = np.log10(causal.growth).where(causal.rate < 1, 0.0)
    return Evidence.over_seeds(orders.mean("prompt"), ">=", 3.0, "three orders of magnitude; a normal map allows none")


@TASK.claim(
    "causallm-icl/P1.linear",
    where="our reading of Proposition 4, for all layers",
    kind="rate",
    statement=r"After $l$ layers the error of the causal coefficients is at most $\rho^l$ times the first one, "
    r"$\rho = \max_j |1 - s |x_j|^2|$ ($d = 16$, $n = 40$, inputs of mean 1, $s = 0.04$).",
    expected="refuted",
    condition="up to a constant, which may be huge; without one if the error map is normal, as under a prefix mask",
    controls=[control("a prefix mask, whose error map is symmetric", pattern="prefix")],
)
def linear_from_the_start(results: Results, pattern: str = "causal") -> Evidence:
    prompts = results[transient].sel(input_mean=1.0, mask=pattern).stack(every=("seed", "prompt"))
    worst = prompts.isel(every=int((prompts.excess - prompts.rounding).argmax("every")))
    return Evidence.exact(
        float(worst.excess),
        "<=",
        1 + float(worst.rounding),
        r"|e_l| / (rho^l |e_0|) <= 1 up to the rounding of 60 layers",
    )


# %%
TASK.show(transient_growth)
TASK.show(linear_from_the_start)

# %% [markdown]
# ## The heart: one pass of Kaczmarz
#
# Row $j + 1$ of $a^* T = y$ reads $a^*_{j+1} |x_{j+1}|^2 = y_{j+1} - w^*_j \cdot x_{j+1}$. Hence
#
# $$w^*_{j+1} = w^*_j + \frac{y_{j+1} - w^*_j \cdot x_{j+1}}{|x_{j+1}|^2}\, x_{j+1},$$
#
# the projection of $w^*_j$ onto the solutions of equation $j + 1$: the Kaczmarz iteration, or online gradient descent
# with the step $1 / |x|^2$, which never decays. An infinitely deep causal network looks at every example once, in
# order, and what it does for a later example it may undo for an earlier one.


# %%


@TASK.claim(
    "causallm-icl/T5",
    where="Proposition 5",
    kind="identity",
    statement=r"The stationary weights $w^*_j = \sum_{i \le j} a^*_i x_i$ of the causal network are one pass of Kaczmarz: "
    r"$w^*_{j+1} = w^*_j + (y_{j+1} - w^*_j \cdot x_{j+1})\, x_{j+1} / |x_{j+1}|^2$ from $w^*_0 = 0$.",
    controls=[
        control("half the step", relaxation=0.5),
        control("examples gone through in reverse", reverse_order=True),
    ],
)
def stationary_is_one_pass(results: Results, relaxation: float = 1.0, reverse_order: bool = False) -> Evidence:
    errors, bounds = [], []
    for shape in SHAPES:
        data = sample(results.config, "T5", shape)
        x, y = data.x_context, data.y_context
        weights = causal_weights(stationary_coefficients(x, y), x)
        order = [1] if reverse_order else []
        path = one_pass(x.flip(order), y.flip(order), relaxation=relaxation)
        places = slice(-1, None) if reverse_order else slice(None)
        errors += [longest((weights - path)[:, places]), longest((kaczmarz_path(x, y) - path)[:, places])]
        bounds += [pass_bound(x, y)] * 2
    return within(errors, bounds, SOLVE)


# %%
TASK.show(stationary_is_one_pass)

# %% [markdown]
# A projection onto the solutions of equation $j$ solves equation $j$. So *every place fits its own label exactly*,
# noise and all: the error that a deep causal network shows on its context goes to zero. The prefix network shows the
# residual of least squares there, $\sigma^2 (1 - d/n)$. Of the two, the one with the perfect context error is the one
# that answers queries worse.


# %%
@TASK.claim(
    "causallm-icl/T5b",
    where="derived",
    kind="identity",
    statement=r"At the fixed point every causal place fits its own label, $w^*_j \cdot x_j = y_j$, however noisy the labels are.",
    controls=[
        control("half the step", relaxation=0.5),
        control("least squares at every place, the prefix network's limit", pattern="prefix"),
    ],
)
def own_label_is_fitted(results: Results, relaxation: float = 1.0, pattern: str = "causal") -> Evidence:
    errors, bounds = [], []
    # At least as many examples as dimensions, or least squares would fit them all as well.
    for shape in [(d, n) for d, n in SHAPES if n > d]:
        data = sample(results.config, "T5b", shape)
        x, y = data.x_context, data.y_context
        if pattern == "prefix":
            weights = least_squares_weights(x, y)[:, None]
        else:
            weights = kaczmarz_path(x, y, relaxation=relaxation)
        errors.append(greatest((weights * x).sum(-1) - y))
        # The weights' error times the longest input, and the dot product's own chain.
        of_product = rounding_bound(shape[0] + 1) * (longest(weights) * longest(x) + greatest(y))
        bounds.append(pass_bound(x, y) * longest(x) + of_product)
    return within(errors, bounds, SOLVE)


@TASK.claim(
    "causallm-icl/T5b.residual",
    where="derived",
    kind="identity",
    statement=r"The prefix limit keeps, for every inputs and in the mean over the noise, the squared error $\sigma^2 (1 - d/n)$ on its "
    r"context ($n > d$), where the causal limit shows none.",
    controls=[
        control("degrees of freedom forgotten", fitted=0),
        control("one pass of Kaczmarz instead of least squares", pattern="causal"),
    ],
)
def prefix_keeps_residual(results: Results, fitted: int = 1, pattern: str = "prefix") -> Evidence:
    errors, bounds = [], []
    for dimension, context in [(d, n) for d, n in SHAPES if n > d]:
        x = sample(results.config, "T5b residual", (dimension, context)).x_context
        # The error is quadratic in the noise: its mean is the sum over a basis of labels, divided by n.
        rows = x.repeat_interleave(context, 0)
        labels = torch.eye(context, dtype=x.dtype).repeat(len(x), 1)
        limit = least_squares_weights(rows, labels) if pattern == "prefix" else kaczmarz_path(rows, labels)[:, -1]
        left = (labels - predict(limit, rows)).square().sum(-1).reshape(len(x), context).sum(-1) / context
        errors.append((NOISE**2 * (left - (1 - fitted * dimension / context))).abs())
        values = torch.linalg.svdvals(x)
        # Each residual, at most 1, has the error of X^+ e_j times |x|; their squares are averaged.
        of_weights = rounding_bound(context * dimension) * values[:, 0] / values[:, -1] ** 2 * longest(x)
        bounds.append(2 * NOISE**2 * (math.sqrt(context) * of_weights + rounding_bound(context + dimension)))
    return within(errors, bounds, "rounding of n pseudo-inverse solutions")


# %%
TASK.show(own_label_is_fitted)
TASK.show(prefix_keeps_residual)


# %%
TASK.show()
