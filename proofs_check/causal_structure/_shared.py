"""What the parts share: the paper, graphs, transition matrices of the prior, counts of the test token's children."""

from __future__ import annotations

import numpy as np
import xarray as xr
from torch import Tensor

from lab import statistics
from lab.domains.chains.latent_graph_prompts import ROOT, chain, dirichlet_rows, pairs, random_forest, star
from lab.domains.chains.latent_graphs import row_of, transition_counts
from lab.streams import RandomStream, stream

PAPER = "nichani-2024-causal-structure"
FLOOR = 1e-3  # added to probabilities before the logarithm, wherever an output can be exactly 0


def grandparents(parents: tuple[int, ...]) -> tuple[int, ...]:
    """The wrong graph of the controls: everyone's parent's parent."""
    return tuple(ROOT if parent == ROOT else parents[parent] for parent in parents)


def graphs(nodes: int, source: RandomStream) -> dict[str, tuple[int, ...]]:
    """A chain, pairs, a star and two random forests."""
    return {
        "chain": chain(nodes),
        "pairs": pairs(nodes),
        "star": star(nodes),
        "forest": random_forest(source.child(0), nodes),
        "sparse forest": random_forest(source.child(1), nodes, 0.4),
    }


def prior_draws(seed: int, number: int, states: int = 3) -> Tensor:
    """Transition matrices of the prior with alpha = 1."""
    return dirichlet_rows(stream(seed, "matrices"), number, states, states, 1.0)


def last_row(tokens: Tensor, parents: tuple[int, ...], states: int) -> Tensor:
    """c(s, .) of the test token."""
    return row_of(transition_counts(tokens, parents, states), tokens[:, -1])


def log_slope(values: xr.DataArray) -> xr.DataArray:
    """Least-squares slope of log |values| against the log of the labels of the axis "length"."""
    places = np.log(values["length"])
    centred = places - places.mean()
    return (centred * np.log(abs(values))).sum("length") / (centred**2).sum()


QUOTIENTS = "rounding of quotients by mu >= min pi"


def quotient_bound(measured: xr.Dataset) -> float:
    """Rounding of quotients by the smallest entry of a transition matrix, ``smallest``."""
    return statistics.rounding_bound(60, 1 / float(measured["smallest"].min()))
