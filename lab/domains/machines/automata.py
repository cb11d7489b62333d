"""Finite automata and sparse circuits: what trees that predict the next token are asked to carry out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from lab.errors import LabError
from lab.streams import RandomStream


@dataclass(frozen=True)
class Automaton:
    """m states, k letters, start in state 0: ``transitions[q][x]`` follows state q on letter x.

    Raises:
        LabError: rows of different lengths, or a state that is not there.
    """

    transitions: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if not self.transitions or len({len(row) for row in self.transitions}) != 1 or not self.transitions[0]:
            raise LabError(
                "The transitions of an automaton must be rows of one length, at least 1; give each state one."
            )
        for state, row in enumerate(self.transitions):
            for after in row:
                if not 0 <= after < self.states:
                    raise LabError(
                        f"State {state} leads to the state {after}, which is not defined; states are 0 to {self.states - 1}."
                    )

    @property
    def states(self) -> int:
        """m"""
        return len(self.transitions)

    @property
    def letters(self) -> int:
        """k"""
        return len(self.transitions[0])

    def run(self, words: Int[np.ndarray, "word letter"]) -> Int[np.ndarray, "word state"]:
        """The states q_0 .. q_n that words of length n lead through.

        Raises:
            LabError: a letter outside the alphabet.
        """
        outside = words[(words < 0) | (words >= self.letters)]
        if outside.size:
            raise LabError(f"The letter {int(outside[0])} is none of 0 to {self.letters - 1}; write words with these.")
        table = np.asarray(self.transitions)
        states = np.zeros((len(words), words.shape[1] + 1), dtype=np.int64)
        for place in range(words.shape[1]):
            states[:, place + 1] = table[states[:, place], words[:, place]]
        return states


AUTOMATA: Mapping[str, Automaton] = {
    "parity": Automaton(((0, 1), (1, 0))),
    "count mod 3": Automaton(((0, 1), (1, 2), (2, 0))),
    # Letters a = 0, b = 1; the last state means that "aab" was read.
    "contains aab": Automaton(((1, 0), (2, 0), (2, 3), (3, 3))),
    # Letters: set, reset, hold.
    "flip-flop": Automaton(((1, 0, 0), (1, 0, 1))),
}


def random_automaton(stream: RandomStream, states: int, letters: int) -> Automaton:
    """Uniform transitions."""
    return Automaton(tuple(map(tuple, stream.rng().integers(states, size=(states, letters)).tolist())))


@dataclass(frozen=True)
class Circuit:
    """N gates over n input bits; gate i reads ``wires[i]`` (inputs are 0 to n - 1, gate g is n + g) and gives
    ``tables[i][b]`` for the bits read as a number b, the first wire in front.

    Raises:
        LabError: a wire that is not there yet, or a table of another length than its wires ask for.
    """

    inputs: int
    wires: tuple[tuple[int, ...], ...]
    tables: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        for gate, (wires, table) in enumerate(zip(self.wires, self.tables, strict=True)):
            for wire in wires:
                if not 0 <= wire < self.inputs + gate:
                    raise LabError(
                        f"Gate {gate} reads the wire {wire}, but only wires 0 to {self.inputs + gate - 1} come before "
                        "it; name one of these."
                    )
            if len(table) != 2 ** len(wires) or not set(table) <= {0, 1}:
                raise LabError(
                    f"The table of gate {gate} has {len(table)} entries; {len(wires)} wires need {2 ** len(wires)}, 0 or 1."
                )

    def values(self, bits: Sequence[int]) -> list[int]:
        """What every gate gives, in order."""
        known = list(bits)
        for wires, table in zip(self.wires, self.tables, strict=True):
            place = 0
            for wire in wires:
                place = 2 * place + known[wire]
            known.append(table[place])
        return known[self.inputs :]


def random_circuit(stream: RandomStream, inputs: int, gates: int, fan_in: int) -> Circuit:
    """Every gate reads ``fan_in`` different earlier wires (all, where there are fewer) through a uniform table."""
    rng = stream.rng()
    wires, tables = [], []
    for gate in range(gates):
        size = min(fan_in, inputs + gate)
        wires.append(tuple(rng.choice(inputs + gate, size=size, replace=False).tolist()))
        tables.append(tuple(rng.integers(2, size=2**size).tolist()))
    return Circuit(inputs, tuple(wires), tuple(tables))
