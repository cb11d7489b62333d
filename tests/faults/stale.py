"""Edits of a task file and of the modules it imports: what changes a number changes what its results are kept under.

Every edit of the table is made once. Then come edits drawn at random: one of the table, or none, and with it words, formats,
pictures and imports that change nothing.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import torch

from lab import source
from lab.catalogue import load
from lab.errors import LabError
from tests import test_source
from tests.faults.counts import Counts, Tally

HELPER = "helper_of_a_user"
NEIGHBOUR = "neighbour_of_a_user"
Files = Mapping[str, str]
# What a file gives: its number and the fingerprint of what gives it; the sentence where it is refused.
Given = tuple[str, str]
Read = Callable[[Path], Given]


@dataclass(frozen=True)
class Edit:
    """Files before and after an edit, and whether it changes the number."""

    name: str
    before: Files
    after: Files
    changes: bool


def stale(trials: int, seed: int) -> Counts:
    """Make every edit of the table, and random ones until there are ``trials``."""
    return campaign(trials, seed, read)


def campaign(trials: int, seed: int, read_task: Read) -> Counts:
    """Make the edits, and read the task before and after each in a way of one's own."""
    tally = Tally("stale")
    rng = Random(seed)
    table = list(edits())
    chosen = [*table, *(_drawn(rng, table) for _ in range(trials - len(table)))]
    with TemporaryDirectory() as folder, _usual_numbers():
        for number, edit in enumerate(chosen):
            before, after = (
                _given(Path(folder, f"{number}-{time}"), files, read_task)
                for time, files in (("before", edit.before), ("after", edit.after))
            )
            _judge(edit, before, after, tally)
    return tally.counts


@contextmanager
def _usual_numbers() -> Iterator[None]:
    """Some of the files choose which numbers torch makes."""
    before = torch.get_default_dtype()
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _judge(edit: Edit, before: Given | str, after: Given | str, tally: Tally) -> None:
    refused = isinstance(before, str) or isinstance(after, str)
    tally.ended("refused" if refused else "changed" if before[1] != after[1] else "kept")
    if refused:
        if not edit.changes:
            tally.failed("needless changes", f"{edit.name}: refused ({before if isinstance(before, str) else after})")
    elif before[1] == after[1] and (edit.changes or before[0] != after[0]):
        tally.failed("wrong numbers", f"{edit.name}: {before[0]} is kept under {before[1]}, and {after[0]} too")
    elif before[1] != after[1] and not edit.changes:
        tally.failed("needless changes", f"{edit.name}: another fingerprint for the same code")


def _given(folder: Path, files: Files, read_task: Read) -> Given | str:
    """What the task of these files gives; a sentence where it is refused."""
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    forget()
    sys.path.insert(0, str(folder))
    try:
        return read_task(folder / "task.py")
    except LabError as error:
        return str(error)
    finally:
        while str(folder) in sys.path:
            sys.path.remove(str(folder))
        forget()


def read(file: Path) -> Given:
    """The number that the measurement of a file gives, and its fingerprint."""
    task = load(file)
    measurement = task.measurements["measure"]
    try:
        data = measurement.measure(task.config("ci"), (1,))
    except Exception as error:
        return f"no number: {error}", measurement.fingerprint
    return repr({name: value.tolist() for name, value in data.items()}), measurement.fingerprint


def forget() -> None:
    """Forget the modules of users, and what is remembered of their text."""
    for name in [name for name in sys.modules if "_of_a_user" in name]:
        del sys.modules[name]
    importlib.invalidate_caches()
    source.forget()


HEAD, MEASURE = test_source.HEAD, test_source.MEASURE


def _task(body: str, result: str, head: str = HEAD, measure: str = MEASURE) -> str:
    return (head + body + measure.replace("RESULT", result)).replace("HELPER", HELPER)


def edits() -> Iterator[Edit]:
    """The table: what the suite's own table holds, and helpers of helpers beside it."""
    for name, (body, result, old, new) in {**test_source.CODE, **test_source.PROSE}.items():
        helper = {f"{HELPER}.py": "A = B = 2.0\n"}
        texts = [HEAD, body, MEASURE, result]
        place = next(place for place in (1, 3, 0, 2) if old in texts[place])
        edited = [text.replace(old, new) if place == at else text for at, text in enumerate(texts)]
        before, after = (_task(body, result, head, measure) for head, body, measure, result in (texts, edited))
        changes = name in test_source.CODE
        yield Edit(name, {"task.py": before, **helper}, {"task.py": after, **helper}, changes)
    for name, (body, result, old, new) in test_source.MODULE.items():
        task = {"task.py": _task(body, result)}
        yield Edit(name, {**task, f"{HELPER}.py": old}, {**task, f"{HELPER}.py": new}, True)
        words = f'"""Text."""\n{old}  # words'
        yield Edit(f"{name}, words", {**task, f"{HELPER}.py": old}, {**task, f"{HELPER}.py": words}, False)
    for name, (body, result, beside) in BEHIND.items():
        files = {"task.py": _task(body, result), **beside}
        yield Edit(name, files, {file: text.replace("2.0", "3.0") for file, text in files.items()}, True)


