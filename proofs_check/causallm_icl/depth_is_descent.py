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
# # What a mask makes of linear attention: gradient descent, or one pass of Kaczmarz
#
# Show a network $n$ examples $(x_j, y_j)$ and then a query $x_q$. Its tokens are $(x_j, y_j)$ and $(x_q, 0)$, its
# layers are linear attention (no softmax, no norm, no MLP), and the weights of all layers are the same and known.
# Only the mask is free. Under a **prefix mask** the examples see one another; under a **causal mask** example $j$
# sees the examples $i \le j$. Queries see all examples, and neither themselves nor one another, in both.
#
# This file proves, without training anything, what the two networks compute with depth:
#
# * prefix: batch gradient descent, whose limit is least squares;
# * causal: a gradient descent *of its own for every place*, whose limit is **one** pass of the Kaczmarz iteration over the
#   examples, in the order in which they stand;
# * and what that costs: the expected error of the limit, for any number of examples, mean of the inputs and noise.
#
# Three sentences are often read out of this that are false as they stand; they are here too, refuted, each with the
# condition under which it is true.
#
# Everything is in float64. An identity is allowed the rounding error of the arithmetic behind it and no more. A layer
# of $T$ tokens of width $d + 1$ is a chain of at most $2(d + 1) + T + 3$ roundings; an error made in one layer passes
# through the later ones as the true residuals do, that is, through powers of the layer's matrix $E$; so that $L$
# layers may leave $\gamma \sqrt T \sum_{l < L} \lVert E^l \rVert$ times the largest number met, and the sum is
# computed for each prompt. Limits are slots by substitution, never by running many layers: why is shown under P1.

# %%
from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.regression.causal_recursions import gram
from lab.domains.regression.gradient_descent import gradient_descent_path, stability_limit
from lab.domains.regression.least_squares import least_squares_weights, predict, ridge_weights
from lab.domains.regression.linear_attention import gradient_descent_network, label_slots
from lab.domains.regression.prompts import RegressionPrompts, tokens
from lab.labels import LabelledArrays
from lab.models.transformer import Transformer
from lab.results import Results
from lab.statistics import rounding_bound
from lab.streams import stream
from proofs_check.causallm_icl._deviations import (
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
    PAPER,
    PRESETS,
    RATE,
    ROUNDING,
    SHAPES,
    SLUG,
    Config,
    gap,
    greatest,
    layers_bound,
    longest,
    place_descent,
    pseudo_inverse_bound,
    safe_step,
    sample,
    slots_of,
)

TASK = Task(SLUG, PAPER, PRESETS)

# %% [markdown]
# ## One layer, one step
#
# With $K = Q = \mathrm{diag}(I, 0)$, $V = -e_{d+1} e_{d+1}^\top$ and $P = s I$ a layer leaves the inputs alone and
# changes the label slot by $\delta_j \leftarrow \delta_j - s \sum_i \delta_i\, x_i \cdot x_j$, the sum over the
# examples $i$ that $j$ sees.
#
# **Prefix.** Put $\delta_j = y_j - w \cdot x_j$. Then the new slot is $y_j - (w + s \sum_i (y_i - w \cdot x_i) x_i)
# \cdot x_j$: the same form, with $w$ after one step of gradient descent on $\frac12 \lVert y - X w \rVert^2$. Since
# it starts at $w = 0$ ($\delta_j = y_j$), depth counts steps. The query's slot starts at 0 instead of $y_q$ and so
# holds $-w \cdot x_q$.
#
# The network below is the lab's ordinary transformer, with these matrices and the mask loaded into it, once with $Q,
# K, V, P$ and once with the two products that matter.


# %%
def weights_by(rule: str, data: RegressionPrompts, step_size: float, initial: Tensor) -> Tensor:
    """Weights of all layers [depth, batch, place, dimension], with one place where all share them.

    Args:
        rule: "batch" for gradient descent on all examples from zero; else weights of each place from ``initial``, by
            the examples up to it ("visible"), by "all examples", or by "own residuals" of the place.
    """
    x, y = data.x_context, data.y_context
    if rule == "batch":
        return gradient_descent_path(x, y, step=step_size, steps=LAYERS)[:, :, None]
    return place_descent(
        x,
        y,
        step_size=step_size,
        layers=LAYERS,
        initial=initial,
        all_examples=rule == "all examples",
        own_residuals=rule == "own residuals",
    )


