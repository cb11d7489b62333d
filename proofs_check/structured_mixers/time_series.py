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
# # Time series: lags in place of tokens, and queries that are chosen by looking ahead
#
# **Auto-correlation** (Autoformer, Wu et al. 2021) weighs *lags*: $\mathrm{corr}[\tau] = \sum_t q_{t+\tau} \cdot k_t$, circular, computed
# by transforms; the values, moved by the best lags, are mixed by the softmax of their correlations. It finds periods. Its code takes a
# mask and ignores it.
#
# **ProbSparse attention** (Informer, Zhou et al. 2020) lets only those queries attend whose attention is far from uniform. With
# scores $s_j = q \cdot k_j / \sqrt d$ that distance is $M = \log \sum_j e^{s_j} - \bar s$. Since $p_j = e^{s_j} / \sum_k e^{s_k}$,
# $\mathrm{KL}(\mathrm{uniform} \,\|\, p) = -\log L - \frac1L \sum_j \log p_j = M - \log L \ge 0$. And
# $\log \sum_j e^{s_j}$ lies between $\max_j s_j$ and $\max_j s_j + \log L$, so
# $\bar M = \max_j s_j - \bar s$ has $\bar M \le M \le \bar M + \log L$.
#
# Under a causal mask both fail in a way that training does not show. The queries are *chosen* by their
# scores on all keys, those of the future included, before the mask is applied: whether token $t$ attends, or gets the running
# sum of values, depends on what comes after it.


# %%
from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lab import Evidence, Task, control
from lab.figures import Sheet
from lab.labels import LabelledArrays, deviations, labelled
from lab.models import masks
from lab.models.mixers.autocorrelation import auto_correlation, best_lag, correlations, correlations_by_sums
from lab.models.mixers.prob_sparse import (
    chosen_count,
    estimates,
    largest_gap,
    prob_sparse,
    sampled_keys,
    scored_pairs,
    sparsity,
)
from lab.results import Results
from lab.statistics import rounding_bound
from lab.streams import RandomStream, stream
from proofs_check.structured_mixers._shared import COUNTING, SLUG, largest, normal


@dataclass(frozen=True)
class Config:
    """How often what is random is drawn."""

    draws: int = 400
    """independent series, or prompts, one a seed"""


PROOFS = Task(SLUG, paper=SLUG, presets={"smoke": Config(4), "ci": Config(), "paper": Config(2000)}, root=2032)
AUTOFORMER, INFORMER = "wu-2021-autoformer", "zhou-2020-informer"
SERIES, PERIOD, NOISE = 48, 8, 0.5
LENGTH, SIZE = 96, 8


def moved_lags(streams: Mapping[str, Tensor]) -> Tensor:
    """Auto-correlation of queries, keys and values."""
    return auto_correlation(streams["query"], streams["key"], streams["value"])


def draw(seed: RandomStream, name: str, *shape: int) -> Tensor:
    """Independent normal numbers of one seed."""
    return torch.from_numpy(seed.child(name).rng().standard_normal(shape))


@PROOFS.identity(
    "structured-mixers/acorr.T1",
    where="auto-correlation, as in the released code",
    paper=AUTOFORMER,
    statement=r"The inverse transform of $\hat q\, \overline{\hat k}$ is the circular correlation $\sum_t q_{t+\tau} k_t$; of series "
    "padded to twice their length, the linear one (lengths 24, 31 and 96).",
    origin="rounding of three transforms of 2 L places and of a sum of L products",
    controls=[
        control("no conjugate: a convolution", conjugate=False),
        control("the linear correlation without padding", padded=False),
    ],
)
def correlations_are_spectra(config: Config, *, conjugate: bool = True, padded: bool = True) -> LabelledArrays:
    pairs = []
    for length in (24, 31, 96):
        query, key = normal(f"q {length}", length, 3), normal(f"k {length}", length, 3)
        norms = float(query.norm(dim=0).max() * key.norm(dim=0).max())
        # Errors of both transforms by Cauchy-Schwarz, of the last by its largest frequency (see fourier.chirp_rounding).
        bound = rounding_bound(21 * math.log2(8 * length) + length + 40, norms * (3 + math.sqrt(length)))
        pairs.append((largest(correlations(query, key, conjugate) - correlations_by_sums(query, key)), bound))
        rows = (0, 0, 0, length if padded else 0)
        wide = [torch.nn.functional.pad(series, rows) for series in (query, key)]
        linear = torch.stack([(query[lag:] * key[: length - lag]).sum(0) for lag in range(length)])
        pairs.append((largest(correlations(wide[0], wide[1], conjugate)[:length] - linear), bound))
    return deviations(pairs)


