from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.domains.machines.automata import AUTOMATA, Automaton, Circuit, random_automaton, random_circuit
from lab.domains.machines.trees import (
    START,
    Leaf,
    Node,
    automaton_strings,
    automaton_tree,
    circuit_tree,
    depth,
    final_states,
    generate,
    leaf_count,
    least_depth_of_all,
    least_leaves,
    least_leaves_of_all,
    many,
    offsets,
    predict,
    turing_string,
    turing_tree,
)
from lab.domains.machines.turing import MACHINES, UNIVERSAL, Configuration, on_word, random_configuration, run
from lab.errors import LabError
from lab.streams import stream

FEW = settings(deadline=None, max_examples=12, derandomize=True)


def test_a_place_before_the_string_is_answered_with_no() -> None:
    tree = Node(3, "a", Leaf("yes"), Leaf("no"))
    assert predict(tree, ["a", "b"]) == "no"
    assert generate(tree, ["a", "b", "b"], 2) == ["yes", "no"]


@FEW
@given(seed=st.integers(0, 999), states=st.integers(1, 6), letters=st.integers(1, 4), length=st.integers(1, 9))
def test_trees_of_automata(seed: int, states: int, letters: int, length: int) -> None:
    automaton = random_automaton(stream(seed, "automaton"), states, letters)
    words = stream(seed, "words").rng().integers(letters, size=(3, length))
    tree = automaton_tree(automaton, 1, length + 1)
    assert leaf_count(tree) == states * letters
    assert depth(tree) == states + letters - 2
    strings = automaton_strings(automaton, words, interleaved=False)
    generated = many(tree, strings[:, : length + 1], length)
    assert np.array_equal(generated, strings[:, length + 1 :])
    assert generate(tree, strings[0, : length + 1].tolist(), length) == generated[0].tolist()
    interleaved = automaton_tree(automaton, 2, 1)
    assert np.array_equal(final_states(interleaved, automaton, words, interleaved=True), strings[:, -1])
    assert np.array_equal(final_states(tree, automaton, words, interleaved=False), strings[:, -1])


def test_named_automata() -> None:
    words = stream(0, "words").rng().integers(2, size=(50, 8))
    text = ["".join("ab"[letter] for letter in word) for word in words]
    last = {name: automaton.run(words)[:, -1] for name, automaton in AUTOMATA.items()}
    assert np.array_equal(last["parity"], words.sum(1) % 2)
    assert np.array_equal(last["count mod 3"], words.sum(1) % 3)
    assert [state == 3 for state in last["contains aab"]] == ["aab" in word for word in text]
    assert AUTOMATA["flip-flop"].run(np.array([[0, 2, 2, 1, 2]]))[0].tolist() == [0, 1, 1, 1, 0, 0]


@pytest.mark.parametrize("name", list(MACHINES))
def test_trees_of_turing_machines(name: str) -> None:
    machine, steps = MACHINES[name], 12
    start = random_configuration(stream(0, name), machine, 3)
    blanks = (machine.blank,) * steps
    start = Configuration(start.state, (*blanks, *start.tape, *blanks), start.head + steps)
    cells = len(start.tape)
    tree = turing_tree(machine, cells)
    live, k = len(machine.transitions), len(machine.symbols)
    assert leaf_count(tree) == len(machine.heads) + 1 + k * (live + 1)
    assert offsets(tree) == {cells, cells + 1, cells + 2}
    history = run(machine, start, steps)
    written = generate(tree, turing_string(machine, start, steps), steps * (cells + 1))
    for step in range(steps):
        expected = history[min(step + 1, len(history) - 1)]
        assert written[step * (cells + 1) : (step + 1) * (cells + 1)] == turing_string(machine, expected)[1:]


def test_a_tape_that_the_head_leaves_names_its_padding() -> None:
    with pytest.raises(LabError, match="pad it with 1 more blanks on the left and 0 on the right"):
        turing_string(MACHINES["BB3"], on_word(MACHINES["BB3"], "000000"), 14)


@FEW
@given(seed=st.integers(0, 999), inputs=st.integers(1, 5), gates=st.integers(1, 9), wires=st.integers(1, 3))
def test_trees_of_circuits(seed: int, inputs: int, gates: int, wires: int) -> None:
    circuit = random_circuit(stream(seed, "circuit"), inputs, gates, wires)
    tree = circuit_tree(circuit)
    assert leaf_count(tree) <= 2 * gates * 2**wires
    assert depth(tree) <= 2 * gates + wires
    for number in range(2**inputs):
        bits = [number >> place & 1 for place in range(inputs)]
        assert generate(tree, [*bits, START], gates) == list(enumerate(circuit.values(bits)))


def brute(values: np.ndarray) -> int:
    if (values == values.flat[0]).all():
        return 1
    return min(brute(values.take(0, axis)) + brute(values.take(1, axis)) for axis in range(values.ndim))


def test_least_leaves_against_all_trees() -> None:
    for bits in (1, 2, 3):
        known = least_leaves_of_all(bits)
        for number in range(0, len(known), 7 if bits == 3 else 1):
            values = (number >> np.arange(2**bits) & 1).reshape((2,) * bits)
            assert known[number] == least_leaves(values) == brute(values)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5])
def test_known_sizes(bits: int) -> None:
    count = np.indices((2,) * bits).sum(0)
    assert least_leaves(count % 2) == 2**bits
    assert least_leaves((count == bits).astype(int)) == bits + 1
    if bits % 2:
        assert least_leaves((2 * count > bits).astype(int)) == {1: 2, 3: 6, 5: 20}[bits]


def test_least_depths() -> None:
    depths = least_depth_of_all(3)
    parity = sum(1 << point for point in range(8) if point.bit_count() % 2)
    assert [depths[0], depths[parity], depths[0b11110000]] == [0, 3, 1]
    assert bool((least_leaves_of_all(3) <= 2**depths).all())


def test_bad_input_is_refused_in_one_sentence() -> None:
    with pytest.raises(LabError, match="State 0 leads to the state 2, which is not defined"):
        Automaton(((0, 2), (1, 0)))
    with pytest.raises(LabError, match="rows of one length"):
        Automaton(((0, 1), (1,)))
    with pytest.raises(LabError, match="The letter 2 is none of 0 to 1"):
        AUTOMATA["parity"].run(np.array([[0, 2]]))
    with pytest.raises(LabError, match="Gate 0 reads the wire 2, but only wires 0 to 1"):
        Circuit(2, ((0, 2),), ((0, 1, 1, 0),))
    with pytest.raises(LabError, match="The table of gate 0 has 2 entries; 2 wires need 4"):
        Circuit(2, ((0, 1),), ((0, 1),))
    with pytest.raises(LabError, match="The symbol 'x' is none of 0, 1"):
        on_word(UNIVERSAL, "x")
