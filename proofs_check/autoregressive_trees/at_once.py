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
# # What a tree can say at once
#
# A decision tree over $n$ bits asks for one bit after the other. How many leaves must it have for a given function? The
# first question fixes a bit, and what is below are two trees for functions of $n - 1$ bits:
#
# $$\ell(f) = \min_i \ \bigl[\ell(f|_{x_i = 0}) + \ell(f|_{x_i = 1})\bigr], \qquad \ell(\text{constant}) = 1,$$
#
# so that dynamic programming over all ways to fix bits gives the exact number. **Parity** stays parity whatever is fixed, and needs
# $2^n$ leaves. By induction it is the only one, up to its complement: if $\ell(f) = 2^n$, every restriction to one bit less needs
# $2^{n-1}$, so each is a parity or its complement; the two cannot be equal, for then another first question would do with
# fewer, hence $f$ is parity again.
#
# The tables of *all* functions of up to four bits are counted here, and beside them the bound that counting gives: trees of $\ell$
# leaves are $C_{\ell-1}$ shapes (Catalan), $n^{\ell-1}$ questions and $2^\ell$ values.

# %%
from __future__ import annotations

import numpy as np

from lab import Evidence, Task, control
from lab.domains.machines.trees import count_bound, least_depth_of_all, least_leaves, least_leaves_of_all
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.results import Results
from proofs_check.autoregressive_trees._shared import COUNTS, PAPER, SLUG

PROOFS = Task(SLUG, paper=PAPER)
BITS = range(1, 7)
FEW = range(1, 5)


@PROOFS.cases(claimed={}, one_bit_unread={"unread": True})
def sizes(config: object, *, unread: bool = False) -> LabelledArrays:
    """The fewest leaves for parity, *and* and majority (of odd numbers; nan else) of n bits; ``unread`` leaves the last bit out of
    all three."""
    leaves: dict[str, list[float]] = {"parity": [], "and": [], "majority": []}
    for bits in BITS:
        ones = np.indices((2,) * bits)
        count, all_bits = (ones[:-1].sum(0), bits - 1) if unread else (ones.sum(0), bits)
        leaves["parity"].append(least_leaves(count % 2))
        leaves["and"].append(least_leaves((count == all_bits).astype(np.int64)))
        odd = bits % 2 == 1
        leaves["majority"].append(least_leaves((2 * count > bits).astype(np.int64)) if odd else np.nan)
    return {name: labelled(values, bits=BITS) for name, values in leaves.items()}


@PROOFS.claim(
    "autoregressive-trees/L1",
    where="derived; the paper contrasts trees with and without a chain of thought",
    kind="identity",
    statement="The smallest decision tree for the parity of $n$ bits has $2^n$ leaves, for their *and* $n + 1$, for "
    "the majority of 1, 3 and "
    "5 bits 2, 6 and 20 (exact, over all trees, $n \\le 6$).",
    controls=[control("the last bit does not count", case="one_bit_unread")],
)
def parity_needs_every_leaf(results: Results, case: str = "claimed") -> Evidence:
    leaves = results[sizes].sel(case=case)
    bits = leaves["bits"]
    majority = leaves["majority"] - labelled((2, 6, 20), bits=(1, 3, 5))
    return Evidence.all(
        Evidence.exact(float(abs(leaves["parity"] - 2**bits).max()), "<=", 0, f"2^n; {COUNTS}"),
        Evidence.exact(float(abs(leaves["and"] - bits - 1).max()), "<=", 0, f"n + 1; {COUNTS}"),
        Evidence.exact(float(abs(majority).max()), "<=", 0, f"2, 6, 20; {COUNTS}"),
    )


