from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lab.domains.derivations import arithmetic as exact
from lab.errors import LabError
from lab.streams import stream


@pytest.mark.parametrize("modulus", [2, 3, 11])
@pytest.mark.parametrize("operators", [1, 4])
def test_every_step_follows_and_the_answer_is_that_of_the_reader(modulus: int, operators: int) -> None:
    rows = exact.arithmetic(stream(0, "x"), 80, operators=operators, modulus=modulus)
    direct = exact.arithmetic(stream(0, "x"), 80, operators=operators, modulus=modulus, format="direct")
    for row, short, prefix in zip(rows.tokens.tolist(), direct.tokens.tolist(), rows.prefix_length, strict=True):
        assert exact.first_wrong_step(row, modulus) is None
        problem = row[: int(prefix) - 1]
        assert exact.evaluate(problem, modulus) == exact.answer_of(row) == exact.answer_of(short)
        assert short[: int(prefix)] == row[: int(prefix)]
        assert row.count(exact.EQUALS) == operators


def test_answers_are_uniform_and_all_operators_occur() -> None:
    rows = exact.arithmetic(stream(1, "x"), 4000, operators=3, modulus=5, format="direct")
    answers = torch.tensor([exact.answer_of(row) for row in rows.tokens.tolist()])
    assert float((answers.bincount(minlength=5) / 4000 - 0.2).abs().max()) < 0.03
    assert all(bool((rows.tokens == operator).any()) for operator in exact.OPERATORS)


def test_loss_is_on_what_follows_the_problem() -> None:
    rows = exact.arithmetic(stream(0, "x"), 20, operators=3)
    place = torch.arange(rows.tokens.shape[1])
    assert torch.equal(rows.loss_mask, (place >= rows.prefix_length[:, None] - 1) & (place < rows.lengths[:, None] - 1))
    assert bool((rows.tokens.gather(1, rows.prefix_length[:, None] - 1) == exact.EQUALS).all())
    assert bool((rows.tokens.gather(1, rows.lengths[:, None] - 1) == 1).all())


@given(st.lists(st.tuples(st.sampled_from("+-*"), st.integers(0, 10)), max_size=6), st.integers(0, 10))
def test_the_reader_agrees_with_python(terms: list[tuple[str, int]], first: int) -> None:
    text = str(first) + "".join(f"{op}{number}" for op, number in terms)
    assert exact.evaluate(exact.encode(text).tolist(), 11) == eval(text) % 11
    assert exact.decode(exact.encode(text).tolist()) == text


@pytest.mark.parametrize(
    ("row", "number", "reason"),
    [
        ("(3+2)*4=5*4=8", 1, "differ in value"),
        ("(3+2)*4=6*4=2", 0, "differ in value"),
        ("(3+2)*4=9", 0, "one operation"),
        ("3+2*4=5*4=9", 0, "differ in value"),
        ("1/(2-2)=1/0=0", 0, "divides by zero"),
        ("1+2+3=3+3", 1, "the last line is no number"),
    ],
)
def test_a_wrong_step_is_found(row: str, number: int, reason: str) -> None:
    step = exact.first_wrong_step(exact.encode(row).tolist(), 11)
    assert step is not None
    assert step.number == number
    assert reason in step.reason


def test_refusals() -> None:
    for text, sentence in (
        ("4/0", "4 / 0 modulo 11 divides by zero"),
        ("(4", "bracket is not closed"),
        ("4+", "is missing"),
        ("4 4", "behind its end"),
    ):
        with pytest.raises(LabError, match=sentence):
            exact.evaluate(exact.encode(text).tolist(), 11)
    with pytest.raises(LabError, match="'x' is no token"):
        exact.encode("4+x")
    with pytest.raises(LabError, match="not prime"):
        exact.arithmetic(stream(0, "x"), 3, operators=2, modulus=10)
    with pytest.raises(LabError, match="operators = 0 of a problem must be at least 1"):
        exact.arithmetic(stream(0, "x"), 3, operators=0)
    with pytest.raises(LabError, match="'cot' is not one of direct, derivation"):
        exact.arithmetic(stream(0, "x"), 3, operators=2, format="cot")
