"""Which source a measurement depends on, as a hash.

Inside the file that defines a measurement the dependence is followed name by name, so that rewriting prose,
a figure or a claim does not make a finished training stale. Everything it reaches in other files of the
project counts as a whole, with what those files import in turn. Comments and docstrings do not count.
What is reached only through strings (``getattr``) is not seen.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import importlib.util
from functools import cache
from pathlib import Path

# They carry messages, progress and places, never numbers.
INERT = frozenset(
    f"lab.{name}"
    for name in "errors context unfinished files labels configuration contracts checks evidence claims papers tasks catalogue "
    "runs shipped execution progress results figures figures.drawing figures.looks figures.panel figures.sheet "
    "figures.summaries report coverage pages findings notebooks reproduction".split()
)


def fingerprint(file: Path, name: str) -> str:
    """Hash (16 hex digits) of the code that the top-level function ``name`` of ``file`` can reach."""
    return _fingerprint(file, name, file.stat().st_mtime_ns)


def reachable(file: Path, name: str) -> frozenset[str]:
    """The top-level names of ``file`` that ``name`` uses, directly or through other names of the file."""
    return frozenset(_reach(_parse(file, file.stat().st_mtime_ns), name)[0])


@cache
def _fingerprint(file: Path, name: str, _: int) -> str:
    tree = _parse(file, file.stat().st_mtime_ns)
    names, statements = _reach(tree, name)
    modules: set[str] = set()
    for statement in statements:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            modules |= _imported(statement)
    digest = hashlib.sha256("\n".join(sorted(ast.unparse(one) for one in statements)).encode())
    for module in sorted(_module_closure(modules)):
        digest.update(module.encode())
        digest.update(_module_text(module).encode())
    return digest.hexdigest()[:16]


@cache
def _parse(file: Path, _: int) -> ast.Module:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:] or [ast.Pass()]
    return tree


def _definitions(tree: ast.Module) -> dict[str, ast.stmt]:
    found: dict[str, ast.stmt] = {}
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            found[statement.name] = statement
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            for alias in statement.names:
                found[(alias.asname or alias.name).split(".")[0]] = statement
        else:
            for node in ast.walk(statement):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    found[node.id] = statement
    return found


def _reach(tree: ast.Module, name: str) -> tuple[set[str], list[ast.stmt]]:
    definitions = _definitions(tree)
    pending, names, statements = [name], set[str](), list[ast.stmt]()
    while pending:
        current = pending.pop()
        statement = definitions.get(current)
        if current in names or statement is None or _makes_task(statement):
            continue
        names.add(current)
        if isinstance(statement, ast.FunctionDef):
            # Registering decorators name the task; what they register does not change what is measured.
            statement = copy.copy(statement)
            statement.decorator_list = []
        if statement not in statements:
            statements.append(statement)
        pending += [node.id for node in ast.walk(statement) if isinstance(node, ast.Name)]
    return names, statements


def _makes_task(statement: ast.stmt) -> bool:
    value = getattr(statement, "value", None)
    called = value.func if isinstance(value, ast.Call) else None
    return isinstance(called, ast.Name) and called.id == "Task"


def _imported(statement: ast.Import | ast.ImportFrom) -> set[str]:
    """The modules of this project that an import statement names."""
    if isinstance(statement, ast.Import):
        return {alias.name for alias in statement.names if _ours(alias.name)}
    base = statement.module or ""
    if not _ours(base):
        return set()
    inner = {f"{base}.{alias.name}" for alias in statement.names}
    modules = {module for module in inner if _module_file(module) is not None}
    return modules | ({base} if modules != inner else set())


def _ours(module: str) -> bool:
    return module.split(".")[0] in ("lab", "tasks", "proofs_check")


@cache
def _module_file(module: str) -> Path | None:
    root = Path(__file__).resolve().parent.parent
    path = root.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin else None


def _module_closure(modules: set[str]) -> set[str]:
    pending, closed = list(modules), set[str]()
    while pending:
        module = pending.pop()
        file = _module_file(module)
        if module in closed or module in INERT or file is None:
            continue
        closed.add(module)
        for node in ast.walk(_parse(file, file.stat().st_mtime_ns)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                pending += _imported(node)
    return closed


@cache
def _module_text(module: str) -> str:
    file = _module_file(module)
    assert file is not None
    return ast.unparse(_parse(file, file.stat().st_mtime_ns))
