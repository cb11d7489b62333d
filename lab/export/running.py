"""What runs an exported script: its measurements, taken when the check asks for them, and its verdict beside the lab's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Taken:
    """How a measurement is taken: at which seeds, how many in one call (0: one by one), or at which cases."""

    seeds: tuple[int, ...] = ()
    together: int = 0
    cases: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)


class Results:
    """What a check is given: ``results[measurement]``, taken when first asked for, and ``results.config``."""

    def __init__(self, config: Any, how: Mapping[str, Taken]) -> None:
        self.config, self.how = config, how
        self.measured: dict[str, Any] = {}

    def __getitem__(self, measurement: Callable[..., Any]) -> Any:
        name = measurement.__name__
        if name not in self.measured:
            self.measured[name] = self.take(measurement, self.how[name])
        return self.measured[name]

    def seeds(self, measurement: Callable[..., Any]) -> tuple[int, ...]:
        """The seeds along the first axis of what is measured."""
        return self.how[measurement.__name__].seeds

    def vary(self, **changes: Any) -> Results:
        """The same measurements with some fields of the configuration changed."""
        return Results(dataclasses.replace(self.config, **changes), self.how)

    def take(self, measurement: Callable[..., Any], how: Taken) -> Any:
        """All calls of a measurement, one after the other along the axis "seed" or "case"."""
        if how.cases:
            calls = [measurement(self.config, **setting) for setting in how.cases.values()]
            return joined(calls, "case", list(how.cases), added=True)
        if not how.together:
            calls = [measurement(self.config, seed) for seed in how.seeds]
            return joined(calls, "seed", how.seeds, added=True)
        starts = range(0, len(how.seeds), how.together)
        calls = [measurement(self.config, how.seeds[start : start + how.together]) for start in starts]
        return joined(calls, "seed", how.seeds, added=False)


def joined(calls: Sequence[Any], first: str, labels: Sequence[Any], added: bool) -> Any:
    """What several calls returned as arrays by name with one more axis in front, which they have already if not ``added``.

    A Dataset where their axes are named, a dict where they are not.
    """
    parts = [dict(call.data_vars if hasattr(call, "data_vars") else call) for call in calls]
    values = {
        name: np.concatenate([plain(part[name])[None] if added else plain(part[name]) for part in parts])
        for name in parts[0]
    }
    named = {name: value for name, value in parts[0].items() if hasattr(value, "dims")}
    if not named:
        return values
    import xarray

    axes = {name: tuple(getattr(parts[0][name], "dims", ()))[0 if added else 1 :] for name in values}
    coordinates = {
        axis: value.coords[axis].values for value in named.values() for axis in value.dims if axis in value.coords
    }
    arrays = {name: ((first, *axes[name]), value) for name, value in values.items()}
    return xarray.Dataset(arrays, coordinates | {first: list(labels)})


def plain(value: Any) -> np.ndarray:
    """Numbers as an array of numpy."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
    return np.asarray(value)


def verdict_beside(
    check: Callable[..., Any],
    results: Any,
    controls: Mapping[str, Mapping[str, Any]],
    allowance: float,
    expected: str,
    found_by_the_lab: Mapping[str, tuple[float, str]],
) -> int:
    """Print the claim and its controls beside what the lab found; 0 where every verdict is the lab's, else 1."""
    differ = 0
    for name, setting in {"the claim": {}, **controls}.items():
        evidence = dataclasses.replace(check(results, **setting), allowance=allowance)
        number, verdict = found_by_the_lab[name]
        parts = f", the weakest of {len(evidence.parts)}" if len(evidence.parts) > 1 else ""
        print(f"{name}: measured {evidence.measured:.6g}{parts}, required {evidence.requirement}: {evidence.verdict}")
        print(f"    in the lab: {number:.6g}, {verdict}")
        differ += evidence.verdict != verdict
    print(f"expected: the claim {expected}, and every control comes out the other way")
    print("every verdict is the lab's" if not differ else f"{differ} verdicts are not the lab's")
    return 1 if differ else 0
