"""Networks as they are released: logits against each architecture written out in numpy, and against the library that released them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from torch import Tensor

from lab import LabError
from lab.models import masks
from lab.models.released import load_released
from lab.streams import stream

ROUNDING = 1e-12
VOCABULARY, WIDTH, HEADS, LAYERS, INNER, LENGTH = 11, 8, 2, 2, 12, 9
SIZE = WIDTH // HEADS
IDS = stream(0, "ids").rng().integers(VOCABULARY, size=(3, 7))
Weights = dict[str, np.ndarray]
Array = np.ndarray


# Each architecture in numpy, from the papers: ids [B, T] and weights by their released names to logits [B, T, V].


def soft(scores: Array) -> Array:
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def attend(query: Array, key: Array, value: Array, window: int | None = None) -> Array:
    """Causal attention of [B, A, T, h]; in a window of w tokens back, the own one included."""
    length = query.shape[2]
    behind = np.arange(length)[:, None] - np.arange(length)
    visible = (behind >= 0) & (behind < (window or length))
    scores = query @ key.swapaxes(-1, -2) / math.sqrt(query.shape[-1])
    outputs = soft(np.where(visible, scores, -np.inf)) @ value
    return outputs.swapaxes(1, 2).reshape(len(query), length, -1)


def layer_norm(x: Array, weight: Array, bias: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * weight + bias


def rms_norm(x: Array, weight: Array) -> Array:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * weight


def gelu(x: Array) -> Array:
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


def gelu_new(x: Array) -> Array:
    return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


def by_head(x: Array, heads: int) -> Array:
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def rotated(x: Array, turned: int, base: float) -> Array:
    """Coordinate i of the first `turned` with i + turned / 2 as one complex number, times e^(i t base^(-2 i / turned))."""
    half = turned // 2
    numbers = x[..., :half] + 1j * x[..., half:turned]
    frequencies = base ** (-2 * np.arange(half) / turned)
    numbers = numbers * np.exp(1j * np.arange(x.shape[2])[:, None] * frequencies)
    return np.concatenate([numbers.real, numbers.imag, x[..., turned:]], -1)


def gpt2(w: Weights) -> Array:
    w = {name.removeprefix("transformer."): value for name, value in w.items()}
    x = w["wte.weight"][IDS] + w["wpe.weight"][: IDS.shape[1]]
    for depth in range(LAYERS):
        block = {name.removeprefix(f"h.{depth}."): value for name, value in w.items() if name.startswith(f"h.{depth}.")}
        y = layer_norm(x, block["ln_1.weight"], block["ln_1.bias"])
        three = np.split(y @ block["attn.c_attn.weight"] + block["attn.c_attn.bias"], 3, -1)
        x = (
            x
            + attend(*(by_head(part, HEADS) for part in three)) @ block["attn.c_proj.weight"]
            + block["attn.c_proj.bias"]
        )
        y = layer_norm(x, block["ln_2.weight"], block["ln_2.bias"])
        hidden = gelu_new(y @ block["mlp.c_fc.weight"] + block["mlp.c_fc.bias"])
        x = x + hidden @ block["mlp.c_proj.weight"] + block["mlp.c_proj.bias"]
    return layer_norm(x, w["ln_f.weight"], w["ln_f.bias"]) @ w["wte.weight"].T


def gpt_neox(w: Weights) -> Array:
    x = w["gpt_neox.embed_in.weight"][IDS]
    for depth in range(LAYERS):
        begin = f"gpt_neox.layers.{depth}."
        block = {name.removeprefix(begin): value for name, value in w.items() if name.startswith(begin)}
        y = layer_norm(x, block["input_layernorm.weight"], block["input_layernorm.bias"])
        mixed = by_head(
            y @ block["attention.query_key_value.weight"].T + block["attention.query_key_value.bias"], HEADS
        )
        query, key, value = np.split(mixed, 3, -1)
        outputs = attend(rotated(query, SIZE // 2, 10_000.0), rotated(key, SIZE // 2, 10_000.0), value)
        attention = outputs @ block["attention.dense.weight"].T + block["attention.dense.bias"]
        y = layer_norm(x, block["post_attention_layernorm.weight"], block["post_attention_layernorm.bias"])
        hidden = gelu(y @ block["mlp.dense_h_to_4h.weight"].T + block["mlp.dense_h_to_4h.bias"])
        x = x + attention + hidden @ block["mlp.dense_4h_to_h.weight"].T + block["mlp.dense_4h_to_h.bias"]
    final = layer_norm(x, w["gpt_neox.final_layer_norm.weight"], w["gpt_neox.final_layer_norm.bias"])
    return final @ w["embed_out.weight"].T


def llama(w: Weights, window: int | None = None) -> Array:
    x = w["model.embed_tokens.weight"][IDS]
    for depth in range(LAYERS):
        begin = f"model.layers.{depth}."
        block = {name.removeprefix(begin): value for name, value in w.items() if name.startswith(begin)}
        y = rms_norm(x, block["input_layernorm.weight"])
        query, key, value = (
            by_head(y @ block[f"self_attn.{part}_proj.weight"].T + block.get(f"self_attn.{part}_proj.bias", 0.0), heads)
            for part, heads in (("q", 2 * HEADS), ("k", HEADS), ("v", HEADS))
        )
        query, key = rotated(query, SIZE, 500.0), rotated(key, SIZE, 500.0)
        outputs = attend(query, key.repeat(2, 1), value.repeat(2, 1), window)
        x = x + outputs @ block["self_attn.o_proj.weight"].T
        y = rms_norm(x, block["post_attention_layernorm.weight"])
        gate, linear = (y @ block[f"mlp.{part}_proj.weight"].T for part in ("gate", "up"))
        x = x + (gate / (1 + np.exp(-gate)) * linear) @ block["mlp.down_proj.weight"].T
    return rms_norm(x, w["model.norm.weight"]) @ w["lm_head.weight"].T


SIZES = {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "intermediate_size": INNER}
GROUPED = {**SIZES, "num_attention_heads": 2 * HEADS, "num_key_value_heads": HEADS, "head_dim": SIZE}
GROUPED |= {"rms_norm_eps": 1e-6, "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "gpt2": {
        "model_type": "gpt2", "vocab_size": VOCABULARY, "n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS,
        "n_positions": LENGTH, "n_inner": INNER,
    },
    "gpt_neox": {
        "model_type": "gpt_neox", **SIZES, "num_attention_heads": HEADS,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5},
    },
    "llama": {"model_type": "llama", **GROUPED},
    "mistral": {"model_type": "mistral", **GROUPED, "sliding_window": 3},
    "qwen2": {"model_type": "qwen2", **GROUPED, "use_sliding_window": True, "sliding_window": 2, "max_window_layers": 1},
}  # fmt: skip
IN_NUMPY: dict[str, Callable[[Weights], Array]] = {
    "gpt2": gpt2,
    "gpt_neox": gpt_neox,
    "llama": llama,
    "mistral": lambda w: llama(w, 3),
}


def shapes(kind: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a release."""
    block: dict[str, tuple[int, ...]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    if kind == "gpt2":
        block = {"attn.c_attn": (WIDTH, 3 * WIDTH), "attn.c_proj": (WIDTH, WIDTH)}
        block |= {"mlp.c_fc": (WIDTH, INNER), "mlp.c_proj": (INNER, WIDTH), "ln_1": (WIDTH,), "ln_2": (WIDTH,)}
        begin, shapes = "transformer.h", {"transformer.wte.weight": (VOCABULARY, WIDTH)}
        shapes |= {"transformer.wpe.weight": (LENGTH, WIDTH), "transformer.ln_f.weight": (WIDTH,)}
        shapes["transformer.ln_f.bias"] = (WIDTH,)
        biased = {name: shape[-1:] for name, shape in block.items()}
    elif kind == "gpt_neox":
        block = {"attention.query_key_value": (3 * WIDTH, WIDTH), "attention.dense": (WIDTH, WIDTH)}
        block |= {"mlp.dense_h_to_4h": (INNER, WIDTH), "mlp.dense_4h_to_h": (WIDTH, INNER)}
        block |= {"input_layernorm": (WIDTH,), "post_attention_layernorm": (WIDTH,)}
        begin, shapes = (
            "gpt_neox.layers",
            {f"gpt_neox.final_layer_norm.{leaf}": (WIDTH,) for leaf in ("weight", "bias")},
        )
        shapes |= {"gpt_neox.embed_in.weight": (VOCABULARY, WIDTH), "embed_out.weight": (VOCABULARY, WIDTH)}
        biased = {name: shape[:1] for name, shape in block.items()}
    else:
        rows = {"q": 2 * WIDTH, "k": WIDTH, "v": WIDTH}
        block = {f"self_attn.{part}_proj": (count, WIDTH) for part, count in rows.items()}
        block |= {"self_attn.o_proj": (WIDTH, 2 * WIDTH), "mlp.down_proj": (WIDTH, INNER)}
        block |= {f"mlp.{part}_proj": (INNER, WIDTH) for part in ("gate", "up")}
        block |= {"input_layernorm": (WIDTH,), "post_attention_layernorm": (WIDTH,)}
        begin, shapes = "model.layers", {"model.norm.weight": (WIDTH,), "lm_head.weight": (VOCABULARY, WIDTH)}
        shapes["model.embed_tokens.weight"] = (VOCABULARY, WIDTH)
        biased = {f"self_attn.{part}_proj": (count,) for part, count in rows.items()} if kind == "qwen2" else {}
    for depth in range(LAYERS):
        shapes |= {f"{begin}.{depth}.{name}.weight": shape for name, shape in block.items()}
        shapes |= {f"{begin}.{depth}.{name}.bias": shape for name, shape in biased.items()}
    return shapes


def release(folder: Path, kind: str, **changes: Any) -> Weights:
    """A folder with random weights of a kind of network, and those weights."""
    folder.mkdir(exist_ok=True)
    rng = stream(1, "release").rng()
    weights = {name: 0.6 * rng.standard_normal(shape) for name, shape in shapes(kind).items()}
    safetensors.numpy.save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIGURATIONS[kind] | changes), encoding="utf-8")
    return weights


