"""Prompts of regression: laws of inputs and labels, independence of fields, errors in one sentence."""

from __future__ import annotations

import inspect
import math
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor

from lab.domains.regression.prompts import linear_regression, multiclass, permute_context, random_orders, tokens
from lab.errors import LabError
from lab.streams import stream

SIZES: dict[str, Any] = {"dimension": 3, "context_length": 4, "query_length": 2}
MANY: dict[str, Any] = {"dimension": 3, "context_length": 50, "query_length": 1}


def z_scores(samples: Tensor, target: Tensor) -> Tensor:
    """Standard errors between the mean over axis 0 and its target."""
    return ((samples.mean(0) - target) / (samples.std(0) / math.sqrt(len(samples)))).abs()


def test_labels_are_the_hidden_map() -> None:
    prompts = linear_regression(stream(0), 5, **SIZES)
    for x, y in ((prompts.x_context, prompts.y_context), (prompts.x_query, prompts.y_query)):
        for b in range(5):
            for j in range(x.shape[1]):
                assert float(y[b, j]) == pytest.approx(float(x[b, j] @ prompts.weights[b]), abs=1e-14)


def test_sigmoid_labels_are_centred() -> None:
    linear = linear_regression(stream(0), 5, **SIZES)
    curved = linear_regression(stream(0), 5, output="sigmoid", **SIZES)
    torch.testing.assert_close(curved.y_context, torch.sigmoid(linear.y_context) - 0.5, rtol=0, atol=1e-15)
    assert float(curved.y_query.abs().max()) < 0.5


@pytest.mark.parametrize("mean", [0.0, 2.0])
def test_uniform_inputs_have_the_law_asked_for(mean: float) -> None:
    x = linear_regression(stream(1), 400, mean=mean, half_width=0.5, **MANY).x_context.flatten(0, 1)
    assert float((x - mean).abs().max()) <= 0.5
    assert float(z_scores(x, torch.full((3,), mean)).max()) < 4.5
    assert float(z_scores((x - mean).square(), torch.full((3,), 1 / 12)).max()) < 4.5


def test_normal_inputs_have_the_spectrum_asked_for() -> None:
    spectrum = [4.0, 1.0, 0.0]
    x = linear_regression(stream(2), 400, inputs="normal", mean=1.0, spectrum=spectrum, **MANY).x_context.flatten(0, 1)
    assert bool((x[:, 2] == 1).all())
    assert float(z_scores((x - 1).square(), torch.tensor(spectrum))[:2].max()) < 4.5


def test_noise_is_on_the_context_only() -> None:
    clean = linear_regression(stream(3), 400, **MANY)
    noisy = linear_regression(stream(3), 400, noise=0.5, **MANY)
    assert torch.equal(clean.x_context, noisy.x_context)
    assert torch.equal(clean.weights, noisy.weights)
    assert torch.equal(clean.y_query, noisy.y_query)
    assert float(z_scores((noisy.y_context - clean.y_context).flatten().square(), torch.tensor(0.25))) < 4.5
    scored = linear_regression(stream(3), 400, noise=0.5, query_noise=0.5, **MANY)
    assert torch.equal(scored.y_context, noisy.y_context)
    assert not torch.equal(scored.y_query, noisy.y_query)


def test_weights_scale() -> None:
    weights = linear_regression(stream(4), 5000, weight_scale=2.0, **SIZES).weights
    assert float(z_scores(weights.square(), torch.full((3,), 4.0)).max()) < 4.5


@pytest.mark.parametrize("sample", [linear_regression, multiclass])
def test_first_prompts_do_not_depend_on_the_batch(sample: Any) -> None:
    more = {"classes": 3} if sample is multiclass else {"noise": 1.0, "query_noise": 1.0}
    few = sample(stream(5), 2, **more, **SIZES)
    many = sample(stream(5), 7, **more, **SIZES)
    for field in fields(few):
        assert torch.equal(getattr(many, field.name)[:2], getattr(few, field.name))


def test_more_queries_leave_the_context_alone() -> None:
    few = linear_regression(stream(6), 4, noise=1.0, **SIZES)
    many = linear_regression(stream(6), 4, noise=1.0, **{**SIZES, "query_length": 9})
    assert torch.equal(few.x_context, many.x_context)
    assert torch.equal(few.y_context, many.y_context)


