"""What the parts share: prompts, explicit networks, rounding bounds."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lab.domains.regression.prompts import RegressionPrompts, linear_regression
from lab.models import masks
from lab.models.transformer import Architecture, Transformer
from lab.statistics import rounding_bound
from lab.streams import stream

PAPER = "oswald-2023-gradient-descent"
HALF_WIDTH = 0.5
VARIANCE = HALF_WIDTH**2 / 3
MASKS = {
    "prefix": masks.in_context_prefix,
    "causal": masks.in_context_causal,
    "query seen": lambda context, queries: masks.full(context + queries),
}


@dataclass(frozen=True)
class Config:
    """How much is drawn."""

    prompts: int = 100
    """prompts of each shape in the checks of constructions"""


PRESETS = {"smoke": Config(prompts=5), "ci": Config(), "paper": Config(prompts=1000)}


def normal(name: str, *shape: int) -> Tensor:
    """Standard normal numbers of a named stream."""
    return torch.from_numpy(stream(0, name).rng().standard_normal(shape))


def greatest(values: Tensor) -> float:
    """Largest absolute value."""
    return float(values.abs().max())


def loaded(size: int, layers: list[dict[str, Tensor]], attention: str = "linear") -> Transformer:
    """Attention layers of one head as wide as the tokens, with explicit query, key, value and output matrices.

    The network writes tokens as rows: a matrix that acts on column tokens enters transposed.
    """
    architecture = Architecture(
        width=size, layers=len(layers), attention=attention, mlp_ratio=0, norm="none", bias=False
    )
    named = {
        f"layers.{depth}.attention.{name}.weight": matrix
        for depth, layer in enumerate(layers)
        for name, matrix in layer.items()
    }
    return Transformer.from_weights(architecture, named)


def apply(network: Transformer, tokens: Tensor, mask: Tensor) -> Tensor:
    """Tokens [batch, token, width] after the last layer."""
    with torch.no_grad():
        return network(tokens[None], mask)[0]


def three_atoms(kurtosis: float, context: int, dimension: int) -> tuple[Tensor, Tensor]:
    """All input matrices [3^(N d), N, d] of unit-variance coordinates on {-c, 0, c}, and their probabilities."""
    atoms, weights = (np.sqrt(kurtosis) * np.array([-1, 0, 1]), np.array([0.5, kurtosis - 1, 0.5]) / kurtosis)
    atoms_of = np.array(list(itertools.product(range(3), repeat=context * dimension)))
    x = torch.from_numpy(atoms[atoms_of]).view(-1, context, dimension)
    return x, torch.from_numpy(weights[atoms_of].prod(1))


def noisy_prompts(config: Config, name: str, dimension: int, context: int, noise: float = 0.3) -> RegressionPrompts:
    """Noisy prompts with inputs uniform on [-1, 1]^d and two queries."""
    return linear_regression(
        stream(0, name), config.prompts, dimension=dimension, context_length=context, query_length=2, noise=noise
    )


def query_bound(x: Tensor, y: Tensor, queries: Tensor, layers: int) -> float:
    """Rounding between two ways to an answer, for maps that shrink residuals: sizes |y| |x|^2 N a layer.

    Args:
        x, queries: inputs of examples and queries [batch, N | m, d].
        y: labels [batch, N].
        layers: K.
    """
    reach = float(torch.cat([x, queries], dim=1).norm(dim=-1).max())
    context, dimension = x.shape[1:]
    size = greatest(y) * math.sqrt(context) * (1 + reach)
    return rounding_bound(2 * layers * (2 * dimension + context + 6) * math.sqrt(context + 2), size)
