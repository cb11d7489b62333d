# %% [markdown]
# # Copy, then learn
#
# What if inputs and labels come as *separate* tokens $(x_1), (y_1), (x_2), \dots$ with one-hot positions? A
# first layer can fetch the neighbour: the key shows its position $p_i$, the query asks for $p_{j+1}$, and the
# value brings the content of token $j + 1$ into the position slot while removing the position. A second layer
# then takes the gradient step. As written this copies from the **right** and needs a mask that lets $x_j$ see
# the later $y_j$. Under a causal mask the same trick must sit on the label's token and copy from the
# **left**: the previous-token head of induction circuits.
#
# Linear attention copies exactly. Softmax does so only in the limit of a large scale $\beta$ of the scores:
# the weight on the right token is $e^\beta / (e^\beta + n - 1)$, so that the error falls as
# $(n-1)\,e^{-\beta}$.


# %%
from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.regression.gradient_descent import gradient_descent_path, gram_eigenvalues
from lab.domains.regression.least_squares import predict
from lab.domains.regression.prompts import RegressionPrompts
from lab.labels import LabelledArrays, deviations, labelled
from lab.models import masks
from lab.results import Results
from lab.statistics import rounding_bound
from proofs_check.icl_gradient_descent._shared import (
    PAPER,
    PRESETS,
    Config,
    apply,
    greatest,
    loaded,
    noisy_prompts,
    query_bound,
)

PROOFS = Task("icl-gradient-descent", PAPER, PRESETS)


def alternating(data: RegressionPrompts) -> Tensor:
    """Tokens (x_1), (y_1), ..., (x_N), (y_N), (x_q), of content x and y and a one-hot position: [batch, n, d + 1 + n]."""
    batch, context, dimension = data.x_context.shape
    length = 2 * context + 1
    alternated = torch.zeros(batch, length, dimension + 1 + length, dtype=torch.float64)
    alternated[:, 0:-1:2, :dimension] = data.x_context
    alternated[:, 1::2, dimension] = data.y_context
    alternated[:, -1, :dimension] = data.x_query[:, 0]
    alternated[:, :, dimension + 1 :] = torch.eye(length)
    return alternated


def copying_layer(content: int, length: int, offset: int, scale: float = 1.0) -> dict[str, Tensor]:
    """Token j fetches the content of token j + offset into its position slot and drops its own position."""
    size = content + length
    query, key, value = (torch.zeros(size, size, dtype=torch.float64) for _ in range(3))
    slot = slice(content, size)
    # Row p of the query matrix is what position p asks for.
    query[slot, slot] = scale * torch.diag(torch.ones(length - 1, dtype=torch.float64), offset)
    key[slot, slot] = torch.eye(length)
    value[:content, content : 2 * content] = torch.eye(content)
    value[slot, slot] = -torch.diag(torch.ones(length - 1, dtype=torch.float64), -offset)
    return {"query": query, "key": key, "value": value, "output": torch.eye(size, dtype=torch.float64)}


def learning_layer(dimension: int, length: int, step_size: float, offset: int) -> dict[str, Tensor]:
    """One gradient step_size from zero on pairs of content and copy, written with the plus sign into the query's label."""
    content = dimension + 1
    size = content + length
    query, key, value = (torch.zeros(size, size, dtype=torch.float64) for _ in range(3))
    # Copied from the right, x is content and y the copy; from the left it is the other way round.
    x_place, y_place = (0, 2 * content - 1) if offset == 1 else (content, dimension)
    query[:dimension, :dimension] = torch.eye(dimension)
    key[x_place : x_place + dimension, :dimension] = torch.eye(dimension)
    value[y_place, dimension] = 1
    return {"query": query, "key": key, "value": value, "output": step_size * torch.eye(size, dtype=torch.float64)}


def copied(tokens: Tensor, content: int, offset: int) -> Tensor:
    """What an exact copy looks like at the tokens that have such a neighbour."""
    inner = slice(0, -1) if offset == 1 else slice(1, None)
    source = slice(1, None) if offset == 1 else slice(0, -1)
    copies = tokens[:, inner].clone()
    copies[:, :, content:] = 0
    copies[:, :, content : 2 * content] = tokens[:, source, :content]
    return copies


MASKS = {"prefix": lambda length: masks.in_context_prefix(length - 1, 1), "full": masks.full, "causal": masks.causal}
RIGHT, LEFT = 1, -1
CHAINS = "rounding of chains of 2n + content operations a layer"


