r"""Every closed form as a candidate: those that the domains register, a user's own, and a few that only explain.

A registered closed form is a candidate of every task of its protocol that it can answer. What its parameters are there, or
between which limits they are fitted, stands in the tables below. A form that stands in none of them, such as a user's, has its
real parameters fitted around those of its example, its whole numbers tried from half to twice, and the others left as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lab.checks import BrokenContract, checks
from lab.contracts import Registered, all_registered, registered
from lab.diagnosis.algorithms import Algorithm, Answers, Candidate, Fixed, Predictor, Searched
from lab.domains.chains.latent_graphs import graph_posterior
from lab.domains.chains.markov import markov_posterior, smoothed_frequencies, switching_posterior, uniform_guess
from lab.domains.graphs.navigation import bayes_navigator
from lab.domains.graphs.path_star import cheat, planner
from lab.domains.regression import function_classes
from lab.domains.regression.causal_recursions import causal_recursion
from lab.domains.regression.deep_causal_laws import block_kaczmarz
from lab.domains.regression.fitted_rules import greedy_tree
from lab.domains.regression.gradient_descent import gradient_descent, gram_eigenvalues, stable_gradient_descent
from lab.domains.regression.kaczmarz import averaged_kaczmarz, kaczmarz, normalised_kaczmarz
from lab.domains.regression.least_squares import least_squares, predict, ridge, zero
from lab.domains.regression.mixtures import best_component, posterior_mean
from lab.domains.regression.optimal_steps import (
    NORMAL_KURTOSIS,
    gd_plus_plus,
    gd_plus_plus_filter,
    optimal_gradient_step,
    preconditioned_gradient_step,
)
from lab.errors import LabError, described
from lab.streams import stream

ORDERS_AVERAGED = 16  # orders of the context over which a pass of Kaczmarz steps is averaged
AROUND = 100.0  # a real parameter of an example is fitted from this part of it to this multiple
LEAST_NOISE = 0.01  # of a posterior that has none at 0
CACHED = 2**19  # numbers, 4 MB, of a table of all pairs of examples that a processor has at hand

# Regression: forms that no domain registers. `partial` with the parameters is the predictor.


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
    trajectory = causal_recursion(x_context, y_context, x_query, step=step, layers=layers)
    return trajectory.query_prediction[-1]


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
    solution = torch.linalg.lstsq(features, target.reshape(-1, 1), driver="gelsd").solution
    matrix = solution.reshape(size, size)
    return Algorithm(
        "preconditioned step, fitted",
        partial(preconditioned_step, matrix=matrix),
        {"mean eigenvalue": float(matrix.trace()) / size},
        size**2,
    )


def in_parts(form: Callable[..., Predictor]) -> Callable[..., Predictor]:
    """A closed form whose predictors are asked few prompts at a time: those that make a table of all pairs of examples and
    coordinates wait for memory where it is of all prompts.
    """

    def build(*arguments: Any, **parameters: Any) -> Predictor:
        predictor = form(*arguments, **parameters)

        def in_turn(x_context: Tensor, y_context: Tensor, x_query: Tensor) -> Tensor:
            count, examples, dimension = x_context.shape
            size = max(1, CACHED // max(1, examples**2 * dimension))
            if size >= count:
                return predictor(x_context, y_context, x_query)
            parts = zip(*(tensor.split(size) for tensor in (x_context, y_context, x_query)), strict=True)
            return torch.cat([predictor(*part) for part in parts])

        return in_turn

    return build


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


@dataclass(frozen=True)
class Law:
    """What is known of the prompts of a regression.

    Args:
        variance, kurtosis: of one coordinate of the inputs.
        noise: standard deviation of the label noise, which fixes the Bayes penalty.
        spectrum: variances of the coordinates where they differ, else empty.
        penalty: of the posterior mean of ridge regression; noise squared if left out.
        components: the weights among which each prompt has one, where there is such a set.
    """

    variance: float = 1.0
    kurtosis: float = NORMAL_KURTOSIS
    noise: float = 0.0
    spectrum: Sequence[float] = ()
    penalty: float | None = None
    components: Float[Tensor, "component dimension"] | None = None

    @property
    def bayes_penalty(self) -> float:
        """Of ridge regression; for weights of unit variance sigma^2."""
        return self.noise**2 if self.penalty is None else self.penalty


class Prompts:
    """Prompts of a law and what sets the limits of parameters on them."""

    def __init__(self, x_context: Tensor, y_context: Tensor, x_query: Tensor, law: Law) -> None:
        self.x_context, self.y_context, self.x_query, self.law = x_context, y_context, x_query, law
        values = gram_eigenvalues(x_context)
        self.largest, self.mean = float(values[:, 0].median()), float(values.mean())
        self.rates = {"step": (0.02 / self.largest, 2 / self.largest)}
        self.norm = law.variance * x_context.shape[-1]  # E |x|^2
        self.penalties = {"penalty": (1e-3 * self.mean, 1e2 * self.mean)}

    @cached_property
    def basis(self) -> Eigenbasis:
        """The prompts in the eigenbases of their Gram matrices."""
        return Eigenbasis(self.x_context, self.y_context, self.x_query)

    @cached_property
    def largest_slope(self) -> float:
        """The Lasso's penalty from which on all its weights are 0, at the median prompt."""
        return float(predict(self.y_context, self.x_context.mT).abs().amax(-1).median()) / self.x_context.shape[1]


