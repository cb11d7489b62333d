"""Which outputs notice a permutation."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.domains.attention.permutation_symmetry import order_blind_accuracy, unchanged_rows
from lab.errors import LabError
from lab.models import masks
from lab.streams import stream


def tree(mask: torch.Tensor, row: int, depth: int, tokens: list[int]) -> object:
    """What token ``row`` knows after ``depth`` layers, written out."""
    if depth == 0:
        return tokens[row]
    subtrees = [tree(mask, j, depth - 1, tokens) for j in range(len(mask)) if mask[row, j]]
    return (tree(mask, row, depth - 1, tokens), tuple(sorted(map(repr, subtrees))))


@settings(deadline=None, max_examples=40, derandomize=True)
@given(seed=st.integers(0, 99), depth=st.integers(0, 3), length=st.integers(1, 4))
def test_refinement_compares_trees(seed: int, depth: int, length: int) -> None:
    rng = stream(seed, "symmetry").rng()
    mask = torch.from_numpy(rng.random((length, length)) < 0.5)
    order = rng.permutation(length).tolist()
    expected = [tree(mask, i, depth, list(range(length))) == tree(mask, i, depth, order) for i in range(length)]
    assert unchanged_rows(mask, order, depth).tolist() == expected


def test_causal_networks_tell_the_order_from_the_second_layer_on() -> None:
    order = [2, 0, 3, 1, 4]
    assert unchanged_rows(masks.causal(5), order, 1).tolist() == [False, False, False, False, True]
    for depth in (2, 3):
        assert not unchanged_rows(masks.causal(5), order, depth).any()
        assert bool(unchanged_rows(masks.full(5), order, depth)[-1])
    assert not unchanged_rows(masks.full(5), order, 1, positions=True).any()
    assert bool(unchanged_rows(masks.causal(5), range(5), 3, positions=True).all())


@pytest.mark.parametrize(("symbols", "length"), [(1, 3), (2, 4), (3, 5), (4, 3)])
def test_the_best_blind_guess_by_enumeration(symbols: int, length: int) -> None:
    strings = list(itertools.product(range(symbols), repeat=length))
    share = sum(max(Counter(string).values()) for string in strings) / len(strings) / length
    assert order_blind_accuracy(symbols, length) == pytest.approx(share, abs=1e-12)


def test_bad_input_ends_in_one_sentence() -> None:
    with pytest.raises(LabError, match=r"\[0, 0, 2\] is no permutation of 0 to 2"):
        unchanged_rows(masks.causal(3), [0, 0, 2], 1)
    with pytest.raises(LabError, match="depth = -1"):
        unchanged_rows(masks.causal(2), [1, 0], -1)
    with pytest.raises(LabError, match="symbols = 0"):
        order_blind_accuracy(0, 2)
