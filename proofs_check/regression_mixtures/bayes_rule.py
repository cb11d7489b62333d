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
# # Mixtures of regressions in context: what can be computed
#
# Every prompt follows one of m fixed weight vectors $w^*_1, \dots, w^*_m$ and does not say which. Whoever
# knows the set can do no better, in squared error, than the *posterior mean*: weigh each vector by
# $e^{-S_{kj}/(2\sigma^2)}$, where $S_{kj}$ are its squared residuals on the k pairs seen so far, and predict
# with the weighted mean. This folder checks
#
# 1. here: that this is Bayes' rule (I1), and two consequences which need no formula and can therefore be asked of
#    any predictor, trained networks included: its excess error *is* its squared distance to the posterior
#    mean (I2), and the posterior mean is uncorrelated with its own error (I3);
# 2. `two_components.py`: two components in closed form, $\pm w$ (I4), and at any distance: how often the argmin
#    is wrong, and what the posterior mean saves (S1 to S3);
# 3. `explicit_transformer.py`: a transformer that computes the posterior mean to rounding, under a causal and
#    under a prefix mask (C1);
# 4. `without_the_set.py`: the risk of least squares, which knows nothing of the set (R1), the order of all
#    predictors (O1), and the set learnt from a few thousand prompts (T2).
#
# Closed forms: `lab/domains/regression/mixtures.py`. Labels carry noise, also those that are predicted:
# the best possible error is above $\sigma^2$.

# %%
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.regression import mixtures as theory
from lab.domains.regression.least_squares import ridge
from lab.domains.regression.mixture_prompts import (
    MixturePrompts,
    component_set,
    fresh_regression,
    prior_law,
    regression_mixture,
)
from lab.labels import LabelledArrays, labelled
from lab.results import Results
from lab.statistics import rounding_bound
from lab.streams import stream
from proofs_check.regression_mixtures._shared import BOTH_ROUND, PAPER, SLUG, at_place, rising_prior


@dataclass(frozen=True)
class Config:
    """How much is sampled."""

    draws: int = 100  # 52 of them added later, since fresh seeds must give every verdict again
    """independent draws of the set and of the prompts"""
    prompts: int = 20_000
    """prompts a draw"""
    components: int = 6
    """m"""
    dimension: int = 5
    """d"""
    noise: float = 0.7
    """standard deviation of the noise on every label"""
    proposals: int = 800_000
    """prompts a draw from which those near a given one are picked"""
    pairs: tuple[int, ...] = (1, 3, 10)
    """numbers of pairs k after which the two identities in expectation are asked"""


PROOFS = Task(
    SLUG,
    PAPER,
    {
        "smoke": Config(draws=4, prompts=400, proposals=5_000),
        "ci": Config(),
        "paper": Config(draws=64, prompts=100_000, components=20, dimension=20),
    },
    root=2029,  # sized so that fresh seeds give every verdict again; below 2027 there were fewer
)

# %% [markdown]
# ## Bayes' rule
#
# Given its inputs, a prompt of component j has labels $N(X w^*_j, \sigma^2 I)$. Normal densities of k labels
# and the prior give the same weights as the softmax of squared residuals, because the rest of the exponent is
# common to all components. The second check needs no density at all: draw prompts with the same inputs, keep
# those whose labels come out within a box around the given ones, and count which component they came from.


# %%
def by_densities(prompts: MixturePrompts, components: Tensor, noise: float, prior: tuple[float, ...]) -> Tensor:
    """Posterior weights [prompt, component] from the normal densities of all labels of a prompt."""
    covariance = noise**2 * torch.eye(prompts.y.shape[1], dtype=torch.float64)
    means = (prompts.x @ components.mT).mT.contiguous()
    likelihood = torch.distributions.MultivariateNormal(means, covariance).log_prob(prompts.y.unsqueeze(1))
    joint = (likelihood - likelihood.amax(-1, keepdim=True)).exp() * prior_law(prior, len(components))
    return joint / joint.sum(-1, keepdim=True)


