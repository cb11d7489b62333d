# %% [markdown]
# # In-context learning by gradient descent: constructions and exact laws
#
# A transformer reads $N$ examples $(x_j, y_j)$ and a query $x_q$. This file checks, without training
# anything, what one layer of linear attention *can* do with them (one gradient step), what the *best* such
# layer is, what stacking does, and which accelerated variant, GD++, deeper networks have room for.
#
# Conventions, because four factors of two hide here:
#
# * tokens are $e_j = (x_j, y_j)$ and, for the query, $(x_q, -W_0 x_q)$; the prediction is **minus** the label
#   slot of the query after the last layer;
# * keys and values come from the examples only, never from the query;
# * the inner loss is $\frac{1}{2N} \sum_j \lVert W x_j - y_j\rVert^2$ with learning rate $\eta$; everything
#   below is written with $s = \eta / N$, the step on the sum;
# * the outer loss is **half** the mean squared error, and the inputs of all quoted numbers are uniform on
#   $[-\frac12, \frac12]^d$, a variance of $v = 1/12$ and a kurtosis of $\kappa = E x^4 / v^2 = 1.8$.
#
# Expected errors are never sampled here. They are finite sums over moments of $A = X^\top X$, enumerations of
# laws with few atoms, or Gauss quadrature that is exact for the polynomials at hand.

# %%
from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.polynomial import polynomial
from scipy import optimize
from torch import Tensor

from lab import Evidence, Paper, Task, control
from lab.domains.regression.gradient_descent import gradient_descent_path, gram_eigenvalues
from lab.domains.regression.least_squares import predict
from lab.domains.regression.linear_attention import gradient_descent_network, network_predictor
from lab.domains.regression.optimal_steps import (
    NORMAL_KURTOSIS,
    UNIFORM_KURTOSIS,
    curvature_sequence,
    expected_filter_error,
    filter_polynomial,
    gd_plus_plus_weights,
    gram_moments,
    normal_moments,
    one_step_error,
    one_step_error_of_spectrum,
    optimal_filter,
    optimal_step,
    optimal_step_of_spectrum,
    preconditioned_error,
    preconditioner,
    uniform_moments,
)
from lab.domains.regression.prompts import RegressionPrompts, linear_regression, tokens
from lab.figures import REFERENCES, Drawing, label, panels
from lab.models import masks
from lab.models.transformer import Architecture, Transformer
from lab.results import Results
from lab.statistics import rounding_bound
from lab.streams import stream


@dataclass(frozen=True)
class Config:
    """How much is drawn."""

    prompts: int = 100
    """prompts of each shape in the checks of constructions"""


PROOFS = Task(
    "icl-gradient-descent",
    Paper(
        "Transformers learn in-context by gradient descent",
        "J. von Oswald, E. Niklasson, E. Randazzo, J. Sacramento, A. Mordvintsev, A. Zhmoginov, M. Vladymyrov",
        2023,
        arxiv="2212.07677",
    ),
    presets={"smoke": Config(prompts=5), "ci": Config(), "paper": Config(prompts=1000)},
)

# Dimension, outputs and number of examples.
SHAPES = ((2, 1, 3), (7, 3, 15), (5, 2, 4), (3, 1, 12))
HALF_WIDTH = 0.5
VARIANCE = HALF_WIDTH**2 / 3
MASKS = {
    "prefix": masks.in_context_prefix,
    "causal": masks.in_context_causal,
    "query seen": lambda context, queries: masks.full(context + queries),
}


def normal(name: str, *shape: int) -> Tensor:
    """Standard normal numbers of a named stream."""
    return torch.from_numpy(stream(0, name).rng().standard_normal(shape))


def greatest(values: Tensor) -> float:
    """Largest absolute value."""
    return float(values.abs().max())


def all_within(parts: list[tuple[float, float]], origin: str) -> Evidence:
    """Evidence that every error is within its bound; the worst ratio speaks for all."""
    error, bound = max(parts, key=lambda part: part[0] / part[1])
    return Evidence.exact(error, "<=", bound, origin)


def loaded(size: int, layers: list[dict[str, Tensor]], attention: str = "linear") -> Transformer:
    """Attention layers of one head as wide as the tokens, with explicit query, key, value and output matrices.

    The network writes tokens as rows: a matrix that acts on column tokens enters transposed.
    """
    architecture = Architecture(
        width=size, layers=len(layers), attention=attention, mlp_ratio=0, norm="none", bias=False
    )
    named = {
        f"layers.{depth}.attention.{name}.weight": matrix
        for depth, layer in enumerate(layers)
        for name, matrix in layer.items()
    }
    return Transformer.from_weights(architecture, named)


def apply(network: Transformer, given: Tensor, mask: Tensor) -> Tensor:
    """Tokens [batch, token, width] after the last layer."""
    with torch.no_grad():
        return network(given[None], mask)[0]


# %% [markdown]
# ## One layer is one step
#
# Take $W_K = W_Q = \mathrm{diag}(I_x, 0)$, $W_V = \begin{pmatrix} 0 & 0 \\ W_0 & -I_y\end{pmatrix}$,
# $P = s I$. The attention score of $e_j$ on $e_i$ is $x_i \cdot x_j$ and the value of $e_i$ is
# $(0, W_0 x_i - y_i)$. So the label slot of *every* token moves by
# $s \sum_i (W_0 x_i - y_i)\, x_i \cdot x_j = -\Delta W x_j$, with $\Delta W$ exactly the gradient step from
# $W_0$. The query starts at $-W_0 x_q$ and ends at $-(W_0 + \Delta W) x_q$. Only the products $P W_V$ and
# $W_K^\top W_Q$ matter.
#
# *What the mask changes.* The query sees all examples under a prefix and under a causal mask, so its
# prediction is the same number. The examples' own slots are not: under the causal mask example $j$ takes a
# step on the examples up to $j$ only, which one layer cannot show at the query and two layers can.


# %%
def step_layer(dimension: int, outputs: int, step: float, initial: Tensor, scale: float = 1.0) -> dict:
    """The layer of Proposition 1 with W_K scaled up and P scaled down by ``scale``; initial [outputs, dimension]."""
    size = dimension + outputs
    inputs = torch.zeros(size, size, dtype=torch.float64)
    inputs[:dimension, :dimension] = torch.eye(dimension)
    value = torch.zeros(size, size, dtype=torch.float64)
    value[:dimension, dimension:] = initial.mT
    value[dimension:, dimension:] = -torch.eye(outputs)
    output = step / scale * torch.eye(size, dtype=torch.float64)
    return {"query": inputs, "key": scale * inputs, "value": value, "output": output}


