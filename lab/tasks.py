"""A task: one file with a configuration, presets, measurements, figures and claims.

    TASK = Task("my-paper", paper=Paper(...), presets={"smoke": Config(...), "ci": Config(...), "paper": Config(...)})

    @TASK.measurement(seeds=lambda config: config.trainings)
    def losses(config: Config, seed: int) -> dict[str, np.ndarray]: ...

    @TASK.figure
    def loss_curves(results) -> Drawing: ...

    @TASK.claim("my-paper/T1", where=..., kind=..., statement=..., controls=[control("...", arm="shuffled")])
    def reaches_bayes(results, arm="prefix") -> Evidence: ...

Files in ``tasks/`` and ``proofs_check/`` are found by looking; there is no list to edit. A file anywhere else
is loaded by its path and works alike.
"""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import functools
import importlib.util
import inspect
import sys
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args

import numpy as np

from lab.claims import Claim, Control, Evidence, Kind
from lab.errors import LabError
from lab.source import fingerprint, reachable

if typing.TYPE_CHECKING:
    from lab.figures import Drawing
    from lab.runs import Results

Preset = Literal["smoke", "ci", "paper"]
PRESETS: tuple[Preset, ...] = get_args(Preset)
PROJECT = Path(__file__).resolve().parent.parent
FOLDERS = ("tasks", "proofs_check")

Data = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Paper:
    """What a task is about: enough to find it in a library."""

    title: str
    authors: str
    year: int
    arxiv: str = ""

    @property
    def citation(self) -> str:
        return f"{self.authors}: {self.title} ({self.year}{', arXiv ' + self.arxiv if self.arxiv else ''})"


@dataclass(frozen=True)
class NoConfig:
    """The configuration of a file that has nothing to configure."""


@dataclass(frozen=True)
class Measurement:
    """A pure function of (config, seed) to arrays: what is cached, resumed, parallelised.

    Attributes:
        name: the function's name.
        function: ``(config, seed) -> data``, or ``(config, seeds) -> data`` with a leading seed axis on every
            array when ``ensemble``.
        seeds: how many seeds a configuration asks for.
        ensemble: whether one call measures several seeds together (many small models trained as one).
        seeds_per_job: at most so many seeds in one call of an ensemble measurement. It does not depend on the
            number of workers, so that results do not either.
        file: where it is defined.
    """

    name: str
    function: Callable[..., Data]
    seeds: Callable[[Any], int]
    ensemble: bool
    seeds_per_job: int
    file: Path

    def chunks(self, seeds: Sequence[int]) -> list[tuple[int, ...]]:
        """The calls that measure ``seeds``."""
        size = self.seeds_per_job if self.ensemble else 1
        return [tuple(seeds[start : start + size]) for start in range(0, len(seeds), size)]

    def measure(self, config: Any, seeds: tuple[int, ...]) -> dict[str, np.ndarray]:
        """Run it for ``seeds``; every array has a leading seed axis."""
        found = self.function(config, seeds if self.ensemble else seeds[0])
        data = {name: np.asarray(value) for name, value in found.items()}
        if not self.ensemble:
            data = {name: value[None] for name, value in data.items()}
        for name, value in data.items():
            if value.dtype.kind not in "biuf":
                raise LabError(
                    f"{self.name} returned {name!r} with dtype {value.dtype}; return arrays of numbers or booleans"
                )
            if value.ndim == 0 or len(value) != len(seeds):
                raise LabError(
                    f"{self.name} returned {name!r} of shape {value.shape}; its first axis must be the {len(seeds)} seeds"
                )
        return data

    @property
    def fingerprint(self) -> str:
        """Hash of the source it depends on."""
        return fingerprint(self.file, self.name)


