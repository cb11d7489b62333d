from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.domains.graphs import path_star as theory
from lab.domains.graphs.path_star_prompts import path_star, vocabulary_size, write
from lab.errors import LabError
from lab.evaluation import accuracy, cross_entropy
from lab.streams import stream

SIZES = st.tuples(st.integers(1, 4), st.integers(2, 5), st.integers(0, 2))


@settings(deadline=None, max_examples=12, derandomize=True)
@given(size=SIZES)
def test_the_cheat_has_the_loss_and_the_accuracy_claimed(size: tuple[int, int, int]) -> None:
    arms, length, spare = size
    labels = arms * (length - 1) + 1 + spare
    graphs = path_star(stream(0, "x", *size), 5, arms=arms, length=length, labels=labels)
    written = write(graphs, labels, format="compact")
    predict = theory.cheat(vocabulary=vocabulary_size(labels, "compact"))
    loss = cross_entropy(predict(written.tokens, written.prefix_length), written.tokens)[:, 1 - length :]
    expected = torch.full((5,), theory.cheat_loss(arms, length), dtype=torch.float64)
    torch.testing.assert_close(loss.mean(1), expected)
    each = theory.teacher_forced_accuracy(arms, length)
    torch.testing.assert_close((-loss).exp(), each.expand(5, -1))
    assert theory.cheat_loss(arms, length, copied_start=True) == pytest.approx(math.log(arms) / length)


@settings(deadline=None, max_examples=12, derandomize=True)
@given(size=SIZES)
def test_the_planner_and_the_reversed_look_up_are_always_right(size: tuple[int, int, int]) -> None:
    arms, length, spare = size
    labels = arms * (length - 1) + 1 + spare
    vocabulary = vocabulary_size(labels, "compact")
    graphs = path_star(stream(0, "x", *size), 5, arms=arms, length=length, labels=labels)
    for order, predict in (
        ("forward", theory.planner(vocabulary=vocabulary, path_nodes=length)),
        ("reversed", theory.cheat(vocabulary=vocabulary, order="reversed")),
    ):
        written = write(graphs, labels, format="compact", order=order)
        log_p = predict(written.tokens, written.prefix_length)
        assert bool((accuracy(log_p, written.tokens)[:, 1 - length :] == 1).all())
        assert float(cross_entropy(log_p, written.tokens)[:, 1 - length :].max()) == 0.0


def test_walking_back_follows_the_arm() -> None:
    graphs = path_star(stream(0, "x"), 20, arms=3, length=5, labels=15)
    for hops in range(5):
        nodes = theory.walk_back(graphs.edges, graphs.path[:, -1], 15, hops)
        assert torch.equal(nodes, graphs.path[:, 4 - hops])


def test_a_leaf_has_no_children_and_gets_the_uniform_law() -> None:
    graphs = path_star(stream(0, "x"), 3, arms=2, length=3, labels=8)
    law = theory.next_nodes(graphs.edges, graphs.path[:, -1:], 8)
    torch.testing.assert_close(law, torch.full_like(law, 1 / 8))


def test_snowball_numbers() -> None:
    error, steps = torch.tensor(0.05).double(), torch.tensor(20)
    assert float(theory.snowball(error, steps)) == pytest.approx(0.95**20)
    spread = theory.cheat_as_snowball(torch.tensor([2, 5, 7]), torch.tensor([5, 5, 2]))
    torch.testing.assert_close(spread, torch.tensor([0.875**4, 0.8**4, 1 / 7]).double())


