"""Which names of a statement belong to its module: what it takes from other statements, and where that stands in the text."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


@dataclass(frozen=True)
class Use:
    """A name of the module, or an attribute of one, where it is used.

    Attributes:
        node: the name itself.
        attribute: ``name.attribute`` where an attribute is asked for at once, else None.
        local: the names that mean something else there.
        annotation: whether it stands in an annotation, which is never evaluated.
        later: whether it stands in the body of a function, which is not run where it is defined.
    """

    node: ast.Name
    attribute: ast.Attribute | None
    local: frozenset[str]
    annotation: bool
    later: bool


def uses(statement: ast.stmt) -> Iterator[Use]:
    """Every use of a name of the module in a top-level statement; names that the statement itself stores too."""
    yield from _walk(statement, frozenset(), False, False)


def bound(function: Function) -> frozenset[str]:
    """The names that are local to a function, without those of functions inside it and those that it imports."""
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    names = {argument.arg for argument in every if argument is not None}
    shared: set[str] = set()
    pending: list[ast.AST] = list(function.body) if not isinstance(function, ast.Lambda) else [function.body]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
            continue
        if isinstance(node, ast.Lambda):
            continue
        if isinstance(node, Comprehension):
            pending += [assignment for assignment in ast.walk(node) if isinstance(assignment, ast.NamedExpr)]
            continue
        if isinstance(node, ast.Global):
            shared |= set(node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
            names.add(node.id)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
        elif isinstance(node, ast.MatchAs | ast.MatchStar) and node.name:
            names.add(node.name)
        elif isinstance(node, ast.MatchMapping) and node.rest:
            names.add(node.rest)
        pending += ast.iter_child_nodes(node)
    return frozenset(names - shared)


def _walk(node: ast.AST, local: frozenset[str], annotation: bool, later: bool) -> Iterator[Use]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        yield from _function(node, local, annotation, later)
    elif isinstance(node, ast.ClassDef):
        for outside in (*node.decorator_list, *node.bases, *node.keywords):
            yield from _walk(outside, local, annotation, later)
        members = {target.id for statement in node.body for target in _stored(statement)}
        members |= {statement.name for statement in node.body if isinstance(statement, ast.FunctionDef | ast.ClassDef)}
        for statement in node.body:  # what a class defines is not seen by its methods
            shadowing = local if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef) else local | members
            yield from _walk(statement, shadowing, annotation, later)
    elif isinstance(node, Comprehension):
        targets = {
            name.id
            for generator in node.generators
            for name in ast.walk(generator.target)
            if isinstance(name, ast.Name)
        }
        yield from _walk(node.generators[0].iter, local, annotation, later)
        inner = local | targets
        for place, generator in enumerate(node.generators):
            for part in ([] if place == 0 else [generator.iter]) + generator.ifs:
                yield from _walk(part, inner, annotation, later)
        for part in [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]:
            yield from _walk(part, inner, annotation, later)
    elif isinstance(node, ast.AnnAssign):
        yield from _walk(node.annotation, local, True, later)
        for side in (node.target, *([node.value] if node.value is not None else [])):
            yield from _walk(side, local, annotation, later)
    elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        if node.value.id not in local:
            yield Use(node.value, node, local, annotation, later)
    elif isinstance(node, ast.Name):
        if node.id not in local:
            yield Use(node, None, local, annotation, later)
    elif not isinstance(node, ast.Import | ast.ImportFrom):
        for child in ast.iter_child_nodes(node):
            yield from _walk(child, local, annotation, later)


def _function(node: Function, local: frozenset[str], annotation: bool, later: bool) -> Iterator[Use]:
    arguments = node.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    for default in (*arguments.defaults, *(default for default in arguments.kw_defaults if default is not None)):
        yield from _walk(default, local, annotation, later)
    if not isinstance(node, ast.Lambda):
        for decorator in node.decorator_list:
            yield from _walk(decorator, local, annotation, later)
        for argument in every:
            if argument is not None and argument.annotation is not None:
                yield from _walk(argument.annotation, local, True, later)
        if node.returns is not None:
            yield from _walk(node.returns, local, True, later)
    inner = local | bound(node)
    for part in [node.body] if isinstance(node, ast.Lambda) else node.body:
        yield from _walk(part, inner, annotation, True)


def _stored(statement: ast.stmt) -> list[ast.Name]:
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return []
    return [name for name in ast.walk(statement) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)]
