r"""Additions as token sequences: whole sums in several formats, and the windows of a column machine.

All digits are uniform and independent, leading zeros included, so a number of n columns is uniform on
0 .. 10^n - 1. With a = a_{n-1} ... a_0, b likewise, c = a + b = c_n ... c_0, and k_i the carry into column i, a
prompt of n columns reads (S is the stop token, h_i the letter of column i)

    plain           a_{n-1} .. a_0 + b_{n-1} .. b_0 = c_n .. c_0 S
    reversed        a_0 .. a_{n-1} + b_0 .. b_{n-1} = c_0 .. c_n S
    reversed-answer a_{n-1} .. a_0 + b_{n-1} .. b_0 = c_0 .. c_n S
    zero-padded     plain, with every number as wide as the widest of the batch can be
    index-hints     reversed, with h_i before every digit of column i
    scratchpad      a_0 .. a_{n-1} + b_0 .. b_{n-1} = c_0 k_1 C c_1 k_2 C .. c_{n-1} k_n S

`column_window` gives the windows themselves: "a b" for the first column, "s C a b" for later ones, where s is the
whole sum of the column before, answered by the column's sum: "\n 1 4 S".

Every sequence is one row of a precomputed table of places, looked up in the row of all tokens the sum can need;
nothing loops over prompts or positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lab import contracts
from lab.domains.addition import column_addition as addition
from lab.errors import LabError
from lab.streams import RandomStream

FORMATS = ("plain", "reversed", "reversed-answer", "zero-padded", "index-hints", "scratchpad")
SAMPLINGS = ("all-sums", "sums-of-digits", "one-digit-sums")

PAD, STOP, ZERO, ANSWER, SEPARATOR, PLUS, EQUALS, HINT = 0, 1, 2, 12, 13, 14, 15, 16
WINDOW_VOCABULARY = 14
WINDOW_PROMPT = 5
WINDOW_LENGTH = 9
NO_TARGET = -1
_SYMBOLS = "PS0123456789\nC+="


@dataclass(frozen=True)
class Additions:
    """Token sequences with what is to be learnt of them.

    Attributes:
        tokens: the sequences, padded with P on the right.
        targets: the token that follows each position, where it belongs to the answer; -1 elsewhere.
        loss_mask: where there is a target.
        prefix_length: how many tokens come before the answer: all that a prefix pattern may read both ways.
        first, second: digits of a and b, least significant first.
        columns: n, how many of those digits the sequence shows.
    """

    tokens: Int[Tensor, "batch time"]
    targets: Int[Tensor, "batch time"]
    loss_mask: Bool[Tensor, "batch time"]
    prefix_length: Int[Tensor, " batch"]
    first: Int[Tensor, "batch column"]
    second: Int[Tensor, "batch column"]
    columns: Int[Tensor, " batch"]


def vocabulary_size(widest: int) -> int:
    """Tokens of the formats for whole sums of up to ``widest`` columns: 16 signs and widest + 1 letters."""
    return HINT + widest + 1


def encode(text: str, vocabulary: int = WINDOW_VOCABULARY) -> Int[Tensor, " time"]:
    """Token ids of a text in the signs P, S, 0 .. 9, newline (start of an answer), C (separator), + and =.

    >>> encode("14C55").tolist()
    [3, 6, 13, 7, 7]

    Raises:
        LabError: a sign that is none of the first ``vocabulary`` ones.
    """
    known = _SYMBOLS[:vocabulary]
    for sign in text:
        if sign not in known:
            raise LabError(f"The sign {sign!r} is not one of the {len(known)} tokens {known!r}; use those only.")
    return torch.tensor([known.index(sign) for sign in text], dtype=torch.int64)


@lru_cache
def window_sequences() -> Int[Tensor, "window time"]:
    """All 2,100 windows as sequences of 9 tokens: 5 of prompt, then newline and the sum, each padded with P.

    Windows stand in the order of `lab.domains.addition.column_addition`.
    """
    previous, first, second = (part.tolist() for part in addition.window_parts())
    rows = [
        f"{'' if s < 0 else f'{s}C'}{a}{b}".ljust(WINDOW_PROMPT, "P") + f"\n{total}S".ljust(4, "P")
        for s, a, b, total in zip(previous, first, second, addition.exact_table().tolist(), strict=True)
    ]
    return encode("".join(rows)).reshape(addition.WINDOWS, WINDOW_LENGTH)


@lru_cache
def window_prompts() -> Int[Tensor, "window time"]:
    """What a machine is given to answer each of the 2,100 windows: the first 6 tokens, newline included."""
    return window_sequences()[:, : WINDOW_PROMPT + 1].contiguous()


def read_window_answers(tokens: Int[Tensor, "*shape 3"]) -> Int[Tensor, "*shape"]:
    """The sum written by "d S" or "1 d S", -1 for anything else.

    A number 0 .. 19 without leading zero, followed by the stop token, is all that counts.
    """
    first_token, second_token, third_token = tokens.unbind(-1)
    first, second = first_token - ZERO, second_token - ZERO
    short = (first >= 0) & (first <= 9) & (second_token == STOP)
    long = (first == 1) & (second >= 0) & (second <= 9) & (third_token == STOP)
    return torch.where(short, first, torch.where(long, 10 * first + second, -1))


@contracts.generator()
def column_window(stream: RandomStream, batch: int, *, sampling: str = "all-sums") -> Additions:
    r"""Windows of a column machine: a first column or a later one with probability 1/2, digits uniform.

    The previous sum s of a later column is uniform on 0 .. 19 ("all-sums"); or the sum of two more uniform
    digits ("sums-of-digits"), which leaves out s = 19 = 9 + 9 + 1 altogether; or uniform on 0 .. 9
    ("one-digit-sums"), so that no carry is ever shown.

    Args:
        stream: randomness; fields "kind", "digits" and "previous".
        batch: number of windows.
        sampling: how s is drawn.

    Raises:
        LabError: an unknown sampling.
    """
    if sampling not in SAMPLINGS:
        raise LabError(f"The sampling {sampling!r} is not one of {', '.join(SAMPLINGS)}; choose one.")
    later = stream.child("kind").rng().integers(0, 2, batch)
    digits = stream.child("digits").rng().integers(0, 10, (batch, 2))
    drawn = stream.child("previous").rng()
    if sampling == "sums-of-digits":
        previous = drawn.integers(0, 10, (batch, 2)).sum(1)
    else:
        previous = drawn.integers(0, addition.SUMS if sampling == "all-sums" else 10, batch)
    first, second = torch.from_numpy(digits).unsqueeze(-1).unbind(1)
    shown = torch.from_numpy(previous * later - (1 - later))
    window = addition.window_number(shown, first[:, 0], second[:, 0])
    tokens = window_sequences()[window]
    scored = torch.zeros_like(tokens, dtype=torch.bool)
    scored[:, WINDOW_PROMPT:-1] = tokens[:, WINDOW_PROMPT + 1 :] != PAD
    return Additions(
        tokens,
        _targets(tokens, scored),
        scored,
        torch.full((batch,), WINDOW_PROMPT + 1),
        first,
        second,
        torch.ones(batch, dtype=torch.int64),
    )


@contracts.generator(format="index-hints", columns=(1, 3))
def whole_sum(
    stream: RandomStream, batch: int, *, format: str, columns: tuple[int, int], width: int | None = None, base: int = 10
) -> Additions:
    """Whole sums of two numbers with equally many columns, n uniform between the two limits of ``columns``.

    The answer always has n + 1 digits, so how many to write is no part of the question.

    Args:
        stream: randomness; fields "columns", "first" and "second".
        batch: number of sums.
        format: how a sum is written.
        columns: the fewest and the most digits of an operand.
        width: columns that zero-padded numbers are padded to, and for which there are letters; None is ``most``.
        base: of the digits, at most 10.

    Raises:
        LabError: an unknown format, a base outside 2 .. 10, or limits that are not 1 <= fewest <= most <= width.
    """
    fewest, most = columns
    width = most if width is None else width
    if not 1 <= fewest <= most <= width:
        raise LabError(
            f"Sums of {fewest} to {most} columns in a width of {width} need limits with 1 <= fewest <= most <= width; "
            "change the limits."
        )
    shown = torch.from_numpy(stream.child("columns").rng().integers(fewest, most + 1, batch))
    used = torch.arange(width) < shown[:, None]
    first, second = (
        torch.from_numpy(stream.child(name).rng().integers(0, base, (batch, width))) * used
        for name in ("first", "second")
    )
    return write_sums(first, second, shown, format=format, base=base)


def write_sums(
    first: Int[Tensor, "batch column"],
    second: Int[Tensor, "batch column"],
    columns: Int[Tensor, " batch"],
    *,
    format: str,
    base: int = 10,
) -> Additions:
    """Given sums in a format.

    Args:
        first, second: digits, least significant first, 0 from column n on.
        columns: n of each sum.
        format: how a sum is written.
        base: of the digits, at most 10.

    Raises:
        LabError: an unknown format, a base outside 2 .. 10, a digit outside 0 .. base - 1, or n outside 1 .. the
            columns given.
    """
    widest = first.shape[1]
    if not 2 <= base <= 10:
        raise LabError(f"The base {base} must lie between 2 and 10, the number of digit tokens; change it.")
    if format not in FORMATS:
        raise LabError(f"The format {format!r} is not one of {', '.join(FORMATS)}; choose one.")
    if not bool(((columns >= 1) & (columns <= widest)).all()):
        raise LabError(
            f"Sums of {int(columns.min())} to {int(columns.max())} columns must have between 1 and the {widest} "
            "columns of the digits given; change the number of columns."
        )
    sums = addition.column_sums(first, second, base)
    digits = [first, second, sums % base, sums // base]
    signs = torch.arange(vocabulary_size(widest)).expand(len(first), -1)
    places, lengths = _layouts(format, widest)
    row = columns - 1
    tokens = torch.cat([*(ZERO + part for part in digits), signs], dim=1).gather(1, places[row])
    prefix, total = lengths[row].unbind(1)
    position = torch.arange(tokens.shape[1])
    scored = (position >= prefix[:, None] - 1) & (position < total[:, None] - 1)
    return Additions(tokens, _targets(tokens, scored), scored, prefix, first, second, columns)


@lru_cache
def _layouts(format: str, widest: int) -> tuple[Int[Tensor, "{widest} time"], Int[Tensor, "{widest} 2"]]:
    """Where each token of a sum of n = 1 .. widest columns stands in the row (a, b, c, k, all tokens).

    c_i and the carry k_{i+1} out of column i fill ``widest`` places each; the last digit c_n is k_n.
    """
    a, b, c, k, sign = (list(range(part * widest, (part + 1) * widest)) for part in range(5))
    base = sign[0]

    def hinted(places: list[int]) -> list[int]:
        return [place for column, digit in enumerate(places) for place in (base + HINT + column, digit)]

    rows, lengths = [], []
    for columns in range(1, widest + 1):
        n = widest if format == "zero-padded" else columns
        left, right, answer = a[:n], b[:n], [*c[:n], k[n - 1]]
        if format in ("plain", "zero-padded"):
            left, right, answer = left[::-1], right[::-1], answer[::-1]
        elif format == "reversed-answer":
            left, right = left[::-1], right[::-1]
        elif format == "index-hints":
            left, right, answer = hinted(left), hinted(right), hinted(answer)
        elif format == "scratchpad":
            steps = [(c[column], k[column], base + SEPARATOR) for column in range(n)]
            answer = [place for step in steps for place in step][:-1]
        prompt = [*left, base + PLUS, *right, base + EQUALS]
        rows.append([*prompt, *answer, base + STOP])
        lengths.append((len(prompt), len(rows[-1])))
    time = max(map(len, rows))
    padded = [row + [base + PAD] * (time - len(row)) for row in rows]
    return torch.tensor(padded), torch.tensor(lengths)


def _targets(tokens: Int[Tensor, "batch time"], scored: Bool[Tensor, "batch time"]) -> Int[Tensor, "batch time"]:
    following = torch.cat([tokens[:, 1:], tokens[:, :1]], dim=1)
    return torch.where(scored, following, NO_TARGET)
