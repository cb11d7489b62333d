"""What the trainer's engine is worth: ratios measured side by side in one run, each with the bound it must keep.

1. CPU time of eight models trained as one ensemble against the same eight trained one after the other.
2. Time of one process of one thread against two of them.
3. Arithmetic of a training step against the fastest matrix product of this machine.

Times of a pair are taken in turns and compared by their medians, so that a machine that slows down slows both.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lab.models.transformer import Architecture, Transformer
from lab.streams import stream
from lab.training import Ensemble, Member, Optimisation, train

MODELS = 8
LENGTH = 50
Build = Callable[[Sequence[int]], Ensemble]


class LinearAttention(nn.Module):
    """One layer of linear attention with merged matrices: tokens [E, B, T, 6] -> tokens + scores tokens V / T."""

    def __init__(self, key_query: Tensor, value: Tensor) -> None:
        super().__init__()
        self.key_query, self.value = nn.Parameter(key_query), nn.Parameter(value)
        self.width = key_query.shape[-1]

    @classmethod
    def build(cls, seeds: Sequence[int]) -> LinearAttention:
        draws = [stream(seed, "weights").rng().standard_normal((2, 6, 6)) for seed in seeds]
        return cls(*torch.from_numpy(0.1 * np.stack(draws, axis=1)).float())

    def select(self, indices: Sequence[int]) -> LinearAttention:
        return LinearAttention(self.key_query.detach()[list(indices)], self.value.detach()[list(indices)])

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        models, batch, time, width = tokens.shape
        flat = tokens.reshape(models, batch * time, width)
        queries, values = (torch.bmm(flat, matrix).view(-1, time, width) for matrix in (self.key_query, self.value))
        scores = torch.bmm(queries, tokens.reshape(-1, time, width).mT) * mask
        return tokens + torch.bmm(scores, values).view_as(tokens) / time


def transformer(layers: int, width: int) -> Build:
    architecture = Architecture(width=width, layers=layers, heads=4, input_size=6, output_size=1)
    return lambda seeds: Transformer(architecture, seeds)


def problem(batch: int, time: int) -> tuple[Callable, Callable]:
    """Batches (drawn beforehand: the data are not what is measured) and a loss on the last token."""
    draws = [stream(seed, "data").rng().standard_normal((batch, time, 6)) for seed in range(MODELS)]
    data = [{"tokens": torch.from_numpy(draw).float()} for draw in draws]
    mask = torch.ones(time, time, dtype=torch.bool).tril()

    def loss(module: Ensemble, batch: dict[str, Tensor], arms: tuple[str, ...]) -> Tensor:
        return (module(batch["tokens"], mask)[..., -1] - batch["tokens"][..., 0]).square().mean((1, 2))

    return lambda seed, step: data[seed], loss


def run(build: Build, batch: int, time: int, seeds: Sequence[int], steps: int) -> None:
    data, loss = problem(batch, time)
    optimisation = Optimisation(steps=steps, learning_rate=1e-3)
    train(build, [Member(seed, "causal") for seed in seeds], data, loss, optimisation)


def medians(clock: Callable[[], float], rounds: int, *variants: Callable[[], None]) -> list[float]:
    """Median seconds of each variant, measured in turns after one round that is not counted."""
    times: list[list[float]] = [[] for _ in variants]
    for _ in range(rounds + 1):
        for variant, seconds in zip(variants, times, strict=True):
            start = clock()
            variant()
            seconds.append(clock() - start)
    return [statistics.median(seconds[1:]) for seconds in times]


def line(name: str, ratio: float, bound: float, detail: str) -> None:
    verdict = "ok" if ratio >= bound else "TOO LOW"
    print(f"  {name:<58} {ratio:5.2f}  required >= {bound:.2f}  {verdict:<8} ({detail})", flush=True)


def ensemble_against_separate_runs() -> None:
    cases = (
        ("transformer d=16, 1 layer, 320 tokens", transformer(1, 16), 32, 10, 60, 5, 2.0),
        ("linear attention of two 6x6 matrices, 672 tokens", LinearAttention.build, 32, 21, 100, 5, 2.0),
        ("transformer d=64, 4 layers, 3200 tokens", transformer(4, 64), 64, LENGTH, 2, 3, 0.95),
    )
    for name, build, batch, time_, steps, rounds, bound in cases:

        def together() -> None:
            run(build, batch, time_, range(MODELS), steps)  # noqa: B023

        def apart() -> None:
            for seed in range(MODELS):
                run(build, batch, time_, [seed], steps)  # noqa: B023

        together_seconds, apart_seconds = medians(time.process_time, rounds, together, apart)
        per_step = 1e3 / (steps * MODELS)
        line(
            f"8 x {name}",
            apart_seconds / together_seconds,
            bound,
            f"{apart_seconds * per_step:.2f} -> {together_seconds * per_step:.2f} ms a model and step",
        )


def work(seeds: Sequence[int]) -> float:
    """CPU seconds of this process for two steps of the models ``seeds``."""
    start = time.process_time()
    run(transformer(4, 64), 64, LENGTH, seeds, 2)
    return time.process_time() - start


def one_thread() -> None:
    torch.set_num_threads(1)


def processes() -> None:
    """Four models in one process against two and two in two processes, by the clock on the wall.

    The ratio of CPU times (of the slower worker) is printed beside it: where the two differ, other jobs had the cores.
    """
    if len(os.sched_getaffinity(0)) < 2:
        print("  two processes against one: left out, this machine has one core")
        return
    charged: dict[int, list[float]] = {1: [], 2: []}
    waited: dict[int, list[float]] = {1: [], 2: []}
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn, initializer=one_thread) as pool:
        list(pool.map(work, [[0], [1]]))  # both have started
        for _ in range(5):
            for shares in ([range(4)], [range(2), range(2, 4)]):
                start = time.perf_counter()
                charged[len(shares)].append(max(pool.map(work, shares)))
                waited[len(shares)].append(time.perf_counter() - start)
    one_process, two_processes = (statistics.median(waited[workers]) for workers in (1, 2))
    cpu = statistics.median(charged[1]) / statistics.median(charged[2])
    line(
        "two processes against one, d=64, 4 layers",
        one_process / two_processes,
        1.5,
        f"{one_process:.2f} -> {two_processes:.2f} s; by CPU time {cpu:.2f}",
    )


def arithmetic() -> None:
    """Floating-point operations a second of whole training steps, as a share of a 1024 x 1024 matrix product.

    Counted are matrix products forward and backward; attention, normalisation, nonlinearity and optimiser take
    time but count nothing, which is why the share is far from 1.
    """
    data, loss = problem(64, LENGTH)
    module = transformer(4, 64)([0])
    batch = {key: value.unsqueeze(0) for key, value in data(0, 0).items()}
    with FlopCounterMode(display=False) as counter:
        loss(module, batch, ("causal",)).sum().backward()
    steps, square = 4, torch.ones(1024, 1024)

    def multiply() -> None:
        for _ in range(10):
            square @ square

    trained, multiplied = medians(time.process_time, 5, lambda: work_steps(steps), multiply)
    rate, peak = counter.get_total_flops() * steps / trained, 10 * 2 * 1024**3 / multiplied
    line(
        "arithmetic of a step at d=64, share of peak",
        rate / peak,
        0.25,
        f"{rate / 1e9:.0f} of {peak / 1e9:.0f} GFLOP/s",
    )


def work_steps(steps: int) -> None:
    run(transformer(4, 64), 64, LENGTH, [0], steps)


def main() -> None:
    one_thread()
    ensemble_against_separate_runs()
    arithmetic()
    processes()


if __name__ == "__main__":
    main()
