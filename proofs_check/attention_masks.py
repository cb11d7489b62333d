# %% [markdown]
# # What a mask allows: flow, symmetry and the positions that nobody gave
#
# An attention mask says which token may look at which. It has no parameters and it is the only difference
# between a causal language model, a prefix model, block-wise diffusion, next-scale images and decoding in
# random order. This file proves, with random weights and no training, what follows from the mask alone:
#
# 1. **Flow.** After $L$ layers output $i$ depends on input $j$ iff a power of the mask says so: an equality
#    of booleans, checked against the exact zeros of the Jacobian, for every pattern of the lab.
# 2. **Symmetry.** Without positions a network sees multisets. Which outputs notice that tokens were
#    permuted can be predicted by refining colours, and a causal mask breaks the symmetry of the last token
#    *from the second layer on*.
# 3. **Emergent position.** Causal averaging makes neighbours alike: the cosine of two running means is
#    $\sqrt{\min(i,j)/\max(i,j)}$.
# 4. **Masks of particular papers.** Segments, block diffusion, scales, parallel labels, random order: what
#    can be cached, decoded side by side or dropped, and two places where training and decoding part.
#
# Convention everywhere: $M_{ij}$ is true iff token $i$ (row) may attend to token $j$ (column).

# %%
from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy import integrate, optimize
from scipy.stats import wishart
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.attention.causal_averaging import (
    adjacency_score,
    averaged_gram,
    averaging_matrix,
    cosines,
    residual_cosine,
    running_mean_cosine,
)
from lab.domains.attention.mask_reachability import PAIRS, allowed_pairs, discrepancy, reachability
from lab.domains.attention.network_rounding import network_rounding_bound
from lab.domains.attention.permutation_symmetry import unchanged_rows
from lab.domains.attention.pointer_jumping import causal_accuracy, follow, jump
from lab.domains.regression.prompts import random_orders
from lab.figures import REFERENCES, Drawing, label, panels
from lab.models import masks
from lab.models.mask_patterns import chunked_two_stream, labels_by_erasure, mask
from lab.models.masks import closure, flow, is_transitive
from lab.models.transformer import Architecture, KeyValueCache, Transformer
from lab.results import Results
from lab.statistics import rounding_bound, slope
from lab.streams import stream


@dataclass(frozen=True)
class Config:
    """How much is drawn; identities need one network each."""

    draws: int = 8
    """independent draws behind every sampled number"""
    sequences: int = 32
    """sequences a draw in the law of running means"""
    widths: tuple[int, ...] = (64, 256, 1024)
    """widths of the tokens there"""


PROOFS = Task(
    "attention-masks",
    paper="attention-masks",
    presets={
        "smoke": Config(draws=3, sequences=4, widths=(32, 128)),
        "ci": Config(),
        "paper": Config(draws=16, sequences=96, widths=(64, 512, 4096)),
    },
)

WIDTH, HEADS, DEPTHS = 12, 3, (1, 2, 3)


@cache
def network(depth: int, **changes: Any) -> Transformer:
    """A pre-norm softmax transformer with random weights, no positions, that reads its tokens as they are."""
    return Transformer(Architecture(width=WIDTH, layers=depth, heads=HEADS, **changes), [5], torch.float64)


def prompt(length: int, name: str = "prompt") -> Tensor:
    """Independent normal tokens [length, width]."""
    return torch.from_numpy(stream(0, name).rng().standard_normal((length, WIDTH)))


def outputs(model: Transformer, inputs: Tensor, allowed: Tensor, **given: Any) -> Tensor:
    """Outputs [token, width] for one prompt."""
    with torch.no_grad():
        found: Tensor = model(inputs[None, None], allowed, **given)[0, 0]
    return found


def largest(difference: Tensor) -> float:
    """Largest absolute entry (0 of nothing)."""
    return float(difference.abs().max()) if difference.numel() else 0.0


def fewer_than_rounding(differences: list[float], bounds: list[float]) -> Evidence:
    """Evidence that every difference is within the rounding of its own network; the worst ratio speaks for all."""
    worst = max(range(len(bounds)), key=lambda place: differences[place] / bounds[place])
    return Evidence.exact(differences[worst], "<=", bounds[worst], ROUNDING)


ROUNDING = "first-order rounding bound of two runs of this network, from its sizes and the Jacobians of its blocks"

# %% [markdown]
# ## Flow is reachability
#
# A residual network keeps its own token, so one layer moves information along $M' = M \lor I$ and $L$
# layers along the boolean power $M'^L$. A hidden token has the softmax weight 0, not a small number, and a
# derivative through it is 0 to the last bit; a visible one has, at generic weights, a derivative that is
# not. Norms, MLPs and biases act token by token and change nothing. So
# $\big[\partial\,\mathrm{out}_i/\partial\,\mathrm{in}_j \ne 0\big] = (M'^L)_{ij}$ needs no tolerance.
#
# The patterns, at the sizes used in all checks:

# %%
PATTERNS: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("full", {"length": 6}),
    "causal": ("causal", {"length": 8}),
    "prefix": ("prefix_lm", {"length": 8, "prefix_length": 3}),
    "examples and queries, prefix": ("in_context_prefix", {"context": 5, "queries": 3}),
    "examples and queries, causal": ("in_context_causal", {"context": 5, "queries": 3}),
    "segments, then generated": ("segment", {"segments": [0] * 3 + [1] * 4, "generated": 3}),
    "two speakers in turns": ("alternating_turns", {"turns": 3, "turn_length": 2, "generated": 2}),
    "clean and noisy blocks": ("clean_noisy", {"blocks": 3, "block_size": 2}),
    "scales 1, 2, 3": ("next_scale", {"sides": [1, 2, 3]}),
    "image, prompt, labels": ("labels_independent", {"image": 3, "prompt": 2, "labels": [2, 1, 3]}),
    "two streams": ("two_stream", {"length": 7}),
    "two streams, in chunks": ("chunked_two_stream", {"chunks": [1, 2, 3]}),
    "window of 2": ("sliding_window", {"length": 9, "window": 2}),
    "no context": ("in_context_prefix", {"context": 0, "queries": 3}),
}


def pattern(title: str) -> Tensor:
    """The mask called ``title`` in the table above."""
    name, sizes = PATTERNS[title]
    return mask(name, **sizes)


def spoiled(allowed: Tensor) -> Tensor:
    """The mask with one pair opened that no three layers connect; where there is none, with token 0 hidden."""
    changed, forbidden = allowed.clone(), (~closure(allowed, max(DEPTHS))).nonzero()
    if len(forbidden):
        changed[forbidden[0, 0], forbidden[0, 1]] = True
    else:
        changed[1:, 0] = False
    return changed


def penalised(model: Transformer, penalty: float) -> Callable[[Tensor, Tensor], Tensor]:
    """One attention layer that subtracts a finite ``penalty`` from the scores of hidden tokens instead of hiding them."""
    attention = model.layers[0].attention

    def run(tokens: Tensor, allowed: Tensor) -> Tensor:
        query, key, value = attention.query(tokens), attention.key(tokens), attention.value(tokens)  # type: ignore[operator, union-attr]
        scores = query @ key.mT / math.sqrt(WIDTH)
        return tokens + scores.masked_fill(~allowed, -penalty).softmax(-1) @ value

    return run


def centred(model: Transformer) -> Callable[[Tensor, Tensor], Tensor]:
    """The network after a normalisation over tokens, as batch normalisation would do."""
    return lambda tokens, allowed: model(tokens - tokens.mean(2, keepdim=True), allowed)


