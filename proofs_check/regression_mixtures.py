# %% [markdown]
# # Mixtures of regressions in context: what can be computed
#
# Every prompt follows one of m fixed weight vectors $w^*_1, \dots, w^*_m$ and does not say which. Whoever
# knows the set can do no better, in squared error, than the *posterior mean*: weigh each vector by
# $e^{-S_{kj}/(2\sigma^2)}$, where $S_{kj}$ are its squared residuals on the k pairs seen so far, and predict
# with the weighted mean. This file checks
#
# 1. that this is Bayes' rule (I1), and two consequences which need no formula and can therefore be asked of
#    any predictor, trained networks included: its excess error *is* its squared distance to the posterior
#    mean (I2), and the posterior mean is uncorrelated with its own error (I3);
# 2. the simplest case, $\pm w$, in closed form (I4);
# 3. that a transformer can compute the posterior mean, exactly, under a causal and under a prefix mask (C1);
# 4. the risk of least squares, which knows nothing of the set (R1), and the order of all predictors (O1);
# 5. that the set can be learnt from a few thousand prompts by expectation-maximisation (T2).
#
# Closed forms: `lab/domains/regression/mixtures.py`. Labels carry noise, also those that are predicted:
# the best possible error is above $\sigma^2$.
# %%
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.regression import mixtures as theory
from lab.domains.regression.least_squares import least_squares, ridge
from lab.domains.regression.mixture_prompts import (
    MixturePrompts,
    component_set,
    fresh_regression,
    prior_law,
    regression_mixture,
)
from lab.domains.regression.mixture_transformer import posterior_network, posterior_rounding
from lab.models import masks
from lab.predictors import RegressionPredictor
from lab.results import Results
from lab.statistics import rounding_bound
from lab.streams import stream

PAIRS = (1, 3, 10)  # k at which the two identities in expectation are asked


@dataclass(frozen=True)
class Config:
    """How much is sampled."""

    draws: int = 16
    """independent draws of the set and of the prompts"""
    prompts: int = 5_000
    """prompts a draw"""
    components: int = 6
    """m"""
    dimension: int = 5
    """d"""
    noise: float = 0.7
    """standard deviation of the noise on every label"""
    proposals: int = 100_000
    """prompts a draw from which those near a given one are picked"""
    risk_dimension: int = 10
    """d of the risk of least squares"""
    learning_prompts: int = 3_000
    """prompts that expectation-maximisation learns from"""
    learning_pairs: int = 16
    """pairs of each"""
    iterations: int = 100
    """updates of expectation-maximisation"""
    starts: int = 10
    """random starts, of which the likeliest result counts"""


PROOFS = Task(
    "regression-mixtures",
    "pathak-2024-mixtures",
    {
        "smoke": Config(draws=4, prompts=400, proposals=5_000, learning_prompts=100, iterations=10, starts=2),
        "ci": Config(),
        "paper": Config(
            draws=32, prompts=20_000, components=20, dimension=20, risk_dimension=20, learning_prompts=15_000
        ),
    },
)

# %% [markdown]
# ## Bayes' rule
#
# Given its inputs, a prompt of component j has labels $N(X w^*_j, \sigma^2 I)$. Normal densities of k labels
# and the prior give the same weights as the softmax of squared residuals, because the rest of the exponent is
# common to all components. The second check needs no density at all: draw prompts with the same inputs, keep
# those whose labels come out within a box around the given ones, and count which component they came from.


