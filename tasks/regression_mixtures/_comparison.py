"""Every predictor on the same prompts, in the world of its training and in changed ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from lab.domains.regression import mixtures as theory
from lab.domains.regression.mixture_prompts import fresh_regression
from lab.labels import labelled
from lab.streams import stream
from tasks.regression_mixtures._shared import (
    CLOSED,
    FIRST,
    Network,
    World,
    closed_forms,
    mixture,
    shifted_prior,
    the_set,
)

PRIORS = ("uniform prior", "true prior")


def compare(world: World, seed: int, networks: Mapping[str, Network]) -> dict[str, xr.DataArray]:
    """Tests on new prompts of the seed's set and on weights outside it.

    Returns:
        ``error`` [arm, pairs] and ``closed`` [form, pairs], mean squared errors; ``distance`` [arm, form, pairs], mean squared
        distances; ``argmin excess`` [pairs], that of the argmin to the posterior mean; ``unseen`` [arm, known], distances after
        n - 1 pairs of prompts whose unit weights are not in the set.
    """
    every = range(world.length)
    test = mixture(world, seed, stream(seed, "prompts of the test"), world.test_prompts)
    forms = closed_forms(world, seed, test)
    answers = torch.stack([network(test, every) for network in networks.values()])
    unseen = fresh_regression(
        stream(seed, "weights of no component"),
        world.test_prompts,
        dimension=world.dimension,
        length=world.length,
        noise=world.noise,
        law="unit",
    )
    last = [world.length - 1]
    known = closed_forms(world, seed, unseen, FIRST)[..., last]
    unseen_answers = torch.stack([network(unseen, last) for network in networks.values()])
    arms, pairs = list(networks), list(every)
    return {
        "error": labelled(_squared(answers, test.y), arm=arms, pairs=pairs),
        "closed": labelled(_squared(forms, test.y), form=CLOSED, pairs=pairs),
        "distance": labelled(_squared(answers[:, None], forms), arm=arms, form=CLOSED, pairs=pairs),
        "argmin excess": labelled(_squared(forms[CLOSED.index("argmin")], forms[0]), pairs=pairs),
        "unseen": labelled(_squared(unseen_answers[:, None], known).mean(-1), arm=arms, known=FIRST),
    }


def change_scale(
    world: World, seed: int, networks: Mapping[str, Network], scales: Sequence[float], pairs: Sequence[int]
) -> dict[str, xr.DataArray]:
    """``scaled`` [scale, predictor]: mean squared errors on inputs c times as large, mean over these numbers of pairs."""
    places, rows = list(pairs), []
    for scale in scales:
        source = stream(seed, "stretched", repr(scale))
        test = mixture(world, seed, source, world.test_prompts, input_scale=scale)
        forms = closed_forms(world, seed, test, FIRST)[..., places]
        answers = torch.stack([network(test, places) for network in networks.values()])
        rows.append(_squared(torch.cat([answers, forms]), test.y[:, places]).mean(-1))
    return {"scaled": labelled(torch.stack(rows), scale=scales, predictor=[*networks, *FIRST])}


def change_frequencies(world: World, seed: int, networks: Mapping[str, Network]) -> dict[str, xr.DataArray]:
    """``frequencies`` [arm, prior]: squared distances to the posterior means of the uniform and of the true prior, after 0, 1 and
    2 pairs of prompts four fifths of which come from one component (mean over the three)."""
    few, prior = [0, 1, 2], shifted_prior(world)
    test = mixture(world, seed, stream(seed, "skewed frequencies"), world.test_prompts, prior=prior)
    components = the_set(world, seed)
    posteriors = torch.stack(
        [
            theory.running_posterior_mean(test.x, test.y, components, world.noise, known_prior)[:, few]
            for known_prior in ((), prior)
        ]
    )
    answers = torch.stack([network(test, few) for network in networks.values()])
    distances = _squared(answers[:, None], posteriors).mean(-1)
    return {"frequencies": labelled(distances, arm=list(networks), prior=PRIORS)}


def by_seed(rows: Sequence[Mapping[str, xr.DataArray]], seeds: Sequence[int]) -> dict[str, xr.DataArray]:
    """The same quantities of several seeds, the seed as first axis."""
    axis = pd.Index(list(seeds), name="seed")
    return {name: xr.concat([row[name] for row in rows], dim=axis) for name in rows[0]}


def _squared(first: Tensor, second: Tensor) -> Tensor:
    """Mean squared difference over the prompts, the last axis but one."""
    return (first - second).square().mean(-2)
