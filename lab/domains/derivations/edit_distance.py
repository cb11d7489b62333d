r"""Edit distance, with the rows of its dynamic programme as derivation.

$$D_{ij} = \min(D_{i-1,j} + 2,\; D_{i,j-1} + 2,\; D_{i-1,j-1} + 3\,[a_i \ne b_j])$$

costs 2 for an insertion or a deletion and 3 for a substitution. Two borders are offered:

* ``corrected``: $D_{i0} = 2 i$, $D_{0j} = 2 j$: the edit distance of these costs;
* ``released``: $D_{i0} = i$, $D_{0j} = j$, as in the code that came with the paper. Its last entry is no edit distance of
  these costs: letters at the beginning go for half their price ("b" to "ab" costs 1, and 2 in truth).

The derivation prints rows 1, 2, .. without column 0:

    a_1 .. a_m : b_1 .. b_n | D_11 .. D_1n , D_21 .. D_2n , ... , | D_mn S

so m (n + 1) tokens of steps. The shorter string comes first.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from lab import contracts
from lab.domains.derivations.sequences import Derivations, Rows, check_format, check_sizes, sign, write
from lab.errors import LabError
from lab.streams import RandomStream

END, COLON, COMMA, LETTERS = 2, 3, 4, 5
ALPHABET = 26
ZERO = LETTERS + ALPHABET
INDEL, SUBSTITUTION = 2, 3
BORDERS = {"corrected": INDEL, "released": 1}
FEWEST_LETTERS, MOST_LETTERS = 3, 10
SHARE_RANDOM = 0.4


def vocabulary_size(length: int) -> int:
    """Pad, stop, | : and the comma, 26 letters, and the numbers up to the largest distance of strings of ``length``."""
    return ZERO + largest_distance(length) + 1


def largest_distance(length: int) -> int:
    """No entry is larger: 2 an entry for all of both strings, whose lengths are at most n and 2 n."""
    return INDEL * 3 * length


def row_length(length: int, format: str) -> int:
    """Tokens of the longest row: strings of n and 2 n letters."""
    check_format(format)
    steps = 0 if format == "direct" else length * (2 * length + 1) + 1
    return length + 1 + 2 * length + 1 + steps + 2


def distances(
    first: Int[Tensor, "batch row"], second: Int[Tensor, "batch column"], border: str = "corrected"
) -> Int[Tensor, "batch row+1 column+1"]:
    r"""The whole table D of every pair, a row at a time: $D_{ij} = \min_{k \le j} (c_k - 2k) + 2j$ with $c$ what comes from above.

    Raises:
        LabError: an unknown border.
    """
    check_border(border)
    columns = INDEL * torch.arange(second.shape[1] + 1, dtype=torch.int32)
    edge = BORDERS[border] * torch.arange(max(first.shape[1], second.shape[1]) + 1, dtype=torch.int32)
    above = edge[: second.shape[1] + 1].expand(len(first), -1)
    rows = [above]
    for row in range(first.shape[1]):
        differ = SUBSTITUTION * (first[:, row : row + 1] != second).int()
        from_above = torch.minimum(above[:, 1:] + INDEL, above[:, :-1] + differ)
        candidates = torch.cat([edge[row + 1].expand(len(first), 1), from_above], 1)
        above = (candidates - columns).cummin(1).values + columns
        rows.append(above)
    return torch.stack(rows, 1).long()


def check_border(border: str) -> None:
    """Refuse an unknown border."""
    if border not in BORDERS:
        raise LabError(f"The border {border!r} is not one of {', '.join(BORDERS)}; choose one.")


def parse_words(words: Sequence[str]) -> Rows:
    """Words of the letters a .. z as numbers 0 .. 25.

    Raises:
        LabError: a letter outside the alphabet.
    """
    for word in words:
        outside = next((letter for letter in word if not "a" <= letter <= "z"), None)
        if outside is not None:
            raise LabError(f"The letter {outside!r} of {word!r} lies outside the alphabet a to z; write it with those.")
    longest = max(map(len, words), default=0)
    rows = [[ord(letter) - ord("a") for letter in word] + [0] * (longest - len(word)) for word in words]
    return torch.tensor(rows).reshape(len(words), longest), torch.tensor([len(word) for word in words])


def word_pairs(stream: RandomStream, batch: int, length: int) -> tuple[Rows, Rows]:
    """Pairs of strings over 3 to 10 of the 26 letters; the shorter is the first.

    One has n letters; the other is, with probability 0.4, random with n - 3 .. n + 2 letters (at least 1), else
    the first after a uniform number 1 .. n of random insertions, deletions and substitutions (a last letter stays).

    Args:
        stream: randomness; fields "letters", "base", "other", "kind" and "edit k".
        batch: number of pairs.
        length: n.
    """
    check_sizes(length=length)
    width = 2 * length
    ranks = torch.from_numpy(stream.child("letters").rng().random((batch, ALPHABET + 1)))
    used = FEWEST_LETTERS + (ranks[:, -1] * (MOST_LETTERS - FEWEST_LETTERS + 1)).long()
    chosen = ranks[:, :ALPHABET].argsort(1)

    def letters(uniform: Tensor) -> Tensor:
        return chosen.gather(1, (uniform * used[:, None]).long())

    base = torch.zeros(batch, width, dtype=torch.int64)
    base[:, :length] = letters(torch.from_numpy(stream.child("base").rng().random((batch, length))))
    size = torch.full((batch,), length)
    other = letters(torch.from_numpy(stream.child("other").rng().random((batch, width))))
    kind = torch.from_numpy(stream.child("kind").rng().random((batch, 3)))
    other_size = (length - 3 + (kind[:, 1] * 6).long()).clamp(1, width)
    edited, edited_size, place = base.clone(), size.clone(), torch.arange(width)
    for edit in range(length):
        draws = torch.from_numpy(stream.child("edit", edit).rng().random((batch, 3)))
        done = edit >= 1 + (kind[:, 2] * length).long()
        operation = (draws[:, 0] * 3).long()  # 0 insertion, 1 deletion, 2 substitution
        operation = torch.where((operation == 1) & (edited_size == 1), 2, operation)
        spot = (draws[:, 1] * (edited_size + (operation == 0))).long()[:, None]
        shift = torch.where(operation == 0, -1, torch.where(operation == 1, 1, 0))[:, None]
        moved = torch.where(place >= spot, place + shift, place).clamp(0, width - 1)
        new = letters(draws[:, 2:])
        changed = torch.where((place == spot) & (operation != 1)[:, None], new, edited.gather(1, moved))
        edited = torch.where(done[:, None], edited, changed)
        edited_size = torch.where(done, edited_size, edited_size - shift.squeeze(1))
    random_pair = kind[:, 0] < SHARE_RANDOM
    second = torch.where(random_pair[:, None], other, edited)
    second_size = torch.where(random_pair, other_size, edited_size)
    swap = second_size < size
    shorter = torch.where(swap[:, None], second, base), torch.where(swap, second_size, size)
    longer = torch.where(swap[:, None], base, second), torch.where(swap, size, second_size)
    return shorter, longer


@contracts.generator(length=4)
def edit_distance(
    stream: RandomStream, batch: int, *, length: int, border: str = "corrected", format: str = "derivation"
) -> Derivations:
    """Pairs of strings with the last entry of their table, or the whole table before it.

    Args:
        stream: randomness; see `word_pairs`.
        batch: number of pairs.
        length: n, letters of the string that the other is made of.
        border: "corrected" or "released".
        format: "direct" or "derivation".

    Raises:
        LabError: no letter, an unknown border or an unknown format.
    """
    check_format(format)
    check_border(border)
    return write_pairs(*word_pairs(stream, batch, length), border, format, row_length(length, format))


def write_pairs(first: Rows, second: Rows, border: str, format: str, width: int) -> Derivations:
    """Given pairs with their answers.

    Raises:
        LabError: an unknown border, or a row longer than ``width``.
    """
    (a, rows), (b, columns) = first, second
    b = b[:, : int(columns.max())]
    batch, most = len(a), int(rows.max())
    a = a[:, :most]
    table = distances(a, b, border)
    everyone = torch.arange(batch)
    answer = table[everyone, rows, columns]
    end = sign(END, batch)
    parts = [(LETTERS + a, rows), sign(COLON, batch), (LETTERS + b, columns), end]
    if format == "derivation":
        # All steps in one row: entry (i, j) is token (i - 1) (columns + 1) + j - 1, and a comma ends each row of the table.
        most_steps = most * (b.shape[1] + 1)
        steps = torch.full((batch, most_steps + 1), COMMA)
        row, column = torch.arange(most)[:, None], torch.arange(b.shape[1])
        place = row * (columns[:, None, None] + 1) + column
        inside = (row < rows[:, None, None]) & (column < columns[:, None, None])
        entries = ZERO + table[:, 1:, 1:]
        steps.scatter_(1, torch.where(inside, place, most_steps).flatten(1), entries.flatten(1))
        parts += [(steps[:, :most_steps], rows * (columns + 1)), end]
    parts.append((ZERO + answer[:, None], torch.ones_like(rows)))
    return write(parts, 4, width)


def first_wrong_step(tokens: Sequence[int], border: str = "corrected") -> tuple[int, int] | None:
    """The first (i, j) of a row whose D_ij does not follow from the three entries printed before it; None if all do.

    (m, n) also stands for a wrong answer behind right rows.
    """
    check_border(border)
    row = [int(token) for token in tokens]
    colon, end = row.index(COLON), row.index(END)
    a, b = row[:colon], row[colon + 1 : end]
    close = row.index(END, end + 1)
    numbers = [token - ZERO for token in row[end + 1 : close] if token != COMMA]
    edge = BORDERS[border]

    def entry(i: int, j: int) -> int:
        return edge * (i + j) if i == 0 or j == 0 else numbers[(i - 1) * len(b) + j - 1]

    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            kept = 0 if a[i - 1] == b[j - 1] else SUBSTITUTION
            wanted = min(entry(i - 1, j) + INDEL, entry(i, j - 1) + INDEL, entry(i - 1, j - 1) + kept)
            if entry(i, j) != wanted:
                return i, j
    return None if row[close + 1] - ZERO == numbers[-1] else (len(a), len(b))
