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
# # Segments, pointers, clean and noisy blocks
#
# Flow and symmetry (`flow.py`, `symmetry.py`) settle what the masks of particular papers promise. First those that cut a
# text, or an image under diffusion, into blocks.
#
# ## Segments
#
# A prompt made of contiguous segments (system text, question, documents) may be read in full *inside* each
# segment: token $i$ sees up to the end of its own segment. Generated tokens are causal. Nothing flows
# backwards across segments, so the keys and values of a system prompt can be cached once and for all. The
# mask adds no parameter: here, as in all of the lab, it is an argument. For generated rows the mask is the
# causal one, which makes their outputs equal to the causal ones in one layer; in more, they read prompt
# tokens that have seen more.


# %%
from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.attention.network_rounding import network_rounding_bound
from lab.domains.attention.pointer_jumping import causal_accuracy, follow, jump, long_cycle_accuracy, tree_orders
from lab.labels import LabelledArrays, labelled
from lab.models import masks
from lab.models.mask_patterns import mask
from lab.models.masks import flow
from lab.results import Results
from lab.statistics import rounding_bound
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
SEGMENTED = "segments, then generated"


@PROOFS.cases(claimed={}, turns={"title": "two speakers in turns", "ends": (2, 4)})
def cached_segments(config: object, *, title: str = SEGMENTED, ends: tuple[int, int] = (3, 7)) -> LabelledArrays:
    """Change of the outputs of the first segment, and of the first two, when what follows is left out."""
    allowed = pattern(title)
    differences, bounds = [], []
    for depth in DEPTHS:
        model, inputs = network(depth), prompt(len(allowed))
        full_outputs = outputs(model, inputs, allowed)
        alone = [outputs(model, inputs[:end], allowed[:end, :end]) for end in ends]
        differences.append(
            [largest(prefix_outputs - full_outputs[:end]) for prefix_outputs, end in zip(alone, ends, strict=True)]
        )
        bounds.append(network_rounding_bound(model, inputs, allowed))
    return {
        "difference": labelled(differences, depth=DEPTHS, segments=(1, 2)),
        "rounding": labelled(bounds, depth=DEPTHS),
    }


@PROOFS.claim(
    "attention-masks/mas.cache",
    where="Katz et al. 2025",
    paper="katz-2025-segments",
    kind="identity",
    statement="Under a segment mask (contiguous segments of 3 and 4 tokens, 3 generated) the outputs of the first "
    "segment, and of the whole prompt, are the same whether what follows is there or not (1 to 3 layers).",
    controls=[control("a segment number used again after another speaker's turn", case="turns")],
)
def earlier_segments_can_be_cached(results: Results, case: str = "claimed") -> Evidence:
    return within_rounding(results[cached_segments].sel(case=case))


@PROOFS.cases(claimed={}, deeper={"depth": 2}, segment={"own_segment": True})
def generated_rows(config: object, *, depth: int = 1, own_segment: bool = False) -> LabelledArrays:
    """Entries in which the rows of generated tokens are not causal, and the difference of their outputs to causal ones."""
    allowed, causal = pattern(SEGMENTED), masks.causal(10)
    if own_segment:
        allowed = masks.segment([0] * 3 + [1] * 4 + [2] * 3)
    model, inputs = network(depth), prompt(10)
    return {
        "rows": int((allowed[7:] != causal[7:]).sum()),
        "difference": largest((outputs(model, inputs, allowed) - outputs(model, inputs, causal))[7:]),
        "rounding": network_rounding_bound(model, inputs, allowed),
    }


@PROOFS.claim(
    "attention-masks/mas.generated",
    where="Katz et al. 2025",
    paper="katz-2025-segments",
    kind="identity",
    statement="Rows of generated tokens are those of the causal mask, so one layer gives generated tokens the "
    "outputs of a causal network.",
    controls=[
        control("two layers, which read prompt tokens that have seen more", case="deeper"),
        control("generated tokens that are a segment of their own", case="segment"),
    ],
)
def generated_rows_are_causal(results: Results, case: str = "claimed") -> Evidence:
    measured = results[generated_rows].sel(case=case)
    return Evidence.all(Evidence.exact(int(measured["rows"]), "<=", 0, BOOLEANS), within_rounding(measured))


