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
# # Scales of an image, and labels side by side
#
# Two masks that let many tokens be written in one step. Both turn on what tokens are told besides the mask: the inputs of
# a scale, the position ids of a label.
#
# ## Scales of an image
#
# Next-scale prediction writes an image as ever larger squares and attends inside a scale and to all coarser
# ones. One step a scale: 10 steps instead of 256. Attention inside the scale that is being predicted looks
# like a leak and is none, because a scale's *inputs* are the coarser ones brought to its size; feed a scale
# its own tokens and the answer is in sight.


# %%
from __future__ import annotations

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.attention.network_rounding import network_rounding_bound
from lab.domains.regression.prompts import random_orders
from lab.labels import LabelledArrays, labelled
from lab.models import masks
from lab.models.mask_patterns import labels_by_erasure, mask
from lab.models.masks import flow
from lab.models.transformer import KeyValueCache, Transformer
from lab.results import Results
from lab.streams import stream
from proofs_check.attention_masks._shared import (
    BOOLEANS,
    DEPTHS,
    SLUG,
    largest,
    network,
    outputs,
    pattern,
    prompt,
    within_rounding,
)

PROOFS = Task(SLUG, paper=SLUG)
SCALES = "scales 1, 2, 3"
SIDES = (1, 2, 3)
STARTS = (0, 1, 5, 14)


@PROOFS.cases(claimed={}, full={"kind": "full"})
def cached_scales(config: object, *, kind: str = "scales") -> LabelledArrays:
    """Difference between decoding scale after scale with a cache and one masked pass."""
    allowed = pattern(SCALES)
    joint = allowed if kind == "scales" else masks.full(14)
    differences, bounds = [], []
    for depth in DEPTHS:
        model, inputs, cache = network(depth), prompt(14), KeyValueCache()
        steps = [
            outputs(model, inputs[first:last], allowed[first:last, :last], cache=cache)
            for first, last in zip(STARTS, STARTS[1:], strict=False)
        ]
        differences.append(largest(torch.cat(steps) - outputs(model, inputs, joint)))
        bounds.append(network_rounding_bound(model, inputs, allowed))
    return {"difference": labelled(differences, depth=DEPTHS), "rounding": labelled(bounds, depth=DEPTHS)}


@PROOFS.claim(
    "attention-masks/var.cache",
    where="Tian et al. 2024, the mask of the released code",
    paper="tian-2024-next-scale",
    kind="identity",
    statement="Decoding scale after scale with cached keys and values equals one masked pass over all scales "
    "(sides 1, 2, 3; 1 to 3 layers).",
    controls=[control("a cache read under a full mask in the joint pass", case="full")],
)
def scales_can_be_cached(results: Results, case: str = "claimed") -> Evidence:
    return within_rounding(results[cached_scales].sel(case=case))


@PROOFS.cases(claimed={}, staying={"carried": False}, causal={"kind": "causal"})
def permuted_scale(config: object, *, carried: bool = True, kind: str = "scales") -> LabelledArrays:
    """Difference between permuting the tokens of the last scale and permuting its outputs; positions are ``carried`` along."""
    allowed = pattern(SCALES) if kind == "scales" else masks.causal(14)
    order = torch.cat((torch.arange(5), 5 + random_orders(stream(0, "inside"), 1, 9)[0]))
    differences, bounds = [], []
    for depth in DEPTHS:
        model, inputs, table = network(depth), prompt(14), prompt(14, "positions")
        permuted = inputs[order] + (table[order] if carried else table)
        change = outputs(model, permuted, allowed) - outputs(model, inputs + table, allowed)[order]
        differences.append(largest(change))
        bounds.append(network_rounding_bound(model, inputs + table, allowed))
    return {"difference": labelled(differences, depth=DEPTHS), "rounding": labelled(bounds, depth=DEPTHS)}


@PROOFS.claim(
    "attention-masks/var.inside",
    where="derived",
    kind="identity",
    statement="Inside a scale there is no order: permuting the tokens of one scale together with their positions "
    "permutes its outputs and changes no other scale.",
    controls=[
        control("positions that stay where they were", case="staying"),
        control("a causal mask inside the scale", case="causal"),
    ],
)
def inside_a_scale_there_is_no_order(results: Results, case: str = "claimed") -> Evidence:
    return within_rounding(results[permuted_scale].sel(case=case))


