r"""Path-star graphs: d disjoint arms that leave one centre, and the task of naming the arm that ends in a goal.

A graph of G(d, l, N) has a start node and d arms of l nodes each, start included, so d (l - 1) edges and
M = d (l - 1) + 1 different labels out of N. The prompt lists the edges in random order, then the goal (the leaf of
one arm) and the start; the answer is that arm, read from start to goal. With edges (u_i, v_i) and the arm
n_0 = start, n_1, ..., n_{l-1} = goal, the sequences read

    authors    u_1 v_1 | u_2 v_2 | ... | u_m v_m / n_0 n_{l-1} = n_0 n_1 ... n_{l-1}
    compact    (u_1 v_1) (u_2 v_2) ... (u_m v_m) n_{l-1} n_0 n_1 ... n_{l-1}

The compact form has one token for an edge, and its start node plays two roles: it ends the prompt and begins the
answer. An answer that is read from the goal to the start begins with the goal; the authors' prompt stays as it is, the compact
one then ends n_0 n_{l-1}. Authors' ids are the N labels, then "|", "=", "/" and "$". Compact ids are the N labels, "$", and
N + 1 + N u + v for the edge (u, v). "$" is the blank that hides an answer (`hide_answer`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lab import contracts
from lab.errors import LabError
from lab.streams import RandomStream

Format = Literal["compact", "authors"]
Order = Literal["forward", "reversed"]
NO_TARGET = -1


@dataclass(frozen=True)
class PathStars:
    """Path-star graphs.

    Attributes:
        arms: labels along each arm, start first; arm 0 is the one that leads to the goal.
        edges: (u, v) directed away from the start, in the order of the prompt.
    """

    arms: Int[Tensor, "batch arm node"]
    edges: Int[Tensor, "batch edge 2"]

    @property
    def path(self) -> Int[Tensor, "batch node"]:
        """The answer n_0 ... n_{l-1}."""
        return self.arms[:, 0]


@dataclass(frozen=True)
class Sequences:
    """Path-star graphs written as tokens.

    Attributes:
        tokens: prompt and answer.
        targets: the token that follows each position, where it belongs to the answer; -1 elsewhere.
        loss_mask: where there is a target.
        prefix_length: tokens of the prompt (the last one predicts the first target): all that a prefix pattern
            may read both ways.
    """

    tokens: Int[Tensor, "batch time"]
    targets: Int[Tensor, "batch time"]
    loss_mask: Bool[Tensor, "batch time"]
    prefix_length: Int[Tensor, " batch"]


def check_sizes(arms: int, length: int, labels: int) -> None:
    """Raises LabError unless d = ``arms`` >= 1 arms of l = ``length`` >= 2 nodes fit into N = ``labels`` labels."""
    if arms < 1 or length < 2:
        raise LabError(
            f"A path-star of {arms} arms of {length} nodes needs at least 1 arm of 2 nodes; raise the smaller one."
        )
    nodes = arms * (length - 1) + 1
    if labels < nodes:
        raise LabError(
            f"A path-star of {arms} arms of {length} nodes has {nodes} nodes but there are only {labels} labels; "
            f"give at least {nodes} labels, or fewer or shorter arms."
        )


@contracts.generator(arms=3, length=4, labels=12)
def path_star(stream: RandomStream, batch: int, *, arms: int, length: int, labels: int) -> PathStars:
    """Graphs of G(d, l, N), labels and the order of the edges uniform.

    Args:
        stream: randomness; fields "labels" and "order".
        batch: number of graphs.
        arms: d, number of arms.
        length: l, nodes of an arm, start included.
        labels: N.

    Raises:
        LabError: no arm, an arm without an edge, or fewer labels than nodes.
    """
    check_sizes(arms, length, labels)
    edges = arms * (length - 1)
    # The ranks of independent uniform numbers are a uniform permutation, for all graphs at once.
    chosen = stream.child("labels").rng().random((batch, labels)).argsort(axis=1)[:, : edges + 1]
    order = stream.child("order").rng().random((batch, edges)).argsort(axis=1)
    start = np.broadcast_to(chosen[:, :1, None], (batch, arms, 1))
    nodes = np.concatenate([start, chosen[:, 1:].reshape(batch, arms, length - 1)], axis=2)
    pairs = np.stack([nodes[:, :, :-1], nodes[:, :, 1:]], axis=-1).reshape(batch, edges, 2)
    shuffled = np.take_along_axis(pairs, order[:, :, None], axis=1)
    return PathStars(torch.from_numpy(nodes), torch.from_numpy(shuffled))


def sample_from_pool(pool: PathStars, stream: RandomStream, batch: int) -> PathStars:
    """``batch`` graphs drawn with replacement from a fixed set of graphs.

    Raises:
        LabError: an empty pool.
    """
    size = len(pool.arms)
    if size < 1:
        raise LabError("A pool of 0 graphs has none to draw; give a pool of at least 1 graph.")
    rows = torch.from_numpy(stream.child("rows").rng().integers(0, size, batch))
    return PathStars(pool.arms[rows], pool.edges[rows])


def vocabulary_size(labels: int, format: str) -> int:
    """Number of token ids: N + 4 (authors) or N + 1 + N^2 (compact)."""
    return labels + 4 if format == "authors" else labels + 1 + labels**2


def blank(labels: int, format: str) -> int:
    """Id of the token "$" that stands for a hidden answer: N + 3 (authors) or N (compact)."""
    return labels + 3 if format == "authors" else labels


def write(graphs: PathStars, labels: int, *, format: str, order: str = "forward") -> Sequences:
    """Graphs as tokens; ``reversed`` reads the arm from goal to start.

    The authors' prompt is the same in both directions. The compact prompt ends in the first node of the answer, so that
    start and goal change places there.

    Args:
        graphs: the graphs.
        labels: N.
        format: "compact", with l - 1 targets, or "authors", with l targets (the first one a copy).
        order: direction of the answer.

    Raises:
        LabError: an unknown format or order, or a label outside 0 .. N - 1.
    """
    for name, value, known in (("format", format, get_args(Format)), ("order", order, get_args(Order))):
        if value not in known:
            raise LabError(f"The {name} {value!r} is not one of {', '.join(known)}; choose one.")
    largest = int(graphs.arms.max())
    if largest >= labels or int(graphs.arms.min()) < 0:
        raise LabError(
            f"Labels run from {int(graphs.arms.min())} to {largest} but must lie between 0 and {labels - 1}; "
            "raise the number of labels."
        )
    batch = len(graphs.arms)
    answer = graphs.path if order == "forward" else graphs.path.flip(1)
    source, target = graphs.edges.unbind(-1)
    if format == "compact":
        prompt = torch.cat([labels + 1 + labels * source + target, answer[:, -1:]], dim=1)
        unscored = 1
    else:
        bar, equals, slash = (graphs.path.new_full((batch, 1), labels + sign) for sign in range(3))
        listed = torch.stack([source, target, bar.expand_as(source)], dim=-1).flatten(1)[:, :-1]
        ends = graphs.path[:, [0, -1]]  # start and goal keep their places, whichever way the answer is read
        prompt = torch.cat([listed, slash, ends, equals], dim=1)
        unscored = 0
    tokens = torch.cat([prompt, answer], dim=1)
    prefix = prompt.shape[1] + unscored
    targets = torch.cat([tokens[:, 1:], torch.full_like(tokens[:, :1], NO_TARGET)], dim=1)
    targets[:, : prefix - 1] = NO_TARGET
    return Sequences(tokens, targets, targets != NO_TARGET, torch.full((batch,), prefix))


def hide_answer(sequences: Sequences, token: int) -> Sequences:
    """Teacherless sequences: the same targets, every token after the prompt replaced by ``token``."""
    position = torch.arange(sequences.tokens.shape[1])
    hidden = torch.where(position >= sequences.prefix_length[:, None], token, sequences.tokens)
    return Sequences(hidden, sequences.targets, sequences.loss_mask, sequences.prefix_length)


def look_ahead(targets: Int[Tensor, "*batch time"], heads: int) -> Int[Tensor, "*batch time {heads}"]:
    """Targets of several prediction heads: head h at position t predicts targets[t + h], -1 past the end.

    Positions without a target of their own have none from any head.
    """
    time = targets.shape[-1]
    padded = F.pad(targets, (0, heads - 1), value=NO_TARGET)
    ahead = torch.stack([padded[..., head : head + time] for head in range(heads)], dim=-1)
    return torch.where((targets == NO_TARGET).unsqueeze(-1), NO_TARGET, ahead)


def feature_count(labels: int, length: int) -> int:
    """Size of the tokens of `features`: 2 N + 1 + l + 1."""
    return 2 * labels + length + 2


@lru_cache
def _fields(labels: int) -> Float[Tensor, "token field"]:
    """Row of each compact token: one-hot source, one-hot target, blank; a node is its own source and target."""
    rows = torch.zeros(vocabulary_size(labels, "compact"), 2 * labels + 1)
    node, edge = torch.arange(labels), torch.arange(labels**2)
    rows[node, node] = rows[node, labels + node] = 1.0
    rows[labels, 2 * labels] = 1.0
    rows[labels + 1 + edge, edge // labels] = 1.0
    rows[labels + 1 + edge, labels + edge % labels] = 1.0
    return rows


def features(
    tokens: Int[Tensor, "*batch time"], *, labels: int, edges: int, length: int
) -> Float[Tensor, "*batch time 2*{labels}+{length}+2"]:
    """Compact tokens as sums of one-hot vectors: (source, target, blank, place), float32.

    A linear map of these holds two tables U and V: an edge (u, v) is embedded as U[u] + V[v], a node n as
    U[n] + V[n] plus a vector of its place. Places are counted from the first token after the edges, 0 .. l; edges
    have none, so that their order carries nothing.

    Args:
        tokens: compact ids.
        labels: N.
        edges: m, number of edges at the beginning of each sequence.
        length: l.

    Raises:
        LabError: a token outside the vocabulary, or more tokens than the edges and the l + 1 places after them.
    """
    vocabulary, time = vocabulary_size(labels, "compact"), tokens.shape[-1]
    if tokens.numel() and not (0 <= int(tokens.min()) and int(tokens.max()) < vocabulary):
        raise LabError(
            f"Tokens run from {int(tokens.min())} to {int(tokens.max())} but the vocabulary of {labels} labels "
            f"ends at {vocabulary - 1}; encode them again."
        )
    if time > edges + length + 1:
        raise LabError(
            f"{time} tokens exceed the {edges + length + 1} positions of {edges} edges and arms of {length} nodes; "
            "shorten them."
        )
    place = torch.zeros(time, length + 1, device=tokens.device)
    after = torch.arange(edges, time)
    place[after, after - edges] = 1.0
    rows = F.embedding(tokens, _fields(labels).to(tokens.device))
    return torch.cat([rows, place.expand(*tokens.shape, -1)], dim=-1)
