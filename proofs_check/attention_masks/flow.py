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
# # What a mask allows: flow is reachability
#
# An attention mask says which token may look at which. It has no parameters and it is the only difference
# between a causal language model, a prefix model, block-wise diffusion, next-scale images and decoding in
# random order. This folder proves, with random weights and no training, what follows from the mask alone:
#
# 1. **Flow** (here). After $L$ layers output $i$ depends on input $j$ iff a power of the mask says so: an equality
#    of booleans, checked against the exact zeros of the Jacobian, for every pattern of the lab.
# 2. **Symmetry** (`symmetry.py`). Without positions a network sees multisets. Which outputs notice that tokens were
#    permuted can be predicted by refining colours, and a causal mask breaks the symmetry of the last token
#    *from the second layer on*.
# 3. **Emergent position** (`running_means.py`). Causal averaging makes neighbours alike: the cosine of two running means
#    is $\sqrt{\min(i,j)/\max(i,j)}$. And the last token as a point that descends (`last_token.py`).
# 4. **Masks of particular papers** (`segments_and_blocks.py`, `scales_and_labels.py`, `random_order.py`). Segments, block
#    diffusion, scales, parallel labels, random order: what can be cached, decoded side by side or dropped, and two
#    places where training and decoding part.
#
# Convention everywhere: $M_{ij}$ is true iff token $i$ (row) may attend to token $j$ (column).
#
# ## Flow is reachability
#
# A residual network keeps its own token, so one layer moves information along $M' = M \lor I$ and $L$
# layers along the boolean power $M'^L$. A hidden token has the softmax weight 0, not a small number, and a
# derivative through it is 0 to the last bit; a visible one has, at generic weights, a derivative that is
# not. Norms, MLPs and biases act token by token and change nothing. So
# $\big[\partial\,\mathrm{out}_i/\partial\,\mathrm{in}_j \ne 0\big] = (M'^L)_{ij}$ needs no tolerance.
# The patterns, at the sizes used in all checks, stand in `_shared.py`.

# %%
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.attention.mask_reachability import PAIRS, allowed_pairs, discrepancy
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.models import masks
from lab.models.mask_patterns import mask
from lab.models.masks import closure, flow, is_transitive
from lab.models.transformer import Transformer
from lab.results import Results
from proofs_check.attention_masks._shared import BOOLEANS, DEPTHS, PATTERNS, SLUG, WIDTH, network, pattern, prompt

PROOFS = Task(SLUG, paper=SLUG)


def spoiled(allowed: Tensor) -> Tensor:
    """The mask with one pair opened that no three layers connect; where there is none, with token 0 hidden."""
    changed, forbidden = allowed.clone(), (~closure(allowed, max(DEPTHS))).nonzero()
    if len(forbidden):
        changed[forbidden[0, 0], forbidden[0, 1]] = True
    else:
        changed[1:, 0] = False
    return changed


