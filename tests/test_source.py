"""What a stored number depends on: an edit that can change it changes the fingerprint or is refused, any other does not."""

from __future__ import annotations

import importlib
import itertools
import sys
from pathlib import Path

import pytest

from lab import LabError, source
from lab.catalogue import discover, load
from lab.source import reachable

HEAD = """
from __future__ import annotations
from dataclasses import dataclass
from lab import Paper, Task
@dataclass(frozen=True)
class Config:
    n: int = 2
    "how many"
TASK = Task("x", Paper("T", "A", 2024), {preset: Config() for preset in ("smoke", "ci", "paper")})
"""
MEASURE = """
@TASK.measurement(seeds=lambda config: 5)
def measure(config, seed):
    "What it measures."
    return {"x": RESULT}
"""
numbers = itertools.count()


def hashed(folder: Path, body: str, result: str, helper: str = "", monkeypatch=None) -> str:
    """Fingerprint of a measurement that returns ``result``, in a file of its own beside a module called HELPER."""
    number = next(numbers)
    place = folder / f"place{number}"
    place.mkdir()
    name = "helper_of_a_user"
    (place / f"{name}.py").write_text(helper, encoding="utf-8")
    file = place / f"task{number}.py"
    text = HEAD + body + MEASURE.replace("RESULT", result)
    file.write_text(text.replace("HELPER", name), encoding="utf-8")
    monkeypatch.syspath_prepend(str(place))
    sys.modules.pop(name, None)
    importlib.invalidate_caches()
    source.forget()
    return load(file).measurements["measure"].fingerprint


