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
# the paper's trained networks had the same within 2 %.
#
# **The mask.** Here it matters. Under a causal mask the examples' slots after the first layer are those of a
# step on earlier examples only, and inputs are reshaped by earlier inputs only.
#
# CI stops while the loss is still falling, so that the trained curvature has not arrived at the exact one.


# %%
from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.regression.gradient_descent import gram_eigenvalues
from lab.domains.regression.optimal_steps import (
    curvature_sequence,
    gd_plus_plus_weights,
    optimal_filter,
    optimal_step,
    uniform_moments,
)
from lab.domains.regression.prompts import tokens
from lab.figures import ARMS, REFERENCES, THEORY, Drawing, label, panels
from lab.models.transformer import Transformer
from lab.results import Results
from lab.streams import stream
from lab.training import Member, Optimisation, train
from tasks.icl_gradient_descent._shared import (
    HALF_WIDTH,
    LAW,
    LOOKS,
    LOSS,
    PAPER,
    PATTERNS,
    Experiment,
    answers,
    attention_only,
    curve,
    evaluate_every,
    fed,
    fresh_batches,
    gradient_weights,
    half_error,
    longer,
    mask_difference,
    points,
    products,
    prompts,
    query_loss,
    tiny,
    weight_seeds,
)


@dataclass(frozen=True)
class Config(Experiment):
    """Sizes of the training of two layers, and of the draws of spectra."""

    initial_scale: float = 0.05
    """standard deviation of all initial weights of attention"""
    optimisation: Optimisation = Optimisation(
        steps=1000, learning_rate=1e-2, schedule="cosine", betas=(0.9, 0.98), clip_norm=1e-3
    )
    spectra: int = 10
    """independent draws of contexts"""
    contexts: int = 2000
    """contexts a draw"""


CI = Config()
TASK = Task(
    "icl-gradient-descent",
    PAPER,
    {"smoke": replace(tiny(CI), spectra=4, contexts=200), "ci": CI, "paper": longer(CI, initial_scale=0.0095)},
)


@functools.cache
def tied_optima(length: int, dimension: int) -> dict[str, tuple[list[float], list[float], float]]:
    """Exact optima (steps, curvatures, error) of two tied layers without and with curvature."""
    moments = uniform_moments(HALF_WIDTH)
    return {
        name: optimal_filter(length, dimension, moments, layers=2, curved=curved)
        for name, curved in (("GD", False), ("GD++", True))
    }