@PROOFS.claim(
    "icl-gradient-descent/T1",
    where="Proposition 1",
    kind="construction",
    statement=(
        r"One layer of linear attention turns every token into $(x_j, y_j - \Delta W x_j)$, with $\Delta W "
        r"= -\frac{\eta}{N} \sum_i (W_0 x_i - y_i)\, x_i^\top$, and the query's read-out is $(W_0 + \Delta "
        r"W)\, x_q$; also if a factor moves from $P$ to $W_K$."
    ),
    controls=[
        control("the query among keys and values", pattern="query seen"),
        control("a causal mask, at all tokens", pattern="causal"),
        control("read-out without the minus sign", sign=1.0),
    ],
)
def one_layer_is_one_step(results: Results, pattern: str = "prefix", sign: float = -1.0) -> Evidence:
    parts = []
    for dimension, outputs, context in SHAPES:
        count, name = results.config.prompts, f"T1 {dimension} {outputs} {context}"
        x, query = (normal(f"{name} x", count, context, dimension), normal(f"{name} q", count, 1, dimension))
        y, initial = normal(f"{name} y", count, context, outputs), normal(f"{name} W", outputs, dimension)
        step = 0.5 / context
        change = step * (y - x @ initial.mT).mT @ x
        expected = torch.cat([y - x @ change.mT, -query @ (initial + change).mT], dim=1)
        given = torch.cat([torch.cat([x, y], dim=-1), torch.cat([query, -query @ initial.mT], dim=-1)], dim=1)
        # Sizes: residuals times scores, summed over the examples; two computations of 2 (d + N) + 4 operations each.
        reach = float(torch.cat([x, query], dim=1).norm(dim=-1).max())
        residual = greatest(y) + float(initial.norm()) * reach
        size = residual * (1 + step * context * reach**2) * math.sqrt(outputs)
        bound = rounding_bound(2 * (2 * (dimension + outputs + context) + 4), size)
        for scale in (1.0, 3.0):
            network = loaded(dimension + outputs, [step_layer(dimension, outputs, step, initial, scale)])
            found = apply(network, given, MASKS[pattern](context, 1))
            slots = found[..., dimension:]
            error = torch.cat([slots[:, :-1] - expected[:, :-1], sign * slots[:, -1:] + expected[:, -1:]], dim=1)
            parts.append((max(greatest(error), greatest(found[..., :dimension] - given[..., :dimension])), bound))
    return all_within(parts, "rounding of two computations, chains of 2(d + outputs + N) + 4 operations each")


# %%
PROOFS.show(one_layer_is_one_step)

# %% [markdown]
# ## The best step, exactly
#
# With $W_0 = 0$ and one output the prediction is $\hat y_q = s\, w^\top A\, x_q$. Averaging over
# $w \sim N(0, I)$ and the query, the error is
# $v\,E\,\mathrm{tr}(I - sA)^2 = v\,(d - 2 s\,E\,\mathrm{tr} A + s^2\,E\,\mathrm{tr} A^2)$. For independent
# symmetric coordinates $E\,\mathrm{tr} A = N d v$ and $E\,\mathrm{tr} A^2 = N d v^2 (N + d - 2 + \kappa)$:
# $\kappa$ enters because $\lVert x\rVert^4$ contains fourth moments. So
# $$E(\hat y_q - y_q)^2 = d v\,[1 - 2 s N v + s^2 N v^2 (N + d - 2 + \kappa)], \qquad s^* = \frac{1}{v (N + d - 2 + \kappa)} .$$
# The check enumerates *all* input matrices of coordinates on $\{-c, 0, c\}$, whose kurtosis can be chosen,
# and separately compares with the counted moments of uniform and normal coordinates. Taking $\kappa = 3$ for
# uniform inputs, the formula everybody remembers, is off by 6 % at $N = d = 10$.


# %%
def three_atoms(kurtosis: float, context: int, dimension: int) -> tuple[Tensor, Tensor]:
    """All input matrices [3^(N d), N, d] of unit-variance coordinates on {-c, 0, c}, and their probabilities."""
    atoms, weights = (np.sqrt(kurtosis) * np.array([-1, 0, 1]), np.array([0.5, kurtosis - 1, 0.5]) / kurtosis)
    atoms_of = np.array(list(itertools.product(range(3), repeat=context * dimension)))
    x = torch.from_numpy(atoms[atoms_of]).view(-1, context, dimension)
    return x, torch.from_numpy(weights[atoms_of].prod(1))


def quadrature(spectrum: np.ndarray, context: int) -> tuple[Tensor, Tensor]:
    """Gauss-Hermite nodes [3^(N d), N, d] of normal inputs with variances ``spectrum``, exact to degree 5 a coordinate."""
    dimension = len(spectrum)
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    chosen = np.array(list(itertools.product(range(3), repeat=context * dimension)))
    x = torch.from_numpy(nodes[chosen]).view(-1, context, dimension) * torch.from_numpy(np.sqrt(spectrum))
    return x, torch.from_numpy((weights / weights.sum())[chosen].prod(1))


def error_of_step(x: Tensor, probability: Tensor, step: float, covariance: Tensor, noise: float) -> float:
    r"""$E\,\mathrm{tr}[(I - sA) \Lambda (I - sA)] + s^2 \sigma^2\,E\,\mathrm{tr}(A \Lambda)$, the expectation as a finite sum."""
    gram = x.mT @ x
    left = torch.eye(x.shape[-1], dtype=x.dtype) - step * gram
    signal = (left @ covariance @ left).diagonal(dim1=1, dim2=2).sum(-1)
    spread = step**2 * noise**2 * (gram @ covariance).diagonal(dim1=1, dim2=2).sum(-1)
    return float(probability @ (signal + spread))