# what is edited: (body, what is returned, before, after); the edit changes what is returned
CODE = {
    "constant": ("A = 2.0", "A", "2.0", "3.0"),
    "constant behind a table": ("A = 2.0\nT = {'a': A}", "T['a']", "A = 2.0", "A = 3.0"),
    "second assignment": ("A = 2.0\nA += 1", "A", "A = 2.0", "A = 3.0"),
    "assignment from itself": ("A = 2.0\nA = A + 1", "A", "A = 2.0", "A = 3.0"),
    "default bound before a change": ("A = 2.0\ndef f(k=A):\n    return k\nA = 7.0", "f()", "A = 2.0", "A = 3.0"),
    "item of a table": ("T = {}\nT['a'] = 2.0", "T['a']", "2.0", "3.0"),
    "append": ("L = []\nL.append(2.0)", "L[0]", "2.0", "3.0"),
    "loop that fills a table": ("T = {}\nfor k in range(3):\n    T[k] = 2.0 * k", "T[1]", "2.0", "3.0"),
    "walrus": ("(A := 2.0)", "A", "2.0", "3.0"),
    "with": ("from contextlib import nullcontext\nwith nullcontext(2.0) as A:\n    pass", "A", "2.0", "3.0"),
    "attribute of a class": ("class K:\n    a = 2.0", "K.a", "2.0", "3.0"),
    "attribute set later": ("class K:\n    a = 1.0\nK.a = 2.0", "K.a", "2.0", "3.0"),
    "setattr": ("class K:\n    a = 1.0\nsetattr(K, 'a', 2.0)", "K.a", "2.0", "3.0"),
    "inherited method": (
        "class B:\n    def f(self):\n        return 2.0\nclass K(B):\n    pass",
        "K().f()",
        "2.0",
        "3.0",
    ),
    "def under if": ("if True:\n    def f():\n        return 2.0", "f()", "2.0", "3.0"),
    "def under except": (
        "try:\n    import no_such\nexcept ImportError:\n    def f():\n        return 2.0",
        "f()",
        "2.0",
        "3.0",
    ),
    "class under if": ("if True:\n    class K:\n        a = 2.0", "K.a", "2.0", "3.0"),
    "decorator's body": ("def d(f):\n    return lambda: 2.0 * f()\n@d\ndef f():\n    return 1", "f()", "2.0", "3.0"),
    "decorator's argument": (
        "def d(k):\n    return lambda f: lambda: k\n@d(2.0)\ndef f():\n    return 1",
        "f()",
        "2.0",
        "3.0",
    ),
    "registry": ("R = {}\ndef d(f):\n    R['f'] = f\n@d\ndef rule():\n    return 2.0", "R['f']()", "2.0", "3.0"),
    "call with an effect": ("A = [1.0]\ndef init():\n    A[0] = 2.0\ninit()", "A[0]", "2.0", "3.0"),
    "order of calls": (
        "L = []\ndef a():\n    L.append(1.0)\ndef b():\n    L.append(2.0)\na()\nb()",
        "L[0]",
        "\na()\nb()",
        "\nb()\na()",
    ),
    "global dtype": ("import torch\ntorch.set_default_dtype(torch.float32)", "1.0", "float32", "float64"),
    "a figure that another decorator keeps": (
        "R = {}\ndef keep(f):\n    R['f'] = f\n    return f\n@TASK.figure\n@keep\ndef rule(results=None):\n    return 2.0",
        "R['f']()",
        "2.0",
        "3.0",
    ),
    "what a script does not do": ("A = [1.0]\nif __name__ != '__main__':\n    A[0] = 2.0", "A[0]", "2.0", "3.0"),
    "what a type checker does not see": (
        "from typing import TYPE_CHECKING\nif not TYPE_CHECKING:\n    A = 2.0",
        "A",
        "2.0",
        "3.0",
    ),
    "beside what a script does": ("if __name__ == '__main__':\n    A = 1.0\nelse:\n    A = 2.0", "A", "2.0", "3.0"),
    "an earlier draw": (
        "import numpy as np\nr = np.random.default_rng(0)\nx = r.normal(size=5)\nA = r.normal()",
        "A",
        "size=5",
        "size=6",
    ),
    "an earlier item": ("i = iter([1.0, 2.0, 3.0])\na = next(i)\nb = next(i)", "b", "a = next(i)", "a = 1.0"),
    "setdefault": ("T = {}\nfirst = T.setdefault('a', 2.0)", "T['a']", "2.0", "3.0"),
    "pop": ("L = [1.0, 2.0, 4.0]\nlast = L.pop()", "L[-1]", "L.pop()", "L.pop(0)"),
    "a name for an effect": ("L = []\n_ = L.append(2.0)", "L[0]", "2.0", "3.0"),
    "an annotated effect": ("L = [1.0]\nx: None = L.append(2.0)", "L[-1]", "2.0", "3.0"),
    "a comprehension that fills": ("T = {}\n_ = [T.update({k: 2.0 * k}) for k in range(3)]", "T[1]", "2.0", "3.0"),
    "a global seed": ("import numpy as np\n_ = np.random.seed(2)", "np.random.normal()", "seed(2)", "seed(3)"),
    "a global set by a function": ("A = 1.0\ndef f():\n    global A\n    A = 2.0\nB = f()", "A", "A = 2.0", "A = 3.0"),
    "classes that enrol themselves": (
        "class B:\n    R = {}\n    def __init_subclass__(cls):\n        B.R[cls.__name__] = cls\nclass K(B):\n    v = 2.0",
        "B.R['K'].v",
        "2.0",
        "3.0",
    ),
    "a metaclass that enrols": (
        "class M(type):\n    R = []\n    def __init__(c, n, b, d):\n        M.R.append(c)\nclass K(metaclass=M):\n    v = 2.0",
        "M.R[-1].v",
        "2.0",
        "3.0",
    ),
    "a class body with an effect": ("L = []\nclass K:\n    L.append(2.0)", "L[0]", "2.0", "3.0"),
    "a default with an effect": ("L = []\ndef f(k=L.append(2.0)):\n    pass", "L[0]", "2.0", "3.0"),
    "a decorator called like a harmless one": (
        "R = {}\ndef cache(f):\n    R['f'] = f\n@cache\ndef rule():\n    return 2.0",
        "R['f']()",
        "2.0",
        "3.0",
    ),
    "a claim that draws": (
        "import numpy as np\nfrom lab import control\nr = np.random.default_rng(0)\n"
        "@TASK.claim('x/A1', where='derived', kind='identity', statement='S.', "
        "controls=[control('c', b=float(r.normal(size=5)[0]))])\ndef c(results, b=1.0):\n    return None\nA = r.normal()",
        "A",
        "size=5",
        "size=6",
    ),
    "seeds of another measurement": (
        "@TASK.measurement(seeds=lambda config: 2)\ndef other(config, seed):\n    return {'x': 1.0}",
        "float(other.seeds(config))",
        "config: 2",
        "config: 3",
    ),
    "cases of another measurement": (
        "@TASK.cases(a={'s': 2.0})\ndef other(config, s=1.0):\n    return {'x': s}",
        "other.cases['a']['s']",
        "2.0",
        "3.0",
    ),
    "how annotations are read": (
        "",
        "float(isinstance(type(config).__annotations__['n'], str))",
        "from __future__ import annotations",
        "",
    ),
    "a list changed under another name": ("L = [1.0]\nM = L\nM += [2.0]", "L[1]", "2.0", "3.0"),
    "a name given inside another value": ("B = (A := 2.0)", "A", "2.0", "3.0"),
    "property of the sizes": ("", "config.k()", 'many"', 'many"\n    def k(self):\n        return 1'),
    "nested function": ("", "(lambda: 2.0)()", "2.0", "3.0"),
}
# the module beside the file is edited: (body, what is returned, module before, module after)
MODULE = {
    "imported name": ("from HELPER import A", "A", "A = 2.0", "A = 3.0"),
    "imported under another name": ("import HELPER as k", "k.A", "A = 2.0", "A = 3.0"),
    "star": ("from HELPER import *", "A", "A = 2.0", "A = 3.0"),
    "import in a helper": ("def f():\n    import HELPER\n    return HELPER.A", "f()", "A = 2.0", "A = 3.0"),
    "import from in a helper": ("def f():\n    from HELPER import A\n    return A", "f()", "A = 2.0", "A = 3.0"),
    "import under if": ("if True:\n    from HELPER import A", "A", "A = 2.0", "A = 3.0"),
    "import under try": ("try:\n    from HELPER import A\nexcept ImportError:\n    A = 0", "A", "A = 2.0", "A = 3.0"),
    "parts": ("from HELPER import PARTS", "PARTS[0]", "PARTS = (2.0,)", "PARTS = (3.0,)"),
    "import for its effect": (
        "import math\nimport HELPER",
        "math.tau",
        "import math\nmath.tau = 2.0",
        "import math\nmath.tau = 3.0",
    ),
    "import for no name": (
        "import math\nfrom HELPER import A",
        "math.tau",
        "A = 1.0",
        "import math\nA = math.tau = 3.0",
    ),
    "patched module": ("import HELPER\nHELPER.A = HELPER.B", "HELPER.A", "A = B = 2.0", "A = B = 3.0"),
}
# the edit changes nothing that is measured
PROSE = {
    "comment": ("A = 2.0", "A", "A = 2.0", "A = 2.0  # two"),
    "docstring": ("def f():\n    'Two.'\n    return 2.0", "f()", "'Two.'", "'Three.'"),
    "docstring of the measurement": ("", "1.0", "What it measures", "What is measured"),
    "help text": ("", "config.n", "how many", "how many of them"),
    "format": ("A = 2.0", "A + 1", "A + 1", "(\n        A + 1)"),
    "number of seeds": ("", "1.0", "config: 5", "config: 6"),
    "title of the paper": ("", "1.0", 'Paper("T"', 'Paper("U"'),
    "another name imported": ("from HELPER import A", "A", "import A", "import A, B"),
    "order of imports": (
        "import math\nimport cmath",
        "math.pi",
        "import math\nimport cmath",
        "import cmath\nimport math",
    ),
    "figure": ("@TASK.figure\ndef picture(results):\n    return 1", "1.0", "return 1", "return 2"),
    "constant of nothing measured": ("B = 1.0", "2.0", "B = 1.0", "B = 9.0"),
    "table of nothing measured": ("B = dict(a=sum([1.0]))", "2.0", "1.0", "9.0"),
    "class of nothing measured": (
        "from typing import NamedTuple\nclass P(NamedTuple):\n    n: int = 1\n    @property\n    def k(self):\n        return 1",
        "2.0",
        "return 1",
        "return 9",
    ),
    "a preset in a variable": (
        "PRESETS = {'smoke': Config(), 'paper': Config(n=5)}\nBASE = Config(n=3)",
        "2.0",
        "n=5",
        "n=6",
    ),
    "body of a claim whose control is computed": (
        "from lab import control\ndef law(n):\n    return 2.0 * n\n"
        "@TASK.claim('x/A1', where='derived', kind='identity', statement='S.', controls=[control('c', b=law(2))])\n"
        "def c(results, b=law(1)):\n    'What it says.'\n    return results[measure].mean() > 3",
        "2.0",
        "mean() > 3",
        "mean() > 4",
    ),
    "what a script does": ("if __name__ == '__main__':\n    print(1)", "2.0", "print(1)", "print(9)"),
    "a local name of a figure": (
        "@TASK.figure\ndef part(results):\n    return 1",
        "[part for part in (1,)][0]",
        "return 1",
        "return 2",
    ),
}
REFUSED = {
    "code from text": ("", "eval('1')", "uses eval"),
    "globals": ("A = 2.0", "globals()['A']", "uses globals"),
    "module by name": ("import importlib", "importlib.import_module('math').pi", "uses import_module"),
    "docstring as data": ("def f():\n    '2.0'", "float(f.__doc__)", "uses __doc__"),
    "text file": ("from pathlib import Path", "float(Path('a.txt').read_text())", "uses read_text.*a data file"),
    "array file": ("import numpy as np", "np.load('a.npy')", "uses load.*a data file"),
    "weights": ("from safetensors.numpy import load_file as read", "read('a')", "uses load_file.*a data file"),
    "weights one by one": ("import safetensors", "safetensors.safe_open('a', 'np')", "uses safe_open.*a data file"),
    "a line of a file": ("import linecache", "float(linecache.getline('a', 1))", "uses getline.*a data file"),
    "another command": ("import subprocess", "subprocess.check_output(['cat', 'a'])", "uses subprocess.*a data file"),
    "load by another name": ("from numpy import load as fetch", "fetch('a.npy')", "uses load.*a data file"),
    "open by another name": ("read = open", "float(read('a').read())", "uses open.*a data file"),
    "a stored network": (
        "from lab.models.checkpoint import load_model",
        "load_model('a')",
        "uses load_model.*a data file",
    ),
    "code from text by its module": ("import builtins", "builtins.eval('1')", "uses builtins"),
    "its own text": ("", "float(__doc__)", "uses __doc__"),
    "its own names": ("A = 2.0", "vars()['A']", "uses vars"),
    "its own module": ("import sys\nA = 2.0", "sys.modules[__name__].A", "uses sys.modules"),
    "names of a function": ("A = 2.0\ndef f():\n    pass", "f.__globals__['A']", "uses __globals__"),
    "whatever inherits": ("class K:\n    pass", "len(K.__subclasses__())", "uses __subclasses__"),
    "another file as a script": ("import runpy", "runpy.run_path('a.py')['A']", "uses runpy"),
    "a docstring by a function": ("import inspect\ndef f():\n    '2.0'", "float(inspect.getdoc(f))", "uses getdoc"),
    "a module that is nowhere": (
        "def f():\n    import no_such_module\n    return 1.0",
        "f()",
        "imports no_such_module",
    ),
    "the environment": ("import os", "float(os.environ['A'])", "uses environ"),
    "lines of files": ("import fileinput", "float(next(fileinput.input('a.txt')))", "uses fileinput.*a data file"),
    "settings in a file": ("import configparser", "configparser.ConfigParser()", "uses configparser.*a data file"),
    "bytes of a file": ("import io", "float(io.FileIO('a.txt').read())", "uses FileIO.*a data file"),
    "the size of a file": ("from pathlib import Path", "Path('a').stat().st_size", "uses st_size.*a data file"),
    "its own task": ("", "TASK.paper.year", "uses TASK itself"),
}
MADE = {
    "a factory": "def make():\n    @TASK.measurement()\n    def measure(config, seed):\n        return {}\n"
    "    return measure\nmeasure = make()",
    "a lambda": "measure = TASK.measurement()(lambda config, seed: {})",
    "an if": "if True:\n    @TASK.measurement()\n    def measure(config, seed):\n        return {}",
    "an import": "from HELPER import f\nmeasure = TASK.measurement()(f)",
    "a decorator": "def d(f):\n    def measure(config, seed):\n        return {}\n    return measure\n"
    "@TASK.measurement()\n@d\ndef measure(config, seed):\n    return {}",
}


