# %% [markdown]
# # What next-token training can get away with on path-star graphs
#
# A *path-star graph* $G(d, l, N)$ has a start node and $d$ disjoint arms of $l$ nodes each (the start counts),
# labelled at random out of $N$ labels. A sequence lists the edges in random order, then the goal (the leaf of one
# arm) and the start; the answer is that arm, read from the start to the goal.
#
# A next-token predictor is trained with the true answer as its input. Given a node of the arm, the next one is
# its only child: a single look-up in the list of edges. This *cheat* is right at every step but the first, where
# the start has $d$ children. So it has a small loss, $\ln d / (l - 1)$ nats a token, and it is nearly always
# right when it is fed the truth, yet it finds the right arm with probability $1/d$ only, no better than a guess.
# Nothing here is trained: the weights are written down, and algebra shows that
#
# 1. one attention head is enough for the cheat, and enough for the *whole* task when the answer is reversed;
# 2. a transformer of $l - 1$ layers solves the task as it stands, so that failing to learn it is no lack of depth;
# 3. the failure is not the familiar snowball of small errors;
# 4. predicting many tokens at once is no cure when the answer itself is random.
# %%
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.graphs import path_star as theory
from lab.domains.graphs.edge_lookup import (
    SCORE,
    SHARPNESS,
    backward_lookup,
    compact_predictor,
    forward_lookup,
    path_planner,
)
from lab.domains.graphs.path_star_prompts import PathStars, feature_count, path_star, vocabulary_size, write
from lab.evaluation import cross_entropy
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.models.transformer import Transformer
from lab.results import Results
from lab.statistics import rounding_bound
from lab.streams import stream


@dataclass(frozen=True)
class Size:
    """A size of graph: d arms of l nodes out of N labels."""

    arms: int
    length: int
    labels: int

    def __str__(self) -> str:
        return f"d = {self.arms}, l = {self.length}, N = {self.labels}"

    def sample(self, name: str, graphs: int) -> PathStars:
        """Graphs of this size; the stream is always the same, as identities hold for every graph."""
        source = stream(0, name, self.arms, self.length, self.labels)
        return path_star(source, graphs, arms=self.arms, length=self.length, labels=self.labels)


SIZES = (Size(2, 3, 6), Size(2, 4, 8), Size(3, 5, 20), Size(5, 3, 12), Size(4, 7, 25))
NAMES = [str(size) for size in SIZES]
MASKS = ("causal", "prefix")


@dataclass(frozen=True)
class Config:
    """How much is sampled; the identities hold for every graph."""

    graphs: int = 60
    """graphs of each size"""
    error: float = 0.05
    """probability of an error at a step"""


PROOFS = Task(
    "next-token-pitfalls",
    paper="bachmann-2024-pitfalls",
    presets={"smoke": Config(graphs=20), "ci": Config(), "paper": Config(graphs=2_000)},
)

# %% [markdown]
# ## One look-up is the cheat
#
# In the compact form of the sequences an edge $(u, v)$ is one token, a sum of a row of a table of sources and a
# row of a table of targets. Let the query at a node of the answer be that node, the key at an edge its source $u$,
# and the value its target $v$. With score $\beta$ where they agree, the attention output is the law
#
# $$p(v) = \frac{\sum_e e^{\beta [u_e = n]}\,[v_e = v]}{\sum_e e^{\beta [u_e = n]}}
#   \;\to\; \frac{[n \to v]}{\text{number of children of } n} \qquad (\beta \to \infty),$$
#
# and $\beta = 60$ is infinity for double precision. Softmax of $\gamma p$ with a large $\gamma$ is again uniform on
# the children. This is one head of one layer, under the causal mask and under the prefix mask alike, since the
# edges stand before the answer. (A score of 1 would do as well: $\gamma$ sharpens what attention only hints at.
# What the head must not do is look at all edges alike.) Exchange keys and values and the head finds the parent
# instead: the answer read from the goal to the start has no step that needs a choice.
#
# To plan, look up parents $l - 2$ times, one layer after the other, at the goal token; the last layer hands the node
# found to the start. Depth $l - 1$ is *sufficient*; we do not claim that it is necessary, because the tokens of the
# edges can also chain look-ups among themselves.
# %%
Build = Callable[[int, int], Transformer]  # (labels, length)
# What is asked of which network; the last three are there to be told apart from the first three.
VARIANTS: dict[str, tuple[Build, theory.Order]] = {
    "cheat": (forward_lookup, "forward"),
    "mirror": (backward_lookup, "reversed"),
    "planner": (path_planner, "forward"),
    "blind": (lambda labels, length: forward_lookup(labels, length, score=0.0), "forward"),
    "wrong_way": (forward_lookup, "reversed"),
    "short_planner": (lambda labels, length: path_planner(labels, length, hops=length - 3), "forward"),
}


