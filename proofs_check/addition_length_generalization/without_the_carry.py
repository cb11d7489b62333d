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
# # What machines without the written carry can do
#
# The windows of `tables.py` write the whole sum of the column before, and so its carry. What is left to a machine that
# does not see it? How far carries travel (`carries.py`) says how often it is right.
#
# **No carry at all.** Column $i$ is right exactly if no carry comes in: probability $\tfrac12 + \tfrac12 10^{-i}$.
# The whole answer is right if no column carries, $0.55^n$, or all but the top one, $0.55^{n-1}$, if the top column
# may write two digits.
#
# **Most significant digit first.** Whoever writes from the left must foresee carries. With a view of $w$ lower
# columns per digit, all digits are right exactly if no chain is longer than $w$. So a view of about $\log_{10} n$
# columns serves most sums, and only $n$ serves all; writing from the right needs one.
#
# **Reversed, without scratchpad.** The carry need not be written: it can be read off the digit already written. If
# $a_i + b_i = 9$, a carry came in exactly if that digit is 0. What a network on the bare reversed string lacks is to
# find the right columns, not an algorithm.

# %%
from __future__ import annotations

import numpy as np
import torch

from lab import Evidence, Task, control, statistics
from lab.domains.addition.column_addition import (
    accuracy_law,
    add,
    add_with_lookahead,
    carry_from_digit,
    carryless_table,
    exact_table,
    longest_chain,
    longest_chain_law,
)
from lab.labels import LabelledArrays, labelled
from lab.results import Results
from proofs_check.addition_length_generalization._shared import PAPER, SLUG, all_sums

PROOFS = Task(SLUG, paper=PAPER)
VIEWS = range(5)


@PROOFS.cases(three_columns={})
def enumerated_shortcuts(_: object) -> LabelledArrays:
    """All sums of three columns: how often they are right without carry, and from a view of so many columns; and on how
    many sums that differs from "the longest chain is at most so many columns long", or one column less."""
    first, second = all_sums(3)
    truth = add(first, second)
    carryless = torch.cat([(first + second) % 10, torch.zeros_like(first[:, :1])], dim=1)
    right = carryless == truth
    chain = longest_chain(first, second)
    foreseen = [(add_with_lookahead(first, second, view) == truth).all(-1) for view in VIEWS]
    differ = [
        [int((right_sums != (chain <= view - shorter)).sum()) for view, right_sums in zip(VIEWS, foreseen, strict=True)]
        for shorter in (0, 1)
    ]
    return {
        "digit": labelled(right[:, :3].double().mean(0), column=range(3)),
        "whole": labelled(right.all(-1).double().mean()),
        "foreseen": labelled(torch.stack(foreseen).double().mean(-1), view=VIEWS),
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
    statement=r"Adding digit by digit without carry gets column $i$ right with probability $\frac12 + \frac12 10^{-i}$ "
    r"and a whole $n$-digit sum with $0.55^n$, or $0.55^{n-1}$ if the top column may write two digits.",
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
    chains = labelled(longest_chain_law([3], max(VIEWS)), columns=[3], view=VIEWS).sel(columns=3)
    law = chains.shift(view=shorter, fill_value=0)  # P(L_n <= w - shorter)
    return Evidence.all(
        Evidence.exact(shares["differ"].sel(shorter=shorter).max().item(), "<=", 0, "sums on which the two differ"),
        Evidence.exact(
            np.abs(shares["foreseen"] - law).max().item(),
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
PROOFS.show(without_carry)
PROOFS.show(lookahead_is_chain_length)
PROOFS.show(carry_is_readable)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
