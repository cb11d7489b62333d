r"""The best step of gradient descent in context, the best preconditioner, and GD++, all in closed form.

A prompt has inputs $x_j \in R^d$, labels $y_j = w \cdot x_j + \sigma \epsilon_j$ with $w \sim N(0, I)$, and n examples.
Everything is written with the step s on the *sum* over examples ($s = \eta / n$), $A = X^\top X$ and the mean
squared error $E (\hat y_q - w \cdot x_q)^2$ of a clean query; von Oswald et al. (2023) plot half of it.

*One step.* $\hat y_q = s \sum_j y_j x_j \cdot x_q$ has an error that is quadratic in s, so that the best s is a ratio of
two moments (`optimal_step`). If inputs are not isotropic the best linear read-out is a preconditioned step
(`preconditioner`; Ahn et al. 2023, Theorem 1; Zhang et al. 2023, Theorem 4.1).

*GD++* (von Oswald et al. 2023, appendix A.10). A layer takes a step and also maps inputs by $I - \gamma A$:
$x \leftarrow (I - \gamma A_l)\, x$, $\delta_j \leftarrow \delta_j - s_l \sum_i \delta_i\, x_i \cdot x_j$. The matrix of
the next layer has the same eigenvectors and the eigenvalues $\lambda_{l+1} = \lambda_l (1 - \gamma_l \lambda_l)^2$
(`curvature_sequence`), so that K layers multiply the residual by $f(\lambda) = \prod_l (1 - s_l \lambda_l)$, a
polynomial in the first eigenvalue (`filter_polynomial`).

*Exact expectations.* Noise-free, the error after K layers is $v\,E\,\mathrm{tr} f(A)^2$: a combination of $E\,\mathrm{tr} A^j$, which
`gram_moments` counts exactly for independent symmetric coordinates. Nothing here is sampled.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import scipy
import torch
from jaxtyping import Float
from numpy.polynomial import polynomial
from torch import Tensor

from lab.contracts import regression_predictor
from lab.domains.regression.least_squares import predict
from lab.errors import LabError
from lab.predictors import RegressionPredictor

NORMAL_KURTOSIS = 3.0
UNIFORM_KURTOSIS = 1.8
LARGEST_ORDER = 8


def optimal_step(
    context_length: int,
    dimension: int,
    *,
    input_variance: float = 1.0,
    kurtosis: float = NORMAL_KURTOSIS,
    noise: float = 0.0,
) -> float:
    r"""$s^* = 1 / (v (n + d - 2 + \kappa) + \sigma^2)$: the best single step from zero on the sum over examples.

    Args:
        context_length: n.
        dimension: d; coordinates are independent and symmetric.
        input_variance: v of a coordinate.
        kurtosis: $\kappa = E x^4 / v^2$ of a coordinate: 3 normal, 1.8 uniform.
        noise: standard deviation $\sigma$ of the label noise, for weights of unit variance.

    Raises:
        LabError: a size below 1, a variance that is not above 0, a kurtosis below 1 or negative noise.

    >>> round(optimal_step(10, 10, input_variance=1 / 12, kurtosis=UNIFORM_KURTOSIS), 4)
    0.6061
    """
    _require_sizes(context_length, dimension)
    _require_law(input_variance, kurtosis, noise)
    return 1 / (input_variance * (context_length + dimension - 2 + kurtosis) + noise**2)


def one_step_error(
    step: float,
    context_length: int,
    dimension: int,
    *,
    input_variance: float = 1.0,
    kurtosis: float = NORMAL_KURTOSIS,
    noise: float = 0.0,
) -> float:
    r"""$d v [1 - 2 s n v + s^2 n v (v (n + d - 2 + \kappa) + \sigma^2)]$: expected query error of one step s from zero.

    Inputs scaled by $\alpha$ have $\alpha^2 v$ in the place of v; weights scaled by $\alpha$ multiply all of it (without noise) by
    $\alpha^2$. Arguments and errors as in `optimal_step`.
    """
    best = optimal_step(context_length, dimension, input_variance=input_variance, kurtosis=kurtosis, noise=noise)
    reach = context_length * input_variance
    return dimension * input_variance * (1 - 2 * step * reach + step**2 * reach / best)


def optimal_step_of_spectrum(
    spectrum: Float[np.ndarray, " dimension"], context_length: int, noise: float = 0.0
) -> float:
    r"""The best single step for normal inputs $N(0, \Lambda)$, with $t_k = \mathrm{tr} \Lambda^k$:

    $s^* = t_2 / ((n+1)\,t_3 + (t_1 + \sigma^2)\,t_2)$.

    Args:
        spectrum: eigenvalues of $\Lambda$.
        context_length: n.
        noise: standard deviation $\sigma$ of the label noise.
    """
    _require_spectrum(spectrum, context_length)
    second, third = (spectrum**2).sum(), (spectrum**3).sum()
    return float(second / ((context_length + 1) * third + (spectrum.sum() + noise**2) * second))


def one_step_error_of_spectrum(
    step: float, spectrum: Float[np.ndarray, " dimension"], context_length: int, noise: float = 0.0
) -> float:
    r"""$t_1 - 2 s n\,t_2 + s^2 n\,[(n+1)\,t_3 + (t_1 + \sigma^2)\,t_2]$, $t_k = \mathrm{tr} \Lambda^k$: the error of one step s.

    Arguments as in `optimal_step_of_spectrum`.
    """
    best = optimal_step_of_spectrum(spectrum, context_length, noise)
    second = float((spectrum**2).sum())
    return float(spectrum.sum()) - context_length * second * (2 * step - step**2 / best)


def preconditioner(
    spectrum: Float[np.ndarray, " dimension"], context_length: int, noise: float = 0.0
) -> Float[np.ndarray, " dimension"]:
    r"""Eigenvalues of $W = [(1 + \tfrac1n) \Lambda + \tfrac{\mathrm{tr} \Lambda + \sigma^2}{n} I]^{-1}$, in the eigenbasis of $\Lambda$.

    $\hat y_q = \tfrac1n \sum_j y_j\, x_j^\top W x_q$ is the best prediction of one layer of linear attention for normal inputs
    $N(0, \Lambda)$. It is a multiple of the identity, plain gradient descent, only if $\Lambda$ is.
    """
    _require_spectrum(spectrum, context_length)
    return np.asarray(1 / ((1 + 1 / context_length) * spectrum + (spectrum.sum() + noise**2) / context_length))


def preconditioned_error(
    spectrum: Float[np.ndarray, " dimension"], context_length: int, noise: float = 0.0, scale: float = 1.0
) -> float:
    r"""$\mathrm{tr} \Lambda - (2c - c^2)\,\mathrm{tr}(\Lambda W \Lambda)$: expected query error of the preconditioned step with c W.

    Args:
        scale: c; 1 is the optimum. Other arguments as in `preconditioner`.
    """
    gain = (spectrum**2 * preconditioner(spectrum, context_length, noise)).sum()
    return float(spectrum.sum() - (2 * scale - scale**2) * gain)


@regression_predictor(input_variance=1.0)
def optimal_gradient_step(
    input_variance: float = 1.0, kurtosis: float = NORMAL_KURTOSIS, noise: float = 0.0
) -> RegressionPredictor:
    """One step of gradient descent from zero with `optimal_step` for the prompt's own n and d; 0 without examples."""

    def predictor(x_context: Tensor, y_context: Tensor, x_query: Tensor) -> Tensor:
        length, dimension = x_context.shape[1:]
        step = optimal_step(max(length, 1), dimension, input_variance=input_variance, kurtosis=kurtosis, noise=noise)
        return step * predict(predict(y_context, x_context.mT), x_query)

    return predictor


