"""Laws of costs against the counter."""

from __future__ import annotations

import pytest
import torch

from lab.errors import LabError
from lab.models import masks
from lab.models.counting import count, transform_operations
from lab.models.mixers.autocorrelation import AutoCorrelation
from lab.models.mixers.combiner import Combiner
from lab.models.mixers.interface import Mixer
from lab.models.mixers.laws import cost
from lab.models.mixers.prob_sparse import ProbSparse, sampled_keys
from lab.models.mixers.visible import VisibleAttention
from lab.streams import stream

SIZES = {"query": 3, "key": 3, "value": 2}


def random_streams(length: int) -> dict[str, torch.Tensor]:
    rng = stream(0, "laws", length).rng()
    return {
        name: torch.from_numpy(rng.standard_normal((1, 1, 1, length, size))).requires_grad_()
        for name, size in SIZES.items()
    }


@pytest.mark.parametrize("length", [5, 9])
def test_the_counter_finds_the_law(length: int) -> None:
    for mixer, mask in (
        (VisibleAttention(), masks.prefix_lm(length, 4)),
        (VisibleAttention(2), masks.sliding_window(length, 2)),
        (AutoCorrelation(), masks.full(length)),
        (ProbSparse(sampled_keys(stream(0, "keys"), length, 1)), masks.full(length)),
    ):
        streams = random_streams(length)
        assert count(lambda m=mixer, s=streams, p=mask: m.run("parallel", s, p)) == cost(mixer, mask, SIZES)


def test_the_counter_counts_products_transforms_and_fused_attention() -> None:
    x = torch.ones(1, 1, 8, 4, requires_grad=True)
    assert count(lambda: x @ x.mT).multiply_adds == 8 * 8 * 4
    assert count(lambda: x @ x.mT).saved == 32
    assert count(lambda: torch.fft.fft(x.to(torch.complex64), dim=2)).multiply_adds == transform_operations(32, 8) // 2
    with torch.no_grad():
        fused = count(lambda: torch.nn.functional.scaled_dot_product_attention(x, x, x))
    assert fused == (2 * 8 * 8 * 4, 0)


def test_parameters_are_not_counted_as_saved() -> None:
    x, weight = torch.ones(3, 4, requires_grad=True), torch.ones(4, 5, requires_grad=True)
    assert count(lambda: x @ weight).saved == 12 + 20
    assert count(lambda: x @ weight, (weight,)).saved == 12


def test_a_mixer_without_a_law_says_so() -> None:
    class Own(Mixer):
        def parallel(self, streams, mask):
            return streams["value"]

    with pytest.raises(LabError, match="no law of the cost of Own"):
        cost(Own(), masks.causal(3), SIZES)
    with pytest.raises(LabError, match="logit 'max'"):
        cost(Combiner(2, "max"), masks.causal(4), SIZES)
    with pytest.raises(LabError, match="by past keys"):
        cost(ProbSparse(sampled_keys(stream(0, "k"), 4), sight="past"), masks.causal(4), SIZES)
