r"""Decision trees that predict the next token, and compilers into them (after Gan, Galanti, Poggio and Malach 2024).

A tree reads the last W tokens, offset 1 being the last one. An inner node asks whether the token at some offset is a certain
one; a leaf is the next token. Its size is the number of leaves, its depth the most questions. Appending what it says again
and again, a small tree carries out what no small tree can say at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from lab.domains.machines.automata import Automaton, Circuit
from lab.domains.machines.lag_compilers import MARKER
from lab.domains.machines.turing import LEFT, RIGHT, Configuration, Head, TuringMachine, run
from lab.errors import LabError

Token = object
START = "start"


@dataclass(frozen=True)
class Leaf:
    """The next token."""

    token: Token


@dataclass(frozen=True)
class Node:
    """Whether the token ``offset`` places from the end (1 is the last) is ``token``."""

    offset: int
    token: Token
    yes: Tree
    no: Tree


Tree = Leaf | Node


def nodes(tree: Tree) -> Iterator[tuple[Tree, int]]:
    """All nodes and leaves with their depth, a node before what is below it, yes before no."""
    open_ones = [(tree, 0)]
    while open_ones:
        node, depth = open_ones.pop()
        yield node, depth
        if isinstance(node, Node):
            open_ones += [(node.no, depth + 1), (node.yes, depth + 1)]


def leaf_count(tree: Tree) -> int:
    """The size of the tree."""
    return sum(isinstance(node, Leaf) for node, _ in nodes(tree))


def depth(tree: Tree) -> int:
    """The most questions on a way to a leaf."""
    return max(level for _, level in nodes(tree))


def offsets(tree: Tree) -> set[int]:
    """The offsets that the tree asks for."""
    return {node.offset for node, _ in nodes(tree) if isinstance(node, Node)}


def predict(tree: Tree, string: Sequence[Token]) -> Token:
    """The next token; a question about a place before the string is answered with no."""
    while isinstance(tree, Node):
        matches = tree.offset <= len(string) and string[-tree.offset] == tree.token
        tree = tree.yes if matches else tree.no
    return tree.token


def generate(tree: Tree, string: Sequence[Token], tokens: int) -> list[Token]:
    """The next ``tokens`` tokens, each predicted from all before it."""
    extended = list(string)
    for _ in range(tokens):
        extended.append(predict(tree, extended))
    return extended[len(string) :]


def chain(offset: int, cases: Sequence[tuple[Token, Tree]]) -> Tree:
    """One question after the other at one offset; what is none of the others is the last case."""
    *questions, (_, tree) = cases
    for token, below in reversed(questions):
        tree = Node(offset, token, below, tree)
    return tree


def many(tree: Tree, strings: Int[np.ndarray, "string place"], tokens: int) -> Int[np.ndarray, "string token"]:
    """`generate` for many strings of one length at once; tokens are integers."""
    order = [node for node, _ in nodes(tree)]
    place = {id(node): 2 * number for number, node in enumerate(order)}
    # Two entries a node: it is found at the first of them, and below it at the first (no) or the second (yes).
    offsets, wanted, below = (np.zeros(2 * len(order), dtype=np.int64) for _ in range(3))
    for at, node in zip(range(0, len(offsets), 2), order, strict=True):
        if isinstance(node, Node):
            offsets[at], wanted[at] = node.offset, int(str(node.token))
            below[at : at + 2] = place[id(node.no)], place[id(node.yes)]
        else:
            wanted[at], below[at : at + 2] = int(str(node.token)), at
    batch, length = strings.shape
    widest = max(int(offsets.max()), 1)
    # Places first, so that one place of all strings is one row; -1 before the string is no token.
    extended = np.full((widest + length + tokens, batch), -1, dtype=np.int64)
    extended[widest : widest + length] = strings.T
    flat, back, columns, levels = extended.reshape(-1), offsets * batch, np.arange(batch), depth(tree)
    for end in range(widest + length, len(extended)):
        at = below.take((extended[end - offsets[0]] == wanted[0]) + 0)
        current = columns + end * batch
        for _ in range(levels - 1):
            at = below.take(at + (flat.take(current - back.take(at)) == wanted.take(at)))
        extended[end] = wanted.take(at)
    return extended[widest + length :].T


def automaton_tree(automaton: Automaton, state_offset: int, letter_offset: int) -> Tree:
    """m k leaves, depth m + k - 2: a chain over states, below each a chain over letters.

    Tokens are letters 0 to k - 1 and states k to k + m - 1 (`automaton_strings`).
    """
    k = automaton.letters
    rows = [
        chain(letter_offset, [(letter, Leaf(k + after)) for letter, after in enumerate(row)])
        for row in automaton.transitions
    ]
    return chain(state_offset, [(k + state, below) for state, below in enumerate(rows)])


def automaton_strings(
    automaton: Automaton, words: Int[np.ndarray, "word letter"], interleaved: bool
) -> Int[np.ndarray, "word place"]:
    """Words with the states they lead through, as tokens: $x_1 .. x_n q_0 q_1 .. q_n$, or $q_0 x_1 q_1 .. x_n q_n$.

    In the first layout, state $q_t$ is predicted from $q_{t-1}$ at offset 1 and $x_t$ at offset n + 1; in the second, from $x_t$ at
    offset 1 and $q_{t-1}$ at offset 2, whatever n is.
    """
    states = automaton.run(words) + automaton.letters
    if not interleaved:
        return np.concatenate((words, states), axis=1)
    strings = np.empty((len(words), 2 * words.shape[1] + 1), dtype=np.int64)
    strings[:, 0::2], strings[:, 1::2] = states, words
    return strings


def final_states(
    tree: Tree, automaton: Automaton, words: Int[np.ndarray, "word letter"], interleaved: bool
) -> Int[np.ndarray, " word"]:
    """The last state token that a tree comes to by itself from the start state."""
    batch, length = words.shape
    start = np.full((batch, 1), automaton.letters)
    if not interleaved:
        return many(tree, np.concatenate((words, start), axis=1), length)[:, -1]
    string = start
    for place in range(length):
        string = np.concatenate((string, words[:, place : place + 1]), axis=1)
        string = np.concatenate((string, many(tree, string, 1)), axis=1)
    return string[:, -1]


def turing_tree(machine: TuringMachine, cells: int) -> Tree:
    """H + 1 + k (L + 1) leaves: the next configuration on ``cells`` cells, cell by cell.

    Configurations follow one another, each closed by ``#``, with a ``#`` in front (`turing_string`): the same cell of the
    configuration before is ``cells`` + 1 places from the end, its left neighbour one more and its right neighbour one less.
    """
    period, tape = cells + 1, machine.symbols
    cases: list[tuple[Token, Tree]] = []
    for head in machine.heads:
        cases.append((head, Leaf(machine.transitions[head].write if head in machine.transitions else head)))
    cases.append((MARKER, Leaf(MARKER)))
    live = [head for head in machine.heads if head in machine.transitions]
    for symbol in tape:
        below: Tree = Leaf(symbol)
        for direction, offset in ((LEFT, period - 1), (RIGHT, period + 1)):
            for head in reversed(live):
                state = machine.moves(head, direction)
                if state is not None:
                    below = Node(offset, head, Leaf(Head(state, symbol)), below)
        cases.append((symbol, below))
    return chain(period, cases)


def turing_string(machine: TuringMachine, configuration: Configuration, steps: int = 0) -> list[Token]:
    """``# c_1 .. c_M #``.

    Raises:
        LabError: the head leaves the cells within ``steps`` steps; the padding it needs is named.
    """
    state, tape, head = configuration
    low, high, at = 0, len(tape) - 1, head
    for before in run(machine, configuration, steps)[:steps]:
        transition = machine.transitions.get((before.state, before.tape[before.head]))
        if transition is not None:
            at += transition.move
            low, high = min(low, at), max(high, at)
    if low < 0 or high >= len(tape):
        raise LabError(
            f"A tape of {len(tape)} cells is too short for {steps} steps, in which the head leaves it; pad it with {-low} more "
            f"blanks on the left and {high - len(tape) + 1} on the right."
        )
    return [MARKER, *tape[:head], Head(state, tape[head]), *tape[head + 1 :], MARKER]


def circuit_tree(circuit: Circuit) -> Tree:
    """At most 2 N 2^k leaves and depth 2 N + k: the next gate's value, after ``bits, START, (0, value), (1, value) ..``."""

    def gate(number: int, wires: Sequence[int], bits: int) -> Tree:
        if not wires:
            return Leaf((number, circuit.tables[number][bits]))
        wire, after = wires[0], wires[1:]
        inputs = circuit.inputs
        offset = inputs + 1 + number - (wire if wire < inputs else wire + 1)
        token: Token = 1 if wire < inputs else (wire - inputs, 1)
        return Node(offset, token, gate(number, after, 2 * bits + 1), gate(number, after, 2 * bits))

    trees = [gate(number, wires, 0) for number, wires in enumerate(circuit.wires)]
    cases: list[tuple[Token, Tree]] = [(START, trees[0])]
    cases += [((number - 1, value), below) for number, below in enumerate(trees) if number for value in (0, 1)]
    return chain(1, cases)


