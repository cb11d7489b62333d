"""Ways in which a task file can be wrong or odd.

What is expected of an edit: it is *fine*, it is *refused*, it is *told* by its line, or either is right (*odd*).
"""

from __future__ import annotations

from typing import NamedTuple

PARTS = {
    "head": """from __future__ import annotations
import os, sys, time, enum, typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Optional
import numpy as np
import torch
from lab import Evidence, Paper, Task, control
from lab.figures import Sheet
""",
    "config": """
@dataclass(frozen=True)
class Inner:
    width: int = 1
@dataclass(frozen=True)
class Other:
    depth: int = 1
class Colour(enum.Enum):
    RED = 1
    BLUE = 2
@dataclass(frozen=True)
class Config:
    size: int = 2
""",
    "task": """
TASK = Task("own", Paper("T", "A", 2024), {preset: Config() for preset in ("smoke", "ci", "paper")})
""",
    "measurement": """
@TASK.measurement(seeds=lambda config: 2)
def means(config: Config, seed: int):
    value = float(seed)
    return {"mean": value}
""",
    "figure": '''
@TASK.figure
def picture(results):
    """Caption."""
    sheet = Sheet()
    sheet.panel("title", x="x", y="y").scatter([0, 1], np.asarray(results[means]["mean"]).ravel()[:2], name="one")
    return sheet
''',
    "claim": """
@TASK.claim("own/A", where="w", kind="identity", statement="s", controls=[control("c", shift=1e9)])
def small(results, shift=0.0):
    value = float(np.asarray(results[means]["mean"]).max()) + shift
    return Evidence.exact(value, "<=", 1e6, "b")
""",
}


class Edit(NamedTuple):
    """Where ``old`` stands in a part, ``new`` stands after the edit; at its end where ``old`` is empty."""

    part: str
    old: str
    new: str
    expected: str


def _field(text: str, expected: str = "fine") -> Edit:
    return Edit("config", "", f"    {text}\n", expected)


def _returns(text: str, expected: str = "odd") -> Edit:
    return Edit("measurement", '{"mean": value}', text, expected)


def _does(text: str, expected: str = "fine") -> Edit:
    lines = "".join(f"    {line}\n" for line in text.splitlines())
    return Edit("measurement", "    value = float(seed)\n", f"{lines}    value = float(seed)\n", expected)


def _claim(old: str, new: str, expected: str = "refused") -> Edit:
    return Edit("claim", old, new, expected)


def _figure(old: str, new: str, expected: str = "refused") -> Edit:
    return Edit("figure", old, new, expected)


def _task(old: str, new: str, expected: str = "refused") -> Edit:
    return Edit("task", old, new, expected)


OPTIONS = ("seeds", "preset", "device", "workers", "results", "cluster", "fresh", "again")
FINE_NAMES = ("config", "options", "help", "json", "class_", "n_1")

