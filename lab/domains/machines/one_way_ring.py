r"""A third compiler: a ring in which news flow to the left only, one rule a cell and no passes to be counted.

In the released rules of Schuurmans, Dai and Zanini (2024) a cell is rewritten from itself and its right neighbour, so that a
head cannot reach its right neighbour but by a signal all the way round, and finds it by a mark that moves on one cell a
circulation: as read from these rules, $n^3 + n^2 + 3n + 3$ symbols for a move to the right on n cells, $2(n + 1)$ to the left.

One circulation is enough. Instead of moving the head to the right, move *the tape to the left*: the head takes its right
neighbour's symbol on the spot, waits, and sends what it has written as a *wave* to the left; every cell takes what the wave
carries and gives it what it held, the marker like any other; the wave that comes back to the head is dropped. With
$\ell = n + 1$ places in the ring a move to the right takes exactly $\ell^2$ symbols, one to the left $\ell - 1$; where the
head leaves the tape, $\ell + 2$ to the right and $\ell + 1$ to the left, the new cell included.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lab.domains.machines.lag import LagSystem, Symbol, Word, lag_system
from lab.domains.machines.lag_compilers import MARKER
from lab.domains.machines.turing import LEFT, RIGHT, Configuration, Head, TuringMachine


@dataclass(frozen=True)
class Wave:
    """A cell that has just taken ``content`` and hands ``carried`` to its left neighbour."""

    content: str
    carried: str


@dataclass(frozen=True)
class Waiting:
    """A head that has taken its right neighbour's symbol and waits for the wave to come back."""

    state: str
    symbol: str


@dataclass(frozen=True)
class Leaving:
    """A head that begins to wait, and the symbol it has written, which its left neighbour takes."""

    head: Waiting
    carried: str


def one_way(machine: TuringMachine) -> LagSystem:
    """The lag system of window 2 that carries out the machine on a ring in which news flow to the left only."""
    waiting = [Waiting(*head) for head in machine.heads]
    cells = (MARKER, *machine.symbols)
    alphabet: list[Symbol] = [*cells, *machine.heads, *waiting]
    alphabet += [Wave(content, carried) for content in cells for carried in cells]
    alphabet += [Leaving(head, symbol) for head in waiting for symbol in machine.symbols]
    return lag_system(2, alphabet, _rules(machine, waiting))


def _rules(machine: TuringMachine, waiting: Sequence[Waiting]) -> Iterator[tuple[Word, Word]]:
    tape, cells = machine.symbols, (MARKER, *machine.symbols)
    pairs = [(cell, after) for cell in cells for after in cells if (cell, after) != (MARKER, MARKER)]
    waves = [Wave(*pair) for pair in pairs]
    for cell, after in pairs:
        yield (cell, after), (cell,)
    for cell in cells:
        for head in machine.heads:
            state = machine.moves(head, LEFT)
            if state is None:
                yield (cell, head), (cell,)
            else:
                yield (cell, head), ((cell, Head(state, machine.blank)) if cell == MARKER else (Head(state, cell),))
        for waits in waiting:
            yield (cell, waits), (cell,)
            for symbol in tape:
                yield (cell, Leaving(waits, symbol)), (Wave(symbol, cell),)
        for wave in waves:
            yield (cell, wave), (Wave(wave.carried, cell),)
            yield (wave, cell), (wave.content,)
    for head, (write, move, state) in ((Head(*pair), transition) for pair, transition in machine.transitions.items()):
        for after in cells:
            if move == LEFT:
                yield (head, after), (write,)
            elif after == MARKER:
                yield (head, after), (write, Head(state, machine.blank))
            else:
                yield (head, after), (Leaving(Waiting(state, after), write),)
    for waits in waiting:
        for wave in waves:
            yield (waits, wave), (Head(waits.state, waits.symbol),)
            yield (wave, waits), (wave.content,)
        for after in cells:
            yield (waits, after), (waits,)
            for symbol in tape:
                yield (Leaving(waits, symbol), after), (waits,)


def symbols_of_a_move(cells: int, move: int, grows: bool) -> int:
    r"""$\ell^2$ to the right and $\ell - 1$ to the left on a ring of $\ell$ = ``cells`` + 1 places; off the tape
    $\ell + 2$ and $\ell + 1$."""
    places = cells + 1
    if grows:
        return places + 2 if move == RIGHT else places + 1
    return places**2 if move == RIGHT else places - 1


def read(queue: Sequence[Symbol]) -> Configuration | None:
    """The configuration in a queue whose head stands second, so that the cells about to be rewritten are its left neighbour and
    itself; None for any other queue."""
    if (
        not isinstance(queue[1], Head)
        or sum(isinstance(symbol, Head | Wave | Waiting | Leaving) for symbol in queue) != 1
    ):
        return None
    ring = list(queue)
    place = ring.index(MARKER)
    cells = ring[place + 1 :] + ring[:place]
    tape = tuple(cell.symbol if isinstance(cell, Head) else str(cell) for cell in cells)
    return Configuration(queue[1].state, tape, (-place) % len(ring))


def steps(system: LagSystem, queue: Word, count: int, rules: int = 10**6) -> list[tuple[Configuration, int]]:
    """The configurations of at most ``count`` steps, the first when the head stands second, each with the symbols written until
    then; fewer where the system halts, or after so many rules."""
    held, written = deque(queue), 0
    history: list[tuple[Configuration, int]] = []
    for _ in range(rules):
        configuration = read(held) if isinstance(held[1], Head) else None
        if configuration is not None:
            history.append((configuration, written))
        right = system.right_side(held)
        if right is None or len(history) > count:
            break
        held.popleft()
        held.extend(right)
        written += len(right)
    return history
