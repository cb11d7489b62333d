"""Laws of length and coverage against enumeration, simulation and finite differences."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch

from lab.domains.graphs import navigation as exact
from lab.domains.graphs import path_laws
from lab.domains.graphs.navigation_prompts import bernoulli_dag
from lab.errors import LabError
from lab.streams import stream


def dag(seed: int, nodes: int = 9, probability: float = 0.5) -> exact.Adjacency:
    """A DAG with its nodes in random order."""
    adjacency = bernoulli_dag(stream(seed, "graph"), 1, nodes, probability).adjacency[0]
    order = torch.from_numpy(stream(seed, "order").rng().permutation(nodes))
    return adjacency[order][:, order]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("law", [exact.uniform_path_policy, exact.conditioned_walk_policy])
def test_slope_of_the_length_is_its_finite_difference(
    seed: int, law: Callable[[exact.Adjacency], exact.Policy]
) -> None:
    policy, step = law(dag(seed)), 1e-4
    lengths = [exact.policy_lengths(exact.temper(policy, 1 / beta)) for beta in (1 + step, 1 - step)]
    torch.testing.assert_close(
        path_laws.length_slope(policy), (lengths[0] - lengths[1]) / (2 * step), atol=1e-7, rtol=1e-6
    )


def test_paths_of_one_length_have_no_slope() -> None:
    layers = torch.kron(torch.eye(3).roll(1, 1).triu(1), torch.ones(2, 2)).bool()
    assert path_laws.length_slope(exact.uniform_path_policy(layers)).abs().max() < 1e-14


@pytest.mark.parametrize("seed", range(3))
def test_reachability_policy_is_uniform_over_the_edges_that_lead_on(seed: int) -> None:
    adjacency = dag(seed)
    policy, counts = path_laws.reachability_policy(adjacency), exact.path_counts(adjacency)
    for goal, node in itertools.product(range(len(adjacency)), repeat=2):
        good = [v for v in range(len(adjacency)) if adjacency[node, v] and counts[v, goal] > 0 and node != goal]
        expected = torch.zeros(len(adjacency), dtype=torch.float64)
        expected[good] = 1 / max(1, len(good))
        torch.testing.assert_close(policy[goal, node], expected)


def test_coverage_is_the_average_over_all_training_sets() -> None:
    adjacency = dag(1, 6)
    pairs = exact.path_counts(adjacency).gt(0).fill_diagonal_(False).nonzero().tolist()
    hits, misses = torch.zeros(2, 6, 6)
    for chosen in itertools.combinations(pairs, 3):
        training = torch.zeros(6, 6, dtype=torch.bool)
        training[tuple(zip(*chosen, strict=True))] = True
        covered, _ = exact.suffix_coverage(adjacency, training)
        hits += covered & ~training
        misses += ~covered & ~training & (exact.path_counts(adjacency) > 0).fill_diagonal_(False)
    expected = torch.where(hits + misses > 0, hits / (hits + misses), torch.nan).double()
    probabilities = path_laws.coverage_probabilities(adjacency, 3)
    torch.testing.assert_close(probabilities, expected, equal_nan=True, atol=1e-6, rtol=1e-6)
    assert path_laws.covered_share(adjacency, 3) == pytest.approx(float(expected.nanmean()), abs=1e-6)


def test_all_pairs_trained_is_refused() -> None:
    adjacency = dag(1, 6)
    pairs = int(exact.path_counts(adjacency).gt(0).fill_diagonal_(False).sum())
    with pytest.raises(LabError, match="leave one out"):
        path_laws.coverage_probabilities(adjacency, pairs)
