"""What the parts share: sizes, prompts, losses, closed forms, looks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from lab import Paper
from lab.domains.regression.least_squares import predict
from lab.domains.regression.optimal_steps import UNIFORM_KURTOSIS, one_step_error, optimal_step
from lab.domains.regression.prompts import RegressionPrompts, linear_regression, tokens
from lab.figures import REFERENCES, band
from lab.models import masks
from lab.models.transformer import Architecture, Transformer
from lab.statistics import mean_band
from lab.streams import Stream, stream
from lab.training import Batch, Optimisation, in_blocks

PAPER = Paper(
    "Transformers learn in-context by gradient descent",
    "J. von Oswald, E. Niklasson, E. Randazzo, J. Sacramento, A. Mordvintsev, A. Zhmoginov, M. Vladymyrov",
    2023,
    arxiv="2212.07677",
)
HALF_WIDTH = 0.5
VARIANCE = HALF_WIDTH**2 / 3
LAW = {"input_variance": VARIANCE, "kurtosis": UNIFORM_KURTOSIS}
PATTERNS = {"prefix": masks.in_context_prefix, "causal": masks.in_context_causal}
INPUT_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
BLOCK = 25  # steps whose data are drawn in one call
SAME = "two per cent, what counts as the same loss throughout"


@dataclass(frozen=True)
class Experiment:
    """Sizes of one experiment on prompts of examples and queries."""

    dimension: int = 10
    """dimension d of the inputs, uniform on [-half_width, half_width]^d"""
    half_width: float = 0.5
    """half the side of the cube of inputs"""
    context_length: int = 10
    """examples N"""
    queries: int = 8
    """queries a prompt"""
    batch: int = 32
    """prompts a step"""
    initial_scale: float = 0.1
    """standard deviation of all initial weights of attention"""
    head_ratio: int = 4
    """size of a head over size of a token; at the paper's 1 products wait long where a direction starts with the wrong sign"""
    optimisation: Optimisation = Optimisation(
        steps=800, learning_rate=1.5e-2, schedule="cosine", betas=(0.9, 0.98), clip_norm=0.1
    )
    trainings: int = 8
    """independent trainings an arm"""
    test_prompts: int = 2000
    """prompts of the test"""
    records: int = 20
    """records along a training"""


Sizes = TypeVar("Sizes", bound=Experiment)


def longer(start: Sizes, **changes: object) -> Sizes:
    """The same experiment with the paper's batches of fresh prompts, one query each, heads and numbers of tests."""
    sizes: dict = {
        "queries": 1,
        "batch": 2048,
        "head_ratio": 1,
        "trainings": 5,
        "test_prompts": 10_000,
        "records": 50,
        "optimisation": Optimisation(steps=5000, learning_rate=1e-3, betas=(0.9, 0.98), clip_norm=1e-3),
    }
    return replace(start, **(sizes | changes))


# How the paper trains its larger networks.
FORTY_THOUSAND = Optimisation(steps=40_000, learning_rate=1e-3, betas=(0.9, 0.98), clip_norm=10.0)


def tiny(start: Sizes) -> Sizes:
    """The same experiment in a second."""
    few = replace(start.optimisation, steps=4)
    return replace(start, batch=4, queries=2, optimisation=few, trainings=2, test_prompts=40, records=2)


def weight_seeds(chosen: Sequence[int]) -> list[int]:
    """Seeds of the initial weights, apart from those that were tried while sizes were chosen."""
    return [30_000 + seed for seed in chosen]


def prompts(sizes: Experiment, source: Stream, count: int, queries: int = 0) -> RegressionPrompts:
    """Noise-free prompts in single precision; 0 queries for as many as in training."""
    return linear_regression(
        source,
        count,
        dimension=sizes.dimension,
        context_length=sizes.context_length,
        query_length=queries or sizes.queries,
        half_width=sizes.half_width,
        dtype=torch.float32,
    )


def fed(given: RegressionPrompts) -> Batch:
    """Tokens of prompts, and the labels asked for."""
    return {"tokens": tokens(given), "labels": given.y_query}


def fresh_batches(draw: Callable[[Stream, int], Batch], name: str, size: int) -> Callable[[int, int], Batch]:
    """Fresh batches of ``size`` for `train`, from draw(stream, prompts)."""
    return in_blocks(lambda seed, number, prompts: draw(stream(seed, name, "data", number), prompts), size, BLOCK)


def query_loss(patterns: dict[str, Tensor], context: int, sign: float = -1.0) -> Callable[..., Tensor]:
    """Half the squared error of the queries' label slots (times ``sign``), averaged over prompts and queries."""

    def loss(module: nn.Module, given: Batch, arms: tuple[str, ...]) -> Tensor:
        mask = torch.stack([patterns[arm] for arm in arms])
        prediction = sign * module(given["tokens"], mask)[:, :, context:, -1]
        return (prediction - given["labels"]).square().mean((1, 2)) / 2

    return loss


