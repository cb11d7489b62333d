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
# mask changes nothing there, and that no such layer beats the best gradient step. The second is a law (T2.isotropic: the
# excess of any layer is a sum of two squares); here sampled losses of trained layers are held against it. A leak of labels
# into the test would show as a loss below it.

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
from tasks.icl_gradient_descent._shared import PAPER, ROOT, Experiment


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
    root=ROOT,
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
        "On fresh prompts the loss of trained layers of linear attention is that of the best gradient step on the same prompts "
        "plus the excess that their weights have by the law of T2.isotropic, which is never below 0; to within 1 % of the loss."
    ),
    controls=[
        control("the query and its label among the examples", loss="loss with a leak"),
        control("two layers, to which the bound does not apply", part="two_layers"),
    ],
)
def no_layer_beats_the_step(results: Results, part: str = "one_layer", loss: str = "loss") -> Evidence:
    losses, config = trained(results, part), getattr(results.config, part)
    if part == "one_layer":
        losses = losses.sel(length=config.context_length)
        law = losses["expected"] / config.step_loss() - 1
    else:
        losses, law = losses.sel(arm="prefix"), 0.0
    sampled = (losses[loss] - losses["descent"]) / config.step_loss()
    return Evidence.equals(
        sampled - law,
        0.0,
        0.01,
        "the closed form of the excess; a hundredth of the step's loss either way",
        absolute=True,
    )


# %%
TASK.show(masks_agree_for_one_layer)
TASK.show(no_layer_beats_the_step)

# %%
TASK.show()
