"""From samples to what a curve shows: a middle, a band and the number of samples at every point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr

from lab.errors import LabError
from lab.statistics import mean_band

Label = str | float
Samples = xr.DataArray | np.ndarray | Mapping[Any, Any] | Sequence[Any]
Middle = Literal["mean", "geometric mean", "median"]
Band = Literal["student", "range", "quartiles", "none"]


@dataclass(frozen=True)
class Summary:
    """What is drawn at each point. ``low``, ``high`` are NaN and ``n`` 0 where there is none.

    Attributes:
        x: labels of the points, numbers or categories.
        mean: the middle, whichever kind it is.
        low, high: the band.
        n: samples behind each point.
        words: what the band is, for the foot of the picture; empty for values without samples.
    """

    x: list[Label]
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n: np.ndarray
    words: str


def summary(
    samples: Samples,
    over: str | None,
    x: Any,
    *,
    across: str | None,
    middle: Middle,
    band: Band | None,
    within: tuple[float, float] | None,
    name: str,
) -> Summary:
    """Middle and band of ``samples`` at every point.

    Args:
        samples: DataArray with the axes ``across`` and ``over``; array [sample, point] or, for a single ``x``, [sample]; or
            a mapping from category to its samples. NaN is a missing sample.
        across: the axis of independent samples; None for values without samples.
        band: None for Student's interval, or quartiles for a median.
        within: the band is cut off at these ends (a share lies in 0 to 1).
    """
    band = ("quartiles" if middle == "median" else "student") if band is None else band
    if band == "student" and middle == "median":
        raise LabError(f"{name!r} asks for a Student band around a median; its bands are quartiles, range or none")
    labels, columns = table(samples, over, x, across=across, name=name)
    count = (~np.isnan(columns)).sum(0)
    empty = np.full(len(labels), np.nan)
    if across is None:
        return Summary(labels, columns[0], empty, empty.copy(), np.zeros(len(labels), int), "")
    if middle == "geometric mean":
        if (columns <= 0).any():
            raise LabError(f"{name!r} has a sample {np.nanmin(columns):.3g}; a geometric mean needs samples above 0")
        columns = np.log(columns)
    centre, low, high = empty.copy(), empty.copy(), empty.copy()
    for number in np.unique(count[count > 0]):
        # Points with equally many samples go together; a point with missing samples keeps the others.
        at = count == number
        kept = columns[:, at].T[~np.isnan(columns[:, at].T)].reshape(-1, number).T
        centre[at] = np.median(kept, axis=0) if middle == "median" else kept.mean(0)
        if number > 1 and band != "none":
            low[at], high[at] = _edges(kept, band)
    if middle == "geometric mean":
        centre, low, high = np.exp(centre), np.exp(low), np.exp(high)
    if within is not None:
        low, high = np.clip(low, *within), np.clip(high, *within)
    return Summary(labels, centre, low, high, count, _words(middle, band, across))


def table(
    samples: Samples, over: str | None, x: Any, *, across: str | None, name: str
) -> tuple[list[Label], np.ndarray]:
    """Labels of the points, and the samples as an array [sample, point]."""
    if isinstance(samples, xr.DataArray):
        return _labelled(samples, over, x, across, name)
    if isinstance(samples, Mapping):
        groups = [np.atleast_1d(np.asarray(values, dtype=np.float64)) for values in samples.values()]
        columns = np.full((max(map(len, groups), default=0), len(groups)), np.nan)
        for place, values in enumerate(groups):
            if values.ndim != 1:
                raise LabError(
                    f"{name!r} has samples of shape {values.shape} for one category; give one number a sample"
                )
            columns[: len(values), place] = values
        return [label(category) for category in samples], columns
    columns = np.asarray(samples, dtype=np.float64)
    if x is None:
        raise LabError(f"{name!r} is drawn from an array without labels; give x=, or pass a labelled array with over=")
    labels = [label(x)] if isinstance(x, str) or np.ndim(x) == 0 else [label(place) for place in x]
    if across is None:
        columns = np.atleast_1d(columns)[None]
    elif columns.ndim == 1 and len(labels) == 1:
        columns = columns[:, None]
    if columns.ndim != 2 or columns.shape[1] != len(labels):
        wanted = f"[{len(labels)}]" if across is None else f"[samples, {len(labels)}]"
        shape = columns.shape[1:] if across is None else columns.shape
        raise LabError(
            f"{name!r} has values of shape {list(shape)} for {len(labels)} places; its shape must be {wanted}"
        )
    return labels, columns


def _labelled(
    samples: xr.DataArray, over: str | None, x: Any, across: str | None, name: str
) -> tuple[list[Label], np.ndarray]:
    axes = [str(axis) for axis in samples.dims]
    remaining = [axis for axis in axes if axis != across]
    if across is not None and across not in axes:
        raise LabError(
            f"{name!r} has the axes {', '.join(axes) or 'none'} and no axis {across!r} of samples; "
            "name it with across=, or draw values without samples with line, theory or across=None"
        )
    if over is None and len(remaining) == 1:
        over = remaining[0]
    surplus = [axis for axis in remaining if axis != over]
    if surplus or (over is not None and over not in remaining):
        raise LabError(
            f"{name!r} has the axes {', '.join(axes)}; besides {across!r} it may keep only the one it runs over "
            f"({'over=' + repr(over) if over else 'name it with over='}): choose one label of each other axis with .sel(...)"
        )
    if over is None:
        if x is None:
            raise LabError(f"{name!r} has one number a sample; give the place where it is drawn with x=")
        values = np.asarray(samples.values, dtype=np.float64)
        return [label(x)], values.reshape(-1, 1)
    values = np.asarray(samples.transpose(*([across] if across else []), over).values, dtype=np.float64)
    places = x if x is not None else samples[over].values
    if len(places) != values.shape[-1]:
        raise LabError(f"{name!r} has {values.shape[-1]} places along {over!r} and {len(places)} in x=; give as many")
    return [label(place) for place in places], values.reshape(-1, len(places))


def label(value: Any) -> Label:
    """A category (text) or a number."""
    if isinstance(value, str | bool | np.bool_):
        return str(value)
    return float(value)


def _edges(samples: np.ndarray, band: Band) -> tuple[np.ndarray, np.ndarray]:
    if band == "student":
        return mean_band(samples)
    if band == "range":
        return samples.min(0), samples.max(0)
    low, high = np.quantile(samples, (0.25, 0.75), axis=0)
    return low, high


def _words(middle: Middle, band: Band, across: str) -> str:
    """What the band is, with a place for the number of samples."""
    many = f"{{n}} {across}s"
    return {
        "student": f"95 % Student intervals of the {middle} over {many}",
        "range": f"{middle} with least and greatest of {many}",
        "quartiles": f"{middle} with quartiles of {many}",
        "none": f"{middle} of {many}, no band",
    }[band]