@PROOFS.claim(
    "icl-gradient-descent/L1",
    where="derived (the paper searches the learning rate on a grid)",
    kind="identity",
    statement=(
        r"For independent symmetric coordinates of variance $v$ and kurtosis $\kappa$, one step from zero "
        r"has the error $d v [1 - 2 s N v + s^2 N v (v (N + d - 2 + \kappa) + \sigma^2)]$, least at $s^* = "
        r"1/(v (N + d - 2 + \kappa) + \sigma^2)$."
    ),
    controls=[
        control("the kurtosis of normal inputs, whatever they are", kurtosis=NORMAL_KURTOSIS),
        control("one example too many", extra=1),
    ],
)
def one_step_law(results: Results, kurtosis: float | None = None, extra: int = 0) -> Evidence:
    parts = []
    for (context, dimension), own, noise in itertools.product(((2, 2), (3, 2), (2, 3)), (1.0, 1.8, 4.0), (0.0, 0.7)):
        x, probability = three_atoms(own, context, dimension)
        law = {"kurtosis": own if kurtosis is None else kurtosis, "noise": noise}
        best = optimal_step(context + extra, dimension, **law)
        for factor in (0.5, 1.0, 1.5):
            found = error_of_step(x, probability, factor * best, torch.eye(dimension, dtype=x.dtype), noise)
            claimed = one_step_error(factor * best, context + extra, dimension, **law)
            parts.append((abs(found - claimed), rounding_bound(len(x) + 40, 8 * dimension * own)))
    for moments, (context, dimension) in itertools.product(
        (uniform_moments(HALF_WIDTH), normal_moments(VARIANCE)), ((10, 10), (25, 10), (3, 7))
    ):
        law = {"input_variance": moments[1], "kurtosis": moments[2] / moments[1] ** 2 if kurtosis is None else kurtosis}
        best = optimal_step(context + extra, dimension, **law)
        counted = gram_moments(2, context, dimension, moments)
        for factor in (0.5, 1.0, 1.5):
            found = expected_filter_error(filter_polynomial([factor * best], [0.0]), counted, moments[1])
            claimed = one_step_error(factor * best, context + extra, dimension, **law)
            parts.append((abs(found - claimed), rounding_bound(40, 8 * dimension)))
    return all_within(parts, "rounding of a sum over all input matrices, or over the moments")


@PROOFS.claim(
    "icl-gradient-descent/L1.spectrum",
    where="derived",
    kind="identity",
    statement=(
        r"For normal inputs of covariance $\Lambda$ the best plain step is $\mathrm{tr}\Lambda^2 / "
        r"((N+1)\,\mathrm{tr}\Lambda^3 + (\mathrm{tr}\Lambda + \sigma^2)\,\mathrm{tr}\Lambda^2)$ and leaves "
        r"the error $\mathrm{tr}\Lambda - N s^*\,\mathrm{tr}\Lambda^2$."
    ),
    controls=[control("an isotropic law of the same trace", isotropic=True)],
)
def one_step_law_of_spectrum(results: Results, isotropic: bool = False) -> Evidence:
    parts = []
    for spectrum, context, noise in (
        (np.array([2.0, 0.5]), 3, 0.3),
        (np.array([1.5, 0.2]), 2, 0.0),
        (np.array([2.0, 1.0, 0.25]), 2, 0.5),
    ):
        x, probability = quadrature(spectrum, context)
        claimed_spectrum = np.full(len(spectrum), spectrum.mean()) if isotropic else spectrum
        best = optimal_step_of_spectrum(claimed_spectrum, context, noise)
        for factor in (0.5, 1.0, 1.5):
            found = error_of_step(x, probability, factor * best, torch.from_numpy(np.diag(spectrum)), noise)
            claimed = one_step_error_of_spectrum(factor * best, claimed_spectrum, context, noise)
            parts.append((abs(found - claimed), rounding_bound(len(x) + 60, 40 * spectrum.sum())))
        least = claimed_spectrum.sum() - context * best * (claimed_spectrum**2).sum()
        found = error_of_step(x, probability, best, torch.from_numpy(np.diag(spectrum)), noise)
        parts.append((abs(found - least), rounding_bound(len(x) + 60, 40 * spectrum.sum())))
    return all_within(parts, "rounding of a Gauss quadrature that is exact for these polynomials")


# %%
PROOFS.show(one_step_law)
PROOFS.show(one_step_law_of_spectrum)

# %% [markdown]
# **Away from training.** A network keeps its step when inputs grow by a factor $\alpha$. Then $v$ becomes
# $\alpha^2 v$ and the error turns up steeply, while a step tuned to each $\alpha$ would only see its error
# grow as $\alpha^2$. Weights scaled by $\alpha$ do the latter to any linear-in-$y$ method.


# %%
@PROOFS.claim(
    "icl-gradient-descent/L2",
    where="Figure 2 right, in closed form",
    kind="identity",
    statement=(
        r"With the step kept at $s^*$ and inputs scaled by $\alpha$, the error is the one-step law at "
        r"variance $\alpha^2 v$; at $N = d = 10$ its half is $0.081, 0.206, 1.204, 8.40$ for $\alpha = "
        r"\frac12, 1, \frac32, 2$."
    ),
    controls=[control("the step tuned again for each scale", tuned_again=True)],
)
def error_off_the_training_range(results: Results, tuned_again: bool = False) -> Evidence:
    parts, halves = [], []
    law = {"kurtosis": UNIFORM_KURTOSIS}
    kept = optimal_step(10, 10, input_variance=VARIANCE, **law)
    for scale in (0.5, 1.0, 1.5, 2.0):
        variance = scale**2 * VARIANCE
        step = optimal_step(10, 10, input_variance=variance, **law) if tuned_again else kept
        counted = gram_moments(2, 10, 10, uniform_moments(scale * HALF_WIDTH))
        found = expected_filter_error(filter_polynomial([kept], [0.0]), counted, variance)
        claimed = one_step_error(step, 10, 10, input_variance=variance, **law)
        parts.append((abs(found - claimed), rounding_bound(40, 8 * found)))
        halves.append(found / 2)
    quoted = np.abs(np.array(halves) - np.array([0.0812, 0.2062, 1.204, 8.40]))
    parts += zip(quoted.tolist(), (5e-5, 5e-5, 5e-4, 5e-3), strict=True)
    return all_within(parts, "rounding of the counted moments; half a unit of the last quoted digit")


# %%
PROOFS.show(error_off_the_training_range)

# %% [markdown]
# **Preconditioning.** One layer has more freedom than a step size: its prediction can be
# $\frac1N \sum_j y_j\, x_j^\top W x_q$ with any $W$. The error is quadratic in $W$, with the stationary point
# $(E \hat A^2 + \frac{\sigma^2}{N} \Lambda)\, W = \Lambda$ for $\hat A = A/N$. For normal inputs
# $E \hat A^2 = (1 + \frac1N) \Lambda^2 + \frac{\mathrm{tr}\Lambda}{N} \Lambda$, so that
# $W = [(1 + \frac1N) \Lambda + \frac{\mathrm{tr}\Lambda + \sigma^2}{N} I]^{-1}$. It is a multiple of the
# identity only for isotropic inputs: "one layer is one step of gradient descent" is then "one step of
# *preconditioned* gradient descent".


