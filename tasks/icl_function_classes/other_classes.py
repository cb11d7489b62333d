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
# # Sparse functions, decision trees and two-layer networks
#
# The same network under the causal mask, as in the paper, trained on three other classes, beside the rules that are made for
# them:
#
# - **sparse** linear functions: the Lasso, which looks for few non-zero weights, and least squares, which does not;
# - **decision trees**: a tree grown greedily (CART), and the best rule that is linear in the labels (the kernel predictor of
#   `proofs_check/icl_function_classes/kernels.py`);
# - **two-layer ReLU networks**: such a network fitted to the examples of each prompt by gradient descent (100 units, 100 steps
#   of Adam at 0.005, as in the released code), least squares, and the kernel predictor of this class.
#
# The paper reports that the transformer comes close to the Lasso, is ahead of greedy and boosted trees, and is on a par with
# the fitted network. Here the classes are small and trainings short, 1 500 updates, so that each sentence says what
# this budget gives.

# %%
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from lab import Evidence, Task, control
from lab.domains.regression import function_classes as theory
from lab.domains.regression.fitted_rules import greedy_tree, two_layer_descent
from lab.domains.regression.least_squares import least_squares
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.predictors import RegressionPredictor
from lab.results import Results
from lab.streams import stream
from lab.tasks import Measurement
from lab.training import Optimisation
from tasks.icl_function_classes._shared import (
    PAPER,
    PILOT,
    SLUG,
    UNRELATED,
    Experiment,
    errors_by_examples,
    test_prompts,
    tiny,
    train,
    with_other_labels,
)

SHORT = Experiment(
    optimisation=replace(Experiment.optimisation, steps=1500), context_length=8, trainings=12, test_prompts=1000
)


@dataclass(frozen=True)
class Config:
    """The three classes."""

    sparse: Experiment = replace(SHORT, function="sparse", sparsity=1, dimension=4, context_length=6, batch=35)
    """one weight of four"""
    tree: Experiment = replace(SHORT, function="tree", depth=2, dimension=3)
    """four leaves"""
    relu: Experiment = replace(SHORT, function="relu", dimension=2)
    """a hundred units"""


CI = Config()
LONG: dict[str, Any] = {
    "width": 256,
    "layers": 12,
    "heads": 8,
    "optimisation": Optimisation(steps=500_001, learning_rate=1e-4),
}
LARGE: dict[str, Any] = {"dimension": 20, "batch": 101, "context_length": 100, "test_prompts": 1280}
TASK = Task(
    SLUG,
    PAPER,
    {
        "smoke": Config(*(tiny(experiment) for experiment in (CI.sparse, CI.tree, CI.relu))),
        "ci": CI,
        # Twenty dimensions; 41 points of sparse functions, 101 of trees and networks: days on one GPU for each.
        "paper": Config(
            replace(CI.sparse, sparsity=3, **(LARGE | LONG | {"batch": 82, "context_length": 40})),
            replace(CI.tree, depth=4, **(LARGE | LONG)),
            replace(CI.relu, **(LARGE | LONG)),
        ),
    },
    root=2027,
)
Rules = Mapping[str, RegressionPredictor]
ARMS = ("causal",)  # as in the paper
SQUARES, LASSO, BAYES = "least squares", "Lasso 0.01", "exact posterior mean"
GREEDY, KERNEL, NEIGHBOURS, FITTED = "greedy tree", "kernel predictor", "3 nearest neighbours", "fitted network"


def errors(config: Experiment, seeds: Sequence[int], rules: Mapping[int, Rules]) -> dict[str, xr.DataArray]:
    """Normalised errors of trained networks, by number of examples (``error``), also with the labels of another prompt
    (``unrelated``), and of the rules of each seed on the same prompts (``reference``)."""
    name = f"{config.function} functions in context"
    fitted, test = train(config, seeds, name, ARMS), test_prompts(config, seeds, name)
    rows = []
    for seed in seeds:
        prompts = test[seed]
        x, y, query, goal = (getattr(prompts, key).double() for key in ("x_context", "y_context", "x_query", "y_query"))
        rows.append(
            [
                [
                    float((rule(x[:, :k], y[:, :k], query) - goal).square().mean() / goal.square().mean())
                    for k in config.counts
                ]
                for rule in rules[seed].values()
            ]
        )
    return {
        "error": errors_by_examples(fitted, config, test, config.counts),
        "unrelated": errors_by_examples(fitted, config, with_other_labels(test), config.counts),
        "reference": labelled(np.array(rows), seed=seeds, rule=list(rules[seeds[0]]), examples=config.counts),
    }


