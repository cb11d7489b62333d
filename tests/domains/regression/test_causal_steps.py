from __future__ import annotations

import itertools

import numpy as np
import pytest

from lab.domains.regression.causal_steps import (
    IN_AB,
    IN_B,
    IN_BB,
    causal_two_step_error,
    optimal_causal_steps,
    ordered_moment,
)
from lab.domains.regression.optimal_steps import gram_moments, normal_moments, optimal_filter, uniform_moments
from lab.errors import LabError

SIZES = [(1, 1), (3, 2), (7, 5), (10, 10)]


@pytest.mark.parametrize(("n", "d"), SIZES)
def test_moments_of_normal_inputs(n: int, d: int) -> None:
    law = n, d, normal_moments()
    double = (
        4 * d**3 + 14 * d**2 * n + 34 * d**2 + 8 * d * n**2 + 48 * d * n + 120 * d + n**3 + 10 * n**2 + 51 * n + 130
    )
    assert ordered_moment(2, IN_B, *law) == pytest.approx(n * d * (2 * d + n + 3) / 2)
    assert ordered_moment(3, IN_AB, *law) == pytest.approx(
        n * d * (2 * d**2 + 4 * n * d + 8 * d + n**2 + 5 * n + 10) / 2
    )
    assert ordered_moment(4, IN_BB, *law) == pytest.approx(n * d * double / 4)


@pytest.mark.parametrize(("n", "d"), SIZES)
def test_without_an_order_they_are_gram_moments(n: int, d: int) -> None:
    law = n, d, uniform_moments()
    moments = [ordered_moment(power, (), *law) for power in (1, 2, 3, 4)]
    np.testing.assert_allclose(moments, gram_moments(4, *law)[1:], rtol=1e-12)


@pytest.mark.parametrize(("n", "d"), [(1, 2), (3, 2), (2, 3)])
def test_error_matches_an_enumeration(n: int, d: int) -> None:
    """Over all inputs of coordinates -1 and 1, by the sum over pairs of examples itself."""
    errors = []
    for chosen in itertools.product((-1.0, 1.0), repeat=n * d):
        x = np.array(chosen).reshape(n, d)
        pairs = ((i, j) for j in range(n) for i in range(j + 1))
        b = sum(np.outer(x[j], x[j]) @ np.outer(x[i], x[i]) for i, j in pairs)
        errors.append(np.square(np.eye(d) - 0.4 * x.T @ x + 0.04 * b).sum())
    assert causal_two_step_error(0.2, n, d, (1.0,) * 9) == pytest.approx(np.mean(errors), rel=1e-12)


def test_the_best_step_is_a_minimum_and_worse_than_two_true_steps() -> None:
    law = 10, 10, uniform_moments(0.5)
    step, error = optimal_causal_steps(*law)
    assert all(causal_two_step_error(factor * step, *law) > error for factor in (0.98, 1.02))
    assert optimal_filter(*law, layers=2, curved=False)[2] < error
    assert error / 2 == pytest.approx(0.16365, abs=5e-6)


def test_many_examples_meet_the_zero_of_a_laguerre_polynomial() -> None:
    step, _ = optimal_causal_steps(100_000, 3, normal_moments())
    assert 100_000 * step == pytest.approx(2 - np.sqrt(2), rel=1e-4)


def test_sizes_outside_their_range() -> None:
    with pytest.raises(LabError, match="between 1 and"):
        ordered_moment(9, (), 2, 2, normal_moments())
    with pytest.raises(LabError, match="outside of the 2 factors"):
        ordered_moment(2, ((0, 2),), 2, 2, normal_moments())
    with pytest.raises(LabError, match="at least 1"):
        ordered_moment(2, (), 0, 2, normal_moments())
