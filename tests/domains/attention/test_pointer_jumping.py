"""Following pointers through a mask."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from lab.domains.attention.pointer_jumping import (
    causal_accuracy,
    causal_two_hop_accuracy,
    follow,
    jump,
    long_cycle_accuracy,
    tree_orders,
    two_hop_posterior,
)
from lab.errors import LabError
from lab.models import masks


def permutations(length: int) -> torch.Tensor:
    return torch.tensor(list(itertools.permutations(range(length))))


@pytest.mark.parametrize("layers", [0, 1, 2, 3])
def test_full_sight_doubles_the_hops(layers: int) -> None:
    pointers = permutations(5)
    assert torch.equal(jump(pointers, masks.full(5), layers), follow(pointers, 2**layers))


@pytest.mark.parametrize(("length", "layers"), [(1, 2), (3, 1), (5, 2), (7, 2), (8, 3)])
def test_causal_law_by_enumeration(length: int, layers: int) -> None:
    pointers = permutations(length)
    right = (jump(pointers, masks.causal(length), layers) == follow(pointers, 2**layers)).double().mean()
    assert causal_accuracy(length, layers) == pytest.approx(float(right), abs=1e-12)


def test_one_causal_layer_follows_half_of_all_pointers() -> None:
    assert causal_accuracy(64, 1) == 65 / 128
    assert causal_accuracy(10**6, 2) == pytest.approx(1 / 8, abs=1e-4)
    assert causal_accuracy(10**6, 3) == pytest.approx(1 / 128, abs=1e-4)


@pytest.mark.parametrize("layers", [0, 1, 2, 3])
def test_long_cycles_by_enumeration(layers: int) -> None:
    orders = permutations(2**layers)
    pointers = torch.empty_like(orders).scatter_(1, orders, orders.roll(-1, 1))
    held = jump(pointers, masks.causal(2**layers), layers) == follow(pointers, 2**layers)
    assert float(held.double().mean()) == long_cycle_accuracy(layers)


def test_orders_of_a_tree_are_counted() -> None:
    for layers in range(5):
        assert tree_orders(layers) == math.factorial(2**layers) * long_cycle_accuracy(layers)
    assert long_cycle_accuracy(5) == long_cycle_accuracy(4) ** 2 / 2


@pytest.mark.parametrize("length", [1, 2, 4, 5])
def test_posterior_counts_the_permutations_that_agree_with_what_is_seen(length: int) -> None:
    pointers, causal = permutations(length), masks.causal(length)
    posterior = two_hop_posterior(pointers, causal)
    for number, permutation in enumerate(pointers):
        for i in range(length):
            agreeing = pointers[(pointers[:, : i + 1] == permutation[: i + 1]).all(1)]
            law = torch.bincount(follow(agreeing, 2)[:, i], minlength=length) / len(agreeing)
            torch.testing.assert_close(posterior[number, i], law.double(), rtol=1e-6, atol=1e-7)
    ceiling = float(posterior.amax(-1).mean())
    assert causal_two_hop_accuracy(length) == pytest.approx(ceiling, abs=1e-12)
    assert bool((two_hop_posterior(pointers, masks.full(length)).amax(-1) == 1).all())


def test_bad_input_ends_in_one_sentence() -> None:
    pointers = permutations(3)
    with pytest.raises(LabError, match="must name one of 3 tokens"):
        jump(pointers + 1, masks.full(3), 1)
    with pytest.raises(LabError, match=r"mask is \(4, 4\) but there are 3 tokens"):
        jump(pointers, masks.full(4), 1)
    with pytest.raises(LabError, match="layers = -1"):
        jump(pointers, masks.full(3), -1)
    with pytest.raises(LabError, match="layers = 4 between 0 and 3"):
        causal_accuracy(9, 4)
    with pytest.raises(LabError, match="layers = 5"):
        tree_orders(5)
    with pytest.raises(LabError, match="layers = -1"):
        long_cycle_accuracy(-1)
    with pytest.raises(LabError, match="itself"):
        two_hop_posterior(pointers, ~masks.causal(3))
    with pytest.raises(LabError, match="length = 0"):
        causal_two_hop_accuracy(0)
