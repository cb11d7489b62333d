r"""Two levels of attention: over patches of tokens, and inside each patch (MEGABYTE, Yu et al. 2023).

T tokens of width D are cut into patches of P. A *global* head of width P D reads the patches before, their tokens side by
side and moved on by one patch; a *local* head of width D reads, inside the patch, what the global one says about each of
its places plus the tokens before, moved on by one. Attention costs T^2 / P^2 + T P pairs, least at P = (2 T)^{1/3}.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lab.errors import LabError
from lab.models.masks import causal
from lab.models.mixers.axial import require_causal, shifted
from lab.models.mixers.heads import Head, attend, random_head
from lab.models.mixers.interface import Mixer, Streams, sequence_mixer
from lab.streams import RandomStream


class TwoLevels(NamedTuple):
    """The head over patches [P D], the map of its places into the local stream [D, D], and the head inside a patch [D]."""

    over_patches: Head
    places: Tensor
    inside: Head


def random_levels(stream: RandomStream, width: int, patch: int, scale: float = 0.3) -> TwoLevels:
    """Independent normal weights of standard deviation ``scale``."""
    places = torch.from_numpy(stream.child("places").rng().standard_normal((width, width))) * scale
    over = random_head(stream.child("patches"), patch * width, scale)
    return TwoLevels(over, places, random_head(stream.child("inside"), width, scale))


def two_levels(
    levels: TwoLevels,
    tokens: Float[Tensor, "*batch token width"],
    patch: int,
    patch_shift: int = 1,
    token_shift: int = 1,
) -> Float[Tensor, "*batch token width"]:
    """Outputs of the local head; shifts of 0 let a token read itself and its patch.

    Raises:
        LabError: the tokens are no multiple of the patch.
    """
    count = patches_of(tokens.shape[-2], patch)
    width = tokens.shape[-1]
    grouped = shifted(tokens.unflatten(-2, (count, patch)).flatten(-2), patch_shift, -2)
    spread = (grouped + attend(levels.over_patches, grouped, causal(count))).unflatten(-1, (patch, width))
    local = spread @ levels.places + shifted(tokens.unflatten(-2, (count, patch)), token_shift, -2)
    return (local + attend(levels.inside, local, causal(patch))).flatten(-3, -2)


def patches_of(length: int, patch: int) -> int:
    """T / P.

    Raises:
        LabError: the patch is below 1 or does not divide the length.
    """
    if patch < 1:
        raise LabError(f"patch = {patch} must be at least 1 token; please raise it.")
    if length % patch:
        raise LabError(
            f"{length} tokens are no multiple of a patch of {patch}; pad them to {-(-length // patch) * patch}, or change "
            "the patch."
        )
    return length // patch


def pairs(length: int, patch: int) -> int:
    """T^2 / P^2 + T P pairs of attention, all of both levels computed.

    Raises:
        LabError: the tokens are no multiple of the patch.
    """
    return patches_of(length, patch) ** 2 + length * patch


def best_patch(length: float, ratio: float = 1.0) -> float:
    """(2 T r)^{1/3}, the patch of least cost r T^2 / P^2 + T P where a pair of the upper level costs ``ratio`` = r of the
    lower one's; with r = 1 the least cost is (3 / 2) 2^{1/3} T^{4/3} pairs."""
    return (2 * length * ratio) ** (1 / 3)


class TwoLevelPatches(Mixer):
    """`two_levels` as a mixer: outputs read the tokens strictly before them."""

    streams = {"stream": None}

    def __init__(self, levels: TwoLevels, patch: int) -> None:
        self.levels, self.patch = levels, patch

    def parallel(
        self, streams: Streams, mask: Bool[Tensor, "token token"]
    ) -> Float[Tensor, "model batch head token size"]:
        """See the class.

        Raises:
            LabError: another pattern than `lab.models.masks.causal`, or tokens that are no multiple of the patch.
        """
        require_causal(mask, "Attention of two levels")
        return two_levels(self.levels, streams["stream"], self.patch)

    def reads(self, mask: Bool[Tensor, "token token"]) -> Bool[Tensor, "token token"]:
        """The tokens before it, without its own."""
        return mask.tril(-1)


@sequence_mixer(patterns=[{"name": "causal", "length": 9}], stream=4)
def random_patches(width: int = 4, patch: int = 3, seed: int = 0) -> TwoLevelPatches:
    """`TwoLevelPatches` with random weights for streams of ``width``."""
    return TwoLevelPatches(random_levels(RandomStream(seed, ("patches",)), width, patch), patch)
