# ---
# jupyter:
#   jupytext:
#     comment_magics: false
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Two more depths: what a graph connects, and products along a sequence
#
# *Reachability.* Let attention be uniform over a node's neighbours and itself, and follow it by $\min(1, n \cdot
# \text{mean})$, a clipped
# ReLU: a node is marked iff one of them was. Each step marks one layer of a breadth-first search. The fixed point is the component
# of the source, and nothing moves after eccentricity + 1 steps. A network of L layers answers "connected?" wrongly exactly on the
# pairs at a distance above L. Without the edge to itself a node forgets its mark, and on a path, which is bipartite,
# marks jump to and
# fro for ever.
#
# *Products.* Prefix products $g_1 \cdots g_i$ in the group of permutations of five letters, which no network of
# constant depth and bounded
# precision is believed to compute, take n - 1 steps if each token multiplies by what its neighbour holds, and
# $\lceil \log_2 n \rceil$ if values evolve
# and the way doubles.


# %%
from __future__ import annotations

import torch

from lab import Evidence, Task, control
from lab.domains.attention.iterated_sums import (
    compose,
    distances,
    products_by_doubling,
    products_in_turn,
    random_graph,
    spread,
)
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.results import Results
from lab.streams import stream

PROOFS = Task("fixed-point-transformers", paper="mathur-2025-fixed-point")
GRAPHS, NODES = 100, 40
CHANCES = (0.03, 0.05, 0.08)
LAYERS = tuple(range(1, 13))


@PROOFS.cases(claimed={}, forgetful={"loops": False}, late={"shift": 1})
def searches(config: object, *, loops: bool = True, shift: int = 0) -> LabelledArrays:
    """Graphs that are marked otherwise than breadth-first search says at some step, or rest at another step than the law's."""
    marked, rested, layers = [], [], []
    for chance in CHANCES:
        graph = random_graph(stream(0, "graphs", round(100 * chance)), GRAPHS, NODES, chance)
        distance = distances(graph)
        marks = torch.zeros(GRAPHS, NODES, dtype=torch.float64)
        marks[:, 0] = 1
        wrong, rest = torch.zeros(GRAPHS, dtype=torch.bool), torch.zeros(GRAPHS, dtype=torch.int64)
        shares = []
        for step in range(1, NODES + 2):
            after = spread(marks, graph, loops)
            rest = torch.where((after == marks).all(1) & (rest == 0), step, rest)
            marks = after
            near = (distance >= 0) & (distance <= step - shift)
            wrong |= (marks != near).any(1)
            shares.append(float(((marks > 0) == (distance >= 0)).double().mean()))
        marked.append(int(wrong.sum()))
        rested.append(int((rest != distance.amax(1) + 1).sum()))
        layers.append(shares[: len(LAYERS)])
    return {
        "marked": labelled(marked, chance=CHANCES),
        "rested": labelled(rested, chance=CHANCES),
        "accuracy": labelled(layers, chance=CHANCES, layers=LAYERS),
    }


@PROOFS.claim(
    "fixed-point-transformers/C3",
    where="derived",
    kind="construction",
    statement="Iterated uniform attention over neighbours and itself with a clipped ReLU is breadth-first "
    "search: after k steps exactly the nodes "
    "within distance k are marked, and nothing moves after eccentricity + 1 steps (300 random graphs of 40 nodes).",
    controls=[
        control("without the edge to itself", case="forgetful"),
        control("the search of one step less", case="late"),
    ],
)
def iterated_attention_searches_breadth_first(results: Results, case: str = "claimed") -> Evidence:
    measured = results[searches].sel(case=case)
    return Evidence.all(
        Evidence.exact(measured["marked"].sum().item(), "<=", 0, "graphs on which marks and search disagree; counted"),
        Evidence.exact(measured["rested"].sum().item(), "<=", 0, "graphs that rest at another step; counted"),
    )


@PROOFS.cases(forgetful={"loops": False}, claimed={})
def on_a_path(config: object, *, loops: bool = True) -> LabelledArrays:
    """Largest change of a mark in each of the last ten of 100 steps on a path of eight nodes."""
    graph = torch.zeros(1, 8, 8, dtype=torch.bool)
    graph[0].diagonal(1).fill_(True)
    graph = graph | graph.mT
    marks = torch.zeros(1, 8, dtype=torch.float64)
    marks[0, 0] = 1
    changes = []
    for _ in range(100):
        after = spread(marks, graph, loops)
        changes.append(float((after - marks).abs().max()))
        marks = after
    return {"change": labelled(changes[-10:], step=range(91, 101))}


