r"""Weights under which every layer of linear attention takes one step of gradient descent on the examples it sees.

Tokens are $z_j = (x_j, \delta_j)$, with the label in the last slot of an example and 0 in that of a query. A layer is
$z_j \leftarrow z_j + P V \sum_i z_i\,(z_i^\top K^\top Q z_j)$ over the tokens i that j sees, without softmax, norm or MLP.
With $K = Q = \mathrm{diag}(I, 0)$, $V = \begin{pmatrix} 0 & 0 \\ w_0^\top & -1 \end{pmatrix}$ and $P = s I$, inputs stay and
labels become $\delta_j \leftarrow \delta_j - s \sum_i (\delta_i - w_0 \cdot x_i)\, x_i \cdot x_j$. What that computes is the mask's
affair (Ding et al. 2024, Propositions 1, 2 and 6):

- prefix: $\delta_j = y_j - (w^{(l)} - w_0) \cdot x_j$ with $w^{(l)}$ after l steps of gradient descent from $w_0$;
- causal: the same with weights $w_j^{(l)}$ of its own at each place j, which follow the examples up to j.

A query, which sees all examples and itself not, ends with $-(w^{(l)} - w_0) \cdot x_q$ of the last place.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lab.errors import LabError
from lab.models.transformer import Architecture, Transformer
from lab.predictors import RegressionPredictor


def gradient_descent_network(
    dimension: int,
    layers: int,
    *,
    step: float,
    initial: Float[Tensor, " dimension"] | None = None,
    attention_matrices: str = "factored",
) -> Transformer:
    r"""The network of Propositions 1, 2 and 6: one block, applied ``layers`` times.

    Args:
        dimension: d of the inputs; tokens are d + 1 wide.
        layers: steps of gradient descent.
        step: s, the step on the *sum* over examples ($s = \eta / n$ for a learning rate on their mean).
        initial: $w_0$; zero where left out.
        attention_matrices: "factored" into Q, K, V and P, or "merged" into the two products $K^\top Q$ and $P V$ that
            matter.

    Returns:
        An ensemble of one model in float64. Its output is the residual stream.

    Raises:
        LabError: a dimension below 1, or $w_0$ of another dimension.
    """
    if dimension < 1:
        raise LabError(f"The dimension is {dimension} but must be at least 1; raise it.")
    if initial is not None and initial.shape != (dimension,):
        raise LabError(
            f"The initial weights have the shape {tuple(initial.shape)} but inputs have dimension {dimension}; "
            "give one number a coordinate."
        )
    architecture = Architecture(
        width=dimension + 1,
        layers=layers,
        attention="linear",
        attention_matrices=attention_matrices,
        mlp_ratio=0,
        norm="none",
        bias=False,
        share_layers=True,
    )
    inputs = torch.eye(dimension + 1, dtype=torch.float64)
    inputs[-1, -1] = 0
    # V transposed: the network writes tokens as rows.
    value = torch.zeros(dimension + 1, dimension + 1, dtype=torch.float64)
    value[-1, -1] = -1
    if initial is not None:
        value[:-1, -1] = initial
    scaling = step * torch.eye(dimension + 1, dtype=torch.float64)
    matrices = {"query": inputs, "key": inputs, "value": value, "output": scaling}
    if attention_matrices == "merged":
        matrices = {"query": inputs, "output": step * value}
    if layers == 0:
        return Transformer.from_weights(architecture, {})
    return Transformer.from_weights(
        architecture, {f"layers.0.attention.{name}.weight": matrix for name, matrix in matrices.items()}
    )


def label_slots(
    network: Transformer, tokens: Float[Tensor, "batch token width"], mask: Bool[Tensor, "token token"]
) -> Float[Tensor, "depth batch token"]:
    r"""$\delta_j^{(l)}$ of every token, before the first layer (index 0) and after each.

    Args:
        network: of `gradient_descent_network`.
        tokens: examples, then queries (`lab.domains.regression.prompts.tokens`).
        mask: True where the token (row) sees the token (column).
    """
    intermediates: dict[str, Tensor] = {}
    with torch.no_grad():
        network(tokens[None], mask, intermediates=intermediates)
    names = ["embedding", *(f"layers.{depth}.residual" for depth in range(network.architecture.layers))]
    return torch.stack([intermediates[name][0, ..., -1] for name in names])


def network_predictor(
    network: Transformer,
    pattern: Callable[[int, int], Bool[Tensor, "token token"]],
    initial: Float[Tensor, " dimension"] | None = None,
) -> RegressionPredictor:
    r"""$\hat y_q = w_0 \cdot x_q - \delta_q$: the network as a predictor.

    Args:
        network: of `gradient_descent_network`.
        pattern: (examples, queries) to a mask, such as `lab.models.masks.in_context_causal`.
        initial: the $w_0$ that the network was built with.
    """

    def predictor(x_context: Tensor, y_context: Tensor, x_query: Tensor) -> Tensor:
        context, queries = x_context.shape[1], x_query.shape[1]
        slots = torch.cat([y_context, y_context.new_zeros(len(x_query), queries)], dim=1)
        tokens = torch.cat([torch.cat([x_context, x_query], dim=1), slots[..., None]], dim=-1)
        answers = -label_slots(network, tokens, pattern(context, queries))[-1, :, context:]
        return answers if initial is None else answers + x_query @ initial

    return predictor
