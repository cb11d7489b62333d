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
# # No partial credit for the first step
#
# Why is the first step so hard to come by? Because there is no partial credit for it. Below the $d$ children of
# the start there are $l - 2$ levels of edges. Look at any $l - 3$ edges there: some level is untouched. Cut the
# goal's arm and another arm at that level and exchange what hangs below: a graph that is just as likely, that
# has the same edges in the places looked at, and whose first step is the other arm's child. The exchange is its
# own inverse, so that as many graphs that agree with what was read lead from child $a$ to the goal as from
# child $b$. That holds for any two children, hence
#
# $$P(\text{first step} = a \mid \text{goal, children, any } l - 3 \text{ edges}) = \frac1d .$$
#
# With $l - 2$ edges one can have read the goal's arm, and then the first step is certain: the largest distance
# from $1/d$ jumps from $0$ to $1 - 1/d$ at one edge. The first step is a **parity** of the levels, the kind of
# function that gives gradient descent nothing to start from. For $l = 3$ one edge decides, and that is what
# standard training learns; for $l = 4$ it takes two (`other_sizes.py`).
#
# The node next to the goal, by contrast, is always decided by one edge, for every $l$: teacherless targets and
# heads that look ahead break the parity into single look-ups (`objectives.py`).
#
# The sentence is checked by counting all graphs of eight sizes.
# %%
from __future__ import annotations

import numpy as np

from lab import Evidence, Task, control
from lab.domains.graphs import path_star as theory
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.results import Results
from tasks.next_token_pitfalls._shared import PAPER, SLUG

TASK = Task(SLUG, paper=PAPER)
COUNTED = ((2, 3), (2, 4), (2, 5), (3, 3), (3, 4), (4, 3), (4, 4), (5, 3))  # (d, l)
NAMES = [f"d = {arms}, l = {length}" for arms, length in COUNTED]
MOST_READ = max(length for _, length in COUNTED) - 1


@TASK.cases(claimed={}, one_more={"more": 1}, one_fewer={"more": -1})
def credit(config: object, *, more: int = 0) -> LabelledArrays:
    """Largest distance of P(first step | edges) from 1/d by how many edges are read (and ``more``), all graphs counted."""
    rows = []
    for arms, length in COUNTED:
        known = [min(max(read + more, 0), arms * (length - 2)) for read in range(length)]
        row = [theory.counted_credit(arms, length, read) for read in known]
        rows.append(row + [np.nan] * (MOST_READ + 1 - length))
    return {"credit": labelled(rows, size=NAMES, read=range(MOST_READ + 1))}


@TASK.claim(
    "next-token-pitfalls/T5.parity",
    where="derived (why there is no partial credit)",
    kind="identity",
    statement=r"Given the goal and the $d$ children of the start, any $l-3$ of the edges below them leave the first step equally "
    r"likely to be each child, and $l-2$ of them can settle it ($d=2$ with $l \le 5$, $d=3,4$ with $l \le 4$, $d=5$ with "
    r"$l=3$: all graphs counted).",
    controls=[
        control("one edge more: it can settle the first step", case="one_more"),
        control("one edge fewer: it can not", case="one_fewer"),
    ],
)
def fewer_edges_give_no_credit(results: Results, case: str = "claimed") -> Evidence:
    measured = results[credit]["credit"].sel(case=case)
    origin = "counts are whole numbers, and a quotient of them is rounded as its law is"
    too_few, enough = [], []
    for name, (arms, length) in zip(NAMES, COUNTED, strict=True):
        of_size = measured.sel(size=name)
        too_few.append(abs(float(of_size.sel(read=length - 3)) - theory.largest_credit(arms, length, length - 3)))
        enough.append(abs(float(of_size.sel(read=length - 2)) - theory.largest_credit(arms, length, length - 2)))
    return Evidence.all(Evidence.exact(max(too_few), "<=", 0.0, origin), Evidence.exact(max(enough), "<=", 0.0, origin))


@TASK.figure
def credit_of_edges(results: Results) -> Sheet:
    """What edges below the children of the start can tell about the first step: the largest distance of its probability from
    1/d, all graphs counted, beside the law."""
    measured = results[credit]["credit"].sel(case="claimed")
    sheet = Sheet(width=6.4, height=3.8)
    panel = sheet.panel(
        "Nothing, and then everything",
        x="edges read minus (l - 2)",
        y="largest distance of P(first step) from 1/d",
        ylim=(-0.05, 1.0),
        xticks=[-3, -2, -1, 0, 1],
        legend="outside",
    )
    for name, (arms, length) in zip(NAMES, COUNTED, strict=True):
        if length != max(other for many, other in COUNTED if many == arms):
            continue
        read = np.arange(length)
        panel.points(
            measured.sel(size=name, read=read.tolist()).values, x=(read - (length - 2)).tolist(), across=None, name=name
        )
        law = [theory.largest_credit(arms, length, int(edges)) for edges in read]
        panel.theory((read - (length - 2)).tolist(), law, name="law: 0, then 1 - 1/d")
    return sheet


# %%
TASK.show(fewer_edges_give_no_credit)
TASK.show(credit_of_edges)

# %% [markdown]
# ## All verdicts

# %%
TASK.show()
