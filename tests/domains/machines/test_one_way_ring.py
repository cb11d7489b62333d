from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.domains.machines.lag_compilers import encode
from lab.domains.machines.one_way_ring import one_way, steps, symbols_of_a_move
from lab.domains.machines.turing import (
    MACHINES,
    Configuration,
    TuringMachine,
    normal,
    random_configuration,
    random_machine,
    run,
)
from lab.streams import stream


def check(machine: TuringMachine, start: Configuration, count: int) -> None:
    """Every configuration is the machine's, at its price."""
    history, expected = steps(one_way(machine), encode(machine, start, 2), count), run(machine, start, count)
    assert [normal(machine, configuration) for configuration, _ in history] == [
        normal(machine, configuration) for configuration in expected
    ]
    for (before, paid), (after, written) in zip(history, history[1:], strict=False):
        cells = len(before.tape)
        move = machine.transitions[before.state, before.tape[before.head]].move
        assert written - paid == symbols_of_a_move(cells, move, len(after.tape) > cells)


@pytest.mark.parametrize("name", list(MACHINES))
def test_every_named_machine_runs_on_its_ring(name: str) -> None:
    for seed in range(2):
        check(MACHINES[name], random_configuration(stream(seed, "start"), MACHINES[name], 2 + 3 * seed), 15)


@given(seed=st.integers(0, 10_000), states=st.integers(1, 4), symbols=st.integers(2, 3), cells=st.integers(2, 5))
@settings(deadline=None, max_examples=12, derandomize=True)
def test_random_machines_run_on_their_rings(seed: int, states: int, symbols: int, cells: int) -> None:
    machine = random_machine(stream(seed, "machine"), states, symbols)
    check(machine, random_configuration(stream(seed, "start"), machine, cells), 12)
