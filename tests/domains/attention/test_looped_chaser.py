"""Groves, chains and a chaser that is trained."""

from __future__ import annotations

import pytest
import torch

from lab.domains.attention.looped_chaser import LoopedChaser, chains, groves
from lab.domains.attention.pointer_forests import SHARP, frozen_chaser
from lab.errors import LabError
from lab.models import masks
from lab.streams import stream


def test_groves_have_their_roots_and_no_more_depth() -> None:
    prompts = groves(stream(0, "groves"), 200, nodes=7, roots=2, deepest=3)
    assert bool(((prompts.depth == 0).sum(1) == 2).all())
    assert int(prompts.depth.max()) == 3
    free = groves(stream(0, "groves"), 200, nodes=7, roots=2)
    assert int(free.depth.max()) > 3
    shallow = free.depth.amax(1) <= 3
    assert torch.equal(free.tokens[shallow], prompts.tokens[shallow])
    deep = groves(stream(0, "groves"), 200, nodes=7, roots=2, draws=3)
    assert float(deep.depth.double().mean()) > float(free.depth.double().mean()) + 0.3


def test_chains_have_every_depth_once_below_one_root() -> None:
    prompts = chains(stream(0, "chains"), 50, nodes=6)
    assert all(sorted(row) == [0, 0, 1, 2, 3, 4] for row in prompts.depth.tolist())
    assert len({tuple(row) for row in prompts.tokens.tolist()}) > 40


def test_with_the_weights_of_the_chaser_it_climbs_edge_by_edge() -> None:
    nodes, prompts = 6, chains(stream(0, "chains"), 20, nodes=6)
    layer, network = frozen_chaser(nodes, SHARP), LoopedChaser([0, 1], nodes=nodes).double()
    with torch.no_grad():
        for name in ("query", "key", "value", "output"):
            getattr(network, name).copy_(getattr(layer, name)[0, 0])
        network.read_out.zero_()[:, 2 * nodes :] = torch.eye(nodes)
        answers = network(prompts.tokens.expand(2, -1, -1), masks.full(nodes), 6).argmax(-1)
    for step in range(1, 7):
        assert torch.equal(answers[step - 1, 0] == prompts.targets, prompts.depth <= step)
    assert torch.equal(answers[:, 0], answers[:, 1])


def test_models_do_not_depend_on_their_company() -> None:
    prompts = groves(stream(0, "groves"), 3, nodes=5, roots=2)
    network = LoopedChaser([4, 7], nodes=5)
    tokens = prompts.tokens.expand(2, -1, -1)
    patterns = torch.stack([masks.full(5), masks.causal(5)])
    together = network(tokens, patterns, 2)
    alone = network.select([1])(tokens[:1], patterns[1], 2)
    assert torch.allclose(together[:, 1:], alone, atol=1e-6)
    assert together.shape == (2, 2, 3, 5, 5)
    assert not torch.equal(together[:, 0], together[:, 1])


def test_bad_input_ends_in_one_sentence() -> None:
    with pytest.raises(LabError, match="roots = 4 of a grove"):
        groves(stream(0, "groves"), 1, nodes=3, roots=4)
    with pytest.raises(LabError, match="draws = 0 of a parent"):
        groves(stream(0, "groves"), 1, nodes=3, roots=1, draws=0)
    with pytest.raises(LabError, match="deepest = 0 of a grove"):
        groves(stream(0, "groves"), 1, nodes=3, roots=1, deepest=0)
    with pytest.raises(LabError, match="nodes = 2 of a chain"):
        chains(stream(0, "chains"), 1, nodes=2)
    with pytest.raises(LabError, match="0 seeds and nodes = 3"):
        LoopedChaser([], nodes=3)
