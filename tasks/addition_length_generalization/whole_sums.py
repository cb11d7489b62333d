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
# # Whole sums, for comparison
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
# (`ci` has numbers of at most two digits in base 3, and small networks. Each of them is trained until it has learnt that: a
# network that has not says nothing about longer sums.)

# %%
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lab import Evidence, Task, control
from lab.decoding import decode
from lab.domains.addition.prompts import STOP, vocabulary_size, whole_sum
from lab.figures import Sheet
from lab.labels import LabelledArrays, at_end, labelled
from lab.models.masks import prefix_lm
from lab.models.transformer import Architecture, Transformer
from lab.results import Results
from lab.streams import RandomStream, stream
from lab.study import Networks, Study
from lab.training import Batch, History, Optimisation
from tasks.addition_length_generalization import every_window
from tasks.addition_length_generalization._shared import ARMS, PAPER, SLUG, laws_of


@dataclass(frozen=True)
class Config:
    """Sizes of the trainings on whole sums."""

    trainings: int = 40  # 8 of them added later, since fresh seeds must give every verdict again
    """independent trainings, each with both attention patterns; the five formats take turns"""
    base: int = 3
    """base of the digits"""
    columns: int = 2
    """most digits of an operand in training"""
    beyond: int = 2
    """how many longer lengths are tested"""
    width: int = 32
    """size of the residual stream"""
    layers: int = 2
    """blocks"""
    heads: int = 4
    """attention heads"""
    mlp_ratio: float = 2.0
    """hidden size of the MLP over the width"""
    initial_scale: float | None = 0.1
    """standard deviation of initial matrices and tables; None for 1 / sqrt(rows)"""
    batch: int = 16
    """sums a step"""
    steps: int = 2_000
    """most updates"""
    evaluate_every: int = 100
    """updates between tests"""
    learning_rate: float = 5e-3
    """peak of AdamW's learning rate"""
    windows: every_window.Config = every_window.Config()
    """trainings on column windows, for comparison"""

    @property
    def widest(self) -> int:
        """The greatest length that is tested."""
        return self.columns + self.beyond

    @property
    def longest(self) -> int:
        """Tokens of a sum of that length with index hints, the longest format."""
        return 6 * self.widest + 5

    @property
    def architecture(self) -> Architecture:
        vocabulary = vocabulary_size(self.widest)
        return Architecture(
            width=self.width,
            layers=self.layers,
            heads=self.heads,
            vocabulary=vocabulary,
            output_size=vocabulary,
            mlp_ratio=self.mlp_ratio,
            positions="learned",
            maximum_length=self.longest,
            initial_scale=self.initial_scale,
        )


TASK = Task(
    SLUG,
    paper=PAPER,
    presets={
        "smoke": Config(
            trainings=5,
            width=8,
            batch=8,
            steps=6,
            evaluate_every=3,
            beyond=1,
            windows=every_window.TASK.presets["smoke"],
        ),
        "ci": Config(),
        "paper": Config(
            base=10,
            columns=3,
            width=64,
            mlp_ratio=4.0,
            initial_scale=None,
            batch=64,
            steps=3_000,
            learning_rate=2e-3,
            windows=every_window.TASK.presets["paper"],
        ),
    },
    root=2030,  # sized so that fresh seeds give every verdict again; below 2026 there were fewer
)
FORMATS = ("plain", "reversed", "zero-padded", "index-hints", "scratchpad")
TESTED = 100  # sums a length, drawn for each training
LEARNT = 0.95  # share of right sums of every trained length at which a training ends


def whole_sums(config: Config, source: RandomStream, number: int, format: str, columns: int) -> tuple[Tensor, int]:
    """Sums of exactly so many columns, [number, time], and how many tokens stand before the answer."""
    sums = whole_sum(source, number, format=format, columns=(columns, columns), width=config.widest, base=config.base)
    prompt = int(sums.prefix_length[0])
    return sums.tokens[:, : prompt + int(sums.loss_mask[0].sum())], prompt


