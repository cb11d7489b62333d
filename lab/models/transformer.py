"""One transformer for every task: E independent models on the leading axis of every parameter.

The models of an ensemble differ by their initial weights (their seed) and, where the caller says so, by their
attention mask; they share one forward pass. ``E = 1`` is the plain model. Tensors are written row-wise:
``x [model, batch, token, width]``, linear maps act as ``x @ weight + bias``.

Names and shapes of the parameters, with D = width, A = heads * head_size (the heads lie side by side),
F = round(mlp_ratio * D), one entry for each l = 0 .. layers - 1 (l = 0 alone where layers are shared):

    read_in.weight, .bias                     [E, input_size, D], [E, D]      continuous tokens
    embedding                                 [E, vocabulary, D]              token ids
    positions                                 [E, maximum_length, D]          learned positions
    layers.l.attention_norm.weight, .bias     [E, D]
    layers.l.attention.query.weight, .bias    [E, D, A], [E, A]
    layers.l.attention.key.weight, .bias      [E, D, A], [E, A]               factored only
    layers.l.attention.value.weight, .bias    [E, D, A], [E, A]               factored only
    layers.l.attention.output.weight, .bias   [E, A, D], [E, D]
    layers.l.mlp_norm.weight, .bias           [E, D]
    layers.l.mlp.hidden.weight, .bias         [E, D, F], [E, F]
    layers.l.mlp.output.weight, .bias         [E, F, D], [E, D]
    final_norm.weight, .bias                  [E, D]                          norm = "pre"
    read_out.weight, .bias                    [E, D, output_size], [E, output_size]
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lab.errors import LabError
from lab.streams import RandomStream

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": functools.partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
}
CHOICES = {
    "attention": ("softmax", "linear", "kernel"),
    "attention_matrices": ("factored", "merged"),
    "activation": tuple(ACTIVATIONS),
    "norm": ("none", "pre", "stream"),
    "positions": ("none", "learned", "sinusoidal", "rotary"),
    "initialisation": ("normal", "fan_in_uniform"),
}
LONGEST_WAVE = 10_000.0  # of sinusoidal and rotary positions, in tokens (over 2 pi)

Intermediates = dict[str, Tensor]


@dataclass(frozen=True)
class Architecture:
    """Everything about a model but its numbers.

    Raises:
        LabError: a value outside its range, or two values that exclude each other.
    """

    width: int
    """size D of the residual stream"""
    layers: int
    """number of blocks applied"""
    heads: int = 1
    """attention heads"""
    head_size: int | None = None
    """size h of a head's queries, keys and values; None is width // heads"""
    input_size: int | None = None
    """size of continuous tokens, read in by a linear map; None with no vocabulary: tokens are the stream"""
    vocabulary: int | None = None
    """number of token ids, read in by a table"""
    output_size: int | None = None
    """size of the linear read-out; None returns the residual stream"""
    attention: str = "softmax"
    """weights of the visible tokens: "softmax" of q.k / sqrt(h), "linear" (q.k itself), or "kernel" (softmax of
    -|q / sqrt(h) - k|^2 / 2)"""
    attention_matrices: str = "factored"
    """"factored" query, key, value and output matrices, or "merged": one head whose keys and values are the
    tokens themselves, no biases: w_ij from x_i Q x_j^T, update (sum over visible j of w_ij x_j) O. Of the layer
    z_i + P V sum_j z_j (z_j^T K^T Q z_i) in columns, query.weight is (K^T Q)^T and output.weight is (P V)^T"""
    mlp_ratio: float = 4.0
    """hidden size of the MLP over width; 0 leaves attention only"""
    activation: str = "gelu"
    """of the MLP: "gelu" (exact), "gelu_tanh" (its approximation by tanh, which most released networks use) or "relu" """
    norm: str = "pre"
    """layer norm: "none"; "pre": before attention, before the MLP, before the read-out; "stream": before
    attention and the MLP, replacing the residual stream itself, none before the read-out"""
    bias: bool = True
    """biases of read-in, attention, MLP and layer norms"""
    output_bias: bool = False
    """bias of the read-out"""
    positions: str = "none"
    """"learned" or "sinusoidal": added to the embedding; "rotary": queries and keys are turned"""
    maximum_length: int | None = None
    """rows of the table of learned positions"""
    share_layers: bool = False
    """one block, applied `layers` times"""
    tie_embedding: bool = False
    """read out with the transposed embedding"""
    initialisation: str = "normal"
    """"normal": matrices N(0, initial_scale^2), biases 0; "fan_in_uniform": a matrix of n rows and a vector of
    length n alike U(-1/sqrt(n), 1/sqrt(n)). Layer norms start at weight 1, bias 0"""
    initial_scale: float | None = None
    """standard deviation of "normal"; None: 1 / sqrt(rows) of a matrix, 1 / sqrt(width) of a table"""
    dropout: float = 0.0
    """share of numbers dropped from the embedding and from what each attention and MLP adds, in training"""
    attention_dropout: float = 0.0
    """share of attention weights dropped, in training; what is kept is divided by one minus it"""

    def __post_init__(self) -> None:
        def require(name: str, valid: bool, limit: str) -> None:
            if not valid:
                value = getattr(self, name)
                raise LabError(f"{name} = {value!r} of an architecture must be {limit}; please change it.")

        for name, choices in CHOICES.items():
            require(name, getattr(self, name) in choices, f"one of {', '.join(choices)}")
        require("layers", self.layers >= 0, "at least 0")
        require("mlp_ratio", self.mlp_ratio >= 0, "at least 0")
        require("dropout", 0 <= self.dropout < 1, "in [0, 1)")
        require("attention_dropout", 0 <= self.attention_dropout < 1, "in [0, 1)")
        require("initial_scale", (self.initial_scale or 0) >= 0, "at least 0 or None")
        for name in ("width", "heads", "head_size", "input_size", "vocabulary", "output_size", "maximum_length"):
            value = getattr(self, name)
            require(name, value is None or value >= 1, "at least 1")
        if self.attention_matrices == "merged":
            require("heads", self.heads == 1, "1 with merged attention matrices")
            require("head_size", self.head_size in (None, self.width), "None with merged attention matrices")
        if self.head_size is None:
            require("heads", self.width % self.heads == 0, f"a divisor of width = {self.width}, or head_size given")
        if self.vocabulary is not None:
            require("input_size", self.input_size is None, "None with a vocabulary")
        if self.positions == "learned":
            require("maximum_length", self.maximum_length is not None, "given with learned positions")
        if self.positions == "sinusoidal":
            require("width", self.width % 2 == 0, "even with sinusoidal positions")
        if self.positions == "rotary":
            require("positions", self.size_of_head % 2 == 0, f"another kind with head size {self.size_of_head} (odd)")
        if self.tie_embedding:
            require("vocabulary", self.vocabulary is not None, "given with tie_embedding")
            require("output_size", self.output_size == self.vocabulary, "the vocabulary with tie_embedding")
        if self.output_bias:
            own = self.output_size is not None and not self.tie_embedding
            require("output_bias", own, "False without a read-out of its own")

    @property
    def size_of_head(self) -> int:
        """h: `head_size`, or width // heads where it is None."""
        return self.width // self.heads if self.head_size is None else self.head_size


