from __future__ import annotations

import pytest
import torch

from lab.domains.derivations.sequences import NO_TARGET, PAD, STOP, join, sign, write
from lab.errors import LabError


def test_rows_are_joined_without_gaps() -> None:
    first = torch.tensor([[5, 6, 9], [7, 9, 9]]), torch.tensor([2, 1])
    second = torch.tensor([[8, 9], [9, 9]]), torch.tensor([1, 0])
    tokens, lengths = join([first, sign(4, 2), second], 5)
    assert tokens.tolist() == [[5, 6, 4, 8, PAD], [7, 4, PAD, PAD, PAD]]
    assert lengths.tolist() == [4, 2]


def test_targets_follow_the_problem() -> None:
    rows = write(
        [(torch.tensor([[5], [6]]), torch.tensor([1, 1])), (torch.tensor([[7, 8], [9, 9]]), torch.tensor([2, 1]))], 1, 5
    )
    assert rows.tokens.tolist() == [[5, 7, 8, STOP, PAD], [6, 9, STOP, PAD, PAD]]
    assert rows.targets.tolist() == [[7, 8, STOP, NO_TARGET, NO_TARGET], [9, STOP, NO_TARGET, NO_TARGET, NO_TARGET]]
    assert rows.prefix_length.tolist() == [1, 1]


def test_a_derivation_must_fit_its_positions() -> None:
    with pytest.raises(LabError, match="The derivation has 4 tokens but there are 3 positions"):
        write([sign(5, 2), sign(6, 2), sign(7, 2)], 1, 3)
