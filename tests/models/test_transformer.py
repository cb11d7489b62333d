"""The transformer: against torch's own, models of an ensemble apart, cache, recording, explicit weights."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lab.errors import LabError
from lab.models import masks
from lab.models.attention import Visible
from lab.models.transformer import ACTIVATIONS, Architecture, KeyValueCache, Transformer, initial_weight, stack
from lab.streams import RandomStream, stream

ROUNDING = 1e-10  # float64, two orders of the same sums in a net of at most 4 layers of width 12
BASE = Architecture(width=12, layers=2, heads=3, input_size=5, output_size=2)
IDS = dataclasses.replace(BASE, input_size=None, vocabulary=7, output_size=7)
# one change at a time; every option of the architecture occurs
VARIANTS: dict[str, Architecture] = {
    "base": BASE,
    "ids": IDS,
    "tied": dataclasses.replace(IDS, tie_embedding=True),
    "stream_is_input": dataclasses.replace(BASE, input_size=None, output_size=None),
    "linear": dataclasses.replace(BASE, attention="linear"),
    "kernel": dataclasses.replace(BASE, attention="kernel", norm="stream", head_size=2, heads=2),
    "merged": dataclasses.replace(BASE, attention_matrices="merged", heads=1),
    "merged_linear": Architecture(
        width=4, layers=3, attention="linear", attention_matrices="merged", mlp_ratio=0, norm="none"
    ),
    "relu_without_biases": dataclasses.replace(BASE, activation="relu", bias=False, norm="none"),
    "attention_only": dataclasses.replace(BASE, mlp_ratio=0, norm="stream"),
    "gelu_tanh": dataclasses.replace(BASE, activation="gelu_tanh"),
    "output_bias": dataclasses.replace(BASE, output_bias=True, initialisation="fan_in_uniform"),
    "learned": dataclasses.replace(BASE, positions="learned", maximum_length=9),
    "sinusoidal": dataclasses.replace(BASE, positions="sinusoidal"),
    "rotary": dataclasses.replace(BASE, positions="rotary"),
    "shared": dataclasses.replace(BASE, share_layers=True, layers=3),
    "no_layers": dataclasses.replace(IDS, layers=0),
    "rms": dataclasses.replace(BASE, norm_kind="rms", norm_epsilon=1e-6),
    "gated": dataclasses.replace(BASE, gated=True, activation="silu"),
    "rotary_share": dataclasses.replace(BASE, positions="rotary", rotary_share=0.5, rotary_base=500.0),
    "parallel": dataclasses.replace(BASE, parallel=True),
    "grouped": dataclasses.replace(BASE, heads=6, key_value_heads=2),
    "one_key": dataclasses.replace(BASE, key_value_heads=1, attention="linear", positions="rotary"),
    "by_layer": dataclasses.replace(BASE, attention_by_layer=("linear", "softmax"), windows=(None, 2)),
    "windows": dataclasses.replace(BASE, layers=3, share_layers=True, windows=(1, 3, None)),
}
ALL = pytest.mark.parametrize("architecture", VARIANTS.values(), ids=VARIANTS)


def prompts(architecture: Architecture, models: int, batch: int = 3, length: int = 6) -> Tensor:
    rng = stream(1, "prompts").rng()
    if architecture.vocabulary is not None:
        return torch.from_numpy(rng.integers(architecture.vocabulary, size=(models, batch, length)))
    size = architecture.width if architecture.input_size is None else architecture.input_size
    return torch.from_numpy(rng.standard_normal((models, batch, length, size)))


def build(architecture: Architecture, seeds: list[int]) -> Transformer:
    return Transformer(architecture, seeds, torch.float64)


def gap(first: Tensor, second: Tensor) -> float:
    assert first.shape == second.shape
    return float((first - second).detach().abs().max())


def arms() -> Tensor:
    """A mask a model: one causal, one prefix, one with a token that sees nothing."""
    blind = masks.causal(6)
    blind[2] = False
    return torch.stack([masks.causal(6), masks.prefix_lm(6, 4), blind])


@ALL
def test_models_of_an_ensemble_are_apart(architecture: Architecture) -> None:
    """Outputs and gradients of three fused models are those of each alone."""
    ensemble, tokens, mask = build(architecture, [3, 1, 4]), prompts(architecture, 3), arms()
    outputs = ensemble(tokens, mask)
    outputs.square().sum().backward()
    together = {name: parameter.grad for name, parameter in ensemble.named_parameters()}
    for place in range(3):
        alone = ensemble.select([place])
        output = alone(tokens[[place]], mask[place])
        assert gap(output, outputs[[place]]) < ROUNDING
        output.square().sum().backward()
        for name, parameter in alone.named_parameters():
            gradient, expected = parameter.grad, together[name]
            assert gradient is not None
            assert expected is not None
            assert gap(gradient, expected[[place]]) < ROUNDING * max(1.0, float(gradient.abs().max()))


@ALL
def test_recording_changes_nothing(architecture: Architecture) -> None:
    """The recorded path writes the softmax out; the other one is a fused kernel."""
    model, tokens, intermediates = build(architecture, [0, 2, 5]), prompts(architecture, 3), dict[str, Tensor]()
    fused, written = model(tokens, arms()), model(tokens, arms(), intermediates=intermediates)
    assert gap(fused, written) < ROUNDING
    assert gap(intermediates["output"], written) == 0
    for depth in range(architecture.layers):
        weights = intermediates[f"layers.{depth}.attention.weights"]
        assert weights.shape == (3, 3, architecture.heads, 6, 6)
        assert bool((weights[~arms()[:, None, None].expand_as(weights)] == 0).all())
        if architecture.kind_at(depth) != "linear":
            nonempty = arms().any(-1)[:, None, None].expand(weights.shape[:-1])
            assert gap(weights.sum(-1), nonempty.double()) < ROUNDING
    last = "embedding" if architecture.layers == 0 else f"layers.{architecture.layers - 1}.residual"
    assert gap(model.read(intermediates[last]), written) == 0


@ALL
@pytest.mark.parametrize("pattern", ["causal", "prefix"])
def test_cache_equals_the_full_pass(architecture: Architecture, pattern: str) -> None:
    """Prompt of four tokens first, then one token at a time."""
    model, tokens = build(architecture, [0, 2]), prompts(architecture, 2)
    mask = masks.causal(6) if pattern == "causal" else masks.prefix_lm(6, 4)
    cache = KeyValueCache()
    pieces = [
        model(tokens[:, :, first:last], mask[first:last, :last], cache=cache)
        for first, last in ((0, 4), (4, 5), (5, 6))
    ]
    assert cache.length == 6
    assert gap(torch.cat(pieces, dim=2), model(tokens, mask)) < ROUNDING


def test_cache_with_explicit_positions() -> None:
    """Positions that do not count from 0 go with the tokens, for every kind of positions."""
    positions, mask = (torch.tensor([[3, 4, 0, 1, 2, 7], [0, 0, 1, 1, 2, 2], [8, 6, 4, 2, 0, 1]]), masks.causal(6))
    for name in ("learned", "sinusoidal", "rotary"):
        model, tokens, cache = build(VARIANTS[name], [0, 2]), prompts(VARIANTS[name], 2), KeyValueCache()
        outputs = model(tokens, mask, positions)
        pieces = [
            model(tokens[:, :, first:last], mask[first:last, :last], positions[:, first:last], cache=cache)
            for first, last in ((0, 3), (3, 6))
        ]
        assert gap(torch.cat(pieces, dim=2), outputs) < ROUNDING
        assert gap(outputs[:, [1]], model(tokens[:, [1]], mask, positions[1])) < ROUNDING
        assert gap(outputs, model(tokens, mask, positions.expand(2, 3, 6))) < ROUNDING
        assert gap(outputs, model(tokens, mask)) > 1e-3
        assert gap(model(tokens, mask), model(tokens, mask, torch.arange(6))) < ROUNDING


def test_rotary_depends_on_differences_of_positions_only() -> None:
    model, tokens, mask = build(VARIANTS["rotary"], [0]), prompts(BASE, 1), masks.full(6)
    assert gap(model(tokens, mask), model(tokens, mask, torch.arange(6) + 11)) < ROUNDING
    assert gap(model(tokens, mask), model(tokens, mask, torch.arange(6) * 2)) > 1e-3


def test_rotary_angles_keep_their_place_in_a_turn_at_far_positions() -> None:
    """In float32 too: 6e-4 of a turn is lost at position 100,000 where angles are rounded before their cosines."""
    architecture = dataclasses.replace(VARIANTS["rotary"], layers=1, norm="none", mlp_ratio=0.0)
    model, tokens, mask = Transformer(architecture, [0]), prompts(BASE, 1), masks.full(6)
    near = model(tokens.float(), mask)
    assert gap(near, model(tokens.float(), mask, torch.arange(6) + 1_000_000)) < 1e-5


@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_equals_the_encoder_of_torch(activation: str) -> None:
    """Pre-norm blocks with all biases are torch's own, written there in column convention."""
    architecture = dataclasses.replace(BASE, input_size=None, output_size=None, activation=activation)
    model = build(architecture, [8])
    layer = nn.TransformerEncoderLayer(12, 3, 48, 0.0, activation, batch_first=True, norm_first=True)
    reference = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(12), enable_nested_tensor=False).double()
    rng = stream(2, "noise").rng()  # biases and layer norms that are not 0 and 1
    noisy = {
        name: parameter.detach() + torch.from_numpy(0.3 * rng.standard_normal(parameter.shape))
        for name, parameter in model.named_parameters()
    }
    # both libraries name the two blocks "layers.0." and "layers.1."
    w = {name: parameter[0].t() for name, parameter in noisy.items()}
    state = {"norm.weight": w["final_norm.weight"], "norm.bias": w["final_norm.bias"]}
    for block in ("layers.0.", "layers.1."):
        for kind in ("weight", "bias"):
            projections = [w[f"{block}attention.{part}.{kind}"] for part in ("query", "key", "value")]
            state[f"{block}self_attn.in_proj_{kind}"] = torch.cat(projections)
            state[f"{block}self_attn.out_proj.{kind}"] = w[f"{block}attention.output.{kind}"]
            state[f"{block}linear1.{kind}"] = w[f"{block}mlp.hidden.{kind}"]
            state[f"{block}linear2.{kind}"] = w[f"{block}mlp.output.{kind}"]
            state[f"{block}norm1.{kind}"] = w[f"{block}attention_norm.{kind}"]
            state[f"{block}norm2.{kind}"] = w[f"{block}mlp_norm.{kind}"]
    reference.load_state_dict(state)
    tokens, mask = prompts(architecture, 1), masks.prefix_lm(6, 3)
    assert gap(model.load_weights(noisy)(tokens, mask)[0], reference(tokens[0], mask=~mask)) < ROUNDING


