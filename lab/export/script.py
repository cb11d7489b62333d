"""Gathered source as one file: modules in an order in which it can be read and run, every name meaning one thing.

The text is that of the modules, comments included. Where a name must change (``statistics.Student`` of a module, an alias, a
name that two modules have) it is changed in place.
"""

from __future__ import annotations

import ast
import builtins
import keyword
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator

from lab.errors import LabError
from lab.export.gather import Entity, Gathered, Source, registers
from lab.export.scopes import Use, uses
from lab.source import is_own_code

# The order of an argument, as far as the source leaves a choice.
ORDER = (
    "lab.errors",
    "lab.streams",
    "lab.predictors",
    "lab.domains",
    "lab.models",
    "lab.labels",
    "lab.export.surroundings",
    "lab.training",
    "lab.decoding",
    "lab.evaluation",
    "lab.study",
    "",  # a user's own modules, tasks and proofs
    "lab.statistics",
    "lab.evidence",
    "lab.export.running",
)
RULE = "# " + "─" * 118


class Script:
    """A file in the making.

    Args:
        gathered: what it holds.
        task: the module whose prose goes with its statements.
    """

    def __init__(self, gathered: Gathered, task: str) -> None:
        self.gathered, self.task = gathered, task
        self.order = list(_ordered(gathered))
        self.names: dict[Entity, str] = {}
        self.apart: set[Entity] = set()
        self._name_all()

    def name(self, entity: Entity) -> str:
        """What an entity is called in the script."""
        return self.names[entity]

    def imports(self) -> str:
        """The imports of installed packages; those that only annotations name for who reads types."""
        outside = {entity: needed for entity, needed in self.gathered.outside.items() if entity.module != "__future__"}
        threads = {"import torch"} if "torch" in self.packages() else set()
        needed = {_import(entity, self.names[entity]) for entity, evaluated in outside.items() if evaluated} | threads
        named = {_import(entity, self.names[entity]) for entity, evaluated in outside.items() if not evaluated}
        types = sorted({name for name in self._only_types() if name not in self.names.values()})
        needed |= {"from typing import TYPE_CHECKING"} if named or types else set()
        lines = ["from __future__ import annotations", "", "import os", "import sys", "", *_THREADS]
        lines += _sorted(needed - {"import os", "import sys"})
        if named or types:
            lines += ["", "if TYPE_CHECKING:  # named in annotations alone"]
            lines += [
                f"    {line}" if line else ""
                for line in _sorted(named | ({"from typing import Any"} if types else set()))[1:]
            ]
            lines += ["", *(f"    {name} = Any" for name in types)] if types else []
        lines += ["", "torch.set_num_threads(1)"] if threads else []
        return "\n".join(lines) + "\n"

    def packages(self) -> list[str]:
        """The installed packages that it needs."""
        roots = {entity.module.split(".")[0] for entity, evaluated in self.gathered.outside.items() if evaluated}
        inner = {
            alias.name.split(".")[0]
            for _, (source, statement) in self.gathered.statements()
            if source.name != "lab.export.running"  # which joins labelled arrays only where the others make some
            for node in ast.walk(statement)
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        return sorted(
            package for package in roots | inner if package not in sys.stdlib_module_names and not is_own_code(package)
        )

    def sections(self) -> Iterator[str]:
        """The text of every module."""
        for module in self.order:
            source = self.gathered.source(module)
            place = module.replace(".", "/") + ".py" if module != self.task else source.file.name
            title = textwrap.wrap(f"{place}: {source.about}" if source.about else place, 116)
            head = "\n".join([RULE, *(f"# {line}" for line in title), RULE])
            parts = [self.text(source, place) for place in sorted(self.gathered.places[module])]
            yield head + "\n\n" + "\n\n\n".join(parts) + "\n"

    def text(self, source: Source, place: int) -> str:
        """A statement as it stands in the script."""
        statement, kept = source.body[place], self.gathered.kept(source, place)
        decorators = getattr(statement, "decorator_list", [])
        first = min([statement.lineno, *(decorator.lineno for decorator in decorators)])
        last = statement.end_lineno or first
        gone: set[int] = set()
        for decorator in decorators:
            if registers(source, decorator):
                gone |= set(range(decorator.lineno, (decorator.end_lineno or decorator.lineno) + 1))
        if isinstance(statement, ast.ClassDef) and self.gathered.is_plain(source, statement):
            for member in statement.body:
                if self.gathered.left_out(member):
                    gone |= set(_lines_of(source, member))
        edits: dict[int, list[tuple[int, int, str]]] = {}
        for node in _inner_imports(kept):
            lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            gone |= set(lines)
            if _alone(kept, node):
                gone.discard(node.lineno)
                edits.setdefault(node.lineno, []).append((node.col_offset, 10**6, "pass"))
        for start, end, line, text in self._edits(source, kept):
            edits.setdefault(line, []).append((start, end, text))
        written = []
        for number in range(first, last + 1):
            if number not in gone:
                written.append(_edited(source.lines[number - 1], edits.get(number, [])))
        return "\n".join([*self._above(source, first), *written])

    def _edits(self, source: Source, statement: ast.stmt) -> Iterator[tuple[int, int, int, str]]:
        """What is changed in a statement: from and to which byte of which line, and to what."""
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            new = self.names[Entity(source.name, statement.name)]
            if new != statement.name:
                line = source.lines[statement.lineno - 1]
                start = len(line[: line.index(statement.name, statement.col_offset + 3)].encode())
                yield start, start + len(statement.name.encode()), statement.lineno, new
        for use, entity in self._meanings(source, statement):
            if entity not in self.names:
                continue
            node: ast.expr = (
                use.attribute
                if use.attribute is not None and _through(use, entity, source, self.gathered)
                else use.node
            )
            old, new = ast.unparse(node), self.names[entity]
            if old == new:
                continue
            if node.lineno != node.end_lineno:
                raise LabError(
                    f"{source.file}, line {node.lineno}: {old} is broken over lines; write it on one to export it"
                )
            yield node.col_offset, node.end_col_offset or 0, node.lineno, new

    def _meanings(self, source: Source, statement: ast.stmt) -> Iterator[tuple[Use, Entity]]:
        for use in uses(statement):
            entity = self.gathered.meaning(source, use)
            if entity is not None:
                yield use, entity

    def _name_all(self) -> None:
        """Give every entity a name that no other has, and that means nothing else wherever it is written."""
        while True:
            self.names = {}
            used = {*dir(builtins), *keyword.kwlist, "os", "sys", "TYPE_CHECKING"}
            for entity, wanted in self._wanted():
                if entity in self.names:
                    continue
                stem = entity.module.rpartition(".")[2].strip("_")
                name = f"{stem}_{wanted.lstrip('_')}" if entity in self.apart else wanted
                if entity.outside and entity.module in ("os", "sys") and not entity.name:
                    self.names[entity] = name
                    continue
                while name in used:
                    name = f"{stem}_{wanted.lstrip('_')}" if name == wanted else f"{name}_"
                used.add(name)
                self.names[entity] = name
            hidden = {
                entity
                for _, (source, statement) in self.gathered.statements()
                for use, entity in self._meanings(source, statement)
                if entity in self.names and self.names[entity] in use.local
            }
            if not hidden - self.apart:
                return
            self.apart |= hidden

    def _wanted(self) -> Iterator[tuple[Entity, str]]:
        for module in reversed(self.order):  # what the reader comes for keeps its names
            source = self.gathered.source(module)
            for place in sorted(self.gathered.places[module]):
                for name, places in source.defined.items():
                    if place in places and self.gathered.has(Entity(module, name)):
                        yield Entity(module, name), name
            for place in sorted(self.gathered.places[module]):
                for use, entity in self._meanings(source, self.gathered.kept(source, place)):
                    if entity.outside and entity.module != "__future__":
                        yield entity, use.node.id

    def _only_types(self) -> Iterator[str]:
        """Names of the project that annotations alone use."""
        for _, (source, statement) in self.gathered.statements():
            for use, entity in self._meanings(source, statement):
                if use.annotation and not entity.outside and entity not in self.names:
                    yield use.node.id

    def _above(self, source: Source, line: int) -> list[str]:
        """The comment above a statement; of the task, the prose above its cell."""
        start = line - 1
        if source.name == self.task:
            while start and source.lines[start - 1].strip() in ("", "# %%"):
                start -= 1
        comments: list[str] = []
        while start and source.lines[start - 1].startswith("#"):
            start -= 1
            comments.insert(0, source.lines[start])
        if any(comment.startswith("# %%") for comment in comments):
            comments = comments[
                next(at for at in reversed(range(len(comments))) if comments[at].startswith("# %%")) + 1 :
            ]
        return [*comments, ""] if comments and source.name == self.task else comments


def _through(use: Use, entity: Entity, source: Source, gathered: Gathered) -> bool:
    """Whether an entity is the attribute of a module, and not the name before it."""
    from lab.export.gather import resolve

    return resolve(source, use.node.id) != entity


def _ordered(gathered: Gathered) -> Iterator[str]:
    """The modules, each after those that it uses while it is imported, and all that these use; else by `ORDER`."""
    at_once: dict[str, set[str]] = {module: set() for module in gathered.places}
    ever: dict[str, set[str]] = {module: set() for module in gathered.places}
    for _, (source, statement) in gathered.statements():
        for use in uses(statement):
            entity = None if use.annotation else gathered.meaning(source, use)
            if entity is not None and entity.module in ever and entity.module != source.name:
                ever[source.name].add(entity.module)
                if not use.later:
                    at_once[source.name].add(entity.module)

    def behind(module: str, visited: set[str]) -> set[str]:
        for dependency in ever[module] - visited:
            visited.add(dependency)
            behind(dependency, visited)
        return visited

    before = {
        module: {dependency for direct in at_once[module] for dependency in {direct, *behind(direct, set())}}
        for module in ever
    }
    left = set(ever)
    while left:
        ready = [module for module in left if not before[module] & (left - {module})] or sorted(left)
        chosen = min(ready, key=lambda module: (_rank(module), "prompts" not in module, module))
        yield chosen
        left.discard(chosen)


def _rank(module: str) -> int:
    of = [at for at, prefix in enumerate(ORDER) if prefix and (module == prefix or module.startswith(f"{prefix}."))]
    return of[0] if of else 0 if module.startswith("lab.") else ORDER.index("")


def _lines_of(source: Source, member: ast.stmt) -> Iterable[int]:
    """The lines of a method with its decorators, and the comments and blank lines above it."""
    first = min([member.lineno, *(decorator.lineno for decorator in getattr(member, "decorator_list", []))])
    while source.lines[first - 2].strip() == "" or source.lines[first - 2].lstrip().startswith("#"):
        first -= 1
    return range(first, (member.end_lineno or first) + 1)


def _inner_imports(statement: ast.stmt) -> Iterator[ast.Import | ast.ImportFrom]:
    """Imports of the project inside a statement, which the script has no need of."""
    for node in ast.walk(statement):
        if isinstance(node, ast.ImportFrom) and (node.level or is_own_code(node.module or "")):
            yield node
        if isinstance(node, ast.Import) and all(is_own_code(alias.name) for alias in node.names):
            yield node


def _alone(statement: ast.stmt, inner: ast.stmt) -> bool:
    return any(
        getattr(node, name, None) == [inner] for node in ast.walk(statement) for name in ("body", "orelse", "finalbody")
    )


def _edited(line: str, edits: Iterable[tuple[int, int, str]]) -> str:
    encoded = line.encode()
    for start, end, text in sorted(set(edits), reverse=True):
        encoded = encoded[:start] + text.encode() + encoded[end:]
    return encoded.decode()


def _import(entity: Entity, name: str) -> str:
    if entity.name:
        return f"from {entity.module} import {entity.name}" + (f" as {name}" if name != entity.name else "")
    return f"import {entity.module}" + (f" as {name}" if name != entity.module else "")


def _sorted(imports: Iterable[str]) -> list[str]:
    """Import lines in two groups, Python's own and others, each after a blank line; names from one module on one line."""
    modules, names = set[str](), dict[str, set[str]]()
    for line in imports:
        if match := re.fullmatch(r"from (\S+) import (.+)", line):
            names.setdefault(match[1], set()).add(match[2])
        else:
            modules.add(line)
    lines = [
        *sorted(modules),
        *(f"from {module} import {', '.join(sorted(names[module]))}" for module in sorted(names)),
    ]
    standard = [line for line in lines if line.split()[1].split(".")[0] in sys.stdlib_module_names]
    installed = [line for line in lines if line not in standard]
    return [*(["", *standard] if standard else []), *(["", *installed] if installed else [])]


_THREADS = (
    "# One thread, as in the lab: their number changes the last digits.",
    'for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):',
    '    os.environ.setdefault(_variable, "1")',
)


def check_complete(text: str) -> None:
    """Refuse a script that uses a name which nothing in it gives.

    Raises:
        LabError: naming it.
    """
    tree = ast.parse(text)
    defined = set(dir(builtins)) | {"__name__", "__file__"}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            defined.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            defined |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    for statement in tree.body:
        for use in uses(statement):
            if not use.annotation and use.node.id not in defined:
                raise LabError(
                    f"the script would use {use.node.id!r}, which it does not hold; this claim cannot be exported"
                )
