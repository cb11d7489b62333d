"""Prompts from a mixture of regressions: their law, their streams, and bad input."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.domains.regression.mixture_prompts import component_set, fresh_regression, prior_law, regression_mixture
from lab.errors import LabError
from lab.statistics import deviation
from lab.streams import stream

TWO = torch.tensor([[1.0, 0.0, 2.0], [0.0, -1.0, 0.5]], dtype=torch.float64)


@settings(deadline=None, max_examples=20, derandomize=True)
@given(seed=st.integers(0, 10**6), length=st.integers(1, 6), scale=st.sampled_from([0.5, 1.0, 3.0]))
def test_labels_without_noise_are_the_component_s(seed: int, length: int, scale: float) -> None:
    prompts = regression_mixture(
        stream(seed), 7, components=TWO, length=length, noise=0.0, input_scale=scale, prior=(0.3, 0.7)
    )
    assert torch.equal(prompts.weights, TWO[prompts.component])
    for b in range(7):
        for i in range(length):
            product = float(prompts.x[b, i] @ TWO[prompts.component[b]])
            assert float(prompts.y[b, i]) == pytest.approx(product, abs=1e-12)


def test_noise_prior_and_scale_leave_the_other_numbers_alone() -> None:
    plain = regression_mixture(stream(1), 50, components=TWO, length=4, noise=0.0)
    noisy = regression_mixture(stream(1), 50, components=TWO, length=4, noise=2.0)
    shifted = regression_mixture(stream(1), 50, components=TWO, length=4, noise=0.0, prior=(1.0, 0.0))
    wide = regression_mixture(stream(1), 50, components=TWO, length=4, noise=0.0, input_scale=2.0)
    assert torch.equal(plain.x, noisy.x)
    assert torch.equal(plain.component, noisy.component)
    assert torch.equal(plain.x, shifted.x)
    assert not shifted.component.any()
    assert torch.equal(wide.x, 2 * plain.x)
    assert deviation((noisy.y - plain.y).flatten().numpy(), 0.0) < 4
    assert float((noisy.y - plain.y).std()) == pytest.approx(2.0, rel=0.2)


def test_components_come_with_their_probabilities() -> None:
    three = torch.eye(3, dtype=torch.float64)
    prompts = regression_mixture(stream(2), 4000, components=three, length=1, noise=1.0, prior=(0.1, 0.6, 0.3))
    for place, probability in enumerate((0.1, 0.6, 0.3)):
        assert deviation((prompts.component == place).double().numpy(), probability) < 4


@settings(deadline=None, max_examples=15, derandomize=True)
@given(seed=st.integers(0, 10**6), components=st.integers(1, 4))
def test_laws_of_the_set(seed: int, components: int) -> None:
    rows = component_set(stream(seed), components, 4)
    torch.testing.assert_close(rows @ rows.mT, torch.eye(components, dtype=torch.float64), atol=1e-14, rtol=0)
    unit = component_set(stream(seed), 6, 4, "unit")
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(6, dtype=torch.float64), atol=1e-14, rtol=0)
    normal = component_set(stream(seed), 6, 4, "normal")
    torch.testing.assert_close(normal / normal.norm(dim=1, keepdim=True), unit)


def test_orthonormal_vectors_have_no_preferred_sign() -> None:
    first = np.array([float(component_set(stream(seed), 2, 3)[0, 0]) for seed in range(400)])
    assert deviation(first, 0.0) < 4
    assert deviation(first**2, 1 / 3) < 4


def test_fresh_weights() -> None:
    normal = fresh_regression(stream(3), 3000, dimension=4, length=2, noise=0.1)
    assert deviation(normal.weights.square().sum(1).numpy(), 1.0) < 4
    unit = fresh_regression(stream(3), 50, dimension=4, length=2, noise=0.1, law="unit")
    torch.testing.assert_close(unit.weights.norm(dim=1), torch.ones(50, dtype=torch.float64))
    assert torch.equal(normal.x[:50], unit.x)


def test_precision_is_asked_for() -> None:
    prompts = regression_mixture(stream(4), 2, components=TWO, length=3, noise=0.1, dtype=torch.float32)
    assert {prompts.x.dtype, prompts.y.dtype, prompts.weights.dtype} == {torch.float32}


def test_prior_law() -> None:
    assert prior_law((), 4).tolist() == [0.25] * 4
    assert prior_law((0.5, 0.5), 2).tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"length": 0}, "length is 0"),
        ({"noise": -1.0}, "noise is -1.0"),
        ({"noise": float("nan")}, "noise is nan"),
        ({"input_scale": float("inf")}, "input_scale is inf"),
        ({"prior": (1.0,)}, "1 probabilities for 2 components"),
        ({"prior": (0.7, 0.7)}, "sum to 1, not 1.4"),
        ({"prior": (1.5, -0.5)}, "at least 0"),
    ],
)
def test_bad_mixtures_are_one_sentence(changes: dict, sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        regression_mixture(stream(0), 2, **{"components": TWO, "length": 3, "noise": 0.1} | changes)


def test_other_bad_input_is_one_sentence() -> None:
    with pytest.raises(LabError, match="batch is 0"):
        regression_mixture(stream(0), 0, components=TWO, length=3, noise=0.1)
    with pytest.raises(LabError, match="5 orthonormal components do not fit into dimension 4"):
        component_set(stream(0), 5, 4)
    with pytest.raises(LabError, match="law 'cauchy'"):
        # The type checker of the tests would find the unknown name first.
        inspect.unwrap(component_set)(stream(0), 5, 4, "cauchy")
    with pytest.raises(LabError, match="components is 0"):
        component_set(stream(0), 0, 4)
    with pytest.raises(LabError, match="dimension is 0"):
        fresh_regression(stream(0), 2, dimension=0, length=3, noise=0.1)
    with pytest.raises(LabError, match="law 'cauchy'"):
        inspect.unwrap(fresh_regression)(stream(0), 2, dimension=2, length=3, noise=0.1, law="cauchy")
