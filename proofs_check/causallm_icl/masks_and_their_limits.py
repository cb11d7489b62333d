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
from lab.labels import LabelledArrays, labelled
from lab.models import masks
from lab.models.transformer import Architecture, Transformer
from lab.results import Results
from lab.statistics import rounding_bound
from lab.streams import stream
from proofs_check.causallm_icl._deviations import (
    DETERMINED,
    Deviations,
    Shape,
    shape_name,
    within_bounds,
    worst_prompts,
)
from proofs_check.causallm_icl._shared import (
    LAYERS,
    MASKS,
    PAPER,
    PRESETS,
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
)

TASK = Task(SLUG, PAPER, PRESETS)

# %% [markdown]
# ## What the mask cannot change, and what it must not leave out
#
# In the first layer keys and values are the tokens themselves, and queries see the same ones under both masks. So a
# network of *one* layer gives the very same answers under both, to the last bit, whatever its weights and its kind of
# attention. The masks can only part from the second layer on.


# %%
ATTENTIONS = ("softmax", "kernel", "linear")


@TASK.cases(one_layer={"layers": 1}, two_layers={"layers": 2})
def random_networks(config: Config, *, layers: int) -> LabelledArrays:
    """Largest difference between the outputs of four random networks under the two masks, by attention and token."""
    dimension, context = 3, 12
    data = sample(config, "I1", (dimension, context))
    differences = []
    for attention in ATTENTIONS:
        architecture = Architecture(
            width=8, layers=layers, heads=2, input_size=dimension + 1, output_size=1, attention=attention
        )
        network = Transformer(architecture, range(4), torch.float64)
        with torch.no_grad():
            prefix, causal = (
                network(tokens(data)[None], mask(context, data.x_query.shape[1])) for mask in MASKS.values()
            )
        at_examples, at_queries = (prefix - causal).abs().tensor_split([context], dim=2)
        differences.append([float(at_examples.max()), float(at_queries.max())])
    return {"difference": labelled(differences, attention=ATTENTIONS, token=("example", "query"))}


@TASK.claim(
    "causallm-icl/I1",
    where="derived",
    kind="identity",
    statement=r"Outputs at the queries of a one-layer transformer are bit for bit the same under both masks, for softmax, "
    r"radial and linear attention and random weights.",
    controls=[control("two layers", case="two_layers"), control("outputs at the examples", token="example")],
)
def one_layer_is_blind(results: Results, case: str = "one_layer", token: str = "query") -> Evidence:
    difference = results[random_networks].difference.sel(case=case, token=token)
    return Evidence.exact(difference.max(), "<=", 0.0, "the same operations on the same numbers")


@TASK.cases(prefix={"pattern": "prefix"}, causal={"pattern": "causal"})
def permuted_examples(config: Config, *, pattern: str) -> LabelledArrays:
    """What a permutation of the examples changes in the answers under a mask: the worst prompt of each shape."""

    def compared(shape: Shape) -> Deviations:
        dimension, context = shape
        data = sample(config, "I2", shape)
        step_size = safe_step(data)
        order = random_orders(stream(0, "I2", "orders", context), 1, context)[0]
        answer = network_predictor(gradient_descent_network(dimension, LAYERS, step=step_size), MASKS[pattern])
        first, second = (
            answer(shown.x_context, shown.y_context, shown.x_query) for shown in (data, permute_context(data, order))
        )
        path = gradient_descent_path(data.x_context, data.y_context, step=step_size, steps=LAYERS)
        bound = layers_bound(data, MASKS["prefix"](context, data.x_query.shape[1]), step_size, LAYERS, path)
        return {"answers": (greatest(first - second), bound)}

    return worst_prompts({shape: compared(shape) for shape in SHAPES})


@TASK.claim(
    "causallm-icl/I2",
    where="derived",
    kind="identity",
    statement=r"Permuting the examples leaves the answers of the prefix network as they are.",
    controls=[control("a causal mask", case="causal")],
)
def prefix_ignores_order(results: Results, case: str = "prefix") -> Evidence:
    return within_bounds(results[permuted_examples].sel(case=case), ROUNDING)


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


def all_seeing(context: int, queries: int) -> Tensor:
    """The mask under which all tokens see all tokens."""
    return masks.full(context + queries)


QUERY_MASKS = {"unseen": MASKS["prefix"], "seen by themselves": self_seeing, "seen by all": all_seeing}
MANY_LAYERS = 200


