"""Dropout of attention weights: what it drops, what it leaves alone, and that it is a model's own."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from lab.domains.addition.dropped_attention import DroppedAttention
from lab.errors import LabError
from lab.models.masks import causal
from lab.models.transformer import Architecture, Transformer

BASE = Architecture(width=8, layers=2, heads=2, vocabulary=5, output_size=5, positions="learned", maximum_length=6)
TOKENS, MASK = torch.randint(0, 5, (1, 4, 6), generator=torch.Generator().manual_seed(0)), causal(6)
ROUNDING = 1e-12


def dropping(
    share: float = 0.2, seeds: tuple[int, ...] = (3, 4), architecture: Architecture = BASE
) -> DroppedAttention:
    return DroppedAttention(architecture, seeds, torch.float64, attention_dropout=share)


def gap(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max().detach())


def test_without_dropout_it_is_the_transformer() -> None:
    plain, module = Transformer(BASE, (3, 4), torch.float64), dropping()
    assert gap(plain(TOKENS, MASK), module(TOKENS, MASK)) == 0
    # Neither a negative number nor a share of 0 drops anything; this takes the other road through attention.
    assert gap(plain(TOKENS, MASK), module(TOKENS, MASK, dropout=[-1, -1])) < ROUNDING
    assert gap(plain(TOKENS, MASK), dropping(0.0)(TOKENS, MASK, dropout=[1, 2])) < ROUNDING


def test_what_is_dropped_is_a_model_s_own() -> None:
    module = dropping()
    dropped = module(TOKENS, MASK, dropout=[1, 2])
    assert gap(dropped, module(TOKENS, MASK)) > 1e-3
    assert gap(dropped[[1]], module.select([1])(TOKENS, MASK, dropout=[2])) < ROUNDING
    assert gap(dropped[[0]], module(TOKENS, MASK, dropout=[1, -1])[[0]]) < ROUNDING
    assert gap(dropped, module(TOKENS, MASK, dropout=[5, 6])) > 1e-3


def test_only_attention_weights_are_dropped() -> None:
    """The first token sees itself alone: its weight is 0 or 1 / (1 - p), so with one block there are two outcomes a head."""
    module = dropping(0.5, (3,), dataclasses.replace(BASE, layers=1, mlp_ratio=0, norm="none"))
    first = torch.cat([module(TOKENS, MASK, dropout=[seed])[0, :1, 0] for seed in range(200)])
    assert len(torch.unique(first.round(decimals=9), dim=0)) == 4
    # Weights keep their mean, and without MLP and norms outputs are linear in them.
    middle = first.mean(0) - module(TOKENS, MASK)[0, 0, 0]
    assert (middle.abs() < 5 * first.std(0) / 200**0.5).all()


def test_the_other_dropouts_come_on_top() -> None:
    both = dropping(0.2, architecture=dataclasses.replace(BASE, dropout=0.2))
    assert gap(both(TOKENS, MASK, dropout=[1, 2]), dropping()(TOKENS, MASK, dropout=[1, 2])) > 1e-3


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_refuses_impossible_shares(share: float) -> None:
    with pytest.raises(LabError, match="attention_dropout"):
        dropping(share)


def test_refuses_rotary_positions() -> None:
    with pytest.raises(LabError, match="rotary"):
        dropping(architecture=dataclasses.replace(BASE, positions="rotary", maximum_length=None))
