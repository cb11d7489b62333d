"""Sequences of linear dynamics: the recursion, the laws, and bad input."""

from __future__ import annotations

import inspect

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.domains.dynamics.sequences import linear_dynamics
from lab.errors import LabError
from lab.streams import stream


@settings(deadline=None, max_examples=20)
@given(
    st.sampled_from(("gaussian", "sparse", "ones", "rademacher", "uniform", "complex gaussian")),
    st.sampled_from(("diagonal", "orthogonal")),
    st.sampled_from(("independent", "equal", "half circle", "harmonic")),
    st.integers(0, 100),
)
def test_states_follow_their_unitary_transition(start: str, transition: str, phases: str, seed: int) -> None:
    drawn = linear_dynamics(
        stream(seed), 4, dimension=3, length=6, start=start, transition=transition, phases=phases, scale=0.7
    )
    moved = (drawn.transition.unsqueeze(1) @ drawn.states[:, :-1, :, None]).squeeze(-1)
    assert torch.allclose(moved, drawn.states[:, 1:])
    identity = torch.eye(3, dtype=torch.complex128)
    assert torch.allclose(drawn.transition @ drawn.transition.mH, identity.expand(4, 3, 3))


def test_laws_of_the_first_state() -> None:
    sparse = linear_dynamics(stream(0), 500, dimension=4, length=1, start="sparse", scale=2.0).states[:, 0].real
    assert bool(((sparse != 0).sum(-1) == 1).all())
    assert set(sparse[sparse != 0].tolist()) == {-2.0, 2.0}
    assert set(torch.where(sparse != 0)[1].tolist()) == {0, 1, 2, 3}
    signs = linear_dynamics(stream(0), 50, dimension=4, length=1, start="rademacher").states[:, 0].real
    assert set(signs.flatten().tolist()) == {-1.0, 1.0}


def test_harmonic_phases_are_multiples() -> None:
    moves = linear_dynamics(stream(3), 5, dimension=3, length=2, phases="harmonic").transition
    first, second, third = moves.diagonal(dim1=-2, dim2=-1).unbind(-1)
    assert torch.allclose(first**2, second)
    assert torch.allclose(first**3, third)


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ({"dimension": 0, "length": 3}, "dimension of linear dynamics is 0"),
        ({"dimension": 2, "length": 0}, "length of linear dynamics is 0"),
        ({"dimension": 2, "length": 3, "scale": -1.0}, "scale -1.0 of the first state must be positive"),
    ],
)
def test_bad_input(sizes: dict, sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        linear_dynamics(stream(0), 2, **sizes)


@pytest.mark.parametrize("name", ["start", "transition", "phases"])
def test_unknown_laws_are_refused(name: str) -> None:
    with pytest.raises(LabError, match="'cauchy' is unknown; choose one of"):
        # The type checker of the tests would find the unknown name first.
        inspect.unwrap(linear_dynamics)(stream(0), 2, dimension=2, length=3, **{name: "cauchy"})
