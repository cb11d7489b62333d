"""What the parts share: random streams, dependencies of outputs on inputs, and distances."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lab.models import masks
from lab.streams import stream

SLUG = "structured-mixers"
COUNTING = "integers, counted"
BOOLEANS = "equality of booleans: a hidden weight is exactly 0"


def normal(name: str, *shape: int) -> Tensor:
    """Independent normal numbers, float64."""
    return torch.from_numpy(stream(0, name).rng().standard_normal(shape))


def largest(difference: Tensor) -> float:
    """Largest absolute entry."""
    return float(difference.abs().max())


def dependencies(function: Callable[[Tensor], Tensor], tokens: Tensor) -> Tensor:
    """Largest |d y_i / d x_j| over coordinates [token, token], by autograd at ``tokens`` [token, width]."""
    return masks.flow(lambda x, _: function(x[0])[None], tokens, masks.causal(len(tokens)))


def largest_distance(first: Tensor, second: Tensor) -> float:
    """Largest total variation between rows that are distributions."""
    return float((first - second).abs().sum(-1).max() / 2)
