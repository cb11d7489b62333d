r"""Expected errors of one Kaczmarz pass, exactly: the curves that a causal network tends to with depth.

With $P = I - x x^\top / |x|^2$, the error $e_n = w_n - w$ obeys $e_n = P e_{n-1} + \epsilon\, x / |x|^2$, so that its
second moment $M = E\,e e^\top$ follows a linear recursion, whose constants are moments of $x / |x|$. Weights are
$w \sim N(0, I)$; inputs have independent coordinates of one law, uniform or normal, of any mean.

The moments come from $|x|^{-2} = \int_0^\infty e^{-s |x|^2} ds$ and $|x|^{-4} = \int_0^\infty s\, e^{-s |x|^2} ds$: at
each s the expectation factorises over the coordinates, which leaves one smooth integral over s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lab.errors import LabError

# The rule for s = exp(u) / E x^2 is the trapezoid in u: integrands are analytic in a strip around the real line and
# decay exponentially at both ends (at least as exp(u) and exp(-u/2)), so that both errors are below rounding.
LOG_RANGE = (-45.0, 90.0)
LOG_STEP = 1 / 16
# Uniform coordinates are integrated by Gauss-Legendre over where exp(-s (x^2 - min x^2)) exceeds exp(-42) < eps^2.
NEGLIGIBLE = 42.0
NODES = 96


@dataclass(frozen=True)
class Coordinate:
    r"""The law of one coordinate of an input.

    Args:
        inputs: "uniform" on mean + [-scale, scale], or "normal" with standard deviation scale.
        mean: the mean.
        scale: half width or standard deviation.

    Raises:
        LabError: a scale that is not above 0.
    """

    inputs: Literal["uniform", "normal"]
    mean: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not (self.scale > 0 and math.isfinite(self.scale) and math.isfinite(self.mean)):
            raise LabError(
                f"The coordinate has mean {self.mean} and scale {self.scale}, but both must be finite and the scale "
                "above 0; choose such numbers."
            )

    @property
    def variance(self) -> float:
        """scale^2 / 3 if uniform, scale^2 if normal."""
        return self.scale**2 / (3 if self.inputs == "uniform" else 1)

    @property
    def reaches_zero(self) -> bool:
        """Whether values near zero have positive density."""
        return self.inputs == "normal" or abs(self.mean) <= self.scale


@dataclass(frozen=True)
class DirectionMoments:
    r"""Moments of $x / |x|$ and $1 / |x|$, with $t = \sum_i x_i$.

    Args:
        inverse_square: $E\,|x|^{-2}$, infinite for d <= 2 where inputs come near zero.
        sum_square: $g = E\,t^2 / |x|^2$.
        sum_fourth: $h = E\,t^4 / |x|^4$.
        sum_square_inverse: $E\,t^2 / |x|^4$, infinite with ``inverse_square``.
    """

    inverse_square: float
    sum_square: float
    sum_fourth: float
    sum_square_inverse: float


def direction_moments(coordinate: Coordinate, dimension: int) -> DirectionMoments:
    r"""The moments of `DirectionMoments` for ``dimension`` independent coordinates, by exact quadrature.

    Under the law tilted by $e^{-s |x|^2}$ coordinates are again independent, with moments $m_k(s)$, and
    $E\,t^2 = d m_2 + d(d-1) m_1^2$,
    $E\,t^4 = d m_4 + d(d-1)(4 m_3 m_1 + 3 m_2^2) + 6 d(d-1)(d-2) m_2 m_1^2 + d(d-1)(d-2)(d-3) m_1^4$.

    Raises:
        LabError: a dimension below 1.
    """
    _require_dimension(dimension, 1)
    unit = coordinate.variance + coordinate.mean**2
    s = np.exp(np.arange(*LOG_RANGE, LOG_STEP)) / unit
    log_mass, (m1, m2, m3, m4) = _tilted(coordinate, s)
    d = float(dimension)
    square = d * m2 + d * (d - 1) * m1**2
    fourth = (
        d * m4
        + d * (d - 1) * (4 * m3 * m1 + 3 * m2**2)
        + 6 * d * (d - 1) * (d - 2) * m2 * m1**2
        + d * (d - 1) * (d - 2) * (d - 3) * m1**4
    )
    weight = LOG_STEP * np.exp(d * log_mass)  # ds = s du
    finite = dimension > 2 or not coordinate.reaches_zero
    return DirectionMoments(
        inverse_square=float((weight * s).sum()) if finite else math.inf,
        sum_square=float((weight * s * square).sum()),
        sum_fourth=float((weight * s**2 * fourth).sum()),
        sum_square_inverse=float((weight * s**2 * square).sum()) if finite else math.inf,
    )


def _tilted(coordinate: Coordinate, s: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """log E exp(-s x^2), and moments 1 to 4 of x under the law tilted by exp(-s x^2), for each s."""
    mean, scale = coordinate.mean, coordinate.scale
    if coordinate.inputs == "normal":
        shrink = 1 / (1 + 2 * s * scale**2)
        log_mass = np.log(shrink) / 2 - s * shrink * mean**2
        a, v = mean * shrink, scale**2 * shrink
        return log_mass, [a, a**2 + v, a**3 + 3 * a * v, a**4 + 6 * a**2 * v + 3 * v**2]
    # Mirrored so that the mean is not negative; x = anchor + offset, where the anchor is the value nearest to zero.
    low, high = abs(mean) - scale, abs(mean) + scale
    anchor = max(low, 0.0)
    reach = NEGLIGIBLE / s / (anchor + np.sqrt(anchor**2 + NEGLIGIBLE / s))
    start, stop = np.maximum(low - anchor, -reach), np.minimum(high - anchor, reach)
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    half = (stop - start)[:, None] / 2
    offset = (stop + start)[:, None] / 2 + half * nodes
    density = weights * half / (high - low) * np.exp(-s[:, None] * offset * (2 * anchor + offset))
    mass = density.sum(1)
    x = math.copysign(1.0, mean) * (anchor + offset)
    return np.log(mass) - s * anchor**2, [(density * x**k).sum(1) / mass for k in (1, 2, 3, 4)]


def centred_kaczmarz_error(
    lengths: Int[Tensor, " lengths"], coordinate: Coordinate, dimension: int, *, noise: float = 0.0
) -> Float[Tensor, " lengths"]:
    r"""Expected query error of one pass over n examples, for coordinates of mean zero.

    $v d \left[r^n + \sigma^2 E|x|^{-2} (1 - r^n)\right]$ with $r = 1 - 1/d$, because $E\,x x^\top / |x|^2 = I / d$. Noise-free
    it vanishes geometrically; with noise it has the floor $v d \sigma^2 E |x|^{-2}$, where least squares has
    none. Queries have the law of the inputs and clean labels.

    Args:
        lengths: the numbers n.
        coordinate: law of a coordinate, of mean zero and variance v.
        dimension: d.
        noise: standard deviation $\sigma$ of the label noise.

    Raises:
        LabError: a mean other than zero, or a dimension below 1.
    """
    if coordinate.mean != 0:
        raise LabError(
            f"The mean is {coordinate.mean} but this formula needs 0; use shifted_kaczmarz_error for other means."
        )
    _require_dimension(dimension, 1)
    left = (1 - 1 / dimension) ** lengths.double()
    # The product 0 * inf of no noise in dimension 1 or 2 is 0.
    added = noise**2 * direction_moments(coordinate, dimension).inverse_square if noise else 0.0
    arrived = torch.where(left < 1, added * (1 - left), 0.0)
    return coordinate.variance * dimension * (left + arrived)


def second_moment_map(moments: DirectionMoments, dimension: int) -> tuple[Float[Tensor, "2 2"], Float[Tensor, " 2"]]:
    r"""F and p of $(\alpha, \beta) \leftarrow F (\alpha, \beta) + \sigma^2 p$, where $M = \alpha I + \beta J$ and $J = 1 1^\top$.

    $F = \begin{pmatrix} 1 - 1/d + c & p_2 \\ -c & 1 - 2g/d + q_2 \end{pmatrix}$ with $c = \frac{g - 1}{d(d-1)}$,
    $q_2 = \frac{h - g}{d(d-1)}$, $p_2 = g/d - q_2$; the noise enters by $q_3 = \frac{E t^2 / |x|^4 - E |x|^{-2}}{d(d-1)}$
    and $p_3 = E |x|^{-2} / d - q_3$. The three are the entries of $E\,x x^\top / |x|^2$,
    $E\,t^2 x x^\top / |x|^4$ and $E\,x x^\top / |x|^4$, fixed by their trace and the sum of their entries.
    The larger eigenvalue of F is the factor by which an example shrinks the error in the end.

    Args:
        moments: of `direction_moments`.
        dimension: d >= 2.

    Returns:
        F, and $p = (p_3, q_3)$ (not finite where $E |x|^{-2}$ is not).

    Raises:
        LabError: a dimension below 2, where I and J are one.
    """
    _require_dimension(dimension, 2)
    d, g, h = dimension, moments.sum_square, moments.sum_fourth
    pairs = d * (d - 1)
    c, q2 = (g - 1) / pairs, (h - g) / pairs
    step = [[1 - 1 / d + c, g / d - q2], [-c, 1 - 2 * g / d + q2]]
    q3 = (moments.sum_square_inverse - moments.inverse_square) / pairs
    noise = [moments.inverse_square / d - q3, q3]
    return torch.tensor(step, dtype=torch.float64), torch.tensor(noise, dtype=torch.float64)


def shifted_kaczmarz_error(
    lengths: Int[Tensor, " lengths"], coordinate: Coordinate, dimension: int, *, noise: float = 0.0
) -> Float[Tensor, " lengths"]:
    r"""Expected query error of one pass over n examples, for coordinates of any mean $\mu$.

    $d v (\alpha_n + \beta_n) + \mu^2 (d \alpha_n + d^2 \beta_n)$ with $(\alpha_0, \beta_0) = (1, 0)$ and the recursion of
    `second_moment_map`. At $\mu = 0$ it is `centred_kaczmarz_error`.

    Args:
        lengths: the numbers n.
        coordinate: law of a coordinate, with mean $\mu$ and variance v.
        dimension: d >= 2.
        noise: standard deviation $\sigma$ of the label noise.

    Raises:
        LabError: a dimension below 2, or noise where $E |x|^{-2}$ is infinite.
    """
    moments = direction_moments(coordinate, dimension)
    step, added = second_moment_map(moments, dimension)
    if noise and not math.isfinite(moments.inverse_square):
        raise LabError(
            f"In dimension {dimension} the mean of 1/|x|^2 is infinite, and so is every error with noise {noise}; "
            "use dimension 3 or more."
        )
    affine = torch.eye(3, dtype=torch.float64)
    affine[:2, :2] = step
    affine[:2, 2] = noise**2 * added if noise else 0.0
    start = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    states = [torch.linalg.matrix_power(affine, int(n)) @ start for n in lengths]
    alpha, beta, _ = torch.stack(states, dim=1)
    v, mu, d = coordinate.variance, coordinate.mean, dimension
    return d * v * (alpha + beta) + mu**2 * (d * alpha + d**2 * beta)


def _require_dimension(dimension: int, smallest: int) -> None:
    if dimension < smallest:
        raise LabError(f"The dimension is {dimension} but must be at least {smallest}; raise it.")
