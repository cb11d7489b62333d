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
# # Two components, in closed form
#
# With two components everything can be written down: the posterior mean is a tanh, its risk one integral, and the
# argmin, which takes the likelier component for the truth, errs with a probability that is in every table.

# %%
from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy import integrate, special, stats

from lab import Evidence, Task, control
from lab.domains.regression import mixtures as theory
from lab.domains.regression import two_components as pair_theory
from lab.domains.regression.mixture_prompts import component_set, regression_mixture
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.results import Results
from lab.statistics import rounding_bound
from lab.streams import stream
from proofs_check.regression_mixtures._shared import BOTH_ROUND, PAPER, ROOT, SLUG


@dataclass(frozen=True)
class Config:
    """How much is sampled."""

    draws: int = 16
    """independent draws of the set and of the prompts"""
    prompts: int = 40_000
    """prompts a draw"""
    dimension: int = 5
    """d"""
    noise: float = 0.7
    """standard deviation of the noise on every label"""


PROOFS = Task(
    SLUG,
    PAPER,
    {"smoke": Config(draws=4, prompts=400), "ci": Config(), "paper": Config(draws=32, prompts=100_000, dimension=20)},
    root=ROOT,
)

# %% [markdown]
# ## $w$ and $-w$
#
# The weights differ by $\tanh$ of half the log odds: $\hat w_k = w \tanh(\sigma^{-2} \sum_i y_i\, w\cdot
# x_i)$. Given the inputs and $+w$, the argument is $N(a, a)$ with $a = \sum_i (w \cdot x_i)^2/\sigma^2$: mean
# equal to variance, the mark of a log odds under its own truth. For such a law $E\tanh Z = E\tanh^2 Z$ (the
# posterior mean is uncorrelated with its own error), so the excess error at a new input is
# $\lVert w\rVert^2 (1 - E \tanh Z)$.

# %%
SIGNALS = np.array([0.01, 0.1, 0.3, 1.0, 2.0, 5.0, 20.0])
UNIFORM, UNEVEN = "uniform", "0.6 and 0.4"
PRIORS = {UNIFORM: (), UNEVEN: (0.6, 0.4)}


@PROOFS.measurement(seeds=lambda config: config.draws)
def symmetric(config: Config, seed: int) -> LabelledArrays:
    """``difference``: mean of |what - w|^2 minus its closed form given the inputs, with the signal of each prompt or with
    1 throughout; ``form``: error of the tanh form over its rounding bound, against the posterior mean of the pair by prior."""
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
        for prior in PRIORS.values()
    ]
    informed = (error - theory.symmetric_excess_risk(signals, 1.0)).mean()
    blind = error.mean() - theory.symmetric_excess_risk(np.ones(1), 1.0)[0]
    return {
        "difference": labelled([informed, blind], signal=("own", "one")),
        "form": labelled(form, prior=list(PRIORS)),
    }


@PROOFS.cases(claimed={}, wide={"spread": 2.0})
def tanh_law(config: Config, *, spread: float = 1.0) -> LabelledArrays:
    """E tanh Z and E tanh^2 Z for Z of mean a and variance ``spread`` times a."""
    return {"moment": labelled(theory.tanh_moments(SIGNALS, spread * SIGNALS), power=(1, 2), signal=SIGNALS.tolist())}


@PROOFS.claim(
    "regression-mixtures/I4",
    where="derived (two symmetric components)",
    kind="identity",
    statement=r"For $Z \sim N(a, a)$, $E \tanh Z = E \tanh^2 Z$ for $a$ from $0.01$ to $20$, by quadrature.",
    controls=[control("a variance of twice the mean", case="wide")],
)
def tanh_identity(results: Results, case: str = "claimed") -> Evidence:
    moment = results[tanh_law]["moment"].sel(case=case)
    # Sums of some thousand positive terms of total weight 1; each term is a handful of operations.
    return Evidence.exact(
        float(abs(moment.sel(power=1) - moment.sel(power=2)).max()),
        "<=",
        rounding_bound(4_000),
        "rounding error of the sums of the trapezoidal rule; its own error is below that of rounding",
    )


@PROOFS.claim(
    "regression-mixtures/I4.form",
    where="derived (two symmetric components)",
    kind="identity",
    statement=r"The posterior mean of the pair $\pm w$ is $w \tanh(\sigma^{-2} \sum_i y_i\, w \cdot x_i)$.",
    controls=[control("a prior of 0.6 and 0.4", prior=UNEVEN)],
)
def tanh_form(results: Results, prior: str = UNIFORM) -> Evidence:
    return Evidence.exact(float(results[symmetric]["form"].sel(prior=prior).max()), "<=", 1.0, BOTH_ROUND)


