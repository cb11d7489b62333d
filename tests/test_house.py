"""Rules of the house that can be read off the files."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from lab.catalogue import discover
from lab.cli import main
from lab.files import FOLDERS, PROJECT

SOURCES = sorted(path for folder in ("lab", *FOLDERS) for path in (PROJECT / folder).rglob("*.py"))
README = (PROJECT / "README.md").read_text(encoding="utf-8")
# Calls that draw from, or seed, state shared by a whole process.
GLOBAL_RANDOM = re.compile(
    r"(np|numpy)\.random\.(?!Generator|Philox|get_state|default_rng\(\w)\w+\(|torch\.(manual_seed|rand|randn|randint|randperm|bernoulli|multinomial)\("
    r"|(?<![\w.])random\.(random|choice|shuffle|randint|sample|seed)\("
)


@cache
def calls(path: Path) -> list[ast.Call]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_no_global_random_state(path: Path) -> None:
    # No other call can match, and to write every one of them out takes seconds.
    likely = [call for call in calls(path) if re.search(r"random|^torch\.", ast.unparse(call.func))]
    written = map(ast.unparse, likely)
    assert [call for call in written if GLOBAL_RANDOM.match(call) and "generator=" not in call] == []


def test_the_random_rule_sees_what_it_forbids() -> None:
    for forbidden in ("np.random.normal(3)", "torch.randn(3)", "torch.manual_seed(0)", "random.shuffle(x)"):
        assert GLOBAL_RANDOM.match(forbidden)
    assert not GLOBAL_RANDOM.match("stream.rng().normal(3)")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_nothing_on_disk_can_execute_code(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"\b(pickle|joblib|dill|marshal|shelve)\b\.|torch\.load\(|allow_pickle=True", text)


def test_types_are_consistent() -> None:
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_claim_ids_are_unique() -> None:
    ids = [claim for task in discover() for claim in task.claims]
    assert len(ids) == len(set(ids))


def test_folders_of_the_top_level_are_the_fixed_ones() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    folders = {line.split("/")[0] for line in tracked.splitlines() if "/" in line}
    assert folders <= {".ci", "lab", "tasks", "proofs_check", "figures", "evidence", "tests"}


def test_the_paper_column_of_the_citation_file_matches_the_project() -> None:
    version = re.search(r'^version = "(.+)"$', (PROJECT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert version is not None
    assert f"version: {version[1]}" in (PROJECT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## {version[1]}" in (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_links_of_the_readme_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)", README)
    assert links
    assert [link for link in links if "://" not in link and not (PROJECT / link).exists()] == []


COMMANDS = [
    line.strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.strip().startswith((".venv/bin/lab ", "lab "))
]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_readme_work(command: str, tmp_path: Path, capsys, monkeypatch, unchecked: None) -> None:
    """Quick commands are run; long ones are run at their smoke preset, into a folder of their own."""
    monkeypatch.chdir(PROJECT)
    words = shlex.split(command.split("#")[0].removeprefix(".venv/bin/"))[1:]
    if words[0] in ("notebooks", "site", "reproduce"):
        with pytest.raises(SystemExit, match="^0$"):
            main([words[0], "--help"])
        return
    if words[0] in ("run", "check"):
        if "--preset" in words:
            del words[words.index("--preset") : words.index("--preset") + 2]
        words += ["--preset", "smoke", "--workers", "1", "--results", str(tmp_path)]
    if words[0] == "new":
        monkeypatch.chdir(tmp_path)
    if words[0] in ("compare", "results"):
        words += ["--results", str(tmp_path)]
    if "--out" in words:
        words[words.index("--out") + 1] = str(tmp_path / words[words.index("--out") + 1])
    elif words[0] == "compare":
        words += ["--out", str(tmp_path), "--workers", "1"]
    status = main(words)
    printed = capsys.readouterr()
    # Status 1 is a verdict that a smoke run is too small for.
    assert status in ((0, 1) if words[0] in ("check", "compare") else (0,)), printed.err
    if "--json" in words:
        json.loads(printed.out)


def _text_without_encoding(called: list[ast.Call]) -> list[str]:
    """Calls that read or write text in whatever encoding the machine prefers."""
    calls = []
    for node in called:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        of_a_path = isinstance(node.func, ast.Attribute)
        positional = {"read_text": 0, "write_text": 1, "open": 2 if of_a_path else 3}.get(name)
        if positional is None or any(keyword.arg == "encoding" for keyword in node.keywords):
            continue
        if name == "open":
            place = 0 if of_a_path else 1
            mode = next((keyword.value for keyword in node.keywords if keyword.arg == "mode"), None)
            mode = mode or (node.args[place] if len(node.args) > place else None)
            if isinstance(mode, ast.Constant) and "b" in str(mode.value):
                continue
        if len(node.args) <= positional:
            calls.append(ast.unparse(node))
    return calls


TESTS = sorted((PROJECT / "tests").rglob("*.py"))


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=lambda path: str(path.relative_to(PROJECT)))
def test_text_is_read_and_written_as_utf_8(path: Path) -> None:
    assert _text_without_encoding(calls(path)) == []


def test_the_encoding_rule_sees_what_it_forbids() -> None:
    def violations(call: str) -> list[str]:
        return _text_without_encoding([ast.parse(call, mode="eval").body])

    for forbidden in ("path.read_text()", "path.write_text(text)", "open(path)", "open(path, 'w')", "path.open('a')"):
        assert violations(forbidden) == [ast.unparse(ast.parse(forbidden))]
    for allowed in ("open(path, 'rb')", "path.open(mode='wb')", "path.read_text('utf-8')", "open(p, encoding='utf-8')"):
        assert violations(allowed) == []


SHEETS = [path for path in SOURCES if path.is_relative_to(PROJECT / "tasks") and path.name[0] != "_"]
# It is being cut into parts, each of which begins with the whole header.
WITHOUT_THE_LINE = {"tasks/icl_gradient_descent.py"}


@pytest.mark.parametrize("path", SHEETS, ids=lambda path: str(path.relative_to(PROJECT)))
def test_no_line_of_a_sheet_is_taken_for_a_command_of_the_notebook(path: Path) -> None:
    """Without this line jupytext turns code such as ``cat = 3`` into a comment when it writes a notebook back."""
    parts = path.read_text(encoding="utf-8").split("# ---\n")
    switched_off = len(parts) > 2 and parts[0] == "" and "#     comment_magics: false\n" in parts[1]
    assert switched_off or str(path.relative_to(PROJECT)) in WITHOUT_THE_LINE
