"""A task as a user would write it, outside the project's folders."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lab import Evidence, Paper, Task, control
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.results import Results
from lab.streams import stream


@dataclass(frozen=True)
class Inner:
    """A nested part of the configuration."""

    scales: tuple[float, ...] = (1.0, 2.0)
    """what to multiply by"""


@dataclass(frozen=True)
class Config:
    """Sizes of the tiny task."""

    size: int = 10
    """draws a seed"""
    draws: int = 6
    """seeds"""
    inner: Inner = Inner()
    flag: str = ""
    """path of a file that is made once before the process kills itself; empty for no accident"""


TASK = Task(
    "tiny",
    Paper("A tiny paper", "A. Author", 2024),
    {"smoke": Config(size=3), "ci": Config(), "paper": Config(size=1000)},
)


@TASK.measurement(seeds=lambda config: config.draws)
def means(config: Config, seed: int) -> dict[str, np.ndarray]:
    if config.flag and seed == 3 and not Path(config.flag).exists():
        Path(config.flag).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    draws = stream(seed, "data").rng().normal(size=config.size)
    return {"mean": draws.mean(), "scaled": draws.mean() * np.array(config.inner.scales)}


@TASK.measurement(seeds=lambda config: config.draws, ensemble=True, seeds_per_job=4)
def together(config: Config, seeds: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {"first": np.array([stream(seed, "data").rng().normal() for seed in seeds])}


@TASK.measurement(seeds=lambda config: config.draws)
def by_scale(config: Config, seed: int) -> LabelledArrays:
    draws = stream(seed, "data").rng().normal(size=config.size)
    scales = config.inner.scales
    return {"mean": labelled(draws.mean() * np.array(scales), scale=scales), "largest": labelled(draws.max())}


@TASK.measurement(seeds=lambda config: config.draws, ensemble=True, seeds_per_job=4)
def by_scale_together(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    draws = np.array([stream(seed, "data").rng().normal(size=config.size).mean() for seed in seeds])
    scales = config.inner.scales
    return {"mean": labelled(draws[:, None] * np.array(scales), seed=seeds, scale=scales)}


@TASK.cases(claimed={}, halved={"share": 0.5})
def square_of_sum(config: Config, *, share: float = 1.0) -> LabelledArrays:
    """(1 + 2 + … + n)^2 minus the sum of the first n cubes, with a share of that sum."""
    numbers = np.arange(1.0, config.size + 1)
    return {"difference": numbers.sum() ** 2 - share * (numbers**3).sum(), "terms": labelled(numbers, n=None)}


@TASK.figure
def scatter(results: Results) -> Sheet:
    """The means of all seeds."""
    sheet = Sheet()
    panel = sheet.panel("means scatter around 0", x="seed", y="mean")
    panel.scatter(results.seeds(means), results[means]["mean"], name="one seed")
    return sheet


@TASK.claim(
    "tiny/A1",
    where="Theorem 1",
    kind="ordering",
    statement="The mean of standard normal draws is below $3$.",
    controls=[control("a bound of -3", bound=-3.0)],
)
def mean_is_small(results: Results, bound: float = 3.0) -> Evidence:
    return Evidence.over_seeds(results[means]["mean"], "<=", bound, "chosen before the draw")


@TASK.claim(
    "tiny/A2",
    where="Theorem 2",
    kind="ordering",
    statement="The mean of standard normal draws is above $3$.",
    expected="refuted",
    condition="when 6 is added",
    controls=[control("6 added", shift=6.0)],
)
def mean_is_large(results: Results, shift: float = 0.0) -> Evidence:
    return Evidence.over_seeds(results[means]["mean"] + shift, ">", 3.0, "chosen before the draw")


@TASK.claim(
    "tiny/A3",
    where="Lemma 1",
    kind="identity",
    statement="The square of $1 + \\dots + n$ is the sum of the first $n$ cubes.",
    controls=[control("half of the cubes", case="halved")],
)
def cubes_add_up(results: Results, case: str = "claimed") -> Evidence:
    difference = results[square_of_sum].sel(case=case)["difference"]
    return Evidence.exact(float(abs(difference)), "<=", 0, "sums of whole numbers below 2^53 are exact")
