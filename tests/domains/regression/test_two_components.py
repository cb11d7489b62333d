"""Two components at a distance, against sampling, other quadratures and small cases by hand; the subspace of components."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from lab.domains.regression import two_components as theory
from lab.domains.regression.mixture_prompts import component_set, regression_mixture
from lab.domains.regression.mixture_subspace import component_subspace, share_outside
from lab.domains.regression.mixtures import running_scores, symmetric_excess_risk
from lab.errors import LabError
from lab.streams import stream


@pytest.mark.parametrize("ratio", [0.3, 1.0, 4.0])
def test_error_rates_of_one_and_two_pairs_by_hand(ratio: float) -> None:
    assert theory.argmin_error_rate(0, ratio, 1.0) == 0.5
    assert theory.argmin_error_rate(1, ratio, 1.0) == pytest.approx(0.5 - math.atan(ratio / 2) / math.pi, abs=1e-14)
    by_hand = (1 - ratio / math.sqrt(ratio**2 + 4)) / 2
    assert theory.argmin_error_rate(2, ratio, 1.0) == pytest.approx(by_hand, abs=1e-14)
    assert theory.argmin_error_rate(3, 7 * ratio, 7.0) == pytest.approx(
        theory.argmin_error_rate(3, ratio, 1.0), abs=1e-14
    )


def test_error_rate_and_risk_of_sampled_prompts() -> None:
    components, noise = component_set(stream(1, "set"), 2, 3), 0.6
    prompts = regression_mixture(stream(1), 40_000, components=components, length=4, noise=noise)
    wrong = running_scores(prompts.x, prompts.y, components)[:, 3].argmin(-1) != prompts.component
    exact = theory.argmin_error_rate(3, math.sqrt(2), noise)
    assert float(wrong.double().mean()) == pytest.approx(exact, abs=5 * math.sqrt(exact / 40_000))
    assert theory.argmin_excess_risk(3, math.sqrt(2), noise) == pytest.approx(2 * exact)


@pytest.mark.parametrize("pairs", [1, 2, 7])
@pytest.mark.parametrize("ratio", [0.3, 1.0, 3.0])
def test_posterior_risk_is_the_mean_over_the_inputs(pairs: int, ratio: float) -> None:
    def integrand(root: float) -> float:
        signal = np.array([ratio**2 / 4 * root**2])
        return float(2 * root * stats.chi2.pdf(root**2, pairs) * symmetric_excess_risk(signal, ratio**2 / 4)[0])

    exact = integrate.quad(integrand, 0, math.sqrt(stats.chi2.isf(1e-18, pairs)), epsabs=1e-15, epsrel=1e-12)[0]
    assert theory.posterior_excess_risk(pairs, ratio, 1.0) == pytest.approx(exact, rel=1e-10)


def test_both_ends_of_the_saving() -> None:
    for ratio in (0.2, 1.0, 5.0):
        risk, argmin = theory.posterior_excess_risk(0, ratio, 1.0), theory.argmin_excess_risk(0, ratio, 1.0)
        assert risk / argmin == pytest.approx(0.5)
    share = theory.posterior_excess_risk(2_000, 1.0, 1.0) / theory.argmin_excess_risk(2_000, 1.0, 1.0)
    assert share == pytest.approx(math.pi / 4, rel=5e-3)
    assert theory.mean_sech(0, 0.5) == theory.mean_sech(4, 0.0) == 1.0
    assert theory.mean_sech(1, 1e-8) == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize(
    ("pairs", "distance", "noise"), [(-1, 1.0, 1.0), (2, 0.0, 1.0), (2, 1.0, math.inf), (2, 1.0, 0.0)]
)
def test_bad_arguments_are_one_sentence(pairs: int, distance: float, noise: float) -> None:
    with pytest.raises(LabError, match=r"must be"):
        theory.argmin_error_rate(pairs, distance, noise)


def test_subspace_of_many_prompts_holds_the_components() -> None:
    components = component_set(stream(2, "set"), 2, 5)
    prompts = regression_mixture(stream(2), 20_000, components=components, length=8, noise=0.5)
    basis = component_subspace(prompts.x, prompts.y, 2)
    torch.testing.assert_close(basis.mT @ basis, torch.eye(2, dtype=torch.float64))
    assert share_outside(basis, components) < 0.002
    assert share_outside(components.mT, components) == pytest.approx(0, abs=1e-12)
    assert share_outside(torch.eye(5, dtype=torch.float64), components) == pytest.approx(0, abs=1e-12)


def test_bad_subspaces_are_one_sentence() -> None:
    x, y = torch.zeros(3, 4, 2), torch.zeros(3, 4)
    with pytest.raises(LabError, match="at least 2"):
        component_subspace(x[:, :1], y[:, :1], 1)
    with pytest.raises(LabError, match="between 1 and the dimension 2"):
        component_subspace(x, y, 3)
