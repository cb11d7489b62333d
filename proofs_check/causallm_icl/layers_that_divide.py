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
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.regression.causal_recursions import (
    causal_gram,
    causal_weights,
    normalised_causal_gram,
    normalised_causal_recursion,
)
from lab.domains.regression.kaczmarz import normalised_kaczmarz_path, stationary_coefficients
from lab.domains.regression.prompts import linear_regression
from lab.labels import LabelledArrays, labelled
from lab.results import Results
from lab.streams import stream
from proofs_check.causallm_icl._deviations import COEFFICIENTS, Deviations, Shape, by_name, within_bounds, worst_prompts
from proofs_check.causallm_icl._shared import (
    LAYERS,
    PAPER,
    SAMPLED,
    SHAPES,
    SLUG,
    SOLVE,
    Sampled,
    coefficients_and_map,
    longest,
    one_pass,
    pass_bound,
    place_descent,
    safe_step,
    sample,
    solution_bound,
)

TASK = Task(SLUG, PAPER, SAMPLED, root=2026)

# %% [markdown]
# ### Dividing by what is visible
#
# Averaging over the examples that a place *sees* (step $\eta / j$ at place $j$) looks fairer. Then $w_j = \frac1j
# \sum_{i \le j} a_i x_i$ with $a \leftarrow a + \eta (y - a S)$, $S_{kj} = T_{kj} / j$. Diagonal entries are now
# $|x_j|^2 / j$, spread over a factor of about $n$. The fixed point is a Kaczmarz pass on the shrunken weights $u_j =
# \frac{j}{j+1} w_j$: what was learnt is pulled towards zero before every example.


# %%
PASSES = ("stationary weights", "normalised_kaczmarz_path")


def divided_map(config: Sampled, shape: Shape, divide_by_all: bool) -> Deviations:
    """Weights of places from coefficients, the coefficients' fixed point, and the map of their error."""
    data = sample(config, "T7", shape)
    x, y, rate = data.x_context, data.y_context, safe_step(data)
    numbers = torch.arange(1, x.shape[1] + 1, dtype=x.dtype)
    coefficients = normalised_causal_recursion(x, y, data.x_query, learning_rate=rate, layers=LAYERS).coefficients
    # a S = y is a T = (j y_j): one substitution.
    target = stationary_coefficients(x, numbers * y)
    matrix = normalised_causal_gram(x)
    deviations, bounds = coefficients_and_map(
        data,
        matrix,
        rate,
        coefficients,
        target,
        place_descent(x, y, step_size=rate / numbers[:, None], layers=LAYERS),
        causal_weights(coefficients, x) / numbers[:, None],
        solution_bound(x, target),
        causal_gram(x) / x.shape[1] if divide_by_all else matrix,
    )
    return by_name(COEFFICIENTS, deviations, bounds)


def divided_pass(config: Sampled, shape: Shape, shrink: str) -> Deviations:
    """Stationary weights, and the pass as the lab has it, against the pass on shrunken weights as it is written."""
    data = sample(config, "T8", shape)
    x, y = data.x_context, data.y_context
    numbers = torch.arange(1, x.shape[1] + 1, dtype=x.dtype)
    weights = causal_weights(stationary_coefficients(x, numbers * y), x) / numbers[:, None]
    claimed = (numbers - 1) / numbers
    factors = {"claimed": claimed, "inverted": torch.where(claimed > 0, 1 / claimed, 0.0), "none": None}
    path = one_pass(x, y, shrink=factors[shrink])
    bound = pass_bound(x, numbers * y)
    return by_name(PASSES, (longest(weights - path), longest(normalised_kaczmarz_path(x, y) - path)), (bound, bound))


@TASK.cases(
    claimed={},
    divided_by_all={"divide_by_all": True},
    inverted_factor={"shrink": "inverted"},
    no_factor={"shrink": "none"},
)
def division_by_what_is_visible(
    config: Sampled, *, divide_by_all: bool = False, shrink: str = "claimed"
) -> LabelledArrays:
    """How far division by j lies from its error map and a pass on shrunken weights: the worst prompt of each shape.

    Args:
        divide_by_all: the map that is claimed divides every place by n.
        shrink: the factor of the weights before each example: "claimed", "inverted" or "none".
    """
    return worst_prompts(
        {
            shape: {**divided_map(config, shape, divide_by_all), **divided_pass(config, shape, shrink)}
            for shape in SHAPES
        }
    )


@TASK.claim(
    "causallm-icl/T7.map",
    where="Proposition 7",
    kind="identity",
    statement=r"With the step $\eta / j$ at place $j$, $w_j^{(l)} = \frac1j \sum_{i \le j} a_i^{(l)} x_i$ with "
    r"$a^{(l)} - a^* = (a^{(l-1)} - a^*)(I - \eta S)$, $S_{kj} = T_{kj} / j$ and $a^* S = y$.",
    controls=[control("all places divided by n", case="divided_by_all")],
)
def normalised_coefficients(results: Results, case: str = "claimed") -> Evidence:
    measured = results[division_by_what_is_visible].sel(case=case, quantity=list(COEFFICIENTS))
    return within_bounds(measured, "rounding of the recursion, of the definition and of the substitution")


