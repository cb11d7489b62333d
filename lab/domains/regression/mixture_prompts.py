r"""Mixtures of linear regressions: every prompt follows one of m fixed weight vectors, and does not say which.

A prompt is a sequence of pairs $(x_i, y_i)$, $y_i = w \cdot x_i + \sigma \epsilon_i$, $x_i \sim N(0, c^2 I)$, with
one $w = w^*_j$ for the whole prompt. All labels carry noise, those that are predicted too. The set
$w^*_1, \dots, w^*_m$ belongs to the problem, not to the prompt: it is drawn once (`component_set`) and handed in.
`fresh_regression` draws a new w for every prompt instead, so that there is no set to remember.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lab.contracts import generator
from lab.errors import LabError
from lab.streams import RandomStream

Law = Literal["orthonormal", "unit", "normal"]
WeightLaw = Literal["normal", "unit"]


@dataclass(frozen=True)
class MixturePrompts:
    r"""Sequences of labelled inputs.

    Args:
        x: inputs $x_1, \dots, x_n$.
        y: labels, noise included.
        weights: the w of each prompt.
        component: which vector of the set that is; 0 where there is no set.
    """

    x: Float[Tensor, "batch place dimension"]
    y: Float[Tensor, "batch place"]
    weights: Float[Tensor, "batch dimension"]
    component: Int[Tensor, " batch"]


def component_set(
    stream: RandomStream, components: int, dimension: int, law: Law = "orthonormal"
) -> Float[Tensor, "component dimension"]:
    r"""The set $w^*_1, \dots, w^*_m$ in float64.

    Args:
        components: m.
        dimension: d.
        law: "orthonormal": Haar-distributed orthonormal vectors (a set of one geometry, turned at random);
            "unit": independent, uniform on the unit sphere; "normal": independent $N(0, I)$.

    Raises:
        LabError: a size below 1, an unknown law, more orthonormal vectors than dimensions.
    """
    _require_sizes(components=components, dimension=dimension)
    if law not in get_args(Law):
        raise LabError(f"The law {law!r} of the components is unknown; choose one of {', '.join(get_args(Law))}.")
    if law == "orthonormal" and components > dimension:
        raise LabError(
            f"{components} orthonormal components do not fit into dimension {dimension}; use at most {dimension}, "
            "or the law 'unit'."
        )
    draws = stream.rng().standard_normal((dimension, components))
    if law == "orthonormal":
        # The Q factor of a Gaussian matrix is Haar-distributed once the signs of R's diagonal are taken out.
        q, r = np.linalg.qr(draws)
        draws = q * np.sign(np.diagonal(r))
    elif law == "unit":
        draws = draws / np.linalg.norm(draws, axis=0)
    return torch.from_numpy(np.ascontiguousarray(draws.T))


@generator(components=torch.eye(3, dtype=torch.float64)[:2], length=5, noise=0.5)
def regression_mixture(
    stream: RandomStream,
    batch: int,
    *,
    components: Float[Tensor, "component dimension"],
    length: int,
    noise: float,
    prior: Sequence[float] = (),
    input_scale: float = 1.0,
    dtype: torch.dtype = torch.float64,
) -> MixturePrompts:
    r"""$j \sim \pi$, $x_i \sim N(0, c^2 I)$, $y_i = w^*_j \cdot x_i + \sigma \epsilon_i$ (Pathak et al. 2024, Section 2).

    Components, inputs and noise come from child streams of their own: another prior, noise or scale leaves the other
    numbers as they are.

    Args:
        stream: where the numbers come from.
        batch: number of prompts; the first k of them are the same for every batch of at least k.
        components: the set, one vector a row.
        length: n pairs.
        noise: $\sigma$.
        prior: $\pi$, one probability a component; empty for uniform.
        input_scale: c.
        dtype: precision of all tensors (the numbers are drawn in float64, then rounded).

    Raises:
        LabError: a size below 1, a negative or infinite scale, or a prior that is no law on the components.

    >>> from lab.streams import stream
    >>> prompts = regression_mixture(stream(0), 2, components=torch.eye(3).double(), length=5, noise=0.1)
    >>> tuple(prompts.x.shape), tuple(prompts.y.shape)
    ((2, 5, 3), (2, 5))
    """
    _require_sizes(batch=batch, length=length)
    law = prior_law(prior, len(components)).numpy()
    # One uniform number a prompt, so that the first prompts do not depend on the size of the batch.
    chosen = np.searchsorted(np.cumsum(law)[:-1], stream.child("component").rng().random(batch), side="right")
    component = torch.from_numpy(chosen)
    return _labelled(stream, components[component], component, length, noise, input_scale, dtype)


@generator(dimension=3, length=5, noise=0.5)
def fresh_regression(
    stream: RandomStream,
    batch: int,
    *,
    dimension: int,
    length: int,
    noise: float,
    law: WeightLaw = "normal",
    input_scale: float = 1.0,
    dtype: torch.dtype = torch.float64,
) -> MixturePrompts:
    r"""The same prompts with a w of their own: $N(0, I/d)$, or uniform on the unit sphere.

    Args:
        law: "normal" or "unit". The other arguments are those of `regression_mixture`.

    Raises:
        LabError: a size below 1, a negative or infinite scale, an unknown law.
    """
    _require_sizes(batch=batch, dimension=dimension, length=length)
    if law not in get_args(WeightLaw):
        raise LabError(f"The law {law!r} of the weights is unknown; choose one of {', '.join(get_args(WeightLaw))}.")
    draws = stream.child("weights").rng().standard_normal((batch, dimension))
    size = math.sqrt(dimension) if law == "normal" else np.linalg.norm(draws, axis=1, keepdims=True)
    component = torch.zeros(batch, dtype=torch.int64)
    return _labelled(stream, torch.from_numpy(draws / size), component, length, noise, input_scale, dtype)


def prior_law(prior: Sequence[float], components: int) -> Float[Tensor, " component"]:
    """The prior as a law on the components, uniform where it is empty.

    Raises:
        LabError: another number of probabilities than components, a negative one, or a sum other than 1.
    """
    if not prior:
        return torch.full((components,), 1 / components, dtype=torch.float64)
    if len(prior) != components:
        raise LabError(f"The prior has {len(prior)} probabilities for {components} components; give one a component.")
    total = math.fsum(prior)
    if min(prior) < 0 or not math.isclose(total, 1, rel_tol=1e-12):
        raise LabError(
            f"The prior {tuple(prior)} must hold probabilities of at least 0 that sum to 1, not {total:g}; rescale it."
        )
    return torch.tensor(prior, dtype=torch.float64)


def _labelled(
    stream: RandomStream,
    weights: Float[Tensor, "batch dimension"],
    component: Int[Tensor, " batch"],
    length: int,
    noise: float,
    input_scale: float,
    dtype: torch.dtype,
) -> MixturePrompts:
    """Inputs and labels for the given weights."""
    for name, value in (("noise", noise), ("input_scale", input_scale)):
        if not (math.isfinite(value) and value >= 0):
            raise LabError(f"{name} is {value} but must be finite and at least 0; choose such a number.")
    batch, dimension = weights.shape
    x = input_scale * stream.child("inputs").rng().standard_normal((batch, length, dimension))
    clean = np.einsum("bnd,bd->bn", x, weights.double().numpy())
    y = clean + noise * stream.child("noise").rng().standard_normal((batch, length))
    return MixturePrompts(torch.from_numpy(x).to(dtype), torch.from_numpy(y).to(dtype), weights.to(dtype), component)


def _require_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise LabError(f"{name} is {size} but must be at least 1; raise {name}.")