def prompt_length(batch: Batch) -> int:
    """How many tokens of a batch stand before the answer, whose last token is no input."""
    return batch["tokens"].shape[-1] - batch["answer"].shape[-1] + 1


def whole_mask(length: int, prompt: int, arm: str) -> Tensor:
    """Causal, or with a prompt that is read both ways."""
    return prefix_lm(length, prompt if arm == "prefix" else 0)


def mask_of(arm: str) -> Callable[[Batch], Tensor]:
    """The same for the sums of a batch."""
    return lambda batch: whole_mask(batch["tokens"].shape[-1], prompt_length(batch), arm)


def answer_loss(module: Transformer, batch: Batch, mask: Tensor) -> Tensor:
    """Cross-entropy of the tokens of the answers, a mean over tokens."""
    answer = batch["answer"]
    logits = module(batch["tokens"], mask)[:, :, prompt_length(batch) - 1 :]
    surprise = F.cross_entropy(logits.flatten(0, 2), answer.flatten(), reduction="none")
    return surprise.view(len(answer), -1).mean(1)


# %% [markdown]
# All sums of a step have one length; the lengths take turns. Every 100 updates 100 sums of each length are answered
# greedily, and an answer is right only as a whole. A training ends at the first test at which 95 % of the sums of every
# trained length are right; its longer sums are judged then.


