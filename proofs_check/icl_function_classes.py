# %% [markdown]
# # Function classes in context: what can be computed
#
# A prompt shows k examples $(x_i, f(x_i))$ of a function drawn from a known class, $x \sim N(0, I_d)$. Which error is
# within reach of whoever knows the class? For linear functions the answer is classical: least squares (R1), the
# posterior mean under noise (R3); averaging, one gradient step, is no better than silence for a long time (R2). For
# networks and trees the paper compares with trained baselines. Two facts give a reference without any training: for any
# class the best rule that is *linear in the labels* needs only the covariance of the labels, and that covariance is a
# closed form for two-layer ReLU networks of every width (R4) and for decision trees (R5). For sparse functions even the
# full posterior can be enumerated (R6), and it needs hardly more examples than there are non-zero weights.
#
# The last part turns to dynamics: an advection-diffusion equation with hidden coefficients, whose states in the context
# tell the equation (pde.I1 to pde.N1).

# %%
from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.dynamics import linear_equation as dynamics
from lab.domains.dynamics import mesa_optimization as mesa
from lab.domains.dynamics.linear_equation_prompts import Family, fields, pde_trajectories, propagators
from lab.domains.dynamics.sequences import Phases
from lab.domains.regression import function_classes as theory
from lab.domains.regression.function_class_prompts import (
    FunctionClass,
    FunctionPrompts,
    Shift,
    function_prompts,
    sample_functions,
    shifted_prompts,
)
from lab.domains.regression.least_squares import expected_query_error, least_squares, ridge
from lab.figures import REFERENCES, Drawing, band, label, panels
from lab.predictors import RegressionPredictor
from lab.results import Results
from lab.statistics import mean_band, rounding_bound
from lab.streams import stream


@dataclass(frozen=True)
class Config:
    """How much is sampled; laws that are exact take no size."""

    draws: int = 16
    """independent draws"""
    prompts: int = 1_000
    """prompts a draw"""
    kernel_prompts: int = 80
    """prompts a draw of kernel predictors"""
    sparse_prompts: int = 60
    """prompts a draw of sparse functions"""
    trajectories: int = 200
    """equations a draw"""


PROOFS = Task(
    "icl-function-classes",
    "garg-2022-function-classes",
    {
        "smoke": Config(draws=4, prompts=50, kernel_prompts=4, sparse_prompts=6, trajectories=10),
        "ci": Config(),
        "paper": Config(draws=32, prompts=5_000, kernel_prompts=400, sparse_prompts=300, trajectories=1_000),
    },
)


def squared_error(predictor: RegressionPredictor, prompts: FunctionPrompts) -> Tensor:
    """Mean over the queries of each prompt, [batch]."""
    found = predictor(prompts.x_context, prompts.y_context, prompts.x_query)
    return (found - prompts.y_query).square().mean(-1)


# %% [markdown]
# ## Normalisers
#
# Curves are divided by the error of predicting 0, $E f(x)^2$: d for linear, quadratic and ReLU functions, the number of
# non-zero weights for sparse ones, 1 for trees, whatever the dimension.

# %%
CLASSES: tuple[FunctionClass, ...] = ("linear", "sparse", "quadratic", "relu", "tree", "sign")


@PROOFS.measurement(seeds=lambda config: config.draws)
def label_moments(config: Config, seed: int) -> dict[str, np.ndarray]:
    """Mean of f(x)^2 over prompts at d = 20, [class]."""
    found = []
    for name in CLASSES:
        prompts = function_prompts(
            stream(seed, "moments", name), config.prompts, function=name, dimension=20, context_length=0, query_length=4
        )
        found.append(float(prompts.y_query.square().mean()))
    return {"square": np.array(found)}


@PROOFS.claim(
    "icl-function-classes/I1",
    where="Section 2 and released code (samplers)",
    kind="identity",
    statement=r"At $d = 20$ the mean square of a label is 20 for linear, quadratic and ReLU functions, 3 for sparse ones, 1 for "
    r"trees and signs.",
    controls=[control("d for every class", constant=20.0)],
)
def normalisers(results: Results, constant: float = 0.0) -> Evidence:
    found = results[label_moments]["square"]
    return Evidence.weakest(
        *(
            Evidence.agreement(
                found[:, column], constant or theory.second_moment(name, 20), f"E f(x)^2, {name}", len(CLASSES)
            )
            for column, name in enumerate(CLASSES)
        )
    )


# %% [markdown]
# ## Linear functions
#
# Without noise, k examples fix w on a random subspace of dimension k: least squares of least norm leaves $1 - k/d$ of
# the error. With noise it also fits that, and near $k = d$ the noise is blown up without limit; those k are left out.
#
# Averaging, $\hat w = \frac1k \sum y_i x_i$, has no such peak. But $E|\hat w - w|^2 = (d + 1)|w|^2/k$: until $k = d + 1$ it
# is worse than the prediction 0.
#
# For noise of known variance $\sigma^2$ and $w \sim N(0, I)$, ridge regression with $\lambda = \sigma^2$ is the posterior mean,
# with the error $E\,\mathrm{tr}\,\sigma^2 (X^\top X + \sigma^2 I)^{-1}$.

