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
# # Emergent position: running means
#
# From two layers on a causal network can tell the order (`symmetry.py`). What does it look like from inside?
# At random initialisation attention is nearly uniform over what is visible, so the first causal layer
# computes running means $m_i = \frac1i\sum_{t \le i} x_t$. For independent zero-mean tokens $E\langle m_i,
# m_j\rangle = c/\max(i, j)$, hence, for wide tokens, $\cos(m_i, m_j) \to \sqrt{\min(i, j)/\max(i, j)}$:
# near tokens are alike, and a later layer can read distance off similarity. With a residual, $h_i = x_i +
# c\,m_i$, the tokens' own parts dominate and the cosine is small and mostly a function of the *later*
# index; stacked means keep the pattern at every depth, but its contrast fades, because everything collapses
# onto token 1.
#
# How fast? Running means have the eigenvalues $1, \frac12, \frac13, \dots$, and what distinguishes token $n$ from token 1
# dies as the second: $1 - \cos^2(1, n) \to (n-1)^2\,4^{-L}$, a factor of 4 a layer for every $n$. The reason is a law of its
# own. Token $i$ reads a uniform place up to its own, which is $1 + \mathrm{Bin}(i - 1, U)$ with $U$ uniform on $[0, 1]$; reading on from
# there keeps each of these with another chance $U'$. So through $L$ layers token $n$ reads place $1 + \mathrm{Bin}(n - 1, Z)$ with $Z$ a
# product of $L$ independent uniform numbers, $E Z = 2^{-L}$, $E Z^2 = 3^{-L}$. The weight of place 2 is $E[(n-1) Z (1-Z)^{n-2}]$, between
# $(n-1)(2^{-L} - (n-2)\,3^{-L})$
# and $(n-1)\,2^{-L}$, and all later places have at most $\binom{n-1}{2} 3^{-L}$. With a residual of weight $c$ each factor is 1 with
# probability $1/(1 + c)$, and the rate becomes $\big(\frac{1 + c/2}{1 + c}\big)^2$ a layer: at $c = 1$ only $9/16$.


# %%
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import wishart

from lab import Evidence, Task, control
from lab.domains.attention.causal_averaging import (
    adjacency_score,
    averaged_gram,
    averaging_matrix,
    collapse_law,
    cosines,
    distance_from_first,
    residual_cosine,
    running_mean_cosine,
)
from lab.figures import Sheet
from lab.labels import Label, LabelledArrays, labelled
from lab.results import Results
from lab.statistics import rounding_bound, slope
from lab.streams import stream
from proofs_check.attention_masks._shared import SLUG, largest


@dataclass(frozen=True)
class Config:
    """How much is drawn."""

    draws: int = 32
    """independent draws behind every sampled number"""
    sequences: int = 32
    """sequences a draw in the law of running means"""
    widths: tuple[int, ...] = (64, 256, 1024)
    """widths of the tokens there"""


PROOFS = Task(
    SLUG,
    paper=SLUG,
    presets={
        "smoke": Config(draws=3, sequences=4, widths=(32, 128)),
        "ci": Config(),
        "paper": Config(draws=16, sequences=96, widths=(64, 512, 4096)),
    },
    root=2027,
)
TOKENS = 32
SUMS = f"rounding of sums of {TOKENS} terms, two roots and a quotient, cosines at most 1"


@PROOFS.cases(claimed={}, twice={"depth": 2})
def distance_from_root_law(config: Config, *, depth: int = 1) -> LabelledArrays:
    """Largest difference between the cosines of running means, ``depth`` in a row, and the root law."""
    return {"difference": largest(cosines(averaged_gram(TOKENS, depth=depth)) - running_mean_cosine(TOKENS))}


@PROOFS.claim(
    "attention-masks/near.L1",
    where="derived; the mechanism of Zuo, Guerzhoy et al. 2025",
    paper="zuo-2025-nearby",
    kind="identity",
    statement=r"The Gram matrix $C C^\top$ of running means, $C_{ij} = 1/i$ for $j \le i$, has the cosines "
    r"$\sqrt{\min(i,j)/\max(i,j)}$ ($n = 32$).",
    controls=[control("two running means in a row", case="twice")],
)
def running_means_have_the_root_law(results: Results, case: str = "claimed") -> Evidence:
    difference = results[distance_from_root_law]["difference"].sel(case=case)
    return Evidence.exact(float(difference), "<=", rounding_bound(3 * TOKENS + 8, 1.0), SUMS)


