"""Attention masks and what they let flow.

A mask is boolean, ``mask[i, j]`` True iff token i (row) may attend to token j (column). Each pattern is a
function of sizes; ``PATTERNS`` lists them by name. A residual network keeps its own token whatever the mask
says, so after L layers output i depends on input j iff ``closure(mask, L)[i, j]``: ``flow`` measures the left
side on any model, to the last exact zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lab.errors import LabError, kind_of


def full(length: int) -> Bool[Tensor, "token token"]:
    """Every token sees every token."""
    _at_least(0, length=length)
    return torch.ones(length, length, dtype=torch.bool)


def causal(length: int) -> Bool[Tensor, "token token"]:
    """j <= i: a token sees itself and what came before.

    >>> causal(3).int().tolist()
    [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    """
    return full(length).tril()


def prefix_lm(length: int, prefix_length: int) -> Bool[Tensor, "token token"]:
    """j <= i or j < p: the first p = `prefix_length` tokens are seen by all; 0 is `causal`, `length` is `full`.

    >>> prefix_lm(3, 2).int().tolist()
    [[1, 1, 0], [1, 1, 0], [1, 1, 1]]
    """
    _at_least(0, prefix_length=prefix_length)
    if prefix_length > length:
        raise LabError(f"prefix_length = {prefix_length} exceeds length = {length}; please shorten the prefix.")
    return prefix_masks(length, torch.tensor([prefix_length]))[0]


def prefix_masks(length: int, prefix_length: Int[Tensor, " batch"]) -> Bool[Tensor, "batch token token"]:
    """`prefix_lm` for each prompt of a batch, whose prefixes differ in length.

    Raises:
        LabError: a length below 0, or prefixes that are no whole numbers from 0 to `length`.
    """
    _at_least(0, length=length)
    if not isinstance(prefix_length, Tensor):
        raise LabError(
            f"prefix_length is {kind_of(prefix_length)}, not a tensor; please give one with a length for each prompt."
        )
    if prefix_length.is_floating_point() or prefix_length.dtype == torch.bool:
        raise LabError(f"prefix_length is {prefix_length.dtype}; please give whole numbers of tokens.")
    outside = prefix_length[(prefix_length < 0) | (prefix_length > length)]
    if outside.numel():
        raise LabError(
            f"prefix_length = {int(outside[0])} does not lie between 0 and length = {length}; please change one of them."
        )
    in_prefix = torch.arange(length, device=prefix_length.device) < prefix_length.unsqueeze(-1)
    return causal(length).to(prefix_length.device) | in_prefix.unsqueeze(-2)


def in_context_prefix(context: int, queries: int) -> Bool[Tensor, "token token"]:
    """j < n, n = `context`: context tokens and queries see the whole context, nobody sees a query.

    A query sees neither itself nor another query (its own token stays in the residual stream), so q queries in
    one prompt are answered as in q prompts of one query each.

    >>> in_context_prefix(2, 1).int().tolist()
    [[1, 1, 0], [1, 1, 0], [1, 1, 0]]
    """
    return in_context_block_causal(context, queries, max(context, 1))


def in_context_causal(context: int, queries: int) -> Bool[Tensor, "token token"]:
    """j < n and j <= i: a context token sees itself and earlier ones; query rows as in `in_context_prefix`.

    >>> in_context_causal(2, 1).int().tolist()
    [[1, 0, 0], [1, 1, 0], [1, 1, 0]]
    """
    return in_context_block_causal(context, queries, 1)


def in_context_block_causal(context: int, queries: int, block: int) -> Bool[Tensor, "token token"]:
    """j < n and floor(j / b) <= floor(i / b), b = `block` tokens an example; query rows see the whole context.

    b = 1 is `in_context_causal`, b = n is `in_context_prefix`.

    Args:
        context: context tokens n, a multiple of `block`.
        queries: query tokens.
        block: tokens of one example.
    """
    _at_least(0, context=context, queries=queries)
    _at_least(1, block=block)
    if context and context % block:
        raise LabError(f"context = {context} tokens are no multiple of block = {block}; please change one of them.")
    token = torch.arange(context + queries)
    return (token < context) & ((token // block <= token.unsqueeze(1) // block) | (token >= context).unsqueeze(1))


def segment(segments: Sequence[int], generated: int = 0) -> Bool[Tensor, "token token"]:
    """j <= i, or i and j prompt tokens of one segment; generated tokens follow causally.

    Where a segment's tokens are contiguous the prompt is `block_causal`. A segment id used again later
    (interleaved segments) opens the future to tokens before it: the mask is no longer transitive.

    Args:
        segments: the segment of each prompt token.
        generated: tokens after the prompt.
    """
    _at_least(0, generated=generated)
    ids = torch.tensor(list(segments), dtype=torch.int64)
    mask = causal(len(ids) + generated)
    mask[: len(ids), : len(ids)] |= ids.unsqueeze(1) == ids
    return mask


def sliding_window(length: int, window: int) -> Bool[Tensor, "token token"]:
    """0 <= i - j < w: a token sees itself and the w - 1 before it; depth widens the view by w - 1 a layer."""
    _at_least(1, window=window)
    return causal(length).triu(1 - window)


def block_causal(sizes: Sequence[int]) -> Bool[Tensor, "token token"]:
    """block(j) <= block(i): full inside a block, causal between blocks of the given sizes.

    With sizes s_k^2 it is next-scale prediction over square images of sides s_k.
    """
    block = _blocks(sizes)
    return block <= block.unsqueeze(1)


def clean_noisy(blocks: int, block_size: int) -> Bool[Tensor, "token token"]:
    """Teacher forcing of block-wise diffusion: `blocks` clean blocks of `block_size`, then as many noisy ones.

    Clean sees clean with block(j) <= block(i) and never noise; noisy sees clean with block(j) < block(i) and
    its own noisy block. With T blocks of B tokens, B^2 (T^2 + T) pairs.
    """
    _at_least(1, blocks=blocks, block_size=block_size)
    column, row = _blocks([block_size] * blocks), _blocks([block_size] * blocks).unsqueeze(1)
    clean = torch.cat((column <= row, torch.zeros_like(column <= row)), dim=1)
    return torch.cat((clean, torch.cat((column < row, column == row), dim=1)), dim=0)


def labels_independent(image: int, prompt: int, labels: Sequence[int]) -> Bool[Tensor, "token token"]:
    """An image seen by all, a causal prompt, then labels that see image, prompt and themselves causally.

    A label never sees another one, so all are decoded side by side from one cache (given position ids that
    restart at every label).

    Args:
        image: image tokens (they see one another).
        prompt: prompt tokens.
        labels: tokens of each label.
    """
    _at_least(0, image=image, prompt=prompt)
    label = torch.cat((torch.full((image + prompt,), -1), _blocks(labels)))  # -1: common to all labels
    mask = causal(len(label)) & ((label == -1) | (label == label.unsqueeze(1)))
    mask[:image, :image] = True
    return mask


def two_stream(length: int) -> Bool[Tensor, "token token"]:
    """N = `length` content tokens, then N queries: content sees content causally, query t sees content 0..t.

    Content 0 is a start token and content t the t-th token generated; query t asks for token t + 1 of that order.
    Queries see neither themselves nor each other, so any subset of them may be asked at once.
    """
    _at_least(1, length=length)
    return torch.cat((causal(length), ~full(length)), dim=1).repeat(2, 1)


PATTERNS: dict[str, Callable[..., Bool[Tensor, "token token"]]] = {
    pattern.__name__: pattern
    for pattern in (
        full,
        causal,
        prefix_lm,
        in_context_prefix,
        in_context_causal,
        in_context_block_causal,
        segment,
        sliding_window,
        block_causal,
        clean_noisy,
        labels_independent,
        two_stream,
    )
}


def closure(mask: Bool[Tensor, "*batch token token"], depth: int) -> Bool[Tensor, "*batch token token"]:
    """(mask or I)^L as a boolean matrix power: who depends on whom after L = `depth` residual layers."""
    _at_least(0, depth=depth)
    identity = torch.eye(mask.shape[-1], dtype=torch.bool, device=mask.device)
    step, reached = (mask | identity).double(), identity.expand_as(mask)
    for _ in range(depth):
        reached = reached.double() @ step > 0
    return reached


def is_transitive(mask: Bool[Tensor, "token token"]) -> bool:
    """Whether depth adds no flow: (mask or I)^2 = mask or I."""
    return torch.equal(closure(mask, 2), closure(mask, 1))


def flow(
    model: Callable[[Tensor, Tensor], Tensor], inputs: Float[Tensor, "token width"], mask: Bool[Tensor, "token token"]
) -> Float[Tensor, "token token"]:
    """F[i, j] = largest |d output_i / d input_j| over the coordinates of both, by autograd at `inputs`.

    A masked attention weight is exactly 0 and so is every derivative through it: at generic weights
    ``(flow(model, inputs, mask) != 0)`` equals ``closure(mask, depth)`` without a tolerance. Use float64:
    in float32 a small derivative of a deep model can underflow.

    Args:
        model: (tokens [1, batch, token, width], mask) to outputs [1, batch, token, size], prompts independent of
            each other: an ensemble of one model. (One copy of the prompt for each output number gives the whole
            Jacobian in one backward pass.)
        inputs: one prompt.
        mask: handed to the model.
    """
    tokens, width = inputs.shape
    with torch.no_grad():
        size = model(inputs.expand(1, 1, tokens, width), mask).shape[-1]
    copies = inputs.expand(1, tokens * size, tokens, width).clone().requires_grad_()
    outputs = model(copies, mask).reshape(tokens * size, tokens * size)
    (jacobian,) = torch.autograd.grad(outputs.diagonal().sum(), copies)
    return jacobian.view(tokens, size, tokens, width).abs().amax((1, 3))


def _blocks(sizes: Sequence[int]) -> Int[Tensor, " token"]:
    """The block of each token."""
    for size in sizes:
        _at_least(1, size_of_block=size)
    return torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(list(sizes), dtype=torch.int64))


def _at_least(limit: int, **sizes: int) -> None:
    for name, size in sizes.items():
        if size < limit:
            raise LabError(f"{name} = {size} of an attention mask must be at least {limit}; please raise it.")
