"""What a group of trials found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

Kind = Literal[
    "wrong numbers",
    "lost results",
    "tracebacks",
    "survivors",
    "silent successes",
    "unclear answers",
    "hangs",
    "executed code",
    "needless changes",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
# Those that are named even where there are none.
ALWAYS_NAMED: tuple[Kind, ...] = KINDS[:5]


@dataclass(frozen=True)
class Counts:
    """A group of trials that was made.

    Attributes:
        group: its name.
        trials: how many were made.
        failures: by kind, how each failure can be seen again.
        outcomes: how many trials ended in which way.
    """

    group: str
    trials: int
    failures: Mapping[str, tuple[str, ...]]
    outcomes: Mapping[str, int]

    @property
    def failed(self) -> int:
        """The number of failures of all kinds."""
        return sum(map(len, self.failures.values()))

    def line(self, seconds: float) -> str:
        """The group in one line."""
        named = [kind for kind in KINDS if kind in ALWAYS_NAMED or kind in self.failures]
        failures = ", ".join(f"{len(self.failures.get(kind, ()))} {kind}" for kind in named)
        ended = ", ".join(f"{outcome} {number}" for outcome, number in sorted(self.outcomes.items()))
        return f"{self.group:13}  {self.trials:6} trials  {failures}  ({ended})  {seconds:.0f} s"

    def record(self) -> dict[str, Any]:
        """The counts as plain data."""
        return asdict(self)


def from_record(record: Mapping[str, Any]) -> Counts:
    """What `Counts.record` gave."""
    failures = {kind: tuple(reproducers) for kind, reproducers in record["failures"].items()}
    return Counts(record["group"], record["trials"], failures, record["outcomes"])


@dataclass
class Tally:
    """Counts that are being made."""

    group: str
    trials: int = 0
    failures: dict[str, list[str]] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)

    def ended(self, outcome: str) -> None:
        """Note a trial, and how it ended."""
        self.trials += 1
        self.outcomes[outcome] += 1

    def failed(self, kind: Kind, reproducer: str) -> None:
        """Note a failure, and how to see it again."""
        self.failures.setdefault(kind, []).append(reproducer)

    @property
    def counts(self) -> Counts:
        failures = {kind: tuple(reproducers) for kind, reproducers in self.failures.items()}
        return Counts(self.group, self.trials, failures, dict(self.outcomes))
