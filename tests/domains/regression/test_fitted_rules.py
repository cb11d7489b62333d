"""Greedy trees against scikit-learn, small networks against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.tree import DecisionTreeRegressor

from lab.domains.regression.fitted_rules import greedy_tree, two_layer_descent
from lab.errors import LabError
from lab.streams import stream


def problem(seed: int, examples: int, dimension: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = stream(seed, "fitted rules").rng()
    x, query = rng.standard_normal((4, examples, dimension)), rng.standard_normal((4, 20, dimension))
    return torch.from_numpy(x), torch.from_numpy(rng.standard_normal((4, examples))), torch.from_numpy(query)


# Few examples can often be split alike along several coordinates, and scikit-learn picks one at random: deep trees are judged
# by what they say about their own examples.
@pytest.mark.parametrize(("examples", "depth"), [(30, 1), (40, 1), (60, 2)])
def test_a_greedy_tree_is_that_of_another_implementation(examples: int, depth: int) -> None:
    x, y, query = problem(1, examples)
    predictions = greedy_tree(depth)(x, y, query)
    for place in range(len(x)):
        reference = DecisionTreeRegressor(max_depth=depth).fit(x[place].numpy(), y[place].numpy())
        np.testing.assert_allclose(predictions[place], reference.predict(query[place].numpy()), atol=1e-12)


@pytest.mark.parametrize("examples", [1, 2, 7])
def test_a_deep_tree_knows_its_examples(examples: int) -> None:
    x, y, _ = problem(2, examples)
    torch.testing.assert_close(greedy_tree(examples)(x, y, x), y)


def test_equal_labels_are_not_split() -> None:
    x, y, query = problem(3, 6)
    torch.testing.assert_close(greedy_tree(3)(x, torch.full_like(y, 0.3), query), torch.full((4, 20), 0.3).double())


def test_two_layer_descent_is_adam_on_each_prompt() -> None:
    x, y, query = problem(4, 6)
    source = stream(0, "weights")
    predictions = two_layer_descent(source, hidden=5, steps=7, learning_rate=0.01)(x, y, query)
    draws = {
        name: source.child(name).rng().uniform(-(size**-0.5), size**-0.5, (4, *shape))
        for name, shape, size in (
            ("first", (3, 5), 3),
            ("shift", (1, 5), 3),
            ("second", (5, 1), 5),
            ("constant", (1, 1), 5),
        )
    }
    for place in range(4):
        hidden, out = torch.nn.Linear(3, 5).double(), torch.nn.Linear(5, 1).double()
        with torch.no_grad():
            hidden.weight.copy_(torch.from_numpy(draws["first"][place].T))
            hidden.bias.copy_(torch.from_numpy(draws["shift"][place][0]))
            out.weight.copy_(torch.from_numpy(draws["second"][place].T))
            out.bias.copy_(torch.from_numpy(draws["constant"][place][0]))
        network = torch.nn.Sequential(hidden, torch.nn.ReLU(), out)
        optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
        for _ in range(7):
            optimiser.zero_grad()
            (network(x[place])[:, 0] - y[place]).square().mean().backward()
            optimiser.step()
        torch.testing.assert_close(predictions[place], network(query[place])[:, 0].detach())


def test_a_network_with_time_knows_its_examples() -> None:
    x, y, _ = problem(5, 4)
    predictions = two_layer_descent(stream(1), steps=2000)(x, y, x)
    assert float((predictions - y).abs().max()) < 1e-2


def test_without_examples_both_answer_zero() -> None:
    x, y, query = problem(6, 0)
    for rule in (greedy_tree(2), two_layer_descent(stream(0))):
        torch.testing.assert_close(rule(x, y, query), torch.zeros(4, 20).double())


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: greedy_tree(0), "depth 0 of a greedy tree must be between 1 and 12"),
        (lambda: two_layer_descent(stream(0), hidden=0), "0 units, 100 steps and the rate 0.005 must be positive"),
    ],
)
def test_bad_input(make, sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        make()
