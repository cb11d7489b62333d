r"""Path-star graphs without learning: the cheat, the planner, and what accuracy and loss each of them has.

The *cheat* answers every step by one look-up, the children of the node just written. Only the start has more than
one child, so on an arm of a graph of G(d, l, N)

    accuracy of each teacher-forced step      1/d, 1, ..., 1
    mean loss of the l - 1 steps              ln d / (l - 1)
    probability of the right arm              1/d, whatever l

The *planner* walks back l - 2 steps from the goal, which names the first step. The *snowball* is the explanation
that the cheat is not: independent errors with probability e at each of L steps leave (1 - e)^L right answers.

The first step is a *parity* of the levels of edges between the children of the start and the leaves: fewer than l - 2 of
these edges say nothing about it, l - 2 can settle it (`largest_credit`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from lab import contracts
from lab.errors import LabError

Order = Literal["forward", "reversed"]
TokenPredictor = Callable[[Int[Tensor, "batch time"], Int[Tensor, " batch"]], Float[Tensor, "batch time token"]]


def teacher_forced_accuracy(arms: int, length: int) -> Float[Tensor, " step"]:
    """(1/d, 1, ..., 1): probability that the cheat names each of the l - 1 nodes after the start, given the others.

    Raises:
        LabError: less than 1 arm, or arms of less than 2 nodes.
    """
    _check(arms, length)
    accuracy = torch.ones(length - 1, dtype=torch.float64)
    accuracy[0] = 1 / arms
    return accuracy


def cheat_loss(arms: int, length: int, *, copied_start: bool = False) -> float:
    """ln d / (l - 1), the cheat's mean loss in nats; ln d / l where the start is a target too (a free copy)."""
    _check(arms, length)
    return math.log(arms) / (length if copied_start else length - 1)


