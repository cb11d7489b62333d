"""Weights for a known graph give the closed forms, in both architectures."""

from __future__ import annotations

import pytest
import torch

from lab.domains.chains.latent_graph_prompts import (
    ROOT,
    causal_sequences,
    halves_and_previous,
    several_parent_sequences,
    tuple_codes,
)
from lab.domains.chains.latent_graph_transformer import (
    several_parents,
    several_parents_transformer,
    single_parent,
    single_parent_transformer,
)
from lab.domains.chains.latent_graphs import induction_head, row_of, several_parent_counts
from lab.errors import LabError
from lab.models import masks
from lab.streams import stream

FOREST = (ROOT, 0, 1, 0, ROOT, 4, 2)


@pytest.mark.parametrize("build", [single_parent, single_parent_transformer])
@pytest.mark.parametrize("sharpness", [0.0, 0.7, 5.0])
def test_single_parent_is_the_induction_head(build, sharpness: float) -> None:
    tokens = causal_sequences(stream(0), 50, 4, FOREST, 1.0).tokens
    law = build(FOREST, 4, sharpness, 1_600.0)(tokens[None], masks.causal(8))[0, :, -1]
    assert torch.allclose(law, induction_head(tokens, FOREST, 4, sharpness), atol=1e-13)


@pytest.mark.parametrize("build", [single_parent, single_parent_transformer])
def test_silent_nodes_are_not_read(build) -> None:
    tokens = causal_sequences(stream(0), 50, 4, FOREST, 1.0).tokens
    changed = tokens.clone()
    changed[:, 6] = (changed[:, 6] + 1) % 4  # nobody's parent; 7, the test token, looks at everyone
    model = build(FOREST, 4, 2.0, 1_600.0, [6, 7])
    mask = masks.causal(8)
    assert torch.allclose(model(tokens[None], mask)[..., -1, :], model(changed[None], mask)[..., -1, :])
    assert not torch.allclose(
        build(FOREST, 4, 2.0, 1_600.0)(tokens[None], mask)[..., -1, :],
        build(FOREST, 4, 2.0, 1_600.0)(changed[None], mask)[..., -1, :],
    )


@pytest.mark.parametrize("build", [several_parents, several_parents_transformer])
def test_several_parents_count_the_matching_tuples(build) -> None:
    graph = halves_and_previous(14)
    tokens = several_parent_sequences(stream(0), 100, 2, graph, 1.0).tokens
    countable = (*graph[:-2], (), graph[-1])
    row = row_of(several_parent_counts(tokens, countable, 2), tuple_codes(tokens, graph, [14], 2)[:, 0])
    matched = row.sum(-1) > 0
    assert bool(matched.any())
    law = build(graph, 2, 2_000.0, 1_600.0)(tokens[None], masks.causal(14))[0, :, -1]
    assert torch.allclose(law[matched], (row / row.sum(-1, keepdim=True))[matched], atol=1e-12)


def test_impossible_weights_are_refused() -> None:
    with pytest.raises(LabError, match="node 1 has the parent 1"):
        single_parent((ROOT, 1), 3, 1.0, 10.0)
    with pytest.raises(LabError, match="sharpness = inf"):
        single_parent(FOREST, 3, float("inf"), 10.0)
    with pytest.raises(LabError, match="focus = 0"):
        single_parent_transformer(FOREST, 3, 1.0, 0.0)
    with pytest.raises(LabError, match="the last one 0"):
        several_parents(((), ()), 3, 1.0, 10.0)