# %%
@PROOFS.claim(
    "icl-gradient-descent/T2",
    where="Ahn et al. 2023, Theorem 1; Zhang, Frei and Bartlett 2023, Theorem 4.1",
    kind="identity",
    statement=(
        r"For normal inputs of covariance $\Lambda$ and label noise $\sigma$, the best $W$ in $\frac1N "
        r"\sum_j y_j\, x_j^\top W x_q$ is $[(1 + \frac1N) \Lambda + \frac{\mathrm{tr}\Lambda + \sigma^2}{N} "
        r"I]^{-1}$, with the error $\mathrm{tr}\Lambda - \mathrm{tr}(\Lambda W \Lambda)$, and $cW$ has "
        r"$\mathrm{tr}\Lambda - (2c - c^2)\,\mathrm{tr}(\Lambda W \Lambda)$."
    ),
    controls=[
        control("plain gradient descent taken for the optimum", plain=True),
        control("label noise left out of W", ignore_noise=True),
    ],
)
def best_layer_is_preconditioned(results: Results, plain: bool = False, ignore_noise: bool = False) -> Evidence:
    parts = []
    for spectrum, context, noise in (
        (np.array([2.0, 0.5]), 3, 0.3),
        (np.array([2.0, 1.0, 0.25]), 2, 0.5),
        (np.array([1.0, 0.1, 0.1]), 2, 0.2),
    ):
        x, probability = quadrature(spectrum, context)
        covariance, identity = np.diag(spectrum), np.eye(len(spectrum))
        mean_gram = (x.mT @ x / context).numpy()
        square = np.einsum("b,bij,bjk->ik", probability.numpy(), mean_gram, mean_gram)
        best = np.linalg.solve(square + noise**2 / context * covariance, covariance)
        claimed = np.diag(preconditioner(spectrum, context, 0.0 if ignore_noise else noise))
        if plain:
            claimed = context * optimal_step_of_spectrum(spectrum, context, noise) * identity
        condition = float(np.linalg.cond(square + noise**2 / context * covariance))
        bound = rounding_bound(4 * (len(x) + 40) * condition, float(np.abs(best).max()))
        parts.append((float(np.abs(best - claimed).max()), bound))
        for scale in (0.9, 1.0, 1.1):
            left = identity - scale * mean_gram @ claimed
            loss = np.einsum("b,bji,bjk,ki->", probability.numpy(), left, left, covariance)
            loss += noise**2 / context * scale**2 * np.trace(claimed @ covariance @ claimed @ covariance)
            gap = abs(loss - preconditioned_error(spectrum, context, noise, scale))
            parts.append((gap, rounding_bound(len(x) + 60, 40 * spectrum.sum())))
    return all_within(parts, "rounding of a Gauss quadrature that is exact here, times a condition number")


@PROOFS.claim(
    "icl-gradient-descent/T2.isotropic",
    where="Ahn et al. 2023, Theorem 1, beyond normal inputs (derived)",
    kind="identity",
    statement=(
        r"For independent symmetric coordinates of variance 1 and kurtosis $\kappa$ the best $W$ is "
        r"$\frac{N}{N + d - 2 + \kappa + \sigma^2} I$: no layer is better than the best gradient step."
    ),
    controls=[control("the kurtosis of normal inputs for all", kurtosis=NORMAL_KURTOSIS)],
)
def best_isotropic_layer(results: Results, kurtosis: float | None = None) -> Evidence:
    parts = []
    sizes = ((2, 2), (3, 2), (2, 3))
    for (context, dimension), own, noise in itertools.product(sizes, (1.0, 1.8, 4.0), (0.0, 0.7)):
        x, probability = three_atoms(own, context, dimension)
        mean_gram, identity = x.mT @ x / context, torch.eye(dimension, dtype=torch.float64)
        square = torch.einsum("b,bij,bjk->ik", probability, mean_gram, mean_gram)
        best = torch.linalg.inv(square + noise**2 / context * identity)
        claimed = context * optimal_step(
            context, dimension, kurtosis=own if kurtosis is None else kurtosis, noise=noise
        )
        condition = float(torch.linalg.cond(square + noise**2 / context * identity))
        bound = rounding_bound(4 * (len(x) + 40) * condition, float(best.abs().max()))
        parts.append((greatest(best - claimed * identity), bound))
    return all_within(parts, "rounding of a sum over all input matrices, magnified by a condition number")


# %%
PROOFS.show(best_layer_is_preconditioned)
PROOFS.show(best_isotropic_layer)

# %% [markdown]
# ## Many layers
#
# Stacking the layer of T1 takes more steps, as long as examples see each other and the query is nobody's key.
# Two things that one layer hides become visible: with the query among the keys the second layer uses the
# first one's *prediction* as if it were a label; and under a causal mask the examples' own slots are behind,
# so that the query's second step uses other residuals.


# %%
def drawn(results: Results, name: str, dimension: int, context: int, noise: float = 0.3) -> RegressionPrompts:
    """Noisy prompts with inputs uniform on [-1, 1]^d and two queries."""
    return linear_regression(
        stream(0, name),
        results.config.prompts,
        dimension=dimension,
        context_length=context,
        query_length=2,
        noise=noise,
    )


def query_bound(x: Tensor, y: Tensor, queries: Tensor, layers: int) -> float:
    """Rounding between two ways to an answer, for maps that shrink residuals: sizes |y| |x|^2 N a layer.

    Args:
        x, queries: inputs of examples and queries [batch, N | m, d].
        y: labels [batch, N].
        layers: K.
    """
    reach = float(torch.cat([x, queries], dim=1).norm(dim=-1).max())
    context, dimension = x.shape[1:]
    size = greatest(y) * math.sqrt(context) * (1 + reach)
    return rounding_bound(2 * layers * (2 * dimension + context + 6) * math.sqrt(context + 2), size)


@PROOFS.claim(
    "icl-gradient-descent/T4",
    where="Proposition 1, stacked",
    kind="construction",
    statement=(
        r"$K$ layers with the weights of Proposition 1 predict with $K$ steps of gradient descent from zero "
        r"($K = 1, 2, 5, 12$), the query being no key."
    ),
    controls=[
        control("the query among keys and values", pattern="query seen"),
        control("a causal mask", pattern="causal"),
        control("one step less", fewer=1),
    ],
)
def layers_are_steps(results: Results, pattern: str = "prefix", fewer: int = 0) -> Evidence:
    parts = []
    for dimension, context in ((2, 3), (4, 12), (6, 4)):
        data = drawn(results, "T4", dimension, context)
        step = 1 / float(gram_eigenvalues(torch.cat([data.x_context, data.x_query], dim=1)).max())
        path = gradient_descent_path(data.x_context, data.y_context, step=step, steps=12)
        for layers in (1, 2, 5, 12):
            network = network_predictor(gradient_descent_network(dimension, layers, step=step), MASKS[pattern])
            found = network(data.x_context, data.y_context, data.x_query)
            expected = predict(path[layers - fewer], data.x_query)
            bound = query_bound(data.x_context, data.y_context, data.x_query, layers)
            parts.append((greatest(found - expected), bound))
    return all_within(parts, "rounding of two computations, a chain of 2d + N + 6 operations a layer")


