"""Attention and nothing else, that sees distances through one number each: the networks that read chains in context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lab.models.masks import causal
from lab.streams import stream
from lab.study import Networks, Study
from lab.training import Batch, Optimisation
from tasks.induction_heads_markov._shared import (
    ROOT,
    STRATEGIES,
    Sizes,
    asked_tokens,
    chains,
    compare,
    follow,
    references,
)

OFFSETS = tuple(range(-8, 9))
WATCHED = 16  # test sequences on which attention is averaged


@dataclass(frozen=True)
class AttentionSizes(Sizes):
    """Sizes of networks of attention alone."""

    width: int = 16
    """size of the residual stream (one head a layer)"""
    learning_rate: float = 3e-3
    """of AdamW, weight decay 1e-3"""
    relative: Literal["numbers", "vectors"] = "numbers"
    """how a distance enters a score: as one learned number, or as a learned vector beside the key (as in the paper)"""

    def optimisation(self, steps: int) -> Optimisation:
        return Optimisation(steps, self.learning_rate, optimiser="adamw", weight_decay=1e-3)


class OffsetTransformer(nn.Module):
    r"""Attention and nothing else, one head a layer, that sees distances alone (Edelman et al.).

    A layer adds $\sum_j a_{ij}\, y_j V O$ to $x_i$, y = norm(x), $a_i$ = softmax over visible j of
    $y_i Q \cdot y_j K / \sqrt D + v_{i - j}$ (a number for each distance) or of
    $y_i Q \cdot (y_j K + v_{i - j}) / \sqrt D$ (a vector for each, as the authors have it: Shaw et al. 2018); the read-out
    is norm(x) R. Norms have no weights of their own.

    Args:
        parts: "embedding" [model, S, D], "query", "key", "value" and "output" [model, layer, D, D], "offsets" v
            [model, layer, 2 T - 1] or [model, layer, 2 T - 1, D], and "read" [model, D, S].
    """

    def __init__(self, parts: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.parts = nn.ParameterDict({name: nn.Parameter(value.detach().clone()) for name, value in parts.items()})
        self.width = parts["embedding"].shape[-1]

    @classmethod
    def start(cls, sizes: AttentionSizes, layers: int, seeds: Sequence[int]) -> OffsetTransformer:
        """All matrices and vectors normal with standard deviation 0.05, from streams of each seed; numbers v = 0."""
        width, states = sizes.width, sizes.states
        square = (layers, width, width)
        shapes: dict[str, tuple[int, ...]] = {"embedding": (states, width), "read": (width, states)}
        shapes |= {name: square for name in ("query", "key", "value", "output")}
        distances = 2 * sizes.length - 1
        if sizes.relative == "vectors":
            shapes["offsets"] = (layers, distances, width)

        def normal(name: str, shape: tuple[int, ...]) -> Tensor:
            values = [stream(seed, ROOT, "weights", name).rng().normal(0, 0.05, shape) for seed in seeds]
            return torch.from_numpy(np.stack(values)).float()

        parts = {name: normal(name, shape) for name, shape in shapes.items()}
        return cls({"offsets": torch.zeros(len(seeds), layers, distances)} | parts)

    def select(self, indices: Sequence[int]) -> OffsetTransformer:
        """The models at these places, as an ensemble of their own."""
        places = list(indices)
        return OffsetTransformer({name: value[places] for name, value in self.parts.items()})

    def forward(
        self,
        tokens: Int[Tensor, "model batch token"],
        mask: Bool[Tensor, "#model token token"],
        intermediates: list[Tensor] | None = None,
    ) -> Float[Tensor, "model batch token states"]:
        """Logits of the next token; the attention weights a [model, batch, token, token] of each layer go to ``intermediates``."""
        parts = self.parts
        states, place = parts["embedding"].shape[1], torch.arange(tokens.shape[-1], device=tokens.device)
        distance = place.unsqueeze(1) - place + parts["offsets"].shape[2] // 2
        symbols = nn.functional.one_hot(tokens, states).to(parts["embedding"])
        x = symbols @ parts["embedding"].unsqueeze(1)
        for layer in range(parts["query"].shape[1]):
            query, key, value, output = (
                parts[name][:, layer].unsqueeze(1) for name in ("query", "key", "value", "output")
            )
            y = nn.functional.layer_norm(x, (self.width,))
            queries, offsets = y @ (query / self.width**0.5), parts["offsets"][:, layer]
            if offsets.dim() == 2:
                bias = offsets[:, distance].unsqueeze(1)
            else:
                by_distance = queries @ offsets.mT.unsqueeze(1)
                bias = by_distance.gather(-1, distance.expand(*by_distance.shape[:2], -1, -1))
            scores = queries @ (y @ key).mT + bias.masked_fill(~mask.unsqueeze(1), -torch.inf)
            weights = scores.softmax(-1)
            if intermediates is not None:
                intermediates.append(weights)
            x = x + weights @ (y @ value) @ output
        return nn.functional.layer_norm(x, (self.width,)) @ parts["read"].unsqueeze(1)


def token_loss(
    logits: Float[Tensor, "model batch token states"], tokens: Int[Tensor, "model batch token+1"], scored: slice
) -> Float[Tensor, " model"]:
    """Mean cross entropy with the next token at the ``scored`` positions."""
    logs = logits[:, :, scored].log_softmax(-1)
    return -logs.gather(-1, tokens[:, :, 1:][:, :, scored].unsqueeze(-1))[..., 0].mean((1, 2))


def attention_by_offset(weights: Float[Tensor, "model batch token seen"], region: int) -> Float[Tensor, "model offset"]:
    """Mean weight at each distance i - j of `OFFSETS`, over rows and columns among the first ``region`` tokens."""
    mean = weights[..., :region, :region].mean(1)
    return torch.stack([mean.diagonal(-offset, -2, -1).mean(-1) for offset in OFFSETS], -1)


def attention_study(
    sizes: AttentionSizes, layers: int, masks: Mapping[str, Tensor], first: int = 0
) -> Study[OffsetTransformer]:
    """Networks of attention alone, scored at the positions from ``first`` on."""

    def loss(module: OffsetTransformer, batch: Batch, mask: Tensor) -> Tensor:
        return token_loss(module(batch["tokens"][..., :-1], mask), batch["tokens"], slice(first, None))

    return Study(lambda seeds: OffsetTransformer.start(sizes, layers, seeds), masks, None, loss)


def sample_chains(sizes: Sizes, ensemble: str, seed: int, block: int, count: int) -> Batch:
    """Training sequences of one block of updates."""
    return {"tokens": chains(sizes, ensemble, stream(seed, ROOT, ensemble, block), count).tokens}


def follow_attention(
    sizes: AttentionSizes,
    seeds: Sequence[int],
    ensemble: str,
    steps: int,
    *,
    layers: int = 2,
    masks: Mapping[str, Tensor] | None = None,
    first: int = 0,
    region: int | None = None,
) -> xr.Dataset:
    """Train networks of attention and compare them with the strategies on the way.

    Args:
        masks: of each arm; None for the causal one alone.
        first: the first position that is scored, in training and in test.
        region: attention is averaged among so many first tokens (None: all).

    Returns:
        "divergence", "cross_entropy", "loss_by_position" and "attention" [seed, arm, update, ...], beside the `references`.
    """
    study = attention_study(sizes, layers, {"causal": causal(sizes.length)} if masks is None else masks, first)
    tests, watched = (asked_tokens(sizes, ensemble, seeds, number) for number in (None, WATCHED))

    def attention(module: OffsetTransformer, batch: Batch, mask: Tensor) -> Tensor:
        intermediates: list[Tensor] = []
        module(batch["tokens"], mask, intermediates)
        return torch.stack([attention_by_offset(weights, region or sizes.length) for weights in intermediates], 1)

    def measure(networks: Networks[OffsetTransformer]) -> dict[str, Tensor]:
        logits = networks.numbers(tests, lambda module, batch, mask: module(batch["tokens"], mask))
        compared = compare(sizes, ensemble, [member.seed for member in networks.members], logits, first)
        return compared | {"attention": networks.numbers(watched, attention)}

    measured = follow(
        study,
        seeds,
        lambda seed, block, count: sample_chains(sizes, ensemble, seed, block, count),
        sizes.optimisation(steps),
        batch=sizes.batch,
        measure=measure,
        # Longer trainings are followed in longer steps.
        every=sizes.record_every * max(1, steps // 300),
        name=f"{ensemble} {layers}",
        divergence={"strategy": STRATEGIES},
        loss_by_position={"position": range(first + 1, sizes.length + 1)},
        attention={"layer": range(1, layers + 1), "offset": OFFSETS},
    )
    return measured.assign(references(sizes, ensemble, seeds, first))
