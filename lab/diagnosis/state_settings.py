"""The setting of next-state prediction: sequences of linear dynamics, each with a transition of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lab.checks import Check, no_tensor, require
from lab.diagnosis.algorithms import Candidate, Fixed, Predictor, Searched
from lab.diagnosis.closed_forms import UserFile
from lab.diagnosis.mechanism import Targets
from lab.diagnosis.setting import Answer, Setting, user_candidates
from lab.domains.dynamics.mesa_optimization import one_step_predictions
from lab.domains.dynamics.sequences import linear_dynamics
from lab.errors import LabError
from lab.models.checkpoint import StoredModel
from lab.streams import RandomStream, stream


@dataclass(frozen=True)
class States:
    """Sequences of states: those that are shown, and the one after them."""

    states: Float[Tensor, "batch time dimension"]
    following: Float[Tensor, "batch dimension"]


@dataclass(frozen=True)
class NextState(Setting):
    """States x_{t+1} = W x_t with an orthogonal W of each sequence (`lab.domains.dynamics.sequences.linear_dynamics`); the answer is
    the state after the last: ``states [B, T, d] -> [B, d]``."""

    dimension: int = 4
    """of a state"""
    length: int = 12
    """states of a sequence"""

    arguments = ("states",)
    kind = "states"
    error_unit = "squared error"

    def sample(self, source: RandomStream, batch: int) -> States:
        """Fresh sequences."""
        drawn = linear_dynamics(
            source, batch, dimension=self.dimension, length=self.length + 1, transition="orthogonal"
        ).states.real.contiguous()
        return States(drawn[:, :-1].contiguous(), drawn[:, -1].contiguous())

    def inputs_of(self, prompts: States) -> tuple[Tensor]:
        """What a predictor is handed."""
        return (prompts.states,)

    def shape(self, *inputs: Tensor) -> tuple[int, ...]:
        """Shape of an answer."""
        return len(inputs[0]), inputs[0].shape[-1]

    def answers(self, predictor: Predictor, prompts: States) -> Answer:
        """The predicted state."""
        return predictor(prompts.states)

    def errors(self, answers: Answer, prompts: States) -> Float[Tensor, " prompt"]:
        """Squared distance from the true next state."""
        return (answers - prompts.following).square().sum(-1)

    def checks(self, predictor: Any) -> Iterator[Check]:
        """What a predictor of states must keep."""
        return state_checks(predictor, self.dimension, self.length)

    def candidates(self, prompts: States, user_file: UserFile | None = None) -> Iterator[Candidate]:
        """One gradient step on the transitions seen so far, solving for them, and less."""
        yield Fixed("zero", lambda states: torch.zeros_like(states[:, 0]), multiples=False)
        yield Fixed("the last state again", lambda states: states[:, -1])
        yield Fixed("least squares on the transitions", partial(solved, penalty=0.0))
        size = float(prompts.states.square().sum((1, 2)).median()) / self.dimension
        yield Searched(
            "one gradient step, fitted rate", partial(partial, one_step), real={"step": (0.02 / size, 100 / size)}
        )
        yield Searched(
            "ridge on the transitions, fitted", partial(partial, solved), real={"penalty": (1e-3 * size, 10 * size)}
        )
        yield from user_candidates(user_file, "states")

    @property
    def size(self) -> int:
        """States of a sequence."""
        return self.length

    def lengths(self) -> list[int]:
        """Numbers of states at which the predictor is compared."""
        return sorted({max(3, round(share * self.length)) for share in (1 / 2, 1, 2)})

    def at_length(self, length: int) -> NextState:
        """The same sequences with another number of states."""
        return dataclasses.replace(self, length=length)

    def shifts(self, source: RandomStream, batch: int) -> dict[str, States]:
        """Longer states."""
        base = self.sample(source, batch)
        return {"states x 2": States(2 * base.states, 2 * base.following)}

    def relations(self, prompts: States, places: int) -> Mapping[str, Targets]:
        """The state itself and the one before."""
        batch, length = prompts.states.shape[:2]
        if places != length:
            return {}
        itself = torch.eye(length, dtype=torch.bool).expand(batch, length, length)
        return {"itself": itself, "previous state": itself.roll(1, 1) & ~torch.ones_like(itself).triu(1)}

    def stored(self, model: StoredModel) -> Predictor:
        """None: checkpoints of the lab read tokens of other kinds."""
        raise LabError("a checkpoint reads tokens, but the prompts are states; wrap it in a function FILE.py:FUNCTION")


def one_step(states: Tensor, *, step: float) -> Float[Tensor, "batch dimension"]:
    """One gradient step from 0 on the transitions seen, applied to the last state (`one_step_predictions`)."""
    return one_step_predictions(states.to(torch.complex128), step)[:, -1].real


def solved(states: Tensor, *, penalty: float) -> Float[Tensor, "batch dimension"]:
    """The ridge solution W of x_{t+1} = W x_t over the transitions seen, applied to the last state; least squares at 0."""
    before, after = states[:, :-1], states[:, 1:]
    if penalty == 0:
        transition = torch.linalg.pinv(before) @ after
    else:
        unit = torch.eye(states.shape[-1], dtype=states.dtype)
        transition = torch.linalg.solve(before.mT @ before + penalty * unit, before.mT @ after)
    return (states[:, -1:] @ transition)[:, 0]


def state_checks(predictor: Any, dimension: int, length: int) -> Iterator[Check]:
    """The properties of a predictor of states, on sequences of ``length`` states."""
    states = torch.from_numpy(stream(0, "contract").rng().standard_normal((4, length, dimension)))

    def same(first: Tensor, second: Tensor, message: str) -> None:
        close = torch.allclose(first.double(), second.double(), rtol=1e-4, atol=1e-5)
        require(close, message)

    def finite() -> None:
        predictions = predictor(states)
        require(isinstance(predictions, Tensor), no_tensor(predictions))
        require(
            tuple(predictions.shape) == (4, dimension),
            f"it returned shape {tuple(predictions.shape)}, not {(4, dimension)}",
        )
        require(bool(torch.isfinite(predictions).all()), "a prediction is not finite")

    def inputs_kept() -> None:
        copy = states.clone()
        predictor(copy)
        require(torch.equal(copy, states), "it changed its input")

    def no_state() -> None:
        first = predictor(states)
        predictor(2 * states)
        same(first, predictor(states), "it keeps state between calls: the same sequences got other predictions")

    def apart() -> None:
        changed = states.clone()
        changed[2:] += 1
        same(predictor(states)[:2], predictor(changed)[:2], "the prediction of one sequence depends on another")

    yield Check("one finite prediction a query", finite)
    yield Check("inputs are not modified", inputs_kept)
    yield Check("no state is kept between calls", no_state)
    yield Check("prompts do not influence each other", apart)
