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
# # Sharing: one cache for all steps of a diffusion model
#
# A video diffusion model makes a chunk of frames from noise in $S$ denoising steps, given the frames before. Each step runs the network
# on context and chunk, and the step number enters as an embedding that is added to the tokens. Ca2-VDM (Gao et al. 2024) computes the
# context's keys and values once and for all steps. Three conditions make that exact, and each is needed:
#
# * context frames are clean and carry the embedding of step 0, whatever step the chunk is at;
# * the context does not read the chunk (causal between chunks);
# * the chunk reads the context.
#
# Then the rows of the context are the same in every step, and `PatternCache.read(..., keep=False)` lends its cache out $S$ times.
#
# **What it saves.** Chunks of $l$ frames, the context grows by $l$ each autoregressive step. In step $k = 0, 1, \dots$
# a bidirectional model attends $((k+1) l)^2$ pairs, a cached one $l \cdot (k+1) l$: the totals over $n$ steps are
# $l^2\, n(n+1)(2n+1)/6$ and $l^2\, n(n+1)/2$, a ratio of $(2n+1)/3$; in all that acts token by token, $l\, n(n+1)/2$
# tokens against $l\, n$: $(n+1)/2$.


# %%
from __future__ import annotations

from fractions import Fraction
from functools import cache

import torch
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.attention.network_rounding import network_rounding_bound
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.models import costs, masks
from lab.models.caches import PatternCache
from lab.models.counting import count
from lab.models.transformer import Transformer
from lab.results import Results
from lab.streams import stream
from proofs_check.mask_and_cache._shared import (
    COUNTED,
    DEPTHS,
    OUTPUTS,
    SCALE,
    SLUG,
    TOKENS,
    WIDTH,
    by_seed_and_depth,
    largest,
    network,
    outputs,
    prompt,
    worst,
)

PROOFS = Task(SLUG, paper=SLUG, root=2032)
PAPER = "gao-2024-ca2-vdm"
CONTEXT, STEPS = 8, 3


def noisy(inputs: Tensor, step: int, on_context: bool) -> Tensor:
    """The chunk at a denoising step: noise and the embedding of the step; on the context too where ``on_context``."""
    rng = stream(step, "denoising").rng()
    embedding, noise = SCALE * rng.standard_normal(WIDTH), rng.standard_normal(inputs.shape)
    noised = inputs.clone()
    noised[CONTEXT:] += torch.from_numpy(SCALE * noise[CONTEXT:] + embedding)
    if on_context:
        noised[:CONTEXT] += torch.from_numpy(embedding)
    return noised


@cache
def step_rounding(depth: int, seed: int, step: int) -> float:
    """How far two correct runs may part at a denoising step."""
    blocks = masks.block_causal([CONTEXT, TOKENS - CONTEXT])
    return network_rounding_bound(network(depth, seed), noisy(prompt(seed), step, False), blocks)


@PROOFS.cases(claimed={}, both_ways={"both_ways": True}, embedded={"on_context": True})
def shared_cache(config: object, *, both_ways: bool = False, on_context: bool = False) -> LabelledArrays:
    """Largest difference over 3 denoising steps between a full pass and one cache of the context, computed once without a
    step embedding, that serves them all."""
    blocks = masks.block_causal([CONTEXT, TOKENS - CONTEXT])
    mask = masks.full(TOKENS) if both_ways else blocks

    def measure(model: Transformer, seed: int) -> dict[str, float]:
        inputs, held, differences = prompt(seed), PatternCache(), []
        with torch.no_grad():
            held.read(model, inputs[None, None, :CONTEXT], masks.full(CONTEXT))
            for step in range(1, STEPS + 1):
                noised = noisy(inputs, step, on_context)
                chunk = held.read(model, noised[None, None, CONTEXT:], blocks, keep=False)[0, 0]
                differences.append(largest(chunk - outputs(model, noised, mask)[CONTEXT:]))
        return {
            "difference": max(differences),
            "bound": max(step_rounding(len(model.layers), seed, step) for step in range(1, STEPS + 1)),
        }

    return by_seed_and_depth(measure)


@PROOFS.claim(
    "mask-and-cache/mask.T9",
    where="abstract: causal generation and cache sharing",
    paper=PAPER,
    kind="identity",
    statement="One cache of the clean context serves every denoising step exactly if context frames carry no step "
    "embedding and do not read the chunk, "
    "which reads them (8 context and 4 noisy tokens, 3 steps, 1 to 3 layers, 3 networks).",
    controls=[
        control("a context that reads the chunk, two layers and three", case="both_ways", depths=(2, 3)),
        control("a context that carries the step's embedding", case="embedded"),
    ],
)
def one_cache_serves_all_steps(results: Results, case: str = "claimed", depths: tuple[int, ...] = DEPTHS) -> Evidence:
    return worst(results[shared_cache].sel(case=case, depth=list(depths)))


# %% [markdown]
# **Costs**, counted in the running network: both ways of generating $n$ chunks of 3 tokens.

# %%
CHUNK, ROUNDS = 3, (2, 5)
SIZE = costs.Size(1, WIDTH, OUTPUTS)


def counted_generation(rounds: int, cached: bool) -> int:
    """Floating-point operations of generating n chunks, one pass each, by the counter."""
    model, inputs = network(1), prompt(0, CHUNK * rounds)
    mask = masks.block_causal([CHUNK] * rounds) if cached else masks.full(CHUNK * rounds)
    held = PatternCache()

    def run() -> None:
        with torch.no_grad():
            for end in range(CHUNK, CHUNK * rounds + 1, CHUNK):
                if cached:
                    held.read(model, inputs[None, None, end - CHUNK : end], mask[:end, :end])
                else:
                    model(inputs[None, None, :end], mask[:end, :end])

    return 2 * count(run).multiply_adds


