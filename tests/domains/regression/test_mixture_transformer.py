"""The explicit transformer against the closed form, under both masks, and bad input."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.domains.regression.mixture_prompts import component_set, regression_mixture
from lab.domains.regression.mixture_transformer import places, posterior_network, posterior_rounding, with_memory
from lab.domains.regression.mixtures import running_posterior_mean
from lab.errors import LabError
from lab.models import masks
from lab.streams import stream


@settings(deadline=None, max_examples=15, derandomize=True)
@given(
    dimension=st.integers(1, 4),
    count=st.integers(1, 5),
    length=st.integers(1, 7),
    noise=st.sampled_from([0.2, 0.5, 2.0]),
    seed=st.integers(0, 999),
)
def test_network_is_the_posterior_mean(dimension: int, count: int, length: int, noise: float, seed: int) -> None:
    components = component_set(stream(seed, "set"), count, dimension, "unit")
    prior = tuple((torch.arange(1, count + 1).double() / torch.arange(1, count + 1).sum()).tolist())
    prompts = regression_mixture(stream(seed), 8, components=components, length=length, noise=noise)
    for law in ((), prior):
        exact = running_posterior_mean(prompts.x, prompts.y, components, noise, law)
        bound = posterior_rounding(prompts.x, prompts.y, components, noise, law)
        network = posterior_network(components, length, noise, law)
        predictions = network(prompts.x, prompts.y, masks.causal(2 * length - 1))
        assert float((predictions - exact).abs().max()) <= bound
        for pairs in range(length):
            behind = network(prompts.x, prompts.y, masks.prefix_lm(2 * length - 1, 2 * pairs))[:, pairs:]
            assert float((behind - exact[:, pairs:]).abs().max()) <= bound


def test_inside_a_prefix_labels_are_seen() -> None:
    components = component_set(stream(0, "set"), 3, 2, "unit")
    prompts = regression_mixture(stream(0), 8, components=components, length=5, noise=0.5)
    network = posterior_network(components, 5, 0.5)
    changed = prompts.y.clone()
    changed[:, 2] += 1
    causal, prefix = masks.causal(9), masks.prefix_lm(9, 8)
    assert torch.equal(network(prompts.x, prompts.y, causal)[:, :3], network(prompts.x, changed, causal)[:, :3])
    assert bool((network(prompts.x, prompts.y, prefix)[:, 2] != network(prompts.x, changed, prefix)[:, 2]).any())


def test_the_last_label_has_no_row() -> None:
    components = component_set(stream(0, "set"), 3, 2, "unit")
    prompts = regression_mixture(stream(0), 4, components=components, length=4, noise=0.5)
    changed = prompts.y.clone()
    changed[:, -1] += 5
    network = posterior_network(components, 4, 0.5)
    assert torch.equal(network.rows(prompts.x, prompts.y), network.rows(prompts.x, changed))


@pytest.mark.parametrize("change", [{"average": True}, {"own_input": True}])
def test_variants_are_wrong(change: dict) -> None:
    components = component_set(stream(1, "set"), 4, 3, "unit")
    prompts = regression_mixture(stream(1), 20, components=components, length=8, noise=0.5)
    exact = running_posterior_mean(prompts.x, prompts.y, components, 0.5)
    predictions = posterior_network(components, 8, 0.5, **change)(prompts.x, prompts.y, masks.causal(15))
    assert float((predictions - exact).abs().max()) > 0.1


def test_parts_of_a_row_lie_side_by_side() -> None:
    at = places(3, 2, 4)
    ends = [part.stop for part in at.values()]
    assert [part.start for part in at.values()] == [0, *ends[:-1]]
    assert at["position"].stop - at["position"].start == 3 + 7


def test_memory_rows_are_seen_by_all_and_see_only_themselves() -> None:
    mask = with_memory(masks.causal(3), 2)
    assert bool(mask[:, :2].all())
    assert not bool(mask[:2, 2:].any())
    assert torch.equal(mask[2:, 2:], masks.causal(3))


def test_bad_input_is_one_sentence() -> None:
    components = component_set(stream(2, "set"), 3, 2, "unit")
    prompts = regression_mixture(stream(2), 2, components=components, length=4, noise=0.5)
    with pytest.raises(LabError, match="4 inputs of dimension 2, but the network was made for 5"):
        posterior_network(components, 5, 0.5)(prompts.x, prompts.y, masks.causal(9))
    with pytest.raises(LabError, match="length is 0"):
        posterior_network(components, 0, 0.5)
    with pytest.raises(LabError, match="noise is 0.0"):
        posterior_network(components, 4, 0.0)
    with pytest.raises(LabError, match="excludes a component"):
        posterior_network(components, 4, 0.5, (0.5, 0.5, 0.0))
