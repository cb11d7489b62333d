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
# columns proves every sum; if one is wrong, some sum of at most three columns is wrong
# (`proofs_check/addition_length_generalization/tables.py` checks both directions). Random tests prove less and cost
# more.
#
# `unseen_sums.py` asks what wrong windows cost and what becomes of windows that are never shown,
# `whole_sums.py` what networks make of whole sums, and `carry_chains.py` how far carries travel.

# %%
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import xarray as xr

from lab import Evidence, Task, control, statistics
from lab.domains.addition.column_adder import add_in_columns, answer_table
from lab.domains.addition.column_addition import add, add_by_table
from lab.domains.addition.prompts import WINDOW_PROMPT, window_sequences
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.models.transformer import Transformer
from lab.results import Results
from lab.streams import stream
from lab.study import Networks
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
# is a quarter of the parameters and a shorter schedule. A training on windows ends at the first
# enumeration at which every window **that it is shown** is answered correctly, or when its updates are used up.


# %%
@dataclass(frozen=True)
class Config:
    """Sizes of the trainings on all windows."""

    trainings: int = 40  # 8 of them added later, since fresh seeds must give every verdict again
    """independent trainings, each with both attention patterns, and as many that see no sum of two digits"""
    machine: Machine = Machine()
    """the network"""
    half_trained: int = 8
    """trainings that end with a few windows still wrong"""
    loop_digits: int = 40
    """length of the sums that the network itself adds in the loop"""
    sampled: Sampled = Sampled()
    """sums that half-trained tables are tested on"""


TASK = Task(
    SLUG,
    paper=PAPER,
    presets={
        "smoke": Config(
            trainings=2, half_trained=2, machine=SMOKE_MACHINE, loop_digits=4, sampled=Sampled(digits=20, number=20)
        ),
        "ci": Config(),
        "paper": Config(machine=PAPER_MACHINE),
    },
    root=2026,
)
HALF_TRAINED = 60  # a half-trained table has at most so many wrong windows
MOST = "so many trainings, all alike, show more than half of all to be so"


# %% [markdown]
# ## Training
#
# The loss is the cross-entropy of the answer's tokens, given the prompt and the answer so far. The
# **prefix** arm lets the prompt and the start token attend to each other both ways, the **causal** arm lets
# every token see its past only. Both start from the same weights and see the same windows.


