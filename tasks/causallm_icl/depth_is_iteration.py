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
# The argument, in the order of the parts of this sheet:
#
# 1. one layer of linear attention can take one step of gradient descent, whatever the mask; stacked under a prefix mask,
#    depth is the number of steps, and the limit is least squares (this part);
# 2. stacked under a causal mask, every place $j$ carries weights $w_j$ of its own, and the limit is **one pass of Kaczmarz**:
#    online gradient descent with step $1/\lVert x_j\rVert^2$, in the order in which the examples happen to stand; with $n$
#    examples it has an error which the closed form $v\,d\,(1-1/d)^n$ gives exactly, and with noisy labels it stays above a
#    floor for ever (`limit_is_one_pass`);
# 3. *but* least squares is not always better: near $n = d$ with noise it explodes and one pass of Kaczmarz does not
#    (`near_as_many_examples_as_dimensions`);
# 4. showing the examples again repairs the causal network, averaging over orders does not (`repairs`);
# 5. trained linear attention and small softmax transformers behave alike under either mask (`trained_linear_attention`,
#    `transformers_in_regression`, `transformers_with_other_labels`).
#
# The identities behind 1 and 2 are checked to rounding error in `proofs_check/causallm_icl`; here are the
# measurements. Notation: $d$ dimension, $v$ variance of a coordinate of $x$, $s$ step size of one layer,
# $X$ the examples as rows.

# %%
from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lab import Evidence, Task, control
from lab.diagnosis.settings import Regression
from lab.domains.regression.causal_recursions import causal_recursion, prefix_recursion
from lab.domains.regression.gradient_descent import expected_prefix_error, gram_eigenvalues, require_stable
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.results import Results
from tasks.causallm_icl._shared import PAPER, SLUG, UNIFORM_VARIANCE, Numerics, numerical_prompts, one_pass_law

RECURSIONS = {"prefix": prefix_recursion, "causal": causal_recursion}

# %% [markdown]
# ## Depth is iteration
#
# In a network whose layers all carry the hand-written weights, the label slot of example $j$ holds the residual
# $y_j - w_j \cdot x_j$. Under the prefix mask all $w_j$ are the same and follow gradient descent,
# $w \leftarrow w + s\,X^\top(y - Xw)$. Under the causal mask $w_j \leftarrow w_j + s \sum_{i\le j} (y_i - w_i\cdot x_i)\,x_i$:
# a triangular iteration, which converges too, and faster, but to another point.


# %%
@dataclass(frozen=True)
class Config(Numerics):
    """Sizes of this part."""

    sequences: int = 512
    """prompts a draw: so many that a mean is known to a few per cent, that of few prompts being decided by the largest"""
    layers: int = 50
    """layers of linear attention"""
    step_size: float = 0.04
    """step size s = eta / n of one layer"""
    early_layer: int = 5
    """the layer at which the prefix error is compared with its closed form"""


TASK = Task(
    SLUG,
    PAPER,
    {
        "smoke": Config(draws=8, sequences=4, queries=4, layers=6),
        "ci": Config(),
        "paper": replace(Config(), sequences=2048),
    },
)
# The prompts on which `lab diagnose --task causallm-icl` compares a predictor with the closed forms.
DIAGNOSED_ON = Regression(dimension=Config.dimension, context_length=Config.context_length, inputs="uniform", noise=0.0)


@TASK.measurement(seeds=lambda config: config.draws)
def convergence(config: Config, seed: int) -> LabelledArrays:
    """Mean squared errors by layer, on the context and at the queries, and what the eigenvalues of this draw predict there."""
    prompts = numerical_prompts(config, seed)
    require_stable(prompts.x_context, config.step_size)
    layers = range(config.layers + 1)
    errors: dict[str, list[Tensor]] = {"context": [], "query": []}
    for recursion in RECURSIONS.values():
        path = recursion(
            prompts.x_context, prompts.y_context, prompts.x_query, step=config.step_size, layers=config.layers
        )
        errors["context"].append(path.context_error.mean(-1))
        errors["query"].append(path.query_error(prompts.y_query).mean(-1))
    predicted = expected_prefix_error(
        gram_eigenvalues(prompts.x_context),
        torch.arange(config.layers + 1),
        step=config.step_size,
        input_variance=UNIFORM_VARIANCE,
    ).mean(-1)
    return {
        **{
            place: labelled(torch.stack(values), arm=list(RECURSIONS), layer=layers) for place, values in errors.items()
        },
        "predicted": labelled(predicted, layer=layers),
        "zero": float(prompts.y_query.square().mean()),
    }


@TASK.figure
def convergence_by_layer(results: Results) -> Sheet:
    """Error by layer under both masks, measured and in closed form: the prefix network goes on, the causal one stops."""
    errors, config = results[convergence], results.config
    sheet = Sheet(columns=2, width=5.0)
    titles = {
        "prefix": "prefix: gradient descent, on to least squares (0)",
        "causal": "causal: stops at one pass of Kaczmarz",
    }
    layers = errors.layer.values[1:]
    for arm, title in titles.items():
        panel = sheet.panel(
            title, x="layer", y="mean squared error", scale=("linear", "log"), ylim=(1e-6, 1e4), legend="upper right"
        )
        panel.curve(errors.context.sel(arm=arm, layer=layers), over="layer", arm=arm, name="context error", variant=1)
        panel.curve(errors["query"].sel(arm=arm, layer=layers), over="layer", arm=arm, name="query error")
        if arm == "prefix":
            predicted = errors.predicted.sel(layer=layers).mean("seed")
            panel.theory(layers, predicted, name="gradient descent, closed form")
        else:
            panel.level(
                float(one_pass_law(config, [config.context_length]).item()),
                name=r"one pass of Kaczmarz, $v\,d\,(1-1/d)^n$",
            )
        panel.level(float(errors.zero.mean()), name="predicting 0", look=3)
    return sheet


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
    errors, config = results[convergence], results.config
    prefix_error = errors["query"].sel(arm="prefix", drop=True)
    causal_error = errors["query"].sel(arm=causal, drop=True)
    smallest_gap = np.log(causal_error / prefix_error).sel(layer=slice(first_layer, last_layer)).min("layer")
    expected = errors.predicted.sel(layer=config.early_layer)
    law = float(one_pass_law(config, [config.context_length]).item())
    return Evidence.all(
        Evidence.over_seeds(smallest_gap, ">", 0.0, "smallest log ratio causal / prefix over the layers"),
        Evidence.equals(causal_error.isel(layer=-1), law, 0.05, "v d (1 - 1/d)^n, error of the last causal layer"),
        Evidence.equals(
            prefix_error.sel(layer=config.early_layer) / expected,
            1.0,
            0.05,
            f"prefix error after {config.early_layer} layers over its closed form",
        ),
    )


# %%
TASK.show(convergence_by_layer)
TASK.show(prefix_is_below_causal)

# %%
TASK.show()
