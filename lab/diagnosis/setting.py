"""What a task offers the diagnosis: prompts, how they are asked, and what may answer them.

A setting draws prompts, asks a predictor and writes its answer as numbers that are 0 for the predictor that knows
nothing, names the closed forms that may explain them, and changes the prompts in ways in which algorithms differ.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lab.checks import Check
from lab.diagnosis.algorithms import Candidate, Predictor
from lab.diagnosis.attention_maps import Maps
from lab.diagnosis.closed_forms import UserFile
from lab.diagnosis.mechanism import Targets
from lab.domains.regression.prompts import random_orders
from lab.errors import LabError
from lab.models.checkpoint import StoredModel
from lab.streams import RandomStream

Answer = Float[Tensor, "prompt number"]


class Setting(ABC):
    """Prompts of one protocol; a subclass is a frozen dataclass of their sizes.

    Attributes:
        arguments: names of what a predictor is given.
        kind: of the protocol: "regression", "tokens" or "states".
        error_unit: of `errors`.
        log_answers: whether answers are log-probabilities.
        linear: whether a multiple of an answer is an answer.
    """

    arguments: ClassVar[tuple[str, ...]]
    kind: ClassVar[str]
    error_unit: ClassVar[str]
    log_answers: ClassVar[bool] = False
    linear: ClassVar[bool] = True

    @abstractmethod
    def sample(self, source: RandomStream, batch: int) -> Any:
        """Fresh prompts."""

    @abstractmethod
    def inputs_of(self, prompts: Any) -> tuple[Tensor, ...]:
        """What a predictor is handed."""

    @abstractmethod
    def shape(self, *inputs: Tensor) -> tuple[int, ...]:
        """Shape of an answer to what is given."""

    @abstractmethod
    def answers(self, predictor: Predictor, prompts: Any) -> Answer:
        """What a predictor answers, as numbers that are 0 where it knows nothing."""

    @abstractmethod
    def errors(self, answers: Answer, prompts: Any) -> Float[Tensor, " prompt"]:
        """How far answers are from the truth, at least 0."""

    @abstractmethod
    def checks(self, predictor: Any) -> Iterator[Check]:
        """The contract of the protocol, at the sizes of this setting."""

    @abstractmethod
    def candidates(self, prompts: Any, user_file: UserFile | None = None) -> Iterator[Candidate]:
        """The closed forms, to be fitted on ``prompts``, and those of a user's file."""

    @property
    @abstractmethod
    def size(self) -> int:
        """The length of a prompt, whatever is counted."""

    def lengths(self) -> list[int]:
        """Lengths at which the predictor is compared."""
        return [self.size]

    def at_length(self, length: int) -> Setting:
        """The same prompts at another length."""
        if length != self.size:
            raise LabError(f"these prompts have {self.size} places and no other length")
        return self

    def shifts(self, source: RandomStream, batch: int) -> dict[str, Any]:
        """Prompts of laws that differ from this one in one respect."""
        return {}

    def reordered(self, prompts: Any, source: RandomStream) -> Any:
        """The same context in another order; the prompts themselves where order is all that they are."""
        return prompts

    def sensitivities(self, predictor: Predictor, prompts: Any, source: RandomStream) -> dict[str, Answer]:
        """Derivatives of the answer, by what is moved: of "query" and "context", where they can be moved."""
        return {}

    def watched(self, prompts: Any) -> tuple[Tensor, ...]:
        """What a predictor is handed while its attention is watched: one sequence of tokens a prompt."""
        return self.inputs_of(prompts)

    def relations(self, prompts: Any, places: int) -> Mapping[str, Targets]:
        """Where a token may look, by name, in a network of ``places`` tokens; nothing if it is unknown how those are written."""
        return {}

    def constructions(self, prompts: Any, places: int) -> list[Maps]:
        """Attention of the explicit constructions of theory on the same tokens."""
        return []

    @abstractmethod
    def stored(self, model: StoredModel) -> Predictor:
        """The predictor of a checkpoint.

        Raises:
            LabError: it reads other tokens.
        """


def user_candidates(user_file: UserFile | None, kind: str, **sizes: int) -> list[Candidate]:
    """Candidates of a user's file that answer a protocol."""
    return user_file.candidates(kind, **sizes) if user_file else []


def another_order(source: RandomStream, length: int) -> Int[Tensor, " length"]:
    """A random order that is not the one things stand in, of more than one thing."""
    order = random_orders(source, 1, length)[0]
    return order.roll(1) if torch.equal(order, torch.arange(length)) else order
