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
from itertools import combinations

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.graphs import navigation as exact
from lab.domains.graphs import path_laws
from lab.domains.graphs.additive_navigator import additive_navigator
from lab.domains.graphs.navigation_prompts import bernoulli_dag, hierarchical_dag, navigation
from lab.evaluation import as_token_predictor
from lab.labels import LabelledArrays, labelled
from lab.models import masks
from lab.models.transformer import Architecture, Transformer
from lab.results import Results
from lab.statistics import rounding_bound
from lab.streams import stream

PROOFS = Task("stepwise-graph-navigation", "khona-2024-stepwise")
GRAPHS, NODES, EDGES = 20, 12, 0.4
POLICIES = {"uniform": exact.uniform_path_policy, "walk": exact.conditioned_walk_policy}
MISSTEP = 0.1  # probability of a misstep at every step of the noisy policy


def small_graphs() -> list[exact.Adjacency]:
    """Small DAGs, nodes in random order."""
    graphs = bernoulli_dag(stream(0, "proofs", "enumerated"), GRAPHS, NODES, EDGES).adjacency
    orders = np.argsort(stream(0, "proofs", "names").rng().random((GRAPHS, NODES)), axis=1)
    return [graph[order][:, order] for graph, order in zip(graphs, orders, strict=True)]


def paths_from(neighbours: list[list[int]], start: int) -> Iterator[list[int]]:
    """Every path from ``start``, by walking all of them."""
    pending = [[start]]
    while pending:
        path = pending.pop()
        yield path
        pending += [[*path, node] for node in neighbours[path[-1]]]


@PROOFS.cases(small_graphs={})
def enumeration(_: object) -> LabelledArrays:
    """All paths of the small graphs: for every pair their number, summed lengths and summed walk probabilities.

    Also, summed path by path: the mean lengths of the greedy and of a tempered uniform law, the success of a noisy uniform
    law, and by how much the probability that a law gives to a path differs from 1 / (number of paths), in logarithms.
    ``covariance``: of the length of a path with the sum of its steps' entropies (or of the logarithms of their numbers of
    choices), under either law.
    """
    number, lengths, walks, tempered, greedy, success = np.zeros((6, GRAPHS, NODES, NODES))
    moments = np.zeros((GRAPHS, 2, 2, 4, NODES, NODES))  # graph, law, quantity, (1, length, sum, product), start, goal
    log_laws: dict[str, list[tuple[int, int, int, float]]] = {"uniform": [], "walk": []}
    for index, adjacency in enumerate(small_graphs()):
        neighbours = [row.nonzero().flatten().tolist() for row in adjacency]
        degree = adjacency.sum(1).double()
        laws = {"uniform": exact.uniform_path_policy(adjacency), "walk": exact.conditioned_walk_policy(adjacency)}
        half, mode = exact.temper(laws["uniform"], 0.5), exact.temper(laws["uniform"], 0.0)
        of_steps = [
            (law.numpy(), np.stack([path_laws.step_entropies(law), (law > 0).sum(-1).clamp(min=1).double().log()]))
            for law in laws.values()
        ]
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
                for place, (table, quantities) in enumerate(of_steps):
                    weight = table[goal, path[:-1], path[1:]].prod()
                    totals = quantities[:, goal, path[:-1]].sum(-1)
                    terms = np.stack([np.ones(2), np.full(2, edges), totals, edges * totals], 1)
                    moments[index, place, :, :, start, goal] += weight * terms
                for name, law in laws.items():
                    log_laws[name].append((index, start, goal, float(law[goal, before, after].log().sum())))
    spread = []
    for rows in log_laws.values():
        table = np.array(rows)
        graph, start, goal = table[:, :3].astype(int).T
        spread.append(np.abs(table[:, 3] + np.log(number[graph, start, goal])).max())
    sums = {"number": number, "lengths": lengths, "walks": walks, "tempered": tempered, "greedy": greedy}
    sums |= {"success": success / number.clip(min=1)}
    covariance = moments[:, :, :, 3] - moments[:, :, :, 1] * moments[:, :, :, 2]
    return {
        "covariance": labelled(
            covariance, graph=None, law=list(log_laws), quantity=("entropy", "choices"), start=None, goal=None
        ),
        **{name: labelled(values, graph=None, start=None, goal=None) for name, values in sums.items()},
        "spread": labelled(spread, law=list(log_laws)),
    }


