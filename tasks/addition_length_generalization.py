# %% [markdown]
# # Adding numbers of any length with a tiny transformer
#
# A network trained to write sums of three-digit numbers usually fails at four digits. What would it take to be right at
# every length? The answer studied here: do not teach the network addition, teach it **one column** of it. The
# first window shows two digits, every later one the written-out sum of the column before and two more digits:
#
# | window | prompt | answer |
# |---|---|---|
# | first column, $8 + 6$ | `86PPP` | `⏎14S` |
# | later column, $5 + 5$ after a sum of 14 | `14C55` | `⏎11S` |
# | later column, $0 + 5$ after a sum of 7 | `7C05P` | `⏎5SP` |
#
# (`P` pads, `S` stops, `C` separates, `⏎` starts the answer.) An outer loop walks the columns from right to left and puts
# the network's own answer into the next window. The carry is not hidden in activations: it is written in the prompt, as the
# fact that the previous sum has two digits. And no attention head must *find* the right digits: the loop hands them over.
#
# There are only $100 + 20 \cdot 100 = 2{,}100$ windows. So whether a trained network adds correctly **at every length** is
# settled by asking it 2,100 questions: if all greedy answers are right, induction on columns proves every sum; if one is
# wrong, some sum of at most three columns is wrong (the file of the same name in `proofs_check/` checks both directions). Random
# tests prove less and cost more.

