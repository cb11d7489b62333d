from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.domains.regression.one_layer_loss import even_square, excess_of_layer, odd_weights
from lab.domains.regression.optimal_steps import one_step_error, optimal_step
from lab.errors import LabError
from lab.streams import stream

algebra = settings(deadline=None, max_examples=20, derandomize=True)


def random_layer(seed: int, dimension: int, scale: float = 0.4) -> tuple[torch.Tensor, torch.Tensor]:
    rng = stream(seed, "layer").rng()
    return (
        torch.from_numpy(scale * rng.standard_normal((dimension + 1, dimension))),
        torch.from_numpy(scale * rng.standard_normal(dimension + 1)),
    )


@algebra
@given(seed=st.integers(0, 1000), dimension=st.integers(1, 5), n=st.integers(1, 12), v=st.floats(0.1, 2))
def test_no_layer_is_better_than_the_best_step(seed: int, dimension: int, n: int, v: float) -> None:
    reads, writes = random_layer(seed, dimension)
    assert float(excess_of_layer(reads, writes, n, input_variance=v, kurtosis=1.8, noise=0.3)) >= 0
    best = optimal_step(n, dimension, input_variance=v, kurtosis=1.8, noise=0.3)
    reads = torch.eye(dimension + 1, dimension, dtype=torch.float64)
    writes = torch.zeros(dimension + 1, dtype=torch.float64)
    writes[-1] = -best
    assert float(excess_of_layer(reads, writes, n, input_variance=v, kurtosis=1.8, noise=0.3)) == 0


@algebra
@given(step=st.floats(-1, 1), dimension=st.integers(1, 5), n=st.integers(1, 12), noise=st.floats(0, 1))
def test_a_wrong_step_costs_what_its_error_says(step: float, dimension: int, n: int, noise: float) -> None:
    reads = torch.eye(dimension + 1, dimension, dtype=torch.float64)
    writes = torch.zeros(dimension + 1, dtype=torch.float64)
    writes[-1] = -step
    least = one_step_error(optimal_step(n, dimension, noise=noise), n, dimension, noise=noise)
    error = one_step_error(step, n, dimension, noise=noise)
    excess = float(excess_of_layer(reads, writes, n, noise=noise))
    assert excess == pytest.approx(error - least, abs=1e-9 * (1 + error))


@pytest.mark.parametrize(("noise", "weight_scale"), [(0.0, 1.0), (0.5, 1.0), (0.4, 2.0)])
def test_random_layers_against_simulation(noise: float, weight_scale: float) -> None:
    """Mean squared error of sampled prompts within 5 standard errors, for normal inputs."""
    dimension, n, count = 3, 4, 400_000
    reads, writes = random_layer(7, dimension, 0.3)
    rng = stream(1, "simulation").rng()
    x = torch.from_numpy(rng.standard_normal((count, n, dimension)))
    w = weight_scale * torch.from_numpy(rng.standard_normal((count, dimension)))
    y = torch.einsum("bnd,bd->bn", x, w) + noise * torch.from_numpy(rng.standard_normal((count, n)))
    z = torch.cat([x, y[..., None]], -1)
    given_weights = -torch.einsum("i,bni,bnj,jk->bk", writes, z, z, reads)
    squares = (given_weights - w).square().sum(-1)
    law = {"noise": noise, "kurtosis": 3.0}
    step = optimal_step(n, dimension, kurtosis=3.0, noise=noise / weight_scale)
    least = weight_scale**2 * one_step_error(step, n, dimension, kurtosis=3.0, noise=noise / weight_scale)
    expected = least + float(excess_of_layer(reads, writes, n, **law, weight_scale=weight_scale))
    assert abs(float(squares.mean()) - expected) < 5 * float(squares.std()) / np.sqrt(count)


def test_leading_axes_are_kept() -> None:
    layers = [random_layer(seed, 3) for seed in range(4)]
    reads, writes = (torch.stack(matrices) for matrices in zip(*layers, strict=True))
    assert odd_weights(reads, writes).shape == (4, 3, 3)
    together = excess_of_layer(reads, writes, 5)
    alone = torch.stack([excess_of_layer(*layer, 5) for layer in layers])
    torch.testing.assert_close(together, alone)
    assert even_square(reads, writes, 5).shape == (4,)


def test_shapes_that_are_no_layer() -> None:
    with pytest.raises(LabError, match="no layer"):
        odd_weights(torch.zeros(3, 3), torch.zeros(3))
