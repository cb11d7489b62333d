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
import pandas as pd
import torch
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
from lab.figures import REFERENCES, THEORY, Drawing, label, panels
from lab.models.transformer import Transformer
from lab.results import Results
from lab.statistics import rounding_bound
from lab.streams import stream

SIZES = ((2, 3, 6), (2, 4, 8), (3, 5, 20), (5, 3, 12), (4, 7, 25))  # (d, l, N)


@dataclass(frozen=True)
class Config:
    """How much is sampled; the identities hold for every graph."""

    graphs: int = 60
    """graphs of each size"""
    simulations: int = 8
    """independent simulations of independent errors"""
    sequences: int = 20_000
    """answers a simulation"""
    error: float = 0.05
    """probability of an error at a step"""
    steps: int = 20
    """steps of an answer"""


PROOFS = Task(
    "next-token-pitfalls",
    "bachmann-2024-pitfalls",
    {
        "smoke": Config(graphs=20, simulations=4, sequences=2_000),
        "ci": Config(),
        "paper": Config(graphs=2_000, simulations=16),
    },
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
    "head that does not look": (lambda labels, length: forward_lookup(labels, length, score=0.0), "forward"),
    "look-up the wrong way round": (forward_lookup, "reversed"),
    "planner one hop short": (lambda labels, length: path_planner(labels, length, hops=length - 3), "forward"),
}


def reference(variant: str, labels: int, length: int) -> theory.TokenPredictor:
    """The closed form that a network must equal."""
    vocabulary = vocabulary_size(labels, "compact")
    if variant.startswith("planner"):
        return theory.planner(vocabulary=vocabulary, path_nodes=length)
    return theory.cheat(vocabulary=vocabulary, order=VARIANTS[variant][1])


def judge_network(variant: str, size: tuple[int, int, int], graphs: PathStars, prefix: bool) -> list[float]:
    """Error of the law, smallest and largest loss, probability of the right answer and of any true arm.

    The probability of another arm is read off the sequence in which that arm stands as the answer, under the goal
    (reversed: from the leaf) of the question.
    """
    arms, length, labels = size
    build, order = VARIANTS[variant]
    network = compact_predictor(build(labels, length), labels, length, prefix=prefix)
    probability: list[Tensor] = []
    for arm in range(arms):
        others = [other for other in range(arms) if other != arm]
        tried = write(PathStars(graphs.arms[:, [arm, *others]], graphs.edges), labels, format="compact", order=order)
        start = int(tried.prefix_length[0]) - 1
        if order == "forward":
            tried.tokens[:, start - 1] = graphs.path[:, -1]
        log_p = network(tried.tokens, tried.prefix_length)[0]
        loss = cross_entropy(log_p, tried.tokens)[:, start:]
        probability.append((-loss.sum(-1)).exp())
        if arm == 0:
            exact = reference(variant, labels, length)(tried.tokens, tried.prefix_length)
            error = (log_p.exp() - exact.exp())[tried.loss_mask].abs().max()
            mean = loss.mean(-1)
            found = [error, mean.min(), mean.max(), probability[0].min(), probability[0].max()]
    return [float(value) for value in (*found, torch.stack(probability).sum(0).min())]


QUANTITIES = ("law error", "least loss", "largest loss", "least right", "largest right", "any arm")


@PROOFS.measurement()
def networks(config: Config, seed: int) -> dict[str, np.ndarray]:
    """Every quantity of every variant, mask and size: arrays [variant, mask, size]."""
    graphs = {
        size: path_star(stream(seed, "graphs", *size), config.graphs, arms=size[0], length=size[1], labels=size[2])
        for size in SIZES
    }
    found = np.array(
        [
            [[judge_network(variant, size, graphs[size], prefix) for size in SIZES] for prefix in (False, True)]
            for variant in VARIANTS
        ]
    )
    return {name: found[..., place] for place, name in enumerate(QUANTITIES)}


def worst(results: Results, quantity: str, variant: str, exact: np.ndarray | float) -> np.ndarray:
    """Largest distance from ``exact`` over the masks, one number a size."""
    found = results[networks][quantity][0, list(VARIANTS).index(variant)]
    return np.abs(found - exact).max(0)


