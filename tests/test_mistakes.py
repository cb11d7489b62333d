"""What a file of one's own may get wrong, and the sentence that answers it: where, what, and what to do."""

from __future__ import annotations

import enum
import json
import math
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab import LabError
from lab.catalogue import load
from lab.cli import main
from lab.configuration import check_config, config_from_dict, plain
from lab.errors import described, place_in
from lab.execution import Failed, Session, execute
from lab.files import PROJECT
from lab.results import Results
from lab.tasks import seeds_below

HEAD = """
from dataclasses import dataclass
import numpy as np
from lab import Evidence, Paper, Task, control
from lab.figures import Sheet
@dataclass(frozen=True)
class Config:
    size: int = 2
TASK = Task("own", Paper("T", "A", 2024), {preset: Config() for preset in ("smoke", "ci", "paper")})
"""
MEASUREMENT = """
@TASK.measurement(seeds=lambda config: 2)
def means(config: Config, seed: int):
    return {"mean": float(seed)}
"""
FIGURE = """
@TASK.figure
def picture(results):
    \"\"\"Caption.\"\"\"
    sheet = Sheet()
    sheet.panel("title", x="x", y="y").scatter([0, 1], results[means]["mean"], name="one")
    return sheet
"""
CLAIM = """
@TASK.claim("own/A", where="w", kind="identity", statement="s", controls=[control("c", shift=9)])
def small(results, shift=0):
    return Evidence.exact(results[means]["mean"].max() + shift, "<=", 6, "b")
"""
SECOND = CLAIM.replace("own/A", "own/B").replace("def small", "def smaller")


@dataclass(frozen=True)
class Own:
    """A task file that is wrong in one way, and its command line."""

    folder: Path
    capsys: Any

    def run(self, *parts: str, command: str = "run", options: tuple[str, ...] = ()) -> tuple[int, str, str]:
        file = self.folder / "own.py"
        file.write_text("".join(parts), encoding="utf-8")
        status = main([command, str(file), "--workers", "1", "--results", str(self.folder / "results"), *options])
        output = self.capsys.readouterr()
        return status, output.out, output.err


@pytest.fixture
def task_file(tmp_path: Path, capsys: Any) -> Own:
    return Own(tmp_path, capsys)


