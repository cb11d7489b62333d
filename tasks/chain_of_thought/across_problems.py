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
# # One picture: how large a problem may be, at once and step by step
#
# Every sheet of this lab that compares writing steps with answering at once has its own problem. Here they stand beside
# one another, accuracy against the size of the problem: expressions over a field and words over $S_5$ (this sheet), sums
# and ways through a graph (their own sheets), and four problems that are trained here: parity of a word, the longest
# increasing subsequence, the edit distance of two words, and linear equations.
#
# **What theory says.** A transformer of constant depth and logarithmic precision computes functions of the class TC0. The
# value of an expression over a finite field and the product of a word over $S_5$ are complete for NC1, and linear equations
# over a finite field are at least as hard (the paper's two theorems are about expressions and equations): if NC1 is larger
# than TC0, as is believed, no constant depth answers them at once at every size. Parity and sums of two numbers lie *in* TC0:
# a constant depth is enough, and what a direct network of these panels misses, it has not learnt (claim
# `chain-of-thought/C1.parity` writes the weights down). For increasing subsequences and edit distances, both dynamic
# programmes, the paper states no such bound, and we know of none. The graph of the third panel is one graph, the same in
# training and test, about which size says nothing. None of this is measured here: panels show what is learnt in one budget.
#
# **How it is read.** Within a panel both kinds are the same network, trained on the same problems for as many updates;
# between panels the budgets differ, and heights are not compared. Small problems are few, so that networks have seen
# all of them. Expressions are unseen ones; sums longer than two digits are longer than all that was trained on.
#
# **What is seen**, and drawn rather than claimed (three or six trainings a point). Steps lead where they are learnt, and most
# at the largest sizes. The edit distance of three letters is not learnt step by step in 1,000 updates (its derivation is a
# table of up to 15 numbers): there the shorter way is as good. Sums of more digits than were trained fail both ways, for
# another reason (their sheet); and two places that are far apart in a graph are told more easily than near ones, at once as
# well.

# %%
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import xarray as xr
from torch import Tensor

from lab import Task
from lab.domains.derivations import automata, edit_distance, equations, subsequences
from lab.domains.derivations.sequences import Derivations
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.models.transformer import Transformer
from lab.results import Results
from lab.streams import RandomStream, stream
from lab.study import Networks, Study
from tasks.addition_length_generalization import whole_sums
from tasks.chain_of_thought import arithmetic
from tasks.chain_of_thought import words as words_of_s5
from tasks.chain_of_thought._rows import FORMATS, aligned
from tasks.chain_of_thought._shared import (
    CAUSAL,
    PAPER,
    PAPER_NETWORK,
    SLUG,
    SMOKE_NETWORK,
    Network,
    accuracy,
    as_read,
    mask_of,
    next_token_loss,
)
from tasks.stepwise_graph_navigation import stepwise_gap


@dataclass(frozen=True)
class Config:
    """Problems, and the networks that read them."""

    parity: tuple[int, ...] = (4, 8, 16)
    """letters of a word"""
    subsequence: tuple[int, ...] = (4, 8, 12)
    """items of a sequence"""
    edit_distance: tuple[int, ...] = (1, 2, 3)
    """letters of a word, or of the word that the other is made of"""
    equations: tuple[int, ...] = (1, 2)
    """equations, and as many unknowns"""
    modulus: int = 3
    """p of the equations"""
    numbers: int = 32
    """numbers that a sequence is made of, the lengths of its subsequences among them"""
    network: Network = Network(width=64, heads=4, updates=600, batch=32, learning_rate=4e-3)
    """networks for parity and subsequences, and how they are trained"""
    slower: Network = Network(width=64, heads=4, updates=1000, batch=64, learning_rate=4e-3)
    """networks for edit distances and equations, which are learnt more slowly"""
    test_problems: int = 300
    """problems that a network is asked for"""
    trainings: int = 6
    """independent trainings of each kind and size, for parity and subsequences"""
    slower_trainings: int = 3
    """the same, for edit distances and equations"""


BESIDE = {"expressions": arithmetic.TASK, "words": words_of_s5.TASK, "sums": whole_sums.TASK, "ways": stepwise_gap.TASK}
TASK = Task(
    SLUG,
    paper=PAPER,
    presets={
        "smoke": Config(
            parity=(2, 4),
            subsequence=(2, 3),
            edit_distance=(1, 2),
            equations=(1, 2),
            network=SMOKE_NETWORK,
            slower=SMOKE_NETWORK,
            test_problems=4,
            trainings=2,
            slower_trainings=2,
        ),
        "ci": Config(),
        "paper": Config(
            parity=(16, 32, 64),
            subsequence=(50, 80, 100),
            edit_distance=(12, 16, 20),
            equations=(3, 4, 5),
            modulus=11,
            numbers=250,
            network=PAPER_NETWORK,
            slower=PAPER_NETWORK,
            test_problems=1000,
            trainings=4,
            slower_trainings=4,
        ),
    },
    root=2038,
)