@PROOFS.cases(claimed={}, one_fewer={"fewer": 1}, no_choice={"choice": False})
def all_functions(config: object, *, fewer: int = 0, choice: bool = True) -> LabelledArrays:
    """Of all functions of n bits: how many need at least $2^n$ leaves (less ``fewer``); the largest excess of the number with at most l
    leaves over the bound, for any l (without ``choice``: of the bit to ask for); and the largest excess of leaves over 2^depth."""
    hardest, excess, depth_excess = [], [], []
    for bits in FEW:
        leaves, depths = least_leaves_of_all(bits), least_depth_of_all(bits)
        hardest.append(int((leaves >= 2**bits - fewer).sum()))
        bounds = [count_bound(bits if choice else 1, number) for number in range(1, 2**bits + 1)]
        counts = [int((leaves <= number).sum()) for number in range(1, 2**bits + 1)]
        excess.append(max(count - bound for count, bound in zip(counts, bounds, strict=True)))
        depth_excess.append(float((leaves - 2.0 ** (depths - fewer)).max()))
    return {
        "hardest": labelled(hardest, bits=FEW),
        "excess": labelled(excess, bits=FEW),
        "depth excess": labelled(depth_excess, bits=FEW),
    }


@PROOFS.claim(
    "autoregressive-trees/L1.only",
    where="derived",
    kind="identity",
    statement="Of all functions of $n$ bits only two need $2^n$ leaves, parity and its complement (all $2^{2^n}$ functions, $n \\le 4$).",
    controls=[control("functions that need at least one leaf less", case="one_fewer")],
)
def only_parity_is_that_hard(results: Results, case: str = "claimed") -> Evidence:
    hardest = results[all_functions]["hardest"].sel(case=case)
    return Evidence.exact(float(abs(hardest - 2).max()), "<=", 0, f"two functions; {COUNTS}")


@PROOFS.claim(
    "autoregressive-trees/L1.count",
    where="derived",
    kind="identity",
    statement=r"At most $C_{\ell-1}\, n^{\ell-1}\, 2^\ell$ functions of $n$ bits have a tree of $\ell$ leaves, for "
    r"every $\ell$ (all functions of "
    r"$n \le 4$ bits).",
    controls=[control("without the choice of the bit to ask for", case="no_choice")],
)
def few_leaves_hold_few_functions(results: Results, case: str = "claimed") -> Evidence:
    excess = results[all_functions]["excess"].sel(case=case)
    return Evidence.exact(float(excess.max()), "<=", 0, f"the bound; {COUNTS}")


@PROOFS.claim(
    "autoregressive-trees/L1.depth",
    where="derived",
    kind="identity",
    statement="A function with a tree of depth $d$ has one of at most $2^d$ leaves, so that parity needs depth $n$ "
    "(all functions of $n \\le 4$ bits).",
    controls=[control("one question less", case="one_fewer")],
)
def depth_bounds_leaves(results: Results, case: str = "claimed") -> Evidence:
    excess = results[all_functions]["depth excess"].sel(case=case)
    return Evidence.exact(float(excess.max()), "<=", 0, f"2^depth; {COUNTS}")


# %%
PROOFS.show(parity_needs_every_leaf)
PROOFS.show(only_parity_is_that_hard)
PROOFS.show(few_leaves_hold_few_functions)
PROOFS.show(depth_bounds_leaves)


# %%
@PROOFS.figure
def leaves_at_once(results: Results) -> Sheet:
    """The fewest leaves that a tree needs to say parity, majority or *and* of n bits at once, and the four leaves with which a
    tree says parity token by token."""
    leaves = results[sizes].sel(case="claimed")
    sheet = Sheet(width=6.4, height=3.8)
    panel = sheet.panel(
        "parity at once takes every leaf",
        x="bits",
        y="leaves",
        scale=("linear", "log"),
        xticks=list(BITS),
        legend="upper left",
    )
    panel.line(list(BITS), leaves["parity"].values, name="parity", of="exact")
    panel.line([1, 3, 5], leaves["majority"].sel(bits=[1, 3, 5]).values, name="majority", of="exact")
    panel.line(list(BITS), leaves["and"].values, name="and", of="exact")
    panel.level(4, "parity, token by token")
    return sheet


# %%
PROOFS.show(leaves_at_once)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