def weight_rounding(prompts: MixturePrompts, components: Tensor, noise: float, weights: Tensor) -> float:
    """Rounding error of a posterior weight, for both ways of computing it.

    An exponent errs by gamma_N times the sum of (|y| + |w|.|x|)^2 / (2 sigma^2) and k log sqrt(2 pi sigma^2); a weight by
    at most twice the posterior mean of that.
    """
    count, (pairs, dimension) = len(components), prompts.x.shape[1:]
    size = (prompts.y.abs().unsqueeze(-1) + prompts.x.abs() @ components.abs().mT).square().sum(1)
    size = size / (2 * noise**2) + pairs
    steps = 2 * (2 * dimension + 3 * pairs + count + 20)
    return rounding_bound(steps, float((2 * (1 + (weights * size).sum(-1))).max()))


FORMULAS = ("as claimed", "without the prior", "three times the noise")
QUANTITIES = ("weights", "Pythagoras, argmin", "Pythagoras, ridge", "own error")


@PROOFS.measurement()
def bayes_rule(config: Config, seed: int) -> LabelledArrays:
    """What the formula gets wrong, over its rounding bound, largest over 500 prompts; the prior rises like 1, 2, .., m.

    Of the *weights*: their difference from Bayes' rule. Of the two consequences: given one prompt of 11 pairs and its next
    input, with $a_j = w^*_j \\cdot x$ and p by Bayes' rule, the difference of both sides of
    $\\sum_j p_j [(f - a_j)^2 - (f_B - a_j)^2] = (f - f_B)^2$ and of $\\sum_j p_j f_B a_j = f_B^2$.
    """
    prior = rising_prior(config.components)
    components = component_set(stream(seed, "bayes", "set"), config.components, config.dimension, "unit")
    prompts = regression_mixture(
        stream(seed, "bayes"), 500, components=components, length=12, noise=config.noise, prior=prior
    )
    context = MixturePrompts(prompts.x[:, :-1], prompts.y[:, :-1], prompts.weights, prompts.component)
    exact = by_densities(context, components, config.noise, prior)
    unit = weight_rounding(context, components, config.noise, exact)
    scores = theory.squared_residuals(context.x, context.y, components).sum(1)
    labels = prompts.x[:, -1] @ components.mT  # of the next input without noise, [prompt, component]
    predictors = (theory.best_component(components), ridge(config.dimension * config.noise**2))
    ratios = []
    for noise, assumed_prior in ((config.noise, prior), (config.noise, ()), (3 * config.noise, prior)):
        weights = theory.posterior(scores, noise, assumed_prior)
        best = (weights * labels).sum(-1)
        row = [(weights - exact).abs().amax() / unit]
        for predictor in predictors:
            f = at_place(predictor, prompts, 11)
            gap = (exact * ((f.unsqueeze(-1) - labels).square() - (best.unsqueeze(-1) - labels).square())).sum(-1)
            largest = f.abs() + labels.abs().amax(-1)
            row.append(((gap - (f - best).square()).abs() / (4 * config.components * unit * largest.square())).amax())
        scale = 4 * config.components * unit * labels.abs().amax(-1).square()
        row.append((((exact * labels).sum(-1) * best - best.square()).abs() / scale).amax())
        ratios.append([float(ratio) for ratio in row])
    return {"ratio": labelled(ratios, formula=FORMULAS, quantity=QUANTITIES)}


WRONG_FORMULAS = [
    control("the prior left out", formula=FORMULAS[1]),
    control("three times the noise", formula=FORMULAS[2]),
]


@PROOFS.claim(
    "regression-mixtures/I1",
    where="Section 2 (the posterior mean)",
    kind="identity",
    statement=r"The softmax of $\log \pi_j - S_{kj}/(2\sigma^2)$ is Bayes' rule with the k-variate normal likelihood, for a "
    r"prior that is not uniform.",
    controls=WRONG_FORMULAS,
)
def softmax_is_bayes(results: Results, formula: str = FORMULAS[0]) -> Evidence:
    ratio = results[bayes_rule]["ratio"].sel(formula=formula, quantity="weights")
    return Evidence.exact(float(ratio.max()), "<=", 1.0, BOTH_ROUND)


