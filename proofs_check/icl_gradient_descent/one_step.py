# %% [markdown]
# # In-context learning by gradient descent: constructions and exact laws
#
# A transformer reads $N$ examples $(x_j, y_j)$ and a query $x_q$. These parts check, without training
# anything, what one layer of linear attention *can* do with them (one gradient step), what the *best* such
# layer is (both here), what stacking does (`many_layers`), which accelerated variant, GD++, deeper networks have
# room for and how good it is (`least_losses`), and how inputs and labels of separate tokens are brought together
# (`separate_tokens`).
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
#
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
from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from torch import Tensor

from lab import Task, control
from lab.domains.regression.one_layer_loss import even_square, excess_of_layer
from lab.domains.regression.optimal_steps import (
    NORMAL_KURTOSIS,
    UNIFORM_KURTOSIS,
    expected_filter_error,
    filter_polynomial,
    gram_moments,
    normal_moments,
    one_step_error,
    one_step_error_of_spectrum,
    optimal_step,
    optimal_step_of_spectrum,
    preconditioned_error,
    preconditioner,
    uniform_moments,
)
from lab.labels import LabelledArrays, deviations
from lab.statistics import rounding_bound
from proofs_check.icl_gradient_descent._shared import (
    HALF_WIDTH,
    MASKS,
    PAPER,
    PRESETS,
    VARIANCE,
    Config,
    apply,
    greatest,
    loaded,
    normal,
    three_atoms,
)

PROOFS = Task("icl-gradient-descent", PAPER, PRESETS)

# Dimension, outputs and number of examples.
SHAPES = ((2, 1, 3), (7, 3, 15), (5, 2, 4), (3, 1, 12))


def step_layer(dimension: int, outputs: int, step_size: float, initial: Tensor, scale: float = 1.0) -> dict:
    """The layer of Proposition 1 with W_K scaled up and P scaled down by ``scale``; initial [outputs, dimension]."""
    size = dimension + outputs
    inputs = torch.zeros(size, size, dtype=torch.float64)
    inputs[:dimension, :dimension] = torch.eye(dimension)
    value = torch.zeros(size, size, dtype=torch.float64)
    value[:dimension, dimension:] = initial.mT
    value[dimension:, dimension:] = -torch.eye(outputs)
    output = step_size / scale * torch.eye(size, dtype=torch.float64)
    return {"query": inputs, "key": scale * inputs, "value": value, "output": output}


@PROOFS.identity(
    "icl-gradient-descent/T1",
    where="Proposition 1",
    kind="construction",
    statement=(
        r"One layer of linear attention turns every token into $(x_j, y_j - \Delta W x_j)$, with $\Delta W "
        r"= -\frac{\eta}{N} \sum_i (W_0 x_i - y_i)\, x_i^\top$, and the query's read-out is $(W_0 + \Delta "
        r"W)\, x_q$; also if a factor moves from $P$ to $W_K$."
    ),
    origin="rounding of two computations, chains of 2(d + outputs + N) + 4 operations each",
    controls=[
        control("the query among keys and values", mask="query seen"),
        control("a causal mask, at all tokens", mask="causal"),
        control("read-out without the minus sign", sign=1.0),
    ],
)
def one_layer_is_one_step(config: Config, *, mask: str = "prefix", sign: float = -1.0) -> LabelledArrays:
    pairs = []
    for dimension, outputs, context in SHAPES:
        count, name = config.prompts, f"T1 {dimension} {outputs} {context}"
        x, query = (normal(f"{name} x", count, context, dimension), normal(f"{name} q", count, 1, dimension))
        y, initial = normal(f"{name} y", count, context, outputs), normal(f"{name} W", outputs, dimension)
        step_size = 0.5 / context
        change = step_size * (y - x @ initial.mT).mT @ x
        expected = torch.cat([y - x @ change.mT, -query @ (initial + change).mT], dim=1)
        tokens = torch.cat([torch.cat([x, y], dim=-1), torch.cat([query, -query @ initial.mT], dim=-1)], dim=1)
        # Sizes: residuals times scores, summed over the examples; two computations of 2 (d + N) + 4 operations each.
        reach = float(torch.cat([x, query], dim=1).norm(dim=-1).max())
        residual = greatest(y) + float(initial.norm()) * reach
        size = residual * (1 + step_size * context * reach**2) * math.sqrt(outputs)
        bound = rounding_bound(2 * (2 * (dimension + outputs + context) + 4), size)
        for scale in (1.0, 3.0):
            network = loaded(dimension + outputs, [step_layer(dimension, outputs, step_size, initial, scale)])
            after = apply(network, tokens, MASKS[mask](context, 1))
            slots = after[..., dimension:]
            error = torch.cat([slots[:, :-1] - expected[:, :-1], sign * slots[:, -1:] + expected[:, -1:]], dim=1)
            pairs.append((max(greatest(error), greatest(after[..., :dimension] - tokens[..., :dimension])), bound))
    return deviations(pairs)


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


