"""Building the site: from stored evidence and committed pages to a folder of HTML."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lab import pages
from lab.errors import LabError, nearest
from lab.files import CLONE, PROJECT, NotWritten, require_writable

OUT = PROJECT / "build" / "site"
NEEDS = ("sphinx", "myst_nb", "furo", "math_core", "ziamath", "griffe")
MARK = "objects.inv"  # by which a folder is known to hold a site
STATIC = Path(__file__).parent / "static"
# One quiet colour for what leads somewhere; blue and red belong to the pictures.
LIGHT = dict.fromkeys(("color-brand-primary", "color-brand-content", "color-brand-visited"), "#0f6b63")
DARK = dict.fromkeys(LIGHT, "#6cc5b9")


@dataclass(frozen=True)
class Built:
    """A finished site.

    Attributes:
        out: its folder; ``index.html`` is the front page.
        pages: how many pages it has.
        faults: what Sphinx found wrong, such as links that lead nowhere; one line each.
    """

    out: Path
    pages: int
    faults: tuple[str, ...]


def build(out: Path = OUT, names: Sequence[str] = ()) -> Built:
    """Build the site, and put it in place of the one that was there.

    Args:
        out: its folder.
        names: names of the sheets to show; all if empty.

    Raises:
        LabError: this is no clone, what ``[site]`` brings is not installed, a sheet is unknown, or evidence is missing.
        NotWritten: ``out`` cannot be written. All but missing evidence is refused before the work.
    """
    _check_installed()
    sheets = _chosen(names)
    _check_out(out)
    from lab.site import tree

    with tempfile.TemporaryDirectory(prefix="lab-site-") as temporary:
        source = Path(temporary) / "source"
        places = tree.plant(source, sheets)
        faults = _run_sphinx(source, Path(temporary) / "html", Path(temporary) / "doctrees", places)
        _replace(out, Path(temporary) / "html")
    return Built(out, sum(1 for _ in out.rglob("*.html")), faults)


def _check_installed() -> None:
    if not CLONE:
        raise LabError(
            f"`lab site` shows the pages, pictures and notebooks of a clone of the repository, and this lab is installed in "
            f"{PROJECT} without one; clone it, run pip install -e '.[site]' there and repeat the command"
        )
    missing = [name for name in NEEDS if find_spec(name) is None]
    if missing:
        raise LabError(f"`lab site` needs {', '.join(missing)}, not installed here; run pip install -e '.[site]'")


def _chosen(names: Sequence[str]) -> dict[str, Any]:
    known = pages.sheets()
    for name in names:
        if name not in known:
            raise LabError(f"there is no sheet {name!r}{nearest(name, known)}; the sheets are {', '.join(known)}")
    return {name: parts for name, parts in known.items() if name in names or not names}


def _check_out(out: Path) -> None:
    """Refuse a folder that cannot be written, or that holds something else, which the site would replace."""
    try:
        other = out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / MARK).is_file()))
    except OSError as error:
        raise NotWritten.because(out, error) from error
    if other:
        raise LabError(f"{out} holds something that is no site, and would be replaced; name an empty or a new folder")
    require_writable(out, out.parent)


def _run_sphinx(source: Path, html: Path, doctrees: Path, places: Mapping[str, Any]) -> tuple[str, ...]:
    from sphinx.application import Sphinx

    from lab.site.formulas import font

    warnings = io.StringIO()
    fonts = source.parent / "static"
    fonts.mkdir()
    shutil.copyfile(font(), fonts / font().name)
    settings = {
        "project": "Theory lab",
        "html_title": "Theory lab",
        "version": version("theory-lab"),
        "extensions": ["myst_nb", "lab.site.extension"],
        "html_theme": "furo",
        "html_theme_options": {"light_css_variables": LIGHT, "dark_css_variables": DARK},
        "html_static_path": [str(STATIC), str(fonts)],
        "html_css_files": ["site.css"],
        "html_js_files": [("site.js", {"defer": "defer"})],
        "html_math_renderer": "mathml",
        "html_copy_source": False,
        "html_show_sourcelink": False,
        "html_show_copyright": False,
        "html_show_search_summary": False,  # it would fetch pages, which a browser forbids without a server
        "myst_enable_extensions": ["attrs_inline", "colon_fence", "deflist", "dollarmath", "html_image"],
        "myst_heading_anchors": 3,
        "suppress_warnings": ["myst.header"],  # sheets leave a level out below their title
        "nb_execution_mode": "off",
        "nb_code_prompt_show": "show code",
        "nb_code_prompt_hide": "hide code",
        "nb_render_markdown_format": "myst",
        "add_module_names": False,
        "python_use_unqualified_type_names": True,
        "python_maximum_signature_line_length": 88,
        "toc_object_entries_show_parents": "hide",
        "lab_claims": dict(places),
    }
    app = Sphinx(source, None, html, doctrees, "html", settings, status=None, warning=warnings, freshenv=True)
    app.build(force_all=True)
    return tuple(line.replace(f"{source}{os.sep}", "") for line in warnings.getvalue().splitlines() if line.strip())


def _replace(out: Path, html: Path) -> None:
    """Put a finished folder in place of ``out``; there is a whole site at every moment but one."""
    fresh = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        shutil.copytree(html, fresh)
        shutil.rmtree(out)
        fresh.rename(out)
    except OSError as error:
        raise NotWritten.because(out, error) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