@settings(deadline=None, max_examples=20, derandomize=True)
@given(arms=st.integers(1, 4), length=st.integers(2, 6))
def test_marginals_mix_arms_as_the_closed_form_says(arms: int, length: int) -> None:
    labels = arms * (length - 1) + 1
    graphs = path_star(stream(0, "x", arms, length), 4, arms=arms, length=length, labels=labels)
    law = theory.step_marginals(graphs.arms, labels)
    torch.testing.assert_close(law.sum(-1), torch.ones(4, length - 1, dtype=torch.float64))
    total = torch.zeros(4, dtype=torch.float64)
    for arm in range(arms):
        total += law.gather(-1, graphs.arms[:, arm, 1:].unsqueeze(-1)).squeeze(-1).prod(-1)
    expected = torch.full((4,), theory.one_pass_true_arm(arms, length), dtype=torch.float64)
    torch.testing.assert_close(total, expected)


@pytest.mark.parametrize(("arms", "length"), [(2, 3), (2, 5), (3, 4), (4, 3)])
def test_fewer_edges_than_levels_tell_nothing(arms: int, length: int) -> None:
    for read in range(min(length, arms * (length - 2)) + 1):
        credit = theory.counted_credit(arms, length, read)
        assert credit == theory.largest_credit(arms, length, read)
    assert theory.largest_credit(arms, length, length - 3) == 0
    assert theory.largest_credit(arms, length, length - 2) == 1 - 1 / arms


def test_credit_of_two_arms_beside_a_plain_count() -> None:
    # d = 2, l = 4: a and b lead to x or y, one of which leads to the goal and the other to z.
    graphs = []
    for top in ("a", "b"):
        for middle, other, leaf in itertools.permutations("xyz"):
            rest = "b" if top == "a" else "a"
            graphs.append((top, {top + middle, middle + "G", rest + other, other + leaf}))
    assert len(graphs) == 12
    agreeing = [top for top, edges in graphs if "ax" in edges]
    assert agreeing.count("a") == agreeing.count("b")
    assert {top for top, edges in graphs if {"ax", "xG"} <= edges} == {"a"}


def test_errors_on_top_of_a_certain_answer() -> None:
    graphs = path_star(stream(0, "x"), 3, arms=2, length=3, labels=6)
    sequences = write(graphs, 6, format="compact")
    planner = theory.planner(vocabulary=43, path_nodes=3)
    law = theory.with_errors(planner, 6, 0.3)(sequences.tokens, sequences.prefix_length).exp()
    torch.testing.assert_close(law.sum(-1), torch.ones_like(law[..., 0]))
    start = int(sequences.prefix_length[0]) - 1
    right = law[:, start].gather(1, graphs.path[:, 1:2])
    torch.testing.assert_close(right, torch.full_like(right, 0.7))
    assert float(law[:, start].topk(2).values[:, 1].max()) == pytest.approx(0.3 / 5)


def test_nodes_drawn_one_by_one_are_a_true_arm() -> None:
    assert theory.one_pass_true_arm(3, 5, 1) == 1
    assert theory.one_pass_true_arm(3, 5, 4) == theory.one_pass_true_arm(3, 5) == pytest.approx(3.0**-3)
    with pytest.raises(LabError, match="between 1 and 4"):
        theory.one_pass_true_arm(3, 5, 5)
    with pytest.raises(LabError, match="no question about the first step"):
        theory.largest_credit(2, 2, 0)
    with pytest.raises(LabError, match="between 0 and 1"):
        theory.with_errors(theory.cheat(vocabulary=43), 6, 1.5)


def test_bad_input_is_refused_in_one_sentence() -> None:
    with pytest.raises(LabError, match="N \\+ 1 \\+ N\\^2 tokens"):
        theory.cheat(vocabulary=44)
    with pytest.raises(LabError, match="at least 1 arm of 2 nodes"):
        theory.planner(vocabulary=43, path_nodes=1)
    with pytest.raises(LabError, match="at least 1 arm of 2 nodes"):
        theory.cheat_loss(0, 4)
    predict = theory.cheat(vocabulary=43)
    with pytest.raises(LabError, match="run from 0 to 43 but the vocabulary ends at 42"):
        predict(torch.tensor([[0, 43, 1]]), torch.tensor([2]))
