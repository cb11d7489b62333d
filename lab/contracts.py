"""The decorators with which a generator or a closed form registers itself, with an example to be checked on.

They remember it, and a generator that is asked for no prompts refuses; what is checked stands in ``lab.checks``. Neither
can change a number, so that an edit of it makes no measurement stale.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any, TypeVar, cast

from lab.errors import LabError

Function = TypeVar("Function", bound=Callable[..., Any])
ROOM = "lab.domains"


@dataclass(frozen=True)
class Registered:
    """A part that asked to be checked: its kind, and the example it is checked on."""

    kind: str
    part: Callable[..., Any]
    example: Mapping[str, Any]

    @property
    def name(self) -> str:
        return f"{self.part.__module__}.{self.part.__name__}"


def generator(**example: Any) -> Callable[[Function], Function]:
    """Register ``(stream, batch, **sizes) -> dataclass of tensors [batch, ...]`` with example sizes.

    What is registered raises LabError where it is asked for less than one prompt.
    """

    def register(function: Function) -> Function:
        @functools.wraps(function)
        def sample(*arguments: Any, **sizes: Any) -> Any:
            batch = sizes["batch"] if "batch" in sizes else arguments[1] if len(arguments) > 1 else 1
            if batch < 1:
                raise LabError(f"The batch is {batch} but must be at least 1 for {function.__name__}; raise batch.")
            return function(*arguments, **sizes)

        return cast(Function, _register("generator", example, sample))

    return register


def regression_predictor(**example: Any) -> Callable[[Function], Function]:
    """Register ``(**example) -> regression predictor``, a factory of closed forms."""
    return partial(_register, "regression", example)


def token_predictor(*, vocabulary: int, length: int = 12, **example: Any) -> Callable[[Function], Function]:
    """Register ``(vocabulary=..., **example) -> token predictor``; checked on sequences of ``length`` tokens."""
    return partial(_register, "tokens", {"vocabulary": vocabulary, "length": length, **example})


def _register(kind: str, example: Mapping[str, Any], function: Function) -> Function:
    function.__contract__ = Registered(kind, function, example)  # type: ignore[attr-defined]
    return function


def registered(module: ModuleType) -> list[Registered]:
    """What ``module`` itself defines and registers."""
    contracts = [getattr(value, "__contract__", None) for value in vars(module).values()]
    return [
        contract
        for contract in contracts
        if isinstance(contract, Registered) and contract.part.__module__ == module.__name__
    ]


def all_registered(room: str = ROOM) -> list[Registered]:
    """Everything registered in a room of the library: its domains, or another package."""
    contracts: list[Registered] = []
    for _, name, package in pkgutil.walk_packages(importlib.import_module(room).__path__, f"{room}."):
        if not package:
            contracts += registered(importlib.import_module(name))
    return contracts
