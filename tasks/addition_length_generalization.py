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

# %%
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy.stats import binom
from torch import Tensor

from lab import Evidence, Task, control, statistics
from lab.decoding import decode
from lab.domains.addition.column_adder import add_in_columns, answer_table
from lab.domains.addition.column_addition import (
    FIRST_WINDOWS,
    SUMS,
    WINDOWS,
    accuracy_law,
    add_by_table,
    carryless_table,
    exact_table,
    expected_longest_chain,
    longest_chain,
    longest_chain_asymptote,
    longest_chain_law,
    right_by_columns,
    window_parts,
)
from lab.domains.addition.prompts import (
    NO_TARGET,
    STOP,
    WINDOW_LENGTH,
    WINDOW_PROMPT,
    WINDOW_VOCABULARY,
    column_window,
    vocabulary_size,
    whole_sum,
    window_sequences,
)
from lab.figures import ARMS, REFERENCES, THEORY, Drawing, label, panels
from lab.models.masks import causal, prefix_lm
from lab.models.transformer import Architecture, Transformer
from lab.results import Results
from lab.streams import Stream, stream
from lab.training import History, Member, Optimisation, Trained, train

# %% [markdown]
# ## Configuration
#
# `paper` has the published sizes (102,464 parameters, dropout 0.2, learning rate $5 \cdot 10^{-4}$, batches
# of 512); `ci` is a quarter of the parameters, no dropout and a shorter schedule. In all presets a training
# on windows ends at the first enumeration at which every window **that it is shown** is answered correctly:
# nothing is left to learn from then on, and windows that are held back have no say in when it ends.


# %%
@dataclass(frozen=True)
class Config:
    """Sizes of all trainings."""

    trainings: int = 5
    """independent trainings on windows, each with both attention patterns"""
    unseen_trainings: int = 6
    """independent trainings that never see the sum 19, and as many that see no sum of two digits"""
    width: int = 32
    """size of the residual stream of the column machine"""
    layers: int = 2
    """blocks"""
    heads: int = 2
    """attention heads of the column machine"""
    initial_scale: float | None = 0.1
    """standard deviation of initial matrices and tables; None for 1 / sqrt(rows)"""
    dropout: float = 0.0
    """share dropped in trainings that never see the sum 19"""
    batch: int = 128
    """windows a step"""
    steps: int = 600
    """most updates of a column machine"""
    learning_rate: float = 5e-3
    """peak of AdamW's learning rate"""
    schedule: str = "cosine"
    """of the learning rate"""
    evaluate_every: int = 50
    """steps between enumerations of all windows"""
    digits: int = 1000
    """longest sums of the accuracy curves"""
    sums: int = 400
    """sums per accuracy curve"""
    loop_digits: int = 40
    """length of the sums that the network itself adds in the loop"""
    whole_trainings: int = 5
    """independent trainings on whole sums, in each format with both attention patterns"""
    whole_base: int = 3
    """base of the digits of whole sums"""
    whole_columns: int = 2
    """most digits of an operand in trainings on whole sums"""
    whole_beyond: int = 2
    """how many longer lengths are tested"""
    whole_width: int = 32
    """size of the residual stream of the whole-sum models"""
    whole_heads: int = 4
    """attention heads of the whole-sum models"""
    whole_mlp_ratio: float = 2.0
    """hidden size of their MLP over the width"""
    whole_batch: int = 32
    """sums a step"""
    whole_steps: int = 220
    """updates of a whole-sum model"""
    whole_learning_rate: float = 5e-3
    """peak of AdamW's learning rate for whole sums"""
    chain_sums: int = 2_000
    """sampled sums for the law of carry chains"""


TASK = Task(
    "addition-length-generalization",
    paper="patriota-2024-addition",
    presets={
        "smoke": Config(
            trainings=2,
            unseen_trainings=2,
            width=8,
            batch=16,
            steps=6,
            evaluate_every=3,
            digits=20,
            sums=20,
            loop_digits=4,
            whole_trainings=2,
            whole_width=8,
            whole_batch=8,
            whole_steps=6,
            whole_beyond=1,
            chain_sums=100,
        ),
        "ci": Config(),
        "paper": Config(
            trainings=20,
            unseen_trainings=20,
            width=64,
            initial_scale=None,
            dropout=0.2,
            batch=512,
            steps=40_000,
            learning_rate=5e-4,
            schedule="constant",
            evaluate_every=1_000,
            whole_base=10,
            whole_columns=3,
            whole_width=64,
            whole_mlp_ratio=4.0,
            whole_batch=64,
            whole_steps=1_500,
            whole_learning_rate=2e-3,
        ),
    },
)

INPUT = WINDOW_LENGTH - 1  # the last token of a window is never an input
PREFIX = WINDOW_PROMPT + 1  # the prompt and the token that starts the answer
MASKS = {"prefix": prefix_lm(INPUT, PREFIX), "causal": causal(INPUT)}
# How many previous sums, 0 included, each way of drawing windows shows.
SHOWN_SUMS = {"all-sums": SUMS, "sums-of-digits": SUMS - 1, "one-digit-sums": 10}
AFTER_NINETEEN = torch.arange(WINDOWS) >= FIRST_WINDOWS + 100 * (SUMS - 1)


def column_machines(config: Config, seeds: Sequence[int], dropout: float) -> Transformer:
    """An ensemble of column machines."""
    architecture = Architecture(
        width=config.width,
        layers=config.layers,
        heads=config.heads,
        vocabulary=WINDOW_VOCABULARY,
        output_size=WINDOW_VOCABULARY,
        positions="learned",
        maximum_length=WINDOW_LENGTH,
        initial_scale=config.initial_scale,
        dropout=dropout,
    )
    return Transformer(architecture, seeds)


