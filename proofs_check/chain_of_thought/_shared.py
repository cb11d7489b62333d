"""What the parts share."""

from __future__ import annotations

import torch
from torch import Tensor

from lab.decoding import decode
from lab.domains.derivations.sequences import Derivations
from lab.models import masks
from lab.models.transformer import Transformer

SLUG, PAPER = "chain-of-thought", "feng-2023-chain-of-thought"
COUNTS = "a count of wrong tokens, rows or values"


def written(module: Transformer, rows: Derivations, mask: str = "causal") -> Tensor:
    """What the network writes greedily behind problems of one length, token after token from its cache [row, token]."""
    problem, length = int(rows.prefix_length[0]), rows.tokens.shape[1]
    pattern = masks.causal(length) if mask == "causal" else masks.prefix_lm(length, problem)
    return decode(module, rows.tokens[:, :problem], pattern, length - problem).tokens[0]


def wrong_written(module: Transformer, rows: Derivations, mask: str = "causal") -> float:
    """How many tokens behind the problem it writes wrongly."""
    return float((written(module, rows, mask) != rows.tokens[:, int(rows.prefix_length[0]) :]).sum())


def wrong_predicted(module: Transformer, rows: Derivations, mask: str = "causal") -> float:
    """At how many scored positions it is wrong when it reads the true row up to there."""
    length = rows.tokens.shape[1] - 1
    problem = int(rows.prefix_length[0])
    pattern = masks.causal(length) if mask == "causal" else masks.prefix_lm(length, problem)
    with torch.no_grad():
        guessed = module(rows.tokens[None, :, :-1], pattern)[0].argmax(-1)
    return float(((guessed != rows.targets[:, :-1]) & rows.loss_mask[:, :-1]).sum())