def inputs_of_scales(targets: Tensor, own_targets: bool) -> Tensor:
    """Inputs [1, batch, token, width] of all scales: the coarser targets brought to their size, or ``own_targets``."""
    parts = [targets[:, :, first:last] for first, last in zip(STARTS, STARTS[1:], strict=False)]
    if own_targets:
        return torch.cat(parts, 2)
    inputs = [torch.ones_like(parts[0])]
    for place in range(1, len(SIDES)):
        side = SIDES[place]
        total: Tensor = torch.zeros(())
        for coarser, part in zip(SIDES[:place], parts[:place], strict=True):
            square = part[0].mT.unflatten(-1, (coarser, coarser))
            total = total + F.interpolate(square, size=(side, side), mode="bilinear", align_corners=False)
        inputs.append(total.flatten(2).mT[None])
    return torch.cat(inputs, 2)


def scale_outputs(model: Transformer, own_targets: bool, targets: Tensor, allowed: Tensor) -> Tensor:
    """Outputs of all scales as a function of their targets."""
    answers: Tensor = model(inputs_of_scales(targets, own_targets), allowed)
    return answers


@PROOFS.cases(claimed={}, own={"own_targets": True})
def flow_between_scales(config: object, *, own_targets: bool = False) -> LabelledArrays:
    """Pairs of scales whose flow is not the one from coarse to fine."""
    scale = torch.repeat_interleave(torch.arange(3), torch.tensor([side**2 for side in SIDES]))
    differing = []
    for depth in DEPTHS:
        outputs_of_scales = partial(scale_outputs, network(depth), own_targets)
        reached = flow(outputs_of_scales, prompt(14), pattern(SCALES))
        between = torch.zeros(3, 3, dtype=torch.float64)
        between = between.index_put((scale[:, None].expand(14, 14), scale.expand(14, 14)), reached, accumulate=True)
        differing.append(int(((between != 0) != torch.ones(3, 3).tril(-1).bool()).sum()))
    return {"count": labelled(differing, depth=DEPTHS)}


@PROOFS.claim(
    "attention-masks/var.no-leak",
    where="Tian et al. 2024",
    paper="tian-2024-next-scale",
    kind="identity",
    statement="If the inputs of scale $k$ are the sum of the coarser scales brought to its size, its outputs do "
    "not depend on its own tokens although they attend to their own scale: exactly $0$, and not $0$ for "
    "every coarser scale.",
    controls=[control("the scale's own tokens as its inputs", case="own")],
)
def coarser_scales_do_not_leak(results: Results, case: str = "claimed") -> Evidence:
    differing = results[flow_between_scales]["count"].sel(case=case).sum()
    return Evidence.exact(int(differing), "<=", 0, "pairs of scales with another flow than from coarse to fine")


# %%
PROOFS.show(scales_can_be_cached)
PROOFS.show(inside_a_scale_there_is_no_order)
PROOFS.show(coarser_scales_do_not_leak)

# %% [markdown]
# ## Labels side by side
#
# Object recognition as next-token prediction decodes several labels of one image at once: each label sees
# image, prompt and itself, never another label. Then a label's outputs are the same alone or in company,
# and exchanging labels exchanges outputs, **provided position ids start again at every label**. With
# running ids the mask still separates the labels but a label's place in the list is in its positions, and
# the outputs move.

# %%
IMAGE, PROMPT, LABELS = 3, 2, (2, 1, 3)
COMMON = IMAGE + PROMPT
LISTED = (0, 1, 2)


def label_inputs(order: tuple[int, ...], running: bool) -> tuple[Tensor, Tensor]:
    """Tokens (with positions) and mask of these labels, in this order."""
    tokens = prompt(COMMON + sum(LABELS))
    starts = np.cumsum((COMMON, *LABELS))
    parts = [tokens[starts[label] : starts[label + 1]] for label in order]
    inputs = torch.cat([tokens[:COMMON], *parts])
    ids = torch.cat([torch.arange(COMMON), *(COMMON + torch.arange(len(part)) for part in parts)])
    table = prompt(len(tokens), "positions")
    lengths = [LABELS[label] for label in order]
    allowed = mask("labels_independent", image=IMAGE, prompt=PROMPT, labels=lengths)
    return inputs + table[torch.arange(len(inputs)) if running else ids], allowed


def label_outputs(model: Transformer, order: tuple[int, ...], running: bool) -> dict[int, Tensor]:
    """Outputs of each label, by its number."""
    answers = outputs(model, *label_inputs(order, running))[COMMON:]
    return dict(zip(order, answers.split([LABELS[label] for label in order]), strict=True))


