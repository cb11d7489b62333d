from __future__ import annotations

import pytest
import torch

from lab.domains.addition.column_adder import add_in_columns, answer_table, next_prompts
from lab.domains.addition.column_addition import WINDOWS, add_by_table, parse_numbers, window_parts
from lab.domains.addition.prompts import STOP, WINDOW_VOCABULARY, ZERO, encode, window_prompts
from lab.errors import LabError
from lab.models.masks import causal, prefix_lm
from lab.models.transformer import Architecture, Transformer
from lab.streams import stream

MASKS = {"prefix": prefix_lm(8, 6), "causal": causal(8)}


def machines(positions: int = 9) -> Transformer:
    """Untrained machines; the first prefers a digit, then the stop token, so that some of its answers are numbers."""
    architecture = Architecture(
        width=16,
        layers=2,
        heads=2,
        vocabulary=WINDOW_VOCABULARY,
        output_size=WINDOW_VOCABULARY,
        positions="learned",
        maximum_length=positions,
        output_bias=True,
        initial_scale=0.4,
    )
    module = Transformer(architecture, seeds=[0, 1], dtype=torch.float64)
    weights = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    weights["positions"][:, :6, 0] -= 0.5
    weights["positions"][:, 6:, 0] += 0.5
    weights["read_out.weight"][:, 0] = 0.0
    weights["read_out.weight"][:, 0, STOP] = 8.0
    weights["read_out.bias"][:, ZERO : ZERO + 10] = 2.0
    return module.load_weights(weights)


@pytest.mark.parametrize("arm", MASKS)
def test_network_in_the_loop_is_its_table(arm: str) -> None:
    module, mask = machines(), MASKS[arm]
    table = answer_table(module, mask)
    assert table.shape == (2, WINDOWS)
    assert len(table[0].unique()) > 3
    digits = torch.from_numpy(stream(0, "digits").rng().integers(0, 10, (2, 12, 5)))
    expected = add_by_table(table, *digits)
    assert torch.equal(add_in_columns(module, *digits, mask), expected)
    assert torch.equal(add_in_columns(module, *digits, mask, cached=False), expected)
    assert bool((expected[0] >= 0).any())
    assert bool((expected[0] < 0).any())


def test_patterns_answer_differently() -> None:
    module = machines()
    assert not torch.equal(answer_table(module, MASKS["prefix"]), answer_table(module, MASKS["causal"]))


def test_refusals() -> None:
    module, number = machines(), parse_numbers(["12"])
    with pytest.raises(LabError, match="needs 8 positions but the model has 7"):
        answer_table(machines(7), MASKS["causal"])
    with pytest.raises(LabError, match="digit 11 must lie between 0 and 9"):
        add_in_columns(module, number, number + 9, MASKS["causal"])


def test_prompts_are_the_windows_themselves() -> None:
    previous, first, second = (part.tolist() for part in window_parts())
    for number in (0, 86, 100, 755, 1555, 2099):
        pair = encode(f"{first[number]}{second[number]}").view(1, 1, 2)
        written = None if previous[number] < 0 else encode(f"{previous[number]}S".ljust(3, "S")).view(1, 1, 3)
        assert torch.equal(next_prompts(pair, written)[0, 0], window_prompts()[number])
