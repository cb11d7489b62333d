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
# # Symmetry: when does a network without positions notice order?
#
# Flow (`flow.py`) says who hears of whom; not whether the order of what is heard matters. Under the full mask, permuting
# the tokens permutes the outputs, and so the last token's output does not
# move when the others are permuted. It is said that a causal mask breaks this symmetry. For *one* layer it
# does not: the last token attends to everything and sees the same multiset in any order. Only what the
# earlier tokens have made of *their* pasts, one layer later, tells the order. An absolute position table
# breaks the symmetry at once.
#
# The general rule is colour refinement. Colour each token by its content; then, $L$ times, colour it by its
# own colour and by how many tokens of each colour it sees. Row $i$ notices a permutation iff its colour
# after $L$ rounds differs.


# %%
from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.attention.network_rounding import network_rounding_bound
from lab.domains.attention.permutation_symmetry import unchanged_rows
from lab.domains.regression.prompts import random_orders
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.models.mask_patterns import mask
from lab.results import Results
from lab.streams import stream
from proofs_check.attention_masks._shared import (
    DEPTHS,
    PATTERNS,
    ROUNDING,
    SLUG,
    largest,
    network,
    outputs,
    pattern,
    prompt,
    within_rounding,
)

PROOFS = Task(SLUG, paper=SLUG)
TOKENS = 9


def symmetric_inputs(length: int, positions: bool) -> tuple[Tensor, Tensor]:
    """Tokens and a table of positions to add to them (zeros without positions), [token, width]."""
    inputs = prompt(length)
    return inputs, prompt(length, "positions") if positions else torch.zeros_like(inputs)


def row_changes(depth: int, allowed: Tensor, order: Tensor, positions: bool = False) -> Tensor:
    """|out(x) - out(x permuted)| of every row, its largest coordinate."""
    inputs, table = symmetric_inputs(len(allowed), positions)
    model, permuted = network(depth), inputs[order] + table
    return (outputs(model, inputs + table, allowed) - outputs(model, permuted, allowed)).abs().amax(-1)


def symmetry_bound(depth: int, allowed: Tensor, positions: bool = False) -> float:
    """What rounding may leave of a symmetry of this network."""
    inputs, table = symmetric_inputs(len(allowed), positions)
    return network_rounding_bound(network(depth), inputs + table, allowed)


def without_the_last(length: int, index: int) -> Tensor:
    """A random order of all tokens but the last, which stays."""
    order = random_orders(stream(0, "orders"), index + 1, length - 1)[index]
    return torch.cat((order, torch.tensor([length - 1])))


@PROOFS.cases(claimed={}, causal={"kind": "causal"}, positions={"positions": True})
def equivariance(config: object, *, kind: str = "full", positions: bool = False) -> LabelledArrays:
    """Change of the last output, and of all outputs against the permuted ones, when all tokens but the last are permuted."""
    allowed, order = mask(kind, length=TOKENS), without_the_last(TOKENS, 0)
    differences, bounds = [], []
    for depth in DEPTHS:
        model, (inputs, table) = network(depth), symmetric_inputs(TOKENS, positions)
        permuted = outputs(model, inputs[order] + table, allowed)
        rows = largest(permuted - outputs(model, inputs + table, allowed)[order])
        differences.append([float(row_changes(depth, allowed, order, positions)[-1]), rows])
        bounds.append(symmetry_bound(depth, allowed, positions))
    return {
        "difference": labelled(differences, depth=DEPTHS, rows=("last", "all")),
        "rounding": labelled(bounds, depth=DEPTHS),
    }


@PROOFS.claim(
    "attention-masks/sym.T1",
    where="Zuo and Guerzhoy 2024, opening",
    paper="zuo-2024-symmetry",
    kind="identity",
    statement="Without positions and under the full mask the network is equivariant: permuting its tokens permutes "
    "its outputs, and the output of the last token does not change when the others are permuted (9 "
    "tokens, 1 to 3 layers).",
    controls=[
        control("a causal mask, two layers", case="causal", depths=(2,)),
        control("an absolute position table", case="positions"),
    ],
)
def full_attention_is_equivariant(
    results: Results, case: str = "claimed", depths: tuple[int, ...] = DEPTHS
) -> Evidence:
    return within_rounding(results[equivariance].sel(case=case, depth=list(depths)))


@PROOFS.cases(full={"kind": "full"}, causal={"kind": "causal"}, positions={"kind": "causal", "positions": True})
def last_output(config: object, *, kind: str, positions: bool = False) -> LabelledArrays:
    """Change of the last output under eight orders of the tokens before it, and what rounding may make of it."""
    allowed, depths = mask(kind, length=TOKENS), (*DEPTHS, 4)
    orders = [without_the_last(TOKENS, index) for index in range(8)]
    changes = [[float(row_changes(depth, allowed, order, positions)[-1]) for order in orders] for depth in depths]
    bounds = [symmetry_bound(depth, allowed, positions) for depth in depths]
    return {
        "change": labelled(changes, depth=depths, order=range(len(orders))),
        "rounding": labelled(bounds, depth=depths),
    }


def first_order(results: Results, case: str, depths: tuple[int, ...]) -> xr.Dataset:
    """Change and rounding of the last output under the first of the orders."""
    measured: xr.Dataset = results[last_output].sel(case=case, order=0, depth=list(depths))
    return measured