# %%
PROOFS.show(layers_are_steps)

# %% [markdown]
# **GD++.** Let the layer also write to the input slots: $W_V = \mathrm{diag}(I_x, -1)$,
# $P = \mathrm{diag}(-\gamma I_x, s)$. Then every input is mapped by $x \leftarrow (I - \gamma A)\,x$ while
# the label slots take a gradient step. In the eigenbasis of the first $A$ everything is diagonal and stays
# so: the next layer meets $\lambda_{l+1} = \lambda_l (1 - \gamma \lambda_l)^2$, and the residual is
# multiplied by $f(\lambda) = \prod_l (1 - s_l \lambda_l)$. That is a polynomial filter of degree
# $\sum_l 3^l$, where $K$ gradient steps have degree $K$. It holds for noisy labels too, as a filter on least
# squares.


# %%
def curved_layer(dimension: int, step: float, curvature: float) -> dict[str, Tensor]:
    """One layer of GD++, W_0 = 0."""
    inputs = torch.eye(dimension + 1, dtype=torch.float64)
    inputs[-1, -1] = 0
    value, output = (torch.eye(dimension + 1, dtype=torch.float64), -curvature * torch.eye(dimension + 1).double())
    value[-1, -1], output[-1, -1] = -1, step
    return {"query": inputs, "key": inputs, "value": value, "output": output}


@PROOFS.claim(
    "icl-gradient-descent/T5",
    where="Appendix A.10, in closed form",
    kind="construction",
    statement=(
        r"$K$ layers that map inputs by $I - \gamma_l A_l$ and step by $s_l$ predict with "
        r"$U\,\mathrm{diag}(1 - f(\lambda))\,U^\top$ times least squares, $f = \prod_l (1 - s_l "
        r"\lambda_l)$, $\lambda_{l+1} = \lambda_l (1 - \gamma_l \lambda_l)^2$; $\gamma = 0$ is gradient "
        r"descent."
    ),
    controls=[
        control("the first layer's eigenvalues in every layer", frozen=True),
        control("a causal mask", pattern="causal"),
        control("the query among keys and values", pattern="query seen"),
    ],
)
def curved_layers_filter(results: Results, pattern: str = "prefix", frozen: bool = False) -> Evidence:
    parts = []
    for dimension, context in ((2, 3), (4, 12), (6, 4)):
        data = drawn(results, "T5", dimension, context)
        largest = float(gram_eigenvalues(torch.cat([data.x_context, data.x_query], dim=1)).max())
        given = tokens(data)
        for bend in (0.3, 0.0):
            steps = [0.9 / largest, 0.6 / largest, 0.8 / largest, 0.5 / largest]
            curvatures = [bend / largest, 1.2 * bend / largest, 0.7 * bend / largest, 0.4 * bend / largest]
            network = loaded(
                dimension + 1, [curved_layer(dimension, *pair) for pair in zip(steps, curvatures, strict=True)]
            )
            found = -apply(network, given, MASKS[pattern](context, 2))[:, context:, -1]
            met = [0.0] * 4 if frozen else curvatures
            weights = gd_plus_plus_weights(data.x_context, data.y_context, steps=steps, curvatures=met)
            error = greatest(found - predict(weights, data.x_query))
            bound = query_bound(data.x_context, data.y_context, data.x_query, 4)
            if bend:
                parts.append((error, bound))
            else:
                rates = torch.tensor(steps, dtype=torch.float64)
                descent = torch.zeros_like(data.weights)
                for rate in rates:
                    residual = data.y_context - predict(descent, data.x_context)
                    descent = descent + rate * predict(residual, data.x_context.mT)
                parts.append((greatest(predict(weights - descent, data.x_query)), bound))
    return all_within(parts, "rounding of two computations, a chain of 2d + N + 6 operations a layer")


@PROOFS.claim(
    "icl-gradient-descent/T5.map",
    where="Appendix A.10",
    kind="identity",
    statement=(
        r"The map $\lambda \mapsto \lambda (1 - \gamma \lambda)^2$ has zeros at $0$ and $1/\gamma$ and its "
        r"only local maximum, $4/(27\gamma)$, at $1/(3\gamma)$."
    ),
    controls=[control("the factor not squared", power=1)],
)
def curvature_map(results: Results, power: int = 2) -> Evidence:
    parts = []
    for curvature in (0.029, 0.179, 1.0, 7.0):
        map_ = polynomial.polymul([0.0, 1.0], polynomial.polypow([1.0, -curvature], power))
        slope = polynomial.polyder(map_)
        scale = 1 / curvature
        top = scale / 3
        parts += [
            (float(abs(polynomial.polyval(scale, map_))), rounding_bound(12, 4 * scale)),
            (float(abs(polynomial.polyval(top, slope))), rounding_bound(12, 4.0)),
            (float(abs(polynomial.polyval(top, map_) - 4 * scale / 27)), rounding_bound(12, scale)),
        ]
        met = curvature_sequence(torch.tensor([top, scale], dtype=torch.float64), [curvature, curvature])[1]
        parts.append((abs(float(met[0]) - float(polynomial.polyval(top, map_))), rounding_bound(12, scale)))
    return all_within(parts, "rounding of polynomials of degree 3")


@PROOFS.claim(
    "icl-gradient-descent/T5.beyond",
    where="Appendix A.10",
    kind="identity",
    statement=(
        r"Every eigenvalue beyond $1/\gamma$ is enlarged by the map $\lambda \mapsto \lambda (1 - \gamma "
        r"\lambda)^2$."
    ),
    expected="refuted",
    condition=r"beyond $2/\gamma$; between $1/\gamma$ and $2/\gamma$ the map still makes eigenvalues smaller",
    controls=[control("eigenvalues beyond 2/gamma", start=2.0)],
)
def eigenvalues_beyond_blow_up(results: Results, start: float = 1.0) -> Evidence:
    values = torch.linspace(start, start + 3, 301, dtype=torch.float64)[1:]
    growth = curvature_sequence(values, [1.0, 1.0])[1] / values
    return Evidence.exact(float(growth.min()), ">", 1.0, "1 is neither larger nor smaller (units of 1/gamma)")


# %%
PROOFS.show(curved_layers_filter)
PROOFS.show(curvature_map)
PROOFS.show(eigenvalues_beyond_blow_up)

