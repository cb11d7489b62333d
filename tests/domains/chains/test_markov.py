from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize, stats

from lab.domains.chains.latent_graphs import oracle_risk, risk_after_visits
from lab.domains.chains.markov import (
    adjacent_information,
    basin_edge,
    canonical_flow,
    canonical_loss,
    conserved_energy,
    context_numbers,
    entropy_rate,
    kernel_slope,
    log_evidence,
    markov_posterior,
    optimal_bias,
    running_counts,
    smoothed_frequencies,
    smoothing_divergence,
    stationary_entropy,
    switching_posterior,
    trap_curvature,
    true_law,
    uniform_guess,
)
from lab.domains.chains.markov_prompts import binary_kernel, dirichlet_chains, switching_chains
from lab.errors import LabError
from lab.streams import stream


def counted(tokens: list[int], states: int, order: int, alpha: float) -> list[float]:
    """The smoothed prediction after the last token, by looking at every earlier place."""
    context, counts = tokens[len(tokens) - order :], np.full(states, alpha)
    for place in range(order, len(tokens)):
        if tokens[place - order : place] == context:
            counts[tokens[place]] += 1
    return (counts / counts.sum()).tolist()


@settings(deadline=None, max_examples=25, derandomize=True)
@given(
    states=st.integers(2, 4),
    order=st.integers(0, 3),
    length=st.integers(1, 12),
    seed=st.integers(0, 1000),
    alpha=st.sampled_from([0.5, 1.0, 3.0]),
)
def test_posterior_equals_counting_by_hand(states: int, order: int, length: int, seed: int, alpha: float) -> None:
    tokens = torch.from_numpy(stream(seed).rng().integers(0, states, (2, length)))
    law = markov_posterior(states, order, alpha)(tokens, torch.zeros(2).long()).exp()
    for row, sequence in enumerate(tokens.tolist()):
        for time in range(length):
            history = sequence[: time + 1]
            expected = counted(history, states, order, alpha) if len(history) >= order else [1 / states] * states
            assert law[row, time].tolist() == pytest.approx(expected, rel=1e-12)


def test_evidence_is_the_integral_over_binary_kernels() -> None:
    tokens = torch.tensor([[0, 1, 1, 0, 0, 1]])

    def likelihood(q: float, p: float) -> float:
        walk = p * (1 - q) * q * (1 - p) * p / 2
        return walk * stats.beta.pdf(p, 2, 2) * stats.beta.pdf(q, 2, 2)

    expected = integrate.dblquad(likelihood, 0, 1, 0, 1)[0]
    assert float(log_evidence(tokens, 2, 1, 2.0).exp()) == pytest.approx(expected, rel=1e-8)


def test_context_numbers_put_the_oldest_symbol_first() -> None:
    assert context_numbers(torch.tensor([[2, 0, 1]]), 3, 2).tolist() == [[6, 1]]
    assert context_numbers(torch.tensor([[2, 0, 1]]), 3, 0).tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize("order", [0, 1, 2])
def test_the_oracle_is_the_row_of_the_context(order: int) -> None:
    drawn = dirichlet_chains(stream(0), 3, states=3, length=7, order=order)
    law = true_law(drawn.table, drawn.tokens, order)
    for row, sequence in enumerate(drawn.tokens.tolist()):
        for time in range(7):
            if time + 1 < order:
                assert law[row, time].tolist() == pytest.approx([1 / 3] * 3)
                continue
            code = 0
            for symbol in sequence[time + 1 - order : time + 1]:
                code = 3 * code + symbol
            assert torch.equal(law[row, time], drawn.table[row, code])


