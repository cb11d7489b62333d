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
# (At `ci` these networks are small and trained briefly, so that the longest trained length is not mastered
# in every format. The comparison is between that length and the next.)

# %%
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from lab import Evidence, Task, control
from lab.decoding import decode
from lab.domains.addition.prompts import STOP, vocabulary_size, whole_sum
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.models.masks import prefix_lm
from lab.models.transformer import Architecture, Transformer
from lab.results import Results
from lab.streams import RandomStream, stream
from lab.study import Study
from lab.training import Batch, Optimisation
from tasks.addition_length_generalization import every_window
from tasks.addition_length_generalization._shared import ARMS, PAPER, SLUG, laws_of


@dataclass(frozen=True)
class Config:
    """Sizes of the trainings on whole sums."""

    trainings: int = 7
    """independent trainings, in each format with both attention patterns"""
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
    batch: int = 32
    """sums a step"""
    steps: int = 220
    """updates"""
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
        "smoke": Config(trainings=2, width=8, batch=8, steps=6, beyond=1, windows=every_window.TASK.presets["smoke"]),
        "ci": Config(),
        "paper": Config(
            base=10,
            columns=3,
            width=64,
            mlp_ratio=4.0,
            initial_scale=None,
            batch=64,
            steps=1_500,
            learning_rate=2e-3,
            windows=every_window.TASK.presets["paper"],
        ),
    },
)
FORMATS = ("plain", "reversed", "zero-padded", "index-hints", "scratchpad")
TESTED = 100  # sums a length


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
# All sums of a step have one length; the lengths take turns. Sums up to the longest trained length, and longer ones,
# are then answered greedily, and an answer is right only as a whole.


# %%
@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=5)
def train_whole_sums(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Share of sums of each length that are written right, by format and pattern."""
    study = Study(
        partial(Transformer, config.architecture),
        arms={arm: mask_of(arm) for arm in ARMS},
        encode=None,
        loss=answer_loss,
    )
    optimisation = Optimisation(
        config.steps, config.learning_rate, warmup=0.05, schedule="cosine", optimiser="adamw", weight_decay=0.01
    )
    accuracy = np.zeros((len(seeds), len(FORMATS), len(ARMS), config.widest))
    for place, format in enumerate(FORMATS):

        def sample(seed: int, step: int, format: str = format) -> Batch:
            columns = config.columns - step % config.columns  # the longest first
            tokens, prompt = whole_sums(config, stream(seed, "strings", step), config.batch, format, columns)
            return {"tokens": tokens[:, :-1], "answer": tokens[:, prompt:]}

        fitted = study.fit(seeds, sample, optimisation, measure_every=config.steps, name=f"whole-{format}")
        for columns in range(1, config.widest + 1):
            tokens, prompt = whole_sums(config, stream(0, "questions", columns), TESTED, format, columns)
            for side, arm in enumerate(ARMS):
                written = decode(
                    fitted.of(arms=[arm]).module,
                    tokens[:, :prompt],
                    whole_mask(config.longest, prompt, arm),
                    tokens.shape[1] - prompt,
                    stop_token=STOP,
                ).tokens
                right = (written.cpu() == tokens[:, prompt:]).all(-1)
                accuracy[:, place, side, columns - 1] = right.double().mean(-1).numpy()
    digits = range(1, config.widest + 1)
    return {"accuracy": labelled(accuracy, seed=seeds, format=FORMATS, arm=ARMS, digits=digits)}


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
    greater = accuracy.sel(digits=slice(config.columns + 1, None)).max("digits")
    right = greater if beyond else accuracy.sel(digits=config.columns)
    guess = f"one guessed digit; worst of {right.size} networks"
    return Evidence.all(
        Evidence.over_seeds(right.mean(("format", "arm")), "<=", 0.05, "next to no sum"),
        Evidence.exact(right.max().item(), "<=", 1 / config.base, guess),
    )


# %%
@TASK.figure
def formats_by_length(results: Results) -> Sheet:
    """Share of sums right by length in six formats, both patterns; trained lengths are on the left of the dotted line."""
    config, accuracy = results.config, results[train_whole_sums]["accuracy"]
    windows = Results(every_window.TASK, config.windows, results.session)[every_window.train_windows]
    digits = accuracy["digits"].values
    columns = laws_of(windows["answers"].isel(update=-1, drop=True), len(digits))
    sheet = Sheet(rows=2, columns=3, width=3.6, height=2.9)
    for format in (*FORMATS, "column windows"):
        shares = columns if format == "column windows" else accuracy.sel(format=format)
        trained = 1 if format == "column windows" else config.columns
        beyond = shares.sel(digits=slice(trained + 1, None)).mean().item()
        panel = sheet.panel(
            f"{format}: {beyond:.2g} beyond",
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
    """Prefix minus causal, paired by training: accuracy of whole sums by format at two lengths."""
    config, accuracy = results.config, results[train_whole_sums]["accuracy"]
    gain = accuracy.sel(arm="prefix") - accuracy.sel(arm="causal")
    sheet = Sheet(width=6.2, height=3.6)
    panel = sheet.panel(
        "Beyond training the prefix changes nothing", x="prefix − causal, share of sums right", y="format"
    )
    lengths = {"longest trained length": config.columns, "one digit more": config.columns + 1}
    for place, (name, digits) in enumerate(lengths.items()):
        panel.points(gain.sel(digits=digits), over="format", name=name, slot=(place, 2), horizontal=True)
    panel.level(0, vertical=True)
    return sheet


# %%
TASK.show(formats_by_length)
TASK.show(what_the_prefix_changes)
TASK.show(whole_sums_do_not_extend)

# %% [markdown]
# At the trained length the pattern can make a difference to how fast a format is learnt, because with two blocks
# an operand's digit may already know its partner when the answer looks at it; the intervals over trainings say how
# sure the sign is. Beyond that length both patterns are where guessing is, and the difference is nothing: letting
# operands see each other does not teach anybody where the digits of a longer number are. For column windows there is
# nothing to find, and nothing to gain.

# %%
TASK.show()
