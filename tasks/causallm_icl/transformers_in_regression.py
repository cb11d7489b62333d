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
# # Softmax transformers: linear regression
#
# The same comparison with an ordinary small transformer: softmax attention, MLP, nothing written by hand. The task is linear
# regression, layers are shared (SL in the paper) or not (UL), prefix against causal. Both arms of every seed start from the
# same weights and are trained on the same prompts.

# %%
from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.regression.gradient_descent import gradient_descent_path
from lab.domains.regression.kaczmarz import kaczmarz
from lab.domains.regression.least_squares import least_squares, predict, ridge
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.results import Results
from lab.streams import stream
from tasks.causallm_icl._shared import (
    EXCHANGED,
    PAPER,
    PAPER_SOFTMAX,
    SLUG,
    SMOKE_SOFTMAX,
    Softmax,
    arm_masks,
    exchanged_labels_errors,
    fit_both_sharings,
    log_ratio,
    new_prompts,
    one_layer_errors,
    probe_errors,
    sample,
    softmax_study,
    squared_error,
    training_prompts,
)


@dataclass(frozen=True)
class Config:
    """Sizes of this part."""

    softmax: Softmax = Softmax()
    """networks and prompts"""
    trainings: int = 12
    """independent trainings an arm"""
    pools: tuple[int, ...] = (16,)
    """numbers of training prompts in the memorisation experiment"""
    pool_batch: int = 16
    """prompts a step there"""
    pool_steps: int = 350
    """its steps"""
    pool_heads: int = 1
    """heads of the networks there, which memorise the order of examples better with one"""
    pool_trainings: int = 20
    """independent trainings an arm there"""


TASK = Task(
    SLUG,
    PAPER,
    {
        "smoke": Config(SMOKE_SOFTMAX, trainings=2, pools=(4,), pool_batch=4, pool_steps=6, pool_trainings=2),
        "ci": Config(),
        "paper": Config(PAPER_SOFTMAX, pools=(640, 1920, 6400), pool_batch=64, pool_steps=100_000, pool_heads=2),
    },
)


