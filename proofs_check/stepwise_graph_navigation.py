# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Paths in a directed acyclic graph: what is known exactly
#
# Let $A$ be the adjacency matrix of a directed acyclic graph (DAG). Along every edge some order increases, so $A$ is
# nilpotent and $C = (I - A)^{-1} = \sum_k A^k$ is a finite sum: $C_{ug}$ counts the paths from $u$ to $g$, $C_{gg} = 1$.
# Everything that the networks of `tasks/stepwise_graph_navigation/` are compared with follows from $C$ or from the
# like-built table of hitting probabilities of a random walk. Here each formula is compared with an enumeration of all paths
# of small graphs, or with averages over thousands of random graphs, and a transformer with explicit weights is compared
# with the law it is meant to write.

# %%
from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from lab import Evidence, Paper, Task, control
from lab.domains.graphs import navigation as exact
from lab.domains.graphs.additive_navigator import additive_navigator
from lab.domains.graphs.navigation_prompts import bernoulli_dag, hierarchical_dag, navigation
from lab.evaluation import as_token_predictor
from lab.models import masks
from lab.models.transformer import Architecture, Transformer
from lab.results import Results
from lab.statistics import rounding_bound
from lab.streams import stream

PROOFS = Task(
    "stepwise-graph-navigation",
    Paper(
        "Towards an understanding of stepwise inference in transformers: a synthetic graph navigation model",
        "M. Khona, M. Okawa, J. Hula, R. Ramesh, K. Nishi, R. Dick, E. S. Lubana, H. Tanaka",
        2024,
        arxiv="2402.07757",
    ),
)
GRAPHS, NODES, EDGES = 20, 12, 0.4
MISSTEP = 0.1  # probability of a misstep at every step of the noisy policy


def small_graphs() -> list[exact.Adjacency]:
    """Small DAGs, nodes in random order."""
    found = bernoulli_dag(stream(0, "proofs", "enumerated"), GRAPHS, NODES, EDGES).adjacency
    orders = np.argsort(stream(0, "proofs", "names").rng().random((GRAPHS, NODES)), axis=1)
    return [graph[order][:, order] for graph, order in zip(found, orders, strict=True)]


def paths_from(adjacency: list[list[int]], start: int) -> Iterator[list[int]]:
    """Every path from ``start``, by walking all of them."""
    pending = [[start]]
    while pending:
        path = pending.pop()
        yield path
        pending += [[*path, node] for node in adjacency[path[-1]]]


@PROOFS.measurement()
def enumeration(_: object, seed: int) -> dict[str, np.ndarray]:
    """All paths of the small graphs: for every pair their number, summed lengths and summed walk probabilities.

    Also, summed path by path: the mean lengths of the greedy and of a tempered uniform law, the success of a noisy uniform
    law, and by how much the probability that a law gives to a path differs from 1 / (number of paths), in logarithms.
    """
    shape = (GRAPHS, NODES, NODES)
    number, lengths, walks, tempered, greedy, success = (np.zeros(shape) for _ in range(6))
    log_laws: dict[str, list[tuple[int, int, int, float]]] = {"uniform": [], "walk": []}
    for index, adjacency in enumerate(small_graphs()):
        neighbours = [row.nonzero().flatten().tolist() for row in adjacency]
        degree = adjacency.sum(1).double()
        laws = {"uniform": exact.uniform_path_policy(adjacency), "walk": exact.conditioned_walk_policy(adjacency)}
        half, mode = exact.temper(laws["uniform"], 0.5), exact.temper(laws["uniform"], 0.0)
        for start in range(NODES):
            for path in paths_from(neighbours, start):
                goal, before, after = path[-1], torch.tensor(path[:-1]).long(), torch.tensor(path[1:]).long()
                edges = len(path) - 1
                number[index, start, goal] += 1
                lengths[index, start, goal] += edges
                walks[index, start, goal] += float((1 / degree[before]).prod())
                tempered[index, start, goal] += edges * float(half[goal, before, after].prod())
                greedy[index, start, goal] += edges * float(mode[goal, before, after].prod())
                success[index, start, goal] += (1 - MISSTEP) ** edges
                for name, law in laws.items():
                    log_laws[name].append((index, start, goal, float(law[goal, before, after].log().sum())))
    found = {
        "number": number,
        "lengths": lengths,
        "walks": walks,
        "tempered": tempered,
        "greedy": greedy,
        "success": success / number.clip(min=1),
    }
    for name, rows in log_laws.items():
        table = np.array(rows)
        graph, start, goal = table[:, :3].astype(int).T
        found[f"{name}_spread"] = np.abs(table[:, 3] + np.log(number[graph, start, goal])).max()
    return found


def stack(tables: list[Tensor]) -> np.ndarray:
    return torch.stack(tables).numpy()


