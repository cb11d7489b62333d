r"""A small network around any sequence mixer, so that trainings differ in the mixer and in nothing else.

Ensembles of E models, a leading model axis on every parameter, as `lab.models.transformer`. With N = layer norm without
weights and the streams that the mixer names (queries, keys, values, or fewer), $x \leftarrow$ embedding + table of positions,

$$ x \leftarrow x + \mathrm{mix}\big(N(x) W_s + b_s : \text{streams } s\big) W_o + b_o \quad \text{in each block}, \qquad
   \text{logits} = N(x) W_r . $$

There is no MLP: what happens between tokens is the mixer's. With `RelationNetwork` this is the causal relation network of
Cui et al. (2024).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lab.errors import LabError
from lab.models.mixers.interface import Mixer
from lab.models.transformer import Linear
from lab.streams import RandomStream


class MixingNetwork(nn.Module):
    """See the module.

    The initial weights of model e come from ``RandomStream(seeds[e], ("weights", name))`` alone: tables and matrices are normal,
    with the variance 1 and 1 / rows, the matrices that write to the stream divided by the root of the number of blocks;
    biases are 0.

    Args:
        mixer: what mixes tokens; it has no weights of its own.
        seeds: one a model.
        width: of the residual stream.
        blocks: number of blocks.
        size: numbers of a stream of the mixer.
        vocabulary: token ids.
        maximum_length: rows of the table of positions.

    Raises:
        LabError: a size below 1, or no seeds.
    """

    def __init__(
        self,
        mixer: Mixer,
        seeds: Sequence[int],
        *,
        width: int,
        blocks: int,
        size: int,
        vocabulary: int,
        maximum_length: int,
    ) -> None:
        super().__init__()
        sizes = {
            "width": width, "blocks": blocks, "size": size, "vocabulary": vocabulary, "maximum_length": maximum_length
        }  # fmt: skip
        for name, value in {**sizes, "number of seeds": len(seeds)}.items():
            if value < 1:
                raise LabError(f"{name} = {value} of a mixing network must be at least 1; please raise it.")
        self.mixer, self.vocabulary, self.width, models = mixer, vocabulary, width, len(seeds)
        self.embedding = nn.Parameter(torch.empty(models, vocabulary, width))
        self.positions = nn.Parameter(torch.empty(models, maximum_length, width))
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    **{name: Linear(models, width, size, bias=True) for name in mixer.streams},
                    "output": Linear(models, size, width, bias=True),
                }
            )
            for _ in range(blocks)
        )
        self.read_out = Linear(models, width, vocabulary, bias=False)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                shape = tuple(parameter.shape[1:])
                drawn = np.stack([_initial(seed, name, shape, blocks) for seed in seeds])
                parameter.copy_(torch.from_numpy(drawn))

    def forward(
        self, tokens: Int[Tensor, "#model batch token"], mask: Bool[Tensor, "*pattern token token"]
    ) -> Float[Tensor, "model batch token vocabulary"]:
        """Logits; ``mask`` is [T, T], one a model [E, T, T], or one a prompt as well [E, B, T, T].

        Raises:
            LabError: more tokens than positions.
        """
        models, length = len(self.embedding), tokens.shape[-1]
        if length > self.positions.shape[1]:
            raise LabError(
                f"{length} tokens exceed maximum_length = {self.positions.shape[1]} of this network; please raise it."
            )
        if mask.ndim > 2:
            mask = mask[:, None, None] if mask.ndim == 3 else mask[:, :, None]
        offsets = self.vocabulary * torch.arange(models, device=tokens.device)[:, None, None]
        x = F.embedding(tokens.expand(models, -1, -1) + offsets, self.embedding.flatten(0, 1))
        x = x + self.positions[:, None, :length]
        for block in self.blocks:
            assert isinstance(block, nn.ModuleDict)
            y = F.layer_norm(x, x.shape[-1:])
            streams = {name: block[name](y).unsqueeze(2) for name in self.mixer.streams}
            x = x + block["output"](self.mixer.parallel(streams, mask).squeeze(2))
        logits: Tensor = self.read_out(F.layer_norm(x, x.shape[-1:]))
        return logits

    def select(self, models: Sequence[int]) -> MixingNetwork:
        """The models at these places, with their own copy of the weights."""
        built = copy.deepcopy(self)
        for name, parameter in self.named_parameters():
            owner, _, leaf = name.rpartition(".")
            setattr(built.get_submodule(owner), leaf, nn.Parameter(parameter.detach()[list(models)].clone()))
        return built


def _initial(seed: int, name: str, shape: tuple[int, ...], blocks: int) -> np.ndarray:
    if name.endswith("bias"):
        return np.zeros(shape)
    scale = 1.0 if name in ("embedding", "positions") else shape[0] ** -0.5
    if name.endswith("output.weight"):
        scale /= blocks**0.5
    return scale * RandomStream(seed, ("weights", name)).rng().standard_normal(shape)