@PROOFS.claim(
    "fixed-point-transformers/C3.loops",
    where="derived",
    kind="identity",
    statement="Without the edge of a node to itself there is no fixed point on a path: after 90 steps some mark "
    "still changes by 1 in every step.",
    controls=[control("with that edge", case="claimed")],
)
def marks_jump_for_ever(results: Results, case: str = "forgetful") -> Evidence:
    change = results[on_a_path]["change"].sel(case=case).min()
    return Evidence.exact(change.item(), ">=", 1, "smallest of the last ten changes; marks are 0 or 1")


LENGTHS = (5, 16, 33)


@PROOFS.cases(doubling={}, early={"fewer": 1}, turn={"rule": "turn"}, turn_early={"rule": "turn", "fewer": 1})
def products(config: object, *, rule: str = "doubling", fewer: int = 0) -> LabelledArrays:
    """Sequences of which some prefix product is wrong after the steps of the law (less ``fewer``)."""
    wrong = []
    for length in LENGTHS:
        drawn = torch.from_numpy(stream(0, "products", length).rng().random((50, length, 5)).argsort(-1))
        expected = [drawn[:, 0]]
        for place in range(1, length):
            expected.append(compose(expected[-1], drawn[:, place]))
        steps = length - 1 if rule == "turn" else (length - 1).bit_length()
        run = products_in_turn if rule == "turn" else products_by_doubling
        prefix_products = run(drawn, steps - fewer)
        wrong.append(int((prefix_products != torch.stack(expected, 1)).flatten(1).any(1).sum()))
    return {"wrong": labelled(wrong, length=LENGTHS)}


@PROOFS.claim(
    "fixed-point-transformers/C4",
    where="derived",
    kind="identity",
    statement=r"Prefix products of permutations of five letters are right after $\lceil \log_2 n \rceil$ steps of "
    r"doubling (3, 4 and 6 for 5, 16 and 33 factors), and "
    "after $n - 1$ steps one after the other.",
    controls=[
        control("doubling, one step less", cases=("early", "turn")),
        control("one after the other, one step less", cases=("doubling", "turn_early")),
    ],
)
def products_double(results: Results, cases: tuple[str, ...] = ("doubling", "turn")) -> Evidence:
    wrong = results[products]["wrong"].sel(case=list(cases))
    return Evidence.all(
        *(
            Evidence.exact(wrong.sel(case=case).sum().item(), "<=", 0, f"{case}: wrong sequences; counted")
            for case in cases
        )
    )


@PROOFS.claim(
    "fixed-point-transformers/C4.constant",
    where="derived",
    kind="identity",
    statement="Of 33 factors three steps of doubling get the first eight products right and none of the later "
    "ones in most sequences.",
    controls=[control("six steps", steps=6)],
)
def constant_depth_reaches_so_far(results: Results, steps: int = 3) -> Evidence:
    drawn = torch.from_numpy(stream(0, "products", 33).rng().random((50, 33, 5)).argsort(-1))
    right = (products_by_doubling(drawn, steps) == products_by_doubling(drawn, 6)).all(-1).double().mean(0)
    return Evidence.all(
        Evidence.exact(right[:8].min().item(), ">=", 1, "share of right products among the first 2^3"),
        Evidence.exact(right[8:].max().item(), "<", 0.5, "share of right products beyond; chance is 1/120"),
    )


@PROOFS.figure
def depth_of_graphs(results: Results) -> Sheet:
    """Share of nodes whose connection to the source L layers decide rightly, for random graphs."""
    sheet = Sheet(width=5.6, height=3.9)
    panel = sheet.panel(
        "the sparser the graph, the longer its ways",
        x="layers L",
        y="share of nodes decided rightly",
        ylim=(0, 1.05),
        legend="lower right",
    )
    for chance in CHANCES:
        accuracy = results[searches]["accuracy"].sel(case="claimed", chance=chance)
        panel.line(LAYERS, accuracy.values, name=f"edges with probability {chance:g}", of=f"{GRAPHS} graphs")
    return sheet


# %%
PROOFS.show(iterated_attention_searches_breadth_first)
PROOFS.show(depth_of_graphs)
PROOFS.show(marks_jump_for_ever)
PROOFS.show(products_double)
PROOFS.show(constant_depth_reaches_so_far)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
