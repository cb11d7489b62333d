"""Configurations as plain data and back."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Mapping
from typing import Any

from lab.errors import LabError


def plain(config: Any) -> dict[str, Any]:
    """A configuration as JSON would give it back."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def config_from_dict(kind: type, values: Mapping[str, Any]) -> Any:
    """Rebuild a (nested) configuration from plain data; an unknown key is an error."""
    hints = typing.get_type_hints(kind)
    unknown = set(values) - {one.name for one in dataclasses.fields(kind)}
    if unknown:
        raise LabError(f"{kind.__name__} has no field {sorted(unknown)[0]!r}; its fields are {', '.join(hints)}")
    return kind(**{name: _typed(hints[name], value) for name, value in values.items()})


def _typed(hint: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return config_from_dict(typing.cast(type, hint), value)
    if isinstance(value, list):
        inner = [one for one in typing.get_args(hint) if one is not Ellipsis]
        return tuple(_typed(inner[0] if inner else Any, one) for one in value)
    return value
