"""One transformer for every task: E independent models on the leading axis of every parameter.

The models of an ensemble differ by their initial weights (their seed) and, where the caller says so, by their
attention mask; they share one forward pass. ``E = 1`` is the plain model. Tensors are written row-wise:
``x [model, batch, token, width]``, linear maps act as ``x @ weight + bias``.

Names and shapes of the parameters, with D = width, A = heads * head_size and K = key_value_heads * head_size (the heads
lie side by side; K = A unless they are grouped), F = round(mlp_ratio * D), one entry for each l = 0 .. layers - 1
(l = 0 alone where layers are shared):

    read_in.weight, .bias                     [E, input_size, D], [E, D]      continuous tokens
    embedding                                 [E, vocabulary, D]              token ids
    positions                                 [E, maximum_length, D]          learned positions
    layers.l.attention_norm.weight, .bias     [E, D]                          no bias in norm_kind = "rms"
    layers.l.attention.query.weight, .bias    [E, D, A], [E, A]
    layers.l.attention.key.weight, .bias      [E, D, K], [E, K]               factored only
    layers.l.attention.value.weight, .bias    [E, D, K], [E, K]               factored only
    layers.l.attention.output.weight, .bias   [E, A, D], [E, D]
    layers.l.mlp_norm.weight, .bias           [E, D]                          no bias in norm_kind = "rms"
    layers.l.mlp.gate.weight, .bias           [E, D, F], [E, F]               gated only
    layers.l.mlp.hidden.weight, .bias         [E, D, F], [E, F]
    layers.l.mlp.output.weight, .bias         [E, F, D], [E, D]
    final_norm.weight, .bias                  [E, D]                          norm = "pre"
    read_out.weight, .bias                    [E, D, output_size], [E, output_size]
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lab.errors import LabError
from lab.models.architecture import LONGEST_WAVE, Architecture
from lab.models.attention import Attention, KeyValueCache, Visible, angles
from lab.models.layers import ACTIVATIONS, MLP, Intermediates, Linear, norm
from lab.streams import RandomStream

__all__ = ["ACTIVATIONS", "Architecture", "Intermediates", "KeyValueCache", "Transformer", "initial_weight", "stack"]


class Block(nn.Module):
    """Attention and MLP, each added to the residual stream; parameters only (`Transformer.forward` runs it)."""

    def __init__(self, architecture: Architecture, models: int) -> None:
        super().__init__()
        normed, has_mlp = architecture.norm != "none", architecture.hidden_size > 0
        self.attention_norm = norm(architecture, models) if normed else None
        self.attention = Attention(architecture, models)
        self.mlp_norm = norm(architecture, models) if normed and has_mlp else None
        self.mlp = MLP(architecture, models) if has_mlp else None


class Transformer(nn.Module):
    """An ensemble of E = len(seeds) transformers with independent weights.

    The initial weights of model e come from ``RandomStream(seeds[e], ("weights", name of the parameter))`` alone: two
    models of one seed start equal, and no model depends on its neighbours.

    Args:
        architecture: what every model of the ensemble looks like.
        seeds: one for each model.
        dtype: of the parameters (the numbers are drawn in float64 and rounded).

    Raises:
        LabError: no seeds.
    """

    def __init__(self, architecture: Architecture, seeds: Sequence[int], dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        if not len(seeds):
            raise LabError("An ensemble needs at least 1 seed but got 0; please give one seed a model.")
        self.architecture, self.models = architecture, len(seeds)
        models, width, bias = self.models, architecture.width, architecture.bias

        self.read_in = self.embedding = self.positions = self.final_norm = self.read_out = None
        if architecture.input_size is not None:
            self.read_in = Linear(models, architecture.input_size, width, bias)
        if architecture.vocabulary is not None:
            self.embedding = nn.Parameter(torch.empty(models, architecture.vocabulary, width))
        if architecture.positions == "learned":
            self.positions = nn.Parameter(torch.empty(models, architecture.maximum_length or 0, width))
        blocks = min(architecture.layers, 1) if architecture.share_layers else architecture.layers
        self.layers = nn.ModuleList([Block(architecture, models) for _ in range(blocks)])
        if architecture.norm == "pre":
            self.final_norm = norm(architecture, models)
        if architecture.output_size is not None and not architecture.tie_embedding:
            self.read_out = Linear(models, width, architecture.output_size, architecture.output_bias)

        self.to(dtype)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                values = [initial_weight(architecture, seed, name, parameter.shape[1:]) for seed in seeds]
                parameter.copy_(torch.from_numpy(np.stack(values)))

    @property
    def width(self) -> int:
        """Size of the residual stream."""
        return self.architecture.width

    @property
    def parameter_count(self) -> int:
        """Numbers in the parameters of one model."""
        return sum(parameter[0].numel() for parameter in self.parameters())

    def forward(
        self,
        tokens: Float[Tensor, "#model batch token input"] | Int[Tensor, "#model batch token"],
        mask: Bool[Tensor, "*pattern token seen"],
        positions: Int[Tensor, "*numbered token"] | None = None,
        intermediates: Intermediates | None = None,
        cache: KeyValueCache | None = None,
        dropout: Sequence[int] | Int[Tensor, " model"] | None = None,
    ) -> Float[Tensor, "_ batch token output"]:
        """Outputs of every model at every token.

        Args:
            tokens: continuous tokens, or ids; a model axis of size 1 gives all models the same prompts.
            mask: True where the token (row) may attend to the token seen (column): [token, seen], one a model
                [E, token, seen], or [1, batch, token, seen], or [E, batch, token, seen]. Seen are the tokens in
                the cache, then the new ones.
            positions: position ids [token], [batch, token] or [E, batch, token]; None counts from 0, or from the
                length of the cache.
            intermediates: if a dictionary, every intermediate is entered under its name: "embedding",
                "layers.l.attention.{query, key, value, weights, output}", "layers.l.mlp.{hidden, output}",
                "layers.l.residual" (after block l; see `read` for probing it), "output". Keys and values of grouped heads
                are entered once for every head of queries.
            cache: keys and values of the tokens fed before; the new ones are added to it.
            dropout: one integer a model, which fixes what is dropped; None drops nothing.

        Returns:
            Outputs [E, batch, token, output_size], or the residual stream where there is no read-out.

        Raises:
            LabError: tokens, mask or positions do not fit the architecture or one another.
        """
        architecture, start = self.architecture, 0 if cache is None else cache.length

        def note(name: str, value: Tensor) -> Tensor:
            if intermediates is not None:
                intermediates[name] = value
            return value

        def drop(value: Tensor, site: str, share: float = architecture.dropout) -> Tensor:
            if dropout is None or share == 0:
                return value
            streams = [RandomStream(int(seed), ("dropout", site)) for seed in dropout]
            draws = np.stack([stream.rng().random(value.shape[1:], np.float32) for stream in streams])
            kept = torch.from_numpy(draws >= share).to(value.device)
            return value * kept / (1 - share)

        x = self._embed(tokens, positions, start)
        visible = self._windows(mask.to(x.device), x.shape[1], x.shape[2], start + x.shape[2])
        turns = None
        if architecture.positions == "rotary":
            numbers = torch.arange(start, start + x.shape[2], device=x.device) if positions is None else positions
            angle = angles(numbers, architecture.size_turned, architecture.rotary_base)
            # An angle of many turns has lost its place in one by the time it is a float32; its cosine has not.
            turns = torch.stack((angle.cos(), angle.sin())).to(x.dtype)
            turns = turns if numbers.dim() == 1 else turns.unsqueeze(-3)  # room for the heads
        x = note("embedding", drop(x, "embedding"))
        for depth in range(architecture.layers):
            block, name = self.layers[0 if architecture.share_layers else depth], f"layers.{depth}"
            assert isinstance(block, Block)
            before = x
            y = x if block.attention_norm is None else block.attention_norm(x)
            x = y if architecture.norm == "stream" else x
            thin = None
            if dropout is not None and architecture.attention_dropout > 0:
                thin = functools.partial(drop, site=f"{name}.attention.weights", share=architecture.attention_dropout)
            pattern = visible[architecture.window_at(depth)]
            y = block.attention(y, pattern, turns, depth, cache, intermediates, thin)
            x = x + drop(note(f"{name}.attention.output", y), f"{name}.attention")
            if block.mlp is not None:
                read = before if architecture.parallel else x
                y = read if block.mlp_norm is None else block.mlp_norm(read)
                x = y if architecture.norm == "stream" else x
                x = x + drop(note(f"{name}.mlp.output", block.mlp(y, depth, intermediates)), f"{name}.mlp")
            x = note(f"{name}.residual", x)
        if cache is not None:
            cache.length += x.shape[2]
        return note("output", self.read(x))

    def read(self, residual: Float[Tensor, "model batch token width"]) -> Float[Tensor, "model batch token output"]:
        """The model's own final norm and read-out, applied to the residual stream at any depth."""
        x = residual if self.final_norm is None else self.final_norm(residual)
        if self.architecture.tie_embedding and self.embedding is not None:
            return torch.bmm(x.flatten(1, 2), self.embedding.transpose(1, 2)).unflatten(1, x.shape[1:3])
        return x if self.read_out is None else self.read_out(x)

    def select(self, models: Sequence[int]) -> Transformer:
        """The models at these places of the model axis, as an ensemble with its own copy of their weights."""
        places = list(models)
        if not places or not all(-self.models <= place < self.models for place in places):
            raise LabError(f"Models {places} must be places in an ensemble of {self.models}; please change them.")
        return self._with({name: p.detach()[places] for name, p in self.named_parameters()}, len(places))

    def load_weights(self, weights: Mapping[str, Tensor]) -> Transformer:
        """Set parameters by name, each [E, ...] or, the same for all models, without the model axis; others stay.

        Raises:
            LabError: a name or a shape the ensemble does not have.
        """
        parameters = dict(self.named_parameters())
        with torch.no_grad():
            for name, value in weights.items():
                if name not in parameters:
                    raise LabError(f"There is no parameter {name!r}; please choose among {', '.join(parameters)}.")
                if value.shape not in (parameters[name].shape, parameters[name].shape[1:]):
                    raise LabError(
                        f"{name} has the shape {tuple(value.shape)} but must have {tuple(parameters[name].shape)}, "
                        "with or without the first axis; please reshape it."
                    )
                parameters[name].copy_(value)
        return self

    @classmethod
    def from_weights(
        cls,
        architecture: Architecture,
        weights: Mapping[str, Tensor],
        models: int = 1,
        dtype: torch.dtype = torch.float64,
    ) -> Transformer:
        """An ensemble with explicit weights: what is not named is 0, weights of layer norms 1.

        Raises:
            LabError: see `load_weights`.
        """
        built = cls(architecture, [0] * models, dtype)
        with torch.no_grad():
            for name, parameter in built.named_parameters():
                parameter.fill_(1.0 if name.endswith("norm.weight") else 0.0)
        return built.load_weights(weights)

    def _with(self, parameters: Mapping[str, Tensor], models: int) -> Transformer:
        built = copy.deepcopy(self)
        for name, value in parameters.items():
            owner, _, leaf = name.rpartition(".")
            setattr(built.get_submodule(owner), leaf, nn.Parameter(value))
        built.models = models
        return built

    def _embed(self, tokens: Tensor, positions: Tensor | None, start: int) -> Tensor:
        architecture = self.architecture
        ids = architecture.vocabulary is not None
        if (
            tokens.dim() != (3 if ids else 4)
            or tokens.is_floating_point() == ids
            or tokens.shape[0] not in (1, self.models)
        ):
            raise LabError(
                f"Tokens have the shape {tuple(tokens.shape)} and type {tokens.dtype} but must be "
                f"{'integer [model, batch, token]' if ids else 'real [model, batch, token, size]'} with 1 or "
                f"{self.models} models; please reshape them."
            )
        dtype = next(self.parameters(), tokens).dtype
        if not ids and tokens.dtype != dtype:
            raise LabError(f"Tokens are {tokens.dtype} but the weights {dtype}; please convert one of them.")
        tokens = tokens.expand(self.models, *tokens.shape[1:])
        batch, length = tokens.shape[1:3]
        if self.embedding is not None:
            x = _look_up(self.embedding, tokens, "token ids", "the vocabulary")
        else:
            size = architecture.width if architecture.input_size is None else architecture.input_size
            if tokens.shape[-1] != size:
                raise LabError(f"Tokens have size {tokens.shape[-1]} but must have {size}; please reshape them.")
            x = tokens if self.read_in is None else self.read_in(tokens)
        if positions is not None and (positions.dim() > 3 or positions.shape[-1] != length):
            raise LabError(
                f"Positions have the shape {tuple(positions.shape)} but must be [{length}], "
                f"[{batch}, {length}] or [{self.models}, {batch}, {length}]; please reshape them."
            )
        if positions is not None and positions.is_floating_point():
            raise LabError(f"Positions are {positions.dtype} but must be whole numbers; please convert them.")
        if self.positions is not None:
            if positions is not None:
                return x + _look_up(
                    self.positions, positions.expand(self.models, batch, length), "positions", "maximum_length"
                )
            if start + length > self.positions.shape[1]:
                raise LabError(
                    f"{start + length} tokens exceed maximum_length = {self.positions.shape[1]}; please raise it."
                )
            return x + self.positions[:, None, start : start + length]
        if architecture.positions == "sinusoidal":
            numbers = torch.arange(start, start + length, device=x.device) if positions is None else positions
            angle = angles(numbers, architecture.width, LONGEST_WAVE)
            return x + torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(-2).to(x.dtype)
        return x

    def _windows(self, mask: Tensor, batch: int, length: int, keys: int) -> dict[int | None, Visible]:
        """The mask as layers of each window see it."""
        patterns: dict[int | None, Visible] = {None: self._visible(mask, batch, length, keys)}
        places = torch.arange(keys, device=mask.device)
        for window in {width for width in self.architecture.windows if width is not None}:
            near = (places[keys - length :, None] - places).abs() < window
            patterns[window] = self._visible(mask & near, batch, length, keys)
        return patterns

    def _visible(self, mask: Tensor, batch: int, length: int, keys: int) -> Visible:
        shape, models = tuple(mask.shape), self.models
        if mask.dtype != torch.bool or shape[-2:] != (length, keys) or mask.dim() not in (2, 3, 4):
            raise LabError(
                f"The mask has the shape {shape} and type {mask.dtype} but must be boolean [..., {length}, {keys}]; "
                "please build it for these tokens."
            )
        mask = mask if mask.dim() == 4 else mask[None, None] if mask.dim() == 2 else mask[:, None]
        if mask.shape[0] not in (1, models) or mask.shape[1] not in (1, batch):
            raise LabError(
                f"The mask has the shape {shape} but {models} models and {batch} prompts; please give it as "
                "[token, seen], [model, token, seen] or [1 or model, batch, token, seen]."
            )
        empty = ~mask.any(-1, keepdim=True)
        some = bool(empty.any())
        mask = mask | empty if some else mask
        fused = mask[0, 0]
        if mask.shape[:2] != (1, 1):
            fused = mask.expand(models, batch, length, keys).flatten(0, 1).unsqueeze(1)
        return Visible(fused, ~mask.unsqueeze(2), empty.unsqueeze(2) if some else None)


