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
# # Addition of any length is 2,100 facts
#
# A network that adds two numbers column by column, from right to left, and that is handed its own previous output
# as part of the next question, is never asked anything but one of finitely many questions. The *window* of the
# first column shows the digits $(a, b)$; the window of every later column shows $(s, a, b)$, where
# $s \in \{0, \dots, 19\}$ is the whole sum of the column before, written out. That makes
# $100 + 20 \cdot 100 = 2{,}100$ windows. This file proves what follows from that, without training anything:
#
# * if all 2,100 answers are right, **every** sum of **every** length is right; if one is wrong, some sum of at most three
#   columns is wrong;
# * how often an imperfect table is right at length $n$ is an exact law of a Markov chain with 40 states;
# * how long carries travel, which is what makes other ways to write a sum hard.

# %%
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lab import Evidence, Task, control, statistics
from lab.domains.addition.column_addition import (
    FIRST_WINDOWS,
    SUMS,
    WINDOWS,
    accuracy_law,
    add,
    add_by_table,
    add_with_lookahead,
    avoiding,
    carry_from_digit,
    carry_probability,
    carryless_table,
    column_sum_law,
    column_sums,
    column_windows,
    exact_table,
    expected_longest_chain,
    format_numbers,
    longest_chain,
    longest_chain_asymptote,
    longest_chain_law,
    parse_numbers,
    window_number,
    window_parts,
)
from lab.labels import LabelledArrays, labelled
from lab.results import Results
from lab.streams import stream

PROOFS = Task("addition-length-generalization", paper="patriota-2024-addition")


def all_sums(columns: int, base: int = 10) -> tuple[Tensor, Tensor]:
    """All pairs of numbers with so many digits, [base^(2 columns), columns] each."""
    digits = torch.cartesian_prod(*[torch.arange(base)] * (2 * columns))
    return digits[:, :columns], digits[:, columns:]


# %% [markdown]
# ## The loop over columns
#
# Induction on columns: the first window holds $a_0, b_0$ and its answer is $s_0$. If the answer to the window of
# column $i - 1$ is $s_{i-1}$, then the next window holds all that $s_i = a_i + b_i + [s_{i-1} \ge 10]$ depends on. So
# the base case and the step are the 100 and the 2,000 entries of the table. The check below compares the table, run
# through the loop, with the integer arithmetic of Python.


# %%
@PROOFS.cases(
    exact={}, corrupted={"table": "corrupted"}, carryless={"table": "carryless"}, left_to_right={"left_to_right": True}
)
def integer_sums(_: object, *, table: str = "exact", left_to_right: bool = False) -> LabelledArrays:
    """Wrong sums among 2,000 pairs of 1 to 60 digits, for four ways to run the loop."""
    source = stream(0, "integers")
    lengths = source.child("lengths").rng().integers(1, 61, (2_000, 2))
    digits = source.child("digits").rng().integers(0, 10, (2_000, 2, 60))
    pairs = [
        ["".join(map(str, row[:n])) for row, n in zip(both, size, strict=True)]
        for both, size in zip(digits, lengths, strict=True)
    ]
    first, second = (parse_numbers([pair[side] for pair in pairs], 60) for side in (0, 1))
    truth = [str(int(a) + int(b)) for a, b in pairs]
    answers = carryless_table() if table == "carryless" else exact_table()
    if table == "corrupted":
        answers[window_number(torch.tensor(9), torch.tensor(4), torch.tensor(5))] = 19
    if left_to_right:
        written = add_by_table(answers, first.flip(1), second.flip(1))[:, :-1].flip(1)
    else:
        written = add_by_table(answers, first, second)
    return {"wrong": labelled(sum(a != b for a, b in zip(format_numbers(written), truth, strict=True)))}


@PROOFS.claim(
    "addition-length-generalization/I1",
    where="Section on the generation of arbitrary lengths",
    kind="identity",
    statement=r"The correct table of 2,100 windows, applied to the columns of two numbers from right to left with its "
    r"own previous answer in the next window, gives their integer sum (2,000 pairs of 1 to 60 digits).",
    controls=[
        control("one of the 2,100 windows is wrong", case="corrupted"),
        control("the carry is dropped", case="carryless"),
        control("the loop walks from left to right", case="left_to_right"),
    ],
)
def table_is_addition(results: Results, case: str = "exact") -> Evidence:
    wrong = results[integer_sums]["wrong"].sel(case=case)
    return Evidence.exact(wrong.item(), "<=", 0, "wrong sums among 2,000")


