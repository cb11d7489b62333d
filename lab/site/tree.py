"""The source tree of the site: committed pages and notebooks, and the pages made for it, as Markdown for Sphinx.

The tree mirrors the repository, so that pages, pictures and notebooks find each other where they always do. A page of the
repository comes in by where it lies (``figures/*.md``, ``figures/SHEET/``, the notebooks beside a sheet's files, the
sections of README.md), never by a list.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path, PurePosixPath

from lab import pages
from lab.errors import LabError
from lab.files import PROJECT
from lab.site import api, claims, front
from lab.site.code import code_page
from lab.tasks import Task

logger = logging.getLogger("lab")

LINK = re.compile(r"\[(?P<text>[^\[\]]*)\]\((?P<target>[^()\s#]+)(?P<anchor>#[^()\s]*)?\)|src=\"(?P<source>[^\"]+)\"")
IMPORT = re.compile(r"^from (lab[\w.]*) import", re.MULTILINE)
# In which part of the navigation a page of ``figures/`` stands, if not among the guides.
RESULTS, CHECKS = ("papers", "dictionary"), ("verification",)
AUTHORED = Path(__file__).parent / "pages"


class Tree:
    """A folder that is being filled with pages.

    Attributes:
        folder: where.
        sheets: the sheets that the site shows, each with its parts.
        code: files of Python, relative to the project, that some page links to.
    """

    def __init__(self, folder: Path, sheets: Mapping[str, Sequence[Task]]) -> None:
        self.folder = folder
        self.sheets = sheets
        self.code: set[PurePosixPath] = set()

    def add(self, name: str, text: str, origin: str = "") -> None:
        """Write a page; ``origin`` is its path in the project, from which its links lead."""
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(self.linked(text, origin) if origin else text, encoding="utf-8")

    def copy(self, file: Path) -> None:
        """Take a file of the project over to where it lies there."""
        target = self.folder / file.relative_to(PROJECT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)

    def linked(self, text: str, origin: str) -> str:
        """Links between files of the project as links between pages; one to a sheet that is left out becomes its words."""
        return LINK.sub(partial(self._link, PROJECT / origin), text)

    def _link(self, page: Path, match: re.Match[str]) -> str:
        target = match["target"] or match["source"]
        file = (page.parent / target).resolve()
        if "://" in target or not file.is_relative_to(PROJECT) or not file.is_file():
            return match[0]
        place = PurePosixPath(file.relative_to(PROJECT).as_posix())
        if not self._shown(place):
            return match["text"] or ""
        if place.suffix == ".py":
            self.code.add(place)
            place = PurePosixPath("code") / place.with_suffix(".md")
        elif place.name == "README.md":
            place = place.with_name("index.md")
        elif place.suffix not in (".md", ".ipynb"):
            self.copy(file)  # it becomes a download
        return f'src="/{place}"' if match["source"] else f"[{match['text']}](/{place}{match['anchor'] or ''})"

    def _shown(self, place: PurePosixPath) -> bool:
        """Whether a file is of the whole project, or of a sheet that the site shows."""
        inside = place.parts[0] in ("figures", "tasks", "proofs_check") and len(place.parts) > 1
        name = PurePosixPath(place.parts[1]).stem.replace("_", "-") if inside else ""
        return name in self.sheets or name not in pages.sheets()


def plant(folder: Path, sheets: Mapping[str, Sequence[Task]]) -> dict[str, tuple[str, str]]:
    """Fill ``folder`` with the whole source tree; returns page and anchor of every claim.

    Args:
        folder: an empty one.
        sheets: the sheets to show.

    Raises:
        LabError: verdicts, or a page that the site is made from, are missing or damaged.
    """
    tree = Tree(folder, sheets)
    rows = claims.rows(sheets)
    for name, parts in sheets.items():
        _plant_sheet(tree, name, parts, [row for row in rows if row.sheet == name])
    guides = _plant_guides(tree)
    handbook = _plant_handbook(tree)
    tree.add("figures/index.md", front.sheets_page(sheets, rows))
    tree.add("claims.md", front.claims_page(rows))
    tree.add("gallery.md", front.gallery_page(sheets))
    tree.add("verdicts.md", front.filled((AUTHORED / "verdicts.md").read_text(encoding="utf-8"), rows))
    tree.add("CHANGELOG.md", (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8"), "CHANGELOG.md")
    usage_guides = [page for page in guides if page not in _of(guides, RESULTS + CHECKS)]
    navigation = {
        "Results": ["figures/index", "claims", "gallery", *map(_labelled, _of(guides, RESULTS))],
        "Using the lab": [*handbook, *map(_labelled, usage_guides)],
        "Why to trust it": ["verdicts", *map(_labelled, _of(guides, CHECKS)), "CHANGELOG"],
        "Reference": ["api/index"],
    }
    opening = front.front_page(_readme()[0], rows, sheets, navigation)
    tree.add("index.md", opening + "\n".join(map(_contents, navigation, navigation.values())), "README.md")
    _plant_code(tree)
    return {row.claim.id: (f"figures/{row.sheet}/index", claims.anchor(row.claim.id)) for row in rows}


def _plant_sheet(tree: Tree, name: str, parts: Sequence[Task], rows: Sequence[claims.Row]) -> None:
    by_id = {row.claim.id: row for row in rows}

    def table(records: Iterable[pages.Record], task: Task) -> str:
        return front.html(claims.table(by_id[record["id"]] for record in records))

    for picture in sorted(pages.figure_folder(name).glob("*.png")):
        tree.copy(picture)
        if picture.with_suffix(".csv").is_file():
            tree.copy(picture.with_suffix(".csv"))
    notebooks = [task.file.with_suffix(".ipynb") for task in parts if task.place == "tasks"]
    for notebook in [notebook for notebook in notebooks if not notebook.is_file()]:
        logger.warning("%s is not there, so the site has no page of it; `make notebooks` makes it", notebook)
    existing = [notebook for notebook in notebooks if notebook.is_file()]
    for notebook in existing:
        tree.copy(notebook)
    text = pages.sheet_page(name, parts, table)
    links = [f"/{notebook.relative_to(PROJECT).with_suffix('').as_posix()}" for notebook in existing]
    tree.add(f"figures/{name}/index.md", f"{text}\n{_contents('', links)}", f"figures/{name}/README.md")


def _plant_guides(tree: Tree) -> list[str]:
    """The pages that lie in ``figures/`` itself."""
    guides = []
    for file in sorted((PROJECT / "figures").glob("*.md")):
        if file.name != "README.md":
            place = file.relative_to(PROJECT).as_posix()
            tree.add(place, file.read_text(encoding="utf-8"), place)
            guides.append(place.removesuffix(".md"))
    return guides


def _of(guides: Sequence[str], names: Sequence[str]) -> list[str]:
    return [f"figures/{name}" for name in names if f"figures/{name}" in guides]


def _labelled(page: str) -> str:
    """A page under its file's name, which is short; by its title where a section of README.md has that name."""
    name = page.rpartition("/")[2].replace("-", " ").capitalize()
    return page if name in dict(_readme()) else f"{name} <{page}>"