def test_a_right_file_runs(task_file: Own) -> None:
    assert task_file.run(HEAD, MEASUREMENT, FIGURE, CLAIM)[0] == 0


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        (
            (HEAD, MEASUREMENT.replace('"mean": float(seed)', '"mean": flat(seed)')),
            "own.py, line 13, NameError: name 'flat' is not defined (did you mean 'float'?)",
        ),
        (
            (HEAD, MEASUREMENT.replace("float(seed)", "np.maen(seed)")),
            "own.py, line 13, AttributeError: module 'numpy' has no attribute 'maen' (did you mean 'mean'?)",
        ),
        ((HEAD, MEASUREMENT.replace("float(seed)", "1 / 0")), "own.py, line 13, ZeroDivisionError: division by zero"),
        (
            (HEAD, MEASUREMENT.replace('{"mean": float(seed)}', "None")),
            "own.py, line 11, means returned None; return arrays by name",
        ),
        ((HEAD, MEASUREMENT.replace('{"mean": float(seed)}', "{}")), "own.py, line 11, means returned 0 arrays"),
        ((HEAD, MEASUREMENT.replace('"mean"', "1")), "own.py, line 11, means returned an array called 1"),
        ((HEAD, MEASUREMENT.replace('"mean"', '"__metadata__"')), "an array called '__metadata__'"),
        ((HEAD, MEASUREMENT.replace("float(seed)", "[[1], [1, 2]]")), "returned 'mean', which forms no array"),
        (
            (HEAD, MEASUREMENT.replace("float(seed)", "np.longdouble(1)")),
            "with dtype float128, which files do not hold",
        ),
        (
            (HEAD, MEASUREMENT.replace("float(seed)", "np.zeros(seed + 1)"), FIGURE),
            "own.py, line 11, means returned 'mean' of shape (2,) at seed 1, but (1,) at seed 0",
        ),
        ((HEAD, MEASUREMENT.replace("config: 2", "config: 2.5")), "own.py: the seeds of means cannot be counted: "),
        (
            (HEAD, MEASUREMENT.replace("config: 2", "config: 10**9")),
            "own.py, line 11, the measurement means of own: 1000000000 seeds below the root 0 cannot be had",
        ),
        ((HEAD, MEASUREMENT.replace("config: 2", "config: 1 / 0")), "own.py, line 11, ZeroDivisionError"),
        (
            (HEAD, MEASUREMENT.replace("(seeds=lambda config: 2)", "")),
            "write @TASK.measurement(), with its parentheses",
        ),
        (
            (HEAD, MEASUREMENT, FIGURE.replace("return sheet", "return sheet.figure")),
            "the figure picture of own: own.py, line 15, it returned a Figure; return the Sheet",
        ),
        (
            (HEAD, MEASUREMENT, CLAIM.replace("return Evidence", "Evidence")),
            "own.py, line 15, the check of own/A returned None, not Evidence",
        ),
        (
            (HEAD, MEASUREMENT.replace("float(seed)", "np.array('a')")),
            "own.py, line 11, means returned 'mean' with dtype <U1",
        ),
        ((HEAD,), "own.py has no measurement, figure or claim, so that there is nothing to run"),
        *(
            (
                (HEAD.replace("    size: int", f"    {name}: int"), MEASUREMENT),
                f"own.py: the field '{name}' of Config is called like",
            )
            for name in ("debug", "help")
        ),
        (
            (HEAD.replace('"own"', '"causallm-icl"'), MEASUREMENT),
            "own.py: 'causallm-icl' is a sheet of the lab, with which ids and results would be mixed up",
        ),
        (
            (HEAD, MEASUREMENT, FIGURE.replace('["mean"]', '["maen"]')),
            "the figure picture of own: own.py, line 19, means returned no array 'maen' (did you mean 'mean'?); it returned mean",
        ),
        ((HEAD, MEASUREMENT, CLAIM.replace(".max()", "[7]")), "own/A cannot be judged: own.py, line 17, IndexError"),
        (
            (HEAD, MEASUREMENT, CLAIM.replace("+ shift", "+ shift + np.nan")),
            "own/A: own.py, line 17, the measured value of this evidence is not",
        ),
        ((HEAD, MEASUREMENT, CLAIM.replace("shift=9", "shfit=9")), "sets ['shfit'] (did you mean 'shift'?)"),
        (
            (HEAD, MEASUREMENT, CLAIM.replace("results[", "results.vary(sise=1)[")),
            "no field 'sise' (did you mean 'size'?)",
        ),
        ((HEAD, MEASUREMENT, FIGURE, FIGURE), "own.py has two figures called picture"),
        ((HEAD.replace('"own"', '".."'), MEASUREMENT), "the task's name '..' must serve as a folder"),
        ((HEAD.replace("(frozen=True)", ""), MEASUREMENT), "write @dataclass(frozen=True)"),
        (
            (HEAD.replace("    size: int", "    seeds: int"), MEASUREMENT),
            "own.py: the field 'seeds' of Config is called like",
        ),
    ],
)
def test_a_mistake_is_answered_by_what_and_where(task_file: Own, parts: tuple[str, ...], sentence: str) -> None:
    status, _, errors = task_file.run(*parts)
    last = errors.strip().splitlines()[-1]
    assert (status, last[:5]) == (2, "lab: ")
    assert sentence in last


SAYS_SO = MEASUREMENT.replace(
    "    return", "    from lab import LabError\n    raise LabError('raise batch')\n    return"
)
EXITS = MEASUREMENT.replace("    return", "    import sys\n    sys.exit(3)\n    return")


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ((SAYS_SO,), "own means seed 0: own.py, line 14, raise batch"),
        ((EXITS,), "own means seed 0 (and 1 more) failed with own.py, line 14, SystemExit: it called sys.exit"),
        (
            (MEASUREMENT, CLAIM.replace('["mean"]', '["maen"]')),
            "own/A: own.py, line 17, means returned no array 'maen'",
        ),
        ((MEASUREMENT, CLAIM.replace('"<="', '"=<"')), "own.py, line 17, "),
        (
            (MEASUREMENT, CLAIM.replace("    return", "    raise SystemExit(3)\n    return")),
            "own.py, line 17, the check of",
        ),
    ],
)
def test_a_sentence_of_the_lab_names_the_line_that_led_to_it(
    task_file: Own, parts: tuple[str, ...], sentence: str
) -> None:
    status, _, errors = task_file.run(HEAD, *parts)
    assert (status, sentence in errors) == (2, True), errors