# %%
def walk(
    fitted: Networks[Transformer], arm: str, other: str, digits: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tables of the networks of an arm under both patterns, and in how many digits of 16 sums a seed, drawn for it, the network
    in the loop differs from each of them."""
    uncrossed, crossed, unequal = [], [], []
    for seed in fitted.seeds:
        first, second = torch.from_numpy(stream(seed, "walked").rng().integers(0, 10, (2, 16, digits))).unbind(0)
        module = fitted.of(seeds=[seed], arms=[arm]).module
        walked = add_in_columns(module, first, second, MASKS[arm])
        tables = [answer_table(module, MASKS[pattern]) for pattern in (arm, other)]
        uncrossed.append(tables[0])
        crossed.append(tables[1])
        unequal.append(torch.stack([(walked != add_by_table(table, first, second)).sum() for table in tables]))
    return torch.cat(uncrossed), torch.cat(crossed), torch.stack(unequal)


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=8, root=2030)
def train_windows(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Both patterns on all windows: the history of `train_machines`, and of the final weights

    ``crossed``: what they answer under the other pattern;
    ``unequal``: digits in which the network in the loop differs from its own table, and from the one under the other pattern.
    """
    fitted, history = train_machines(config.machine, seeds, ARMS, "all-sums")
    walked = [walk(fitted, arm, other, config.loop_digits) for arm, other in zip(ARMS, ARMS[::-1], strict=True)]
    crossed = torch.stack([of_arm[1] for of_arm in walked], dim=1).numpy().astype(np.int16)
    return history | {
        "crossed": labelled(crossed, seed=seeds, arm=ARMS, window=None),
        "unequal": labelled(torch.stack([of_arm[2] for of_arm in walked], dim=1), seed=seeds, arm=ARMS, table=TABLES),
    }


TABLES = ("own", "other pattern")


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=8, root=2030)
def train_without_carries(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Previous sums of one digit only, so that a carry never comes in."""
    _, history = train_machines(config.machine, seeds, ("prefix",), "one-digit-sums")
    return history


@TASK.measurement(seeds=lambda config: config.half_trained, ensemble=True, seeds_per_job=8)
def half_trained(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Networks that are trained on all windows until at most 60 are wrong: their ``answers``; ``unequal`` as above; the share of
    all sums of one and of two columns that the network itself adds correctly in the loop (``enumerated``); and the share of
    longer sums that the loop over its table adds correctly (``accuracy``)."""
    machine = replace(config.machine, evaluate_every=max(1, config.machine.evaluate_every // 2))
    fitted, _ = train_machines(machine, seeds, ("prefix",), "all-sums", HALF_TRAINED)
    table, _, unequal = walk(fitted, "prefix", "causal", config.loop_digits)
    enumerated = []
    for columns in (1, 2):
        digits = torch.cartesian_prod(*[torch.arange(10)] * (2 * columns)).view(-1, 2, columns)
        truth = add(digits[:, 0], digits[:, 1])
        written = add_in_columns(fitted.module, digits[:, 0], digits[:, 1], MASKS["prefix"])
        enumerated.append((written == truth).all(-1).double().mean(-1))
    return {
        "answers": labelled(table, seed=seeds, window=None),
        "unequal": labelled(unequal, seed=seeds, table=TABLES),
        "enumerated": labelled(torch.stack(enumerated, dim=1), seed=seeds, columns=(1, 2)),
        "accuracy": config.sampled.accuracy(dict(zip(seeds, table, strict=True))),
    }


# %% [markdown]
# ## All 2,100 windows
#
# The pass criterion is the whole table and nothing less. A few dozen wrong windows are a few per cent of
# the table and nearly invisible in short sums, but at a thousand digits hardly any sum survives them. There
# is no test set to hold back: the table *is* everything that can ever be asked.


# %%
def all_right(answers: xr.DataArray) -> Evidence:
    """More than half of all trainings end with all windows right; answers [seed, window]."""
    right = wrong_windows(answers) == 0
    return Evidence.proportion(right.sum().item(), right.size, ">=", 0.5, MOST)


@TASK.claim(
    "addition-length-generalization/T1",
    where="Section on results",
    kind="training",
    statement=r"Trained on random windows that show all previous sums, a tiny transformer (26,656 parameters and at most 800 updates "
    r"at `ci`) comes to answer all 2,100 windows correctly, hence adds integers of every length without error, more often than not: "
    r"under the prefix pattern and under the causal one.",
    controls=[
        control("no previous sum of two digits shown", carries=False),
        control("each network under the other attention pattern", crossed=True),
    ],
)
def every_window_right(results: Results, carries: bool = True, crossed: bool = False) -> Evidence:
    if not carries:
        return all_right(results[train_without_carries]["answers"].sel(arm="prefix").isel(update=-1))
    measured = results[train_windows]
    answers = measured["crossed"] if crossed else measured["answers"].isel(update=-1)
    return Evidence.all(*(all_right(answers.sel(arm=arm)) for arm in ARMS))


@TASK.claim(
    "addition-length-generalization/T1-loop",
    where="Section on the generation of arbitrary lengths",
    kind="identity",
    statement=r"The loop, in which the network's own tokens become the next prompt, writes digit for digit what the table of its "
    r"2,100 greedy answers predicts (16 sums of 40 digits for each network), for networks without and with wrong windows.",
    controls=[control("the table of the same weights under the other pattern", table="other pattern")],
)
def loop_is_table(results: Results, table: str = "own") -> Evidence:
    origin = "digits that differ, in the worst training"
    return Evidence.all(
        *(
            Evidence.exact(results[measured]["unequal"].sel(table=table).max().item(), "<=", 0, origin)
            for measured in (train_windows, half_trained)
        )
    )


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
@TASK.measurement(seeds=lambda config: 3)
def logits_of_random_weights(config: Config, seed: int) -> LabelledArrays:
    """The largest logit of random networks of one and two blocks at the tokens of the answers, and by how much both patterns
    differ there."""
    machine, differences, largest = config.machine, [], []
    for blocks in (1, 2):
        architecture = replace(machine, layers=blocks, initial_scale=None).architecture()
        module = Transformer(architecture, [seed], dtype=torch.float64)
        tokens = window_sequences()[:, :INPUT].unsqueeze(0)
        with torch.no_grad():
            prefix, plain = (module(tokens, MASKS[arm])[:, :, WINDOW_PROMPT:] for arm in ARMS)
        differences.append((prefix - plain).abs().max())
        largest.append(plain.abs().max())
    return {
        "difference": labelled(torch.stack(differences), blocks=(1, 2)),
        "largest": labelled(torch.stack(largest), blocks=(1, 2)),
    }


@TASK.claim(
    "addition-length-generalization/T1-one-block",
    where="derived",
    kind="identity",
    statement=r"With one block the prefix pattern changes nothing: at every token of the answer to every window the logits under "
    r"both patterns agree, for random weights.",
    controls=[control("two blocks", blocks=2)],
)
def one_block_cannot_tell(results: Results, blocks: int = 1) -> Evidence:
    logits = results[logits_of_random_weights].sel(blocks=blocks)
    # One normalisation, projection, attention, projection, normalisation, MLP of 4 D, normalisation, read-out.
    operations = 12 * results.config.machine.width + 2 * INPUT
    bound = statistics.rounding_bound(operations, logits["largest"].max().item())
    return Evidence.exact(
        logits["difference"].max().item(), "<=", bound, "rounding of the chain of sums behind one logit"
    )


@TASK.claim(
    "addition-length-generalization/T3-pattern",
    where="derived",
    kind="phenomenon",
    statement=r"Weights trained with the prefix pattern answer some of the 2,100 windows wrongly when the same prompt is read "
    r"causally, more often than not.",
    controls=[control("read with the pattern they were trained with", trained_pattern=True)],
)
def pattern_matters_to_weights(results: Results, trained_pattern: bool = False) -> Evidence:
    measured = results[train_windows]
    answers = (measured["answers"].isel(update=-1) if trained_pattern else measured["crossed"]).sel(arm="prefix")
    some = wrong_windows(answers) > 0
    return Evidence.proportion(some.sum().item(), some.size, ">=", 0.5, MOST)


# %%
TASK.show(one_block_cannot_tell)
TASK.show(pattern_matters_to_weights)

# %%
TASK.show()