# %%
DIMENSION = 8
CLEAN = (1, 2, 4, 6, 7)
NOISY = (1, 3, 5, 12, 16, 24)
AVERAGED = (2, 4, 7, 8, 12, 24)
NOISE = 0.5
SHOWN = tuple(range(0, 21, 2))


def linear_prompts(config: Config, seed: int, name: str, examples: int, noise: float) -> FunctionPrompts:
    return function_prompts(
        stream(seed, name, examples),
        config.prompts,
        function="linear",
        dimension=DIMENSION,
        context_length=examples,
        query_length=8,
        noise=noise,
    )


@PROOFS.measurement(seeds=lambda config: config.draws)
def linear_errors(config: Config, seed: int) -> dict[str, np.ndarray]:
    """Mean squared errors: of least squares without and with noise and of averaging, [k]; of ridge minus its law, [penalty];
    least excess over prompts of other penalties over the best one, and of that over nine tenths of it."""

    def mean_error(name: str, rule: RegressionPredictor, counts: tuple[int, ...], noise: float) -> np.ndarray:
        return np.array(
            [float(squared_error(rule, linear_prompts(config, seed, name, k, noise)).mean()) for k in counts]
        )

    prompts = linear_prompts(config, seed, "ridge", DIMENSION, NOISE)
    law = theory.ridge_error(prompts.x_context, NOISE**2, NOISE)
    return {
        "clean": mean_error("clean", least_squares(), CLEAN, 0.0),
        "noisy": mean_error("noisy", least_squares(), NOISY, NOISE),
        "averaging": mean_error("averaging", theory.averaging(), AVERAGED, 0.0),
        "ridge": np.array(
            [float((squared_error(ridge(penalty), prompts) - law).mean()) for penalty in (NOISE**2, NOISE)]
        ),
        "penalties": np.array(
            [
                float((theory.ridge_error(prompts.x_context, factor * NOISE**2, NOISE) - law).min())
                for factor in (0.3, 0.9, 1.1, 3.0)
            ]
        ),
        "nine tenths": (law - theory.ridge_error(prompts.x_context, 0.9 * NOISE**2, NOISE)).min().numpy(),
    }


@PROOFS.claim(
    "icl-function-classes/R1",
    where="Section 3 (least squares); derived law",
    kind="rate",
    statement=r"For $d = 8$ the error of least squares of least norm is $d(1 - k/d)$ without noise ($k = 1, 2, 4, 6, 7$), and with noise "
    r"$\sigma = 1/2$ it is $\sigma^2 d/(k - d - 1)$ for $k = 12, 16, 24$ and $d(1 - k/d) + \sigma^2 k/(d - k - 1)$ for $k = 1, 3, 5$.",
    controls=[control("the law of one example less", shift=1)],
)
def least_squares_follows_its_law(results: Results, shift: int = 0) -> Evidence:
    found = results[linear_errors]
    parts = len(CLEAN) + len(NOISY)
    return Evidence.weakest(
        *(
            Evidence.agreement(
                found[name][:, column],
                expected_query_error(k - shift, DIMENSION, noise),
                f"error of least squares at k = {k}",
                parts,
            )
            for name, counts, noise in (("clean", CLEAN, 0.0), ("noisy", NOISY, NOISE))
            for column, k in enumerate(counts)
        )
    )


@PROOFS.claim(
    "icl-function-classes/R2",
    where="Section 3 (averaging estimator); derived law",
    kind="rate",
    statement=r"For $d = 8$ the error of averaging is $d (d + 1)/k$ ($k = 2, 4, 7, 8, 12, 24$): above that of predicting 0 until "
    r"$k > d + 1$.",
    controls=[control("d in the place of d + 1", numerator=DIMENSION)],
)
def averaging_follows_its_law(results: Results, numerator: int = DIMENSION + 1) -> Evidence:
    found = results[linear_errors]["averaging"]
    return Evidence.weakest(
        *(
            Evidence.agreement(
                found[:, column],
                theory.expected_averaging_error(k, DIMENSION) * numerator / (DIMENSION + 1),
                f"error of averaging at k = {k}",
                len(AVERAGED),
            )
            for column, k in enumerate(AVERAGED)
        )
    )


@PROOFS.claim(
    "icl-function-classes/R3",
    where="derived (Bayes rule of noisy linear functions)",
    kind="rate",
    statement=r"With label noise $\sigma = 1/2$ and $k = d = 8$ the error of ridge regression at $\lambda = \sigma^2$ is "
    r"$E\,\mathrm{tr}\,\sigma^2 (X^\top X + \sigma^2 I)^{-1}$.",
    controls=[control(r"$\lambda = \sigma$", column=1)],
)
def ridge_follows_its_law(results: Results, column: int = 0) -> Evidence:
    return Evidence.agreement(results[linear_errors]["ridge"][:, column], 0.0, "error minus closed form")