@pytest.mark.parametrize("case", CODE)
def test_an_edit_of_the_file_that_changes_a_number_changes_the_fingerprint(case: str, tmp_path, monkeypatch) -> None:
    body, result, before, after = CODE[case]
    text = body + MEASURE.replace("RESULT", result)
    assert before in HEAD + text, case
    fingerprint = hashed(tmp_path, body, result, monkeypatch=monkeypatch)
    if before in body:
        edited = hashed(tmp_path, body.replace(before, after), result, monkeypatch=monkeypatch)
    elif before in result:
        edited = hashed(tmp_path, body, result.replace(before, after), monkeypatch=monkeypatch)
    else:
        monkeypatch.setattr(sys.modules[__name__], "HEAD", HEAD.replace(before, after))
        edited = hashed(tmp_path, body, result, monkeypatch=monkeypatch)
    assert fingerprint != edited


@pytest.mark.parametrize("case", MODULE)
def test_an_edit_of_a_module_of_the_user_changes_the_fingerprint(case: str, tmp_path, monkeypatch) -> None:
    body, result, before, after = MODULE[case]
    fingerprints = [hashed(tmp_path, body, result, helper, monkeypatch) for helper in (before, after)]
    assert fingerprints[0] != fingerprints[1]
    assert hashed(tmp_path, body, result, f'"""Text."""\n{before}  # words', monkeypatch) == fingerprints[0]


