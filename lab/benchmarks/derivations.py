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
NAMES = equations.NUMBERS + MODULUS
ROUNDS = 5


def written(row: list[int], problem: int, width: int) -> tuple[list[int], list[int], list[bool]]:
    """A row with its targets and where they count, padded."""
    rest = width - len(row)
    targets = [-1] * (problem - 1) + row[problem:] + [-1] * (rest + 1)
    return row + [0] * rest, targets, [target >= 0 for target in targets]


def one_expression(rng: np.random.Generator) -> object:
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
    problem = len(lines[-1]) + 1
    return written([*row[:-1], 1], problem, arithmetic.longest(OPERATORS, "derivation"))


def printed(system: list[list[int]], step: int) -> list[int]:
    row = []
    for place, equation in enumerate(system):
        terms = [[NAMES + place]] if place < step else []
        terms += [[equations.NUMBERS + equation[column], NAMES + column] for column in range(step, UNKNOWNS)]
        for number, term in enumerate(terms):
            row += [equations.PLUS] * (number > 0) + term
        row += [equations.EQUALS, equations.NUMBERS + equation[-1], equations.COMMA]
    return row[:-1]


def one_system(rng: np.random.Generator) -> object:
    inverse = inverses(MODULUS).tolist()
    while True:
        system = rng.integers(0, MODULUS, (UNKNOWNS, UNKNOWNS + 1)).tolist()
        row = printed(system, 0)
        problem = len(row) + 1
        for column in range(UNKNOWNS):
            pivot = next((place for place in range(column, UNKNOWNS) if system[place][column]), None)
            if pivot is None:
                break
            system[column], system[pivot] = system[pivot], system[column]
            factor = inverse[system[column][column]]
            system[column] = [number * factor % MODULUS for number in system[column]]
            for place in range(UNKNOWNS):
                if place != column:
                    entry = system[place][column]
                    pairs = zip(system[place], system[column], strict=True)
                    system[place] = [(number - entry * top) % MODULUS for number, top in pairs]
            row += [equations.STEP, *printed(system, column + 1)]
        else:
            return written([*row, 1], problem, len(row) + 1)


def one_subsequence(rng: np.random.Generator) -> object:
    values = rng.integers(ITEMS + 1, 250, ITEMS).tolist()
    lengths: list[int] = []
    for item, value in enumerate(values):
        lengths.append(1 + max((lengths[j] for j in range(item) if values[j] < value), default=0))
    row = [*values, 2, *lengths, 2, max(lengths), 1]
    return written(row, ITEMS + 1, len(row))


def one_pair(rng: np.random.Generator) -> object:
    a = rng.integers(0, 10, LETTERS).tolist()
    b = list(a)
    for _ in range(int(rng.integers(1, LETTERS + 1))):
        operation, spot = int(rng.integers(3)), int(rng.integers(len(b)))
        if operation == 0:
            b.insert(spot, int(rng.integers(10)))
        elif operation == 1 and len(b) > 1:
            del b[spot]
        else:
            b[spot] = int(rng.integers(10))
    a, b = sorted((a, b), key=len)
    table = [[2 * j for j in range(len(b) + 1)]]
    for i in range(len(a)):
        row = [2 * (i + 1)]
        for j in range(len(b)):
            substituted = table[i][j] + 3 * (a[i] != b[j])
            row.append(min(table[i][j + 1] + 2, row[j] + 2, substituted))
        table.append(row)
    steps = [number for row in table[1:] for number in (*row[1:], 4)]
    row = [*a, 3, *b, 2, *steps, 2, table[-1][-1], 1]
    return written(row, len(a) + len(b) + 2, edit_distance.row_length(LETTERS, "derivation"))


def one_word(rng: np.random.Generator) -> object:
    table, state = TABLE, 0
    word = rng.integers(0, 2, WORD).tolist()
    run = []
    for letter in word:
        state = table[state][letter]
        run.append(state)
    row = [*(3 + letter for letter in word), 2, *(5 + state for state in run), 1]
    return written(row, WORD + 1, len(row))


def one_formula(rng: np.random.Generator) -> object:
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
    row = [
        *(5 + 2 * turned[node] + gates[node] for node in range(leaves - 1)),
        *(3 + value for value in values[leaves - 1 :]),
        2,
    ]
    row += [
        3 + values[node] for level in range(DEPTH - 1, -1, -1) for node in range(2**level - 1, 2 ** (level + 1) - 1)
    ]
    return written([*row, 1], 2 * leaves, len(row) + 1)


TABLE = automata.group_table().tolist()


def ratio(name: str, required: float, loop: Callable[[], object], batched: Callable[[], object], share: float) -> None:
    """Print how many times as much a second of ``batched`` makes; the loop makes ``share`` of what it makes."""
    start = time.process_time()
    loop()
    slow = (time.process_time() - start) / share
    batched()
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        batched()
        times.append(time.process_time() - start)
    speedup = slow / statistics.median(times)
    verdict = "ok" if speedup >= required else "TOO LOW"
    print(
        f"  {name:<44} {speedup:6.1f}  required >= {required:.0f}  {verdict:<8} "
        f"({slow:.2f} -> {statistics.median(times):.4f} s)",
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
    for name, (draw, batched) in pairs.items():
        ratio(name, 10, lambda draw=draw: [draw(rng) for _ in range(SLOW)], batched, SLOW / FAST)  # type: ignore[misc]


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
