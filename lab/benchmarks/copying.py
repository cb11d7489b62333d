"""What drawing in one piece is worth for copying and recall: samplers against plain loops, and a linear relation network.

Ratios of median CPU times, measured side by side in one run.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from lab.domains.copying.associative_recall import gap_law, recall_prompts
from lab.domains.copying.copy_prompts import BEGIN, END, FIRST, SEPARATOR, copy_prompts
from lab.models import masks
from lab.models.mixers.relation_network import RelationNetwork
from lab.streams import stream

BATCH, LETTERS, LENGTH = 1_000, 26, 100
PAIRS, TOKENS, KEYS, VALUES = 8, 64, 64, 64
ROUNDS = 3


def copy_loop() -> tuple[np.ndarray, np.ndarray]:
    """The law of `copy_prompts`, string by string and letter by letter."""
    rng, tokens, targets = stream(0, "loop").rng(), [], []
    for _ in range(BATCH):
        string = [int(rng.integers(FIRST, FIRST + LETTERS)) for _ in range(LENGTH)]
        tokens.append([BEGIN, *string, SEPARATOR, *string])
        targets.append([-1] * (LENGTH + 1) + string + [END])
    return np.array(tokens), np.array(targets)


def recall_loop() -> tuple[np.ndarray, np.ndarray]:
    """The law of `recall_prompts`, prompt by prompt, with draws without replacement by ``Generator.choice``."""
    rng, tokens, targets = stream(0, "loop").rng(), [], []
    law = gap_law(PAIRS, TOKENS, 0.01)
    for _ in range(BATCH):
        row = [int(rng.integers(1, KEYS + VALUES + 1)) for _ in range(TOKENS)]
        wanted = [-1] * TOKENS
        keys = rng.choice(np.arange(1, KEYS + 1), PAIRS, replace=False)
        gaps = rng.choice(len(law), PAIRS, replace=False, p=law)
        for place, (key, gap) in enumerate(zip(keys, gaps, strict=True)):
            value = int(rng.integers(KEYS + 1, KEYS + VALUES + 1))
            row[2 * place], row[2 * place + 1] = int(key), value
            row[2 * PAIRS + 2 * gap], wanted[2 * PAIRS + 2 * gap] = int(key), value
        tokens.append(row)
        targets.append(wanted)
    return np.array(tokens), np.array(targets)


def seconds(work: Callable[[], object]) -> float:
    """CPU time of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def report(name: str, slow: Callable[[], object], fast: Callable[[], object], required: float) -> None:
    """Print the ratio of median CPU times, taken in turns after one call of each."""
    pairs = [(seconds(slow), seconds(fast)) for _ in range(ROUNDS + 1)][1:]
    speedup = statistics.median(slow_seconds for slow_seconds, _ in pairs) / statistics.median(
        fast_seconds for _, fast_seconds in pairs
    )
    print(f"{name}: ratio {speedup:.1f} (required >= {required:g})", flush=True)


def main() -> None:
    torch.set_num_threads(1)
    report(
        f"drawing {BATCH} strings to copy against a loop",
        copy_loop,
        lambda: copy_prompts(stream(0, "loop"), BATCH, letters=LETTERS, length=LENGTH),
        20,
    )
    report(
        f"drawing {BATCH} prompts of associative recall against a loop",
        recall_loop,
        lambda: recall_prompts(stream(0, "loop"), BATCH, pairs=PAIRS, length=TOKENS, keys=KEYS, values=VALUES),
        20,
    )
    drawn = torch.from_numpy(stream(0, "sides").rng().standard_normal((2, 1, 1, 1, 512, 32)))
    streams, causal = {"query": drawn[0], "key": drawn[1]}, masks.causal(512)
    report(
        "512 tokens through a relation network without pre-norm against one with the pre-norm of pairs",
        lambda: RelationNetwork("pairs").parallel(streams, causal),
        lambda: RelationNetwork("none").parallel(streams, causal),
        20,
    )


if __name__ == "__main__":
    main()