@PROOFS.claim(
    "icl-function-classes/R3.best",
    where="derived (Bayes rule of noisy linear functions)",
    kind="ordering",
    statement=r"For every input matrix drawn the exact error of ridge regression at $0.3, 0.9, 1.1, 3$ times $\lambda = \sigma^2$ is "
    r"above that at $\lambda = \sigma^2$.",
    controls=[control(r"$0.9\,\sigma^2$ said to be the best, and $\sigma^2$ the other", found="nine tenths")],
)
def no_other_penalty_is_better(results: Results, found: str = "penalties") -> Evidence:
    excess = float(results[linear_errors][found].min())
    return Evidence.exact(excess, ">", 0.0, "the least excess over all prompts and penalties")


# %% [markdown]
# ## ReLU networks and trees: the covariance is enough
#
# Take any class with mean 0 and covariance $K(x, z) = E f(x) f(z)$. Of all predictions $a \cdot y$ the one with
# $a = K^{-1} k_*$ has the least expected error, $K(x, x) - k_*^\top K^{-1} k_*$. Two facts make it computable:
#
# - ReLU, every width: units are independent, so that the covariance is that of one unit, the arc-cosine kernel;
# - trees: labels agree if all tests on the way agree, $\rho^{\text{depth}}$ with $\rho$ the share of coordinates with equal
#   signs, and are independent otherwise.

# %%
PAIRS = 8
DEPTH = 4
KERNEL_COUNTS = (10, 40)
REFERENCE_DIMENSION = 20


@PROOFS.measurement(seeds=lambda config: config.draws)
def covariances(config: Config, seed: int) -> dict[str, np.ndarray]:
    """Mean of f(x) f(z) over functions minus a kernel, [pair]: the class's own, and another for the control."""
    rng = stream(0, "pairs").rng()  # the same pairs in every draw
    x, z = rng.normal(size=(2, PAIRS, 5))
    z = 0.6 * x + 0.8 * z  # neither alike nor unrelated
    given = np.broadcast_to(np.concatenate([x, z]), (4 * config.prompts, 2 * PAIRS, 5))
    first, second = torch.from_numpy(x)[:, None], torch.from_numpy(z)[:, None]
    found = {}
    compared: dict[FunctionClass, tuple[theory.Kernel, theory.Kernel]] = {
        "relu": (theory.arc_cosine_kernel, theory.linear_kernel),
        "tree": (theory.tree_kernel(DEPTH), theory.tree_kernel(DEPTH + 1)),
    }
    for name, kernels in compared.items():
        labels = sample_functions(stream(seed, "covariance", name), len(given), name, 5)(given)
        product = (labels[:, :PAIRS] * labels[:, PAIRS:]).mean(0)
        for suffix, kernel in zip(("", " other"), kernels, strict=True):
            found[name + suffix] = product - kernel(first, second)[:, 0, 0].numpy()
    return found


def covariance_agrees(results: Results, name: str) -> Evidence:
    found = results[covariances][name]
    return Evidence.weakest(
        *(Evidence.agreement(found[:, pair], 0.0, "covariance minus kernel", PAIRS) for pair in range(PAIRS))
    )


@PROOFS.measurement(seeds=lambda config: config.draws)
def kernel_errors(config: Config, seed: int) -> dict[str, np.ndarray]:
    """Normalised errors at d = 20 by k, of the kernel predictor, its expectation, and of rules that know less."""
    kernels: dict[FunctionClass, theory.Kernel] = {"relu": theory.arc_cosine_kernel, "tree": theory.tree_kernel(DEPTH)}
    found: dict[FunctionClass, list[list[float]]] = {}
    for name, kernel in kernels.items():
        rows = []
        for k in KERNEL_COUNTS:
            prompts = function_prompts(
                stream(seed, "kernel", name, k),
                config.kernel_prompts,
                function=name,
                dimension=REFERENCE_DIMENSION,
                context_length=k,
                query_length=8,
            )
            expected = theory.expected_kernel_error(kernel, prompts.x_context, prompts.x_query).mean()
            rules = (
                theory.kernel_predictor(kernel),
                theory.kernel_predictor(theory.linear_kernel),
                theory.nearest_neighbours(3),
            )
            rows.append([float(expected), *(float(squared_error(rule, prompts).mean()) for rule in rules)])
        found[name] = rows
    return {name: np.array(rows) / theory.second_moment(name, REFERENCE_DIMENSION) for name, rows in found.items()}


KERNEL_RULES = ("expected", "kernel", "least squares", "3 neighbours")


def predictor_agrees(results: Results, name: str, rule: str) -> Evidence:
    """The error of a rule minus the expected one of the kernel predictor."""
    found = results[kernel_errors][name]
    return Evidence.weakest(
        *(
            Evidence.agreement(
                found[:, column, KERNEL_RULES.index(rule)] - found[:, column, 0],
                0.0,
                f"error minus expected error at k = {k}",
                len(KERNEL_COUNTS),
            )
            for column, k in enumerate(KERNEL_COUNTS)
        )
    )


