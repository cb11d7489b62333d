"""Configurations as plain data and back."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lab.errors import LabError, kind_of, nearest

FIELDS = "numbers, text, booleans, None, paths, members of an Enum, other frozen dataclasses, and tuples, lists or dicts of these"


def plain(config: Any) -> dict[str, Any]:
    """A configuration as JSON would give it back."""
    return json.loads(
        json.dumps({field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)})
    )


def classes_of(value: Any) -> set[type]:
    """The classes of a configuration, of its values and of theirs, but for those that Python has built in."""
    classes = set() if type(value).__module__ == "builtins" else {type(value)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        inner = [getattr(value, field.name) for field in dataclasses.fields(value)]
    elif isinstance(value, Mapping):
        inner = [*value, *value.values()]
    else:
        inner = list(value) if isinstance(value, list | tuple) else []
    return classes.union(*(classes_of(item) for item in inner))


def config_from_dict(kind: type, values: Mapping[str, Any]) -> Any:
    """Rebuild a (nested) configuration from plain data; an unknown key is an error."""
    hints = typing.get_type_hints(kind)
    known = [field.name for field in dataclasses.fields(kind)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        hint = nearest(unknown[0], known)
        raise LabError(f"{kind.__name__} has no field {unknown[0]!r}{hint}; its fields are {', '.join(known)}")
    return kind(**{name: _typed(hints[name], value) for name, value in values.items()})


def check_config(config: Any) -> None:
    """Refuse a configuration that a worker could not be given: it must be the same after a journey as plain data.

    Raises:
        LabError: it is no frozen dataclass, or a field holds what has no plain form.
    """
    kind = type(config)
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise LabError(
            f"the configuration is a {kind.__name__}, which is no dataclass; make it an instance of a frozen one"
        )
    if not kind.__dataclass_params__.frozen:
        raise LabError(
            f"the dataclass {kind.__name__} of the configuration can be changed; write @dataclass(frozen=True)"
        )
    try:
        typing.get_type_hints(kind)
    except NameError as error:
        raise LabError(
            f"a field of {kind.__name__} is of a type that is not defined: {error}; import or define it"
        ) from error
    for field in dataclasses.fields(kind):
        value = getattr(config, field.name)
        about = f"the field {field.name!r} of {kind.__name__} holds {value!r}{'' if value is None else f', {kind_of(value)}'},"
        if not field.init:
            raise LabError(
                f"{about} and cannot be given (init=False), so no option or worker could set it; make it a property"
            )
        try:
            back = _typed(typing.get_type_hints(kind)[field.name], json.loads(json.dumps(_plain(value))))
        except (TypeError, ValueError, KeyError, LabError) as error:
            raise LabError(f"{about} which has no plain form; fields are {FIELDS}") from error
        if not _same(value, back):
            raise LabError(
                f"{about} which a worker would be given as {back!r}; annotate the field with its type ({FIELDS})"
            )


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(_plain(key)): _plain(element) for key, element in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(element) for element in value]
    return value


def _typed(hint: Any, value: Any) -> Any:
    """What plain data stand for where ``hint`` is expected."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _typed(inner[0], value)
    if origin in (typing.Union, types.UnionType):
        return _first_that_fits([member for member in inner if member is not type(None)], value)
    if isinstance(value, Mapping):
        if dataclasses.is_dataclass(hint):
            return config_from_dict(typing.cast(type, hint), value)
        key_hint, value_hint = inner if len(inner) == 2 else (str, Any)
        return {_key(key_hint, name): _typed(value_hint, element) for name, element in value.items()}
    if isinstance(value, list):
        of_each = [element_hint for element_hint in inner if element_hint is not Ellipsis] or [Any]
        hints = of_each if len(of_each) == len(value) else of_each[:1] * len(value)
        elements = [_typed(element_hint, element) for element_hint, element in zip(hints, value, strict=True)]
        return elements if origin is list or hint is list else tuple(elements)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return hint[value]
    if isinstance(hint, type) and issubclass(hint, Path) and isinstance(value, str):
        return hint(value)
    return value


def _first_that_fits(hints: list[Any], value: Any) -> Any:
    """As the first member of a union whose plain form is ``value``; ``value`` itself where that is none."""
    if value is None:
        return None
    for hint in hints:
        try:
            typed = _typed(hint, value)
        except (LabError, TypeError, ValueError, KeyError):
            continue
        if _of(hint, typed) and _plain(typed) == value:
            return typed
    return value


def _of(hint: Any, value: Any) -> bool:
    kind = typing.get_origin(hint) or hint
    if kind is typing.Literal:
        return value in typing.get_args(hint)
    return not isinstance(kind, type) or isinstance(value, kind) or (kind is float and isinstance(value, int))


def _key(hint: Any, name: str) -> Any:
    return _typed(hint, name) if not (isinstance(hint, type) and issubclass(hint, int | float)) else hint(name)


def _same(first: Any, second: Any) -> bool:
    """Whether two values are equal and of one type throughout; numbers of numpy are those of Python, nan is nan."""
    first, second = (value.item() if isinstance(value, np.generic) else value for value in (first, second))
    if isinstance(first, float | int) and isinstance(second, float | int):
        return first == second or (math.isnan(first) and math.isnan(second))
    if type(first) is not type(second):
        return False
    if dataclasses.is_dataclass(first):
        return all(_same(getattr(first, part.name), getattr(second, part.name)) for part in dataclasses.fields(first))
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(_same, first, second))
    if isinstance(first, dict):
        return list(first) == list(second) and all(_same(first[key], second[key]) for key in first)
    return bool(first == second)


def smaller_sizes(config: Any, presets: Sequence[Any], above: str = "") -> dict[str, tuple[int, int]]:
    """Whole numbers, and numbers of elements, of ``config`` that are below those of all ``presets``, with the least of these."""
    smaller: dict[str, tuple[int, int]] = {}
    for field in dataclasses.fields(config):
        name, values = f"{above}{field.name}", [getattr(preset, field.name) for preset in presets]
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value) and all(type(other) is type(value) for other in values):
            smaller |= smaller_sizes(value, values, f"{name}.")
        sizes = [_size(other) for other in (value, *values)]
        known = [size for size in sizes if size is not None]
        if len(known) == len(sizes) and known[0] < min(known[1:]):
            smaller[name] = known[0], min(known[1:])
    return smaller


def _size(value: Any) -> int | None:
    if isinstance(value, tuple | list | dict):
        return len(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
