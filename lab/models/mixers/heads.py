"""One head of softmax attention with weights of its own, from which the layered mixers are built."""

from __future__ import annotations

import math
from typing import NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor, from_numpy

from lab.streams import RandomStream


class Head(NamedTuple):
    """Query, key and value matrices [width, width], applied as x @ matrix."""

    query: Tensor
    key: Tensor
    value: Tensor


def random_head(stream: RandomStream, width: int, scale: float = 0.3) -> Head:
    """Independent normal matrices of standard deviation ``scale``."""
    return Head(*(from_numpy(stream.rng().standard_normal((3, width, width))) * scale))


def weights(
    query: Float[Tensor, "*batch token size"],
    key: Float[Tensor, "*batch seen size"],
    mask: Bool[Tensor, "*pattern token seen"],
) -> Float[Tensor, "*batch token seen"]:
    """softmax over visible j of q_i . k_j / sqrt(size), exactly 0 where the mask is False; every row sees something."""
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    return scores.masked_fill(~mask, -math.inf).softmax(-1)


def attend(
    head: Head, values: Float[Tensor, "*batch token width"], mask: Bool[Tensor, "token token"]
) -> Float[Tensor, "*batch token width"]:
    """What the head adds to the stream ``values``."""
    return weights(values @ head.query, values @ head.key, mask) @ (values @ head.value)