@PROOFS.identity(
    "structured-mixers/acorr.T2",
    where="derived",
    paper=AUTOFORMER,
    statement="Moving queries, keys and values together around the circle moves the output with them (40 tokens, every move).",
    origin="rounding of three transforms and of a mixture of values, through a softmax of correlations",
    controls=[
        control("keys that stay where they are", moved=("query", "value")),
        control("values that stay", moved=("query", "key")),
    ],
)
def auto_correlation_is_equivariant(
    config: Config, *, moved: tuple[str, ...] = ("query", "key", "value")
) -> LabelledArrays:
    streams = {name: normal(f"circle {name}", 40, 4) for name in ("query", "key", "value")}
    norms = float(streams["query"].norm(dim=0).max() * streams["key"].norm(dim=0).max())
    size = norms * (3 + math.sqrt(40)) * largest(streams["value"])
    pairs = []
    for by in range(1, 40):
        turned = {name: value.roll(by, 0) if name in moved else value for name, value in streams.items()}
        difference = moved_lags(turned) - moved_lags(streams).roll(by, 0)
        pairs.append((largest(difference), 2 * rounding_bound(21 * math.log2(8 * 40) + 80, size)))
    return deviations(pairs)


@PROOFS.measurement(seeds=lambda config: config.draws)
def periods(config: Config, seed: int) -> LabelledArrays:
    """Whether the lag of largest correlation is a multiple of the period: of a periodic series in noise, and of noise alone."""
    source = stream(seed, "periods")
    pattern = draw(source, "pattern", PERIOD).repeat(SERIES // PERIOD)
    noise = NOISE * draw(source, "noise", SERIES)
    hits = [int(best_lag(series)) % PERIOD == 0 for series in (pattern + noise, noise)]
    return {"found": labelled(hits, series=("periodic", "noise"))}


@PROOFS.claim(
    "structured-mixers/acorr.P1",
    where="period-based dependencies",
    paper=AUTOFORMER,
    kind="phenomenon",
    statement="The lag of largest auto-correlation of a random pattern of period 8, repeated to 48 places in noise of standard "
    "deviation 0.5, is a multiple of the period in at least 85 % of series.",
    controls=[control("noise alone", series="noise")],
)
def largest_correlation_finds_the_period(results: Results, series: str = "periodic") -> Evidence:
    hits = results[periods]["found"].sel(series=series)
    return Evidence.proportion(
        int(hits.sum()), hits.size, ">=", 0.85, "far above the 5 of 47 lags that chance would hit; set on pilot draws"
    )


# %% [markdown]
# **Not causal.** One example settles it: change the last value, or the last query, and see which earlier outputs move.

# %%


@PROOFS.cases(claimed={}, attention={"kind": "attention"})
def reach_of_the_last_token(config: Config, *, kind: str = "auto-correlation") -> LabelledArrays:
    """Largest change of an earlier output when the last value, or the last query, changes."""
    streams = {name: normal(f"reach {name}", SERIES, 4) for name in ("query", "key", "value")}

    def outputs(inputs: dict[str, Tensor]) -> Tensor:
        if kind == "attention":
            scores = (inputs["query"] @ inputs["key"].T).masked_fill(~masks.causal(SERIES), -math.inf)
            return scores.softmax(-1) @ inputs["value"]
        return moved_lags(inputs)

    moved = []
    for name in ("value", "query"):
        changed = {**streams, name: streams[name].clone()}
        changed[name][-1] += 3.0
        moved.append(largest((outputs(changed) - outputs(streams))[:-1]))
    return {"moved": labelled(moved, of=("value", "query"))}


@PROOFS.claim(
    "structured-mixers/acorr.T3",
    where="derived: the released code, whose attention takes a mask and does not use it",
    paper=AUTOFORMER,
    kind="identity",
    statement="Auto-correlation is not causal: adding 3 to the last value, or to the last query, of 48 moves an earlier output by "
    "more than 0.1.",
    controls=[control("softmax attention under a causal mask", case="attention")],
)
def auto_correlation_reads_the_future(results: Results, case: str = "claimed") -> Evidence:
    moved = results[reach_of_the_last_token]["moved"].sel(case=case)
    origin = "one example; far above rounding, and a causal map would give exactly 0"
    return Evidence.all(*(Evidence.exact(float(change), ">", 0.1, origin) for change in moved.values))


# %% [markdown]
# ## ProbSparse attention

# %%


@PROOFS.identity(
    "structured-mixers/prob.T1",
    where="Lemma 1, and the lower bounds (derived)",
    paper=INFORMER,
    statement=r"$M = \log L + \mathrm{KL}(\mathrm{uniform} \,\|\, p)$, and $\log L \le M$, $\bar M \le M \le \bar M + \log L$ (2000 rows "
    "of 50 scores of four scales).",
    origin="rounding of sums of L exponentials and logarithms",
    controls=[control("KL(p | uniform) instead", reversed_=True), control("upper bound without log L", slack=0.0)],
)
def sparsity_is_a_divergence(config: Config, *, reversed_: bool = False, slack: float = 1.0) -> LabelledArrays:
    count = 50
    scores = normal("scores", 4, 500, count) * torch.tensor([0.1, 1.0, 3.0, 10.0]).double().view(4, 1, 1)
    measurement, gap, log_law = sparsity(scores), largest_gap(scores), scores.log_softmax(-1)
    # KL(p | uniform), or KL(uniform | p).
    divergence = (
        (log_law.exp() * log_law).sum(-1) + math.log(count) if reversed_ else -log_law.mean(-1) - math.log(count)
    )
    bound = rounding_bound(3 * count + 20, 4 * float(scores.abs().max()))
    return deviations(
        [
            (largest(measurement - math.log(count) - divergence), bound),
            (float((math.log(count) - measurement).max()), bound),
            (float((gap - measurement).max()), bound),
            (float((measurement - gap - slack * math.log(count)).max()), bound),
        ]
    )


@PROOFS.measurement(seeds=lambda config: config.draws // 4)
def sparsity_of_normal_keys(config: Config, seed: int) -> LabelledArrays:
    """M - log L of one query of squared norm d over 2000 normal keys in 16 dimensions."""
    source = stream(seed, "normal keys")
    query, keys = draw(source, "query", 16), draw(source, "keys", 2000, 16)
    query = query / query.norm() * 4.0
    return {"excess": float(sparsity(keys @ query / 4.0)) - math.log(2000)}


@PROOFS.claim(
    "structured-mixers/prob.R1",
    where="derived",
    paper=INFORMER,
    kind="rate",
    statement=r"For normal keys $M \to \log L + \lVert q \rVert^2 / 2d$: within 5 % of $1/2$ in the mean at $L = 2000$ and "
    r"$\lVert q \rVert^2 = d = 16$.",
    controls=[control("without the half", law=1.0)],
)
def sparsity_grows_with_the_query(results: Results, law: float = 0.5) -> Evidence:
    excess = results[sparsity_of_normal_keys]["excess"]
    return Evidence.equals(
        excess, law, 0.05, "log E exp(s) of a normal score of variance |q|^2 / d; its bias at L = 2000 is 0.0004"
    )


VARIANTS: dict[str, dict[str, Any]] = {"released": {}, "past": {"sight": "past"}}


@PROOFS.measurement(seeds=lambda config: config.draws // 2)
def future_keys(config: Config, seed: int) -> LabelledArrays:
    """Largest change of an output before the last when the last key is multiplied by 4, for the released choice of queries and
    for one that looks at past keys only; 96 tokens, causal mask."""
    source = stream(seed, "future keys")
    query, key, value = (draw(source, name, LENGTH, SIZE) for name in ("query", "key", "value"))
    sampled = sampled_keys(source.child("sampled"), LENGTH)
    changed = key.clone()
    changed[-1] *= 4
    causal = masks.causal(LENGTH)
    moved = [
        largest(
            (
                prob_sparse(query, changed, value, sampled, causal, **how)
                - prob_sparse(query, key, value, sampled, causal, **how)
            )[:-1]
        )
        for how in VARIANTS.values()
    ]
    return {"moved": labelled(moved, variant=tuple(VARIANTS))}


@PROOFS.claim(
    "structured-mixers/prob.T2",
    where="derived: the released code, which chooses queries before it masks",
    paper=INFORMER,
    kind="phenomenon",
    statement="ProbSparse attention under a causal mask is not causal: multiplying the last of 96 keys by 4 changes an earlier output by "
    "more than 0.1 in at least 70 % of prompts (d = 8, factor 5).",
    controls=[control("queries chosen by past keys", variant="past")],
)
def choosing_queries_reads_the_future(results: Results, variant: str = "released") -> Evidence:
    moved = results[future_keys]["moved"].sel(variant=variant)
    return Evidence.proportion(
        int((moved > 0.1).sum()), moved.size, ">=", 0.7, "far above the 0 of a causal map; set on pilot draws"
    )


@PROOFS.claim(
    "structured-mixers/prob.T2.mended",
    where="derived",
    paper=INFORMER,
    kind="identity",
    statement="Chosen by their scores on past keys, among the queries so far, ProbSparse attention is causal: "
    "multiplying the last key by "
    "4 changes no earlier output, to the last bit, in any prompt.",
    controls=[control("queries chosen as released", variant="released")],
)
def choosing_by_the_past_is_causal(results: Results, variant: str = "past") -> Evidence:
    moved = results[future_keys]["moved"].sel(variant=variant)
    return Evidence.exact(float(moved.max()), "<=", 0, "equality: the same numbers enter the same operations")


@PROOFS.cases(claimed={}, mean={"lazy": "mean"})
def lazy_rows(config: Config, *, lazy: str = "sum") -> LabelledArrays:
    """How far the rows that do not attend are from the running sum of values, how many there are, and the growth of their
    mean square from rows 12 - 23 to rows 48 - 95 of 64 prompts."""
    sampled = sampled_keys(stream(0, "lazy"), LENGTH)
    query, key, value = (normal(f"lazy {name}", 64, LENGTH, SIZE) for name in ("query", "key", "value"))
    outputs = prob_sparse(query, key, value, sampled, masks.causal(LENGTH), lazy=lazy)
    chosen = estimates(query, key, sampled).topk(chosen_count(LENGTH)).indices
    idle = torch.ones(64, LENGTH, dtype=torch.bool).scatter(-1, chosen, False)
    squares = outputs.square().mean(-1)
    early, late = (float(squares[:, a:b][idle[:, a:b]].mean()) for a, b in ((12, 24), (48, 96)))
    return {
        "distance": largest((outputs - value.cumsum(-2))[idle]),
        "idle": float(idle.sum()) / 64,
        "growth": late / early,
    }


@PROOFS.claim(
    "structured-mixers/prob.T3",
    where="derived: the released code",
    paper=INFORMER,
    kind="identity",
    statement="Under a causal mask the 71 of 96 queries that do not attend get the running *sum* of the values, exactly, not their mean.",
    controls=[control("the running mean", case="mean")],
)
def lazy_rows_are_running_sums(results: Results, case: str = "claimed") -> Evidence:
    measured = results[lazy_rows].sel(case=case)
    return Evidence.all(
        Evidence.exact(float(measured["distance"]), "<=", 0, "equality: the same running sum"),
        Evidence.exact(float(measured["idle"]), ">=", LENGTH - chosen_count(LENGTH), COUNTING),
        Evidence.exact(
            float(measured["growth"]), ">", 2.0, "a sum of t values has t times their variance: 4 here, a mean has 1/4"
        ),
    )


@PROOFS.measurement(seeds=lambda config: config.draws // 4)
def rankings(config: Config, seed: int) -> LabelledArrays:
    """Of the 25 queries of largest Mbar, how many are among the 25 of the released estimate, and of one that divides by the number of
    sampled keys; keys with and without an offset that they share."""
    source = stream(seed, "rankings")
    query, key = draw(source, "query", LENGTH, SIZE), draw(source, "key", LENGTH, SIZE)
    sampled, rows = sampled_keys(source.child("sampled"), LENGTH), []
    for offset in (2.0, 0.0):
        keys = key + offset * draw(source, "offset", SIZE)
        true = set(largest_gap(query @ keys.T).topk(25).indices.tolist())
        rows.append(
            [
                len(true & set(estimates(query, keys, sampled, score).topk(25).indices.tolist()))
                for score in ("released", "sampled mean")
            ]
        )
    return {"shared": labelled(rows, keys=("offset", "centred"), score=("released", "sampled mean"))}


@PROOFS.claim(
    "structured-mixers/prob.N1",
    where="derived: the released code",
    paper=INFORMER,
    kind="phenomenon",
    statement="The released estimate divides the sum over the sampled keys by the number of all keys. Where keys share an "
    "offset it finds at least 2 fewer of the 25 queries of largest $\\bar M$ than one that divides by the number sampled (96 "
    "tokens, d = 8, mean over prompts).",
    controls=[control("keys without an offset", keys="centred")],
)
def the_released_estimate_divides_wrongly(results: Results, keys: str = "offset") -> Evidence:
    shared = results[rankings]["shared"].sel(keys=keys)
    gain = shared.sel(score="sampled mean") - shared.sel(score="released")
    return Evidence.over_seeds(gain, ">=", 2.0, "chosen on pilot draws, between no gain and the one seen there")


@PROOFS.cases(claimed={}, full={"everything": True})
def scored(config: Config, *, everything: bool = False) -> LabelledArrays:
    """Scores of ProbSparse attention, counted in its own arrays, and the law 2 u L."""
    lengths, wrong = (96, 336, 720), 0
    for length in lengths:
        sampled = sampled_keys(stream(0, "scored"), length)
        counted = sampled.numel() + sampled.shape[1] * length
        wrong += abs((length**2 if everything else counted) - scored_pairs(length))
    stated = sum(abs(scored_pairs(n) - law) for n, law in zip(lengths, (4800, 20160, 50400), strict=True))
    return {"wrong": wrong, "stated": stated}


@PROOFS.claim(
    "structured-mixers/prob.R2",
    where="cost of O(L log L)",
    paper=INFORMER,
    kind="rate",
    statement=r"ProbSparse attention scores $2 u L$ pairs with $u = c \lceil \ln L \rceil$: 4800, 20160 and 50400 at $L = 96, 336, 720$, "
    "$c = 5$, where attention scores $L^2$.",
    controls=[control("all pairs", case="full")],
)
def prob_sparse_scores_l_log_l_pairs(results: Results, case: str = "claimed") -> Evidence:
    measured = results[scored].sel(case=case)
    return Evidence.all(*(Evidence.exact(int(measured[name]), "<=", 0, COUNTING) for name in ("wrong", "stated")))


@PROOFS.figure
def change_of_the_past(results: Results) -> Sheet:
    """Share of prompts whose earlier outputs move by more than a threshold when the last of 96 keys is multiplied by 4."""
    moved = results[future_keys]["moved"]
    thresholds = np.geomspace(1e-2, 1e2, 41).tolist()
    threshold = labelled(thresholds, threshold=thresholds)
    sheet = Sheet(width=6.4, height=4.2)
    panel = sheet.panel(
        "queries chosen by all keys read the future",
        x="threshold",
        y="share of prompts",
        scale=("log", "linear"),
        ylim=(-0.04, 1.04),
        legend="best",
    )
    for variant, name in (("released", "chosen by all keys (released)"), ("past", "chosen by past keys")):
        beyond = (moved.sel(variant=variant) > threshold).astype(float)
        panel.curve(beyond, over="threshold", name=name, within=(0, 1))
    return sheet


# %%
PROOFS.show(correlations_are_spectra)
PROOFS.show(auto_correlation_is_equivariant)
PROOFS.show(largest_correlation_finds_the_period)
PROOFS.show(auto_correlation_reads_the_future)
PROOFS.show(sparsity_is_a_divergence)
PROOFS.show(sparsity_grows_with_the_query)
PROOFS.show(change_of_the_past)
PROOFS.show(choosing_queries_reads_the_future)
PROOFS.show(choosing_by_the_past_is_causal)
PROOFS.show(lazy_rows_are_running_sums)
PROOFS.show(the_released_estimate_divides_wrongly)
PROOFS.show(prob_sparse_scores_l_log_l_pairs)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
