r"""What mixes tokens: one interface for attention, recurrences and structured maps, and the contract it keeps.

A *mixer* takes **streams**, a mapping from names to tensors [model, batch, head, token, size]: queries, keys and values
(and a gate or a rate), or the residual stream alone under the name "stream" where the mixer has weights of its own. It
also takes a **pattern**, the mask [token, token] of `lab.models.masks`, and gives outputs [model, batch, head, token,
size]. It can be run in up to three **forms**, which are one function:

- ``parallel(streams, mask)``: all positions at once; every mixer has it.
- ``recurrent(streams, mask)``: token by token through an explicit **state**, a mapping from names to tensors
  [model, batch, head, ...]. ``write(state, token)`` takes up one token, ``read(state, token)`` answers one; a token is a
  mapping from names to [model, batch, head, size]. The pattern says how many tokens are written before token i is read
  (`reach`), so that causal, prefix and block-causal patterns are one loop. ``state_size(sizes, written)`` is the number
  of numbers that a head holds, which grows with ``written`` where the state is a cache.
- ``chunked(streams, mask, chunk)``: a recurrence over chunks of so many tokens, parallel inside each.

``forms(mask)`` names those that exist under a pattern; any other raises LabError. ``reads(mask)`` is the zero pattern of
the Jacobian, True at (i, j) iff output i depends on a stream of token j, and ``rounding(streams, mask)`` a derived bound
of the difference of two forms. A user's mixer is a subclass; with

    @sequence_mixer(patterns=[{"name": "causal", "length": 7}], query=3, key=3, value=2)
    class Sums(Mixer):
        def parallel(self, streams, mask): ...

it is registered with the sizes and patterns to try it on, and `lab.checks.mixer_checks` holds all its
forms to one another and its Jacobian to ``reads``. What is decorated may also be a function that makes a mixer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lab.contracts import Registered
from lab.errors import LabError

Streams = Mapping[str, Tensor]
State = Mapping[str, Tensor]
Factory = TypeVar("Factory", bound=Callable[..., Any])
FORMS = ("parallel", "recurrent", "chunked")


class Mixer(ABC):
    """See the module. ``streams`` names what it takes: None, or the range (low, high] in which the numbers must lie."""

    streams: ClassVar[Mapping[str, tuple[float, float] | None]] = {"query": None, "key": None, "value": None}

    @abstractmethod
    def parallel(
        self, streams: Streams, mask: Bool[Tensor, "*pattern token token"]
    ) -> Float[Tensor, "model batch head token size"]:
        """Outputs of all positions at once; ``mask`` may also carry axes [model, batch, 1] in front."""

    def start(self, streams: Streams) -> State:
        """The state before any token, for streams of these models, prompts, heads, sizes and dtype."""
        raise self._without("recurrent")

    def write(self, state: State, token: Streams) -> State:
        """The state with one token more."""
        raise self._without("recurrent")

    def read(self, state: State, token: Streams) -> Float[Tensor, "model batch head size"]:
        """The output of one token."""
        raise self._without("recurrent")

    def state_size(self, sizes: Mapping[str, int], written: int) -> int:
        """Numbers in one head's state after ``written`` tokens, for streams of these sizes."""
        raise self._without("recurrent")

    def recurrent(
        self, streams: Streams, mask: Bool[Tensor, "token token"]
    ) -> Float[Tensor, "model batch head token size"]:
        """Token by token: before token i is read, its `reach` is written."""
        state, outputs, written = self.start(streams), [], 0
        for place, needed in enumerate(reach(mask).tolist()):
            for new in range(written, needed):
                state = self.write(state, at(streams, new))
            written = needed
            outputs.append(self.read(state, at(streams, place)))
        return torch.stack(outputs, dim=-2)

    def chunked(
        self, streams: Streams, mask: Bool[Tensor, "token token"], chunk: int
    ) -> Float[Tensor, "model batch head token size"]:
        """A recurrence over chunks of ``chunk`` tokens (the last may be shorter)."""
        raise self._without("chunked")

    def forms(self, mask: Bool[Tensor, "token token"]) -> tuple[str, ...]:
        """Names among ``FORMS`` that exist under this pattern: those that are written, if the pattern has a `reach`."""
        recurrent = type(self).read is not Mixer.read or type(self).recurrent is not Mixer.recurrent
        written = ["parallel", *["recurrent"] * recurrent, *["chunked"] * (type(self).chunked is not Mixer.chunked)]
        return tuple(written) if has_reach(mask) else ("parallel",)

    def reads(self, mask: Bool[Tensor, "token token"]) -> Bool[Tensor, "token token"]:
        """Whose streams an output depends on: what the token sees, and its own query where it sees anything."""
        identity = torch.eye(len(mask), dtype=torch.bool, device=mask.device)
        return mask | (identity & mask.any(-1, keepdim=True))

    def rounding(self, streams: Streams, mask: Bool[Tensor, "token token"]) -> float:
        """A derived bound of the largest difference of two forms; compulsory where there are two.

        Raises:
            LabError: a mixer that does not define it.
        """
        raise LabError(
            f"{type(self).__name__} does not bound the difference of its forms; please write its `rounding`."
        )

    def run(
        self, form: str, streams: Streams, mask: Bool[Tensor, "token token"], chunk: int | None = None
    ) -> Float[Tensor, "model batch head token size"]:
        """The outputs by the form of this name, its streams checked.

        Raises:
            LabError: no such form under this pattern, or streams that the mixer does not take.
        """
        self.check(streams)
        if form not in self.forms(mask):
            raise self._without(form)
        if form == "chunked":
            if chunk is None or chunk < 1:
                raise LabError(f"chunk = {chunk} of {type(self).__name__} must be at least 1 token; please raise it.")
            return self.chunked(streams, mask, chunk)
        return self.parallel(streams, mask) if form == "parallel" else self.recurrent(streams, mask)

    def check(self, streams: Streams) -> None:
        """Refuse streams of other names, axes or ranges.

        Raises:
            LabError: names what is wrong with them.
        """
        name = type(self).__name__
        if set(streams) != set(self.streams):
            raise LabError(f"{name} takes the streams {_list(self.streams)} but got {_list(streams)}; give these.")
        leading = {tuple(value.shape[:4]) for value in streams.values()}
        if len(leading) != 1 or any(value.ndim != 5 for value in streams.values()):
            shapes = ", ".join(f"{key} {tuple(value.shape)}" for key, value in streams.items())
            raise LabError(
                f"The streams of {name} must be [model, batch, head, token, size], alike but for the size, but are "
                f"{shapes}; reshape them."
            )
        for key, allowed in self.streams.items():
            value = streams[key]
            if allowed is not None and value.numel() and not bool(((value > allowed[0]) & (value <= allowed[1])).all()):
                wrong = value[~((value > allowed[0]) & (value <= allowed[1]))].flatten()[0]
                raise LabError(
                    f"A {key} of {name} is {float(wrong):.4g} but must lie in ({allowed[0]:g}, {allowed[1]:g}]; change it."
                )

    def _without(self, form: str) -> LabError:
        return LabError(
            f"{type(self).__name__} has no {form} form under this pattern; run it in parallel, or under a pattern in which "
            "each token sees the first ones, never fewer than the token before."
        )


