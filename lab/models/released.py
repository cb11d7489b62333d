"""Networks as they are released: a folder of config.json and safetensors, of GPT-2, GPT-NeoX or LLaMA and its relatives.

    stored = load_released(Path("gpt2"))            # a StoredModel, as `lab.models.checkpoint.load_model` gives one
    logits = stored.transformer(ids[None], masks.causal(ids.shape[1]))[0]

The numbers are those of the file, with their places changed: rotary networks turn the pairs (i, i + n/2) of a head's n turned
coordinates, this lab's transformer the pairs (2i, 2i + 1), so that columns of queries and keys are reordered. Angles and norms
are computed in the precision of the weights, where the library of the release computes some in float32. Dropout is left out.

Nothing is read that could execute code, and nothing is looked for outside the folder.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from lab.errors import LabError, nearest
from lab.models.architecture import Architecture
from lab.models.checkpoint import StoredModel, built

CONFIGURATION, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
# Tensors that hold no weights: masks and frequencies that old files keep.
NO_WEIGHTS = (".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias", "rotary_emb.inv_freq")


def load_released(folder: Path | str, dtype: torch.dtype = torch.float32) -> StoredModel:
    """The network in a folder as this lab's transformer.

    Args:
        folder: of config.json and model.safetensors, or of the parts that model.safetensors.index.json lists.
        dtype: in which it computes.

    Raises:
        LabError: no such folder or file, damaged files, an unknown kind of network, options that the transformer does not have,
            a tensor that is missing, too many or of another shape, or weights that are no finite numbers.
    """
    folder = Path(folder)
    config = _Configuration(folder)
    kind = config.words("model_type", None, tuple(FAMILIES))
    with _opened(folder) as tensors:
        weights = _Weights(folder, tensors)
        architecture = FAMILIES[kind](config, weights)
        weights.check_all_taken()
        return StoredModel(built(folder, architecture, weights.all_parameters(architecture, dtype)), "causal")


class _Configuration:
    """What config.json says; a value of another kind than expected is one sentence."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / CONFIGURATION
        if not folder.is_dir():
            raise LabError(f"there is no folder {folder}; give one with {CONFIGURATION} and {WEIGHTS}")
        if not self.path.is_file():
            raise LabError(f"{folder} holds no {CONFIGURATION}; give the folder of a released network")
        try:
            self.values: Any = json.loads(self.path.read_text(encoding="utf-8"))
        except (ValueError, OSError, RecursionError) as error:
            raise LabError(f"{self.path} is damaged or no JSON ({error}); fetch it anew") from error
        if not isinstance(self.values, dict):
            raise LabError(f"{self.path} holds {type(self.values).__name__}, not names and values; fetch it anew")

    def refuse(self, name: str, value: Any, limit: str) -> LabError:
        """What is wrong with a value."""
        return LabError(f"{self.path} says {name} = {value!r}, but it must be {limit}; choose another network")

    def integer(self, name: str, default: int | None = None) -> int:
        """A whole number, at least 1."""
        setting = self.values.get(name)
        setting = default if setting is None else setting
        if isinstance(setting, bool) or not isinstance(setting, int) or setting < 1:
            raise self.refuse(name, setting, "a whole number, at least 1")
        return setting

    def real(self, name: str, default: float) -> float:
        """A number greater than 0."""
        setting = self.values.get(name, default)
        if isinstance(setting, bool) or not isinstance(setting, int | float) or not 0 < setting < math.inf:
            raise self.refuse(name, setting, "a number greater than 0")
        return float(setting)

    def true(self, name: str, default: bool) -> bool:
        """A truth value."""
        setting = self.values.get(name, default)
        if not isinstance(setting, bool):
            raise self.refuse(name, setting, "true or false")
        return setting

    def words(self, name: str, default: str | None, known: tuple[str, ...]) -> str:
        """One of some words."""
        setting = self.values.get(name, default)
        if setting not in known:
            raise self.refuse(
                name, setting, f"one of {', '.join(known)}{nearest(setting, known) if isinstance(setting, str) else ''}"
            )
        return str(setting)

    def needs(self, **values: Any) -> None:
        """Refuse another value of an option than the one that the transformer has; what is left out has it."""
        for name, value in values.items():
            if self.values.get(name, value) != value:
                raise self.refuse(name, self.values[name], repr(value))

    def activation(self, name: str, default: str) -> str:
        """The activation, by this lab's name."""
        return ACTIVATIONS[self.words(name, default, tuple(ACTIVATIONS))]

    def rotary(self, base: str, share: str, default: float = 1.0) -> tuple[float, float]:
        """Base and share of rotary positions, under whichever names a version of the library writes them.

        Args:
            base, share: their names in older files.
            default: the share where none is given.
        """
        parameters = self.values.get("rope_parameters") or self.values.get("rope_scaling") or {}
        if not isinstance(parameters, dict):
            raise self.refuse("rope_parameters", parameters, "names and values")
        kind = parameters.get("rope_type", parameters.get("type", "default"))
        if kind != "default":
            raise self.refuse("rope_type", kind, "'default'")
        for name, old in (("rope_theta", base), ("partial_rotary_factor", share)):
            if name in parameters:
                self.values[old] = parameters[name]
        return self.real(base, 10_000.0), self.real(share, default)


