"""A task to interrupt whose jobs are two trainings each, slow only because they sleep."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lab import Evidence, Paper, Task, control
from lab.models import masks
from lab.models.transformer import Architecture, Transformer
from lab.results import Results
from lab.streams import stream
from lab.training import Batch, Member, Optimisation, train


@dataclass(frozen=True)
class Config:
    """Sizes of the task."""

    steps: int = 40
    """updates of a training"""
    pause: float = 0.01
    """seconds of sleep an update"""


TASK = Task("trainer", Paper("A paper", "A. Author", 2024), {name: Config() for name in ("smoke", "ci", "paper")})
ARCHITECTURE = Architecture(width=4, layers=1, heads=1, input_size=2, output_size=1, mlp_ratio=1)


def build(seeds: Sequence[int]) -> Transformer:
    return Transformer(ARCHITECTURE, tuple(seeds))


@TASK.measurement(seeds=lambda config: 4, ensemble=True, seeds_per_job=2)
def trained(config: Config, seeds: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Losses along two trainings, one after the other, as one job."""

    def batch(seed: int, step: int) -> Batch:
        time.sleep(config.pause / len(seeds))
        return {"tokens": torch.from_numpy(stream(seed, "tokens", step).rng().normal(size=(4, 3, 2)))}

    def loss(module: Transformer, batch: Batch, arms: tuple[str, ...]) -> torch.Tensor:
        answers = module(batch["tokens"], masks.causal(3))
        return (answers[..., 0] - batch["tokens"].sum(-1)).square().mean((1, 2))

    optimisation = Optimisation(config.steps, 0.01)
    losses = {}
    for name in ("first", "second"):
        members = [Member(seed, name) for seed in seeds]
        run = train(build, members, batch, loss, optimisation, evaluate_every=10, name=name, checkpoint_seconds=0.1)
        losses[name] = np.array(run.history["loss"]).T
    return losses


@TASK.claim(
    "trainer/A",
    where="w",
    kind="identity",
    statement="Losses are numbers.",
    controls=[control("100 added", shift=100.0)],
)
def losses_are_small(results: Results, shift: float = 0.0) -> Evidence:
    return Evidence.exact(float(results[trained]["first"].max()) + shift, "<=", 100.0, "of no theory")
