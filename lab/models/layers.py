"""Layers that work token by token, E models at once: linear maps, norms, the MLP."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lab.models.architecture import Architecture

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": functools.partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}

Intermediates = dict[str, Tensor]


class Linear(nn.Module):
    """y_e = x_e W_e + b_e for each model e."""

    def __init__(self, models: int, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(models, inputs, outputs))
        self.bias = nn.Parameter(torch.empty(models, outputs)) if bias else None

    def forward(self, x: Float[Tensor, "model batch token inputs"]) -> Float[Tensor, "model batch token outputs"]:
        rows = x.flatten(1, 2)
        if self.bias is None:
            return torch.bmm(rows, self.weight).unflatten(1, x.shape[1:3])
        return torch.baddbmm(self.bias.unsqueeze(1), rows, self.weight).unflatten(1, x.shape[1:3])


class LayerNorm(nn.Module):
    """y = w (x - mean) / sqrt(variance + epsilon) + b over the last axis, w and b one for each model."""

    def __init__(self, models: int, width: int, bias: bool, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.empty(models, width))
        self.bias = nn.Parameter(torch.empty(models, width)) if bias else None

    def forward(self, x: Float[Tensor, "model batch token width"]) -> Float[Tensor, "model batch token width"]:
        y = F.layer_norm(x, x.shape[-1:], eps=self.epsilon)
        weight = self.weight[:, None, None]
        return y * weight if self.bias is None else torch.addcmul(self.bias[:, None, None], y, weight)


class RMSNorm(nn.Module):
    """y = w x / sqrt(mean of x^2 + epsilon) over the last axis, w one for each model."""

    def __init__(self, models: int, width: int, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.empty(models, width))

    def forward(self, x: Float[Tensor, "model batch token width"]) -> Float[Tensor, "model batch token width"]:
        return self.weight[:, None, None] * F.rms_norm(x, x.shape[-1:], eps=self.epsilon)


def norm(architecture: Architecture, models: int) -> LayerNorm | RMSNorm:
    """The norm of an architecture, which has one."""
    if architecture.norm_kind == "rms":
        return RMSNorm(models, architecture.width, architecture.norm_epsilon)
    return LayerNorm(models, architecture.width, architecture.bias, architecture.norm_epsilon)


class MLP(nn.Module):
    """m = activation(x U + b) V + c, token by token; gated: m = (activation(x G + a) * (x U + b)) V + c."""

    def __init__(self, architecture: Architecture, models: int) -> None:
        super().__init__()
        width, hidden, bias = architecture.width, architecture.hidden_size, architecture.bias
        self.activation = ACTIVATIONS[architecture.activation]
        self.gate = Linear(models, width, hidden, bias) if architecture.gated else None
        self.hidden = Linear(models, width, hidden, bias)
        self.output = Linear(models, hidden, width, bias)

    def forward(
        self, x: Float[Tensor, "model batch token width"], depth: int, intermediates: Intermediates | None
    ) -> Float[Tensor, "model batch token width"]:
        linear = self.hidden(x)
        hidden = self.activation(linear) if self.gate is None else self.activation(self.gate(x)) * linear
        if intermediates is not None:
            intermediates[f"layers.{depth}.mlp.hidden"] = hidden
        return self.output(hidden)
