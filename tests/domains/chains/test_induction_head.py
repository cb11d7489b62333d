from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.domains.chains.induction_head import attention_maps, causal_head, frequencies, prefix_head, stream_of
from lab.domains.chains.markov import smoothed_frequencies
from lab.domains.chains.markov_prompts import dirichlet_chains
from lab.errors import LabError
from lab.models.masks import causal, full
from lab.statistics import rounding_bound
from lab.streams import stream


@settings(deadline=None, max_examples=10, derandomize=True)
@given(states=st.integers(2, 5), length=st.integers(2, 14), sharpness=st.floats(0, 60), seed=st.integers(0, 999))
def test_both_wirings_equal_the_formula(states: int, length: int, sharpness: float, seed: int) -> None:
    tokens = dirichlet_chains(stream(seed), 20, states=states, length=length).tokens
    target = smoothed_frequencies(tokens, states, sharpness)
    bound = rounding_bound(4 * 60 + 2 * (length + 1))
    under_causal = frequencies(causal_head(states, length, sharpness), tokens, causal(length + 1))
    under_full = frequencies(prefix_head(states, length, sharpness), tokens, full(length + 1))
    assert float((under_causal - target).abs().max()) <= bound
    assert float((under_full - target)[:, -1].abs().max()) <= bound


def test_layer_one_looks_at_the_neighbour() -> None:
    tokens = torch.tensor([[0, 1, 1, 0]])
    before = attention_maps(causal_head(2, 4, 3.0), tokens, causal(5))[0, 0]
    after = attention_maps(prefix_head(2, 4, 3.0), tokens, full(5))[0, 0]
    assert before.diagonal(-1).tolist() == pytest.approx([1] * 4)
    assert after.diagonal(1).tolist() == pytest.approx([1] * 4)


def test_the_sentinel_carries_no_symbol() -> None:
    assert not stream_of(torch.tensor([[1, 0]]), 2)[0, 0, 0, :2].any()


@pytest.mark.parametrize("sharpness", [-0.1, 121.0])
def test_a_sharpness_out_of_range_is_one_sentence(sharpness: float) -> None:
    for build in (causal_head, prefix_head):
        with pytest.raises(LabError, match="sharpness"):
            build(3, 5, sharpness)


def test_a_token_outside_the_alphabet_is_one_sentence() -> None:
    with pytest.raises(LabError, match="token 3"):
        frequencies(causal_head(3, 2, 1.0), torch.tensor([[0, 3]]), causal(3))