class _Weights:
    """Tensors of a release, each asked for by name and shape, and what is made of them."""

    def __init__(self, folder: Path, tensors: dict[str, Any]) -> None:
        self.folder, self.tensors, self.parameters = folder, tensors, dict[str, Tensor]()
        self.untaken = {name for name in tensors if not name.endswith(NO_WEIGHTS)}

    def take(self, name: str, *shape: int) -> Tensor:
        """A tensor of the file.

        Raises:
            LabError: it is missing or has another shape.
        """
        if name not in self.tensors:
            raise LabError(
                f"{self.folder} lacks the tensor {name!r} of shape {list(shape)}{nearest(name, self.tensors)}; fetch it anew"
            )
        file = self.tensors[name]
        stored_shape = file.get_slice(name).get_shape()
        if stored_shape != list(shape):
            raise LabError(
                f"{self.folder} holds {name!r} with the shape {stored_shape}, but by its {CONFIGURATION} it must have "
                f"{list(shape)}; fetch both anew"
            )
        self.untaken.discard(name)
        return file.get_tensor(name)

    def put(self, name: str, value: Tensor) -> None:
        """A parameter of the transformer, without its model axis."""
        self.parameters[name] = value

    def linear(self, name: str, of: str, rows: int, columns: int, bias: bool) -> None:
        """A map kept as [outputs, inputs], and its bias."""
        self.put(f"{name}.weight", self.take(f"{of}.weight", columns, rows).T)
        if bias:
            self.put(f"{name}.bias", self.take(f"{of}.bias", columns))

    def norm(self, name: str, of: str, width: int, bias: bool) -> None:
        """Weight and bias of a norm."""
        self.put(f"{name}.weight", self.take(f"{of}.weight", width))
        if bias:
            self.put(f"{name}.bias", self.take(f"{of}.bias", width))

    def begin(self, prefix: str) -> str:
        """How names begin: files of the bare network leave ``prefix`` out."""
        return prefix if any(name.startswith(prefix) for name in self.tensors) else ""

    def check_all_taken(self) -> None:
        """Refuse tensors that the configuration does not speak of."""
        if self.untaken:
            raise LabError(
                f"{self.folder} holds {min(self.untaken)!r}, which its {CONFIGURATION} does not speak of "
                f"({len(self.untaken)} such tensors); choose a plain causal language model"
            )

    def all_parameters(self, architecture: Architecture, dtype: torch.dtype) -> dict[str, Tensor]:
        """All parameters [1, ...]; a bias that the release does not have is 0."""
        if architecture.bias:
            for name, value in list(self.parameters.items()):
                owner, _, leaf = name.rpartition(".")
                if leaf == "weight" and owner.startswith("layers.") and not owner.endswith("_norm"):
                    self.parameters.setdefault(f"{owner}.bias", torch.zeros(value.shape[-1]))
        return {
            name: (value.to(dtype) if value.is_floating_point() else value).contiguous()[None]
            for name, value in self.parameters.items()
        }


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[dict[str, Any]]:
    """The names of all tensors and the open files that hold them."""
    with contextlib.ExitStack() as open_files:
        try:
            tensors: dict[str, Any] = {}
            for path in _files(folder):
                file = open_files.enter_context(safetensors.safe_open(path, framework="pt"))
                tensors |= dict.fromkeys(file.keys(), file)
        except (safetensors.SafetensorError, OSError) as error:
            raise LabError(f"{folder} holds a damaged safetensors file ({error}); fetch it anew") from error
        yield tensors


