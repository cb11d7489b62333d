r"""How likely fresh seeds are to give the same verdict, told from the samples that were judged.

A verdict that one draw of seeds gives and the next does not is no result. Few samples know their own spread badly: the
deviation of eight trainings can be half of what eight others show. So mean and deviation are not taken for the truth but for
what they tell of it. With the usual flat prior (Jeffreys) the variance is $(n - 1) s^2 / \chi^2_{n-1}$ and the mean is normal
around the one that was measured, and the chance is that of fresh samples averaged over both: a *predictive* probability. It
remains optimistic where samples have tails that were not seen; the replications of ``lab.replication`` measure what it
estimates.

Means are judged on a Student interval, so that for a given deviation the chance to clear a bound is a tail of the noncentral
$t$ law. Of a rate of $k$ in $n$ the posterior (Jeffreys again) is a Beta law, $(k + 1/2, n - k + 1/2)$, and the number in $n$
fresh samples is beta-binomial: twenty of twenty is no certainty. A median clears a bound where enough samples do, again a rate.
Parts and controls are taken to be independent.
They come from the same trainings, as a rule, and go well together, which makes the product of their chances low.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy

from lab import statistics
from lab.evidence import Evidence, Part, Verdict

ENOUGH = 0.99
"""A claim whose verdict fresh seeds give again with less than this chance needs more samples or a narrower sentence."""
DEVIATIONS = 32
"""Points of the Gauss-Legendre rule that averages over the unknown deviation."""


def chance_of_verdict(evidence: Evidence, verdict: Verdict) -> float:
    """The chance that samples like those of ``evidence`` give ``verdict`` ("holds", or anything else: refuted)."""
    if verdict == "holds":
        return math.prod(chance_to_clear(part, evidence.allowance) for part in evidence.parts)
    return max(chance_to_miss(part, evidence.allowance / evidence.ways) for part in evidence.parts)


def chance_to_clear(part: Part, share: float) -> float:
    """The chance that fresh samples put the whole interval of ``part`` on the right side of its bound."""
    if part.relation != "=":
        return _chance(part, share, part.clears)
    ends = [_above(part, part.bound - part.tolerance, share), _below(part, part.bound + part.tolerance, share)]
    return max(0.0, sum(ends) - 1) if part.spread is not None else float(part.clears(share))


def chance_to_miss(part: Part, share: float) -> float:
    """The chance that fresh samples put the whole interval of ``part`` on the wrong side of its bound."""
    if part.relation != "=":
        return _chance(part, share, part.misses)
    if part.spread is None:
        return float(part.misses(share))
    return max(_above(part, part.bound + part.tolerance, share), _below(part, part.bound - part.tolerance, share))


def _chance(part: Part, share: float, decided: Callable[[float], bool]) -> float:
    spread = part.spread
    right = decided == part.clears
    above = (part.relation in (">", ">=")) == right
    if isinstance(spread, statistics.Student):
        return (_above if above else _below)(part, part.bound, share)
    if isinstance(spread, statistics.Binomial):
        return _of_rates(spread, share, lambda low, high: _beyond(part, low if above else high, right))
    if isinstance(spread, statistics.Median):
        return _of_medians(part, spread, share, right)
    return float(decided(share))


def _beyond(part: Part, end: float, right: bool) -> bool:
    """Whether the end of an interval that is nearer to the bound satisfies the relation (or, not ``right``, violates it)."""
    satisfied = (part.room(end) > 0) or (part.room(end) == 0 and part.relation in ("<=", ">="))
    return satisfied == right


def _above(part: Part, level: float, share: float) -> float:
    """The chance that the lower end of the interval of a mean or a median lies above ``level``."""
    if isinstance(part.spread, statistics.Median):
        return _enough(part.spread, sum(value > level for value in part.spread.ordered), share)
    return _student(part.spread, level, share)


def _below(part: Part, level: float, share: float) -> float:
    """The chance that the upper end of the interval of a mean or a median lies below ``level``."""
    spread = part.spread
    if isinstance(spread, statistics.Median):
        return _enough(spread, sum(value < level for value in spread.ordered), share)
    if not isinstance(spread, statistics.Student):
        return 0.0
    return _student(statistics.Student(-spread.mean, spread.deviation, spread.samples), -level, share)


def _student(spread: statistics.Spread | None, level: float, share: float) -> float:
    if not isinstance(spread, statistics.Student) or math.isnan(spread.deviation):
        return 0.0
    if spread.deviation == 0:
        return float(spread.mean >= level)
    freedom = spread.samples - 1
    limit = float(scipy.stats.t.isf(share, freedom)) / math.sqrt(2)
    quantiles, weights = np.polynomial.legendre.leggauss(DEVIATIONS)
    deviations = spread.deviation * np.sqrt(freedom / scipy.stats.chi2.ppf((quantiles + 1) / 2, freedom))
    # Around the measured mean the true one scatters as much as the fresh mean around the true one, hence twice the variance.
    shifts = (spread.mean - level) / (deviations * math.sqrt(2 / spread.samples))
    return float(weights @ np.array([_beyond_limit(limit, freedom, float(shift)) for shift in shifts])) / 2


def _beyond_limit(limit: float, freedom: int, shift: float) -> float:
    """The chance that a noncentral t variable exceeds ``limit``."""
    if shift > 30 + 2 * limit:  # the tail is 1 to all digits, and the series of the noncentral law gives out
        return 1.0
    chance = float(scipy.stats.nct.sf(limit, freedom, shift))
    return min(1.0, chance) if math.isfinite(chance) else float(shift > limit)


def _of_rates(spread: statistics.Binomial, share: float, decided: Callable[[float, float], bool]) -> float:
    """The more successes the higher the interval, so that it is decided from some number on, or up to some number."""
    trials = spread.trials

    def at(successes: int) -> bool:
        return decided(*statistics.Binomial(successes, trials).interval(share))

    none, every = at(0), at(trials)
    if none == every:
        return float(none)
    few, many = 0, trials
    while many - few > 1:
        half = (few + many) // 2
        few, many = (half, many) if at(half) == none else (few, half)
    fresh = _fresh_rate(spread.successes, trials)
    return float(fresh.sf(few) if every else fresh.cdf(few))


def _of_medians(part: Part, spread: statistics.Median, share: float, right: bool) -> float:
    return _enough(spread, sum(_beyond(part, value, right) for value in spread.ordered), share)


def _enough(spread: statistics.Median, beyond: int, share: float) -> float:
    """The interval ends at the r-th sample from either side, so that it is decided where at most r - 1 samples are not."""
    samples = len(spread.ordered)
    rank = int(scipy.stats.binom.ppf(share, samples, 0.5))
    return float(_fresh_rate(beyond, samples).sf(samples - rank)) if rank else 0.0


def _fresh_rate(successes: float, trials: int) -> Any:
    """The predictive law of the number of successes in as many fresh trials."""
    return scipy.stats.betabinom(trials, successes + 0.5, trials - successes + 0.5)
