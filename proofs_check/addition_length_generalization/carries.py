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
# # Laws of carries: how often they come and how far they travel
#
# A table of windows hands the carry on, column by column, and never asks how far it comes from (`tables.py`). Whoever
# writes a sum in another way has to foresee it, so how far carries travel is what makes other ways hard. Everything
# here is exact, by enumeration or from a transfer matrix:
#
# * a carry comes in about every second time, and forgets the columns before at the rate $1/B$;
# * the longest chain of carries among $n$ columns grows like $\log_B n$, and a wave in $\log_B n$ stays in its mean
#   for ever;
# * its whole law is a finite sum, and nearly a Poisson law whose error is known.

# %%
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from lab import Evidence, Task, control, statistics
from lab.domains.addition.column_addition import (
    FIRST_WINDOWS,
    SUMS,
    WINDOWS,
    carry_probability,
    column_sum_law,
    column_sums,
    exact_table,
    expected_longest_chain,
    longest_chain_asymptote,
    longest_chain_law,
    window_parts,
)
from lab.domains.addition.imperfect_tables import longest_chain_poisson, longest_chain_sum, poisson_error_constant
from lab.labels import LabelledArrays, labelled
from lab.results import Results
from proofs_check.addition_length_generalization._shared import PAPER, SLUG, all_sums

PROOFS = Task(SLUG, paper=PAPER)

# %% [markdown]
# ## How often a column carries
#
# A column of uniform digits carries by itself with probability $g = (B-1)/(2B)$, and passes a carry on with probability
# $1/B$. So the carry into column $i$ has probability $p_{i+1} = g + p_i / B$, that is $p_i = (1 - B^{-i}) / 2$.


# %%
CARRY_LAWS = ("passed on", "never passed on")


@PROOFS.cases(ten={"base": 10, "columns": 3}, three={"base": 3, "columns": 6}, two={"base": 2, "columns": 8})
def enumerated_carries(_: object, *, base: int, columns: int) -> LabelledArrays:
    """The largest error, over columns, of two laws of the carry against the enumeration of all sums."""
    shares = (column_sums(*all_sums(columns, base), base) >= base).double().mean(0)
    generated = torch.full_like(shares, (base - 1) / (2 * base))  # g
    errors = [(shares - law).abs().max() for law in (carry_probability(columns + 1, base)[1:], generated)]
    return {"error": labelled(torch.stack(errors), law=CARRY_LAWS)}


@PROOFS.cases(decimal={})
def stationary_sums(_: object) -> LabelledArrays:
    """By how much one more column changes two laws of a column's sum: carries passed on, or brought in with g alone."""
    previous, _, _ = window_parts()
    later = torch.arange(FIRST_WINDOWS, WINDOWS)
    # Pairs of digits with each sum; none has the sum 19.
    pairs = torch.minimum(torch.arange(SUMS), SUMS - 2 - torch.arange(SUMS)).clamp(min=-1).double() + 1
    generated = (0.55 * pairs + 0.45 * pairs.roll(1)) / 100
    changes = []
    for law in (column_sum_law(), generated):
        following = torch.zeros(SUMS, dtype=torch.float64)
        following.index_add_(0, exact_table()[later], law[previous[later]] / 100)
        changes.append((following - law).abs().max())
    return {"change": labelled(torch.stack(changes), law=CARRY_LAWS)}


@PROOFS.claim(
    "addition-length-generalization/R1",
    where="derived",
    kind="rate",
    statement=r"The carry into column $i$ of two uniform numbers in base $B$ has probability $(1 - B^{-i})/2$ "
    r"(all sums of 3 columns in base 10, 6 in base 3, 8 in base 2); far from the first column the sum of a column is "
    r"$s$ with probability $(2\min(s, 19 - s) + 1)/200$, which is $0.005$ for $s = 19$.",
    controls=[control("carries are never passed on: probability g", law="never passed on")],
)
def carry_rate(results: Results, law: str = "passed on") -> Evidence:
    errors = results[enumerated_carries]["error"].sel(law=law)
    change = results[stationary_sums]["change"].sel(law=law)
    return Evidence.all(
        Evidence.exact(errors.max().item(), "<=", statistics.rounding_bound(12), "rounding of a mean and a power"),
        Evidence.exact(change.max().item(), "<=", statistics.rounding_bound(200), "rounding of 200 terms"),
    )


# %%
PROOFS.show(carry_rate)

