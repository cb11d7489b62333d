"""Sequences over a latent causal graph: every token is drawn from a hidden transition matrix at its parent.

One graph stands behind all sequences and is told to nobody; each sequence has a transition matrix of its own.
A *forest* gives every node at most one parent, ``parents[i]`` < i or `ROOT`; it describes the context
x_0 .. x_{n-1}, after which comes a *test token* x_n without parent, whose child is to be predicted.
With *several parents* a node has a tuple of them, and the token to predict is a node like the others.
(Nichani, Damian, Lee 2024, Task 2.4 and section 6.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lab.contracts import generator
from lab.errors import LabError
from lab.streams import RandomStream

ROOT = -1
Roots = Literal["stationary", "uniform"]
StationaryLaw = Literal["any", "single", "irreducible"]
# Below it a concentration puts all mass on one symbol in float64, and the chain falls into pieces.
SMALLEST_CONCENTRATION = 1e-2
ROUNDING = 1e-9  # what rows of a stochastic matrix may miss 1 by, or as much as their precision makes of it
LARGEST_TABLE = 2**31  # numbers in the tables of a batch, 16 GiB


@dataclass(frozen=True)
class CausalSequences:
    r"""Sequences whose context follows a forest.

    Args:
        tokens: context of n tokens, then the test token; length n + 1.
        transition: $\pi[s, k] = P(\text{child} = k \mid \text{parent} = s)$ of each sequence.
        stationary: $\mu$ with $\mu \pi = \mu$.
        target: $\pi[x_n, \cdot]$, the law of the child of the test token.
    """

    tokens: Int[Tensor, "batch length"]
    transition: Float[Tensor, "batch states states"]
    stationary: Float[Tensor, "batch states"]
    target: Float[Tensor, "batch states"]


@dataclass(frozen=True)
class SeveralParentSequences:
    r"""Sequences whose tokens have k parents each.

    Args:
        tokens: all tokens but the one to predict.
        table: law of a child for each of the S^k tuples of parents' symbols, the first parent's most significant.
        target: law of the token to predict.
    """

    tokens: Int[Tensor, "batch length"]
    table: Float[Tensor, "batch tuples states"]
    target: Float[Tensor, "batch states"]


def chain(nodes: int) -> tuple[int, ...]:
    """Parent i - 1 for every node but the first: an in-context Markov chain.

    >>> chain(4)
    (-1, 0, 1, 2)
    """
    return tuple(range(-1, nodes - 1))


def pairs(nodes: int) -> tuple[int, ...]:
    """Even nodes are roots, odd ones their children: inputs and outputs of a random map ("in-context learning").

    >>> pairs(5)
    (-1, 0, -1, 2, -1)
    """
    return tuple(node - 1 if node % 2 else ROOT for node in range(nodes))


def star(nodes: int) -> tuple[int, ...]:
    """Node 0 is everyone's parent.

    >>> star(4)
    (-1, 0, 0, 0)
    """
    return (ROOT,) + (0,) * (nodes - 1)


def random_forest(source: RandomStream, nodes: int, root_share: float | None = None) -> tuple[int, ...]:
    """Parent of node i uniform on 0 .. i - 1, node 0 a root.

    Args:
        root_share: probability that a later node is a root; None makes "no parent" as likely as each earlier
            node, so that node i is a root with probability 1 / (i + 1).

    Raises:
        LabError: a share outside 0 .. 1.
    """
    if root_share is not None and not 0 <= root_share <= 1:
        raise LabError(f"root_share = {root_share} must be a probability between 0 and 1; please change it.")
    rng = source.child("forest").rng()
    order = np.arange(nodes)
    share = 1 / (order + 1) if root_share is None else np.full(nodes, root_share)
    rooted = rng.random(nodes) < share
    parents = np.floor(rng.random(nodes) * np.maximum(order, 1)).astype(int)
    return tuple(np.where(rooted | (order == 0), ROOT, parents).tolist())


def halves_and_previous(length: int) -> tuple[tuple[int, ...], ...]:
    """Two parents ((i - 1) // 2, i - 1) for each node i from 2 to ``length``; the first two are roots.

    The last of the ``length`` + 1 entries belongs to the token to predict.

    >>> halves_and_previous(4)
    ((), (), (0, 1), (1, 2), (1, 3))
    """
    return ((), ()) + tuple(((node - 1) // 2, node - 1) for node in range(2, length + 1))


def check_forest(parents: Sequence[int]) -> tuple[int, ...]:
    """The forest itself, if every parent comes before its child.

    Raises:
        LabError: no node, or a parent that does not come before its child (as every cycle has one).
    """
    if not len(parents):
        raise LabError("a forest of 0 nodes has no context; give at least 1 node")
    for node, parent in enumerate(parents):
        if not ROOT <= parent < node:
            raise LabError(
                f"node {node} has the parent {parent}, which must be {ROOT} (a root) or an earlier node, so that there is "
                "no cycle; number parents before their children"
            )
    return tuple(int(parent) for parent in parents)


def check_several_parents(graph: Sequence[Sequence[int]]) -> int:
    """The number k of parents of every node of ``graph`` that is not a root.

    Raises:
        LabError: a parent that does not come before its child, nodes with different numbers of parents, or no
            parents of the last node, whose token is to be predicted.
    """
    for node, parents in enumerate(graph):
        late = [parent for parent in parents if not 0 <= parent < node]
        if late:
            raise LabError(
                f"node {node} has the parent {late[0]}, which must be an earlier node, so that there is no cycle; "
                "number parents before their children"
            )
    numbers = {len(parents) for parents in graph if len(parents)}
    if len(numbers) != 1 or not graph[-1]:
        raise LabError(
            f"the nodes have {sorted(numbers)} parents and the last one {len(graph[-1]) if graph else 0}; give the last "
            "node and all others that are not roots the same number of parents"
        )
    return numbers.pop()


def depths(parents: Sequence[int]) -> Int[Tensor, " nodes"]:
    """Number of ancestors of each node: nodes of one depth can be drawn together."""
    levels: list[int] = []
    for parent in parents:
        levels.append(0 if parent == ROOT else levels[parent] + 1)
    return torch.tensor(levels)


def check_roots(roots: str) -> None:
    """Refuse an unknown law of the roots.

    Raises:
        LabError: neither "stationary" nor "uniform".
    """
    if roots not in get_args(Roots):
        raise LabError(f"roots = {roots!r} must be one of {', '.join(get_args(Roots))}; please change it")


def check_prior(states: int, concentration: float) -> None:
    """Refuse what is no prior on transition matrices.

    Raises:
        LabError: fewer than two symbols, or a concentration that is not a usable positive number.
    """
    if states < 2:
        raise LabError(f"an alphabet of {states} symbols leaves nothing to predict; use at least 2")
    if not SMALLEST_CONCENTRATION <= concentration < np.inf:
        raise LabError(
            f"the concentration {concentration} of the Dirichlet prior must be finite and at least "
            f"{SMALLEST_CONCENTRATION}; please change it"
        )


def check_rows(table: Float[Tensor, "*batch contexts states"]) -> Float[Tensor, "*batch contexts states"]:
    """The laws of a table in float64, if they are laws at the precision they are given in.

    A row that misses 1 by more than float64 rounding, as one of a float32 softmax does, is divided by its sum.

    Raises:
        LabError: one symbol; no law; a negative entry, or a row that does not sum to 1.
    """
    states, precision = table.shape[-1], torch.finfo(table.dtype).eps if table.is_floating_point() else 0.0
    if states < 2:
        raise LabError(f"an alphabet of {states} symbols leaves nothing to predict; use at least 2")
    if table.numel() == 0:
        raise LabError(f"a table of the shape {tuple(table.shape)} holds no law to draw from; give at least one")
    table = table.double()
    total = table.sum(-1, keepdim=True)
    worst = float((total - 1).abs().max())
    if not worst <= max(ROUNDING, states * precision) or bool((table < 0).any()):
        raise LabError(
            f"the transition matrix has the smallest entry {float(table.min()):.6g} and rows that miss the sum 1 by "
            f"up to {worst:.3g}, but a stochastic one has none below 0 and rows that sum to 1; normalise its rows"
        )
    rounded = (total - 1).abs() <= states * torch.finfo(table.dtype).eps
    return table if bool(rounded.all()) else torch.where(rounded, table, table / total)


def check_transition(
    transition: Float[Tensor, "*batch states states"], law: StationaryLaw = "any"
) -> Float[Tensor, "*batch states states"]:
    """The matrices in float64, if they are stochastic and have the stationary law asked for (see `check_rows`).

    Args:
        law: ``any`` asks for nothing; ``single`` for one stationary law, which exists exactly if some symbol can be
            reached from every symbol (others may be transient); ``irreducible`` for all symbols to be reached.

    Raises:
        LabError: see `check_rows`; or a symbol that is not reached.
    """
    transition = check_rows(transition)
    states = transition.shape[-1]
    if law == "any":
        return transition
    step = ((transition > 0) | torch.eye(states, dtype=torch.bool)).double()
    reached = torch.linalg.matrix_power(step, states - 1) > 0
    if not bool(reached.all(-2).any(-1).all()):
        raise LabError(
            "no symbol of the transition matrix is reached from all others, so it is reducible to several closed "
            "parts and has no single stationary law; connect them or start uniformly"
        )
    if law == "irreducible" and not bool(reached.all()):
        source, target = torch.nonzero(~reached)[0][-2:].tolist()
        raise LabError(
            f"symbol {target} is never reached from symbol {source}, so the transition matrix is reducible; make every "
            "symbol reachable or start uniformly"
        )
    return transition


def dirichlet_rows(
    source: RandomStream, batch: int, rows: int, states: int, concentration: float, stickiness: float = 0.0
) -> Float[Tensor, "batch {rows} {states}"]:
    r"""Rows $(1 - \kappa)\,\mathrm{Dirichlet}(\alpha, \dots, \alpha) + \kappa\, e_s$, one table a sequence.

    Args:
        concentration: $\alpha$.
        stickiness: $\kappa$, the weight added to repeating the parent's symbol (row s, symbol s).

    Raises:
        LabError: see `check_prior`; a stickiness outside [0, 1), or for a table that is not square; or more rows than
            memory holds.
    """
    check_prior(states, concentration)
    if batch * rows * states > LARGEST_TABLE:
        raise LabError(
            f"{batch} tables of {rows} rows over {states} symbols hold {batch * rows * states:.3g} numbers, but at most "
            f"{LARGEST_TABLE:.3g} are drawn at once; lower the order, the symbols or the batch"
        )
    if not 0 <= stickiness < 1 or (stickiness and rows != states):
        raise LabError(
            f"stickiness = {stickiness} must lie in [0, 1) and be 0 for a table of {rows} rows over {states} symbols; "
            "please change it"
        )
    table = torch.from_numpy(source.rng().dirichlet(np.full(states, concentration), (batch, rows)))
    return table if stickiness == 0 else (1 - stickiness) * table + stickiness * torch.eye(states).to(table)


def stationary_law(transition: Float[Tensor, "*batch states states"]) -> Float[Tensor, "*batch states"]:
    r"""$\mu$ with $\mu \pi = \mu$, $\sum_s \mu_s = 1$, by elimination of states (Grassmann, Taksar, Heyman 1985).

    The elimination adds, multiplies and divides positive numbers only, so that every entry has a small
    *relative* error even where the chain nearly falls into pieces, as it does for concentrations about 0.1.

    Raises:
        LabError: matrices that are not square, or see `check_rows`.
    """
    if transition.shape[-2] != transition.shape[-1]:
        raise LabError(f"matrices of the shape {tuple(transition.shape)} are no transition matrices; give square ones")
    if transition.numel() and transition.shape[-1] > 1:
        check_rows(transition.detach())
    chain = transition.clone()
    states = chain.shape[-1]
    tiny = torch.finfo(chain.dtype).tiny
    for last in range(states - 1, 0, -1):
        leaving = chain[..., last, :last].sum(-1, keepdim=True).clamp_min(tiny)
        chain[..., :last, last] = chain[..., :last, last] / leaving
        chain[..., :last, :last] += chain[..., :last, last, None] * chain[..., last, None, :last]
    weights = [torch.ones_like(chain[..., 0, 0])]
    for state in range(1, states):
        entering = torch.stack([weights[other] * chain[..., other, state] for other in range(state)])
        weights.append(entering.sum(0))
        # Only proportions count, and a state that is almost never left can outgrow float64.
        scale = torch.clamp_min(weights[-1], 1.0)
        weights = [weight / scale for weight in weights]
    unnormalised = torch.stack(weights, dim=-1)
    return unnormalised / unnormalised.sum(-1, keepdim=True)


def _symbols(edges: Float[Tensor, "edges *#batch"], uniform: Float[Tensor, "*batch"]) -> Int[Tensor, "*batch"]:
    """The symbol k with edge k - 1 <= u < edge k of the cumulative law, whose last edge 1 is left out."""
    return (uniform >= edges).sum(0)


def sample_forest(
    source: RandomStream,
    transition: Float[Tensor, "batch states states"],
    root_law: Float[Tensor, "batch states"],
    parents: Sequence[int],
) -> Int[Tensor, "batch length"]:
    r"""Tokens x_0 .. x_n: roots from ``root_law``, children from $\pi[x_p]$, and the test token x_n uniform.

    Nodes of one depth are drawn together, for the whole batch.

    Raises:
        LabError: see `check_forest`.
    """
    parents = check_forest(parents)
    batch, states, _ = transition.shape
    # Nodes first, so that what is read and written together lies together.
    uniform = torch.from_numpy(source.rng().random((batch, len(parents) + 1))).T.contiguous()
    tokens = torch.empty(uniform.shape, dtype=torch.long)
    tokens[-1] = (uniform[-1] * states).long().clamp_max(states - 1)
    depth, parent = depths(parents), torch.tensor(parents)
    founders = torch.nonzero(depth == 0).flatten()
    tokens[founders] = _symbols(root_law.cumsum(-1).T[:-1].unsqueeze(1), uniform[founders])
    edges = transition.cumsum(-1).flatten(0, 1).T[:-1].contiguous()
    rows = states * torch.arange(batch)
    for level in range(1, int(depth.max()) + 1):
        places = torch.nonzero(depth == level).flatten()
        tokens[places] = _symbols(edges[:, rows + tokens[parent[places]]], uniform[places])
    return tokens.T.contiguous()


def sequences_of(
    source: RandomStream, transition: Float[Tensor, "batch states states"], parents: Sequence[int], roots: Roots
) -> CausalSequences:
    """Sequences of given transition matrices, e.g. of one that the prior would never draw.

    Raises:
        LabError: an unknown law of the roots; or see `check_transition` (one law if roots are stationary) and
            `check_forest`.
    """
    check_roots(roots)
    transition = check_transition(transition, "single" if roots == "stationary" else "any")
    return _sequences(source, transition, parents, roots)


def _sequences(source: RandomStream, transition: Tensor, parents: Sequence[int], roots: Roots) -> CausalSequences:
    """`sequences_of` matrices that are known to be transition matrices."""
    law = stationary_law(transition)
    root_law = law if roots == "stationary" else torch.full_like(law, 1 / law.shape[-1])
    tokens = sample_forest(source.child("tokens"), transition, root_law, parents)
    target = transition[torch.arange(len(tokens)), tokens[:, -1]]
    return CausalSequences(tokens, transition, law, target)


@generator(states=3, parents=(-1, 0, 0, -1, 2), concentration=1.0)
def causal_sequences(
    source: RandomStream,
    batch: int,
    states: int,
    parents: Sequence[int],
    concentration: float,
    roots: Roots = "stationary",
    stickiness: float = 0.0,
) -> CausalSequences:
    r"""Sequences over a forest, each with a transition matrix of its own.

    $\pi \sim$ rows of `dirichlet_rows`; $x_i \sim \mu_\pi$ (or uniform) for a root and $x_i \sim \pi[x_{p(i)}]$ for
    a child; $x_n$ uniform; target $\pi[x_n]$.

    Args:
        states: S, the size of the alphabet.
        parents: p, see `check_forest`.
        concentration: $\alpha$ of the prior; ``stickiness`` its $\kappa$.
        roots: law of the roots.

    Raises:
        LabError: an unknown law of the roots; or see `check_forest` and `dirichlet_rows`.
    """
    check_roots(roots)
    transition = dirichlet_rows(source.child("transition"), batch, states, states, concentration, stickiness)
    return _sequences(source, transition, parents, roots)


def tuple_codes(
    tokens: Int[Tensor, "batch length"], graph: Sequence[Sequence[int]], nodes: Sequence[int], states: int
) -> Int[Tensor, "batch nodes"]:
    """The number sum_h x_{p_h} S^{k-1-h} of the parents' symbols of each node of ``nodes``."""
    places = torch.tensor([list(graph[node]) for node in nodes])
    digits = states ** torch.arange(places.shape[1] - 1, -1, -1)
    return (tokens[:, places] * digits).sum(-1)


@generator(states=3, graph=((), (), (0, 1), (1, 2), (0, 3)), concentration=1.0)
def several_parent_sequences(
    source: RandomStream, batch: int, states: int, graph: Sequence[Sequence[int]], concentration: float
) -> SeveralParentSequences:
    """Sequences in which the law of a token is a row of a random table, chosen by the symbols of its k parents.

    Rows are Dirichlet with ``concentration``; roots are uniform. The last entry of ``graph`` belongs to the
    token to predict, which is not drawn: its law is the target.

    Raises:
        LabError: see `check_several_parents` and `check_prior`.
    """
    k = check_several_parents(graph)
    table = dirichlet_rows(source.child("table"), batch, states**k, states, concentration)
    length = len(graph) - 1
    uniform = torch.from_numpy(source.child("tokens").rng().random((batch, length)))
    tokens = (uniform * states).long().clamp_max(states - 1)
    edges = table.cumsum(-1)
    rows = torch.arange(batch)
    for node in range(length):  # the parents of a node may have any depth, so nodes come one by one
        if graph[node]:
            code = tuple_codes(tokens, graph, [node], states)[:, 0]
            tokens[:, node] = _symbols(edges[rows, code].T[:-1], uniform[:, node])
    target = table[rows, tuple_codes(tokens, graph, [length], states)[:, 0]]
    return SeveralParentSequences(tokens, table, target)
