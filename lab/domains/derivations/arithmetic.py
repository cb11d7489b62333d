r"""Expressions over a prime field, built backwards from their answer, and their step-by-step evaluation.

An expression with n operators starts as one uniform number; n times a uniformly chosen number v is replaced by
``a op b`` with that value. So the answer is uniform on $Z_p$ whatever n is, a division by zero never arises, and the
*derivation* comes for nothing: it is the history read backwards,

    (3 + 2) * 4 = 5 * 4 = 9 S                 p = 11; S is the stop token

Brackets are kept only where they are needed. Every number is one token. With all brackets kept a line of k operators has
4 k - 1 tokens, so a direct row has at most 4 n + 2 tokens and a derivation 2 n (n + 1) + 2 (stop token included).

What an independent reader makes of a derivation is checked by `first_wrong_step`: an ordinary recursive-descent
evaluator that knows nothing of how expressions were made.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor

from lab import contracts
from lab.domains.derivations.prime_field import check_prime, divide, inverses
from lab.domains.derivations.sequences import Derivations, Rows, check_format, check_sizes, sign, write
from lab.errors import LabError
from lab.streams import RandomStream

PLUS, MINUS, TIMES, OVER, OPEN, CLOSE, EQUALS, ZERO = range(2, 10)
OPERATORS = (PLUS, MINUS, TIMES, OVER)
_SIGNS = "_S+-*/()="


def vocabulary_size(modulus: int) -> int:
    """Pad, stop, four operators, two brackets, the sign of equality, and p numbers."""
    return ZERO + modulus


def longest(operators: int, format: str) -> int:
    """Tokens of the longest row, the stop token included.

    >>> [longest(n, "direct") for n in (4, 5, 6)], [longest(n, "derivation") for n in (4, 5, 6)]
    ([18, 22, 26], [42, 62, 86])
    """
    check_format(format)
    return 4 * operators + 2 if format == "direct" else 2 * operators * (operators + 1) + 2


@lru_cache
def _pieces(modulus: int) -> tuple[Int[Tensor, "value choice 3"], Int[Tensor, " value"]]:
    """For every value v the equally likely (op, a, b) with a op b = v, b = -1 where any will do; and how many there are.

    Uniform (op, a), drawn again where no b fits: a product 0 * b that should not be 0, or a quotient of which exactly one
    of v and a is 0.
    """
    inverse = inverses(modulus).tolist()
    rows: list[list[tuple[int, int, int]]] = []
    for v in range(modulus):
        row = [(PLUS, a, (v - a) % modulus) for a in range(modulus)]
        row += [(MINUS, a, (a - v) % modulus) for a in range(modulus)]
        for a in range(modulus):
            if a:
                row.append((TIMES, a, v * inverse[a] % modulus))
            elif v == 0:
                row.append((TIMES, 0, -1))
            if v and a:
                row.append((OVER, a, a * inverse[v] % modulus))
            elif v == 0 and a == 0:
                row.append((OVER, 0, -1))
        rows.append(row)
    widest = max(map(len, rows))
    table = torch.tensor([row + [(0, 0, 0)] * (widest - len(row)) for row in rows])
    return table, torch.tensor([len(row) for row in rows])


def histories(stream: RandomStream, batch: int, operators: int, modulus: int) -> list[Rows]:
    """The strings with 0, 1, .. ``operators`` operators that lead from the answer to the expression, as tokens.

    Args:
        stream: randomness; fields "answer" and "step k".
        batch: number of expressions.
        operators: n, at least 1.
        modulus: p.
    """
    table, choices = _pieces(modulus)
    text = ZERO + torch.from_numpy(stream.child("answer").rng().integers(0, modulus, (batch, 1)))
    length = torch.ones(batch, dtype=torch.int64)
    strings = [(text, length)]
    for step in range(operators):
        draws = torch.from_numpy(stream.child(f"step {step}").rng().random((batch, 3)))
        text = F.pad(text, (0, 4))
        place = torch.arange(text.shape[1])
        operand = (draws[:, 0] * (step + 1)).long()
        spot = ((text >= ZERO).cumsum(1) > operand[:, None]).int().argmax(1)
        value = text.gather(1, spot[:, None]).squeeze(1) - ZERO
        op, a, b = table[value, (draws[:, 1] * choices[value]).long()].unbind(1)
        # Any b where 0 is multiplied, any but 0 where 0 is divided.
        least = (op == OVER).long()
        b = torch.where(b < 0, least + (draws[:, 2] * (modulus - least)).long(), b)
        needed = _brackets_needed(text, spot, length, op)
        piece = torch.stack([torch.full_like(op, OPEN), ZERO + a, op, ZERO + b, torch.full_like(op, CLOSE)], 1)
        piece = torch.where(needed[:, None], piece, piece.roll(-1, 1))
        grown = torch.where(needed, 4, 2)
        inside = place - spot[:, None]
        behind = inside > grown[:, None]
        source = torch.where(behind, place - grown[:, None], place).clamp(min=0)
        shifted = text.gather(1, source)
        inserted = piece.gather(1, inside.clamp(0, 4))
        text = torch.where((inside >= 0) & ~behind, inserted, shifted)
        length = length + grown
        strings.append((text, length))
    return strings


def _brackets_needed(
    text: Int[Tensor, "batch time"],
    spot: Int[Tensor, " batch"],
    length: Int[Tensor, " batch"],
    op: Int[Tensor, " batch"],
) -> Bool[Tensor, " batch"]:
    """Whether ``a op b`` in the place of the number at ``spot`` changes its meaning without brackets."""
    left = torch.where(spot > 0, text.gather(1, (spot - 1).clamp(min=0)[:, None]).squeeze(1), 0)
    behind = (spot + 1).clamp(max=text.shape[1] - 1)
    right = torch.where(spot + 1 < length, text.gather(1, behind[:, None]).squeeze(1), 0)
    additive = (op == PLUS) | (op == MINUS)
    binding = (left == TIMES) | (right == TIMES) | (right == OVER) | (left == MINUS)
    return (left == OVER) | (binding & additive)


@contracts.generator(operators=3)
def arithmetic(
    stream: RandomStream, batch: int, *, operators: int, modulus: int = 11, format: str = "derivation"
) -> Derivations:
    """Expressions with ``operators`` operators over Z_p, and their value or whole evaluation.

    Args:
        stream: randomness; fields "answer" and "step k".
        batch: number of expressions.
        operators: n.
        modulus: p.
        format: "direct" or "derivation".

    Raises:
        LabError: a modulus that is not prime, fewer than 1 operator, or an unknown format.
    """
    check_prime(modulus)
    check_sizes(operators=operators)
    lines = histories(stream, batch, operators, modulus)[::-1]
    equals = sign(EQUALS, batch)
    shown = [lines[0], lines[-1]] if format == "direct" else lines
    parts = [part for line in shown for part in (line, equals)][:-1]
    return write(parts, 2, longest(operators, format))


def answer_of(tokens: Sequence[int]) -> int | None:
    """The number that stands last before the stop token of a row (anything written), None where there is none."""
    cut = list(tokens[: list(tokens).index(1)]) if 1 in list(tokens) else list(tokens)
    return int(cut[-1]) - ZERO if cut and cut[-1] >= ZERO else None


def encode(text: str) -> Int[Tensor, " time"]:
    """Tokens of a text in + - * / ( ) = and numbers; spaces part them.

    >>> encode("(3+2)*4=9").tolist()
    [6, 12, 2, 11, 7, 4, 13, 8, 18]
    """
    spaced = text
    for mark in _SIGNS[2:]:
        spaced = spaced.replace(mark, f" {mark} ")
    tokens = []
    for word in spaced.split():
        if not (word in _SIGNS[2:] or word.isdecimal()):
            raise LabError(f"{word!r} is no token of an expression; use numbers and + - * / ( ) =.")
        tokens.append(ZERO + int(word) if word.isdecimal() else _SIGNS.index(word))
    return torch.tensor(tokens)


def decode(tokens: Sequence[int]) -> str:
    """The text of a row, without what pads it.

    >>> decode([6, 12, 2, 11, 7, 4, 13, 8, 18, 1, 0])
    '(3+2)*4=9S'
    """
    return "".join(_SIGNS[token] if token < ZERO else str(token - ZERO) for token in map(int, tokens) if token)


class _Reader:
    """Recursive descent over sum = product (+- product)*, product = factor (*/ factor)*, factor = number or (sum)."""

    def __init__(self, tokens: Sequence[int], modulus: int) -> None:
        self.tokens, self.modulus, self.place = [int(token) for token in tokens], modulus, 0

    def next(self) -> int:
        return self.tokens[self.place] if self.place < len(self.tokens) else -1

    def take(self) -> int:
        self.place += 1
        return self.tokens[self.place - 1]

    def sum(self) -> int:
        value = self.product()
        while self.next() in (PLUS, MINUS):
            value += self.product() if self.take() == PLUS else -self.product()
        return value % self.modulus

    def product(self) -> int:
        value = self.factor()
        while self.next() in (TIMES, OVER):
            times = self.take() == TIMES
            other = self.factor()
            value = value * other % self.modulus if times else divide(value, other, self.modulus)
        return value

    def factor(self) -> int:
        token = self.next()
        if token >= ZERO:
            return self.take() - ZERO
        if token != OPEN:
            raise LabError(f"{decode(self.tokens)!r} is no expression; a number or a bracket is missing.")
        self.take()
        value = self.sum()
        if self.next() != CLOSE:
            raise LabError(f"{decode(self.tokens)!r} is no expression; a bracket is not closed.")
        self.take()
        return value


def evaluate(tokens: Sequence[int], modulus: int) -> int:
    """The value of an expression in Z_p.

    >>> evaluate(encode("1-2/3*(4-5)").tolist(), 11)
    9

    Raises:
        LabError: a modulus that is not prime, a division by zero, or what is no expression.
    """
    check_prime(modulus)
    reader = _Reader(tokens, modulus)
    value = reader.sum()
    if reader.place < len(reader.tokens):
        raise LabError(f"{decode(reader.tokens)!r} is no expression; something stands behind its end.")
    return value


class Step(NamedTuple):
    """A step of a derivation that does not follow: its number, from 0, and why."""

    number: int
    reason: str


def first_wrong_step(tokens: Sequence[int], modulus: int) -> Step | None:
    """The first line of a row "expression = ... = value S" that does not follow from the one before; None if all do.

    A line follows if it is the line before with one ``a op b``, or ``(a op b)``, carried out, and has the same value.
    """
    row = [int(token) for token in tokens if int(token) > 1]
    lines: list[list[int]] = [[]]
    for token in row:
        if token == EQUALS:
            lines.append([])
        else:
            lines[-1].append(token)
    for number, (before, after) in enumerate(zip(lines, lines[1:], strict=False)):
        try:
            same = evaluate(before, modulus) == evaluate(after, modulus)
        except LabError as error:
            return Step(number, str(error))
        if not same:
            return Step(number, f"{decode(before)} and {decode(after)} differ in value")
        if not _one_operation(before, after, modulus):
            return Step(number, f"{decode(after)} is not {decode(before)} with one operation carried out")
    if len(lines[-1]) != 1:
        return Step(len(lines) - 1, "the last line is no number")
    return None


def _one_operation(before: list[int], after: list[int], modulus: int) -> bool:
    for place, token in enumerate(after):
        for bracketed in (False, True):
            start, grown = place + bracketed, 4 if bracketed else 2
            piece = before[start : start + 3]
            framed = not bracketed or (before[place : place + 1] == [OPEN] and before[start + 3 : start + 4] == [CLOSE])
            whole_line = before[:place] + [token] + before[place + grown + 1 :]
            well_formed = len(piece) == 3 and piece[0] >= ZERO and piece[1] in OPERATORS and piece[2] >= ZERO
            if framed and well_formed and token >= ZERO and whole_line == after:
                try:
                    if evaluate(piece, modulus) == token - ZERO:
                        return True
                except LabError:
                    continue
    return False
