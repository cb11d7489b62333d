"""The source that some functions depend on, name by name, through all modules of the project and of a user's own.

A name is an *entity*: a definition of a module that counts, or something of an installed package. Definitions are taken with
all they use, annotations aside; of a class, the methods that something in the gathered source asks for by name.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import lab
from lab.errors import LabError
from lab.export.scopes import Use, uses
from lab.source import defines, is_own_code, makes_task, module_file, targets

STAND_INS = {"lab.context": "lab.export.surroundings", "lab.unfinished": "lab.export.surroundings"}
REGISTERING = frozenset({"generator", "regression_predictor", "token_predictor"})


@dataclass(frozen=True, order=True)
class Entity:
    """A definition ``name`` of ``module``; of an installed package where ``outside``, the module itself without a name."""

    module: str
    name: str
    outside: bool = False


@dataclass(frozen=True)
class Source:
    """A module as text and tree.

    Attributes:
        name: of the module.
        file: where it lies.
        lines: its text.
        body: the statements at its top level.
        defined: by name, the places in ``body`` of the statements that define it.
        effects: the places of statements that count although they define nothing.
        imported: by name, the module and the name in it (empty: the module itself) that an import gives.
        tasks: names of tasks.
    """

    name: str
    file: Path
    lines: tuple[str, ...]
    body: tuple[ast.stmt, ...]
    defined: dict[str, list[int]]
    effects: list[int]
    imported: dict[str, tuple[str, str]]
    tasks: frozenset[str]

    @property
    def about(self) -> str:
        """The first paragraph of its docstring."""
        first = self.body[0] if self.body else None
        text = first.value.value if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) else ""
        return " ".join(text.split("\n\n")[0].split()) if isinstance(text, str) else ""


def source_of(name: str, file: Path | None = None) -> Source:
    """The module ``name``, which lies in ``file``."""
    path = file or module_file(name)
    if path is None or path.suffix != ".py":
        raise LabError(f"the source of {name} cannot be read, so that nothing that uses it can be exported")
    return _source(name, path)


@cache
def _source(name: str, file: Path) -> Source:
    text = file.read_text(encoding="utf-8")
    tree = ast.parse(text)
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    tasks = frozenset(
        target.id
        for statement in tree.body
        for target in targets(statement)
        if isinstance(target, ast.Name) and makes_task(statement)
    )
    defined: dict[str, list[int]] = {}
    effects, imported = [], {}
    for place, statement in enumerate(tree.body):
        if isinstance(statement, ast.Import | ast.ImportFrom) or _is_text(statement) or _only_for_types(statement):
            continue
        names, counts = defines(statement, set(tasks))
        for symbol in names - tasks:
            defined.setdefault(symbol, []).append(place)
        if counts and not names:
            effects.append(place)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            bindings = dict(_imports(node, package))
            # What a function imports from an installed package stays where it is; the project's own is there anyway.
            imported.update(
                bindings if node in tree.body else {k: v for k, v in bindings.items() if v[0] and is_own_code(v[0])}
            )
    for symbol in defined:
        imported.pop(symbol, None)
    return Source(name, file, tuple(text.splitlines()), tuple(tree.body), defined, effects, imported, tasks)


def _imports(node: ast.Import | ast.ImportFrom, package: str) -> Iterator[tuple[str, tuple[str, str]]]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield (
                alias.asname or alias.name.split(".")[0],
                (alias.name if alias.asname else alias.name.split(".")[0], ""),
            )
        return
    base = node.module or ""
    if node.level:
        above = package.split(".")[: len(package.split(".")) - node.level + 1]
        base = ".".join([*above, *([base] if base else [])])
    for alias in node.names:
        yield alias.asname or alias.name, (base, alias.name)


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _only_for_types(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test)


def resolve(source: Source, name: str) -> Entity | None:
    """What a name means at the top level of a module; None for one that Python itself has."""
    if name in source.defined:
        return Entity(source.name, name)
    if name in source.tasks:
        raise LabError(
            f"the task {name} of {source.file.name} stands in what it depends on, as where the results of another part are asked for, "
            "and a script holds the measurements of one part alone; export a claim of that part"
        )
    if name not in source.imported:
        return None
    module, inner = source.imported[name]
    return resolve_import(module, inner)


def resolve_import(module: str, inner: str) -> Entity:
    """What ``from module import inner`` gives; the module itself without ``inner``."""
    if module == "__future__" or not is_own_code(module):
        return Entity(module, inner, outside=True)
    if not inner:
        return Entity(module, "")
    if module == "lab":
        module = f"lab.{lab._HOMES[inner]}" if inner in lab._HOMES else module
    if module_file(f"{module}.{inner}") is not None:
        return Entity(f"{module}.{inner}", "")
    module = STAND_INS.get(module, module)
    entity = resolve(source_of(module), inner)
    if entity is None:
        raise LabError(f"{module} has no {inner!r} that could be exported with what uses it")
    return entity


def attribute(entity: Entity, name: str) -> Entity | None:
    """What ``module.name`` means where ``entity`` is a module that counts."""
    return resolve_import(entity.module, name) if not entity.outside and not entity.name else None


class Gathered:
    """What was found.

    Attributes:
        places: by module, the places of the statements taken.
        methods: the names of methods that something asks for.
        sources: the modules by name.
        outside: entities of installed packages that are used, and whether anything but annotations uses them.
    """

    def __init__(self, known: dict[str, Path]) -> None:
        self.sources = {name: source_of(name, file) for name, file in known.items()}
        self.places: dict[str, set[int]] = {}
        self.methods: set[str] = set()
        self.outside: dict[Entity, bool] = {}
        self._entities: set[Entity] = set()

    def source(self, name: str) -> Source:
        return self.sources.setdefault(name, source_of(name) if name not in self.sources else self.sources[name])

    def take(self, roots: Iterable[Entity]) -> None:
        """Take ``roots`` and everything that they use."""
        pending = list(roots)
        while pending:
            while pending:
                pending += self._take(pending.pop())
            pending = (
                [entity for _, statement in self.statements() for entity in self._used(*statement)]
                if self._ask()
                else []
            )

    def statements(self) -> Iterator[tuple[int, tuple[Source, ast.stmt]]]:
        """Every statement taken, with its place in its module."""
        for module in list(self.places):
            source = self.source(module)
            for place in sorted(self.places[module]):
                yield place, (source, self.kept(source, place))

    def _take(self, entity: Entity) -> list[Entity]:
        if entity in self._entities or entity.outside or not entity.name:
            return []
        self._entities.add(entity)
        source = self.source(entity.module)
        places = list(source.defined[entity.name])
        if entity.module not in self.places:
            self.places[entity.module] = set()
            places += source.effects
        entities: list[Entity] = []
        for place in places:
            if place not in self.places[entity.module]:
                self.places[entity.module].add(place)
                entities += self._used(source, self.kept(source, place))
        return entities

    def _ask(self) -> bool:
        """Note the names of methods that what was taken asks for; whether there are new ones."""
        before = len(self.methods)
        for _, (_, statement) in self.statements():
            for node in ast.walk(statement):
                if isinstance(node, ast.Attribute):
                    self.methods.add(node.attr)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
                    self.methods.add(node.value)  # as for getattr
        return len(self.methods) > before

    def kept(self, source: Source, place: int) -> ast.stmt:
        """A statement as it is taken: a class without the methods that nothing asks for, a function without registration."""
        statement = source.body[place]
        if isinstance(statement, ast.ClassDef) and self._is_plain(source, statement):
            of_class = copy.copy(statement)
            of_class.body = [member for member in statement.body if not self.left_out(member)]
            return of_class
        if isinstance(statement, ast.FunctionDef):
            function = copy.copy(statement)
            function.decorator_list = [
                decorator for decorator in statement.decorator_list if not registers(source, decorator)
            ]
            return function
        return statement

    def left_out(self, member: ast.stmt) -> bool:
        """Whether a member of a plain class is a method that nothing asks for."""
        return (
            isinstance(member, ast.FunctionDef) and not member.name.startswith("__") and member.name not in self.methods
        )

    def is_plain(self, source: Source, statement: ast.stmt) -> bool:
        """Whether all that may call methods of a class is in the gathered source: its bases come from it, or call none."""
        return isinstance(statement, ast.ClassDef) and self._is_plain(source, statement)

    def _is_plain(self, source: Source, statement: ast.ClassDef) -> bool:
        for base in statement.bases:
            name = base.value if isinstance(base, ast.Subscript) else base
            entity = resolve(source, name.id) if isinstance(name, ast.Name) else None
            if entity is None or (entity.outside and entity.name not in ("Generic", "Protocol", "NamedTuple")):
                return False
        return True

    def _used(self, source: Source, statement: ast.stmt) -> list[Entity]:
        entities = []
        for use in uses(statement):
            entity = self.meaning(source, use)
            if entity is None:
                continue
            if entity.outside:
                self.outside[entity] = self.outside.get(entity, False) or not use.annotation
            elif not use.annotation:
                entities.append(entity)
        return entities

    def meaning(self, source: Source, use: Use) -> Entity | None:
        """What is used: of ``module.name`` with a module that counts, the name in it."""
        try:
            entity = resolve(source, use.node.id)
            if entity is not None and use.attribute is not None:
                return attribute(entity, use.attribute.attr) or entity
        except LabError:
            if use.annotation:
                return None
            raise
        return entity

    def has(self, entity: Entity) -> bool:
        """Whether it was taken."""
        return entity in self._entities


def registers(source: Source, decorator: ast.expr) -> bool:
    """Whether a decorator registers something with the lab and changes nothing."""
    node = decorator.func if isinstance(decorator, ast.Call) else decorator
    root = node
    while isinstance(root, ast.Attribute):
        root = root.value
    if not isinstance(root, ast.Name):
        return False
    if root.id in source.tasks:
        return True
    module, inner = source.imported.get(root.id, ("", ""))
    last = node.attr if isinstance(node, ast.Attribute) else inner
    return (module == "lab.contracts" or (module, inner) == ("lab", "contracts")) and last in REGISTERING
