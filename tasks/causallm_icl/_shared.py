"""What the parts share: the paper, masks, prompts, closed forms, and how softmax transformers are trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from lab.domains.regression.online_limits import Coordinate, shifted_kaczmarz_error
from lab.domains.regression.prompts import (
    ClassPrompts,
    RegressionPrompts,
    linear_regression,
    multiclass,
    permute_context,
    random_orders,
    tokens,
)
from lab.labels import labelled
from lab.models import masks
from lab.models.transformer import Architecture, Transformer
from lab.streams import RandomStream, stream
from lab.study import Fitted, Networks, Study
from lab.training import Batch, Optimisation

SLUG = "causallm-icl"
PAPER = "ding-2024-causallm"
UNIFORM_VARIANCE = 1 / 3  # of a coordinate uniform on [-1, 1]
EXCHANGED = {"prefix": "causal", "causal": "prefix"}  # each network read under the mask of the other


@dataclass(frozen=True)
class Numerics:
    """Sizes of the measurements that train nothing: the paper's own, batched recursions being cheap."""

    draws: int = 32
    """independent draws (seeds)"""
    sequences: int = 64
    """prompts a draw"""
    queries: int = 20
    """queries a prompt"""
    dimension: int = 16
    """dimension d of the inputs, uniform on mean + [-1, 1]^d"""
    context_length: int = 40
    """examples n a prompt"""


def numerical_prompts(sizes: Numerics, seed: int, **changes: Any) -> RegressionPrompts:
    """The prompts of one draw, as in the paper unless changed."""
    settings: dict[str, Any] = {"context_length": sizes.context_length, "query_length": sizes.queries} | changes
    return linear_regression(stream(seed, "numerics"), sizes.sequences, dimension=sizes.dimension, **settings)


def one_pass_law(sizes: Numerics, lengths: Sequence[int], mean: float = 0.0, noise: float = 0.0) -> xr.DataArray:
    """Expected query error after one pass of Kaczmarz over each number of examples, by the exact two-number recursion."""
    coordinate = Coordinate("uniform", mean)
    expected = shifted_kaczmarz_error(torch.tensor(list(lengths)), coordinate, sizes.dimension, noise=noise)
    return labelled(expected, examples=lengths)


def arm_masks(context: int, queries: int) -> dict[str, Tensor]:
    """The two patterns that everything here compares."""
    return {"prefix": masks.in_context_prefix(context, queries), "causal": masks.in_context_causal(context, queries)}


def log_ratio(errors: xr.DataArray) -> xr.DataArray:
    """log (causal / prefix) of errors with an axis "arm"."""
    return np.log(errors.sel(arm="causal", drop=True) / errors.sel(arm="prefix", drop=True))  # type: ignore[return-value]


Labelling = Literal["linear", "sigmoid", "classes"]
LAYERS = {"shared": True, "not shared": False}


@dataclass(frozen=True)
class Softmax:
    """Sizes of the trained softmax transformers."""

    dimension: int = 3
    """dimension d, inputs uniform on [-1, 1]^d"""
    context_length: int = 6
    """examples n"""
    queries: int = 6
    """queries a prompt"""
    classes: int = 3
    """classes, where labels are classes"""
    architecture: Architecture = Architecture(width=24, layers=3, heads=2, mlp_ratio=2.0, norm="none")
    """all but input size, output size and whether layers share weights"""
    batch: int = 32
    """prompts a step"""
    optimisation: Optimisation = Optimisation(
        steps=500,
        learning_rate=5e-3,
        warmup=0.1,
        schedule="cosine",
        optimiser="adamw",
        betas=(0.9, 0.98),
        clip_norm=1.0,
    )
    pool: int = 0
    """training prompts drawn once and used again and again; 0 for fresh prompts at every step"""
    test_prompts: int = 500
    """prompts of the test"""


