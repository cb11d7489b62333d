"""Path-star graphs: the sampler against one written as plain loops, and eight trainings as one ensemble."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lab.domains.graphs.path_star_prompts import feature_count, features, path_star, write
from lab.models.masks import prefix_lm
from lab.models.transformer import Architecture, Transformer
from lab.streams import stream
from lab.training import Batch, Member, Optimisation, train

ARMS, LENGTH, LABELS, BATCH = 2, 4, 8, 32
EDGES = ARMS * (LENGTH - 1)
SEEDS = range(8)


def plain_path_star(
    rng: np.random.Generator, batch: int, arms: int, length: int, labels: int
) -> tuple[np.ndarray, np.ndarray]:
    """Graph by graph, arm by arm, label by label, drawing again what is taken: the loop that is easy to write."""
    all_arms, all_edges = [], []
    for _ in range(batch):
        start = int(rng.integers(labels))
        used, graph, edges = {start}, [], []
        for _ in range(arms):
            arm = [start]
            while len(arm) < length:
                node = int(rng.integers(labels))
                if node not in used:
                    used.add(node)
                    edges.append([arm[-1], node])
                    arm.append(node)
            graph.append(arm)
        all_arms.append(graph)
        all_edges.append([edges[place] for place in rng.permutation(len(edges))])
    return np.array(all_arms), np.array(all_edges)


def medians(rounds: int, *variants: Callable[[], None]) -> list[float]:
    """Median CPU seconds of each variant, measured in turns after one round that is not counted."""
    times: list[list[float]] = [[] for _ in variants]
    for _ in range(rounds + 1):
        for variant, seconds in zip(variants, times, strict=True):
            start = time.process_time()
            variant()
            seconds.append(time.process_time() - start)
    return [statistics.median(seconds[1:]) for seconds in times]


def line(name: str, ratio: float, bound: float) -> None:
    print(f"{name}: ratio {ratio:.2f} (required >= {bound:g})", flush=True)


def sampler(arms: int, length: int, labels: int, graphs: int, required: float) -> None:
    """The sampler against the plain loop."""

    def loop() -> None:
        plain_path_star(stream(0, "plain").rng(), graphs, arms, length, labels)

    def vectorised() -> None:
        path_star(stream(0, "plain"), graphs, arms=arms, length=length, labels=labels)

    slow, fast = medians(5, loop, vectorised)
    line(f"{graphs} graphs G({arms},{length},{labels}) against plain loops", slow / fast, required)


def train_some(seeds: range | list[int], steps: int) -> None:
    """Standard training at the sizes of the preset ci."""
    architecture = Architecture(
        width=32,
        layers=4,
        heads=4,
        input_size=feature_count(LABELS, LENGTH),
        output_size=(LENGTH - 1) * LABELS,
        mlp_ratio=0.0,
        activation="relu",
        bias=False,
    )
    mask = prefix_lm(EDGES + LENGTH, EDGES + 2)

    def batch(seed: int, step: int) -> Batch:
        graphs = path_star(stream(seed, "data", step), BATCH, arms=ARMS, length=LENGTH, labels=LABELS)
        written = write(graphs, LABELS, format="compact")
        return {"tokens": written.tokens[:, :-1], "targets": written.targets[:, EDGES + 1 : -1]}

    def loss(module: Transformer, data: Batch, arms: tuple[str, ...]) -> Tensor:
        x = features(data["tokens"], labels=LABELS, edges=EDGES, length=LENGTH) * 5.0
        outputs = module(x, mask)[:, :, EDGES + 1 :, :LABELS]
        losses = F.cross_entropy(outputs.flatten(0, 2), data["targets"].flatten(), reduction="none")
        return losses.view(len(arms), -1).mean(1)

    train(
        lambda seeds: Transformer(architecture, seeds),
        [Member(seed, "prefix") for seed in seeds],
        batch,
        loss,
        Optimisation(steps=steps, learning_rate=6e-3),
    )


def ensemble(steps: int = 12) -> None:
    """Eight seeds as one ensemble against eight trainings one after the other."""

    def together() -> None:
        train_some(SEEDS, steps)

    def apart() -> None:
        for seed in SEEDS:
            train_some([seed], steps)

    together_seconds, apart_seconds = medians(3, together, apart)
    line("8 seeds of standard training at ci sizes, one ensemble against 8 runs", apart_seconds / together_seconds, 1.2)


def main() -> None:
    torch.set_num_threads(1)
    sampler(2, 4, 8, 4096, 10)
    sampler(5, 5, 50, 1024, 10)
    ensemble()


if __name__ == "__main__":
    main()
