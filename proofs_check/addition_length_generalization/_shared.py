"""What the parts share: the paper, and all pairs of numbers with so many digits."""

from __future__ import annotations

import torch
from torch import Tensor

SLUG, PAPER = "addition-length-generalization", "patriota-2024-addition"


def all_sums(columns: int, base: int = 10) -> tuple[Tensor, Tensor]:
    """All pairs of numbers with so many digits, [base^(2 columns), columns] each."""
    digits = torch.cartesian_prod(*[torch.arange(base)] * (2 * columns))
    return digits[:, :columns], digits[:, columns:]