SMOKE_SOFTMAX = Softmax(batch=4, optimisation=Optimisation(steps=6, learning_rate=1e-3), test_prompts=20)
PAPER_SOFTMAX = Softmax(
    dimension=16,
    context_length=40,
    queries=20,
    # The released code: radial attention of two heads of 32, the stream itself normalised, 24 layers, learned positions.
    architecture=Architecture(
        width=128,
        layers=24,
        heads=2,
        head_size=32,
        attention="kernel",
        norm="stream",
        output_size=1,
        output_bias=True,
        positions="learned",
        maximum_length=60,
        initialisation="fan_in_uniform",
    ),
    batch=64,
    optimisation=Optimisation(
        steps=100_000, learning_rate=1e-4, warmup=0.2, schedule="cosine", optimiser="adamw", epsilon=1e-7
    ),
    pool=64_000,
    test_prompts=64,
)


def sample(sizes: Softmax, labelling: Labelling, source: RandomStream, count: int, length: int = 0) -> Any:
    """Prompts with labels of one kind and ``length`` examples (0: as in training)."""
    shape: dict[str, Any] = {
        "dimension": sizes.dimension,
        "context_length": length or sizes.context_length,
        "query_length": sizes.queries,
    }
    if labelling == "classes":
        return multiclass(source, count, classes=sizes.classes, dtype=torch.float32, **shape)
    return linear_regression(source, count, output=labelling, dtype=torch.float32, **shape)


def exchanged_labels(prompts: Any) -> Any:
    """Every context labelled by another prompt's weights: the examples say nothing about the query."""
    return replace(prompts, y_context=prompts.y_context.roll(1, 0))


def encode(prompts: RegressionPrompts | ClassPrompts) -> Batch:
    """Tokens, and the labels of the queries [prompt, query, outputs]."""
    labels = prompts.y_query if isinstance(prompts, ClassPrompts) else prompts.y_query[..., None]
    return {"tokens": tokens(prompts), "labels": labels}


def predictions(module: Transformer, batch: Batch, mask: Tensor) -> Tensor:
    """Outputs at the queries, [model, prompt, query, outputs]."""
    queries = batch["labels"].shape[2]
    return module(batch["tokens"], mask)[:, :, -queries:]


def squared_error(module: Transformer, batch: Batch, mask: Tensor) -> Tensor:
    """Squared error at the queries, summed over classes, averaged over prompts and queries, [model]."""
    return (predictions(module, batch, mask) - batch["labels"]).square().sum(-1).mean((1, 2))


def class_errors(module: Transformer, batch: Batch, mask: Tensor) -> Tensor:
    """Squared error, and the share of the queries whose class is not the largest output, [model, 2]."""
    answers, labels = predictions(module, batch, mask), batch["labels"]
    squared = (answers - labels).square().sum(-1).mean((1, 2))
    wrong = (answers.argmax(-1) != labels.argmax(-1)).float().mean((1, 2))
    return torch.stack([squared, wrong], -1)


def softmax_study(sizes: Softmax, labelling: Labelling, shared: bool, layers: int = 0) -> Study[Transformer]:
    """Both arms of a softmax transformer with as many ``layers`` (0: those of the sizes)."""
    outputs = sizes.classes if labelling == "classes" else 1
    architecture = replace(
        sizes.architecture,
        input_size=sizes.dimension + outputs,
        output_size=outputs,
        share_layers=shared,
        layers=layers or sizes.architecture.layers,
    )
    return Study(
        build=lambda seeds: Transformer(architecture, tuple(seeds)),
        arms=arm_masks(sizes.context_length, sizes.queries),
        encode=encode,
        loss=squared_error,
    )