@PROOFS.identity(
    "icl-gradient-descent/L1",
    where="derived (the paper searches the learning rate on a grid)",
    statement=(
        r"For independent symmetric coordinates of variance $v$ and kurtosis $\kappa$, one step from zero "
        r"has the error $d v [1 - 2 s N v + s^2 N v (v (N + d - 2 + \kappa) + \sigma^2)]$, least at $s^* = "
        r"1/(v (N + d - 2 + \kappa) + \sigma^2)$."
    ),
    origin="rounding of a sum over all input matrices, or over the moments",
    controls=[
        control("the kurtosis of normal inputs, whatever they are", kurtosis=NORMAL_KURTOSIS),
        control("one example too many", extra=1),
    ],
)
def one_step_law(config: Config, *, kurtosis: float | None = None, extra: int = 0) -> LabelledArrays:
    pairs = []
    for (context, dimension), true_kurtosis, noise in itertools.product(
        ((2, 2), (3, 2), (2, 3)), (1.0, 1.8, 4.0), (0.0, 0.7)
    ):
        x, probability = three_atoms(true_kurtosis, context, dimension)
        law = {"kurtosis": true_kurtosis if kurtosis is None else kurtosis, "noise": noise}
        best = optimal_step(context + extra, dimension, **law)
        for factor in (0.5, 1.0, 1.5):
            error = error_of_step(x, probability, factor * best, torch.eye(dimension, dtype=x.dtype), noise)
            claimed = one_step_error(factor * best, context + extra, dimension, **law)
            pairs.append((abs(error - claimed), rounding_bound(len(x) + 40, 8 * dimension * true_kurtosis)))
    for moments, (context, dimension) in itertools.product(
        (uniform_moments(HALF_WIDTH), normal_moments(VARIANCE)), ((10, 10), (25, 10), (3, 7))
    ):
        law = {"input_variance": moments[1], "kurtosis": moments[2] / moments[1] ** 2 if kurtosis is None else kurtosis}
        best = optimal_step(context + extra, dimension, **law)
        counted = gram_moments(2, context, dimension, moments)
        for factor in (0.5, 1.0, 1.5):
            error = expected_filter_error(filter_polynomial([factor * best], [0.0]), counted, moments[1])
            claimed = one_step_error(factor * best, context + extra, dimension, **law)
            pairs.append((abs(error - claimed), rounding_bound(40, 8 * dimension)))
    return deviations(pairs)


@PROOFS.identity(
    "icl-gradient-descent/L1.spectrum",
    where="derived",
    statement=(
        r"For normal inputs of covariance $\Lambda$ the best plain step is $\mathrm{tr}\Lambda^2 / "
        r"((N+1)\,\mathrm{tr}\Lambda^3 + (\mathrm{tr}\Lambda + \sigma^2)\,\mathrm{tr}\Lambda^2)$ and leaves "
        r"the error $\mathrm{tr}\Lambda - N s^*\,\mathrm{tr}\Lambda^2$."
    ),
    origin="rounding of a Gauss quadrature that is exact for these polynomials",
    controls=[control("an isotropic law of the same trace", isotropic=True)],
)
def one_step_law_of_spectrum(config: Config, *, isotropic: bool = False) -> LabelledArrays:
    pairs = []
    for spectrum, context, noise in (
        (np.array([2.0, 0.5]), 3, 0.3),
        (np.array([1.5, 0.2]), 2, 0.0),
        (np.array([2.0, 1.0, 0.25]), 2, 0.5),
    ):
        x, probability = quadrature(spectrum, context)
        claimed_spectrum = np.full(len(spectrum), spectrum.mean()) if isotropic else spectrum
        best = optimal_step_of_spectrum(claimed_spectrum, context, noise)
        for factor in (0.5, 1.0, 1.5):
            error = error_of_step(x, probability, factor * best, torch.from_numpy(np.diag(spectrum)), noise)
            claimed = one_step_error_of_spectrum(factor * best, claimed_spectrum, context, noise)
            pairs.append((abs(error - claimed), rounding_bound(len(x) + 60, 40 * spectrum.sum())))
        least = claimed_spectrum.sum() - context * best * (claimed_spectrum**2).sum()
        error = error_of_step(x, probability, best, torch.from_numpy(np.diag(spectrum)), noise)
        pairs.append((abs(error - least), rounding_bound(len(x) + 60, 40 * spectrum.sum())))
    return deviations(pairs)


