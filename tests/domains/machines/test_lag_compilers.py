from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.domains.machines.lag_compilers import compare, compiled, decode, encode, rule_count
from lab.domains.machines.turing import (
    MACHINES,
    UNIVERSAL,
    Configuration,
    TuringMachine,
    from_table,
    on_word,
    random_configuration,
    random_machine,
)
from lab.errors import LabError
from lab.streams import stream


def agrees(machine: TuringMachine, start: Configuration, window: int, steps: int) -> bool:
    """Whether the ring shows every configuration of the machine, each at its price, and halts when it does."""
    comparison = compare(machine, start, compiled(machine, window), encode(machine, start, window), steps)
    return comparison.right and comparison.cost == 0


def test_a_wrong_rule_is_seen() -> None:
    start = on_word(UNIVERSAL, "0010", 1)
    system = compiled(UNIVERSAL, 2)
    queue = encode(UNIVERSAL, start, 2)
    rules = dict(system.rules)
    rules[queue[:2]] = ("0",)
    assert compare(UNIVERSAL, start, system, queue, 20) == (20, True, 0)
    assert not compare(UNIVERSAL, start, replace(system, rules=rules), queue, 20).right


@pytest.mark.parametrize("window", [2, 3])
@pytest.mark.parametrize("name", list(MACHINES))
def test_every_named_machine_runs_on_its_ring(name: str, window: int) -> None:
    machine = MACHINES[name]
    for seed in range(3):
        assert agrees(machine, random_configuration(stream(seed, "start"), machine, 3 + 2 * seed), window, 40)


@given(seed=st.integers(0, 10_000), states=st.integers(1, 5), symbols=st.integers(2, 3), cells=st.integers(3, 6))
@settings(deadline=None, max_examples=8, derandomize=True)
def test_random_machines_run_on_their_rings(seed: int, states: int, symbols: int, cells: int) -> None:
    machine = random_machine(stream(seed, "machine"), states, symbols)
    start = random_configuration(stream(seed, "start"), machine, cells)
    for window in (2, 3):
        assert len(compiled(machine, window).rules) == rule_count(machine, window)
        assert agrees(machine, start, window, 30)


def test_the_universal_machine_takes_587_and_724_rules() -> None:
    assert [len(compiled(UNIVERSAL, window).rules) for window in (2, 3)] == [587, 724]
    assert [len(compiled(UNIVERSAL, window).alphabet) for window in (2, 3)] == [111, 33]
    assert sum(len(right) == 2 for right in compiled(UNIVERSAL, 2).rules.values()) == 44


def test_two_cells_are_too_few_for_window_3_and_enough_for_window_2() -> None:
    start = Configuration("A", ("0", "0"), 0)
    assert agrees(UNIVERSAL, start, 2, 50)
    with pytest.raises(
        LabError, match="2 cells is too short for the compiler of window 3, which needs 3; pad it with 1 more blank"
    ):
        encode(UNIVERSAL, start, 3)
    with pytest.raises(LabError, match="needs 2; pad it with 1 more blank"):
        encode(UNIVERSAL, Configuration("A", ("0",), 0), 2)


def test_bad_input_is_refused_in_one_sentence() -> None:
    with pytest.raises(LabError, match="no compiler of window 4; choose 2"):
        compiled(UNIVERSAL, 4)
    with pytest.raises(LabError, match="uses the name '#', which marks the ring; rename it"):
        compiled(from_table("A:#RA,0RA", "0#"), 2)
    with pytest.raises(LabError, match="The symbol '7' is none of 0, 1"):
        encode(UNIVERSAL, Configuration("A", ("0", "7"), 0), 2)
    with pytest.raises(LabError, match="The state 'Z' and the cell 0 must be one of A"):
        encode(UNIVERSAL, Configuration("Z", ("0", "1"), 0), 2)


def test_the_midst_of_a_step_shows_no_configuration() -> None:
    machine = MACHINES["BB3"]
    queue = encode(machine, on_word(machine, "000"), 2)
    assert decode(queue, 2) is not None
    assert decode(queue[1:], 2) is None
    assert decode((*queue[1:], "#", "#"), 2, halted=True) is None