def training_prompts(
    sizes: Softmax, labelling: Labelling, seeds: Sequence[int], *, permuted: bool = False, exchanged: bool = False
) -> Callable[[int, int], Any]:
    """(seed, step) to the prompts of that step: fresh ones, or of the seed's pool.

    Args:
        permuted: the contexts of a pool are shown in another order at every step.
        exchanged: labels are those of other prompts.
    """
    fixed = {seed: sample(sizes, labelling, stream(seed, "pool"), sizes.pool) for seed in seeds if sizes.pool}

    def prompts(seed: int, step: int) -> Any:
        source = stream(seed, "data", step)
        if not sizes.pool:
            drawn = sample(sizes, labelling, source, sizes.batch)
        else:
            rows = source.child("rows").rng().choice(sizes.pool, min(sizes.batch, sizes.pool), replace=False)
            fields = {name: values[torch.from_numpy(rows)] for name, values in vars(fixed[seed]).items()}
            drawn = replace(fixed[seed], **fields)
            if permuted:
                drawn = permute_context(drawn, random_orders(source.child("order"), 1, sizes.context_length)[0])
        return exchanged_labels(drawn) if exchanged else drawn

    return prompts


def new_prompts(
    sizes: Softmax, labelling: Labelling, seeds: Sequence[int], name: str = "test", length: int = 0
) -> dict[int, Any]:
    """New prompts for every seed."""
    return {seed: sample(sizes, labelling, stream(seed, name), sizes.test_prompts, length) for seed in seeds}


def one_layer_errors(sizes: Softmax, labelling: Labelling, seeds: Sequence[int]) -> xr.DataArray:
    """Test errors [seed, arm] of untrained networks of one layer: the masks are one function of the query there, trained or not."""
    networks = softmax_study(sizes, labelling, shared=True, layers=1).untrained(seeds)
    return networks.ask(new_prompts(sizes, labelling, seeds), squared_error)


def exchanged_labels_errors(sizes: Softmax, labelling: Labelling, seeds: Sequence[int]) -> xr.DataArray:
    """Test errors [seed, arm] of networks trained, for as many steps as the others, and tested on labels of other prompts."""
    fitted = softmax_study(sizes, labelling, shared=False).fit(
        seeds,
        training_prompts(sizes, labelling, seeds, exchanged=True),
        sizes.optimisation,
        name=f"exchanged labels, {labelling}",
    )
    tests = {seed: exchanged_labels(prompts) for seed, prompts in new_prompts(sizes, labelling, seeds).items()}
    return fitted.ask(tests, squared_error)


def probe_errors(
    sizes: Softmax, fitted: Networks[Transformer], labelling: Labelling, seeds: Sequence[int]
) -> xr.DataArray:
    """Squared query error of the best linear read-out of the state after each layer, [seed, arm, layer].

    The read-out is fitted by least squares on one half of the prompts and scored on the other.
    """
    layers = sizes.architecture.layers

    def read_out_error(module: Transformer, batch: Batch, mask: Tensor) -> Tensor:
        intermediates: dict[str, Tensor] = {}
        module(batch["tokens"], mask, intermediates=intermediates)
        labels = batch["labels"].double()
        prompts, queries = labels.shape[1:3]
        half = max(prompts // 2, 1)
        errors = []
        for name in ("embedding", *(f"layers.{layer}.residual" for layer in range(layers))):
            states = intermediates[name][:, :, -queries:].double()
            states = torch.cat([states, torch.ones_like(states[..., :1])], -1)
            weights = torch.linalg.pinv(states[:, :half].flatten(1, 2)) @ labels[:, :half].flatten(1, 2)
            missing = states[:, half:].flatten(1, 2) @ weights - labels[:, half:].flatten(1, 2)
            errors.append(missing.square().sum(-1).mean(1))
        return torch.stack(errors, -1)

    return fitted.ask(new_prompts(sizes, labelling, seeds, "probe"), read_out_error, layer=range(layers + 1))


def fit(sizes: Softmax, labelling: Labelling, seeds: Sequence[int], sharing: str) -> Fitted[Transformer]:
    """The trainings of a cell of the paper's Table 1, on layers "shared" or "not shared"."""
    return softmax_study(sizes, labelling, LAYERS[sharing]).fit(
        seeds, training_prompts(sizes, labelling, seeds), sizes.optimisation, name=f"{labelling}, layers {sharing}"
    )
