"""The site is built, its links lead somewhere, and a browser without network finds nothing to complain of."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from lab.cli import main
from lab.pages import sheets
from lab.site import build, claims
from tests.site.browser import CHROMIUM, Browser

SHEET = "mesa-optimization"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of one sheet."""
    for name in build.NEEDS:
        pytest.importorskip(name, reason="the extra [site] is not installed")
    out = tmp_path_factory.mktemp("site") / "html"
    printed, complained = io.StringIO(), io.StringIO()
    with warnings.catch_warnings(), redirect_stdout(printed), redirect_stderr(complained):
        warnings.simplefilter("ignore")  # those of Sphinx and its themes about one another
        status = main(["site", SHEET, "--out", str(out)])
    assert (status, complained.getvalue()) == (0, "")
    assert re.fullmatch(rf"wrote \d+ pages; open {re.escape(str(out / 'index.html'))}\n", printed.getvalue())
    return out


@pytest.fixture(scope="module")
def browser(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine")
    with Browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def visit(site: Path, browser: Browser) -> Iterator[Callable[[str], Browser]]:
    """Opens a page of the site; at the end no page may have complained."""

    def visit(page: str) -> Browser:
        browser.go_to(f"{site.as_uri()}/{page}")
        return browser

    browser.resize(1280, 900)
    browser.complaints.clear()
    yield visit
    assert browser.complaints == []


class _Links(HTMLParser):
    """What a page links to or loads, and the places in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.append(value)
            elif name == "id" and value:
                self.places.add(value)


def test_every_link_leads_to_a_page_and_a_place_in_it(site: Path) -> None:
    pages = {page: _Links(page.read_text(encoding="utf-8")) for page in site.rglob("*.html")}
    lost = []
    for page, parsed in pages.items():
        for link in set(parsed.links):
            target, _, place = unquote(link).partition("#")
            if "://" in target or target.startswith(("data:", "mailto:")):
                continue
            file = (page.parent / target.partition("?")[0]).resolve() if target else page
            if not file.exists() or (place and file in pages and "=" not in place and place not in pages[file].places):
                lost.append(f"{page.relative_to(site)} leads to {link}")
    assert lost == []


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    loads = re.compile(r"<(?:script|img|link|iframe)\b[^>]*\b(?:src|href)=\"https?:[^\"]*\"")
    for page in site.rglob("*.html"):
        assert loads.findall(page.read_text(encoding="utf-8")) == []
    for style in site.rglob("*.css"):
        assert re.findall(r"url\(\s*['\"]?https?:|@import", style.read_text(encoding="utf-8")) == []


def test_the_site_shows_what_is_stored(site: Path) -> None:
    rows = claims.rows({SHEET: sheets()[SHEET]})
    shown = re.findall(r'<tr [^>]*data-verdict="([^"]+)"', (site / "claims.html").read_text(encoding="utf-8"))
    assert shown == [row.record["verdict"] for row in rows]
    sheet = (site / "figures" / SHEET / "index.html").read_text(encoding="utf-8")
    assert all(f'id="{claims.anchor(row.claim.id)}"' in sheet for row in rows)
    pictures = {figure for task in sheets()[SHEET] for figure in task.figures}
    gallery = (site / "gallery.html").read_text(encoding="utf-8")
    assert {name for name in pictures if f"{name}.png" in gallery and f"{name}.csv" in gallery} == pictures
    notebook = (site / "tasks" / "mesa_optimization" / "exact_descent.html").read_text(encoding="utf-8")
    assert '<details class="admonition hide above-input">' in notebook  # the plumbing is folded
    assert f'href="../../figures/{SHEET}/index.html#claim-T1"' in notebook  # a claim leads to its sheet
    dictionary = (site / "figures" / "dictionary.html").read_text(encoding="utf-8")
    assert f'href="{SHEET}/index.html#claim-C1"' in dictionary


VISIBLE = "[...document.querySelectorAll('table.claims tbody tr')].filter(row => row.offsetHeight > 0)"


def choose(browser: Browser, name: str, value: str) -> int:
    """Set one filter as a user does; returns how many claims are seen."""
    field = f"document.querySelector('form.filters [name={name}]')"
    browser.value(f"{field}.value = {value!r}; {field}.dispatchEvent(new Event('input', {{bubbles: true}}))")
    return int(browser.value(f"{VISIBLE}.length"))


def test_claims_are_filtered_and_searched(visit: Callable[[str], Browser]) -> None:
    rows = claims.rows({SHEET: sheets()[SHEET]})
    browser = visit("claims.html")
    assert browser.value(f"{VISIBLE}.length") == len(rows)
    identities = sum(row.claim.kind == "identity" for row in rows)
    assert 0 < identities < len(rows)
    assert choose(browser, "kind", "identity") == identities
    assert browser.value("document.querySelector('output').textContent") == f"{identities} of {len(rows)} claims"
    about = [row for row in rows if row.claim.kind == "identity" and "Gaussian" in row.claim.statement]
    assert len(about) <= choose(browser, "text", "gaussian") < identities
    address = browser.value("location.hash")
    assert choose(browser, "text", "no claim says this") == 0
    browser.value("document.querySelector('form.filters button').click()")
    assert browser.value(f"new Promise(done => setTimeout(() => done({VISIBLE}.length), 50))") == len(rows)
    visit(f"claims.html{address}")  # a view can be sent to someone
    assert len(about) <= browser.value(f"{VISIBLE}.length") < identities
    for name, options in claims.choices(rows).items():
        browser = visit("claims.html")
        for value, count in options:
            assert choose(browser, name, value) == count


def test_a_reader_goes_from_the_front_page_to_a_claim(visit: Callable[[str], Browser]) -> None:
    browser = visit("index.html")
    number = browser.value("document.querySelector('.numbers a[href*=\"verdict=holds\"]').href")
    browser.go_to(number)
    assert browser.value(f"new Set({VISIBLE}.map(row => row.dataset.verdict)).size") == 1
    browser.go_to(browser.value("document.querySelector('table.claims td a').href"))
    in_view = "Math.abs(document.querySelector('tr:target').getBoundingClientRect().top) < innerHeight"
    assert browser.value(f"new Promise(done => setTimeout(() => done({in_view}), 100))")
    assert browser.value("document.querySelector('tr:target math') !== null")
    assert browser.value("document.fonts.ready.then(() => document.fonts.check('16px \"STIX Two Math\"'))")


def test_the_whole_site_is_searched_without_a_server(visit: Callable[[str], Browser]) -> None:
    browser = visit("search.html?q=mesa")
    hits = "document.querySelectorAll('#search-results li').length"
    assert browser.value(
        f"new Promise(done => {{ const ask = n => {hits} || !n ? done({hits}) : setTimeout(ask, 50, n - 1); ask(100); }})"
    )


@pytest.mark.parametrize("width", [390, 1280])
def test_every_kind_of_page_fits_the_screen(site: Path, visit: Callable[[str], Browser], browser: Browser, width: int):
    browser.resize(width, 844)
    kinds = [
        "index",
        "claims",
        "gallery",
        "verdicts",
        f"figures/{SHEET}/index",
        "tasks/mesa_optimization/exact_descent",
    ]
    guides = [f"figures/{file.stem}" for file in (site / "figures").glob("*.html")]
    api = [
        str(file.relative_to(site).with_suffix("")) for file in [*site.glob("api/*.html"), *site.glob("code/**/*.html")]
    ]
    for page in [*kinds, *guides, *sorted(api)[::8]]:
        visit(f"{page}.html")
        assert browser.value("document.scrollingElement.scrollWidth") <= width, page


def test_what_is_missing_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys) -> None:
    monkeypatch.setattr(build, "NEEDS", ("sphinx_of_nobody",))
    assert main(["site", "--out", str(tmp_path / "site")]) == 2
    errors = capsys.readouterr().err
    assert errors == "lab: `lab site` needs sphinx_of_nobody, not installed here; run pip install -e '.[site]'\n"
    monkeypatch.setattr(build, "CLONE", False)
    assert main(["site", "--out", str(tmp_path / "site")]) == 2
    assert "of a clone of the repository" in capsys.readouterr().err
    assert not (tmp_path / "site").exists()


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(monkeypatch, tmp_path: Path, capsys) -> None:
    monkeypatch.setattr(build, "NEEDS", ())
    monkeypatch.setattr("lab.site.tree.plant", None)
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine", encoding="utf-8")
    for out, sentence in (
        ("file", "holds something that is no site, and would be replaced; name an empty or a new folder"),
        ("full", "holds something that is no site"),
        ("file/site", "cannot be written: not a directory"),
    ):
        assert main(["site", "--out", str(tmp_path / out)]) == 2
        assert sentence in capsys.readouterr().err
    assert (tmp_path / "full" / "thesis.tex").exists()
    assert main(["site", "mesa-optimisation", "--out", str(tmp_path / "new")]) == 2
    assert "there is no sheet 'mesa-optimisation' (did you mean 'mesa-optimization'?)" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