def penalised(model: Transformer, penalty: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Attention layers that subtract a finite ``penalty`` from the scores of hidden tokens instead of hiding them."""

    def run(tokens: Tensor, allowed: Tensor) -> Tensor:
        for layer in model.layers:
            attention: Any = layer.attention
            query, key, value = attention.query(tokens), attention.key(tokens), attention.value(tokens)
            scores = query @ key.mT / math.sqrt(WIDTH)
            tokens = tokens + scores.masked_fill(~allowed, -penalty).softmax(-1) @ value
        return tokens

    return run


def centred(model: Transformer) -> Callable[[Tensor, Tensor], Tensor]:
    """The network after a normalisation over tokens, as batch normalisation would do."""
    return lambda tokens, allowed: model(tokens - tokens.mean(2, keepdim=True), allowed)


@PROOFS.cases(
    claimed={},
    leak={"change": "leak"},
    transposed={"change": "transposed"},
    penalty={"change": "penalty"},
    mean={"change": "mean"},
)
def flow_differences(config: object, *, change: str = "") -> LabelledArrays:
    """In how many entries the flow of a changed network is not the closure of the intended mask."""
    counts = []
    for title in PATTERNS:
        intended = pattern(title)
        used = (
            spoiled(intended) if change == "leak" else intended.T.contiguous() if change == "transposed" else intended
        )
        for depth in DEPTHS:
            model: Callable[[Tensor, Tensor], Tensor] = network(depth)
            if change == "penalty":
                model = penalised(network(depth), 5.0)
            elif change == "mean":
                model = centred(network(depth))
            counts.append(discrepancy(flow(model, prompt(len(used)), used), closure(intended, depth)).count)
    return {"count": labelled(np.reshape(counts, (-1, len(DEPTHS))), pattern=tuple(PATTERNS), depth=DEPTHS)}


@PROOFS.claim(
    "attention-masks/masks.I0",
    where="derived",
    kind="identity",
    statement=r"After $L$ residual layers under the mask $M$, $\partial\,\mathrm{out}_i / \partial\,\mathrm{in}_j$ "
    r"is exactly $0$ where the boolean power $(M \lor I)^L$ is false and not $0$ where it is true: no "
    "entry differs, for all patterns and $L = 1, 2, 3$.",
    controls=[
        control("one forbidden pair opened in every mask, one layer", case="leak", depths=(1,)),
        control("one forbidden pair opened in every mask, two layers", case="leak", depths=(2,)),
        control("one forbidden pair opened in every mask, three layers", case="leak", depths=(3,)),
        control("masks transposed", case="transposed", patterns=("causal", "scales 1, 2, 3")),
        control("5 subtracted from hidden scores instead of a mask", case="penalty", patterns=("causal",)),
        control("a mean over all tokens subtracted before the first layer", case="mean", patterns=("causal",)),
    ],
)
def flow_is_the_closure(
    results: Results,
    case: str = "claimed",
    depths: tuple[int, ...] = DEPTHS,
    patterns: tuple[str, ...] = tuple(PATTERNS),
) -> Evidence:
    counts = results[flow_differences]["count"].sel(case=case, depth=list(depths), pattern=list(patterns))
    # A control must show in every mask, so it is judged where it shows least.
    worst = counts.max() if case == "claimed" else counts.min()
    return Evidence.exact(int(worst), "<=", 0, "equality of booleans: a hidden weight is exactly 0")


# %% [markdown]
# One leak, followed closely. Open the single pair $(2, 5)$ in a causal mask of eight tokens. One layer
# leaks one entry, two layers leak five: token 2 reads token 5, which has read 3 and 4; and 3 and 4 read
# token 2, which has read 5. The closure of the *leaky* mask predicts exactly these.


# %%
EXTRA = {1: {(2, 5)}, 2: {(2, 3), (2, 4), (2, 5), (3, 5), (4, 5)}}


@PROOFS.cases(claimed={}, other={"pair": (2, 6)})
def spread_of_a_leak(config: object, *, pair: tuple[int, int] = (2, 5)) -> LabelledArrays:
    """Entries in which the flow differs from the closure of the leaky mask, and leaks that are not those of EXTRA."""
    intended = masks.causal(8)
    leaky = intended.clone()
    leaky[tuple(pair)] = True
    unpredicted, other_leaks = [], []
    for depth, expected in EXTRA.items():
        moved = flow(network(depth), prompt(8), leaky)
        unpredicted.append(discrepancy(moved, closure(leaky, depth)).count)
        other_leaks.append(len(set(discrepancy(moved, closure(intended, depth)).leaks) ^ expected))
    depths = tuple(EXTRA)
    return {"unpredicted": labelled(unpredicted, depth=depths), "other_leaks": labelled(other_leaks, depth=depths)}


@PROOFS.claim(
    "attention-masks/masks.I0.leak",
    where="derived",
    kind="identity",
    statement="Opening the single pair $(2, 5)$ of a causal mask over $8$ tokens adds exactly one entry to the "
    "flow of one layer and exactly $(2,3), (2,4), (2,5), (3,5), (4,5)$ to that of two.",
    controls=[control("the pair (2, 6) opened instead", case="other")],
)
def one_leak_spreads_as_predicted(results: Results, case: str = "claimed") -> Evidence:
    measured = results[spread_of_a_leak].sel(case=case)
    differing = measured["unpredicted"].sum() + measured["other_leaks"].sum()
    return Evidence.exact(int(differing), "<=", 0, "equality of sets of pairs")


# %% [markdown]
# **Depth.** Where $M'^2 = M'$ depth adds nothing: whom a token hears of after a hundred layers, it heard of
# after one. All block-like patterns are transitive. A sliding window is not (each layer adds $w - 1$ tokens
# of sight), and neither are segments whose number is used again later: the early tokens of a speaker see
# that speaker's later turn, which has read the other's.


# %%
TRANSITIVE = tuple(title for title in PATTERNS if title not in ("two speakers in turns", "window of 2"))


@PROOFS.cases(claimed={})
def growth_with_depth(config: object) -> LabelledArrays:
    """Entries that three layers add to the flow of one (one more where the mask is not transitive); and in how many the
    closure of a window of 2 differs from the window that is wider by one token a layer."""
    added = []
    for title in PATTERNS:
        allowed = pattern(title)
        shallow, deep = (flow(network(depth), prompt(len(allowed)), allowed) != 0 for depth in (1, 3))
        added.append(int((shallow != deep).sum()) + (not is_transitive(allowed)))
    window = [
        int((closure(masks.sliding_window(9, 2), depth) != masks.sliding_window(9, depth + 1)).sum())
        for depth in DEPTHS
    ]
    return {"added": labelled(added, pattern=tuple(PATTERNS)), "window": labelled(window, depth=DEPTHS)}


@PROOFS.claim(
    "attention-masks/masks.I1",
    where="derived",
    kind="identity",
    statement=r"If $(M \lor I)^2 = M \lor I$, three layers have the flow of one. All patterns but the sliding "
    "window and the interleaved segments satisfy it; a window of $w$ becomes a window of $L(w - 1) + 1$ "
    "after $L$ layers.",
    controls=[
        control("a sliding window", patterns=("window of 2",)),
        control("a segment number used again after another speaker's turn", patterns=("two speakers in turns",)),
    ],
)
def transitive_masks_ignore_depth(results: Results, patterns: tuple[str, ...] = TRANSITIVE) -> Evidence:
    measured = results[growth_with_depth].sel(case="claimed")
    differing = measured["added"].sel(pattern=list(patterns)).sum() + measured["window"].sum()
    return Evidence.exact(int(differing), "<=", 0, BOOLEANS)


# %% [markdown]
# **Pairs** are what attention costs, and a formula counts them for most patterns.

# %%
SIDES = [1, 2, 3, 4, 5, 6, 8, 10, 13, 16]
COUNTED = {title: sizes for title, sizes in PATTERNS.items() if sizes[0] in PAIRS} | {
    "ten scales": ("next_scale", {"sides": SIDES})
}


@PROOFS.cases(claimed={}, strict={"strict": True})
def pair_counts(config: object, *, strict: bool = False) -> LabelledArrays:
    """Allowed pairs by counting and by formula, and the tokens of ten scales; ``strict`` hides every token from itself."""
    counted, formula = [], []
    for name, sizes in COUNTED.values():
        allowed = mask(name, **sizes)
        if strict:
            allowed = allowed & ~torch.eye(len(allowed), dtype=torch.bool)
        counted.append(int(allowed.sum()))
        formula.append(allowed_pairs(name, **sizes))
    return {
        "counted": labelled(counted, pattern=tuple(COUNTED)),
        "formula": labelled(formula, pattern=tuple(COUNTED)),
        "tokens": len(mask("next_scale", sides=SIDES)),
    }


@PROOFS.claim(
    "attention-masks/masks.pairs",
    where="derived",
    kind="identity",
    statement="The number of allowed pairs is $n(n+1)/2$ (causal), $n(n+1)/2 + p(p-1)/2$ (prefix $p$), $B^2(T^2 + "
    r"T)$ ($T$ clean and $T$ noisy blocks of $B$), $\sum_k s_k^2 \sum_{m \le k} s_m^2$ (scales $s_k$), "
    "and so on for all patterns with a formula; the scales $1, 2, 3, 4, 5, 6, 8, 10, 13, 16$ hold $680$ "
    "tokens in $10$ steps where a raster of the largest takes $256$.",
    controls=[control("masks that hide every token from itself", case="strict")],
)
def pairs_are_counted(results: Results, case: str = "claimed") -> Evidence:
    measured = results[pair_counts].sel(case=case)
    differing = int(abs(measured["counted"] - measured["formula"]).sum()) + abs(int(measured["tokens"]) - 680)
    differing += (SIDES[-1] ** 2 != 256) + (len(SIDES) != 10)
    return Evidence.exact(differing, "<=", 0, "counting")


# %% [markdown]
# **A row that sees nothing** has no softmax: $0/0$. Filling scores with the smallest float instead of
# $-\infty$ avoids the not-a-number and hides a leak: all scores are equal, so the row attends *uniformly to
# everything*. Here such a row adds 0.


# %%
@PROOFS.cases(claimed={}, smallest={"smallest": True})
def empty_rows(config: object, *, smallest: bool = False) -> LabelledArrays:
    """Entries in which the flow of queries without context is not the identity; ``smallest`` fills in the smallest float."""
    allowed = pattern("no context")
    model = penalised(network(1), -float(torch.finfo(torch.float64).min)) if smallest else network(1)
    return {"count": discrepancy(flow(model, prompt(len(allowed)), allowed), closure(allowed, 1)).count}


@PROOFS.claim(
    "attention-masks/masks.empty-row",
    where="derived",
    kind="identity",
    statement="A token that may attend to nothing depends on itself alone: all other entries of its row of the "
    "Jacobian are exactly $0$ (three queries without any context).",
    controls=[control("hidden scores set to the smallest float", case="smallest")],
)
def empty_rows_depend_on_themselves(results: Results, case: str = "claimed") -> Evidence:
    return Evidence.exact(int(results[empty_rows]["count"].sel(case=case)), "<=", 0, BOOLEANS)


# %%
@PROOFS.figure
def mask_gallery(results: Results) -> Sheet:
    """Masks (black) and what 2 and 4 layers add to them (grey, light grey); rows attend to columns."""
    titles = [title for title in PATTERNS if title not in ("no context", "two streams, in chunks")]
    sheet = Sheet(
        rows=2,
        columns=6,
        width=2.8,
        height=3.05,
        title="only windows and re-used segments reach further with depth",
        foot="black: reached after 1 layer, grey: after 2, light grey: after 4; rows attend to columns",
    )
    for title in titles:
        allowed = pattern(title)
        after_one, after_two, after_four = (closure(allowed, depth) for depth in (1, 2, 4))
        shade = np.where(after_one, 1.0, np.where(after_two, 0.5, np.where(after_four, 0.2, 0.0)))
        pairs = [int(reached.sum()) for reached in (after_one, after_two, after_four)]
        panel = sheet.panel(title, x=f"{pairs[0]}, {pairs[1]}, {pairs[2]} pairs", y="token")
        panel.heat(shade, low=0.0, high=1.0, of="exact")
        panel.note("pairs reached", ["1 layer", "2 layers", "4 layers"], pairs)
    return sheet


# %%
PROOFS.show(mask_gallery)
PROOFS.show(flow_is_the_closure)
PROOFS.show(one_leak_spreads_as_predicted)
PROOFS.show(transitive_masks_ignore_depth)
PROOFS.show(pairs_are_counted)
PROOFS.show(empty_rows_depend_on_themselves)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
