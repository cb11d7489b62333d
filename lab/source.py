"""Which source a measurement depends on, as a hash.

Inside the file that defines a measurement the dependence is followed name by name, so that rewriting prose, a figure or
a claim does not make a finished training stale. Every other statement at the top level of the file counts, unless it is
plain that running it changes no number: a def, a plain class, a constant. What is imported from the project, or from a
module of the user's own (one that is not installed), counts as a whole, with what that module imports in turn.
Comments, docstrings and help texts do not count.

What cannot be followed is refused where a measurement reaches it: code made from text, modules that are imported by
text or cannot be found, namespaces taken as a whole, the environment, and data files. Files are known by the usual
names of what reads them, so that a reader of another name escapes, and ``np.load`` under another name, as does what is
reached through ``getattr`` with a name made at run time, and what an operator, an item or an iterator of the user's own
does beside its value.

The text of a module is that of its file, and a process goes on with what it imported when the file is edited. So a module
whose file was touched (edited, written alike, moved, given other rights) between its import and its hash is refused, in
whichever order they come; of modules imported before this one, what was touched since this one was.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import importlib.util
import inspect
import symtable
import sys
import sysconfig
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cache
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any, NamedTuple

from lab.errors import LabError

PROJECT_PACKAGES = ("lab", "tasks", "proofs_check")
# They carry messages, progress and places, never numbers.
INERT = frozenset(
    f"lab.{name}"
    for name in "errors context unfinished files labels configuration contracts checks evidence power claims papers tasks catalogue "
    "runs shipped execution progress results figures figures.looks figures.panel figures.sheet "
    "figures.summaries report coverage pages findings notebooks reproduction replication source options listing stored comparing sweeps "
    "citations".split()
)
# A decorator of another name may do anything, so that what it decorates counts whether it is used or not.
HARMLESS_DECORATORS = frozenset(
    "dataclass cache lru_cache cached_property wraps contextmanager total_ordering runtime_checkable property setter "
    "staticmethod classmethod abstractmethod overload override final no_grad inference_mode".split()
)
# What makes a value of values and does nothing else, so that a constant made by it alone counts where it is used only.
PURE = frozenset(
    "abs all any bool dict divmod enumerate float frozenset int len list max min partial range repr replace reversed round set "
    "sorted str sum tuple zip field fields control Paper Path namedtuple TypeVar NewType auto dedent cleandoc array arange "
    "linspace logspace geomspace eye ones zeros full tensor sqrt exp log log2 log10 sin cos tan tanh".split()
)
PURE_METHODS = frozenset(
    "join split splitlines format items keys values lower upper title strip lstrip rstrip removeprefix removesuffix".split()
)
MADE_FROM_TEXT = frozenset(
    "exec eval compile globals __import__ import_module __doc__ __builtins__ getdoc getsource currentframe getmembers "
    "spec_from_file_location".split()
)
# As attributes: `module.eval()` makes no code.
MADE_FROM_TEXT_BY = frozenset(
    "import_module __doc__ __globals__ __builtins__ __subclasses__ getdoc getsource currentframe getmembers get_objects "
    "get_referrers spec_from_file_location exec_module environ environb getenv".split()
)
MODULES_THAT_MAKE = frozenset("builtins runpy".split())
READS_FILES = frozenset(
    "loadtxt genfromtxt fromfile memmap loadmat imread read_text read_bytes read_csv read_json read_parquet read_table read_excel "
    "read_feather read_pickle open_dataset load_dataset load_file safe_open load_model load_released getline fromregex FileIO "
    "ZipFile st_size getsize".split()
)
READS_FILES_IF_CALLED = frozenset({"load", "open"})  # as attributes these may be anything
MODULES_THAT_READ = frozenset(
    "linecache shelve sqlite3 subprocess fileinput configparser mmap socket urllib requests http".split()
)

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def fingerprint(file: Path, function: Callable[..., Any], also: Iterable[str] = (), modules: Iterable[str] = ()) -> str:
    """Hash (16 hex digits) of the code that the top-level ``function`` of ``file`` can reach.

    Args:
        file: where it is defined.
        function: the function, as it was before it was registered.
        also: other top-level names of the file that it reaches in ways that its code does not show.
        modules: modules that it reaches in such ways, such as those of the classes of its configuration.

    Raises:
        LabError: it is not defined by a ``def`` of its own at the top level of the file, or uses what cannot be followed.
    """
    function = inspect.unwrap(function)
    name = function.__name__
    tree = _parse(file)
    definitions = [
        statement for statement in tree.body if isinstance(statement, ast.FunctionDef) and statement.name == name
    ]
    code = getattr(function, "__code__", None)
    # In a notebook the code is that of a cell, whose agreement with the file is checked where numbers are shown.
    cell = getattr(function, "__module__", "") == "__main__"
    if (
        not definitions
        or code is None
        or not (cell or _stands(definitions, file, Path(code.co_filename), code.co_firstlineno))
    ):
        raise LabError(
            f"the measurement {name!r} is not made by a def of its own at the top level of {file}, so what it depends on "
            "cannot be told; define it there with def, and pass what varies as sizes, seeds or cases"
        )
    return _fingerprint(file, name, tuple(also), tuple(modules))


def reachable(file: Path, name: str) -> frozenset[str]:
    """The top-level names of ``file`` that ``name`` uses, directly or through other names of the file."""
    return frozenset(_reach(_survey(file), [name])[0])


def code(file: Path, name: str) -> str:
    """The code of the top-level ``name`` of ``file`` and of all it uses there, without comments and docstrings."""
    return "\n".join(_reach(_survey(file), [name])[1])


def _stands(definitions: list[ast.FunctionDef], file: Path, of_code: Path, line: int) -> bool:
    """Whether code that begins at ``line`` of a file is one of ``definitions`` in ``file``."""
    return of_code.resolve() == file and any(
        min([definition.lineno, *(decorator.lineno for decorator in definition.decorator_list)])
        <= line
        <= (definition.end_lineno or line)
        for definition in definitions
    )


@cache
def _fingerprint(file: Path, name: str, also: tuple[str, ...], by_values: tuple[str, ...]) -> str:
    survey = _survey(file)
    whose = f"the measurement {name!r} of {file}"
    # What it reaches must be followed; what else acts in the file counts, and may prepare what numbers do not depend on.
    _, _, followed = _reach(survey, [name, *also], refuse=whose)
    _, texts, modules = _reach(survey, [name, *also, *survey.effects], refuse_files=whose)
    for module in _module_closure(followed):
        _check_module(module)
    digest = hashlib.sha256("\n".join(sorted(texts)).encode())
    for module in sorted(_module_closure(modules | {module for module in by_values if is_own_code(module)})):
        digest.update(module.encode())
        digest.update(_module_text(module))
    return digest.hexdigest()[:16]


@cache
def _parse(file: Path) -> ast.Module:
    """The tree of a file without docstrings and help texts, as the file is when it is first asked for."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [statement for statement in body if not _is_text(statement)] or [ast.Pass()]  # type: ignore[attr-defined]
    return tree


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