@PROOFS.measurement(seeds=lambda config: config.draws)
def rejection(config: Config, seed: int) -> LabelledArrays:
    """Share of the given prompt's own component among the proposals in a box of half-width 1/2 around its 3 labels, minus
    the component's posterior weight averaged over the box, by the noise of the latter. 4 components in 2 dimensions."""
    half, pairs, count = 0.5, 3, 4
    components = component_set(stream(seed, "rejection", "set"), count, 2, "unit")
    prompt = regression_mixture(
        stream(seed, "rejection", "prompt"), 1, components=components, length=pairs, noise=config.noise
    )
    true_component, means = int(prompt.component[0]), prompt.x[0] @ components.mT  # [pair, component]
    proposals = stream(seed, "rejection", "proposals").rng()
    chosen = proposals.integers(0, count, config.proposals)
    labels = means.numpy()[:, chosen].T + config.noise * proposals.standard_normal((config.proposals, pairs))
    accepted = (np.abs(labels - prompt.y[0].numpy()) <= half).all(1)
    frequency = (chosen[accepted] == true_component).mean() if accepted.any() else 0.0

    def boxed(noise: float) -> float:
        edges = [(prompt.y[0, :, None] + sign * half - means) / noise for sign in (1, -1)]
        share = (torch.special.ndtr(edges[0]) - torch.special.ndtr(edges[1])).prod(0)
        return float(share[true_component] / share.sum())

    factors = (1.0, 3.0)
    return {"difference": labelled([frequency - boxed(factor * config.noise) for factor in factors], factor=factors)}


@PROOFS.claim(
    "regression-mixtures/I1.sampled",
    where="Section 2 (the posterior mean)",
    kind="identity",
    statement=r"Among prompts drawn with the same inputs whose three labels fall into a box, the share of a component is its "
    r"posterior weight, averaged over the box: within $0.01$, on average over draws of the set and of the given prompt.",
    controls=[control("the weights of three times the noise", factor=3.0)],
)
def counting_is_bayes(results: Results, factor: float = 1.0) -> Evidence:
    difference = results[rejection]["difference"].sel(factor=factor)
    return Evidence.equals(difference, 0.0, 0.01, "share minus posterior weight; one in a hundred", absolute=True)


# %% [markdown]
# ## Two identities that any predictor can be asked for
#
# The posterior mean $f_B$ is the conditional mean of the label. So for *every* function $f$ of the prompt,
# $E(f-y)^2 - E(f_B-y)^2 = E(f-f_B)^2$: the gap in error and the squared distance are one number, and a figure
# that shows both shows one curve twice. The second identity, $E f_B y = E f_B^2$, says that $f_B$ needs no
# rescaling. Given one prompt both are sums over m components, and hold to rounding (I2.prompt, I3.prompt). In
# expectation over prompts they need nothing but samples, and fail as soon as the comparator is not the conditional
# mean: with a wrong noise, or on prompts whose weights are not in the set.


# %%
@PROOFS.claim(
    "regression-mixtures/I2.prompt",
    where="derived (conditional expectation)",
    kind="identity",
    statement=r"Given one prompt, with posterior weights $p_j$ by Bayes' rule and $a_j = w^*_j \cdot x$, the argmin and the ridge "
    r"predictor $f$ satisfy $\sum_j p_j [(f - a_j)^2 - (f_B - a_j)^2] = (f - f_B)^2$.",
    controls=WRONG_FORMULAS,
)
def gap_is_distance_given_the_prompt(results: Results, formula: str = FORMULAS[0]) -> Evidence:
    ratio = results[bayes_rule]["ratio"].sel(formula=formula).max("seed")
    return Evidence.all(
        *(Evidence.exact(ratio.sel(quantity=name).item(), "<=", 1.0, BOTH_ROUND) for name in QUANTITIES[1:3])
    )


@PROOFS.claim(
    "regression-mixtures/I3.prompt",
    where="derived (conditional expectation)",
    kind="identity",
    statement=r"Given one prompt, $\sum_j p_j f_B\, a_j = f_B^2$ with the posterior weights $p_j$ by Bayes' rule.",
    controls=WRONG_FORMULAS,
)
def needs_no_rescaling_given_the_prompt(results: Results, formula: str = FORMULAS[0]) -> Evidence:
    ratio = results[bayes_rule]["ratio"].sel(formula=formula, quantity="own error")
    return Evidence.exact(float(ratio.max()), "<=", 1.0, BOTH_ROUND)


