"""Trajectories of the linear equation: the equation itself, fields and modes, and bad input."""

from __future__ import annotations

import inspect
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.domains.dynamics.linear_equation_prompts import Family, fields, fourier_modes, pde_trajectories, propagators
from lab.errors import LabError
from lab.streams import stream


def test_fields_solve_the_equation() -> None:
    """Time and space derivatives of the exact solution, by central differences of tiny steps."""
    start = pde_trajectories(stream(0), 3, family=Family(), trajectories=1, length=1).modes[:, 0, 0]
    beta, nu, tiny = torch.tensor(1.3, dtype=torch.float64), torch.tensor(0.07, dtype=torch.float64), 1e-4

    def later(time: float) -> torch.Tensor:
        return fields(start * propagators(beta, nu, 3, time), 512)

    in_time = (later(0.2 + tiny) - later(0.2 - tiny)) / (2 * tiny)
    field, h = later(0.2), 2 * math.pi / 512
    slope = (field.roll(-1, -1) - field.roll(1, -1)) / (2 * h)
    bend = (field.roll(-1, -1) - 2 * field + field.roll(1, -1)) / h**2
    torch.testing.assert_close(in_time, nu * bend - beta * slope, atol=1e-2, rtol=0)


@settings(deadline=None, max_examples=20, derandomize=True)
@given(modes=st.integers(1, 5), extra=st.integers(1, 9), seed=st.integers(0, 1000))
def test_fields_and_modes_are_inverse(modes: int, extra: int, seed: int) -> None:
    drawn = pde_trajectories(stream(seed), 2, family=Family(modes=modes), trajectories=2, length=3)
    torch.testing.assert_close(fourier_modes(fields(drawn.modes, 2 * modes + extra), modes), drawn.modes)


@pytest.mark.parametrize("coefficients", ["shared", "redrawn"])
def test_states_follow_their_coefficients(coefficients: str) -> None:
    family = Family(modes=4, interval=0.3)
    drawn = pde_trajectories(stream(1), 5, family=family, trajectories=3, length=6, coefficients=coefficients)
    moves = propagators(drawn.advection, drawn.diffusion, 4, 0.3)
    torch.testing.assert_close(drawn.modes[:, :, 1:], drawn.modes[:, :, :-1] * moves)
    equal = drawn.advection == drawn.advection[:, :1, :1]
    assert bool(equal.all()) == (coefficients == "shared")
    assert bool((drawn.advection.abs() <= 2).all())
    assert bool(((drawn.diffusion >= 0.01) & (drawn.diffusion <= 0.1)).all())


def test_first_states_have_falling_spectra() -> None:
    drawn = pde_trajectories(stream(2), 4000, family=Family(), trajectories=1, length=1)
    energy = drawn.modes[:, 0, 0].abs().square().mean(0)
    torch.testing.assert_close(energy, torch.tensor([1, 1 / 4, 1 / 9]).double(), rtol=0.1, atol=0)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Family(modes=0), "modes is 0"),
        (lambda: Family(interval=0.0), "interval 0.0 must be positive"),
        (lambda: Family(advection=(1.0, -1.0)), "range 1.0 to -1.0 of the advection must be increasing"),
        (lambda: Family(diffusion=(-0.1, 0.1)), "diffusion -0.1 is negative"),
        (lambda: pde_trajectories(stream(0), 2, family=Family(), trajectories=0, length=2), "trajectories is 0"),
        (lambda: fields(torch.zeros(2, 3, dtype=torch.complex128), 6), "6 points cannot tell 3 modes apart"),
    ],
)
def test_bad_input(make, sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        make()


def test_unknown_coefficients_are_refused() -> None:
    # The type checker of the tests would find the unknown name first.
    with pytest.raises(LabError, match="coefficients 'fixed' are unknown; choose one of shared"):
        inspect.unwrap(pde_trajectories)(stream(0), 2, family=Family(), trajectories=1, length=2, coefficients="fixed")