class _Own(NamedTuple):
    """What a user's file defines, for judging which of its statements act.

    Attributes:
        names: all that it or a module of the user's own defines.
        values: classes whose making and calling does nothing else, such as configurations.
        enrolling: classes that may note whatever inherits from them.
    """

    names: frozenset[str]
    values: frozenset[str]
    enrolling: frozenset[str]


class _Survey(NamedTuple):
    """The top level of a file: the statements that define each name, in order, and the names that count in any case."""

    definitions: dict[str, list[ast.stmt]]
    effects: list[str]
    tasks: set[str]
    package: str


@cache
def _survey(file: Path) -> _Survey:
    definitions: dict[str, list[ast.stmt]] = {}
    effects: list[str] = []
    body = _parse(file).body
    tasks = {
        target.id
        for statement in body
        for target in targets(statement)
        if isinstance(target, ast.Name) and makes_task(statement)
    }
    inside = _name_in_project(file)
    own = None if inside else _own(body, tasks)
    for statement in body:
        names, counts = defines(statement, tasks, own)
        if counts:  # it goes by a name that no other statement can have
            effects.append(f"statement {len(effects)}")
            definitions[effects[-1]] = [_effect(statement, tasks, own)]
        for name in names:
            definitions.setdefault(name, []).append(statement)
    return _Survey(
        {name: statements for name, statements in definitions.items() if name not in tasks}, effects, tasks, inside
    )


