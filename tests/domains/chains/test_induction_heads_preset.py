"""The networks of the induction-heads sheet: distances as numbers or as vectors, and the paper's preset for a few updates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from lab.models.masks import causal
from tasks.induction_heads_markov import causal_and_prefix, counting_in_context
from tasks.induction_heads_markov._attention import AttentionSizes, OffsetTransformer


@pytest.mark.parametrize("relative", ["numbers", "vectors"])
def test_scores_hang_on_distances_as_said(relative: str) -> None:
    sizes = AttentionSizes(length=5, width=4, relative=relative)
    network = OffsetTransformer.start(sizes, 1, (0, 1))
    with torch.no_grad():
        network.parts["offsets"].normal_(generator=torch.Generator().manual_seed(0))
    tokens = torch.tensor([[0, 2, 1, 1, 0]]).expand(2, 1, 5)
    weights: list[torch.Tensor] = []
    network(tokens, causal(5).unsqueeze(0), weights)
    for model in range(2):
        part = {name: value[model].detach() for name, value in network.parts.items()}
        y = torch.nn.functional.layer_norm(part["embedding"][tokens[0, 0]], (4,))
        query, key = y @ part["query"][0], y @ part["key"][0]
        for i in range(5):
            scores = []
            for j in range(i + 1):
                offset = part["offsets"][0, i - j + 4]
                scaled = query[i] / 2
                scores.append(scaled @ key[j] + (offset if relative == "numbers" else scaled @ offset))
            torch.testing.assert_close(weights[0][model, 0, i, : i + 1].detach(), torch.stack(scores).softmax(0))


@pytest.mark.parametrize("part", [counting_in_context, causal_and_prefix])
def test_the_network_of_the_paper_preset_learns_for_a_few_updates(part) -> None:
    paper = part.TASK.config("paper")
    assert paper.relative == "vectors"
    assert (paper.width, paper.length, paper.batch) == (16, 100, 64)
    few = replace(paper, steps=2, test=4, record_every=1)
    measured = part.phases.function(few, (0,)) if part is counting_in_context else part.two_masks.function(few, (0,))
    losses = measured["cross_entropy"].sel(seed=0).values
    assert np.isfinite(losses).all()
    assert (np.diff(losses, axis=-1) != 0).any()
