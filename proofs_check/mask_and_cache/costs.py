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
# # Costs: integers that the running network must meet
#
# A transformer of $L$ layers, width $D$, MLPs of $4D$ and $V$ outputs has $W = 12 L D^2 + D V$ numbers in its matrices. Each token
# costs $2W$ operations, and each pair of a token and a key $4D$ in every layer ($2D$ for the score, $2D$ for the value). So $n$ new
# tokens against $m$ keys cost
#
# $$F(n, m) = 2\,[\,n W + 2 L n m D\,],$$
#
# if hidden pairs are computed and then masked, as dense kernels do. Norms, biases and the softmax are not counted. A counter on
# the running network must find the same integer, or the law is wrong.
#
# * **Generation.** A prompt of $P$, then $T$ tokens: $F(P,P) + \sum F(1, t+1)$ with a cache, $\sum F(t,t)$ without: a
# power of the length. * **All context lengths at once.** A causal pass predicts from the first $1, \dots, N$ tokens
# for $F(N, N)$. Under a prefix mask each length is
#   a pass of its own: $\sum_n n^2 / N^2 = (N+1)(2N+1)/6N$ times the pairs. That is the price of a prefix mask in
# training on $n$ examples for
#   all $n$, and comparisons should say whether they equalise examples or operations.
# * **Intensity.** A decoding step of $B$ prompts reads $W$ numbers once and $2LnD$ of cache *for each prompt*: with two bytes a number
#   $I = (2BW + 4BLnD) / (2W + 4BLnD)$ operations a byte. It is 1 at $B = 1$ and tends to $1 + W / 2LnD$: no batch passes
#   that, and at long contexts it is small.


# %%
from __future__ import annotations

import functools
from functools import cache

import numpy as np
import torch

from lab import Evidence, Task, control
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.models import costs, masks
from lab.models.caches import PatternCache
from lab.models.counting import count
from lab.models.transformer import Architecture, Transformer
from lab.results import Results
from lab.statistics import rounding_bound
from lab.streams import stream
from proofs_check.mask_and_cache._shared import COUNTED, SLUG

PROOFS = Task(SLUG, paper=SLUG, root=2032)
SIZE, HEADS, LONGEST = costs.Size(3, 16, 5), 2, 64
CHANGES = {"claimed": {}, "halved": {"half": True}, "headless": {"head": False}}


@cache
def model() -> Transformer:
    """A language model of 3 layers, width 16, 5 words and up to 64 learned positions."""
    architecture = Architecture(
        width=SIZE.width,
        layers=SIZE.layers,
        heads=HEADS,
        vocabulary=SIZE.outputs,
        output_size=SIZE.outputs,
        positions="learned",
        maximum_length=LONGEST,
    )
    return Transformer(architecture, [0], torch.float64)


def ids(length: int) -> torch.Tensor:
    """A prompt [1, 1, token]."""
    return torch.from_numpy(stream(0, "ids").rng().integers(0, SIZE.outputs, (1, 1, length)))


def counted(length: int, mask: torch.Tensor | None = None) -> int:
    """Operations of one pass, by the counter."""
    with torch.no_grad():
        return 2 * count(lambda: model()(ids(length), masks.causal(length) if mask is None else mask)).multiply_adds