def enumerated(results: Results, name: str) -> np.ndarray:
    return results[enumeration][name][0]


# %% [markdown]
# ## Counting


# %%
@PROOFS.claim(
    "stepwise-graph-navigation/I1",
    where="appendix; standard",
    kind="identity",
    statement=r"$(I - A)^{-1}_{ug}$ is the number of paths from $u$ to $g$ in a directed acyclic graph.",
    controls=[control("paths of at most three edges", longest=3)],
)
def counts_paths(results: Results, longest: int | None = None) -> Evidence:
    counts = [exact.path_counts(adjacency) for adjacency in small_graphs()]
    if longest is not None:
        counts = [
            sum((torch.matrix_power(one.double(), k) for k in range(1, longest + 1)), torch.eye(NODES).double())
            for one in small_graphs()
        ]
    error = np.abs(stack(counts) - enumerated(results, "number")).max()
    return Evidence.exact(error, "<=", 0.0, "sums and products of integers are exact")


@PROOFS.claim(
    "stepwise-graph-navigation/I2",
    where="derived",
    kind="identity",
    statement=r"The next-node law $A_{uv} C_{vg} / C_{ug}$ is the uniform law on paths: along every path its product is "
    r"$1 / C_{sg}$. (So the least mean loss of a sequence is the mean of $\log C_{sg}$.)",
    controls=[control("the conditioned random walk", law="walk")],
)
def telescopes(results: Results, law: str = "uniform") -> Evidence:
    spread = float(enumerated(results, f"{law}_spread"))
    return Evidence.exact(spread, "<=", rounding_bound(5 * NODES, np.log(2.0) * NODES), "a sum of logarithms")


@PROOFS.claim(
    "stepwise-graph-navigation/I3",
    where="derived",
    kind="identity",
    statement="The mean number of edges of a uniformly drawn path from $s$ to $g$ is $(A C^2)_{sg} / C_{sg}$.",
    controls=[control("the shortest path's length", shortest=True)],
)
def mean_lengths(results: Results, shortest: bool = False) -> Evidence:
    lengths, number = enumerated(results, "lengths"), enumerated(results, "number")
    some = number > 0
    function = exact.shortest_paths if shortest else exact.mean_path_lengths
    found = stack([function(adjacency) for adjacency in small_graphs()])
    error = np.abs(found[some] - lengths[some] / number[some]).max()
    return Evidence.exact(error, "<=", rounding_bound(4, NODES), "two quotients of integers")


@PROOFS.claim(
    "stepwise-graph-navigation/I4",
    where="derived",
    kind="identity",
    statement="The uniform out-neighbour walk from $s$ ever visits $g$ with probability $((I - Q)^{-1})_{sg}$, "
    "$Q_{uv} = A_{uv} / \\deg u$.",
    controls=[control("the share of paths that end at the goal", by_count=True)],
)
def hitting(results: Results, by_count: bool = False) -> Evidence:
    graphs = small_graphs()
    found = stack([exact.hitting_probabilities(adjacency) for adjacency in graphs])
    if by_count:
        counts = stack([exact.path_counts(adjacency) for adjacency in graphs])
        found = counts / counts.sum(2, keepdims=True)
    error = np.abs(found - enumerated(results, "walks")).max()
    return Evidence.exact(
        error, "<=", rounding_bound(2 * NODES**2, 1.0), "a triangular solve of non-negative terms, sums of products"
    )


# %% [markdown]
# ## Random graphs
#
# How many paths, and how likely one, on average over graphs. For a hierarchical graph with $n$ nodes a layer and edge
# probability $p$, a path from a node to *one given* node $k$ layers above chooses $k - 1$ nodes between and needs $k$
# edges. $(pn)^k$, which one may also read, counts paths to *all* nodes of that layer.

# %%
SAMPLED, LAYERS, WIDTH, SHARE = 4000, 6, 6, 0.3
BETWEEN, THINNER = 13, 0.25


@PROOFS.measurement()
def random_graphs(_: object, seed: int) -> dict[str, np.ndarray]:
    """For every sampled graph: mean number of paths, and share of connected pairs, k layers (or d places) apart."""
    hierarchical = hierarchical_dag(stream(1, "proofs", "hierarchical"), SAMPLED, LAYERS, WIDTH, SHARE).adjacency
    counts = exact.path_counts(hierarchical).reshape(SAMPLED, LAYERS, WIDTH, LAYERS, WIDTH)
    first = counts[:, 0]  # [graph, node, layer, node]
    thin = exact.path_counts(bernoulli_dag(stream(1, "proofs", "bernoulli"), SAMPLED, BETWEEN, THINNER).adjacency)
    return {
        "hierarchical": first.mean((1, 3)).numpy()[:, 1:],
        "connected": (first > 0).double().mean((1, 3)).numpy()[:, 1:],
        "bernoulli": thin[:, 0, 1:].numpy(),
    }


