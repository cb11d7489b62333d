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
# * how often an imperfect table is right at length $n$ is an exact law of a Markov chain with 40 states, and how fast that
#   falls with length can be read off the wrong windows;
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
from lab.domains.addition.imperfect_tables import (
    decay_rate,
    first_order_decay,
    longest_chain_poisson,
    longest_chain_sum,
    poisson_error_constant,
    second_order_share,
)
from lab.labels import LabelledArrays, labelled
from lab.results import Results
from lab.streams import stream

PROOFS = Task("addition-length-generalization", paper="patriota-2024-addition", root=2026)


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
LOOPS = ("exact", "corrupted", "carryless", "left to right")


@PROOFS.measurement(seeds=lambda config: 4)
def integer_sums(_: object, seed: int) -> LabelledArrays:
    """Wrong sums among 500 pairs of 1 to 60 digits, for four ways to run the loop."""
    source = stream(seed, "integers")
    lengths = source.child("lengths").rng().integers(1, 61, (500, 2))
    digits = source.child("digits").rng().integers(0, 10, (500, 2, 60))
    pairs = [
        ["".join(map(str, row[:n])) for row, n in zip(both, size, strict=True)]
        for both, size in zip(digits, lengths, strict=True)
    ]
    first, second = (parse_numbers([pair[side] for pair in pairs], 60) for side in (0, 1))
    truth = [str(int(a) + int(b)) for a, b in pairs]
    corrupted = exact_table()
    corrupted[window_number(torch.tensor(9), torch.tensor(4), torch.tensor(5))] = 19
    written = [
        *(add_by_table(table, first, second) for table in (exact_table(), corrupted, carryless_table())),
        add_by_table(exact_table(), first.flip(1), second.flip(1))[:, :-1].flip(1),
    ]
    wrong = [sum(a != b for a, b in zip(format_numbers(one), truth, strict=True)) for one in written]
    return {"wrong": labelled(wrong, loop=LOOPS)}


@PROOFS.claim(
    "addition-length-generalization/I1",
    where="Section on the generation of arbitrary lengths",
    kind="identity",
    statement=r"The correct table of 2,100 windows, applied to the columns of two numbers from right to left with its "
    r"own previous answer in the next window, gives their integer sum (2,000 random pairs of 1 to 60 digits).",
    controls=[
        control("one of the 2,100 windows is wrong", loop="corrupted"),
        control("the carry is dropped", loop="carryless"),
        control("the loop walks from left to right", loop="left to right"),
    ],
)
def table_is_addition(results: Results, loop: str = "exact") -> Evidence:
    wrong = results[integer_sums]["wrong"].sel(loop=loop).sum()
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
def imperfect_tables(seed: int) -> dict[str, Tensor]:
    """Three tables with random wrong answers, one whose errors undo each other, one that falls silent."""
    tables = {}
    for wrong in (5, 20, 60):
        rng = stream(seed, "tables").child(wrong).rng()
        windows = torch.from_numpy(rng.choice(WINDOWS, wrong, replace=False))
        tables[f"random_{wrong}"] = exact_table()
        tables[f"random_{wrong}"][windows] = torch.from_numpy(rng.integers(-1, SUMS, wrong))
    previous, first, second = window_parts()
    # First columns that sum to 5 are written 15, and 15 is then read as "no carry".
    undone = exact_table()
    undone[(previous < 0) & (first + second == 5)] = 15
    undone[previous == 15] = (first + second)[previous == 15]
    return {**tables, "undone": undone, "silent": avoiding(tables["random_60"])}


@PROOFS.measurement(seeds=lambda config: 2)
def enumerated_accuracy(_: object, seed: int) -> LabelledArrays:
    """Share of right sums among all sums of 1, 2 and 3 columns, beside the laws: of the table, of its true windows avoiding
    the wrong ones, and of the table with one more wrong window."""
    tables, lengths = imperfect_tables(seed), (1, 2, 3)
    shares = np.zeros((len(tables), len(lengths)))
    for columns in lengths:
        first, second = all_sums(columns)
        truth = add(first, second)
        for place, table in enumerate(tables.values()):
            right = (add_by_table(table, first, second) == truth).all(-1)
            shares[place, columns - 1] = float(right.double().mean())
    stacked = torch.stack(list(tables.values()))
    spoilt = stacked.clone()
    right_windows = (stacked == exact_table())[:, FIRST_WINDOWS:].long().argmax(-1) + FIRST_WINDOWS
    spoilt[torch.arange(len(tables)), right_windows] = -1
    laws = {
        "law": accuracy_law(stacked, 3),
        "avoiding": accuracy_law(avoiding(stacked), 3),
        "one more wrong": accuracy_law(spoilt, 3),
    }
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
    controls=[control("the law of the table with one more wrong window", law="one more wrong")],
)
def pair_law(results: Results, law: str = "law") -> Evidence:
    shares = results[enumerated_accuracy]
    error = np.abs(shares["enumerated"] - shares[law]).max()
    return Evidence.exact(error.item(), "<=", EXACT_SHARES, "rounding of 3 steps over 100 digit pairs")