def law(new: int, context: int, half: bool = False, head: bool = True) -> int:
    """F(n, m); with hidden pairs of a square left out, or without the read-out."""
    operations = costs.operations(SIZE, new, context)
    if half and new == context:
        operations -= 4 * SIZE.layers * SIZE.width * (new * (new - 1) // 2)
    return operations if head else operations - 2 * new * SIZE.width * SIZE.outputs


@PROOFS.cases(**CHANGES)
def one_pass(config: object, *, half: bool = False, head: bool = True) -> LabelledArrays:
    """Counted operations less F(n, n), under the causal and the full mask."""
    lengths = (8, 32, 64)
    excess = [[counted(n, mask(n)) - law(n, n, half, head) for n in lengths] for mask in (masks.causal, masks.full)]
    return {"excess": labelled(excess, mask=("causal", "full"), length=lengths)}


@PROOFS.claim(
    "mask-and-cache/cost.R1",
    where="derived",
    kind="identity",
    statement="A pass over $n$ tokens costs exactly $F(n, n)$ operations under any mask: 161024, 791552 and 1976320 "
    "at $n = 8, 32, 64$ (3 layers, "
    "width 16, 5 outputs).",
    controls=[control("half of the pairs", case="halved"), control("no read-out", case="headless")],
)
def one_pass_costs_the_law(results: Results, case: str = "claimed") -> Evidence:
    excess = results[one_pass]["excess"].sel(case=case)
    stated = sum(abs(law(n, n) - value) for n, value in ((8, 161024), (32, 791552), (64, 1976320)))
    return Evidence.all(
        Evidence.exact(int(abs(excess).max()), "<=", 0, COUNTED),
        Evidence.exact(stated, "<=", 0, "the law's own numbers"),
    )


PROMPT, STEPS = 16, 8


@PROOFS.cases(**CHANGES, forgetful={"keep": False})
def generation(config: object, *, half: bool = False, head: bool = True, keep: bool = True) -> LabelledArrays:
    """Counted operations of a prompt of 16 and 8 steps less the law, with a cache (kept or not) and without, and the
    numbers in the cache less 2 L n D."""
    tokens, held = ids(PROMPT + STEPS), PatternCache()

    def cached() -> None:
        with torch.no_grad():
            for start, end in [(0, PROMPT), *((t, t + 1) for t in range(PROMPT, PROMPT + STEPS))]:
                if keep:
                    held.read(model(), tokens[..., start:end], masks.causal(end))
                else:
                    model()(tokens[..., :end], masks.causal(end))

    total = 2 * count(cached).multiply_adds
    expected = law(PROMPT, PROMPT, half, head) + sum(law(1, t + 1, half, head) for t in range(PROMPT, PROMPT + STEPS))
    without = sum(counted(t) - law(t, t, half, head) for t in range(PROMPT, PROMPT + STEPS + 1))
    stated = costs.generation(SIZE, PROMPT, STEPS, cached=True) - law(PROMPT, PROMPT)
    stated -= sum(law(1, t + 1) for t in range(PROMPT, PROMPT + STEPS))
    stated += costs.generation(SIZE, PROMPT, STEPS, cached=False) - sum(
        law(t, t) for t in range(PROMPT, PROMPT + STEPS + 1)
    )
    return {
        "cached": total - expected,
        "without": without,
        "stated": stated,
        "size": held.numbers - costs.cache_numbers(SIZE, PROMPT + STEPS),
    }


@PROOFS.claim(
    "mask-and-cache/cost.R2",
    where="derived",
    kind="identity",
    statement="A prompt of $P$ tokens and $T$ steps after it cost exactly $F(P, P) + \\sum_{t=P}^{P+T-1} F(1, t + 1)$ with a cache and "
    "$\\sum_{t=P}^{P+T} F(t, t)$ without (P = 16, T = 8), and leave $2 L n D$ numbers in it.",
    controls=[
        control("half of the pairs", case="halved"),
        control("no read-out", case="headless"),
        control("no cache kept", case="forgetful"),
    ],
)
def generation_costs_the_law(results: Results, case: str = "claimed") -> Evidence:
    measured = results[generation].sel(case=case)
    return Evidence.all(
        *(
            Evidence.exact(abs(int(measured[name])), "<=", 0, COUNTED)
            for name in ("cached", "without", "stated", "size")
        )
    )


@PROOFS.cases(claimed={}, narrow={"heads": 4})
def cache_sizes(config: object, *, heads: int = HEADS) -> LabelledArrays:
    """Numbers in the state of a running recurrence of linear attention less the law for ``heads``; queues of every window less
    2 L (w - 1) D; and at how many lengths a cache is larger than the state though n <= (D / H + 1) / 2, or the reverse."""
    size = SIZE.width // HEADS
    state = [torch.zeros(HEADS, size, size), torch.zeros(HEADS, size)]
    for key, value in torch.from_numpy(stream(0, "state").rng().standard_normal((6, 2, HEADS, size))).float():
        state = [state[0] + key.unsqueeze(-1) * value.unsqueeze(-2), state[1] + key]
    numbers = SIZE.layers * sum(part.numel() for part in state)
    queues = 0
    for window in (1, 2, 5, 12):
        held = PatternCache(window)
        with torch.no_grad():
            for place in range(12):
                mask = masks.sliding_window(place + 1, window)
                held.read(model(), ids(12)[..., place : place + 1], mask)
        queues += abs(held.numbers - costs.cache_numbers(SIZE, 12, window))
    expected = costs.state_numbers(SIZE, heads)
    crossed = sum(
        (costs.cache_numbers(SIZE, n) > numbers) != (2 * n > SIZE.width // heads + 1) for n in range(1, LONGEST + 1)
    )
    return {"state": numbers - expected, "queues": queues, "crossed": crossed}


@PROOFS.claim(
    "mask-and-cache/cost.R3",
    where="derived",
    kind="identity",
    statement="A cache holds $2 L n D$ numbers, a queue $2 L (w - 1) D$, the state of linear attention $L D (D/H + "
    "1)$: the cache is larger iff "
    "$n > (D/H + 1)/2$ (all $n$ to 64, windows 1, 2, 5, 12).",
    controls=[control("twice as many heads", case="narrow")],
)
def caches_outgrow_states(results: Results, case: str = "claimed") -> Evidence:
    measured = results[cache_sizes].sel(case=case)
    return Evidence.all(
        *(Evidence.exact(abs(int(measured[name])), "<=", 0, COUNTED) for name in ("state", "queues", "crossed"))
    )


@PROOFS.cases(claimed={}, causal={"again": False}, halved={"half": True})
def all_context_lengths(config: object, *, again: bool = True, half: bool = False) -> LabelledArrays:
    """Counted operations of predictions from the first 1, .., 16 tokens, a pass for each (or one causal pass) less the law, and the
    ratio of pairs less (N + 1)(2 N + 1) / 6 N."""
    length = 16
    passes = range(1, length + 1) if again else (length,)
    total = sum(counted(n) for n in passes)
    expected = sum(law(n, n, half) for n in range(1, length + 1))
    pairs = sum(n * n for n in range(1, length + 1)) * 6 - length * (length + 1) * (2 * length + 1)
    stated = costs.all_lengths(SIZE, 32, False) - 12013056 + costs.all_lengths(SIZE, 32, True) - 791552
    return {"excess": total - expected, "pairs": pairs, "stated": stated}


@PROOFS.claim(
    "mask-and-cache/cost.R4",
    where="derived",
    kind="identity",
    statement="Predictions from the first $1, \\dots, N$ tokens cost $F(N, N)$ under a causal mask and $\\sum_n "
    "F(n, n)$ under a prefix mask, "
    "$(N + 1)(2N + 1)/6N$ times as many pairs: 791552 against 12013056 operations at $N = 32$.",
    controls=[control("one causal pass for all lengths", case="causal"), control("half of the pairs", case="halved")],
)
def prefixes_pay_for_every_length(results: Results, case: str = "claimed") -> Evidence:
    measured = results[all_context_lengths].sel(case=case)
    return Evidence.all(
        *(Evidence.exact(abs(int(measured[name])), "<=", 0, COUNTED) for name in ("excess", "pairs", "stated"))
    )


# %% [markdown]
# **Decoding in batches**, and requests that are fused.

# %%
LARGE = costs.Size(32, 4096, 32_000)


@PROOFS.cases(claimed={}, shared={"caches": 1})
def intensities(config: object, *, caches: int | None = None) -> LabelledArrays:
    """Operations over bytes of one decoding step against the law: operations counted in the running network, bytes from the
    numbers in its matrices and caches (one a prompt, or ``caches`` in all); and the numbers of a large model."""
    differences = []
    matrices = sum(p[0].numel() for name, p in model().named_parameters() if name.endswith("weight") and p.dim() == 3)
    for batch, context in ((1, 8), (4, 8), (16, 30)):
        held, tokens = PatternCache(), ids(context).expand(1, batch, context)
        with torch.no_grad():
            held.read(model(), tokens[..., :-1], masks.causal(context - 1))
            run = count(functools.partial(held.read, model(), tokens[..., -1:], masks.causal(context)))
        size = 2 * (matrices + (batch if caches is None else caches) * held.numbers)
        differences.append(abs(2 * run.multiply_adds / size - costs.intensity(SIZE, batch, context)))
    stated = [
        abs(round(costs.intensity(LARGE, 64, n), digits) - value)
        for n, value, digits in ((128, 48.5, 1), (2048, 11.1, 1), (32768, 1.74, 2))
    ]
    limits = [
        abs(float(f"{costs.largest_intensity(LARGE, n):.3g}") - value)
        for n, value in ((128, 197.0), (2048, 13.2), (32768, 1.77))
    ]
    passed = max(
        costs.intensity(LARGE, 2**k, n) / costs.largest_intensity(LARGE, n) for k in range(30) for n in (128, 32768)
    )
    return {"difference": max(differences), "stated": max(stated), "limit": max(limits), "passed": passed}


@PROOFS.claim(
    "mask-and-cache/cost.R7",
    where="derived",
    kind="rate",
    statement="One decoding step of $B$ prompts of $n$ tokens has $(2BW + 4BLnD)/(2W + 4BLnD)$ operations a byte, "
    "16-bit numbers, as counted in the "
    "running network; no $B$ passes $1 + W/2LnD$. For $L = 32$, $D = 4096$, $V = 32000$ at $n = 128, 2048, 32768$: "
    "48.5, 11.1, 1.74 at $B = 64$ and at most "
    "197, 13.2, 1.77.",
    controls=[control("one cache for all prompts", case="shared")],
)
def batches_cannot_pass_the_cache(results: Results, case: str = "claimed") -> Evidence:
    measured = results[intensities].sel(case=case)
    return Evidence.all(
        Evidence.exact(float(measured["difference"]), "<=", rounding_bound(16, 32.0), "rounding of two quotients"),
        Evidence.exact(float(measured["stated"]), "<=", 1e-9, "the law's own numbers to the digits quoted"),
        Evidence.exact(float(measured["limit"]), "<=", 1e-9, "the law's own numbers to the digits quoted"),
        Evidence.exact(float(measured["passed"]), "<=", 1 + rounding_bound(16), "rounding of two quotients"),
    )


def served(arrivals: list[int], lengths: list[int], fused: bool) -> int:
    """Steps of a server, step by step: of all waiting requests together, or of the first alone."""
    waiting: list[list[int]] = []
    coming, time, steps = sorted(zip(arrivals, lengths, strict=True)), 0, 0
    while coming or waiting:
        while coming and coming[0][0] <= time:
            waiting.append([coming.pop(0)[1]])
        if waiting:
            steps += 1
            for request in waiting if fused else waiting[:1]:
                request[0] -= 1
            waiting = [request for request in waiting if request[0]]
        time += 1
    return steps


@PROOFS.cases(claimed={}, alone={"fused": False})
def fusion(config: object, *, fused: bool = True) -> LabelledArrays:
    """Over 50 draws of 20 requests, steps of a simulated server less the length of the union of their spans, and steps of one that
    serves them in turn less the sum of their lengths."""
    together = in_turn = 0
    for draw in range(50):
        rng = stream(draw, "requests").rng()
        arrivals, lengths = rng.integers(0, 600, 20).tolist(), rng.integers(20, 101, 20).tolist()
        together += abs(served(arrivals, lengths, fused) - costs.fused_steps(arrivals, lengths))
        in_turn += abs(served(arrivals, lengths, False) - sum(lengths))
    return {"together": together, "in_turn": in_turn}


@PROOFS.claim(
    "mask-and-cache/cost.R8",
    where="abstract: requests merged in time",
    paper="yao-2023-flover",
    kind="rate",
    statement="Requests that arrive at $a_i$ for $l_i$ tokens take $\\sum_i l_i$ steps one after another and, fused "
    "token by token, as many as the union of the "
    "$[a_i, a_i + l_i)$ is long (50 draws of 20 requests, a server simulated step by step).",
    controls=[control("requests served in turn", case="alone")],
)
def fused_requests_take_the_union(results: Results, case: str = "claimed") -> Evidence:
    measured = results[fusion].sel(case=case)
    return Evidence.all(
        *(Evidence.exact(int(measured[name]), "<=", 0, "steps, counted") for name in ("together", "in_turn"))
    )


@PROOFS.cases(claimed={}, halved={"less": 1})
def pair_laws(config: object, *, less: int = 0) -> LabelledArrays:
    """Pairs of four patterns, counted in the mask less the law, for all lengths to 12."""
    wrong = []
    for pattern, builder in (
        ("causal", lambda n, k: (masks.causal(n), {})),
        ("prefix_lm", lambda n, k: (masks.prefix_lm(n, k), {"prefix_length": k})),
        ("sliding_window", lambda n, k: (masks.sliding_window(n, k), {"window": k})),
        ("block_causal", lambda n, k: (masks.block_causal([k, *[1] * (n - k)]), {"sizes": [k, *[1] * (n - k)]})),
    ):
        total = 0
        for n in range(1, 13):
            for k in range(1, n + 1):
                mask, sizes = builder(n, k)
                kept = mask & ~torch.eye(n, dtype=torch.bool) if less else mask
                total += abs(int(kept.sum()) - costs.visible_pairs(pattern, n, sizes))
        wrong.append(total)
    return {"wrong": labelled(wrong, pattern=("causal", "prefix_lm", "sliding_window", "block_causal"))}


@PROOFS.claim(
    "mask-and-cache/cost.pairs",
    where="derived",
    kind="identity",
    statement="Pairs of $n$ tokens: $n(n+1)/2$ causal, $p(p-1)/2$ more with a prefix $p$, $wn - w(w-1)/2$ in a "
    "window $w$, $\\sum_b s_b \\sum_{a \\le b} s_a$ in "
    "blocks $s_b$ (all $n \\le 12$, all $p$ and $w$).",
    controls=[control("tokens that do not see themselves", case="halved")],
)
def patterns_allow_the_pairs_of_the_law(results: Results, case: str = "claimed") -> Evidence:
    wrong = results[pair_laws]["wrong"].sel(case=case)
    return Evidence.all(*(Evidence.exact(int(wrong_pairs), "<=", 0, "pairs, counted") for wrong_pairs in wrong.values))


@PROOFS.figure
def generation_and_intensity(results: Results) -> Sheet:
    """Left: operations to generate N tokens, 12 layers of width 64. Right: operations a byte of a decoding step of "
    "32 layers of width 4096, by batch."""
    size = costs.Size(12, 64, 64)
    sheet = Sheet(columns=2, width=5.0, height=4.2)
    panel = sheet.panel(
        "a cache saves one power of the length", x="tokens N", y="operations", scale=("log", "log"), legend="best"
    )
    lengths = np.unique(np.geomspace(8, 4096, 25).astype(int))
    without = [costs.generation(size, 1, int(n) - 1, cached=False) for n in lengths]
    cached = [costs.generation(size, 1, int(n) - 1, cached=True) for n in lengths]
    state = [2 * int(n) * (size.weights + 2 * costs.state_numbers(size, 4)) for n in lengths]
    for values, name in ((without, "no cache"), (cached, "cache"), (state, "state of linear attention")):
        panel.line(lengths, values, name=name, marks=False, of="exact")
    panel = sheet.panel(
        "no batch passes the cache", x="prompts B", y="operations a byte", scale=("log", "log"), legend="outside"
    )
    batches = 2 ** np.arange(15)
    for context in (128, 2048, 32768):
        per_byte = [costs.intensity(LARGE, int(b), context) for b in batches]
        panel.line(batches, per_byte, name=f"n = {context}", marks=False, of="exact")
        panel.level(costs.largest_intensity(LARGE, context), f"limit, n = {context}")
    return sheet


# %%
PROOFS.show(one_pass_costs_the_law)
PROOFS.show(generation_costs_the_law)
PROOFS.show(generation_and_intensity)
PROOFS.show(caches_outgrow_states)
PROOFS.show(prefixes_pay_for_every_length)
PROOFS.show(batches_cannot_pass_the_cache)
PROOFS.show(fused_requests_take_the_union)
PROOFS.show(patterns_allow_the_pairs_of_the_law)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