# %%
@PROOFS.measurement()
def bayes_rule(config: Config, seed: int) -> dict[str, np.ndarray]:
    """Largest difference of posterior weights from Bayes' rule over its rounding bound, by variant.

    Variants: the formula; without its prior; with three times the noise. The prior is proportional to 1, 2, .., m.
    """
    prior = tuple((np.arange(1, config.components + 1) / np.arange(1, config.components + 1).sum()).tolist())
    components = component_set(stream(seed, "bayes", "set"), config.components, config.dimension, "unit")
    prompts = regression_mixture(
        stream(seed, "bayes"), 500, components=components, length=12, noise=config.noise, prior=prior
    )
    residuals = theory.squared_residuals(prompts.x, prompts.y, components)
    covariance = config.noise**2 * torch.eye(12, dtype=torch.float64)
    likelihood = torch.distributions.MultivariateNormal(
        (prompts.x @ components.mT).mT.contiguous(), covariance
    ).log_prob(prompts.y.unsqueeze(1))
    joint = (likelihood - likelihood.amax(-1, keepdim=True)).exp() * prior_law(prior, config.components)
    exact = joint / joint.sum(-1, keepdim=True)
    scores = residuals.sum(1)
    found = (
        theory.posterior(scores, config.noise, prior),
        theory.posterior(scores, config.noise),
        theory.posterior(scores, 3 * config.noise, prior),
    )
    # An exponent errs by gamma_N times the sum of (|y| + |w|.|x|)^2 / (2 sigma^2) and k log sqrt(2 pi sigma^2); a weight by
    # at most twice the posterior mean of that.
    size = (prompts.y.abs().unsqueeze(-1) + prompts.x.abs() @ components.abs().mT).square().sum(1)
    size = size / (2 * config.noise**2) + 12
    bound = rounding_bound(
        2 * (2 * config.dimension + 3 * 12 + config.components + 20), float((2 * (1 + (exact * size).sum(-1))).max())
    )
    return {"ratio": np.array([float((one - exact).abs().max()) for one in found]) / bound}


@PROOFS.claim(
    "regression-mixtures/I1",
    where="Section 2 (the posterior mean)",
    kind="identity",
    statement=r"The softmax of $\log \pi_j - S_{kj}/(2\sigma^2)$ is Bayes' rule with the k-variate normal likelihood, for a "
    r"prior that is not uniform.",
    controls=[control("the prior left out", variant=1), control("three times the noise", variant=2)],
)
def softmax_is_bayes(results: Results, variant: int = 0) -> Evidence:
    return Evidence.exact(
        results[bayes_rule]["ratio"][0, variant], "<=", 1.0, "1: the rounding error of both computations"
    )


@PROOFS.measurement(seeds=lambda config: config.draws)
def rejection(config: Config, seed: int) -> dict[str, np.ndarray]:
    """Share of component 0 among the proposals in a box of half-width 1/2 around 3 labels, minus its exact value.

    ``difference`` uses the posterior averaged over the box, ``three`` that of three times the noise. One set of 4 components
    in 2 dimensions, one prompt for all draws.
    """
    half, pairs, count = 0.5, 3, 4
    components = component_set(stream(0, "rejection", "set"), count, 2, "unit")
    given = regression_mixture(
        stream(0, "rejection", "prompt"), 1, components=components, length=pairs, noise=config.noise
    )
    means = given.x[0] @ components.mT  # [pair, component]
    draws = stream(seed, "rejection", "proposals").rng()
    chosen = draws.integers(0, count, config.proposals)
    labels = means.numpy()[:, chosen].T + config.noise * draws.standard_normal((config.proposals, pairs))
    kept = (np.abs(labels - given.y[0].numpy()) <= half).all(1)
    frequency = (chosen[kept] == 0).mean() if kept.any() else 0.0

    def boxed(noise: float) -> float:
        edges = [(given.y[0, :, None] + sign * half - means) / noise for sign in (1, -1)]
        share = (torch.special.ndtr(edges[0]) - torch.special.ndtr(edges[1])).prod(0)
        return float(share[0] / share.sum())

    return {
        "difference": np.array(frequency - boxed(config.noise)),
        "three": np.array(frequency - boxed(3 * config.noise)),
    }


@PROOFS.claim(
    "regression-mixtures/I1.sampled",
    where="Section 2 (the posterior mean)",
    kind="identity",
    statement=r"Among prompts drawn with the same inputs whose three labels fall into a box, the share of a component is its "
    r"posterior weight, averaged over the box.",
    controls=[control("the weights of three times the noise", quantity="three")],
)
def counting_is_bayes(results: Results, quantity: str = "difference") -> Evidence:
    return Evidence.agreement(results[rejection][quantity], 0.0, "share minus posterior weight")


