from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sympy.combinatorics import Permutation

from lab.domains.derivations import automata as exact
from lab.errors import LabError
from lab.streams import stream


def test_products_are_those_of_permutations() -> None:
    rows, product = exact.elements().tolist(), exact.products()
    pairs = stream(0, "pairs").rng().integers(0, 120, (200, 2)).tolist()
    for g, h in pairs:
        assert rows[int(product[g, h])] == (Permutation(rows[g]) * Permutation(rows[h])).array_form
    assert bool((product[torch.arange(120), exact.inverse()] == 0).all())


def test_two_generators_reach_everything() -> None:
    assert bool((exact.walk_law(exact.group_table(), 40).sum(0) > 0).all())
    assert exact.element([1, 0, 2, 3, 4]) == exact.group_table()[0, 0]


@given(st.integers(1, 5), st.integers(1, 3), st.integers(1, 9), st.integers(0, 100))
def test_two_ways_to_run_any_machine(states: int, letters: int, length: int, seed: int) -> None:
    rng = stream(seed, "machine").rng()
    table = torch.from_numpy(rng.integers(0, states, (states, letters)))
    words = torch.from_numpy(rng.integers(0, letters, (4, length)))
    assert torch.equal(exact.run(table, words), exact.run_by_composition(table, words))


def test_parity_counts() -> None:
    words = torch.tensor([[1, 0, 1, 1], [0, 0, 0, 1]])
    assert exact.run(exact.parity_table(), words).tolist() == [[1, 1, 0, 1], [0, 0, 0, 1]]


@pytest.mark.parametrize("every", [1, 2, 3, 6])
def test_thinned_derivations_are_every_kth_state(every: int) -> None:
    table = exact.group_table(3)
    full = exact.words(stream(0, "x"), 10, table=table, length=6)
    thin = exact.words(stream(0, "x"), 10, table=table, length=6, every=every)
    assert all(exact.first_wrong_step(row, table, 6) is None for row in full.tokens.tolist())
    assert thin.tokens.shape[1] == exact.row_length(6, every)
    chosen = 6 + exact.written_states(6, every)
    assert torch.equal(thin.tokens[:, 7:-1], full.tokens[:, chosen])


def test_misleading_steps_end_right() -> None:
    table = exact.group_table()
    words = torch.from_numpy(stream(0, "w").rng().integers(0, 2, (300, 8)))
    states, true = exact.misleading_states(stream(0, "x"), table, words), exact.run(table, words)
    assert torch.equal(states[:, -1], true[:, -1])
    assert float((states[:, :-1] == true[:, :-1]).double().mean()) < 0.05


def test_refusals() -> None:
    with pytest.raises(LabError, match="A transition leads to state 2 but the states are 0 to 1"):
        exact.words(stream(0, "x"), 3, table=torch.tensor([[0, 2], [1, 0]]), length=4)
    with pytest.raises(LabError, match="The letter 2 lies outside the alphabet 0 to 1"):
        exact.run(exact.parity_table(), torch.tensor([[0, 2]]))
    with pytest.raises(LabError, match="every = 0"):
        exact.words(stream(0, "x"), 3, table=exact.parity_table(), length=4, every=0)
    with pytest.raises(LabError, match="no permutation of 0 to 2"):
        exact.element([0, 0, 1])
