"""What the claims and caching layer costs on a task of 1 000 trivial measurements."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from lab.catalogue import load
from lab.execution import Session
from lab.results import Results

MEASUREMENTS = 1000
REQUIRED_MILLISECONDS = 2.0
FILE = """
from dataclasses import dataclass
from lab import Paper, Task

@dataclass(frozen=True)
class Config:
    seeds: int = %d

TASK = Task("trivial", Paper("A trivial task", "nobody", 2024), {name: Config() for name in ("smoke", "ci", "paper")})

@TASK.measurement(seeds=lambda config: config.seeds)
def seed_itself(config: Config, seed: int):
    return {"seed": float(seed)}
"""


def main() -> None:
    """Print milliseconds a measurement, taken for the first time and read back."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "trivial.py")
        file.write_text(FILE % MEASUREMENTS, encoding="utf-8")
        task = load(file)
        for name in ("taken and stored", "read back"):
            results = Results(task, task.config("ci"), Session(Path(folder, "results"), quiet=True))
            begun = time.perf_counter()
            dataset = results[task.measurements["seed_itself"]]
            milliseconds = (time.perf_counter() - begun) / MEASUREMENTS * 1e3
            assert dataset["seed"].sum() == MEASUREMENTS * (MEASUREMENTS - 1) / 2
            verdict = "" if milliseconds < REQUIRED_MILLISECONDS else "  BELOW WHAT IS REQUIRED"
            print(f"{name}: {milliseconds:.2f} ms a measurement (required < {REQUIRED_MILLISECONDS:g} ms){verdict}")


if __name__ == "__main__":
    main()