@dataclass
class Task:
    """The parts of one file, gathered by its decorators.

    Args:
        name: the paper's slug, the first half of every claim id in the file.
        paper: what the task is about.
        presets: the configurations ``smoke`` (seconds), ``ci`` (about a minute on two cores) and ``paper`` (the
            paper's own sizes); all instances of one frozen dataclass. Leave out for a file without configuration.
    """

    name: str
    paper: Paper
    presets: Mapping[str, Any] = field(default_factory=lambda: {preset: NoConfig() for preset in PRESETS})
    measurements: dict[str, Measurement] = field(default_factory=dict, init=False)
    figures: dict[str, Callable[[Results], Drawing]] = field(default_factory=dict, init=False)
    claims: dict[str, Claim] = field(default_factory=dict, init=False)
    file: Path = field(init=False)
    module: str = field(init=False)

    def __post_init__(self) -> None:
        if set(self.presets) != set(PRESETS):
            raise LabError(
                f"{self.name} has the presets {', '.join(self.presets)}; it needs exactly {', '.join(PRESETS)}"
            )
        if len({type(config) for config in self.presets.values()}) != 1:
            raise LabError(f"the presets of {self.name} are of different types; make them instances of one dataclass")
        frame = inspect.currentframe()
        while frame is not None and frame.f_code.co_name != "<module>":
            frame = frame.f_back
        if frame is None:
            raise LabError(f"the task {self.name} is made inside a function; make it at the top level of its file")
        self.module = frame.f_globals["__name__"]
        file = frame.f_globals.get("__file__")
        self.file = Path(file).resolve() if file is not None else _find_file(self.name)

    @functools.cached_property
    def config_type(self) -> type:
        return type(self.presets["ci"])

    @property
    def place(self) -> str:
        """``tasks`` or ``proofs_check``, or the folder of a file that is not the project's."""
        return self.file.parent.name if self.file.parent.parent == PROJECT else str(self.file.parent)

    @property
    def key(self) -> str:
        """Name of its folder among results and figures; proofs and task of one paper differ."""
        return f"{self.name}-proofs" if self.place == "proofs_check" else self.name

    def config(self, preset: str) -> Any:
        """The configuration called ``preset``."""
        if preset not in self.presets:
            raise LabError(f"unknown preset {preset!r}{nearest(preset, PRESETS)}; presets are {', '.join(PRESETS)}")
        return self.presets[preset]

    def measurement(
        self, *, seeds: Callable[[Any], int] = lambda config: 1, ensemble: bool = False, seeds_per_job: int = 4
    ) -> Callable[[Callable[..., Data]], Measurement]:
        """Register ``(config, seed) -> data`` (``(config, seeds) -> data`` for an ensemble)."""

        def register(function: Callable[..., Data]) -> Measurement:
            found = Measurement(function.__name__, function, seeds, ensemble, seeds_per_job, self.file)
            self.measurements[found.name] = found
            return found

        return register

    def figure(self, function: Callable[[Results], Drawing]) -> Callable[[Results], Drawing]:
        """Register a figure, drawn in the house style; the function's name is the picture's, its docstring the caption."""

        @functools.wraps(function)
        def draw(results: Results) -> Drawing:
            from lab.figures import style

            with style():
                return function(results)

        self.figures[draw.__name__] = draw
        return draw

    def claim(
        self,
        id: str,
        *,
        where: str,
        kind: Kind,
        statement: str,
        controls: Sequence[Control],
        expected: Literal["holds", "refuted"] = "holds",
        condition: str = "",
    ) -> Callable[[Callable[..., Evidence]], Callable[..., Evidence]]:
        """Register a claim; see ``lab.claims.Claim`` for the arguments."""

        def register(check: Callable[..., Evidence]) -> Callable[..., Evidence]:
            if not id.startswith(f"{self.name}/"):
                raise LabError(f"the claim id {id!r} does not begin with {self.name!r}, the name of its file's task")
            if id in self.claims:
                raise LabError(f"the claim id {id!r} is used twice in {self.file.name}; ids are unique")
            self.claims[id] = Claim(id, where, kind, statement, check, tuple(controls), expected, condition)
            return check

        return register

    def needs(self, function: Callable[..., Any]) -> list[Measurement]:
        """The measurements that a figure or claim of this file uses, read from its source."""
        names = reachable(self.file, inspect.unwrap(function).__name__)
        return [one for name, one in self.measurements.items() if name in names]

    def results(self, preset: str = "ci") -> Results:
        """The measurements at ``preset``, taken now where no stored ones fit (for notebooks and scripts)."""
        from lab.runs import Results, Session

        return Results(self, self.config(preset), Session())

    def show(self, part: Any = None) -> None:
        """In a notebook: draw a figure, or state a claim and its verdict. Does nothing when the file is imported.

        Args:
            part: a figure function, a claim's check, or None for all verdicts of the file.
        """
        if self.module == "__main__" and "IPython" in sys.modules:
            from lab.notebooks import show

            show(self, part)


