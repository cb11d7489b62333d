"""What the parts share: names of the laws of the first state, sizes of the exact quadratures, rounding bounds."""

from __future__ import annotations

from lab.domains.dynamics import mesa_optimization as theory
from lab.domains.dynamics.sequences import Start
from lab.statistics import rounding_bound

SLUG, PAPER = "mesa-optimization", "zheng-2024-mesa"
SYMMETRIC: tuple[Start, ...] = ("gaussian", "sparse", "uniform", "rademacher")
SIZES = ((2, 5), (2, 4), (1, 6))
"""(d, T) of the exact quadratures"""
QUADRATURE = "rounding error of a mean over the points of the quadrature"

# A mean over P weighted sequences of sums over T tokens: P + 8 (T + 4 d) operations on numbers of the loss's size, which the
# sixth moment of the outermost Gauss-Hermite node (2.33^6 = 161) exceeds at single points.
POINTS = max(len(theory.quadrature("gaussian", dimension, length).weights) for dimension, length in SIZES)
LOSS_BOUND = rounding_bound(POINTS + 8 * (5 + 8), 1.0)
GRADIENT_BOUND = rounding_bound(POINTS + 16 * (5 + 8), 10.0)
