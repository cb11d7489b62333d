r"""Laws of the one-step layer beyond the best step: what it misses, its flow from any start, and a first state of ones.

Notation of `lab.domains.dynamics.mesa_optimization`; $S = k_2 + k_3 h$, so that $c^* = k_1/S$.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from lab.domains.dynamics.mesa_optimization import Moments, optimal_step, scored_positions
from lab.errors import LabError


def missed_share(step: float, law: Moments, pairs: float | np.ndarray) -> float | np.ndarray:
    r"""Share of $E|x|^2$ that one step c on n pairs misses: $1 + [c^2 (k_2 + k_3/n) - 2 c k_1] / E x^2$, n = t - 1.

    A term of the population loss, divided by the energy of its target.
    """
    return 1 + (step**2 * (law.sixth + law.mixed / pairs) - 2 * step * law.fourth) / law.second


def least_missed_share(law: Moments, pairs: float | np.ndarray) -> float | np.ndarray:
    r"""The same at the best step for exactly n pairs, $1 - k_1^2 / [(k_2 + k_3/n) E x^2]$.

    It falls with n, to `limiting_loss`: no step and no length misses less than that.

    >>> from lab.domains.dynamics.mesa_optimization import moments
    >>> least_missed_share(moments("gaussian", 5), 4)
    0.5
    """
    return 1 - law.fourth**2 / ((law.sixth + law.mixed / pairs) * law.second)


def product_flow(
    time: Float[np.ndarray, " times"], key: float, value: float, law: Moments, length: int
) -> Float[np.ndarray, " times"]:
    r"""c = ab of gradient flow on diagonal weights from any $a_0$ = ``key`` and $b_0$ = ``value``.

    $D = |a_0^2 - b_0^2|$ is conserved, so that $\dot c = \sqrt{D^2 + 4c^2}\,(T-2)(k_1 - cS)$. With $2c = D \sinh u$ this is
    $\dot u = \alpha - \beta \sinh u$, $\alpha = 2(T-2)k_1$, $\beta = (T-2) S D$, and for $w = \tanh(u/2)$

    $$w(\tau) = -\tfrac{\beta}{\alpha} + \rho \tanh\left(\tfrac12 \alpha\rho\tau
    + \mathrm{artanh}\tfrac{w_0 + \beta/\alpha}{\rho}\right), \qquad \rho = \sqrt{1 + \beta^2/\alpha^2}.$$

    A start above $c^*$ has $|w_0 + \beta/\alpha| > \rho$ and takes coth instead of tanh (and arcoth instead of artanh).
    It ends at $c^*$ from every start with $D > 0$, whatever the signs. At $D = 0$ the flow is logistic: from $a_0 = b_0$ it
    ends at $c^*$, from $a_0 = -b_0$ time runs backwards and it ends in the saddle c = 0.
    """
    limit, scored = optimal_step(law, length), scored_positions(length).size
    start, conserved = key * value, abs(key**2 - value**2)
    alpha = 2 * scored * law.fourth
    if conserved == 0:
        direction = 1.0 if start > 0 else -1.0
        return np.asarray(limit / (1 + (limit / start - 1) * np.exp(-direction * alpha * time)))
    ratio = conserved / (2 * limit)  # beta / alpha
    rho = np.hypot(1.0, ratio)
    first = np.tanh(np.arcsinh(2 * start / conserved) / 2)
    place, phase = (first + ratio) / rho, alpha * rho * time / 2
    if abs(place) < 1:
        half = -ratio + rho * np.tanh(phase + np.arctanh(place))
    else:  # above c* the flow comes down on the other branch, tanh(x + i pi/2) = coth x
        half = -ratio + rho / np.tanh(phase + np.arctanh(1 / place))
    return np.asarray(conserved * half / (1 - half**2))


def free_ones_share(dimension: int) -> float:
    r"""Least loss of all V and K from a first state of ones at T = 3, over that of the best plain step.

    $\frac{d(2d-3)}{(2d-1)(d-1)}$: 2/3 at d = 2, and 1 in high dimension. With $\lambda$ the vector of phases and
    $\sigma = \sum_k \lambda_k$ the one scored prediction of weights $V = \alpha I + \beta J$, $K = \gamma I + \delta J$ is
    $A \sigma \lambda + B \sigma^2 1$, $A = (\gamma + d\delta)\alpha$, $B = (\gamma + d\delta)\beta$, and its target
    $\lambda^2$. From $E|\sigma|^2 = d$, $E|\sigma|^4 = d(2d-1)$ the loss is
    $\tfrac12 [d^2 A^2 + d^2(2d-1) B^2 + 2d(2d-1) AB - 2d(A + B) + d]$, least at
    $A = \frac1{d-1}$, $B = -\frac1{(d-1)(2d-1)}$; the plain step has $A = 1/d$, $B = 0$.

    Raises:
        LabError: a dimension below 2, where the plain step misses nothing.
    """
    if dimension < 2:
        raise LabError(f"In dimension {dimension} the plain step misses nothing from ones; use at least 2 dimensions.")
    return dimension * (2 * dimension - 3) / ((2 * dimension - 1) * (dimension - 1))
