"""What a page says of a sheet's trained networks: from a stored file, or the command that makes it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from lab import LabError, kept_networks
from lab.diagnosis import trained

NAMES = ("small-sheet/part:causal@3", "small-sheet/part:prefix@3")
GROUP = kept_networks.Shown("small networks", NAMES, {"context_length": 6, "noise": 0.0})


def record(name: str, **changes: Any) -> dict[str, Any]:
    ends = {"mean": 0.25, "low": 0.2, "high": 0.3}
    usual = {"name": name, "kind": "closest", "nearest": "ridge", "fitted": {"penalty": 0.5}, "tied": ["zero"]}
    usual |= {"setting": {"dimension": 3, **GROUP.sizes}}
    return usual | {"distance": ends, "error": ends, "error_of_nearest": ends} | changes


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(kept_networks, "SHOWN", {"small-sheet": (GROUP,)})
    monkeypatch.setattr(kept_networks, "stored_file", lambda sheet: tmp_path / f"{sheet}.json")
    return tmp_path / "small-sheet.json"


def test_a_page_has_the_nearest_of_every_network_and_the_command(file: Path) -> None:
    file.write_text(json.dumps([[record(NAMES[0]), record(NAMES[1], kind="identical", tied=[])]]), encoding="utf-8")
    text = "\n".join(kept_networks.section("small-sheet"))
    assert f"| `{NAMES[0]}` | not identified | 0.25 [0.2, 0.3] | ridge (penalty 0.5); zero | 0.25" in text
    assert "identical to ridge" in text
    assert f"    lab diagnose {NAMES[0]} {NAMES[1]} --context-length 6 --noise 0.0\n" in text


def test_where_no_network_was_kept_the_page_has_the_commands(file: Path) -> None:
    text = "\n".join(kept_networks.section("small-sheet"))
    assert "`lab run small-sheet --again '*'`" in text
    assert GROUP.command in text
    assert "|" not in text
    assert kept_networks.section("another-sheet") == []


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("[", "is damaged"),
        (json.dumps([[record(NAMES[0])]]), "is not of the networks that the page shows"),
        (
            json.dumps([[record(name, setting={"context_length": 7, "noise": 0.0}) for name in NAMES]]),
            "is not of the prompts",
        ),
        (json.dumps([[record(NAMES[0]), {"name": NAMES[1]}]]), "is damaged"),
    ],
)
def test_a_damaged_file_is_named_with_the_remedy(file: Path, content: str, sentence: str) -> None:
    file.write_text(content, encoding="utf-8")
    with pytest.raises(LabError, match=sentence) as caught:
        kept_networks.section("small-sheet")
    assert "`lab reproduce small-sheet` writes it anew" in str(caught.value)


@pytest.mark.parametrize("sheet", kept_networks.SHOWN)
def test_commands_name_networks_and_are_on_the_page(sheet: str) -> None:
    for group in kept_networks.SHOWN[sheet]:
        words = shlex.split(group.command)
        assert [word for word in words if trained.is_name(word)] == list(group.names)
        assert group.command in "\n".join(kept_networks.section(sheet))
