r"""The subspace of a mixture's components, from prompts alone: the first step of spectral methods for mixed regressions.

For normal inputs $g = \frac1h \sum y_i x_i$ over h pairs of one prompt has the mean $w_j$, and over two halves of a prompt
the noise is independent, so $E\, g g'^\top = \sum_j \pi_j w_j w_j^\top$ (Kong et al. 2020, Section 3): its leading
eigenvectors span the components.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lab.errors import LabError


def component_subspace(
    x: Float[Tensor, "batch place dimension"], y: Float[Tensor, "batch place"], size: int
) -> Float[Tensor, "dimension {size}"]:
    """Orthonormal basis of the leading subspace of the mean of g g'.

    Args:
        x, y: the prompts, of at least two pairs each; an odd last pair is left out.
        size: dimension of the subspace, at most that of the inputs.

    Raises:
        LabError: fewer than two pairs, or a size that does not fit.
    """
    pairs, dimension = x.shape[1:]
    if pairs < 2:
        raise LabError(f"Prompts have {pairs} pairs but need at least 2, one for each half; use longer prompts.")
    if not 1 <= size <= dimension:
        raise LabError(f"The size {size} of the subspace must lie between 1 and the dimension {dimension}; change it.")
    half = pairs // 2
    moments = x * y.unsqueeze(-1)
    first, second = moments[:, :half].mean(1), moments[:, half : 2 * half].mean(1)
    mean = first.mT @ second / len(x)
    _, vectors = torch.linalg.eigh((mean + mean.mT) / 2)  # in ascending order
    return vectors[:, -size:]


def share_outside(basis: Float[Tensor, "dimension size"], components: Float[Tensor, "component dimension"]) -> float:
    """Share of the components' squared length that lies outside the subspace."""
    inside = (components @ basis).square().sum()
    return float(1 - inside / components.square().sum())
