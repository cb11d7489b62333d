"""What the parts share: random networks and prompts, the patterns of the lab, and evidence up to rounding."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import xarray as xr
from torch import Tensor

from lab import Evidence
from lab.models.mask_patterns import mask
from lab.models.transformer import Architecture, Transformer
from lab.streams import stream

SLUG = "attention-masks"
WIDTH, HEADS, DEPTHS = 12, 3, (1, 2, 3)
ROUNDING = "first-order rounding bound of two runs of this network, from its sizes and the Jacobians of its blocks"
BOOLEANS = "equality of booleans"

# Name of the pattern in the lab, and its sizes in all checks.
PATTERNS: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("full", {"length": 6}),
    "causal": ("causal", {"length": 8}),
    "prefix": ("prefix_lm", {"length": 8, "prefix_length": 3}),
    "examples and queries, prefix": ("in_context_prefix", {"context": 5, "queries": 3}),
    "examples and queries, causal": ("in_context_causal", {"context": 5, "queries": 3}),
    "segments, then generated": ("segment", {"segments": [0] * 3 + [1] * 4, "generated": 3}),
    "two speakers in turns": ("alternating_turns", {"turns": 3, "turn_length": 2, "generated": 2}),
    "clean and noisy blocks": ("clean_noisy", {"blocks": 3, "block_size": 2}),
    "scales 1, 2, 3": ("next_scale", {"sides": [1, 2, 3]}),
    "image, prompt, labels": ("labels_independent", {"image": 3, "prompt": 2, "labels": [2, 1, 3]}),
    "two streams": ("two_stream", {"length": 7}),
    "two streams, in chunks": ("chunked_two_stream", {"chunks": [1, 2, 3]}),
    "window of 2": ("sliding_window", {"length": 9, "window": 2}),
    "no context": ("in_context_prefix", {"context": 0, "queries": 3}),
}


def pattern(title: str) -> Tensor:
    """The mask called ``title`` in the table above."""
    name, sizes = PATTERNS[title]
    return mask(name, **sizes)


@cache
def network(depth: int, **changes: Any) -> Transformer:
    """A pre-norm softmax transformer with random weights, no positions, that reads its tokens as they are."""
    return Transformer(Architecture(width=WIDTH, layers=depth, heads=HEADS, **changes), [5], torch.float64)


def prompt(length: int, name: str = "prompt") -> Tensor:
    """Independent normal tokens [length, width]."""
    return torch.from_numpy(stream(0, name).rng().standard_normal((length, WIDTH)))


def outputs(model: Transformer, inputs: Tensor, allowed: Tensor, **settings: Any) -> Tensor:
    """Outputs [token, width] for one prompt."""
    with torch.no_grad():
        answers: Tensor = model(inputs[None, None], allowed, **settings)[0, 0]
    return answers


def largest(difference: Tensor) -> float:
    """Largest absolute entry (0 of nothing)."""
    return float(difference.abs().max()) if difference.numel() else 0.0


def within_rounding(measured: xr.Dataset) -> Evidence:
    """Evidence that each ``difference`` is within the ``rounding`` of its own network; the worst ratio speaks for all."""
    difference, rounding = xr.broadcast(measured["difference"], measured["rounding"])
    worst = int((difference / rounding).values.argmax())
    return Evidence.exact(difference.values.flat[worst], "<=", rounding.values.flat[worst], ROUNDING)