def test_the_switching_predictor_forgets_at_the_sign() -> None:
    predict = switching_posterior(3, 0.2, 1.0)
    tokens = torch.tensor([[0, 1, 0, 1, 2, 0, 0, 1]])
    logs = predict(tokens, torch.zeros(1).long())
    after = predict(tokens[:, 4:], torch.zeros(1).long())
    assert torch.equal(logs[:, 4:], after)
    assert logs[0, 4].exp().tolist() == pytest.approx([0.4, 0.4, 0.2])
    assert logs[0, 6].exp().tolist() == pytest.approx([0.8 * 2 / 3, 0.8 / 3, 0.2])


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("stretches", [False, True])
def test_running_counts_are_those_of_a_loop(order: int, stretches: bool) -> None:
    rng = stream(3, "counts").rng()
    tokens = torch.from_numpy(rng.integers(0, 3, (4, 25)))
    stretch = torch.from_numpy(rng.integers(0, 2, (4, 25 - order + 1)).cumsum(1)) if stretches else None
    counts, codes = running_counts(tokens, 3, order, stretch), context_numbers(tokens, 3, order)
    for b, row in enumerate(codes.tolist()):
        for w, code in enumerate(row):
            expected = [0.0, 0.0, 0.0]
            for v in range(w):
                if row[v] == code and (stretch is None or stretch[b, v] == stretch[b, w]):
                    expected[int(tokens[b, v + order])] += 1
            assert counts[b, w].tolist() == expected


def test_counting_takes_memory_in_proportion_to_the_length() -> None:
    tokens = torch.from_numpy(stream(4, "long").rng().integers(0, 3, (1, 100_000)))  # 80 GB where pairs are compared
    law = markov_posterior(3, 2, 0.5)(tokens, torch.zeros(1).long())
    assert law.shape == (1, 100_000, 3)
    assert float((law[0, -1].exp() - 1 / 3).abs().max()) < 0.05


def test_matrices_at_the_precision_of_float32_are_stochastic() -> None:
    single = torch.softmax(torch.from_numpy(stream(5).rng().normal(size=(7, 7))).float(), -1)
    double = single.double() / single.double().sum(-1, keepdim=True)
    for level in (entropy_rate, stationary_entropy, adjacent_information):
        assert level(single).dtype == torch.float64
        assert float(level(single)) == pytest.approx(float(level(double)), rel=1e-12)


def test_knowing_the_sign_pays() -> None:
    drawn = switching_chains(stream(0), 800, length=40, switch_probability=0.1)
    zero = torch.zeros(800).long()
    bayes = -(drawn.next_law * switching_posterior(3, 0.1, 1.0)(drawn.tokens, zero)).sum(-1).mean(1)
    plain = -(drawn.next_law * markov_posterior(3, 1, 1.0)(drawn.tokens, zero)).sum(-1).mean(1)
    gain = plain - bayes
    assert float(gain.mean()) > 5 * float(gain.std()) / 800**0.5


def test_head_formula_at_its_ends() -> None:
    tokens = torch.tensor([[0, 1, 0, 2, 0]])
    # After 0 came 1 and 2; x_1 .. x_4 = 1, 0, 2, 0; sharpness 0 is the unigram.
    assert smoothed_frequencies(tokens, 3, np.inf)[0, -1].tolist() == pytest.approx([0, 0.5, 0.5])
    assert smoothed_frequencies(tokens, 3, 0.0)[0, -1].tolist() == pytest.approx([0.5, 0.25, 0.25])
    # 2 had no successor at t = 3: the unigram of x_1 .. x_3 = 1, 0, 2.
    assert smoothed_frequencies(tokens, 3, np.inf)[0, 3].tolist() == pytest.approx([1 / 3] * 3)
    sharp, infinite = (smoothed_frequencies(tokens, 3, beta) for beta in (50.0, np.inf))
    assert torch.allclose(sharp, infinite, atol=1e-15)
    assert smoothed_frequencies(tokens, 3, 2.0)[0, 0].tolist() == pytest.approx([1 / 3] * 3)


def test_known_entropies_of_binary_chains() -> None:
    for (p, q), rate, level in (
        ((0.5, 0.8), 0.6190, 0.6663),
        ((0.8, 0.7), 0.5593, 0.6909),
        ((0.2, 0.3), 0.5446, 0.6730),
    ):
        kernel = binary_kernel(p, q)
        assert float(entropy_rate(kernel)) == pytest.approx(rate, abs=5e-5)
        assert float(stationary_entropy(kernel)) == pytest.approx(level, abs=5e-5)
        assert float(adjacent_information(kernel)) == pytest.approx(level - rate, abs=1e-4)


def test_smoothing_divergence_by_enumeration() -> None:
    law, alpha = np.array([0.2, 0.5, 0.3]), 0.5
    total = 0.0
    for first in range(5):
        for second in range(5 - first):
            counts = np.array([first, second, 4 - first - second])
            weight = stats.multinomial.pmf(counts, 4, law)
            total += weight * float(law @ np.log(law * (4 + 3 * alpha) / (counts + alpha)))
    assert smoothing_divergence(law, 4, alpha) == pytest.approx(total, rel=1e-12)


