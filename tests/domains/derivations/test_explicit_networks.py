from __future__ import annotations

import pytest
import torch

from lab.decoding import decode
from lab.domains.derivations import automata, subsequences
from lab.domains.derivations.automaton_transformer import automaton_transformer, parity_at_once
from lab.domains.derivations.gelu_product import error_bound, multiply, product_transformer, rounding
from lab.domains.derivations.looking_back import SHARPNESS, position_codes, sharp
from lab.domains.derivations.subsequence_transformer import least_sharpness, subsequence_transformer
from lab.errors import LabError
from lab.models.masks import causal, prefix_lm
from lab.streams import stream


@pytest.mark.parametrize("positions", [3, 9, 2001])
def test_codes_tell_neighbours_apart(positions: int) -> None:
    codes = position_codes(positions, [1])
    scores = sharp(positions) * codes[:, 2:] @ codes[:, :2].T
    wanted = (torch.arange(positions) - 1).clamp(min=0)
    best = scores.topk(2, dim=1)
    assert torch.equal(best.indices[:, 0], wanted)
    assert float((best.values[:, 0] - best.values[:, 1]).min()) > 0.999 * SHARPNESS


@pytest.mark.parametrize("cached", [True, False])
def test_any_machine_runs(cached: bool) -> None:
    rng = stream(0, "machine").rng()
    for states, letters, length in ((1, 1, 1), (4, 3, 7), (6, 2, 5)):
        table = torch.from_numpy(rng.integers(0, states, (states, letters)))
        rows = automata.words(stream(1, "w"), 20, table=table, length=length)
        module, size = automaton_transformer(table, length), rows.tokens.shape[1]
        for mask in (causal(size), prefix_lm(size, length + 1)):
            continuation = decode(module, rows.tokens[:, : length + 1], mask, length + 1, cached=cached).tokens[0]
            assert torch.equal(continuation, rows.tokens[:, length + 1 :])


def test_parity_at_once_needs_a_unit_for_every_bit() -> None:
    bits = torch.arange(64)[:, None] >> torch.arange(6) & 1
    tokens = torch.cat([automata.LETTERS + bits, torch.full((64, 1), automata.END)], 1)

    def answers(units: int | None) -> torch.Tensor:
        return parity_at_once(6, units=units)(tokens[None], causal(7))[0, :, -1].argmax(-1) - automata.LETTERS - 2

    assert torch.equal(answers(None), bits.sum(1) % 2)
    assert not torch.equal(answers(5), bits.sum(1) % 2)


@pytest.mark.parametrize(("length", "numbers"), [(1, 4), (2, 5), (6, 15)])
def test_subsequences_are_written_whole(length: int, numbers: int) -> None:
    rows = subsequences.increasing_subsequence(stream(0, "x"), 30, length=length, numbers=numbers)
    module, size = subsequence_transformer(length, numbers, least_sharpness(length) + 0.1), rows.tokens.shape[1]
    continuation = decode(module, rows.tokens[:, : length + 1], causal(size), size - length - 1).tokens[0]
    assert torch.equal(continuation, rows.tokens[:, length + 1 :])


def test_products_keep_their_bound() -> None:
    a, b = torch.from_numpy(stream(0, "x").rng().uniform(-3, 3, (2, 500)))
    for scale in (2.0, 50.0, 1e3):
        error = (multiply(a, b, scale) - a * b).abs().max()
        assert float(error) <= error_bound(3.0, scale) + rounding(3.0, scale)
    assert float((multiply(a, b, 1e3, activation="relu") - a * b).abs().max()) > 0.1
    with pytest.raises(LabError, match="The scale 0 of a product must be positive"):
        product_transformer(0)
