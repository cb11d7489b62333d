"""What drawing and training in batches is worth on causal graphs: ratios measured in one run.

1. Sequences drawn level by level for the whole batch, against the loops that the definition suggests.
2. CPU time of eight disentangled transformers trained as one ensemble, against the same eight one after the other.

Times of a pair are taken in turns and compared by their medians, so that a machine that slows down slows both.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from lab.domains.chains.latent_graph_prompts import ROOT, causal_sequences, chain
from lab.models import masks
from lab.models.disentangled import Disentangled
from lab.streams import stream
from lab.training import Batch, Member, Optimisation, train

BATCH, STATES, LENGTH, ROUNDS = 1_024, 3, 16, 5
MODELS, STEPS, SHORT, SMALL = 8, 60, 9, 128  # the sizes of joint training at the ci preset


def loop_sequences(batch: int, states: int, parents: Sequence[int], concentration: float) -> np.ndarray:
    """The definition, sequence by sequence and token by token."""
    rng = stream(0, "loop").rng()
    sequences = []
    for _ in range(batch):
        transition = np.array([rng.dirichlet(np.full(states, concentration)) for _ in range(states)])
        system = np.concatenate([transition.T - np.eye(states), np.ones((1, states))])
        law = np.linalg.lstsq(system, np.array([0.0] * states + [1.0]), rcond=None)[0].clip(0)
        tokens: list[int] = []
        for parent in parents:
            row = law / law.sum() if parent == ROOT else transition[tokens[parent]]
            tokens.append(int(rng.choice(states, p=row)))
        sequences.append([*tokens, int(rng.integers(states))])
    return np.array(sequences)


def median_ratio(slow: Callable[[], object], fast: Callable[[], object]) -> float:
    """CPU time of ``slow`` over that of ``fast``, medians of rounds taken in turns."""
    times: dict[int, list[float]] = {0: [], 1: []}
    for _ in range(ROUNDS):
        for place, call in enumerate((slow, fast)):
            start = time.process_time()
            call()
            times[place].append(time.process_time() - start)
    return statistics.median(times[0]) / statistics.median(times[1])


@lru_cache(maxsize=MODELS * STEPS)
def batch(seed: int, step: int) -> Batch:
    """Drawn once: the data are not what the training is timed for."""
    data = causal_sequences(stream(seed, step), SMALL, STATES, chain(SHORT - 1), 0.1)
    return {"tokens": data.tokens, "target": data.target}


def training(seeds: Sequence[int]) -> None:
    """Train the models of ``seeds`` as one ensemble."""
    mask = masks.causal(SHORT)

    def loss(module: Disentangled, data: Batch, arms: tuple[str, ...]) -> Tensor:
        return -(data["target"] * torch.log_softmax(module.final(data["tokens"], mask), -1)).sum(-1).mean(1)

    train(
        lambda chosen: Disentangled.zeros(len(chosen), STATES, SHORT),
        [Member(seed, "causal") for seed in seeds],
        batch,
        loss,
        Optimisation(STEPS, 1.0, optimiser="sgd"),
        evaluate_every=STEPS,
    )


def one_by_one() -> None:
    """The same models, each in a training of its own."""
    for seed in range(MODELS):
        training([seed])


def main() -> None:
    torch.set_num_threads(1)
    parents = chain(LENGTH - 1)
    sampler = median_ratio(
        lambda: loop_sequences(BATCH, STATES, parents, 1.0),
        lambda: causal_sequences(stream(0, "batch"), BATCH, STATES, parents, 1.0),
    )
    print(f"sampler against loops: ratio {sampler:.1f} (required >= 10)")
    training(range(MODELS))  # fills the store of batches
    ensemble = median_ratio(one_by_one, lambda: training(range(MODELS)))
    print(f"8 seeds as one ensemble against 8 runs: ratio {ensemble:.2f} (required >= 1.5)")


if __name__ == "__main__":
    main()
