r"""Turing machines on a tape that is infinite both ways, one step at a time and many tapes at once.

$\delta(q, s) = (w, d, q')$: in state q on symbol s write w, move by d (-1 left, +1 right), go on in q'. A pair without a
value halts. A machine of m states and k symbols has H = m k *heads* [q, s] (the head in state q on a cell that holds s),
L of them with a value of $\delta$ and h = H - L without.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from lab.errors import LabError
from lab.streams import RandomStream

LEFT, RIGHT = -1, +1
_ENTRY = re.compile(r"(.)([LR])(\w+)")


class Head(NamedTuple):
    """A cell on which the head stands."""

    state: str
    symbol: str


class Transition(NamedTuple):
    """What the machine does: ``move`` is -1 or +1."""

    write: str
    move: int
    state: str


class Configuration(NamedTuple):
    """A state, a finite piece of the tape, and which of its cells the head stands on."""

    state: str
    tape: tuple[str, ...]
    head: int


@dataclass(frozen=True)
class TuringMachine:
    """A machine; ``symbols[0]`` is the blank, ``states[0]`` the state it starts in.

    Raises:
        LabError: a state or a symbol of a transition that the machine does not have, or a move that is neither -1 nor +1.
    """

    states: tuple[str, ...]
    symbols: tuple[str, ...]
    transitions: Mapping[tuple[str, str], Transition]

    def __post_init__(self) -> None:
        for kind, names in (("states", self.states), ("symbols", self.symbols)):
            if not names or len(set(names)) != len(names):
                raise LabError(f"The {kind} {names} of a machine must be at least 1 and different; name each once.")
        for (state, symbol), (write, move, after) in self.transitions.items():
            for name in (state, after):
                if name not in self.states:
                    raise LabError(
                        f"The transition of ({state}, {symbol}) names the state {name!r}, which is none of "
                        f"{', '.join(self.states)}; define it (without transitions if it halts)."
                    )
            for name in (symbol, write):
                self.check_symbol(name)
            if move not in (LEFT, RIGHT):
                raise LabError(f"The transition of ({state}, {symbol}) moves by {move}; a move is -1 or +1.")

    @property
    def blank(self) -> str:
        """The symbol of cells that were never written."""
        return self.symbols[0]

    @cached_property
    def heads(self) -> tuple[Head, ...]:
        """All pairs of state and symbol, H of them."""
        return tuple(Head(state, symbol) for state in self.states for symbol in self.symbols)

    @cached_property
    def right_targets(self) -> tuple[str, ...]:
        """The states that a right move enters, rho of them, in the order of the states."""
        entered = {transition.state for transition in self.transitions.values() if transition.move == RIGHT}
        return tuple(state for state in self.states if state in entered)

    def moves(self, head: object, direction: int) -> str | None:
        """The state in which ``head`` leaves in this direction; None for what is no head, halts, or leaves the other way."""
        transition = self.transitions.get(head) if isinstance(head, Head) else None
        return transition.state if transition is not None and transition.move == direction else None

    def check_symbol(self, symbol: str) -> None:
        """Refuse a letter outside the alphabet."""
        if symbol not in self.symbols:
            raise LabError(f"The symbol {symbol!r} is none of {', '.join(self.symbols)}; write the tape with these.")


def from_table(table: str, symbols: str) -> TuringMachine:
    """A machine from one word a state, ``A:1RB,1LB``: for each symbol what is written, the move, the next state; ``---`` halts.

    >>> from_table("A:1RB,--- B:---,---", "01").transitions[("A", "0")]
    Transition(write='1', move=1, state='B')

    Raises:
        LabError: an entry that cannot be read, a row of another length, or what `TuringMachine` refuses.
    """
    rows = dict(row.split(":") for row in table.split())
    transitions = {}
    for state, row in rows.items():
        entries = row.split(",")
        if len(entries) != len(symbols):
            raise LabError(
                f"The row of state {state} has {len(entries)} entries but {len(symbols)} symbols; give one each."
            )
        for symbol, entry in zip(symbols, entries, strict=True):
            if entry == "---":
                continue
            match = _ENTRY.fullmatch(entry)
            if match is None:
                raise LabError(
                    f"The entry {entry!r} of state {state} cannot be read; write it like 1RB, or --- to halt."
                )
            write, move, after = match.groups()
            transitions[(state, symbol)] = Transition(write, RIGHT if move == "R" else LEFT, after)
    return TuringMachine(tuple(rows), tuple(symbols), transitions)


# The universal machine of 15 states and 2 symbols (Neary and Woods 2009, table of U_{15,2}; its one halting pair is J on 1).
# Of the two tables released with Schuurmans, Dai and Zanini (2024) one moves right from G on 0, the other left, as here.
UNIVERSAL = from_table(
    "A:0RB,1RA B:1RC,1RA C:0LG,0LE D:0LF,1LE E:1RA,1LD F:1LD,1LD G:0LH,1LG H:1LI,1LG I:0RA,1LJ J:1LK,--- K:0RL,1RN "
    "L:0RM,1RL M:0LB,1RL N:0LC,0RO O:0RN,1RN",
    "01",
)
MACHINES: Mapping[str, TuringMachine] = {
    # Busy beavers: the longest-running machines of their size that halt on the empty tape (H is where they halt).
    "BB2": from_table("A:1RB,1LB B:1LA,1RH H:---,---", "01"),
    "BB3": from_table("A:1RB,1RH B:0RC,1RB C:1LC,1LA H:---,---", "01"),
    "BB4": from_table("A:1RB,1LB B:1LA,0LC C:1RH,1LD D:1RD,0RA H:---,---", "01"),
    "BB(2,3)": from_table("A:1RB,2LB,1RH B:2LA,2RB,1LB H:---,---,---", "012"),
    # Adds one to a binary number from its leftmost digit.
    "increment": from_table("R:_LC,0RR,1RR C:1LH,1LH,0LC H:---,---,---", "_01"),
    # Halts in Y on a palindrome and in N on another word, from its leftmost letter.
    "palindrome": from_table(
        "S:_RY,_Ra,_Rb a:_Lc,0Ra,1Ra b:_Ld,0Rb,1Rb c:_LY,_Le,1LN d:_LY,0LN,_Le e:_RS,0Le,1Le Y:---,---,--- N:---,---,---",
        "_01",
    ),
    "universal": UNIVERSAL,
}


def random_machine(stream: RandomStream, states: int, symbols: int, halting: float = 0.1) -> TuringMachine:
    """Every pair halts with probability ``halting``, or else writes, moves and goes on uniformly."""
    rng = stream.rng()
    names = tuple(f"q{number}" for number in range(states))
    letters = tuple(str(number) for number in range(symbols))
    transitions = {}
    for state in names:
        for symbol in letters:
            stops, write, move, after = rng.random(), rng.integers(symbols), rng.integers(2), rng.integers(states)
            if stops >= halting:
                transitions[(state, symbol)] = Transition(letters[write], (LEFT, RIGHT)[move], names[after])
    return TuringMachine(names, letters, transitions)


def random_configuration(stream: RandomStream, machine: TuringMachine, cells: int) -> Configuration:
    """Uniform symbols, the head on a uniform cell, in the state the machine starts in."""
    rng = stream.rng()
    tape = tuple(machine.symbols[place] for place in rng.integers(len(machine.symbols), size=cells))
    return Configuration(machine.states[0], tape, int(rng.integers(cells)))


def on_word(machine: TuringMachine, word: Sequence[str], pad: int = 0) -> Configuration:
    """The head on the first letter of a word, ``pad`` blanks on either side.

    Raises:
        LabError: a letter outside the alphabet.
    """
    for letter in word:
        machine.check_symbol(letter)
    blanks = (machine.blank,) * pad
    tape = (*blanks, *word, *blanks) or (machine.blank,)
    return Configuration(machine.states[0], tape, min(pad, len(tape) - 1))


def step(machine: TuringMachine, configuration: Configuration) -> Configuration | None:
    """The next configuration, whose tape grows where the head leaves it; None where the machine halts."""
    state, tape, head = configuration
    transition = machine.transitions.get((state, tape[head]))
    if transition is None:
        return None
    tape = (*tape[:head], transition.write, *tape[head + 1 :])
    head += transition.move
    if head < 0:
        return Configuration(transition.state, (machine.blank, *tape), 0)
    return Configuration(transition.state, tape if head < len(tape) else (*tape, machine.blank), head)


def run(machine: TuringMachine, configuration: Configuration, steps: int) -> list[Configuration]:
    """The start and what follows, until the machine halts or ``steps`` steps are made."""
    history = [configuration]
    while len(history) <= steps and (successor := step(machine, history[-1])) is not None:
        history.append(successor)
    return history


def normal(machine: TuringMachine, configuration: Configuration) -> Configuration:
    """The same configuration without the blanks that are not between the head and the farthest written cell.

    >>> normal(UNIVERSAL, Configuration("A", tuple("0010"), 0))
    Configuration(state='A', tape=('0', '0', '1'), head=0)
    """
    state, tape, head = configuration
    first, last = 0, len(tape) - 1
    while first < head and tape[first] == machine.blank:
        first += 1
    while last > head and tape[last] == machine.blank:
        last -= 1
    return Configuration(state, tape[first : last + 1], head - first)


class Tapes(NamedTuple):
    """Many tapes of one machine: places of states and symbols in its tuples."""

    states: Int[np.ndarray, " tape"]
    cells: Int[np.ndarray, "tape cell"]
    heads: Int[np.ndarray, " tape"]
    halted: Bool[np.ndarray, " tape"]


def random_tapes(stream: RandomStream, machine: TuringMachine, batch: int, cells: int) -> Tapes:
    """Uniform symbols on ``cells`` cells each, heads on uniform cells, in the state the machine starts in."""
    symbols, heads = stream.child("symbols").rng(), stream.child("heads").rng()
    return Tapes(
        np.zeros(batch, dtype=np.int64),
        symbols.integers(len(machine.symbols), size=(batch, cells)),
        heads.integers(cells, size=batch),
        np.zeros(batch, dtype=bool),
    )


def configurations(machine: TuringMachine, tapes: Tapes) -> list[Configuration]:
    """The tapes one by one."""
    rows = zip(tapes.states.tolist(), tapes.cells.tolist(), tapes.heads.tolist(), strict=True)
    return [Configuration(machine.states[q], tuple(machine.symbols[s] for s in tape), head) for q, tape, head in rows]


def run_many(machine: TuringMachine, tapes: Tapes, steps: int) -> Tapes:
    """All tapes ``steps`` steps on, or less where they halt; no tape grows.

    Raises:
        LabError: a head leaves its cells; the padding that is always enough is named.
    """
    size = (len(machine.states), len(machine.symbols))
    write, move, after = (np.zeros(size, dtype=np.int64) for _ in range(3))
    known = np.zeros(size, dtype=bool)
    for (state, symbol), transition in machine.transitions.items():
        place = machine.states.index(state), machine.symbols.index(symbol)
        known[place], move[place] = True, transition.move
        write[place], after[place] = machine.symbols.index(transition.write), machine.states.index(transition.state)
    states, cells, heads, halted = (part.copy() for part in tapes)
    rows, last = np.arange(len(states)), cells.shape[1] - 1
    for _ in range(steps):
        pairs = states, cells[rows, heads]
        halted = ~known[pairs]
        cells[rows, heads] = np.where(halted, pairs[1], write[pairs])
        heads = heads + np.where(halted, 0, move[pairs])
        states = np.where(halted, states, after[pairs])
        outside = (heads < 0) | (heads > last)
        if outside.any():
            raise LabError(
                f"The head of tape {int(outside.argmax())} leaves its {last + 1} cells within {steps} steps; pad every tape "
                f"with {steps} blanks on either side, which is always enough."
            )
    return Tapes(states, cells, heads, ~known[states, cells[rows, heads]])