# %% [markdown]
# ## Two identities that any predictor can be asked for
#
# The posterior mean $f_B$ is the conditional mean of the label. So for *every* function $f$ of the prompt,
# $E(f-y)^2 - E(f_B-y)^2 = E(f-f_B)^2$: the gap in error and the squared distance are one number, and a figure
# that shows both shows one curve twice. The second identity, $E f_B y = E f_B^2$, says that $f_B$ needs no
# rescaling. Both fail as soon as the comparator is not the conditional mean: with a wrong noise, or on
# prompts whose weights are not in the set.


# %%
VARIANTS = ("true", "noise x 3", "noise / 3", "unseen weights")
OTHERS = ("argmin", "ridge")


def at_place(predictor: RegressionPredictor, prompts: MixturePrompts, pairs: int) -> Tensor:
    """The prediction of the label behind the first ``pairs`` pairs, [batch]."""
    return predictor(prompts.x[:, :pairs], prompts.y[:, :pairs], prompts.x[:, pairs : pairs + 1])[:, 0]


@PROOFS.measurement(seeds=lambda config: config.draws)
def identities(config: Config, seed: int) -> dict[str, np.ndarray]:
    """Means over prompts: ``pythagoras`` [variant, other predictor, k], ``nishimori`` [variant, k]."""
    components = component_set(stream(seed, "identities", "set"), config.components, config.dimension, "unit")
    length = max(PAIRS) + 1
    source = stream(seed, "identities", "prompts")
    inside = regression_mixture(source, config.prompts, components=components, length=length, noise=config.noise)
    outside = fresh_regression(
        source, config.prompts, dimension=config.dimension, length=length, noise=config.noise, law="unit"
    )
    pythagoras = np.zeros((len(VARIANTS), len(OTHERS), len(PAIRS)))
    nishimori = np.zeros((len(VARIANTS), len(PAIRS)))
    others = (theory.best_component(components), ridge(config.dimension * config.noise**2))
    for row, factor in enumerate((1.0, 3.0, 1 / 3, 1.0)):
        prompts = outside if VARIANTS[row] == "unseen weights" else inside
        bayes = theory.posterior_mean(components, factor * config.noise)
        for column, pairs in enumerate(PAIRS):
            truth, best = prompts.y[:, pairs], at_place(bayes, prompts, pairs)
            nishimori[row, column] = float((best * (truth - best)).mean())
            for place, other in enumerate(others):
                f = at_place(other, prompts, pairs)
                gap = (f - truth).square() - (best - truth).square() - (f - best).square()
                pythagoras[row, place, column] = float(gap.mean())
    return {"pythagoras": pythagoras, "nishimori": nishimori}


WRONG_COMPARATORS = [
    control("posterior mean with three times the noise", variant="noise x 3"),
    control("posterior mean with a third of the noise", variant="noise / 3"),
    control("prompts whose weights are not in the set", variant="unseen weights"),
]


@PROOFS.claim(
    "regression-mixtures/I2",
    where="derived (conditional expectation)",
    kind="identity",
    statement=r"For the argmin and the ridge predictor, after 1, 3 and 10 pairs, the gap in mean squared error to the posterior mean is "
    r"the mean squared distance to it: $E(f-y)^2 - E(f_B-y)^2 = E(f-f_B)^2$.",
    controls=WRONG_COMPARATORS,
)
def gap_is_distance(results: Results, variant: str = "true") -> Evidence:
    found = results[identities]["pythagoras"][:, VARIANTS.index(variant)]
    parts = found[0].size
    return Evidence.weakest(
        *(
            Evidence.agreement(found[:, place, column], 0.0, f"gap minus distance, {other}, k = {pairs}", parts)
            for place, other in enumerate(OTHERS)
            for column, pairs in enumerate(PAIRS)
        )
    )


