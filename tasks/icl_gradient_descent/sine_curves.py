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
# # Sine curves: a step on learned features
#
# Targets are $y = a \sin(x + \phi)$ with $a \in [0.1, 0.5]$, $\phi \in [0, \pi]$, $x \in [-5, 5]$. A front
# end $m$ (a linear map to 39 features and a residual MLP), the same for every token, is followed by one
# layer. In one network the layer is linear attention with free matrices; in the other it is *hard-wired* to
# one gradient step on a linear head over $m(x)$, $\hat y_q = \frac1N \sum_j y_j\, m(x_j)\cdot m(x_q)$, and
# only the front end is trained. If attention does no more than gradient descent, the two should be equally
# good and predict alike. One layer again: the mask changes nothing.


# %%
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from lab import Evidence, Task, control
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.models.transformer import Architecture, Transformer
from lab.results import Results
from lab.streams import RandomStream, stream
from lab.study import Study
from lab.training import Batch, Optimisation
from tasks.icl_gradient_descent._shared import (
    FORTY_THOUSAND,
    LOSS,
    PAPER,
    ROOT,
    Experiment,
    attention_only,
    by_member,
    fit,
    fresh_loss,
    half_error,
    longer,
    mask_difference,
    masks_by_name,
    predictions,
    side_by_side,
    tiny,
    training_loss,
    weight_seeds,
)


@dataclass(frozen=True)
class Config(Experiment):
    """Sizes of the trainings on sine curves."""

    features: int = 39
    """features of the front end"""
    hidden: int = 160
    """hidden units of the front end"""
    amplitude: tuple[float, float] = (0.1, 0.5)
    """range of amplitudes (as plotted in the paper; its text says up to 5)"""


CI = Config(
    dimension=1,
    half_width=5.0,
    batch=16,
    head_ratio=1,
    optimisation=Optimisation(
        steps=600, learning_rate=3e-3, warmup=0.05, schedule="cosine", betas=(0.9, 0.98), clip_norm=1.0
    ),
    test_prompts=400,
)
TASK = Task(
    "icl-gradient-descent",
    PAPER,
    {"smoke": tiny(CI), "ci": CI, "paper": longer(CI, optimisation=FORTY_THOUSAND)},
    root=ROOT,
)


class FeatureRegression(nn.Module):
    """A front end m(x), shared by all tokens, and one layer: linear attention with free weights, or a hard-wired step.

    Args:
        front: from x [E, batch, token, 1] to features [E, batch, token, features].
        layer: attention on tokens of features and label; None for the hard-wired step.
    """

    def __init__(self, front: Transformer, layer: Transformer | None) -> None:
        super().__init__()
        self.front, self.layer, self.width = front, layer, front.width

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Minus the predictions [E, batch, token, 1], from tokens [E, batch, token, 2] of x and y (0 for a query)."""
        labels = tokens[..., 1:]
        features = self.front(tokens[..., :1], torch.zeros_like(mask))
        if self.layer is not None:
            return self.layer(torch.cat([features, labels], dim=-1), mask)[..., -1:] - labels
        visible = mask if mask.dim() == 2 else mask[:, None]
        scores = (features @ features.mT).masked_fill(~visible, 0.0)
        return -(scores / visible.sum(-1, keepdim=True).clamp_min(1)) @ labels

    def select(self, models: Sequence[int]) -> FeatureRegression:
        """The models at these places of the model axis."""
        return FeatureRegression(self.front.select(models), None if self.layer is None else self.layer.select(models))


def feature_regression(config: Config, seeds: Sequence[int], attends: bool) -> FeatureRegression:
    """The front end is a block in which no token sees another: a linear map and a residual MLP."""
    front = Transformer(
        Architecture(
            width=config.features,
            layers=1,
            head_size=1,
            mlp_ratio=config.hidden / config.features,
            norm="none",
            input_size=1,
        ),
        seeds,
    )
    # Hidden units that bend all over the range of x.
    width = config.half_width
    bends = [stream(seed, "weights", "bends").rng().uniform(-width, width, config.hidden) for seed in seeds]
    front.load_weights({"layers.0.mlp.hidden.bias": torch.from_numpy(np.stack(bends)).float()})
    layer = Transformer(attention_only(config.features + 1, config), seeds) if attends else None
    return FeatureRegression(front, layer)


def sine_curves(config: Config, source: RandomStream, count: int, x_query: Sequence[float] = ()) -> Batch:
    """Tokens [count, N + queries, 2] of x and y (0 for queries), and the labels [count, queries]; queries are drawn if none."""
    rng, ends = source.rng(), (-config.half_width, config.half_width)
    amplitude, phase = rng.uniform(*config.amplitude, (count, 1)), rng.uniform(0, np.pi, (count, 1))
    x = rng.uniform(*ends, (count, config.context_length))
    queries = np.tile(x_query, (count, 1)) if x_query else rng.uniform(*ends, (count, config.queries))
    y, labels = amplitude * np.sin(x + phase), amplitude * np.sin(queries + phase)
    tokens = np.concatenate([np.stack([x, y], -1), np.stack([queries, np.zeros_like(queries)], -1)], axis=1)
    return {"tokens": torch.from_numpy(tokens).float(), "labels": torch.from_numpy(labels).float()}


GRID = np.linspace(-5, 5, 41).tolist()
ATTENTION, STEP = "trained attention", "hard-wired step"


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=8)
def sine(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Losses of the two networks on sine curves, cosine of their predicted functions, and three fits."""
    name, context = "curves and features", config.context_length
    tests = {seed: sine_curves(config, stream(seed, name, "test"), config.test_prompts, GRID) for seed in seeds}
    few = {seed: {key: values[:100] for key, values in batch.items()} for seed, batch in tests.items()}
    labels = torch.stack([batch["labels"] for batch in tests.values()])

    def measured(arm: str) -> dict[str, xr.DataArray]:
        study = Study(
            build=lambda chosen: feature_regression(config, weight_seeds(chosen), arm == ATTENTION),
            arms={arm: masks_by_name(context, config.queries)["prefix"]},
            encode=None,
            loss=training_loss,
        )
        fitted = fit(study, config, seeds, name, partial(sine_curves, config), name=arm)
        mask = masks_by_name(context, len(GRID))["prefix"]
        functions = fitted.numbers(tests, predictions, read=mask)
        return {
            "history": fitted.history["loss"],
            "loss": by_member(fitted, fitted.numbers(tests, fresh_loss, read=mask)),
            "functions": by_member(fitted, functions, prompt=None, x=GRID),
            "mask difference": mask_difference(fitted, few, context),
        }

    networks = side_by_side([measured(arm) for arm in (ATTENTION, STEP)])
    functions = networks.pop("functions")
    attention, step = (torch.from_numpy(functions.sel(arm=arm).values).double() for arm in (ATTENTION, STEP))
    examples = torch.stack([batch["tokens"] for batch in tests.values()])[:, :3, :context]
    return {
        **networks,
        "zero loss": labelled(half_error(torch.zeros_like(labels), labels), seed=seeds),
        "cosine": labelled(torch.cosine_similarity(attention, step, dim=-1).mean(1), seed=seeds),
        # Between curves of different prompts, for comparison.
        "cosine apart": labelled(torch.cosine_similarity(attention, step.roll(1, 1), dim=-1).mean(1), seed=seeds),
        "fits": functions.isel(prompt=slice(3)),
        "targets": labelled(labels[:, :3], seed=seeds, prompt=None, x=GRID),
        "examples": labelled(examples, seed=seeds, prompt=None, example=None, coordinate=("x", "y")),
    }


