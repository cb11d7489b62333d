"""Random graphs, the laws of sampled paths, and the token layouts."""

from __future__ import annotations

import inspect
from typing import Any, get_args

import networkx as nx
import numpy as np
import pytest
import torch

from lab.checks import checks, generator_checks
from lab.contracts import registered
from lab.domains.graphs import navigation as exact
from lab.domains.graphs import navigation_prompts as graphs
from lab.errors import LabError
from lab.streams import stream


def world(seed: int = 0, nodes: int = 14) -> exact.Adjacency:
    return graphs.bernoulli_dag(stream(seed, "graph"), 1, nodes, 0.35).adjacency[0]


def connected(adjacency: exact.Adjacency) -> exact.Adjacency:
    return exact.transitive_closure(adjacency)


@pytest.mark.parametrize("check", [c for r in registered(graphs) for c in checks(r)], ids=lambda c: c.name)
def test_contracts(check: Any) -> None:
    check.run()


@pytest.mark.parametrize("layout", get_args(graphs.Layout))
def test_contracts_of_every_layout(layout: graphs.Layout) -> None:
    adjacency = world()
    positive = connected(adjacency)
    negative = None if layout == "path" else ~positive & torch.ones_like(positive).triu(1)
    sizes = {"adjacency": adjacency, "positive": positive, "negative": negative, "layout": layout}
    for check in generator_checks(graphs.navigation, **sizes, suffixes=layout == "direct"):
        check.run()


def test_graphs_are_acyclic_with_the_edges_asked_for() -> None:
    thick = graphs.hierarchical_dag(stream(0), 500, 4, 5, 0.3)
    assert bool((thick.layer[:, None, :] - thick.layer[:, :, None] == 1)[thick.adjacency].all())
    assert thick.adjacency.sum((1, 2)).double().mean() == pytest.approx(3 * 25 * 0.3, rel=0.02)
    thin = graphs.bernoulli_dag(stream(0), 500, 12, 0.3).adjacency
    assert thin.sum((1, 2)).double().mean() == pytest.approx(66 * 0.3, rel=0.02)
    assert nx.is_directed_acyclic_graph(nx.from_numpy_array(thin[0].numpy(), create_using=nx.DiGraph))


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(LabError, match="between 0 and 1"):
        graphs.bernoulli_dag(stream(0), 1, 5, 1.2)
    with pytest.raises(LabError, match="at least 1"):
        graphs.hierarchical_dag(stream(0), 1, 0, 5, 0.2)
    with pytest.raises(LabError, match="longer|shorten"):
        graphs.sample_chains(stream(0), 1, 9, torch.zeros(4, 4, dtype=torch.bool))
    with pytest.raises(LabError, match="raise the probability"):
        graphs.sample_motifs(stream(0), 2, 0.0)
    with pytest.raises(LabError, match="4 motifs"):
        graphs.conflicting_chains(stream(0), 1, graphs.sample_motifs(stream(0), 3, 0.75))


def test_pairs_are_split_without_overlap_and_negatives_are_not_trivial() -> None:
    drawn = graphs.hierarchical_dag(stream(1), 1, 6, 6, 0.3)
    adjacency, layer = drawn.adjacency[0], drawn.layer[0]
    pairs = graphs.split_pairs(stream(1, "split"), adjacency, layer, 0.3)
    assert not bool((pairs.training_positive & pairs.held_out_positive).any())
    assert torch.equal(pairs.training_positive | pairs.held_out_positive, connected(adjacency))
    negative = pairs.training_negative | pairs.held_out_negative
    assert bool((layer[:, None] < layer)[negative].all())
    assert not bool((negative & connected(adjacency)).any())
    number = int(connected(adjacency).sum())
    assert int(pairs.training_positive.sum()) == round(0.3 * number)
    near = graphs.split_by_distance(adjacency, layer, 2)
    apart = layer - layer[:, None]
    assert int(apart[near.training_positive].max()) == 2
    assert int(apart[near.held_out_positive].min()) == 3
    with pytest.raises(LabError, match="leaves"):
        graphs.split_pairs(stream(1), adjacency, layer, 0.0)
    with pytest.raises(LabError, match="leaves no pairs"):
        graphs.split_by_distance(adjacency, layer, 6)


