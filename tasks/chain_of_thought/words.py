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
# Two networks of the same sizes are trained on the same words for equally many updates. One writes all 12 running
# products, the other the last product alone. Of the 4,096 words of 12 letters 128 are held out, others for every training,
# and these are asked. Who does not read the word cannot be right more often than the most likely product, 0.0342.
#
# Both are tried in one, two and three layers, and in two also *prefix* (the word read in both directions, the derivation
# causal). In one layer the two masks are one function at the positions that count: all positions that write see
# everything before them under both, and they see only embeddings. That is a claim below and not an experiment.
#
# What this can and cannot show. The theorem speaks of all lengths and of networks that grow with them; here are one
# length and one small size. The measurement is of what is learnt in 400 updates, and of how it carries over: an answer at
# once can be learnt as a table of words, which says nothing of a new word, whereas the table of steps is the same for
# all words.

# %%
from __future__ import annotations

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
from tasks.chain_of_thought._words import Words, answers, asked, guessing, questions, train


@dataclass(frozen=True)
class Config:
    """Words, networks and tests."""

    words: Words = Words()
    """the problem"""
    network: Network = Network(width=32, steps=400, batch=32, learning_rate=8e-3)
    """all networks but for their depth"""
    depths: tuple[int, ...] = (1, 2, 3)
    """layers of causal networks; 1 among them"""
    prefix_depths: tuple[int, ...] = (2,)
    """layers, more than one, of prefix networks"""
    trainings: int = 6
    """independent trainings of every kind"""


TASK = Task(
    SLUG,
    paper=PAPER,
    root=ROOT,
    presets={
        "smoke": Config(
            words=Words(things=3, length=4, held_out=4),
            network=Network(width=8, steps=3, batch=4),
            depths=(1, 2),
            trainings=2,
        ),
        "ci": Config(),
        "paper": Config(
            words=Words(length=16, held_out=2000),
            network=Network(width=256, heads=4, steps=100_000, batch=512, learning_rate=1e-4),
            depths=(1, 3, 4, 5),
            prefix_depths=(3, 4, 5),
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
    """Share of right answers by kind, depth and mask: to new words, to known ones, and to new ones after one token.

    Of networks of one layer there is one training, read under both masks, and the largest difference of its probabilities
    between them.
    """
    found: dict[str, list[list[np.ndarray]]] = {"new": [], "known": [], "at_once": []}
    apart = []
    for kind in KINDS:
        words = of_kind(config.words, kind)
        asks = {
            "new": (questions(words, seeds), answers(words)),
            "known": (questions(words, seeds, known=True), answers(words)),
            "at_once": (questions(words, seeds), answers(words, 0)),
        }
        masks_of = patterns((CAUSAL, PREFIX), *words.sizes)
        for layers in config.depths:
            arms = (CAUSAL, PREFIX) if layers in config.prefix_depths else (CAUSAL,)
            fitted = train(words, config.network, layers, seeds, f"{kind} {layers}", arms)
            for name, (prompts, metric) in asks.items():
                shares = {arm: asked(fitted, arm, prompts, metric, arm) for arm in arms}
                if layers == 1:
                    shares[PREFIX] = asked(fitted, CAUSAL, prompts, metric, masks_of[PREFIX])
                missing = np.full(len(seeds), np.nan)
                found[name].append([shares.get(arm, missing) for arm in (CAUSAL, PREFIX)])
            both = [asked(fitted, CAUSAL, asks["new"][0], probabilities, mask) for mask in masks_of.values()]
            apart.append(np.abs(both[0] - both[1]).max(axis=(1, 2, 3)))

    def shaped(values: list[list[np.ndarray]]) -> xr.DataArray:
        moved = np.moveaxis(np.array(values), -1, 0).reshape(len(seeds), len(KINDS), len(config.depths), 2)
        return labelled(moved, seed=seeds, kind=KINDS, depth=config.depths, arm=(CAUSAL, PREFIX))

    differences = np.array(apart).T.reshape(len(seeds), len(KINDS), len(config.depths))
    return {name: shaped(values) for name, values in found.items()} | {
        "difference": labelled(differences, seed=seeds, kind=KINDS, depth=config.depths)
    }


# %% [markdown]
# ## A derivation is learnt, an answer at once is not


# %%
@TASK.figure
def at_once_or_step_by_step(results: Results) -> Sheet:
    """Share of words answered rightly after equally many updates, by depth and mask: words held out, and words shown.

    In one layer both masks are the same function and there is one training; prefix networks of three layers were not trained.
    """
    found = results[depths]
    sheet = Sheet(columns=2, width=5.4, height=4.2)
    for name, title in (
        ("new", "new words: the derivation carries over"),
        ("known", "known words: a table answers at once"),
    ):
        panel = sheet.panel(
            title,
            x="layers",
            y="share of right answers",
            ylim=(-0.03, 1.5),
            yticks=(0, 0.25, 0.5, 0.75, 1),
            xticks=[int(depth) for depth in found["depth"]],
            legend="upper left",
        )
        for arm in (PREFIX, CAUSAL):
            for variant, kind in enumerate(KINDS):
                label = f"{arm}, {'all states' if kind == 'derivation' else 'the answer at once'}"
                panel.curve(found[name].sel(arm=arm, kind=kind), over="depth", arm=arm, variant=variant, name=label)
        panel.level(guessing(results.config.words), "most likely product")
    return sheet


def cells(results: Results) -> list[dict[str, object]]:
    """Depths and masks that are different networks."""
    causal = [{"depth": depth, "arm": CAUSAL} for depth in results.config.depths]
    return causal + [{"depth": depth, "arm": PREFIX} for depth in results.config.prefix_depths]


@TASK.claim(
    "chain-of-thought/T1",
    where="section 4, on another task (words over S5)",
    kind="training",
    statement="After 400 updates on all but 128 of the 4,096 words of 12 letters over $S_5$ a network that writes all running "
    "products first answers the held-out words rightly with probability above $0.7$, and one that answers at once with "
    "probability below $0.4$: causal in one, two and three layers, prefix in two.",
    controls=[control("the same networks, made to answer in their first token", measured="at_once")],
)
def derivations_are_learnt(results: Results, measured: str = "new") -> Evidence:
    found, direct = results[depths][measured], results[depths]["new"]
    return Evidence.all(
        *(
            part
            for cell in cells(results)
            for part in (
                Evidence.over_seeds(found.sel(kind="derivation", **cell), ">", 0.7, f"step by step; {PILOTS}"),
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
    controls=[control("the deepest networks", place=-1)],
)
def one_layer_knows_no_mask(results: Results, place: int = 0) -> Evidence:
    config = results.config
    width = config.network.width
    # A softmax over embeddings, an MLP, a norm, a softmax over words: chains of sums of D to 4 D terms, in float32.
    bound = rounding_bound(40 * width + 400, 4.0, np.float32)
    worst = float(results[depths]["difference"].isel(depth=place).max())
    return Evidence.exact(worst, "<=", bound, "rounding in float32 of two runs of this network")


# %%
TASK.show(at_once_or_step_by_step)
TASK.show(derivations_are_learnt)
TASK.show(one_layer_knows_no_mask)

# %% [markdown]
# ## All verdicts

# %%
TASK.show()
