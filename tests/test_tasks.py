from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from lab import Evidence, LabError, Paper, Task
from lab.catalogue import find, load
from lab.execution import Session
from lab.results import Results
from lab.tasks import NoConfig

TINY = Path(__file__).parent / "examples" / "tiny.py"
task = load(TINY)


def written(folder: Path, text: str) -> Path:
    file = folder / "written.py"
    file.write_text("from lab import Evidence, Paper, Task, control\n" + text, encoding="utf-8")
    return file


def test_a_claim_by_a_median_wants_as_many_seeds_as_decide(tmp_path: Path) -> None:
    def decided(number: int) -> bool:
        return Evidence.median(range(number), ">=", -1, "below all samples").verdict == "holds"

    text = TINY.read_text(encoding="utf-8")
    (tmp_path / "medians.py").write_text(text.replace("over_seeds(", "median("), encoding="utf-8")
    medians = load(tmp_path / "medians.py")
    first, _, exact = medians.claims.values()
    least = medians.least_seeds(first.check)
    assert (decided(least - 1), decided(least)) == (False, True)
    assert medians.least_seeds(exact.check) == 1


def test_a_file_is_loaded_once() -> None:
    assert load(TINY) is task
    assert find(str(TINY)) is task


def test_presets_share_one_type() -> None:
    assert {type(config) for config in task.presets.values()} == {task.config_type}
    assert task.config("smoke").size == 3


def test_seeds_are_cut_into_calls_that_do_not_depend_on_workers() -> None:
    assert task.measurements["means"].chunks(range(3)) == [(0,), (1,), (2,)]
    assert task.measurements["together"].chunks(range(6)) == [(0, 1, 2, 3), (4, 5)]


def test_a_measurement_can_have_a_root_of_its_own(tmp_path: Path) -> None:
    together = dataclasses.replace(task.measurements["together"], root=3)
    config = task.config("smoke")
    assert Results(task, config, Session(tmp_path)).seeds(together)[0] == 3_000_000
    assert Results(task, config, Session(tmp_path, root=1)).seeds(together)[0] == 1_000_000
    assert Results(task, config, Session(tmp_path)).seeds(task.measurements["together"])[0] == 0


def test_what_a_claim_needs_is_read_from_its_source() -> None:
    check = task.claims["tiny/A1"].check
    assert [measurement.name for measurement in task.needs(check)] == ["means"]


# At the top level, where tasks are made: a worker of the suite has no file further up.
BARE = Task("bare", Paper("T", "A", 2024))


def test_a_task_without_configuration() -> None:
    assert BARE.config("paper") == NoConfig()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('TASK = Task("t", Paper("T", "A", 1), {"ci": 1})', "needs exactly smoke, ci, paper"),
        ('TASK = Task("t", Paper("T", "A", 1), {"smoke": 1, "ci": 1, "paper": 1.0})', "different types"),
        ("x = 1", "defines 0 tasks"),
        ('A = Task("a", Paper("T", "A", 1))\nB = Task("b", Paper("T", "A", 1))', "defines 2 tasks"),
        (
            'TASK = Task("t", Paper("T", "A", 1))\n@TASK.claim("u/A1", where="", kind="rate", statement="", '
            'controls=[control("c", x=1)])\ndef check(results, x=0): ...',
            "does not begin with 't'",
        ),
        ("import nothing_of_this_name", "ModuleNotFoundError"),
    ],
)
def test_a_broken_file_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        load(written(tmp_path, text))


def test_a_task_made_in_a_function_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="unknown preset 'c'"):
        task.config("c")


@pytest.mark.parametrize(("value", "sentence"), [('"text"', "dtype"), ("1j", "dtype"), ("None", "dtype")])
def test_a_measurement_returns_numbers(tmp_path: Path, value: str, sentence: str) -> None:
    text = (
        f'TASK = Task("t", Paper("T", "A", 1))\n@TASK.measurement()\ndef m(config, seed):\n    return {{"x": {value}}}'
    )
    measurement = load(written(tmp_path, text)).measurements["m"]
    with pytest.raises(LabError, match=sentence):
        measurement.measure(NoConfig(), (0,))


def test_an_ensemble_returns_one_row_a_seed(tmp_path: Path) -> None:
    text = (
        'import numpy as np\nTASK = Task("t", Paper("T", "A", 1))\n@TASK.measurement(ensemble=True)\n'
        'def m(config, seeds):\n    return {"x": np.zeros(len(seeds) + 1)}'
    )
    measurement = load(written(tmp_path, text)).measurements["m"]
    with pytest.raises(LabError, match="first axis must be the 2 seeds"):
        measurement.measure(NoConfig(), (0, 1))


def test_plain_measurements_get_a_seed_axis() -> None:
    arrays = task.measurements["means"].measure(task.config("ci"), (3,))
    assert arrays["mean"].shape == (1,)
    assert arrays["scaled"].dtype == np.float64