def test_an_error_below_the_folder_of_a_file_names_its_own_line(tmp_path: Path) -> None:
    """In a package of the user's, with the name that was meant; what is installed below the folder is nobody's own."""
    inner = tmp_path / "package_of_own" / "inner.py"
    inner.parent.mkdir()
    inner.write_text("number = 1\ndef f():\n    return nubmer\n", encoding="utf-8")
    names: dict[str, Any] = {}
    exec(compile(inner.read_text(encoding="utf-8"), str(inner), "exec"), names)
    with pytest.raises(NameError) as raised:
        names["f"]()
    sentence = described(raised.value, tmp_path / "own.py")
    assert sentence.startswith(
        "package_of_own/inner.py, line 3, NameError: name 'nubmer' is not defined (did you mean 'number'?)"
    )
    assert place_in(raised.value, tmp_path / "other" / "own.py") == ""
    with pytest.raises(LabError) as refused:
        seeds_below(0, -1)
    assert "lab/" not in place_in(refused.value, PROJECT / "own.py")


CAUGHT_BY_TYPES = {
    "own.py, line 11, seeds=2 must say how many seeds": (HEAD, MEASUREMENT.replace("lambda config: 2", "2")),
    "make each with control(": (HEAD, MEASUREMENT, CLAIM.replace('control("c", shift=9)', '{"shift": 9}')),
    "results are asked for 'mean', a str (did you mean 'means'?); ask with the measurement itself": (
        HEAD,
        MEASUREMENT,
        FIGURE.replace("results[means]", 'results["mean"]'),
    ),
}


def test_so_are_those_that_the_types_of_this_suite_would_catch(tmp_path: Path) -> None:
    """In a process where nothing checks types."""
    files = []
    for number, parts in enumerate(CAUGHT_BY_TYPES.values()):
        files.append(tmp_path / str(number) / "own.py")
        files[-1].parent.mkdir()
        files[-1].write_text("".join(parts), encoding="utf-8")
    options = ["--workers", "1", "--results", str(tmp_path / "results")]
    script = f"from lab.cli import main\nprint([main(['run', file, *{options}]) for file in {list(map(str, files))}])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, encoding="utf-8")
    assert done.stdout.splitlines()[-1] == "[2, 2, 2]"
    sentences = [line for line in done.stderr.splitlines() if line.startswith("lab: ")]
    for line, sentence in zip(sentences, CAUGHT_BY_TYPES, strict=True):
        assert sentence in line


def test_a_formula_that_does_not_end_is_told(task_file: Own) -> None:
    status, output, errors = task_file.run(HEAD, MEASUREMENT, FIGURE.replace('"title"', 'r"$\\frac{$"'), CLAIM)
    assert (status, "picture of own cannot be drawn" in " ".join(errors.split()), "holds" in output) == (2, True, True)


def test_one_claim_or_figure_that_raises_leaves_the_others(task_file: Own) -> None:
    broken = FIGURE.replace("def picture", "def other").replace("sheet = Sheet()", "raise ValueError('no')")
    status, output, errors = task_file.run(
        HEAD, MEASUREMENT, broken, FIGURE, CLAIM.replace("results[means]", "1 / 0, results"), SECOND
    )
    assert status == 2
    assert "drew" in output
    assert "1 of 1 verdicts are the expected ones" in output
    assert [line.split(" ")[1:3] for line in errors.splitlines() if line.startswith("lab: ")] == [
        ["the", "figure"],
        ["own/A", "cannot"],
    ]
    status, output, errors = task_file.run(
        HEAD,
        MEASUREMENT,
        CLAIM.replace("results[means]", "1 / 0, results"),
        SECOND,
        command="check",
        options=("--json",),
    )
    assert [record["id"] for record in json.loads(output)] == ["own/B"]
    assert (status, "own/A cannot be judged" in errors) == (2, True)