@pytest.mark.parametrize("walk", [False, True])
def test_sampled_paths_follow_their_law(walk: bool) -> None:
    adjacency = world(2)
    counts = exact.path_counts(adjacency)
    start, goal = divmod(int(counts.argmax()), len(adjacency))
    policy = exact.conditioned_walk_policy(adjacency) if walk else exact.uniform_path_policy(adjacency)
    draws = 8000
    starts, goals = torch.full((draws,), start), torch.full((draws,), goal)
    sampled = graphs.sample_walks(stream(2), policy, starts, goals, exact.longest_path(adjacency))
    paths = {tuple(node for node in row if node >= 0) for row in sampled.unique(dim=0).tolist()}
    graph = nx.from_numpy_array(adjacency.numpy(), create_using=nx.DiGraph)
    every = [tuple(path) for path in nx.all_simple_paths(graph, start, goal)]
    assert paths <= set(every)
    rows = [tuple(node for node in row if node >= 0) for row in sampled.tolist()]
    chances = np.array([np.prod([float(policy[goal, u, v]) for u, v in zip(p, p[1:], strict=False)]) for p in every])
    assert chances.sum() == pytest.approx(1)
    observed = np.array([rows.count(path) for path in every])
    statistic = ((observed - draws * chances) ** 2 / (draws * chances)).sum()
    assert statistic < len(every) + 6 * (2 * len(every)) ** 0.5


def test_start_and_goal_must_be_nodes() -> None:
    adjacency = world()
    policy = exact.uniform_path_policy(adjacency)
    inside, outside = torch.tensor([0]), torch.tensor([len(adjacency)])
    with pytest.raises(LabError, match="The goal 14 is not a node"):
        graphs.sample_walks(stream(0), policy, inside, outside, 3)
    with pytest.raises(LabError, match="The start -1 is not a node"):
        graphs.sample_walks(stream(0), policy, torch.tensor([-1]), inside, 3)


def test_a_pair_without_a_path_is_answered_with_none() -> None:
    adjacency = torch.zeros(4, 4, dtype=torch.bool)
    adjacency[0, 1] = adjacency[2, 3] = True
    pair = torch.zeros_like(adjacency)
    pair[0, 3] = True
    words = graphs.Vocabulary(4)
    drawn = graphs.navigation(stream(0), 2, adjacency, adjacency, pair)
    astray = drawn.tokens[1]  # every second question has no path
    assert astray.tolist() == [words.goal, 3, words.start, 0, 1, words.unconnected, words.end]
    direct = graphs.navigation(stream(0), 2, adjacency, adjacency, pair, layout="direct")
    assert direct.tokens[1].tolist() == [words.goal, 3, words.start, 0, words.unconnected, words.end]
    # The graph decides, not the table that the pair stands in.
    mistaken = graphs.navigation(stream(0), 2, adjacency, pair)
    assert mistaken.tokens[0].tolist() == astray.tolist()
    assert not bool(mistaken.connected.any())
    with pytest.raises(LabError, match="No path leads from node 0 to node 3"):
        graphs.navigation(stream(0), 2, adjacency, pair, layout="path")


def test_a_graph_with_a_cycle_is_refused() -> None:
    cycle = torch.tensor([[0, 1], [1, 0]], dtype=torch.bool)
    with pytest.raises(LabError, match="lies on a cycle"):
        graphs.navigation(stream(0), 2, cycle, cycle)


def test_walks_end_in_dead_ends_and_never_leave_the_edges() -> None:
    adjacency = world(9, 20)
    nodes = len(adjacency)
    starts = torch.arange(nodes).repeat(30)
    aimless = exact.uniform_walk(adjacency).unsqueeze(0)
    walks = graphs.sample_walks(stream(9), aimless, starts, starts, nodes)
    before, after = walks[:, :-1], walks[:, 1:]
    moved = after >= 0
    assert bool(adjacency[before.clamp(min=0), after.clamp(min=0)][moved].all())
    last = walks.gather(1, ((walks >= 0).sum(1) - 1).unsqueeze(1)).squeeze(1)
    assert not bool(adjacency[last].any())
    sinks = ~adjacency.any(1)
    assert bool((walks[sinks[starts], 1:] == -1).all())
    degree = int(adjacency[0].sum())
    drawn = graphs.sample_walks(stream(10), aimless, torch.zeros(6000).long(), torch.zeros(6000).long(), 1)
    share = torch.bincount(drawn[:, 1], minlength=nodes)[adjacency[0]] / 6000
    assert float((share - 1 / degree).abs().max()) < 5 * (1 / degree / 6000) ** 0.5


def test_layouts_say_what_they_should() -> None:
    adjacency = world(3)
    words = graphs.Vocabulary(len(adjacency))
    positive = connected(adjacency)
    path = graphs.navigation(stream(3), 50, adjacency, positive, layout="path")
    edges, arrived = graphs.path_outcome(adjacency, path.start, path.goal, path.tokens[:, 2:], words.end)
    assert bool((edges & arrived).all())
    assert torch.equal(path.tokens[:, 0], path.goal)
    assert torch.equal(path.tokens[:, 1], path.start)
    full = graphs.navigation(stream(3), 50, adjacency, positive)
    assert torch.equal(full.goal, path.goal)
    assert bool((full.tokens[full.loss_mask.roll(1, 1)] != words.pad).all())
    filler = graphs.navigation(stream(3), 5, adjacency, positive, layout="filler")
    assert int(filler.loss_mask.sum(1).unique()) == 2
    assert int((filler.tokens == words.filler).sum(1).unique()) == graphs.FILLERS
    # The type checker of the tests would find the unknown name first.
    write = inspect.unwrap(graphs.write_sequences)
    with pytest.raises(LabError, match="unknown"):
        write("poem", words, full.tokens[:, 3:4], full.goal, full.connected)