def _own(body: Sequence[ast.stmt], tasks: Collection[str]) -> _Own:
    """What the statements of a user's file define."""
    names = {
        name
        for statement in body
        if not isinstance(statement, ast.Import | ast.ImportFrom) or _of_a_user(statement)
        for name in defines(statement, tasks)[0]
    }
    imported = {
        name
        for statement in body
        if isinstance(statement, ast.Import | ast.ImportFrom) and _of_a_user(statement)
        for name in defines(statement, tasks)[0]
    }
    values, enrolling = set[str](), set(imported)
    for statement in body:
        if not isinstance(statement, ast.ClassDef):
            continue
        methods = {inner.name for inner in statement.body if isinstance(inner, ast.FunctionDef)}
        bases = {root_name(base) for base in statement.bases}
        if "__init_subclass__" in methods or "type" in bases or statement.keywords or bases & enrolling:
            enrolling.add(statement.name)
        elif not methods & {"__init__", "__new__", "__post_init__"} and bases & names <= values:
            values.add(statement.name)
    return _Own(frozenset(names), frozenset(values), frozenset(enrolling))


def defines(statement: ast.stmt, tasks: Collection[str], own: _Own | None = None) -> tuple[set[str], bool]:
    """The names that a top-level statement defines, and whether it counts though none of them may be used.

    Args:
        statement: of the top level of a file.
        tasks: names of tasks in the file, which register what is measured, drawn and claimed.
        own: what a user's file defines; None for a file of the project, whose constants, classes and defaults do nothing
            but make themselves.
    """
    if isinstance(statement, Definition):
        return {statement.name}, _acts_when_defined(statement, tasks, own)
    if isinstance(statement, ast.Import | ast.ImportFrom):
        star = any(alias.name == "*" for alias in statement.names)
        if isinstance(statement, ast.ImportFrom) and statement.module == "__future__" and own is not None:
            return set(), True  # how the file is read
        # A module of the user's own may change others when it is imported; what is the project's does not.
        return {(alias.asname or alias.name).split(".")[0] for alias in statement.names}, star or _of_a_user(statement)
    assigned = targets(statement)
    if assigned and all(isinstance(target, ast.Name) for target in assigned):
        value = getattr(statement, "value", None)
        walrus = {node.target.id for node in ast.walk(statement) if isinstance(node, ast.NamedExpr)}
        # To add to a list in place is to change it under all its names.
        in_place = isinstance(statement, ast.AugAssign) and own is not None
        acts = value is not None and not makes_task(statement) and (in_place or _may_act(value, own))
        return {target.id for target in assigned if isinstance(target, ast.Name)} | walrus, acts
    if isinstance(statement, ast.Expr) and last_name(statement.value) == "show" and root_name(statement.value) in tasks:
        return set(), any(_may_act(argument, own) for argument in getattr(statement.value, "args", []))
    if _never_runs(statement):
        return set(), False
    inside: set[str] = set()
    for node in ast.walk(statement):
        if isinstance(node, Definition):
            inside.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            inside |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            inside.add(node.id)
    return inside, not isinstance(statement, ast.Pass)


def _of_a_user(statement: ast.Import | ast.ImportFrom) -> bool:
    """Whether it imports a module of the user's own."""
    return any(module.split(".")[0] not in PROJECT_PACKAGES for module in _imported(statement))


def _never_runs(statement: ast.AST) -> bool:
    """Whether it is for type checkers or scripts only: under `TYPE_CHECKING` or `__name__ == "__main__"`, with no else."""
    return (
        isinstance(statement, ast.If)
        and not statement.orelse
        and ast.unparse(statement.test)
        in ("TYPE_CHECKING", "typing.TYPE_CHECKING", "__name__ == '__main__'", "'__main__' == __name__")
    )


