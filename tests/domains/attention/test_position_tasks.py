"""Pointers and first tokens."""

from __future__ import annotations

import pytest
import torch

from lab.domains.attention.position_tasks import first_token_prompts, pointer_prompts
from lab.errors import LabError
from lab.streams import stream


def test_pointers_are_permutations_and_targets_two_steps() -> None:
    prompts = pointer_prompts(stream(0, "x"), 50, length=6)
    assert torch.equal(prompts.tokens.sort(1).values, torch.arange(6).expand(50, 6))
    for row, goal in zip(prompts.tokens.tolist(), prompts.targets.tolist(), strict=True):
        assert goal == [row[row[i]] for i in range(6)]


def test_first_pointers_are_uniform() -> None:
    first = pointer_prompts(stream(0, "x"), 6000, length=3).tokens[:, 0]
    shares = torch.bincount(first, minlength=3) / 6000
    assert float((shares - 1 / 3).abs().max()) < 4 * (2 / 9 / 6000) ** 0.5


@pytest.mark.parametrize("distinct", [False, True])
def test_the_answer_is_the_first_symbol(distinct: bool) -> None:
    prompts = first_token_prompts(stream(0, "x"), 40, symbols=8, length=5, distinct=distinct)
    assert prompts.tokens.shape == (40, 6)
    assert torch.equal(prompts.targets, prompts.tokens[:, 0])
    assert bool((prompts.tokens[:, -1] == 8).all())
    repeated = any(len(set(row[:-1])) < 5 for row in prompts.tokens.tolist())
    assert repeated is not distinct


def test_bad_input_ends_in_one_sentence() -> None:
    with pytest.raises(LabError, match="length = 0"):
        pointer_prompts(stream(0), 2, length=0)
    with pytest.raises(LabError, match="length = 5 distinct tokens need as many symbols but there are 4"):
        first_token_prompts(stream(0), 2, symbols=4, length=5, distinct=True)
    with pytest.raises(LabError, match="symbols = 0"):
        first_token_prompts(stream(0), 2, symbols=0, length=5)
