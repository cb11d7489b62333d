r"""Sequences of linear dynamics: $x_{t+1} = W x_t$ with a fresh random unitary W in every sequence.

The transition is diagonal, $W = \mathrm{diag}(\lambda_1, \dots, \lambda_d)$ with $\lambda_j = e^{i \theta_j}$ and independent
uniform phases, or a Haar-distributed orthogonal matrix. Only the law of the first state $x_1$ is left to choose, and with
it the moments on which the optimum of next-state prediction depends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Complex
from torch import Tensor

from lab.contracts import generator
from lab.errors import LabError
from lab.streams import RandomStream

Start = Literal["gaussian", "sparse", "ones", "rademacher", "uniform", "complex gaussian"]
Transition = Literal["diagonal", "orthogonal"]
Phases = Literal["independent", "equal", "half circle", "harmonic"]


@dataclass(frozen=True)
class Trajectories:
    r"""Sequences of states and what drove them.

    Args:
        states: $x_1, \dots, x_T$.
        transition: W of each sequence.
    """

    states: Complex[Tensor, "batch time dimension"]
    transition: Complex[Tensor, "batch dimension dimension"]


@generator(dimension=3, length=6)
def linear_dynamics(
    stream: RandomStream,
    batch: int,
    *,
    dimension: int,
    length: int,
    start: Start = "gaussian",
    scale: float = 1.0,
    transition: Transition = "diagonal",
    phases: Phases = "independent",
) -> Trajectories:
    r"""$x_1 \sim$ ``start``, $x_{t+1} = W x_t$ (Zheng et al. 2024).

    Args:
        stream: where the numbers come from.
        batch: number of sequences; the first k of them are the same for every batch of at least k.
        dimension: d.
        length: T states.
        start: law of $x_1$: "gaussian" $N(0, s^2 I)$; "sparse" $\pm s e_j$ with a random coordinate j; "ones"
            $(s, \dots, s)$; "rademacher" independent $\pm s$; "uniform" independent on $[-s, s]$; "complex gaussian"
            with $E|x_{1j}|^2 = s^2$.
        scale: s.
        transition: "diagonal" with phases as below, or "orthogonal", Haar-distributed.
        phases: of a diagonal transition, uniform on the circle and independent; all "equal"; independent on a
            "half circle" $[0, \pi)$; or "harmonic", $\theta_j = -j \phi$ with one uniform $\phi$ (the Fourier modes of
            periodic advection).

    Raises:
        LabError: a size below 1, a scale that is not positive and finite, an unknown law.

    >>> from lab.streams import stream
    >>> tuple(linear_dynamics(stream(0), 2, dimension=3, length=5).states.shape)
    (2, 5, 3)
    """
    for name, value in (("batch", batch), ("dimension", dimension), ("length", length)):
        if value < 1:
            raise LabError(f"The {name} of linear dynamics is {value} but must be at least 1; raise it.")
    if not 0 < scale < math.inf:
        raise LabError(f"The scale {scale} of the first state must be positive and finite; change it.")
    for name, chosen, known in (
        ("law of the first state", start, get_args(Start)),
        ("transition", transition, get_args(Transition)),
        ("law of the phases", phases, get_args(Phases)),
    ):
        if chosen not in known:
            raise LabError(f"The {name} {chosen!r} is unknown; choose one of {', '.join(known)}.")
    first = scale * torch.from_numpy(first_states(stream.child("start"), batch, dimension, start))
    draws = stream.child("transition").rng()
    if transition == "orthogonal":
        # The Q factor of a Gaussian matrix is Haar-distributed once the signs of R's diagonal are taken out.
        q, r = torch.linalg.qr(torch.from_numpy(draws.normal(size=(batch, dimension, dimension))))
        moves = (q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)).to(torch.complex128)
        states = [first]
        for _ in range(length - 1):
            states.append((moves @ states[-1].unsqueeze(-1)).squeeze(-1))
        return Trajectories(torch.stack(states, dim=1), moves)
    angles = 2 * np.pi * draws.random((batch, dimension))
    if phases == "equal":
        angles = np.repeat(angles[:, :1], dimension, axis=1)
    elif phases == "half circle":
        angles /= 2
    elif phases == "harmonic":
        angles = -angles[:, :1] * np.arange(1, dimension + 1)
    turned = torch.from_numpy(np.exp(1j * angles[:, None, :] * np.arange(length)[:, None]))
    return Trajectories(first.unsqueeze(1) * turned, torch.diag_embed(torch.from_numpy(np.exp(1j * angles))))


def first_states(stream: RandomStream, batch: int, dimension: int, start: Start) -> np.ndarray:
    """First states of unit scale, complex [batch, dimension]; see `linear_dynamics`."""
    draws = stream.rng()
    shape = (batch, dimension)
    states: np.ndarray
    if start == "gaussian":
        states = draws.normal(size=shape)
    elif start == "sparse":
        # One number a sequence decides coordinate and sign, so that the first k sequences do not depend on the batch.
        place = draws.integers(2 * dimension, size=batch)
        states = np.where(np.arange(dimension) == place[:, None] // 2, 1.0 - 2.0 * (place[:, None] % 2), 0.0)
    elif start == "ones":
        states = np.ones(shape)
    elif start == "rademacher":
        states = 2.0 * draws.integers(2, size=shape) - 1.0
    elif start == "uniform":
        states = draws.uniform(-1.0, 1.0, size=shape)
    else:
        pair = draws.normal(size=(*shape, 2)) / math.sqrt(2)
        return np.ascontiguousarray(pair[..., 0] + 1j * pair[..., 1])
    return states.astype(complex)