@regression_predictor(spectrum=(2.0, 1.0, 0.5), noise=0.3)
def preconditioned_gradient_step(spectrum: Sequence[float], noise: float = 0.0) -> RegressionPredictor:
    """One step from zero with `preconditioner` for the prompt's own n: the best layer of linear attention.

    Without examples the answer is 0.

    Args:
        spectrum: variances of the independent normal coordinates, in the order of the coordinates.
        noise: standard deviation of the label noise.
    """

    def predictor(x_context: Tensor, y_context: Tensor, x_query: Tensor) -> Tensor:
        length = max(x_context.shape[1], 1)
        scaling = torch.from_numpy(preconditioner(np.asarray(spectrum, dtype=float), length, noise))
        return predict(predict(y_context, x_context.mT) * scaling.to(x_query) / length, x_query)

    return predictor


def curvature_sequence(
    eigenvalues: Float[Tensor, "*draws dimension"], curvatures: Sequence[float]
) -> Float[Tensor, "layer *draws dimension"]:
    r"""$\lambda_0 = \lambda$, $\lambda_{l+1} = \lambda_l (1 - \gamma_l \lambda_l)^2$: the eigenvalues that each layer of GD++ meets.

    The map has its local maximum $4 / (27 \gamma)$ at $1 / (3 \gamma)$, a zero at $1 / \gamma$ and a fixed point at
    $2 / \gamma$; beyond that, eigenvalues grow.

    Args:
        eigenvalues: of $A = X^\top X$ (`lab.domains.regression.gradient_descent.gram_eigenvalues`).
        curvatures: $\gamma_l$ of each layer; that of the last one is met by no layer.
    """
    met = [eigenvalues]
    for curvature in curvatures[:-1]:
        met.append(met[-1] * (1 - curvature * met[-1]).square())
    return torch.stack(met)


