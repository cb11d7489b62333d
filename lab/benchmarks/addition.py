"""What the table, the ensemble and the cache are worth for addition: ratios of CPU times measured side by side in one run.

1. Drawing 2,048 windows by look-up in the table of all 2,100 against a plain loop that writes each one out.
2. Training eight column machines as one ensemble against the same eight one after the other, at the sizes of the `ci`
   preset (a few steps).
3. Adding 512 pairs of 200 digits with a trained machine in the loop: all at once with a key-value cache, against one
   pair at a time with a whole forward pass for each token. The slow way is timed on a few of the 512 pairs, on which both
   must write the same digits. A further line says what the cache alone is worth, at the same batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lab.domains.addition.column_adder import ANSWER_TOKENS, add_in_columns
from lab.domains.addition.prompts import (
    NO_TARGET,
    STOP,
    WINDOW_LENGTH,
    WINDOW_PROMPT,
    WINDOW_VOCABULARY,
    column_window,
    encode,
    read_window_answers,
)
from lab.models.masks import causal
from lab.models.transformer import Architecture, Transformer
from lab.streams import stream
from lab.training import Member, Optimisation, train

BATCH, WINDOWS, MODELS, STEPS, ENOUGH_STEPS = 128, 2_048, 8, 20, 450
PAIRS, DIGITS, ALONE, SHORT = 512, 200, 2, 10
REQUIRED_SAMPLING, REQUIRED_DECODING = 10, 20

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


def written_out(seed: int, batch: int) -> Tensor:
    """The same law as `column_window`, each window written as a string and encoded by itself."""
    rng, rows = stream(seed, "loop").rng(), []
    for _ in range(batch):
        a, b = int(rng.integers(10)), int(rng.integers(10))
        if rng.integers(2):
            s = int(rng.integers(20))
            prompt, total = f"{s}C{a}{b}", a + b + (s >= 10)
        else:
            prompt, total = f"{a}{b}", a + b
        rows.append(encode(prompt.ljust(WINDOW_PROMPT, "P") + f"\n{total}S".ljust(4, "P")))
    return torch.stack(rows)


def fit(seeds: Sequence[int], steps: int) -> Transformer:
    """Column machines trained together for some steps."""

    def batch(seed: int, step: int) -> dict[str, Tensor]:
        windows = column_window(stream(seed, "windows", step), BATCH)
        return {"tokens": windows.tokens[:, :-1], "answer": windows.targets[:, WINDOW_PROMPT:-1]}

    def loss(module: Transformer, data: dict[str, Tensor], arms: tuple[str, ...]) -> Tensor:
        logits, answer = module(data["tokens"], MASK)[:, :, WINDOW_PROMPT:], data["answer"]
        surprise = F.cross_entropy(logits.flatten(0, 2), answer.flatten(), ignore_index=NO_TARGET, reduction="none")
        return surprise.view(len(arms), -1).mean(1)

    return train(
        lambda chosen: Transformer(ARCHITECTURE, chosen),
        [Member(seed, "causal") for seed in seeds],
        batch,
        loss,
        Optimisation(steps, 5e-3, schedule="cosine", optimiser="adamw"),
    ).module


def fit_apart() -> None:
    """The same trainings one after the other."""
    for seed in range(MODELS):
        fit([seed], STEPS)


def add_alone(module: Transformer, first: Tensor, second: Tensor) -> list[int]:
    """The column sums of one pair, every token from a whole forward pass; ends where no number is written."""
    sums: list[int] = []
    for a, b in zip(first.tolist(), second.tolist(), strict=True):
        prompt = f"{sums[-1]}C{a}{b}" if sums else f"{a}{b}"
        tokens = encode(prompt.ljust(WINDOW_PROMPT, "P") + "\n")
        for _ in range(ANSWER_TOKENS):
            with torch.no_grad():
                logits = module(tokens.expand(1, 1, -1), MASK[: len(tokens), : len(tokens)])
            tokens = torch.cat([tokens, logits[0, 0, -1:].argmax(-1)])
            if int(tokens[-1]) == STOP:
                break
        written = F.pad(tokens[WINDOW_PROMPT + 1 :], (0, ANSWER_TOKENS), value=STOP)[:ANSWER_TOKENS]
        sums.append(int(read_window_answers(written)))
        if sums[-1] < 0:
            break
    return sums


def decoding() -> None:
    """512 pairs of 200 digits, together and apart."""
    module = fit([0], ENOUGH_STEPS)
    first, second = torch.from_numpy(stream(0, "pairs").rng().integers(0, 10, (2, PAIRS, DIGITS))).unbind(0)
    together = add_in_columns(module, first, second, MASK)[0]
    for place in range(ALONE):
        sums = add_alone(module, first[place], second[place])
        if len(sums) < DIGITS or sums[-1] < 0:
            raise SystemExit("the machine wrote no number somewhere; raise ENOUGH_STEPS")
        if [s % 10 for s in sums] != together[place, :DIGITS].tolist():
            raise SystemExit("the two ways of decoding write different digits")
    batched = seconds(lambda: add_in_columns(module, first, second, MASK), 1)
    apart = seconds(lambda: [add_alone(module, first[p], second[p]) for p in range(ALONE)], 1)
    ratio = apart / ALONE * PAIRS / batched
    print(
        f"{PAIRS} sums of {DIGITS} digits, cached batch against an uncached loop (timed on {ALONE} of the {PAIRS}): "
        f"ratio {ratio:.0f} (required >= {REQUIRED_DECODING})",
        flush=True,
    )
    few = first[:, :SHORT], second[:, :SHORT]
    cached = seconds(lambda: add_in_columns(module, *few, MASK))
    uncached = seconds(lambda: add_in_columns(module, *few, MASK, cached=False))
    print(f"the cache alone, {PAIRS} sums of {SHORT} digits: ratio {uncached / cached:.2f}", flush=True)


def main() -> None:
    torch.set_num_threads(1)
    column_window(stream(0, "warm-up"), 1)
    looked_up = seconds(lambda: column_window(stream(0, "windows"), WINDOWS))
    looped = seconds(lambda: written_out(0, WINDOWS))
    print(
        f"{WINDOWS} windows by table against a plain loop: ratio {looped / looked_up:.0f} "
        f"(required >= {REQUIRED_SAMPLING})",
        flush=True,
    )
    fit([0], 2)
    together, apart = seconds(lambda: fit(range(MODELS), STEPS), 2), seconds(fit_apart, 2)
    print(f"{MODELS} seeds as an ensemble against one by one, ci sizes: ratio {apart / together:.2f}")
    decoding()


if __name__ == "__main__":
    main()
