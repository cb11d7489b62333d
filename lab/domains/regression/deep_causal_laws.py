r"""Exact laws of deep causal linear attention beyond one pass at infinite depth.

What a fixed depth leaves when contexts grow without end (Laguerre polynomials), the network that divides by the visible
length, a context that one pass never learns, where label noise makes one pass better than least squares, typical
instead of mean errors, and the masks between causal and prefix (blocks of examples).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from scipy.special import digamma, zeta
from torch import Tensor

from lab.contracts import regression_predictor
from lab.domains.regression.least_squares import least_squares_weights, predict
from lab.domains.regression.online_limits import Coordinate, DirectionMoments, direction_moments, second_moment_map
from lab.errors import LabError
from lab.predictors import RegressionPredictor


def laguerre(degree: int, points: Float[Tensor, "*points"]) -> Float[Tensor, "{degree}+1 *points"]:
    r"""$L_0, \dots, L_l$ at ``points`` by $(k + 1) L_{k+1} = (2k + 1 - a) L_k - k L_{k-1}$, stable for $a \ge 0$.

    Raises:
        LabError: a negative degree.

    >>> laguerre(2, torch.tensor([1.0])).tolist()
    [[1.0], [0.0], [-0.5]]
    """
    if degree < 0:
        raise LabError(f"The degree is {degree} but must be at least 0; raise it.")
    values = [torch.ones_like(points), 1 - points][: degree + 1]
    for k in range(1, degree):
        values.append(((2 * k + 1 - points) * values[-1] - k * values[-2]) / (k + 1))
    return torch.stack(values)


def long_context_error(
    layers: int, spectrum: Float[Tensor, " dimension"], rate: float, *, pattern: str = "causal"
) -> Float[Tensor, "{layers}+1"]:
    r"""Noise-free query error after 0 to ``layers`` layers of step $\eta / n$ as $n \to \infty$ at fixed depth.

    Causal: $\sum_k \lambda_k L_l(\eta \lambda_k)^2$, because the residual at relative place $\tau$ in direction k obeys
    $e_l(\tau) = e_{l-1}(\tau) - \eta \lambda_k \int_0^\tau e_{l-1}$, $e_0 = 1$, which $L_l(\eta \lambda_k \tau)$ solves.
    Prefix: $\sum_k \lambda_k (1 - \eta \lambda_k)^{2l}$.

    Args:
        layers: how many.
        spectrum: eigenvalues of the covariance of the inputs.
        rate: $\eta$.
        pattern: "causal" or "prefix".
    """
    if pattern == "causal":
        left = laguerre(layers, rate * spectrum)
    else:
        left = (1 - rate * spectrum) ** torch.arange(layers + 1, dtype=spectrum.dtype)[:, None]
    return (spectrum * left.square()).sum(-1)


def normalised_kaczmarz_error(
    lengths: Int[Tensor, " lengths"], coordinate: Coordinate, dimension: int, *, noise: float = 0.0
) -> Float[Tensor, " lengths"]:
    r"""Expected query error at the stationary point of the network that divides by the visible length.

    Args:
        lengths: the numbers n, from 1 on.
        coordinate: law of a coordinate.
        dimension: d >= 2.
        noise: standard deviation $\sigma$ of the label noise.
    """
    moments = direction_moments(coordinate, dimension)
    return normalised_error_of_moments(lengths, moments, coordinate.variance, coordinate.mean, dimension, noise=noise)


def normalised_error_of_moments(
    lengths: Int[Tensor, " lengths"],
    moments: DirectionMoments,
    variance: float,
    mean: float,
    dimension: int,
    *,
    noise: float = 0.0,
    cross: bool = True,
) -> Float[Tensor, " lengths"]:
    r"""`normalised_kaczmarz_error` for independent coordinates of any law, given its moments.

    With $f_j = j\, e_j$ and $P = I - x x^\top / |x|^2$ the shrunken pass is $f_j = P (f_{j-1} - w) + j \epsilon\, x / |x|^2$,
    $f_0 = 0$. So $C = E f w^\top$ and $M = E f f^\top$ stay in the span of I and $J = 1 1^\top$ and follow
    $C \leftarrow E[P]\,(C - I)$ and $M \leftarrow F(M - 2 C + I) + j^2 \sigma^2 p$ with F, p of `second_moment_map`
    and $E[P] = (1 - 1/d + c) I - c J$. For mean zero $C_j = r (C_{j-1} - d)$ and
    $A_j = r (A_{j-1} - 2 C_{j-1} + d)$ as traces, $r = 1 - 1/d$.

    Args:
        lengths: the numbers n, from 1 on.
        moments: of the directions of the inputs.
        variance, mean: of a coordinate.
        dimension: d >= 2.
        noise: $\sigma$.
        cross: False forgets that the error and w are correlated.
    """
    step, added = second_moment_map(moments, dimension)
    d, c = dimension, float(-step[1, 0])
    first = torch.tensor([[1 - 1 / d + c, 0.0], [-c, 1 - 1 / d + c - d * c]], dtype=torch.float64)
    unit = torch.tensor([1.0, 0.0], dtype=torch.float64)
    noisy = noise**2 * added if noise else torch.zeros(2, dtype=torch.float64)
    second, crossed, normalised = torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64), []
    for j in range(1, int(lengths.max()) + 1):
        second = step @ (second - 2 * crossed * cross + unit) + j**2 * noisy
        crossed = first @ (crossed - unit)
        normalised.append(second / j**2)
    alpha, beta = torch.stack(normalised)[lengths.long() - 1].T
    return d * variance * (alpha + beta) + mean**2 * (d * alpha + d**2 * beta)


def kaczmarz_error_of_moments(
    lengths: Int[Tensor, " lengths"],
    moments: DirectionMoments,
    variance: float,
    mean: float,
    dimension: int,
    *,
    noise: float = 0.0,
) -> Float[Tensor, " lengths"]:
    """`shifted_kaczmarz_error` for independent coordinates of any law, given its moments (arguments as above)."""
    step, added = second_moment_map(moments, dimension)
    state, states = torch.tensor([1.0, 0.0], dtype=torch.float64), []
    for _ in range(int(lengths.max())):
        state = step @ state + (noise**2 * added if noise else 0.0)
        states.append(state)
    alpha, beta = torch.stack(states)[lengths.long() - 1].T
    return dimension * variance * (alpha + beta) + mean**2 * (dimension * alpha + dimension**2 * beta)


def normalised_crossing(noise: float, inverse_square: float, dimension: int) -> float:
    r"""From how many examples on division by the visible length pays under noise: $(2d - 1)(1 + c) / 2c$.

    $c = \sigma^2 E |x|^{-2}$, coordinates of mean zero. Up to terms in $(1 - 1/d)^n$ the plain error is $v d c$ and the other one
    $v d \left[(d - 1)(2d - 1) (1 + c) / n^2 + c (1 - 2 (d - 1) / n)\right]$.

    Raises:
        LabError: no noise, where it never pays.
    """
    if not noise > 0:
        raise LabError(f"The noise is {noise}, but without noise division never pays; choose a noise above 0.")
    c = noise**2 * inverse_square
    return (2 * dimension - 1) * (1 + c) / (2 * c)


def turning_inputs(count: int, power: float = 1.0) -> Float[Tensor, "1 count 2"]:
    r"""Unit vectors in the plane, each turned by $j^{-p}$ against the one before: $\angle(x_{j+1}, x_j) = j^{-p}$."""
    turns = torch.arange(1, count, dtype=torch.float64) ** -power
    angles = torch.cat([torch.zeros(1, dtype=torch.float64), turns.cumsum(0)])
    return torch.stack([angles.cos(), angles.sin()], -1)[None]


def cosine_product(first: int = 1) -> float:
    r"""$\prod_{j \ge m} \cos(1/j)$ from $\log \cos u = -\sum_k 2^{2k-1} (2^{2k} - 1) |B_{2k}| u^{2k} / (k (2k)!)$.

    With $|B_{2k}| = 2 (2k)! \zeta(2k) / (2 \pi)^{2k}$ the k-th term is $(4^k - 1) \zeta(2k) u^{2k} / (k \pi^{2k})$. The factors
    below j = 8 are multiplied as they are, the others summed by Hurwitz' zeta function.
    """
    start = max(first, 8)
    near = math.prod(math.cos(1 / j) for j in range(first, start))
    terms = (
        (4.0**k - 1) * float(zeta(2 * k)) * float(zeta(2 * k, start)) / (k * math.pi ** (2 * k)) for k in range(1, 30)
    )
    return near * math.exp(-math.fsum(terms))


def mean_risks(examples: int, dimension: int, *, noise: float) -> tuple[float, float]:
    r"""Expected query error of least squares and of one pass, independent standard normal inputs.

    Least squares: $\sigma^2 d / (n - d - 1)$ for $n > d + 1$, $d - n + \sigma^2 n / (d - n - 1)$ for $n < d - 1$, infinite
    between with noise. One pass: $d\,r^n + \sigma^2 (1 - r^n)\, d / (d - 2)$, $r = 1 - 1/d$, $d \ge 3$.
    """
    n, d = examples, dimension
    left = (1 - 1 / d) ** n
    one_pass = d * left + noise**2 * (1 - left) * d / (d - 2)
    if n > d + 1:
        return noise**2 * d / (n - d - 1), one_pass
    if n < d - 1:
        return d - n + noise**2 * n / (d - n - 1), one_pass
    return (math.inf if noise else max(d - n, 0.0)), one_pass


def critical_noise(examples: int, dimension: int) -> float:
    r"""The $\sigma^*$ above which one pass has the smaller mean error (`mean_risks`); infinite where it never has.

    $\sigma^{*2} = r^n / \left[\frac{1}{n-d-1} - \frac{1-r^n}{d-2}\right]$ for $n > d + 1$,
    $\left[d r^n - (d - n)\right] / \left[\frac{n}{d-n-1} - \frac{d (1 - r^n)}{d-2}\right]$ for $1 < n < d - 1$, 0 between. With
    one example the two are one.
    """
    n, d = examples, dimension
    if n == 1:
        return math.inf
    if abs(n - d) <= 1:
        return 0.0
    left = (1 - 1 / d) ** n
    if n > d + 1:
        gained, lost = d * left, d / (n - d - 1) - d * (1 - left) / (d - 2)
    else:
        gained, lost = d * left - (d - n), n / (d - n - 1) - d * (1 - left) / (d - 2)
    return math.sqrt(max(gained, 0.0) / lost) if lost > 0 else math.inf


def typical_rate(dimension: int) -> float:
    r"""$E \log (|e_n|^2 / |e_{n-1}|^2) = \psi\left(\frac{d-1}{2}\right) - \psi\left(\frac{d}{2}\right)$ for rotation-invariant inputs.

    $|P e|^2 / |e|^2$ is $\mathrm{Beta}\left(\frac{d-1}{2}, \frac12\right)$ whatever e is, so that $\log |e_n|^2$ is a sum of
    independent terms. The mean error falls by $\log (1 - 1/d)$ only.

    Raises:
        LabError: a dimension below 2, where one example leaves nothing.
    """
    if dimension < 2:
        raise LabError(f"The dimension is {dimension} but must be at least 2; raise it.")
    return float(digamma((dimension - 1) / 2) - digamma(dimension / 2))


def block_kaczmarz_weights(
    x: Float[Tensor, "batch context dimension"], y: Float[Tensor, "batch context"], block: int
) -> Float[Tensor, "batch dimension"]:
    r"""One pass that solves ``block`` equations at a time: $w \leftarrow w + X_B^+ (y_B - X_B w)$; the last may be shorter.

    Where linear attention ends whose examples see their own block and those before it. One example a block is
    `kaczmarz_weights`, all of them least squares.

    Raises:
        LabError: a block below 1.
    """
    if block < 1:
        raise LabError(f"A block has {block} examples but needs at least 1; raise it.")
    weights = x.new_zeros(x.shape[0], x.shape[2])
    for start in range(0, x.shape[1], block):
        rows = slice(start, start + block)
        weights = weights + least_squares_weights(x[:, rows], y[:, rows] - predict(weights, x[:, rows]))
    return weights


def block_kaczmarz_error(examples: int, block: int, dimension: int, variance: float) -> float:
    r"""Expected noise-free query error $v\,d\,(1 - b/d)^{n/b}$ of a pass in blocks of b, b a divisor of n.

    The projector onto a block's inputs has rank $\min(b, d)$, and for independent symmetric coordinates of one law (with a
    density) its mean commutes with signed permutations: $\min(b, d)/d\, I$.

    Raises:
        LabError: a block that does not divide the number of examples.
    """
    if block < 1 or examples % block:
        raise LabError(f"{examples} examples are no multiple of the block {block}; please change one of them.")
    return variance * dimension * (1 - min(block, dimension) / dimension) ** (examples // block)


@regression_predictor(block=2)
def block_kaczmarz(block: int) -> RegressionPredictor:
    """One pass in blocks of so many examples (`block_kaczmarz_weights`)."""

    def predictor(x_context: Tensor, y_context: Tensor, x_query: Tensor) -> Tensor:
        return predict(block_kaczmarz_weights(x_context, y_context, block), x_query)

    return predictor
