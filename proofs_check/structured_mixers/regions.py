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
# # Structured mixers: what is exact in efficient attention
#
# Full attention computes $L^2$ scores. These parts ask of nine cheaper mixers what they still are: a mixture, a
# convolution, a product of maps; whether an output reads the future; and what they cost, counted in the running code. The
# common test object is the **dependency matrix** $D_{ij} = \max |\partial y_i / \partial x_j|$: a causal mixer has an
# upper triangle of exact zeros, and one with full support has none below.
#
# 1. **Regions** (here): Combiner, attention as a mixture over regions of the past.
# 2. **Regions on a grid** (`regions_on_a_grid.py`): its axial variants, of which one covers most of the past twice.
# 3. **Monarch matrices** (`monarch.py`): from the Fourier transform to causal polynomials.
# 4. **Transforms** (`transforms.py`): FNet, and its causal relative as a convolution between chirps.
# 5. **Two axes** (`two_axes.py`): axial attention, patches, merged squares, maxima of neighbours.
# 6. **Time series** (`time_series.py`): Autoformer's lags and Informer's chosen queries, neither of them causal.
# 7. **Costs** (`costs.py`): multiply-adds, saved numbers and caches as exact laws.
#
# ## Combiner
#
# Attention is a conditional expectation $y_i = E[v_j \mid i]$. Combiner (Ren et al. 2021) cuts the past of token $i$ into
# directly seen tokens and regions $R$ and replaces $p(j \mid i)$ inside a region by a law that is the same for all queries:
#
# $$\tilde p(j \mid i) = [j \text{ direct}]\, p(j \mid i) + \sum_R p(R \mid i)\, p(j \mid R).$$
#
# The paper calls this "full attention capability". What holds is *full support*: every token of the past keeps a positive
# weight. Equality is another matter. Write $p(j \mid i) = p(R \mid i)\, p(j \mid i, R)$: the two laws agree iff inside each region
# $p(j \mid i, R)$ does not depend on $i$ **and** the region's logit is the log of the sum of its scores' exponentials. With
# keys that are equal inside a region that sum is $|R|\, e^{q \cdot k}$, so the pooled key alone, as published, misses
# $\log |R|$.


# %%
from __future__ import annotations

import math

import torch
from torch import Tensor

from lab import Evidence, Task, control
from lab.figures import Sheet
from lab.labels import LabelledArrays, deviations, labelled
from lab.models import masks
from lab.models.mixers.combiner import (
    LOGITS,
    Regions,
    binary_blocks,
    divergence,
    law,
    least_divergence,
    powers,
    region_sums,
    segments,
)
from lab.models.mixers.heads import weights
from lab.results import Results
from lab.statistics import rounding_bound
from proofs_check.structured_mixers._shared import COUNTING, SLUG, largest, largest_distance, normal

PROOFS = Task(SLUG, paper=SLUG, root=2032)
PAPER = "ren-2021-combiner"
DRAWS, LENGTH, SEGMENT, SIZE = 50, 24, 4, 6


