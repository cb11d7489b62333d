"""Which room may import which, that no import runs in a circle, and how long a file may be.

``python -m tests.test_architecture`` writes the page made from the table below.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import networkx as nx
import pytest

from lab.files import FOLDERS, PROJECT, write

PAGE = PROJECT / "figures" / "architecture.md"
LONGEST = 800


@dataclass(frozen=True)
class Room:
    """Modules that belong together: names of files or packages below ``lab``, and the rooms they may import."""

    holds: tuple[str, ...]
    imports: tuple[str, ...] = ()


def _room(holds: str, imports: str = "") -> Room:
    return Room(tuple(holds.split()), tuple(imports.split()))


WINGS = ("addition", "attention", "chains", "copying", "derivations", "dynamics", "graphs", "machines", "regression")
SHEET = " ".join(
    ("lab", "ground", "models", "training", *WINGS, "evaluation", "figures", "declarations", "measurements")
)
# From the ground up: a room may import only rooms that stand above it in this table, and of those the ones it names.
ROOMS: dict[str, Room] = {
    "ground": _room(
        "errors files configuration context unfinished progress streams statistics predictors contracts source labels papers"
    ),
    "models": _room("models", "ground"),
    "training": _room("training decoding", "ground models"),
    **{wing: _room(f"domains.{wing}", "ground models training") for wing in WINGS},
    # It turns networks into predictors of regression prompts, so it knows how that wing writes tokens.
    "evaluation": _room("evaluation study", "ground models training regression"),
    "figures": _room("figures", "ground"),
    "declarations": _room("evidence power claims tasks", "ground figures"),
    # The contract of a sequence mixer runs it under masks.
    "measurements": _room("catalogue runs shipped execution results checks repeat", "ground models declarations"),
    "reports": _room(
        "report coverage findings kept_networks pages reproduction rehearsal replication notebooks stored citations sweeps "
        "comparing planning",
        "ground figures declarations measurements",
    ),
    "lab": _room("", "ground declarations reports"),
    "dictionary": _room("dictionary", "ground"),
    "diagnosis": _room("diagnosis", f"ground models {' '.join(WINGS)} evaluation figures measurements"),
    # Exact answers are those of the wings whose prompts it writes.
    "data": _room("data", f"ground {' '.join(WINGS)} measurements"),
    # Pages of what is stored; the modules it documents are read, not imported.
    "site": _room("site", "ground declarations measurements reports"),
    # The file that `lab new` writes is a task like any other; the page runs what it shows through the command line.
    "template": _room("own.new own.template", SHEET),
    # A script is written from the source of what a claim depends on.
    "export": _room("export", "lab ground declarations measurements reports"),
    "command line": _room(
        "cli options listing showing __main__",
        "ground declarations measurements reports dictionary data diagnosis site template export",
    ),
    "tutorial": Room(("own",), ("ground", "template", "command line")),
    "benchmarks": _room("benchmarks", f"ground models training {' '.join(WINGS)} measurements diagnosis"),
    # A task may offer its prompts to the diagnosis.
    "tasks": _room("", f"{SHEET} diagnosis"),
    "proofs_check": _room("", SHEET),
}


def _name(file: Path) -> str:
    return ".".join(file.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")


@cache
def _files(*folders: str) -> dict[str, Path]:
    return {_name(file): file for folder in folders for file in sorted((PROJECT / folder).rglob("*.py"))}


def _imports(source: str, known: Iterable[str]) -> set[str]:
    """The modules among ``known`` that a source imports, wherever in it the statement stands."""
    imported: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            assert node.level == 0, f"relative import of {base!r}; write the whole name"
            inner = {f"{base}.{alias.name}" for alias in node.names}
            imported |= {name if name in known else base for name in inner}
    return imported & set(known)


@cache
def _arrows(*folders: str) -> dict[str, frozenset[str]]:
    files = _files(*folders)
    return {name: frozenset(_imports(file.read_text(encoding="utf-8"), files)) for name, file in files.items()}


def room_of(module: str) -> str | None:
    """The room that holds a module; None if it has no place in the table."""
    if module == "lab" or module.split(".")[0] in FOLDERS:
        return module.split(".")[0]
    inner = module.removeprefix("lab.")
    for name, room in ROOMS.items():
        if any(inner == held or inner.startswith(f"{held}.") for held in room.holds):
            return name
    return None


def forbidden(arrows: Mapping[str, Iterable[str]]) -> list[str]:
    """Every import that the table does not allow, in words."""
    sentences = []
    for module, targets in arrows.items():
        for target in targets:
            room, target_room = room_of(module), room_of(target)
            if room is None or target_room is None:
                continue  # a package that only holds rooms, or a module that another test misses
            if target_room != room and target_room not in ROOMS[room].imports:
                sentences.append(f"{module} ({room}) imports {target} ({target_room})")
    return sorted(sentences)


def circles(arrows: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Groups of modules that import each other, directly or through others."""
    graph = nx.DiGraph([(module, target) for module, targets in arrows.items() for target in targets])
    return sorted(
        sorted(group)
        for group in nx.strongly_connected_components(graph)
        if len(group) > 1 or any(graph.has_edge(module, module) for module in group)
    )


