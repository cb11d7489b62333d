"""The complex linear-attention layer against a loop, and its gradient descent."""

from __future__ import annotations

import pytest
import torch

from lab.domains.dynamics.mesa_layer import MesaLayer, gradient_descent, pair_states, prediction_loss
from lab.domains.dynamics.mesa_optimization import quadrature
from lab.domains.dynamics.sequences import linear_dynamics
from lab.errors import LabError
from lab.models import masks
from lab.streams import stream


def random_layer(models: int, dimension: int) -> MesaLayer:
    rng = stream(7, "layer").rng()
    return MesaLayer(
        torch.from_numpy(rng.normal(size=(models, dimension, 2 * dimension, 2))),
        torch.from_numpy(rng.normal(size=(models, 2 * dimension, 2 * dimension, 2))),
    )


@pytest.mark.parametrize("mask", [masks.causal(6), masks.prefix_lm(6, 4)])
def test_layer_against_a_loop(mask: torch.Tensor) -> None:
    layer = random_layer(2, 3)
    states = linear_dynamics(stream(1), 4, dimension=3, length=6).states
    outputs = layer(states.expand(2, *states.shape), mask)
    tokens = pair_states(states)
    for model in range(2):
        value, key = (matrix[model] for matrix in layer.matrices())
        for t in range(6):
            visible = [i for i in range(6) if mask[t, i]]
            total = sum(
                (value @ tokens[:, i].unsqueeze(-1)).squeeze(-1)
                * (tokens[:, i].conj() * (tokens[:, t] @ key.T)).sum(-1, keepdim=True)
                for i in visible
            )
            expected = total / (len(visible) - 1) if len(visible) > 1 else torch.zeros_like(total)
            assert torch.allclose(outputs[model, :, t], expected)


def test_prefix_and_causal_masks_agree_from_the_end_of_the_prefix_on() -> None:
    layer, states = random_layer(1, 2), linear_dynamics(stream(2), 3, dimension=2, length=7).states[None]
    causal, prefix = layer(states, masks.causal(7)), layer(states, masks.prefix_lm(7, 4))
    assert torch.allclose(causal[:, :, 3:], prefix[:, :, 3:])
    assert not torch.allclose(causal[:, :, 1:3], prefix[:, :, 1:3])


def test_descent_is_plain_gradient_descent_of_each_model() -> None:
    rule = quadrature("sparse", 2, 4)
    layer = random_layer(2, 2)
    layer.value.data *= 0.1
    layer.query_key.data *= 0.1
    path = gradient_descent(layer, rule.states, rule.weights, masks.causal(4), rate=0.1, steps=3)
    alone = layer.select([1])
    optimiser = torch.optim.SGD([alone.value, alone.query_key], lr=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        prediction_loss(alone, rule.states[None], rule.weights[None], masks.causal(4)).sum().backward()
        optimiser.step()
    assert torch.allclose(path.value[-1, 1], alone.matrices()[0][0].detach())
    assert torch.allclose(path.query_key[-1, 1], alone.matrices()[1][0].detach())


def test_held_entries_stay_where_they_are() -> None:
    rule = quadrature("ones", 2, 4)
    both = torch.full((1,), 0.1, dtype=torch.float64)
    layer = MesaLayer.diagonal(2, both, both)
    held = gradient_descent(layer, rule.states, rule.weights, masks.causal(4), rate=0.1, steps=5, diagonal_only=True)
    free = gradient_descent(layer, rule.states, rule.weights, masks.causal(4), rate=0.1, steps=5)
    assert float(held.off_diagonal.max()) == 0.0
    assert float(free.off_diagonal[-1, 0]) > 1e-3
    assert float(held.step_product[-1, 0]) > float(held.step_product[0, 0])


def test_another_dimension_is_refused() -> None:
    with pytest.raises(LabError, match="4 coordinates but the layer was made for 3"):
        random_layer(1, 3)(torch.zeros(1, 2, 5, 4, dtype=torch.complex128), masks.causal(5))
