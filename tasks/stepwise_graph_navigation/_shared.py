"""What the parts of this sheet share: the paper, how networks are built and trained, one seed's graph and its pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lab import Paper
from lab.domains.graphs import navigation as exact
from lab.domains.graphs.navigation_prompts import Pairs, Sequences, Vocabulary
from lab.models import masks
from lab.models.transformer import Architecture
from lab.training import Optimisation

SLUG = "stepwise-graph-navigation"
PAPER = Paper(
    "Towards an understanding of stepwise inference in transformers: a synthetic graph navigation model",
    "M. Khona, M. Okawa, J. Hula, R. Ramesh, K. Nishi, R. Dick, E. S. Lubana, H. Tanaka",
    2024,
    arxiv="2402.07757",
)
CAUSAL, PREFIX = "causal", "prefix"
# Rows of the position tables: more than any sequence here needs, so that a model's initial weights do not depend on
# the graphs of others.
POSITIONS = 96


@dataclass(frozen=True)
class Network:
    """A transformer and how it is trained (AdamW, warm-up over a tenth of the steps, then cosine to 0)."""

    layers: int = 1
    """blocks"""
    heads: int = 2
    """attention heads a block"""
    width: int = 32
    """size of the residual stream"""
    mlp_ratio: float = 4.0
    """hidden size of the MLP over width, 0 for attention only"""
    initial_scale: float = 0.1
    """standard deviation of the initial weights"""
    learning_rate: float = 1e-2
    """peak of the schedule"""
    steps: int = 400
    """updates"""
    batch: int = 16
    """sequences a step"""

    def architecture(self, vocabulary: int) -> Architecture:
        """The transformer over ``vocabulary`` tokens."""
        return Architecture(
            width=self.width,
            layers=self.layers,
            heads=self.heads,
            vocabulary=vocabulary,
            output_size=vocabulary,
            positions="learned",
            maximum_length=POSITIONS,
            mlp_ratio=self.mlp_ratio,
            activation="relu",
            initial_scale=self.initial_scale,
        )

    @property
    def optimisation(self) -> Optimisation:
        return Optimisation(
            self.steps,
            self.learning_rate,
            warmup=0.1,
            schedule="cosine",
            optimiser="adamw",
            betas=(0.9, 0.95),
            weight_decay=0.01,
            clip_norm=1.0,
        )


SMOKE_NETWORK = Network(steps=12, batch=8)
PAPER_NETWORK = Network(layers=2, heads=2, width=64, initial_scale=0.02, learning_rate=1e-3, steps=20_000, batch=64)


@dataclass(frozen=True)
class World:
    """One seed's graph and its split of pairs."""

    adjacency: exact.Adjacency
    layer: Tensor
    pairs: Pairs

    @property
    def words(self) -> Vocabulary:
        return Vocabulary(len(self.adjacency))


def batches_of(data: Mapping[int, Sequences], size: int, pad: int) -> Callable[[int, int], dict[str, Tensor]]:
    """Batch ``step`` of a seed: the next ``size`` of its pre-drawn sequences, cut to the longest of all seeds' batches."""
    longest = max(one.tokens.shape[1] for one in data.values())

    def fit(table: Tensor, value: int) -> Tensor:
        return F.pad(table, (0, longest - table.shape[1]), value=value)

    tokens = {seed: fit(one.tokens, pad) for seed, one in data.items()}
    targets = {seed: fit(one.targets, -1) for seed, one in data.items()}
    ends = torch.stack([(one >= 0).int().mul(torch.arange(longest)).amax(1) for one in targets.values()])
    widths = 1 + ends.amax(0).unflatten(0, (-1, size)).amax(1)

    def batch(seed: int, step: int) -> dict[str, Tensor]:
        rows, width = slice(step * size, (step + 1) * size), int(widths[step])
        return {"tokens": tokens[seed][rows, :width], "targets": targets[seed][rows, :width]}

    return batch


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over the scored tokens of each model's batch [E]."""
    loss = F.cross_entropy(logits.flatten(0, 2), targets.flatten(), ignore_index=-1, reduction="none")
    return loss.view(len(logits), -1).sum(1) / (targets >= 0).flatten(1).sum(1)


def mask_of(arms: Sequence[str], length: int, prefix_length: int) -> Tensor:
    """The mask of each model, or one for all where they agree."""
    kinds = {CAUSAL: masks.causal(length), PREFIX: masks.prefix_lm(length, prefix_length)}
    if len(set(arms)) == 1:
        return kinds[arms[0]]
    return torch.stack([kinds[arm] for arm in arms])
