from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.domains.machines.lag import compile_table, lag_system, restricted, run, run_many
from lab.errors import LabError
from lab.streams import stream


def random_system(seed: int, letters: int, window: int, missing: float):
    rng = stream(seed, "system").rng()
    alphabet = "abcde"[:letters]
    rules = []
    for number in range(letters**window):
        left = tuple(alphabet[number // letters**place % letters] for place in range(window))
        if rng.random() >= missing:
            size = 1 + (rng.random() < 0.2)
            rules.append((left, tuple(alphabet[letter] for letter in rng.integers(letters, size=size))))
    return lag_system(window, alphabet, rules)


def test_one_symbol_is_deleted_and_the_right_side_appended() -> None:
    system = lag_system(2, "ab", [(("a", "b"), ("b", "a")), (("b", "b"), ("a",))])
    assert run(system, "ab", 1).queue == ("b", "b", "a")
    assert run(system, "ab", 2) == (("b", "a", "a"), 2, 3, True)
    assert run(system, "a", 5) == (("a",), 0, 0, True)
    assert restricted(system).rules[("a", "b")] == ("b",)


@given(seed=st.integers(0, 200), letters=st.integers(2, 5), window=st.integers(1, 3), long=st.integers(1, 5))
@settings(deadline=None, max_examples=12, derandomize=True)
def test_many_queues_at_once_are_as_each_alone(seed: int, letters: int, window: int, long: int) -> None:
    system = random_system(seed, letters, window, 0.02 * (seed % 3))
    table = compile_table(system)
    queues = stream(seed, "queues").rng().integers(letters, size=(5, long))
    runs = run_many(table, queues, 60)
    for place, queue in enumerate(queues):
        alone = run(system, table.word(queue), 60)
        assert alone.queue == table.word(runs.queues[place])
        assert (alone.rules, alone.written) == (runs.rules[place], runs.written[place])


def test_a_queue_may_outgrow_its_ring() -> None:
    system = lag_system(1, "a", [(("a",), ("a", "a"))])
    runs = run_many(compile_table(system), np.zeros((3, 1), dtype=int), 100)
    assert [len(queue) for queue in runs.queues] == [101] * 3


@pytest.mark.parametrize(
    ("rules", "sentence"),
    [
        ([("ab", "a"), ("ab", "b")], r"The window \('a', 'b'\) has two rules"),
        ([("abb", "a")], "must read 2 and write 1 or 2"),
        ([("ab", "")], "reads 2 symbols and writes 0"),
        ([("ax", "a")], "The letter 'x' is none of the 2 letters"),
    ],
)
def test_bad_rules_are_refused_in_one_sentence(rules: list[tuple[str, str]], sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        lag_system(2, "ab", [(tuple(left), tuple(right)) for left, right in rules])


def test_a_word_with_a_letter_outside_the_alphabet_is_refused() -> None:
    system = lag_system(1, "ab", [(("a",), ("b",))])
    for ask in (lambda: run(system, "abc", 3), lambda: compile_table(system).codes("abc")):
        with pytest.raises(LabError, match="The letter 'c' is none of the 2 letters of this system"):
            ask()
