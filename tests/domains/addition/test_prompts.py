from __future__ import annotations

import numpy as np
import pytest
import torch

from lab import checks
from lab.domains.addition.column_addition import SUMS, WINDOWS, exact_table, parse_numbers
from lab.domains.addition.prompts import (
    FORMATS,
    PAD,
    STOP,
    Additions,
    column_window,
    encode,
    read_window_answers,
    vocabulary_size,
    whole_sum,
    window_prompts,
    window_sequences,
    write_sums,
)
from lab.errors import LabError
from lab.streams import stream

SIGNS = "PS0123456789nC+=abcdefgh"


def text(tokens: torch.Tensor) -> str:
    return "".join(SIGNS[token] if token >= 0 else "." for token in tokens.tolist())


def example(format: str) -> Additions:
    first, second = parse_numbers(["479", "58"], 3), parse_numbers(["536", "31"], 3)
    return write_sums(first, second, torch.tensor([3, 2]), format=format)


@pytest.mark.parametrize(
    ("format", "long", "short"),
    [
        ("plain", "479+536=1015S", "58+31=089SPPP"),
        ("reversed", "974+635=5101S", "85+13=980SPPP"),
        ("reversed-answer", "479+536=5101S", "58+31=980SPPP"),
        ("zero-padded", "479+536=1015S", "058+031=0089S"),
        ("index-hints", "a9b7c4+a6b3c5=a5b1c0d1S", "a8b5+a1b3=a9b8c0SPPPPPP"),
        ("scratchpad", "974+635=51C11C01S", "85+13=90C80SPPPPP"),
    ],
)
def test_formats(format: str, long: str, short: str) -> None:
    sums = example(format)
    assert [text(row) for row in sums.tokens] == [long, short]
    assert sums.prefix_length.tolist() == [long.index("=") + 1, short.index("=") + 1]


@pytest.mark.parametrize("format", FORMATS)
def test_targets_are_the_answer_and_its_stop(format: str) -> None:
    sums = example(format)
    for row, targets, prefix in zip(sums.tokens, sums.targets, sums.prefix_length, strict=True):
        shown = text(row).rstrip("P")
        expected = "." * (int(prefix) - 1) + shown[int(prefix) :]
        assert text(targets) == expected.ljust(len(row), ".")
    assert torch.equal(sums.loss_mask, sums.targets >= 0)


@pytest.mark.parametrize("format", FORMATS)
def test_whole_sums_keep_the_contract(format: str) -> None:
    for check in checks.generator_checks(whole_sum, format=format, columns=(1, 4)):
        check.run()
    sums = whole_sum(stream(0, "x"), 200, format=format, columns=(2, 4))
    assert sums.columns.unique().tolist() == [2, 3, 4]
    assert int(sums.tokens.max()) < vocabulary_size(4)
    beyond = torch.arange(4) >= sums.columns[:, None]
    assert not bool(sums.first[beyond].any())


def test_another_base_and_a_fixed_width() -> None:
    first, second = torch.tensor([[3, 2, 0, 0]]), torch.tensor([[1, 3, 0, 0]])  # 23 + 31 = 120 in base 4
    for format, expected in (("plain", "23+31=120S"), ("zero-padded", "0023+0031=00120S")):
        sums = write_sums(first, second, torch.tensor([2]), format=format, base=4)
        assert text(sums.tokens[0]).rstrip("P") == expected
    drawn = whole_sum(stream(0, "x"), 50, format="zero-padded", columns=(1, 2), width=4, base=3)
    assert drawn.first.shape == (50, 4)
    assert int(drawn.first.max()) == 2
    assert drawn.prefix_length.unique().tolist() == [10]


def test_formats_show_the_same_numbers() -> None:
    batches = [whole_sum(stream(0, "x"), 9, format=format, columns=(1, 3)) for format in FORMATS]
    assert all(torch.equal(batch.first, batches[0].first) for batch in batches)
    assert all(torch.equal(batch.columns, batches[0].columns) for batch in batches)


@pytest.mark.parametrize(
    ("sampling", "largest"), [("all-sums", SUMS - 1), ("sums-of-digits", SUMS - 2), ("one-digit-sums", 9)]
)
def test_windows_are_rows_of_the_table(sampling: str, largest: int) -> None:
    for check in checks.generator_checks(column_window, sampling=sampling):
        check.run()
    windows = column_window(stream(0, "x"), 20_000, sampling=sampling)
    rows = {tuple(row): place for place, row in enumerate(window_sequences().tolist())}
    drawn = np.array([rows[tuple(row)] for row in windows.tokens.tolist()])
    assert abs((drawn < 100).mean() - 0.5) < 5.5 * 0.5 / 20_000**0.5
    previous = (drawn[drawn >= 100] - 100) // 100
    assert previous.max() == largest
    if sampling == "sums-of-digits":
        assert abs((previous == 9).mean() - 0.1) < 5.5 * (0.09 / len(previous)) ** 0.5


def test_windows_as_text() -> None:
    rows = [text(row) for row in window_sequences()]
    assert len(set(rows)) == WINDOWS
    assert "86PPPn14SP" not in rows  # a window has 5 + 4 tokens
    for row in ("86PPPn14S", "14C55n11S", "7C05Pn5SP", "19C99n19S"):
        assert row in rows
    assert torch.equal(window_prompts(), window_sequences()[:, :6])


def test_answers_are_read_back() -> None:
    answers = window_sequences()[:, 6:]
    assert torch.equal(read_window_answers(answers), exact_table())
    stopped = torch.where((answers == STOP).cumsum(-1) > 0, STOP, answers)  # as a decoder fills up
    assert torch.equal(read_window_answers(stopped), exact_table())
    wrong = [[3, 3, 3], [STOP, 3, STOP], [2, 5, STOP], [4, 5, STOP], [3, PAD, STOP], [13, STOP, STOP], [12, 3, STOP]]
    # 111, nothing, 03, 23, 1P, C, a second start
    assert read_window_answers(torch.tensor(wrong)).tolist() == [-1] * len(wrong)


def test_bad_input_is_one_sentence() -> None:
    with pytest.raises(LabError, match="'-' is not one of the 14 tokens"):
        encode("-1C23")
    with pytest.raises(LabError, match="'x' is not one of the 16 tokens"):
        encode("1+x=", 16)
    with pytest.raises(LabError, match="format 'mirrored' is not one of plain"):
        whole_sum(stream(0), 2, format="mirrored", columns=(1, 2))
    with pytest.raises(LabError, match="1 <= fewest <= most"):
        whole_sum(stream(0), 2, format="plain", columns=(3, 2))
    with pytest.raises(LabError, match="2 to 3 columns in a width of 2"):
        whole_sum(stream(0), 2, format="plain", columns=(2, 3), width=2)
    with pytest.raises(LabError, match="base 11 must lie between 2 and 10"):
        whole_sum(stream(0), 2, format="plain", columns=(1, 2), base=11)
    with pytest.raises(LabError, match="between 1 and the 2 columns"):
        write_sums(torch.zeros(1, 2).long(), torch.zeros(1, 2).long(), torch.tensor([3]), format="plain")
    with pytest.raises(LabError, match="digit 12 must lie between 0 and 9"):
        write_sums(torch.full((1, 2), 12), torch.zeros(1, 2).long(), torch.tensor([2]), format="plain")
    with pytest.raises(LabError, match="sampling 'no' is not one of"):
        column_window(stream(0), 2, sampling="no")
