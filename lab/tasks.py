"""A task: one file with a configuration, presets, measurements, figures and claims.

    TASK = Task("my-paper", paper="author-2024-word", presets={"smoke": Config(...), "ci": Config(...), "paper": Config(...)})

    @TASK.measurement(seeds=lambda config: config.trainings)
    def losses(config: Config, seed: int) -> dict[str, np.ndarray]: ...

    @TASK.figure
    def loss_curves(results) -> Sheet: ...

    @TASK.claim("my-paper/T1", where=..., kind=..., statement=..., controls=[control("...", arm="shuffled")])
    def reaches_bayes(results, arm="prefix") -> Evidence: ...

Files in ``tasks/`` and ``proofs_check/`` are found by looking; there is no list to edit. A file anywhere else
is loaded by its path and works alike.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import re
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from lab import papers, statistics
from lab.claims import Claim, Control, Evidence, Expected, Kind, control
from lab.configuration import check_config, classes_of
from lab.errors import LabError, kind_of, nearest, place_of
from lab.evidence import least_seeds
from lab.files import FOLDERS, PROJECT
from lab.labels import NUMERIC, LabelledArrays, Measured, is_labelled, measured
from lab.papers import Paper
from lab.source import code, fingerprint, reachable

if typing.TYPE_CHECKING:
    from lab.figures import Sheet

Preset = Literal["smoke", "ci", "paper"]
PRESETS: tuple[Preset, ...] = get_args(Preset)
SEEDS_OF_A_ROOT = 1_000_000
FILE_OF_NOTEBOOK = "LAB_FILE_OF_NOTEBOOK"  # tells a kernel which file its notebook was made from
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # it names a folder and begins the ids of claims

# A mapping of names to plain arrays (all with numbers), or to labelled ones (xarray.DataArray) and numbers.
Data = Mapping[str, Any]


@dataclass(frozen=True)
class NoConfig:
    """The configuration of a file that has nothing to configure."""


@dataclass(frozen=True)
class Measurement:
    """A pure function of (config, seed) to arrays: what is cached, resumed, parallelised.

    Attributes:
        name: the function's name.
        function: ``(config, seed) -> data``; ``(config, seeds) -> data`` with a leading seed axis on every array
            when ``ensemble`` (labelled by the seeds, where arrays are labelled); ``(config, **settings) -> data``
            where there are ``cases``.
        seeds: how many seeds a configuration asks for.
        ensemble: whether one call measures several seeds together (many small models trained as one).
        seeds_per_job: at most so many seeds in one call of an ensemble measurement. It does not depend on the
            number of workers, so that results do not either.
        file: where it is defined.
        fingerprint: hash of the source it depends on, as that was when the file was imported.
        cases: settings by name, where no seed is involved; empty for a measurement over seeds.
        root: below which root its seeds lie; None: that of the task.
    """

    name: str
    function: Callable[..., Data]
    seeds: Callable[[Any], int]
    ensemble: bool
    seeds_per_job: int
    file: Path
    fingerprint: str
    cases: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    root: int | None = None

    @property
    def first_axis(self) -> Literal["seed", "case"]:
        """What stands first in its results."""
        return "case" if self.cases else "seed"

    def chunks(self, seeds: Sequence[int]) -> list[tuple[int, ...]]:
        """The calls that measure ``seeds``."""
        size = self.seeds_per_job if self.ensemble else 1
        return [tuple(seeds[start : start + size]) for start in range(0, len(seeds), size)]

    def measure(self, config: Any, seeds: tuple[int, ...], case: str = "") -> Measured:
        """Run it for ``seeds``, or for one of its cases; every array has a leading axis of seeds or cases.

        Raises:
            LabError: what it returned are not numbers, or their axes or labels are wrong; with its file and line.
        """
        if self.cases:
            returned = self.function(config, **self.cases[case])
        else:
            returned = self.function(config, seeds if self.ensemble else seeds[0])
        try:
            return self._checked(returned, seeds, case)
        except LabError as error:
            raise LabError(f"{place_of(self.function)}{error}") from error

    def _checked(self, returned: Any, seeds: tuple[int, ...], case: str) -> Measured:
        """What a call returned, as it is stored."""
        _check_returned(self.name, returned)
        if self.cases:
            return measured(self.name, returned, "case", (case,), leading=False)
        if is_labelled(returned):
            return measured(self.name, returned, "seed", seeds, leading=self.ensemble)
        data = {name: _plain_array(self.name, name, value) for name, value in returned.items()}
        if not self.ensemble:
            data = {name: value[None] for name, value in data.items()}
        for name, value in data.items():
            if value.dtype.kind not in NUMERIC:
                raise LabError(
                    f"{self.name} returned {name!r} with dtype {value.dtype}; return arrays of numbers or booleans"
                )
            if value.ndim == 0 or len(value) != len(seeds):
                raise LabError(
                    f"{self.name} returned {name!r} of shape {value.shape}; its first axis must be the {len(seeds)} seeds"
                )
        return Measured(data)


def _check_judgements(judgements: int | None, shared: bool) -> None:
    if judgements is None:
        return
    if shared:
        raise LabError(
            f"judgements={judgements} would give a sheet of the lab a budget of its own, and the lab has one for all; leave it out"
        )
    if not isinstance(judgements, int) or isinstance(judgements, bool) or not 1 <= judgements <= statistics.JUDGEMENTS:
        raise LabError(
            f"judgements={judgements!r} must say over how many sampled claims and controls the budget of 5 % is divided: a whole "
            f"number from 1 to {statistics.JUDGEMENTS:,}"
        )


def _check_returned(name: str, returned: Any) -> None:
    """Refuse what is no mapping of names to arrays."""
    if not isinstance(returned, Mapping) and not hasattr(returned, "data_vars"):
        raise LabError(
            f"{name} returned {kind_of(returned)}; return arrays by name, such as {{'error': error}}, or a Dataset"
        )
    if not len(returned):
        raise LabError(f"{name} returned 0 arrays, which shows nothing; return at least 1 by name")
    for array in returned:
        if not isinstance(array, str) or not array or array.startswith("__") or not array.isprintable():
            raise LabError(
                f"{name} returned an array called {array!r}; give it a name of letters, digits and underscores"
            )


def _plain_array(measurement: str, name: str, value: Any) -> np.ndarray:
    """An array as files hold it: in this machine's order of bytes."""
    try:
        if hasattr(value, "detach"):
            value = value.detach().cpu()
            value = value.float() if str(value.dtype) == "torch.bfloat16" else value
        array = np.asarray(value)
    except ValueError as error:
        raise LabError(
            f"{measurement} returned {name!r}, which forms no array ({error}); give rows of equal length"
        ) from error
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        raise LabError(
            f"{measurement} returned {name!r} with dtype {array.dtype}, which files do not hold; return float64"
        )
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def seeds_below(root: int, number: int) -> tuple[int, ...]:
    """The first ``number`` seeds of a root: a million seeds belong to each, so no two roots share one.

    >>> seeds_below(3, 2)
    (3000000, 3000001)
    """
    if not 0 <= number <= SEEDS_OF_A_ROOT or root < 0:
        raise LabError(
            f"{number} seeds below the root {root} cannot be had; roots are 0, 1, 2 and so on, and each has "
            f"{SEEDS_OF_A_ROOT} seeds"
        )
    return tuple(range(root * SEEDS_OF_A_ROOT, root * SEEDS_OF_A_ROOT + number))


