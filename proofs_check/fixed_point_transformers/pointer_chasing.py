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
# # How many steps does a depth take? Pointers of a forest
#
# Every node of a forest knows its parent; which root stands above it? One attention layer with explicit weights,
# iterated, finds out. A
# node's state holds its address, its parent and a pointer; queries ask for the node that the pointer names.
#
# *Frozen values* (computed once, as the fixed-point layer does): the node reads the *parent* that the named node had at the
# beginning. The pointer climbs by one edge a step, and the iteration is seen to rest after depth + 1 steps.
# *Evolving values*: it reads
# the named node's *pointer* of now, and the way doubles, $p^{2^k}$: $\lceil \log_2 \text{depth} \rceil + 1$ steps
# from the parents. So freezing the
# values costs exponentially many steps on this task, and so does it cost every network that is to imitate it.
#
# *The mask.* In a random recursive tree parents are written before their children: a causal mask hides nothing that
# is asked for, and both
# masks take the same steps to the same roots. If the nodes are numbered anew, a causal mask hides parents, and no
# number of steps helps.
#
# *A network of fixed depth L* is right exactly on the nodes of depth at most L. Node m of a random recursive tree
# has the depth k with
# probability $c(m - 1, k) / (m - 1)!$ (unsigned Stirling numbers of the first kind), by induction over its parent.
# So the accuracy of L
# steps is known, and the iteration, which stops when nothing moves, has none to lose.


# %%
from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.attention.pointer_forests import (
    SHARP,
    chaser_tokens,
    depth_law,
    doubling_chaser,
    doubling_start,
    forest,
    frozen_chaser,
    path,
    pointers,
    reached_within,
    recursive_trees,
    steps_of,
)
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.models import masks
from lab.results import Results
from lab.streams import stream


@dataclass(frozen=True)
class Config:
    """Random trees."""

    nodes: int = 16
    """nodes of the trees of the law of depths"""
    trees: int = 200
    """trees a draw"""
    draws: int = 32
    """draws"""


PROOFS = Task(
    "fixed-point-transformers",
    paper="mathur-2025-fixed-point",
    presets={"smoke": Config(trees=10, draws=2), "ci": Config(), "paper": Config(nodes=64, trees=1000, draws=100)},
    root=2032,
)
NODES = (8, 16, 33)
TREES = 20


def instances(nodes: int, renumbered: bool) -> Tensor:
    """Parents of random trees and of a path."""
    trees = recursive_trees(stream(0, "trees", nodes), TREES, nodes=nodes, renumbered=renumbered).tokens
    return torch.cat((trees, path(nodes)))


@PROOFS.cases(
    frozen={},
    frozen_causal={"pattern": "causal"},
    doubling={"frozen": False},
    doubling_causal={"frozen": False, "pattern": "causal"},
    renumbered={"renumbered": True},
    renumbered_causal={"renumbered": True, "pattern": "causal"},
    doubling_renumbered={"frozen": False, "renumbered": True},
    doubling_renumbered_causal={"frozen": False, "renumbered": True, "pattern": "causal"},
    soft={"sharpness": 1.0},
    doubling_soft={"frozen": False, "sharpness": 1.0},
    drifting={"keys": "pointer"},
)
def chases(
    config: Config,
    *,
    frozen: bool = True,
    pattern: str = "full",
    renumbered: bool = False,
    sharpness: float = SHARP,
    keys: str = "address",
) -> LabelledArrays:
    """Nodes that do not hold their root at the end, and trees whose number of steps is not that of a law."""
    wrong: list[int] = []
    off_the_law: dict[str, list[int]] = {"climbing": [], "doubling": []}
    for nodes in NODES:
        trees = forest(instances(nodes, renumbered))
        tokens = chaser_tokens(trees.tokens)
        layer = (
            frozen_chaser(nodes, sharpness, keys, most=2 * nodes)
            if frozen
            else doubling_chaser(nodes, sharpness, most=2 * nodes)
        )
        allowed = masks.full(nodes) if pattern == "full" else masks.causal(nodes)
        solved = layer.solve(tokens, allowed, None if frozen else doubling_start(tokens))
        wrong.append(int((pointers(solved.state).argmax(-1) != trees.targets).sum()))
        for law, counts in off_the_law.items():
            steps = torch.tensor([steps_of(int(depth), law == "climbing") for depth in trees.depth.amax(1)])
            counts.append(int(((solved.steps[0, :, 0] != steps) | ~solved.arrived[0, :, 0]).sum()))
    return {"wrong": labelled(wrong, nodes=NODES)} | {
        law: labelled(counts, nodes=NODES) for law, counts in off_the_law.items()
    }


