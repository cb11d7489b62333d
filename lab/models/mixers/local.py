"""Parameter-free pieces of efficient mixers: merging squares of tokens, maxima of neighbours, running averages."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lab.errors import LabError


def merge_squares(image: Float[Tensor, "*batch row column width"], side: int) -> Tensor:
    """Squares of side s become one token of s^2 times the width (Token-Shuffle, Ma et al. 2025).

    Raises:
        LabError: the sides of the image are no multiples of s.
    """
    rows, columns = image.shape[-3:-1]
    if side < 1 or rows % side or columns % side:
        raise LabError(
            f"An image of {rows} x {columns} tokens cannot be cut into squares of side {side}; give multiples of the side."
        )
    cut = image.unflatten(-3, (rows // side, side)).unflatten(-2, (columns // side, side))
    return cut.transpose(-4, -3).flatten(-3, -1)


def split_squares(merged: Float[Tensor, "*batch row column width"], side: int) -> Tensor:
    """The inverse of `merge_squares`.

    Raises:
        LabError: the width is no multiple of s^2.
    """
    if side < 1 or merged.shape[-1] % side**2:
        raise LabError(
            f"Tokens of width {merged.shape[-1]} cannot be split into squares of side {side}; give a multiple of "
            f"{side**2}."
        )
    cut = merged.unflatten(-1, (side, side, -1))  # [..., row, column, down, right, width]
    return cut.transpose(-4, -3).flatten(-5, -4).flatten(-3, -2)


def neighbour_maxima(tokens: Float[Tensor, "*batch token width"], layers: int) -> Float[Tensor, "*batch token width"]:
    """max(x_t, x_{t-1}) again and again: the maximum of a window of ``layers`` + 1 (Hilsenbek 2024, its core)."""
    for _ in range(layers):
        previous = torch.cat((tokens[..., :1, :], tokens[..., :-1, :]), dim=-2)
        tokens = torch.maximum(tokens, previous)
    return tokens


def running_mean(tokens: Float[Tensor, "*batch token width"]) -> Float[Tensor, "*batch token width"]:
    """The mean of the tokens up to each: uniform causal attention."""
    count = torch.arange(1, tokens.shape[-2] + 1, device=tokens.device).to(tokens)
    return tokens.cumsum(-2) / count.unsqueeze(-1)