def allowed() -> np.ndarray:
    r"""Bound on the error of a probability that a network computes, one number a size.

    A look-up sums over T tokens and the products around it over W numbers; the logits are $\gamma$ times its result,
    which magnifies what is lost. There are at most l - 1 layers, each starting from the result of the last. Added is
    what leaks by design: $\gamma T e^{-\beta}$ from tokens that do not match and $N e^{-\gamma/d}$ from other labels.
    """
    bounds = []
    for arms, length, labels in SIZES:
        tokens, width = arms * (length - 1) + length + 1, feature_count(labels, length) + length * labels
        leak = SHARPNESS * tokens * np.exp(-SCORE) + labels * np.exp(-SHARPNESS / arms)
        bounds.append(rounding_bound((length - 1) * (tokens + 4 * width), SHARPNESS) + leak)
    return np.array(bounds)


ARMS = np.array([size[0] for size in SIZES])
LENGTHS = np.array([size[1] for size in SIZES])
CHEAT_LOSS = np.array([theory.cheat_loss(arms, length) for arms, length, _ in SIZES])
ORIGIN = "1: the largest error over the rounding bound that follows from tokens, width, layers and logit scale"


@PROOFS.claim(
    "next-token-pitfalls/C1",
    where="Section 4 (the Clever Hans cheat), construction derived",
    kind="construction",
    statement=r"One attention head that looks up the children of the current node is the cheat exactly: law uniform "
    r"on the children, loss $\ln d/(l-1)$ a token on every graph, right arm with probability $1/d$ and some true "
    r"arm with probability $1$, under the causal and the prefix mask.",
    controls=[
        control("a score of 0 instead of 60, every edge alike", variant="head that does not look"),
        control("the same head asked for the reversed answer", variant="look-up the wrong way round"),
    ],
)
def one_head_is_the_cheat(results: Results, variant: str = "cheat") -> Evidence:
    bound = allowed()
    ratios = [
        worst(results, "law error", variant, 0.0) / bound,
        # a probability of 1/d makes a relative error of d times the absolute one
        worst(results, "least loss", variant, CHEAT_LOSS) / (ARMS * bound),
        worst(results, "largest loss", variant, CHEAT_LOSS) / (ARMS * bound),
        worst(results, "least right", variant, 1 / ARMS) / (LENGTHS * bound),
        worst(results, "largest right", variant, 1 / ARMS) / (LENGTHS * bound),
        worst(results, "any arm", variant, 1.0) / (ARMS * LENGTHS * bound),
    ]
    return Evidence.exact(float(np.max(ratios)), "<=", 1.0, ORIGIN)


@PROOFS.claim(
    "next-token-pitfalls/C2",
    where="Section 5 (reversed answers), construction derived",
    kind="construction",
    statement="The same head with keys and values exchanged solves the reversed task: loss $0$ and accuracy $1$ on "
    "every graph, so that reversing the answer removes the planning, not only the cheat.",
    controls=[control("keys and values not exchanged", variant="look-up the wrong way round")],
)
def one_head_solves_the_reversed_task(results: Results, variant: str = "mirror") -> Evidence:
    return solves(results, variant)


@PROOFS.claim(
    "next-token-pitfalls/C3",
    where="derived (solvability of the task)",
    kind="construction",
    statement=r"A transformer of $l-1$ layers solves the task as it stands, start to goal: $l-2$ look-ups of parents "
    r"at the goal token and one copy to the start; so depth $l-1$ is sufficient.",
    controls=[control("one look-up fewer, l - 2 layers", variant="planner one hop short")],
)
def enough_depth_solves_the_task(results: Results, variant: str = "planner") -> Evidence:
    return solves(results, variant)


def solves(results: Results, variant: str) -> Evidence:
    """Loss 0 and probability 1 of the right answer, on every graph."""
    ratios = [
        worst(results, "largest loss", variant, 0.0) / allowed(),
        worst(results, "least right", variant, 1.0) / (LENGTHS * allowed()),
        worst(results, "law error", variant, 0.0) / allowed(),
    ]
    return Evidence.exact(float(np.max(ratios)), "<=", 1.0, ORIGIN)