# %% [markdown]
# ## Training
#
# The loss is the cross-entropy of the answer's tokens, given the prompt and the answer so far. The
# **prefix** arm lets the prompt and the start token attend to each other both ways, the **causal** arm lets
# every token see its past only. Both start from the same weights and see the same windows.


# %%
def train_column_machines(
    config: Config, seeds: Sequence[int], arms: Sequence[str], sampling: str, dropout: float = 0.0
) -> Trained[Transformer]:
    """Train one machine a seed and arm, asking for all its answers every so often."""

    def batch(seed: int, step: int) -> dict[str, Tensor]:
        windows = column_window(stream(seed, "column", step), config.batch, sampling=sampling)
        answer = windows.targets[:, WINDOW_PROMPT:INPUT]
        # One number a seed and step decides what is dropped.
        dropped = torch.tensor([seed * config.steps + step])
        return {"tokens": windows.tokens[:, :INPUT], "answer": answer, "dropped": dropped}

    def loss(module: Transformer, data: dict[str, Tensor], arms: tuple[str, ...]) -> Tensor:
        mask = torch.stack([MASKS[arm] for arm in arms]).to(data["tokens"].device)
        logits = module(data["tokens"], mask, dropout=data["dropped"][:, 0] if dropout else None)
        answer = data["answer"]
        surprise = F.cross_entropy(
            logits[:, :, WINDOW_PROMPT:].flatten(0, 2), answer.flatten(), ignore_index=NO_TARGET, reduction="none"
        )
        return surprise.view(len(arms), -1).sum(1) / (answer != NO_TARGET).flatten(1).sum(1)

    def evaluate(module: Transformer, members: tuple[Member, ...]) -> dict[str, Tensor]:
        answers = torch.zeros(len(members), WINDOWS, dtype=torch.int64)
        for arm in dict.fromkeys(member.arm for member in members):
            places = [place for place, member in enumerate(members) if member.arm == arm]
            answers[places] = answer_table(module.select(places), MASKS[arm])
        return {"answers": answers}

    shown = FIRST_WINDOWS + 100 * SHOWN_SUMS[sampling]

    def finished(history: History) -> bool:
        return bool((history["answers"][-1] == exact_table().numpy())[:shown].all())

    return train(
        lambda chosen: column_machines(config, chosen, dropout),
        [Member(seed, arm) for seed in seeds for arm in arms],
        batch,
        loss,
        Optimisation(
            config.steps, config.learning_rate, schedule=config.schedule, optimiser="adamw", weight_decay=0.01
        ),
        evaluate=evaluate,
        evaluate_every=config.evaluate_every,
        stop=finished,
        name=f"{sampling}-{dropout}",
    )


def told(
    config: Config, trained: Trained[Transformer], seeds: Sequence[int], arms: Sequence[str]
) -> dict[str, np.ndarray]:
    """Loss and answers at every record, [seed, arm, record, ...]; a machine that has stopped keeps its last ones."""
    steps = np.append(np.arange(config.evaluate_every, config.steps, config.evaluate_every), config.steps)
    # The record each machine shows at each step: the latest it took part in.
    record = np.minimum(np.arange(len(steps)), np.searchsorted(steps, trained.steps)[:, None])
    models, shape = np.arange(len(record))[:, None], (len(seeds), len(arms), len(steps))
    return {
        "step": np.tile(steps, (len(seeds), 1)),
        "answers": trained.history["answers"][record, models].astype(np.int16).reshape(*shape, WINDOWS),
        "loss": trained.history["loss"][record, models].reshape(shape),
        "updates": trained.steps.reshape(shape[:2]),
    }


def lengths(config: Config) -> np.ndarray:
    """The numbers of digits at which accuracy is drawn."""
    points = np.array([1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000])
    return np.append(points[points < config.digits], config.digits)


def sampled_accuracy(config: Config, seed: int, tables: Tensor) -> np.ndarray:
    """Share of right sums of each length, [*tables, length], walking the loop over freshly drawn sums."""
    digits = torch.from_numpy(stream(seed, "sampled").rng().integers(0, 10, (2, config.sums, config.digits)))
    right = right_by_columns(tables, digits[0], digits[1])
    return right[..., lengths(config) - 1].double().mean(-2).numpy()


UNDERTRAINED = 60  # the first record with at most so many wrong windows shows imperfect tables at work


