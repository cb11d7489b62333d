from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lab.domains.addition.column_addition import (
    SUMS,
    WINDOWS,
    accuracy_law,
    add,
    add_by_table,
    add_with_lookahead,
    avoiding,
    carry_from_digit,
    carry_probability,
    carryless_table,
    column_sum_law,
    column_sums,
    column_windows,
    digits_of_sums,
    exact_table,
    expected_longest_chain,
    format_numbers,
    longest_chain,
    longest_chain_asymptote,
    longest_chain_law,
    parse_numbers,
    right_by_columns,
    sums_by_table,
    window_number,
    window_parts,
)
from lab.errors import LabError
from lab.streams import stream

numbers = st.integers(min_value=0, max_value=10**40)


def digits(seed: int, batch: int, columns: int, base: int = 10) -> tuple[Tensor, Tensor]:
    drawn = stream(seed, "digits").rng().integers(0, base, (2, batch, columns))
    return torch.from_numpy(drawn[0]), torch.from_numpy(drawn[1])


def imperfect(seed: int, wrong: int) -> Tensor:
    rng, table = stream(seed, "table").rng(), exact_table()
    table[torch.from_numpy(rng.choice(WINDOWS, wrong, replace=False))] = torch.from_numpy(rng.integers(-1, SUMS, wrong))
    return table


def all_sums(columns: int, base: int = 10) -> tuple[Tensor, Tensor]:
    both = torch.cartesian_prod(*[torch.arange(base)] * (2 * columns))
    return both[:, :columns], both[:, columns:]


@settings(deadline=None, max_examples=25, derandomize=True)
@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=5))
def test_three_ways_to_add_are_integer_addition(pairs: list[tuple[int, int]]) -> None:
    first, second = (parse_numbers([str(pair[side]) for pair in pairs], 42) for side in (0, 1))
    truth = [str(a + b) for a, b in pairs]
    assert format_numbers(add(first, second)) == truth
    assert format_numbers(add_by_table(exact_table(), first, second)) == truth
    assert format_numbers(add_with_lookahead(first, second, 42)) == truth


@pytest.mark.parametrize("base", [2, 3, 10])
def test_addition_in_any_base(base: int) -> None:
    first, second = digits(0, 50, 9, base)
    weight = base ** torch.arange(10)
    total = (add(first, second, base) * weight).sum(1)
    assert torch.equal(total, ((first + second) * weight[:9]).sum(1))


@pytest.mark.parametrize("text", ["-12", "+5", "12a", " 7", "", "1.5", "٣"])
def test_an_operand_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(LabError, match="digits 0 to 9 only") as caught:
        parse_numbers(["1", text])
    assert "\n" not in str(caught.value)


def test_limits_of_operands() -> None:
    with pytest.raises(LabError, match="4 digits but the limit is 3"):
        parse_numbers(["1234"], 3)
    with pytest.raises(LabError, match="must lie between 0 and 1"):
        column_sums(torch.tensor([[2]]), torch.tensor([[0]]), base=2)
    assert parse_numbers([], 3).shape == (0, 3)


def test_inputs_stay_as_they_are() -> None:
    first, second = digits(0, 4, 5)
    before = first.clone(), second.clone()
    column_sums(first, second)
    add_with_lookahead(first, second, 2)
    assert torch.equal(first, before[0])
    assert torch.equal(second, before[1])


def test_windows_are_numbered_in_order() -> None:
    parts = window_parts()
    assert torch.equal(window_number(*parts), torch.arange(WINDOWS))
    assert int(parts[0].min()) == -1
    assert int(parts[0].max()) == SUMS - 1
    assert exact_table().unique().tolist() == list(range(SUMS))


def test_true_windows_spell_the_sum() -> None:
    first, second = digits(1, 30, 12)
    sums = exact_table()[column_windows(first, second)]
    assert torch.equal(sums, column_sums(first, second))
    assert torch.equal(digits_of_sums(sums), add(first, second))


def test_a_missing_answer_silences_all_columns_to_its_left() -> None:
    table = exact_table()
    table[window_number(torch.tensor(9), torch.tensor(2), torch.tensor(2))] = -1
    first, second = parse_numbers(["111129", "111111"]), parse_numbers(["111120", "111111"])
    assert sums_by_table(table, first, second).tolist() == [[9, -1, -1, -1, -1, -1], [2] * 6]
    assert format_numbers(add_by_table(table, first, second)) == ["?", "222222"]


@pytest.mark.parametrize("wrong", [5, 60, 800])
def test_accuracy_law_is_the_share_of_right_sums(wrong: int) -> None:
    tables = torch.stack([imperfect(0, wrong), imperfect(1, wrong)])
    first, second = all_sums(2)
    share = (add_by_table(tables, first, second) == add(first, second)).all(-1).double().mean(-1)
    torch.testing.assert_close(accuracy_law(tables, 2)[:, 1], share, rtol=0, atol=1e-13)
    assert bool((accuracy_law(avoiding(tables), 2)[:, 1] <= share + 1e-13).all())


