r"""What a stack of masked layers lets flow, counted and predicted; and the check of a network against it.

A residual layer under the mask M moves information along $M \lor I$. After layers $M_1, \dots, M_L$ output i can
depend on input j iff $\big((M_L \lor I) \cdots (M_1 \lor I)\big)_{ij}$ (boolean product); for one mask repeated that
is `lab.models.masks.closure`. A masked softmax weight is exactly 0, so at generic weights the Jacobian block
$\partial\,\mathrm{out}_i / \partial\,\mathrm{in}_j$ is exactly 0 where the product is false and not 0 where it is true.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lab.errors import LabError
from lab.models.masks import closure

Mask = Bool[Tensor, "token token"]


def reachability(layers: Sequence[Mask]) -> Mask:
    r"""$\big((M_L \lor I) \cdots (M_1 \lor I)\big)$: who depends on whom after layers with masks of their own.

    Args:
        layers: the mask of each layer, the first applied first.

    Raises:
        LabError: no layer, or masks of different sizes.

    >>> from lab.models.masks import causal
    >>> reachability([causal(2), causal(2).T]).int().tolist()
    [[1, 1], [1, 1]]
    """
    if not layers or any(layer.shape != layers[0].shape for layer in layers):
        sizes = ", ".join(str(tuple(layer.shape)) for layer in layers) or "none"
        raise LabError(
            f"A stack needs at least 1 mask, all of one size, but the masks are {sizes}; please change them."
        )
    reached = torch.eye(len(layers[0]), dtype=torch.bool)
    for layer in layers:
        reached = closure(layer, 1).double() @ reached.double() > 0
    return reached


def saturation_depth(mask: Mask) -> int:
    """The smallest number of layers after which depth adds no flow (at most the number of tokens).

    >>> from lab.models.masks import causal, sliding_window
    >>> saturation_depth(causal(5)), saturation_depth(sliding_window(5, 2))
    (1, 4)
    """
    depth = 0
    while not torch.equal(closure(mask, depth), closure(mask, depth + 1)):
        depth += 1
    return depth


@dataclass(frozen=True)
class Discrepancy:
    """Where a network's flow is not the one its mask predicts."""

    leaked: Mask
    """flows although the prediction says it cannot"""
    missing: Mask
    """does not flow although the prediction says it does"""

    @property
    def count(self) -> int:
        """Number of entries of both kinds."""
        return int(self.leaked.sum() + self.missing.sum())

    @property
    def leaks(self) -> list[tuple[int, int]]:
        """The leaked entries as (output, input)."""
        return [(int(i), int(j)) for i, j in self.leaked.nonzero()]


def discrepancy(flow: Float[Tensor, "output input"], predicted: Mask) -> Discrepancy:
    """Compare the exact zeros of a measured flow (`lab.models.masks.flow`) with a prediction, without tolerance.

    Raises:
        LabError: two different sizes.
    """
    if flow.shape != predicted.shape:
        raise LabError(
            f"The flow is {tuple(flow.shape)} but the prediction {tuple(predicted.shape)}; please take one prompt."
        )
    moved = flow != 0
    return Discrepancy(moved & ~predicted, predicted & ~moved)


def allowed_pairs(name: str, **sizes: int | Sequence[int]) -> int:
    """How many pairs a pattern allows, by formula (`PAIRS` lists the patterns that have one).

    >>> allowed_pairs("causal", length=8), allowed_pairs("clean_noisy", blocks=3, block_size=2)
    (36, 48)
    """
    if name not in PAIRS:
        raise LabError(f"No formula counts the pairs of {name!r}; please choose among {', '.join(PAIRS)}.")
    return int(PAIRS[name](**sizes))


def _triangle(n: int) -> int:
    return n * (n + 1) // 2


def _blocks(sizes: Sequence[int]) -> int:
    return sum(size * sum(sizes[: place + 1]) for place, size in enumerate(sizes))


PAIRS: dict[str, Callable[..., int]] = {
    "full": lambda length: length**2,
    "causal": lambda length: _triangle(length),
    "prefix_lm": lambda length, prefix_length: _triangle(length) + prefix_length * (prefix_length - 1) // 2,
    "in_context_prefix": lambda context, queries: context * (context + queries),
    "in_context_causal": lambda context, queries: _triangle(context) + context * queries,
    "sliding_window": lambda length, window: (
        _triangle(length) - _triangle(max(length - window, 0))  # the pairs further apart than the window
    ),
    "block_causal": _blocks,
    "next_scale": lambda sides: _blocks([side**2 for side in sides]),
    "clean_noisy": lambda blocks, block_size: block_size**2 * (blocks**2 + blocks),
    "labels_independent": lambda image, prompt, labels: (
        image**2 + prompt * image + _triangle(prompt) + sum(n * (image + prompt) + _triangle(n) for n in labels)
    ),
    "two_stream": lambda length: 2 * _triangle(length),
}