def test_every_module_has_a_room() -> None:
    packages = {"lab.domains"}  # it holds the wings and nothing else
    assert [name for name in _files("lab") if room_of(name) is None and name not in packages] == []


def test_the_table_points_one_way() -> None:
    order = list(ROOMS)
    for name, room in ROOMS.items():
        assert all(other in order[: order.index(name)] for other in room.imports), name


def test_no_wing_may_import_another() -> None:
    assert {wing.name for wing in (PROJECT / "lab" / "domains").iterdir() if wing.is_dir() and wing.name[0] != "_"} == {
        *WINGS
    }
    assert [wing for wing in WINGS if set(WINGS) & set(ROOMS[wing].imports)] == []


def test_imports_follow_the_table() -> None:
    assert forbidden(_arrows("lab", *FOLDERS)) == []


def test_nothing_in_the_lab_imports_the_tests() -> None:
    arrows = _arrows("lab", *FOLDERS, "tests")
    assert [
        f"{module} imports {target}"
        for module, targets in arrows.items()
        for target in targets
        if target.startswith("tests") and not module.startswith("tests")
    ] == []


def test_no_import_runs_in_a_circle() -> None:
    assert circles(_arrows("lab", *FOLDERS, "tests")) == []


@pytest.mark.parametrize(
    ("module", "source", "room"),
    [
        ("lab.domains.graphs.path_star", "def f():\n    from lab.domains.chains import markov", "chains"),
        ("lab.streams", "from lab import training", "training"),
        ("lab.models.masks", "if TYPE_CHECKING:\n    import lab.domains.graphs.path_star", "graphs"),
        ("tasks.causallm_icl.repairs", "import proofs_check.causallm_icl", "proofs_check"),
    ],
)
def test_the_rule_sees_what_it_forbids(module: str, source: str, room: str) -> None:
    known = _files("lab", *FOLDERS)
    (sentence,) = forbidden({module: _imports(source, known)})
    assert sentence.endswith(f"({room})")


def test_a_circle_is_seen() -> None:
    assert circles({"lab.a": ["lab.b"], "lab.b": ["lab.c"], "lab.c": ["lab.a"], "lab.d": ["lab.a"]}) == [
        ["lab.a", "lab.b", "lab.c"]
    ]


def test_no_file_is_too_long() -> None:
    lengths = {
        str(file.relative_to(PROJECT)): len(file.read_text(encoding="utf-8").splitlines())
        for file in _files("lab", *FOLDERS, "tests").values()
    }
    long = {name for name, lines in lengths.items() if lines > LONGEST}
    assert sorted(long) == [], f"cut these into files of at most {LONGEST} lines"


def _first_line(file: Path) -> str:
    source = file.read_text(encoding="utf-8")
    titles = [line.removeprefix("# # ") for line in source.splitlines() if line.startswith("# # ")]  # of a task
    text = ast.get_docstring(ast.parse(source)) or "".join(titles[:1])
    return " ".join(text.split("\n\n")[0].split()).replace("|", "\\|")


def page() -> str:
    """The table of rooms as Markdown, each with what its modules say of themselves."""
    files = _files("lab", *FOLDERS)
    lines = [
        "# Rooms of the lab and what they may import",
        "",
        "A room imports only rooms above it in this table, and of those only the ones named. No import runs in a circle, "
        "and no wing of `lab/domains/` imports another. `tests/test_architecture.py` holds the table and checks every "
        "import, also those inside functions; `make architecture` writes this page.",
        "",
        "| room | what is in it | may import |",
        "| --- | --- | --- |",
    ]
    for name, room in ROOMS.items():
        if name in FOLDERS:
            contents = [f"`{name}/`: one sheet a paper, or a folder of its parts"]
        else:
            held = [f"lab.{module}" for module in room.holds] or [name]
            contents = [f"`{module}`: {_first_line(files[module])}" for module in held if module in files]
        lines.append(f"| {name} | {'<br>'.join(contents)} | {', '.join(room.imports) or 'nothing'} |")
    lines.append("| tests | `tests/`: mirrors `lab/` | everything; nothing imports it |")
    return "\n".join(lines) + "\n"


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "`make architecture` writes it"


if __name__ == "__main__":
    write(PAGE, page().encode("utf-8"))
    print(f"wrote {PAGE}")
