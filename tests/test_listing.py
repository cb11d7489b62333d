from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab import listing

RECORD = {
    "task": "t",
    "paper": {"slug": "t"},
    "citation": "A: B [C]",
    "presets": ["ci"],
    "figures": [],
    "claims": [{"id": "t/A", "kind": "rate", "where": "Theorem 1"}],
}
HEAVY = {"torch", "matplotlib", "pandas", "scipy", "xarray"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("LAB_RESULTS", str(tmp_path / "results"))
    return tmp_path


def test_a_list_is_kept_until_a_file_changes(folder: Path, monkeypatch) -> None:
    listing.keep([RECORD], listing.stamp())
    assert listing.kept() is None
    assert not (folder / "results").exists()  # a list makes no folder
    (folder / "results").mkdir()
    listing.keep([RECORD], listing.stamp())
    assert listing.kept() == [RECORD]
    (folder / "lab").mkdir()
    (folder / "lab" / "new.py").write_text("", encoding="utf-8")
    monkeypatch.setattr(listing, "PROJECT", folder)
    assert listing.kept() is None
    (folder / "results" / ".list.json").write_text("[1", encoding="utf-8")
    assert listing.kept() is None


def test_a_folder_that_cannot_be_written_to_is_no_error(folder: Path) -> None:
    (folder / "results").write_text("a file", encoding="utf-8")
    listing.keep([RECORD], listing.stamp())
    assert listing.kept() is None


@pytest.mark.parametrize("words", [["--help"], ["list"], ["list", "--json"]])
def test_help_and_a_kept_list_import_nothing_heavy(words: list[str], folder: Path) -> None:
    (folder / "results").mkdir()
    listing.keep([RECORD], listing.stamp())
    script = (
        "import sys; from lab.__main__ import main; sys.argv[1:] = sys.argv[1:]\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, env=dict(os.environ))
    assert not HEAVY & set(done.stderr.split())
    assert {"--help": "subcommands", "list": "A: B [C]"}[words[0]] in done.stdout or json.loads(done.stdout) == [RECORD]