def stack(ensembles: Sequence[Transformer]) -> Transformer:
    """All models of several ensembles of one architecture, in order, as one ensemble.

    Raises:
        LabError: no ensemble, or different architectures.
    """
    if not ensembles or any(each.architecture != ensembles[0].architecture for each in ensembles):
        raise LabError("Stacking needs at least 1 ensemble, all of one architecture; please stack like with like.")
    parameters = [dict(each.named_parameters()) for each in ensembles]
    return ensembles[0]._with(
        {name: torch.cat([each[name].detach() for each in parameters]) for name in parameters[0]},
        sum(each.models for each in ensembles),
    )


def initial_weight(architecture: Architecture, seed: int, name: str, shape: Sequence[int]) -> np.ndarray:
    """Initial value of one model's parameter `name`, from ``RandomStream(seed, ("weights", name))`` alone."""
    if "norm." in name:
        return np.full(shape, float(name.endswith("weight")))
    rng, rows = RandomStream(seed, ("weights", name)).rng(), shape[0]
    if architecture.initialisation == "fan_in_uniform":
        return rng.uniform(-(rows**-0.5), rows**-0.5, shape)
    if name.endswith("bias"):
        return np.zeros(shape)
    scale = architecture.initial_scale
    if scale is None:
        scale = (architecture.width if name in ("embedding", "positions") else rows) ** -0.5
    return scale * rng.standard_normal(shape)


def _look_up(table: Tensor, ids: Tensor, name: str, limit: str) -> Tensor:
    """Rows `ids` [model, batch, token] of each model's table [model, row, width]."""
    models, rows = table.shape[:2]
    if ids.numel() and not (int(ids.min()) >= 0 and int(ids.max()) < rows):
        raise LabError(
            f"The {name} run from {int(ids.min())} to {int(ids.max())} but {limit} is {rows}; please keep them "
            f"between 0 and {rows - 1}."
        )
    offsets = rows * torch.arange(models, device=ids.device)
    return F.embedding(ids + offsets[:, None, None], table.flatten(0, 1))
