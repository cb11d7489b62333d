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
# # The prefix arm loses time
#
# This compares the joint training of `joint_training` with the staged one of `staged_training`. At first the
# gradient of a row is divided by the number of tokens that the node sees, and an early node sees many more of
# them under a prefix mask: at one rate for all rows the lag is arithmetic, and says nothing of what can be
# learnt. On pairs that is all there is to it (no node has a parent *and* a child), and with
# rates that make up for it, as in the staged algorithm, the lag is gone. On the chain the child competes as
# well, and some prefix trainings have not decided by the end.

# %%
from __future__ import annotations

from dataclasses import dataclass

from lab import Evidence, Task, control
from lab.results import Results
from lab.tasks import PRESETS
from tasks.causal_structure import joint_training, staged_training
from tasks.causal_structure._shared import PAPER


@dataclass(frozen=True)
class Config:
    """Sizes of the two parts whose trainings are compared here."""

    joint: joint_training.Config = joint_training.Config()
    """all weights together"""
    staged: staged_training.Config = staged_training.Config()
    """one matrix after the other"""


TASK = Task(
    "causal-structure",
    paper=PAPER,
    root=2027,
    presets={
        preset: Config(joint_training.TASK.presets[preset], staged_training.TASK.presets[preset]) for preset in PRESETS
    },
)


@TASK.claim(
    "causal-structure/P2.joint",
    where="derived: the same joint training under a mask that is bidirectional over the context",
    kind="phenomenon",
    statement=r"Trained together at one rate for all rows, the prefix arm is the slower one, as gradients divided by the "
    r"number of visible tokens make it: on average over the first half of 1,200 updates it has less attention on the "
    r"parents than the causal arm, on chain and on pairs.",
    controls=[control("staged training, with rates that make up for the tokens a node sees", staged=True)],
)
def prefix_is_slower(results: Results, staged: bool = False) -> Evidence:
    joint = Results(joint_training.TASK, results.config.joint, results.session)
    in_stages = Results(staged_training.TASK, results.config.staged, results.session)
    if staged:
        runs = [in_stages[staged_training.staged_pairs]]
    else:
        runs = [joint[joint_training.joint_chain], joint[joint_training.joint_pairs]]
    parts = []
    for measured in runs:
        updates = measured["update"]
        early = measured["on_parent"].sel(update=updates[: len(updates) // 2]).mean("update")
        lead = early.sel(arm="causal") - early.sel(arm="prefix")
        parts.append(Evidence.over_seeds(lead, ">", 0, "the causal arm's attention over the same steps"))
    return Evidence.all(*parts)


# %%
TASK.show(prefix_is_slower)
