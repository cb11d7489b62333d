r"""Attention that copies the token a fixed number of places back, with explicit weights.

Position t < T is written as two numbers, $(\cos, \sin)(2 \pi t / T)$. A query that holds the code of position u scores
position j by $\beta \cos(2 \pi (u - j) / T)$; the gap between j = u and its neighbours is
$\beta (1 - \cos(2 \pi / T)) \approx 2 \pi^2 \beta / T^2$. So a constant width serves every length, with weights that grow
as $T^2$: what the theorems of Feng et al. ask of copying, hidden size O(1) and weights O(poly(n)).

The codes stand in a table of learned positions: channels 0, 1 the position's own, and two more for every place that it may
have to look for. Where there is nothing a place back (the first tokens), a position looks for itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lab.domains.derivations.sequences import check_sizes

SHARPNESS = 60.0
"""Gap between the scores of the place looked for and of its neighbours: e^-60 is left for each."""


def position_codes(positions: int, shifts: Sequence[int]) -> Float[Tensor, "{positions} channel"]:
    """Own code, then for each shift s the code of position t - s (of t where that is before the beginning).

    Raises:
        LabError: no positions.
    """
    check_sizes(positions=positions)
    place = torch.arange(positions)
    wanted = [place, *(torch.where(place >= shift, place - shift, place) for shift in shifts)]
    angles = torch.stack(wanted, 1).double() * (2 * math.pi / positions)
    return torch.stack([angles.cos(), angles.sin()], 2).flatten(1)


def sharp(positions: int) -> float:
    r"""$\beta$ with $\beta (1 - \cos(2 \pi / T))$ = `SHARPNESS` (T at least 3; nearer neighbours than those of 3 there are not)."""
    return SHARPNESS / (1 - math.cos(2 * math.pi / max(positions, 3)))


def unit(
    rows: int,
    columns: int,
    source: Int[Tensor, " entry"] | Sequence[int],
    target: Int[Tensor, " entry"] | Sequence[int],
) -> Tensor:
    """A matrix of zeros with ones at (source, target): it moves channels."""
    matrix = torch.zeros(rows, columns, dtype=torch.float64)
    matrix[torch.as_tensor(source), torch.as_tensor(target)] = 1.0
    return matrix
