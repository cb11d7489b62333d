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
# # Two equations, guessed and solved
#
# The paper's second task: $m$ linear equations over a prime field with one solution, answered at once or by Gauss-Jordan
# elimination, all equations printed after every column. Given the matrix the solution is uniform on $Z_p^m$, so that a
# guess is right with probability exactly $p^{-m}$ (claim `G3` of the exact half), and right about a single unknown with
# probability $1/p$. In the paper direct answers to four and five equations over $Z_{11}$ are no better than guesses.
#
# Here there are two equations over $Z_5$, 12,000 systems in all, of which a training sees a part. One thing is to be
# expected if direct answers are guesses: that being right about one unknown and about both have the probabilities of
# *independent uniform* guesses, which is a sharper test than a low accuracy.

# %%
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.derivations import equations as systems
from lab.domains.derivations.sequences import Derivations
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.models.transformer import Transformer
from lab.results import Results
from lab.streams import stream
from lab.study import Fitted, Networks, Study
from lab.training import Batch
from tasks.chain_of_thought._shared import (
    CAUSAL,
    PAPER,
    PAPER_NETWORK,
    PILOTS,
    PREFIX,
    SLUG,
    SMOKE_NETWORK,
    Network,
    accuracy,
    answers_written,
    as_read,
    mask_of,
    next_token_loss,
)


@dataclass(frozen=True)
class Config:
    """Systems of equations, and the networks that read them."""

    modulus: int = 5
    """p"""
    unknowns: int = 2
    """m"""
    network: Network = Network(updates=1000)
    """what all networks have in common"""
    test_systems: int = 500
    """systems that a network is asked for"""
    records: int = 5
    """measurements on the way"""
    trainings: int = 8
    """independent trainings an arm"""


TASK = Task(
    SLUG,
    paper=PAPER,
    presets={
        "smoke": Config(network=SMOKE_NETWORK, test_systems=4, records=2, trainings=2),
        "ci": Config(),
        "paper": Config(modulus=11, unknowns=4, network=PAPER_NETWORK, test_systems=1000, records=20, trainings=4),
    },
    root=2035,
)
FORMATS = {"steps": "derivation", "at once": "direct"}
ARMS = (CAUSAL, PREFIX)


def places(config: Config) -> list[int]:
    """How far before the stop token the values of the unknowns stand, in "a = 2 , b = 4 S"."""
    return [4 * (config.unknowns - number) - 3 for number in range(config.unknowns)]


def tests(config: Config, seeds: Sequence[int], kind: str) -> dict[int, Derivations]:
    """The systems that each seed is asked, the same for all arms."""
    sizes = {"unknowns": config.unknowns, "modulus": config.modulus, "format": FORMATS[kind]}
    return {seed: systems.equations(stream(seed, "test"), config.test_systems, **sizes) for seed in seeds}