def sensitivities(module: Transformer, given: Tensor, mask: Tensor, context: int) -> Tensor:
    """d prediction / d x_q by automatic differentiation: [E, batch, query, dimension]."""
    given = given.clone().requires_grad_()
    with torch.enable_grad():
        output = module(given, mask)[:, :, context:, -1]
        (found,) = torch.autograd.grad(-output.sum(), given)
    return found[:, :, context:, :-1].double()


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=8)
def two_layers(config: Config, seeds: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Two tied layers in both arms: loss along training, test losses and cosines [seeds, arms], and the references."""
    name = "two layers, one set of weights"
    context, d = config.context_length, config.dimension
    patterns = {arm: pattern(context, config.queries) for arm, pattern in PATTERNS.items()}
    members = [Member(seed, arm) for seed in seeds for arm in patterns]
    trained = train(
        lambda chosen: Transformer(attention_only(d + 1, config, layers=2), weight_seeds(chosen)),
        members,
        fresh_batches(lambda source, count: fed(prompts(config, source, count)), name, config.batch),
        query_loss(patterns, context),
        config.optimisation,
        evaluate_every=evaluate_every(config),
        name="two layers",
    )
    tests = [prompts(config, stream(seed, name, "test"), config.test_prompts, queries=2) for seed in seeds]
    given = torch.stack([tokens(test) for test in tests for _ in patterns])
    wanted = torch.stack([test.y_query for test in tests])
    places = torch.arange(len(members)) % len(patterns)
    own = torch.stack([pattern(context, 2) for pattern in PATTERNS.values()])[places]
    with torch.no_grad():
        output = -trained.module(given, own)[:, :, context:, -1].unflatten(0, (len(seeds), len(patterns)))
    slope = sensitivities(trained.module, given, own, context).unflatten(0, (len(seeds), len(patterns)))
    optima, step = tied_optima(context, d), optimal_step(context, d, **LAW)
    found: dict[str, list] = {key: [] for key in ("descent", "GD", "GD++", "cosine")}
    for place, test in enumerate(tests):
        x, y = test.x_context.double(), test.y_context.double()
        weights = {
            key: gd_plus_plus_weights(x, y, steps=steps, curvatures=curvatures)
            for key, (steps, curvatures, _) in optima.items()
        }
        for key, value in (weights | {"descent": gradient_weights(x, y, step)}).items():
            found[key].append(float(half_error(answers(value, test.x_query), test.y_query)))
        found["cosine"].append(
            [
                [float(torch.cosine_similarity(one, weights[key][:, None], dim=-1).mean()) for key in optima]
                for one in slope[place]
            ]
        )
    score, value = products(trained.module)
    beta = score.diagonal(dim1=1, dim2=2)[:, :-1].mean(1)
    shape = (len(seeds), len(patterns))
    prefix = trained.module.select(trained.indices("prefix"))
    return {
        **{key: np.array(values) for key, values in found.items()},
        "loss": half_error(output, wanted[:, None]).numpy(),
        "mask difference": mask_difference(prefix, given[:: len(patterns)], context),
        "history": trained.history["loss"].T.reshape(*shape, -1),
        "steps": np.tile(trained.history["step"], (len(seeds), 1)),
        "curvature": (-value.diagonal(dim1=1, dim2=2)[:, :-1].mean(1) * beta).reshape(shape).numpy(),
    }


@TASK.figure
def two_tied_layers(results: Results) -> Drawing:
    """Loss of two tied layers along training under both masks, with the exact optima; curvatures by length (CI stops early)."""
    found, config = results[two_layers], results.config
    figure, axes = panels(1, 2, width=5.0, height=3.8)
    (left, right) = axes[0]
    rows: list[dict] = []
    two, curved = (tied_optima(config.context_length, config.dimension)[key][2] / 2 for key in ("GD", "GD++"))
    lengths = np.array((5, 10, 25, 50, 100))
    exact = [tied_optima(int(n), config.dimension)["GD++"][1][0] for n in lengths]
    right.plot(lengths, exact, **(THEORY | {"marker": "."}), label="best tied GD++, exact")
    printed = {"color": REFERENCES[2], "fillstyle": "none", "markersize": 9}
    right.plot((10, 25, 50, 100), (0.179, 0.099, 0.056, 0.029), "o", **printed, label="read off the paper's networks")
    for place, (arm, looks) in enumerate(ARMS.items()):
        history, curvature = found["history"][:, place], found["curvature"][:, place, None]
        curve(rows, left, found["steps"][0], history, f"trained, {arm}", f"half loss, {arm}", markevery=2, **looks)
        points(rows, right, [config.context_length], curvature, f"trained here, {arm}", f"curvature, {arm}", **looks)
    rows += [{"quantity": "curvature, exact", "x": n, "value": g} for n, g in zip(lengths, exact, strict=True)]
    left.axhline(two, **(THEORY | {"linestyle": (0, (6, 2))}), label=f"two steps of GD, exact {two:.4f}")
    left.axhline(curved, **THEORY, label=f"GD++ tied, exact {curved:.4f}")
    left.set_ylim(0.08, 0.45)
    label(left, "prefix passes two gradient steps, causal does not", "training step", LOSS)
    right.set_xscale("log")
    right.set_yscale("log")
    right.set_xticks((5, 10, 25, 50, 100), ("5", "10", "25", "50", "100"))
    label(right, "curvatures need no training to be known", "examples N", r"curvature $\gamma$")
    for panel in (left, right):
        panel.legend()
    return Drawing(figure, pd.DataFrame(rows))


@TASK.claim(
    "icl-gradient-descent/T6",
    where="Figure 3a, loss",
    kind="training",
    statement=(
        "Two trained layers with shared weights under the prefix mask have a smaller loss than two steps of gradient "
        "descent with the best step size, on the same prompts."
    ),
    controls=[control("trained under the causal mask", arm=1), control("gradient descent of one step", one_step=True)],
)
def two_layers_beat_two_steps(results: Results, arm: int = 0, one_step: bool = False) -> Evidence:
    found = results[two_layers]
    loss = found["descent"] if one_step else found["loss"][:, arm]
    return Evidence.over_seeds(np.log(loss / found["GD"]), "<", 0.0, "log ratio to the loss of the best two steps")


@TASK.claim(
    "icl-gradient-descent/T6.direction",
    where="Figure 3a, alignment",
    kind="training",
    statement=(
        "The sensitivities of the two trained prefix layers are closer in direction to the best tied GD++ than to the "
        "best two gradient steps."
    ),
    controls=[control("trained under the causal mask", arm=1)],
)
def two_layers_point_to_the_curved_filter(results: Results, arm: int = 0) -> Evidence:
    cosine = results[two_layers]["cosine"][:, arm]
    return Evidence.over_seeds(cosine[:, 1] - cosine[:, 0], ">", 0.0, "no difference between the mean cosines")


@TASK.claim(
    "icl-gradient-descent/T6.mask",
    where="derived",
    kind="training",
    statement="Two layers trained under the causal mask keep a larger loss than two trained under the prefix mask.",
    controls=[control("the two arms exchanged", ahead="causal")],
)
def causal_two_layers_are_behind(results: Results, ahead: str = "prefix") -> Evidence:
    place, loss = list(PATTERNS).index(ahead), results[two_layers]["loss"]
    return Evidence.over_seeds(
        np.log(loss[:, 1 - place] / loss[:, place]), ">", 0.0, "no difference between the losses (log ratio)"
    )


# %%
TASK.show(two_tied_layers)
TASK.show(two_layers_beat_two_steps)
TASK.show(two_layers_point_to_the_curved_filter)
TASK.show(causal_two_layers_are_behind)

# %% [markdown]
# **What one curved layer does to a spectrum.** The map $\lambda \mapsto \lambda (1 - \gamma \lambda)^2$
# leaves small eigenvalues alone and folds those beyond $1/(3\gamma)$ back: a spectrum becomes narrower for
# certain while its largest eigenvalue is below that, and then until the largest is folded below the smallest.
# The right panel shows the ratio of largest to smallest eigenvalue after the map for many contexts, by
# $\gamma$: it falls to a minimum and rises when the largest eigenvalues come near the zero of the map.


# %%
CURVATURES = tuple(np.round(np.linspace(0.0, 0.3, 31), 3))
LONG = 50  # examples where spectra are wide enough apart from zero to have a condition number


@TASK.measurement(seeds=lambda config: config.spectra)
def conditioning(config: Config, seed: int) -> dict[str, np.ndarray]:
    """Median condition number of many contexts after the map, by curvature."""
    rng = stream(seed, "many contexts, their spectra").child("long inputs").rng()
    x = rng.uniform(-HALF_WIDTH, HALF_WIDTH, (config.contexts, LONG, config.dimension))
    values = gram_eigenvalues(torch.from_numpy(x))
    mapped = [curvature_sequence(values, [float(curvature), 0.0])[1] for curvature in CURVATURES]
    return {"condition": np.array([float((met.amax(-1) / met.amin(-1)).median()) for met in mapped])}


@TASK.figure
def folding_the_spectrum(results: Results) -> Drawing:
    """The map of eigenvalues by one curved layer, and what it does to condition numbers."""
    figure, axes = panels(1, 2, width=5.0, height=3.6)
    (left, right) = axes[0]
    rows: list[dict] = []
    grid = np.linspace(0, 8, 81)
    for curvature, looks in zip((0.1, 0.176, 0.25, 0.0), LOOKS, strict=False):
        mapped = curvature_sequence(torch.from_numpy(grid), [curvature, 0.0])[1].numpy()
        left.plot(grid, mapped, **(looks | {"marker": ""}), label=rf"$\gamma$ = {curvature:g}")
        rows += [
            {"quantity": f"mapped, gamma {curvature:g}", "x": float(a), "value": float(b)}
            for a, b in zip(grid[::4], mapped[::4], strict=True)
        ]
        if curvature:
            left.plot([1 / (3 * curvature)], [4 / (27 * curvature)], "o", color="black")
    left.set_ylim(0, 3)
    label(
        left,
        r"a curved layer folds eigenvalues beyond $1/(3\gamma)$ back",
        r"eigenvalue $\lambda$ of $X^\top X$",
        r"next layer's eigenvalue $\lambda (1 - \gamma \lambda)^2$",
    )
    text = f"N = {LONG}, median over contexts"
    dots: dict[str, Any] = {"color": REFERENCES[0], "marker": "o", "markevery": 3}
    curve(rows, right, CURVATURES, results[conditioning]["condition"], text, "condition number", **dots)
    best = tied_optima(LONG, results.config.dimension)["GD++"][1][0]
    right.axvline(best, **THEORY, label=rf"best tied GD++, exact $\gamma$ = {best:.3f}")
    right.set_yscale("log")
    label(
        right,
        "conditioning improves, then collapses",
        r"curvature $\gamma$",
        r"$\lambda_{\max} / \lambda_{\min}$ after the map",
    )
    for panel in (left, right):
        panel.legend()
    return Drawing(figure, pd.DataFrame(rows))


@TASK.claim(
    "icl-gradient-descent/T5.condition",
    where="Appendix A.10, Figure 16",
    kind="phenomenon",
    statement=(
        r"At $N = 50$ one layer with the exact curvature of the best tied GD++ lowers the median condition number of "
        r"$X^\top X$."
    ),
    controls=[control("five times the curvature", factor=5.0)],
)
def curvature_improves_conditioning(results: Results, factor: float = 1.0) -> Evidence:
    chosen = factor * tied_optima(LONG, results.config.dimension)["GD++"][1][0]
    found = results[conditioning]["condition"]
    place = int(np.abs(np.array(CURVATURES) - chosen).argmin())
    return Evidence.over_seeds(np.log(found[:, place] / found[:, 0]), "<", 0.0, "no change (log ratio)")


# %%
TASK.show(folding_the_spectrum)
TASK.show(curvature_improves_conditioning)

# %%
TASK.show()
