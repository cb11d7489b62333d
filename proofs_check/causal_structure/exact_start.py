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
# # The start in closed form
#
# `first_gradient` says what the gradient of the first layer measures in the limit of long contexts and small
# $\beta_0$, and why the parent wins. Three questions remain. How far from the limit is a finite context? What does
# a prefix mask change, under which children are seen as well? And what is left of it all with two symbols,
# where everything can be written down?

# %%
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import special

from lab import Evidence, Task, control, statistics
from lab.domains.chains.latent_graph_prompts import chain
from lab.domains.chains.latent_graph_start import (
    eigenvalue_moment,
    finite_length_coefficients,
    irreversibility,
    limit_of_a_chain,
    start_gradient_of_a_chain,
)
from lab.domains.chains.latent_graphs import attention_signal
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.results import Results
from proofs_check.causal_structure._shared import PAPER, QUOTIENTS, prior_draws, quotient_bound


@dataclass(frozen=True)
class Config:
    """Nothing here is judged on samples; matrices are drawn for identities and pictures."""

    matrices: int = 4_000
    """transition matrices behind a mean over the prior, in a picture"""


PROOFS = Task("causal-structure", paper=PAPER, presets={"smoke": Config(200), "ci": Config(), "paper": Config(20_000)})

# %% [markdown]
# ## How far a finite context is from the limit
#
# $G_{ij}$, the scaled gradient, is a mean of $\pi(s, x_i) / f_{x_i}$ over sequences in which $x_j = s$, and $f = u/T$
# counts *all* tokens: the token $i$ itself, its relatives, the test token. Write $f_k = \mu_k + \Delta$ and expand,
# $1/f_k = 1/\mu_k - \Delta/\mu_k^2 + \Delta^2/\mu_k^3$. Given the two tokens, $T\,E\Delta$ is a sum of return probabilities
# and $T\,E\Delta^2$ the variance $\sigma_k^2$ of visits, so for every *fixed* $\pi$ with positive entries
# $$G_{ij} = g_{ij} - \operatorname*{mean}_{j'} g_{ij'} + \frac{c_{ij}}{T} + O(T^{-2}).$$
# At $j = i$ the token's own visits and the variance cancel, and
# $c_{ii} = -\frac1S \sum_k \pi(k,k)(1/\mu_k - 1)$ less the mean of far tokens. With two symbols the sum over
# sequences can be done exactly, by adding one token at a time to the count of ones.
#
# Averaged over the prior the constant is a mean of $1/\mu_k$. With two symbols and $\alpha = 1$ it does not exist (the bias then
# falls like $\log T/T$), with three its samples have no variance. A slope fitted to sampled sequences says little.


# %%
COUNTED = ([[0.7, 0.3], [0.4, 0.6]], [[0.2, 0.8], [0.5, 0.5]])
FINITE = (128, 256, 512)


@PROOFS.cases(everything={}, no_test_token={"counted": False})
def finite_length(config: Config, *, counted: bool = True) -> LabelledArrays:
    """T (G - g) in the middle of chains of two symbols, and the constant c, for two matrices, at the token and its parent.

    Args:
        counted: whether the constant knows that the test token is counted.
    """
    deviations, constants = [], []
    for matrix in COUNTED:
        transition = torch.tensor(matrix, dtype=torch.float64)
        rows = []
        for length in FINITE:
            row = (length - 1) // 2
            exact, limit = start_gradient_of_a_chain(transition, length - 1, row), limit_of_a_chain(transition, row)
            rows.append(
                [length * (exact_entry - limit_entry) for exact_entry, limit_entry in zip(exact, limit, strict=True)]
            )
        deviations.append(rows)
        constants.append(list(finite_length_coefficients(transition, counted)))
    axes = {"matrix": ("positive", "negative"), "entry": ("itself", "parent")}
    return {
        "deviation": labelled(np.moveaxis(np.array(deviations), 1, 2), **axes, length=FINITE),
        "constant": labelled(constants, **axes),
    }