def test_debug_shows_where_an_error_comes_from(task_file: Own) -> None:
    broken = MEASUREMENT.replace("float(seed)", "1 / 0")
    assert "Traceback" not in task_file.run(HEAD, broken)[2]
    errors = task_file.run(HEAD, broken, options=("--debug",))[2]
    assert "Traceback" in errors
    assert '    return {"mean": 1 / 0}' in errors


def test_what_a_file_prints_is_no_verdict(task_file: Own) -> None:
    prints = MEASUREMENT.replace("    return", "    print('hello')\n    return")
    claim = CLAIM.replace("    return", "    print('again')\n    return")
    _, output, errors = task_file.run(HEAD, prints, claim, command="check", options=("--json",))
    assert [record["id"] for record in json.loads(output)] == ["own/A"]
    assert "hello" in errors
    assert "again" in errors


@pytest.mark.parametrize("end", ["os._exit(0)", "sys.exit(0)"])
@pytest.mark.parametrize("place", ["measurement", "claim", "file"])
def test_a_file_cannot_end_the_command(task_file: Own, end: str, place: str) -> None:
    inside = f"    import os, sys\n    {end}\n    return"
    measurement = MEASUREMENT.replace("    return", inside) if place == "measurement" else MEASUREMENT
    claim = CLAIM.replace("    return", inside) if place == "claim" else CLAIM
    status, _, errors = task_file.run(HEAD, measurement, claim, f"import os, sys\n{end}\n" if place == "file" else "")
    assert (status, "exit" in errors.lower()) == (2, True)


@pytest.mark.parametrize("place", ["measurement", "claim", "file"])
def test_what_is_raised_may_be_no_exception(task_file: Own, place: str) -> None:
    inside = "    raise GeneratorExit\n    return"
    measurement = MEASUREMENT.replace("    return", inside) if place == "measurement" else MEASUREMENT
    claim = CLAIM.replace("    return", inside) if place == "claim" else CLAIM
    status, _, errors = task_file.run(HEAD, measurement, claim, "raise GeneratorExit\n" if place == "file" else "")
    assert (status, "GeneratorExit" in errors, "Traceback" in errors) == (2, True, False)


def test_one_sample_of_several_seeds_is_a_mistake(task_file: Own) -> None:
    claim = CLAIM.replace("return Evidence", "return Evidence.over_seeds([1.0], '<=', 2.0, 'b') or Evidence")
    status, _, errors = task_file.run(HEAD, MEASUREMENT, claim)
    assert (status, "own/A: its evidence rests on one sample, although" in errors) == (2, True)
    assert task_file.run(HEAD, MEASUREMENT, claim, options=("--seeds", "1"))[0] == 0


def test_numbers_in_another_order_of_bytes_are_kept(task_file: Own) -> None:
    big = MEASUREMENT.replace("float(seed)", 'np.array([1.5, 2.5], ">f8")')
    for _ in range(2):
        status, _, errors = task_file.run(HEAD, big, CLAIM)
        assert (status, "cannot be used" in errors) == (0, False)


def test_markup_in_words_is_no_markup(task_file: Own) -> None:
    words = [HEAD.replace('"T"', '"[/red]"'), MEASUREMENT, CLAIM.replace('"w"', '"[/red]"').replace('"c"', '"[/b]"')]
    assert task_file.run(*words)[0] == 0


def test_errors_that_cannot_be_sent_between_processes_are_told(task_file: Own) -> None:
    odd = MEASUREMENT.replace(
        "    return",
        "    class Odd(Exception):\n        def __init__(self, one, two): self.it = lambda: 1\n    raise Odd(1, 2)\n    return",
    )
    task_file.run(HEAD, odd)
    task = load(task_file.folder / "own.py")
    job = Results(task, task.config("ci"), Session(task_file.folder)).jobs([task.measurements["means"]])[0]
    with pytest.raises(Failed, match=r"own.py, line 15, Odd: \(1, 2\)"):
        execute(job, None, None, None)


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclass(frozen=True)
class Inner:
    width: int = 1


