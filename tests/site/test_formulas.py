"""Formulas become MathML, and one that cannot is named."""

from __future__ import annotations

import pytest

from lab import LabError
from lab.catalogue import discover
from lab.files import PROJECT
from lab.report import FORMULA
from lab.site.formulas import inline, mathml

pytest.importorskip("math_core", reason="the extra [site] is not installed")
pytest.importorskip("markdown_it", reason="the extra [site] is not installed")


def test_every_formula_of_the_claims_and_pages_can_be_drawn() -> None:
    texts = [claim.statement + claim.condition for task in discover() for claim in task.claims.values()]
    texts += [page.read_text(encoding="utf-8") for page in (PROJECT / "figures").rglob("*.md")]
    drawn = [mathml(formula.strip("$")) for text in texts for formula in FORMULA.findall(text)]
    assert len(drawn) > 1000
    assert all(markup.startswith("<math") for markup in drawn)


def test_an_exponent_stands_beside_the_top_of_a_fence() -> None:
    assert '<mpadded height="0.66em"><mo stretchy="false">)</mo></mpadded><mi>n</mi>' in mathml("(1 - 1/d)^n")
    assert "mpadded" not in mathml("x^n")


def test_matrices_of_portable_pages_are_drawn() -> None:
    assert mathml(r"\begin{pmatrix} a & b \cr  c & d \end{pmatrix}").count("<mtr>") == 2


def test_a_formula_that_cannot_be_drawn_is_named() -> None:
    with pytest.raises(LabError, match=r"the formula \$x \+ \\nonsense\$ cannot be drawn"):
        mathml(r"x + \nonsense")


def test_a_sentence_in_markdown_becomes_html() -> None:
    assert inline("the **step** is\n`eta` < 1") == "the <strong>step</strong> is <code>eta</code> &lt; 1"
    assert inline("a <script>") == "a &lt;script&gt;"
    assert inline("of $x_1$ and $2") == f'of <span class="math inline">{mathml("x_1")}</span> and $2'
