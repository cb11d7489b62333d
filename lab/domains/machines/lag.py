r"""Lag systems (Wang 1963): a queue, a window at its front, a table of rules.

If the first N symbols of the queue are the left side of a rule, the **first** symbol is deleted (one, not N) and the
rule's right side, of one or two symbols, is appended. Without a rule, or with fewer than N symbols, the system halts. That
is what a predictor with a window of N tokens does when everything it writes is appended to one string over which its
window slides, one token at a time: *generalised* autoregressive decoding where every right side is one symbol (the queue
keeps its length: a *restricted* system), *extended* decoding where it may be more (Schuurmans, Dai and Zanini 2024).
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from lab.errors import LabError

Symbol = Hashable
Word = tuple[Symbol, ...]


@dataclass(frozen=True)
class LagSystem:
    """An alphabet, the size N of the window, and the rules from windows to right sides of one or two symbols."""

    window: int
    alphabet: Word
    rules: Mapping[Word, Word]

    def check_word(self, word: Sequence[Symbol]) -> None:
        """Refuse a word with a letter outside the alphabet."""
        known = set(self.alphabet)
        for letter in word:
            if letter not in known:
                raise LabError(
                    f"The letter {letter!r} is none of the {len(known)} letters of this system; write with these."
                )

    def right_side(self, queue: Sequence[Symbol]) -> Word | None:
        """What is appended to this queue; None where the system halts."""
        return self.rules.get(tuple(itertools.islice(queue, self.window)))


def lag_system(window: int, alphabet: Iterable[Symbol], rules: Iterable[tuple[Word, Word]]) -> LagSystem:
    """A system from pairs (window, right side).

    Raises:
        LabError: two rules for one window, a side of another length, or a letter outside the alphabet.
    """
    table: dict[Word, Word] = {}
    system = LagSystem(window, tuple(alphabet), table)
    known = set(system.alphabet)
    for left, right in rules:
        if left in table:
            raise LabError(f"The window {left!r} has two rules, to {table[left]!r} and to {right!r}; keep one of them.")
        if len(left) != window or len(right) not in (1, 2):
            raise LabError(
                f"The rule {left!r} to {right!r} reads {len(left)} symbols and writes {len(right)}; it must read {window} "
                "and write 1 or 2."
            )
        if not known.issuperset(left + right):
            system.check_word(left + right)
        table[left] = right
    return system


def restricted(system: LagSystem) -> LagSystem:
    """The same system with only the first symbol of every right side: its queue keeps its length."""
    return LagSystem(system.window, system.alphabet, {left: right[:1] for left, right in system.rules.items()})


class Run(NamedTuple):
    """A queue after a number of rules were applied, how many symbols they appended, and whether none applies now."""

    queue: Word
    rules: int
    written: int
    halted: bool


def run(system: LagSystem, queue: Sequence[Symbol], rules: int) -> Run:
    """Apply at most ``rules`` rules.

    Raises:
        LabError: a letter outside the alphabet.
    """
    system.check_word(queue)
    held, written, applied = deque(queue), 0, 0
    while (right := system.right_side(held)) is not None and applied < rules:
        held.popleft()
        held.extend(right)
        written += len(right)
        applied += 1
    return Run(tuple(held), applied, written, right is None)


@dataclass(frozen=True)
class Table:
    """A system as arrays over the $|A|^N$ windows, read as numbers of base |A|; -1 where there is no such symbol."""

    system: LagSystem
    first: Int[np.ndarray, " window"]
    second: Int[np.ndarray, " window"]

    def codes(self, word: Sequence[Symbol]) -> Int[np.ndarray, " symbol"]:
        """Places of the symbols in the alphabet.

        Raises:
            LabError: a letter outside the alphabet.
        """
        self.system.check_word(word)
        places = {letter: place for place, letter in enumerate(self.system.alphabet)}
        return np.array([places[letter] for letter in word], dtype=np.int32)

    def word(self, codes: Sequence[int] | Int[np.ndarray, " symbol"]) -> Word:
        """The symbols at these places of the alphabet."""
        return tuple(self.system.alphabet[code] for code in codes)


def compile_table(system: LagSystem) -> Table:
    """The rules as arrays, for many queues at once."""
    size = len(system.alphabet)
    places = {letter: place for place, letter in enumerate(system.alphabet)}
    first, second = (np.full(size**system.window, -1, dtype=np.int32) for _ in range(2))
    for left, right in system.rules.items():
        window = 0
        for letter in left:
            window = window * size + places[letter]
        first[window] = places[right[0]]
        if len(right) == 2:
            second[window] = places[right[1]]
    return Table(system, first, second)


class ManyRuns(NamedTuple):
    """Many queues after the same number of rules (fewer where a system halted)."""

    queues: list[Int[np.ndarray, " symbol"]]
    rules: Int[np.ndarray, " queue"]
    written: Int[np.ndarray, " queue"]


def run_many(table: Table, queues: Int[np.ndarray, "queue symbol"], rules: int) -> ManyRuns:
    """Apply at most ``rules`` rules to each of many queues of one length, all queues at once.

    Every rule deletes exactly one symbol, so that all queues have their front at the same place of one long string, and a
    window is one row of an array [place, queue]; only the ends differ.
    """
    window, size = table.system.window, len(table.system.alphabet)
    count, length = queues.shape
    columns = np.arange(count)
    room = 1 << (2 * length + window).bit_length()  # a ring of rows, doubled when a queue is about to fill it
    ring = np.zeros((room, count), dtype=np.int32)
    ring[:length] = queues.T
    ends = np.full(count, length, dtype=np.int64)
    stopped = np.full(count, rules, dtype=np.int64)
    running, all_run, longest = np.ones(count, dtype=bool), True, length
    for front in range(rules):
        at = ring[front & (room - 1)].copy()
        for ahead in range(1, window):
            at *= size
            at += ring[(front + ahead) & (room - 1)]
        written = table.first[at]
        if written.min() < 0 or not all_run or longest < window:
            fires = (written >= 0) & (ends - front >= window) & running
            stopped[running & ~fires] = front
            running, all_run = fires, False
            if not fires.any():
                break
        ring.reshape(-1)[(ends & (room - 1)) * count + columns] = written
        ends += running
        more = table.second[at]
        two = np.flatnonzero((more >= 0) & running)
        if len(two):
            ring[ends[two] & (room - 1), two] = more[two]
            ends[two] += 1
            longest = max(longest, int((ends[two] - front).max()))
            if longest + window + 2 > room:
                ring, room = _grown(ring, np.minimum(front + 1, stopped), ends), 2 * room
    fronts = stopped
    final_queues = [ring[np.arange(fronts[column], ends[column]) & (room - 1), column] for column in range(count)]
    return ManyRuns(final_queues, stopped, ends - length)


def _grown(ring: np.ndarray, fronts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """A ring of twice the rows with every queue at its own places."""
    room, count = ring.shape
    grown = np.zeros((2 * room, count), dtype=ring.dtype)
    for column in range(count):
        places = np.arange(fronts[column], ends[column])
        grown[places & (2 * room - 1), column] = ring[places & (room - 1), column]
    return grown