def _effect(statement: ast.stmt, tasks: Collection[str], own: _Own | None) -> ast.stmt:
    """What of a statement acts: of a figure or claim the values that its registration is given, of others the whole."""
    if own is None or not isinstance(statement, ast.FunctionDef) or _decorated_to_act(statement, tasks, own):
        return statement
    if not any(root_name(decorator) in tasks for decorator in statement.decorator_list):
        return statement
    return ast.Expr(ast.Tuple([*_registered_with(statement, tasks), *_defaults(statement)], ast.Load()))


def _registered_with(statement: Definition, tasks: Collection[str]) -> list[ast.expr]:
    """The values that the registering decorators of a definition are given."""
    calls = [
        decorator
        for decorator in statement.decorator_list
        if isinstance(decorator, ast.Call) and root_name(decorator) in tasks
    ]
    return [value for call in calls for value in (*call.args, *(keyword.value for keyword in call.keywords))]


def _defaults(statement: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.expr]:
    return [*statement.args.defaults, *(value for value in statement.args.kw_defaults if value is not None)]


def _decorated_to_act(statement: Definition, tasks: Collection[str], own: _Own | None) -> bool:
    """Whether a decorator may do anything: one that registers nothing, and is not a known one of another's making."""
    return any(
        last_name(decorator) not in HARMLESS_DECORATORS or (own is not None and root_name(decorator) in own.names)
        for decorator in statement.decorator_list
        if root_name(decorator) not in tasks
    )


def _acts_when_defined(statement: Definition, tasks: Collection[str], own: _Own | None) -> bool:
    """Whether making a function or class may do more than making it: by a decorator, a default, a base or its body."""
    if own is None:
        registered = any(root_name(decorator) in tasks for decorator in statement.decorator_list)
        return not registered and _decorated_to_act(statement, tasks, own)
    if _decorated_to_act(statement, tasks, own):
        return True
    if any(_may_act(value, own) for value in _registered_with(statement, tasks)):
        return True
    if not isinstance(statement, ast.ClassDef):
        return any(_may_act(value, own) for value in _defaults(statement))
    if statement.keywords or any(root_name(base) in own.enrolling for base in statement.bases):
        return True
    return any(
        defines(inner, (), own)[1] for inner in statement.body if not isinstance(inner, ast.AnnAssign) or inner.value
    )


def _may_act(value: ast.expr, own: _Own | None) -> bool:
    """Whether computing a value may do more than that, such as draw from a generator or fill a table."""
    if own is None:
        return False
    inside: list[ast.AST] = [value]
    while inside:
        node = inside.pop()
        if isinstance(node, ast.Lambda):
            continue  # its body runs where it is called
        if isinstance(node, ast.Await | ast.Yield | ast.YieldFrom):
            return True
        if isinstance(node, ast.Call) and not _is_pure(node, own):
            return True
        inside += [
            child
            for child in ast.iter_child_nodes(node)
            if isinstance(child, ast.expr | ast.comprehension | ast.keyword)
        ]
    return False


def _is_pure(call: ast.Call, own: _Own) -> bool:
    name, root = last_name(call), root_name(call)
    if isinstance(call.func, ast.Name):
        return name in own.values or (name in PURE and name not in own.names)
    return name in PURE_METHODS or (name in PURE and root not in own.names)


def targets(statement: ast.stmt) -> list[ast.expr]:
    """What a statement assigns to, tuples taken apart; empty for other statements."""
    pending: list[ast.expr] = []
    if isinstance(statement, ast.Assign):
        pending = list(statement.targets)
    elif isinstance(statement, ast.AnnAssign | ast.AugAssign):
        pending = [statement.target]
    flat: list[ast.expr] = []
    while pending:
        target = pending.pop()
        if isinstance(target, ast.Tuple | ast.List):
            pending += target.elts
        else:
            flat.append(target)
    return flat


