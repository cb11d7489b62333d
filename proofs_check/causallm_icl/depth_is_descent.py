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

import torch
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.regression.causal_recursions import causal_rate, gram
from lab.domains.regression.gradient_descent import gradient_descent_path, prefix_rate, stability_limit
from lab.domains.regression.least_squares import least_squares_weights, predict, ridge_weights
from lab.domains.regression.linear_attention import gradient_descent_network, label_slots
from lab.domains.regression.prompts import tokens
from lab.results import Results
from lab.statistics import rounding_bound
from lab.streams import stream
from proofs_check.causallm_icl._shared import (
    LAYERS,
    MASKS,
    PAPER,
    PRESETS,
    RATE,
    ROUNDING,
    SHAPES,
    SLUG,
    gap,
    greatest,
    late_rate,
    layers_bound,
    longest,
    place_descent,
    pseudo_inverse_bound,
    rate_tolerance,
    safe_step,
    sample,
    slots_of,
    within,
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
@TASK.claim(
    "causallm-icl/T1",
    where="Proposition 1",
    kind="construction",
    statement=r"Under the prefix mask, $l$ layers of linear attention hold $\delta_j = y_j - w^{(l)} \cdot x_j$ at each example and "
    r"$-w^{(l)} \cdot x_q$ at each query, with $w^{(l)} = w^{(l-1)} + s X^\top (y - X w^{(l-1)})$, $w^{(0)} = 0$.",
    controls=[
        control("the same network under a causal mask", pattern="causal"),
        control("a step 1.1 times as long in the network", step_factor=1.1),
    ],
)
def prefix_descends(results: Results, pattern: str = "prefix", step_factor: float = 1.0) -> Evidence:
    errors, bounds = [], []
    for dimension, context in SHAPES:
        data = sample(results.config, "T1", (dimension, context))
        step_size, queries = safe_step(data), data.x_query.shape[1]
        path = gradient_descent_path(data.x_context, data.y_context, step=step_size, steps=LAYERS)
        expected = slots_of(path[:, :, None], data)
        bound = layers_bound(data, MASKS["prefix"](context, queries), step_size, LAYERS, path)
        for form in ("factored", "merged"):
            network = gradient_descent_network(dimension, LAYERS, step=step_size * step_factor, attention_matrices=form)
            slots = label_slots(network, tokens(data), MASKS[pattern](context, queries))
            errors.append(gap(slots, expected))
            bounds.append(bound)
    return within(errors, bounds, ROUNDING)


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
        control("the network under a prefix mask", pattern="prefix"),
        control("weights that follow all examples", all_examples=True),
        control("residuals measured with the weights of place j instead of place i", own_residuals=True),
    ],
)
def causal_descends(
    results: Results, pattern: str = "causal", all_examples: bool = False, own_residuals: bool = False
) -> Evidence:
    errors, bounds = [], []
    for dimension, context in SHAPES:
        data = sample(results.config, "T2", (dimension, context))
        step_size, queries = safe_step(data), data.x_query.shape[1]
        path = place_descent(
            data.x_context,
            data.y_context,
            step_size=step_size,
            layers=LAYERS,
            all_examples=all_examples,
            own_residuals=own_residuals,
        )
        bound = layers_bound(data, MASKS["causal"](context, queries), step_size, LAYERS, path)
        for form in ("factored", "merged"):
            network = gradient_descent_network(dimension, LAYERS, step=step_size, attention_matrices=form)
            slots = label_slots(network, tokens(data), MASKS[pattern](context, queries))
            errors.append(gap(slots, slots_of(path, data)))
            bounds.append(bound)
    return within(errors, bounds, ROUNDING)


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
        control("weights that start at zero", from_zero=True),
        control(r"a query that does not add $w_0 \cdot x_q$", read_out=False),
    ],
)
def other_starts(results: Results, from_zero: bool = False, read_out: bool = True) -> Evidence:
    errors, bounds = [], []
    for pattern, mask in MASKS.items():
        for dimension, context in SHAPES:
            data = sample(results.config, "T6", (dimension, context))
            step_size, queries = safe_step(data), data.x_query.shape[1]
            initial = torch.from_numpy(stream(0, "T6", "initial").rng().standard_normal(dimension))
            network = gradient_descent_network(dimension, LAYERS, step=step_size, initial=initial)
            slots = label_slots(network, tokens(data), mask(context, queries))
            path = place_descent(
                data.x_context,
                data.y_context,
                step_size=step_size,
                layers=LAYERS,
                initial=0 * initial if from_zero else initial,
                all_examples=pattern == "prefix",
            )
            expected = slots_of(path, data, initial)
            answers = (data.x_query @ path[:, :, -1, :, None])[..., 0]
            added = data.x_query @ initial if read_out else 0
            errors.append(torch.maximum(gap(slots, expected), gap(added - slots[..., context:], answers)))
            bounds.append(layers_bound(data, mask(context, queries), step_size, LAYERS, path))
    return within(errors, bounds, ROUNDING)


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


