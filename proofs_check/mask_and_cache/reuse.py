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
# # Masks and caches: what may be reused, and when two masks agree
#
# Generation keeps the keys and values of the tokens it has read. Is that the same computation as one pass over everything? It
# depends on the mask alone. Let $A_{ij}$ be true iff token $i$ may read token $j$.
#
# **A cache is exact iff no token held reads a token that comes later.** Then rows and columns of the held tokens form a
# closed block, and the residual streams of these tokens do not know how the sequence goes on: their keys and values in every
# layer are final. Otherwise a later token would have changed them, from the first layer that reads it on.
#
# 1. **Reuse** (here). Causal masks: in any chunks. Prefix masks: once the prefix is read whole. A prefix that
#    *grows*: never, but for one layer.
# 2. **Windows** (`windows.py`). A queue of $w - 1$ entries is a band mask, and not a recomputation on the last $w$ tokens.
# 3. **Sharing** (`sharing.py`). One cache for all steps of a diffusion model, if the context is clean and does not look ahead.
# 4. **Costs** (`costs.py`). Integers that equal what a counter finds in the running network.
#
# All networks are random (pre-norm, width 8, 2 heads, weights of standard deviation 0.5, so that errors show), with 12
# tokens of absolute positions; three seeds and one to three layers each. Nothing is trained.
#
# **Consequence for in-context learning.** The last token reads all others under the causal and under the prefix mask. With one
# layer its prediction is then *the same number*: no theory of one layer can tell the masks apart at the query. From two
# layers on it reads tokens that have read more.


# %%
from __future__ import annotations

import torch
import xarray as xr
from torch import Tensor

from lab import Evidence, Task, control
from lab.errors import LabError
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.models import masks
from lab.models.caches import PatternCache
from lab.models.transformer import KeyValueCache, Transformer
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
CHUNKS = ((1,) * TOKENS, (3, 1, 5, 3))
PREFIX = 5


@PROOFS.cases(claimed={}, restarted={"restart": True})
def causal_in_chunks(config: object, *, restart: bool = False) -> LabelledArrays:
    """Difference between one causal pass and chunks through a cache; ``restart`` numbers the positions of each chunk from 0."""
    mask, measured = masks.causal(TOKENS), []
    for chunks in CHUNKS:
        places = [place for size in chunks for place in range(size)] if restart else None

        def measure(
            model: Transformer, seed: int, chunks: tuple[int, ...] = chunks, places: list[int] | None = places
        ) -> dict[str, float]:
            through_cache = in_chunks(model, prompt(seed, positions=places), mask, chunks)
            difference = through_cache - outputs(model, prompt(seed), mask)
            return {"difference": largest(difference), "bound": rounding(len(model.layers), seed, mask)}

        measured.append(by_seed_and_depth(measure))
    return {name: xr.concat([numbers[name] for numbers in measured], dim="chunks") for name in ("difference", "bound")}


@PROOFS.claim(
    "mask-and-cache/mask.T1",
    where="derived",
    kind="identity",
    statement="Under the causal mask decoding through a cache, token by token or in chunks of 3, 1, 5 and 3, is "
    "one full pass (12 tokens, 1 "
    "to 3 layers, 3 networks).",
    controls=[control("positions that restart in every chunk", case="restarted")],
)
def causal_masks_can_be_cached(results: Results, case: str = "claimed") -> Evidence:
    return worst(results[causal_in_chunks].sel(case=case))


@PROOFS.cases(claimed={}, causal={"causal_prefix": True})
def prefix_then_causal(config: object, *, causal_prefix: bool = False) -> LabelledArrays:
    """Difference between a pass under the prefix mask and a prefix read at once, then token by token; ``causal_prefix`` reads
    the prefix token by token as well."""
    mask = masks.prefix_lm(TOKENS, PREFIX)
    chunks = (1,) * TOKENS if causal_prefix else (PREFIX, *(1,) * (TOKENS - PREFIX))
    used = masks.causal(TOKENS) if causal_prefix else mask
    return by_seed_and_depth(
        lambda model, seed: {
            # In the control the prefix's own rows are causal by intent; what is judged is what follows.
            "difference": largest(
                (in_chunks(model, prompt(seed), used, chunks) - outputs(model, prompt(seed), mask))[PREFIX:]
            ),
            "bound": rounding(len(model.layers), seed, mask),
        }
    )


