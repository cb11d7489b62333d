"""Closed forms on graphs against networkx, enumeration and scikit-learn."""

from __future__ import annotations

import inspect
import math
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from lab.checks import checks
from lab.contracts import registered
from lab.domains.graphs import navigation as exact
from lab.domains.graphs.navigation_prompts import bernoulli_dag, hierarchical_dag
from lab.errors import LabError
from lab.streams import stream

HYPOTHESIS = settings(deadline=None, max_examples=10, derandomize=True)
seeds = st.integers(0, 10_000)


def dag(seed: int, nodes: int = 8, probability: float = 0.4) -> exact.Adjacency:
    """A DAG with its nodes in random order."""
    adjacency = bernoulli_dag(stream(seed, "graph"), 1, nodes, probability).adjacency[0]
    order = torch.from_numpy(stream(seed, "order").rng().permutation(nodes))
    return adjacency[order][:, order]


def reference(adjacency: exact.Adjacency) -> Any:
    return nx.from_numpy_array(adjacency.numpy().astype(int), create_using=nx.DiGraph)


def paths(graph: Any, start: int, goal: int) -> list[list[int]]:
    return [[start]] if start == goal else list(nx.all_simple_paths(graph, start, goal))


@HYPOTHESIS
@given(seeds)
def test_counts_lengths_and_closure_agree_with_networkx(seed: int) -> None:
    adjacency = dag(seed)
    graph, nodes = reference(adjacency), len(adjacency)
    counts, means = exact.path_counts(adjacency), exact.mean_path_lengths(adjacency)
    shortest, closure = exact.shortest_paths(adjacency), exact.transitive_closure(adjacency)
    distances = dict(nx.all_pairs_shortest_path_length(graph))
    for start in range(nodes):
        assert set(closure[start].nonzero().flatten().tolist()) == nx.descendants(graph, start)
        for goal in range(nodes):
            routes = paths(graph, start, goal)
            assert counts[start, goal] == len(routes)
            assert shortest[start, goal] == distances[start].get(goal, math.inf)
            if routes:
                assert means[start, goal] == pytest.approx(np.mean([len(path) - 1 for path in routes]))
            else:
                assert means[start, goal].isnan()
    assert exact.longest_path(adjacency) == nx.dag_longest_path_length(graph)


@HYPOTHESIS
@given(seeds)
def test_names_of_nodes_do_not_matter(seed: int) -> None:
    adjacency = dag(seed)
    order = torch.from_numpy(stream(seed, "names").rng().permutation(len(adjacency)))
    renamed = adjacency[order][:, order]
    assert torch.equal(exact.path_counts(renamed), exact.path_counts(adjacency)[order][:, order])
    hits = exact.hitting_probabilities(adjacency)[order][:, order]
    assert torch.allclose(exact.hitting_probabilities(renamed), hits, atol=1e-14)


@HYPOTHESIS
@given(seeds)
def test_policies_are_laws_on_paths(seed: int) -> None:
    adjacency = dag(seed)
    counts = exact.path_counts(adjacency)
    moving = (counts > 0).T.clone().fill_diagonal_(False)  # [goal, node]
    for policy in (exact.uniform_path_policy(adjacency), exact.conditioned_walk_policy(adjacency)):
        assert torch.allclose(policy.sum(-1), moving.double(), atol=1e-13)
        assert bool((policy[:, ~adjacency] == 0).all())
        assert torch.allclose(exact.policy_success(policy), (counts > 0).double(), atol=1e-12)
    lengths = exact.policy_lengths(exact.uniform_path_policy(adjacency))
    means = exact.mean_path_lengths(adjacency).nan_to_num(0.0)
    assert torch.allclose(lengths, means, atol=1e-12)


def test_the_uniform_law_gives_every_path_the_same_probability() -> None:
    adjacency = dag(3, 12)
    policy, counts = exact.uniform_path_policy(adjacency), exact.path_counts(adjacency)
    start, goal = divmod(int(counts.argmax()), len(adjacency))
    routes = paths(reference(adjacency), start, goal)
    assert len(routes) > 3
    for path in routes:
        product = math.prod(float(policy[goal, u, v]) for u, v in zip(path, path[1:], strict=False))
        assert product == pytest.approx(1 / len(routes), rel=1e-13)


