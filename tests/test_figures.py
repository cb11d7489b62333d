from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import seaborn
import xarray as xr

from lab.errors import LabError
from lab.figures import COLUMNS, Panel, Sheet, looks, save

SAMPLES = xr.DataArray(
    np.exp(np.random.default_rng(0).normal(size=(6, 2, 5))),
    dims=("seed", "arm", "layer"),
    coords={"seed": range(6), "arm": ["prefix", "causal"], "layer": range(5)},
)


def one_panel(**options: object) -> tuple[Sheet, Panel]:
    sheet = Sheet()
    return sheet, sheet.panel("a finding", x="layer", y="error", **options)


def full_sheet() -> Sheet:
    sheet = Sheet(rows=2, columns=2)
    panel = sheet.panel("curves", x="layer", y="error", scale=("linear", "log"))
    for arm in ("prefix", "causal"):
        panel.curve(SAMPLES.sel(arm=arm), arm=arm)
    panel.theory(range(5), np.exp(-np.arange(5.0)), name="closed form")
    panel.level(1.0, "predicting 0")
    panel = sheet.panel("points", x="arm", y="error")
    panel.points(SAMPLES.isel(layer=-1), "arm", name="last layer")
    panel = sheet.panel("bars", x="layer", y="error")
    panel.bars(SAMPLES.sel(arm="prefix"), arm="prefix", slot=(0, 2))
    panel.bars(SAMPLES.sel(arm="causal"), arm="causal", slot=(1, 2), dots=True)
    panel = sheet.panel("heat", x="token", y="token attended to")
    panel.heat(np.eye(3), bar="attention", numbers=".1f")
    return sheet


def test_a_sheet_is_saved_with_its_data_byte_for_byte(tmp_path: Path) -> None:
    first, second = (save(full_sheet(), tmp_path / folder, "name") for folder in "ab")
    assert first.read_bytes() == second.read_bytes()
    assert first.with_suffix(".csv").read_bytes() == second.with_suffix(".csv").read_bytes()
    table = pd.read_csv(first.with_suffix(".csv"))
    assert tuple(table.columns) == COLUMNS
    assert set(table["panel"]) == {"curves", "points", "bars", "heat"}


def test_notes_are_what_is_drawn() -> None:
    sheet, panel = one_panel()
    panel.curve(SAMPLES.sel(arm="prefix"), "layer", arm="prefix")
    panel.line(range(3), [1.0, np.inf, 2.0], name="a line")
    data, axes = sheet.data, sheet.figure.axes[0]
    for name, line in zip(("prefix", "a line"), axes.get_lines(), strict=True):
        noted = data[data["curve"] == name]
        shown = np.isfinite(np.asarray(line.get_ydata(), dtype=float))
        assert noted["x"].tolist() == np.asarray(line.get_xdata())[shown].tolist()
        assert noted["mean"].tolist() == np.asarray(line.get_ydata())[shown].tolist()
    corners = axes.collections[0].get_paths()[0].vertices
    noted = data[data["curve"] == "prefix"]
    assert {*noted["low"], *noted["high"]} <= set(corners[:, 1].tolist())
    assert noted["n"].tolist() == [6] * 5
    assert data[data["curve"] == "a line"]["n"].isna().all()


def test_error_bars_and_bars_have_the_noted_heights() -> None:
    sheet = full_sheet()
    data, axes = sheet.data, sheet.figure.axes
    noted = data[data["panel"] == "points"]
    assert noted["x"].tolist() == ["prefix", "causal"]
    assert noted["mean"].tolist() == axes[1].containers[0].lines[0].get_ydata().tolist()
    ends = [segment[:, 1].tolist() for segment in axes[1].containers[0].lines[2][0].get_segments()]
    assert np.allclose(ends, noted[["low", "high"]])
    noted = data[(data["panel"] == "bars") & (data["curve"] == "prefix")]
    assert [bar.get_height() for bar in axes[2].patches[:5]] == noted["mean"].tolist()
    cells = data[data["panel"] == "heat"]
    assert cells["mean"].tolist() == np.eye(3).ravel().tolist()
    assert cells["curve"].tolist() == ["0"] * 3 + ["1"] * 3 + ["2"] * 3