def at(streams: Streams, place: int) -> dict[str, Tensor]:
    """One token of every stream [model, batch, head, size]."""
    return {name: value[..., place, :] for name, value in streams.items()}


def between(streams: Streams, first: int, end: int) -> dict[str, Tensor]:
    """Tokens first .. end - 1 of every stream [model, batch, head, token, size]."""
    return {name: value[..., first:end, :] for name, value in streams.items()}


def has_reach(mask: Bool[Tensor, "*pattern token token"]) -> bool:
    """Whether each token sees the first ones only, never fewer than the token before: what one state can serve."""
    if mask.ndim != 2:
        return False
    counts = mask.sum(-1)
    first = torch.arange(mask.shape[-1], device=mask.device) < counts.unsqueeze(-1)
    return torch.equal(mask, first) and bool((counts.diff() >= 0).all())


def reach(mask: Bool[Tensor, "token token"]) -> Int[Tensor, " token"]:
    """How many tokens are written before each is read: i + 1 under `causal`, max(i + 1, p) under `prefix_lm`.

    Raises:
        LabError: no single state serves this pattern (see `has_reach`).

    >>> from lab.models.masks import prefix_lm
    >>> reach(prefix_lm(4, 2)).tolist()
    [2, 2, 3, 4]
    """
    if not has_reach(mask):
        raise LabError(
            "One state cannot serve this pattern, in which a token does not see just the first ones or sees fewer than the "
            "token before; run the mixer in parallel."
        )
    return mask.sum(-1)


def sequence_mixer(
    *, patterns: Sequence[Mapping[str, Any]], arguments: Mapping[str, Any] | None = None, **sizes: int
) -> Callable[[Factory], Factory]:
    """Register a class of mixers, or a function that makes one, with what its contract is tried on.

    Args:
        patterns: names and sizes of patterns, as `lab.models.mask_patterns.mask` takes them.
        arguments: what the mixer is made with.
        sizes: of each stream.
    """
    example = {"patterns": tuple(patterns), "arguments": dict(arguments or {}), "sizes": sizes}

    def register(factory: Factory) -> Factory:
        factory.__contract__ = Registered("mixer", factory, example)  # type: ignore[attr-defined]
        return factory

    return register


def _list(names: Mapping[str, Any]) -> str:
    return ", ".join(names) or "nothing"
