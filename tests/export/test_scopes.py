"""Which names of a statement are the module's."""

from __future__ import annotations

import ast

import pytest

from lab.export.scopes import uses


@pytest.mark.parametrize(
    ("source", "used"),
    [
        ("def f(a, b=d):\n    c = a\n    return c + e", {"d", "e"}),
        ("x = [one + two for one in three if one]", {"x", "two", "three"}),
        ("x = {k: v for k, v in pairs}", {"x", "pairs"}),
        ("class A(B):\n    size = limit\n    def m(self):\n        return size + self.x", {"B", "limit", "size"}),
        ("def f():\n    def g():\n        return h\n    return g()", {"h"}),
        ("def f():\n    global g\n    g = 1\n    return g", {"g"}),
        ("f = lambda a, *b: a + b + c", {"f", "c"}),
        ("def f():\n    import h\n    return h.x", {"h"}),
        (
            "def f():\n    for i in r:\n        with open(p) as q:\n            i, q\n    return [y for y in z if (w := y)] and w",
            {"r", "open", "p", "z"},
        ),
        ("def f(x: int) -> str:\n    y: float = x\n    return f'{x} {y} {free}'", {"int", "str", "float", "free"}),
    ],
)
def test_names_of_the_module_are_found(source: str, used: set[str]) -> None:
    (statement,) = ast.parse(source).body
    assert {use.node.id for use in uses(statement)} == used


def test_annotations_and_what_runs_later_are_told_apart() -> None:
    (statement,) = ast.parse("def f(a: A, b=now) -> R:\n    c: C = later\n    return a.x").body
    flags = {use.node.id: (use.annotation, use.later) for use in uses(statement)}
    assert flags == {
        "A": (True, False),
        "R": (True, False),
        "C": (True, True),
        "now": (False, False),
        "later": (False, True),
    }