def right_in_time(results: Results, cases: tuple[str, ...], law: str = "climbing") -> Evidence:
    """No wrong root and no other number of steps."""
    measured = results[chases].sel(case=list(cases))
    return Evidence.all(
        Evidence.exact(measured["wrong"].sum().item(), "<=", 0, "nodes without their root; counted"),
        Evidence.exact(measured[law].sum().item(), "<=", 0, "trees whose number of steps is not the law's; counted"),
    )


@PROOFS.claim(
    "fixed-point-transformers/C1",
    where="derived",
    kind="construction",
    statement="One head of attention with frozen values follows pointers to the root and is seen to rest after "
    "exactly $\\max(\\text{depth}, 1) + 1$ steps "
    "(random recursive trees and paths of 8, 16 and 33 nodes; full and causal masks; with nodes numbered anew "
    "under the full mask).",
    controls=[
        control("attention that is soft", cases=("soft",)),
        control("keys that read the pointer too, so that addresses drift", cases=("drifting",)),
        control("nodes numbered anew under a causal mask, which hides parents", cases=("renumbered_causal",)),
    ],
)
def frozen_values_climb_edge_by_edge(
    results: Results, cases: tuple[str, ...] = ("frozen", "frozen_causal", "renumbered")
) -> Evidence:
    return right_in_time(results, cases)


@PROOFS.claim(
    "fixed-point-transformers/C2",
    where="derived",
    kind="construction",
    statement="With values of the state the way doubles in each step: the same trees rest at their roots after exactly "
    r"$\lceil \log_2 \max(\text{depth}, 1) \rceil + 1$ steps, counted from pointers to the parents (full and "
    r"causal masks; with nodes numbered anew under the "
    "full mask).",
    controls=[
        control("frozen values, which climb", cases=("frozen",)),
        control("attention that is soft", cases=("doubling_soft",)),
        control("nodes numbered anew under a causal mask", cases=("doubling_renumbered_causal",)),
    ],
)
def evolving_values_double_the_way(
    results: Results, cases: tuple[str, ...] = ("doubling", "doubling_causal", "doubling_renumbered")
) -> Evidence:
    return right_in_time(results, cases, "doubling")


DEPTHS = tuple(range(1, 25))


@PROOFS.cases(frozen={}, doubling={"frozen": False})
def by_iteration(config: Config, *, frozen: bool = True) -> LabelledArrays:
    """Steps that a path of each depth takes."""
    steps = []
    for depth in DEPTHS:
        tokens = chaser_tokens(path(depth + 1))
        layer = (frozen_chaser if frozen else doubling_chaser)(depth + 1)
        solved = layer.solve(tokens, masks.causal(depth + 1), None if frozen else doubling_start(tokens))
        steps.append(int(solved.steps))
    return {"steps": labelled(steps, depth=DEPTHS)}


@PROOFS.cases(claimed={}, early={"missing": 1})
def truncated(config: Config, *, missing: int = 0) -> LabelledArrays:
    """Nodes that hold their root after so many steps, less those of at most that depth."""
    nodes, wrong = 16, []
    trees = forest(instances(nodes, renumbered=False))
    tokens = chaser_tokens(trees.tokens)
    layer, state = frozen_chaser(nodes), tokens
    for steps in range(1, nodes):
        state = layer.step(state, tokens, masks.causal(nodes))
        held = pointers(state).argmax(-1) == trees.targets
        wrong.append(int((held != (trees.depth <= steps - missing)).sum()))
    return {"wrong": labelled(wrong, steps=range(1, nodes))}


@PROOFS.claim(
    "fixed-point-transformers/R1.nodes",
    where="derived",
    kind="construction",
    statement="After L steps of frozen values exactly the nodes of depth at most L hold their root, for every L "
    "(21 trees of 16 nodes).",
    controls=[control("one step fewer", case="early")],
)
def depth_is_what_fixed_depth_misses(results: Results, case: str = "claimed") -> Evidence:
    wrong = results[truncated]["wrong"].sel(case=case).sum()
    return Evidence.exact(wrong.item(), "<=", 0, "nodes on which root and depth disagree; counted")