# %%
PROOFS.show(table_is_addition)

# %% [markdown]
# The converse makes the enumeration a *proof* and not only a sufficient test: every window is the last one of some
# correct addition with at most three columns, so a table with a single wrong entry gets that sum wrong. Three columns are
# needed, because $s = 19 = 9 + 9 + 1$ takes a carry from the column before.


# %%
@PROOFS.cases(all_windows={})
def witnesses(_: object) -> LabelledArrays:
    """For each window the columns of the shortest sum that ends with it, and whether each wrong answer spoils that sum."""
    needed = np.zeros(WINDOWS, dtype=int)
    spoilt = np.zeros(WINDOWS, dtype=bool)
    exact, answers = exact_table(), torch.arange(-1, SUMS)
    for columns in (1, 2, 3):
        first, second = all_sums(columns)
        last = column_windows(first, second)[:, -1].numpy()
        for window, example in zip(*np.unique(last, return_index=True), strict=True):
            if needed[window]:
                continue
            tables = exact.repeat(SUMS, 1)
            tables[:, window] = answers[answers != exact[window]]
            one, other = first[[example]], second[[example]]
            needed[window] = columns
            spoilt[window] = bool((add_by_table(tables, one, other) != add(one, other)).any(-1).all())
    return {"columns": labelled(needed, window=None), "spoilt": labelled(spoilt, window=None)}


@PROOFS.claim(
    "addition-length-generalization/I1-converse",
    where="derived",
    kind="identity",
    statement=r"Every one of the 2,100 windows ends a correct addition of at most three columns, and a table with any of the "
    r"19 wrong sums or no answer there, and right elsewhere, gets that addition wrong: the enumeration is necessary as well "
    r"as sufficient.",
    controls=[control("two columns, which never show s = 19", columns=2)],
)
def every_window_counts(results: Results, columns: int = 3) -> Evidence:
    sums = results[witnesses]
    useful = sums["spoilt"] & (sums["columns"] <= columns)
    return Evidence.exact((~useful).sum().item(), "<=", 0, "windows without a sum that shows each of their errors")


# %%
PROOFS.show(every_window_counts)

# %% [markdown]
# ## How accurate is an imperfect table?
#
# It is tempting to argue: a wrong answer has a wrong last digit, or a wrong "has two digits"; neither is repaired later;
# so the sum is right exactly if the true windows avoid the set of wrong ones. Then the accuracy at $n$ digits is
# $1^\top v_n$ with a transfer matrix on the 20 true sums.
#
# The second half of the argument has a gap. A machine that writes $t = s \pm 10$ for $s$ has the digit right and only
# the carry wrong; if the next window $(t, a, b)$ is wrong *as well*, and in the opposite way, the answer is right again.
# Two wrongs can make a right. So the chain must remember the true $s$ *and* whether $t = s$: 40 states instead
# of 20. The shorter law is a lower bound, and exact where no such pair exists (for instance if wrong windows yield no
# number at all).


# %%
def imperfect_tables() -> dict[str, Tensor]:
    """Three tables with random wrong answers, one whose errors undo each other, one that falls silent."""
    tables = {}
    for wrong in (5, 20, 60):
        rng = stream(0, "tables").child(wrong).rng()
        windows = torch.from_numpy(rng.choice(WINDOWS, wrong, replace=False))
        tables[f"random_{wrong}"] = exact_table()
        tables[f"random_{wrong}"][windows] = torch.from_numpy(rng.integers(-1, SUMS, wrong))
    previous, first, second = window_parts()
    # First columns that sum to 5 are written 15, and 15 is then read as "no carry".
    undone = exact_table()
    undone[(previous < 0) & (first + second == 5)] = 15
    undone[previous == 15] = (first + second)[previous == 15]
    return {**tables, "undone": undone, "silent": avoiding(tables["random_60"])}


