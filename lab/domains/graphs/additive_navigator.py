r"""The law of paths to a goal is additive, so one attention layer without an MLP writes it.

For a law of the form $p(v | u, g) = S_{uv} W_{vg} / W_{ug}$ (`lab.domains.graphs.navigation`: S the edges and W the numbers of
paths for uniform paths, S the walk and W the hitting probabilities for the conditioned walk),
$$\log p(v | u, g) = \log S_{uv} + \log W_{vg} + \text{a constant of } (u, g):$$
a term of the current node plus a term of the goal. Attention need only bring the goal to the current node.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lab.domains.graphs import navigation as exact
from lab.domains.graphs.navigation_prompts import Vocabulary
from lab.errors import LabError
from lab.models.transformer import Architecture, Transformer


def additive_navigator(
    adjacency: exact.Adjacency,
    maximum_length: int,
    walk: bool = False,
    log_zero: float = 60.0,
    score: float = 40.0,
    value: Float[Tensor, "node goal"] | None = None,
) -> Transformer:
    r"""One layer, one head, no MLP, no layer norm: the exact next-token law of ``g s x_1 ... g END``.

    The residual stream is (token one-hot, position one-hot, logits). Every token attends with weight 1/2 to position
    0, the goal g, and 1/2 to itself, the current node u. The value table of a token a is $2 \log W_{\cdot a}$, so the
    head adds $\log W_{vg} + \log W_{vu}$; the read-out of the token itself adds $\log S_{uv} - \log W_{vu}$, which the
    skip connection delivers. $\log 0$ is $-\Lambda$, and END has the constant logit $-\Lambda / 2$: below every step
    along a path to the goal, above all others, so that it wins exactly where no such step exists, at u = g.

    Args:
        adjacency: an acyclic graph.
        maximum_length: positions T of the model.
        walk: the conditioned walk's law instead of the uniform law on paths.
        log_zero: Lambda. The error in a probability is at most about (nodes) (largest W) e^{-Lambda/2}.
        score: attention score of the two positions over the others, which keep a weight e^{-score}.
        value: a table to use in place of W (to see what another reading of the goal table would do).

    Raises:
        LabError: a cycle, or so many paths that log W exceeds Lambda / 2.
    """
    nodes = len(adjacency)
    step = exact.uniform_walk(adjacency) if walk else adjacency.double()
    if value is None:
        value = exact.hitting_probabilities(adjacency) if walk else exact.path_counts(adjacency)
    if float(value.max()) > 0 and float(value.max().log()) >= log_zero / 2:
        raise LabError(
            f"log_zero = {log_zero} must exceed twice the largest log count {float(value.max().log()):.3g}; raise it."
        )

    def log(table: Tensor) -> Tensor:
        return torch.where(table > 0, table.clamp(min=1e-300).log(), -log_zero)

    size, words = Vocabulary(nodes).size, Vocabulary(nodes)
    head = max(size, maximum_length)
    token = slice(0, size)
    place = slice(size, size + maximum_length)
    logits = slice(size + maximum_length, 2 * size + maximum_length)
    width = 2 * size + maximum_length
    zeros = torch.zeros
    embedding = zeros(size, width, dtype=torch.float64)
    embedding[:, token] = torch.eye(size)
    positions = zeros(maximum_length, width, dtype=torch.float64)
    positions[:, place] = torch.eye(maximum_length)
    query = zeros(width, head, dtype=torch.float64)
    query[place, :maximum_length] = score * head**0.5 * torch.eye(maximum_length, dtype=torch.float64)
    query[place, 0] = score * head**0.5
    key = zeros(width, head, dtype=torch.float64)
    key[place, :maximum_length] = torch.eye(maximum_length, dtype=torch.float64)
    goal_table = log(value)  # [v, g]
    values = zeros(width, head, dtype=torch.float64)
    values[:nodes, :nodes] = 2 * goal_table.T
    output = zeros(head, width, dtype=torch.float64)
    output[:size, logits] = torch.eye(size, dtype=torch.float64)
    read_out = zeros(width, size, dtype=torch.float64)
    read_out[logits] = torch.eye(size, dtype=torch.float64)
    read_out[:nodes, :nodes] = log(step) - goal_table.T
    bias = torch.full((size,), -4 * log_zero, dtype=torch.float64)  # the signs are never written
    bias[:nodes] = 0.0
    bias[words.end] = -log_zero / 2
    architecture = Architecture(
        width=width,
        layers=1,
        heads=1,
        head_size=head,
        vocabulary=size,
        output_size=size,
        mlp_ratio=0.0,
        norm="none",
        bias=False,
        output_bias=True,
        positions="learned",
        maximum_length=maximum_length,
    )
    return Transformer.from_weights(
        architecture,
        {
            "embedding": embedding,
            "positions": positions,
            "layers.0.attention.query.weight": query,
            "layers.0.attention.key.weight": key,
            "layers.0.attention.value.weight": values,
            "layers.0.attention.output.weight": output,
            "read_out.weight": read_out,
            "read_out.bias": bias,
        },
    )