FORMS = {"slots, four matrices": "factored", "slots, two products": "merged"}


def slots_against_weights(
    network: Callable[..., Transformer], data: RegressionPrompts, mask: Tensor, path: Tensor, initial: Tensor
) -> dict[str, Tensor]:
    """Largest difference [batch] of label slots, in both forms of the network, and of answers, from those of weights.

    Args:
        network: ``(attention_matrices=...) -> Transformer``.
        path: weights of all layers [depth, batch, place, dimension].
        initial: $w_0$ of the network.
    """
    slots = {name: label_slots(network(attention_matrices=form), tokens(data), mask) for name, form in FORMS.items()}
    expected, answers = slots_of(path, data, initial), (data.x_query @ path[:, :, -1, :, None])[..., 0]
    at_queries = slots["slots, four matrices"][..., data.x_context.shape[1] :]
    return {
        **{name: gap(values, expected) for name, values in slots.items()},
        "answers": gap(data.x_query @ initial - at_queries, answers),
        "answers without w_0": gap(-at_queries, answers),
    }


T1 = {"prompts": "T1", "pattern": "prefix", "weights": "batch"}
T2 = {"prompts": "T2", "pattern": "causal", "weights": "visible"}
RULES = {"prefix": "all examples", "causal": "visible"}
COMPARISONS: Mapping[str, Mapping[str, Any]] = {
    "T1": T1,
    "T1, causal mask": {**T1, "mask": "causal"},
    "T1, longer step": {**T1, "step_factor": 1.1},
    "T2": T2,
    "T2, prefix mask": {**T2, "mask": "prefix"},
    "T2, all examples": {**T2, "weights": "all examples"},
    "T2, own residuals": {**T2, "weights": "own residuals"},
    **{
        f"T6, {pattern}, weights from {start}": {
            "prompts": "T6",
            "pattern": pattern,
            "weights": RULES[pattern],
            "network_from": "w_0",
            "weights_from": start,
        }
        for pattern in MASKS
        for start in ("w_0", "zero")
    },
}


@TASK.cases(**COMPARISONS)
def slots_of_the_network(
    config: Config,
    *,
    prompts: str,
    pattern: str,
    weights: str,
    mask: str = "",
    step_factor: float = 1.0,
    network_from: str = "zero",
    weights_from: str = "zero",
) -> LabelledArrays:
    """Label slots and answers of the network against the same numbers from weights: the worst prompt of each shape.

    Args:
        prompts: name of the stream that draws the prompts.
        pattern: the mask that the sentence is about; the bounds are for it.
        weights: the rule of `weights_by`.
        mask: the one that the network runs under, if it is another.
        step_factor: how much longer the network's step is than that of the weights.
        network_from, weights_from: the starting point of each, "zero" or "w_0".
    """
    by_shape = {}
    for dimension, context in SHAPES:
        data = sample(config, prompts, (dimension, context))
        step_size, queries = safe_step(data), data.x_query.shape[1]
        drawn = torch.from_numpy(stream(0, "T6", "initial").rng().standard_normal(dimension))
        starts = {"zero": 0 * drawn, "w_0": drawn}
        initial = starts[network_from]
        network = partial(gradient_descent_network, dimension, LAYERS, step=step_size * step_factor, initial=initial)
        path = weights_by(weights, data, step_size, starts[weights_from])
        used = MASKS[mask or pattern](context, queries)
        bound = layers_bound(data, MASKS[pattern](context, queries), step_size, LAYERS, path)
        deviations = slots_against_weights(network, data, used, path, initial)
        by_shape[dimension, context] = {name: (deviation, bound) for name, deviation in deviations.items()}
    return worst_prompts(by_shape)


@TASK.claim(
    "causallm-icl/T1",
    where="Proposition 1",
    kind="construction",
    statement=r"Under the prefix mask, $l$ layers of linear attention hold $\delta_j = y_j - w^{(l)} \cdot x_j$ at each example and "
    r"$-w^{(l)} \cdot x_q$ at each query, with $w^{(l)} = w^{(l-1)} + s X^\top (y - X w^{(l-1)})$, $w^{(0)} = 0$.",
    controls=[
        control("the same network under a causal mask", case="T1, causal mask"),
        control("a step 1.1 times as long in the network", case="T1, longer step"),
    ],
)
def prefix_descends(results: Results, case: str = "T1") -> Evidence:
    return within_bounds(results[slots_of_the_network].sel(case=case, quantity=list(FORMS)), ROUNDING)


