"""Pictures drawn by hand with a table made by hand: the form that sheets replace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab.figures.looks import style
from lab.statistics import mean_band

THEORY = {"color": "black", "linestyle": ":", "linewidth": 1.6}
REFERENCES = ("#555555", "#8a8a8a", "#b5651d", "#2e8b57", "#7b5ea7", "#c49a00")


@dataclass(frozen=True)
class Drawing:
    """A picture and the tidy table of what it shows."""

    figure: Figure
    data: pd.DataFrame


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
