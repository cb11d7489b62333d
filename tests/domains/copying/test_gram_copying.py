"""Copying by grams: the rule, its law and the circuit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.domains.copying.copy_prompts import all_strings
from lab.domains.copying.gram_copier import gram_copier, next_token_law
from lab.domains.copying.gram_copying import ambiguous, copy_by_grams, expected_pairs, poisson_error, union_bound
from lab.errors import LabError
from lab.models import masks


def plainly_ambiguous(string: list[int], gram: int) -> bool:
    followers: dict[tuple[int, ...], set[int]] = {}
    for place in range(len(string) - gram):
        followers.setdefault(tuple(string[place : place + gram]), set()).add(string[place + gram])
    return any(len(following) > 1 for following in followers.values())


@given(st.lists(st.integers(0, 2), min_size=4, max_size=12), st.integers(1, 3))
def test_a_gram_with_two_followers_is_found_and_is_what_copying_fails_on(string: list[int], gram: int) -> None:
    row = torch.tensor([string])
    expected = plainly_ambiguous(string, gram)
    assert bool(ambiguous(row, gram)) == expected
    for which in ("first", "last"):
        assert bool((copy_by_grams(row, gram, which) != row).any()) == expected


@pytest.mark.parametrize(("letters", "length", "gram"), [(2, 8, 2), (3, 5, 1), (3, 6, 3)])
def test_the_law_by_enumeration(letters: int, length: int, gram: int) -> None:
    strings = all_strings(letters, length)
    pairs = sum(
        (strings[:, i : i + gram] == strings[:, j : j + gram]).all(1) & (strings[:, i + gram] != strings[:, j + gram])
        for i in range(length - gram)
        for j in range(i + 1, length - gram)
    )
    assert float(pairs.double().mean()) == pytest.approx(expected_pairs(letters, length, gram), abs=1e-12)
    share = float(ambiguous(strings, gram).double().mean())
    assert share <= union_bound(letters, length, gram)
    assert poisson_error(letters, length, gram) <= union_bound(letters, length, gram)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 3), st.sampled_from(["causal", "prefix"]))
def test_two_layers_do_what_the_rule_says(gram: int, pattern: str) -> None:
    strings = all_strings(3, 5) - 3
    twice = torch.cat((strings, strings), 1)
    allowed = masks.causal(10) if pattern == "causal" else masks.prefix_lm(10, 5)
    answers = next_token_law(gram_copier(3, 10, gram), twice, allowed).argmax(-1)[:, 4 + gram : -1]
    assert torch.equal((answers != strings[:, gram:]).any(1), ambiguous(strings, gram))


def test_bad_input_ends_in_one_sentence() -> None:
    strings = torch.zeros(1, 4, dtype=torch.int64)
    with pytest.raises(LabError, match="gram = 4 must be at least 1 and below length = 4"):
        copy_by_grams(strings, 4)
    with pytest.raises(LabError, match="'first' or 'last'"):
        copy_by_grams(strings, 2, "middle")
    with pytest.raises(LabError, match=r"fewer than 2\^63"):
        ambiguous(strings.expand(1, -1).repeat(1, 20) + 1000, 12)
    with pytest.raises(LabError, match="sharpness = 0"):
        gram_copier(3, 4, sharpness=0.0)
