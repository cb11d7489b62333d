r"""Auto-correlation: delays of the whole series in place of weights of its tokens (Autoformer, Wu et al. 2021).

    corr[tau] = sum_t q_{t + tau} . k_t (circular),    y_t = sum over the best tau of w_tau v_{t + tau},

the lags of largest correlation, averaged over channels, weighed by the softmax of these correlations.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lab.errors import LabError
from lab.models.mixers.interface import Mixer, Streams


def correlations(
    query: Float[Tensor, "*batch token width"], key: Float[Tensor, "*batch token width"], conjugate: bool = True
) -> Float[Tensor, "*batch token width"]:
    """corr[tau] of every channel, by transforms (Wiener-Khinchin); without the conjugate it is a convolution."""
    length = query.shape[-2]
    second = torch.fft.rfft(key, dim=-2)
    product = torch.fft.rfft(query, dim=-2) * (second.conj() if conjugate else second)
    return torch.fft.irfft(product, n=length, dim=-2)


def correlations_by_sums(
    query: Float[Tensor, "*batch token width"], key: Float[Tensor, "*batch token width"]
) -> Float[Tensor, "*batch token width"]:
    """The same, summed lag by lag."""
    length = query.shape[-2]
    return torch.stack([(query.roll(-lag, -2) * key).sum(-2) for lag in range(length)], dim=-2)


def best_lag(series: Float[Tensor, "*batch token"]) -> Tensor:
    """The lag > 0 of largest correlation of a series with itself."""
    return correlations(series.unsqueeze(-1), series.unsqueeze(-1))[..., 1:, 0].argmax(-1) + 1


def auto_correlation(
    query: Float[Tensor, "*batch token width"],
    key: Float[Tensor, "*batch token width"],
    value: Float[Tensor, "*batch token size"],
    factor: float = 1.0,
) -> Float[Tensor, "*batch token size"]:
    """Values moved back by each of the int(c ln L) best lags (at least 1), mixed by the softmax of their correlations.

    Raises:
        LabError: a factor that is not positive.
    """
    if not factor > 0:
        raise LabError(f"factor = {factor} of auto-correlation must be positive; please raise it.")
    length = query.shape[-2]
    number = min(max(1, int(factor * math.log(length))), length)
    strength, lags = correlations(query, key).mean(-1).topk(number, dim=-1)
    share = strength.softmax(-1)
    place = (torch.arange(length, device=lags.device) + lags.unsqueeze(-1)) % length  # [..., lag, token]
    index = place.unsqueeze(-1).expand(*place.shape, value.shape[-1])
    moved = value.unsqueeze(-3).expand(*place.shape, value.shape[-1]).gather(-2, index)
    return (share.unsqueeze(-1).unsqueeze(-1) * moved).sum(-3)


class AutoCorrelation(Mixer):
    """`auto_correlation` as a mixer; it has one pattern, full, whatever its released code is handed."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def parallel(
        self, streams: Streams, mask: Bool[Tensor, "token token"]
    ) -> Float[Tensor, "model batch head token size"]:
        """See the class.

        Raises:
            LabError: another pattern than `lab.models.masks.full`.
        """
        if not bool(mask.all()):
            raise LabError("Auto-correlation reads the whole series and hides nothing; its one pattern is full.")
        return auto_correlation(streams["query"], streams["key"], streams["value"], self.factor)
