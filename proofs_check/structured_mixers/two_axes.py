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
# # Two axes, two levels: images row by row, bytes patch by patch
#
# **Axial attention** (Ho et al. 2019). An $H \times W$ image in raster order; row attention mixes $W$ tokens at a time, column attention
# $H$. The autoregressive stack: *outer* layers of unmasked row and causal column attention give, at row $i$, a summary of
# rows $\le i$; shifted down by one row it says only what lies above. Added to the tokens shifted right by one, it is read by
# *inner* layers of causal row attention. Both shifts are needed, and the column mask.
#
# Sampling needs the outer layers once a row, not once a token, because they read whole rows: a cache at the level of the architecture.
#
# **Two levels** (MEGABYTE, Yu et al. 2023). $T$ bytes in patches of $P$: a global model over $T/P$ patches, moved on by one patch,
# and a local one inside each, moved on by one byte. Attention costs $f(P) = T^2/P^2 + TP$ pairs; $f' = 0$ at
# $P^* = (2T)^{1/3}$, where $f = (2^{-2/3} + 2^{1/3})\, T^{4/3} = \tfrac32\, 2^{1/3}\, T^{4/3}$. The paper's
# $P = T^{1/3}$ costs $2 T^{4/3}$, 5.8 % more.


# %%
from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lab import Evidence, Task, control
from lab.figures import Sheet
from lab.labels import LabelledArrays, deviations, labelled
from lab.models import masks
from lab.models.mixers.axial import Axial, axial_stack, product_weights, random_stack, sample
from lab.models.mixers.heads import weights
from lab.models.mixers.local import merge_squares, neighbour_maxima, running_mean, split_squares
from lab.models.mixers.patches import best_patch, pairs, random_levels, two_levels
from lab.results import Results
from lab.statistics import rounding_bound
from lab.streams import stream
from proofs_check.structured_mixers._shared import BOOLEANS, COUNTING, SLUG, dependencies, largest, normal

PROOFS = Task(SLUG, paper=SLUG, root=2032)
AXIAL, MEGABYTE = "ho-2019-axial", "yu-2023-megabyte"
ROWS, COLUMNS, WIDTH = 4, 5, 6
LAYERS = ((1, 1), (2, 2))  # outer pairs, inner layers


def strictly_causal(dependency: Tensor) -> int:
    """Entries in which a dependency matrix is not the strict lower triangle."""
    return int(((dependency != 0) != masks.causal(len(dependency)).tril(-1)).sum())


@PROOFS.cases(
    claimed={},
    down={"shifts": (0, 1)},
    right={"shifts": (1, 0)},
    columns={"full_columns": True},
    **{"no-rows": {"outer": False}},
)
def axial_dependencies(
    config: object, *, shifts: tuple[int, int] = (1, 1), full_columns: bool = False, outer: bool = True
) -> LabelledArrays:
    """Entries in which the dependencies of the stack on 4 x 5 tokens are not those before in raster order."""
    wrong = []
    for pairs_of_layers, inner in LAYERS:
        stack = random_stack(stream(0, "axial", pairs_of_layers), WIDTH, pairs_of_layers if outer else 0, inner)
        column_mask = masks.full(ROWS) if full_columns else None

        def outputs(x: Tensor, stack: Any = stack, column_mask: Tensor | None = column_mask) -> Tensor:
            image = x.unflatten(-2, (ROWS, COLUMNS))
            return axial_stack(stack, image, *shifts, column_mask).flatten(-3, -2)

        wrong.append(strictly_causal(dependencies(outputs, normal("image", ROWS * COLUMNS, WIDTH))))
    return {"wrong": labelled(wrong, pairs=[pairs_of_layers for pairs_of_layers, _ in LAYERS])}


@PROOFS.claim(
    "structured-mixers/axial.T1",
    where="the autoregressive model, its structure as in the released code",
    paper=AXIAL,
    kind="identity",
    statement="Every output of the axial stack depends on exactly the tokens before it in raster order, already with one outer "
    "pair and one inner layer: exact zeros elsewhere (4 x 5 tokens).",
    controls=[
        control("no shift down", case="down"),
        control("no shift right", case="right"),
        control("unmasked column attention", case="columns"),
        control("no outer layers", case="no-rows"),
    ],
)
def axial_stack_is_raster_causal(results: Results, case: str = "claimed") -> Evidence:
    measured = results[axial_dependencies]["wrong"].sel(case=case)
    return Evidence.all(*(Evidence.exact(int(count), "<=", 0, BOOLEANS) for count in measured.values))


