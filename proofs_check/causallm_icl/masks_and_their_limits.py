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

import torch
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.regression.gradient_descent import gradient_descent_path, gram_eigenvalues, prefix_rate
from lab.domains.regression.least_squares import least_squares_weights, predict
from lab.domains.regression.linear_attention import gradient_descent_network, label_slots, network_predictor
from lab.domains.regression.prompts import RegressionPrompts, permute_context, random_orders, tokens
from lab.models import masks
from lab.models.transformer import Architecture, Transformer
from lab.results import Results
from lab.statistics import rounding_bound
from lab.streams import stream
from proofs_check.causallm_icl._shared import (
    LAYERS,
    MASKS,
    PAPER,
    PRESETS,
    ROUNDING,
    SHAPES,
    SLUG,
    gap,
    greatest,
    layers_bound,
    longest,
    place_descent,
    pseudo_inverse_bound,
    safe_step,
    sample,
    within,
)

TASK = Task(SLUG, PAPER, PRESETS)

# %% [markdown]
# ## What the mask cannot change, and what it must not leave out
#
# In the first layer keys and values are the tokens themselves, and queries see the same ones under both masks. So a
# network of *one* layer gives the very same answers under both, to the last bit, whatever its weights and its kind of
# attention. The masks can only part from the second layer on.


# %%
@TASK.claim(
    "causallm-icl/I1",
    where="derived",
    kind="identity",
    statement=r"Outputs at the queries of a one-layer transformer are bit for bit the same under both masks, for softmax, "
    r"radial and linear attention and random weights.",
    controls=[control("two layers", layers=2), control("outputs at the examples", at_queries=False)],
)
def one_layer_is_blind(results: Results, layers: int = 1, at_queries: bool = True) -> Evidence:
    dimension, context = 3, 12
    data = sample(results.config, "I1", (dimension, context))
    worst = []
    for attention in ("softmax", "kernel", "linear"):
        architecture = Architecture(
            width=8, layers=layers, heads=2, input_size=dimension + 1, output_size=1, attention=attention
        )
        network = Transformer(architecture, range(4), torch.float64)
        with torch.no_grad():
            prefix, causal = (
                network(tokens(data)[None], mask(context, data.x_query.shape[1])) for mask in MASKS.values()
            )
        places = slice(context, None) if at_queries else slice(context)
        worst.append(float((prefix - causal)[:, :, places].abs().max()))
    return Evidence.exact(max(worst), "<=", 0.0, "the same operations on the same numbers")


@TASK.claim(
    "causallm-icl/I2",
    where="derived",
    kind="identity",
    statement=r"Permuting the examples leaves the answers of the prefix network as they are.",
    controls=[control("a causal mask", pattern="causal")],
)
def prefix_ignores_order(results: Results, pattern: str = "prefix") -> Evidence:
    errors, bounds = [], []
    for dimension, context in SHAPES:
        data = sample(results.config, "I2", (dimension, context))
        step_size = safe_step(data)
        order = random_orders(stream(0, "I2", "orders", context), 1, context)[0]
        shuffled = permute_context(data, order)
        answer = network_predictor(gradient_descent_network(dimension, LAYERS, step=step_size), MASKS[pattern])
        first, second = (answer(shown.x_context, shown.y_context, shown.x_query) for shown in (data, shuffled))
        errors.append(greatest(first - second))
        path = gradient_descent_path(data.x_context, data.y_context, step=step_size, steps=LAYERS)
        mask = MASKS["prefix"](context, data.x_query.shape[1])
        bounds.append(layers_bound(data, mask, step_size, LAYERS, path))
    return within(errors, bounds, ROUNDING)


# %%
TASK.show(one_layer_is_blind)
TASK.show(prefix_ignores_order)

# %% [markdown]
# Queries must not see themselves. A query's slot enters as label 0; if it sees itself, it takes that label at its
# word. The first layer is not affected, since $\delta_q = 0$ adds nothing. But then $\delta_q \leftarrow (1 - s
# |x_q|^2) \delta_q - s \sum_i \delta_i\, x_i \cdot x_q$: as the examples are fitted ($\delta_i \to 0$, no noise), the
# answer is forgotten. With $\rho$ the rate of the examples and $\rho_q = |1 - s |x_q|^2|$, unrolling gives
# $|\delta_q| \le s |x_q| \lambda_{\max} |w|\, L \max(\rho, \rho_q)^{L-1}$ after $L$ layers: a deep network predicts
# 0.
#
# If the examples see the query too, the pair $(x_q, 0)$ is simply one more example, and the limit is least squares
# with it: $(1 - h)\, w \cdot x_q$ with the leverage $h = x_q^\top (A + x_q x_q^\top)^{-1} x_q$.


# %%
def self_seeing(context: int, queries: int) -> Tensor:
    """The prefix mask, with queries that see themselves."""
    return masks.in_context_prefix(context, queries) | torch.eye(context + queries, dtype=torch.bool)


