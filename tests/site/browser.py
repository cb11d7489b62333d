"""A headless Chromium, asked over its own pipe: no driver, no server, no port."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SECONDS = 120


class Browser:
    """One page in a browser of its own; ``complaints`` holds every error that a page reported.

    It is started with `Browser.__enter__` and ended with the block.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.complaints: list[str] = []
        self._number = 0
        self._buffer = b""
        self._session = ""
        self._seen: list[Mapping[str, Any]] = []

    def __enter__(self) -> Self:
        assert CHROMIUM is not None
        commands, self._to = os.pipe()
        self._from, answers = os.pipe()
        # Chromium reads commands from descriptor 3 and writes answers to 4.
        wiring = f'exec 3<&{commands} 4>&{answers}; exec "$@"'
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--no-first-run",
        ]
        command = [CHROMIUM, *options, "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={self.home}"]
        self._process = subprocess.Popen(
            ["bash", "-c", wiring, "bash", *command, "--remote-debugging-pipe"],
            pass_fds=(commands, answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._ask(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._to)
        os.close(self._from)
        self._process.terminate()
        self._process.wait(SECONDS)

    def resize(self, width: int, height: int) -> None:
        """Set the size of the page in pixels."""
        self._ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def go_to(self, url: str) -> None:
        """Go to an address and wait until everything on it has loaded."""
        self._seen.clear()
        self._ask("Page.navigate", url="about:blank")  # so that another anchor of the same page loads it anew
        self._wait(lambda event: event["method"] == "Page.loadEventFired")
        self._seen.clear()
        self._ask("Page.navigate", url=url)
        self._wait(lambda event: event["method"] == "Page.loadEventFired")

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript gives on the page; a promise is awaited."""
        evaluated = self._ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in evaluated, evaluated
        return evaluated["result"].get("value")

    def picture(self, path: Path, full_page: bool = False) -> None:
        """Write what is seen (or the ``full_page``) as a PNG."""
        screenshot = self._ask("Page.captureScreenshot", format="png", captureBeyondViewport=full_page)
        path.write_bytes(base64.b64decode(screenshot["data"]))

    def _ask(self, method: str, **arguments: Any) -> Any:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": arguments}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer}"
                return answer["result"]

    def _wait(self, wanted: Callable[[Mapping[str, Any]], bool]) -> None:
        while not any(map(wanted, self._seen)):
            self._next()

    def _next(self) -> Mapping[str, Any]:
        end = time.monotonic() + SECONDS
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"the browser is silent for {SECONDS} s"
            chunk = os.read(self._from, 1 << 20)
            assert chunk, "the browser ended"
            self._buffer += chunk
        text, _, self._buffer = self._buffer.partition(b"\0")
        message: Mapping[str, Any] = json.loads(text)
        if "method" in message:
            self._seen.append(message)
            self._note(message["method"], message["params"])
        return message

    def _note(self, method: str, about: Mapping[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.complaints.append(str(about["exceptionDetails"].get("exception", about["exceptionDetails"])))
        elif method == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning", "assert"):
            self.complaints.append(str([argument.get("value") for argument in about["args"]]))
        elif method == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"{about['entry']['text']} {about['entry'].get('url', '')}")
