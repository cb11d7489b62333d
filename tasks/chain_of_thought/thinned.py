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
# # Fewer steps, wrong steps, and steps that are none
#
# What about a derivation helps? Three things can be varied with the network held fixed.
#
# * **How many steps.** Write only every second or fourth running product of twelve, or the last alone. Each step that is left
#   has to combine more letters: after $k$ letters one of $2^k$ maps of 120 states, a table of $120 \cdot 2^k$ entries.
# * **Whether they are steps.** Put random states in the place of all but the last. There is as much to write, and
#   nothing in it: if extra tokens were what helps, this would.
# * **Whether they are true.** Hand a trained network a derivation with one wrong state in the middle. A network that
#   *follows* goes on from what is written, and ends at the product of the wrong state with the remaining letters. One
#   that *repairs* knows better and ends at the true product. In a group these two answers always differ.

# %%
from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lab import Evidence, Task, control
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.results import Results
from tasks.chain_of_thought._shared import CAUSAL, PAPER, PILOTS, ROOT, SLUG, Network
from tasks.chain_of_thought._words import Words, after_a_wrong_step, answers, asked, guessing, questions, train


@dataclass(frozen=True)
class Config:
    """Words, networks and tests."""

    words: Words = Words()
    """the problem"""
    network: Network = Network(width=32, steps=400, batch=32, learning_rate=8e-3)
    """all networks"""
    layers: int = 1
    """of all networks"""
    every: tuple[int, ...] = (1, 2, 4, 12)
    """k: a state is written after every k letters"""
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
            every=(1, 2, 4),
            trainings=2,
        ),
        "ci": Config(),
        "paper": Config(
            words=Words(length=16, held_out=2000),
            network=Network(width=256, heads=4, steps=100_000, batch=512, learning_rate=1e-4),
            layers=3,
            every=(1, 2, 4, 8, 16),
            trainings=5,
        ),
    },
)


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=3)
def thinned(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Share of right answers by k, and of networks trained on random states; and what networks make of a wrong state in the
    middle of a derivation: shares of answers that follow from it, and of true ones."""
    accuracy = []
    for every in config.every:
        words = replace(config.words, every=every)
        fitted = train(words, config.network, config.layers, seeds, f"every {every}")
        accuracy.append(asked(fitted, CAUSAL, questions(words, seeds), answers(words), CAUSAL))
        if every == 1:
            derived = fitted
    random_states = replace(config.words, misleading=True)
    misled = train(random_states, config.network, config.layers, seeds, "random states")
    prompts = questions(config.words, seeds)
    filler = asked(misled, CAUSAL, prompts, answers(config.words), CAUSAL)
    middle = config.words.length // 2
    metric = after_a_wrong_step(config.words, middle)
    reaction = np.stack([asked(fitted, CAUSAL, prompts, metric, CAUSAL) for fitted in (derived, misled)], 1)
    return {
        "accuracy": labelled(np.stack(accuracy, 1), seed=seeds, every=config.every),
        "filler": labelled(filler, seed=seeds),
        "reaction": labelled(
            reaction, seed=seeds, network=("true states", "random states"), answer=("follows", "repairs")
        ),
    }


@TASK.figure
def fewer_steps_and_wrong_steps(results: Results) -> Sheet:
    """Share of right answers where only every k-th state is written, and with random states in their place; answers after one
    wrong state in the middle of a derivation.

    Causal networks of one layer on words held out.
    """
    found = results[thinned]
    sheet = Sheet(columns=2, width=5.4, height=4.0)
    places = list(range(len(results.config.every)))
    panel = sheet.panel(
        "fewer steps, less learnt",
        x="letters a step",
        y="share of right answers",
        ylim=(-0.03, 1.2),
        xticks=dict(zip(places, map(str, results.config.every), strict=True)),
    )
    panel.curve(found["accuracy"].values, x=places, arm=CAUSAL, name="every k-th state")
    panel.points(found["filler"].values, x=places[0], name="random states, true answer")
    panel.level(guessing(results.config.words), "most likely product")
    panel = sheet.panel(
        "a wrong step is followed, not repaired",
        x="answer after a wrong state in the middle",
        y="share of derivations",
        ylim=(-0.03, 1.2),
    )
    for network in found["network"].values:
        values = {
            str(answer): found["reaction"].sel(network=network, answer=answer).values
            for answer in found["answer"].values
        }
        panel.points(values, name=f"trained on {network}")
    return sheet


@TASK.claim(
    "chain-of-thought/T1.steps",
    where="derived, on section 4",
    kind="phenomenon",
    statement="It is not the number of tokens: networks trained on derivations of equal length whose states are "
    "random, but for the last, answer "
    "rightly with probability below $0.2$ (400 updates, one layer).",
    controls=[control("derivations with their true states", filler=False)],
)
def tokens_alone_do_not_help(results: Results, filler: bool = True) -> Evidence:
    found = results[thinned]
    shares = found["filler"] if filler else found["accuracy"].isel(every=0)
    return Evidence.over_seeds(shares, "<", 0.2, f"a quarter of what true states give; {PILOTS}")


@TASK.claim(
    "chain-of-thought/T1.wrong",
    where="derived",
    kind="phenomenon",
    statement="A network that was trained on true derivations follows a wrong state in the middle of one and does "
    "not repair it: the answer is that of the wrong state with probability above $0.8$, and the true one with probability below $0.1$.",
    controls=[control("a network trained on random states", network="random states")],
)
def wrong_steps_are_followed(results: Results, network: str = "true states") -> Evidence:
    reaction = results[thinned]["reaction"].sel(network=network)
    return Evidence.all(
        Evidence.over_seeds(reaction.sel(answer="follows"), ">", 0.8, f"follows; {PILOTS}"),
        Evidence.over_seeds(reaction.sel(answer="repairs"), "<", 0.1, f"repairs; {PILOTS}"),
    )


# %%
TASK.show(fewer_steps_and_wrong_steps)
TASK.show(tokens_alone_do_not_help)
TASK.show(wrong_steps_are_followed)

# %% [markdown]
# ## All verdicts

# %%
TASK.show()