@TASK.figure
def sine_fits(results: Results) -> Sheet:
    """Three curves as both networks of the first seed predict them, and the two losses along training."""
    networks = results[sine]
    sheet = Sheet(
        columns=4,
        width=3.4,
        height=3.4,
        title="attention behind a front end fits sine curves as a gradient step on features does",
    )
    titles = [f"prompt {number}" for number in range(1, networks.sizes["prompt"] + 1)]
    prompts = networks.sel(seed=results.seeds(sine)[0]).assign_coords(prompt=titles)
    for title in titles:
        shown = prompts.sel(prompt=title)
        panel = sheet.panel(title, x="x", y="y", legend="auto" if title == "prompt 1" else "none")
        panel.theory(GRID, shown["targets"], name="target")
        for arm in (ATTENTION, STEP):
            panel.line(GRID, shown["fits"].sel(arm=arm), name=arm, marks=False, of="the first seed's fits")
        x, y = (shown["examples"].sel(coordinate=name).values for name in ("x", "y"))
        panel.points(y, x=x, across=None, name="examples", look=3)
    panel = sheet.panel("the same loss in the end", x="update", y=LOSS, scale=("linear", "log"), ylim=(1e-3, 1))
    for arm in (ATTENTION, STEP):
        panel.curve(networks["history"].sel(arm=arm), over="update", name=arm, middle="geometric mean")
    return sheet


@TASK.claim(
    "icl-gradient-descent/P5",
    where="Figure 4",
    kind="training",
    statement=(
        "On sine curves, after 600 updates, a front end trained with linear attention and one trained with a hard-wired gradient "
        "step have losses whose ratio lies between $0.7$ and $1.4$, and predict functions with a mean cosine above $0.9$."
    ),
    controls=[
        control("predicting zero for the hard-wired step", reference="zero loss"),
        control("predicting zero for the attention", attention="zero loss"),
        control("functions of different prompts", cosine="cosine apart"),
    ],
)
def attention_is_a_step_on_features(
    results: Results, reference: str = "loss", attention: str = "loss", cosine: str = "cosine"
) -> Evidence:
    networks = results[sine]
    step = networks["loss"].sel(arm=STEP) if reference == "loss" else networks[reference]
    free = networks["loss"].sel(arm=ATTENTION) if attention == "loss" else networks[attention]
    ratio = np.log(free / step)
    return Evidence.all(
        Evidence.over_seeds(ratio, ">", np.log(0.7), "a ratio of 0.7 (logarithm)"),
        Evidence.over_seeds(ratio, "<", np.log(1.4), "a ratio of 1.4 (logarithm)"),
        Evidence.over_seeds(networks[cosine], ">", 0.9, "a cosine of 0.9, the least that the paper's figure shows"),
    )


# %%
TASK.show(sine_fits)
TASK.show(attention_is_a_step_on_features)

# %%
TASK.show()
