"""Who depends on whom in a stack of masks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.domains.attention.mask_reachability import PAIRS, allowed_pairs, discrepancy, reachability, saturation_depth
from lab.errors import LabError
from lab.models import masks
from lab.models.mask_patterns import mask
from lab.models.masks import closure, flow
from lab.models.transformer import Architecture, Transformer
from lab.streams import stream


def random_masks(seed: int, layers: int, length: int) -> list[torch.Tensor]:
    return list(torch.from_numpy(stream(seed, "masks").rng().random((layers, length, length)) < 0.25))


@settings(deadline=None, max_examples=25, derandomize=True)
@given(seed=st.integers(0, 99), layers=st.integers(1, 4), length=st.integers(1, 5))
def test_reachability_is_the_existence_of_a_path(seed: int, layers: int, length: int) -> None:
    stack = random_masks(seed, layers, length)
    heard = [{place} for place in range(length)]
    for layer in stack:
        heard = [set().union(heard[i], *(heard[j] for j in range(length) if layer[i, j])) for i in range(length)]
    reach = reachability(stack)
    assert [{j for j in range(length) if reach[i, j]} for i in range(length)] == heard


@settings(deadline=None, max_examples=25, derandomize=True)
@given(seed=st.integers(0, 99), layers=st.integers(1, 4), length=st.integers(1, 6))
def test_one_mask_repeated_is_its_closure(seed: int, layers: int, length: int) -> None:
    layer = random_masks(seed, 1, length)[0]
    assert torch.equal(reachability([layer] * layers), closure(layer, layers))


def test_a_network_with_other_masks_in_other_layers_flows_as_predicted() -> None:
    stack = random_masks(3, 3, 7)
    layers = [Transformer(Architecture(width=12, layers=1, heads=3), [s], torch.float64) for s in (1, 2, 3)]

    def model(tokens: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        for layer, pattern in zip(layers, stack, strict=True):
            tokens = layer(tokens, pattern)
        return tokens

    inputs = torch.from_numpy(stream(0, "prompt").rng().standard_normal((7, 12)))
    mismatch = discrepancy(flow(model, inputs, stack[0]), reachability(stack))
    assert mismatch.count == 0
    assert discrepancy(flow(model, inputs, stack[0]), reachability(stack[::-1])).count > 0


@pytest.mark.parametrize("window", [2, 3, 4])
def test_windows_saturate_when_they_reach_the_start(window: int) -> None:
    assert saturation_depth(masks.sliding_window(9, window)) == -(-8 // (window - 1))
    assert saturation_depth(masks.sliding_window(9, 1)) == 0


def test_leaks_and_gaps_are_told_apart() -> None:
    measured = torch.tensor([[1.0, 1e-300], [0.0, 2.0]], dtype=torch.float64)
    mismatch = discrepancy(measured, torch.tensor([[True, False], [True, True]]))
    assert mismatch.leaks == [(0, 1)]
    assert mismatch.missing.nonzero().tolist() == [[1, 0]]
    assert mismatch.count == 2


SIZES: dict[str, dict[str, Any]] = {
    "full": {"length": 5},
    "causal": {"length": 7},
    "prefix_lm": {"length": 7, "prefix_length": 4},
    "in_context_prefix": {"context": 4, "queries": 3},
    "in_context_causal": {"context": 4, "queries": 3},
    "sliding_window": {"length": 7, "window": 3},
    "block_causal": {"sizes": [2, 1, 4]},
    "next_scale": {"sides": [1, 2, 4]},
    "clean_noisy": {"blocks": 4, "block_size": 3},
    "labels_independent": {"image": 4, "prompt": 3, "labels": [1, 3]},
    "two_stream": {"length": 6},
}


@pytest.mark.parametrize("name", PAIRS)
def test_formulas_count_the_pairs(name: str) -> None:
    assert allowed_pairs(name, **SIZES[name]) == int(mask(name, **SIZES[name]).sum())


@settings(deadline=None, max_examples=25, derandomize=True)
@given(length=st.integers(0, 9), window=st.integers(1, 12))
def test_windows_of_any_length_are_counted(length: int, window: int) -> None:
    assert allowed_pairs("sliding_window", length=length, window=window) == int(
        masks.sliding_window(length, window).sum()
    )


def test_bad_input_ends_in_one_sentence() -> None:
    with pytest.raises(LabError, match="at least 1 mask, all of one size, but the masks are none"):
        reachability([])
    with pytest.raises(LabError, match=r"\(2, 2\), \(3, 3\)"):
        reachability([masks.causal(2), masks.causal(3)])
    with pytest.raises(LabError, match=r"\(2, 2\) but the prediction \(3, 3\)"):
        discrepancy(torch.ones(2, 2), masks.causal(3))
    with pytest.raises(LabError, match="No formula counts the pairs of 'segment'"):
        allowed_pairs("segment", segments=[0, 1])
