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
# # How far carries travel
#
# Why does the usual way of writing numbers, most significant digit first, make addition hard? Because a
# digit depends on carries from below. A chain of $L$ columns that pass a carry on must be foreseen by
# whoever writes the digit above it, and the longest chain among $n$ columns grows like $\log_{10} n$: a
# view of $w$ columns gets exactly the sums with $L_n \le w$ right. The curve of $E[L_n]$ is not quite a
# straight line in $\log n$: it keeps a wave of height 0.018 for ever, because $L_n$ is a whole number. The whole law is
# nearly $e^{-x}$ with $x = n g 10^{-m}$, and its error is known as well: $m x (1 - x) e^{-x} / n$ and a smaller term. The
# claims about these laws are in `proofs_check/`; here they are drawn, beside sampled sums.

# %%
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from lab import Task
from lab.domains.addition.column_addition import (
    expected_longest_chain,
    longest_chain,
    longest_chain_asymptote,
    longest_chain_law,
)
from lab.domains.addition.imperfect_tables import longest_chain_poisson, poisson_error_constant
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.results import Results
from lab.streams import stream
from tasks.addition_length_generalization._shared import PAPER, SLUG


@dataclass(frozen=True)
class Config:
    """Size of the samples."""

    sums: int = 2_000
    """sampled sums of each length"""


TASK = Task(SLUG, paper=PAPER, presets={"smoke": Config(sums=100), "ci": Config(), "paper": Config()}, root=2026)
LENGTHS = (10, 100, 1_000)
LONGEST_CHAIN = 9


@TASK.measurement(seeds=lambda config: 8)
def sampled_chains(config: Config, seed: int) -> LabelledArrays:
    """Shares of sums by longest carry chain (the last place: that long or longer)."""
    shares = []
    for columns in LENGTHS:
        digits = torch.from_numpy(stream(seed, "chains", columns).rng().integers(0, 10, (2, config.sums, columns)))
        chain = longest_chain(digits[0], digits[1]).clamp(max=LONGEST_CHAIN)
        shares.append(torch.bincount(chain, minlength=LONGEST_CHAIN + 1).double() / config.sums)
    return {"share": labelled(torch.stack(shares), columns=LENGTHS, chain=range(LONGEST_CHAIN + 1))}


@TASK.figure
def longest_carry_chain(results: Results) -> Sheet:
    """Law of the longest carry chain, exact and sampled; its mean against the asymptote; and how far the Poisson law is off."""
    sampled = results[sampled_chains]["share"]
    chain = sampled["chain"].values
    law = np.diff(longest_chain_law(LENGTHS, LONGEST_CHAIN).numpy(), axis=1, prepend=0)
    sheet = Sheet(columns=3, width=5.2)
    panel = sheet.panel("Carries travel about log10 n columns", x="longest chain L [columns]", y="share of sums")
    for look, (columns, exact) in enumerate(zip(LENGTHS, law, strict=True)):
        panel.line(chain, exact, name=f"n = {columns:,}: exact", look=look, marks=False, of="exact law")
        panel.points(sampled.sel(columns=columns), over="chain", name=f"n = {columns:,}: sampled", look=look)
    lengths = np.unique(np.geomspace(10, 10**6, 61).astype(int)).tolist()
    exact = expected_longest_chain(lengths).numpy()
    straight = longest_chain_asymptote(lengths).numpy()
    wave = longest_chain_asymptote(lengths, harmonics=3).numpy()
    panel = sheet.panel(
        "The mean keeps a wave around its asymptote",
        x="columns n",
        y=r"$E[L_n] - (\log_{10}(0.45 n) + 1/2 + \gamma/\ln 10)$",
        scale=("log", "linear"),
    )
    panel.line(lengths, exact - straight, name="exact", of="exact law")
    panel.theory(lengths, wave - straight, name="periodic term")
    dense = np.unique(np.geomspace(100, 10**5, 181).astype(int)).tolist()
    cumulative = longest_chain_law(dense, LONGEST_CHAIN + 2)
    panel = sheet.panel(
        "The Poisson law is off by (ln n)/n, and how much is known",
        x="columns n",
        y=r"largest error over m, times $n / \ln n$",
        scale=("log", "linear"),
        ylim=(0, 0.19),
    )
    for corrected, name in ((False, "$e^{-x}$"), (True, "with its second term")):
        error = (cumulative - longest_chain_poisson(dense, LONGEST_CHAIN + 2, corrected=corrected)).abs().amax(-1)
        panel.line(
            dense, error.numpy() * dense / np.log(dense), name=name, marks=False, of="exact law less the formula"
        )
    panel.level(poisson_error_constant(), r"$\varphi^3 e^{-\varphi^2} / \ln 10$")
    return sheet


@TASK.figure
def lookahead(results: Results) -> Sheet:
    """Share of sums that a view of w lower columns gets right, by number of digits."""
    columns = np.unique(np.geomspace(1, 10**4, 33).astype(int)).tolist()
    law = longest_chain_law(columns, 5).numpy()
    sheet = Sheet(width=6.8, height=3.6)
    panel = sheet.panel(
        "Left to right, a view of log10 n columns is needed",
        x="digits n of an operand",
        y="share of sums right",
        scale=("log", "linear"),
    )
    for view in range(law.shape[1]):
        panel.line(columns, law[:, view], name=f"w = {view}", of="exact law")
    panel.level(1.0, "right to left, carry written")
    return sheet


# %%
TASK.show(longest_carry_chain)
TASK.show(lookahead)
