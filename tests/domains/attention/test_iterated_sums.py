"""Reachability and products by iteration."""

from __future__ import annotations

import networkx as nx
import pytest
import torch

from lab.domains.attention.iterated_sums import (
    compose,
    distances,
    products_by_doubling,
    products_in_turn,
    random_graph,
    spread,
)
from lab.errors import LabError
from lab.streams import stream


def test_distances_are_those_of_networkx() -> None:
    graphs = random_graph(stream(0, "graphs"), 20, 12, 0.15)
    for graph, distance in zip(graphs, distances(graphs), strict=True):
        known = nx.single_source_shortest_path_length(nx.from_numpy_array(graph.numpy()), 0)
        assert distance.tolist() == [known.get(node, -1) for node in range(12)]


def test_marks_spread_by_one_edge() -> None:
    graphs = random_graph(stream(0, "graphs"), 20, 12, 0.15)
    marks, distance = torch.eye(12).double()[:1].expand(20, 12), distances(graphs)
    for step in range(1, 5):
        marks = spread(marks, graphs)
        assert torch.equal(marks, ((distance >= 0) & (distance <= step)).double())


@pytest.mark.parametrize("length", [1, 2, 7])
def test_products(length: int) -> None:
    drawn = torch.from_numpy(stream(0, "products").rng().random((4, length, 5)).argsort(-1))
    expected = [drawn[:, 0]]
    for place in range(1, length):
        expected.append(compose(expected[-1], drawn[:, place]))
    truth = torch.stack(expected, 1)
    assert torch.equal(products_in_turn(drawn, length - 1), truth)
    assert torch.equal(products_by_doubling(drawn, (length - 1).bit_length()), truth)


def test_bad_input_ends_in_one_sentence() -> None:
    with pytest.raises(LabError, match=r"chance = 1.5 in \[0, 1\]"):
        random_graph(stream(0, "graphs"), 1, 3, 1.5)
