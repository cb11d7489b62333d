"""Forests, their law of depths, and the layers that climb them."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
import torch

from lab.domains.attention.pointer_forests import (
    chaser_tokens,
    depth_law,
    doubling_chaser,
    doubling_start,
    forest,
    frozen_chaser,
    path,
    pointers,
    reached_within,
    recursive_trees,
    steps_of,
)
from lab.errors import LabError
from lab.models import masks
from lab.streams import stream


@pytest.mark.parametrize("nodes", [1, 2, 4, 5])
def test_the_law_of_depths_by_enumeration(nodes: int) -> None:
    every = torch.tensor(list(itertools.product(*(range(max(node, 1)) for node in range(nodes)))))
    depth = forest(every).depth
    for value, chance in enumerate(depth_law(nodes)):
        assert Fraction(int((depth == value).sum()), depth.numel()) == chance
    assert reached_within(nodes, nodes) == 1


def test_trees_are_drawn_evenly() -> None:
    trees = recursive_trees(stream(0, "trees"), 6000, nodes=4)
    kinds = (trees.tokens[:, 2] * 3 + trees.tokens[:, 3]).bincount(minlength=6)
    assert (kinds / 6000 - 1 / 6).abs().max() < 0.025  # five standard errors
    renumbered = recursive_trees(stream(0, "trees"), 6000, nodes=4, renumbered=True)
    assert torch.equal(renumbered.depth.sort(1).values, trees.depth.sort(1).values)
    assert ((renumbered.targets[:, 0]).bincount(minlength=4) / 6000 - 0.25).abs().max() < 0.03


def test_frozen_values_climb_and_evolving_ones_double() -> None:
    trees = torch.cat((recursive_trees(stream(0, "chase"), 5, nodes=9).tokens, path(9)))
    tokens, truth = chaser_tokens(trees), forest(trees)
    for frozen in (True, False):
        layer = frozen_chaser(9) if frozen else doubling_chaser(9)
        solved = layer.solve(tokens, masks.causal(9), None if frozen else doubling_start(tokens))
        assert torch.equal(pointers(solved.state).argmax(-1), truth.targets)
        assert solved.steps.flatten().tolist() == [steps_of(int(depth), frozen) for depth in truth.depth.amax(1)]
    assert int(truth.depth.max()) == 8


def test_bad_input_ends_in_one_sentence() -> None:
    with pytest.raises(LabError, match="run in a circle"):
        forest(torch.tensor([[1, 0]]))
    with pytest.raises(LabError, match="nodes = 0"):
        recursive_trees(stream(0, "trees"), 1, nodes=0)
    with pytest.raises(LabError, match="'address' or 'pointer'"):
        frozen_chaser(3, keys="parent")