def test_linear_and_kernel_attention_are_their_formulas() -> None:
    tokens, mask = prompts(VARIANTS["stream_is_input"], 1), masks.prefix_lm(6, 2)
    for kind in ("linear", "kernel"):
        architecture = Architecture(width=12, layers=1, heads=2, attention=kind, mlp_ratio=0, norm="none", bias=False)
        model = build(architecture, [3])
        w = {name.split(".")[-2]: parameter[0] for name, parameter in model.named_parameters()}
        q, k, v = ((tokens[0] @ w[part]).unflatten(-1, (2, 6)).transpose(1, 2) for part in ("query", "key", "value"))
        if kind == "linear":
            weights = torch.einsum("bhid,bhjd->bhij", q, k) * mask
        else:
            distances = (q[..., :, None, :] / math.sqrt(6) - k[..., None, :, :]).square().sum(-1)
            weights = torch.exp(-distances / 2) * mask
            weights = weights / weights.sum(-1, keepdim=True)
        update = (weights @ v).transpose(1, 2).flatten(2) @ w["output"]
        assert gap(model(tokens, mask)[0], tokens[0] + update) < ROUNDING


@pytest.mark.parametrize("attention", ["softmax", "linear", "kernel"])
def test_merged_is_factored_with_identity_keys_and_values(attention: str) -> None:
    factored = Architecture(width=6, layers=2, attention=attention, bias=False)
    merged = dataclasses.replace(factored, attention_matrices="merged")
    few = build(merged, [4])
    identity = {
        f"layers.{depth}.attention.{part}.weight": torch.eye(6) for depth in (0, 1) for part in ("key", "value")
    }
    shared = {name: parameter.detach() for name, parameter in few.named_parameters()}
    many = build(factored, [9]).load_weights(identity | shared)
    tokens = prompts(merged, 1)
    assert gap(few(tokens, masks.causal(6)), many(tokens, masks.causal(6))) < ROUNDING


