r"""Two attention layers with explicit weights that say what followed the last g tokens when they first stood there.

The circuit of Jelassi et al. (2024) for copying; with g = 1 it is the induction head, which answers multi-query associative
recall exactly, since the first occurrence of a key has its value behind it. Coordinates of the residual stream, for V tokens
and T places:

    symbol    V      one-hot, from the embedding
    copies    g V    in block k = 1 .. g the token k places before, from layer 1
    position  T      one-hot, from the table of positions
    order     1      the place itself
    short     1      1 at the first g places, which have no g tokens before them
    constant  1      1
    answer    V      what layer 2 reads

Layer 1 has g heads; head k of place i looks at place i - k. Layer 2 compares the last g tokens (symbol, copies 1 .. g - 1)
with the g tokens before every place (copies 1 .. g), at a score of $\beta$ for each that agrees, less $\epsilon$ for each place that
lies later, and reads the symbol that stands there. With $\epsilon$ = ``HARD`` and $\beta = (T + 1)\,\epsilon$ the
first full match takes all the
attention but $T e^{-\epsilon}$, far below rounding. No place looks ahead, so causal and prefix masks give the same.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lab.errors import LabError
from lab.models.transformer import Architecture, Transformer

HARD = 60.0  # exp(-60) is 1e-26


def gram_copier(vocabulary: int, length: int, gram: int = 1, sharpness: float = HARD) -> Transformer:
    r"""The circuit for tokens 0 .. V - 1 and up to ``length`` places; its outputs are laws of the next token.

    Args:
        vocabulary: V.
        length: T.
        gram: g, at least 1.
        sharpness: $\epsilon$; smaller values blur.

    Raises:
        LabError: a size below 1, or a sharpness outside (0, HARD].
    """
    if min(vocabulary, length, gram) < 1 or not 0 < sharpness <= HARD:
        raise LabError(
            f"vocabulary = {vocabulary}, length = {length} and gram = {gram} must be at least 1 and sharpness = {sharpness} "
            f"in (0, {HARD:g}]; please change them."
        )
    blocks = [slice(start * vocabulary, (start + 1) * vocabulary) for start in range(gram + 1)]  # symbol, copies
    position = slice(blocks[-1].stop, blocks[-1].stop + length)
    order, short, constant = range(position.stop, position.stop + 3)
    answer = slice(constant + 1, constant + 1 + vocabulary)
    size = max(length, gram * vocabulary + 2, vocabulary)
    architecture = Architecture(
        width=answer.stop,
        layers=2,
        heads=gram,
        head_size=size,
        vocabulary=vocabulary,
        output_size=vocabulary,
        mlp_ratio=0,
        norm="none",
        bias=False,
        positions="learned",
        maximum_length=length,
    )
    width, root = answer.stop, size**0.5  # attention divides scores by the root
    symbols, places = torch.eye(vocabulary).double(), torch.arange(length)

    embedding = torch.zeros(vocabulary, width).double()
    embedding[:, blocks[0]] = symbols
    table = torch.zeros(length, width).double()
    table[:, position] = torch.eye(length).double()
    table[:, order], table[:, short], table[:, constant] = places.double(), (places < gram).double(), 1.0

    first = {name: torch.zeros(width, gram, size).double() for name in ("query", "key", "value")}
    first_output = torch.zeros(gram, size, width).double()
    for head in range(gram):
        source = (places - head - 1).clamp_min(0)
        first["query"][position, head, :length][places, source] = HARD * root
        first["key"][position, head, :length] = torch.eye(length).double()
        first["value"][blocks[0], head, :vocabulary] = symbols
        first_output[head, :vocabulary, blocks[head + 1]] = symbols

    second = {name: torch.zeros(width, gram, size).double() for name in ("query", "key", "value")}
    second_output = torch.zeros(gram, size, width).double()
    match = (length + 1) * sharpness
    for offset in range(gram):
        part = slice(offset * vocabulary, (offset + 1) * vocabulary)
        second["query"][blocks[offset], 0, part] = match * root * symbols
        second["key"][blocks[offset + 1], 0, part] = symbols
    # A constant query meets the order of a place, and the mark of one that has no full gram before it.
    second["query"][constant, 0, gram * vocabulary] = -sharpness * root
    second["key"][order, 0, gram * vocabulary] = 1.0
    second["query"][constant, 0, gram * vocabulary + 1] = -(gram + 1) * match * root
    second["key"][short, 0, gram * vocabulary + 1] = 1.0
    second["value"][blocks[0], 0, :vocabulary] = symbols
    second_output[0, :vocabulary, answer] = symbols

    weights = {"embedding": embedding, "positions": table}
    for depth, (matrices, output) in enumerate(((first, first_output), (second, second_output))):
        for name, matrix in matrices.items():
            weights[f"layers.{depth}.attention.{name}.weight"] = matrix.flatten(1)
        weights[f"layers.{depth}.attention.output.weight"] = output.flatten(0, 1)
    weights["read_out.weight"] = torch.zeros(width, vocabulary).double()
    weights["read_out.weight"][answer] = symbols
    return Transformer.from_weights(architecture, weights)


def next_token_law(
    copier: Transformer, tokens: Int[Tensor, "batch token"], mask: Bool[Tensor, "*pattern token token"]
) -> Float[Tensor, "batch token vocabulary"]:
    """The law of the next token after each token; uniform nonsense where no gram matches."""
    with torch.no_grad():
        return copier(tokens.unsqueeze(0), mask)[0]
