"""A task to interrupt whose measurements are quick, and slow only because they sleep."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from lab import Evidence, Paper, Task, control
from lab.results import Results
from lab.streams import stream


@dataclass(frozen=True)
class Config:
    """Sizes of the task."""

    seeds_drawn: int = 8
    """seeds that are drawn"""
    pause: float = 0.1
    """seconds of sleep a seed"""


TASK = Task("sleeper", Paper("A paper", "A. Author", 2024), {name: Config() for name in ("smoke", "ci", "paper")})


@TASK.measurement(seeds=lambda config: config.seeds_drawn)
def drawn(config: Config, seed: int) -> dict[str, np.ndarray]:
    time.sleep(config.pause)
    return {"normal": stream(seed, "normal").rng().normal(size=(3, 5)), "seed": np.array(seed)}


@TASK.measurement(seeds=lambda config: config.seeds_drawn, ensemble=True, seeds_per_job=3)
def drawn_together(config: Config, seeds: tuple[int, ...]) -> dict[str, np.ndarray]:
    time.sleep(config.pause)
    return {"uniform": np.array([stream(seed, "uniform").rng().random(4) for seed in seeds])}


@TASK.claim(
    "sleeper/A", where="w", kind="identity", statement="Seeds are small.", controls=[control("100 added", shift=100.0)]
)
def seeds_are_small(results: Results, shift: float = 0.0) -> Evidence:
    return Evidence.exact(float(results[drawn]["seed"].max()) + shift, "<=", 50.0, "of no theory")
