"""Rules of the house that can be read off the files."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from lab.catalogue import discover
from lab.cli import main
from lab.files import FOLDERS, PROJECT

SOURCES = sorted(path for folder in ("lab", *FOLDERS) for path in (PROJECT / folder).rglob("*.py"))
README = (PROJECT / "README.md").read_text()
# Calls that draw from, or seed, state shared by a whole process.
GLOBAL_RANDOM = re.compile(
    r"(np|numpy)\.random\.(?!Generator|Philox|get_state|default_rng\(\w)\w+\(|torch\.(manual_seed|rand|randn|randint|randperm|bernoulli|multinomial)\("
    r"|(?<![\w.])random\.(random|choice|shuffle|randint|sample|seed)\("
)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_no_global_random_state(path: Path) -> None:
    calls = [ast.unparse(node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert [call for call in calls if GLOBAL_RANDOM.match(call) and "generator=" not in call] == []


def test_the_random_rule_sees_what_it_forbids() -> None:
    for forbidden in ("np.random.normal(3)", "torch.randn(3)", "torch.manual_seed(0)", "random.shuffle(x)"):
        assert GLOBAL_RANDOM.match(forbidden)
    assert not GLOBAL_RANDOM.match("stream.rng().normal(3)")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_nothing_on_disk_can_execute_code(path: Path) -> None:
    text = path.read_text()
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
    assert folders <= {".ci", "lab", "tasks", "proofs_check", "figures", "tests"}


def test_the_paper_column_of_the_citation_file_matches_the_project() -> None:
    version = re.search(r'^version = "(.+)"$', (PROJECT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert f"version: {version[1]}" in (PROJECT / "CITATION.cff").read_text()
    assert f"## {version[1]}" in (PROJECT / "CHANGELOG.md").read_text()


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
    if words[0] in ("notebooks", "reproduce"):
        with pytest.raises(SystemExit, match="^0$"):
            main([words[0], "--help"])
        return
    if words[0] in ("run", "check"):
        if "--preset" in words:
            del words[words.index("--preset") : words.index("--preset") + 2]
        words += ["--preset", "smoke", "--workers", "1", "--results", str(tmp_path)]
    status = main(words)
    printed = capsys.readouterr()
    # Status 1 is a verdict that a smoke run is too small for.
    assert status in ((0, 1) if words[0] == "check" else (0,)), printed.err
    if "--json" in words:
        json.loads(printed.out)
