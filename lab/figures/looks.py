"""The house style: what matplotlib starts from, how arms, other curves and theory look, and how words break into lines."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

import numpy as np

from lab.errors import LabError, nearest

# The prefix arm is solid blue with circles, the causal arm dashed red with squares: also apart in greyscale.
ARMS = {
    "prefix": {"color": "#1f4e9e", "linestyle": "-", "marker": "o"},
    "causal": {"color": "#d1495b", "linestyle": "--", "marker": "s"},
}

# Of seaborn's ten colour-blind colours those that are neither blue nor red nor too pale for a line; every look has its own
# dashes and marker, so that curves stay apart in grey, and none is solid, dashed, dotted, round or square.
COLOURS = {"orange": "#de8f05", "green": "#029e73", "purple": "#cc78bc", "brown": "#ca9161"}
LOOKS: tuple[dict[str, Any], ...] = (
    {"color": COLOURS["green"], "linestyle": (0, (12, 1.5)), "marker": "^"},
    {"color": COLOURS["orange"], "linestyle": "-.", "marker": "D"},
    {"color": COLOURS["purple"], "linestyle": (0, (3, 1, 1, 1, 1, 1)), "marker": "v"},
    {"color": "#5a5a5a", "linestyle": (0, (7, 2)), "marker": "X"},
    {"color": COLOURS["brown"], "linestyle": (0, (2, 1)), "marker": "P"},
    {"color": "#00706b", "linestyle": (0, (8, 2, 2, 2)), "marker": "<"},
    {"color": "#8c6d00", "linestyle": (0, (5, 1, 1, 1)), "marker": "*"},
    {"color": "#4b2e83", "linestyle": (0, (1, 0.6)), "marker": ">"},
)
# Closed forms are black; the second and later ones of a sheet have other dashes.
THEORIES: tuple[Any, ...] = (":", (0, (5, 1.5)), (0, (3, 1, 1, 1)), (0, (8, 2)), (0, (1, 3)), (0, (6, 1, 1, 1, 1, 1)))
# One arm (or look) in several settings: the same line with an open marker, another marker, and that one open.
VARIANTS = 4
OTHER_MARKERS = {"o": "^", "s": "D"}

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
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.markersize": 4,
    "svg.hashsalt": "lab",
}

_INSIDE: ContextVar[bool] = ContextVar("inside the house style", default=False)
Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")


@contextmanager
def style() -> Iterator[None]:
    """Draw in the house style, whatever the reader's matplotlibrc says."""
    if _INSIDE.get():
        yield
        return
    import matplotlib

    token = _INSIDE.set(True)
    try:
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(STYLE)
            yield
    finally:
        _INSIDE.reset(token)


def styled(function: Callable[Arguments, Answer]) -> Callable[Arguments, Answer]:
    """Run ``function`` in the house style."""

    @functools.wraps(function)
    def run(*args: Arguments.args, **keywords: Arguments.kwargs) -> Answer:
        with style():
            return function(*args, **keywords)

    return run


class Looks:
    """Which look each name of a sheet has; a name keeps its look through all panels."""

    def __init__(self) -> None:
        self._places: dict[tuple[str, str], int] = {}

    def curve(
        self, name: str, arm: str | None, look: int | None, variant: int, look_owners: dict[tuple[str, int], str]
    ) -> dict[str, Any]:
        """Colour, dashes, marker and its filling; ``look_owners`` are the looks of the panel it is drawn on, with their names."""
        if not 0 <= variant < VARIANTS:
            raise LabError(f"{name!r} asks for variant {variant}; there are variants 0 to {VARIANTS - 1}")
        if arm is not None:
            if arm not in ARMS:
                raise LabError(
                    f"{name!r} is drawn as the arm {arm!r}{nearest(arm, ARMS)}; arms are {', '.join(ARMS)}, "
                    "anything else has a name= and no arm="
                )
            if look is not None:
                raise LabError(
                    f"{name!r} has both arm={arm!r} and look={look}; an arm has its own look, leave look= out"
                )
            return _varied(ARMS[arm], variant)
        if look is None:
            look = self._place("look", name, len(LOOKS), look_owners)
        elif not 0 <= look < len(LOOKS):
            raise LabError(f"{name!r} asks for look {look}; there are looks 0 to {len(LOOKS) - 1}")
        look_owners.setdefault(("look", look), name)
        return _varied(LOOKS[look], variant)

    def theory(self, name: str | None, look_owners: dict[tuple[str, int], str]) -> dict[str, Any]:
        """A black line; the first name and lines without a name are dotted."""
        place = 0 if name is None else self._place("closed form", name, len(THEORIES), look_owners)
        return {"color": "black", "linestyle": THEORIES[place], "linewidth": 1.5}

    def _place(self, kind: str, name: str, many: int, look_owners: dict[tuple[str, int], str]) -> int:
        place = self._places.get((kind, name))
        if place is None:
            # The look least used on the sheet of those that are free on the panel.
            used = [at for (placed_kind, _), at in self._places.items() if placed_kind == kind]
            free = [at for at in range(many) if (kind, at) not in look_owners]
            if not free:
                raise LabError(
                    f"{name!r} is {kind} {many + 1} of one panel, and a reader cannot tell more than {many} apart; give several "
                    "curves one look= with variants, or draw two panels"
                )
            place = self._places[kind, name] = min(free, key=used.count)
        owner = look_owners.setdefault((kind, place), name)
        if owner != name:
            raise LabError(
                f"{name!r} and {owner!r} have one {kind} from other panels of their sheet; give one of them look="
            )
        return place


def _varied(look: dict[str, Any], variant: int) -> dict[str, Any]:
    marker = OTHER_MARKERS.get(look["marker"], "d") if variant >= 2 else look["marker"]
    return look | {"marker": marker, "fillstyle": "none" if variant % 2 else "full"}


def plain(words: str) -> str:
    """Words on one line."""
    return " ".join(words.split())


def wrapped(words: str, inches: float, size: float) -> str:
    """``words`` broken at spaces into lines of at most ``inches`` at a font size in points; formulas stay whole."""
    lines = []
    for paragraph in words.split("\n"):
        parts = re.sub(r"\$[^$]*\$", lambda formula: formula[0].replace(" ", "\0"), paragraph).split(" ")
        line = ""
        for part in (part.replace("\0", " ") for part in parts):
            longer = f"{line} {part}" if line else part
            if line and length(longer, size) > inches:
                lines.append(line)
                line = part
            else:
                line = longer
        lines.append(line)
    return "\n".join(lines)


@functools.lru_cache(maxsize=4096)
def length(words: str, size: float) -> float:
    """Length of a line of text in inches."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.path import Path
    from matplotlib.textpath import TextPath

    if not words.strip():
        return 0.0
    drawn = TextPath((0, 0), words, size=size, prop=FontProperties(family="DejaVu Sans"))
    # Glyphs have points at their extremes: no need for those of every curve, which take nine tenths of the time.
    across = drawn.vertices[drawn.codes != Path.CLOSEPOLY, 0]
    return float(np.ptp(across)) / 72


def longest_word(words: str, size: float) -> float:
    """Length of the longest unbreakable part in inches."""
    return max(length(part, size) for part in wrapped(words, 0.0, size).split("\n"))
