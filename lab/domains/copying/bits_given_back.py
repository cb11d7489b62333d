r"""How many bits of a string a trained network gives back, whatever it is made of.

The network gives a law q of every answer. Let the *bits lost* on a string s of $n \log_2 D$ bits be
$\ell(s) = -\log_2 q(s\,\mathrm{END} \mid \text{what was read})$, the sum over the scored tokens with the right ones before them, and
the bits *given back* $n \log_2 D - E\,\ell(s)$. Two lines tie them to memory and to copying:

- Everything said of s after the separator rests on a *state* S and on the letters of s that are given again. By Gibbs'
  inequality $E\,\ell \ge H(s \mid S)$, so that the bits given back are at most $I(s; S) \le b$ for a state of b bits.
- If $\ell(s) < 1$ every right token has a probability above one half. So s is copied whole, also where the likeliest token is
  read again as input, and by Markov's inequality a share of at least $1 - E\,\ell$ of all strings is.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def bits_lost(
    logits: Float[Tensor, "*model batch token vocabulary"], targets: Int[Tensor, "*#model batch token"]
) -> Float[Tensor, "*model batch"]:
    r"""$\ell$ of every prompt: bits of surprise at its scored targets (those that are not negative)."""
    log_law = F.log_softmax(logits.double(), -1)
    wanted = targets.expand(log_law.shape[:-1])
    surprise = -log_law.gather(-1, wanted.clamp_min(0).unsqueeze(-1)).squeeze(-1)
    return surprise.masked_fill(wanted < 0, 0.0).sum(-1) / math.log(2)


def copied_at_least(lost: float) -> float:
    r"""The share $\max(0, 1 - E\,\ell)$ of strings that a network which loses ``lost`` bits a string copies whole at least.

    >>> copied_at_least(0.25)
    0.75
    """
    return max(0.0, 1.0 - lost)
