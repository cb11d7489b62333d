from __future__ import annotations

from typing import Any

import pytest
import torch

from lab.domains.graphs import path_star as theory
from lab.domains.graphs.edge_lookup import backward_lookup, compact_predictor, forward_lookup, path_planner
from lab.domains.graphs.path_star_prompts import path_star, vocabulary_size, write
from lab.errors import LabError
from lab.streams import stream

SIZES = ((1, 2, 3), (2, 2, 5), (2, 4, 8), (3, 5, 14), (5, 3, 11))


def written(size: tuple[int, int, int], order: Any = "forward") -> Any:
    arms, length, labels = size
    graphs = path_star(stream(0, "x", *size), 20, arms=arms, length=length, labels=labels)
    return write(graphs, labels, format="compact", order=order)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("prefix", [False, True])
def test_networks_equal_their_closed_forms(size: tuple[int, int, int], prefix: bool) -> None:
    _, length, labels = size
    vocabulary = vocabulary_size(labels, "compact")
    pairs = (
        ("forward", forward_lookup(labels, length), theory.cheat(vocabulary=vocabulary)),
        ("reversed", backward_lookup(labels, length), theory.cheat(vocabulary=vocabulary, order="reversed")),
        ("forward", path_planner(labels, length), theory.planner(vocabulary=vocabulary, path_nodes=length)),
    )
    for order, network, closed_form in pairs:
        sequences = written(size, order)
        predict = compact_predictor(network, labels, length, prefix=prefix)
        law = predict(sequences.tokens, sequences.prefix_length)[0].exp()
        expected = closed_form(sequences.tokens, sequences.prefix_length).exp()
        scored = sequences.loss_mask
        torch.testing.assert_close(law[scored], expected[scored], atol=1e-12, rtol=0)
        torch.testing.assert_close(law.sum(-1), torch.ones_like(law[..., 0]))


def test_depths() -> None:
    assert forward_lookup(8, 4).architecture.layers == 1
    assert path_planner(8, 4).architecture.layers == 3
    assert path_planner(8, 2).architecture.layers == 1


def test_a_planner_one_hop_short_is_left_with_a_guess() -> None:
    sequences = written((3, 5, 14))
    predict = compact_predictor(path_planner(14, 5, hops=2), 14, 5)
    first = int(sequences.prefix_length[0]) - 1
    law = predict(sequences.tokens, sequences.prefix_length)[0, :, first].exp()
    right = law.gather(1, sequences.targets[:, first : first + 1])
    assert float(right.max()) < 1 / 3 + 1e-9


def test_the_answer_is_not_looked_at() -> None:
    sequences = written((2, 4, 8))
    predict = compact_predictor(path_planner(8, 4), 8, 4)
    changed = sequences.tokens.clone()
    first = int(sequences.prefix_length[0]) - 1
    changed[:, first + 1 :] = 0
    before, after = (predict(tokens, sequences.prefix_length) for tokens in (sequences.tokens, changed))
    torch.testing.assert_close(before[:, :, : first + 1], after[:, :, : first + 1])


def test_bad_input_is_refused_in_one_sentence() -> None:
    predict = compact_predictor(forward_lookup(8, 4), 8, 4)
    sequences = written((2, 4, 8))
    with pytest.raises(LabError, match="7 to 8 tokens but must all have the same number"):
        predict(sequences.tokens[:2], torch.tensor([7, 8]))
    with pytest.raises(LabError, match="exceed the 11 positions"):
        predict(torch.zeros(1, 12, dtype=torch.int64), torch.tensor([8]))
    with pytest.raises(LabError, match="but the vocabulary of 8 labels ends at 72"):
        predict(torch.full((1, 11), 73), torch.tensor([8]))
    with pytest.raises(LabError, match="-1 hops"):
        path_planner(8, 4, hops=-1)