def predictor_is_ahead(results: Results, name: str, ahead: str, behind: str) -> Evidence:
    found = results[kernel_errors][name]
    excess = found[:, :, KERNEL_RULES.index(behind)] - found[:, :, KERNEL_RULES.index(ahead)]
    return Evidence.weakest(
        *(
            Evidence.over_seeds(excess[:, column], ">", 0.0, f"excess of {behind} at k = {k}", len(KERNEL_COUNTS))
            for column, k in enumerate(KERNEL_COUNTS)
        )
    )


@PROOFS.claim(
    "icl-function-classes/R4",
    where="derived (covariance of the two-layer ReLU class)",
    kind="identity",
    statement=r"The labels of random two-layer ReLU networks of width 100 have the covariance "
    r"$\frac{|x||z|}{\pi}(\sin\theta + (\pi - \theta)\cos\theta)$, $\theta$ the angle of the inputs (8 pairs in 5 dimensions).",
    controls=[control("the linear kernel", kernel="relu other")],
)
def relu_covariance(results: Results, kernel: str = "relu") -> Evidence:
    return covariance_agrees(results, kernel)


@PROOFS.claim(
    "icl-function-classes/R4.predictor",
    where="derived (best linear rule of the ReLU class)",
    kind="rate",
    statement=r"The kernel predictor of the ReLU class ($d = 20$, width 100) has the expected error "
    r"$E[K(x, x) - k_*^\top K^{-1} k_*]$ at $k = 10, 40$.",
    controls=[control("3 nearest neighbours", rule="3 neighbours")],
)
def relu_predictor(results: Results, rule: str = "kernel") -> Evidence:
    return predictor_agrees(results, "relu", rule)


@PROOFS.claim(
    "icl-function-classes/R4.ahead",
    where="derived (best linear rule of the ReLU class)",
    kind="ordering",
    statement=r"It is ahead of 3 nearest neighbours, the paper's baseline, at $k = 10$ and $40$.",
    controls=[control("the two exchanged", ahead="3 neighbours", behind="kernel")],
)
def relu_predictor_is_ahead(results: Results, ahead: str = "kernel", behind: str = "3 neighbours") -> Evidence:
    return predictor_is_ahead(results, "relu", ahead, behind)


@PROOFS.claim(
    "icl-function-classes/R5",
    where="derived (covariance of the decision trees)",
    kind="identity",
    statement=r"The labels of random trees of depth 4 have the covariance $\rho^4$, $\rho$ the share of coordinates with equal signs "
    r"(8 pairs in 5 dimensions).",
    controls=[control("depth 5", kernel="tree other")],
)
def tree_covariance(results: Results, kernel: str = "tree") -> Evidence:
    return covariance_agrees(results, kernel)


@PROOFS.claim(
    "icl-function-classes/R5.predictor",
    where="derived (best linear rule of the trees)",
    kind="rate",
    statement=r"The kernel predictor of trees ($d = 20$, depth 4) has the expected error $1 - E[k_*^\top K^+ k_*]$ at $k = 10, 40$.",
    controls=[control("3 nearest neighbours", rule="3 neighbours")],
)
def tree_predictor(results: Results, rule: str = "kernel") -> Evidence:
    return predictor_agrees(results, "tree", rule)


# %%
@PROOFS.figure
def errors_without_training(results: Results) -> Drawing:
    """Laws of the linear class beside measurements; kernel predictors beside their expectations."""
    figure, axes = panels(1, 3)
    tables = []
    found = results[linear_errors]
    grid = np.arange(1, 25)
    for name, counts, title, law in (
        ("clean", CLEAN, "least squares", lambda k: expected_query_error(int(k), DIMENSION, 0.0)),
        ("averaging", AVERAGED, "averaging", lambda k: theory.expected_averaging_error(int(k), DIMENSION)),
    ):
        look = REFERENCES[0 if name == "clean" else 1]
        curve = np.array([law(k) for k in grid]) / DIMENSION
        axes[0, 0].plot(grid, curve, color=look, linestyle="-" if name == "clean" else "--", label=f"{title}, law")
        values = found[name] / DIMENSION
        low, high = mean_band(values)
        middle = values.mean(0)
        axes[0, 0].errorbar(
            counts,
            middle,
            yerr=np.maximum([middle - low, high - middle], 0),
            color=look,
            linestyle="",
            marker="o" if name == "clean" else "s",
            capsize=2,
            label=f"{title}, measured",
        )
        tables.append(
            pd.DataFrame({"panel": "linear", "rule": title, "k": counts, "error": middle, "low": low, "high": high})
        )
    axes[0, 0].axhline(1.0, color="black", linestyle=":", label="predicting 0")
    axes[0, 0].set_ylim(0, 5)
    label(axes[0, 0], "averaging is worse than 0 until k > d + 1", "examples k (d = 8)", "squared error / d")
    axes[0, 0].legend(fontsize=8)
    for panel, name, title in (
        (axes[0, 1], "relu", "ReLU networks: a kernel beats neighbours"),
        (axes[0, 2], "tree", "trees: least squares loses to 0, the kernel wins"),
    ):
        values = results[kernel_errors][name]
        places = np.arange(len(KERNEL_RULES))
        for column, k in enumerate(KERNEL_COUNTS):
            low, high = mean_band(values[:, column])
            middle = values[:, column].mean(0)
            panel.errorbar(
                places + 0.15 * (column - 0.5),
                middle,
                yerr=np.maximum([middle - low, high - middle], 0),
                linestyle="",
                marker="os"[column],
                color=REFERENCES[column],
                capsize=3,
                label=f"k = {k}",
            )
            tables.append(
                pd.DataFrame({"panel": name, "rule": KERNEL_RULES, "k": k, "error": middle, "low": low, "high": high})
            )
        panel.axhline(1.0, color="black", linestyle=":", label="predicting 0")
        panel.set_xticks(places, ["kernel,\nexpected", "kernel", "least\nsquares", "3 neigh-\nbours"], fontsize=8)
        label(panel, title, "rule (d = 20)", "squared error / E f(x)²")
        panel.legend(fontsize=8)
    return Drawing(figure, pd.concat(tables))