@PROOFS.cases(imperfect_tables={})
def enumerated_accuracy(_: object) -> LabelledArrays:
    """Share of right sums among all sums of 1, 2 and 3 columns, beside both laws."""
    tables, lengths = imperfect_tables(), (1, 2, 3)
    shares = np.zeros((len(tables), len(lengths)))
    for columns in lengths:
        first, second = all_sums(columns)
        truth = add(first, second)
        for place, table in enumerate(tables.values()):
            right = (add_by_table(table, first, second) == truth).all(-1)
            shares[place, columns - 1] = float(right.double().mean())
    stacked = torch.stack(list(tables.values()))
    laws = {"law": accuracy_law(stacked, 3), "avoiding": accuracy_law(avoiding(stacked), 3)}
    return {
        name: labelled(values, table=list(tables), columns=lengths)
        for name, values in ({"enumerated": shares} | laws).items()
    }


EXACT_SHARES = statistics.rounding_bound(3 * 100, 1.0)


@PROOFS.claim(
    "addition-length-generalization/I2",
    where="derived",
    kind="identity",
    statement=r"The probability that an imperfect table adds two uniform $n$-digit numbers correctly is the probability "
    r"that the windows of the correct addition avoid all wrong windows.",
    expected="refuted",
    condition="when no wrong entry undoes another one; otherwise it is a lower bound",
    controls=[control("wrong windows yield no number, so nothing can be undone", silent=True)],
)
def avoiding_law(results: Results, silent: bool = False) -> Evidence:
    shares = results[enumerated_accuracy]
    error = np.abs(shares["enumerated"] - shares["avoiding"])
    worst = error.sel(table="silent") if silent else error
    return Evidence.exact(worst.max().item(), "<=", EXACT_SHARES, "rounding of 3 steps over 100 digit pairs")


@PROOFS.claim(
    "addition-length-generalization/I2-exact",
    where="derived",
    kind="identity",
    statement=r"The probability that a table adds two uniform $n$-digit numbers correctly is $1^\top v_n$ for the "
    r"40-state chain of (true sum, whether it is the sum written), $n = 1, 2, 3$ by enumeration of up to $10^6$ sums.",
    controls=[control("the 20-state law, which forgets that errors can undo each other", law="avoiding")],
)
def pair_law(results: Results, law: str = "law") -> Evidence:
    shares = results[enumerated_accuracy]
    error = np.abs(shares["enumerated"] - shares[law]).max()
    return Evidence.exact(error.item(), "<=", EXACT_SHARES, "rounding of 3 steps over 100 digit pairs")


# %%
PROOFS.show(avoiding_law)
PROOFS.show(pair_law)

# %% [markdown]
# ## How often and how far carries travel
#
# A column of uniform digits carries by itself with probability $g = (B-1)/(2B)$, and passes a carry on with probability
# $1/B$. So the carry into column $i$ has probability $p_{i+1} = g + p_i / B$, that is $p_i = (1 - B^{-i}) / 2$.


# %%
CARRY_LAWS = ("passed on", "never passed on")


@PROOFS.cases(ten={"base": 10, "columns": 3}, three={"base": 3, "columns": 6}, two={"base": 2, "columns": 8})
def enumerated_carries(_: object, *, base: int, columns: int) -> LabelledArrays:
    """The largest error, over columns, of two laws of the carry against the enumeration of all sums."""
    shares = (column_sums(*all_sums(columns, base), base) >= base).double().mean(0)
    alone = torch.full_like(shares, (base - 1) / (2 * base))  # g
    errors = [(shares - law).abs().max() for law in (carry_probability(columns + 1, base)[1:], alone)]
    return {"error": labelled(torch.stack(errors), law=CARRY_LAWS)}


@PROOFS.cases(decimal={})
def stationary_sums(_: object) -> LabelledArrays:
    """By how much one more column changes two laws of the sum of a column: carries passed on, or brought in with g alone."""
    previous, _, _ = window_parts()
    later = torch.arange(FIRST_WINDOWS, WINDOWS)
    # Pairs of digits with each sum; none has the sum 19.
    pairs = torch.minimum(torch.arange(SUMS), SUMS - 2 - torch.arange(SUMS)).clamp(min=-1).double() + 1
    alone = (0.55 * pairs + 0.45 * pairs.roll(1)) / 100
    changes = []
    for law in (column_sum_law(), alone):
        following = torch.zeros(SUMS, dtype=torch.float64)
        following.index_add_(0, exact_table()[later], law[previous[later]] / 100)
        changes.append((following - law).abs().max())
    return {"change": labelled(torch.stack(changes), law=CARRY_LAWS)}


