r"""Mixing by Fourier transforms: over all tokens (FNet), and over the tokens so far, as a causal convolution.

FNet adds y = Re(DFT over tokens and channels of x). Its autoregressive relative keeps n <= t in the sum over tokens,

    y_t = Re sum_{n <= t} x_n exp(-2 pi i n t / N),

a different transform for every t. Since n t = (n^2 + t^2 - (t - n)^2) / 2 it is a causal convolution between two chirps,

    y_t = Re c_t sum_{n <= t} (c_n x_n) h_{t-n},    c_n = exp(-pi i n^2 / N),    h_n = exp(+pi i n^2 / N),

and so costs two Fourier transforms of about 2 N places, and a third that depends on N alone (Bluestein's trick; the sum over
n <= t is what a zero-padded convolution computes). FNetAR (Lou et al. 2021) publishes no formula of its mask; this one is
the plain reading.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from lab.errors import LabError
from lab.models.masks import causal
from lab.models.mixers.interface import Mixer, State, Streams, sequence_mixer
from lab.models.mixers.monarch import root_of_unity
from lab.statistics import rounding_bound


def fnet(values: Float[Tensor, "*batch token width"]) -> Float[Tensor, "*batch token width"]:
    """Re of the two-dimensional transform: C_N x C_d - S_N x S_d with the tables of cosines and sines.

    >>> fnet(torch.ones(2, 2)).tolist()
    [[4.0, 0.0], [0.0, 0.0]]
    """
    return torch.fft.fft2(values).real


def fnet_by_tables(
    values: Float[Tensor, "*batch token width"], sign: float = -1.0
) -> Float[Tensor, "*batch token width"]:
    """The same by real tables: C_N x C_d + ``sign`` S_N x S_d."""
    tokens, channels = (transform_table(size) for size in values.shape[-2:])
    cosines = tokens.real @ values @ channels.real
    return cosines + sign * (tokens.imag @ values @ channels.imag)


def transform_table(length: int) -> Tensor:
    """exp(-2 pi i j k / N) [N, N]."""
    index = torch.arange(length)
    return root_of_unity(length, index.unsqueeze(1) * index)


def masked_transform(
    values: Float[Tensor, "*batch token width"], mask: Bool[Tensor, "token token"] | None = None
) -> Float[Tensor, "*batch token width"]:
    """y_t = Re sum over visible n of x_n exp(-2 pi i n t / N), by the table of N^2 cosines; None is causal."""
    length = values.shape[-2]
    visible = causal(length).to(values.device) if mask is None else mask
    return (transform_table(length).real.to(values) * visible) @ values


def masked_transform_by_prefixes(values: Float[Tensor, "*batch token width"]) -> Float[Tensor, "*batch token width"]:
    """The same, place t of the transform of the first t + 1 tokens, padded by zeros to N: N transforms."""
    length = values.shape[-2]
    rows = [torch.fft.fft(values[..., : t + 1, :], n=length, dim=-2).real[..., t, :] for t in range(length)]
    return torch.stack(rows, dim=-2)


class ChirpPlan(NamedTuple):
    """What depends on the length alone: the chirp c [N] and the transform of h [M]."""

    chirp: Tensor
    spectrum: Tensor


def chirp_plan(length: int, sign: float = 1.0, padded: bool = True) -> ChirpPlan:
    """The plan for N = ``length`` tokens, M = `padded_length`.

    Args:
        length: N.
        sign: of the exponent of h; -1 is no identity.
        padded: without padding, M = N, late tokens wrap around to early ones.
    """
    chirp = chirps(length)
    spectrum = torch.fft.fft(chirp.conj() if sign > 0 else chirp, n=padded_length(length) if padded else length)
    return ChirpPlan(chirp, spectrum)


def masked_spectrum(
    values: Float[Tensor, "*batch token width"], plan: ChirpPlan
) -> Complex[Tensor, "*batch token width"]:
    """sum_{n <= t} x_n exp(-2 pi i n t / N), the convolution between chirps: two transforms of M places a channel."""
    chirp, spectrum = (tensor.to(values.device) for tensor in plan)
    columns = values.transpose(-1, -2)  # transforms run along memory
    convolved = torch.fft.ifft(torch.fft.fft(chirp * columns, n=len(spectrum)) * spectrum)[..., : len(chirp)]
    return (chirp * convolved).transpose(-1, -2)


def masked_transform_by_chirps(
    values: Float[Tensor, "*batch token width"], sign: float = 1.0, padded: bool = True
) -> Float[Tensor, "*batch token width"]:
    """`masked_transform` as the real part of `masked_spectrum`; see `chirp_plan` for the arguments."""
    return masked_spectrum(values, chirp_plan(values.shape[-2], sign, padded)).real.to(values.dtype)


def chirps(length: int) -> Tensor:
    """c_n = exp(-pi i n^2 / N) [N], n^2 reduced modulo 2 N first, so that every digit of the angle is right."""
    return root_of_unity(2 * length, torch.arange(length) ** 2)


def padded_length(length: int) -> int:
    """The least power of 2 that holds a linear convolution of two sequences of ``length``: at least 2 N - 1.

    >>> padded_length(5)
    16
    """
    return 1 << (2 * length - 2).bit_length()


@sequence_mixer(
    patterns=[{"name": "causal", "length": 8}, {"name": "prefix_lm", "length": 8, "prefix_length": 3}],
    arguments={"length": 8},
    stream=2,
)
class MaskedFourier(Mixer):
    """y_t = Re sum_{n <= t} x_n exp(-2 pi i n t / N) for prompts of N = ``length`` tokens.

    Parallel by chirps where that is cheaper than the table, that is from `CHIRPS_FROM` tokens on; token by token through
    the real parts of all N frequencies. The table also serves any other pattern.
    """

    streams = {"stream": None}
    CHIRPS_FROM = 256

    def __init__(self, length: int) -> None:
        if length < 1:
            raise LabError(f"length = {length} of a masked Fourier transform must be at least 1; please raise it.")
        self.length = length
        self.plan = chirp_plan(length) if length >= self.CHIRPS_FROM else None

    def parallel(
        self, streams: Streams, mask: Bool[Tensor, "token token"]
    ) -> Float[Tensor, "model batch head token size"]:
        """See the class.

        Raises:
            LabError: another number of tokens than ``length``.
        """
        if len(mask) != self.length:
            raise LabError(
                f"A masked Fourier transform of length {self.length} got {len(mask)} tokens; its frequencies depend on the "
                "length, so build it for these."
            )
        if self.plan is not None and self._causal(mask):
            return masked_spectrum(streams["stream"], self.plan).real.to(streams["stream"].dtype)
        return masked_transform(streams["stream"], mask)

    def start(self, streams: Streams) -> State:
        """No token yet: sums 0 and place 0."""
        value = streams["stream"]
        sums = value.new_zeros(*value.shape[:3], self.length, value.shape[-1])
        return {"sums": sums, "written": value.new_zeros(value.shape[:3])}

    def write(self, state: State, token: Streams) -> State:
        """Adds x_n cos(2 pi n k / N) to the sum of every frequency k."""
        place = int(state["written"].flatten()[0])
        frequency = torch.arange(self.length, device=state["sums"].device)
        row = root_of_unity(self.length, place * frequency).real.to(state["sums"])
        added = row.unsqueeze(-1) * token["stream"].unsqueeze(-2)
        return {"sums": state["sums"] + added, "written": state["written"] + 1}

    def read(self, state: State, token: Streams) -> Float[Tensor, "model batch head size"]:
        """The sum whose frequency is the place of the token written last."""
        return state["sums"][..., int(state["written"].flatten()[0]) - 1, :]

    def state_size(self, sizes: Mapping[str, int], written: int) -> int:
        """N numbers a channel, whatever was written, and the place."""
        return self.length * sizes["stream"] + 1

    def forms(self, mask: Bool[Tensor, "token token"]) -> tuple[str, ...]:
        """Token by token under the causal pattern alone: a place is read as soon as it is written."""
        return ("parallel", "recurrent") if self._causal(mask) else ("parallel",)

    def reads(self, mask: Bool[Tensor, "token token"]) -> Bool[Tensor, "token token"]:
        """What the token sees, but for the zeros of the cosine (4 n t an odd multiple of N)."""
        place = torch.arange(len(mask), device=mask.device)
        quarter = 4 * place.unsqueeze(1) * place % (4 * self.length)
        return mask & (quarter != self.length) & (quarter != 3 * self.length)

    def rounding(self, streams: Streams, mask: Bool[Tensor, "token token"]) -> float:
        """Sums of N products with cosines that are right to two roundings."""
        value = streams["stream"]
        return rounding_bound(2 * (self.length + 4), float(value.abs().sum(-2).max()))

    @staticmethod
    def _causal(mask: Tensor) -> bool:
        return mask.ndim == 2 and torch.equal(mask, causal(len(mask)).to(mask.device))


def chirp_rounding(values: Float[Tensor, "*batch token width"]) -> float:
    r"""A bound of the error of `masked_transform_by_chirps` and of the table together, at every place.

    A transform of M places has a relative error of at most $\epsilon = \gamma_{7 \log_2 M + 8}$ in the 2-norm (Higham,
    *Accuracy and Stability*, section 24.1, with accurate twiddles). Two such errors enter the product A H and reach a
    place as $2 \epsilon \lVert a \rVert \lVert h \rVert$ (Cauchy-Schwarz), with $\lVert h \rVert = \sqrt N$; the last
    transform adds $\epsilon \lVert A H \rVert / \sqrt M \le \epsilon \max_k |H_k| \, \lVert a \rVert$. The table is a sum of N.
    """
    length = values.shape[-2]
    places = padded_length(length)
    peak = float(torch.fft.fft(chirps(length).conj(), n=places).abs().max())
    norm = float(torch.linalg.vector_norm(values, dim=-2).max())
    transform = rounding_bound(7 * math.log2(places) + 8, norm * (2 * math.sqrt(length) + peak))
    return transform + rounding_bound(length + 8, norm * math.sqrt(length))
