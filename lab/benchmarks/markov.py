"""What drawing and training in one piece is worth on Markov chains: ratios measured side by side in one run.

1. CPU time of drawing 1,000 chains at once against a plain loop over sequences and tokens.
2. CPU time of the task's induction heads, eight seeds as one ensemble against the same eight one after the other, at the
   sizes of the `ci` preset (a few steps, the data drawn beforehand).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from lab.catalogue import find
from lab.domains.chains.markov_prompts import dirichlet_chains
from lab.streams import stream

STATES, LENGTH, SEQUENCES = 3, 48, 1_000
MODELS, STEPS, REPEATS = 8, 10, 3


def loop(sequences: int) -> np.ndarray:
    """The same law as `dirichlet_chains`, one sequence and one token at a time."""
    rng = stream(0, "loop").rng()
    tokens = np.empty((sequences, LENGTH), dtype=np.int64)
    for row in range(sequences):
        table = rng.dirichlet(np.ones(STATES), STATES)
        tokens[row, 0] = rng.integers(STATES)
        for position in range(1, LENGTH):
            tokens[row, position] = rng.choice(STATES, p=table[tokens[row, position - 1]])
    return tokens


def seconds(work: Callable[[], object]) -> float:
    """CPU time of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def ratio(slow: Callable[[], object], fast: Callable[[], object]) -> float:
    """Median CPU time of ``slow`` over that of ``fast``, taken in turns after one call of each."""
    pairs = [(seconds(slow), seconds(fast)) for _ in range(REPEATS + 1)][1:]
    return statistics.median(slow_seconds for slow_seconds, _ in pairs) / statistics.median(
        fast_seconds for _, fast_seconds in pairs
    )


def report(name: str, speedup: float, required: float) -> None:
    print(f"{name}: ratio {speedup:.1f} (required >= {required:g})", flush=True)


def main() -> None:
    torch.set_num_threads(1)
    report(
        "drawing 1000 chains at once against a loop",
        ratio(
            lambda: loop(SEQUENCES),
            lambda: dirichlet_chains(stream(0, "loop"), SEQUENCES, states=STATES, length=LENGTH),
        ),
        10,
    )
    task = find("induction-heads-markov/counting-in-context")
    config = replace(task.config("ci"), steps=STEPS, record_every=STEPS, test=8)
    training = task.measurements["phases"]
    report(
        "8 induction heads as one ensemble against 8 runs",
        ratio(
            lambda: [training.measure(config, (seed,)) for seed in range(MODELS)],
            lambda: training.measure(config, tuple(range(MODELS))),
        ),
        1.5,
    )


if __name__ == "__main__":
    main()