def _averaging(prompts: Prompts) -> Iterator[Candidate]:
    plain = function_classes.averaging()  # unbiased for inputs of unit variance
    variance = prompts.law.variance

    def unbiased(*prompts: Tensor) -> Tensor:
        return plain(*prompts) / variance

    yield Fixed("averaging", unbiased, multiples=False)  # its multiples are single gradient steps


def _optimal_step(prompts: Prompts) -> Iterator[Candidate]:
    if not prompts.law.spectrum:
        step = optimal_gradient_step(prompts.law.variance, prompts.law.kurtosis, prompts.law.noise)
        yield Fixed("gradient step, optimal rate", step, multiples=False)


def _preconditioned(prompts: Prompts) -> Iterator[Candidate]:
    if prompts.law.spectrum:
        yield Fixed(
            "preconditioned step, optimal", preconditioned_gradient_step(prompts.law.spectrum, prompts.law.noise)
        )


def _ridge(prompts: Prompts) -> Iterator[Candidate]:
    penalty = prompts.law.bayes_penalty
    # At penalty 0 that is least squares itself.
    yield Fixed("ridge, Bayes penalty", ridge(penalty) if penalty else least_squares(), multiples=False)
    yield Searched("ridge, fitted penalty", ridge, real=prompts.penalties, quick=prompts.basis.ridge, multiples=True)


def _gradient_descent(prompts: Prompts) -> Iterator[Candidate]:
    basis = prompts.basis
    yield Searched(
        "gradient step, fitted rate",
        partial(gradient_descent, steps=1),
        real={
            "step": (0.02 / prompts.largest, 200 / prompts.largest)
        },  # one step has no limit beyond which it diverges
        points=12,
        quick=basis.gradient_descent,
    )
    yield Searched(
        "gradient descent, fitted",
        gradient_descent,
        {"steps": (*range(2, 11), 12, 16, 24)},
        prompts.rates,
        quick=basis.gradient_descent,
        multiples=True,
    )


def _gd_plus_plus(prompts: Prompts) -> Iterator[Candidate]:
    yield Searched(
        "GD++, fitted",
        lambda layers, step, curvature: gd_plus_plus([step] * layers, [curvature] * layers),
        {"layers": (2, 3, 4)},
        # Below the lowest curvature it would be plain gradient descent.
        {
            "step": (0.1 / prompts.largest, 4 / prompts.largest),
            "curvature": (0.05 / prompts.largest, 1 / prompts.largest),
        },
        points=5,
        quick=prompts.basis.gd_plus_plus,
    )


