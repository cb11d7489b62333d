r"""Monarch matrices of order 2: block-diagonal maps between two transpositions of an m x m table, N = m^2.

    t[j1, i0] = sum_j0 R[j1, i0, j0] u[j1 + m j0],     y[i1 m + i0] = sum_j1 L[i0, i1, j1] t[j1, i0],

that is M = P L P R P with P the transposition (Fu et al. 2023, Monarch Mixer): 2 N^{3/2} numbers and as many
multiply-adds a channel instead of N^2. The discrete Fourier transform is one of them, and so is any basis of polynomials
q_{j1 + m j0}(Z) = l_{j1}(Z) r_{j1,j0}(Z^m) evaluated at the N-th roots of unity; with the right powers in it,
M^{-1}(M k * M u) is a causal map of u.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from lab.errors import LabError
from lab.models.masks import causal
from lab.models.mixers.interface import Mixer, Streams, sequence_mixer
from lab.streams import RandomStream


class Factors(NamedTuple):
    """The blocks of a Monarch matrix: left L [i0, i1, j1] and right R [j1, i0, j0], each m blocks of m x m."""

    left: Tensor
    right: Tensor

    @property
    def side(self) -> int:
        """m."""
        return self.left.shape[-1]


def side_of(length: int) -> int:
    """m of N = m^2 = ``length``.

    Raises:
        LabError: ``length`` is no square of at least 1.
    """
    root = math.isqrt(max(length, 0))
    if length < 1 or root * root != length:
        nearest = max(1, round(math.sqrt(max(length, 0)))) ** 2
        raise LabError(
            f"A Monarch matrix of order 2 cannot mix {length} tokens, which is no square; pad or cut them to {nearest}."
        )
    return root


def multiply(factors: Factors, values: Tensor) -> Tensor:
    """M u along the tokens of ``values`` [..., N, width], by blocks: 2 N^{3/2} multiply-adds a channel.

    Raises:
        LabError: N is not the square of the side of the blocks.
    """
    side = _fitting(factors, values)
    table = values.unflatten(-2, (side, side)).to(torch.result_type(factors.left, values))  # [..., j0, j1, width]
    inner = factors.right @ table.transpose(-3, -2)  # [..., j1, i0, width]
    return (factors.left @ inner.transpose(-3, -2)).transpose(-3, -2).flatten(-3, -2)  # [..., i0, i1] to [..., i1, i0]


def inverse(factors: Factors) -> Factors:
    """The blocks of M^{-1} = P R^{-1} P L^{-1} P, a Monarch matrix again: R^{-1} on the left and L^{-1} on the right."""
    return Factors(torch.linalg.inv(factors.right), torch.linalg.inv(factors.left))


def dense(factors: Factors) -> Tensor:
    """The matrix M [N, N] of these blocks, M = P L P R P written out."""
    side = factors.side
    place = torch.arange(side * side).view(side, side).T.flatten()
    transposition = torch.eye(side * side, dtype=factors.left.dtype)[place]
    left, right = (torch.block_diag(*blocks) for blocks in factors)
    return transposition @ left @ transposition @ right @ transposition


def fourier_factors(length: int) -> Factors:
    r"""The discrete Fourier transform exp(-2 pi i j k / N): R = w_m^{i0 j0}, L = w_N^{(i1 m + i0) j1} with the twiddles.

    Raises:
        LabError: ``length`` is no square.
    """
    side = side_of(length)
    index = torch.arange(side)
    output = index * side + index.unsqueeze(1)  # [i0, i1]
    left = root_of_unity(length, output.unsqueeze(-1) * index)
    right = root_of_unity(side, index.unsqueeze(1) * index).expand(side, side, side)
    return Factors(left, right)


def random_factors(stream: RandomStream, length: int) -> Factors:
    """Independent normal blocks of variance 1 / m, real.

    Raises:
        LabError: ``length`` is no square.
    """
    side = side_of(length)
    left, right = torch.from_numpy(stream.rng().standard_normal((2, side, side, side))) / math.sqrt(side)
    return Factors(left, right)


class Polynomials(NamedTuple):
    """Coefficients of l_{j1} [j1, power] and r_{j1,j0} [j1, j0, power], m powers each."""

    left: Tensor
    right: Tensor


def polynomial_factors(basis: Polynomials) -> Factors:
    """The Monarch matrix with M[i, j1 + m j0] = l_{j1}(w_N^i) r_{j1,j0}(w_N^{i m})."""
    side = basis.left.shape[-1]
    index = torch.arange(side)
    output = index * side + index.unsqueeze(1)  # [i0, i1]
    at_output = root_of_unity(side * side, output.unsqueeze(-1) * index)  # [i0, i1, power]
    at_block = root_of_unity(side, index.unsqueeze(1) * index)  # [i0, power]
    left = at_output @ basis.left.to(at_output.dtype).T
    right = torch.einsum("ip,jkp->jik", at_block, basis.right.to(at_block.dtype))
    return Factors(left, right)


def causal_polynomials(stream: RandomStream, length: int, scale: float = 0.3, least: bool = True) -> Polynomials:
    """A random basis whose products keep the order of the tokens.

    l_{j1} has powers j1 .. m - 1 and r_{j1,j0} powers j0 .. m / 2 - 1 (j0 .. m - 1 for j0 >= m / 2), the lowest with
    coefficient 1 and the others normal of standard deviation ``scale``. Then q_i q_j is divisible by Z^{i + j} and, for
    i and j below N / 2, has a degree below N: it lies in the span of the q_l with l >= i + j and does not wrap around.

    Args:
        length: N, the square of an even number.
        least: False lets every polynomial begin at power 0, with which products may reach back.

    Raises:
        LabError: ``length`` is not the square of an even number.
    """
    side = side_of(length)
    if side % 2:
        raise LabError(
            f"A causal Monarch map of {length} tokens has the odd side {side} but needs an even one, since half of its "
            f"places are padding; use {(side + 1) ** 2} tokens."
        )
    rng, power = stream.rng(), torch.arange(side)
    first = power.unsqueeze(1)  # lowest power of the polynomial in each row
    upper = (power.unsqueeze(1) >= side // 2) | (power < side // 2)
    left, right = (torch.from_numpy(rng.standard_normal(shape)) * scale for shape in [(side, side), (side,) * 3])
    unit = torch.eye(side, dtype=torch.float64)
    left = torch.where(power > first, left, unit) if least else left + unit
    right = torch.where(power > first, right, unit) if least else right + unit
    return Polynomials(left, right * upper)


def monomials(length: int) -> Polynomials:
    """l_{j1} = Z^{j1} and r_{j1,j0} = Z^{j0}: the Fourier transform, so that the causal map is a plain convolution.

    Raises:
        LabError: ``length`` is no square.
    """
    side = side_of(length)
    unit = torch.eye(side, dtype=torch.float64)
    return Polynomials(unit, unit.expand(side, side, side))


def mixed(factors: Factors, kernel: Tensor, values: Tensor, padded: bool = True) -> Tensor:
    """M^{-1} (M k * M u), u and k [..., n, width] padded by zeros to N = 2 n tokens, its first n tokens.

    Causal in u and in k for `causal_polynomials`. ``padded`` False takes u and k as they are, n = N: with it the last
    tokens wrap around to the first.

    Raises:
        LabError: n is not half the size of the matrix (the whole of it without padding).
    """
    length = values.shape[-2]
    if padded:
        rows = (0, 0, 0, length)
        kernel, values = torch.nn.functional.pad(kernel, rows), torch.nn.functional.pad(values, rows)
    product = multiply(inverse(factors), multiply(factors, kernel) * multiply(factors, values))
    return product.real[..., :length, :]


def parameter_count(length: int) -> int:
    """2 N^{3/2} numbers in the blocks.

    Raises:
        LabError: ``length`` is no square.
    """
    return 2 * side_of(length) ** 3


def root_of_unity(order: int, power: Tensor) -> Complex[Tensor, "..."]:
    """exp(-2 pi i power / order), the power reduced first so that large ones lose no digits, quarter turns exact."""
    quarters, rest = 4 * (power % order) // order, 4 * (power % order) % order
    angle = -0.5 * math.pi * rest.double() / order
    cosine, sine = angle.cos(), angle.sin()
    turn = quarters % 2 == 1  # one quarter turn back: (c, s) becomes (s, -c)
    cosine, sine = torch.where(turn, sine, cosine), torch.where(turn, -cosine, sine)
    half = torch.where(quarters >= 2, -1.0, 1.0)
    return torch.complex(half * cosine, half * sine)


class Monarch(Mixer):
    """The map M along the tokens, the same for every channel; each output reads every token.

    Args:
        factors: real blocks.
    """

    streams = {"stream": None}

    def __init__(self, factors: Factors) -> None:
        self.factors = factors

    def parallel(
        self, streams: Streams, mask: Bool[Tensor, "token token"]
    ) -> Float[Tensor, "model batch head token size"]:
        """M u.

        Raises:
            LabError: another pattern than `lab.models.masks.full`, or tokens that are not m^2.
        """
        if not bool(mask.all()):
            raise LabError(
                "A Monarch matrix mixes all tokens with all; give it the pattern full, or use CausalMonarch."
            )
        return multiply(self.factors, streams["stream"])


class CausalMonarch(Mixer):
    """M^{-1} (M k * M u) with the factors of `causal_polynomials` and a kernel k [n, size] of its own.

    Args:
        factors: complex blocks of N = 2 n places.
        kernel: one number a token and channel.
    """

    streams = {"stream": None}

    def __init__(self, factors: Factors, kernel: Float[Tensor, "token size"]) -> None:
        padded = torch.nn.functional.pad(kernel, (0, 0, 0, kernel.shape[0]))
        self.factors, self.back, self.gain = factors, inverse(factors), multiply(factors, padded)

    def parallel(
        self, streams: Streams, mask: Bool[Tensor, "token token"]
    ) -> Float[Tensor, "model batch head token size"]:
        """See the class.

        Raises:
            LabError: another pattern than `lab.models.masks.causal`, or tokens that are not half of the places.
        """
        if not torch.equal(mask, causal(len(mask)).to(mask.device)):
            raise LabError("A causal Monarch map has one pattern, causal; give it that one.")
        length = len(mask)
        padded = torch.nn.functional.pad(streams["stream"], (0, 0, 0, length))
        return multiply(self.back, self.gain * multiply(self.factors, padded)).real[..., :length, :]


@sequence_mixer(patterns=[{"name": "full", "length": 9}], stream=2)
def random_monarch(length: int = 9, seed: int = 0) -> Monarch:
    """`Monarch` with random blocks for ``length`` tokens."""
    return Monarch(random_factors(RandomStream(seed, ("monarch",)), length))


def _fitting(factors: Factors, values: Tensor) -> int:
    length, side = values.shape[-2], factors.side
    if side_of(length) != side:
        raise LabError(
            f"These Monarch blocks of side {side} mix {side**2} tokens but got {length}; give so many, or other blocks."
        )
    return side