@TASK.claim(
    "causallm-icl/I3",
    where="footnote 2",
    kind="identity",
    statement=r"If queries see themselves, the first layer answers as before and the answers of $L$ layers are at most "
    r"$s |x_q| \lambda_{\max} |w| L \max(\rho, \rho_q)^{L-1}$ on noise-free labels: they decay to 0.",
    controls=[control("queries that do not see themselves", sees_itself=False)],
)
def self_attention_forgets(results: Results, sees_itself: bool = True) -> Evidence:
    dimension, context, layers = 4, 20, 200
    data = sample(results.config, "I3", (dimension, context), noise=0.0)
    x, queries, step_size = data.x_context, data.x_query.shape[1], safe_step(data)
    network = gradient_descent_network(dimension, layers, step=step_size)
    mask = self_seeing if sees_itself else MASKS["prefix"]
    answers, proper = (
        label_slots(network, tokens(data), pattern(context, queries))[..., context:]
        for pattern in (mask, MASKS["prefix"])
    )
    lengths = data.x_query.norm(dim=-1)
    rate = torch.maximum(prefix_rate(x, step_size)[:, None], (1 - step_size * lengths**2).abs())
    strength = step_size * gram_eigenvalues(x)[:, 0] * data.weights.norm(dim=-1)
    bound = strength[:, None] * lengths * layers * rate ** (layers - 1)
    # The limit is 0 plus what rounding leaves: a layer's error fades at the same rate, a geometric sum.
    operations = 2 * (dimension + 1) + context + queries + 3
    size = greatest(data.y_context) * (1 + step_size * context * longest(x) * lengths.amax(-1))
    left = rounding_bound(operations) * math.sqrt(context + 1) * size[:, None] / (1 - rate) ** 2
    # To the last bit in the first layer, where the query's slot of 0 adds nothing.
    forgotten = torch.where(answers[1] == proper[1], answers[-1].abs(), math.inf)
    return within([forgotten.flatten()], [(bound + left).flatten()], "the unrolled recursion")


@TASK.claim(
    "causallm-icl/I3.full",
    where="derived",
    kind="identity",
    statement=r"If all tokens see all tokens, the query is one more example with label 0: the network descends on the $n + 1$ "
    r"pairs, and its noise-free limit is $(1 - h)\, w \cdot x_q$ with $h = x_q^\top (A + x_q x_q^\top)^{-1} x_q$.",
    controls=[
        control("examples that do not see the query", pattern="self"),
        control("the query's pair left out", leverage=False),
    ],
)
def query_is_an_example(results: Results, pattern: str = "full", leverage: bool = True) -> Evidence:
    errors, bounds = [], []
    for dimension, context in [(d, n) for d, n in SHAPES if n > d]:
        data = sample(results.config, "I3 full", (dimension, context), noise=0.0)
        query = data.x_query[:, :1]
        single = RegressionPrompts(data.x_context, data.y_context, query, data.y_query[:, :1], data.weights)
        x = torch.cat([data.x_context, query], dim=1)
        y = torch.cat([data.y_context, torch.zeros_like(data.y_query[:, :1])], dim=1)
        step_size = 1 / float(gram_eigenvalues(x).max())
        path = gradient_descent_path(x, y, step=step_size, steps=LAYERS)
        network = gradient_descent_network(dimension, LAYERS, step=step_size)
        full = masks.full(context + 1)
        mask = full if pattern == "full" else self_seeing(context, 1)
        slots = label_slots(network, tokens(single), mask)
        errors.append(gap(slots, y - (x @ path[..., None])[..., 0]))
        bounds.append(layers_bound(single, full, step_size, LAYERS, path))
        limit = predict(least_squares_weights(x, y), query)[:, 0]
        solved = torch.linalg.solve(x.mT @ x, query[:, 0, :, None])[..., 0]
        kept = 1 - (solved * query[:, 0]).sum(-1) if leverage else 1.0
        errors.append((limit - kept * single.y_query[:, 0]).abs())
        # h <= 1 from a solve with X^T X: d^2 operations times its condition number.
        condition = (gram_eigenvalues(x)[:, 0] / gram_eigenvalues(x)[:, -1]) * single.y_query[:, 0].abs()
        of_solve = rounding_bound(dimension**2 + context + dimension) * condition
        # Labels w.x carry the rounding of d products, those of the context through X^+.
        smallest = gram_eigenvalues(x)[:, -1].sqrt()
        of_labels = rounding_bound(dimension) * (1 + math.sqrt(context) * longest(x) / smallest)
        reach = query[:, 0].norm(dim=-1)
        bounds.append((pseudo_inverse_bound(x, y) + of_labels * data.weights.norm(dim=-1)) * reach + of_solve)
    return within(errors, bounds, ROUNDING + "; of X^+ y and of one solve")


# %%
TASK.show(self_attention_forgets)
TASK.show(query_is_an_example)

# %% [markdown]
# If all inputs have the same length $r$ and $s = 1 / r^2$, the diagonal of $I - s T$ is zero. A strictly triangular
# matrix has a power that vanishes: place $j$ is at its fixed point after exactly $j$ layers, and the network needs no
# more layers than examples.


# %%
@TASK.claim(
    "causallm-icl/I4",
    where="derived",
    kind="identity",
    statement=r"If all $|x_j| = r$ and $s = 1 / r^2$, place $j$ of the causal network fits its label exactly after $j$ layers: "
    r"$\delta_j^{(l)} = 0$ for all $l \ge j$.",
    controls=[control("0.9 times that step", step_factor=0.9)],
)
def finite_termination(results: Results, step_factor: float = 1.0) -> Evidence:
    errors, bounds = [], []
    length = 1.5
    for dimension, context in SHAPES:
        data = sample(results.config, "I4", (dimension, context))
        x = length * data.x_context / data.x_context.norm(dim=-1, keepdim=True)
        data = RegressionPrompts(x, data.y_context, data.x_query, data.y_query, data.weights)
        step_size = 1 / length**2
        network = gradient_descent_network(dimension, context, step=step_size * step_factor)
        mask = MASKS["causal"](context, data.x_query.shape[1])
        slots = label_slots(network, tokens(data), mask)[..., :context]
        done = torch.arange(context + 1)[:, None] > torch.arange(context)
        errors.append(gap(slots * done[:, None], torch.zeros_like(slots)))
        path = place_descent(x, data.y_context, step_size=step_size, layers=context)
        bounds.append(layers_bound(data, mask, step_size, context, path))
    return within(errors, bounds, ROUNDING)


# %%
TASK.show(finite_termination)


# %%
TASK.show()
