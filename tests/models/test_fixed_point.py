"""Attention iterated to a fixed point."""

from __future__ import annotations

import pytest
import torch

from lab.errors import LabError
from lab.models import masks
from lab.models.mixers.fixed_point import FixedPointAttention, small_fixed_point_attention
from lab.streams import stream


def tokens(batch: int = 3, size: float = 1.0) -> torch.Tensor:
    return size * torch.from_numpy(stream(0, "tokens").rng().standard_normal((1, batch, 1, 6, 4)))


def test_it_is_a_fixed_point_within_the_bound() -> None:
    layer, x = small_fixed_point_attention(), tokens()
    solved = layer.solve(x, masks.causal(6))
    assert bool(solved.arrived.all())
    assert (layer.step(solved.state, x, masks.causal(6)) - solved.state).abs().max() < 1e-11
    assert bool((torch.linalg.vector_norm(solved.state, dim=-1).amax(-1) <= layer.radius(x)).all())


def test_prompts_do_not_depend_on_their_company() -> None:
    layer, x = small_fixed_point_attention(), torch.cat((tokens(2), tokens(2, 5.0)), 1)
    together = layer.solve(x, masks.full(6))
    alone = layer.solve(x[:, :1], masks.full(6))
    assert torch.equal(together.state[:, :1], alone.state)
    assert torch.equal(together.steps[:, :1], alone.steps)


def test_under_a_causal_mask_one_token_after_the_other() -> None:
    layer, x = small_fixed_point_attention(), tokens()
    streams = {"stream": x}
    difference = layer.run("recurrent", streams, masks.causal(6)) - layer.run("parallel", streams, masks.causal(6))
    assert difference.abs().max() <= layer.rounding(streams, masks.causal(6)) < 1e-10
    assert layer.forms(masks.prefix_lm(6, 3)) == ("parallel",)
    with pytest.raises(LabError, match="no recurrent form"):
        layer.run("recurrent", streams, masks.prefix_lm(6, 3))


def test_a_token_that_sees_nothing_stays_itself() -> None:
    x = tokens()
    assert torch.allclose(
        small_fixed_point_attention().solve(x, torch.zeros(6, 6, dtype=torch.bool)).state, x, atol=1e-14
    )


def test_a_fixed_point_that_is_not_reached_says_how_far_and_after_how_many_steps() -> None:
    parts = [torch.full((1, 1, 1, 1), entry, dtype=torch.float64) for entry in (0.9, 0.9, 1.0, -0.9)]
    layer = FixedPointAttention(*parts, damping=1.0, most=31)
    x = torch.tensor([2.0, -2.0], dtype=torch.float64).view(1, 1, 1, 2, 1)
    with pytest.raises(LabError, match=r"1 of 1 prompts .* after 31 steps a token still moves by .* tolerance 0.001"):
        layer.parallel({"stream": x}, masks.full(2))
    assert int(layer.solve(x, masks.full(2)).steps) == 31


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"damping": 0.0}, r"damping = 0.0 .* in \(0, 1\]"),
        ({"tolerance": 0.0}, "positive"),
        ({"most": 0}, "at least 1 step"),
    ],
)
def test_bad_input_ends_in_one_sentence(change: dict, sentence: str) -> None:
    parts = [torch.ones(1, 1, 1, 1, dtype=torch.float64)] * 4
    with pytest.raises(LabError, match=sentence):
        FixedPointAttention(*parts, **change)
