"""How the parts name what the background of a picture stands for."""

from __future__ import annotations

import itertools

import xarray as xr

from lab.figures import Panel, style
from tasks.induction_heads_markov._shared import nearest

NARROWEST = 0.1  # of the panel's width, for a name to fit


def name_backgrounds(panel: Panel, divergence: xr.DataArray) -> None:
    """The strategy nearest to the mean over trainings, written above the updates at which it is; ``plot_phases`` colours these."""
    names = nearest(divergence.mean("seed"))
    last = float(names["update"].max())
    nearest_at = dict(zip(names["update"].values.tolist(), names.values.tolist(), strict=True))
    for name, updates in itertools.groupby(nearest_at, key=nearest_at.__getitem__):
        inside = list(updates)
        begin, end = inside[0], inside[-1]
        if end - begin >= NARROWEST * last:
            with style():
                panel.axes.text(
                    (begin + end) / 2,
                    1.0,
                    f"nearest:\n{name}",
                    transform=panel.axes.get_xaxis_transform(),
                    fontsize=8,
                    ha="center",
                    va="top",
                )
