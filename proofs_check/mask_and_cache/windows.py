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
# # Windows: a queue is a band, and remembers more than it holds
#
# A decoder that keeps the keys and values of the last $w - 1$ tokens lets each token read itself and the $w - 1$ before it: the
# band mask $0 \le i - j < w$, applied in every layer. That is the same as one pass under the band (`reuse.py`: no token held
# reads ahead, and what the queue has dropped nobody reads any more).
#
# It is *not* what a network says that is shown the last $w$ tokens only. The entries of layer 2 were computed when older
# tokens were still in the queue and remember them; layer by layer the sight grows by $w - 1$, to $L(w-1) + 1$ tokens. With one
# layer there is nothing to remember, and both agree. So truncating a prompt and limiting a cache are different models, and an
# evaluation should say which one it runs.


# %%
from __future__ import annotations

import torch

from lab import Evidence, Task, control
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.models import masks
from lab.results import Results
from proofs_check.mask_and_cache._shared import (
    DEPTHS,
    MOVED,
    SAME_KERNELS,
    SLUG,
    TOKENS,
    VISIBLE,
    by_seed_and_depth,
    in_chunks,
    largest,
    network,
    outputs,
    prompt,
    rounding,
    worst,
)

PROOFS = Task(SLUG, paper=SLUG, root=2032)
WINDOW = 4


@PROOFS.cases(claimed={}, one_more={"window": WINDOW + 1}, causal={"window": TOKENS})
def queue_against_band(config: object, *, window: int = WINDOW) -> LabelledArrays:
    """Difference between decoding through a queue for this window and one pass under the band of width 4."""
    band, used = masks.sliding_window(TOKENS, WINDOW), masks.sliding_window(TOKENS, window)
    return by_seed_and_depth(
        lambda model, seed: {
            "difference": largest(
                in_chunks(model, prompt(seed), used, (1,) * TOKENS, window) - outputs(model, prompt(seed), band)
            ),
            "bound": rounding(len(model.layers), seed, band),
        }
    )


@PROOFS.claim(
    "mask-and-cache/mask.T7",
    where="derived",
    kind="identity",
    statement="Decoding with a queue of the last $w - 1$ keys and values is one pass under the band mask of width "
    "$w$ (w = 4, 12 tokens, 1 to 3 "
    "layers, 3 networks).",
    controls=[control("w entries kept and read", case="one_more"), control("all entries kept", case="causal")],
)
def queues_are_bands(results: Results, case: str = "claimed") -> Evidence:
    return worst(results[queue_against_band].sel(case=case))


@PROOFS.cases(claimed={}, whole={"window": TOKENS})
def queue_against_truncation(config: object, *, window: int = WINDOW) -> LabelledArrays:
    """Difference of the last output between a queue and a pass over the last tokens of its window alone, positions kept."""
    band = masks.sliding_window(TOKENS, window)
    return by_seed_and_depth(
        lambda model, seed: {
            "difference": largest(
                in_chunks(model, prompt(seed), band, (1,) * TOKENS, window)[-1]
                - outputs(model, prompt(seed)[-window:], masks.causal(window))[-1]
            ),
            "bound": rounding(len(model.layers), seed, band),
        }
    )


@PROOFS.claim(
    "mask-and-cache/mask.T8",
    where="derived",
    kind="identity",
    statement="A queue of $w - 1$ entries is not a recomputation on the last $w$ tokens: the last output differs by "
    "more than 0.01 with two and three "
    "layers; with one layer it is the same (w = 4, 12 tokens, 3 networks).",
    controls=[control("a window of all tokens", case="whole"), control("the one-layer case at two layers", same=(2,))],
)
def queues_remember_what_they_dropped(
    results: Results, case: str = "claimed", same: tuple[int, ...] = (1,)
) -> Evidence:
    measured = results[queue_against_truncation].sel(case=case)
    return Evidence.all(
        Evidence.exact(float(measured["difference"].sel(depth=[2, 3]).min()), ">", MOVED, VISIBLE),
        worst(measured.sel(depth=list(same))),
    )


@PROOFS.cases(claimed={}, wider={"window": WINDOW + 1}, narrower={"window": WINDOW - 1})
def sight_of_a_queue(config: object, *, window: int = WINDOW) -> LabelledArrays:
    """How many of the last tokens move the last output of a queue for this window when changed, less L (4 - 1) + 1."""
    band, excess = masks.sliding_window(TOKENS, window), []
    for depth in DEPTHS:
        model, inputs = network(depth), prompt(0)
        kept = in_chunks(model, inputs, band, (1,) * TOKENS, window)[-1]
        moving = []
        for place in range(TOKENS):
            changed = inputs.clone()
            changed[place] += 1.0 + torch.arange(changed.shape[1]) / 7  # not along the mean, which a norm removes
            moving.append(bool((in_chunks(model, changed, band, (1,) * TOKENS, window)[-1] != kept).any()))
        first = moving.index(True)
        excess.append(TOKENS - first - (depth * (WINDOW - 1) + 1) + 100 * (not all(moving[first:])))
    return {"excess": labelled(excess, depth=DEPTHS)}


@PROOFS.claim(
    "mask-and-cache/mask.T8.sight",
    where="derived",
    kind="identity",
    statement="The last output of a queue of $w - 1$ entries depends on exactly the last $L(w - 1) + 1$ tokens: "
    "older ones leave it as it is to the "
    "last bit (w = 4, L = 1, 2, 3).",
    controls=[control("w entries kept", case="wider"), control("w - 2 entries kept", case="narrower")],
)
def sight_grows_by_the_window(results: Results, case: str = "claimed") -> Evidence:
    excess = abs(results[sight_of_a_queue]["excess"].sel(case=case))
    return Evidence.exact(int(excess.max()), "<=", 0, SAME_KERNELS)


@PROOFS.figure
def queue_and_truncation(results: Results) -> Sheet:
    """Difference of the last output of a queue of 3 entries to the band mask of width 4, and to the last 4 tokens alone, by depth."""
    sheet = Sheet(width=6.8, height=4.2, foot="exact zeros are drawn at 1e-17")
    panel = sheet.panel(
        "a queue is a band mask, not a truncated prompt",
        x="layers",
        y="largest difference of the last output",
        scale=("linear", "log"),
        ylim=(1e-18, 1e2),
        xticks=list(DEPTHS),
        legend="outside",
    )
    for measured, name in (
        (results[queue_against_band], "to one pass under the band"),
        (results[queue_against_truncation], "to the last 4 tokens alone"),
    ):
        values = measured["difference"].sel(case="claimed").clip(1e-17)
        panel.curve(values, "depth", name=name, across="network", middle="geometric mean", band="range")
    return sheet


# %%
PROOFS.show(queue_and_truncation)
PROOFS.show(queues_are_bands)
PROOFS.show(queues_remember_what_they_dropped)
PROOFS.show(sight_grows_by_the_window)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