@PROOFS.claim(
    "addition-length-generalization/R1",
    where="derived",
    kind="rate",
    statement=r"The carry into column $i$ of two uniform numbers in base $B$ has probability $(1 - B^{-i})/2$ "
    r"(all sums of 3 columns in base 10, 6 in base 3, 8 in base 2); far from the first column the sum of a column is $s$ "
    r"with probability $(2\min(s, 19 - s) + 1)/200$, which is $0.005$ for $s = 19$.",
    controls=[control("carries are never passed on: probability g", law="never passed on")],
)
def carry_rate(results: Results, law: str = "passed on") -> Evidence:
    errors = results[enumerated_carries]["error"].sel(law=law)
    change = results[stationary_sums]["change"].sel(law=law)
    return Evidence.all(
        Evidence.exact(errors.max().item(), "<=", statistics.rounding_bound(12), "rounding of a mean and a power"),
        Evidence.exact(change.max().item(), "<=", statistics.rounding_bound(200), "rounding of 200 terms"),
    )


# %% [markdown]
# ### The longest chain
#
# A chain is one generating column ($a + b \ge B$) and the propagating ones ($a + b = B - 1$) that follow it. Longer than
# $m$ means: a generating column, then $m$ propagating ones, somewhere. Chains do not overlap, so for long numbers their
# count is nearly Poisson with mean $n g B^{-m}$, and
# $$ E[L_n] \approx \sum_{m \ge 0} \bigl(1 - e^{-n g B^{-m}}\bigr)
#    = \log_B(g n) + \tfrac12 + \frac{\gamma}{\ln B} + \delta(\log_B n). $$
# The last term is usually dropped as if it vanished. It does not: $L_n$ is an integer, its law moves along the
# integers as $n$ grows and looks the same again at $B n$. Poles of the Mellin transform at $2\pi i k/\ln B$ give $\delta$,
# of size $2|\Gamma(2 \pi i / \ln B)| / \ln B$: invisible in base 2 ($1.6 \cdot 10^{-6}$) but $0.018$ in base 10.


# %%
DECADES, HARMONICS = (3, 4, 5, 6, 7), (0, 4)


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
    r"$\omega = 2\pi/\ln B$, the error of $\log_{10}(gn) + \frac12 + \gamma/\ln 10 + \delta(n)$ falls like $(\ln n)/n$.",
    controls=[control("without the periodic term", harmonics=0)],
)
def asymptote_with_wave(results: Results, harmonics: int = 4) -> Evidence:
    deviation = np.abs(results[chain_expectations]["deviation"].sel(case="ten", harmonics=harmonics)).max("point")
    decades = DECADES[:4]
    slope = statistics.slope([10.0**k for k in decades], deviation.sel(decade=list(decades)).values)
    return Evidence.exact(slope, "<=", -1 + 1 / np.log(10**3), "log-log slope of (ln n)/n at n = 1,000")


# %%
PROOFS.show(asymptote_without_wave)
PROOFS.show(asymptote_with_wave)

# %% [markdown]
# ## What machines without the written carry can do
#
# **No carry at all.** Column $i$ is right exactly if no carry comes in: probability $\tfrac12 + \tfrac12 10^{-i}$. The whole
# answer is right if no column carries, $0.55^n$, or all but the top one, $0.55^{n-1}$, if the top column may write two
# digits.
#
# **Most significant digit first.** Whoever writes from the left must foresee carries. With a view of $w$ lower columns
# per digit, all digits are right exactly if no chain is longer than $w$. So a view of about $\log_{10} n$ columns serves
# most sums, and only $n$ serves all; writing from the right needs one.
#
# **Reversed, without scratchpad.** The carry need not be written: it can be read off the digit already written. If
# $a_i + b_i = 9$, a carry came in exactly if that digit is 0. What a network on the bare reversed string lacks is to find
# the right columns, not an algorithm.


# %%
VIEWS = range(5)


