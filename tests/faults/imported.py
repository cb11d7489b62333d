"""A process that has imported the lab once and forks for every command line, which may then do to itself what it likes."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from lab.files import PROJECT


class Running(Protocol):
    """A command that was begun, in a session of its own."""

    @property
    def pid(self) -> int: ...

    def wait(self, seconds: float) -> int | None:
        """Its exit status (minus the number of the signal that ended it); None where it does not end in time."""


class Imported:
    """The process; it ends with the block that it is opened for."""

    def __enter__(self) -> Imported:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.imported"],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()

    def ask(self, **request: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def also(self, *modules: str) -> Imported:
        """Have it import more, which would take seconds in every fork that needs it."""
        for module in modules:
            self.ask(module=module)
        return self

    def begin(self, arguments: Sequence[str], log: Path) -> Running:
        """``lab`` with these arguments, in the folder of ``log``, which takes all that it prints."""
        return Forked(self, self.ask(arguments=list(arguments), log=str(log)))


class Forked:
    """A command line that was forked."""

    def __init__(self, imported: Imported, pid: int) -> None:
        self.imported, self.pid = imported, pid
        self._status: int | None = None

    def wait(self, seconds: float) -> int | None:
        if self._status is None:
            self._status = self.imported.ask(wait=self.pid, seconds=seconds)
        return self._status


class Started:
    """A command that was started from nothing."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                cwd=PROJECT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=_hear_ctrl_c,
            )
        self.pid = self._process.pid

    def wait(self, seconds: float) -> int | None:
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None


def end(running: Running) -> None:
    """End a command, and whatever it has begun in its session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(running.pid, signal.SIGKILL)
    running.wait(10)


def _hear_ctrl_c() -> None:
    # Where all of this runs in the background Ctrl-C is ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _serve() -> None:
    """Answer requests: to begin a command line, or to say how one ended."""
    import lab.cli
    import lab.figures.sheet  # noqa: F401

    answers = os.dup(1)
    for line in sys.stdin:
        request = json.loads(line)
        answer: Any = None
        if "module" in request:
            importlib.import_module(request["module"])
        elif "arguments" in request:
            answer = _fork(request["arguments"], Path(request["log"]))
        else:
            answer = _status(request["wait"], request["seconds"])
        os.write(answers, (json.dumps(answer) + "\n").encode())


def _fork(arguments: list[str], log: Path) -> int:
    pid = os.fork()
    if pid == 0:
        _be_lab(arguments, log)
    return pid


def _be_lab(arguments: list[str], log: Path) -> None:
    os.setsid()
    os.chdir(log.parent)
    _hear_ctrl_c()
    status = 1
    try:
        with log.open("ab") as output, open(os.devnull, "rb") as nothing:
            for number, file in ((0, nothing), (1, output), (2, output)):
                os.dup2(file.fileno(), number)
        sys.argv = ["lab", *arguments]
        from lab.__main__ import main

        status = main()
    except SystemExit as stopped:
        status = stopped.code if isinstance(stopped.code, int) else 1 if stopped.code else 0
    except BaseException:
        with contextlib.suppress(Exception):
            traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(status)


def _status(pid: int, seconds: float) -> int | None:
    last = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > last:
            return None
        time.sleep(0.01)


if __name__ == "__main__":
    _serve()
