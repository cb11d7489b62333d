"""Laws of the one-step layer against the population loss, an integrator, and a search; the written-out gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from lab.domains.dynamics import mesa_laws, mesa_optimization
from lab.domains.dynamics.mesa_descent import Positions, descend, descend_exactly, mean_gradient
from lab.domains.dynamics.mesa_layer import MesaLayer, gradient_descent, prediction_loss
from lab.domains.dynamics.sequences import linear_dynamics
from lab.errors import LabError
from lab.models import masks
from lab.streams import stream


def test_missed_shares_are_terms_of_the_population_loss() -> None:
    law = mesa_optimization.moments("gaussian", 3)
    total = sum(mesa_laws.missed_share(0.13, law, pairs) for pairs in range(1, 6)) * 3 * law.second / 2
    assert np.isclose(total, float(mesa_optimization.population_loss(0.13, law, 3, 7)))
    steps = np.linspace(0, 0.3, 3001)
    for pairs in (1, 4, 50):
        least = min(mesa_laws.missed_share(step, law, pairs) for step in steps)
        assert np.isclose(least, mesa_laws.least_missed_share(law, pairs), atol=1e-6)
        assert least > mesa_optimization.limiting_loss(law)


@pytest.mark.parametrize(("key", "value"), [(0.1, 0.6), (0.5, -0.2), (-0.2, 0.5), (0.3, 0.3), (0.3, -0.3), (2.0, 0.1)])
def test_flow_from_any_start_against_an_integrator(key: float, value: float) -> None:
    law, length = mesa_optimization.moments("rademacher", 3), 6
    step, scored = mesa_optimization.optimal_step(law, length), 4

    def right(_: float, ab: np.ndarray) -> np.ndarray:
        slope = scored * law.fourth * (1 - ab[0] * ab[1] / step)
        return np.array([ab[1], ab[0]]) * slope

    times = np.linspace(0, 1.5, 40)
    path = solve_ivp(right, (0, 1.5), [key, value], t_eval=times, rtol=1e-11, atol=1e-13).y.prod(0)
    assert np.allclose(mesa_laws.product_flow(times, key, value, law, length), path, atol=1e-8)


def test_the_end_of_the_flow() -> None:
    law = mesa_optimization.moments("gaussian", 2)
    for key, value, end in ((0.5, -0.2, mesa_optimization.optimal_step(law, 5)), (0.4, -0.4, 0.0)):
        assert np.isclose(mesa_laws.product_flow(np.array([5.0]), key, value, law, 5)[0], end)


@pytest.mark.parametrize("dimension", [2, 3])
def test_least_loss_from_ones_at_three_states(dimension: int) -> None:
    rule = mesa_optimization.quadrature("ones", dimension, 3)
    total = 1 / (dimension - 1)
    ones = torch.ones(dimension, dimension, dtype=torch.complex128)
    identity = torch.eye(dimension, dtype=torch.complex128)
    value = torch.zeros(1, dimension, 2 * dimension, dtype=torch.complex128)
    key = torch.zeros(1, 2 * dimension, 2 * dimension, dtype=torch.complex128)
    value[0, :, :dimension] = total * (identity - ones / (2 * dimension - 1))
    key[0, dimension:, :dimension] = identity
    layer = MesaLayer.from_complex(value, key)
    loss = prediction_loss(layer, rule.states[None], rule.weights[None], masks.causal(3))
    gradients = torch.autograd.grad(loss.sum(), [layer.value, layer.query_key])
    assert max(float(gradient.abs().max()) for gradient in gradients) < 1e-13
    law = mesa_optimization.moments("ones", dimension)
    plain = mesa_optimization.population_loss(mesa_optimization.optimal_step(law, 3), law, dimension, 3)
    assert np.isclose(float(loss.detach()) / float(plain), mesa_laws.free_ones_share(dimension))
    with pytest.raises(LabError, match="at least 2 dimensions"):
        mesa_laws.free_ones_share(1)


def test_written_out_gradient_is_that_of_the_loss() -> None:
    rng = stream(5).rng()
    layer = MesaLayer(*(torch.from_numpy(rng.normal(size=(3, rows * 2, 4, 2))) for rows in (1, 2)))
    states = linear_dynamics(stream(6), 7, dimension=2, length=6).states
    first = torch.tensor([2, 4, 5])
    weights = torch.full((3, 7), 1 / 7, dtype=torch.float64)
    loss = prediction_loss(layer, states.expand(3, *states.shape), weights, masks.causal(6), first)
    expected = torch.autograd.grad(loss.sum(), [layer.value, layer.query_key])
    for gradient, wanted in zip(mean_gradient(layer, Positions.of(states), first), expected, strict=True):
        assert torch.allclose(torch.view_as_real(gradient), wanted)
    trained = descend(layer, [states], [0.01], first)
    assert torch.allclose(trained.layer.value, layer.value - 0.01 * expected[0])
    assert trained.product.shape == (3, 1)
    with pytest.raises(LabError, match="at least 3"):
        Positions.of(states[:, :2])


def test_exact_descent_is_that_of_the_layer() -> None:
    rule = mesa_optimization.quadrature("rademacher", 2, 4)
    layer = MesaLayer.diagonal(2, *(torch.tensor(pair, dtype=torch.float64) for pair in ((0.1, 0.5), (0.1, -0.2))))
    wanted = gradient_descent(layer, rule.states, rule.weights, masks.causal(4), rate=0.1, steps=5)
    trained = descend_exactly(layer, rule.states, rule.weights, rate=0.1, steps=5)
    assert torch.allclose(trained.value, wanted.value)
    assert torch.allclose(trained.query_key, wanted.query_key)
