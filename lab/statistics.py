"""From samples to decisions: intervals, slopes and rounding bounds.

Every judgement on sampled numbers in this project draws on one false-alarm budget: the probability that
*any* verdict of a full run is wrong by chance is at most ``FALSE_ALARM_BUDGET``. It is divided evenly
(Bonferroni) over ``JUDGEMENTS`` one-sided judgements, a number fixed in advance so that adding a claim never
moves the threshold of another; a test counts the sampled judgements of a full run against it. Judgements on exact
numbers (identities, enumerations, quadratures) cannot go wrong by chance and take no share.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy import stats

FALSE_ALARM_BUDGET = 0.05
JUDGEMENTS = 500
SHARE = FALSE_ALARM_BUDGET / JUDGEMENTS

Interval = tuple[float, float]


def mean_interval(samples: Float[np.ndarray, " samples"], parts: int = 1) -> Interval:
    r"""Student interval for the mean of independent samples, each end wrong with probability ``SHARE / parts``.

    $\bar x \pm t_{n-1, 1-\alpha}\, s / \sqrt n$ with $\alpha$ = ``SHARE / parts``.

    Args:
        samples: one number per independent training or draw, at least two.
        parts: how many judgements one claim makes with this share (each gets an equal part).

    Raises:
        ValueError: fewer than two samples carry no information on their spread.
    """
    if samples.size < 2:
        raise ValueError(f"an interval needs at least 2 independent samples, not {samples.size}")
    half = stats.t.isf(SHARE / parts, samples.size - 1) * samples.std(ddof=1) / np.sqrt(samples.size)
    return float(samples.mean() - half), float(samples.mean() + half)


def proportion_interval(successes: int, trials: int, parts: int = 1) -> Interval:
    """Clopper-Pearson interval of a probability, each end wrong with probability at most ``SHARE / parts``."""
    test = stats.binomtest(successes, trials)
    interval = test.proportion_ci(confidence_level=1 - 2 * SHARE / parts, method="exact")
    return float(interval.low), float(interval.high)


def deviation(samples: Float[np.ndarray, " samples"], target: float) -> float:
    r"""How many standard errors the mean of ``samples`` lies from ``target``: $|\bar x - \mu| \sqrt n / s$.

    Samples without spread give 0 where they equal the target and infinity where they do not.
    """
    error = samples.std(ddof=1) / np.sqrt(samples.size)
    distance = abs(samples.mean() - target)
    if error == 0:
        return 0.0 if distance == 0 else float("inf")
    return float(distance / error)


def deviation_limit(samples: int, parts: int = 1) -> float:
    """The ``deviation`` that a true target exceeds with probability ``SHARE / parts`` (two-sided Student)."""
    return float(stats.t.isf(SHARE / parts / 2, samples - 1))


def slope(
    x: Sequence[float] | Float[np.ndarray, " points"], y: Sequence[float] | Float[np.ndarray, " points"]
) -> float:
    """Least-squares slope of ``log y`` against ``log x``: the measured exponent of a power law."""
    return float(stats.linregress(np.log(np.asarray(x)), np.log(np.asarray(y))).slope)


def mean_band(
    samples: Float[np.ndarray, "samples *points"], confidence: float = 0.95
) -> tuple[Float[np.ndarray, "*points"], Float[np.ndarray, "*points"]]:
    r"""Pointwise Student band for the mean over axis 0, for drawing (no decision is taken on it).

    Returns:
        the lower and the upper edge.
    """
    half = stats.t.isf((1 - confidence) / 2, len(samples) - 1) * samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
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
