"""The house style, and figures that keep the data they draw.

A figure function returns a ``Drawing``: the matplotlib figure and the tidy table behind it. Saving writes both,
byte for byte the same for the same numbers, so that a changed picture means a changed number.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab.files import write
from lab.statistics import mean_band

# The prefix arm is solid blue with circles, the causal arm dashed red with squares: also apart in greyscale.
ARMS = {
    "prefix": {"color": "#1f4e9e", "linestyle": "-", "marker": "o"},
    "causal": {"color": "#d1495b", "linestyle": "--", "marker": "s"},
}
THEORY = {"color": "black", "linestyle": ":", "linewidth": 1.6}
REFERENCES = ("#555555", "#8a8a8a", "#b5651d", "#2e8b57", "#7b5ea7", "#c49a00")

STYLE: dict[Any, Any] = {
    "figure.dpi": 100,
    "savefig.dpi": 130,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.markersize": 4,
    "svg.hashsalt": "lab",
}


@dataclass(frozen=True)
class Drawing:
    """A picture and the tidy table of what it shows."""

    figure: Figure
    data: pd.DataFrame


@contextmanager
def style() -> Iterator[None]:
    """Draw in the house style."""
    with matplotlib.rc_context(STYLE):
        yield


def panels(rows: int = 1, columns: int = 1, width: float = 4.6, height: float = 3.4) -> tuple[Figure, np.ndarray]:
    """A figure of ``rows`` x ``columns`` axes (always a 2-D array of axes), sizes in inches a panel."""
    with style():
        figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
    return figure, axes


def label(axes: Axes, title: str, x: str, y: str) -> None:
    """Title (the finding) and axis labels (with units) of one panel."""
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def band(axes: Axes, x: np.ndarray, low: np.ndarray, high: np.ndarray, color: str) -> None:
    """A shaded interval behind a curve."""
    axes.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0)


def mean_curve(axes: Axes, x: np.ndarray, samples: np.ndarray, look: Mapping[str, Any], name: str) -> pd.DataFrame:
    """Draw the mean of ``samples`` [seed, point] with its 95 % band; returns what was drawn as a table."""
    middle, (low, high) = samples.mean(0), mean_band(samples)
    axes.plot(x, middle, label=name, **look)
    band(axes, x, low, high, look["color"])
    return pd.DataFrame({"curve": name, "x": x, "mean": middle, "low": low, "high": high})


def save(drawing: Drawing, folder: Path, name: str) -> Path:
    """Write ``name.png`` and ``name.csv`` into ``folder``; returns the picture's path."""
    picture = io.BytesIO()
    with style():
        drawing.figure.savefig(picture, format="png", metadata={"Software": None})
    write(folder / f"{name}.png", picture.getvalue())
    write(folder / f"{name}.csv", drawing.data.to_csv(index=False, float_format="%.6g").encode())
    return folder / f"{name}.png"
