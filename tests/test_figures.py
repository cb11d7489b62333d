from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from lab import figures


def drawing() -> figures.Drawing:
    figure, axes = figures.panels(1, 2)
    x = np.arange(5.0)
    for arm in figures.ARMS.values():
        axes[0, 0].plot(x, x, **arm)
    figures.band(axes[0, 0], x, x - 1, x + 1, "black")
    figures.label(axes[0, 0], "title", "x in m", "y in s")
    return figures.Drawing(figure, pd.DataFrame({"x": x / 3}))


def test_a_figure_is_saved_with_its_data_byte_for_byte(tmp_path: Path) -> None:
    first = figures.save(drawing(), tmp_path / "a", "name")
    second = figures.save(drawing(), tmp_path / "b", "name")
    assert first.read_bytes() == second.read_bytes()
    assert first.with_suffix(".csv").read_text(encoding="utf-8").splitlines()[:2] == ["x", "0"]


def test_panels_are_always_a_grid() -> None:
    assert figures.panels()[1].shape == (1, 1)


def test_arms_differ_without_colour() -> None:
    assert figures.ARMS["prefix"]["marker"] != figures.ARMS["causal"]["marker"]
    assert figures.ARMS["prefix"]["linestyle"] != figures.ARMS["causal"]["linestyle"]


def test_a_mean_curve_is_drawn_and_tabulated_with_its_band() -> None:
    _, axes = figures.panels()
    samples = np.array([[1.0, 2.0], [3.0, 2.0]])
    table = figures.mean_curve(axes[0, 0], np.arange(2.0), samples, figures.ARMS["causal"], "arm")
    assert table["mean"].tolist() == [2.0, 2.0]
    assert table["low"][0] < 2 < table["high"][0]
    assert table["low"][1] == table["high"][1] == 2.0
    assert axes[0, 0].get_lines()[0].get_ydata().tolist() == [2.0, 2.0]
