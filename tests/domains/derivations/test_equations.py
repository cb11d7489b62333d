from __future__ import annotations

import pytest
import torch

from lab.domains.derivations import equations as exact
from lab.errors import LabError
from lab.streams import stream


@pytest.mark.parametrize(("unknowns", "modulus"), [(1, 2), (2, 11), (3, 5), (5, 11)])
def test_every_step_keeps_the_solution_and_the_rank(unknowns: int, modulus: int) -> None:
    rows = exact.equations(stream(0, "x"), 12, unknowns=unknowns, modulus=modulus)
    assert all(exact.first_wrong_step(row, unknowns, modulus) is None for row in rows.tokens.tolist())
    assert int(rows.lengths.max()) == sum(exact.lengths(unknowns)) + unknowns + 1
    direct = exact.equations(stream(0, "x"), 12, unknowns=unknowns, modulus=modulus, format="direct")
    size = exact.lengths(unknowns)
    assert direct.tokens.shape[1] == size[0] + 1 + size[-1] + 1
    assert torch.equal(direct.tokens[:, -size[-1] - 1 :], rows.tokens[:, -size[-1] - 1 :])


def test_elimination_multiplies_back() -> None:
    steps = exact.invertible_systems(stream(0, "x"), 200, 4, 7)
    matrix, right = steps[0][:, :, :4], steps[0][:, :, 4]
    assert torch.equal((matrix @ steps[-1][:, :, 4:]).squeeze(2) % 7, right)
    assert torch.equal(steps[-1][:, :, :4], torch.eye(4, dtype=torch.int64).expand(200, 4, 4))


def test_each_changed_number_is_found() -> None:
    row = exact.equations(stream(0, "x"), 1, unknowns=2).tokens[0]
    numbers = ((row >= exact.NUMBERS) & (row < exact.NUMBERS + 11)).nonzero().flatten()
    for place in numbers.tolist():
        changed = row.clone()
        changed[place] = exact.NUMBERS + (changed[place] - exact.NUMBERS + 1) % 11
        # A zero coefficient may become any: the equation changes unless its unknown is 0.
        step = exact.first_wrong_step(changed.tolist(), 2, 11)
        assert step is not None or 0 in exact.invertible_systems(stream(0, "x"), 1, 2, 11)[-1][0, :, 2].tolist()


def test_singular_systems_are_drawn_again_up_to_a_limit() -> None:
    share = exact.share_invertible(3, 2)
    assert share == pytest.approx(168 / 512)
    with pytest.raises(LabError, match=r"of 500 systems were singular in each of 1 draws; .* a share of 0.328"):
        exact.invertible_systems(stream(0, "x"), 500, 3, 2, draws=1)
    assert exact.invertible_systems(stream(0, "x"), 500, 3, 2).shape == (4, 500, 3, 4)


def test_refusals() -> None:
    with pytest.raises(LabError, match="not prime"):
        exact.equations(stream(0, "x"), 3, unknowns=2, modulus=9)
    with pytest.raises(LabError, match="unknowns = 0"):
        exact.equations(stream(0, "x"), 3, unknowns=0)
    with pytest.raises(LabError, match="needs 3 columns but has 2"):
        exact.eliminate(torch.zeros(1, 2, 2, dtype=torch.int64), 5)
    with pytest.raises(LabError, match="must lie between 0 and 4"):
        exact.eliminate(torch.full((1, 2, 3), 5), 5)
