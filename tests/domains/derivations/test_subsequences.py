from __future__ import annotations

from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lab.domains.derivations import subsequences as exact
from lab.errors import LabError
from lab.streams import stream


@given(st.lists(st.integers(0, 6), min_size=1, max_size=7))
def test_lengths_are_those_of_all_subsequences_and_of_patience(values: list[int]) -> None:
    lengths = exact.increasing_lengths(torch.tensor([values]))[0].tolist()
    assert lengths == exact.patience(values)
    longest = max(
        size
        for size in range(1, len(values) + 1)
        for places in combinations(range(len(values)), size)
        if all(values[a] < values[b] for a, b in zip(places, places[1:], strict=False))
    )
    assert max(lengths) == longest


def test_runs_are_planted() -> None:
    values = exact.planted_sequences(stream(0, "x"), 400, 20, 250)
    drawn = stream(0, "x").child("values").rng().integers(21, 250, (400, 20))
    assert torch.equal(values.sort(1).values, torch.from_numpy(drawn).sort(1).values)
    planted = exact.increasing_lengths(values).amax(1).double().mean()
    plain = exact.increasing_lengths(torch.from_numpy(drawn)).amax(1).double().mean()
    assert planted > plain + 1


def test_rows_are_right_and_wrong_ones_are_found() -> None:
    rows = exact.increasing_subsequence(stream(0, "x"), 50, length=9, numbers=40)
    assert rows.tokens.shape[1] == exact.row_length(9, "derivation")
    assert all(exact.first_wrong_step(row, 9) is None for row in rows.tokens.tolist())
    for step in range(9):
        changed = rows.tokens[0].clone()
        changed[10 + step] += 1
        assert exact.first_wrong_step(changed.tolist(), 9) == step
    changed = rows.tokens[0].clone()
    changed[20] += 1
    assert exact.first_wrong_step(changed.tolist(), 9) == 9
    direct = exact.increasing_subsequence(stream(0, "x"), 50, length=9, numbers=40, format="direct")
    assert torch.equal(direct.tokens[:, 10], rows.tokens[:, 20])


def test_refusals() -> None:
    with pytest.raises(LabError, match="need values above 9 but there are the numbers 0 to 9"):
        exact.increasing_subsequence(stream(0, "x"), 3, length=9, numbers=10)
    with pytest.raises(LabError, match="length = 0"):
        exact.increasing_subsequence(stream(0, "x"), 3, length=0)