def load(file: Path) -> Task:
    """The task defined in ``file`` (of the project or not).

    Raises:
        LabError: there is no such file, it fails to import, or it does not hold exactly one task.
    """
    file = file.expanduser().resolve()
    if not file.is_file():
        raise LabError(f"there is no file {file}; give the path of a Python file that defines a Task")
    module = _module(file)
    found = [value for value in vars(module).values() if isinstance(value, Task) and value.file == file]
    if len({id(task) for task in found}) != 1:
        raise LabError(f"{file} defines {len(found)} tasks; it must define exactly one Task at its top level")
    return found[0]


def _module(file: Path) -> ModuleType:
    inside = file.parent.parent == PROJECT and file.parent.name in FOLDERS
    name = f"{file.parent.name}.{file.stem}" if inside else f"external_{file.stem}_{abs(hash(file)):x}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except LabError:
        del sys.modules[name]
        raise
    except Exception as error:
        del sys.modules[name]
        line = _line_in(file, error)
        raise LabError(f"{file}{line} cannot be imported: {type(error).__name__}: {error}") from error
    return module


def _line_in(file: Path, error: BaseException) -> str:
    trace, line = error.__traceback__, ""
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(file):
            line = f", line {trace.tb_lineno},"
        trace = trace.tb_next
    return line


def discover() -> list[Task]:
    """All tasks of the project: ``tasks/*.py`` first, then ``proofs_check/*.py``."""
    return [load(file) for folder in FOLDERS for file in sorted((PROJECT / folder).glob("[a-z]*.py"))]


def find(name: str) -> Task:
    """The task called ``name``, or the one in the file that ``name`` is the path of."""
    if name.endswith(".py") or "/" in name:
        return load(Path(name))
    file = PROJECT / "tasks" / f"{name.replace('-', '_')}.py"
    if file.is_file():
        return load(file)
    known = {task.key: task for task in discover()}
    if name not in known:
        raise LabError(f"unknown task {name!r}{nearest(name, known)}; `lab list` names the {len(known)} there are")
    return known[name]


def find_claims(patterns: Sequence[str]) -> list[tuple[Task, Claim]]:
    """The claims whose ids match any of ``patterns`` (shell wildcards), or that stand in the files named.

    Raises:
        LabError: a pattern matches nothing.
    """
    everything = [(task, claim) for task in discover() for claim in task.claims.values()]
    found: list[tuple[Task, Claim]] = []
    for pattern in patterns or ["*"]:
        if pattern.endswith(".py"):
            task = load(Path(pattern))
            chosen = [(task, claim) for claim in task.claims.values()]
        else:
            chosen = [(task, claim) for task, claim in everything if fnmatch.fnmatchcase(claim.id, pattern)]
        if not chosen:
            ids = [claim.id for _, claim in everything]
            raise LabError(f"no claim matches {pattern!r}{nearest(pattern, ids)}; `lab list` names all claims")
        found += [one for one in chosen if one not in found]
    return found


def nearest(name: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` for the name in ``known`` that is most like ``name``, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _find_file(name: str) -> Path:
    # A notebook has no file of its own: it is the twin of the task file of the same name.
    for folder in FOLDERS:
        file = PROJECT / folder / f"{name.replace('-', '_')}.py"
        if file.is_file():
            return file
    raise LabError(f"there is no file tasks/{name.replace('-', '_')}.py that this notebook could be the twin of")


def config_from_dict(kind: type, values: Mapping[str, Any]) -> Any:
    """Rebuild a (nested) configuration from plain data; an unknown key is an error."""
    hints = typing.get_type_hints(kind)
    unknown = set(values) - {one.name for one in dataclasses.fields(kind)}
    if unknown:
        raise LabError(f"{kind.__name__} has no field {sorted(unknown)[0]!r}; its fields are {', '.join(hints)}")
    return kind(**{name: _typed(hints[name], value) for name, value in values.items()})


def _typed(hint: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return config_from_dict(typing.cast(type, hint), value)
    if isinstance(value, list):
        inner = [one for one in typing.get_args(hint) if one is not Ellipsis]
        return tuple(_typed(inner[0] if inner else Any, one) for one in value)
    return value