@PROOFS.claim(
    "regression-mixtures/I4.risk",
    where="derived (two symmetric components)",
    kind="identity",
    statement=r"Given its inputs the excess error of the posterior mean of $\pm w$ is $\lVert w\rVert^2 (1 - E\tanh Z)$, "
    r"$Z \sim N(a,a)$ (three pairs, sampled labels): within one per cent of $\lVert w\rVert^2$.",
    controls=[control("a signal of 1 whatever the inputs", signal="one")],
)
def tanh_risk(results: Results, signal: str = "own") -> Evidence:
    difference = results[symmetric]["difference"].sel(signal=signal)
    return Evidence.equals(difference, 0.0, 0.01, "sampled minus exact; one per cent of |w|^2 = 1", absolute=True)


# %% [markdown]
# ## At any distance: a t ratio
#
# Let $w_1$ be true, $\Delta = \lVert w_1 - w_2\rVert$ and $u_i = (w_1 - w_2)\cdot x_i \sim N(0, \Delta^2)$. The squared
# residuals differ by $S_2 - S_1 = \sum u_i^2 + 2\sigma\sum u_i \epsilon_i$. Given the inputs the second sum is
# $2\sigma\sqrt{\sum u_i^2}$ times a standard normal $\zeta$, so the argmin errs iff
# $\zeta > \Delta \chi_k / (2\sigma)$ with $\chi_k^2 = \sum u_i^2 / \Delta^2$: a normal over an independent
# $\chi_k / \sqrt k$ is Student's t, and
# $$P(\text{argmin wrong after k pairs}) = P\Big(t_k > \frac{\sqrt k\,\Delta}{2\sigma}\Big) \qquad (S1).$$
# No normal law: the inputs, whose size is random, fatten the tail. One pair decides with the odds of a Cauchy
# variable.
#
# The posterior mean. Half the log odds are $N(a, a)$ with $a = c\,\chi_k^2$, $c = \Delta^2/(4\sigma^2)$, so its risk is
# $\frac{\Delta^2}{4} E(1 - E\tanh Z)$. Completing the square, $1 - E \tanh Z = e^{-a/2} E \operatorname{sech}(\sqrt a\,\zeta)$, and the
# factor $e^{-a/2}$ only rescales the $\chi^2$ law:
# $$R_k = \frac{\Delta^2}{4}\,(1 + c)^{-k/2}\; E \operatorname{sech}\Big(\sqrt{\tfrac{c}{1+c}}\;\chi_k\zeta\Big) \qquad (S2).$$
# Both risks fall by $(1 + c)^{-1/2}$ a pair in the end. So what does averaging save? Given a large a,
# $E\operatorname{sech}(\sqrt a\,\zeta) \approx \pi/\sqrt{2\pi a}$ and $\Phi(-\sqrt a) \approx e^{-a/2}/\sqrt{2\pi a}$: the risk of the
# posterior mean is half that of the argmin before the first pair, and $\pi/4$ of it in the end (S3). The argmin never catches
# up; there is just less and less left to lose.

# %%
RATIOS = (0.5, 1.0, 2.0, 4.0)  # distance over noise
PAIRS = (1, 2, 3, 5, 10)


def averaged(function: object, pairs: int) -> float:
    """The mean of a function of chi_k, by adaptive quadrature: independent of the closed forms."""
    top = math.sqrt(stats.chi2.isf(1e-18, pairs))
    integrand = lambda root: 2 * root * stats.chi2.pdf(root**2, pairs) * function(root)  # type: ignore[operator]  # noqa: E731
    return float(integrate.quad(integrand, 0, top, epsabs=1e-15, epsrel=1e-13, limit=400)[0])


@PROOFS.cases(claimed={}, normal={"tail": "normal"}, one_pair_more={"tail": "one pair more"})
def student_law(config: Config, *, tail: str = "Student") -> LabelledArrays:
    """Error rate of the argmin by the closed form, minus the mean of Phi(-sqrt(c) chi_k) over the law of the inputs."""
    rows = []
    for ratio in RATIOS:
        for pairs in PAIRS:
            exact = averaged(lambda root, slope=ratio / 2: special.ndtr(-slope * root), pairs)
            place = math.sqrt(pairs) * ratio / 2
            error_rate = {
                "Student": pair_theory.argmin_error_rate(pairs, ratio, 1.0),
                "normal": float(special.ndtr(-place)),
                "one pair more": pair_theory.argmin_error_rate(pairs + 1, ratio, 1.0),
            }[tail]
            rows.append(error_rate - exact)
    return {"difference": labelled(np.reshape(rows, (len(RATIOS), len(PAIRS))), ratio=RATIOS, pairs=PAIRS)}


