from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import nquad, quad

from lab.domains.regression.kaczmarz import kaczmarz_path
from lab.domains.regression.online_limits import (
    Coordinate,
    centred_kaczmarz_error,
    direction_moments,
    second_moment_map,
    shifted_kaczmarz_error,
)
from lab.domains.regression.prompts import linear_regression
from lab.errors import LabError
from lab.statistics import deviation
from lab.streams import stream

TIGHT = 1e-13


@pytest.mark.parametrize("dimension", [3, 8, 16, 200])
def test_moments_of_centred_normal_inputs(dimension: int) -> None:
    """Directions are uniform on the sphere and independent of the norm, whose inverse moments are known."""
    moments = direction_moments(Coordinate("normal", 0.0, 0.7), dimension)
    inverse = 1 / (0.49 * (dimension - 2))
    assert moments.inverse_square == pytest.approx(inverse, rel=TIGHT)
    assert moments.sum_square == pytest.approx(1, rel=TIGHT)
    assert moments.sum_fourth == pytest.approx(3 * dimension / (dimension + 2), rel=TIGHT)
    assert moments.sum_square_inverse == pytest.approx(inverse, rel=TIGHT)


@pytest.mark.parametrize("mean", [-3.0, -1.2, 2.0])
def test_moments_in_one_and_two_dimensions_by_another_quadrature(mean: float) -> None:
    law = Coordinate("uniform", mean, 0.5)
    moments = direction_moments(law, 1)
    assert moments.inverse_square == pytest.approx(quad(lambda x: x**-2, mean - 0.5, mean + 0.5)[0], rel=TIGHT)
    assert moments.sum_square == pytest.approx(1, rel=TIGHT)
    pair = direction_moments(law, 2)
    span = [(mean - 0.5, mean + 0.5)] * 2
    assert pair.inverse_square == pytest.approx(nquad(lambda a, b: 1 / (a * a + b * b), span)[0], rel=1e-10)
    assert pair.sum_square == pytest.approx(nquad(lambda a, b: (a + b) ** 2 / (a * a + b * b), span)[0], rel=1e-10)
    fourth = nquad(lambda a, b: ((a + b) ** 2 / (a * a + b * b)) ** 2, span)[0]
    assert pair.sum_fourth == pytest.approx(fourth, rel=1e-10)
    inverse = nquad(lambda a, b: ((a + b) / (a * a + b * b)) ** 2, span)[0]
    assert pair.sum_square_inverse == pytest.approx(inverse, rel=1e-10)


@pytest.mark.parametrize(
    ("law", "dimension"),
    [(Coordinate("uniform", 1.0), 5), (Coordinate("uniform", 0.3, 2.0), 7), (Coordinate("normal", 1.0, 0.5), 6)],
)
def test_moments_match_simulation(law: Coordinate, dimension: int) -> None:
    rng = stream(0, "moments", dimension).rng()
    shape = (100_000, dimension)
    draws = rng.uniform(-1, 1, shape) if law.inputs == "uniform" else rng.standard_normal(shape)
    x = law.mean + law.scale * draws
    t, square = x.sum(1), (x**2).sum(1)
    moments = direction_moments(law, dimension)
    for samples, target in (
        (1 / square, moments.inverse_square),
        (t**2 / square, moments.sum_square),
        (t**4 / square**2, moments.sum_fourth),
        (t**2 / square**2, moments.sum_square_inverse),
    ):
        assert deviation(samples, target) < 4
    assert float(x.var()) == pytest.approx(law.variance, rel=0.02)


def test_means_of_either_sign_and_units() -> None:
    plus = direction_moments(Coordinate("uniform", 2.0), 6)
    minus = direction_moments(Coordinate("uniform", -2.0), 6)
    assert plus == minus
    tripled = direction_moments(Coordinate("uniform", 6.0, 3.0), 6)
    assert tripled.inverse_square == pytest.approx(plus.inverse_square / 9, rel=TIGHT)
    assert tripled.sum_fourth == pytest.approx(plus.sum_fourth, rel=TIGHT)


def test_inverse_moments_diverge_in_two_dimensions() -> None:
    for law in (Coordinate("normal"), Coordinate("uniform"), Coordinate("uniform", 1.0)):
        assert direction_moments(law, 2).inverse_square == math.inf
        assert math.isfinite(direction_moments(law, 3).inverse_square)
    assert math.isfinite(direction_moments(Coordinate("uniform", 1.01), 2).inverse_square)


def simulated(law: Coordinate, dimension: int, lengths: list[int], noise: float, batch: int) -> torch.Tensor:
    """Expected query error given the context, (w_n - w) E[x x^T] (w_n - w), of simulated passes [lengths, batch]."""
    shape = {"half_width": law.scale} if law.inputs == "uniform" else {"spectrum": [law.scale**2] * dimension}
    prompts = linear_regression(
        stream(1, "limits"),
        batch,
        dimension=dimension,
        context_length=max(lengths),
        query_length=1,
        inputs=law.inputs,
        mean=law.mean,
        noise=noise,
        **shape,
    )
    path = kaczmarz_path(prompts.x_context, prompts.y_context)[:, [n - 1 for n in lengths]]
    error = path - prompts.weights[:, None]
    return (law.variance * error.square().sum(-1) + law.mean**2 * error.sum(-1).square()).T


@pytest.mark.parametrize("noise", [0.0, 0.5])
@pytest.mark.parametrize("law", [Coordinate("uniform"), Coordinate("normal", 0.0, 0.6)])
def test_centred_error_matches_simulation(law: Coordinate, noise: float) -> None:
    lengths = [1, 5, 20, 60]
    expected = centred_kaczmarz_error(torch.tensor(lengths), law, 8, noise=noise)
    for samples, target in zip(simulated(law, 8, lengths, noise, 3000), expected.tolist(), strict=True):
        assert deviation(samples.numpy(), target) < 4