@PROOFS.claim(
    "mask-and-cache/mask.T2",
    where="derived",
    kind="identity",
    statement="Under a prefix mask (prefix of 5) reading the prefix once, in both directions, and then decoding causally through the "
    "cache is "
    "one full pass (12 tokens, 1 to 3 layers, 3 networks).",
    controls=[control("the prefix read token by token", case="causal")],
)
def prefixes_are_read_once(results: Results, case: str = "claimed") -> Evidence:
    return worst(results[prefix_then_causal].sel(case=case))


# %% [markdown]
# **A prefix that grows.** A chat turn is appended, and the new prompt is to be read in both directions. Its old part would now look
# at the new one. What a stale cache computes instead has a name: with $c(i)$ the chunk of token $i$, new tokens read everything
# and old ones their own chunk, $A_{ij} = [c(j) \le c(i)]$, the *block-causal* mask. One layer is a special case: keys and values of
# layer 1 depend on their own token only, so the *new* rows are exact; the old rows are wrong for any depth.

# %%
GROWN = (5, 7)


def grown(model: Transformer, inputs: Tensor) -> Tensor:
    """Outputs of a prompt of 5 tokens read in both directions, then of 7 new ones that read all keys of a stale cache."""
    cache, first = KeyValueCache(), GROWN[0]
    with torch.no_grad():
        old = model(inputs[None, None, :first], masks.full(first), cache=cache)[0, 0]
        new = model(inputs[None, None, first:], masks.full(TOKENS)[first:], cache=cache)[0, 0]
    return torch.cat((old, new))


@PROOFS.cases(prefix={"pattern": "full"}, blocks={"pattern": "blocks"})
def stale_prefix(config: object, *, pattern: str) -> LabelledArrays:
    """Difference of a stale cache's outputs, old rows and new ones, to a pass under the full mask of the grown prefix, or under
    the block-causal one."""
    mask = masks.full(TOKENS) if pattern == "full" else masks.block_causal(GROWN)

    def measure(model: Transformer, seed: int) -> dict[str, float]:
        inputs = prompt(seed)
        difference = grown(model, inputs) - outputs(model, inputs, mask)
        old, new = (largest(part) for part in (difference[: GROWN[0]], difference[GROWN[0] :]))
        return {"old": old, "new": new, "both": max(old, new), "bound": rounding(len(model.layers), seed, mask)}

    return by_seed_and_depth(measure)


@PROOFS.claim(
    "mask-and-cache/mask.T3",
    where="derived",
    kind="identity",
    statement="The cache of a prefix that grows (5 tokens, then 7 more, all read in both directions) cannot be reused: the old "
    "tokens' "
    "outputs change at every depth and the new ones' from two layers on, each by more than 0.01; with one layer the "
    "new ones are exact.",
    controls=[
        control("an appended turn that the old one does not read", case="blocks"),
        control("the one-layer case at two layers", exact=(2,)),
    ],
)
def growing_prefixes_cannot_be_cached(
    results: Results, case: str = "prefix", exact: tuple[int, ...] = (1,)
) -> Evidence:
    measured = results[stale_prefix].sel(case=case)
    return Evidence.all(
        Evidence.exact(float(measured["old"].min()), ">", MOVED, VISIBLE),
        Evidence.exact(float(measured["new"].sel(depth=[2, 3]).min()), ">", MOVED, VISIBLE),
        worst(measured.sel(depth=list(exact)), "new"),
    )


@PROOFS.claim(
    "mask-and-cache/mask.T4",
    where="derived",
    kind="identity",
    statement="What the stale cache of a grown prefix computes is a pass under the block-causal mask of the two turns (1 to 3 "
    "layers, 3 networks).",
    controls=[control("the full mask, two and three layers", case="prefix")],
)
def stale_prefixes_are_block_causal(results: Results, case: str = "blocks") -> Evidence:
    return worst(results[stale_prefix].sel(case=case), "both")