@PROOFS.claim(
    "causal-structure/G2.limit",
    where="derived; gradient of the first layer at the start, finite length",
    kind="rate",
    statement=r"For a fixed $\pi$ with positive entries the scaled gradient on a chain differs from its limit by $c/T + "
    r"O(T^{-2})$, where far from both ends $c = -\frac1S \sum_k \pi(k,k)(1/\mu_k - 1) - c_\infty$ for $j = i$, with $c_\infty$ "
    r"that of far tokens, and in closed form for the parent too (two symbols, two matrices, $T$ = 128, 256, 512, summed exactly).",
    controls=[control("the constant of a unigram that leaves the test token out", case="no_test_token")],
)
def bias_vanishes(results: Results, case: str = "everything") -> Evidence:
    measured = results[finite_length].sel(case=case)
    shortest, middle, longest = (measured["deviation"].sel(length=length) for length in FINITE)
    coarser, finer = 2 * middle - shortest, 2 * longest - middle  # without terms of order 1/T
    error = abs((4 * finer - coarser) / 3 - measured["constant"]).max()
    origin = "1/128^2, the order of what two extrapolations to infinite T leave"
    return Evidence.exact(error, "<=", FINITE[0] ** -2, origin)


# %% [markdown]
# ## What a prefix mask changes
#
# Let the context be read in both directions. Then a node sees its children too, and
# $S g_{i,\text{child}} = \mathrm{tr}(B^2)$, so that the parent leads by
# $$\lVert B\rVert^2 - \mathrm{tr}(B^2) = \tfrac12 \lVert B - B^T\rVert^2,$$
# which is the *irreversibility* of the chain: nothing for reversible ones, whose $B$ is symmetric. The
# parent still wins, but by irreversibility alone; and with two symbols, where every chain is reversible, it does not win
# at all: at the start, pairs of tokens do not tell the direction of an edge. Roots, which a causal mask leaves alone, are
# pulled to their children.


# %%
@PROOFS.cases(
    two_symbols={"states": 2, "matrices": 200, "seed": 1},
    three_symbols={"states": 3, "matrices": 200, "seed": 1},
    schur={"states": 3, "matrices": 500, "seed": 2},
    other_matrix={"states": 3, "matrices": 500, "seed": 2, "other": True},
)
def both_directions(config: Config, *, states: int, matrices: int, seed: int, other: bool = False) -> LabelledArrays:
    """How S g at the parent exceeds that at the child of a node in a chain, and its error as irreversibility.

    Args:
        other: compare with the irreversibility of another matrix.
    """
    transition = prior_draws(seed, matrices, states)
    signal = states * attention_signal(transition, chain(5))
    lead = signal[:, 2, 1] - signal[:, 2, 3]
    expected = irreversibility(transition.roll(1, 0) if other else transition)
    shown = slice(0, 60)
    return {
        "lead": labelled([float(lead.min()), float(lead.max())], end=("least", "most")),
        "error": labelled((lead - expected).abs().max()),
        "smallest": labelled(transition.min()),
        "leads": labelled(lead[shown], matrix=range(60)),
        "irreversibility": labelled(expected[shown], matrix=range(60)),
    }


@PROOFS.claim(
    "causal-structure/P1",
    where="derived: the same gradient under a mask that is bidirectional over the context",
    kind="identity",
    statement=r"With two symbols the gradient at a child equals the gradient at the parent for every $\pi$ "
    r"($\mathrm{tr}(B^2) = \lVert B\rVert^2$, all chains being reversible): read in both directions, an edge has no direction.",
    controls=[control("three symbols, where chains are not reversible", case="three_symbols")],
)
def edges_without_direction(results: Results, case: str = "two_symbols") -> Evidence:
    measured = results[both_directions].sel(case=case)
    return Evidence.exact(abs(measured["lead"]).max(), "<=", quotient_bound(measured), QUOTIENTS)


