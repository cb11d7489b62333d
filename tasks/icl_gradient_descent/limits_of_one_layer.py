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
# # What one layer cannot do: tell the masks apart, or beat the best step
#
# Two statements are about one layer and need trainings of several parts for their checks and controls: that the
# mask changes nothing there, and that no such layer beats the best gradient step.

# %%
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from lab import Evidence, Task, control
from lab.results import Results
from lab.statistics import rounding_bound
from lab.tasks import PRESETS
from tasks.icl_gradient_descent import one_layer, sine_curves, softmax_heads, two_layers
from tasks.icl_gradient_descent._shared import PAPER, Experiment


@dataclass(frozen=True)
class Config:
    """Sizes of the trainings of other parts that are looked at here."""

    one_layer: one_layer.Config = one_layer.CI
    """one layer of linear attention"""
    two_layers: two_layers.Config = two_layers.CI
    """two layers, for the controls"""
    softmax: Experiment = softmax_heads.CI
    """softmax attention, and linear attention behind a layer norm"""
    sine: sine_curves.Config = sine_curves.CI
    """linear attention behind a front end"""


TASK = Task(
    "icl-gradient-descent",
    PAPER,
    {
        preset: Config(*(part.TASK.presets[preset] for part in (one_layer, two_layers, softmax_heads, sine_curves)))
        for preset in PRESETS
    },
)


PARTS = {
    "one_layer": (one_layer.TASK, one_layer.one_layer),
    "two_layers": (two_layers.TASK, two_layers.two_layers),
    "softmax": (softmax_heads.TASK, softmax_heads.softmax_heads),
    "sine": (sine_curves.TASK, sine_curves.sine),
}


def trained(results: Results, part: str) -> xr.Dataset:
    """What another part has measured at the sizes named here."""
    task, measurement = PARTS[part]
    return Results(task, getattr(results.config, part), results.session)[measurement]


@TASK.claim(
    "icl-gradient-descent/T3.mask",
    where="derived",
    kind="identity",
    statement=(
        "For one layer the prefix and the causal mask are one function of the query: trained layers of linear attention, of "
        "softmax attention, behind a layer norm and behind a front end answer the same under both."
    ),
    controls=[control("two layers", parts=("two_layers",))],
)
def masks_agree_for_one_layer(results: Results, parts: Sequence[str] = ("one_layer", "softmax", "sine")) -> Evidence:
    config = results.config
    # Chains of products over the width and sums over the tokens, in query, key, score, value, output, twice.
    chain = 2 * 4 * (config.sine.features + 1 + config.one_layer.context_length)
    return Evidence.exact(
        max(float(trained(results, part)["mask difference"].max()) for part in parts),
        "<=",
        rounding_bound(chain, 1.0, np.float32),
        "rounding of the same sums in single precision, relative to the largest answer",
    )


@TASK.claim(
    "icl-gradient-descent/T3b",
    where="Ahn et al. 2023, Theorem 1, as a lower bound",
    kind="training",
    statement=(
        "Trained layers of linear attention do not have a loss below that of the best gradient step on the same fresh "
        "prompts, up to what a test of that size can tell."
    ),
    controls=[control("two layers, to which the bound does not apply", part="two_layers")],
)
def no_layer_beats_the_step(results: Results, part: str = "one_layer") -> Evidence:
    losses, config = trained(results, part), getattr(results.config, part)
    chosen = {"length": config.context_length} if part == "one_layer" else {"arm": "prefix"}
    excess = (losses["loss"] / losses["descent"] - 1).sel(chosen)
    return Evidence.over_seeds(
        excess,
        ">=",
        -float(np.sqrt(2 / config.test_prompts)),
        "least relative standard error of a mean of squares of normal numbers over the test; lower means a leak of labels",
    )


# %%
TASK.show(masks_agree_for_one_layer)
TASK.show(no_layer_beats_the_step)

# %%
TASK.show()
