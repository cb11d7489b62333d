from __future__ import annotations

import pytest
import torch

from lab.domains.derivations import formulas as exact
from lab.domains.derivations.arithmetic import encode, evaluate
from lab.domains.derivations.automata import elements
from lab.errors import LabError
from lab.streams import stream


def as_text(drawn: exact.Formulas, row: int, values: list[bool], node: int = 0) -> str:
    """The arithmetic expression that a formula becomes."""
    gates = drawn.conjunction.shape[1]
    if node >= gates:
        text = str(int(values[int(drawn.variable[row, node - gates])]))
    else:
        left, right = (as_text(drawn, row, values, child) for child in (2 * node + 1, 2 * node + 2))
        text = f"({left}*{right})" if drawn.conjunction[row, node] else f"(1-(1-{left})*(1-{right}))"
    return f"(1-{text})" if drawn.negated[row, node] else text


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_formulas_as_trees_as_arithmetic_and_as_written_expressions(depth: int) -> None:
    drawn, inputs = exact.random_formulas(stream(0, "x"), 12, depth, 3), exact.all_inputs(3)
    values = exact.node_values(drawn, inputs)[:, :, 0]
    for row in range(12):
        for place, assignment in enumerate(inputs.tolist()):
            truth = bool(values[row, place])
            assert exact.truth(drawn, row, assignment) == truth
            assert evaluate(encode(as_text(drawn, row, assignment)).tolist(), 11) == truth
    assert torch.equal(exact.field_values(drawn, inputs, 11), values.long())


def test_there_are_24_cycles_of_five_and_each_is_a_commutator() -> None:
    cycles = exact.five_cycles()
    assert len(cycles) == 24
    assert elements()[int(cycles[0])].tolist() == [1, 2, 3, 4, 0]
    assert bool((exact.commutators()[cycles] > 0).all())


@pytest.mark.parametrize("place", [0, 7, 23])
def test_programs_reach_any_five_cycle(place: int) -> None:
    drawn, inputs = exact.random_formulas(stream(0, "x"), 12, 2, 3), exact.all_inputs(3)
    target = int(exact.five_cycles()[place])
    program = exact.program(drawn, target)
    truth = exact.node_values(drawn, inputs)[:, :, 0]
    assert len(program.leaf) == 16
    assert torch.equal(exact.run_program(program, drawn, inputs), truth.long() * target)


def test_rows_are_right_and_a_wrong_gate_is_found() -> None:
    rows = exact.formulas(stream(0, "x"), 40, depth=3)
    assert all(exact.first_wrong_step(row, 3) is None for row in rows.tokens.tolist())
    for gate in range(7):
        changed = rows.tokens[0].clone()
        changed[16 + gate] = exact.FALSE + exact.TRUE - changed[16 + gate]
        assert exact.first_wrong_step(changed.tolist(), 3) == gate
    direct = exact.formulas(stream(0, "x"), 40, depth=3, format="direct")
    assert torch.equal(direct.tokens[:, 16], rows.tokens[:, 22])


def test_refusals() -> None:
    drawn = exact.random_formulas(stream(0, "x"), 2, 1, 2)
    with pytest.raises(LabError, match="The element 0 of S5 is no 5-cycle"):
        exact.program(drawn, 0)
    with pytest.raises(LabError, match="not prime"):
        exact.field_values(drawn, exact.all_inputs(2), 4)
    with pytest.raises(LabError, match="depth = 0"):
        exact.formulas(stream(0, "x"), 2, depth=0)