def least_leaves(values: Int[np.ndarray, "*bits"]) -> int:
    """The fewest leaves of any tree over bits that gives this function, an array of shape 2 x 2 x ...: by dynamic programming
    over the functions that fixing bits leaves."""
    known: dict[tuple[int, bytes], int] = {}

    def least(part: np.ndarray) -> int:
        key = part.ndim, part.tobytes()
        if key not in known:
            flat = part.reshape(-1)
            if (flat == flat[0]).all():
                known[key] = 1
            else:
                known[key] = min(
                    least(np.ascontiguousarray(part.take(0, axis))) + least(np.ascontiguousarray(part.take(1, axis)))
                    for axis in range(part.ndim)
                )
        return known[key]

    return least(np.ascontiguousarray(values))


def least_leaves_of_all(bits: int) -> Int[np.ndarray, " function"]:
    """The fewest leaves of each of the $2^{2^n}$ functions of n bits; bit x of a function's number is its value at x."""
    return _least_of_all(bits, 1, np.add)


def least_depth_of_all(bits: int) -> Int[np.ndarray, " function"]:
    """The least depth of a tree for each of the $2^{2^n}$ functions of n bits."""
    return _least_of_all(bits, 0, lambda no, yes: 1 + np.maximum(no, yes))


def _least_of_all(bits: int, constant: int, joined: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """The least cost of a tree for each function, from that of a constant and of a question above two trees."""
    known = np.full(2, constant)  # functions of no bit
    for size in range(1, bits + 1):
        points = 2**size
        values = (np.arange(2**points)[:, None] >> np.arange(points) & 1).reshape(-1, *(2,) * size)
        weights = 1 << np.arange(points // 2)
        costs = []
        for axis in range(size):
            parts = [values.take(side, axis + 1).reshape(len(values), -1) @ weights for side in (0, 1)]
            costs.append(joined(known[parts[0]], known[parts[1]]))
        known = np.min(costs, axis=0)
        known[[0, -1]] = constant
    return known


def count_bound(bits: int, leaves: int) -> int:
    r"""At most so many functions of n bits have a tree of $\ell$ leaves: $C_{\ell-1}\, n^{\ell-1}\, 2^\ell$.

    There are Catalan number $C_{\ell-1} = \binom{2\ell-2}{\ell-1} / \ell$ binary trees of $\ell$ leaves, n questions
    for each of the $\ell - 1$ inner nodes and 2 values for each leaf.

    >>> count_bound(2, 2)
    8
    """
    catalan = math.comb(2 * leaves - 2, leaves - 1) // leaves
    return catalan * bits ** (leaves - 1) * 2**leaves