def test_classes_are_the_largest_score() -> None:
    prompts = multiclass(stream(7), 30, classes=3, **SIZES)
    scores = torch.einsum("bnd,bcd->bnc", prompts.x_context, prompts.weights)
    assert bool((prompts.y_context.sum(-1) == 1).all())
    assert torch.equal((scores * prompts.y_context).sum(-1), scores.amax(-1))


def test_precision() -> None:
    single = linear_regression(stream(8), 3, noise=1.0, dtype=torch.float32, **SIZES)
    double = linear_regression(stream(8), 3, noise=1.0, **SIZES)
    for field in fields(single):
        assert torch.equal(getattr(single, field.name), getattr(double, field.name).float())


def test_permuting_moves_pairs_together() -> None:
    prompts = linear_regression(stream(9), 3, **SIZES)
    order = torch.tensor([2, 0, 3, 1])
    moved = permute_context(prompts, order)
    for place, source in enumerate(order.tolist()):
        assert torch.equal(moved.x_context[:, place], prompts.x_context[:, source])
        assert torch.equal(moved.y_context[:, place], prompts.y_context[:, source])
    assert torch.equal(moved.x_query, prompts.x_query)
    classes = multiclass(stream(9), 3, classes=2, **SIZES)
    assert torch.equal(permute_context(classes, order).y_context, classes.y_context[:, order])
    with pytest.raises(LabError, match="no permutation"):
        permute_context(prompts, torch.tensor([0, 0, 1, 2]))
    with pytest.raises(LabError, match="no permutation"):
        permute_context(prompts, torch.tensor([0, 1]))


def test_random_orders_are_permutations() -> None:
    orders = random_orders(stream(10), 200, 4)
    assert torch.equal(orders.sort(dim=1).values, torch.arange(4).expand(200, 4))
    assert torch.equal(random_orders(stream(10), 3, 4), orders[:3])
    firsts = torch.bincount(orders[:, 0], minlength=4)
    # 50 expected each, standard deviation 6.1.
    assert int(firsts.min()) > 20
    assert int(firsts.max()) < 80


def test_tokens_are_pairs_then_queries_without_label() -> None:
    prompts = linear_regression(stream(11), 2, **SIZES)
    z = tokens(prompts)
    assert z.shape == (2, 6, 4)
    assert torch.equal(z[:, :4, :3], prompts.x_context)
    assert torch.equal(z[:, :4, 3], prompts.y_context)
    assert torch.equal(z[:, 4:, :3], prompts.x_query)
    assert bool((z[:, 4:, 3] == 0).all())
    classes = multiclass(stream(11), 2, classes=3, **SIZES)
    z = tokens(classes)
    assert z.shape == (2, 6, 6)
    assert torch.equal(z[:, :4, 3:], classes.y_context)
    assert bool((z[:, 4:, 3:] == 0).all())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"context_length": 0}, ["context_length", "0", "at least 1"]),
        ({"dimension": 0}, ["dimension", "0", "at least 1"]),
        ({"query_length": 0}, ["query_length", "at least 1"]),
        ({"batch": 0}, ["batch", "at least 1"]),
        ({"inputs": "cauchy"}, ["cauchy", "uniform, normal"]),
        ({"output": "cubic"}, ["cubic", "linear, sigmoid"]),
        ({"noise": -1.0}, ["noise", "-1.0", "at least 0"]),
        ({"weight_scale": math.inf}, ["weight_scale", "inf"]),
        ({"mean": math.nan}, ["mean", "nan", "finite"]),
        ({"half_width": 0.0}, ["half_width", "above 0"]),
        ({"spectrum": [1.0, 1.0, 1.0]}, ["spectrum", "normal"]),
        ({"inputs": "normal", "spectrum": [1.0]}, ["1 eigenvalues", "dimension 3"]),
        ({"inputs": "normal", "spectrum": [1.0, -1.0, 1.0]}, ["eigenvalue 1", "-1.0"]),
        ({"inputs": "normal", "half_width": 2.0}, ["half_width", "2.0", "spectrum"]),
    ],
)
def test_errors_name_value_limit_and_remedy(change: dict[str, Any], words: list[str]) -> None:
    # Unknown names are what a command line passes; the type checker of the suite would stop them first.
    function = inspect.unwrap(linear_regression)
    arguments = {"batch": 2, **SIZES, **change}
    with pytest.raises(LabError) as caught:
        function(stream(0), arguments.pop("batch"), **arguments)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_one_class_is_refused() -> None:
    with pytest.raises(LabError, match="1 classes but at least 2"):
        multiclass(stream(0), 2, classes=1, **SIZES)