def stack(tables: list[Tensor]) -> np.ndarray:
    return torch.stack(tables).numpy()


def enumerated(results: Results, name: str) -> xr.DataArray:
    return results[enumeration][name].sel(case="small_graphs")


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
            sum((torch.matrix_power(edges.double(), k) for k in range(1, longest + 1)), torch.eye(NODES).double())
            for edges in small_graphs()
        ]
    error = float(abs(enumerated(results, "number") - stack(counts)).max())
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
    spread = enumerated(results, "spread").sel(law=law)
    return Evidence.exact(float(spread), "<=", rounding_bound(5 * NODES, np.log(2.0) * NODES), "a sum of logarithms")


@PROOFS.claim(
    "stepwise-graph-navigation/I3",
    where="derived",
    kind="identity",
    statement="The mean number of edges of a uniformly drawn path from $s$ to $g$ is $(A C^2)_{sg} / C_{sg}$.",
    controls=[control("the shortest path's length", shortest=True)],
)
def mean_lengths(results: Results, shortest: bool = False) -> Evidence:
    function = exact.shortest_paths if shortest else exact.mean_path_lengths
    number = enumerated(results, "number")
    means = (enumerated(results, "lengths") / number).where(number > 0)
    error = float(abs(means - stack([function(adjacency) for adjacency in small_graphs()])).max())
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
    visits = stack([exact.hitting_probabilities(adjacency) for adjacency in graphs])
    if by_count:
        counts = stack([exact.path_counts(adjacency) for adjacency in graphs])
        visits = counts / counts.sum(2, keepdims=True)
    error = float(abs(enumerated(results, "walks") - visits).max())
    return Evidence.exact(
        error, "<=", rounding_bound(2 * NODES**2, 1.0), "a triangular solve of non-negative terms, sums of products"
    )


# %% [markdown]
# ## Random graphs
#
# How many paths, and how likely one, on average over graphs. For a hierarchical graph with $n$ nodes a layer and edge
# probability $p$, a path from a node to *one given* node $k$ layers above chooses $k - 1$ nodes between and needs $k$
# edges. $(pn)^k$, which one may also read, counts paths to *all* nodes of that layer. All graphs of a small size are
# enumerated, each weighted with its probability.

# %%
LAYERS, WIDTH, SHARE = 4, 2, 0.3  # 2^12 hierarchical graphs
IN_A_ROW, THINNER = 6, 0.25  # 2^15 Bernoulli graphs


def every_graph(possible: Tensor, probability: float) -> tuple[Tensor, Tensor]:
    """All graphs whose edges are among the ``possible``: path counts [graph, node, node] and probabilities [graph]."""
    before, after = possible.nonzero(as_tuple=True)
    chosen = (torch.arange(2 ** len(before)).unsqueeze(1) >> torch.arange(len(before))) % 2 == 1
    adjacency = torch.zeros(len(chosen), *possible.shape, dtype=torch.bool)
    adjacency[:, before, after] = chosen
    weights = torch.tensor([1 - probability, probability], dtype=torch.float64)[chosen.int()].prod(1)
    return exact.path_counts(adjacency), weights