# %%
PROOFS.show(one_step_law)
PROOFS.show(one_step_law_of_spectrum)

# %% [markdown]
# **Away from training.** A network keeps its step when inputs grow by a factor $\alpha$. Then $v$ becomes
# $\alpha^2 v$ and the error turns up steeply, while a step tuned to each $\alpha$ would only see its error
# grow as $\alpha^2$. Weights scaled by $\alpha$ do the latter to any linear-in-$y$ method, and another symmetric law of the
# inputs enters only through its kurtosis.


# %%
@PROOFS.identity(
    "icl-gradient-descent/L2",
    where="Figure 2 right, in closed form",
    statement=(
        r"With the step kept at $s^*$ and inputs scaled by $\alpha$, the error is the one-step law at "
        r"variance $\alpha^2 v$; at $N = d = 10$ its half is $0.0812, 0.2062, 1.204, 8.40$ for $\alpha = "
        r"\frac12, 1, \frac32, 2$."
    ),
    origin="rounding of the counted moments; half a unit of the last quoted digit",
    controls=[control("the step tuned again for each scale", tuned_again=True)],
)
def error_off_the_training_range(config: Config, *, tuned_again: bool = False) -> LabelledArrays:
    pairs, halves = [], []
    law = {"kurtosis": UNIFORM_KURTOSIS}
    kept = optimal_step(10, 10, input_variance=VARIANCE, **law)
    for scale in (0.5, 1.0, 1.5, 2.0):
        variance = scale**2 * VARIANCE
        step_size = optimal_step(10, 10, input_variance=variance, **law) if tuned_again else kept
        counted = gram_moments(2, 10, 10, uniform_moments(scale * HALF_WIDTH))
        error = expected_filter_error(filter_polynomial([kept], [0.0]), counted, variance)
        claimed = one_step_error(step_size, 10, 10, input_variance=variance, **law)
        pairs.append((abs(error - claimed), rounding_bound(40, 8 * error)))
        halves.append(error / 2)
    quoted = np.abs(np.array(halves) - np.array([0.08115, 0.20623, 1.2038, 8.4007]))
    pairs += zip(quoted.tolist(), (5e-6, 5e-6, 5e-5, 5e-5), strict=True)
    return deviations(pairs)


LAPLACE_KURTOSIS = 6.0


def laplace_moments(variance: float) -> tuple[float, ...]:
    """E x^(2k) = (2k)! b^(2k), variance 2 b^2."""
    return tuple(math.factorial(2 * k) * (variance / 2) ** k for k in range(9))


@PROOFS.identity(
    "icl-gradient-descent/L2.laws",
    where="derived, beside the other inputs and weights of Figures 2 and 8",
    statement=(
        r"With the step kept at the $s^*$ of uniform inputs, weights $w$ scaled by $\alpha$ multiply the error by $\alpha^2$, and inputs "
        r"of another symmetric law of the same variance change it only by their kurtosis: at $N = d = 10$ its half is $0.2062$ "
        r"for uniform, $0.2190$ for normal and $0.2509$ for Laplace inputs."
    ),
    origin="rounding of the counted moments, of a sum over all input matrices, and of the last quoted digit",
    controls=[
        control("the kurtosis of uniform inputs for all", kurtosis=UNIFORM_KURTOSIS),
        control("an error that grows with the size of the weights, not its square", power=1),
    ],
)
def error_for_other_laws(config: Config, *, kurtosis: float | None = None, power: int = 2) -> LabelledArrays:
    pairs = []
    kept = optimal_step(10, 10, input_variance=VARIANCE, kurtosis=UNIFORM_KURTOSIS)
    for moments, true_kurtosis, quoted in (
        (uniform_moments(HALF_WIDTH), UNIFORM_KURTOSIS, 0.2062),
        (normal_moments(VARIANCE), NORMAL_KURTOSIS, 0.2190),
        (laplace_moments(VARIANCE), LAPLACE_KURTOSIS, 0.2509),
    ):
        error = expected_filter_error(filter_polynomial([kept], [0.0]), gram_moments(2, 10, 10, moments), VARIANCE)
        used = true_kurtosis if kurtosis is None else kurtosis
        claimed = one_step_error(kept, 10, 10, input_variance=VARIANCE, kurtosis=used)
        pairs += [(abs(error - claimed), rounding_bound(40, 8 * error)), (abs(error / 2 - quoted), 5e-5)]
    for scale in (0.5, 2.0, 5.0):
        x, probability = three_atoms(1.8, 2, 2)
        weights, share = quadrature(np.array([scale**2]), 2)  # w = (w_1, w_2), exact to degree 5
        weights = weights[:, :, 0]
        gram = x.mT @ x
        left = weights[:, None] - 0.2 * torch.einsum("bij,wj->wbi", gram, weights)
        error = float(torch.einsum("w,b,wbi,wbi->", share, probability, left, left))
        claimed = scale**power * one_step_error(0.2, 2, 2, kurtosis=1.8)
        pairs.append((abs(error - claimed), rounding_bound(len(x) * len(weights) + 40, 8 * scale**2)))
    return deviations(pairs)


