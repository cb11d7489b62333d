"""Learned keys against laws and brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lab.domains.copying.learned_keys import LearnedKeys, key_sets, learned_keys, least_sum_error, sum_error_of
from lab.domains.copying.memory_capacity import LAWS, memory_error, sum_error, weights_of
from lab.errors import LabError
from lab.models.mixers.bidirectional import BidirectionalLinearAttention
from lab.models.mixers.fast_weights import DeltaRule
from lab.models.mixers.linear import LinearAttention
from lab.models.mixers.softmax import SoftmaxAttention
from lab.streams import stream


def summed() -> LinearAttention:
    return LinearAttention("identity", normalised=False)


def test_expected_error_is_the_mean_over_all_sets() -> None:
    tables = stream(0, "tables").rng().standard_normal((2, 5, 2))
    errors = [
        memory_error((tables[0] @ tables[1].T)[np.ix_(chosen, chosen)]).mean()
        for chosen in itertools.permutations(range(5), 3)
    ]
    assert sum_error_of(tables[0], tables[1], 3) == pytest.approx(np.mean(errors))


@given(st.integers(1, 4), st.integers(2, 9), st.integers(2, 6), st.integers(0, 10_000))
def test_no_tables_are_below_the_least_error(size: int, keys: int, pairs: int, seed: int) -> None:
    keys = max(keys, pairs)
    tables = stream(seed, "tables").rng().standard_normal((2, keys, size))
    assert sum_error_of(tables[0], tables[1], pairs) >= least_sum_error(pairs, size, keys) - 1e-12


@pytest.mark.parametrize(("keys", "pairs"), [(3, 2), (5, 4), (8, 3), (8, 8)])
def test_a_regular_frame_attains_it(keys: int, pairs: int) -> None:
    angles = 2 * np.pi * np.arange(keys) / keys
    frame = np.stack([np.cos(angles), np.sin(angles)], 1)
    diagonal, chance = 2 / keys, (pairs - 1) / (keys - 1)
    scale = 1 / (diagonal + chance * (1 - diagonal))  # of the projection 2 / K times the products of the frame
    error = sum_error_of(scale * diagonal * frame, frame, pairs)
    assert error == pytest.approx(least_sum_error(pairs, 2, keys))


def test_many_keys_are_random_keys_at_their_best_scale() -> None:
    error = sum_error(9, 16)
    assert least_sum_error(9, 16, 10**9) == pytest.approx(error / (1 + error))
    assert least_sum_error(4, 8, 8) == 0.0


def test_before_training_it_is_the_memory_of_its_keys() -> None:
    chosen = key_sets(stream(0, "sets"), 6, pairs=4, keys=7).chosen.expand(2, -1, -1)
    network = learned_keys(summed, keys=7, size=3)([3, 4]).double()
    unit = torch.nn.functional.normalize(network.key, dim=-1).detach().numpy()
    keys = np.stack([unit[model][chosen[model]] for model in range(2)])
    assert np.allclose(network(chosen).detach().numpy(), weights_of("sum", keys))
    delta = LearnedKeys(DeltaRule(), [3, 4], keys=7, size=3).double()
    delta.rate.data.fill_(-1.0)
    assert np.allclose(delta(chosen).detach().numpy(), weights_of("delta rule", keys))
    alone = network.select([1])
    assert torch.allclose(alone(chosen[1:]), network(chosen)[1:])
    assert network.errors(chosen).shape == (2, 6, 4)


def test_no_matrix_memory_is_below_its_floor_and_softmax_is() -> None:
    chosen = key_sets(stream(0, "sets"), 20, pairs=6, keys=9).chosen.unsqueeze(0)
    for mixer in (summed(), DeltaRule()):
        errors = LearnedKeys(mixer, [0], keys=9, size=2).double().errors(chosen).mean(-1)
        assert float(errors.detach().min()) >= LAWS["least squares"](6, 2) - 1e-12
    sharp = LearnedKeys(SoftmaxAttention(), [0], keys=9, size=2).double()
    sharp.query.data *= 1e8
    assert float(sharp.errors(chosen).mean().detach()) < 0.01


def test_key_sets_hold_different_symbols() -> None:
    chosen = key_sets(stream(0, "sets"), 200, pairs=4, keys=5).chosen
    assert all(len(set(row)) == 4 for row in chosen.tolist())
    assert set(chosen.flatten().tolist()) == set(range(5))


def test_bad_input_ends_in_one_sentence() -> None:
    with pytest.raises(LabError, match="keys = 3 must be at least pairs = 4"):
        key_sets(stream(0, "sets"), 1, pairs=4, keys=3)
    with pytest.raises(LabError, match="size = 0 of a memory"):
        least_sum_error(2, 0, 3)
    with pytest.raises(LabError, match="0 seeds of learned keys"):
        LearnedKeys(summed(), [], keys=3, size=2)
    with pytest.raises(LabError, match="Learned keys serve a mixer of queries"):
        LearnedKeys(BidirectionalLinearAttention(), [0], keys=3, size=2)
