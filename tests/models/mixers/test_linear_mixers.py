"""Linear attention, LION and fast weights against plain loops, in the transformer, and their gradients and costs."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lab.errors import LabError
from lab.models import masks
from lab.models.mixers.bidirectional import BidirectionalLinearAttention, two_sided_decay
from lab.models.mixers.costs import multiply_adds, saved_numbers
from lab.models.mixers.fast_weights import DeltaRule
from lab.models.mixers.interface import Mixer
from lab.models.mixers.layer import MixerAttention, mixing_transformer
from lab.models.mixers.linear import DecayedLinearAttention, LinearAttention
from lab.models.mixers.linear_gradient import causal_sums
from lab.models.mixers.softmax import SoftmaxAttention
from lab.models.mixers.unit_keys import UnitDeltaRule
from lab.models.transformer import Architecture, Transformer
from lab.streams import stream

few = settings(deadline=None, max_examples=15, derandomize=True)


def drawn(length: int, seed: int = 0, **gates: int) -> dict[str, Tensor]:
    rng = stream(seed, "streams").rng()
    sizes = {"query": 3, "key": 3, "value": 2}
    streams = {name: torch.from_numpy(rng.standard_normal((1, 1, 1, length, size))) for name, size in sizes.items()}
    return streams | {name: torch.from_numpy(1 - rng.random((1, 1, 1, length, size))) for name, size in gates.items()}


@few
@given(length=st.integers(1, 9), prefix=st.integers(0, 9), chunk=st.integers(1, 10), seed=st.integers(0, 99))
def test_decayed_attention_is_the_plain_double_loop(length: int, prefix: int, chunk: int, seed: int) -> None:
    streams, mixer = drawn(length, seed, decay=1), DecayedLinearAttention()
    mask = masks.prefix_lm(length, min(prefix, length))
    query, key = (torch.nn.functional.elu(streams[name][0, 0, 0]) + 1 for name in ("query", "key"))
    expected = torch.zeros(length, 2, dtype=torch.float64)
    for i in range(length):
        end = max(i + 1, min(prefix, length))
        weights = [
            float(query[i] @ key[j]) * math.prod(float(decay) for decay in streams["decay"][0, 0, 0, j + 1 : end, 0])
            for j in range(end)
        ]
        expected[i] = sum(w * streams["value"][0, 0, 0, j] for j, w in enumerate(weights)) / sum(weights)
    for form in ("parallel", "recurrent", "chunked"):
        assert torch.allclose(mixer.run(form, streams, mask, chunk)[0, 0, 0], expected, rtol=1e-10, atol=1e-12)


@few
@given(length=st.integers(1, 8), seed=st.integers(0, 99))
def test_two_sided_decays_are_products(length: int, seed: int) -> None:
    decay = drawn(length, seed, decay=1)["decay"][0, 0, 0, :, 0]
    products = two_sided_decay(decay)
    for i in range(length):
        for j in range(length):
            between = decay[j:i] if i > j else decay[i + 1 : j + 1]
            assert float(products[i, j]) == pytest.approx(float(between.prod()), rel=1e-12)
    assert torch.equal(two_sided_decay(decay, source=False), products.T)


def test_a_last_chunk_of_one_token_is_no_trouble() -> None:
    streams, full = drawn(9, decay=1), masks.full(9)
    mixer = BidirectionalLinearAttention()
    assert torch.allclose(mixer.run("chunked", streams, full, 4), mixer.run("parallel", streams, full))


def test_extreme_decays_leave_gradients_finite() -> None:
    streams = drawn(40, decay=1)
    streams["decay"] = torch.full_like(streams["decay"], 1e-30).requires_grad_()
    for mixer, mask in ((BidirectionalLinearAttention(), masks.full(40)), (DecayedLinearAttention(), masks.causal(40))):
        (gradient,) = torch.autograd.grad(mixer.parallel(streams, mask).sum(), streams["decay"])
        assert gradient.isfinite().all()


def test_the_delta_rule_answers_exactly_what_it_wrote_last() -> None:
    streams = drawn(6, rate=1)
    streams["query"] = streams["key"]
    streams["rate"] = 1 / streams["key"].square().sum(-1, keepdim=True)
    assert torch.allclose(DeltaRule().run("recurrent", streams, masks.causal(6)), streams["value"])
    streams["rate"] = torch.ones_like(streams["rate"])
    assert torch.allclose(UnitDeltaRule().run("recurrent", streams, masks.causal(6)), streams["value"])


def test_the_delta_rule_of_directions_forgets_lengths() -> None:
    streams = drawn(6, rate=1)
    streams["rate"] = streams["rate"].sigmoid()
    longer = {**streams, "key": 7 * streams["key"], "query": 3 * streams["query"]}
    outputs = UnitDeltaRule().run("parallel", streams, masks.causal(6))
    assert torch.allclose(UnitDeltaRule().run("parallel", longer, masks.causal(6)), outputs)
    assert float(outputs.abs().max()) <= 2 * float(streams["value"].norm(dim=-1).sum())


@pytest.mark.parametrize(
    ("attention", "mixer", "pattern"),
    [
        ("linear", lambda: LinearAttention("identity", normalised=False), masks.causal(6)),
        ("linear", lambda: LinearAttention("identity", normalised=False), masks.in_context_prefix(0, 6)),
        ("softmax", SoftmaxAttention, masks.prefix_lm(6, 3)),
        ("softmax", SoftmaxAttention, torch.stack([masks.causal(6), masks.full(6)])),
    ],
)
def test_a_mixer_in_the_transformer_is_its_attention(attention: str, mixer: Any, pattern: Tensor) -> None:
    architecture = Architecture(width=8, layers=2, heads=2, mlp_ratio=1, attention=attention)
    tokens = torch.from_numpy(stream(0, "tokens").rng().standard_normal((1, 3, 6, 8)))
    expected = Transformer(architecture, [3, 4], torch.float64)(tokens, pattern)
    outputs = mixing_transformer(architecture, [3, 4], mixer, torch.float64)(tokens, pattern)
    assert torch.allclose(outputs, expected, rtol=1e-12, atol=1e-12)


def test_gates_are_weights_of_their_own_seed() -> None:
    architecture = Architecture(width=8, layers=2, heads=2)
    together = mixing_transformer(architecture, [3, 4], DecayedLinearAttention)
    alone = mixing_transformer(architecture, [4], DecayedLinearAttention)
    names = [name for name, _ in together.named_parameters() if "gate" in name]
    assert len(names) == 4
    for name, parameter in together.select([1]).named_parameters():
        assert torch.equal(parameter, dict(alone.named_parameters())[name])
    weight = dict(together.named_parameters())["layers.0.attention.gate_weight.decay"]
    assert weight.shape == (2, 8, 2)
    assert float(weight.detach().std()) > 0


def test_what_a_transformer_of_mixers_cannot_do_is_refused() -> None:
    class Odd(LinearAttention):
        streams = {**LinearAttention.streams, "colour": None}

    odd: Any = Odd
    with pytest.raises(LabError, match="give every other stream its range"):
        mixing_transformer(Architecture(width=8, layers=1), [0], odd)
    with pytest.raises(LabError, match="needs factored attention matrices"):
        mixing_transformer(Architecture(width=8, layers=1, attention_matrices="merged"), [0], LinearAttention)
    rotary = mixing_transformer(Architecture(width=8, layers=1, positions="rotary"), [0], LinearAttention)
    assert isinstance(rotary.layers[0].attention, MixerAttention)
    with pytest.raises(LabError, match="neither rotary positions"):
        rotary(torch.zeros(1, 1, 3, 8), masks.causal(3))


@pytest.mark.parametrize("chunk", [1, 3, 64])
def test_gradients_by_two_recurrences(chunk: int) -> None:
    inputs = [tensor[0].requires_grad_() for tensor in drawn(7).values()]
    assert torch.autograd.gradcheck(lambda *tensors: causal_sums(*tensors, chunk=chunk), inputs)


def test_costs_are_counted() -> None:
    left, right = torch.ones(3, 4), torch.ones(4, 5)
    assert multiply_adds(lambda: left @ right) == 3 * 4 * 5
    x = torch.ones(7, requires_grad=True)
    assert saved_numbers(lambda: (x * x).exp()) == 14  # x once, however often, and the exponential


def test_one_interface_for_all() -> None:
    assert all(issubclass(mixer, Mixer) for mixer in (LinearAttention, DeltaRule, SoftmaxAttention))