def _files(folder: Path) -> list[Path]:
    """The files of the weights, in order."""
    names = [WEIGHTS]
    if not (folder / WEIGHTS).is_file() and (folder / INDEX).is_file():
        try:
            names = sorted(set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise LabError(f"{folder / INDEX} is damaged ({error}); fetch it anew") from error
    for name in names:
        if Path(str(name)).name != name:
            raise LabError(f"{folder / INDEX} names the file {name!r}, which is no file of this folder; fetch it anew")
        if not (folder / name).is_file():
            other = next((file.name for file in sorted(folder.glob("*.bin")) + sorted(folder.glob("*.pt"))), "")
            pickled = f" ({other} is a pickle, and reading one can execute code)" if other else ""
            raise LabError(f"{folder} holds no {name}{pickled}; fetch or save the network as safetensors")
    return [folder / name for name in names]


def _in_pairs(turned: int, size: int) -> Tensor:
    """Places of a head's coordinates, so that the pairs (i, i + turned / 2) stand side by side."""
    return torch.cat([torch.arange(turned).unflatten(0, (2, -1)).T.flatten(), torch.arange(turned, size)])


def _heads_in_pairs(value: Tensor, architecture: Architecture) -> Tensor:
    """Columns [..., head * size] of queries or keys, each head's as `_in_pairs`."""
    size = architecture.size_of_head
    return value.unflatten(-1, (-1, size))[..., _in_pairs(architecture.size_turned, size)].flatten(-2)


def _gpt2(config: _Configuration, weights: _Weights) -> Architecture:
    """GPT-2: learned positions, biases everywhere, linear maps kept as [inputs, outputs]."""
    config.needs(scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False, add_cross_attention=False)
    width, vocabulary = config.integer("n_embd", 768), config.integer("vocab_size", 50257)
    length, inner = config.integer("n_positions", 1024), config.integer("n_inner", 4 * width)
    architecture = Architecture(
        width=width,
        layers=config.integer("n_layer", 12),
        heads=config.integer("n_head", 12),
        vocabulary=vocabulary,
        output_size=vocabulary,
        mlp_ratio=inner / width,
        activation=config.activation("activation_function", "gelu_new"),
        norm_epsilon=config.real("layer_norm_epsilon", 1e-5),
        positions="learned",
        maximum_length=length,
        tie_embedding=config.true("tie_word_embeddings", True),
    )
    begin = weights.begin("transformer.")
    weights.put("embedding", weights.take(f"{begin}wte.weight", vocabulary, width))
    weights.put("positions", weights.take(f"{begin}wpe.weight", length, width))
    for depth in range(architecture.layers):
        old, new = f"{begin}h.{depth}", f"layers.{depth}"
        weights.norm(f"{new}.attention_norm", f"{old}.ln_1", width, True)
        weights.norm(f"{new}.mlp_norm", f"{old}.ln_2", width, True)
        for leaf, shape in (("weight", (width, 3 * width)), ("bias", (3 * width,))):
            three = weights.take(f"{old}.attn.c_attn.{leaf}", *shape).chunk(3, -1)
            for part, value in zip(("query", "key", "value"), three, strict=True):
                weights.put(f"{new}.attention.{part}.{leaf}", value)
        for name, of, rows, columns in (
            ("attention.output", "attn.c_proj", width, width),
            ("mlp.hidden", "mlp.c_fc", width, inner),
            ("mlp.output", "mlp.c_proj", inner, width),
        ):
            weights.put(f"{new}.{name}.weight", weights.take(f"{old}.{of}.weight", rows, columns))
            weights.put(f"{new}.{name}.bias", weights.take(f"{old}.{of}.bias", columns))
    weights.norm("final_norm", f"{begin}ln_f", width, True)
    _read_out(architecture, weights, "lm_head")
    return architecture


def _gpt_neox(config: _Configuration, weights: _Weights) -> Architecture:
    """GPT-NeoX (Pythia): a share of rotary positions, parallel blocks, the queries, keys and values of a head side by side."""
    width, vocabulary = config.integer("hidden_size"), config.integer("vocab_size")
    heads, inner = config.integer("num_attention_heads"), config.integer("intermediate_size")
    biased = config.true("attention_bias", True)
    (base, share), size = config.rotary("rotary_emb_base", "rotary_pct", 0.25), width // heads
    architecture = Architecture(
        width=width,
        layers=config.integer("num_hidden_layers"),
        heads=heads,
        vocabulary=vocabulary,
        output_size=vocabulary,
        parallel=config.true("use_parallel_residual", True),
        mlp_ratio=inner / width,
        activation=config.activation("hidden_act", "gelu"),
        norm_epsilon=config.real("layer_norm_eps", 1e-5),
        positions="rotary",
        tie_embedding=config.true("tie_word_embeddings", False),
        rotary_base=base,
        rotary_share=int(size * share) / max(size, 1),
    )
    begin = weights.begin("gpt_neox.")
    weights.put("embedding", weights.take(f"{begin}embed_in.weight", vocabulary, width))
    for depth in range(architecture.layers):
        old, new = f"{begin}layers.{depth}", f"layers.{depth}"
        weights.norm(f"{new}.attention_norm", f"{old}.input_layernorm", width, True)
        weights.norm(f"{new}.mlp_norm", f"{old}.post_attention_layernorm", width, True)
        for leaf, shape in (("weight", (3 * width, width)), ("bias", (3 * width,)))[: 1 + biased]:
            fused = weights.take(f"{old}.attention.query_key_value.{leaf}", *shape)
            three = fused.movedim(0, -1).unflatten(-1, (heads, 3, size)).unbind(-2)
            for part, value in zip(("query", "key", "value"), three, strict=True):
                columns = value.flatten(-2)
                if part != "value":
                    columns = _heads_in_pairs(columns, architecture)
                weights.put(f"{new}.attention.{part}.{leaf}", columns)
        weights.linear(f"{new}.attention.output", f"{old}.attention.dense", width, width, biased)
        weights.linear(f"{new}.mlp.hidden", f"{old}.mlp.dense_h_to_4h", width, inner, True)
        weights.linear(f"{new}.mlp.output", f"{old}.mlp.dense_4h_to_h", inner, width, True)
    weights.norm("final_norm", f"{begin}final_layer_norm", width, True)
    _read_out(architecture, weights, "embed_out")
    return architecture


def _llama(config: _Configuration, weights: _Weights) -> Architecture:
    """LLaMA: RMS norms, a gated MLP, grouped queries; Mistral: with a window; Qwen2: with biases of queries, keys and values."""
    kind = config.values["model_type"]
    config.needs(pretraining_tp=1)
    width, vocabulary = config.integer("hidden_size"), config.integer("vocab_size")
    heads, inner, layers = (
        config.integer(name) for name in ("num_attention_heads", "intermediate_size", "num_hidden_layers")
    )
    size, kept = config.integer("head_dim", width // heads), config.integer("num_key_value_heads", heads)
    biased = kind == "qwen2" or (kind == "llama" and config.true("attention_bias", False))
    biased_mlp = kind == "llama" and config.true("mlp_bias", False)
    base, share = config.rotary("rope_theta", "partial_rotary_factor")
    architecture = Architecture(
        width=width,
        layers=layers,
        heads=heads,
        head_size=size,
        key_value_heads=kept,
        vocabulary=vocabulary,
        output_size=vocabulary,
        windows=_windows(config, kind, layers),
        mlp_ratio=inner / width,
        activation=config.activation("hidden_act", "silu"),
        gated=True,
        norm_kind="rms",
        norm_epsilon=config.real("rms_norm_eps", 1e-6),
        bias=biased or biased_mlp,
        positions="rotary",
        tie_embedding=config.true("tie_word_embeddings", False),
        rotary_base=base,
        rotary_share=share,
    )
    begin = weights.begin("model.")
    weights.put("embedding", weights.take(f"{begin}embed_tokens.weight", vocabulary, width))
    for depth in range(layers):
        old, new = f"{begin}layers.{depth}", f"layers.{depth}"
        weights.norm(f"{new}.attention_norm", f"{old}.input_layernorm", width, False)
        weights.norm(f"{new}.mlp_norm", f"{old}.post_attention_layernorm", width, False)
        for part, of, count in (("query", "q_proj", heads), ("key", "k_proj", kept), ("value", "v_proj", kept)):
            weights.linear(f"{new}.attention.{part}", f"{old}.self_attn.{of}", width, count * size, biased)
        for part in ("query", "key"):
            for leaf in ("weight", "bias")[: 1 + biased]:
                name = f"{new}.attention.{part}.{leaf}"
                weights.put(name, _heads_in_pairs(weights.parameters[name], architecture))
        biased_output = biased and kind == "llama"
        weights.linear(f"{new}.attention.output", f"{old}.self_attn.o_proj", heads * size, width, biased_output)
        for part, of in (("gate", "gate_proj"), ("hidden", "up_proj")):
            weights.linear(f"{new}.mlp.{part}", f"{old}.mlp.{of}", width, inner, biased_mlp)
        weights.linear(f"{new}.mlp.output", f"{old}.mlp.down_proj", inner, width, biased_mlp)
    weights.norm("final_norm", f"{begin}norm", width, False)
    _read_out(architecture, weights, "lm_head")
    return architecture


def _windows(config: _Configuration, kind: str, layers: int) -> tuple[int | None, ...]:
    """How far each layer sees."""
    if kind == "llama" or config.values.get("sliding_window") is None:
        return ()
    if kind == "mistral":
        return (config.integer("sliding_window"),) * layers
    if not config.true("use_sliding_window", False):
        return ()
    window, first = config.integer("sliding_window"), config.values.get("max_window_layers", 28)
    if not isinstance(first, int):
        raise config.refuse("max_window_layers", first, "a whole number")
    types = config.values.get("layer_types") or [first <= depth for depth in range(layers)]
    return tuple(window if layer_type in (True, "sliding_attention") else None for layer_type in types)


def _read_out(architecture: Architecture, weights: _Weights, name: str) -> None:
    """The read-out, where it is not the embedding; a file may hold that twice."""
    vocabulary, width = architecture.vocabulary or 0, architecture.width
    if not architecture.tie_embedding:
        weights.put("read_out.weight", weights.take(f"{name}.weight", vocabulary, width).T)
    elif f"{name}.weight" in weights.tensors:
        weights.take(f"{name}.weight", vocabulary, width)


FAMILIES: dict[str, Callable[[_Configuration, _Weights], Architecture]] = {
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
    "llama": _llama,
    "mistral": _llama,
    "qwen2": _llama,
}
