"""Laws of matrix memories."""

from __future__ import annotations

import numpy as np
import pytest

from lab.domains.copying.memory_capacity import (
    LAWS,
    delta_error,
    design,
    enumerated_error,
    memory_error,
    sphere,
    weights_of,
)
from lab.errors import LabError
from lab.streams import stream


def plain_memory(rule: str, keys: np.ndarray) -> np.ndarray:
    """The memory as a matrix, written pair by pair; values are the unit vectors."""
    pairs, size = keys.shape
    state = np.zeros((pairs, size))
    for key, value in zip(keys, np.eye(pairs), strict=True):
        held = state @ key if rule == "delta rule" else 0.0
        state += np.outer(value - held, key)
    return (state @ keys.T).T


@pytest.mark.parametrize("rule", ["sum", "delta rule"])
def test_weights_are_those_of_the_recurrence(rule: str) -> None:
    keys = sphere(stream(0, "keys").rng(), 6, 4)
    assert weights_of(rule, keys) == pytest.approx(plain_memory(rule, keys), abs=1e-12)


@pytest.mark.parametrize(("name", "size"), [("pentagon", 2), ("icosahedron", 3)])
def test_laws_by_enumeration(name: str, size: int) -> None:
    for older in range(3):
        assert enumerated_error("delta rule", name, 3)[older] == pytest.approx(delta_error(2 - older, older, size))
    assert enumerated_error("sum", name, 3) == pytest.approx([2 / size] * 3)


def test_designs_have_the_moments_of_the_sphere() -> None:
    for name in ("pentagon", "icosahedron", "square", "octahedron"):
        points = design(name)
        size = points.shape[1]
        assert np.einsum("pi,pj->ij", points, points) / len(points) == pytest.approx(np.eye(size) / size, abs=1e-12)
        fourth = (points**4).mean(0)
        assert (np.abs(fourth - 3 / (size * (size + 2))).max() < 1e-12) == (name in ("pentagon", "icosahedron"))


@pytest.mark.parametrize(
    ("memory", "pairs"), [("sum", 12), ("delta rule", 12), ("least squares", 12), ("least squares", 5)]
)
def test_laws_by_drawing(memory: str, pairs: int) -> None:
    keys = sphere(stream(0, "drawn").rng(), 3000, pairs, 8)
    assert memory_error(weights_of(memory, keys)).mean() == pytest.approx(LAWS[memory](pairs, 8), rel=0.02, abs=1e-12)


def test_a_sharp_softmax_recalls_more_pairs_than_the_state_has_columns() -> None:
    keys = sphere(stream(0, "softmax").rng(), 20, 4)
    assert memory_error(weights_of("softmax", keys, 5000.0)).max() < 1e-6


def test_bad_input_ends_in_one_sentence() -> None:
    with pytest.raises(LabError, match="memory = 'tape' must be one of"):
        weights_of("tape", np.eye(2))
    with pytest.raises(LabError, match="design = 'cube'"):
        design("cube")
    with pytest.raises(LabError, match="more than a million"):
        enumerated_error("sum", "icosahedron", 6)
    with pytest.raises(LabError, match="pairs = 0"):
        LAWS["sum"](0, 2)
