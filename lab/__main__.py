"""The command line: ``lab``, or ``python -m lab`` where its script is not on the path.

How it stops is settled here, before anything heavy is imported.
"""

from __future__ import annotations

import io
import signal
import sys
from os import _exit
from types import FrameType

STOPPED = 130


def main() -> int:
    """Run ``lab``; a request to end (Ctrl-C, SIGTERM, a closed terminal) keeps what is finished, a second one ends at once."""
    stops = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    for number in stops:
        signal.signal(number, _stop)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that lacks a letter still shows the others
    try:
        if {"--help", "-h"} & set(sys.argv[1:2]) or not sys.argv[1:]:
            from lab.options import parse

            parse(sys.argv[1:])  # prints and ends, before anything heavy is imported
        if sys.argv[1:2] == ["list"] and set(sys.argv[2:]) <= {"--json"}:
            from lab import listing

            if (records := listing.kept()) is not None:
                listing.show(records, "--json" in sys.argv, listing.console())
                return 0
        from lab.cli import main as run

        return run()
    except KeyboardInterrupt:
        print("\nlab: interrupted before anything was measured", file=sys.stderr)
        return STOPPED


def _stop(number: int, frame: FrameType | None) -> None:
    # Workers end with this process, and results are written whole, so that there is nothing to tidy up a second time.
    signal.signal(number, lambda *_: _exit(STOPPED))
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