def weakest_agreement(samples: np.ndarray, targets: list[float], origin: str) -> Evidence:
    parts = [
        Evidence.agreement(samples[:, index], target, f"{origin}, {index + 1} apart", parts=len(targets))
        for index, target in enumerate(targets)
    ]
    return Evidence.weakest(*parts)


@PROOFS.claim(
    "stepwise-graph-navigation/I5",
    where="section 3, appendix on path counts",
    kind="identity",
    statement="In a random hierarchical graph the mean number of paths from a node to a given node $k$ layers above is "
    "$n^{k-1} p^k$.",
    controls=[control("(pn)^k, the number of paths to all nodes of the layer", to_all=True)],
)
def hierarchical_counts(results: Results, to_all: bool = False) -> Evidence:
    targets = [exact.expected_paths_hierarchical(WIDTH, SHARE, k) * (WIDTH if to_all else 1) for k in range(1, LAYERS)]
    return weakest_agreement(results[random_graphs]["hierarchical"][0], targets, "n^(k-1) p^k")


@PROOFS.claim(
    "stepwise-graph-navigation/I6",
    where="appendix on path counts",
    kind="identity",
    statement="In a random Bernoulli graph the mean number of paths from node $i$ to node $j > i$ is $p (1 + p)^{j-i-1}$.",
    controls=[control("one node between too many", between=1)],
)
def bernoulli_counts(results: Results, between: int = 0) -> Evidence:
    targets = [exact.expected_paths_bernoulli(d + between, THINNER) for d in range(1, BETWEEN)]
    return weakest_agreement(results[random_graphs]["bernoulli"][0], targets, "p (1 + p)^(d-1)")


@PROOFS.claim(
    "stepwise-graph-navigation/I7",
    where="derived",
    kind="identity",
    statement="In a random hierarchical graph a given node $k$ layers above is reached with probability "
    r"$E[1 - (1-p)^{m}]$, where $m$ starts at $1$ and is redrawn $k - 1$ times from $\mathrm{Bin}(n, 1 - (1-p)^m)$.",
    controls=[control("the mean number of paths instead", by_count=True)],
)
def reach(results: Results, by_count: bool = False) -> Evidence:
    formula = exact.expected_paths_hierarchical if by_count else exact.reach_probability_hierarchical
    targets = [formula(WIDTH, SHARE, k) for k in range(1, LAYERS)]
    return weakest_agreement(results[random_graphs]["connected"][0], targets, "Markov chain of reached nodes")


# %% [markdown]
# ## Policies
#
# A *policy* $\pi(v \mid u, g)$ is any rule for the next node. Its mean length solves $(I - \Pi_g) t = 1$; a policy that
# loses probability to missteps succeeds with the probability $((I - \Pi_g)^{-1})_{sg}$.


# %%
@PROOFS.claim(
    "stepwise-graph-navigation/I8",
    where="derived",
    kind="identity",
    statement=r"The mean length of the paths of any policy solves $(I - \Pi_g)\, t = 1$ on the nodes where it moves: equal to "
    "the sum over all paths, for the uniform law at temperatures $1/2$ and $0$.",
    controls=[control("the temperature forgotten", forgotten=True)],
)
def policy_lengths_solve(results: Results, forgotten: bool = False) -> Evidence:
    errors = []
    for name, temperature in (("tempered", 0.5), ("greedy", 0.0)):
        laws = [exact.uniform_path_policy(adjacency) for adjacency in small_graphs()]
        found = stack([exact.policy_lengths(law if forgotten else exact.temper(law, temperature)) for law in laws])
        errors.append(np.abs(found - enumerated(results, name)).max())
    return Evidence.exact(
        max(errors), "<=", rounding_bound(4 * NODES**2, NODES), "a triangular solve of non-negative terms"
    )


@PROOFS.claim(
    "stepwise-graph-navigation/I8.success",
    where="derived",
    kind="identity",
    statement=r"A policy that makes a misstep with probability $\epsilon$ at every step arrives with probability "
    r"$((I - \Pi_g)^{-1})_{sg} = \sum_{\text{paths}} \prod \pi = (1 - \epsilon)^{\ell}$ on average over the lengths $\ell$.",
    controls=[control("the misstep's probability counted once", once=True)],
)
def policy_success_solves(results: Results, once: bool = False) -> Evidence:
    laws = [exact.uniform_path_policy(adjacency) for adjacency in small_graphs()]
    found = stack([exact.policy_success((1 - MISSTEP) * law) for law in laws])
    reference = enumerated(results, "success")
    if once:
        reference = np.where(reference > 0, 1 - MISSTEP, 0.0)
    error = np.abs(found - reference).max()
    return Evidence.exact(error, "<=", rounding_bound(4 * NODES**2, 1.0), "a triangular solve of non-negative terms")