EDITS: dict[str, Edit] = {
    "nothing": Edit("head", "", "", "fine"),
    "comment": Edit("head", "", "# \N{LATIN SMALL LETTER E WITH ACUTE}\n", "fine"),
    "prints at import": Edit("head", "", "print('hello')\n", "fine"),
    "warns at import": Edit("head", "", "import warnings; warnings.warn('w')\n", "fine"),
    "import of nothing": Edit("head", "", "import nothing_of_the_kind\n", "told"),
    "name that is not there": Edit("head", "", "np.nothing_of_the_kind\n", "told"),
    "raises at import": Edit("head", "", "raise ValueError('two\\nlines')\n", "told"),
    "exit at import": Edit("head", "", "sys.exit(0)\n", "told"),
    "end of the process at import": Edit("head", "", "os._exit(0)\n", "told"),
    "exit with words at import": Edit("head", "", "sys.exit('words')\n", "told"),
    "endless recursion at import": Edit("head", "", "def deep(): deep()\ndeep()\n", "told"),
    "syntax": Edit("head", "", "def (\n", "refused"),
    "indentation": Edit("head", "", "if 1:\n\tx = 1\n        y = 2\n", "refused"),
    "changes the folder": Edit("head", "", "os.chdir('/')\n", "odd"),
    "numpy raises": Edit("head", "", "np.seterr(all='raise')\n", "odd"),
    "wide numbers": Edit("head", "", "torch.set_default_dtype(torch.float64)\n", "fine"),
    # sizes
    **{f"field {name}": _field(f"{name}: int = 1", "refused") for name in OPTIONS},
    **{f"field {name}": _field(f"{name}: int = 1") for name in FINE_NAMES},
    "field Path": _field("a: Path = Path('x')"),
    "field Enum": _field("a: Colour = Colour.RED"),
    "field Literal": _field("a: Literal['a', 'b'] = 'a'"),
    "field dict": _field("a: dict[str, int] = field(default_factory=lambda: {'k': 1})"),
    "field dict of whole numbers": _field("a: dict[int, int] = field(default_factory=lambda: {1: 2})"),
    "field dict of dataclasses": _field("a: dict[str, Inner] = field(default_factory=lambda: {'k': Inner()})", "odd"),
    "field frozenset": _field("a: frozenset[int] = frozenset({1})", "refused"),
    "field list": _field("a: list[int] = field(default_factory=lambda: [1])"),
    "field Optional": _field("a: Optional[int] = None"),
    "field dataclass": _field("a: Inner = Inner()"),
    "field dataclass or none": _field("a: Inner | None = Inner()"),
    "field of two dataclasses": _field("a: Inner | Other = Other()"),
    "field tuple of dataclasses": _field("a: tuple[Inner, ...] = (Inner(),)"),
    "field tuple of tuples": _field("a: tuple[tuple[int, int], ...] = ((1, 2),)", "odd"),
    "field complex": _field("a: complex = 1j", "refused"),
    "field bytes": _field("a: bytes = b'x'", "refused"),
    "field nan": _field("a: float = float('nan')"),
    "field inf": _field("a: float = float('inf')"),
    "field of numpy": _field("a: int = np.int64(1)"),
    "field array": _field("a: Any = field(default_factory=lambda: np.zeros(2))", "refused"),
    "field function": _field("a: Any = len", "refused"),
    "field dtype": _field("a: Any = torch.float64", "refused"),
    "field of unknown type": _field("a: 'Nothing' = 3", "odd"),
    "field ClassVar": _field("a: typing.ClassVar[int] = 3"),
    "field init=False": _field("a: int = field(default=3, init=False)", "refused"),
    "sizes that refuse": _field("def __post_init__(self): raise ValueError('no')", "told"),
    "sizes not frozen": Edit("config", "(frozen=True)\nclass Config", "\nclass Config", "refused"),
    "sizes of a plain class": Edit("config", "@dataclass(frozen=True)\nclass Config", "class Config", "refused"),
    "sizes of a NamedTuple": Edit(
        "config", "@dataclass(frozen=True)\nclass Config:", "class Config(typing.NamedTuple):", "refused"
    ),
    "sizes of a dict": Edit("config", "@dataclass(frozen=True)\nclass Config:", "class Config(dict):", "refused"),
    # task
    "two tasks": _task("", 'SECOND = Task("two", Paper("T", "A", 2024))\n'),
    "task in a function": _task("TASK = Task(", "def make(*given): return Task(*given)\nTASK = make(", "odd"),
    "presets missing": _task('("smoke", "ci", "paper")', '("smoke", "ci")'),
    "presets of two types": _task("Config() for preset", "(Config() if preset == 'ci' else Inner()) for preset"),
    "presets of dicts": _task("Config()", "{'size': 2}"),
    "presets of nothing": _task("Config()", "None"),
    "paper of no key": _task('Paper("T", "A", 2024)', '"nothing-of-the-kind"'),
    "markup in the title": _task('"T"', '"[/red] [bold]"', "fine"),
    **{
        f"name {name[:9]!r}": _task('"own"', repr(name), "odd" if name == "own.er" else "refused")
        for name in ("", "..", "a/b", "a" * 300, "own.er", "causallm-icl")
    },
    # measurement
    **{
        f"returns {text}": _returns(text, "refused")
        for text in (
            "None",
            "[1.0]",
            "{}",
            "1.0",
            '{"mean": "abc"}',
            '{"mean": None}',
            '{"mean": [[1], [1, 2]]}',
            '{"mean": np.longdouble(1)}',
            '{"mean": np.array([None, 1], dtype=object)}',
            '{"mean": np.zeros(2, dtype=[("a", float)])}',
            '{"mean": np.datetime64("2024-01-01")}',
            '{"mean": (i for i in range(3))}',
            '{"mean": {1, 2}}',
            '{"mean": 10**30}',
            '{1: 1.0, "mean": 1.0}',
            '{"__metadata__": 1.0, "mean": 1.0}',
            '{"": 1.0, "mean": 1.0}',
            '{"a\\nb": 1.0, "mean": 1.0}',
            '{"\\ud800": 1.0, "mean": 1.0}',
            '{"mean": np.zeros(seed + 1)}',
            '{"mean": 1.0} if seed else {"other": 1.0}',
            '{"other": 1.0}',
        )
    },
    **{
        f"returns {text}": _returns(text)
        for text in (
            '{"mean": float("nan")}',
            '{"mean": float("inf")}',
            '{"mean": 1j}',
            '{"mean": np.zeros((0,))}',
            '{"mean": np.ma.masked_array([1.0, 2.0], [True, False])}',
            '{"mean": 1.0 if seed else 1}',
        )
    },
    **{
        f"returns {text}": _returns(text, "fine")
        for text in (
            '{"mean": np.array([1.5, 2.5], dtype=">f8")}',
            '{"mean": np.float16(1)}',
            '{"mean": torch.ones(2)}',
            '{"mean": torch.ones(2, requires_grad=True)}',
            '{"mean": torch.ones(2, dtype=torch.bfloat16)}',
            '{"mean": np.zeros((1000, 1000))[::2, ::2]}',
            '{"mean": np.broadcast_to(np.float64(1), (200, 200))}',
        )
    },
    "raises": _does("raise ValueError('two\\nlines [bold]')", "told"),
    "raises without words": _does("raise ValueError", "told"),
    "raises an error of its own": _does(
        "class Odd(Exception):\n    def __init__(self, one, two): self.it = lambda: 1\nraise Odd(1, 2)", "told"
    ),
    "raises StopIteration": _does("raise StopIteration", "told"),
    "raises GeneratorExit": _does("raise GeneratorExit", "told"),
    "raises KeyboardInterrupt": _does("raise KeyboardInterrupt", "odd"),
    "raises the error of the lab": _does("from lab import LabError\nraise LabError('own sentence')", "refused"),
    "endless recursion": _does("def deep(): return deep()\ndeep()", "told"),
    "no memory": _does("np.zeros(10**15)", "told"),
    "misspelt": _does("np.maen(seed)", "told"),
    "exit": _does("sys.exit(0)", "refused"),
    "end of the process": _does("os._exit(0)", "refused"),
    "exit with words": _does("sys.exit('words')", "refused"),
    "prints": _does("print('hello')"),
    "warns": _does("import warnings; warnings.warn('w')"),
    "logs": _does("import logging; logging.warning('hello %s', seed)"),
    "sets threads": _does("torch.set_num_threads(4)"),
    "sets wide numbers": _does("torch.set_default_dtype(torch.float64)"),
    "switches gradients off": _does("torch.set_grad_enabled(False)"),
    "leaves numpy raising": _does("np.seterr(all='raise')", "odd"),
    "goes elsewhere": _does("os.chdir('/')"),
    "begins a thread": _does("import threading; threading.Thread(target=time.sleep, args=(1,)).start()"),
    "changes its sizes": _does("config.size = 3", "told"),
    "kills itself": _does("import signal; os.kill(os.getpid(), signal.SIGTERM)", "odd"),
    "text as code": _does("eval('1')", "refused"),
    "reads a file": _does("open('data.txt', encoding='utf-8').read()", "refused"),
    "asks its task": _does("TASK.paper.year", "refused"),
    **{
        f"seeds {text}": Edit("measurement", "config: 2", f"config: {text}", "refused")
        for text in ("1 / 0", "0", "-1", "2.0", "None", "[1, 2]", "'2'", "10**9")
    },
    "seeds no function": Edit("measurement", "lambda config: 2", "2", "refused"),
    "seeds_per_job 0": Edit("measurement", "config: 2", "config: 2, ensemble=True, seeds_per_job=0", "refused"),
    "ensemble without its axis": Edit("measurement", "config: 2", "config: 2, ensemble=True", "refused"),
    "no arguments": Edit("measurement", "config: Config, seed: int", "", "refused"),
    "async": Edit("measurement", "def means", "async def means", "refused"),
    "a generator": Edit("measurement", "return", "yield", "refused"),
    "no parentheses": Edit("measurement", "(seeds=lambda config: 2)", "", "refused"),
    "two of one name": Edit(
        "measurement", "", "\n@TASK.measurement()\ndef means(config, seed): return {}\n", "refused"
    ),
    "a lambda": Edit("measurement", "", "more = TASK.measurement()(lambda config, seed: {'x': 1.0})\n", "refused"),
    "under if": Edit(
        "measurement", "", "if True:\n    @TASK.measurement()\n    def m(config, seed): return {'x': 1}\n", "refused"
    ),
    # figure
    "no figure": _figure("@TASK.figure\n", "", "fine"),
    "figure raises": _figure("sheet = Sheet()", "raise ValueError('x')", "told"),
    "figure raises deep inside": _figure("sheet = Sheet()", "sheet = Sheet(nothing=1)", "told"),
    "figure of nothing": _figure("return sheet", "return None"),
    "figure of matplotlib": _figure("return sheet", "return sheet.figure"),
    "figure without caption": _figure('    """Caption."""\n', "", "odd"),
    "figure of another array": _figure('["mean"]', '["maen"]'),
    "figure of NaN": _figure("[0, 1], ", "[float('nan')] * 2, ", "odd"),
    "figure of formulas": _figure('"title"', 'r"$\\frac{$"', "odd"),
    "figure with an end of the process": _figure("sheet = Sheet()", "os._exit(0)", "refused"),
    "figure with exit": _figure("sheet = Sheet()", "sys.exit(0)", "refused"),
    "figure twice": _figure("", "\n@TASK.figure\ndef picture(results): return Sheet()\n"),
    "figure without results": _figure("picture(results)", "picture()"),
    "figure asks by text": _figure("results[means]", "results['means']"),
    # claim
    "no claims": _claim('@TASK.claim("own/A", where="w", kind="identity", statement="s", ', "other = dict(", "odd"),
    "no controls": _claim('[control("c", shift=1e9)]', "[]"),
    "controls missing": _claim(', controls=[control("c", shift=1e9)]', ""),
    "control of an unknown name": _claim("shift=1e9", "shfit=1e9"),
    "control of nothing": _claim('control("c", shift=1e9)', 'control("c")'),
    "controls of text": _claim('[control("c", shift=1e9)]', "'abc'"),
    "control not rejected": _claim("shift=1e9", "shift=1.0", "odd"),
    "another task's": _claim("own/A", "other/A"),
    "twice": _claim(
        "", '\n@TASK.claim("own/A", where="w", kind="identity", statement="s", controls=[])\ndef c(results): pass\n'
    ),
    "kind of nothing": _claim('"identity"', '"miracle"'),
    "refuted without condition": _claim('statement="s"', 'statement="s", expected="refuted"'),
    "markup in words": _claim('statement="s"', 'statement="[bold]x[/red] | y"', "fine"),
    "markup in the control": _claim('"c"', '"[/red]"', "fine"),
    "markup in the place": _claim('"w"', '"[/red]"', "fine"),
    "markup in the bound": _claim('"b"', '"[/red]"', "fine"),
    "claim raises": _claim("    value =", "    raise ValueError('x')\n    value =", "told"),
    "claim out of range": _claim(".max()", "[99]", "told"),
    "claim with an end of the process": _claim("    value =", "    os._exit(0)\n    value =", "refused"),
    "claim with exit": _claim("    value =", "    sys.exit(0)\n    value =", "refused"),
    "claim of a truth": _claim("return Evidence", "return True or Evidence"),
    "claim of nothing": _claim("    return", "    return None\n    return"),
    "claim of NaN": _claim("1e6", "float('nan')"),
    "claim of one sample": _claim('exact(value, "<="', 'over_seeds([1.0], "<="'),
    "relation of nothing": _claim('"<="', '"=="'),
    "claim of a figure": _claim("results[means]", "results[picture]"),
    "claim of another array": _claim('["mean"]', '["maen"]'),
    "claim without results": _claim("results, shift=0.0", "shift=0.0", "refused"),
    "claim varies an unknown size": _claim("results[means]", "results.vary(sise=1)[means]"),
    "claim prints": _claim("    value =", "    print('hello')\n    value =", "fine"),
}

