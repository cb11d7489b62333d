"""A file of Python as a page, each line a place that links can lead to."""

from __future__ import annotations

from pathlib import Path

from lab.site.front import html


def code_page(file: Path, name: str) -> str:
    """The page of ``file``, called ``name``, in Markdown; line 12 is at ``#L-12``."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    shown = highlight(
        file.read_text(encoding="utf-8"),
        PythonLexer(),
        HtmlFormatter(linenos="inline", lineanchors="L", anchorlinenos=True, cssclass="highlight source-file"),
    )
    return f"---\norphan: true\nhide-toc: true\nnosearch: true\n---\n\n# {name}\n\n{html(shown)}\n"
