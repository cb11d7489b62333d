"""Attention along one axis of an image at a time, and the autoregressive stack that axial attention is built into.

An image of H x W tokens is read in raster order. Row attention mixes the W tokens of each row, column attention the H
tokens of each column: S^3 pairs each for a square of side S, instead of S^4. The autoregressive stack (Ho et al. 2019)
has *outer* layers, unmasked row attention and causal column attention in turns, whose result is shifted down by one row;
added to the tokens shifted right by one, it is read by *inner* layers of causal row attention. Outputs then depend on
exactly the tokens before them in raster order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lab.errors import LabError
from lab.models.masks import causal, full
from lab.models.mixers.heads import Head, attend, random_head, weights
from lab.models.mixers.interface import Mixer, Streams, sequence_mixer
from lab.streams import RandomStream


class Stack(NamedTuple):
    """Heads of the outer layers, a pair (row, column) each, and of the inner layers."""

    outer: Sequence[tuple[Head, Head]]
    inner: Sequence[Head]


def random_stack(stream: RandomStream, width: int, outer: int = 1, inner: int = 1, scale: float = 0.3) -> Stack:
    """A stack of random heads."""
    heads = [random_head(stream.child("head", index), width, scale) for index in range(2 * outer + inner)]
    return Stack([(heads[2 * index], heads[2 * index + 1]) for index in range(outer)], heads[2 * outer :])


def context(
    stack: Stack, image: Float[Tensor, "*batch row column width"], column_mask: Bool[Tensor, "row row"] | None = None
) -> Float[Tensor, "*batch row column width"]:
    """The outer layers: at row i what rows up to i hold. ``column_mask`` None is causal."""
    rows, columns = image.shape[-3:-1]
    down = causal(rows) if column_mask is None else column_mask
    for row, column in stack.outer:
        image = image + attend(row, image, full(columns))
        turned = image.transpose(-3, -2).contiguous()  # one copy for all three products
        image = image + attend(column, turned, down).transpose(-3, -2)
    return image


def finish(
    stack: Stack, above: Float[Tensor, "*batch row column width"], left: Float[Tensor, "*batch row column width"]
) -> Float[Tensor, "*batch row column width"]:
    """The inner layers, on the context of the rows above plus the tokens to the left."""
    image = above + left
    for row in stack.inner:
        image = image + attend(row, image, causal(image.shape[-2]))
    return image


def axial_stack(
    stack: Stack,
    image: Float[Tensor, "*batch row column width"],
    down: int = 1,
    right: int = 1,
    column_mask: Bool[Tensor, "row row"] | None = None,
) -> Float[Tensor, "*batch row column width"]:
    """The whole stack; shifts of 0 and a full column mask break it in one place each."""
    above = shifted(context(stack, image, column_mask), down, -3)
    return finish(stack, above, shifted(image, right, -2))


def shifted(values: Tensor, by: int, axis: int) -> Tensor:
    """Moved on by ``by`` places along an axis, zeros coming in."""
    if by == 0:
        return values
    kept = values.narrow(axis, 0, values.shape[axis] - by)
    return torch.cat((torch.zeros_like(values.narrow(axis, 0, by)), kept), dim=axis)


class Sample(NamedTuple):
    """Tokens [row, column] and how often the outer layers and the inner ones were run for them."""

    tokens: Int[Tensor, "row column"]
    outer_runs: int
    inner_runs: int


def sample(
    stack: Stack,
    embedding: Float[Tensor, "vocabulary width"],
    uniforms: Float[Tensor, "row column"],
    row_by_row: bool,
    stale: bool = False,
) -> Sample:
    """Tokens drawn one after the other from softmax of output . embedding, by the inverse of the distribution function.

    Args:
        stack: the network.
        embedding: of the tokens, also read out with.
        uniforms: the draws.
        row_by_row: the outer layers are run once a row, and the inner ones alone for each token; False runs everything
            for each token.
        stale: leave the context of the first row in place (an error, for comparison).
    """
    rows, columns = uniforms.shape
    tokens = torch.zeros(rows, columns, dtype=torch.int64)
    image = torch.zeros(rows, columns, embedding.shape[1], dtype=embedding.dtype)
    outer_runs, above = 0, torch.zeros_like(image)
    for i in range(rows):
        for j in range(columns):
            if not row_by_row or (j == 0 and not (stale and i)):
                above, outer_runs = shifted(context(stack, image), 1, -3), outer_runs + 1
            output = finish(stack, above[i : i + 1], shifted(image[i : i + 1], 1, -2))[0, j]
            chances = (embedding @ output).softmax(-1).cumsum(-1)
            tokens[i, j] = min(int((chances < uniforms[i, j]).sum()), len(embedding) - 1)
            image[i, j] = embedding[tokens[i, j]]
    return Sample(tokens, outer_runs, rows * columns)


def product_weights(
    row: Float[Tensor, "row column column"], column: Float[Tensor, "column row row"]
) -> Float[Tensor, "token token"]:
    """P[(i, j), (a, b)] = column_j[i, a] row_a[j, b]: row attention, then column attention of its result, as one."""
    rows, columns = row.shape[0], row.shape[1]
    return torch.einsum("jia,ajb->ijab", column, row).reshape(rows * columns, rows * columns)


@sequence_mixer(patterns=[{"name": "full", "length": 6}], arguments={"rows": 2, "columns": 3}, query=3, key=3, value=2)
class Axial(Mixer):
    """Row attention, then column attention with the same queries and keys, on images of ``rows`` x ``columns``.

    The values pass through both. Every output reads every token; it has one pattern, full.
    """

    def __init__(self, rows: int, columns: int) -> None:
        if min(rows, columns) < 1:
            raise LabError(f"An image of {rows} x {columns} tokens is empty; please raise its sides to at least 1.")
        self.rows, self.columns = rows, columns

    def parallel(
        self, streams: Streams, mask: Bool[Tensor, "token token"]
    ) -> Float[Tensor, "model batch head token size"]:
        """See the class.

        Raises:
            LabError: another pattern, or tokens that do not fill the image.
        """
        if len(mask) != self.rows * self.columns:
            raise LabError(
                f"{len(mask)} tokens do not fill an image of {self.rows} x {self.columns}; give "
                f"{self.rows * self.columns}, or other sides."
            )
        if not bool(mask.all()):
            raise LabError("Axial attention without shifts has one pattern, full; give it that one, or use AxialStack.")
        row, column = self.maps(streams)
        values = streams["value"].unflatten(-2, (self.rows, self.columns))
        return (column @ (row @ values).transpose(-3, -2)).transpose(-3, -2).flatten(-3, -2)

    def maps(self, streams: Streams) -> tuple[Tensor, Tensor]:
        """Attention weights of every row [..., row, column, column] and of every column [..., column, row, row]."""
        query, key = (streams[name].unflatten(-2, (self.rows, self.columns)) for name in ("query", "key"))
        row = weights(query, key, full(self.columns).to(query.device))
        column = weights(query.transpose(-3, -2), key.transpose(-3, -2), full(self.rows).to(query.device))
        return row, column


class AxialStack(Mixer):
    """The autoregressive stack: outputs read the tokens strictly before them, so its pattern is causal and strict.

    Args:
        stack: its heads.
        columns: tokens of a row.
    """

    streams = {"stream": None}

    def __init__(self, stack: Stack, columns: int) -> None:
        self.stack, self.columns = stack, columns

    def parallel(
        self, streams: Streams, mask: Bool[Tensor, "token token"]
    ) -> Float[Tensor, "model batch head token size"]:
        """See the class.

        Raises:
            LabError: another pattern than `lab.models.masks.causal`, or tokens that do not fill rows.
        """
        require_causal(mask, "An axial stack")
        if len(mask) % self.columns:
            raise LabError(
                f"{len(mask)} tokens are no multiple of the {self.columns} columns of this image; please fill its last row."
            )
        image = streams["stream"].unflatten(-2, (-1, self.columns))
        return axial_stack(self.stack, image).flatten(-3, -2)

    def reads(self, mask: Bool[Tensor, "token token"]) -> Bool[Tensor, "token token"]:
        """The tokens before it in raster order, without its own."""
        return mask.tril(-1)


@sequence_mixer(patterns=[{"name": "causal", "length": 6}], stream=4)
def random_axial_stack(width: int = 4, columns: int = 3, seed: int = 0) -> AxialStack:
    """`AxialStack` with random heads, one outer pair and one inner layer, for streams of ``width``."""
    return AxialStack(random_stack(RandomStream(seed, ("axial",)), width), columns)


def require_causal(mask: Tensor, name: str) -> None:
    """Refuse any pattern but the causal one.

    Raises:
        LabError: it is another one.
    """
    if mask.ndim != 2 or not torch.equal(mask, causal(len(mask)).to(mask.device)):
        raise LabError(f"{name} has its own order of tokens and one pattern, causal; give it that one.")