def root_name(node: ast.expr) -> str:
    """The first name of ``a.b(…).c``."""
    while isinstance(node, ast.Call | ast.Attribute):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def last_name(node: ast.expr) -> str:
    """The last name of ``a.b`` or ``a.b(…)``."""
    node = node.func if isinstance(node, ast.Call) else node
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def makes_task(statement: ast.stmt) -> bool:
    value = getattr(statement, "value", None)
    return isinstance(value, ast.Call) and last_name(value) == "Task"


def _reach(
    survey: _Survey, roots: Iterable[str], refuse: str = "", refuse_files: str = ""
) -> tuple[set[str], list[str], set[str]]:
    """Names, texts of the statements behind them, and modules imported by them.

    ``refuse`` says whose code it is, where what cannot be followed is an error; ``refuse_files`` where data files alone are.
    """
    roots = list(roots)
    pending, names, texts, modules = list(roots), set[str](), list[str](), set[str]()
    while pending:
        current = pending.pop()
        if current in names or current not in survey.definitions:
            continue
        names.add(current)
        for place, statement in enumerate(survey.definitions[current]):
            if isinstance(statement, ast.Import | ast.ImportFrom):
                aliases = [alias for alias in statement.names if (alias.asname or alias.name).split(".")[0] == current]
                if not aliases and _of_a_user(statement) and all(alias.name != "*" for alias in statement.names):
                    modules |= _imported(statement, survey.package)  # which are run, whatever is taken from them
                    continue
                statement = copy.copy(statement)
                statement.names = aliases or statement.names  # a star
            elif isinstance(statement, Definition):
                # Registering decorators name the task; what they register does not change what is measured, unless
                # the measurement asks another one for its seeds or cases.
                registering = [decorator for decorator in statement.decorator_list if _registers(decorator, survey)]
                if current not in roots:
                    for decorator in registering:
                        texts.append(f"{current} {place}, registered: {ast.unparse(decorator)}")
                        pending += _globals(ast.unparse(decorator)) - survey.tasks
                statement = copy.copy(statement)
                statement.decorator_list = [
                    decorator for decorator in statement.decorator_list if decorator not in registering
                ]
            text = ast.unparse(statement)
            texts.append(f"{current} {place}: {text}")  # what defines a name again does so in this order
            for node in ast.walk(statement):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    modules |= _imported(node, survey.package)
            used = _globals(text)
            if refuse_files:
                _check_files(statement, refuse_files)
            if refuse:
                _check_followable(statement, refuse)
                if used & survey.tasks:
                    raise LabError(
                        f"{refuse} uses {min(used & survey.tasks)} itself, whose paper and claims are no part of what its "
                        "results are kept under; take what it needs from its sizes"
                    )
            pending += used
    return names, texts, modules


def _registers(decorator: ast.expr, survey: _Survey) -> bool:
    """Whether a decorator is a method of a task of the file."""
    return root_name(decorator) in survey.tasks


@cache
def _globals(text: str) -> frozenset[str]:
    """The names that code at the top level takes from its module."""
    names: set[str] = set()
    pending = [symtable.symtable(text, "source", "exec")]
    top = pending[0]
    while pending:
        table = pending.pop()
        pending += table.get_children()
        everything = table is top or table.get_type() == "class"
        names |= {symbol.get_name() for symbol in table.get_symbols() if everything or symbol.is_global()}
    return frozenset(names)


def _check_followable(statement: ast.AST, whose: str) -> None:
    """Refuse code that takes code, names or numbers from where no name shows them."""
    unsure = {
        id(inner)
        for node in ast.walk(statement)
        if isinstance(node, ast.Try | ast.If | ast.With)
        for inner in ast.walk(node)
    }
    for node in _that_run(statement):
        name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
        if missing := _not_to_be_found(node) if id(node) not in unsure else "":
            raise LabError(
                f"{whose} imports {missing} in line {getattr(node, 'lineno', '?')}, which cannot be found, so what it depends on "
                "cannot be told; import it at the top of the file, after what makes it findable"
            )
        _check_named_code(node, name, whose)
    _check_files(statement, whose)