# %% [markdown]
# **Pointer jumping** is the cleanest task in which earlier tokens need later ones. Token $i$ holds a
# pointer $\pi(i)$ of a random permutation; one layer of hard attention lets it read the token its pointer
# names and take over that one's pointer. With full sight $L$ layers give $\pi^{2^L}$ everywhere. Under a
# causal mask a token can only follow pointers that lead back, which happens with probability $(n+1)/2n$ for
# one layer; in general $2^L$ tokens must stand in the order of a tree. On a long cycle $x_0, x_1, \dots$ token $x_0$ must find
# $x_1$, then $x_2, x_4, \dots$ before itself, and each $x_{2^k}$ must hold $x_{2^{k+1}}$ by the same rule: a binomial tree $B_L$. A
# random order of a tree is right with probability one over the product of all its subtrees' sizes, and the logarithm of
# that product obeys $h_L = L + h_0 + \dots + h_{L-1}$, so that $h_L = 2^L - 1$: the probability is $2^{1 - 2^L}$, that is $1/2,
# 1/8, 1/128, 1/32768$, squared and halved by every further layer. Short cycles add to it. (Trained networks reach the limits
# of two hops: `tasks/attention_masks/pointers.py`.)


# %%
LENGTHS = range(2, 8)


@PROOFS.cases(claimed={}, full={"sight": "full"}, half={"parts": 2})
def held_pointers(config: object, *, sight: str = "causal", parts: int = 1) -> LabelledArrays:
    """Share of tokens, over all permutations, that hold the right pointer: in the arm ``sight``, and where the first of
    ``parts`` equal parts is seen by all (1: full sight)."""
    held, seeing_all = [], []
    for length in LENGTHS:
        orders = torch.cartesian_prod(*[torch.arange(length)] * length)
        pointers = orders[(orders.sort(-1).values == torch.arange(length)).all(-1)]
        for layers in DEPTHS:
            goal = follow(pointers, 2**layers)
            held.append(float((jump(pointers, mask(sight, length=length), layers) == goal).double().mean()))
            prefix = masks.prefix_lm(length, length // parts)
            seeing_all.append(float((jump(pointers, prefix, layers) == goal).double().mean()))
    shape, axes = (len(LENGTHS), len(DEPTHS)), {"length": LENGTHS, "layers": DEPTHS}
    return {
        "held": labelled(np.reshape(held, shape), **axes),
        "seeing_all": labelled(np.reshape(seeing_all, shape), **axes),
    }


@PROOFS.claim(
    "attention-masks/mas.pointers",
    where="derived",
    kind="identity",
    statement=r"Over all permutations of $n = 2, \dots, 7$ tokens, $L = 1, 2, 3$ causal layers of pointer jumping "
    r"hold $\pi^{2^L}(i)$ for the share of tokens that the hook length formula and short cycles give, and "
    "full sight holds it always.",
    controls=[
        control("the law of one layer for all depths", law_layers=1),
        control("full sight, held to the causal law", case="full"),
        control("a prefix of half the tokens in the place of full sight", case="half"),
    ],
)
def pointer_jumping_follows_its_law(results: Results, case: str = "claimed", law_layers: int = 0) -> Evidence:
    measured = results[held_pointers].sel(case=case)
    law = [[causal_accuracy(length, law_layers or layers) for layers in DEPTHS] for length in LENGTHS]
    held = abs(measured["held"] - labelled(law, length=LENGTHS, layers=DEPTHS)).max()
    seeing_all = abs(measured["seeing_all"] - 1).max()
    origin = "rounding of means of 0s and 1s and of at most 10 shares"
    return Evidence.within([held, seeing_all], [rounding_bound(64)] * 2, origin)


# %%
HOPS = (1, 2, 3, 4)


@PROOFS.cases(claimed={}, full={"sight": "full"}, short={"shorter": 1})
def orders_of_a_cycle(config: object, *, sight: str = "causal", shorter: int = 0) -> LabelledArrays:
    """Share of the orders of a cycle of $2^L$ tokens in which one token holds $\\pi^{2^L}$: all orders with hard attention for
    up to three layers; and orders of a binomial tree, counted."""
    shares = []
    for layers in HOPS[:-1]:
        length = 2**layers - shorter
        orders = torch.tensor(list(itertools.permutations(range(length))))
        pointers = torch.empty_like(orders).scatter_(1, orders, orders.roll(-1, 1))
        held = jump(pointers, mask(sight, length=length), layers) == follow(pointers, 2**layers)
        shares.append(float(held.double().mean()))
    trees = [tree_orders(layers) / math.factorial(2**layers) for layers in HOPS]
    return {"attention": labelled(shares, layers=HOPS[:-1]), "tree": labelled(trees, hops=HOPS)}


@PROOFS.claim(
    "attention-masks/mas.hops",
    where="derived",
    kind="identity",
    statement=r"On a cycle of $2^L$ tokens $L$ causal layers of pointer jumping hold $\pi^{2^L}$ with probability exactly $2^{1 - 2^L}$: "
    "over all orders for $L = 1, 2, 3$, and in the count of a binomial tree's orders for $L = 1, 2, 3, 4$.",
    controls=[
        control("full sight", case="full"),
        control("a cycle that is shorter by one token", case="short"),
        control("the law of one layer less", fewer=1),
    ],
)
def hops_by_depth(results: Results, case: str = "claimed", fewer: int = 0) -> Evidence:
    measured = results[orders_of_a_cycle].sel(case=case)
    laws = {layers: long_cycle_accuracy(layers - fewer) for layers in HOPS}
    attention = max(abs(float(measured["attention"].sel(layers=layers)) - laws[layers]) for layers in HOPS[:-1])
    tree = max(abs(float(measured["tree"].sel(hops=hops)) / laws[hops] - 1) for hops in HOPS)
    return Evidence.all(
        Evidence.exact(attention, "<=", rounding_bound(64), "rounding of means of 0s and 1s"),
        Evidence.exact(tree, "<=", rounding_bound(2), "rounding of one quotient of integers"),
    )


# %%
PROOFS.show(earlier_segments_can_be_cached)
PROOFS.show(generated_rows_are_causal)
PROOFS.show(pointer_jumping_follows_its_law)
PROOFS.show(hops_by_depth)

# %% [markdown]
# ## Clean and noisy blocks
#
# Block-wise diffusion is trained in one pass: $T$ clean blocks of $B$ tokens, then the same blocks with
# noise. Noisy block $k$ sees the clean blocks before it and itself, so that it can be denoised given true
# pasts. What the mask promises: block $k$ computed alone after its past gives the same result (so a cache
# is exact), the clean stream never hears of noise, and the *last clean block is read by nobody*: it may be
# dropped in training, $1/2T$ of all tokens. Two limits: one token a block makes the clean stream an
# ordinary causal model; one block makes the noisy stream ordinary diffusion with full attention.

# %%
BLOCKS, BLOCK = 3, 2
HALF = BLOCKS * BLOCK


def clean_noisy(leak: bool = False, blocks: int = BLOCKS, block_size: int = BLOCK) -> Tensor:
    """The mask; with ``leak``, noisy block k also sees clean block k, which is the answer."""
    allowed = mask("clean_noisy", blocks=blocks, block_size=block_size)
    half = blocks * block_size
    block_diagonal = allowed[half:, half:]
    if leak:
        allowed[half:, :half] |= block_diagonal
    return allowed


@PROOFS.cases(claimed={}, leak={"leak": True})
def blocks_alone(config: object, *, leak: bool = False) -> LabelledArrays:
    """Difference between a noisy block in the joint pass and alone after its past."""
    allowed, intended = clean_noisy(leak), clean_noisy()
    differences, bounds = [], []
    for depth in DEPTHS:
        model, inputs = network(depth), prompt(2 * HALF)
        joint = outputs(model, inputs, allowed)
        bounds.append(network_rounding_bound(model, inputs, allowed))
        for block in range(BLOCKS):
            noisy = torch.arange(HALF + block * BLOCK, HALF + (block + 1) * BLOCK)
            kept = torch.cat((torch.arange(block * BLOCK), noisy))
            alone = outputs(model, inputs[kept], intended[kept][:, kept])[-BLOCK:]
            differences.append(largest(alone - joint[noisy]))
    return {
        "difference": labelled(np.reshape(differences, (-1, BLOCKS)), depth=DEPTHS, block=range(BLOCKS)),
        "rounding": labelled(bounds, depth=DEPTHS),
    }


@PROOFS.claim(
    "attention-masks/acdit.alone",
    where="ACDiT 2024, the mask of the released code",
    paper="hu-2024-acdit",
    kind="identity",
    statement="Noisy block $k$ computed alone after the clean blocks before it equals the joint pass over all "
    "clean and noisy blocks ($T = 3$, $B = 2$, 1 to 3 layers).",
    controls=[control("a noisy block that sees its own clean block", case="leak")],
)
def noisy_blocks_stand_alone(results: Results, case: str = "claimed") -> Evidence:
    return within_rounding(results[blocks_alone].sel(case=case))


@PROOFS.cases(claimed={}, leak={"leak": True}, open_clean={"open_clean": True})
def forbidden_derivatives(config: object, *, leak: bool = False, open_clean: bool = False) -> LabelledArrays:
    """Largest derivatives of clean outputs by noisy tokens, and of noisy outputs by the last clean block."""
    allowed = clean_noisy(leak)
    if open_clean:
        allowed[:HALF, HALF:] = True
    derivatives = []
    for depth in DEPTHS:
        moved = flow(network(depth), prompt(2 * HALF), allowed)
        derivatives.append([largest(moved[:HALF, HALF:]), largest(moved[HALF:, HALF - BLOCK : HALF])])
    return {"derivative": labelled(derivatives, depth=DEPTHS, way=("noise to clean", "last clean to noisy"))}


@PROOFS.claim(
    "attention-masks/acdit.flow",
    where="derived",
    kind="identity",
    statement="No clean output depends on a noisy token, and no noisy output on the last clean block: these "
    "derivatives are exactly $0$ (1 to 3 layers).",
    controls=[
        control("a noisy block that sees its own clean block", case="leak"),
        control("a clean stream that sees noise", case="open_clean"),
    ],
)
def clean_stream_is_clean_and_its_end_is_unread(results: Results, case: str = "claimed") -> Evidence:
    derivative = results[forbidden_derivatives]["derivative"].sel(case=case).max()
    return Evidence.exact(float(derivative), "<=", 0.0, "a hidden weight is exactly 0")


@PROOFS.cases(claimed={}, two_tokens={"block_size": 2}, two_blocks={"blocks": 2})
def limits_of_blocks(config: object, *, block_size: int = 1, blocks: int = 1) -> LabelledArrays:
    """Difference of the clean stream to a causal network, and of the noisy stream to full attention over its own tokens."""
    differences, bounds = [], []
    for depth in DEPTHS:
        model, inputs = network(depth), prompt(12)
        small = clean_noisy(blocks=6 // block_size, block_size=block_size)
        clean = outputs(model, inputs, small)[:6] - outputs(model, inputs[:6], masks.causal(6))
        large = clean_noisy(blocks=blocks, block_size=6 // blocks)
        noisy = outputs(model, inputs, large)[6:] - outputs(model, inputs[6:], masks.full(6))
        differences.append([largest(clean), largest(noisy)])
        bounds.append([network_rounding_bound(model, inputs, allowed) for allowed in (small, large)])
    axes = {"depth": DEPTHS, "limit": ("one token a block", "one block")}
    return {"difference": labelled(differences, **axes), "rounding": labelled(bounds, **axes)}


@PROOFS.claim(
    "attention-masks/acdit.limits",
    where="derived",
    kind="identity",
    statement="With one token a block the clean stream is a causal network; with a single block the noisy stream "
    "is a network with full attention over its own tokens.",
    controls=[
        control("two tokens a block for the first limit", case="two_tokens"),
        control("two blocks for the second limit", case="two_blocks"),
    ],
)
def block_diffusion_has_two_limits(results: Results, case: str = "claimed") -> Evidence:
    return within_rounding(results[limits_of_blocks].sel(case=case))


# %%
PROOFS.show(noisy_blocks_stand_alone)
PROOFS.show(clean_stream_is_clean_and_its_end_is_unread)
PROOFS.show(block_diffusion_has_two_limits)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
