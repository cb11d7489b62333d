"""Feature maps of linear attention: what becomes of queries and keys before their products are taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from lab.errors import LabError, nearest


class FeatureMap(NamedTuple):
    """A map of each vector, the size of its result, and whether the weights phi(q) . phi(k) are never negative."""

    map: Callable[[Tensor], Tensor]
    size: Callable[[int], int]
    never_negative: bool


def _elu(x: Tensor) -> Tensor:
    return F.elu(x) + 1


def _pairs(x: Tensor) -> Tensor:
    return (x.unsqueeze(-1) * x.unsqueeze(-2)).flatten(-2)


def _silu(x: Tensor) -> Tensor:
    y = F.silu(x) + 0.5
    return y / y.norm(dim=-1, keepdim=True)


def _same_size(size: int) -> int:
    return size


FEATURE_MAPS = {
    "elu": FeatureMap(_elu, _same_size, True),  # elu(x) + 1, that is x + 1 above 0 and exp(x) below
    "exp": FeatureMap(lambda x: x.exp(), _same_size, True),
    "silu": FeatureMap(_silu, _same_size, True),  # silu(x) + 1/2 > 0.22, divided by its length (LION-D and -S)
    "identity": FeatureMap(lambda x: x, _same_size, False),
    "quadratic": FeatureMap(_pairs, lambda size: size**2, True),  # vec(x x^T), whose weights are (q . k)^2
}


def feature_map(name: str) -> FeatureMap:
    """The feature map of this name.

    Raises:
        LabError: there is none.

    >>> feature_map("quadratic").size(3)
    9
    """
    if name not in FEATURE_MAPS:
        raise LabError(
            f"There is no feature map {name!r}{nearest(name, FEATURE_MAPS)}; choose one of {', '.join(FEATURE_MAPS)}."
        )
    return FEATURE_MAPS[name]


def normalisable(name: str) -> FeatureMap:
    """The feature map of this name, where outputs are divided by the sum of the weights.

    Raises:
        LabError: there is none, or its weights can be negative, so that their sum can be 0.
    """
    chosen = feature_map(name)
    if not chosen.never_negative:
        positive = ", ".join(key for key, value in FEATURE_MAPS.items() if value.never_negative)
        raise LabError(
            f"The weights of the feature map {name!r} can be negative but their sum divides the outputs; choose "
            f"{positive}, or do not normalise."
        )
    return chosen
