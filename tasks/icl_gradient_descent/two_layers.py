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
# # Two layers: GD++
#
# Two layers that share their weights could take two gradient steps, to $0.1566$. The best *curved* filter of
# the same depth gets to $0.1105$: its first layer also maps inputs by $I - \gamma A$ and so evens out their
# spectrum for the second. Its curvature $\gamma$ for each $N$ comes from minimising an exact polynomial, and
# the paper's trained networks had the same within 2 %. Trained for 8,000 updates, so do the networks here: loss, curvature
# and sensitivities are those of the best tied GD++. Not every one of them in that time: two of 48 prefix and one of 48
# causal trainings are still above the loss of a single step, so that the claims are about the median.
#
# **The mask.** Here it matters. Under a causal mask the examples' slots after the first layer are those of a
# step on earlier examples only, and inputs are reshaped by earlier inputs only. Two layers that each take the step s
# then predict with $2 s A w - s^2 B w$, $B = \sum_{i \le j} x_j x_j^\top x_i x_i^\top$, and the best of them leaves $0.1637$
# (T6.steps, closed form), more than two true steps. Trained causal layers reach it.


# %%
from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from lab import Evidence, Task, control
from lab.domains.regression.causal_steps import optimal_causal_steps
from lab.domains.regression.gradient_descent import gram_eigenvalues
from lab.domains.regression.least_squares import predict
from lab.domains.regression.optimal_steps import (
    curvature_sequence,
    gd_plus_plus_weights,
    optimal_filter,
    uniform_moments,
)
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.models.transformer import Transformer
from lab.results import Results
from lab.streams import stream
from lab.study import Study
from lab.training import Batch, Optimisation
from tasks.icl_gradient_descent._shared import (
    LOSS,
    MASKS,
    PAPER,
    ROOT,
    SAME,
    Arrays,
    Experiment,
    Products,
    attention_only,
    by_member,
    descent_loss,
    encode,
    fit,
    for_each_seed,
    fresh_loss,
    longer,
    loss_of,
    mask_difference,
    masks_by_name,
    sample_prompts,
    tiny,
    training_loss,
    weight_seeds,
)


@dataclass(frozen=True)
class Config(Experiment):
    """Sizes of the training of two layers, and of the draws of spectra."""

    spectra: int = 10
    """independent draws of contexts"""
    contexts: int = 2000
    """contexts a draw"""


CI = Config(
    trainings=56,  # 24 of them added later, since fresh seeds must give every verdict again
    initial_scale=0.05,
    head_ratio=2,
    optimisation=Optimisation(steps=8000, learning_rate=1e-2, schedule="cosine", betas=(0.9, 0.98), clip_norm=1e-3),
    test_prompts=4000,
)
TASK = Task(
    "icl-gradient-descent",
    PAPER,
    {"smoke": replace(tiny(CI), spectra=4, contexts=200), "ci": CI, "paper": longer(CI, initial_scale=0.0095)},
    root=ROOT,
)


DESCENT, CURVED = "GD", "GD++"


class Filter(NamedTuple):
    """The best filter of two tied layers: its steps, its curvatures, and the error it leaves."""

    steps: list[float]
    curvatures: list[float]
    error: float


CAUSAL = "causal GD"  # two steps as the causal mask lets them be taken


@cache
def tied_optimum(config: Config, kind: str, length: int = 0) -> Filter:
    """The exact optimum without curvature (GD) or with it (GD++), for ``length`` examples (0: those of ``config``)."""
    moments = uniform_moments(config.half_width)
    length = length or config.context_length
    return Filter(*optimal_filter(length, config.dimension, moments, layers=2, curved=kind == CURVED))


@cache
def causal_optimum(config: Config) -> tuple[float, float]:
    """The step that is best for two causal layers, and the error it leaves."""
    return optimal_causal_steps(config.context_length, config.dimension, uniform_moments(config.half_width))