# %%
PROOFS.show(avoiding_law)
PROOFS.show(pair_law)

# %% [markdown]
# ### How fast accuracy falls
#
# Let $P$ be the chain of true sums, $\pi$ its stationary law and $E$ the part of $P$ that goes through wrong windows. The
# share of additions that have met no wrong window falls by $\rho$ a column, the largest eigenvalue of $P - E$. Perturbation
# theory gives $\rho = 1 - \pi E 1 + \pi E Q E 1 - \dots$ with $Q = \sum_k (P^k - 1 \pi)$, so to first order
# $$ -\ln \rho \approx \varepsilon = \pi E 1 = \sum_{\text{wrong } (s, a, b)} \frac{P(s)}{100} . $$
# A wrong window costs what it is met, which depends on the previous sum alone: one after $s = 9$ or 10 costs 19 times one
# after 0 or 19. The next term is small because carries are forgotten quickly: $P^k - 1\pi$ falls by the factor 10 a column,
# and whatever the carry, a sum is at most twice as likely as on average, so $|Q_{ts}| \le \delta_{ts} + \frac{19}{9} \pi_s$ and
# $|\pi E Q E 1| \le \varepsilon (\eta + \frac{19}{9} \varepsilon)$, where $\eta$ is the largest share of wrong windows after one
# sum. (Errors that undo each other need two wrong windows in a row and are of the second order as well.)


# %%
DECAY_LAWS = ("stationary", "uniform")


@PROOFS.measurement(seeds=lambda config: 8)
def decay_of_random_tables(_: object, seed: int) -> LabelledArrays:
    """For tables with so many random wrong windows in later columns: how much the decay rate differs from its first order,
    as a share of it, and what the second order allows."""
    numbers, excess, allowed = (1, 5, 20, 60), [], []
    for wrong in numbers:
        windows = FIRST_WINDOWS + stream(seed, "decay", wrong).rng().choice(
            WINDOWS - FIRST_WINDOWS, wrong, replace=False
        )
        table = exact_table()
        table[torch.from_numpy(windows)] = -1
        excess.append(excess_decay(table))
        allowed.append(second_order_share(table))
    return {
        "excess": labelled(torch.stack(excess), wrong=numbers, law=DECAY_LAWS),
        "allowed": labelled(torch.stack(allowed), wrong=numbers),
    }


def excess_decay(table: Tensor) -> Tensor:
    """|rate / first order - 1| with the stationary law of the previous sum, and with all sums alike, along the last axis."""
    alike = torch.full((SUMS,), 1 / SUMS, dtype=torch.float64)
    return torch.stack([(decay_rate(table) / first_order_decay(table, law) - 1).abs() for law in (None, alike)], dim=-1)


@PROOFS.cases(every_window={})
def decay_of_single_windows(_: object) -> LabelledArrays:
    """The same for each of the 2,000 tables with one wrong window in later columns, and for all windows after a sum of 19."""
    tables = exact_table().repeat(WINDOWS - FIRST_WINDOWS, 1)
    tables[:, FIRST_WINDOWS:].fill_diagonal_(-1)
    return {
        "excess": labelled(excess_decay(tables), window=None, law=DECAY_LAWS),
        "allowed": labelled(second_order_share(tables), window=None),
    }


@PROOFS.claim(
    "addition-length-generalization/I2-rate",
    where="derived",
    kind="rate",
    statement=r"The share of additions without a wrong window falls with every column by $-\ln \rho = \varepsilon$, the sum of "
    r"$P(s)/100$ over the wrong windows of later columns, up to a second order of at most $\varepsilon (\eta + \frac{47}{18} "
    r"\varepsilon)$: within 1.25 % for each of the 2,000 tables with one wrong window, and within that bound for random tables "
    r"with up to 60.",
    controls=[control("all previous sums counted alike", law="uniform")],
)
def decay_is_first_order(results: Results, law: str = "stationary") -> Evidence:
    single = results[decay_of_single_windows].sel(case="every_window")
    random = results[decay_of_random_tables]
    return Evidence.all(
        Evidence.exact(single["excess"].sel(law=law).max().item(), "<=", 0.0125, "second order for one wrong window"),
        Evidence.exact(
            (random["excess"].sel(law=law) / random["allowed"]).max().item(), "<=", 1, "second order, as derived above"
        ),
    )