def _check_named_code(node: ast.AST, name: str, whose: str) -> None:
    makes = _makes_code(node, name)
    if makes or name in (MADE_FROM_TEXT_BY if isinstance(node, ast.Attribute) else MADE_FROM_TEXT):
        raise LabError(
            f"{whose} uses {makes or name} in line {getattr(node, 'lineno', '?')}, so what it depends on cannot be told; "
            "import what it needs by name, and write code as code"
        )


def _check_files(statement: ast.AST, whose: str) -> None:
    """Refuse what reads a data file."""
    for node in _that_run(statement):
        name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
        if reads := _reads(node, name):
            raise LabError(
                f"{whose} uses {reads} in line {getattr(node, 'lineno', '?')}, and a data file is no part of what its results are "
                "kept under; write the numbers into the Python file, or into a Python file that it imports"
            )


def _that_run(statement: ast.AST) -> Iterable[ast.AST]:
    """The nodes of a tree without what is for type checkers or scripts only."""
    pending = [statement]
    while pending:
        node = pending.pop()
        if not _never_runs(node):
            yield node
            pending += ast.iter_child_nodes(node)


def _not_to_be_found(node: ast.AST) -> str:
    """The module that an import names and that is nowhere; empty for everything else."""
    if isinstance(node, ast.Import):
        modules = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and not node.level:
        modules = [node.module or ""]
    else:
        return ""
    return next((module for module in modules if _is_missing(module.split(".")[0])), "")


def _is_missing(root: str) -> bool:
    try:
        return root not in sys.modules and importlib.util.find_spec(root) is None
    except (ImportError, ValueError):
        return True


def _makes_code(node: ast.AST, name: str) -> str:
    """What a node takes a namespace or code by that no name shows; empty if nothing."""
    if isinstance(node, ast.alias) and node.name.split(".")[0] in MODULES_THAT_MAKE:
        return node.name
    if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES_THAT_MAKE:
        return node.module or ""
    if isinstance(node, ast.Attribute) and name == "modules" and ast.unparse(node.value) == "sys":
        return "sys.modules"
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "vars":
        return "" if node.args and isinstance(node.args[0], ast.Name) else "vars"  # of a value it is its fields
    return ""


def _reads(node: ast.AST, name: str) -> str:
    """What a node of a tree, of which ``name`` is the name if it has one, may read a file by; empty if nothing."""
    if name in READS_FILES or (isinstance(node, ast.Name) and name == "open"):
        return name
    if isinstance(node, ast.Call) and last_name(node) in READS_FILES_IF_CALLED:
        return last_name(node)
    if isinstance(node, ast.alias) and node.name.split(".")[0] in READS_FILES | MODULES_THAT_READ:
        return node.name
    if isinstance(node, ast.ImportFrom) and (reader := {alias.name for alias in node.names} & READS_FILES_IF_CALLED):
        return min(reader)
    if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES_THAT_READ:
        return node.module or ""
    return ""


def _imported(statement: ast.Import | ast.ImportFrom, package: str = "") -> set[str]:
    """The modules that an import statement names and that count: of the project, or not installed."""
    if isinstance(statement, ast.Import):
        return {alias.name for alias in statement.names if is_own_code(alias.name)}
    base = statement.module or ""
    if statement.level:
        above = package.split(".")
        above = above[: len(above) - statement.level + 1]
        base = ".".join([*above, *([base] if base else [])])
    if not base or not is_own_code(base):
        return set()
    inner = {f"{base}.{alias.name}" for alias in statement.names if alias.name != "*"}
    modules = {module for module in inner if module_file(module) is not None}
    return modules | ({base} if modules != inner or not inner else set())


def _name_in_project(file: Path) -> str:
    """The package that a file of the project lies in; empty for other files."""
    root = Path(__file__).resolve().parent.parent
    return ".".join(file.parent.relative_to(root).parts) if file.is_relative_to(root) else ""