# %%
TASK.show(prefix_descends)

# %% [markdown]
# **Causal.** The same substitution works at every place by itself: $\delta_j = y_j - w_j \cdot x_j$, where $w_j$ now
# moves by the examples up to $j$ only. Note whose residuals it moves by: those of the places *$i$ themselves*, $y_i -
# w_i \cdot x_i$, each measured with the weights that place $i$ has got so far. No place runs gradient descent on its
# own data.


# %%
@TASK.claim(
    "causallm-icl/T2",
    where="Proposition 2",
    kind="construction",
    statement=r"Under the causal mask the same network holds $\delta_j = y_j - w_j^{(l)} \cdot x_j$ with weights of its own at each "
    r"place, $w_j^{(l)} = w_j^{(l-1)} + s \sum_{i \le j} (y_i - w_i^{(l-1)} \cdot x_i)\, x_i$, and $-w_n^{(l)} \cdot x_q$ at each query.",
    controls=[
        control("the network under a prefix mask", case="T2, prefix mask"),
        control("weights that follow all examples", case="T2, all examples"),
        control("residuals measured with the weights of place j instead of place i", case="T2, own residuals"),
    ],
)
def causal_descends(results: Results, case: str = "T2") -> Evidence:
    return within_bounds(results[slots_of_the_network].sel(case=case, quantity=list(FORMS)), ROUNDING)


# %%
TASK.show(causal_descends)

# %% [markdown]
# **Other starting points.** Write $w_0^\top$ into the corner of $V$ and every value becomes $w_0 \cdot x_i -
# \delta_i$. The slots are then $\delta_j = y_j - (w_j - w_0) \cdot x_j$, with $w$ starting at $w_0$; a query must add
# $w_0 \cdot x_q$ itself. (The printed proof says that fitted values start at zero; by its own definition they start
# at $w_0 \cdot x_j$. The statement is right.)


# %%
@TASK.claim(
    "causallm-icl/T6",
    where="Proposition 6",
    kind="construction",
    statement=r"With $w_0$ in the value matrix, $\delta_j = y_j - (w_j^{(l)} - w_0) \cdot x_j$ with $w^{(0)} = w_0$, and the prediction is "
    r"$w_0 \cdot x_q - \delta_q = w_n^{(l)} \cdot x_q$, under both masks.",
    controls=[
        control("weights that start at zero", start="zero"),
        control(r"a query that does not add $w_0 \cdot x_q$", answers="answers without w_0"),
    ],
)
def other_starts(results: Results, start: str = "w_0", answers: str = "answers") -> Evidence:
    measured = results[slots_of_the_network].sel(
        case=[f"T6, {pattern}, weights from {start}" for pattern in MASKS], quantity=["slots, four matrices", answers]
    )
    return within_bounds(measured, ROUNDING)


# %%
TASK.show(other_starts)

# %% [markdown]
# ## Where the prefix network goes
#
# Subtract any solution $w^*$ of the normal equations $X^\top X w^* = X^\top y$ from a step: $w^{(l)} - w^* = (I - s
# A)(w^{(l-1)} - w^*)$ with $A = X^\top X$. Along an eigenvector of $A$ with eigenvalue $\lambda > 0$ the distance
# shrinks by $1 - s \lambda$; along the null space nothing ever moves. From $w^{(0)} = 0$ the path stays in the span
# of the examples, so its limit is the solution in that span: the minimum-norm one, $X^+ y$, also when there are fewer
# examples than dimensions.


# %%
LIMIT = ("fixed point", "span of the examples", "error map")