@pytest.mark.parametrize("noise", [0.0, 0.5])
@pytest.mark.parametrize("law", [Coordinate("uniform", 1.0), Coordinate("normal", -0.5, 0.6)])
def test_shifted_error_matches_simulation(law: Coordinate, noise: float) -> None:
    lengths = [1, 5, 20, 60]
    expected = shifted_kaczmarz_error(torch.tensor(lengths), law, 8, noise=noise)
    samples = simulated(law, 8, lengths, noise, 3000)
    for row, target in zip(samples, expected.tolist(), strict=True):
        assert deviation(row.numpy(), target) < 4
    # Power: without its noise, or (noise-free, as the floor hardly depends on the mean) without its mean, it misses.
    if noise:
        wrong = shifted_kaczmarz_error(torch.tensor(lengths), law, 8)
    else:
        wrong = centred_kaczmarz_error(torch.tensor(lengths), Coordinate(law.inputs, 0.0, law.scale), 8)
    assert deviation(samples[-1].numpy(), float(wrong[-1])) > 5


def test_rate_of_the_centred_error_is_told_from_a_neighbour() -> None:
    samples = simulated(Coordinate("uniform"), 8, [60], 0.0, 3000)[0].numpy()
    assert deviation(samples, 8 / 3 * (1 - 1 / 8) ** 60) < 4
    assert deviation(samples, 8 / 3 * (1 - 1 / 9) ** 60) > 5


def test_second_moment_of_one_step_by_simulation() -> None:
    """E P M P and the noise term, entry by entry, for some alpha and beta."""
    law, d = Coordinate("uniform", 1.0), 4
    step, added = second_moment_map(direction_moments(law, d), d)
    x = 1 + torch.from_numpy(stream(2).rng().uniform(-1, 1, (100_000, d)))
    square = x.square().sum(-1, keepdim=True)[..., None]
    outer = x[:, :, None] * x[:, None, :] / square
    projection = torch.eye(d, dtype=torch.float64) - outer
    before = torch.tensor([0.7, 0.3], dtype=torch.float64)
    matrix = before[0] * torch.eye(d, dtype=torch.float64) + before[1]
    after = projection @ matrix @ projection + 0.25 * outer / square
    alpha, beta = (step @ before + 0.25 * added).tolist()
    for i in range(d):
        for j in range(d):
            assert deviation(after[:, i, j].numpy(), beta + (alpha if i == j else 0.0)) < 4.5


def test_shifted_error_without_shift_is_the_centred_one() -> None:
    lengths = torch.tensor([0, 1, 7, 300])
    for noise in (0.0, 0.5):
        torch.testing.assert_close(
            shifted_kaczmarz_error(lengths, Coordinate("uniform"), 16, noise=noise),
            centred_kaczmarz_error(lengths, Coordinate("uniform"), 16, noise=noise),
            rtol=1e-12,
            atol=0,
        )


def test_published_values() -> None:
    lengths = torch.tensor([20, 40, 60, 100, 200, 300])
    errors = centred_kaczmarz_error(lengths, Coordinate("uniform"), 16)
    np.testing.assert_allclose(errors, [1.467, 0.4035, 0.1110, 8.40e-3, 1.32e-5, 2.08e-8], rtol=2e-3)
    floor = centred_kaczmarz_error(torch.tensor([10_000]), Coordinate("uniform"), 16, noise=1.0)
    assert float(floor[0]) == pytest.approx(1.057, abs=5e-4)
    normal = centred_kaczmarz_error(torch.tensor([10_000]), Coordinate("normal", 0.0, 3.0), 16, noise=1.0)
    assert float(normal[0]) == pytest.approx(16 / 14, rel=1e-12)
    # Published to four decimals, from constants estimated with two million draws.
    for mean, factor in ((0.0, 0.9375), (1.0, 0.97419), (2.0, 0.99094), (3.0, 0.99566)):
        step, _ = second_moment_map(direction_moments(Coordinate("uniform", mean), 16), 16)
        assert float(torch.linalg.eigvals(step).real.max()) == pytest.approx(factor, abs=2e-5)


def test_noise_free_errors_exist_in_two_dimensions() -> None:
    lengths = torch.tensor([0, 3])
    for error in (centred_kaczmarz_error, shifted_kaczmarz_error):
        np.testing.assert_allclose(error(lengths, Coordinate("uniform"), 2), [2 / 3, 2 / 3 / 8], rtol=1e-12)
    noisy = centred_kaczmarz_error(lengths, Coordinate("uniform"), 2, noise=0.1)
    assert noisy.tolist() == [pytest.approx(2 / 3), math.inf]


def test_errors() -> None:
    lengths = torch.tensor([1])
    with pytest.raises(LabError, match=r"mean is 1.0 but this formula needs 0"):
        centred_kaczmarz_error(lengths, Coordinate("uniform", 1.0), 4)
    with pytest.raises(LabError, match="dimension is 1 but must be at least 2"):
        shifted_kaczmarz_error(lengths, Coordinate("uniform", 1.0), 1)
    with pytest.raises(LabError, match="dimension is 0"):
        direction_moments(Coordinate("uniform"), 0)
    with pytest.raises(LabError, match="infinite"):
        shifted_kaczmarz_error(lengths, Coordinate("uniform"), 2, noise=0.1)
    with pytest.raises(LabError, match=r"scale 0"):
        Coordinate("normal", 0.0, 0.0)