def cut(regions: str) -> Regions:
    """Segments; segments moved into the future; or segments of which the last one is also seen token by token."""
    if regions == "moved on":
        return segments(LENGTH, SEGMENT, shift=-1)
    partition = segments(LENGTH, SEGMENT)
    if regions == "overlapping":
        token = torch.arange(LENGTH)
        near = (token <= token.unsqueeze(1)) & (token // SEGMENT >= token.unsqueeze(1) // SEGMENT - 1)
        return partition._replace(direct=near)
    return partition


@PROOFS.cases(claimed={}, overlapping={"regions": "overlapping"}, moved={"regions": "moved on"})
def support(config: object, *, regions: str = "segments") -> LabelledArrays:
    """Over 50 draws: entries of the induced law that are positive where the causal mask is False or the reverse, tokens that
    are not covered once, and how far rows are from sum 1."""
    partition = cut(regions)
    query, key = normal("support q", DRAWS, LENGTH, SIZE), normal("support k", DRAWS, LENGTH, SIZE)
    induced = law(query, key, partition, "max").weights()
    causal = masks.causal(LENGTH)
    return {
        "support": int(((induced > 0) != causal).sum()),
        "cover": int((partition.multiplicity() != causal.long()).sum()),
        "sum": largest(induced.sum(-1) - 1),
        "bound": rounding_bound(4 * (LENGTH + len(partition.members)) + 8),
    }


@PROOFS.claim(
    "structured-mixers/comb.T1",
    where="the construction, whose regions are a partition of every token's past",
    paper=PAPER,
    kind="identity",
    statement="Combiner's induced attention is a probability law with full causal support: with 6 segments of 4 tokens every "
    "token of the past is covered exactly once, has a positive weight, no future token has one, and rows sum to 1.",
    controls=[
        control("the segment before seen token by token as well", case="overlapping"),
        control("regions moved on by one token", case="moved"),
    ],
)
def combiner_has_full_support(results: Results, case: str = "claimed") -> Evidence:
    measured = results[support].sel(case=case)
    return Evidence.all(
        Evidence.exact(int(measured["support"]), "<=", 0, "a softmax weight is positive where its score is finite"),
        Evidence.exact(int(measured["cover"]), "<=", 0, COUNTING),
        Evidence.exact(float(measured["sum"]), "<=", float(measured["bound"]), "rounding of two normalised sums"),
    )


# %% [markdown]
# **Powers of two.** The past $\{0, \dots, i-1\}$ cut from the right by the binary digits of $i$ needs one block for each digit
# 1: at most $\log_2 i + 1$, all of them aligned, so that all queries share $2L$ regions.

# %%
LONGEST = 200


@PROOFS.cases(claimed={}, shifted={"later": 1})
def binary_covers(config: object, *, later: int = 0) -> LabelledArrays:
    """Over all i < 200, tokens not covered once by the blocks of i + ``later``, blocks that are not aligned powers of two,
    and blocks more or fewer than the digits 1 of i."""
    wrong = unaligned = miscounted = 0
    for token in range(LONGEST):
        blocks = binary_blocks(token + later)
        covered = sorted(place for start, end in blocks for place in range(start, end))
        wrong += covered != list(range(token))
        unaligned += sum(start % (end - start) != 0 or (end - start).bit_count() != 1 for start, end in blocks)
        miscounted += len(blocks) != token.bit_count() or (token > 0 and len(blocks) > math.log2(token) + 1)
    regions = powers(64)
    return {
        "wrong": wrong,
        "unaligned": unaligned,
        "miscounted": miscounted,
        "induced": int((regions.multiplicity() != masks.causal(64).long()).sum()),
    }


@PROOFS.claim(
    "structured-mixers/comb.T2",
    where="the logsparse variant",
    paper=PAPER,
    kind="identity",
    statement="The blocks of the binary digits of $i$ cover $\\{0, \\dots, i-1\\}$ once each, for all $i < 200$; they are aligned "
    "powers of two, as many as $i$ has digits 1, at most $\\log_2 i + 1$.",
    controls=[control("the digits of i + 1", case="shifted")],
)
def powers_of_two_cover_the_past(results: Results, case: str = "claimed") -> Evidence:
    measured = results[binary_covers].sel(case=case)
    return Evidence.all(
        *(
            Evidence.exact(int(measured[name]), "<=", 0, COUNTING)
            for name in ("wrong", "unaligned", "miscounted", "induced")
        )
    )


# %% [markdown]
# **Exactness.** Two families of keys meet the condition: scores that separate inside each region,
# $q_i \cdot k_j = \alpha_{i,R} + \beta_j$ (here: one key for each region beside a coordinate for $\beta_j$, on which every query has
# a 1), with the logit $\log \sum_{j \in R} e^{q_i \cdot k_j}$; and keys that are equal inside a region, with the mean key plus
# $\log |R|$.


# %%
def separable(draws: int) -> tuple[Tensor, Tensor]:
    """Queries (q', 1) and keys (k'_R, beta_j): scores that separate inside segments."""
    region = torch.arange(LENGTH) // SEGMENT
    keys = normal("separable k", draws, LENGTH // SEGMENT, SIZE - 1)[:, region]
    query = torch.cat((normal("separable q", draws, LENGTH, SIZE - 1), torch.ones(draws, LENGTH, 1).double()), dim=-1)
    return query, torch.cat((keys, 2 * normal("separable beta", draws, LENGTH, 1)), dim=-1)


def equal_keys(draws: int) -> tuple[Tensor, Tensor]:
    """Keys that are equal inside a segment."""
    query, key = separable(draws)
    return query, torch.cat((key[..., :-1], torch.zeros_like(key[..., -1:])), dim=-1)


def any_keys(draws: int) -> tuple[Tensor, Tensor]:
    """Independent keys."""
    return normal("any q", draws, LENGTH, SIZE), normal("any k", draws, LENGTH, SIZE)


FAMILIES = {"separable": separable, "equal": equal_keys, "independent": any_keys}
HOLDS = (("separable", "logsumexp"), ("equal", "mean and size"))


@PROOFS.cases(claimed={})
def distances(config: object) -> LabelledArrays:
    """Largest total variation between a Combiner's law and softmax attention, for every family of keys and logit."""
    total_variations = [
        [
            largest_distance(
                law(query, key, segments(LENGTH, SEGMENT), logit).weights(), weights(query, key, masks.causal(LENGTH))
            )
            for logit in LOGITS
        ]
        for query, key in (family(DRAWS) for family in FAMILIES.values())
    ]
    query, key = separable(DRAWS)
    score = float(query.norm(dim=-1).max() * key.norm(dim=-1).max()) / math.sqrt(SIZE)
    # Shares of both levels move by twice the error of a score, and their sums have LENGTH terms.
    bound = rounding_bound(8 * (SIZE + LENGTH + 8), 1 + 2 * score)
    return {"distance": labelled(total_variations, keys=tuple(FAMILIES), logit=LOGITS), "bound": bound}


@PROOFS.claim(
    "structured-mixers/comb.T3",
    where="derived",
    paper=PAPER,
    kind="identity",
    statement=r"A Combiner *is* softmax attention where inside each region $q_i \cdot k_j = \alpha_{i,R} + \beta_j$ and the "
    r"region's logit is $\log \sum_{j \in R} e^{q_i \cdot k_j}$; for keys that are equal inside a region, the mean key "
    r"plus $\log |R|$ is that logit.",
    controls=[
        control("separable scores, the largest key as logit", pairs=(("separable", "max"), HOLDS[1])),
        control("separable scores, the mean key", pairs=(("separable", "mean"), HOLDS[1])),
        control("equal keys without the size", pairs=(HOLDS[0], ("equal", "mean"))),
        control("independent keys and the sum of exponentials", pairs=(("independent", "logsumexp"), HOLDS[1])),
    ],
)
def combiner_is_exact_where_scores_separate(results: Results, pairs: tuple[tuple[str, str], ...] = HOLDS) -> Evidence:
    measured = results[distances].sel(case="claimed")
    total_variations = [float(measured["distance"].sel(keys=keys, logit=logit)) for keys, logit in pairs]
    return Evidence.within(
        total_variations,
        [float(measured["bound"])] * len(total_variations),
        "rounding of scores and of two nested softmaxes, in total variation",
    )


@PROOFS.claim(
    "structured-mixers/comb.T3.size",
    where='our reading of "full attention capability" in the abstract: equality, in the easiest case',
    paper=PAPER,
    kind="identity",
    statement="With the pooled key of a region as its logit, as published, a Combiner equals softmax attention at least where "
    "the keys of every region are equal (6 segments of 4 tokens).",
    expected="refuted",
    condition="with the logarithm of the size of the region added to its logit",
    controls=[control("the size added", logit="mean and size")],
)
def the_pooled_key_forgets_the_size(results: Results, logit: str = "max") -> Evidence:
    measured = results[distances].sel(case="claimed")
    total_variation = measured["distance"].sel(keys="equal", logit=logit)
    return Evidence.exact(float(total_variation), "<=", float(measured["bound"]), "rounding, as in comb.T3")


# %% [markdown]
# **How near can it come?** Let queries be uniform and the regions the same for all of them. Then
# $\frac1n \sum_i \mathrm{KL}(p(\cdot \mid i) \,\|\, \tilde p(\cdot \mid i))$ splits into one term for the weights of regions, least (0)
# at $p(R \mid i)$, and one for the laws inside, least at the query average $b^*_R(j) = \sum_i p(j \mid i) / \sum_i p(R \mid i)$. What
# remains is the conditional mutual information $I(\text{query}; \text{key} \mid \text{region})$, and any other laws $b$ cost
# exactly $\sum_R p(R)\, \mathrm{KL}(b^*_R \,\|\, b_R)$ more: a certificate, so that no search is needed.


# %%
@PROOFS.identity(
    "structured-mixers/comb.T4",
    where="derived",
    paper=PAPER,
    statement=r"The least mean KL of a law with given regions is $I(\mathrm{query}; \mathrm{key} \mid \mathrm{region})$, attained by "
    r"$p(R \mid i) = \sum_{j \in R} p(j \mid i)$ and the query average inside each region; other laws $b$ inside cost "
    r"$\sum_R p(R)\, \mathrm{KL}(b^*_R \,\|\, b_R)$ more (12 queries, 12 keys, 3 regions; 200 random laws).",
    origin="rounding of sums of n^2 logarithms of the size of the largest",
    controls=[
        control("a uniform law inside the regions", inside="uniform"),
        control("the geometric mean over queries", inside="geometric"),
    ],
)
def least_divergence_is_information(config: object, *, inside: str = "average") -> LabelledArrays:
    size, count = 12, 3
    joint = (1.5 * normal("joint", size, size)).softmax(-1)
    region = torch.arange(size) % count
    best = least_divergence(joint, region)
    if inside == "uniform":
        best = torch.full((size,), count / size, dtype=torch.float64)
    elif inside == "geometric":
        best = joint.log().mean(0).exp()
        best = best / region_sums(best, region)[region]
    # I(query; key | region) from entropies of the joint law alone.
    conditional = joint / region_sums(joint, region)[:, region]
    shares = region_sums(joint, region)  # p(region | query)
    mean_law = joint.sum(0) / region_sums(joint.sum(0), region)[region]
    entropy = -(region_sums(joint.mean(0), region)[region] * mean_law * mean_law.log()).sum()
    information = float(entropy + (shares[:, region] * conditional * conditional.log()).sum(-1).mean())
    worst = float(joint.log().abs().max())
    bound = rounding_bound(4 * size**2 + 40, 4 * worst)
    pairs = [(abs(divergence(joint, best, region) - information), bound)]
    total = joint.mean(0)
    for other in normal("other laws", 200, size).exp():
        law_inside = other / region_sums(other, region)[region]
        excess = float((total * (best / law_inside).log()).sum())
        difference = divergence(joint, law_inside, region) - divergence(joint, best, region)
        pairs.append((abs(difference - excess), rounding_bound(8 * size**2 + 40, 4 * worst + 8)))
    return deviations(pairs)


# %% [markdown]
# **Cost.** Segments of $s = \sqrt L$ need $\sum_i (i \bmod s + 1 + \lfloor i/s \rfloor) = L\, s$ scores, and $L$ more inside the regions,
# against $L(L+1)/2$: an exponent of $3/2$ for one of 2.

# %%
SIDES = (16, 32, 64)


@PROOFS.cases(claimed={}, full={"size": "whole"}, double={"size": "double"})
def pair_counts(config: object, *, size: str = "root") -> LabelledArrays:
    """Scores of direct tokens and regions, counted in the pattern, and the law L sqrt(L); causal attention's L (L + 1) / 2."""
    counted = []
    for side in SIDES:
        length = side**2
        width = {"root": side, "whole": length, "double": 2 * side}[size]
        counted.append(segments(length, width).pairs())
    return {
        "counted": labelled(counted, side=SIDES),
        "law": labelled([side**3 for side in SIDES], side=SIDES),
        "full": labelled([side**2 * (side**2 + 1) // 2 for side in SIDES], side=SIDES),
    }


@PROOFS.claim(
    "structured-mixers/comb.R1",
    where="the fixed variant: sub-quadratic cost",
    paper=PAPER,
    kind="rate",
    statement=r"With segments of $\sqrt L$ tokens a Combiner scores exactly $L^{3/2}$ pairs (and $L$ inside regions): 4096, 32768 "
    "and 262144 at $L = 256, 1024, 4096$, where causal attention scores $L(L+1)/2$.",
    controls=[control("one segment of all tokens", case="full"), control("segments twice as long", case="double")],
)
def segments_cost_three_halves(results: Results, case: str = "claimed") -> Evidence:
    measured = results[pair_counts].sel(case=case)
    return Evidence.exact(int(abs(measured["counted"] - measured["law"]).sum()), "<=", 0, COUNTING)


@PROOFS.figure
def distance_by_logit(results: Results) -> Sheet:
    """Total variation between Combiner attention and softmax attention for three families of keys, by the region's logit."""
    measured = results[distances].sel(case="claimed")
    sheet = Sheet(width=7.0, height=4.2, foot="largest of 50 draws of 24 tokens; exact zeros are drawn at 1e-17")
    panel = sheet.panel(
        "exact where scores separate and the logit counts the region",
        x="logit of a region",
        y="total variation",
        scale=("linear", "log"),
        ylim=(1e-17, 20.0),
        xticks=dict(enumerate(LOGITS)),
        legend="outside",
    )
    for place, keys in enumerate(FAMILIES):
        values = measured["distance"].sel(keys=keys).values.clip(1e-17)
        panel.scatter([logit + 0.15 * (place - 1) for logit in range(len(LOGITS))], values, name=f"{keys} keys")
    panel.level(float(measured["bound"]), "rounding bound")
    return sheet


# %%
PROOFS.show(distance_by_logit)
PROOFS.show(combiner_has_full_support)
PROOFS.show(powers_of_two_cover_the_past)
PROOFS.show(combiner_is_exact_where_scores_separate)
PROOFS.show(the_pooled_key_forgets_the_size)
PROOFS.show(least_divergence_is_information)
PROOFS.show(segments_cost_three_halves)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
