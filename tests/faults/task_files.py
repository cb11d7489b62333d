"""Task files that are wrong or odd in one to three ways: each runs, or is refused in a sentence that says where."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from tests.faults.answers import Answer, fault
from tests.faults.counts import Counts, Kind, Tally
from tests.faults.imported import Imported, end
from tests.faults.mistakes import EDITS, FILES, PARTS, Edit

SECONDS = 60.0
# Where a sentence says what it is about: the file, with or without the line, or the task, which is called the same.
PLACE = re.compile(r"\bown\b")
LINE = re.compile(r"\bown\.py, line \d+")

Run = Callable[[Path], Answer]


def task_files(trials: int, seed: int) -> Counts:
    """Run ``trials`` files, drawn from ``seed``; the first ones are wrong in one way each, if there are enough of them."""
    with Imported() as imported:
        return campaign(trials, seed, in_forks(imported.also("seaborn")))


def in_forks(imported: Imported) -> Run:
    """Runs a file in a fork, which it may take down with it."""

    def run(file: Path) -> Answer:
        log = file.with_name("log")
        arguments = ["run", str(file), "--workers", "1", "--results", str(file.parent / "results")]
        running = imported.begin(arguments, log)
        status = running.wait(SECONDS)
        if status is None:
            end(running)
        return Answer(status, log.read_text(encoding="utf-8", errors="replace"))

    return run


def campaign(trials: int, seed: int, run: Run) -> Counts:
    """Run ``trials`` files in a way of one's own."""
    tally = Tally("task files")
    rng = Random(seed)
    alone: list[tuple[str, ...]] = [(name,) for name in (*EDITS, *FILES)]
    chosen = rng.sample(alone, min(trials // 2, len(alone)))
    chosen += [_drawn(rng) for _ in range(trials - len(chosen))]
    with TemporaryDirectory() as folder:
        for number, names in enumerate(chosen):
            file = Path(folder, str(number), "own.py")
            file.parent.mkdir()
            content, expected = written(names)
            file.write_bytes(content)
            answer = run(file)
            tally.ended(answer.outcome)
            if kind := fault_of(answer, expected):
                tally.failed(kind, f"{' + '.join(names)}: {answer.outcome}, {answer.sentence[:300] or 'no sentence'}")
    return tally.counts


def _drawn(rng: Random) -> tuple[str, ...]:
    """One to three edits of different parts, so that none undoes another."""
    parts = rng.sample(list(PARTS), rng.choice((1, 2, 2, 3)))
    return tuple(rng.choice([name for name, edit in EDITS.items() if edit.part == part]) for part in parts)


def written(names: Sequence[str]) -> tuple[bytes, set[str]]:
    """The file with these edits, and what is expected of each."""
    if names[0] in FILES:
        content, expected = FILES[names[0]]
        return content, {expected}
    parts = dict(PARTS)
    for name in names:
        parts[EDITS[name].part] = _edited(parts[EDITS[name].part], EDITS[name])
    text = "".join(parts.values())
    with suppress(UnicodeEncodeError):
        return text.encode(), {EDITS[name].expected for name in names}
    raise ValueError(f"the edits {names} make no text")


def _edited(text: str, edit: Edit) -> str:
    if not edit.old:
        return text + edit.new
    assert edit.old in text, edit
    return text.replace(edit.old, edit.new)


def fault_of(answer: Answer, expected: set[str]) -> Kind | None:
    """What is wrong with the answer to a file of whose edits this is expected."""
    wrong = sorted(expected & {"refused", "told"})
    if kind := fault(answer, wrong):
        return kind
    if expected == {"fine"} and answer.status != 0:
        return "lost results"
    if answer.status == 2 and not PLACE.search(answer.sentence):
        return "unclear answers"
    if expected == {"told"} and not LINE.search(answer.output + answer.errors):
        return "unclear answers"
    return None
