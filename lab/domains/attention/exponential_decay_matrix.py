r"""The matrix $M_{ij} = \lambda^{|i - j|}$ of a constant decay (Kac, Murdock and Szegö 1953): inverse, determinant, spectrum."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from lab.errors import LabError


def decay_matrix(length: int, decay: float) -> Float[np.ndarray, "token token"]:
    """lambda^|i - j|."""
    _check(length, decay)
    places = np.arange(length)
    return decay ** np.abs(places[:, None] - places)


def inverse_of_decay_matrix(length: int, decay: float) -> Float[np.ndarray, "token token"]:
    r"""Tridiagonal: $(1 + \lambda^2)$ on the diagonal (1 in the two corners) and $-\lambda$ beside it, over $1 - \lambda^2$."""
    _check(length, decay)
    tridiagonal = (1 + decay**2) * np.eye(length) - decay * (np.eye(length, k=1) + np.eye(length, k=-1))
    tridiagonal[0, 0] = tridiagonal[-1, -1] = 1.0
    return tridiagonal / (1 - decay**2) if length > 1 else np.ones((1, 1))


def determinant_of_decay_matrix(length: int, decay: float) -> float:
    r"""$(1 - \lambda^2)^{N - 1}$."""
    _check(length, decay)
    return float((1 - decay**2) ** (length - 1))


def spectrum_of_decay_matrix(decay: float) -> tuple[float, float]:
    r"""$\frac{1 - \lambda}{1 + \lambda}$ and its inverse, between which all eigenvalues lie, at every length."""
    _check(1, decay)
    return (1 - decay) / (1 + decay), (1 + decay) / (1 - decay)


def _check(length: int, decay: float) -> None:
    if length < 1:
        raise LabError(f"The length is {length} but must be at least 1; please raise it.")
    if not 0 < decay < 1:
        raise LabError(
            f"The decay is {decay} but must lie in (0, 1) for this matrix to have an inverse; please change it."
        )
