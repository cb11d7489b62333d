"""What the parts share: names, laws of the first state, and the rounding error of a stationary point."""

from __future__ import annotations

import torch
from torch import Tensor

from lab.domains.dynamics import mesa_optimization as theory
from lab.domains.dynamics.mesa_layer import MesaLayer
from lab.domains.dynamics.sequences import Start
from lab.statistics import rounding_bound

SLUG, PAPER = "mesa-optimization", "zheng-2024-mesa"
SYMMETRIC: tuple[Start, ...] = ("gaussian", "sparse", "uniform", "rademacher")
# Steps of gradient descent small enough for the curvature 2 (T - 2) k_1 of each law at d = 2, T = 5.
RATES: dict[Start, float] = {"gaussian": 0.02, "sparse": 0.2, "uniform": 0.3, "rademacher": 0.1, "ones": 0.03}
SCORED = ("all", "from P on")
"""which positions ask: 2 .. T - 1, or P .. T - 1"""
STATIONARY = "rounding error of a gradient that is a mean over the quadrature, over the curvature"


def diagonal_layers(dimension: int, keys: tuple[float, ...], values: tuple[float, ...]) -> MesaLayer:
    """Layers with diagonal weights a of ``keys`` and b of ``values``."""
    return MesaLayer.diagonal(
        dimension, torch.tensor(keys, dtype=torch.float64), torch.tensor(values, dtype=torch.float64)
    )


def first_positions(prefix_length: int) -> Tensor:
    """The first scored position for each way to score."""
    return torch.tensor([2, prefix_length])


def exact_bound(dimension: int, length: int) -> float:
    """Rounding bound of a stationary point of the exact loss.

    The gradient is a mean over the points of the quadrature; its error moves the minimum by at most the inverse
    curvature, which is above 1/2 for the laws here, and acts on both factors of c.
    """
    points = len(theory.quadrature("gaussian", dimension, length).weights)
    return rounding_bound(4 * (points + 16 * (length + 4 * dimension)), 10.0)
