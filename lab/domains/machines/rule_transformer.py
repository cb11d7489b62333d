r"""A lag system as a plain causal transformer of two layers, in explicit weights, decoded greedily from a queue.

No program moves a window over the string: the network finds the front of the queue by itself. Two kinds of tokens leave
the front where it is: those that were *given* (the prompt), and the *first of two* that one rule writes; every other token
moves it on by one. So after t + 1 tokens the front is at $i = (t + 1)(1 - G)$, where G is the share of tokens that leave it.

- Layer 1: one head with all scores equal gives G.
- Layer 2: head m looks at position i + m. Up to terms that do not depend on j, $-c\,r\,(j - i - m)^2 = c\,(2j\,(1 - G + m\,r) - r\,j^2)$
  with $r = 1/(t+1)$: bilinear in (1, G, r), which the last token holds, and $(j, j^2)$, from the table of positions. With
  $c = 800$ times the most tokens, the next best position has weight $e^{-800}$, which is 0 in float64.
- Then one ReLU unit a rule, $\max(0,\ \text{bits that agree} - \text{bits that differ} - N b + 1)$ on the b bits (-1 or +1)
  of each of N symbols: 1 for its own window and 0 for any other. It writes the bits of its right side; a rule with two symbols has
  a unit for each, told apart by whether the last token was the first of two.

Logits are whole numbers: where a rule applies its token has the number of its bits, every other at least 1 less; else the
token *halt* has 1 and all others 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lab.domains.machines.lag import LagSystem, Symbol, Word
from lab.errors import LabError
from lab.models.transformer import Architecture, Transformer

SHARPNESS = 800.0  # least distance of scores; exp(-746) is 0 in float64
# Rounding of G, at most t eps, moves a score by 2 c t r j eps t <= 2 SHARPNESS M^3 eps: less than a quarter of a distance.
LONGEST = 65_536


@dataclass(frozen=True)
class Tokens:
    """Token ids of a lag system of A symbols: a symbol written last by its rule is its place in the alphabet, a given one
    A more; then the symbols that some rule writes first of two, then *halt*."""

    system: LagSystem

    @cached_property
    def firsts(self) -> Word:
        """The symbols that some rule writes first of two."""
        starting = {right[0] for right in self.system.rules.values() if len(right) == 2}
        return tuple(symbol for symbol in self.system.alphabet if symbol in starting)

    @cached_property
    def _places(self) -> dict[Symbol, int]:
        return {symbol: place for place, symbol in enumerate(self.system.alphabet)}

    @property
    def given_from(self) -> int:
        """A, the id of the first given symbol."""
        return len(self.system.alphabet)

    @property
    def halt(self) -> int:
        """The token written where no rule applies."""
        return 2 * self.given_from + len(self.firsts)

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return self.halt + 1

    def prompt(self, queue: Sequence[Symbol]) -> list[int]:
        """The prompt for a queue.

        Raises:
            LabError: a letter outside the alphabet.
        """
        self.system.check_word(queue)
        return [self.given_from + self._places[symbol] for symbol in queue]

    def written(self, right: Word | None) -> list[int]:
        """The tokens of one right side; *halt* for none."""
        if right is None:
            return [self.halt]
        firsts = [2 * self.given_from + self.firsts.index(symbol) for symbol in right[:-1]]
        return [*firsts, self._places[right[-1]]]

    def symbol(self, token: int) -> Symbol:
        """What a token other than *halt* says."""
        if token >= 2 * self.given_from:
            return self.firsts[token - 2 * self.given_from]
        return self.system.alphabet[token % self.given_from]

    def queue(self, tokens: Iterable[int]) -> Word:
        """The queue after these tokens, the prompt included; what stands behind *halt* is dropped."""
        string, front = [], 0
        for token in tokens:
            if token == self.halt:
                break
            string.append(self.symbol(token))
            front += token < self.given_from
        return tuple(string[front:])

    def continuation(self, queue: Sequence[Symbol], tokens: int) -> list[int]:
        """What the lag system itself writes after a queue: at least so many tokens, cut off there; *halt* to the end."""
        string, front = list(queue), 0
        continuation: list[int] = []
        while len(continuation) < tokens:
            right = self.system.right_side(string[front : front + self.system.window])
            continuation += self.written(right)
            if right is None:
                continuation += [self.halt] * (tokens - len(continuation))
            else:
                string += right
                front += 1
        return continuation[:tokens]


def signs(count: int) -> Float[np.ndarray, "count bits"]:
    """Different words of -1 and +1, as short as can be, at least 2 of them bits."""
    bits = max(2, math.ceil(math.log2(max(2, count))))
    return 2.0 * (np.arange(count)[:, None] >> np.arange(bits) & 1) - 1.0


def rule_transformer(system: LagSystem, longest: int) -> Transformer:
    """One model, in float64, that continues every queue of at least N symbols as the system does, up to ``longest`` tokens.

    Raises:
        LabError: more tokens than rounding allows, or no rule.
    """
    if not 1 <= longest <= LONGEST:
        raise LabError(
            f"{longest} tokens are not between 1 and {LONGEST}, beyond which rounding could move the front; ask for fewer."
        )
    if not system.rules:
        raise LabError("The lag system has 0 rules, so there is nothing to build; give at least 1.")
    tokens, window = Tokens(system), system.window
    symbols = signs(len(system.alphabet))
    outputs = signs(len(system.alphabet) + len(tokens.firsts))
    bits, written_bits = symbols.shape[1], outputs.shape[1]
    # Where things stand in the residual stream.
    stays, first, constant, place, square, inverse, share, letter = range(8)
    window_letters = letter + bits
    out = window_letters + window * bits
    width = out + written_bits
    size = max(bits, 2)

    embedding = torch.zeros(tokens.vocabulary, width, dtype=torch.float64)
    for token in range(tokens.halt):
        index = system.alphabet.index(tokens.symbol(token))
        embedding[token, letter : letter + bits] = torch.from_numpy(symbols[index])
        embedding[token, stays] = float(token >= tokens.given_from)
        embedding[token, first] = float(token >= 2 * tokens.given_from)
    positions = torch.zeros(longest, width, dtype=torch.float64)
    count = torch.arange(longest, dtype=torch.float64)
    positions[:, constant], positions[:, place], positions[:, square], positions[:, inverse] = (
        1,
        count,
        count**2,
        1 / (count + 1),
    )

    def matrix(rows: int, columns: int) -> Tensor:
        return torch.zeros(rows, columns, dtype=torch.float64)

    average, average_out = matrix(width, window * size), matrix(window * size, width)
    average[stays, 0] = average_out[0, share] = 1.0
    query, key, value, read = (matrix(width, window * size) for _ in range(4))
    # Scores are divided by sqrt(size).
    scale = SHARPNESS * longest * math.sqrt(size)
    for head in range(window):
        at = head * size
        query[constant, at], query[share, at], query[inverse, at] = 2 * scale, -2 * scale, 2 * scale * head
        query[inverse, at + 1] = -scale
        key[place, at] = key[square, at + 1] = 1.0
        value[letter : letter + bits, at : at + bits] = torch.eye(bits, dtype=torch.float64)
        target = window_letters + head * bits
        read[target : target + bits, at : at + bits] = torch.eye(bits, dtype=torch.float64)

    units = [(left, token, place > 0, len(right) > 1) for left, right in system.rules.items()
             for place, token in enumerate(tokens.written(right))]  # fmt: skip
    hidden, threshold, write = matrix(width, len(units)), torch.zeros(len(units)).double(), matrix(len(units), width)
    for unit, (left, token, is_second, is_pair) in enumerate(units):
        agreeing = np.concatenate([symbols[system.alphabet.index(symbol)] for symbol in left])
        hidden[window_letters:out, unit] = torch.from_numpy(agreeing)
        threshold[unit] = 1.0 - window * bits - 2.0 * is_second
        hidden[first, unit] = (2.0 if is_second else -2.0) if is_pair else 0.0
        write[unit, out:] = torch.from_numpy(outputs[_of_output(tokens, token)])

    logits = matrix(width, tokens.vocabulary)
    for token in (*range(tokens.given_from), *range(2 * tokens.given_from, tokens.halt)):
        logits[out:, token] = torch.from_numpy(outputs[_of_output(tokens, token)])
    logits[constant, tokens.halt] = 1.0
    architecture = Architecture(
        width=width,
        layers=2,
        heads=window,
        head_size=size,
        vocabulary=tokens.vocabulary,
        output_size=tokens.vocabulary,
        mlp_ratio=len(units) / width,
        activation="relu",
        norm="none",
        positions="learned",
        maximum_length=longest,
    )
    return Transformer.from_weights(
        architecture,
        {
            "embedding": embedding,
            "positions": positions,
            "layers.0.attention.value.weight": average,
            "layers.0.attention.output.weight": average_out,
            "layers.1.attention.query.weight": query,
            "layers.1.attention.key.weight": key,
            "layers.1.attention.value.weight": value,
            "layers.1.attention.output.weight": read.T,
            "layers.1.mlp.hidden.weight": hidden,
            "layers.1.mlp.hidden.bias": threshold,
            "layers.1.mlp.output.weight": write,
            "read_out.weight": logits,
        },
    )


def _of_output(tokens: Tokens, token: int) -> int:
    """Which word of bits is written for a token that a rule may write."""
    return token if token < tokens.given_from else token - tokens.given_from
