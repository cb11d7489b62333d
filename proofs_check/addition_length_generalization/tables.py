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
# $100 + 20 \cdot 100 = 2{,}100$ windows. What follows from that is proved here, without training anything:
#
# * if all 2,100 answers are right, **every** sum of **every** length is right; if one is wrong, some sum of at most
#   three columns is wrong;
# * how often an imperfect table is right at length $n$ is an exact law of a Markov chain with 40 states, and how fast
#   that falls with length can be read off the wrong windows.
#
# How long carries travel is the matter of `carries.py`, and what becomes of sums whose carries are not written that of
# `without_the_carry.py`.

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
    avoiding,
    carryless_table,
    column_windows,
    exact_table,
    format_numbers,
    parse_numbers,
    window_number,
    window_parts,
)
from lab.domains.addition.imperfect_tables import decay_rate, first_order_decay, second_order_share
from lab.labels import LabelledArrays, labelled
from lab.results import Results
from lab.streams import stream
from proofs_check.addition_length_generalization._shared import PAPER, SLUG, all_sums

PROOFS = Task(SLUG, paper=PAPER, root=2026)

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
    firsts, seconds = (
        ["".join(map(str, row[:length])) for row, length in zip(operands, lengths_of_operands, strict=True)]
        for operands, lengths_of_operands in zip(digits.swapaxes(0, 1), lengths.swapaxes(0, 1), strict=True)
    )
    first, second = parse_numbers(firsts, 60), parse_numbers(seconds, 60)
    truth = [str(int(a) + int(b)) for a, b in zip(firsts, seconds, strict=True)]
    corrupted = exact_table()
    corrupted[window_number(torch.tensor(9), torch.tensor(4), torch.tensor(5))] = 19
    written = [
        *(add_by_table(table, first, second) for table in (exact_table(), corrupted, carryless_table())),
        add_by_table(exact_table(), first.flip(1), second.flip(1))[:, :-1].flip(1),
    ]
    wrong = [
        sum(number != right for number, right in zip(format_numbers(digits_written), truth, strict=True))
        for digits_written in written
    ]
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
# correct addition with at most three columns, so a table with a single wrong entry gets that sum wrong. Three columns
# are needed, because $s = 19 = 9 + 9 + 1$ takes a carry from the column before.


# %%
@PROOFS.cases(all_windows={})
def witnesses(_: object) -> LabelledArrays:
    """Columns of the shortest sum that ends with each window, and whether every wrong answer there spoils that sum."""
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
            operands = first[[example]], second[[example]]
            needed[window] = columns
            spoilt[window] = bool((add_by_table(tables, *operands) != add(*operands)).any(-1).all())
    return {"columns": labelled(needed, window=None), "spoilt": labelled(spoilt, window=None)}


@PROOFS.claim(
    "addition-length-generalization/I1-converse",
    where="derived",
    kind="identity",
    statement=r"Every one of the 2,100 windows ends a correct addition of at most three columns, and a table with any "
    r"of the 19 wrong sums or no answer there, and right elsewhere, gets that addition wrong: the enumeration is "
    r"necessary as well as sufficient.",
    controls=[control("two columns, which never show s = 19", columns=2)],
)
def every_window_counts(results: Results, columns: int = 3) -> Evidence:
    shortest = results[witnesses]
    shown = shortest["spoilt"] & (shortest["columns"] <= columns)
    return Evidence.exact((~shown).sum().item(), "<=", 0, "windows without a sum that shows each of their errors")


# %%
PROOFS.show(every_window_counts)

