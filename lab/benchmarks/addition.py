"""What the table, the ensemble and the cache are worth for addition, as ratios of CPU time in one process."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lab.generators.addition import (
    NO_TARGET,
    STOP,
    WINDOW_LENGTH,
    WINDOW_PROMPT,
    WINDOW_VOCABULARY,
    column_window,
    encode,
    read_window_answers,
)
from lab.models.column_adder import ANSWER_TOKENS, add_in_columns
from lab.models.masks import causal
from lab.models.transformer import Architecture, Transformer
from lab.streams import stream
from lab.training import Member, Optimisation, train

MASK = causal(WINDOW_LENGTH - 1)
ARCHITECTURE = Architecture(
    width=32,
    layers=2,
    heads=2,
    vocabulary=WINDOW_VOCABULARY,
    output_size=WINDOW_VOCABULARY,
    positions="learned",
    maximum_length=WINDOW_LENGTH,
    initial_scale=0.1,
)


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """CPU time of the fastest of some runs."""
    times = []
    for _ in range(repeats):
        begin = time.process_time()
        work()
        times.append(time.process_time() - begin)
    return min(times)


def report(name: str, ratio: float, required: float) -> None:
    """One line of the benchmark."""
    print(f"{name}: ratio {ratio:.1f} (required >= {required:g})", flush=True)


def windows_one_by_one(rng: np.random.Generator, batch: int) -> Tensor:
    """The same windows as `column_window`, each written out as a string and encoded by itself."""
    rows = []
    for _ in range(batch):
        a, b = int(rng.integers(10)), int(rng.integers(10))
        if rng.integers(2):
            s = int(rng.integers(20))
            prompt, total = f"{s}C{a}{b}", a + b + (s >= 10)
        else:
            prompt, total = f"{a}{b}", a + b
        rows.append(encode(prompt.ljust(WINDOW_PROMPT, "P") + f"\n{total}S".ljust(4, "P")))
    return torch.stack(rows)


def sampling() -> None:
    """Windows by look-up in the table of all 2,100 against a plain loop."""
    batch = 2_048
    looked_up = seconds(lambda: column_window(stream(0, "windows"), batch))
    looped = seconds(lambda: windows_one_by_one(np.random.default_rng(0), batch))
    report("windows by table, batch 2048", looped / looked_up, 10)


def ensemble() -> None:
    """Eight seeds trained as one ensemble against eight runs, at the sizes of the ci preset."""

    def batch(seed: int, step: int) -> dict[str, Tensor]:
        windows = column_window(stream(seed, "windows", step), 128)
        return {
            "tokens": windows.tokens[:, :-1],
            "answer": windows.targets[:, WINDOW_PROMPT:-1],
        }

    def loss(module: Transformer, data: dict[str, Tensor], arms: tuple[str, ...]) -> Tensor:
        logits = module(data["tokens"], MASK)[:, :, WINDOW_PROMPT:]
        answer = data["answer"]
        surprise = F.cross_entropy(
            logits.flatten(0, 2), answer.flatten(), ignore_index=NO_TARGET, reduction="none"
        )
        return surprise.view(len(arms), -1).mean(1)

    def run(seeds: list[int]) -> None:
        train(
            lambda chosen: Transformer(ARCHITECTURE, chosen),
            [Member(seed, "causal") for seed in seeds],
            batch,
            loss,
            Optimisation(20, 5e-3, optimiser="adamw"),
        )

    def one_by_one() -> None:
        for seed in range(8):
            run([seed])

    run([0])
    together = seconds(lambda: run(list(range(8))), 2)
    apart = seconds(one_by_one, 2)
    report("8 seeds as an ensemble, ci sizes", apart / together, 1)


def add_one_by_one(module: Transformer, first: Tensor, second: Tensor) -> None:
    """One sum, column by column, every token from a whole forward pass."""
    previous = ""
    for a, b in zip(first.tolist(), second.tolist(), strict=True):
        prompt = f"{previous}C{a}{b}" if previous else f"{a}{b}"
        tokens = encode(prompt.ljust(WINDOW_PROMPT, "P") + "\n")
        for _ in range(ANSWER_TOKENS):
            with torch.no_grad():
                logits = module(tokens.expand(1, 1, -1), MASK[: len(tokens), : len(tokens)])
            tokens = torch.cat([tokens, logits[0, 0, -1:].argmax(-1)])
            if int(tokens[-1]) == STOP:
                break
        written = F.pad(tokens[WINDOW_PROMPT + 1 :], (0, ANSWER_TOKENS), value=STOP)[:ANSWER_TOKENS]
        previous = str(max(int(read_window_answers(written)), 0))


def decoding() -> None:
    """512 sums of 200 digits in one batch with a cache, against one sum at a time without."""
    sums, columns, alone = 512, 200, 2
    module = Transformer(ARCHITECTURE, [0])
    digits = torch.from_numpy(stream(0, "sums").rng().integers(0, 10, (2, sums, columns)))
    batched = seconds(lambda: add_in_columns(module, digits[0], digits[1], MASK), 1)

    def one_by_one() -> None:
        for place in range(alone):
            add_one_by_one(module, digits[0, place], digits[1, place])

    single = seconds(one_by_one, 1)
    # Sums cost the same each, so the loop is timed on a few of the 512.
    report("512 sums of 200 digits, cached batch", single * sums / alone / batched, 20)


def main() -> None:
    torch.set_num_threads(1)
    sampling()
    ensemble()
    decoding()


if __name__ == "__main__":
    main()
