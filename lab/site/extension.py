"""What the site adds to Sphinx: formulas without scripts, names that link themselves, pictures fetched when they are seen."""

from __future__ import annotations

from functools import cache
from typing import Any

from lab.site.formulas import mathml


def setup(app: Any) -> dict[str, bool]:
    """What Sphinx calls; ``lab_claims`` maps the id of a claim to its page and its place there."""
    app.add_config_value("lab_claims", {}, "env")
    app.add_html_math_renderer("mathml", inline_renderers=(_inline, None), block_renderers=(_block, None))
    app.add_search_language(_search())
    app.connect("doctree-resolved", _link_names)
    app.connect("doctree-resolved", _fetch_later)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _link_names(app: Any, doctree: Any, page: str) -> None:
    """The id of a claim, or the name of a part of the lab, leads to where it is explained wherever it is set apart."""
    from docutils import nodes
    from sphinx.util.nodes import make_refnode

    module = page.removeprefix("api/") if page.startswith("api/") else ""
    parts = app.env.domains.python_domain.objects
    for word in list(doctree.findall(lambda node: isinstance(node, nodes.literal | nodes.strong))):
        name = word.astext()
        if isinstance(word.parent, nodes.reference | nodes.title):
            continue
        place = app.config.lab_claims.get(name)
        # (`lab` alone is the command.)
        entries = [parts[full] for full in (name, f"{module}.{name}") if "." in full and full in parts]
        if place is None and entries:
            place = entries[0].docname, entries[0].node_id
        if place is not None:
            target, spot = place
            word.replace_self(make_refnode(app.builder, page, target, spot, word.deepcopy()))


def _fetch_later(app: Any, doctree: Any, page: str) -> None:
    """Pictures on cards wait until they are seen; others, whose height is not fixed, would move the text below them."""
    from docutils import nodes

    for card in doctree.findall(lambda node: isinstance(node, nodes.container) and "card" in node["classes"]):
        for picture in card.findall(nodes.image):
            picture["loading"] = "lazy"


def _inline(translator: Any, node: Any) -> None:
    from docutils.nodes import SkipNode

    translator.body.append(mathml(node.astext()))
    raise SkipNode


def _block(translator: Any, node: Any) -> None:
    from docutils.nodes import SkipNode

    translator.body.append(f'<div class="formula">{mathml(node.astext(), display=True)}</div>')
    raise SkipNode


def _search() -> type:
    """The search in English, each word reduced to its stem once: the same words stand on hundreds of pages."""
    from sphinx.search.en import SearchEnglish

    class Search(SearchEnglish):
        def __init__(self, options: dict[str, str]) -> None:
            super().__init__(options)
            self._reduced = cache(super().stem)

        def stem(self, word: str) -> str:
            return self._reduced(word)

    return Search