@PROOFS.claim(
    "causal-structure/P1.schur",
    where="derived: the same gradient under a mask that is bidirectional over the context",
    kind="identity",
    statement=r"For every $\pi$, $S g_{i,\mathrm{parent}} - S g_{i,\mathrm{child}} = \lVert B\rVert^2 - \mathrm{tr}(B^2) = "
    r"\frac12\lVert B - B^T\rVert^2 \ge 0$: under a prefix mask the parent leads the child by the irreversibility of the chain "
    r"(500 matrices, $S = 3$).",
    controls=[control("the irreversibility of another matrix", case="other_matrix")],
)
def parent_beats_child(results: Results, case: str = "schur") -> Evidence:
    measured = results[both_directions].sel(case=case)
    return Evidence.exact(measured["error"], "<=", quotient_bound(measured), QUOTIENTS)


# %% [markdown]
# ## Two symbols: even distances cannot be seen
#
# With two symbols $B$ has a single eigenvalue that is not 0, $\lambda = 1 - \pi(0,1) - \pi(1,0)$, and it is symmetric. So
# $S g = \lambda^{k+1}$ for relatives $k$ steps apart, up or down. Under a symmetric prior $\lambda = (\frac12 - a) + (\frac12 - b)$ is a
# sum of two symmetric numbers and its odd moments are 0: **a grandparent, or any relative at an even distance, is
# exactly invisible** to the mean gradient, although it is informative ($E\,I = E\lambda^4$). At $\alpha = 1$ the even moments are
# $E\lambda^{2m} = 2/((2m+1)(2m+2))$, and for any $\alpha$, $E\,I$ of an edge is $E\lambda^2 = 1/(2(2\alpha + 1))$.


# %%
LINE = 6


@PROOFS.cases(two={"states": 2}, three={"states": 3})
def signals_along_a_line(config: Config, *, states: int) -> LabelledArrays:
    """Largest error of S g on a chain as a power of tr pi - 1 over 200 matrices, and the mean S g by distance."""
    transition = prior_draws(3, 200, states)
    signal = states * attention_signal(transition, chain(LINE))
    trace = transition.diagonal(dim1=-2, dim2=-1).sum(-1) - 1
    distance = (torch.arange(LINE).unsqueeze(1) - torch.arange(LINE)).abs()
    wanted = trace[:, None, None] ** (distance + 1)
    many = attention_signal(prior_draws(4, config.matrices, states), chain(LINE)).mean(0)
    return {
        "error": labelled((signal - wanted).abs().max()),
        "smallest": labelled(transition.min()),
        "by_distance": labelled(states * many[LINE - 1].flip(0), distance=range(LINE)),
    }


@PROOFS.claim(
    "causal-structure/G2.binary",
    where="derived; two symbols",
    kind="identity",
    statement=r"With two symbols $S g_{ij} = \lambda^{k+1}$ for tokens $k$ steps apart in a line, ancestors and descendants "
    r"alike, with $\lambda = 1 - \pi(0,1) - \pi(1,0) = \mathrm{tr}\,\pi - 1$ (200 matrices, chain of 6).",
    controls=[control("three symbols, the same power of the trace less 1", case="three")],
)
def signal_of_two_symbols(results: Results, case: str = "two") -> Evidence:
    measured = results[signals_along_a_line].sel(case=case)
    return Evidence.exact(measured["error"], "<=", quotient_bound(measured), QUOTIENTS)


MOMENTS = range(9)


@PROOFS.cases(symmetric={}, sticky={"stickiness": 0.6})
def eigenvalue_moments(config: Config, *, stickiness: float = 0.0) -> LabelledArrays:
    """Moments of lambda over the prior by quadrature, exact for polynomials, for three concentrations."""
    moments, errors = [], []
    for concentration in (0.5, 1.0, 2.0):
        nodes, weights = special.roots_jacobi(12, concentration - 1, concentration - 1)
        leave, weights = (nodes + 1) / 2, weights / weights.sum()
        eigenvalue = (1 - stickiness) * (1 - leave[:, None] - leave) + stickiness
        by_order = [float(weights @ eigenvalue**order @ weights) for order in MOMENTS]
        moments.append(by_order)
        errors.append(max(abs(value - eigenvalue_moment(n, concentration)) for n, value in enumerate(by_order)))
    return {"moment": labelled(moments, concentration=(0.5, 1.0, 2.0), order=MOMENTS), "error": labelled(max(errors))}


