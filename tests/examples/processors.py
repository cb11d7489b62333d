"""One identity and one training, small enough to be measured under several kinds of processor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lab import Evidence, Paper, Task, control
from lab.domains.regression.gradient_descent import gradient_descent
from lab.domains.regression.linear_attention import gradient_descent_network, network_predictor
from lab.domains.regression.prompts import RegressionPrompts, linear_regression, tokens
from lab.models import masks
from lab.models.transformer import Architecture, Transformer
from lab.results import Results
from lab.statistics import rounding_bound
from lab.streams import stream
from lab.study import Study
from lab.training import Batch, Optimisation

TASK = Task("processors", Paper("Two claims", "A. Author", 2024))
DIMENSION, EXAMPLES, QUERIES, LAYERS, STEP = 3, 8, 4, 6, 0.05
ARCHITECTURE = Architecture(
    width=16, layers=1, input_size=DIMENSION + 1, output_size=1, attention="linear", mlp_ratio=0
)


def draw(seed: int, step: int, count: int = 32, dtype: torch.dtype = torch.float32) -> RegressionPrompts:
    source = stream(seed, "prompts", step)
    return linear_regression(
        source, count, dimension=DIMENSION, context_length=EXAMPLES, query_length=QUERIES, dtype=dtype
    )


def encode(prompts: RegressionPrompts) -> Batch:
    return {"tokens": tokens(prompts), "labels": prompts.y_query}


def error(module: Transformer, batch: Batch, mask: Tensor) -> Tensor:
    return (module(batch["tokens"], mask)[:, :, EXAMPLES:, 0] - batch["labels"]).square().mean((1, 2))


def build(seeds: Sequence[int]) -> Transformer:
    return Transformer(ARCHITECTURE, tuple(seeds))


@TASK.measurement()
def descent(config: object, seed: int) -> dict[str, np.ndarray]:
    """Predictions of the written network, of gradient descent itself, and of one step more."""
    prompts = draw(seed, 0, 64, torch.float64)
    network = network_predictor(gradient_descent_network(DIMENSION, LAYERS, step=STEP), masks.in_context_prefix)
    arguments = (prompts.x_context, prompts.y_context, prompts.x_query)
    exact, later = (gradient_descent(STEP, steps)(*arguments).numpy() for steps in (LAYERS, LAYERS + 1))
    return {"network": network(*arguments).numpy(), "exact": exact, "later": later}


@TASK.measurement(seeds=lambda config: 12, ensemble=True, seeds_per_job=12)
def trained(config: object, seeds: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Error of a trained linear layer as a share of that of predicting zero; and before training."""
    study = Study(build=build, arms={"prefix": masks.in_context_prefix(EXAMPLES, QUERIES)}, encode=encode, loss=error)
    fitted = study.fit(seeds, draw, Optimisation(steps=150, learning_rate=1e-2, clip_norm=1.0))
    test = encode(draw(0, -1, 256))
    shared = {name: value.expand(len(seeds), *value.shape) for name, value in test.items()}
    mask = masks.in_context_prefix(EXAMPLES, QUERIES)
    unit = test["labels"].square().mean()
    with torch.no_grad():
        return {
            "after": (error(fitted.module, shared, mask) / unit).numpy(),
            "before": (error(build(seeds), shared, mask) / unit).numpy(),
        }


@TASK.claim(
    "processors/identity",
    where="Theorem 1",
    kind="identity",
    statement="The written network takes steps of gradient descent.",
    controls=[control("one step more", against="later")],
)
def network_is_descent(results: Results, against: str = "exact") -> Evidence:
    predictions = results[descent]
    gap = np.abs(predictions["network"] - predictions[against]).max()
    bound = rounding_bound(LAYERS * (EXAMPLES + DIMENSION) * 8, float(np.abs(predictions[against]).max()))
    return Evidence.exact(float(gap), "<=", bound, "rounding of every step")


@TASK.claim(
    "processors/training",
    where="Theorem 2",
    kind="training",
    statement="A trained linear layer leaves less than two thirds of the error of predicting $0$ (geometric mean).",
    controls=[control("before training", when="before")],
)
def a_layer_learns(results: Results, when: str = "after") -> Evidence:
    return Evidence.over_seeds(
        np.log(results[trained][when]), "<", np.log(2 / 3), "two thirds of the error of predicting 0"
    )
