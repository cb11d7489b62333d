"""What the parts of this sheet share: how networks are built, trained and masked, and one seed's graph with its pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from lab.domains.graphs import navigation as exact
from lab.domains.graphs.navigation_prompts import Pairs, Sequences, Vocabulary
from lab.models import masks
from lab.models.transformer import Architecture, Transformer
from lab.training import Batch, Optimisation

CAUSAL, PREFIX = "causal", "prefix"
# Rows of masks and position tables: more than any sequence here needs, so that a model's initial weights do not depend
# on the graphs of others.
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
    """sequences an update"""

    def build(self, words: Vocabulary) -> Callable[[Sequence[int]], Transformer]:
        """Seeds to untrained transformers over ``words``."""
        return partial(
            Transformer,
            Architecture(
                width=self.width,
                layers=self.layers,
                heads=self.heads,
                vocabulary=words.size,
                output_size=words.size,
                positions="learned",
                maximum_length=POSITIONS,
                mlp_ratio=self.mlp_ratio,
                activation="relu",
                initial_scale=self.initial_scale,
            ),
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

    def interval(self, evaluations: int) -> int:
        """Updates from one evaluation to the next, for so many ``evaluations`` during the training."""
        return -(-self.steps // evaluations)


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

    @cached_property
    def uniform(self) -> exact.Policy:
        """The law of uniformly drawn paths."""
        return exact.uniform_path_policy(self.adjacency)

    @cached_property
    def longest_path(self) -> int:
        """Edges of the longest path."""
        return exact.longest_path(self.adjacency)


def batches_of(sequences: Mapping[int, Sequences], size: int, pad: int) -> Callable[[int, int], Batch]:
    """Batch ``step`` of a seed: the next ``size`` of its sequences, cut to the longest of all seeds' batches."""
    longest = max(drawn.tokens.shape[1] for drawn in sequences.values())
    tokens = {seed: padded(drawn.tokens, longest, pad) for seed, drawn in sequences.items()}
    targets = {seed: padded(drawn.targets, longest, -1) for seed, drawn in sequences.items()}
    ends = torch.stack([(table >= 0).int().mul(torch.arange(longest)).amax(1) for table in targets.values()])
    widths = 1 + ends.amax(0).unflatten(0, (-1, size)).amax(1)

    def batch(seed: int, step: int) -> Batch:
        rows, width = slice(step * size, (step + 1) * size), int(widths[step])
        return {"tokens": tokens[seed][rows, :width], "targets": targets[seed][rows, :width]}

    return batch


def padded(table: Tensor, length: int, value: int) -> Tensor:
    """``table`` [..., token] with ``value`` behind its rows, up to ``length`` tokens."""
    return F.pad(table, (0, length - table.shape[-1]), value=value)


def logits_of(module: Transformer, batch: Batch, mask: Tensor) -> Tensor:
    """Logits [model, sequence, token, word] under the part of the mask that covers the tokens."""
    length = batch["tokens"].shape[-1]
    return module(batch["tokens"], mask[..., :length, :length], batch.get("positions"))


def next_token_loss(module: Transformer, batch: Batch, mask: Tensor) -> Tensor:
    """Mean cross-entropy over the scored tokens of each model's batch [model]."""
    return cross_entropy(logits_of(module, batch, mask), batch["targets"])


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over the scored tokens (targets from 0) of each model's batch [model]."""
    losses = F.cross_entropy(logits.flatten(0, 2), targets.flatten(), ignore_index=-1, reduction="none")
    return losses.view(len(logits), -1).sum(1) / (targets >= 0).flatten(1).sum(1)


def mask_of(arm: str, prefix_length: int) -> Tensor:
    """The mask of an arm over ``POSITIONS`` tokens, ``prefix_length`` of them the prompt."""
    return masks.causal(POSITIONS) if arm == CAUSAL else masks.prefix_lm(POSITIONS, prefix_length)
