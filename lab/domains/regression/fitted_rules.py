"""Rules that fit a model to the examples of one prompt, for classes without a closed form: greedy trees, small networks.

They are the references of Garg et al. (2022) for decision trees and for two-layer networks, for all prompts of a batch at once.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lab.contracts import regression_predictor
from lab.errors import LabError
from lab.predictors import RegressionPredictor
from lab.streams import RandomStream


@regression_predictor(depth=2)
def greedy_tree(depth: int) -> RegressionPredictor:
    """A regression tree grown greedily (CART): each leaf is split where the squared error falls most, ``depth`` times over.

    Splits lie halfway between neighbouring examples of the leaf; of equally good ones the first coordinate wins. The answer is
    the mean label of the query's leaf, 0 without examples.

    Raises:
        LabError: a depth below 1, or above 12.
    """
    if not 1 <= depth <= 12:
        raise LabError(f"The depth {depth} of a greedy tree must be between 1 and 12; change it.")

    def predictor(x_context: Tensor, y_context: Tensor, x_query: Tensor) -> Tensor:
        examples = x_context.shape[1]
        if examples == 0:
            return x_query.new_zeros(x_query.shape[:2])
        leaf = torch.zeros_like(y_context, dtype=torch.long)
        query_leaf = torch.zeros(x_query.shape[:2], dtype=torch.long, device=x_query.device)
        for level in range(depth):
            threshold, coordinate = _best_splits(x_context, y_context, leaf, 2**level)
            leaf = 2 * leaf + _above(x_context, leaf, threshold, coordinate)
            query_leaf = 2 * query_leaf + _above(x_query, query_leaf, threshold, coordinate)
        member = torch.nn.functional.one_hot(leaf, 2**depth).to(y_context.dtype)
        means = (member.mT @ y_context[..., None])[..., 0] / member.sum(1).clamp(min=1)
        return means.gather(1, query_leaf)

    return predictor


def _above(x: Tensor, leaf: Tensor, threshold: Tensor, coordinate: Tensor) -> Tensor:
    """Whether each input [batch, n, d] goes to the upper side of the split of its leaf [batch, n]."""
    value = x.gather(2, coordinate.gather(1, leaf)[..., None])[..., 0]
    return (value > threshold.gather(1, leaf)).long()


def _best_splits(x: Tensor, y: Tensor, leaf: Tensor, leaves: int) -> tuple[Tensor, Tensor]:
    """Threshold and coordinate [batch, leaf] of the split that lowers the squared error most; infinity where none does."""
    batch, examples, dimension = x.shape
    # Candidate [coordinate, i, leaf]: halfway between example i and the next larger one of the same leaf.
    member = torch.nn.functional.one_hot(leaf, leaves).bool()
    value = x.mT  # [batch, coordinate, example]
    larger = value[:, :, None, :] > value[..., None]  # [batch, coordinate, i, other]
    together = leaf[:, None, :, None] == leaf[:, None, None, :]
    following = torch.where(larger & together, value[:, :, None, :], math.inf).amin(-1)
    threshold = (value + following) / 2
    upper = (larger & together).to(y.dtype)
    count, total = upper.sum(-1), (upper * y[:, None, None, :]).sum(-1)
    weights = member.to(y.dtype)
    of_leaf = torch.einsum(
        "bil,blk->bik", weights, torch.stack([weights.sum(1), (weights.mT @ y[..., None])[..., 0]], -1)
    )
    whole_count, whole_total = of_leaf[:, None, :, 0], of_leaf[:, None, :, 1]
    rest = whole_count - count
    gain = total.square() / count.clamp(min=1) + (whole_total - total).square() / rest.clamp(min=1)
    gain = torch.where(count > 0, gain - whole_total.square() / whole_count, -math.inf)
    by_leaf = torch.where(member.mT[:, :, None, :], gain[:, None], -math.inf).flatten(2)
    best, place = by_leaf.max(-1)
    best_threshold = threshold.flatten(1).gather(1, place)
    smallest = 1e-12 * y.square().sum(1, keepdim=True)  # what rounding makes of a leaf of equal labels
    return torch.where(best > smallest, best_threshold, math.inf), place // examples


def two_layer_descent(
    source: RandomStream, hidden: int = 100, steps: int = 100, learning_rate: float = 5e-3
) -> RegressionPredictor:
    r"""A network $v \cdot \max(W x + b, 0) + c$ of each prompt's own, fitted to its examples by Adam, all of them at every step.

    The released code of Garg et al. (2022) takes these sizes as defaults. Weights start uniform on $\pm 1/\sqrt{\text{inputs}}$.

    Args:
        source: where the initial weights come from.
        hidden: units.
        steps: of Adam.
        learning_rate: its rate.

    Raises:
        LabError: no unit, no step, or a rate that is not positive.
    """
    if hidden < 1 or steps < 1 or not learning_rate > 0:
        raise LabError(f"{hidden} units, {steps} steps and the rate {learning_rate} must be positive; raise them.")

    def predictor(x_context: Tensor, y_context: Tensor, x_query: Tensor) -> Tensor:
        batch, examples, dimension = x_context.shape
        if examples == 0:
            return x_query.new_zeros(x_query.shape[:2])
        shapes = {"first": (dimension, hidden), "shift": (1, hidden), "second": (hidden, 1), "constant": (1, 1)}
        weights = {}
        for name, shape in shapes.items():
            reach = 1 / math.sqrt(dimension if name in ("first", "shift") else hidden)
            numbers = source.child(name).rng().uniform(-reach, reach, (batch, *shape))
            weights[name] = torch.from_numpy(numbers).to(x_query).requires_grad_()

        def answers(x: Tensor) -> Tensor:
            units = torch.relu(torch.baddbmm(weights["shift"], x, weights["first"]))
            return torch.baddbmm(weights["constant"], units, weights["second"])[..., 0]

        optimiser = torch.optim.Adam(weights.values(), lr=learning_rate)
        with torch.enable_grad():
            for _ in range(steps):
                optimiser.zero_grad()
                (answers(x_context) - y_context).square().mean(1).sum().backward()
                optimiser.step()
        with torch.no_grad():
            return answers(x_query)

    return predictor
