"""The rounding bound of a network: above what rounding does, far below what a change does."""

from __future__ import annotations

import pytest
import torch

from lab.domains.attention.network_rounding import network_rounding_bound
from lab.errors import LabError
from lab.models import masks
from lab.models.transformer import Architecture, Transformer
from lab.streams import stream


def prompt(length: int, width: int) -> torch.Tensor:
    return torch.from_numpy(stream(0, "prompt").rng().standard_normal((length, width)))


@pytest.mark.parametrize("positions", ["none", "rotary"])
@pytest.mark.parametrize("layers", [0, 1, 3])
def test_equal_computations_stay_below_and_other_ones_do_not(layers: int, positions: str) -> None:
    network = Transformer(
        Architecture(width=8, layers=layers, heads=2, positions=positions, output_size=3), [4], torch.float64
    )
    inputs, pattern = prompt(6, 8), masks.full(6)
    places = torch.tensor([3, 1, 4, 0, 5, 2])
    bound = network_rounding_bound(network, inputs, pattern, places)
    order = torch.tensor([2, 0, 5, 1, 4, 3])
    with torch.no_grad():
        plain = network(inputs[None, None], pattern, places)[0, 0]
        permuted = network(inputs[order][None, None], pattern, places[order])[0, 0]
        nudged = network(inputs[None, None] + 1e-4 * prompt(6, 8).cos(), pattern, places)[0, 0]
    assert float((permuted - plain[order]).abs().max()) <= bound
    assert float((nudged - plain).abs().max()) > 100 * bound
    assert bound < 1e-7


def test_works_where_gradients_are_off() -> None:
    network = Transformer(Architecture(width=8, layers=1, heads=2), [4], torch.float64)
    with torch.no_grad():
        assert network_rounding_bound(network, prompt(4, 8), masks.causal(4)) > 0


def test_only_one_network_that_reads_its_tokens_as_they_are() -> None:
    several = Transformer(Architecture(width=8, layers=1, heads=2), [4, 5], torch.float64)
    with pytest.raises(LabError, match="ensemble of 2"):
        network_rounding_bound(several, prompt(4, 8), masks.causal(4))
    reading = Transformer(Architecture(width=8, layers=1, heads=2, input_size=3), [4], torch.float64)
    with pytest.raises(LabError, match="a read-in, but this ensemble of 1"):
        network_rounding_bound(reading, prompt(4, 3), masks.causal(4))
