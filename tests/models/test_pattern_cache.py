"""Caches that know the pattern they were filled under, and the laws of what they cost."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.errors import LabError
from lab.models import costs, masks
from lab.models.caches import PatternCache, window_mask
from lab.models.transformer import Architecture, Transformer
from lab.streams import stream

NETWORK = Transformer(Architecture(width=8, layers=2, heads=2), [0, 1], torch.float64)
INPUTS = torch.from_numpy(stream(0, "inputs").rng().standard_normal((1, 3, 8, 8)))


def read(cache: PatternCache, start: int, end: int, mask: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return cache.read(NETWORK, INPUTS[:, :, start:end], mask)


@settings(deadline=None, max_examples=15, derandomize=True)
@given(cuts=st.sets(st.integers(1, 7)), window=st.none() | st.integers(1, 8))
def test_chunks_are_one_pass(cuts: set[int], window: int | None) -> None:
    mask = masks.causal(8) if window is None else masks.sliding_window(8, window)
    ends, cache, outputs = [*sorted(cuts), 8], PatternCache(window), []
    for start, end in zip([0, *ends], ends, strict=False):
        outputs.append(read(cache, start, end, mask[:end, :end]))
    with torch.no_grad():
        torch.testing.assert_close(torch.cat(outputs, dim=2), NETWORK(INPUTS, mask))
    assert cache.length == 8
    assert cache.numbers == costs.cache_numbers(costs.Size(2, 8, 1), 8, window)


def test_a_lent_cache_stays_as_it_is() -> None:
    cache = PatternCache()
    read(cache, 0, 4, masks.causal(4))
    with torch.no_grad():
        lent = [cache.read(NETWORK, INPUTS[:, :, 4:], masks.causal(8), keep=False) for _ in range(2)]
    assert torch.equal(*lent)
    assert (cache.length, cache.held) == (4, 4)


def test_another_pattern_is_refused() -> None:
    cache = PatternCache()
    read(cache, 0, 4, masks.causal(4))
    with pytest.raises(LabError, match="token 0 would see 4 of the 4 tokens held and saw 1; read the prompt anew"):
        read(cache, 4, 8, masks.prefix_lm(8, 4))
    with pytest.raises(LabError, match=r"shape \(7, 7\) but 4 tokens are held and 4 are new"):
        read(cache, 4, 8, masks.causal(7))
    assert cache.length == 4
    growing = PatternCache()
    read(growing, 0, 4, masks.full(4))
    with pytest.raises(LabError, match="token 0, which is held, reads a token that comes later"):
        read(growing, 4, 8, masks.full(8))
    queue = PatternCache(3)
    read(queue, 0, 5, masks.sliding_window(5, 3))
    with pytest.raises(LabError, match="Token 5 reads a token that a window of 3 has dropped"):
        read(queue, 5, 8, torch.cat((masks.sliding_window(8, 3)[:5], masks.causal(8)[5:])))


def test_windows_fit_the_prompt() -> None:
    assert torch.equal(window_mask(5, 2), masks.sliding_window(5, 2))
    for window in (0, 6):
        with pytest.raises(LabError, match=f"A window of {window} does not fit a prompt of 5 tokens"):
            window_mask(5, window)
        with pytest.raises(LabError, match=f"window of {window} does not fit"):
            costs.visible_pairs("sliding_window", 5, {"window": window})
        with pytest.raises(LabError, match=f"A window of {window} does not fit 5 tokens"):
            costs.cache_numbers(costs.Size(1, 2, 1), 5, window)
    with pytest.raises(LabError, match="window = 0"):
        PatternCache(0)
    with pytest.raises(LabError, match="A prefix of 6 does not fit"):
        costs.visible_pairs("prefix_lm", 5, {"prefix_length": 6})
    with pytest.raises(LabError, match="no law of pairs for the pattern 'segment'"):
        costs.visible_pairs("segment", 5, {})


def test_laws_of_generation_add_up() -> None:
    size = costs.Size(3, 16, 5)
    assert costs.generation(size, 16, 24, cached=True) == 924160
    assert costs.generation(size, 16, 24, cached=False) == 17027200
    assert costs.all_lengths(size, 32, causal=True) == costs.operations(size, 32, 32)
    assert costs.state_numbers(size, 2) == 3 * 2 * (8 * 8 + 8)
    with pytest.raises(LabError, match="3 heads do not divide a width of 16"):
        costs.state_numbers(size, 3)


@settings(deadline=None, max_examples=30, derandomize=True)
@given(requests=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9)), min_size=1, max_size=8))
def test_fused_steps_are_a_union(requests: list[tuple[int, int]]) -> None:
    busy = {step for start, length in requests for step in range(start, start + length)}
    assert costs.fused_steps([start for start, _ in requests], [length for _, length in requests]) == len(busy)
