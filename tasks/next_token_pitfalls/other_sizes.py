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
# # More arms, longer arms
#
# Standard training ends as the cheat (`objectives.py`): right at every step but the first, where it guesses one
# of $d$ children. With more arms the guess gets worse, and the accuracy falls like $1/d$. This tells the
# cheat from the usual complaint about next-token prediction, that small errors add up: independent errors of
# the same mean, $\epsilon = (1 - 1/d)/(l - 1)$ a step, would leave $(1 - \epsilon)^{l-1}$, which is more and falls much
# more slowly (`proofs_check/next_token_pitfalls.py`).
#
# Half of the updates are enough here: the cheat is learnt in few, and what is to be seen is that nothing
# follows. The same graphs and initial weights as in `objectives.py` are used for two arms.
# %%
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import xarray as xr

from lab import Evidence, Task, control
from lab.domains.graphs import path_star as theory
from lab.figures import Sheet
from lab.labels import LabelledArrays
from lab.results import Results
from tasks.next_token_pitfalls._shared import (
    PAPER,
    PAPER_SIZE,
    PAPER_TRAINING,
    SLUG,
    SMOKE_TRAINING,
    Comparison,
    Size,
    Training,
    is_near,
)


@dataclass(frozen=True)
class Config:
    """Standard training on graphs of several sizes."""

    size: Size = Size()
    """the graphs of `objectives.py`"""
    training: Training = Training(steps=160)
    """the network, with half the budget"""
    more_arms: tuple[int, ...] = (3, 5)
    """other numbers of arms, causal mask"""
    more_lengths: tuple[int, ...] = (3, 5)
    """other lengths of arms, prefix mask"""
    trainings: int = 8
    """independent trainings where an accuracy is compared with a guess"""
    other_trainings: int = 5
    """independent trainings for each length"""


TASK = Task(
    SLUG,
    paper=PAPER,
    presets={
        "smoke": Config(training=replace(SMOKE_TRAINING, steps=8), more_arms=(3,), trainings=2, other_trainings=2),
        "ci": Config(),
        "paper": Config(size=PAPER_SIZE, training=PAPER_TRAINING, more_arms=(5, 10, 20), more_lengths=(3, 10)),
    },
)


def at_sizes(
    axis: str, sizes: Mapping[int, Size], mask: str, training: Training, seeds: Sequence[int]
) -> LabelledArrays:
    """Standard training at several sizes: arrays [seed, ``axis``, ...], NaN at steps that shorter arms do not have."""
    trained = [
        xr.Dataset(Comparison(("standard",), (mask,), size, training).fit(seeds, f"{axis}{place}")).sel(
            objective="standard", mask=mask, drop=True
        )
        for place, size in sizes.items()
    ]
    places = xr.DataArray(list(sizes), dims=axis, name=axis)
    together = xr.concat(trained, places, join="outer").transpose("seed", axis, ...)
    return {str(key): values for key, values in together.items()}


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=8)
def by_arms(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Graphs with two arms and more, causal mask."""
    sizes = {arms: config.size.resized(arms=arms) for arms in (config.size.arms, *config.more_arms)}
    return at_sizes("arms", sizes, "causal", config.training, seeds)


@TASK.measurement(seeds=lambda config: config.other_trainings, ensemble=True, seeds_per_job=5)
def by_length(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Graphs with shorter and longer arms, prefix mask."""
    lengths = sorted([config.size.length, *config.more_lengths])
    sizes = {length: config.size.resized(length=length) for length in lengths}
    return at_sizes("length", sizes, "prefix", config.training, seeds)


@TASK.claim(
    "next-token-pitfalls/T1.d",
    where="Section 6 (standard training), Figure 3",
    kind="training",
    statement=r"With more arms the accuracy of standard training falls like $1/d$ ($d=3,5$), and not like what independent "
    r"errors of the cheat's mean would leave.",
    controls=[
        control("the law of independent errors instead of 1/d", law="snowball"),
        control("the law of two arms, 1/2, for every d", law="two arms"),
    ],
)
def accuracy_falls_with_the_arms(results: Results, law: str = "cheat") -> Evidence:
    config, arms = results.config, torch.tensor(results.config.more_arms)
    laws = {
        "cheat": 1 / arms.double(),
        "snowball": theory.cheat_as_snowball(arms, torch.full_like(arms, config.size.length)),
        "two arms": torch.full(arms.shape, 0.5),
    }
    exact = results[by_arms]["exact"]
    values = zip(config.more_arms, laws[law].tolist(), strict=True)
    return Evidence.all(*(is_near(exact.sel(arms=many), value, many) for many, value in values))


@TASK.figure
def accuracy_by_number_of_arms(results: Results) -> Sheet:
    """Accuracy of standard training against the number of arms, with 1/d and the snowball of the same mean error."""
    exact, length = results[by_arms]["exact"], results.config.size.length
    fine = torch.arange(2, int(exact["arms"].max()) + 1)
    sheet = Sheet(width=5.2)
    panel = sheet.panel(
        "Standard training guesses the arm",
        x="arms d",
        y="share of answers right",
        ylim=(0, 0.75),
        xticks=exact["arms"].values.tolist(),
        legend="upper right",
    )
    panel.points(exact, over="arms", arm="causal", name="standard training, causal")
    panel.theory(fine.tolist(), (1 / fine).numpy(), name="cheat, 1/d")
    snowball = theory.cheat_as_snowball(fine, torch.full_like(fine, length))
    panel.theory(fine.tolist(), snowball.numpy(), name="independent errors of the same mean")
    return sheet


@TASK.figure
def accuracy_by_length(results: Results) -> Sheet:
    """Accuracy of standard training against the length of the arms, prefix mask."""
    exact = results[by_length]["exact"]
    sheet = Sheet()
    panel = sheet.panel(
        "One hop back is learnt, two are not",
        x="nodes of an arm l",
        y="share of answers right",
        ylim=(0, 1.05),
        xticks=exact["length"].values.tolist(),
        legend="upper right",
    )
    panel.points(exact, over="length", arm="prefix", name="standard, prefix")
    panel.level(1 / results.config.size.arms, "a guess, 1/d")
    return sheet


@TASK.figure
def training_loss_by_arms(results: Results) -> Sheet:
    """Training loss of standard training by number of arms, against its floor without a plan."""
    losses, config = results[by_arms]["training loss"], results.config
    sheet = Sheet(width=5.2)
    panel = sheet.panel(
        "More arms: a higher floor, later reached",
        x=f"updates of {config.training.batch} graphs",
        y="training loss, nats a node",
        scale=("linear", "log"),
        legend="upper right",
    )
    for many in losses["arms"].values.tolist():
        panel.curve(losses.sel(arms=many), over="update", name=f"d = {many}")
    for many in losses["arms"].values.tolist():
        floor = theory.cheat_loss(many, config.size.length)
        panel.theory(config.training.checks, [floor] * len(config.training.checks), name="floors ln d / (l - 1)")
    return sheet


# %%
TASK.show(accuracy_falls_with_the_arms)
TASK.show(accuracy_by_number_of_arms)
TASK.show(training_loss_by_arms)

# %% [markdown]
# Longer arms are no worse than a guess either, and shorter ones are no cheat: with one hop of look-ahead, $l = 3$,
# a single edge tells the first step, and the same training finds it.
# %%
TASK.show(accuracy_by_length)

# %% [markdown]
# ## All verdicts

# %%
TASK.show()