def _kaczmarz(prompts: Prompts) -> Iterator[Candidate]:
    yield Fixed("one-pass Kaczmarz", kaczmarz())


def _sparse(prompts: Prompts) -> Iterator[Candidate]:
    form = partial(function_classes.sparse_bayes, noise=max(prompts.law.noise, LEAST_NOISE))
    dimension = prompts.x_query.shape[-1]
    numbers = tuple(
        count
        for count in (1, 2, 3)
        if count < dimension and math.comb(dimension, count) <= function_classes.MOST_SUPPORTS
    )
    if numbers:
        yield Searched("sparse Bayes, fitted", form, {"sparsity": numbers})


def _mixture(name: str, build: Callable[[Tensor, float], Predictor]) -> Callable[[Prompts], Iterator[Candidate]]:
    def of(prompts: Prompts) -> Iterator[Candidate]:
        if prompts.law.components is not None:
            yield Fixed(name, build(prompts.law.components, prompts.law.noise))

    return of


def _one(make: Callable[[Prompts], Candidate]) -> Callable[[Prompts], Iterator[Candidate]]:
    return lambda prompts: iter((make(prompts),))


REGRESSION: Mapping[Callable[..., Any], Callable[[Prompts], Iterable[Candidate]]] = {
    zero: _one(lambda prompts: Fixed("zero", zero(), multiples=False)),
    function_classes.averaging: _averaging,
    preconditioned_gradient_step: _preconditioned,
    optimal_gradient_step: _optimal_step,
    least_squares: _one(lambda prompts: Fixed("least squares", least_squares())),
    ridge: _ridge,
    kaczmarz: _kaczmarz,
    normalised_kaczmarz: _one(lambda prompts: Fixed("normalised Kaczmarz", normalised_kaczmarz())),
    averaged_kaczmarz: _one(
        lambda prompts: Fixed(
            f"Kaczmarz averaged over {ORDERS_AVERAGED} orders", averaged_kaczmarz(ORDERS_AVERAGED, stream(0, "orders"))
        )
    ),
    block_kaczmarz: _one(lambda prompts: Searched("block Kaczmarz, fitted", block_kaczmarz, {"block": (2, 3, 4)})),
    gradient_descent: _gradient_descent,
    stable_gradient_descent: lambda prompts: (),  # the same answers, or none
    gd_plus_plus: _gd_plus_plus,
    function_classes.nearest_neighbours: _one(
        lambda prompts: Searched(
            "nearest neighbours, fitted", function_classes.nearest_neighbours, {"neighbours": (1, 2, 3, 5, 8, 13)}
        )
    ),
    function_classes.lasso: _one(
        lambda prompts: Searched(
            "Lasso, fitted penalty",
            function_classes.lasso,
            real={"penalty": (0.01 * prompts.largest_slope, 0.9 * prompts.largest_slope)},
            points=5,
        )
    ),
    function_classes.sparse_bayes: _sparse,
    function_classes.arc_cosine: _one(
        lambda prompts: Fixed("arc-cosine kernel", in_parts(function_classes.arc_cosine)())
    ),
    function_classes.tree_average: _one(
        lambda prompts: Searched("average of trees, fitted", function_classes.tree_average, {"depth": (1, 2, 3, 4)})
    ),
    greedy_tree: _one(lambda prompts: Searched("greedy tree, fitted", in_parts(greedy_tree), {"depth": (1, 2, 3)})),
    posterior_mean: _mixture("posterior mean over the components", posterior_mean),
    best_component: _mixture("best component", lambda components, noise: best_component(components)),
}


