from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

from lab.data.identity import Recurrence, belongs, fingerprints, question
from lab.data.sources import Source, find_generator, generators, options, source_from
from lab.domains.addition.prompts import whole_sum


@pytest.mark.parametrize(
    "generator", [pytest.param(generator, id=generator.part.__name__) for generator in generators()]
)
def test_no_question_belongs_to_both_parts_below_any_seed(generator) -> None:
    source = source_from(generator, options(generator), share=0.5)
    parts = []
    for part, seed in (("train", 0), ("held-out", 1)):
        prompts = next(dataclasses.replace(source, part=part).chunks(seed, 300, 300))
        questions = question(prompts)
        rows = torch.cat([value.reshape(300, -1).double() for value in questions.values()], dim=1)
        parts.append({tuple(row) for row in rows.tolist()})
    assert not parts[0] & parts[1]


@settings(max_examples=50, deadline=None)
@given(values=some.lists(some.lists(some.integers(-3, 3), min_size=4, max_size=4), min_size=2, max_size=30))
def test_fingerprints_agree_exactly_where_questions_do(values: list[list[int]]) -> None:
    for tensor in (torch.tensor(values), torch.tensor(values, dtype=torch.float64)):
        hashes = fingerprints({"tokens": tensor})
        for row in range(len(values)):
            assert [bool(fingerprint == hashes[row]) for fingerprint in hashes] == [
                question == values[row] for question in values
            ]


def test_signs_do_not_cancel_and_zero_has_one_sign() -> None:
    x = torch.tensor([[1.0, 2.0], [-1.0, -2.0], [-1.0, 2.0], [1.0, -2.0]], dtype=torch.float64)
    assert len(set(fingerprints({"x": x}).tolist())) == 4
    zeros = torch.tensor([[0.0], [-0.0]], dtype=torch.float64)
    assert len(set(fingerprints({"x": zeros}).tolist())) == 1


def test_fingerprints_are_uniform() -> None:
    source = source_from(find_generator("linear_regression"), options(find_generator("linear_regression")))
    prompts = next(source.chunks(0, 4000, 4000))
    for share in (0.1, 0.5):
        held = belongs(prompts, "held-out", share).mean()
        assert abs(held - share) < 5 * np.sqrt(share * (1 - share) / 4000)


def test_the_answer_is_no_part_of_a_question() -> None:
    tokens = torch.tensor([[1, 2, 3], [1, 2, 4], [1, 3, 3]])
    hashes = fingerprints({"tokens": tokens, "prefix_length": torch.full((3,), 2)})
    assert hashes[0] == hashes[1] != hashes[2]


def test_one_digit_sums_recur_and_regressions_do_not() -> None:
    digits = Source("whole_sum", whole_sum, {"format": "plain", "columns": (1, 1)})
    for source, low, high in (
        (digits, 0.999, 1.0),
        (source_from(generators()[-1], options(generators()[-1])), 0.0, 0.0),
    ):
        recurrence = Recurrence(fingerprints(source.block(0, 0, below="fresh")))
        for prompts in source.chunks(0, 4096):
            recurrence.see(prompts)
        assert low <= recurrence.share <= high
