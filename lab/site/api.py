"""The API pages: a page a module, from docstrings and signatures as they are written, without importing anything."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from lab.files import PROJECT

# What `lab.contracts` registers, as a reader knows it.
REGISTERED = {
    "generator": "generator of prompts",
    "regression_predictor": "closed form, regression protocol",
    "token_predictor": "closed form, token protocol",
}
TITLES = {
    "lab": "Core",
    "lab.models": "Models",
    "lab.data": "Data",
    "lab.figures": "Figures",
    "lab.diagnosis": "Diagnosis",
}
LONGEST_VALUE = 90  # of a constant that is shown with its value
SECTIONS = {
    "parameters": "Arguments",
    "attributes": "Attributes",
    "raises": "Raises",
    "returns": "Returns",
    "yields": "Yields",
}
CONSTANT = re.compile(r"[A-Z]\w+")  # or the name of a type
DOCTEST = re.compile(r"(?:^[ ]*>>>.*\n?)(?:^[ ]*\S.*\n?)*", re.MULTILINE)


def modules() -> list[Any]:
    """Every module of the lab that says what it is, in the order of their names, as `griffe` reads it."""
    import griffe

    logging.getLogger("griffe").setLevel(logging.ERROR)  # arguments of one line for several names are no mistake
    root = griffe.load("lab", search_paths=[str(PROJECT)], allow_inspection=False, docstring_parser="google")
    return [module for module in sorted(_inside(root), key=lambda module: str(module.path)) if module.docstring]


def _inside(module: Any) -> Iterator[Any]:
    yield module
    for name, member in module.members.items():
        if not member.is_alias and member.is_module and not name.startswith("__"):
            yield from _inside(member)


def page(module: Any) -> str:
    """The page of one module in Markdown."""
    lines = [
        "---",
        "orphan: true",
        "---",
        "",
        f"# {module.path}",
        "",
        f"[All modules](index.md) · {_source(module)}",
        "",
        f":::{{py:module}} {module.path}",
        ":::",
        "",
        *_text(module.docstring),
    ]
    for member in _public(module):
        lines += _entry(member, ":::::", "")
    return "\n".join(lines) + "\n"


def index(modules: Sequence[Any]) -> str:
    """The list of all modules by package, after what is registered, in Markdown."""
    lines = ["---", "hide-toc: true", "---", "", "# API", ""]
    lines += [
        "Every module says on its page what its parts take and return: shapes in the types, units and errors in the words. "
        "What is registered is checked against its contract and offered by `lab data` or `lab diagnose`.",
        "",
    ]
    packages: dict[str, list[Any]] = {}
    for module in modules:
        packages.setdefault(_package(module.path, module.is_init_module), []).append(module)
    for package, inside in packages.items():
        title = TITLES.get(package, package.rpartition(".")[2].capitalize())
        lines += [f"## {title}", "", "| module | what is in it |", "| --- | --- |"]
        lines += [
            f"| [`{module.path.removeprefix('lab.')}`]({module.path}.md) | {_cell(_first(module))} |"
            for module in inside
        ]
        lines.append("")
    lines += ["## What is registered", "", "| name | what it is | in words |", "| --- | --- | --- |"]
    for module in modules:
        for member in _public(module):
            if kind := _registered(member):
                lines.append(f"| `{member.path}` | {kind} | {_cell(_first(member))} |")
    return "\n".join(lines) + "\n"


def _package(path: str, itself: bool) -> str:
    package = path if itself else path.rpartition(".")[0]
    return ".".join(package.split(".")[:3]) if package.startswith("lab.domains") else ".".join(package.split(".")[:2])


def _public(parent: Any) -> Iterator[Any]:
    """What a module or class offers, in the order of its source."""
    for member in sorted(
        (member for member in parent.members.values() if not member.is_alias and member.lineno),
        key=lambda member: member.lineno,
    ):
        if member.name.startswith("_") or member.is_module:
            continue
        if member.is_function or member.is_class or "property" in member.labels:
            if member.docstring or member.is_class:
                yield member
        elif parent.is_module and CONSTANT.fullmatch(member.name):
            yield member


def _entry(member: Any, fence: str, parent: str) -> list[str]:
    """A function, class, property or constant as a directive of Sphinx's domain of Python, content in Markdown."""
    name = f"{parent}{member.name}"
    options, body = [f":module: {member.module.path}"], []
    if member.is_class:
        kind, head = "class", name + _signature(member.parameters if "dataclass" in member.labels else _initial(member))
    elif member.is_function:
        kind = "method" if parent else "function"
        head = f"{name}{_signature(member.parameters)}" + (f" -> {_type(member.returns)}" if member.returns else "")
        options += [f":{label}:" for label in ("classmethod", "staticmethod") if label in member.labels and parent]
    elif "property" in member.labels:
        kind, head = "property", name
        options += [f":type: {_type(member.annotation)}"] if member.annotation else []
    else:
        kind, head = "data", name
        value = str(member.value)
        options += [f":value: {json.dumps(value)}"] if len(value) <= LONGEST_VALUE and "\n" not in value else []
    if kind != "data":
        registered = _registered(member)
        body += [_source(member) + (f" [{registered}]{{.badge}}" if registered else ""), ""]
    body += _text(member.docstring)
    if member.is_class:
        for inner in _public(member):
            body += _entry(inner, fence[:-1], f"{name}.")
    return [f"{fence}{{py:{kind}}} {head}", *options, "", *body, fence, ""]