def reference(variant: str, size: Size) -> theory.TokenPredictor:
    """The closed form that a network must equal."""
    vocabulary = vocabulary_size(size.labels, "compact")
    if "planner" in variant:
        return theory.planner(vocabulary=vocabulary, path_nodes=size.length)
    return theory.cheat(vocabulary=vocabulary, order=VARIANTS[variant][1])


def judge_network(variant: str, size: Size, graphs: PathStars, mask: str) -> dict[str, float]:
    """Error of the law, smallest and largest loss, probability of the right answer and of any true arm.

    The probability of another arm is read off the sequence in which that arm stands as the answer, under the goal
    (reversed: from the leaf) of the question.
    """
    build, order = VARIANTS[variant]
    network = compact_predictor(build(size.labels, size.length), size.labels, size.length, prefix=mask == "prefix")
    judged: dict[str, Tensor] = {}
    probability: list[Tensor] = []
    for arm in range(size.arms):
        other_arms = [other for other in range(size.arms) if other != arm]
        tried = write(
            PathStars(graphs.arms[:, [arm, *other_arms]], graphs.edges), size.labels, format="compact", order=order
        )
        start = int(tried.prefix_length[0]) - 1
        if order == "forward":
            tried.tokens[:, start - 1] = graphs.path[:, -1]
        log_p = network(tried.tokens, tried.prefix_length)[0]
        loss = cross_entropy(log_p, tried.tokens)[:, start:]
        probability.append((-loss.sum(-1)).exp())
        if arm == 0:
            exact = reference(variant, size)(tried.tokens, tried.prefix_length)
            judged["law error"] = (log_p.exp() - exact.exp())[tried.loss_mask].abs().max()
            judged["least loss"], judged["largest loss"] = loss.mean(-1).aminmax()
            judged["least right"], judged["largest right"] = probability[0].aminmax()
    judged["any arm"] = torch.stack(probability).sum(0).min()
    return {quantity: float(value) for quantity, value in judged.items()}


@PROOFS.cases(**{variant: {"variant": variant} for variant in VARIANTS})
def networks(config: Config, *, variant: str) -> LabelledArrays:
    """Every quantity of a network, by mask and size."""
    graphs = {size: size.sample("graphs", config.graphs) for size in SIZES}
    judged = [[judge_network(variant, size, graphs[size], mask) for size in SIZES] for mask in MASKS]
    return {
        quantity: labelled([[numbers[quantity] for numbers in row] for row in judged], mask=MASKS, size=NAMES)
        for quantity in judged[0][0]
    }


def by_size(values: np.ndarray | list[float]) -> xr.DataArray:
    """One number a size."""
    return labelled(values, size=NAMES)


def worst(results: Results, quantity: str, case: str, exact: xr.DataArray | float) -> xr.DataArray:
    """Largest distance from ``exact`` over the masks, one number a size."""
    distance: xr.DataArray = abs(results[networks][quantity].sel(case=case) - exact).max("mask")
    return distance


def allowed() -> xr.DataArray:
    r"""Bound on the error of a probability that a network computes, one number a size.

    A look-up sums over T tokens and the products around it over W numbers; the logits are $\gamma$ times its result,
    which magnifies what is lost. There are at most l - 1 layers, each starting from the result of the last. Added is
    what leaks by design: $\gamma T e^{-\beta}$ from tokens that do not match and $N e^{-\gamma/d}$ from other labels.
    """
    bounds = []
    for size in SIZES:
        tokens = size.arms * (size.length - 1) + size.length + 1
        width = feature_count(size.labels, size.length) + size.length * size.labels
        leak = SHARPNESS * tokens * np.exp(-SCORE) + size.labels * np.exp(-SHARPNESS / size.arms)
        bounds.append(rounding_bound((size.length - 1) * (tokens + 4 * width), SHARPNESS) + leak)
    return by_size(bounds)