def test_hitting_probabilities_are_products_of_degrees_summed() -> None:
    adjacency = dag(4)
    graph, hits = reference(adjacency), exact.hitting_probabilities(adjacency)
    for start, goal in ((int(s), int(g)) for s, g in exact.transitive_closure(adjacency).nonzero()):
        total = sum(math.prod(1 / graph.out_degree(node) for node in path[:-1]) for path in paths(graph, start, goal))
        assert hits[start, goal] == pytest.approx(total, rel=1e-12)


def test_temperature_zero_is_the_limit() -> None:
    policy = exact.conditioned_walk_policy(dag(5, 12))
    cold, mode = exact.temper(policy, 0.002), exact.temper(policy, 0.0)
    assert torch.allclose(cold, mode, atol=1e-6)
    assert torch.allclose(exact.temper(policy, 1.0), policy, atol=1e-14)
    with pytest.raises(LabError, match="at least 0"):
        exact.temper(policy, -1.0)


def test_batches_of_graphs_equal_single_graphs() -> None:
    adjacency = bernoulli_dag(stream(0), 4, 8, 0.4).adjacency
    together = exact.path_counts(adjacency)
    assert all(torch.equal(together[i], exact.path_counts(adjacency[i])) for i in range(4))


def test_a_cycle_is_refused() -> None:
    cycle = torch.tensor([[0, 1, 0], [0, 0, 1], [1, 0, 0]], dtype=torch.bool)
    for function in (exact.path_counts, exact.longest_path, exact.hitting_probabilities, exact.uniform_path_policy):
        with pytest.raises(LabError, match="lies on a cycle"):
            function(cycle)
    loop = torch.eye(70, dtype=torch.bool)
    with pytest.raises(LabError, match="lies on a cycle"):
        exact.path_counts(loop)


def test_too_many_paths_are_refused() -> None:
    complete = torch.ones(60, 60, dtype=torch.bool).triu(1)
    with pytest.raises(LabError, match="2\\^53"):
        exact.path_counts(complete)
    assert exact.path_counts(complete[:50, :50])[0, 49] == 2**48


def test_a_matrix_that_is_not_square_is_refused() -> None:
    with pytest.raises(LabError, match="not square"):
        # The shape is what is wrong on purpose; the type checker of the tests would find it first.
        inspect.unwrap(exact.path_counts)(torch.zeros(3, 2, dtype=torch.bool))


def test_expected_numbers_are_means_over_graphs() -> None:
    width, probability, layers = 3, 0.5, 4
    graphs = hierarchical_dag(stream(7), 4000, layers, width, probability).adjacency
    counts = exact.path_counts(graphs)[:, 0, -1]
    expected = exact.expected_paths_hierarchical(width, probability, layers - 1)
    assert counts.mean() == pytest.approx(expected, abs=5 * float(counts.std()) / 4000**0.5)
    share = exact.reach_probability_hierarchical(width, probability, layers - 1)
    assert (counts > 0).double().mean() == pytest.approx(share, abs=5 * 0.5 / 4000**0.5)
    assert exact.reach_probability_hierarchical(5, 0.3, 1) == pytest.approx(0.3)
    assert exact.expected_paths_bernoulli(1, 0.3) == pytest.approx(0.3)
    with pytest.raises(LabError, match="between 0 and 1"):
        exact.expected_paths_bernoulli(2, 1.5)
    with pytest.raises(LabError, match="at least 1"):
        exact.reach_probability_hierarchical(3, 0.5, 0)


def test_suffix_coverage_is_what_paths_contain() -> None:
    adjacency = dag(8)
    graph, nodes = reference(adjacency), len(adjacency)
    connected = exact.transitive_closure(adjacency)
    training = connected & torch.from_numpy(stream(8, "kept").rng().random((nodes, nodes)) < 0.2)
    direct, one_more = exact.suffix_coverage(adjacency, training)
    expected, edges = set(), set()
    for start, goal in ((int(s), int(g)) for s, g in training.nonzero()):
        for path in paths(graph, start, goal):
            expected |= {(node, goal) for node in path[:-1]}
            edges |= set(zip(path, path[1:], strict=False))
    assert {tuple(pair) for pair in direct.nonzero().tolist()} == expected
    assert {tuple(pair) for pair in exact.edges_on_paths(adjacency, training).nonzero().tolist()} == edges
    longer = {(u, g) for u, v in graph.edges for g in range(nodes) if v == g or (v, g) in expected}
    assert {tuple(pair) for pair in one_more.nonzero().tolist()} == expected | longer