@PROOFS.measurement(seeds=lambda config: config.draws)
def running_means(config: Config, seed: int) -> LabelledArrays:
    """Root mean square deviation of sampled cosines from the law, for tokens of mean 0 and of mean 1.

    Only the inner products of the tokens matter. A rotation of the width puts the mean, of length sqrt(width), into one
    coordinate; the others add a Wishart matrix, which is drawn as such.
    """
    average, means, deviations = averaging_matrix(16), (0.0, 1.0), []
    for mean in means:
        for width in config.widths:
            rng = stream(seed, "running means", width).rng()
            along = mean * math.sqrt(width) + rng.standard_normal((config.sequences, 16, 1))
            across = wishart(width - 1, np.eye(16)).rvs(config.sequences, random_state=rng)
            gram = average @ torch.from_numpy(along @ along.swapaxes(1, 2) + across) @ average.T
            deviations.append(float((cosines(gram) - running_mean_cosine(16)).square().mean().sqrt()))
    return {"deviation": labelled(np.reshape(deviations, (2, -1)), mean=means, width=config.widths)}


@PROOFS.claim(
    "attention-masks/near.L1.width",
    where="derived",
    kind="rate",
    statement="At finite width $D$ single cosines scatter around the law by $D^{-1/2}$: a log-log slope between "
    "$-0.6$ and $-0.4$ (normal tokens, $n = 16$).",
    controls=[control("tokens of mean 1, whose cosines have another limit", mean=1.0)],
)
def scatter_falls_with_the_root_of_the_width(results: Results, mean: float = 0.0) -> Evidence:
    deviations = results[running_means]["deviation"].sel(mean=mean)
    slopes = np.array([slope(results.config.widths, of_seed) for of_seed in deviations.values])
    return Evidence.equals(
        slopes,
        -0.5,
        within=0.1,
        origin="central limit theorem, slope -1/2; 0.1 allows for terms of order 1/D",
        absolute=True,
    )


@PROOFS.cases(claimed={}, stronger={"factor": 1.1})
def distance_from_residual_law(config: Config, *, factor: float = 1.0) -> LabelledArrays:
    """Largest difference between the cosines of a residual stream and their formula, whose c is ``factor`` times as large."""
    strengths = (0.5, 1.0, 3.0)
    differences = [
        largest(cosines(averaged_gram(TOKENS, residual=c)) - residual_cosine(TOKENS, factor * c)) for c in strengths
    ]
    return {"difference": labelled(differences, c=strengths)}


@PROOFS.claim(
    "attention-masks/near.L2",
    where="derived",
    kind="identity",
    statement=r"With a residual, $h_i = x_i + c\,m_i$ has $\cos(i < j) = \frac{(c + c^2)/j}{\sqrt{(1 + K/i)(1 + "
    "K/j)}}$, $K = 2c + c^2$: it equals the Gram matrix of $I + cC$ for $c = 0.5, 1, 3$ ($n = 32$).",
    controls=[control("a residual 1.1 times as strong in the formula", case="stronger")],
)
def residual_streams_have_the_later_index_law(results: Results, case: str = "claimed") -> Evidence:
    difference = results[distance_from_residual_law]["difference"].sel(case=case).max()
    return Evidence.exact(float(difference), "<=", rounding_bound(3 * TOKENS + 12, 1.0), SUMS)


@PROOFS.cases(claimed={}, full={"averaging": "full"})
def stacked_means(config: Config, *, averaging: str = "causal") -> LabelledArrays:
    """Adjacency score and cosine of first and last token after L means in a row; and the score of one with a residual."""
    layers = range(1, 7)
    if averaging == "full":
        grams = [torch.ones(TOKENS, TOKENS, dtype=torch.float64) / TOKENS for _ in layers]
    else:
        grams = [averaged_gram(TOKENS, depth=depth) for depth in layers]
    return {
        "score": labelled([float(adjacency_score(cosines(gram))) for gram in grams], layers=layers),
        "ends": labelled([float(cosines(gram)[0, -1]) for gram in grams], layers=layers),
        "residual_score": float(adjacency_score(residual_cosine(TOKENS, 1.0))),
    }


@PROOFS.claim(
    "attention-masks/near.L3",
    where="derived",
    kind="identity",
    statement=r"$L$ running means in a row, with the Gram matrix $C^L (C^L)^\top$, order all neighbours rightly "
    r"(adjacency score 1) at every $L = 1, \dots, 6$, while the contrast fades: $\cos(1, 32)$ grows with "
    "$L$ towards 1; with a residual ($c = 1$, one layer) the score is 1 as well.",
    controls=[control("tokens that average over all tokens", case="full")],
)
def stacked_means_keep_the_order(results: Results, case: str = "claimed") -> Evidence:
    measured = results[stacked_means].sel(case=case)
    least = min(float(measured["score"].min()), float(measured["residual_score"]))
    growth = measured["ends"].diff("layers").min()
    return Evidence.all(
        Evidence.exact(least, ">=", 1.0, "every triple of tokens in order"),
        Evidence.exact(float(growth), ">", 0.0, "growth of cos(1, 32) from layer to layer"),
    )