# %% [markdown]
# ## The numbers of the trained networks, without training
#
# The paper trains tied two-layer networks at four context lengths and reads $\gamma$ off their weights:
# $0.179, 0.099, 0.056, 0.029$ at $N = 10, 25, 50, 100$. If training finds the best GD++, then these are
# minimisers of $v\,E\,\mathrm{tr} f(A)^2$, where $f$ has degree 4: a polynomial in $(s, \gamma)$ with
# coefficients $E\,\mathrm{tr} A^j$, $j \le 8$. Those are counted exactly (`gram_moments`), for uniform
# coordinates, from pairs of set partitions. The minimum is found to ten digits.
#
# When is a number that was read off a trained network "the" minimiser? Training cannot find a minimum more
# sharply than losses can be told apart. A test of $M$ prompts knows the mean of squares of normal numbers to a
# relative standard error of at least $\sqrt{2/M}$: 1.4 % for the paper's $M = 10^4$. So the curvatures agree if
# one that rounds to what was printed costs less than that; whether all digits agree is another question.

# %%
LENGTHS = (10, 25, 50, 100)
READ_OFF = (0.179, 0.099, 0.056, 0.029)
# Layers, curvature, tied: the families whose best members are compared.
FAMILIES = {
    "one step": (1, False, True),
    "two steps": (2, False, True),
    "GD++, tied": (2, True, True),
    "GD++, untied": (2, True, False),
}


@functools.cache
def best_filter(length: int, moments: tuple[float, ...], family: str) -> tuple[list[float], list[float], float]:
    """Steps, curvatures and expected squared error of the best filter of a family at d = 10."""
    layers, curved, tied = FAMILIES[family]
    return optimal_filter(length, 10, moments, layers=layers, curved=curved, tied=tied)


def nearest_rounding(value: float, printed: float) -> float:
    """The number nearest to ``value`` among those that are printed as ``printed``, to three decimals."""
    return float(np.clip(value, printed - 0.0005, printed + 0.0005))


def least_error_at(length: int, moments: tuple[float, ...], curvature: float) -> float:
    """The error of two tied layers with this curvature and the step that is best for it, d = 10."""
    counted = gram_moments(8, length, 10, moments)
    edge = 2 * best_filter(length, moments, "GD++, tied")[0][0]
    found = optimize.minimize_scalar(
        lambda step: expected_filter_error(filter_polynomial([step] * 2, [curvature] * 2), counted, moments[1]),
        bounds=(0.0, edge),
        method="bounded",
    )
    return float(found.fun)


@PROOFS.claim(
    "icl-gradient-descent/L3",
    where="Appendix A.10, the table of curvatures",
    kind="phenomenon",
    statement=(
        r"At $N = 10, 25, 50, 100$ ($d = 10$, inputs uniform on $[-\frac12, \frac12]$) a curvature that is printed as the "
        r"one the paper reads off its trained networks has, with the step that is best for it, an expected loss so little "
        r"above that of the best tied two-layer GD++ that a test of $10^4$ prompts, as the paper takes, could not tell."
    ),
    controls=[
        control("inputs uniform on [-1, 1], as the text says", half_width=1.0),
        control("normal inputs of the same variance", normal_inputs=True),
        control("the curvature of the next longer context", shift=1),
    ],
)
def curvatures_without_training(
    results: Results, half_width: float = HALF_WIDTH, normal_inputs: bool = False, shift: int = 0
) -> Evidence:
    moments = normal_moments(VARIANCE) if normal_inputs else uniform_moments(half_width)
    excess = []
    for length, printed in zip(LENGTHS, READ_OFF[shift:] + READ_OFF[:shift], strict=True):
        _, curvatures, least = best_filter(length, moments, "GD++, tied")
        excess.append(least_error_at(length, moments, nearest_rounding(curvatures[0], printed)) / least - 1)
    return Evidence.exact(
        max(excess),
        "<=",
        math.sqrt(2 / 10_000),
        "relative standard error of a mean of 10^4 squares of normal numbers, the least there can be",
    )


@PROOFS.claim(
    "icl-gradient-descent/L3.digits",
    where="Appendix A.10, the table of curvatures",
    kind="phenomenon",
    statement=(
        "Rounded to three decimals the curvatures of the best tied two-layer GD++ are those that the paper reads off its "
        "trained networks at $N = 10, 25, 50, 100$."
    ),
    expected="refuted",
    condition=(
        "at $N = 25$ and $50$; at $N = 10$ and $100$ the minimum is flat and the networks stopped up to 2.2 % away from it"
    ),
    controls=[control("N = 25 and 50", places=(1, 2))],
)
def curvatures_to_the_last_digit(results: Results, places: Sequence[int] = (0, 1, 2, 3)) -> Evidence:
    moments = uniform_moments(HALF_WIDTH)
    best = [best_filter(LENGTHS[place], moments, "GD++, tied")[1][0] for place in places]
    printed = [READ_OFF[place] for place in places]
    return Evidence.exact(
        float(np.abs(np.array(best) - np.array(printed)).max()), "<=", 0.0005, "half a unit of the last digit printed"
    )


@PROOFS.claim(
    "icl-gradient-descent/L3.loss",
    where="Figures 2 and 3, in closed form",
    kind="ordering",
    statement=(
        r"At $N = d = 10$ the least half-losses are $0.206$ (one step), $0.157$ (two steps), $0.110$ (tied "
        r"GD++) and $0.092$ (untied GD++), the first three as in the paper's plots; at every $N$ of the "
        r"table each is below the one before."
    ),
    controls=[
        control("inputs uniform on [-1, 1], as the text says", half_width=1.0),
        control("mean squared error instead of half of it", halved=False),
    ],
)
def least_losses(results: Results, half_width: float = HALF_WIDTH, halved: bool = True) -> Evidence:
    moments = uniform_moments(half_width)
    losses = np.array(
        [[best_filter(length, moments, family)[2] / (2 if halved else 1) for family in FAMILIES] for length in LENGTHS]
    )
    plotted = np.array([0.205, 0.155, 0.11])
    return Evidence.weakest(
        Evidence.exact(
            float(np.abs(losses[0, :3] - plotted).max()), "<=", 0.005, "a curve is read to half a hundredth"
        ),
        Evidence.exact(float((losses[:, 1:] / losses[:, :-1]).max()), "<", 1.0, "each family contains the one before"),
    )


