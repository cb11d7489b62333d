r"""In-context prediction for a mixture of m known linear regressions: the posterior mean and its neighbours.

Indices are 1-based: after k pairs the squared residuals of component j are
$S_{kj} = \sum_{i \le k} (y_i - w^*_j \cdot x_i)^2$, the posterior weights $p_{kj} \propto \pi_j\, e^{-S_{kj}/(2 \sigma^2)}$,
and the best predictor in squared error is $\hat w_k \cdot x_{k+1}$ with $\hat w_k = \sum_j p_{kj} w^*_j$ (Pathak et al.
2024, equation of the "data-driven exponential weights"). Functions called *running* give the prediction of every label
of a prompt from the pairs before it: place k of their result (counting from 0) uses k pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from lab.contracts import regression_predictor
from lab.domains.regression.least_squares import expected_query_error, least_squares_weights, predict, ridge_weights
from lab.domains.regression.mixture_prompts import prior_law
from lab.errors import LabError
from lab.predictors import RegressionPredictor

# ---------------------------------------------------------------------------------------------- the posterior


def squared_residuals(
    x: Float[Tensor, "*batch place dimension"],
    y: Float[Tensor, "*batch place"],
    components: Float[Tensor, "component dimension"],
) -> Float[Tensor, "*batch place component"]:
    """(y_i - w_j . x_i)^2 of each pair and component."""
    return (y.unsqueeze(-1) - x @ components.mT).square()


def running_scores(
    x: Float[Tensor, "batch place dimension"],
    y: Float[Tensor, "batch place"],
    components: Float[Tensor, "component dimension"],
) -> Float[Tensor, "batch place component"]:
    """S_kj of the k pairs before each place, k = 0 .. n - 1 (0 at the first place)."""
    residuals = squared_residuals(x, y, components)
    return torch.cat([torch.zeros_like(residuals[:, :1]), residuals[:, :-1].cumsum(1)], dim=1)


def posterior(
    scores: Float[Tensor, "*batch component"], noise: float, prior: Sequence[float] = ()
) -> Float[Tensor, "*batch component"]:
    r"""$p_j \propto \pi_j\, e^{-S_j / (2\sigma^2)}$; at $\sigma = 0$ the prior on the components of smallest $S_j$.

    The softmax subtracts its largest exponent first, so that no score is too large for it.

    Args:
        scores: $S_j$.
        noise: $\sigma$, 0 for the limit.
        prior: $\pi$, empty for uniform.

    Raises:
        LabError: a negative or infinite noise, or a prior that is no law on the components.

    >>> posterior(torch.tensor([800.0, 800.0, 9000.0]), 0.5)
    tensor([0.5000, 0.5000, 0.0000])
    """
    if not (math.isfinite(noise) and noise >= 0):
        raise LabError(f"noise is {noise} but must be finite and at least 0; choose such a number.")
    law = prior_law(prior, scores.shape[-1]).to(scores)
    if noise == 0:
        possible = scores.masked_fill(law == 0, torch.inf)
        best = torch.where(possible == possible.amin(-1, keepdim=True), law, torch.zeros_like(law))
        return best / best.sum(-1, keepdim=True)
    return torch.softmax(law.log() - scores / (2 * noise**2), dim=-1)


def running_posterior_mean(
    x: Float[Tensor, "batch place dimension"],
    y: Float[Tensor, "batch place"],
    components: Float[Tensor, "component dimension"],
    noise: float,
    prior: Sequence[float] = (),
) -> Float[Tensor, "batch place"]:
    r"""$\hat w_k \cdot x_{k+1}$ at every place: the Bayes predictor."""
    weights = posterior(running_scores(x, y, components), noise, prior) @ components
    return (weights * x).sum(-1)


def running_argmin(
    x: Float[Tensor, "batch place dimension"],
    y: Float[Tensor, "batch place"],
    components: Float[Tensor, "component dimension"],
) -> Float[Tensor, "batch place"]:
    r"""$w^*_{\hat\jmath} \cdot x_{k+1}$ with the component of smallest $S_{kj}$, the first of equals."""
    return (components[running_scores(x, y, components).argmin(-1)] * x).sum(-1)


@regression_predictor(components=torch.eye(3, dtype=torch.float64), noise=0.5)
def posterior_mean(
    components: Float[Tensor, "component dimension"], noise: float, prior: Sequence[float] = ()
) -> RegressionPredictor:
    """The posterior mean, from a whole context, for any number of queries."""

    def predictor(x_context: Tensor, y_context: Tensor, x_query: Tensor) -> Tensor:
        scores = squared_residuals(x_context, y_context, components).sum(1)
        return predict(posterior(scores, noise, prior) @ components, x_query)

    return predictor


@regression_predictor(components=torch.eye(3, dtype=torch.float64))
def best_component(components: Float[Tensor, "component dimension"]) -> RegressionPredictor:
    """The component of smallest squared residuals, from a whole context, for any number of queries."""

    def predictor(x_context: Tensor, y_context: Tensor, x_query: Tensor) -> Tensor:
        scores = squared_residuals(x_context, y_context, components).sum(1)
        return predict(components[scores.argmin(-1)], x_query)

    return predictor


# ---------------------------------------------------------------------------- what knows nothing of the set


def running_weights(
    solve: Callable[[Tensor, Tensor], Tensor],
    x: Float[Tensor, "batch place dimension"],
    y: Float[Tensor, "batch place"],
) -> Float[Tensor, "batch place dimension"]:
    """Weights that ``solve`` (inputs, labels) finds from the pairs before each place.

    Pairs that do not count enter as rows of zeros, which neither least squares nor ridge regression notices.
    """
    places = x.shape[1]
    before = torch.ones(places, places, dtype=x.dtype, device=x.device).tril(-1)
    inputs = x.unsqueeze(1) * before.unsqueeze(-1)
    labels = y.unsqueeze(1) * before
    return solve(inputs.flatten(0, 1), labels.flatten(0, 1)).unflatten(0, (len(x), places))


def running_least_squares(
    x: Float[Tensor, "batch place dimension"], y: Float[Tensor, "batch place"]
) -> Float[Tensor, "batch place"]:
    """Least squares of least norm on the pairs before each place (0 at the first)."""
    return (running_weights(least_squares_weights, x, y) * x).sum(-1)


def running_ridge(
    x: Float[Tensor, "batch place dimension"], y: Float[Tensor, "batch place"], penalty: float
) -> Float[Tensor, "batch place"]:
    r"""Ridge regression on the pairs before each place; $\lambda = d \sigma^2$ is Bayes for $w \sim N(0, I/d)$."""
    return (running_weights(lambda a, b: ridge_weights(a, b, penalty), x, y) * x).sum(-1)


def least_squares_risk(context_length: int, dimension: int, noise: float, squared_norm: float) -> float:
    r"""Mean squared error of least squares at a new noisy pair, for normal inputs of unit variance and fixed w.

    $\sigma^2 (1 + \frac{d}{k-d-1})$ for k > d + 1; $\lVert w\rVert^2 (1 - \frac kd) + \frac{\sigma^2 k}{d-k-1} + \sigma^2$ for
    k < d - 1; infinite in between (with noise). It is `expected_query_error`, whose w has $E\lVert w\rVert^2 = d$, rescaled,
    plus the noise of the new label.

    Args:
        context_length: k.
        dimension: d.
        noise: $\sigma$.
        squared_norm: $\lVert w \rVert^2$.
    """
    missing = expected_query_error(context_length, dimension, 0.0)
    noisy = expected_query_error(context_length, dimension, noise)
    return squared_norm / dimension * missing + (noisy - missing) + noise**2


# --------------------------------------------------------------------------- two components w and -w


def symmetric_weights(
    x: Float[Tensor, "*batch place dimension"],
    y: Float[Tensor, "*batch place"],
    component: Float[Tensor, " dimension"],
    noise: float,
) -> Float[Tensor, "*batch dimension"]:
    r"""$\hat w = w \tanh(\sigma^{-2} \sum_i y_i\, w \cdot x_i)$: the posterior mean of the pair $\pm w$."""
    agreement = (y * (x @ component)).sum(-1) / noise**2
    return agreement.tanh().unsqueeze(-1) * component


def signal(
    x: Float[Tensor, "*batch place dimension"], component: Float[Tensor, " dimension"], noise: float
) -> Float[Tensor, "*batch"]:
    r"""$a = \sum_i (w \cdot x_i)^2 / \sigma^2$; given the inputs the argument of the tanh is $\pm N(a, a)$."""
    return (x @ component).square().sum(-1) / noise**2


def tanh_moments(
    mean: Float[np.ndarray, " cases"], variance: Float[np.ndarray, " cases"]
) -> Float[np.ndarray, "2 cases"]:
    r"""$E \tanh Z$ and $E \tanh^2 Z$ for $Z \sim N(\mu, v)$, by the trapezoidal rule on the whole line.

    For a function without poles in a strip of half-width t around the line the rule's error is of the order of
    $e^{-2 \pi t / h}$ (Trefethen and Weideman 2014, Theorem 5.1). In units of $\sqrt v$ the poles of tanh lie
    $\pi / (2 \sqrt v)$ away; the step h = min(0.1, $\pi^2 / (45 \sqrt v)$) puts that error, and the range of 10
    standard deviations the tails, below the rounding of 1.

    Args:
        mean: $\mu$ of each case.
        variance: v > 0 of each case.
    """
    widest = float(np.sqrt(variance).max())
    step = min(0.1, math.pi**2 / (45 * max(widest, 1e-300)))
    nodes = step * np.arange(-math.ceil(10 / step), math.ceil(10 / step) + 1)
    density = step * np.exp(-(nodes**2) / 2) / math.sqrt(2 * math.pi)
    values = np.tanh(mean[:, None] + np.sqrt(variance)[:, None] * nodes)
    return np.stack([values @ density, values**2 @ density])


def symmetric_excess_risk(signals: Float[np.ndarray, " cases"], squared_norm: float) -> Float[np.ndarray, " cases"]:
    r"""$E \lVert \hat w - w \rVert^2 = \lVert w \rVert^2 (1 - E \tanh Z)$, $Z \sim N(a, a)$: excess error at a new normal input."""
    return squared_norm * (1 - tanh_moments(signals, signals)[0])


# ------------------------------------------------------------------- components estimated from prompts


@dataclass(frozen=True)
class Estimated:
    """What expectation-maximisation found from each start.

    Args:
        components: the vectors.
        likelihood: mean log-likelihood of a prompt by iteration, the start first, up to a constant of the data.
    """

    components: Float[Tensor, "start component dimension"]
    likelihood: Float[Tensor, "start iteration"]

    @property
    def best(self) -> Float[Tensor, "component dimension"]:
        """The vectors of the start of largest final likelihood (no knowledge of the truth enters)."""
        return self.components[self.likelihood[:, -1].argmax()]


def expectation_maximisation(
    x: Float[Tensor, "batch place dimension"],
    y: Float[Tensor, "batch place"],
    starts: Float[Tensor, "start component dimension"],
    *,
    noise: float,
    iterations: int,
) -> Estimated:
    r"""Batch EM for a mixture of regressions with a uniform prior and known noise, from several starts at once.

    E: $\gamma_{bj} \propto e^{-S_{bj}(W)/(2\sigma^2)}$ over whole prompts; M: weighted least squares,
    $w_j = (\sum_b \gamma_{bj} X_b^\top X_b)^+ \sum_b \gamma_{bj} X_b^\top y_b$. Only $X_b^\top X_b$, $X_b^\top y_b$ and
    $\lVert y_b \rVert^2$ are looked at. A component that no prompt is assigned to goes to 0.

    Args:
        x, y: the prompts, all pairs of each.
        starts: initial vectors of each start.
        noise: $\sigma$ > 0.
        iterations: updates.

    Raises:
        LabError: a noise that is not above 0, or no iteration.
    """
    if not 0 < noise < math.inf:
        raise LabError(f"noise is {noise} but must be finite and above 0; EM has no limit without noise.")
    if iterations < 1:
        raise LabError(f"iterations is {iterations} but must be at least 1; raise iterations.")
    gram, cross = x.mT @ x, (x.mT @ y.unsqueeze(-1)).squeeze(-1)
    size = y.square().sum(-1)
    rows = gram.flatten(1)
    current, likelihood = starts, []
    for _ in range(iterations):
        exponent = _exponents(rows, cross, size, current, noise)
        likelihood.append(_mean_likelihood(exponent))
        shares = exponent.softmax(-1).mT  # [start, component, batch]
        weighted = (shares @ rows).unflatten(-1, gram.shape[1:])
        current = (torch.linalg.pinv(weighted, hermitian=True) @ (shares @ cross).unsqueeze(-1)).squeeze(-1)
    likelihood.append(_mean_likelihood(_exponents(rows, cross, size, current, noise)))
    return Estimated(current, torch.stack(likelihood, dim=-1))


def _exponents(
    rows: Tensor, cross: Tensor, size: Tensor, components: Tensor, noise: float
) -> Float[Tensor, "start batch component"]:
    """-S_bj / (2 sigma^2) from the moments of each prompt: S = |y|^2 - 2 w . X'y + w' X'X w."""
    outer = (components.unsqueeze(-1) * components.unsqueeze(-2)).flatten(-2)
    scores = size.unsqueeze(-1) - 2 * cross @ components.mT + rows @ outer.mT
    return -scores / (2 * noise**2)


def _mean_likelihood(exponent: Tensor) -> Float[Tensor, " start"]:
    return exponent.logsumexp(-1).mean(-1) - math.log(exponent.shape[-1])


def matched_error(
    estimated: Float[Tensor, "component dimension"], components: Float[Tensor, "component dimension"]
) -> float:
    """Largest distance of an estimated vector from its own, in the matching of least total squared distance."""
    distances = torch.cdist(estimated, components).numpy()
    return float(distances[linear_sum_assignment(distances**2)].max())
