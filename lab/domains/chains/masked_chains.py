r"""Markov chains with one token masked: what both neighbours tell of it, and what the past alone does.

Given a sequence of a stationary chain P with law $\mu$, the masked token depends on its neighbours only:
$P(x_t = b | x_{t-1} = a, x_{t+1} = c) = P_{ab} P_{bc} / (P^2)_{ac}$, and on the past through $x_{t-1}$: $P_{ab}$. What the future
is worth is $I(x_t; x_{t+1} | x_{t-1})$, the difference of the two entropies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lab.contracts import generator
from lab.domains.chains.latent_graph_prompts import check_transition, stationary_law
from lab.domains.chains.markov_prompts import fixed_chains
from lab.errors import LabError
from lab.streams import RandomStream


@dataclass(frozen=True)
class MaskedSequences:
    """Sequences of a chain, one token of each replaced by a mask.

    Args:
        tokens: symbols 0 .. S - 1 and the mask S.
        place: where the mask stands.
        targets: the symbol under it.
        both_sides: its law given both neighbours.
        past_only: its law given the token before.
    """

    tokens: Int[Tensor, "batch length"]
    place: Int[Tensor, " batch"]
    targets: Int[Tensor, " batch"]
    both_sides: Float[Tensor, "batch states"]
    past_only: Float[Tensor, "batch states"]


@generator(transition=((0.5, 0.25, 0.25), (0.1, 0.2, 0.7), (0.6, 0.3, 0.1)), length=9)
def masked_chains(
    source: RandomStream,
    batch: int,
    *,
    transition: tuple[tuple[float, ...], ...] | np.ndarray | Float[Tensor, "states states"],
    length: int,
) -> MaskedSequences:
    """Stationary sequences of one chain, a token masked that has two neighbours, each with the same chance.

    Args:
        source: randomness; children "tokens" and "place".
        batch: number of sequences.
        transition: P.
        length: T, at least 3.

    Raises:
        LabError: fewer than three tokens, or see `fixed_chains`.
    """
    if length < 3:
        raise LabError(f"length = {length} leaves no token with two neighbours; choose at least 3.")
    drawn = fixed_chains(source.child("tokens"), batch, transition=transition, length=length)
    tokens, table = drawn.tokens, drawn.table[0]
    place = torch.from_numpy(source.child("place").rng().integers(1, length - 1, batch))
    rows = torch.arange(batch)
    before, target, after = (tokens[rows, place + offset] for offset in (-1, 0, 1))
    past_only = table[before]
    both = past_only * table[:, after].T
    total = both.sum(-1, keepdim=True)
    both = torch.where(total > 0, both / total.clamp_min(1e-300), past_only)
    masked = tokens.clone()
    masked[rows, place] = len(table)
    return MaskedSequences(masked, place, target, both, past_only)


def law_of_neighbours(transition: Float[Tensor, "states states"]) -> Float[Tensor, "states states states"]:
    """Joint law J[a, b, c] of three successive tokens.

    Raises:
        LabError: a matrix that is not stochastic, or reducible.
    """
    transition = check_transition(transition, "irreducible")
    law = stationary_law(transition)
    return law[:, None, None] * transition[:, :, None] * transition[None]


def entropy_given_neighbours(transition: Float[Tensor, "states states"]) -> float:
    """H(x_t | x_{t-1}, x_{t+1}): the least loss, in nats, of who sees both sides; `entropy_rate` is that of the past.

    Raises:
        LabError: see `law_of_neighbours`.
    """
    joint = law_of_neighbours(transition)
    return float(-torch.special.xlogy(joint, joint / joint.sum(1, keepdim=True).clamp_min(1e-300)).sum())


def information_of_the_next(transition: Float[Tensor, "states states"]) -> float:
    """I(x_t; x_{t+1} | x_{t-1}) = sum J log (J / (J[a, b] J[a, c] / J[a])), what the future is worth.

    Raises:
        LabError: see `law_of_neighbours`.
    """
    joint = law_of_neighbours(transition)
    apart = joint.sum(2, keepdim=True) * joint.sum(1, keepdim=True) / joint.sum((1, 2), keepdim=True).clamp_min(1e-300)
    return float(torch.special.xlogy(joint, joint / apart.clamp_min(1e-300)).sum())
