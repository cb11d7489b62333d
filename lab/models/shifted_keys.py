r"""A small network around any mixer of keys and values, whose keys see the token before.

`MixingNetwork` with two changes. Queries and keys have C numbers (*columns*: a matrix memory holds C numbers for each of a
value), whatever the size of values is. And with y = N(x)

$$ k_j = y_j W_k + y_{j-1} W_k' + b_k , $$

a convolution of width two along the tokens, as in the shift of H3 (Fu et al. 2023). So one block can file a token under the token before
it, and what is left to the mixer is to hold what was filed. A gate of the mixer (a rate, a decay) is one number, a linear map of
the token brought into its range.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lab.errors import LabError
from lab.models.layers import Linear
from lab.models.mixers.interface import Mixer
from lab.models.mixing_network import MixingNetwork
from lab.streams import RandomStream

PLACES = 0.1
"""Scale of the table of positions before training, where that of embeddings is 1: recall is by content."""


class ShiftedLinear(nn.Module):
    """y_t = x_t W + x_{t-1} W' + b for each model, x_0 = 0."""

    def __init__(self, models: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.own = Linear(models, inputs, outputs, bias=True)
        self.before = Linear(models, inputs, outputs, bias=False)

    def forward(self, x: Float[Tensor, "model batch token inputs"]) -> Float[Tensor, "model batch token outputs"]:
        shifted: Tensor = F.pad(self.before(x), (0, 0, 1, 0))[..., :-1, :]
        return shifted + self.own(x)


class Gate(nn.Module):
    """One number a token in (low, high): low + (high - low) sigmoid, or low + softplus where there is no end."""

    def __init__(self, models: int, inputs: int, allowed: tuple[float, float]) -> None:
        super().__init__()
        self.map, self.allowed = Linear(models, inputs, 1, bias=True), allowed

    def forward(self, x: Float[Tensor, "model batch token inputs"]) -> Float[Tensor, "model batch token one"]:
        low, high = self.allowed
        raw = self.map(x)
        return low + (F.softplus(raw) if math.isinf(high) else (high - low) * raw.sigmoid())


class ShiftedKeys(MixingNetwork):
    """See the module.

    The initial weights of model e come from its seed alone, by the rule of `MixingNetwork`.

    Args:
        mixer: of queries, keys and perhaps values and gates; where it takes no values, C must be their size.
        seeds: one a model.
        width: of the residual stream.
        blocks: number of blocks.
        columns: C.
        size: numbers of a value.
        vocabulary: token ids.
        maximum_length: rows of the table of positions.

    Raises:
        LabError: a size below 1, no seeds, or streams that are neither queries, keys, values nor gates.
    """

    def __init__(
        self,
        mixer: Mixer,
        seeds: Sequence[int],
        *,
        width: int,
        blocks: int,
        columns: int,
        size: int,
        vocabulary: int,
        maximum_length: int,
    ) -> None:
        super().__init__(
            mixer, seeds, width=width, blocks=blocks, size=size, vocabulary=vocabulary, maximum_length=maximum_length
        )
        if columns < 1:
            raise LabError(f"columns = {columns} of shifted keys must be at least 1; please raise it.")
        gates = {name: allowed for name, allowed in mixer.streams.items() if name not in ("query", "key", "value")}
        if not {"query", "key"} <= set(mixer.streams) or None in gates.values():
            raise LabError(
                f"Shifted keys serve a mixer of queries, keys, values and gates that have a range, but {type(mixer).__name__} "
                f"takes {', '.join(mixer.streams)}; choose another."
            )
        models = len(seeds)
        self.positions.data.mul_(PLACES)
        for depth, block in enumerate(self.blocks):
            assert isinstance(block, nn.ModuleDict)
            modules: dict[str, nn.Module] = {
                "query": Linear(models, width, columns, bias=True),
                "key": ShiftedLinear(models, width, columns),
            }
            modules |= {name: Gate(models, width, allowed) for name, allowed in gates.items() if allowed is not None}
            for name, module in modules.items():
                for leaf, parameter in module.named_parameters():
                    called = f"blocks.{depth}.{name}.{leaf}"
                    drawn = np.stack([_initial(seed, called, tuple(parameter.shape[1:])) for seed in seeds])
                    parameter.data.copy_(torch.from_numpy(drawn))
            block.update(modules)


def _initial(seed: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name.endswith("bias"):
        return np.zeros(shape)
    return shape[0] ** -0.5 * RandomStream(seed, ("weights", name)).rng().standard_normal(shape)
