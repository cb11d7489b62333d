"""Contraction, the two-token example and implicit gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.domains.attention.fixed_point_laws import (
    implicit_gradient,
    orbit,
    quoted_value,
    spectral_radius,
    two_token_layer,
    two_token_map,
    two_token_slope,
)
from lab.errors import LabError
from lab.models import masks


@settings(max_examples=25, deadline=None)
@given(st.floats(0.1, 3.0), st.floats(0.1, 1.0))
def test_the_scalar_map_is_the_layer(size: float, damping: float) -> None:
    layer = two_token_layer(damping, most=3, tolerance=1e-300)
    x = torch.tensor([size, -size], dtype=torch.float64).view(1, 1, 1, 2, 1)
    state = layer.solve(x, masks.full(2)).state.flatten()
    y = size
    for _ in range(3):
        y = two_token_map(y, size, damping)
    assert state.tolist() == pytest.approx([y, -y], abs=1e-12)
    assert quoted_value(layer).item() == pytest.approx(0.729)


def test_the_slope_is_that_of_the_map_at_its_fixed_point() -> None:
    for size, damping in ((0.5, 1.0), (1.0, 0.5)):
        y = float(orbit(size, 3000, 1, damping)[0])
        numeric = (two_token_map(y + 1e-6, size, damping) - two_token_map(y - 1e-6, size, damping)) / 2e-6
        assert two_token_slope(size, damping) == pytest.approx(numeric, abs=1e-6)
    with pytest.raises(LabError, match="size = 0"):
        two_token_slope(0)


def test_gradients_of_a_linear_map_are_solved_and_summed() -> None:
    matrix = torch.tensor([[0.2, 0.5], [-0.3, 0.1]], dtype=torch.float64)
    upstream = torch.tensor([1.0, -2.0], dtype=torch.float64)

    def step(u: torch.Tensor) -> torch.Tensor:
        return matrix @ u

    exact = torch.linalg.solve(torch.eye(2).double() - matrix.T, upstream)
    assert torch.allclose(implicit_gradient(step, upstream, upstream, None), exact)
    assert torch.allclose(implicit_gradient(step, upstream, upstream, 80), exact)
    assert torch.equal(implicit_gradient(step, upstream, upstream, 0), upstream)
    assert spectral_radius(step, upstream) == pytest.approx(float(torch.linalg.eigvals(matrix).abs().max()))