COMPARATORS = {"true": 1.0, "noise x 3": 3.0, "noise / 3": 1 / 3, "unseen weights": 1.0}  # factors on the noise
OTHERS = ("argmin", "ridge")


@PROOFS.measurement(seeds=lambda config: config.draws)
def identities(config: Config, seed: int) -> LabelledArrays:
    """Means over prompts: ``pythagoras``, the gap in error minus the squared distance, and ``own error``, of f (y - f)."""
    components = component_set(stream(seed, "identities", "set"), config.components, config.dimension, "unit")
    sizes: dict[str, Any] = {"length": max(config.pairs) + 1, "noise": config.noise}
    source = stream(seed, "identities", "prompts")
    inside = regression_mixture(source, config.prompts, components=components, **sizes)
    outside = fresh_regression(source, config.prompts, dimension=config.dimension, law="unit", **sizes)
    predictors = (theory.best_component(components), ridge(config.dimension * config.noise**2))
    gaps, errors = [], []
    for name, factor in COMPARATORS.items():
        prompts = outside if name == "unseen weights" else inside
        bayes = theory.posterior_mean(components, factor * config.noise)
        for pairs in config.pairs:
            truth, best = prompts.y[:, pairs], at_place(bayes, prompts, pairs)
            errors.append(float((best * (truth - best)).mean()))
            for predictor in predictors:
                f = at_place(predictor, prompts, pairs)
                gaps.append(float(((f - truth).square() - (best - truth).square() - (f - best).square()).mean()))
    shape = (len(COMPARATORS), len(config.pairs), len(OTHERS))
    axes: dict[str, Any] = {"comparator": list(COMPARATORS), "pairs": config.pairs}
    return {
        "pythagoras": labelled(np.reshape(gaps, shape), **axes, other=OTHERS),
        "own error": labelled(np.reshape(errors, shape[:2]), **axes),
    }


WRONG_COMPARATORS = [
    control("posterior mean with three times the noise", comparator="noise x 3"),
    control("posterior mean with a third of the noise", comparator="noise / 3"),
    control("prompts whose weights are not in the set", comparator="unseen weights"),
]
TOLERANCE = 0.03
TOLERANCE_ORIGIN = "0.03, about a sixteenth of the noise's variance 0.49"


@PROOFS.claim(
    "regression-mixtures/I2",
    where="derived (conditional expectation)",
    kind="identity",
    statement=r"For the argmin and the ridge predictor, after 1, 3 and 10 pairs, the gap in mean squared error to the posterior mean is "
    r"the mean squared distance to it, $E(f-y)^2 - E(f_B-y)^2 = E(f-f_B)^2$, within $0.03$.",
    controls=WRONG_COMPARATORS,
)
def gap_is_distance(results: Results, comparator: str = "true") -> Evidence:
    gap = results[identities]["pythagoras"].sel(comparator=comparator)
    return Evidence.all(
        *(
            Evidence.equals(
                gap.sel(other=other, pairs=pairs),
                0.0,
                TOLERANCE,
                f"gap minus distance, {other}, k = {pairs}; {TOLERANCE_ORIGIN}",
                absolute=True,
            )
            for other in OTHERS
            for pairs in results.config.pairs
        )
    )


@PROOFS.claim(
    "regression-mixtures/I3",
    where="derived (conditional expectation)",
    kind="identity",
    statement=r"After 1, 3 and 10 pairs the posterior mean is uncorrelated with its own error: $E f_B\,y = E f_B^2$, within $0.03$.",
    controls=WRONG_COMPARATORS,
)
def needs_no_rescaling(results: Results, comparator: str = "true") -> Evidence:
    error = results[identities]["own error"].sel(comparator=comparator)
    return Evidence.all(
        *(
            Evidence.equals(
                error.sel(pairs=pairs),
                0.0,
                TOLERANCE,
                f"mean of f (y - f), k = {pairs}; {TOLERANCE_ORIGIN}",
                absolute=True,
            )
            for pairs in results.config.pairs
        )
    )


# %%
PROOFS.show()
