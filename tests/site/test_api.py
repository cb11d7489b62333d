"""API pages say what the source says, and where it stands."""

from __future__ import annotations

from typing import Any

import pytest

from lab.contracts import all_registered
from lab.files import PROJECT

pytest.importorskip("griffe", reason="the extra [site] is not installed")

from lab.site import api


@pytest.fixture(scope="module")
def modules() -> dict[str, Any]:
    return {module.path: module for module in api.modules()}


def test_every_module_has_a_page(modules: dict[str, Any]) -> None:
    files = {
        ".".join(file.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")
        for file in (PROJECT / "lab").rglob("[!_]*.py")
    }
    assert files - {"lab.own.template"} <= set(modules)  # which is a task to be copied, and begins as one


def test_a_page_has_shapes_units_errors_and_the_place_in_the_source(modules: dict[str, Any]) -> None:
    page = api.page(modules["lab.domains.regression.kaczmarz"])
    signature = "kaczmarz_weights(x: Float[Tensor, 'batch context dimension'], y: Float[Tensor, 'batch context'], *, passes: int = 1"
    assert f"{{py:function}} {signature}" in page
    assert "`relaxation`\n: $\\rho$ in (0, 2); 1 projects." in page
    assert "*Raises*\n\n`LabError`\n: fewer than one pass, or a relaxation outside (0, 2)." in page
    lines = (PROJECT / "lab" / "domains" / "regression" / "kaczmarz.py").read_text(encoding="utf-8").splitlines()
    place = next(number for number, line in enumerate(lines, start=1) if line.startswith("def kaczmarz_weights("))
    assert f'href="../code/lab/domains/regression/kaczmarz.html#L-{place}"' in page
    assert "_substitute" not in page


def test_types_of_the_lab_are_named_in_full_and_examples_are_code(modules: dict[str, Any]) -> None:
    assert "finding: lab.findings.Finding" in api.page(modules["lab.pages"])
    assert "```pycon\n>>> causal(3).int().tolist()" in api.page(modules["lab.models.masks"])


def test_the_list_names_all_that_is_registered(modules: dict[str, Any]) -> None:
    index = api.index(list(modules.values()))
    registered = {registration.name for registration in all_registered()}
    assert len(registered) > 20
    assert {name for name in registered if f"| `{name}` |" in index} == registered