@PROOFS.measurement(seeds=lambda config: config.draws)
def accuracies(config: Config, seed: int) -> LabelledArrays:
    """Share of nodes that hold their root after L = 0, 1, ... steps (their depth is at most L), and the mean depth."""
    depth = recursive_trees(stream(seed, "law"), config.trees, nodes=config.nodes).depth
    within = [float((depth <= steps).double().mean()) for steps in range(config.nodes)]
    return {"within": labelled(within, steps=range(config.nodes)), "mean": float(depth.double().mean())}


@PROOFS.claim(
    "fixed-point-transformers/R1",
    where="derived",
    kind="rate",
    statement="A network of fixed depth L is right on a share $P(\\text{depth} \\le L)$ of the nodes of random "
    "recursive trees, by the unsigned Stirling "
    "numbers: for 16 nodes 0.270, 0.565, 0.806 and 0.936 at L = 1 to 4, each within 0.02, and the mean depth is "
    "$H_{16} - 1 = 2.381$, within 0.06.",
    controls=[control("the law of a tree of 12 nodes", nodes=12), control("the law of one layer more", more=1)],
)
def accuracy_of_fixed_depth(results: Results, nodes: int = 0, more: int = 0) -> Evidence:
    measured, size = results[accuracies], nodes or results.config.nodes
    mean = sum(1 / k for k in range(1, size + 1)) - 1
    words = "tolerance from the spread on pilot seeds (root 0)"
    return Evidence.all(
        *(
            Evidence.equals(
                measured["within"].sel(steps=steps),
                reached_within(size, steps + more),
                within=0.02,
                absolute=True,
                origin=f"L = {steps}: Stirling numbers of the first kind; {words}",
            )
            for steps in range(1, 5)
        ),
        Evidence.equals(
            measured["mean"], mean, within=0.06, absolute=True, origin=f"mean depth, a harmonic number; {words}"
        ),
    )


@PROOFS.claim(
    "fixed-point-transformers/R1.mean",
    where="derived",
    kind="identity",
    statement="The mean of the law of depths is $H_n - 1$, for n = 1 to 40, in rational numbers.",
    controls=[control("the harmonic number itself", less=0)],
)
def the_mean_depth_is_harmonic(results: Results, less: int = 1) -> Evidence:
    wrong = 0
    for nodes in range(1, 41):
        mean = sum(depth * chance for depth, chance in enumerate(depth_law(nodes)))
        wrong += mean != sum(Fraction(1, k) for k in range(1, nodes + 1)) - less
    return Evidence.exact(wrong, "<=", 0, "sizes at which mean and harmonic number differ; counted")


@PROOFS.figure
def steps_and_depth(results: Results) -> Sheet:
    """Steps until nothing moves against the depth of a path, and the accuracy of a fixed depth on random trees."""
    config = results.config
    sheet = Sheet(columns=2, width=4.8, height=3.9)
    panel = sheet.panel(
        "frozen values climb, evolving ones double",
        x="depth of the tree",
        y="steps until nothing moves",
        legend="upper left",
    )
    for case, name in (("frozen", "frozen values"), ("doubling", "evolving values")):
        panel.line(DEPTHS, results[by_iteration]["steps"].sel(case=case).values, name=name, of="counted")
    panel.theory(DEPTHS, [depth + 1 for depth in DEPTHS], name="laws")
    panel.theory(DEPTHS, [steps_of(depth, frozen=False) for depth in DEPTHS], name="laws")
    panel.level(4, "four layers")
    panel = sheet.panel(
        f"fixed depth: right where trees are shallow (n = {config.nodes})",
        x="layers L",
        y="share of nodes that hold their root",
        ylim=(0, 1.05),
        legend="lower right",
    )
    panel.curve(results[accuracies]["within"], "steps", name="random recursive trees")
    panel.theory(
        np.arange(config.nodes),
        [reached_within(config.nodes, steps) for steps in range(config.nodes)],
        name="Stirling law",
    )
    return sheet


# %%
PROOFS.show(frozen_values_climb_edge_by_edge)
PROOFS.show(steps_and_depth)
PROOFS.show(evolving_values_double_the_way)
PROOFS.show(depth_is_what_fixed_depth_misses)
PROOFS.show(accuracy_of_fixed_depth)
PROOFS.show(the_mean_depth_is_harmonic)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
