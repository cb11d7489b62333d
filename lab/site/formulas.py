"""Formulas as MathML, which browsers draw without a script, and short Markdown as HTML."""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lab.errors import LabError

# A fence of ordinary size before an exponent: browsers put the exponent above it, where TeX puts it beside its top.
FENCE = re.compile(r'(<msu(?:p|bsup)>)(<mo stretchy="false"[^>]*>[^<]</mo>)')
# What the committed pages write for readers that know no ``\\`` (`lab.report.portable`), and what MathML Core lacks.
PLAIN = {r"\cr ": r"\\ ", "{smallmatrix}": "{matrix}"}


@cache
def mathml(latex: str, display: bool = False) -> str:
    r"""A formula as a MathML element.

    Args:
        latex: the formula without dollar signs.
        display: whether it stands on a line of its own.

    Raises:
        LabError: it cannot be read; the message names the formula and what is wrong.
    """
    from math_core import LatexError

    for written, meant in PLAIN.items():
        latex = latex.replace(written, meant)
    try:
        drawn = str(_converter().convert_with_local_state(latex, displaystyle=display))
    except LatexError as error:
        reason = " ".join(str(error).split())
        raise LabError(f"the formula ${latex}$ cannot be drawn ({reason}); write it with commands of LaTeX") from error
    return FENCE.sub(r'\1<mpadded height="0.66em">\2</mpadded>', drawn)


@cache
def _converter() -> Any:
    from math_core import LatexToMathML

    return LatexToMathML(fancy_error=False)


def inline(markdown: str) -> str:
    """A sentence in Markdown (formulas, emphasis, code) as HTML."""
    return str(_markdown().renderInline(" ".join(markdown.split())))


@cache
def _markdown() -> Any:
    from markdown_it import MarkdownIt
    from mdit_py_plugins.dollarmath import dollarmath_plugin

    def draw(content: str, options: dict[str, Any]) -> str:
        return mathml(content, options["display_mode"])

    return MarkdownIt("commonmark", {"html": False}).use(dollarmath_plugin, renderer=draw)


def font() -> Path:
    """The font that formulas are set in, STIX Two Math."""
    spec = find_spec("ziamath")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "fonts" / "STIXTwoMath-Regular.ttf"
