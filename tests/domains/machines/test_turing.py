from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.domains.machines.turing import (
    MACHINES,
    UNIVERSAL,
    Configuration,
    Transition,
    TuringMachine,
    configurations,
    from_table,
    normal,
    on_word,
    random_configuration,
    random_machine,
    random_tapes,
    run,
    run_many,
)
from lab.errors import LabError
from lab.streams import stream


@pytest.mark.parametrize(
    ("name", "steps", "written"), [("BB2", 6, 4), ("BB3", 14, 6), ("BB4", 107, 13), ("BB(2,3)", 38, 9)]
)
def test_busy_beavers_halt_when_they_are_known_to(name: str, steps: int, written: int) -> None:
    machine = MACHINES[name]
    history = run(machine, on_word(machine, ""), 1000)
    assert len(history) - 1 == steps
    assert history[-1].state == "H"
    assert sum(symbol != machine.blank for symbol in history[-1].tape) == written


@given(number=st.integers(0, 10_000))
@settings(deadline=None, max_examples=25, derandomize=True)
def test_increment_adds_one(number: int) -> None:
    machine = MACHINES["increment"]
    last = normal(machine, run(machine, on_word(machine, f"{number:b}"), 200)[-1])
    assert "".join(last.tape).replace("_", "") == f"{number + 1:b}"


@given(word=st.text("01", max_size=7))
@settings(deadline=None, max_examples=40, derandomize=True)
def test_palindromes_are_told(word: str) -> None:
    machine = MACHINES["palindrome"]
    assert run(machine, on_word(machine, word), 1000)[-1].state == ("Y" if word == word[::-1] else "N")


def test_the_universal_machine_has_the_published_size() -> None:
    assert (len(UNIVERSAL.states), len(UNIVERSAL.heads), len(UNIVERSAL.transitions)) == (15, 30, 29)
    assert ("J", "1") not in UNIVERSAL.transitions
    assert len(UNIVERSAL.right_targets) == 7


@given(seed=st.integers(0, 99), states=st.integers(1, 4), symbols=st.integers(2, 3))
@settings(deadline=None, max_examples=15, derandomize=True)
def test_many_tapes_at_once_are_as_each_alone(seed: int, states: int, symbols: int) -> None:
    machine = random_machine(stream(seed, "machine"), states, symbols)
    tapes = random_tapes(stream(seed, "tapes"), machine, 6, 50)
    tapes = tapes._replace(heads=np.full(6, 25))
    ends = configurations(machine, run_many(machine, tapes, 20))
    for start, last in zip(configurations(machine, tapes), ends, strict=True):
        assert run(machine, start, 20)[-1] == last


def test_a_tape_that_is_too_short_names_the_padding() -> None:
    machine = from_table("A:0RA,1RA", "01")
    with pytest.raises(LabError, match="leaves its 3 cells within 5 steps; pad every tape with 5 blanks"):
        run_many(machine, random_tapes(stream(0, "tapes"), machine, 2, 3), 5)


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("A:1RB,1LA", "names the state 'B', which is none of A; define it"),
        ("A:2RA,1LA", "The symbol '2' is none of 0, 1"),
        ("A:1RA", "1 entries but 2 symbols"),
        ("A:1XA,1LA", "'1XA' of state A cannot be read; write it like 1RB"),
    ],
)
def test_bad_tables_are_refused_in_one_sentence(table: str, sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        from_table(table, "01")


def test_other_bad_machines_and_words_are_refused() -> None:
    with pytest.raises(LabError, match="moves by 0; a move is -1 or \\+1"):
        TuringMachine(("A",), ("0",), {("A", "0"): Transition("0", 0, "A")})
    with pytest.raises(LabError, match="must be at least 1 and different"):
        TuringMachine(("A", "A"), ("0",), {})
    with pytest.raises(LabError, match="The symbol 'x' is none of 0, 1"):
        on_word(UNIVERSAL, "0x")


def test_configurations_are_compared_up_to_blanks() -> None:
    long = Configuration("A", tuple("0010100"), 4)
    assert normal(UNIVERSAL, long) == Configuration("A", tuple("101"), 2)
    assert normal(UNIVERSAL, Configuration("A", tuple("000"), 1)) == Configuration("A", ("0",), 0)
    start = random_configuration(stream(1, "x"), UNIVERSAL, 5)
    assert len(start.tape) == 5
    assert 0 <= start.head < 5
