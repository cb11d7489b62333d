"""What a computation costs, counted while it runs: multiply-adds of its matrix products, and numbers kept for gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode


def multiply_adds(run: Callable[[], Any]) -> int:
    """Multiply-adds of all matrix products in ``run()``, by torch's own counter, which counts each as two operations."""
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops()) // 2


def saved_numbers(run: Callable[[], Any]) -> int:
    """Numbers that ``run()`` keeps for its gradients, memory that is kept twice counted once."""
    kept: dict[tuple[int, int], Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point():
            storage = tensor.untyped_storage()
            kept[storage.data_ptr(), storage.nbytes()] = tensor  # held, so that its place is not used again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()
    numbers = sum(tensor.untyped_storage().nbytes() // tensor.element_size() for tensor in kept.values())
    del result
    return numbers