# %%
PROOFS.show(error_off_the_training_range)
PROOFS.show(error_for_other_laws)

# %% [markdown]
# **Preconditioning.** One layer has more freedom than a step size: its prediction can be
# $\frac1N \sum_j y_j\, x_j^\top W x_q$ with any $W$. The error is quadratic in $W$, with the stationary point
# $(E \hat A^2 + \frac{\sigma^2}{N} \Lambda)\, W = \Lambda$ for $\hat A = A/N$. For normal inputs
# $E \hat A^2 = (1 + \frac1N) \Lambda^2 + \frac{\mathrm{tr}\Lambda}{N} \Lambda$, so that
# $W = [(1 + \frac1N) \Lambda + \frac{\mathrm{tr}\Lambda + \sigma^2}{N} I]^{-1}$. It is a multiple of the
# identity only for isotropic inputs: "one layer is one step of gradient descent" is then "one step of
# *preconditioned* gradient descent".


# %%
@PROOFS.identity(
    "icl-gradient-descent/T2",
    where="Ahn et al. 2023, Theorem 1; Zhang, Frei and Bartlett 2023, Theorem 4.1",
    statement=(
        r"For normal inputs of covariance $\Lambda$ and label noise $\sigma$, the best $W$ in $\frac1N "
        r"\sum_j y_j\, x_j^\top W x_q$ is $[(1 + \frac1N) \Lambda + \frac{\mathrm{tr}\Lambda + \sigma^2}{N} "
        r"I]^{-1}$, with the error $\mathrm{tr}\Lambda - \mathrm{tr}(\Lambda W \Lambda)$, and $cW$ has "
        r"$\mathrm{tr}\Lambda - (2c - c^2)\,\mathrm{tr}(\Lambda W \Lambda)$."
    ),
    origin="rounding of a Gauss quadrature that is exact here, times a condition number",
    controls=[
        control("plain gradient descent taken for the optimum", plain=True),
        control("label noise left out of W", ignore_noise=True),
    ],
)
def best_layer_is_preconditioned(config: Config, *, plain: bool = False, ignore_noise: bool = False) -> LabelledArrays:
    pairs = []
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
        pairs.append((float(np.abs(best - claimed).max()), bound))
        for scale in (0.9, 1.0, 1.1):
            left = identity - scale * mean_gram @ claimed
            loss = np.einsum("b,bji,bjk,ki->", probability.numpy(), left, left, covariance)
            loss += noise**2 / context * scale**2 * np.trace(claimed @ covariance @ claimed @ covariance)
            gap = abs(loss - preconditioned_error(spectrum, context, noise, scale))
            pairs.append((gap, rounding_bound(len(x) + 60, 40 * spectrum.sum())))
    return deviations(pairs)


# %%
PROOFS.show(best_layer_is_preconditioned)

# %% [markdown]
# **Any layer.** A layer has still more freedom: all of $K^\top Q$ and $PV$. Let $p = (u, c)$ be the row of $PV$ that
# writes labels and $M$, that is $M_x$ over $m^\top$, what $K^\top Q$ does to the inputs of a query. Its weights on $x_q$ are
# $$\hat w = W^\top X^\top y + g, \quad W = -(c M_x + u m^\top), \quad g = -(M_x^\top A u + c\,|y|^2\,m),$$
# one part odd in the labels, one even. Turning $w$ and the noise round turns the first and keeps the second, so that
# nothing but squares is left on average, and with $E A^2 + \sigma^2 E A = \frac{N v}{s^*} I$ the first of them is completed:
# $$E(\hat y_q - w \cdot x_q)^2 = d v\,(1 - N v s^*) + v\,\frac{N v}{s^*}\,\lVert W - s^* I\rVert_F^2 + v\,E|g|^2 .$$
# No layer is below the best gradient step, and the distance of a layer's $W$ from $s^* I$ tells what its loss is.
# $E|g|^2$ is a sum of moments up to the fourth order in X (`lab.domains.regression.one_layer_loss`). The check enumerates all inputs
# of three atoms, weights and noise by Gauss quadrature, and runs a layer with four random matrices.


