"""What the parts share: random networks, prompts with positions, and outputs with and without a cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import torch
import xarray as xr
from torch import Tensor

from lab import Evidence
from lab.domains.attention.network_rounding import network_rounding_bound
from lab.labels import labelled
from lab.models.caches import PatternCache
from lab.models.transformer import Architecture, Transformer
from lab.streams import stream

SLUG = "mask-and-cache"
WIDTH, HEADS, OUTPUTS, TOKENS, SCALE = 8, 2, 5, 12, 0.5
DEPTHS, SEEDS = (1, 2, 3), (0, 1, 2)
ROUNDING = "first-order rounding bound of two runs of this network, from its sizes and the Jacobians of its blocks"
SAME_KERNELS = "equality: the same numbers enter the same operations"
VISIBLE = "far above rounding and below what a use of other tokens moves"
COUNTED = "integers, counted in the running module"
MOVED = 0.01


@cache
def network(depth: int, seed: int = 0) -> Transformer:
    """A pre-norm transformer of random weights of standard deviation 0.5 that reads its tokens as they are, 5 outputs."""
    architecture = Architecture(width=WIDTH, layers=depth, heads=HEADS, output_size=OUTPUTS, initial_scale=SCALE)
    return Transformer(architecture, [seed], torch.float64)


def prompt(seed: int = 0, length: int = TOKENS, positions: Sequence[int] | None = None) -> Tensor:
    """Tokens from a vocabulary of five plus a table of absolute positions [token, width]."""
    rng = stream(seed, "prompt").rng()
    words, table = rng.standard_normal((5, WIDTH)), rng.standard_normal((4 * TOKENS, WIDTH))
    ids = rng.integers(0, 5, 4 * TOKENS)[:length]
    places = range(length) if positions is None else positions
    return SCALE * torch.from_numpy(words[ids] + table[list(places)])


def outputs(model: Transformer, inputs: Tensor, mask: Tensor) -> Tensor:
    """Outputs [token, 5] of one pass."""
    with torch.no_grad():
        answers: Tensor = model(inputs[None, None], mask)[0, 0]
    return answers


def in_chunks(
    model: Transformer, inputs: Tensor, mask: Tensor, chunks: Sequence[int], window: int | None = None
) -> Tensor:
    """Outputs [token, 5], read chunk by chunk through a cache."""
    held, chunk_outputs, start = PatternCache(window), [], 0
    with torch.no_grad():
        for size in chunks:
            end = start + size
            chunk_outputs.append(held.read(model, inputs[None, None, start:end], mask[:end, :end])[0, 0])
            start = end
    return torch.cat(chunk_outputs)


def rounding(depth: int, seed: int, mask: Tensor) -> float:
    """How far two correct runs of `network` on `prompt` under this mask may part."""
    return _rounding(depth, seed, tuple(map(tuple, mask.tolist())))


@cache
def _rounding(depth: int, seed: int, rows: tuple[tuple[bool, ...], ...]) -> float:
    return network_rounding_bound(network(depth, seed), prompt(seed, len(rows)), torch.tensor(rows))


def largest(difference: Tensor) -> float:
    """Largest absolute entry."""
    return float(difference.abs().max())


def by_seed_and_depth(measure: Callable[[Transformer, int], dict[str, float]]) -> dict[str, xr.DataArray]:
    """``measure(network, seed of its prompt)`` -> numbers by name, for every seed and depth, labelled."""
    measured = [[measure(network(depth, seed), seed) for depth in DEPTHS] for seed in SEEDS]
    axes = {"network": SEEDS, "depth": DEPTHS}
    return {name: labelled([[numbers[name] for numbers in row] for row in measured], **axes) for name in measured[0][0]}


def worst(measured: xr.Dataset, name: str = "difference") -> Evidence:
    """Evidence that every difference is within the bound of its own network; the worst ratio speaks for all."""
    ratio = (measured[name] / measured["bound"]).values.ravel()
    place = int(ratio.argmax())
    return Evidence.exact(
        measured[name].values.ravel()[place],
        "<=",
        measured["bound"].broadcast_like(measured[name]).values.ravel()[place],
        ROUNDING,
    )