PROOFS.show(errors_without_training)

# %% [markdown]
# ## Sparse functions
#
# Three of d weights are non-zero. The posterior mean sums over all $\binom d3$ supports; the Lasso ($\alpha = 0.01$) is the
# classical substitute; least squares knows nothing of sparsity and needs d examples.

# %%
SPARSE_DIMENSION = 12
SPARSE_COUNTS = (4, 5, 6, 7, 8, 9, 10)
SPARSE_RULES = ("exact Bayes", "Lasso 0.01", "least squares", "Lasso 1")


@PROOFS.measurement(seeds=lambda config: config.draws, ensemble=True, seeds_per_job=16)
def sparse_errors(config: Config, seeds: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Mean squared error over 3, [seed, rule, k]. The Lasso takes many small steps: it is asked for all seeds at once."""
    rules = (theory.sparse_bayes(3, 0.01), theory.lasso(0.01, 1000), least_squares(), theory.lasso(1.0, 300))
    found = np.empty((len(seeds), len(rules), len(SPARSE_COUNTS)))
    for column, k in enumerate(SPARSE_COUNTS):
        drawn = [
            function_prompts(
                stream(seed, "sparse", k),
                config.sparse_prompts,
                function="sparse",
                dimension=SPARSE_DIMENSION,
                context_length=k,
                query_length=8,
                noise=0.01,
            )
            for seed in seeds
        ]
        together = {name: torch.cat([getattr(one, name) for one in drawn]) for name in vars(drawn[0])}
        for row, rule in enumerate(rules):
            errors = squared_error(rule, replace(drawn[0], **together)).unflatten(0, (len(seeds), -1))
            found[:, row, column] = errors.flatten(1).mean(1) / 3
    return {"error": found}


def sparse_order(results: Results, better: str, worse: str, counts: tuple[int, ...]) -> Evidence:
    found = results[sparse_errors]["error"]
    gap = found[:, SPARSE_RULES.index(worse)] - found[:, SPARSE_RULES.index(better)]
    return Evidence.weakest(
        *(
            Evidence.over_seeds(
                gap[:, SPARSE_COUNTS.index(k)], ">", 0.0, f"{worse} minus {better} at k = {k}", len(counts)
            )
            for k in counts
        )
    )


@PROOFS.claim(
    "icl-function-classes/R6",
    where="derived (posterior of the sparse class)",
    kind="ordering",
    statement=r"For 3 non-zero weights of $d = 12$ and $k = 5 \dots 8$ examples the exact posterior mean has a smaller error than the "
    r"Lasso with $\alpha = 0.01$.",
    controls=[control("least squares in its place", better="least squares")],
)
def bayes_is_ahead(results: Results, better: str = "exact Bayes") -> Evidence:
    return sparse_order(results, better, "Lasso 0.01", (5, 6, 7, 8))


@PROOFS.claim(
    "icl-function-classes/R6.few",
    where="derived (posterior of the sparse class)",
    kind="phenomenon",
    statement=r"At 6 and 8 examples, twice the number of non-zero weights and more, the exact posterior mean has an error below "
    r"a tenth of that of predicting 0, where least squares leaves a half and a third of it ($d = 12$).",
    controls=[control("least squares in its place", rule="least squares")],
)
def few_examples_suffice(results: Results, rule: str = "exact Bayes") -> Evidence:
    found = results[sparse_errors]["error"][:, SPARSE_RULES.index(rule)]
    places = [SPARSE_COUNTS.index(k) for k in (6, 8)]
    return Evidence.weakest(
        *(Evidence.over_seeds(found[:, place], "<", 0.1, "normalised error", len(places)) for place in places)
    )


@PROOFS.claim(
    "icl-function-classes/O1",
    where="Section 4 (sparse functions)",
    kind="ordering",
    statement=r"The Lasso with $\alpha = 0.01$ beats least squares for $6 \le k \le 10$ examples of sparse functions in $d = 12$.",
    controls=[control(r"$\alpha = 1$", better="Lasso 1")],
)
def lasso_beats_least_squares(results: Results, better: str = "Lasso 0.01") -> Evidence:
    return sparse_order(results, better, "least squares", (6, 7, 8, 9, 10))


# %% [markdown]
# ## Two shifted prompts with an exact answer
#
# A query orthogonal to all examples gets the answer 0 from least squares of least norm, and one that repeats an example
# gets that example's label.


# %%
@PROOFS.measurement(seeds=lambda config: config.draws)
def exact_shifts(config: Config, seed: int) -> dict[str, np.ndarray]:
    """Largest error over its rounding bound: of the answer 0 to orthogonal queries, of the label to repeated ones; of both
    where the queries are ordinary ones, [shift]."""
    rows = []
    shifts: tuple[Shift, ...] = ("orthogonal", "overlapping", "none")
    for shift in shifts:
        prompts = shifted_prompts(
            stream(seed, "shift"), 50, shift=shift, dimension=DIMENSION, context_length=5, query_length=4
        )
        found = least_squares()(prompts.x_context, prompts.y_context, prompts.x_query)
        goal = torch.zeros_like(found) if shift == "orthogonal" else prompts.y_query
        values = torch.linalg.svdvals(prompts.x_context)
        # Orthogonalising, the pseudo-inverse and two products; its error grows with the condition number.
        operations = 10 * DIMENSION * 5 * values[:, 0] / values[:, -1]
        size = prompts.y_context.norm(dim=-1) / values[:, -1] * prompts.x_query.norm(dim=-1).amax(-1)
        bound = torch.tensor([rounding_bound(float(one)) for one in operations]) * size
        rows.append(float(((found - goal).abs().amax(-1) / bound).max()))
    return {"excess": np.array(rows)}


@PROOFS.claim(
    "icl-function-classes/I2",
    where="Section 4 (orthogonal and overlapping queries)",
    kind="identity",
    statement=r"Least squares of least norm answers 0 to a query orthogonal to all examples, and with the label to a query that repeats an "
    r"example ($k = 5 < d = 8$, no noise).",
    controls=[control("queries of the training law", columns=(2,))],
)
def shifted_queries_have_exact_answers(results: Results, columns: tuple[int, ...] = (0, 1)) -> Evidence:
    worst = results[exact_shifts]["excess"][:, list(columns)].max()
    return Evidence.exact(worst, "<=", 1.0, "the rounding bound of a pseudo-inverse")


# %% [markdown]
# ## An equation in context
#
# Periodic advection and diffusion, $u_t + \beta u_x = \nu u_{xx}$, turns and shrinks each Fourier mode by
# $g_k = e^{-(\nu k^2 + i\beta k)\Delta}$ a step: the states of one trajectory are $x_{t+1} = W x_t$ with a diagonal W. Least
# squares mode by mode finds each multiplier; but all of them are functions of two numbers, and a fit of those two
# averages the noise of all modes. Angles are only known up to full turns, which limits what can be told apart:
# $|\beta| < \pi/\Delta$.

# %%
FAMILY = Family()
POINTS = 256
TIME = 0.5
STEPS = 500
NOISES = (0.01, 0.05, 0.1)
FORECAST = 5
FORECASTS = ("two coefficients", "mode by mode", "persistence", "prior mean")


@PROOFS.measurement(seeds=lambda config: 2)
def finite_differences(config: Config, seed: int) -> dict[str, np.ndarray]:
    """Largest relative difference of a 4th-order scheme from the propagator over its truncation bound; and with the sign of
    the advection exchanged."""
    drawn = pde_trajectories(stream(seed, "scheme"), 8, family=FAMILY, trajectories=1, length=2)
    beta, nu = drawn.advection[:, 0, :1], drawn.diffusion[:, 0, :1]
    start = drawn.modes[:, 0, 0]
    field = fields(start, POINTS)
    width, step = 2 * math.pi / POINTS, TIME / STEPS

    def slope(u: Tensor) -> Tensor:
        shifted = {offset: u.roll(-offset, -1) for offset in (-2, -1, 1, 2)}
        first = (8 * (shifted[1] - shifted[-1]) - (shifted[2] - shifted[-2])) / (12 * width)
        second = (16 * (shifted[1] + shifted[-1]) - (shifted[2] + shifted[-2]) - 30 * u) / (12 * width**2)
        return -beta * first + nu * second

    for _ in range(STEPS):
        a = slope(field)
        b = slope(field + step / 2 * a)
        c = slope(field + step / 2 * b)
        d = slope(field + step * c)
        field = field + step / 6 * (a + 2 * b + 2 * c + d)
    # Truncation of the highest mode K: K^5 h^4 / 30 and K^6 h^4 / 90 a unit of time, and |lambda|^5 dt^4 / 120.
    high = float(FAMILY.modes)
    rate = beta.abs() * high + nu * high**2
    bound = TIME * (beta.abs() * high**5 * width**4 / 30 + nu * high**6 * width**4 / 90 + rate**5 * step**4 / 120)
    found = []
    for sign in (1.0, -1.0):
        exact = fields(start * propagators(sign * beta[:, 0], nu[:, 0], FAMILY.modes, TIME), POINTS)
        # Modes shrink, so that errors relative to the start bound those a mode makes.
        found.append(float((((field - exact).norm(dim=-1) / fields(start, POINTS).norm(dim=-1)) / bound[:, 0]).max()))
    return {"excess": np.array(found)}


@PROOFS.claim(
    "icl-function-classes/pde.I1",
    where="derived (propagator in Fourier modes)",
    kind="construction",
    statement=r"A fourth-order scheme on 256 points (Runge-Kutta in time) agrees with the exact propagator $e^{-(\nu k^2 + i\beta k)t}$ at "
    r"$t = 1/2$ within 1.1 times its leading truncation error.",
    controls=[control("the sign of the advection exchanged", column=1)],
)
def propagator_solves_the_equation(results: Results, column: int = 0) -> Evidence:
    worst = results[finite_differences]["excess"][:, column].max()
    return Evidence.exact(worst, "<=", 1.1, "leading truncation errors of space and time, a tenth for the next order")


@PROOFS.measurement(seeds=lambda config: config.draws)
def coefficient_fits(config: Config, seed: int) -> dict[str, np.ndarray]:
    """Error of coefficients without noise; relative error of a forecast on a new start, by noise and rule; aliases."""
    context = pde_trajectories(stream(seed, "equations"), config.trajectories, family=FAMILY, trajectories=2, length=8)
    shown, new = context.modes[:, 0], context.modes[:, 1, 0]
    beta, nu = context.advection[:, 0, 0], context.diffusion[:, 0, 0]
    truth = propagators(beta, nu, FAMILY.modes, FAMILY.interval) ** FORECAST * new

    def fitted(states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        multipliers = dynamics.least_squares_propagators(states[:, :-1], states[:, 1:])
        weights = dynamics.mode_weights(states[:, :-1])
        return multipliers, *dynamics.fit_coefficients(multipliers, weights, FAMILY.interval)

    _, beta_found, nu_found = fitted(shown)
    noise = stream(seed, "noise").rng().normal(size=(*shown.shape, 2)) / math.sqrt(2)
    waste = torch.view_as_complex(torch.from_numpy(noise))
    rows, coefficients = [], []
    for size in NOISES:
        multipliers, found_beta, found_nu = fitted(shown + size * waste)
        guesses = (
            propagators(found_beta, found_nu, FAMILY.modes, FAMILY.interval) ** FORECAST,
            multipliers**FORECAST,
            torch.ones_like(multipliers),
            dynamics.prior_mean_propagators(FAMILY).expand_as(multipliers) ** FORECAST,
        )
        rows.append([float(dynamics.relative_error(one * new, truth).mean()) for one in guesses])
        coefficients.append([float((found_beta - beta).abs().max()), float((found_nu - nu).abs().max())])
    return {
        "exact": torch.stack([(beta_found - beta).abs().max(), (nu_found - nu).abs().max()]).numpy(),
        "noisy": np.array(coefficients),
        "forecast": np.array(rows),
    }


@PROOFS.claim(
    "icl-function-classes/pde.I2",
    where="derived (least squares in context)",
    kind="identity",
    statement=r"Eight states of a trajectory without noise tell $\beta$ and $\nu$ to rounding.",
    controls=[control("states with noise of standard deviation 0.01", noise="noisy")],
)
def states_tell_the_equation(results: Results, noise: str = "exact") -> Evidence:
    found = results[coefficient_fits]
    worst = found["exact"].max() if noise == "exact" else found["noisy"][:, 0].max()
    # Products along 8 states, a logarithm and a division by the interval.
    return Evidence.exact(
        worst, "<=", rounding_bound(100 / FAMILY.interval), "rounding of 8 states, divided by the interval"
    )


@PROOFS.claim(
    "icl-function-classes/pde.I2.noise",
    where="derived (least squares in context)",
    kind="ordering",
    statement=r"With observation noise 0.01, 0.05 and 0.1 on every mode the fit of two coefficients forecasts 5 steps of a new state "
    r"better than least squares mode by mode.",
    controls=[
        control("persistence in its place", rule="persistence"),
        control("the prior mean in its place", rule="prior mean"),
    ],
)
def two_coefficients_forecast_better(results: Results, rule: str = "two coefficients") -> Evidence:
    found = np.log(results[coefficient_fits]["forecast"])
    gap = found[:, :, FORECASTS.index("mode by mode")] - found[:, :, FORECASTS.index(rule)]
    return Evidence.weakest(
        *(
            Evidence.over_seeds(gap[:, column], ">", 0.0, f"log ratio at noise {noise}", len(NOISES))
            for column, noise in enumerate(NOISES)
        )
    )


@PROOFS.claim(
    "icl-function-classes/pde.I3",
    where="derived (sampling in time)",
    kind="identity",
    statement=r"Advection is recovered for $|\beta| < \pi/\Delta$; beyond, $\beta$ is taken for its alias $\beta - 2\pi m/\Delta$ in that "
    r"interval ($\Delta = 0.1$, 71 values up to 35).",
    controls=[control("the true value beyond the limit", alias=False)],
)
def advection_has_aliases(results: Results, alias: bool = True) -> Evidence:
    interval = FAMILY.interval
    beta = torch.arange(-35.0, 36.0, dtype=torch.float64)
    nu = torch.full_like(beta, 0.05)
    multipliers = propagators(beta, nu, FAMILY.modes, interval)
    found, _ = dynamics.fit_coefficients(multipliers, torch.ones(len(beta), FAMILY.modes).double(), interval)
    period = 2 * math.pi / interval
    goal = beta - period * (beta / period).round() if alias else beta
    error = float((found - goal).abs().max())
    # Angles up to 3 * 35 * 0.1 carry a rounding of that size, divided by the interval.
    return Evidence.exact(error, "<=", rounding_bound(100, 3 * 35.0), "rounding of the angles over the interval")


MESA_DIMENSION, MESA_LENGTH = 3, 5


def exact_mesa_loss(phases: Phases, step: float) -> float:
    """Population loss of one diagonal layer by exact quadrature, signs as first state."""
    rule = mesa.quadrature("rademacher", MESA_DIMENSION, MESA_LENGTH, phases)
    product, square = mesa.step_statistics(rule.states)
    energy = rule.states[:, 2:].abs().square().sum((-2, -1))
    each = 0.5 * ((step**2 * square - 2 * step * product).sum(-1) + energy)
    return float((rule.weights * each).sum())


@PROOFS.claim(
    "icl-function-classes/pde.N1",
    where="derived, against Zheng et al. 2024, Theorem 4.1",
    paper="zheng-2024-mesa",
    kind="identity",
    statement=r"With phases that are multiples of one angle, as under advection, the population loss of a diagonal one-step layer differs "
    r"from the formula for independent phases by more than 0.01 at its own best step ($d = 3$, $T = 5$, signs as first state).",
    controls=[control("independent phases", phases="independent")],
)
def advection_is_no_independent_phases(results: Results, phases: Phases = "harmonic") -> Evidence:
    law = mesa.moments("rademacher", MESA_DIMENSION)
    step = mesa.optimal_step(law, MESA_LENGTH)
    formula = float(mesa.population_loss(step, law, MESA_DIMENSION, MESA_LENGTH))
    return Evidence.exact(abs(exact_mesa_loss(phases, step) - formula), ">", 0.01, "distance of two exact losses")


# %%
@PROOFS.figure
def equations_in_context(results: Results) -> Drawing:
    """A trajectory in space and time, and forecasts by observation noise."""
    figure, axes = panels(1, 2, width=5.0)
    drawn = pde_trajectories(stream(3, "picture"), 1, family=FAMILY, trajectories=1, length=30)
    picture = fields(drawn.modes[0, 0], 64).numpy()
    shown = axes[0, 0].pcolormesh(
        np.arange(30) * FAMILY.interval, 2 * math.pi / 64 * np.arange(64), picture.T, cmap="Greys", shading="nearest"
    )
    axes[0, 0].grid(False)
    figure.colorbar(shown, ax=axes[0, 0], label="u")
    beta, nu = float(drawn.advection[0, 0, 0]), float(drawn.diffusion[0, 0, 0])
    label(axes[0, 0], f"waves move and fade (beta = {beta:.2f}, nu = {nu:.2f})", "time t", "place x")
    found = results[coefficient_fits]["forecast"]
    tables = []
    for column, (rule, marker, dashes) in enumerate(zip(FORECASTS, "osv^", ("-", "--", ":", "-."), strict=True)):
        middle = found[:, :, column].mean(0)
        low, high = mean_band(found[:, :, column])
        axes[0, 1].plot(NOISES, middle, marker=marker, linestyle=dashes, color=REFERENCES[column], label=rule)
        band(axes[0, 1], np.array(NOISES), low, high, REFERENCES[column])
        tables.append(pd.DataFrame({"rule": rule, "noise": NOISES, "error": middle, "low": low, "high": high}))
    axes[0, 1].set_xscale("log")
    axes[0, 1].set_yscale("log")
    axes[0, 1].set_xticks(NOISES, [f"{noise:g}" for noise in NOISES])
    axes[0, 1].minorticks_off()
    label(axes[0, 1], "two coefficients forecast best", "observation noise on a mode", "relative error of 5 steps")
    axes[0, 1].legend(fontsize=8)
    return Drawing(figure, pd.concat(tables))


PROOFS.show(equations_in_context)