@PROOFS.cases(
    right={},
    right_causal={"mask": "causal"},
    left_read_as_right={"copied_from": LEFT},
    left_causal={"mask": "causal", "copied_from": LEFT, "read_from": LEFT},
)
def copies_and_answers(
    config: Config, *, mask: str = "full", copied_from: int = RIGHT, read_from: int = RIGHT
) -> LabelledArrays:
    """The first layer's tokens against exact copies, and the second one's answers against one gradient step."""
    pairs = []
    for dimension, context in ((1, 3), (2, 6), (4, 5)):
        data = noisy_prompts(config, "T8", dimension, context)
        length, content = 2 * context + 1, dimension + 1
        tokens, allowed = alternating(data), MASKS[mask](length)
        step_size = 1 / float(gram_eigenvalues(data.x_context).max())
        layers = [copying_layer(content, length, copied_from), learning_layer(dimension, length, step_size, read_from)]
        after = apply(loaded(content + length, layers[:1]), tokens, allowed)
        inner = slice(0, -1) if read_from == RIGHT else slice(1, None)
        error = greatest(after[:, inner] - copied(tokens, content, read_from))
        bound = rounding_bound(4 * (content + 2 * length), max(greatest(tokens), 1.0))
        pairs.append((error, bound))
        answer = apply(loaded(content + length, layers), tokens, allowed)[:, -1, dimension]
        weights = gradient_descent_path(data.x_context, data.y_context, step=step_size, steps=1)[1]
        expected = predict(weights, data.x_query)[:, 0]
        chain = query_bound(data.x_context, data.y_context, data.x_query, 2)
        pairs.append((greatest(answer - expected), chain + 4 * bound * context))
    return deviations(pairs)


@PROOFS.claim(
    "icl-gradient-descent/T8",
    where="Proposition 3",
    kind="construction",
    statement=(
        r"On alternating tokens $(x_j), (y_j)$ a first layer of linear attention without a mask copies the "
        r"next token exactly, and a second one then predicts with one step of gradient descent."
    ),
    controls=[
        control("a causal mask, under which the literal construction copies nothing", case="right_causal"),
        control("copying from the left, which needs other weights in the second layer", case="left_read_as_right"),
    ],
)
def copy_then_learn(results: Results, case: str = "right") -> Evidence:
    measured = results[copies_and_answers].sel(case=case)
    return Evidence.within(measured["deviation"], measured["bound"], CHAINS)


@PROOFS.claim(
    "icl-gradient-descent/T8.causal",
    where="Proposition 3, moved to the label's token (derived)",
    kind="construction",
    statement=(
        r"Under a causal mask the label's token can copy the input to its left exactly, and a second layer "
        r"again predicts with one step of gradient descent."
    ),
    controls=[control("copying from the right, as in the proposition", case="right_causal")],
)
def copy_then_learn_causally(results: Results, case: str = "left_causal") -> Evidence:
    measured = results[copies_and_answers].sel(case=case)
    return Evidence.within(measured["deviation"], measured["bound"], CHAINS)


@PROOFS.cases(full={}, causal={"mask": "causal"})
def softmax_copies(config: Config, *, mask: str = "full") -> LabelledArrays:
    """Largest error of a copy by softmax, by the scale of its scores, and the largest value that is copied."""
    dimension, context, scales = 3, 10, (0.5, 1.0, 8.0, 11.0, 14.0, 17.0)
    tokens = alternating(noisy_prompts(config, "T8", dimension, context))
    length, content = 2 * context + 1, dimension + 1
    errors = []
    for scale in scales:
        layer = copying_layer(content, length, RIGHT, scale * math.sqrt(content + length))
        after = apply(loaded(content + length, [layer], "softmax"), tokens, MASKS[mask](length))
        errors.append(greatest(after[:, :-1] - copied(tokens, content, RIGHT)))
    return {
        "error": labelled(errors, scale=scales),
        "largest value": max(greatest(tokens[..., :content]), 1.0),
        "tokens": float(length),
    }


@PROOFS.claim(
    "icl-gradient-descent/T8.softmax",
    where="Proposition 3, with softmax (derived)",
    kind="rate",
    statement=(
        r"With softmax in the copying layer the copy is exact only in the limit: its error falls as "
        r"$e^{-\beta}$ in the scale $\beta$ of the scores and stays within $2 (n-1)\,e^{-\beta}$ times the "
        r"largest value."
    ),
    controls=[control("a scale of 1, as written", scales=(0.5, 1.0)), control("a causal mask", case="causal")],
)
def softmax_copies_in_the_limit(
    results: Results, scales: Sequence[float] = (8.0, 11.0, 14.0, 17.0), case: str = "full"
) -> Evidence:
    copies = results[softmax_copies].sel(case=case, scale=list(scales))
    other_tokens = float(copies["tokens"]) - 1
    share = other_tokens / (np.exp(copies["scale"]) + other_tokens)
    over = copies["error"] / (2 * copies["largest value"] * share)
    slopes = np.diff(np.log(copies["error"])) / np.diff(copies["scale"])
    return Evidence.all(
        Evidence.exact(float(over.max()), "<=", 1.0, "the weight on all other tokens, twice the largest value"),
        Evidence.exact(
            float(np.abs(slopes + 1).max()),
            "<=",
            other_tokens * math.exp(-8.0),
            "the exact slope of log share at the smallest scale is -1 up to (n-1) exp(-beta)",
        ),
    )


# %%
PROOFS.show(copy_then_learn)
PROOFS.show(copy_then_learn_causally)
PROOFS.show(softmax_copies_in_the_limit)

# %%
PROOFS.show()
