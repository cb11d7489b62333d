r"""What a matrix memory of D columns gives back of n pairs of random keys and values.

Keys are unit vectors in $\mathbb R^D$, uniform on the sphere; values have any law with $E\,v_i^\top v_j =
\delta_{ij}$ that does not know the
keys. The memory $S$ is read as $S k$. Its *error* is the mean of $|S k_q - v_q|^2$ over the n pairs. (An answer of 0 has error 1.)

- **sum** (linear attention without a feature map): $S = \sum_i v_i k_i^\top$ has the error $(n - 1) / D$. Any unit keys with
  $E\,k k^\top = I / D$ will do.
- **delta rule** at rate 1: $S \leftarrow S (I - k_i k_i^\top) + v_i k_i^\top$. With $r = 1 - \frac1D$, $\rho = 1 -
\frac{2 (D + 1)}{D (D + 2)}$ and
  $\beta_m = (r^m - \rho^m) / D$, a pair with m newer and o older ones has the error
  $2 - 3 r^m + \rho^m + \beta_m + (D - 1)\,\beta_m (1 - r^o)$. It needs the fourth moments of the sphere.
- **least squares** (recursive least squares, the limit of ridge): $S$ has the error $\max(0, 1 - D / n)$ whatever
keys there are, as long
  as any D of them are independent.
- **softmax attention** keeps the pairs themselves, n (D + D) numbers, and its error falls with its sharpness at every n.

The first three hold D numbers for each coordinate of a value.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from lab.errors import LabError

Keys = Float[np.ndarray, "*batch pair size"]


def sum_error(pairs: int, size: int) -> float:
    """(n - 1) / D.

    >>> sum_error(5, 8)
    0.5
    """
    _check(pairs, size)
    return (pairs - 1) / size


def delta_error(newer: int, older: int, size: int) -> float:
    """Of a pair that ``newer`` pairs were written after and ``older`` ones before, by the delta rule at rate 1.

    >>> delta_error(0, 7, 4)
    0.0
    """
    _check(1, size)
    kept = 1 - 1 / size
    fourth = 1 - 2 * (size + 1) / (size * (size + 2))
    spread = (kept**newer - fourth**newer) / size
    return 2 - 3 * kept**newer + fourth**newer + spread + (size - 1) * spread * (1 - kept**older)


def delta_rule_error(pairs: int, size: int) -> float:
    """`delta_error`, averaged over all pairs."""
    _check(pairs, size)
    return float(np.mean([delta_error(newer, pairs - 1 - newer, size) for newer in range(pairs)]))


def least_squares_error(pairs: int, size: int) -> float:
    """max(0, 1 - D / n).

    >>> least_squares_error(8, 6)
    0.25
    """
    _check(pairs, size)
    return max(0.0, 1 - size / pairs)


LAWS = {"sum": sum_error, "delta rule": delta_rule_error, "least squares": least_squares_error}


def weights_of(memory: str, keys: Keys, sharpness: float = np.inf) -> Float[np.ndarray, "*batch pair pair"]:
    r"""A [q, i], by which the memory answers the key of pair q with $\sum_i A_{qi} v_i$.

    Args:
        memory: "sum", "delta rule", "least squares" or "softmax".
        keys: unit vectors, in the order in which they are written.
        sharpness: of softmax.

    Raises:
        LabError: another memory.
    """
    gram = keys @ keys.swapaxes(-1, -2)
    if memory == "sum":
        return gram
    if memory == "least squares":
        return keys @ np.linalg.pinv(keys)
    if memory == "softmax":
        scores = np.exp(sharpness * (gram - 1))
        return scores / scores.sum(-1, keepdims=True)
    if memory != "delta rule":
        raise LabError(f"memory = {memory!r} must be one of {', '.join((*LAWS, 'softmax'))}; please change it.")
    # Row i of ``read``: what k_i becomes by the time it is asked, k_i' (I - k_{i+1} k_{i+1}') ... (I - k_n k_n').
    read = np.zeros_like(keys)
    for pair in range(keys.shape[-2]):
        key = keys[..., pair, :]
        read -= (read @ key[..., None]) * key[..., None, :]
        read[..., pair, :] = key
    return keys @ read.swapaxes(-1, -2)


def memory_error(weights: Float[np.ndarray, "*batch pair pair"]) -> Float[np.ndarray, "*batch pair"]:
    r"""$\sum_i (A_{qi} - \delta_{qi})^2$, the error of each pair in the mean over values."""
    return ((weights - np.eye(weights.shape[-1])) ** 2).sum(-1)


def design(name: str) -> Float[np.ndarray, "point size"]:
    """Points on a sphere that stand for all of it in low moments.

    "pentagon" (D = 2) and "icosahedron" (D = 3) have the moments of the sphere up to the fourth (spherical 4- and
    5-designs), "square" and "octahedron" up to the third only, "skew" (D = 2) not even the second.

    Raises:
        LabError: another name.
    """
    golden = (1 + 5**0.5) / 2
    if name == "icosahedron":
        corners = [(0.0, a, b * golden) for a in (-1, 1) for b in (-1, 1)]
        points = np.array([np.roll(corner, turn) for corner in corners for turn in range(3)])
        return points / np.linalg.norm(points, axis=1, keepdims=True)
    if name == "octahedron":
        return np.concatenate([np.eye(3), -np.eye(3)])
    angles = {
        "pentagon": 2 * np.pi * np.arange(5) / 5,
        "square": np.pi * np.arange(4) / 2,
        "skew": np.array([0.0, 0.4, np.pi, 0.4 + np.pi]),
    }
    if name not in angles:
        raise LabError(
            f"design = {name!r} must be one of {', '.join((*angles, 'octahedron', 'icosahedron'))}; please change it."
        )
    return np.stack([np.cos(angles[name]), np.sin(angles[name])], axis=1)


def enumerated_error(memory: str, name: str, pairs: int) -> Float[np.ndarray, " pair"]:
    """The mean error of each pair over all keys from a `design`, every combination once.

    Raises:
        LabError: more than a million combinations, or an unknown name.
    """
    points = design(name)
    _check(pairs, points.shape[1])
    if len(points) ** pairs > 1_000_000:
        raise LabError(f"{len(points)} ** {pairs} combinations of keys are more than a million; take fewer pairs.")
    chosen = np.stack(np.meshgrid(*[np.arange(len(points))] * pairs, indexing="ij"), -1).reshape(-1, pairs)
    return memory_error(weights_of(memory, points[chosen])).mean(0)


def sphere(rng: np.random.Generator, *shape: int) -> Float[np.ndarray, "..."]:
    """Uniform points on the unit sphere, the last axis being that of coordinates."""
    drawn = rng.standard_normal(shape)
    return drawn / np.linalg.norm(drawn, axis=-1, keepdims=True)


def _check(pairs: int, size: int) -> None:
    if pairs < 1 or size < 1:
        raise LabError(f"pairs = {pairs} and size = {size} of a memory must be at least 1; please raise them.")
