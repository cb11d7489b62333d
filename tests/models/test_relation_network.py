"""The relation network as a mixer, and a network around it. Its forms and zero patterns are held to the common contract."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lab.errors import LabError
from lab.models import masks
from lab.models.mixers.relation_network import RelationNetwork, normalised
from lab.models.mixers.softmax import SoftmaxAttention
from lab.models.mixing_network import MixingNetwork
from lab.streams import stream


def streams(scale: float = 1.0) -> dict[str, Tensor]:
    rng = stream(0, "sides").rng()
    return {name: scale * torch.from_numpy(rng.standard_normal((1, 2, 1, 6, 4))) for name in ("query", "key")}


@pytest.mark.parametrize("activation", ["exp", "relu"])
@pytest.mark.parametrize("prenorm", ["pairs", "sides", "none"])
def test_outputs_are_the_sum_over_pairs(prenorm: str, activation: str) -> None:
    inputs, network = streams(), RelationNetwork(prenorm, activation)
    outputs = network.parallel(inputs, masks.causal(6))
    for i in range(6):
        total = torch.zeros(2, 4, dtype=torch.float64)
        for j in range(i + 1):
            a, b = inputs["query"][0, :, 0, i], inputs["key"][0, :, 0, j]
            z = (
                normalised(a + b)
                if prenorm == "pairs"
                else normalised(a) + normalised(b)
                if prenorm == "sides"
                else a + b
            )
            total += z.exp() if activation == "exp" else z.relu()
        assert torch.allclose(outputs[0, :, 0, i], normalised(total), atol=1e-9)


def test_nothing_overflows_and_a_token_that_sees_nothing_is_zero() -> None:
    network = RelationNetwork("none")
    for form in ("parallel", "recurrent", "chunked"):
        assert bool(network.run(form, streams(1000.0), masks.causal(6), 2).isfinite().all())
    blind = masks.causal(6)
    blind[0] = False
    assert bool((network.parallel(streams(), blind)[..., 0, :] == 0).all())


def test_states_grow_where_pairs_do_not_factor() -> None:
    sizes = {"query": 4, "key": 4}
    assert [RelationNetwork(kind).state_size(sizes, 10) for kind in ("none", "sides", "pairs")] == [4, 4, 40]
    assert RelationNetwork("none", "relu").state_size(sizes, 10) == 40


def test_bad_input_ends_in_one_sentence() -> None:
    with pytest.raises(LabError, match="prenorm = 'exact' of a relation network must be one of pairs, sides, none"):
        RelationNetwork("exact")
    with pytest.raises(LabError, match="width = 0 of a mixing network"):
        network(width=0)
    with pytest.raises(LabError, match="9 tokens exceed maximum_length = 8"):
        network()(torch.zeros(1, 1, 9, dtype=torch.int64), masks.causal(9))


def network(**changes: int) -> MixingNetwork:
    sizes = {"width": 6, "blocks": 2, "size": 4, "vocabulary": 5, "maximum_length": 8} | changes
    return MixingNetwork(RelationNetwork("pairs"), [3, 4], **sizes)


def test_models_of_an_ensemble_are_those_of_their_seeds() -> None:
    tokens = torch.arange(8)[None, None] % 5
    together, alone = network()(tokens, masks.causal(8)), network().select([1])(tokens, masks.causal(8))
    assert torch.allclose(together[1:], alone, atol=1e-6)
    sizes = {"width": 6, "blocks": 2, "size": 4, "vocabulary": 5, "maximum_length": 8}
    attention = MixingNetwork(SoftmaxAttention(), [3], **sizes)
    changed = tokens.clone()
    changed[..., -1] = 0
    first, second = (attention(prompts, masks.causal(8)) for prompts in (tokens, changed))
    assert torch.equal(first[..., :-1, :], second[..., :-1, :])
    assert not torch.equal(first[..., -1, :], second[..., -1, :])


def test_masks_of_models_and_prompts_are_taken() -> None:
    tokens, causal = torch.zeros(2, 3, 8, dtype=torch.int64), masks.causal(8)
    plain = network()(tokens, causal)
    assert torch.allclose(network()(tokens, causal.expand(2, 8, 8)), plain)
    assert torch.allclose(network()(tokens, causal.expand(2, 3, 8, 8)), plain)