@PROOFS.claim(
    "causal-structure/G2.even",
    where="derived; two symbols",
    kind="identity",
    statement=r"Averaged over the prior of two symbols, $S g$ is $E\lambda^{k+1}$: exactly 0 at every even distance $k \ge 0$, and "
    r"$E\lambda^2 = 1/(2(2\alpha+1))$ at the parent; at $\alpha = 1$, $E\lambda^{2m} = 2/((2m+1)(2m+2))$ (up to $\lambda^8$, "
    r"$\alpha$ = 1/2, 1, 2).",
    controls=[control("a sticky prior", case="sticky")],
)
def even_distances_are_invisible(results: Results, case: str = "symmetric") -> Evidence:
    measured = results[eigenvalue_moments].sel(case=case)
    moment = measured["moment"]
    bound = statistics.rounding_bound(12**2 + 20)
    origin = "rounding of a sum over 12 x 12 quadrature points, exact for these polynomials"
    odd = abs(moment.sel(order=[n for n in MOMENTS if n % 2])).max()
    second = abs(moment.sel(order=2) - 1 / (2 * (2 * moment["concentration"] + 1))).max()
    halves = np.arange(1, 5)
    even = moment.sel(concentration=1.0, order=(2 * halves).tolist()).values
    return Evidence.all(
        Evidence.exact(odd, "<=", bound, origin),
        Evidence.exact(second, "<=", bound, origin),
        Evidence.exact(np.abs(even - 2 / ((2 * halves + 1) * (2 * halves + 2))).max(), "<=", bound, origin),
        Evidence.exact(measured["error"], "<=", bound, origin),
    )


@PROOFS.figure
def laws_of_the_start(results: Results) -> Sheet:
    """Exact laws of the first gradient: finite length, distance with two symbols, and the direction of an edge."""
    sheet = Sheet(columns=3, width=4.4)
    finite = results[finite_length].sel(case="everything")
    panel = sheet.panel(
        "finite context: $c/T$, in closed form (dotted)",
        x="tokens $T$",
        y="$T\\,(G - g)$",
        scale=("log2", "linear"),
        ylim=(-1.1, 0.3),
        legend="lower right",
    )
    for place, matrix in enumerate(finite["matrix"].values.tolist()):
        for entry, name in (("itself", "$j = i$"), ("parent", "parent")):
            values = finite.sel(matrix=matrix, entry=entry)
            label = rf"{name}, $\lambda = {0.3 if place == 0 else -0.3}$"
            panel.line(list(FINITE), values["deviation"].values, name=label, of="exact")
            panel.level(float(values["constant"]), "")
    panel = sheet.panel(
        "two symbols: even distances vanish", x="distance (steps up or down)", y="$S g$, mean over the prior"
    )
    orders = np.arange(LINE) + 1
    panel.theory(np.arange(LINE), [eigenvalue_moment(int(n), 1.0) for n in orders], name=r"$E\lambda^{k+1}$, $S = 2$")
    for case, name in (("two", "$S = 2$, drawn matrices"), ("three", "$S = 3$")):
        values = results[signals_along_a_line]["by_distance"].sel(case=case)
        panel.line(np.arange(LINE), values.values, name=name, of="a mean over drawn matrices")
    both = results[both_directions]
    panel = sheet.panel(
        "the parent's lead is irreversibility", x=r"$\frac{1}{2}\|B - B^T\|^2$", y="$S g$: parent less child"
    )
    for case, name in (("schur", "$S = 3$"), ("two_symbols", "$S = 2$")):
        values = both.sel(case=case)
        panel.scatter(values["irreversibility"].values, values["leads"].values, name=name)
    return sheet


# %%
PROOFS.show(laws_of_the_start)

# %%
PROOFS.show()