def test_additive_baseline_agrees_with_scikit_learn() -> None:
    adjacency = dag(9, 10)
    positive = exact.transitive_closure(adjacency)
    negative = ~positive & ~torch.eye(10, dtype=torch.bool)
    logit = exact.additive_baseline(positive, negative, penalty=1e-2)
    start, goal = (positive | negative).nonzero(as_tuple=True)
    design = np.concatenate([np.eye(10)[start], np.eye(10)[goal]], 1)
    label = positive[start, goal].numpy()
    weight = np.where(label, 0.5 / label.sum(), 0.5 / (~label).sum())
    # scikit-learn minimises C sum(weight loss) + |theta|^2 / 2.
    fitted = LogisticRegression(C=1e4, tol=1e-12, max_iter=10_000).fit(design, label, weight * 1e-2)
    assert np.allclose(logit[start, goal], fitted.decision_function(design), atol=1e-3)
    with pytest.raises(LabError, match="give some of both"):
        exact.additive_baseline(positive, torch.zeros_like(positive))


def test_contrasts_are_free_of_what_cannot_be_identified() -> None:
    adjacency = dag(10, 14)
    pairs = exact.transitive_closure(adjacency)
    contrasts = exact.sibling_contrasts(adjacency, pairs)
    assert len(contrasts)
    reach = exact.path_counts(adjacency) > 0
    for v, w, g in contrasts.tolist():
        assert v < w
        assert bool((adjacency[:, v] & adjacency[:, w] & pairs[:, g]).any())
        assert bool(reach[v, g] & reach[w, g])
    rng = stream(10, "table").rng()
    table = torch.from_numpy(rng.normal(size=(14, 14)))
    shifted = table + torch.from_numpy(rng.normal(size=14)) + torch.from_numpy(rng.normal(size=(14, 1)))
    first, second = (exact.centred_contrasts(values, contrasts) for values in (table, shifted))
    assert torch.allclose(first, second, atol=1e-12)
    assert float(first.abs().max()) > 0.1


def test_missteps() -> None:
    neighbours, non_neighbours = torch.tensor([2.0, 5.0]).double(), torch.tensor([48.0, 45.0]).double()
    gap = exact.misstep_gap(neighbours, non_neighbours, 0.05)
    assert float(exact.misstep_probability(neighbours, non_neighbours, gap, 1.0).mean()) == pytest.approx(0.05)
    equal = exact.misstep_probability(torch.tensor(2.0).double(), torch.tensor(48.0).double(), gap, 1e6)
    assert float(equal) == pytest.approx(48 / 50, rel=1e-4)
    with pytest.raises(LabError, match="no logit gap"):
        exact.misstep_gap(neighbours, non_neighbours, 0.999)


def test_expected_distinct() -> None:
    draws = stream(0, "draws").rng().integers(0, 20, (4000, 30))
    distinct = np.array([len(set(row)) for row in draws.tolist()])
    assert exact.expected_distinct(20, 30) == pytest.approx(distinct.mean(), abs=5 * distinct.std() / 4000**0.5)
    assert exact.expected_distinct(1, 30) == 1


def test_bayes_navigator_refuses_tokens_outside_the_vocabulary() -> None:
    adjacency = dag(11, 5)
    predict = exact.bayes_navigator(13, adjacency)
    with pytest.raises(LabError, match="outside the vocabulary"):
        predict(torch.tensor([[0, 13]]), torch.tensor([2]))


def test_bayes_navigator_ends_at_the_goal_and_keeps_to_edges() -> None:
    adjacency = torch.tensor([[0, 1, 1], [0, 0, 1], [0, 0, 0]], dtype=torch.bool)
    law = exact.bayes_navigator(11, adjacency)(torch.tensor([[2, 0, 1, 2]]), torch.tensor([2])).exp()[0]
    assert law[1, 1].item() == pytest.approx(0.5)
    assert law[1, 2].item() == pytest.approx(0.5)
    assert law[2, 2].item() == 1
    assert law[3, 7].item() == 1  # END is token nodes + 4


@pytest.mark.parametrize("check", [c for r in registered(exact) for c in checks(r)], ids=lambda c: c.name)
def test_contracts(check: Any) -> None:
    check.run()
