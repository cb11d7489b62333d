"""Command lines of every command, right and wrong: each ends with what was asked for, or with a sentence.

They are tried in one process on a small copy of the project, where nothing of the project itself can be written over.
"""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from tests.faults.answers import Answer, fault
from tests.faults.counts import Counts, Kind, Tally, from_record
from tests.faults.grammar import Line, line
from tests.faults.small_project import make

# What has not ended by then hangs: the longest of them takes a quarter of a minute, ten times that beside other work.
SECONDS = 600
# No command line of these needs more, and some ask for more than there is.
BYTES = 8 << 30

Entry = Callable[[Sequence[str]], int]


def command_lines(trials: int, seed: int) -> Counts:
    """Try ``trials`` command lines drawn from ``seed``."""
    with TemporaryDirectory() as folder:
        project = make(Path(folder).resolve())
        environment = os.environ | {
            "PYTHONPATH": str(project),
            "HOME": str(project / "user"),
            "LAB_RESULTS": str(project / "user" / "results"),
            "MPLBACKEND": "Agg",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        command = [sys.executable, "-m", "tests.faults.command_lines", str(trials), str(seed)]
        done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, encoding="utf-8")
        file = project / "user" / "counts.json"
        if not file.is_file():
            tally = Tally("command lines", trials=1)
            tally.failed("hangs", f"the process ended with {done.returncode}: {done.stderr.strip()[-600:]}")
            return tally.counts
        return from_record(json.loads(file.read_text(encoding="utf-8")))


def campaign(trials: int, seed: int, entry: Entry) -> Counts:
    """Try ``trials`` command lines on an entry point."""
    tally = Tally("command lines")
    rng = Random(seed)
    for _ in range(trials):
        drawn = line(rng)
        answer = ask(drawn.arguments, entry)
        tally.ended(answer.outcome)
        if kind := _fault(drawn, answer):
            short = _shortened(drawn, entry) if kind == "tracebacks" else drawn
            last = ask(short.arguments, entry).errors.strip().splitlines()[-1:] if kind == "tracebacks" else []
            wrong = f" although {', '.join(map(repr, drawn.wrong))} cannot be right" if drawn.wrong else ""
            tally.failed(kind, f"lab {' '.join(map(repr, short.arguments))}{wrong} {' '.join(last)}"[:900])
    return tally.counts


def _fault(drawn: Line, answer: Answer) -> Kind | None:
    """What is wrong with an answer; where a line asks for it, an error may show where it comes from."""
    kind = fault(answer, drawn.wrong)
    wanted = "--debug" in drawn.arguments and answer.status == 2 and answer.sentence
    return None if kind == "tracebacks" and wanted else kind


def ask(arguments: Sequence[str], entry: Entry) -> Answer:
    """What a command line is answered in this process."""
    output, errors = io.StringIO(), io.StringIO()
    status: int | None = 1
    with _time_limit(), redirect_stdout(output), redirect_stderr(errors):
        try:
            status = entry(list(arguments))
        except SystemExit as stopped:
            status = stopped.code if isinstance(stopped.code, int) else 1 if stopped.code else 0
        except _TooLong:
            status = None
        except BaseException:
            traceback.print_exc()
    return Answer(status, output.getvalue(), errors.getvalue())


class _TooLong(BaseException):
    pass


@contextmanager
def _time_limit() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _shortened(drawn: Line, entry: Entry) -> Line:
    """The line without words that its traceback does not need."""
    words = list(drawn.arguments)
    place = 1
    while place < len(words):
        fewer = words[:place] + words[place + 1 :]
        if fault(ask(fewer, entry)) == "tracebacks":
            words = fewer
        else:
            place += 1
    return Line(tuple(words), drawn.wrong)


def _here(trials: int, seed: int) -> None:
    """In the small project: ship its evidence, then try the lines."""
    user = Path.cwd() / "user"
    with suppress(AttributeError, OSError):
        os.sched_setaffinity(
            0, {min(os.sched_getaffinity(0))}
        )  # the number of workers that is used unless one is named
    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    from lab import cli, execution
    from lab.catalogue import discover
    from lab.reproduction import reproduce

    execution.CONNECT_SECONDS = 1
    logging.getLogger("lab").addHandler(logging.NullHandler())
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        reproduce(discover(), execution.Session(user / "results", quiet=True))
    os.chdir(user)
    counts = campaign(trials, seed, cli.main)
    (user / "counts.json").write_text(json.dumps(counts.record()), encoding="utf-8")


if __name__ == "__main__":
    _here(int(sys.argv[1]), int(sys.argv[2]))
