"""Sums over types of binary sequences, against sums over the sequences themselves."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import integrate, special

from lab.domains.chains.binary_types import binary_excess, binary_types, worth_of_a_stationary_start
from lab.errors import LabError


@pytest.mark.parametrize("length", [1, 2, 3, 8])
def test_types_are_those_of_all_sequences(length: int) -> None:
    counts: dict[tuple[int, ...], int] = {}
    for rest in itertools.product((0, 1), repeat=length - 1):
        pairs = list(itertools.pairwise((0, *rest)))
        kind = tuple(pairs.count(pair) for pair in ((0, 0), (0, 1), (1, 0), (1, 1)))
        counts[kind] = counts.get(kind, 0) + 1
    types = binary_types(length)
    kinds = zip(types.stay_zero, types.leave_zero, types.leave_one, types.stay_one, strict=True)
    numbers = {
        tuple(map(int, kind)): round(float(np.exp(log))) for kind, log in zip(kinds, types.log_number, strict=True)
    }
    assert numbers == counts


@pytest.mark.parametrize("read", [1, 2, 7])
def test_the_excess_is_that_of_all_sequences(read: int) -> None:
    p, q, total = 0.3, 0.6, 0.0
    kernel, start = np.array([[1 - p, p], [q, 1 - q]]), np.array([q, p]) / (p + q)
    for tokens in itertools.product((0, 1), repeat=read):
        counts, probability = np.zeros((2, 2)), start[tokens[0]]
        for pair in itertools.pairwise(tokens):
            counts[pair] += 1
            probability *= kernel[pair]
        guess = (counts[tokens[-1]] + 1) / (counts[tokens[-1]].sum() + 2)
        total += probability * special.rel_entr(kernel[tokens[-1]], guess).sum()
    assert binary_excess(p, q, read) == pytest.approx(total, abs=1e-14)


def test_a_stationary_start_is_worth_log_two_minus_the_mean_entropy() -> None:
    mean = integrate.dblquad(
        lambda p, q: float(special.entr(p / (p + q)) + special.entr(q / (p + q))), 0, 1, 0, 1, epsabs=1e-7
    )[0]
    assert worth_of_a_stationary_start() == pytest.approx(np.log(2) - mean, abs=1e-6)


def test_bad_sizes_are_one_sentence() -> None:
    with pytest.raises(LabError, match="length = 0"):
        binary_types(0)
    with pytest.raises(LabError, match="p = 0"):
        binary_excess(0, 0.5, 4)