@PROOFS.claim(
    "attention-masks/masks.I0",
    where="derived",
    kind="identity",
    statement=r"After $L$ residual layers under the mask $M$, $\partial\,\mathrm{out}_i / \partial\,\mathrm{in}_j$ "
    r"is exactly $0$ where the boolean power $(M \lor I)^L$ is false and not $0$ where it is true: no "
    "entry differs, for all patterns and $L = 1, 2, 3$.",
    controls=[
        control("one forbidden pair opened in every mask, one layer", change="leak", depths=(1,)),
        control("one forbidden pair opened in every mask, two layers", change="leak", depths=(2,)),
        control("one forbidden pair opened in every mask, three layers", change="leak", depths=(3,)),
        control("masks transposed", change="transposed", titles=("causal", "scales 1, 2, 3")),
        control("5 subtracted from hidden scores in the place of a mask", change="penalty", titles=("causal",)),
        control("a mean over all tokens subtracted before the first layer", change="mean", titles=("causal",)),
    ],
)
def flow_is_the_closure(
    results: Results, change: str = "", depths: tuple[int, ...] = DEPTHS, titles: tuple[str, ...] = tuple(PATTERNS)
) -> Evidence:
    differing = []
    for title in titles:
        intended = pattern(title)
        used = {"leak": spoiled, "transposed": lambda one: one.T.contiguous()}.get(change, lambda one: one)(intended)
        for depth in depths:
            model: Callable[[Tensor, Tensor], Tensor] = network(depth)
            if change == "penalty":
                model, depth = penalised(network(1), 5.0), 1
            elif change == "mean":
                model = centred(network(depth))
            differing.append(discrepancy(flow(model, prompt(len(used)), used), closure(intended, depth)).count)
    # A control must show in every mask, so it is judged where it shows least.
    worst = min(differing) if change else max(differing)
    return Evidence.exact(worst, "<=", 0, "equality of booleans: a hidden weight is exactly 0")


# %% [markdown]
# One leak, followed closely. Open the single pair $(2, 5)$ in a causal mask of eight tokens. One layer
# leaks one entry, two layers leak five: token 2 reads token 5, which has read 3 and 4; and 3 and 4 read
# token 2, which has read 5. The closure of the *leaky* mask predicts exactly these.


# %%
EXTRA = {1: {(2, 5)}, 2: {(2, 3), (2, 4), (2, 5), (3, 5), (4, 5)}}


@PROOFS.claim(
    "attention-masks/masks.I0.leak",
    where="derived",
    kind="identity",
    statement="Opening the single pair $(2, 5)$ of a causal mask over $8$ tokens adds exactly one entry to the "
    "flow of one layer and exactly $(2,3), (2,4), (2,5), (3,5), (4,5)$ to that of two.",
    controls=[control("the pair (2, 6) opened instead", pair=(2, 6))],
)
def one_leak_spreads_as_predicted(results: Results, pair: tuple[int, int] = (2, 5)) -> Evidence:
    intended = masks.causal(8)
    leaky = intended.clone()
    leaky[pair] = True
    differing = 0
    for depth, expected in EXTRA.items():
        moved = flow(network(depth), prompt(8), leaky)
        differing += discrepancy(moved, closure(leaky, depth)).count
        differing += len(set(discrepancy(moved, closure(intended, depth)).leaks) ^ expected)
    return Evidence.exact(differing, "<=", 0, "equality of sets of pairs")


# %% [markdown]
# **Depth.** Where $M'^2 = M'$ depth adds nothing: whom a token hears of after a hundred layers, it heard of
# after one. All block-like patterns are transitive. A sliding window is not (each layer adds $w - 1$ tokens
# of sight), and neither are segments whose number is used again later: the early tokens of a speaker see
# that speaker's later turn, which has read the other's.


# %%
TRANSITIVE = tuple(title for title in PATTERNS if title not in ("two speakers in turns", "window of 2"))


@PROOFS.claim(
    "attention-masks/masks.I1",
    where="derived",
    kind="identity",
    statement=r"If $(M \lor I)^2 = M \lor I$, three layers have the flow of one. All patterns but the sliding "
    "window and the interleaved segments satisfy it; a window of $w$ becomes a window of $L(w - 1) + 1$ "
    "after $L$ layers.",
    controls=[
        control("a sliding window", titles=("window of 2",)),
        control("a segment number used again after another speaker's turn", titles=("two speakers in turns",)),
    ],
)
def transitive_masks_ignore_depth(results: Results, titles: tuple[str, ...] = TRANSITIVE) -> Evidence:
    differing = 0
    for title in titles:
        allowed = pattern(title)
        one, three = (flow(network(depth), prompt(len(allowed)), allowed) != 0 for depth in (1, 3))
        differing += int((one != three).sum()) + (not is_transitive(allowed))
    for depth in DEPTHS:
        wider = masks.sliding_window(9, depth * 1 + 1)
        differing += int((closure(masks.sliding_window(9, 2), depth) != wider).sum())
    return Evidence.exact(differing, "<=", 0, "equality of booleans")


@PROOFS.claim(
    "attention-masks/masks.pairs",
    where="derived",
    kind="identity",
    statement="The number of allowed pairs is $n(n+1)/2$ (causal), $n(n+1)/2 + p(p-1)/2$ (prefix $p$), $B^2(T^2 + "
    r"T)$ ($T$ clean and $T$ noisy blocks of $B$), $\sum_k s_k^2 \sum_{m \le k} s_m^2$ (scales $s_k$), "
    "and so on for all patterns with a formula; the scales $1, 2, 3, 4, 5, 6, 8, 10, 13, 16$ hold $680$ "
    "tokens in $10$ steps where a raster of the largest takes $256$.",
    controls=[control("masks that hide every token from itself", strict=True)],
)
def pairs_are_counted(results: Results, strict: bool = False) -> Evidence:
    sides = [1, 2, 3, 4, 5, 6, 8, 10, 13, 16]
    cases = [case for case in PATTERNS.values() if case[0] in PAIRS] + [("next_scale", {"sides": sides})]
    differing = 0
    for name, sizes in cases:
        allowed = mask(name, **sizes)
        if strict:
            allowed = allowed & ~torch.eye(len(allowed), dtype=torch.bool)
        differing += abs(int(allowed.sum()) - allowed_pairs(name, **sizes))
    differing += abs(len(mask("next_scale", sides=sides)) - 680) + (sides[-1] ** 2 != 256) + (len(sides) != 10)
    return Evidence.exact(differing, "<=", 0, "counting")


# %% [markdown]
# **A row that sees nothing** has no softmax: $0/0$. Filling scores with the smallest float instead of
# $-\infty$ avoids the not-a-number and hides a leak: all scores are equal, so the row attends *uniformly to
# everything*. Here such a row adds 0.


# %%
@PROOFS.claim(
    "attention-masks/masks.empty-row",
    where="derived",
    kind="identity",
    statement="A token that may attend to nothing depends on itself alone: all other entries of its row of the "
    "Jacobian are exactly $0$ (three queries without any context).",
    controls=[control("hidden scores set to the smallest float", smallest=True)],
)
def empty_rows_depend_on_themselves(results: Results, smallest: bool = False) -> Evidence:
    allowed = pattern("no context")
    model = penalised(network(1), -float(torch.finfo(torch.float64).min)) if smallest else network(1)
    found = discrepancy(flow(model, prompt(len(allowed)), allowed), closure(allowed, 1))
    return Evidence.exact(found.count, "<=", 0, "equality of booleans")


