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
from lab.source import ours

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
        outside = {one: needed for one, needed in self.gathered.outside.items() if one.module != "__future__"}
        threads = {"import torch"} if "torch" in self.packages() else set()
        needed = {_import(one, self.names[one]) for one, evaluated in outside.items() if evaluated} | threads
        named = {_import(one, self.names[one]) for one, evaluated in outside.items() if not evaluated}
        types = sorted({name for name in self._only_types() if name not in self.names.values()})
        needed |= {"from typing import TYPE_CHECKING"} if named or types else set()
        lines = ["from __future__ import annotations", "", "import os", "import sys", "", *_THREADS]
        lines += _sorted(needed - {"import os", "import sys"})
        if named or types:
            lines += ["", "if TYPE_CHECKING:  # named in annotations alone"]
            lines += [
                f"    {one}" if one else ""
                for one in _sorted(named | ({"from typing import Any"} if types else set()))[1:]
            ]
            lines += ["", *(f"    {name} = Any" for name in types)] if types else []
        lines += ["", "torch.set_num_threads(1)"] if threads else []
        return "\n".join(lines) + "\n"

    def packages(self) -> list[str]:
        """The installed packages that it needs."""
        roots = {one.module.split(".")[0] for one, evaluated in self.gathered.outside.items() if evaluated}
        inner = {
            alias.name.split(".")[0]
            for _, (source, statement) in self.gathered.statements()
            if source.name != "lab.export.running"  # which joins labelled arrays only where the others make some
            for node in ast.walk(statement)
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        return sorted(one for one in roots | inner if one not in sys.stdlib_module_names and not ours(one))

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
        whole, kept = source.body[place], self.gathered.kept(source, place)
        decorators = getattr(whole, "decorator_list", [])
        first = min([whole.lineno, *(one.lineno for one in decorators)])
        last = whole.end_lineno or first
        gone: set[int] = set()
        for one in decorators:
            if registers(source, one):
                gone |= set(range(one.lineno, (one.end_lineno or one.lineno) + 1))
        if isinstance(whole, ast.ClassDef) and self.gathered.is_plain(source, whole):
            for member in whole.body:
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
                use.whole if use.whole is not None and _through(use, entity, source, self.gathered) else use.node
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
            taken = {*dir(builtins), *keyword.kwlist, "os", "sys", "TYPE_CHECKING"}
            for entity, wanted in self._wanted():
                if entity in self.names:
                    continue
                stem = entity.module.rpartition(".")[2].strip("_")
                name = f"{stem}_{wanted.lstrip('_')}" if entity in self.apart else wanted
                if entity.outside and entity.module in ("os", "sys") and not entity.name:
                    self.names[entity] = name
                    continue
                while name in taken:
                    name = f"{stem}_{wanted.lstrip('_')}" if name == wanted else f"{name}_"
                taken.add(name)
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
        found: list[str] = []
        while start and source.lines[start - 1].startswith("#"):
            start -= 1
            found.insert(0, source.lines[start])
        if any(one.startswith("# %%") for one in found):
            found = found[next(at for at in reversed(range(len(found))) if found[at].startswith("# %%")) + 1 :]
        return [*found, ""] if found and source.name == self.task else found


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

    def behind(module: str, seen: set[str]) -> set[str]:
        for one in ever[module] - seen:
            seen.add(one)
            behind(one, seen)
        return seen

    before = {module: {one for each in at_once[module] for one in {each, *behind(each, set())}} for module in ever}
    left = set(ever)
    while left:
        ready = [one for one in left if not before[one] & (left - {one})] or sorted(left)
        chosen = min(ready, key=lambda one: (_rank(one), "prompts" not in one, one))
        yield chosen
        left.discard(chosen)


def _rank(module: str) -> int:
    of = [at for at, prefix in enumerate(ORDER) if prefix and (module == prefix or module.startswith(f"{prefix}."))]
    return of[0] if of else 0 if module.startswith("lab.") else ORDER.index("")


def _lines_of(source: Source, member: ast.stmt) -> Iterable[int]:
    """The lines of a method with its decorators, and the comments and blank lines above it."""
    first = min([member.lineno, *(one.lineno for one in getattr(member, "decorator_list", []))])
    while source.lines[first - 2].strip() == "" or source.lines[first - 2].lstrip().startswith("#"):
        first -= 1
    return range(first, (member.end_lineno or first) + 1)


def _inner_imports(statement: ast.stmt) -> Iterator[ast.Import | ast.ImportFrom]:
    """Imports of the project inside a statement, which the script has no need of."""
    for node in ast.walk(statement):
        if isinstance(node, ast.ImportFrom) and (node.level or ours(node.module or "")):
            yield node
        if isinstance(node, ast.Import) and all(ours(alias.name) for alias in node.names):
            yield node


def _alone(statement: ast.stmt, inner: ast.stmt) -> bool:
    return any(
        getattr(node, name, None) == [inner] for node in ast.walk(statement) for name in ("body", "orelse", "finalbody")
    )


def _edited(line: str, edits: Iterable[tuple[int, int, str]]) -> str:
    found = line.encode()
    for start, end, text in sorted(set(edits), reverse=True):
        found = found[:start] + text.encode() + found[end:]
    return found.decode()


def _import(entity: Entity, name: str) -> str:
    if entity.name:
        return f"from {entity.module} import {entity.name}" + (f" as {name}" if name != entity.name else "")
    return f"import {entity.module}" + (f" as {name}" if name != entity.module else "")


def _sorted(imports: Iterable[str]) -> list[str]:
    """Import lines in two groups, Python's own and others, each after a blank line; names from one module on one line."""
    modules, names = set[str](), dict[str, set[str]]()
    for one in imports:
        if found := re.fullmatch(r"from (\S+) import (.+)", one):
            names.setdefault(found[1], set()).add(found[2])
        else:
            modules.add(one)
    lines = [
        *sorted(modules),
        *(f"from {module} import {', '.join(sorted(names[module]))}" for module in sorted(names)),
    ]
    own = [one for one in lines if one.split()[1].split(".")[0] in sys.stdlib_module_names]
    others = [one for one in lines if one not in own]
    return [*(["", *own] if own else []), *(["", *others] if others else [])]


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
    given = set(dir(builtins)) | {"__name__", "__file__"}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            given.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            given.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            given |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    for statement in tree.body:
        for use in uses(statement):
            if not use.annotation and use.node.id not in given:
                raise LabError(
                    f"the script would use {use.node.id!r}, which it does not hold; this claim cannot be exported"
                )
