r"""Depth as iteration: linear self-attention under a prefix and under a causal mask, layer by layer.

A prompt with Gram matrix $G = X X^\top$ has, at layer l, residual labels $\delta_j = y_j - w_j \cdot x_j$ of its
examples, where each place j carries weights $w_j$ of its own. All of them come from one row of coefficients
$a^{(l)} = a^{(l-1)} + s\,(y - a^{(l-1)} M)$, $a^{(0)} = 0$:

- prefix mask, M = G: all places share $w = \sum_i a_i x_i$, which is batch gradient descent;
- causal mask, M = T, the upper triangle of G (k <= j): $w_j = \sum_{i \le j} a_i x_i$;
- causal mask with every place j averaging over the j examples it sees, $M = S$, $S_{kj} = T_{kj} / j$:
  $w_j = \frac1j \sum_{i \le j} a_i x_i$, with the learning rate $\eta$ in the place of $s = \eta / n$.

Queries see all examples and nothing else, so that they use $w_n$. Labels minus $w_0 \cdot x$ give the recursions
that start at weights $w_0$ instead of zero.

$I - s T$ is triangular, so its rate is read off its diagonal, but it is far from normal: for inputs with a large
mean, errors grow by many orders before they shrink. Stationary points belong to `lab.domains.regression.kaczmarz`, which
finds them by substitution.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Trajectory:
    r"""What a network of ``layers`` layers holds before its first layer (index 0) and after each.

    Args:
        coefficients: $a^{(l)}$.
        context_residual: $\delta_j = y_j - w_j \cdot x_j$ at each example.
        query_prediction: $w_n \cdot x_q$ at each query.
    """

    coefficients: Float[Tensor, "depth batch context"]
    context_residual: Float[Tensor, "depth batch context"]
    query_prediction: Float[Tensor, "depth batch query"]

    @property
    def context_error(self) -> Float[Tensor, "depth batch"]:
        r"""$\frac1n \sum_j \delta_j^2$: how well each place has fitted its own label, by layer."""
        return self.context_residual.square().mean(-1)

    def query_error(self, y_query: Float[Tensor, "batch query"]) -> Float[Tensor, "depth batch"]:
        """Mean squared error over the queries, by layer."""
        return (self.query_prediction - y_query).square().mean(-1)


def gram(x: Float[Tensor, "batch context dimension"]) -> Float[Tensor, "batch context context"]:
    r"""$G = X X^\top$."""
    return x @ x.mT


def causal_gram(x: Float[Tensor, "batch context dimension"]) -> Float[Tensor, "batch context context"]:
    r"""T: $T_{kj} = x_k \cdot x_j$ for k <= j, else 0."""
    return gram(x).triu()


def normalised_causal_gram(x: Float[Tensor, "batch context dimension"]) -> Float[Tensor, "batch context context"]:
    r"""S: $S_{kj} = T_{kj} / j$ with j counted from 1."""
    return causal_gram(x) / torch.arange(1, x.shape[1] + 1, dtype=x.dtype, device=x.device)


def prefix_recursion(
    x_context: Float[Tensor, "batch context dimension"],
    y_context: Float[Tensor, "batch context"],
    x_query: Float[Tensor, "batch query dimension"],
    *,
    step: float,
    layers: int,
) -> Trajectory:
    r"""$a \leftarrow a + s (y - a G)$: linear attention under a prefix mask, which is batch gradient descent."""
    return _iterate(gram(x_context), x_context, y_context, x_query, step, layers)


def causal_recursion(
    x_context: Float[Tensor, "batch context dimension"],
    y_context: Float[Tensor, "batch context"],
    x_query: Float[Tensor, "batch query dimension"],
    *,
    step: float,
    layers: int,
) -> Trajectory:
    r"""$a \leftarrow a + s (y - a T)$: the same network under a causal mask."""
    return _iterate(causal_gram(x_context), x_context, y_context, x_query, step, layers)


def normalised_causal_recursion(
    x_context: Float[Tensor, "batch context dimension"],
    y_context: Float[Tensor, "batch context"],
    x_query: Float[Tensor, "batch query dimension"],
    *,
    learning_rate: float,
    layers: int,
) -> Trajectory:
    r"""$a \leftarrow a + \eta (y - a S)$: causal, each place dividing by the number of examples it sees."""
    return _iterate(
        normalised_causal_gram(x_context), x_context, y_context, x_query / x_context.shape[1], learning_rate, layers
    )


def causal_weights(
    coefficients: Float[Tensor, "*depth batch context"], x: Float[Tensor, "batch context dimension"]
) -> Float[Tensor, "*depth batch context dimension"]:
    r"""$w_j = \sum_{i \le j} a_i x_i$ for every place j; the last one is also the prefix network's w."""
    return (coefficients[..., None] * x).cumsum(-2)


def causal_rate(x: Float[Tensor, "batch context dimension"], step: float) -> Float[Tensor, " batch"]:
    r"""$\rho = \max_j |1 - s |x_j|^2|$: the spectral radius of $I - s T$, the factor of a *late* layer."""
    return (1 - step * x.square().sum(-1)).abs().amax(-1)


def causal_stability_limit(x: Float[Tensor, "batch context dimension"]) -> Float[Tensor, " batch"]:
    r"""$2 / \max_j |x_j|^2$: the causal recursion converges iff 0 < s < this, whatever n is."""
    return 2 / x.square().sum(-1).amax(-1)


def _iterate(
    matrix: Tensor, x_context: Tensor, y_context: Tensor, x_query: Tensor, step: float, layers: int
) -> Trajectory:
    batch, context = y_context.shape
    coefficients = y_context.new_zeros(batch, layers + 1, context)
    residual = y_context.new_empty(batch, layers + 1, context)
    for layer in range(layers + 1):
        now = coefficients[:, layer]
        residual[:, layer] = y_context - (now[:, None] @ matrix)[:, 0]
        if layer < layers:
            coefficients[:, layer + 1] = now + step * residual[:, layer]
    # Queries feed nothing back, so that all layers are answered in one product.
    answers = coefficients @ (x_context @ x_query.mT)
    return Trajectory(coefficients.transpose(0, 1), residual.transpose(0, 1), answers.transpose(0, 1))