@cache
def is_own_code(module: str) -> bool:
    """Whether a module's code counts: the project's, or one that comes neither with Python nor from an installed package."""
    root = module.split(".")[0]
    if root in PROJECT_PACKAGES:
        return True
    try:
        spec = importlib.util.find_spec(root)
    except (ImportError, ValueError):
        return False
    places = [spec.origin] if spec and spec.origin else list((spec and spec.submodule_search_locations) or [])
    if not places or not Path(places[0]).is_absolute():
        return False  # built in, or frozen
    place = Path(places[0])
    standard = Path(sysconfig.get_paths()["stdlib"])
    return not place.is_relative_to(standard) and not {"site-packages", "dist-packages"} & set(place.parts)


@cache
def module_file(module: str) -> Path | None:
    root = Path(__file__).resolve().parent.parent
    path = root.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file() and module.split(".")[0] in PROJECT_PACKAGES:
            return candidate
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin and Path(spec.origin).is_file() else None


def _module_closure(modules: set[str]) -> set[str]:
    pending, closed = list(modules), set[str]()
    while pending:
        module = pending.pop()
        file = module_file(module)
        if module in closed or module in INERT or file is None:
            continue
        closed.add(module)
        pending += _imports_of(module)
        if "." in module:  # a package runs before its modules
            pending.append(module.rpartition(".")[0])
    return closed


@cache
def _imports_of(module: str) -> frozenset[str]:
    file = module_file(module)
    assert file is not None
    if file.suffix != ".py":
        return frozenset()
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    return frozenset(
        name
        for node in ast.walk(_parse(file))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in _imported(node, package)
    )


@cache
def _check_module(module: str) -> None:
    """Refuse a module of the user's own that a measurement reaches and that takes code or numbers from elsewhere."""
    file = module_file(module)
    assert file is not None
    if file.suffix != ".py" or module.split(".")[0] in PROJECT_PACKAGES:
        return
    for node in _that_run(_parse(file)):
        name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
        if not (isinstance(node, ast.Name) and name == "__doc__"):  # what a script says of itself
            _check_named_code(node, name, f"the module {file}")
    _check_files(_parse(file), f"the module {file}")


@cache
def _module_text(module: str) -> bytes:
    file = module_file(module)
    assert file is not None
    changed = file.stat().st_ctime_ns
    if module in sys.modules and changed > _looked_for.get(module, _BEGUN):
        raise LabError(_edited(file))
    _hashed[module] = file, changed
    if file.suffix != ".py":
        return file.read_bytes()
    body = [statement for statement in _parse(file).body if not _names_parts(module, statement)]
    return "\n".join(ast.unparse(statement) for statement in body).encode()


# When modules were looked for, just before they were read [nanoseconds]; those imported earlier than this one, by now.
_BEGUN = time.time_ns()
_looked_for: dict[str, int] = {}
# Files of modules that were hashed, and when they had been changed last.
_hashed: dict[str, tuple[Path, int]] = {}


class _Imports(MetaPathFinder):
    """Notes when modules are imported, and lets none be that has been hashed and edited since. It finds nothing itself."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        _looked_for[fullname] = time.time_ns()
        if fullname in _hashed:
            file, changed = _hashed[fullname]
            if file.is_file() and file.stat().st_ctime_ns != changed:
                raise LabError(_edited(file))


sys.meta_path.insert(0, _Imports())


def _edited(file: Path) -> str:
    return (
        f"{file} was edited after this process read it, so that what is measured would be kept under code that did not "
        "measure it; start again (the command, the notebook's kernel, or the workers of the cluster)"
    )


def forget() -> None:
    """Forget what is known of modules, so that those edited and imported anew are hashed anew."""
    for cached in (is_own_code, module_file, _imports_of, _check_module, _module_text):
        cached.cache_clear()
    _hashed.clear()


def _names_parts(module: str, statement: ast.stmt) -> bool:
    """Whether it is the list of the parts of a sheet of the project, which is an order of reading."""
    if module.split(".")[0] not in PROJECT_PACKAGES:
        return False
    return any(isinstance(target, ast.Name) and target.id == "PARTS" for target in targets(statement))