def with_noise(model: Transformer) -> dict[str, Tensor]:
    """The weights [model, ...] set to numbers of no pattern, norms and biases too."""
    rng = stream(2, "noise").rng()
    values = {
        name: value.detach() + torch.from_numpy(0.3 * rng.standard_normal(value.shape))
        for name, value in model.named_parameters()
    }
    model.load_weights(values)
    return values


def test_rms_norm_is_its_formula() -> None:
    model, tokens = (
        build(dataclasses.replace(VARIANTS["rms"], layers=0, input_size=None), [4]),
        prompts(VARIANTS["stream_is_input"], 1),
    )
    weights = with_noise(model)
    assert set(weights) == {"final_norm.weight", "read_out.weight"}
    scale = (tokens.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
    expected = (tokens * scale * weights["final_norm.weight"][0]) @ weights["read_out.weight"]
    assert gap(model(tokens, masks.causal(6)), expected) < ROUNDING


@pytest.mark.parametrize(
    ("activation", "formula"), [("silu", lambda x: x * torch.sigmoid(x)), ("gelu", lambda x: x * torch.special.ndtr(x))]
)
def test_a_gated_mlp_is_its_formula(activation: str, formula: Callable[[Tensor], Tensor]) -> None:
    """SwiGLU and GeGLU: (activation(x G + a) * (x U + b)) V + c, of a block whose attention adds nothing."""
    architecture = dataclasses.replace(
        VARIANTS["stream_is_input"], layers=1, norm="none", gated=True, activation=activation
    )
    model, tokens = build(architecture, [4]), prompts(architecture, 1)
    w = {name.removeprefix("layers.0."): value[0] for name, value in with_noise(model).items()}
    silent = {
        f"layers.0.attention.output.{kind}": torch.zeros_like(w[f"attention.output.{kind}"])
        for kind in ("weight", "bias")
    }
    gate, linear = (tokens @ w[f"mlp.{part}.weight"] + w[f"mlp.{part}.bias"] for part in ("gate", "hidden"))
    added = (formula(gate) * linear) @ w["mlp.output.weight"] + w["mlp.output.bias"]
    assert gap(model.load_weights(silent)(tokens, masks.causal(6)), tokens + added) < ROUNDING


def test_a_parallel_block_adds_what_both_say_of_its_input() -> None:
    parallel = build(dataclasses.replace(VARIANTS["parallel"], layers=1), [3])
    weights = with_noise(parallel)
    one_by_one = build(dataclasses.replace(BASE, layers=1), [3]).load_weights(weights)
    tokens, recordings = prompts(BASE, 1), [dict[str, Tensor](), dict[str, Tensor]()]
    for model, noted in zip((parallel, one_by_one), recordings, strict=True):
        model(tokens, masks.causal(6), intermediates=noted)
    (recorded, _), block = recordings, parallel.layers[0]
    read = block.mlp_norm(recorded["embedding"])
    added = block.attention(block.attention_norm(recorded["embedding"]), visible(parallel), None, 0, None, None)
    assert gap(recorded["layers.0.residual"], recorded["embedding"] + added + block.mlp(read, 0, None)) < ROUNDING
    assert gap(recordings[0]["layers.0.attention.output"], recordings[1]["layers.0.attention.output"]) == 0
    assert gap(recordings[0]["layers.0.mlp.output"], recordings[1]["layers.0.mlp.output"]) > 1e-3


def visible(model: Transformer) -> Visible:
    return model._visible(masks.causal(6), 3, 6, 6)


def test_grouped_queries_are_heads_with_the_same_keys_and_values() -> None:
    grouped = build(VARIANTS["grouped"], [3])
    weights = with_noise(grouped)
    for name, value in list(weights.items()):
        if ".key." in name or ".value." in name:
            weights[name] = value.unflatten(-1, (2, 1, 2)).expand(*value.shape[:-1], 2, 3, 2).flatten(-3)
    ungrouped = build(dataclasses.replace(BASE, heads=6), [3]).load_weights(weights)
    tokens = prompts(BASE, 1)
    assert gap(grouped(tokens, masks.causal(6)), ungrouped(tokens, masks.causal(6))) < ROUNDING
    assert grouped.parameter_count == ungrouped.parameter_count - 2 * 2 * (12 + 1) * 8


def test_rotary_turns_the_first_coordinates_by_powers_of_its_base() -> None:
    """Half of four coordinates of a head: one pair, turned by 1 radian a token; the base shows from the second pair on."""
    architecture = dataclasses.replace(VARIANTS["rotary_share"], layers=1, norm="none", mlp_ratio=0.0)
    model, tokens, noted = build(architecture, [3]), prompts(BASE, 1), dict[str, Tensor]()
    model(tokens, masks.causal(6), intermediates=noted)
    still = dict[str, Tensor]()
    build(dataclasses.replace(architecture, positions="none"), [3])(tokens, masks.causal(6), intermediates=still)
    name, place = "layers.0.attention.query", 5
    before, after = still[name][0, :, :, place], noted[name][0, :, :, place]
    turn = torch.tensor([[math.cos(place), math.sin(place)], [-math.sin(place), math.cos(place)]], dtype=torch.float64)
    assert gap(after[..., :2], before[..., :2] @ turn) < ROUNDING
    assert gap(after[..., 2:], before[..., 2:]) == 0
    full = dataclasses.replace(architecture, rotary_share=1.0)
    build(full, [3])(tokens, masks.causal(6), intermediates=noted)
    angle = place / math.sqrt(500.0)
    turn = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    assert gap(noted[name][0, :, :, place, 2:], before[..., 2:] @ turn) < ROUNDING


def test_layers_differ_in_kind_and_window() -> None:
    """Layer by layer the weights are those of a network that is of one kind, under a mask of that window."""
    architecture, tokens = VARIANTS["by_layer"], prompts(BASE, 1)
    mixed, noted = build(architecture, [3]), dict[str, Tensor]()
    mixed(tokens, masks.causal(6), intermediates=noted)
    for depth, (kind, pattern) in enumerate((("linear", masks.causal(6)), ("softmax", masks.sliding_window(6, 2)))):
        alone = build(dataclasses.replace(BASE, input_size=None, attention=kind, layers=1), [3])
        names = {
            f"layers.0.{part}": f"layers.{depth}.{part}" for part in ("attention_norm.weight", "attention_norm.bias")
        }
        names |= {
            f"layers.0.attention.{part}.{leaf}": f"layers.{depth}.attention.{part}.{leaf}"
            for part in ("query", "key", "value", "output")
            for leaf in ("weight", "bias")
        }
        alone.load_weights({target: mixed.get_parameter(source).detach() for target, source in names.items()})
        state, recorded = noted["embedding" if depth == 0 else "layers.0.residual"], dict[str, Tensor]()
        alone(state, pattern, intermediates=recorded)
        assert gap(recorded["layers.0.attention.weights"], noted[f"layers.{depth}.attention.weights"]) < ROUNDING


def test_merged_matrices_in_column_notation() -> None:
    """z_i + P V sum_j z_j (z_j^T K^T Q z_i), from query.weight = (K^T Q)^T and output.weight = (P V)^T."""
    rng, architecture = stream(3, "matrices").rng(), VARIANTS["merged_linear"]
    key_query, project_value = torch.from_numpy(rng.standard_normal((2, 4, 4)))
    model = Transformer.from_weights(
        dataclasses.replace(architecture, layers=1),
        {"layers.0.attention.query.weight": key_query.T, "layers.0.attention.output.weight": project_value.T},
    )
    z, mask = prompts(architecture, 1), masks.in_context_causal(4, 2)
    update = torch.einsum("ab,tjb,tjc,cd,tid,ij->tia", project_value, z[0], z[0], key_query, z[0], mask.double())
    assert gap(model(z, mask)[0], z[0] + update) < ROUNDING


def test_stream_norm_leaves_no_clean_skip() -> None:
    """With nothing added by attention and MLP the output is the normalised token."""
    zero = {
        f"layers.0.{part}.output.{kind}": torch.zeros(())
        for part in ("attention", "mlp")
        for kind in ("weight", "bias")
    }
    for norm in ("stream", "pre"):
        architecture = Architecture(width=12, layers=1, heads=3, norm=norm)
        model = build(architecture, [0])
        model.load_weights({name: value.expand(model.get_parameter(name).shape) for name, value in zero.items()})
        tokens, intermediates = prompts(architecture, 1), dict[str, Tensor]()
        model(tokens, masks.full(6), intermediates=intermediates)
        normed = torch.nn.functional.layer_norm(tokens, (12,))
        expected = torch.nn.functional.layer_norm(normed, (12,)) if norm == "stream" else tokens
        assert gap(intermediates["layers.0.residual"], expected) < ROUNDING


@pytest.mark.parametrize("attention", ["softmax", "linear", "kernel"])
def test_a_token_that_sees_nothing_gets_nothing(attention: str) -> None:
    """Not NaN and not the mean over all tokens, forwards and backwards; without biases exactly 0."""
    architecture = Architecture(width=12, layers=1, heads=3, attention=attention, mlp_ratio=0, norm="none", bias=False)
    model, mask = build(architecture, [0]), masks.causal(6)
    mask[[0, 3]] = False
    for intermediates in (None, dict[str, Tensor]()):
        tokens = prompts(architecture, 1).requires_grad_()
        output = model(tokens, mask, intermediates=intermediates)
        assert gap(output[:, :, [0, 3]], tokens[:, :, [0, 3]]) == 0
        assert gap(output[:, :, 5], tokens[:, :, 5]) > 1e-3
        (gradient,) = torch.autograd.grad(output[:, :, [0, 3]].sum(), tokens)
        assert torch.equal(gradient.nonzero()[:, 2].unique(), torch.tensor([0, 3]))


def test_initial_weights_depend_on_the_own_seed_only() -> None:
    for architecture in (IDS, VARIANTS["learned"], VARIANTS["output_bias"]):
        ensemble, alone = build(architecture, [5, 2, 5]), build(architecture, [5])
        tokens = prompts(architecture, 1)
        outputs = ensemble(tokens, masks.causal(6))
        assert gap(outputs[0], outputs[2]) == 0
        assert gap(outputs[0], outputs[1]) > 1e-3
        for name, parameter in ensemble.named_parameters():
            assert torch.equal(parameter[:1], alone.get_parameter(name))
            single = Transformer(architecture, [5]).get_parameter(name)
            assert torch.equal(single, alone.get_parameter(name).float())


def test_laws_of_the_initial_weights() -> None:
    """Standard deviations within 5 standard errors (s / sqrt(2 n)); uniform numbers within their bound."""
    name, shape = "layers.0.mlp.hidden.weight", (64, 256)
    for scale, deviation in ((None, 1 / 8), (0.02, 0.02)):
        architecture = Architecture(width=64, layers=1, initial_scale=scale)
        values = initial_weight(architecture, 0, name, shape)
        assert abs(values.std() / deviation - 1) < 5 / math.sqrt(2 * values.size)
        assert not initial_weight(architecture, 0, "layers.0.mlp.hidden.bias", (256,)).any()
    uniform = Architecture(width=64, layers=1, initialisation="fan_in_uniform")
    for uniform_name, size in ((name, shape), ("positions", (40, 64)), ("read_out.bias", (64,))):
        values = initial_weight(uniform, 0, uniform_name, size) * math.sqrt(size[0])
        assert 0.9 < np.abs(values).max() <= 1
    assert (initial_weight(uniform, 0, "final_norm.weight", (64,)) == 1).all()


def test_shared_layers_are_one_block_repeated() -> None:
    shared = build(VARIANTS["shared"], [6])
    unshared = build(dataclasses.replace(VARIANTS["shared"], share_layers=False), [1])
    weights = {name: parameter.detach() for name, parameter in shared.named_parameters()}
    for name, value in list(weights.items()):
        for depth in (1, 2):
            weights[name.replace("layers.0.", f"layers.{depth}.")] = value
    tokens = prompts(BASE, 1)
    assert gap(shared(tokens, masks.causal(6)), unshared.load_weights(weights)(tokens, masks.causal(6))) == 0
    assert shared.parameter_count < unshared.parameter_count


def test_masks_of_every_shape_agree() -> None:
    model, tokens, lengths = build(BASE, [0, 1]), prompts(BASE, 2), torch.tensor([2, 4, 6])
    each = masks.prefix_masks(6, lengths)
    by_prompt = model(tokens, each.unsqueeze(0))
    assert gap(by_prompt, model(tokens, each.expand(2, 3, 6, 6))) < ROUNDING
    for prompt in range(3):
        assert gap(by_prompt[:, [prompt]], model(tokens[:, [prompt]], each[prompt])) < ROUNDING
    assert gap(model(tokens, each[:1]), model(tokens, each[0].expand(2, 6, 6))) < ROUNDING
    assert gap(model(tokens[:1], each[0]), model(tokens[:1].expand(2, -1, -1, -1), each[0])) == 0


@pytest.mark.parametrize(("width", "count"), [(64, 102_464), (32, 26_656)])
def test_parameters_of_the_addition_model(width: int, count: int) -> None:
    """A pre-norm decoder with biases everywhere but in the read-out: the two sizes of the addition task."""
    architecture = Architecture(
        width, layers=2, heads=2, vocabulary=14, output_size=14, positions="learned", maximum_length=9
    )
    assert Transformer(architecture, [0, 1]).parameter_count == count


def test_dropout_is_a_model_s_own_and_keeps_the_mean() -> None:
    architecture = dataclasses.replace(BASE, dropout=0.25)
    model, tokens, mask = build(architecture, [0, 0]), prompts(architecture, 1, batch=400), masks.causal(6)
    plain, dropped = model(tokens, mask), model(tokens, mask, dropout=[1, 2])
    assert gap(plain[0], plain[1]) == 0
    assert gap(dropped[0], dropped[1]) > 1e-3
    assert gap(dropped, model(tokens, mask, dropout=torch.tensor([1, 2]))) == 0
    assert gap(dropped[[1]], model.select([1])(tokens, mask, dropout=[2])) < ROUNDING
    intermediates: dict[str, Tensor] = {}
    model(tokens, mask, intermediates=intermediates)
    before = intermediates["embedding"]
    model(tokens, mask, intermediates=intermediates, dropout=[1, 2])
    kept = intermediates["embedding"] != 0
    # a binomial share of 28 800 numbers, 5 standard deviations
    assert abs(float(kept[0].double().mean()) - 0.75) < 5 * math.sqrt(0.75 * 0.25 / kept[0].numel())
    assert gap(intermediates["embedding"][kept], before[kept] / 0.75) < ROUNDING


def test_dropped_attention_weights_are_the_only_thing_dropped() -> None:
    """The first layer's attention output, computed anew from weights that are dropped by hand with the same numbers."""
    architecture = dataclasses.replace(BASE, layers=1, attention_dropout=0.25)
    model, tokens, mask = build(architecture, [0, 0]), prompts(architecture, 1, batch=40), masks.causal(6)
    intermediates: dict[str, Tensor] = {}
    model(tokens, mask, intermediates=intermediates, dropout=[1, 2])
    weights, value = (intermediates[f"layers.0.attention.{name}"] for name in ("weights", "value"))
    draws = [
        RandomStream(seed, ("dropout", "layers.0.attention.weights")).rng().random(weights.shape[1:], np.float32)
        for seed in (1, 2)
    ]
    kept = torch.from_numpy(np.stack(draws) >= 0.25)
    attended = (weights * kept / 0.75 @ value).transpose(2, 3).flatten(3)
    output = model.layers[0].attention.output(attended)
    assert gap(intermediates["layers.0.attention.output"], output) < ROUNDING
    assert gap(model(tokens, mask), build(dataclasses.replace(BASE, layers=1), [0, 0])(tokens, mask)) == 0


def test_the_two_gelus_differ_by_less_than_a_thousandth() -> None:
    exact, tanh = (build(dataclasses.replace(BASE, activation=name), [0]) for name in ("gelu", "gelu_tanh"))
    tokens = prompts(BASE, 1)
    assert 0 < gap(exact(tokens, masks.causal(6)), tanh(tokens, masks.causal(6))) < 1e-2
    x = torch.linspace(-6, 6, 1201, dtype=torch.float64)
    by_hand = 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    assert float((ACTIVATIONS["gelu_tanh"](x) - by_hand).abs().max()) < 1e-15
    assert float((ACTIVATIONS["gelu"](x) - by_hand).abs().max()) < 1e-3


def test_select_and_stack_copy_models() -> None:
    ensemble, tokens = build(BASE, [0, 1, 2]), prompts(BASE, 1)
    again = stack([ensemble.select([2]), ensemble.select([0, 1])])
    assert again.models == 3
    assert gap(again(tokens, masks.causal(6)), ensemble(tokens, masks.causal(6))[[2, 0, 1]]) < ROUNDING
    with torch.no_grad():
        again.get_parameter("read_out.weight").zero_()
    assert bool(ensemble.get_parameter("read_out.weight").any())
    assert [name for name, _ in again.named_parameters()] == [name for name, _ in ensemble.named_parameters()]
    assert all(parameter.requires_grad for parameter in again.parameters())


def test_explicit_weights() -> None:
    """Unnamed parameters are 0, layer norms the identity; a model axis is optional."""
    value = torch.arange(24.0).view(12, 2)
    model = Transformer.from_weights(BASE, {"read_out.weight": value}, models=2)
    assert model.get_parameter("read_out.weight").shape == (2, 12, 2)
    assert not model(prompts(BASE, 2), masks.causal(6)).any()
    both = torch.stack([value, -value])
    assert torch.equal(model.load_weights({"read_out.weight": both}).get_parameter("read_out.weight"), both.double())


ERRORS: list[tuple[dict[str, Any], str]] = [
    ({"width": 0}, "width = 0"),
    ({"heads": 0}, "heads = 0"),
    ({"heads": 5}, "heads = 5"),
    ({"attention": "cosine"}, "attention = 'cosine'"),
    ({"attention_matrices": "merged"}, "heads = 3"),
    ({"vocabulary": 3}, "input_size = 5"),
    ({"positions": "learned"}, "maximum_length = None"),
    ({"positions": "rotary", "head_size": 3}, "positions = 'rotary'"),
    ({"positions": "sinusoidal", "width": 9}, "width = 9"),
    ({"tie_embedding": True}, "vocabulary = None"),
    ({"output_bias": True, "output_size": None}, "output_bias = True"),
    ({"dropout": 1.0}, "dropout = 1.0"),
    ({"key_value_heads": 2}, "key_value_heads = 2"),
    ({"attention_by_layer": ("linear",)}, "one entry for each of 2 layers"),
    ({"attention_by_layer": ("linear", "cosine")}, "of softmax, linear, kernel"),
    ({"windows": (None, 0)}, "numbers at least 1"),
    ({"parallel": True, "norm": "stream"}, "parallel = True"),
    ({"gated": True, "mlp_ratio": 0.0}, "gated = True"),
    ({"norm_kind": "batch"}, "norm_kind = 'batch'"),
    ({"positions": "rotary", "rotary_share": 0.3}, "rotary_share = 0.3"),
    ({"positions": "rotary", "rotary_base": 1.0}, "rotary_base = 1.0"),
]


@pytest.mark.parametrize(("change", "message"), ERRORS)
def test_impossible_architectures(change: dict[str, Any], message: str) -> None:
    with pytest.raises(LabError, match=message):
        dataclasses.replace(BASE, **change)


@pytest.mark.usefixtures("unchecked")
def test_impossible_calls() -> None:
    model, ids, long = build(BASE, [0, 1]), build(IDS, [0, 1]), build(VARIANTS["learned"], [0])
    turned = build(VARIANTS["rotary"], [0])
    tokens, numbers, mask = prompts(BASE, 2), prompts(IDS, 2), masks.causal(6)
    for call, message in (
        (lambda: model(tokens[..., :4], mask), "size 4"),
        (lambda: model(numbers, mask), "Tokens have the shape"),
        (lambda: model(tokens.float(), mask), "torch.float32"),
        (lambda: model(tokens, mask[:, :5]), r"The mask has the shape \(6, 5\)"),
        (lambda: model(tokens, mask.expand(3, 6, 6)), "2 models and 3 prompts"),
        (lambda: ids(numbers + 1, mask), "the vocabulary is 7"),
        (lambda: long(prompts(BASE, 1, length=10), masks.causal(10)), "maximum_length = 9"),
        (lambda: long(tokens[:1], mask, torch.arange(6) + 4), "maximum_length is 9"),
        (lambda: long(tokens[:1], mask, torch.arange(6.0)), "Positions are torch.float32"),
        (lambda: turned(tokens[:1], mask, torch.arange(6.0)), "Positions are torch.float32"),
        (lambda: model.select([2]), r"Models \[2\]"),
        (lambda: stack([model, ids]), "one architecture"),
        (lambda: model.load_weights({"embedding": tokens}), "no parameter 'embedding'"),
        (lambda: model.load_weights({"read_out.weight": tokens}), "read_out.weight has the shape"),
        (lambda: Transformer(BASE, []), "at least 1 seed"),
    ):
        with pytest.raises(LabError, match=message):
            call()