def _initial(cls: Any) -> Iterable[Any]:
    start = cls.members.get("__init__")
    return start.parameters if start is not None and start.is_function else []


def _signature(parameters: Iterable[Any]) -> str:
    """Parameters as they are written, without ``self``."""
    shown: list[str] = []
    before = ""
    for parameter in parameters:
        kind = parameter.kind.value if parameter.kind else ""
        if parameter.name in ("self", "cls"):
            continue
        if before == "positional-only" != kind:
            shown.append("/")
        if kind == "keyword-only" and before not in ("keyword-only", "variadic positional"):
            shown.append("*")
        star = {"variadic positional": "*", "variadic keyword": "**"}.get(kind, "")
        annotation = f": {_type(parameter.annotation)}" if parameter.annotation is not None else ""
        default = f" = {parameter.default}" if parameter.default is not None and not star else ""
        shown.append(f"{star}{parameter.name}{annotation}{default}")
        before = kind
    return f"({', '.join(shown)})"


def _type(expression: Any) -> str:
    """A type with the whole names of the lab's own, so that each leads to the one that is meant."""
    path = getattr(expression, "canonical_path", "")
    if isinstance(expression, str) or expression.__class__.__name__ in ("ExprName", "ExprAttribute"):
        return path if path.startswith("lab.") else str(expression)
    return "".join(map(_type, expression.iterate(flat=False)))


def _text(docstring: Any) -> list[str]:
    """A docstring in Markdown: its prose, then a list for each of its sections."""
    if docstring is None:
        return []
    lines: list[str] = []
    for section in docstring.parsed:
        kind = section.kind.value
        if kind == "text":
            lines += [_fenced(section.value), ""]
        elif kind in SECTIONS:
            lines += [f"*{section.title or SECTIONS[kind]}*", ""]
            for element in section.value:
                name = getattr(element, "name", None) or str(element.annotation)
                description = _fenced(element.description).replace("\n", "\n  ")
                lines += [f"`{name}`", f": {description}", ""]
        elif kind == "admonition":
            lines += [f"*{section.title}*: {_fenced(section.value.description)}", ""]
        else:  # examples
            lines += [_fenced("\n\n".join(text for _, text in section.value)), ""]
    return lines


def _fenced(text: str) -> str:
    """Prose whose examples (``>>> …``) stand in blocks of code."""
    return DOCTEST.sub(lambda match: f"```pycon\n{match[0].rstrip()}\n```\n", text)


def _registered(member: Any) -> str:
    for decorator in getattr(member, "decorators", []):
        name = str(decorator.value).partition("(")[0].rpartition(".")[2]
        if name in REGISTERED:
            return REGISTERED[name]
    return ""


def _first(member: Any) -> str:
    """The first sentence or paragraph of what is said of it."""
    text = member.docstring.value if member.docstring else ""
    return " ".join(text.split("\n\n")[0].split())


def _cell(text: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\\|", text)


def _source(member: Any) -> str:
    """The way to its first line, whose place is no heading that Sphinx would know of."""
    page = member.relative_package_filepath.with_suffix(".html").as_posix()
    line = "" if member.is_module else f"#L-{member.lineno}"
    return f'<a class="source" href="../code/{page}{line}">source</a>'
