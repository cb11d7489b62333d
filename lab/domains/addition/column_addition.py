r"""Column addition: the school algorithm, its finite window table, and the probability laws of carries.

Numbers are rows of digits, **least significant first**: column i holds the digit of weight B^i. Their columns
are added from right to left. The *column sum* is $s_i = a_i + b_i + [s_{i-1} \ge B]$, between 0 and 2B - 1; its
last digit is the digit of the result, and it has two digits exactly if it carries.

A *window* is what a column machine sees at once. The first column shows (a, b), each later one (s, a, b) with s the
whole sum of the column before: in base 10 there are 100 + 20 * 100 = 2,100 windows, numbered
10 a + b and 100 + 100 s + 10 a + b. A *table* gives the sum that a machine writes for each window, -1 where it
writes no number 0 .. 19. All of integer addition, at every length, is one table of 2,100 numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.special import gamma as gamma_function
from torch import Tensor

from lab.errors import LabError

FIRST_WINDOWS = 100
WINDOWS = 2_100
SUMS = 20


def parse_numbers(texts: Sequence[str], columns: int | None = None) -> Int[Tensor, "batch column"]:
    """Digits of decimal numbers, least significant first, padded with zeros to ``columns`` (the longest's length).

    >>> parse_numbers(["120", "7"]).tolist()
    [[0, 2, 1], [7, 0, 0]]

    Raises:
        LabError: an operand that is not a string of the digits 0 to 9, or is longer than ``columns``.
    """
    for text in texts:
        if not (text.isascii() and text.isdecimal()):
            shown = text if len(text) <= 20 else text[:20] + "…"
            raise LabError(
                f"The operand {shown!r} must consist of the digits 0 to 9 only; leave out signs, letters and spaces."
            )
    longest = max(map(len, texts), default=0)
    width = longest if columns is None else columns
    if longest > width:
        raise LabError(f"An operand has {longest} digits but the limit is {width}; allow more columns.")
    rows = np.array([list(text.rjust(width, "0").encode()) for text in texts], dtype=np.int64)
    return torch.from_numpy(rows.reshape(len(texts), width)[:, ::-1].copy() - ord("0"))


def format_numbers(digits: Int[Tensor, "batch column"]) -> list[str]:
    """Decimal numbers without leading zeros from digits, least significant first; "?" where a digit is missing.

    >>> format_numbers(torch.tensor([[0, 2, 1, 0], [3, -1, 0, 0]]))
    ['120', '?']
    """
    rows = digits.flip(-1).tolist()
    return ["?" if min(row) < 0 else "".join(map(str, row)).lstrip("0") or "0" for row in rows]


def column_sums(
    first: Int[Tensor, "batch column"], second: Int[Tensor, "batch column"], base: int = 10
) -> Int[Tensor, "batch column"]:
    r"""$s_i = a_i + b_i + [s_{i-1} \ge B]$ with no carry into column 0.

    Raises:
        LabError: a digit outside 0 .. base - 1.
    """
    for digits in (first, second):
        wrong = digits[(digits < 0) | (digits >= base)]
        if wrong.numel():
            raise LabError(
                f"The digit {int(wrong[0])} must lie between 0 and {base - 1}; write the operand in base {base}."
            )
    sums = first + second
    for column in range(1, sums.shape[1]):
        sums[:, column] += sums[:, column - 1] >= base
    return sums


def add(
    first: Int[Tensor, "batch column"], second: Int[Tensor, "batch column"], base: int = 10
) -> Int[Tensor, "batch column+1"]:
    """Digits of the integer sum a + b, least significant first: s_i mod B, then the last carry."""
    sums = column_sums(first, second, base)
    return torch.cat([sums % base, sums[:, -1:] // base], dim=1)


def window_parts() -> tuple[Int[Tensor, " window"], Int[Tensor, " window"], Int[Tensor, " window"]]:
    """Previous sum (-1 for the first column), a and b of all 2,100 windows in the order of their numbers."""
    window = torch.arange(WINDOWS)
    later = window - FIRST_WINDOWS
    return torch.where(later < 0, -1, later // 100), window // 10 % 10, window % 10


def window_number(
    previous: Int[Tensor, "*#shape"], first: Int[Tensor, "*#shape"], second: Int[Tensor, "*#shape"]
) -> Int[Tensor, "*_"]:
    """10 a + b for the first column (previous = -1), 100 + 100 s + 10 a + b for a later one."""
    return FIRST_WINDOWS + 100 * previous + 10 * first + second


def exact_table() -> Int[Tensor, " window"]:
    """The table of correct addition: a + b + [previous sum >= 10]."""
    previous, first, second = window_parts()
    return first + second + (previous >= 10)


def carryless_table() -> Int[Tensor, " window"]:
    """The table that forgets the carry: a + b."""
    _, first, second = window_parts()
    return first + second


def column_windows(
    first: Int[Tensor, "batch column"], second: Int[Tensor, "batch column"]
) -> Int[Tensor, "batch column"]:
    """The windows that correct column addition of a + b walks through."""
    sums = column_sums(first, second)
    previous = torch.cat([torch.full_like(sums[:, :1], -1), sums[:, :-1]], dim=1)
    return window_number(previous, first, second)


def sums_by_table(
    table: Int[Tensor, "*tables window"], first: Int[Tensor, "batch column"], second: Int[Tensor, "batch column"]
) -> Int[Tensor, "*tables batch column"]:
    r"""The outer loop: $t_i$ = table[window($t_{i-1}, a_i, b_i$)] from right to left, fed back as it was written.

    After an entry -1 there is nothing to feed back: that column and all to its left are -1. With `exact_table`
    it is `column_sums` at every length, by induction: the window holds all that the next sum depends on.
    """
    tables = table.reshape(-1, WINDOWS)
    failed = torch.full((len(tables), len(first)), -1, dtype=torch.int64)
    previous, written = failed, []
    for column in range(first.shape[1]):
        # A failed prompt reads the window of some other column, which `where` then discards.
        answer = tables.gather(1, window_number(previous, first[:, column], second[:, column]))
        previous = answer if column == 0 else torch.where(previous < 0, failed, answer)
        written.append(previous)
    return torch.stack(written, dim=-1).reshape(*table.shape[:-1], *first.shape)


def digits_of_sums(sums: Int[Tensor, "*batch column"]) -> Int[Tensor, "*batch column+1"]:
    """The number that column sums spell: their last digits and the tens digit of the leftmost; -1 where sums are."""
    digits = torch.cat([sums % 10, sums[..., -1:] // 10], dim=-1)
    return torch.where(torch.cat([sums, sums[..., -1:]], dim=-1) < 0, -1, digits)


def add_by_table(
    table: Int[Tensor, "*tables window"], first: Int[Tensor, "batch column"], second: Int[Tensor, "batch column"]
) -> Int[Tensor, "*tables batch column+1"]:
    """Digits that the outer loop writes for a + b: `digits_of_sums` of `sums_by_table`."""
    return digits_of_sums(sums_by_table(table, first, second))


def right_by_columns(
    table: Int[Tensor, "*tables window"], first: Int[Tensor, "batch column"], second: Int[Tensor, "batch column"]
) -> Bool[Tensor, "*tables batch column"]:
    """Whether the outer loop is right on the numbers cut to their lowest n columns, n = 1, 2, ...

    That takes all last digits to be right, and the whole sum of column n - 1.
    """
    sums, exact = sums_by_table(table, first, second), column_sums(first, second)
    digits = ((sums >= 0) & (sums % 10 == exact % 10)).cummin(-1).values
    return digits & (sums == exact)


def accuracy_law(table: Int[Tensor, "*tables window"], columns: int) -> Float[Tensor, "*tables column"]:
    r"""Probability that `add_by_table` is right on a sum of n uniform digits a number, for n = 1 .. ``columns``.

    A written sum t can stand beside the true sum s without spoiling the digit only if t = s or t = s +- 10.
    So (s, [t = s]) is a Markov chain of 40 states; a wrong digit or a missing number leaves it for good. The answer
    is right if the chain survives n columns and ends with t = s: $1^\top v_n$ over the states t = s,
    with $v_{n+1} = v_n T$ and T counting the 100 digit pairs.

    With every wrong entry set to -1 this is the probability that the true windows avoid the wrong ones: a lower
    bound, equal to the law unless one wrong entry repairs what another has spoilt.
    """
    tables = table.reshape(-1, WINDOWS)
    count = len(tables)
    previous, first, second = window_parts()
    exact = exact_table()

    def step(windows: Tensor, sums: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        answer = tables[:, windows]
        survives = (answer >= 0) & (answer % 10 == sums % 10)
        return survives, answer == sums, answer

    survives, same, _ = step(torch.arange(FIRST_WINDOWS), exact[:FIRST_WINDOWS])
    target = exact[:FIRST_WINDOWS] + SUMS * (~same).long()
    state = torch.zeros(count, 2 * SUMS, dtype=torch.float64)
    state.scatter_add_(1, target, survives.double() / 100)

    transfer = torch.zeros(count, 4 * SUMS * SUMS, dtype=torch.float64)
    later = torch.arange(FIRST_WINDOWS, WINDOWS)
    for spoilt in (0, 1):
        # The machine reads `shown`, the true previous sum is `previous`.
        shown = (previous[later] + 10 * spoilt) % SUMS
        windows = window_number(shown, first[later], second[later])
        survives, same, _ = step(windows, exact[later])
        source = previous[later] + SUMS * spoilt
        target = exact[later] + SUMS * (~same).long()
        transfer.scatter_add_(1, source * 2 * SUMS + target, survives.double() / 100)
    transfer = transfer.reshape(count, 2 * SUMS, 2 * SUMS)

    right = []
    for column in range(columns):
        if column > 0:
            state = torch.einsum("ks,kst->kt", state, transfer)
        right.append(state[:, :SUMS].sum(-1))
    return torch.stack(right, dim=-1).reshape(*table.shape[:-1], columns)


def avoiding(table: Int[Tensor, "*tables window"]) -> Int[Tensor, "*tables window"]:
    """The table with every wrong entry replaced by -1, under which no error can be repaired."""
    return torch.where(table == exact_table(), table, -1)


def carry_probability(columns: int, base: int = 10) -> Float[Tensor, " column"]:
    r"""$P(\text{carry into column } i) = (1 - B^{-i}) / 2$ for uniform digits, i = 0 .. columns - 1.

    From $p_{i+1} = g + p_i / B$ with g = (B - 1) / (2 B), the share of digit pairs that carry by themselves.
    """
    return (1 - float(base) ** -torch.arange(columns, dtype=torch.float64)) / 2


def column_sum_law(base: int = 10) -> Float[Tensor, " sum"]:
    r"""$P(s) = (2 \min(s, 2B - 1 - s) + 1) / (2 B^2)$, s = 0 .. 2B - 1: a column sum far from the first column.

    There the carry is a fair coin; for B = 10 the largest sum 19 has probability 0.005.
    """
    sums = torch.arange(2 * base, dtype=torch.float64)
    return (2 * torch.minimum(sums, 2 * base - 1 - sums) + 1) / (2 * base**2)


def longest_chain(
    first: Int[Tensor, "batch column"], second: Int[Tensor, "batch column"], base: int = 10
) -> Int[Tensor, " batch"]:
    """Length L of the longest carry chain: one column with a + b >= B, then columns with a + b = B - 1."""
    sums = first + second
    run = torch.zeros(len(sums), dtype=torch.int64)
    longest = run
    for column in sums.unbind(1):
        extended = torch.where((column == base - 1) & (run > 0), run + 1, torch.zeros_like(run))
        run = torch.where(column >= base, torch.ones_like(run), extended)
        longest = torch.maximum(longest, run)
    return longest


def longest_chain_law(columns: Sequence[int], longest: int, base: int = 10) -> Float[Tensor, "length chain"]:
    r"""$P(L_n \le m)$ for each n of ``columns`` and m = 0 .. ``longest``, uniform digits in base B.

    $1^\top T^n e_0$ on the states r = 0 .. m, the length of the chain at hand: a column kills it (r = 0) with
    probability g, starts a new one (r = 1) with g = (B - 1) / (2 B), or has a + b = B - 1 with 1 / B and then leaves
    0 at 0 and takes r to r + 1, which leaves the states if r = m.
    """
    size = longest + 1
    start, spread = (base - 1) / (2 * base), 1 / base
    chain = torch.arange(size)
    transfer = torch.zeros(size, size, size, dtype=torch.float64)  # [m, from, to]
    transfer[:, :, 0] += start
    transfer[:, 0, 0] += spread
    transfer[1:, :, 1:2] += start
    transfer[:, chain[1:-1], chain[2:]] += spread
    inside = chain <= chain[:, None]  # [m, r]: r is a state of bound m
    transfer *= inside[:, :, None] & inside[:, None, :]
    return torch.stack([torch.linalg.matrix_power(transfer, n)[:, 0].sum(-1) for n in columns])


def expected_longest_chain(columns: Sequence[int], base: int = 10) -> Float[Tensor, " length"]:
    r"""$E[L_n] = \sum_{m \ge 0} (1 - P(L_n \le m))$, cut where the rest is below $10^{-13}$.

    The terms are at most $n g B^{-m}$, because a chain longer than m starts with one generating column and m
    propagating ones.
    """
    cut = int(np.ceil(np.log(max(columns) * 1e13) / np.log(base))) + 1
    return (1 - longest_chain_law(columns, min(cut, max(columns)), base)).sum(-1)


def longest_chain_asymptote(columns: Sequence[int], base: int = 10, harmonics: int = 0) -> Float[Tensor, " length"]:
    r"""$\log_B(g n) + \tfrac12 + \frac{\gamma}{\ln B} + \delta(n)$, the expected longest chain for large n.

    $\delta(n) = -\frac{2}{\ln B} \sum_{k=1}^{K} \mathrm{Re}\, \Gamma(i \omega k)\, (g n)^{-i \omega k}$,
    $\omega = 2 \pi / \ln B$, K = ``harmonics``. It comes from the poles of the Mellin transform of
    $\sum_m (1 - \exp(-g n B^{-m}))$, is periodic in $\log_B n$ and does **not** fade: its size is
    $2 |\Gamma(i \omega)| / \ln B$, 0.018 in base 10 and 1.6e-6 in base 2.
    """
    count = (base - 1) / (2 * base) * np.asarray(columns, dtype=float)
    frequency = 2j * np.pi / np.log(base) * np.arange(1, harmonics + 1)
    wave = gamma_function(frequency) * count[:, None] ** -frequency
    level = np.log(count) / np.log(base) + 0.5 + np.euler_gamma / np.log(base)
    return torch.from_numpy(level - 2 / np.log(base) * wave.real.sum(-1))


def add_with_lookahead(
    first: Int[Tensor, "batch column"], second: Int[Tensor, "batch column"], lookahead: int, base: int = 10
) -> Int[Tensor, "batch column+1"]:
    """Each digit from its own column and the ``lookahead`` columns below it, as if nothing came in below those.

    It is what a machine can do that writes the most significant digit first and sees so many columns. All digits
    are right exactly if the longest carry chain has at most ``lookahead`` columns.
    """
    zero = torch.zeros_like(first[:, :1])
    sums = torch.cat([first + second, zero], dim=1)
    carries, spreads = sums >= base, sums == base - 1
    carry = torch.zeros_like(sums, dtype=torch.bool)
    for _ in range(lookahead):
        out = carries | (spreads & carry)
        carry = torch.cat([torch.zeros_like(out[:, :1]), out[:, :-1]], dim=1)
    return (sums + carry) % base


def carry_from_digit(
    first: Int[Tensor, "..."], second: Int[Tensor, "..."], result: Int[Tensor, "..."], base: int = 10
) -> Bool[Tensor, "..."]:
    """Carry out of a column from its two digits and its digit of the result alone: [a + b - [result = 0] >= B - 1].

    a + b >= B carries and a + b <= B - 2 does not, whatever came in. If a + b = B - 1, the column carries
    exactly if a carry came in, and then the digit written is 0 instead of B - 1.
    """
    sums = first + second
    return (sums >= base) | ((sums == base - 1) & (result == 0))
