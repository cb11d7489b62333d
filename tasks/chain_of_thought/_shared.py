"""What the parts of this sheet share: a network, its loss, and what it writes behind a problem."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from lab.decoding import decode
from lab.domains.derivations.sequences import STOP, Derivations
from lab.models import masks
from lab.models.transformer import Architecture, Transformer
from lab.training import Batch, Optimisation

SLUG, PAPER = "chain-of-thought", "feng-2023-chain-of-thought"
CAUSAL, PREFIX = "causal", "prefix"
PILOTS = "bound chosen on pilot seeds (roots 0 and 1), judged on fresh ones"


@dataclass(frozen=True)
class Network:
    """A transformer, and how it is trained (AdamW, a short warm-up, then down to 0)."""

    layers: int = 2
    """blocks"""
    width: int = 32
    """size of the residual stream"""
    heads: int = 2
    """attention heads a block"""
    positions: str = "rotary"
    """"learned", "rotary" or "sinusoidal" """
    updates: int = 1000
    """updates of every network"""
    batch: int = 4
    """rows an update"""
    learning_rate: float = 8e-3
    """peak of the schedule"""
    schedule: str = "cosine"
    """from the peak down to 0"""

    def build(self, vocabulary: int, length: int, layers: int) -> Callable[[Sequence[int]], Transformer]:
        """Seeds to untrained transformers of so many layers that read rows of ``length`` tokens."""
        return partial(
            Transformer,
            Architecture(
                width=self.width,
                layers=layers,
                heads=self.heads,
                vocabulary=vocabulary,
                output_size=vocabulary,
                positions=self.positions,
                maximum_length=length if self.positions == "learned" else None,
            ),
        )

    @property
    def optimisation(self) -> Optimisation:
        return Optimisation(
            self.updates,
            self.learning_rate,
            warmup=0.05,
            schedule=self.schedule,
            optimiser="adamw",
            weight_decay=0.01,
            clip_norm=1.0,
        )

    @property
    def blocks(self) -> tuple[int, int]:
        """Rows an update, and updates whose rows are drawn in one piece."""
        return self.batch, min(self.updates, 100)


SMOKE_NETWORK = Network(width=8, updates=4, batch=2)
PAPER_NETWORK = Network(
    layers=3,
    width=256,
    heads=4,
    positions="sinusoidal",
    updates=195_300,
    batch=512,
    learning_rate=1e-4,
    schedule="linear",
)
"""That of the paper, without its dropout: 100 times through a million rows."""


def mask_of(arm: str, length: int, problem: int) -> Tensor:
    """The mask of an arm over ``length`` tokens, of which the first are the problem."""
    return masks.causal(length) if arm == CAUSAL else masks.prefix_lm(length, problem)


def as_read(rows: Derivations) -> Batch:
    """Rows without the last token, which nothing follows, and what follows every other."""
    return {"tokens": rows.tokens[:, :-1], "targets": rows.targets[:, :-1]}


def problem_length(targets: Tensor) -> int:
    """Tokens of the problems, the same for all rows: nothing before the last of them is scored."""
    return 1 + int((targets >= 0).flatten(0, -2).any(0).int().argmax())


def next_token_loss(module: Transformer, batch: Batch, mask: Tensor) -> Tensor:
    """Mean cross-entropy over the tokens behind the problem [model]."""
    first = problem_length(batch["targets"]) - 1
    logits, targets = module(batch["tokens"], mask)[:, :, first:], batch["targets"][:, :, first:]
    losses = F.cross_entropy(logits.flatten(0, 2), targets.flatten(), ignore_index=-1, reduction="none")
    return losses.view(len(logits), -1).sum(1) / (targets >= 0).flatten(1).sum(1)


def written(module: Transformer, prompts: Tensor, mask: Tensor, steps: int, allowed: Tensor | None = None) -> Tensor:
    """What every model writes greedily behind its prompts, each under its own mask [model, row, token]."""
    tokens = torch.zeros(*prompts.shape[:2], steps, dtype=torch.int64)
    for pattern in mask.unique(dim=0):
        places = (mask == pattern).all(-1).all(-1).nonzero().flatten().tolist()
        continuation = decode(module.select(places), prompts[places], pattern, steps, stop_token=STOP, allowed=allowed)
        tokens[places] = continuation.tokens.cpu()
    return tokens


def answers(tokens: Tensor, places: Sequence[int] = (1,)) -> Tensor:
    """The tokens that stand so many places before the first stop token [..., place]; -1 where there are none.

    >>> answers(torch.tensor([[7, 8, STOP, 0], [STOP, 9, 9, 9], [7, 8, 9, 9]]), (2, 1)).tolist()
    [[7, 8], [-1, -1], [-1, -1]]
    """
    stops = tokens == STOP
    place = stops.int().argmax(-1, keepdim=True) - torch.tensor(places, device=tokens.device)
    present = stops.any(-1, keepdim=True) & (place >= 0)
    return torch.where(present, tokens.gather(-1, place.clamp(min=0)), -1)


def answers_written(
    module: Transformer, batch: Batch, mask: Tensor, places: Sequence[int] = (1,)
) -> tuple[Tensor, Tensor]:
    """Answers after all tokens behind the problem have been written freely, and the right ones [model, row, place]."""
    problem = problem_length(batch["targets"])
    truth = batch["targets"][..., problem - 1 :].cpu()
    free = written(module, batch["tokens"][..., :problem], mask, truth.shape[-1])
    return answers(free, places), answers(truth, places)


def accuracy(module: Transformer, batch: Batch, mask: Tensor, *, places: Sequence[int] = (1,)) -> Tensor:
    """Share of answers that are right at all places, all tokens behind the problem written freely [model]."""
    answered, right = answers_written(module, batch, mask, places)
    return (answered == right).all(-1).double().mean(-1)