@PROOFS.cases(claimed={}, stale={"stale": True}, token={"row_by_row": False})
def semi_parallel_sampling(config: object, *, row_by_row: bool = True, stale: bool = False) -> LabelledArrays:
    """Tokens of 8 images sampled in two ways that differ, runs of the outer layers over the rows, and inner runs over tokens."""
    differing, outer, inner = 0, 0, 0
    embedding = normal("embedding", 7, WIDTH)
    stack = random_stack(stream(0, "sampled"), WIDTH, 2, 2)
    for draw in range(8):
        uniforms = torch.from_numpy(stream(draw, "uniforms").rng().random((ROWS, COLUMNS)))
        naive = sample(stack, embedding, uniforms, row_by_row=False)
        semi_parallel = sample(stack, embedding, uniforms, row_by_row, stale)
        differing += int((naive.tokens != semi_parallel.tokens).sum())
        outer, inner = (
            outer + abs(semi_parallel.outer_runs - ROWS),
            inner + abs(semi_parallel.inner_runs - ROWS * COLUMNS),
        )
    return {"differing": differing, "outer": outer, "inner": inner}


@PROOFS.claim(
    "structured-mixers/axial.T2",
    where="semi-parallel sampling",
    paper=AXIAL,
    kind="identity",
    statement="Sampling with the outer layers run once a row gives the same tokens as running everything for every token: $H$ runs "
    "of the outer layers and $H W$ of the inner ones instead of $H W$ of both (8 images of 4 x 5 tokens, 7 values).",
    controls=[
        control("the context of the first row kept", case="stale"),
        control("outer layers run for every token", case="token"),
    ],
)
def sampling_row_by_row_is_exact(results: Results, case: str = "claimed") -> Evidence:
    measured = results[semi_parallel_sampling].sel(case=case)
    return Evidence.all(
        *(Evidence.exact(int(measured[name]), "<=", 0, COUNTING) for name in ("differing", "outer", "inner"))
    )


@PROOFS.identity(
    "structured-mixers/axial.T3",
    where="derived",
    paper=AXIAL,
    statement=r"Row attention, then column attention, without anything between, is one attention over all tokens with the weights "
    r"$P_{(i,j),(a,b)} = A^{col}_j[i, a]\, A^{row}_a[j, b]$, whose rows sum to 1 (4 x 5 tokens).",
    origin="rounding of two nested weighted means, of values no larger than the largest",
    controls=[
        control("column attention first", order="columns"),
        control("the row attention of the reading row", order="own row"),
    ],
)
def row_then_column_is_one_attention(config: object, *, order: str = "rows") -> LabelledArrays:
    length = ROWS * COLUMNS
    names = ("query", "key", "value")
    streams = {name: normal(f"axial {name}", 1, 1, 1, length, WIDTH) for name in names}
    mixer = Axial(ROWS, COLUMNS)
    row, column = (maps[0, 0, 0] for maps in mixer.maps(streams))
    if order == "own row":
        product = torch.einsum("jia,ijb->ijab", column, row).reshape(length, length)
    elif order == "columns":
        product = torch.einsum("ijb,bia->ijab", row, column).reshape(length, length)
    else:
        product = product_weights(row, column)
    value = streams["value"][0, 0, 0]
    bound = rounding_bound(2 * (ROWS + COLUMNS) + length + 4, float(value.abs().max()))
    output = mixer.run("parallel", streams, masks.full(length))[0, 0, 0]
    # The weights themselves may be wrong by the rounding of exp, the same on both sides.
    return deviations(
        [
            (largest(product @ value - output), bound),
            (largest(product.sum(-1) - 1), rounding_bound(2 * (ROWS + COLUMNS) + length + 8)),
        ]
    )


@PROOFS.cases(claimed={}, full={"mask": "full"})
def axial_pairs(config: object, *, mask: str = "axial") -> LabelledArrays:
    """Weights computed on squares of side S, counted in the maps of the running mixer, and the law 2 S^3."""
    sides, counted = (2, 4, 8), []
    for side in sides:
        streams = {name: normal(f"pairs {name}", 1, 1, 1, side**2, 2) for name in ("query", "key", "value")}
        if mask == "full":
            counted.append(weights(streams["query"], streams["key"], masks.full(side**2)).numel())
        else:
            counted.append(sum(axis_map.numel() for axis_map in Axial(side, side).maps(streams)))
    return {"wrong": int(sum(abs(count - 2 * side**3) for count, side in zip(counted, sides, strict=True)))}