def snowball(error: Float[Tensor, "*shape"], steps: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """(1 - e)^L: probability that L = ``steps`` independent steps of error probability e are all right."""
    return (1 - error) ** steps


def cheat_as_snowball(arms: Int[Tensor, "*shape"], length: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    r"""(1 - e)^(l-1) with e = (1 - 1/d) / (l - 1), the cheat's mean error of a teacher-forced step.

    What the accuracy would be if the errors of the cheat were spread evenly and independent: it grows from 1/d
    at l = 2 to exp(-(1 - 1/d)), while the true accuracy stays 1/d.
    """
    steps = length - 1
    return snowball((1 - 1 / arms.double()) / steps, steps)


def one_pass_true_arm(arms: int, length: int, together: int | None = None) -> float:
    """d^-(b-1): probability of a true arm when its first b nodes are drawn independently and the rest one by one.

    The target is a uniformly random arm (no goal is given), so the marginal of each step is uniform over the d
    nodes at that distance; the first one is free and b - 1 others must fit it. What follows is the only child of the
    node before it. Without ``together``, b is l - 1: all nodes in one pass.

    Raises:
        LabError: no arm, arms of less than 2 nodes, or a number of nodes outside 1 .. l - 1.
    """
    _check(arms, length)
    block = length - 1 if together is None else together
    if not 1 <= block <= length - 1:
        raise LabError(f"{block} nodes cannot be drawn together; name a number between 1 and {length - 1}.")
    return float(arms) ** (1 - block)


def largest_credit(arms: int, length: int, read: int) -> float:
    """What ``read`` edges below the children of the start can tell about the first step, given goal and children.

    The largest |P(first step = a | edges) - 1/d| over edges and children a: 0 for fewer than l - 2 edges, 1 - 1/d from
    there on. Fewer leave some level of edges untouched; cutting two arms there and exchanging what hangs below maps
    the graphs whose goal is under one child to those whose goal is under the other, the edges that were read included.
    With l - 2 edges one can have read the goal's arm.

    Raises:
        LabError: fewer than 2 arms, arms of less than 3 nodes, or a number of edges that is not to be had.
    """
    _check_credit(arms, length, read)
    return 0.0 if read < length - 2 else 1 - 1 / arms


def counted_credit(arms: int, length: int, read: int) -> float:
    """`largest_credit` by counting all graphs with given start, goal and children, equally likely.

    Raises:
        LabError: as `largest_credit`.
    """
    _check_credit(arms, length, read)
    children, goal = range(arms), -1
    remaining_labels = range(arms, arms * (length - 1) - 1)
    counts: dict[tuple[tuple[int, int], ...], list[int]] = {}
    for first in children:
        for order in itertools.permutations(remaining_labels):
            # The goal's arm needs one label fewer than the others, as its leaf is known.
            tails = [order[: length - 3] + (goal,)]
            tails += [order[begin : begin + length - 2] for begin in range(length - 3, len(order), length - 2)]
            tops = [first, *(child for child in children if child != first)]
            edges = sorted(
                edge for top, tail in zip(tops, tails, strict=True) for edge in itertools.pairwise((top, *tail))
            )
            for chosen in itertools.combinations(edges, read):
                counts.setdefault(chosen, [0] * arms)[first] += 1
    return max(abs(count / sum(tally) - 1 / arms) for tally in counts.values() for count in tally)


def with_errors(predictor: TokenPredictor, labels: int, error: float) -> TokenPredictor:
    """A predictor that answers as another one does, but with probability e by one of the N - 1 labels it did not choose.

    p becomes (1 - e) p + e (1 - p) / (N - 1), so that a certain answer is given with probability 1 - e.

    Raises:
        LabError: a probability outside [0, 1].
    """
    if not 0 <= error <= 1:
        raise LabError(f"The probability of an error is {error:g} but must lie between 0 and 1.")

    def predict(tokens: Tensor, prefix_length: Tensor) -> Tensor:
        law = predictor(tokens, prefix_length).exp()
        mixed = law.clone()
        mixed[..., :labels] = (1 - error) * law[..., :labels] + error * (1 - law[..., :labels]) / (labels - 1)
        return mixed.log()

    return predict


def step_marginals(nodes: Int[Tensor, "batch arm node"], labels: int) -> Float[Tensor, "batch node-1 label"]:
    """Exact law of each node after the start when the answer is a uniformly random arm."""
    return F.one_hot(nodes[:, :, 1:], labels).double().mean(1)


def next_nodes(
    edges: Int[Tensor, "batch edge 2"], node: Int[Tensor, "batch step"], labels: int, order: Order = "forward"
) -> Float[Tensor, "batch step {labels}"]:
    """Uniform law on the children of each node (on its parents if ``reversed``), on all labels if it has none.

    Edges (-1, -1) stand for none.
    """
    source, target = edges.unbind(-1) if order == "forward" else edges.flip(-1).unbind(-1)
    follows = (source.unsqueeze(1) == node.unsqueeze(2)).double() @ F.one_hot(target.clamp(min=0), labels).double()
    total = follows.sum(-1, keepdim=True)
    return torch.where(total > 0, follows / total.clamp(min=1.0), 1 / labels)


def walk_back(
    edges: Int[Tensor, "batch edge 2"], goal: Int[Tensor, " batch"], labels: int, hops: int
) -> Int[Tensor, " batch"]:
    """The node ``hops`` steps before the goal."""
    node = goal.unsqueeze(1)
    for _ in range(hops):
        node = next_nodes(edges, node, labels, "reversed").argmax(-1)
    return node.squeeze(1)


@contracts.token_predictor(vocabulary=43)
def cheat(*, vocabulary: int, order: Order = "forward") -> TokenPredictor:
    """The look-up of the next node (of the previous one, if ``reversed``) as a predictor of compact sequences.

    Args:
        vocabulary: N + 1 + N^2, number of compact ids.
        order: direction in which the answer is written.

    Raises:
        LabError: a vocabulary that is not of this form; when asked, a token outside it.
    """
    labels = _labels(vocabulary)

    def predict(tokens: Tensor, prefix_length: Tensor) -> Tensor:
        edges = _edges(tokens, prefix_length, labels, vocabulary)
        law = next_nodes(edges, tokens.where(tokens < labels, labels), labels, order)
        return _log_probabilities(law, vocabulary)

    return predict


@contracts.token_predictor(vocabulary=43, path_nodes=4)
def planner(*, vocabulary: int, path_nodes: int) -> TokenPredictor:
    """The exact answer of compact forward sequences: the first step by walking back from the goal, then look-ups.

    Args:
        vocabulary: N + 1 + N^2, number of compact ids.
        path_nodes: l, nodes of an arm, start included.

    Raises:
        LabError: a vocabulary that is not of this form, arms of less than 2 nodes; when asked, a token outside it.
    """
    _check(1, path_nodes)
    labels = _labels(vocabulary)

    def predict(tokens: Tensor, prefix_length: Tensor) -> Tensor:
        edges = _edges(tokens, prefix_length, labels, vocabulary)
        law = next_nodes(edges, tokens.where(tokens < labels, labels), labels)
        start = (prefix_length - 1).unsqueeze(1)
        goal = tokens.gather(1, start - 1).squeeze(1)
        known = F.one_hot(walk_back(edges, goal.clamp(max=labels - 1), labels, path_nodes - 2), labels).to(law)
        at_start = torch.arange(tokens.shape[1], device=tokens.device) == start
        return _log_probabilities(torch.where(at_start.unsqueeze(2), known.unsqueeze(1), law), vocabulary)

    return predict


def _check(arms: int, length: int) -> None:
    if arms < 1 or length < 2:
        raise LabError(
            f"A path-star of {arms} arms of {length} nodes needs at least 1 arm of 2 nodes; raise the smaller one."
        )


def _check_credit(arms: int, length: int, read: int) -> None:
    _check(arms, length)
    edges = arms * (length - 2)
    if arms < 2 or length < 3 or not 0 <= read <= edges:
        raise LabError(
            f"{read} of the {edges} edges below the children of {arms} arms of {length} nodes are no question about the "
            "first step; it needs 2 arms, 3 nodes and a number of edges that there are."
        )


def _labels(vocabulary: int) -> int:
    labels = (math.isqrt(max(4 * vocabulary - 3, 1)) - 1) // 2
    if labels < 1 or labels * labels + labels + 1 != vocabulary:
        raise LabError(
            f"A compact vocabulary has N + 1 + N^2 tokens for N labels, not {vocabulary}; give such a number."
        )
    return labels


def _edges(tokens: Tensor, prefix_length: Tensor, labels: int, vocabulary: int) -> Int[Tensor, "batch edge 2"]:
    """The edges of the prompt; (-1, -1) for positions that hold none."""
    if tokens.numel() and not (0 <= int(tokens.min()) and int(tokens.max()) < vocabulary):
        raise LabError(
            f"Tokens run from {int(tokens.min())} to {int(tokens.max())} but the vocabulary ends at "
            f"{vocabulary - 1}; encode them again."
        )
    shown = torch.arange(tokens.shape[1], device=tokens.device) < prefix_length.unsqueeze(1)
    pair = tokens - labels - 1
    real = shown & (pair >= 0)
    source, target = torch.where(real, pair // labels, -1), torch.where(real, pair % labels, -1)
    return torch.stack([source, target], dim=-1)


def _log_probabilities(law: Tensor, vocabulary: int) -> Float[Tensor, "batch time token"]:
    return F.pad(law, (0, vocabulary - law.shape[-1])).log()
