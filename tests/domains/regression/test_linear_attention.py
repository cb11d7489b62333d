"""Gradient descent in linear attention: explicit weights against recursions written without a network."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lab.checks import regression_predictor_checks
from lab.domains.regression.causal_recursions import causal_recursion, prefix_recursion
from lab.domains.regression.gradient_descent import gradient_descent_path
from lab.domains.regression.least_squares import predict
from lab.domains.regression.linear_attention import gradient_descent_network, label_slots, network_predictor
from lab.domains.regression.prompts import RegressionPrompts, linear_regression, tokens
from lab.errors import LabError
from lab.models.masks import in_context_causal, in_context_prefix
from lab.streams import stream

DIMENSION, CONTEXT, QUERIES, LAYERS, STEP = 3, 7, 2, 4, 0.1
# 4 layers of about 20 operations each on numbers below 100, at a stable step: below 100 * 80 * eps = 2e-12
ROUNDING = 1e-11
INITIAL = torch.tensor([0.5, -2.0, 1.0], dtype=torch.float64)
FORMS = pytest.mark.parametrize("form", ["factored", "merged"])


def prompts() -> RegressionPrompts:
    return linear_regression(
        stream(0, "construction"), 5, dimension=DIMENSION, context_length=CONTEXT, query_length=QUERIES, noise=0.3
    )


def slots(form: str, mask: Tensor, initial: Tensor | None = None) -> Tensor:
    network = gradient_descent_network(DIMENSION, LAYERS, step=STEP, initial=initial, attention_matrices=form)
    return label_slots(network, tokens(prompts()), mask)


def gap(first: Tensor, second: Tensor) -> float:
    assert first.shape == second.shape
    return float((first - second).abs().max())


@FORMS
@pytest.mark.parametrize(
    ("pattern", "recursion"), [(in_context_prefix, prefix_recursion), (in_context_causal, causal_recursion)]
)
def test_label_slots_follow_the_recursion_of_their_mask(form, pattern, recursion) -> None:  # type: ignore[no-untyped-def]
    data = prompts()
    label_slots = slots(form, pattern(CONTEXT, QUERIES))
    expected = recursion(data.x_context, data.y_context, data.x_query, step=STEP, layers=LAYERS)
    assert gap(label_slots[..., :CONTEXT], expected.context_residual) < ROUNDING
    assert gap(-label_slots[..., CONTEXT:], expected.query_prediction) < ROUNDING


@FORMS
def test_initial_weights_enter_through_the_value_matrix(form: str) -> None:
    data = prompts()
    label_slots = slots(form, in_context_prefix(CONTEXT, QUERIES), INITIAL)
    path = gradient_descent_path(data.x_context, data.y_context, step=STEP, steps=LAYERS, initial=INITIAL[None])
    moved = torch.stack([predict(weights - INITIAL, data.x_context) for weights in path])
    assert gap(label_slots[..., :CONTEXT], data.y_context - moved) < ROUNDING


def test_causal_start_at_initial_weights_is_a_start_at_zero_on_shifted_labels() -> None:
    data = prompts()
    label_slots = slots("factored", in_context_causal(CONTEXT, QUERIES), INITIAL)
    shifted = data.y_context - data.x_context @ INITIAL
    expected = causal_recursion(data.x_context, shifted, data.x_query, step=STEP, layers=LAYERS)
    assert gap(label_slots[..., :CONTEXT] - data.x_context @ INITIAL, expected.context_residual) < ROUNDING
    assert gap(-label_slots[..., CONTEXT:], expected.query_prediction) < ROUNDING


def test_inputs_pass_through_unchanged() -> None:
    network = gradient_descent_network(DIMENSION, LAYERS, step=STEP, initial=INITIAL)
    inputs = tokens(prompts())
    with torch.no_grad():
        out = network(inputs[None], in_context_prefix(CONTEXT, QUERIES))
    assert torch.equal(out[0, ..., :-1], inputs[..., :-1])


def test_no_layers_predict_the_initial_weights() -> None:
    data = prompts()
    network = gradient_descent_network(DIMENSION, 0, step=STEP, initial=INITIAL)
    predictor = network_predictor(network, in_context_prefix, INITIAL)
    assert torch.equal(predictor(data.x_context, data.y_context, data.x_query), data.x_query @ INITIAL)


@pytest.mark.parametrize("pattern", [in_context_prefix, in_context_causal])
def test_the_network_is_a_regression_predictor(pattern) -> None:  # type: ignore[no-untyped-def]
    network = gradient_descent_network(DIMENSION, 2, step=0.05, initial=INITIAL)
    for check in regression_predictor_checks(network_predictor(network, pattern, INITIAL), DIMENSION):
        check.run()


def test_bad_sizes_are_named() -> None:
    with pytest.raises(LabError, match="dimension is 0"):
        gradient_descent_network(0, 1, step=STEP)
    with pytest.raises(LabError, match=r"shape \(3,\) but inputs have dimension 4"):
        gradient_descent_network(4, 1, step=STEP, initial=INITIAL)
