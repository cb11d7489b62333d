"""A sequence mixer as the attention of the lab's transformer: same norms, heads, residual stream, MLP and ensembles."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lab.errors import LabError
from lab.models.mixers.interface import Mixer
from lab.models.transformer import Architecture, Transformer, initial_weight


class MixerAttention(nn.Module):
    """a_i = (what the mixer makes of queries, keys and values, heads side by side) O.

    Further streams of the mixer (a decay, a rate) are one number for each token and head: a linear map of the token,
    brought into the range that the mixer allows by a sigmoid, or a softplus where the range has no end.

    Args:
        attention: whose query, key, value and output matrices these are.
        mixer: run in parallel under the pattern.
    """

    def __init__(self, attention: Any, mixer: Mixer) -> None:
        super().__init__()
        self.query, self.key, self.value, self.output = (
            attention.query,
            attention.key,
            attention.value,
            attention.output,
        )
        self.mixer, self.size = mixer, attention.size
        models, width, inner = self.query.weight.shape
        if self.key.weight.shape[-1] != inner:
            raise LabError(
                f"A transformer of sequence mixers needs as many keys as queries but has {self.key.weight.shape[-1]} numbers "
                f"of keys for {inner} of queries; leave out groups of queries."
            )
        gates = {name: allowed for name, allowed in mixer.streams.items() if name not in ("query", "key", "value")}
        if any(allowed is None for allowed in gates.values()):
            raise LabError(
                f"{type(mixer).__name__} takes the streams {', '.join(mixer.streams)}, but a transformer gives queries, keys, "
                "values and gates that have a range; give every other stream its range."
            )
        self.ranges = {name: allowed for name, allowed in gates.items() if allowed is not None}
        heads = inner // self.size
        self.gate_weight = nn.ParameterDict({name: torch.empty(models, width, heads) for name in gates})
        self.gate_bias = nn.ParameterDict({name: torch.empty(models, heads) for name in gates})

    def forward(
        self,
        x: Float[Tensor, "model batch token width"],
        visible: Any,
        turns: Tensor | None,
        depth: int,
        cache: Any,
        intermediates: dict[str, Tensor] | None,
        thin: Callable[[Tensor], Tensor] | None = None,
    ) -> Float[Tensor, "model batch token width"]:
        """What attention adds; see `lab.models.transformer`.

        Raises:
            LabError: rotary positions, dropped weights or a cache of keys and values, which are softmax attention's.
        """
        if turns is not None or thin is not None or cache is not None:
            raise LabError(
                "A transformer of sequence mixers takes neither rotary positions nor attention dropout nor a cache of keys and "
                "values; leave them out."
            )
        maps = {"query": self.query, "key": self.key, "value": self.value}
        streams = {name: self._heads(linear(x)) for name, linear in maps.items()}
        for name, (low, high) in self.ranges.items():
            raw = torch.einsum("ebtd,edh->ebht", x, self.gate_weight[name]) + self.gate_bias[name][:, None, :, None]
            span = torch.nn.functional.softplus(raw) if math.isinf(high) else (high - low) * raw.sigmoid()
            streams[name] = (low + span).unsqueeze(-1)
        mask = ~visible.hidden if visible.empty is None else ~visible.hidden & ~visible.empty
        mixed = self.mixer.parallel(streams, mask[0, 0, 0] if mask.shape[:3] == (1, 1, 1) else mask)
        if intermediates is not None:
            intermediates |= {f"layers.{depth}.attention.{name}": value for name, value in streams.items()}
        added: Tensor = self.output(mixed.transpose(2, 3).flatten(3))
        return added

    def _heads(self, x: Tensor) -> Float[Tensor, "model batch head token size"]:
        return x.unflatten(-1, (-1, self.size)).transpose(2, 3)


def mixing_transformer(
    architecture: Architecture, seeds: Sequence[int], mixer: Callable[[], Mixer], dtype: torch.dtype = torch.float32
) -> Transformer:
    """An ensemble of transformers each of whose layers mixes tokens by a mixer of its own making.

    Weights that a transformer of this architecture has as well start as there; those of gates follow the same rule.

    Raises:
        LabError: merged attention matrices, which have no values of their own; or see `MixerAttention`.
    """
    if architecture.attention_matrices == "merged":
        raise LabError("A transformer of sequence mixers needs factored attention matrices but has merged; change it.")
    network = Transformer(architecture, seeds, dtype)
    for depth, block in enumerate(network.layers):
        block.attention = MixerAttention(block.attention, mixer())
        with torch.no_grad():
            for name, parameter in block.attention.named_parameters():
                if name.startswith("gate_"):
                    kind, gate = name.split(".")
                    called = f"layers.{depth}.attention.{gate}.{kind.removeprefix('gate_')}"
                    values = [initial_weight(architecture, seed, called, parameter.shape[1:]) for seed in seeds]
                    parameter.copy_(torch.from_numpy(np.stack(values)))
    return network.to(dtype)
