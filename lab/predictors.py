"""The two shapes of a predictor: whatever answers prompts does so through one of them.

Closed forms, transformers with hand-set weights and trained transformers are interchangeable under a
protocol, so one function compares any pair of them.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor


@runtime_checkable
class RegressionPredictor(Protocol):
    """Answers queries from labelled examples: one prediction a query, which depends on no other query."""

    def __call__(
        self,
        x_context: Float[Tensor, "batch context dimension"],
        y_context: Float[Tensor, "batch context"],
        x_query: Float[Tensor, "batch query dimension"],
        /,
    ) -> Float[Tensor, "batch query"]:
        """Predicted labels of the queries.

        Args:
            x_context: inputs of the n examples of each prompt, in the order in which they are shown.
            y_context: their labels.
            x_query: inputs whose labels are asked for.
        """


@runtime_checkable
class TokenPredictor(Protocol):
    """Gives the law of the next token at every position of a sequence."""

    def __call__(
        self, tokens: Int[Tensor, "batch length"], prefix_length: Int[Tensor, " batch"], /
    ) -> Float[Tensor, "batch length vocabulary"]:
        """Log-probabilities; position t is the law of token t + 1, from no token beyond max(t, prefix).

        Args:
            tokens: sequences of token numbers below the size of the vocabulary.
            prefix_length: how many tokens at the start of each sequence are seen at once.
        """
