r"""Two compilers from Turing machines to lag systems: the tape as a ring in the queue, with one end marker.

The queue holds ``# c_1 ... c_n``, a cell being a tape symbol s or a head [q, s]. Once round the ring is a *pass*. The
marker stands where a pass ends, so that the window that sees cells of two passes at once sees nothing but ``#`` of the
older one.

**Window 3, one pass a step.** The queue is ``# c_1 ... c_n #`` (n >= 3; the ``#`` in front is a stale copy). A window (a, b, c)
writes what becomes of its *middle* cell, which depends on nothing else: a head writes its symbol and is gone, and a tape
symbol receives the head from its left or right neighbour. A head that leaves the tape gets a new blank cell.

**Window 2, two passes a step.** News from the left and from the right cannot both be seen through a window of two. So the
first pass writes every cell *with its news from the left*: $b^{q}$ where its left neighbour is a head that moves right
into state q, $b^{\#}$ for the first cell, $b^{\cdot}$ for any other; the second pass, which knows the left news and sees the right
neighbour, writes what becomes of the cell. n >= 2.

Both are constructions of this project, smaller and faster than the released rules they answer (2,027 rules for the
universal machine of 15 states, about n^3 symbols for a move to the right).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lab.domains.machines.lag import LagSystem, Symbol, Word, lag_system
from lab.domains.machines.turing import LEFT, RIGHT, Configuration, Head, TuringMachine, normal, run
from lab.errors import LabError

MARKER = "#"
NO_NEWS = "."
LEAST_CELLS: Mapping[int, int] = {2: 2, 3: 3}
Rule = tuple[Word, Word]


@dataclass(frozen=True)
class Annotated:
    """A cell with its news from the left: ``#`` (it is the first), ``.`` (none), or the state that enters it."""

    cell: Symbol
    news: str


def compiled(machine: TuringMachine, window: int) -> LagSystem:
    """The lag system of window 2 or 3 that carries out the machine.

    Raises:
        LabError: another window, or a machine whose symbols or states are named like the marks of the ring.
    """
    _check_window(window)
    marks = {MARKER, NO_NEWS}.intersection((*machine.symbols, *machine.states))
    if marks:
        raise LabError(f"The machine uses the name {marks.pop()!r}, which marks the ring; rename it.")
    cells: Word = (*machine.symbols, *machine.heads)
    if window == 3:
        return lag_system(3, (MARKER, *cells), _rules_of_window_3(machine))
    news = (NO_NEWS, MARKER)
    annotated = [
        Annotated(symbol, news_item) for symbol in machine.symbols for news_item in (*news, *machine.right_targets)
    ]
    annotated += [Annotated(head, news_item) for head in machine.heads for news_item in news]
    return lag_system(2, (MARKER, *cells, *annotated), _rules_of_window_2(machine))


def rule_count(machine: TuringMachine, window: int) -> int:
    r"""How many rules `compiled` makes, in k symbols, H heads, L of them live, h halting, and rho states entered from the left.

    Window 3: $k^3 + 3k^2 + 3Hk^2 + 6Hk - 2h(k^2 + 2k)$. Window 2: first pass $(k + H) + k^2 + kH + Lk$, seam $k^2 + 2kL$,
    second pass $2k^2 + \rho k^2 + 4kL + k + \rho k + L$.
    """
    _check_window(window)
    k, heads, live = len(machine.symbols), len(machine.heads), len(machine.transitions)
    if window == 3:
        return k**3 + 3 * k**2 + 3 * heads * k**2 + 6 * heads * k - 2 * (heads - live) * (k**2 + 2 * k)
    rho = len(machine.right_targets)
    first = (k + heads) + k**2 + k * heads + live * k
    seam = k**2 + 2 * k * live
    return first + seam + 2 * k**2 + rho * k**2 + 4 * k * live + k + rho * k + live


def symbols_per_step(cells: int, window: int) -> int:
    """Symbols that one step of the machine appends on ``cells`` cells, without a new cell: 2 n + 1 or n + 1."""
    _check_window(window)
    return 2 * cells + 1 if window == 2 else cells + 1


