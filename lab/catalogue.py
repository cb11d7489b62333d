"""Finding tasks and claims: in ``tasks/`` and ``proofs_check/`` by looking, anywhere else by path."""

from __future__ import annotations

import ast
import fnmatch
import importlib
import importlib.util
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from lab.claims import Claim
from lab.errors import LabError, described, located, nearest
from lab.files import FOLDERS, PROJECT, require_own_name
from lab.tasks import Task


def load(file: Path | str) -> Task:
    """The task defined in ``file`` (of the project or not).

    Raises:
        LabError: there is no such file, it fails to import, or it does not hold exactly one task.
    """
    try:
        file = Path(file).expanduser().resolve()
        exists = file.is_file()
    except (OSError, RuntimeError) as error:  # a name that is too long, or the home of nobody
        raise LabError(
            f"there can be no file {str(file)[:100]} ({getattr(error, 'strerror', None) or error}); give the path of a Python file"
        ) from error
    if not exists:
        raise LabError(f"there is no file {file}; give the path of a Python file that defines a Task")
    module = _module(file)
    tasks = [value for value in vars(module).values() if isinstance(value, Task) and value.file == file]
    if len({id(task) for task in tasks}) != 1:
        raise LabError(f"{file} defines {len(tasks)} tasks; it must define exactly one Task at its top level")
    if tasks[0].place not in FOLDERS:
        try:
            require_own_name(tasks[0].name)
        except LabError as error:
            raise LabError(f"{file.name}: {error}") from error
    return tasks[0]


def _module(file: Path) -> ModuleType:
    inside = any(file.is_relative_to(PROJECT / folder) for folder in FOLDERS)
    name = (
        ".".join(file.relative_to(PROJECT).with_suffix("").parts)
        if inside
        else f"external_{file.stem}_{abs(hash(file)):x}"
    )
    with _importing:  # another thread must not be given a module that is half imported
        return sys.modules[name] if name in sys.modules else _import(file, name)


_importing = threading.RLock()


def _import(file: Path, name: str) -> ModuleType:
    if name.startswith("external_") and str(file.parent) not in sys.path:
        sys.path.append(
            str(file.parent)
        )  # a file of one's own may import what lies beside it, as `python FILE` lets it
    if name.startswith("external_"):
        _check_beside(file)
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except LabError as error:
        del sys.modules[name]
        raise LabError(located(error, file)) from error
    except KeyboardInterrupt:
        del sys.modules[name]
        raise
    except BaseException as error:
        del sys.modules[name]
        raise LabError(f"{file} cannot be imported: {described(error, file)}") from error
    return module


def _check_beside(file: Path) -> None:
    """Refuse a file whose import of what lies beside it would be answered by another module of that name."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, OSError):
        return  # importing it says so
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {
        node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module and not node.level
    }
    for name in sorted({module.split(".")[0] for module in names}):
        beside = [file.with_name(f"{name}.py"), file.with_name(name) / "__init__.py"]
        neighbour = next((path for path in beside if path.is_file()), None)
        if neighbour is None:
            continue
        known = sys.modules.get(name)
        spec = getattr(known, "__spec__", None) if known is not None else importlib.util.find_spec(name)
        origin = getattr(spec, "origin", None)
        if origin is None or Path(origin).resolve() != neighbour:
            raise LabError(
                f"{file.name} imports {name}, which lies beside it, and {origin or 'a module of Python'} has the same name; "
                "give the one beside it another name"
            )


def discover() -> list[Task]:
    """All tasks of the project: those of ``tasks/`` first, then those of ``proofs_check/``.

    The parts of a sheet stand in the order of its argument, which its ``__init__.py`` names as ``PARTS``.

    Raises:
        LabError: there are none, so that nothing passes for having been checked.
    """
    places = [place for folder in FOLDERS for place in sorted((PROJECT / folder).glob("[a-z]*"))]
    files = [
        file for place in places for file in (_parts(place) if place.is_dir() else [place]) if file.suffix == ".py"
    ]
    if not files:
        raise LabError(
            f"{PROJECT} holds no tasks (files in {' or '.join(FOLDERS)}); install the lab again, or work in a clone"
        )
    return [load(file) for file in files]


def _parts(folder: Path) -> list[Path]:
    """The files of a sheet that is a folder."""
    files = {file.stem: file for file in sorted(folder.glob("[a-z]*.py"))}
    named = getattr(importlib.import_module(f"{folder.parent.name}.{folder.name}"), "PARTS", ()) if files else ()
    if sorted(named) != sorted(files):
        raise LabError(
            f"{folder}/__init__.py names the parts {', '.join(named)}, and its files are {', '.join(files)}; "
            "name each file once in PARTS, in the order of the argument"
        )
    return [files[name] for name in named]


def find(name: str) -> Task:
    """The task or part called ``name``, or the one in the file that ``name`` is the path of.

    Raises:
        LabError: there is none, or ``name`` is a sheet of several parts.
    """
    parts = find_parts(name)
    if len(parts) > 1:
        keys = ", ".join(task.key for task in parts)
        raise LabError(f"{name} has {len(parts)} parts; name one of {keys}")
    return parts[0]


def find_parts(name: str) -> list[Task]:
    """The parts of the task called ``name`` (a sheet, one of its parts, or the path of a file).

    Raises:
        LabError: nothing is called so.
    """
    if name.endswith(".py"):
        return [load(Path(name))]
    if ".py:" in name:
        raise LabError(f"{name} names a claim of a file; name the file alone, and the claim with --only")
    known = discover()
    parts = [task for task in known if name and name in (task.key, task.key.rpartition("/")[0])]
    if not parts:
        names = sorted({task.key for task in known} | {task.key.split("/")[0] for task in known})
        hint = nearest(name, names)
        raise LabError(f"unknown task {name[:100]!r}{hint}; `lab list` names the {len(names)} there are")
    return parts


def find_claims(patterns: Sequence[str]) -> list[tuple[Task, Claim]]:
    """The claims whose ids match any of ``patterns`` (shell wildcards), or of the tasks and files named.

    ``FILE.py:CLAIM`` names claims of a file of one's own, by their ids or by what stands after the slash in them.

    Raises:
        LabError: a pattern matches nothing.
    """
    pairs: list[tuple[Task, Claim]] = []
    for pattern in patterns or ["*"]:
        file, colon, wanted = pattern.partition(".py:")
        if colon or pattern.endswith(".py"):
            task = load(Path(file + ".py" if colon else pattern))
            chosen = [(task, claim) for claim in task.claims.values() if not colon or is_called(claim, wanted)]
            known = [
                identifier for claim in task.claims.values() for identifier in (claim.id, claim.id.partition("/")[2])
            ]
            where = f"`lab show {task.file}` names those of the file"
        else:
            everything = [(task, claim) for task in discover() for claim in task.claims.values()]
            chosen = [
                (task, claim)
                for task, claim in everything
                if fnmatch.fnmatchcase(claim.id, pattern) or pattern in (task.key, task.name)
            ]
            sheets = {name for task, _ in everything for name in (task.name, task.key)}
            known, where = [*sorted(sheets), *(claim.id for _, claim in everything)], "`lab list` names all claims"
        if not chosen:
            raise LabError(f"no claim matches {pattern!r}{nearest(wanted or pattern, known)}; {where}")
        pairs += [pair for pair in chosen if pair not in pairs]
    return pairs


def is_called(claim: Claim, name: str) -> bool:
    """Whether ``name`` (shell wildcards) is a claim's id, or what stands after the slash in it."""
    return any(fnmatch.fnmatchcase(identifier, name) for identifier in (claim.id, claim.id.partition("/")[2]))
