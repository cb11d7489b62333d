"""References on causal graphs against enumeration, simulation and automatic differentiation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab import statistics
from lab.domains.chains.latent_graph_prompts import (
    ROOT,
    causal_sequences,
    chain,
    dirichlet_rows,
    halves_and_previous,
    pairs,
    random_forest,
    several_parent_sequences,
    star,
    stationary_law,
    tuple_codes,
)
from lab.domains.chains.latent_graphs import (
    attention_signal,
    binary_posterior,
    centred_rows,
    centred_transition,
    chi_square_information,
    graph_posterior,
    induction_head,
    keep_parents,
    matches,
    oracle_risk,
    pair_counts,
    pair_laws,
    pairs_risk,
    posterior_mean,
    reduced_gradients,
    risk_after_visits,
    row_of,
    several_parent_counts,
    smoothed,
    smoothing_head,
    soft_cross_entropy,
    transition_counts,
    unigram,
    with_test_token,
)
from lab.errors import LabError
from lab.models import masks
from lab.streams import stream

FOREST = (ROOT, 0, 1, 0, ROOT, 4, 2)


def test_counts_are_counts() -> None:
    tokens = torch.tensor([[0, 1, 1, 0, 1, 1, 0, 1]])
    parents = (ROOT, 0, 1, 2, ROOT, 4, 5)
    # Pairs (parent, child): (0,1) (1,1) (1,0) | (1,1) (1,0)
    assert transition_counts(tokens, parents, 2).tolist() == [[[0, 1], [2, 2]]]
    assert unigram(tokens, 2).tolist() == [[4 / 9, 5 / 9]]
    assert pair_counts(torch.zeros(1, 0, dtype=torch.long), torch.zeros(1, 0, dtype=torch.long), 2, 2).sum() == 0


@pytest.mark.parametrize("graph", [chain, pairs, star])
def test_smoothing_is_the_posterior_mean_for_uniform_roots_only(graph) -> None:
    contexts = torch.tensor(list(itertools.product((0, 1), repeat=5)))
    counts = transition_counts(contexts, graph(5), 2)
    evidence, mean = binary_posterior(contexts, graph(5), 0.5, "uniform")
    assert torch.allclose(evidence.sum(), torch.ones((), dtype=torch.float64))
    assert torch.allclose(mean, smoothed(counts, 0.5))
    _, exact = binary_posterior(contexts, graph(5), 0.5, "stationary")
    assert not torch.allclose(exact, smoothed(counts, 0.5), atol=0.05)


def test_importance_sampling_converges_to_the_quadrature() -> None:
    contexts = torch.tensor(list(itertools.product((0, 1), repeat=4)))
    tokens = torch.cat([contexts, torch.ones(16, 1, dtype=torch.long)], dim=1)
    _, exact = binary_posterior(contexts, pairs(4), 1.0, "stationary")
    errors = [
        float((posterior_mean(stream(0), tokens, pairs(4), 2, 1.0, draws) - exact[:, 1]).abs().max())
        for draws in (100, 5_000)
    ]
    assert errors[1] < 0.03
    assert errors[1] < errors[0] / 3


def test_posterior_predictor_counts_up_to_each_position() -> None:
    graph = halves_and_previous(9)
    data = several_parent_sequences(stream(0, "tokens"), 30, 3, graph, 0.5)
    law = graph_posterior(3, graph, 0.5)(data.tokens, torch.zeros(30, dtype=torch.long)).exp()
    assert torch.allclose(law[:, 0], torch.full((30, 3), 1 / 3, dtype=torch.float64))  # node 1 is a root
    for length in (4, 9):
        part = (*graph[:length], graph[length])
        counts = several_parent_counts(data.tokens[:, :length], part, 3)
        row = row_of(counts, tuple_codes(data.tokens, part, [length], 3)[:, 0])
        assert torch.allclose(law[:, length - 1], smoothed(row, 0.5))


def test_forest_with_a_test_token_is_a_graph_with_one_parent() -> None:
    data = causal_sequences(stream(0, "tokens"), 20, 3, FOREST, 1.0)
    law = graph_posterior(3, with_test_token(FOREST), 1.0)(data.tokens, torch.zeros(20, dtype=torch.long))
    row = row_of(transition_counts(data.tokens, FOREST, 3), data.tokens[:, -1])
    assert torch.allclose(law[:, -1].exp(), smoothed(row, 1.0))
    assert keep_parents(((), (0, 0), (0, 1)), [1]) == ((), (0,), (1,))
    assert several_parent_counts(data.tokens[:, :2], ((), (), (0,)), 3).sum() == 0


@settings(deadline=None, max_examples=25, derandomize=True)
@given(st.integers(2, 8), st.floats(0.1, 4))
def test_risks_run_from_ignorance_to_the_oracle(states: int, concentration: float) -> None:
    risks = [risk_after_visits(visits, states, concentration) for visits in (0, 1, 5, 50)]
    assert risks[0] == pytest.approx(np.log(states))
    assert risks == sorted(risks, reverse=True)
    assert risks[-1] > oracle_risk(states, concentration)
    assert pairs_risk(0, states, concentration) == pytest.approx(np.log(states))
    assert oracle_risk(states, concentration) < pairs_risk(5, states, concentration) < risks[0]


def test_risk_approaches_the_oracle_at_the_parametric_rate() -> None:
    excess = 3_000 * (risk_after_visits(3_000, 3, 1.0) - oracle_risk(3, 1.0))
    assert excess == pytest.approx(1, abs=0.01)  # (S - 1) / 2


def test_oracle_risk_is_the_mean_entropy() -> None:
    data = causal_sequences(stream(0, "entropy"), 20_000, 3, (ROOT,), 0.5)
    entropies = soft_cross_entropy(data.target, data.target).numpy()
    low, high = statistics.mean_interval(entropies)
    assert low < oracle_risk(3, 0.5) < high


def test_pair_laws_are_laws_of_simulated_pairs() -> None:
    transition = dirichlet_rows(stream(0, "matrix"), 1, 3, 3, 1.0)
    laws = pair_laws(transition, FOREST)[0]
    ones = torch.ones((), dtype=torch.float64)
    assert torch.allclose(laws.sum((-1, -2)), ones)
    assert torch.allclose(laws, laws.transpose(0, 1).transpose(-1, -2))
    # Enumerate all 3^7 contexts.
    contexts = torch.tensor(list(itertools.product(range(3), repeat=7)))
    weight = torch.ones(len(contexts), dtype=torch.float64)
    for node, parent in enumerate(FOREST):
        law = stationary_law(transition)[0][contexts[:, node]]
        weight *= law if parent == ROOT else transition[0][contexts[:, parent], contexts[:, node]]
    for first, second in itertools.product(range(7), repeat=2):
        joint = torch.zeros(9, dtype=torch.float64).index_add_(0, contexts[:, first] * 3 + contexts[:, second], weight)
        assert torch.allclose(laws[first, second].flatten(), joint)


@settings(deadline=None, max_examples=25, derandomize=True)
@given(st.integers(2, 5), st.floats(0.3, 3), st.integers(0, 50))
def test_signal_by_kinship_and_its_bounds(states: int, concentration: float, seed: int) -> None:
    transition = dirichlet_rows(stream(seed, "matrix"), 5, states, states, concentration)
    signal = states * attention_signal(transition, FOREST)
    facts = chi_square_information(pair_laws(transition, FOREST))
    between = centred_transition(transition)
    norm = between.square().sum((-1, -2))
    close = {"rtol": 1e-8, "atol": 1e-8}
    assert torch.allclose(signal[:, 1, 0], norm, **close)  # parent
    assert torch.allclose(facts[:, 1, 0], norm, **close)
    assert torch.allclose(signal[:, 0, 1], (between * between.mT).sum((-1, -2)), **close)  # child
    assert torch.allclose(signal[:, 2, 0], (between * (between @ between)).sum((-1, -2)), **close)
    assert torch.allclose(signal[:, 0, 0], transition.diagonal(dim1=1, dim2=2).sum(-1) - 1, **close)
    assert torch.allclose(signal[:, 0, 5], torch.zeros(5, dtype=torch.float64), **close)  # another tree
    assert bool((facts <= states - 1 + 1e-8).all())
    assert bool((facts[:, 2, 0] <= facts[:, 2, 1] + 1e-8).all())


def test_centred_rows_have_mean_zero_over_what_they_see() -> None:
    table = torch.arange(9, dtype=torch.float64).view(3, 3)
    centred = centred_rows(table, masks.causal(3))
    assert torch.allclose(centred.sum(-1), torch.zeros(3, dtype=torch.float64))
    assert centred[0, 1] == 0


def test_head_counts_and_smooths() -> None:
    data = causal_sequences(stream(0, "head"), 200, 3, FOREST, 1.0)
    z = matches(data.tokens, FOREST)
    assert torch.equal(z[:, 3], (data.tokens[:, 0] == data.tokens[:, -1]).double())
    assert torch.equal(z[:, 0], z[:, 1])  # the root sees itself alone
    law = induction_head(data.tokens, FOREST, 3, 1.3)
    assert torch.allclose(law.sum(-1), torch.ones(200, dtype=torch.float64))
    sharp = induction_head(data.tokens, FOREST, 3, float("inf"))
    assert torch.allclose(sharp, induction_head(data.tokens, FOREST, 3, 3_000.0))
    even = induction_head(data.tokens, FOREST, 3, 0.0)
    zeros = torch.zeros_like(data.tokens)
    assert torch.allclose(even, pair_counts(zeros, data.tokens, 1, 3)[:, 0] / data.tokens.shape[1])
    counts = row_of(transition_counts(data.tokens, FOREST, 3), data.tokens[:, -1])
    keys = torch.full((200, 3), 2.0, dtype=torch.float64)
    assert torch.allclose(smoothing_head(counts, keys, 0.0), torch.full_like(keys, 1 / 3))


def test_gradients_by_hand_are_the_automatic_ones_under_any_mask() -> None:
    data = causal_sequences(stream(0, "gradient"), 40, 3, random_forest(stream(0), 6), 1.0)
    draws = stream(1).rng()
    pattern = torch.from_numpy(draws.standard_normal((7, 7))).requires_grad_()
    score = torch.from_numpy(draws.standard_normal((3, 3))).requires_grad_()
    for mask in (masks.causal(7), masks.prefix_lm(7, 6)):
        symbols = torch.nn.functional.one_hot(data.tokens, 3).double()
        attention = torch.softmax(pattern.masked_fill(~mask, -torch.inf), -1)
        weights = torch.softmax((attention @ symbols @ score[data.tokens[:, -1]].unsqueeze(-1))[..., 0], -1)
        law = (weights.unsqueeze(-1) * symbols).sum(1)
        automatic = torch.autograd.grad(soft_cross_entropy(data.target, law + 0.01).mean(), (pattern, score))
        by_hand = reduced_gradients(pattern.detach(), score.detach(), data.tokens, data.target, 0.01, mask)
        for reference, gradient in zip(automatic, by_hand, strict=True):
            assert torch.allclose(reference, gradient, atol=1e-14)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: transition_counts(torch.tensor([[0, 3]]), (ROOT, 0), 3), "token 3"),
        (lambda: transition_counts(torch.tensor([[0, -1]]), (ROOT, 0), 3), "token -1"),
        (lambda: transition_counts(torch.tensor([[0, 1]]), chain(3), 3), "2 tokens"),
        (lambda: transition_counts(torch.tensor([[0, 1]]), (1, ROOT), 3), "node 0 has the parent 1"),
        (lambda: unigram(torch.tensor([[0, 3, 1]]), 3), "token 3"),
        (lambda: induction_head(torch.tensor([[0, 3]]), (ROOT,), 3, 1.0), "token 3"),
        (lambda: smoothed(torch.ones(2, 3), 0.0), "concentration 0.0"),
        (lambda: smoothed(torch.ones(2, 3), -0.5), "concentration -0.5"),
        (lambda: pair_laws(torch.eye(2, dtype=torch.float64), chain(3)), "no single stationary law"),
        (lambda: centred_transition(torch.ones(2, 2, dtype=torch.float64)), "rows that miss the sum 1"),
        (lambda: attention_signal(torch.tensor([[1.0, 0.0], [0.5, 0.5]]).double(), chain(3)), "symbol 1"),
        (lambda: centred_transition(torch.tensor([[0.5, 0.5], [0.0, 1.0]]).double()), "symbol 0"),
        (lambda: risk_after_visits(3, 1, 1.0), "alphabet of 1"),
        (lambda: oracle_risk(3, 0.0), "concentration 0.0"),
        (lambda: graph_posterior(3, halves_and_previous(4), -1.0), "concentration -1.0"),
        (
            lambda: graph_posterior(3, halves_and_previous(4), 1.0)(
                torch.zeros(1, 5, dtype=torch.long), torch.zeros(1, dtype=torch.long)
            ),
            "5 tokens",
        ),
    ],
)
def test_bad_input_is_refused(call, words: str) -> None:
    with pytest.raises(LabError, match=words):
        call()