# %%
def random_layer(dimension: int, name: str) -> dict[str, Tensor]:
    """Four random matrices."""
    size = dimension + 1
    return {which: 0.6 * normal(f"{name} {which}", size, size) for which in ("query", "key", "value", "output")}


@PROOFS.identity(
    "icl-gradient-descent/T2.isotropic",
    where="Ahn et al. 2023, Theorem 1, for any symmetric law and all weights (derived)",
    statement=(
        r"For independent symmetric coordinates of variance $v$ and kurtosis $\kappa$ a layer of linear attention, whatever its four "
        r"matrices, has the error of the best gradient step plus $v \frac{N v}{s^*} \lVert W - s^* I\rVert_F^2 + v\,E|g|^2$: "
        r"no layer is better than that step."
    ),
    origin="rounding of a sum over all inputs, weights and noise",
    controls=[
        control("the kurtosis of normal inputs for all", kurtosis=NORMAL_KURTOSIS),
        control("the part that is even in the labels left out", even=False),
        control("the inputs' entries of the row that writes labels left out", row=False),
    ],
)
def excess_of_any_layer(
    config: Config, *, kurtosis: float | None = None, even: bool = True, row: bool = True
) -> LabelledArrays:
    pairs = []
    for context, dimension, noise in ((2, 2, 0.0), (2, 2, 0.7), (3, 2, 0.0), (2, 3, 0.0)):
        for true_kurtosis, variance in ((1.0, 1.0), (1.8, 0.5), (4.0, 1.0)):
            x, probability = three_atoms(true_kurtosis, context, dimension)
            x = math.sqrt(variance) * x
            drawn, share = quadrature(np.ones(1), dimension + (context if noise else 0))
            drawn = drawn[:, :, 0]
            weights, spread = drawn[:, :dimension], noise * drawn[:, dimension:] if noise else 0.0
            y = torch.einsum("bnd,wd->bwn", x, weights) + spread
            layer = random_layer(dimension, f"any {context} {dimension} {noise} {true_kurtosis}")
            score, value = layer["key"] @ layer["query"].mT, (layer["value"] @ layer["output"]).mT
            answer_weights = answering_weights(layer, x, y)
            square = (answer_weights - weights).square().sum(-1)
            error = variance * float(torch.einsum("b,w,bw->", probability, share, square))
            reads, writes = score[:, :-1], value[-1]
            law = {"input_variance": variance, "kurtosis": true_kurtosis if kurtosis is None else kurtosis}
            step = optimal_step(context, dimension, **law, noise=noise)
            claimed = one_step_error(step, context, dimension, **law, noise=noise)
            if not row:
                writes = torch.cat([torch.zeros_like(writes[:-1]), writes[-1:]])
            claimed += float(excess_of_layer(reads, writes, context, **law, noise=noise))
            if not even:
                claimed -= variance * float(even_square(reads, writes, context, **law, noise=noise))
            # What the answer is made of, before anything cancels.
            size = float(torch.cat([x, y[:, :1].mT], -1).square().sum((1, 2)).max()) * float(
                score.norm() * value.norm()
            )
            pairs.append((abs(error - claimed), rounding_bound(square.numel() + 80, (size + 3 * dimension) ** 2)))
    return deviations(pairs)


def answering_weights(layer: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    """What a network of this one layer answers to the unit vectors, minus its label slots: [batch, labels, dimension]."""
    count, context, dimension = x.shape
    labels = y.shape[1]
    examples = torch.cat([x[:, None].expand(-1, labels, -1, -1), y[..., None]], -1).flatten(0, 1)
    queries = torch.eye(dimension, dimension + 1, dtype=x.dtype).expand(len(examples), -1, -1)
    after = apply(
        loaded(dimension + 1, [layer]), torch.cat([examples, queries], 1), MASKS["prefix"](context, dimension)
    )
    return -after[:, context:, -1].unflatten(0, (count, labels))


# %%
PROOFS.show(excess_of_any_layer)

# %%
PROOFS.show()
