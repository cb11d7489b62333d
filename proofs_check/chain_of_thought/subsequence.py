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
# # A dynamic programme in two layers
#
# The theorem says that a transformer of constant depth writes the derivation of any dynamic programme whose step copies
# a few earlier states and combines them. Here it is for the longest increasing subsequence, $d_i = 1 + \max\{d_j : j <
# i,\ x_j < x_i\}$, in two layers and three heads, and with a number for everything.
#
# Layer 1 fetches, to the token $d_j$, the value $x_j$ it belongs to, and to the position that owes $d_i$ the value
# $x_i$. Layer 2 attends to written $d_j$ with the score $\beta\,[(n+1)[x_j < x_i] + d_j]$: allowed candidates first,
# among them the largest. The empty candidate is the sign that ends the problem. Softmax is not a maximum: it leaves a
# share of about $e^{-\beta}$ to a candidate one step behind. With at most $2n + 2$ candidates the average $m$ of $d$ is
# off by less than $n(2n+2)e^{-\beta}$, and since the read-out $2k(m+1) - k^2$ rounds to the nearest whole number,
# $$\beta > \ln\bigl(4n(n+1)\bigr)$$
# is enough for every token of the derivation, and for the answer, to be right. Weights logarithmic in $n$ at this
# place, quadratic where positions are told apart.

# %%
from __future__ import annotations

import torch
from torch import Tensor

from lab import Task, control
from lab.domains.derivations import subsequences
from lab.domains.derivations.sequences import Derivations
from lab.domains.derivations.subsequence_transformer import (
    AVERAGE,
    leak_bound,
    least_sharpness,
    subsequence_transformer,
)
from lab.figures import Sheet
from lab.labels import LabelledArrays, deviations, labelled
from lab.models import masks
from lab.models.transformer import Intermediates, Transformer
from lab.results import Results
from lab.streams import stream
from proofs_check.chain_of_thought._shared import COUNTS, PAPER, SLUG, wrong_predicted, wrong_written

PROOFS = Task(SLUG, paper=PAPER)
SIZES = ((4, 12), (8, 21), (15, 46))
ROWS = 60
MARGIN = 1e-6


def problems(length: int, numbers: int) -> Derivations:
    return subsequences.increasing_subsequence(stream(0, "subsequences", length), ROWS, length=length, numbers=numbers)


def inside(module: Transformer, rows: Derivations) -> Intermediates:
    """Everything the network computes on the true rows."""
    intermediates: Intermediates = {}
    with torch.no_grad():
        module(rows.tokens[None, :, :-1], masks.causal(rows.tokens.shape[1] - 1), intermediates=intermediates)
    return intermediates


def averages(module: Transformer, rows: Derivations, length: int) -> Tensor:
    """m at the positions that owe a length [row, item]."""
    return inside(module, rows)["layers.1.residual"][0, :, length : 2 * length, AVERAGE]


@PROOFS.identity(
    "chain-of-thought/C2",
    where="theorem 4.7 (dynamic programmes), for the longest increasing subsequence; the weights are derived",
    kind="construction",
    statement=r"A softmax transformer of two layers and three heads with explicit weights writes the whole "
    r"derivation of the longest increasing subsequence, and "
    r"the answer, as soon as its sharpness exceeds $\ln(4n(n+1))$: 60 sequences each of $n = 4, 8, 15$ items, under "
    r"both masks, from its own output and at "
    "every position of the true rows.",
    origin=COUNTS,
    controls=[
        control("sharpness 1", sharpness=1.0),
        control("a head that looks one place too far back", shift=1),
        control("no empty candidate", empty_candidate=False),
        control("allowed where equal", strict=False),
    ],
)
def two_layers_write_subsequences(
    config: object, *, sharpness: float = 0.0, shift: int = 0, empty_candidate: bool = True, strict: bool = True
) -> LabelledArrays:
    pairs = []
    for length, numbers in SIZES:
        module = subsequence_transformer(
            length,
            numbers,
            sharpness or least_sharpness(length) + MARGIN,
            shift=shift,
            empty_candidate=empty_candidate,
            strict=strict,
        )
        rows = problems(length, numbers)
        pairs += [
            (wrong(module, rows, mask), 0.0)
            for wrong in (wrong_written, wrong_predicted)
            for mask in ("causal", "prefix")
        ]
    return deviations(pairs)


