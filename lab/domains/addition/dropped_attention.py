"""The transformer with the dropout that the published column machine is trained with.

`Transformer` drops from the embedding and from what each attention and MLP *adds*. The published network (PyTorch's
multi-head attention with its dropout) drops from the embedding, from what each MLP adds, and from the **attention
weights**: after the softmax each weight is 0 with probability p and divided by 1 - p otherwise, so that a row's weights
sum to 1 on average only. Nothing is dropped where no dropout is asked for; such a network is a `Transformer`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lab.errors import LabError
from lab.models.transformer import Architecture, Block, KeyValueCache, Record, Transformer
from lab.streams import Stream


class DroppedAttention(Transformer):
    """`Transformer` with dropout of attention weights; `Architecture.dropout` is that of embedding and MLP output.

    Args:
        architecture: without rotary positions.
        seeds, dtype: as of `Transformer`.
        attention_dropout: p, the share of attention weights dropped in training.

    Raises:
        LabError: a share outside [0, 1), or an architecture with rotary positions.
    """

    def __init__(
        self,
        architecture: Architecture,
        seeds: Sequence[int],
        dtype: torch.dtype = torch.float32,
        *,
        attention_dropout: float = 0.0,
    ) -> None:
        if not 0 <= attention_dropout < 1:
            raise LabError(f"attention_dropout = {attention_dropout} must be in [0, 1); please change it.")
        if architecture.positions == "rotary":
            raise LabError(
                'positions = "rotary" cannot be trained with dropped attention weights; choose another kind.'
            )
        super().__init__(architecture, seeds, dtype)
        self.attention_dropout = attention_dropout

    def forward(
        self,
        tokens: Float[Tensor, "#model batch token input"] | Int[Tensor, "#model batch token"],
        mask: Bool[Tensor, "*pattern token seen"],
        positions: Int[Tensor, "*numbered token"] | None = None,
        record: Record | None = None,
        cache: KeyValueCache | None = None,
        dropout: Sequence[int] | Int[Tensor, " model"] | None = None,
    ) -> Float[Tensor, "_ batch token output"]:
        """As `Transformer.forward`; with ``dropout`` nothing is recorded or cached.

        Args:
            dropout: one integer a model, which fixes what is dropped; a negative one drops nothing of that model, None
                nothing at all.
        """
        architecture = self.architecture
        if dropout is None:
            return super().forward(tokens, mask, positions, record, cache)
        seeds = [int(seed) for seed in dropout]

        def drop(value: Tensor, site: str, rate: float) -> Tensor:
            least = round(rate * 2**16)  # whole numbers below 2^16 are drawn faster than fractions
            if least == 0:
                return value
            kept = np.ones((len(seeds), *value.shape[1:]), dtype=bool)
            for place, seed in enumerate(seeds):
                if seed >= 0:
                    drawn = Stream(seed, ("dropout", site)).rng().integers(0, 2**16, value.shape[1:], np.uint16)
                    kept[place] = drawn >= least
            whole = torch.tensor([1.0 if seed < 0 else 1 - least / 2**16 for seed in seeds]).to(value)
            return value * torch.from_numpy(kept).to(value.device) / whole.view(-1, *[1] * (value.dim() - 1))

        x = drop(self._embed(tokens, positions, 0), "embedding", architecture.dropout)
        visible = self._visible(mask.to(x.device), x.shape[1], x.shape[2], x.shape[2])
        for depth in range(architecture.layers):
            block = self.layers[0 if architecture.share_layers else depth]
            assert isinstance(block, Block)
            y = x if block.attention_norm is None else block.attention_norm(x)
            x, attention = (y if architecture.norm == "stream" else x), block.attention
            query = attention._heads(attention.query(y))
            key = attention._heads(y if attention.key is None else attention.key(y))
            value = attention._heads(y if attention.value is None else attention.value(y))
            weights = attention._weights(query, key, visible)
            weights = drop(weights, f"layers.{depth}.attention.weights", self.attention_dropout)
            x = x + attention.output((weights @ value).transpose(2, 3).flatten(3))
            if block.mlp is not None:
                y = x if block.mlp_norm is None else block.mlp_norm(x)
                x = y if architecture.norm == "stream" else x
                x = x + drop(block.mlp(y, depth, None), f"layers.{depth}.mlp", architecture.dropout)
        return self.read(x)
