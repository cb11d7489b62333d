"""Networks whose keys see the token before: what they compute, whose weights are whose, and what they refuse."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lab.errors import LabError
from lab.models import masks
from lab.models.mixers.bidirectional import BidirectionalLinearAttention
from lab.models.mixers.interface import Mixer
from lab.models.mixers.linear import DecayedLinearAttention, LinearAttention
from lab.models.mixers.relation_network import RelationNetwork
from lab.models.mixers.softmax import SoftmaxAttention
from lab.models.mixers.unit_keys import UnitDeltaRule
from lab.models.shifted_keys import Gate, ShiftedKeys

SIZES = {"width": 6, "blocks": 2, "columns": 3, "size": 5, "vocabulary": 7, "maximum_length": 8}
TOKENS = torch.arange(8)[None, None] * 3 % 7


def network(mixer: Mixer, seeds: list[int], **changes: int) -> ShiftedKeys:
    return ShiftedKeys(mixer, seeds, **(SIZES | changes))


@pytest.mark.parametrize("mixer", [SoftmaxAttention(), LinearAttention(), UnitDeltaRule(), DecayedLinearAttention()])
def test_models_are_those_of_their_seeds_and_do_not_look_ahead(mixer: Mixer) -> None:
    ensemble = network(mixer, [3, 4])
    outputs = ensemble(TOKENS, masks.causal(8))
    assert outputs.shape == (2, 1, 8, 7)
    torch.testing.assert_close(network(mixer, [4])(TOKENS, masks.causal(8)), outputs[1:])
    torch.testing.assert_close(ensemble.select([1])(TOKENS, masks.causal(8)), outputs[1:])
    changed = TOKENS.clone()
    changed[..., -1] = 0
    assert torch.equal(ensemble(changed, masks.causal(8))[..., :-1, :], outputs[..., :-1, :])


def test_a_key_is_a_convolution_of_width_two() -> None:
    built = network(SoftmaxAttention(), [3], blocks=1)
    x = built.embedding[0, TOKENS[0, 0]] + built.positions[0]
    y = F.layer_norm(x, (6,))
    block = built.blocks[0]
    maps = {
        name: (projection.weight[0], projection.bias[0])
        for name, projection in block.items()
        if name in ("query", "value", "output")
    }
    current, before = block["key"].own, block["key"].before
    key = y @ current.weight[0] + current.bias[0]
    key[1:] += y[:-1] @ before.weight[0]
    query, value = (y @ maps[name][0] + maps[name][1] for name in ("query", "value"))
    weights = (query @ key.T / 3**0.5).masked_fill(~masks.causal(8), -torch.inf).softmax(-1)
    x = x + weights @ value @ maps["output"][0] + maps["output"][1]
    torch.testing.assert_close(built(TOKENS, masks.causal(8))[0, 0], F.layer_norm(x, (6,)) @ built.read_out.weight[0])


def test_a_gate_keeps_to_its_range() -> None:
    for low, high in ((0.0, 1.0), (0.5, float("inf"))):
        gate = Gate(1, 2, (low, high))
        torch.nn.init.ones_(gate.map.weight)
        torch.nn.init.zeros_(gate.map.bias)
        gates = gate(torch.tensor([-3.0, 0.0, 3.0])[None, None, :, None].expand(1, 1, 3, 2)).detach()
        assert low < float(gates.min()) < float(gates.max()) <= high
        assert gates.shape == (1, 1, 3, 1)


def test_bad_sizes_and_mixers_are_refused() -> None:
    with pytest.raises(LabError, match="columns = 0 of shifted keys"):
        network(SoftmaxAttention(), [3], columns=0)
    with pytest.raises(LabError, match="width = 0"):
        network(SoftmaxAttention(), [3], width=0)

    class Stream(BidirectionalLinearAttention):
        streams = {"stream": None}

    with pytest.raises(LabError, match="Stream takes stream; choose another"):
        network(Stream(), [3])


def test_a_mixer_without_values_takes_keys_of_their_size() -> None:
    outputs = network(RelationNetwork("sides"), [3], columns=5)(TOKENS, masks.causal(8))
    assert outputs.shape == (1, 1, 8, 7)