# %% [markdown]
# ## How accurate is an imperfect table?
#
# It is tempting to argue: a wrong answer has a wrong last digit, or a wrong "has two digits"; neither is repaired
# later; so the sum is right exactly if the true windows avoid the set of wrong ones. Then the accuracy at $n$ digits
# is $1^\top v_n$ with a transfer matrix on the 20 true sums.
#
# The second half of the argument has a gap. A machine that writes $t = s \pm 10$ for $s$ has the digit right and only
# the carry wrong; if the next window $(t, a, b)$ is wrong *as well*, and in the opposite way, the answer is right
# again. Two wrongs can make a right. So the chain must remember the true $s$ *and* whether $t = s$: 40 states instead
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
    """Share of right sums among all sums of 1, 2 and 3 columns, beside the laws: of the table, of its true windows
    avoiding the wrong ones, and of the table with one more wrong window."""
    tables, lengths = imperfect_tables(seed), (1, 2, 3)
    enumerated = torch.zeros(len(tables), 0, dtype=torch.float64)
    for columns in lengths:
        first, second = all_sums(columns)
        truth = add(first, second)
        right = [(add_by_table(table, first, second) == truth).all(-1) for table in tables.values()]
        enumerated = torch.cat([enumerated, torch.stack(right).double().mean(-1, keepdim=True)], dim=-1)
    stacked = torch.stack(list(tables.values()))
    spoilt = stacked.clone()
    right_windows = (stacked == exact_table())[:, FIRST_WINDOWS:].long().argmax(-1) + FIRST_WINDOWS
    spoilt[torch.arange(len(tables)), right_windows] = -1
    shares = {
        "enumerated": enumerated,
        "law": accuracy_law(stacked, 3),
        "avoiding": accuracy_law(avoiding(stacked), 3),
        "one more wrong": accuracy_law(spoilt, 3),
    }
    return {name: labelled(values, table=list(tables), columns=lengths) for name, values in shares.items()}


EXACT_SHARES = statistics.rounding_bound(3 * 100, 1.0)


@PROOFS.claim(
    "addition-length-generalization/I2",
    where="derived",
    kind="identity",
    statement=r"The probability that an imperfect table adds two uniform $n$-digit numbers correctly is the "
    r"probability that the windows of the correct addition avoid all wrong windows.",
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
# Let $P$ be the chain of true sums, $\pi$ its stationary law and $E$ the part of $P$ that goes through wrong windows.
# The share of additions that have met no wrong window falls by $\rho$ a column, the largest eigenvalue of $P - E$.
# Perturbation theory gives $\rho = 1 - \pi E 1 + \pi E Q E 1 - \dots$ with $Q = \sum_k (P^k - 1 \pi)$, so to first
# order
# $$ -\ln \rho \approx \varepsilon = \pi E 1 = \sum_{\text{wrong } (s, a, b)} \frac{P(s)}{100} . $$
# A wrong window costs what it is met, which depends on the previous sum alone: one after $s = 9$ or 10 costs 19 times
# one after 0 or 19. The next term is small because carries are forgotten quickly: $P^k - 1\pi$ falls by the factor 10
# a column, and whatever the carry, a sum is at most twice as likely as on average, so
# $|Q_{ts}| \le \delta_{ts} + \frac{19}{9} \pi_s$ and
# $|\pi E Q E 1| \le \varepsilon (\eta + \frac{19}{9} \varepsilon)$, where $\eta$ is the largest share of wrong
# windows after one sum. (Errors that undo each other need two wrong windows in a row and are of the second order as
# well.)


# %%
DECAY_LAWS = ("stationary", "uniform")


@PROOFS.measurement(seeds=lambda config: 8)
def decay_of_random_tables(_: object, seed: int) -> LabelledArrays:
    """For tables with so many random wrong windows in later columns: how much the decay rate differs from its first
    order, as a share of it, and what the second order allows."""
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
    """|rate / first order - 1|, along the last axis with the stationary law of the previous sum and all sums alike."""
    alike = torch.full((SUMS,), 1 / SUMS, dtype=torch.float64)
    return torch.stack([(decay_rate(table) / first_order_decay(table, law) - 1).abs() for law in (None, alike)], dim=-1)


@PROOFS.cases(every_window={})
def decay_of_single_windows(_: object) -> LabelledArrays:
    """The same for each of the 2,000 tables with one wrong window in later columns."""
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
    statement=r"The share of additions without a wrong window falls with every column by "
    r"$-\ln \rho = \varepsilon$, the sum of $P(s)/100$ over the wrong windows of later columns, up to a second order "
    r"of at most $\varepsilon (\eta + \frac{47}{18} \varepsilon)$: within 1.25 % for each of the 2,000 tables with one "
    r"wrong window, and within that bound for random tables with up to 60.",
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
# ## All verdicts

# %%
PROOFS.show()