# %% [markdown]
# ## The longest chain
#
# A chain is one generating column ($a + b \ge B$) and the propagating ones ($a + b = B - 1$) that follow it. Longer
# than $m$ means: a generating column, then $m$ propagating ones, somewhere. Chains do not overlap, so for long
# numbers their count is nearly Poisson with mean $n g B^{-m}$, and
# $$ E[L_n] \approx \sum_{m \ge 0} \bigl(1 - e^{-n g B^{-m}}\bigr)
#    = \log_B(g n) + \tfrac12 + \frac{\gamma}{\ln B} + \delta(\log_B n). $$
# The last term is usually dropped as if it vanished. It does not: $L_n$ is an integer, its law moves along the
# integers as $n$ grows and looks the same again at $B n$. Poles of the Mellin transform at $2\pi i k/\ln B$ give
# $\delta$, of size $2|\Gamma(2 \pi i / \ln B)| / \ln B$: invisible in base 2 ($1.6 \cdot 10^{-6}$) but $0.018$ in
# base 10.


# %%
FITTED_DECADES = (3, 4, 5, 6)
DECADES, HARMONICS = (*FITTED_DECADES, 7), (0, 4)


@PROOFS.cases(ten={"base": 10}, two={"base": 2})
def chain_expectations(_: object, *, base: int) -> LabelledArrays:
    """Exact E[L_n] less its asymptote with 0 and 4 harmonics, at seven n in each decade of n."""
    decades = [np.geomspace(10**k, 10 ** (k + 1), 7).astype(int).tolist() for k in DECADES]
    exact = torch.stack([expected_longest_chain(lengths, base) for lengths in decades])
    laws = [
        torch.stack([longest_chain_asymptote(lengths, base, harmonics) for lengths in decades])
        for harmonics in HARMONICS
    ]
    return {"deviation": labelled(exact - torch.stack(laws), harmonics=HARMONICS, decade=DECADES, point=None)}


@PROOFS.claim(
    "addition-length-generalization/R2",
    where="derived",
    kind="rate",
    statement=r"$E[L_n] = \log_B(g n) + \tfrac12 + \gamma/\ln B + o(1)$ in base 10: the largest deviation over "
    r"$10^7 \le n \le 10^8$ is at most half of that over $10^3 \le n \le 10^4$.",
    expected="refuted",
    condition="up to a term of size 0.018 that is periodic in log10 n",
    controls=[control("base 2, where the periodic term is 1.6e-6", case="two")],
)
def asymptote_without_wave(results: Results, case: str = "ten") -> Evidence:
    deviation = np.abs(results[chain_expectations]["deviation"].sel(case=case, harmonics=0)).max("point")
    return Evidence.exact(
        (deviation.sel(decade=7) / deviation.sel(decade=3)).item(), "<=", 0.5, "anything that vanishes at a power of n"
    )


@PROOFS.claim(
    "addition-length-generalization/R2-periodic",
    where="derived",
    kind="rate",
    statement=r"With $\delta(n) = -\frac{2}{\ln B}\sum_{k \ge 1} \mathrm{Re}\,\Gamma(i\omega k)(gn)^{-i\omega k}$, "
    r"$\omega = 2\pi/\ln B$, the error of $\log_{10}(gn) + \frac12 + \gamma/\ln 10 + \delta(n)$ falls like "
    r"$(\ln n)/n$.",
    controls=[control("without the periodic term", harmonics=0)],
)
def asymptote_with_wave(results: Results, harmonics: int = 4) -> Evidence:
    deviation = np.abs(results[chain_expectations]["deviation"].sel(case="ten", harmonics=harmonics)).max("point")
    fitted = deviation.sel(decade=list(FITTED_DECADES))
    slope = statistics.slope([10.0**k for k in FITTED_DECADES], fitted.values)
    return Evidence.exact(slope, "<=", -1 + 1 / np.log(10**3), "log-log slope of (ln n)/n at n = 1,000")


# %%
PROOFS.show(asymptote_without_wave)
PROOFS.show(asymptote_with_wave)

# %% [markdown]
# ## Its whole law
#
# The mean is one number of a law that can be had whole. "Longer than $m$" is a word of $m + 1$ columns, of
# probability $\mu = g B^{-m}$, which cannot overlap itself: a column does not both generate and propagate. Inclusion
# and exclusion over $k$ such words is therefore exact,
# $$ P(L_n \le m) = \sum_k (-1)^k \binom{n - m k}{k} \mu^k , $$
# and $\binom{n - mk}{k} \approx \frac{n^k}{k!} \bigl(1 - \frac{m k^2 + k(k-1)/2}{n}\bigr)$ makes of it, with
# $x = n \mu$,
# $$ P(L_n \le m) = e^{-x} \Bigl(1 + \frac{m x (1 - x) - x^2 / 2}{n}\Bigr) + O\Bigl(\frac{\ln^2 n}{n^2}\Bigr) . $$
# So the Poisson law $e^{-x}$ is wrong by up to $m\, x |x - 1| e^{-x} / n$, which is largest at $x = \varphi^2$ with
# $\varphi$ the golden ratio: the largest error is $\varphi^3 e^{-\varphi^2} / \ln B \cdot \ln n / n$, 0.134 in base
# 10. At powers of ten it is half of that, because there $x$ is always $0.45 \cdot 10^j$.