@PROOFS.claim(
    "regression-mixtures/I3",
    where="derived (conditional expectation)",
    kind="identity",
    statement=r"After 1, 3 and 10 pairs the posterior mean is uncorrelated with its own error: $E f_B\,y = E f_B^2$.",
    controls=WRONG_COMPARATORS,
)
def needs_no_rescaling(results: Results, variant: str = "true") -> Evidence:
    found = results[identities]["nishimori"][:, VARIANTS.index(variant)]
    return Evidence.weakest(
        *(
            Evidence.agreement(found[:, column], 0.0, f"mean of f (y - f), k = {pairs}", len(PAIRS))
            for column, pairs in enumerate(PAIRS)
        )
    )


# %% [markdown]
# ## Two components $w$ and $-w$
#
# The weights differ by $\tanh$ of half the log odds: $\hat w_k = w \tanh(\sigma^{-2} \sum_i y_i\, w\cdot
# x_i)$. Given the inputs and $+w$, the argument is $N(a, a)$ with $a = \sum_i (w \cdot x_i)^2/\sigma^2$: mean
# equal to variance, the mark of a log odds under its own truth. For such a law $E\tanh Z = E\tanh^2 Z$ (the
# identity above once more), so the excess error at a new input is $\lVert w\rVert^2 (1 - E \tanh Z)$.


# %%
SIGNALS = np.array([0.01, 0.1, 0.3, 1.0, 2.0, 5.0, 20.0])


@PROOFS.measurement(seeds=lambda config: config.draws)
def symmetric(config: Config, seed: int) -> dict[str, np.ndarray]:
    """``difference``: mean of |what - w|^2 minus its closed form given the inputs; ``blind`` the same with a = 1 throughout;
    ``form``: error of the tanh form over its rounding bound, against the posterior mean of the pair, and with a prior of
    (0.6, 0.4) on it."""
    pair = component_set(stream(seed, "symmetric", "set"), 1, config.dimension, "unit")
    components = torch.cat([pair, -pair])
    pairs = 3
    prompts = regression_mixture(
        stream(seed, "symmetric"), config.prompts, components=components, length=pairs, noise=config.noise
    )
    weights = theory.symmetric_weights(prompts.x, prompts.y, pair[0], config.noise)
    signals = theory.signal(prompts.x, pair[0], config.noise).numpy()
    error = (weights - prompts.weights).square().sum(-1).numpy()
    scores = theory.squared_residuals(prompts.x, prompts.y, components).sum(1)
    # Exponents up to the sum of (|y| + |w|.|x|)^2 / (2 sigma^2), and tanh has slope at most 1.
    size = (prompts.y.abs() + prompts.x.abs() @ pair[0].abs()).square().sum(1) / (2 * config.noise**2)
    bound = rounding_bound(2 * (2 * config.dimension + 2 * pairs + 20), float(4 * (1 + size).max()))
    form = [
        float((theory.posterior(scores, config.noise, prior) @ components - weights).abs().max()) / bound
        for prior in ((), (0.6, 0.4))
    ]
    return {
        "difference": np.array((error - theory.symmetric_excess_risk(signals, 1.0)).mean()),
        "blind": np.array(error.mean() - theory.symmetric_excess_risk(np.ones(1), 1.0)[0]),
        "form": np.array(form),
    }


@PROOFS.claim(
    "regression-mixtures/I4",
    where="derived (two symmetric components)",
    kind="identity",
    statement=r"For $Z \sim N(a, a)$, $E \tanh Z = E \tanh^2 Z$ for $a$ from $0.01$ to $20$, by quadrature.",
    controls=[control("a variance of twice the mean", spread=2.0)],
)
def tanh_identity(results: Results, spread: float = 1.0) -> Evidence:
    first, second = theory.tanh_moments(SIGNALS, spread * SIGNALS)
    # Sums of some thousand positive terms of total weight 1; each term is a handful of operations.
    return Evidence.exact(
        np.abs(first - second).max(),
        "<=",
        rounding_bound(4_000),
        "rounding error of the sums of the trapezoidal rule; its own error is below that of rounding",
    )