def undertrained(answers: np.ndarray) -> np.ndarray:
    """The table at the first record with at most 60 wrong windows (the last, if there is none), [..., 2100]."""
    few = (answers != exact_table().numpy()).sum(-1) <= UNDERTRAINED
    few[..., -1] = True
    return np.take_along_axis(answers, few.argmax(-1)[..., None, None], axis=-2).squeeze(-2)


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=3)
def train_windows(config: Config, seeds: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Both patterns on all windows; what the final weights answer under the other pattern; the network in the loop."""
    arms = tuple(MASKS)
    trained = train_column_machines(config, seeds, arms, "all-sums")
    found = told(config, trained, seeds, arms)
    draw = stream(0, "walked").rng().integers(0, 10, (2, 16, config.loop_digits))
    first, second = torch.from_numpy(draw).unbind(0)
    crossed, unequal = [], []
    for arm, other in zip(arms, arms[::-1], strict=True):
        machines = trained.arm(arm)
        walked = add_in_columns(machines, first, second, MASKS[arm])
        tables = [answer_table(machines, MASKS[pattern]) for pattern in (arm, other)]
        different = [walked != add_by_table(table, first, second) for table in tables]
        crossed.append(tables[1].numpy().astype(np.int16))
        unequal.append(torch.stack(different, dim=1).sum((-2, -1)).numpy())
    early = torch.from_numpy(undertrained(found["answers"][:, 0]).astype(np.int64))
    return found | {
        "crossed": np.stack(crossed, axis=1),
        "unequal": np.stack(unequal, axis=1),
        "early": early.numpy(),
        "early_accuracy": np.stack(
            [sampled_accuracy(config, seed, table) for seed, table in zip(seeds, early, strict=True)]
        ),
    }


@TASK.measurement(seeds=lambda config: config.unseen_trainings, ensemble=True, seeds_per_job=3)
def train_unseen(config: Config, seeds: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Previous sums drawn as sums of two digits, so that 19 never comes up; accuracy of the final tables."""
    trained = train_column_machines(config, seeds, ("prefix",), "sums-of-digits", config.dropout)
    found = told(config, trained, seeds, ("prefix",))
    final = torch.from_numpy(found["answers"][:, 0, -1].astype(np.int64))
    accuracy = [sampled_accuracy(config, seed, table) for seed, table in zip(seeds, final, strict=True)]
    return found | {"accuracy": np.stack(accuracy)}


@TASK.measurement(seeds=lambda config: config.unseen_trainings, ensemble=True, seeds_per_job=3)
def train_without_carries(config: Config, seeds: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Previous sums of one digit only, so that a carry never comes in."""
    trained = train_column_machines(config, seeds, ("prefix",), "one-digit-sums")
    return told(config, trained, seeds, ("prefix",))


def wrong(answers: np.ndarray, windows: Tensor | None = None) -> np.ndarray:
    """How many of the windows (all, if none are named) are answered wrongly, over the last axis."""
    errors = answers != exact_table().numpy()
    return (errors if windows is None else errors[..., windows.numpy()]).sum(-1)


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
        control("at the first enumeration", record=0),
        control("each network under the other attention pattern", crossed=True),
    ],
)
def every_window_right(results: Results, record: int = -1, crossed: bool = False) -> Evidence:
    found = results[train_windows]
    answers = found["crossed"] if crossed else found["answers"][:, :, record]
    return Evidence.exact(wrong(answers).max(), "<=", 0, "wrong windows in the worst training")


@TASK.claim(
    "addition-length-generalization/T1-loop",
    where="Section on the generation of arbitrary lengths",
    kind="identity",
    statement=r"The loop, in which the network's own tokens become the next prompt, writes digit for digit what the table of its "
    r"2,100 greedy answers predicts.",
    controls=[control("the table of the same weights under the other pattern", crossed=True)],
)
def loop_is_table(results: Results, crossed: bool = False) -> Evidence:
    found = results[train_windows]
    different = found["unequal"][..., 1 if crossed else 0]
    return Evidence.exact(different.max(), "<=", 0, "digits that differ, in the worst training")


# %%
@TASK.figure
def learning_windows(results: Results) -> Drawing:
    """Loss and wrong windows: each training (thin) until none is wrong, and the median with last values kept (thick)."""
    found = results[train_windows]
    steps, errors = found["step"][0], wrong(found["answers"])
    figure, axes = panels(1, 2)
    rows = []
    for place, arm in enumerate(MASKS):
        shown = steps <= found["updates"][:, place, None]
        active = steps <= found["updates"].max()
        shared = {key: value for key, value in ARMS[arm].items() if key != "marker"}
        for axis, values in zip(axes[0], (found["loss"][:, place], errors[:, place]), strict=True):
            for one, kept in zip(values, shown, strict=True):
                axis.plot(steps[kept], one[kept], linewidth=0.7, alpha=0.6, **shared)
            middle = np.median(values, axis=0)[active]
            axis.plot(steps[active], middle, linewidth=2, label=f"{arm}, median", **ARMS[arm])
        rows.append(
            pd.DataFrame(
                {
                    "arm": arm,
                    "training": np.repeat(np.arange(len(errors)), len(steps)),
                    "step": np.tile(steps, len(errors)),
                    "loss_nats": found["loss"][:, place].ravel(),
                    "wrong_windows": errors[:, place].ravel(),
                }
            )[shown.ravel()]
        )
    axes[0, 0].set_yscale("log")
    axes[0, 1].set_yscale("symlog", linthresh=1)
    axes[0, 1].set_ylim(bottom=0)
    label(axes[0, 0], "Both patterns learn the windows alike", "step", "training loss [nats a token]")
    ends = " and ".join(f"{arm} {errors[:, place, -1].max()}" for place, arm in enumerate(MASKS))
    label(axes[0, 1], f"Wrong at the end, at worst: {ends}", "step", "wrong windows of 2,100")
    axes[0, 0].legend()
    return Drawing(figure, pd.concat(rows))


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
# whole sums below.
#
# For two blocks: the road and the weights, not the end. A prompt of five tokens is short enough for either
# pattern, but weights learnt under one of them are of little use under the other.


# %%
@TASK.claim(
    "addition-length-generalization/T1-one-block",
    where="derived",
    kind="identity",
    statement=r"With one block the prefix pattern changes nothing: at every token of the answer to every window the logits under "
    r"both patterns agree, for random weights.",
    controls=[control("two blocks", blocks=2)],
)
def one_block_cannot_tell(results: Results, blocks: int = 1) -> Evidence:
    width = results.config.width
    architecture = Architecture(
        width=width,
        layers=blocks,
        heads=results.config.heads,
        vocabulary=WINDOW_VOCABULARY,
        output_size=WINDOW_VOCABULARY,
        positions="learned",
        maximum_length=WINDOW_LENGTH,
    )
    module = Transformer(architecture, range(3), dtype=torch.float64)
    tokens = window_sequences()[:, :INPUT].unsqueeze(0)
    with torch.no_grad():
        prefix, plain = (module(tokens, MASKS[arm])[:, :, WINDOW_PROMPT:] for arm in ("prefix", "causal"))
    # One normalisation, projection, attention, projection, normalisation, MLP of 4 D, normalisation, read-out.
    operations = 12 * width + 2 * INPUT
    bound = statistics.rounding_bound(operations, float(plain.abs().max()))
    return Evidence.exact(
        float((prefix - plain).abs().max()), "<=", bound, "rounding of the chain of sums behind one logit"
    )


@TASK.claim(
    "addition-length-generalization/T3-pattern",
    where="derived",
    kind="phenomenon",
    statement=r"Weights trained with the prefix pattern answer some of the 2,100 windows wrongly when the same prompt is read "
    r"causally, in every training.",
    controls=[control("read with the pattern they were trained with", own=True)],
)
def pattern_matters_to_weights(results: Results, own: bool = False) -> Evidence:
    found = results[train_windows]
    answers = found["answers"][:, 0, -1] if own else found["crossed"][:, 0]
    return Evidence.exact(wrong(answers).min(), ">=", 1, "wrong windows in the best training")


TASK.show(one_block_cannot_tell)
TASK.show(pattern_matters_to_weights)

# %% [markdown]
# ## What wrong windows cost
#
# Let $v_n$ be the law of (true column sum, whether the machine wrote it) among the sums that are right so
# far. One column multiplies it by a $40 \times 40$ matrix that counts digit pairs, so the accuracy at $n$
# digits is known from the table, without drawing a single sum. Its largest eigenvalue is the share of sums
# that a further column spares: accuracy falls **exponentially** with length. If, for instance, only the
# hundred windows after a sum of 19 are wrong, each column costs about half a per cent ($P(s = 19) =
# 0.005$): hardly visible at ten digits, nothing left at a thousand.
#
# That case can be worked out by hand as well. Follow the carry alone, and forbid the sum 19 in every column
# but the last: a column without carry in goes on with probabilities $0.55$ and $0.45$ to no carry and
# carry, one with carry in with $0.45$ and $0.55 - 0.01$.


# %%
def nineteen_avoided(columns: int) -> np.ndarray:
    """P(no column but the last has the sum 19) in sums of n = 1 .. ``columns`` columns, from the carry alone."""
    carry, shares = np.array([1.0, 0.0]), []  # [no carry, carry] into the next column
    step = np.array([[0.55, 0.45], [0.45, 0.54]])
    for _ in range(columns):
        shares.append(carry.sum())  # the last column may have any sum
        carry = carry @ step
    return np.array(shares)


@TASK.claim(
    "addition-length-generalization/T2-law",
    where="derived",
    kind="identity",
    statement=r"If exactly the 100 windows after a sum of 19 are wrong, the 40-state law is that of a two-state chain of carries at "
    r"every length up to 1,000: accuracy at 10, 50, 200 and 1,000 digits is 0.9614, 0.7876, 0.3729 and 0.0069.",
    controls=[control("the windows after a sum of 18 instead", previous_sum=18)],
)
def cost_of_nineteen(results: Results, previous_sum: int = 19) -> Evidence:
    table = exact_table()
    table[window_parts()[0] == previous_sum] = -1
    law = accuracy_law(table, 1_000).numpy()
    printed = law[np.array([10, 50, 200, 1_000]) - 1] - (0.9614, 0.7876, 0.3729, 0.0069)
    rounding = statistics.rounding_bound(1_000 * (100 + 40))
    return Evidence.weakest(
        Evidence.exact(
            np.abs(law - nineteen_avoided(1_000)).max(), "<=", rounding, "rounding of 1,000 steps of the chain"
        ),
        Evidence.exact(np.abs(printed).max(), "<=", 5e-5, "half a unit of the fourth decimal"),
    )


@TASK.claim(
    "addition-length-generalization/I2-trained",
    where="derived",
    kind="identity",
    statement=r"How many of 400 sampled sums of 5, 10 and 20 digits half-trained networks add correctly is what the 40-state "
    r"law predicts from their wrong windows, network by network.",
    controls=[control("the law of sums ten times as long", factor=10)],
)
def law_of_trained(results: Results, factor: int = 1) -> Evidence:
    found, sums = results[train_windows], results.config.sums
    digits = np.array([5, 10, 20])
    right = np.rint(found["early_accuracy"][:, np.searchsorted(lengths(results.config), digits)] * sums)
    law = accuracy_law(torch.from_numpy(found["early"]), 20 * factor).numpy()[:, digits * factor - 1]
    law = np.minimum(law, 1.0)  # which rounding may exceed
    # Two-sided: how surprising so few or so many right sums would be under the law.
    tails = np.minimum(binom.cdf(right, sums, law), binom.sf(right - 1, sums, law))
    surprise = np.minimum(2 * tails, 1.0)
    budget = statistics.SHARE / surprise.size
    return Evidence.exact(surprise.min(), ">=", budget, f"false-alarm share over {surprise.size} binomial tests")


@TASK.figure
def accuracy_by_length(results: Results) -> Drawing:
    """Accuracy of column machines by number of digits: law of their tables (lines) and sampled sums (markers)."""
    found, unseen = results[train_windows], results[train_unseen]
    drawn = lengths(results.config)
    figure, axes = panels(width=6.2, height=3.8)
    axis, rows = axes[0, 0], []
    final, never = (measured["answers"][:, 0, -1].astype(np.int64) for measured in (found, unseen))
    groups = [
        (f"half-trained: at most {UNDERTRAINED} wrong", found["early"], found["early_accuracy"], "^", "-."),
        ("19 never shown, end", never, unseen["accuracy"], "s", "--"),
        ("all sums shown, end", final, None, "", "-"),
    ]
    for (name, tables, sampled, marker, line), color in zip(groups, REFERENCES, strict=False):
        law = accuracy_law(torch.from_numpy(tables), int(drawn[-1])).numpy()[:, drawn - 1]
        axis.plot(drawn, law.mean(0), color=color, linestyle=line, label=f"{name}: law")
        rows.append(pd.DataFrame({"curve": name, "digits": drawn, "law": law.mean(0), "sampled": np.nan}))
        if sampled is not None:
            low, high = statistics.mean_band(sampled - law)
            rows[-1]["sampled"] = sampled.mean(0)
            axis.errorbar(
                drawn,
                sampled.mean(0),
                yerr=(high - low) / 2,
                color=color,
                linestyle="none",
                marker=marker,
                capsize=2,
                label="sampled sums, 95 % around the law",
            )
    forgetful = accuracy_law(carryless_table(), int(drawn[-1]))[drawn - 1]
    axis.plot(drawn, forgetful, label="no carry: $0.55^{n-1}$", **THEORY)
    axis.set_xscale("log")
    label(axis, "A few wrong windows ruin long sums only", "digits n of an operand", "share of sums right")
    axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return Drawing(figure, pd.concat(rows))


TASK.show(accuracy_by_length)
TASK.show(cost_of_nineteen)
TASK.show(law_of_trained)

# %% [markdown]
# ## The sum that is never shown
#
# Suppose training draws the previous sum as the sum of two random digits, as the paper does. Then 19, which
# is $9 + 9$ and a carry, never occurs, and 100 of the 2,100 windows are never trained. Does the network
# answer them? It has seen `19` only as an *answer*. The natural rule, "two digits: carry", covers it, but
# nothing forces the network to have learnt it that way. Two settings frame the question: training that
# shows 19 as well, and training that shows no two-digit sum at all, in which there is no rule to carry
# over.
#
# A training ends at the first enumeration at which all windows **shown** are right. If it ended when all
# 2,100 are, it would wait for just the moment at which the windows after 19 happen to be right.


# %%
@TASK.claim(
    "addition-length-generalization/T2",
    where="derived",
    kind="phenomenon",
    statement=r"A network that never sees a previous sum of 19 in training (at `ci`: without dropout) gets at most half of the 100 "
    r"windows after 19 right.",
    expected="refuted",
    condition="if training shows no previous sum of two digits at all",
    controls=[control("only previous sums of one digit shown", carries=False)],
)
def nineteen_is_lost(results: Results, carries: bool = True) -> Evidence:
    answers = results[train_unseen if carries else train_without_carries]["answers"][:, 0, -1]
    share = 1 - wrong(answers, AFTER_NINETEEN) / 100
    return Evidence.over_seeds(share, "<=", 0.5, "wrong more often than right")


@TASK.claim(
    "addition-length-generalization/T3",
    where="Section on results",
    kind="training",
    statement=r"Trained with the published sampling, in which a previous sum of 19 never occurs (at `ci`: without dropout, "
    r"until all windows shown are right), a network ends with all 2,100 windows right in every training.",
    expected="refuted",
    condition="if the sum 19 is shown in training; the published dropout of 0.2 and its long schedule are not tried at `ci`",
    controls=[control("trained on all previous sums", shown=True)],
)
def published_sampling(results: Results, shown: bool = False) -> Evidence:
    answers = results[train_windows if shown else train_unseen]["answers"][:, 0, -1]
    return Evidence.exact(wrong(answers).max(), "<=", 0, "wrong windows in the worst training")


@TASK.figure
def wrong_by_previous_sum(results: Results) -> Drawing:
    """Wrong windows of 100 by previous sum, mean over trainings, at three enumerations and at the end."""
    figure, axes = panels(1, 3, width=3.5, height=4.4)
    parts = {
        "all sums shown": (train_windows, SUMS),
        "19 never shown": (train_unseen, SUMS - 1),
        "no carry shown": (train_without_carries, 10),
    }
    rows = []
    for axis, (name, (measurement, shown)) in zip(axes[0], parts.items(), strict=True):
        found = results[measurement]
        chosen = [*np.arange(len(found["step"][0]) - 1)[:5:2], -1]
        ticks = [*(str(found["step"][0, record]) for record in chosen[:-1]), "end"]
        missed = (found["answers"][:, 0] != exact_table().numpy())[:, chosen, FIRST_WINDOWS:]
        share = missed.reshape(len(missed), len(chosen), SUMS, 100).sum(-1).mean(0)
        axis.imshow(share.T, aspect="auto", origin="lower", cmap="Greys", vmin=0, vmax=130)
        for (column, previous), value in np.ndenumerate(share):
            dark = "white" if value > 75 else "black"
            axis.text(column, previous, f"{value:.3g}", ha="center", va="center", fontsize=7, color=dark)
        axis.axhline(9.5, **THEORY)
        if shown < SUMS:
            axis.axhline(shown - 0.5, color="#d1495b", linewidth=1.5)
        axis.set_xticks(range(len(chosen)), ticks)
        axis.set_yticks(range(SUMS))
        axis.grid(False)
        label(axis, f"{name}:\n{share[-1].sum():,.1f} of 2,000 wrong at the end", "step", "previous sum s")
        rows.append(
            pd.DataFrame(
                {
                    "panel": name,
                    "step": np.repeat(ticks, SUMS),
                    "previous_sum": np.tile(np.arange(SUMS), len(chosen)),
                    "wrong_of_100": share.ravel(),
                }
            )
        )
    return Drawing(figure, pd.concat(rows))


TASK.show(wrong_by_previous_sum)
TASK.show(nineteen_is_lost)
TASK.show(published_sampling)

# %% [markdown]
# Above the dotted line a carry comes in; above the red one no previous sum is ever shown. A network that
# has seen nine of the ten two-digit sums mostly treats the tenth like them, without being made to; one that
# has seen none has nothing to go by. So the published sampling may well end in a perfect network, but it
# takes the enumeration to know. (The paper's own released weights are not used here. For them, too, zero
# wrong windows of 2,100 would prove more than any number of random sums.)
#
# ## Whole sums, for comparison
#
# The same kind of network, given the whole string `12+21=…`, has to find the digits by itself. There are
# many ways to write the string (base 3 at `ci`; $h_i$ is a letter that names column $i$, and $k_i$ the
# carry into it):
#
# | format | a sum of two columns | what it is meant to help with |
# |---|---|---|
# | plain | $a_1 a_0 + b_1 b_0 = c_2 c_1 c_0$ | nothing: the first digit written needs all carries |
# | reversed | $a_0 a_1 + b_0 b_1 = c_0 c_1 c_2$ | each carry can be read off the digit just written |
# | zero-padded | as plain, all numbers equally wide | a column always stands in the same place |
# | index hints | $h_0 a_0 h_1 a_1 + h_0 b_0 h_1 b_1 = h_0 c_0 \dots$ | columns can be found by content |
# | scratchpad | $a_0 a_1 + b_0 b_1 = c_0 k_1 \mathtt{C} c_1 k_2$ | the carry is written out |
# | column windows | $s\,\mathtt{C}\,a\,b$ for each column | the loop does the addressing |
#
# As `proofs_check` shows, for the reversed format the algorithm is no harder than a column. What the
# whole-string formats leave to the network is *addressing*, and this is learnt for the places and letters
# that were shown. Zero-padding shows all places, but the high ones only ever with a 0 in them; index hints
# make columns findable, but by letters that a short sum does not contain.
#
# (At `ci` these networks are small and trained briefly, so that the longest trained length is not mastered
# in every format. The comparison is between that length and the next.)


# %%
WHOLE_FORMATS = ("plain", "reversed", "zero-padded", "index-hints", "scratchpad")
TESTED = 100  # sums a length


def whole_sums(config: Config, draw: Stream, batch: int, format: str, columns: int) -> tuple[Tensor, int]:
    """Sums of exactly so many columns, [batch, time], and how many tokens stand before the answer."""
    widest = config.whole_columns + config.whole_beyond
    sums = whole_sum(draw, batch, format=format, columns=(columns, columns), width=widest, base=config.whole_base)
    prompt = int(sums.prefix_length[0])
    return sums.tokens[:, : prompt + int(sums.loss_mask[0].sum())], prompt


def whole_mask(length: int, prompt: int, arm: str) -> Tensor:
    """Causal, or with a prompt that is read both ways."""
    return prefix_lm(length, prompt if arm == "prefix" else 0)


@TASK.measurement(seeds=lambda config: config.whole_trainings, ensemble=True, seeds_per_job=5)
def train_whole_sums(config: Config, seeds: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Whole-string accuracy of greedy decoding, [seed, format, arm, length]."""
    widest = config.whole_columns + config.whole_beyond
    vocabulary = vocabulary_size(widest)
    longest = 6 * widest + 5  # of index hints, the longest format
    architecture = Architecture(
        width=config.whole_width,
        layers=config.layers,
        heads=config.whole_heads,
        vocabulary=vocabulary,
        output_size=vocabulary,
        mlp_ratio=config.whole_mlp_ratio,
        positions="learned",
        maximum_length=longest,
        initial_scale=config.initial_scale,
    )

    def loss(module: Transformer, data: dict[str, Tensor], arms: tuple[str, ...]) -> Tensor:
        tokens, answer = data["tokens"], data["answer"]
        length, prompt = tokens.shape[-1], tokens.shape[-1] - answer.shape[-1] + 1
        pattern = torch.stack([whole_mask(length, prompt, arm) for arm in arms]).to(tokens.device)
        logits = module(tokens, pattern)[:, :, prompt - 1 :]
        surprise = F.cross_entropy(logits.flatten(0, 2), answer.flatten(), reduction="none")
        return surprise.view(len(arms), -1).mean(1)

    right = np.zeros((len(seeds), len(WHOLE_FORMATS), len(MASKS), widest))
    for place, format in enumerate(WHOLE_FORMATS):

        def batch(seed: int, step: int, format: str = format) -> dict[str, Tensor]:
            # All sums of a step have one length, the longest first.
            columns = config.whole_columns - step % config.whole_columns
            draw = stream(seed, "strings", step)
            tokens, prompt = whole_sums(config, draw, config.whole_batch, format, columns)
            return {"tokens": tokens[:, :-1], "answer": tokens[:, prompt:]}

        trained = train(
            lambda chosen: Transformer(architecture, chosen),
            [Member(seed, arm) for seed in seeds for arm in MASKS],
            batch,
            loss,
            Optimisation(
                config.whole_steps,
                config.whole_learning_rate,
                warmup=0.05,
                schedule="cosine",
                optimiser="adamw",
                weight_decay=0.01,
            ),
            evaluate_every=config.whole_steps,
            name=f"whole-{format}",
        )
        for columns in range(1, widest + 1):
            tokens, prompt = whole_sums(config, stream(0, "questions", columns), TESTED, format, columns)
            for side, arm in enumerate(MASKS):
                written = decode(
                    trained.arm(arm),
                    tokens[:, :prompt],
                    whole_mask(longest, prompt, arm),
                    tokens.shape[1] - prompt,
                    stop_token=STOP,
                ).tokens
                share = (written.cpu() == tokens[:, prompt:]).all(-1).double().mean(-1)
                right[:, place, side, columns - 1] = share.numpy()
    return {"accuracy": right}


@TASK.claim(
    "addition-length-generalization/O1",
    where="derived",
    kind="ordering",
    statement=r"Networks trained on whole sums stop at the trained length: on average over five formats and both patterns at most "
    r"5 % of the sums of any greater length are right, and no single network writes more of them right than guessing one digit in "
    r"base $B$ would, $1/B$.",
    controls=[control("the longest trained length in the place of the greater ones", beyond=False)],
)
def whole_sums_do_not_extend(results: Results, beyond: bool = True) -> Evidence:
    accuracy, config = results[train_whole_sums]["accuracy"], results.config
    learnt = accuracy[..., config.whole_columns - 1]
    right = accuracy[..., config.whole_columns :].max(-1) if beyond else learnt  # [seed, format, arm]
    return Evidence.weakest(
        Evidence.over_seeds(right.mean((1, 2)), "<=", 0.05, "next to no sum"),
        Evidence.exact(right.max(), "<=", 1 / config.whole_base, f"one guessed digit; worst of {right.size} networks"),
    )


# %%
@TASK.figure
def formats_by_length(results: Results) -> Drawing:
    """Share of sums right by length in six formats, both patterns: mean and 95 % interval over trainings."""
    config = results.config
    accuracy = results[train_whole_sums]["accuracy"]
    digits = np.arange(1, accuracy.shape[-1] + 1)
    tables = torch.from_numpy(results[train_windows]["answers"][:, :, -1].astype(np.int64))
    columns = accuracy_law(tables, len(digits)).numpy()
    figure, axes = panels(2, 3, width=3.4, height=2.7)
    rows = []
    curves = [*np.moveaxis(accuracy, 1, 0), columns]
    for axis, name, values in zip(axes.ravel(), (*WHOLE_FORMATS, "column windows"), curves, strict=True):
        for side, arm in enumerate(MASKS):
            mean = values[:, side].mean(0)
            low, high = statistics.mean_band(values[:, side])
            low, high = np.maximum(low, 0), np.minimum(high, 1)  # it is a share
            place = digits + 0.12 * (side - 0.5)
            axis.errorbar(place, mean, yerr=np.maximum((mean - low, high - mean), 0), capsize=2, label=arm, **ARMS[arm])
            part = {"format": name, "arm": arm, "digits": digits, "right": mean, "low": low, "high": high}
            rows.append(pd.DataFrame(part))
        axis.set_ylim(-0.05, 1.05)
        axis.set_xticks(digits)
        last = values[..., config.whole_columns :].mean()
        trained = config.whole_columns
        if name == "column windows":
            trained = 1
            last = values.mean()
        axis.axvline(trained + 0.5, **THEORY)
        label(axis, f"{name}: {last:.2g} beyond", "digits n of an operand", "share of sums right")
    axes[1, 2].legend(loc="lower left")
    return Drawing(figure, pd.concat(rows))


@TASK.figure
def what_the_prefix_changes(results: Results) -> Drawing:
    """Prefix minus causal, paired by training: accuracy of whole sums by format, and updates until the table is right."""
    config = results.config
    accuracy = results[train_whole_sums]["accuracy"]
    gain = accuracy[:, :, 0] - accuracy[:, :, 1]  # [seed, format, length]
    figure, axes = panels(1, 2, width=5.2, height=3.6)
    rows = []
    for name, values, marker, shift in (
        ("longest trained length", gain[..., config.whole_columns - 1], "o", -0.12),
        ("one digit more", gain[..., config.whole_columns], "s", 0.12),
    ):
        low, high = statistics.mean_band(values)
        mean, place = values.mean(0), np.arange(len(WHOLE_FORMATS)) + shift
        filled = "full" if marker == "o" else "none"
        axes[0, 0].errorbar(
            mean,
            place,
            xerr=(mean - low, high - mean),
            marker=marker,
            fillstyle=filled,
            linestyle="none",
            color=REFERENCES[0],
            capsize=3,
            label=name,
        )
        part = {"panel": name, "name": WHOLE_FORMATS, "prefix_minus_causal": mean, "low": low, "high": high}
        rows.append(pd.DataFrame(part))
    axes[0, 0].axvline(0, **THEORY)
    axes[0, 0].set_yticks(range(len(WHOLE_FORMATS)), WHOLE_FORMATS)
    axes[0, 0].invert_yaxis()
    label(axes[0, 0], "Beyond training the prefix changes nothing", "prefix − causal, share of sums right", "")
    axes[0, 0].legend(loc="best")
    updates = results[train_windows]["updates"]
    for training, pair in enumerate(updates):
        shift = 0.04 * (training - (len(updates) - 1) / 2)  # equal trainings stay visible
        axes[0, 1].plot([shift, 1 + shift], pair, color=REFERENCES[1], linewidth=1)
        for side, arm in enumerate(MASKS):
            axes[0, 1].plot(side + shift, pair[side], **{**ARMS[arm], "linestyle": "none"})
        part = {"panel": "updates", "name": f"training {training}", "prefix": pair[0], "causal": pair[1]}
        rows.append(pd.DataFrame([part | {"prefix_minus_causal": pair[0] - pair[1]}]))
    axes[0, 1].set_xticks([0, 1], list(MASKS))
    axes[0, 1].set_xlim(-0.4, 1.4)
    axes[0, 1].set_ylim(0, 1.1 * updates.max())
    label(axes[0, 1], "Column windows: the same end, a similar road", "pattern", "updates until all are right")
    return Drawing(figure, pd.concat(rows))


TASK.show(formats_by_length)
TASK.show(what_the_prefix_changes)
TASK.show(whole_sums_do_not_extend)

# %% [markdown]
# At the trained length the pattern can make a difference to how fast a format is learnt (left, filled
# marks), because with two blocks an operand's digit may already know its partner when the answer looks at
# it; the intervals over trainings say how sure the sign is. Beyond that length both patterns are where
# guessing is, and the difference is nothing: letting operands see each other does not teach anybody where
# the digits of a longer number are. For column windows there is nothing to find, and nothing to gain.
#
# ## How far carries travel
#
# Why does the usual way of writing numbers, most significant digit first, make addition hard? Because a
# digit depends on carries from below. A chain of $L$ columns that pass a carry on must be foreseen by
# whoever writes the digit above it, and the longest chain among $n$ columns grows like $\log_{10} n$: a
# view of $w$ columns gets exactly the sums with $L_n \le w$ right. The curve of $E[L_n]$ is not quite a
# straight line in $\log n$: it keeps a wave of height 0.018 for ever, because $L_n$ is a whole number.

# %%
CHAIN_LENGTHS = (10, 100, 1_000)
LONGEST_CHAIN = 9


@TASK.measurement(seeds=lambda config: 8)
def sampled_chains(config: Config, seed: int) -> dict[str, np.ndarray]:
    """Shares of sums by longest carry chain, [columns, chain]."""
    shares = []
    for columns in CHAIN_LENGTHS:
        digits = torch.from_numpy(
            stream(seed, "chains", columns).rng().integers(0, 10, (2, config.chain_sums, columns))
        )
        chain = longest_chain(digits[0], digits[1]).clamp(max=LONGEST_CHAIN)
        shares.append(torch.bincount(chain, minlength=LONGEST_CHAIN + 1).double() / config.chain_sums)
    return {"share": torch.stack(shares).numpy()}


@TASK.figure
def longest_carry_chain(results: Results) -> Drawing:
    """Law of the longest carry chain, exact and sampled, and its mean against the asymptote."""
    sampled = results[sampled_chains]["share"]
    law = np.diff(longest_chain_law(CHAIN_LENGTHS, LONGEST_CHAIN).numpy(), axis=1, prepend=0)
    figure, axes = panels(1, 2)
    chain, rows = np.arange(LONGEST_CHAIN + 1), []
    for place, (columns, marker, line) in enumerate(zip(CHAIN_LENGTHS, "os^", ("-", "--", "-."), strict=True)):
        axes[0, 0].plot(chain, law[place], color=REFERENCES[place], linestyle=line, label=f"n = {columns:,}: exact")
        mean = sampled[:, place].mean(0)
        axes[0, 0].plot(chain, mean, color=REFERENCES[place], linestyle="none", marker=marker, label="sampled")
        rows.append(pd.DataFrame({"panel": "law", "n": columns, "chain": chain, "exact": law[place], "sampled": mean}))
    label(axes[0, 0], "Carries travel about log10 n columns", "longest chain L [columns]", "share of sums")
    axes[0, 0].legend()
    columns = np.unique(np.geomspace(10, 10**6, 61).astype(int)).tolist()
    exact = expected_longest_chain(columns).numpy()
    straight = longest_chain_asymptote(columns).numpy()
    wave = longest_chain_asymptote(columns, harmonics=3).numpy()
    axes[0, 1].plot(columns, exact - straight, color=REFERENCES[0], marker="o", linestyle="none", label="exact")
    axes[0, 1].plot(columns, wave - straight, label="periodic term", **THEORY)
    axes[0, 1].set_xscale("log")
    label(
        axes[0, 1],
        "The mean keeps a wave around its asymptote",
        "columns n",
        r"$E[L_n] - (\log_{10}(0.45 n) + 1/2 + \gamma/\ln 10)$",
    )
    axes[0, 1].legend()
    rows.append(pd.DataFrame({"panel": "mean", "n": columns, "exact": exact, "asymptote": straight, "with_wave": wave}))
    return Drawing(figure, pd.concat(rows))


@TASK.figure
def lookahead(results: Results) -> Drawing:
    """Share of sums that a view of w lower columns gets right, by number of digits."""
    columns = np.unique(np.geomspace(1, 10**4, 33).astype(int)).tolist()
    law = longest_chain_law(columns, 5).numpy()
    figure, axes = panels(width=6.2, height=3.6)
    axis, rows = axes[0, 0], []
    for view, (line, marker) in enumerate(zip(("-", "--", "-.", ":", "-", "--"), "os^vDx", strict=True)):
        axis.plot(
            columns,
            law[:, view],
            linestyle=line,
            marker=marker,
            markevery=4,
            color=REFERENCES[view],
            label=f"w = {view}",
        )
        rows.append(pd.DataFrame({"view": view, "n": columns, "share": law[:, view]}))
    axis.axhline(1.0, label="right to left, carry written", **THEORY)
    axis.set_xscale("log")
    label(axis, "Left to right, a view of log10 n columns is needed", "digits n of an operand", "share of sums right")
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return Drawing(figure, pd.concat(rows))


TASK.show(longest_carry_chain)
TASK.show(lookahead)

# %%
TASK.show()