def encode(machine: TuringMachine, configuration: Configuration, window: int) -> Word:
    """The queue that a system of this window starts with.

    Raises:
        LabError: a tape too short for the window (the padding it needs is named), a letter outside the alphabet, or a
            state or a place of the head that is not there.
    """
    _check_window(window)
    state, tape, head = configuration
    missing = LEAST_CELLS[window] - len(tape)
    if missing > 0:
        raise LabError(
            f"A tape of {len(tape)} cells is too short for the compiler of window {window}, which needs {LEAST_CELLS[window]}; "
            f"pad it with {missing} more blank{'s' if missing > 1 else ''}."
        )
    for symbol in tape:
        machine.check_symbol(symbol)
    if state not in machine.states or not 0 <= head < len(tape):
        raise LabError(
            f"The state {state!r} and the cell {head} must be one of {', '.join(machine.states)} and one of 0 to "
            f"{len(tape) - 1}; place the head on the tape."
        )
    queue = (MARKER, *tape[:head], Head(state, tape[head]), *tape[head + 1 :])
    return queue if window == 2 else (*queue, MARKER)


def decode(queue: Sequence[Symbol], window: int, halted: bool = False) -> Configuration | None:
    """The configuration in a queue after a completed step, or where the system has ``halted``; None in the midst of a step.

    A system halts in the midst of a pass: the symbol in front is a stale copy of one that is already written, so it is
    dropped, the news are taken off, and the ring is turned until the marker stands in front.
    """
    ring = list(queue)
    if halted:
        ring = [symbol.cell if isinstance(symbol, Annotated) else symbol for symbol in ring[1:]]
        if ring.count(MARKER) != 1:
            return None
        place = ring.index(MARKER)
        ring = ring[place:] + ring[:place]
    elif window == 3:
        if ring[-1] != MARKER:
            return None
        del ring[-1]
    cells = ring[1:]
    heads = [place for place, cell in enumerate(cells) if isinstance(cell, Head)]
    if ring[0] != MARKER or len(heads) != 1 or any(isinstance(cell, Annotated) or cell == MARKER for cell in cells):
        return None
    head = cells[heads[0]]
    assert isinstance(head, Head)
    tape = tuple(cell.symbol if isinstance(cell, Head) else str(cell) for cell in cells)
    return Configuration(head.state, tape, heads[0])


def _check_window(window: int) -> None:
    if window not in LEAST_CELLS:
        raise LabError(f"There is no compiler of window {window}; choose 2 (two passes a step) or 3 (one).")


def _rules_of_window_3(machine: TuringMachine) -> Iterator[Rule]:
    ring: Word = (MARKER, *machine.symbols, *machine.heads)
    for before in ring:
        if isinstance(before, Head) and before not in machine.transitions:
            continue  # the system has halted before this head comes to the front
        for cell in ring:
            for after in ring:
                window = (before, cell, after)
                if window.count(MARKER) <= 1 and sum(isinstance(symbol, Head) for symbol in window) <= 1:
                    right = _middle(machine, before, cell, after)
                    if right is not None:
                        yield window, right


def _middle(machine: TuringMachine, before: Symbol, cell: Symbol, after: Symbol) -> Word | None:
    """What becomes of the middle one of three cells, a cell of its own for a head that leaves the tape; None: it halts."""
    blank = machine.blank
    if isinstance(cell, Head):
        if cell not in machine.transitions:
            return None
        write, move, state = machine.transitions[cell]
        return (Head(state, blank), write) if move == LEFT and before == MARKER else (write,)
    entered = machine.moves(before, RIGHT)
    if cell == MARKER:
        return (MARKER,) if entered is None else (Head(entered, blank), MARKER)
    entered = entered or machine.moves(after, LEFT)
    return (cell,) if entered is None else (Head(entered, str(cell)),)


