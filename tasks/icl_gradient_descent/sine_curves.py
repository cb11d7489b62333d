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

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lab import Evidence, Task, control
from lab.figures import THEORY, Drawing, label, panels
from lab.models import masks
from lab.models.transformer import Architecture, Transformer
from lab.results import Results
from lab.streams import Stream, stream
from lab.training import Batch, Member, Optimisation, train
from tasks.icl_gradient_descent._shared import (
    FORTY_THOUSAND,
    LOOKS,
    LOSS,
    PAPER,
    Experiment,
    answered,
    attention_only,
    curve,
    evaluate_every,
    fresh_batches,
    half_error,
    longer,
    mask_difference,
    query_loss,
    tiny,
    weight_seeds,
)


@dataclass(frozen=True)
class Config(Experiment):
    """Sizes of the trainings on sine curves."""

    dimension: int = 1
    """dimension of the inputs, uniform on [-half_width, half_width]"""
    half_width: float = 5.0
    """half the range of inputs"""
    batch: int = 16
    """prompts a step"""
    head_ratio: int = 1
    """size of a head over size of a token"""
    optimisation: Optimisation = Optimisation(
        steps=600, learning_rate=3e-3, warmup=0.05, schedule="cosine", betas=(0.9, 0.98), clip_norm=1.0
    )
    test_prompts: int = 400
    """prompts of the test"""
    features: int = 39
    """features of the front end"""
    hidden: int = 160
    """hidden units of the front end"""
    amplitude: tuple[float, float] = (0.1, 0.5)
    """range of amplitudes (as plotted in the paper; its text says up to 5)"""