class Task:
    """The parts of one file, gathered by its decorators.

    Args:
        name: the paper's slug, the first half of every claim id in the file.
        paper: what the task is about: the paper's key in ``papers.toml``, or a `Paper` in a file of your own.
        presets: the configurations ``smoke`` (seconds), ``ci`` (about a minute on two cores) and ``paper`` (the
            paper's own sizes); all instances of one frozen dataclass. Leave out for a file without configuration.
        root: below which root the evidence draws its seeds (``seeds_below``). Sizes and bounds are chosen below other
            roots; where one of them changes after its evidence was seen, the evidence moves to a root nobody has used.
        judgements: of a file of one's own that is judged by itself: over how many sampled claims and controls its own
            false-alarm budget of 5 % is divided. Left out, its verdicts are as strict as the lab's.
    """

    # How a notebook shows a part; set by `lab.notebooks`, which stands above this file.
    display: typing.ClassVar[Callable[[Any, Any], None] | None] = None

    def __init__(
        self,
        name: str,
        paper: Paper | str,
        presets: Mapping[str, Any] | None = None,
        root: int = 0,
        judgements: int | None = None,
    ) -> None:
        self.name = name
        self.root = root
        self.paper: Paper = papers.paper(paper) if isinstance(paper, str) else paper
        self.presets: Mapping[str, Any] = {preset: NoConfig() for preset in PRESETS} if presets is None else presets
        self.measurements: dict[str, Measurement] = {}
        # A figure takes `lab.results.Results`, which stands above this file.
        self.figures: dict[str, Callable[[Any], Sheet]] = {}
        self.claims: dict[str, Claim] = {}
        if not NAME.fullmatch(name):
            raise LabError(
                f"the task's name {name!r} must serve as a folder and begin the ids of claims; use at most 100 letters, digits, "
                "hyphens, dots and underscores"
            )
        if set(self.presets) != set(PRESETS):
            raise LabError(
                f"{self.name} has the presets {', '.join(self.presets)}; it needs exactly {', '.join(PRESETS)}"
            )
        if len({type(config) for config in self.presets.values()}) != 1:
            raise LabError(f"the presets of {self.name} are of different types; make them instances of one dataclass")
        for preset in self.presets.values():
            check_config(preset)
        frame = inspect.currentframe()
        while frame is not None and frame.f_code.co_name != "<module>":
            frame = frame.f_back
        if frame is None:
            raise LabError(f"the task {self.name} is made inside a function; make it at the top level of its file")
        self.module: str = frame.f_globals["__name__"]
        file = frame.f_globals.get("__file__")
        self.file: Path = Path(file).resolve() if file is not None else _find_file(self.name)
        self.judgements = judgements
        _check_judgements(judgements, self.place in FOLDERS)

    @functools.cached_property
    def config_type(self) -> type:
        return type(self.presets["ci"])

    @property
    def allowance(self) -> float:
        """The share of the false-alarm budget that each judgement may spend."""
        return statistics.SHARE if self.judgements is None else statistics.FALSE_ALARM_BUDGET / self.judgements

    @property
    def place(self) -> str:
        """``tasks`` or ``proofs_check``, or the folder of a file that is not the project's."""
        for folder in FOLDERS:
            if self.file.is_relative_to(PROJECT / folder):
                return folder
        return str(self.file.parent)

    @property
    def part(self) -> str:
        """Its file's name where a sheet is a folder of parts; empty where the sheet is one file."""
        inside = self.place in FOLDERS and self.file.parent != PROJECT / self.place
        return self.file.stem.replace("_", "-") if inside else ""

    @property
    def key(self) -> str:
        """Name of its folder among results; proofs and task of one paper differ, and so do parts."""
        name = f"{self.name}-proofs" if self.place == "proofs_check" else self.name
        return f"{name}/{self.part}" if self.part else name

    def config(self, preset: str) -> Any:
        """The configuration called ``preset``."""
        if preset not in self.presets:
            raise LabError(f"unknown preset {preset!r}{nearest(preset, PRESETS)}; presets are {', '.join(PRESETS)}")
        return self.presets[preset]

    def measurement(
        self,
        without_parentheses: Any = None,
        /,
        *,
        seeds: Callable[[Any], int] = lambda config: 1,
        ensemble: bool = False,
        seeds_per_job: int = 4,
        root: int | None = None,
    ) -> Callable[[Callable[..., Data]], Measurement]:
        """Register ``(config, seed) -> data`` (``(config, seeds) -> data`` for an ensemble).

        ``root`` moves this measurement alone to seeds that nobody has used.
        """
        if without_parentheses is not None:
            raise LabError("a measurement is registered by a call; write @TASK.measurement(), with its parentheses")
        if not callable(seeds):
            raise LabError(
                f"seeds={seeds!r} must say how many seeds a configuration asks for; write lambda config: {seeds!r}"
            )
        if seeds_per_job < 1:
            raise LabError(f"seeds_per_job={seeds_per_job} leaves every call without a seed; name at least 1")

        def register(function: Callable[..., Data]) -> Measurement:
            source = self._fingerprint(function)
            measurement = Measurement(
                function.__name__, function, seeds, ensemble, seeds_per_job, self.file, source, root=root
            )
            return self._register(measurement)

        return register

    def cases(self, **cases: Mapping[str, Any]) -> Callable[[Callable[..., Data]], Measurement]:
        """Register ``(config, **settings) -> data``, measured once for each case; no seed is involved.

            @TASK.cases(claimed={}, shuffled={"order": "random"})
            def residual(config, *, order="given") -> Mapping[str, xr.DataArray | float]: ...

        Args:
            cases: for each case its settings, as plain data (numbers, text, booleans, sequences of them).

        Raises:
            LabError: there is no case, or a setting is not plain or not an argument of the function.
        """

        def register(function: Callable[..., Data]) -> Measurement:
            if not cases:
                raise LabError(f"{function.__name__} has no case; name at least one, such as claimed={{}}")
            known = list(inspect.signature(function).parameters)[1:]
            for case, settings in cases.items():
                for setting, value in settings.items():
                    if setting not in known:
                        raise LabError(
                            f"the case {case!r} of {function.__name__} sets {setting!r}{nearest(setting, known)}; "
                            f"its settings are {', '.join(known) or 'none'}"
                        )
                    try:
                        json.dumps(value)
                    except TypeError as error:
                        raise LabError(
                            f"the case {case!r} of {function.__name__} sets {setting} to {value!r}; "
                            "settings are numbers, text, booleans or sequences of them"
                        ) from error
            source = self._fingerprint(function)
            measurement = Measurement(function.__name__, function, lambda config: 0, False, 1, self.file, source, cases)
            return self._register(measurement)

        return register

    def _fingerprint(self, function: Callable[..., Data]) -> str:
        # A configuration, and the classes of its values, may reach a measurement without being named in it.
        classes = {kind for config in self.presets.values() for kind in classes_of(config)}
        own = {kind for kind in classes if self._defines(kind)}
        return fingerprint(
            self.file,
            function,
            sorted(kind.__name__ for kind in own),
            sorted({kind.__module__ for kind in classes - own}),
        )

    def _defines(self, kind: type) -> bool:
        """Whether a class is one of the file of this task (of a cell of its notebook, which agrees with the file)."""
        file = getattr(sys.modules.get(kind.__module__), "__file__", None) or os.devnull
        return kind.__module__ == "__main__" or Path(file).resolve() == self.file

    def _register(self, measurement: Measurement) -> Measurement:
        if measurement.name in self.measurements:
            raise LabError(f"{self.file} has two measurements called {measurement.name}; give one of them another name")
        self.measurements[measurement.name] = measurement
        return measurement

    def figure(self, function: Callable[[Any], Sheet]) -> Callable[[Any], Sheet]:
        """Register a figure, drawn in the house style; the function's name is the picture's, its docstring the caption."""

        @functools.wraps(function)
        def plot(results: Any) -> Sheet:
            from lab.figures import style

            with style():
                return function(results)

        if plot.__name__ in self.figures:
            raise LabError(f"{self.file} has two figures called {plot.__name__}; give one of them another name")
        self.figures[plot.__name__] = plot
        return plot

    def claim(
        self,
        id: str,
        *,
        where: str,
        kind: Kind,
        statement: str,
        controls: Sequence[Control],
        expected: Expected = "holds",
        condition: str = "",
        paper: str = "",
    ) -> Callable[[Callable[..., Evidence]], Callable[..., Evidence]]:
        """Register a claim; see ``lab.claims.Claim`` for the arguments.

        ``paper`` is the key of the paper that says so, where it is another than the task's.
        """
        source = papers.paper(paper).key if paper else self.paper.key

        def register(check: Callable[..., Evidence]) -> Callable[..., Evidence]:
            if not id.startswith(f"{self.name}/"):
                raise LabError(f"the claim id {id!r} does not begin with {self.name!r}, the name of its file's task")
            if id in self.claims:
                raise LabError(f"the claim id {id!r} is used twice in {self.file.name}; ids are unique")
            about = (id, where, kind, statement, check, tuple(controls), expected, condition, source)
            self.claims[id] = Claim(*about, allowance=self.allowance)
            return check

        return register

    def identity(
        self, id: str, *, origin: str, controls: Sequence[Control], kind: Kind = "identity", **about: Any
    ) -> Callable[[Callable[..., LabelledArrays]], Callable[..., Evidence]]:
        """Register ``(config, **settings) -> lab.labels.deviations(...)`` as a claim: each deviation is within its bound.

        The function and every control of it are measured as cases, so that they are kept and run side by side.

        Args:
            id, kind, about: as in `claim`.
            origin: where the bounds come from, in words.
            controls: settings of the function with which some deviation must exceed its bound.
        """
        cases = {re.sub(r"[^a-z0-9]+", "-", wrong.name.lower()): wrong for wrong in controls}

        def register(function: Callable[..., LabelledArrays]) -> Callable[..., Evidence]:
            measurement = self.cases(claimed={}, **{case: wrong.setting for case, wrong in cases.items()})(function)

            def check(results: Any, case: str = "claimed") -> Evidence:
                deviations = results[measurement].sel(case=case)
                return Evidence.within(deviations["deviation"].values, deviations["bound"].values, origin)

            # By this name `needs` finds the measurement; where shapes are checked, `check` is a wrapper of the function.
            check.__name__ = inspect.unwrap(check).__name__ = function.__name__
            renamed = [control(wrong.name, case=case) for case, wrong in cases.items()]
            return self.claim(id, kind=kind, controls=renamed, **about)(check)

        return register

    def needs(self, function: Callable[..., Any]) -> list[Measurement]:
        """The measurements that a figure or claim of this file uses, read from its source."""
        names = reachable(self.file, inspect.unwrap(function).__name__)
        return [measurement for name, measurement in self.measurements.items() if name in names]

    def least_seeds(self, check: Callable[..., Any]) -> int:
        """How many seeds a claim of this file needs at least before it can be decided, as far as its source shows."""
        written = code(self.file, inspect.unwrap(check).__name__)
        least = least_seeds(self.allowance)
        return max([number for kind, number in least.items() if f"Evidence.{kind}(" in written], default=1)

    def show(self, part: Any = None) -> None:
        """In a notebook: draw a figure, or state a claim and its verdict. Does nothing when the file is imported.

        Args:
            part: a figure function, a claim's check, or None for all verdicts of the file.
        """
        if self.module == "__main__" and Task.display is not None:
            Task.display(self, part)


def _find_file(name: str) -> Path:
    """The file whose twin the running notebook is: the one of this name, or the part that holds the running cell."""
    stem = name.replace("-", "_")
    files = [
        file
        for folder in FOLDERS
        for file in (PROJECT / folder / f"{stem}.py", *sorted((PROJECT / folder / stem).glob("[a-z]*.py")))
        if file.is_file()
    ]
    cells = getattr(sys.modules["__main__"], "In", [""])
    made_from = Path(os.environ.get(FILE_OF_NOTEBOOK, os.devnull))
    files = [made_from] if made_from.suffix == ".py" else files
    twins = [file for file in files if cells[-1].strip() in file.read_text(encoding="utf-8")]
    if not twins:
        raise LabError(f"there is no file tasks/{stem}.py that this notebook could be the twin of")
    return twins[0]
