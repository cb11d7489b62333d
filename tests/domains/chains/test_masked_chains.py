"""A masked token of a Markov chain: its laws by going through all sequences."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from lab.domains.chains.latent_graph_prompts import stationary_law
from lab.domains.chains.markov import entropy_rate
from lab.domains.chains.masked_chains import entropy_given_neighbours, information_of_the_next, masked_chains
from lab.errors import LabError
from lab.streams import stream

CHAIN = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7], [0.6, 0.3, 0.1]], dtype=torch.float64)


def test_the_law_of_the_masked_token_by_enumeration() -> None:
    prompts = masked_chains(stream(0, "masked"), 30, transition=CHAIN, length=5)
    law = stationary_law(CHAIN)
    for row in range(30):
        place, tokens = int(prompts.place[row]), prompts.tokens[row].tolist()
        assert tokens.count(3) == 1
        assert tokens[place] == 3
        assert 1 <= place <= 3
        for known, conditional in ((5, prompts.both_sides[row]), (place, prompts.past_only[row])):
            weights = np.zeros(3)
            for sequence in itertools.product(range(3), repeat=5):
                if all(sequence[t] == tokens[t] for t in range(known) if t != place):
                    steps = [float(CHAIN[a, b]) for a, b in itertools.pairwise(sequence)]
                    weights[sequence[place]] += float(law[sequence[0]]) * np.prod(steps)
            assert np.allclose(conditional.numpy(), weights / weights.sum())


def test_the_future_is_worth_the_difference_of_entropies() -> None:
    worth = float(entropy_rate(CHAIN)) - entropy_given_neighbours(CHAIN)
    assert information_of_the_next(CHAIN) == pytest.approx(worth, abs=1e-14)
    assert worth > 0.05
    independent = torch.tensor([[0.2, 0.3, 0.5]] * 3, dtype=torch.float64)
    assert information_of_the_next(independent) == pytest.approx(0, abs=1e-14)


def test_targets_are_what_the_mask_hides() -> None:
    plain = masked_chains(stream(1, "masked"), 400, transition=CHAIN, length=6)
    shown = plain.tokens.clone()
    shown[torch.arange(400), plain.place] = plain.targets
    assert int(shown.max()) == 2


def test_a_sequence_needs_two_neighbours() -> None:
    with pytest.raises(LabError, match="length = 2 leaves no token with two neighbours"):
        masked_chains(stream(0, "masked"), 1, transition=CHAIN, length=2)
