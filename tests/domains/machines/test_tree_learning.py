from __future__ import annotations

import numpy as np
import pytest

from lab.domains.machines.automata import AUTOMATA
from lab.domains.machines.tree_learning import grow, split_impurities, windows
from lab.domains.machines.trees import automaton_strings, final_states, leaf_count, many, offsets
from lab.errors import LabError
from lab.streams import stream


def rows_of(name: str, length: int, words: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    automaton = AUTOMATA[name]
    drawn = stream(seed, "words").rng().integers(automaton.letters, size=(words, length))
    strings = automaton_strings(automaton, drawn, interleaved=False)
    return windows(strings, length + 1, np.arange(length + 1, 2 * length + 1))


def test_windows_begin_with_the_last_token() -> None:
    rows, targets = windows(np.array([[5, 6, 7]]), 3, np.array([1, 2]))
    assert rows.tolist() == [[5, -1, -1], [6, 5, -1]]
    assert targets.tolist() == [6, 7]


def test_greedy_growth_finds_the_automaton() -> None:
    tree = grow(*rows_of("contains aab", 6, 40), stream(0, "grow"))
    assert offsets(tree) == {1, 7}
    assert leaf_count(tree) in (5, 6)  # of eight pairs, as pairs with one next state can share a leaf
    words = stream(1, "words").rng().integers(2, size=(200, 6))
    expected = AUTOMATA["contains aab"].run(words)[:, -1] + 2
    assert np.array_equal(final_states(tree, AUTOMATA["contains aab"], words, interleaved=False), expected)


def test_look_ahead_finds_a_parity_that_greed_misses() -> None:
    rows = rows_of("parity", 12, 5)
    assert leaf_count(grow(*rows, stream(0, "grow"), look_ahead=True)) == 4
    assert leaf_count(grow(*rows, stream(0, "grow"))) > 4


def test_a_grown_tree_fits_its_rows() -> None:
    rng = stream(3, "rows").rng()
    rows = np.unique(rng.integers(3, size=(40, 4)), axis=0)
    targets = rng.integers(2, size=len(rows))
    tree = grow(rows, targets, stream(0, "grow"))
    assert np.array_equal(many(tree, rows[:, ::-1], 1)[:, 0], targets)


def test_rows_that_contradict_each_other_end_in_their_majority() -> None:
    tree = grow(np.zeros((3, 2), dtype=int), np.array([1, 1, 0]), stream(0, "grow"))
    assert leaf_count(tree) == 1
    assert many(tree, np.zeros((1, 2), dtype=int), 1).tolist() == [[1]]


def test_impurity_against_its_definition() -> None:
    rng = stream(4, "rows").rng()
    answers, classes = rng.integers(2, size=(20, 3)).astype(bool), rng.integers(3, size=20)
    impurities = split_impurities(answers, np.eye(3)[classes])
    for question in range(3):
        parts = (classes[answers[:, question]], classes[~answers[:, question]])
        expected = sum(len(part) - sum(np.sum(part == label) ** 2 for label in range(3)) / len(part) for part in parts)
        assert impurities[question] == pytest.approx(expected)


def test_bad_input_is_refused_in_one_sentence() -> None:
    with pytest.raises(LabError, match="at least 1 row"):
        grow(np.zeros((0, 2), dtype=int), np.zeros(0, dtype=int), stream(0, "grow"))
    with pytest.raises(LabError, match="A window of 0 tokens"):
        windows(np.zeros((1, 3), dtype=int), 0, np.array([1]))