@PROOFS.cases(claimed={}, whole={"lent": True}, halved={"half": True})
def generation_of_chunks(config: object, *, lent: bool = False, half: bool = False) -> LabelledArrays:
    """Counted operations less the laws, of both ways; ``lent`` keeps no cache, ``half`` takes half of the hidden pairs off the
    law. And distances of the ratios in attention and token by token from (2n + 1) / 3 and (n + 1) / 2."""
    cached, recomputed, ratios = [], [], []
    for n in ROUNDS:
        contexts = [(k + 1) * CHUNK for k in range(n)]
        law = [costs.operations(SIZE, CHUNK, context) for context in contexts]
        full = [costs.operations(SIZE, context, context) for context in contexts]
        if half:
            full = [
                operations - 2 * SIZE.layers * context * (context - 1) * WIDTH
                for operations, context in zip(full, contexts, strict=True)
            ]
        cached.append(counted_generation(n, cached=not lent) - sum(law))
        recomputed.append(counted_generation(n, cached=False) - sum(full))
        pairs = Fraction(sum(context**2 for context in contexts), sum(CHUNK * context for context in contexts))
        tokens = Fraction(sum(contexts), CHUNK * n)
        ratios.append([float(pairs - Fraction(2 * n + 1, 3)), float(tokens - Fraction(n + 1, 2))])
    axes = {"chunks": ROUNDS}
    return {
        "cached": labelled(cached, **axes),
        "recomputed": labelled(recomputed, **axes),
        "ratio": labelled(ratios, **axes, part=("attention", "tokens")),
    }


@PROOFS.claim(
    "mask-and-cache/cost.R5",
    where="abstract: recomputation grows quadratically with the autoregressive step; constants derived",
    paper=PAPER,
    kind="rate",
    statement="Generating $n$ chunks of $l$ costs $\\sum_k F((k+1) l, (k+1) l)$ operations when the context is "
    "recomputed and $\\sum_k F(l, (k+1) l)$ from a "
    "cache: $(2n+1)/3$ times as many in attention, $(n+1)/2$ times elsewhere (n = 2, 5 of 3 tokens, integers from the counter).",
    controls=[control("no cache kept", case="whole"), control("half of the hidden pairs not computed", case="halved")],
)
def caches_save_a_power_of_the_step(results: Results, case: str = "claimed") -> Evidence:
    measured = results[generation_of_chunks].sel(case=case)
    return Evidence.all(
        *(
            Evidence.exact(float(abs(measured[name]).max()), "<=", 0, COUNTED)
            for name in ("cached", "recomputed", "ratio")
        )
    )


@PROOFS.cases(claimed={}, shared={"shared": True})
def memory_of_step_caches(config: object, *, shared: bool = False) -> LabelledArrays:
    """Numbers held by one cache for each of 3 denoising steps over those of one cache, less 3."""
    inputs, model = prompt(0), network(1)
    caches = [PatternCache() for _ in range(1 if shared else STEPS)]
    single = PatternCache()
    with torch.no_grad():
        for step, held in enumerate(caches, start=1):
            held.read(model, noisy(inputs, step, True)[None, None, :CONTEXT], masks.full(CONTEXT))
        single.read(model, inputs[None, None, :CONTEXT], masks.full(CONTEXT))
    return {
        "factor": sum(held.numbers for held in caches) / single.numbers - STEPS,
        "size": single.numbers - costs.cache_numbers(SIZE, CONTEXT),
    }


@PROOFS.claim(
    "mask-and-cache/cost.R6",
    where="abstract: one cache shared by all denoising steps",
    paper=PAPER,
    kind="rate",
    statement="A context that carries the step's embedding needs a cache for each of the $S$ denoising steps, $S$ "
    "times the $2 L n D$ numbers of a shared "
    "one (S = 3, counted).",
    controls=[control("the shared cache", case="shared")],
)
def sharing_saves_the_number_of_steps(results: Results, case: str = "claimed") -> Evidence:
    measured = results[memory_of_step_caches].sel(case=case)
    return Evidence.all(*(Evidence.exact(abs(float(measured[name])), "<=", 0, COUNTED) for name in ("factor", "size")))


@PROOFS.figure
def cost_of_each_chunk(results: Results) -> Sheet:
    """Operations of the k-th chunk of 16 frames, context recomputed or cached, 12 layers of width 64."""
    size, steps = costs.Size(12, 64, 64), range(1, 65)
    sheet = Sheet(width=6.2, height=4.2)
    panel = sheet.panel(
        "a cache makes the cost of a chunk linear in its context",
        x="chunk",
        y="operations",
        scale=("log", "log"),
        legend="best",
    )
    recomputed = [costs.operations(size, 16 * k, 16 * k) for k in steps]
    panel.line(steps, recomputed, name="context recomputed", marks=False, of="exact")
    panel.line(steps, [costs.operations(size, 16, 16 * k) for k in steps], name="cached", marks=False, of="exact")
    return sheet


# %%
PROOFS.show(one_cache_serves_all_steps)
PROOFS.show(cost_of_each_chunk)
PROOFS.show(caches_save_a_power_of_the_step)
PROOFS.show(sharing_saves_the_number_of_steps)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