def test_bands_of_other_middles() -> None:
    sheet, panel = one_panel()
    values = SAMPLES.sel(arm="causal")
    panel.curve(values, name="geometric", middle="geometric mean")
    panel.curve(values, name="median", middle="median")
    panel.curve(values, name="range", band="range", within=(0.0, 0.5))
    data = sheet.data.set_index("curve")
    assert np.allclose(data.loc["geometric", "mean"], np.exp(np.log(values.values).mean(0)))
    assert np.allclose(data.loc["median", "low"], np.quantile(values.values, 0.25, axis=0))
    assert data.loc["range", "high"].max() == 0.5
    assert "quartiles of 6 seeds" in sheet.foot
    assert "geometric mean over 6 seeds" in sheet.foot


def test_missing_samples_count_at_their_own_point() -> None:
    sheet, panel = one_panel()
    values = np.array([[1.0, 2.0], [3.0, np.nan], [5.0, 6.0]])
    panel.curve(values, x=[1, 2], name="ragged")
    assert sheet.data["n"].tolist() == [3, 2]
    assert sheet.data["mean"].tolist() == [3.0, 4.0]
    assert sheet.foot == "bands: 95 % Student intervals of the mean over 2 to 3 seeds"


@pytest.mark.parametrize(
    ("draw", "foot"),
    [
        (
            lambda panel: panel.curve(SAMPLES.sel(arm="causal"), arm="causal"),
            "95 % Student intervals of the mean over 6 seeds",
        ),
        (lambda panel: panel.curve(np.ones((1, 2)), x=[0, 1], name="one"), "no band: one sample"),
        (lambda panel: panel.theory([0, 1], [1, 2]), "no band: exact"),
        (lambda panel: panel.line([0, 1], [1, 2], name="one"), "no band: one value a point"),
        (lambda panel: panel.note("by hand", [0], [1], words="contours: exact"), "contours: exact"),
    ],
)
def test_the_foot_says_what_bands_are(draw: Callable[[Panel], None], foot: str) -> None:
    sheet, panel = one_panel()
    draw(panel)
    assert sheet.foot.endswith(foot)
    assert any(text.get_text() == sheet.foot for text in sheet.figure.texts)


def test_the_reader_s_matplotlibrc_has_no_influence(tmp_path: Path) -> None:
    expected = save(full_sheet(), tmp_path / "plain", "name").read_bytes()
    odd = {
        "font.size": 31,
        "lines.linewidth": 9,
        "axes.facecolor": "yellow",
        "savefig.transparent": True,
        "savefig.bbox": "tight",
        "xtick.labelsize": 3,
        "axes.spines.left": False,
        "errorbar.capsize": 12,
    }
    with matplotlib.rc_context(odd):
        assert save(full_sheet(), tmp_path / "odd", "name").read_bytes() == expected
        assert matplotlib.rcParams["font.size"] == 31


def test_looks_are_stable_and_apart_without_colour() -> None:
    apart = [*looks.ARMS.values(), *looks.LOOKS]
    for part in ("marker", "linestyle", "color"):
        assert len({look[part] for look in apart}) == len(apart), part
    assert all(look["linestyle"] not in ("-", "--", ":") for look in looks.LOOKS)
    sheet = Sheet(columns=2)
    first, second = (sheet.panel(f"finding {place}", x="x", y="y") for place in range(2))
    for name in ("one", "other"):
        first.line([0, 1], [0, 1], name=name)
    for name in ("third", "other"):
        second.line([0, 1], [0, 1], name=name)
    colours = [[line.get_color() for line in panel.axes.get_lines()] for panel in (first, second)]
    assert colours[0][1] == colours[1][1]
    assert colours[1][0] not in colours[0]