class Problem(NamedTuple):
    """A family of problems by size."""

    draw: Callable[[Config, RandomStream, int, int, str], Derivations]
    """configuration, randomness, how many, size, and what is written, to rows"""
    longest: Callable[[int, str], tuple[int, int]]
    """size and what is written, to the tokens of the longest problem and of the longest row"""
    vocabulary: Callable[[Config, int], int]
    """configuration and size, to the number of tokens"""
    answer: Callable[[int], Sequence[int]] = lambda size: (1,)
    """size, to how far before the stop token the answer stands"""


def draw_parity(config: Config, source: RandomStream, count: int, size: int, kind: str) -> Derivations:
    """Uniform words of bits and the parity of what was read, after every letter or at the end."""
    every = 1 if kind == "steps" else size
    return automata.words(source, count, table=automata.parity_table(), length=size, every=every)


def draw_subsequence(config: Config, source: RandomStream, count: int, size: int, kind: str) -> Derivations:
    """Sequences and the length of their longest increasing subsequence."""
    return subsequences.increasing_subsequence(source, count, length=size, numbers=config.numbers, format=FORMATS[kind])


def draw_pair(config: Config, source: RandomStream, count: int, size: int, kind: str) -> Derivations:
    """Pairs of words and their edit distance."""
    return edit_distance.edit_distance(source, count, length=size, format=FORMATS[kind])


def draw_equations(config: Config, source: RandomStream, count: int, size: int, kind: str) -> Derivations:
    """Systems with one solution, and it."""
    return equations.equations(source, count, unknowns=size, modulus=config.modulus, format=FORMATS[kind])


def longest_equations(size: int, kind: str) -> tuple[int, int]:
    """Tokens of a system and of its row, which depend on neither the modulus nor the numbers."""
    rows = equations.equations(stream(0, "length"), 1, unknowns=size, modulus=2, format=FORMATS[kind])
    return int(rows.prefix_length[0]), rows.tokens.shape[1]


PROBLEMS = {
    "parity": Problem(
        draw_parity,
        lambda size, kind: (size + 1, automata.row_length(size, 1 if kind == "steps" else size)),
        lambda config, size: automata.vocabulary_size(automata.parity_table()),
    ),
    "subsequence": Problem(
        draw_subsequence,
        lambda size, kind: (size + 1, subsequences.row_length(size, FORMATS[kind])),
        lambda config, size: subsequences.vocabulary_size(config.numbers),
    ),
    "edit_distance": Problem(
        draw_pair,
        lambda size, kind: (3 * size + 2, edit_distance.row_length(size, FORMATS[kind])),
        lambda config, size: edit_distance.vocabulary_size(size),
    ),
    "equations": Problem(
        draw_equations,
        longest_equations,
        lambda config, size: equations.vocabulary_size(size, config.modulus),
        lambda size: [4 * (size - number) - 3 for number in range(size)],
    ),
}


def axis_of(problem: str) -> str:
    """The name of the axis of sizes of a problem."""
    return f"size of {problem}"


def rows_of(config: Config, problem: str, source: RandomStream, count: int, size: int, kind: str) -> Derivations:
    """Problems of one size, all ending at the same place."""
    rows = PROBLEMS[problem].draw(config, source, count, size, kind)
    return aligned(rows, *PROBLEMS[problem].longest(size, kind))


def trained_accuracy(
    config: Config, network: Network, problem: str, size: int, kind: str, seeds: Sequence[int]
) -> np.ndarray:
    """Share of right answers after training, all tokens behind the problem written freely [seed]."""
    about = PROBLEMS[problem]
    end, width = about.longest(size, kind)
    tests = {
        seed: rows_of(config, problem, stream(seed, "test", size), config.test_problems, size, kind) for seed in seeds
    }
    study = Study(
        build=network.build(about.vocabulary(config, size), width - 1, network.layers),
        arms={CAUSAL: mask_of(CAUSAL, width - 1, end)},
        encode=as_read,
        loss=next_token_loss,
    )
    right = partial(accuracy, places=tuple(about.answer(size)))

    def at_the_end(networks: Networks[Transformer]) -> dict[str, Tensor]:
        return {"accuracy": networks.numbers(tests, right)}

    fitted = study.fit(
        seeds,
        lambda seed, number, count: rows_of(config, problem, stream(seed, "train", size, number), count, size, kind),
        network.optimisation,
        blocks=network.blocks,
        measure=at_the_end,
        measure_every=network.updates,
        name=f"{problem}-{size}-{kind.replace(' ', '-')}",
    )
    return fitted.history["accuracy"].sel(arm=CAUSAL).values[:, -1]