@pytest.mark.parametrize("case", PROSE)
def test_an_edit_of_words_changes_nothing(case: str, tmp_path, monkeypatch) -> None:
    body, result, before, after = PROSE[case]
    texts = {"HEAD": HEAD, "MEASURE": MEASURE, "body": body, "result": result}
    (place,) = [name for name, text in texts.items() if before in text][:1]
    kept = hashed(tmp_path, body, result, "A = B = 2.0", monkeypatch)
    for name in ("HEAD", "MEASURE"):
        if name == place:
            monkeypatch.setattr(sys.modules[__name__], name, texts[name].replace(before, after))
    texts = {name: text.replace(before, after) if name == place else text for name, text in texts.items()}
    assert hashed(tmp_path, texts["body"], texts["result"], "A = B = 2.0", monkeypatch) == kept


# ordinary files: (body, what is returned, the module beside it)
ORDINARY = {
    "threads": ("import os\nos.environ['OMP_NUM_THREADS'] = '1'\nos.environ.setdefault('A', 'b')", "1.0", ""),
    "a log": ("import logging, os\nlogging.basicConfig(level=os.environ.get('LEVEL', 'INFO'))", "1.0", ""),
    "fields of the sizes": ("def f(n):\n    return n", "f(**vars(config))", ""),
    "names in a function": ("", "(lambda: len(locals()))()", ""),
    "memory": ("import gc", "gc.collect()", ""),
    "a signature": ("import inspect", "len(inspect.signature(len).parameters)", ""),
    "a version": ("from importlib.metadata import version", "len(version('numpy'))", ""),
    "one of two modules": (
        "import sys\nif sys.version_info >= (3, 11):\n    import tomllib\nelse:\n    import no_such as tomllib",
        "len(tomllib.__name__)",
        "",
    ),
    "a module that may be absent": (
        "def f():\n    try:\n        import no_such_module\n    except ImportError:\n        return 1.0",
        "f()",
        "",
    ),
    "pictures of a module beside it": (
        "from HELPER import save",
        "1.0",
        "def save(name):\n    with open(name, 'w') as file:\n        file.write('x')",
    ),
    "a module that is a script too": (
        "from HELPER import A",
        "A",
        "A = 2.0\nif __name__ == '__main__':\n    print(open('a').read(), __doc__)",
    ),
    "a module that tracks": ("from HELPER import A", "A", "A = 2.0\ndef track():\n    import no_such_module"),
    "a figure registered by a call": ("def draw(results):\n    return None\nfig = TASK.figure(draw)", "1.0", ""),
    "sizes of a preset": ("CI = TASK.config('ci')\nBOUND = float(TASK.presets['ci'].n)", "1.0", ""),
}


