r"""Gradient descent of many layers on the same fresh sequences, with the gradient written out.

Under a causal mask the prediction is $\hat y_t = V G_t K e_t$ with $G_t = \frac{1}{t-1}\sum_{i \le t} e_i e_i^H$, and with the
error $r_t = \hat y_t - x_{t+1}$ the gradients of $\tfrac12 \sum_t |r_t|^2$ are $\sum_t r_t (G_t K e_t)^H$ and
$\sum_t G_t V^H r_t e_t^H$. The $G_t$ are made once for all layers, which is what makes long sequences affordable.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from lab.domains.dynamics.mesa_layer import Descent, MesaLayer, pair_states
from lab.errors import LabError


def causal_correlations(states: Complex[Tensor, "batch time dimension"]) -> Complex[Tensor, "batch scored pair pair"]:
    """G_t at t = 2 .. T - 1, the tokens that have something to predict from."""
    before = torch.cat([torch.zeros_like(states[:, :1]), states[:, :-1]], dim=1)
    same = (states.unsqueeze(-1) * states.conj().unsqueeze(-2)).cumsum(1)
    lagged = (states.unsqueeze(-1) * before.conj().unsqueeze(-2)).cumsum(1)[:, 1:-1]
    top = torch.cat([same[:, 1:-1], lagged], dim=-1)
    low = torch.cat([lagged.mH, same[:, :-2]], dim=-1)
    pairs = torch.arange(1, states.shape[1] - 1, dtype=states.real.dtype)[:, None, None]
    return torch.cat([top, low], dim=-2) / pairs


@dataclass(frozen=True)
class Positions:
    """Everything that the gradient needs of sequences, a row for each sequence and position t = 2 .. T - 1."""

    correlations: Complex[Tensor, "row pair pair"]
    tokens: Complex[Tensor, "row pair"]
    targets: Complex[Tensor, "row dimension"]
    weights: Float[Tensor, "row 1"]
    place: Int[Tensor, "row 1"]

    @classmethod
    def of(
        cls, states: Complex[Tensor, "batch time dimension"], weights: Float[Tensor, " batch"] | None = None
    ) -> Positions:
        """From sequences and their weights (left out: equal ones).

        Raises:
            LabError: fewer than 3 states.
        """
        batch, length, _ = states.shape
        if length < 3:
            raise LabError(f"Sequences of {length} states leave nothing to predict; use at least 3.")
        sequence_weights = torch.full((batch,), 1 / batch, dtype=states.real.dtype) if weights is None else weights
        return cls(
            causal_correlations(states).flatten(0, 1),
            pair_states(states)[:, 1:-1].flatten(0, 1),
            states[:, 2:].flatten(0, 1),
            sequence_weights.repeat_interleave(length - 2).unsqueeze(-1),
            torch.arange(2, length).repeat(batch).unsqueeze(-1),
        )


def mean_gradient(
    layer: MesaLayer, positions: Positions, first: Int[Tensor, " model"]
) -> tuple[Complex[Tensor, "model dimension pair"], Complex[Tensor, "model pair pair"]]:
    """Gradient of the mean loss of each layer in V and in K, positions scored from ``first`` on (counted from 1)."""
    value, query_key = (matrix.detach() for matrix in layer.matrices())
    models, pair = query_key.shape[:2]
    queries = (positions.tokens @ query_key.flatten(0, 1).mT).unflatten(-1, (models, pair))
    answered = queries @ positions.correlations.mT
    errors = torch.einsum("nep,ejp->nej", answered, value) - positions.targets.unsqueeze(1)
    errors = errors * ((positions.place >= first) * positions.weights).unsqueeze(-1)
    in_value = torch.einsum("nej,nep->ejp", errors, answered.conj())
    in_queries = torch.einsum("nej,ejp->nep", errors, value.conj()) @ positions.correlations.conj()
    return in_value, torch.einsum("neq,nr->eqr", in_queries, positions.tokens.conj())


@dataclass(frozen=True)
class Trained:
    """Layers after descent on fresh sequences, and c = ab (mean diagonals of the active blocks) after every update."""

    layer: MesaLayer
    product: Float[Tensor, "model update"]


def descend(
    layer: MesaLayer,
    batches: Iterable[Complex[Tensor, "batch time dimension"]],
    rates: Iterable[float],
    first: Int[Tensor, " model"],
) -> Trained:
    """Plain gradient descent of all entries, one update a batch; all layers see the same sequences.

    Args:
        layer: the initial weights; left as they are.
        batches: fresh sequences for every update.
        rates: step size of every update.
        first: first scored position of each layer.
    """
    moving = layer.select(range(len(layer.value)))
    dimension = moving.value.shape[1]
    products = []
    for states, rate in zip(batches, rates, strict=True):
        for parameter, gradient in zip(
            (moving.value, moving.query_key), mean_gradient(moving, Positions.of(states), first), strict=True
        ):
            parameter.data.sub_(rate * torch.view_as_real(gradient))
        value, query_key = (matrix.detach() for matrix in moving.matrices())
        active = value[..., :dimension], query_key[:, dimension:, :dimension]
        value_mean, query_key_mean = (block.diagonal(dim1=-2, dim2=-1).mean(-1) for block in active)
        products.append((value_mean * query_key_mean).real)
    return Trained(moving, torch.stack(products, dim=-1))


def descend_exactly(
    layer: MesaLayer,
    states: Complex[Tensor, "batch time dimension"],
    weights: Float[Tensor, " batch"],
    *,
    rate: float,
    steps: int,
) -> Descent:
    """`lab.domains.dynamics.mesa_layer.gradient_descent` under the causal mask, all positions scored, many layers at once."""
    moving, positions = layer.select(range(len(layer.value))), Positions.of(states, weights)
    first = torch.full((len(layer.value),), 2)
    path = [[matrix.detach().clone()] for matrix in moving.matrices()]
    for _ in range(steps):
        gradients = mean_gradient(moving, positions, first)
        for parameter, gradient, kept in zip((moving.value, moving.query_key), gradients, path, strict=True):
            parameter.data.sub_(rate * torch.view_as_real(gradient))
            kept.append(torch.view_as_complex(parameter.data.clone()))
    return Descent(*(torch.stack(steps_of) for steps_of in path))