# %%
PROOFS.show(one_head_is_the_cheat)
PROOFS.show(one_head_solves_the_reversed_task)
PROOFS.show(enough_depth_solves_the_task)

# %% [markdown]
# ## Not a snowball
#
# The usual complaint about next-token prediction is that small errors add up: with an independent error of
# probability $\epsilon$ at each of $L$ steps an answer is right with probability $(1-\epsilon)^L$, even if each step
# is nearly perfect. That is a complaint about *writing*, and it is true as far as it goes.
# %%


@PROOFS.measurement(seeds=lambda config: config.simulations)
def independent_errors(config: Config, seed: int) -> dict[str, np.ndarray]:
    """Share of right answers when errors are spread over the steps, and when all of them sit in the first step."""
    draws = stream(seed, "errors").rng().random((config.sequences, config.steps))
    spread = (draws >= config.error).all(1).mean()
    first = (draws[:, 0] >= min(1.0, config.steps * config.error)).mean()
    return {"spread": spread, "first step": first}


@PROOFS.claim(
    "next-token-pitfalls/I1",
    where="Section 2 (the snowball argument)",
    kind="identity",
    statement=r"Independent errors of probability $\epsilon$ at each of $L$ steps leave a share $(1-\epsilon)^L$ of "
    r"right answers.",
    controls=[control("the same mean error, all of it in the first step", errors="first step")],
)
def errors_snowball(results: Results, errors: str = "spread") -> Evidence:
    config = results.config
    expected = theory.snowball(torch.tensor(config.error).double(), torch.tensor(config.steps))
    # Without spread (no right answer at all) the deviation is infinite.
    return Evidence.agreement(results[independent_errors][errors], float(expected), r"(1 - error)^steps")


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


@PROOFS.claim(
    "next-token-pitfalls/I2",
    where="Section 4, derived",
    kind="identity",
    statement=r"The cheat is no snowball: its accuracy is $1/d$ for every $l$, while independent errors of the same "
    r"mean would leave $(1 - (1-1/d)/(l-1))^{l-1} > 1/d$ for all $l \ge 3$ (here $d \le 10$, $l \le 2000$).",
    controls=[control("arms of one step only, where both agree", shortest=2)],
)
def cheat_is_no_snowball(results: Results, shortest: int = 3) -> Evidence:
    lengths = ALL_LENGTHS[ALL_LENGTHS >= shortest]
    arms = ALL_ARMS[:, None]
    spread = theory.cheat_as_snowball(*torch.broadcast_tensors(arms, lengths))
    exact = theory.teacher_forced_accuracy(2, 5).prod() * 2 / arms.double()
    cheat = worst(results, "largest right", "cheat", 1 / ARMS) / (LENGTHS * allowed())
    return Evidence.weakest(
        Evidence.exact(float((spread - exact).min()), ">", rounding_bound(2 * 11), "rounding of a power near l = 2"),
        Evidence.exact(float(cheat.max()), "<=", 1.0, ORIGIN),
    )


@PROOFS.claim(
    "next-token-pitfalls/I2.limit",
    where="derived",
    kind="rate",
    statement=r"With $x = 1 - 1/d$ and $n = l - 1$, what a snowball of the cheat's mean error would leave reaches its "
    r"limit from below at rate $1/n$: $0 \le e^{-x} - (1 - x/n)^n \le e^{-x} x^2 / n$.",
    controls=[control("the limit 1/d that holds for the cheat itself", limit="cheat")],
)
def snowball_limit(results: Results, limit: str = "snowball") -> Evidence:
    arms, lengths = torch.broadcast_tensors(ALL_ARMS[:, None], ALL_LENGTHS)
    x, n = 1 - 1 / arms.double(), (lengths - 1).double()
    end = (-x).exp() if limit == "snowball" else 1 / arms.double()
    missing = end - theory.cheat_as_snowball(arms, lengths)
    slack = rounding_bound(2 * int(ALL_LENGTHS.max()))  # a power of n factors
    inside = torch.minimum(missing, (-x).exp() * x.square() / n - missing)
    return Evidence.exact(float(inside.min()), ">=", -slack, "rounding of a power of at most 2000 factors")