WHOLE = "".join(PARTS.values())
FILES: dict[str, tuple[bytes, str]] = {
    "empty file": (b"", "refused"),
    "words": (b"These are words.\n", "refused"),
    "NUL": (WHOLE.encode() + b"x = 1\x00\n", "refused"),
    "not UTF-8": (b"\xff\xfe\x00x", "refused"),
    "Latin-1": (b"# \xe9\n" + WHOLE.encode(), "refused"),
    "Latin-1, as it says": (b"# -*- coding: latin-1 -*-\n# \xe9\n" + WHOLE.encode(), "odd"),
    "byte order mark": (b"\xef\xbb\xbf" + WHOLE.encode(), "odd"),
    "line ends of Windows": (WHOLE.replace("\n", "\r\n").encode(), "fine"),
    "no task": (PARTS["head"].encode(), "refused"),
    "deleted task": (WHOLE.encode() + b"del TASK\n", "refused"),
    "deep brackets": (b"x = " + b"(" * 300 + b")" * 300 + b"\n", "refused"),
    "KeyboardInterrupt at import": (b"raise KeyboardInterrupt\n", "odd"),
    "only a task": ((PARTS["head"] + PARTS["config"] + PARTS["task"]).encode(), "odd"),
    "no measurement": ((PARTS["head"] + PARTS["config"] + PARTS["task"] + PARTS["figure"]).encode(), "refused"),
}
