r"""What can be known exactly about paths in a directed acyclic graph (DAG).

Conventions. ``adjacency[u, v]`` is True iff there is an edge u -> v; nodes need not be in topological order.
A *policy* is an array ``policy[g, u, v]``: the probability of stepping from u to v on the way to the goal g. Its
rows are zero at the goal itself and wherever no path to the goal begins. Everything is float64 linear algebra: a
DAG's adjacency matrix A is nilpotent, so every series $\sum_k A^k$ is finite.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lab.contracts import token_predictor
from lab.errors import LabError
from lab.predictors import TokenPredictor

# Integers up to here are exact in float64.
LARGEST_EXACT = 2**53
NEWTON_STEPS = 100

Adjacency = Bool[Tensor, "node node"]
Policy = Float[Tensor, "goal node node"]


def path_counts(adjacency: Bool[Tensor, "*graph node node"]) -> Float[Tensor, "*graph node node"]:
    r"""$C = (I - A)^{-1} = \sum_{k \ge 0} A^k$: C[u, g] is the number of paths u -> g, and C[g, g] = 1.

    Computed as $\prod_j (I + A^{2^j})$, sums and products of non-negative integers, so that every entry is exact.

    Raises:
        LabError: the matrix is not square, the graph has a cycle, or a count exceeds 2^53.

    >>> path_counts(torch.tensor([[0, 1, 1], [0, 0, 1], [0, 0, 0]], dtype=torch.bool))[0, 2].item()
    2.0
    """
    nodes = adjacency.shape[-1]
    if adjacency.shape[-2] != nodes:
        raise LabError(
            f"An adjacency matrix of shape {tuple(adjacency.shape)} is not square; give one row and one column a node."
        )
    power = adjacency.double()
    identity = torch.eye(nodes, dtype=torch.float64, device=adjacency.device)
    counts = identity.expand_as(power)
    for _ in range(max(1, math.ceil(math.log2(max(2, nodes))))):
        counts = counts + counts @ power
        power = power @ power
        if float(counts.amax()) > LARGEST_EXACT:
            _refuse_cycle(adjacency)
            raise LabError(
                f"Some pair has more than 2^53 = {LARGEST_EXACT} paths, which float64 cannot count; use a sparser graph."
            )
    if bool((power > 0).any()):
        _refuse_cycle(adjacency)
    return counts


def transitive_closure(edges: Bool[Tensor, "*graph node node"]) -> Bool[Tensor, "*graph node node"]:
    """True at (u, g) iff one or more edges lead from u to g; cycles are allowed.

    By repeated squaring of 0-1 matrices, so log2(nodes) products.
    """
    nodes = edges.shape[-1]
    reach = edges
    for _ in range(max(1, math.ceil(math.log2(max(2, nodes))))):
        number = reach.double()
        reach = reach | (number @ number > 0)
    return reach


def _refuse_cycle(adjacency: Bool[Tensor, "*graph node node"]) -> None:
    loops = transitive_closure(adjacency).diagonal(dim1=-2, dim2=-1)
    if bool(loops.any()):
        node = int(loops.nonzero()[0, -1])
        raise LabError(
            f"Node {node} lies on a cycle, but paths are counted in acyclic graphs only; remove an edge of the cycle."
        )


def shortest_paths(adjacency: Adjacency) -> Float[Tensor, "node node"]:
    """Number of edges of the shortest path u -> g: 0 at u = g, infinity where there is none."""
    nodes = len(adjacency)
    edges = adjacency.double()
    reached = torch.eye(nodes, dtype=torch.bool, device=adjacency.device)
    distance = torch.where(reached, 0.0, torch.inf).double()
    frontier = reached
    for step in range(1, nodes):
        frontier = (frontier.double() @ edges > 0) & ~reached
        if not bool(frontier.any()):
            break
        reached = reached | frontier
        distance[frontier] = step
    return distance


def longest_path(adjacency: Adjacency) -> int:
    """Number of edges of the longest path anywhere in the graph."""
    _refuse_cycle(adjacency)
    alive = torch.ones(len(adjacency), dtype=torch.float64, device=adjacency.device)
    edges = adjacency.double()
    for length in range(len(adjacency)):
        alive = (edges @ alive > 0).double()
        if not bool(alive.any()):
            return length
    return len(adjacency)


def mean_path_lengths(adjacency: Bool[Tensor, "*graph node node"]) -> Float[Tensor, "*graph node node"]:
    r"""$(A C^2)_{ug} / C_{ug}$: mean number of edges of a uniformly drawn path u -> g; NaN where there is none.

    For $\sum_k k A^k = A C^2$.
    """
    counts = path_counts(adjacency)
    return torch.where(counts > 0, adjacency.double() @ counts @ counts / counts, torch.nan)


def uniform_path_policy(adjacency: Adjacency) -> Policy:
    r"""$\pi(v | u, g) = A_{uv} C_{vg} / C_{ug}$: step by step, the uniform law on all paths u -> g.

    The product over a path telescopes to 1 / C[s, g], the same for every path.
    """
    return _doob(adjacency.double(), path_counts(adjacency))


def conditioned_walk_policy(adjacency: Adjacency) -> Policy:
    r"""$\pi(v | u, g) = Q_{uv} h_{vg} / h_{ug}$: the uniform out-neighbour walk Q, given that it hits g.

    h are the `hitting_probabilities`. Nodes with many neighbours make a path less likely, so long paths are rarer
    than under the uniform law.
    """
    return _doob(uniform_walk(adjacency), hitting_probabilities(adjacency))


def _doob(step: Float[Tensor, "node node"], value: Float[Tensor, "node goal"]) -> Policy:
    """step[u, v] value[v, g] / value[u, g], zero at u = g and where value[u, g] = 0."""
    ratio = step.unsqueeze(0) * value.T.unsqueeze(1) / value.T.unsqueeze(2)
    nodes = torch.arange(len(step), device=step.device)
    ratio = torch.where((value.T > 0).unsqueeze(2), ratio, 0.0)
    ratio[nodes, nodes] = 0.0
    return ratio


def uniform_walk(adjacency: Adjacency) -> Float[Tensor, "node node"]:
    """Q[u, v] = A[u, v] / out-degree of u; a sink has a zero row."""
    edges = adjacency.double()
    return edges / edges.sum(-1, keepdim=True).clamp(min=1.0)


def hitting_probabilities(adjacency: Adjacency) -> Float[Tensor, "node node"]:
    r"""$h_{ug} = ((I - Q)^{-1})_{ug}$: probability that the uniform out-neighbour walk from u ever visits g.

    Expected visits are probabilities because a walk in a DAG visits a node at most once.

    Raises:
        LabError: the graph has a cycle.
    """
    _refuse_cycle(adjacency)
    walk = uniform_walk(adjacency)
    identity = torch.eye(len(adjacency), dtype=torch.float64, device=adjacency.device)
    visits = torch.linalg.solve(identity - walk, identity)
    # Rounding leaves dust where there is no path.
    return torch.where(transitive_closure(adjacency) | identity.bool(), visits, 0.0)


def temper(policy: Policy, temperature: float) -> Policy:
    r"""$\pi^{1/\tau} / \sum \pi^{1/\tau}$ row by row; at $\tau = 0$ the limit, uniform over the modes of a row.

    Raises:
        LabError: a negative temperature.
    """
    if not temperature >= 0:
        raise LabError(f"temperature = {temperature} must be at least 0; use 0 for the likeliest step.")
    peak = policy.amax(-1, keepdim=True)
    live = peak > 0
    relative = torch.where(live, policy / peak, 0.0)
    if temperature == 0:
        # Equal counts divided by the same number are equal up to their last digits.
        weight = (relative > 1 - 1e-9).double()
    else:
        weight = torch.where(relative > 0, relative ** (1 / temperature), 0.0)
    return torch.where(live, weight / weight.sum(-1, keepdim=True), 0.0)


def policy_lengths(policy: Policy) -> Float[Tensor, "node goal"]:
    r"""Mean number of steps a policy takes from u before it stops on its way to g.

    $(I - \Pi_g) t_g = 1$ on the nodes whose row is not zero; t = 0 at the others.
    """
    identity = torch.eye(policy.shape[-1], dtype=policy.dtype, device=policy.device)
    moving = (policy.sum(-1) > 0).to(policy.dtype)
    return torch.linalg.solve(identity - policy, moving.unsqueeze(-1)).squeeze(-1).T


def policy_success(policy: Policy) -> Float[Tensor, "node goal"]:
    r"""$((I - \Pi_g)^{-1})_{ug}$: probability that a policy, noisy or not, arrives at g from u.

    Rows of a policy may sum to less than 1: the rest is the probability of a misstep that ends the attempt.
    """
    nodes = policy.shape[-1]
    identity = torch.eye(nodes, dtype=policy.dtype, device=policy.device)
    return torch.linalg.solve(identity - policy, identity.unsqueeze(-1)).squeeze(-1).T


def expected_paths_hierarchical(width: int, probability: float, layers_up: int) -> float:
    """n^(k-1) p^k: mean number of paths from a node to one given node k = ``layers_up`` layers above.

    Each of the n^(k-1) choices of the nodes between is a path with probability p^k.
    """
    _check_probability(probability)
    return float(width) ** (layers_up - 1) * probability**layers_up


def expected_paths_bernoulli(steps_apart: int, probability: float) -> float:
    """p (1 + p)^(d-1): mean number of paths between nodes d = ``steps_apart`` places apart in topological order.

    Each of the d-1 nodes between is either left out or costs one more edge.
    """
    _check_probability(probability)
    return probability * (1 + probability) ** (steps_apart - 1)


def reach_probability_hierarchical(width: int, probability: float, layers_up: int) -> float:
    r"""P(there is a path) from a node to one given node k = ``layers_up`` layers above.

    The number m of reached nodes of a layer is a Markov chain: m = 1 at the start, then
    m' ~ Bin(n, 1 - (1-p)^m); the last step succeeds with probability 1 - (1-p)^m.
    """
    _check_probability(probability)
    if layers_up < 1:
        raise LabError(f"layers_up = {layers_up} must be at least 1; ask for a layer above.")
    reached = torch.arange(width + 1, dtype=torch.float64)
    hit = 1 - (1 - probability) ** reached
    log_choose = math.lgamma(width + 1) - torch.lgamma(reached + 1) - torch.lgamma(width - reached + 1)
    transition = torch.exp(
        log_choose + torch.xlogy(reached, hit.unsqueeze(1)) + torch.xlogy(width - reached, 1 - hit.unsqueeze(1))
    )
    law = torch.zeros(width + 1, dtype=torch.float64)
    law[1] = 1.0
    for _ in range(layers_up - 1):
        law = law @ transition
    return float(law @ hit)


def _check_probability(probability: float) -> None:
    if not 0 <= probability <= 1:
        raise LabError(f"An edge probability of {probability} is not between 0 and 1; choose one that is.")


def suffix_coverage(
    adjacency: Adjacency, training: Bool[Tensor, "node node"]
) -> tuple[Bool[Tensor, "node node"], Bool[Tensor, "node node"]]:
    """Which pairs (u, g) training paths speak about: directly (K0), and with one more edge (K1).

    K0 = {(u, g), u != g: u lies on some path s -> g of a training pair (s, g)}, u = s included: the rest of such a
    path is itself a path u -> g. K1 adds the (s, g) with an edge s -> v for which v = g or (v, g) is in K0.

    Args:
        training: True at the training pairs (s, g), all connected.
    """
    counts = path_counts(adjacency)
    before = (counts > 0).double()  # before[s, u]: s is u or comes before it
    connected = transitive_closure(adjacency)
    direct = (before.T @ training.double() > 0) & connected
    target = (direct | torch.eye(len(adjacency), dtype=torch.bool, device=adjacency.device)).double()
    return direct, direct | (adjacency.double() @ target > 0)


def edges_on_paths(adjacency: Adjacency, training: Bool[Tensor, "node node"]) -> Bool[Tensor, "node node"]:
    """True at the edges u -> v that lie on some path of a training pair (s, g)."""
    reach = (path_counts(adjacency) > 0).double()
    return adjacency & (reach.T @ training.double() @ reach.T > 0)


def additive_baseline(
    positive: Bool[Tensor, "node node"], negative: Bool[Tensor, "node node"], penalty: float = 1e-3
) -> Float[Tensor, "node node"]:
    r"""logit(s, g) = a_s + b_g + c, the Rasch model of "is there a path", fitted to labelled pairs.

    Minimises the class-balanced mean log-loss plus (``penalty`` / 2)(|a|^2 + |b|^2) by Newton's method; c is free.
    It knows how many nodes s reaches and how many reach g, and nothing about which.

    Args:
        positive: training pairs (s, g) with a path.
        negative: training pairs without.

    Returns:
        the logit of every pair.

    Raises:
        LabError: a class without pairs, or no convergence.
    """
    nodes = len(positive)
    counts = [int(positive.sum()), int(negative.sum())]
    if min(counts) == 0:
        raise LabError(
            f"{counts[0]} connected and {counts[1]} unconnected training pairs cannot fit a classifier; give some of both."
        )
    start, goal = (positive | negative).nonzero(as_tuple=True)
    label = positive[start, goal].double()
    weight = torch.where(label > 0, 0.5 / counts[0], 0.5 / counts[1]).double()
    rows = torch.arange(len(start))
    design = torch.zeros(len(start), 2 * nodes + 1, dtype=torch.float64)
    design[rows, start] = design[rows, nodes + goal] = design[:, -1] = 1.0
    ridge = torch.full((2 * nodes + 1,), penalty, dtype=torch.float64)
    ridge[-1] = 0.0
    theta = torch.zeros(2 * nodes + 1, dtype=torch.float64)
    for _ in range(NEWTON_STEPS):
        chance = torch.sigmoid(design @ theta)
        gradient = design.T @ (weight * (chance - label)) + ridge * theta
        if float(gradient.abs().amax()) < 1e-12:
            return theta[:nodes, None] + theta[nodes:-1] + theta[-1]
        curvature = design.T @ ((weight * chance * (1 - chance)).unsqueeze(1) * design) + torch.diag(ridge)
        theta = theta - torch.linalg.solve(curvature, gradient)
    raise LabError(
        f"The additive baseline did not converge in {NEWTON_STEPS} Newton steps with penalty {penalty}; raise the penalty."
    )


def expected_distinct(paths: float, samples: int) -> float:
    """C (1 - (1 - 1/C)^S): mean number of distinct paths among S uniform draws from C."""
    return float(-paths * math.expm1(samples * math.log1p(-1 / paths))) if paths > 1 else float(paths)


def misstep_probability(
    neighbours: Float[Tensor, "*case"] | float,
    non_neighbours: Float[Tensor, "*case"] | float,
    gap: float,
    temperature: float,
) -> Float[Tensor, "*case"]:
    r"""$M e^{-\Delta/\tau} / (k + M e^{-\Delta/\tau})$: a step along no edge, when every edge beats it by a logit gap.

    Args:
        neighbours: k, tokens that are right.
        non_neighbours: M, tokens that are wrong.
        gap: Delta, in nats at temperature 1.
        temperature: tau > 0.
    """
    wrong = torch.as_tensor(non_neighbours, dtype=torch.float64) * math.exp(-gap / temperature)
    return wrong / (torch.as_tensor(neighbours, dtype=torch.float64) + wrong)


def misstep_gap(neighbours: Float[Tensor, " case"], non_neighbours: Float[Tensor, " case"], measured: float) -> float:
    """The logit gap at which the mean `misstep_probability` at temperature 1 is ``measured`` (by bisection).

    Raises:
        LabError: a measured probability that is not strictly between 0 and the value at equal logits.
    """
    low, high = 0.0, 60.0
    at = [float(misstep_probability(neighbours, non_neighbours, gap, 1.0).mean()) for gap in (low, high)]
    if not at[1] < measured < at[0]:
        raise LabError(
            f"A misstep probability of {measured:.3g} is not between {at[1]:.3g} and {at[0]:.3g}; no logit gap gives it."
        )
    for _ in range(60):
        middle = (low + high) / 2
        if float(misstep_probability(neighbours, non_neighbours, middle, 1.0).mean()) > measured:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def sibling_contrasts(adjacency: Adjacency, pairs: Bool[Tensor, "node node"]) -> Int[Tensor, "contrast 3"]:
    """All (v, w, g), v < w, such that some u with ``pairs[u, g]`` has edges to both v and w, and both lead to g.

    Only there does the law of paths weigh two continuations against each other.
    """
    reach = path_counts(adjacency) > 0
    candidate = (adjacency.unsqueeze(2) & reach.unsqueeze(0) & pairs.unsqueeze(1)).double()  # [u, v, g]
    both = torch.einsum("uvg,uwg->vwg", candidate, candidate) > 0
    nodes = torch.arange(len(adjacency), device=adjacency.device)
    return (both & (nodes[:, None, None] < nodes[None, :, None])).nonzero()


def centred_contrasts(
    table: Float[Tensor, "goal node"], contrasts: Int[Tensor, "contrast 3"]
) -> Float[Tensor, " contrast"]:
    """table[g, v] - table[g, w] minus its mean over the goals at which v and w are weighed against each other.

    What is left is all that a goal table contributes: a function of v alone could stand in the table of the current
    node just as well, and a constant of g cancels in the softmax.
    """
    first, second, goal = contrasts.unbind(1)
    difference = (table[goal, first] - table[goal, second]).double()
    _, group = torch.unique(first * table.shape[1] + second, return_inverse=True)
    size = torch.bincount(group).double()
    return difference - (torch.bincount(group, weights=difference) / size)[group]


_DIAMOND = torch.tensor([[0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]], dtype=torch.bool)


@token_predictor(vocabulary=12, adjacency=_DIAMOND)
def bayes_navigator(vocabulary: int, adjacency: Adjacency, policy: Policy | None = None) -> TokenPredictor:
    r"""The posterior predictive law of paths written as ``g s x_1 ... g END`` (see `lab.domains.graphs.navigation_prompts`).

    $p(v | u, g)$ = ``policy[g, u, v]`` at the current node u, and END with probability 1 at u = g. Uniform over the
    vocabulary where the data determine nothing: after the goal token alone, and where no path to the goal exists.

    Args:
        vocabulary: number of tokens; nodes come first, END is token nodes + 4.
        policy: the law of the paths; the uniform law if None.

    Raises:
        LabError: a cycle, or a token outside the vocabulary.
    """
    nodes = len(adjacency)
    law = uniform_path_policy(adjacency) if policy is None else policy
    table = torch.full((nodes, nodes, vocabulary), 1 / vocabulary, dtype=torch.float64)
    table[law.sum(-1) > 0] = 0.0
    table[..., :nodes] += law
    goals = torch.arange(nodes)
    table[goals, goals] = 0.0
    table[goals, goals, nodes + 4] = 1.0

    def predict(tokens: Int[Tensor, "batch time"], prefix_length: Int[Tensor, " batch"]) -> Tensor:
        outside = tokens[(tokens < 0) | (tokens >= vocabulary)]
        if outside.numel():
            raise LabError(
                f"Token {int(outside[0])} lies outside the vocabulary of {vocabulary}; encode the prompt again."
            )
        goal, current = tokens[:, :1].expand_as(tokens), tokens
        inside = (goal < nodes) & (current < nodes)
        inside = inside & (torch.arange(tokens.shape[1]) > 0)
        predicted = table[goal.clamp(max=nodes - 1), current.clamp(max=nodes - 1)]
        return torch.where(inside.unsqueeze(-1), predicted, 1 / vocabulary).log()

    return predict