CI = Config()
TASK = Task(
    "icl-gradient-descent", PAPER, {"smoke": tiny(CI), "ci": CI, "paper": longer(CI, optimisation=FORTY_THOUSAND)}
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

    def forward(self, given: Tensor, mask: Tensor) -> Tensor:
        """Minus the predictions [E, batch, token, 1], from tokens [E, batch, token, 2] of x and y (0 for a query)."""
        labels = given[..., 1:]
        features = self.front(given[..., :1], torch.zeros_like(mask))
        if self.layer is not None:
            return self.layer(torch.cat([features, labels], dim=-1), mask)[..., -1:] - labels
        seen = mask if mask.dim() == 2 else mask[:, None]
        scores = (features @ features.mT).masked_fill(~seen, 0.0)
        return -(scores / seen.sum(-1, keepdim=True).clamp_min(1)) @ labels

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


def sine_curves(config: Config, source: Stream, count: int, asked: np.ndarray | None = None) -> Batch:
    """Tokens [count, N + queries, 2] of x and y (0 for queries), and the labels [count, queries]; x asked or drawn."""
    rng = source.rng()
    amplitude, phase = rng.uniform(*config.amplitude, (count, 1)), rng.uniform(0, np.pi, (count, 1))
    x = rng.uniform(-config.half_width, config.half_width, (count, config.context_length))
    if asked is None:
        asked = rng.uniform(-config.half_width, config.half_width, (count, config.queries))
    asked = np.broadcast_to(asked, (count, asked.shape[-1]))
    y, wanted = amplitude * np.sin(x + phase), amplitude * np.sin(asked + phase)
    given = np.concatenate([np.stack([x, y], -1), np.stack([asked, np.zeros_like(asked)], -1)], axis=1)
    return {"tokens": torch.from_numpy(given).float(), "labels": torch.from_numpy(wanted).float()}


GRID = np.linspace(-5, 5, 41)


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=8)
def sine(config: Config, seeds: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Half-losses [seeds, 2] of the two networks on sine curves, cosine of their predicted functions, and three fits."""
    name = "curves and features"
    context = config.context_length
    patterns = {"prefix": masks.in_context_prefix(context, config.queries)}
    batch = fresh_batches(lambda source, count: sine_curves(config, source, count), name, config.batch)
    tests = [sine_curves(config, stream(seed, name, "test"), config.test_prompts, GRID) for seed in seeds]
    given, wanted = (torch.stack([test[key] for test in tests]) for key in ("tokens", "labels"))
    functions, differences, histories = [], [], []
    for attends in (True, False):
        trained = train(
            lambda chosen, attends=attends: feature_regression(config, weight_seeds(chosen), attends),  # type: ignore[misc]
            [Member(seed, "prefix") for seed in seeds],
            batch,
            query_loss(patterns, context),
            config.optimisation,
            evaluate_every=evaluate_every(config),
            name=f"sine, attention {attends}",
        )
        functions.append(answered(trained.module, given, context).double())
        differences.append(mask_difference(trained.module, given[:, :100], context))
        histories.append(trained.history["loss"].T)
    both = torch.stack(functions, dim=1)
    one, other = functions
    return {
        "loss": half_error(both, wanted[:, None]).numpy(),
        "zero": half_error(torch.zeros_like(wanted), wanted).numpy(),
        "cosine": torch.cosine_similarity(one, other, dim=-1).mean(1).numpy(),
        # Between curves of different prompts, for comparison.
        "cosine apart": torch.cosine_similarity(one, other.roll(1, 1), dim=-1).mean(1).numpy(),
        "mask difference": np.array(differences).max(0),
        "history": np.array(histories).swapaxes(0, 1),
        "steps": np.tile(trained.history["step"], (len(seeds), 1)),
        "fits": both[:, :, :3].numpy(),
        "targets": wanted[:, :3].numpy(),
        "examples": given[:, :3, :context].numpy(),
    }


@TASK.figure
def sine_fits(results: Results) -> Drawing:
    """Three curves as both networks of the first seed predict them, and the two losses along training."""
    found = results[sine]
    figure, axes = panels(1, 4, width=3.4, height=3.4)
    rows: list[dict] = []
    names = ("trained attention", "hard-wired step")
    for place, panel in enumerate(axes[0, :3]):
        panel.plot(GRID, found["targets"][0, place], **THEORY, label="target")
        for fit, text, looks in zip(found["fits"][0, :, place], names, LOOKS[1:], strict=False):
            panel.plot(GRID, fit, **(looks | {"marker": ""}), label=text)
            rows += [
                {"quantity": f"prompt {place + 1}, {text}", "x": x, "value": value}
                for x, value in zip(GRID, fit, strict=True)
            ]
        panel.plot(*found["examples"][0, place].T, "o", color="black", label="examples")
        label(panel, f"prompt {place + 1}", "x", "y")
    low, high = axes[0, 0].get_ylim()
    axes[0, 0].set_ylim(low, high + 0.45 * (high - low))
    axes[0, 0].legend(fontsize=7, loc="upper right", ncols=2)
    last = axes[0, 3]
    for values, text, looks in zip(found["history"].swapaxes(0, 1), names, LOOKS[1:], strict=False):
        curve(rows, last, found["steps"][0], values, text, f"half loss, {text}", markevery=3, **looks)
    last.set_yscale("log")
    last.set_ylim(1e-3, 1)
    last.legend()
    label(last, "equally good", "training step", LOSS)
    figure.suptitle(
        "attention behind a front end fits sine curves as a gradient step on features does", x=0.01, ha="left"
    )
    return Drawing(figure, pd.DataFrame(rows))


@TASK.claim(
    "icl-gradient-descent/P5",
    where="Figure 4",
    kind="training",
    statement=(
        "On sine curves, a front end trained with linear attention and one trained with a hard-wired gradient step have "
        "losses whose ratio lies between $0.7$ and $1.4$, and predict functions with a mean cosine above $0.8$."
    ),
    controls=[
        control("predicting zero for the hard-wired step", reference="zero"),
        control("functions of different prompts", pairing="cosine apart"),
    ],
)
def attention_is_a_step_on_features(results: Results, reference: str = "loss", pairing: str = "cosine") -> Evidence:
    found = results[sine]
    other = found["loss"][:, 1] if reference == "loss" else found["zero"]
    ratio = np.log(found["loss"][:, 0] / other)
    return Evidence.weakest(
        Evidence.over_seeds(ratio, ">", float(np.log(0.7)), "a ratio of 0.7 (logarithm)", parts=3),
        Evidence.over_seeds(ratio, "<", float(np.log(1.4)), "a ratio of 1.4 (logarithm)", parts=3),
        Evidence.over_seeds(found[pairing], ">", 0.8, "a cosine of 0.8", parts=3),
    )


# %%
TASK.show(sine_fits)
TASK.show(attention_is_a_step_on_features)

# %%
TASK.show()
