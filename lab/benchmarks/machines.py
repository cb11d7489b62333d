"""Machines: the lag system of the universal machine on many tapes, its transformer decoded with a cache, trees on many strings."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from lab.decoding import decode
from lab.domains.machines.automata import AUTOMATA
from lab.domains.machines.lag import Table, compile_table, run, run_many
from lab.domains.machines.lag_compilers import compiled, encode
from lab.domains.machines.rule_transformer import Tokens, rule_transformer
from lab.domains.machines.trees import automaton_tree, generate, many
from lab.domains.machines.turing import UNIVERSAL, configurations, random_tapes
from lab.models import masks
from lab.streams import stream

REQUIRED_TOKENS = 1e6  # a second
TAPES, CELLS, RULES, PLAIN_TAPES = 2048, 16, 3000, 8
PROMPTS, WRITTEN = 32, 256
STRINGS, PLAIN_STRINGS = 20_000, 200


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def queues(table: Table, tapes: int, window: int, cells: int = CELLS) -> np.ndarray:
    """Queues of random tapes [tape, symbol]."""
    starts = configurations(UNIVERSAL, random_tapes(stream(0, "tapes"), UNIVERSAL, tapes, cells))
    return np.stack([table.codes(encode(UNIVERSAL, configuration, window)) for configuration in starts])


def lag_systems(window: int) -> None:
    """Symbols a second, and the ratio to applying rules one by one to each queue."""
    table = compile_table(compiled(UNIVERSAL, window))
    starts = queues(table, TAPES, window)
    words = [table.word(queue) for queue in starts[:PLAIN_TAPES]]
    together = run_many(table, starts, 10)
    assert together.written.min() > 0
    written = 0

    def fast() -> None:
        nonlocal written
        written = int(run_many(table, starts, RULES).written.sum())

    fast_seconds = seconds(fast)
    plain = [0]
    alone = seconds(lambda: plain.append(sum(run(table.system, word, RULES).written for word in words)))
    rate, plain_rate = written / fast_seconds, plain[-1] / alone
    verdict = "" if rate >= REQUIRED_TOKENS else "  BELOW WHAT IS REQUIRED"
    print(f"window {window}, {TAPES} tapes: {rate / 1e6:.1f} million symbols a second (required >= 1){verdict}")
    print(f"window {window}, against rule by rule: ratio {rate / plain_rate:.1f} (required >= 10)", flush=True)


def cached_decoding() -> None:
    """Many prompts at once with the cache, against one prompt after the other without."""
    system = compiled(UNIVERSAL, 2)
    tokens = Tokens(system)
    starts = configurations(UNIVERSAL, random_tapes(stream(0, "tapes"), UNIVERSAL, PROMPTS, 6))
    prompts = torch.tensor([tokens.prompt(encode(UNIVERSAL, configuration, 2)) for configuration in starts])
    mask = masks.causal(prompts.shape[1] + WRITTEN)
    network = rule_transformer(system, len(mask))

    def written(rows: torch.Tensor, cached: bool) -> torch.Tensor:
        return decode(network, rows, mask, WRITTEN, stop_token=tokens.halt, cached=cached).tokens

    results: list[torch.Tensor] = []
    together = seconds(lambda: results.append(written(prompts, True)))
    shown = prompts[:1]
    alone = seconds(lambda: results.append(written(shown, False))) * PROMPTS / len(shown)
    assert torch.equal(results[0][:, : len(shown)], results[1])
    print(
        f"{PROMPTS} prompts of {WRITTEN} tokens with the cache, against one by one without: ratio {alone / together:.1f} (required >= 20)",
        flush=True,
    )


def trees() -> None:
    """A tree on many strings at once, against string by string."""
    automaton, length = AUTOMATA["contains aab"], 30
    words = stream(0, "words").rng().integers(2, size=(STRINGS, length))
    strings = np.concatenate((words, np.full((len(words), 1), 2)), axis=1)
    tree = automaton_tree(automaton, 1, length + 1)
    fast = seconds(lambda: many(tree, strings, length))
    slow = seconds(lambda: [generate(tree, string, length) for string in strings[:PLAIN_STRINGS].tolist()])
    print(
        f"a tree on {STRINGS} strings, against string by string: ratio {slow * STRINGS / PLAIN_STRINGS / fast:.1f} (required >= 10)",
        flush=True,
    )


def main() -> None:
    for window in (2, 3):
        lag_systems(window)
    cached_decoding()
    trees()


if __name__ == "__main__":
    main()