@PROOFS.cases(three_columns={})
def enumerated_shortcuts(_: object) -> LabelledArrays:
    """All sums of three columns: how often they are right without carry, and from a view of so many columns; and on how many
    sums that differs from "the longest chain is at most so many columns long", or one column less."""
    first, second = all_sums(3)
    truth = add(first, second)
    bare = torch.cat([(first + second) % 10, torch.zeros_like(first[:, :1])], dim=1)
    right = bare == truth
    chain = longest_chain(first, second)
    able = torch.stack([(add_with_lookahead(first, second, view) == truth).all(-1) for view in VIEWS])
    differ = [[int((able[view] != (chain <= view - shorter)).sum()) for view in VIEWS] for shorter in (0, 1)]
    return {
        "digit": labelled(right[:, :3].double().mean(0), column=range(3)),
        "whole": labelled(right.all(-1).double().mean()),
        "able": labelled(able.double().mean(-1), view=VIEWS),
        "differ": labelled(differ, shorter=(0, 1), view=VIEWS),
    }


@PROOFS.cases(carryless={}, carrying={"carry": True})
def accuracy_without_carry(_: object, *, carry: bool = False) -> LabelledArrays:
    """The law of a table at 1 to 60 digits."""
    law = accuracy_law(exact_table() if carry else carryless_table(), 60)
    return {"law": labelled(law, digits=range(1, 61))}


@PROOFS.claim(
    "addition-length-generalization/R3",
    where="derived",
    kind="rate",
    statement=r"Adding digit by digit without carry gets column $i$ right with probability $\frac12 + \frac12 10^{-i}$ and "
    r"a whole $n$-digit sum with $0.55^n$, or $0.55^{n-1}$ if the top column may write two digits.",
    controls=[control("the table that does carry", case="carrying")],
)
def without_carry(results: Results, case: str = "carryless") -> Evidence:
    shares, law = results[enumerated_shortcuts].sel(case="three_columns"), results[accuracy_without_carry]["law"]
    errors = [
        shares["digit"] - (0.5 + 0.5 * 10.0 ** -shares["column"]),
        shares["whole"] - 0.55**3,
        law.sel(case=case) - 0.55 ** (law["digits"] - 1),
    ]
    worst = max(np.abs(error).max().item() for error in errors)
    return Evidence.exact(worst, "<=", statistics.rounding_bound(60 * 100), "rounding of 60 matrix products")


@PROOFS.claim(
    "addition-length-generalization/R4",
    where="derived",
    kind="identity",
    statement=r"Digits written from a view of $w$ lower columns are all right exactly if the longest carry chain has "
    r"$L_n \le w$ columns (each of the $10^6$ sums of three columns, $w = 0..4$), which has probability "
    r"$P(L_n \le w)$.",
    controls=[control("a view one column shorter", shorter=1)],
)
def lookahead_is_chain_length(results: Results, shorter: int = 0) -> Evidence:
    shares = results[enumerated_shortcuts].sel(case="three_columns")
    law = longest_chain_law([3], max(VIEWS) - shorter)[0].numpy()
    law = np.append(np.zeros(shorter), law)  # P(L_n <= w - shorter)
    return Evidence.all(
        Evidence.exact(shares["differ"].sel(shorter=shorter).max().item(), "<=", 0, "sums on which the two differ"),
        Evidence.exact(
            np.abs(shares["able"] - law).max().item(),
            "<=",
            statistics.rounding_bound(3 * 25),
            "rounding of 3 matrix products",
        ),
    )


@PROOFS.cases(seen={}, unseen={"look": False})
def carries_read(_: object, *, look: bool = True) -> LabelledArrays:
    """Wrongly read carries among all digits and carries."""
    first, second, carry = torch.cartesian_prod(torch.arange(10), torch.arange(10), torch.arange(2)).unbind(1)
    sums = first + second + carry
    shown = sums % 10 if look else torch.full_like(sums, 9)
    return {"wrong": labelled((carry_from_digit(first, second, shown) != (sums >= 10)).sum())}


@PROOFS.claim(
    "addition-length-generalization/I3",
    where="derived",
    kind="identity",
    statement=r"The carry out of a column is a function of its two digits and its digit of the result: 1 if "
    r"$a + b \ge 10$, 0 if $a + b \le 8$, and if $a + b = 9$ it is 1 exactly where the digit is 0 (all 200 cases).",
    controls=[control("without looking at the digit written", case="unseen")],
)
def carry_is_readable(results: Results, case: str = "seen") -> Evidence:
    return Evidence.exact(results[carries_read]["wrong"].sel(case=case).item(), "<=", 0, "wrong among 200 cases")


# %%
PROOFS.show()
