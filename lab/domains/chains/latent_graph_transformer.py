r"""Weights that predict on a known causal graph: copy each node's parents, compare with the query, average the matches.

Layer 1: every node attends to its parents, one head for each. Layer 2: the query compares its own symbols with
the copies; matching nodes are averaged. The same circuit is loaded into the disentangled transformer and into
the ordinary one. Its output is the law itself, not its logarithm. (Nichani, Damian, Lee 2024, Construction 3.1
and section 6; stated there for one parent and for k.)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lab.domains.chains.latent_graph_prompts import ROOT, check_forest, check_several_parents
from lab.errors import LabError
from lab.models.disentangled import Disentangled, widths
from lab.models.transformer import Architecture, Transformer

Rows = Sequence[Sequence[int]]


def single_parent(
    parents: Sequence[int], states: int, sharpness: float, focus: float, silent: Sequence[int] = ()
) -> Disentangled:
    r"""One head a layer: $f = \sum_i w_i e_{x_i}$, $w = \mathrm{softmax}(\beta z)$, as ``focus`` grows.

    $z_i = 1\{x_{p(i)} = s\}$ for a node with a parent, s the test token. Roots and the test token attend evenly
    in layer 1, so their z is the share of s among the tokens up to them.

    Args:
        parents: forest of the context.
        states: S.
        sharpness: $\beta$.
        focus: logit of the parent in layer 1, the others being 0.
        silent: nodes that layer 2 must not read (by the same logit, below any match).

    Raises:
        LabError: a graph that is no forest; see `check_forest`.
    """
    rows = _forest_rows(parents)
    return _disentangled(rows, 1, states, sharpness, focus, silent, copies_ask=False)


def single_parent_transformer(
    parents: Sequence[int], states: int, sharpness: float, focus: float, silent: Sequence[int] = ()
) -> Transformer:
    """`single_parent` in the ordinary transformer; its output at the last token is f."""
    rows = _forest_rows(parents)
    return _transformer(rows, 1, states, sharpness, focus, silent, copies_ask=False)


def several_parents(
    graph: Rows, states: int, sharpness: float, focus: float, silent: Sequence[int] | None = None
) -> Disentangled:
    r"""k heads, then one: $w = \mathrm{softmax}(\beta \sum_h 1\{\text{parent } h \text{ matches}\})$ over nodes with parents.

    Head h of node i attends to its parent h. The *last row attends to the parents of the token to be predicted*,
    so that its copies are what the others are compared with. It matches itself, and roots match by chance:
    layer 2 must not read them.

    Args:
        graph: T + 1 nodes, the last one to be predicted; see `check_several_parents`.
        silent: nodes that layer 2 must not read; None: the last row and all roots.
    """
    heads = check_several_parents(graph)
    rows = [*graph[:-2], graph[-1]]
    return _disentangled(rows, heads, states, sharpness, focus, _silent(graph, silent), copies_ask=True)


def several_parents_transformer(
    graph: Rows, states: int, sharpness: float, focus: float, silent: Sequence[int] | None = None
) -> Transformer:
    """`several_parents` in the ordinary transformer; its output at the last token is f."""
    heads = check_several_parents(graph)
    rows = [*graph[:-2], graph[-1]]
    return _transformer(rows, heads, states, sharpness, focus, _silent(graph, silent), copies_ask=True)


def _silent(graph: Rows, silent: Sequence[int] | None) -> Sequence[int]:
    if silent is not None:
        return silent
    return [node for node in range(len(graph) - 1) if not graph[node] or node == len(graph) - 2]


def _forest_rows(parents: Sequence[int]) -> Rows:
    """Whom each token attends to: a child its parent, a root and the test token nobody in particular."""
    return [() if parent == ROOT else (parent,) for parent in check_forest(parents)] + [()]


def _targets(rows: Rows, heads: int) -> Float[Tensor, "{heads} tokens tokens"]:
    """1 where head h of token i should look; a row of zeros attends evenly."""
    targets = torch.zeros(heads, len(rows), len(rows), dtype=torch.float64)
    for token, places in enumerate(rows):
        for head, place in enumerate(places):
            targets[head, token, place] = 1
    return targets


def _check_sharpness(sharpness: float, focus: float) -> None:
    if not (0 <= sharpness < float("inf") and 0 < focus < float("inf")):
        raise LabError(
            f"sharpness = {sharpness} and focus = {focus} must be at least 0 and positive, both finite; please change them"
        )


def _disentangled(
    rows: Rows, heads: int, states: int, sharpness: float, focus: float, silent: Sequence[int], copies_ask: bool
) -> Disentangled:
    _check_sharpness(sharpness, focus)
    length = len(rows)
    size, middle, final = widths(states, length, [heads, 1])
    first = torch.zeros(heads, size, size, dtype=torch.float64)
    first[:, states:, states:] = focus * _targets(rows, heads)
    second = torch.zeros(middle, middle, dtype=torch.float64)
    for head in range(heads):
        copy = slice(size * (head + 1), size * (head + 1) + states)
        second[copy if copies_ask else slice(0, states), copy] = sharpness * torch.eye(states, dtype=torch.float64)
    # No match outweighs silence.
    second[states + length - 1, [states + node for node in silent]] = -(focus + heads * sharpness)
    readout = torch.zeros(final, states, dtype=torch.float64)
    readout[middle : middle + states] = torch.eye(states)
    return Disentangled([first[None], second[None, None]], readout[None])


def _transformer(
    rows: Rows, heads: int, states: int, sharpness: float, focus: float, silent: Sequence[int], copies_ask: bool
) -> Transformer:
    """The stream holds symbol, position, a copy of a symbol for each head, and the output, side by side."""
    _check_sharpness(sharpness, focus)
    length = len(rows)
    # A head must hold a position in layer 1, and all copies with one number for silence in layer 2.
    head_size = max(length, heads * states + 1)
    symbol, place = slice(0, states), slice(states, states + length)
    copies = slice(place.stop, place.stop + heads * states)
    output = slice(copies.stop, copies.stop + states)
    width = output.stop
    scale = head_size**0.5  # undoes the division of scores by it
    alphabet = torch.eye(states, dtype=torch.float64)

    def empty() -> Tensor:
        return torch.zeros(width, heads * head_size, dtype=torch.float64)

    weights = {
        "embedding": torch.eye(states, width, dtype=torch.float64),
        "positions": torch.eye(width, dtype=torch.float64)[place],
        "read_out.weight": torch.eye(width, dtype=torch.float64)[:, output],
    }
    query, key, value, out = empty(), empty(), empty(), empty().T.contiguous()
    for head, target in enumerate(_targets(rows, heads)):
        start = head * head_size
        query[place, start : start + length] = scale * focus * target
        key[place, start : start + length] = torch.eye(length, dtype=torch.float64)
        value[symbol, start : start + states] = alphabet
        slot = copies.start + head * states
        out[start : start + states, slot : slot + states] = alphabet
    weights |= _named(0, query, key, value, out)

    query, key, value, out = empty(), empty(), empty(), empty().T.contiguous()
    compared = heads * states
    if copies_ask:
        query[copies, :compared] = scale * sharpness * torch.eye(compared, dtype=torch.float64)
    else:
        query[symbol, :states] = scale * sharpness * alphabet
    key[copies, :compared] = torch.eye(compared, dtype=torch.float64)
    query[place.stop - 1, compared] = scale
    key[[states + node for node in silent], compared] = -(focus + heads * sharpness)
    value[symbol, :states] = alphabet
    out[:states, output] = alphabet
    weights |= _named(1, query, key, value, out)

    architecture = Architecture(
        width=width,
        layers=2,
        heads=heads,
        head_size=head_size,
        vocabulary=states,
        output_size=states,
        mlp_ratio=0,
        norm="none",
        bias=False,
        positions="learned",
        maximum_length=length,
    )
    return Transformer.from_weights(architecture, weights)


def _named(layer: int, query: Tensor, key: Tensor, value: Tensor, output: Tensor) -> dict[str, Tensor]:
    matrices = {"query": query, "key": key, "value": value, "output": output}
    return {f"layers.{layer}.attention.{name}.weight": matrix for name, matrix in matrices.items()}