@PROOFS.claim(
    "structured-mixers/axial.R1",
    where="cost of O(N sqrt N)",
    paper=AXIAL,
    kind="rate",
    statement="On squares of side $S$ row and column attention compute $2 S^3$ weights, $S/2$ times fewer than full attention's $S^4$ "
    "(S = 2, 4, 8, counted in the running maps).",
    controls=[control("attention over all tokens", case="full")],
)
def axial_attention_costs_two_cubes(results: Results, case: str = "claimed") -> Evidence:
    return Evidence.exact(int(results[axial_pairs]["wrong"].sel(case=case)), "<=", 0, COUNTING)


# %% [markdown]
# ## Two levels

# %%
PATCH, BYTES = 3, 12


@PROOFS.cases(claimed={}, patch={"shifts": (0, 1)}, byte={"shifts": (1, 0)}, patch_lost={"shifts": (2, 1)})
def level_dependencies(config: object, *, shifts: tuple[int, int] = (1, 1)) -> LabelledArrays:
    """Entries in which 12 outputs in patches of 3 do not depend on exactly the bytes before them."""
    levels = random_levels(stream(0, "levels"), 4, PATCH)
    dependency = dependencies(lambda x: two_levels(levels, x, PATCH, *shifts), normal("bytes", BYTES, 4))
    return {"wrong": strictly_causal(dependency)}


@PROOFS.claim(
    "structured-mixers/mb.T1",
    where="the global model is moved on by a patch, the local one by a byte",
    paper=MEGABYTE,
    kind="identity",
    statement="Every output of the two-level model depends on exactly the bytes before it: exact zeros elsewhere "
    "(12 bytes in patches of 3).",
    controls=[
        control("patches not moved on", case="patch"),
        control("bytes not moved on", case="byte"),
        control("patches moved on by two", case="patch_lost"),
    ],
)
def two_levels_are_causal(results: Results, case: str = "claimed") -> Evidence:
    return Evidence.exact(int(results[level_dependencies]["wrong"].sel(case=case)), "<=", 0, BOOLEANS)


LENGTHS = (1000, 8192, 2**20)


@PROOFS.cases(claimed={}, paper={"factor": 1.0}, unequal={"ratio": 4.0, "assumed_ratio": 1.0})
def best_patches(
    config: object, *, factor: float = 2.0, ratio: float = 1.0, assumed_ratio: float | None = None
) -> LabelledArrays:
    """Distance of the best whole patch, by enumeration of r T^2 / P^2 + T P, from (factor T r)^{1/3} with
    r as ``assumed_ratio``."""
    away, excess = [], []
    for length in LENGTHS:
        for r in (ratio, 0.25 * ratio):
            patch = np.arange(1, 400)
            cost = r * (length / patch) ** 2 + length * patch
            law = best_patch(length * factor / 2, r if assumed_ratio is None else assumed_ratio)
            away.append(abs(float(patch[cost.argmin()]) - law))
            least = 1.5 * (2 * r) ** (1 / 3) * length ** (4 / 3)
            excess.append(float(cost.min()) / least - 1)
    miscounted = pairs(4096, 16) - (256**2 + 4096 * 16)
    return {"away": max(away), "excess": max(excess), "below": -min(excess), "counted": abs(miscounted)}