@PROOFS.cases(every_graph={})
def mean_over_graphs(_: object) -> LabelledArrays:
    """From the first node to one node k layers (or places) above: mean number of paths, and probability of any."""
    layer = torch.arange(LAYERS).repeat_interleave(WIDTH)
    counts, weights = every_graph(layer.unsqueeze(1) + 1 == layer, SHARE)
    above = counts[:, 0, WIDTH::WIDTH]
    in_a_row, thin = every_graph(torch.ones(IN_A_ROW, IN_A_ROW).triu(1).bool(), THINNER)
    return {
        "hierarchical": labelled(weights @ above, layers=range(1, LAYERS)),
        "connected": labelled(weights @ (above > 0).double(), layers=range(1, LAYERS)),
        "bernoulli": labelled(thin @ in_a_row[:, 0, 1:], places=range(1, IN_A_ROW)),
    }


def against_laws(results: Results, name: str, laws: list[float]) -> Evidence:
    """The largest difference of means over graphs from their laws, as exact evidence."""
    means = results[mean_over_graphs][name].sel(case="every_graph")
    graphs = 2 ** (WIDTH**2 * (LAYERS - 1)) if name != "bernoulli" else 2 ** (IN_A_ROW * (IN_A_ROW - 1) // 2)
    bound = rounding_bound(graphs + 40, max(laws))
    return Evidence.exact(
        float(abs(means - laws).max()), "<=", bound, f"a sum of {graphs} products of up to 15 probabilities"
    )


@PROOFS.claim(
    "stepwise-graph-navigation/I5",
    where="section 3, appendix on path counts",
    kind="identity",
    statement="In a random hierarchical graph the mean number of paths from a node to a given node $k$ layers above is "
    "$n^{k-1} p^k$.",
    controls=[control("(pn)^k, the number of paths to all nodes of the layer", to_all=True)],
)
def hierarchical_counts(results: Results, to_all: bool = False) -> Evidence:
    many = WIDTH if to_all else 1
    laws = [many * exact.expected_paths_hierarchical(WIDTH, SHARE, k) for k in range(1, LAYERS)]
    return against_laws(results, "hierarchical", laws)


@PROOFS.claim(
    "stepwise-graph-navigation/I6",
    where="appendix on path counts",
    kind="identity",
    statement="In a random Bernoulli graph the mean number of paths from node $i$ to node $j > i$ is $p (1 + p)^{j-i-1}$.",
    controls=[control("one node between too many", between=1)],
)
def bernoulli_counts(results: Results, between: int = 0) -> Evidence:
    laws = [exact.expected_paths_bernoulli(apart + between, THINNER) for apart in range(1, IN_A_ROW)]
    return against_laws(results, "bernoulli", laws)


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
    return against_laws(results, "connected", [formula(WIDTH, SHARE, k) for k in range(1, LAYERS)])


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
        solved = stack([exact.policy_lengths(law if forgotten else exact.temper(law, temperature)) for law in laws])
        errors.append(float(abs(enumerated(results, name) - solved).max()))
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
    success = enumerated(results, "success")
    if once:
        success = (1 - MISSTEP) * (success > 0)
    error = float(abs(success - stack([exact.policy_success((1 - MISSTEP) * law) for law in laws])).max())
    return Evidence.exact(error, "<=", rounding_bound(4 * NODES**2, 1.0), "a triangular solve of non-negative terms")


# %% [markdown]
# ## Length under temperature
#
# Sample every step from $\pi^\beta / Z_\beta(u, g)$, $\beta$ the inverse temperature. The logarithm of a path's probability is
# $\sum_t (\beta \log \pi_t - \log Z_\beta(u_t, g))$, and its derivative at $\beta = 1$ is $\sum_t (\log \pi_t + H_t)$, with $H_t$ the
# entropy of the step from $u_t$. Under the uniform law $\sum_t \log \pi_t = -\log C_{sg}$ is the same for every path, and only
# the normalisers move: $\frac{d}{d\beta} E[\ell] = \mathrm{Cov}(\ell, \sum_t H_t)$. Long paths pass more nodes with a choice, so that
# cooling tends to lengthen. (How often is measured in `tasks/stepwise_graph_navigation/one_layer.py`.)


# %%
def length_derivative(policy: exact.Policy) -> Tensor:
    """The derivative of the mean length in the inverse temperature, at 1, by differentiation [node, goal]."""

    def lengths(beta: Tensor) -> Tensor:
        weights = torch.where(policy > 0, torch.exp(beta * policy.clamp(min=1e-300).log()), 0.0)
        return exact.policy_lengths(
            weights / weights.sum(-1, keepdim=True).where(policy.sum(-1, keepdim=True) > 0, 1.0)
        )

    beta = torch.ones((), dtype=torch.float64, requires_grad=True)
    means = lengths(beta)
    # The backward pass is linear in the weights of the means, and its derivative in these is the one of every mean.
    weights = torch.zeros_like(means, requires_grad=True)
    (total,) = torch.autograd.grad(means, beta, weights, create_graph=True)
    return torch.autograd.grad(total, weights)[0]


@PROOFS.claim(
    "stepwise-graph-navigation/I9",
    where="derived",
    kind="identity",
    statement=r"Sampled with inverse temperature $\beta$, steps of the uniform law give paths whose mean length changes at "
    r"$\beta = 1$ at the rate $\mathrm{Cov}(\ell, \sum_t H_t)$, the covariance of the length with the sum of the entropies of the "
    "steps.",
    controls=[
        control("logarithms of the numbers of choices instead of entropies", quantity="choices"),
        control("the conditioned random walk, whose paths are not equally likely", law="walk"),
    ],
)
def length_follows_entropies(results: Results, quantity: str = "entropy", law: str = "uniform") -> Evidence:
    policies = [POLICIES[law](adjacency) for adjacency in small_graphs()]
    covariance = enumerated(results, "covariance").sel(law=law, quantity=quantity)
    error = float(abs(covariance - stack([length_derivative(policy) for policy in policies])).max())
    return Evidence.exact(
        error,
        "<=",
        rounding_bound(8 * NODES**2, NODES**2),
        "sums over paths and two triangular solves, terms up to n^2",
    )


@PROOFS.claim(
    "stepwise-graph-navigation/I9.steps",
    where="derived",
    kind="identity",
    statement=r"For any policy the rate is a sum over the nodes on the way, each with its expected number of visits: "
    r"$\sum_w \mathrm{Cov}_{v \sim \pi(\cdot \mid w, g)}(\log \pi(v \mid w, g), L_v)$, with $L_v$ the mean length from $v$. Cooling "
    "lengthens where likelier steps have a longer way before them (uniform paths and conditioned walks).",
    controls=[control("temperature 1/2 in place of 1", temperature=0.5)],
)
def length_follows_likely_steps(results: Results, temperature: float = 1.0) -> Evidence:
    error = 0.0
    for adjacency in small_graphs():
        for law in POLICIES.values():
            policy = law(adjacency)
            slope = path_laws.length_slope(exact.temper(policy, temperature))
            error = max(error, float((slope - length_derivative(policy)).abs().max()))
    return Evidence.exact(
        error, "<=", rounding_bound(8 * NODES**2, NODES**2), "three triangular solves, terms up to n^2"
    )


# %% [markdown]
# ## Which pairs training paths speak about
#
# Of the $N$ connected pairs $k$ are drawn for training. A pair $(u, g)$ that is held out lies on a path of a training pair iff
# one of the $m_u$ pairs $(s, g)$ is drawn, $s$ an ancestor of $u$. The $k$ are a uniform subset of the other $N - 1$ pairs, so
# that none of the $m_u$ is among them with the hypergeometric probability $\binom{N-1-m_u}{k} / \binom{N-1}{k}$.

# %%
FEW, TRAINED = 6, 4  # nodes of the enumerated graphs, and training pairs


@PROOFS.cases(every_split={})
def covered_pairs(_: object) -> LabelledArrays:
    """Over all ways to draw the training pairs of small graphs: how often a held-out pair is covered, and the law."""
    graphs = [
        adjacency
        for adjacency in bernoulli_dag(stream(5, "proofs", "splits"), 4, FEW, 0.5).adjacency
        if adjacency.sum() > TRAINED
    ]
    counted, laws, replaced, sizes = [], [], [], []
    for adjacency in graphs:
        connected = exact.path_counts(adjacency).gt(0).fill_diagonal_(False)
        pairs = connected.nonzero()
        held_out, covered = torch.zeros(2, FEW, FEW, dtype=torch.float64)
        for chosen in combinations(range(len(pairs)), TRAINED):
            training = torch.zeros_like(connected)
            training[tuple(pairs[list(chosen)].T)] = True
            held_out += connected & ~training
            covered += exact.suffix_coverage(adjacency, training)[0] & ~training
        ancestors = connected.sum(0, dtype=torch.float64).unsqueeze(1)
        independent = 1 - (1 - ancestors / (len(pairs) - 1)) ** TRAINED
        counted.append(torch.where(connected, covered / held_out.clamp(min=1), 0.0))
        laws.append(path_laws.coverage_probabilities(adjacency, TRAINED).nan_to_num())
        replaced.append(torch.where(connected, independent, 0.0))
        sizes.append(len(pairs))
    return {
        "counted": labelled(torch.stack(counted), graph=None, start=None, goal=None),
        "hypergeometric": labelled(torch.stack(laws), graph=None, start=None, goal=None),
        "independent": labelled(torch.stack(replaced), graph=None, start=None, goal=None),
        "pairs": labelled(max(sizes)),
    }


@PROOFS.claim(
    "stepwise-graph-navigation/I10",
    where="derived",
    kind="identity",
    statement=r"With $k$ of $N$ connected pairs drawn for training, a held-out pair $(u, g)$ lies on a path of a training pair with "
    r"probability $1 - \binom{N-1-m_u}{k} / \binom{N-1}{k}$, where $m_u$ is the number of ancestors of $u$.",
    controls=[control("training pairs drawn with replacement", law="independent")],
)
def coverage_is_hypergeometric(results: Results, law: str = "hypergeometric") -> Evidence:
    measured = results[covered_pairs].sel(case="every_split")
    error = float(abs(measured["counted"] - measured[law]).max())
    return Evidence.exact(error, "<=", rounding_bound(3 * TRAINED + 3), "a quotient of counts; a product of quotients")


# %% [markdown]
# ## One layer writes the law
#
# The logarithm of the law is additive, $\log A_{uv} + \log C_{vg}$ plus a constant: a term of the current node and a term of
# the goal. The construction puts $2 \log C_{\cdot g}$ into the value of the token $g$, lets every token attend half to the
# goal and half to itself, and lets the skip connection carry the current node's own term. The goal table of a one-layer
# solution thus holds *log path counts* (log hitting probabilities for conditioned walks), not distances.

# %%
GRID, LIKELY, LOG_ZERO, SCORE = 40, 0.14, 60.0, 40.0


@PROOFS.cases(log_counts={}, distances={"table": "distances"}, soft={"score": 2.0})
def written_law(_: object, *, table: str = "log counts", score: float = SCORE) -> LabelledArrays:
    """The largest error of the hand-built network's probabilities, over both laws; the largest number a logarithm is of."""
    adjacency = bernoulli_dag(stream(2, "proofs", "construction"), 1, GRID, LIKELY).adjacency[0]
    counts = exact.path_counts(adjacency)
    connected = (counts > 0).fill_diagonal_(False)
    nearness = torch.where(counts > 0, (-exact.shortest_paths(adjacency)).exp(), 0.0)
    error = 0.0
    for walk in (False, True):
        policy = exact.conditioned_walk_policy(adjacency) if walk else exact.uniform_path_policy(adjacency)
        source = stream(3, "proofs", "sequences")
        sequences = navigation(source, 1500, adjacency, connected, layout="path", policy=policy)
        tokens, prefix, length = sequences.tokens, sequences.prefix_length, sequences.tokens.shape[1]
        value = nearness if table == "distances" else None
        model = additive_navigator(adjacency, length, walk, LOG_ZERO, score, value)
        predict = as_token_predictor(model, masks.causal(length), member=0)
        reference = exact.bayes_navigator(model.architecture.vocabulary or 0, adjacency, policy)
        gap = (predict(tokens, prefix).exp() - reference(tokens, prefix).exp()).abs().amax(-1)
        error = max(error, float(gap[sequences.loss_mask].max()))
    rarest = float(exact.hitting_probabilities(adjacency)[connected].min())
    return {"error": labelled(error), "largest": labelled(max(float(counts.max()), 1 / rarest))}


@PROOFS.claim(
    "stepwise-graph-navigation/C1",
    where="section 5, made exact",
    kind="construction",
    statement="A transformer with one attention-only layer and one head writes the exact law of paths, for uniformly drawn "
    "paths and for conditioned walks, END included.",
    controls=[
        control("minus distance in the goal table", case="distances"),
        control("attention not sharp", case="soft"),
    ],
)
def construction(results: Results, case: str = "log_counts") -> Evidence:
    measured, size = results[written_law].sel(case=case), GRID + 8
    left_over = size * float(measured["largest"]) * np.exp(-LOG_ZERO / 2)
    leak = 2 * 15 * np.exp(-SCORE) * 4 * LOG_ZERO
    return Evidence.exact(
        measured["error"],
        "<=",
        left_over + leak + rounding_bound(4 * size, 4 * LOG_ZERO),
        "finite logarithm of 0 (e^{-30} against the rarest path), other positions (e^{-40}), rounding",
    )


# %% [markdown]
# ## The prefix mask, one layer
#
# In a model of one layer the rows after the prompt attend to embeddings, which no mask has touched. A mask that only lets
# tokens *of the prompt* see each other therefore changes no prediction after the prompt and no gradient of its loss: both
# arms are one training, step for step.


# %%
@PROOFS.cases(one_layer={}, two_layers={"layers": 2})
def masks_compared(_: object, *, layers: int = 1) -> LabelledArrays:
    """Loss of the answer and its gradient under the two masks: largest difference, largest entry, terms of a sum."""
    adjacency = hierarchical_dag(stream(4, "proofs", "graph"), 1, 4, 4, 0.4).adjacency[0]
    connected = (exact.path_counts(adjacency) > 0).fill_diagonal_(False)
    sequences = navigation(stream(4, "proofs", "sequences"), 20, adjacency, connected, layout="stepwise")
    size, length = len(adjacency) + 8, sequences.tokens.shape[1]
    architecture = Architecture(
        width=16, layers=layers, heads=2, vocabulary=size, output_size=size, positions="learned", maximum_length=length
    )
    gradients = []
    for mask in (masks.causal(length), masks.prefix_lm(length, 4)):
        model = Transformer(architecture, [0], torch.float64)
        logits = model(sequences.tokens.unsqueeze(0), mask)[0]
        loss = torch.nn.functional.cross_entropy(logits[sequences.loss_mask], sequences.targets[sequences.loss_mask])
        loss.backward()
        parts = [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
        gradients.append(torch.cat([loss.detach().flatten(), *parts]))
    return {
        "difference": labelled((gradients[0] - gradients[1]).abs().max()),
        "scale": labelled(gradients[0].abs().max()),
        "terms": labelled(16 * size * length),
    }


@PROOFS.claim(
    "stepwise-graph-navigation/P1.prefix",
    where="derived",
    kind="identity",
    statement="With one layer, the prefix mask over the prompt changes neither the loss of the answer nor its gradient.",
    controls=[control("two layers", case="two_layers")],
)
def prefix_changes_nothing(results: Results, case: str = "one_layer") -> Evidence:
    measured = results[masks_compared].sel(case=case)
    bound = rounding_bound(int(measured["terms"]), float(measured["scale"]))
    return Evidence.exact(measured["difference"], "<=", bound, "the same sums in another order")


# %%
PROOFS.show()