@PROOFS.claim(
    "regression-mixtures/S1",
    where="derived (two components at a distance)",
    kind="identity",
    statement=r"Of two components at distance $\Delta$ the argmin takes the wrong one after k pairs with probability "
    r"$P(t_k > \sqrt k\,\Delta/(2\sigma))$, by quadrature over the law of the inputs ($k$ from 1 to 10, $\Delta/\sigma$ from $0.5$ to "
    r"$4$).",
    controls=[control("a normal tail", case="normal"), control("a pair more", case="one_pair_more")],
)
def argmin_errs_like_student(results: Results, case: str = "claimed") -> Evidence:
    difference = results[student_law]["difference"].sel(case=case)
    return Evidence.exact(
        float(abs(difference).max()), "<=", 1e-12, "the tolerance of the adaptive quadrature, 1e-13 relative, tenfold"
    )


@PROOFS.cases(claimed={}, even={"variant": "even"}, other_rate={"variant": "other rate"})
def posterior_law(config: Config, *, variant: str = "") -> LabelledArrays:
    """Risk of the posterior mean by the closed form over the mean of (1 - E tanh Z) / 4 over the law of the inputs, minus 1."""
    rows = []
    for ratio in RATIOS:
        signal = ratio**2 / 4
        for pairs in PAIRS:
            exact = averaged(
                lambda root, c=signal: theory.symmetric_excess_risk(np.array([c * root**2]), 1.0)[0], pairs
            )
            risk = {
                "": pair_theory.posterior_excess_risk(pairs, 1.0, 1 / ratio) * 4,
                "even": (1 + signal) ** (-pairs / 2),
                "other rate": (1 + 2 * signal) ** (-pairs / 2) * pair_theory.mean_sech(pairs, signal / (1 + signal)),
            }[variant]
            rows.append(risk / exact - 1)
    return {"difference": labelled(np.reshape(rows, (len(RATIOS), len(PAIRS))), ratio=RATIOS, pairs=PAIRS)}


@PROOFS.claim(
    "regression-mixtures/S2",
    where="derived (two components at a distance)",
    kind="identity",
    statement=r"The excess error of the posterior mean of two components is "
    r"$\frac{\Delta^2}{4}(1+c)^{-k/2}\,E\operatorname{sech}(\sqrt{c/(1+c)}\,\chi_k\zeta)$, "
    r"$c = \Delta^2/(4\sigma^2)$: the mean of $\frac{\Delta^2}{4}(1 - E\tanh Z)$ over the inputs, by quadrature "
    r"($k$ from 1 to 10, $\Delta/\sigma$ from $0.5$ to $4$).",
    controls=[
        control("without the mean of the sech", case="even"),
        control("twice the signal in the rate", case="other_rate"),
    ],
)
def posterior_mean_by_sech(results: Results, case: str = "claimed") -> Evidence:
    difference = results[posterior_law]["difference"].sel(case=case)
    return Evidence.exact(
        float(abs(difference).max()),
        "<=",
        1e-9,
        "relative; 1 - E tanh Z is left with nine digits where it is 1e-6 (ratio 4, ten pairs)",
    )


MANY = (0, 1, 2, 3, 5, 10, 20, 40, 80, 160, 320, 640)


@PROOFS.cases(claimed={}, unpaired={"later": 1})
def savings(config: Config, *, later: int = 0) -> LabelledArrays:
    """Risk of the posterior mean over that of the argmin, which has seen ``later`` pairs more; by pairs and ratio."""
    rows = [
        [
            pair_theory.posterior_excess_risk(pairs, ratio, 1.0)
            / pair_theory.argmin_excess_risk(pairs + later, ratio, 1.0)
            for pairs in MANY
        ]
        for ratio in RATIOS
    ]
    return {"share": labelled(rows, ratio=RATIOS, pairs=MANY)}


@PROOFS.claim(
    "regression-mixtures/S3",
    where="derived (two components at a distance)",
    kind="rate",
    statement=r"The excess error of the posterior mean over that of the argmin is $1/2$ before the first pair, rises with every number of "
    r"pairs looked at (0 to 640, $\Delta/\sigma$ from $0.5$ to $4$), stays below $\pi/4$, and is within one per cent of $\pi/4$ after 640.",
    controls=[control("the argmin with a pair more", case="unpaired")],
)
def averaging_saves_a_fifth(results: Results, case: str = "claimed") -> Evidence:
    share = results[savings]["share"].sel(case=case)
    start, end = abs(share.sel(pairs=0) - 0.5).max(), abs(share.sel(pairs=MANY[-1]) * 4 / math.pi - 1).max()
    return Evidence.all(
        Evidence.exact(float(start), "<=", rounding_bound(20), "rounding error: a coin against the mean of both"),
        Evidence.exact(float(share.diff("pairs").min()), ">", 0.0, "0: it rises from each number of pairs to the next"),
        Evidence.exact(float(share.max()), "<", math.pi / 4, "the limit of many pairs"),
        Evidence.exact(float(end), "<", 0.01, "one per cent of the limit"),
    )


