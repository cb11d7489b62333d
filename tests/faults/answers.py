"""How a command line was answered, and whether that is an answer at all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tests.faults.counts import Kind

TRACEBACK = "Traceback (most recent call last)"
# What the parser of options draws around its own sentences.
USAGE = re.compile(
    r"(Parsing|Unrecognized|Missing|Required|Invalid|Error)[^\n]*─|For full helptext|^usage: ", re.MULTILINE
)


@dataclass(frozen=True)
class Answer:
    """What a command line ended with.

    Attributes:
        status: the exit status; None where it did not end.
        output: what it printed.
        errors: what it said on the other stream; all of it stands in ``output`` where the two were not kept apart.
    """

    status: int | None
    output: str
    errors: str = ""

    @property
    def sentence(self) -> str:
        """The last thing it said to its user about what went wrong; empty where it said nothing."""
        sentences = [line for line in (self.output + "\n" + self.errors).splitlines() if line.startswith("lab: ")]
        return sentences[-1].removeprefix("lab: ").strip() if sentences else ""

    @property
    def outcome(self) -> str:
        return "no end" if self.status is None else f"exit {self.status}"


def fault(answer: Answer, wrong: Sequence[str] = ()) -> Kind | None:
    """What is wrong with an answer; None where nothing is.

    Args:
        answer: the answer.
        wrong: what stands in the question that cannot be right, so that success would be silent about it.
    """
    printed = answer.output + answer.errors
    if answer.status is None:
        return "hangs"
    if TRACEBACK in printed:
        return "tracebacks"
    if answer.status == 0:
        return "silent successes" if wrong or not printed.strip() else None
    if answer.status == 1:  # verdicts that are not the expected ones, which are shown
        return None if answer.output.strip() else "unclear answers"
    return None if answer.sentence or USAGE.search(printed) else "unclear answers"
