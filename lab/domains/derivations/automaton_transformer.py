r"""Transformers of one layer that run any automaton a step at a time, or count parity at once, with explicit weights.

**Step by step.** The row is w_0 .. w_{n-1} | s_1 .. s_n (`lab.domains.derivations.automata`). At position n + i stands the
state s_i (the start at |), and n places back the letter w_i. One attention head copies it; one hidden unit of the MLP for
every (state, letter), $\mathrm{relu}(e_s + e_a - 1)$, looks the next state up. Width and weights of the MLP do not depend
on n: S states and k letters need 2 S + 2 k + 5 channels and S k hidden units, at every length.

**At once.** Parity can also be had without a derivation: uniform attention over the letters gives the share of ones,
and a sawtooth of n hidden units, $\sum_{j<n} c_j\, \mathrm{relu}(\#_1 - j)$ with $c$ = 1, -2, 2, -2, ..., its parity. That takes a hidden
unit for every letter, and it serves commutative counts only.
"""

from __future__ import annotations

import torch

from lab.domains.derivations.automata import END, LETTERS, Table, check_table, vocabulary_size
from lab.domains.derivations.looking_back import position_codes, sharp, unit
from lab.domains.derivations.sequences import STOP, check_sizes
from lab.models.transformer import Architecture, Transformer

LOGIT = 40.0
"""Logit of the right state over all others."""


def automaton_transformer(
    table: Table, length: int, *, shift: int = 0, dtype: torch.dtype = torch.float64
) -> Transformer:
    """The network that writes the run of ``table`` behind every word of ``length`` letters, and a stop token.

    Args:
        table: the machine.
        length: n.
        shift: by how many places it looks past the right letter; 0 is right.
        dtype: of the weights.

    Raises:
        LabError: a transition to no state, or no letters.
    """
    check_table(table)
    check_sizes(length=length)
    states, letters = table.shape
    vocabulary, positions = vocabulary_size(table), 2 * length + 1
    # Channels: position codes, last position, letter here, state here, letter copied, next state.
    last, letter, state = 4, 5, 5 + letters
    copied, next_state = state + states, state + states + letters
    width = next_state + states
    embedding = torch.zeros(vocabulary, width, dtype=torch.float64)
    embedding[LETTERS + torch.arange(letters), letter + torch.arange(letters)] = 1.0
    embedding[LETTERS + letters + torch.arange(states), state + torch.arange(states)] = 1.0
    embedding[END, state] = 1.0  # the run begins in state 0
    table_of_positions = torch.zeros(positions, width, dtype=torch.float64)
    table_of_positions[:, :4] = position_codes(positions, [length + shift])
    table_of_positions[-1, last] = 1.0

    size = max(2, letters)
    rows = range(letters)
    pairs = torch.cartesian_prod(torch.arange(states), torch.arange(letters))
    hidden = states * letters
    into = torch.zeros(width, hidden, dtype=torch.float64)
    into[state + pairs[:, 0], torch.arange(hidden)] = 1.0
    into[copied + pairs[:, 1], torch.arange(hidden)] = 1.0
    out = unit(hidden, width, torch.arange(hidden), next_state + table[pairs[:, 0], pairs[:, 1]])
    read_out = torch.zeros(width, vocabulary, dtype=torch.float64)
    read_out[next_state + torch.arange(states), LETTERS + letters + torch.arange(states)] = LOGIT
    read_out[last, STOP] = 2 * LOGIT
    architecture = Architecture(
        width=width,
        layers=1,
        heads=1,
        head_size=size,
        vocabulary=vocabulary,
        output_size=vocabulary,
        mlp_ratio=hidden / width,
        activation="relu",
        norm="none",
        positions="learned",
        maximum_length=positions,
    )
    return Transformer.from_weights(
        architecture,
        {
            "embedding": embedding,
            "positions": table_of_positions,
            "layers.0.attention.query.weight": unit(width, size, [2, 3], [0, 1]) * (sharp(positions) * size**0.5),
            "layers.0.attention.key.weight": unit(width, size, [0, 1], [0, 1]),
            "layers.0.attention.value.weight": unit(width, size, [letter + a for a in rows], rows),
            "layers.0.attention.output.weight": unit(size, width, rows, [copied + a for a in rows]),
            "layers.0.mlp.hidden.weight": into,
            "layers.0.mlp.hidden.bias": torch.full((hidden,), -1.0, dtype=torch.float64),
            "layers.0.mlp.output.weight": out,
            "read_out.weight": read_out,
        },
        dtype=dtype,
    )


def parity_at_once(length: int, *, units: int | None = None, dtype: torch.dtype = torch.float64) -> Transformer:
    """The network that names the parity of words of ``length`` bits at the sign |, without a derivation.

    Its tokens are those of `automaton_transformer` for the parity machine; only the logits at | mean something.

    Args:
        length: n.
        units: hidden units of the sawtooth; None takes n, and fewer are wrong for words of many ones.
        dtype: of the weights.

    Raises:
        LabError: no letters.
    """
    check_sizes(length=length)
    hidden, vocabulary = length if units is None else units, LETTERS + 4
    bit, share, parity, width = 0, 1, 2, 3
    embedding = torch.zeros(vocabulary, width, dtype=torch.float64)
    embedding[LETTERS + 1, bit] = 1.0
    into = torch.zeros(width, hidden, dtype=torch.float64)
    into[share] = length + 1.0  # the sign | sees n letters and itself
    tooth = torch.zeros(hidden, width, dtype=torch.float64)
    tooth[:, parity] = torch.tensor([1.0, *(2.0 * (-1) ** j for j in range(1, hidden))])
    read_out = torch.zeros(width, vocabulary, dtype=torch.float64)
    read_out[parity, LETTERS + 3] = LOGIT
    bias = torch.full((vocabulary,), -LOGIT, dtype=torch.float64)
    bias[LETTERS + 2 :] = torch.tensor([LOGIT / 2, 0.0])
    architecture = Architecture(
        width=width,
        layers=1,
        heads=1,
        head_size=1,
        vocabulary=vocabulary,
        output_size=vocabulary,
        output_bias=True,
        mlp_ratio=hidden / width,
        activation="relu",
        norm="none",
    )
    return Transformer.from_weights(
        architecture,
        {
            "embedding": embedding,
            "layers.0.attention.value.weight": unit(width, 1, [bit], [0]),
            "layers.0.attention.output.weight": unit(1, width, [0], [share]),
            "layers.0.mlp.hidden.weight": into,
            "layers.0.mlp.hidden.bias": -torch.arange(hidden).double(),
            "layers.0.mlp.output.weight": tooth,
            "read_out.weight": read_out,
            "read_out.bias": bias,
        },
        dtype=dtype,
    )