@PROOFS.identity(
    "chain-of-thought/C2.equal",
    where="derived",
    kind="construction",
    statement="With <= for < in its second layer the same transformer writes the lengths of longest non-decreasing "
    "subsequences.",
    origin=COUNTS,
    controls=[control("< as before", strict=True)],
)
def non_decreasing(config: object, *, strict: bool = False) -> LabelledArrays:
    pairs = []
    for length, numbers in SIZES:
        rows = problems(length, numbers)
        values = rows.tokens[:, :length] - subsequences.ZERO
        expected = subsequences.write_sequences(values, "derivation", strict=False)
        module = subsequence_transformer(length, numbers, least_sharpness(length) + MARGIN, strict=strict)
        pairs.append((wrong_written(module, expected), 0.0))
    return deviations(pairs)


SHARPNESSES = (2.0, 4.0, 8.0, 16.0)


@PROOFS.identity(
    "chain-of-thought/C2.leak",
    where="derived",
    kind="rate",
    statement=r"The average that layer 2 takes for the largest allowed length lies within $n(2n+2)e^{-\beta}$ of it "
    r"($\beta = 2, 4, 8, 16$).",
    origin=r"$n (2n + 2) e^{-\beta}$ and 1e-12 for rounding",
    controls=[control("the empty candidate left out", empty_candidate=False)],
)
def leak_of_the_softmax(config: object, *, empty_candidate: bool = True) -> LabelledArrays:
    pairs = []
    for length, numbers in SIZES:
        rows = problems(length, numbers)
        wanted = rows.tokens[:, length + 1 : 2 * length + 1] - subsequences.ZERO - 1.0
        for sharpness in SHARPNESSES:
            module = subsequence_transformer(length, numbers, sharpness, empty_candidate=empty_candidate)
            leak = (averages(module, rows, length) - wanted).abs().max()
            pairs.append((float(leak), leak_bound(length, sharpness) + 1e-12))
    return deviations(pairs)


DRAWN, DRAWN_NUMBERS = 15, 46
BETAS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0)


@PROOFS.cases(all={})
def by_sharpness(config: object) -> LabelledArrays:
    """Share of wrong rows and largest distance of m from a whole number by sharpness; attention of one row at the "
    "last."""
    rows = problems(DRAWN, DRAWN_NUMBERS)
    wanted = rows.tokens[:, DRAWN + 1 : 2 * DRAWN + 1] - subsequences.ZERO - 1.0
    wrong, leak = [], []
    for sharpness in BETAS:
        module = subsequence_transformer(DRAWN, DRAWN_NUMBERS, sharpness)
        m = averages(module, rows, DRAWN)
        wrong.append(float(((m - wanted).abs() >= 0.5).any(1).double().mean()))
        leak.append(float((m - wanted).abs().max()))
    weights = inside(module, rows)["layers.1.attention.weights"][0, 0, 0]
    shown = weights[DRAWN : 2 * DRAWN + 2, DRAWN : 2 * DRAWN + 1]
    return {
        "wrong": labelled(wrong, sharpness=BETAS),
        "leak": labelled(leak, sharpness=BETAS),
        "attention": labelled(shown, query=None, key=None),
    }


@PROOFS.figure
def subsequence_network(results: Results) -> Sheet:
    """The explicit network for subsequences of 15 items, by sharpness: rows with a wrong length, and how far its average lies
    from a whole number (60 rows); attention of its second layer on one row.
    """
    measured = results[by_sharpness].sel(case="all")
    sheet = Sheet(columns=3, width=4.6)
    panel = sheet.panel("wrong rows", x=r"sharpness $\beta$", y="share of rows with a wrong length")
    panel.line(BETAS, measured["wrong"].values, name="network", of="60 rows")
    panel.level(least_sharpness(DRAWN), r"$\ln(4n(n+1))$: enough", vertical=True)
    panel = sheet.panel(
        "what the softmax leaves to others",
        x=r"sharpness $\beta$",
        y="largest |m - whole number|",
        scale=("linear", "log"),
    )
    panel.line(BETAS, measured["leak"].values, name="network", of="60 rows")
    panel.theory(BETAS, [leak_bound(DRAWN, beta) for beta in BETAS], name=r"$n (2n + 2) e^{-\beta}$")
    panel.level(0.5, "half: rounding goes wrong")
    panel = sheet.panel(
        "layer 2 finds the best allowed candidate",
        x="candidate: |, then written lengths",
        y="position that owes a token",
    )
    items = [f"$d_{{{item}}}$" if item % 3 == 0 else "" for item in range(DRAWN)]
    panel.heat(
        measured["attention"].values, rows=[*items, "|", "max"], columns=["|", *items], bar="attention", of="one row"
    )
    panel.axes.tick_params(axis="y", labelsize=7)  # two rows in succession have a name
    return sheet


# %%
PROOFS.show(subsequence_network)
PROOFS.show(two_layers_write_subsequences)
PROOFS.show(non_decreasing)
PROOFS.show(leak_of_the_softmax)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
