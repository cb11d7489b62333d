r"""Three laws of paths in a directed acyclic graph: steps that only know what leads where, length, and coverage.

Conventions are those of `lab.domains.graphs.navigation`: a policy is ``policy[g, u, v]``, zero at the goal and where no
path to it begins.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lab.domains.graphs.navigation import Adjacency, Policy, path_counts, transitive_closure
from lab.errors import LabError


def reachability_policy(adjacency: Adjacency) -> Policy:
    r"""Uniform over the edges $u \to v$ from whose end $v$ the goal can be reached: $A_{uv} 1[C_{vg} > 0]$, normalised.

    It knows which steps lead to the goal and does not count the paths behind them.

    Raises:
        LabError: the graph has a cycle.
    """
    leads = (path_counts(adjacency) > 0).T
    steps = (adjacency & leads.unsqueeze(1)).double()
    goals = torch.arange(len(adjacency), device=adjacency.device)
    steps[goals, goals] = 0.0
    return steps / steps.sum(-1, keepdim=True).clamp(min=1.0)


def step_entropies(policy: Policy) -> Float[Tensor, "goal node"]:
    r"""$H_g(u) = -\sum_v \pi(v | u, g) \log \pi(v | u, g)$, 0 where a policy does not move."""
    return -torch.xlogy(policy, policy).sum(-1)


def length_slope(policy: Policy) -> Float[Tensor, "node goal"]:
    r"""$\frac{d}{d\beta} E[\ell]$ at $\beta = 1$ for steps $\propto \pi^\beta$: how fast cooling lengthens paths u -> g.

    The log-probability of a path has the derivative $\sum_t \left(\log \pi_t + H_t\right)$, whose terms have mean 0 at
    every node, so that only what is still to come counts. With $L_v$ the mean length from v,

        slope(u) = sum over the nodes w on the way (expected visits)  Cov_{v ~ pi(. | w)}(log pi(v | w), L_v).

    Under the uniform law on paths $\sum_t \log \pi_t = -\log C_{ug}$ is the same for all paths, and the slope is
    $\mathrm{Cov}(\ell, \sum_t H_t)$.

    Args:
        policy: rows sum to 1 where it moves.
    """
    identity = torch.eye(policy.shape[-1], dtype=policy.dtype, device=policy.device)
    moving = (policy.sum(-1) > 0).to(policy.dtype)
    system = identity - policy
    lengths = torch.linalg.solve(system, moving.unsqueeze(-1))
    centred = torch.xlogy(policy, policy) + policy * step_entropies(policy).unsqueeze(-1)
    return torch.linalg.solve(system, centred @ lengths).squeeze(-1).T


def coverage_probabilities(adjacency: Adjacency, trained: int) -> Float[Tensor, "node node"]:
    r"""P((u, g) lies on some path of a training pair, given that it is held out itself), NaN where u does not lead to g.

    Of the N connected pairs ``trained`` are drawn, uniformly without replacement. A held-out (u, g) is covered if one of
    the $m_u$ pairs (s, g), s an ancestor of u, is among them (`navigation.suffix_coverage`): hypergeometrically,

        1 - C(N - 1 - m_u, k) / C(N - 1, k),    k = ``trained``.

    The mean over all connected pairs is the expected share of held-out pairs that are covered.

    Raises:
        LabError: a cycle, or a number of training pairs that leaves none held out.
    """
    connected = path_counts(adjacency).gt(0).fill_diagonal_(False)
    pairs = int(connected.sum())
    if not 0 <= trained < pairs:
        raise LabError(f"{trained} of {pairs} connected pairs cannot be trained on and leave one out; choose fewer.")
    ancestors = transitive_closure(adjacency).sum(0, dtype=torch.float64)
    drawn = torch.arange(trained, dtype=torch.float64)
    missed = ((pairs - 1 - ancestors.unsqueeze(1) - drawn).clamp(min=0) / (pairs - 1 - drawn)).prod(1)
    return torch.where(connected, (1 - missed).unsqueeze(1), torch.nan)


def covered_share(adjacency: Adjacency, trained: int) -> float:
    """Expected share of the held-out connected pairs on paths of ``trained`` training pairs (`coverage_probabilities`)."""
    return float(coverage_probabilities(adjacency, trained).nanmean())
