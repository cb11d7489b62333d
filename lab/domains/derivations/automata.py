r"""Automata that read words, and words over groups of permutations.

A *machine* is a table of transitions: in state s the letter a leads to table[s, a]; state 0 is the start. A word and its run,

    w_0 .. w_{n-1} | s_1 s_2 .. s_n S           s_{i+1} = table[s_i, w_i]

is the barest case of a problem with a derivation: each step is a table look-up. Every machine whose states are the elements
of a group and whose letters multiply is a *word problem*; that of $S_5$, the 120 permutations of five things, is complete
for the class NC1 (Barrington 1989), as hard as evaluating Boolean formulas. Parity, the word problem of two elements, is not.

A derivation can be thinned: with ``every`` = k only the states after k, 2 k, .. letters and the last one are written; k = n
is the direct format.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import permutations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lab import contracts
from lab.domains.derivations.sequences import Derivations, check_sizes, full_rows, sign, write
from lab.errors import LabError
from lab.streams import RandomStream

END, LETTERS = 2, 3
THINGS = 5

Table = Int[Tensor, "state letter"]


def check_table(table: Table) -> None:
    """Refuse a table that leads to a state that is not there."""
    wrong = table[(table < 0) | (table >= len(table))]
    if wrong.numel():
        raise LabError(
            f"A transition leads to state {int(wrong[0])} but the states are 0 to {len(table) - 1}; add a row for it."
        )


def run(table: Table, words: Int[Tensor, "batch time"]) -> Int[Tensor, "batch time"]:
    """The states after each letter, from state 0.

    Raises:
        LabError: a transition to no state, or a letter outside the alphabet.
    """
    check_table(table)
    outside = words[(words < 0) | (words >= table.shape[1])]
    if outside.numel():
        raise LabError(
            f"The letter {int(outside[0])} lies outside the alphabet 0 to {table.shape[1] - 1}; write the word with those."
        )
    state, states, rule = torch.zeros(len(words), dtype=torch.int64), [], table.flatten()
    for letter in words.T.contiguous():  # a letter of all words lies side by side
        state = rule.take(state * table.shape[1] + letter)
        states.append(state)
    return torch.stack(states).T


def run_by_composition(table: Table, words: Int[Tensor, "batch time"]) -> Int[Tensor, "batch time"]:
    """The same in ceil(log2 n) rounds: maps of all states, composed over intervals that double (Hillis and Steele 1986).

    No state is carried from letter to letter, so it shares nothing with `run` but the table. It needs S numbers a letter.
    """
    maps = table.T[words]  # [batch, letter, state]: where each state goes
    span = 1
    while span < words.shape[1]:
        maps = torch.cat([maps[:, :span], maps[:, span:].gather(2, maps[:, :-span])], 1)
        span *= 2
    return maps[:, :, 0]


def parity_table(modulus: int = 2) -> Table:
    """Counting ones modulo ``modulus``: letter a adds a to the state.

    >>> parity_table().tolist()
    [[0, 1], [1, 0]]
    """
    check_sizes(modulus=modulus)
    state = torch.arange(modulus)
    return torch.stack([state, (state + 1) % modulus], 1)


@lru_cache
def elements(things: int = THINGS) -> Int[Tensor, "element {things}"]:
    """All permutations in lexicographic order; the identity is the first."""
    return torch.tensor(list(permutations(range(things))))


@lru_cache
def products(things: int = THINGS) -> Int[Tensor, "element element"]:
    """[g, h]: the number of g followed by h."""
    rows = elements(things)
    weights = things ** torch.arange(things)
    numbers = (rows * weights).sum(1)
    order = numbers.argsort()
    followed = rows[None].expand(len(rows), -1, -1).gather(2, rows[:, None].expand(-1, len(rows), -1))
    return order[torch.searchsorted(numbers[order], (followed * weights).sum(2))]


def inverse(things: int = THINGS) -> Int[Tensor, " element"]:
    """The number of every element's inverse."""
    return (products(things) == 0).int().argmax(1)