def gd_plus_plus_filter(
    eigenvalues: Float[Tensor, "*draws dimension"], steps: Sequence[float], curvatures: Sequence[float]
) -> Float[Tensor, "layer *draws dimension"]:
    r"""$f_l(\lambda) = \prod_{m < l} (1 - s_m \lambda_m)$ after l = 1 .. K layers: what is left of the residual, one row a layer.

    Args:
        steps: $s_l$ of each layer.
        curvatures: $\gamma_l$ of each layer; all 0 is gradient descent.
    """
    _require_layers(steps, curvatures)
    met = curvature_sequence(eigenvalues, curvatures)
    rates = torch.as_tensor(list(steps), dtype=met.dtype, device=met.device)
    return (1 - rates.view(-1, *[1] * eigenvalues.dim()) * met).cumprod(0)


def gd_plus_plus_weights(
    x: Float[Tensor, "batch context dimension"],
    y: Float[Tensor, "batch context"],
    *,
    steps: Sequence[float],
    curvatures: Sequence[float],
) -> Float[Tensor, "batch dimension"]:
    r"""$w = U\, \mathrm{diag}(q(\lambda))\, U^\top X^\top y$, $A = U\, \mathrm{diag}(\lambda)\, U^\top$: what K layers predict with.

    $q(\lambda) = (1 - f(\lambda)) / \lambda = \sum_l s_l f_l(\lambda) \prod_{m < l} (1 - \gamma_m \lambda_m)^2$, finite
    also at $\lambda = 0$. On noise-free labels that is $w - U f U^\top w$; with noise it is the same filter applied to
    least squares.

    Args:
        steps: $s_l$ of each layer.
        curvatures: $\gamma_l$ of each layer.
    """
    _require_layers(steps, curvatures)
    values, vectors = torch.linalg.eigh(x.mT @ x)
    met = curvature_sequence(values, curvatures)
    # What the inputs have been scaled by before layer l, squared, and the residual before it.
    scaled = met.new_ones(met.shape)
    scaled[1:] = (1 - met.new_tensor(list(curvatures))[:-1, None, None] * met[:-1]).square().cumprod(0)
    left = met.new_ones(met.shape)
    left[1:] = gd_plus_plus_filter(values, steps, curvatures)[:-1]
    gain = (met.new_tensor(list(steps))[:, None, None] * scaled * left).sum(0)
    moment = predict(y, x.mT)
    return (vectors @ (gain * (vectors.mT @ moment[..., None])[..., 0])[..., None])[..., 0]


