"""From samples to decisions: intervals, slopes and rounding bounds.

Every judgement on sampled numbers in this project draws on one false-alarm budget: the probability that
*any* verdict of a full run is wrong by chance is at most ``FALSE_ALARM_BUDGET``. For means it supposes
samples that are nearly normal, and a claim whose samples were added to after a first look spends its share twice;
replications on other seeds (``lab.replication``) count what comes out. The budget is divided evenly
(Bonferroni) over ``JUDGEMENTS`` judgements, a number fixed in advance so that adding a claim never
moves the threshold of another; a test counts the sampled judgements of a full run against it. Judgements on exact
numbers (identities, enumerations, quadratures) cannot go wrong by chance and take no share.

What a statistic knows of its own chance is a ``Spread``: it gives the interval at any share of the budget.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import scipy
from jaxtyping import Float

FALSE_ALARM_BUDGET = 0.05
JUDGEMENTS = 2048
SHARE = FALSE_ALARM_BUDGET / JUDGEMENTS
MOST_SEEDS = 10**9
"""Where ``seeds_wanted`` gives up: the number measured is as good as on the bound."""

Interval = tuple[float, float]


@runtime_checkable
class Spread(Protocol):
    """A summary of samples that can say where the true value lies."""

    def interval(self, share: float) -> Interval:
        """An interval of which each end is wrong with probability at most ``share``; the smaller the share, the wider."""


@dataclass(frozen=True)
class Student:
    r"""The mean of independent samples: $\bar x \pm t_{n-1, 1-\alpha}\, s / \sqrt n$ with $\alpha$ the share.

    Attributes:
        mean: $\bar x$.
        deviation: $s$, with $n - 1$ in the denominator; NaN if a sample is infinite (the interval is then the whole line).
        samples: $n$, at least 2.
    """

    mean: float
    deviation: float
    samples: int

    @classmethod
    def of(cls, samples: Float[np.ndarray, " samples"]) -> Student:
        """From one number per independent training or draw.

        Raises:
            ValueError: fewer than two samples carry no information on their spread.
        """
        if samples.size < 2:
            raise ValueError(f"an interval needs at least 2 independent samples, not {samples.size}")
        finite = bool(np.isfinite(samples).all())
        return cls(float(samples.mean()), float(samples.std(ddof=1)) if finite else math.nan, samples.size)

    def interval(self, share: float) -> Interval:
        if math.isnan(self.deviation):
            return -math.inf, math.inf
        half = float(scipy.stats.t.isf(share, self.samples - 1)) * self.deviation / math.sqrt(self.samples)
        return self.mean - half, self.mean + half

    def at(self, samples: int) -> Student:
        """The same mean and deviation, seen in another number of samples."""
        return replace(self, samples=samples)


@dataclass(frozen=True)
class Binomial:
    """A probability from independent trials: the exact interval of Clopper and Pearson (1934)."""

    successes: float
    trials: int

    def interval(self, share: float) -> Interval:
        failures = self.trials - self.successes
        low = float(scipy.stats.beta.ppf(share, self.successes, failures + 1)) if self.successes > 0 else 0.0
        high = float(scipy.stats.beta.isf(share, self.successes + 1, failures)) if failures > 0 else 1.0
        return low, high

    def at(self, samples: int) -> Binomial:
        """The same rate of success in another number of trials."""
        return Binomial(self.successes / self.trials * samples, samples)


@dataclass(frozen=True)
class Median:
    r"""The median of independent samples by order statistics, exact for any distribution.

    The $r$-th smallest sample exceeds the median only if fewer than $r$ samples lie at or below it, which has probability
    at most $P(\mathrm{Bin}(n, 1/2) < r)$. The interval runs from the $r$-th smallest to the $r$-th largest sample, with the
    largest $r$ for which this is at most the share; without such an $r$ (at the project's share: fewer than 16 samples)
    it is the whole line.

    Attributes:
        ordered: the samples, smallest first.
    """

    ordered: tuple[float, ...]

    def interval(self, share: float) -> Interval:
        rank = int(scipy.stats.binom.ppf(share, len(self.ordered), 0.5))
        return (self.ordered[rank - 1], self.ordered[-rank]) if rank else (-math.inf, math.inf)


@dataclass(frozen=True)
class StandardErrors:
    """A deviation from a target, counted in standard errors and compared with ``deviation_limit(samples)``.

    A smaller share allows a larger deviation: the lower end moves down by as much as the limit would move up.
    """

    deviation: float
    samples: int

    def interval(self, share: float) -> Interval:
        slack = deviation_limit(self.samples, share) - deviation_limit(self.samples)
        return self.deviation - max(slack, 0.0), self.deviation


def mean_interval(samples: Float[np.ndarray, " samples"], share: float = SHARE) -> Interval:
    """Student interval for the mean of independent samples, each end wrong with probability ``share``."""
    return Student.of(samples).interval(share)


def proportion_interval(successes: int, trials: int, share: float = SHARE) -> Interval:
    """Clopper-Pearson interval of a probability, each end wrong with probability at most ``share``."""
    return Binomial(successes, trials).interval(share)


def seeds_wanted(spread: Student | Binomial, distance: float, share: float = SHARE) -> int | None:
    """How many samples would bring both ends of the interval within ``distance`` of its middle, if nothing else changed.

    Returns:
        the smallest such number, at least 2; None where ``MOST_SEEDS`` would not do.
    """
    middle = spread.mean if isinstance(spread, Student) else spread.successes / spread.trials

    def enough(samples: int) -> bool:
        low, high = spread.at(samples).interval(share)
        return max(middle - low, high - middle) <= distance

    few, many = 1, 2
    while not enough(many):
        few, many = many, 2 * many
        if many > MOST_SEEDS:
            return None
    while many - few > 1:
        half = (few + many) // 2
        few, many = (few, half) if enough(half) else (half, many)
    return many


def deviation(samples: Float[np.ndarray, " samples"], target: float) -> float:
    r"""How many standard errors the mean of ``samples`` lies from ``target``: $|\bar x - \mu| \sqrt n / s$.

    Samples without spread give 0 where they equal the target and infinity where they do not.
    """
    error = samples.std(ddof=1) / np.sqrt(samples.size)
    distance = abs(samples.mean() - target)
    if error == 0:
        return 0.0 if distance == 0 else float("inf")
    return float(distance / error)


def deviation_limit(samples: int, share: float = SHARE) -> float:
    """The ``deviation`` that a true target exceeds with probability ``share`` (two-sided Student)."""
    return float(scipy.stats.t.isf(share / 2, samples - 1))


def slope(
    x: Sequence[float] | Float[np.ndarray, " points"], y: Sequence[float] | Float[np.ndarray, " points"]
) -> float:
    """Least-squares slope of ``log y`` against ``log x``: the measured exponent of a power law."""
    return float(scipy.stats.linregress(np.log(np.asarray(x)), np.log(np.asarray(y))).slope)


def mean_band(
    samples: Float[np.ndarray, "samples *points"], confidence: float = 0.95
) -> tuple[Float[np.ndarray, "*points"], Float[np.ndarray, "*points"]]:
    r"""Pointwise Student band for the mean over axis 0, for drawing (no decision is taken on it).

    Returns:
        the lower and the upper edge.
    """
    half = (
        scipy.stats.t.isf((1 - confidence) / 2, len(samples) - 1) * samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
    )
    middle = samples.mean(axis=0)
    return np.asarray(middle - half), np.asarray(middle + half)


def rounding_bound(operations: float, scale: float = 1.0, dtype: type = np.float64) -> float:
    r"""The rounding error that ``operations`` successive floating-point operations may leave.

    $\gamma_n \cdot \text{scale} = \frac{n u}{1 - n u} \cdot \text{scale}$ with unit round-off $u$ = eps/2
    (Higham, *Accuracy and Stability of Numerical Algorithms*, Lemma 3.1).

    Args:
        operations: length of the longest chain of operations behind one compared number, times any known
            amplification (a condition number, the norm of an error map).
        scale: size of the largest intermediate value.
        dtype: the arithmetic used.
    """
    unit = float(np.finfo(dtype).eps) / 2
    if operations * unit >= 1:
        raise ValueError(f"{operations:.3g} operations leave no correct digit in {np.dtype(dtype).name}")
    return operations * unit / (1 - operations * unit) * scale
