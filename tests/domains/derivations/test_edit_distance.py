from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lab.domains.derivations import edit_distance as exact
from lab.errors import LabError
from lab.streams import stream

WORD = st.text("abc", min_size=1, max_size=5)


def by_recursion(first: str, second: str) -> int:
    if not first or not second:
        return exact.INDEL * (len(first) + len(second))
    kept = exact.SUBSTITUTION * (first[-1] != second[-1])
    return min(
        by_recursion(first[:-1], second) + exact.INDEL,
        by_recursion(first, second[:-1]) + exact.INDEL,
        by_recursion(first[:-1], second[:-1]) + kept,
    )


def last_entry(first: str, second: str, border: str = "corrected") -> int:
    (a, _), (b, _) = exact.parse_words([first]), exact.parse_words([second])
    return int(exact.distances(a, b, border)[0, -1, -1])


@given(WORD, WORD)
def test_the_corrected_table_is_a_metric_and_the_recursion(first: str, second: str) -> None:
    distance = last_entry(first, second)
    assert distance == by_recursion(first, second) == last_entry(second, first)
    assert (distance == 0) == (first == second)
    assert last_entry(first, second, "released") <= distance


def test_the_released_border_sells_first_letters_at_half_their_price() -> None:
    assert last_entry("b", "ab", "released") == 1
    assert last_entry("b", "ab") == 2


@pytest.mark.parametrize("border", exact.BORDERS)
def test_rows_are_right_and_wrong_ones_are_found(border: str) -> None:
    rows = exact.edit_distance(stream(0, "x"), 60, length=6, border=border)
    assert all(exact.first_wrong_step(row, border) is None for row in rows.tokens.tolist())
    other = next(name for name in exact.BORDERS if name != border)
    assert all(exact.first_wrong_step(row, other) is not None for row in rows.tokens.tolist())
    changed = rows.tokens[0].clone()
    changed[int(rows.prefix_length[0])] += 1
    assert exact.first_wrong_step(changed.tolist(), border) == (1, 1)
    changed = rows.tokens[0].clone()
    changed[int(rows.lengths[0]) - 2] += 1
    assert exact.first_wrong_step(changed.tolist(), border) is not None


def test_pairs_are_as_described() -> None:
    (a, rows), (b, columns) = exact.word_pairs(stream(0, "x"), 2000, 8)
    assert bool((rows <= columns).all())
    assert bool((rows >= 1).all())
    assert bool(((rows == 8) | (columns == 8)).all())
    assert int(columns.max()) <= 16
    letters = [len({*a[row, : rows[row]].tolist(), *b[row, : columns[row]].tolist()}) for row in range(2000)]
    assert max(letters) <= exact.MOST_LETTERS
    assert float(exact.edit_distance(stream(0, "x"), 500, length=8).tokens.max()) < exact.vocabulary_size(8)


def test_refusals() -> None:
    with pytest.raises(LabError, match="The letter 'B' of 'aB' lies outside the alphabet a to z"):
        exact.parse_words(["ab", "aB"])
    with pytest.raises(LabError, match="'paper' is not one of corrected, released"):
        exact.edit_distance(stream(0, "x"), 3, length=4, border="paper")
    first, second = exact.parse_words(["abc"]), exact.parse_words(["abcd"])
    assert torch.equal(first[1], torch.tensor([3]))
    with pytest.raises(LabError, match="The derivation has 27 tokens but there are 20 positions"):
        exact.write_pairs(first, second, "corrected", "derivation", 20)
