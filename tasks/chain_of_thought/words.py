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
# # Words over $S_5$: at once, or letter by letter
#
# Why does a chain of thought help? The paper's answer: a network of constant depth can do only so much in one pass, but
# a derivation feeds its own results back, and each step of it is easy. Its problems (arithmetic, equations, dynamic
# programmes) mix that with parsing. The barest case keeps the difficulty alone: a word of two generators of $S_5$, the
# permutations of five things, and the question which permutation it spells. It is as hard as evaluating Boolean
# formulas (`proofs_check/chain_of_thought/formulas.py`), and a step of its derivation is a look-up in a table of 240
# entries.
#
# Two networks of the same sizes are trained on the same words for equally many updates. One writes all 16 running
# products, the other the last product alone. They are asked about new words: of the $2^{16}$ words a training shows at
# most 3,840, so few are met again. Who does not read the word cannot be right more often than the most likely product,
# 0.0205.
#
# Both are tried in one, two and three layers, causal and *prefix* (the word read in both directions, the derivation
# causal). In one layer the two masks are one function at the positions that count: all positions that write see
# everything before them under both, and they see only embeddings. That is a claim below and not an experiment.
#
# What this can and cannot show. The theorem speaks of all lengths and of networks that grow with them; here are one
# length and one small size. The direct network could hold a table of $2^{n}$ words if it had seen them, and at four
# letters it does. The measurement is of what is learnt in 240 updates.

# %%
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from torch import Tensor

from lab import Evidence, Task, control
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.models.transformer import Transformer
from lab.results import Results
from lab.statistics import rounding_bound
from lab.training import Batch
from tasks.chain_of_thought._shared import CAUSAL, PAPER, PILOTS, PREFIX, ROOT, SLUG, Network, patterns
from tasks.chain_of_thought._words import Words, answers, asked, guessing, tests, train


@dataclass(frozen=True)
class Config:
    """Words, networks and tests."""

    words: Words = Words()
    """the problem"""
    network: Network = Network(width=32, steps=240, batch=16, learning_rate=8e-3)
    """all networks but for their depth"""
    depths: tuple[int, ...] = (1, 2, 3)
    """layers"""
    lengths: tuple[int, ...] = (4, 8)
    """shorter words, two layers, with as many states an update as at full length"""
    test_words: int = 200
    """new words a network is asked about"""
    trainings: int = 6
    """independent trainings of every kind"""


TASK = Task(
    SLUG,
    paper=PAPER,
    root=ROOT,
    presets={
        "smoke": Config(
            words=Words(things=3, length=4),
            network=Network(width=8, steps=3, batch=4),
            depths=(1, 2),
            lengths=(2,),
            test_words=8,
            trainings=2,
        ),
        "ci": Config(),
        "paper": Config(
            words=Words(length=64),
            network=Network(width=256, heads=4, steps=100_000, batch=512, learning_rate=1e-4),
            depths=(3, 4, 5),
            lengths=(16, 32),
            test_words=2000,
            trainings=5,
        ),
    },
)
KINDS = ("derivation", "direct")


def of_kind(words: Words, kind: str) -> Words:
    """The problem with all its states, or with the last one alone."""
    return words if kind == "derivation" else replace(words, every=words.length)


