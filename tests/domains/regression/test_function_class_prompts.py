"""Function classes: each against its definition, the shifts of the inputs, and bad input."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.domains.regression.function_class_prompts import Sizes, function_prompts, sample_functions, shifted_prompts
from lab.errors import LabError
from lab.streams import stream

SIZES = Sizes(sparsity=2, hidden=5, depth=3)


def inputs(batch: int = 4, length: int = 7, dimension: int = 5) -> np.ndarray:
    return stream(0, "test inputs").rng().standard_normal((batch, length, dimension))


@settings(deadline=None, max_examples=20, derandomize=True)
@given(st.sampled_from(("linear", "sparse", "sign")), st.integers(0, 1000))
def test_linear_classes_are_read_off_the_unit_vectors(name: str, seed: int) -> None:
    x = inputs()
    linear = "linear" if name == "sign" else name
    weights = sample_functions(stream(seed), 4, linear, 5, SIZES)(np.broadcast_to(np.eye(5), (4, 5, 5)))
    expected = np.einsum("bnd,bd->bn", x, weights)
    labels = sample_functions(stream(seed), 4, name, 5, SIZES)(x)
    np.testing.assert_allclose(labels, np.sign(expected) if name == "sign" else expected, atol=1e-12)
    if name == "sparse":
        assert ((weights != 0).sum(1) == 2).all()


def test_quadratic_functions_are_even_and_homogeneous() -> None:
    f, x = sample_functions(stream(1), 4, "quadratic", 5), inputs()
    np.testing.assert_allclose(f(-2 * x), 4 * f(x), atol=1e-12)
    squares = f(np.broadcast_to(np.eye(5), (4, 5, 5))) * math.sqrt(3)
    np.testing.assert_allclose(f(x) * math.sqrt(3), np.einsum("bnd,bd->bn", x**2, squares), atol=1e-12)


def test_networks_are_sums_of_units() -> None:
    x, source = inputs(), stream(2)
    first = source.rng().standard_normal((4, 5, 5))
    second = source.child("second").rng().standard_normal((4, 5))
    labels = sample_functions(source, 4, "relu", 5, SIZES)(x)
    for b in range(4):
        for n in range(7):
            units = [second[b, j] * max(first[b, j] @ x[b, n], 0) for j in range(5)]
            assert labels[b, n] == pytest.approx(math.sqrt(2 / 5) * sum(units), abs=1e-12)


def test_trees_are_walked_node_by_node() -> None:
    x, source = inputs(), stream(3)
    coordinates = source.rng().integers(5, size=(4, 7))
    leaves = source.child("leaves").rng().standard_normal((4, 8))
    labels = sample_functions(source, 4, "tree", 5, SIZES)(x)
    for b in range(4):
        for n in range(7):
            node = 0
            while node < 7:
                node = 2 * node + (2 if x[b, n, coordinates[b, node]] > 0 else 1)
            assert labels[b, n] == leaves[b, node - 7]


def test_noise_is_on_the_context_alone() -> None:
    clean, noisy = (
        function_prompts(stream(4), 500, function="linear", dimension=3, context_length=4, query_length=2, noise=noise)
        for noise in (0.0, 0.5)
    )
    assert torch.equal(clean.x_context, noisy.x_context)
    assert torch.equal(clean.y_query, noisy.y_query)
    assert float((noisy.y_context - clean.y_context).std()) == pytest.approx(0.5, rel=0.1)


def shifted(shift: str, **changes: float) -> object:
    sizes = {"dimension": 6, "context_length": 4, "query_length": 3} | changes
    return shifted_prompts(stream(5), 30, shift=shift, **sizes)


def test_shifts_do_what_they_say() -> None:
    plain = shifted("none")
    quadrant = shifted("quadrant").x_context.sign()
    assert torch.equal(quadrant, quadrant[:, :1].expand_as(quadrant))
    assert torch.equal(shifted("quadrant").x_query, plain.x_query)

    orthogonal = shifted("orthogonal")
    assert float((orthogonal.x_query @ orthogonal.x_context.mT).abs().max()) < 1e-10
    torch.testing.assert_close(orthogonal.x_query.norm(dim=-1), plain.x_query.norm(dim=-1))

    overlapping = shifted("overlapping")
    distances = torch.cdist(overlapping.x_query, overlapping.x_context, compute_mode="donot_use_mm_for_euclid_dist")
    assert bool((distances.min(-1).values == 0).all())

    half = shifted("half subspace", context_length=6)
    together = torch.cat([half.x_context, half.x_query], 1)
    assert bool((torch.linalg.matrix_rank(together) == 3).all())

    doubled = shifted("inputs", scale=2.0)
    torch.testing.assert_close(doubled.x_query, 2 * plain.x_query)
    torch.testing.assert_close(doubled.y_query, 2 * plain.y_query)
    labels = shifted("labels", scale=3.0)
    assert torch.equal(labels.x_context, plain.x_context)
    torch.testing.assert_close(labels.y_context, 3 * plain.y_context)


@pytest.mark.parametrize("shift", ["half subspace", "skewed"])
def test_transformed_inputs_keep_their_scale(shift: str) -> None:
    prompts = shifted_prompts(stream(6), 3000, shift=shift, dimension=6, context_length=4, query_length=1)
    assert float(prompts.x_context.square().sum(-1).mean()) == pytest.approx(6, rel=0.05)


def test_an_empty_context_is_allowed() -> None:
    prompts = function_prompts(stream(7), 3, function="tree", dimension=4, context_length=0, query_length=2)
    assert tuple(prompts.x_context.shape) == (3, 0, 4)
    assert tuple(shifted("orthogonal", context_length=0).x_query.shape) == (30, 3, 6)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"dimension": 0}, "dimension is 0 but must be at least 1"),
        ({"context_length": -1}, "context_length is -1 but must be at least 0"),
        ({"query_length": 0}, "query_length is 0"),
        ({"scale": -1.0}, "scale -1.0 must be finite"),
        ({"function": "sparse", "dimension": 2}, "3 non-zero coordinates do not fit into 2"),
        ({"shift": "orthogonal", "context_length": 6}, "No query is orthogonal to 6 examples in 6 dimensions"),
        ({"shift": "overlapping", "context_length": 0}, "cannot be one of 0 examples"),
        ({"shift": "skewed", "dimension": 1}, "needs at least 2 dimensions, not 1"),
    ],
)
def test_bad_input(changes: dict, sentence: str) -> None:
    sizes = {"shift": "none", "dimension": 6, "context_length": 4, "query_length": 3} | changes
    with pytest.raises(LabError, match=sentence):
        shifted_prompts(stream(0), 2, **sizes)


def test_sizes_are_at_least_one() -> None:
    with pytest.raises(LabError, match="depth is 0 but must be at least 1"):
        Sizes(depth=0)


def test_unknown_names_are_refused() -> None:
    # The type checker of the tests would find the unknown name first.
    with pytest.raises(LabError, match="class 'cubic' is unknown; choose one of linear"):
        inspect.unwrap(sample_functions)(stream(0), 2, "cubic", 3)
    with pytest.raises(LabError, match="shift 'sideways' is unknown; choose one of none"):
        inspect.unwrap(shifted_prompts)(stream(0), 2, shift="sideways", dimension=3, context_length=2, query_length=1)
