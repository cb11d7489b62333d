"""Fits of a linear equation: exactness, aliases, means over the prior, and bad input."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.domains.dynamics.linear_equation import (
    fit_coefficients,
    least_squares_propagators,
    mode_weights,
    prior_mean_propagators,
    relative_error,
)
from lab.domains.dynamics.linear_equation_prompts import Family, pde_trajectories, propagators
from lab.errors import LabError
from lab.streams import stream


@settings(deadline=None, max_examples=25, derandomize=True)
@given(beta=st.floats(-30, 30), nu=st.floats(0, 1), modes=st.integers(1, 6), seed=st.integers(0, 1000))
def test_coefficients_are_recovered(beta: float, nu: float, modes: int, seed: int) -> None:
    family = Family(modes=modes, advection=(beta, beta + 1e-9), diffusion=(nu, nu + 1e-9))
    states = pde_trajectories(stream(seed), 3, family=family, trajectories=1, length=3).modes[:, 0]
    estimates = least_squares_propagators(states[:, :-1], states[:, 1:])
    advection, diffusion = fit_coefficients(estimates, mode_weights(states[:, :-1]), family.interval)
    assert float((advection - beta).abs().max()) < 1e-8
    assert float((diffusion - nu).abs().max()) < 1e-8


def test_fast_advection_is_taken_for_its_alias() -> None:
    beta = torch.tensor([35.0], dtype=torch.float64)
    moves = propagators(beta, torch.zeros(1, dtype=torch.float64), 3, 0.1)
    advection, _ = fit_coefficients(moves, torch.ones(1, 3, dtype=torch.float64), 0.1)
    assert float(advection[0]) == pytest.approx(35 - 20 * math.pi, abs=1e-10)


def test_least_squares_solves_its_normal_equations() -> None:
    source = stream(0).rng()
    before, after = (torch.view_as_complex(torch.from_numpy(source.standard_normal((2, 5, 3, 2)))) for _ in range(2))
    estimates = least_squares_propagators(before, after)
    for b in range(2):
        for k in range(3):
            column = before[b, :, k : k + 1]
            exact = torch.linalg.lstsq(column, after[b, :, k : k + 1]).solution[0, 0]
            torch.testing.assert_close(estimates[b, k], exact)


@pytest.mark.parametrize("spread", [1e-12, 1e-9, 1e-6])
def test_prior_means_of_narrow_laws_keep_their_digits(spread: float) -> None:
    family = Family(advection=(0.3, 0.3 + spread), diffusion=(0.05, 0.05 + spread))
    wave = torch.arange(1, family.modes + 1, dtype=torch.float64)
    middle = 1j * wave * (0.3 + spread / 2) + wave.square() * (0.05 + spread / 2)
    torch.testing.assert_close(prior_mean_propagators(family), torch.exp(-family.interval * middle), atol=0, rtol=1e-10)


@pytest.mark.parametrize("advection", [(-2.0, 2.0), (0.5, 3.0)])
def test_prior_means_by_quadrature(advection: tuple[float, float]) -> None:
    family = Family(advection=advection)

    def middles(low: float, high: float, count: int) -> torch.Tensor:
        return low + (high - low) * (torch.arange(count).double() + 0.5) / count

    beta, nu = middles(*family.advection, 400), middles(*family.diffusion, 200)
    grid = propagators(*torch.meshgrid(beta, nu, indexing="ij"), family.modes, family.interval)
    torch.testing.assert_close(prior_mean_propagators(family), grid.mean((0, 1)), atol=1e-5, rtol=0)


def test_relative_errors_have_the_truth_as_their_unit() -> None:
    truth = torch.tensor([[3.0 + 4.0j]])
    assert float(relative_error(torch.zeros_like(truth), truth)[0]) == 1.0


def test_a_mode_that_is_never_there_is_refused() -> None:
    states = torch.zeros(1, 2, 3, dtype=torch.complex128)
    with pytest.raises(LabError, match="says nothing on its multiplier"):
        least_squares_propagators(states, states)
