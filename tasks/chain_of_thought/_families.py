"""The families of problems as one kind of thing: how to draw them, how many tokens there are, and where the answer stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from lab.decoding import decode
from lab.domains.derivations import arithmetic, equations, formulas
from lab.domains.derivations.sequences import STOP, Derivations
from lab.models import masks
from lab.models.transformer import Transformer
from lab.streams import RandomStream, stream
from lab.study import Fitted
from tasks.chain_of_thought._shared import CAUSAL, Network, by_length, study_of


@dataclass(frozen=True)
class Family:
    """Problems of one size, to be written in one of two formats.

    Args:
        draw: (stream, batch, format=...) to rows.
        vocabulary: number of tokens.
        answer: tokens of the answer, before the stop token.
        chance: of a guess that has not read the problem.
    """

    draw: Callable[..., Derivations]
    vocabulary: int
    answer: int
    chance: float

    def rows(self, source: RandomStream, batch: int, format: str) -> Derivations:
        return self.draw(source, batch, format=format)


def arithmetic_family(operators: int, modulus: int) -> Family:
    """Expressions; the answer is uniform."""
    draw = partial(arithmetic.arithmetic, operators=operators, modulus=modulus)
    return Family(draw, arithmetic.vocabulary_size(modulus), 1, 1 / modulus)


def equation_family(unknowns: int, modulus: int) -> Family:
    """Systems of equations; the solution is uniform."""
    draw = partial(equations.equations, unknowns=unknowns, modulus=modulus)
    vocabulary = equations.vocabulary_size(unknowns, modulus)
    return Family(draw, vocabulary, equations.lengths(unknowns)[-1], float(modulus) ** -unknowns)


def formula_family(depth: int) -> Family:
    """Boolean formulas; gates and constants are symmetric, so either value has probability 1/2."""
    return Family(partial(formulas.formulas, depth=depth), formulas.VOCABULARY, 1, 0.5)


def written_answers(module: Transformer, rows: Derivations, family: Family) -> Tensor:
    """Whether the last tokens that the only network writes before its first stop token are the right answer [row]."""
    length = rows.tokens.shape[1]
    right = torch.zeros(len(rows.tokens), dtype=torch.bool)
    for problem, chosen in by_length(rows).items():
        continued = decode(
            module, rows.tokens[chosen, :problem], masks.causal(length), length - problem, stop_token=STOP
        ).tokens[0]
        found, wanted = (answer_of(tokens, family.answer) for tokens in (continued, rows.tokens[chosen, problem:]))
        right[chosen] = (found == wanted).all(-1)
    return right


def answer_of(tokens: Tensor, size: int) -> Tensor:
    """The ``size`` tokens before the first stop token of each row; before the end where there is none."""
    stops = tokens == STOP
    end = torch.where(stops.any(-1), stops.int().argmax(-1), tokens.shape[-1])
    places = end[:, None] - size + torch.arange(size)
    return torch.where(places >= 0, tokens.gather(-1, places.clamp(min=0)), -1)


def train(
    family: Family, network: Network, layers: int, format: str, seeds: Sequence[int], name: str
) -> Fitted[Transformer]:
    """One causal network for every seed."""
    length = family.rows(stream(0, "length"), 1, format).tokens.shape[1] - 1
    study = study_of(network, layers, family.vocabulary, (length, 0))

    def draw(seed: int, step: int) -> Derivations:
        return family.rows(stream(seed, "chain of thought", "family", step), network.batch, format)

    return study.fit(seeds, draw, network.optimisation, name=name)


def accuracy(fitted: Fitted[Transformer], family: Family, format: str, seeds: Sequence[int], number: int) -> np.ndarray:
    """Share of ``number`` new problems a seed whose answer is right [seed]."""
    found = []
    for seed in seeds:
        rows = family.rows(stream(seed, "chain of thought", "family, test"), number, format)
        alone = fitted.of(seeds=[seed], arms=[CAUSAL])
        found.append(float(written_answers(alone.module, rows, family).double().mean()))
    return np.array(found)