@PROOFS.figure
def snowball_and_cheat(results: Results) -> Drawing:
    """Accuracy of the cheat against what independent errors of the same mean would leave."""
    figure, axes = panels()
    lengths, rows = torch.arange(2, 21), []
    for place, arms in enumerate((2, 3, 5)):
        many = torch.full_like(lengths, arms)
        spread = theory.cheat_as_snowball(many, lengths).numpy()
        color = REFERENCES[place + 2]
        axes[0, 0].plot(lengths, spread, color=color, marker="os^"[place], label=f"spread evenly, d = {arms}")
        axes[0, 0].plot(lengths, np.full(len(lengths), 1 / arms), **{**THEORY, "color": color})
        rows.append(pd.DataFrame({"arms": arms, "length": lengths, "snowball": spread, "cheat": 1 / arms}))
    measured = 1 / ARMS - worst(results, "least right", "cheat", 1 / ARMS)
    axes[0, 0].plot(LENGTHS, measured, "k*", markersize=8, label="cheat, network of one head")
    axes[0, 0].plot([], [], **THEORY, label="1/d")
    label(
        axes[0, 0], "The cheat stays at 1/d; a snowball would not", "nodes of an arm l", "probability of the right arm"
    )
    axes[0, 0].set_ylim(0, 0.75)
    axes[0, 0].legend(ncols=2)
    return Drawing(figure, pd.concat(rows))


# %%
PROOFS.show(errors_snowball)
PROOFS.show(cheat_is_no_snowball)
PROOFS.show(snowball_limit)
PROOFS.show(snowball_and_cheat)

# %% [markdown]
# ## When many tokens at once do not help
#
# Suppose that no goal is given and the answer is a uniformly random arm. Sampling token by token always yields a true
# arm, because after the first step the look-up is forced. Sampling all steps in one pass, even from their *exact*
# marginal laws, yields nodes of different arms: the first is free and each of the other $l - 2$ has to fit it, with
# probability $1/d$ each. Multi-token prediction is a remedy for a planning problem, not for a random answer.
# %%


@PROOFS.measurement()
def one_pass(config: Config, seed: int) -> dict[str, np.ndarray]:
    """Probability of a true arm, drawn in one pass: smallest and largest over the graphs of each size."""
    found = []
    for size in SIZES:
        arms, length, labels = size
        graphs = path_star(stream(seed, "one pass", *size), config.graphs, arms=arms, length=length, labels=labels)
        for shown in (graphs.arms, graphs.arms[:, :1]):  # no goal: any arm; goal: the first one
            law = theory.step_marginals(shown, labels).unsqueeze(1).expand(-1, arms, -1, -1)
            steps = law.gather(-1, graphs.arms[:, :, 1:].unsqueeze(-1)).squeeze(-1)
            total = steps.prod(-1).sum(-1)
            found.append([float(total.min()), float(total.max())])
    return {"true arm": np.array(found).reshape(len(SIZES), 2, 2)}


@PROOFS.claim(
    "next-token-pitfalls/I3",
    where="derived (limits of multi-token prediction)",
    kind="identity",
    statement=r"If the answer is a uniformly random arm, drawing all its nodes in one pass from their exact marginals "
    r"gives a true arm with probability $d^{-(l-2)}$; drawing them one after the other does so with probability $1$.",
    controls=[control("a goal that names the arm", goal=True)],
)
def one_pass_mixes_the_arms(results: Results, goal: bool = False) -> Evidence:
    expected = np.array([theory.one_pass_true_arm(arms, length) for arms, length, _ in SIZES])
    found = results[one_pass]["true arm"][0, :, int(goal)]
    relative = np.abs(found / expected[:, None] - 1).max()
    sequential = worst(results, "any arm", "cheat", 1.0) / (ARMS * LENGTHS * allowed())
    # Marginals 1/d carry one rounding each; a product of l - 1 of them, a sum over d arms, a power of 1/d.
    operations = 3 * int(LENGTHS.max()) + int(ARMS.max())
    return Evidence.weakest(
        Evidence.exact(float(relative), "<=", rounding_bound(operations), "rounding of products and sums"),
        Evidence.exact(float(sequential.max()), "<=", 1.0, ORIGIN),
    )


# %%
PROOFS.show(one_pass_mixes_the_arms)
PROOFS.show()
