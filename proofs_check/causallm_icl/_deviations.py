"""Deviations beside their rounding bounds: the worst prompt of each is kept, and the worst of all gives evidence.

It stands apart from ``_shared``, which sampled measurements import: what is added here makes none of them stale.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
import xarray as xr
from torch import Tensor

from lab import Evidence
from lab.domains.regression.causal_recursions import causal_rate
from lab.domains.regression.gradient_descent import prefix_rate
from lab.labels import LabelledArrays, labelled
from proofs_check.causallm_icl._shared import SHAPES, late_rate, rate_tolerance, within

# For each quantity how far two computations of it lie apart, and what rounding may leave between them, [batch] both.
Deviations = Mapping[str, tuple[Tensor, Tensor]]
Shape = tuple[int, int]

DETERMINED = tuple((dimension, context) for dimension, context in SHAPES if context > dimension)
"""the shapes with more examples than dimensions"""

COEFFICIENTS = ("weights", "fixed point", "error map")
"""what `coefficients_and_map` compares, in its order"""

RATES = {"prefix": prefix_rate, "causal": causal_rate}
FRACTIONS = {f"rate at {percent} % of the limit": percent / 100 for percent in (25, 95, 105)}


def shape_name(shape: Shape) -> str:
    """The label of a shape of prompts, (dimension, examples)."""
    dimension, context = shape
    return f"d={dimension} n={context}"


def by_name(names: Iterable[str], deviations: Iterable[Tensor], bounds: Iterable[Tensor]) -> Deviations:
    """Lists of deviations and bounds as a mapping."""
    return dict(zip(names, zip(deviations, bounds, strict=True), strict=True))


def worst_prompts(by_shape: Mapping[Shape, Deviations]) -> LabelledArrays:
    """Of every shape and quantity the deviation and bound of the prompt with the largest ratio of the two.

    A quantity that is not compared at a shape is not a number there.
    """
    quantities = list(dict.fromkeys(name for deviations in by_shape.values() for name in deviations))
    pairs = [
        [_worst(*deviations[name]) if name in deviations else (math.nan, math.nan) for name in quantities]
        for deviations in by_shape.values()
    ]
    deviation, bound = torch.tensor(pairs, dtype=torch.float64).unbind(-1)
    axes = {"shape": [shape_name(shape) for shape in by_shape], "quantity": quantities}
    return {"deviation": labelled(deviation, **axes), "bound": labelled(bound, **axes)}


def _worst(deviation: Tensor, bound: Tensor) -> tuple[float, float]:
    place = int((deviation / bound).argmax())
    return float(deviation[place]), float(bound[place])


def within_bounds(measured: xr.Dataset, origin: str) -> Evidence:
    """Evidence that every ``deviation`` is within its ``bound``; the worst ratio speaks for all."""
    deviation, bound = (torch.from_numpy(measured[name].values.ravel()) for name in ("deviation", "bound"))
    return within([deviation], [bound], origin)


def late_rates(
    x: Tensor, matrix: Tensor, error: Tensor, limit: Tensor, *, limit_factor: float, rate: str
) -> Deviations:
    r"""The late rate of $e \leftarrow e (I - s M)$ over its law, as a logarithm, at 25 %, 95 % and 105 % of a limit.

    Infinite where errors shrink at a step above ``limit_factor`` times the limit, or grow below it.

    Args:
        x: inputs [batch, n, d].
        matrix: M, [batch, k, k].
        error: the first error, [batch, k].
        limit: the step up to which errors shrink, [batch].
        rate: whose law, "prefix" or "causal".
    """
    compared = {}
    for name, fraction in FRACTIONS.items():
        step_size = fraction * limit
        error_map = torch.eye(matrix.shape[-1], dtype=x.dtype) - step_size[:, None, None] * matrix
        # Both rates depend on s through sqrt(s) x only, which makes room for a step of its own in each prompt.
        expected = RATES[rate](step_size.sqrt()[:, None, None] * x, 1.0)
        measured = late_rate(error_map, error)
        stable = fraction < limit_factor
        deviation = torch.where((measured < 1) == stable, (measured / expected).log().abs(), math.inf)
        compared[name] = deviation, rate_tolerance(error_map, error)
    return compared
