"""`lab run` of a part of a task, of one seed, and of nothing but a plan; a budget of one's own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from lab import statistics
from lab.catalogue import load
from lab.cli import main

TINY = Path(__file__).parent / "examples" / "tiny.py"


@pytest.fixture
def run(tmp_path: Path, capsys: Any) -> Any:
    file = shutil.copy(TINY, tmp_path / "planned.py")

    def of(*options: str, command: str = "run", target: str = "") -> tuple[int, str, str]:
        where = ["--workers", "1", "--results", str(tmp_path / "results")] if command != "show" else []
        status = main([command, f"{file}{target}", *where, *options])
        return status, *capsys.readouterr()

    of.results = tmp_path / "results" / "tiny"  # type: ignore[attr-defined]
    of.file = Path(file)  # type: ignore[attr-defined]
    return of


@pytest.mark.parametrize(
    ("name", "measured", "drawn", "judged"),
    [
        ("scatter", {"means"}, 1, 0),
        ("A3", {"square_of_sum"}, 0, 1),
        ("tiny/A1", {"means"}, 0, 1),
        ("mean_is_large", {"means"}, 0, 1),
        ("by_*", {"by_scale", "by_scale_together"}, 0, 0),
    ],
)
def test_only_what_is_named_is_made(run: Any, name: str, measured: set[str], drawn: int, judged: int) -> None:
    status, out, _ = run("--only", name)
    assert status == 0
    assert {path.name for path in run.results.iterdir() if path.is_dir()} - {"figures"} == measured
    assert (out.count("drew "), f"{judged} of {judged} verdicts" in out) == (drawn, judged > 0)


def test_a_name_that_names_nothing_is_told_with_the_nearest(run: Any) -> None:
    status, _, errors = run("--only", "scater")
    assert (
        status,
        "--only scater names no figure, claim or measurement of tiny (did you mean 'scatter'?)" in errors,
    ) == (2, True)
    assert not run.results.exists()


def test_a_plan_measures_nothing_and_knows_the_last_time(run: Any) -> None:
    status, out, _ = run("--dry-run")
    assert (status, run.results.exists()) == (0, False)
    assert "18 of 18 calls would be made, by 1 process; none of them was taken before" in out
    assert run("--only", "means")[0] == 0
    out = run("--dry-run")[1]
    assert "12 of 18 calls would be made" in out
    assert [line.split()[-1] for line in out.splitlines() if " means " in line] == ["stored"]
    # Of other code the time is known still.
    run.file.write_text(
        run.file.read_text(encoding="utf-8").replace('"mean": draws.mean(), ', '"mean": draws.mean() + 0, '),
        encoding="utf-8",
    )
    from lab import planning
    from lab.execution import Session
    from lab.results import Results

    changed = shutil.copy(run.file, run.file.with_name("changed.py"))
    task = load(Path(changed))
    (planned,) = [
        planned
        for planned in planning.plan(
            [Results(task, task.config("ci"), Session(run.results.parent))],
            {task.key: planning.Chosen.everything(task)},
        )
        if planned.measurement == "means"
    ]
    assert (planned.missing, planned.known) == (6, 6)
    assert planned.seconds is not None


def test_one_seed_shows_values_and_no_verdict(run: Any) -> None:
    status, out, _ = run("--seeds", "4", "--only", "A1", "A3")
    assert status == 0
    assert "no verdict" in out
    assert "1 of 1 verdicts are the expected ones" in out
    assert "One seed shows values and decides nothing" in out
    assert "inf" not in out
    assert out.count("NOT REJECTED") == 0


def test_a_claim_of_a_file_is_shown_and_judged_by_its_name(run: Any) -> None:
    assert "The square of" in run(command="show", target=":A3")[1]
    status, out, _ = run(command="check", target=":tiny/A3")
    assert (status, "1 of 1 verdicts" in out) == (0, True)
    status, _, errors = run(command="check", target=":A33")
    assert (status, "(did you mean" in errors) == (2, True)
    status, _, errors = run(target=":A3")
    assert (status, "name the file alone, and the claim with --only" in errors) == (2, True)


def test_a_file_may_have_a_budget_of_its_own(run: Any) -> None:
    text = run.file.read_text(encoding="utf-8")
    file = run.file.with_name("budget.py")
    file.write_text(
        text.replace('"paper": Config(size=1000)},\n', '"paper": Config(size=1000)},\n    judgements=4,\n'),
        encoding="utf-8",
    )
    assert load(file).claims["tiny/A1"].allowance == statistics.FALSE_ALARM_BUDGET / 4
    assert main(["run", str(file), "--workers", "1", "--results", str(run.results), "--only", "A*"]) == 0


@pytest.mark.parametrize(
    ("number", "sentence"),
    [("0", "a whole number from 1 to"), ("4096", "a whole number from 1 to"), ("3", "write judgements=4 or more")],
)
def test_a_budget_must_be_enough(run: Any, number: str, sentence: str, capsys: Any) -> None:
    text = run.file.read_text(encoding="utf-8")
    file = run.file.with_name(f"budget_{number}.py")
    file.write_text(
        text.replace('"paper": Config(size=1000)},\n', f'"paper": Config(size=1000)}},\n    judgements={number},\n'),
        encoding="utf-8",
    )
    assert main(["check", str(file), "--workers", "1", "--results", str(run.results)]) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
