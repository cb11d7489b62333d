from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.streams import stream

names = st.lists(st.one_of(st.text(max_size=5), st.integers(0, 99)), max_size=3).map(tuple)


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.integers(0, 2**64), names, names)
def test_streams_are_equal_exactly_when_their_paths_are(seed: int, first: tuple, second: tuple) -> None:
    one, other = stream(seed, *first).rng().random(4), stream(seed, *second).rng().random(4)
    assert np.array_equal(one, other) == (first == second)


def test_a_name_and_a_number_that_print_alike_are_different_streams() -> None:
    assert stream(0, "1").rng().random() != stream(0, 1).rng().random()


def test_children_extend_the_path() -> None:
    assert stream(3, "a").child("b", 1) == stream(3, "a", "b", 1)
