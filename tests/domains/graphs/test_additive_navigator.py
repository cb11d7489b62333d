"""The one-layer network with explicit weights writes the law of paths."""

from __future__ import annotations

import pytest
import torch

from lab.decoding import decode
from lab.domains.graphs import navigation as exact
from lab.domains.graphs.additive_navigator import additive_navigator
from lab.domains.graphs.navigation_prompts import Vocabulary, bernoulli_dag, navigation, path_outcome
from lab.errors import LabError
from lab.evaluation import as_token_predictor
from lab.models import masks
from lab.streams import stream

ADJACENCY = bernoulli_dag(stream(0, "graph"), 1, 16, 0.3).adjacency[0]
CONNECTED = exact.transitive_closure(ADJACENCY)


@pytest.mark.parametrize("walk", [False, True])
def test_it_writes_the_law(walk: bool) -> None:
    policy = exact.conditioned_walk_policy(ADJACENCY) if walk else exact.uniform_path_policy(ADJACENCY)
    drawn = navigation(stream(1), 300, ADJACENCY, CONNECTED, layout="path", policy=policy)
    length = drawn.tokens.shape[1]
    model = additive_navigator(ADJACENCY, length, walk)
    predict = as_token_predictor(model, masks.causal(length), member=0)
    reference = exact.bayes_navigator(Vocabulary(16).size, ADJACENCY, policy)
    law, expected = (f(drawn.tokens, drawn.prefix_length).exp() for f in (predict, reference))
    assert float((law - expected).abs().amax(-1)[drawn.loss_mask].max()) < 1e-9


def test_greedy_paths_arrive() -> None:
    start, goal = CONNECTED.nonzero(as_tuple=True)
    longest = exact.longest_path(ADJACENCY)
    model = additive_navigator(ADJACENCY, longest + 3)
    prompts = torch.stack([goal, start], 1)
    end = Vocabulary(16).end
    written = decode(model, prompts, masks.causal(longest + 3), longest + 1, stop_token=end).tokens[0]
    edges, arrived = path_outcome(ADJACENCY, start, goal, written, end)
    assert bool((edges & arrived).all())


def test_another_goal_table_is_not_the_law() -> None:
    drawn = navigation(stream(2), 300, ADJACENCY, CONNECTED, layout="path")
    length = drawn.tokens.shape[1]
    nearness = (-exact.shortest_paths(ADJACENCY)).exp()
    predict = as_token_predictor(additive_navigator(ADJACENCY, length, value=nearness), masks.causal(length), member=0)
    reference = exact.bayes_navigator(Vocabulary(16).size, ADJACENCY)
    law, expected = (f(drawn.tokens, drawn.prefix_length).exp() for f in (predict, reference))
    assert float((law - expected).abs().amax(-1)[drawn.loss_mask].max()) > 0.1


def test_bad_input_is_refused() -> None:
    with pytest.raises(LabError, match="cycle"):
        additive_navigator(torch.ones(3, 3, dtype=torch.bool), 5)
    with pytest.raises(LabError, match="log_zero"):
        additive_navigator(ADJACENCY, 5, log_zero=1.0)
    model = additive_navigator(ADJACENCY, 5)
    with pytest.raises(LabError, match="positions"):
        decode(model, torch.zeros(1, 4, dtype=torch.int64), masks.causal(9), 5)
    with pytest.raises(LabError, match="outside the vocabulary"):
        decode(model, torch.full((1, 2), 24), masks.causal(9), 2)
