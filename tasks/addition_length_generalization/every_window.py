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
# # Adding numbers of any length with a tiny transformer
#
# A network trained to write sums of three-digit numbers usually fails at four digits. What would it take to
# be right at every length? The answer studied here: do not teach the network addition, teach it **one
# column** of it. The first window shows two digits, every later one the written-out sum of the column
# before and two more digits:
#
# | window | prompt | answer |
# |---|---|---|
# | first column, $8 + 6$ | `86PPP` | `⏎14S` |
# | later column, $5 + 5$ after a sum of 14 | `14C55` | `⏎11S` |
# | later column, $0 + 5$ after a sum of 7 | `7C05P` | `⏎5SP` |
#
# (`P` pads, `S` stops, `C` separates, `⏎` starts the answer.) An outer loop walks the columns from right to
# left and puts the network's own answer into the next window. The carry is not hidden in activations: it is
# written in the prompt, as the fact that the previous sum has two digits. And no attention head must *find*
# the right digits: the loop hands them over.
#
# There are only $100 + 20 \cdot 100 = 2{,}100$ windows. So whether a trained network adds correctly **at
# every length** is settled by asking it 2,100 questions: if all greedy answers are right, induction on
# columns proves every sum; if one is wrong, some sum of at most three columns is wrong (the file of the
# same name in `proofs_check/` checks both directions). Random tests prove less and cost more.
#
# `unseen_sums.py` asks what wrong windows cost and what becomes of windows that are never shown,
# `whole_sums.py` what networks make of whole sums, and `carry_chains.py` how far carries travel.

# %%
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr

from lab import Evidence, Task, control, statistics
from lab.domains.addition.column_adder import add_in_columns, answer_table
from lab.domains.addition.column_addition import add_by_table
from lab.domains.addition.prompts import WINDOW_PROMPT, window_sequences
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.models.transformer import Transformer
from lab.results import Results
from lab.streams import stream
from tasks.addition_length_generalization._shared import (
    ARMS,
    INPUT,
    MASKS,
    PAPER,
    PAPER_MACHINE,
    SLUG,
    SMOKE_MACHINE,
    Machine,
    Sampled,
    train_machines,
    wrong_windows,
)

# %% [markdown]
# ## Configuration
#
# `paper` has the published sizes (102,464 parameters, learning rate $5 \cdot 10^{-4}$, batches of 512); `ci`
# is a quarter of the parameters and a shorter schedule. In all presets a training on windows ends at the first
# enumeration at which every window **that it is shown** is answered correctly: nothing is left to learn from
# then on, and windows that are held back have no say in when it ends.


# %%
@dataclass(frozen=True)
class Config:
    """Sizes of the trainings on all windows."""

    trainings: int = 5
    """independent trainings, each with both attention patterns"""
    machine: Machine = Machine()
    """the network"""
    loop_digits: int = 40
    """length of the sums that the network itself adds in the loop"""
    sampled: Sampled = Sampled()
    """sums that half-trained tables are tested on"""


TASK = Task(
    SLUG,
    paper=PAPER,
    presets={
        "smoke": Config(trainings=2, machine=SMOKE_MACHINE, loop_digits=4, sampled=Sampled(digits=20, number=20)),
        "ci": Config(),
        "paper": Config(trainings=20, machine=PAPER_MACHINE),
    },
)
HALF_TRAINED = 60  # the first enumeration with at most so many wrong windows shows imperfect tables at work


def half_trained(answers: xr.DataArray) -> xr.DataArray:
    """The table at the first enumeration with at most 60 wrong windows (the last, if there is none), [seed, window]."""
    few = wrong_windows(answers) <= HALF_TRAINED
    few[{"update": -1}] = True
    return answers.isel(update=few.argmax("update"), drop=True).drop_vars("update", errors="ignore")


# %% [markdown]
# ## Training
#
# The loss is the cross-entropy of the answer's tokens, given the prompt and the answer so far. The
# **prefix** arm lets the prompt and the start token attend to each other both ways, the **causal** arm lets
# every token see its past only. Both start from the same weights and see the same windows.