@TASK.measurement(seeds=lambda config: config.sparse.trainings, ensemble=True, seeds_per_job=12)
def sparse_functions(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Errors on sparse functions."""
    sparsity = config.sparse.sizes.sparsity
    rules = {SQUARES: least_squares(), LASSO: theory.lasso(0.01), BAYES: theory.sparse_bayes(sparsity, 0.01)}
    return errors(config.sparse, seeds, dict.fromkeys(seeds, rules))


@TASK.measurement(seeds=lambda config: config.tree.trainings, ensemble=True, seeds_per_job=12)
def decision_trees(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Errors on decision trees."""
    depth = config.tree.depth
    rules = {
        GREEDY: greedy_tree(depth),
        NEIGHBOURS: theory.nearest_neighbours(3),
        KERNEL: theory.kernel_predictor(theory.tree_kernel(depth)),
    }
    return errors(config.tree, seeds, dict.fromkeys(seeds, rules))


@TASK.measurement(seeds=lambda config: config.relu.trainings, ensemble=True, seeds_per_job=12)
def two_layer_networks(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Errors on two-layer networks."""
    rules = {
        seed: {
            SQUARES: least_squares(),
            FITTED: two_layer_descent(stream(seed, "fitted network")),
            KERNEL: theory.arc_cosine(),
        }
        for seed in seeds
    }
    return errors(config.relu, seeds, rules)


@TASK.figure
def error_by_class(results: Results) -> Sheet:
    """Error by number of examples of networks trained on three classes, beside the rules made for them."""
    sheet = Sheet(columns=3, width=4.6, height=4.2)
    for measurement, title in (
        (sparse_functions, "sparse: the posterior needs two examples, the network more"),
        (decision_trees, "trees: ahead of the greedy tree"),
        (two_layer_networks, "two-layer networks: on a par with a fitted one"),
    ):
        measured = results[measurement]
        panel = sheet.panel(
            title, x="examples k", y="mean squared error / mean squared label", ylim=(0, 1.5), legend="upper right"
        )
        for arm in ARMS:
            panel.curve(measured["error"].sel(arm=arm), over="examples", arm=arm)
        for rule in measured.rule.values:
            panel.curve(measured["reference"].sel(rule=rule), over="examples", name=str(rule), band="none")
        panel.level(1.0, "predicting 0")
    return sheet


def log_ratio(results: Results, measurement: Measurement, rule: str, labels: str, arm: str) -> xr.DataArray:
    """Log ratio of a network's error to that of a rule on the same prompts, [seed, examples]."""
    measured = results[measurement]
    ratio: xr.DataArray = np.log(
        measured[labels].sel(arm=arm, drop=True) / measured["reference"].sel(rule=rule, drop=True)
    )
    return ratio


def below(
    results: Results, measurement: Measurement, rule: str, counts: Sequence[int], labels: str = "error"
) -> Evidence:
    """The error of the networks is below that of a rule for every one of these numbers of examples."""
    return Evidence.all(
        *(
            Evidence.over_seeds(
                log_ratio(results, measurement, rule, labels, arm).sel(examples=k, drop=True),
                "<",
                0.0,
                f"log ratio to {rule}, {arm}, k = {k}; 0 is a tie",
            )
            for arm in ARMS
            for k in counts
        )
    )


OTHER_LABELS = control(f"examples with {UNRELATED}", labels="unrelated")
BUDGET = "at twenty dimensions and after half a million updates"


@TASK.claim(
    "icl-function-classes/C1.tree",
    where="our reading of the paper's experiments with decision trees",
    kind="training",
    statement="After 1 500 updates on decision trees of depth 2 in 3 dimensions the network has a smaller error than a greedy tree of that "
    "depth at every number of examples from 1 to 6.",
    controls=[OTHER_LABELS],
)
def ahead_of_the_greedy_tree(results: Results, labels: str = "error") -> Evidence:
    return below(results, decision_trees, GREEDY, [k for k in results.config.tree.counts[1:] if k <= 6], labels)


@TASK.claim(
    "icl-function-classes/C1.tree.kernel",
    where="derived",
    kind="training",
    statement="The kernel predictor of trees, the best rule that is linear in the labels, is still ahead of networks trained on decision "
    "trees of depth 2 in 3 dimensions for 1 500 updates: at 4 to 8 examples it leaves at most nine tenths of their error.",
    controls=[control("3 nearest neighbours in its place", rule=NEIGHBOURS)],
)
def behind_the_kernel_predictor(results: Results, rule: str = KERNEL) -> Evidence:
    counts = [k for k in results.config.tree.counts if k >= 4]
    return Evidence.all(
        *(
            Evidence.over_seeds(
                -log_ratio(results, decision_trees, rule, "error", arm).sel(examples=k, drop=True),
                "<",
                float(np.log(0.9)),
                f"{arm}, k = {k}; {PILOT}",
            )
            for arm in ARMS
            for k in counts
        )
    )


@TASK.claim(
    "icl-function-classes/C1.relu",
    where="our reading of the paper's experiments with two-layer networks",
    kind="training",
    statement="After 1 500 updates on two-layer networks of 100 units in 2 dimensions the network's error is comparable to that of a "
    "two-layer network fitted to the examples by 100 steps of Adam: within 40 % of it, in the geometric mean over 1 to 8 examples.",
    controls=[OTHER_LABELS],
)
def on_a_par_with_a_fitted_network(results: Results, labels: str = "error") -> Evidence:
    counts = results.config.relu.counts[1:]
    return Evidence.all(
        *(
            Evidence.equals(
                log_ratio(results, two_layer_networks, FITTED, labels, arm).sel(examples=list(counts)).mean("examples"),
                0.0,
                within=float(np.log(1.4)),
                origin=f"log ratio, {arm}; the tolerance is {PILOT}",
                absolute=True,
            )
            for arm in ARMS
        )
    )


@TASK.claim(
    "icl-function-classes/C1.relu.squares",
    where="our reading of the paper's experiments with two-layer networks",
    kind="training",
    statement="After 1 500 updates on two-layer networks of 100 units in 2 dimensions the network has a smaller error than least squares "
    "at 1 example, and at 5 to 8 (near $k = d = 2$ the error of least squares has no mean that samples would settle on).",
    controls=[OTHER_LABELS],
)
def ahead_of_least_squares(results: Results, labels: str = "error") -> Evidence:
    counts = [k for k in results.config.relu.counts[1:] if k == 1 or k >= 5]
    return below(results, two_layer_networks, SQUARES, counts, labels)


@TASK.claim(
    "icl-function-classes/C1.sparse",
    where="our reading of the paper's experiments with sparse functions",
    kind="training",
    statement="A network trained on sparse functions (one non-zero weight of four, 1 500 updates) has at 3 examples a smaller error than "
    "least squares.",
    expected="not reproduced",
    condition=f"{BUDGET}; here least squares is still ahead",
    controls=[control("the Lasso in the network's place", network=LASSO)],
)
def ahead_of_least_squares_on_sparse_functions(results: Results, network: str = "") -> Evidence:
    measured = results[sparse_functions]
    goal = np.log(measured["reference"].sel(rule=SQUARES, examples=3, drop=True))
    if network:
        ratios = {network: np.log(measured["reference"].sel(rule=network, examples=3, drop=True)) - goal}
    else:
        ratios = {arm: np.log(measured["error"].sel(arm=arm, examples=3, drop=True)) - goal for arm in ARMS}
    return Evidence.all(
        *(
            Evidence.over_seeds(ratio, "<", 0.0, f"log ratio to least squares, {name}; 0 is a tie")
            for name, ratio in ratios.items()
        )
    )


# %%
TASK.show(error_by_class)
TASK.show(ahead_of_the_greedy_tree)
TASK.show(behind_the_kernel_predictor)
TASK.show(on_a_par_with_a_fitted_network)
TASK.show(ahead_of_least_squares)
TASK.show(ahead_of_least_squares_on_sparse_functions)

# %% [markdown]
# Least squares and the Lasso come to their own with more examples than this network has learned to use: on sparse functions
# it still improves slowly when training ends, and the exact posterior mean, which needs two examples, is far ahead. On trees
# and two-layer networks the gap to the kernel predictor is what is left to learn; that rule is the posterior mean of
# the second class in the limit of infinite width.

# %% [markdown]
# ## All verdicts

# %%
TASK.show()
