"""One panel of a sheet: its verbs draw on matplotlib's axes and note what they drew."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, SupportsFloat

import numpy as np
import xarray as xr

from lab.errors import LabError
from lab.figures.looks import Looks, plain, styled
from lab.figures.summaries import Band, Label, Middle, Samples, Summary, label, summary, table

if typing.TYPE_CHECKING:
    from matplotlib.axes import Axes

Limits = tuple[float | None, float | None]
Ticks = Sequence[float] | np.ndarray | Mapping[float, str]
HATCHES = ("", "//", "..", "xx", "\\\\", "oo", "++", "**")
# Curves with more points than this carry a marker at some of them.
MARKED = 16
# A signed heat map without numbers has a minus in its negative cells up to so many cells.
MINUSES = 400


@dataclass(frozen=True)
class Note:
    """One drawn value; NaN, and n = 0, where there is no band."""

    panel: str
    curve: str
    x: Label
    mean: float
    low: float
    high: float
    n: int


@dataclass
class Panel:
    """Axes with a title (the finding), labels, and notes of everything drawn; made by ``Sheet.panel``.

    Args of the verbs that recur:
        samples, over, x, across: what is drawn, see ``lab.figures.summaries.summary``. ``across`` is the axis of independent
            samples ("seed"), None for values without samples.
        name: in legend and table; left out, the name of the arm.
        arm: "prefix" or "causal", with the look that is theirs.
        look: number of a look of the other palette, where order of use is not wanted.
        variant: 0 to 3; the same line with other markers, for one arm in several settings.
        middle, band, within: "mean", "geometric mean" or "median"; "student", "range", "quartiles" or "none"; ends at which
            the band is cut off.
        slot: (place, how many) puts groups of bars or points side by side.
        of: what one value without a band is, for the foot of the picture.
    """

    axes: Axes
    title: str
    x: str
    y: str
    scale: tuple[str, str]
    xlim: Limits
    ylim: Limits
    xticks: Ticks | None
    yticks: Ticks | None
    legend: str
    looks: Looks
    inches: tuple[float, float]
    notes: list[Note] = field(default_factory=list, init=False)
    bands: list[tuple[str, str, int]] = field(default_factory=list, init=False)
    values: list[str] = field(default_factory=list, init=False)
    entries: dict[str, Any] = field(default_factory=dict, init=False)
    categories: dict[str, list[str]] = field(default_factory=lambda: {"x": [], "y": []}, init=False)
    look_owners: dict[tuple[str, int], str] = field(default_factory=dict, init=False)
    numbered: set[str] = field(default_factory=set, init=False)
    cells: bool = field(default=False, init=False)
    finished: bool = field(default=False, init=False)

    @styled
    def curve(
        self,
        samples: Samples,
        over: str | None = None,
        *,
        x: Any = None,
        name: str | None = None,
        arm: str | None = None,
        look: int | None = None,
        variant: int = 0,
        across: str | None = "seed",
        middle: Middle = "mean",
        band: Band | None = None,
        within: tuple[float, float] | None = None,
        steps: bool = False,
    ) -> None:
        """A line through the middle of the samples, with its band; ``steps`` draws it as a histogram's outline."""
        name = self._name(name, arm)
        statistics = summary(samples, over, x, across=across, middle=middle, band=band, within=within, name=name)
        looks = self._look(name, arm, look, variant)
        self._plot(name, statistics.x, statistics.mean, looks, steps)
        places = self._places(statistics.x)
        if not np.isnan(statistics.low).all():
            edges: dict[str, Any] = {"step": "mid"} if steps else {}
            self.axes.fill_between(
                places, statistics.low, statistics.high, color=looks["color"], alpha=0.18, linewidth=0, **edges
            )
        self._note_summary("bands", name, statistics)

    @styled
    def points(
        self,
        samples: Samples,
        over: str | None = None,
        *,
        x: Any = None,
        name: str | None = None,
        arm: str | None = None,
        look: int | None = None,
        variant: int = 0,
        across: str | None = "seed",
        middle: Middle = "mean",
        band: Band | None = None,
        within: tuple[float, float] | None = None,
        slot: tuple[int, int] = (0, 1),
        horizontal: bool = False,
        join: bool = False,
    ) -> None:
        """Middles with error bars at single places; ``horizontal`` puts the categories on the y axis, ``join`` draws the line."""
        name = self._name(name, arm)
        statistics = summary(samples, over, x, across=across, middle=middle, band=band, within=within, name=name)
        self._error_bars(name, statistics, self._look(name, arm, look, variant), slot, horizontal, join)
        self._note_summary("error bars", name, statistics)

    @styled
    def intervals(
        self,
        x: Sequence[Any] | np.ndarray,
        mean: Any,
        low: Any,
        high: Any,
        *,
        words: str,
        n: int | Sequence[int] = 0,
        name: str | None = None,
        arm: str | None = None,
        look: int | None = None,
        variant: int = 0,
        slot: tuple[int, int] = (0, 1),
        horizontal: bool = False,
        join: bool = False,
    ) -> None:
        """The same for ready-made summaries; ``words`` say what an interval is ("exact binomial intervals of {n} trials")."""
        name = self._name(name, arm)
        mean, low, high = (np.asarray(part, dtype=np.float64) for part in (mean, low, high))
        if not len(x) == len(mean) == len(low) == len(high):
            raise LabError(
                f"{name!r} has {len(x)} places, {len(mean)} means, {len(low)} and {len(high)} ends; give equally many"
            )
        counts = np.broadcast_to(np.asarray(n, dtype=int), mean.shape)
        statistics = Summary([label(place) for place in x], mean, low, high, counts, words)
        self._error_bars(name, statistics, self._look(name, arm, look, variant), slot, horizontal, join)
        self._note_summary("error bars", name, statistics)

    @styled
    def bars(
        self,
        samples: Samples,
        over: str | None = None,
        *,
        x: Any = None,
        name: str | None = None,
        arm: str | None = None,
        look: int | None = None,
        variant: int = 0,
        across: str | None = "seed",
        middle: Middle = "mean",
        band: Band | None = None,
        within: tuple[float, float] | None = None,
        slot: tuple[int, int] = (0, 1),
        dots: bool = False,
    ) -> None:
        """Bars to the middles with error bars; ``dots`` shows the single samples in place of the error bars."""
        from matplotlib import patches

        name = self._name(name, arm)
        statistics = summary(
            samples, over, x, across=across, middle=middle, band="none" if dots else band, within=within, name=name
        )
        color = self._look(name, arm, look)["color"]
        place = {"prefix": 0, "causal": 1}.get(arm or "", len(self.entries))
        hatch = HATCHES[(place + 2 * variant) % len(HATCHES)]
        places, width = self._slots(self._places(statistics.x), slot, 0.8)
        looks: dict[str, Any] = {
            "facecolor": color,
            "alpha": 0.75,
            "hatch": hatch,
            "edgecolor": "white",
            "linewidth": 0.5,
        }
        self.axes.bar(places, statistics.mean, 0.94 * width, **looks)
        self.entries.setdefault(name, patches.Patch(label=name, **looks))
        if dots:
            _, columns = table(samples, over, x, across=across, name=name)
            self.axes.plot(np.broadcast_to(places, columns.shape).ravel(), columns.ravel(), "k.", markersize=3)
            self._say_value("dots: single samples")
        else:
            self._whiskers(places, statistics, {"color": "#222222", "linestyle": "none", "elinewidth": 1.0}, False)
        self._note_summary("error bars", name, statistics)

    @styled
    def each(
        self,
        samples: Samples,
        over: str | None = None,
        *,
        x: Any = None,
        name: str | None = None,
        arm: str | None = None,
        look: int | None = None,
        across: str = "seed",
    ) -> None:
        """A thin line for every sample (its missing points are left out)."""
        name = self._name(name, arm)
        labels, columns = table(samples, over, x, across=across, name=name)
        looks = self._look(name, arm, look)
        for place, values in enumerate(columns):
            (line,) = self.axes.plot(
                self._places(labels),
                values,
                color=looks["color"],
                linestyle=looks["linestyle"],
                linewidth=0.8,
                alpha=0.6,
            )
            self.entries.setdefault(name, line)
            self.note(f"{name}, {across} {place}", labels, values)
        self._say_value(f"thin lines: single {across}s")

    @styled
    def scatter(
        self,
        x: Any,
        y: Any,
        *,
        name: str | None = None,
        arm: str | None = None,
        look: int | None = None,
        slot: tuple[int, int] = (0, 1),
    ) -> None:
        """A dot for every sample; one ``x`` (a number or a category) serves all values of ``y``."""
        name = self._name(name, arm)
        values = np.asarray(y, dtype=np.float64).ravel()
        single = isinstance(x, str) or np.ndim(x) == 0
        labels = [label(x)] * len(values) if single else [label(place) for place in np.asarray(x).ravel()]
        if len(labels) != len(values):
            raise LabError(f"{name!r} has {len(labels)} places and {len(values)} values; give equally many")
        looks = self._look(name, arm, look)
        places, _ = self._slots(self._places(labels), slot, 0.5)
        (dots,) = self.axes.plot(
            places, values, color=looks["color"], marker=looks["marker"], linestyle="none", markersize=3, alpha=0.6
        )
        self.entries.setdefault(name, dots)
        self.note(name, labels, values)
        self._say_value("dots: single samples")

    @styled
    def line(
        self,
        x: Any,
        y: Any,
        *,
        name: str | None = None,
        arm: str | None = None,
        look: int | None = None,
        variant: int = 0,
        marks: bool = True,
        steps: bool = False,
        of: str = "one value a point",
    ) -> None:
        """A curve without a band; values that are not finite are gaps. ``marks=False`` leaves the markers out."""
        name = self._name(name, arm)
        looks = self._look(name, arm, look, variant)
        self._plot(name, *self._pairs(x, y, name), looks if marks else looks | {"marker": ""}, steps)
        self.note(name, *self._pairs(x, y, name))
        self._say_value(f"no band: {of}")

    @styled
    def theory(self, x: Any, y: Any, *, name: str | None = None) -> None:
        """A closed form: black and dotted, with other dashes for the second and later names of a sheet."""
        labels, values = self._pairs(x, y, name or "theory")
        self._plot(name, labels, values, self.looks.theory(name, self.look_owners), False)
        self.note(name or "theory", labels, values)
        self._say_value("no band: exact")

    @styled
    def level(
        self,
        value: SupportsFloat,
        name: str | None = None,
        *,
        vertical: bool = False,
        span: tuple[float, float] | None = None,
        arm: str | None = None,
        look: int | None = None,
    ) -> None:
        """A line at ``value`` of y (of x, if ``vertical``), over all of the panel or over ``span``; black as theory is."""
        value = float(value)
        if arm is None and look is None:
            looks = self.looks.theory(name, self.look_owners)
        else:
            style = self._look(name or arm or "level", arm, look)
            looks = {"color": style["color"], "linestyle": style["linestyle"], "linewidth": 1.0}
        place = value + 0.5 if self.cells else value
        if span is not None:
            ends = [[place, place], list(span)] if vertical else [list(span), [place, place]]
            (line,) = self.axes.plot(*ends, **looks, zorder=1.5)
        else:
            line = (self.axes.axvline if vertical else self.axes.axhline)(place, **looks, zorder=1.5)
        if name:
            self.entries.setdefault(name, line)
        self.note(name or "level", [value if vertical else float("nan")], [float("nan") if vertical else value])

    @styled
    def heat(
        self,
        matrix: Any,
        *,
        rows: Sequence[Any] | None = None,
        columns: Sequence[Any] | None = None,
        bar: str | None = None,
        numbers: str | None = None,
        signed: bool = False,
        low: float | None = None,
        high: float | None = None,
        of: str = "one value a cell",
    ) -> None:
        """A heat map in grey, or in purple to green about 0 if ``signed``; the first row is on top.

        Blue and red are the arms' alone. Without colour both signs are the same grey, so that a minus marks the cells of a
        small signed map that lie below 0 by a tenth of the scale or more, where no numbers tell.

        Args:
            matrix: [row, column], with labels of a DataArray or of ``rows`` and ``columns``; a DataArray with an axis "seed"
                is averaged over it.
            bar: label of the colour bar; None for no bar.
            numbers: format of the numbers in the cells (".2f"); None for none.
            low, high: ends of the colours; left out, those of the values (with 0 among them).
        """
        count = 0
        if isinstance(matrix, xr.DataArray):
            if "seed" in matrix.dims:
                count, matrix = matrix.sizes["seed"], matrix.mean("seed")
            if matrix.ndim == 2:
                rows = matrix[matrix.dims[0]].values if rows is None else rows
                columns = matrix[matrix.dims[1]].values if columns is None else columns
        cells = np.asarray(matrix, dtype=np.float64)
        if cells.ndim != 2:
            raise LabError(f"a heat map of {self.title!r} has the shape {cells.shape}; it needs rows and columns")
        row_labels = [label(row) for row in (range(cells.shape[0]) if rows is None else rows)]
        column_labels = [label(column) for column in (range(cells.shape[1]) if columns is None else columns)]
        if (len(row_labels), len(column_labels)) != cells.shape:
            raise LabError(
                f"the heat map of {self.title!r} has the shape {cells.shape} with {len(row_labels)} rows= and "
                f"{len(column_labels)} columns=; give a label for each"
            )
        most = float(np.nanmax(np.abs(cells))) or 1.0
        low = (-most if signed else min(0.0, float(np.nanmin(cells)))) if low is None else low
        high = (most if signed else float(np.nanmax(cells)) or 1.0) if high is None else high
        tall = cells.shape[0] / cells.shape[1]
        texts = _cells(cells, numbers) if numbers else None
        if signed and numbers is None and cells.size <= MINUSES:
            texts = np.where(cells <= low / 10, "\N{MINUS SIGN}", "")
            if (texts != "").any():
                self._say_value("a minus: below 0 by a tenth of the scale or more")
        import seaborn

        seaborn.heatmap(
            cells + 0.0,  # no minus zero in a cell
            ax=self.axes,
            vmin=low,
            vmax=high,
            cmap="PRGn" if signed else "Greys",
            annot=texts if texts is not None else False,
            fmt="",
            annot_kws={"fontsize": 8},
            cbar=False,
            square=1 / 3 < tall < 3,
            xticklabels=_thinned(column_labels),
            yticklabels=_thinned(row_labels),
        )
        self.axes.tick_params(axis="both", length=0)
        self.axes.tick_params(axis="x", labelrotation=0)
        self.axes.tick_params(axis="y", labelrotation=0)
        self.axes.grid(False)
        for side in ("top", "right", "bottom", "left"):
            self.axes.spines[side].set_visible(True)
            self.axes.spines[side].set_color("#bbbbbb")
        self.cells = True
        if bar is not None:
            self.axes.figure.colorbar(self.axes.collections[-1], ax=self.axes, label=bar, shrink=0.85)
        elif not signed and numbers is None:
            self._say_value(f"white {low:.3g} to black {high:.3g}")
        for row_label, values in zip(row_labels, cells, strict=True):
            name = row_label if isinstance(row_label, str) else f"{row_label:g}"
            self.note(name, column_labels, values, n=[count] * len(values))
        if count:
            self.bands.append(("cells", "mean over {n} seeds", count))
        else:
            self._say_value(f"cells: {of}")

    @styled
    def region(self, low: float, high: float, name: str | None = None, look: int = 3) -> None:
        """A shaded range of x behind everything; of one name, one legend entry."""
        from matplotlib import patches

        color = self._look(name or "region", None, look)["color"]
        self.axes.axvspan(low, high, color=color, alpha=0.12, linewidth=0, zorder=0)
        if name:
            self.entries.setdefault(name, patches.Patch(color=color, alpha=0.25, linewidth=0, label=name))
        self.note(name or "region", [f"{low:.6g} to {high:.6g}"], [float("nan")])

    @styled
    def text(
        self, words: str, x: float = 0.0, y: float = 0.0, *, corner: str | None = None, align: str = "left"
    ) -> None:
        """Words at a place of the data, or in a corner ("upper left", ...) of the panel."""
        if corner is None:
            self.axes.annotate(words, (x, y), (0, 3), textcoords="offset points", fontsize=8, ha=align, va="bottom")
            return
        vertical, _, side = corner.partition(" ")
        if vertical not in ("upper", "lower") or side not in ("left", "right"):
            raise LabError(
                f"there is no corner {corner!r}; corners are upper left, upper right, lower left, lower right"
            )
        where = (0.02 if side == "left" else 0.98, 0.98 if vertical == "upper" else 0.02)
        align, base = side, "top" if vertical == "upper" else "bottom"
        self.axes.text(*where, words, transform=self.axes.transAxes, fontsize=8, ha=align, va=base)

    def note(
        self, curve: str, x: Any, mean: Any, low: Any = None, high: Any = None, n: Any = None, words: str | None = None
    ) -> None:
        """Note what was drawn on ``axes`` by hand; the verbs do this themselves.

        Args:
            curve: its name in the table.
            x, mean, low, high, n: one entry a point; ``low``, ``high`` and ``n`` None where there is no band.
            words: what is drawn, for the foot of the picture.
        """
        if self.finished:
            raise LabError(
                f"{curve!r} is drawn on {self.title!r} after its sheet was finished; draw before .figure is read"
            )
        labels = [
            place if isinstance(place, str) else label(place) for place in np.atleast_1d(np.asarray(x, dtype=object))
        ]
        count = len(labels)
        parts = [np.full(count, np.nan) if part is None else np.atleast_1d(part) for part in (mean, low, high)]
        numbers = np.zeros(count, int) if n is None else np.broadcast_to(np.asarray(n, int), (count,))
        for at, middle, lower, upper, number in zip(labels, *parts, numbers, strict=True):
            named = isinstance(at, str) or not np.isnan(at)
            if not (np.isnan(middle) and count > 1) and (named or not np.isnan(middle)):
                where = plain(at) if isinstance(at, str) else at
                self.notes.append(
                    Note(plain(self.title), plain(curve), where, float(middle), float(lower), float(upper), int(number))
                )
        if words is not None:
            self._say_value(words)

    def _note_summary(self, kind: str, name: str, statistics: Summary) -> None:
        self.note(name, statistics.x, statistics.mean, statistics.low, statistics.high, statistics.n)
        if not statistics.words:
            self._say_value("no band: one value a point")
        for number in sorted(set(statistics.n.tolist())):
            if statistics.words and number > 1:
                self.bands.append((kind if "no band" not in statistics.words else "", statistics.words, number))
            elif statistics.words and number == 1:
                self._say_value("no band: one sample")

    def _say_value(self, words: str) -> None:
        if words not in self.values:
            self.values.append(words)

    def _name(self, name: str | None, arm: str | None) -> str:
        if name is None and arm is None:
            raise LabError(f"a curve of {self.title!r} has no name; give it name=, or arm= if it is an arm")
        return name if name is not None else str(arm)

    def _look(self, name: str, arm: str | None, look: int | None, variant: int = 0) -> dict[str, Any]:
        return self.looks.curve(name, arm, look, variant, self.look_owners)

    def _pairs(self, x: Any, y: Any, name: str) -> tuple[list[Label], np.ndarray]:
        labels, values = [label(place) for place in x], np.asarray(y, dtype=np.float64)
        if values.shape != (len(labels),):
            raise LabError(
                f"{name!r} has {len(labels)} places and values of shape {values.shape}; give one value a place"
            )
        return labels, np.where(np.isfinite(values), values, np.nan)

    def _places(self, labels: Sequence[Label], axis: str = "x") -> np.ndarray:
        """Where labels lie: numbers at themselves, categories in order of use."""
        known = self.categories[axis]
        text = any(isinstance(place, str) for place in labels)
        if (text and axis in self.numbered) or (known and not text):
            raise LabError(
                f"{self.title!r} has numbers and categories on its {axis} axis (now {labels[0]!r}); use one kind"
            )
        if not text:
            self.numbered.add(axis)
            return np.array(labels, dtype=np.float64)
        known.extend(category for category in dict.fromkeys(map(str, labels)) if category not in known)
        return np.array([known.index(str(category)) for category in labels], dtype=np.float64)

    def _slots(self, places: np.ndarray, slot: tuple[int, int], share: float) -> tuple[np.ndarray, float]:
        """Places beside one another, and the width of each; ``share`` of the distance of two places is used."""
        place, many = slot
        if not 0 <= place < many:
            raise LabError(f"slot {slot} is not (place, how many) with 0 <= place < how many")
        distinct = np.unique(places)
        unit = float(np.diff(distinct).min()) if len(distinct) > 1 else 1.0
        width = share * unit / many
        return places + (place - (many - 1) / 2) * width, width

    def _plot(
        self, name: str | None, labels: Sequence[Label], values: np.ndarray, looks: Mapping[str, Any], steps: bool
    ) -> None:
        every = 1 if len(labels) <= MARKED else max(2, round(len(labels) / 10))
        start = (3 * len(self.entries)) % every  # markers of curves that coincide lie beside each other
        extra: dict[str, Any] = {"drawstyle": "steps-mid", "marker": ""} if steps else {"markevery": (start, every)}
        (line,) = self.axes.plot(self._places(labels), values, **(dict(looks) | extra))
        if name:
            self.entries.setdefault(name, line)

    def _error_bars(
        self,
        name: str,
        statistics: Summary,
        looks: Mapping[str, Any],
        slot: tuple[int, int],
        horizontal: bool,
        join: bool,
    ) -> None:
        places, _ = self._slots(self._places(statistics.x, "y" if horizontal else "x"), slot, 0.5)
        chosen = {**looks, "markersize": 5.5} | ({} if join else {"linestyle": "none"})
        handle = self._whiskers(places, statistics, chosen, horizontal)
        self.entries.setdefault(name, handle)

    def _whiskers(self, places: np.ndarray, statistics: Summary, looks: Mapping[str, Any], horizontal: bool) -> Any:
        # A missing interval has no length; the middle of a geometric mean may lie a rounding error outside its interval.
        sides = np.maximum(np.nan_to_num([statistics.mean - statistics.low, statistics.high - statistics.mean]), 0.0)
        chosen: dict[str, Any] = {"capsize": 3, **looks}
        if np.isnan(statistics.low).all():
            sides = None
        if horizontal:
            return self.axes.errorbar(statistics.mean, places, xerr=sides, **chosen)
        return self.axes.errorbar(places, statistics.mean, yerr=sides, **chosen)


def _cells(values: np.ndarray, form: str) -> np.ndarray:
    """Numbers of the cells as text, without a minus before zeros."""
    texts = [f"{value:{form}}" for value in values.ravel()]
    return np.array([text.lstrip("-") if not text.strip("-0.") else text for text in texts]).reshape(values.shape)


def _thinned(labels: Sequence[Label], most: int = 10) -> list[str]:
    """Tick labels: all of categories and of few numbers, else every few."""
    every = 1 if len(labels) <= most or any(isinstance(tick, str) for tick in labels) else -(-len(labels) // 8)
    return [
        (tick if isinstance(tick, str) else f"{tick:.4g}") if place % every == 0 else ""
        for place, tick in enumerate(labels)
    ]
