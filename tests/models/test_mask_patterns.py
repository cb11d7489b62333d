"""Patterns of particular papers, and every pattern by its name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.errors import LabError
from lab.models import masks
from lab.models.mask_patterns import (
    PATTERNS,
    alternating_turns,
    chunked_two_stream,
    labels_by_erasure,
    mask,
    next_scale,
)
from lab.models.masks import closure, flow, is_transitive
from lab.models.transformer import Architecture, Transformer
from lab.streams import stream

NEW: list[tuple[str, dict[str, Any], bool]] = [
    ("next_scale", {"sides": [1, 2, 3]}, True),
    ("alternating_turns", {"turns": 3, "turn_length": 2, "generated": 2}, False),
    ("labels_by_erasure", {"image": 3, "prompt": 2, "labels": [2, 1, 3]}, True),
    ("chunked_two_stream", {"chunks": [1, 2, 3]}, True),
]


def test_every_new_pattern_is_tested() -> None:
    assert {name for name, *_ in NEW} == set(PATTERNS) - set(masks.PATTERNS)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize(("name", "sizes", "transitive"), NEW, ids=[name for name, *_ in NEW])
def test_flow_is_the_closure(name: str, sizes: dict[str, Any], transitive: bool, depth: int) -> None:
    pattern = mask(name, **sizes)
    network = Transformer(Architecture(width=12, layers=depth, heads=3), [5], torch.float64)
    inputs = torch.from_numpy(stream(0, "prompt").rng().standard_normal((len(pattern), 12)))
    assert torch.equal(flow(network, inputs, pattern) != 0, closure(pattern, depth))
    assert is_transitive(pattern) is transitive


@settings(deadline=None, max_examples=30, derandomize=True)
@given(image=st.integers(0, 4), prompt=st.integers(0, 3), labels=st.lists(st.integers(1, 3), max_size=4))
def test_erasing_and_opening_gives_independent_labels(image: int, prompt: int, labels: list[int]) -> None:
    assert torch.equal(labels_by_erasure(image, prompt, labels), masks.labels_independent(image, prompt, labels))


def test_limits_of_the_patterns() -> None:
    assert torch.equal(next_scale([1, 1, 1]), masks.causal(3))
    assert torch.equal(next_scale([3]), masks.full(9))
    assert torch.equal(alternating_turns(2, 2), masks.segment([0, 0, 1, 1]))
    assert torch.equal(chunked_two_stream([1] * 5), masks.two_stream(5))
    assert torch.equal(chunked_two_stream([4]), torch.tensor([[True, *[False] * 4]] * 5))


@settings(deadline=None, max_examples=30, derandomize=True)
@given(chunks=st.lists(st.integers(1, 3), min_size=1, max_size=4))
def test_chunked_queries_see_what_was_generated_before_their_chunk(chunks: list[int]) -> None:
    mask, content = chunked_two_stream(chunks), 1 + sum(chunks[:-1])
    assert len(mask) == content + sum(chunks)
    assert not mask[:, content:].any()
    row, generated = content, 1
    for chunk in chunks:
        for _ in range(chunk):
            assert mask[row, :content].tolist() == [place < generated for place in range(content)]
            row += 1
        generated += chunk


def test_any_pattern_is_built_by_name() -> None:
    assert torch.equal(mask("prefix_lm", length=6, prefix_length=2), masks.prefix_lm(6, 2))
    assert torch.equal(mask("segment", segments=[0, 1]), masks.segment([0, 1]))
    assert torch.equal(mask("block_causal", sizes=(1, 2)), masks.block_causal([1, 2]))


@pytest.mark.parametrize(
    ("name", "sizes", "message"),
    [
        ("casual", {"length": 3}, "no attention pattern 'casual'.*did you mean 'causal'"),
        ("causal", {}, "given no sizes but takes length"),
        ("causal", {"length": 3, "window": 2}, "given length, window but takes length"),
        ("prefix_lm", {"length": 3}, "given length but takes length, prefix_length"),
        ("prefix_lm", {"length": 3, "prefix_length": 4}, "prefix_length = 4 exceeds length = 3"),
        ("causal", {"length": 2.5}, "length = 2.5 of the pattern 'causal' must be a whole number"),
        ("causal", {"length": True}, "length = True .* must be a whole number"),
        ("next_scale", {"sides": 3}, "sides = 3 .* must be a list of whole numbers"),
        ("next_scale", {"sides": [1, 0]}, "side = 0 of next_scale must be at least 1"),
        ("next_scale", {"sides": [1, "2"]}, "must be a list of whole numbers"),
        ("alternating_turns", {"turns": 2, "turn_length": 0}, "turn_length = 0"),
        ("labels_by_erasure", {"image": -1, "prompt": 2, "labels": [1]}, "image = -1"),
        ("labels_by_erasure", {"image": 1, "prompt": 2, "labels": [0]}, "tokens_of_a_label = 0"),
        ("chunked_two_stream", {"chunks": []}, "0 chunks"),
        ("chunked_two_stream", {"chunks": [1, 0]}, "chunk = 0 of chunked_two_stream"),
    ],
)
def test_impossible_sizes_end_in_one_sentence(name: str, sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(LabError, match=message) as caught:
        mask(name, **sizes)
    assert "\n" not in str(caught.value)
