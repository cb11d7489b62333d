"""The rules of a lag system as short strings for a network to learn: the window, what is appended, *end*, and padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lab.domains.machines.lag import LagSystem, Table, Word, compile_table, lag_system
from lab.errors import LabError


@dataclass(frozen=True)
class RuleStrings:
    """One row a rule: N symbols, one or two more, *end*, and *end* again where a place is left.

    Attributes:
        tokens: the strings without their last token; symbols are their places in the alphabet, *end* is |A|.
        targets: the next token at each place.
        scored: the places whose next token the rule decides: what is appended and the first *end*.
    """

    tokens: Int[Tensor, "rule place"]
    targets: Int[Tensor, "rule place"]
    scored: Bool[Tensor, "rule place"]


def rule_strings(system: LagSystem) -> RuleStrings:
    """All rules, in the order of the system."""
    places = {symbol: place for place, symbol in enumerate(system.alphabet)}
    end, window = len(system.alphabet), system.window
    rows, lengths = [], []
    for left, right in system.rules.items():
        tokens = [places[symbol] for symbol in (*left, *right)]
        rows.append(tokens + [end] * (window + 3 - len(tokens)))
        lengths.append(len(tokens))
    strings, written = torch.tensor(rows), torch.tensor(lengths).unsqueeze(1)
    place = torch.arange(window + 2)
    return RuleStrings(strings[:, :-1], strings[:, 1:], (place >= window - 1) & (place < written))


def table_of(system: LagSystem, windows: Sequence[Word], written: Int[np.ndarray, "window 3"]) -> Table:
    """The table of a network that was asked what to append to these windows, three tokens each; *end* is |A|.

    What is no right side (nothing, or no *end* after two symbols) is no rule: the machine halts there.

    Raises:
        LabError: another number of windows than of answers.
    """
    if len(windows) != len(written):
        raise LabError(f"There are {len(windows)} windows but {len(written)} answers; ask once for each.")
    end, rules = len(system.alphabet), []
    for window, answer in zip(windows, written.tolist(), strict=True):
        size = answer.index(end) if end in answer else 3
        if 1 <= size <= 2:
            rules.append((window, tuple(system.alphabet[token] for token in answer[:size])))
    return compile_table(lag_system(system.window, system.alphabet, rules))
