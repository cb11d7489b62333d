r"""What a predictor may be doing: every closed form of its protocol, with its free parameters fitted.

A *candidate* makes an `Algorithm` out of the answers to be explained. Most closed forms are fixed. Some have free
parameters (a ridge penalty, the number and the rate of gradient steps): they are set so that the mean `distance` on the
prompts at hand is least, which says nothing yet; the comparison judges them on other prompts.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy import optimize
from torch import Tensor

from lab.closed_form.causal_recursions import causal_recursion
from lab.closed_form.gradient_descent import gradient_descent, gram_eigenvalues
from lab.closed_form.kaczmarz import kaczmarz, normalised_kaczmarz
from lab.closed_form.least_squares import least_squares, predict, ridge, zero
from lab.closed_form.markov import markov_posterior, smoothed_frequencies, uniform_guess
from lab.closed_form.optimal_steps import gd_plus_plus, optimal_gradient_step, preconditioned_gradient_step
from lab.predictors import RegressionPredictor, TokenPredictor

Predictor = Callable[..., Tensor]
# A predictor and a number k to its answers to the first k of the prompts at hand (None: to all).
Answers = Callable[[Predictor, int | None], Float[Tensor, "prompt number"]]
# Distances below are those of float32 rounding and of fitted parameters, 1e-4 of the answers' size, squared.
RESOLUTION = 1e-8
FEW_PROMPTS = 32  # on which all combinations of whole numbers are tried
STARTS = (
    5  # points of the grid from which each combination is tried, for each real parameter beyond the first
)
REFINED = 3  # combinations, the best so far, that are then fitted on all prompts
# Relative accuracy of a real parameter, first and at last. Where inputs are large an error is amplified, in GD++ by
# orders of magnitude, and yet its square must stay below the resolution.
ROUGH, FINE = 1e-3, 1e-7


@dataclass(frozen=True)
class Algorithm:
    """A closed form without anything left to choose.

    Args:
        name: of the closed form.
        predictor: what it answers.
        fitted: the parameters that were fitted, by name.
        freedom: how many numbers were fitted.
    """

    name: str
    predictor: Predictor
    fitted: Mapping[str, float] = field(default_factory=dict)
    freedom: int = 0


# The answers to be explained, and what asks a predictor the same prompts, to an algorithm.
Candidate = Callable[[Float[Tensor, "prompt number"], Answers], Algorithm]


def distance(
    first: Float[Tensor, "prompt number"], second: Float[Tensor, "prompt number"]
) -> Float[Tensor, " prompt"]:
    r"""$|f - g|^2 / \max(|f|^2, |g|^2)$ for each prompt, over all numbers of its answer.

    0 if the answers are equal, 1 if one of them is 0, at most 4; close to the relative squared error where it is
    small. Bounded for each prompt, so that no single prompt decides a mean. An answer that has overflowed counts as 1;
    a difference below `RESOLUTION` times the median answer, of whichever predictor answers less, is rounding.
    """
    sizes = first.square().sum(-1), second.square().sum(-1)
    floor = RESOLUTION * torch.minimum(*(size.median() for size in sizes))
    apart = (first - second).square().sum(-1)
    found = torch.where(apart == 0, 0.0, apart / torch.maximum(torch.maximum(*sizes), floor))
    return torch.where(torch.isfinite(found), found, 1.0)


def fixed(name: str, predictor: Predictor) -> Candidate:
    """A closed form that has nothing to fit."""
    return lambda target, answers: Algorithm(name, predictor)


def searched(
    name: str,
    build: Callable[..., Predictor],
    whole: Mapping[str, Sequence[int]] | None = None,
    real: Mapping[str, tuple[float, float]] | None = None,
    points: int = 10,
) -> Candidate:
    """A closed form whose parameters are fitted: a grid first, then a local search in the logarithms of the real ones.

    Args:
        build: the parameters, by name, to a predictor.
        whole: whole-numbered parameters and their choices.
        real: positive parameters and the limits between which they are sought.
        points: of the grid, for each real parameter.
    """
    whole, real = whole or {}, real or {}
    limits = np.log(np.array(list(real.values())).reshape(-1, 2))
    grids = [np.linspace(low, high, points) for low, high in limits]
    widths = [(high - low) / (points - 1) for low, high in limits]
    near = [width / 4 for width in widths]
    starts_of_choice = STARTS ** max(len(real) - 1, 0)

    def fit(target: Tensor, answers: Answers) -> Algorithm:
        def parameters(choice: tuple[int, ...], logs: Sequence[float]) -> dict[str, Any]:
            inside = np.clip(np.asarray(logs, dtype=float), *limits.T) if real else []
            return dict(zip(whole, choice, strict=True)) | dict(
                zip(real, np.exp(inside).tolist(), strict=True)
            )

        def loss(choice: tuple[int, ...], logs: Sequence[float], prompts: int | None = None) -> float:
            found = answers(build(**parameters(choice, logs)), prompts)
            return float(distance(found, target[:prompts]).mean())

        few = []
        for choice in itertools.product(*whole.values()):
            try_few = partial(loss, choice, prompts=FEW_PROMPTS)
            starts = heapq.nsmallest(starts_of_choice, itertools.product(*grids), key=try_few)
            few.append((*min(_refined(try_few, start, widths, ROUGH) for start in starts), choice))
        every = [
            (*_refined(partial(loss, choice), start, near, FINE), choice)
            for _, start, choice in sorted(few)[:REFINED]
        ]
        _, at, chosen = min(every)
        found = parameters(chosen, at)
        return Algorithm(name, build(**found), found, len(found))

    return fit


def _refined(
    loss: Callable[[Any], float], start: tuple[float, ...], widths: Sequence[float], accuracy: float
) -> tuple[float, tuple[float, ...]]:
    """The least loss near ``start``, within about ``widths``, and where it is."""
    if not start:
        return loss(start), start
    if len(start) == 1:
        bounds = (start[0] - widths[0], start[0] + widths[0])
        found = optimize.minimize_scalar(
            lambda log: loss((log,)), bounds=bounds, method="bounded", options={"xatol": accuracy}
        )
        return float(found.fun), (float(found.x),)
    corners = np.vstack([start, np.array(start) + 0.5 * np.diag(widths)])
    options = {"xatol": accuracy, "fatol": accuracy**2, "initial_simplex": corners}
    # Typed as any: the stubs know no initial simplex.
    minimize: Any = optimize.minimize
    found = minimize(
        lambda logs: loss(tuple(logs.tolist())), np.array(start), method="Nelder-Mead", options=options
    )
    return float(found.fun), tuple(found.x.tolist())


# Regression


def averaging(variance: float) -> RegressionPredictor:
    r"""$\hat y_q = \frac{1}{n v} \sum_j y_j\, x_j \cdot x_q$, unbiased for inputs of variance v a coordinate."""

    def predictor(x_context: Tensor, y_context: Tensor, x_query: Tensor) -> Tensor:
        return predict(predict(y_context, x_context.mT), x_query) / (x_context.shape[1] * variance)

    return predictor


def preconditioned_step(matrix: Float[Tensor, "dimension dimension"]) -> RegressionPredictor:
    r"""$\hat y_q = \sum_j y_j\, x_j^\top W x_q$ with one matrix W for all prompts: any layer of linear attention without bias."""

    def predictor(x_context: Tensor, y_context: Tensor, x_query: Tensor) -> Tensor:
        return predict(predict(y_context, x_context.mT) @ matrix, x_query)

    return predictor


def online_gradient_descent(step: float) -> RegressionPredictor:
    r"""One pass of $w \leftarrow w + s (y_j - w \cdot x_j)\, x_j$, as $w = \sum_j a_j x_j$ with $(I + s L)\, a = s y$.

    L is the Gram matrix below its diagonal.
    """

    def predictor(x_context: Tensor, y_context: Tensor, x_query: Tensor) -> Tensor:
        lower = step * (x_context @ x_context.mT).tril(-1)
        unit = torch.eye(x_context.shape[1], dtype=x_context.dtype, device=x_context.device)
        right = step * y_context[..., None]
        coefficients = torch.linalg.solve_triangular(unit + lower, right, upper=False)[..., 0]
        return predict(predict(coefficients, x_context.mT), x_query)

    return predictor


def causal_descent(layers: int, step: float) -> RegressionPredictor:
    """The answers of ``layers`` layers of linear attention under a causal mask (`causal_recursion`)."""

    def predictor(x_context: Tensor, y_context: Tensor, x_query: Tensor) -> Tensor:
        found = causal_recursion(x_context, y_context, x_query, step=step, layers=layers)
        return found.query_prediction[-1]

    return predictor


def nearest_neighbours(neighbours: int) -> RegressionPredictor:
    """The mean label of the k nearest examples, of all where there are fewer."""

    def predictor(x_context: Tensor, y_context: Tensor, x_query: Tensor) -> Tensor:
        count = min(neighbours, x_context.shape[1])
        near = torch.cdist(x_query, x_context).topk(count, dim=-1, largest=False).indices
        labels = y_context[:, None].expand(-1, x_query.shape[1], -1)
        return labels.gather(-1, near).mean(-1)

    return predictor


def kernel_smoothing(width: float) -> RegressionPredictor:
    r"""$\sum_j y_j\, \mathrm{softmax}_j(-|x_q - x_j|^2 / 2 h^2)$ (Nadaraya-Watson)."""

    def predictor(x_context: Tensor, y_context: Tensor, x_query: Tensor) -> Tensor:
        scores = -torch.cdist(x_query, x_context).square() / (2 * width**2)
        return predict(y_context, scores.softmax(-1))

    return predictor


def softmax_smoothing(sharpness: float) -> RegressionPredictor:
    r"""$\sum_j y_j\, \mathrm{softmax}_j(\beta\, x_q \cdot x_j)$: one head of softmax attention."""

    def predictor(x_context: Tensor, y_context: Tensor, x_query: Tensor) -> Tensor:
        return predict(y_context, (sharpness * x_query @ x_context.mT).softmax(-1))

    return predictor


def fitted_preconditioner(x_context: Tensor, y_context: Tensor, x_query: Tensor) -> Candidate:
    """`preconditioned_step` with the matrix that explains the answers best in squared error."""
    moment = predict(y_context, x_context.mT)
    features = (moment[:, None, :, None] * x_query[:, :, None, :]).flatten(2).flatten(0, 1)

    def fit(target: Tensor, answers: Answers) -> Algorithm:
        size = x_query.shape[-1]
        found = torch.linalg.lstsq(features, target.reshape(-1, 1), driver="gelsd").solution
        matrix = found.reshape(size, size)
        name = "preconditioned step, fitted"
        return Algorithm(
            name, preconditioned_step(matrix), {"mean eigenvalue": float(matrix.trace()) / size}, size**2
        )

    return fit


def regression_candidates(
    x_context: Tensor,
    y_context: Tensor,
    x_query: Tensor,
    *,
    variance: float,
    kurtosis: float,
    spectrum: Sequence[float],
    noise: float,
) -> Iterator[Candidate]:
    r"""The closed forms of in-context regression; weights are $w \sim N(0, I)$.

    Args:
        x_context, y_context, x_query: the prompts on which parameters are fitted; they also set their limits.
        variance, kurtosis: of one coordinate of the inputs.
        spectrum: variances of the coordinates where they differ, else empty.
        noise: standard deviation of the label noise, which fixes the Bayes penalty.
    """
    values = gram_eigenvalues(x_context)
    largest, mean = float(values[:, 0].median()), float(values.mean())
    rates = {"step": (0.02 / largest, 2 / largest)}
    norm = variance * x_context.shape[-1]  # E |x|^2
    yield fixed("zero", zero())
    yield fixed("averaging", averaging(variance))
    if spectrum:
        yield fixed("preconditioned step, optimal", preconditioned_gradient_step(spectrum, noise))
    else:
        yield fixed("gradient step, optimal rate", optimal_gradient_step(variance, kurtosis, noise))
    yield fixed("least squares", least_squares())
    # The penalty of the posterior mean is sigma^2; at 0 that is least squares itself.
    yield fixed("ridge, Bayes penalty", ridge(noise**2) if noise else least_squares())
    yield fixed("one-pass Kaczmarz", kaczmarz())
    yield fixed("shrunken Kaczmarz (place j divides by j)", normalised_kaczmarz())
    yield searched("gradient step, fitted rate", partial(gradient_descent, steps=1), real=rates)
    yield searched("ridge, fitted penalty", ridge, real={"penalty": (1e-3 * mean, 1e2 * mean)})
    yield searched(
        "gradient descent, fitted", gradient_descent, {"steps": (*range(2, 11), 12, 16, 24)}, rates
    )
    yield searched("causal descent, fitted", causal_descent, {"layers": (2, 3, 4, 5, 6, 8, 12)}, rates)
    yield searched(
        "GD++, fitted",
        lambda layers, step, curvature: gd_plus_plus([step] * layers, [curvature] * layers),
        {"layers": (2, 3, 4)},
        # Below the lowest curvature it would be plain gradient descent.
        {"step": (0.1 / largest, 4 / largest), "curvature": (0.05 / largest, 1 / largest)},
        points=6,
    )
    yield fitted_preconditioner(x_context, y_context, x_query)
    yield searched(
        "online gradient descent, fitted", online_gradient_descent, real={"step": (0.02 / norm, 2 / norm)}
    )
    yield searched("nearest neighbours, fitted", nearest_neighbours, {"neighbours": (1, 2, 3, 5, 8, 13)})
    widths = (0.05 * math.sqrt(norm), 5 * math.sqrt(norm))
    yield searched("kernel smoothing, fitted", kernel_smoothing, real={"width": widths})
    yield searched(
        "softmax smoothing, fitted", softmax_smoothing, real={"sharpness": (0.05 / variance, 5 / variance)}
    )


# Tokens


def induction_head(vocabulary: int, sharpness: float) -> TokenPredictor:
    r"""What an induction head of sharpness $\beta$ puts out (`smoothed_frequencies`); infinite: raw frequencies."""

    def predictor(tokens: Tensor, prefix_length: Tensor) -> Tensor:
        return smoothed_frequencies(tokens, vocabulary, sharpness).log()

    return predictor


ORDERS = {0: "unigram", 1: "bigram", 2: "trigram", 3: "4-gram"}


def token_candidates(*, states: int, concentration: float) -> Iterator[Candidate]:
    """The closed forms of in-context Markov chains.

    Args:
        states: S.
        concentration: of the Dirichlet prior of the rows: the smoothing that is Bayes.
    """
    yield fixed("uniform", uniform_guess(states))
    for order, name in ORDERS.items():
        yield fixed(f"{name} counts, Bayes smoothing", markov_posterior(states, order, concentration))
    yield fixed("bigram frequencies, no smoothing", induction_head(states, math.inf))
    for order, name in ORDERS.items():
        yield searched(
            f"{name} counts, fitted smoothing",
            partial(markov_posterior, states, order),
            real={"concentration": (0.01, 100.0)},
        )
    yield searched(
        "bigram smoothed by unigram, fitted", partial(induction_head, states), real={"sharpness": (0.05, 30)}
    )