def test_names_that_panels_share_stand_in_one_legend() -> None:
    sheet = Sheet(columns=2)
    for place in range(2):
        sheet.panel(f"finding {place}", x="x", y="y").line([0, 1], [0, 1], name="shared")
    assert len(sheet.figure.legends) == 1
    assert all(axes.get_legend() is None for axes in sheet.figure.axes)


def test_long_titles_break_into_lines_and_formulas_stay_whole() -> None:
    sheet = Sheet(columns=2, width=3.0)
    sheet.panel("a title that is far too long for one line of so small a panel $a b = c$", x="x", y="y").level(1.0)
    title = sheet.figure.axes[0].get_title(loc="left")
    assert "\n" in title
    assert "$a b = c$" in title
    assert not sheet.figure.axes[1].get_visible()


REFUSALS: list[tuple[str, Callable[[Sheet, Panel], object]]] = [
    ("more rows=", lambda sheet, panel: sheet.panel("another", x="x", y="y")),
    ("has no label of its y axis", lambda sheet, panel: Sheet().panel("title", x="x", y="")),
    ("scales are linear", lambda sheet, panel: Sheet().panel("title", x="x", y="y", scale=("linear", "lag"))),
    ("did you mean 'outside'", lambda sheet, panel: Sheet().panel("title", x="x", y="y", legend="outsde")),
    (r"choose one label of each other axis with .sel", lambda sheet, panel: panel.curve(SAMPLES, "layer", name="a")),
    ("no axis 'draw' of samples", lambda sheet, panel: panel.curve(SAMPLES, "layer", name="a", across="draw")),
    ("give x=", lambda sheet, panel: panel.curve(np.ones((2, 2)), name="a")),
    ("its shape must be", lambda sheet, panel: panel.curve(np.ones((2, 3)), x=[0, 1], name="a")),
    ("give it name=", lambda sheet, panel: panel.curve(np.ones((2, 2)), x=[0, 1])),
    ("did you mean", lambda sheet, panel: panel.curve(np.ones((2, 2)), x=[0, 1], arm="casual")),
    ("leave look= out", lambda sheet, panel: panel.line([0], [1], arm="causal", look=1)),
    (
        "needs samples above 0",
        lambda sheet, panel: panel.curve(-np.ones((2, 1)), x=0, name="a", middle="geometric mean"),
    ),
    (
        "around a median",
        lambda sheet, panel: panel.curve(np.ones((2, 1)), x=0, name="a", middle="median", band="student"),
    ),
    ("one value a place", lambda sheet, panel: panel.line([0, 1], [1], name="a")),
    ("one line a", lambda sheet, panel: [panel.line([0], [1], name=f"one line a, {place}") for place in range(9)]),
    ("before .figure is read", lambda sheet, panel: (sheet.figure, panel.line([0], [1], name="late"))),
    ("use one kind", lambda sheet, panel: (panel.line([0], [1], name="a"), panel.line(["b"], [1], name="c"))),
    ("no corner", lambda sheet, panel: panel.text("words", corner="middle")),
    ("columns=", lambda sheet, panel: panel.heat(np.eye(2), rows=["a"])),
]


@pytest.mark.parametrize(("entry", "named"), [(-0.05, False), (-0.5, True)])
def test_a_minus_is_named_where_there_is_one(entry: float, named: bool) -> None:
    _, panel = one_panel()
    panel.heat(np.array([[1.0, entry]]), signed=True)
    assert any("a minus" in words for words in panel.values) == named


@pytest.mark.parametrize(("sentence", "draw"), REFUSALS, ids=[sentence for sentence, _ in REFUSALS])
def test_refusals_are_sentences(sentence: str, draw: Callable[[Sheet, Panel], object]) -> None:
    with pytest.raises(LabError, match=sentence):
        draw(*one_panel())


def test_the_colours_are_those_of_seaborn_for_the_colour_blind() -> None:
    assert set(looks.COLOURS.values()) <= set(seaborn.color_palette("colorblind").as_hex())
