r"""What one layer of linear attention learns from sequences $x_{t+1} = W x_t$ (Zheng et al. 2024).

Indices are 1-based: a sequence has states $x_1, \dots, x_T$, token t is $e_t = (x_t; x_{t-1})$ with $x_0 = 0$, and the
prediction of $x_{t+1}$ at token t is

$$\hat y_t = \frac{1}{t-1}\, V \sum_{i \le t} e_i\, e_i^{H} K e_t, \qquad V \in C^{d \times 2d},\; K \in C^{2d \times 2d}.$$

With $V = (b I, 0)$ and $K = \begin{pmatrix} 0 & 0 \\ a I & 0 \end{pmatrix}$ it is one step of gradient descent from
$W = 0$ on $\tfrac12 \sum_{i<t} |x_{i+1} - W x_i|^2$ with step $c/(t-1)$, $c = ab$: the *diagonal* weights of this module.
The moments of a coordinate of the first state are $k_1 = E x^4$, $k_2 = E x^6$ and
$k_3 = \sum_{r \ne j} E\, x_j^2 x_r^4$ (moduli, where it is complex).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from lab.domains.dynamics.sequences import Phases, Start
from lab.errors import LabError

MOST_POINTS = 300_000  # sequences of one exact quadrature: about 1 GB with the gradient of the loss


@dataclass(frozen=True)
class Moments:
    """Moments of the first state: second, fourth and sixth of a coordinate, and the mixed one k_3 of all pairs."""

    second: float
    fourth: float
    sixth: float
    mixed: float


def moments(start: Start, dimension: int, scale: float = 1.0) -> Moments:
    """E|x|^2, k_1, k_2 and k_3 of a law of `lab.domains.dynamics.sequences`.

    >>> moments("gaussian", 5)
    Moments(second=1.0, fourth=3.0, sixth=15.0, mixed=12.0)
    """
    other_coordinates = dimension - 1
    second, fourth, sixth, mixed = {
        "gaussian": (1.0, 3.0, 15.0, 3.0 * other_coordinates),
        "sparse": (1 / dimension, 1 / dimension, 1 / dimension, 0.0),
        "ones": (1.0, 1.0, 1.0, 1.0 * other_coordinates),
        "rademacher": (1.0, 1.0, 1.0, 1.0 * other_coordinates),
        "uniform": (1 / 3, 1 / 5, 1 / 7, other_coordinates / 15),
        "complex gaussian": (1.0, 2.0, 6.0, 2.0 * other_coordinates),
    }[start]
    return Moments(second * scale**2, fourth * scale**4, sixth * scale**6, mixed * scale**6)


def scored_positions(length: int, prefix_length: int = 0) -> Float[np.ndarray, " scored"]:
    """The positions t that predict: 2 .. T - 1, and not before the last token of a prefix.

    A token inside a prefix sees its own answer, so that it asks nothing.

    Raises:
        LabError: no position is left.
    """
    positions = np.arange(max(2, prefix_length), length, dtype=float)
    if not positions.size:
        raise LabError(
            f"A sequence of {length} states with a prefix of {prefix_length} leaves nothing to predict; "
            "use at least 3 states and a prefix shorter than the sequence."
        )
    return positions


def mean_inverse(length: int, prefix_length: int = 0) -> float:
    """h: the mean of 1/(t - 1) over the scored positions (h = H_{T-2} / (T - 2) without a prefix)."""
    return float((1 / (scored_positions(length, prefix_length) - 1)).mean())


def optimal_step(law: Moments, length: int, prefix_length: int = 0) -> float:
    r"""$c^* = k_1 / (k_2 + k_3 h)$: the product ab that minimises the loss among diagonal weights (Theorem 4.1).

    >>> round(optimal_step(moments("gaussian", 5), 100), 5)
    0.19191
    """
    return law.fourth / (law.sixth + law.mixed * mean_inverse(length, prefix_length))


def population_loss(
    step: float | np.ndarray, law: Moments, dimension: int, length: int, prefix_length: int = 0
) -> float | np.ndarray:
    r"""$L(c) = \sum_t \frac12 [d c^2 (k_2 + k_3/(t-1)) - 2 d c k_1 + E|x_1|^2]$ over the scored positions.

    Derived for independent uniform phases; only the equality of moments over coordinates is used.
    """
    scored = scored_positions(length, prefix_length)
    quadratic = law.sixth + law.mixed / (scored - 1)
    total = dimension * (
        np.multiply.outer(np.square(step), quadratic)
        - 2 * np.multiply.outer(step, np.full_like(scored, law.fourth))
        + law.second
    )
    return 0.5 * total.sum(-1)


def step_flow(
    time: Float[np.ndarray, " times"], start: float, law: Moments, length: int
) -> Float[np.ndarray, " times"]:
    r"""c of gradient flow from $a_0 = b_0 = \sqrt{c_0}$: logistic, with rate $2 (T-2) k_1$.

    $c(\tau) = c^* / (1 + (c^*/c_0 - 1)\, e^{-2 (T-2) k_1 \tau})$, the solution of
    $\dot c = 2 c\,(T-2)(k_1 - c\,(k_2 + k_3 h))$. Written $\dot c = (a^2+b^2)(\dots)$ it holds for all starts, with
    $a^2 + b^2 = \sqrt{(a_0^2 - b_0^2)^2 + 4 c^2}$, because $a^2 - b^2$ is conserved.
    """
    limit = optimal_step(law, length)
    rate = 2 * scored_positions(length).size * law.fourth
    return np.asarray(limit / (1 + (limit / start - 1) * np.exp(-rate * time)))


def limiting_loss(law: Moments) -> float:
    r"""Share of $E|x|^2$ that the best step leaves in the long run: $1 - k_1^2 / (k_2 E x^2)$, as $T \to \infty$.

    The correlation of the past states tends to $\mathrm{diag}(x_{1j}^2)$, so that the prediction is
    $c^* x_{1j}^2$ times the truth; 0 exactly where all nonzero coordinates share one modulus.
    """
    return 1 - law.fourth**2 / (law.sixth * law.second)


def one_step_predictions(
    states: Complex[Tensor, "*batch time dimension"], step: float
) -> Complex[Tensor, "*batch time-1 dimension"]:
    r"""$\tilde W_t x_t$ at t = 2 .. T, $\tilde W_t = \frac{c}{t-1} \sum_{i<t} x_{i+1} x_i^{H}$: one gradient step from 0.

    The gradient of $\tfrac12 \sum_{i<t} |x_{i+1} - W x_i|^2$ at $W = 0$ is $-\sum_{i<t} x_{i+1} x_i^H$.
    """
    outer = states[..., 1:, :, None] * states[..., :-1, None, :].conj()
    count = torch.arange(1, states.shape[-2], dtype=states.real.dtype)[:, None, None]
    return (step * outer.cumsum(-3) / count @ states[..., 1:, :, None]).squeeze(-1)


@dataclass(frozen=True)
class Quadrature:
    """Weighted sequences whose weighted mean of the loss is its expectation, to rounding."""

    states: Complex[Tensor, "points time dimension"]
    weights: Float[Tensor, " points"]


def quadrature(
    start: Start, dimension: int, length: int, phases: Phases = "independent", scale: float = 1.0
) -> Quadrature:
    r"""Sequences and weights that integrate the loss exactly.

    A scored prediction is a product of three states up to $x_{T-1}$, one of them conjugated, so that in each phase the
    loss is a trigonometric polynomial of degree at most 3 (T - 2), and the mean over 3 (T - 2) + 1 roots of unity is its
    integral (3 d (T - 2) + 1 for harmonic phases, where one phase drives d of them). In each coordinate of the first
    state it is a polynomial of degree 6, which 4 nodes of Gauss-Hermite or Gauss-Legendre quadrature integrate; the
    other laws are enumerated. The loss is even in the first state: one of $x_1$ and $-x_1$ stands for both.

    Raises:
        LabError: more than ``MOST_POINTS`` points, or a law with no such rule here.
    """
    free = dimension if phases == "independent" else 1
    roots = 3 * max(length - 2, 0) * (dimension if phases == "harmonic" else 1) + 1
    nodes, mass = _start_rule(start, dimension)
    points = len(nodes) * roots**free
    if points > MOST_POINTS:
        raise LabError(
            f"Exact quadrature in dimension {dimension} at {length} states takes {points} sequences, more than "
            f"{MOST_POINTS}; lower the dimension or the length, or sample."
        )
    multiples = {
        "independent": np.eye(dimension),
        "equal": np.ones((1, dimension)),
        "harmonic": -np.arange(1.0, dimension + 1)[None],
    }.get(phases)
    if multiples is None:
        raise LabError(f"There is no exact rule for the phases {phases!r}; sample them instead.")
    turns = np.array(list(product(range(roots), repeat=free))) / roots @ multiples
    turned = np.exp(2j * np.pi * turns[:, None, :] * np.arange(length)[:, None])
    states = scale * nodes[:, None, None, :] * turned
    weights = np.repeat(mass / len(turns), len(turns))
    return Quadrature(torch.from_numpy(states.reshape(points, length, dimension)), torch.from_numpy(weights))


def _start_rule(start: Start, dimension: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes [n, dimension] and probabilities [n] of the first state at scale 1, up to its sign."""
    if start == "gaussian":
        line, weights = np.polynomial.hermite_e.hermegauss(4)
        weights = weights / math.sqrt(2 * math.pi)
    elif start == "uniform":
        line, weights = np.polynomial.legendre.leggauss(4)
        weights = weights / 2
    elif start == "rademacher":
        line, weights = np.array([-1.0, 1.0]), np.array([0.5, 0.5])
    elif start == "sparse":
        return np.eye(dimension), np.full(dimension, 1 / dimension)
    elif start == "ones":
        return np.ones((1, dimension)), np.ones(1)
    else:
        raise LabError(f"There is no exact rule for the first state {start!r} here; sample it instead.")
    nodes = np.array(list(product(line, repeat=dimension)))
    masses = np.array(list(product(weights, repeat=dimension))).prod(-1)
    kept = nodes[:, 0] > 0
    return nodes[kept], 2 * masses[kept]


def step_statistics(
    states: Complex[Tensor, "batch time dimension"],
) -> tuple[Float[Tensor, "batch time-2"], Float[Tensor, "batch time-2"]]:
    r"""$\mathrm{Re}\langle x_{t+1}, \hat y_t \rangle$ and $|\hat y_t|^2$ at c = 1, t = 2 .. T - 1.

    The loss of a sequence is $\tfrac12 \sum_t (c^2 |\hat y_t|^2 - 2c\,\mathrm{Re}\langle x_{t+1}, \hat y_t\rangle + |x_{t+1}|^2)$.
    """
    predicted = one_step_predictions(states, 1.0)[:, :-1]
    target = states[:, 2:]
    return (target.conj() * predicted).real.sum(-1), predicted.abs().square().sum(-1)


def diagonal_entries(dimension: int) -> tuple[Sequence[tuple[int, int]], Sequence[tuple[int, int]]]:
    """(row, column) of the entries of V and of K that diagonal weights use."""
    value = [(place, place) for place in range(dimension)]
    key = [(dimension + place, place) for place in range(dimension)]
    return value, key