@TASK.claim(
    "causallm-icl/T8",
    where="Proposition 8",
    kind="identity",
    statement=r"The stationary weights under division by $j$ obey $w^*_{j+1} = u_j + (y_{j+1} - u_j \cdot x_{j+1})\, "
    r"x_{j+1} / |x_{j+1}|^2$ with $u_j = \frac{j}{j+1} w^*_j$.",
    controls=[
        control(r"the factor upside down, $(j+1)/j$", case="inverted_factor"),
        control("no factor: plain Kaczmarz", case="no_factor"),
    ],
)
def normalised_is_shrunken_pass(results: Results, case: str = "claimed") -> Evidence:
    measured = results[division_by_what_is_visible].sel(case=case, quantity=list(PASSES))
    return within_bounds(measured, SOLVE + ", for labels j y_j")


# %%
TASK.show(normalised_coefficients)
TASK.show(normalised_is_shrunken_pass)

# %% [markdown]
# The paper says that the condition number of $S$ is about $n / 2$ times that of $T$. Which condition number? For the
# ratio of the extreme *eigenvalues*, $|x_j|^2 / j$ against $|x_j|^2$, it is so (at $d = 16$; it cannot exceed $n$).
# For the condition number proper, the ratio of extreme singular values, it is not: these matrices are not normal, $T$
# is badly conditioned already, and the factor grows far more slowly than $n$.


# %%
CONDITION_LENGTHS = (10, 20, 40, 80, 160)


@TASK.measurement(seeds=lambda config: config.draws)
def conditions(config: Sampled, seed: int) -> LabelledArrays:
    """Mean log of (spread of S) / (spread of T) by length, of eigenvalues and of singular values, d = 16."""
    ratios: dict[str, list[float]] = {"eigenvalues": [], "norm": []}
    for length in CONDITION_LENGTHS:
        x = linear_regression(
            stream(seed, "conditions", length), 4, dimension=16, context_length=length, query_length=1
        ).x_context
        spreads: dict[str, list[Tensor]] = {"eigenvalues": [], "norm": []}
        for matrix in (normalised_causal_gram(x), causal_gram(x)):
            diagonal = matrix.diagonal(dim1=1, dim2=2)
            spreads["eigenvalues"].append(diagonal.amax(-1) / diagonal.amin(-1))
            singular = torch.linalg.svdvals(matrix)
            spreads["norm"].append(singular[:, 0] / singular[:, -1])
        for name, (of_s, of_t) in spreads.items():
            ratios[name].append(float((of_s / of_t).log().mean()))
    return {name: labelled(values, length=CONDITION_LENGTHS) for name, values in ratios.items()}


def condition_ratio(results: Results, measure: str) -> Evidence:
    """The factor between the spreads is n / 2 within a factor of two, at every length."""
    logs = results[conditions][measure]
    logs = logs - np.log(logs.length / 2)
    origin = "log of the factor over n / 2, where 'about' is a factor of two"
    return Evidence.all(
        *(
            Evidence.all(
                Evidence.over_seeds(logs.sel(length=length), ">=", -math.log(2), origin),
                Evidence.over_seeds(logs.sel(length=length), "<=", math.log(2), origin),
            )
            for length in CONDITION_LENGTHS
        )
    )


@TASK.claim(
    "causallm-icl/T7",
    where="Proposition 7",
    kind="rate",
    statement=r"The ratio of the extreme eigenvalues of $S$ is about $n / 2$ times that of $T$ "
    r"($d = 16$, uniform inputs, $n = 10, \dots, 160$, within a factor of two).",
    controls=[control("singular values instead of eigenvalues", measure="norm")],
)
def eigenvalue_spread(results: Results, measure: str = "eigenvalues") -> Evidence:
    return condition_ratio(results, measure)


@TASK.claim(
    "causallm-icl/T7.norm",
    where="Proposition 7, for the condition number",
    kind="rate",
    statement=r"The condition number $\lVert S \rVert \lVert S^{-1} \rVert$ is about $n / 2$ times that of $T$ "
    r"($d = 16$, uniform inputs, $n = 10, \dots, 160$, within a factor of two).",
    expected="refuted",
    condition="if the ratio of extreme eigenvalues is meant",
    controls=[control("eigenvalues instead of singular values", measure="eigenvalues")],
)
def norm_condition(results: Results, measure: str = "norm") -> Evidence:
    return condition_ratio(results, measure)


# %%
TASK.show(eigenvalue_spread)
TASK.show(norm_condition)


# %%
TASK.show()