ARMS = by_size([size.arms for size in SIZES])
LENGTHS = by_size([size.length for size in SIZES])
CHEAT_LOSS = by_size([theory.cheat_loss(size.arms, size.length) for size in SIZES])
ORIGIN = "1: the largest error over the rounding bound that follows from tokens, width, layers and logit scale"


@PROOFS.claim(
    "next-token-pitfalls/C1",
    where="Section 4 (the Clever Hans cheat), construction derived",
    kind="construction",
    statement=r"One attention head that looks up the children of the current node is the cheat exactly: law uniform "
    r"on the children, loss $\ln d/(l-1)$ a token on every graph, right arm with probability $1/d$ and some true "
    r"arm with probability $1$, under the causal and the prefix mask.",
    controls=[
        control("a score of 0 instead of 60, every edge alike", case="blind"),
        control("the same head asked for the reversed answer", case="wrong_way"),
    ],
)
def one_head_is_the_cheat(results: Results, case: str = "cheat") -> Evidence:
    bound = allowed()
    return within_rounding(
        worst(results, "law error", case, 0.0) / bound,
        # a probability of 1/d makes a relative error of d times the absolute one
        worst(results, "least loss", case, CHEAT_LOSS) / (ARMS * bound),
        worst(results, "largest loss", case, CHEAT_LOSS) / (ARMS * bound),
        worst(results, "least right", case, 1 / ARMS) / (LENGTHS * bound),
        worst(results, "largest right", case, 1 / ARMS) / (LENGTHS * bound),
        worst(results, "any arm", case, 1.0) / (ARMS * LENGTHS * bound),
    )


def within_rounding(*ratios: xr.DataArray) -> Evidence:
    """Evidence that errors over their bounds, one number a size each, are at most 1: the largest speaks for all."""
    return Evidence.exact(max(float(ratio.max()) for ratio in ratios), "<=", 1.0, ORIGIN)


@PROOFS.claim(
    "next-token-pitfalls/C2",
    where="Section 5 (reversed answers), construction derived",
    kind="construction",
    statement="The same head with keys and values exchanged solves the reversed task: loss $0$ and accuracy $1$ on "
    "every graph, so that reversing the answer removes the planning, not only the cheat.",
    controls=[control("keys and values not exchanged", case="wrong_way")],
)
def one_head_solves_the_reversed_task(results: Results, case: str = "mirror") -> Evidence:
    return solves(results, case)


@PROOFS.claim(
    "next-token-pitfalls/C3",
    where="derived (solvability of the task)",
    kind="construction",
    statement=r"A transformer of $l-1$ layers solves the task as it stands, start to goal: $l-2$ look-ups of parents "
    r"at the goal token and one copy to the start; so depth $l-1$ is sufficient.",
    controls=[control("one look-up fewer, l - 2 layers", case="short_planner")],
)
def enough_depth_solves_the_task(results: Results, case: str = "planner") -> Evidence:
    return solves(results, case)


def solves(results: Results, case: str) -> Evidence:
    """Loss 0 and probability 1 of the right answer, on every graph."""
    bound = allowed()
    return within_rounding(
        worst(results, "largest loss", case, 0.0) / bound,
        worst(results, "least right", case, 1.0) / (LENGTHS * bound),
        worst(results, "law error", case, 0.0) / bound,
    )


# %%
PROOFS.show(one_head_is_the_cheat)
PROOFS.show(one_head_solves_the_reversed_task)
PROOFS.show(enough_depth_solves_the_task)

# %% [markdown]
# ## Not a snowball
#
# The usual complaint about next-token prediction is that small errors add up: with an independent error of
# probability $\epsilon$ at each of $L$ steps an answer is right with probability $(1-\epsilon)^L$, even if each step
# is nearly perfect. That is a complaint about *writing*, and it is true as far as it goes: let the planner, whose every
# step is right, say with probability $\epsilon$ another label at each step, whatever stands before it. The probability
# that it writes the right answer is the product of the probabilities of its nodes, each given the true ones before.
# %%