@PROOFS.claim(
    "regression-mixtures/I4.form",
    where="derived (two symmetric components)",
    kind="identity",
    statement=r"The posterior mean of the pair $\pm w$ is $w \tanh(\sigma^{-2} \sum_i y_i\, w \cdot x_i)$.",
    controls=[control("a prior of 0.6 and 0.4", prior=1)],
)
def tanh_form(results: Results, prior: int = 0) -> Evidence:
    return Evidence.exact(
        results[symmetric]["form"][:, prior].max(), "<=", 1.0, "1: the rounding error of both computations"
    )


@PROOFS.claim(
    "regression-mixtures/I4.risk",
    where="derived (two symmetric components)",
    kind="identity",
    statement=r"Given its inputs the excess error of the posterior mean of $\pm w$ is $\lVert w\rVert^2 (1 - E\tanh Z)$, $Z \sim N(a,a)$ "
    r"(three pairs, sampled labels).",
    controls=[control("a signal of 1 whatever the inputs", quantity="blind")],
)
def tanh_risk(results: Results, quantity: str = "difference") -> Evidence:
    return Evidence.agreement(results[symmetric][quantity], 0.0, "sampled minus exact excess error")


# %% [markdown]
# ## A transformer that computes it
#
# `lab/domains/regression/mixture_transformer.py` writes the weights down: copy $x_i$ to the row of $y_i$ and
# square m residuals, add them up with attention of weight 1, let a softmax over m memory rows average the
# components, multiply by the input. At the row of $x_{k+1}$ only the *set* of the pairs before it matters,
# not their order: so a **prefix mask** over those pairs, which lets them see one another, changes nothing
# there. Inside the prefix it does: those rows count the pairs to come, their own label among them.


# %%
CONSTRUCTIONS = ((3, 4, 6, 0.5), (8, 20, 40, 0.7), (2, 3, 12, 0.3))  # d, m, n, sigma


@PROOFS.measurement()
def construction(config: Config, seed: int) -> dict[str, np.ndarray]:
    """Largest error over its rounding bound: ``causal`` [variant, size], ``prefix`` [behind or inside, size].

    Variants: the network; averaging in place of adding; residuals on rows of inputs too. The prefix holds n / 2 pairs.
    """
    causal, prefix = [], []
    for dimension, count, length, noise in CONSTRUCTIONS:
        components = component_set(stream(seed, "construction", count, "set"), count, dimension, "unit")
        prior = tuple((np.arange(1, count + 1) / np.arange(1, count + 1).sum()).tolist())
        prompts = regression_mixture(
            stream(seed, "construction", count), 100, components=components, length=length, noise=noise, prior=prior
        )
        exact = theory.running_posterior_mean(prompts.x, prompts.y, components, noise, prior)
        bound = posterior_rounding(prompts.x, prompts.y, components, noise, prior)
        network = posterior_network(components, length, noise, prior)
        variants = (
            network,
            posterior_network(components, length, noise, prior, average=True),
            posterior_network(components, length, noise, prior, own_input=True),
        )
        mask = masks.causal(2 * length - 1)
        causal.append([float((one(prompts.x, prompts.y, mask) - exact).abs().max()) / bound for one in variants])
        pairs = length // 2
        error = (network(prompts.x, prompts.y, masks.prefix_lm(2 * length - 1, 2 * pairs)) - exact).abs()
        prefix.append([float(error[:, pairs:].max()) / bound, float(error[:, :pairs].max()) / bound])
    return {"causal": np.array(causal).T, "prefix": np.array(prefix).T}


@PROOFS.claim(
    "regression-mixtures/C1",
    where="Theorem 1 (three layers here)",
    kind="construction",
    statement=r"The explicit transformer puts out the posterior mean at every input of a prompt, under a causal mask "
    r"(up to $m = 20$, $d = 8$, $n = 40$, a prior that is not uniform).",
    controls=[
        control("the second layer averages where it should add", variant=1),
        control("rows of inputs get residuals too", variant=2),
    ],
)
def network_is_posterior_mean(results: Results, variant: int = 0) -> Evidence:
    return Evidence.exact(
        results[construction]["causal"][0, variant].max(),
        "<=",
        1.0,
        "1: the first-order rounding error of both computations",
    )


