"""Rows whose problems differ in length, brought to one place."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from lab.domains.derivations.sequences import NO_TARGET, PAD, Derivations

FORMATS = {"steps": "derivation", "at once": "direct"}
NAMES = ("tokens", "targets", "loss_mask", "prefix_length", "lengths")


def aligned(rows: Derivations, problem: int, width: int) -> Derivations:
    """The same rows, ``width`` tokens long, moved to the right so that all problems end after ``problem`` tokens."""
    shift = problem - rows.prefix_length
    place = torch.arange(width) - shift[:, None]

    def moved(values: Tensor, blank: int) -> Tensor:
        longer = F.pad(values, (0, max(0, width - values.shape[1])), value=blank)
        return torch.where(place >= 0, longer.gather(1, place.clamp(min=0)), blank)

    return replace(
        rows,
        tokens=moved(rows.tokens, PAD),
        targets=moved(rows.targets, NO_TARGET),
        loss_mask=moved(rows.loss_mask.long(), 0).bool(),
        prefix_length=torch.full_like(rows.prefix_length, problem),
        lengths=rows.lengths + shift,
    )


def chosen(rows: Derivations, index: Tensor) -> Derivations:
    """Some of the rows."""
    return Derivations(**{name: getattr(rows, name)[index] for name in NAMES})
