from __future__ import annotations

import math

import pytest
import torch
from numpy.polynomial import laguerre as numpy_laguerre

from lab.domains.regression.deep_causal_laws import (
    block_kaczmarz,
    block_kaczmarz_error,
    block_kaczmarz_weights,
    cosine_product,
    critical_noise,
    kaczmarz_error_of_moments,
    laguerre,
    long_context_error,
    mean_risks,
    normalised_crossing,
    normalised_kaczmarz_error,
    turning_inputs,
    typical_rate,
)
from lab.domains.regression.kaczmarz import kaczmarz_weights, normalised_kaczmarz_path
from lab.domains.regression.least_squares import least_squares_weights
from lab.domains.regression.online_limits import Coordinate, direction_moments, shifted_kaczmarz_error
from lab.domains.regression.prompts import linear_regression
from lab.errors import LabError
from lab.statistics import deviation
from lab.streams import stream


def test_laguerre_polynomials_are_numpys() -> None:
    points = torch.tensor([0.0, 0.4, 3.0], dtype=torch.float64)
    polynomials = laguerre(12, points)
    for degree in range(13):
        expected = numpy_laguerre.lagval(points.numpy(), [0] * degree + [1])
        torch.testing.assert_close(polynomials[degree], torch.from_numpy(expected), rtol=1e-11, atol=1e-13)
    assert laguerre(0, points).shape == (1, 3)
    with pytest.raises(LabError, match="degree is -1"):
        laguerre(-1, points)


def test_long_contexts_published_values() -> None:
    spectrum = torch.full((16,), 1 / 3, dtype=torch.float64)
    errors = long_context_error(50, spectrum, 1.6)[[0, 1, 2, 5, 10, 20, 50]].tolist()
    assert errors == pytest.approx([16 / 3, 1.162, 0.030, 1.233, 0.630, 0.688, 0.545], rel=2e-2)
    prefix = long_context_error(50, spectrum, 1.6, pattern="prefix")
    assert float(prefix[50]) == pytest.approx(16 / 3 * (1 - 1.6 / 3) ** 100, rel=1e-10)


@pytest.mark.parametrize("mean", [0.0, 1.0])
@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_division_by_the_visible_length_matches_simulation(mean: float, noise: float) -> None:
    lengths = [1, 5, 20, 60]
    prompts = linear_regression(
        stream(1, "divided"), 3000, dimension=8, context_length=60, query_length=1, mean=mean, noise=noise
    )
    path = normalised_kaczmarz_path(prompts.x_context, prompts.y_context)[:, [n - 1 for n in lengths]]
    error = path - prompts.weights[:, None]
    samples = error.square().sum(-1) / 3 + mean**2 * error.sum(-1).square()
    expected = normalised_kaczmarz_error(torch.tensor(lengths), Coordinate("uniform", mean), 8, noise=noise)
    for row, law in zip(samples.T, expected.tolist(), strict=True):
        assert deviation(row.numpy(), law) < 4


def test_moments_and_coordinates_give_one_law() -> None:
    lengths, coordinate = torch.tensor([1, 7, 90]), Coordinate("uniform", 1.0)
    moments = direction_moments(coordinate, 6)
    errors = kaczmarz_error_of_moments(lengths, moments, coordinate.variance, coordinate.mean, 6, noise=0.3)
    torch.testing.assert_close(errors, shifted_kaczmarz_error(lengths, coordinate, 6, noise=0.3), rtol=1e-12, atol=0)


def test_crossings_published_values() -> None:
    inverse = direction_moments(Coordinate("uniform"), 16).inverse_square
    crossings = [math.ceil(normalised_crossing(noise, inverse, 16)) for noise in (0.1, 0.25, 0.5)]
    assert crossings == [7839, 1268, 329]
    with pytest.raises(LabError, match="noise is 0"):
        normalised_crossing(0.0, inverse, 16)


def test_products_of_cosines() -> None:
    assert cosine_product() == pytest.approx(math.prod(math.cos(1 / j) for j in range(1, 10**5)) * (1 - 5e-6), rel=1e-9)
    assert cosine_product(50) == pytest.approx(cosine_product() / math.prod(math.cos(1 / j) for j in range(1, 50)))
    x = turning_inputs(4)
    assert x.shape == (1, 4, 2)
    assert float(x[0, 1] @ x[0, 2]) == pytest.approx(math.cos(1 / 2))


def test_critical_noise_is_where_risks_meet() -> None:
    for n in (4, 10, 13, 20, 26, 32):
        noise = critical_noise(n, 16)
        least, one_pass = mean_risks(n, 16, noise=noise)
        assert least == pytest.approx(one_pass, rel=1e-10)
    assert [round(critical_noise(n, 16), 2) for n in (14, 18, 20, 26)] == [0.58, 0.57, 0.99, 1.88]
    assert critical_noise(16, 16) == 0
    assert critical_noise(33, 16) == math.inf
    assert mean_risks(16, 16, noise=0.1)[0] == math.inf
    assert mean_risks(16, 16, noise=0.0)[0] == 0


def test_typical_rates_published_values() -> None:
    assert [typical_rate(d) for d in (4, 8, 16)] == pytest.approx([-0.38629, -0.15296, -0.06888], abs=1e-5)
    with pytest.raises(LabError, match="dimension is 1"):
        typical_rate(1)


def test_blocks_are_between_one_pass_and_least_squares() -> None:
    prompts = linear_regression(stream(2), 2000, dimension=6, context_length=8, query_length=1, noise=0.0)
    x, y = prompts.x_context, prompts.y_context
    torch.testing.assert_close(block_kaczmarz_weights(x, y, 1), kaczmarz_weights(x, y), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(block_kaczmarz_weights(x, y, 8), least_squares_weights(x, y), rtol=1e-6, atol=1e-8)
    for block in (2, 4):
        error = (block_kaczmarz_weights(x, y, block) - prompts.weights).square().sum(-1) / 3
        assert deviation(error.numpy(), block_kaczmarz_error(8, block, 6, 1 / 3)) < 4
    assert block_kaczmarz(3)(x, y, prompts.x_query).shape == (2000, 1)
    with pytest.raises(LabError, match="no multiple of the block 3"):
        block_kaczmarz_error(8, 3, 6, 1 / 3)
    with pytest.raises(LabError, match="block has 0"):
        block_kaczmarz_weights(x, y, 0)
