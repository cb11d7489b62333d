r"""What a transformer costs under a pattern, as exact laws: floating-point operations, caches, intensity.

An operation is a multiplication or an addition; a product of matrices [n, k] and [k, m] is 2 n k m of them. Norms, biases
and the softmax are not counted, as torch's counter does not. Sizes are L layers of width D, MLPs of 4 D, V outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lab.errors import LabError


@dataclass(frozen=True)
class Size:
    """Sizes of a transformer."""

    layers: int
    width: int
    outputs: int
    mlp_ratio: int = 4

    @property
    def weights(self) -> int:
        """W = L (4 + 2 r) D^2 + D V, r = ``mlp_ratio``: numbers in its matrices, and multiply-adds a token apart from attention."""
        return self.layers * (4 + 2 * self.mlp_ratio) * self.width**2 + self.width * self.outputs


def operations(size: Size, new: int, context: int) -> int:
    """F(n, m) = 2 [n W + 2 L n m D]: n ``new`` tokens, each against m = ``context`` keys, hidden pairs computed as well."""
    return 2 * (new * size.weights + 2 * size.layers * new * context * size.width)


def generation(size: Size, prompt: int, steps: int, cached: bool) -> int:
    """A prompt of P tokens and T steps after it: F(P, P) + sum F(1, t + 1) with a cache, sum_{t = P}^{P + T} F(t, t) without."""
    if cached:
        return operations(size, prompt, prompt) + sum(operations(size, 1, t + 1) for t in range(prompt, prompt + steps))
    return sum(operations(size, t, t) for t in range(prompt, prompt + steps + 1))


def all_lengths(size: Size, length: int, causal: bool) -> int:
    """Predictions from the first 1, .., N tokens: one pass under the causal pattern, N passes under a prefix."""
    return operations(size, length, length) if causal else sum(operations(size, n, n) for n in range(1, length + 1))


def cache_numbers(size: Size, tokens: int, window: int | None = None) -> int:
    """2 L n D numbers of keys and values; a queue of a window w holds w - 1 tokens at most.

    Raises:
        LabError: a window wider than the tokens, or below 1.
    """
    if window is not None and not 1 <= window <= tokens:
        raise LabError(f"A window of {window} does not fit {tokens} tokens; choose one from 1 to {tokens}.")
    return 2 * size.layers * (tokens if window is None else min(tokens, window - 1)) * size.width


def state_numbers(size: Size, heads: int) -> int:
    """L D (D / H + 1): a matrix [D / H, D / H] and a normaliser [D / H] for each of H heads of linear attention.

    Raises:
        LabError: a width that the heads do not divide.
    """
    if heads < 1 or size.width % heads:
        raise LabError(f"{heads} heads do not divide a width of {size.width}; choose a divisor.")
    return size.layers * size.width * (size.width // heads + 1)


def visible_pairs(pattern: str, length: int, sizes: Mapping[str, int | Sequence[int]]) -> int:
    """Pairs that a pattern allows: n (n + 1) / 2 causal, + p (p - 1) / 2 for a prefix p, w n - w (w - 1) / 2 for a window w,
    sum over blocks of their size times the tokens up to their end for block-causal.

    Raises:
        LabError: another pattern, or a prefix or a window that does not fit the length.
    """
    causal = length * (length + 1) // 2
    if pattern == "causal":
        return causal
    if pattern == "prefix_lm":
        prefix = _fitting(sizes["prefix_length"], "prefix", 0, length)
        return causal + prefix * (prefix - 1) // 2
    if pattern == "sliding_window":
        window = _fitting(sizes["window"], "window", 1, length)
        return window * length - window * (window - 1) // 2
    if pattern == "block_causal":
        blocks, end, total = sizes["sizes"], 0, 0
        assert not isinstance(blocks, int)
        for block in blocks:
            end += block
            total += block * end
        return total
    raise LabError(
        f"There is no law of pairs for the pattern {pattern!r}; choose among causal, prefix_lm, sliding_window, block_causal."
    )


def _fitting(value: int | Sequence[int], name: str, least: int, length: int) -> int:
    assert isinstance(value, int)
    if not least <= value <= length:
        raise LabError(
            f"A {name} of {value} does not fit a prompt of {length} tokens; choose one from {least} to {length}."
        )
    return value


def intensity(size: Size, batch: int, context: int) -> float:
    """Operations a byte of one decoding step, 16-bit numbers: (2 B W + 4 B L n D) / (2 W + 4 B L n D)."""
    attention = 4 * batch * size.layers * context * size.width
    return (2 * batch * size.weights + attention) / (2 * size.weights + attention)


def largest_intensity(size: Size, context: int) -> float:
    """Its limit for many prompts, 1 + W / (2 L n D): no batch passes it, since every prompt has a cache of its own."""
    return 1 + size.weights / (2 * size.layers * context * size.width)


def fused_steps(arrivals: Sequence[int], lengths: Sequence[int]) -> int:
    """Steps of a server that runs all waiting requests together: the length of the union of [a, a + l).

    >>> fused_steps([0, 2, 10], [4, 4, 1])
    7
    """
    total, end = 0, None
    for start, stop in sorted((first, first + steps) for first, steps in zip(arrivals, lengths, strict=True)):
        if end is None or start > end:
            total, end = total + stop - start, stop
        elif stop > end:
            total, end = total + stop - end, stop
    return total