@regression_predictor(steps=(0.05, 0.04), curvatures=(0.02, 0.01))
def gd_plus_plus(steps: Sequence[float], curvatures: Sequence[float]) -> RegressionPredictor:
    r"""GD++ of len(steps) layers from zero: layer l steps by $s_l$ and maps inputs by $I - \gamma_l A_l$.

    Args:
        steps: $s_l$, on the sum over examples.
        curvatures: $\gamma_l$; all 0 is gradient descent with steps $s_l$.

    Raises:
        LabError: no layer, or unequal numbers of steps and curvatures.
    """
    _require_layers(steps, curvatures)

    def predictor(x_context: Tensor, y_context: Tensor, x_query: Tensor) -> Tensor:
        weights = gd_plus_plus_weights(x_context, y_context, steps=steps, curvatures=curvatures)
        return predict(weights, x_query)

    return predictor


def expected_gd_plus_plus_error(
    eigenvalues: Float[Tensor, "draws dimension"],
    steps: Sequence[float],
    curvatures: Sequence[float],
    *,
    input_variance: float,
) -> Float[Tensor, "layer draws"]:
    r"""$v \sum_k f_l(\lambda_k)^2$: expected query error after l = 1 .. K layers, given the inputs, without label noise.

    Args:
        eigenvalues: all d of $X^\top X$.
        steps, curvatures: of `gd_plus_plus_filter`.
        input_variance: v of a coordinate of the query.
    """
    return input_variance * gd_plus_plus_filter(eigenvalues, steps, curvatures).square().sum(-1)


def filter_polynomial(steps: Sequence[float], curvatures: Sequence[float]) -> Float[np.ndarray, " coefficient"]:
    r"""Coefficients of $f(\lambda) = \prod_l (1 - s_l \lambda_l)$, lowest power first; $\lambda_l$ has the degree $3^l$.

    >>> filter_polynomial([0.5, 0.5], [0.0, 0.0]).tolist()
    [1.0, -1.0, 0.25]
    """
    _require_layers(steps, curvatures)
    met, product = np.array([0.0, 1.0]), np.array([1.0])
    for step, curvature in zip(steps, curvatures, strict=True):
        product = polynomial.polymul(product, polynomial.polysub([1.0], step * met))
        shrink = polynomial.polysub([1.0], curvature * met)
        met = polynomial.polymul(met, polynomial.polymul(shrink, shrink))
    return np.trim_zeros(product, "b")


def uniform_moments(half_width: float = 1.0) -> tuple[float, ...]:
    r"""$E x^{2k} = a^{2k} / (2k + 1)$ for k = 0 .. `LARGEST_ORDER`, x uniform on [-a, a]."""
    return tuple(half_width ** (2 * k) / (2 * k + 1) for k in range(LARGEST_ORDER + 1))


def normal_moments(variance: float = 1.0) -> tuple[float, ...]:
    r"""$E x^{2k} = (2k - 1)!!\, v^k$ for k = 0 .. `LARGEST_ORDER`, x normal."""
    return tuple(variance**k * float(np.prod(np.arange(1.0, 2 * k, 2.0))) for k in range(LARGEST_ORDER + 1))


