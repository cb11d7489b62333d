"""Sequences over a causal graph: exact laws over all small cases, and what is refused."""

from __future__ import annotations

import inspect
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from lab import statistics
from lab.domains.chains.latent_graph_prompts import (
    ROOT,
    Roots,
    causal_sequences,
    chain,
    check_forest,
    check_several_parents,
    depths,
    dirichlet_rows,
    halves_and_previous,
    pairs,
    random_forest,
    sequences_of,
    several_parent_sequences,
    star,
    stationary_law,
)
from lab.domains.chains.latent_graphs import binary_posterior
from lab.errors import LabError
from lab.streams import stream

SEQUENCES = 20_000


def chi_square_accepts(tokens: torch.Tensor, law: np.ndarray) -> bool:
    """Whether the codes of binary tokens [B, T] follow ``law`` over all 2^T sequences in order."""
    codes = (tokens * 2 ** torch.arange(tokens.shape[1] - 1, -1, -1)).sum(-1)
    counts = np.bincount(codes.numpy(), minlength=len(law))
    return bool(stats.chisquare(counts, len(tokens) * law).pvalue >= statistics.SHARE)


@pytest.mark.parametrize("roots", ["stationary", "uniform"])
def test_sequences_of_a_matrix_follow_its_law(roots: Roots) -> None:
    matrix, parents = torch.tensor([[0.8, 0.2], [0.4, 0.6]], dtype=torch.float64), (ROOT, 0, ROOT, 0)
    data = sequences_of(stream(0, "law"), matrix.expand(SEQUENCES, -1, -1), parents, roots)
    start = np.array([2 / 3, 1 / 3]) if roots == "stationary" else np.array([0.5, 0.5])
    law = []
    for tokens in itertools.product((0, 1), repeat=5):
        probability = 0.5  # of the test token
        for node, parent in enumerate(parents):
            row = start if parent == ROOT else matrix[tokens[parent]].numpy()
            probability *= row[tokens[node]]
        law.append(probability)
    assert chi_square_accepts(data.tokens, np.array(law))
    other = np.array(law)[::-1]
    assert not chi_square_accepts(data.tokens, other.copy())


@pytest.mark.parametrize("roots", ["stationary", "uniform"])
@pytest.mark.parametrize("graph", [chain, pairs, star])
def test_contexts_follow_the_evidence_of_the_prior(graph, roots: Roots) -> None:
    data = causal_sequences(stream(1, "evidence"), SEQUENCES, 2, graph(4), 1.0, roots)
    contexts = torch.tensor(list(itertools.product((0, 1), repeat=4)))
    evidence, _ = binary_posterior(contexts, graph(4), 1.0, roots)
    assert chi_square_accepts(data.tokens[:, :-1], (evidence / evidence.sum()).numpy())


def test_several_parents_follow_the_urn_law() -> None:
    graph, concentration = ((), (), (0, 1), (1, 2), (0, 3)), 0.5
    data = several_parent_sequences(stream(2, "urn"), SEQUENCES, 2, graph, concentration)
    law = []
    for tokens in itertools.product((0, 1), repeat=4):
        counts = np.zeros((2, 2, 2))
        for node in (2, 3):
            counts[tokens[graph[node][0]], tokens[graph[node][1]], tokens[node]] += 1
        with_counts = special.betaln(*np.moveaxis(concentration + counts, -1, 0))
        law.append(0.25 * np.exp((with_counts - special.betaln(concentration, concentration)).sum()))
    assert np.isclose(sum(law), 1)
    assert chi_square_accepts(data.tokens, np.array(law))


def test_targets_are_the_rows_of_the_parents() -> None:
    data = causal_sequences(stream(0, "target"), 50, 4, pairs(6), 0.3)
    assert torch.equal(data.target, data.transition[torch.arange(50), data.tokens[:, -1]])
    several = several_parent_sequences(stream(0, "target"), 50, 3, halves_and_previous(7), 0.3)
    code = several.tokens[:, 3] * 3 + several.tokens[:, 6]
    assert torch.equal(several.target, several.table[torch.arange(50), code])


@pytest.mark.parametrize(
    "rows", [[[0.5, 0.4], [0.5, 0.5]], [[1.5, -0.5], [0.5, 0.5]], [[float("nan"), 1.0], [0.5, 0.5]]]
)
def test_only_transition_matrices_have_stationary_laws(rows: list[list[float]]) -> None:
    with pytest.raises(LabError, match="normalise its rows"):
        stationary_law(torch.tensor(rows, dtype=torch.float64))


@settings(deadline=None, max_examples=25, derandomize=True)
@given(st.integers(2, 12), st.floats(0.02, 5), st.integers(0, 50))
def test_stationary_laws_are_stationary(states: int, concentration: float, seed: int) -> None:
    transition = dirichlet_rows(stream(seed, "rows"), 20, states, states, concentration)
    law = stationary_law(transition)
    moved = (law.unsqueeze(1) @ transition).squeeze(1)
    assert bool((law >= 0).all())
    assert torch.allclose(law.sum(-1), torch.ones(20, dtype=torch.float64))
    # Relative to each entry, which solving a nearly singular system would not give.
    assert bool(((moved - law).abs() <= 1e-12 * law + 1e-300).all())