def probabilities(module: Transformer, batch: Batch, mask: Tensor) -> Tensor:
    """Of every token at the scored positions; 0 elsewhere [model, row, token, word]."""
    found: Tensor = module(batch["tokens"], mask).softmax(-1)
    return found * (batch["targets"] >= 0).unsqueeze(-1)


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=3)
def depths(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Share of right answers by kind, depth and mask, after the whole derivation and after one token of it. Of networks of one
    layer there is one training, read under both masks, and the largest difference of its probabilities between them.
    """
    whole, at_once, apart = [], [], []
    for kind in KINDS:
        words = of_kind(config.words, kind)
        prompts = tests(words, seeds, config.test_words)
        masks_of = patterns((CAUSAL, PREFIX), *words.sizes)
        for layers in config.depths:
            arms = (CAUSAL,) if layers == 1 else (CAUSAL, PREFIX)
            fitted = train(words, config.network, layers, seeds, f"{kind} {layers}", arms)
            trained = {arm: arm if arm in arms else CAUSAL for arm in (CAUSAL, PREFIX)}
            for found, step in ((whole, -1), (at_once, 0)):
                found.append(
                    [asked(fitted, trained[arm], prompts, answers(words, step), masks_of[arm]) for arm in masks_of]
                )
            few = tests(words, seeds, 20)
            both = [asked(fitted, CAUSAL, few, probabilities, mask) for mask in masks_of.values()]
            apart.append(np.abs(both[0] - both[1]).max(axis=(1, 2, 3)))

    def shaped(found: list[list[np.ndarray]]) -> xr.DataArray:
        values = np.moveaxis(np.array(found), -1, 0).reshape(len(seeds), len(KINDS), len(config.depths), 2)
        return labelled(values, seed=seeds, kind=KINDS, depth=config.depths, arm=(CAUSAL, PREFIX))

    differences = np.moveaxis(np.array(apart), -1, 0).reshape(len(seeds), len(KINDS), len(config.depths))
    return {
        "accuracy": shaped(whole),
        "at_once": shaped(at_once),
        "difference": labelled(differences, seed=seeds, kind=KINDS, depth=config.depths),
    }


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=3)
def lengths(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Share of right answers by kind and length of the word; two layers, causal, equally many letters an update."""
    found = []
    for kind in KINDS:
        for length in (*config.lengths, config.words.length):
            words = of_kind(replace(config.words, length=length), kind)
            network = replace(config.network, batch=config.network.batch * config.words.length // length)
            fitted = train(words, network, 2, seeds, f"{kind} of {length}")
            prompts = tests(words, seeds, config.test_words)
            found.append(asked(fitted, CAUSAL, prompts, answers(words), CAUSAL))
    values = np.array(found).T.reshape(len(seeds), len(KINDS), -1)
    return {"accuracy": labelled(values, seed=seeds, kind=KINDS, length=(*config.lengths, config.words.length))}


# %% [markdown]
# ## A derivation is learnt, an answer at once is not


# %%
@TASK.figure
def at_once_or_step_by_step(results: Results) -> Sheet:
    """Share of new words answered rightly after equally many updates: by depth and mask, and by length of the word.

    In one layer both masks are the same function; there is one training.
    """
    accuracy, at_once = results[depths]["accuracy"], results[depths]["at_once"]
    sheet = Sheet(columns=2, width=5.4, height=4.0)
    panel = sheet.panel(
        "the derivation is learnt at every depth",
        x="layers",
        y="share of right answers",
        ylim=(-0.03, 1.35),
        yticks=(0, 0.25, 0.5, 0.75, 1),
        xticks=[int(depth) for depth in accuracy["depth"]],
        legend="upper left",
    )
    for arm in (PREFIX, CAUSAL):
        for variant, kind in enumerate(KINDS):
            name = f"{arm}, {'all states' if kind == 'derivation' else 'the answer at once'}"
            panel.curve(accuracy.sel(arm=arm, kind=kind), over="depth", arm=arm, variant=variant, name=name)
    panel.curve(at_once.sel(arm=CAUSAL, kind="derivation"), over="depth", name="all states, made to answer at once")
    panel.level(guessing(results.config.words), "most likely product")
    by_length = results[lengths]["accuracy"]
    panel = sheet.panel(
        "answers at once are tables: short words are known by heart",
        x="letters",
        y="share of right answers",
        ylim=(-0.03, 1.35),
        yticks=(0, 0.25, 0.5, 0.75, 1),
        xticks=[int(length) for length in by_length["length"]],
        legend="upper left",
    )
    for variant, kind in enumerate(KINDS):
        name = "all states" if kind == "derivation" else "the answer at once"
        panel.curve(by_length.sel(kind=kind), over="length", arm=CAUSAL, variant=variant, name=f"causal, {name}")
    sizes = [int(length) for length in by_length["length"]]
    panel.theory(
        sizes, [guessing(replace(results.config.words, length=size)) for size in sizes], name="most likely product"
    )
    return sheet


def cells(results: Results) -> Sequence[dict[str, object]]:
    """Depths and masks that are different networks."""
    found = [(depth, arm) for depth in results.config.depths for arm in (CAUSAL, PREFIX)]
    return [{"depth": depth, "arm": arm} for depth, arm in found if not (depth == 1 and arm == PREFIX)]


@TASK.claim(
    "chain-of-thought/T1",
    where="section 4, on another task (words over S5)",
    kind="training",
    statement="After 240 updates on words of 16 letters over $S_5$ a network that writes all running products first "
    "answers new words "
    "rightly with probability above $0.8$, and one that answers at once with probability below $0.4$: in one, two "
    "and three layers, "
    "causal and prefix.",
    controls=[control("the same networks, made to answer in their first token", measured="at_once")],
)
def derivations_are_learnt(results: Results, measured: str = "accuracy") -> Evidence:
    found, direct = results[depths][measured], results[depths]["accuracy"]
    return Evidence.all(
        *(
            part
            for cell in cells(results)
            for part in (
                Evidence.over_seeds(found.sel(kind="derivation", **cell), ">", 0.8, f"step by step; {PILOTS}"),
                Evidence.over_seeds(direct.sel(kind="direct", **cell), "<", 0.4, f"at once; {PILOTS}"),
            )
        )
    )


@TASK.claim(
    "chain-of-thought/T1.masks",
    where="derived",
    kind="identity",
    statement="In one layer the causal and the prefix mask give the same probabilities at every scored position, "
    "for derivations and for "
    "answers at once: a position that writes sees the same embeddings under both.",
    controls=[control("two layers", depth=2)],
)
def one_layer_knows_no_mask(results: Results, depth: int = 1) -> Evidence:
    config = results.config
    width = config.network.width
    # A softmax over embeddings, an MLP, a norm, a softmax over words: chains of sums of D to 4 D terms, in float32.
    bound = rounding_bound(40 * width + 400, 4.0, np.float32)
    worst = float(results[depths]["difference"].sel(depth=depth).max())
    return Evidence.exact(worst, "<=", bound, "rounding in float32 of two runs of this network")


@TASK.claim(
    "chain-of-thought/T1.prefix",
    where="derived",
    kind="phenomenon",
    statement="Reading the word in both directions changes nothing that matters for derivations: in two and three "
    "layers the "
    "probability of a right answer differs by less than $0.15$ between the masks.",
    controls=[control("the prefix network answers at once", kind="direct")],
)
def prefix_is_no_better(results: Results, kind: str = "derivation") -> Evidence:
    accuracy = results[depths]["accuracy"]
    return Evidence.all(
        *(
            Evidence.equals(
                accuracy.sel(kind="derivation", arm=CAUSAL, depth=depth)
                - accuracy.sel(kind=kind, arm=PREFIX, depth=depth),
                0.0,
                0.15,
                f"no difference; tolerance {PILOTS}",
                absolute=True,
            )
            for depth in results.config.depths
            if depth > 1
        )
    )


# %% [markdown]
# ## Longer words
#
# At four letters there are 16 words, and the direct network knows them by heart. That is no counterexample but the
# other side of the same coin: a table of all words takes $2^n$ entries, the table of steps 240 at every length.


# %%
@TASK.claim(
    "chain-of-thought/O1",
    where="section 4, figure on accuracy by length; on another task",
    kind="ordering",
    statement="After 240 updates with equally many letters each, a network that answers at once is right less often "
    "on words of 16 letters "
    "than on words of 4, by more than $0.5$; one that writes all products loses less than $0.2$.",
    controls=[control("derivations in the place of direct answers", falling="derivation")],
)
def direct_answers_fall_with_length(results: Results, falling: str = "direct") -> Evidence:
    accuracy = results[lengths]["accuracy"]
    drop = accuracy.isel(length=0) - accuracy.isel(length=-1)
    return Evidence.all(
        Evidence.over_seeds(drop.sel(kind=falling), ">", 0.5, f"at once; {PILOTS}"),
        Evidence.over_seeds(drop.sel(kind="derivation"), "<", 0.2, f"step by step; {PILOTS}"),
    )


# %%
TASK.show(at_once_or_step_by_step)
TASK.show(derivations_are_learnt)
TASK.show(one_layer_knows_no_mask)
TASK.show(prefix_is_no_better)
TASK.show(direct_answers_fall_with_length)

# %% [markdown]
# ## All verdicts

# %%
TASK.show()
