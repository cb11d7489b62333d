"""The lab under abuse, in small (``make faults`` makes thousands of these trials), and whether each group sees what it is for."""

from __future__ import annotations

import itertools
import pickle
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from lab import options, runs
from lab.errors import LabError
from tests.faults import __main__ as whole
from tests.faults import bits, command_lines, grammar, kills, stale, task_files
from tests.faults.answers import TRACEBACK, Answer, fault
from tests.faults.counts import Counts, Tally, from_record
from tests.faults.damages import damages
from tests.faults.imported import Imported, Running, Started
from tests.faults.kills import Way, ways

SLEEPER = kills.HERE / "sleeper.py"


@pytest.fixture(scope="module")
def imported() -> Iterator[Imported]:
    with Imported() as process:
        yield process


def test_what_was_finished_outlives_kills(imported: Imported) -> None:
    in_one_process = [way for way in ways(imported) if way.name == "sleeper"]
    assert kills.campaign(4, 0, tuple(in_one_process)).failures == {}


def test_damaged_files_give_no_number(unchecked: None) -> None:
    assert damages(20, 0).failures == {}


def test_command_lines_are_answered() -> None:
    assert command_lines.command_lines(100, 0).failures == {}


def test_task_files_run_or_are_refused_by_their_line(imported: Imported) -> None:
    assert task_files.campaign(20, 0, task_files.in_forks(imported)).failures == {}


def test_what_changes_a_number_changes_its_fingerprint(unchecked: None) -> None:
    assert stale.stale(80, 0).failures == {}


def test_threads_give_the_same_bits(unchecked: None) -> None:
    assert bits.bits(1, 0, {"threads": bits.in_threads}, SLEEPER).failures == {}


def test_the_command_lines_are_of_every_command() -> None:
    assert set(options.COMMANDS) <= set(grammar.COMMANDS) == set(grammar.PIECES)


# Each group is shown something broken.

FORGETFUL = """
import subprocess, sys, time
from pathlib import Path
import numpy, safetensors.numpy
folder = Path(sys.argv[1])
folder.mkdir(exist_ok=True)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
numbers = safetensors.numpy.save({"x": numpy.array(time.time())})
for number in range(3):
    (folder / f"seeds-{number}.safetensors").write_bytes(numbers)
    time.sleep(0.3)
"""


def test_kills_see_what_is_lost_and_who_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that measures everything anew, gives other numbers, and leaves a process behind."""
    (tmp_path / "forgetful.py").write_text(FORGETFUL, encoding="utf-8")

    def begin(results: Path, workers: int, log: Path) -> Running:
        return Started([sys.executable, str(tmp_path / "forgetful.py"), str(results)], log)

    monkeypatch.setattr(kills, "SECONDS_OF_WORKERS", 0.2)
    counts = kills.campaign(2, 0, (Way("forgetful", begin, (1,), 0.5),))
    assert {"lost results", "wrong numbers", "survivors"} <= counts.failures.keys()
    assert counts.trials == 2


def test_damages_see_a_number_that_was_changed(monkeypatch: pytest.MonkeyPatch, unchecked: None) -> None:
    monkeypatch.setattr("lab.runs.digest", lambda *_: "always the same")
    assert "wrong numbers" in damages(6, 0, ["another last number"]).failures


def test_damages_see_code_that_is_executed(monkeypatch: pytest.MonkeyPatch, unchecked: None) -> None:
    read = runs.read

    def careless(path: Path) -> object:
        try:
            return pickle.loads(path.read_bytes())
        except Exception:
            return read(path)

    monkeypatch.setattr("lab.runs.read", careless)
    assert "executed code" in damages(8, 0, ["a pickle instead"]).failures


def test_command_lines_see_every_kind_of_wrong_answer() -> None:
    def succeeds(arguments: Sequence[str]) -> int:
        print("all is well")
        return 0

    def is_silent(arguments: Sequence[str]) -> int:
        return 2

    def breaks(arguments: Sequence[str]) -> int:
        raise KeyError("name") if "--preset" in arguments else SystemExit("lab: no")

    assert command_lines.campaign(60, 0, succeeds).failures.keys() == {"silent successes"}
    assert command_lines.campaign(3, 0, is_silent).failures.keys() == {"unclear answers"}
    reproducer = command_lines.campaign(60, 0, breaks).failures["tracebacks"][0]
    assert reproducer.split(" although ")[0].count("'") <= 4, "what it takes to see it again should be short"
    assert "KeyError" in reproducer


def test_task_files_see_every_kind_of_wrong_answer() -> None:
    answers = {
        "silent successes": Answer(0, "1 of 1 verdicts are the expected ones"),
        "unclear answers": Answer(2, "lab: something went wrong"),
        "tracebacks": Answer(1, f"{TRACEBACK}\nKeyError"),
        "hangs": Answer(None, ""),
    }
    for kind, answer in answers.items():

        def always(file: Path, answer: Answer = answer) -> Answer:
            return answer

        assert kind in task_files.campaign(12, 0, always).failures


def test_edits_see_a_fingerprint_that_stays_and_one_that_does_not() -> None:
    fingerprints = map(str, itertools.count())

    def of_everything(file: Path) -> tuple[str, str]:
        return "2.0", next(fingerprints)

    def refuses(file: Path) -> tuple[str, str]:
        raise LabError("no")

    assert stale.campaign(1, 0, lambda file: ("2.0", "the same")).failures.keys() == {"wrong numbers"}
    assert stale.campaign(1, 0, of_everything).failures.keys() == {"needless changes"}
    assert stale.campaign(1, 0, refuses).failures.keys() == {"needless changes"}


def test_places_see_other_bits_and_missing_results(unchecked: None) -> None:
    def wrong(task: Path, folder: Path) -> kills.Numbers:
        right = bits.in_one_process(task, folder)
        return {name: {**arrays, "more": b""} for name, arrays in list(right.items())[1:]}

    assert bits.bits(1, 0, {"wrong": wrong}, SLEEPER).failures.keys() == {"wrong numbers", "lost results"}


def test_the_whole_campaign_names_what_it_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def campaign(trials: int, seed: int) -> Counts:
        tally = Tally("kills")
        for _ in range(trials):
            tally.ended("SIGKILL")
        tally.failed("survivors", "seed 0, run 3")
        return from_record(tally.counts.record())

    monkeypatch.setattr(whole, "GROUPS", {"kills": campaign})
    assert whole.campaign(whole.Sizes(kills=2)) == 1
    line, named = capsys.readouterr().out.splitlines()
    assert (
        "2 trials  0 wrong numbers, 0 lost results, 0 tracebacks, 1 survivors, 0 silent successes  (SIGKILL 2)" in line
    )
    assert named == "  survivors: seed 0, run 3"
    assert whole.campaign(whole.Sizes(kills=0)) == 0


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(0, "a table"), None),
        (Answer(0, ""), "silent successes"),
        (Answer(1, "a table"), None),
        (Answer(1, "", "x"), "unclear answers"),
        (Answer(2, "", "lab: the size 0 is below 1; choose a larger one"), None),
        (Answer(2, "", "\u256d\u2500 Parsing error \u2500\u2500\u256e"), None),
        (Answer(2, "", "no"), "unclear answers"),
        (Answer(130, "", "lab: interrupted"), None),
    ],
)
def test_what_an_answer_is(answer: Answer, kind: str | None) -> None:
    assert fault(answer) == kind