@PROOFS.cases(claimed={}, cheat={"base": "cheat"}, first_step={"spread": False})
def with_independent_errors(config: Config, *, base: str = "planner", spread: bool = True) -> LabelledArrays:
    """Probability of the right answer, smallest and largest over the graphs of each size.

    Without ``spread`` the same mean error sits in the first step alone.
    """
    ends = []
    for size in SIZES:
        graphs = size.sample("errors", config.graphs)
        sequences = write(graphs, size.labels, format="compact")
        vocabulary, start = vocabulary_size(size.labels, "compact"), int(sequences.prefix_length[0]) - 1
        answer = theory.planner(vocabulary=vocabulary, path_nodes=size.length)
        if base == "cheat":
            answer = theory.cheat(vocabulary=vocabulary)
        steps = size.length - 1
        errors = [config.error] * steps if spread else [steps * config.error] + [0.0] * (steps - 1)
        right = torch.ones(config.graphs, dtype=torch.float64)
        for step, error in enumerate(errors):
            erring = theory.with_errors(answer, size.labels, error)
            law = erring(sequences.tokens, sequences.prefix_length)[:, start + step].exp()
            right *= law.gather(1, graphs.path[:, step + 1 : step + 2])[:, 0]
        ends.append([float(end) for end in right.aminmax()])
    return {"right": labelled(ends, size=NAMES, end=("smallest", "largest"))}


@PROOFS.claim(
    "next-token-pitfalls/I1",
    where="Section 2 (the snowball argument)",
    kind="identity",
    statement=r"Independent errors of probability $\epsilon$ at each of $L$ steps leave a predictor that plans perfectly with a "
    r"share $(1-\epsilon)^L$ of right answers, on every graph.",
    controls=[
        control("the same errors on top of the cheat, whose first step is a guess", case="cheat"),
        control("the same mean error, all of it in the first step", case="first_step"),
    ],
)
def errors_snowball(results: Results, case: str = "claimed") -> Evidence:
    error = torch.tensor(results.config.error, dtype=torch.float64)
    law = by_size([float(theory.snowball(error, torch.tensor(size.length - 1))) for size in SIZES])
    relative = abs(results[with_independent_errors]["right"].sel(case=case) / law - 1).max()
    # Each step: a logarithm and its exponential (their argument is at most ln 20 here), five operations; a power.
    bound = rounding_bound(12 * int(LENGTHS.max()), 4.0)
    return Evidence.exact(
        float(relative), "<=", bound, "rounding of a logarithm, an exponential and five operations a step"
    )


# %% [markdown]
# The cheat is something else. Its mean error of a teacher-forced step is $\epsilon = (1 - 1/d)/(l-1)$, but all of it
# sits in the first step. Spread evenly, it would leave
#
# $$\Bigl(1 - \frac{1 - 1/d}{l - 1}\Bigr)^{l-1} \;\uparrow\; e^{-(1 - 1/d)},$$
#
# which is more than $1/d$ as soon as there are two steps (Bernoulli's inequality), while the cheat stays at $1/d$ for
# every length. With $0 \le x \le n$, $e^{-x}(1 - x^2/n) \le (1 - x/n)^n \le e^{-x}$ says how fast the limit is reached.
# %%
ALL_ARMS, ALL_LENGTHS = torch.arange(2, 11), torch.arange(2, 2001)


@PROOFS.cases(claimed={}, one_step={"shortest": 2})
def more_than_the_cheat(config: Config, *, shortest: int = 3) -> LabelledArrays:
    """What independent errors of the cheat's mean leave beyond its accuracy: least over the lengths, by arms."""
    lengths = torch.arange(shortest, int(ALL_LENGTHS.max()) + 1)
    snowball = theory.cheat_as_snowball(*torch.broadcast_tensors(ALL_ARMS[:, None], lengths))
    cheat = torch.stack([theory.teacher_forced_accuracy(int(arms), 5).prod() for arms in ALL_ARMS])
    return {"excess": labelled((snowball - cheat[:, None]).amin(1), arms=ALL_ARMS.tolist())}


@PROOFS.cases(claimed={}, cheat={"end": "cheat"})
def distance_to_the_limit(config: Config, *, end: str = "snowball") -> LabelledArrays:
    """Room of the distance to the limit within its bounds 0 and $e^{-x} x^2 / n$: least over the lengths, by arms."""
    arms, lengths = torch.broadcast_tensors(ALL_ARMS[:, None], ALL_LENGTHS)
    x, n = 1 - 1 / arms.double(), (lengths - 1).double()
    limit = (-x).exp() if end == "snowball" else 1 / arms.double()
    missing = limit - theory.cheat_as_snowball(arms, lengths)
    inside = torch.minimum(missing, (-x).exp() * x.square() / n - missing)
    return {"room": labelled(inside.amin(1), arms=ALL_ARMS.tolist())}


