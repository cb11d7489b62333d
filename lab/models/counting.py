"""What a running module computes and keeps: multiply-adds by torch's counter, saved numbers by its hooks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count


class Counts(NamedTuple):
    """Of one forward pass."""

    multiply_adds: int
    """products that are summed in matrix multiplications, and half of the operations of Fourier transforms, 5 M log2 M for M
    complex places and half of that for real ones; a multiply-add of complex numbers counts as one"""
    saved: int
    """real and complex numbers kept for the backward pass, each place in memory once; masks and parameters left out"""


def count(function: Callable[[], Any], parameters: tuple[Tensor, ...] = ()) -> Counts:
    """Runs ``function`` once and counts; nothing is saved for tensors that need no gradient.

    Args:
        function: the forward pass.
        parameters: tensors that are kept anyway.
    """
    kept: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor)  # holds it, so that its memory is not given to another one
        return tensor

    counter = FlopCounterMode(
        display=False,
        custom_mapping={
            # The fused kernel of the processor, which torch does not count by itself.
            torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _fused_attention,
            torch.ops.aten._fft_r2c: _real_transform,
            torch.ops.aten._fft_c2c: _transform,
            torch.ops.aten._fft_c2r: _transform_back,
        },
    )
    with counter, saved_tensors_hooks(note, lambda tensor: tensor):
        result = function()
    parameter_places = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    places = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() // tensor.element_size()
        for tensor in kept
        if tensor.is_floating_point() or tensor.is_complex()
    }
    del result
    return Counts(
        counter.get_total_flops() // 2, sum(size for place, size in places.items() if place not in parameter_places)
    )


def _fused_attention(query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _transform(shape: Any, dims: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return transform_operations(math.prod(shape), math.prod(shape[dim] for dim in dims))


def _real_transform(shape: Any, dims: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return _transform(shape, dims) // 2


def _transform_back(shape: Any, dims: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return _transform(out_shape, dims) // 2


def transform_operations(numbers: int, places: int) -> int:
    """5 n log2 M real operations, the usual count of transforms of M places, n numbers in all (n / M transforms).

    >>> transform_operations(numbers=16, places=8)
    240
    """
    return round(5 * numbers * math.log2(places))
