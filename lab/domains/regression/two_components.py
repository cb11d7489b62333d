r"""Two components at a distance: how often the likelier one is wrong, and what that costs.

With $u_i = (w_1 - w_2) \cdot x_i \sim N(0, \Delta^2)$ and $+w_1$ true, the squared residuals of the two differ by
$S_2 - S_1 = \sum_i u_i^2 + 2 \sigma \sum_i u_i \epsilon_i$, which is $N(A, 4 \sigma^2 A)$ given the inputs, $A = \sum_i u_i^2$.
So given $a = A / (4 \sigma^2)$ the argmin errs with probability $\Phi(-\sqrt a)$, and half the log odds,
$Z = (S_2 - S_1) / (4 \sigma^2)$, are $N(a, a)$. Over the inputs a is $c\,\chi^2_k$ with $c = \Delta^2 / (4 \sigma^2)$: k pairs.
"""

from __future__ import annotations

import math

import numpy as np
import scipy

from lab.errors import LabError


def argmin_error_rate(pairs: int, distance: float, noise: float) -> float:
    r"""$P(t_k > \sqrt{k}\, \Delta / (2\sigma))$: the component of smaller squared residuals is the wrong one.

    The argmin errs iff a standard normal exceeds $\sqrt{c}\, \chi_k$, which is the t ratio of k degrees of freedom exceeding
    $\sqrt{k c}$. Without pairs it is 1/2: a coin decides.

    Args:
        pairs: k.
        distance: $\Delta = \lVert w_1 - w_2 \rVert$ for normal inputs of unit variance.
        noise: $\sigma$ > 0.

    Raises:
        LabError: a negative number of pairs, a distance or noise that is not positive and finite.

    >>> round(argmin_error_rate(2, 2.0, 1.0), 6)  # (1 - 1 / sqrt 2) / 2
    0.146447
    """
    signal = _signal(pairs, distance, noise)
    return 0.5 if pairs == 0 else float(scipy.stats.t.sf(math.sqrt(pairs * signal), pairs))


def argmin_excess_risk(pairs: int, distance: float, noise: float) -> float:
    r"""$\Delta^2 P(t_k > \sqrt{k}\, \Delta / (2\sigma))$: mean squared error of the argmin at a new normal input, noise left out."""
    return distance**2 * argmin_error_rate(pairs, distance, noise)


def posterior_excess_risk(pairs: int, distance: float, noise: float) -> float:
    r"""$\frac{\Delta^2}{4} (1 + c)^{-k/2}\, E \operatorname{sech}(\sqrt q\, \chi_k \zeta)$, $q = c / (1 + c)$: that of the posterior mean.

    Given a it is $\frac{\Delta^2}{4} (1 - E \tanh Z)$ with $Z \sim N(a, a)$, and completing the square gives
    $1 - E \tanh Z = e^{-a/2}\, E \operatorname{sech}(\sqrt a\, \zeta)$ with $\zeta \sim N(0, 1)$. The factor $e^{-a/2}$ turns the law
    $c\,\chi^2_k$ of a into $q\,\chi^2_k$ and leaves the factor $(1 + c)^{-k/2}$: that is how fast the risk falls, pair by pair.

    Args and errors as of `argmin_error_rate`.
    """
    signal = _signal(pairs, distance, noise)
    return distance**2 / 4 * (1 + signal) ** (-pairs / 2) * mean_sech(pairs, signal / (1 + signal))


def mean_sech(degrees: int, share: float) -> float:
    r"""$E \operatorname{sech}(\sqrt q\, \chi_k \zeta)$, $\chi_k$ and $\zeta \sim N(0, 1)$ independent, by the trapezoidal rule.

    The rule is exact to rounding for analytic functions that fall off at both ends: in $\zeta$ the poles of
    $\operatorname{sech}(b \zeta)$ lie $\pi / (2b)$ away, so that steps of $0.15 / \max(1, b)$ do; in $\log \chi_k$ the density falls off
    like $e^{kt}$ to the left and doubly exponentially to the right.

    Args:
        degrees: k; 0 gives 1.
        share: q from 0 to 1.
    """
    if degrees == 0 or share == 0:
        return 1.0
    width = 0.5 / math.sqrt(2 * degrees)  # that of log chi_k is about 1 / sqrt(2 k)
    right = 0.5 * math.log(scipy.stats.chi2.isf(1e-18, degrees))
    left = min(0.5 * math.log(scipy.stats.chi2.ppf(1e-18, degrees)), right - 1)
    logs = np.arange(left, right + 1e-12, min(width / 4, 0.02))
    step = logs[1] - logs[0]
    weights = step * 2 * np.exp(2 * logs) * scipy.stats.chi2.pdf(np.exp(2 * logs), degrees)
    slopes = math.sqrt(share) * np.exp(logs)
    spacing = 0.15 / max(1.0, float(slopes.max()))
    nodes = np.arange(-9, 9 + spacing / 2, spacing)
    density = spacing * np.exp(-(nodes**2) / 2) / math.sqrt(2 * math.pi)
    exponent = np.abs(slopes[:, None] * nodes)
    sech = 2 * np.exp(-exponent) / (1 + np.exp(-2 * exponent))
    return float(weights @ (sech @ density))


def _signal(pairs: int, distance: float, noise: float) -> float:
    """c, the mean signal of one pair, after a look at the arguments."""
    if pairs < 0:
        raise LabError(f"pairs is {pairs} but must be at least 0; raise pairs.")
    for name, value in (("distance", distance), ("noise", noise)):
        if not 0 < value < math.inf:
            raise LabError(f"{name} is {value} but must be positive and finite; choose such a number.")
    return distance**2 / (4 * noise**2)