@PROOFS.claim(
    "regression-mixtures/C1.prefix",
    where="derived (the same network under a prefix mask)",
    kind="construction",
    statement=r"Under a prefix mask over the first $n/2$ pairs the same network puts out the posterior mean at every input behind "
    r"the prefix: the mask changes nothing there.",
    controls=[control("the inputs inside the prefix, which see their own labels", inside=1)],
)
def prefix_changes_nothing(results: Results, inside: int = 0) -> Evidence:
    return Evidence.exact(
        results[construction]["prefix"][0, inside].max(),
        "<=",
        1.0,
        "1: the first-order rounding error of both computations",
    )


# %% [markdown]
# ## Without the set, and the order of all
#
# Least squares of least norm has the risk of `least_squares_risk`; around $k = d$ it has none that is finite,
# because the smallest singular value of X may come as close to 0 as it likes. Between the four predictors the
# order is fixed: nothing beats the posterior mean, and with noise and few pairs everything loses to it
# strictly. Without noise the posterior mean *is* the argmin from the first pair on, and the strictness goes.


# %%
RISK_PAIRS = (1, 3, 6, 18, 30)  # for d = 10: away from d - 1, d, d + 1, and with a finite variance


@PROOFS.measurement(seeds=lambda config: config.draws)
def least_squares_errors(config: Config, seed: int) -> dict[str, np.ndarray]:
    """Mean squared error of least squares at a new pair over its closed form, by number of pairs; ``clean`` the same over
    the closed form without the noise of the new label, ``less`` over that of one dimension less."""
    dimension = config.risk_dimension
    pairs = tuple(round(one * dimension / 10) for one in RISK_PAIRS)
    components = component_set(stream(seed, "risk", "set"), 5, dimension, "unit")
    prompts = regression_mixture(
        stream(seed, "risk"), config.prompts, components=components, length=max(pairs) + 1, noise=config.noise
    )
    error = np.array([float((at_place(least_squares(), prompts, k) - prompts.y[:, k]).square().mean()) for k in pairs])
    exact = np.array([theory.least_squares_risk(k, dimension, config.noise, 1.0) for k in pairs])
    less = np.array([theory.least_squares_risk(k, dimension - 1, config.noise, 1.0) for k in pairs])
    return {"ratio": error / exact, "clean": error / (exact - config.noise**2), "less": error / less}


@PROOFS.claim(
    "regression-mixtures/R1",
    where="derived (risk of least squares)",
    kind="rate",
    statement=r"For unit $w$ and $d = 10$ the mean squared error of least squares at a new pair is $\sigma^2(1 + \frac{d}{k-d-1})$ for "
    r"$k = 18, 30$ and $(1 - \frac kd) + \frac{\sigma^2 k}{d-k-1} + \sigma^2$ for $k = 1, 3, 6$.",
    controls=[
        control("without the noise of the new label", quantity="clean"),
        control("one dimension less", quantity="less"),
    ],
)
def risk_of_least_squares(results: Results, quantity: str = "ratio") -> Evidence:
    found = results[least_squares_errors][quantity]
    return Evidence.weakest(
        *(
            Evidence.agreement(found[:, column], 1.0, "measured over closed form", len(RISK_PAIRS))
            for column in range(len(RISK_PAIRS))
        )
    )


FEW = (1, 2, 3, 4)
LOSERS = ("argmin", "ridge", "least squares")


