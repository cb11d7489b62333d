"""Laws of fast weights, costs of linear attention and the decay matrix, at sizes that can be gone through."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.domains.attention import fast_weight_laws as laws
from lab.domains.attention.exponential_decay_matrix import (
    decay_matrix,
    determinant_of_decay_matrix,
    inverse_of_decay_matrix,
    spectrum_of_decay_matrix,
)
from lab.domains.attention.linear_attention_costs import crossover, recurrent_multiply_adds, softmax_multiply_adds
from lab.errors import LabError
from lab.streams import stream

few = settings(deadline=None, max_examples=25, derandomize=True)


@pytest.mark.parametrize(("items", "size"), [(1, 2), (3, 2), (4, 3)])
def test_recall_of_sums(items: int, size: int) -> None:
    error = laws.enumerated_recall(*laws.axis_keys(size), items, delta=False)
    assert error == pytest.approx(laws.additive_error(items, size), abs=1e-12)


@pytest.mark.parametrize("items", [1, 2, 3])
def test_recall_of_the_delta_rule(items: int) -> None:
    error = laws.enumerated_recall(*laws.circle_keys(7), items, delta=True)
    assert error == pytest.approx(laws.delta_error(items, 2), abs=1e-12)


def test_recall_of_the_delta_rule_in_many_dimensions() -> None:
    rng = stream(0, "recall").rng()
    losses = []
    for _ in range(300):
        keys = rng.standard_normal((20, 6))
        keys /= np.linalg.norm(keys, axis=1, keepdims=True)
        losses.append(laws.enumerated_recall(keys, np.ones(20), 1, delta=True))
        memory, errors = np.zeros((20, 6)), np.eye(20)
        for item, key in enumerate(keys):
            memory += np.outer(errors[item] - memory @ key, key)
        losses[-1] = float(np.square(memory @ keys.T - errors).sum(0).mean())
    assert np.mean(losses) == pytest.approx(laws.delta_error(20, 6), abs=5 * np.std(losses) / np.sqrt(len(losses)))


@pytest.mark.parametrize(("rate", "steps"), [(0.25, 2), (0.4, 3)])
def test_online_descent_with_normal_keys(rate: float, steps: int) -> None:
    error = laws.enumerated_descent(*laws.normal_keys(2), steps, rate, batch=False)
    assert error == pytest.approx(laws.online_error(steps, 2, rate, normal=True), rel=1e-12)


def test_online_descent_with_unit_keys_at_another_rate() -> None:
    error = laws.enumerated_descent(*laws.axis_keys(3), 4, 0.7, batch=False)
    assert error == pytest.approx(laws.online_error(4, 3, 0.7), rel=1e-12)


@few
@given(examples=st.integers(1, 50), size=st.integers(1, 20), other=st.floats(-0.5, 0.5))
def test_the_best_batch_rate_is_best(examples: int, size: int, other: float) -> None:
    best = laws.best_batch_rate(examples, size)
    least = laws.batch_error(examples, size, best)
    assert least == pytest.approx((size + 1) / (examples + size + 1))
    assert laws.batch_error(examples, size, best * (1 + other)) >= least - 1e-12


@few
@given(length=st.integers(1, 12), decay=st.floats(0.05, 0.9))
def test_the_decay_matrix(length: int, decay: float) -> None:
    matrix = decay_matrix(length, decay)
    assert np.allclose(matrix @ inverse_of_decay_matrix(length, decay), np.eye(length), atol=1e-9)
    assert np.linalg.det(matrix) == pytest.approx(determinant_of_decay_matrix(length, decay), rel=1e-8)
    low, high = spectrum_of_decay_matrix(decay)
    values = np.linalg.eigvalsh(matrix)
    assert low - 1e-9 <= values.min() <= values.max() <= high + 1e-9


def test_costs_meet_where_they_are_said_to() -> None:
    assert crossover(32, 32) == 65
    assert softmax_multiply_adds(65, 32, 32) == recurrent_multiply_adds(65, 32, 32)
    assert softmax_multiply_adds(64, 32, 32) < recurrent_multiply_adds(64, 32, 32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: laws.additive_error(0, 3), "items = 0"),
        (lambda: laws.delta_error(3, 0), "size = 0"),
        (lambda: laws.online_error(-1, 3), "steps = -1"),
        (lambda: laws.batch_error(-1, 3, 0.1), "examples = -1"),
        (lambda: decay_matrix(3, 1.0), "The decay is 1.0"),
        (lambda: decay_matrix(0, 0.5), "The length is 0"),
        (lambda: softmax_multiply_adds(0, 1, 1), "The length size is 0"),
    ],
)
def test_impossible_sizes_end_in_one_sentence(call, message: str) -> None:
    with pytest.raises(LabError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
