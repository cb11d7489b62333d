"""What the parts share: sizes, tokens, masks and errors of networks that read examples and answer queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from lab.domains.regression.function_class_prompts import FunctionClass, FunctionPrompts, Sizes, function_prompts
from lab.domains.regression.prompts import pair_tokens
from lab.labels import labelled
from lab.models import masks
from lab.models.transformer import Architecture, Transformer
from lab.streams import RandomStream, stream
from lab.study import Fitted, Networks, Study
from lab.training import Batch, Optimisation

SLUG = "icl-function-classes"
PAPER = "garg-2022-function-classes"
ARM_NAMES = ("prefix", "causal")
UPDATES_A_BLOCK = 20  # whose prompts are drawn in one call
UNRELATED = "the labels of another prompt"
PILOT = "chosen on pilot seeds (root 0) and judged on seeds not used before"


@dataclass(frozen=True)
class Experiment:
    """Functions of a class on $R^d$, and a training on prompts that show 0 to n examples of one."""

    function: FunctionClass = "linear"
    """the class"""
    dimension: int = 3
    """dimension d"""
    context_length: int = 8
    """most examples n a prompt"""
    queries: int = 4
    """queries a prompt"""
    sparsity: int = 3
    """weights of a sparse function that are not 0"""
    hidden: int = 100
    """units of a two-layer network"""
    depth: int = 4
    """tests from the root of a tree to a leaf"""
    width: int = 32
    """width of the transformer"""
    layers: int = 2
    """its layers"""
    heads: int = 2
    """its attention heads"""
    batch: int = 36
    """prompts an update, numbers of examples 0 to n in turn"""
    optimisation: Optimisation = Optimisation(
        steps=3000,
        learning_rate=5e-3,
        warmup=0.1,
        schedule="cosine",
        optimiser="adamw",
        betas=(0.9, 0.98),
        clip_norm=1.0,
    )
    test_prompts: int = 600
    """test prompts, the same for every number of examples"""
    trainings: int = 12
    """independent trainings an arm"""

    @property
    def architecture(self) -> Architecture:
        """Tokens are (x, y); without positions, so that examples have no order but that of a mask."""
        return Architecture(
            width=self.width,
            layers=self.layers,
            heads=self.heads,
            mlp_ratio=2.0,
            norm="none",
            input_size=self.dimension + 1,
            output_size=1,
        )

    @property
    def sizes(self) -> Sizes:
        """What the class needs to know beside the dimension."""
        return Sizes(min(self.sparsity, self.dimension), self.hidden, self.depth)

    @property
    def counts(self) -> tuple[int, ...]:
        """Numbers of examples, 0 to n."""
        return tuple(range(self.context_length + 1))


def tiny(start: Experiment, **changes: Any) -> Experiment:
    """The same experiment in a second."""
    few = replace(start.optimisation, steps=3)
    few_examples = {"context_length": 4, "batch": 5, "test_prompts": 10, "trainings": 2}
    return replace(start, optimisation=few, **(few_examples | changes))


def sample_prompts(
    config: Experiment, source: RandomStream, count: int, context_length: int | None = None
) -> FunctionPrompts:
    """Noise-free prompts as in training, in single precision."""
    return function_prompts(
        source,
        count,
        function=config.function,
        dimension=config.dimension,
        context_length=config.context_length if context_length is None else context_length,
        query_length=config.queries,
        sizes=config.sizes,
        dtype=torch.float32,
    )


def encode(prompts: FunctionPrompts) -> Batch:
    """Tokens (x, y) of the examples and (x, 0) of the queries, and the labels asked for."""
    return {"tokens": pair_tokens(prompts.x_context, prompts.y_context, prompts.x_query), "labels": prompts.y_query}


def masks_at(config: Experiment, lengths: Sequence[int]) -> dict[str, Tensor]:
    """Masks [prompt, token, token] of both arms for prompts that show their first ``lengths`` examples."""
    shown = torch.arange(config.context_length + config.queries) < torch.tensor(lengths)[:, None, None]
    patterns = {
        "prefix": masks.in_context_prefix(config.context_length, config.queries),
        "causal": masks.in_context_causal(config.context_length, config.queries),
    }
    return {arm: pattern & shown for arm, pattern in patterns.items()}


def predictions(module: nn.Module, batch: Batch, mask: Tensor) -> Tensor:
    """Answers to the queries, the last tokens: [model, prompt, query]."""
    answers: Tensor = module(batch["tokens"], mask)[:, :, -batch["labels"].shape[-1] :, 0]
    return answers


def squared_error(module: nn.Module, batch: Batch, mask: Tensor) -> Tensor:
    """Mean squared error over prompts and queries: [model]."""
    return (predictions(module, batch, mask) - batch["labels"]).square().mean((1, 2))


def normalised_error(module: nn.Module, batch: Batch, mask: Tensor) -> Tensor:
    """The same over the mean squared label of the queries, so that the chance of their draw largely cancels: [model]."""
    return squared_error(module, batch, mask) / batch["labels"].square().mean((1, 2))


def train(
    config: Experiment, seeds: Sequence[int], name: str, arms: Sequence[str] = ARM_NAMES, **settings: Any
) -> Fitted[Transformer]:
    """Networks under these masks, trained on the same prompts; ``settings`` as in `lab.study.Study.fit`."""
    lengths = [place % (config.context_length + 1) for place in range(config.batch)]
    study = Study(
        build=lambda chosen: Transformer(config.architecture, tuple(chosen)),
        arms={arm: mask for arm, mask in masks_at(config, lengths).items() if arm in arms},
        encode=encode,
        loss=squared_error,
    )
    return study.fit(
        seeds,
        lambda seed, block, count: sample_prompts(config, stream(seed, name, "data", block), count),
        config.optimisation,
        blocks=(config.batch, UPDATES_A_BLOCK),
        **settings,
    )


def test_prompts(config: Experiment, seeds: Sequence[int], name: str) -> dict[int, FunctionPrompts]:
    """Fresh prompts for each seed."""
    return {seed: sample_prompts(config, stream(seed, name, "test"), config.test_prompts) for seed in seeds}


def with_other_labels(prompts: Mapping[int, FunctionPrompts]) -> dict[int, FunctionPrompts]:
    """The same prompts, each with the labels of the examples of the prompt before it."""
    return {seed: replace(batch, y_context=batch.y_context.roll(1, 0)) for seed, batch in prompts.items()}


def errors_by_examples(
    networks: Networks[Transformer], config: Experiment, prompts: Mapping[int, FunctionPrompts], counts: Sequence[int]
) -> xr.DataArray:
    """Normalised errors [seed, arm, examples] of networks that see the first k examples, each under its own mask."""
    arms = list(networks.study.arms)
    patterns = [masks_at(config, [k]) for k in counts]
    errors = [networks.ask(prompts, normalised_error, read={arm: pattern[arm] for arm in arms}) for pattern in patterns]
    values = np.stack([error.values for error in errors], -1)
    return labelled(values, seed=networks.seeds, arm=arms, examples=counts)