@PROOFS.claim(
    "attention-masks/sym.T2",
    where="Zuo and Guerzhoy 2024, with its condition (derived)",
    paper="zuo-2024-symmetry",
    kind="identity",
    statement="Under a causal mask and without positions, permuting the earlier tokens leaves the last output as "
    "it is for one layer, and moves it by more than $10^{-3}$ for two and for three.",
    controls=[
        control("the full mask, which never breaks it", case="full"),
        control("an absolute position table, which breaks it in one layer", case="positions"),
    ],
)
def causal_symmetry_breaks_from_two_layers(results: Results, case: str = "causal") -> Evidence:
    measured = first_order(results, case, DEPTHS)
    shallow, deeper = measured.sel(depth=1), measured["change"].sel(depth=[2, 3])
    return Evidence.all(
        Evidence.exact(float(shallow["change"]), "<=", float(shallow["rounding"]), ROUNDING),
        Evidence.exact(float(deeper.min()), ">", 1e-3, "far above rounding and below any use of the order"),
    )


@PROOFS.claim(
    "attention-masks/sym.T2.any-depth",
    where="our reading: a condition that the abstract of Zuo and Guerzhoy 2024 leaves open",
    paper="zuo-2024-symmetry",
    kind="identity",
    statement="A causal mask breaks the symmetry of the last output only together with depth: under each of eight orders of "
    "the earlier tokens that output stays as it is with one layer, and moves by more than $10^{-3}$ with two, three and four.",
    controls=[
        control("the full mask, which never breaks it", case="full"),
        control("an absolute position table, which breaks it in one layer", case="positions"),
    ],
)
def the_break_needs_a_second_layer(results: Results, case: str = "causal") -> Evidence:
    measured = results[last_output].sel(case=case)
    shallow, deeper = measured.sel(depth=1), measured["change"].sel(depth=slice(2, None))
    return Evidence.all(
        Evidence.exact(float(shallow["change"].max()), "<=", float(shallow["rounding"]), ROUNDING),
        Evidence.exact(float(deeper.min()), ">", 1e-3, "far above rounding and below any use of the order"),
    )


@PROOFS.cases(claimed={}, shallow={"rounds": 1}, positions={"positions": True})
def mispredicted_rows(config: object, *, rounds: int = 0, positions: bool = False) -> LabelledArrays:
    """Rows, under four orders, whose change is not the one that colour refinement predicts, rounding aside.

    ``rounds`` of 0 are as many as there are layers.
    """
    wrong = []
    for title in PATTERNS:
        allowed = pattern(title)
        orders = [without_the_last(len(allowed), index) for index in range(4)]
        for depth in DEPTHS:
            moved = torch.stack([row_changes(depth, allowed, order, positions) for order in orders])
            predicted = torch.stack([unchanged_rows(allowed, order, rounds or depth) for order in orders])
            unmoved = moved <= symmetry_bound(depth, allowed, positions)
            wrong.append(int((unmoved != predicted).sum()))
    return {"wrong": labelled(np.reshape(wrong, (-1, len(DEPTHS))), pattern=tuple(PATTERNS), depth=DEPTHS)}


@PROOFS.claim(
    "attention-masks/sym.rows",
    where="derived",
    kind="identity",
    statement="Which rows' outputs change under a permutation of the tokens is what $L$ rounds of colour "
    "refinement predict, for every pattern, $L = 1, 2, 3$ and four random permutations each.",
    controls=[
        control("the prediction of one round for all depths", case="shallow"),
        control("tokens that carry positions, and a prediction without", case="positions"),
    ],
)
def colours_predict_which_rows_move(results: Results, case: str = "claimed") -> Evidence:
    wrong = results[mispredicted_rows]["wrong"].sel(case=case).sum()
    return Evidence.exact(int(wrong), "<=", 0, "rows whose change is not the predicted one, rounding aside")


@PROOFS.figure
def symmetry_by_depth(results: Results) -> Sheet:
    """Change of the last output when the tokens before it are permuted, against depth."""
    measured = results[last_output]
    sheet = Sheet(width=6.4, height=4.2, foot="changes below 1e-17 are drawn there")
    panel = sheet.panel(
        "a causal mask reveals the order from the second layer on",
        x="layers",
        y="largest change of the last output",
        scale=("linear", "log"),
        ylim=(1e-18, 1e2),
        xticks=measured["depth"].values,
        legend="outside",
    )
    for case, name, arm in (
        ("full", "full mask", "prefix"),
        ("causal", "causal mask", "causal"),
        ("positions", "causal mask and positions", None),
    ):
        changes = np.maximum(measured["change"].sel(case=case), 1e-17)
        panel.curve(changes, "depth", name=name, arm=arm, across="order", middle="geometric mean", band="range")
    bounds = measured["rounding"].sel(case="causal")
    panel.theory(bounds["depth"].values, bounds.values, name="rounding bound")
    return sheet


# %%
PROOFS.show(symmetry_by_depth)
PROOFS.show(full_attention_is_equivariant)
PROOFS.show(causal_symmetry_breaks_from_two_layers)
PROOFS.show(the_break_needs_a_second_layer)
PROOFS.show(colours_predict_which_rows_move)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
