from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from lab.domains.chains import markov_prompts as markov
from lab.domains.chains.latent_graph_prompts import stationary_law
from lab.domains.chains.markov import log_evidence, switching_posterior
from lab.domains.chains.markov_prompts import (
    binary_kernel,
    birkhoff_matrices,
    check_transition,
    dirichlet_chains,
    doubly_stochastic_chains,
    fixed_chains,
    sample_chains,
    switching_chains,
    unigram_chains,
)
from lab.errors import LabError
from lab.statistics import SHARE
from lab.streams import stream

DRAWS = 20_000


def words(symbols: int, length: int) -> Tensor:
    """All sequences."""
    return torch.cartesian_prod(*[torch.arange(symbols)] * length)


def assert_law(tokens: Tensor, symbols: int, law: Tensor) -> None:
    """Chi-square test of sampled sequences against the probabilities of all of them, at the project's share."""
    weights = symbols ** torch.arange(tokens.shape[1] - 1, -1, -1)
    counts = torch.bincount((tokens * weights).sum(1), minlength=len(law)).double()
    assert float(law.sum()) == pytest.approx(1, abs=1e-6)
    assert not counts[law == 0].any()
    kept = law > 0
    expected = len(tokens) * law[kept]
    assert float(expected.min()) > 5
    statistic = float(((counts[kept] - expected).square() / expected).sum())
    assert stats.chi2.sf(statistic, int(kept.sum()) - 1) > SHARE


def corners(nodes: int = 120) -> tuple[Tensor, Tensor, Tensor]:
    """Nodes (p, q) of a product rule on the unit square, crowded into its corners, and weights."""
    x, weight = np.polynomial.legendre.leggauss(nodes)
    angle, weight = np.pi / 4 * (x + 1), np.pi / 4 * weight
    value, weight = np.sin(angle) ** 2, weight * np.sin(2 * angle)
    p, q = (torch.from_numpy(part).flatten() for part in np.meshgrid(value, value))
    return p, q, torch.from_numpy(np.outer(weight, weight)).flatten()


def walk_law(sequences: Tensor, p: Tensor, q: Tensor, first: Tensor) -> Tensor:
    """P(sequence) for each binary kernel [sequence, kernel]; ``first`` [2, kernel] is the law of x_0."""
    steps = torch.stack([torch.stack([1 - p, p]), torch.stack([q, 1 - q])])
    return first[sequences[:, 0]] * steps[sequences[:, :-1], sequences[:, 1:]].prod(1)


@pytest.mark.parametrize(("states", "order", "length"), [(2, 0, 5), (2, 1, 5), (2, 2, 5), (3, 1, 4)])
def test_dirichlet_chains_follow_the_mixture(states: int, order: int, length: int) -> None:
    drawn = dirichlet_chains(stream(0, "law"), DRAWS, states=states, length=length, order=order, concentration=1.5)
    assert_law(drawn.tokens, states, log_evidence(words(states, length), states, order, 1.5).exp())
    assert drawn.table.shape == (DRAWS, states**order, states)


def test_a_stationary_start_follows_the_stationary_mixture() -> None:
    drawn = dirichlet_chains(stream(1, "law"), DRAWS, states=2, length=4, start="stationary")
    p, q, weight = corners()
    law = walk_law(words(2, 4), p, q, torch.stack([q, p]) / (p + q)) @ weight
    assert_law(drawn.tokens, 2, law)


def test_doubly_stochastic_chains_leave_a_symbol_with_a_uniform_probability() -> None:
    drawn = doubly_stochastic_chains(stream(2, "law"), DRAWS, states=2, length=4)
    leave, _, weight = corners()
    law = walk_law(words(2, 4), leave, leave, torch.full((2, len(leave)), 0.5, dtype=torch.float64)) @ weight
    assert_law(drawn.tokens, 2, law)


@pytest.mark.parametrize("states", [2, 3, 6, 7])
def test_birkhoff_matrices_are_doubly_stochastic(states: int) -> None:
    matrices = birkhoff_matrices(stream(0, "table"), 50, states)
    assert matrices.shape == (50, states, states)
    assert bool((matrices >= 0).all())
    assert float((matrices.sum(-1) - 1).abs().max()) < 1e-12
    assert float((matrices.sum(-2) - 1).abs().max()) < 1e-12