def attention_only(size: int, sizes: Experiment, **changes: object) -> Architecture:
    """One layer of linear attention without biases on tokens of this size."""
    settings: dict = {
        "width": size,
        "layers": 1,
        "attention": "linear",
        "head_size": sizes.head_ratio * size,
        "mlp_ratio": 0.0,
        "norm": "none",
        "bias": False,
        "share_layers": True,
        "initial_scale": sizes.initial_scale,
    }
    return Architecture(**(settings | changes))


def evaluate_every(sizes: Experiment) -> int:
    """Steps between records."""
    return max(1, sizes.optimisation.steps // sizes.records)


def half_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Half the mean squared error over prompts and queries (the last two axes), in double precision."""
    return (prediction.double() - target.double()).square().mean((-2, -1)) / 2


def answered(module: nn.Module, given: Tensor, context: int, pattern: str = "prefix") -> Tensor:
    """Minus the last coordinate of every query's output under a mask: [model, batch, query]."""
    with torch.no_grad():
        return -module(given, PATTERNS[pattern](context, given.shape[2] - context))[:, :, context:, -1]


def mask_difference(module: nn.Module, given: Tensor, context: int) -> np.ndarray:
    """Largest difference between answers under the two masks, relative to the largest answer: [model]."""
    one, other = (answered(module, given, context, pattern) for pattern in PATTERNS)
    return ((one - other).abs().amax((1, 2)) / one.abs().amax((1, 2))).numpy()


def gradient_weights(x: Tensor, y: Tensor, step: float) -> Tensor:
    """One step from zero, s X^T y: [batch, dimension]."""
    return step * predict(y.double(), x.double().mT)


def answers(weights: Tensor, x_query: Tensor) -> Tensor:
    """w . x_q for weights [..., batch, dimension]: [..., batch, query]."""
    return (x_query.double() @ weights[..., None])[..., 0]


def products(module: Transformer) -> tuple[Tensor, Tensor]:
    r"""$K^\top Q$ and $P V$ of every model of one layer and one head, as they act on column tokens: [E, size, size] each."""
    found = {name.split(".")[-2]: value.detach().double() for name, value in module.named_parameters()}
    return found["key"] @ found["query"].mT, (found["value"] @ found["output"]).mT


def optimal_half_loss(length: int, dimension: int) -> float:
    """Half the error of the best single step, exactly."""
    return one_step_error(optimal_step(length, dimension, **LAW), length, dimension, **LAW) / 2


def input_scale_law(sizes: Experiment, step: float, scale: float) -> float:
    """Half the exact error of a fixed step on inputs scaled by ``scale``."""
    law = {**LAW, "input_variance": scale**2 * VARIANCE}
    return one_step_error(step, sizes.context_length, sizes.dimension, **law) / 2


def curve(
    rows: list[dict], panel: Axes, x: Sequence[float], values: np.ndarray, text: str, quantity: str = "", **looks: Any
) -> None:
    """Draw the mean over seeds of values [seed, point] with its band, and note it in the table of a figure."""
    middle = values.mean(0)
    panel.plot(x, middle, label=text, **looks)
    low, high = mean_band(values)
    band(panel, np.array(x), np.maximum(low, 1e-9), high, looks["color"])
    rows += [{"quantity": quantity or text, "x": float(a), "value": b} for a, b in zip(x, middle, strict=True)]


def points(
    rows: list[dict], panel: Axes, x: Sequence[float], values: np.ndarray, text: str, quantity: str = "", **looks: Any
) -> None:
    """The same with marks and intervals in place of a line and its band."""
    middle, (low, high) = values.mean(0), mean_band(values)
    panel.errorbar(x, middle, [middle - low, high - middle], capsize=3, label=text, **(looks | {"linestyle": "none"}))
    rows += [{"quantity": quantity or text, "x": float(a), "value": b} for a, b in zip(x, middle, strict=True)]


# The colour, line and marker of what is neither an arm nor a closed form.
LOOKS: list[dict[str, Any]] = [
    {"color": REFERENCES[color], "linestyle": line, "marker": marker}
    for color, line, marker in zip((2, 3, 4, 0, 1), ("-.", "-", "--", (0, (1, 1)), (0, (5, 1))), "^osDx", strict=True)
]
ZERO: dict[str, Any] = {"color": "black", "linewidth": 0.8, "linestyle": (0, (6, 3)), "label": "predicting 0"}
LOSS = "half the mean squared error"
