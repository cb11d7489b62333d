r"""Keys and values that are reused under one attention pattern, and refused under any other.

A cache of the tokens read so far is exact iff, under the pattern, none of them reads a token that comes later and the
rows of the tokens held are those they were read with. Both are properties of the mask alone, and `PatternCache` checks
them at every step: a prefix that grows, a bidirectional chunk fed in two, or another pattern altogether ends in an error
and not in a wrong number. With a window it is a *queue*: it keeps the last w - 1 tokens and refuses a mask that reads
further back.
"""

from __future__ import annotations

import copy

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lab.errors import LabError
from lab.models.transformer import KeyValueCache, Transformer


class PatternCache:
    """Keys and values of the tokens read so far, and the mask they were read under.

    Args:
        window: w, where each token sees itself and the w - 1 before it at most; None keeps all.

    Raises:
        LabError: a window of less than one token.
    """

    def __init__(self, window: int | None = None) -> None:
        if window is not None and window < 1:
            raise LabError(f"window = {window} of a cache must be at least 1 token; please raise it.")
        self.window, self.length = window, 0
        self._mask = torch.zeros(0, 0, dtype=torch.bool)
        self._held = _Queue(None if window is None else window - 1)

    @property
    def held(self) -> int:
        """Tokens whose keys and values are held."""
        return self._held.length

    @property
    def numbers(self) -> int:
        """Numbers held for one prompt of one model: 2 L h H for each token held, L layers of H heads of size h."""
        return self._held.numbers

    def read(
        self,
        network: Transformer,
        tokens: Float[Tensor, "#model batch token input"] | Int[Tensor, "#model batch token"],
        mask: Bool[Tensor, "all all"],
        positions: Int[Tensor, " token"] | None = None,
        keep: bool = True,
    ) -> Float[Tensor, "_ batch token output"]:
        """Outputs of new tokens, which follow those read before.

        Args:
            network: the same at every call.
            tokens: the new ones.
            mask: the whole pattern, of the tokens read before and the new ones.
            positions: ids of the new tokens; None goes on counting.
            keep: whether the new tokens are held too; False leaves the cache as it is, so that it can serve several
                readers.

        Raises:
            LabError: a mask of another size, one under which the tokens held would have been read otherwise, or one that
                reads what the window has dropped.
        """
        start, new = self.length, tokens.shape[2]
        self._require(mask, start, new)
        cache = self._held if keep else copy.deepcopy(self._held)
        if positions is None:
            positions = torch.arange(start, start + new)
        outputs: Tensor = network(tokens, mask[start:, start - self.held :], positions, cache=cache)
        if keep:
            self._held.trim()
            self.length, self._mask = start + new, mask.clone()
        return outputs

    def _require(self, mask: Tensor, start: int, new: int) -> None:
        if mask.shape != (start + new, start + new):
            raise LabError(
                f"The mask has the shape {tuple(mask.shape)} but {start} tokens are held and {new} are new; give the whole "
                f"pattern [{start + new}, {start + new}]."
            )
        changed = (mask[:start, :start] != self._mask).any(-1)
        if bool(changed.any()):
            row = int(changed.nonzero()[0])
            raise LabError(
                f"This cache was filled under another pattern: token {row} would see "
                f"{int(mask[row, :start].sum())} of the {start} tokens held and saw {int(self._mask[row].sum())}; read the "
                "prompt anew under this pattern."
            )
        ahead = mask[:start, start:].any(-1)
        if bool(ahead.any()):
            row = int(ahead.nonzero()[0])
            raise LabError(
                f"Under this pattern token {row}, which is held, reads a token that comes later, so that its keys and values "
                "are no longer right; read the prompt anew."
            )
        dropped = start - self.held
        if bool(mask[start:, :dropped].any()):
            row = start + int(mask[start:, :dropped].any(-1).nonzero()[0])
            raise LabError(
                f"Token {row} reads a token that a window of {self.window} has dropped; use a wider window, or a pattern of "
                "this one."
            )


class _Queue(KeyValueCache):
    """The last ``kept`` tokens only (all where None)."""

    def __init__(self, kept: int | None) -> None:
        super().__init__()
        self.kept = kept

    @property
    def numbers(self) -> int:
        return sum(tensor[0, 0].numel() for pair in self._held.values() for tensor in pair)

    def trim(self) -> None:
        """Drop the oldest tokens beyond ``kept``."""
        if self.kept is None or self.length <= self.kept:
            return
        drop, self.length = self.length - self.kept, self.kept
        self._held = {
            depth: (keys[..., drop:, :], values[..., drop:, :]) for depth, (keys, values) in self._held.items()
        }


def window_mask(length: int, window: int) -> Bool[Tensor, "token token"]:
    """A sliding window that is narrower than the prompt, or as wide.

    Raises:
        LabError: a window below 1, or wider than the prompt, which is `lab.models.masks.causal` by another name.
    """
    if not 1 <= window <= length:
        raise LabError(
            f"A window of {window} does not fit a prompt of {length} tokens; choose one from 1 to {length} (at {length} it is "
            "the causal pattern)."
        )
    return torch.ones(length, length, dtype=torch.bool).tril().triu(1 - window)