# %%
def accuracy_of(config: Config, format: str, columns: int) -> Callable[[Networks[Transformer]], Tensor]:
    """The share of sums of a length that each network writes right; the sums are drawn for its seed."""

    def ask(networks: Networks[Transformer]) -> Tensor:
        shares = []
        for place, member in enumerate(networks.members):
            tokens, prompt = whole_sums(config, stream(member.seed, "questions", columns), TESTED, format, columns)
            written = decode(
                networks.module.select([place]),
                tokens[:, :prompt],
                whole_mask(config.longest, prompt, member.arm),
                tokens.shape[1] - prompt,
                stop_token=STOP,
            ).tokens
            shares.append((written.cpu() == tokens[:, prompt:]).all(-1).double().mean())
        return torch.stack(shares)

    return ask


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=16)
def train_whole_sums(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Share of sums of each length that are written right at the end, by pattern; the ``format`` of a seed is its number in
    `FORMATS`; and how many ``updates`` it took."""
    study = Study(
        partial(Transformer, config.architecture),
        arms={arm: mask_of(arm) for arm in ARMS},
        encode=None,
        loss=answer_loss,
    )
    optimisation = Optimisation(
        config.steps, config.learning_rate, warmup=0.05, schedule="cosine", optimiser="adamw", weight_decay=0.01
    )
    trained = range(1, config.columns + 1)
    accuracy = np.zeros((len(seeds), len(ARMS), config.widest))
    updates = np.zeros((len(seeds), len(ARMS)), dtype=int)

    def finished(history: History) -> bool:
        return all(float(history[f"right {columns}"][-1]) >= LEARNT for columns in trained)

    for number, format in enumerate(FORMATS):
        format_seeds = [seed for seed in seeds if seed % len(FORMATS) == number]
        if not format_seeds:
            continue

        def sample(seed: int, step: int, format: str = format) -> Batch:
            columns = config.columns - step % config.columns  # the longest first
            tokens, prompt = whole_sums(config, stream(seed, "strings", step), config.batch, format, columns)
            return {"tokens": tokens[:, :-1], "answer": tokens[:, prompt:]}

        def measure(networks: Networks[Transformer], format: str = format) -> dict[str, Tensor]:
            return {f"right {columns}": accuracy_of(config, format, columns)(networks) for columns in trained}

        fitted = study.fit(
            format_seeds,
            sample,
            optimisation,
            measure=measure,
            measure_every=config.evaluate_every,
            stop=finished,
            name=f"whole-{format}",
        )
        places = [seeds.index(seed) for seed in format_seeds]
        updates[places] = fitted.updates.values
        for columns in range(1, config.widest + 1):
            shares = accuracy_of(config, format, columns)(fitted)
            accuracy[places, :, columns - 1] = shares.view(len(format_seeds), len(ARMS)).numpy()
    return {
        "accuracy": labelled(accuracy, seed=seeds, arm=ARMS, digits=range(1, config.widest + 1)),
        "updates": labelled(updates, seed=seeds, arm=ARMS),
        "format": labelled([seed % len(FORMATS) for seed in seeds], seed=seeds),
    }


@TASK.claim(
    "addition-length-generalization/O1",
    where="derived",
    kind="ordering",
    statement=r"Networks trained on whole sums of at most two digits in base 3 (at `ci`) until 95 % of them are right stop at the trained "
    r"length: of sums with one or two digits more they write at most as many right as guessing one digit would, $1/B$, under both "
    r"patterns, in more than half of all trainings over the five formats.",
    controls=[control("the longest trained length in the place of the greater ones", beyond=False)],
)
def whole_sums_do_not_extend(results: Results, beyond: bool = True) -> Evidence:
    accuracy, config = results[train_whole_sums]["accuracy"].min("arm"), results.config
    most = results[train_whole_sums]["accuracy"].max("arm")
    learnt = accuracy.sel(digits=slice(None, config.columns)).min("digits") >= LEARNT
    tested = slice(config.columns + 1, None) if beyond else slice(config.columns, config.columns)
    stops = most.sel(digits=tested).max("digits") <= 1 / config.base
    both = learnt & stops
    return Evidence.proportion(
        both.sum().item(), both.size, ">=", 0.5, "so many trainings, over all formats, show more than half to be so"
    )


# %%
@TASK.figure
def formats_by_length(results: Results) -> Sheet:
    """Share of sums right by length in six formats, both patterns; trained lengths are on the left of the dotted line."""
    config, measured = results.config, results[train_whole_sums]
    windows = Results(every_window.TASK, config.windows, results.session)[every_window.train_windows]
    digits = measured["digits"].values
    columns = laws_of(at_end(windows["answers"], "update"), len(digits))
    sheet = Sheet(rows=2, columns=3, width=3.6, height=2.9)
    for number, format in enumerate((*FORMATS, "column windows")):
        accuracy = measured["accuracy"].sel(seed=measured["format"] == number)
        shares = columns if format == "column windows" else accuracy
        trained = 1 if format == "column windows" else config.columns
        beyond = shares.sel(digits=slice(trained + 1, None)).mean().item()
        panel = sheet.panel(
            f"{format}: {beyond:.2g} right beyond",
            x="digits n of an operand",
            y="share of sums right",
            ylim=(-0.05, 1.05),
            xticks=digits,
        )
        for side, arm in enumerate(ARMS):
            panel.points(shares.sel(arm=arm), over="digits", arm=arm, slot=(side, 2), within=(0, 1))
        panel.level(trained + 0.5, "trained | longer", vertical=True)
    return sheet


@TASK.figure
def what_the_prefix_changes(results: Results) -> Sheet:
    """Updates until the trained length was learnt, by format, both patterns, each training."""
    measured = results[train_whole_sums]
    sheet = Sheet(width=6.2, height=3.6)
    panel = sheet.panel("How fast each format is learnt", x="format", y="updates until 95 % are right", ylim=(0, None))
    for side, arm in enumerate(ARMS):
        values = {
            format: measured["updates"].sel(arm=arm, seed=measured["format"] == number).values
            for number, format in enumerate(FORMATS)
            if bool((measured["format"] == number).any())
        }
        panel.points(values, name=arm, arm=arm, slot=(side, 2))
    return sheet


# %%
TASK.show(formats_by_length)
TASK.show(what_the_prefix_changes)
TASK.show(whole_sums_do_not_extend)

# %% [markdown]
# With two blocks an operand's digit may already know its partner when the answer looks at it, under the prefix pattern only;
# with five trainings a format no difference in the number of updates is resolved. Beyond the trained length both patterns
# are where guessing is: letting operands see each other does not teach anybody where the digits of a longer number are. What
# fails is what was never trained: positions (plain, reversed, scratchpad), letters (index hints), or other digits than 0 in
# the high places (zero-padded). For column windows there is nothing to find, and nothing to gain.

# %%
TASK.show()