PACKAGE = "package_of_a_user"
# (body, what is returned, files beside the task); in one of the files 2.0 becomes 3.0
BEHIND: dict[str, tuple[str, str, dict[str, str]]] = {
    "default of a helper": ("from HELPER import f", "f()", {f"{HELPER}.py": "def f(k=2.0):\n    return k\n"}),
    "star in a helper": (
        "from HELPER import f",
        "f()",
        {f"{HELPER}.py": f"from {NEIGHBOUR} import *\ndef f():\n    return A\n", f"{NEIGHBOUR}.py": "A = 2.0\n"},
    ),
    "import under try in a helper": (
        "from HELPER import A",
        "A",
        {
            f"{HELPER}.py": f"try:\n    from {NEIGHBOUR} import A\nexcept ImportError:\n    A = 0\n",
            f"{NEIGHBOUR}.py": "A = 2.0\n",
        },
    ),
    "import inside a function of a helper": (
        "from HELPER import f",
        "f()",
        {f"{HELPER}.py": f"def f():\n    from {NEIGHBOUR} import A\n    return A\n", f"{NEIGHBOUR}.py": "A = 2.0\n"},
    ),
    "inherited from a helper": (
        "from HELPER import Base\nclass Own(Base):\n    pass",
        "Own().f()",
        {f"{HELPER}.py": "class Base:\n    def f(self):\n        return 2.0\n"},
    ),
    "operator of a helper's class": (
        "from HELPER import Number",
        "Number() * 1",
        {f"{HELPER}.py": "class Number:\n    def __mul__(self, other):\n        return 2.0\n"},
    ),
    "attribute of a module by getattr": ("import HELPER", "getattr(HELPER, 'A' + 'B')", {f"{HELPER}.py": "AB = 2.0\n"}),
    "a package's own file": (
        f"import {PACKAGE}.inner",
        f"{PACKAGE}.A",
        {f"{PACKAGE}/__init__.py": "A = 2.0\n", f"{PACKAGE}/inner.py": ""},
    ),
    "passed on by a package": (
        f"from {PACKAGE} import A",
        "A",
        {f"{PACKAGE}/__init__.py": f"from {PACKAGE}.inner import A\n", f"{PACKAGE}/inner.py": "A = 2.0\n"},
    ),
    "relative import": (
        f"from {PACKAGE}.inner import A",
        "A",
        {
            f"{PACKAGE}/__init__.py": "",
            f"{PACKAGE}/inner.py": "from .deep import A\n",
            f"{PACKAGE}/deep.py": "A = 2.0\n",
        },
    ),
    "relative import of a module": (
        f"from {PACKAGE}.inner import f",
        "f()",
        {
            f"{PACKAGE}/__init__.py": "",
            f"{PACKAGE}/inner.py": "from . import deep\ndef f():\n    return deep.A\n",
            f"{PACKAGE}/deep.py": "A = 2.0\n",
        },
    ),
    "registered in a helper": (
        "from HELPER import RULES\nimport HELPER",
        "RULES['f']()",
        {
            f"{HELPER}.py": f"import {NEIGHBOUR}\nfrom {NEIGHBOUR} import RULES\n",
            f"{NEIGHBOUR}.py": "RULES = {'f': lambda: 2.0}\n",
        },
    ),
}


def _drawn(rng: Random, table: list[Edit]) -> Edit:
    """An edit of the table with harmless ones on top, or harmless ones alone."""
    edit = rng.choice(table)
    harmless = rng.sample(list(HARMLESS), rng.choice((1, 2, 3)))
    alone = rng.random() < 0.5
    after = dict(edit.before if alone else edit.after)
    for name in harmless:
        file = rng.choice([file for file in sorted(after) if file == "task.py" or name in FOR_HELPERS])
        after[file] = HARMLESS[name](after[file])
    about = f"{' + '.join(harmless)} on top of {'nothing in ' if alone else ''}{edit.name}"
    return Edit(about, edit.before, after, edit.changes and not alone)


def _other_help(text: str) -> str:
    return text.replace('"how many"', '"how many there are"')


HARMLESS: dict[str, Callable[[str], str]] = {
    "comments": lambda text: "".join(
        f"{line}  # a comment\n" if line[-1:] == ")" else f"{line}\n" for line in text.splitlines()
    ),
    "another format": lambda text: ast.unparse(ast.parse(text)) + "\n",
    "more lines": lambda text: "\n\n\n" + text + "\n\n\n",
    "help text": _other_help,
    "title": lambda text: text.replace('Paper("T"', 'Paper("Another title"'),
    "a picture": lambda text: text + "\n@TASK.figure\ndef of_nothing(results):\n    return 1\n",
    "an import": lambda text: text + "\nimport decimal\n",
    "a constant": lambda text: text + "\nOF_NOTHING = 1.0\n",
    "a helper of nothing": lambda text: text + "\ndef of_no_use():\n    return 1.0\n",
}
FOR_HELPERS = {"comments", "another format", "more lines"}
