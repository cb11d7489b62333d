"""Sizes that leave out a label which a figure or claim reads, found before the work: both are tried on what ships.

A field of several values (lengths, scales, noises) labels an axis of what is measured, and so may a number of layers or
steps. A claim that reads one of these labels has nothing to read where it is left out, which would be seen only after the
measurement. So the numbers that ship are given the labels of the new configuration, and whatever would be drawn and judged
is drawn and judged on them; what comes out is thrown away.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr

from lab import shipped
from lab.claims import judge
from lab.errors import LabError
from lab.reproduction import Chosen
from lab.results import Results
from lab.tasks import Measurement

Labels = tuple[Any, ...]


def rehearse(results: Results, chosen: Chosen) -> None:
    """Refuse a configuration without a label that a chosen figure or claim reads. What does not ship is not rehearsed.

    Raises:
        LabError: naming the field and who reads it.
    """
    presets = [dict(_fields(preset)) for preset in results.task.presets.values()]
    now, ships = dict(_fields(results.config)), dict(_fields(results.task.presets["ci"]))
    changed = [name for name, value in now.items() if all(preset.get(name) != value for preset in presets)]
    if not any(_labels(now[name]) for name in changed):
        return
    other = [name for name in now if name not in ships or now[name] != ships[name]]
    known = [name for name in ships if name in now and list(ships.values()).count(ships[name]) == 1]
    axes = {name: dict(zip(_labels(ships[name]), _labels(now[name]), strict=False)) for name in other if name in known}
    tried = _Rehearsed(
        results, {before: after for relabelling in axes.values() for before, after in relabelling.items()}
    )
    for reader, error in _missing(tried, chosen):
        for name in changed:
            if _is_left_out(error, axes.get(name, {}), tried.relabelled):
                raise LabError(
                    f"--{name.replace('_', '-')} {_text(now[name])} leaves out what {reader} reads (at ci it is "
                    f"{_text(ships[name])}); keep that, or name with --only what does without it"
                )


def _fields(config: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """The fields of a configuration, and of those in it, by name."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _fields(value, f"{above}{field.name}.")
        else:
            yield f"{above}{field.name}", value


def _labels(value: Any) -> list[Labels]:
    """The labels that an axis may have which goes by a field: its values, or the numbers up to it."""
    if isinstance(value, tuple):
        return [value]
    if isinstance(value, int) and not isinstance(value, bool) and 2 <= value < 10_000:
        return [tuple(range(value)), tuple(range(value + 1)), tuple(range(1, value + 1))]
    return []


def _missing(tried: Results, chosen: Chosen) -> Iterator[tuple[str, KeyError]]:
    """What asks for a label that is not there. Other errors may be those of numbers under labels that are not theirs."""
    for claim in chosen.claims:
        try:
            judge(claim, tried)
        except Exception as error:
            yield from ((claim.id, cause) for cause in _chain(error) if isinstance(cause, KeyError))
    for name in chosen.figures:
        try:
            tried.task.figures[name](tried)
        except Exception as error:
            yield from ((f"the figure {name}", cause) for cause in _chain(error) if isinstance(cause, KeyError))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _is_left_out(error: KeyError, axes: Mapping[Labels, Labels], relabelled: Mapping[Labels, str]) -> bool:
    """Whether what was not found is one of the labels that went, or stands along an axis of theirs."""
    key = error.args[0] if error.args else None
    for before, after in axes.items():
        gone = [value for value in before if value not in after]
        along = before in relabelled and f"index {relabelled[before]!r}" in str(key)
        if gone and (along or any(key is value or key == value for value in gone)):
            return True
    return False


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


class _Rehearsed(Results):
    """What ships at ``ci`` for a task, under the labels of another configuration."""

    def __init__(self, results: Results, labels: Mapping[Labels, Labels]) -> None:
        super().__init__(results.task, results.config, dataclasses.replace(results.session, quiet=True))
        self.ships = Results(
            results.task, results.task.presets["ci"], dataclasses.replace(self.session, seeds=None, root=None)
        )
        self.labels = labels
        self.relabelled: dict[Labels, str] = {}

    def __getitem__(self, measurement: Measurement) -> Any:
        if any(shipped.find(shipped.FOLDER, job) is None for job in self.ships.jobs([measurement])):
            raise LabError(f"{measurement.name} does not ship")
        shipped_data = self.ships[measurement]
        return self._relabel(shipped_data) if isinstance(shipped_data, xr.Dataset) else shipped_data

    def _relabel(self, data: xr.Dataset) -> xr.Dataset:
        for axis in [axis for axis in data.dims if axis in data.coords]:
            old = data[axis].values
            before = next((labels for labels in self.labels if np.array_equal(np.asarray(labels), old)), None)
            if before is not None:
                places = [before.index(value) if value in before else 0 for value in self.labels[before]]
                data = data.isel({axis: places}).assign_coords({axis: np.asarray(self.labels[before])})
                self.relabelled[before] = str(axis)
        return data