def label_changes(orders: tuple[tuple[int, ...], ...], running: bool) -> LabelledArrays:
    """Outputs of labels under each of these orders against those in the order 0, 1, 2."""
    differences, bounds = [], []
    for depth in DEPTHS:
        model = network(depth)
        reference = label_outputs(model, LISTED, running)
        bounds.append(network_rounding_bound(model, *label_inputs(LISTED, running)))
        for order in orders:
            answers = label_outputs(model, order, running)
            differences.append(max(largest(answers[label] - reference[label]) for label in order))
    names = tuple(", ".join(map(str, order)) for order in orders)
    return {
        "difference": labelled(np.reshape(differences, (len(DEPTHS), -1)), depth=DEPTHS, order=names),
        "rounding": labelled(bounds, depth=DEPTHS),
    }


@PROOFS.cases(claimed={}, running={"running": True})
def labels_alone(config: object, *, running: bool = False) -> LabelledArrays:
    """Change of a label's outputs when others are left out; ``running`` are position ids that do not start again."""
    return label_changes(((0,), (1,), (2,), (1, 2)), running)


@PROOFS.claim(
    "attention-masks/nxtp.alone",
    where="Yue et al. 2024, the mask of the released code",
    paper="yue-2024-object-recognition",
    kind="identity",
    statement="With position ids that start again at every label, a label's outputs are the same alone or among "
    "others (1 to 3 layers).",
    controls=[control("running position ids", case="running")],
)
def labels_do_not_hear_each_other(results: Results, case: str = "claimed") -> Evidence:
    return within_rounding(results[labels_alone].sel(case=case))


@PROOFS.cases(claimed={}, running={"running": True})
def exchanged_labels(config: object, *, running: bool = False) -> LabelledArrays:
    """Change of a label's outputs when labels are exchanged; ``running`` are position ids that do not start again."""
    return label_changes(((1, 0, 2), (2, 1, 0), (1, 2, 0)), running)


@PROOFS.claim(
    "attention-masks/nxtp.swap",
    where="Yue et al. 2024, with its condition (derived)",
    paper="yue-2024-object-recognition",
    kind="identity",
    statement="With position ids that start again at every label, exchanging labels exchanges their outputs.",
    controls=[control("running position ids", case="running")],
)
def labels_have_no_order(results: Results, case: str = "claimed") -> Evidence:
    return within_rounding(results[exchanged_labels].sel(case=case))


@PROOFS.cases(claimed={}, visible={"erased": False}, causal={"rule": False})
def erasing_decoder(config: object, *, erased: bool = True, rule: bool = True) -> LabelledArrays:
    """Difference between decoding with a cache, finished labels ``erased``, and the training mask; and the entries in which
    that mask differs from the causal one with label columns erased and their triangles opened (without the ``rule``: from
    the causal one)."""
    inputs, allowed = label_inputs(LISTED, running=False)
    steps = np.cumsum((COMMON, *LABELS))
    differences, bounds = [], []
    for depth in DEPTHS:
        model, cache = network(depth), KeyValueCache()
        decoded = [outputs(model, inputs[:COMMON], allowed[:COMMON, :COMMON], cache=cache)]
        for first, last in zip(steps, steps[1:], strict=False):
            for token in range(first, last):
                row = torch.ones(1, token + 1, dtype=torch.bool)
                row[:, COMMON:first] = not erased
                decoded.append(outputs(model, inputs[token : token + 1], row, cache=cache))
        differences.append(largest(torch.cat(decoded) - outputs(model, inputs, allowed)))
        bounds.append(network_rounding_bound(model, inputs, allowed))
    built = labels_by_erasure(IMAGE, PROMPT, LABELS) if rule else masks.causal(len(allowed))
    return {
        "entries": int((built != allowed).sum()),
        "difference": labelled(differences, depth=DEPTHS),
        "rounding": labelled(bounds, depth=DEPTHS),
    }


@PROOFS.claim(
    "attention-masks/nxtp.decoding",
    where="Yue et al. 2024, the rule of inference",
    paper="yue-2024-object-recognition",
    kind="identity",
    statement="Erasing the columns of finished labels while decoding with a cache gives the outputs of the "
    "training mask, and the training mask is the causal one with all label columns erased and each "
    "label's own triangle opened again.",
    controls=[
        control("finished labels that stay visible", case="visible"),
        control("the causal mask, nothing erased, as the training mask", case="causal"),
    ],
)
def decoding_erases_what_training_hides(results: Results, case: str = "claimed") -> Evidence:
    measured = results[erasing_decoder].sel(case=case)
    return Evidence.all(Evidence.exact(int(measured["entries"]), "<=", 0, BOOLEANS), within_rounding(measured))


# %%
PROOFS.show(labels_do_not_hear_each_other)
PROOFS.show(labels_have_no_order)
PROOFS.show(decoding_erases_what_training_hides)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
