"""The page of protocols is current, its Python runs, and the small GPT learns."""

from __future__ import annotations

import ast
import importlib.util
import io
import re
import runpy
import shlex
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch

from lab.cli import main
from lab.diagnosis import adapt, guide
from lab.diagnosis.closed_forms import UserFile
from lab.diagnosis.comparison import diagnose
from lab.diagnosis.settings import SETTINGS, Regression
from lab.diagnosis.subject import file_module
from lab.files import PROJECT
from tests import again


def test_the_page_is_current() -> None:
    assert guide.PAGE.read_text(encoding="utf-8") == guide.page(), "`make architecture` writes it"


def test_every_example_is_on_the_page() -> None:
    files = {file.stem for file in (guide.EXAMPLES / "adapters").glob("*.py")}
    assert files == set(guide.ADAPTERS)
    assert {options.split()[1] for options in guide.ADAPTERS.values()} == set(adapt.CONVENTIONS)


def test_the_lines_for_python_run(unchecked: None) -> None:
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(guide.BY_HAND, {})
    assert "half is identical to multiple of least squares (factor 0.5)" in printed.getvalue()


def test_the_lines_for_prompts_without_a_file_run() -> None:
    names: dict[str, Any] = {}
    exec(guide.WITHOUT_FILE, names)
    assert names["batch"]["x_context"].shape == (64, 8, 2)


def printed_commands(file: Path) -> list[str]:
    """What the page says to type, a line each."""
    text = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").replace("\\\n", " ")
    return [line.split("  #")[0].strip() for line in text.splitlines() if line.startswith("    ")]


def typed(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Carry out a printed command in the working folder."""
    words = shlex.split(command)
    while "=" in words[0]:
        monkeypatch.setenv(*words.pop(0).split("=", 1))
    words = [str(PROJECT / word) if word.startswith("tests/") else word for word in words]
    if words[0] == "lab":
        assert main(words[1:]) == 0
    else:
        monkeypatch.setattr(sys, "argv", words[1:])
        runpy.run_path(words[1], run_name="__main__")


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("trained_elsewhere", "is identical to preconditioned step, fitted"),
        # Ridge at so little noise is least squares to a thousandth: which of them is nearer, the kind of processor decides.
        # A minute of training: for one commit in four.
        pytest.param(
            "small_gpt",
            "is closest to (least squares|ridge, Bayes penalty)",
            marks=pytest.mark.skipif(not again.turn("small GPT", 4), reason="trained for another commit"),
        ),
    ],
)
def test_what_the_page_says_to_type_finds_what_it_says(
    name: str, pattern: str, tmp_path: Path, monkeypatch, capsys, unchecked: None
) -> None:
    monkeypatch.chdir(tmp_path)
    state = torch.get_rng_state()
    for command in printed_commands(guide.EXAMPLES / f"{name}.py"):
        typed(command, monkeypatch)
    torch.set_rng_state(state)
    assert re.search(pattern, " ".join(capsys.readouterr().out.split()))


def test_the_file_of_candidates_is_one(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(guide.OF_ONES_OWN, encoding="utf-8")
    user_file = UserFile.of(file_module(file), file)
    assert [offered.candidate.name for offered in user_file.candidates("regression")] == [
        "shrunken, fitted of own.py",
        "half of least squares of own.py",
    ]


@pytest.mark.parametrize("name", SETTINGS)
def test_candidates_of_a_setting_have_names_of_their_own(name: str) -> None:
    names = guide.names(SETTINGS[name])
    assert len(names) == len(set(names))


def test_the_small_gpt_is_trained_and_can_be_asked(unchecked: None) -> None:
    spec = importlib.util.spec_from_file_location("small_gpt", guide.EXAMPLES / "small_gpt.py")
    assert spec is not None
    assert spec.loader is not None
    small = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(small)
    state = torch.get_rng_state()
    network, loss = small.train(steps=20, batch=8)
    torch.set_rng_state(state)
    assert loss < 10
    setting = Regression(dimension=small.DIMENSION, context_length=8, noise=small.NOISE)
    diagnosis = diagnose(adapt.module(network, "interleaved", label="last"), setting, prompts=40)
    assert not diagnosis.stopped
    assert [finding.where for finding in diagnosis.findings] == ["mode"]
    assert {look.layer for look in diagnosis.attention} == set(range(1, small.LAYERS + 1))
    assert "own input, from a label" in {look.relation for look in diagnosis.attention}