# %%
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from lab import Evidence, Paper, Task, control, statistics
from lab.closed_form.addition import (
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
from lab.decoding import decode
from lab.figures import ARMS, REFERENCES, THEORY, Drawing, band, label, panels
from lab.generators.addition import (
    NO_TARGET,
    STOP,
    WINDOW_LENGTH,
    WINDOW_PROMPT,
    WINDOW_VOCABULARY,
    column_window,
    vocabulary_size,
    whole_sum,
)
from lab.models.column_adder import add_in_columns, answer_table
from lab.models.masks import causal, prefix_lm
from lab.models.transformer import Architecture, Transformer
from lab.runs import Results
from lab.streams import stream
from lab.training import History, Member, Optimisation, Trained, train

# %% [markdown]
# ## Configuration
#
# `paper` has the published sizes (102,464 parameters, dropout 0.2, learning rate $5 \cdot 10^{-4}$, batches of 512);
# `ci` is a quarter of the parameters and a shorter schedule, found to reach the same end. In all presets a training ends
# as soon as all 2,100 windows are right, because nothing is left to learn.


# %%
@dataclass(frozen=True)
class Config:
    """Sizes of all trainings."""

    trainings: int = 5
    """independent trainings on windows, each with both attention patterns"""
    unseen_trainings: int = 6
    """independent trainings that never see the sum 19, without dropout"""
    dropout_trainings: int = 3
    """how many of them are repeated with dropout"""
    width: int = 32
    """size of the residual stream of the column machine"""
    layers: int = 2
    """blocks"""
    heads: int = 2
    """attention heads of the column machine"""
    initial_scale: float | None = 0.1
    """standard deviation of initial matrices and tables; None for 1 / sqrt(rows)"""
    dropout: float = 0.1
    """share dropped in the arm with dropout"""
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
    loop_digits: int = 60
    """length of the sums that the network itself adds in the loop"""
    whole_trainings: int = 5
    """independent trainings on whole sums, each in two formats with both attention patterns"""
    whole_columns: int = 2
    """most digits of an operand in trainings on whole sums"""
    whole_beyond: int = 3
    """how many longer lengths are tested"""
    whole_width: int = 32
    """size of the residual stream of the whole-sum models"""
    whole_heads: int = 4
    """attention heads of the whole-sum models"""
    whole_batch: int = 64
    """sums a step"""
    whole_steps: int = 500
    """updates of a whole-sum model"""
    whole_learning_rate: float = 7e-3
    """peak of AdamW's learning rate for whole sums"""
    chain_sums: int = 2_000
    """sampled sums for the law of carry chains"""


TASK = Task(
    "addition-length-generalization",
    Paper(
        "Arbitrary-Length Generalization for Addition in a Tiny Transformer",
        "A. G. Patriota",
        2024,
        arxiv="2406.00075",
    ),
    presets={
        "smoke": Config(
            trainings=2,
            unseen_trainings=2,
            dropout_trainings=2,
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
            dropout_trainings=20,
            width=64,
            initial_scale=None,
            dropout=0.2,
            batch=512,
            steps=40_000,
            learning_rate=5e-4,
            schedule="constant",
            evaluate_every=1_000,
            whole_columns=3,
            whole_width=64,
            whole_steps=1_500,
            whole_learning_rate=2e-3,
        ),
    },
)

INPUT = WINDOW_LENGTH - 1  # the last token of a window is never an input
PREFIX = WINDOW_PROMPT + 1  # the prompt and the token that starts the answer
MASKS = {"prefix": prefix_lm(INPUT, PREFIX), "causal": causal(INPUT)}
UNSEEN = torch.arange(WINDOWS) >= FIRST_WINDOWS + 100 * (SUMS - 1)  # windows that follow a sum of 19


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
# The loss is the cross-entropy of the answer's tokens, given the prompt and the answer so far. The **prefix** arm lets the
# prompt and the start token attend to each other both ways, the **causal** arm lets every token see its past only. Both start
# from the same weights and see the same windows.


# %%
def train_column_machines(
    config: Config,
    seeds: Sequence[int],
    arms: Sequence[str],
    sampling: str,
    dropout: float = 0.0,
) -> Trained[Transformer]:
    """Train one machine a seed and arm, asking for all its answers every so often."""

    def batch(seed: int, step: int) -> dict[str, Tensor]:
        windows = column_window(stream(seed, "windows", step), config.batch, sampling=sampling)
        answer = windows.targets[:, WINDOW_PROMPT:INPUT]
        # One number a seed and step decides what is dropped.
        dropped = torch.tensor([seed * config.steps + step])
        return {"tokens": windows.tokens[:, :INPUT], "answer": answer, "dropped": dropped}

    def loss(module: Transformer, data: dict[str, Tensor], arms: tuple[str, ...]) -> Tensor:
        mask = torch.stack([MASKS[arm] for arm in arms]).to(data["tokens"].device)
        logits = module(data["tokens"], mask, dropout=data["dropped"][:, 0] if dropout else None)
        answer = data["answer"]
        surprise = F.cross_entropy(
            logits[:, :, WINDOW_PROMPT:].flatten(0, 2),
            answer.flatten(),
            ignore_index=NO_TARGET,
            reduction="none",
        )
        return surprise.view(len(arms), -1).sum(1) / (answer != NO_TARGET).flatten(1).sum(1)

    def evaluate(module: Transformer, members: tuple[Member, ...]) -> dict[str, Tensor]:
        answers = torch.cat([answer_table(module.select([place]), MASKS[member.arm])
                             for place, member in enumerate(members)])  # fmt: skip
        return {"answers": answers}

    def finished(history: History) -> bool:
        return bool((history["answers"][-1] == exact_table().numpy()).all())

    return train(
        lambda chosen: column_machines(config, chosen, dropout),
        [Member(seed, arm) for seed in seeds for arm in arms],
        batch,
        loss,
        Optimisation(
            config.steps,
            config.learning_rate,
            schedule=config.schedule,
            optimiser="adamw",
            weight_decay=0.01,
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
    digits = torch.from_numpy(stream(seed, "sums").rng().integers(0, 10, (2, config.sums, config.digits)))
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
    crossed, unequal = [], []
    draw = stream(0, "loop").rng().integers(0, 10, (2, 16, config.loop_digits))
    first, second = torch.from_numpy(draw).unbind(0)
    for place, member in enumerate(trained.members):
        one, other = trained.module.select([place]), [arm for arm in arms if arm != member.arm][0]
        crossed.append(answer_table(one, MASKS[other])[0].numpy())
        table = answer_table(one, MASKS[member.arm])[0]
        walked = add_in_columns(one, first, second, MASKS[member.arm])[0]
        tables = torch.stack([table, torch.from_numpy(crossed[-1])])
        unequal.append((walked != add_by_table(tables, first, second)).sum((-2, -1)).tolist())
    shape = (len(seeds), len(arms))
    early = torch.from_numpy(undertrained(found["answers"][:, 0]).astype(np.int64))
    return found | {
        "crossed": np.stack(crossed).reshape(*shape, WINDOWS).astype(np.int16),
        "unequal": np.array(unequal).reshape(*shape, 2),
        "early": early.numpy(),
        "early_accuracy": np.stack(
            [sampled_accuracy(config, seed, table) for seed, table in zip(seeds, early, strict=True)]
        ),
    }


@TASK.measurement(seeds=lambda config: config.unseen_trainings, ensemble=True, seeds_per_job=3)
def train_unseen(config: Config, seeds: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Previous sums drawn as sums of two digits, so that 19 never comes up; accuracy of the final tables."""
    trained = train_column_machines(config, seeds, ("prefix",), "sums-of-digits")
    found = told(config, trained, seeds, ("prefix",))
    final = torch.from_numpy(found["answers"][:, 0, -1].astype(np.int64))
    accuracy = [sampled_accuracy(config, seed, table) for seed, table in zip(seeds, final, strict=True)]
    return found | {"accuracy": np.stack(accuracy)}


@TASK.measurement(seeds=lambda config: config.dropout_trainings, ensemble=True, seeds_per_job=3)
def train_with_dropout(config: Config, seeds: tuple[int, ...]) -> dict[str, np.ndarray]:
    """The same windows and initial weights as in `train_unseen`, with dropout."""
    trained = train_column_machines(config, seeds, ("prefix",), "sums-of-digits", config.dropout)
    return told(config, trained, seeds, ("prefix",))


def wrong(answers: np.ndarray, windows: Tensor | None = None) -> np.ndarray:
    """How many of the windows (all, if none are named) are answered wrongly, over the last axis."""
    errors = answers != exact_table().numpy()
    return (errors if windows is None else errors[..., windows.numpy()]).sum(-1)


# %% [markdown]
# ## All 2,100 windows
#
# The pass criterion is the whole table and nothing less: 60 wrong windows are still a few per cent of the table and nearly
# invisible in short sums, but at a thousand digits hardly any sum survives them.


# %%
@TASK.claim(
    "addition-length-generalization/T1",
    where="Section on results",
    kind="training",
    statement=r"Trained on random windows, a tiny transformer (26,656 parameters at `ci`) answers all 2,100 windows correctly, hence adds "
    r"integers of every length without error; with the prefix pattern and with the causal one, in every training.",
    controls=[
        control("after the first 50 steps", record=0),
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
    statement=r"Decoding column by column with the network in the loop writes, digit for digit, what its table of 2,100 "
    r"greedy answers predicts.",
    controls=[control("the table of the same weights under the other pattern", crossed=True)],
)
def loop_is_table(results: Results, crossed: bool = False) -> Evidence:
    found = results[train_windows]
    different = found["unequal"][..., 1 if crossed else 0]
    return Evidence.exact(different.max(), "<=", 0, "digits that differ, in the worst training")


# %%
@TASK.figure
def learning_windows(results: Results) -> Drawing:
    """Training loss and wrong windows of both attention patterns (mean, 95 % interval over trainings)."""
    found = results[train_windows]
    steps, errors = found["step"][0], wrong(found["answers"])
    figure, axes = panels(1, 2)
    rows = []
    for place, arm in enumerate(MASKS):
        # Stopped networks keep their last values.
        for axis, values in ((axes[0, 0], found["loss"][:, place]), (axes[0, 1], errors[:, place])):
            low, high = statistics.mean_band(values.astype(float))
            axis.plot(steps, values.mean(0), label=arm, **ARMS[arm])
            band(axis, steps, np.maximum(low, 0), high, ARMS[arm]["color"])
        rows.append(
            pd.DataFrame(
                {
                    "arm": arm,
                    "training": np.repeat(np.arange(len(errors)), len(steps)),
                    "step": np.tile(steps, len(errors)),
                    "loss_nats": found["loss"][:, place].ravel(),
                    "wrong_windows": errors[:, place].ravel(),
                }
            )
        )
    axes[0, 0].set_yscale("log")
    axes[0, 1].set_yscale("symlog", linthresh=1)
    axes[0, 1].set_ylim(bottom=0)
    label(axes[0, 0], "Both patterns learn the windows", "step", "training loss [nats a token]")
    ends = " and ".join(f"{arm} {errors[:, place, -1].max()}" for place, arm in enumerate(MASKS))
    label(axes[0, 1], f"Wrong at the end, at worst: {ends}", "step", "wrong windows of 2,100")
    axes[0, 0].legend()
    return Drawing(figure, pd.concat(rows))


TASK.show(learning_windows)
TASK.show(every_window_right)

# %% [markdown]
# The two patterns differ in the road, not in the end: a window of five tokens is short enough for either. (With a
# single block they would not differ at all. Only the answer's positions are read, and what these see is the
# same in both patterns as long as the tokens they see have not themselves been mixed.) Weights learnt under one
# pattern are not usable under the other, though:


# %%
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


@TASK.figure
def window_tables(results: Results) -> Drawing:
    """Wrong answers by previous sum and digit pair: one training at several steps, then the mean of trainings without 19."""
    found, unseen = results[train_windows], results[train_unseen]
    records = np.unique(np.linspace(0, _last_change(found["answers"][0, 0]), 3).astype(int))
    tables = [(f"prefix, step {found['step'][0, r]}", found["answers"][0, 0, r][None]) for r in records]
    tables.append(("s = 19 never shown, end, mean", unseen["answers"][:, 0, -1]))
    figure, axes = panels(1, len(tables), width=3.6, height=3.6)
    rows = []
    for axis, (title, answers) in zip(axes[0], tables, strict=True):
        share = (answers != exact_table().numpy()).mean(0)[FIRST_WINDOWS:].reshape(SUMS, 100)
        axis.imshow(
            share, aspect="auto", origin="lower", cmap="Greys", vmin=0, vmax=1, extent=(0, 100, -0.5, 19.5)
        )
        axis.axhline(9.5, **THEORY)
        axis.grid(False)
        label(axis, f"{title}\n{share.sum():.1f} of 2,000 wrong", "digit pair 10 a + b", "previous sum s")
        previous, pair = np.divmod(np.arange(2_000), 100)
        rows.append(
            pd.DataFrame(
                {
                    "panel": title.split(",")[0] + title[-12:],
                    "s": previous,
                    "pair": pair,
                    "wrong": share.ravel(),
                }
            )
        )
    return Drawing(figure, pd.concat(rows))


def _last_change(answers: np.ndarray) -> int:
    """The record at which a training had its final answers for the first time."""
    return int((answers == answers[-1]).all(-1).argmax())


TASK.show(window_tables)
TASK.show(pattern_matters_to_weights)

# %% [markdown]
# ## What wrong windows cost
#
# Let $v_n$ be the law of (true column sum, whether the machine wrote it) among the sums that are right so far. One column
# multiplies it by a $40 \times 40$ matrix that counts digit pairs, so the accuracy at $n$ digits is known from the table,
# without drawing a single sum. Its largest eigenvalue is the share of sums that a further column spares: accuracy falls
# **exponentially** with length. If, for instance, only the hundred windows after a sum of 19 are wrong, each column costs
# about half a per cent ($P(s = 19) = 0.005$): hardly visible at ten digits, nothing left at a thousand.


# %%
@TASK.claim(
    "addition-length-generalization/T2-law",
    where="derived",
    kind="identity",
    statement=r"If exactly the 100 windows after a sum of 19 are wrong, accuracy at 10, 50, 200 and 1,000 digits is 0.9614, "
    r"0.7876, 0.3729 and 0.0069.",
    controls=[control("the windows after a sum of 18 instead", previous_sum=18)],
)
def cost_of_nineteen(results: Results, previous_sum: int = 19) -> Evidence:
    table = exact_table()
    table[window_parts()[0] == previous_sum] = -1
    law = accuracy_law(table, 1_000)[np.array([10, 50, 200, 1_000]) - 1].numpy()
    error = np.abs(law - (0.9614, 0.7876, 0.3729, 0.0069)).max()
    return Evidence.exact(error, "<=", 5e-5, "half a unit of the fourth decimal")


@TASK.claim(
    "addition-length-generalization/I2-trained",
    where="derived",
    kind="identity",
    statement=r"Sampled accuracy of half-trained networks at 5, 10 and 20 digits is what the 40-state law predicts "
    r"from their wrong windows.",
    controls=[control("the law of sums ten times as long", factor=10)],
)
def law_of_trained(results: Results, factor: int = 1) -> Evidence:
    found = results[train_windows]
    drawn = lengths(results.config)
    law = accuracy_law(torch.from_numpy(found["early"]), 20 * factor).numpy()
    parts = []
    for digits in (5, 10, 20):
        difference = found["early_accuracy"][:, list(drawn).index(digits)] - law[:, digits * factor - 1]
        parts.append(Evidence.agreement(difference, 0.0, f"excess over the law at {digits} digits", parts=3))
    return Evidence.weakest(*parts)


# %% [markdown]
# ## The sum that is never shown
#
# Suppose training draws the previous sum as the sum of two random digits, as the paper does. Then 19, which is $9 + 9$ and
# a carry, never occurs, and 100 of the 2,100 windows are never trained. Does the network answer them? It has seen `19` only
# as an *answer*. The natural rule, "two digits: carry", covers it, but nothing forces the network to have learnt it that way.
#
# A pilot study suggested that without dropout about half of these windows are wrong and that dropout repairs them. With several
# trainings a side the picture is another one: without dropout nearly all windows after 19 are right in nearly all trainings, and
# dropout only slows learning down.


# %%
@TASK.claim(
    "addition-length-generalization/T2",
    where="derived",
    kind="phenomenon",
    statement=r"Trained without dropout and without ever seeing a previous sum of 19, a network gets at most 51 % of the 100 "
    r"windows after 19 right.",
    expected="refuted",
    condition="at the beginning of training",
    controls=[control("after the first 50 steps", record=0)],
)
def nineteen_is_lost(results: Results, record: int = -1) -> Evidence:
    share = 1 - wrong(results[train_unseen]["answers"][:, 0, record], UNSEEN) / 100
    return Evidence.over_seeds(share, "<=", 0.51, "the larger of two pilot runs")


@TASK.claim(
    "addition-length-generalization/T2-dropout",
    where="derived",
    kind="phenomenon",
    statement=r"With dropout 0.1 every training that never sees a previous sum of 19 ends with all 100 windows after 19 right.",
    expected="refuted",
    condition="if the sum 19 is shown in training",
    controls=[control("trained on all previous sums", shown=True)],
)
def dropout_restores_nineteen(results: Results, shown: bool = False) -> Evidence:
    answers = results[train_windows if shown else train_with_dropout]["answers"][:, 0]
    worst = wrong(answers[:, -1], UNSEEN).max()
    return Evidence.exact(worst, "<=", 0, "wrong windows after 19 in the worst training")


@TASK.claim(
    "addition-length-generalization/T3",
    where="Section on results",
    kind="training",
    statement=r"Trained from scratch with previous sums that are sums of two digits, a network adds two 1,000-digit numbers "
    r"correctly more often than not (exact accuracy law of its table, mean over trainings).",
    controls=[control("at the first record", record=0)],
)
def thousand_digits(results: Results, record: int = -1) -> Evidence:
    answers = results[train_unseen]["answers"][:, 0, record].astype(np.int64)
    accuracy = accuracy_law(torch.from_numpy(answers), 1_000)[:, -1].numpy()
    return Evidence.over_seeds(accuracy, ">=", 0.5, "right more often than wrong")


# %% [markdown]
# The paper's own network was trained for up to 150 epochs of 2,000 steps; its released weights are not used here. What can be
# said about *them* is this: enumerate them, and zero wrong windows prove more than any number of random sums.
#
# ## Whole sums, for comparison
#
# The same architecture, given the whole string `12+34=…`, has to find the digits by itself. It learns the lengths it is
# shown, in the plain format and in the reversed one (in which, as `proofs_check` shows, the algorithm is no harder than a
# column: the carry can be read off the digit just written), and fails at the next length completely. What it lacks is
# addressing: the positions of longer sums were never trained.


# %%
WHOLE_FORMATS = ("plain", "reversed")
WHOLE_ARMS = tuple(f"{format} {pattern}" for format in WHOLE_FORMATS for pattern in MASKS)
TESTED = 100  # sums a length


@TASK.measurement(seeds=lambda config: config.whole_trainings, ensemble=True, seeds_per_job=3)
def train_whole_sums(config: Config, seeds: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Whole-string accuracy by length, [seed, arm, length], of greedy decoding."""
    widest = config.whole_columns + config.whole_beyond
    vocabulary, longest = vocabulary_size(widest), 3 * widest + 4
    architecture = Architecture(
        width=config.whole_width,
        layers=config.layers,
        heads=config.whole_heads,
        vocabulary=vocabulary,
        output_size=vocabulary,
        positions="learned",
        maximum_length=longest,
        initial_scale=config.initial_scale,
    )

    # Lengths take turns, each as often as it has digits: longer sums are more to learn.
    turns = [columns for columns in range(1, config.whole_columns + 1) for _ in range(columns)]

    def batch(seed: int, step: int) -> dict[str, Tensor]:
        columns = turns[step % len(turns)]  # all sums of a step have one length
        draw = stream(seed, "sums", step)
        both = [
            whole_sum(draw, config.whole_batch, format=format, columns=(columns, columns))
            for format in WHOLE_FORMATS
        ]
        return {
            "tokens": torch.stack([sums.tokens[:, :-1] for sums in both], dim=1),
            "answer": torch.stack([sums.targets[:, 2 * columns + 1 : -1] for sums in both], dim=1),
        }

    def loss(module: Transformer, data: dict[str, Tensor], arms: tuple[str, ...]) -> Tensor:
        formats = torch.tensor([WHOLE_FORMATS.index(arm.split()[0]) for arm in arms])
        models = torch.arange(len(arms))
        tokens, answer = data["tokens"][models, :, formats], data["answer"][models, :, formats]
        length, prompt = tokens.shape[-1], tokens.shape[-1] - answer.shape[-1] + 1
        masks = [prefix_lm(length, prompt if arm.endswith("prefix") else 0) for arm in arms]
        logits = module(tokens, torch.stack(masks).to(tokens.device))[:, :, prompt - 1 :]
        surprise = F.cross_entropy(logits.flatten(0, 2), answer.flatten(), reduction="none")
        return surprise.view(len(arms), -1).mean(1)

    trained = train(
        lambda chosen: Transformer(architecture, chosen),
        [Member(seed, arm) for seed in seeds for arm in WHOLE_ARMS],
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
    )
    right = np.zeros((len(seeds), len(WHOLE_ARMS), widest))
    for place, arm in enumerate(WHOLE_ARMS):
        format, pattern = arm.split()
        module = trained.arm(arm)
        for columns in range(1, widest + 1):
            tested = stream(0, "test", columns)
            sums = whole_sum(tested, TESTED, format=format, columns=(columns, columns))
            prompt = int(sums.prefix_length[0])
            written = decode(
                module,
                sums.tokens[:, :prompt],
                prefix_lm(longest, prompt if pattern == "prefix" else 0).to(module.embedding.device),  # type: ignore[union-attr]
                sums.tokens.shape[1] - prompt,
                stop_token=STOP,
            ).tokens.cpu()
            right[:, place, columns - 1] = (written == sums.tokens[:, prompt:]).all(-1).double().mean(-1)
    return {"accuracy": right}


@TASK.claim(
    "addition-length-generalization/O1",
    where="derived",
    kind="ordering",
    statement=r"Trained on whole sums, plain or reversed, causal or prefix, a network writes most sums of the longest trained "
    r"length correctly and at most 5 % of those of any greater length.",
    controls=[control("a trained length in the place of the greater ones", beyond=False)],
)
def whole_sums_do_not_extend(results: Results, beyond: bool = True) -> Evidence:
    accuracy = results[train_whole_sums]["accuracy"]
    trained = results.config.whole_columns
    longer = accuracy[..., trained:].max(-1) if beyond else accuracy[..., trained - 1]
    parts = 2 * len(WHOLE_ARMS)
    return Evidence.weakest(
        *(
            Evidence.over_seeds(accuracy[:, place, trained - 1], ">=", 0.5, "most sums", parts=parts)
            for place in range(len(WHOLE_ARMS))
        ),
        *(
            Evidence.over_seeds(longer[:, place], "<=", 0.05, "next to no sum", parts=parts)
            for place in range(len(WHOLE_ARMS))
        ),
    )


@TASK.figure
def accuracy_by_length(results: Results) -> Drawing:
    """Left: accuracy of column machines by number of digits, sampled and by law. Right: whole-sum models."""
    found, unseen, whole = results[train_windows], results[train_unseen], results[train_whole_sums]
    drawn = lengths(results.config)
    figure, axes = panels(1, 2)
    rows = []
    final = found["answers"][:, 0, -1].astype(np.int64)
    groups = [
        ("half-trained (at most 60 wrong)", found["early"], found["early_accuracy"], "^", "-."),
        (
            "s = 19 never shown, end",
            unseen["answers"][:, 0, -1].astype(np.int64),
            unseen["accuracy"],
            "s",
            "--",
        ),
        ("all sums shown, end", final, None, "o", "-"),
    ]
    for (name, tables, sampled, marker, line), color in zip(groups, REFERENCES, strict=False):
        law = accuracy_law(torch.from_numpy(tables), int(drawn[-1])).numpy()[:, drawn - 1]
        axes[0, 0].plot(drawn, law.mean(0), color=color, linestyle=line, label=f"{name}: law")
        if sampled is not None:
            axes[0, 0].plot(
                drawn, sampled.mean(0), color=color, linestyle="none", marker=marker, label="sampled sums"
            )
        rows.append(
            pd.DataFrame(
                {
                    "panel": "columns",
                    "curve": name,
                    "digits": drawn,
                    "law": law.mean(0),
                    "sampled": np.nan if sampled is None else sampled.mean(0),
                }
            )
        )
    axes[0, 0].plot(
        drawn,
        accuracy_law(carryless_table(), int(drawn[-1]))[drawn - 1],
        label="no carry: $0.55^{n-1}$",
        **THEORY,
    )
    axes[0, 0].set_xscale("log")
    label(
        axes[0, 0], "A few wrong windows ruin long sums only", "digits n of an operand", "share of sums right"
    )
    axes[0, 0].legend(fontsize=7)
    digits = np.arange(1, whole["accuracy"].shape[-1] + 1)
    for place, arm in enumerate(WHOLE_ARMS):
        format, pattern = arm.split()
        shown = {**ARMS[pattern], "fillstyle": "full" if format == "plain" else "none"}
        offset = 0.04 * (place - 1.5)
        values = whole["accuracy"][:, place]
        axes[0, 1].plot(digits + offset, values.mean(0), label=arm, **shown)
        rows.append(
            pd.DataFrame({"panel": "whole sums", "curve": arm, "digits": digits, "sampled": values.mean(0)})
        )
    axes[0, 1].axvline(results.config.whole_columns + 0.5, **THEORY)
    axes[0, 1].set_xticks(digits)
    label(
        axes[0, 1],
        "Whole-sum models stop at the trained length",
        "digits n of an operand",
        "share of sums right",
    )
    axes[0, 1].legend()
    return Drawing(figure, pd.concat(rows))


TASK.show(accuracy_by_length)
TASK.show(whole_sums_do_not_extend)

# %% [markdown]
# ## How far carries travel
#
# Why does the usual way of writing numbers, most significant digit first, make addition hard? Because a digit depends on
# carries from below. A chain of $L$ columns that pass a carry on must be foreseen by whoever writes the digit above it, and
# the longest chain among $n$ columns grows like $\log_{10} n$: a view of $w$ columns gets exactly the sums with $L_n \le w$
# right. The curve of $E[L_n]$ is not quite a straight line in $\log n$: it keeps a wave of height 0.018 for ever, because
# $L_n$ is a whole number.

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
    for place, (columns, marker, line) in enumerate(
        zip(CHAIN_LENGTHS, "os^", ("-", "--", "-."), strict=True)
    ):
        axes[0, 0].plot(
            chain, law[place], color=REFERENCES[place], linestyle=line, label=f"n = {columns:,}: exact"
        )
        mean = sampled[:, place].mean(0)
        axes[0, 0].plot(
            chain, mean, color=REFERENCES[place], linestyle="none", marker=marker, label="sampled"
        )
        rows.append(
            pd.DataFrame({"panel": "law", "n": columns, "chain": chain, "exact": law[place], "sampled": mean})
        )
    label(axes[0, 0], "Carries travel about log10 n columns", "longest chain L [columns]", "share of sums")
    axes[0, 0].legend()
    columns = np.unique(np.geomspace(10, 10**6, 61).astype(int)).tolist()
    exact = expected_longest_chain(columns).numpy()
    straight = longest_chain_asymptote(columns).numpy()
    wave = longest_chain_asymptote(columns, harmonics=3).numpy()
    axes[0, 1].plot(
        columns, exact - straight, color=REFERENCES[0], marker="o", linestyle="none", label="exact"
    )
    axes[0, 1].plot(columns, wave - straight, label="periodic term", **THEORY)
    axes[0, 1].set_xscale("log")
    label(
        axes[0, 1],
        "The mean keeps a wave around its asymptote",
        "columns n",
        r"$E[L_n] - (\log_{10}(0.45 n) + 1/2 + \gamma/\ln 10)$",
    )
    axes[0, 1].legend()
    rows.append(
        pd.DataFrame(
            {"panel": "mean", "n": columns, "exact": exact, "asymptote": straight, "with_wave": wave}
        )
    )
    return Drawing(figure, pd.concat(rows))


@TASK.figure
def lookahead(results: Results) -> Drawing:
    """Share of sums that a view of w lower columns gets right, by number of digits."""
    columns = np.unique(np.geomspace(1, 10**4, 33).astype(int)).tolist()
    law = longest_chain_law(columns, 5).numpy()
    figure, axes = panels()
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
    label(
        axis,
        "Left to right, a view of log10 n columns is needed",
        "digits n of an operand",
        "share of sums right",
    )
    axis.legend()
    return Drawing(figure, pd.concat(rows))


TASK.show(longest_carry_chain)
TASK.show(lookahead)

# %%
TASK.show()