def forgotten_answers(config: Config, shape: Shape, pattern: str) -> Deviations:
    """Answers of a deep network to noise-free labels, one for each query, and the law by which they fade.

    They count as infinite where those of the first layer are not, to the last bit, what they are without the query.
    """
    dimension, context = shape
    data = sample(config, "I3", shape, noise=0.0)
    x, queries, step_size = data.x_context, data.x_query.shape[1], safe_step(data)
    network = gradient_descent_network(dimension, MANY_LAYERS, step=step_size)
    answers, proper = (
        label_slots(network, tokens(data), mask(context, queries))[..., context:]
        for mask in (QUERY_MASKS[pattern], QUERY_MASKS["unseen"])
    )
    lengths = data.x_query.norm(dim=-1)
    rate = torch.maximum(prefix_rate(x, step_size)[:, None], (1 - step_size * lengths**2).abs())
    strength = step_size * gram_eigenvalues(x)[:, 0] * data.weights.norm(dim=-1)
    bound = strength[:, None] * lengths * MANY_LAYERS * rate ** (MANY_LAYERS - 1)
    # The limit is 0 plus what rounding leaves: a layer's error fades at the same rate, a geometric sum.
    operations = 2 * (dimension + 1) + context + queries + 3
    size = greatest(data.y_context) * (1 + step_size * context * longest(x) * lengths.amax(-1))
    left = rounding_bound(operations) * math.sqrt(context + 1) * size[:, None] / (1 - rate) ** 2
    # To the last bit in the first layer, where the query's slot of 0 adds nothing.
    forgotten = torch.where(answers[1] == proper[1], answers[-1].abs(), math.inf)
    return {"deep answers": (forgotten.flatten(), (bound + left).flatten())}


def one_more_example(config: Config, shape: Shape, pattern: str) -> Deviations:
    """The network against gradient descent on the n + 1 pairs, and the limit of that against its law.

    The law is taken with the leverage of the query and without.
    """
    dimension, context = shape
    data = sample(config, "I3 full", shape, noise=0.0)
    query = data.x_query[:, :1]
    single = RegressionPrompts(data.x_context, data.y_context, query, data.y_query[:, :1], data.weights)
    x = torch.cat([data.x_context, query], dim=1)
    y = torch.cat([data.y_context, torch.zeros_like(data.y_query[:, :1])], dim=1)
    step_size = 1 / float(gram_eigenvalues(x).max())
    path = gradient_descent_path(x, y, step=step_size, steps=LAYERS)
    network = gradient_descent_network(dimension, LAYERS, step=step_size)
    slots = label_slots(network, tokens(single), QUERY_MASKS[pattern](context, 1))
    limit = predict(least_squares_weights(x, y), query)[:, 0]
    solved = torch.linalg.solve(x.mT @ x, query[:, 0, :, None])[..., 0]
    kept = 1 - (solved * query[:, 0]).sum(-1)
    of_limit = limit_bound(x, y, query[:, 0], single.y_query[:, 0], data.weights)
    return {
        "slots": (
            gap(slots, y - (x @ path[..., None])[..., 0]),
            layers_bound(single, all_seeing(context, 1), step_size, LAYERS, path),
        ),
        "limit": ((limit - kept * single.y_query[:, 0]).abs(), of_limit),
        "limit without leverage": ((limit - single.y_query[:, 0]).abs(), of_limit),
    }


def limit_bound(x: Tensor, y: Tensor, query: Tensor, answer: Tensor, weights: Tensor) -> Tensor:
    """Rounding of the limit's answer at the query and of its law, [batch].

    Args:
        x, y: the n + 1 pairs.
        query: [batch, dimension].
        answer: the true one, w.x_q [batch].
        weights: the true ones, [batch, dimension].
    """
    context, dimension = x.shape[1] - 1, x.shape[2]
    eigenvalues = gram_eigenvalues(x)
    # h <= 1 from a solve with X^T X: d^2 operations times its condition number.
    condition = (eigenvalues[:, 0] / eigenvalues[:, -1]) * answer.abs()
    of_solve = rounding_bound(dimension**2 + context + dimension) * condition
    # Labels w.x carry the rounding of d products, those of the context through X^+.
    of_labels = rounding_bound(dimension) * (1 + math.sqrt(context) * longest(x) / eigenvalues[:, -1].sqrt())
    of_weights = pseudo_inverse_bound(x, y) + of_labels * weights.norm(dim=-1)
    return of_weights * query.norm(dim=-1) + of_solve