@PROOFS.claim(
    "structured-mixers/mb.R1",
    where="the paper takes P = T^(1/3); the constant is derived",
    paper=MEGABYTE,
    kind="rate",
    statement=r"Of $r\,T^2/P^2 + TP$ pairs the best whole patch lies within 1 of $P^* = (2 T r)^{1/3}$ and costs at most 0.5 % more than "
    r"$\frac32 (2r)^{1/3} T^{4/3}$ and never less ($T = 1000, 8192, 2^{20}$, $r = 1, \frac14$, all patches tried).",
    controls=[
        control("the paper's P = T^(1/3)", case="paper"),
        control("a dearer upper level, not told", case="unequal"),
    ],
)
def best_patch_is_the_cube_root_of_twice_the_length(results: Results, case: str = "claimed") -> Evidence:
    measured = results[best_patches].sel(case=case)
    return Evidence.all(
        Evidence.exact(
            float(measured["away"]), "<=", 1.0, "a convex cost has its best whole number beside its least point"
        ),
        Evidence.exact(
            float(measured["excess"]),
            "<=",
            0.005,
            "half a step beside P* costs 1 / (4 P*^2) of the least in second order, 0.004 at the smallest P* = 7.9",
        ),
        Evidence.exact(
            float(measured["below"]), "<=", 1e-12, "rounding of the cost; below its least value it cannot be"
        ),
        Evidence.exact(float(measured["counted"]), "<=", 0, COUNTING),
    )


# %% [markdown]
# ## Merged squares, and maxima of neighbours
#
# **Token-Shuffle** (Ma et al. 2025) merges $s \times s$ tokens into one by putting them side by side, after squeezing each from width
# $d$ to $d/s^2$. Merging is a permutation. Squeezing loses nothing iff the embedded codes span at most $d / s^2$ dimensions: the least
# error of a linear squeeze is what the singular values beyond that leave (Eckart and Young).
#
# **The attention bottleneck** (Hilsenbek 2024) replaces attention by a parameter-free map of each token and the one before, plus an
# average. Maxima of neighbours, stacked $L$ times, are the maximum over a window of $L + 1$ tokens; whatever lies
# further back arrives only through the average, which is uniform causal attention.

# %%


@PROOFS.identity(
    "structured-mixers/tshuf.T1",
    where="token shuffle and unshuffle",
    paper="ma-2025-token-shuffle",
    statement="Merging squares of side $s$ and splitting them again returns every number exactly, and leaves $1/s^2$ of the tokens and "
    "$1/s^4$ of the pairs (4 x 6 and 6 x 12 images, s = 2, 3).",
    origin="equality: a permutation moves numbers and changes none",
    controls=[control("squares split as if they were rows", rows=True)],
)
def merging_squares_is_a_permutation(config: object, *, rows: bool = False) -> LabelledArrays:
    checks = []
    for shape, side in (((4, 6), 2), ((6, 12), 3)):
        image = normal("image to merge", 2, *shape, 5)
        merged = merge_squares(image, side)
        back = merged.reshape(image.shape) if rows else split_squares(merged, side)
        tokens = merged.shape[-3] * merged.shape[-2]
        checks.append((largest(back - image), 0.0))
        checks.append((float(abs(tokens * side**2 - shape[0] * shape[1])), 0.0))
        checks.append((float(abs(tokens**2 * side**4 - (shape[0] * shape[1]) ** 2)), 0.0))
    return deviations(checks)


SPANS = (2, 3, 4, 6)


