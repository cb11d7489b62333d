"""What the parts share: sizes, prompts, losses, and the closed forms they are compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import pandas as pd
import torch
import xarray as xr
from torch import Tensor, nn

from lab.domains.regression.least_squares import predict
from lab.domains.regression.one_layer_loss import excess_of_layer
from lab.domains.regression.optimal_steps import UNIFORM_KURTOSIS, one_step_error, optimal_step
from lab.domains.regression.prompts import RegressionPrompts, linear_regression, tokens
from lab.labels import labelled
from lab.models import masks
from lab.models.transformer import Architecture
from lab.streams import RandomStream, stream
from lab.study import Fitted, Networks, Study
from lab.training import Batch, M, Optimisation

PAPER = "oswald-2023-gradient-descent"
ROOT = 2026  # of the seeds on which the sampled claims are judged; sizes and bounds were chosen below 0, 1 and 2
MASKS = {"prefix": masks.in_context_prefix, "causal": masks.in_context_causal}
INPUT_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
UPDATES_A_BLOCK = 25  # whose prompts are drawn in one call
SAME = "two per cent, what counts as the same loss throughout"
LOSS = "half the mean squared error"


@dataclass(frozen=True)
class Regression:
    """Linear regression without noise, y = w . x with w ~ N(0, I), and the half-losses of what can be done about it."""

    dimension: int = 10
    """dimension d of the inputs, uniform on [-half_width, half_width]^d"""
    half_width: float = 0.5
    """half the side of the cube of inputs"""
    context_length: int = 10
    """examples N"""

    @property
    def variance(self) -> float:
        """Of a coordinate of an input, v."""
        return self.half_width**2 / 3

    def law(self, scale: float = 1.0, kurtosis: float = UNIFORM_KURTOSIS) -> dict[str, float]:
        """Variance and kurtosis of a coordinate of inputs that are ``scale`` times as large."""
        return {"input_variance": scale**2 * self.variance, "kurtosis": kurtosis}

    def best_step(self, length: int = 0) -> float:
        """The best step on the sum over ``length`` examples (0: those of this setting)."""
        return optimal_step(length or self.context_length, self.dimension, **self.law())

    def step_loss(self, length: int = 0) -> float:
        """Half the expected error of one best gradient step, exactly."""
        length = length or self.context_length
        return one_step_error(self.best_step(length), length, self.dimension, **self.law()) / 2

    def step_loss_at(self, scale: float = 1.0, kurtosis: float = UNIFORM_KURTOSIS) -> float:
        """The same where inputs are ``scale`` times as large, or of another law, and the step stays as it was."""
        law = self.law(scale, kurtosis)
        return one_step_error(self.best_step(), self.context_length, self.dimension, **law) / 2

    def tuned_loss_at(self, scale: float = 1.0, kurtosis: float = UNIFORM_KURTOSIS) -> float:
        """The same with the step that is best for those inputs: the least that one layer can reach on them."""
        law, (length, dimension) = self.law(scale, kurtosis), (self.context_length, self.dimension)
        return one_step_error(optimal_step(length, dimension, **law), length, dimension, **law) / 2

    @property
    def zero_loss(self) -> float:
        """Half the expected error of predicting 0."""
        return self.dimension * self.variance / 2


@dataclass(frozen=True)
class Experiment(Regression):
    """Sizes of a training on such prompts, and of its test."""

    queries: int = 8
    """queries a prompt"""
    batch: int = 32
    """prompts an update"""
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


Arrays = Mapping[str, xr.DataArray | float]
Sizes = TypeVar("Sizes", bound=Experiment)
# How the paper trains its larger networks.
FORTY_THOUSAND = Optimisation(steps=40_000, learning_rate=1e-3, betas=(0.9, 0.98), clip_norm=10.0)


def longer(start: Sizes, **changes: object) -> Sizes:
    """The same experiment with the paper's batches of fresh prompts, one query each, heads and numbers of tests."""
    sizes: dict[str, Any] = {
        "queries": 1,
        "batch": 2048,
        "head_ratio": 1,
        "trainings": 5,
        "test_prompts": 10_000,
        "records": 50,
        "optimisation": Optimisation(steps=5000, learning_rate=1e-3, betas=(0.9, 0.98), clip_norm=1e-3),
    }
    return replace(start, **(sizes | changes))


