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
# # Softmax transformers: other labels
#
# Two more tasks of the paper's Table 1: linear scores through a centred logistic function, and classification by the largest
# of three linear scores, trained with squared error as in the paper.

# %%
from __future__ import annotations

from dataclasses import dataclass, replace

import xarray as xr

from lab import Evidence, Task, control
from lab.domains.regression.classification import class_error, logistic, one_hot_regression
from lab.domains.regression.kaczmarz import kaczmarz
from lab.domains.regression.least_squares import ridge
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.models.transformer import Architecture
from lab.results import Results
from lab.streams import stream
from tasks.causallm_icl._shared import (
    PAPER,
    PAPER_SOFTMAX,
    SLUG,
    SMOKE_SOFTMAX,
    Softmax,
    class_errors,
    exchanged_labels_errors,
    fit_both_sharings,
    log_ratio,
    new_prompts,
    one_layer_errors,
    sample,
    squared_error,
)


@dataclass(frozen=True)
class Config:
    """Sizes of this part."""

    logistic: Softmax = replace(Softmax(), optimisation=replace(Softmax().optimisation, steps=300))
    """the task with labels passed through a logistic function"""
    classification: Softmax = replace(
        Softmax(),
        dimension=4,
        context_length=10,
        queries=5,
        architecture=Architecture(width=24, layers=2, heads=2, mlp_ratio=2.0, norm="none"),
        optimisation=replace(Softmax().optimisation, steps=400),
        test_prompts=4000,
    )
    """the task with classes, where masks differ by less: more examples, fewer layers, a larger test"""
    trainings: int = 12
    """independent trainings an arm"""


TASK = Task(
    SLUG,
    PAPER,
    {
        "smoke": Config(SMOKE_SOFTMAX, SMOKE_SOFTMAX, trainings=2),
        "ci": Config(),
        "paper": Config(PAPER_SOFTMAX, PAPER_SOFTMAX),
    },
)


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=6)
def logistic_labels(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Test errors where labels passed through a logistic function: of full trainings, and where masks cannot differ."""
    sizes = config.logistic
    trained = fit_both_sharings(sizes, "sigmoid", seeds)
    tests = new_prompts(sizes, "sigmoid", seeds)
    errors = by_sharing({name: fitted.ask(tests, squared_error) for name, fitted in trained.items()})
    return {
        "error": errors,
        "one_layer": one_layer_errors(sizes, "sigmoid", seeds),
        "exchanged": exchanged_labels_errors(sizes, "sigmoid", seeds),
    }


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=6)
def classes(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Test errors where labels are classes, squared and as shares misclassified: of full trainings, and of one layer."""
    sizes = config.classification
    trained = fit_both_sharings(sizes, "classes", seeds)
    tests = new_prompts(sizes, "classes", seeds)
    scores = ("squared", "misclassified")
    found = by_sharing({name: fitted.ask(tests, class_errors, score=scores) for name, fitted in trained.items()})
    return {
        "error": found.sel(score="squared"),
        "misclassified": found.sel(score="misclassified"),
        "one_layer": one_layer_errors(sizes, "classes", seeds),
    }


def by_sharing(errors: dict[str, xr.DataArray]) -> xr.DataArray:
    """Errors of networks with shared layers and of the others, [seed, layers, arm]."""
    return (
        xr.concat(list(errors.values()), "layers")
        .assign_coords(layers=list(errors))
        .transpose("seed", "layers", "arm", ...)
    )


@TASK.measurement(seeds=lambda config: config.trainings)
def references(config: Config, seed: int) -> LabelledArrays:
    """Shares misclassified by closed forms, by predictor."""
    sizes = config.classification
    prompts = sample(sizes, "classes", stream(seed, "test"), sizes.test_prompts)
    shown = prompts.x_context.double(), prompts.y_context.double(), prompts.x_query.double()
    classifiers = {
        "logistic MAP": logistic(0.2),
        "ridge on one-hot": one_hot_regression(ridge(0.5)),
        "one pass of Kaczmarz": one_hot_regression(kaczmarz()),
    }
    wrong = [float(class_error(one(*shown), prompts.y_query).mean()) for one in classifiers.values()]
    return {"misclassified": labelled(wrong, predictor=list(classifiers))}


@TASK.figure
def errors_with_other_labels(results: Results) -> Sheet:
    """Test errors of transformers trained on logistic labels and on classes: under the prefix mask they are smaller."""
    closed_forms = results[references].misclassified.mean("seed")
    sheet = Sheet(columns=2, width=5.2, height=3.8)
    for title, errors, name in (
        ("logistic labels: prefix is ahead", results[logistic_labels].error, "mean squared query error"),
        ("three classes: prefix is ahead", results[classes].misclassified, "share of queries misclassified"),
    ):
        panel = sheet.panel(title, x="weights of the layers", y=name)
        for slot, arm in enumerate(("prefix", "causal")):
            samples = {sharing: errors.sel(arm=arm, layers=sharing) for sharing in errors.layers.values}
            panel.bars(samples, arm=arm, slot=(slot, 2), dots=True)
    for look, predictor in enumerate(closed_forms.predictor.values):
        panel.level(float(closed_forms.sel(predictor=predictor)), name=predictor, look=look)
    return sheet


ONE_LAYER = control("one layer, where the masks are one function of the query", trained="one_layer")


def ratio_of_errors(errors: xr.Dataset, trained: str) -> xr.DataArray:
    """log (causal / prefix) test error by seed, over sharings of layers where there are several."""
    return log_ratio(errors.error).mean("layers") if trained == "fully" else log_ratio(errors[trained])


@TASK.claim(
    "causallm-icl/S1.N-LR",
    where="Table 1, regression through a logistic function",
    kind="training",
    statement="The same with labels passed through a centred logistic function: the prefix network is ahead (mean over shared and "
    "unshared layers).",
    controls=[ONE_LAYER, control("examples labelled by another prompt's weights", trained="exchanged")],
)
def prefix_is_ahead_with_logistic_labels(results: Results, trained: str = "fully") -> Evidence:
    ratio = ratio_of_errors(results[logistic_labels], trained)
    return Evidence.over_seeds(ratio, ">", 0.05, "log ratio causal / prefix; 0.05 is 5 %")


@TASK.claim(
    "causallm-icl/S1.MC",
    where="Table 1, multiclass classification",
    kind="training",
    statement="The same with three classes: the prefix network has the smaller squared error on the one-hot labels (mean over shared "
    "and unshared layers).",
    controls=[ONE_LAYER],
)
def prefix_is_ahead_in_classification(results: Results, trained: str = "fully") -> Evidence:
    ratio = ratio_of_errors(results[classes], trained)
    return Evidence.over_seeds(ratio, ">", 0.0, "log ratio causal / prefix")


# %%
TASK.show(errors_with_other_labels)
TASK.show(prefix_is_ahead_with_logistic_labels)
TASK.show(prefix_is_ahead_in_classification)

# %%
TASK.show()