def causal_two_steps(x: Tensor, y: Tensor, step_size: float) -> Tensor:
    """What two causal layers of one step each predict with, 2 s X'y less the second layer's corrections: [batch, dimension]."""
    products = (x @ x.mT).tril()  # of example j, all i <= j
    residual = y - step_size * predict(y, products)
    return step_size * predict(y + residual, x.mT)


def sensitivities(module: nn.Module, batch: Batch, mask: Tensor) -> Tensor:
    """d prediction / d x_q by automatic differentiation: [model, prompt, query, dimension]."""
    queries, inputs = batch["labels"].shape[-1], batch["tokens"].clone().requires_grad_()
    with torch.enable_grad():
        (slopes,) = torch.autograd.grad(-module(inputs, mask)[:, :, -queries:, -1].sum(), inputs)
    return slopes[:, :, -queries:, :-1].double()


def curvature_of(layer: Products) -> Tensor:
    """What a layer subtracts from an input, per unit of its scores: [model]."""
    return -layer.value.diagonal(dim1=1, dim2=2)[:, :-1].mean(1) * layer.scale


# On other seeds one training in fourteen was still far above the others after 8,000 updates, which a mean and its deviation do
# not survive; the claims became ones about the median training, on more trainings and seeds that were not used before.
@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=8, root=2034)
def two_layers(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Two tied layers in both arms: loss along training, losses and cosines on test prompts, and the references."""
    name, context = "two layers, one set of weights", config.context_length
    study = Study(
        build=lambda chosen: Transformer(attention_only(config.dimension + 1, config, layers=2), weight_seeds(chosen)),
        arms=masks_by_name(context, config.queries),
        encode=encode,
        loss=training_loss,
    )
    fitted = fit(study, config, seeds, name, partial(sample_prompts, config), name="two layers")
    tests = {seed: sample_prompts(config, stream(seed, name, "test"), config.test_prompts, queries=2) for seed in seeds}
    shown = masks_by_name(context, 2)
    slopes = fitted.ask(tests, sensitivities, read=shown, prompt=None, query=None, coordinate=None)
    optima = {kind: tied_optimum(config, kind) for kind in (DESCENT, CURVED)}

    def test(seed: int) -> Arrays:
        prompts = tests[seed]
        examples = prompts.x_context.double(), prompts.y_context.double()
        weights = {
            kind: gd_plus_plus_weights(*examples, steps=best.steps, curvatures=best.curvatures)
            for kind, best in optima.items()
        }
        weights[CAUSAL] = causal_two_steps(*examples, causal_optimum(config)[0])
        slope = torch.from_numpy(slopes.sel(seed=seed).values)
        cosines = [torch.cosine_similarity(slope, answer[:, None], dim=-1).mean((1, 2)) for answer in weights.values()]
        return {
            "descent": descent_loss(prompts, config.best_step()),
            "filter loss": labelled([loss_of(answer, prompts) for answer in weights.values()], filter=list(weights)),
            "cosine": labelled(torch.stack(cosines, -1), arm=list(MASKS), filter=list(weights)),
        }

    layer, untrained = Products.of(fitted.module), study.untrained(seeds)
    return {
        **for_each_seed(seeds, test),
        "loss": fitted.ask(tests, fresh_loss, read=shown),
        "history": fitted.history["loss"],
        "mask difference": mask_difference(fitted, tests, context, ["prefix"]).sel(arm="prefix"),
        "curvature": by_member(fitted, curvature_of(layer)),
        "curvature before": by_member(untrained, curvature_of(Products.of(untrained.module))),
        "loss before": untrained.ask(tests, fresh_loss, read=shown),
    }


@TASK.figure
def two_tied_layers(results: Results) -> Sheet:
    """Loss of two tied layers along training under both masks (medians), with the exact optima; curvatures by length."""
    networks, config = results[two_layers], results.config
    two, curved = (tied_optimum(config, kind).error / 2 for kind in (DESCENT, CURVED))
    sheet = Sheet(columns=2, width=5.0, height=3.8)
    panel = sheet.panel(
        "in the median each mask reaches its best", x="update", y=LOSS, ylim=(0.09, 0.25), legend="upper right"
    )
    for arm in MASKS:
        panel.curve(
            networks["history"].sel(arm=arm),
            over="update",
            arm=arm,
            name=f"trained, {arm}",
            middle="median",
            band="quartiles",
        )
    causal = causal_optimum(config)[1] / 2
    panel.level(causal, f"two causal steps, exact {causal:.4f}", arm="causal")
    panel.level(two, f"two steps of GD, exact {two:.4f}")
    panel.level(curved, f"GD++ tied, exact {curved:.4f}")
    lengths = (5, 10, 25, 50, 100)
    panel = sheet.panel(
        "curvatures need no training to be known",
        x="examples N",
        y=r"curvature $\gamma$",
        scale=("log", "log"),
        xticks=lengths,
        legend="upper right",
    )
    exact = [tied_optimum(config, CURVED, length).curvatures[0] for length in lengths]
    panel.theory(lengths, exact, name="best tied GD++, exact")
    read_off = (0.179, 0.099, 0.056, 0.029)
    panel.points(read_off, x=(10, 25, 50, 100), across=None, name="read off the paper's networks")
    for arm in MASKS:
        curvature = networks["curvature"].sel(arm=arm)
        panel.points(
            curvature, x=config.context_length, arm=arm, name=f"trained here, {arm}", middle="median", band="quartiles"
        )
    return sheet


def against(results: Results, arm: str, filter: str) -> xr.DataArray:
    """Log ratio of the loss of trained layers to that of a filter on the same prompts."""
    losses = results[two_layers]
    return np.log(losses["loss"].sel(arm=arm) / losses["filter loss"].sel(filter=filter))


@TASK.claim(
    "icl-gradient-descent/T6",
    where="Figure 3a, loss",
    kind="training",
    statement=(
        "After 8,000 updates two layers with shared weights under the prefix mask have, in the median training, a smaller loss "
        "than two steps of gradient descent with the best step size, on the same prompts."
    ),
    controls=[control("before training", loss="loss before"), control("gradient descent of one step", loss="descent")],
)
def two_layers_beat_two_steps(results: Results, loss: str = "loss") -> Evidence:
    losses = results[two_layers]
    measured = losses[loss] if loss == "descent" else losses[loss].sel(arm="prefix")
    ratio = np.log(measured / losses["filter loss"].sel(filter=DESCENT))
    return Evidence.median(ratio, "<", 0.0, "log ratio to the loss of the best two steps")


@TASK.claim(
    "icl-gradient-descent/T6.loss",
    where="Figure 3a, loss",
    kind="training",
    statement=(
        "After 8,000 updates two layers with shared weights under the prefix mask have, in the median training, the loss of the "
        "best tied GD++ on the same prompts, to within 2 %."
    ),
    controls=[
        control("trained under the causal mask", arm="causal"),
        control("the best two steps without curvature", filter=DESCENT),
    ],
)
def two_layers_reach_the_curved_filter(results: Results, arm: str = "prefix", filter: str = CURVED) -> Evidence:
    origin = "the loss of the filter, a log ratio of 0; " + SAME
    return Evidence.median_equals(against(results, arm, filter), 0.0, 0.02, origin, absolute=True)


@TASK.claim(
    "icl-gradient-descent/T6.curvature",
    where="Appendix A.10, the curvature read off trained networks",
    kind="training",
    statement=(
        r"After 8,000 updates the curvature $\gamma$ read off two tied prefix layers at $N = d = 10$ is, in the median training, "
        r"that of the best tied GD++, $0.1760$, to within 3 %."
    ),
    controls=[
        control("trained under the causal mask", arm="causal"),
        control("before training", trained="curvature before"),
        control("the exact curvature of one example more", longer=1),
    ],
)
def trained_curvature_is_exact(
    results: Results, arm: str = "prefix", trained: str = "curvature", longer: int = 0
) -> Evidence:
    config = results.config
    exact = tied_optimum(config, CURVED, config.context_length + longer).curvatures[0]
    origin = "minimiser of the exact polynomial; 3 %, less than one example more or less changes"
    return Evidence.median_equals(results[two_layers][trained].sel(arm=arm), exact, 0.03, origin)


@TASK.claim(
    "icl-gradient-descent/T6.direction",
    where="Figure 3a, alignment",
    kind="training",
    statement=(
        "After 8,000 updates the sensitivities of two tied prefix layers have, in the median training, a mean cosine above $0.99$ "
        "with the weights of the best tied GD++."
    ),
    controls=[
        control("trained under the causal mask", arm="causal"),
        control("the best two steps without curvature", filter=DESCENT),
    ],
)
def two_layers_point_to_the_curved_filter(results: Results, arm: str = "prefix", filter: str = CURVED) -> Evidence:
    cosine = results[two_layers]["cosine"].sel(arm=arm, filter=filter)
    return Evidence.median(cosine, ">", 0.99, "0.99, what counts as aligned")


HALF_WAY = "half-way, in logarithms, from equal losses to the ratio of two causal steps to tied GD++, closed forms"


@TASK.claim(
    "icl-gradient-descent/T6.mask",
    where="derived",
    kind="training",
    statement=(
        "After 8,000 updates two tied layers under the causal mask have, in the median training, more than 1.2 times the loss of "
        "two from the same initial weights and prompts under the prefix mask."
    ),
    controls=[
        control("causal networks of the next seed in the place of the prefix ones", ahead="causal", shift=1),
        control("before training", trained="loss before"),
    ],
)
def causal_two_layers_are_behind(
    results: Results, ahead: str = "prefix", shift: int = 0, trained: str = "loss"
) -> Evidence:
    config, loss = results.config, results[two_layers][trained]
    ratio = np.log(loss.sel(arm="causal") / loss.sel(arm=ahead).roll(seed=shift))
    bound = np.log(causal_optimum(config)[1] / tied_optimum(config, CURVED).error) / 2
    return Evidence.median(ratio, ">", bound, HALF_WAY)


@TASK.claim(
    "icl-gradient-descent/T6.causal",
    where="derived",
    kind="training",
    statement=(
        "After 8,000 updates two tied layers under the causal mask have, in the median training, the loss of the best two causal "
        "gradient steps on the same prompts, to within 2 %, and sensitivities with a mean cosine above $0.99$ with their weights."
    ),
    controls=[
        control("trained under the prefix mask", arm="prefix"),
        control("the best two steps of gradient descent", filter=DESCENT),
    ],
)
def causal_layers_reach_two_causal_steps(results: Results, arm: str = "causal", filter: str = CAUSAL) -> Evidence:
    cosine = results[two_layers]["cosine"].sel(arm=arm, filter=filter)
    origin = "the loss of the steps, a log ratio of 0; " + SAME
    return Evidence.all(
        Evidence.median_equals(against(results, arm, filter), 0.0, 0.02, origin, absolute=True),
        Evidence.median(cosine, ">", 0.99, "0.99, what counts as aligned"),
    )


# %%
TASK.show(two_tied_layers)
TASK.show(two_layers_beat_two_steps)
TASK.show(two_layers_reach_the_curved_filter)
TASK.show(trained_curvature_is_exact)
TASK.show(two_layers_point_to_the_curved_filter)
TASK.show(causal_two_layers_are_behind)
TASK.show(causal_layers_reach_two_causal_steps)

# %% [markdown]
# **What one curved layer does to a spectrum.** The map $\lambda \mapsto \lambda (1 - \gamma \lambda)^2$
# leaves small eigenvalues alone and folds those beyond $1/(3\gamma)$ back: a spectrum becomes narrower for
# certain while its largest eigenvalue is below that, and then until the largest is folded below the smallest.
# The right panel shows the ratio of largest to smallest eigenvalue after the map for many contexts, by
# $\gamma$: it falls to a minimum and rises when the largest eigenvalues come near the zero of the map.


# %%
CURVATURES = tuple(np.round(np.linspace(0.0, 0.3, 31), 3).tolist())
FACTORS = (0.0, 1.0, 5.0)  # of the exact best curvature
LONG = 50  # examples where spectra are wide enough apart from zero to have a condition number


@TASK.measurement(seeds=lambda config: config.spectra)
def conditioning(config: Config, seed: int) -> LabelledArrays:
    """Median condition number of many contexts after the map, by curvature."""
    rng = stream(seed, "many contexts, their spectra").child("long inputs").rng()
    inputs = rng.uniform(-config.half_width, config.half_width, (config.contexts, LONG, config.dimension))
    eigenvalues = gram_eigenvalues(torch.from_numpy(inputs))
    mapped = [curvature_sequence(eigenvalues, [curvature, 0.0])[1] for curvature in CURVATURES]
    best = tied_optimum(config, CURVED, LONG).curvatures[0]
    exact = [curvature_sequence(eigenvalues, [factor * best, 0.0])[1] for factor in FACTORS]
    return {
        "condition": labelled([median_condition(values) for values in mapped], curvature=CURVATURES),
        "condition at the best": labelled([median_condition(values) for values in exact], factor=FACTORS),
    }


def median_condition(eigenvalues: Tensor) -> float:
    """Median over contexts of the ratio of the largest to the smallest eigenvalue."""
    return float((eigenvalues.amax(-1) / eigenvalues.amin(-1)).median())


@TASK.figure
def folding_the_spectrum(results: Results) -> Sheet:
    """The map of eigenvalues by one curved layer, and what it does to condition numbers."""
    sheet = Sheet(columns=2, width=5.0, height=3.6)
    panel = sheet.panel(
        r"a curved layer folds eigenvalues beyond $1/(3\gamma)$ back",
        x=r"eigenvalue $\lambda$ of $X^\top X$",
        y=r"next layer's eigenvalue $\lambda (1 - \gamma \lambda)^2$",
        ylim=(0, 3),
    )
    eigenvalues = np.linspace(0, 8, 81)
    for curvature in (0.1, 0.176, 0.25, 0.0):
        mapped = curvature_sequence(torch.from_numpy(eigenvalues), [curvature, 0.0])[1]
        panel.line(eigenvalues, mapped, name=rf"$\gamma$ = {curvature:g}", marks=False, of="exact")
        if curvature:
            peak = [1 / (3 * curvature)], [4 / (27 * curvature)]
            panel.axes.plot(*peak, "o", color="black")
            panel.note(rf"peak at $\gamma$ = {curvature:g}", *peak, words="dots: local maxima at $1/(3\\gamma)$")
    panel = sheet.panel(
        "conditioning improves, then collapses",
        x=r"curvature $\gamma$",
        y=r"$\lambda_{\max} / \lambda_{\min}$ after the map",
        scale=("linear", "log"),
    )
    panel.curve(results[conditioning]["condition"], over="curvature", name=f"N = {LONG}, median over contexts")
    best = tied_optimum(results.config, CURVED, LONG).curvatures[0]
    panel.level(best, rf"best tied GD++, exact $\gamma$ = {best:.3f}", vertical=True)
    return sheet


@TASK.claim(
    "icl-gradient-descent/T5.condition",
    where="Appendix A.10, Figure 16",
    kind="phenomenon",
    statement=(
        r"At $N = 50$ one layer with the exact curvature of the best tied GD++ more than halves the median condition number "
        r"of $X^\top X$."
    ),
    controls=[control("five times the curvature", factor=5.0), control("no curvature", factor=0.0)],
)
def curvature_improves_conditioning(results: Results, factor: float = 1.0) -> Evidence:
    condition = results[conditioning]["condition at the best"]
    ratio = np.log(condition.sel(factor=factor) / condition.sel(factor=0.0))
    return Evidence.over_seeds(ratio, "<", np.log(0.5), "half of what it was (log ratio)")


# %%
TASK.show(folding_the_spectrum)
TASK.show(curvature_improves_conditioning)

# %%
TASK.show()