@PROOFS.figure
def least_losses_by_length(results: Results) -> Drawing:
    """The least half-losses of one and two layers against the number of examples, exactly."""
    lengths, moments = (4, 7, 10, 15, 25, 50, 100), uniform_moments(HALF_WIDTH)
    figure, axes = panels(1, 1, width=6.0, height=4.0)
    panel, rows = axes[0, 0], []
    looks = (("-", "o", 0), ("--", "s", 1), ("-.", "^", 2), (":", "D", 3))
    for family, (line, marker, color) in zip(FAMILIES, looks, strict=True):
        losses = [best_filter(length, moments, family)[2] / 2 for length in lengths]
        panel.plot(lengths, losses, linestyle=line, marker=marker, color=REFERENCES[color], label=family)
        rows += [{"family": family, "examples": n, "half_loss": loss} for n, loss in zip(lengths, losses, strict=True)]
    panel.plot(
        (10, 10, 10), (0.205, 0.155, 0.11), "+", color="black", markersize=11, label="read off the paper's plots"
    )
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xticks((4, 10, 25, 50, 100), ("4", "10", "25", "50", "100"))
    label(
        panel,
        "the longer the context, the more curvature helps (d = 10, exact)",
        "examples N",
        "least half of the mean squared error",
    )
    panel.legend()
    return Drawing(figure, pd.DataFrame(rows))


# %%
PROOFS.show(least_losses_by_length)
PROOFS.show(curvatures_without_training)
PROOFS.show(curvatures_to_the_last_digit)
PROOFS.show(least_losses)

# %% [markdown]
# ## Repeating a layer
#
# Applying the one-step-optimal layer again and again, damped by a factor $c$, multiplies residuals by
# $(1 - c s^* \lambda)$ each time. On a task whose largest eigenvalue exceeds $2/(c s^*)$ it diverges. Such
# tasks have a positive probability for *every* damping above $2 / (s^* \lambda_{\sup})$, where
# $\lambda_{\sup} = N d a^2$ is reached when all inputs are the same corner of the cube. So the mean over
# tasks always diverges in the end, while the median need not: what a plot of 50 repeats shows depends on how
# rare those tasks are.


# %%
@PROOFS.claim(
    "icl-gradient-descent/P1.support",
    where="Figure 10, derived",
    kind="identity",
    statement=(
        r"At $N = d = 10$ the dampings $1, 0.875, 0.75$ and also $0.5$ all exceed $2 / (s^* N d a^2) = "
        r"0.132$: inputs near one corner of the cube make repeated steps diverge, so that the mean loss "
        r"over tasks diverges at each of them."
    ),
    controls=[control("a damping of 0.13", dampings=(0.13,))],
)
def every_damping_diverges_somewhere(results: Results, dampings: Sequence[float] = (1.0, 0.875, 0.75, 0.5)) -> Evidence:
    step = optimal_step(10, 10, input_variance=VARIANCE, kurtosis=UNIFORM_KURTOSIS)
    corner = torch.full((1, 10, 10), HALF_WIDTH, dtype=torch.float64)
    largest = float(gram_eigenvalues(corner).max())
    return Evidence.exact(min(damping * step * largest for damping in dampings), ">", 2.0, "the edge of stability")


# %%
PROOFS.show(every_damping_diverges_somewhere)

# %% [markdown]
# ## Features in front
#
# Put any map $m$ in front, shared by all tokens: the layer then takes gradient steps on a linear head over
# $m(x)$. In function space that is kernel gradient descent with $k(x, x') = m(x) \cdot m(x')$: with $W_0 = 0$
# one layer is the smoother $s \sum_i y_i\, k(x_i, x_q)$.


# %%
@PROOFS.claim(
    "icl-gradient-descent/T7",
    where="Proposition 2",
    kind="identity",
    statement=(
        r"Linear attention over tokens $(m(x_j), y_j)$ with a random two-layer $m$ takes the steps $f "
        r"\leftarrow f + s \sum_i (y_i - f(x_i))\, k(x_i, \cdot)$ of kernel gradient descent, $k(x, x') = "
        r"m(x) \cdot m(x')$ (5 steps)."
    ),
    controls=[control("the kernel of the raw inputs", raw=True), control("a causal mask", pattern="causal")],
)
def features_give_kernel_descent(results: Results, raw: bool = False, pattern: str = "prefix") -> Evidence:
    parts = []
    for dimension, hidden, features, context in ((1, 16, 8, 10), (3, 12, 5, 6)):
        data = drawn(results, "T7", dimension, context)
        first, second = (
            normal(f"T7 first {dimension}", dimension, hidden),
            normal(f"T7 second {dimension}", hidden, features) / math.sqrt(hidden),
        )
        examples, queries = (torch.tanh(torch.tanh(x @ first) @ second) for x in (data.x_context, data.x_query))
        step = 1 / float(gram_eigenvalues(torch.cat([examples, queries], dim=1)).max())
        network = network_predictor(gradient_descent_network(features, 5, step=step), MASKS[pattern])
        found = network(examples, data.y_context, queries)
        sides = (data.x_context, data.x_query) if raw else (examples, queries)
        kernel, cross = sides[0] @ sides[0].mT, sides[1] @ sides[0].mT
        fitted, answer = torch.zeros_like(data.y_context), torch.zeros_like(data.y_query)
        for _ in range(5):
            residual = data.y_context - fitted
            fitted, answer = (fitted + step * predict(residual, kernel), answer + step * predict(residual, cross))
        parts.append((greatest(found - answer), query_bound(examples, data.y_context, queries, 5)))
    return all_within(parts, "rounding of two computations, a chain of 2 features + N + 6 operations a layer")


# %%
PROOFS.show(features_give_kernel_descent)

# %% [markdown]
# ## Copy, then learn
#
# What if inputs and labels come as *separate* tokens $(x_1), (y_1), (x_2), \dots$ with one-hot positions? A
# first layer can fetch the neighbour: the key shows its position $p_i$, the query asks for $p_{j+1}$, and the
# value brings the content of token $j + 1$ into the position slot while removing the position. A second layer
# then takes the gradient step. As written this copies from the **right** and needs a mask that lets $x_j$ see
# the later $y_j$. Under a causal mask the same trick must sit on the label's token and copy from the
# **left**: the previous-token head of induction circuits.
#
# Linear attention copies exactly. Softmax does so only in the limit of a large scale $\beta$ of the scores:
# the weight on the right token is $e^\beta / (e^\beta + n - 1)$, so that the error falls as
# $(n-1)\,e^{-\beta}$.


# %%
def alternating(data: RegressionPrompts) -> Tensor:
    """Tokens (x_1), (y_1), ..., (x_N), (y_N), (x_q), of content x and y and a one-hot position: [batch, n, d + 1 + n]."""
    batch, context, dimension = data.x_context.shape
    length = 2 * context + 1
    found = torch.zeros(batch, length, dimension + 1 + length, dtype=torch.float64)
    found[:, 0:-1:2, :dimension] = data.x_context
    found[:, 1::2, dimension] = data.y_context
    found[:, -1, :dimension] = data.x_query[:, 0]
    found[:, :, dimension + 1 :] = torch.eye(length)
    return found