def test_sticky_rows_repeat_more_often() -> None:
    plain = dirichlet_rows(stream(0, "rows"), 10, 3, 3, 1.0)
    sticky = dirichlet_rows(stream(0, "rows"), 10, 3, 3, 1.0, 0.6)
    assert torch.allclose(sticky, 0.4 * plain + 0.6 * torch.eye(3, dtype=torch.float64))


@settings(deadline=None, max_examples=25, derandomize=True)
@given(st.integers(1, 30), st.one_of(st.none(), st.floats(0, 1)), st.integers(0, 100))
def test_random_forests_are_forests(nodes: int, share: float | None, seed: int) -> None:
    forest = random_forest(stream(seed), nodes, share)
    assert check_forest(forest) == forest
    assert len(forest) == nodes
    levels = depths(forest)
    assert all(levels[i] == (0 if p == ROOT else levels[p] + 1) for i, p in enumerate(forest))


def test_random_forests_have_the_stated_shares() -> None:
    forests = np.array([random_forest(stream(seed), 3) for seed in range(500)])
    parents, counts = np.unique(forests[:, 2], return_counts=True)
    assert parents.tolist() == [ROOT, 0, 1]
    assert stats.chisquare(counts).pvalue >= statistics.SHARE


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: causal_sequences(stream(0), 2, 1, chain(3), 1.0), "alphabet of 1 symbols"),
        (lambda: causal_sequences(stream(0), 2, 3, chain(3), 0.0), "concentration 0.0"),
        (lambda: causal_sequences(stream(0), 2, 3, chain(3), -1.0), "concentration -1.0"),
        (lambda: causal_sequences(stream(0), 2, 3, (ROOT, 2, 1), 1.0), "node 1 has the parent 2"),
        (lambda: causal_sequences(stream(0), 2, 3, (0,), 1.0), "node 0 has the parent 0"),
        (lambda: causal_sequences(stream(0), 2, 3, (), 1.0), "0 nodes"),
        (lambda: causal_sequences(stream(0), 2, 3, chain(3), 1.0, stickiness=1.0), "stickiness = 1.0"),
        (lambda: dirichlet_rows(stream(0), 2, 9, 3, 1.0, 0.5), "9 rows"),
        (lambda: random_forest(stream(0), 3, 1.5), "root_share = 1.5"),
        (lambda: check_several_parents(((), (), (0, 2), (0, 1))), "node 2 has the parent 2"),
        (lambda: check_several_parents(((), (0,), (0, 1))), r"\[1, 2\] parents"),
        (lambda: check_several_parents(((), (0,), ())), "the last one 0"),
        (lambda: check_several_parents(()), "the last one 0"),
    ],
)
def test_impossible_graphs_and_priors_are_refused(call, words: str) -> None:
    with pytest.raises(LabError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        ([[0.5, 0.6], [0.5, 0.5]], "miss the sum 1 by up to 0.1"),
        ([[1.5, -0.5], [0.5, 0.5]], "smallest entry -0.5"),
        ([[float("nan"), 1.0], [0.5, 0.5]], "smallest entry nan"),
        ([[1.0]], "alphabet of 1 symbols"),
        ([[1.0, 0.0], [0.0, 1.0]], "no single stationary law"),
        ([[0.4, 0.3, 0.3], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], "no single stationary law"),
    ],
)
def test_matrices_without_a_stationary_law_are_refused(matrix: list[list[float]], words: str) -> None:
    good = torch.full((len(matrix), len(matrix)), 1 / len(matrix), dtype=torch.float64)
    several = torch.stack([good, torch.tensor(matrix, dtype=torch.float64)])
    with pytest.raises(LabError, match=words) as caught:
        sequences_of(stream(0), several, chain(2), "stationary")
    assert "\n" not in str(caught.value)


def test_transient_symbols_and_uniform_roots_are_allowed() -> None:
    transient = torch.tensor([[[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.3, 0.3, 0.4]]], dtype=torch.float64)
    assert torch.allclose(
        sequences_of(stream(0), transient, chain(2), "stationary").stationary, torch.tensor([[0.5, 0.5, 0.0]]).double()
    )
    assert sequences_of(stream(0), torch.eye(2).double()[None], chain(4), "uniform").tokens.shape == (1, 5)


def test_unknown_roots_are_refused() -> None:
    # Past the type checker that tests run under, as a user without it would come.
    with pytest.raises(LabError, match="roots = 'even'"):
        inspect.unwrap(sequences_of)(stream(0), torch.eye(2).expand(1, 2, 2), chain(2), "even")
    with pytest.raises(LabError, match="roots = 'even'"):
        inspect.unwrap(causal_sequences)(stream(0), 1, 2, chain(2), 1.0, "even")
