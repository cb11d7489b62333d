r"""Trajectories of a linear partial differential equation whose coefficients are drawn afresh in every prompt.

Periodic advection and diffusion, $u_t + \beta u_x = \nu u_{xx}$ on $[0, 2\pi)$, in Fourier modes
$u(x) = \mathrm{Re} \sum_k c_k e^{ikx}$, $k = 1 \dots K$. One step of length $\Delta$ multiplies each mode by
$g_k = e^{-(\nu k^2 + i \beta k) \Delta}$, exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from lab.contracts import generator
from lab.errors import LabError
from lab.streams import RandomStream

Coefficients = Literal["shared", "redrawn"]


@dataclass(frozen=True)
class Family:
    r"""A family of equations, and how it is sampled in time.

    Args:
        modes: K.
        advection: $\beta$ is uniform on this interval.
        diffusion: $\nu$ is uniform on this interval.
        interval: time $\Delta$ from one state to the next.

    Raises:
        LabError: no modes, an interval that is not increasing, a negative diffusion, a time that is not positive.
    """

    modes: int = 3
    advection: tuple[float, float] = (-2.0, 2.0)
    diffusion: tuple[float, float] = (0.01, 0.1)
    interval: float = 0.1

    def __post_init__(self) -> None:
        if self.modes < 1:
            raise LabError(f"modes is {self.modes} but must be at least 1; raise modes.")
        if not 0 < self.interval < math.inf:
            raise LabError(f"The interval {self.interval} must be positive and finite; change it.")
        for name, (low, high) in (("advection", self.advection), ("diffusion", self.diffusion)):
            if not -math.inf < low < high < math.inf:
                raise LabError(f"The range {low} to {high} of the {name} must be increasing; exchange its ends.")
        if self.diffusion[0] < 0:
            raise LabError(
                f"The diffusion {self.diffusion[0]} is negative, so that the equation has no solution; raise it to 0."
            )


@dataclass(frozen=True)
class PdeTrajectories:
    r"""Trajectories in Fourier modes, several a prompt, all of one equation.

    Args:
        modes: $c_k$ of each state.
        advection: $\beta$ of each step (all alike, where coefficients are shared).
        diffusion: $\nu$ of each step.
    """

    modes: Complex[Tensor, "batch trajectory time mode"]
    advection: Float[Tensor, "batch trajectory time-1"]
    diffusion: Float[Tensor, "batch trajectory time-1"]


def propagators(
    advection: Float[Tensor, "*shape"], diffusion: Float[Tensor, "*shape"], modes: int, interval: float
) -> Complex[Tensor, "*shape {modes}"]:
    r"""$g_k = e^{-(\nu k^2 + i \beta k) \Delta}$ for $k = 1 \dots K$."""
    wave = torch.arange(1, modes + 1, dtype=advection.dtype)
    exponent = torch.complex(diffusion[..., None] * wave.square(), advection[..., None] * wave)
    return torch.exp(-interval * exponent)


def fields(modes: Complex[Tensor, "*shape mode"], points: int) -> Float[Tensor, "*shape {points}"]:
    r"""$u(x) = \mathrm{Re} \sum_k c_k e^{ikx}$ at ``points`` equally spaced places.

    Raises:
        LabError: too few points for the highest mode, which would be taken for a lower one.
    """
    count = modes.shape[-1]
    if points <= 2 * count:
        raise LabError(f"{points} points cannot tell {count} modes apart; use at least {2 * count + 1}.")
    angles = 2 * math.pi / points * torch.outer(torch.arange(1.0, count + 1), torch.arange(float(points))).double()
    waves = torch.polar(torch.ones_like(angles), angles).to(modes.dtype)
    return (modes @ waves).real


def fourier_modes(field: Float[Tensor, "*shape point"], modes: int) -> Complex[Tensor, "*shape {modes}"]:
    r"""The inverse of `fields`: $c_k = \frac{2}{N} \sum_x u(x) e^{-ikx}$, in double precision."""
    return torch.fft.rfft(field.double(), dim=-1)[..., 1 : modes + 1] * (2 / field.shape[-1])


@generator(family=Family(), trajectories=2, length=4)
def pde_trajectories(
    stream: RandomStream,
    batch: int,
    *,
    family: Family,
    trajectories: int,
    length: int,
    coefficients: Coefficients = "shared",
) -> PdeTrajectories:
    r"""$c_k$ of the first state complex normal with $E|c_k|^2 = 1/k^2$, then `propagators`, step by step.

    Args:
        stream: where the numbers come from.
        batch: number of prompts; the first k of them are the same for every batch of at least k.
        family: modes, laws of the coefficients and time between states.
        trajectories: initial states a prompt.
        length: states of a trajectory.
        coefficients: "shared" by all trajectories and steps of a prompt, or "redrawn" at every step of each.

    Raises:
        LabError: a size below 1 or an unknown law of the coefficients.

    >>> from lab.streams import stream
    >>> drawn = pde_trajectories(stream(0), 2, family=Family(), trajectories=1, length=5)
    >>> tuple(drawn.modes.shape), bool((drawn.advection == drawn.advection[:, :, :1]).all())
    ((2, 1, 5, 3), True)
    """
    for name, value in (("batch", batch), ("trajectories", trajectories), ("length", length)):
        if value < 1:
            raise LabError(f"{name} is {value} but must be at least 1; raise {name}.")
    if coefficients not in get_args(Coefficients):
        raise LabError(
            f"The coefficients {coefficients!r} are unknown; choose one of {', '.join(get_args(Coefficients))}."
        )
    drawn = (batch, 1, 1) if coefficients == "shared" else (batch, trajectories, length - 1)
    shape = (batch, trajectories, length - 1)
    advection, diffusion = (
        torch.from_numpy(np.broadcast_to(stream.child(name).rng().uniform(*limits, drawn), shape).copy())
        for name, limits in (("advection", family.advection), ("diffusion", family.diffusion))
    )
    pair = stream.child("start").rng().standard_normal((batch, trajectories, 1, family.modes, 2)) / math.sqrt(2)
    first = torch.view_as_complex(torch.from_numpy(pair)) / torch.arange(1, family.modes + 1)
    moves = propagators(advection, diffusion, family.modes, family.interval).cumprod(-2)
    return PdeTrajectories(torch.cat([first, first * moves], dim=-2), advection, diffusion)
