r"""How a closed form becomes an explanation: its free parameters are fitted to the answers that it is to explain.

A *candidate* makes an `Algorithm` out of the answers. Most closed forms are fixed. Some have free parameters (a ridge
penalty, the number and the rate of gradient steps, a factor): they are set so that the mean `distance` on the prompts at
hand is least, which says nothing yet; the comparison judges them on other prompts.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy import optimize
from torch import Tensor

Predictor = Callable[..., Tensor]
# A predictor and a number k to its answers to the first k of the prompts at hand (None: to all).
Answers = Callable[[Predictor, int | None], Float[Tensor, "prompt number"]]
# Distances below are those of float32 rounding and of fitted parameters, 1e-4 of the answers' size, squared.
RESOLUTION = 1e-8
FEW_PROMPTS = 32  # on which all combinations of whole numbers are tried
CHOOSING_PROMPTS = 64  # on which whole numbers alone are chosen: two that these do not tell apart explain equally well
STARTS = 3  # points of the grid from which each combination is tried, for each real parameter beyond the first
REFINED = 3  # combinations, the best so far, that are then fitted on all prompts
# Relative accuracy of a real parameter, first and at last. Where inputs are large an error is amplified, in GD++ by
# orders of magnitude, and yet its square must stay below the resolution.
ROUGH, FINE = 1e-3, 1e-8
GAIN = 0.1  # share by which a multiple must lower the loss to be named beside the algorithm itself


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
    relative = torch.where(first == second, 0.0, (first - second) / largest.sqrt())
    return torch.where(torch.isfinite(largest), relative, 1 / math.sqrt(first.shape[-1]))


def distance(first: Float[Tensor, "prompt number"], second: Float[Tensor, "prompt number"]) -> Float[Tensor, " prompt"]:
    r"""$|f - g|^2 / \max(|f|^2, |g|^2)$ for each prompt, over all numbers of its answer.

    0 if the answers are equal, 1 if one of them is 0, at most 4; close to the relative squared error where it is
    small. Bounded for each prompt, so that no single prompt decides a mean. An answer that has overflowed counts as 1;
    a difference below `RESOLUTION` times the median answer, of whichever predictor answers less, is rounding.
    """
    return difference(first, second).square().sum(-1)


@dataclass(frozen=True)
class Fixed:
    """A closed form that has nothing to fit.

    Args:
        name: of the closed form.
        predictor: what it answers.
        multiples: whether they are a family of their own, and not one that is there under another name.
    """

    name: str
    predictor: Predictor
    multiples: bool = True

    def __call__(self, target: Float[Tensor, "prompt number"], answers: Answers) -> Algorithm:
        """The closed form itself."""
        return Algorithm(self.name, self.predictor)


def scaled(predictor: Predictor, factor: float) -> Predictor:
    """The predictor that answers ``factor`` times as much."""
    return lambda *inputs: factor * predictor(*inputs)


def best_factor(predictions: Float[Tensor, "prompt number"], target: Float[Tensor, "prompt number"]) -> float:
    """The c that brings c times ``predictions`` nearest to ``target``, each prompt in units of its own answer; 0 if there is none."""
    weight = 1 / target.square().sum(-1).clamp_min(RESOLUTION * float(target.square().sum(-1).median()) or 1.0)
    size = float((predictions.square().sum(-1) * weight).sum())
    factor = float(((predictions * target).sum(-1) * weight).sum()) / size if size > 0 else 0.0
    return factor if math.isfinite(factor) else 0.0


@dataclass(frozen=True)
class Searched:
    """A closed form whose parameters are fitted: a grid first, then least squares in the logarithms of the real ones.

    Args:
        name: of the closed form.
        build: the parameters, by name, to a predictor.
        integer: whole-numbered parameters and their choices.
        real: positive parameters and the limits between which they are sought.
        points: of the grid, for each real parameter.
        quick: a number k and the parameters to what the predictor answers to the first k of the prompts at hand (None:
            to all), where there is a quicker way than to build it.
        multiples: whether they are a family of their own.
        factor: whether the answers are multiplied by one, the best for any other parameters.
    """

    name: str
    build: Callable[..., Predictor]
    integer: Mapping[str, Sequence[int]] = field(default_factory=dict)
    real: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    points: int = 8
    quick: Callable[..., Tensor] | None = None
    multiples: bool = False
    factor: bool = False

    def __call__(self, target: Float[Tensor, "prompt number"], answers: Answers) -> Algorithm:
        """The closed form with the parameters that bring it nearest to ``target``."""
        residuals = partial(self._residuals, target, answers)
        if not self.real:
            choices = list(itertools.product(*self.integer.values()))
            return self._found(
                target,
                answers,
                min(choices, key=lambda choice: _loss(partial(residuals, choice, CHOOSING_PROMPTS), ())),
                (),
            )
        few = []
        for choice in itertools.product(*self.integer.values()):
            on_few = partial(residuals, choice, FEW_PROMPTS)
            grid = itertools.product(*map(self._grid, self.real.values()))
            starts = heapq.nsmallest(STARTS ** max(len(self.real) - 1, 0), grid, key=partial(_loss, on_few))
            few.append((*min(_refined(on_few, start, ROUGH) for start in starts), choice))
        every = [
            (*_refined(partial(residuals, choice, None), start, FINE), choice)
            for _, start, choice in sorted(few)[:REFINED]
        ]
        _, at, chosen = min(every)
        return self._found(target, answers, chosen, at)

    def _found(self, target: Tensor, answers: Answers, chosen: tuple[int, ...], at: Iterable[float]) -> Algorithm:
        parameters = self._parameters(chosen, at)
        predictor = self.build(**parameters)
        if not self.factor:
            return Algorithm(self.name, predictor, parameters, len(parameters))
        factor = best_factor(answers(predictor, None), target)
        return Algorithm(self.name, scaled(predictor, factor), {"factor": factor, **parameters}, len(parameters) + 1)

    def _grid(self, limits: tuple[float, float]) -> list[float]:
        """The middles of equal cells between the limits, in logarithms: at the limits themselves nothing is felt."""
        low, high = np.log(limits)
        return (low + (high - low) * (np.arange(self.points) + 0.5) / self.points).tolist()

    def _parameters(self, choice: tuple[int, ...], logs: Iterable[float]) -> dict[str, Any]:
        inside = [
            float(np.exp(np.clip(log, *np.log(limits)))) for log, limits in zip(logs, self.real.values(), strict=True)
        ]
        return dict(zip((*self.integer, *self.real), (*choice, *inside), strict=True))

    def _residuals(
        self, target: Tensor, answers: Answers, choice: tuple[int, ...], prompts: int | None, logs: Iterable[float]
    ) -> np.ndarray:
        parameters = self._parameters(choice, logs)
        predictions = self.quick(prompts, **parameters) if self.quick else answers(self.build(**parameters), prompts)
        if self.factor:
            predictions = best_factor(predictions, target[:prompts]) * predictions
        return difference(predictions, target[:prompts]).flatten().numpy()


def multiple(
    candidate: Candidate, algorithm: Algorithm, target: Float[Tensor, "prompt number"], answers: Answers
) -> Algorithm | None:
    """The multiple of a candidate nearest to ``target``; None unless it is nearer than ``algorithm`` by a share of `GAIN` at least.

    Args:
        candidate: what ``algorithm`` was made of; if it was searched, its parameters are fitted anew beside the factor.
        algorithm: the candidate itself, fitted to ``target``. Where it is at rounding there is nothing to gain.
    """
    predictions = answers(algorithm.predictor, None)
    loss = float(distance(predictions, target).mean())
    if loss <= RESOLUTION:
        return None
    if isinstance(candidate, Searched):
        multiplied = replace(candidate, name=f"multiple of {algorithm.name}", factor=True)(target, answers)
    else:

        def residuals(factor: Any) -> np.ndarray:
            return difference(float(np.ravel(factor)[0]) * predictions, target).flatten().numpy()

        _, (factor,) = _refined(residuals, (best_factor(predictions, target),), FINE)
        fitted = {"factor": factor, **algorithm.fitted}
        multiplied = Algorithm(
            f"multiple of {algorithm.name}", scaled(algorithm.predictor, factor), fitted, algorithm.freedom + 1
        )
    reached = float(distance(answers(multiplied.predictor, None), target).mean())
    return multiplied if multiplied.fitted["factor"] != 0 and reached <= (1 - GAIN) * loss else None


def _loss(residuals: Callable[[Any], np.ndarray], at: Any) -> float:
    residual = residuals(at)
    return float(residual @ residual)


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
