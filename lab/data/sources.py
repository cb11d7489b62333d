"""A registered generator at chosen sizes, as one endless sequence of prompts that any chunk reads alike.

Prompt i of a seed is row i mod ``BLOCK`` of block i // ``BLOCK``, and a block is one draw from the stream
``(seed, "prompts", block)``. Where a file, a worker or a batch begins and ends is no part of it.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lab.catalogue import load
from lab.checks import fields
from lab.contracts import Registered, all_registered, registered
from lab.data.identity import Part, belongs, check_share
from lab.errors import LabError, nearest
from lab.streams import stream

BLOCK = 1024
"""Prompts drawn at once; a part of what a seed means, so that it never changes."""
BARREN = 100
"""Blocks without one prompt of the wanted part, after which there is none; more where the part is small."""
UNLIKELY = 50.0
"""So many prompts of the part are expected in the blocks that hold none, before that is said."""

WRITTEN = "written in JSON"


def find_generator(name: str) -> Registered:
    """The registered generator called ``name``: its own name, that with its module, or ``FILE.py:NAME`` of one's own.

    Raises:
        LabError: there is none, with the nearest name.
    """
    if ".py" in name:
        file, _, wanted = name.partition(":")
        module = sys.modules[load(Path(file)).module]
        known = [registration for registration in registered(module) if registration.kind == "generator"]
        where = f"{file} registers"
    else:
        wanted, where = name, "the lab has"
        known = generators()
    written = wanted.replace("-", "_")
    matches = [generator for generator in known if written in (generator.part.__name__, generator.name)]
    if not matches:
        names = [generator.part.__name__ for generator in known]
        raise LabError(
            f"no generator is called {wanted!r}{nearest(written, names)}; {where} {', '.join(names) or 'none'}"
        )
    return matches[0]


def generators() -> list[Registered]:
    """Every generator registered in the library."""
    return [registration for registration in all_registered() if registration.kind == "generator"]


@dataclass(frozen=True)
class Source:
    """A generator at given sizes.

    Attributes:
        name: what it is called in messages and files.
        sample: ``(stream, batch, **sizes) -> dataclass of tensors [batch, ...]``.
        sizes: its arguments beside stream and batch.
        part: "all" of its prompts, or one of two parts that no prompt belongs to both of (`lab.data.identity`).
        share: the probability with which a prompt belongs to the part "held-out".

    Raises:
        LabError: a share that is not between 0 and 1.
    """

    name: str
    sample: Callable[..., Any]
    sizes: Mapping[str, Any] = field(default_factory=dict)
    part: Part = "all"
    share: float = 0.1

    def __post_init__(self) -> None:
        check_share(self.share)

    def block(self, seed: int, number: int, rows: int = BLOCK, below: str = "prompts") -> dict[str, Tensor]:
        """The first ``rows`` prompts of a block of "all", each field [rows, ...]; complex fields as two real ones."""
        drawn = fields(self.sample(stream(seed, below, number), rows, **self.sizes))
        if not drawn:
            raise LabError(f"{self.name} drew nothing that is a tensor; a generator returns a dataclass of tensors")
        real_fields: dict[str, Tensor] = {}
        for name, value in drawn.items():
            real_fields |= (
                {f"{name}_real": value.real, f"{name}_imag": value.imag} if value.is_complex() else {name: value}
            )
        return {name: value.contiguous() for name, value in real_fields.items()}

    def blocks(self, seed: int, worker: int = 0, workers: int = 1) -> Iterator[dict[str, Tensor]]:
        """What each block holds of the part: blocks ``worker``, ``worker + workers`` and so on, without end.

        Raises:
            LabError: the part is empty, as it is where a generator has only few different prompts.
        """
        number, barren = worker, 0
        rare = min(self.share, 1 - self.share)
        enough = max(BARREN, math.ceil(UNLIKELY / (rare * BLOCK)))
        while True:
            block = self.block(seed, number)
            if self.part != "all":
                kept = torch.from_numpy(belongs(block, self.part, self.share))
                block = {name: value[kept] for name, value in block.items()}
            if len(next(iter(block.values()))):
                barren = 0
                yield block
            else:
                barren += 1
            if barren == enough:
                raise LabError(
                    f"none of {enough * BLOCK:,} prompts of {self.name} belongs to the part {self.part!r} at a share of {self.share}: "
                    "it has too few different prompts at these sizes; choose larger sizes or another share"
                )
            number += workers

    def chunks(self, seed: int, count: int, size: int = BLOCK) -> Iterator[dict[str, Tensor]]:
        """The first ``count`` prompts of the part, ``size`` at a time (the last chunk may be shorter).

        Raises:
            LabError: a count or a size below 1.
        """
        for name, value in (("--count", count), ("--chunk", size)):
            if value < 1:
                raise LabError(f"{name} {value} is below 1; ask for at least one prompt")
        if self.part == "all" and size == count < BLOCK:
            yield self.block(seed, 0, count)
            return
        waiting: list[dict[str, Tensor]] = []
        held, left = 0, count
        for block in self.blocks(seed):
            waiting.append(block)
            held += len(next(iter(block.values())))
            while left and held >= min(size, left):
                together = _joined(waiting)
                rows = min(size, left)
                yield {name: value[:rows] for name, value in together.items()}
                waiting = [{name: value[rows:] for name, value in together.items()}]
                held, left = held - rows, left - rows
            if not left:
                return


def _joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    if len(parts) == 1:
        return parts[0]
    try:
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    except RuntimeError as error:
        raise LabError(
            f"the prompts have not all one shape ({error}); a generator pads what it draws to one length"
        ) from error


# ------------------------------------------------------------------------------------------------ sizes as options


def options(generator: Registered) -> Any:
    """An instance of a frozen dataclass with a field for each size of ``generator``, at the sizes it registered.

    Matrices and nested tuples are text in the form of JSON, empty for the registered ones.
    """
    function = inspect.unwrap(generator.part)
    hints = typing.get_type_hints(function)
    size_fields: list[Any] = []
    for name, parameter in list(inspect.signature(function).parameters.items())[2:]:
        hint = hints.get(name, Any)
        if hint is torch.dtype:
            continue  # prompts are rounded when they are written
        default, written = generator.example.get(name, parameter.default), False
        if not _is_plain(hint) or (
            isinstance(default, tuple) and any(isinstance(element, tuple) for element in default)
        ):
            hint, default, written = str, "", True
        elif typing.get_origin(hint) is not typing.Literal and isinstance(default, tuple):
            hint, default = tuple[_element(hint, default), ...], tuple(default)  # type: ignore[misc]
        size_fields.append((name, hint, dataclasses.field(default=default, metadata={WRITTEN: written})))
    kind = dataclasses.make_dataclass(f"{generator.part.__name__}_sizes", size_fields, frozen=True)
    kind.__module__ = generator.part.__module__
    return kind()


def source_from(generator: Registered, sizes: Any, part: Part = "all", share: float = 0.1) -> Source:
    """The source of ``generator`` at ``sizes``, an instance of what `options` returns.

    Raises:
        LabError: a matrix that is not written in JSON.
    """
    chosen = dict(generator.example)
    for size_field in dataclasses.fields(sizes):
        value = getattr(sizes, size_field.name)
        if size_field.metadata[WRITTEN]:
            if not value:
                continue  # the registered one
            value = _from_json(size_field.name, value, generator.example.get(size_field.name))
        chosen[size_field.name] = value
    return Source(generator.part.__name__, generator.part, chosen, part, share)


def _is_plain(hint: Any) -> bool:
    """Whether a command line can give it: numbers, text, choices, flat sequences of them, dataclasses."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return True
    if origin in (typing.Union, types.UnionType):
        return all(argument is type(None) or _is_plain(argument) for argument in inner)
    if origin is not None and isinstance(origin, type) and issubclass(origin, typing.Sequence):
        return all(argument is Ellipsis or argument in (int, float, str) for argument in inner)
    return hint in (int, float, str, bool) or (isinstance(hint, type) and dataclasses.is_dataclass(hint))


def _element(hint: Any, default: tuple[Any, ...]) -> type:
    return next(
        (argument for argument in typing.get_args(hint) if argument in (int, float, str)),
        type(default[0]) if default else float,
    )


def _from_json(name: str, text: str, known: Any) -> Any:
    try:
        value = json.loads(text)
        if isinstance(known, Tensor):
            return torch.tensor(value, dtype=known.dtype)
        return _tuples(value) if isinstance(value, list) else np.float64(value).item()
    except (ValueError, TypeError, RuntimeError) as error:
        raise LabError(
            f"--{name.replace('_', '-')} {text[:80]} is no matrix ({error}); write rows in brackets, as '[[0, 1], [1, 0]]'"
        ) from error


def _tuples(value: Any) -> Any:
    return tuple(_tuples(element) for element in value) if isinstance(value, list) else value
