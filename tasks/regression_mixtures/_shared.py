"""What the parts share: a world of regressions, its prompts as tokens, networks in both arms, and closed forms beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from lab.domains.regression import mixtures as theory
from lab.domains.regression.mixture_prompts import Law, MixturePrompts, component_set, regression_mixture
from lab.evaluation import as_regression_predictor
from lab.models import masks
from lab.models.transformer import Architecture, Transformer
from lab.streams import RandomStream, stream
from lab.study import Arm, Fitted, Study
from lab.training import Batch, Optimisation

SLUG, PAPER = "regression-mixtures", "pathak-2024-mixtures"
ROOT = 2026  # of the seeds that the evidence is drawn from; sizes and bounds were chosen below others
BOTH = ("causal", "prefix")
FIRST = ("posterior mean", "argmin", "ridge")
CLOSED = (*FIRST, "least squares", "other posterior mean", "other argmin")
LOOKS = {"argmin": 2, "ridge": 3, "least squares": 1}


@dataclass(frozen=True)
class World:
    """A world of regressions, the network that is trained on it, and how."""

    dimension: int = 4
    """d"""
    components: int = 3
    """m"""
    law: Law = "orthonormal"
    """of the components"""
    noise: float = 0.5
    """standard deviation of the noise on every label"""
    length: int = 8
    """inputs n of a prompt; the label of each is asked for, after 0 to n - 1 pairs"""
    architecture: Architecture = Architecture(width=32, layers=2, heads=4, mlp_ratio=4.0, norm="none")
    """all but the sizes of input and output"""
    batch: int = 32
    """prompts an update"""
    optimisation: Optimisation = Optimisation(
        steps=2_000,
        learning_rate=1e-2,
        warmup=0.05,
        schedule="linear",
        optimiser="adamw",
        betas=(0.9, 0.95),
        clip_norm=1.0,
    )
    trainings: int = 8
    """independent trainings an arm"""
    test_prompts: int = 4_000
    """prompts of every test"""


def at_paper_sizes(world: World, **changes: Any) -> Any:
    """The same part at d = 20, with the paper's lengths and a decoder of the size that it trains."""
    sizes: dict[str, Any] = {
        "dimension": 20,
        "components": 5,
        "law": "unit",
        "noise": 1.0,
        "length": 60,
        "architecture": Architecture(width=256, layers=12, heads=8, norm="pre"),
        "batch": 64,
        "optimisation": Optimisation(steps=500_000, learning_rate=1e-4),
    }
    return replace(world, **(sizes | changes))


def tiny(world: World, **changes: Any) -> Any:
    """The same part in seconds."""
    few = replace(world.optimisation, steps=6)
    return replace(world, batch=8, optimisation=few, trainings=2, test_prompts=50, **changes)


def log(values: xr.DataArray) -> xr.DataArray:
    """The natural logarithm, with labels."""
    logarithms: xr.DataArray = xr.apply_ufunc(np.log, values)
    return logarithms


# ------------------------------------------------------------------------------------------------- prompts


@lru_cache(maxsize=64)
def the_set(world: World, seed: int, name: str = "its regressions") -> Tensor:
    """The components of one seed."""
    return component_set(stream(seed, name), world.components, world.dimension, world.law)


def mixture(
    world: World, seed: int, source: RandomStream, count: int, dtype: torch.dtype = torch.float64, **changes: Any
) -> MixturePrompts:
    """Prompts of one seed's set, as in training unless changed."""
    settings: dict[str, Any] = {"length": world.length, "noise": world.noise} | changes
    return regression_mixture(source, count, components=the_set(world, seed), dtype=dtype, **settings)


def rows(prompts: MixturePrompts, places: Any) -> MixturePrompts:
    """Some of the prompts: those at an index, or in a slice."""
    return MixturePrompts(*(getattr(prompts, field.name)[places] for field in fields(prompts)))


def shifted_prior(world: World) -> tuple[float, ...]:
    """Four prompts of five come from the first component."""
    rest = 0.2 / (world.components - 1)
    return (0.8, *[rest] * (world.components - 1))


def closed_forms(world: World, seed: int, prompts: MixturePrompts, names: Sequence[str] = CLOSED) -> Tensor:
    """Predictions of closed forms at every place, [form, batch, place]; the "other" ones know another set."""
    x, y = prompts.x, prompts.y
    components, other_components = the_set(world, seed), the_set(world, seed, "regressions of another world")
    forms: dict[str, Callable[[], Tensor]] = {
        "posterior mean": lambda: theory.running_posterior_mean(x, y, components, world.noise),
        "argmin": lambda: theory.running_argmin(x, y, components),
        "ridge": lambda: (
            theory.running_ridge(x, y, world.dimension * world.noise**2)
            if world.noise
            else theory.running_least_squares(x, y)
        ),
        "least squares": lambda: theory.running_least_squares(x, y),
        "other posterior mean": lambda: theory.running_posterior_mean(x, y, other_components, world.noise),
        "other argmin": lambda: theory.running_argmin(x, y, other_components),
    }
    return torch.stack([forms[name]() for name in names])


