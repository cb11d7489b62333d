"""Running means and the cosines they leave."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.domains.attention import causal_averaging as theory
from lab.errors import LabError
from lab.streams import stream


@settings(deadline=None, max_examples=20, derandomize=True)
@given(length=st.integers(1, 12), weight=st.floats(0.1, 5))
def test_closed_forms_are_the_gram_matrices(length: int, weight: float) -> None:
    plain = theory.cosines(theory.averaged_gram(length))
    torch.testing.assert_close(plain, theory.running_mean_cosine(length))
    kept = theory.cosines(theory.averaged_gram(length, residual=weight))
    torch.testing.assert_close(kept, theory.residual_cosine(length, weight))


def test_averages_are_averages() -> None:
    values = torch.from_numpy(stream(0, "x").rng().standard_normal((5, 3)))
    means = values.cumsum(0) / torch.arange(1, 6).unsqueeze(1)
    torch.testing.assert_close(theory.averaging_matrix(5) @ values, means)


def test_depth_keeps_the_order_and_loses_contrast() -> None:
    stacked = [theory.cosines(theory.averaged_gram(10, depth=depth)) for depth in (1, 2, 4)]
    assert [float(theory.adjacency_score(cosines)) for cosines in stacked] == [1.0] * 3
    assert stacked[0][0, -1] < stacked[1][0, -1] < stacked[2][0, -1]


@settings(deadline=None, max_examples=20, derandomize=True)
@given(seed=st.integers(0, 99), length=st.integers(3, 6))
def test_score_counts_triples(seed: int, length: int) -> None:
    similarity = torch.from_numpy(stream(seed, "s").rng().standard_normal((length, length)))
    outcomes = [
        bool(similarity[i, j] > similarity[i, k])
        for i in range(length)
        for j in range(length)
        for k in range(length)
        if (j - i) * (k - i) > 0 and abs(i - j) < abs(i - k)
    ]
    assert float(theory.adjacency_score(similarity)) == pytest.approx(sum(outcomes) / len(outcomes))
    batch = torch.stack([similarity, -similarity])
    assert float(theory.adjacency_score(batch).sum()) == pytest.approx(1.0)


def test_bad_input_ends_in_one_sentence() -> None:
    with pytest.raises(LabError, match="2 tokens have no two neighbours"):
        theory.adjacency_score(torch.ones(2, 2))
    with pytest.raises(LabError, match="length = 0"):
        theory.running_mean_cosine(0)
    with pytest.raises(LabError, match="depth = -1"):
        theory.averaged_gram(3, depth=-1)


@settings(deadline=None, max_examples=20, derandomize=True)
@given(length=st.integers(1, 12), depth=st.integers(0, 8), weight=st.none() | st.floats(0.1, 3))
def test_distance_from_the_first_is_that_of_the_cosines(length: int, depth: int, weight: float | None) -> None:
    cosine = theory.cosines(theory.averaged_gram(length, depth=depth, residual=weight))[0, -1]
    distance = theory.distance_from_first(length, depth=depth, residual=weight)
    assert distance == pytest.approx(1 - float(cosine) ** 2, abs=1e-9)


@settings(deadline=None, max_examples=30, derandomize=True)
@given(length=st.integers(2, 40), depth=st.integers(0, 30), weight=st.none() | st.floats(0.1, 3))
def test_collapse_keeps_within_its_error(length: int, depth: int, weight: float | None) -> None:
    law, error = theory.collapse_law(length, depth=depth, residual=weight)
    distance = theory.distance_from_first(length, depth=depth, residual=weight)
    assert abs(distance / law - 1) <= error + 1e-11


def test_collapse_becomes_four_a_layer() -> None:
    errors = [theory.collapse_law(9, depth=depth)[1] for depth in (20, 30, 40)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-5
    ratio = theory.distance_from_first(9, depth=40) / theory.distance_from_first(9, depth=41)
    assert ratio == pytest.approx(4, rel=1e-5)
    with pytest.raises(LabError, match="length = 1"):
        theory.collapse_law(1, depth=3)
