"""Which prompts there are to diagnose on: by name, by the task that they are of, or in a file of one's own.

A task's file offers prompts of its own by holding a setting at its top level.
"""

from __future__ import annotations

import sys

from lab.catalogue import discover, find_parts
from lab.diagnosis.regression_settings import Functions, Mixture, Regression
from lab.diagnosis.setting import Setting
from lab.diagnosis.state_settings import NextState
from lab.diagnosis.token_settings import Chains, ColumnAddition, LatentGraph, Navigation, PathStar, SwitchingChains
from lab.errors import LabError, nearest

__all__ = ["SETTINGS", "Chains", "Regression", "Setting", "find_setting"]

SETTINGS: dict[str, Setting] = {
    "linear-regression": Regression(),
    "regression-mixtures": Mixture(),
    "function-classes": Functions(),
    "markov-chains": Chains(),
    "switching-chains": SwitchingChains(),
    "latent-graph": LatentGraph(),
    "navigation": Navigation(),
    "path-star": PathStar(),
    "column-addition": ColumnAddition(),
    "next-state": NextState(),
}
# Tasks whose prompts have another name here.
OF_TASKS = {
    "addition-length-generalization": "column-addition",
    "causal-structure": "latent-graph",
    "icl-function-classes": "function-classes",
    "icl-gradient-descent": "linear-regression",
    "mesa-optimization": "next-state",
    "next-token-pitfalls": "path-star",
    "stepwise-graph-navigation": "navigation",
}


def find_setting(name: str) -> Setting:
    """The setting called ``name``, or the one of the task of that name, or that a file holds at the top level of a part.

    Raises:
        LabError: there is no such setting or task, or the task offers no setting, or several.
    """
    name = OF_TASKS.get(name, name)
    if name in SETTINGS:
        return SETTINGS[name]
    if not name.endswith(".py"):
        tasks = [task for task in discover() if task.place == "tasks"]
        known = [*SETTINGS, *dict.fromkeys(name for task in tasks for name in (task.name, task.key))]
        if name not in known:
            raise LabError(f"unknown task {name!r}{nearest(name, known)}; tasks are {', '.join(known)}")
    parts = find_parts(name)
    values = [value for part in parts for value in vars(sys.modules[part.module]).values()]
    settings = [value for value in values if isinstance(value, Setting)]
    if len(settings) != 1:
        raise LabError(
            f"the task {name} offers {len(settings)} settings to diagnose on but it must be one; give one of {', '.join(SETTINGS)}, "
            f"or put a lab.diagnosis.settings.Regression or Chains at the top level of {parts[0].file.name}"
        )
    return settings[0]
