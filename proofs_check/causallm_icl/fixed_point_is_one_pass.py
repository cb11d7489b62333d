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
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.regression.causal_recursions import (
    causal_gram,
    causal_recursion,
    causal_stability_limit,
    causal_weights,
    gram,
)
from lab.domains.regression.kaczmarz import kaczmarz_path, stationary_coefficients
from lab.domains.regression.least_squares import least_squares_weights, predict
from lab.domains.regression.prompts import linear_regression
from lab.labels import LabelledArrays, labelled
from lab.results import Results
from lab.statistics import rounding_bound
from lab.streams import stream
from proofs_check.causallm_icl._deviations import (
    COEFFICIENTS,
    DETERMINED,
    FRACTIONS,
    Deviations,
    Shape,
    by_name,
    late_rates,
    within_bounds,
    worst_prompts,
)
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
    longest,
    one_pass,
    pass_bound,
    place_descent,
    safe_step,
    sample,
    solution_bound,
    triangle,
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
def causal_limit(config: Sampled, shape: Shape, part: str) -> Deviations:
    """Weights of places from coefficients, their fixed point, and their error map by a part of the Gram matrix."""
    data = sample(config, "T4", shape)
    x, y, step_size = data.x_context, data.y_context, safe_step(data)
    coefficients = causal_recursion(x, y, data.x_query, step=step_size, layers=LAYERS).coefficients
    target = stationary_coefficients(x, y)
    deviations, bounds = coefficients_and_map(
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
    return by_name(COEFFICIENTS, deviations, bounds)


def causal_rates(config: Sampled, shape: Shape, limit_factor: float, rate: str) -> Deviations:
    """Late rates of the coefficients' error, from coefficients of zero."""
    data = sample(config, "T4 rate", shape)
    x, error = data.x_context, stationary_coefficients(data.x_context, data.y_context)
    return late_rates(x, causal_gram(x), error, causal_stability_limit(x), limit_factor=limit_factor, rate=rate)


@TASK.cases(
    claimed={},
    whole_gram_matrix={"part": "full"},
    lower_triangle={"part": "lower"},
    larger_limit={"limit_factor": 1.1},
    prefix_rate={"rate": "prefix"},
)
def convergence_of_the_causal_network(
    config: Sampled, *, part: str = "upper", limit_factor: float = 1.0, rate: str = "causal"
) -> LabelledArrays:
    """How far coefficients, their limit, error map and late rates lie from their laws: the worst prompt of each shape.

    Args:
        part: the part of the Gram matrix that is taken for T.
        limit_factor: how much larger the limit of stable steps is taken to be.
        rate: whose law the late rates are compared with.
    """
    return worst_prompts(
        {
            shape: {**causal_limit(config, shape, part), **causal_rates(config, shape, limit_factor, rate)}
            for shape in SHAPES
        }
    )


@TASK.claim(
    "causallm-icl/T4",
    where="Proposition 4",
    kind="identity",
    statement=r"$w_j^{(l)} = \sum_{i \le j} a_i^{(l)} x_i$ with coefficients that no place $j$ changes; they obey "
    r"$a^{(l)} - a^* = (a^{(l-1)} - a^*)(I - s T)$ exactly, and $a^* T = y$.",
    controls=[
        control("the whole Gram matrix instead of its upper triangle", case="whole_gram_matrix"),
        control("its lower triangle", case="lower_triangle"),
    ],
)
def causal_coefficients(results: Results, case: str = "claimed") -> Evidence:
    measured = results[convergence_of_the_causal_network].sel(case=case, quantity=list(COEFFICIENTS))
    return within_bounds(measured, "rounding of the recursion, of the definition and of the substitution")


@TASK.claim(
    "causallm-icl/T4.rate",
    where="Proposition 4",
    kind="rate",
    statement=r"The causal error shrinks by $\rho = \max_j |1 - s |x_j|^2|$ a layer in the end, and shrinks at all iff "
    r"$s < 2 / \max_j |x_j|^2$, whatever $n$ is (steps of 25 %, 95 % and 105 % of that limit).",
    controls=[
        control("a limit that is 10 % larger", case="larger_limit"),
        control("the rate of the prefix network", case="prefix_rate"),
    ],
)
def causal_rate_is_diagonal(results: Results, case: str = "claimed") -> Evidence:
    return within_bounds(results[convergence_of_the_causal_network].sel(case=case, quantity=list(FRACTIONS)), RATE)


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
    worst = prompts.sel(every=(prompts.excess - prompts.rounding).idxmax("every").item())
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
@TASK.cases(claimed={}, half_the_step={"relaxation": 0.5}, reverse={"reverse_order": True})
def passes_of_kaczmarz(config: Sampled, *, relaxation: float = 1.0, reverse_order: bool = False) -> LabelledArrays:
    """Stationary weights, and `kaczmarz_path`, against the pass as it is written: the worst prompt of each shape.

    Args:
        relaxation: multiplies the steps of the pass.
        reverse_order: the last example first; then only the weights after all examples are compared.
    """

    def compared(shape: Shape) -> Deviations:
        data = sample(config, "T5", shape)
        x, y = data.x_context, data.y_context
        weights = causal_weights(stationary_coefficients(x, y), x)
        order = [1] if reverse_order else []
        path = one_pass(x.flip(order), y.flip(order), relaxation=relaxation)
        places = slice(-1, None) if reverse_order else slice(None)
        bound = pass_bound(x, y)
        return {
            "stationary weights": (longest((weights - path)[:, places]), bound),
            "kaczmarz_path": (longest((kaczmarz_path(x, y) - path)[:, places]), bound),
        }

    return worst_prompts({shape: compared(shape) for shape in SHAPES})


@TASK.claim(
    "causallm-icl/T5",
    where="Proposition 5",
    kind="identity",
    statement=r"The stationary weights $w^*_j = \sum_{i \le j} a^*_i x_i$ of the causal network are one pass of Kaczmarz: "
    r"$w^*_{j+1} = w^*_j + (y_{j+1} - w^*_j \cdot x_{j+1})\, x_{j+1} / |x_{j+1}|^2$ from $w^*_0 = 0$.",
    controls=[
        control("half the step", case="half_the_step"),
        control("examples gone through in reverse", case="reverse"),
    ],
)
def stationary_is_one_pass(results: Results, case: str = "claimed") -> Evidence:
    return within_bounds(results[passes_of_kaczmarz].sel(case=case), SOLVE)


# %%
TASK.show(stationary_is_one_pass)

# %% [markdown]
# A projection onto the solutions of equation $j$ solves equation $j$. So *every place fits its own label exactly*,
# noise and all: the error that a deep causal network shows on its context goes to zero. The prefix network shows the
# residual of least squares there, $\sigma^2 (1 - d/n)$. Of the two, the one with the perfect context error is the one
# that answers queries worse.


# %%
def own_labels(config: Sampled, shape: Shape, pattern: str, relaxation: float) -> Deviations:
    """How far the limit of each place misses the label of that place."""
    data = sample(config, "T5b", shape)
    x, y = data.x_context, data.y_context
    if pattern == "prefix":
        weights = least_squares_weights(x, y)[:, None]
    else:
        weights = kaczmarz_path(x, y, relaxation=relaxation)
    # The weights' error times the longest input, and the dot product's own chain.
    of_product = rounding_bound(x.shape[2] + 1) * (longest(weights) * longest(x) + greatest(y))
    bound = pass_bound(x, y) * longest(x) + of_product
    return {"own label": (greatest((weights * x).sum(-1) - y), bound)}


def mean_square(limit: Callable[[Tensor, Tensor], Tensor], x: Tensor) -> Tensor:
    """Mean square [batch] that a limit leaves on its context of noise of variance 1.

    It is quadratic in the noise: its mean is the sum over a basis of labels, divided by n.
    """
    context = x.shape[1]
    rows = x.repeat_interleave(context, 0)
    labels = torch.eye(context, dtype=x.dtype).repeat(len(x), 1)
    squares = (labels - predict(limit(rows, labels), rows)).square().sum(-1)
    return squares.reshape(len(x), context).sum(-1) / context


def mean_residuals(config: Sampled, shape: Shape, pattern: str, relaxation: float) -> Deviations:
    """Mean squared error on the context against its law, with the degrees of freedom of the fit and without."""
    dimension, context = shape
    x = sample(config, "T5b residual", shape).x_context
    if pattern == "prefix":
        left = mean_square(least_squares_weights, x)
    else:
        left = mean_square(lambda rows, labels: kaczmarz_path(rows, labels, relaxation=relaxation)[:, -1], x)
    values = torch.linalg.svdvals(x)
    # Each residual, at most 1, has the error of X^+ e_j times |x|; their squares are averaged.
    of_weights = rounding_bound(context * dimension) * values[:, 0] / values[:, -1] ** 2 * longest(x)
    bound = 2 * NOISE**2 * (math.sqrt(context) * of_weights + rounding_bound(context + dimension))
    return {
        "mean residual": (NOISE**2 * (left - (1 - dimension / context)).abs(), bound),
        "mean residual, no freedom lost": (NOISE**2 * (left - 1).abs(), bound),
    }


@TASK.cases(causal={}, half_the_step={"relaxation": 0.5}, prefix={"pattern": "prefix"})
def errors_on_the_context(config: Sampled, *, pattern: str = "causal", relaxation: float = 1.0) -> LabelledArrays:
    """What the limits leave on their own context: the worst prompt of each shape.

    With fewer examples than dimensions least squares would fit all labels as well.

    Args:
        pattern: whose limit, "prefix" or "causal".
        relaxation: multiplies the steps of the causal one.
    """
    return worst_prompts(
        {
            shape: {
                **own_labels(config, shape, pattern, relaxation),
                **mean_residuals(config, shape, pattern, relaxation),
            }
            for shape in DETERMINED
        }
    )


@TASK.claim(
    "causallm-icl/T5b",
    where="derived",
    kind="identity",
    statement=r"At the fixed point every causal place fits its own label, $w^*_j \cdot x_j = y_j$, however noisy the labels are.",
    controls=[
        control("half the step", case="half_the_step"),
        control("least squares at every place, the prefix network's limit", case="prefix"),
    ],
)
def own_label_is_fitted(results: Results, case: str = "causal") -> Evidence:
    return within_bounds(results[errors_on_the_context].sel(case=case, quantity="own label"), SOLVE)


@TASK.claim(
    "causallm-icl/T5b.residual",
    where="derived",
    kind="identity",
    statement=r"The prefix limit keeps, for every inputs and in the mean over the noise, the squared error $\sigma^2 (1 - d/n)$ on its "
    r"context ($n > d$), where the causal limit shows none.",
    controls=[
        control("degrees of freedom forgotten", quantity="mean residual, no freedom lost"),
        control("one pass of Kaczmarz instead of least squares", case="causal"),
    ],
)
def prefix_keeps_residual(results: Results, quantity: str = "mean residual", case: str = "prefix") -> Evidence:
    measured = results[errors_on_the_context].sel(case=case, quantity=quantity)
    return within_bounds(measured, "rounding of n pseudo-inverse solutions")


# %%
TASK.show(own_label_is_fitted)
TASK.show(prefix_keeps_residual)


# %%
TASK.show()
