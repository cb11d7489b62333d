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
# The ideal cheat answers a share $1/d$ of the questions, however long the arms are. What of standard training on
# other graphs? First $G(2, 5)$, $G(3, 5)$ and $G(5, 5)$, the first and the last of which are in the paper, with a
# wider network of four layers, which the plan needs there. The budget is what it takes to learn the cheat; nothing
# is said about what comes after it. (With ten arms, also in the paper, the cheat itself takes longer than that here.)
# %%
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import xarray as xr

from lab import Evidence, Task, control
from lab.domains.graphs import path_star as theory
from lab.figures import Sheet
from lab.labels import LabelledArrays
from lab.results import Results
from tasks.next_token_pitfalls._shared import (
    MASKS,
    PAPER,
    PAPER_SIZE,
    PAPER_TRAINING,
    SLUG,
    SMOKE_TRAINING,
    Comparison,
    Size,
    Training,
    most,
)


@dataclass(frozen=True)
class Config:
    """Standard training on graphs of several sizes."""

    wide_size: Size = Size(length=5)
    """the graphs whose number of arms varies"""
    wide: Training = Training(width=32, layers=4, steps=1_000)
    """their network and budget"""
    arms: tuple[int, ...] = (2, 3, 5)
    """numbers of arms, causal mask"""
    size: Size = Size()
    """the graphs of `objectives.py`"""
    training: Training = Training(steps=5_000)
    """its network, with half of the budget"""
    lengths: tuple[int, int] = (3, 4)
    """two lengths of arms, both masks"""
    trainings: int = 20  # 4 of them added later, since fresh seeds must give every verdict again
    """independent trainings for each number of arms"""
    short_trainings: int = 96
    """independent trainings on the shorter arms"""
    long_trainings: int = 40
    """independent trainings on the longer arms"""


