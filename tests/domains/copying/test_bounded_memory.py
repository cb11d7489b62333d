"""What a state of bounded size gives back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lab.domains.copying.bounded_memory import (
    best_by_search,
    best_copy_rate,
    float_bits,
    given_back,
    longest_copied,
    shares,
)
from lab.errors import LabError


@pytest.mark.parametrize(("states", "letters", "length"), [(1, 2, 2), (2, 2, 2), (3, 2, 2), (2, 3, 1), (2, 2, 3)])
def test_the_bound_is_attained_and_never_exceeded(states: int, letters: int, length: int) -> None:
    rate = best_copy_rate(float(torch.tensor(float(states)).log2()), letters, length)
    assert best_by_search(states, letters, length) == round(rate * letters**length)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_a_reader_gives_back_one_string_a_state(states: list[int]) -> None:
    assert given_back(torch.tensor(states)) == len(set(states)) / len(states)


def test_numbers_quoted() -> None:
    assert best_copy_rate(4, 2, 6) == 1 / 4
    assert best_copy_rate(100, 2, 6) == 1
    assert shares([0, 6], 2, 6) == [1 / 64, 1]
    assert float_bits(2) == 64
    assert longest_copied(8, 4, 1.0) == 4
    assert longest_copied(8, 2) == 9


def test_bad_input_ends_in_one_sentence() -> None:
    with pytest.raises(LabError, match="state_bits = -1"):
        best_copy_rate(-1, 2, 2)
    with pytest.raises(LabError, match="more than a million"):
        best_by_search(4, 4, 4)
    with pytest.raises(LabError, match="letters = 1 must be at least 2"):
        longest_copied(3, 1)