@pytest.mark.parametrize("states", [2, 3])
def test_an_entry_of_a_birkhoff_matrix_follows_its_exact_law(states: int) -> None:
    # The sections of the polytope at an entry 1 - m: of length 1 (S = 2), of volume m^2 - 5 m^3 / 6 (S = 3).
    entry = birkhoff_matrices(stream(1, "table"), DRAWS, states)[:, 0, 1].numpy()
    law = {2: lambda x: x, 3: lambda x: 1 - 8 * ((1 - x) ** 3 / 3 - 5 * (1 - x) ** 4 / 24)}[states]
    assert stats.kstest(entry, law).pvalue > SHARE


def test_hit_and_run_and_rejection_agree() -> None:
    moved = markov._hit_and_run(stream(2, "table"), DRAWS, 4)
    kept = birkhoff_matrices(stream(3, "table"), DRAWS, 4)
    for statistic in (
        lambda table: table[:, 0, 0],
        lambda table: table.amax((1, 2)),
        lambda table: torch.linalg.det(table),
    ):
        assert stats.ks_2samp(statistic(moved).numpy(), statistic(kept).numpy()).pvalue > SHARE


def test_unigram_chains_follow_the_order_zero_mixture() -> None:
    drawn = unigram_chains(stream(3, "law"), DRAWS, states=2, length=5, concentration=0.7)
    assert_law(drawn.tokens, 2, log_evidence(words(2, 5), 2, 0, 0.7).exp())
    assert torch.equal(drawn.table[:, 0], drawn.table[:, 1])


@pytest.mark.parametrize("start", ["uniform", "stationary"])
def test_fixed_chains_follow_their_matrix(start: markov.Start) -> None:
    matrix = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.25, 0.75], [0.5, 0.25, 0.25]], dtype=torch.float64)
    drawn = fixed_chains(stream(4, "law"), DRAWS, transition=matrix, length=3, start=start)
    first = stationary_law(matrix) if start == "stationary" else torch.full((3,), 1 / 3, dtype=torch.float64)
    sequences = words(3, 3)
    law = first[sequences[:, 0]] * matrix[sequences[:, :-1], sequences[:, 1:]].prod(1)
    assert_law(drawn.tokens, 3, law)


@pytest.mark.parametrize("matrix", [torch.tensor([[0.1, 0.9], [0.3, 0.7]]), np.array([[0.1, 0.9], [0.3, 0.7]], "f4")])
def test_a_matrix_may_be_given_in_single_precision(matrix: torch.Tensor | np.ndarray) -> None:
    drawn = fixed_chains(stream(0), 1, transition=matrix, length=4)
    assert drawn.table.dtype == torch.float64
    torch.testing.assert_close(drawn.table.sum(-1), torch.ones(1, 2).double(), rtol=0, atol=1e-15)
    torch.testing.assert_close(stationary_law(drawn.table), torch.tensor([[0.25, 0.75]]).double(), rtol=0, atol=1e-7)


@pytest.mark.parametrize("concentration", [0.01, 0.05])
@pytest.mark.parametrize("states", [2, 5])
def test_concentrated_rows_may_start_from_their_stationary_law(concentration: float, states: int) -> None:
    """Rows with entries below the rounding of 1, where some symbols are never left in floating point."""
    sizes = {"states": states, "length": 3, "concentration": concentration}
    drawn = dirichlet_chains(stream(0), DRAWS, **sizes, start="stationary")
    law = stationary_law(drawn.table)
    step = (law.unsqueeze(-2) @ drawn.table)[:, 0]
    torch.testing.assert_close(step, law, rtol=0, atol=1e-12)
    assert_law(drawn.tokens[:, :1], states, torch.full((states,), 1 / states, dtype=torch.float64))
    # Nothing but the first token depends on how it is drawn: the tables are the same.
    plain = dirichlet_chains(stream(0), DRAWS, **sizes)
    torch.testing.assert_close(drawn.table, plain.table, rtol=0, atol=3e-16)