# Plain means, and a stream to which as much is added as it has; layers after which the law is sharp.
KINDS: dict[str, tuple[float | None, tuple[int, ...]]] = {
    "means": (None, (20, 30, 40)),
    "residual": (1.0, (80, 100, 120)),
}
LENGTHS = (8, 32, 200)
COLLAPSE = "weights of later places and of place 1, from the moments of products of independent factors; and rounding"


@PROOFS.cases(claimed={}, full={"averaging": "full"}, other={"law_of": "residual"}, linear={"power": 1})
def collapse(config: Config, *, averaging: str = "causal", law_of: str = "", power: int = 2) -> LabelledArrays:
    """Relative deviation of 1 - cos^2(1, n) from its law after L layers, and the share by which it may deviate.

    ``full`` averages over all tokens; ``law_of`` takes the rate of one kind for both; ``power`` is that of n - 1.
    """
    deviations, bounds = [], []
    for kind, (residual, depths) in KINDS.items():
        for length in LENGTHS:
            for depth in depths:
                distance = distance_from_first(length, depth=depth, residual=residual) if averaging == "causal" else 0.0
                law, error = collapse_law(length, depth=depth, residual=KINDS[law_of or kind][0])
                deviations.append(abs(distance / (law * (length - 1) ** (power - 2)) - 1))
                bounds.append(error + rounding_bound(4 * length * depth))
    shape = (len(KINDS), len(LENGTHS), 3)
    axes: dict[str, Sequence[Label]] = {"kind": tuple(KINDS), "length": LENGTHS, "depth": ("early", "middle", "late")}
    return {
        "deviation": labelled(np.reshape(deviations, shape), **axes),
        "bound": labelled(np.reshape(bounds, shape), **axes),
    }


@PROOFS.claim(
    "attention-masks/near.L3.rate",
    where="derived",
    kind="rate",
    statement=r"Stacked running means collapse onto token 1 at a rate of 4 a layer: $1 - \cos^2(1, n) \to (n-1)^2\,4^{-L}$ for every "
    r"$n$. With a residual of weight $c$ the rate is $\big(\frac{1 + c}{1 + c/2}\big)^2$, at $c = 1$ it is $16/9$ "
    "($n = 8, 32, 200$; 20 to 40 "
    "layers, with the residual 80 to 120).",
    controls=[
        control("tokens that average over all tokens", case="full"),
        control("the rate of the residual stream for plain means", case="other", kinds=("means",)),
        control("n - 1 in the place of its square, with a residual", case="linear", kinds=("residual",)),
    ],
)
def stacked_means_collapse_at_a_known_rate(
    results: Results, case: str = "claimed", kinds: tuple[str, ...] = tuple(KINDS)
) -> Evidence:
    measured = results[collapse].sel(case=case, kind=list(kinds))
    return Evidence.within(measured["deviation"], measured["bound"], COLLAPSE)


@PROOFS.cases(means={}, residual={"residual": 1.0})
def collapse_by_depth(config: Config, *, residual: float | None = None) -> LabelledArrays:
    """1 - cos^2(1, n) by depth and length, and its law."""
    depths = range(1, 81)
    distances = [[distance_from_first(n, depth=depth, residual=residual) for depth in depths] for n in LENGTHS]
    law = [[collapse_law(n, depth=depth, residual=residual)[0] for depth in depths] for n in LENGTHS]
    axes = {"length": LENGTHS, "depth": depths}
    return {"distance": labelled(distances, **axes), "law": labelled(law, **axes)}


@PROOFS.figure
def collapse_onto_the_first(results: Results) -> Sheet:
    """What distinguishes token n from token 1 after L running means, with and without a residual."""
    measured = results[collapse_by_depth]
    sheet = Sheet(columns=2, width=4.8, height=3.9)
    for case, title, deepest, least in (
        ("means", "running means: a factor of 4 a layer", 24, 1e-14),
        ("residual", "with a residual (c = 1): a factor of 16/9", 80, 1e-20),
    ):
        curves = measured.sel(case=case, depth=slice(None, deepest))
        panel = sheet.panel(
            title,
            x="layers",
            y=r"$1 - \cos^2$ of tokens 1 and $n$",
            scale=("linear", "log"),
            ylim=(least, 1e2),
            legend="lower left",
        )
        for length in LENGTHS:
            distance = curves["distance"].sel(length=length)
            panel.line(distance["depth"].values, distance.values, name=f"n = {length}", of="exact", marks=False)
        for length in LENGTHS:
            law = curves["law"].sel(length=length)
            shown = law.where(law < 1, drop=True)
            panel.theory(shown["depth"].values, shown.values, name=r"$(n-1)^2 \lambda^{2L}$")
    return sheet


# %%
PROOFS.show(running_means_have_the_root_law)
PROOFS.show(scatter_falls_with_the_root_of_the_width)
PROOFS.show(residual_streams_have_the_later_index_law)
PROOFS.show(stacked_means_keep_the_order)
PROOFS.show(collapse_onto_the_first)
PROOFS.show(stacked_means_collapse_at_a_known_rate)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