# %% [markdown]
# **When masks agree.**

# %%


@PROOFS.cases(claimed={}, shorter={"prefix": 1})
def last_token(config: object, *, prefix: int = TOKENS) -> LabelledArrays:
    """Difference of the last token's output between the causal mask and the mask of a prefix."""
    causal = masks.causal(TOKENS)
    return by_seed_and_depth(
        lambda model, seed: {
            "difference": largest(
                (outputs(model, prompt(seed), masks.prefix_lm(TOKENS, prefix)) - outputs(model, prompt(seed), causal))[
                    -1
                ]
            ),
            "bound": rounding(len(model.layers), seed, causal),
        }
    )


@PROOFS.claim(
    "mask-and-cache/mask.T5",
    where="derived",
    kind="identity",
    statement="A query in the last place gets the same prediction under the causal and under the full mask from one layer, and "
    "predictions that differ by more than 0.01 from two and from three.",
    controls=[control("the one-layer case at two layers", same=(2,)), control("a prefix of one token", case="shorter")],
)
def masks_part_from_two_layers(results: Results, case: str = "claimed", same: tuple[int, ...] = (1,)) -> Evidence:
    measured = results[last_token].sel(case=case)
    return Evidence.all(
        worst(measured.sel(depth=list(same))),
        Evidence.exact(float(measured["difference"].sel(depth=[2, 3]).min()), ">", MOVED, VISIBLE),
    )


@PROOFS.cases(
    causal={"kind": "causal"}, prefix={"kind": "prefix"}, frames={"kind": "frames"}, both_ways={"kind": "both ways"}
)
def change_of_the_last(config: object, *, kind: str) -> LabelledArrays:
    """Largest change of outputs before the last token, or before the last frame of 3, when the tokens of it change."""
    tail_length = 3 if kind in ("frames", "both ways") else 1
    mask = {
        "causal": masks.causal(TOKENS),
        "prefix": masks.prefix_lm(TOKENS, TOKENS),
        "frames": masks.block_causal([3] * 4),
        "both ways": masks.full(TOKENS),
    }[kind]

    def measure(model: Transformer, seed: int) -> dict[str, float]:
        inputs = prompt(seed)
        changed = inputs.clone()
        changed[-tail_length:] = prompt(7)[:tail_length]
        return {"moved": largest((outputs(model, changed, mask) - outputs(model, inputs, mask))[:-tail_length])}

    return by_seed_and_depth(measure)


@PROOFS.claim(
    "mask-and-cache/mask.T6",
    where="derived",
    kind="identity",
    statement="Under the causal mask a change of the last token leaves all earlier outputs as they are, to the last bit; inside a "
    "prefix it moves them by more than 0.01.",
    controls=[
        control("the prefix mask held to be causal", still="prefix"),
        control("the causal mask held to be a prefix", moving="causal"),
    ],
)
def causal_masks_do_not_look_ahead(results: Results, still: str = "causal", moving: str = "prefix") -> Evidence:
    measured = results[change_of_the_last]["moved"]
    return Evidence.all(
        Evidence.exact(float(measured.sel(case=still).max()), "<=", 0, SAME_KERNELS),
        Evidence.exact(float(measured.sel(case=moving).min()), ">", MOVED, VISIBLE),
    )


@PROOFS.claim(
    "mask-and-cache/mask.T6.frames",
    where="abstract: causal temporal attention, with all earlier frames as prompt",
    paper="gao-2024-vidgpt",
    kind="identity",
    statement="With attention that is causal between frames and full inside them, earlier frames do not change, to the last bit, when "
    "the last one does (4 frames of 3 tokens), so that they can serve as a prompt that is read once.",
    controls=[control("attention in both directions of time", case="both_ways")],
)
def earlier_frames_are_a_prompt(results: Results, case: str = "frames") -> Evidence:
    return Evidence.exact(float(results[change_of_the_last]["moved"].sel(case=case).max()), "<=", 0, SAME_KERNELS)


