r"""What a context of trajectories tells about a linear equation $u_t + \beta u_x = \nu u_{xx}$

In Fourier modes a step is $c_k \mapsto g_k c_k$, $g_k = e^{-(\nu k^2 + i\beta k)\Delta}$: a diagonal linear system whose K
multipliers are functions of two numbers.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from lab.domains.dynamics.linear_equation_prompts import Family
from lab.errors import LabError


def least_squares_propagators(
    before: Complex[Tensor, "batch transition mode"], after: Complex[Tensor, "batch transition mode"]
) -> Complex[Tensor, "batch mode"]:
    r"""$\hat g_k = \sum_t c_k(t+1) \overline{c_k(t)} / \sum_t |c_k(t)|^2$, mode by mode.

    Raises:
        LabError: a mode that is 0 in all transitions of a prompt, of which nothing can be learned.
    """
    energy = before.abs().square().sum(1)
    if not bool((energy > 0).all()):
        raise LabError("A mode is 0 in every transition and says nothing on its multiplier; leave it out.")
    return (after * before.conj()).sum(1) / energy


def mode_weights(before: Complex[Tensor, "batch transition mode"]) -> Float[Tensor, "batch mode"]:
    r"""$w_k = \sum_t |c_k(t)|^2$: under noise the variance of $\hat g_k$ is proportional to $1/w_k$."""
    return before.abs().square().sum(1)


def fit_coefficients(
    propagators: Complex[Tensor, "batch mode"], weights: Float[Tensor, "batch mode"], interval: float
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    r"""$(\hat\beta, \hat\nu)$ from multipliers $\hat g_k$ of modes 1 to K, by weighted least squares on their logarithms.

    $\hat\nu = -\sum_k w_k k^2 \ln|\hat g_k| / (\Delta \sum_k w_k k^4)$. Angles are known up to full turns: mode by mode,
    that angle is taken which is nearest to what the modes below predict, and
    $\hat\beta = -\sum_k w_k k \arg \hat g_k / (\Delta \sum_k w_k k^2)$. The first mode decides; it needs
    $|\beta| < \pi/\Delta$, beyond which $\beta$ is taken for its alias, off by a multiple of $2\pi/\Delta$.
    """
    wave = torch.arange(1, propagators.shape[-1] + 1, dtype=weights.dtype)
    decay = (weights * wave.square() * propagators.abs().log()).sum(-1) / (weights * wave**4).sum(-1)
    angles = propagators.angle()
    turned = torch.zeros_like(angles)
    speed = torch.zeros_like(angles[:, 0])  # angle a mode number, from the modes so far
    for mode in range(propagators.shape[-1]):
        turns = ((speed * (mode + 1) - angles[:, mode]) / (2 * math.pi)).round()
        turned[:, mode] = angles[:, mode] + 2 * math.pi * turns
        known = slice(0, mode + 1)
        speed = (weights * wave * turned)[:, known].sum(-1) / (weights * wave.square())[:, known].sum(-1)
    return -speed / interval, -decay / interval


def prior_mean_propagators(family: Family) -> Complex[Tensor, " mode"]:
    r"""$E g_k$ over the laws of $\beta$ and $\nu$: the best multiplier, in squared error, without any context.

    $E e^{-z} = (e^{-z_0} - e^{-z_1})/(z_1 - z_0)$ for z uniform between $z_0$ and $z_1$; with symmetric advection the first
    factor is a sinc.
    """
    wave = torch.arange(1, family.modes + 1, dtype=torch.float64)
    beta = torch.tensor(family.advection, dtype=torch.float64)
    nu = torch.tensor(family.diffusion, dtype=torch.float64)
    turning = 1j * family.interval * wave[:, None] * beta
    decaying = (family.interval * wave.square()[:, None] * nu).to(turning.dtype)
    return _mean_exponential(turning) * _mean_exponential(decaying)


def _mean_exponential(ends: Complex[Tensor, "mode 2"]) -> Complex[Tensor, " mode"]:
    low, high = ends.unbind(-1)
    width = high - low  # a difference of exponentials would lose the digits that narrow laws have in common
    return torch.exp(-low) * -torch.expm1(-width) / width


def relative_error(
    prediction: Complex[Tensor, "*shape mode"], truth: Complex[Tensor, "*shape mode"]
) -> Float[Tensor, "*shape"]:
    r"""$|\hat u - u| / |u|$ in $L^2$, which is that of the modes (Parseval)."""
    return (prediction - truth).norm(dim=-1) / truth.norm(dim=-1)