@PROOFS.claim(
    "next-token-pitfalls/I2",
    where="Section 4, derived",
    kind="identity",
    statement=r"The cheat is no snowball: its accuracy is $1/d$ for every $l$, while independent errors of the same "
    r"mean would leave $(1 - (1-1/d)/(l-1))^{l-1} > 1/d$ for all $l \ge 3$ (here $d \le 10$, $l \le 2000$).",
    controls=[control("arms of one step only, where both agree", case="one_step")],
)
def cheat_is_no_snowball(results: Results, case: str = "claimed") -> Evidence:
    excess = results[more_than_the_cheat]["excess"].sel(case=case).min()
    cheat = worst(results, "largest right", "cheat", 1 / ARMS) / (LENGTHS * allowed())
    return Evidence.all(
        Evidence.exact(float(excess), ">", rounding_bound(2 * 11), "rounding of a power near l = 2"),
        within_rounding(cheat),
    )


@PROOFS.claim(
    "next-token-pitfalls/I2.limit",
    where="derived",
    kind="rate",
    statement=r"With $x = 1 - 1/d$ and $n = l - 1$, what a snowball of the cheat's mean error would leave reaches its "
    r"limit from below at rate $1/n$: $0 \le e^{-x} - (1 - x/n)^n \le e^{-x} x^2 / n$.",
    controls=[control("the limit 1/d that holds for the cheat itself", case="cheat")],
)
def snowball_limit(results: Results, case: str = "claimed") -> Evidence:
    room = results[distance_to_the_limit]["room"].sel(case=case).min()
    slack = rounding_bound(2 * int(ALL_LENGTHS.max()))  # a power of n factors
    return Evidence.exact(float(room), ">=", -slack, "rounding of a power of at most 2000 factors")


@PROOFS.figure
def snowball_and_cheat(results: Results) -> Sheet:
    """Accuracy of the cheat against what independent errors of the same mean would leave."""
    sheet = Sheet(width=6.0, height=3.8)
    panel = sheet.panel(
        "The cheat stays at 1/d; a snowball would not",
        x="nodes of an arm l",
        y="probability of the right arm",
        ylim=(0, 0.75),
        legend="outside",
    )
    lengths = torch.arange(2, 21)
    for arms in sorted({size.arms for size in SIZES}):
        snowball = theory.cheat_as_snowball(torch.full_like(lengths, arms), lengths)
        panel.line(lengths.tolist(), snowball.numpy(), name=f"spread evenly, d = {arms}", of="exact")
        panel.theory(lengths.tolist(), [1 / arms] * len(lengths), name="1/d")
    # Both masks: what lies furthest below 1/d.
    measured = results[networks]["least right"].sel(case="cheat").min("mask")
    panel.points(measured.values, x=LENGTHS.values, across=None, name="cheat, network of one head", look=6)
    return sheet


# %%
PROOFS.show(errors_snowball)
PROOFS.show(cheat_is_no_snowball)
PROOFS.show(snowball_limit)
PROOFS.show(snowball_and_cheat)

# %% [markdown]
# ## When many tokens at once do not help
#
# Suppose that no goal is given and the answer is a uniformly random arm. Sampling token by token always yields a true
# arm, because after the first step the look-up is forced. Sampling the first $b$ steps in one pass, even from their
# *exact* marginal laws, yields nodes of different arms: the first is free and each of the other $b - 1$ has to fit it,
# with probability $1/d$ each; what follows is the only child of the node before. So a true arm comes out with
# probability $d^{-(b-1)}$: $1$ for next-token prediction, $d^{-(l-2)}$ if all nodes are drawn at once. Multi-token
# prediction is a remedy for a planning problem, not for a random answer. What would help is to draw the $b$ nodes from
# their *joint* law.
# %%
BLOCKS = tuple(range(1, max(size.length for size in SIZES)))


