r"""A transformer of two layers and three heads that writes the derivation of a longest increasing subsequence.

Rows are those of `lab.domains.derivations.subsequences`: x_0 .. x_{n-1} | d_0 .. d_{n-1} | max d S. At position n + i the
network owes d_i.

* *Layer 1, two heads* look back: from the token d_j to x_j, n + 1 places before it (kept as $s_A$), and from position
  n + i to x_i, n places before it (kept as $s_B$).
* *Layer 2, one head* scores what has been written,
  $\beta\, [\,(n + 1)([s_A < s_B] + [\text{sign } |]) + d\,]$, and averages d. The comparison is bilinear,
  $\langle \mathrm{thermometer}(s_B), s_A \rangle$; the sign | is the empty candidate with d = 0, which any allowed $d_j$
  beats and every forbidden one loses against.
* The *read-out* $2 k (m + 1) - k^2$, linear in the average m, is largest at the whole number nearest to m + 1.

At the last position but one every candidate is allowed and nothing is added, so that the largest d is written. The softmax
leaves the part $e^{-\beta}$ of its weight to a candidate one step behind; with at most 2 n + 2 candidates and lengths up to n
$$|m - \mathrm{round}\, m| \le n (2 n + 2) e^{-\beta},$$
and every token is right if that is below 1/2, that is for $\beta > \ln(4 n (n + 1))$. Width, 3 V + 13 for V numbers,
is that of comparing numbers by their one-hots; positions take 6 channels at every length (`looking_back`).
"""

from __future__ import annotations

import math

import torch

from lab.domains.derivations.looking_back import position_codes, sharp, unit
from lab.domains.derivations.sequences import STOP, check_sizes
from lab.domains.derivations.subsequences import END, ZERO, row_length, vocabulary_size
from lab.models.transformer import Architecture, Transformer

NEVER = -1e4
AVERAGE = 12
"""Channel of m, the average length that layer 2 finds."""


def leak_bound(length: int, sharpness: float) -> float:
    r"""$n (2 n + 2) e^{-\beta}$: how far the average m may lie from a whole number."""
    return length * (2 * length + 2) * math.exp(-sharpness)


def least_sharpness(length: int) -> float:
    r"""$\ln(4 n (n + 1))$: above it every token is right."""
    return math.log(4 * length * (length + 1))


def subsequence_transformer(
    length: int,
    numbers: int,
    sharpness: float,
    *,
    strict: bool = True,
    shift: int = 0,
    empty_candidate: bool = True,
    dtype: torch.dtype = torch.float64,
) -> Transformer:
    r"""The network that writes everything behind the first sign |.

    Args:
        length: n.
        numbers: V; values are n + 1 .. V - 1.
        sharpness: $\beta$ of layer 2.
        strict: compare with <; otherwise with <=, which gives non-decreasing subsequences.
        shift: by how many places the first head looks past the right one; 0 is right.
        empty_candidate: whether the sign | counts as the candidate with d = 0.
        dtype: of the weights.

    Raises:
        LabError: no item.
    """
    check_sizes(length=length, numbers=numbers)
    vocabulary, positions = vocabulary_size(numbers), row_length(length, "derivation") - 1
    # Channels: codes of positions, three single positions, the sign |, d, 1, the average m; values here and copied.
    owes_end, owes_answer, owes_stop, sign, d, constant, m = range(6, AVERAGE + 1)
    values, earlier, current = 13, 13 + numbers, 13 + 2 * numbers
    width = 13 + 3 * numbers
    written = torch.arange(1, length + 1)  # the lengths d
    shown = torch.arange(length + 1, numbers)  # the values x

    embedding = torch.zeros(vocabulary, width, dtype=torch.float64)
    embedding[ZERO + shown, values + shown] = 1.0
    embedding[ZERO + written, d] = written.double()
    embedding[END, sign] = 1.0
    embedding[:, constant] = 1.0
    table = torch.zeros(positions, width, dtype=torch.float64)
    table[:, :6] = position_codes(positions, [length + 1 + shift, length])
    for channel, place in ((owes_end, 2 * length), (owes_answer, 2 * length + 1), (owes_stop, 2 * length + 2)):
        table[place, channel] = 1.0

    # One head a half of the columns; both look back in layer 1, the first alone works in layer 2.
    size = numbers + 2
    root = size**0.5
    look = sharp(positions) * root
    query, key = (torch.zeros(2, width, 2 * size, dtype=torch.float64) for _ in range(2))
    value, output = (torch.zeros(2, *shape, dtype=torch.float64) for shape in ((width, 2 * size), (2 * size, width)))
    everything = list(range(numbers))
    for head, (code, target) in enumerate(((2, earlier), (4, current))):
        columns = [head * size, head * size + 1]
        query[0] += look * unit(width, 2 * size, [code, code + 1], columns)
        key[0] += unit(width, 2 * size, [0, 1], columns)
        copied = [head * size + column for column in everything]
        value[0] += unit(width, 2 * size, [values + number for number in everything], copied)
        output[0] += unit(2 * size, width, copied, [target + number for number in everything])
    # Layer 2: thermometer of x_i against the one-hot of x_j, then | and d against the constant.
    below = torch.ones(numbers, numbers, dtype=torch.float64).tril(-1 if strict else 0)  # [current, earlier]
    scale = sharpness * root
    query[1, current : current + numbers, :numbers] = scale * (length + 1) * below
    query[1, owes_answer, :numbers] = scale * (length + 1)
    query[1, constant, numbers], query[1, constant, numbers + 1] = scale * (length + 1) * float(empty_candidate), scale
    key[1] = unit(width, 2 * size, [*(earlier + number for number in everything), sign, d], range(size))
    value[1, d, 0], output[1, 0, m] = 1.0, 1.0

    read_out = torch.zeros(width, vocabulary, dtype=torch.float64)
    bias = torch.full((vocabulary,), NEVER, dtype=torch.float64)
    steps = written.double()
    read_out[m, ZERO + written] = 2 * steps
    read_out[owes_answer, ZERO + written] = -2 * steps  # the answer is m, not m + 1
    bias[ZERO + written] = 2 * steps - steps.square()
    read_out[owes_end, END] = read_out[owes_stop, STOP] = -2 * NEVER
    architecture = Architecture(
        width=width,
        layers=2,
        heads=2,
        head_size=size,
        vocabulary=vocabulary,
        output_size=vocabulary,
        output_bias=True,
        mlp_ratio=0.0,
        norm="none",
        positions="learned",
        maximum_length=positions,
    )
    weights = {"embedding": embedding, "positions": table, "read_out.weight": read_out, "read_out.bias": bias}
    for layer in range(2):
        for name, matrix in (("query", query), ("key", key), ("value", value), ("output", output)):
            weights[f"layers.{layer}.attention.{name}.weight"] = matrix[layer]
    return Transformer.from_weights(architecture, weights, dtype=dtype)