def tiny(start: Sizes) -> Sizes:
    """The same experiment in a second."""
    few = replace(start.optimisation, steps=4)
    return replace(start, batch=4, queries=2, optimisation=few, trainings=2, test_prompts=40, records=2)


def weight_seeds(seeds: Sequence[int]) -> list[int]:
    """Seeds of the initial weights, apart from those that were tried while sizes were chosen."""
    return [30_000 + seed for seed in seeds]


def attention_only(size: int, config: Experiment, **changes: object) -> Architecture:
    """One layer of linear attention without biases on tokens of this size."""
    settings: dict[str, Any] = {
        "width": size,
        "layers": 1,
        "attention": "linear",
        "head_size": config.head_ratio * size,
        "mlp_ratio": 0.0,
        "norm": "none",
        "bias": False,
        "share_layers": True,
        "initial_scale": config.initial_scale,
    }
    return Architecture(**(settings | changes))


def sample_prompts(config: Experiment, source: RandomStream, count: int, queries: int = 0) -> RegressionPrompts:
    """Noise-free prompts in single precision; 0 queries for as many as in training."""
    return linear_regression(
        source,
        count,
        dimension=config.dimension,
        context_length=config.context_length,
        query_length=queries or config.queries,
        half_width=config.half_width,
        dtype=torch.float32,
    )