@PROOFS.cases(claimed={})
def refusals(config: object) -> LabelledArrays:
    """Whether a cache filled under one pattern refuses another: rows are the patterns filled under, columns those handed on."""
    first, longer = 10, 16
    patterns = {
        "causal": (masks.causal(first), masks.causal(longer)),
        "prefix 10": (masks.prefix_lm(first, 10), masks.prefix_lm(longer, 10)),
        "prefix 4": (masks.prefix_lm(first, 4), masks.prefix_lm(longer, 4)),
        "full": (masks.full(first), masks.full(longer)),
        "blocks of 5": (masks.block_causal([5, 5]), masks.block_causal([5, 5, 6])),
        "window of 3": (masks.sliding_window(first, 3), masks.sliding_window(longer, 3)),
    }
    model, inputs = network(2), prompt(0, longer)[None, None]
    refused = []
    for filled, _ in patterns.values():
        row = []
        for _, handed in patterns.values():
            cache = PatternCache()
            with torch.no_grad():
                cache.read(model, inputs[:, :, :first], filled)
                try:
                    cache.read(model, inputs[:, :, first:], handed)
                    row.append(False)
                except LabError:
                    row.append(True)
        refused.append(row)
    allowed = [
        [
            torch.equal(filled, handed[:first, :first]) and not bool(handed[:first, first:].any())
            for _, handed in patterns.values()
        ]
        for filled, _ in patterns.values()
    ]
    axes = {"filled": tuple(patterns), "handed": tuple(patterns)}
    return {"refused": labelled(refused, **axes), "allowed": labelled(allowed, **axes)}


@PROOFS.claim(
    "mask-and-cache/mask.refusals",
    where="derived",
    kind="identity",
    statement="A cache of 10 tokens is taken on under another pattern iff that pattern has the rows they were read with and lets none "
    "of them read ahead: of 36 pairs of six patterns just the 5 of a pattern other than full with itself, and full with a "
    "prefix of 10.",
    controls=[control("every pattern taken on with itself", itself=True)],
)
def caches_refuse_other_patterns(results: Results, itself: bool = False) -> Evidence:
    measured = results[refusals].sel(case="claimed")
    expected = measured["allowed"]
    if itself:
        expected = expected | (expected["filled"] == expected["handed"])
    wrong = int((measured["refused"] == expected).sum())
    return Evidence.all(
        Evidence.exact(wrong, "<=", 0, "equality of booleans"),
        Evidence.exact(abs(int((~measured["refused"]).sum()) - 6), "<=", 0, "pairs, counted"),
    )


@PROOFS.figure
def stale_cache_by_depth(results: Results) -> Sheet:
    """Error of a grown prefix read through its stale cache, of the old tokens and the new ones, and its distance to the
    block-causal mask, against depth."""
    sheet = Sheet(width=6.8, height=4.2, foot="exact zeros are drawn at 1e-17")
    panel = sheet.panel(
        "one layer forgives the new tokens, and only them",
        x="layers",
        y="largest difference of an output",
        scale=("linear", "log"),
        ylim=(1e-18, 1e2),
        xticks=list(DEPTHS),
        legend="outside",
    )
    measured = results[stale_prefix]
    for part, case, name in (
        ("old", "prefix", "old tokens, to the full mask"),
        ("new", "prefix", "new tokens, to the full mask"),
        ("both", "blocks", "all tokens, to the block-causal mask"),
    ):
        values = measured[part].sel(case=case).clip(1e-17)
        panel.curve(values, "depth", name=name, across="network", middle="geometric mean", band="range")
    return sheet


# %%
PROOFS.show(causal_masks_can_be_cached)
PROOFS.show(prefixes_are_read_once)
PROOFS.show(stale_cache_by_depth)
PROOFS.show(growing_prefixes_cannot_be_cached)
PROOFS.show(stale_prefixes_are_block_causal)
PROOFS.show(masks_part_from_two_layers)
PROOFS.show(causal_masks_do_not_look_ahead)
PROOFS.show(earlier_frames_are_a_prompt)
PROOFS.show(caches_refuse_other_patterns)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