# %% [markdown]
# ## One layer writes the law
#
# The logarithm of the law is additive, $\log A_{uv} + \log C_{vg}$ plus a constant: a term of the current node and a term of
# the goal. The construction puts $2 \log C_{\cdot g}$ into the value of the token $g$, lets every token attend half to the
# goal and half to itself, and lets the skip connection carry the current node's own term. The goal table of a one-layer
# solution thus holds *log path counts* (log hitting probabilities for conditioned walks), not distances.

# %%
GRID, LIKELY, LOG_ZERO, SCORE = 40, 0.14, 60.0, 40.0


@PROOFS.claim(
    "stepwise-graph-navigation/C1",
    where="section 5, made exact",
    kind="construction",
    statement="A transformer with one attention-only layer and one head writes the exact law of paths, for uniformly drawn "
    "paths and for conditioned walks, END included.",
    controls=[control("minus distance in the goal table", table="distance"), control("attention not sharp", score=2.0)],
)
def construction(results: Results, table: str = "counts", score: float = SCORE) -> Evidence:
    adjacency = bernoulli_dag(stream(2, "proofs", "construction"), 1, GRID, LIKELY).adjacency[0]
    counts = exact.path_counts(adjacency)
    connected = (counts > 0).fill_diagonal_(False)
    error = 0.0
    for walk in (False, True):
        policy = exact.conditioned_walk_policy(adjacency) if walk else exact.uniform_path_policy(adjacency)
        sequences = navigation(
            stream(3, "proofs", "sequences"), 1500, adjacency, connected, layout="path", policy=policy
        )
        tokens, length = sequences.tokens, sequences.tokens.shape[1]
        nearness = torch.where(counts > 0, (-exact.shortest_paths(adjacency)).exp(), 0.0)
        value = nearness if table == "distance" else None
        model = additive_navigator(adjacency, length, walk, LOG_ZERO, score, value)
        predict = as_token_predictor(model, masks.causal(length), member=0)
        reference = exact.bayes_navigator(model.architecture.vocabulary or 0, adjacency, policy)
        prefix = sequences.prefix_length
        gap = (predict(tokens, prefix).exp() - reference(tokens, prefix).exp()).abs().amax(-1)
        error = max(error, float(gap[sequences.loss_mask].max()))
    size = GRID + 8
    smallest = float(exact.hitting_probabilities(adjacency)[connected].min())
    largest = max(float(counts.max()), 1 / smallest)
    left_over = size * largest * np.exp(-LOG_ZERO / 2)
    leak = 2 * 15 * np.exp(-SCORE) * 4 * LOG_ZERO
    bound = left_over + leak + rounding_bound(4 * size, 4 * LOG_ZERO)
    return Evidence.exact(
        error,
        "<=",
        bound,
        "finite logarithm of 0 (e^{-30} against the rarest path), other positions (e^{-40}), rounding",
    )


# %% [markdown]
# ## The prefix mask, one layer
#
# In a model of one layer the rows after the prompt attend to embeddings, which no mask has touched. A mask that only lets
# tokens *of the prompt* see each other therefore changes no prediction after the prompt and no gradient of its loss: both
# arms are one training, step for step.


# %%
@PROOFS.claim(
    "stepwise-graph-navigation/P1.prefix",
    where="derived",
    kind="identity",
    statement="With one layer, the prefix mask over the prompt changes neither the loss of the answer nor its gradient.",
    controls=[control("two layers", layers=2)],
)
def prefix_changes_nothing(results: Results, layers: int = 1) -> Evidence:
    adjacency = hierarchical_dag(stream(4, "proofs", "graph"), 1, 4, 4, 0.4).adjacency[0]
    connected = (exact.path_counts(adjacency) > 0).fill_diagonal_(False)
    sequences = navigation(stream(4, "proofs", "sequences"), 20, adjacency, connected, layout="stepwise")
    size = len(adjacency) + 8
    length = sequences.tokens.shape[1]
    architecture = Architecture(
        width=16, layers=layers, heads=2, vocabulary=size, output_size=size, positions="learned", maximum_length=length
    )
    gradients = []
    for mask in (masks.causal(length), masks.prefix_lm(length, 4)):
        model = Transformer(architecture, [0], torch.float64)
        logits = model(sequences.tokens.unsqueeze(0), mask)[0]
        loss = torch.nn.functional.cross_entropy(logits[sequences.loss_mask], sequences.targets[sequences.loss_mask])
        loss.backward()
        found = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        gradients.append(torch.cat([loss.detach().flatten(), *(one.flatten() for one in found)]))
    error = float((gradients[0] - gradients[1]).abs().max())
    scale = float(gradients[0].abs().max())
    return Evidence.exact(error, "<=", rounding_bound(16 * size * length, scale), "the same sums in another order")


# %%
PROOFS.show()
