r"""Explicit weights that read a path-star graph by attention: the cheat, its mirror image, and the planner.

Tokens are the features of `lab.domains.graphs.path_star_prompts`: one-hot source s, one-hot target t, blank, one-hot place
(places count from the first token after the edges: goal, start, answer; edges have none). All heads look up edges
in the same way. The query holds the label asked for, the key the label that an edge is filed under, and the score
is beta where they agree and 0 where not; tokens that are no edges are put 2 beta lower by their places. Hence

    a head's value at edge e    softmax(beta [label_e = label asked]),    wrong by at most (tokens) e^-beta

    `forward_lookup`     1 layer       filed under u, value v: the children of the current node
    `backward_lookup`    1 layer       filed under v, value u: its parent
    `path_planner`       l - 1 layers  l - 2 backward look-ups in a row at the goal, then one copy to the answer

Softmax attention, no layer norm, no MLP, float64. Logits are gamma times the looked-up law, so that equally likely
labels stay equally likely and all others have probability e^(-gamma/d).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lab.domains.graphs.path_star_prompts import feature_count, features, vocabulary_size
from lab.errors import LabError
from lab.models.masks import causal, prefix_lm
from lab.models.transformer import Architecture, Transformer

SCORE = 60.0  # beta: e^-60 = 9e-27 is far below the rounding error of float64
SHARPNESS = 8 * SCORE  # gamma: the same for the logits of up to d = 8 equally likely labels


class _Layout:
    """Where the fields stand in the residual stream, and unit matrices between them."""

    def __init__(self, labels: int, length: int, scratch: int) -> None:
        self.labels, self.read = labels, feature_count(labels, length)
        self.width = self.read + scratch * labels
        self.source, self.target = slice(0, labels), slice(labels, 2 * labels)
        self.places = slice(2 * labels + 1, self.read)
        self.first_place = 2 * labels + 1
        self.head = labels + 1  # one dimension for each label, one that tells edges from other tokens

    def scratch(self, number: int) -> slice:
        """The n-th field of one number a label that no token fills."""
        start = self.read + number * self.labels
        return slice(start, start + self.labels)


def forward_lookup(labels: int, length: int, *, score: float = SCORE, sharpness: float = SHARPNESS) -> Transformer:
    """One layer, one head: the law of the next node is uniform on the children of the current one.

    Args:
        labels: N.
        length: l, nodes of an arm, start included.
        score: beta.
        sharpness: gamma.
    """
    return _one_lookup(labels, length, score, sharpness, backward=False)


def backward_lookup(labels: int, length: int, *, score: float = SCORE, sharpness: float = SHARPNESS) -> Transformer:
    """One layer, one head: the law of the next node is all on the parent of the current one (`forward_lookup`)."""
    return _one_lookup(labels, length, score, sharpness, backward=True)


def path_planner(
    labels: int, length: int, *, hops: int | None = None, score: float = SCORE, sharpness: float = SHARPNESS
) -> Transformer:
    """l - 1 layers of two heads: the exact answer, forward.

    Layer j <= l - 2, first head: the goal token fetches the parent of what it fetched in layer j - 1. Layer 1,
    second head: every node of the answer fetches its children, with weight 2. Layer l - 1, first head: every node
    of the answer copies what the goal has found, with weight 1, which decides between the children of the start
    and cannot outweigh the only child of any other node.

    Args:
        labels: N.
        length: l, nodes of an arm, start included.
        hops: backward look-ups; None is l - 2, the number that is needed.
        score: beta.
        sharpness: gamma.

    Raises:
        LabError: a negative number of hops.
    """
    hops = length - 2 if hops is None else hops
    if hops < 0:
        raise LabError(
            f"{hops} hops back from the goal must be at least 0; use arms of at least 2 nodes, or more hops."
        )
    layout = _Layout(labels, length, hops + 1)
    answer, fetched = layout.scratch(hops), layout.target if hops == 0 else layout.scratch(hops - 1)
    weights: dict[str, Tensor] = {"read_in.weight": torch.eye(layout.read, layout.width, dtype=torch.float64)}
    for layer in range(hops + 1):
        heads = [_nothing(layout), _nothing(layout)]
        if layer < hops:
            query = layout.target if layer == 0 else layout.scratch(layer - 1)
            heads[0] = _look_up(layout, query, layout.target, layout.source, layout.scratch(layer), 1.0, score)
        else:
            heads[0] = _copy_from_goal(layout, fetched, answer, score)
        if layer == 0:
            heads[1] = _look_up(layout, layout.source, layout.source, layout.target, answer, 2.0, score)
        weights |= _side_by_side(layer, heads)
    return _built(layout, labels, answer, hops + 1, 2, weights, sharpness)


def compact_predictor(
    module: Transformer, labels: int, length: int, *, prefix: bool = False
) -> Callable[[Int[Tensor, "batch time"], Int[Tensor, " batch"]], Float[Tensor, "model batch time token"]]:
    """An ensemble that reads features and writes logits of the N labels, as a predictor of compact sequences.

    Args:
        module: the ensemble; of its outputs the first N are used (further ones are heads that look ahead).
        labels: N.
        length: l, nodes of an arm, start included.
        prefix: whether the prompt may be read both ways.

    Raises:
        LabError: when asked: prompts of different lengths, a token outside the vocabulary, or more tokens than
            the model has places for.
    """

    def predict(tokens: Tensor, prefix_length: Tensor) -> Tensor:
        shortest, longest = int(prefix_length.min()), int(prefix_length.max())
        if shortest != longest or shortest < 2:
            raise LabError(
                f"The prompts have {shortest} to {longest} tokens but must all have the same number, at least 2; "
                "ask about one size of graph at a time."
            )
        x = features(tokens, labels=labels, edges=longest - 2, length=length)
        time = tokens.shape[1]
        mask = (prefix_lm(time, min(longest, time)) if prefix else causal(time)).to(x.device)
        with torch.no_grad():
            logits = module(x.to(next(module.parameters()).dtype).unsqueeze(0), mask)[..., :labels]
        rest = vocabulary_size(labels, "compact") - labels
        return torch.nn.functional.pad(logits.log_softmax(-1), (0, rest), value=-math.inf)

    return predict


def _one_lookup(labels: int, length: int, score: float, sharpness: float, backward: bool) -> Transformer:
    layout = _Layout(labels, length, 1)
    answer = layout.scratch(0)
    filed, value = (layout.target, layout.source) if backward else (layout.source, layout.target)
    head = _look_up(layout, layout.source, filed, value, answer, 1.0, score)
    weights = {"read_in.weight": torch.eye(layout.read, layout.width, dtype=torch.float64)}
    weights |= _side_by_side(0, [head])
    return _built(layout, labels, answer, 1, 1, weights, sharpness)


_Head = dict[str, Tensor]


def _nothing(layout: _Layout) -> _Head:
    shape = (layout.width, layout.head)
    parts = {name: torch.zeros(shape, dtype=torch.float64) for name in ("query", "key", "value")}
    return parts | {"output": torch.zeros(layout.head, layout.width, dtype=torch.float64)}


def _look_up(
    layout: _Layout, query: slice, filed: slice, value: slice, answer: slice, weight: float, score: float
) -> _Head:
    """Where a place is filled: the `value` fields of the edges whose `filed` label is the one in `query`."""
    head, n = _nothing(layout), layout.labels
    identity, scale = torch.eye(n, dtype=torch.float64), math.sqrt(layout.head)  # attention divides by sqrt(h)
    head["query"][query, :n] = score * scale * identity
    head["query"][layout.places, n] = 2 * score * scale
    head["key"][filed, :n] = identity
    head["key"][layout.places, n] = -1.0
    head["value"][value, :n] = identity
    head["output"][:n, answer] = weight * identity
    return head


def _copy_from_goal(layout: _Layout, fetched: slice, answer: slice, score: float) -> _Head:
    """Where a place is filled: the field `fetched` of the token in place 0."""
    head, n = _nothing(layout), layout.labels
    head["query"][layout.places, n] = score * math.sqrt(layout.head)
    head["key"][layout.first_place, n] = 1.0
    head["value"][fetched, :n] = torch.eye(n, dtype=torch.float64)
    head["output"][:n, answer] = torch.eye(n, dtype=torch.float64)
    return head


def _side_by_side(layer: int, heads: list[_Head]) -> dict[str, Tensor]:
    name = f"layers.{layer}.attention."
    joined = {
        f"{name}{part}.weight": torch.cat([head[part] for head in heads], dim=1) for part in ("query", "key", "value")
    }
    return joined | {f"{name}output.weight": torch.cat([head["output"] for head in heads], dim=0)}


def _built(
    layout: _Layout, labels: int, answer: slice, layers: int, heads: int, weights: dict[str, Tensor], sharpness: float
) -> Transformer:
    read_out = torch.zeros(layout.width, labels, dtype=torch.float64)
    read_out[answer] = sharpness * torch.eye(labels, dtype=torch.float64)
    architecture = Architecture(
        width=layout.width,
        layers=layers,
        heads=heads,
        head_size=layout.head,
        input_size=layout.read,
        output_size=labels,
        mlp_ratio=0.0,
        norm="none",
        bias=False,
    )
    return Transformer.from_weights(architecture, weights | {"read_out.weight": read_out})
