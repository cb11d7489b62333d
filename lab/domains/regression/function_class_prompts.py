r"""In-context learning of function classes: prompts $(x_1, f(x_1), \dots, x_n, f(x_n))$, queries, and a fresh f in each.

Six classes of functions on $R^d$ and inputs $x \sim N(0, I)$ (Garg et al. 2022). A class is a law of f, so that labels at
any inputs can be drawn together; the laws of the inputs can be changed from those of training (`shifted_prompts`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lab.contracts import generator
from lab.errors import LabError
from lab.streams import RandomStream

FunctionClass = Literal["linear", "sparse", "quadratic", "relu", "tree", "sign"]
Shift = Literal["none", "quadrant", "orthogonal", "overlapping", "half subspace", "skewed", "inputs", "labels", "noise"]
Function = Callable[[np.ndarray], np.ndarray]


def _at_least_one(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise LabError(f"{name} is {size} but must be at least 1; raise {name}.")


@dataclass(frozen=True)
class Sizes:
    """What the classes need to know beside the dimension.

    Args:
        sparsity: non-zero coordinates of a sparse weight vector.
        hidden: ReLU units r of a two-layer network.
        depth: tests from the root of a decision tree to a leaf.

    Raises:
        LabError: a size below 1.
    """

    sparsity: int = 3
    hidden: int = 100
    depth: int = 4

    def __post_init__(self) -> None:
        _at_least_one(sparsity=self.sparsity, hidden=self.hidden, depth=self.depth)


DEFAULT_SIZES = Sizes()


@dataclass(frozen=True)
class FunctionPrompts:
    """Examples of one hidden function a prompt, and queries.

    Args:
        x_context: inputs of the n examples.
        y_context: their labels, noise included.
        x_query: inputs of the m queries.
        y_query: clean labels of the queries.
    """

    x_context: Float[Tensor, "batch context dimension"]
    y_context: Float[Tensor, "batch context"]
    x_query: Float[Tensor, "batch query dimension"]
    y_query: Float[Tensor, "batch query"]


def sample_functions(
    stream: RandomStream, batch: int, function: FunctionClass, dimension: int, sizes: Sizes = DEFAULT_SIZES
) -> Function:
    r"""``batch`` independent functions of a class, as one map of inputs [batch, n, d] to labels [batch, n].

    linear $w \cdot x$; sparse, w with ``sparsity`` non-zero coordinates; quadratic $\sum_j w_j x_j^2 / \sqrt 3$; relu
    $\sqrt{2/r} \sum_{j \le r} a_j \max(b_j \cdot x, 0)$; tree, a full binary tree whose nodes ask whether one random
    coordinate is above 0; sign of linear. All numbers are standard normal.

    Raises:
        LabError: an unknown class, a size below 1, or more non-zero coordinates than there are.
    """
    if function not in get_args(FunctionClass):
        raise LabError(
            f"The function class {function!r} is unknown; choose one of {', '.join(get_args(FunctionClass))}."
        )
    _at_least_one(batch=batch, dimension=dimension)
    draws = stream.rng()
    if function == "tree":
        nodes = 2**sizes.depth - 1
        coordinates = draws.integers(dimension, size=(batch, nodes))
        leaves = stream.child("leaves").rng().standard_normal((batch, nodes + 1))
        return lambda x: _descend(x, coordinates, leaves, sizes.depth)
    if function == "relu":
        first = draws.standard_normal((batch, sizes.hidden, dimension))
        second = stream.child("second").rng().standard_normal((batch, sizes.hidden)) * math.sqrt(2 / sizes.hidden)
        return lambda x: np.einsum("bnr,br->bn", np.maximum(x @ first.swapaxes(1, 2), 0), second)
    weights = draws.standard_normal((batch, dimension))
    if function == "sparse":
        if sizes.sparsity > dimension:
            raise LabError(f"{sizes.sparsity} non-zero coordinates do not fit into {dimension}; lower the sparsity.")
        order = stream.child("support").rng().random((batch, dimension)).argsort(axis=1)
        weights = weights * (order.argsort(axis=1) < sizes.sparsity)
    if function == "quadratic":
        return lambda x: np.einsum("bnd,bd->bn", np.square(x), weights) / math.sqrt(3)
    linear: Function = lambda x: np.einsum("bnd,bd->bn", x, weights)  # noqa: E731
    return (lambda x: np.sign(linear(x))) if function == "sign" else linear


def _descend(x: np.ndarray, coordinates: np.ndarray, leaves: np.ndarray, depth: int) -> np.ndarray:
    """Values of the leaves that inputs [batch, n, d] reach; children of node i are 2 i + 1 and, above 0, 2 i + 2."""
    node = np.zeros(x.shape[:2], dtype=int)
    for _ in range(depth):
        coordinate = np.take_along_axis(coordinates, node, axis=1)
        above = np.take_along_axis(x, coordinate[..., None], axis=2)[..., 0] > 0
        node = 2 * node + 1 + above
    return np.take_along_axis(leaves, node - coordinates.shape[1], axis=1)


@generator(function="tree", dimension=4, context_length=5, query_length=2, noise=0.3)
def function_prompts(
    stream: RandomStream,
    batch: int,
    *,
    function: FunctionClass,
    dimension: int,
    context_length: int,
    query_length: int,
    noise: float = 0.0,
    sizes: Sizes = DEFAULT_SIZES,
    dtype: torch.dtype = torch.float64,
) -> FunctionPrompts:
    r"""$x \sim N(0, I)$, a fresh f of the class in each prompt, $y_j = f(x_j) + \text{noise}\,\epsilon_j$ in the context.

    Args:
        stream: where the numbers come from.
        batch: number of prompts; the first k of them are the same for every batch of at least k.
        function: the class.
        dimension: d.
        context_length: n examples, 0 or more.
        query_length: m queries.
        noise: standard deviation of the noise on labels of the context.
        sizes: see `sample_functions`.
        dtype: precision of all tensors (the numbers are drawn in float64, then rounded).

    Raises:
        LabError: an unknown class, an impossible size, a negative or infinite noise.

    >>> from lab.streams import stream
    >>> prompts = function_prompts(stream(0), 2, function="relu", dimension=3, context_length=5, query_length=1)
    >>> tuple(prompts.x_context.shape), tuple(prompts.y_query.shape)
    ((2, 5, 3), (2, 1))
    """
    return shifted_prompts(
        stream,
        batch,
        shift="noise",
        scale=noise,
        function=function,
        dimension=dimension,
        context_length=context_length,
        query_length=query_length,
        sizes=sizes,
        dtype=dtype,
    )


@generator(shift="skewed", dimension=4, context_length=3, query_length=2)
def shifted_prompts(
    stream: RandomStream,
    batch: int,
    *,
    shift: Shift,
    dimension: int,
    context_length: int,
    query_length: int,
    scale: float = 1.0,
    function: FunctionClass = "linear",
    sizes: Sizes = DEFAULT_SIZES,
    dtype: torch.dtype = torch.float64,
) -> FunctionPrompts:
    r"""Prompts whose inputs or labels follow another law than in training; inputs, functions and noise as without a shift.

    "quadrant": the examples of a prompt lie in one random orthant, queries anywhere. "orthogonal": queries are projected
    off the span of the examples, their norm kept. "overlapping": each query is one of the examples. "half subspace": all
    inputs of a prompt lie in one random subspace of dimension floor(d/2). "skewed": $x = U \Lambda U^\top z$ with a random
    rotation U and $\Lambda \propto \mathrm{diag}(1, 1/2, \dots, 1/d)$. The last two keep $E|x|^2 = d$. "inputs": all
    inputs times ``scale``. "labels": all labels times ``scale``. "noise": ``scale`` times N(0, 1) on the context's labels.

    Args:
        shift: what differs from training; "none" for nothing.
        scale: used by "inputs", "labels" and "noise".

    The other arguments are those of `function_prompts`.

    Raises:
        LabError: an unknown shift, an impossible size, a negative or infinite scale, orthogonal queries with as many
            examples as dimensions, overlapping queries without examples, half of one dimension.
    """
    if shift not in get_args(Shift):
        raise LabError(f"The shift {shift!r} is unknown; choose one of {', '.join(get_args(Shift))}.")
    _at_least_one(batch=batch, dimension=dimension, query_length=query_length)
    if context_length < 0:
        raise LabError(f"context_length is {context_length} but must be at least 0; raise context_length.")
    if not (math.isfinite(scale) and scale >= 0):
        raise LabError(f"The scale {scale} must be finite and at least 0; choose such a number.")
    x = stream.child("inputs").rng().standard_normal((batch, context_length, dimension))
    queries = stream.child("queries").rng().standard_normal((batch, query_length, dimension))
    x, queries = _shift_inputs(stream.child("shift"), x, queries, shift, scale)
    f = sample_functions(stream.child("function"), batch, function, dimension, sizes)
    y, goal = f(x), f(queries)
    if shift == "noise":
        y = y + scale * stream.child("noise").rng().standard_normal(y.shape)
    elif shift == "labels":
        y, goal = scale * y, scale * goal
    return FunctionPrompts(*(torch.from_numpy(values).to(dtype) for values in (x, y, queries, goal)))


def _shift_inputs(
    stream: RandomStream, x: np.ndarray, queries: np.ndarray, shift: Shift, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """Inputs of the examples and of the queries after the shift, see `shifted_prompts`."""
    batch, examples, dimension = x.shape
    rng = stream.rng()
    if shift == "quadrant":
        return np.abs(x) * (2.0 * (rng.random((batch, 1, dimension)) < 0.5) - 1.0), queries
    if shift == "orthogonal":
        if examples >= dimension:
            raise LabError(
                f"No query is orthogonal to {examples} examples in {dimension} dimensions; show at most "
                f"{dimension - 1}."
            )
        if not examples:
            return x, queries
        basis = np.linalg.qr(x.swapaxes(1, 2))[0]
        rest = queries - queries @ basis @ basis.swapaxes(1, 2)
        length = np.linalg.norm(queries, axis=-1, keepdims=True)
        return x, rest * length / np.linalg.norm(rest, axis=-1, keepdims=True)
    if shift == "overlapping":
        if not examples:
            raise LabError("A query cannot be one of 0 examples; show at least 1.")
        chosen = (rng.random(queries.shape[:2]) * examples).astype(int)
        return x, np.take_along_axis(x, chosen[..., None], axis=1)
    if shift in ("half subspace", "skewed"):
        if dimension < 2:
            raise LabError(f"The shift {shift!r} needs at least 2 dimensions, not {dimension}; raise dimension.")
        values = 1 / np.arange(1.0, dimension + 1)
        if shift == "half subspace":
            values = (np.arange(dimension) < dimension // 2).astype(float)
        values *= math.sqrt(dimension / np.square(values).sum())
        # Any orthogonal basis serves: z is rotationally invariant, so that the signs of Q do not matter.
        turn = np.linalg.qr(rng.standard_normal((batch, dimension, dimension)))[0]
        transform = (turn * values) @ turn.swapaxes(1, 2)
        return x @ transform, queries @ transform
    if shift == "inputs":
        return scale * x, scale * queries
    return x, queries