def element(images: Sequence[int]) -> int:
    """The number of the permutation that takes i to images[i]."""
    matches = (elements(len(images)) == torch.tensor(list(images))).all(1).nonzero()
    if not len(matches):
        raise LabError(f"{list(images)} is no permutation of 0 to {len(images) - 1}; name each number once.")
    return int(matches)


@lru_cache
def group_table(things: int = THINGS) -> Table:
    """Words over two generators of the group of all permutations: a swap of the first two, and a turn of all.

    With five things it is the word problem of S5.
    """
    swap = [1, 0, *range(2, things)]
    turn = [*range(1, things), 0]
    return products(things)[:, [element(swap), element(turn)]]


def walk_law(table: Table, length: int) -> Float[Tensor, "word_length state"]:
    """The law of the state after 0, 1, .. ``length`` uniform letters: what is known of it without reading the word."""
    check_table(table)
    law = torch.zeros(len(table), dtype=torch.float64)
    law[0] = 1.0
    laws = [law]
    for _ in range(length):
        spread = (law / table.shape[1])[:, None].expand(table.shape)
        law = torch.zeros_like(law).scatter_add_(0, table.flatten(), spread.flatten())
        laws.append(law)
    return torch.stack(laws)


def vocabulary_size(table: Table) -> int:
    """Pad, stop, the sign |, the letters and the states."""
    return LETTERS + table.shape[1] + len(table)


def written_states(length: int, every: int) -> Int[Tensor, " step"]:
    """After how many letters a state is written: every, 2 every, .., and ``length``.

    >>> written_states(7, 3).tolist()
    [3, 6, 7]
    """
    check_sizes(length=length, every=every)
    return torch.tensor([*range(every, length, every), length])


def row_length(length: int, every: int = 1) -> int:
    """Tokens of a row, the stop token included: n + 1 + ceil(n / k) + 1."""
    return length + 1 + len(written_states(length, every)) + 1


@contracts.generator(table=parity_table(3), length=6)
def words(stream: RandomStream, batch: int, *, table: Table, length: int, every: int = 1) -> Derivations:
    """Uniform words and their runs.

    Args:
        stream: randomness; field "words".
        batch: number of words.
        table: the machine.
        length: n.
        every: k; 1 writes all states, ``length`` the last alone (the direct format).

    Raises:
        LabError: a transition to no state, no letters, or ``every`` below 1.
    """
    check_sizes(length=length, every=every)
    drawn = torch.from_numpy(stream.child("words").rng().integers(0, table.shape[1], (batch, length)))
    return write_words(table, drawn, every)


def write_words(table: Table, drawn: Int[Tensor, "batch time"], every: int = 1) -> Derivations:
    """Given words with their runs."""
    states = run(table, drawn)[:, written_states(drawn.shape[1], every) - 1]
    return write_states(table, drawn, states)


def write_states(table: Table, drawn: Int[Tensor, "batch time"], states: Int[Tensor, "batch step"]) -> Derivations:
    """Words with given states behind them, right or wrong."""
    first_state = LETTERS + table.shape[1]
    parts = [full_rows(LETTERS + drawn), sign(END, len(drawn)), full_rows(first_state + states)]
    return write(parts, 2, drawn.shape[1] + states.shape[1] + 2)


def misleading_states(
    stream: RandomStream, table: Table, drawn: Int[Tensor, "batch time"]
) -> Int[Tensor, "batch time"]:
    """Runs whose states are uniform but for the last, which is right: steps that are no steps.

    Args:
        stream: randomness; field "states".
        table: the machine.
        drawn: the words.
    """
    states = torch.from_numpy(stream.child("states").rng().integers(0, len(table), tuple(drawn.shape)))
    states[:, -1] = run(table, drawn)[:, -1]
    return states


def first_wrong_step(tokens: Sequence[int], table: Table, length: int) -> int | None:
    """The first i whose s_{i+1} is not table[s_i, w_i] of the states as written; None if all follow."""
    row, rule = [int(token) for token in tokens], np.asarray(table)
    word = [token - LETTERS for token in row[:length]]
    states = [0, *(token - LETTERS - table.shape[1] for token in row[length + 1 : 2 * length + 1])]
    return next((i for i, letter in enumerate(word) if rule[states[i], letter] != states[i + 1]), None)