def fit(
    study: Study[M],
    config: Experiment,
    seeds: Sequence[int],
    stream_name: str,
    sample: Callable[[RandomStream, int], Any],
    **settings: Any,
) -> Fitted[M]:
    """`lab.study.Study.fit` on fresh prompts, sample(stream, count), with the sizes of ``config``."""
    return study.fit(
        seeds,
        lambda seed, block, count: sample(stream(seed, stream_name, "data", block), count),
        config.optimisation,
        blocks=(config.batch, UPDATES_A_BLOCK),
        measure_every=max(1, config.optimisation.steps // config.records),
        **settings,
    )


def encode(prompts: RegressionPrompts) -> Batch:
    """Tokens of prompts, and the labels asked for."""
    return {"tokens": tokens(prompts), "labels": prompts.y_query}


def masks_by_name(context: int, queries: int) -> dict[str, Tensor]:
    """The prefix and the causal mask."""
    return {name: mask(context, queries) for name, mask in MASKS.items()}


def predictions(module: nn.Module, batch: Batch, mask: Tensor, sign: float = -1.0) -> Tensor:
    """The label slots of the queries, the last tokens, times a sign: [model, prompt, query]."""
    return sign * module(batch["tokens"], mask)[:, :, -batch["labels"].shape[-1] :, -1]


def training_loss(module: nn.Module, batch: Batch, mask: Tensor, sign: float = -1.0) -> Tensor:
    """Half the squared error, averaged over prompts and queries: [model]."""
    return (predictions(module, batch, mask, sign) - batch["labels"]).square().mean((1, 2)) / 2


def half_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Half the mean squared error over prompts and queries (the last two axes), in double precision."""
    return (prediction.double() - target.double()).square().mean((-2, -1)) / 2


def fresh_loss(module: nn.Module, batch: Batch, mask: Tensor) -> Tensor:
    """The same in double precision, for tests."""
    return half_error(predictions(module, batch, mask), batch["labels"])


def mask_difference(networks: Networks, prompts: Any, context: int, arms: Sequence[str] | None = None) -> xr.DataArray:
    """Largest difference between answers under the two masks, relative to the largest answer: [seed, arm]."""

    def both(module: nn.Module, batch: Batch, _: Any) -> Tensor:
        prefix, causal = (
            predictions(module, batch, mask) for mask in masks_by_name(context, batch["labels"].shape[-1]).values()
        )
        return (prefix - causal).abs().amax((1, 2)) / prefix.abs().amax((1, 2))

    return networks.ask(prompts, both, arms=arms)


def step_weights(x: Tensor, y: Tensor, step_size: float) -> Tensor:
    """One gradient step from zero, s X^T y: [batch, dimension]."""
    return step_size * predict(y.double(), x.double().mT)


def answers(weights: Tensor, x_query: Tensor) -> Tensor:
    """w . x_q for weights [..., batch, dimension]: [..., batch, query]."""
    return (x_query.double() @ weights[..., None])[..., 0]


def loss_of(weights: Tensor, prompts: RegressionPrompts) -> Tensor:
    """The loss of answering w . x_q on these prompts: [...]."""
    return half_error(answers(weights, prompts.x_query), prompts.y_query)


def descent_loss(prompts: RegressionPrompts, step_size: float) -> float:
    """The loss of one gradient step on these prompts."""
    return float(loss_of(step_weights(prompts.x_context, prompts.y_context, step_size), prompts))


class Products(NamedTuple):
    r"""$K^\top Q$ and $P V$ of layers with one head, as they act on column tokens: [..., d + 1, d + 1] each."""

    score: Tensor
    value: Tensor

    @classmethod
    def of(cls, module: nn.Module) -> Products:
        """Of every network of an ensemble, in double precision."""
        matrices = {name.split(".")[-2]: value.detach().double() for name, value in module.named_parameters()}
        return cls(matrices["key"] @ matrices["query"].mT, (matrices["value"] @ matrices["output"]).mT)

    def at(self, place: int) -> Products:
        """Those of one network."""
        return Products(self.score[place], self.value[place])

    @property
    def scale(self) -> Tensor:
        r"""The mean of the first d diagonal entries of $K^\top Q$."""
        return self.score.diagonal(dim1=-2, dim2=-1)[..., :-1].mean(-1)

    def rescaled(self) -> Products:
        """The same layer with that mean moved from the first product to the second."""
        scale = self.scale[..., None, None]
        return Products(self.score / scale, self.value * scale)

    def weights(self, x: Tensor, y: Tensor) -> Tensor:
        r"""The w of $\hat y_q = w \cdot x_q$ that one layer of linear attention computes: [..., batch, dimension].

        Args:
            x: inputs of the examples [batch, N, d].
            y: their labels [batch, N].
        """
        examples = torch.cat([x, y[..., None]], dim=-1).double()
        second_moments = examples.mT @ examples
        return -((self.value[..., None, -1:, :] @ second_moments) @ self.score[..., None, :, :])[..., 0, :-1]

    def expected_loss(
        self,
        setting: Regression,
        length: int = 0,
        *,
        scale: float = 1.0,
        kurtosis: float = UNIFORM_KURTOSIS,
        weights: float = 1.0,
    ) -> Tensor:
        r"""Half the expected error of one layer, exactly, by its weights (`lab.domains.regression.one_layer_loss`): [...].

        Args:
            setting: the regression that it is asked about.
            length: number of examples (0: those of the setting).
            scale, kurtosis: of the inputs.
            weights: standard deviation of w.
        """
        law = setting.law(scale, kurtosis)
        count = length or setting.context_length
        best = optimal_step(count, setting.dimension, **law)
        least = weights**2 * one_step_error(best, count, setting.dimension, **law)
        reads, writes = self.score[..., :-1], self.value[..., -1, :]
        return (least + excess_of_layer(reads, writes, count, **law, weight_scale=weights)) / 2

    @classmethod
    def of_step(cls, dimension: int, step_size: float) -> Products:
        """Those of the construction: inputs are compared as they are, and labels are written from labels alone."""
        inputs = torch.eye(dimension + 1, dtype=torch.float64)
        inputs[-1, -1] = 0
        label_only = torch.zeros_like(inputs)
        label_only[-1, -1] = -step_size
        return cls(inputs, label_only)


def by_member(networks: Networks, values: Tensor, **axes: Sequence[Any] | None) -> xr.DataArray:
    """Numbers [model, ...] of networks as an array [seed, arm, ...]."""
    arms = list(networks.study.arms)
    return labelled(values.unflatten(0, (len(networks.seeds), len(arms))), seed=networks.seeds, arm=arms, **axes)


def for_each_seed(seeds: Sequence[int], measure: Callable[[int], Arrays]) -> dict[str, xr.DataArray]:
    """What ``measure`` gives for every seed, along a first axis of seeds."""
    rows = [measure(seed) for seed in seeds]
    index = pd.Index(seeds, name="seed")
    return {name: xr.concat([xr.DataArray(row[name]) for row in rows], index) for name in rows[0]}


def side_by_side(trainings: Sequence[Mapping[str, xr.DataArray]]) -> dict[str, xr.DataArray]:
    """What was measured in several trainings of the same seeds, along one axis of arms."""
    return {name: xr.concat([training[name] for training in trainings], "arm") for name in trainings[0]}