class KeyValueCache:
    """Keys and values of the tokens read so far, so that later tokens need not read them again.

    Hand a new one to the first `Transformer.forward` and the same one to the following ones. ``length`` is the
    number of tokens it holds. What it holds is exact as long as no token attends to one that was fed later.
    """

    def __init__(self) -> None:
        self.length = 0
        self._held: dict[int, tuple[Tensor, Tensor]] = {}

    def extend(self, depth: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values [model, batch, head, token, h] at `depth`, the new ones last."""
        if depth in self._held:
            old_keys, old_values = self._held[depth]
            keys, values = torch.cat((old_keys, keys), dim=-2), torch.cat((old_values, values), dim=-2)
        self._held[depth] = keys, values
        return keys, values


class _Visible(NamedTuple):
    """A mask made ready for attention; model and batch axes have size 1 where the mask does not vary."""

    fused: Tensor  # True where visible, [token, seen] or [model * batch, 1, token, seen]
    hidden: Tensor  # the opposite, [model, batch, 1, token, seen]
    empty: Tensor | None  # [model, batch, 1, token, 1]: rows that see nothing, None where there are none.
    # `fused` and `hidden` show such rows everything, lest their softmax be 0 / 0, and their sum is dropped.


class Linear(nn.Module):
    """y_e = x_e W_e + b_e for each model e."""

    def __init__(self, models: int, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(models, inputs, outputs))
        self.bias = nn.Parameter(torch.empty(models, outputs)) if bias else None

    def forward(self, x: Float[Tensor, "model batch token inputs"]) -> Float[Tensor, "model batch token outputs"]:
        rows = x.flatten(1, 2)
        if self.bias is None:
            return torch.bmm(rows, self.weight).unflatten(1, x.shape[1:3])
        return torch.baddbmm(self.bias.unsqueeze(1), rows, self.weight).unflatten(1, x.shape[1:3])


class LayerNorm(nn.Module):
    """y = w (x - mean) / sqrt(variance + 1e-5) + b over the last axis, w and b one for each model."""

    def __init__(self, models: int, width: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(models, width))
        self.bias = nn.Parameter(torch.empty(models, width)) if bias else None

    def forward(self, x: Float[Tensor, "model batch token width"]) -> Float[Tensor, "model batch token width"]:
        y = F.layer_norm(x, x.shape[-1:])
        weight = self.weight[:, None, None]
        return y * weight if self.bias is None else torch.addcmul(self.bias[:, None, None], y, weight)


class Attention(nn.Module):
    """a_i = (sum over visible j of w_ij v_j, heads side by side) O, the weights w by `Architecture.attention`.

    A token that sees nothing has the sum 0 (so that a_i is the bias of O, 0 without biases).
    """

    def __init__(self, architecture: Architecture, models: int) -> None:
        super().__init__()
        self.kind, self.size = architecture.attention, architecture.size_of_head
        merged, width = architecture.attention_matrices == "merged", architecture.width
        inner, bias = architecture.heads * self.size, architecture.bias and not merged
        self.query = Linear(models, width, inner, bias)
        self.key = None if merged else Linear(models, width, inner, bias)
        self.value = None if merged else Linear(models, width, inner, bias)
        self.output = Linear(models, inner, width, bias)

    def forward(
        self,
        x: Float[Tensor, "model batch token width"],
        visible: _Visible,
        turns: Tensor | None,
        depth: int,
        cache: KeyValueCache | None,
        intermediates: Intermediates | None,
        thin: Callable[[Tensor], Tensor] | None = None,
    ) -> Float[Tensor, "model batch token width"]:
        """What attention adds; ``thin`` drops some of the weights."""
        query = self._heads(self.query(x))
        key = self._heads(x if self.key is None else self.key(x))
        value = self._heads(x if self.value is None else self.value(x))
        if turns is not None:
            query, key = _turn(query, turns), _turn(key, turns)
        if cache is not None:
            key, value = cache.extend(depth, key, value)
        if self.kind == "softmax" and intermediates is None and thin is None:
            attended = F.scaled_dot_product_attention(
                query.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1), attn_mask=visible.fused
            ).view(query.shape)
            if visible.empty is not None:
                attended = attended.masked_fill(visible.empty, 0.0)
        else:
            weights = self._weights(query, key, visible)
            attended = (weights if thin is None else thin(weights)) @ value
            if intermediates is not None:
                name = f"layers.{depth}.attention."
                intermediates |= {name + "query": query, name + "key": key, name + "value": value}
                intermediates[name + "weights"] = weights
        return self.output(attended.transpose(2, 3).flatten(3))

    def _heads(self, x: Tensor) -> Float[Tensor, "model batch head token size"]:
        return x.unflatten(-1, (-1, self.size)).transpose(2, 3)

    def _weights(self, query: Tensor, key: Tensor, visible: _Visible) -> Tensor:
        """Attention weights [model, batch, head, token, seen], exactly 0 where the mask is False."""
        if self.kind != "linear":
            query = query * self.size**-0.5
        scores = query @ key.transpose(-1, -2)
        if self.kind == "kernel":
            norms = query.square().sum(-1).unsqueeze(-1) + key.square().sum(-1).unsqueeze(-2)
            scores = scores - 0.5 * norms
        if self.kind == "linear":
            weights = scores.masked_fill(visible.hidden, 0.0)
        else:
            weights = scores.masked_fill(visible.hidden, -torch.inf).softmax(-1)
        return weights if visible.empty is None else weights.masked_fill(visible.empty, 0.0)


class MLP(nn.Module):
    """m = activation(x U + b) V + c, token by token."""

    def __init__(self, architecture: Architecture, models: int) -> None:
        super().__init__()
        width, hidden = architecture.width, round(architecture.mlp_ratio * architecture.width)
        self.activation = ACTIVATIONS[architecture.activation]
        self.hidden = Linear(models, width, hidden, architecture.bias)
        self.output = Linear(models, hidden, width, architecture.bias)

    def forward(
        self, x: Float[Tensor, "model batch token width"], depth: int, intermediates: Intermediates | None
    ) -> Float[Tensor, "model batch token width"]:
        hidden = self.activation(self.hidden(x))
        if intermediates is not None:
            intermediates[f"layers.{depth}.mlp.hidden"] = hidden
        return self.output(hidden)


class Block(nn.Module):
    """Attention, then MLP, each added to the residual stream; parameters only (`Transformer.forward` runs it)."""

    def __init__(self, architecture: Architecture, models: int) -> None:
        super().__init__()
        normed, width, bias = architecture.norm != "none", architecture.width, architecture.bias
        has_mlp = round(architecture.mlp_ratio * width) > 0
        self.attention_norm = LayerNorm(models, width, bias) if normed else None
        self.attention = Attention(architecture, models)
        self.mlp_norm = LayerNorm(models, width, bias) if normed and has_mlp else None
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
            self.final_norm = LayerNorm(models, width, bias)
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
                "layers.l.residual" (after block l; see `read` for probing it), "output".
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
        visible = self._visible(mask.to(x.device), x.shape[1], x.shape[2], start + x.shape[2])
        turns = None
        if architecture.positions == "rotary":
            numbers = torch.arange(start, start + x.shape[2], device=x.device) if positions is None else positions
            angles = _angles(numbers, architecture.size_of_head)
            # An angle of many turns has lost its place in one by the time it is a float32; its cosine has not.
            turns = torch.stack((angles.cos(), angles.sin())).to(x.dtype)
            turns = turns if numbers.dim() == 1 else turns.unsqueeze(-3)  # room for the heads
        x = note("embedding", drop(x, "embedding"))
        for depth in range(architecture.layers):
            block, name = self.layers[0 if architecture.share_layers else depth], f"layers.{depth}"
            assert isinstance(block, Block)
            y = x if block.attention_norm is None else block.attention_norm(x)
            x = y if architecture.norm == "stream" else x
            thin = None
            if dropout is not None and architecture.attention_dropout > 0:
                thin = functools.partial(drop, site=f"{name}.attention.weights", share=architecture.attention_dropout)
            y = block.attention(y, visible, turns, depth, cache, intermediates, thin)
            x = x + drop(note(f"{name}.attention.output", y), f"{name}.attention")
            if block.mlp is not None:
                y = x if block.mlp_norm is None else block.mlp_norm(x)
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
            angles = _angles(numbers, architecture.width)
            return x + torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2).to(x.dtype)
        return x

    def _visible(self, mask: Tensor, batch: int, length: int, seen: int) -> _Visible:
        shape, models = tuple(mask.shape), self.models
        if mask.dtype != torch.bool or shape[-2:] != (length, seen) or mask.dim() not in (2, 3, 4):
            raise LabError(
                f"The mask has the shape {shape} and type {mask.dtype} but must be boolean [..., {length}, {seen}]; "
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
            fused = mask.expand(models, batch, length, seen).flatten(0, 1).unsqueeze(1)
        return _Visible(fused, ~mask.unsqueeze(2), empty.unsqueeze(2) if some else None)


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


def _look_up(table: Tensor, ids: Tensor, what: str, limit: str) -> Tensor:
    """Rows `ids` [model, batch, token] of each model's table [model, row, width]."""
    models, rows = table.shape[:2]
    if ids.numel() and not (int(ids.min()) >= 0 and int(ids.max()) < rows):
        raise LabError(
            f"The {what} run from {int(ids.min())} to {int(ids.max())} but {limit} is {rows}; please keep them "
            f"between 0 and {rows - 1}."
        )
    offsets = rows * torch.arange(models, device=ids.device)
    return F.embedding(ids + offsets[:, None, None], table.flatten(0, 1))


def _angles(positions: Tensor, size: int) -> Tensor:
    """t / 10000^(2 i / size) for positions t [..., token] and i < size / 2, float64 [..., token, size / 2]."""
    frequencies = LONGEST_WAVE ** -(torch.arange(0, size, 2, dtype=torch.float64, device=positions.device) / size)
    return positions.unsqueeze(-1) * frequencies


def _turn(x: Tensor, turns: Tensor) -> Tensor:
    """Each pair (x_2i, x_2i+1) turned by the angle of cosine and sine ``turns[:, ..., i]``, so that q.k depends on the
    difference of positions only."""
    even, odd, (cos, sin) = x[..., 0::2], x[..., 1::2], turns
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)