def by_size(config: Config, network: Network, problem: str, seeds: Sequence[int]) -> xr.DataArray:
    """Accuracy by what is written and size; causal networks."""
    sizes = getattr(config, problem)
    values = [[trained_accuracy(config, network, problem, size, kind, seeds) for size in sizes] for kind in FORMATS]
    axes = {"written": tuple(FORMATS), axis_of(problem): sizes}
    return labelled(np.moveaxis(np.array(values), -1, 0), seed=seeds, **axes)


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=3)
def parities_and_subsequences(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Accuracy by what is written and size, for parity and increasing subsequences."""
    return {problem: by_size(config, config.network, problem, seeds) for problem in ("parity", "subsequence")}


@TASK.measurement(seeds=lambda config: config.slower_trainings, ensemble=True, seeds_per_job=2)
def distances_and_equations(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Accuracy by what is written and size, for edit distances and linear equations."""
    return {problem: by_size(config, config.slower, problem, seeds) for problem in ("edit_distance", "equations")}


class Panel(NamedTuple):
    """One problem of the picture: accuracy of both kinds by size."""

    title: str
    size: str
    """what the size counts"""
    steps: xr.DataArray
    """[seed, size]"""
    at_once: xr.DataArray
    """[seed, size]"""


def preset_of(config: Config) -> str:
    """The preset that these sizes are, at which the other parts are read; that of the pages for any other sizes."""
    return next((name for name, sizes in TASK.presets.items() if sizes == config), "ci")


def panels(results: Results) -> list[Panel]:
    """All problems, those of other parts and sheets at their own sizes and below their own seeds."""
    preset = preset_of(results.config)
    beside = {name: Results(task, task.config(preset), results.session) for name, task in BESIDE.items()}
    expressions = beside["expressions"][arithmetic.calculated]["right"]
    expressions = expressions.sel(arm=CAUSAL).rename(operators="size")
    sums = beside["sums"][whole_sums.train_whole_sums]
    far = beside["ways"][stepwise_gap.hierarchical_answers]["by_distance"].rename(apart="size")

    def of_format(name: str) -> xr.DataArray:
        number = whole_sums.FORMATS.index(name)
        return sums["accuracy"].sel(arm=CAUSAL).where(sums["format"] == number, drop=True).rename(digits="size")

    shown = [
        Panel(
            "expressions over $Z_5$ (NC1)",
            "operators",
            expressions.sel(written="steps"),
            expressions.sel(written="at once"),
        ),
        Panel(
            "words over $S_5$ (NC1)",
            "letters",
            beside["words"][words_of_s5.every_state]["by length"].rename(length="size"),
            beside["words"][words_of_s5.at_once]["by length"].rename(length="size"),
        ),
        Panel("ways through a graph", "edges apart", far.sel(kind="stepwise"), far.sel(kind="direct")),
        Panel("sums of two numbers (TC0)", "digits, 2 in training", of_format("scratchpad"), of_format("plain")),
    ]
    trained = {
        "parity": ("parity (TC0)", "letters"),
        "subsequence": ("longest increasing subsequence", "items"),
        "edit_distance": ("edit distance", "letters"),
        "equations": (f"linear equations over $Z_{{{results.config.modulus}}}$ (NC1)", "unknowns"),
    }
    for problem, (title, size) in trained.items():
        measured = results[
            parities_and_subsequences if problem in ("parity", "subsequence") else distances_and_equations
        ]
        right = measured[problem].rename({axis_of(problem): "size"})
        shown.append(Panel(title, size, right.sel(written="steps"), right.sel(written="at once")))
    return shown


@TASK.figure
def problems_by_size(results: Results) -> Sheet:
    """Share of right answers by the size of the problem: networks that write every step, and networks that answer at once, causal,
    each panel with its own network and budget. NC1: at least as hard as that class, so that no constant depth does it at
    once at every size unless NC1 is TC0; TC0: a constant depth is enough."""
    sheet = Sheet(rows=2, columns=4, width=3.6, height=3.4)
    for panel_of in panels(results):
        panel = sheet.panel(panel_of.title, x=panel_of.size, y="share of right answers", ylim=(-0.03, 1.05))
        for variant, (name, right) in enumerate((("steps", panel_of.steps), ("at once", panel_of.at_once))):
            panel.points(right, "size", name=name, arm=CAUSAL, variant=variant, join=True)
    return sheet


# %%
TASK.show(problems_by_size)
