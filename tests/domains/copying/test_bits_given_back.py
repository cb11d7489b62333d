"""Bits that a network loses of a string, against laws that are written down."""

from __future__ import annotations

import math

import pytest
import torch

from lab.domains.copying.bits_given_back import bits_lost, copied_at_least
from lab.domains.copying.copy_prompts import FIRST, all_strings, copied_whole, copy_prompts, free_running, written
from lab.domains.copying.position_copier import position_copier
from lab.models import masks
from lab.streams import stream


def test_a_uniform_law_loses_every_bit() -> None:
    prompts = copy_prompts(stream(0, "strings"), 3, letters=4, length=5)
    lost = bits_lost(torch.zeros(2, 3, 12, 8), prompts.targets)
    assert lost.shape == (2, 3)
    assert torch.allclose(lost, torch.full((2, 3), 6 * 3.0).double())  # five letters and the end, out of 8 tokens


def test_an_exact_copier_loses_nothing() -> None:
    prompts = written(all_strings(2, 3))
    law = position_copier(2, 3)(prompts.tokens.unsqueeze(0), masks.causal(8)).detach()
    assert float(bits_lost(60 * law, prompts.targets).max()) < 1e-12


def test_only_scored_tokens_count() -> None:
    prompts = copy_prompts(stream(0, "strings"), 2, letters=3, length=2)
    logits = torch.from_numpy(stream(1, "logits").rng().standard_normal((1, 2, 6, 6)))
    other = logits.clone()
    other[:, :, :3] = 7.0
    assert torch.equal(bits_lost(logits, prompts.targets), bits_lost(other, prompts.targets))


@pytest.mark.parametrize("state", range(3))
def test_a_state_of_b_bits_gives_back_b_bits_at_most(state: int) -> None:
    """The best law of a string of three bits given its first ``state`` letters: as many bits as there are in the state."""
    strings = all_strings(2, 3)
    prompts = written(strings)
    law = torch.zeros(1, 8, 8, 5, dtype=torch.float64)
    law[:, :, :, 2] = (torch.arange(8) == 7).double().view(1, 1, 8)  # the end, at the last place
    for place in range(3):
        known = torch.nn.functional.one_hot(strings[:, place], 5).double()
        law[:, :, 4 + place] = known if place < state else torch.tensor([0, 0, 0, 0.5, 0.5]).double()
    assert 3 - float(bits_lost(law.log(), prompts.targets).mean()) == pytest.approx(state)


def test_who_loses_less_than_a_bit_copies_whole() -> None:
    """Random laws of each string's letters, near one half: below one bit lost, copied whole, and freely as well."""
    prompts = written(all_strings(2, 4))
    rng = stream(0, "laws").rng()
    sure = torch.from_numpy(rng.uniform(0.45, 0.999, (40, 16, 10)))
    law = ((1 - sure) / 6).unsqueeze(-1).expand(-1, -1, -1, FIRST + 4).clone()
    targets = prompts.targets.clamp_min(0).expand(40, -1, -1)
    law.scatter_(-1, targets.unsqueeze(-1), sure.unsqueeze(-1))
    lost, copied = bits_lost(law.log(), prompts.targets), copied_whole(law, prompts.targets)
    assert bool(copied[lost < 1].all())
    assert bool((lost < 1).any())
    free = free_running(lambda tokens: law[:, :, : tokens.shape[-1]], prompts, 40)
    assert bool(free[lost < 1].all())
    assert float(copied.double().mean()) >= copied_at_least(float(lost.mean()))
    assert copied_at_least(2.0) == 0.0
    assert math.isclose(copied_at_least(0.1), 0.9)
