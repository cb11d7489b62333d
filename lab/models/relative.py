r"""The smallest model that can become an induction head: a pattern over offsets, then a linear match.

With one-hot symbols x_i, offset scores v [T] and a match matrix W [S, S],

    a_jl = softmax over l <= j of v[j - l],    c_j = sum_l a_jl x_l,    logits_i = sum_{j <= i} (x_i^T W c_j) x_j .

It is an induction head for v concentrated on offset 1 and W = identity times a large number (Edelman, Tsilivis,
Edelman, Malach, Goel 2024, their minimal model; the causal mask of layer 1, which their code computes but does not
apply, is applied here).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lab.errors import LabError


class MinimalInduction(nn.Module):
    r"""An ensemble of minimal models, all starting alike: their data alone tell them apart.

    The parameters are $v / \sqrt{r_v}$ and $W / \sqrt{r_W}$, so that plain gradient descent of rate 1 moves v at the
    rate r_v and W at the rate r_W.

    Args:
        offsets: v [model, T].
        match: W [model, S, S].
        rates: (r_v, r_W).

    Raises:
        LabError: a rate that is not positive.
    """

    def __init__(
        self,
        offsets: Float[Tensor, "model length"],
        match: Float[Tensor, "model states states"],
        rates: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        super().__init__()
        if min(rates) <= 0:
            raise LabError(f"the rates {rates} of v and W must both be positive; please change them")
        self.rates = rates
        self.width = match.shape[-1]
        self.scaled_offsets = nn.Parameter(offsets.detach() / rates[0] ** 0.5)
        self.scaled_match = nn.Parameter(match.detach() / rates[1] ** 0.5)

    @classmethod
    def start(
        cls, models: int, states: int, length: int, rates: tuple[float, float], match: float = 0.01
    ) -> MinimalInduction:
        """v = 0, so that layer 1 averages all tokens before, and all entries of W equal to ``match``."""
        return cls(torch.zeros(models, length), torch.full((models, states, states), match), rates)

    @property
    def offsets(self) -> Float[Tensor, "model length"]:
        """v."""
        return self.scaled_offsets * self.rates[0] ** 0.5

    @property
    def match(self) -> Float[Tensor, "model states states"]:
        """W."""
        return self.scaled_match * self.rates[1] ** 0.5

    def select(self, indices: Sequence[int]) -> MinimalInduction:
        """The models at these places, as an ensemble of their own."""
        places = list(indices)
        return MinimalInduction(self.offsets.detach()[places], self.match.detach()[places], self.rates)

    def pattern(self, length: int) -> Float[Tensor, "model {length} {length}"]:
        """a, the attention of layer 1 over the first ``length`` tokens.

        Raises:
            LabError: more tokens than offsets.
        """
        if length > self.scaled_offsets.shape[1]:
            raise LabError(
                f"{length} tokens exceed the {self.scaled_offsets.shape[1]} offsets of the model; shorten the sequences"
            )
        token = torch.arange(length, device=self.scaled_offsets.device)
        offset = token.unsqueeze(1) - token
        return self.offsets[:, offset.clamp_min(0)].masked_fill(offset < 0, -torch.inf).softmax(-1)

    def forward(
        self, tokens: Int[Tensor, "#model batch length"], mask: Tensor | None = None
    ) -> Float[Tensor, "_ batch length states"]:
        """Logits of the token after each one; both layers are causal, so ``mask`` is not looked at.

        Raises:
            LabError: a token outside the alphabet, or see `pattern`.
        """
        if bool((tokens < 0).any()) or bool((tokens >= self.width).any()):
            raise LabError(
                f"tokens run from {int(tokens.min())} to {int(tokens.max())} but the alphabet is 0 .. {self.width - 1}; "
                "use only its symbols"
            )
        models = len(self.scaled_match)
        symbols = torch.nn.functional.one_hot(tokens, self.width).to(self.scaled_match)
        symbols = symbols.expand(models, *symbols.shape[1:])
        copies = self.pattern(tokens.shape[-1]).unsqueeze(1) @ symbols
        scores = (symbols @ self.match.unsqueeze(1)) @ copies.mT
        return scores.tril() @ symbols
