r"""One attention layer with explicit weights that copies a string by counting places.

In a prompt ``BEGIN s SEPARATOR s`` with n letters the letter that comes after place t stands at place t - n, and n places before
the end stands the separator. So a head that looks n places back, and reads the separator as the end, copies every string of n
letters: all $D^n$ of them, where a state of b bits gives back $2^b$.

With ``cheating`` the head looks one place *ahead*: if the mask lets it, it is right on every string as long as the right letters
are given, and lost when it reads its own.
"""

from __future__ import annotations

import torch

from lab.domains.copying.copy_prompts import END, FIRST, SEPARATOR
from lab.errors import LabError
from lab.models.transformer import Architecture, Transformer

HARD = 60.0  # exp(-60) is 1e-26


def position_copier(letters: int, length: int, *, positions: bool = True, cheating: bool = False) -> Transformer:
    """The copier of strings of ``length`` letters out of ``letters``; its outputs are laws of the next token.

    Args:
        positions: whether it knows places; without, every place looks the same.
        cheating: look one place ahead instead of ``length`` places back.

    Raises:
        LabError: a size below 1.
    """
    if min(letters, length) < 1:
        raise LabError(f"letters = {letters} and length = {length} of a copier must be at least 1; please raise them.")
    vocabulary, places = FIRST + letters, 2 * length + 2
    size = max(vocabulary, places)
    architecture = Architecture(
        width=2 * vocabulary + places,
        layers=1,
        head_size=size,
        vocabulary=vocabulary,
        output_size=vocabulary,
        mlp_ratio=0,
        norm="none",
        bias=False,
        positions="learned",
        maximum_length=places,
    )
    symbol, answer = slice(0, vocabulary), slice(vocabulary + places, None)
    place = slice(vocabulary, vocabulary + places)
    now = torch.arange(places)
    source = now + 1 if cheating else (now - length).clamp_min(0)
    source[-1] = length + 1  # the separator, which stands for the end

    def empty(rows: int, columns: int) -> torch.Tensor:
        return torch.zeros(rows, columns, dtype=torch.float64)

    width = architecture.width
    embedding, table = empty(vocabulary, width), empty(places, width)
    embedding[:, symbol] = torch.eye(vocabulary, dtype=torch.float64)
    if positions:
        table[:, place] = torch.eye(places, dtype=torch.float64)
    query, key, value, output = empty(width, size), empty(width, size), empty(width, size), empty(size, width)
    query[place][now, source] = HARD * size**0.5
    key[place, :places] = torch.eye(places, dtype=torch.float64)
    value[symbol, :vocabulary] = torch.eye(vocabulary, dtype=torch.float64)
    value[SEPARATOR, SEPARATOR], value[SEPARATOR, END] = 0.0, 1.0
    output[:vocabulary, answer] = torch.eye(vocabulary, dtype=torch.float64)
    read_out = empty(width, vocabulary)
    read_out[answer] = torch.eye(vocabulary, dtype=torch.float64)
    return Transformer.from_weights(
        architecture,
        {
            "embedding": embedding,
            "positions": table,
            "layers.0.attention.query.weight": query,
            "layers.0.attention.key.weight": key,
            "layers.0.attention.value.weight": value,
            "layers.0.attention.output.weight": output,
            "read_out.weight": read_out,
        },
    )