def test_accuracy_law_at_many_columns() -> None:
    table, (first, second) = imperfect(2, 30), digits(3, 4_000, 40)
    right = right_by_columns(table, first, second).double()
    law = accuracy_law(table, 40)
    error = (right.mean(0) - law) / (law * (1 - law) / len(first)).sqrt().clamp(min=1e-9)
    assert float(error.abs().max()) < 5.5  # exceeded with probability 40 * 3.8e-8


def test_right_by_columns_cuts_numbers() -> None:
    table, (first, second) = imperfect(4, 100), digits(5, 200, 8)
    right = right_by_columns(table, first, second)
    for columns in (1, 4, 8):
        cut = first[:, :columns], second[:, :columns]
        correct = (add_by_table(table, *cut) == add(*cut)).all(-1)
        assert torch.equal(right[:, columns - 1], correct)


def test_accuracy_without_carry_and_without_error() -> None:
    columns = torch.arange(30, dtype=torch.float64)
    torch.testing.assert_close(accuracy_law(carryless_table(), 30), 0.55**columns, rtol=1e-12, atol=0)
    torch.testing.assert_close(accuracy_law(exact_table(), 30), torch.ones(30, dtype=torch.float64))


def test_errors_that_undo_each_other() -> None:
    previous, first, second = window_parts()
    table = exact_table()
    table[(previous < 0) & (first + second == 5)] = 15
    table[previous == 15] = (first + second)[previous == 15]
    # The first column is spoilt with probability 0.06, and repaired by the second one whatever it holds.
    assert float(accuracy_law(table, 1)[0]) == pytest.approx(0.94, abs=1e-14)
    assert float(accuracy_law(avoiding(table), 2)[1]) < 0.94
    tens = (exact_table()[:100] == 15).double().mean()
    assert float(accuracy_law(table, 2)[1]) == pytest.approx(1 - float(tens), abs=1e-14)


@pytest.mark.parametrize(("base", "columns"), [(10, 2), (3, 4), (2, 6)])
def test_carry_laws_by_enumeration(base: int, columns: int) -> None:
    first, second = all_sums(columns, base)
    carry = (column_sums(first, second, base) >= base).double().mean(0)
    torch.testing.assert_close(carry_probability(columns + 1, base)[1:], carry, rtol=0, atol=1e-14)
    chain = longest_chain(first, second, base)
    below = (chain[:, None] <= torch.arange(columns + 2)).double().mean(0)
    torch.testing.assert_close(longest_chain_law([columns], columns + 1, base)[0], below, rtol=0, atol=1e-14)
    expected = expected_longest_chain([columns], base)
    torch.testing.assert_close(expected[0], chain.double().mean(), rtol=0, atol=1e-13)


def test_longest_chain_of_known_sums() -> None:
    first = parse_numbers(["5", "999", "949", "905", "555"], 4)
    second = parse_numbers(["4", "1", "051", "095", "555"], 4)
    # 9; 999 + 1 carries all along; 949 + 51: 9 + 1, 4 + 5, 9 + 0; 5 + 5, 0 + 9, 9 + 0; three chains of one.
    assert longest_chain(first, second).tolist() == [0, 3, 3, 3, 1]


@settings(deadline=None, max_examples=20, derandomize=True)
@given(st.integers(0, 10**6), st.integers(0, 6), st.sampled_from([2, 10]))
def test_lookahead_suffices_for_chains_no_longer(seed: int, view: int, base: int) -> None:
    first, second = digits(seed, 40, 10, base)
    right = (add_with_lookahead(first, second, view, base) == add(first, second, base)).all(-1)
    assert torch.equal(right, longest_chain(first, second, base) <= view)


def test_longest_chain_of_ten_columns() -> None:
    law = longest_chain_law([10], 3)[0]
    np.testing.assert_allclose(law, [0.0025, 0.6486, 0.9643, 0.9969], atol=5e-5)


def test_asymptote_of_the_longest_chain() -> None:
    exact = expected_longest_chain([20, 100, 1000])
    np.testing.assert_allclose(exact, [1.687, 2.399, 3.4001], atol=5e-4)
    np.testing.assert_allclose(longest_chain_asymptote([20, 100, 1000]), [1.705, 2.404, 3.4039], atol=5e-4)
    large = [10**6, 2 * 10**6, 5 * 10**6]
    wave = longest_chain_asymptote(large, harmonics=4) - expected_longest_chain(large)
    assert float(wave.abs().max()) < 1e-6
    straight = longest_chain_asymptote(large) - expected_longest_chain(large)
    assert float(straight.abs().max()) > 0.01


def test_column_sums_have_their_law() -> None:
    law = column_sum_law()
    assert float(law.sum()) == pytest.approx(1)
    assert float(law[19]) == pytest.approx(0.005)
    first, second = digits(0, 20_000, 20)
    share = torch.bincount(column_sums(first, second)[:, -1], minlength=SUMS).double() / 20_000
    error = (share - law) / (law * (1 - law) / 20_000).sqrt()
    assert float(error.abs().max()) < 5.5


def test_carry_can_be_read_off_the_digit() -> None:
    first, second, carry = torch.cartesian_prod(*map(torch.arange, (10, 10, 2))).unbind(1)
    sums = first + second + carry
    assert torch.equal(carry_from_digit(first, second, sums % 10), sums >= 10)