def regression_candidates(
    x_context: Tensor, y_context: Tensor, x_query: Tensor, law: Law, user_candidates: Sequence[Candidate] = ()
) -> Iterator[Candidate]:
    """The closed forms of in-context regression.

    Args:
        x_context, y_context, x_query: the prompts on which parameters are fitted; they also set their limits.
        law: of the prompts; weights are N(0, I) where nothing else is known.
        user_candidates: a user's own.
    """
    prompts = Prompts(x_context, y_context, x_query, law)
    for candidates in REGRESSION.values():
        yield from candidates(prompts)
    yield partial(fitted_preconditioner, x_context, y_context, x_query)
    for name, form, integer, real in (
        ("causal descent, fitted", causal_descent, {"layers": (2, 3, 4, 5, 6, 8, 12)}, prompts.rates),
        (
            "online gradient descent, fitted",
            online_gradient_descent,
            {},
            {"step": (0.02 / prompts.norm, 2 / prompts.norm)},
        ),
        ("kernel smoothing, fitted", kernel_smoothing, {}, {"width": _around(math.sqrt(prompts.norm))}),
        ("softmax smoothing, fitted", softmax_smoothing, {}, {"sharpness": _around(1 / law.variance)}),
    ):
        yield Searched(name, partial(partial, form), integer, real)
    yield from unlisted("regression", REGRESSION)
    yield from user_candidates


def _around(value: float) -> tuple[float, float]:
    return 0.05 * value, 5 * value


# Registered forms that stand in no table, and a user's own


def unlisted(kind: str, table: Mapping[Callable[..., Any], Any], **sizes: int) -> Iterator[Candidate]:
    """Candidates of what the domains register and no table knows."""
    for form in all_registered():
        if form.kind == kind and form.part not in table:
            yield partial(_if_it_fits, by_example(form, **sizes))


def _if_it_fits(candidate: Candidate, target: Tensor, answers: Answers) -> Algorithm:
    """A candidate whose example may be made for prompts of another kind, which is no fault of it."""
    try:
        algorithm = candidate(target, answers)
        answers(algorithm.predictor, None)
    except Exception as error:
        raise LabError("it answers no prompts of these sizes") from error
    return algorithm