def test_suffix_questions_are_about_nodes_of_the_path() -> None:
    adjacency = world(4)
    positive = connected(adjacency)
    complete = graphs.navigation(stream(4), 200, adjacency, positive, layout="path")
    part = graphs.navigation(stream(4), 200, adjacency, positive, layout="path", suffixes=True)
    for row, rest, mask in zip(complete.tokens.tolist(), part.tokens.tolist(), part.loss_mask, strict=True):
        length = int(mask.sum()) + 2
        assert row[0] == rest[0]
        suffix = rest[1:length]
        assert suffix == row[1:][-len(row) + 1 :][row[1:].index(suffix[0]) :][: len(suffix)]
    starts = (part.start != complete.start).double().mean()
    assert 0.1 < float(starts) < 0.9


def test_path_outcome_tells_missteps_from_planning_failures() -> None:
    adjacency = torch.zeros(4, 4, dtype=torch.bool)
    adjacency[0, 1] = adjacency[1, 2] = adjacency[1, 3] = True
    end = graphs.Vocabulary(4).end
    start, goal = torch.zeros(5, dtype=torch.int64), torch.full((5,), 2)
    written = torch.tensor([[1, 2, end], [1, 3, end], [2, end, end], [1, 2, 2], [end, end, end]])
    edges, arrived = graphs.path_outcome(adjacency, start, goal, written, end)
    assert edges.tolist() == [True, True, False, False, True]
    assert arrived.tolist() == [True, False, True, False, False]
    ghosts = torch.tensor([[[0, 2]]]).expand(5, 1, 2)
    edges, _ = graphs.path_outcome(adjacency, start, goal, written, end, ghosts)
    assert edges.tolist() == [True, True, True, False, True]


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("held_out", [False, True])
def test_chains_of_motifs(shuffled: bool, held_out: bool) -> None:
    motifs = graphs.sample_motifs(stream(5), 6, 0.75)
    reserved = graphs.reserve_orders(stream(5), 6, 4)
    assert int(reserved.sum()) == 4
    assert not bool(reserved.diagonal().any())
    chains = graphs.motif_chains(stream(5), 100, motifs, 4, reserved, held_out, shuffled)
    words = graphs.Vocabulary(len(motifs))
    prefix = int(chains.prefix_length[0])
    assert chains.tokens.shape == (100, 10 * 4 - 3)
    edges, arrived = graphs.path_outcome(
        motifs, chains.tokens[:, prefix - 1], chains.goal, chains.tokens[:, prefix:], words.end, chains.ghosts
    )
    assert bool((edges & arrived).all())
    visited = chains.tokens[:, prefix - 1 : -1 : 3] // graphs.MOTIF
    assert torch.equal(reserved[visited[:, :-1], visited[:, 1:]].any(1), torch.full((100,), held_out))
    exemplars = chains.tokens[:, : 3 * graphs.EXEMPLAR].unflatten(1, (3, graphs.EXEMPLAR))
    assert bool((exemplars[..., -1] == words.separator).all())
    shown = exemplars[..., 2:4]
    in_order = (shown == chains.ghosts).all(-1).all(-1)
    assert bool(in_order.all()) != shuffled
    assert {tuple(pair) for pair in shown[0].tolist()} == {tuple(pair) for pair in chains.ghosts[0].tolist()}
    inside = (exemplars[..., 0], exemplars[..., 1]), (exemplars[..., 1], exemplars[..., 2])
    assert all(bool(motifs[u, v].all()) for u, v in inside)


def test_every_source_of_a_motif_reaches_every_sink() -> None:
    motifs = graphs.sample_motifs(stream(6), 30, 0.6)
    reach = connected(motifs).unflatten(0, (30, 6)).unflatten(2, (30, 6))
    within = reach[torch.arange(30), :, torch.arange(30)]
    assert bool(within[:, :2, 4:].all())
    assert int(connected(motifs).sum()) == int(within.sum())


def test_conflicting_chains_share_their_ends() -> None:
    motifs = graphs.sample_motifs(stream(7), 6, 0.75)
    drawn = graphs.conflicting_chains(stream(7), 50, motifs)
    tail, head = (drawn.ghosts // graphs.MOTIF).unbind(-1)
    assert torch.equal(tail[:, 0], tail[:, 2])
    assert torch.equal(head[:, 1], head[:, 3])
    assert bool((head[:, 0] != head[:, 2]).all())
    assert torch.equal(drawn.goal // graphs.MOTIF, head[:, 1])
    assert int(drawn.prefix_length[0]) == 4 * graphs.EXEMPLAR + 4