@PROOFS.measurement(seeds=lambda config: config.draws)
def order(config: Config, seed: int) -> dict[str, np.ndarray]:
    """Mean squared error minus that of the posterior mean on the same prompts, [noise or none, predictor, k]."""
    dimension = config.risk_dimension
    components = component_set(stream(seed, "order", "set"), config.components, dimension, "unit")
    rows = []
    for noise in (config.noise, 0.0):
        prompts = regression_mixture(
            stream(seed, "order"), config.prompts, components=components, length=max(FEW) + 1, noise=noise
        )
        predictors: tuple[RegressionPredictor, ...] = (
            theory.best_component(components),
            ridge(dimension * config.noise**2),
            least_squares(),
        )
        error: Callable[[RegressionPredictor, int], Tensor] = lambda predictor, k, given=prompts: (  # type: ignore[misc]  # noqa: E731
            at_place(predictor, given, k) - given.y[:, k]
        ).square()
        best = theory.posterior_mean(components, noise)
        rows.append([[float((error(one, k) - error(best, k)).mean()) for k in FEW] for one in predictors])
    return {"excess": np.array(rows)}


@PROOFS.claim(
    "regression-mixtures/O1",
    where="Section 2 (the posterior mean is optimal)",
    kind="ordering",
    statement=r"After 1 to 4 noisy pairs the posterior mean has a strictly smaller mean squared error than the argmin, ridge regression "
    r"and least squares ($d = 10$, $m = 6$).",
    controls=[control("no noise, where the posterior mean is the argmin", noise=1)],
)
def posterior_mean_is_best(results: Results, noise: int = 0) -> Evidence:
    found = results[order]["excess"][:, noise]
    parts = len(LOSERS) * len(FEW)
    return Evidence.weakest(
        *(
            Evidence.over_seeds(found[:, place, column], ">", 0.0, f"error of {name} minus the best, k = {k}", parts)
            for place, name in enumerate(LOSERS)
            for column, k in enumerate(FEW)
        )
    )


# %% [markdown]
# ## The set learnt from prompts
#
# Nobody hands out the set in practice. Expectation-maximisation assigns whole prompts to components and
# refits each by weighted least squares; with a few thousand prompts its components are close enough for the
# plug-in posterior mean to be as good as the true one. It needs several starts: from one, it may end with two
# components on the same spot.


# %%
@PROOFS.measurement(seeds=lambda config: min(config.draws, 8))
def learning(config: Config, seed: int) -> dict[str, np.ndarray]:
    """Excess error of the plug-in posterior mean at the last pair of new prompts: ``excess`` after expectation-maximisation,
    ``start`` from its first random start; ``error`` of the components."""
    count = dimension = 5
    noise = 0.5
    components = component_set(stream(seed, "learning", "set"), count, dimension, "unit")
    prompts = regression_mixture(
        stream(seed, "learning", "prompts"),
        config.learning_prompts,
        components=components,
        length=config.learning_pairs,
        noise=noise,
    )
    starts = stream(seed, "learning", "starts").rng().standard_normal((config.starts, count, dimension))
    first = torch.from_numpy(starts / np.sqrt(dimension))
    found = theory.expectation_maximisation(prompts.x, prompts.y, first, noise=noise, iterations=config.iterations)
    test = regression_mixture(
        stream(seed, "learning", "new prompts"),
        config.prompts,
        components=components,
        length=config.learning_pairs + 1,
        noise=noise,
    )
    truth = theory.running_posterior_mean(test.x, test.y, components, noise)
    excess = [
        float(
            ((theory.running_posterior_mean(test.x, test.y, one, noise) - test.y).square() - (truth - test.y).square())[
                :, 1:
            ].mean()
        )
        for one in (found.best, first[0])
    ]
    return {
        "excess": np.array(excess[0]),
        "start": np.array(excess[1]),
        "error": np.array(theory.matched_error(found.best, components)),
    }


@PROOFS.claim(
    "regression-mixtures/T2.em",
    where="Figure 2 (the plug-in of batch EM)",
    kind="ordering",
    statement=r"From 3,000 prompts of 16 pairs ($d = m = 5$, $\sigma = 0.5$) expectation-maximisation finds components whose plug-in "
    r"posterior mean has an excess error below $0.01$.",
    controls=[control("a random start of it", quantity="start")],
)
def learnt_set_is_enough(results: Results, quantity: str = "excess") -> Evidence:
    return Evidence.over_seeds(
        results[learning][quantity], "<", 0.01, "a twenty-fifth of the noise's variance, fixed beforehand"
    )
