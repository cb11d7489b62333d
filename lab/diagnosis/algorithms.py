r"""What a predictor may be doing: every closed form of its protocol, with its free parameters fitted.

A *candidate* makes an `Algorithm` out of the answers to be explained. Most closed forms are fixed. Some have free
parameters (a ridge penalty, the number and the rate of gradient steps): they are set so that the mean `distance` on the
prompts at hand is least, which says nothing yet; the comparison judges them on other prompts.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy import optimize
from torch import Tensor

from lab.domains.chains.markov import markov_posterior, smoothed_frequencies, uniform_guess
from lab.domains.regression.causal_recursions import causal_recursion
from lab.domains.regression.gradient_descent import gradient_descent, gram_eigenvalues
from lab.domains.regression.kaczmarz import kaczmarz, normalised_kaczmarz
from lab.domains.regression.least_squares import least_squares, predict, ridge, zero
from lab.domains.regression.optimal_steps import (
    gd_plus_plus,
    gd_plus_plus_filter,
    optimal_gradient_step,
    preconditioned_gradient_step,
)

Predictor = Callable[..., Tensor]
# A predictor and a number k to its answers to the first k of the prompts at hand (None: to all).
Answers = Callable[[Predictor, int | None], Float[Tensor, "prompt number"]]
# Distances below are those of float32 rounding and of fitted parameters, 1e-4 of the answers' size, squared.
RESOLUTION = 1e-8
FEW_PROMPTS = 32  # on which all combinations of whole numbers are tried
STARTS = 3  # points of the grid from which each combination is tried, for each real parameter beyond the first
REFINED = 3  # combinations, the best so far, that are then fitted on all prompts
# Relative accuracy of a real parameter, first and at last. Where inputs are large an error is amplified, in GD++ by
# orders of magnitude, and yet its square must stay below the resolution.
ROUGH, FINE = 1e-3, 1e-8


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


def difference(
    first: Float[Tensor, "prompt number"], second: Float[Tensor, "prompt number"]
) -> Float[Tensor, "prompt number"]:
    r"""$(f - g) / \max(|f|, |g|)$ for each prompt, whose squares sum to the `distance`."""
    sizes = first.square().sum(-1), second.square().sum(-1)
    floor = RESOLUTION * torch.minimum(*(size.median() for size in sizes))
    largest = torch.maximum(torch.maximum(*sizes), floor)[:, None]
    found = torch.where(first == second, 0.0, (first - second) / largest.sqrt())
    return torch.where(torch.isfinite(largest), found, 1 / math.sqrt(first.shape[-1]))


def distance(first: Float[Tensor, "prompt number"], second: Float[Tensor, "prompt number"]) -> Float[Tensor, " prompt"]:
    r"""$|f - g|^2 / \max(|f|^2, |g|^2)$ for each prompt, over all numbers of its answer.

    0 if the answers are equal, 1 if one of them is 0, at most 4; close to the relative squared error where it is
    small. Bounded for each prompt, so that no single prompt decides a mean. An answer that has overflowed counts as 1;
    a difference below `RESOLUTION` times the median answer, of whichever predictor answers less, is rounding.
    """
    return difference(first, second).square().sum(-1)


def fixed(name: str, predictor: Predictor) -> Candidate:
    """A closed form that has nothing to fit."""
    return lambda target, answers: Algorithm(name, predictor)


@dataclass(frozen=True)
class Searched:
    """A closed form whose parameters are fitted: a grid first, then least squares in the logarithms of the real ones.

    Args:
        name: of the closed form.
        build: the parameters, by name, to a predictor.
        whole: whole-numbered parameters and their choices.
        real: positive parameters and the limits between which they are sought.
        points: of the grid, for each real parameter.
        quick: a number k and the parameters to what the predictor answers to the first k of the prompts at hand (None:
            to all), where there is a quicker way than to build it.
    """

    name: str
    build: Callable[..., Predictor]
    whole: Mapping[str, Sequence[int]] = field(default_factory=dict)
    real: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    points: int = 8
    quick: Callable[..., Tensor] | None = None

    def __call__(self, target: Float[Tensor, "prompt number"], answers: Answers) -> Algorithm:
        """The closed form with the parameters that bring it nearest to ``target``."""
        residuals = partial(self._residuals, target, answers)
        few = []
        for choice in itertools.product(*self.whole.values()):
            on_few = partial(residuals, choice, FEW_PROMPTS)
            grid = itertools.product(*map(self._grid, self.real.values()))
            starts = heapq.nsmallest(STARTS ** max(len(self.real) - 1, 0), grid, key=partial(_loss, on_few))
            few.append((*min(_refined(on_few, start, ROUGH) for start in starts), choice))
        every = [
            (*_refined(partial(residuals, choice, None), start, FINE), choice)
            for _, start, choice in sorted(few)[:REFINED]
        ]
        _, at, chosen = min(every)
        found = self._parameters(chosen, at)
        return Algorithm(self.name, self.build(**found), found, len(found))

    def _grid(self, limits: tuple[float, float]) -> list[float]:
        """The middles of equal cells between the limits, in logarithms: at the limits themselves nothing is felt."""
        low, high = np.log(limits)
        return (low + (high - low) * (np.arange(self.points) + 0.5) / self.points).tolist()

    def _parameters(self, choice: tuple[int, ...], logs: Iterable[float]) -> dict[str, Any]:
        inside = [
            float(np.exp(np.clip(log, *np.log(limits)))) for log, limits in zip(logs, self.real.values(), strict=True)
        ]
        return dict(zip((*self.whole, *self.real), (*choice, *inside), strict=True))

    def _residuals(
        self, target: Tensor, answers: Answers, choice: tuple[int, ...], prompts: int | None, logs: Iterable[float]
    ) -> np.ndarray:
        found = self._parameters(choice, logs)
        theirs = self.quick(prompts, **found) if self.quick else answers(self.build(**found), prompts)
        return difference(theirs, target[:prompts]).flatten().numpy()


def _loss(residuals: Callable[[Any], np.ndarray], at: Any) -> float:
    found = residuals(at)
    return float(found @ found)


def _refined(
    residuals: Callable[[Any], np.ndarray], start: tuple[float, ...], accuracy: float
) -> tuple[float, tuple[float, ...]]:
    """The least sum of squares near ``start`` (Levenberg-Marquardt), and where it is."""
    if not start:
        return _loss(residuals, start), start
    at, _, facts, *_ = optimize.leastsq(
        residuals, start, full_output=True, xtol=accuracy, ftol=accuracy, gtol=accuracy, maxfev=200
    )
    return float(facts["fvec"] @ facts["fvec"]), tuple(at.tolist())


# Regression


# Of prompts and parameters; `partial` with the parameters is the predictor.


def averaging(x_context: Tensor, y_context: Tensor, x_query: Tensor, *, variance: float) -> Tensor:
    r"""$\hat y_q = \frac{1}{n v} \sum_j y_j\, x_j \cdot x_q$, unbiased for inputs of variance v a coordinate."""
    return predict(predict(y_context, x_context.mT), x_query) / (x_context.shape[1] * variance)


def preconditioned_step(
    x_context: Tensor, y_context: Tensor, x_query: Tensor, *, matrix: Float[Tensor, "dimension dimension"]
) -> Tensor:
    r"""$\hat y_q = \sum_j y_j\, x_j^\top W x_q$ with one matrix W for all prompts: any layer of linear attention without bias."""
    return predict(predict(y_context, x_context.mT) @ matrix, x_query)


def online_gradient_descent(x_context: Tensor, y_context: Tensor, x_query: Tensor, *, step: float) -> Tensor:
    r"""One pass of $w \leftarrow w + s (y_j - w \cdot x_j)\, x_j$, as $w = \sum_j a_j x_j$ with $(I + s L)\, a = s y$.

    L is the Gram matrix below its diagonal.
    """
    lower = step * (x_context @ x_context.mT).tril(-1)
    unit = torch.eye(x_context.shape[1], dtype=x_context.dtype, device=x_context.device)
    right = step * y_context[..., None]
    coefficients = torch.linalg.solve_triangular(unit + lower, right, upper=False)[..., 0]
    return predict(predict(coefficients, x_context.mT), x_query)


def causal_descent(x_context: Tensor, y_context: Tensor, x_query: Tensor, *, layers: int, step: float) -> Tensor:
    """The answers of ``layers`` layers of linear attention under a causal mask (`causal_recursion`)."""
    found = causal_recursion(x_context, y_context, x_query, step=step, layers=layers)
    return found.query_prediction[-1]


def nearest_neighbours(x_context: Tensor, y_context: Tensor, x_query: Tensor, *, neighbours: int) -> Tensor:
    """The mean label of the k nearest examples, of all where there are fewer."""
    count = min(neighbours, x_context.shape[1])
    near = torch.cdist(x_query, x_context).topk(count, dim=-1, largest=False).indices
    labels = y_context[:, None].expand(-1, x_query.shape[1], -1)
    return labels.gather(-1, near).mean(-1)


def kernel_smoothing(x_context: Tensor, y_context: Tensor, x_query: Tensor, *, width: float) -> Tensor:
    r"""$\sum_j y_j\, \mathrm{softmax}_j(-|x_q - x_j|^2 / 2 h^2)$ (Nadaraya-Watson)."""
    scores = -torch.cdist(x_query, x_context).square() / (2 * width**2)
    return predict(y_context, scores.softmax(-1))


def softmax_smoothing(x_context: Tensor, y_context: Tensor, x_query: Tensor, *, sharpness: float) -> Tensor:
    r"""$\sum_j y_j\, \mathrm{softmax}_j(\beta\, x_q \cdot x_j)$: one head of softmax attention."""
    return predict(y_context, (sharpness * x_query @ x_context.mT).softmax(-1))


def fitted_preconditioner(
    x_context: Tensor, y_context: Tensor, x_query: Tensor, target: Tensor, answers: Answers
) -> Algorithm:
    """`preconditioned_step` with the matrix that explains the answers best in squared error; a candidate of the prompts."""
    moment = predict(y_context, x_context.mT)
    features = (moment[:, None, :, None] * x_query[:, :, None, :]).flatten(2).flatten(0, 1)
    size = x_query.shape[-1]
    found = torch.linalg.lstsq(features, target.reshape(-1, 1), driver="gelsd").solution
    matrix = found.reshape(size, size)
    return Algorithm(
        "preconditioned step, fitted",
        partial(preconditioned_step, matrix=matrix),
        {"mean eigenvalue": float(matrix.trace()) / size},
        size**2,
    )


class Eigenbasis:
    r"""Prompts in the eigenbasis of each Gram matrix $X^\top X = U \Lambda U^\top$, where filters of it are quick to answer.

    A filter g answers $x_q^\top U g(\Lambda) U^\top X^\top y$; every optimiser that treats the context as a set is one.
    """

    def __init__(self, x_context: Tensor, y_context: Tensor, x_query: Tensor) -> None:
        # Of X itself: eigenvectors of its Gram matrix are lost along eigenvalues below rounding, where a small penalty counts.
        left, singular, right = torch.linalg.svd(x_context, full_matrices=False)
        rounding = torch.finfo(singular.dtype).eps
        smallest = max(x_context.shape[-2:]) * rounding * singular[:, :1]
        # Nothing of the context lies along an eigenvalue of 0, and a filter may divide by it.
        self.exact = singular.square()
        self.values = self.exact.clamp_min(rounding * float(self.exact.max()))
        moments = torch.where(singular > smallest, singular * predict(y_context, left.mT), 0.0)
        self.parts = (x_query @ right.mT) * moments[:, None]

    def answers(self, prompts: int | None, gain: Tensor) -> Tensor:
        """Of the filter whose values at the eigenvalues are ``gain``."""
        return predict(gain[:prompts], self.parts[:prompts])

    def ridge(self, prompts: int | None, *, penalty: float) -> Tensor:
        """As `lab.domains.regression.least_squares.ridge`."""
        return self.answers(prompts, 1 / (self.exact + penalty))

    def gradient_descent(self, prompts: int | None, *, step: float, steps: int = 1) -> Tensor:
        """As `lab.domains.regression.gradient_descent.gradient_descent`."""
        return self.answers(prompts, (1 - (1 - step * self.values) ** steps) / self.values)

    def gd_plus_plus(self, prompts: int | None, *, layers: int, step: float, curvature: float) -> Tensor:
        """As `lab.domains.regression.optimal_steps.gd_plus_plus` with equal layers."""
        left = gd_plus_plus_filter(self.values[:prompts], [step] * layers, [curvature] * layers)[-1]
        return self.answers(prompts, (1 - left) / self.values[:prompts])


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
    yield fixed("averaging", partial(averaging, variance=variance))
    if spectrum:
        yield fixed("preconditioned step, optimal", preconditioned_gradient_step(spectrum, noise))
    else:
        yield fixed("gradient step, optimal rate", optimal_gradient_step(variance, kurtosis, noise))
    yield fixed("least squares", least_squares())
    # The penalty of the posterior mean is sigma^2; at 0 that is least squares itself.
    yield fixed("ridge, Bayes penalty", ridge(noise**2) if noise else least_squares())
    yield fixed("one-pass Kaczmarz", kaczmarz())
    yield fixed("shrunken Kaczmarz (place j divides by j)", normalised_kaczmarz())
    basis = Eigenbasis(x_context, y_context, x_query)
    yield Searched(
        "gradient step, fitted rate",
        partial(gradient_descent, steps=1),
        real={"step": (0.02 / largest, 200 / largest)},  # one step has no limit beyond which it diverges
        points=12,
        quick=basis.gradient_descent,
    )
    yield Searched("ridge, fitted penalty", ridge, real={"penalty": (1e-3 * mean, 1e2 * mean)}, quick=basis.ridge)
    yield Searched(
        "gradient descent, fitted",
        gradient_descent,
        {"steps": (*range(2, 11), 12, 16, 24)},
        rates,
        quick=basis.gradient_descent,
    )
    yield Searched(
        "causal descent, fitted", partial(partial, causal_descent), {"layers": (2, 3, 4, 5, 6, 8, 12)}, rates
    )
    yield Searched(
        "GD++, fitted",
        lambda layers, step, curvature: gd_plus_plus([step] * layers, [curvature] * layers),
        {"layers": (2, 3, 4)},
        # Below the lowest curvature it would be plain gradient descent.
        {"step": (0.1 / largest, 4 / largest), "curvature": (0.05 / largest, 1 / largest)},
        points=5,
        quick=basis.gd_plus_plus,
    )
    yield partial(fitted_preconditioner, x_context, y_context, x_query)
    yield Searched(
        "online gradient descent, fitted",
        partial(partial, online_gradient_descent),
        real={"step": (0.02 / norm, 2 / norm)},
    )
    yield Searched(
        "nearest neighbours, fitted", partial(partial, nearest_neighbours), {"neighbours": (1, 2, 3, 5, 8, 13)}
    )
    widths = (0.05 * math.sqrt(norm), 5 * math.sqrt(norm))
    yield Searched("kernel smoothing, fitted", partial(partial, kernel_smoothing), real={"width": widths})
    yield Searched(
        "softmax smoothing, fitted",
        partial(partial, softmax_smoothing),
        real={"sharpness": (0.05 / variance, 5 / variance)},
    )


# Tokens


def induction_head(tokens: Tensor, prefix_length: Tensor, *, vocabulary: int, sharpness: float) -> Tensor:
    r"""What an induction head of sharpness $\beta$ puts out (`smoothed_frequencies`); infinite: raw frequencies."""
    return smoothed_frequencies(tokens, vocabulary, sharpness).log()


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
    yield fixed("bigram frequencies, no smoothing", partial(induction_head, vocabulary=states, sharpness=math.inf))
    for order, name in ORDERS.items():
        yield Searched(
            f"{name} counts, fitted smoothing",
            partial(markov_posterior, states, order),
            real={"concentration": (0.01, 100.0)},
        )
    yield Searched(
        "bigram smoothed by unigram, fitted",
        partial(partial, induction_head, vocabulary=states),
        real={"sharpness": (0.05, 30)},
    )