@dataclass(frozen=True)
class Other:
    depth: int = 1


@dataclass(frozen=True)
class Every:
    path: Path = Path("a/b")
    colour: Colour = Colour.BLUE
    maybe: Inner | None = Inner(3)
    none: Inner | None = None
    either: Inner | Other = Other(2)
    named: dict[str, Inner] = field(default_factory=lambda: {"k": Inner(2)})
    counted: dict[int, float] = field(default_factory=lambda: {1: 2.0})
    listed: list[int] = field(default_factory=lambda: [1, 2])
    pair: tuple[int, Path] = (1, Path("c"))
    many: tuple[Inner, ...] = (Inner(5),)
    unknown: float = math.nan
    number: int = np.int64(3)  # type: ignore[assignment]
    whole_or_path: int | Path = Path("d")


def test_configurations_survive_the_journey_to_a_worker() -> None:
    arrived = config_from_dict(Every, json.loads(json.dumps(plain(Every()))))
    assert repr(arrived).replace("number=3", f"number={np.int64(3)!r}") == repr(Every())
    check_config(Every())


@dataclass(frozen=True)
class Holds:
    value: Any


@pytest.mark.parametrize("value", [{1}, 1j, b"x", len, np.zeros(2), Inner(), [1], {1: 2}, Path("x"), Colour.RED])
def test_fields_that_would_not_survive_are_refused_where_they_are_declared(value: object) -> None:
    """Some have no plain form, and of others the annotation does not say what they are."""
    with pytest.raises(LabError, match="the field 'value' of Holds holds"):
        check_config(Holds(value))


GENERATOR = """
import torch
from lab.contracts import generator, regression_predictor
@dataclass(frozen=True)
class Prompts:
    x: torch.Tensor
@generator(dimension=2)
def prompts(source, batch, dimension):
    return Prompts(torch.from_numpy(source.rng().normal(size=(batch, dimension))))
"""


@pytest.mark.parametrize("command", ["run", "check"])
@pytest.mark.parametrize(
    ("right", "wrong", "sentence"),
    [
        ("source.rng()", "np.random", "prompts does not keep its contract (the same stream gives the same batch)"),
        ("(batch, dimension)", "(dimension, batch)", "prompts does not keep its contract ("),
        ("source.rng().normal", "source.normal", "AttributeError: 'RandomStream' object has no attribute 'normal'"),
    ],
)
def test_what_a_file_registers_is_checked_before_anything_is_measured(
    task_file: Own, command: str, right: str, wrong: str, sentence: str
) -> None:
    status, _, errors = task_file.run(HEAD, GENERATOR.replace(right, wrong), MEASUREMENT, CLAIM, command=command)
    assert (status, sentence in errors) == (2, True)
    assert not (task_file.folder / "results").exists()


def test_what_a_file_registers_may_be_right(task_file: Own) -> None:
    assert task_file.run(HEAD, GENERATOR, MEASUREMENT, CLAIM)[0] == 0


def test_a_file_may_import_what_lies_beside_it(task_file: Own) -> None:
    (task_file.folder / "helper_of_own.py").write_text("answer = 42.0\n", encoding="utf-8")
    text = MEASUREMENT.replace("float(seed)", "answer"), CLAIM.replace("<=", ">=")
    assert task_file.run(HEAD, "from helper_of_own import answer\n", *text)[0] == 1  # its control is not rejected


def test_a_configuration_that_refuses_is_told_with_its_line(task_file: Own) -> None:
    checked = HEAD.replace(
        "    size: int = 2",
        "    size: int = 2\n    def __post_init__(self):\n        if self.size > 5: raise ValueError('too large')",
    )
    assert task_file.run(checked, MEASUREMENT, CLAIM)[0] == 0
    status, _, errors = task_file.run(checked, MEASUREMENT, CLAIM, options=("--size", "9"))
    assert status == 2
    assert errors == "lab: these options make no configuration: own.py, line 10, ValueError: too large\n"