@pytest.mark.parametrize("case", ORDINARY)
def test_ordinary_files_are_measured(case: str, tmp_path, monkeypatch) -> None:
    body, result, helper = ORDINARY[case]
    assert hashed(tmp_path, body, result, helper, monkeypatch)


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_followed_is_refused(case: str, tmp_path, monkeypatch) -> None:
    body, result, sentence = REFUSED[case]
    with pytest.raises(LabError, match=sentence):
        hashed(tmp_path, body, result, monkeypatch=monkeypatch)


def beside(folder: Path, *tasks: str) -> tuple[Path, list[Path]]:
    """A module of one number F, and files of tasks that import it as MODULE."""
    module = folder / f"edited_helper{next(numbers)}.py"
    module.write_text("F = 2.0", encoding="utf-8")
    files = [folder / f"edited{next(numbers)}.py" for _ in tasks]
    for file, body in zip(files, tasks, strict=True):
        file.write_text(HEAD + body.replace("MODULE", module.stem), encoding="utf-8")
    return module, files


def test_a_module_that_was_edited_after_its_import_is_refused(tmp_path: Path) -> None:
    bodies = [MEASURE.replace("RESULT", "1.0"), "import MODULE\n" + MEASURE.replace("RESULT", "MODULE.F")]
    module, (first, second) = beside(tmp_path, *bodies)
    load(first)  # which makes what lies beside it importable
    importlib.import_module(module.stem)
    module.write_text("F = 3.0", encoding="utf-8")
    with pytest.raises(LabError, match=rf"{module.name} was edited after this process read it.*start again"):
        load(second)