# %%
@PROOFS.figure
def mask_gallery(results: Results) -> Drawing:
    """Masks (black) and what 2 and 4 layers add to them (grey, light grey); rows attend to columns."""
    titles = [title for title in PATTERNS if title != "no context"][:12]
    titles[-1] = "window of 2"
    figure, axes = panels(2, 6, width=2.3, height=2.5)
    rows = []
    for panel, title in zip(axes.flat, titles, strict=True):
        allowed = pattern(title)
        one, two, four = (closure(allowed, depth) for depth in (1, 2, 4))
        shade = np.where(one, 0.0, np.where(two, 0.5, np.where(four, 0.8, 1.0)))
        panel.imshow(shade, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        edges = np.arange(len(allowed) + 1) - 0.5
        panel.set_xticks(edges, minor=True)
        panel.set_yticks(edges, minor=True)
        panel.grid(which="major", visible=False)
        panel.grid(which="minor", color="#cccccc", linewidth=0.4)
        panel.tick_params(which="both", length=0, labelsize=0, labelbottom=False, labelleft=False)
        panel.set_title(title, fontsize=9)
        pairs = [int(one.sum()), int(two.sum()), int(four.sum())]
        panel.set_xlabel(f"reaches {pairs[0]}, {pairs[1]}, {pairs[2]}", fontsize=8.5)
        rows.append(
            {
                "pattern": title,
                "tokens": len(allowed),
                "pairs": int(allowed.sum()),
                "reached_1": pairs[0],
                "reached_2": pairs[1],
                "reached_4": pairs[2],
            }
        )
    figure.suptitle(
        "only windows and re-used segments reach further with depth (black: 1 layer, grey: 2, light: 4; pairs reached after each)",
        x=0.01,
        ha="left",
        fontsize=11,
    )
    return Drawing(figure, pd.DataFrame(rows))


# %%
PROOFS.show(mask_gallery)
PROOFS.show(flow_is_the_closure)
PROOFS.show(one_leak_spreads_as_predicted)
PROOFS.show(transitive_masks_ignore_depth)
PROOFS.show(pairs_are_counted)
PROOFS.show(empty_rows_depend_on_themselves)

# %% [markdown]
# ## Symmetry: when does a network without positions notice order?
#
# Under the full mask, permuting the tokens permutes the outputs, and so the last token's output does not
# move when the others are permuted. It is said that a causal mask breaks this symmetry. For *one* layer it
# does not: the last token attends to everything and sees the same multiset in any order. Only what the
# earlier tokens have made of *their* pasts, one layer later, tells the order. An absolute position table
# breaks the symmetry at once.
#
# The general rule is colour refinement. Colour each token by its content; then, $L$ times, colour it by its
# own colour and by how many tokens of each colour it sees. Row $i$ notices a permutation iff its colour
# after $L$ rounds differs.


# %%
def changes(depth: int, allowed: Tensor, order: Tensor, positions: bool = False) -> Tensor:
    """|out(x) - out(x permuted)| of every row, its largest coordinate."""
    given, table = symmetric_inputs(len(allowed), positions)
    model, permuted = network(depth), given[order] + table
    return (outputs(model, given + table, allowed) - outputs(model, permuted, allowed)).abs().amax(-1)


def symmetric_inputs(length: int, positions: bool) -> tuple[Tensor, Tensor]:
    """Tokens and a table of positions to add to them (zeros without positions), [token, width]."""
    inputs = prompt(length)
    return inputs, prompt(length, "positions") if positions else torch.zeros_like(inputs)


def symmetry_bound(depth: int, allowed: Tensor, positions: bool = False) -> float:
    """What rounding may leave of a symmetry of this network."""
    given, table = symmetric_inputs(len(allowed), positions)
    return network_rounding_bound(network(depth), given + table, allowed)


def without_the_last(length: int, index: int) -> Tensor:
    """A random order of all tokens but the last, which stays."""
    order = random_orders(stream(0, "orders"), index + 1, length - 1)[index]
    return torch.cat((order, torch.tensor([length - 1])))


def four_orders(length: int) -> list[Tensor]:
    return [without_the_last(length, index) for index in range(4)]


@cache
def unmoved_rows(title: str, depth: int, positions: bool) -> Tensor:
    """Whether rounding explains the change of a row [order, token], for a pattern and four orders of its tokens."""
    allowed = pattern(title)
    moved = [changes(depth, allowed, order, positions) for order in four_orders(len(allowed))]
    return torch.stack(moved) <= symmetry_bound(depth, allowed, positions)


@PROOFS.claim(
    "attention-masks/sym.T1",
    where="Zuo and Guerzhoy 2024, opening",
    paper="zuo-2024-symmetry",
    kind="identity",
    statement="Without positions and under the full mask the network is equivariant: permuting its tokens permutes "
    "its outputs, and the output of the last token does not change when the others are permuted (9 "
    "tokens, 1 to 3 layers).",
    controls=[
        control("a causal mask, two layers", kind="causal", depths=(2,)),
        control("an absolute position table", positions=True),
    ],
)
def full_attention_is_equivariant(
    results: Results, kind: str = "full", depths: tuple[int, ...] = DEPTHS, positions: bool = False
) -> Evidence:
    allowed, order = mask(kind, length=9), without_the_last(9, 0)
    differences, bounds = [], []
    for depth in depths:
        model, (inputs, table) = network(depth), symmetric_inputs(9, positions)
        permuted = outputs(model, inputs[order] + table, allowed)
        rows = largest(permuted - outputs(model, inputs + table, allowed)[order])
        differences += [float(changes(depth, allowed, order, positions)[-1]), rows]
        bounds += [symmetry_bound(depth, allowed, positions)] * 2
    return fewer_than_rounding(differences, bounds)


@PROOFS.claim(
    "attention-masks/sym.T2",
    where="Zuo and Guerzhoy 2024, with its condition (derived)",
    paper="zuo-2024-symmetry",
    kind="identity",
    statement="Under a causal mask and without positions, permuting the earlier tokens leaves the last output as "
    "it is for one layer, and moves it by more than $10^{-3}$ for two and for three.",
    controls=[
        control("the full mask, which never breaks it", kind="full"),
        control("an absolute position table, which breaks it in one layer", positions=True),
    ],
)
def causal_symmetry_breaks_from_two_layers(results: Results, kind: str = "causal", positions: bool = False) -> Evidence:
    allowed, order = mask(kind, length=9), without_the_last(9, 0)
    one, *deeper = (float(changes(depth, allowed, order, positions)[-1]) for depth in DEPTHS)
    return Evidence.weakest(
        Evidence.exact(one, "<=", symmetry_bound(1, allowed, positions), ROUNDING),
        Evidence.exact(min(deeper), ">", 1e-3, "far above rounding and below any use of the order"),
    )


@PROOFS.claim(
    "attention-masks/sym.T2.any-depth",
    where="Zuo and Guerzhoy 2024, abstract",
    paper="zuo-2024-symmetry",
    kind="identity",
    statement="A causal mask breaks the symmetry of the last output at any depth of at least one layer.",
    expected="refuted",
    condition="from two layers on",
    controls=[control("two layers", depths=(2,))],
)
def causal_mask_always_breaks_the_symmetry(results: Results, depths: tuple[int, ...] = (1, 2, 3)) -> Evidence:
    allowed, order = masks.causal(9), without_the_last(9, 0)
    found = [float(changes(depth, allowed, order)[-1]) for depth in depths]
    least = min(found)
    bound = symmetry_bound(depths[found.index(least)], allowed)
    return Evidence.exact(least, ">", bound, ROUNDING)


@PROOFS.claim(
    "attention-masks/sym.rows",
    where="derived",
    kind="identity",
    statement="Which rows' outputs change under a permutation of the tokens is what $L$ rounds of colour "
    "refinement predict, for every pattern, $L = 1, 2, 3$ and four random permutations each.",
    controls=[
        control("the prediction of one round for all depths", rounds=1),
        control("tokens that carry positions, and a prediction without", positions=True),
    ],
)
def colours_predict_which_rows_move(results: Results, rounds: int = 0, positions: bool = False) -> Evidence:
    wrong = 0
    for title in PATTERNS:
        allowed = pattern(title)
        for depth in DEPTHS:
            predicted = [unchanged_rows(allowed, order, rounds or depth) for order in four_orders(len(allowed))]
            wrong += int((unmoved_rows(title, depth, positions) != torch.stack(predicted)).sum())
    return Evidence.exact(wrong, "<=", 0, "rows whose change is not the predicted one, rounding aside")


@PROOFS.figure
def symmetry_by_depth(results: Results) -> Drawing:
    """Change of the last output when the tokens before it are permuted, against depth."""
    figure, axes = panels(1, 1, width=6.4, height=4.0)
    panel, rows = axes[0, 0], []
    cases = (
        ("full mask", "full", False, REFERENCES[0], "-", "o"),
        ("causal mask", "causal", False, "#d1495b", "--", "s"),
        ("causal mask and positions", "causal", True, REFERENCES[3], "-.", "^"),
    )
    depths = (1, 2, 3, 4)
    for title, kind, positions, color, line, marker in cases:
        allowed, curves = mask(kind, length=9), []
        for index in range(8):
            order = without_the_last(9, index)
            curves.append([float(changes(depth, allowed, order, positions)[-1]) for depth in depths])
            rows += [
                {"network": title, "order": index, "layers": depth, "change": change}
                for depth, change in zip(depths, curves[-1], strict=True)
            ]
        values = np.maximum(np.array(curves), 1e-17)
        panel.plot(depths, np.exp(np.log(values).mean(0)), color=color, linestyle=line, marker=marker, label=title)
        panel.plot(depths, values.T, color=color, marker=marker, linestyle="none", alpha=0.25)
    bounds = [symmetry_bound(depth, masks.causal(9)) for depth in depths]
    panel.plot(depths, bounds, color="black", linestyle=":", label="rounding bound")
    panel.set_yscale("log")
    panel.set_ylim(1e-18, 1e2)
    panel.set_xticks(depths)
    label(
        panel, "a causal mask reveals the order from the second layer on", "layers", "largest change of the last output"
    )
    panel.legend(loc="center right", bbox_to_anchor=(1, 0.29))
    return Drawing(figure, pd.DataFrame(rows))


# %%
PROOFS.show(symmetry_by_depth)
PROOFS.show(full_attention_is_equivariant)
PROOFS.show(causal_symmetry_breaks_from_two_layers)
PROOFS.show(causal_mask_always_breaks_the_symmetry)
PROOFS.show(colours_predict_which_rows_move)

# %% [markdown]
# ## Emergent position: running means
#
# At random initialisation attention is nearly uniform over what is visible, so the first causal layer
# computes running means $m_i = \frac1i\sum_{t \le i} x_t$. For independent zero-mean tokens $E\langle m_i,
# m_j\rangle = c/\max(i, j)$, hence, for wide tokens, $\cos(m_i, m_j) \to \sqrt{\min(i, j)/\max(i, j)}$:
# near tokens are alike, and a later layer can read distance off similarity. With a residual, $h_i = x_i +
# c\,m_i$, the tokens' own parts dominate and the cosine is small and mostly a function of the *later*
# index; stacked means keep the pattern at every depth, but its contrast fades, because everything collapses
# onto token 1.


# %%
@PROOFS.claim(
    "attention-masks/near.L1",
    where="derived; the mechanism of Zuo, Guerzhoy et al. 2025",
    paper="zuo-2025-nearby",
    kind="identity",
    statement=r"The Gram matrix $C C^\top$ of running means, $C_{ij} = 1/i$ for $j \le i$, has the cosines "
    r"$\sqrt{\min(i,j)/\max(i,j)}$ ($n = 32$).",
    controls=[control("two running means in a row", depth=2)],
)
def running_means_have_the_root_law(results: Results, depth: int = 1) -> Evidence:
    found = cosines(averaged_gram(32, depth=depth))
    return Evidence.exact(
        largest(found - running_mean_cosine(32)),
        "<=",
        rounding_bound(3 * 32 + 8, 1.0),
        "rounding of sums of 32 terms, two roots and a quotient, cosines at most 1",
    )


@PROOFS.measurement(seeds=lambda config: config.draws)
def running_means(config: Config, seed: int) -> dict[str, np.ndarray]:
    """Root mean square deviation of sampled cosines from the law, [widths], for tokens of mean 0 and of mean 1.

    Only the inner products of the tokens matter. A rotation of the width puts the mean, of length sqrt(width), into one
    coordinate; the others add a Wishart matrix, which is drawn as such.
    """
    average, found = averaging_matrix(16), []
    for mean in (0.0, 1.0):
        row = []
        for width in config.widths:
            rng = stream(seed, "running means", width).rng()
            along = mean * math.sqrt(width) + rng.standard_normal((config.sequences, 16, 1))
            across = wishart(width - 1, np.eye(16)).rvs(config.sequences, random_state=rng)
            gram = average @ torch.from_numpy(along @ along.swapaxes(1, 2) + across) @ average.T
            row.append(float((cosines(gram) - running_mean_cosine(16)).square().mean().sqrt()))
        found.append(row)
    return {"deviation": np.array(found)}


@PROOFS.claim(
    "attention-masks/near.L1.width",
    where="derived",
    kind="rate",
    statement="At finite width $D$ single cosines scatter around the law by $D^{-1/2}$: a log-log slope between "
    "$-0.6$ and $-0.4$ (normal tokens, $n = 16$).",
    controls=[control("tokens of mean 1, whose cosines have another limit", mean_index=1)],
)
def scatter_falls_with_the_root_of_the_width(results: Results, mean_index: int = 0) -> Evidence:
    values = results[running_means]["deviation"][:, mean_index]
    slopes = np.array([slope(results.config.widths, row) for row in values])
    return Evidence.over_seeds(
        np.abs(slopes + 0.5), "<", 0.1, "central limit theorem, slope -1/2; 0.1 allows for terms of order 1/D"
    )


@PROOFS.claim(
    "attention-masks/near.L2",
    where="derived",
    kind="identity",
    statement=r"With a residual, $h_i = x_i + c\,m_i$ has $\cos(i < j) = \frac{(c + c^2)/j}{\sqrt{(1 + K/i)(1 + "
    "K/j)}}$, $K = 2c + c^2$: it equals the Gram matrix of $I + cC$ for $c = 0.5, 1, 3$ ($n = 32$).",
    controls=[control("a residual 1.1 times as strong in the formula", factor=1.1)],
)
def residual_streams_have_the_later_index_law(results: Results, factor: float = 1.0) -> Evidence:
    worst = max(
        largest(cosines(averaged_gram(32, residual=c)) - residual_cosine(32, factor * c)) for c in (0.5, 1.0, 3.0)
    )
    return Evidence.exact(
        worst,
        "<=",
        rounding_bound(3 * 32 + 12, 1.0),
        "rounding of sums of 32 terms, two roots and a quotient, cosines at most 1",
    )


@PROOFS.claim(
    "attention-masks/near.L3",
    where="derived",
    kind="identity",
    statement=r"$L$ running means in a row, with the Gram matrix $C^L (C^L)^\top$, order all neighbours rightly "
    r"(adjacency score 1) at every $L = 1, \dots, 6$, while the contrast fades: $\cos(1, 32)$ grows with "
    "$L$ towards 1; with a residual ($c = 1$, one layer) the score is 1 as well.",
    controls=[control("tokens that average over all tokens", averaging="full")],
)
def stacked_means_keep_the_order(results: Results, averaging: str = "causal") -> Evidence:
    if averaging == "full":
        grams = [torch.ones(32, 32, dtype=torch.float64) / 32] * 6
    else:
        grams = [averaged_gram(32, depth=depth) for depth in range(1, 7)]
    scores = [float(adjacency_score(cosines(gram))) for gram in grams] + [
        float(adjacency_score(residual_cosine(32, 1.0)))
    ]
    ends = np.array([float(cosines(gram)[0, -1]) for gram in grams])
    return Evidence.weakest(
        Evidence.exact(min(scores), ">=", 1.0, "every triple of tokens in order"),
        Evidence.exact(np.diff(ends).min(), ">", 0.0, "growth of cos(1, 32) from layer to layer"),
    )


# %%
PROOFS.show(running_means_have_the_root_law)
PROOFS.show(scatter_falls_with_the_root_of_the_width)
PROOFS.show(residual_streams_have_the_later_index_law)
PROOFS.show(stacked_means_keep_the_order)

# %% [markdown]
# ## The last token as a point that descends
#
# A reading of the forward pass: the last token's vector $h$ moves through depth so as to raise the
# probability of the next token $y$ under $\mathrm{softmax}(E h)$. Two exact facts stand behind the reading
# (they are derived here, and are not a theorem of the paper). Along gradient flow on $-\log p_y$ the
# velocity is $e_y - \sum_v p_v e_v$, so $\frac{d}{dt}\lVert h\rVert^2 = 2\,(z_y - \sum_v p_v z_v)$, $z =
# Eh$: the norm grows exactly while the target's logit exceeds the mean logit. And if some direction
# separates $e_y$ from all others, with margin $\gamma = \max_{\lVert u\rVert = 1} \min_{v \ne y} (e_y -
# e_v)\cdot u$, the norm grows as $(\log t)/\gamma$.


# %%
VOCABULARY = 5


def unembedding(separable: bool = True) -> Tensor:
    """Rows e_v of a random read-out [vocabulary, width]; if not separable, e_0 is the mean of the others."""
    rows = torch.from_numpy(stream(0, "unembedding").rng().standard_normal((VOCABULARY, WIDTH)))
    if not separable:
        rows[0] = rows[1:].mean(0)
    return rows


@PROOFS.claim(
    "attention-masks/meta.T1",
    where="derived, in the reading of Wu and Varshney 2024",
    paper="wu-2024-meta-learning",
    kind="identity",
    statement=r"Along gradient flow of a vector $h$ on $-\log \mathrm{softmax}(Eh)_y$: $\frac{d}{dt}\lVert "
    r"h\rVert^2 = 2\,(z_y - \sum_v p_v z_v)$ with $z = Eh$ (by automatic differentiation, all five "
    "targets).",
    controls=[control("the mean logit weighed uniformly instead of by probability", uniform=True)],
)
def norm_grows_with_the_logit_gap(results: Results, uniform: bool = False) -> Evidence:
    rows, worst, scale = unembedding(), 0.0, 0.0
    for target in range(VOCABULARY):
        state = prompt(1, "state")[0].clone().requires_grad_()
        logits = rows @ state
        (gradient,) = torch.autograd.grad(-logits.log_softmax(0)[target], state)
        weights = torch.full_like(logits, 1 / VOCABULARY) if uniform else logits.softmax(0)
        formula = 2 * (logits[target] - weights @ logits)
        worst = max(worst, abs(float((-2 * gradient @ state - formula).detach())))
        sizes = rows.norm(dim=-1).max() * state.norm()
        scale = max(scale, float(sizes.detach()))
    # Products of D terms, a softmax over V and a sum over V, twice; no term exceeds |e| |h|, and errors of the
    # exponents multiply by the logits.
    operations = 2 * (2 * WIDTH + 3 * VOCABULARY + 10)
    return Evidence.exact(
        worst, "<=", rounding_bound(operations, 4 * scale * (1 + scale)), "rounding of both computations"
    )


def largest_margin(rows: Tensor) -> float:
    r"""$\max_{|u| = 1} \min_{v \ne 0} (e_0 - e_v) \cdot u$: 1 / |w| for the shortest w with all products at least 1.

    That w is -r / r_last for the residual r of the non-negative least squares problem $[A^\top; 1^\top] x \approx (0, \dots, 0, 1)$
    (Lawson and Hanson, least distance programming).
    """
    differences = (rows[0] - rows[1:]).numpy()
    system = np.vstack((differences.T, np.ones(len(differences))))
    goal = np.append(np.zeros(differences.shape[1]), 1.0)
    residual = system @ optimize.nnls(system, goal)[0] - goal
    return float(1 / np.linalg.norm(residual[:-1] / residual[-1]))


@PROOFS.claim(
    "attention-masks/meta.T1.rate",
    where="derived",
    kind="rate",
    statement=r"If some direction separates $e_y$ from all other $e_v$ with margin $\gamma$, then $\lVert h \rVert$ "
    r"grows as $(\log t)/\gamma$ along gradient flow: $\gamma\, d\lVert h\rVert / d\log t = 1$ up to "
    r"$1/\log t$ at $t = 10^{12}$.",
    controls=[control("the target's vector is the mean of the others: nothing separates it", separable=False)],
)
def norm_grows_as_the_logarithm_of_time(results: Results, separable: bool = True) -> Evidence:
    rows = unembedding(separable).numpy()
    differences = rows[0] - rows[1:]
    margin = largest_margin(unembedding())

    def velocity(log_time: float, state: np.ndarray) -> np.ndarray:
        weights = np.exp(-np.logaddexp.reduce(np.append(-differences @ state, 0.0)) - differences @ state)
        moved: np.ndarray = np.exp(log_time) * (weights @ differences)
        return moved

    end = math.log(1e12)
    found = integrate.solve_ivp(velocity, (-5.0, end), np.zeros(WIDTH), method="LSODA", rtol=1e-8, atol=1e-8)
    state = found.y[:, -1]
    growth = float(state @ velocity(end, state) / max(np.linalg.norm(state), 1e-300))
    return Evidence.exact(
        abs(margin * growth - 1), "<=", 1 / end, "1 / log t, the order of the next term of the expansion"
    )


@PROOFS.claim(
    "attention-masks/meta.T1.dual",
    where="derived; the dual form of linear attention",
    kind="identity",
    statement="Linear attention is a weight matrix updated by outer products: the last output is $x + W_0 q$ with "
    r"$W_0 = \sum_j v_j k_j^\top$ over the tokens it sees (one head, no norm, no biases).",
    controls=[control("the last token's own pair left out of the sum", own=False)],
)
def linear_attention_updates_a_matrix(results: Results, own: bool = True) -> Evidence:
    model = Transformer(
        Architecture(width=WIDTH, layers=1, attention="linear", mlp_ratio=0.0, norm="none", bias=False),
        [5],
        torch.float64,
    )
    inputs = prompt(8)
    query, key, value, read = (
        model.get_parameter(f"layers.0.attention.{name}.weight")[0].detach()
        for name in ("query", "key", "value", "output")
    )
    kept = inputs if own else inputs[:-1]
    updated = (kept @ value).T @ (kept @ key)
    expected = inputs[-1] + (inputs[-1] @ query) @ updated.T @ read
    difference = largest(outputs(model, inputs, masks.causal(8))[-1] - expected)
    sizes = [float(inputs.norm(dim=-1).max()) * float(torch.linalg.matrix_norm(one)) for one in (query, key, value)]
    scale = len(inputs) * math.prod(sizes) * float(torch.linalg.matrix_norm(read))
    return Evidence.exact(
        difference, "<=", rounding_bound(2 * (4 * WIDTH + len(inputs) + 1), scale), "rounding of both computations"
    )


# %%
PROOFS.show(norm_grows_with_the_logit_gap)
PROOFS.show(norm_grows_as_the_logarithm_of_time)
PROOFS.show(linear_attention_updates_a_matrix)

# %% [markdown]
# ## Segments
#
# A prompt made of contiguous segments (system text, question, documents) may be read in full *inside* each
# segment: token $i$ sees up to the end of its own segment. Generated tokens are causal. Nothing flows
# backwards across segments, so the keys and values of a system prompt can be cached once and for all. The
# mask adds no parameter: here, as in all of the lab, it is an argument. For generated rows the mask is the
# causal one, which makes their outputs equal to the causal ones in one layer; in more, they read prompt
# tokens that have seen more.


# %%
@PROOFS.claim(
    "attention-masks/mas.cache",
    where="Katz et al. 2025",
    paper="katz-2025-segments",
    kind="identity",
    statement="Under a segment mask (contiguous segments of 3 and 4 tokens, 3 generated) the outputs of the first "
    "segment, and of the whole prompt, are the same whether what follows is there or not (1 to 3 layers).",
    controls=[control("a segment number used again after another speaker's turn", title="two speakers in turns")],
)
def earlier_segments_can_be_cached(results: Results, title: str = "segments, then generated") -> Evidence:
    allowed = pattern(title)
    ends = (3, 7) if title == "segments, then generated" else (2, 4)
    differences, bounds = [], []
    for depth in DEPTHS:
        model, inputs = network(depth), prompt(len(allowed))
        whole, bound = outputs(model, inputs, allowed), network_rounding_bound(model, inputs, allowed)
        for end in ends:
            alone = outputs(model, inputs[:end], allowed[:end, :end])
            differences.append(largest(alone - whole[:end]))
            bounds.append(bound)
    return fewer_than_rounding(differences, bounds)


@PROOFS.claim(
    "attention-masks/mas.generated",
    where="Katz et al. 2025",
    paper="katz-2025-segments",
    kind="identity",
    statement="Rows of generated tokens are those of the causal mask, so one layer gives generated tokens the "
    "outputs of a causal network.",
    controls=[control("two layers, which read prompt tokens that have seen more", depth=2)],
)
def generated_rows_are_causal(results: Results, depth: int = 1) -> Evidence:
    allowed = pattern("segments, then generated")
    model, inputs, same = network(depth), prompt(10), masks.causal(10)
    difference = largest((outputs(model, inputs, allowed) - outputs(model, inputs, same))[7:])
    rows = int((allowed[7:] != same[7:]).sum())
    return Evidence.weakest(
        Evidence.exact(rows, "<=", 0, "equality of booleans"),
        fewer_than_rounding([difference], [network_rounding_bound(model, inputs, allowed)]),
    )


# %% [markdown]
# **Pointer jumping** is the cleanest task in which earlier tokens need later ones. Token $i$ holds a
# pointer $\pi(i)$ of a random permutation; one layer of hard attention lets it read the token its pointer
# names and take over that one's pointer. With full sight $L$ layers give $\pi^{2^L}$ everywhere. Under a
# causal mask a token can only follow pointers that lead back, which happens with probability $(n+1)/2n$ for
# one layer, and a tree of $2^L$ tokens must be ordered in general: $1/8$ for two and $1/128$ for three
# layers, plus what short cycles add.


# %%
@PROOFS.claim(
    "attention-masks/mas.pointers",
    where="derived",
    kind="identity",
    statement=r"Over all permutations of $n = 2, \dots, 7$ tokens, $L = 1, 2, 3$ causal layers of pointer jumping "
    r"hold $\pi^{2^L}(i)$ for the share of tokens that the hook length formula and short cycles give, and "
    "full sight holds it always.",
    controls=[
        control("the law of one layer for all depths", law_layers=1),
        control("full sight, held to the causal law", sight="full"),
    ],
)
def pointer_jumping_follows_its_law(results: Results, law_layers: int = 0, sight: str = "causal") -> Evidence:
    worst = 0.0
    for length in range(2, 8):
        orders = torch.cartesian_prod(*[torch.arange(length)] * length)
        pointers = orders[(orders.sort(-1).values == torch.arange(length)).all(-1)]
        for layers in DEPTHS:
            goal = follow(pointers, 2**layers)
            held = (jump(pointers, mask(sight, length=length), layers) == goal).double().mean()
            full = (jump(pointers, masks.full(length), layers) == goal).double().mean()
            worst = max(worst, abs(float(held) - causal_accuracy(length, law_layers or layers)), abs(float(full) - 1))
    return Evidence.exact(worst, "<=", rounding_bound(64), "rounding of means of 0s and 1s and of at most 10 shares")


# %%
PROOFS.show(earlier_segments_can_be_cached)
PROOFS.show(generated_rows_are_causal)
PROOFS.show(pointer_jumping_follows_its_law)

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


def clean_noisy(leak: bool = False, blocks: int = BLOCKS, block_size: int = BLOCK) -> Tensor:
    """The mask; with ``leak``, noisy block k also sees clean block k, which is the answer."""
    allowed = mask("clean_noisy", blocks=blocks, block_size=block_size)
    half = blocks * block_size
    own = allowed[half:, half:]
    if leak:
        allowed[half:, :half] |= own
    return allowed


@PROOFS.claim(
    "attention-masks/acdit.alone",
    where="ACDiT 2024, the mask of the released code",
    paper="hu-2024-acdit",
    kind="identity",
    statement="Noisy block $k$ computed alone after the clean blocks before it equals the joint pass over all "
    "clean and noisy blocks ($T = 3$, $B = 2$, 1 to 3 layers).",
    controls=[control("a noisy block that sees its own clean block", leak=True)],
)
def noisy_blocks_stand_alone(results: Results, leak: bool = False) -> Evidence:
    allowed, intended, half = clean_noisy(leak), clean_noisy(), BLOCKS * BLOCK
    differences, bounds = [], []
    for depth in DEPTHS:
        model, inputs = network(depth), prompt(2 * half)
        joint, bound = outputs(model, inputs, allowed), network_rounding_bound(model, inputs, allowed)
        for block in range(BLOCKS):
            noisy = torch.arange(half + block * BLOCK, half + (block + 1) * BLOCK)
            kept = torch.cat((torch.arange(block * BLOCK), noisy))
            alone = outputs(model, inputs[kept], intended[kept][:, kept])[-BLOCK:]
            differences.append(largest(alone - joint[noisy]))
            bounds.append(bound)
    return fewer_than_rounding(differences, bounds)


@PROOFS.claim(
    "attention-masks/acdit.flow",
    where="derived",
    kind="identity",
    statement="No clean output depends on a noisy token, and no noisy output on the last clean block: these "
    "derivatives are exactly $0$ (1 to 3 layers).",
    controls=[
        control("a noisy block that sees its own clean block", leak=True),
        control("a clean stream that sees noise", open_clean=True),
    ],
)
def clean_stream_is_clean_and_its_end_is_unread(
    results: Results, leak: bool = False, open_clean: bool = False
) -> Evidence:
    allowed, half = clean_noisy(leak), BLOCKS * BLOCK
    if open_clean:
        allowed[:half, half:] = True
    found = [flow(network(depth), prompt(2 * half), allowed) for depth in DEPTHS]
    most = max(max(largest(one[:half, half:]), largest(one[half:, half - BLOCK : half])) for one in found)
    return Evidence.exact(most, "<=", 0.0, "a hidden weight is exactly 0")


@PROOFS.claim(
    "attention-masks/acdit.limits",
    where="derived",
    kind="identity",
    statement="With one token a block the clean stream is a causal network; with a single block the noisy stream "
    "is a network with full attention over its own tokens.",
    controls=[
        control("two tokens a block for the first limit", block_size=2),
        control("two blocks for the second limit", blocks=2),
    ],
)
def block_diffusion_has_two_limits(results: Results, block_size: int = 1, blocks: int = 1) -> Evidence:
    differences, bounds = [], []
    for depth in DEPTHS:
        model, inputs = network(depth), prompt(12)
        allowed = clean_noisy(blocks=6 // block_size, block_size=block_size)
        clean = outputs(model, inputs, allowed)[:6]
        differences.append(largest(clean - outputs(model, inputs[:6], masks.causal(6))))
        bounds.append(network_rounding_bound(model, inputs, allowed))
        allowed = clean_noisy(blocks=blocks, block_size=6 // blocks)
        noisy = outputs(model, inputs, allowed)[6:]
        differences.append(largest(noisy - outputs(model, inputs[6:], masks.full(6))))
        bounds.append(network_rounding_bound(model, inputs, allowed))
    return fewer_than_rounding(differences, bounds)


# %%
PROOFS.show(noisy_blocks_stand_alone)
PROOFS.show(clean_stream_is_clean_and_its_end_is_unread)
PROOFS.show(block_diffusion_has_two_limits)

# %% [markdown]
# ## Scales of an image
#
# Next-scale prediction writes an image as ever larger squares and attends inside a scale and to all coarser
# ones. One step a scale: 10 steps instead of 256. Attention inside the scale that is being predicted looks
# like a leak and is none, because a scale's *inputs* are the coarser ones brought to its size; feed a scale
# its own tokens and the answer is in sight.


# %%
SIDES = (1, 2, 3)
STARTS = (0, 1, 5, 14)


@PROOFS.claim(
    "attention-masks/var.cache",
    where="Tian et al. 2024, the mask of the released code",
    paper="tian-2024-next-scale",
    kind="identity",
    statement="Decoding scale after scale with cached keys and values equals one masked pass over all scales "
    "(sides 1, 2, 3; 1 to 3 layers).",
    controls=[control("a cache read under a full mask in the joint pass", kind="full")],
)
def scales_can_be_cached(results: Results, kind: str = "scales") -> Evidence:
    allowed = pattern("scales 1, 2, 3")
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
    return fewer_than_rounding(differences, bounds)


@PROOFS.claim(
    "attention-masks/var.inside",
    where="derived",
    kind="identity",
    statement="Inside a scale there is no order: permuting the tokens of one scale together with their positions "
    "permutes its outputs and changes no other scale.",
    controls=[
        control("positions that stay where they were", carried=False),
        control("a causal mask inside the scale", kind="causal"),
    ],
)
def inside_a_scale_there_is_no_order(results: Results, carried: bool = True, kind: str = "scales") -> Evidence:
    allowed = pattern("scales 1, 2, 3") if kind == "scales" else masks.causal(14)
    order = torch.cat((torch.arange(5), 5 + random_orders(stream(0, "inside"), 1, 9)[0]))
    differences, bounds = [], []
    for depth in DEPTHS:
        model, inputs, table = network(depth), prompt(14), prompt(14, "positions")
        permuted = inputs[order] + (table[order] if carried else table)
        found = outputs(model, permuted, allowed) - outputs(model, inputs + table, allowed)[order]
        differences.append(largest(found))
        bounds.append(network_rounding_bound(model, inputs + table, allowed))
    return fewer_than_rounding(differences, bounds)


@PROOFS.claim(
    "attention-masks/var.no-leak",
    where="Tian et al. 2024",
    paper="tian-2024-next-scale",
    kind="identity",
    statement="If the inputs of scale $k$ are the sum of the coarser scales brought to its size, its outputs do "
    "not depend on its own tokens although they attend to their own scale: exactly $0$, and not $0$ for "
    "every coarser scale.",
    controls=[control("the scale's own tokens as its inputs", own=True)],
)
def coarser_scales_do_not_leak(results: Results, own: bool = False) -> Evidence:
    allowed = pattern("scales 1, 2, 3")

    def inputs_of(targets: Tensor) -> Tensor:
        """Inputs [1, batch, token, width] of all scales from their targets."""
        parts = [targets[:, :, first:last] for first, last in zip(STARTS, STARTS[1:], strict=False)]
        if own:
            return torch.cat(parts, 2)
        found = [torch.ones_like(parts[0])]
        for place in range(1, len(SIDES)):
            side = SIDES[place]
            total: Tensor = torch.zeros(())
            for coarser, part in zip(SIDES[:place], parts[:place], strict=True):
                square = part[0].mT.unflatten(-1, (coarser, coarser))
                total = total + F.interpolate(square, size=(side, side), mode="bilinear", align_corners=False)
            found.append(total.flatten(2).mT[None])
        return torch.cat(found, 2)

    scale = torch.repeat_interleave(torch.arange(3), torch.tensor([1, 4, 9]))
    differing = 0
    for depth in DEPTHS:
        model = network(depth)

        def after_inputs(targets: Tensor, seen: Tensor, model: Transformer = model) -> Tensor:
            found: Tensor = model(inputs_of(targets), seen)
            return found

        reached = flow(after_inputs, prompt(14), allowed)
        between = torch.zeros(3, 3, dtype=torch.float64)
        between = between.index_put((scale[:, None].expand(14, 14), scale.expand(14, 14)), reached, accumulate=True)
        differing += int(((between != 0) != torch.ones(3, 3).tril(-1).bool()).sum())
    return Evidence.exact(differing, "<=", 0, "pairs of scales with another flow than from coarse to fine")


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


def label_inputs(order: tuple[int, ...], running: bool) -> tuple[Tensor, Tensor]:
    """Tokens (with positions) and mask of these labels, in this order."""
    common, tokens = IMAGE + PROMPT, prompt(IMAGE + PROMPT + sum(LABELS))
    starts = np.cumsum((common, *LABELS))
    parts = [tokens[starts[one] : starts[one + 1]] for one in order]
    inputs = torch.cat([tokens[:common], *parts])
    ids = torch.cat([torch.arange(common), *(common + torch.arange(len(part)) for part in parts)])
    table = prompt(len(tokens), "positions")
    lengths = [LABELS[one] for one in order]
    allowed = mask("labels_independent", image=IMAGE, prompt=PROMPT, labels=lengths)
    return inputs + table[torch.arange(len(inputs)) if running else ids], allowed


def label_outputs(model: Transformer, order: tuple[int, ...], running: bool) -> dict[int, Tensor]:
    """Outputs of each label, by its number."""
    found = outputs(model, *label_inputs(order, running))[IMAGE + PROMPT :]
    return dict(zip(order, found.split([LABELS[one] for one in order]), strict=True))


def compare_labels(orders: tuple[tuple[int, ...], ...], running: bool) -> Evidence:
    """Outputs of labels under each of these orders against the order 0, 1, 2."""
    differences, bounds = [], []
    for depth in DEPTHS:
        model = network(depth)
        reference, bound = (
            label_outputs(model, (0, 1, 2), running),
            network_rounding_bound(model, *label_inputs((0, 1, 2), running)),
        )
        for order in orders:
            found = label_outputs(model, order, running)
            differences.append(max(largest(found[one] - reference[one]) for one in order))
            bounds.append(bound)
    return fewer_than_rounding(differences, bounds)


@PROOFS.claim(
    "attention-masks/nxtp.alone",
    where="Yue et al. 2024, the mask of the released code",
    paper="yue-2024-object-recognition",
    kind="identity",
    statement="With position ids that start again at every label, a label's outputs are the same alone or among "
    "others (1 to 3 layers).",
    controls=[control("running position ids", running=True)],
)
def labels_do_not_hear_each_other(results: Results, running: bool = False) -> Evidence:
    return compare_labels(((0,), (1,), (2,), (1, 2)), running)


@PROOFS.claim(
    "attention-masks/nxtp.swap",
    where="Yue et al. 2024, with its condition (derived)",
    paper="yue-2024-object-recognition",
    kind="identity",
    statement="With position ids that start again at every label, exchanging labels exchanges their outputs.",
    controls=[control("running position ids", running=True)],
)
def labels_have_no_order(results: Results, running: bool = False) -> Evidence:
    return compare_labels(((1, 0, 2), (2, 1, 0), (1, 2, 0)), running)


@PROOFS.claim(
    "attention-masks/nxtp.decoding",
    where="Yue et al. 2024, the rule of inference",
    paper="yue-2024-object-recognition",
    kind="identity",
    statement="Erasing the columns of finished labels while decoding with a cache gives the outputs of the "
    "training mask, and the training mask is the causal one with all label columns erased and each "
    "label's own triangle opened again.",
    controls=[control("finished labels that stay visible", erased=False)],
)
def decoding_erases_what_training_hides(results: Results, erased: bool = True) -> Evidence:
    inputs, allowed = label_inputs((0, 1, 2), running=False)
    built = labels_by_erasure(IMAGE, PROMPT, LABELS)
    common, steps = IMAGE + PROMPT, np.cumsum((IMAGE + PROMPT, *LABELS))
    differences, bounds = [], []
    for depth in DEPTHS:
        model, cache = network(depth), KeyValueCache()
        found = [outputs(model, inputs[:common], allowed[:common, :common], cache=cache)]
        for first, last in zip(steps, steps[1:], strict=False):
            for token in range(first, last):
                row = torch.ones(1, token + 1, dtype=torch.bool)
                row[:, common:first] = not erased
                found.append(outputs(model, inputs[token : token + 1], row, cache=cache))
        differences.append(largest(torch.cat(found) - outputs(model, inputs, allowed)))
        bounds.append(network_rounding_bound(model, inputs, allowed))
    return Evidence.weakest(
        Evidence.exact(int((built != allowed).sum()), "<=", 0, "equality of booleans"),
        fewer_than_rounding(differences, bounds),
    )


# %%
PROOFS.show(labels_do_not_hear_each_other)
PROOFS.show(labels_have_no_order)
PROOFS.show(decoding_erases_what_training_hides)

# %% [markdown]
# ## Random order in two streams
#
# To generate an image's tokens in any order $o$, one stream holds content (a class token, then $x_{o_1},
# x_{o_2}, \dots$, causal, each with the rotary code of its true place) and another holds questions: copies
# of one vector, each with the rotary code of the place it asks for. Question $t$ reads the content up to
# $o_{t-1}$ and nothing else, so all questions can be put at once.
#
# "Random order" is not "any order". The answer to a question depends on the *order* in which the same set
# of places was filled, as soon as the content stream has a self-attention layer: content tokens have read
# those before them. Only with no content layer is the answer a function of the set. And if several tokens
# are generated in one step and then see each other, the content stream is not the one that was trained.

# %%
PLACES = 7
QUESTION = "question"


def two_streams(content_layers: int) -> tuple[Transformer, Transformer]:
    """The content network, and the one layer in which questions read its last states; rotary positions."""
    return network(content_layers, positions="rotary"), Transformer(
        Architecture(width=WIDTH, layers=1, heads=HEADS, positions="rotary"), [6], torch.float64
    )


def answer(
    models: tuple[Transformer, Transformer], tokens: Tensor, allowed: Tensor, content_places: Tensor, targets: Tensor
) -> Tensor:
    """Outputs of content and questions, [1, batch, token, width], for content and questions in one tensor."""
    count = len(content_places)
    content = models[0](tokens[:, :, :count], allowed[:count, :count], content_places)
    reading = torch.cat((torch.zeros(count, allowed.shape[1], dtype=torch.bool), allowed[count:]))
    joint = torch.cat((content, tokens[:, :, count:]), dim=2)
    read = models[1](joint, reading, torch.cat((content_places, targets)))
    return torch.cat((content, read[:, :, count:]), dim=2)


def streams_prompt(order: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, content places and targets: class (place 0), contents in ``order`` but the last, questions for ``order``."""
    values = prompt(PLACES + 1)
    content = torch.cat((values[:1], values[1 + order[:-1]]))
    questions = prompt(1, QUESTION).expand(len(order), WIDTH)
    places = torch.cat((torch.zeros(1, dtype=torch.int64), 1 + order[:-1]))
    return torch.cat((content, questions)), places, 1 + order


def streams_bound(models: tuple[Transformer, Transformer], order: Tensor) -> float:
    """Rounding bound of an answer: that of the content, carried through the reading layer, and that layer's own."""
    tokens, places, targets = streams_prompt(order)
    allowed, count, joint_places = masks.two_stream(len(order)), len(order), torch.cat((places, targets))
    own = network_rounding_bound(models[0], tokens[:count], allowed[:count, :count], places)
    content = outputs(models[0], tokens[:count], allowed[:count, :count], positions=places)
    states = torch.cat((content, tokens[count:]))
    reading = torch.cat((torch.zeros_like(allowed[:count]), allowed[count:]))
    carried = flow(lambda x, seen: models[1](x, seen, joint_places), states, reading)
    reader = network_rounding_bound(models[1], states, reading, joint_places)
    return own * WIDTH * float(torch.linalg.matrix_norm(carried)) + reader


ORDER = torch.tensor([4, 1, 6, 0, 3, 5, 2])


@PROOFS.claim(
    "attention-masks/arpg.flow",
    where="ARPG 2025, the model of the released code",
    paper="li-2025-randomized-parallel",
    kind="identity",
    statement=r"Question $t$ depends on the class and on the contents of $o_1, \dots, o_{t-1}$ and on nothing "
    r"later: the Jacobian is exactly $0$ for content index $j \ge t$ (class at 0, first question $t = 1$) "
    "and not $0$ below, for 0 to 3 content layers.",
    controls=[control("questions that see their own target", shift=1)],
)
def questions_see_only_what_came_before(results: Results, shift: int = 0) -> Evidence:
    intended = masks.two_stream(PLACES)
    used = intended.clone()
    if shift:
        used[PLACES:, :PLACES] = masks.full(PLACES).tril(shift)
    tokens, places, targets = streams_prompt(ORDER)
    differing = 0
    for layers in (0, *DEPTHS):
        models = two_streams(layers)
        found = flow(lambda x, seen, models=models: answer(models, x, seen, places, targets), tokens, used)  # type: ignore[misc]
        rows = torch.arange(2 * PLACES).unsqueeze(1) < PLACES
        predicted = reachability([*[intended & rows] * layers, intended & ~rows])
        # A question's row reaches itself: its own vector is what it starts from.
        differing += discrepancy(found, predicted).count
    return Evidence.exact(differing, "<=", 0, "equality of booleans")


@PROOFS.claim(
    "attention-masks/arpg.parallel",
    where="ARPG 2025",
    paper="li-2025-randomized-parallel",
    kind="identity",
    statement="Questions never see each other: leaving any of them out changes no answer to the others.",
    controls=[control("questions that see earlier questions", open_questions=True)],
)
def questions_can_be_put_in_any_company(results: Results, open_questions: bool = False) -> Evidence:
    allowed = masks.two_stream(PLACES)
    if open_questions:
        allowed[PLACES:, PLACES:] = masks.causal(PLACES)
    tokens, places, targets = streams_prompt(ORDER)
    differences, bounds = [], []
    for layers in (0, *DEPTHS):
        models = two_streams(layers)
        bound = streams_bound(models, ORDER)
        with torch.no_grad():
            together = answer(models, tokens[None, None], allowed, places, targets)[0, 0, PLACES:]
            for kept in ([0], [6], [1, 3, 5], [2, 6]):
                rows = torch.cat((torch.arange(PLACES), PLACES + torch.tensor(kept)))
                alone = answer(models, tokens[None, None, rows], allowed[rows][:, rows], places, targets[kept])
                differences.append(largest(alone[0, 0, PLACES:] - together[kept]))
                bounds.append(bound)
    return fewer_than_rounding(differences, bounds)


def other_order(layers: int) -> tuple[float, float]:
    """Largest change of the answers after a set of three when it was filled in another order, and the rounding bound."""
    models = two_streams(layers)
    found = []
    for start in ([4, 1, 6], [6, 4, 1]):
        order = torch.tensor([*start, 0, 3, 5, 2])
        tokens, places, targets = streams_prompt(order)
        with torch.no_grad():
            found.append(
                answer(models, tokens[None, None], masks.two_stream(PLACES), places, targets)[0, 0, PLACES + 3]
            )
    return largest(found[0] - found[1]), streams_bound(models, ORDER)


@PROOFS.claim(
    "attention-masks/arpg.order",
    where="read into the name: decoding in random order",
    kind="identity",
    statement="The answer to a question is a function of the set of places that are filled, whatever the order in "
    "which they were filled (a set of three, 1 to 3 content layers).",
    expected="refuted",
    condition="if the content stream has no self-attention layer",
    controls=[control("no content layer", layers=(0,))],
)
def answers_depend_on_the_set_only(results: Results, layers: tuple[int, ...] = DEPTHS) -> Evidence:
    found = [other_order(depth) for depth in layers]
    # The layer count that comes nearest to holding speaks for all.
    return min(
        (Evidence.exact(difference, "<=", bound, ROUNDING) for difference, bound in found), key=lambda one: one.measured
    )


def chunk_difference(chunks: tuple[int, ...], layers: int) -> tuple[float, float]:
    """Largest difference of content states between training and decoding in chunks, and the rounding bound."""
    models = two_streams(layers)
    tokens, places, targets = streams_prompt(ORDER)
    content = 1 + sum(chunks[:-1])
    with torch.no_grad():
        trained = answer(models, tokens[None, None], masks.two_stream(PLACES), places, targets)[0, 0, :content]
        part = torch.cat((tokens[:content], tokens[PLACES:]))
        decoded = answer(models, part[None, None], chunked_two_stream(chunks), places[:content], targets)[
            0, 0, :content
        ]
    return largest(trained - decoded), streams_bound(models, ORDER)


@PROOFS.claim(
    "attention-masks/arpg.chunk",
    where="ARPG 2025, training and inference of the released code",
    paper="li-2025-randomized-parallel",
    kind="identity",
    statement="Decoding several tokens a step, with the tokens of a step seeing each other afterwards, gives the "
    "content states of training (chunks of 1, 2 and 4, 1 to 3 content layers).",
    expected="refuted",
    condition="when one token is decoded a step",
    controls=[control("one token a step", chunks=(1,) * 7)],
)
def chunks_keep_the_trained_states(results: Results, chunks: tuple[int, ...] = (1, 2, 4)) -> Evidence:
    found = [chunk_difference(chunks, depth) for depth in DEPTHS]
    return min(
        (Evidence.exact(difference, "<=", bound, ROUNDING) for difference, bound in found), key=lambda one: one.measured
    )


@PROOFS.figure
def order_and_chunks(results: Results) -> Drawing:
    """What depends on the order of filling, and what chunks change, against the number of content layers."""
    figure, axes = panels(1, 1, width=6.4, height=4.0)
    panel, depths = axes[0, 0], np.arange(5)
    curves = {
        "another order of the same three tokens": (
            [other_order(int(depth)) for depth in depths],
            "-",
            "o",
            REFERENCES[0],
        ),
        "chunks of 1, 2 and 4 tokens": (
            [chunk_difference((1, 2, 4), int(depth)) for depth in depths],
            "--",
            "s",
            "#d1495b",
        ),
        "one token a step": ([chunk_difference((1,) * 7, int(depth)) for depth in depths], "-.", "^", REFERENCES[3]),
    }
    rows = []
    for title, (found, line, marker, color) in curves.items():
        values = np.array([difference for difference, _ in found])
        panel.plot(depths, np.maximum(values, 1e-17), linestyle=line, marker=marker, color=color, label=title)
        rows += [
            {"change": title, "content_layers": depth, "difference": value, "rounding": bound}
            for depth, value, (_, bound) in zip(depths, values, found, strict=True)
        ]
    panel.plot(
        depths,
        [bound for _, bound in curves["one token a step"][0]],
        color="black",
        linestyle=":",
        label="rounding bound",
    )
    panel.set_yscale("log")
    panel.set_ylim(1e-18, 1e3)
    panel.set_xticks(depths)
    label(
        panel,
        "random order is not any order once contents read each other",
        "self-attention layers of the content stream",
        "largest change of an output",
    )
    panel.legend(loc="center right", bbox_to_anchor=(1, 0.29))
    return Drawing(figure, pd.DataFrame(rows))


# %%
PROOFS.show(order_and_chunks)
PROOFS.show(questions_see_only_what_came_before)
PROOFS.show(questions_can_be_put_in_any_company)
PROOFS.show(answers_depend_on_the_set_only)
PROOFS.show(chunks_keep_the_trained_states)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
