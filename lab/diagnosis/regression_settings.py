"""Settings of the regression protocol: linear functions, mixtures of a few of them, other classes of functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lab.checks import Check, regression_predictor_checks
from lab.diagnosis import mechanism
from lab.diagnosis.algorithms import Candidate, Predictor
from lab.diagnosis.attention_maps import Maps
from lab.diagnosis.closed_forms import Law, UserFile, regression_candidates
from lab.diagnosis.setting import Answer, Setting, another_order, user_candidates
from lab.domains.regression.function_class_prompts import FunctionClass, FunctionPrompts, Sizes, function_prompts
from lab.domains.regression.linear_attention import gradient_descent_network
from lab.domains.regression.mixture_prompts import component_set, regression_mixture
from lab.domains.regression.optimal_steps import NORMAL_KURTOSIS, UNIFORM_KURTOSIS
from lab.domains.regression.prompts import RegressionPrompts, linear_regression, pair_tokens
from lab.errors import LabError
from lab.evaluation import as_regression_predictor, last_coordinate
from lab.models import masks
from lab.models.checkpoint import StoredModel
from lab.streams import RandomStream, stream

# Inputs are moved by this share of their spread: the error is of its square, and float32 rounding stays below it.
DIFFERENCE = 1e-3
DIRECTIONS = 64  # random directions in which the context is moved
MOVED_PROMPTS = 16  # prompts whose inputs are moved


class Examples(Setting):
    """What all settings of the regression protocol share; the answers are the predictions."""

    dimension: int
    context_length: int

    arguments = ("x_context", "y_context", "x_query")
    kind = "regression"
    error_unit = "squared error"

    def law(self) -> Law:
        """What is known of the prompts."""
        return Law()

    def inputs_of(self, prompts: Any) -> tuple[Tensor, Tensor, Tensor]:
        """What a predictor is handed."""
        return prompts.x_context, prompts.y_context, prompts.x_query

    def shape(self, *inputs: Tensor) -> tuple[int, ...]:
        """Shape of an answer."""
        return tuple(inputs[2].shape[:2])

    def answers(self, predictor: Predictor, prompts: Any) -> Answer:
        """The predictions at all queries of each prompt."""
        return predictor(*self.inputs_of(prompts))

    def errors(self, answers: Answer, prompts: Any) -> Float[Tensor, " prompt"]:
        """Squared error against the clean labels, mean over the queries."""
        return (answers - prompts.y_query).square().mean(-1)

    def checks(self, predictor: Any) -> Iterator[Check]:
        """The contract of the protocol, at the sizes of this setting."""
        return regression_predictor_checks(predictor, self.dimension, self.context_length)

    def candidates(self, prompts: Any, user_file: UserFile | None = None) -> Iterator[Candidate]:
        """The closed forms, to be fitted on ``prompts``."""
        return regression_candidates(*self.inputs_of(prompts), self.law(), user_candidates(user_file, "regression"))

    @property
    def size(self) -> int:
        """The context length."""
        return self.context_length

    def lengths(self) -> list[int]:
        """Numbers of examples at which the predictor is compared, up to twice the setting's."""
        n = self.context_length
        return sorted({max(1, round(share * n)) for share in (0.2, 0.5, 1, 2)})

    def at_length(self, length: int) -> Examples:
        """The same prompts with another number of examples."""
        return dataclasses.replace(self, context_length=length)  # type: ignore[type-var]

    def shifts(self, source: RandomStream, batch: int) -> dict[str, Any]:
        """Prompts of other lengths and of larger labels."""
        base = self.sample(source, batch)
        larger = dataclasses.replace(base, y_context=3 * base.y_context, y_query=3 * base.y_query)
        return {"labels x 3": larger, **self.other_lengths(source, batch)}

    def other_lengths(self, source: RandomStream, batch: int) -> dict[str, Any]:
        """Prompts with half as many examples and with twice as many."""
        lengths = {max(1, self.context_length // 2), 2 * self.context_length}
        return {f"{length} examples": self.at_length(length).sample(source, batch) for length in sorted(lengths)}

    def reordered(self, prompts: Any, source: RandomStream) -> Any:
        """The same examples in another order."""
        order = another_order(source, prompts.x_context.shape[1])
        return dataclasses.replace(
            prompts, x_context=prompts.x_context[:, order], y_context=prompts.y_context[:, order]
        )

    def sensitivities(self, predictor: Predictor, prompts: Any, source: RandomStream) -> dict[str, Answer]:
        """Derivatives of the first answer by central differences: in the query, and along random directions of the context."""
        x, y, query = (value[:MOVED_PROMPTS] for value in self.inputs_of(prompts))
        query = query[:, :1]
        rng = source.rng()
        batch, count = len(x), self.dimension
        axes = torch.eye(count, dtype=x.dtype).expand(batch, count, count)
        moves = torch.from_numpy(rng.standard_normal((batch, DIRECTIONS, *x.shape[1:])))
        pulls = torch.from_numpy(rng.standard_normal((batch, DIRECTIONS, y.shape[1])))

        def at(sign: int, number: int, dx: Tensor | float, dy: Tensor | float, dq: Tensor | float) -> Tensor:
            step = sign * DIFFERENCE
            inputs = x[:, None] + step * float(x.std()) * dx, y[:, None] + step * float(y.std()) * dy
            moved_query = query[:, None] + step * float(x.std()) * dq
            many = [value.expand(-1, number, *value.shape[2:]).flatten(0, 1) for value in (*inputs, moved_query)]
            return predictor(*many)[:, 0].unflatten(0, (batch, number))

        slope = 1 / (2 * DIFFERENCE)
        by_query = at(1, count, 0.0, 0.0, axes[:, :, None]) - at(-1, count, 0.0, 0.0, axes[:, :, None])
        by_context = at(1, DIRECTIONS, moves, pulls, 0.0) - at(-1, DIRECTIONS, moves, pulls, 0.0)
        return {"query": slope * by_query, "context": slope * by_context}

    def watched(self, prompts: Any) -> tuple[Tensor, Tensor, Tensor]:
        """The examples and the first query."""
        x, y, query = self.inputs_of(prompts)
        return x, y, query[:, :1]

    def relations(self, prompts: Any, places: int) -> Mapping[str, mechanism.Targets]:
        """Between examples and the query, written as pairs or one after the other."""
        x, _, query = self.watched(prompts)
        return mechanism.between_examples(x, query, places)

    def constructions(self, prompts: Any, places: int) -> list[Maps]:
        """Gradient descent by linear attention, of pairs: every token sees the context, with weights x_i . x_j."""
        x, y, query = self.watched(prompts)
        if places != x.shape[1] + 1:
            return []
        network = gradient_descent_network(self.dimension, 1, step=1.0)
        mask = masks.in_context_prefix(x.shape[1], 1)
        return [mechanism.maps_of_construction(network, pair_tokens(x, y, query), mask)]

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
            model.transformer, pattern, decode=lambda *arguments: model.sign * last_coordinate(*arguments), member=0
        )


@dataclass(frozen=True)
class Regression(Examples):
    """In-context linear regression (`lab.domains.regression.prompts.linear_regression`)."""

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

    def law(self) -> Law:
        """What is known of the prompts."""
        normal = self.inputs == "normal"
        return Law(
            variance=float(np.mean(self.spectrum or (1.0,))) if normal else self.half_width**2 / 3,
            kurtosis=NORMAL_KURTOSIS if normal else UNIFORM_KURTOSIS,
            noise=self.noise,
            spectrum=self.spectrum,
        )

    def shifts(self, source: RandomStream, batch: int) -> dict[str, RegressionPrompts]:
        """Prompts of laws that differ from this one in one respect."""
        base = self.sample(source, batch)
        shifts = {
            "inputs x 2": _scaled(base, 2 * torch.ones(self.dimension).double()),
            "inputs x 1/2": _scaled(base, torch.ones(self.dimension).double() / 2),
            "labels x 3": dataclasses.replace(
                base, y_context=3 * base.y_context, y_query=3 * base.y_query, weights=3 * base.weights
            ),
            f"noise {self.noise + 0.5:g}": dataclasses.replace(self, noise=self.noise + 0.5).sample(source, batch),
        }
        if self.dimension > 1:
            skewed = torch.from_numpy(np.geomspace(2, 0.25, self.dimension))
            shifts["covariance skewed, 64 to 1"] = _scaled(base, skewed)
        if self.noise:
            shifts["no noise"] = dataclasses.replace(self, noise=0.0).sample(source, batch)
        return shifts | self.other_lengths(source, batch)


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
class Mixture(Examples):
    """In-context regression whose weights are one of a few (`lab.domains.regression.mixture_prompts.regression_mixture`)."""

    dimension: int = 5
    """of the inputs"""
    context_length: int = 10
    """examples of a prompt"""
    queries: int = 4
    """queries of a prompt"""
    components: int = 4
    """weights that there are"""
    geometry: Literal["orthonormal", "unit", "normal"] = "unit"
    """law of the weights: orthonormal, independent of length 1, or independent normal"""
    noise: float = 0.5
    """standard deviation of the noise on the labels of the context"""
    components_seed: int = 0
    """which set of weights"""

    def weights(self) -> Float[Tensor, "component dimension"]:
        """The set."""
        return component_set(
            stream(self.components_seed, "diagnosis", "components"), self.components, self.dimension, self.geometry
        )

    def sample(self, source: RandomStream, batch: int) -> RegressionPrompts:
        """Fresh prompts."""
        places = self.context_length + self.queries
        sequences = regression_mixture(source, batch, components=self.weights(), length=places, noise=self.noise)
        context, query = sequences.x.split([self.context_length, self.queries], dim=1)
        truth = (query @ sequences.weights[..., None])[..., 0]
        return RegressionPrompts(context, sequences.y[:, : self.context_length], query, truth, sequences.weights)

    def law(self) -> Law:
        """What is known of the prompts; the Bayes penalty is that of normal weights of the same second moment."""
        size = float(self.weights().square().sum(-1).mean()) / self.dimension
        return Law(noise=self.noise, penalty=self.noise**2 / size, components=self.weights())


@dataclass(frozen=True)
class Functions(Examples):
    """In-context learning of a class of functions (`lab.domains.regression.function_class_prompts.function_prompts`)."""

    function: FunctionClass = "sparse"
    """class of functions"""
    dimension: int = 5
    """of the inputs"""
    context_length: int = 10
    """examples of a prompt"""
    queries: int = 4
    """queries of a prompt"""
    noise: float = 0.0
    """standard deviation of the noise on the labels of the context"""
    sparsity: int = 2
    """coordinates that a sparse function reads"""
    hidden: int = 100
    """units of a ReLU network"""
    depth: int = 4
    """tests from the root of a tree to a leaf"""

    def sample(self, source: RandomStream, batch: int) -> FunctionPrompts:
        """Fresh prompts."""
        return function_prompts(
            source,
            batch,
            function=self.function,
            dimension=self.dimension,
            context_length=self.context_length,
            query_length=self.queries,
            noise=self.noise,
            sizes=Sizes(self.sparsity, self.hidden, self.depth),
        )

    def law(self) -> Law:
        """What is known of the prompts."""
        return Law(noise=self.noise)