DEEP = (4, 20)


@TASK.cases(**{f"queries {pattern}": {"pattern": pattern} for pattern in QUERY_MASKS})
def queries_that_are_seen(config: Config, *, pattern: str) -> LabelledArrays:
    """Slots, limit and fading of noise-free answers under a mask against their laws: the worst prompt of each shape."""
    return worst_prompts(
        {
            shape: {
                **one_more_example(config, shape, pattern),
                **(forgotten_answers(config, shape, pattern) if shape == DEEP else {}),
            }
            for shape in DETERMINED
        }
    )


@TASK.claim(
    "causallm-icl/I3",
    where="footnote 2",
    kind="identity",
    statement=r"If queries see themselves, the first layer answers as before and the answers of $L$ layers are at most "
    r"$s |x_q| \lambda_{\max} |w| L \max(\rho, \rho_q)^{L-1}$ on noise-free labels: they decay to 0.",
    controls=[control("queries that do not see themselves", case="queries unseen")],
)
def self_attention_forgets(results: Results, case: str = "queries seen by themselves") -> Evidence:
    measured = results[queries_that_are_seen].sel(case=case, shape=shape_name(DEEP), quantity="deep answers")
    return within_bounds(measured, "the unrolled recursion")


@TASK.claim(
    "causallm-icl/I3.full",
    where="derived",
    kind="identity",
    statement=r"If all tokens see all tokens, the query is one more example with label 0: the network descends on the $n + 1$ "
    r"pairs, and its noise-free limit is $(1 - h)\, w \cdot x_q$ with $h = x_q^\top (A + x_q x_q^\top)^{-1} x_q$.",
    controls=[
        control("examples that do not see the query", case="queries seen by themselves"),
        control("the query's pair left out", limit="limit without leverage"),
    ],
)
def query_is_an_example(results: Results, case: str = "queries seen by all", limit: str = "limit") -> Evidence:
    measured = results[queries_that_are_seen].sel(case=case, quantity=["slots", limit])
    return within_bounds(measured, ROUNDING + "; of X^+ y and of one solve")


# %%
TASK.show(self_attention_forgets)
TASK.show(query_is_an_example)

# %% [markdown]
# If all inputs have the same length $r$ and $s = 1 / r^2$, the diagonal of $I - s T$ is zero. A strictly triangular
# matrix has a power that vanishes: place $j$ is at its fixed point after exactly $j$ layers, and the network needs no
# more layers than examples.


# %%
@TASK.cases(claimed={}, shorter_step={"step_factor": 0.9})
def finished_places(config: Config, *, step_factor: float = 1.0) -> LabelledArrays:
    """Largest label slot of places that should be done, for inputs of one length: the worst prompt of each shape."""
    length = 1.5
    step_size = 1 / length**2

    def compared(shape: Shape) -> Deviations:
        dimension, context = shape
        data = sample(config, "I4", shape)
        x = length * data.x_context / data.x_context.norm(dim=-1, keepdim=True)
        data = RegressionPrompts(x, data.y_context, data.x_query, data.y_query, data.weights)
        network = gradient_descent_network(dimension, context, step=step_size * step_factor)
        mask = MASKS["causal"](context, data.x_query.shape[1])
        slots = label_slots(network, tokens(data), mask)[..., :context]
        done = torch.arange(context + 1)[:, None] > torch.arange(context)
        path = place_descent(x, data.y_context, step_size=step_size, layers=context)
        bound = layers_bound(data, mask, step_size, context, path)
        return {"slots": (gap(slots * done[:, None], torch.zeros_like(slots)), bound)}

    return worst_prompts({shape: compared(shape) for shape in SHAPES})


@TASK.claim(
    "causallm-icl/I4",
    where="derived",
    kind="identity",
    statement=r"If all $|x_j| = r$ and $s = 1 / r^2$, place $j$ of the causal network fits its label exactly after $j$ layers: "
    r"$\delta_j^{(l)} = 0$ for all $l \ge j$.",
    controls=[control("0.9 times that step", case="shorter_step")],
)
def finite_termination(results: Results, case: str = "claimed") -> Evidence:
    return within_bounds(results[finished_places].sel(case=case), ROUNDING)


# %%
TASK.show(finite_termination)


# %%
TASK.show()