TASK = Task(
    SLUG,
    paper=PAPER,
    # 2026 showed that 2,000 updates are few for one hop under the causal mask; the budget was chosen on pilot seeds (root 0).
    # Trainings beyond 48 (shorter arms) and 20 (longer arms) were added later, since fresh seeds must give the verdict again.
    root=2027,
    presets={
        "smoke": Config(
            wide=replace(SMOKE_TRAINING, steps=8),
            arms=(2, 3),
            training=replace(SMOKE_TRAINING, steps=8),
            trainings=2,
            short_trainings=2,
            long_trainings=2,
        ),
        "ci": Config(),
        "paper": Config(
            wide_size=PAPER_SIZE,
            wide=PAPER_TRAINING,
            arms=(2, 5, 10, 20),
            size=PAPER_SIZE,
            training=PAPER_TRAINING,
            lengths=(3, 5),
        ),
    },
)


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=16)
def by_arms(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Standard training on graphs with two arms and more, causal mask: arrays [seed, arms, ...]."""
    trained = []
    for arms in config.arms:
        comparison = Comparison(("standard",), ("causal",), config.wide_size.resized(arms=arms), config.wide)
        trained.append(xr.Dataset(comparison.fit(seeds, f"arms{arms}")).sel(objective="standard", drop=True))
    together = xr.concat(trained, xr.DataArray(list(config.arms), dims="arms", name="arms"))
    return {str(key): values for key, values in together.transpose("seed", "arms", ...).items()}


def at_length(config: Config, length: int, seeds: Sequence[int]) -> LabelledArrays:
    """Standard training at a length of the arms, under both masks."""
    comparison = Comparison(("standard",), MASKS, config.size.resized(length=length), config.training)
    return comparison.fit(seeds, f"length{length}")


@TASK.measurement(seeds=lambda config: config.short_trainings, ensemble=True, seeds_per_job=24)
def shorter_arms(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Graphs whose arms need one hop of look-ahead."""
    return at_length(config, config.lengths[0], seeds)


@TASK.measurement(seeds=lambda config: config.long_trainings, ensemble=True, seeds_per_job=20)
def longer_arms(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Graphs whose arms need more."""
    return at_length(config, config.lengths[1], seeds)


@TASK.claim(
    "next-token-pitfalls/T1.d",
    where="Section 6 (standard training), Figure 3; the graph with three arms is ours",
    kind="training",
    statement=r"With more arms the accuracy of standard training is lower, as $1/d$ is: after 1,000 updates it is $1/d$ to within a "
    r"quarter of itself on $G(2,5)$, $G(3,5)$ and $G(5,5)$, causal mask, and not what independent errors of the cheat's mean would leave.",
    controls=[
        control("the law of independent errors instead of 1/d", law="snowball"),
        control("the law of two arms, 1/2, for every d", law="two arms"),
    ],
)
def accuracy_falls_with_the_arms(results: Results, law: str = "cheat") -> Evidence:
    config, arms = results.config, torch.tensor(results.config.arms)
    laws = {
        "cheat": 1 / arms.double(),
        "snowball": theory.cheat_as_snowball(arms, torch.full_like(arms, config.wide_size.length)),
        "two arms": torch.full(arms.shape, 0.5),
    }
    exact = results[by_arms]["exact"].sel(mask="causal")
    origin = "1/d to within a quarter; chosen on pilot seeds (root 0), judged on fresh ones"
    return Evidence.all(
        *(
            Evidence.equals(exact.sel(arms=many), value, 0.25, origin)
            for many, value in zip(config.arms, laws[law].tolist(), strict=True)
        )
    )


@TASK.figure
def accuracy_by_number_of_arms(results: Results) -> Sheet:
    """Accuracy of standard training against the number of arms, with 1/d and the snowball of the same mean error."""
    exact, length = results[by_arms]["exact"].sel(mask="causal"), results.config.wide_size.length
    fine = torch.arange(2, int(exact["arms"].max()) + 1)
    sheet = Sheet(width=5.2)
    panel = sheet.panel(
        "Standard training guesses the arm",
        x="arms d",
        y=f"share of answers right, {results.config.wide.steps} updates",
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
def training_loss_by_arms(results: Results) -> Sheet:
    """Training loss of standard training by number of arms, against its floor without a plan."""
    losses, config = results[by_arms]["training loss"].sel(mask="causal"), results.config
    sheet = Sheet(width=5.2)
    panel = sheet.panel(
        "More arms: a higher floor, not reached in this time",
        x=f"updates of {config.wide.batch} graphs",
        y="training loss, nats a node",
        scale=("linear", "log"),
        legend="upper right",
    )
    for many in losses["arms"].values.tolist():
        panel.curve(losses.sel(arms=many), over="update", name=f"d = {many}")
    for many in losses["arms"].values.tolist():
        floor = theory.cheat_loss(many, config.wide_size.length)
        panel.theory(config.wide.checks, [floor] * len(config.wide.checks), name="floors ln d / (l - 1)")
        panel.text(f"d = {many}", max(config.wide.checks), floor, align="right")
    return sheet


# %%
TASK.show(accuracy_falls_with_the_arms)
TASK.show(accuracy_by_number_of_arms)
TASK.show(training_loss_by_arms)

# %% [markdown]
# ## Shorter arms
#
# With one hop of look-ahead, $l = 3$, a single edge tells the first step, and standard training finds it, soon under
# the prefix mask and later under the causal one; with two hops it mostly does not, in the same number of updates.
# What `partial_credit.py` counts is the difference.
# %%


@TASK.claim(
    "next-token-pitfalls/T1.hops",
    where="derived (one hop of look-ahead)",
    kind="training",
    statement=r"Standard training that needs one hop of look-ahead ($l=3$) answers nine in ten graphs within 5,000 updates, in most "
    r"trainings under either mask.",
    controls=[control("two hops, l = 4", longer=True)],
)
def one_hop_is_learnt(results: Results, longer: bool = False) -> Evidence:
    escaped = results[longer_arms if longer else shorter_arms]["escaped"].sel(objective="standard")
    return Evidence.all(*(most(escaped.sel(mask=mask)) for mask in MASKS))


@TASK.figure
def accuracy_by_length(results: Results) -> Sheet:
    """Accuracy of standard training over its updates by the length of the arms, under both masks (validation graphs)."""
    config = results.config
    sheet = Sheet(columns=2, width=4.8)
    for length, measurement in zip(config.lengths, (shorter_arms, longer_arms), strict=True):
        curves = results[measurement]["curve"].sel(objective="standard")
        panel = sheet.panel(
            f"l = {length}: " + ("one hop back is learnt" if length == 3 else "two hops are not, in this time"),
            x=f"updates of {config.training.batch} graphs",
            y="share of graphs right",
            ylim=(-0.03, 1.03),
            legend="lower right",
        )
        for mask in MASKS:
            panel.curve(curves.sel(mask=mask), over="update", arm=mask, within=(0, 1))
        panel.level(1 / config.size.arms, "a guess, 1/d")
    return sheet


# %%
TASK.show(one_hop_is_learnt)
TASK.show(accuracy_by_length)

# %% [markdown]
# ## All verdicts

# %%
TASK.show()
