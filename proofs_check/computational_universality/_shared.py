"""What the parts share: the paper, the machines and the tapes they start on."""

from __future__ import annotations

from collections.abc import Iterator

from lab.domains.machines.lag import Word
from lab.domains.machines.lag_compilers import MARKER
from lab.domains.machines.turing import (
    MACHINES,
    Configuration,
    Head,
    TuringMachine,
    random_configuration,
    random_machine,
)
from lab.streams import stream

SLUG = "computational-universality"
PAPER = "schuurmans-2024-universal"
COUNTS = "counts of whole numbers"
RANDOM = "random machines"
NAMES = (*MACHINES, RANDOM)


def machines(name: str, number: int) -> list[TuringMachine]:
    """The machine of this name ``number`` times, or so many random ones of 1 to 5 states and 2 or 3 symbols."""
    if name != RANDOM:
        return [MACHINES[name]] * number
    return [random_machine(stream(place, "machine"), 1 + place % 5, 2 + place % 2) for place in range(number)]


def starts(inputs: int, random_machines: int) -> Iterator[tuple[str, TuringMachine, Configuration]]:
    """Every named machine on ``inputs`` random tapes and ``random_machines`` random ones on one each, of 3 to 8
    cells."""
    for name in NAMES:
        for place, machine in enumerate(machines(name, random_machines if name == RANDOM else inputs)):
            yield name, machine, random_configuration(stream(place, name), machine, 3 + place % 6)


def ring(configuration: Configuration, window: int) -> Word:
    """The queue of a configuration whatever its length; `encode` refuses one that is too short."""
    state, tape, head = configuration
    queue = (MARKER, *tape[:head], Head(state, tape[head]), *tape[head + 1 :])
    return queue if window == 2 else (*queue, MARKER)