# ------------------------------------------------------------------------------------------------ networks


def sequence(x_context: Tensor, y_context: Tensor, x_query: Tensor) -> Tensor:
    """Start token, pairs, queries: [batch, 1 + context + queries, dimension + 2], the last slot 1 at the start token."""
    batch, dimension = len(x_context), x_context.shape[-1]
    start = x_context.new_zeros(batch, 1, dimension + 2)
    start[..., -1] = 1
    pairs = torch.cat([x_context, y_context.unsqueeze(-1), torch.zeros_like(y_context).unsqueeze(-1)], dim=-1)
    queries = torch.cat([x_query, x_query.new_zeros(*x_query.shape[:2], 2)], dim=-1)
    return torch.cat([start, pairs, queries], dim=1)


def prefix_mask(length: int, pairs: int) -> Tensor:
    """Two streams of ``length`` tokens, the first 1 + ``pairs`` contents of which see one another: [2 n, 2 n]."""
    mask = masks.two_stream(length)
    mask[: pairs + 1, : pairs + 1] = True
    return mask


class Drawn(NamedTuple):
    """Prompts of one update by source, and the number of pairs that a prefix holds in it."""

    prompts: Mapping[str, MixturePrompts]
    pairs: int


def arm(world: World, source: str, prefix: bool = False) -> Arm:
    """Networks that are trained on one source of prompts, under a causal or a prefix mask."""

    def encode(drawn: Drawn) -> Batch:
        prompts = drawn.prompts[source]
        return {
            "tokens": sequence(prompts.x[:, :-1], prompts.y[:, :-1], prompts.x),
            "labels": prompts.y,
            "pairs": torch.tensor([drawn.pairs if prefix else 0]),
        }

    if prefix:
        return Arm(lambda batch: prefix_mask(world.length, int(batch["pairs"][0])), encode)
    return Arm(masks.two_stream(world.length), encode)


def query_loss(module: Transformer, batch: Batch, mask: Tensor) -> Tensor:
    """Mean squared error of each model at the queries behind its prefix: all of a causal network."""
    labels, length = batch["labels"], batch["labels"].shape[-1]
    error = (module(batch["tokens"], mask)[:, :, length:, 0] - labels).square().mean(1)
    scored = torch.arange(length) >= batch["pairs"]
    return torch.where(scored, error, 0.0).sum(-1) / scored.sum(-1)


Source = Callable[[int, RandomStream], MixturePrompts]


def fit(
    world: World, seeds: Sequence[int], sources: Mapping[str, Source], arms: Mapping[str, Arm], name: str
) -> Fitted[Transformer]:
    """Train the arms of every seed.

    Args:
        sources: by name, (seed, stream of the update) to a batch of prompts; arms of one source see the same prompts.
        arms: by name, made by `arm`.
        name: under which the networks are kept.
    """
    architecture = replace(world.architecture, input_size=world.dimension + 2, output_size=1)
    study = Study(
        build=lambda chosen: Transformer(architecture, tuple(chosen), torch.float32),
        arms=arms,
        encode=None,
        loss=query_loss,
    )

    def draw(seed: int, step: int) -> Drawn:
        return Drawn(
            {name: source(seed, stream(seed, "update", step)) for name, source in sources.items()}, step % world.length
        )

    return study.fit(seeds, draw, world.optimisation, name=name)


def training_prompts(world: World, **changes: Any) -> Source:
    """Prompts of the seed's set, new ones in every update."""
    return lambda seed, source: mixture(world, seed, source, world.batch, torch.float32, **changes)


Network = Callable[[MixturePrompts, Sequence[int]], Tensor]


def network(fitted: Fitted[Transformer], seed: int, name: str) -> Network:
    """One trained network as a function of prompts and numbers of pairs, to predictions [batch, pairs]."""
    return partial(_answers, fitted.module.select([fitted.place(seed, name)]), "prefix" in name)


def _answers(module: Transformer, prefix: bool, prompts: MixturePrompts, pairs: Sequence[int]) -> Tensor:
    """A causal network answers for all numbers of pairs in one pass; a prefix network once for each, the pairs its prefix."""
    pattern: Callable[[int, int], Tensor] = (
        (lambda context, queries: masks.in_context_prefix(context + 1, queries))
        if prefix
        else (lambda context, queries: masks.two_stream(queries))
    )
    ask = as_regression_predictor(
        module, pattern, encode=sequence, decode=lambda output, context, queries: output[:, :, -queries:, -1], member=0
    )
    x, y = prompts.x, prompts.y
    if prefix:
        return torch.cat([ask(x[:, :k], y[:, :k], x[:, k : k + 1]) for k in pairs], dim=1)
    return ask(x[:, :-1], y[:, :-1], x)[:, list(pairs)]