def test_first_visit_costs_what_the_prior_says() -> None:
    # risk_0 = log S: without a visit, every row of a symmetric prior is predicted evenly.
    assert risk_after_visits(0, 4, 0.7) == pytest.approx(np.log(4), rel=1e-12)
    assert risk_after_visits(3, 4, 0.7) > oracle_risk(4, 0.7)


@settings(deadline=None, max_examples=25, derandomize=True)
@given(
    e=st.floats(0.1, 2),
    w=st.floats(-1.5, 1.5).filter(lambda value: abs(value) > 0.01),
    p=st.floats(0.05, 0.95),
    q=st.floats(0.05, 0.95),
)
def test_the_canonical_model(e: float, w: float, p: float, q: float) -> None:
    embedding, attention = torch.tensor(e, dtype=torch.float64), torch.tensor(w, dtype=torch.float64)

    def loss(bias: float) -> float:
        return float(canonical_loss(embedding, attention, torch.tensor(bias, dtype=torch.float64), p, q))

    best = float(optimal_bias(embedding, attention, p, q))
    minimum = optimize.minimize_scalar(loss, bracket=(best - 1, best + 1))
    assert minimum.x == pytest.approx(best, abs=1e-4)
    assert loss(best) <= minimum.fun + 1e-14
    flow = canonical_flow(embedding, attention, p, q)
    step = 1e-6
    moved = conserved_energy(embedding + step * flow[0], attention + step * flow[1]) - conserved_energy(
        embedding, attention
    )
    assert abs(float(moved)) < 1e-8


def test_optimal_bias_stays_exact_where_its_textbook_form_cancels() -> None:
    e, w = torch.tensor(3.0, dtype=torch.float64), torch.tensor(-1.4, dtype=torch.float64)
    bias = optimal_bias(e, w, 0.2, 0.7).requires_grad_()
    (slope,) = torch.autograd.grad(canonical_loss(e, w, bias, 0.2, 0.7), bias)
    assert abs(float(slope)) < 1e-14


def test_signs_of_the_trap() -> None:
    assert kernel_slope(0.2, 0.3) > 0 > kernel_slope(0.8, 0.7)
    w = torch.tensor([-1.0, 0.5], dtype=torch.float64)
    assert trap_curvature(w, 0.8, 0.7)[1] > 0 > trap_curvature(w, 0.8, 0.7)[0]
    assert trap_curvature(w, 0.2, 0.3)[0] > 0 > trap_curvature(w, 0.2, 0.3)[1]
    # e = 0.51780 at w = -1.1.
    assert float(basin_edge(torch.tensor(-1.1).double())) == pytest.approx(0.51780**2, abs=1e-5)
    assert float(basin_edge(torch.tensor(-(0.5**0.5)).double())) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: markov_posterior(1, 1, 1.0), "alphabet of 1"),
        (lambda: markov_posterior(3, 1, 0.0), "concentration 0.0"),
        (lambda: markov_posterior(3, -1, 1.0), "order = -1"),
        (lambda: markov_posterior(3, 1, 1.0)(torch.tensor([[0, 3]]), torch.zeros(1).long()), "token 3"),
        (lambda: markov_posterior(3, 2, 1.0)(torch.tensor([[7]]), torch.zeros(1).long()), "token 7"),
        (lambda: uniform_guess(3)(torch.tensor([[0, -1]]), torch.zeros(1).long()), "token -1"),
        (lambda: uniform_guess(1), "alphabet of 1"),
        (lambda: true_law(torch.full((1, 3, 3), 1 / 3), torch.zeros(1, 4).long(), 2), "3 rows does not fit"),
        (lambda: kernel_slope(0.0, 0.5), "p = 0.0"),
        (lambda: switching_posterior(3, 0.0, 1.0), "switch_probability"),
        (lambda: entropy_rate(torch.eye(3).double()), "reducible"),
        (lambda: stationary_entropy(torch.ones(2, 2).double()), "normalise"),
    ],
)
def test_bad_input_is_one_sentence(call, words: str) -> None:
    with pytest.raises(LabError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)
