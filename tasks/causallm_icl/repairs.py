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
# # What would repair the causal network
#
# Its answer depends on the order of the examples, so one could average over many orders; or show the context several times,
# which continues the pass. Averaging helps a little and saturates. Repeating converges to least squares without noise, and
# stalls above it with noise.

# %%
from __future__ import annotations

from dataclasses import dataclass

import xarray as xr

from lab import Evidence, Task, control
from lab.domains.regression.kaczmarz import averaged_kaczmarz, kaczmarz
from lab.domains.regression.least_squares import least_squares
from lab.labels import LabelledArrays, labelled
from lab.predictors import RegressionPredictor
from lab.results import Results
from lab.streams import stream
from tasks.causallm_icl._shared import PAPER, SLUG, Numerics, numerical_prompts


@dataclass(frozen=True)
class Config(Numerics):
    """Sizes of this part."""

    draws: int = 16
    """independent draws (seeds)"""
    noises: tuple[float, ...] = (0.0, 0.5)
    """standard deviations of the label noise: none, and most"""
    orders: tuple[int, ...] = (1, 4, 64)
    """random orders of the context that are averaged over"""
    passes: tuple[int, ...] = (1, 2, 5, 50)
    """times that the context is gone through"""


TASK = Task(SLUG, PAPER, {"smoke": Config(draws=8, sequences=4, queries=4), "ci": Config(), "paper": Config(draws=32)})


@TASK.measurement(seeds=lambda config: config.draws)
def repairs(config: Config, seed: int) -> LabelledArrays:
    """Query errors by label noise: of averaging over orders, of repeating the context, of least squares."""
    predictors: dict[str, list[RegressionPredictor]] = {
        "averaged": [averaged_kaczmarz(orders, stream(seed, "orders")) for orders in config.orders],
        "repeated": [kaczmarz(passes=passes) for passes in config.passes],
        "least_squares": [least_squares()],
    }
    errors: dict[str, list[list[float]]] = {name: [] for name in predictors}
    for noise in config.noises:
        prompts = numerical_prompts(config, seed, noise=noise)
        shown = prompts.x_context, prompts.y_context, prompts.x_query
        for name, chosen in predictors.items():
            errors[name].append([float((one(*shown) - prompts.y_query).square().mean()) for one in chosen])
    return {
        "averaged": labelled(errors["averaged"], noise=config.noises, orders=config.orders),
        "repeated": labelled(errors["repeated"], noise=config.noises, passes=config.passes),
        "least_squares": labelled([row[0] for row in errors["least_squares"]], noise=config.noises),
    }


def share_left(errors: xr.DataArray) -> xr.DataArray:
    """Of errors by effort (orders, or passes), the last over the first, which is one order or one pass."""
    (effort,) = set(errors.dims) - {"seed"}
    return errors.isel({effort: -1}, drop=True) / errors.isel({effort: 0}, drop=True)


@TASK.claim(
    "causallm-icl/O5",
    where="derived",
    kind="ordering",
    statement="Averaging the causal predictions over 64 random orders of the context lowers the error, but leaves more than a "
    "quarter of it, although least squares has none (no label noise).",
    controls=[control("the context repeated 50 times instead", repair="repeated")],
)
def averaging_orders_is_not_enough(results: Results, repair: str = "averaged") -> Evidence:
    left = share_left(results[repairs][repair].sel(noise=0.0))
    return Evidence.all(
        Evidence.over_seeds(left, ">", 0.25, "share of the error that is left"),
        Evidence.over_seeds(left, "<", 1.0, "share of the error that is left"),
    )


@TASK.claim(
    "causallm-icl/O5.passes",
    where="derived",
    kind="ordering",
    statement="Going through the context 50 times closes the gap to least squares when labels are clean, to below a hundredth of the "
    "one-pass error.",
    controls=[
        control("noisy labels, where further passes stall", noise=0.5),
        control("64 random orders averaged instead", repair="averaged"),
    ],
)
def repeating_closes_the_gap(results: Results, repair: str = "repeated", noise: float = 0.0) -> Evidence:
    errors = results[repairs].sel(noise=noise)
    left = share_left(errors[repair] - errors.least_squares)
    return Evidence.over_seeds(left, "<", 0.01, "share of the excess error that is left")


# %%
TASK.show(averaging_orders_is_not_enough)
TASK.show(repeating_closes_the_gap)

# %%
TASK.show()