# %%
PROOFS.show(decay_is_first_order)

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
# ### Its whole law
#
# The mean is one number of a law that can be had whole. "Longer than $m$" is a word of $m + 1$ columns, of probability
# $\mu = g B^{-m}$, which cannot overlap itself: a column does not both generate and propagate. Inclusion and exclusion over
# $k$ such words is therefore exact,
# $$ P(L_n \le m) = \sum_k (-1)^k \binom{n - m k}{k} \mu^k , $$
# and $\binom{n - mk}{k} \approx \frac{n^k}{k!} \bigl(1 - \frac{m k^2 + k(k-1)/2}{n}\bigr)$ makes of it, with $x = n \mu$,
# $$ P(L_n \le m) = e^{-x} \Bigl(1 + \frac{m x (1 - x) - x^2 / 2}{n}\Bigr) + O\Bigl(\frac{\ln^2 n}{n^2}\Bigr) . $$
# So the Poisson law $e^{-x}$ is wrong by up to $m\, x |x - 1| e^{-x} / n$, which is largest at $x = \varphi^2$ with $\varphi$ the
# golden ratio: the largest error is $\varphi^3 e^{-\varphi^2} / \ln B \cdot \ln n / n$, 0.134 in base 10. At powers of ten it is half
# of that, because there $x$ is always $0.45 \cdot 10^j$.


# %%
LAW_DECADES, POINTS, MOST = (2, 3, 4, 5), 61, 12


@PROOFS.cases(ten={"base": 10}, three={"base": 3}, two={"base": 2})
def chain_sums(_: object, *, base: int) -> LabelledArrays:
    """The largest error, over n = 1 .. 40 and all m, of the alternating sum against the transfer matrix; and with words that
    count as if they were one column shorter."""
    lengths = range(1, 41)
    error, shorter = 0.0, 0.0
    for columns in lengths:
        exact = longest_chain_law([columns], columns, base)[0].numpy()
        law = np.array([float(longest_chain_sum(columns, longest, base)) for longest in range(columns + 1)])
        error = max(error, np.abs(law - exact).max())
        moved = np.array([float(longest_chain_sum(columns + longest, longest, base)) for longest in range(columns + 1)])
        shorter = max(shorter, np.abs(moved - exact).max())
    return {"error": labelled([error, shorter], words=("whole", "one column"))}


@PROOFS.cases(ten={})
def chain_limits(_: object) -> LabelledArrays:
    """The largest error over m of the Poisson law without and with its correction, at 61 n in each of four decades."""
    decades = [np.geomspace(10**k, 10 ** (k + 1), POINTS).astype(int).tolist() for k in LAW_DECADES]
    errors = [
        [
            (longest_chain_law(n, MOST) - longest_chain_poisson(n, MOST, corrected=corrected)).abs().amax(-1)
            for n in decades
        ]
        for corrected in (False, True)
    ]
    stacked = torch.stack([torch.stack(one) for one in errors])
    return {
        "error": labelled(stacked, corrected=(False, True), decade=LAW_DECADES, point=None),
        "columns": labelled(decades, decade=LAW_DECADES, point=None),
    }


@PROOFS.claim(
    "addition-length-generalization/R2-sum",
    where="derived",
    kind="identity",
    statement=r"$P(L_n \le m) = \sum_k (-1)^k \binom{n - mk}{k} (g B^{-m})^k$ is the law of the longest carry chain, for every "
    r"$m \le n \le 40$ in bases 2, 3 and 10.",
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
    statement=r"$P(L_n \le m) = e^{-x}(1 + (m x (1 - x) - x^2/2)/n)$ with $x = n g B^{-m}$, up to an error that falls like "
    r"$(\ln n)^2/n^2$; without the second term the largest error over $m$ reaches $\varphi^3 e^{-\varphi^2}/\ln B \cdot (\ln n)/n$ "
    r"(base 10, $10^5 \le n \le 10^6$, within 2 %).",
    controls=[
        control("without the second term", corrected=False),
        control("the error at powers of ten only", every=POINTS - 1),
    ],
)
def chain_law_is_poisson(results: Results, corrected: bool = True, every: int = 1) -> Evidence:
    limits = results[chain_limits].sel(case="ten")
    largest = limits["error"].max("point").sel(corrected=corrected)
    slope = statistics.slope([10.0**k for k in LAW_DECADES], largest.values)
    last = limits.sel(decade=LAW_DECADES[-1], corrected=False).isel(point=slice(None, None, every))
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
