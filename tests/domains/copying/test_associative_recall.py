"""Multi-query associative recall: the generator against its law, the exact answers, and the circuit."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from lab.domains.copying.associative_recall import gap_law, look_up, recall_accuracy, recall_prompts, table_bits
from lab.domains.copying.gram_copier import gram_copier, next_token_law
from lab.errors import LabError
from lab.models import masks
from lab.streams import stream

SIZES = {"pairs": 2, "length": 10, "keys": 3, "values": 2}


def test_prompts_are_written_as_described() -> None:
    prompts = recall_prompts(stream(0, "recall"), 200, **SIZES)
    pairs, keys = SIZES["pairs"], SIZES["keys"]
    chosen, values = prompts.tokens[:, 0:4:2], prompts.tokens[:, 1:4:2]
    assert bool(((chosen >= 1) & (chosen <= keys)).all())
    assert bool((values > keys).all())
    assert bool((chosen[:, 0] != chosen[:, 1]).all())
    assert bool((prompts.loss_mask.sum(1) == pairs).all())
    assert not bool(prompts.loss_mask[:, : 2 * pairs].any())
    assert not bool(prompts.loss_mask[:, 1::2].any())
    for row in range(20):
        table = dict(zip(chosen[row].tolist(), values[row].tolist(), strict=True))
        mask = prompts.loss_mask[row]
        assert sorted(prompts.tokens[row, mask].tolist()) == sorted(table)
        assert [table[key] for key in prompts.tokens[row, mask].tolist()] == prompts.targets[row, mask].tolist()


@pytest.mark.parametrize("power", [0.01, 1.0])
def test_the_places_of_questions_have_the_law_of_draws_one_by_one(power: float) -> None:
    law = gap_law(2, 10, power)
    assert law == pytest.approx(np.arange(1, 4) ** (power - 1) / (np.arange(1, 4) ** (power - 1)).sum())
    prompts = recall_prompts(stream(0, "law"), 20_000, **SIZES, power=power)
    place = {
        key: (((prompts.tokens == prompts.tokens[:, 2 * key : 2 * key + 1]) & prompts.loss_mask).int().argmax(1) - 4)
        // 2
        for key in range(2)
    }
    for first, second in itertools.permutations(range(3), 2):
        chance = law[first] * law[second] / (1 - law[first])
        share = float(((place[0] == first) & (place[1] == second)).double().mean())
        assert abs(share - chance) < 5 * (chance * (1 - chance) / 20_000) ** 0.5


def test_the_first_occurrence_has_the_value_and_a_window_can_lose_it() -> None:
    prompts = recall_prompts(stream(0, "windows"), 100, pairs=4, length=32, keys=6, values=5)
    assert float(recall_accuracy(look_up(prompts), prompts.targets)) == 1
    assert float(recall_accuracy(look_up(prompts, 6), prompts.targets)) < 0.7
    copier = gram_copier(12, 32)
    for mask in (masks.causal(32), masks.prefix_lm(32, 8)):
        answers = next_token_law(copier, prompts.tokens, mask).argmax(-1)
        assert float(recall_accuracy(answers, prompts.targets)) == 1


def test_a_table_that_no_memory_holds_is_no_error() -> None:
    prompts = recall_prompts(stream(0, "many"), 2, pairs=50, length=200, keys=50, values=2)
    assert prompts.tokens.shape == (2, 200)
    assert table_bits(50, 2) == 50


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"length": 6}, "length = 6 must be even and at least 4 tokens"),
        ({"length": 11}, "length = 11 must be even"),
        ({"keys": 1}, "keys = 1 must be at least pairs = 2"),
        ({"power": 0.0}, "power = 0.0 of the gaps must be positive"),
    ],
)
def test_bad_input_ends_in_one_sentence(change: dict, sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        recall_prompts(stream(0, "recall"), 2, **(SIZES | change))


def test_prompts_are_integers_of_one_kind() -> None:
    assert recall_prompts(stream(0, "recall"), 2, **SIZES).tokens.dtype == torch.int64
