"""The prompts on which a predictor is diagnosed: one class for each protocol.

A setting draws prompts, asks a predictor and writes its answer as numbers that are 0 for the predictor that knows
nothing, names the closed forms that may explain them, and changes the prompts in ways in which algorithms differ. A
task's file offers its prompts by holding a setting at its top level.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lab.catalogue import discover, find_parts
from lab.checks import Check, regression_predictor_checks, token_predictor_checks
from lab.diagnosis.algorithms import Candidate, Predictor, regression_candidates, token_candidates
from lab.domains.chains.markov import true_law
from lab.domains.chains.markov_prompts import (
    MarkovSequences,
    dirichlet_chains,
    doubly_stochastic_chains,
    unigram_chains,
)
from lab.domains.regression.optimal_steps import NORMAL_KURTOSIS, UNIFORM_KURTOSIS
from lab.domains.regression.prompts import RegressionPrompts, linear_regression, permute_context, random_orders
from lab.errors import LabError, nearest
from lab.evaluation import as_regression_predictor, as_token_predictor, kullback_leibler, last_coordinate
from lab.models import masks
from lab.models.checkpoint import StoredModel
from lab.streams import RandomStream

# Inputs are moved by this share of their spread: the error is of its square, and float32 rounding stays below it.
DIFFERENCE = 1e-3
DIRECTIONS = 64  # random directions in which the context is moved
MOVED_PROMPTS = 16  # prompts whose inputs are moved
ROUNDING = 1e-6  # of a probability in float32

Answer = Float[Tensor, "prompt number"]


@dataclass(frozen=True)
class Regression:
    """In-context linear regression (`lab.domains.regression.prompts.linear_regression`); the answers are the predictions."""

    dimension: int = 5
    """of the inputs"""
    context_length: int = 10
    """examples of a prompt"""
    queries: int = 4
    """queries of a prompt"""
    inputs: Literal["normal", "uniform"] = "normal"
    """law of the inputs: normal of unit variance, or uniform"""
    half_width: float = 1.0
    """half the side of the cube of uniform inputs"""
    spectrum: tuple[float, ...] = ()
    """variances of the coordinates of normal inputs, if they differ"""
    noise: float = 0.5
    """standard deviation of the noise on the labels of the context"""

    arguments = ("x_context", "y_context", "x_query")
    error_unit = "squared error"
    log_answers = False

    def sample(self, source: RandomStream, batch: int) -> RegressionPrompts:
        """Fresh prompts."""
        return linear_regression(
            source,
            batch,
            dimension=self.dimension,
            context_length=self.context_length,
            query_length=self.queries,
            inputs=self.inputs,
            half_width=self.half_width,
            spectrum=self.spectrum,
            noise=self.noise,
        )

    def given(self, prompts: RegressionPrompts) -> tuple[Tensor, Tensor, Tensor]:
        """What a predictor is handed."""
        return prompts.x_context, prompts.y_context, prompts.x_query

    def shape(self, x_context: Tensor, y_context: Tensor, x_query: Tensor) -> tuple[int, ...]:
        """Shape of an answer."""
        return tuple(x_query.shape[:2])

    def answers(self, predictor: Predictor, prompts: RegressionPrompts) -> Answer:
        """The predictions at all queries of each prompt."""
        return predictor(*self.given(prompts))

    def errors(self, answers: Answer, prompts: RegressionPrompts) -> Float[Tensor, " prompt"]:
        """Squared error against the clean labels, mean over the queries."""
        return (answers - prompts.y_query).square().mean(-1)

    def checks(self, predictor: Any) -> Iterator[Check]:
        """The contract of the protocol, at the sizes of this setting."""
        return regression_predictor_checks(predictor, self.dimension, self.context_length)

    def candidates(self, prompts: RegressionPrompts) -> Iterator[Candidate]:
        """The closed forms, to be fitted on ``prompts``."""
        normal = self.inputs == "normal"
        return regression_candidates(
            *self.given(prompts),
            variance=float(np.mean(self.spectrum or (1.0,))) if normal else self.half_width**2 / 3,
            kurtosis=NORMAL_KURTOSIS if normal else UNIFORM_KURTOSIS,
            spectrum=self.spectrum,
            noise=self.noise,
        )

    @property
    def size(self) -> int:
        """The context length."""
        return self.context_length

    def lengths(self) -> list[int]:
        """Numbers of examples at which the predictor is compared, up to twice the setting's."""
        n = self.context_length
        return sorted({max(1, round(share * n)) for share in (0.2, 0.5, 1, 2)})

    def at_length(self, length: int) -> Regression:
        """The same prompts with another number of examples."""
        return dataclasses.replace(self, context_length=length)

    def shifts(self, source: RandomStream, batch: int) -> dict[str, RegressionPrompts]:
        """Prompts of laws that differ from this one in one respect."""
        base = self.sample(source, batch)
        found = {
            "inputs x 2": _scaled(base, 2 * torch.ones(self.dimension).double()),
            "inputs x 1/2": _scaled(base, torch.ones(self.dimension).double() / 2),
            "labels x 3": dataclasses.replace(
                base, y_context=3 * base.y_context, y_query=3 * base.y_query, weights=3 * base.weights
            ),
            f"noise {self.noise + 0.5:g}": dataclasses.replace(self, noise=self.noise + 0.5).sample(source, batch),
        }
        if self.dimension > 1:
            skewed = torch.from_numpy(np.geomspace(2, 0.25, self.dimension))
            found["covariance skewed, 64 to 1"] = _scaled(base, skewed)
        if self.noise:
            found["no noise"] = dataclasses.replace(self, noise=0.0).sample(source, batch)
        for length in {max(1, self.context_length // 2), 2 * self.context_length}:
            found[f"{length} examples"] = self.at_length(length).sample(source, batch)
        return found

    def reordered(self, prompts: RegressionPrompts, source: RandomStream) -> RegressionPrompts:
        """The same examples in another order."""
        return permute_context(prompts, another_order(source, prompts.x_context.shape[1]))

    def sensitivities(
        self, predictor: Predictor, prompts: RegressionPrompts, source: RandomStream
    ) -> dict[str, Answer]:
        """Derivatives of the first answer by central differences: in the query, and along random directions of the context."""
        x, y, query = (value[:MOVED_PROMPTS] for value in self.given(prompts))
        query = query[:, :1]
        rng = source.rng()
        batch, count = len(x), self.dimension
        axes = torch.eye(count, dtype=x.dtype).expand(batch, count, count)
        moves = torch.from_numpy(rng.standard_normal((batch, DIRECTIONS, *x.shape[1:])))
        pulls = torch.from_numpy(rng.standard_normal((batch, DIRECTIONS, y.shape[1])))

        def at(sign: int, number: int, dx: Tensor | float, dy: Tensor | float, dq: Tensor | float) -> Tensor:
            step = sign * DIFFERENCE
            inputs = x[:, None] + step * float(x.std()) * dx, y[:, None] + step * float(y.std()) * dy
            asked = query[:, None] + step * float(x.std()) * dq
            many = [value.expand(-1, number, *value.shape[2:]).flatten(0, 1) for value in (*inputs, asked)]
            return predictor(*many)[:, 0].unflatten(0, (batch, number))

        slope = 1 / (2 * DIFFERENCE)
        by_query = at(1, count, 0.0, 0.0, axes[:, :, None]) - at(-1, count, 0.0, 0.0, axes[:, :, None])
        by_context = at(1, DIRECTIONS, moves, pulls, 0.0) - at(-1, DIRECTIONS, moves, pulls, 0.0)
        return {"query": slope * by_query, "context": slope * by_context}

    def stored(self, model: StoredModel) -> Predictor:
        """The predictor of a checkpoint.

        Raises:
            LabError: it reads tokens of another kind or size.
        """
        architecture = model.transformer.architecture
        size = architecture.input_size or architecture.width
        if architecture.vocabulary is not None:
            raise LabError(
                f"the checkpoint reads token ids of a vocabulary of {architecture.vocabulary}, but the prompts are "
                "examples of a regression; choose a task of tokens"
            )
        if size != self.dimension + 1:
            raise LabError(
                f"the checkpoint reads tokens of size {size}, inputs of dimension {size - 1} and a label, but the inputs "
                f"here have dimension {self.dimension}; add --dimension {size - 1}"
            )
        pattern = masks.in_context_causal if model.mask == "causal" else masks.in_context_prefix
        return as_regression_predictor(
            model.transformer, pattern, decode=lambda *given: model.sign * last_coordinate(*given), member=0
        )


def another_order(source: RandomStream, length: int) -> Int[Tensor, " length"]:
    """A random order that is not the one things stand in, of more than one thing."""
    order = random_orders(source, 1, length)[0]
    return order.roll(1) if torch.equal(order, torch.arange(length)) else order


def _scaled(prompts: RegressionPrompts, factors: Float[Tensor, " dimension"]) -> RegressionPrompts:
    """Inputs times a factor a coordinate, labels by the same weights with the same noise."""
    x_context, x_query = prompts.x_context * factors, prompts.x_query * factors
    moved = [
        ((new - old) @ prompts.weights[..., None])[..., 0]
        for new, old in ((x_context, prompts.x_context), (x_query, prompts.x_query))
    ]
    return dataclasses.replace(
        prompts,
        x_context=x_context,
        y_context=prompts.y_context + moved[0],
        x_query=x_query,
        y_query=prompts.y_query + moved[1],
    )


@dataclass(frozen=True)
class Chains:
    """In-context Markov chains
    (`lab.domains.chains.markov_prompts.dirichlet_chains`); the answer is the law of the token after the last."""

    states: int = 3
    """symbols"""
    length: int = 48
    """tokens of a sequence"""
    order: int = 1
    """symbols that the law of the next one hangs on"""
    concentration: float = 1.0
    """of the Dirichlet law of the rows"""
    prefix_length: int = 0
    """tokens at the start that see each other"""

    arguments = ("tokens", "prefix_length")
    error_unit = "divergence from the true law (nats)"
    log_answers = True

    def sample(self, source: RandomStream, batch: int) -> MarkovSequences:
        """Fresh sequences."""
        return dirichlet_chains(
            source, batch, states=self.states, length=self.length, order=self.order, concentration=self.concentration
        )

    def given(self, prompts: MarkovSequences) -> tuple[Tensor, Tensor]:
        """What a predictor is handed."""
        prefix = min(self.prefix_length, prompts.tokens.shape[1])
        return prompts.tokens, torch.full((len(prompts.tokens),), prefix)

    def shape(self, tokens: Tensor, prefix_length: Tensor) -> tuple[int, ...]:
        """Shape of an answer."""
        return (*tokens.shape, self.states)

    def answers(self, predictor: Predictor, prompts: MarkovSequences) -> Answer:
        """The law of the token after the last, minus the uniform law; 0 where that is rounding."""
        found = predictor(*self.given(prompts))[:, -1].exp() - 1 / self.states
        return torch.where(found.abs() < ROUNDING, 0.0, found)

    def errors(self, answers: Answer, prompts: MarkovSequences) -> Float[Tensor, " prompt"]:
        """Kullback-Leibler divergence from the true law of the token after the last."""
        order = round(math.log(prompts.table.shape[1]) / math.log(self.states))
        truth = true_law(prompts.table, prompts.tokens, order)[:, -1:].log()
        return kullback_leibler(truth, (answers + 1 / self.states).clamp_min(0).log()[:, None])[:, 0]

    def checks(self, predictor: Any) -> Iterator[Check]:
        """The contract of the protocol, at the sizes of this setting."""
        return token_predictor_checks(predictor, self.states, self.length)

    def candidates(self, prompts: MarkovSequences) -> Iterator[Candidate]:
        """The closed forms, to be fitted on ``prompts``."""
        return token_candidates(states=self.states, concentration=self.concentration)

    @property
    def size(self) -> int:
        """The context length."""
        return self.length

    def lengths(self) -> list[int]:
        """Numbers of tokens at which the predictor is compared, up to the setting's."""
        shares = (1 / 8, 1 / 4, 1 / 2, 1)
        return sorted({max(self.order + 1, round(share * self.length)) for share in shares})

    def at_length(self, length: int) -> Chains:
        """The same sequences with another number of tokens."""
        return dataclasses.replace(self, length=length)

    def shifts(self, source: RandomStream, batch: int) -> dict[str, MarkovSequences]:
        """Sequences of laws that differ from this one in one respect."""
        sizes: dict[str, Any] = {"states": self.states, "length": self.length}
        order = 2 if self.order == 1 else 1
        half = max(self.length // 2, self.order + 1)
        laws: dict[str, Callable[[], MarkovSequences]] = {
            "peaked rows": lambda: dataclasses.replace(self, concentration=self.concentration / 4).sample(
                source, batch
            ),
            "flat rows": lambda: dataclasses.replace(self, concentration=4 * self.concentration).sample(source, batch),
            f"chains of order {order}": lambda: dataclasses.replace(self, order=order).sample(source, batch),
            "useless symbol counts": lambda: doubly_stochastic_chains(source, batch, **sizes),
            "useless transitions": lambda: unigram_chains(source, batch, **sizes),
            f"{half} tokens": lambda: self.at_length(half).sample(source, batch),
        }
        found = {}
        for name, draw in laws.items():
            with contextlib.suppress(LabError):  # a law that cannot be drawn near this one is none to compare with
                found[name] = draw()
        return found

    def reordered(self, prompts: MarkovSequences, source: RandomStream) -> MarkovSequences:
        """The tokens before the last in another order."""
        order = another_order(source, prompts.tokens.shape[1] - 1)
        tokens = torch.cat([prompts.tokens[:, :-1][:, order], prompts.tokens[:, -1:]], dim=1)
        return dataclasses.replace(prompts, tokens=tokens)

    def sensitivities(self, predictor: Predictor, prompts: MarkovSequences, source: RandomStream) -> dict[str, Answer]:
        """How the law of the next token changes if one token becomes the next symbol: the last one, and each before it."""
        tokens = prompts.tokens[:MOVED_PROMPTS]
        batch, length = tokens.shape
        changed = tokens[:, None] + torch.eye(length, dtype=torch.int64)
        many = (changed % self.states).flatten(0, 1)
        tables = prompts.table[:batch]
        moved = self.answers(predictor, MarkovSequences(many, tables.repeat_interleave(length, 0)))
        still = self.answers(predictor, MarkovSequences(tokens, tables))
        moved = moved.view(batch, length, -1)
        difference = moved - still[:, None]
        return {"query": difference[:, -1], "context": difference[:, :-1].flatten(1)}

    def stored(self, model: StoredModel) -> Predictor:
        """The predictor of a checkpoint.

        Raises:
            LabError: it reads tokens of another kind, or another vocabulary.
        """
        vocabulary = model.transformer.architecture.vocabulary
        if vocabulary is None:
            raise LabError(
                "the checkpoint reads continuous tokens but the prompts are symbols; choose a task of regression"
            )
        if vocabulary != self.states:
            raise LabError(
                f"the checkpoint has a vocabulary of {vocabulary} but the chains here have {self.states} symbols; "
                f"add --states {vocabulary}"
            )

        def pattern(prefix_length: Tensor, length: int) -> Tensor:
            return masks.causal(length) if model.mask == "causal" else masks.prefix_masks(length, prefix_length)

        return as_token_predictor(model.transformer, pattern, member=0)


Setting = Regression | Chains
SETTINGS: dict[str, Setting] = {"linear-regression": Regression(), "markov-chains": Chains()}


def find_setting(name: str) -> Setting:
    """The setting called ``name``, or the one that the task of that name (or the file) holds at the top level of a part.

    Raises:
        LabError: there is no such setting or task, or the task offers no setting, or several.
    """
    if name in SETTINGS:
        return SETTINGS[name]
    if not name.endswith(".py"):
        tasks = [task for task in discover() if task.place == "tasks"]
        known = [*SETTINGS, *dict.fromkeys(name for task in tasks for name in (task.name, task.key))]
        if name not in known:
            raise LabError(f"unknown task {name!r}{nearest(name, known)}; tasks are {', '.join(known)}")
    parts = find_parts(name)
    values = [value for part in parts for value in vars(sys.modules[part.module]).values()]
    own = [value for value in values if isinstance(value, Regression | Chains)]
    if len(own) != 1:
        raise LabError(
            f"the task {name} offers {len(own)} settings to diagnose on but it must be one; give "
            f"{' or '.join(SETTINGS)}, or put a lab.diagnosis.settings.Regression or Chains at the top level of {parts[0].file.name}"
        )
    return own[0]