@TASK.claim(
    "causallm-icl/T3",
    where="Proposition 3",
    kind="identity",
    statement=r"$w^* = X^+ y$ is a fixed point of the prefix network, lies in the span of the examples, and is approached by "
    r"$w^{(l)} - w^* = (w^{(l-1)} - w^*)(I - s A)$ exactly: the limit from zero is least squares, of least norm if $n < d$.",
    controls=[
        control("ridge regression instead of least squares", penalty=0.1),
        control("an error map with 1.1 times the step", step_factor=1.1),
    ],
)
def prefix_limit(results: Results, penalty: float = 0.0, step_factor: float = 1.0) -> Evidence:
    errors: list[Tensor] = []
    bounds: list[Tensor] = []
    for shape in SHAPES:
        data = sample(results.config, "T3", shape)
        x, y, step_size = data.x_context, data.y_context, safe_step(data)
        target = ridge_weights(x, y, penalty) if penalty else least_squares_weights(x, y)
        of_target = pseudo_inverse_bound(x, y)
        path = gradient_descent_path(x, y, step=step_size, steps=LAYERS)
        # Fixed point: what a step adds to it.
        errors.append((step_size * predict(y - predict(target, x), x.mT)).norm(dim=-1))
        # In the span of the examples: what the projector X^+ X takes off.
        errors.append((target - predict(predict(target, x), torch.linalg.pinv(x))).norm(dim=-1))
        # The error map, applied to the first error instead of taking steps.
        error_map = torch.eye(shape[0], dtype=x.dtype) - step_factor * step_size * x.mT @ x
        left = torch.stack(
            [predict(-target, torch.linalg.matrix_power(error_map, layer)) for layer in range(LAYERS + 1)]
        )
        errors.append((path - target - left).norm(dim=-1).amax(0))
        # A step and a product are chains of n + d operations on |w| + s n r (|y| + |w| r); no error grows.
        reach, size = longest(x), longest(path, 1) + target.norm(dim=-1)
        size = size + step_size * shape[1] * reach * (greatest(y) + size * reach)
        arithmetic = 2 * LAYERS * math.sqrt(shape[0]) * rounding_bound(sum(shape) + 3) * size
        # The target's own error is in the fixed point (times s A <= 1), twice in the projector (pinv again), twice in the map.
        bounds += [2 * of_target + arithmetic] * 3
    return within(errors, bounds, "rounding of X^+ y (n d operations, times the condition number) and of 8 steps")


@TASK.claim(
    "causallm-icl/T3.rate",
    where="Proposition 3",
    kind="rate",
    statement=r"The prefix error shrinks by $\rho = \max_k |1 - s \lambda_k(A)|$ a layer in the end, over the non-zero eigenvalues, and "
    r"shrinks at all iff $s < 2 / \lambda_{\max}(A)$ (steps of 25 %, 95 % and 105 % of that limit).",
    controls=[
        control("a limit that is 10 % larger", limit_factor=1.1),
        control("the rate of the causal network", rate="causal"),
    ],
)
def prefix_rate_is_spectral(results: Results, limit_factor: float = 1.0, rate: str = "prefix") -> Evidence:
    errors, bounds = [], []
    for shape in SHAPES:
        data = sample(results.config, "T3 rate", shape)
        x, y = data.x_context, data.y_context
        # In the span of the examples: coordinates of the smaller Gram matrix, whose eigenvalues are the non-zero ones.
        many = shape[1] >= shape[0]
        matrix = x.mT @ x if many else gram(x)
        error = least_squares_weights(x, y) if many else torch.linalg.solve(matrix, y)
        for fraction in (0.25, 0.95, 1.05):
            step_size = fraction * stability_limit(x)
            error_map = torch.eye(min(shape), dtype=x.dtype) - step_size[:, None, None] * matrix
            # Both rates depend on s through sqrt(s) x only, which makes room for a step of its own in each prompt.
            expected = (prefix_rate if rate == "prefix" else causal_rate)(step_size.sqrt()[:, None, None] * x, 1.0)
            measured = late_rate(error_map, error)
            stable = fraction < limit_factor
            errors.append(torch.where((measured < 1) == stable, (measured / expected).log().abs(), math.inf))
            bounds.append(rate_tolerance(error_map, error))
    return within(errors, bounds, RATE)


# %%
TASK.show(prefix_limit)
TASK.show(prefix_rate_is_spectral)


# %%
TASK.show()