# %% [markdown]
# The laws beside the lab's own prompts and predictors:

# %%
DISTANCE = math.sqrt(2)  # of orthonormal components
SAMPLED = (1, 2, 3, 5)


@PROOFS.measurement(seeds=lambda config: config.draws)
def two_sampled(config: Config, seed: int) -> LabelledArrays:
    """Share of prompts in which the argmin is wrong, and squared distance of both predictors' weights to the true ones (the
    excess error at a new input), by pairs, for two orthonormal components and for two that are ``scale`` times as long."""
    rates, risks = [], []
    for scale in (1.0, 2.0):
        components = scale * component_set(stream(seed, "two", "set"), 2, config.dimension)
        prompts = regression_mixture(
            stream(seed, "two"), config.prompts, components=components, length=max(SAMPLED) + 1, noise=config.noise
        )
        scores = theory.running_scores(prompts.x, prompts.y, components)[:, list(SAMPLED)]
        chosen = scores.argmin(-1)
        weights = components[chosen], theory.posterior(scores, config.noise) @ components
        rates.append((chosen != prompts.component.unsqueeze(-1)).double().mean(0).numpy())
        risks.append(
            [(estimate - prompts.weights.unsqueeze(1)).square().sum(-1).mean(0).numpy() for estimate in weights]
        )
    return {
        "rate": labelled(rates, scale=(1.0, 2.0), pairs=SAMPLED),
        "risk": labelled(risks, scale=(1.0, 2.0), form=("argmin", "posterior mean"), pairs=SAMPLED),
    }


@PROOFS.claim(
    "regression-mixtures/S1.sampled",
    where="derived (two components at a distance)",
    kind="rate",
    statement=r"On sampled prompts of two orthonormal components ($d = 5$, $\sigma = 0.7$), after 1, 2, 3 and 5 pairs, the argmin is "
    r"wrong as often as Student's law says, and the posterior mean has the excess error of the closed form: each within $0.01$, "
    r"where both are $0.5$ before the first pair.",
    controls=[control("components twice as long", scale=2.0)],
)
def two_components_as_sampled(results: Results, scale: float = 1.0) -> Evidence:
    measured = results[two_sampled].sel(scale=scale)
    noise, parts = results.config.noise, []
    for pairs in SAMPLED:
        laws = {
            "rate": (measured["rate"], pair_theory.argmin_error_rate(pairs, DISTANCE, noise)),
            "posterior mean": (
                measured["risk"].sel(form="posterior mean"),
                pair_theory.posterior_excess_risk(pairs, DISTANCE, noise),
            ),
        }
        parts += [
            Evidence.equals(samples.sel(pairs=pairs), law, 0.01, f"closed form, {name}, k = {pairs}", absolute=True)
            for name, (samples, law) in laws.items()
        ]
    return Evidence.all(*parts)


@PROOFS.figure
def two_components_by_pairs(results: Results) -> Sheet:
    """Left: excess error of the argmin and of the posterior mean of two orthonormal components by the number of pairs, sampled
    and in closed form. Right: the second over the first, by distance over noise; it rises from a half to pi/4."""
    measured, noise = results[two_sampled].sel(scale=1.0), results.config.noise
    sheet = Sheet(columns=2, width=5.0, height=3.8)
    panel = sheet.panel(
        "Student's law and what averaging saves", x="pairs seen k", y="excess error", scale=("linear", "log")
    )
    every = list(range(13))
    for form, law in (
        ("argmin", pair_theory.argmin_excess_risk),
        ("posterior mean", pair_theory.posterior_excess_risk),
    ):
        panel.theory(every, [law(k, DISTANCE, noise) for k in every], name=f"{form}, closed form")
        panel.points(measured["risk"].sel(form=form), over="pairs", name=f"{form}, sampled")
    share = results[savings]["share"].sel(case="claimed")
    panel = sheet.panel(
        "the argmin never catches up",
        x="pairs seen k",
        y="posterior mean's excess over the argmin's",
        scale=("symlog", "linear"),
        legend="lower right",
    )
    for ratio in RATIOS:
        panel.line(MANY, share.sel(ratio=ratio), name=rf"$\Delta/\sigma$ = {ratio:g}", of="exact")
    panel.level(math.pi / 4, r"$\pi/4$")
    return sheet


PROOFS.show(two_components_by_pairs)
PROOFS.show(argmin_errs_like_student)
PROOFS.show(averaging_saves_a_fifth)

# %%
PROOFS.show()
