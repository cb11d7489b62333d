from __future__ import annotations

import numpy as np
import pytest

from lab.domains.machines.lag import compile_table, lag_system
from lab.domains.machines.rule_strings import rule_strings, table_of
from lab.errors import LabError

SYSTEM = lag_system(2, "ab", [(("a", "b"), ("b",)), (("b", "b"), ("a", "b"))])
END = 2


def test_a_string_is_the_window_what_follows_and_end() -> None:
    strings = rule_strings(SYSTEM)
    assert strings.tokens.tolist() == [[0, 1, 1, END], [1, 1, 0, 1]]
    assert strings.targets.tolist() == [[1, 1, END, END], [1, 0, 1, END]]
    # Scored are the symbols that follow and the first end.
    assert strings.scored.tolist() == [[False, True, True, False], [False, True, True, True]]


def test_right_answers_give_the_table_back() -> None:
    table = table_of(SYSTEM, list(SYSTEM.rules), np.array([[1, END, END], [0, 1, END]]))
    expected = compile_table(SYSTEM)
    assert np.array_equal(table.first, expected.first)
    assert np.array_equal(table.second, expected.second)


def test_what_is_no_right_side_is_no_rule() -> None:
    table = table_of(SYSTEM, list(SYSTEM.rules), np.array([[END, 1, 1], [0, 1, 0]]))
    assert len(table.system.rules) == 0


def test_windows_and_answers_must_agree() -> None:
    with pytest.raises(LabError, match="There are 2 windows but 1 answers"):
        table_of(SYSTEM, list(SYSTEM.rules), np.zeros((1, 3), dtype=int))
