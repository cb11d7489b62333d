from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab import streams
from lab.errors import LabError
from lab.streams import stream

names = st.lists(st.one_of(st.text(max_size=5), st.integers(0, 99)), max_size=3).map(tuple)


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.integers(0, 2**64), names, names)
def test_streams_are_equal_exactly_when_their_paths_are(seed: int, first: tuple, second: tuple) -> None:
    draws, other_draws = stream(seed, *first).rng().random(4), stream(seed, *second).rng().random(4)
    assert np.array_equal(draws, other_draws) == (first == second)


def test_a_name_and_a_number_that_print_alike_are_different_streams() -> None:
    assert stream(0, "1").rng().random() != stream(0, 1).rng().random()


def test_children_extend_the_path() -> None:
    assert stream(3, "a").child("b", 1) == stream(3, "a", "b", 1)


def test_integers_of_numpy_and_torch_are_the_same_seed_as_the_int() -> None:
    expected = stream(3, "data", 5).rng().random()
    for seed in (np.int64(3), np.uint8(3), torch.tensor(3)):
        assert stream(seed, np.str_("data"), np.int32(5)).rng().random() == expected
        assert stream(seed).child(np.int64(4)) == stream(3, 4)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("seed", [3.0, "3", None, True, np.bool_(True)])
def test_seeds_that_are_no_integers_are_refused(seed: object) -> None:
    for make in (stream, streams.RandomStream):
        with pytest.raises(LabError, match="the seed of a random stream is .*; give an integer"):
            make(seed)


@pytest.mark.parametrize("name", [0.5, None, ("a",), np.float64(2)])
def test_names_that_are_neither_text_nor_integers_are_refused(name: object) -> None:
    with pytest.raises(LabError, match="integers or text"):
        streams._plain(name)
