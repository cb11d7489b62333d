"""Random directed acyclic graphs, paths in them, and the token sequences that describe a path.

Two families of tasks. In *navigation* one graph is fixed and lives in the weights of a model; a prompt names a start
and a goal. In *motif chains* several small graphs (motifs) are fixed, and the edges that join them ("ghost edges") are
drawn anew for every sequence and shown only by exemplar paths in the context.

Token ids: the nodes 0 .. N-1 first, then eight signs, see `Vocabulary`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lab.contracts import generator
from lab.domains.graphs import navigation as exact
from lab.errors import LabError
from lab.streams import RandomStream

Layout = Literal["stepwise", "direct", "filler", "path"]
FILLERS = 8
ATTEMPTS = 256
MOTIF = 6  # nodes of a motif: two sources, two nodes between, two sinks
EXEMPLAR = 7  # tokens of one exemplar: three nodes on either side of a ghost edge, and a separator

_DIAMOND = torch.tensor([[0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]], dtype=torch.bool)


@dataclass(frozen=True)
class Vocabulary:
    """Which token means what, for graphs of ``nodes`` nodes: ids below ``nodes`` are the nodes themselves."""

    nodes: int

    @property
    def goal(self) -> int:
        return self.nodes

    @property
    def start(self) -> int:
        return self.nodes + 1

    @property
    def connected(self) -> int:
        """The answer "there is a path"."""
        return self.nodes + 2

    @property
    def unconnected(self) -> int:
        """The answer "there is none"."""
        return self.nodes + 3

    @property
    def end(self) -> int:
        return self.nodes + 4

    @property
    def pad(self) -> int:
        return self.nodes + 5

    @property
    def filler(self) -> int:
        return self.nodes + 6

    @property
    def separator(self) -> int:
        return self.nodes + 7

    @property
    def size(self) -> int:
        """Number of different tokens."""
        return self.nodes + 8


@dataclass(frozen=True)
class Graphs:
    """Random DAGs. ``layer[u]``: place of node u in the order that edges respect (edges lead to higher layers)."""

    adjacency: Bool[Tensor, "batch node node"]
    layer: Int[Tensor, "batch node"]


@dataclass(frozen=True)
class Pairs:
    """(start, goal) pairs as tables ``[start, goal]``, disjoint; negative: a goal above the start with no path to it."""

    training_positive: Bool[Tensor, "node node"]
    training_negative: Bool[Tensor, "node node"]
    held_out_positive: Bool[Tensor, "node node"]
    held_out_negative: Bool[Tensor, "node node"]


@dataclass(frozen=True)
class Sequences:
    """A batch of token sequences to predict, and what they are about.

    Attributes:
        tokens: padded with the pad token.
        targets: the next token where it is to be predicted (after the prompt), else -1.
        loss_mask: True where ``targets`` is a token.
        prefix_length: tokens of the prompt.
        start, goal: the pair asked about.
        connected: whether a path exists.
    """

    tokens: Int[Tensor, "batch time"]
    targets: Int[Tensor, "batch time"]
    loss_mask: Bool[Tensor, "batch time"]
    prefix_length: Int[Tensor, " batch"]
    start: Int[Tensor, " batch"]
    goal: Int[Tensor, " batch"]
    connected: Bool[Tensor, " batch"]


def _probability(value: float) -> None:
    if not 0 <= value <= 1:
        raise LabError(f"An edge probability of {value} is not between 0 and 1; choose one that is.")


def _positive(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise LabError(f"{name} = {size} must be at least 1; choose a larger number.")


@generator(nodes=6, probability=0.4)
def bernoulli_dag(stream: RandomStream, batch: int, nodes: int, probability: float) -> Graphs:
    """DAGs in which each edge i -> j, i < j, is there with ``probability``, independently.

    Raises:
        LabError: no nodes, or a probability outside [0, 1].
    """
    _positive(nodes=nodes)
    _probability(probability)
    draws = torch.from_numpy(stream.child("edges").rng().random((batch, nodes, nodes)))
    return Graphs((draws < probability).triu(1), torch.arange(nodes).expand(batch, nodes))


@generator(layers=3, width=3, probability=0.4)
def hierarchical_dag(stream: RandomStream, batch: int, layers: int, width: int, probability: float) -> Graphs:
    """DAGs of ``layers`` layers of ``width`` nodes; edges lead one layer up, each there with ``probability``.

    Raises:
        LabError: no layers or nodes, or a probability outside [0, 1].
    """
    _positive(layers=layers, width=width)
    _probability(probability)
    nodes = layers * width
    layer = torch.arange(nodes) // width
    draws = torch.from_numpy(stream.child("edges").rng().random((batch, nodes, nodes)))
    return Graphs((draws < probability) & (layer == layer[:, None] + 1), layer.expand(batch, nodes))


def split_pairs(
    stream: RandomStream, adjacency: exact.Adjacency, layer: Int[Tensor, " node"], fraction: float
) -> Pairs:
    """A random ``fraction`` of the connected pairs, and of the unconnected ones, for training; the rest held out.

    Unconnected pairs count only if the goal lies in a higher layer: the others could be told by their layer alone.

    Raises:
        LabError: a fraction that leaves no pair of either kind on either side.
    """
    positive = exact.path_counts(adjacency).gt(0).fill_diagonal_(False)
    negative = (layer[:, None] < layer) & ~positive
    chosen = []
    for name, pairs in (("positive", positive), ("negative", negative)):
        number = int(pairs.sum())
        keep = round(fraction * number)
        if not 0 < keep < number:
            raise LabError(
                f"A training fraction of {fraction} takes {keep} of {number} {name} pairs; choose one that leaves "
                "some on both sides."
            )
        rank = torch.from_numpy(stream.child(name).rng().permutation(number))
        table = torch.zeros_like(pairs)
        table[pairs] = rank < keep
        chosen.append(table)
    return Pairs(chosen[0], chosen[1], positive & ~chosen[0], negative & ~chosen[1])


def split_by_distance(adjacency: exact.Adjacency, layer: Int[Tensor, " node"], limit: int) -> Pairs:
    """Pairs at most ``limit`` layers apart for training, the farther ones held out.

    Raises:
        LabError: a limit that leaves nothing on one side.
    """
    positive = exact.path_counts(adjacency).gt(0).fill_diagonal_(False)
    apart = layer - layer[:, None]
    negative = (apart > 0) & ~positive
    near = apart <= limit
    pairs = Pairs(positive & near, negative & near, positive & ~near, negative & ~near)
    if not all(bool(table.any()) for table in vars(pairs).values()):
        raise LabError(
            f"A distance limit of {limit} leaves no pairs on one side; the layers run from 0 to {int(layer.max())}."
        )
    return pairs


def sample_pairs(
    stream: RandomStream,
    batch: int,
    positive: Bool[Tensor, "node node"],
    negative: Bool[Tensor, "node node"] | None = None,
) -> tuple[Int[Tensor, " batch"], Int[Tensor, " batch"], Bool[Tensor, " batch"]]:
    """Starts, goals and labels of ``batch`` uniformly drawn pairs; every second one negative where there are any.

    Raises:
        LabError: no pairs to draw from.
    """
    connected = torch.ones(batch, dtype=torch.bool)
    if negative is not None:
        connected = torch.arange(batch) % 2 == 0
    drawn = torch.zeros(batch, 2, dtype=torch.int64)
    for name, table, rows in (("connected", positive, connected), ("unconnected", negative, ~connected)):
        if table is None:
            continue
        listed = table.nonzero()
        if len(listed) == 0:
            raise LabError(f"There are no {name} pairs to draw from; use a denser graph or another split.")
        uniform = torch.from_numpy(stream.child(name).rng().random(batch))
        drawn[rows] = listed[(uniform * len(listed)).long()][rows]
    return drawn[:, 0], drawn[:, 1], connected


def sample_walks(
    stream: RandomStream,
    policy: Float[Tensor, "goal node node"],
    starts: Int[Tensor, " batch"],
    goals: Int[Tensor, " batch"],
    steps: int,
) -> Int[Tensor, "batch walk"]:
    """Walks x_0 = start, x_{t+1} ~ policy[goal, x_t, .], until a row without mass; -1 after that.

    A row's missing mass plays no role: rows are normalised as they are drawn from. All walks advance together.

    Args:
        policy: see `lab.domains.graphs.navigation`; its goal axis may have size 1 for a walk with no goal.
        steps: the most steps taken.

    Raises:
        LabError: a start or goal that is not a node.
    """
    nodes = policy.shape[-1]
    for name, ids in (("start", starts), ("goal", goals)):
        outside = ids[(ids < 0) | (ids >= nodes)]
        if outside.numel():
            raise LabError(
                f"The {name} {int(outside[0])} is not a node of the graph, whose nodes are 0 to {nodes - 1}; choose one."
            )
    # Only the out-neighbours of a node, smallest first: rows as short as the largest out-degree.
    support = (policy > 0).any(0)
    degree = max(1, int(support.sum(1).max()))
    neighbours = support.int().argsort(dim=1, descending=True, stable=True)[:, :degree]
    cumulative = policy.gather(2, neighbours.expand(len(policy), -1, -1)).cumsum(-1).flatten(0, 1)
    base = goals * nodes if policy.shape[0] > 1 else torch.zeros_like(goals)
    uniform = torch.from_numpy(stream.child("steps").rng().random((len(starts), steps)))
    walks = torch.full((len(starts), steps + 1), -1, dtype=torch.int64)
    walks[:, 0] = starts
    moving, current = torch.arange(len(starts)), starts
    for step in range(steps):
        row = cumulative[base[moving] + current]
        total = row[:, -1]
        alive = total > 0
        moving, current, row, total = moving[alive], current[alive], row[alive], total[alive]
        if not len(moving):
            break
        threshold = (uniform[moving, step] * total).unsqueeze(1)
        current = neighbours[current, (row <= threshold).sum(1).clamp(max=degree - 1)]
        walks[moving, step + 1] = current
    return walks


def random_node_of(stream: RandomStream, walks: Int[Tensor, "batch step"]) -> Int[Tensor, " batch"]:
    """A uniformly drawn node of each walk, its last one excepted (the walk's only node where it has one)."""
    length = (walks >= 0).sum(1)
    uniform = torch.from_numpy(stream.child("node").rng().random(len(walks)))
    place = (uniform * (length - 1).clamp(min=1)).long()
    return walks.gather(1, place.unsqueeze(1)).squeeze(1)


def write_sequences(
    layout: Layout,
    vocabulary: Vocabulary,
    walks: Int[Tensor, "batch step"],
    goals: Int[Tensor, " batch"],
    connected: Bool[Tensor, " batch"],
) -> Sequences:
    """The tokens of one question and its answer, in one of four layouts.

    ========  =============================================================
    stepwise  GOAL g START s x_1 ... x_n answer END
    direct    GOAL g START s answer END
    filler    GOAL g START s FILLER x 8 answer END
    path      g s x_1 ... x_n END        (connected pairs only)
    ========  =============================================================

    Everything after the start node is to be predicted (in "filler", the answer and END only).

    Args:
        walks: nodes s, x_1, ..., x_n, then -1.
        connected: the answer.

    Raises:
        LabError: an unknown layout.
    """
    if layout not in get_args(Layout):
        raise LabError(f"The layout {layout!r} is unknown; choose one of {', '.join(get_args(Layout))}.")
    batch, rows = len(walks), torch.arange(len(walks))
    count = (walks >= 0).sum(1)
    answer = torch.where(connected, vocabulary.connected, vocabulary.unconnected)
    head = [goals] if layout == "path" else [torch.full((batch,), vocabulary.goal), goals]
    head += [] if layout == "path" else [torch.full((batch,), vocabulary.start)]
    if layout in ("direct", "filler"):
        body = walks[:, :1]
        count = torch.ones_like(count)
        if layout == "filler":
            body = torch.cat([body, torch.full((batch, FILLERS), vocabulary.filler)], 1)
            count = count + FILLERS
    else:
        body = torch.where(walks >= 0, walks, vocabulary.pad)
    tail = torch.full((batch, 1 if layout == "path" else 2), vocabulary.pad)
    tokens = torch.cat([torch.stack(head, 1), body, tail], 1)
    after = len(head) + count
    if layout != "path":
        tokens[rows, after] = answer
        after = after + 1
    tokens[rows, after] = vocabulary.end
    place = torch.arange(tokens.shape[1])
    prefix = len(head) + 1
    first = prefix + FILLERS if layout == "filler" else prefix
    scored = (place + 1 >= first) & (place < after.unsqueeze(1))
    following = torch.cat([tokens[:, 1:], tokens[:, -1:]], 1)
    return Sequences(
        tokens, torch.where(scored, following, -1), scored, torch.full((batch,), prefix), walks[:, 0], goals, connected
    )


@generator(adjacency=_DIAMOND, positive=_DIAMOND, negative=_DIAMOND.T)
def navigation(
    stream: RandomStream,
    batch: int,
    adjacency: exact.Adjacency,
    positive: Bool[Tensor, "node node"],
    negative: Bool[Tensor, "node node"] | None = None,
    layout: Layout = "stepwise",
    policy: exact.Policy | None = None,
    suffixes: bool = False,
) -> Sequences:
    """Sequences about uniformly drawn pairs of one graph, half of them negative where negatives are given.

    A connected pair comes with a path drawn from ``policy`` (None: uniformly among all paths), an unconnected one
    with a uniform out-neighbour walk from the start to a sink. Which is which is read off the graph: a pair without a
    path is answered so, in whatever table it stands.

    Args:
        adjacency: the graph.
        positive, negative: tables [start, goal] of pairs to draw from.
        suffixes: ask about a random node of the path instead of its start (the rest of the path is the answer).

    Raises:
        LabError: a cycle, no pairs, an unknown layout, or a pair without a path in the layout "path".
    """
    steps = max(1, exact.longest_path(adjacency))
    starts, goals, _ = sample_pairs(stream.child("pairs"), batch, positive, negative)
    connected = exact.path_counts(adjacency)[starts, goals] > 0
    if layout == "path" and not bool(connected.all()):
        row = int((~connected).int().argmax())
        raise LabError(
            f"No path leads from node {int(starts[row])} to node {int(goals[row])}, which the layout 'path' cannot say; "
            "use the layout 'stepwise' or connected pairs only."
        )
    law = exact.uniform_path_policy(adjacency) if policy is None else policy
    walks = sample_walks(stream.child("paths"), law, starts, goals, steps)
    if not bool(connected.all()):
        aimless = exact.uniform_walk(adjacency).unsqueeze(0)
        astray = sample_walks(stream.child("walks"), aimless, starts, goals, steps)
        walks = torch.where(connected.unsqueeze(1), walks, astray)
    if suffixes:
        picked = random_node_of(stream.child("suffixes"), walks)
        place = (walks == picked.unsqueeze(1)).int().argmax(1)
        columns = place.unsqueeze(1) + torch.arange(walks.shape[1])
        padded = torch.cat([walks, torch.full((batch, 1), -1)], 1)
        walks = padded.gather(1, columns.clamp(max=walks.shape[1]))
    return write_sequences(layout, Vocabulary(len(adjacency)), walks, goals, connected)


@dataclass(frozen=True)
class MotifChains:
    """Sequences about chains of motifs.

    Attributes:
        tokens, targets, loss_mask, prefix_length: as in `Sequences`.
        ghosts: the edges (sink, source) that only the context shows, in the order of the exemplars.
        goal: the goal.
    """

    tokens: Int[Tensor, "batch time"]
    targets: Int[Tensor, "batch time"]
    loss_mask: Bool[Tensor, "batch time"]
    prefix_length: Int[Tensor, " batch"]
    ghosts: Int[Tensor, "batch exemplar 2"]
    goal: Int[Tensor, " batch"]


def sample_motifs(stream: RandomStream, motifs: int, probability: float) -> Bool[Tensor, "node node"]:
    """One adjacency matrix of ``motifs`` separate motifs: 2 sources, 2 nodes between, 2 sinks, edges layer by layer.

    Node 6 m + j is node j of motif m: sources j = 0, 1, between 2, 3, sinks 4, 5. Edges are there with
    ``probability``, redrawn until each source reaches each sink.

    Raises:
        LabError: a probability at which 256 draws do not suffice.
    """
    _probability(probability)
    draws = torch.from_numpy(stream.child("edges").rng().random((motifs, ATTEMPTS, 2, 2, 2))) < probability
    connected = (draws[:, :, 0].double() @ draws[:, :, 1].double() > 0).flatten(2).all(-1)
    if not bool(connected.any(1).all()):
        raise LabError(
            f"Edges with probability {probability} gave no connected motif in {ATTEMPTS} draws; raise the probability."
        )
    chosen = draws[torch.arange(motifs), connected.int().argmax(1)]
    blocks = torch.zeros(motifs, MOTIF, MOTIF, dtype=torch.bool)
    blocks[:, 0:2, 2:4] = chosen[:, 0]
    blocks[:, 2:4, 4:6] = chosen[:, 1]
    return torch.block_diag(*blocks.int()).bool()


def reserve_orders(stream: RandomStream, motifs: int, reserved: int) -> Bool[Tensor, "motif motif"]:
    """``reserved`` ordered pairs (i, j), i != j, True: never neighbours in the chains of a training.

    Raises:
        LabError: more pairs than there are.
    """
    number = motifs * (motifs - 1)
    if not 0 <= reserved < number:
        raise LabError(f"{reserved} of {number} ordered pairs of motifs cannot be reserved; leave some for training.")
    table = torch.zeros(motifs, motifs, dtype=torch.bool)
    table[~torch.eye(motifs, dtype=torch.bool)] = (
        torch.from_numpy(stream.child("orders").rng().permutation(number)) < reserved
    )
    return table


def sample_chains(
    stream: RandomStream, batch: int, length: int, reserved: Bool[Tensor, "motif motif"], held_out: bool = False
) -> Int[Tensor, "batch {length}"]:
    """Chains of different motifs, uniform among those without a reserved pair of neighbours (``held_out``: with one).

    Raises:
        LabError: a chain longer than there are motifs, or no such chain in 256 draws.
    """
    motifs = len(reserved)
    if not 1 <= length <= motifs:
        raise LabError(f"A chain of {length} different motifs cannot be made of {motifs}; shorten it.")
    chains = np.zeros((batch, length), dtype=np.int64)
    table, open_rows = reserved.numpy(), np.ones(batch, dtype=bool)
    for attempt in range(ATTEMPTS):
        # All rows are drawn each time, so that a row does not depend on how many others are still open.
        drawn = stream.child("chains", attempt).rng().random((batch, motifs)).argsort(1)[:, :length]
        fits = table[drawn[:, :-1], drawn[:, 1:]].any(1) == held_out
        chains[open_rows & fits] = drawn[open_rows & fits]
        open_rows &= ~fits
        if not open_rows.any():
            return torch.from_numpy(chains)
    raise LabError(
        f"No chain of {length} motifs {'with' if held_out else 'without'} a reserved pair was found in {ATTEMPTS} "
        "draws; reserve another number of pairs."
    )


def _choose(stream: RandomStream, name: str, shape: tuple[int, ...]) -> Int[Tensor, ...]:
    """Fair 0-1 draws."""
    return torch.from_numpy(stream.child(name).rng().integers(0, 2, shape))


def _between(
    stream: RandomStream,
    name: str,
    adjacency: exact.Adjacency,
    source: Int[Tensor, "batch place"],
    sink: Int[Tensor, "batch place"],
) -> Int[Tensor, "batch place"]:
    """A node on a path source -> node -> sink of one motif, uniform among the one or two there are."""
    first = source // MOTIF * MOTIF + 2
    possible = [adjacency[source, first + j] & adjacency[first + j, sink] for j in (0, 1)]
    coin = _choose(stream, name, tuple(source.shape)).bool()
    return first + torch.where(possible[0] & possible[1], coin, possible[1]).long()


def _write_chains(
    stream: RandomStream,
    adjacency: exact.Adjacency,
    chain: Int[Tensor, "batch length"],
    links: Int[Tensor, "batch exemplar 2"],
    ghosts: Int[Tensor, "batch exemplar 2"],
    shuffled: bool,
) -> MotifChains:
    """Exemplars of all ``links`` (motif, motif), then the question and the answer along ``chain``.

    The first length - 1 links are those of the chain.
    """
    batch, length = chain.shape
    exemplars = links.shape[1]
    vocabulary = Vocabulary(len(adjacency))
    shape = (batch, exemplars)
    source = links[..., 0] * MOTIF + _choose(stream, "exemplar sources", shape)
    sink = links[..., 1] * MOTIF + 4 + _choose(stream, "exemplar sinks", shape)
    into, out = ghosts.unbind(-1)
    before = _between(stream, "exemplar first halves", adjacency, source, into)
    after = _between(stream, "exemplar second halves", adjacency, out, sink)
    separator = torch.full(shape, vocabulary.separator)
    context = torch.stack([source, before, into, out, after, sink, separator], -1)
    order = torch.arange(exemplars).expand(shape)
    if shuffled:
        order = torch.from_numpy(stream.child("order").rng().random(shape)).argsort(1)
    context = context.gather(1, order.unsqueeze(-1).expand_as(context)).flatten(1)

    start = chain[:, :1] * MOTIF + _choose(stream, "start", (batch, 1))
    goal = chain[:, -1:] * MOTIF + 4 + _choose(stream, "goal", (batch, 1))
    sources = torch.cat([start, out[:, : length - 1]], 1)
    sinks = torch.cat([into[:, : length - 1], goal], 1)
    between = _between(stream, "path", adjacency, sources, sinks)
    path = torch.stack([sources, between, sinks], -1).flatten(1)
    sign = torch.ones(batch, 1, dtype=torch.int64)
    tokens = torch.cat([context, sign * vocabulary.goal, goal, sign * vocabulary.start, path, sign * vocabulary.end], 1)
    prefix = EXEMPLAR * exemplars + 4
    place = torch.arange(tokens.shape[1])
    scored = ((place + 1 >= prefix) & (place + 1 < tokens.shape[1])).expand(tokens.shape)
    targets = torch.where(scored, torch.cat([tokens[:, 1:], tokens[:, -1:]], 1), -1)
    return MotifChains(tokens, targets, scored, torch.full((batch,), prefix), ghosts, goal.squeeze(1))


_MOTIFS = torch.block_diag(*[_DIAMOND.new_tensor(np.kron(np.eye(3, k=1), np.ones((2, 2))) > 0).int()] * 4).bool()


@generator(adjacency=_MOTIFS, length=3, reserved=torch.zeros(4, 4, dtype=torch.bool))
def motif_chains(
    stream: RandomStream,
    batch: int,
    adjacency: exact.Adjacency,
    length: int,
    reserved: Bool[Tensor, "motif motif"],
    held_out: bool = False,
    shuffled: bool = False,
) -> MotifChains:
    """Questions along a chain of ``length`` motifs; length - 1 exemplars show its ghost edges, in order.

    An exemplar is seven tokens: source, node and ghost sink of one motif, ghost source, node and sink of the next, a
    separator. Then GOAL g START s, and the path through the chain, three nodes a motif, END: in all 10 length - 3.

    Args:
        adjacency: the motifs, from `sample_motifs`.
        reserved, held_out: which chains, see `sample_chains`.
        shuffled: exemplars in random order instead of the chain's.
    """
    chain = sample_chains(stream, batch, length, reserved, held_out)
    links = torch.stack([chain[:, :-1], chain[:, 1:]], -1)
    ghosts = links * MOTIF + _choose(stream, "ghosts", (batch, length - 1, 2)) + torch.tensor([4, 0])
    return _write_chains(stream, adjacency, chain, links, ghosts, shuffled)


def conflicting_chains(stream: RandomStream, batch: int, adjacency: exact.Adjacency) -> MotifChains:
    """Contexts that show two chains from motif i to motif z: first i -> a -> z, then i -> b -> z; the question is i to z.

    Four different random motifs; the answer written is the one along the first chain. ``ghosts[:, 0]`` begins the
    first chain and ``ghosts[:, 2]`` the second.

    Raises:
        LabError: fewer than four motifs.
    """
    motifs = len(adjacency) // MOTIF
    if motifs < 4:
        raise LabError(f"Two chains with different middles need 4 motifs but there are {motifs}; draw more motifs.")
    drawn = torch.from_numpy(stream.child("chains").rng().random((batch, motifs))).argsort(1)
    i, a, b, z = drawn[:, :4].unbind(1)
    links = torch.stack([torch.stack(link, -1) for link in ((i, a), (a, z), (i, b), (b, z))], 1)
    ghosts = links * MOTIF + _choose(stream, "ghosts", (batch, 4, 2)) + torch.tensor([4, 0])
    return _write_chains(stream, adjacency, torch.stack([i, a, z], 1), links, ghosts, False)


def path_outcome(
    adjacency: exact.Adjacency,
    start: Int[Tensor, " batch"],
    goal: Int[Tensor, " batch"],
    written: Int[Tensor, "*models batch step"],
    stop: int,
    ghosts: Int[Tensor, "batch exemplar 2"] | None = None,
) -> tuple[Bool[Tensor, "*models batch"], Bool[Tensor, "*models batch"]]:
    """Of a path written after its start: are all its steps edges, and does it stop at the goal?

    Args:
        written: tokens after the start; the path ends before the first token ``stop``.
        ghosts: more edges, each sequence's own.

    Returns:
        (every step up to the stop is an edge, the last node before the stop is the goal and there is a stop).
    """
    nodes = len(adjacency)
    path = torch.cat([start.expand(written.shape[:-1]).unsqueeze(-1), written], -1)
    before, after = path[..., :-1], path[..., 1:]
    ended = (after == stop).cumsum(-1) > 0
    inside = (before < nodes) & (after < nodes)
    edge = inside & adjacency[before.clamp(max=nodes - 1), after.clamp(max=nodes - 1)]
    if ghosts is not None:
        ghost_edges = ghosts.unsqueeze(-3)
        shown = (before.unsqueeze(-1) == ghost_edges[..., 0]) & (after.unsqueeze(-1) == ghost_edges[..., 1])
        edge = edge | shown.any(-1)
    length = (~ended).sum(-1)
    last = path.gather(-1, length.unsqueeze(-1)).squeeze(-1)
    return (edge | ended).all(-1), ended[..., -1] & (last == goal)
