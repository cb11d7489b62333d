"""Masks: the flow through a network is the closure of its mask, exactly; leaks are seen."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lab.errors import LabError
from lab.models import masks
from lab.models.masks import PATTERNS, closure, flow, is_transitive
from lab.models.transformer import Architecture, Transformer
from lab.streams import stream

# pattern, sizes, pairs it allows (counted by hand), whether depth leaves the flow as it is
CASES: list[tuple[str, dict[str, Any], int, bool]] = [
    ("full", {"length": 6}, 36, True),
    ("causal", {"length": 8}, 36, True),
    ("prefix_lm", {"length": 8, "prefix_length": 3}, 39, True),
    ("in_context_prefix", {"context": 5, "queries": 3}, 40, True),
    ("in_context_causal", {"context": 5, "queries": 3}, 30, True),
    ("in_context_block_causal", {"context": 6, "queries": 2, "block": 2}, 36, True),
    ("segment", {"segments": [0] * 3 + [1] * 4, "generated": 3}, 64, True),
    ("segment", {"segments": [0, 0, 1, 1, 0], "generated": 2}, 32, False),
    ("sliding_window", {"length": 9, "window": 2}, 17, False),
    ("block_causal", {"sizes": [1, 4, 9]}, 147, True),
    ("clean_noisy", {"blocks": 3, "block_size": 2}, 48, True),
    ("labels_independent", {"image": 3, "prompt": 2, "labels": [2, 1, 3]}, 58, True),
    ("two_stream", {"length": 5}, 30, True),
]
NAMES = [f"{name}-{index}" for index, (name, *_) in enumerate(CASES)]


def network(depth: int) -> Transformer:
    return Transformer(Architecture(width=12, layers=depth, heads=3), [5], torch.float64)


def prompt(length: int) -> Tensor:
    return torch.from_numpy(stream(0, "prompt").rng().standard_normal((length, 12)))


def test_every_pattern_is_tested() -> None:
    assert {name for name, *_ in CASES} == set(PATTERNS)


@pytest.mark.parametrize(("name", "sizes", "pairs", "transitive"), CASES, ids=NAMES)
def test_pairs_and_transitivity(name: str, sizes: dict[str, Any], pairs: int, transitive: bool) -> None:
    mask = PATTERNS[name](**sizes)
    assert int(mask.sum()) == pairs
    assert is_transitive(mask) is transitive


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize(("name", "sizes", "pairs", "transitive"), CASES, ids=NAMES)
def test_flow_is_the_closure(name: str, sizes: dict[str, Any], pairs: int, transitive: bool, depth: int) -> None:
    mask = PATTERNS[name](**sizes)
    moved = flow(network(depth), prompt(len(mask)), mask) != 0
    assert torch.equal(moved, closure(mask, depth))


def test_window_widens_with_depth() -> None:
    assert [int(closure(masks.sliding_window(9, 2), depth).sum()) for depth in (1, 2, 3)] == [17, 24, 30]


@pytest.mark.parametrize(("depth", "extra"), [(1, {(2, 5)}), (2, {(2, 3), (2, 4), (2, 5), (3, 5), (4, 5)})])
def test_one_leak_is_seen_and_predicted(depth: int, extra: set[tuple[int, int]]) -> None:
    intended = masks.causal(8)
    leaky = intended.clone()
    leaky[2, 5] = True
    moved = flow(network(depth), prompt(8), leaky) != 0
    assert torch.equal(moved, closure(leaky, depth))
    assert {(int(i), int(j)) for i, j in (moved & ~closure(intended, depth)).nonzero()} == extra


def test_transposed_mask_is_seen() -> None:
    moved = flow(network(2), prompt(8), masks.causal(8).T.contiguous()) != 0
    assert torch.equal(moved, closure(masks.causal(8), 2).T)


def test_finite_penalty_instead_of_mask_is_seen() -> None:
    weights = network(1).layers[0].attention

    def penalised(tokens: Tensor, mask: Tensor) -> Tensor:
        query, key, value = weights.query(tokens), weights.key(tokens), weights.value(tokens)
        scores = query @ key.transpose(-1, -2) / 12**0.5 - 5.0 * ~mask
        return tokens + scores.softmax(-1) @ value

    mask = masks.causal(8)
    leaked = flow(penalised, prompt(8), mask)[~mask]
    assert bool((leaked != 0).all())


def test_statistics_over_tokens_are_seen() -> None:
    model = network(1)

    def centred(tokens: Tensor, mask: Tensor) -> Tensor:
        return model(tokens - tokens.mean(dim=2, keepdim=True), mask)

    assert bool((flow(centred, prompt(8), masks.causal(8)) != 0).all())


def test_limits_of_the_patterns() -> None:
    assert torch.equal(masks.prefix_lm(7, 0), masks.causal(7))
    assert torch.equal(masks.prefix_lm(7, 7), masks.full(7))
    assert torch.equal(masks.in_context_block_causal(6, 2, 1), masks.in_context_causal(6, 2))
    assert torch.equal(masks.in_context_block_causal(6, 2, 6), masks.in_context_prefix(6, 2))
    assert torch.equal(masks.in_context_prefix(5, 3)[5:], masks.in_context_causal(5, 3)[5:])
    assert not masks.in_context_prefix(0, 2).any()
    assert torch.equal(masks.block_causal([1] * 6), masks.causal(6))
    assert torch.equal(masks.segment([0, 0, 1, 1, 1]), masks.block_causal([2, 3]))
    assert torch.equal(masks.segment([], 4), masks.causal(4))
    assert torch.equal(masks.sliding_window(5, 5), masks.causal(5))
    assert torch.equal(masks.clean_noisy(4, 1)[:4, :4], masks.causal(4))
    assert torch.equal(masks.clean_noisy(1, 4)[4:], torch.tensor([False] * 4 + [True] * 4).expand(4, 8))
    assert torch.equal(masks.labels_independent(0, 4, []), masks.causal(4))


@pytest.mark.parametrize(("blocks", "size"), [(1, 1), (2, 3), (4, 2)])
def test_pairs_of_clean_and_noisy_blocks(blocks: int, size: int) -> None:
    assert int(masks.clean_noisy(blocks, size).sum()) == size**2 * (blocks**2 + blocks)


def test_batched_prefixes() -> None:
    lengths = torch.tensor([0, 3, 6])
    each = torch.stack([masks.prefix_lm(6, int(length)) for length in lengths])
    assert torch.equal(masks.prefix_masks(6, lengths), each)
    assert torch.equal(closure(each, 2), each)


@pytest.mark.parametrize(
    ("name", "sizes", "message"),
    [
        ("causal", {"length": -1}, "length = -1"),
        ("prefix_lm", {"length": 3, "prefix_length": 4}, "prefix_length = 4"),
        (
            "prefix_masks",
            {"length": 3, "prefix_length": torch.tensor([1, 4])},
            "prefix_length = 4 does not lie between 0",
        ),
        ("prefix_masks", {"length": 3, "prefix_length": [1, 1, 1]}, "prefix_length is a list, not a tensor"),
        ("prefix_masks", {"length": 3, "prefix_length": torch.tensor([-1])}, "prefix_length = -1"),
        ("prefix_masks", {"length": 3, "prefix_length": torch.tensor([1.5])}, "prefix_length is torch.float32"),
        ("in_context_block_causal", {"context": 5, "queries": 1, "block": 2}, "no multiple of block = 2"),
        ("sliding_window", {"length": 3, "window": 0}, "window = 0"),
        ("block_causal", {"sizes": [2, 0]}, "size_of_block = 0"),
        ("clean_noisy", {"blocks": 0, "block_size": 2}, "blocks = 0"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_impossible_sizes(name: str, sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(LabError, match=message):
        getattr(masks, name)(**sizes)