def gram_moments(
    order: int, context_length: int, dimension: int, even_moments: tuple[float, ...]
) -> Float[np.ndarray, "{order}+1"]:
    r"""$E\,\mathrm{tr} (X^\top X)^j$ for j = 0 .. ``order``, exactly, for independent symmetric coordinates.

    $\sum_{\pi, \rho} n^{\underline{|\pi|}}\, d^{\underline{|\rho|}} \prod_{a \in \pi, b \in \rho} \mu_{m_{ab}}$ over pairs
    of partitions of the j factors: $\pi$ says which examples coincide, $\rho$ which coordinates, $m_{ab}$ how often an
    entry of X then occurs, and $n^{\underline k} = n (n - 1) \cdots (n - k + 1)$.

    Args:
        order: the largest j, at most `LARGEST_ORDER` (whose $4140^2$ pairs take a second, once a law).
        context_length: n examples.
        dimension: d.
        even_moments: $E x^{2k}$ of a coordinate, k = 0, 1, ... (`uniform_moments`, `normal_moments`).

    Raises:
        LabError: an order outside 0 .. `LARGEST_ORDER`, or sizes below 1.

    >>> gram_moments(2, 3, 2, normal_moments()).tolist()  # n d, and n d (n + d + 1)
    [2.0, 6.0, 36.0]
    """
    if not 0 <= order <= LARGEST_ORDER:
        raise LabError(f"The order {order} of a Gram moment must be between 0 and {LARGEST_ORDER}; lower it.")
    _require_sizes(context_length, dimension)
    moments = [float(dimension)]
    for power in range(1, order + 1):
        table = _coincidences(power, tuple(even_moments[: power + 1]))
        moments.append(float(_falling(context_length, power) @ table @ _falling(dimension, power)))
    return np.array(moments)


def expected_filter_error(
    coefficients: Float[np.ndarray, " coefficient"], moments: Float[np.ndarray, " moment"], input_variance: float
) -> float:
    r"""$v\,E\,\mathrm{tr} f(A)^2$ for a filter f given by coefficients: the exact expected query error without noise.

    Args:
        coefficients: of f (`filter_polynomial`).
        moments: $E\,\mathrm{tr} A^j$ for j up to twice the degree of f (`gram_moments`).
        input_variance: v of a coordinate of the query.

    Raises:
        LabError: too few moments.
    """
    square = polynomial.polymul(coefficients, coefficients)
    if len(square) > len(moments):
        raise LabError(
            f"A filter of degree {len(coefficients) - 1} needs {len(square)} moments but {len(moments)} are given; "
            "raise the order of gram_moments."
        )
    return float(input_variance * (square @ moments[: len(square)]))


def optimal_filter(
    context_length: int,
    dimension: int,
    even_moments: tuple[float, ...],
    *,
    layers: int,
    curved: bool,
    tied: bool = True,
) -> tuple[list[float], list[float], float]:
    r"""The steps and curvatures that minimise the exact expected query error, and that error.

    Args:
        context_length, dimension, even_moments: the law of the inputs, as in `gram_moments`.
        layers: K; with curvature 1 or 2 (the error needs moments of twice the filter's degree), without up to 4.
        curved: GD++ with free curvatures; else gradient descent.
        tied: one s and one $\gamma$ for all layers; else each its own (the last layer's $\gamma$ acts on nothing and is 0).

    Raises:
        LabError: more layers than `LARGEST_ORDER` allows.
    """
    degree = (3**layers - 1) // 2 if curved else layers
    if layers < 1 or 2 * degree > LARGEST_ORDER:
        raise LabError(
            f"{layers} layers have a filter of degree {degree} but it must be between 1 and {LARGEST_ORDER // 2}; "
            "take fewer layers or leave out the curvature."
        )
    moments = gram_moments(2 * degree, context_length, dimension, even_moments)
    variance = even_moments[1]
    kurtosis = even_moments[2] / variance**2
    start = optimal_step(context_length, dimension, input_variance=variance, kurtosis=kurtosis)

    def unpack(free: np.ndarray) -> tuple[list[float], list[float]]:
        values = (start * free).tolist()
        steps = values[:1] * layers if tied else values[:layers]
        if not curved:
            return steps, [0.0] * layers
        curvatures = values[1:] * layers if tied else [*values[layers:], 0.0]
        return steps, curvatures

    def error(free: np.ndarray) -> float:
        return expected_filter_error(filter_polynomial(*unpack(free)), moments, variance)

    # Unequal layers have a local minimum for each order of their steps: several starts, the best is kept.
    minima = [
        scipy.optimize.minimize(error, np.array(first), method="BFGS", options={"gtol": 1e-10})
        for first in _starts(layers, curved, tied)
    ]
    best = min(minima, key=lambda minimum: float(minimum.fun))
    return (*unpack(best.x), float(best.fun))