# %%
@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=3)
def train_windows(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Both patterns on all windows: the history of `train_machines`, and of the final weights

    ``crossed``: what they answer under the other pattern;
    ``unequal``: digits in which the network in the loop differs from its own table, and from the one under the other pattern;
    and of the prefix arm ``half_trained``, an imperfect table on the way, with its ``half_trained_accuracy``.
    """
    fitted, history = train_machines(config.machine, seeds, ARMS, "all-sums")
    digits = stream(0, "walked").rng().integers(0, 10, (2, 16, config.loop_digits))
    first, second = torch.from_numpy(digits).unbind(0)
    crossed, unequal = [], []
    for arm, other in zip(ARMS, ARMS[::-1], strict=True):
        machines = fitted.of(arms=[arm]).module
        walked = add_in_columns(machines, first, second, MASKS[arm])
        tables = [answer_table(machines, MASKS[pattern]) for pattern in (arm, other)]
        different = [walked != add_by_table(table, first, second) for table in tables]
        crossed.append(tables[1].numpy().astype(np.int16))
        unequal.append(torch.stack(different, dim=1).sum((-2, -1)).numpy())
    early = half_trained(history["answers"].sel(arm="prefix", drop=True)).astype(np.int64)
    tables_by_seed = {seed: torch.from_numpy(early.sel(seed=seed).values) for seed in seeds}
    return history | {
        "crossed": labelled(np.stack(crossed, axis=1), seed=seeds, arm=ARMS, window=None),
        "unequal": labelled(np.stack(unequal, axis=1), seed=seeds, arm=ARMS, table=("own", "other pattern")),
        "half_trained": early,
        "half_trained_accuracy": config.sampled.accuracy(tables_by_seed),
    }


# %% [markdown]
# ## All 2,100 windows
#
# The pass criterion is the whole table and nothing less. A few dozen wrong windows are a few per cent of
# the table and nearly invisible in short sums, but at a thousand digits hardly any sum survives them. There
# is no test set to hold back: the table *is* everything that can ever be asked.


# %%
@TASK.claim(
    "addition-length-generalization/T1",
    where="Section on results",
    kind="training",
    statement=r"Trained on random windows that show all previous sums, a tiny transformer (26,656 parameters at `ci`) comes to answer "
    r"all 2,100 windows correctly, hence adds integers of every length without error: under the prefix pattern and under the "
    r"causal one, in every training.",
    controls=[
        control("at the first enumeration", enumeration=0),
        control("each network under the other attention pattern", crossed=True),
    ],
)
def every_window_right(results: Results, enumeration: int = -1, crossed: bool = False) -> Evidence:
    measured = results[train_windows]
    answers = measured["crossed"] if crossed else measured["answers"].isel(update=enumeration)
    return Evidence.exact(wrong_windows(answers).max().item(), "<=", 0, "wrong windows in the worst training")


@TASK.claim(
    "addition-length-generalization/T1-loop",
    where="Section on the generation of arbitrary lengths",
    kind="identity",
    statement=r"The loop, in which the network's own tokens become the next prompt, writes digit for digit what the table of its "
    r"2,100 greedy answers predicts.",
    controls=[control("the table of the same weights under the other pattern", table="other pattern")],
)
def loop_is_table(results: Results, table: str = "own") -> Evidence:
    different = results[train_windows]["unequal"].sel(table=table)
    return Evidence.exact(different.max().item(), "<=", 0, "digits that differ, in the worst training")


# %%
@TASK.figure
def learning_windows(results: Results) -> Sheet:
    """Loss and wrong windows: each training (thin) until none is wrong, and the median with last values kept (thick); and
    after how many updates all windows were right, each training under both patterns."""
    measured = results[train_windows]
    updates, errors = measured["updates"], wrong_windows(measured["answers"])
    sheet = Sheet(columns=3, width=4.4)
    ends = " and ".join(f"{arm} {errors.sel(arm=arm).isel(update=-1).max().item()}" for arm in ARMS)
    views: list[tuple[str, str, str, xr.DataArray, dict[str, Any]]] = [
        ("Both patterns learn the windows alike", "training loss [nats a token]", "log", measured["loss"], {}),
        (f"Wrong at the end, at worst: {ends}", "wrong windows of 2,100", "symlog", errors, {"ylim": (0, None)}),
    ]
    for title, y, scale, values, limits in views:
        panel = sheet.panel(title, x="update", y=y, scale=("linear", scale), **limits)
        shown = values.where(values["update"] <= updates)
        active = values.sel(update=values["update"] <= updates.max())
        for arm in ARMS:
            panel.each(shown.sel(arm=arm), over="update", arm=arm, name=f"{arm}, each")
            panel.curve(
                active.sel(arm=arm), over="update", arm=arm, name=f"{arm}, median", middle="median", band="none"
            )
    panel = sheet.panel(
        "The same end, a similar road",
        x="pattern",
        y="updates until all are right",
        ylim=(0, 1.1 * updates.max().item()),
    )
    panel.each(updates, over="arm", name="one training")
    for arm in ARMS:
        panel.scatter(arm, updates.sel(arm=arm), arm=arm)
    return sheet


TASK.show(learning_windows)
TASK.show(every_window_right)
TASK.show(loop_is_table)

# %% [markdown]
# ## What the prefix pattern changes
#
# For one block: **nothing**, whatever the weights. Only the positions of the answer are read, the last of
# the prompt included. What these see is the same set of tokens under both patterns, and with a single block
# these tokens have not looked at anything themselves. The patterns differ in what *operand* tokens see, so
# it takes a second block to read the difference. This holds for the windows and for every way of writing
# whole sums (`whole_sums.py`).
#
# For two blocks: the road and the weights, not the end. A prompt of five tokens is short enough for either
# pattern, and there is nothing to find in it, so the patterns need about as many updates (above, on the right).
# But weights learnt under one of them are of little use under the other.


# %%
@TASK.cases(one={"blocks": 1}, two={"blocks": 2})
def logits_of_random_weights(config: Config, *, blocks: int) -> LabelledArrays:
    """The largest logit of three random networks at the tokens of the answers, and by how much both patterns differ there."""
    machine = config.machine
    architecture = Machine(width=machine.width, layers=blocks, heads=machine.heads, initial_scale=None).architecture()
    module = Transformer(architecture, range(3), dtype=torch.float64)
    tokens = window_sequences()[:, :INPUT].unsqueeze(0)
    with torch.no_grad():
        prefix, plain = (module(tokens, MASKS[arm])[:, :, WINDOW_PROMPT:] for arm in ARMS)
    difference, largest = (prefix - plain).abs().max(), plain.abs().max()
    return {"difference": labelled(difference), "largest": labelled(largest)}


@TASK.claim(
    "addition-length-generalization/T1-one-block",
    where="derived",
    kind="identity",
    statement=r"With one block the prefix pattern changes nothing: at every token of the answer to every window the logits under "
    r"both patterns agree, for random weights.",
    controls=[control("two blocks", case="two")],
)
def one_block_cannot_tell(results: Results, case: str = "one") -> Evidence:
    logits = results[logits_of_random_weights].sel(case=case)
    # One normalisation, projection, attention, projection, normalisation, MLP of 4 D, normalisation, read-out.
    operations = 12 * results.config.machine.width + 2 * INPUT
    bound = statistics.rounding_bound(operations, logits["largest"].item())
    return Evidence.exact(logits["difference"].item(), "<=", bound, "rounding of the chain of sums behind one logit")


@TASK.claim(
    "addition-length-generalization/T3-pattern",
    where="derived",
    kind="phenomenon",
    statement=r"Weights trained with the prefix pattern answer some of the 2,100 windows wrongly when the same prompt is read "
    r"causally, in every training.",
    controls=[control("read with the pattern they were trained with", own=True)],
)
def pattern_matters_to_weights(results: Results, own: bool = False) -> Evidence:
    measured = results[train_windows]
    answers = (measured["answers"].isel(update=-1) if own else measured["crossed"]).sel(arm="prefix")
    return Evidence.exact(wrong_windows(answers).min().item(), ">=", 1, "wrong windows in the best training")


# %%
TASK.show(one_block_cannot_tell)
TASK.show(pattern_matters_to_weights)

# %%
TASK.show()