def by_example(form: Registered, **sizes: int) -> Fixed | Searched:
    """A registered form with its real parameters fitted around its example, and its whole numbers tried from half to twice.

    Args:
        sizes: parameters that the task sets, such as the vocabulary.
    """
    example = {name: value for name, value in form.example.items() if name != "length"} | sizes
    integer, real = {}, {}
    for name, value in example.items():
        if name in sizes or isinstance(value, bool):
            continue
        if isinstance(value, int) and value > 0:
            integer[name] = tuple(sorted({max(1, value // 2), value, value + 1, 2 * value}))
        elif isinstance(value, float) and value > 0 and math.isfinite(value):
            real[name] = (value / AROUND, value * AROUND)
    name = form.part.__name__.replace("_", " ")
    kept = {key: value for key, value in example.items() if key not in integer and key not in real}
    build = partial(form.part, **kept)
    return Searched(f"{name}, fitted", build, integer, real) if integer or real else Fixed(name, build())


@dataclass(frozen=True)
class UserFile:
    """Closed forms of a user's file: what it registers, and the predictors in its ``CANDIDATES``, by name.

    Args:
        file: where they stand.
        forms: registered ones.
        predictors: others, ready to be asked.
    """

    file: Path
    forms: tuple[Registered, ...] = ()
    predictors: Mapping[str, Predictor] = field(default_factory=dict)

    @classmethod
    def of(cls, module: ModuleType, file: Path) -> UserFile:
        """What a file offers, its registered forms checked.

        Raises:
            LabError: it offers nothing, ``CANDIDATES`` is no mapping of names to predictors, or a form breaks its contract.
        """
        named = getattr(module, "CANDIDATES", {})
        if not isinstance(named, Mapping) or not all(
            isinstance(name, str) and callable(predictor) for name, predictor in named.items()
        ):
            raise LabError(f"CANDIDATES in {file.name} must map names to predictors; give a dictionary of functions")
        forms = tuple(form for form in registered(module) if form.kind in ("regression", "tokens"))
        if not forms and not named:
            raise LabError(
                f"{file.name} offers no candidate; register one with @regression_predictor(...) or @token_predictor(...), or "
                'write CANDIDATES = {"name": predictor}'
            )
        for form in forms:
            _require_contract(form, file)
        return cls(file, forms, named)

    def candidates(self, kind: str, **sizes: int) -> list[Candidate]:
        """Those of a protocol, "regression" or "tokens", whose mistakes are named."""
        registered_forms = [by_example(form, **sizes) for form in self.forms if form.kind == kind]
        ready = [Fixed(name, predictor) for name, predictor in self.predictors.items()]
        named = (
            replace(candidate, name=f"{candidate.name} of {self.file.name}")
            for candidate in (*registered_forms, *ready)
        )
        return [Tried(candidate, self.file) for candidate in named]


class Mistake(LabError):
    """A candidate of a user's file that cannot answer."""


@dataclass(frozen=True)
class Tried:
    """A candidate of a user's file, whose mistakes are named."""

    candidate: Fixed | Searched
    file: Path
    multiples: bool = True

    def __call__(self, target: Tensor, answers: Answers) -> Algorithm:
        """The candidate, fitted.

        Raises:
            Mistake: it cannot answer.
        """
        about = f"the candidate {self.candidate.name!r} cannot answer these prompts"
        try:
            algorithm = self.candidate(target, answers)
            returned = answers(algorithm.predictor, None)
        except Exception as error:
            raise Mistake(f"{about}: {described(error, self.file)}") from error
        if not isinstance(returned, Tensor) or returned.shape != target.shape:
            raise Mistake(f"{about}: it returned {list(getattr(returned, 'shape', ()))}, not {list(target.shape)}")
        return algorithm


def _require_contract(form: Registered, file: Path) -> None:
    name = form.part.__name__
    try:
        for check in checks(form):
            check.run()
    except BrokenContract as broken:
        raise LabError(f"the candidate {name} of {file.name} does not keep its contract: {broken}; mend it") from broken
    except LabError:
        raise
    except Exception as error:
        raise LabError(f"the candidate {name} cannot be checked on its example: {described(error, file)}") from error


# Tokens


def induction_head(tokens: Tensor, prefix_length: Tensor, *, vocabulary: int, sharpness: float) -> Tensor:
    r"""What an induction head of sharpness $\beta$ puts out (`smoothed_frequencies`); infinite: raw frequencies."""
    return smoothed_frequencies(tokens, vocabulary, sharpness).log()


ORDERS = {0: "unigram", 1: "bigram", 2: "trigram", 3: "4-gram"}


def count_candidates(*, states: int, concentration: float) -> Iterator[Candidate]:
    """Counts of what followed what, of every order (`markov_posterior`), and what a head makes of them.

    Args:
        states: S.
        concentration: of the Dirichlet prior of the rows: the smoothing that is Bayes.
    """
    yield Fixed("uniform", uniform_guess(states))
    for order, name in ORDERS.items():
        yield Fixed(f"{name} counts, Bayes smoothing", markov_posterior(states, order, concentration))
    yield Fixed("bigram frequencies, no smoothing", partial(induction_head, vocabulary=states, sharpness=math.inf))
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


# Those that the settings name themselves, each where its prompts are.
TOKENS: frozenset[Callable[..., Any]] = frozenset(
    (markov_posterior, uniform_guess, switching_posterior, graph_posterior, bayes_navigator, cheat, planner)
)


def token_forms(vocabulary: int, user_candidates: Sequence[Candidate]) -> Iterator[Candidate]:
    """Registered token predictors that no setting names, and a user's own."""
    yield from unlisted("tokens", dict.fromkeys(TOKENS), vocabulary=vocabulary)
    yield from user_candidates
