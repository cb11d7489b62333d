r"""When iterated attention has a fixed point, and what its gradient is there.

For one head and frozen values, in the norm $\max_i |u_i|$ and on the ball of radius R that f does not leave,

$$ \mathrm{Lip}(f) \le |W_O|\, \frac{|W_Q W_K^\top|}{\sqrt d\,\tau}\, R\, \mathrm{diam}(V), \qquad
   \mathrm{diam}(V) = \max_{j, l} |v_j - v_l| $$

(`FixedPointAttention.lipschitz`). *Proof.* A score $s_{ij} = u_i G u_j^\top$ moves by at most $2 |G| R |du| =: B$.
The weights move by
$da_j = a_j (ds_j - \sum_l a_l ds_l)$, together by at most B. They sum to 0, so that what is read moves by at most
$B\, \mathrm{diam}(V) / 2$.
No step uses who is seen: the bound holds under every mask.

A bound that multiplies norms of weights only, $\sigma_Q \sigma_K \sigma_O / (\sqrt d\,\tau)$, lacks R and diam(V):
scores are quadratic in u.
The smallest counterexample has two tokens $x = (R, -R)$ of one coordinate: by symmetry $u = (y, -y)$ and $y
\leftarrow R (1 - w_O' \tanh(g y^2))$.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lab.errors import LabError
from lab.models.mixers.fixed_point import FixedPointAttention


def quoted_value(layer: FixedPointAttention) -> Float[Tensor, " model"]:
    r"""$\sigma_Q \sigma_K \sigma_O / (\sqrt d\,\tau)$ of one head."""
    norms = [torch.linalg.matrix_norm(matrix, ord=2) for matrix in (layer.query, layer.key, layer.output)]
    return torch.as_tensor(layer.scale) * torch.stack(norms).prod(0)[:, 0, 0]


def two_token_layer(damping: float = 1.0, tolerance: float = 1e-12, most: int = 400) -> FixedPointAttention:
    """Two tokens of one coordinate: W_Q = W_K = 0.9, W_V = 1, W_O = -0.9; its quoted value is 0.729 for every prompt."""
    query, key, value, output = (
        torch.full((1, 1, 1, 1), entry, dtype=torch.float64) for entry in (0.9, 0.9, 1.0, -0.9)
    )
    return FixedPointAttention(query, key, value, output, damping=damping, tolerance=tolerance, most=most)


def two_token_map(y: float, size: float, damping: float = 1.0) -> float:
    r"""$y \mapsto (1 - \alpha) y + \alpha R (1 - 0.9 \tanh(0.81 y^2))$."""
    return (1 - damping) * y + damping * size * (1 - 0.9 * math.tanh(0.81 * y**2))


def two_token_slope(size: float, damping: float = 1.0) -> float:
    """Derivative of `two_token_map` at its fixed point, found by bisection; below -1 the iteration cannot settle.

    Raises:
        LabError: a size that is not positive.
    """
    if not size > 0:
        raise LabError(f"size = {size} of the two tokens must be positive; please change it.")
    low, high = 0.0, size  # the map falls from R, y rises: they cross once
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if two_token_map(middle, size) > middle else (low, middle)
    y = (low + high) / 2
    return 1 - damping + damping * size * (-0.9 * 1.62 * y / math.cosh(0.81 * y * y) ** 2)


def orbit(size: float, steps: int, last: int, damping: float = 1.0) -> Float[np.ndarray, " step"]:
    """The last states of the two-token iteration, from y = R."""
    y, states = float(size), []
    for _ in range(steps):
        y = two_token_map(y, size, damping)
        states.append(y)
    return np.array(states[-last:])


def implicit_gradient(
    step: Callable[[Tensor], Tensor],
    state: Float[Tensor, " numbers"],
    upstream: Float[Tensor, " numbers"],
    terms: int | None,
) -> Float[Tensor, " numbers"]:
    r"""$(I - J^\top)^{-1} g$ with $J = \partial f / \partial u$ at ``state``, or the first terms of $\sum_t (J^\top)^t g$.

    Args:
        step: f of a flat state.
        state: the fixed point.
        upstream: g, the gradient of the loss in the state.
        terms: how many terms beyond the first of the Neumann series; None solves.
    """
    jacobian = _jacobian(step, state)
    if terms is None:
        return torch.linalg.solve(torch.eye(len(state), dtype=state.dtype) - jacobian.T, upstream)
    gradient = upstream
    for _ in range(terms):
        gradient = jacobian.T @ gradient + upstream
    return gradient


def spectral_radius(step: Callable[[Tensor], Tensor], state: Float[Tensor, " numbers"]) -> float:
    """Largest |eigenvalue| of the Jacobian; a fixed point attracts where it is below 1, whatever the norm is."""
    return float(torch.linalg.eigvals(_jacobian(step, state)).abs().max())


def _jacobian(step: Callable[[Tensor], Tensor], state: Tensor) -> Tensor:
    jacobian = torch.autograd.functional.jacobian(step, state)
    assert isinstance(jacobian, Tensor)
    return jacobian