def true_arm(graphs: PathStars, size: Size, together: int, law: str) -> Tensor:
    """Probability that a true arm is drawn, for each graph.

    The first ``together`` nodes are drawn in one pass, from their marginals or from their joint law; then the cheat goes on.
    """
    shown = graphs.arms[:, :1] if law == "goal" else graphs.arms  # a goal leaves one arm
    marginals = theory.step_marginals(shown, size.labels)
    total = torch.zeros(len(graphs.arms), dtype=torch.float64)
    for arm in range(size.arms):
        nodes = graphs.arms[:, arm]
        steps = marginals.gather(-1, nodes[:, 1:].unsqueeze(-1)).squeeze(-1)
        block = steps[:, 0] if law == "joint" else steps[:, :together].prod(-1)
        rest = torch.ones_like(block)
        if together < size.length - 1:
            children = theory.next_nodes(graphs.edges, nodes[:, together:-1], size.labels)
            rest = children.gather(-1, nodes[:, together + 1 :].unsqueeze(-1)).squeeze(-1).prod(-1)
        total += block * rest
    return total


@PROOFS.cases(claimed={}, with_goal={"law": "goal"}, joint={"law": "joint"})
def drawn_together(config: Config, *, law: str = "marginals") -> LabelledArrays:
    """Probability of a true arm by how many nodes are drawn in one pass: furthest from the closed form, by size."""
    rows = []
    for size in SIZES:
        graphs = size.sample("one pass", config.graphs)
        row = []
        for together in BLOCKS:
            if together > size.length - 1:
                row.append(np.nan)
                continue
            probability = true_arm(graphs, size, together, law)
            exact = theory.one_pass_true_arm(size.arms, size.length, together)
            row.append(float(probability[(probability - exact).abs().argmax()]))
        rows.append(row)
    return {"true arm": labelled(rows, size=NAMES, together=BLOCKS)}


@PROOFS.claim(
    "next-token-pitfalls/I3",
    where="derived (limits of multi-token prediction)",
    kind="identity",
    statement=r"If the answer is a uniformly random arm, drawing its first $b$ nodes in one pass from their exact marginals and the "
    r"others one after the other gives a true arm with probability $d^{-(b-1)}$, for every $b$ from $1$ (next-token, always a "
    r"true arm) to $l-1$ (one pass).",
    controls=[
        control("a goal that names the arm", case="with_goal"),
        control("the first b nodes drawn from their joint law", case="joint"),
    ],
)
def one_pass_mixes_the_arms(results: Results, case: str = "claimed") -> Evidence:
    probability = results[drawn_together]["true arm"].sel(case=case)
    law = probability.copy(
        data=[
            [
                theory.one_pass_true_arm(size.arms, size.length, together) if together < size.length else np.nan
                for together in BLOCKS
            ]
            for size in SIZES
        ]
    )
    relative = abs(probability / law - 1).max()
    # Marginals 1/d carry one rounding each; a product of l - 1 of them, a sum over d arms, a power of 1/d.
    operations = 3 * int(LENGTHS.max()) + int(ARMS.max())
    return Evidence.exact(float(relative), "<=", rounding_bound(operations), "rounding of products and sums")


@PROOFS.figure
def nodes_drawn_together(results: Results) -> Sheet:
    """Probability that a random arm comes out true, against how many of its nodes are drawn in one pass."""
    probability = results[drawn_together]["true arm"]
    sheet = Sheet(width=6.0, height=3.8)
    panel = sheet.panel(
        "Nodes drawn together fall on different arms",
        x="nodes drawn in one pass, b",
        y="probability of a true arm",
        scale=("linear", "log"),
        legend="outside",
    )
    for size in SIZES[2:]:
        blocks = list(range(1, size.length))
        values = probability.sel(case="claimed", size=str(size), together=blocks).values
        panel.points(values, x=blocks, across=None, name=f"exact marginals, d = {size.arms}, l = {size.length}")
        law = [theory.one_pass_true_arm(size.arms, size.length, together) for together in blocks]
        panel.theory(blocks, law, name="$d^{-(b - 1)}$")
    size = SIZES[-1]
    blocks = list(range(1, size.length))
    joint = probability.sel(case="joint", size=str(size), together=blocks).values
    panel.points(joint, x=blocks, across=None, name=f"joint law, d = {size.arms}, l = {size.length}")
    return sheet


# %%
PROOFS.show(one_pass_mixes_the_arms)
PROOFS.show(nodes_drawn_together)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
