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
# # Two conditions of the cure
#
# Teacherless training solves what standard training only guesses (`objectives.py`). Two things are taken away
# from it here, one at a time.
#
# *Fresh graphs.* On a small fixed set both objectives learn the graphs by heart: the training loss falls
# below the floor that an honest cheat cannot pass, and new graphs are no better than a guess. *Labels that
# belong to the graph.* If the middle nodes of teacherless targets are taken from other graphs, the hops are
# no longer taught, and the first step falls back to a guess although its own labels are right.
#
# Both matter for what may be concluded: the remedy works on data without end. With 200,000 fixed graphs, many
# arms and large networks, plain multi-token prediction has been reported to gain little.
# %%
from __future__ import annotations

from dataclasses import dataclass, replace

from lab import Evidence, Task, control
from lab.domains.graphs.path_star import cheat_loss
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
    is_a_guess,
)


@dataclass(frozen=True)
class Config:
    """Graphs, network and budget, all under the prefix mask."""

    size: Size = Size()
    """the graphs"""
    training: Training = Training()
    """the network and its budget, those of `objectives.py`, from the same weights"""
    pool: int = 100
    """graphs of the fixed set"""
    pool_steps: int = 160
    """updates on the fixed set"""
    trainings: int = 8
    """independent trainings on fresh graphs"""
    pool_trainings: int = 5
    """independent trainings on fixed graphs"""


TASK = Task(
    SLUG,
    paper=PAPER,
    presets={
        "smoke": Config(training=SMOKE_TRAINING, pool_steps=8, trainings=2, pool_trainings=2),
        "ci": Config(),
        "paper": Config(size=PAPER_SIZE, training=PAPER_TRAINING, pool=200_000, pool_steps=PAPER_TRAINING.steps),
    },
)
LEARNT = ("standard", "teacherless")


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=8)
def fresh_graphs(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Training on fresh graphs, with the graphs' own targets and with middle ones of other graphs."""
    return Comparison((*LEARNT, "shuffled"), ("prefix",), config.size, config.training).fit(seeds, "fresh")


@TASK.measurement(seeds=lambda config: config.pool_trainings, ensemble=True, seeds_per_job=5)
def fixed_graphs(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Training on a small fixed set of graphs, judged on new ones."""
    training = replace(config.training, steps=config.pool_steps)
    return Comparison(LEARNT, ("prefix",), config.size, training, pool=config.pool).fit(seeds, "fixed")


@TASK.claim(
    "next-token-pitfalls/T6a",
    where="derived (fixed data)",
    kind="phenomenon",
    statement=r"On a small fixed set of graphs standard training gets below the floor $\ln d/(l-1)$ by heart and gains nothing on "
    r"new graphs, and teacherless training no longer solves new graphs either (both below half-way between $1/d$ and $1$).",
    controls=[control("fresh graphs", fresh=True)],
)
def fixed_graphs_are_learnt_by_heart(results: Results, fresh: bool = False) -> Evidence:
    size = results.config.size
    measured = results[fresh_graphs if fresh else fixed_graphs].sel(mask="prefix")
    loss = measured["training loss"].sel(objective="standard").isel(update=-1)
    floor, half_way = cheat_loss(size.arms, size.length), (1 + 1 / size.arms) / 2
    return Evidence.all(
        Evidence.over_seeds(loss, "<=", floor, "ln d / (l - 1), the least loss without a plan"),
        *(
            Evidence.over_seeds(
                measured["exact"].sel(objective=objective), "<=", half_way, "half-way between 1/d and 1"
            )
            for objective in LEARNT
        ),
    )


@TASK.claim(
    "next-token-pitfalls/T6b",
    where="derived (what the intermediate targets teach)",
    kind="phenomenon",
    statement=r"With the middle targets of teacherless training taken from other graphs, the first step falls back to a guess, "
    r"$1/d$, although its own targets are right.",
    controls=[control("targets of the graph itself", targets="teacherless")],
)
def shuffled_hops_teach_nothing(results: Results, targets: str = "shuffled") -> Evidence:
    steps = results[fresh_graphs]["step accuracy"].sel(objective=targets, mask="prefix")
    return is_a_guess(steps.sel(step=1), results.config.size.arms)


@TASK.figure
def loss_on_fixed_graphs(results: Results) -> Sheet:
    """Training loss of standard training on fresh and on fixed graphs, against its floor without a plan; and each step of
    teacherless training, with the graphs' own targets and with middle ones of other graphs."""
    config = results.config
    fresh, fixed = (results[measurement].sel(mask="prefix") for measurement in (fresh_graphs, fixed_graphs))
    sheet = Sheet(columns=2, width=5.0)
    panel = sheet.panel(
        "Fresh graphs: towards the floor, not below",
        x=f"updates of {config.training.batch} graphs",
        y="training loss, nats a node",
        scale=("linear", "log"),
        legend="upper right",
    )
    panel.curve(fresh["training loss"].sel(objective="standard"), over="update", name="standard, fresh graphs")
    panel.curve(
        fixed["training loss"].sel(objective="standard"), over="update", name=f"standard, {config.pool} fixed graphs"
    )
    panel.level(cheat_loss(config.size.arms, config.size.length), "floor ln d / (l - 1)")
    panel = sheet.panel(
        "Wrong middle targets: the first step is a guess",
        x="step of the answer",
        y="share right",
        ylim=(0, 1.05),
        xticks=range(1, config.size.length),
        legend="outside",
    )
    for place, (objective, name) in enumerate(
        (("teacherless", "own targets"), ("shuffled", "middle ones of other graphs"))
    ):
        panel.bars(
            fresh["step accuracy"].sel(objective=objective), over="step", name=name, slot=(place, 2), within=(0, 1)
        )
    panel.level(1 / config.size.arms, "a guess, 1/d")
    return sheet


# %%
TASK.show(fixed_graphs_are_learnt_by_heart)
TASK.show(shuffled_hops_teach_nothing)
TASK.show(loss_on_fixed_graphs)

# %% [markdown]
# ## All verdicts

# %%
TASK.show()
