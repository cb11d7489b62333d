"""What the parts share: random streams, and evidence up to a rounding bound of its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import xarray as xr
from torch import Tensor

from lab import Evidence
from lab.models.mixers.interface import Mixer
from lab.streams import stream

SLUG = "linear-attention"
ROUNDING = "rounding bound of two runs, from the absolute values of these very terms"
SIZES = {"query": 8, "key": 8, "value": 5}


@dataclass(frozen=True)
class Config:
    """How much is drawn for a case."""

    draws: int = 20
    """independent draws"""
    length: int = 23
    """tokens N"""


PRESETS = {"smoke": Config(draws=2, length=9), "ci": Config(), "paper": Config(draws=100, length=37)}


def streams(config: Config, *gates: str, name: str = "streams", spread: float = 1.0) -> dict[str, Tensor]:
    """Normal queries, keys and values [draw, 1, 1, token, size], and gates uniform on (0, 1]."""
    rng = stream(0, name).rng()
    shape = (config.draws, 1, 1, config.length)
    drawn = {key: torch.from_numpy(rng.standard_normal((*shape, size))) for key, size in SIZES.items()}
    drawn |= {key: spread * drawn[key] for key in ("query", "key")}
    return drawn | {gate: torch.from_numpy(1 - rng.random((*shape, 1))) for gate in gates}


def largest(difference: Tensor) -> float:
    """Largest absolute entry."""
    return float(difference.abs().max())


def compared(mixer: Mixer, token_streams: dict[str, Tensor], mask: Tensor, other: Tensor) -> dict[str, float]:
    """Largest difference of ``other`` from the parallel form, and the bound of two forms."""
    difference = largest(mixer.run("parallel", token_streams, mask) - other)
    return {"difference": difference, "rounding": mixer.rounding(token_streams, mask)}


def within_rounding(measured: xr.Dataset) -> Evidence:
    """Evidence that each ``difference`` is within its ``rounding``."""
    difference, rounding = xr.broadcast(measured["difference"], measured["rounding"])
    return Evidence.within(difference.values.ravel(), rounding.values.ravel(), ROUNDING)