def test_switching_chains_follow_their_bayes_predictor() -> None:
    rho, sequences = 0.3, words(3, 4)
    drawn = switching_chains(stream(5, "law"), DRAWS, length=4, switch_probability=rho)
    first = torch.tensor([0.35, 0.35, 0.3], dtype=torch.float64)
    logs = switching_posterior(3, rho, 1.0)(sequences, torch.zeros(len(sequences)).long())
    steps = logs[:, :-1].gather(-1, sequences[:, 1:, None])[..., 0].sum(1).exp()
    assert_law(drawn.tokens, 3, first[sequences[:, 0]] * steps)


def test_the_oracle_of_a_switching_chain_is_the_law_of_its_next_token() -> None:
    drawn = switching_chains(stream(6, "law"), DRAWS, length=6, switch_probability=0.2)
    # A martingale: the indicator of each token minus its probability has mean 0 at every position.
    hit = torch.nn.functional.one_hot(drawn.tokens[:, 1:], 3) - drawn.next_law[:, :-1]
    score = hit.mean(0) / (hit.std(0) / DRAWS**0.5)
    assert float(score.abs().max()) < stats.norm.isf(SHARE / score.numel())


def test_higher_order_tables_are_read_oldest_symbol_first() -> None:
    # After (0, 1) comes 0, after (1, 0) comes 1: the sequence 0 1 0 1 ... ; other contexts stay where they are.
    table = torch.tensor([[[1.0, 0], [1, 0], [0, 1], [0, 1]]], dtype=torch.float64).expand(50, -1, -1)
    tokens = sample_chains(stream(0), table, 8).tokens
    assert (tokens[:, 2:] == tokens[:, :-2]).all()


@pytest.mark.parametrize(
    ("call", "words_of_the_message"),
    [
        (lambda: dirichlet_chains(stream(0), 2, states=1, length=4), "alphabet of 1"),
        (lambda: dirichlet_chains(stream(0), 2, states=3, length=4, concentration=0.0), "concentration 0.0"),
        (lambda: dirichlet_chains(stream(0), 2, states=3, length=4, concentration=-1.0), "concentration -1"),
        (lambda: dirichlet_chains(stream(0), 2, states=3, length=2, order=2), "length = 2"),
        (lambda: dirichlet_chains(stream(0), 2, states=3, length=9, order=2, start="stationary"), "order 2"),
        (lambda: dirichlet_chains(stream(0), 2, states=10, length=20, order=12), "hold 2e.13 numbers"),
        (lambda: doubly_stochastic_chains(stream(0), 2, states=1, length=4), "alphabet of 1"),
        (lambda: unigram_chains(stream(0), 2, states=2, length=4, concentration=0.0), "concentration"),
        (lambda: fixed_chains(stream(0), 2, transition=((0.5, 0.6), (0.1, 0.9)), length=4), "normalise"),
        (lambda: fixed_chains(stream(0), 2, transition=((1.5, -0.5), (0.1, 0.9)), length=4), "-0.5"),
        (lambda: fixed_chains(stream(0), 2, transition=((1.0, 0.0), (0.1, 0.9)), length=4), "reducible"),
        (lambda: fixed_chains(stream(0), 2, transition=((1.0,),), length=4), "alphabet of 1"),
        (lambda: switching_chains(stream(0), 2, length=4, switch_probability=1.0), "switch_probability"),
        (lambda: binary_kernel(0.5, 1.2), "q = 1.2"),
        (lambda: birkhoff_matrices(stream(0), 2, 1), "alphabet of 1"),
        (lambda: birkhoff_matrices(stream(0), 0, 3), "0 doubly stochastic matrices"),
        (lambda: sample_chains(stream(0), torch.ones(0, 3, 3).double(), 4), r"shape \(0, 3, 3\) holds no law"),
        (lambda: sample_chains(stream(0), torch.full((1, 3, 2), 0.5).double(), 4), "no power"),
    ],
)
def test_bad_input_is_one_sentence(call, words_of_the_message: str) -> None:
    with pytest.raises(LabError, match=words_of_the_message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_reducible_matrix_may_start_uniformly() -> None:
    drawn = fixed_chains(stream(0), 3, transition=((1.0, 0.0), (0.5, 0.5)), length=5, start="uniform")
    assert drawn.tokens.shape == (3, 5)
    assert check_transition(torch.eye(2).double()).shape == (2, 2)
