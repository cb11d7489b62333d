r"""How much two correct computations of one transformer may differ by rounding.

An exact symmetry of a network (a permutation, a cache, a mask that hides what is removed) shows in floating point as a
small difference. What is small is derived here from the network itself: each block is a chain of N roundings of
numbers no larger than S, and an error made by block l reaches the output through the blocks after it, whose Jacobian
is measured.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lab.errors import LabError
from lab.models.masks import flow
from lab.models.transformer import Intermediates, Transformer
from lab.statistics import rounding_bound


def network_rounding_bound(
    network: Transformer,
    inputs: Float[Tensor, "token width"],
    mask: Bool[Tensor, "token token"],
    positions: Int[Tensor, " token"] | None = None,
) -> float:
    r"""$2\, \gamma_N\, \sqrt{n D}\, S \sum_{l=0}^{L} \lVert J_{l \to L} \rVert$, a first-order bound of the difference of two runs.

    N is the longest chain of operations of one block (norm, query, score, softmax, sum of values, read-out of the heads,
    norm, MLP, residual); S the largest number recorded anywhere, attention scores included; $J_{l \to L}$ the Jacobian
    of the output with respect to the residual stream after l blocks, in Frobenius norm bounded by D times that of its
    largest entries (`flow`). n tokens of width D.

    Args:
        network: one model without token ids (its tokens are its residual stream), in float64.
        inputs: one prompt.
        mask: the attention pattern.
        positions: ids of rotary positions; None counts from 0.

    Raises:
        LabError: several models, or a network with token ids, learned positions or a read-in.
    """
    architecture = network.architecture
    if (
        network.models != 1
        or network.embedding is not None
        or network.positions is not None
        or network.read_in is not None
    ):
        raise LabError(
            "The rounding bound takes 1 model without an embedding, learned positions or a read-in, but this ensemble of "
            f"{network.models} has one of these or more models; please select one and embed its tokens first."
        )
    (length, width), inner = inputs.shape, architecture.heads * architecture.size_of_head
    intermediates: Intermediates = {}
    with torch.no_grad():
        network(inputs[None, None], mask, positions, intermediates=intermediates)
    scores = [
        float(
            torch.linalg.vector_norm(intermediates[f"layers.{depth}.attention.query"], dim=-1).max()
            * torch.linalg.vector_norm(intermediates[f"layers.{depth}.attention.key"], dim=-1).max()
        )
        for depth in range(architecture.layers)
    ]
    largest = max([float(value.abs().max()) for value in intermediates.values()] + scores)
    hidden = round(architecture.mlp_ratio * width)
    operations = 2 * (2 * width + 6) + width + architecture.size_of_head + 2 * length + inner + width + hidden + 8
    states = [inputs] + [intermediates[f"layers.{depth}.residual"][0, 0] for depth in range(architecture.layers)]
    carried = 0.0
    for depth, state in enumerate(states):
        rest = _after(network, depth)
        with torch.enable_grad():
            reached = flow(lambda tokens, pattern, rest=rest: rest(tokens, pattern, positions), state, mask)  # type: ignore[misc]
        carried += width * float(torch.linalg.matrix_norm(reached))
    return 2 * rounding_bound(operations, math.sqrt(length * width) * largest) * carried


def _after(network: Transformer, depth: int) -> Transformer:
    """The blocks from ``depth`` on, with the final norm and the read-out, as a network of its own."""
    architecture = network.architecture
    weights = {}
    for name, value in network.named_parameters():
        parts = name.split(".")
        if name.startswith("read_in") or (parts[0] == "layers" and int(parts[1]) < depth):
            continue
        if parts[0] == "layers":
            parts[1] = str(int(parts[1]) - depth)
        weights[".".join(parts)] = value.detach()
    rest = dataclasses.replace(architecture, layers=architecture.layers - depth, input_size=None)
    return Transformer.from_weights(rest, weights)