def limit_of_descent(config: Config, shape: Shape, penalty: float, step_factor: float) -> Deviations:
    """What a step adds to the limit, how far it leaves the span of the examples, and the path from its error map."""
    data = sample(config, "T3", shape)
    x, y, step_size = data.x_context, data.y_context, safe_step(data)
    target = ridge_weights(x, y, penalty) if penalty else least_squares_weights(x, y)
    path = gradient_descent_path(x, y, step=step_size, steps=LAYERS)
    added = (step_size * predict(y - predict(target, x), x.mT)).norm(dim=-1)
    # In the span of the examples: what the projector X^+ X takes off.
    outside = (target - predict(predict(target, x), torch.linalg.pinv(x))).norm(dim=-1)
    # The error map, applied to the first error instead of taking steps.
    error_map = torch.eye(x.shape[-1], dtype=x.dtype) - step_factor * step_size * x.mT @ x
    left = torch.stack([predict(-target, torch.linalg.matrix_power(error_map, layer)) for layer in range(LAYERS + 1)])
    # A step and a product are chains of n + d operations on |w| + s n r (|y| + |w| r); no error grows.
    reach, size = longest(x), longest(path, 1) + target.norm(dim=-1)
    size = size + step_size * x.shape[1] * reach * (greatest(y) + size * reach)
    arithmetic = 2 * LAYERS * math.sqrt(x.shape[2]) * rounding_bound(sum(shape) + 3) * size
    # The target's own error is in the fixed point (times s A <= 1), twice in the projector (pinv again), twice in
    # the map.
    bound = 2 * pseudo_inverse_bound(x, y) + arithmetic
    return by_name(LIMIT, (added, outside, (path - target - left).norm(dim=-1).amax(0)), [bound] * len(LIMIT))


def rate_of_descent(config: Config, shape: Shape, limit_factor: float, rate: str) -> Deviations:
    """Late rates in the span of the examples.

    In coordinates of the smaller Gram matrix, whose eigenvalues are the non-zero ones.
    """
    data = sample(config, "T3 rate", shape)
    x, y = data.x_context, data.y_context
    many = x.shape[1] >= x.shape[2]
    matrix = x.mT @ x if many else gram(x)
    error = least_squares_weights(x, y) if many else torch.linalg.solve(matrix, y)
    return late_rates(x, matrix, error, stability_limit(x), limit_factor=limit_factor, rate=rate)


CONVERGENCE: Mapping[str, Mapping[str, Any]] = {
    "claimed": {},
    "ridge": {"penalty": 0.1},
    "longer step in the error map": {"step_factor": 1.1},
    "larger limit": {"limit_factor": 1.1},
    "causal rate": {"rate": "causal"},
}


@TASK.cases(**CONVERGENCE)
def convergence_of_the_prefix_network(
    config: Config, *, penalty: float = 0.0, step_factor: float = 1.0, limit_factor: float = 1.0, rate: str = "prefix"
) -> LabelledArrays:
    """How far the prefix network's limit, error map and late rates lie from their laws: the worst prompt of each shape.

    Args:
        penalty: of the ridge regression that is taken for the limit.
        step_factor: how much longer the step of the error map is.
        limit_factor: how much larger the limit of stable steps is taken to be.
        rate: whose law the late rates are compared with.
    """
    return worst_prompts(
        {
            shape: {
                **limit_of_descent(config, shape, penalty, step_factor),
                **rate_of_descent(config, shape, limit_factor, rate),
            }
            for shape in SHAPES
        }
    )


@TASK.claim(
    "causallm-icl/T3",
    where="Proposition 3",
    kind="identity",
    statement=r"$w^* = X^+ y$ is a fixed point of the prefix network, lies in the span of the examples, and is approached by "
    r"$w^{(l)} - w^* = (w^{(l-1)} - w^*)(I - s A)$ exactly: the limit from zero is least squares, of least norm if $n < d$.",
    controls=[
        control("ridge regression instead of least squares", case="ridge"),
        control("an error map with 1.1 times the step", case="longer step in the error map"),
    ],
)
def prefix_limit(results: Results, case: str = "claimed") -> Evidence:
    measured = results[convergence_of_the_prefix_network].sel(case=case, quantity=list(LIMIT))
    return within_bounds(measured, "rounding of X^+ y (n d operations, times the condition number) and of 8 steps")


@TASK.claim(
    "causallm-icl/T3.rate",
    where="Proposition 3",
    kind="rate",
    statement=r"The prefix error shrinks by $\rho = \max_k |1 - s \lambda_k(A)|$ a layer in the end, over the non-zero eigenvalues, and "
    r"shrinks at all iff $s < 2 / \lambda_{\max}(A)$ (steps of 25 %, 95 % and 105 % of that limit).",
    controls=[
        control("a limit that is 10 % larger", case="larger limit"),
        control("the rate of the causal network", case="causal rate"),
    ],
)
def prefix_rate_is_spectral(results: Results, case: str = "claimed") -> Evidence:
    return within_bounds(results[convergence_of_the_prefix_network].sel(case=case, quantity=list(FRACTIONS)), RATE)


# %%
TASK.show(prefix_limit)
TASK.show(prefix_rate_is_spectral)


# %%
TASK.show()