def copying_layer(content: int, length: int, offset: int, scale: float = 1.0) -> dict[str, Tensor]:
    """Token j fetches the content of token j + offset into its position slot and drops its own position."""
    size = content + length
    query, key, value = (torch.zeros(size, size, dtype=torch.float64) for _ in range(3))
    slot = slice(content, size)
    # Row p of the query matrix is what position p asks for.
    query[slot, slot] = scale * torch.diag(torch.ones(length - 1, dtype=torch.float64), offset)
    key[slot, slot] = torch.eye(length)
    value[:content, content : 2 * content] = torch.eye(content)
    value[slot, slot] = -torch.diag(torch.ones(length - 1, dtype=torch.float64), -offset)
    return {"query": query, "key": key, "value": value, "output": torch.eye(size, dtype=torch.float64)}


def learning_layer(dimension: int, length: int, step: float, offset: int) -> dict[str, Tensor]:
    """One gradient step from zero on pairs of content and copy, written with the plus sign into the query's label."""
    content = dimension + 1
    size = content + length
    query, key, value = (torch.zeros(size, size, dtype=torch.float64) for _ in range(3))
    # Copied from the right, x is content and y the copy; from the left it is the other way round.
    x_place, y_place = (0, 2 * content - 1) if offset == 1 else (content, dimension)
    query[:dimension, :dimension] = torch.eye(dimension)
    key[x_place : x_place + dimension, :dimension] = torch.eye(dimension)
    value[y_place, dimension] = 1
    return {"query": query, "key": key, "value": value, "output": step * torch.eye(size, dtype=torch.float64)}


def copied(given: Tensor, content: int, offset: int) -> Tensor:
    """What an exact copy looks like at the tokens that have such a neighbour."""
    inner = slice(0, -1) if offset == 1 else slice(1, None)
    source = slice(1, None) if offset == 1 else slice(0, -1)
    found = given[:, inner].clone()
    found[:, :, content:] = 0
    found[:, :, content : 2 * content] = given[:, source, :content]
    return found


PATTERNS = {"prefix": lambda length: masks.in_context_prefix(length - 1, 1), "full": masks.full, "causal": masks.causal}


@PROOFS.claim(
    "icl-gradient-descent/T8",
    where="Proposition 3",
    kind="construction",
    statement=(
        r"On alternating tokens $(x_j), (y_j)$ a first layer of linear attention without a mask copies the "
        r"next token exactly, and a second one then predicts with one step of gradient descent."
    ),
    controls=[
        control("a causal mask, under which the literal construction copies nothing", pattern="causal"),
        control("copying from the left, which needs other weights in the second layer", offset=-1),
    ],
)
def copy_then_learn(results: Results, pattern: str = "full", offset: int = 1) -> Evidence:
    return _copy_then_learn(results, pattern, copy_offset=offset, learn_offset=1)


@PROOFS.claim(
    "icl-gradient-descent/T8.causal",
    where="Proposition 3, moved to the label's token (derived)",
    kind="construction",
    statement=(
        r"Under a causal mask the label's token can copy the input to its left exactly, and a second layer "
        r"again predicts with one step of gradient descent."
    ),
    controls=[control("copying from the right, as in the proposition", offset=1)],
)
def copy_then_learn_causally(results: Results, offset: int = -1) -> Evidence:
    return _copy_then_learn(results, "causal", copy_offset=offset, learn_offset=offset)


def _copy_then_learn(results: Results, pattern: str, copy_offset: int, learn_offset: int) -> Evidence:
    parts = []
    for dimension, context in ((1, 3), (2, 6), (4, 5)):
        data = drawn(results, "T8", dimension, context)
        length, content = 2 * context + 1, dimension + 1
        given, mask = alternating(data), PATTERNS[pattern](length)
        step = 1 / float(gram_eigenvalues(data.x_context).max())
        layers = [copying_layer(content, length, copy_offset), learning_layer(dimension, length, step, learn_offset)]
        after = apply(loaded(content + length, layers[:1]), given, mask)
        inner = slice(0, -1) if learn_offset == 1 else slice(1, None)
        error = greatest(after[:, inner] - copied(given, content, learn_offset))
        bound = rounding_bound(4 * (content + 2 * length), max(greatest(given), 1.0))
        parts.append((error, bound))
        answer = apply(loaded(content + length, layers), given, mask)[:, -1, dimension]
        weights = gradient_descent_path(data.x_context, data.y_context, step=step, steps=1)[1]
        expected = predict(weights, data.x_query)[:, 0]
        chain = query_bound(data.x_context, data.y_context, data.x_query, 2)
        parts.append((greatest(answer - expected), chain + 4 * bound * context))
    return all_within(parts, "rounding of chains of 2n + content operations a layer")


@PROOFS.claim(
    "icl-gradient-descent/T8.softmax",
    where="Proposition 3, with softmax (derived)",
    kind="rate",
    statement=(
        r"With softmax in the copying layer the copy is exact only in the limit: its error falls as "
        r"$e^{-\beta}$ in the scale $\beta$ of the scores and stays within $2 (n-1)\,e^{-\beta}$ times the "
        r"largest value."
    ),
    controls=[control("a scale of 1, as written", scales=(0.5, 1.0)), control("a causal mask", pattern="causal")],
)
def softmax_copies_in_the_limit(
    results: Results, scales: Sequence[float] = (8.0, 11.0, 14.0, 17.0), pattern: str = "full"
) -> Evidence:
    dimension, context = 3, 10
    data = drawn(results, "T8", dimension, context)
    length, content = 2 * context + 1, dimension + 1
    given = alternating(data)
    errors = []
    for scale in scales:
        layer = copying_layer(content, length, 1, scale * math.sqrt(content + length))
        after = apply(loaded(content + length, [layer], "softmax"), given, PATTERNS[pattern](length))
        errors.append(greatest(after[:, :-1] - copied(given, content, 1)))
    largest = max(greatest(given[..., :content]), 1.0)
    share = [(length - 1) / (math.exp(scale) + length - 1) for scale in scales]
    over = max(error / (2 * largest * part) for error, part in zip(errors, share, strict=True))
    slopes = np.diff(np.log(errors)) / np.diff(np.array(scales))
    return Evidence.weakest(
        Evidence.exact(over, "<=", 1.0, "the weight on all other tokens, twice the largest value"),
        Evidence.exact(
            float(np.abs(slopes + 1).max()),
            "<=",
            (length - 1) * math.exp(-8.0),
            "the exact slope of log share at the smallest scale is -1 up to (n-1) exp(-beta)",
        ),
    )


# %%
PROOFS.show(copy_then_learn)
PROOFS.show(copy_then_learn_causally)
PROOFS.show(softmax_copies_in_the_limit)

# %%
PROOFS.show()
