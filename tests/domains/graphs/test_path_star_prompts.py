from __future__ import annotations

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.domains.graphs.path_star import next_nodes
from lab.domains.graphs.path_star_prompts import (
    NO_TARGET,
    PathStars,
    blank,
    check_sizes,
    feature_count,
    features,
    hide_answer,
    look_ahead,
    path_star,
    sample_from_pool,
    vocabulary_size,
    write,
)
from lab.errors import LabError
from lab.streams import stream

SIZES = st.tuples(st.integers(1, 4), st.integers(2, 5), st.integers(0, 3))


@settings(deadline=None, max_examples=12, derandomize=True)
@given(size=SIZES, seed=st.integers(0, 99))
def test_a_graph_is_a_star_of_disjoint_paths(size: tuple[int, int, int], seed: int) -> None:
    arms, length, spare = size
    nodes = arms * (length - 1) + 1
    graphs = path_star(stream(seed, "x"), 4, arms=arms, length=length, labels=nodes + spare)
    assert graphs.arms.shape == (4, arms, length)
    for row in range(4):
        graph = nx.DiGraph(graphs.edges[row].tolist())
        start = int(graphs.path[row, 0])
        assert graph.number_of_nodes() == nodes
        assert graph.number_of_edges() == nodes - 1
        assert graph.out_degree(start) == arms
        for arm in graphs.arms[row].tolist():
            assert nx.shortest_path(graph, start, arm[-1]) == arm


def test_labels_and_the_order_of_edges_are_uniform() -> None:
    graphs = path_star(stream(0, "x"), 20_000, arms=2, length=3, labels=6)
    starts = torch.bincount(graphs.path[:, 0], minlength=6) / 20_000
    first = (graphs.edges[:, 0] == graphs.arms[:, 0, :2]).all(1).double().mean()
    deviation = (1 / 6 * 5 / 6 / 20_000) ** 0.5
    assert float((starts - 1 / 6).abs().max()) < 5 * deviation
    assert abs(float(first) - 1 / 4) < 5 * (1 / 4 * 3 / 4 / 20_000) ** 0.5


def star() -> PathStars:
    """0 -> 1 -> 2 and 0 -> 3 -> 4, the goal is 2."""
    return PathStars(torch.tensor([[[0, 1, 2], [0, 3, 4]]]), torch.tensor([[[1, 2], [0, 3], [0, 1], [3, 4]]]))


def test_the_authors_string() -> None:
    written = write(star(), 5, format="authors")
    bar, equals, slash = 5, 6, 7
    expected = [1, 2, bar, 0, 3, bar, 0, 1, bar, 3, 4, slash, 0, 2, equals, 0, 1, 2]
    assert written.tokens[0].tolist() == expected
    assert int(written.prefix_length) == 3 * 4 - 1 + 4
    assert written.targets[0, written.loss_mask[0]].tolist() == [0, 1, 2]
    assert int(written.loss_mask[0].int().argmax()) == expected.index(equals)
    reverse = write(star(), 5, format="authors", order="reversed")
    assert reverse.tokens[0, -7:].tolist() == [slash, 0, 2, equals, 2, 1, 0]


def test_the_compact_string() -> None:
    written = write(star(), 5, format="compact")
    edges = [6 + 5 * u + v for u, v in star().edges[0].tolist()]
    assert written.tokens[0].tolist() == [*edges, 2, 0, 1, 2]
    assert int(written.prefix_length) == 6
    assert written.targets[0].tolist() == [NO_TARGET] * 5 + [1, 2, NO_TARGET]
    reverse = write(star(), 5, format="compact", order="reversed")
    assert reverse.tokens[0].tolist() == [*edges, 0, 2, 1, 0]
    assert vocabulary_size(5, "compact") == 31
    assert vocabulary_size(5, "authors") == 9