def logits(folder: Path) -> Tensor:
    stored = load_released(folder, torch.float64)
    assert stored.mask == "causal"
    with torch.no_grad():
        return stored.transformer(torch.from_numpy(IDS)[None], masks.causal(IDS.shape[1]))[0]


def gap(first: Tensor, second: Tensor) -> float:
    assert first.shape == second.shape
    return float((first - second).abs().max())


@pytest.mark.parametrize("kind", IN_NUMPY)
def test_logits_are_those_of_the_architecture_in_numpy(kind: str, tmp_path: Path) -> None:
    weights = release(tmp_path, kind)
    expected = torch.from_numpy(IN_NUMPY[kind](weights))
    assert float(expected.std()) > 0.1
    assert gap(logits(tmp_path), expected) < ROUNDING


@pytest.mark.parametrize("kind", CONFIGURATIONS)
def test_logits_are_those_of_the_library(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own code and its own files; norms, softmax and angles, which it computes in float32, are given float64 instead."""
    library = pytest.importorskip(
        "transformers", reason="transformers is not installed (pip install 'theory-lab[diagnose]')"
    )
    values = dict(CONFIGURATIONS[kind])
    config = library.AutoConfig.for_model(values.pop("model_type"), **values, attn_implementation="eager")
    for name in ("float32", "float"):
        monkeypatch.setattr(torch, name, torch.float64)
    monkeypatch.setattr(Tensor, "float", Tensor.double)
    model = library.AutoModelForCausalLM.from_config(config).double().eval()
    rng = stream(2, "release").rng()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.from_numpy(0.6 * rng.standard_normal(parameter.shape)))
        expected = model(input_ids=torch.from_numpy(IDS), use_cache=False).logits
    model.save_pretrained(tmp_path)
    assert gap(logits(tmp_path), expected) < ROUNDING


def test_older_files_say_the_same_in_other_words(tmp_path: Path) -> None:
    """Rotary options at the top level, masks among the tensors, several parts and an index, no prefix of the names."""
    release(tmp_path / "new", "gpt_neox")
    weights = release(tmp_path / "old", "gpt_neox", rotary_emb_base=10_000, rotary_pct=0.5, rope_parameters=None)
    folder = tmp_path / "old"
    weights = {name.removeprefix("gpt_neox."): value for name, value in weights.items()}
    weights["layers.0.attention.bias"] = np.ones((1, 1, 4, 4))
    (folder / "model.safetensors").unlink()
    parts = {f"model-{part}.safetensors": dict(list(weights.items())[part::2]) for part in range(2)}
    for file, held in parts.items():
        safetensors.numpy.save_file(held, folder / file)
    index = {"weight_map": {name: file for file, held in parts.items() for name in held}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    assert gap(logits(folder), logits(tmp_path / "new")) == 0


def test_a_tied_read_out_is_the_embedding(tmp_path: Path) -> None:
    weights = release(tmp_path, "llama", tie_word_embeddings=True)
    tied = weights | {"lm_head.weight": weights["model.embed_tokens.weight"]}
    assert gap(logits(tmp_path), torch.from_numpy(llama(tied))) < ROUNDING


def rewritten(folder: Path, change: Callable[[Weights], Any]) -> None:
    weights = safetensors.numpy.load_file(folder / "model.safetensors")
    change(weights)
    safetensors.numpy.save_file(weights, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("kind", "values", "sentence"),
    [
        ("llama", {"model_type": "mamba"}, "model_type = 'mamba', but it must be one of gpt2, gpt_neox, llama"),
        ("llama", {"model_type": "lama"}, "did you mean 'llama'?"),
        ("llama", {"hidden_act": "mish"}, "hidden_act = 'mish', but it must be one of gelu"),
        ("llama", {"hidden_size": "8"}, "hidden_size = '8', but it must be a whole number"),
        ("llama", {"num_hidden_layers": 10**9}, "lacks the tensor 'model.layers.2.input_layernorm.weight'"),
        ("llama", {"intermediate_size": 13}, "the shape [12, 8], but by its config.json it must have [13, 8]"),
        ("llama", {"attention_bias": True}, "lacks the tensor 'model.layers.0.self_attn.q_proj.bias'"),
        ("llama", {"num_hidden_layers": 1}, "which its config.json does not speak of (9 such tensors)"),
        ("llama", {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "rope_type = 'yarn'"),
        ("llama", {"num_key_value_heads": 3}, "key_value_heads = 3"),
        ("llama", {"rms_norm_eps": -1}, "rms_norm_eps = -1, but it must be a number greater than 0"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx = True"),
        ("gpt_neox", {"use_parallel_residual": "yes"}, "must be true or false"),
    ],
)  # fmt: skip
def test_a_configuration_that_does_not_fit_is_one_sentence(
    kind: str, values: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    release(tmp_path, kind, **values)
    with pytest.raises(LabError) as caught:
        load_released(tmp_path)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_damaged_is_one_sentence(tmp_path: Path) -> None:
    def refused(sentence: str) -> None:
        with pytest.raises(LabError) as caught:
            load_released(tmp_path)
        assert sentence in str(caught.value)

    refused("holds no config.json")
    release(tmp_path, "gpt2")
    rewritten(tmp_path, lambda weights: weights.pop("transformer.wpe.weight"))
    refused("lacks the tensor 'transformer.wpe.weight' of shape [9, 8]")
    release(tmp_path, "gpt2")
    rewritten(tmp_path, lambda weights: weights["transformer.ln_f.bias"].fill(np.nan))
    refused("8 of 8 weights that are not finite")
    (tmp_path / "model.safetensors").write_bytes(b"nothing of the kind")
    refused("damaged safetensors file")
    (tmp_path / "model.safetensors").unlink()
    torch.save({"weight": torch.ones(2)}, tmp_path / "pytorch_model.bin")
    refused("pytorch_model.bin is a pickle, and reading one can execute code")
    (tmp_path / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "../b.safetensors"}}', encoding="utf-8"
    )
    refused("'../b.safetensors', which is no file of this folder")
    (tmp_path / "config.json").write_text("[1]", encoding="utf-8")
    refused("holds list, not names and values")
    with pytest.raises(LabError, match="there is no folder"):
        load_released(tmp_path / "none")