# %%
LAW_DECADES = (2, 3, 4, 5)
LONGEST = 12  # of the chains m
SIXTIETHS = range(61)  # of a decade, from one power of ten to the next


@PROOFS.cases(ten={"base": 10}, three={"base": 3}, two={"base": 2})
def chain_sums(_: object, *, base: int) -> LabelledArrays:
    """The largest error, over n = 1 .. 40 and all m, of the alternating sum against the transfer matrix; and with words
    that count as if they took up one column."""
    lengths = range(1, 41)
    error, shorter = 0.0, 0.0
    for columns in lengths:
        chains = range(columns + 1)
        (exact,) = longest_chain_law([columns], columns, base).numpy()
        law = np.array([float(longest_chain_sum(columns, longest, base)) for longest in chains])
        error = max(error, np.abs(law - exact).max())
        shorter_law = np.array([float(longest_chain_sum(columns + longest, longest, base)) for longest in chains])
        shorter = max(shorter, np.abs(shorter_law - exact).max())
    return {"error": labelled([error, shorter], words=("whole", "one column"))}


@PROOFS.cases(ten={})
def chain_limits(_: object) -> LabelledArrays:
    """The largest error over m of the Poisson law without and with its correction, at 61 n in each of four decades."""
    decades = [np.geomspace(10**k, 10 ** (k + 1), len(SIXTIETHS)).astype(int).tolist() for k in LAW_DECADES]
    exact = torch.stack([longest_chain_law(lengths, LONGEST) for lengths in decades])
    limits = [
        torch.stack([longest_chain_poisson(lengths, LONGEST, corrected=corrected) for lengths in decades])
        for corrected in (False, True)
    ]
    errors = (exact - torch.stack(limits)).abs().amax(-1)
    return {
        "error": labelled(errors, corrected=(False, True), decade=LAW_DECADES, sixtieth=SIXTIETHS),
        "columns": labelled(decades, decade=LAW_DECADES, sixtieth=SIXTIETHS),
    }


@PROOFS.claim(
    "addition-length-generalization/R2-sum",
    where="derived",
    kind="identity",
    statement=r"$P(L_n \le m) = \sum_k (-1)^k \binom{n - mk}{k} (g B^{-m})^k$ is the law of the longest carry chain, "
    r"for every $m \le n \le 40$ in bases 2, 3 and 10.",
    controls=[control("words that take up one column only", words="one column")],
)
def chain_law_is_a_sum(results: Results, words: str = "whole") -> Evidence:
    error = results[chain_sums]["error"].sel(words=words).max().item()
    return Evidence.exact(
        error, "<=", statistics.rounding_bound(40 * 42), "rounding of 40 products of 42 x 42 matrices"
    )


@PROOFS.claim(
    "addition-length-generalization/R2-law",
    where="derived",
    kind="rate",
    statement=r"$P(L_n \le m) = e^{-x}(1 + (m x (1 - x) - x^2/2)/n)$ with $x = n g B^{-m}$, up to an error that falls "
    r"like $(\ln n)^2/n^2$; without the second term the largest error over $m$ reaches "
    r"$\varphi^3 e^{-\varphi^2}/\ln B \cdot (\ln n)/n$ (base 10, $10^5 \le n \le 10^6$, within 2 %).",
    controls=[
        control("without the second term", corrected=False),
        control("the error at powers of ten only", sixtieths=(min(SIXTIETHS), max(SIXTIETHS))),
    ],
)
def chain_law_is_poisson(results: Results, corrected: bool = True, sixtieths: Sequence[int] = SIXTIETHS) -> Evidence:
    limits = results[chain_limits].sel(case="ten")
    largest = limits["error"].max("sixtieth").sel(corrected=corrected)
    slope = statistics.slope([10.0**k for k in LAW_DECADES], largest.values)
    last = limits.sel(decade=max(LAW_DECADES), corrected=False, sixtieth=list(sixtieths))
    reached = (last["error"] * last["columns"] / np.log(last["columns"])).max().item()
    return Evidence.all(
        Evidence.exact(slope, "<=", -2 + 2 / np.log(10**2), "log-log slope of (ln n)^2/n^2 at n = 100"),
        Evidence.exact(
            abs(reached / poisson_error_constant() - 1), "<=", 0.02, "next term, of relative size 1 / (10 ln n)"
        ),
    )


# %%
PROOFS.show(chain_law_is_a_sum)
PROOFS.show(chain_law_is_poisson)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
