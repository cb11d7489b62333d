"""One seed of every measurement of a file of one's own is taken twice, and a draw that no seed fixes is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab.cli import main

HEAD = """
from dataclasses import dataclass
import numpy as np
from lab import Evidence, Paper, Task, control
from lab.streams import stream
@dataclass(frozen=True)
class Config:
    size: int = 3
TASK = Task("own", Paper("T", "A", 2024), {preset: Config() for preset in ("smoke", "ci", "paper")})
"""
MEASUREMENT = """
@TASK.measurement(seeds=lambda config: 2)
def means(config: Config, seed: int):
    return {"mean": stream(seed, "data").rng().normal(size=config.size)}
"""
CASES = """
@TASK.cases(claimed={}, other={"shift": 1})
def sums(config: Config, shift=0):
    return {"sum": 3.0 + shift}
"""
CLAIM = """
@TASK.claim("own/A", where="w", kind="identity", statement="s", controls=[control("c", shift=99)])
def small(results, shift=0):
    return Evidence.exact(abs(results[means]["mean"]).max() + shift, "<=", 6, "b")
"""


@pytest.fixture
def run(tmp_path: Path, capsys: Any) -> Any:
    def of(*parts: str, command: str = "check", options: tuple[str, ...] = ()) -> tuple[int, str]:
        file = tmp_path / "own.py"
        file.write_text("".join(parts), encoding="utf-8")
        status = main([command, str(file), "--workers", "1", "--results", str(tmp_path / "results"), *options])
        return status, capsys.readouterr().err

    return of


def test_what_agrees_is_not_taken_twice_again(run: Any) -> None:
    assert "one seed of means was taken twice" in run(HEAD, MEASUREMENT, CASES, CLAIM)[1]
    status, errors = run(HEAD, MEASUREMENT, CASES, CLAIM, command="run")
    assert (status, "one seed of sums was taken twice" in errors) == (0, True)
    assert "taken twice" not in run(HEAD, MEASUREMENT, CASES, CLAIM)[1]


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('stream(seed, "data").rng().normal(size=config.size)', "np.random.normal(size=config.size)"),
        ('stream(seed, "data").rng()', "np.random.default_rng()"),
        ('stream(seed, "data").rng().normal(size=config.size)', "NOISE"),
        ('stream(seed, "data").rng().normal(size=config.size)', "LATER.normal(size=config.size)"),
    ],
)
@pytest.mark.parametrize("command", ["run", "check"])
def test_a_draw_that_no_seed_fixes_is_found(run: Any, right: str, wrong: str, command: str) -> None:
    unseeded = "NOISE = np.random.default_rng().normal(size=3)\nLATER = np.random.default_rng()\n"
    status, errors = run(HEAD, unseeded, MEASUREMENT.replace(right, wrong), CLAIM, command=command)
    assert status == 2
    assert "own.py: means at seed 0 (preset smoke) gave 'mean' = " in errors
    assert "no function of its configuration and seed; draw every number from lab.streams" in errors


def test_a_case_is_taken_twice_too(run: Any) -> None:
    claim = CLAIM.replace('abs(results[means]["mean"]).max()', 'results[sums]["sum"].max()')
    status, errors = run(HEAD, CASES.replace("3.0", "np.random.normal()"), claim)
    assert (status, "sums at case claimed (preset smoke) gave 'sum'" in errors) == (2, True)


def test_the_modules_beside_the_file_are_imported_afresh(run: Any, tmp_path: Path) -> None:
    (tmp_path / "noise_of_own.py").write_text(
        "import numpy as np\nNOISE = np.random.normal(size=3)\n", encoding="utf-8"
    )
    beside = MEASUREMENT.replace('stream(seed, "data").rng().normal(size=config.size)', "NOISE")
    status, errors = run(HEAD, "from noise_of_own import NOISE\n", beside, CLAIM)
    assert (status, "no function of its configuration and seed" in errors) == (2, True)


def test_a_smoke_preset_that_fails_is_said_and_the_rest_goes_on(run: Any, caplog: Any) -> None:
    frail = MEASUREMENT.replace("    return", "    if config.size < 3: raise ValueError('too small')\n    return")
    presets = HEAD.replace("Config() for", 'Config(size=2 if preset == "smoke" else 3) for')
    assert run(presets, frail, CLAIM)[0] == 0
    assert "means seed 0 was not taken twice, because the preset smoke fails: ValueError: too small" in caplog.text


def test_what_a_module_beside_the_file_registers_is_checked(run: Any, tmp_path: Path) -> None:
    (tmp_path / "prompts_of_own.py").write_text(
        "import numpy as np\nimport torch\nfrom dataclasses import dataclass\nfrom lab.contracts import generator\n"
        "@dataclass(frozen=True)\nclass Prompts:\n    x: torch.Tensor\n"
        "@generator()\ndef prompts(source, batch):\n    return Prompts(torch.from_numpy(np.random.normal(size=batch)))\n",
        encoding="utf-8",
    )
    status, errors = run(HEAD, "import prompts_of_own\n", MEASUREMENT, CLAIM)
    assert (status, "prompts does not keep its contract" in errors) == (2, True)


@pytest.mark.parametrize("name", ["statistics", "filelock"])
def test_a_module_beside_the_file_may_not_have_the_name_of_another(run: Any, tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.py").write_text("answer = 1\n", encoding="utf-8")
    status, errors = run(HEAD, f"from {name} import answer\n", MEASUREMENT, CLAIM)
    assert (status, f"own.py imports {name}, which lies beside it" in errors) == (2, True)
