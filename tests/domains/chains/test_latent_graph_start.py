"""Exact laws of the start against enumeration, automatic gradients and moments of drawn matrices."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from lab.domains.chains.latent_graph_prompts import chain, dirichlet_rows, stationary_law
from lab.domains.chains.latent_graph_start import (
    binary_signal,
    eigenvalue_moment,
    finite_length_coefficients,
    irreversibility,
    limit_of_a_chain,
    risk_of_smoothing,
    start_gradient_of_a_chain,
    start_information,
    worth_of_a_start,
)
from lab.domains.chains.latent_graphs import attention_signal, binary_posterior, reduced_gradients, risk_after_visits
from lab.errors import LabError
from lab.models import masks
from lab.streams import stream

MATRIX = torch.tensor([[0.7, 0.3], [0.4, 0.6]], dtype=torch.float64)


def test_irreversibility_is_the_lead_of_the_parent() -> None:
    transition = dirichlet_rows(stream(0, "matrices"), 20, 4, 4, 1.0)
    signal = 4 * attention_signal(transition, chain(3))
    torch.testing.assert_close(signal[:, 1, 0] - signal[:, 1, 2], irreversibility(transition))


def test_irreversibility_of_a_reversible_chain_is_zero() -> None:
    symmetric = torch.tensor([[0.2, 0.5, 0.3], [0.5, 0.1, 0.4], [0.3, 0.4, 0.3]], dtype=torch.float64)
    assert float(irreversibility(symmetric)) < 1e-30


@pytest.mark.parametrize("distance", [-2, -1, 0, 1, 2])
def test_binary_signal_is_a_power(distance: int) -> None:
    transition = dirichlet_rows(stream(0, "matrices"), 20, 2, 2, 1.0)
    signal = attention_signal(transition, chain(6))
    torch.testing.assert_close(signal[:, 3, 3 - distance], binary_signal(transition, distance))


@pytest.mark.parametrize("order", range(6))
def test_moments_are_those_of_drawn_matrices(order: int) -> None:
    rows = stream(0, "beta").rng().beta(0.7, 0.7, (2, 400_000))
    assert np.mean((1 - rows.sum(0)) ** order) == pytest.approx(eigenvalue_moment(order, 0.7), abs=4e-3)


@pytest.mark.parametrize("row", [1, 2, 4])
def test_start_gradient_is_that_of_all_sequences(row: int) -> None:
    nodes, start = 5, 1e-6
    tokens = torch.tensor(list(itertools.product((0, 1), repeat=nodes + 1)))
    weights = stationary_law(MATRIX)[tokens[:, 0]] / 2
    for node in range(1, nodes):
        weights = weights * MATRIX[tokens[:, node - 1], tokens[:, node]]
    total = torch.zeros(nodes + 1, nodes + 1, dtype=torch.float64)
    for sequence, weight in zip(tokens, weights, strict=True):
        gradient, _ = reduced_gradients(
            torch.zeros(nodes + 1, nodes + 1, dtype=torch.float64),
            start * torch.eye(2, dtype=torch.float64),
            sequence[None],
            MATRIX[sequence[-1:]],
            1e-13,
            masks.causal(nodes + 1),
        )
        total += weight * gradient
    scaled = -(nodes + 1) * (row + 1) / start * total[row]
    coefficients = start_gradient_of_a_chain(MATRIX, nodes, row)
    assert coefficients.diagonal == pytest.approx(float(scaled[row]), abs=1e-5)
    assert coefficients.parent == pytest.approx(float(scaled[row - 1]), abs=1e-5)


def test_finite_length_coefficients_are_the_leading_deviation() -> None:
    coefficients = start_gradient_of_a_chain(MATRIX, 399, 200)
    deviations = [
        400 * (coefficient - limit)
        for coefficient, limit in zip(coefficients, limit_of_a_chain(MATRIX, 200), strict=True)
    ]
    assert deviations == pytest.approx(list(finite_length_coefficients(MATRIX)), abs=1e-2)


def test_start_information_is_that_of_all_sequences() -> None:
    contexts = torch.tensor(list(itertools.product((0, 1), repeat=5)))
    known, _ = binary_posterior(contexts, chain(5), 1.0, "stationary", 150)
    assumed, _ = binary_posterior(contexts, chain(5), 1.0, "uniform")
    assert start_information(5) == pytest.approx(float((known * (known / assumed).log()).sum()), abs=1e-6)


def test_start_information_of_a_uniform_start_is_nothing() -> None:
    assert start_information(7, "uniform") == pytest.approx(0.0, abs=1e-13)


def test_worth_of_a_start() -> None:
    assert worth_of_a_start(1.0) == pytest.approx(np.pi**2 / 12 - np.log(2), abs=1e-14)
    rows = stream(0, "beta").rng().beta(2.5, 2.5, (2, 400_000))
    share = rows[0] / rows.sum(0)
    entropy = -(share * np.log(share) + (1 - share) * np.log1p(-share)).mean()
    assert worth_of_a_start(2.5) == pytest.approx(np.log(2) - entropy, abs=1e-3)


def test_risk_of_smoothing_is_least_for_the_prior() -> None:
    best = risk_after_visits(7, 3, 0.5)
    assert risk_of_smoothing(7, 3, 0.5, 0.5) == pytest.approx(best, abs=1e-14)
    assert min(risk_of_smoothing(7, 3, 0.5, other) for other in (0.1, 1.0, 5.0)) > best


def test_refusals() -> None:
    with pytest.raises(LabError, match="two symbols"):
        binary_signal(torch.full((3, 3), 1 / 3), 1)
    with pytest.raises(LabError, match="two symbols"):
        start_gradient_of_a_chain(torch.eye(2), 5, 2)
    with pytest.raises(LabError, match="row 0"):
        start_gradient_of_a_chain(MATRIX, 5, 0)
    with pytest.raises(LabError, match="0 tokens"):
        start_information(0)
    with pytest.raises(LabError, match="smoothing"):
        risk_of_smoothing(3, 2, 1.0, 0.0)
