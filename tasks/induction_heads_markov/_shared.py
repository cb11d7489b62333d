"""What the parts share: chains, the strategies that a model is compared with, and trainings followed from their start."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from lab import Evidence
from lab.domains.chains.markov import TokenPredictor, markov_posterior, true_law, uniform_guess
from lab.domains.chains.markov_prompts import (
    MarkovSequences,
    dirichlet_chains,
    doubly_stochastic_chains,
    unigram_chains,
)
from lab.evaluation import kullback_leibler
from lab.figures import Panel
from lab.labels import LabelledArrays, labelled
from lab.streams import RandomStream, stream
from lab.study import Networks, Study
from lab.training import Batch, M, Optimisation

SLUG = "induction-heads-markov"
ROOT = "chains read in context"  # of every random stream of this sheet
STRATEGIES = ("uniform", "unigram", "bigram", "trigram")
PHASES = STRATEGIES[:3]  # what a model can be nearest to
BLOCK = 50  # updates whose data are drawn in one call


@dataclass(frozen=True)
class Sizes:
    """Sizes of a training on chains drawn in context."""

    trainings: int = 8
    """independent trainings an arm"""
    states: int = 3
    """symbols of the chains"""
    length: int = 32
    """tokens that a model reads"""
    batch: int = 32
    """sequences an update"""
    record_every: int = 10
    """updates between two evaluations"""
    test: int = 128
    """test sequences of each training"""
    order: int = 1
    """symbols on which the next one depends, on Dirichlet chains"""
    concentration: float = 1.0
    """of the rows of Dirichlet chains: below 1 they are peaked, above 1 flat"""


def chains(sizes: Sizes, ensemble: str, source: RandomStream, number: int) -> MarkovSequences:
    """Sequences of one token more than a model reads."""
    if ensemble == "dirichlet":
        order, concentration = sizes.order, sizes.concentration
        return dirichlet_chains(
            source, number, states=sizes.states, length=sizes.length + 1, order=order, concentration=concentration
        )
    sample = {"balanced": doubly_stochastic_chains, "equal rows": unigram_chains}
    return sample[ensemble](source, number, states=sizes.states, length=sizes.length + 1)


def strategies(sizes: Sizes) -> list[TokenPredictor]:
    """The predictors that a model is compared with, in the order of `STRATEGIES`."""
    counts = (markov_posterior(sizes.states, order, sizes.concentration) for order in range(3))
    return [uniform_guess(sizes.states), *counts]


@dataclass(frozen=True)
class Examination:
    """Test sequences of one training, what the strategies say to them, and the true rows."""

    tokens: Int[Tensor, "test token"]
    predictions: Float[Tensor, "strategy test token states"]
    truth: Float[Tensor, "test token states"]


@lru_cache(maxsize=64)
def examination(sizes: Sizes, ensemble: str, seed: int) -> Examination:
    """The test of one training."""
    sampled = chains(sizes, ensemble, stream(seed, ROOT, ensemble, "test"), sizes.test)
    tokens = sampled.tokens[:, :-1]
    predictions = [predict(tokens, torch.zeros(sizes.test).long()) for predict in strategies(sizes)]
    order = sizes.order if ensemble == "dirichlet" else 1
    return Examination(tokens, torch.stack(predictions), true_law(sampled.table, tokens, order))


def asked_tokens(
    sizes: Sizes, ensemble: str, seeds: Sequence[int], number: int | None = None
) -> dict[int, dict[str, Tensor]]:
    """For each seed the tokens of its test (of the first ``number`` sequences), as networks are asked."""
    return {seed: {"tokens": examination(sizes, ensemble, seed).tokens[:number]} for seed in seeds}


def compare(
    sizes: Sizes, ensemble: str, seeds: Sequence[int], logits: Float[Tensor, "model test token states"], first: int = 0
) -> dict[str, Tensor]:
    """Divergences from the strategies [model, strategy] and losses [model] of models, at the positions from ``first`` on.

    Args:
        seeds: of each model.
        logits: its answers to its test sequences.
    """
    logs = logits.double().log_softmax(-1)[:, :, first:]
    tests = [examination(sizes, ensemble, seed) for seed in seeds]
    predictions = torch.stack([test.predictions for test in tests], 1)[:, :, :, first:]
    losses = -(torch.stack([test.truth for test in tests])[:, :, first:] * logs).sum(-1)
    return {
        "divergence": kullback_leibler(predictions, logs.unsqueeze(0)).mean((-1, -2)).T,
        "cross_entropy": losses.mean((-1, -2)),
        "loss_by_position": losses.mean(1),
    }


def references(sizes: Sizes, ensemble: str, seeds: Sequence[int], first: int = 0) -> dict[str, xr.DataArray]:
    """The same losses of the strategies, and the divergence of the unigram from uniform."""
    tests = [examination(sizes, ensemble, seed) for seed in seeds]
    predictions = torch.stack([test.predictions for test in tests], 1)[:, :, :, first:]
    losses = -(torch.stack([test.truth for test in tests])[:, :, first:] * predictions).sum(-1)
    uniform, unigram = predictions[0], predictions[1]
    axes: dict[str, Sequence[Any]] = {"seed": seeds, "strategy": STRATEGIES}
    return {
        "reference": labelled(losses.mean((-1, -2)).T, **axes),
        "reference_by_position": labelled(
            losses.mean(2).transpose(0, 1), **axes, position=range(first + 1, sizes.length + 1)
        ),
        "unigram_from_uniform": labelled(kullback_leibler(uniform, unigram).mean((-1, -2)), seed=seeds),
    }


def follow(
    study: Study[M],
    seeds: Sequence[int],
    sample: Callable[[int, int, int], Batch],
    optimisation: Optimisation,
    *,
    batch: int,
    measure: Callable[[Networks[M]], Mapping[str, Tensor]],
    every: int,
    name: str,
    **axes: Mapping[str, Sequence[Any] | None],
) -> xr.Dataset:
    """Train a study and measure it every few updates, from the untrained networks (update 0) on.

    Args:
        sample: (seed, number of a block, count) to that many prompts.
        batch: prompts an update.
        measure, axes: as of `Study.fit`; what is measured comes back as [seed, arm, update, ...].
    """
    fitted = study.fit(
        seeds, sample, optimisation, blocks=(batch, BLOCK), measure=measure, measure_every=every, axes=axes, name=name
    )
    arms = list(study.arms)
    untrained = {
        key: labelled(
            values.reshape(len(seeds), len(arms), 1, *values.shape[1:]),
            seed=seeds,
            arm=arms,
            update=[0],
            **axes.get(key, {}),
        )
        for key, values in measure(study.untrained(seeds)).items()
    }
    trained = fitted.history[list(untrained)].drop_vars("learning_rate")
    return xr.concat([xr.Dataset(untrained), trained], "update")


def arrays(history: xr.Dataset) -> LabelledArrays:
    """What a measurement returns of a history."""
    return {str(name): values for name, values in history.data_vars.items()}


def nearest(divergence: xr.DataArray, among: Sequence[str] = PHASES) -> xr.DataArray:
    """Which of the strategies ``among`` is nearest (of uniform, unigram and bigram unless said otherwise)."""
    return divergence.sel(strategy=list(among)).idxmin("strategy")


def first_update(holds: xr.DataArray) -> xr.DataArray:
    """The update at which a condition is first met; the last update where it never is."""
    updates = holds["update"]
    return updates.where(holds).min("update").fillna(updates.max())


def bigram_time(divergence: xr.DataArray) -> xr.DataArray:
    """The update of the transition: the first at which the bigram is nearest."""
    return first_update(nearest(divergence) == "bigram")


def steepness(loss: xr.DataArray, stretch: int) -> tuple[xr.DataArray, xr.DataArray]:
    """How much faster a loss falls in its steepest stretch of updates than in the slowest before (log), and where that ends.

    A stretch in which the loss rises counts as one in which it falls by a millionth.
    """
    records = int((loss["update"] <= loss["update"][0] + stretch).sum()) - 1
    fall = (loss.shift(update=records) - loss).isel(update=slice(records, None))
    steepest = fall["update"].isel(update=fall.argmax("update"))
    slowest = fall.where(fall["update"] <= steepest).min("update")
    ratio: xr.DataArray = xr.apply_ufunc(np.log, fall.max("update") / slowest.clip(min=1e-6))
    return ratio, steepest


def share_of_gap(measured: xr.Dataset) -> xr.DataArray:
    """Excess loss over the bigram (Bayes) in units of the unigram's: 0 is Bayes, 1 the unigram."""
    bigram, unigram = (measured["reference"].sel(strategy=name) for name in ("bigram", "unigram"))
    return (measured["cross_entropy"] - bigram) / (unigram - bigram)


def most(hits: xr.DataArray, description: str) -> Evidence:
    """More than half of all trainings would do it: an exact binomial interval of those that did."""
    return Evidence.proportion(int(hits.sum()), hits.size, ">", 0.5, f"most trainings; {description}")


MIDDLE = "half-way between the bigram (0) and the unigram (1) in excess loss"


def plot_phases(panel: Panel, divergence: xr.DataArray) -> None:
    """Divergences [seed, update, strategy] against updates, on a background that names the nearest strategy."""
    updates = divergence["update"].values
    names = nearest(divergence.mean("seed")).values
    edges = np.concatenate([updates[:1], (updates[1:] + updates[:-1]) / 2, updates[-1:]])
    for name, places in itertools.groupby(range(len(updates)), key=lambda place: str(names[place])):
        inside = list(places)
        panel.region(edges[inside[0]], edges[inside[-1] + 1], look=STRATEGIES.index(name))
    for look, name in enumerate(STRATEGIES):
        panel.curve(divergence.sel(strategy=name), over="update", name=name, look=look)