@PROOFS.cases(claimed={})
def squeezed(config: object) -> LabelledArrays:
    """Relative error of the best linear squeeze of codes of c dimensions, embedded in 12, into the 3 that a square of side 2
    leaves to each token."""
    errors = []
    for span in SPANS:
        codes = normal(f"codes {span}", 64, span) @ normal(f"table {span}", span, 12)
        left, values, right = torch.linalg.svd(codes, full_matrices=False)
        kept = right[: 12 // 4]
        errors.append(float((codes - codes @ kept.T @ kept).norm() / codes.norm()))
    return {"error": labelled(errors, span=SPANS)}


@PROOFS.claim(
    "structured-mixers/tshuf.T2",
    where="derived: the redundancy of visual vocabularies that the paper builds on",
    paper="ma-2025-token-shuffle",
    kind="identity",
    statement="Squeezing tokens from width $d$ to $d/s^2$ before merging loses nothing iff their codes span at most $d/s^2$ dimensions: "
    "width 12, squares of side 2, room for 3; spans of 2 and 3 return to rounding.",
    controls=[control("codes that span 4 dimensions", spans=(4,)), control("codes that span 6 dimensions", spans=(6,))],
)
def squeezing_is_lossless_up_to_the_rank(results: Results, spans: tuple[int, ...] = (2, 3)) -> Evidence:
    errors = results[squeezed]["error"].sel(case="claimed", span=list(spans))
    # Backward error of the singular vectors: a modest multiple of the size of the matrix, and one product.
    return Evidence.exact(
        float(errors.max()), "<=", rounding_bound(16 * 64), "backward error of a decomposition of 64 x 12 codes"
    )


@PROOFS.identity(
    "structured-mixers/bottleneck.T1",
    where="derived: the averaged context of the paper",
    paper="hilsenbek-2024-bottleneck",
    statement="The running average of the tokens is causal attention with equal scores (20 tokens).",
    origin="rounding of two sums of n",
    controls=[control("the average of all tokens", full=True), control("scores that differ", scale=1.0)],
)
def running_average_is_uniform_attention(config: object, *, full: bool = False, scale: float = 0.0) -> LabelledArrays:
    tokens = normal("averaged", 20, 3)
    mask = masks.full(20) if full else masks.causal(20)
    attended = weights(scale * tokens, tokens, mask) @ tokens
    return deviations([(largest(attended - running_mean(tokens)), rounding_bound(2 * 20 + 4, largest(tokens) * 2))])


@PROOFS.cases(claimed={}, average={"average": True}, short={"extra": 0})
def window_maxima(config: object, *, average: bool = False, extra: int = 1) -> LabelledArrays:
    """Entries in which L stacked maxima are not those of a window of L + ``extra``, and tokens further back that
    are read."""
    tokens = normal("maxima", 16, 4)
    wrong = far = 0
    for layers in (1, 2, 3, 5):

        def outputs(x: Tensor, layers: int = layers) -> Tensor:
            return neighbour_maxima(x, layers) + (running_mean(x) if average else 0.0)

        window = layers + extra
        direct = torch.stack([tokens[max(0, t - window + 1) : t + 1].amax(0) for t in range(16)])
        wrong += int((neighbour_maxima(tokens, layers) != direct).sum())
        far += int((dependencies(outputs, tokens)[~masks.sliding_window(16, layers + 1)] != 0).sum())
    return {"wrong": wrong, "far": far}


@PROOFS.claim(
    "structured-mixers/bottleneck.T2",
    where="derived: the paper's map of each token and the one before",
    paper="hilsenbek-2024-bottleneck",
    kind="identity",
    statement="$L$ stacked maxima of neighbours are exactly the maximum over a window of $L + 1$ tokens and read no token further "
    "back (L = 1, 2, 3, 5; 16 tokens); the average alone does.",
    controls=[control("the running average added", case="average"), control("a window of L tokens", case="short")],
)
def maxima_of_neighbours_see_a_window(results: Results, case: str = "claimed") -> Evidence:
    measured = results[window_maxima].sel(case=case)
    return Evidence.all(
        Evidence.exact(int(measured["wrong"]), "<=", 0, "equality: a maximum is one of its numbers"),
        Evidence.exact(int(measured["far"]), "<=", 0, BOOLEANS),
    )


@PROOFS.figure
def cost_by_patch(results: Results) -> Sheet:
    """Pairs of attention of a two-level model against the patch, beside the best patch $(2T)^{1/3}$."""
    sheet = Sheet(width=6.4, height=4.2)
    panel = sheet.panel(
        "the best patch is the cube root of twice the length",
        x="patch P",
        y="pairs of attention / $T^{4/3}$",
        scale=("log", "log"),
        legend="outside",
    )
    for length in LENGTHS:
        patch = np.unique(np.geomspace(2, 300, 60).round())
        cost = ((length / patch) ** 2 + length * patch) / length ** (4 / 3)
        panel.line(patch, cost, name=f"T = {length}", marks=False, of="exact")
        panel.level(best_patch(length), f"$(2T)^{{1/3}}$, T = {length}", vertical=True)
    panel.level(1.5 * math.pow(2, 1 / 3), r"$\frac{3}{2}\, 2^{1/3}$")
    return sheet


# %%
PROOFS.show(axial_stack_is_raster_causal)
PROOFS.show(sampling_row_by_row_is_exact)
PROOFS.show(row_then_column_is_one_attention)
PROOFS.show(axial_attention_costs_two_cubes)
PROOFS.show(cost_by_patch)
PROOFS.show(two_levels_are_causal)
PROOFS.show(best_patch_is_the_cube_root_of_twice_the_length)
PROOFS.show(merging_squares_is_a_permutation)
PROOFS.show(squeezing_is_lossless_up_to_the_rank)
PROOFS.show(running_average_is_uniform_attention)
PROOFS.show(maxima_of_neighbours_see_a_window)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
