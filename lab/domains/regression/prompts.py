r"""In-context regression and classification: prompts of labelled examples and queries of one hidden linear map.

A prompt holds n examples $(x_j, y_j)$ and m queries $x_q$, all inputs drawn independently from one law, and
labels $y = f(w \cdot x)$ with weights w drawn once a prompt. Labels of the context may carry noise; labels of
queries, against which predictions are scored, are clean unless asked otherwise.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lab.contracts import generator
from lab.errors import LabError
from lab.streams import RandomStream

Inputs = Literal["uniform", "normal"]
Output = Literal["linear", "sigmoid"]


@dataclass(frozen=True)
class RegressionPrompts:
    r"""Prompts with one number as label.

    Args:
        x_context: inputs of the n examples.
        y_context: their labels, noise included.
        x_query: inputs of the m queries.
        y_query: labels of the queries, clean unless query noise was asked for.
        weights: the hidden w.
    """

    x_context: Float[Tensor, "batch context dimension"]
    y_context: Float[Tensor, "batch context"]
    x_query: Float[Tensor, "batch query dimension"]
    y_query: Float[Tensor, "batch query"]
    weights: Float[Tensor, "batch dimension"]


@dataclass(frozen=True)
class ClassPrompts:
    r"""Prompts with one of C classes as label, written one-hot.

    Args:
        x_context, x_query: as in `RegressionPrompts`.
        y_context, y_query: 1 at the class $\arg\max_c w_c \cdot x$, 0 elsewhere.
        weights: the hidden $w_c$, a vector a class.
    """

    x_context: Float[Tensor, "batch context dimension"]
    y_context: Float[Tensor, "batch context classes"]
    x_query: Float[Tensor, "batch query dimension"]
    y_query: Float[Tensor, "batch query classes"]
    weights: Float[Tensor, "batch classes dimension"]


Prompts = TypeVar("Prompts", RegressionPrompts, ClassPrompts)


@generator(dimension=3, context_length=5, query_length=2, noise=0.5)
def linear_regression(
    stream: RandomStream,
    batch: int,
    *,
    dimension: int,
    context_length: int,
    query_length: int,
    inputs: Inputs = "uniform",
    mean: float = 0.0,
    half_width: float = 1.0,
    spectrum: Sequence[float] = (),
    weight_scale: float = 1.0,
    output: Output = "linear",
    noise: float = 0.0,
    query_noise: float = 0.0,
    dtype: torch.dtype = torch.float64,
) -> RegressionPrompts:
    r"""$w \sim N(0, \text{weight\_scale}^2 I)$, $y_j = f(w \cdot x_j) + \text{noise}\, \epsilon_j$.

    f is the identity or $f(z) = 1/(1 + e^{-z}) - 1/2$. Inputs, weights, noise and queries come from child
    streams of their own: changing the noise, the number of queries or the batch leaves the others as they are.

    Args:
        stream: where the numbers come from.
        batch: number of prompts; the first k of them are the same for every batch of at least k.
        dimension: d.
        context_length: n examples.
        query_length: m queries.
        inputs: "uniform" on mean + [-half_width, half_width]^d, or "normal" with that mean.
        mean: added to every coordinate.
        half_width: half the side of the cube of uniform inputs.
        spectrum: eigenvalues of the covariance of normal inputs, one a coordinate; empty is the identity.
        weight_scale: standard deviation of each coordinate of w.
        output: "linear", or "sigmoid" for the centred logistic function.
        noise: standard deviation of the noise on labels of the context, added after f.
        query_noise: the same on labels of queries.
        dtype: precision of all tensors (the numbers are drawn in float64, then rounded).

    Raises:
        LabError: a size below 1, a negative or infinite scale, or an unknown law.

    >>> from lab.streams import stream
    >>> prompts = linear_regression(stream(0), 2, dimension=3, context_length=5, query_length=1)
    >>> tuple(prompts.x_context.shape), tuple(prompts.y_query.shape)
    ((2, 5, 3), (2, 1))
    """
    if output not in get_args(Output):
        raise LabError(f"The output {output!r} is unknown; choose one of {', '.join(get_args(Output))}.")
    _require_scales(weight_scale=weight_scale, noise=noise, query_noise=query_noise)
    x_context, x_query = _inputs(
        stream, batch, dimension, context_length, query_length, inputs, mean, half_width, spectrum
    )
    weights = weight_scale * stream.child("weights").rng().standard_normal((batch, dimension))

    def labels(x: np.ndarray, level: float, name: str) -> Tensor:
        score = np.einsum("bnd,bd->bn", x, weights)
        clean = score if output == "linear" else np.tanh(score / 2) / 2
        return _tensor(clean + level * stream.child(name).rng().standard_normal(clean.shape), dtype)

    return RegressionPrompts(
        x_context=_tensor(x_context, dtype),
        y_context=labels(x_context, noise, "noise"),
        x_query=_tensor(x_query, dtype),
        y_query=labels(x_query, query_noise, "query noise"),
        weights=_tensor(weights, dtype),
    )


@generator(classes=3, dimension=3, context_length=5, query_length=2)
def multiclass(
    stream: RandomStream,
    batch: int,
    *,
    classes: int,
    dimension: int,
    context_length: int,
    query_length: int,
    inputs: Inputs = "uniform",
    mean: float = 0.0,
    half_width: float = 1.0,
    spectrum: Sequence[float] = (),
    dtype: torch.dtype = torch.float64,
) -> ClassPrompts:
    r"""$w_c \sim N(0, I)$ for each class c, and the label is one-hot at $\arg\max_c w_c \cdot x$.

    Args:
        classes: C, at least 2. The other arguments are those of `linear_regression`.

    Raises:
        LabError: fewer than 2 classes, a size below 1, or an unknown law of inputs.
    """
    if classes < 2:
        raise LabError(f"There are {classes} classes but at least 2 are needed; raise classes.")
    x_context, x_query = _inputs(
        stream, batch, dimension, context_length, query_length, inputs, mean, half_width, spectrum
    )
    weights = stream.child("weights").rng().standard_normal((batch, classes, dimension))

    def labels(x: np.ndarray) -> Tensor:
        winner = np.einsum("bnd,bcd->bnc", x, weights).argmax(-1)
        return _tensor(np.eye(classes)[winner], dtype)

    return ClassPrompts(
        x_context=_tensor(x_context, dtype),
        y_context=labels(x_context),
        x_query=_tensor(x_query, dtype),
        y_query=labels(x_query),
        weights=_tensor(weights, dtype),
    )


def permute_context(prompts: Prompts, order: Int[Tensor, " context"]) -> Prompts:
    """The same prompts with their examples shown in another order; queries stay where they are.

    Args:
        order: example ``order[j]`` comes to place j, in every prompt.

    Raises:
        LabError: ``order`` is not a permutation of the examples.
    """
    length = prompts.x_context.shape[1]
    if not torch.equal(order.sort().values, torch.arange(length)):
        raise LabError(
            f"The order {order.tolist()} is no permutation of 0 to {length - 1}; name each example exactly once."
        )
    return dataclasses.replace(prompts, x_context=prompts.x_context[:, order], y_context=prompts.y_context[:, order])


def random_orders(stream: RandomStream, orders: int, length: int) -> Int[Tensor, "orders length"]:
    """``orders`` independent random permutations of 0 .. length - 1; the first k do not depend on their number."""
    return torch.from_numpy(stream.rng().random((orders, length)).argsort(axis=1))


def pair_tokens(
    x_context: Float[Tensor, "batch context dimension"],
    y_context: Float[Tensor, "batch context"],
    x_query: Float[Tensor, "batch query dimension"],
) -> Float[Tensor, "batch context+query dimension+1"]:
    """Tokens (x_i, y_i) of the examples, then (x, 0) of the queries."""
    queries = torch.cat([x_query, torch.zeros_like(x_query[..., :1])], dim=-1)
    return torch.cat([torch.cat([x_context, y_context.unsqueeze(-1)], dim=-1), queries], dim=1)


def tokens(prompts: RegressionPrompts | ClassPrompts) -> Float[Tensor, "batch length width"]:
    r"""Tokens $z_j = (x_j, y_j)$ of the examples, then $z_q = (x_q, 0)$ of the queries.

    Returns:
        the tokens, as wide as an input and a label (one number, or one a class) together.
    """
    if isinstance(prompts, RegressionPrompts):
        return pair_tokens(prompts.x_context, prompts.y_context, prompts.x_query)
    blank = prompts.x_query.new_zeros(*prompts.x_query.shape[:2], prompts.y_context.shape[-1])
    examples = torch.cat([prompts.x_context, prompts.y_context], dim=-1)
    return torch.cat([examples, torch.cat([prompts.x_query, blank], dim=-1)], dim=1)


def _inputs(
    stream: RandomStream,
    batch: int,
    dimension: int,
    context_length: int,
    query_length: int,
    inputs: str,
    mean: float,
    half_width: float,
    spectrum: Sequence[float],
) -> tuple[np.ndarray, np.ndarray]:
    """Inputs of the examples and of the queries."""
    sizes = {"batch": batch, "dimension": dimension, "context_length": context_length, "query_length": query_length}
    for name, size in sizes.items():
        if size < 1:
            raise LabError(f"{name} is {size} but must be at least 1; raise {name}.")
    if inputs not in get_args(Inputs):
        raise LabError(f"The inputs {inputs!r} are unknown; choose one of {', '.join(get_args(Inputs))}.")
    if not math.isfinite(mean):
        raise LabError(f"mean is {mean} but must be finite; choose a number.")
    if inputs == "uniform":
        if spectrum:
            raise LabError(
                "A spectrum is given but belongs to normal inputs only; set inputs='normal' or leave it out."
            )
        _require_scales(half_width=half_width)
        if half_width == 0:
            raise LabError("half_width is 0 but must be above 0; otherwise all inputs are equal.")
    elif half_width != 1:
        raise LabError(
            f"half_width is {half_width} but belongs to uniform inputs only; scale normal inputs by spectrum."
        )
    elif spectrum:
        if len(spectrum) != dimension:
            raise LabError(
                f"The spectrum has {len(spectrum)} eigenvalues for dimension {dimension}; give one a coordinate."
            )
        _require_scales(**{f"eigenvalue {place}": value for place, value in enumerate(spectrum)})

    def draw(name: str, length: int) -> np.ndarray:
        rng = stream.child(name).rng()
        shape = (batch, length, dimension)
        if inputs == "uniform":
            return mean + rng.uniform(-half_width, half_width, shape)
        deviations = np.sqrt(np.asarray(spectrum)) if spectrum else 1.0
        return mean + deviations * rng.standard_normal(shape)

    return draw("inputs", context_length), draw("queries", query_length)


def _require_scales(**scales: float) -> None:
    for name, value in scales.items():
        if not (math.isfinite(value) and value >= 0):
            raise LabError(f"{name} is {value} but must be finite and at least 0; choose such a number.")


def _tensor(values: np.ndarray, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(values).to(dtype)