@cache
def _readme() -> list[tuple[str, str]]:
    """README.md cut at its headings: each with the text below it, the title first."""
    text = pages.front_page()
    cut = re.split(r"^(#{1,2}) (.+)$", text, flags=re.MULTILINE)
    if cut[0].strip() or cut[1:2] != ["#"]:
        raise LabError(f"{PROJECT / 'README.md'} does not begin with a line '# Title'; give it one")
    return list(zip(cut[2::3], cut[3::3], strict=True))


def _plant_handbook(tree: Tree) -> list[str]:
    """The sections of README.md, but the one of findings, which the front page shows."""
    sections = []
    for title, body in _readme()[1:]:
        if pages.BEGIN not in body:
            name = "handbook/" + re.sub(r"\W+", "-", title.lower()).strip("-")
            tree.add(f"{name}.md", f"# {title}\n{re.sub(r'^###', '##', body, flags=re.MULTILINE)}", "README.md")
            sections.append(name)
    return sections


def _plant_code(tree: Tree) -> None:
    """The API (of a site with some of the sheets: what these import), and every file of Python that a page leads to."""
    used = {name for parts in tree.sheets.values() for file in _files(parts) for name in IMPORT.findall(file)}
    complete = len(tree.sheets) == len(pages.sheets())
    modules = [module for module in api.modules() if complete or module.path in used]
    tree.add("api/index.md", api.index(modules))
    for module in modules:
        tree.add(f"api/{module.path}.md", api.page(module))
        tree.code.add(PurePosixPath(module.relative_package_filepath.as_posix()))
    for place in sorted(tree.code):
        tree.add(f"code/{place.with_suffix('.md')}", code_page(PROJECT / place, str(place)))


def _files(parts: Sequence[Task]) -> Iterable[str]:
    """The text of every file of a sheet."""
    for task in parts:
        for file in task.file.parent.glob("*.py") if task.part else (task.file,):
            yield file.read_text(encoding="utf-8")


def _contents(caption: str, links: Sequence[str]) -> str:
    options = [":hidden:"] + ([f":caption: {caption}"] if caption else [])
    return "\n".join(["```{toctree}", *options, "", *links, "```", ""]) if links else ""
