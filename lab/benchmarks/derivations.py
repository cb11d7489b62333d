"""What batching the generators of derivations is worth, and writing derivations from a cache: ratios measured in one run.

The plain loops are what one writes from the definitions: a problem at a time, in lists and integers. Sizes are the
published ones: 6 operators, 5 equations, sequences of 100 items, strings of 20 letters.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from lab.decoding import decode
from lab.domains.derivations import arithmetic, automata, edit_distance, equations, formulas, subsequences
from lab.domains.derivations.automaton_transformer import automaton_transformer
from lab.domains.derivations.prime_field import inverses
from lab.models.masks import causal
from lab.streams import stream

MODULUS, OPERATORS, UNKNOWNS, ITEMS, LETTERS, WORD, DEPTH = 11, 6, 5, 100, 20, 64, 6
FAST, SLOW = 2048, 64
ROUNDS = 5


def one_expression(rng: np.random.Generator) -> list[int]:
    inverse = inverses(MODULUS).tolist()
    text = [arithmetic.ZERO + int(rng.integers(MODULUS))]
    lines = [text]
    for _ in range(OPERATORS):
        spots = [place for place, token in enumerate(text) if token >= arithmetic.ZERO]
        spot = spots[int(rng.integers(len(spots)))]
        value = text[spot] - arithmetic.ZERO
        while True:
            a, op = int(rng.integers(MODULUS)), int(rng.integers(2, 6))
            if op == arithmetic.PLUS:
                b = (value - a) % MODULUS
            elif op == arithmetic.MINUS:
                b = (a - value) % MODULUS
            elif op == arithmetic.TIMES:
                if a == 0 and value != 0:
                    continue
                b = int(rng.integers(MODULUS)) if a == 0 else value * inverse[a] % MODULUS
            else:
                if (a == 0) != (value == 0):
                    continue
                b = int(rng.integers(1, MODULUS)) if a == 0 else a * inverse[value] % MODULUS
            break
        left = text[spot - 1] if spot else 0
        right = text[spot + 1] if spot + 1 < len(text) else 0
        binding = left in (arithmetic.TIMES, arithmetic.MINUS) or right in (arithmetic.TIMES, arithmetic.OVER)
        piece = [arithmetic.ZERO + a, op, arithmetic.ZERO + b]
        if left == arithmetic.OVER or (binding and op in (arithmetic.PLUS, arithmetic.MINUS)):
            piece = [arithmetic.OPEN, *piece, arithmetic.CLOSE]
        text = text[:spot] + piece + text[spot + 1 :]
        lines.append(text)
    row = []
    for line in reversed(lines):
        row += [*line, arithmetic.EQUALS]
    return [*row[:-1], 1]


def one_system(rng: np.random.Generator) -> list[list[int]]:
    inverse = inverses(MODULUS).tolist()
    while True:
        system = rng.integers(0, MODULUS, (UNKNOWNS, UNKNOWNS + 1)).tolist()
        printed = [number for equation in system for number in equation]
        for column in range(UNKNOWNS):
            pivot = next((row for row in range(column, UNKNOWNS) if system[row][column]), None)
            if pivot is None:
                break
            system[column], system[pivot] = system[pivot], system[column]
            factor = inverse[system[column][column]]
            system[column] = [number * factor % MODULUS for number in system[column]]
            for row in range(UNKNOWNS):
                if row != column:
                    entry = system[row][column]
                    pairs = zip(system[row], system[column], strict=True)
                    system[row] = [(number - entry * top) % MODULUS for number, top in pairs]
            printed += [number for equation in system for number in equation]
        else:
            return [printed]


def one_subsequence(rng: np.random.Generator) -> list[int]:
    values = rng.integers(ITEMS + 1, 250, ITEMS).tolist()
    lengths: list[int] = []
    for item, value in enumerate(values):
        lengths.append(1 + max((lengths[j] for j in range(item) if values[j] < value), default=0))
    return [*values, *lengths, max(lengths)]


def one_pair(rng: np.random.Generator) -> list[int]:
    a, b = rng.integers(0, 10, LETTERS).tolist(), rng.integers(0, 10, LETTERS).tolist()
    table = [[2 * j for j in range(LETTERS + 1)]]
    for i in range(LETTERS):
        row = [2 * (i + 1)]
        for j in range(LETTERS):
            kept = table[i][j] + 3 * (a[i] != b[j])
            row.append(min(table[i][j + 1] + 2, row[j] + 2, kept))
        table.append(row)
    return [*a, *b, *(number for row in table[1:] for number in row[1:])]


def one_word(rng: np.random.Generator) -> list[int]:
    table, state = TABLE, 0
    word = rng.integers(0, 2, WORD).tolist()
    run = []
    for letter in word:
        state = table[state][letter]
        run.append(state)
    return [*word, *run]


def one_formula(rng: np.random.Generator) -> list[bool]:
    leaves = 2**DEPTH
    gates = (rng.random(leaves - 1) < 0.5).tolist()
    turned = (rng.random(2 * leaves - 1) < 0.5).tolist()
    values = [False] * (2 * leaves - 1)
    for node in range(2 * leaves - 2, -1, -1):
        if node >= leaves - 1:
            values[node] = (rng.random() < 0.5) != turned[node]
        else:
            left, right = values[2 * node + 1], values[2 * node + 2]
            values[node] = ((left and right) if gates[node] else (left or right)) != turned[node]
    return values


TABLE = automata.group_table().tolist()


def ratio(name: str, required: float, loop: Callable[[], object], batched: Callable[[], object], share: float) -> None:
    """Print how many times as much a second of ``batched`` makes; the loop makes ``share`` of what it makes."""
    start = time.process_time()
    loop()
    slow = (time.process_time() - start) / share
    batched()
    taken = []
    for _ in range(ROUNDS):
        start = time.process_time()
        batched()
        taken.append(time.process_time() - start)
    found = slow / statistics.median(taken)
    verdict = "ok" if found >= required else "TOO LOW"
    print(
        f"  {name:<44} {found:6.1f}  required >= {required:.0f}  {verdict:<8} "
        f"({slow:.2f} -> {statistics.median(taken):.4f} s)",
        flush=True,
    )


def generators() -> None:
    source, rng = stream(0, "benchmark"), stream(0, "loop").rng()
    table = automata.group_table()
    pairs: dict[str, tuple[Callable[[np.random.Generator], object], Callable[[], object]]] = {
        "arithmetic, 6 operators": (one_expression, lambda: arithmetic.arithmetic(source, FAST, operators=OPERATORS)),
        "equations, 5 unknowns": (one_system, lambda: equations.equations(source, FAST, unknowns=UNKNOWNS)),
        "increasing subsequence, 100 items": (
            one_subsequence,
            lambda: subsequences.increasing_subsequence(source, FAST, length=ITEMS),
        ),
        "edit distance, 20 letters": (one_pair, lambda: edit_distance.edit_distance(source, FAST, length=LETTERS)),
        "words over S5, 64 letters": (one_word, lambda: automata.words(source, FAST, table=table, length=WORD)),
        "formulas of depth 6": (one_formula, lambda: formulas.formulas(source, FAST, depth=DEPTH)),
    }
    for name, (one, batched) in pairs.items():
        ratio(name, 10, lambda one=one: [one(rng) for _ in range(SLOW)], batched, SLOW / FAST)  # type: ignore[misc]


def writing() -> None:
    """Runs of a word machine written by the explicit network: 64 at once from a cache, or one after the other without."""
    table, batch, alone = automata.group_table(3), 64, 2
    rows = automata.words(stream(0, "write"), batch, table=table, length=WORD)
    module, mask = automaton_transformer(table, WORD), causal(rows.tokens.shape[1])
    prompts = rows.tokens[:, : WORD + 1]

    def write(chosen: torch.Tensor, cached: bool) -> torch.Tensor:
        return decode(module, chosen, mask, WORD + 1, cached=cached).tokens

    ratio(
        "64 derivations of 64 steps, from a cache",
        20,
        lambda: [write(prompts[row : row + 1], cached=False) for row in range(alone)],
        lambda: write(prompts, cached=True),
        alone / batch,
    )


def main() -> None:
    torch.set_num_threads(1)
    generators()
    writing()


if __name__ == "__main__":
    main()
