"""The recursions against linear self-attention layers written out token by token."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.domains.regression.causal_recursions import (
    Trajectory,
    causal_gram,
    causal_rate,
    causal_recursion,
    causal_stability_limit,
    causal_weights,
    gram,
    normalised_causal_gram,
    normalised_causal_recursion,
    prefix_recursion,
)
from lab.domains.regression.gradient_descent import gradient_descent_path
from lab.domains.regression.kaczmarz import stationary_coefficients
from lab.domains.regression.prompts import RegressionPrompts, linear_regression, tokens
from lab.streams import stream

algebra = settings(deadline=None, max_examples=15, derandomize=True)
LAYERS = 4


def draw(seed: int, dimension: int, context: int, batch: int = 2, mean: float = 0.0) -> RegressionPrompts:
    return linear_regression(
        stream(seed, "test"), batch, dimension=dimension, context_length=context, query_length=3, noise=0.5, mean=mean
    )


def attention_layers(prompts: RegressionPrompts, mask: str, rate: float) -> np.ndarray:
    """Label slots [layers + 1, batch, tokens] of z_j <- z_j + P V sum_i z_i (z_i . K^T Q z_j), loops all the way."""
    z = tokens(prompts).numpy()
    batch, length, width = z.shape
    context = prompts.x_context.shape[1]
    key_query = np.diag([1.0] * (width - 1) + [0.0])
    value = np.zeros((width, width))
    value[-1, -1] = -1
    slots = [z[..., -1]]
    for _ in range(LAYERS):
        after = z.copy()
        for b in range(batch):
            for j in range(length):
                visible = [i for i in range(context) if mask == "prefix" or i <= j]
                step = rate / len(visible) if mask == "normalised" else rate
                for i in visible:
                    after[b, j] += step * value @ z[b, i] * (z[b, i] @ key_query @ z[b, j])
        z = after
        slots.append(z[..., -1])
    return np.stack(slots)


def run(prompts: RegressionPrompts, mask: str, rate: float) -> Trajectory:
    arguments = prompts.x_context, prompts.y_context, prompts.x_query
    if mask == "prefix":
        return prefix_recursion(*arguments, step=rate, layers=LAYERS)
    if mask == "causal":
        return causal_recursion(*arguments, step=rate, layers=LAYERS)
    return normalised_causal_recursion(*arguments, learning_rate=rate, layers=LAYERS)


@pytest.mark.parametrize("mask", ["prefix", "causal", "normalised"])
@algebra
@given(seed=st.integers(0, 10**6), dimension=st.integers(1, 4), context=st.integers(1, 7))
def test_recursions_are_the_layers_of_attention(mask: str, seed: int, dimension: int, context: int) -> None:
    prompts = draw(seed, dimension, context)
    expected = attention_layers(prompts, mask, 0.1)
    trajectory = run(prompts, mask, 0.1)
    scale = float(np.abs(expected).max())
    np.testing.assert_allclose(trajectory.context_residual, expected[..., :context], rtol=0, atol=1e-12 * scale)
    np.testing.assert_allclose(trajectory.query_prediction, -expected[..., context:], rtol=0, atol=1e-12 * scale)


def test_masks_differ_from_the_second_layer_on() -> None:
    prompts = draw(0, 3, 6)
    prefix, causal = run(prompts, "prefix", 0.1).query_prediction, run(prompts, "causal", 0.1).query_prediction
    assert torch.equal(prefix[:2], causal[:2])
    assert float((prefix[2] - causal[2]).abs().max()) > 1e-3


@algebra
@given(seed=st.integers(0, 10**6), dimension=st.integers(1, 4), context=st.integers(1, 7))
def test_weights_behind_the_coefficients(seed: int, dimension: int, context: int) -> None:
    prompts = draw(seed, dimension, context)
    x = prompts.x_context
    prefix = run(prompts, "prefix", 0.1)
    path = gradient_descent_path(x, prompts.y_context, step=0.1, steps=LAYERS)
    torch.testing.assert_close(causal_weights(prefix.coefficients, x)[..., -1, :], path, rtol=0, atol=1e-11)
    causal = run(prompts, "causal", 0.1)
    weights = causal_weights(causal.coefficients, x)
    torch.testing.assert_close(prompts.y_context - (weights * x).sum(-1), causal.context_residual, rtol=0, atol=1e-11)
    torch.testing.assert_close(
        (prompts.x_query @ weights[..., -1, :, None])[..., 0], causal.query_prediction, rtol=0, atol=1e-11
    )


@algebra
@given(seed=st.integers(0, 10**6), context=st.integers(1, 7))
def test_causal_error_map(seed: int, context: int) -> None:
    """a - a* is multiplied by I - s T each layer; by I - s G it is not."""
    prompts = draw(seed, 3, context)
    a = run(prompts, "causal", 0.1).coefficients
    distance = a - stationary_coefficients(prompts.x_context, prompts.y_context)
    triangle, identity = causal_gram(prompts.x_context), torch.eye(context, dtype=torch.float64)
    scale = float(distance.abs().max())
    expected = (distance[:-1, :, None] @ (identity - 0.1 * triangle))[:, :, 0]
    torch.testing.assert_close(distance[1:], expected, rtol=0, atol=1e-12 * scale)
    if context > 1:
        by_gram = (distance[:-1, :, None] @ (identity - 0.1 * gram(prompts.x_context)))[:, :, 0]
        assert float((distance[1:] - by_gram).abs().max()) > 1e-9 * scale


def test_matrices_entry_by_entry() -> None:
    x = draw(1, 3, 4).x_context
    full, triangle, normalised = gram(x), causal_gram(x), normalised_causal_gram(x)
    for k in range(4):
        for j in range(4):
            product = (x[:, k] * x[:, j]).sum(-1)
            torch.testing.assert_close(full[:, k, j], product)
            torch.testing.assert_close(triangle[:, k, j], product if k <= j else 0 * product)
            torch.testing.assert_close(normalised[:, k, j], (product if k <= j else 0 * product) / (j + 1))


def test_causal_rate_is_the_spectral_radius_and_the_limit_is_sharp() -> None:
    x = draw(2, 3, 6).x_context
    for step in (0.05, 0.3, 1.0):
        identity = torch.eye(6, dtype=torch.float64)
        # Eigenvalues of a triangle are its diagonal.
        radius = (identity - step * causal_gram(x)).diagonal(dim1=1, dim2=2).abs().amax(-1)
        torch.testing.assert_close(causal_rate(x, step), radius)
    for b in range(2):
        limit = float(causal_stability_limit(x)[b])
        assert float(causal_rate(x, 0.999 * limit)[b]) < 1
        assert float(causal_rate(x, 1.001 * limit)[b]) > 1


def test_equal_norms_end_after_as_many_layers_as_examples() -> None:
    """With s = 1 / r^2 the error map is strictly triangular, hence nilpotent."""
    x = torch.from_numpy(stream(3).rng().standard_normal((4, 8, 3)))
    x = 2 * x / x.norm(dim=-1, keepdim=True)
    y = torch.from_numpy(stream(4).rng().standard_normal((4, 8)))
    residual = causal_recursion(x, y, x[:, :1], step=0.25, layers=8).context_residual
    for place in range(8):
        assert float(residual[place + 1 :, :, place].abs().max()) < 1e-13 * float(y.abs().max()) * 8
    assert float(causal_recursion(x, y, x[:, :1], step=0.225, layers=8).context_residual[-1].abs().max()) > 1e-10


def test_errors_by_layer() -> None:
    prompts = draw(5, 3, 6)
    trajectory = run(prompts, "prefix", 0.1)
    assert torch.equal(trajectory.context_residual[0], prompts.y_context)
    torch.testing.assert_close(trajectory.context_error[0], prompts.y_context.square().mean(-1))
    torch.testing.assert_close(trajectory.query_error(prompts.y_query)[0], prompts.y_query.square().mean(-1))


def test_published_curves() -> None:
    """Means over 512 prompts (d = 16, n = 40, s = 0.04) against independently simulated means and their spread."""
    prompts = linear_regression(stream(6), 512, dimension=16, context_length=40, query_length=20)
    arguments = prompts.x_context, prompts.y_context, prompts.x_query
    prefix = prefix_recursion(*arguments, step=0.04, layers=50)
    causal = causal_recursion(*arguments, step=0.04, layers=50)
    # At layers 1, 5, 10, 50; spread of means of 64 prompts, here of 512: smaller by sqrt(8).
    published = [
        (prefix.context_error, [0.947, 0.0817, 0.0158, 1.25e-5], [0.05, 0.006, 0.002, 8e-6]),
        (prefix.query_error(prompts.y_query), [1.735, 0.295, 0.0753, 1.04e-4], [0.11, 0.03, 0.013, 8e-5]),
        (causal.context_error, [1.846, 0.341, 0.075, 7.1e-6], [0.09, 0.02, 0.003, 3e-6]),
        (causal.query_error(prompts.y_query), [1.735, 0.708, 0.473, 0.397], [0.11, 0.06, 0.05, 0.05]),
    ]
    for curve, means, spreads in published:
        errors = curve[[1, 5, 10, 50]].mean(1)
        for value, mean, spread in zip(errors.tolist(), means, spreads, strict=True):
            assert abs(value - mean) < 4 * spread / np.sqrt(8)