@pytest.mark.parametrize("format", ["compact", "authors"])
def test_a_hidden_answer_keeps_its_targets(format: str) -> None:
    graphs = path_star(stream(1, "x"), 6, arms=2, length=4, labels=8)
    shown = write(graphs, 8, format=format)
    token = blank(8, format)
    hidden = hide_answer(shown, token)
    prefix = int(shown.prefix_length[0])
    assert torch.equal(hidden.tokens[:, :prefix], shown.tokens[:, :prefix])
    assert bool((hidden.tokens[:, prefix:] == token).all())
    assert torch.equal(hidden.targets, shown.targets)


def test_heads_that_look_ahead() -> None:
    targets = torch.tensor([[-1, 5, 6, 7]])
    expected = [[-1, -1, -1], [5, 6, 7], [6, 7, -1], [7, -1, -1]]
    assert look_ahead(targets, 3)[0].tolist() == expected
    assert torch.equal(look_ahead(targets, 1)[..., 0], targets)


def test_features_are_sums_of_one_hot_fields() -> None:
    written = write(star(), 5, format="compact")
    x = features(written.tokens, labels=5, edges=4, length=3)
    assert x.shape == (1, 8, feature_count(5, 3))
    fields = {"source": x[..., :5], "target": x[..., 5:10], "blank": x[..., 10], "place": x[..., 11:]}
    assert fields["source"].argmax(-1)[0].tolist() == [1, 0, 0, 3, 2, 0, 1, 2]
    assert fields["target"].argmax(-1)[0].tolist() == [2, 3, 1, 4, 2, 0, 1, 2]
    assert fields["place"].sum(-1)[0].tolist() == [0] * 4 + [1] * 4
    assert float(fields["blank"].sum()) == 0
    hidden = features(hide_answer(written, 5).tokens, labels=5, edges=4, length=3)
    assert hidden[0, 6:, :10].abs().sum() == 0
    assert hidden[0, :, 10].tolist() == [0] * 6 + [1] * 2


def test_a_pool_gives_nothing_but_its_own_graphs() -> None:
    pool = path_star(stream(0, "pool"), 5, arms=2, length=3, labels=6)
    drawn = sample_from_pool(pool, stream(0, "data", 3), 40)
    known = {tuple(edges.flatten().tolist()) for edges in pool.edges}
    sampled = {tuple(edges.flatten().tolist()) for edges in drawn.edges}
    assert sampled == known
    assert torch.equal(drawn.arms[:7], sample_from_pool(pool, stream(0, "data", 3), 7).arms)
    children = next_nodes(drawn.edges, drawn.path[:, 1:-1], 6)
    assert torch.equal(children.argmax(-1), drawn.path[:, 2:])


def test_bad_sizes_are_refused_in_one_sentence() -> None:
    with pytest.raises(LabError, match="7 nodes but there are only 6 labels"):
        path_star(stream(0, "x"), 2, arms=3, length=3, labels=6)
    with pytest.raises(LabError, match="at least 1 arm"):
        check_sizes(0, 3, 9)
    with pytest.raises(LabError, match="2 nodes"):
        check_sizes(3, 1, 9)
    with pytest.raises(LabError, match="vocabulary of 5 labels ends at 30"):
        features(torch.tensor([[31]]), labels=5, edges=1, length=2)
    with pytest.raises(LabError, match="9 tokens exceed the 8 positions"):
        features(torch.zeros(1, 9, dtype=torch.int64), labels=5, edges=4, length=3)
    with pytest.raises(LabError, match="must lie between 0 and 3"):
        write(star(), 4, format="compact")
    with pytest.raises(LabError, match="'long' is not one of"):
        write(star(), 5, format="long")
    with pytest.raises(LabError, match="'up' is not one of"):
        write(star(), 5, format="compact", order="up")
    pool = path_star(stream(0, "pool"), 1, arms=2, length=3, labels=6)
    pool = PathStars(pool.arms[:0], pool.edges[:0])
    with pytest.raises(LabError, match="pool of 0 graphs"):
        sample_from_pool(pool, stream(0, "data"), 2)
