"""Strings to copy."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lab.domains.copying.copy_prompts import (
    BEGIN,
    END,
    FIRST,
    SEPARATOR,
    all_strings,
    copied_whole,
    copy_prompts,
    free_running,
    written,
)
from lab.errors import LabError
from lab.streams import stream


def test_a_prompt_is_the_string_twice_and_its_targets_the_string_and_an_end() -> None:
    prompts = written(torch.tensor([[4, 3, 3]]))
    assert prompts.tokens.tolist() == [[BEGIN, 4, 3, 3, SEPARATOR, 4, 3, 3]]
    assert prompts.targets.tolist() == [[-1, -1, -1, -1, 4, 3, 3, END]]
    assert prompts.prefix_length.tolist() == [5]


def test_all_letters_are_equally_likely() -> None:
    prompts = copy_prompts(stream(0, "copy"), 4000, letters=4, length=3)
    counts = torch.bincount(prompts.tokens[:, 1:4].flatten(), minlength=FIRST + 4)[FIRST:]
    assert (counts / 12_000 - 0.25).abs().max() < 0.02  # five standard errors of 0.004
    strings = all_strings(2, 3)
    assert len(strings.unique(dim=0)) == 8


def test_a_string_counts_only_as_a_whole_and_with_its_end() -> None:
    prompts = written(all_strings(2, 2))
    right = F.one_hot(prompts.targets.clamp_min(0), 5).float()
    assert bool(copied_whole(right, prompts.targets).all())
    endless = right.clone()
    endless[:, -1] = F.one_hot(torch.tensor(3), 5).float()
    assert not bool(copied_whole(endless, prompts.targets).any())


def test_free_running_reads_its_own_answer() -> None:
    prompts = written(all_strings(2, 3))

    def copier(tokens: torch.Tensor) -> torch.Tensor:
        place = tokens.shape[-1] - 5  # letters said so far
        following = tokens[..., 1 + place] if place < 3 else torch.full(tokens.shape[:-1], END)
        return F.one_hot(following, 5).float().unsqueeze(-2).expand(*tokens.shape, 5)

    assert bool(free_running(copier, prompts, 2).all())

    def looking_ahead(tokens: torch.Tensor) -> torch.Tensor:  # says whatever stands at its own place
        return F.one_hot(tokens, 5).float()

    assert not bool(free_running(looking_ahead, prompts, 1).any())


def test_bad_input_ends_in_one_sentence() -> None:
    with pytest.raises(LabError, match="length = 0 of the copy task must be at least 1"):
        copy_prompts(stream(0, "copy"), 2, letters=3, length=0)
    with pytest.raises(LabError, match="more than a million"):
        all_strings(26, 10)
