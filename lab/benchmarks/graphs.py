"""What drawing and training in one piece is worth on graphs: ratios of CPU times measured side by side in one run.

1. Drawing 5,000 stepwise sequences of one graph at once against a plain loop over sequences and steps.
2. Training eight networks as one ensemble against the same eight one after the other, at the sizes of the `ci` preset
   of the one-graph task (a few steps).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lab.domains.graphs import navigation as exact
from lab.domains.graphs.navigation_prompts import Vocabulary, hierarchical_dag, navigation, split_pairs
from lab.models.masks import causal
from lab.models.transformer import Architecture, Transformer
from lab.streams import stream
from lab.training import Member, Optimisation, train

LAYERS, WIDTH, PROBABILITY, BATCH, MODELS = 8, 6, 0.3, 16, 8
SEQUENCES, STEPS, REPEATS = 5_000, 8, 3

GRAPH = hierarchical_dag(stream(0, "benchmark"), 1, LAYERS, WIDTH, PROBABILITY)
ADJACENCY, WORDS = GRAPH.adjacency[0], Vocabulary(LAYERS * WIDTH)
PAIRS = split_pairs(stream(0, "benchmark"), ADJACENCY, GRAPH.layer[0], 0.3)


def together(sequences: int = SEQUENCES, seed: int = 0) -> Tensor:
    """Sequences of the stepwise layout, all at once."""
    return navigation(
        stream(seed, "sequences"), sequences, ADJACENCY, PAIRS.training_positive, PAIRS.training_negative
    ).tokens


def loop() -> list[list[int]]:
    """The same law, one sequence and one step at a time."""
    rng = stream(0, "loop").rng()
    policy, walk = exact.uniform_path_policy(ADJACENCY).numpy(), exact.uniform_walk(ADJACENCY).numpy()
    positive, negative = (PAIRS.training_positive.nonzero().tolist(), PAIRS.training_negative.nonzero().tolist())
    written = []
    for number in range(SEQUENCES):
        connected = number % 2 == 0
        start, goal = (positive if connected else negative)[rng.integers(len(positive if connected else negative))]
        path, law = [start], policy[goal] if connected else walk
        while law[path[-1]].sum() > 0:
            path.append(int(rng.choice(WORDS.nodes, p=law[path[-1]] / law[path[-1]].sum())))
        answer = WORDS.connected if connected else WORDS.unconnected
        written.append([WORDS.goal, goal, WORDS.start, *path, answer, WORDS.end])
    return written


DATA = [together(BATCH, seed) for seed in range(MODELS)]


def fit(seeds: Sequence[int]) -> None:
    """A few steps of the network of the `ci` preset."""
    length = DATA[0].shape[1] - 1
    mask = causal(length)
    architecture = Architecture(
        width=32,
        layers=1,
        heads=2,
        vocabulary=WORDS.size,
        output_size=WORDS.size,
        activation="relu",
        positions="learned",
        maximum_length=length,
    )

    def loss(module: Transformer, batch: dict[str, Tensor], arms: tuple[str, ...]) -> Tensor:
        logits = module(batch["tokens"][..., :-1], mask)
        losses = F.cross_entropy(logits.flatten(0, 2), batch["tokens"][..., 1:].flatten(), reduction="none")
        return losses.view(len(arms), -1).mean(1)

    train(
        lambda chosen: Transformer(architecture, chosen),
        [Member(seed, "causal") for seed in seeds],
        lambda seed, step: {"tokens": DATA[seed]},
        loss,
        Optimisation(STEPS, 1e-2, optimiser="adamw"),
    )


def apart() -> None:
    """The same trainings one after the other."""
    for seed in range(MODELS):
        fit([seed])


def seconds(work: Callable[[], object]) -> float:
    """CPU time of one call."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def ratio(slow: Callable[[], object], fast: Callable[[], object]) -> float:
    """Median over interleaved repeats of the CPU time of ``slow`` over that of ``fast``."""
    fast()
    return statistics.median(seconds(slow) / seconds(fast) for _ in range(REPEATS))


def main() -> None:
    torch.set_num_threads(1)
    for name, speedup, required in (
        (f"{SEQUENCES} stepwise sequences drawn at once against a loop", ratio(loop, together), 10.0),
        (f"{MODELS} navigators as one ensemble against {MODELS} runs", ratio(apart, lambda: fit(range(MODELS))), 1.5),
    ):
        print(f"{name}: ratio {speedup:.1f} (required >= {required:g})", flush=True)


if __name__ == "__main__":
    main()
