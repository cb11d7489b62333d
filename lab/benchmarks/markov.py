"""What drawing and training in one piece is worth on Markov chains: ratios measured side by side in one run.

1. CPU time of drawing 1,000 chains at once against a plain loop over sequences and tokens.
2. CPU time of eight induction-head trainings as one ensemble against the same eight one after the other, at the
   sizes of the `ci` preset (a few steps).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from lab.generators.markov import dirichlet_chains
from lab.models.masks import causal
from lab.models.transformer import Architecture, Transformer
from lab.streams import stream
from lab.training import Member, Optimisation, train

STATES, LENGTH, BATCH, MODELS = 3, 48, 32, 8
SEQUENCES, STEPS, REPEATS = 1_000, 6, 3


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


def fit(seeds: Sequence[int]) -> None:
    """A few steps of the two-layer attention-only model, on data drawn beforehand."""
    mask = causal(LENGTH)
    architecture = Architecture(
        width=16,
        layers=2,
        vocabulary=STATES,
        output_size=STATES,
        mlp_ratio=0,
        positions="rotary",
        initial_scale=0.05,
    )

    def loss(module: Transformer, batch: dict[str, Tensor], arms: tuple[str, ...]) -> Tensor:
        tokens = batch["tokens"]
        logs = module(tokens[..., :-1], mask).log_softmax(-1)
        return -logs.gather(-1, tokens[..., 1:, None])[..., 0].mean((1, 2))

    train(
        lambda asked: Transformer(architecture, asked),
        [Member(seed, "causal") for seed in seeds],
        lambda seed, step: {"tokens": DATA[seed]},
        loss,
        Optimisation(STEPS, 3e-3, optimiser="adamw"),
    )


DATA = [
    dirichlet_chains(stream(seed, "benchmark"), BATCH, states=STATES, length=LENGTH + 1).tokens
    for seed in range(MODELS)
]


def apart() -> None:
    """The same trainings one after the other."""
    for seed in range(MODELS):
        fit([seed])


def seconds(work: Callable[[], object]) -> float:
    """CPU time of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def ratio(slow: Callable[[], object], fast: Callable[[], object]) -> float:
    """Median CPU time of ``slow`` over that of ``fast``, taken in turns after one call of each."""
    pairs = [(seconds(slow), seconds(fast)) for _ in range(REPEATS + 1)][1:]
    return statistics.median(one for one, _ in pairs) / statistics.median(two for _, two in pairs)


def report(name: str, found: float, required: float) -> None:
    print(f"{name}: ratio {found:.1f} (required >= {required:g})", flush=True)


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
    report(
        "8 induction heads as one ensemble against 8 runs",
        ratio(apart, lambda: fit(range(MODELS))),
        1.5,
    )


if __name__ == "__main__":
    main()
