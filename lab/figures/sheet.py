"""A sheet: panels on one picture, the table of their notes, legend, foot line and file."""

from __future__ import annotations

import io
import typing
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lab.errors import LabError, nearest
from lab.figures.looks import Looks, length, longest_word, style, styled, wrapped
from lab.figures.panel import Limits, Panel, Ticks
from lab.files import write

if typing.TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

COLUMNS = ("panel", "curve", "x", "mean", "low", "high", "n")
SCALES = ("linear", "log", "log2", "symlog")
LEGENDS = (
    *("auto", "none", "outside", "best", "upper left", "upper center", "upper right", "center left", "center right"),
    *("lower left", "lower center", "lower right"),
)
FOOT_SIZE = 7.0
# A legend with more entries than this stands beside its panel.
INSIDE = 5


class Sheet:
    """A picture of ``rows`` x ``columns`` panels, ``width`` x ``height`` inches each, filled row by row.

    Args:
        title: a heading over all panels; the finding of a panel is the panel's own title.
        foot: words added to the foot line, where a reader needs more than what the bands are.

    Example: see ``lab.figures``.
    """

    def __init__(
        self, rows: int = 1, columns: int = 1, width: float = 4.6, height: float = 3.4, title: str = "", foot: str = ""
    ) -> None:
        from matplotlib.figure import Figure

        with style():
            self._figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
            self._axes = self._figure.subplots(rows, columns, squeeze=False).ravel().tolist()
        self._inches, self._columns = (width, height), columns
        self._title, self._words = title, foot
        self._looks = Looks()
        self._finished = False
        self.panels: list[Panel] = []

    @styled
    def panel(
        self,
        title: str,
        *,
        x: str,
        y: str,
        scale: tuple[str, str] = ("linear", "linear"),
        xlim: Limits = (None, None),
        ylim: Limits = (None, None),
        xticks: Ticks | None = None,
        yticks: Ticks | None = None,
        legend: str = "auto",
    ) -> Panel:
        """The next panel.

        Args:
            title: what the panel shows, as a finding.
            x, y: axis labels with units.
            scale: of both axes: "linear", "log", "log2" (powers of two) or "symlog" (linear below 1).
            xlim, ylim: ends of an axis; None leaves an end to the data.
            xticks, yticks: places, or a mapping from place to text.
            legend: a corner ("upper left", ...), "outside", "none", or "auto": one below the picture where panels share their
                names, else inside up to five entries and beside the panel above.
        """
        if len(self.panels) == len(self._axes):
            raise LabError(
                f"{title!r} is panel {len(self.panels) + 1} of a sheet for {len(self._axes)}; give it more rows="
            )
        for part, words in (("title", title), ("label of its x axis", x), ("label of its y axis", y)):
            if not words.strip():
                raise LabError(
                    f"panel {len(self.panels) + 1} ({title!r}) has no {part}; every panel needs title, x= and y="
                )
        for kind in scale:
            if kind not in SCALES:
                raise LabError(
                    f"{title!r} has the scale {kind!r}; scales are {', '.join(SCALES)}, one for x and one for y"
                )
        if legend not in LEGENDS:
            raise LabError(
                f"{title!r} has its legend at {legend!r}{nearest(legend, LEGENDS)}; places are {', '.join(LEGENDS)}"
            )
        axes = self._axes[len(self.panels)]
        for name, kind in zip("xy", scale, strict=True):
            options = {"log2": {"base": 2}, "symlog": {"linthresh": 1}}.get(kind, {})
            getattr(axes, f"set_{name}scale")("log" if kind == "log2" else kind, **options)
        panel = Panel(axes, title, x, y, scale, xlim, ylim, xticks, yticks, legend, self._looks, self._inches)
        self.panels.append(panel)
        return panel

    @property
    def data(self) -> pd.DataFrame:
        """Everything drawn: panel, curve, x, mean, low, high, n, a row a point."""
        import pandas as pd

        notes = [note for panel in self.panels for note in panel.notes]
        frame = pd.DataFrame([vars(note) for note in notes], columns=list(COLUMNS))
        if any(isinstance(place, str) for place in frame["x"]):
            frame["x"] = [
                "" if pd.isna(place) else place if isinstance(place, str) else f"{place:.6g}" for place in frame["x"]
            ]
        frame["n"] = pd.array([note.n or None for note in notes], dtype="Int64")
        return frame

    @property
    @styled
    def figure(self) -> Figure:
        """The finished picture; nothing can be drawn on it afterwards."""
        if not self._finished:
            self._finish()
            self._finished = True
        return self._figure

    @property
    def foot(self) -> str:
        """What bands are and how many samples stand behind them, from the notes."""
        counts: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
        for panel in self.panels:
            for kind, words, number in panel.bands:
                counts[words][kind].add(number)
        parts = []
        for words, kinds in counts.items():
            numbers = sorted(set().union(*kinds.values()))
            many = str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
            named = " and ".join(kind for kind in kinds if kind)
            phrase = words.replace("{n}", many)
            parts.append(f"{named}: {phrase}" if named else phrase)
        values = list(dict.fromkeys(word for panel in self.panels for word in panel.values))
        exact = [word for word in values if word == "no band: exact"]
        # Closed forms are black on every picture; only where nothing else is drawn the reader has to be told.
        parts += [word for word in values if word not in exact] or ([] if parts else exact)
        if self._words:
            parts.append(self._words)
        return "; ".join(parts or ["exact"])

    def _finish(self) -> None:
        from matplotlib.layout_engine import ConstrainedLayoutEngine

        if not self.panels:
            raise LabError("a sheet has no panel; draw at least one with sheet.panel(...)")
        for axes in self._axes[len(self.panels) :]:
            axes.set_visible(False)
        for panel in self.panels:
            _dress(panel)
            panel.finished = True
        self._legends()
        total = self._figure.get_figwidth()
        if self._title:
            self._figure.suptitle(wrapped(self._title, 0.96 * total, 12), x=0.01, ha="left", fontsize=12)
        foot = wrapped(self.foot, 0.96 * total, FOOT_SIZE)
        # A strip of its own, below the panels and a shared legend.
        share = (foot.count("\n") + 1) * 1.7 * FOOT_SIZE / 72 / self._figure.get_figheight()
        self._figure.text(
            0.99,
            0.02 / self._figure.get_figheight(),
            foot,
            ha="right",
            va="bottom",
            fontsize=FOOT_SIZE,
            color="#777777",
        )
        # Only a first layout tells how high a shared legend is, how wide axes are, and so where their words have to break.
        for legend in self._figure.legends:
            legend.set_bbox_to_anchor((0, share, 1, 1 - share), self._figure.transFigure)
        self._figure.draw_without_rendering()
        for legend in self._figure.legends:
            share += legend.get_window_extent().height / self._figure.bbox.height
        layout = self._figure.get_layout_engine()
        assert isinstance(layout, ConstrainedLayoutEngine)
        layout.set(rect=(0, share, 1, 1 - share))
        for panel in self.panels:
            _break_words(panel)

    def _legends(self) -> None:
        named = [panel for panel in self.panels if panel.entries and panel.legend != "none"]
        automatic = [panel for panel in named if panel.legend == "auto"]
        largest = max(automatic, key=lambda panel: len(panel.entries), default=None)
        looks: dict[str, Any] = {"frameon": True, "framealpha": 0.85, "edgecolor": "none", "borderpad": 0.3}
        if (
            largest is not None
            and len(automatic) > 1
            and all(set(panel.entries) <= set(largest.entries) for panel in automatic)
        ):
            width = max(map(_width, largest.entries))
            many = len(largest.entries)
            fitting = int(max(1, min(many, 0.96 * self._figure.get_figwidth() // width)))
            columns = -(-many // -(-many // fitting))  # rows of equal length
            self._figure.legend(
                list(largest.entries.values()), list(largest.entries), loc="lower center", ncols=columns, **looks
            )
            named = [panel for panel in named if panel not in automatic]
        rooms: dict[int, float] = defaultdict(float)
        for panel in named:
            handles, names = list(panel.entries.values()), list(panel.entries)
            beside = panel.legend == "outside" or (panel.legend == "auto" and len(names) > INSIDE)
            if beside:
                column = self.panels.index(panel) % self._columns
                rooms[column] = max(rooms[column], *(_width(name) for name in names))
                panel.axes.legend(handles, names, loc="upper left", bbox_to_anchor=(1.01, 1.0), **looks)
            else:
                place: Any = "best" if panel.legend == "auto" else panel.legend
                panel.axes.legend(handles, names, loc=place, **looks)
        # Legends beside panels make the picture wider, not the panels narrower.
        self._figure.set_figwidth(self._figure.get_figwidth() + sum(rooms.values()))


def _width(entry: str) -> float:
    """Inches that an entry of a legend takes."""
    return max(length(line, 8.5) for line in entry.split("\n")) + 0.6


def _dress(panel: Panel) -> None:
    """Title, labels, limits and ticks of a finished panel."""
    from matplotlib.ticker import NullLocator

    axes, (width, height) = panel.axes, panel.inches
    axes.set_title(wrapped(panel.title, 0.88 * width, 11))
    axes.set_xlabel(wrapped(panel.x, 0.9 * width, 10))
    axes.set_ylabel(wrapped(panel.y, 0.85 * height, 10))
    if panel.cells:
        return
    for name in ("x", "y"):
        known = panel.categories[name]
        axis: Axis = getattr(axes, f"{name}axis")
        getattr(axes, f"set_{name}lim")(*getattr(panel, f"{name}lim"))
        ticks: Ticks | None = getattr(panel, f"{name}ticks")
        if known:
            axis.set_ticks(range(len(known)), [wrapped(category, 0.35 * width, 9) for category in known], fontsize=9)
            if name == "x":
                axes.set_xlim(-0.6, len(known) - 0.4)
            else:
                axes.set_ylim(len(known) - 0.5, -0.5)
        elif isinstance(ticks, Mapping):
            axis.set_ticks(list(ticks), list(ticks.values()))
            axis.set_minor_locator(NullLocator())
        elif ticks is not None:
            axis.set_ticks(list(ticks), [f"{tick:.6g}" for tick in ticks])
            axis.set_minor_locator(NullLocator())
        else:
            _ticks(axis, panel.scale["xy".index(name)], panel)


def _break_words(panel: Panel) -> None:
    """Titles and categories in lines as long as the laid-out axes allow."""
    axes = panel.axes
    figure = axes.get_figure(root=True)
    assert figure is not None
    inner = axes.get_position().width * figure.get_figwidth()
    # A title may reach over the gap to the next panel's label, not to its axes.
    axes.set_title(wrapped(panel.title, max(inner, min(0.88 * panel.inches[0], inner + 0.35)), 11))
    known = panel.categories["x"]
    if known and not panel.cells:
        room = 0.92 * inner / (len(known) + 0.2)
        narrow = any(longest_word(category, 9) > room for category in known)
        texts = known if narrow else [wrapped(category, room, 9) for category in known]
        turn: dict[str, Any] = {"rotation": 25, "ha": "right", "rotation_mode": "anchor"} if narrow else {}
        axes.set_xticks(range(len(known)), texts, fontsize=9, **turn)


def _ticks(axis: Axis, scale: str, panel: Panel) -> None:
    """Plain numbers at 1, 2 and 5 on a short logarithmic axis; whole numbers where all places are whole."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

    low, high = sorted(axis.get_view_interval())
    if scale == "log2":
        axis.set_major_formatter(FuncFormatter(_number))
        axis.set_minor_locator(NullLocator())
    elif scale == "log":
        decades = np.log10(high / low)
        if decades < 0.7:
            axis.set_major_locator(MaxNLocator(5))
            axis.set_minor_locator(NullLocator())
        elif decades <= 3:
            axis.set_major_locator(LogLocator(subs=(1.0,) if decades > 2.5 else (1.0, 2.0, 5.0)))
        if decades <= 3:
            axis.set_major_formatter(FuncFormatter(_number))
        axis.set_minor_formatter(NullFormatter())
    elif scale == "linear" and axis is panel.axes.xaxis and _whole(note.x for note in panel.notes):
        axis.set_major_locator(MaxNLocator(integer=True))


def _whole(places: Iterable[Any]) -> bool:
    numbers = [place for place in places if not isinstance(place, str) and not np.isnan(place)]
    return bool(numbers) and all(float(number).is_integer() for number in numbers)


def _number(value: float, _: Any) -> str:
    return f"{value:g}"


def save(sheet: Sheet, folder: Path, name: str) -> Path:
    """Write ``name.png`` and ``name.csv`` into ``folder``; returns the picture's path."""
    picture = io.BytesIO()
    with style():
        sheet.figure.savefig(picture, format="png", metadata={"Software": None})
    write(folder / f"{name}.png", picture.getvalue())
    write(folder / f"{name}.csv", sheet.data.to_csv(index=False, float_format="%.6g").encode())
    return folder / f"{name}.png"