def _starts(layers: int, curved: bool, tied: bool) -> list[list[float]]:
    """Steps, then curvatures, in units of the best single step: equal steps, falling ones, rising ones."""
    if tied:
        return [[1.5, 0.3] if curved else [1.0]]
    bends = layers - 1 if curved else 0
    starts = [[1.5] * layers + [0.3] * bends, [*np.linspace(2.5, 1.5, layers), *[0.25] * bends]]
    return [*starts, *([*np.linspace(0.7, last, layers), *[bend] * bends] for last, bend in ((3, 0.45), (5, 0.65)))]


@functools.cache
def _coincidences(power: int, even_moments: tuple[float, ...]) -> Float[np.ndarray, "power power"]:
    """Sum of the products of moments over pairs of partitions with p and q blocks, at [p - 1, q - 1]."""
    partitions = _partitions(power)
    blocks = partitions.max(1) + 1
    moments = np.zeros(2 * power + 1)
    moments[::2] = even_moments
    rows = np.arange(len(partitions))
    table = np.zeros((power, power))
    # Turning all factors round changes neither partition's part: one of each orbit stands for all.
    orbits: dict[tuple[int, ...], int] = {}
    for partition in partitions.tolist():
        turned = (_relabel(partition[shift:] + partition[:shift]) for shift in range(power))
        least = min(turned)
        orbits[least] = orbits.get(least, 0) + 1
    following = np.roll(partitions, -1, axis=1)
    for examples, size in orbits.items():
        count = np.zeros((len(partitions), power * power), dtype=np.intp)
        for place, example in enumerate(examples):
            count[rows, example * power + partitions[:, place]] += 1
            count[rows, example * power + following[:, place]] += 1
        used = count[:, : (max(examples) + 1) * power]
        products = moments[used].prod(1)
        table[max(examples)] += size * np.bincount(blocks - 1, products, power)
    return table


def _partitions(power: int) -> np.ndarray:
    """All partitions of ``power`` things as rows of block numbers, each new block numbered by its first thing."""
    rows: list[list[int]] = [[0]]
    for _ in range(power - 1):
        rows = [[*row, block] for row in rows for block in range(max(row) + 2)]
    return np.array(rows)


def _relabel(partition: list[int]) -> tuple[int, ...]:
    names: dict[int, int] = {}
    return tuple(names.setdefault(block, len(names)) for block in partition)


def _falling(size: int, power: int) -> np.ndarray:
    """size (size - 1) ... for 1 .. ``power`` factors."""
    return np.cumprod(np.arange(size, size - power, -1.0))


def _require_sizes(context_length: int, dimension: int) -> None:
    for name, size in {"context_length": context_length, "dimension": dimension}.items():
        if size < 1:
            raise LabError(f"{name} is {size} but must be at least 1; raise {name}.")


def _require_law(input_variance: float, kurtosis: float, noise: float) -> None:
    limits = (
        ("input_variance", input_variance, input_variance > 0, "above 0"),
        ("kurtosis", kurtosis, kurtosis >= 1, "at least 1"),
        ("noise", noise, noise >= 0, "at least 0"),
    )
    for name, value, valid, limit in limits:
        if not valid:
            raise LabError(f"{name} is {value} but must be {limit}; change {name}.")


def _require_spectrum(spectrum: np.ndarray, context_length: int) -> None:
    _require_sizes(context_length, len(spectrum))
    if not (np.asarray(spectrum) >= 0).all() or not np.asarray(spectrum).sum() > 0:
        raise LabError(f"The spectrum {np.asarray(spectrum).tolist()} must be at least 0 and not all 0; change it.")


def _require_layers(steps: Sequence[float], curvatures: Sequence[float]) -> None:
    if len(steps) < 1 or len(steps) != len(curvatures):
        raise LabError(
            f"There are {len(steps)} steps and {len(curvatures)} curvatures but each layer, at least 1, has one of "
            "either; give lists of equal length."
        )
