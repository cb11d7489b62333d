r"""Linear equations over a prime field and their solution by Gauss-Jordan elimination.

A uniform m x (m + 1) matrix $[A \mid b]$ over $Z_p$ is drawn again until A is invertible, which has probability
$\prod_{i=1}^{m} (1 - p^{-i})$. Given A the right side is uniform, so the solution is uniform on $Z_p^m$: guessing it
succeeds with probability $p^{-m}$.

The derivation clears one column after the other: bring the first row with a nonzero entry up, divide it by that entry,
subtract it from all others, print all equations. In step s the s cleared variables are dropped where their coefficient is 0
and written without it where it is 1; the later ones always have a coefficient. So every row of a batch has the same layout,

    2 a + 3 b = 1 , 4 a + 1 b = 0 | a + 4 b = 3 , 0 b + ... | ... | a = 2 , b = 4 S

In step s that takes 3 m (m - s) + 2 (m + s) - 1 tokens: the problem is step 0, the answer step m.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from lab import contracts
from lab.domains.derivations.prime_field import check_prime, inverses
from lab.domains.derivations.sequences import Derivations, check_format, check_sizes, full_rows, sign, write
from lab.errors import LabError
from lab.streams import RandomStream

STEP, PLUS, EQUALS, COMMA, NUMBERS = 2, 3, 4, 5, 6
MOST_DRAWS = 200
"""How often a singular matrix is drawn again; over Z_2 all of them fail with probability below 1e-29."""


def vocabulary_size(unknowns: int, modulus: int) -> int:
    """Pad, stop, the end of a step, + = and the comma; p numbers; m names of unknowns."""
    return NUMBERS + modulus + unknowns


def share_invertible(unknowns: int, modulus: int) -> float:
    r"""$\prod_{i=1}^{m} (1 - p^{-i})$, the share of m x m matrices that are invertible.

    >>> round(share_invertible(3, 11), 4)
    0.9009
    """
    check_prime(modulus)
    share = 1.0
    for power in range(1, unknowns + 1):
        share *= 1 - float(modulus) ** -power
    return share


class Elimination(NamedTuple):
    """Gauss-Jordan elimination of a batch of systems."""

    systems: Int[Tensor, "step batch equation column"]
    """[A | b] before, and after each of the m steps"""
    singular: Int[Tensor, " batch"]
    """1 where some column had no entry to divide by"""


def eliminate(systems: Int[Tensor, "batch equation column"], modulus: int) -> Elimination:
    """All systems at once, a column at a time.

    Args:
        systems: [A | b] with m equations and m + 1 columns, entries 0 .. p - 1.
        modulus: p.

    Raises:
        LabError: a modulus that is not prime, a matrix that is not m x (m + 1), or an entry outside 0 .. p - 1.
    """
    inverse, size = inverses(modulus), systems.shape[1]
    if systems.shape[2] != size + 1:
        raise LabError(f"A system of {size} equations needs {size + 1} columns but has {systems.shape[2]}; add b last.")
    if systems.numel() and not 0 <= int(systems.min()) <= int(systems.max()) < modulus:
        raise LabError(f"Entries of a system modulo {modulus} must lie between 0 and {modulus - 1}; reduce them first.")
    now, steps, rows = systems, [systems], torch.arange(len(systems))
    singular = torch.zeros(len(systems), dtype=torch.int64)
    for column in range(size):
        pivot = column + (now[:, column:, column] != 0).int().argmax(1)
        order = torch.arange(size).expand(len(now), size).clone()
        order[:, column] = pivot
        order[rows, pivot] = column
        now = now.gather(1, order[:, :, None].expand_as(now))
        entry = now[:, column, column]
        singular |= (entry == 0).long()
        top = now[:, column] * inverse[entry][:, None] % modulus
        cleared = (now - now[:, :, column : column + 1] * top[:, None]) % modulus
        cleared[:, column] = top
        now = cleared
        steps.append(now)
    return Elimination(torch.stack(steps), singular)


def invertible_systems(
    stream: RandomStream, batch: int, unknowns: int, modulus: int, draws: int = MOST_DRAWS
) -> Int[Tensor, "step batch equation column"]:
    """Uniform systems with an invertible matrix, and all steps of their elimination.

    Args:
        stream: randomness; field "draw k", k = 0, 1, ...
        batch: number of systems.
        unknowns: m.
        modulus: p.
        draws: how often a singular one is drawn again at most.

    Raises:
        LabError: a modulus that is not prime, no unknowns, or a system that is still singular after ``draws`` draws.
    """
    check_prime(modulus)
    check_sizes(unknowns=unknowns)
    systems = torch.zeros(unknowns + 1, batch, unknowns, unknowns + 1, dtype=torch.int64)
    singular = torch.arange(batch)
    for number in range(draws):
        drawn = stream.child("draw", number).rng().integers(0, modulus, (batch, unknowns, unknowns + 1))
        new = eliminate(torch.from_numpy(drawn)[singular], modulus)
        systems[:, singular] = new.systems
        singular = singular[new.singular == 1]
        if not len(singular):
            return systems
    raise LabError(
        f"{len(singular)} of {batch} systems were singular in each of {draws} draws; allow more draws or a larger "
        f"modulus (modulo {modulus} a share of {share_invertible(unknowns, modulus):.3g} is invertible)."
    )


@lru_cache
def _layout(unknowns: int, step: int, modulus: int) -> Int[Tensor, " time"]:
    """The tokens of the equations of a step; entries of the system as -1 - (its place in row order)."""
    first_name, tokens = NUMBERS + modulus, []
    for row in range(unknowns):
        terms = [[first_name + row]] if row < step else []
        terms += [[-1 - (row * (unknowns + 1) + j), first_name + j] for j in range(step, unknowns)]
        for number, term in enumerate(terms):
            tokens += [PLUS] * (number > 0) + term
        tokens += [EQUALS, -1 - (row * (unknowns + 1) + unknowns), COMMA]
    return torch.tensor(tokens[:-1])


def lengths(unknowns: int) -> list[int]:
    """Tokens of the equations printed in step 0 (the problem), 1, .. m (the answer).

    >>> lengths(3), sum(lengths(3)) + 3
    ([32, 25, 18, 11], 89)
    """
    check_sizes(unknowns=unknowns)
    return [3 * unknowns * (unknowns - step) + 2 * (unknowns + step) - 1 for step in range(unknowns + 1)]


def print_step(systems: Int[Tensor, "batch equation column"], step: int, modulus: int) -> Int[Tensor, "batch time"]:
    """The equations of systems whose first ``step`` columns are cleared."""
    layout = _layout(systems.shape[1], step, modulus)
    numbers = NUMBERS + systems.flatten(1)[:, (-1 - layout).clamp(min=0)]
    return torch.where(layout < 0, numbers, layout)


@contracts.generator(unknowns=2)
def equations(
    stream: RandomStream, batch: int, *, unknowns: int, modulus: int = 11, format: str = "derivation"
) -> Derivations:
    """Systems of ``unknowns`` equations over Z_p with their solution or their whole elimination.

    Args:
        stream: randomness; field "draw k".
        batch: number of systems.
        unknowns: m.
        modulus: p.
        format: "direct" or "derivation".

    Raises:
        LabError: a modulus that is not prime, no unknowns, an unknown format, or systems that stay singular.
    """
    check_format(format)
    steps = invertible_systems(stream, batch, unknowns, modulus)
    printed = [full_rows(print_step(system, step, modulus)) for step, system in enumerate(steps)]
    printed = [printed[0], printed[-1]] if format == "direct" else printed
    mark = sign(STEP, batch)
    parts = [part for step in printed for part in (step, mark)][:-1]
    return write(parts, 2, sum(part.shape[1] for part, _ in parts) + 1)


class Step(NamedTuple):
    """A step of a derivation that does not follow: its number, from 0, and why."""

    number: int
    reason: str


def first_wrong_step(tokens: Sequence[int], unknowns: int, modulus: int) -> Step | None:
    """The first step of a row that is no proper elimination of the problem; None if all are.

    An independent reader: equations are parsed word by word; the printed answer is put into every equation of every step;
    and every step must keep a matrix of full rank (a determinant by integer arithmetic) with its cleared columns unit columns.
    """
    row = [int(token) for token in tokens if int(token) > 1]
    blocks: list[list[int]] = [[]]
    for token in row:
        blocks.append([]) if token == STEP else blocks[-1].append(token)
    systems = [_parse(block, unknowns, modulus) for block in blocks]
    broken = next((number for number, system in enumerate(systems) if system is None), None)
    if broken is not None:
        return Step(broken, "it is no list of equations")
    answer = [equation[-1] for equation in systems[-1] or []]
    for number, system in enumerate(systems):
        assert system is not None
        for equation in system:
            if (sum(a * x for a, x in zip(equation, answer, strict=False)) - equation[-1]) % modulus:
                return Step(number, "the answer does not solve one of its equations")
        if _determinant([equation[:-1] for equation in system], modulus) == 0:
            return Step(number, "its matrix is singular")
        cleared = unknowns if number == len(systems) - 1 else number
        if any(system[r][c] != (r == c) for r in range(unknowns) for c in range(cleared)):
            return Step(number, f"its first {cleared} columns are not cleared")
    return None


def _parse(block: Sequence[int], unknowns: int, modulus: int) -> list[list[int]] | None:
    """Coefficients and right side of each printed equation; None for what is no list of equations."""
    first_name, system = NUMBERS + modulus, []
    texts: list[list[int]] = [[]]
    for token in block:
        texts.append([]) if token == COMMA else texts[-1].append(token)
    for text in texts:
        if text.count(EQUALS) != 1 or text[-2] != EQUALS or not NUMBERS <= text[-1] < first_name:
            return None
        row, coefficient = [0] * unknowns + [text[-1] - NUMBERS], 1
        for token in text[:-2]:
            if token >= first_name:
                row[token - first_name] += coefficient
                coefficient = 1
            elif token >= NUMBERS:
                coefficient = token - NUMBERS
        system.append(row)
    return system if len(system) == unknowns else None


def _determinant(matrix: list[list[int]], modulus: int) -> int:
    """By expansion along the first row, in integers."""
    if not matrix:
        return 1
    minors = ([row[:j] + row[j + 1 :] for row in matrix[1:]] for j in range(len(matrix)))
    return sum((-1) ** j * matrix[0][j] * _determinant(minor, modulus) for j, minor in enumerate(minors)) % modulus
