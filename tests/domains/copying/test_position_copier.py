"""Copying by places."""

from __future__ import annotations

import pytest

from lab.domains.copying.copy_prompts import all_strings, copied_whole, written
from lab.domains.copying.position_copier import position_copier
from lab.errors import LabError
from lab.models import masks


def test_every_string_is_copied_and_none_without_places() -> None:
    prompts = written(all_strings(3, 3))
    tokens, causal = prompts.tokens.unsqueeze(0), masks.causal(8)
    assert bool(copied_whole(position_copier(3, 3)(tokens, causal), prompts.targets).all())
    lost = position_copier(3, 3, positions=False)(tokens, causal)
    assert not bool(copied_whole(lost, prompts.targets).any())


def test_what_looks_ahead_needs_a_mask_that_shows_it() -> None:
    prompts = written(all_strings(2, 3))
    tokens, cheat = prompts.tokens.unsqueeze(0), position_copier(2, 3, cheating=True)
    assert bool(copied_whole(cheat(tokens, masks.full(8)), prompts.targets).all())
    assert not bool(copied_whole(cheat(tokens, masks.causal(8)), prompts.targets).all())


def test_bad_input_ends_in_one_sentence() -> None:
    with pytest.raises(LabError, match="letters = 0"):
        position_copier(0, 3)