def test_a_module_that_was_edited_before_its_import_is_refused(tmp_path: Path) -> None:
    body = MEASURE.replace("    return", "    import MODULE\n    return").replace("RESULT", "MODULE.F")
    module, (file,) = beside(tmp_path, body)
    task = load(file)
    module.write_text("F = 3.0", encoding="utf-8")
    with pytest.raises(LabError, match=rf"{module.name} was edited after this process read it"):
        task.measurements["measure"].measure(task.config("smoke"), (1,))


@pytest.mark.parametrize("way", MADE)
def test_a_measurement_without_a_def_of_its_own_is_refused(way: str, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "MEASURE", MADE[way])
    with pytest.raises(LabError, match="is not made by a def of its own"):
        hashed(tmp_path, "", "", "def f(config, seed):\n    return {}", monkeypatch)


def test_relative_imports_of_a_package_count(tmp_path, monkeypatch) -> None:
    fingerprints = []
    for value in ("2.0", "3.0"):
        folder = tmp_path / value / "package_of_a_user"
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("", encoding="utf-8")
        (folder / "inner.py").write_text("from .deep import A\n", encoding="utf-8")
        (folder / "deep.py").write_text(f"A = {value}\n", encoding="utf-8")
        monkeypatch.syspath_prepend(str(folder.parent))
        for name in [name for name in sys.modules if name.startswith("package_of_a_user")]:
            del sys.modules[name]
        fingerprints.append(hashed(tmp_path, "from package_of_a_user.inner import A", "A", monkeypatch=monkeypatch))
    assert fingerprints[0] != fingerprints[1]


def test_no_measurement_of_the_project_depends_on_storage_progress_or_pictures() -> None:
    for task in discover()[:12]:
        for measurement in task.measurements.values():
            names, _, modules = source._reach(source._survey(task.file), [measurement.name])
            closed = source._module_closure(modules)
            assert not closed & {"lab.execution", "lab.runs", "lab.progress", "lab.figures", "lab.figures.sheet"}
            assert not {figure for figure in task.figures} & names


def test_reachable_names(tmp_path: Path) -> None:
    file = tmp_path / "file.py"
    file.write_text(
        "A = 2.0\ndef helper(x):\n    return A * x\ndef measure(config):\n    return helper(1)\ndef figure(r):\n    return r[measure]\n",
        encoding="utf-8",
    )
    assert {"measure", "helper", "A"} <= reachable(file, "figure")
    assert "figure" not in reachable(file, "measure")


INNER = "@dataclass(frozen=True)\nclass Inner:\n    m: int = 1\n    def k(self):\n        return 2.0\n"


def test_classes_of_values_of_the_sizes_count(tmp_path, monkeypatch) -> None:
    quoted = HEAD.replace("@dataclass", INNER + "MADE = Inner()\n@dataclass").replace(
        "    n: int = 2", '    inner: "Inner" = MADE\n    n: int = 2'
    )
    fingerprints = set()
    for head in (quoted, quoted.replace("return 2.0", "return 3.0")):
        monkeypatch.setattr(sys.modules[__name__], "HEAD", head)
        fingerprints.add(hashed(tmp_path, "", "config.inner.k()", monkeypatch=monkeypatch))
    assert len(fingerprints) == 2


@pytest.mark.parametrize("way", ["import HELPER\nSizes = HELPER.Config", "from HELPER import Config as Sizes"])
def test_sizes_of_another_module_count(way: str, tmp_path, monkeypatch) -> None:
    begin, end = HEAD.index("@dataclass"), HEAD.index("TASK =")
    own = HEAD[:begin] + way + "\n" + HEAD[end:].replace("Config()", "Sizes()")
    monkeypatch.setattr(sys.modules[__name__], "HEAD", own)
    helper = "from dataclasses import dataclass\n" + INNER.replace("Inner", "Config")
    fingerprints = {
        hashed(tmp_path, "", "config.k()", text, monkeypatch) for text in (helper, helper.replace("2.0", "3.0"))
    }
    assert len(fingerprints) == 2
