"""Metrics against values known by hand, and adapters against the module they wrap."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lab import evaluation
from lab.errors import LabError
from lab.streams import stream


def normal(*shape: int, name: str = "x", seed: int = 0) -> Tensor:
    return torch.from_numpy(stream(seed, name).rng().standard_normal(shape))


def log_distributions(*shape: int, name: str, seed: int = 0) -> Tensor:
    return torch.log_softmax(2 * normal(*shape, name=name, seed=seed), dim=-1)


class Averages(nn.Module):
    """Ensemble whose output is the mean of the tokens the mask lets through, times a matrix of its own."""

    def __init__(self, matrix: Tensor, embedding: Tensor) -> None:
        super().__init__()
        self.matrix, self.embedding = nn.Parameter(matrix), nn.Parameter(embedding)

    def select(self, indices: Sequence[int]) -> Averages:
        return Averages(self.matrix.detach()[list(indices)], self.embedding.detach()[list(indices)])

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        if not tokens.is_floating_point():
            tokens = torch.stack([table[ids] for table, ids in zip(self.embedding, tokens, strict=True)])
        if mask.dim() == 3:
            mask = mask.unsqueeze(1)
        weights = mask.to(tokens) / mask.sum(-1, keepdim=True)
        return torch.einsum("...ij,...jd->...id", weights, tokens) @ self.matrix.unsqueeze(1)


def averages(models: int = 3) -> Averages:
    return Averages(normal(models, 3, 3, name="matrix"), normal(models, 3, 3, name="embedding"))


def causal(time: int) -> Tensor:
    return torch.ones(time, time, dtype=torch.bool).tril()


def prefix(prefix_length: Tensor, time: int) -> Tensor:
    """Mask [B, T, T]: causal, and everything within the prefix."""
    return causal(time) | (torch.arange(time) < prefix_length[:, None])[:, None, :]


def test_squared_error_keeps_queries_and_models() -> None:
    prediction = torch.tensor([[1.0, 0.0], [3.0, 2.0]])
    target = torch.zeros(2, 2)
    assert evaluation.squared_error(prediction, target).tolist() == [5.0, 2.0]
    assert evaluation.squared_error(prediction.expand(4, 2, 2), target).shape == (4, 2)


@settings(deadline=None, max_examples=20, derandomize=True)
@given(st.integers(0, 10**6), st.floats(-3, 3))
def test_relative_distance_of_a_multiple(seed: int, factor: float) -> None:
    reference = normal(5, 2, seed=seed)
    distance = evaluation.relative_distance(torch.stack([factor * reference, 0 * reference]), reference)
    torch.testing.assert_close(distance, torch.tensor([(factor - 1) ** 2, 1.0], dtype=torch.float64))


def test_distance_from_nothing_is_refused() -> None:
    with pytest.raises(LabError, match="0 everywhere"):
        evaluation.relative_distance(normal(3, 2), torch.zeros(3, 2))


def test_error_by_context_length_of_the_mean_predictor() -> None:
    """Predicting the mean of k unit-variance targets has squared error 1 + 1/k, and the data of length k only."""
    shown: list[int] = []

    def mean(x_context: Tensor, y_context: Tensor, x_query: Tensor) -> Tensor:
        shown.append(y_context.shape[1])
        return y_context.mean(1, keepdim=True).expand(x_query.shape[:2])

    batch = 20000
    y = normal(batch, 9, name="y")
    x = torch.zeros(batch, 8, 1, dtype=torch.float64)
    errors = evaluation.error_by_context_length(mean, x, y[:, :8], x[:, :1], y[:, 8:], [1, 2, 8])
    assert shown == [1, 2, 8]
    for k, error in zip(shown, errors.tolist(), strict=True):
        # a squared normal variable has standard deviation sqrt(2) times its mean; 4.5 of them fail 1 in 10^5 times
        assert abs(error - (1 + 1 / k)) < 4.5 * (1 + 1 / k) * math.sqrt(2 / batch)
    for lengths in ([9], [-1], []):
        with pytest.raises(LabError, match="between 0 and the 8 examples"):
            evaluation.error_by_context_length(mean, x, y[:, :8], x[:, :1], y[:, 8:], lengths)


def test_cross_entropy_and_accuracy_of_a_known_distribution() -> None:
    log_p = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64).log().expand(2, 1, 4, 3)
    tokens = torch.tensor([[2, 0, 1, 0]])
    losses = evaluation.cross_entropy(log_p, tokens)
    torch.testing.assert_close(losses / math.log(2), torch.tensor([[1.0, 2.0, 1.0]] * 2, dtype=torch.float64)[:, None])
    assert evaluation.accuracy(log_p, tokens).tolist() == [[[1, 0, 1]]] * 2


@settings(deadline=None, max_examples=25, derandomize=True)
@given(st.integers(0, 10**6), st.integers(2, 6))
def test_divergences_obey_their_laws(seed: int, size: int) -> None:
    p, q = (log_distributions(2, 3, size, name=name, seed=seed) for name in "pq")
    divergence, variation = evaluation.kullback_leibler(p, q), evaluation.total_variation(p, q)
    assert (divergence >= 2 * variation.square()).all(), "Pinsker's inequality"
    torch.testing.assert_close(variation, evaluation.total_variation(q, p))
    torch.testing.assert_close(evaluation.kullback_leibler(p, p), torch.zeros(2, 3, dtype=torch.float64))
    torch.testing.assert_close(variation, (p.exp() - q.exp()).clamp(min=0).sum(-1))
    # sum_v p_v (-log q_v) = KL(p || q) + entropy of p
    tokens = torch.arange(size).expand(size, size)[:, :1].expand(size, 2)  # any first token; the second is scored
    scores = evaluation.cross_entropy(q[:1, :1].expand(size, 2, size), torch.arange(size)[:, None].expand_as(tokens))
    torch.testing.assert_close((p[0, 0].exp() * (scores[:, 0] + p[0, 0])).sum(), divergence[0, 0])


def test_divergence_of_excluded_tokens() -> None:
    certain = torch.tensor([[[0.0, -math.inf]]])
    fair = torch.full((1, 1, 2), 0.5).log()
    assert evaluation.kullback_leibler(certain, fair).item() == pytest.approx(math.log(2))
    assert evaluation.kullback_leibler(fair, certain).item() == math.inf
    assert evaluation.kullback_leibler(certain, certain).item() == 0
    assert evaluation.total_variation(certain, fair).item() == pytest.approx(0.5)


def test_per_position_averages_scored_prompts_only() -> None:
    values = torch.tensor([[1.0, 2.0, 3.0], [5.0, math.inf, 7.0]])
    scored = torch.tensor([[True, True, False], [True, False, False]])
    mean = evaluation.per_position(values.expand(2, 2, 3), scored)
    assert mean[:, :2].tolist() == [[3.0, 2.0]] * 2
    assert mean[:, 2].isnan().all()
    assert evaluation.per_position(values).tolist() == [3.0, math.inf, 5.0]


@pytest.mark.parametrize("limit", [1, 100, 10**6])
def test_regression_adapter(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(evaluation, "NUMBERS_IN_FLIGHT", limit)
    module = averages()
    x, y, query = normal(7, 4, 2), normal(7, 4, name="y"), normal(7, 2, 2, name="query")

    def mask(context: int, queries: int) -> Tensor:
        """Every token sees the examples and itself."""
        visible = torch.arange(context + queries) < context
        return visible[None, :] | torch.eye(context + queries, dtype=torch.bool)

    everyone = evaluation.as_regression_predictor(module, mask)(x, y, query)
    assert everyone.shape == (3, 7, 2)
    # by hand: the mean of (x_i, y_i) over 4 examples and of (query, 0), times the last column of the matrix
    total = torch.cat([x.sum(1), y.sum(1, keepdim=True)], dim=-1)[:, None]
    tokens = torch.cat([query, torch.zeros(7, 2, 1, dtype=torch.float64)], dim=-1)
    expected = torch.einsum("bqd,ed->ebq", (total + tokens) / 5, module.matrix.detach()[:, :, -1])
    torch.testing.assert_close(everyone, expected, atol=1e-13, rtol=0)
    assert not everyone.requires_grad
    for member in range(3):
        single = evaluation.as_regression_predictor(module, mask, member=member)
        torch.testing.assert_close(single(x, y, query), expected[member], atol=1e-13, rtol=0)

    patterns = torch.stack([mask(4, 2), causal(6), mask(4, 2)])
    mixed = evaluation.as_regression_predictor(module, patterns)(x, y, query)
    torch.testing.assert_close(mixed[[0, 2]], expected[[0, 2]], atol=1e-13, rtol=0)
    alone = evaluation.as_regression_predictor(module, patterns, member=1)(x, y, query)
    torch.testing.assert_close(mixed[1], alone, atol=1e-13, rtol=0)
    assert not torch.allclose(mixed[1], expected[1])


@pytest.mark.parametrize("limit", [1, 100, 10**6])
def test_token_adapter(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(evaluation, "NUMBERS_IN_FLIGHT", limit)
    module = averages()
    tokens = torch.from_numpy(stream(0, "tokens").rng().integers(0, 3, size=(5, 6)))
    lengths = torch.tensor([0, 1, 3, 6, 2])
    everyone = evaluation.as_token_predictor(module, prefix)(tokens, lengths)
    assert everyone.shape == (3, 5, 6, 3)
    torch.testing.assert_close(everyone.exp().sum(-1), torch.ones(3, 5, 6, dtype=torch.float64))
    for row, length in enumerate(lengths.tolist()):
        pattern = prefix(torch.tensor([length]), 6)[0]
        alone = module(tokens[None, row : row + 1].expand(3, 1, 6), pattern).log_softmax(-1).detach()
        torch.testing.assert_close(everyone[:, row], alone[:, 0], atol=1e-13, rtol=0)
    single = evaluation.as_token_predictor(module, prefix, member=2)(tokens, lengths)
    torch.testing.assert_close(single, everyone[2], atol=1e-13, rtol=0)
    fixed = evaluation.as_token_predictor(module, causal(6))(tokens, lengths)
    torch.testing.assert_close(fixed[:, 0], everyone[:, 0], atol=1e-13, rtol=0)
    of_model = evaluation.as_token_predictor(module, causal(6).expand(3, 6, 6), member=1)(tokens, lengths)
    torch.testing.assert_close(of_model, fixed[1], atol=1e-13, rtol=0)


def test_predictions_may_serve_as_targets_of_training() -> None:
    x, y, query = normal(2, 4, 2), normal(2, 4, name="y"), normal(2, 1, 2, name="query")
    target = evaluation.as_regression_predictor(averages(), causal(5), member=0)(x, y, query)
    weight = torch.ones(1, dtype=torch.float64, requires_grad=True)
    (weight * target).sum().backward()
    torch.testing.assert_close(weight.grad, target.sum().reshape(1))


def test_answers_that_are_not_numbers_are_wrong() -> None:
    broken = log_distributions(1, 3, 4, name="broken")
    tokens = torch.zeros(1, 3, dtype=torch.int64)
    assert evaluation.accuracy(torch.full_like(broken, math.nan), tokens).tolist() == [[0.0, 0.0]]
    best = broken[:, :-1].argmax(-1)
    tokens[:, 1:] = best
    broken[0, 1, (int(best[0, 1]) + 1) % 4] = math.nan
    assert evaluation.accuracy(broken, tokens).tolist() == [[1.0, 0.0]]
