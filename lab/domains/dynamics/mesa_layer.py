r"""One layer of complex linear attention that predicts the next state of a sequence.

$\hat y_t = \frac{1}{n_t - 1}\, V \sum_{i \in S(t)} e_i\, e_i^H K e_t$ with tokens $e_t = (x_t; x_{t-1})$, $x_0 = 0$, the
set $S(t)$ of tokens that the mask shows to t and $n_t = |S(t)|$ (Zheng et al. 2024). Under a causal mask $n_t = t$.
Complex weights are kept as pairs of real numbers, so that every optimiser of real tensors takes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor, nn

from lab.errors import LabError


def pair_states(states: Complex[Tensor, "*batch time dimension"]) -> Complex[Tensor, "*batch time pair"]:
    """Tokens (x_t; x_{t-1}), 2 d wide, with x_0 = 0."""
    before = torch.cat([torch.zeros_like(states[..., :1, :]), states[..., :-1, :]], dim=-2)
    return torch.cat([states, before], dim=-1)


class MesaLayer(nn.Module):
    """E independent layers on the leading axis of the weights.

    Args:
        value: V, real and imaginary part.
        query_key: K, real and imaginary part.
    """

    def __init__(
        self, value: Float[Tensor, "model dimension pair 2"], query_key: Float[Tensor, "model pair pair 2"]
    ) -> None:
        super().__init__()
        self.value = nn.Parameter(value)
        self.query_key = nn.Parameter(query_key)

    @classmethod
    def from_complex(
        cls, value: Complex[Tensor, "model dimension pair"], query_key: Complex[Tensor, "model pair pair"]
    ) -> MesaLayer:
        """The layers with these V and K."""
        return cls(torch.view_as_real(value).clone(), torch.view_as_real(query_key).clone())

    @classmethod
    def diagonal(cls, dimension: int, key: Float[Tensor, " model"], value: Float[Tensor, " model"]) -> MesaLayer:
        """V = (b I, 0) and K with a I in its lower left block, for numbers a = key and b = value a model."""
        identity = torch.eye(dimension, dtype=torch.complex128)
        empty = torch.zeros_like(identity)
        top = torch.cat([identity, empty], dim=1)
        low = torch.cat([torch.cat([empty, empty], dim=1), top], dim=0)
        return cls.from_complex(value[:, None, None] * top, key[:, None, None] * low)

    @property
    def width(self) -> int:
        """Numbers in a token: real and imaginary parts of two states."""
        return 2 * self.query_key.shape[-2]

    def select(self, indices: Sequence[int]) -> MesaLayer:
        """The models at these places."""
        chosen = list(indices)
        return MesaLayer(self.value.detach()[chosen], self.query_key.detach()[chosen])

    def matrices(self) -> tuple[Complex[Tensor, "model dimension pair"], Complex[Tensor, "model pair pair"]]:
        """V and K as complex matrices."""
        return torch.view_as_complex(self.value), torch.view_as_complex(self.query_key)

    def forward(
        self, states: Complex[Tensor, "model batch time dimension"], mask: Bool[Tensor, "time time"]
    ) -> Complex[Tensor, "model batch time dimension"]:
        """Predictions at every token; 0 where a token sees only itself.

        Args:
            states: sequences of each model.
            mask: True where the token (row) sees the token (column).

        Raises:
            LabError: states of another dimension.
        """
        value, query_key = self.matrices()
        if 2 * states.shape[-1] != query_key.shape[-1]:
            raise LabError(
                f"The states have {states.shape[-1]} coordinates but the layer was made for "
                f"{query_key.shape[-1] // 2}; use the same dimension."
            )
        tokens = pair_states(states)
        queries = tokens @ query_key.unsqueeze(1).mT
        scores = (queries @ tokens.conj().mT) * mask / (mask.sum(-1, keepdim=True) - 1).clamp(min=1)
        answers = scores @ (tokens @ value.unsqueeze(1).mT)
        return torch.where((mask.sum(-1) > 1)[:, None], answers, torch.zeros_like(answers))


def prediction_loss(
    module: MesaLayer,
    states: Complex[Tensor, "model batch time dimension"],
    weights: Float[Tensor, "model batch"],
    mask: Bool[Tensor, "time time"],
    first: int | Int[Tensor, " model"] = 2,
) -> Float[Tensor, " model"]:
    r"""$\sum_{t = \text{first}}^{T-1} \tfrac12 E |\hat y_t - x_{t+1}|^2$ of each model, positions counted from 1.

    Args:
        module: E layers.
        states: sequences of each model.
        weights: of the sequences, summing to 1 for a mean.
        mask: True where the token (row) sees the token (column).
        first: first scored position, of all models or of each.
    """
    error = (module(states, mask)[:, :, :-1] - states[:, :, 1:]).abs().square().sum(-1)
    scored = torch.arange(1, states.shape[2]) >= torch.as_tensor(first).reshape(-1, 1)
    return 0.5 * ((error * scored.unsqueeze(1)).sum(-1) * weights).sum(-1)


@dataclass(frozen=True)
class Descent:
    """The weights along gradient descent, the initial ones first.

    Args:
        value, query_key: V and K at every step.
    """

    value: Complex[Tensor, "step model dimension pair"]
    query_key: Complex[Tensor, "step model pair pair"]

    @property
    def step_product(self) -> Float[Tensor, "step model"]:
        r"""c = ab, with a and b the mean diagonals of the blocks of K and V that diagonal weights use."""
        dimension = self.value.shape[-2]
        value = self.value[..., :dimension].diagonal(dim1=-2, dim2=-1).mean(-1)
        key = self.query_key[..., dimension:, :dimension].diagonal(dim1=-2, dim2=-1).mean(-1)
        return (value * key).real

    @property
    def off_diagonal(self) -> Float[Tensor, "step model"]:
        """Largest modulus of all entries that diagonal weights leave at 0."""
        dimension = self.value.shape[-2]
        diagonal = MesaLayer.diagonal(dimension, *torch.ones(2, 1, dtype=self.value.real.dtype))
        used_value, used_key = (matrix[0].detach().abs() for matrix in diagonal.matrices())
        value = (self.value.abs() * (1 - used_value)).flatten(2).amax(-1)
        return torch.maximum(value, (self.query_key.abs() * (1 - used_key)).flatten(2).amax(-1))


def gradient_descent(
    layer: MesaLayer,
    states: Complex[Tensor, "batch time dimension"],
    weights: Float[Tensor, " batch"],
    mask: Bool[Tensor, "time time"],
    *,
    rate: float,
    steps: int,
    first: int | Int[Tensor, " model"] = 2,
    diagonal_only: bool = False,
) -> Descent:
    """Plain gradient descent on the weighted loss of all models, each from its own weights.

    Args:
        layer: the initial weights; left as they are.
        states, weights: the sequences of the loss and their weights, the same for all models.
        mask: of the attention.
        rate: step size.
        steps: number of steps.
        first: first scored position, of all models or of each.
        diagonal_only: whether all entries but those of diagonal weights are kept at 0.
    """
    moving = layer.select(range(len(layer.value)))
    parameters = [moving.value, moving.query_key]
    diagonal = MesaLayer.diagonal(states.shape[-1], *torch.ones(2, 1, dtype=weights.dtype))
    kept = [matrix.detach().abs().unsqueeze(-1) for matrix in diagonal.matrices()]
    models = len(moving.value)
    path = [[parameter.detach().clone()] for parameter in parameters]
    for _ in range(steps):
        loss = prediction_loss(moving, states.expand(models, *states.shape), weights.expand(models, -1), mask, first)
        gradients = torch.autograd.grad(loss.sum(), parameters)
        with torch.no_grad():
            for place, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
                parameter.sub_(rate * (gradient * kept[place] if diagonal_only else gradient))
                path[place].append(parameter.detach().clone())
    value, query_key = (torch.view_as_complex(torch.stack(steps_of)) for steps_of in path)
    return Descent(value, query_key)