def shorter_contexts(sizes: Softmax) -> tuple[int, ...]:
    """Numbers of examples 0.4, 0.6 and 0.8 of those in training, as 16, 24 and 32 are of the paper's 40."""
    return tuple(max(2, round(share * sizes.context_length)) for share in (0.4, 0.6, 0.8))


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=6)
def trained_transformers(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Errors by sharing of layers and arm: of the test, under the other arm's mask, on shorter contexts, on the last training
    prompts, and of linear probes of every layer."""
    sizes = config.softmax
    tests = new_prompts(sizes, "linear", seeds)
    train = training_prompts(sizes, "linear", seeds)
    last = sizes.optimisation.steps
    errors: dict[str, list[xr.DataArray]] = {name: [] for name in ("test", "exchanged", "shorter", "seen", "probe")}
    trained = fit_both_sharings(sizes, "linear", seeds)
    for fitted in trained.values():
        errors["test"].append(fitted.ask(tests, squared_error))
        errors["exchanged"].append(fitted.ask(tests, squared_error, read=EXCHANGED))
        by_length = [
            fitted.ask(
                new_prompts(sizes, "linear", seeds, length=length), squared_error, read=arm_masks(length, sizes.queries)
            ).expand_dims(examples=[length], axis=-1)
            for length in shorter_contexts(sizes)
        ]
        errors["shorter"].append(xr.concat(by_length, "examples"))
        recent = [
            fitted.ask({seed: train(seed, step) for seed in seeds}, squared_error)
            for step in range(max(last - 5, 0), last)
        ]
        errors["seen"].append(xr.concat(recent, "step").mean("step"))
        errors["probe"].append(probe_errors(sizes, fitted, "linear", seeds))
    return {
        name: xr.concat(values, "layers").assign_coords(layers=list(trained)).transpose("seed", "layers", "arm", ...)
        for name, values in errors.items()
    }


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=6)
def transformers_that_cannot_differ(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Test errors by arm of one-layer networks, and of networks trained on labels of other prompts."""
    return {
        "one_layer": one_layer_errors(config.softmax, "linear", seeds),
        "exchanged": exchanged_labels_errors(config.softmax, "linear", seeds),
    }


@TASK.measurement(seeds=lambda config: config.trainings)
def references(config: Config, seed: int) -> LabelledArrays:
    """Test errors of the closed forms, by predictor."""
    sizes = config.softmax
    prompts = sample(sizes, "linear", stream(seed, "test"), sizes.test_prompts)
    shown = prompts.x_context.double(), prompts.y_context.double(), prompts.x_query.double()
    answers = {
        "least squares": least_squares()(*shown),
        "ridge": ridge(0.1)(*shown),
        "gradient descent, a step a layer": descend(*shown, steps=sizes.architecture.layers),
        "one pass of Kaczmarz": kaczmarz()(*shown),
        "zero": torch.zeros_like(shown[2][..., 0]),
    }
    errors = [float((answer - prompts.y_query).square().mean()) for answer in answers.values()]
    return {"error": labelled(errors, predictor=list(answers))}


def descend(x: Tensor, y: Tensor, queries: Tensor, *, steps: int) -> Tensor:
    """Gradient descent with the largest safe step size of each prompt, 1 over its largest eigenvalue."""
    scale = 1 / torch.linalg.matrix_norm(x, 2)
    # Rescaling inputs and labels by the root of the step size makes it 1 for every prompt.
    path = gradient_descent_path(x * scale[:, None, None], y * scale[:, None], step=1.0, steps=steps)
    return predict(path[-1], queries)


@TASK.figure
def trained_errors(results: Results) -> Sheet:
    """Test errors of transformers trained on linear regression beside the closed forms: under the prefix mask they are smaller."""
    errors, closed_forms = results[trained_transformers].test, results[references].error.mean("seed")
    sheet = Sheet(width=6.0, height=3.8)
    panel = sheet.panel(
        "linear regression: prefix is ahead",
        x="weights of the layers",
        y="mean squared query error",
        scale=("linear", "log"),
    )
    for slot, arm in enumerate(("prefix", "causal")):
        samples = {name: errors.sel(arm=arm, layers=name) for name in errors.layers.values}
        panel.bars(samples, arm=arm, slot=(slot, 2), dots=True)
    for look, predictor in enumerate(closed_forms.predictor.values):
        value = float(closed_forms.sel(predictor=predictor))
        if value > 1e-6:
            panel.level(value, name=predictor, look=look)
    return sheet


CANNOT_DIFFER = [
    control("one layer, where the masks are one function of the query", trained="one_layer"),
    control("examples labelled by another prompt's weights", trained="exchanged"),
]


@TASK.claim(
    "causallm-icl/S1",
    where="Table 1, linear regression",
    kind="training",
    statement="Trained on in-context linear regression, a softmax transformer reaches a smaller query error under the prefix mask than "
    "under the causal one, by a factor of more than $1.3$ (geometric mean over shared and unshared layers).",
    controls=[*CANNOT_DIFFER, control("the prefix network, read under the causal mask", trained="misread")],
)
def prefix_is_ahead_in_regression(results: Results, trained: str = "fully") -> Evidence:
    errors = results[trained_transformers]
    if trained == "fully":
        ratio = log_ratio(errors.test).mean("layers")
    elif trained == "misread":
        own, other = errors.test.sel(arm="causal"), errors.exchanged.sel(arm="prefix")
        ratio = np.log(own.drop_vars("arm") / other.drop_vars("arm")).mean("layers")
    else:
        ratio = log_ratio(results[transformers_that_cannot_differ][trained])
    return Evidence.over_seeds(ratio, ">", float(np.log(1.3)), "log ratio causal / prefix")


# %%
TASK.show(trained_errors)
TASK.show(prefix_is_ahead_in_regression)

# %% [markdown]
# ## Inside the networks, and away from their training
#
# A linear probe of every layer shows where the two part; and the prefix network stays ahead where fewer examples are shown
# than in training.


# %%
@TASK.figure
def probes_by_layer(results: Results) -> Sheet:
    """Error of the best linear read-out of every layer (shared layers): the causal network flattens earlier."""
    errors = results[trained_transformers].probe.sel(layers="shared")
    sheet = Sheet(width=5.6, height=4.0)
    panel = sheet.panel(
        "both fall at first; the causal network flattens earlier",
        x="layer",
        y="mean squared query error of a linear probe",
        scale=("linear", "log"),
    )
    for arm in ("prefix", "causal"):
        panel.curve(errors.sel(arm=arm), over="layer", arm=arm, middle="geometric mean")
    return sheet


@TASK.claim(
    "causallm-icl/S2",
    where="Figure 3",
    kind="phenomenon",
    statement="The error of a linear probe falls by a larger factor from the first layer to the last in the prefix network than in "
    "the causal one (shared layers, linear regression).",
    controls=[control("the two networks exchanged", flatter="prefix")],
)
def causal_probe_flattens(results: Results, flatter: str = "causal") -> Evidence:
    gap = log_ratio(results[trained_transformers].probe.sel(layers="shared", drop=True))
    growth = gap.isel(layer=-1, drop=True) - gap.sel(layer=1, drop=True)
    sign = 1 if flatter == "causal" else -1
    return Evidence.over_seeds(sign * growth, ">", 0.0, "growth of the log ratio of errors, layer 1 to the last")


@TASK.claim(
    "causallm-icl/S4",
    where="Appendix E.4, Tables 4 to 6",
    kind="training",
    statement="With fewer examples than in training (0.4, 0.6 and 0.8 of them) the prefix network stays ahead on linear regression "
    "(mean over the three and over shared and unshared layers).",
    controls=[control("each network read under the other's mask", masks="exchanged")],
)
def prefix_is_ahead_on_shorter_contexts(results: Results, masks: str = "own") -> Evidence:
    errors = results[trained_transformers]
    ratio = log_ratio(errors.shorter).mean("examples") if masks == "own" else log_ratio(errors.exchanged)
    return Evidence.over_seeds(ratio.mean("layers"), ">", 0.0, "log ratio causal / prefix")


# %%
TASK.show(probes_by_layer)
TASK.show(causal_probe_flattens)
TASK.show(prefix_is_ahead_on_shorter_contexts)

# %% [markdown]
# ## Few training prompts
#
# With few training prompts both networks memorise; permuting the examples at every step shows the causal network orders it has
# not seen, and changes nothing for the prefix network, which has no positions and sees no order. (With fresh prompts at every
# step there is nothing to permute: independent examples are exchangeable already.)


# %%
@TASK.measurement(seeds=lambda config: config.pool_trainings, ensemble=True, seeds_per_job=10)
def few_prompts(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Errors of networks trained on a fixed pool of prompts, on new prompts (``test``) and on the pool (``training``); and of the
    smallest pool with its contexts permuted at every step."""
    errors: dict[str, list[xr.DataArray]] = {"test": [], "training": []}
    # Permuting is tried on the smallest pool, where there is most to gain.
    settings = [(pool, False) for pool in config.pools] + [(config.pools[0], True)]
    for pool, permuted in settings:
        architecture = replace(config.softmax.architecture, heads=config.pool_heads)
        sizes = replace(config.softmax, architecture=architecture, batch=config.pool_batch, pool=pool)
        fitted = softmax_study(sizes, "linear", shared=False).fit(
            seeds,
            training_prompts(sizes, "linear", seeds, permuted=permuted),
            replace(sizes.optimisation, steps=config.pool_steps),
            name=f"{pool} prompts{', permuted' if permuted else ''}",
        )
        errors["test"].append(fitted.ask(new_prompts(sizes, "linear", seeds), squared_error))
        known = {seed: sample(sizes, "linear", stream(seed, "pool"), pool) for seed in seeds}
        errors["training"].append(fitted.ask(known, squared_error))

    def joined(values: list[xr.DataArray]) -> xr.DataArray:
        return xr.concat(values, "pool").assign_coords(pool=list(config.pools)).transpose("seed", "pool", "arm")

    plain = {name: joined(values[:-1]) for name, values in errors.items()}
    return plain | {f"permuted_{name}": values[-1] for name, values in errors.items()}


@TASK.figure
def few_prompts_error(results: Results) -> Sheet:
    """Test and training error of networks trained on few prompts, and on fresh ones: both networks memorise few."""
    few, config = results[few_prompts], results.config
    fresh = results[trained_transformers].sel(layers="not shared")
    sheet = Sheet(width=5.6, height=4.0)
    panel = sheet.panel(
        "few training prompts are memorised by both networks",
        x="training prompts",
        y="mean squared query error",
        scale=("linear", "log"),
    )
    smallest = config.pools[0]
    for arm in ("prefix", "causal"):
        for variant, (name, last) in enumerate((("test", "test"), ("training", "seen"))):
            samples = {
                f"{smallest}, permuted": few[f"permuted_{name}"].sel(arm=arm),
                **{str(pool): few[name].sel(pool=pool, arm=arm) for pool in config.pools},
                "fresh": fresh[last].sel(arm=arm),
            }
            panel.points(
                samples,
                arm=arm,
                name=f"{arm}, {name}",
                variant=variant,
                middle="geometric mean",
                slot=(2 * variant + (arm == "causal"), 4),
            )
    return sheet


@TASK.claim(
    "causallm-icl/S3",
    where="Appendix E.3, Figure 6",
    kind="phenomenon",
    statement="Trained on few prompts both networks memorise: on the training prompts the error is less than half of that on new ones.",
    controls=[control("fresh prompts at every step", fresh=True)],
)
def few_prompts_are_memorised(results: Results, fresh: bool = False) -> Evidence:
    if fresh:
        errors = results[trained_transformers].sel(layers="not shared")
        ratio = errors.seen / errors.test
    else:
        few = results[few_prompts].sel(pool=results.config.pools[0])
        ratio = few.training / few.test
    larger = np.log(ratio).max("arm")
    return Evidence.over_seeds(larger, "<", float(np.log(0.5)), "log ratio of errors, the larger of two arms")


@TASK.claim(
    "causallm-icl/S5",
    where="Appendix E.5, Table 7",
    kind="training",
    statement="Permuting the context of a fixed set of training prompts at every step lowers the causal network's test error by more "
    "than a tenth (the smallest set).",
    controls=[control("the prefix network, which sees no order to begin with", arm="prefix")],
)
def permuting_helps_causal(results: Results, arm: str = "causal") -> Evidence:
    few = results[few_prompts].sel(pool=results.config.pools[0], arm=arm)
    ratio = np.log(few.permuted_test / few.test)
    return Evidence.over_seeds(ratio, "<", float(np.log(0.9)), "log ratio permuted / plain")


# %%
TASK.show(few_prompts_error)
TASK.show(few_prompts_are_memorised)
TASK.show(permuting_helps_causal)

# %%
TASK.show()