def _rules_of_window_2(machine: TuringMachine) -> Iterator[Rule]:
    tape, live = machine.symbols, [head for head in machine.heads if head in machine.transitions]
    # First pass: the second symbol with its news from the first.
    for cell in (*tape, *machine.heads):
        yield (MARKER, cell), (Annotated(cell, MARKER),)
        for symbol in tape:
            yield (symbol, cell), (Annotated(cell, NO_NEWS),)
    for head in live:
        for symbol in tape:
            yield (head, symbol), (Annotated(symbol, machine.moves(head, RIGHT) or NO_NEWS),)
    # The seam: the last cell of this pass, followed by the first one of the next.
    for symbol in tape:
        for other in tape:
            yield (symbol, Annotated(other, MARKER)), (MARKER,)
        for head in live:
            yield (symbol, Annotated(head, MARKER)), (MARKER,)
            yield (head, Annotated(symbol, MARKER)), (MARKER,)
    # Second pass: what becomes of the first symbol, whose news are known and whose right neighbour is seen.
    for symbol in tape:
        for news in (NO_NEWS, MARKER, *machine.right_targets):
            stays: Symbol = Head(news, symbol) if news in machine.right_targets else symbol
            first = Annotated(symbol, news)
            for other in tape:
                yield (first, Annotated(other, NO_NEWS)), (stays,)
            if news != MARKER:
                yield (first, MARKER), (stays,)
            for head in live if news in (NO_NEWS, MARKER) else ():
                entered = machine.moves(head, LEFT)
                yield (first, Annotated(head, NO_NEWS)), (symbol if entered is None else Head(entered, symbol),)
    for head in live:
        write, move, state = machine.transitions[head]
        new = Head(state, machine.blank)
        for news in (NO_NEWS, MARKER):
            right: Word = (new, write) if move == LEFT and news == MARKER else (write,)
            for symbol in tape:
                yield (Annotated(head, news), Annotated(symbol, machine.moves(head, RIGHT) or NO_NEWS)), right
        yield (Annotated(head, NO_NEWS), MARKER), ((write, new) if move == RIGHT else (write,))


def completed_steps(
    system: LagSystem, queue: Word, steps: int, rules: int = 10**6
) -> tuple[list[tuple[Configuration, int]], bool]:
    """Run a compiled system and read the ring after each completed step of the machine.

    Args:
        queue: as `encode` gives it.
        steps: how many steps of the machine at most.
        rules: after how many rules to give up.

    Returns:
        The configurations with the symbols written until then, the start first, and whether the system halted; then
        the last one is read from the halted queue.
    """
    held, window, written = deque(queue), system.window, 0
    start = decode(queue, window)
    history = [] if start is None else [(start, 0)]
    for _ in range(rules):
        right = system.right_side(held)
        if right is None:
            last = decode(held, window, halted=True)
            if last is not None and history:
                history[-1] = (last, history[-1][1])
            return history, True
        held.popleft()
        held.extend(right)
        written += len(right)
        if held[0] == MARKER and (window == 2 or held[-1] == MARKER):
            configuration = decode(held, window)
            if configuration is not None:
                history.append((configuration, written))
                if len(history) > steps:
                    break
    return history, False


class Agreement(NamedTuple):
    """A machine beside a lag system.

    Attributes:
        steps: steps of the machine that were compared.
        right: whether every completed ring, up to blanks, is the machine's configuration, there are as many of them, and
            one halts if and only if the other does.
        cost: the largest difference between the symbols of a step and `symbols_per_step` and one more for a new cell.
    """

    steps: int
    right: bool
    cost: int


def compare(machine: TuringMachine, start: Configuration, system: LagSystem, queue: Word, steps: int) -> Agreement:
    """Run both for at most so many steps of the machine; the system is given ten times the symbols that it should take."""
    expected = run(machine, start, steps)
    longest = symbols_per_step(len(start.tape) + len(expected), system.window)
    history, halted = completed_steps(system, queue, steps, 10 * longest * (len(expected) + 1))
    halts = len(expected) <= steps
    shown = [normal(machine, configuration) for configuration, _ in history]
    right = shown == [normal(machine, wanted) for wanted in expected] and halted == halts
    cost = 0
    for (before, paid), (after, written) in zip(history, history[1:], strict=False):
        cells, grown = len(before.tape), len(after.tape) - len(before.tape)
        cost = max(cost, abs(written - paid - symbols_per_step(cells, system.window) - grown))
    return Agreement(len(expected) - 1, right, cost)