def train_equations(config: Config, seeds: Sequence[int], kind: str) -> Fitted[Transformer]:
    """Networks under both masks; their accuracy on the way is in the history."""
    network, asked = config.network, tests(config, seeds, kind)
    sizes = {"unknowns": config.unknowns, "modulus": config.modulus, "format": FORMATS[kind]}
    first = asked[seeds[0]]
    read, problem = first.tokens.shape[1] - 1, int(first.prefix_length[0])
    study = Study(
        build=network.build(systems.vocabulary_size(config.unknowns, config.modulus), read, network.layers),
        arms={arm: mask_of(arm, read, problem) for arm in ARMS},
        encode=as_read,
        loss=next_token_loss,
    )
    right = partial(accuracy, places=places(config))

    def under_way(networks: Networks[Transformer]) -> dict[str, Tensor]:
        return {"accuracy": networks.numbers(asked, right)}

    return study.fit(
        seeds,
        lambda seed, number, count: systems.equations(stream(seed, "train", number), count, **sizes),
        network.optimisation,
        blocks=network.blocks,
        measure=under_way,
        measure_every=-(-network.updates // config.records),
        name=kind.replace(" ", "-"),
    )


def right_unknowns(module: Transformer, batch: Batch, mask: Tensor, *, places: Sequence[int]) -> Tensor:
    """Share of rows in which all unknowns are right, and each of them [model, 1 + unknown]."""
    own, truth = answers_written(module, batch, mask, places)
    right = own == truth
    return torch.cat([right.all(-1, keepdim=True), right], -1).double().mean(-2)


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=4)
def solved(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """By what is written and mask: systems of which all unknowns are right, and each unknown; and the first on the way."""
    fitted = {kind: train_equations(config, seeds, kind) for kind in FORMATS}
    names = ("all", *(f"unknown {number + 1}" for number in range(config.unknowns)))
    metric = partial(right_unknowns, places=places(config))
    ends = [one.ask(tests(config, seeds, kind), metric, right=names).values for kind, one in fitted.items()]
    ways = [one.history["accuracy"].values for one in fitted.values()]
    updates = fitted["steps"].history["update"].values.tolist()
    axes = {"seed": seeds, "arm": ARMS}
    return {
        "accuracy": labelled(np.stack(ends, 2), **axes, written=tuple(FORMATS), right=names),
        "on the way": labelled(np.stack(ways, 2), **axes, written=tuple(FORMATS), update=updates),
    }


@TASK.claim(
    "chain-of-thought/T3",
    where="section 4, table of accuracies",
    kind="training",
    statement="After 1,000 updates on 8 systems each, networks of two layers that write the elimination are right about both unknowns of two "
    "equations over $Z_5$ in more than 0.3 of all systems (free greedy writing, mean over trainings), under the causal and the prefix "
    "mask.",
    controls=[control("networks that answer at once", kind="at once")],
)
def elimination_is_learnt(results: Results, kind: str = "steps") -> Evidence:
    found = results[solved]["accuracy"].sel(written=kind, right="all")
    return Evidence.all(*(Evidence.over_seeds(found.sel(arm=arm), ">", 0.3, f"{arm}; {PILOTS}") for arm in ARMS))


@TASK.claim(
    "chain-of-thought/T3.guess",
    where="section 4, table of accuracies (four and five equations)",
    kind="training",
    statement="Direct answers are guesses: after 1,000 updates networks that answer at once are right about both unknowns of two equations "
    "over $Z_5$ with probability $1/25$ within 0.02, and about either with $1/5$ within 0.05, as independent uniform guesses are, under "
    "both masks.",
    controls=[control("networks that write the elimination", kind="steps")],
)
def direct_answers_are_guesses(results: Results, kind: str = "at once") -> Evidence:
    config, found = results.config, results[solved]["accuracy"].sel(written=kind)
    parts = []
    for arm in ARMS:
        for right in found["right"].values:
            power, within = (config.unknowns, 0.02) if right == "all" else (1, 0.05)
            law = float(config.modulus) ** -power
            origin = f"{right}, {arm}: law of a uniform guess; {PILOTS}"
            parts.append(Evidence.equals(found.sel(arm=arm, right=right), law, within, origin, absolute=True))
    return Evidence.all(*parts)


@TASK.figure
def equations_on_the_way(results: Results) -> Sheet:
    """Share of systems of which all unknowns are right, on the way, and of single unknowns at the end."""
    config, measured = results.config, results[solved]
    sheet = Sheet(columns=2, width=5.2, height=4.2)
    panel = sheet.panel(
        "elimination is learnt, the solution is not", x="updates", y="share of systems solved", ylim=(-0.03, 1.05)
    )
    for variant, kind in enumerate(FORMATS):
        for arm in ARMS:
            found = measured["on the way"].sel(written=kind, arm=arm)
            panel.curve(found, "update", name=f"{kind}, {arm}", arm=arm, variant=variant)
    panel.level(config.modulus**-config.unknowns, "a guess of all, $p^{-m}$")
    panel = sheet.panel("at once, as guesses do", x="what is right", y="share of systems", ylim=(-0.03, 1.05))
    for variant, kind in enumerate(FORMATS):
        for arm in ARMS:
            found = measured["accuracy"].sel(written=kind, arm=arm)
            panel.points(found, "right", name=f"{kind}, {arm}", arm=arm, variant=variant)
    panel.level(config.modulus**-config.unknowns, "a guess of all, $p^{-m}$")
    panel.level(1 / config.modulus, "a guess of one, $1/p$")
    return sheet


# %%
TASK.show(equations_on_the_way)
TASK.show(elimination_is_learnt)
TASK.show(direct_answers_are_guesses)

# %% [markdown]
# ## All verdicts

# %%
TASK.show()
