"""What the parts share: networks that write derivations, their loss, and what they write when they are left alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch.nn.functional as F
from torch import Tensor

from lab.decoding import decode
from lab.domains.derivations.sequences import Derivations
from lab.models import masks
from lab.models.transformer import Architecture, Transformer
from lab.study import Study
from lab.training import Batch, Optimisation

SLUG, PAPER = "chain-of-thought", "feng-2023-chain-of-thought"
ROOT = 2032
PILOTS = "bound chosen on pilot seeds (root 0), judged on fresh ones"
CAUSAL, PREFIX = "causal", "prefix"


@dataclass(frozen=True)
class Network:
    """A transformer and its training."""

    width: int = 48
    """size of the residual stream"""
    heads: int = 2
    """attention heads a layer"""
    steps: int = 300
    """updates"""
    batch: int = 64
    """problems an update"""
    learning_rate: float = 4e-3
    """peak of the schedule"""

    def build(self, layers: int, vocabulary: int, positions: int) -> Callable[[Sequence[int]], Transformer]:
        """Seeds to untrained networks."""
        architecture = Architecture(
            width=self.width,
            layers=layers,
            heads=self.heads,
            vocabulary=vocabulary,
            output_size=vocabulary,
            positions="learned",
            maximum_length=positions,
        )
        return partial(Transformer, architecture)

    @property
    def optimisation(self) -> Optimisation:
        return Optimisation(
            self.steps,
            self.learning_rate,
            warmup=0.05,
            schedule="cosine",
            optimiser="adamw",
            weight_decay=0.01,
            clip_norm=1.0,
        )


def patterns(arms: Sequence[str], positions: int, problem: int) -> dict[str, Tensor]:
    """The masks of the arms over ``positions`` tokens, ``problem`` of which nobody has to write."""
    known = {CAUSAL: masks.causal(positions), PREFIX: masks.prefix_lm(positions, problem)}
    return {arm: known[arm] for arm in arms}


def encoded(rows: Derivations) -> Batch:
    """What a network is told of rows: their tokens, and what follows each scored one."""
    return {"tokens": rows.tokens[:, :-1], "targets": rows.targets[:, :-1]}


def next_token_loss(module: Transformer, batch: Batch, mask: Tensor) -> Tensor:
    """Mean cross-entropy over the scored tokens of each model's batch [model]."""
    targets = batch["targets"]
    logits = module(batch["tokens"], mask)
    losses = F.cross_entropy(logits.flatten(0, 2), targets.flatten(), ignore_index=-1, reduction="none")
    return losses.view(len(logits), -1).sum(1) / (targets >= 0).flatten(1).sum(1)


def study_of(
    network: Network, layers: int, vocabulary: int, sizes: tuple[int, int], arms: Sequence[str] = (CAUSAL,)
) -> Study[Transformer]:
    """Networks of some depth over rows of ``sizes`` = (tokens but the last, tokens of the problem)."""
    return Study(
        build=network.build(layers, vocabulary, sizes[0]),
        arms=patterns(arms, *sizes),
        encode=encoded,
        loss=next_token_loss,
    )


def continued(module: Transformer, prompts: Tensor, mask: Tensor, steps: int) -> Tensor:
    """What every model writes greedily behind prompts of one length [model, prompt, step]."""
    return decode(module, prompts, mask, steps).tokens


def by_length(rows: Derivations) -> Mapping[int, Tensor]:
    """Which rows have a problem of so many tokens."""
    return {int(length): (rows.prefix_length == length).nonzero().squeeze(1) for length in rows.prefix_length.unique()}
