r"""Costs of mixers as exact laws: multiply-adds, and numbers saved for the backward pass, of one head and one prompt.

``cost(mixer, mask, sizes)`` is the law of a mixer's parallel form under a pattern; `lab.models.counting.count` finds the same
integers in the running mixer. What a mixer holds token by token is its own `Mixer.state_size`. A user's mixer gets a law by
``@cost.register``. In the formulas n tokens, keys of size d, values of size v, streams of width w. Saved are the streams
that a product needs again and what lies between; weights are trained, and not counted themselves.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

from torch import Tensor

from lab.errors import LabError
from lab.models.counting import Counts, transform_operations
from lab.models.mixers.autocorrelation import AutoCorrelation
from lab.models.mixers.axial import Axial, AxialStack
from lab.models.mixers.combiner import Combiner
from lab.models.mixers.fourier import MaskedFourier, padded_length
from lab.models.mixers.interface import Mixer
from lab.models.mixers.monarch import CausalMonarch, Monarch
from lab.models.mixers.patches import TwoLevelPatches
from lab.models.mixers.prob_sparse import ProbSparse
from lab.models.mixers.visible import VisibleAttention

Sizes = Mapping[str, int]


@functools.singledispatch
def cost(mixer: Mixer, mask: Tensor, sizes: Sizes) -> Counts:
    """Multiply-adds and saved numbers of one head of ``mixer`` under this pattern, for streams of these sizes.

    Raises:
        LabError: a mixer without a law.
    """
    raise LabError(
        f"There is no law of the cost of {type(mixer).__name__}; count it, or register one with cost.register."
    )


@cost.register
def visible_attention(mixer: VisibleAttention, mask: Tensor, sizes: Sizes) -> Counts:
    """p (d + v) for p visible pairs; the weights of these pairs and all streams."""
    length, pairs, key, value = len(mask), int(mask.sum()), sizes["key"], sizes["value"]
    return Counts(pairs * (key + value), pairs + length * (2 * key + value))


@cost.register
def axial(mixer: Axial, mask: Tensor, sizes: Sizes) -> Counts:
    """n (R + C) (d + v) for R rows of C tokens; both maps, the streams, and the values between rows and columns."""
    length, scores = len(mask), mixer.rows + mixer.columns
    key, value = sizes["key"], sizes["value"]
    return Counts(length * scores * (key + value), length * (2 * key + 2 * value + scores))


@cost.register
def axial_stack(mixer: AxialStack, mask: Tensor, sizes: Sizes) -> Counts:
    """Each head 3 n w^2, and 2 w for each of the n C pairs of a row layer and n R of a column layer; its input, queries, keys,
    values and weights."""
    length, width, columns = len(mask), sizes["stream"], mixer.columns
    outer, inner = len(mixer.stack.outer), len(mixer.stack.inner)
    pairs = length * (outer * (columns + length // columns) + inner * columns)
    heads = 2 * outer + inner
    return Counts(heads * 3 * length * width**2 + 2 * width * pairs, heads * 4 * length * width + pairs)


@cost.register
def two_levels(mixer: TwoLevelPatches, mask: Tensor, sizes: Sizes) -> Counts:
    """Patches of P: 3 n P w^2 + 2 (n / P) n w above, 4 n w^2 + 2 n P w inside; nine streams and both maps."""
    length, width, patch = len(mask), sizes["stream"], mixer.patch
    count = length // patch
    above = 3 * length * patch * width**2 + 2 * count * length * width
    inside = 4 * length * width**2 + 2 * length * patch * width
    return Counts(above + inside, 9 * length * width + count**2 + length * patch)


@cost.register
def combiner(mixer: Combiner, mask: Tensor, sizes: Sizes) -> Counts:
    """n' (d + v) (1 + G + s) for G segments of s tokens, n' = G s, hidden pairs computed too (logits "mean" and "mean and size").

    Raises:
        LabError: another logit, whose law is not known.
    """
    if mixer.logit not in ("mean", "mean and size"):
        raise LabError(f"There is no law of a Combiner with the logit {mixer.logit!r}; choose mean, or mean and size.")
    size, key, value = mixer.segment, sizes["key"], sizes["value"]
    count = -(-len(mask) // size)
    length = count * size
    saved = (length + count) * (2 * key + value) + length + length * (count + size)
    return Counts(length * (key + value) * (1 + count + size), saved)


@cost.register
def monarch(mixer: Monarch, mask: Tensor, sizes: Sizes) -> Counts:
    """2 n^{3/2} w; the stream before both products."""
    length, width = len(mask), sizes["stream"]
    return Counts(2 * math.isqrt(length) ** 3 * width, 2 * length * width)


@cost.register
def causal_monarch(mixer: CausalMonarch, mask: Tensor, sizes: Sizes) -> Counts:
    """4 (2 n)^{3/2} w with complex numbers; nothing but its own fixed numbers."""
    return Counts(4 * math.isqrt(2 * len(mask)) ** 3 * sizes["stream"], 0)


@cost.register
def masked_fourier(mixer: MaskedFourier, mask: Tensor, sizes: Sizes) -> Counts:
    """n^2 w by the table, which is saved; by chirps 2 w transforms of M places, which save a chirp and a filter."""
    length, width = len(mask), sizes["stream"]
    if length < mixer.CHIRPS_FROM:
        return Counts(length**2 * width, length**2)
    places = padded_length(length)
    return Counts(transform_operations(2 * width * places, places) // 2, length + places)


@cost.register
def prob_sparse(mixer: ProbSparse, mask: Tensor, sizes: Sizes) -> Counts:
    """n u d for the estimates (not saved) and u n (d + v) for the u queries that attend (queries chosen by all keys).

    Raises:
        LabError: queries chosen by past keys, which computes all pairs.
    """
    if mixer.sight != "all":
        raise LabError(
            "ProbSparse attention by past keys computes all pairs, for comparison; there is no law of its cost."
        )
    length, chosen = len(mask), mixer.sampled.shape[1]
    key, value = sizes["key"], sizes["value"]
    saved = chosen * key + length * (2 * key + value) + chosen * length
    return Counts(length * chosen * (2 * key + value), saved)


@cost.register
def auto_correlation(mixer: AutoCorrelation, mask: Tensor, sizes: Sizes) -> Counts:
    """Three real transforms of d channels; the streams, both spectra, the shares of the lags, and the values moved by each of them."""
    length, key, value = len(mask), sizes["key"], sizes["value"]
    lags = min(max(1, int(mixer.factor * math.log(length))), length)
    once = transform_operations(length * key, length) // 2
    spectra = 2 * (length // 2 + 1) * key
    return Counts(3 * once // 2, length * (2 * key + value) + spectra + lags + lags * length * value)
